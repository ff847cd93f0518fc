/* raw_mutex.h -- the lock of the library's own lists: four bytes, never detaches, never runs user code while held.
 *
 * Held for a look at a list or a short system call, never while user code runs, so that waiting for it does not count as
 * blocking. Order in which they are taken: registry, interpreter, unique ids, merge queues, the dead of an interpreter, orphans,
 * stripes of weak references, merging for ended owners, switch of lock debugging, its tables, the list of the interpreters'
 * memory, their pools, their heaps, their arenas, the beginning of the process's memory, its pool, its arenas, numbers of
 * owners, metadata, report, buckets of the parking lot. Zero is unlocked; after a fork the child simply zeroes it.
 *
 * State table of `word`:
 *   0  unlocked
 *   1  locked, nobody sleeps           set by the owner (0 -> 1)
 *   2  locked, somebody may sleep      set by a waiter (exchange); the unlock then wakes one
 */
#ifndef PYRT_RAW_MUTEX_H
#define PYRT_RAW_MUTEX_H

#include <pyruntime/atomic.h>

typedef struct pyrt_raw_mutex {
    uint32_t word;
} pyrt_raw_mutex;

void pyrt_raw_mutex_lock(pyrt_raw_mutex *mutex);
bool pyrt_raw_mutex_trylock(pyrt_raw_mutex *mutex);
void pyrt_raw_mutex_unlock(pyrt_raw_mutex *mutex);

/* In the child of a fork, where its owner may be gone. */
void pyrt_raw_mutex_reinit(pyrt_raw_mutex *mutex);

#endif
