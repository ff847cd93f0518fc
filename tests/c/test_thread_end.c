/* test_thread_end.c -- OS threads that end without giving anything back, and the order in which a state ends.
 *
 * Whatever an OS thread leaves open -- an attached state, ensures, a read-side section, a pause, a disposer in the middle --
 * is closed by its exit, and what it had retired is disposed of exactly once.
 */
#include "support.h"

#include "workers.h"

#include <string.h>

static int disposed;

static void
count(void *p)
{
    (void)p;
    pyrt_fetch_add_seq_cst(&disposed, 1);
}

/* Runs a step on an OS thread that then ends as a thread does that returns. */
static void
on_a_thread_that_ends(void (*step)(void *))
{
    worker w;
    worker_start(&w);
    worker_do(&w, step, NULL);
    worker_end(&w);
}

static void
check_nobody_is_left(void)
{
    int64_t ids[16];
    size_t count = pyrt_interp_list(ids, 16);
    for (size_t i = 0; i < count; i++) {
        pyrt_interp *interp = pyrt_interp_pin(ids[i]);
        CHECK_UINT(pyrt_thread_list(interp, NULL, 0), 0);
        pyrt_interp_unpin(interp);
    }
}

/* ---- what may be left open ----------------------------------------------------------------------------------------- */

static void
leave_detached(void *unused)
{
    (void)unused;
    CHECK(pyrt_thread_new(pyrt_interp_main()) != NULL);
}

static void
leave_attached(void *unused)
{
    (void)unused;
    pyrt_attach(pyrt_thread_new(pyrt_interp_main()));
}

static void
leave_ensured(void *unused)
{
    (void)unused;
    for (int i = 0; i < 3; i++) {
        CHECK(pyrt_thread_ensure(pyrt_interp_main()) != NULL);
    }
}

static void
leave_ensures_of_two(void *unused)
{
    (void)unused;
    pyrt_interp *other = pyrt_interp_pin(1);
    for (int i = 0; i < 3; i++) {
        CHECK(pyrt_thread_ensure(pyrt_interp_main()) != NULL);
        CHECK(pyrt_thread_ensure(other) != NULL);
    }
    pyrt_interp_unpin(other);
}

static void
leave_reading(void *unused)
{
    (void)unused;
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_read_begin_counted(thread);
    pyrt_read_begin_counted(thread);
}

static void
leave_items(void *unused)
{
    (void)unused;
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    for (int i = 0; i < 1000; i++) {
        CHECK_OK(pyrt_retire(thread, NULL, 8, count));
    }
}

TEST(an_os_thread_may_end_without_giving_its_states_back)
{
    void (*const steps[])(void *) = {leave_detached, leave_attached, leave_ensured, leave_ensures_of_two, leave_reading};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        runtime_up();
        CHECK(pyrt_interp_new(NULL) != NULL);
        on_a_thread_that_ends(steps[i]);
        check_nobody_is_left();
        /* Nobody holds up a goal either. */
        CHECK_OK(pyrt_qsbr_synchronize_timed(NULL, 0));
        runtime_down();
    }
}

TEST(what_it_had_retired_is_disposed_of)
{
    disposed = 0;
    runtime_up();
    on_a_thread_that_ends(leave_items);
    check_nobody_is_left();
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    CHECK_INT(disposed, 1000);
    CHECK_UINT(stat_of(pyrt_interp_main(), "pending_items"), 0);
    CHECK_UINT(stat_of(pyrt_interp_main(), "pending_bytes"), 0);
    runtime_down();
    CHECK_INT(disposed, 1000);
}

/* An attached reader keeps the dying thread from disposing: its queue becomes an orphan, and the next one who processes
 * takes it over. */
TEST(what_cannot_be_disposed_of_yet_goes_to_the_interpreter)
{
    disposed = 0;
    runtime_up();
    pyrt_thread *reader = pyrt_thread_ensure(pyrt_interp_main());
    on_a_thread_that_ends(leave_items);
    CHECK_INT(disposed, 0);
    CHECK_UINT(stat_of(pyrt_interp_main(), "orphaned"), 1);
    CHECK_UINT(stat_of(pyrt_interp_main(), "retired"), 1000);
    CHECK_UINT(stat_of(pyrt_interp_main(), "pending_items"), 1000);
    CHECK_UINT(stat_of(pyrt_interp_main(), "pending_bytes"), 8000);
    CHECK_UINT(pyrt_process_delayed(reader), 1000);
    CHECK_INT(disposed, 1000);
    CHECK_UINT(stat_of(pyrt_interp_main(), "pending_bytes"), 0);
    pyrt_thread_release(reader);
    runtime_down();
}

