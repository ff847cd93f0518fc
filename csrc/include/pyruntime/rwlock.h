/* SPDX-License-Identifier: MIT
 *
 * rwlock.h -- many readers or one writer.
 *
 * Readers of one lock do not disturb each other: while a lock is *biased*, a reader writes nothing that is shared. Each OS
 * thread has a row of slots, found from its thread-local block; a reader writes the lock's address into a slot of its own
 * row, and looks whether the lock is still biased:
 *
 *      reader                                           writer
 *      store slot = lock                                clear BIASED, set DRAINING
 *      light barrier                                    membarrier
 *      load state: BIASED -> the lock is held           look through all rows: wait for who holds the lock
 *
 * Either the reader sees that the bias is gone, or the writer sees the slot. The reader leaves with a plain store, as a
 * mutex is unlocked: a writer that waits is seen in the parking lot's cell. Without the bias (after a writer, for the next
 * PYRT_RWLOCK_UNBIASED_READS reads; where the kernel has no membarrier; in a thread that got no row; when the slot holds
 * another lock) readers are counted in the word, and the row only remembers what this thread holds.
 *
 * Whoever finds a writer in the way waits at the *gate*, a pyrt_mutex, and so in the order and with the fairness of
 * mutex.h: the writer holds the gate as long as it holds the lock, a reader passes through it. So neither side starves: a
 * writer that has the gate only waits for readers that are inside already, and readers behind it come before the next
 * writer that is behind them. Like the reservation of a mutex, what a waiting writer has of the lock is given back when it
 * cannot go on because the world is stopped or its OS thread ends; it then queues up again at the head. In a pause of the
 * world of its own, a reader does not wait for a writer that only waits itself; for one that holds the lock, as a writer does
 * for readers, it waits without end if that one stands still. So there the forms that try, or have a time, are the right ones.
 *
 * State table of `state`:
 *
 *   bit                     meaning                                    who sets it                      who clears it
 *   PYRT_RWLOCK_WRITER      a writer holds the lock; no other bit is   a writer that has the gate       it, on unlock
 *   PYRT_RWLOCK_DRAINING    a writer waits for readers that are        a writer that has the gate       it, or who gives
 *                           inside; no new ones come in                                                 it back
 *   PYRT_RWLOCK_BIASED      readers may hold it by their slots only;   a reader that comes in by the    a writer that has
 *                           never with the two above                   word; a writer that gives up     the gate
 *                                                                      while readers are in slots
 *   bits 8 to 31            readers that hold it by the word           readers, + and - PYRT_RWLOCK_READER
 *
 * State table of a slot, which only its own thread writes:
 *   NULL                    free
 *   a lock                  held because it was biased, in the slot of its address; or about to find out that it is not
 *   a lock + 1              held by the word, in any slot: remembered, so that misuse can be told. While that is not the
 *                           slot of its address, the thread leaves the inline way in alone, which would not see it
 *
 * A thread must not lock for reading twice, or lock for writing what it reads or writes: it would wait for itself. That is
 * PYRT_EDEADLK, in every build, as long as the thread holds no more read locks than a row remembers. Locks are left by the
 * OS thread that took them. An OS thread that ends with read locks is reported, and they are taken from it; one that ends
 * as writer leaves the lock locked for ever.
 */
#ifndef PYRUNTIME_RWLOCK_H
#define PYRUNTIME_RWLOCK_H

#include "current.h"
#include "mutex.h"

PYRT_BEGIN_DECLS

/* cdef: begin */
typedef struct pyrt_rwlock {
    uint32_t state;
    pyrt_mutex gate;
    uint8_t unbiased_reads; /* so many more by the word before the lock is biased again; a hint */
    const void *writer;     /* the identity (current.h) of the OS thread that holds it as writer, or NULL */
} pyrt_rwlock;
/* cdef: end */

#define PYRT_RWLOCK_INIT {0, PYRT_MUTEX_INIT, 0, NULL}

#define PYRT_RWLOCK_WRITER 1u
#define PYRT_RWLOCK_DRAINING 2u
#define PYRT_RWLOCK_BIASED 4u
#define PYRT_RWLOCK_READER 0x100u

enum { PYRT_RWLOCK_UNBIASED_READS = 200, PYRT_READER_SLOTS = 8 };

/* A thread's read locks. On cache lines that no other row is on, nor is fetched along with. */
typedef struct PYRT_ALIGNED(128) pyrt_reader_row {
    const void *slots[PYRT_READER_SLOTS];
} pyrt_reader_row;

/* The long ways of the inline functions below; call those. */
pyrt_status pyrt_rwlock_read_lock_slow(pyrt_rwlock *lock);
bool pyrt_rwlock_read_trylock_slow(pyrt_rwlock *lock);
void pyrt_rwlock_read_unlock_slow(pyrt_rwlock *lock);
void pyrt_rwlock_wake(const pyrt_rwlock *address_only);

