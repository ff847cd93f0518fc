/* test_retire.c -- handing memory over: the four forms, their order, when disposal comes, and who may call them (retire.h). */
#include "support.h"

#include "steps.h"
#include "workers.h"

#include <stdlib.h>
#include <string.h>

static int disposed;

static void
count(void *p)
{
    (void)p;
    pyrt_fetch_add_seq_cst(&disposed, 1);
}

static void
count_call(void *p, void *arg)
{
    (void)arg;
    count(p);
}

typedef struct counted_node {
    pyrt_retire_node node;
    int number;
} counted_node;

static void
count_node(pyrt_retire_node *node)
{
    count(node);
}

/* ---- the four forms ------------------------------------------------------------------------------------------------ */

static struct {
    void *p;
    void *arg;
    int calls;
} seen;

static void
see(void *p)
{
    seen.p = p;
    seen.calls++;
}

static void
see_call(void *p, void *arg)
{
    seen.p = p;
    seen.arg = arg;
    seen.calls++;
}

static void
see_node(pyrt_retire_node *node)
{
    seen.p = node;
    seen.calls++;
}

TEST(each_form_hands_over_what_it_was_given)
{
    int thing;
    int more;
    counted_node node = {.number = 5};
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());

    memset(&seen, 0, sizeof(seen));
    CHECK_OK(pyrt_retire(thread, &thing, 8, see));
    CHECK_INT(seen.calls, 0);
    CHECK_UINT(pyrt_process_delayed(thread), 1);
    CHECK_PTR(seen.p, &thing);

    CHECK_OK(pyrt_retire_call(thread, see_call, &thing, &more, 8));
    CHECK_UINT(pyrt_process_delayed(thread), 1);
    CHECK_PTR(seen.p, &thing);
    CHECK_PTR(seen.arg, &more);

    CHECK_OK(pyrt_retire_call(thread, see_call, NULL, NULL, 8));
    CHECK_UINT(pyrt_process_delayed(thread), 1);
    CHECK_PTR(seen.p, NULL);
    CHECK_PTR(seen.arg, NULL);

    pyrt_retire_node(thread, &node.node, 8, see_node);
    CHECK_UINT(pyrt_process_delayed(thread), 1);
    CHECK_PTR(seen.p, &node);
    CHECK_INT(node.number, 5);

    CHECK_OK(pyrt_retire_global(&thing, 8, see));
    CHECK_UINT(pyrt_process_delayed(thread), 1);
    CHECK_PTR(seen.p, &thing);

    CHECK_INT(seen.calls, 5);
    CHECK_UINT(pyrt_process_delayed(thread), 0);
    CHECK_UINT(stat_of(thread->interp, "retired"), 5);
    CHECK_UINT(stat_of(thread->interp, "disposed"), 5);
    pyrt_thread_release(thread);
    runtime_down();
}

TEST(bytes_may_be_anything)
{
    disposed = 0;
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    CHECK_OK(pyrt_retire(thread, NULL, 0, count));
    pyrt_status status = pyrt_retire(thread, NULL, (size_t)1 << 40, count);
    CHECK(status == PYRT_OK || status == PYRT_EBUSY);
    CHECK_UINT(stat_of(thread->interp, "pending_bytes"), (uint64_t)1 << 40);
    CHECK_UINT(pyrt_process_delayed(thread), 2);
    CHECK_UINT(stat_of(thread->interp, "pending_bytes"), 0);
    CHECK_INT(disposed, 2);
    pyrt_thread_release(thread);
    runtime_down();
}

/* ---- order --------------------------------------------------------------------------------------------------------- */

static int next_item;
static int next_call;
static int next_node;
static int next_global;

static void
item_in_turn(void *p)
{
    CHECK_INT((intptr_t)p, next_item++);
}

static void
call_in_turn(void *p, void *arg)
{
    (void)arg;
    CHECK_INT((intptr_t)p, next_call++);
}

