/* test_retire_bounds.c -- how much may wait: the bounds behind which retiring is answered with PYRT_EBUSY, and what happens when
 * memory is short (retire.h, law 5).
 */
#include "support.h"

#include "faults.h"
#include "platform/meta_alloc.h"
#include "steps.h"

#include <sched.h>
#include <stdlib.h>

static int disposed;

static void
count(void *p)
{
    (void)p;
    disposed++;
}

static void
count_call(void *p, void *arg)
{
    (void)arg;
    count(p);
}

static void
count_node(pyrt_retire_node *node)
{
    count(node);
}

/* ---- bounds -------------------------------------------------------------------------------------------------------- */

/* Retires until the answer is EBUSY, which it must be from there on, and says how many items that took. All are taken. */
static int
retire_until_busy(pyrt_thread *thread, size_t bytes, int at_most)
{
    int taken = 0;
    pyrt_status status;
    do {
        status = pyrt_retire(thread, NULL, bytes, count);
        CHECK(status == PYRT_OK || status == PYRT_EBUSY);
        CHECK(++taken <= at_most);
    } while (status == PYRT_OK);
    CHECK_STATUS(pyrt_retire(thread, NULL, bytes, count), PYRT_EBUSY);
    CHECK_STATUS(pyrt_retire_call(thread, count_call, NULL, NULL, bytes), PYRT_EBUSY);
    CHECK_UINT(stat_of(thread->interp, "busy"), 3);
    return taken + 2;
}

static void
check_bound(size_t item_bytes, size_t bound_items, size_t bound_bytes, int at_least, int at_most)
{
    disposed = 0;
    runtime_up();
    if (bound_items != 0) {
        CHECK_OK(pyrt_retire_set_bound(pyrt_interp_main(), bound_items, bound_bytes));
    }
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    reader_begin();
    int taken = retire_until_busy(thread, item_bytes, at_most);
    CHECK(taken > at_least);
    CHECK_UINT(stat_of(thread->interp, "pending_items"), taken);
    /* The stall report is told at a safepoint once, and names the one who has held it up for long. */
    while (reports_pending() == 0) {
        pyrt_safepoint(thread);
        sched_yield();
    }
    pyrt_safepoint(thread);
    EXPECT_REPORT(named(the_reader), "holds up");
    CHECK_INT(disposed, 0);
    reader_end();
    CHECK_UINT(pyrt_process_delayed(thread), taken);
    CHECK_INT(disposed, taken);
    /* There is room again, if only for what reaches the bound at once. */
    CHECK_STATUS(pyrt_retire(thread, NULL, 1, count), bound_items == 1 || bound_bytes == 1 ? PYRT_EBUSY : PYRT_OK);
    pyrt_thread_release(thread);
    runtime_down();
}

/* The item that reaches the bound is the first that is answered with EBUSY; two more are taken after it. */
static void
check_bound_is_met(size_t item_bytes, size_t bound_items, size_t bound_bytes, int items)
{
    check_bound(item_bytes, bound_items, bound_bytes, items + 1, items);
}

TEST(the_usual_bound_in_bytes_is_one_mebibyte)
{
    check_bound_is_met(1000, 0, 0, 1024 * 1024 / 1000 + 1);
}

TEST(the_usual_bound_in_items_is_64_ki)
{
    check_bound_is_met(1, 0, 0, 64 * 1024);
}

TEST(a_bound_in_bytes_can_be_set)
{
    check_bound_is_met(1000, 1000000, 200000, 200);
}

TEST(a_bound_in_items_can_be_set)
{
    check_bound_is_met(1, 2000, 1000000000, 2000);
}

/* From the first chunk on, and in chunks that are not full by far. */
TEST(small_bounds_are_met_to_the_item_too)
{
    const int bounds[] = {1, 2, 3, 10, 252, 253, 254, 255, 506, 507, 508, 509, 700};
    for (size_t i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++) {
        check_bound_is_met(1, (size_t)bounds[i], 1000000000, bounds[i]);
        check_bound_is_met(1, 1000000000, (size_t)bounds[i], bounds[i]);
        check_bound_is_met(1000, 1000000000, (size_t)bounds[i] * 1000 - 1, bounds[i]);
        check_bound_is_met(100 * 1024, (size_t)bounds[i], SIZE_MAX, bounds[i]);
    }
}

/* What has been disposed of makes room for exactly as much. */
TEST(the_bound_is_met_again_after_disposal)
{
    enum { BOUND = 300 };
    runtime_up();
    CHECK_OK(pyrt_retire_set_bound(pyrt_interp_main(), BOUND, 1000000000));
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    for (int round = 0; round < 5; round++) {
        for (int i = 1; i < BOUND; i++) {
            CHECK_OK(i % 3 != 0 ? pyrt_retire(thread, NULL, 1, count) : pyrt_retire_call(thread, count_call, NULL, NULL, 1));
        }
        CHECK_STATUS(pyrt_retire(thread, NULL, 1, count), PYRT_EBUSY);
        CHECK_UINT(pyrt_process_delayed(thread), BOUND);
    }
    pyrt_thread_release(thread);
    runtime_down();
}

TEST(a_bound_of_zero_is_refused)
{
    CHECK_STATUS(pyrt_retire_set_bound(NULL, 1, 1), PYRT_EINVAL);
    runtime_up();
    CHECK_STATUS(pyrt_retire_set_bound(pyrt_interp_main(), 0, 1), PYRT_EINVAL);
    CHECK_STATUS(pyrt_retire_set_bound(pyrt_interp_main(), 1, 0), PYRT_EINVAL);
    CHECK_OK(pyrt_retire_set_bound(pyrt_interp_main(), 1, 1));
    runtime_down();
}

