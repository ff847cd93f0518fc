/* test_stop_the_world.c -- pauses: who is stopped, who is not, whose turn it is, and what a pause that fails leaves
 * (stop_the_world.h).
 */
#include "support.h"

#include "state/thread_impl.h"
#include "workers.h"

#include <string.h>

/* ---- what a led thread does -------------------------------------------------------------------------------------- */

static void
make_state(void *out)
{
    *(pyrt_thread **)out = pyrt_thread_new(pyrt_interp_main());
}

static void
attach(void *thread)
{
    pyrt_attach(thread);
}

static void
detach(void *thread)
{
    pyrt_detach(thread);
}

static void
pass_safepoint(void *thread)
{
    pyrt_safepoint(thread);
}

static void
delete_state(void *thread)
{
    pyrt_thread_delete(thread);
}

/* A pause that a led thread asks for. */
typedef struct pause_call {
    pyrt_interp *interp;
    int64_t timeout_ns;
    pyrt_status status;
    pyrt_stop_report report;
} pause_call;

static void
stop(void *arg)
{
    pause_call *call = arg;
    call->report.struct_size = sizeof(call->report);
    call->status = pyrt_stop_the_world_timed(call->interp, call->timeout_ns, &call->report);
}

static void
start(void *arg)
{
    pyrt_start_the_world(((pause_call *)arg)->interp);
}

/* Long enough that only a hang would use it up, and then the guard of the test is reached first. */
static const int64_t FOR_EVER = -1;
static const int64_t A_WHILE = 50 * 1000 * 1000;

static int32_t
state_of(pyrt_thread *thread)
{
    pyrt_thread_info infos[32];
    size_t count = pyrt_thread_list(thread->interp, infos, 32);
    for (size_t i = 0; i < count; i++) {
        if (infos[i].id == thread->id) {
            return infos[i].state;
        }
    }
    return PYRT_STATE_SHUTTING_DOWN;
}

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
    worker_begin(&requester, stop, &call);
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
    worker_do(&requester, start, &call);
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
    worker_begin(&requester, stop, &call);
    WAIT_UNTIL(sleepers() == 1);
    /* Detaching does not sleep, also now. */
    worker_do(&w, detach, thread);
    worker_finish(&requester);
    CHECK_OK(call.status);
    CHECK_INT(state_of(thread), PYRT_STATE_SUSPENDED);
    worker_do(&requester, start, &call);
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
    worker_begin(&requester, stop, &call);
    WAIT_UNTIL(sleepers() == 1);
    pyrt_exchange_seq_cst(&hook_may_leave, 1);
    worker_finish(&requester);
    CHECK_OK(call.status);
    worker_finish(&w);
    CHECK_UINT(pyrt_thread_list(pyrt_interp_main(), NULL, 0), 0);
    worker_do(&requester, start, &call);
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
    worker_do(&w, stop, &call);
    CHECK_OK(call.status);
    CHECK(pyrt_world_is_stopped(pyrt_interp_main()));
    CHECK(pyrt_world_is_stopped(other));
    CHECK(pyrt_world_is_stopped(NULL));
    pyrt_start_the_world(pyrt_interp_main());
    CHECK(!pyrt_world_is_stopped(pyrt_interp_main()));
    CHECK(pyrt_world_is_stopped(other));
    worker_do(&w, start, &call);
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

/* ---- whose turn it is ---------------------------------------------------------------------------------------------- */

static void
second_request_waits_for_the_first(pyrt_interp *first, pyrt_interp *second)
{
    worker w;
    pause_call call = {.interp = second, .timeout_ns = FOR_EVER};
    worker_start(&w);
    CHECK_OK(pyrt_stop_the_world(first));
    watch_sleepers();
    worker_begin(&w, stop, &call);
    WAIT_UNTIL(sleepers() == 1);
    CHECK(worker_is_busy(&w));
    pyrt_start_the_world(first);
    worker_finish(&w);
    CHECK_OK(call.status);
    CHECK(pyrt_world_is_stopped(second));
    worker_do(&w, start, &call);
    CHECK(!pyrt_world_is_stopped(second));
    stop_watching_sleepers();
    worker_end(&w);
}

TEST(requests_wait_for_their_turn)
{
    runtime_up();
    pyrt_interp *main = pyrt_interp_main();
    pyrt_interp *other = pyrt_interp_new(NULL);
    second_request_waits_for_the_first(NULL, NULL);
    second_request_waits_for_the_first(main, main);
    second_request_waits_for_the_first(other, other);
    second_request_waits_for_the_first(NULL, main);
    second_request_waits_for_the_first(NULL, other);
    second_request_waits_for_the_first(main, NULL);
    second_request_waits_for_the_first(other, NULL);
    runtime_down();
}

