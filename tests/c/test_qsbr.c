/* test_qsbr.c -- goals, polling and waiting (qsbr.h), also across the wrap of the sequence.
 *
 * Each test runs once from the usual start of the sequence and once from shortly before its end, so that the goals of
 * before and of after the wrap meet.
 */
#include "support.h"

#include "epoch/qsbr.h"
#include "steps.h"
#include "workers.h"

/* ---- from two starts ----------------------------------------------------------------------------------------------- */

static const uint64_t SHORTLY_BEFORE_THE_END = UINT64_MAX - 6;

#define TEST_FROM_BOTH_STARTS(name_)                      \
    static void name_##_from_here(void);                  \
    TEST(name_)                                           \
    {                                                     \
        pyrt_qsbr_sequence_start(PYRT_QSBR_INITIAL);      \
        name_##_from_here();                              \
        pyrt_qsbr_sequence_start(SHORTLY_BEFORE_THE_END); \
        name_##_from_here();                              \
        pyrt_qsbr_sequence_start(PYRT_QSBR_INITIAL);      \
    }                                                     \
    static void name_##_from_here(void)

/* ---- what a led thread does ---------------------------------------------------------------------------------------- */

typedef struct wait_call {
    pyrt_thread *thread;
    int64_t timeout_ns;
    pyrt_status status;
} wait_call;

static void
synchronize(void *arg)
{
    wait_call *call = arg;
    call->status = pyrt_qsbr_synchronize_timed(call->thread, call->timeout_ns);
}

/* ---- goals --------------------------------------------------------------------------------------------------------- */

TEST_FROM_BOTH_STARTS(goals_are_odd_and_grow_by_one_step)
{
    runtime_up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    uint64_t last = pyrt_qsbr_advance(pyrt_interp_main());
    for (int i = 0; i < 10; i++) {
        /* One sequence for all interpreters. */
        uint64_t goal = pyrt_qsbr_advance(i % 2 == 0 ? other : pyrt_interp_main());
        CHECK_UINT(goal & 1, 1);
        CHECK_UINT(goal - last, PYRT_QSBR_STEP);
        CHECK((int64_t)(goal - last) > 0);
        last = goal;
    }
    runtime_down();
}

TEST(the_sequence_starts_where_it_is_put_and_wraps)
{
    pyrt_qsbr_sequence_start(UINT64_MAX - 2);
    runtime_up();
    CHECK_UINT(pyrt_qsbr_advance(pyrt_interp_main()), UINT64_MAX);
    CHECK_UINT(pyrt_qsbr_advance(pyrt_interp_main()), 1);
    CHECK_UINT(pyrt_qsbr_advance(pyrt_interp_main()), 3);
    runtime_down();
    pyrt_qsbr_sequence_start(PYRT_QSBR_INITIAL);
}

/* ---- polling ------------------------------------------------------------------------------------------------------- */

TEST_FROM_BOTH_STARTS(without_readers_a_goal_is_reached_at_once)
{
    runtime_up();
    for (int i = 0; i < 8; i++) {
        CHECK(pyrt_qsbr_poll(NULL, pyrt_qsbr_advance(pyrt_interp_main())));
    }
    pyrt_thread *detached = pyrt_thread_new(pyrt_interp_main());
    for (int i = 0; i < 8; i++) {
        CHECK(pyrt_qsbr_poll(detached, pyrt_qsbr_advance(pyrt_interp_main())));
    }
    pyrt_thread_delete(detached);
    runtime_down();
}

TEST_FROM_BOTH_STARTS(a_goal_that_nobody_has_advanced_to_is_not_reached)
{
    runtime_up();
    uint64_t goal = pyrt_qsbr_advance(pyrt_interp_main());
    CHECK(pyrt_qsbr_poll(NULL, goal));
    CHECK(!pyrt_qsbr_poll(NULL, goal + PYRT_QSBR_STEP));
    CHECK(!pyrt_qsbr_poll(NULL, goal + 1000 * PYRT_QSBR_STEP));
    runtime_down();
}

TEST(poll_without_runtime_is_false)
{
    CHECK(!pyrt_qsbr_poll(NULL, PYRT_QSBR_INITIAL));
}

