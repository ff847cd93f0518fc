/* SPDX-License-Identifier: MIT
 *
 * once.h -- a function that is to succeed once, however many threads ask for it.
 *
 *      static pyrt_once once = PYRT_ONCE_INIT;
 *      static pyrt_status make_table(void *arg);
 *      ...
 *      status = pyrt_once_call(&once, make_table, NULL);
 *
 * The first caller runs it and the others wait. If it answers PYRT_OK they all go on, and whoever calls later only looks at
 * a byte; what it did is visible to all of them. Any other answer goes to the caller that ran it, and another one, now or
 * later, tries again.
 *
 * State table of `state`:
 *
 *   value                meaning                               who sets it
 *   PYRT_ONCE_NEW        has not succeeded; nobody runs it     who ran it, after a failure or at the end of its OS thread
 *   PYRT_ONCE_RUNNING    somebody runs it                      who runs it, NEW -> RUNNING
 *   PYRT_ONCE_WAITED     somebody runs it, and others wait     a waiter, RUNNING -> WAITED
 *   PYRT_ONCE_DONE       it has succeeded                      who ran it; it stays so
 */
#ifndef PYRUNTIME_ONCE_H
#define PYRUNTIME_ONCE_H

#include "parking_lot.h"

PYRT_BEGIN_DECLS

/* cdef: begin */
typedef struct pyrt_once {
    const void *runner; /* the identity (current.h) of the OS thread that runs it, or NULL */
    uint8_t state;
} pyrt_once;
/* cdef: end */

#define PYRT_ONCE_INIT {NULL, 0}

#define PYRT_ONCE_NEW 0u
#define PYRT_ONCE_RUNNING 1u
#define PYRT_ONCE_WAITED 2u
#define PYRT_ONCE_DONE 3u

/* The long way of the inline function below; call that. */
pyrt_status pyrt_once_call_slow(pyrt_once *once, pyrt_status (*fn)(void *arg), void *arg);

/* Whether it has succeeded. What it did is visible then.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
static inline bool
pyrt_once_is_done(const pyrt_once *once)
{
    /* acquire: pairs with the exchange at the end of the run. */
    return pyrt_load_acquire(&once->state) == PYRT_ONCE_DONE;
}

/* Makes sure that `fn` has succeeded once. PYRT_OK: it has. Errors: what `fn(arg)` answered here; PYRT_EDEADLK if this OS
 * thread is inside of `fn` already. If the OS thread ends inside of `fn` (pthread_exit), that is a failure too, and the next
 * one runs it. `fn` must not leave by longjmp or a C++ exception.
 * blocks: yes · allocates: no · runs user code: fn · quiescent: may · needs attached: no · async-signal-safe: no */
static inline pyrt_status
pyrt_once_call(pyrt_once *once, pyrt_status (*fn)(void *arg), void *arg)
{
    return pyrt_likely(pyrt_once_is_done(once)) ? PYRT_OK : PYRT_CALL(once_call_slow)(once, fn, arg);
}

/* cdef: begin */
/* The same, but waits for another thread's run within a time. 0: does not wait; negative: no end. `flags` are
 * PYRT_LOCK_.... Errors beside those above: PYRT_ETIMEDOUT; PYRT_EINTR with PYRT_LOCK_INTERRUPTIBLE; PYRT_EINVAL for unknown
 * flags.
 * blocks: yes · allocates: no · runs user code: fn · quiescent: may · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_once_call_timed(pyrt_once *once, pyrt_status (*fn)(void *arg), void *arg, int64_t timeout_ns,
                                 unsigned flags);

/* In the child of a fork, where the thread that ran it may be gone: done stays done, anything else is new.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
void pyrt_once_at_fork_reinit(pyrt_once *once);
/* cdef: end */

PYRT_END_DECLS
#endif /* PYRUNTIME_ONCE_H */