/* The biased way in. False: not that way. */
static inline bool
pyrt_rwlock_read_fast(pyrt_rwlock *lock)
{
    pyrt_reader_row *row = PYRT_TLS.reader_row;
    if (pyrt_unlikely(row == NULL)) {
        return false;
    }
    const void **slot = &row->slots[pyrt_parking_index(lock) % PYRT_READER_SLOTS];
    /* relaxed: the slot is this thread's, and the state is looked at once more. */
    if (pyrt_unlikely(pyrt_load_relaxed(slot) != NULL || (pyrt_load_relaxed(&lock->state) & PYRT_RWLOCK_BIASED) == 0)) {
        return false;
    }
    pyrt_store_relaxed(slot, (const void *)lock);
    /* Store, then load, of two words. Pairs with the membarrier of a writer that has cleared the bias. */
    pyrt_light_barrier();
    /* acquire: pairs with the release of the last writer, which whoever set the bias has acquired. */
    if (pyrt_unlikely((pyrt_load_acquire(&lock->state) & PYRT_RWLOCK_BIASED) == 0)) {
        /* A writer may wait for this slot; the long way looks. */
        pyrt_store_relaxed(slot, (const void *)NULL);
        return false;
    }
    return true;
}

/* Locks for reading; waits as long as it takes, detached (PYRT_LOCK_DETACH). Errors, with nothing locked: PYRT_EDEADLK if
 * this OS thread holds it already, either way; PYRT_EOVERFLOW with 2^24 - 1 readers.
 * blocks: yes · allocates: no · runs user code: no · quiescent: may · needs attached: no · async-signal-safe: no */
static inline pyrt_status
pyrt_rwlock_read_lock(pyrt_rwlock *lock)
{
    return pyrt_likely(pyrt_rwlock_read_fast(lock)) ? PYRT_OK : PYRT_CALL(rwlock_read_lock_slow)(lock);
}

/* Locks for reading if that is possible at once: nobody writes or waits for readers to leave, even if only to try.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
static inline bool
pyrt_rwlock_read_trylock(pyrt_rwlock *lock)
{
    return pyrt_likely(pyrt_rwlock_read_fast(lock)) || PYRT_CALL(rwlock_read_trylock_slow)(lock);
}

/* Ends reading, on the OS thread that began it; otherwise it is reported and changes nothing.
 * blocks: shortly, if a writer waits · allocates: no · runs user code: no · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
static inline void
pyrt_rwlock_read_unlock(pyrt_rwlock *lock)
{
    pyrt_reader_row *row = PYRT_TLS.reader_row;
    size_t index = pyrt_parking_index(lock);
    /* relaxed: the slot is this thread's. */
    if (pyrt_unlikely(row == NULL || pyrt_load_relaxed(&row->slots[index % PYRT_READER_SLOTS]) != lock)) {
        PYRT_CALL(rwlock_read_unlock_slow)(lock);
        return;
    }
    /* release: pairs with the acquire of the writer that looks through the rows. */
    pyrt_store_release(&row->slots[index % PYRT_READER_SLOTS], (const void *)NULL);
    /* Store, then load, of two words. Pairs with the waiting writer, which calls pyrt_membarrier() between counting
     * itself in the cell and its last look at the rows. */
    pyrt_light_barrier();
    if (pyrt_unlikely(pyrt_load_relaxed(&PYRT_PARKING_CELL_TABLE[index]) != 0)) {
        PYRT_CALL(rwlock_wake)(lock);
    }
}

/* Whether the calling OS thread holds it as writer.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
static inline bool
pyrt_rwlock_is_owned(const pyrt_rwlock *lock)
{
    /* relaxed: a thread finds itself there only if it wrote that itself. */
    return pyrt_load_relaxed(&lock->writer) == pyrt_os_thread_identity();
}

/* Whether a writer holds it at this moment.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
static inline bool
pyrt_rwlock_is_write_locked(const pyrt_rwlock *lock)
{
    return (pyrt_load_relaxed(&lock->state) & PYRT_RWLOCK_WRITER) != 0;
}

/* cdef: begin */
/* Locks for writing; waits as long as it takes, detached (PYRT_LOCK_DETACH). Errors, with nothing locked: PYRT_EDEADLK if
 * this OS thread holds it already, either way.
 * blocks: yes · allocates: no · runs user code: no · quiescent: may · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_rwlock_write_lock(pyrt_rwlock *lock);

/* Locks for writing if that is possible at once.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
bool pyrt_rwlock_write_trylock(pyrt_rwlock *lock);

/* Ends writing, on the OS thread that began it; otherwise it is reported and changes nothing. The memory of the lock may
 * go as soon as another thread can lock it for writing.
 * blocks: shortly, if somebody waits · allocates: no · runs user code: no · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
void pyrt_rwlock_write_unlock(pyrt_rwlock *lock);

/* Both within a time. 0: as trylock; negative: no end. `flags` are PYRT_LOCK_.... Errors beside those of the forms without a
 * time, with nothing locked: PYRT_ETIMEDOUT; PYRT_EINTR with PYRT_LOCK_INTERRUPTIBLE; PYRT_EINVAL for unknown flags.
 * blocks: yes · allocates: no · runs user code: no · quiescent: may · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_rwlock_read_lock_timed(pyrt_rwlock *lock, int64_t timeout_ns, unsigned flags);
pyrt_status pyrt_rwlock_write_lock_timed(pyrt_rwlock *lock, int64_t timeout_ns, unsigned flags);

/* How many readers hold it, about: they come and go while they are counted.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
size_t pyrt_rwlock_readers(const pyrt_rwlock *lock);

/* How many threads wait for it, readers and writers together.
 * blocks: shortly · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
size_t pyrt_rwlock_waiters(const pyrt_rwlock *lock);

/* In the child of a fork, where readers and the writer may be gone: unlocked. The calling thread does not hold it any more
 * either.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
void pyrt_rwlock_at_fork_reinit(pyrt_rwlock *lock);
/* cdef: end */

PYRT_END_DECLS
#endif /* PYRUNTIME_RWLOCK_H */
