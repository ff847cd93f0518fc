/* test_statistics.c -- the numbers of an interpreter, and the report of who holds up its oldest goal (qsbr.h). */
#include "support.h"

#include "state/thread_impl.h"
#include "steps.h"
#include "workers.h"

#include <string.h>

enum { COUNT = sizeof(pyrt_qsbr_stats) / sizeof(uint64_t) };

static int disposed;

static void
count(void *p)
{
    (void)p;
    pyrt_fetch_add_seq_cst(&disposed, 1);
}

/* ---- names and numbers --------------------------------------------------------------------------------------------- */

TEST(every_number_has_the_name_of_its_field)
{
#define PYRT_X(name, merge) #name,
    static const char *const names[] = {PYRT_QSBR_STATS(PYRT_X)};
#undef PYRT_X
    for (size_t i = 0; i < COUNT; i++) {
        CHECK_STR(pyrt_qsbr_stats_name(i), names[i]);
    }
    CHECK_PTR(pyrt_qsbr_stats_name(COUNT), NULL);
    CHECK_PTR(pyrt_qsbr_stats_name(SIZE_MAX), NULL);
}

TEST(reading_writes_no_more_than_asked)
{
    uint64_t values[COUNT + 1];
    CHECK_UINT(pyrt_qsbr_stats_read(NULL, values, COUNT), 0);
    runtime_up();
    CHECK_UINT(pyrt_qsbr_stats_read(pyrt_interp_main(), NULL, 0), COUNT);
    CHECK_UINT(pyrt_qsbr_stats_read(pyrt_interp_main(), NULL, COUNT), COUNT);
    memset(values, 0x5a, sizeof(values));
    CHECK_UINT(pyrt_qsbr_stats_read(pyrt_interp_main(), values, 2), COUNT);
    CHECK_UINT(values[1], 0);
    CHECK_UINT(values[2], 0x5a5a5a5a5a5a5a5au);
    CHECK_UINT(pyrt_qsbr_stats_read(pyrt_interp_main(), values, COUNT + 1), COUNT);
    CHECK_UINT(values[COUNT - 1], 0);
    CHECK_UINT(values[COUNT], 0x5a5a5a5a5a5a5a5au);
    runtime_down();
}

TEST(a_new_interpreter_has_counted_nothing)
{
    runtime_up();
    uint64_t values[COUNT];
    CHECK_UINT(pyrt_qsbr_stats_read(pyrt_interp_new(NULL), values, COUNT), COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        CHECK_UINT(values[i], 0);
    }
    runtime_down();
}

TEST(each_number_counts_what_it_says)
{
    worker w;
    pyrt_thread *reader;
    disposed = 0;
    runtime_up();
    pyrt_interp *main = pyrt_interp_main();
    pyrt_thread *thread = pyrt_thread_ensure(main);

    (void)pyrt_qsbr_advance(main);
    CHECK_UINT(stat_of(main, "goals"), 1);

    uint64_t goal = pyrt_qsbr_advance(main);
    pyrt_qsbr_quiescent_state(thread);
    uint64_t scans = stat_of(main, "scans");
    CHECK(pyrt_qsbr_poll(thread, goal));
    CHECK_UINT(stat_of(main, "polls"), 1);
    CHECK_UINT(stat_of(main, "scans"), scans + 1);
    /* Known to be reached: nobody has to be looked at. */
    CHECK(pyrt_qsbr_poll(thread, goal));
    CHECK_UINT(stat_of(main, "polls"), 2);
    CHECK_UINT(stat_of(main, "scans"), scans + 1);

    CHECK_OK(pyrt_qsbr_synchronize(thread));
    CHECK_UINT(stat_of(main, "synchronizes"), 1);
    CHECK_UINT(stat_of(main, "sleeps"), 0);

    worker_start(&w);
    worker_do(&w, attach_new, &reader);
    CHECK_STATUS(pyrt_qsbr_synchronize_timed(thread, 1000000), PYRT_ETIMEDOUT);
    CHECK_UINT(stat_of(main, "sleeps"), 1);

    CHECK_OK(pyrt_retire(thread, NULL, 100, count));
    CHECK_OK(pyrt_retire_global(NULL, 50, count));
    CHECK_UINT(stat_of(main, "retired"), 2);
    CHECK_UINT(stat_of(main, "pending_items"), 2);
    CHECK_UINT(stat_of(main, "pending_bytes"), 150);
    CHECK_UINT(pyrt_process_delayed(thread), 0);
    worker_do(&w, delete_attached, reader);
    worker_end(&w);
    CHECK_UINT(pyrt_process_delayed(thread), 2);
    CHECK_UINT(stat_of(main, "disposed"), 2);
    CHECK_UINT(stat_of(main, "pending_items"), 0);
    CHECK_UINT(stat_of(main, "pending_bytes"), 0);
    /* The reader held a goal up for some time. */
    CHECK(stat_of(main, "longest_grace_ns") > 0);

    CHECK_OK(pyrt_qsbr_barrier(thread));
    CHECK_UINT(stat_of(main, "barriers"), 1);
    CHECK_UINT(stat_of(main, "borrowed"), 0);
    CHECK_UINT(stat_of(main, "orphaned"), 0);
    CHECK_UINT(stat_of(main, "busy"), 0);
    pyrt_thread_release(thread);
    CHECK_UINT(stat_of(main, "retired"), 2);
    runtime_down();
}

