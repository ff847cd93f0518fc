/* SPDX-License-Identifier: MIT
 *
 * mutex.h -- a lock of one byte.
 *
 * Locking takes one read-modify-write, unlocking a plain store: that somebody waits is not written into the byte but seen
 * in the parking lot's cell, which the unlocker looks at after its store. A waiter queues itself, makes every running thread
 * pass a barrier (membarrier), and looks at the byte once more before it sleeps; so one of the two sees the other.
 *
 * State table of `state`:
 *
 *   value           meaning                                    who sets it
 *   0               unlocked                                   the owner, on unlock
 *   1               locked                                     the locker, 0 -> 1; the waiter it was reserved for, 3 -> 1
 *   3               reserved: unlocked for the waiter that     the owner, on unlock, under the bucket's lock, when the first
 *                   was woken, locked for everybody else       waiter has waited for a millisecond
 *   bit 7           watched (lock_debug.h)                     the unlocker's long way, and pyrt_lock_name, while locks are
 *                                                              watched; taken off by the long ways after that
 *
 * A reservation is how waiting ends fairly without anybody owning a lock in its sleep: the woken waiter takes back what the
 * host's locks it needs, attaches, and only then makes the lock its own. If it cannot attach because the world is stopped, it
 * gives the reservation back first and queues up again at the head; if its OS thread ends instead, the reservation is given
 * back too; and who finds a reservation inside of its own pause of the world, or has looked at one for
 * PYRT_MUTEX_RESERVED_NS (a trylock: twice, so long apart), takes it. So one whose thread was lost in a fork holds nobody up.
 * A waiter whose reservation is gone queues up again at the head.
 *
 * A thread may be quiescent in a lock that is contended (law: what is read before is not protected after), and its critical
 * sections are suspended while it waits. A mutex works without the runtime, from any thread, from static zero. It is neither
 * recursive nor shared between processes.
 */
#ifndef PYRUNTIME_MUTEX_H
#define PYRUNTIME_MUTEX_H

#include "parking_lot.h"

PYRT_BEGIN_DECLS

/* cdef: begin */
typedef struct pyrt_mutex {
    uint8_t state; /* zero is unlocked */
} pyrt_mutex;
/* cdef: end */

#define PYRT_MUTEX_INIT {0}

#define PYRT_MUTEX_UNLOCKED 0u
#define PYRT_MUTEX_LOCKED 1u
#define PYRT_MUTEX_RESERVED 3u
#define PYRT_MUTEX_WATCHED 0x80u

#define PYRT_MUTEX_FAIR_NS 1000000      /* a waiter that has waited so long gets the lock next */
#define PYRT_MUTEX_RESERVED_NS 10000000 /* a reservation that nobody makes use of for so long is anybody's */

/* The long ways of the inline functions below; call those. */
void pyrt_mutex_lock_slow(pyrt_mutex *mutex);
bool pyrt_mutex_trylock_slow(pyrt_mutex *mutex);
void pyrt_mutex_unlock_slow(pyrt_mutex *mutex);
void pyrt_mutex_wake(const pyrt_mutex *address_only);

/* cdef: begin */
/* Locks within a time. 0: as trylock; negative: no end. `flags` are PYRT_LOCK_.... Errors, with the lock not taken:
 * PYRT_ETIMEDOUT; PYRT_EINTR with PYRT_LOCK_INTERRUPTIBLE; PYRT_EINVAL for unknown flags; PYRT_EDEADLK if this OS thread has
 * stopped the world and the lock is held by a thread that stands still (known only while locks are watched).
 * blocks: yes · allocates: no · runs user code: no · quiescent: may · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_mutex_lock_timed(pyrt_mutex *mutex, int64_t timeout_ns, unsigned flags);

/* In the child of a fork, where the owner may be gone: unlocked.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
void pyrt_mutex_at_fork_reinit(pyrt_mutex *mutex);
/* cdef: end */

/* Locks; waits as long as it takes, detached (PYRT_LOCK_DETACH). In a pause that this OS thread has made, an owner that stands
 * still is waited for without end, which is reported while locks are watched.
 * blocks: yes · allocates: no · runs user code: no · quiescent: may · needs attached: no · async-signal-safe: no */
static inline void
pyrt_mutex_lock(pyrt_mutex *mutex)
{
#if defined(PYRT_DEBUG)
    if (PYRT_CALL(park_is_reading)("pyrt_mutex_lock")) {
        (void)PYRT_CALL(mutex_lock_timed)(mutex, -1, PYRT_LOCK_NO_DETACH);
        return;
    }
#endif
    uint8_t unlocked = PYRT_MUTEX_UNLOCKED;
    /* acquire: pairs with the release store of the unlock. */
    if (pyrt_unlikely(!pyrt_cas_acquire(&mutex->state, &unlocked, (uint8_t)PYRT_MUTEX_LOCKED))) {
        PYRT_CALL(mutex_lock_slow)(mutex);
    }
}

/* Locks if that is possible at once.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
static inline bool
pyrt_mutex_trylock(pyrt_mutex *mutex)
{
    uint8_t unlocked = PYRT_MUTEX_UNLOCKED;
    /* acquire: as in pyrt_mutex_lock. Only a lock that nobody holds, but is watched or reserved, is worth the long way. */
    return pyrt_cas_acquire(&mutex->state, &unlocked, (uint8_t)PYRT_MUTEX_LOCKED) ||
           (pyrt_unlikely((unlocked & (PYRT_MUTEX_WATCHED | PYRT_MUTEX_RESERVED)) != PYRT_MUTEX_LOCKED) &&
            PYRT_CALL(mutex_trylock_slow)(mutex));
}

/* Unlocks, on whichever thread. Unlocking what is not locked is reported and changes nothing. The memory of the mutex may go
 * as soon as another thread can lock it.
 * blocks: shortly, if somebody waits · allocates: no · runs user code: no · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
static inline void
pyrt_mutex_unlock(pyrt_mutex *mutex)
{
    const uint32_t *cell = &PYRT_PARKING_CELL_TABLE[pyrt_parking_index(mutex)];
    /* relaxed: the state is the owner's, and a waiter that is seen late is seen below. */
    if (pyrt_unlikely(((pyrt_load_relaxed(&mutex->state) ^ PYRT_MUTEX_LOCKED) | pyrt_load_relaxed(cell)) != 0)) {
        PYRT_CALL(mutex_unlock_slow)(mutex);
        return;
    }
    /* release: pairs with the acquire of the next owner. */
    pyrt_store_release(&mutex->state, (uint8_t)PYRT_MUTEX_UNLOCKED);
    /* Store, then load, of two words. Pairs with the waiter, who calls pyrt_membarrier() between counting itself in the cell
     * and its last look at the state. */
    pyrt_light_barrier();
    if (pyrt_unlikely(pyrt_load_relaxed(cell) != 0)) {
        PYRT_CALL(mutex_wake)(mutex);
    }
}

/* Whether somebody holds it (or has it reserved) at this moment.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
static inline bool
pyrt_mutex_is_locked(const pyrt_mutex *mutex)
{
    return (pyrt_load_relaxed(&mutex->state) & PYRT_MUTEX_LOCKED) != 0;
}

PYRT_END_DECLS
#endif /* PYRUNTIME_MUTEX_H */
