/* test_stop_the_world.c -- pauses: who is stopped, who is not, and that nothing moves meanwhile (stop_the_world.h). */
#include "support.h"

#include "steps.h"
#include "workers.h"

static const int64_t FOR_EVER = -1;

/* ---- who is stopped ---------------------------------------------------------------------------------------------- */

TEST(without_runtime_there_is_no_world)
{
    CHECK_STATUS(pyrt_stop_the_world(NULL), PYRT_ESTATE);
    CHECK(!pyrt_world_is_stopped(NULL));
    CHECK_UINT(reports_pending(), 0);
}

TEST(alone_the_world_stops_at_once)
{
    runtime_up();
    CHECK(!pyrt_world_is_stopped(NULL));
    CHECK_OK(pyrt_stop_the_world(NULL));
    CHECK(pyrt_world_is_stopped(NULL));
    CHECK(pyrt_world_is_stopped(pyrt_interp_main()));
    pyrt_start_the_world(NULL);
    CHECK(!pyrt_world_is_stopped(NULL));
    CHECK(!pyrt_world_is_stopped(pyrt_interp_main()));
    CHECK_OK(pyrt_stop_the_world(pyrt_interp_main()));
    CHECK(pyrt_world_is_stopped(pyrt_interp_main()));
    pyrt_start_the_world(pyrt_interp_main());
    CHECK(!pyrt_world_is_stopped(pyrt_interp_main()));
    runtime_down();
}

TEST(a_detached_thread_is_suspended_and_let_go)
{
    worker w;
    pyrt_thread *thread;
    runtime_up();
    worker_start(&w);
    worker_do(&w, make_state, &thread);
    pyrt_stop_report report = {.struct_size = sizeof(report)};
    CHECK_OK(pyrt_stop_the_world_timed(NULL, FOR_EVER, &report));
    CHECK_UINT(report.stopped, 1);
    CHECK_UINT(report.missing, 0);
    CHECK(report.time_to_stop_ns >= 0);
    CHECK_INT(state_of(thread), PYRT_STATE_SUSPENDED);
    pyrt_start_the_world(NULL);
    CHECK_INT(state_of(thread), PYRT_STATE_DETACHED);
    worker_do(&w, delete_state, thread);
    worker_end(&w);
    runtime_down();
}

TEST(an_attached_thread_parks_at_its_safepoint)
{
    worker w;
    worker requester;
    pyrt_thread *thread;
    pause_call call = {.interp = NULL, .timeout_ns = FOR_EVER};
    runtime_up();
    worker_start(&w);
    worker_start(&requester);
    worker_do(&w, make_state, &thread);
    worker_do(&w, attach, thread);
    watch_sleepers();
    worker_begin(&requester, stop_as_called, &call);
    /* The requester sleeps in the kernel: a thread is missing. */
    WAIT_UNTIL(sleepers() == 1);
    CHECK(worker_is_busy(&requester));
    CHECK(!pyrt_world_is_stopped(NULL));
    worker_begin(&w, pass_safepoint, thread);
    worker_finish(&requester);
    CHECK_OK(call.status);
    CHECK_UINT(call.report.stopped, 1);
    CHECK(pyrt_world_is_stopped(NULL));
    CHECK_INT(state_of(thread), PYRT_STATE_SUSPENDED);
    CHECK(worker_is_busy(&w));
    worker_do(&requester, start_as_called, &call);
    worker_finish(&w);
    CHECK_INT(state_of(thread), PYRT_STATE_ATTACHED);
    CHECK_UINT(thread->slot.flags, 0);
    stop_watching_sleepers();
    worker_do(&w, detach, thread);
    worker_do(&w, delete_state, thread);
    worker_end(&w);
    worker_end(&requester);
    runtime_down();
}

TEST(an_attached_thread_that_detaches_is_stopped_as_well)
{
    worker w;
    worker requester;
    pyrt_thread *thread;
    pause_call call = {.interp = NULL, .timeout_ns = FOR_EVER};
    runtime_up();
    worker_start(&w);
    worker_start(&requester);
    worker_do(&w, make_state, &thread);
    worker_do(&w, attach, thread);
    watch_sleepers();
    worker_begin(&requester, stop_as_called, &call);
    WAIT_UNTIL(sleepers() == 1);
    /* Detaching does not sleep, also now. */
    worker_do(&w, detach, thread);
    worker_finish(&requester);
    CHECK_OK(call.status);
    CHECK_INT(state_of(thread), PYRT_STATE_SUSPENDED);
    worker_do(&requester, start_as_called, &call);
    CHECK_INT(state_of(thread), PYRT_STATE_DETACHED);
    stop_watching_sleepers();
    worker_do(&w, delete_state, thread);
    worker_end(&w);
    worker_end(&requester);
    runtime_down();
}

