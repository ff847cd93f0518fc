/* SPDX-License-Identifier: MIT
 *
 * recursive_mutex.h -- a mutex that its owner may lock again.
 *
 * The owner is an OS thread, known by an identity (current.h) that no other has or will have; so it works without the
 * runtime and for threads without a state. Who waits, waits as for a pyrt_mutex, with all that mutex.h
 * says of it. An OS thread that ends with the mutex locked leaves it locked for ever.
 *
 * Fields:
 *   mutex    locked from the owner's first lock to its last unlock
 *   owner    written by the owner while it holds `mutex`; others read it only to see that it is not they
 *   depth    the owner's; 0 when nobody owns it
 */
#ifndef PYRUNTIME_RECURSIVE_MUTEX_H
#define PYRUNTIME_RECURSIVE_MUTEX_H

#include "current.h"
#include "mutex.h"

PYRT_BEGIN_DECLS

/* cdef: begin */
typedef struct pyrt_recursive_mutex {
    const void *owner;
    size_t depth;
    pyrt_mutex mutex;
} pyrt_recursive_mutex;
/* cdef: end */

#define PYRT_RECURSIVE_MUTEX_INIT {NULL, 0, PYRT_MUTEX_INIT}

/* The long way of the inline function below; call that. */
void pyrt_recursive_mutex_unlock_slow(pyrt_recursive_mutex *mutex);

/* Whether the calling OS thread owns it.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
static inline bool
pyrt_recursive_mutex_is_owned(const pyrt_recursive_mutex *mutex)
{
    /* relaxed: a thread finds itself there only if it wrote that itself. */
    return pyrt_load_relaxed(&mutex->owner) == pyrt_os_thread_identity();
}

/* How often the calling OS thread has it locked; 0 if it does not own it.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
static inline size_t
pyrt_recursive_mutex_depth(const pyrt_recursive_mutex *mutex)
{
    return pyrt_recursive_mutex_is_owned(mutex) ? mutex->depth : 0;
}

/* Whether somebody owns it at this moment.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
static inline bool
pyrt_recursive_mutex_is_locked(const pyrt_recursive_mutex *mutex)
{
    return pyrt_mutex_is_locked(&mutex->mutex);
}

/* Locks, once more if it is one's own; waits as long as it takes, detached (PYRT_LOCK_DETACH).
 * blocks: yes · allocates: no · runs user code: no · quiescent: may · needs attached: no · async-signal-safe: no */
static inline void
pyrt_recursive_mutex_lock(pyrt_recursive_mutex *mutex)
{
    if (!pyrt_recursive_mutex_is_owned(mutex)) {
        pyrt_mutex_lock(&mutex->mutex);
        pyrt_store_relaxed(&mutex->owner, pyrt_os_thread_identity());
    }
    mutex->depth++;
}

/* Locks if that is possible at once.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
static inline bool
pyrt_recursive_mutex_trylock(pyrt_recursive_mutex *mutex)
{
    if (!pyrt_recursive_mutex_is_owned(mutex)) {
        if (!pyrt_mutex_trylock(&mutex->mutex)) {
            return false;
        }
        pyrt_store_relaxed(&mutex->owner, pyrt_os_thread_identity());
    }
    mutex->depth++;
    return true;
}

/* Undoes one lock; the last one unlocks. Only the owner may: otherwise it is reported and changes nothing. The memory of the
 * mutex may go as soon as another thread can lock it.
 * blocks: shortly, if somebody waits · allocates: no · runs user code: no · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
static inline void
pyrt_recursive_mutex_unlock(pyrt_recursive_mutex *mutex)
{
    if (pyrt_unlikely(!pyrt_recursive_mutex_is_owned(mutex))) {
        PYRT_CALL(recursive_mutex_unlock_slow)(mutex);
        return;
    }
    if (--mutex->depth == 0) {
        pyrt_store_relaxed(&mutex->owner, (const void *)NULL);
        pyrt_mutex_unlock(&mutex->mutex);
    }
}

/* cdef: begin */
/* Locks within a time. 0: as trylock; negative: no end. `flags` are PYRT_LOCK_.... Errors, with nothing locked: as
 * pyrt_mutex_lock_timed.
 * blocks: yes · allocates: no · runs user code: no · quiescent: may · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_recursive_mutex_lock_timed(pyrt_recursive_mutex *mutex, int64_t timeout_ns, unsigned flags);

/* In the child of a fork, where the owner may be gone: unlocked.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
void pyrt_recursive_mutex_at_fork_reinit(pyrt_recursive_mutex *mutex);
/* cdef: end */

PYRT_END_DECLS
#endif /* PYRUNTIME_RECURSIVE_MUTEX_H */