TEST_FROM_BOTH_STARTS(an_attached_reader_holds_goals_up_until_it_passes)
{
    worker w;
    pyrt_thread *reader;
    runtime_up();
    pyrt_interp *main = pyrt_interp_main();
    worker_start(&w);
    worker_do(&w, attach_new, &reader);
    void (*const ways[])(void *) = {pass_quiescent_state, pass_safepoint, detach};
    for (int round = 0; round < 6; round++) {
        uint64_t before = pyrt_qsbr_advance(main);
        uint64_t goal = pyrt_qsbr_advance(main);
        for (int i = 0; i < 3; i++) {
            CHECK(!pyrt_qsbr_poll(NULL, before));
            CHECK(!pyrt_qsbr_poll(NULL, goal));
        }
        worker_do(&w, ways[round % 3], reader);
        CHECK(pyrt_qsbr_poll(NULL, goal));
        CHECK(pyrt_qsbr_poll(NULL, before));
        if (round % 3 == 2) {
            worker_do(&w, attach, reader);
            /* Attached after the goal it does not hold it up again. */
            CHECK(pyrt_qsbr_poll(NULL, goal));
        }
    }
    worker_do(&w, delete_attached, reader);
    worker_end(&w);
    runtime_down();
}

TEST_FROM_BOTH_STARTS(the_slowest_of_several_readers_counts)
{
    enum { READERS = 4 };
    worker w[READERS];
    pyrt_thread *readers[READERS];
    uint64_t goals[READERS];
    runtime_up();
    for (int i = 0; i < READERS; i++) {
        worker_start(&w[i]);
        worker_do(&w[i], attach_new, &readers[i]);
    }
    for (int i = 0; i < READERS; i++) {
        goals[i] = pyrt_qsbr_advance(pyrt_interp_main());
        worker_do(&w[i], pass_quiescent_state, readers[i]);
        /* Reader i has passed goal i; the last one has passed none before its turn. */
        CHECK(pyrt_qsbr_poll(NULL, goals[0]) == (i == READERS - 1));
    }
    CHECK(!pyrt_qsbr_poll(NULL, goals[1]));
    worker_do(&w[0], detach, readers[0]);
    CHECK(pyrt_qsbr_poll(NULL, goals[1]));
    CHECK(!pyrt_qsbr_poll(NULL, goals[2]));
    worker_do(&w[1], pass_quiescent_state, readers[1]);
    CHECK(pyrt_qsbr_poll(NULL, goals[2]));
    worker_do(&w[2], detach, readers[2]);
    CHECK(pyrt_qsbr_poll(NULL, goals[3]));
    worker_do(&w[0], attach, readers[0]);
    worker_do(&w[2], attach, readers[2]);
    for (int i = 0; i < READERS; i++) {
        worker_do(&w[i], delete_attached, readers[i]);
        worker_end(&w[i]);
    }
    runtime_down();
}

TEST_FROM_BOTH_STARTS(the_polling_thread_is_a_reader_itself)
{
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    for (int i = 0; i < 6; i++) {
        uint64_t goal = pyrt_qsbr_advance(pyrt_interp_main());
        CHECK(!pyrt_qsbr_poll(thread, goal));
        CHECK(!pyrt_qsbr_poll(NULL, goal));
        pyrt_qsbr_quiescent_state(thread);
        CHECK(pyrt_qsbr_poll(thread, goal));
    }
    pyrt_thread_release(thread);
    runtime_down();
}

TEST_FROM_BOTH_STARTS(each_interpreter_has_its_own_readers)
{
    worker w;
    pyrt_thread *in_main;
    runtime_up();
    pyrt_thread *in_other = pyrt_thread_ensure(pyrt_interp_new(NULL));
    worker_start(&w);
    worker_do(&w, attach_new, &in_main);
    uint64_t goal = pyrt_qsbr_advance(in_other->interp);
    pyrt_qsbr_quiescent_state(in_other);
    CHECK(pyrt_qsbr_poll(in_other, goal));
    CHECK(pyrt_qsbr_poll(NULL, goal));
    CHECK(!pyrt_qsbr_poll(in_main, goal));
    pyrt_thread_release(in_other);
    /* With none attached NULL means the main one. */
    CHECK(!pyrt_qsbr_poll(NULL, goal));
    worker_do(&w, delete_attached, in_main);
    CHECK(pyrt_qsbr_poll(NULL, goal));
    worker_end(&w);
    runtime_down();
}

TEST_FROM_BOTH_STARTS(a_slot_that_is_used_again_is_a_new_reader)
{
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    uint64_t goal = pyrt_qsbr_advance(pyrt_interp_main());
    CHECK(!pyrt_qsbr_poll(NULL, goal));
    pyrt_thread_release(thread);
    CHECK(pyrt_qsbr_poll(NULL, goal));
    pyrt_thread *again = pyrt_thread_ensure(pyrt_interp_main());
    CHECK(pyrt_qsbr_poll(NULL, goal));
    uint64_t next = pyrt_qsbr_advance(pyrt_interp_main());
    CHECK(!pyrt_qsbr_poll(NULL, next));
    pyrt_thread_release(again);
    runtime_down();
}