TEST(a_newborn_thread_is_suspended_until_the_world_goes_on)
{
    worker w;
    pyrt_thread *thread;
    runtime_up();
    worker_start(&w);
    CHECK_OK(pyrt_stop_the_world(NULL));
    worker_do(&w, make_state, &thread);
    CHECK(thread != NULL);
    CHECK_INT(state_of(thread), PYRT_STATE_SUSPENDED);
    CHECK(pyrt_world_is_stopped(NULL));
    watch_sleepers();
    worker_begin(&w, attach, thread);
    WAIT_UNTIL(sleepers() == 1);
    CHECK_INT(state_of(thread), PYRT_STATE_SUSPENDED);
    pyrt_start_the_world(NULL);
    worker_finish(&w);
    stop_watching_sleepers();
    CHECK_INT(state_of(thread), PYRT_STATE_ATTACHED);
    worker_do(&w, detach, thread);
    worker_do(&w, delete_state, thread);
    worker_end(&w);
    runtime_down();
}

TEST(an_interpreter_born_into_a_global_pause_stands_still)
{
    worker w;
    runtime_up();
    CHECK_OK(pyrt_stop_the_world(NULL));
    pyrt_interp *born = pyrt_interp_new(NULL);
    CHECK(pyrt_world_is_stopped(born));
    pyrt_thread *own = pyrt_thread_new(born);
    pyrt_attach(own);
    pyrt_detach(own);
    pyrt_thread_delete(own);
    pyrt_start_the_world(NULL);
    CHECK(!pyrt_world_is_stopped(born));
    worker_start(&w);
    worker_end(&w);
    CHECK_OK(pyrt_interp_delete(born));
    runtime_down();
}

/* Deleting begins with attaching, so a thread cannot take itself apart in a still world. */
TEST(a_dying_thread_waits_for_the_world)
{
    worker w;
    pyrt_thread *thread;
    runtime_up();
    worker_start(&w);
    worker_do(&w, make_state, &thread);
    CHECK_OK(pyrt_stop_the_world(NULL));
    watch_sleepers();
    worker_begin(&w, delete_state, thread);
    WAIT_UNTIL(sleepers() == 1);
    CHECK_UINT(pyrt_thread_list(pyrt_interp_main(), NULL, 0), 1);
    pyrt_start_the_world(NULL);
    worker_end(&w);
    stop_watching_sleepers();
    CHECK_UINT(pyrt_thread_list(pyrt_interp_main(), NULL, 0), 0);
    runtime_down();
}

static int hook_entered;
static int hook_may_leave;

static void
linger(void *bytes)
{
    (void)bytes;
    pyrt_exchange_seq_cst(&hook_entered, 1);
    while (!pyrt_load_seq_cst(&hook_may_leave)) {
        sched_yield();
    }
}

/* A thread in its exit hooks is attached and counts as missing; its end takes it off. */
TEST(a_pause_waits_for_a_dying_thread)
{
    worker w;
    worker requester;
    pyrt_thread *thread;
    pause_call call = {.interp = NULL, .timeout_ns = FOR_EVER};
    hook_entered = hook_may_leave = 0;
    runtime_up();
    CHECK(pyrt_thread_slot_new(NULL, linger, 0) >= 0);
    worker_start(&w);
    worker_start(&requester);
    worker_do(&w, make_state, &thread);
    worker_begin(&w, delete_state, thread);
    WAIT_UNTIL(pyrt_load_seq_cst(&hook_entered));
    watch_sleepers();
    worker_begin(&requester, stop_as_called, &call);
    WAIT_UNTIL(sleepers() == 1);
    pyrt_exchange_seq_cst(&hook_may_leave, 1);
    worker_finish(&requester);
    CHECK_OK(call.status);
    worker_finish(&w);
    CHECK_UINT(pyrt_thread_list(pyrt_interp_main(), NULL, 0), 0);
    worker_do(&requester, start_as_called, &call);
    stop_watching_sleepers();
    worker_end(&w);
    worker_end(&requester);
    runtime_down();
}

TEST(the_requesters_own_states_stay_free)
{
    runtime_up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    pyrt_thread *a = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_thread *b = pyrt_thread_new(other);
    uint64_t goal = pyrt_qsbr_advance(pyrt_interp_main());
    CHECK_OK(pyrt_stop_the_world(NULL));
    CHECK_PTR(pyrt_thread_current(), a);
    /* Quiescent always. */
    CHECK(pyrt_qsbr_poll(a, goal));
    pyrt_safepoint(a);
    pyrt_detach(a);
    pyrt_attach(b);
    pyrt_safepoint(b);
    pyrt_detach(b);
    pyrt_thread *c = pyrt_thread_new(pyrt_interp_new(NULL));
    pyrt_attach(c);
    pyrt_detach(c);
    pyrt_thread_delete(c);
    CHECK(pyrt_world_is_stopped(NULL));
    pyrt_start_the_world(NULL);
    pyrt_thread_delete(b);
    pyrt_attach(a);
    pyrt_thread_release(a);
    runtime_down();
}

/* ---- one interpreter and the others -------------------------------------------------------------------------------- */