/* ---- a pause that is left open ------------------------------------------------------------------------------------- */

static void
leave_the_world_stopped(void *unused)
{
    (void)unused;
    CHECK_OK(pyrt_stop_the_world(NULL));
}

static void
leave_one_interpreter_stopped(void *unused)
{
    (void)unused;
    CHECK(pyrt_thread_ensure(pyrt_interp_main()) != NULL);
    CHECK_OK(pyrt_stop_the_world(pyrt_interp_main()));
}

TEST(a_pause_ends_with_the_os_thread_that_began_it)
{
    runtime_up();
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    on_a_thread_that_ends(leave_the_world_stopped);
    CHECK(!pyrt_world_is_stopped(NULL));
    pyrt_attach(thread);
    pyrt_detach(thread);
    on_a_thread_that_ends(leave_one_interpreter_stopped);
    CHECK(!pyrt_world_is_stopped(pyrt_interp_main()));
    pyrt_attach(thread);
    pyrt_detach(thread);
    CHECK_OK(pyrt_stop_the_world(NULL));
    pyrt_start_the_world(NULL);
    pyrt_thread_delete(thread);
    runtime_down();
}

/* ---- ending inside a disposer ------------------------------------------------------------------------------------- */

static int exits;

static void
end_os_thread(void *p)
{
    count(p);
    pyrt_fetch_add_seq_cst(&exits, 1);
    pthread_exit(NULL);
}

static void
end_in_the_middle_of_a_disposal(void *unused)
{
    (void)unused;
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    for (int i = 0; i < 50; i++) {
        CHECK_OK(pyrt_retire(thread, NULL, 8, i == 20 ? end_os_thread : count));
    }
    (void)pyrt_process_delayed(thread);
    FAIL("the OS thread should have ended");
}

TEST(an_os_thread_may_end_inside_a_disposer)
{
    worker w;
    disposed = exits = 0;
    runtime_up();
    worker_start(&w);
    worker_begin(&w, end_in_the_middle_of_a_disposal, NULL);
    worker_join_exited(&w);
    CHECK_INT(exits, 1);
    check_nobody_is_left();
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    CHECK_INT(disposed, 50);
    CHECK_UINT(stat_of(pyrt_interp_main(), "disposed"), 50);
    CHECK_UINT(stat_of(pyrt_interp_main(), "pending_items"), 0);
    runtime_down();
}

static struct counted_node {
    pyrt_retire_node node;
} nodes[50];

static void
count_node(pyrt_retire_node *node)
{
    count(node);
}

static void
end_os_thread_in_node(pyrt_retire_node *node)
{
    end_os_thread(node);
}

static void
end_in_the_middle_of_nodes(void *unused)
{
    (void)unused;
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    for (int i = 0; i < 50; i++) {
        pyrt_retire_node(thread, &nodes[i].node, 8, i == 20 ? end_os_thread_in_node : count_node);
    }
    (void)pyrt_process_delayed(thread);
    FAIL("the OS thread should have ended");
}

TEST(an_os_thread_may_end_inside_the_disposer_of_a_node)
{
    worker w;
    disposed = exits = 0;
    runtime_up();
    worker_start(&w);
    worker_begin(&w, end_in_the_middle_of_nodes, NULL);
    worker_join_exited(&w);
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    CHECK_INT(disposed, 50);
    CHECK_UINT(stat_of(pyrt_interp_main(), "pending_items"), 0);
    runtime_down();
}

/* In a queue that is everybody's: the orphans, and the global one. The next runner goes on where that one stopped. */
static void
end_in_the_middle_of_shared_queues(void *unused)
{
    (void)unused;
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    (void)pyrt_process_delayed(thread);
    FAIL("the OS thread should have ended");
}