static void
node_in_turn(pyrt_retire_node *node)
{
    CHECK_INT(((counted_node *)(void *)node)->number, next_node++);
}

static void
global_in_turn(void *p)
{
    CHECK_INT((intptr_t)p, next_global++);
}

/* Many chunks and more batches than the ring of a queue holds, disposed of now and then. */
TEST(disposal_keeps_the_order_of_retiring_within_a_form)
{
    enum { MANY = 6000 };
    counted_node *nodes = calloc(MANY, sizeof(counted_node));
    random_stream choices = random_for(3);
    next_item = next_call = next_node = next_global = 0;
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    int items = 0;
    int calls = 0;
    int node_count = 0;
    int globals = 0;
    for (int i = 0; i < MANY; i++) {
        switch (random_below(&choices, 4)) {
        case 0:
            CHECK_OK(pyrt_retire(thread, (void *)(intptr_t)items++, 10, item_in_turn));
            break;
        case 1:
            CHECK_OK(pyrt_retire_call(thread, call_in_turn, (void *)(intptr_t)calls++, NULL, 10));
            break;
        case 2:
            nodes[node_count].number = node_count;
            pyrt_retire_node(thread, &nodes[node_count].node, 10, node_in_turn);
            node_count++;
            break;
        default:
            CHECK_OK(pyrt_retire_global((void *)(intptr_t)globals++, 10, global_in_turn));
            break;
        }
        if (random_below(&choices, 1000) == 0) {
            (void)pyrt_process_delayed(thread);
        }
        else if (random_below(&choices, 10) == 0) {
            pyrt_safepoint(thread);
        }
    }
    CHECK_OK(pyrt_qsbr_barrier(thread));
    CHECK_INT(next_item, items);
    CHECK_INT(next_call, calls);
    CHECK_INT(next_node, node_count);
    CHECK_INT(next_global, globals);
    pyrt_thread_release(thread);
    runtime_down();
    free(nodes);
}

static intptr_t next_either;

static void
either_in_turn(void *p)
{
    CHECK_INT((intptr_t)p, next_either++);
}

static void
either_call_in_turn(void *p, void *arg)
{
    CHECK_INT((intptr_t)arg, -(intptr_t)p);
    either_in_turn(p);
}

/* The forms with one and two arguments share chunks, from opposite ends: in every proportion neither writes over the other. */
TEST(items_of_both_kinds_fill_chunks_in_one_order)
{
    enum { MANY = 1500, PROPORTIONS = 12 };
    random_stream choices = random_for(7);
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    for (uint32_t one_in = 1; one_in <= PROPORTIONS; one_in++) {
        next_either = 0;
        for (intptr_t i = 0; i < MANY; i++) {
            bool call = random_below(&choices, one_in) == 0;
            CHECK_OK(call ? pyrt_retire_call(thread, either_call_in_turn, (void *)i, (void *)-i, 0)
                          : pyrt_retire(thread, (void *)i, 0, either_in_turn));
        }
        CHECK_UINT(pyrt_process_delayed(thread), MANY);
        CHECK_INT(next_either, MANY);
    }
    pyrt_thread_release(thread);
    runtime_down();
}

/* While a reader holds everything up for long, and then lets go. */
TEST(the_order_is_kept_over_a_long_wait)
{
    enum { MANY = 5000 };
    counted_node *nodes = calloc(MANY, sizeof(counted_node));
    next_item = next_node = 0;
    runtime_up();
    CHECK_OK(pyrt_retire_set_bound(pyrt_interp_main(), SIZE_MAX, SIZE_MAX));
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    reader_begin();
    for (int i = 0; i < MANY; i++) {
        nodes[i].number = i;
        CHECK_OK(pyrt_retire(thread, (void *)(intptr_t)i, 10, item_in_turn));
        pyrt_retire_node(thread, &nodes[i].node, 10, node_in_turn);
        pyrt_safepoint(thread);
    }
    CHECK_INT(next_item, 0);
    CHECK_INT(next_node, 0);
    reader_end();
    CHECK_UINT(pyrt_process_delayed(thread), 2 * MANY);
    CHECK_INT(next_item, MANY);
    CHECK_INT(next_node, MANY);
    pyrt_thread_release(thread);
    runtime_down();
    free(nodes);
}