TEST(a_pause_of_one_interpreter_leaves_the_others_alone)
{
    worker w;
    pyrt_thread *in_main;
    runtime_up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    worker_start(&w);
    worker_do(&w, make_state, &in_main);
    worker_do(&w, attach, in_main);
    CHECK_OK(pyrt_stop_the_world(other));
    CHECK(pyrt_world_is_stopped(other));
    CHECK(!pyrt_world_is_stopped(pyrt_interp_main()));
    CHECK(!pyrt_world_is_stopped(NULL));
    worker_do(&w, pass_safepoint, in_main);
    worker_do(&w, detach, in_main);
    worker_do(&w, attach, in_main);
    pyrt_start_the_world(other);
    CHECK(!pyrt_world_is_stopped(other));
    worker_do(&w, detach, in_main);
    worker_do(&w, delete_state, in_main);
    worker_end(&w);
    CHECK_OK(pyrt_interp_delete(other));
    runtime_down();
}

TEST(pauses_of_two_interpreters_overlap)
{
    worker w;
    runtime_up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    pause_call call = {.interp = other, .timeout_ns = FOR_EVER};
    worker_start(&w);
    CHECK_OK(pyrt_stop_the_world(pyrt_interp_main()));
    worker_do(&w, stop_as_called, &call);
    CHECK_OK(call.status);
    CHECK(pyrt_world_is_stopped(pyrt_interp_main()));
    CHECK(pyrt_world_is_stopped(other));
    CHECK(pyrt_world_is_stopped(NULL));
    pyrt_start_the_world(pyrt_interp_main());
    CHECK(!pyrt_world_is_stopped(pyrt_interp_main()));
    CHECK(pyrt_world_is_stopped(other));
    worker_do(&w, start_as_called, &call);
    CHECK(!pyrt_world_is_stopped(other));
    worker_end(&w);
    runtime_down();
}

TEST(an_interpreter_that_is_stopped_is_not_deleted)
{
    runtime_up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    CHECK_OK(pyrt_stop_the_world(other));
    CHECK_STATUS(pyrt_interp_delete(other), PYRT_EBUSY);
    CHECK(pyrt_world_is_stopped(other));
    pyrt_start_the_world(other);
    CHECK_OK(pyrt_interp_delete(other));
    runtime_down();
}

/* ---- the world is really still ------------------------------------------------------------------------------------- */

static struct {
    uint64_t moving; /* added to by attached threads, without atomics: the pauses order it */
    int finished;
    int rounds;
} world;

static void
move_the_world(pyrt_thread *thread, random_stream *choices)
{
    for (int i = 0; i < world.rounds; i++) {
        switch (random_below(choices, 8)) {
        case 0:
            pyrt_detach(thread);
            pyrt_attach(thread);
            break;
        case 1:
            pyrt_thread_release(thread);
            thread = pyrt_thread_ensure(pyrt_interp_main());
            CHECK(thread != NULL);
            break;
        default:
            pyrt_safepoint(thread);
            break;
        }
        (void)pyrt_fetch_add_relaxed(&world.moving, (uint64_t)1);
    }
    pyrt_thread_release(thread);
}

static void
stop_a_few_times(random_stream *choices)
{
    for (int i = 0; i < world.rounds / 20; i++) {
        pyrt_interp *what = random_below(choices, 2) == 0 ? NULL : pyrt_interp_main();
        pyrt_thread *thread = random_below(choices, 2) == 0 ? pyrt_thread_ensure(pyrt_interp_main()) : NULL;
        if (pyrt_stop_the_world_timed(what, random_below(choices, 3) == 0 ? 20000 : -1, NULL) == PYRT_OK) {
            uint64_t before = pyrt_load_relaxed(&world.moving);
            for (int k = 0; k < 200; k++) {
                CHECK_UINT(pyrt_load_relaxed(&world.moving), before);
            }
            CHECK(pyrt_world_is_stopped(what));
            pyrt_start_the_world(what);
        }
        if (thread != NULL) {
            pyrt_thread_release(thread);
        }
    }
}

static void
be_one_of_many(void *unused, int number)
{
    (void)unused;
    random_stream choices = random_for((uint64_t)number);
    if (number < 3) {
        move_the_world(pyrt_thread_ensure(pyrt_interp_main()), &choices);
        return;
    }
    stop_a_few_times(&choices);
}

/* Every requester gets its turn and every thread goes on after it, or the guard ends the test. */
TEST(nothing_moves_in_a_still_world_and_nobody_starves)
{
    world.moving = 0;
    world.rounds = 2000;
    runtime_up();
    run_crowd(5, be_one_of_many, NULL);
    CHECK_UINT(world.moving, 3u * (uint64_t)world.rounds);
    CHECK(!pyrt_world_is_stopped(NULL));
    CHECK_UINT(pyrt_thread_list(pyrt_interp_main(), NULL, 0), 0);
    runtime_down();
}