TEST(nodes_are_taken_beyond_every_bound)
{
    enum { MANY = 3000 };
    pyrt_retire_node *nodes = calloc(MANY, sizeof(*nodes));
    disposed = 0;
    runtime_up();
    CHECK_OK(pyrt_retire_set_bound(pyrt_interp_main(), 100, 1000));
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    reader_begin();
    for (int i = 0; i < MANY; i++) {
        pyrt_retire_node(thread, &nodes[i], 100, count_node);
    }
    /* They count for the bound of the forms that can say so. */
    CHECK_STATUS(pyrt_retire(thread, NULL, 1, count), PYRT_EBUSY);
    reader_end();
    CHECK_UINT(pyrt_process_delayed(thread), MANY + 1);
    pyrt_thread_release(thread);
    runtime_down();
    free(nodes);
}

/* ---- short of memory ----------------------------------------------------------------------------------------------- */

/* A queue that everybody shares: the orphans through `thread` NULL, or the global one. */
static void
run_out_in_a_shared_queue(bool global, int prelude, int busy_before_failing)
{
    int taken = 0;
    int busy = 0;
    pyrt_status status;
    disposed = 0;
    runtime_up();
    for (; taken < prelude; taken++) {
        CHECK_OK(global ? pyrt_retire_global(NULL, 1, count) : pyrt_retire(NULL, NULL, 1, count));
    }
    fault_arm(1, INT32_MAX);
    do {
        status = global ? pyrt_retire_global(NULL, 1, count) : pyrt_retire(NULL, NULL, 1, count);
        busy += status == PYRT_EBUSY;
        taken += status != PYRT_ENOMEM;
        CHECK(taken < 100000);
    } while (status != PYRT_ENOMEM);
    CHECK(faults_hit() > 0);
    CHECK(busy >= busy_before_failing);
    fault_disarm();
    CHECK_UINT(stat_of(pyrt_interp_main(), "retired"), taken);
    CHECK_UINT(stat_of(pyrt_interp_main(), "busy"), busy);
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    CHECK_INT(disposed, taken);
    CHECK_UINT(stat_of(pyrt_interp_main(), "pending_items"), 0);
    CHECK_UINT(stat_of(pyrt_interp_main(), "pending_bytes"), 0);
    runtime_down();
}

TEST(shared_queues_are_busy_well_before_out_of_memory)
{
    for (int global = 0; global < 2; global++) {
        run_out_in_a_shared_queue(global, 1, 40);
        run_out_in_a_shared_queue(global, 100, 40);
    }
}

/* The first `prelude` items find memory, then there is no more. */
static void
run_out_later(int prelude, size_t bytes, int busy_before_failing)
{
    int taken = 0;
    int busy = 0;
    pyrt_status status;
    disposed = 0;
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    reader_begin();
    for (; taken < prelude; taken++) {
        CHECK_OK(pyrt_retire(thread, NULL, bytes, count));
    }
    fault_arm(1, INT32_MAX);
    while ((status = pyrt_retire(thread, NULL, bytes, count)) != PYRT_ENOMEM) {
        CHECK(status == PYRT_OK || status == PYRT_EBUSY);
        busy += status == PYRT_EBUSY;
        CHECK(++taken < 100000);
    }
    CHECK(faults_hit() > 0);
    CHECK(busy >= busy_before_failing);
    /* Once more: it stays so, and nodes still go. */
    pyrt_retire_node node;
    CHECK_STATUS(pyrt_retire_call(thread, count_call, NULL, NULL, bytes), PYRT_ENOMEM);
    pyrt_retire_node(thread, &node, bytes, count_node);
    /* Disposing needs no memory and gives some back. */
    reader_end();
    CHECK_UINT(pyrt_process_delayed(thread), taken + 1);
    CHECK_INT(disposed, taken + 1);
    pyrt_status after = pyrt_retire(thread, NULL, 1, count);
    CHECK(after == PYRT_OK || after == PYRT_EBUSY);
    fault_disarm();
    pyrt_thread_release(thread);
    runtime_down();
    CHECK_INT(disposed, taken + 2);
}

TEST(busy_comes_well_before_out_of_memory)
{
    const int preludes[] = {1, 50, 250, 300, 506, 507, 508, 1500};
    for (size_t i = 0; i < sizeof(preludes) / sizeof(preludes[0]); i++) {
        run_out_later(preludes[i], 1, 40);
    }
}

/* Items of which each fills a chunk: the warning is one item, but it comes. */
TEST(busy_comes_before_out_of_memory_for_large_items_too)
{
    run_out_later(1, 64 * 1024, 1);
    run_out_later(2, 64 * 1024, 1);
    run_out_later(3, 40 * 1024, 1);
}

TEST(an_item_that_is_not_taken_is_not_disposed_of)
{
    disposed = 0;
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    size_t live = pyrt_meta_live_bytes();
    fault_arm(1, INT32_MAX);
    CHECK_STATUS(pyrt_retire(thread, NULL, 1, count), PYRT_ENOMEM);
    CHECK_STATUS(pyrt_retire_call(thread, count_call, NULL, NULL, 1), PYRT_ENOMEM);
    CHECK_STATUS(pyrt_retire_global(NULL, 1, count), PYRT_ENOMEM);
    fault_disarm();
    CHECK_UINT(pyrt_meta_live_bytes(), live);
    CHECK_UINT(stat_of(thread->interp, "retired"), 0);
    CHECK_UINT(pyrt_process_delayed(thread), 0);
    CHECK_OK(pyrt_qsbr_barrier(thread));
    CHECK_INT(disposed, 0);
    pyrt_thread_release(thread);
    runtime_down();
}
