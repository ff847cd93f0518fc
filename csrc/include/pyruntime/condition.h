/* SPDX-License-Identifier: MIT
 *
 * condition.h -- waiting, with a mutex let go, until another thread says that something has changed.
 *
 *      pyrt_mutex_lock(&mutex);                             pyrt_mutex_lock(&mutex);
 *      while (!ready) {                                     ready = true;
 *          pyrt_condition_wait(&changed, &mutex);           pyrt_condition_notify_one(&changed);
 *      }                                                    pyrt_mutex_unlock(&mutex);
 *      ...
 *      pyrt_mutex_unlock(&mutex);
 *
 * A waiter is queued before it lets the mutex go, so a notification that follows a change made under the mutex does not
 * miss it. Each notification goes to one thread that was waiting, the one that has waited longest, and it is not lost: a
 * thread that is chosen while its time runs out, or while a signal comes, was notified, and says so. It does not wait
 * without one, but what it waits for may have been undone before it has the mutex again, so it looks.
 *
 * When several are notified, one is woken and the others are moved to the queue of the mutex, where each unlock wakes the
 * next: they would only have run into each other. All who wait at the same time do so with the same mutex.
 *
 * The field changes under the lock of the parking lot's bucket; it means nothing while nobody is queued on the condition.
 */
#ifndef PYRUNTIME_CONDITION_H
#define PYRUNTIME_CONDITION_H

#include "recursive_mutex.h"

PYRT_BEGIN_DECLS

/* cdef: begin */
typedef struct pyrt_condition {
    pyrt_mutex *mutex; /* what the waiters wait with */
} pyrt_condition;
/* cdef: end */

#define PYRT_CONDITION_INIT {NULL}

/* The long way of the inline functions below; call those. */
size_t pyrt_condition_notify_slow(pyrt_condition *condition, size_t count);

/* Wakes up to `count` waiting threads, those that have waited longest, and answers how many. With or without the mutex.
 * blocks: shortly, if somebody waits · allocates: no · runs user code: no · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
static inline size_t
pyrt_condition_notify(pyrt_condition *condition, size_t count)
{
    /* relaxed: a waiter counted itself in the cell before it unlocked the mutex, under which the change was made. */
    return pyrt_parked_near(condition) != 0 ? PYRT_CALL(condition_notify_slow)(condition, count) : 0;
}

static inline size_t
pyrt_condition_notify_one(pyrt_condition *condition)
{
    return pyrt_condition_notify(condition, 1);
}

static inline size_t
pyrt_condition_notify_all(pyrt_condition *condition)
{
    return pyrt_condition_notify(condition, SIZE_MAX);
}

/* cdef: begin */
/* Unlocks the mutex, waits to be notified, detached (PYRT_LOCK_DETACH), and locks the mutex again. Errors, with the mutex
 * as it was and nothing waited for: PYRT_ESTATE if it is not locked; PYRT_EINVAL if others wait with another mutex.
 * blocks: yes · allocates: no · runs user code: no · quiescent: may · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_condition_wait(pyrt_condition *condition, pyrt_mutex *mutex);

/* The same within a time. 0: the mutex stays locked and it is PYRT_ETIMEDOUT; negative: no end. `flags` are PYRT_LOCK_....
 * The mutex is locked again with any answer, which may take longer than the time. Errors beside those above: PYRT_ETIMEDOUT,
 * and PYRT_EINTR with PYRT_LOCK_INTERRUPTIBLE, both without having been notified; PYRT_EINVAL for unknown flags.
 * blocks: yes · allocates: no · runs user code: no · quiescent: may · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_condition_wait_timed(pyrt_condition *condition, pyrt_mutex *mutex, int64_t timeout_ns, unsigned flags);

/* The same with a recursive mutex, which is unlocked however often its owner has it locked, and locked as often again.
 * PYRT_ESTATE if the calling OS thread does not own it.
 * blocks: yes · allocates: no · runs user code: no · quiescent: may · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_condition_wait_recursive(pyrt_condition *condition, pyrt_recursive_mutex *mutex, int64_t timeout_ns,
                                          unsigned flags);

/* In the child of a fork, where nobody waits any more.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
void pyrt_condition_at_fork_reinit(pyrt_condition *condition);
/* cdef: end */

PYRT_END_DECLS
#endif /* PYRUNTIME_CONDITION_H */
