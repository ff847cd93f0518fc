/* test_event.c -- the flag that threads wait for, sentence by sentence (event.h). */
#include "steps.h"
#include "support.h"
#include "workers.h"

#include <signal.h>

typedef struct timed_wait {
    pyrt_event *event;
    int64_t timeout_ns;
    unsigned flags;
    pyrt_status status;
} timed_wait;

static void
wait_for(void *event)
{
    pyrt_event_wait(event);
}

static void
wait_timed(void *arg)
{
    timed_wait *wait = arg;
    wait->status = pyrt_event_wait_timed(wait->event, wait->timeout_ns, wait->flags);
}

/* ---- one thread -------------------------------------------------------------------------------------------------- */

TEST(zero_is_clear)
{
    static pyrt_event zero;
    pyrt_event initialised = PYRT_EVENT_INIT;
    CHECK(!pyrt_event_is_set(&zero));
    CHECK(!pyrt_event_is_set(&initialised));
    CHECK_UINT(sizeof(pyrt_event), 1);
}

TEST(it_is_set_and_cleared_without_the_runtime)
{
    pyrt_event event = PYRT_EVENT_INIT;
    CHECK_STATUS(pyrt_event_wait_timed(&event, 0, 0), PYRT_ETIMEDOUT);
    pyrt_event_set(&event);
    pyrt_event_set(&event);
    CHECK(pyrt_event_is_set(&event));
    pyrt_event_wait(&event);
    CHECK_OK(pyrt_event_wait_timed(&event, 0, 0));
    CHECK_OK(pyrt_event_wait_timed(&event, -1, PYRT_LOCK_INTERRUPTIBLE));
    pyrt_event_clear(&event);
    pyrt_event_clear(&event);
    CHECK(!pyrt_event_is_set(&event));
    CHECK_STATUS(pyrt_event_wait_timed(&event, 1000, 0), PYRT_ETIMEDOUT);
    CHECK_STATUS(pyrt_event_wait_timed(&event, 1000, PYRT_LOCK_NO_DETACH), PYRT_ETIMEDOUT);
}

TEST(unknown_flags_are_refused)
{
    pyrt_event event = PYRT_EVENT_INIT;
    CHECK_STATUS(pyrt_event_wait_timed(&event, 0, PYRT_PARK_FRONT), PYRT_EINVAL);
    CHECK_STATUS(pyrt_event_wait_timed(&event, -1, 64), PYRT_EINVAL);
}

TEST(a_wait_that_timed_out_leaves_nothing_behind)
{
    pyrt_event event = PYRT_EVENT_INIT;
    CHECK_STATUS(pyrt_event_wait_timed(&event, 1000, 0), PYRT_ETIMEDOUT);
    CHECK_UINT(pyrt_parked_count(&event), 0);
    pyrt_event_clear(&event);
    pyrt_event_set(&event);
    CHECK(pyrt_event_is_set(&event));
    pyrt_event_clear(&event);
    CHECK_INT(event.state, 0);
}