TEST(a_timed_request_gives_up_its_turn)
{
    worker w;
    runtime_up();
    pyrt_interp *main = pyrt_interp_main();
    pyrt_interp *const firsts[] = {NULL, main, main, NULL};
    pyrt_interp *const seconds[] = {NULL, main, NULL, main};
    worker_start(&w);
    for (int i = 0; i < 4; i++) {
        CHECK_OK(pyrt_stop_the_world(firsts[i]));
        for (int64_t timeout = 0; timeout < 2; timeout++) {
            pause_call call = {.interp = seconds[i], .timeout_ns = timeout};
            worker_do(&w, stop, &call);
            CHECK_STATUS(call.status, PYRT_ETIMEDOUT);
            CHECK_UINT(call.report.missing, 0);
        }
        pyrt_start_the_world(firsts[i]);
        /* Nothing of the request is left. */
        pause_call call = {.interp = seconds[i], .timeout_ns = FOR_EVER};
        worker_do(&w, stop, &call);
        CHECK_OK(call.status);
        worker_do(&w, start, &call);
    }
    worker_end(&w);
    runtime_down();
}

/* While a global request waits, single ones are held back so that it gets its turn; when it gives up, they go on at once,
 * though the pause that was in its way is still on. */
TEST(a_global_request_that_gives_up_lets_the_single_ones_go_on)
{
    worker wants_all;
    worker wants_one;
    runtime_up();
    pause_call all = {.interp = NULL, .timeout_ns = A_WHILE};
    pause_call one = {.interp = pyrt_interp_new(NULL), .timeout_ns = FOR_EVER};
    worker_start(&wants_all);
    worker_start(&wants_one);
    CHECK_OK(pyrt_stop_the_world(pyrt_interp_main()));
    watch_sleepers();
    worker_begin(&wants_all, stop, &all);
    WAIT_UNTIL(sleepers() == 1 || !worker_is_busy(&wants_all));
    worker_begin(&wants_one, stop, &one);
    worker_finish(&wants_all);
    CHECK_STATUS(all.status, PYRT_ETIMEDOUT);
    worker_finish(&wants_one);
    CHECK_OK(one.status);
    worker_do(&wants_one, start, &one);
    pyrt_start_the_world(pyrt_interp_main());
    stop_watching_sleepers();
    worker_end(&wants_all);
    worker_end(&wants_one);
    runtime_down();
}

/* A requester that waits for its turn is detached meanwhile, or the pause before it would wait for it. */
TEST(two_attached_threads_ask_at_once)
{
    worker w[2];
    pyrt_thread *threads[2];
    pause_call calls[2];
    runtime_up();
    pyrt_interp *const whats[] = {NULL, pyrt_interp_main()};
    for (int i = 0; i < 2; i++) {
        worker_start(&w[i]);
        worker_do(&w[i], make_state, &threads[i]);
        worker_do(&w[i], attach, threads[i]);
    }
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 2; i++) {
            calls[i] = (pause_call){.interp = whats[(round >> i) % 2], .timeout_ns = FOR_EVER};
            worker_begin(&w[i], stop, &calls[i]);
        }
        /* One gets it first; the other one's turn comes when that one starts the world again. */
        int first = -1;
        WAIT_UNTIL((first = !worker_is_busy(&w[0]) ? 0 : !worker_is_busy(&w[1]) ? 1 : -1) >= 0);
        worker_do(&w[first], start, &calls[first]);
        /* Attached again it must pass a safepoint, or detach, for the other. */
        worker_do(&w[first], detach, threads[first]);
        worker_do(&w[1 - first], start, &calls[1 - first]);
        worker_do(&w[first], attach, threads[first]);
        CHECK_OK(calls[0].status);
        CHECK_OK(calls[1].status);
    }
    for (int i = 0; i < 2; i++) {
        worker_do(&w[i], detach, threads[i]);
        worker_do(&w[i], delete_state, threads[i]);
        worker_end(&w[i]);
    }
    CHECK(!pyrt_world_is_stopped(NULL));
    runtime_down();
}

/* ---- the timed form ------------------------------------------------------------------------------------------------ */

TEST(a_timed_request_names_who_is_missing_and_leaves_nothing_stopped)
{
    worker stays_attached;
    worker is_detached;
    pyrt_thread *attached;
    pyrt_thread *detached;
    runtime_up();
    worker_start(&stays_attached);
    worker_start(&is_detached);
    worker_do(&stays_attached, make_state, &attached);
    worker_do(&is_detached, make_state, &detached);
    pyrt_thread_set_name(attached, "the slow one");
    worker_do(&stays_attached, attach, attached);
    const int64_t timeouts[] = {0, 1, A_WHILE};
    for (int i = 0; i < 3; i++) {
        pyrt_stop_report report = {.struct_size = sizeof(report)};
        CHECK_STATUS(pyrt_stop_the_world_timed(i % 2 == 0 ? NULL : pyrt_interp_main(), timeouts[i], &report),
                     PYRT_ETIMEDOUT);
        CHECK_UINT(report.struct_size, sizeof(report));
        CHECK_UINT(report.missing, 1);
        CHECK_UINT(report.stopped, 1);
        CHECK_UINT(report.thread_id, attached->id);
        CHECK_INT(report.interp_id, 0);
        CHECK_INT(report.os_tid, pyrt_thread_impl_of(attached)->os_tid);
        CHECK_STR(report.thread_name, "the slow one");
        CHECK(report.time_to_stop_ns >= timeouts[i]);
        CHECK(!pyrt_world_is_stopped(NULL));
        CHECK(!pyrt_world_is_stopped(pyrt_interp_main()));
        CHECK_INT(state_of(detached), PYRT_STATE_DETACHED);
        CHECK_INT(state_of(attached), PYRT_STATE_ATTACHED);
        CHECK_UINT(attached->slot.flags, 0);
        /* Safepoints do not park, the detached one attaches. */
        worker_do(&stays_attached, pass_safepoint, attached);
        worker_do(&is_detached, attach, detached);
        worker_do(&is_detached, detach, detached);
    }
    CHECK_STATUS(pyrt_stop_the_world_timed(NULL, 0, NULL), PYRT_ETIMEDOUT);
    worker_do(&stays_attached, detach, attached);
    CHECK_OK(pyrt_stop_the_world_timed(NULL, 0, NULL));
    pyrt_start_the_world(NULL);
    worker_do(&stays_attached, delete_state, attached);
    worker_do(&is_detached, delete_state, detached);
    worker_end(&stays_attached);
    worker_end(&is_detached);
    runtime_down();
}