/* ---- sums ---------------------------------------------------------------------------------------------------------- */

enum { ROUNDS = 400 };

/* Counts with a state, with states that come and go, and without one, all into the same sums. */
static void
count_everywhere(void *unused, int number)
{
    (void)unused;
    pyrt_interp *main = pyrt_interp_main();
    pyrt_thread *thread = number % 3 == 0 ? pyrt_thread_ensure(main) : NULL;
    for (int i = 0; i < ROUNDS; i++) {
        if (number % 3 == 1) {
            thread = pyrt_thread_ensure(main);
        }
        (void)pyrt_qsbr_poll(thread, pyrt_qsbr_advance(main));
        CHECK_OK(pyrt_retire(thread, NULL, 16, count));
        if (number % 3 == 1) {
            pyrt_thread_release(thread);
            thread = NULL;
        }
        else if (thread != NULL) {
            pyrt_safepoint(thread);
        }
    }
    if (thread != NULL) {
        pyrt_thread_release(thread);
    }
}

TEST(sums_are_exact_whoever_counted_and_however_he_ended)
{
    disposed = 0;
    runtime_up();
    pyrt_interp *main = pyrt_interp_main();
    run_crowd(6, count_everywhere, NULL);
    CHECK_UINT(stat_of(main, "retired"), 6 * ROUNDS);
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    CHECK_UINT(stat_of(main, "retired"), 6 * ROUNDS);
    CHECK_UINT(stat_of(main, "disposed"), 6 * ROUNDS);
    CHECK_INT(disposed, 6 * ROUNDS);
    CHECK_UINT(stat_of(main, "pending_items"), 0);
    CHECK_UINT(stat_of(main, "pending_bytes"), 0);
    CHECK(stat_of(main, "goals") >= 6 * ROUNDS);
    CHECK(stat_of(main, "polls") >= 6 * ROUNDS);
    CHECK_UINT(stat_of(main, "barriers"), 1);
    runtime_down();
}

static struct {
    int stop;
} watching;

static void
count_or_watch(void *unused, int number)
{
    if (number != 0) {
        count_everywhere(unused, number);
        (void)pyrt_fetch_add_seq_cst(&watching.stop, 1);
        return;
    }
    /* A snapshot is taken while all goes on; its own parts agree. */
    while (pyrt_load_seq_cst(&watching.stop) < 4) {
        uint64_t values[COUNT];
        CHECK_UINT(pyrt_qsbr_stats_read(pyrt_interp_main(), values, COUNT), COUNT);
        pyrt_qsbr_stats stats;
        memcpy(&stats, values, sizeof(stats));
        CHECK(stats.retired <= 4 * ROUNDS);
        CHECK(stats.disposed <= 4 * ROUNDS);
        CHECK(stats.pending_items <= stats.retired);
        sched_yield();
    }
}

TEST(a_snapshot_may_be_taken_at_any_time)
{
    watching.stop = 0;
    runtime_up();
    run_crowd(5, count_or_watch, NULL);
    runtime_down();
}

/* ---- the stall report ---------------------------------------------------------------------------------------------- */

TEST(a_stall_report_wants_its_arguments)
{
    pyrt_stall_report report = {.struct_size = sizeof(report)};
    CHECK_STATUS(pyrt_qsbr_stall_report(NULL, &report), PYRT_EINVAL);
    runtime_up();
    CHECK_STATUS(pyrt_qsbr_stall_report(pyrt_interp_main(), NULL), PYRT_EINVAL);
    report.struct_size = sizeof(report) + 8;
    CHECK_STATUS(pyrt_qsbr_stall_report(pyrt_interp_main(), &report), PYRT_EINVAL);
    report.struct_size = 0;
    CHECK_STATUS(pyrt_qsbr_stall_report(pyrt_interp_main(), &report), PYRT_EINVAL);
    runtime_down();
}