/* ---- waiting ------------------------------------------------------------------------------------------------------- */

TEST(advance_without_runtime_is_a_step_that_nobody_counts)
{
    uint64_t goal = pyrt_qsbr_advance(pyrt_interp_main());
    CHECK_UINT(pyrt_qsbr_advance(NULL), goal + PYRT_QSBR_STEP);
    runtime_up();
    CHECK_UINT(pyrt_qsbr_advance(NULL), goal + 2 * PYRT_QSBR_STEP);
    CHECK_UINT(stat_of(pyrt_interp_main(), "goals"), 0);
    runtime_down();
}

TEST(synchronize_without_runtime_is_refused)
{
    CHECK_STATUS(pyrt_qsbr_synchronize(NULL), PYRT_ESTATE);
    CHECK_STATUS(pyrt_qsbr_synchronize_timed(NULL, 0), PYRT_ESTATE);
    CHECK_UINT(reports_pending(), 0);
}

TEST_FROM_BOTH_STARTS(synchronize_alone_does_not_wait)
{
    runtime_up();
    watch_sleepers();
    for (int i = 0; i < 8; i++) {
        CHECK_OK(pyrt_qsbr_synchronize(NULL));
        CHECK_OK(pyrt_qsbr_synchronize_timed(NULL, 0));
    }
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    for (int i = 0; i < 8; i++) {
        /* The calling thread is quiescent: it does not wait for itself. */
        CHECK_OK(pyrt_qsbr_synchronize(thread));
        CHECK_OK(pyrt_qsbr_synchronize_timed(NULL, 0));
        CHECK_PTR(pyrt_thread_current(), thread);
    }
    pyrt_thread_release(thread);
    CHECK_INT(sleeps_begun(), 0);
    stop_watching_sleepers();
    CHECK_UINT(stat_of(pyrt_interp_main(), "synchronizes"), 32);
    CHECK_UINT(stat_of(pyrt_interp_main(), "sleeps"), 0);
    runtime_down();
}

TEST_FROM_BOTH_STARTS(synchronize_waits_for_every_reader)
{
    worker readers[2];
    worker writer;
    pyrt_thread *threads[2];
    wait_call call = {.thread = NULL, .timeout_ns = -1};
    void (*const ways[])(void *) = {pass_quiescent_state, pass_safepoint, detach};
    runtime_up();
    worker_start(&writer);
    for (int i = 0; i < 2; i++) {
        worker_start(&readers[i]);
        worker_do(&readers[i], attach_new, &threads[i]);
    }
    for (int round = 0; round < 6; round++) {
        watch_sleepers();
        worker_begin(&writer, synchronize, &call);
        WAIT_UNTIL(sleepers() == 1);
        worker_do(&readers[0], ways[round % 3], threads[0]);
        /* The other one has not passed, and says so in the word that the writer waits for. */
        CHECK(worker_is_busy(&writer));
        worker_do(&readers[1], ways[round % 3], threads[1]);
        worker_finish(&writer);
        CHECK_OK(call.status);
        stop_watching_sleepers();
        if (round % 3 == 2) {
            worker_do(&readers[0], attach, threads[0]);
            worker_do(&readers[1], attach, threads[1]);
        }
    }
    CHECK_UINT(stat_of(pyrt_interp_main(), "sleeps"), 6);
    for (int i = 0; i < 2; i++) {
        worker_do(&readers[i], delete_attached, threads[i]);
        worker_end(&readers[i]);
    }
    worker_end(&writer);
    runtime_down();
}

TEST(the_end_of_a_reader_wakes_who_waits_for_it)
{
    worker reader;
    worker writer;
    pyrt_thread *thread;
    wait_call call = {.thread = NULL, .timeout_ns = -1};
    runtime_up();
    worker_start(&writer);
    worker_start(&reader);
    worker_do(&reader, attach_new, &thread);
    watch_sleepers();
    worker_begin(&writer, synchronize, &call);
    WAIT_UNTIL(sleepers() == 1);
    /* It is attached when it ends, by its OS thread. */
    worker_end(&reader);
    worker_end(&writer);
    CHECK_OK(call.status);
    stop_watching_sleepers();
    runtime_down();
}