/* ---- when ---------------------------------------------------------------------------------------------------------- */

TEST(nothing_is_disposed_of_while_a_reader_may_look)
{
    disposed = 0;
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    reader_begin();
    counted_node node;
    CHECK_OK(pyrt_retire(thread, NULL, 1, count));
    CHECK_OK(pyrt_retire_call(thread, count_call, NULL, NULL, 1));
    pyrt_retire_node(thread, &node.node, 1, count_node);
    CHECK_OK(pyrt_retire_global(NULL, 1, count));
    for (int i = 0; i < 10; i++) {
        CHECK_UINT(pyrt_process_delayed(thread), 0);
        pyrt_safepoint(thread);
    }
    CHECK_INT(disposed, 0);
    reader_passes();
    CHECK_UINT(pyrt_process_delayed(thread), 4);
    CHECK_INT(disposed, 4);
    reader_end();
    pyrt_thread_release(thread);
    runtime_down();
}

/* Retiring fills chunks; a full one gets a goal, and the next safepoint disposes of it without being asked. */
TEST(safepoints_dispose_of_full_chunks)
{
    enum { MANY = 1000 };
    static counted_node nodes[MANY];
    disposed = 0;
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    for (int i = 0; i < MANY; i++) {
        CHECK_OK(pyrt_retire(thread, NULL, 1, count));
        pyrt_retire_node(thread, &nodes[i].node, 1, count_node);
        pyrt_safepoint(thread);
    }
    CHECK(disposed > MANY);
    int left = 2 * MANY - disposed;
    CHECK_UINT(pyrt_process_delayed(thread), left);
    CHECK_INT(disposed, 2 * MANY);
    pyrt_thread_release(thread);
    runtime_down();
}

/* Few items that hold much do not wait for the chunk to be full. */
TEST(bytes_fill_a_chunk_too)
{
    disposed = 0;
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    for (int i = 0; i < 20; i++) {
        CHECK_OK(pyrt_retire(thread, NULL, 64 * 1024, count));
        pyrt_safepoint(thread);
    }
    CHECK(disposed >= 10);
    pyrt_thread_release(thread);
    runtime_down();
    CHECK_INT(disposed, 20);
}

/* Law 3: not in retire, attach, detach, quiescent state, advance, poll or synchronize. */
TEST(disposers_run_in_the_named_places_only)
{
    disposed = 0;
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    for (int i = 0; i < 1000; i++) {
        CHECK_OK(pyrt_retire(thread, NULL, 1, count));
        CHECK_OK(pyrt_retire_global(NULL, 1, count));
        pyrt_qsbr_quiescent_state(thread);
        CHECK(pyrt_qsbr_advance(thread->interp) != 0);
        pyrt_detach(thread);
        CHECK_OK(pyrt_retire(thread, NULL, 1, count));
        pyrt_attach(thread);
        if (i % 100 == 0) {
            CHECK_OK(pyrt_qsbr_synchronize(thread));
            CHECK_OK(pyrt_stop_the_world(NULL));
            pyrt_start_the_world(NULL);
            CHECK_PTR(pyrt_thread_ensure(thread->interp), thread);
            pyrt_thread_release(thread);
        }
    }
    CHECK_INT(disposed, 0);
    CHECK_OK(pyrt_qsbr_barrier(thread));
    CHECK_INT(disposed, 3000);
    pyrt_thread_release(thread);
    runtime_down();
}

