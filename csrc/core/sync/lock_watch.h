/* lock_watch.h -- what locks tell while they are watched (lock_debug.h): called in their long ways only, and doing nothing
 * while it is off. A lock takes care that its long ways are taken while pyrt_lock_watch_is_on().
 *
 * A call with a lock of this library held is not allowed: what is found is reported here.
 */
#ifndef PYRT_SYNC_LOCK_WATCH_H
#define PYRT_SYNC_LOCK_WATCH_H

#include <pyruntime/lock_debug.h>

extern uint32_t pyrt_lock_watching;

static inline bool
pyrt_lock_watch_is_on(void)
{
    /* acquire: pairs with the release when it is switched on; the cells say PYRT_PARKED_ALWAYS before. */
    return pyrt_load_acquire(&pyrt_lock_watching) != 0;
}

/* The calling thread is going to lock it, and to wait if it must. `fresh`: the lock was not marked as watched, so that
 * nothing from before is true of it. */
void pyrt_watch_asks(const void *lock, bool fresh);

/* The calling thread has it. */
void pyrt_watch_took(const void *lock);

/* The calling thread holds it (NULL: nothing) in a critical section, and gives it up when it waits. */
void pyrt_watch_suspendable(const void *lock);

/* It is going to be unlocked. */
void pyrt_watch_lets_go(const void *lock, bool fresh);

/* Which OS thread holds it; 0: none that is known. */
uint64_t pyrt_watch_holder(const void *lock, pyrt_lock_hold *out);

/* Around a real sleep on an address, with the thread attached or detached as it will sleep. */
void pyrt_watch_sleeps(const void *address);
void pyrt_watch_woke(const void *address);

/* The OS thread ends. */
void pyrt_watch_thread_ends(void);

/* Around a fork: the tables are whole in the child, where only the forking thread holds anything. */
void pyrt_watch_fork_prepare(void);
void pyrt_watch_fork_parent(void);
void pyrt_watch_fork_child(void);

#endif