TEST_FROM_BOTH_STARTS(a_timed_synchronize_gives_up)
{
    worker w;
    pyrt_thread *reader;
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    worker_start(&w);
    worker_do(&w, attach_new, &reader);
    watch_sleepers();
    const int64_t timeouts[] = {0, 1, 1000000};
    for (int i = 0; i < 3; i++) {
        CHECK_STATUS(pyrt_qsbr_synchronize_timed(thread, timeouts[i]), PYRT_ETIMEDOUT);
        CHECK_PTR(pyrt_thread_current(), thread);
        CHECK(thread->slot.word & 1);
        CHECK(i != 0 || sleeps_begun() == 0);
    }
    stop_watching_sleepers();
    worker_do(&w, delete_attached, reader);
    CHECK_OK(pyrt_qsbr_synchronize_timed(thread, 0));
    pyrt_thread_release(thread);
    worker_end(&w);
    runtime_down();
}

TEST(synchronize_is_refused_inside_a_read_side_section)
{
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_read_begin_counted(thread);
    uint64_t word = thread->slot.word;
    CHECK_STATUS(pyrt_qsbr_synchronize(thread), PYRT_ESTATE);
    EXPECT_REPORT("pyrt_qsbr_synchronize", named(thread), "read-side section");
    CHECK_STATUS(pyrt_qsbr_synchronize_timed(NULL, 0), PYRT_ESTATE);
    EXPECT_REPORT("pyrt_qsbr_synchronize", named(thread), "read-side section");
    CHECK_UINT(thread->slot.word, word);
    CHECK_UINT(stat_of(pyrt_interp_main(), "synchronizes"), 0);
    pyrt_read_end_counted(thread);
    CHECK_OK(pyrt_qsbr_synchronize(thread));
    pyrt_thread_release(thread);
    runtime_down();
}

/* Two attached threads wait for each other: each is quiescent while it waits. */
static void
synchronize_often(void *unused, int number)
{
    (void)unused;
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    random_stream choices = random_for((uint64_t)number);
    for (int i = 0; i < 200; i++) {
        int64_t timeout = random_below(&choices, 4) == 0 ? 1000 : -1;
        pyrt_status status = pyrt_qsbr_synchronize_timed(thread, timeout);
        CHECK(status == PYRT_OK || (status == PYRT_ETIMEDOUT && timeout >= 0));
        CHECK_PTR(pyrt_thread_current(), thread);
    }
    pyrt_thread_release(thread);
}

TEST_FROM_BOTH_STARTS(threads_that_wait_for_each_other_all_get_on)
{
    runtime_up();
    run_crowd(4, synchronize_often, NULL);
    CHECK_UINT(stat_of(pyrt_interp_main(), "synchronizes"), 800);
    runtime_down();
}

/* ---- the promise itself -------------------------------------------------------------------------------------------- */

/* A writer replaces a node and wipes the old one when its goal is reached; readers must never see a wiped one. The stress
 * does this at length; here it crosses the wrap of the sequence many times a second. */
static struct {
    struct node {
        uint64_t canary;
    } nodes[8];
    struct node *shared;
    int stop;
} promise;

enum { ALIVE = 77 };

static void
read_or_replace(void *unused, int number)
{
    (void)unused;
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    if (number > 0) {
        while (!pyrt_load_acquire(&promise.stop)) {
            for (int i = 0; i < 50; i++) {
                struct node *seen = pyrt_load_acquire(&promise.shared);
                CHECK_UINT(pyrt_load_relaxed(&seen->canary), ALIVE);
                CHECK_UINT(pyrt_load_relaxed(&seen->canary), ALIVE);
            }
            pyrt_qsbr_quiescent_state(thread);
            sched_yield();
        }
        pyrt_thread_release(thread);
        return;
    }
    struct node *spare = &promise.nodes[1];
    for (int i = 0; i < 300; i++) {
        pyrt_store_relaxed(&spare->canary, (uint64_t)ALIVE);
        struct node *old = pyrt_exchange_seq_cst(&promise.shared, spare);
        uint64_t goal = pyrt_qsbr_advance(thread->interp);
        do {
            pyrt_qsbr_quiescent_state(thread);
            sched_yield();
        } while (!pyrt_qsbr_poll(thread, goal));
        pyrt_store_relaxed(&old->canary, (uint64_t)0);
        spare = old;
    }
    pyrt_store_release(&promise.stop, 1);
    pyrt_thread_release(thread);
}

TEST_FROM_BOTH_STARTS(nobody_sees_what_was_wiped_after_its_goal)
{
    promise.nodes[0].canary = ALIVE;
    promise.shared = &promise.nodes[0];
    promise.stop = 0;
    runtime_up();
    run_crowd(3, read_or_replace, NULL);
    runtime_down();
}