TEST(after_a_fork_nobody_waits_and_set_stays_set)
{
    pyrt_event event = {PYRT_EVENT_WAITED};
    pyrt_event_at_fork_reinit(&event);
    CHECK_INT(event.state, 0);
    pyrt_event_set(&event);
    pyrt_event_at_fork_reinit(&event);
    CHECK(pyrt_event_is_set(&event));
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

TEST(all_who_wait_go_on_even_if_it_is_cleared_at_once)
{
    enum { WAITERS = 3 };
    worker workers[WAITERS];
    pyrt_event event = PYRT_EVENT_INIT;
    for (int i = 0; i < WAITERS; i++) {
        worker_start(&workers[i]);
        worker_begin(&workers[i], wait_for, &event);
    }
    WAIT_UNTIL(pyrt_parked_count(&event) == WAITERS);
    pyrt_event_set(&event);
    pyrt_event_clear(&event);
    for (int i = 0; i < WAITERS; i++) {
        worker_end(&workers[i]);
    }
    CHECK(!pyrt_event_is_set(&event));
    CHECK_UINT(pyrt_parked_count(&event), 0);
}

TEST(a_timed_wait_is_ended_by_the_set)
{
    worker w;
    pyrt_event event = PYRT_EVENT_INIT;
    timed_wait wait = {&event, INT64_MAX, PYRT_LOCK_INTERRUPTIBLE, PYRT_ENOTSUP};
    worker_start(&w);
    worker_begin(&w, wait_timed, &wait);
    WAIT_UNTIL(pyrt_parked_count(&event) == 1);
    pyrt_event_set(&event);
    worker_end(&w);
    CHECK_OK(wait.status);
}

static void
ignore_signal(int number)
{
    (void)number;
}

TEST(a_signal_ends_only_an_interruptible_wait)
{
    worker patient;
    worker interruptible;
    pyrt_event event = PYRT_EVENT_INIT;
    timed_wait without = {&event, -1, PYRT_LOCK_DETACH, PYRT_ENOTSUP};
    timed_wait with = {&event, -1, PYRT_LOCK_INTERRUPTIBLE, PYRT_ENOTSUP};
    signal(SIGUSR1, ignore_signal);
    worker_start(&patient);
    worker_start(&interruptible);
    worker_begin(&patient, wait_timed, &without);
    WAIT_UNTIL(pyrt_parked_count(&event) == 1);
    worker_begin(&interruptible, wait_timed, &with);
    while (worker_is_busy(&interruptible)) {
        pthread_kill(patient.thread, SIGUSR1);
        pthread_kill(interruptible.thread, SIGUSR1);
        sched_yield();
    }
    CHECK_STATUS(with.status, PYRT_EINTR);
    CHECK(worker_is_busy(&patient));
    CHECK_UINT(pyrt_parked_count(&event), 1);
    pyrt_event_set(&event);
    worker_end(&patient);
    CHECK_OK(without.status);
    worker_end(&interruptible);
}

TEST(who_waits_is_detached_and_comes_back_after_the_pause)
{
    worker w;
    pyrt_thread *thread;
    pyrt_event event = PYRT_EVENT_INIT;
    runtime_up();
    worker_start(&w);
    worker_do(&w, attach_new, &thread);
    worker_begin(&w, wait_for, &event);
    WAIT_UNTIL(pyrt_parked_count(&event) == 1 && state_of(thread) == PYRT_STATE_DETACHED);
    CHECK_OK(pyrt_stop_the_world(NULL));
    pyrt_event_set(&event);
    WAIT_UNTIL(pyrt_parked_count(&event) == 0);
    CHECK(worker_is_busy(&w));
    pyrt_start_the_world(NULL);
    worker_do(&w, delete_attached, thread);
    worker_end(&w);
    runtime_down();
}

/* ---- set and cleared while others wait --------------------------------------------------------------------------- */

static void
set(void *event)
{
    pyrt_event_set(event);
}

TEST(who_waits_after_the_clear_is_not_woken_by_the_set_before_it)
{
    enum { ROUNDS = 3000, MOMENT_NS = 100000 };
    worker waiter;
    worker setter;
    pyrt_event event = PYRT_EVENT_INIT;
    worker_start(&waiter);
    worker_start(&setter);
    for (int i = 0; i < ROUNDS; i++) {
        /* Once in a round: who waited again while it is set would run on, where this thread may need the core to clear it. */
        worker_begin(&waiter, wait_for, &event);
        WAIT_UNTIL(pyrt_parked_count(&event) == 1);
        worker_begin(&setter, set, &event);
        for (int looks = 1; !pyrt_event_is_set(&event); looks++) {
            if (looks % 1000 == 0) {
                sched_yield(); /* the setter may need this core */
            }
        }
        /* The set has not returned yet, perhaps. */
        pyrt_event_clear(&event);
        CHECK_STATUS(pyrt_event_wait_timed(&event, MOMENT_NS, 0), PYRT_ETIMEDOUT);
        worker_finish(&setter);
    }
    worker_end(&setter);
    worker_end(&waiter);
}