TEST(process_delayed_attaches_for_the_time)
{
    disposed = 0;
    runtime_up();
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    pyrt_thread *other = pyrt_thread_new(pyrt_interp_new(NULL));
    CHECK_OK(pyrt_retire(thread, NULL, 1, count));
    CHECK_UINT(pyrt_process_delayed(thread), 1);
    CHECK_PTR(pyrt_thread_current(), NULL);
    pyrt_attach(other);
    CHECK_OK(pyrt_retire(thread, NULL, 1, count));
    CHECK_UINT(pyrt_process_delayed(thread), 1);
    CHECK_PTR(pyrt_thread_current(), other);
    CHECK_INT(disposed, 2);
    pyrt_detach(other);
    pyrt_thread_delete(thread);
    pyrt_thread_delete(other);
    runtime_down();
}

static void
process_for(void *thread)
{
    CHECK_UINT(pyrt_process_delayed(thread), 0);
}

TEST(process_delayed_of_another_os_threads_state_does_nothing)
{
    worker w;
    disposed = 0;
    runtime_up();
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    CHECK_OK(pyrt_retire(thread, NULL, 1, count));
    worker_start(&w);
    worker_do(&w, process_for, thread);
    EXPECT_REPORT("pyrt_process_delayed", named(thread));
    worker_end(&w);
    CHECK_INT(disposed, 0);
    CHECK_UINT(pyrt_process_delayed(thread), 1);
    pyrt_thread_delete(thread);
    runtime_down();
}

/* ---- by whom ------------------------------------------------------------------------------------------------------- */

TEST(an_os_thread_without_a_state_uses_the_main_interpreter)
{
    disposed = 0;
    runtime_up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    counted_node node;
    CHECK_OK(pyrt_retire(NULL, NULL, 1, count));
    CHECK_OK(pyrt_retire_call(NULL, count_call, NULL, NULL, 1));
    pyrt_retire_node(NULL, &node.node, 1, count_node);
    CHECK_UINT(stat_of(pyrt_interp_main(), "retired"), 3);
    CHECK_UINT(stat_of(other, "retired"), 0);
    CHECK_UINT(pyrt_thread_list(pyrt_interp_main(), NULL, 0), 0);
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    CHECK_INT(disposed, 3);
    runtime_down();
}

TEST(a_detached_thread_may_retire)
{
    disposed = 0;
    runtime_up();
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    counted_node node;
    for (int i = 0; i < 400; i++) {
        CHECK_OK(pyrt_retire(thread, NULL, 1, count));
        CHECK_OK(pyrt_retire_call(thread, count_call, NULL, NULL, 1));
    }
    pyrt_retire_node(thread, &node.node, 1, count_node);
    CHECK_PTR(pyrt_thread_current(), NULL);
    CHECK_INT(disposed, 0);
    CHECK_UINT(pyrt_process_delayed(thread), 801);
    CHECK_INT(disposed, 801);
    pyrt_thread_delete(thread);
    runtime_down();
}

/* While another state of the OS thread is attached. */
TEST(a_state_that_is_put_aside_may_retire)
{
    disposed = 0;
    runtime_up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    pyrt_thread *a = pyrt_thread_new(pyrt_interp_main());
    pyrt_thread *b = pyrt_thread_ensure(other);
    CHECK_OK(pyrt_retire(a, NULL, 1, count));
    CHECK_UINT(stat_of(pyrt_interp_main(), "retired"), 1);
    CHECK_UINT(stat_of(other, "retired"), 0);
    pyrt_thread_release(b);
    CHECK_UINT(pyrt_process_delayed(a), 1);
    pyrt_thread_delete(a);
    runtime_down();
}

static void
retire_for(void *thread)
{
    CHECK_STATUS(pyrt_retire(thread, NULL, 1, count), PYRT_EINVAL);
    CHECK_STATUS(pyrt_retire_call(thread, count_call, NULL, NULL, 1), PYRT_EINVAL);
}

