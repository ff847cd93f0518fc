/* condition.c -- waiting for a change. The idea is in condition.h.
 *
 * Why a thread that was moved is woken: one thread is always woken by the notification itself, after the others are on the
 * queue of the mutex. It locks the mutex later than that and so, when it unlocks, sees them counted in the cell, and every
 * unlock wakes the next. If it cannot lock the mutex at once it owes the wake-up, as anyone whom an unlock has woken
 * (waiting.h): whoever gives it back wakes the next too.
 */
#include "platform/futex.h"
#include "sync/waiting.h"

#include <pyruntime/condition.h>

typedef struct condition_wait {
    pyrt_parking parking;
    pyrt_condition *condition;
    pyrt_mutex *mutex;
    bool refused;  /* others wait with another mutex */
    bool unlocked; /* the mutex, so that it waited */
} condition_wait;

static void
count_out(pyrt_condition *condition)
{
    pyrt_fetch_add_seq_cst(&condition->waiting, -1u);
}

/* Under the bucket's lock. */
static bool
count_in(void *arg)
{
    condition_wait *wait = arg;
    pyrt_condition *condition = wait->condition;
    /* relaxed: waits begin, and are ended by others, under this lock; a count that goes down late only refuses longer. */
    if (pyrt_load_relaxed(&condition->waiting) == 0) {
        pyrt_store_relaxed(&condition->mutex, wait->mutex);
    }
    wait->refused = pyrt_load_relaxed(&condition->mutex) != wait->mutex;
    if (!wait->refused) {
        pyrt_fetch_add_seq_cst(&condition->waiting, 1u);
    }
    return !wait->refused;
}

/* Queued, so that no notification misses it. */
static bool
let_go(void *arg)
{
    condition_wait *wait = arg;
    wait->unlocked = true;
    pyrt_mutex_unlock(wait->mutex);
    return true;
}

static bool
was_moved(const condition_wait *wait)
{
    /* relaxed: it is not queued any more. */
    return pyrt_load_relaxed(&wait->parking.key) == wait->mutex;
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
                    .validate = count_in,
                    .before_sleep = let_go,
                    .woken = note_woken,
                    .deadline = deadline,
                    .since = deadline == 0 ? 0 : pyrt_now_ns(),
                    .flags = flags,
                    .look_at = INT64_MAX},
        .condition = condition,
        .mutex = mutex,
    };
    wait.parking.arg = &wait;
    pyrt_waiter_may_end();
    pyrt_status status = pyrt_park_as(&wait.parking);
    if (wait.refused) {
        return PYRT_EINVAL;
    }
    count_out(condition);
    if (!wait.unlocked) {
        return status; /* there was no time left */
    }
    if (status != PYRT_OK && was_moved(&wait)) {
        status = PYRT_OK;
    }
    if (!pyrt_mutex_claim(mutex)) {
        (void)pyrt_mutex_lock_until(mutex, INT64_MAX, flags & PYRT_LOCK_NO_DETACH, function);
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
