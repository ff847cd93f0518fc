/* condition.c -- waiting for a change. The idea is in condition.h.
 *
 * Why a thread that was moved is woken: one thread is always woken by the notification itself, after the others are on the
 * queue of the mutex. It locks the mutex later than that and so, when it unlocks, sees them counted in the cell, and every
 * unlock wakes the next. If it cannot lock the mutex at once it owes the wake-up, as anyone whom an unlock has woken
 * (waiting.h): whoever gives it back wakes the next too. Only a host that keeps a woken thread in its hook for ever is not
 * heard of: so, where there are hooks, a thread that waits looks from time to time whether it was moved, and then waits as
 * one that locks the mutex, which looks by itself. */
#include "platform/futex.h"
#include "platform/report.h"
#include "sync/waiting.h"

#include <pyruntime/condition.h>

typedef struct condition_wait {
    pyrt_parking parking;
    pyrt_condition *condition;
    pyrt_mutex *mutex;
    int64_t period; /* when to look again, each time after twice as long */
    bool refused;   /* others wait with another mutex */
    bool unlocked;  /* the mutex, so that it waited */
} condition_wait;

/* Looks are to cost nothing. */
enum { FIRST_PERIOD_NS = 10 * PYRT_MUTEX_RESERVED_NS };
#define LONGEST_PERIOD_NS ((int64_t)64 * FIRST_PERIOD_NS)

/* Under the bucket's lock. The queue itself says whether others wait: whoever is not in it any more is past, also if it never
 * came back from its host's hook. */
static bool
is_with_the_others(void *arg)
{
    condition_wait *wait = arg;
    pyrt_condition *condition = wait->condition;
    /* relaxed: it changes under this lock. */
    if (pyrt_parking_is_queue_empty(condition)) {
        pyrt_store_relaxed(&condition->mutex, wait->mutex);
    }
    wait->refused = pyrt_load_relaxed(&condition->mutex) != wait->mutex;
    return !wait->refused;
}

static bool
was_moved(const condition_wait *wait)
{
    /* relaxed: it is moved once. Who is still queued may see it late, and looks again. */
    return pyrt_load_relaxed(&wait->parking.key) == wait->mutex;
}

/* Queued, so that no notification misses it. Again, in the sleep, when it was to look: false if it was moved. */
static bool
let_go(void *arg)
{
    condition_wait *wait = arg;
    if (!wait->unlocked) {
        wait->unlocked = true;
        pyrt_mutex_unlock(wait->mutex);
    }
    else if (was_moved(wait)) {
        return false;
    }
    if (pyrt_block_hooks_are_set()) {
        wait->parking.look_at = pyrt_now_ns() + wait->period;
        wait->period = wait->period < LONGEST_PERIOD_NS ? 2 * wait->period : wait->period;
    }
    return true;
}

/* By a notification, or, once moved, by an unlock of the mutex. Both want it to lock the mutex. */
static void
note_woken(void *arg, uintptr_t token)
{
    condition_wait *wait = arg;
    pyrt_mutex_note_woken(wait->mutex, was_moved(wait) ? token : (uintptr_t)PYRT_MUTEX_TOKEN_FREE);
}

static pyrt_status
wait_until(pyrt_condition *condition, pyrt_mutex *mutex, int64_t deadline, unsigned flags, const char *function)
{
    if (!pyrt_mutex_is_locked(mutex)) {
        return PYRT_ESTATE;
    }
    condition_wait wait = {
        .parking = {.address = condition,
                    .function = function,
                    .validate = is_with_the_others,
                    .before_sleep = let_go,
                    .woken = note_woken,
                    .deadline = deadline,
                    .since = deadline == 0 ? 0 : pyrt_now_ns(),
                    .flags = flags,
                    .look_at = INT64_MAX},
        .condition = condition,
        .mutex = mutex,
        .period = FIRST_PERIOD_NS,
    };
    wait.parking.arg = &wait;
    pyrt_waiter_may_end();
    pyrt_status status = pyrt_park_as(&wait.parking);
    if (wait.refused) {
        return PYRT_EINVAL;
    }
    if (!wait.unlocked) {
        return status; /* there was no time left */
    }
    flags &= PYRT_LOCK_NO_DETACH;
    if (status != PYRT_OK && was_moved(&wait)) {
        /* It has waited for the mutex already. */
        flags |= PYRT_PARK_FRONT;
        status = PYRT_OK;
    }
    if (!pyrt_mutex_claim(mutex)) {
        (void)pyrt_mutex_lock_until(mutex, INT64_MAX, flags, function);
    }
    return status;
}

pyrt_status
pyrt_condition_wait(pyrt_condition *condition, pyrt_mutex *mutex)
{
    return wait_until(condition, mutex, INT64_MAX, PYRT_LOCK_DETACH, "pyrt_condition_wait");
}

pyrt_status
pyrt_condition_wait_timed(pyrt_condition *condition, pyrt_mutex *mutex, int64_t timeout_ns, unsigned flags)
{
    if ((flags & ~PYRT_LOCK_FLAGS) != 0) {
        return PYRT_EINVAL;
    }
    int64_t deadline = timeout_ns == 0 ? 0 : pyrt_deadline_after(timeout_ns);
    return wait_until(condition, mutex, deadline, flags, "pyrt_condition_wait_timed");
}

pyrt_status
pyrt_condition_wait_recursive(pyrt_condition *condition, pyrt_recursive_mutex *mutex, int64_t timeout_ns, unsigned flags)
{
    if ((flags & ~PYRT_LOCK_FLAGS) != 0) {
        return PYRT_EINVAL;
    }
    if (!pyrt_recursive_mutex_is_owned(mutex)) {
        return PYRT_ESTATE;
    }
    size_t depth = mutex->depth;
    mutex->depth = 0;
    pyrt_store_relaxed(&mutex->owner, (const void *)NULL);
    int64_t deadline = timeout_ns == 0 ? 0 : pyrt_deadline_after(timeout_ns);
    pyrt_status status = wait_until(condition, &mutex->mutex, deadline, flags, "pyrt_condition_wait_recursive");
    pyrt_store_relaxed(&mutex->owner, pyrt_os_thread_identity());
    mutex->depth = depth;
    return status;
}

/* Under the locks of both buckets. */
static bool
is_mutex_still(void *arg)
{
    const condition_wait *expected = arg;
    return pyrt_load_relaxed(&expected->condition->mutex) == expected->mutex;
}

size_t
pyrt_condition_notify_slow(pyrt_condition *condition, size_t count)
{
    if (count == 0) {
        return 0;
    }
    if (count == 1) {
        return pyrt_unpark_one(condition, NULL, NULL) ? 1 : 0;
    }
    pyrt_requeued done;
    condition_wait expected = {.condition = condition};
    do {
        expected.mutex = pyrt_load_relaxed(&condition->mutex);
        done = pyrt_requeue(condition, expected.mutex, 1, count - 1, 0, is_mutex_still, &expected);
        /* Nobody waited, or the first of a new group brought another mutex in between. */
    } while (done.woken == 0 && pyrt_load_relaxed(&condition->mutex) != expected.mutex);
    return done.woken + done.moved;
}

void
pyrt_condition_at_fork_reinit(pyrt_condition *condition)
{
    *condition = (pyrt_condition)PYRT_CONDITION_INIT;
}
