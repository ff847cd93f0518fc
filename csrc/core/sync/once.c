/* once.c -- a function that is to succeed once. The state table is in once.h.
 *
 * A waiter marks the word before it parks, and parks only if it is still marked under the lock of its bucket; so who ends a
 * run and finds no mark has nobody to wake. After a failure all who wait are woken: failures are rare, and one who is woken
 * alone might have no time left to try.
 */
#include "platform/futex.h"
#include "sync/waiting.h"

#include <pyruntime/current.h>
#include <pyruntime/once.h>

#include <pthread.h>

static void
end_run(pyrt_once *once, uint8_t next)
{
    /* relaxed: only its own thread compares it with itself. */
    pyrt_store_relaxed(&once->runner, (const void *)NULL);
    /* seq_cst: as release for all who see it done, or run it next. Pairs with the acquire of pyrt_once_is_done and of the
     * compare-and-swaps in call_until. */
    if (pyrt_exchange_seq_cst(&once->state, next) == PYRT_ONCE_WAITED) {
        (void)pyrt_unpark_all(once, 0);
    }
}

/* The OS thread ends inside of fn. */
static void
fail_run(void *once)
{
    end_run(once, PYRT_ONCE_NEW);
}

static pyrt_status
run(pyrt_once *once, pyrt_status (*fn)(void *), void *arg)
{
    pyrt_status status;
    pyrt_store_relaxed(&once->runner, pyrt_os_thread_identity());
    pthread_cleanup_push(fail_run, once);
    status = fn(arg);
    pthread_cleanup_pop(0);
    end_run(once, status == PYRT_OK ? PYRT_ONCE_DONE : PYRT_ONCE_NEW);
    return status;
}

/* Under the bucket's lock. */
static bool
is_waited_for(void *arg)
{
    const pyrt_once *once = arg;
    /* relaxed: an end that is seen late unparks under the same lock, after this. */
    return pyrt_load_relaxed(&once->state) == PYRT_ONCE_WAITED;
}

static pyrt_status
call_until(pyrt_once *once, pyrt_status (*fn)(void *), void *arg, int64_t deadline, unsigned flags, const char *function)
{
    pyrt_parking parking = {
        .address = once,
        .function = function,
        .validate = is_waited_for,
        .arg = once,
        .deadline = deadline,
        .since = deadline == 0 ? 0 : pyrt_now_ns(),
        .flags = flags,
        .look_at = INT64_MAX,
    };
    for (;;) {
        uint8_t state = PYRT_ONCE_NEW;
        /* seq_cst, here and below: as acquire it pairs with end_run; the mark comes before the look under the bucket's
         * lock. */
        if (pyrt_cas_seq_cst(&once->state, &state, (uint8_t)PYRT_ONCE_RUNNING)) {
            return run(once, fn, arg);
        }
        if (state == PYRT_ONCE_DONE) {
            return PYRT_OK;
        }
        if (pyrt_load_relaxed(&once->runner) == pyrt_os_thread_identity()) {
            return PYRT_EDEADLK;
        }
        if (deadline == 0) {
            return PYRT_ETIMEDOUT;
        }
        if (state == PYRT_ONCE_RUNNING && !pyrt_cas_seq_cst(&once->state, &state, (uint8_t)PYRT_ONCE_WAITED) &&
            state != PYRT_ONCE_WAITED) {
            continue;
        }
        pyrt_status status = pyrt_park_as(&parking);
        if (status == PYRT_ETIMEDOUT || status == PYRT_EINTR) {
            return pyrt_once_is_done(once) ? PYRT_OK : status;
        }
        if (parking.interrupted && !pyrt_once_is_done(once)) {
            return PYRT_EINTR;
        }
    }
}

pyrt_status
pyrt_once_call_slow(pyrt_once *once, pyrt_status (*fn)(void *arg), void *arg)
{
    return call_until(once, fn, arg, INT64_MAX, PYRT_LOCK_DETACH, "pyrt_once_call");
}

pyrt_status
pyrt_once_call_timed(pyrt_once *once, pyrt_status (*fn)(void *arg), void *arg, int64_t timeout_ns, unsigned flags)
{
    if ((flags & ~PYRT_LOCK_FLAGS) != 0) {
        return PYRT_EINVAL;
    }
    if (pyrt_once_is_done(once)) {
        return PYRT_OK;
    }
    int64_t deadline = timeout_ns == 0 ? 0 : pyrt_deadline_after(timeout_ns);
    return call_until(once, fn, arg, deadline, flags, "pyrt_once_call_timed");
}

void
pyrt_once_at_fork_reinit(pyrt_once *once)
{
    pyrt_store_relaxed(&once->runner, (const void *)NULL);
    if (pyrt_load_relaxed(&once->state) != PYRT_ONCE_DONE) {
        pyrt_store_relaxed(&once->state, (uint8_t)PYRT_ONCE_NEW);
    }
}
