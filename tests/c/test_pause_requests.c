/* test_pause_requests.c -- asking for a pause: whose turn it is, what a request that fails leaves, and wrong use
 * (stop_the_world.h).
 */
#include "support.h"

#include "platform/os_thread.h"
#include "state/thread_impl.h"
#include "steps.h"
#include "workers.h"

#include <stdio.h>

static const int64_t FOR_EVER = -1;

/* So long that the others get to where they are wanted; that they did not would make a test pass that shows less. */
static const int64_t A_WHILE = 50 * 1000 * 1000;

/* ---- whose turn it is ---------------------------------------------------------------------------------------------- */

static void
second_request_waits_for_the_first(pyrt_interp *first, pyrt_interp *second)
{
    worker w;
    pause_call call = {.interp = second, .timeout_ns = FOR_EVER};
    worker_start(&w);
    CHECK_OK(pyrt_stop_the_world(first));
    watch_sleepers();
    worker_begin(&w, stop_as_called, &call);
    WAIT_UNTIL(sleepers() == 1);
    CHECK(worker_is_busy(&w));
    pyrt_start_the_world(first);
    worker_finish(&w);
    CHECK_OK(call.status);
    CHECK(pyrt_world_is_stopped(second));
    worker_do(&w, start_as_called, &call);
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
    pyrt_thread *named_one = pyrt_thread_new(main);
    pyrt_thread_set_name(named_one, "the one in the way");
    worker_start(&w);
    for (int i = 0; i < 4; i++) {
        CHECK_OK(pyrt_stop_the_world(firsts[i]));
        for (int64_t timeout = 0; timeout < 2; timeout++) {
            pause_call call = {.interp = seconds[i], .timeout_ns = timeout};
            worker_do(&w, stop_as_called, &call);
            CHECK_STATUS(call.status, PYRT_ETIMEDOUT);
            CHECK_UINT(call.report.missing, 0);
            /* It tells whose pause is in the way. */
            CHECK_INT(call.report.os_tid, pyrt_os_thread_tid());
            CHECK_UINT(call.report.thread_id, named_one->id);
            CHECK_STR(call.report.thread_name, "the one in the way");
        }
        pyrt_start_the_world(firsts[i]);
        /* Nothing of the request is left. */
        pause_call call = {.interp = seconds[i], .timeout_ns = FOR_EVER};
        worker_do(&w, stop_as_called, &call);
        CHECK_OK(call.status);
        worker_do(&w, start_as_called, &call);
    }
    pyrt_thread_delete(named_one);
    /* Who has no state is known by its number alone. */
    CHECK_OK(pyrt_stop_the_world(NULL));
    pause_call call = {.interp = main};
    worker_do(&w, stop_as_called, &call);
    CHECK_INT(call.report.os_tid, pyrt_os_thread_tid());
    CHECK_UINT(call.report.thread_id, 0);
    CHECK_STR(call.report.thread_name, "");
    pyrt_start_the_world(NULL);
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
    worker_begin(&wants_all, stop_as_called, &all);
    WAIT_UNTIL(sleepers() == 1 || !worker_is_busy(&wants_all));
    worker_begin(&wants_one, stop_as_called, &one);
    worker_finish(&wants_all);
    CHECK_STATUS(all.status, PYRT_ETIMEDOUT);
    worker_finish(&wants_one);
    CHECK_OK(one.status);
    worker_do(&wants_one, start_as_called, &one);
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
            worker_begin(&w[i], stop_as_called, &calls[i]);
        }
        /* One gets it first; the other one's turn comes when that one starts the world again. */
        int first = -1;
        WAIT_UNTIL((first = !worker_is_busy(&w[0]) ? 0 : !worker_is_busy(&w[1]) ? 1 : -1) >= 0);
        worker_do(&w[first], start_as_called, &calls[first]);
        /* Attached again it must pass a safepoint, or detach, for the other. */
        worker_do(&w[first], detach, threads[first]);
        worker_do(&w[1 - first], start_as_called, &calls[1 - first]);
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
        CHECK(report.time_to_stop_ns >= 0);
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
    const char *const names[] = {"the whole process", "main", "interpreter 1"};
    for (int i = 0; i < 2; i++) {
        CHECK_OK(pyrt_stop_the_world(firsts[i]));
        for (int k = 0; k < 3; k++) {
            CHECK_STATUS(pyrt_stop_the_world(seconds[k]), PYRT_ESTATE);
            char wants[64];
            char has[64];
            snprintf(wants, sizeof(wants), "asks to stop %s", names[k]);
            snprintf(has, sizeof(has), "has stopped %s already; start that first", names[i]);
            EXPECT_REPORT("pyrt_stop_the_world", wants, has);
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
    worker_do(&w, start_as_called, &call);
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