TEST(another_os_threads_state_is_not_taken)
{
    worker w;
    pyrt_thread *others;
    disposed = 0;
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    worker_start(&w);
    worker_do(&w, retire_for, thread);
    worker_do(&w, attach_new, &others);
    worker_do(&w, retire_for, thread);
    retire_for(others);
    worker_do(&w, detach, others);
    retire_for(others);
    worker_end(&w);
    CHECK_UINT(stat_of(pyrt_interp_main(), "retired"), 0);
    CHECK_OK(pyrt_qsbr_barrier(thread));
    CHECK_INT(disposed, 0);
    pyrt_thread_release(thread);
    runtime_down();
}

TEST(without_a_function_nothing_is_taken)
{
    int thing;
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    CHECK_STATUS(pyrt_retire(thread, &thing, 1, NULL), PYRT_EINVAL);
    CHECK_STATUS(pyrt_retire(NULL, &thing, 1, NULL), PYRT_EINVAL);
    CHECK_STATUS(pyrt_retire_call(thread, NULL, &thing, NULL, 1), PYRT_EINVAL);
    CHECK_STATUS(pyrt_retire_global(&thing, 1, NULL), PYRT_EINVAL);
    counted_node node;
    pyrt_retire_node(thread, &node.node, 1, NULL);
    EXPECT_REPORT("pyrt_retire_node");
    CHECK_UINT(stat_of(thread->interp, "retired"), 0);
    pyrt_thread_release(thread);
    runtime_down();
}

TEST(without_runtime_nothing_is_taken)
{
    int thing;
    counted_node node;
    disposed = 0;
    CHECK_STATUS(pyrt_retire(NULL, &thing, 1, count), PYRT_ESTATE);
    CHECK_STATUS(pyrt_retire_call(NULL, count_call, &thing, NULL, 1), PYRT_ESTATE);
    CHECK_STATUS(pyrt_retire_global(&thing, 1, count), PYRT_ESTATE);
    pyrt_retire_node(NULL, &node.node, 1, count_node);
    EXPECT_REPORT("pyrt_retire_node", "not initialised");
    runtime_up();
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    runtime_down();
    CHECK_INT(disposed, 0);
}

static void
retire_node_with(void *thread)
{
    static counted_node node;
    pyrt_retire_node(thread, &node.node, 1, count_node);
}

/* What cannot fail takes another OS thread's state as well: as its interpreter. */
TEST(a_node_may_be_retired_with_another_os_threads_state)
{
    worker w;
    disposed = 0;
    runtime_up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    pyrt_thread *thread = pyrt_thread_ensure(other);
    worker_start(&w);
    worker_do(&w, retire_node_with, thread);
    worker_end(&w);
    CHECK_UINT(stat_of(other, "retired"), 1);
    CHECK_UINT(stat_of(pyrt_interp_main(), "retired"), 0);
    CHECK_UINT(pyrt_process_delayed(thread), 1);
    CHECK_INT(disposed, 1);
    pyrt_thread_release(thread);
    runtime_down();
}

/* ---- interpreters -------------------------------------------------------------------------------------------------- */

TEST(readers_of_other_interpreters_do_not_count)
{
    disposed = 0;
    runtime_up();
    reader_begin();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_new(NULL));
    CHECK_OK(pyrt_retire(thread, NULL, 1, count));
    CHECK_UINT(pyrt_process_delayed(thread), 1);
    CHECK_INT(disposed, 1);
    pyrt_thread_release(thread);
    reader_end();
    runtime_down();
}

TEST(what_is_retired_globally_waits_for_the_readers_of_all)
{
    disposed = 0;
    runtime_up();
    reader_begin();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_new(NULL));
    CHECK_OK(pyrt_retire_global(NULL, 1, count));
    CHECK_UINT(pyrt_process_delayed(thread), 0);
    CHECK_STATUS(pyrt_qsbr_barrier_timed(thread, 0), PYRT_ETIMEDOUT);
    CHECK_INT(disposed, 0);
    reader_passes();
    CHECK_UINT(pyrt_process_delayed(thread), 1);
    CHECK_INT(disposed, 1);
    pyrt_thread_release(thread);
    reader_end();
    runtime_down();
}