TEST(an_os_thread_may_end_inside_a_disposer_of_a_shared_queue)
{
    disposed = exits = 0;
    runtime_up();
    for (int i = 0; i < 50; i++) {
        CHECK_OK(pyrt_retire(NULL, NULL, 8, i == 20 ? end_os_thread : count));
        CHECK_OK(pyrt_retire_global(NULL, 8, i == 20 ? end_os_thread : count));
    }
    for (int i = 0; i < 2; i++) {
        worker w;
        worker_start(&w);
        worker_begin(&w, end_in_the_middle_of_shared_queues, NULL);
        worker_join_exited(&w);
        CHECK_INT(exits, i + 1);
        check_nobody_is_left();
    }
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    CHECK_INT(disposed, 100);
    CHECK_UINT(stat_of(pyrt_interp_main(), "pending_items"), 0);
    runtime_down();
}

static void
end_in_a_barrier(void *unused)
{
    (void)unused;
    CHECK_OK(pyrt_retire(NULL, NULL, 8, end_os_thread));
    (void)pyrt_qsbr_barrier(NULL);
    FAIL("the OS thread should have ended");
}

TEST(an_os_thread_may_end_inside_a_barrier)
{
    worker w;
    disposed = exits = 0;
    runtime_up();
    worker_start(&w);
    worker_begin(&w, end_in_a_barrier, NULL);
    worker_join_exited(&w);
    check_nobody_is_left();
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    CHECK_INT(disposed, 1);
    runtime_down();
}

/* A host that shuts down ends every OS thread that asks for its lock, also one that is ending already. So the end may be cut
 * short in its user code, and goes on behind that. Twice here: thread sanitizers give up at the third time. */
static void
end_in_exit_hook(void *slot)
{
    end_os_thread(slot);
}

static void
leave_ends_behind(void *unused)
{
    (void)unused;
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    for (int i = 0; i < 40; i++) {
        CHECK_OK(pyrt_retire(thread, NULL, 8, i == 20 ? end_os_thread : count));
    }
}

TEST(an_os_thread_may_end_again_while_it_ends)
{
    disposed = exits = 0;
    runtime_up();
    CHECK_INT(pyrt_thread_slot_new(NULL, end_in_exit_hook, 0), 0);
    CHECK_INT(pyrt_thread_slot_new(NULL, count, 1), 1);
    on_a_thread_that_ends(leave_ends_behind);
    CHECK_INT(exits, 2);
    check_nobody_is_left();
    CHECK_OK(pyrt_qsbr_synchronize_timed(NULL, 0));
    runtime_down();
    CHECK_INT(disposed, 40 + 2);
}

/* ---- thread-exit destructors of others ----------------------------------------------------------------------------- */

static pthread_key_t keys[3];
static int destructors;

/* One that uses the library after ours has run, and leaves everything open again. */
static void
use_the_library_again(void *unused)
{
    (void)unused;
    pyrt_fetch_add_seq_cst(&destructors, 1);
    leave_items(NULL);
}

static void
set_keys_and_leave_items(void *unused)
{
    (void)unused;
    leave_items(NULL);
    for (int i = 0; i < 3; i++) {
        pthread_setspecific(keys[i], &keys[i]);
    }
}

TEST(destructors_of_others_may_use_the_library_again)
{
    disposed = destructors = 0;
    for (int i = 0; i < 3; i++) {
        CHECK_INT(pthread_key_create(&keys[i], use_the_library_again), 0);
    }
    runtime_up();
    on_a_thread_that_ends(set_keys_and_leave_items);
    CHECK_INT(destructors, 3);
    check_nobody_is_left();
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    CHECK_INT(disposed, 4000);
    runtime_down();
    for (int i = 0; i < 3; i++) {
        pthread_key_delete(keys[i]);
    }
}

/* ---- the order of the end ------------------------------------------------------------------------------------------ */

static struct {
    char story[64];
    int32_t index;
    pyrt_interp *interp;
} end;

static void
tell(const char *word)
{
    CHECK(strlen(end.story) + strlen(word) < sizeof(end.story));
    strcat(end.story, word);
}

