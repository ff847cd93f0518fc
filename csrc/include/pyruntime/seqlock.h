/* SPDX-License-Identifier: MIT
 *
 * seqlock.h -- reading several words as one, without writing: look at the sequence, read, look again.
 *
 *      reader                                               writer
 *      do {                                                 pyrt_seqlock_write_lock(&lock);
 *          begun = pyrt_seqlock_read_begin(&lock);          pyrt_store_release(&x, new_x);
 *          x = pyrt_load_acquire(&data.x);                  pyrt_store_release(&y, new_y);
 *          y = pyrt_load_acquire(&data.y);                  pyrt_seqlock_write_unlock(&lock);
 *      } while (pyrt_seqlock_read_retry(&lock, begun));
 *
 * The data are words that a reader may find half changed before it sees that it has to try again; so they are read with
 * acquire loads and written with release stores, and what a reader follows (a pointer) has to be valid until its second
 * look. No fence is needed then: a reader that has loaded a new word has acquired with it that the sequence is odd, and its
 * second look cannot come before its acquire loads. Readers never wait for readers, and never delay a writer; a reader that
 * had to try again too often may lock the writers out instead (write_lock, read, write_unlock).
 *
 * Writers exclude each other by a pyrt_mutex, and wait as for one; so does a reader that finds one inside. In a pause of its
 * own a thread must not wait for a writer that stands still: write_trylock tells.
 *
 * State of `sequence`: odd while a writer is inside; a writer adds one at its begin and one at its end, under `writers`. It
 * does not wrap in 64 bits.
 */
#ifndef PYRUNTIME_SEQLOCK_H
#define PYRUNTIME_SEQLOCK_H

#include "mutex.h"

PYRT_BEGIN_DECLS

/* cdef: begin */
typedef struct pyrt_seqlock {
    uint64_t sequence;
    pyrt_mutex writers;
} pyrt_seqlock;
/* cdef: end */

#define PYRT_SEQLOCK_INIT {0, PYRT_MUTEX_INIT}

/* The long ways of the inline functions below; call those. */
uint64_t pyrt_seqlock_read_begin_slow(pyrt_seqlock *lock);
void pyrt_seqlock_write_unlock_slow(pyrt_seqlock *lock);

/* Begins to read; answers what read_retry wants. While a writer is inside it waits for that, detached.
 * blocks: while a writer is inside · allocates: no · runs user code: no · quiescent: may · needs attached: no ·
 * async-signal-safe: no */
static inline uint64_t
pyrt_seqlock_read_begin(pyrt_seqlock *lock)
{
    /* acquire: pairs with the release in write_unlock. */
    uint64_t sequence = pyrt_load_acquire(&lock->sequence);
    return pyrt_likely((sequence & 1) == 0) ? sequence : PYRT_CALL(seqlock_read_begin_slow)(lock);
}

/* Whether a writer came in between, so that what was read (with acquire loads) may not belong together.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
static inline bool
pyrt_seqlock_read_retry(const pyrt_seqlock *lock, uint64_t begun)
{
    /* relaxed: it comes after the acquire loads of the data. Pairs with the store in write_lock, which comes before the
     * release stores of the data. */
    return pyrt_load_relaxed(&lock->sequence) != begun;
}

/* Keeps other writers out; readers that are inside will try again. From here to the unlock the data are changed with release
 * stores.
 * blocks: yes · allocates: no · runs user code: no · quiescent: may · needs attached: no · async-signal-safe: no */
static inline void
pyrt_seqlock_write_lock(pyrt_seqlock *lock)
{
    pyrt_mutex_lock(&lock->writers);
    /* relaxed, and before the release stores of the data: see read_retry. */
    pyrt_store_relaxed(&lock->sequence, pyrt_load_relaxed(&lock->sequence) + 1);
}

/* The same, if that is possible at once.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
static inline bool
pyrt_seqlock_write_trylock(pyrt_seqlock *lock)
{
    if (!pyrt_mutex_trylock(&lock->writers)) {
        return false;
    }
    /* relaxed: as in write_lock. */
    pyrt_store_relaxed(&lock->sequence, pyrt_load_relaxed(&lock->sequence) + 1);
    return true;
}

/* Ends it, on whichever thread. Without a writer inside it is reported and changes nothing.
 * blocks: shortly, if somebody waits · allocates: no · runs user code: no · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
static inline void
pyrt_seqlock_write_unlock(pyrt_seqlock *lock)
{
    uint64_t sequence = pyrt_load_relaxed(&lock->sequence);
    if (pyrt_unlikely((sequence & 1) == 0)) {
        PYRT_CALL(seqlock_write_unlock_slow)(lock);
        return;
    }
    /* release: who begins to read with the new sequence sees the data. Pairs with read_begin. */
    pyrt_store_release(&lock->sequence, sequence + 1);
    pyrt_mutex_unlock(&lock->writers);
}

/* cdef: begin */
/* write_lock within a time. 0: as trylock; negative: no end. `flags` are PYRT_LOCK_.... Errors, with nothing locked: as
 * pyrt_mutex_lock_timed.
 * blocks: yes · allocates: no · runs user code: no · quiescent: may · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_seqlock_write_lock_timed(pyrt_seqlock *lock, int64_t timeout_ns, unsigned flags);

/* In the child of a fork, where the writer may be gone: no writer is inside. True if there was one: the data may be half
 * changed, and are the caller's to mend.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
bool pyrt_seqlock_at_fork_reinit(pyrt_seqlock *lock);
/* cdef: end */

PYRT_END_DECLS
#endif /* PYRUNTIME_SEQLOCK_H */