TEST(without_a_waiting_goal_the_report_says_what_is_pending)
{
    runtime_up();
    pyrt_stall_report report = {.struct_size = sizeof(report)};
    CHECK_STATUS(pyrt_qsbr_stall_report(pyrt_interp_main(), &report), PYRT_ENOTFOUND);
    CHECK_UINT(report.pending_items, 0);
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    CHECK_OK(pyrt_retire(thread, NULL, 300, count));
    report = (pyrt_stall_report){.struct_size = sizeof(report)};
    CHECK_STATUS(pyrt_qsbr_stall_report(pyrt_interp_main(), &report), PYRT_ENOTFOUND);
    CHECK_UINT(report.pending_items, 1);
    CHECK_UINT(report.pending_bytes, 300);
    CHECK_UINT(report.thread_id, 0);
    pyrt_thread_release(thread);
    runtime_down();
}

TEST(the_report_names_the_one_who_is_furthest_behind)
{
    worker w[3];
    pyrt_thread *readers[3];
    disposed = 0;
    runtime_up();
    pyrt_interp *main = pyrt_interp_main();
    pyrt_thread *thread = pyrt_thread_ensure(main);
    for (int i = 0; i < 3; i++) {
        worker_start(&w[i]);
        worker_do(&w[i], attach_new, &readers[i]);
    }
    pyrt_thread_set_name(readers[1], "the one");
    CHECK_OK(pyrt_retire(thread, NULL, 300, count));
    uint64_t goal = pyrt_qsbr_advance(main);
    pyrt_qsbr_quiescent_state(thread);
    worker_do(&w[0], pass_quiescent_state, readers[0]);
    worker_do(&w[2], pass_quiescent_state, readers[2]);
    CHECK(!pyrt_qsbr_poll(thread, goal));
    uint64_t later = pyrt_qsbr_advance(main);
    CHECK(!pyrt_qsbr_poll(thread, later));
    int64_t held = 0;
    for (int i = 0; i < 3; i++) {
        pyrt_stall_report report = {.struct_size = sizeof(report)};
        CHECK_OK(pyrt_qsbr_stall_report(main, &report));
        CHECK_UINT(report.struct_size, sizeof(report));
        CHECK_UINT(report.thread_id, readers[1]->id);
        CHECK_STR(report.thread_name, "the one");
        CHECK_INT(report.os_tid, pyrt_thread_impl_of(readers[1])->os_tid);
        CHECK_INT(report.interp_id, 0);
        CHECK_UINT(report.goal, goal);
        CHECK(report.held_ns >= held);
        held = report.held_ns;
        CHECK_UINT(report.pending_items, 1);
        CHECK_UINT(report.pending_bytes, 300);
    }
    /* He passes: now the later goal is the oldest, and the others hold it up. */
    worker_do(&w[1], pass_quiescent_state, readers[1]);
    CHECK(pyrt_qsbr_poll(thread, goal));
    CHECK(!pyrt_qsbr_poll(thread, later));
    pyrt_stall_report report = {.struct_size = sizeof(report)};
    CHECK_OK(pyrt_qsbr_stall_report(main, &report));
    CHECK_UINT(report.goal, later);
    CHECK(report.thread_id != readers[1]->id);
    for (int i = 0; i < 3; i++) {
        worker_do(&w[i], delete_attached, readers[i]);
        worker_end(&w[i]);
    }
    pyrt_qsbr_quiescent_state(thread);
    CHECK(pyrt_qsbr_poll(thread, later));
    report = (pyrt_stall_report){.struct_size = sizeof(report)};
    CHECK_STATUS(pyrt_qsbr_stall_report(main, &report), PYRT_ENOTFOUND);
    pyrt_thread_release(thread);
    runtime_down();
}

/* A waiting synchronize or barrier is a goal that waits, too. */
TEST(the_report_names_who_holds_up_a_waiting_thread)
{
    worker w;
    pyrt_thread *reader;
    pyrt_stall_report report = {.struct_size = sizeof(report)};
    runtime_up();
    worker_start(&w);
    worker_do(&w, attach_new, &reader);
    CHECK_STATUS(pyrt_qsbr_synchronize_timed(NULL, 0), PYRT_ETIMEDOUT);
    CHECK_OK(pyrt_qsbr_stall_report(pyrt_interp_main(), &report));
    CHECK_UINT(report.thread_id, reader->id);
    worker_do(&w, delete_attached, reader);
    worker_end(&w);
    runtime_down();
}

TEST(the_report_names_the_caller_himself)
{
    pyrt_stall_report report = {.struct_size = sizeof(report)};
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    CHECK(!pyrt_qsbr_poll(thread, pyrt_qsbr_advance(thread->interp)));
    CHECK_OK(pyrt_qsbr_stall_report(thread->interp, &report));
    CHECK_UINT(report.thread_id, thread->id);
    pyrt_thread_release(thread);
    runtime_down();
}