TEST(a_report_of_another_size_is_refused)
{
    runtime_up();
    pyrt_stop_report report = {.struct_size = sizeof(report) - 4};
    CHECK_STATUS(pyrt_stop_the_world_timed(NULL, FOR_EVER, &report), PYRT_EINVAL);
    CHECK(!pyrt_world_is_stopped(NULL));
    runtime_down();
}

/* ---- wrong use ----------------------------------------------------------------------------------------------------- */

TEST(a_nested_request_is_refused)
{
    runtime_up();
    pyrt_interp *main = pyrt_interp_main();
    pyrt_interp *other = pyrt_interp_new(NULL);
    pyrt_interp *const firsts[] = {NULL, main};
    pyrt_interp *const seconds[] = {NULL, main, other};
    for (int i = 0; i < 2; i++) {
        CHECK_OK(pyrt_stop_the_world(firsts[i]));
        for (int k = 0; k < 3; k++) {
            CHECK_STATUS(pyrt_stop_the_world(seconds[k]), PYRT_ESTATE);
            EXPECT_REPORT("pyrt_stop_the_world");
        }
        CHECK(pyrt_world_is_stopped(firsts[i]));
        pyrt_start_the_world(firsts[i]);
    }
    runtime_down();
}

TEST(start_wants_the_argument_of_the_stop)
{
    runtime_up();
    pyrt_interp *main = pyrt_interp_main();
    pyrt_interp *other = pyrt_interp_new(NULL);
    pyrt_start_the_world(NULL);
    EXPECT_REPORT("pyrt_start_the_world");
    pyrt_start_the_world(main);
    EXPECT_REPORT("pyrt_start_the_world", "main");
    CHECK_OK(pyrt_stop_the_world(main));
    pyrt_start_the_world(NULL);
    EXPECT_REPORT("pyrt_start_the_world");
    pyrt_start_the_world(other);
    EXPECT_REPORT("pyrt_start_the_world", "interpreter 1");
    CHECK(pyrt_world_is_stopped(main));
    pyrt_start_the_world(main);
    CHECK_OK(pyrt_stop_the_world(NULL));
    pyrt_start_the_world(main);
    EXPECT_REPORT("pyrt_start_the_world", "main");
    CHECK(pyrt_world_is_stopped(NULL));
    pyrt_start_the_world(NULL);
    runtime_down();
}

TEST(start_on_another_os_thread_is_refused)
{
    worker w;
    pause_call call = {.interp = NULL};
    runtime_up();
    worker_start(&w);
    CHECK_OK(pyrt_stop_the_world(NULL));
    worker_do(&w, start, &call);
    EXPECT_REPORT("pyrt_start_the_world");
    CHECK(pyrt_world_is_stopped(NULL));
    pyrt_start_the_world(NULL);
    worker_end(&w);
    runtime_down();
}

/* Two that are attached here and stop there, and the other way round, would wait for each other. */
TEST(stopping_another_interpreter_than_the_attached_one_is_refused)
{
    runtime_up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    CHECK_STATUS(pyrt_stop_the_world(other), PYRT_ESTATE);
    EXPECT_REPORT("pyrt_stop_the_world", named(thread), "detach it first");
    CHECK(!pyrt_world_is_stopped(other));
    CHECK_PTR(pyrt_thread_current(), thread);
    pyrt_detach(thread);
    CHECK_OK(pyrt_stop_the_world(other));
    pyrt_start_the_world(other);
    pyrt_thread_release(thread);
    runtime_down();
}

TEST(stop_is_refused_inside_a_read_side_section)
{
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_read_begin_counted(thread);
    CHECK_STATUS(pyrt_stop_the_world(NULL), PYRT_ESTATE);
    EXPECT_REPORT("pyrt_stop_the_world", named(thread), "read-side section");
    CHECK(!pyrt_world_is_stopped(NULL));
    pyrt_read_end_counted(thread);
    pyrt_thread_release(thread);
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