/* The state is whole while user code of its end runs: found, listed, attached, its index not given away. */
static void
check_still_there(void)
{
    pyrt_thread *self = pyrt_thread_find(end.interp);
    CHECK(self != NULL);
    CHECK_PTR(pyrt_thread_current(), self);
    CHECK_INT(self->index, end.index);
    CHECK_UINT(pyrt_thread_list(end.interp, NULL, 0), 1);
}

static void
dispose_at_the_end(void *word)
{
    check_still_there();
    tell(word);
}

static void
exit_first(void *bytes)
{
    (void)bytes;
    check_still_there();
    tell("first ");
    CHECK_OK(pyrt_retire(pyrt_thread_current(), "item-of-first ", 1, dispose_at_the_end));
}

static void
exit_second(void *bytes)
{
    (void)bytes;
    check_still_there();
    tell("second ");
}

static void
retire_and_leave(void *unused)
{
    (void)unused;
    pyrt_thread *thread = pyrt_thread_ensure(end.interp);
    end.index = thread->index;
    CHECK_OK(pyrt_retire(thread, "item ", 1, dispose_at_the_end));
}

static void
retire_and_delete(void *unused)
{
    (void)unused;
    pyrt_thread *thread = pyrt_thread_new(end.interp);
    end.index = thread->index;
    CHECK_OK(pyrt_retire(thread, "item ", 1, dispose_at_the_end));
    pyrt_thread_delete(thread);
}

static void
retire_and_release(void *unused)
{
    retire_and_leave(unused);
    pyrt_thread_release(pyrt_thread_current());
}

TEST(slots_by_order_then_the_retire_queue_then_the_index)
{
    void (*const ways[])(void *) = {retire_and_leave, retire_and_delete, retire_and_release};
    for (size_t i = 0; i < 3; i++) {
        memset(&end, 0, sizeof(end));
        runtime_up();
        end.interp = pyrt_interp_main();
        CHECK(pyrt_thread_slot_new(NULL, exit_second, 2) >= 0);
        CHECK(pyrt_thread_slot_new(NULL, exit_first, 1) >= 0);
        on_a_thread_that_ends(ways[i]);
        CHECK_STR(end.story, "first second item item-of-first ");
        runtime_down();
    }
}

/* ---- the newest state ends first ----------------------------------------------------------------------------------- */

static void
tell_interp(void *bytes)
{
    (void)bytes;
    tell(pyrt_interp_name(pyrt_thread_current()->interp));
}

static void
make_three_states(void *unused)
{
    (void)unused;
    for (int64_t id = 0; id < 3; id++) {
        pyrt_interp *interp = pyrt_interp_pin(id);
        CHECK(pyrt_thread_new(interp) != NULL);
        pyrt_interp_unpin(interp);
    }
}

TEST(the_states_of_an_os_thread_end_newest_first)
{
    memset(&end, 0, sizeof(end));
    runtime_up();
    CHECK(pyrt_interp_new(&(pyrt_interp_config){.struct_size = sizeof(pyrt_interp_config), .name = " one "}) != NULL);
    CHECK(pyrt_interp_new(&(pyrt_interp_config){.struct_size = sizeof(pyrt_interp_config), .name = "two"}) != NULL);
    CHECK(pyrt_thread_slot_new(NULL, tell_interp, 0) >= 0);
    on_a_thread_that_ends(make_three_states);
    CHECK_STR(end.story, "two one main");
    runtime_down();
}

/* ---- many ---------------------------------------------------------------------------------------------------------- */

static void
end_somehow(void *unused, int number)
{
    void (*const steps[])(void *) = {leave_detached, leave_attached, leave_ensured, leave_reading, leave_items};
    random_stream choices = random_for((uint64_t)number);
    for (int i = 0; i < 8; i++) {
        on_a_thread_that_ends(steps[random_below(&choices, 5)]);
    }
    (void)unused;
    leave_items(NULL);
}

TEST(many_os_threads_end_somehow)
{
    disposed = 0;
    runtime_up();
    run_crowd(6, end_somehow, NULL);
    check_nobody_is_left();
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    CHECK(disposed >= 6000);
    CHECK_UINT(stat_of(pyrt_interp_main(), "retired"), disposed);
    CHECK_UINT(stat_of(pyrt_interp_main(), "disposed"), disposed);
    runtime_down();
}
