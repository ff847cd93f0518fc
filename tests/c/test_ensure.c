/* test_ensure.c -- ensure and release: a stack for each OS thread that puts back what it found (thread.h). */
#include "support.h"

#include "faults.h"
#include "platform/meta_alloc.h"
#include "workers.h"

static size_t
states_in(pyrt_interp *interp)
{
    return pyrt_thread_list(interp, NULL, 0);
}

/* ---- what it finds, it restores ------------------------------------------------------------------------------------ */

TEST(finds_nothing_makes_a_state_and_deletes_it)
{
    runtime_up();
    pyrt_interp *main = pyrt_interp_main();
    pyrt_thread *thread = pyrt_thread_ensure(main);
    CHECK(thread != NULL);
    CHECK_PTR(pyrt_thread_current(), thread);
    CHECK_UINT(states_in(main), 1);
    pyrt_thread_release(thread);
    CHECK_PTR(pyrt_thread_current(), NULL);
    CHECK_UINT(states_in(main), 0);
    runtime_down();
}

TEST(finds_a_detached_state_attaches_it_and_detaches_it)
{
    runtime_up();
    pyrt_interp *main = pyrt_interp_main();
    pyrt_thread *mine = pyrt_thread_new(main);
    CHECK_PTR(pyrt_thread_ensure(main), mine);
    CHECK_PTR(pyrt_thread_current(), mine);
    pyrt_thread_release(mine);
    CHECK_PTR(pyrt_thread_current(), NULL);
    CHECK_UINT(states_in(main), 1);
    pyrt_thread_delete(mine);
    runtime_down();
}

TEST(finds_the_state_attached_and_leaves_it_so)
{
    runtime_up();
    pyrt_interp *main = pyrt_interp_main();
    pyrt_thread *mine = pyrt_thread_new(main);
    pyrt_attach(mine);
    CHECK_PTR(pyrt_thread_ensure(main), mine);
    pyrt_thread_release(mine);
    CHECK_PTR(pyrt_thread_current(), mine);
    pyrt_detach(mine);
    pyrt_thread_delete(mine);
    runtime_down();
}

TEST(finds_another_interpreters_state_and_attaches_it_again)
{
    runtime_up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    pyrt_thread *a = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_thread *b = pyrt_thread_ensure(other);
    CHECK(a != b);
    CHECK_PTR(pyrt_thread_current(), b);
    CHECK_UINT(a->slot.word, PYRT_STATE_DETACHED);
    pyrt_thread_release(b);
    CHECK_PTR(pyrt_thread_current(), a);
    CHECK_UINT(states_in(other), 0);
    pyrt_thread_release(a);
    CHECK_UINT(states_in(pyrt_interp_main()), 0);
    runtime_down();
}

TEST(nesting_is_counted)
{
    enum { DEPTH = 100 };
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    size_t live = pyrt_meta_live_bytes();
    for (int i = 0; i < DEPTH; i++) {
        CHECK_PTR(pyrt_thread_ensure(pyrt_interp_main()), thread);
    }
    /* Ensures in a row that find the same need no memory each. */
    CHECK(pyrt_meta_live_bytes() - live <= 64);
    for (int i = 0; i < DEPTH; i++) {
        pyrt_thread_release(thread);
        CHECK_PTR(pyrt_thread_current(), thread);
    }
    pyrt_thread_release(thread);
    CHECK_PTR(pyrt_thread_current(), NULL);
    runtime_down();
}

/* main, other, main, other, ...: the same two states all the way, made by the outermost and deleted by it. */
TEST(two_interpreters_in_turn)
{
    enum { DEPTH = 10 };
    runtime_up();
    pyrt_interp *interps[2] = {pyrt_interp_main(), pyrt_interp_new(NULL)};
    pyrt_thread *stack[DEPTH];
    for (int i = 0; i < DEPTH; i++) {
        stack[i] = pyrt_thread_ensure(interps[i % 2]);
        CHECK_PTR(pyrt_thread_current(), stack[i]);
        CHECK_PTR(stack[i], i < 2 ? stack[i] : stack[i % 2]);
    }
    for (int i = DEPTH - 1; i >= 0; i--) {
        CHECK_PTR(pyrt_thread_current(), stack[i]);
        pyrt_thread_release(stack[i]);
    }
    CHECK_PTR(pyrt_thread_current(), NULL);
    CHECK_UINT(states_in(interps[0]) + states_in(interps[1]), 0);
    runtime_down();
}

/* Any walk up and down the stack ends where it began; a mirror of the stack says what must be attached at each step. */
TEST(random_walks_restore_everything)
{
    enum { INTERPS = 3, DEPTH = 20, STEPS = 2000 };
    random_stream choices = random_for(1);
    runtime_up();
    pyrt_interp *interps[INTERPS] = {pyrt_interp_main(), pyrt_interp_new(NULL), pyrt_interp_new(NULL)};
    pyrt_thread *returned[DEPTH];
    pyrt_thread *before[DEPTH];
    int depth = 0;
    for (int i = 0; i < STEPS; i++) {
        bool up = depth == 0 || (depth < DEPTH && random_below(&choices, 2) == 0);
        if (up) {
            before[depth] = pyrt_thread_current();
            returned[depth] = pyrt_thread_ensure(interps[random_below(&choices, INTERPS)]);
            CHECK_PTR(pyrt_thread_current(), returned[depth]);
            depth++;
            continue;
        }
        depth--;
        pyrt_thread_release(returned[depth]);
        CHECK_PTR(pyrt_thread_current(), before[depth]);
    }
    while (depth-- > 0) {
        pyrt_thread_release(returned[depth]);
        CHECK_PTR(pyrt_thread_current(), before[depth]);
    }
    for (int i = 0; i < INTERPS; i++) {
        CHECK_UINT(states_in(interps[i]), 0);
    }
    runtime_down();
}

TEST(a_state_detached_inside_is_restored_all_the_same)
{
    runtime_up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    pyrt_thread *a = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_thread *b = pyrt_thread_ensure(other);
    pyrt_detach(b);
    pyrt_thread_release(b);
    CHECK_PTR(pyrt_thread_current(), a);
    pyrt_detach(a);
    pyrt_thread_release(a);
    CHECK_PTR(pyrt_thread_current(), NULL);
    CHECK_UINT(states_in(pyrt_interp_main()) + states_in(other), 0);
    runtime_down();
}

/* ---- unbalanced releases ----------------------------------------------------------------------------------------- */

TEST(release_without_ensure_is_reported)
{
    runtime_up();
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    pyrt_attach(thread);
    pyrt_thread_release(thread);
    EXPECT_REPORT("pyrt_thread_release", named(thread));
    CHECK_PTR(pyrt_thread_current(), thread);
    pyrt_thread_release(NULL);
    EXPECT_REPORT("pyrt_thread_release");
    CHECK_PTR(pyrt_thread_current(), thread);
    pyrt_detach(thread);
    pyrt_thread_delete(thread);
    runtime_down();
}

TEST(release_in_the_wrong_order_is_reported)
{
    runtime_up();
    pyrt_thread *a = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_thread *b = pyrt_thread_ensure(pyrt_interp_new(NULL));
    pyrt_thread_release(a);
    EXPECT_REPORT("pyrt_thread_release", named(a));
    CHECK_PTR(pyrt_thread_current(), b);
    pyrt_thread_release(NULL);
    EXPECT_REPORT("pyrt_thread_release");
    CHECK_PTR(pyrt_thread_current(), b);
    pyrt_thread_release(b);
    pyrt_thread_release(a);
    runtime_down();
}

static void
release(void *thread)
{
    pyrt_thread_release(thread);
}

TEST(release_on_another_os_thread_is_reported)
{
    worker w;
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    worker_start(&w);
    worker_do(&w, release, thread);
    EXPECT_REPORT("pyrt_thread_release", named(thread));
    worker_end(&w);
    CHECK_PTR(pyrt_thread_current(), thread);
    pyrt_thread_release(thread);
    runtime_down();
}

/* ---- read-side sections ------------------------------------------------------------------------------------------ */

TEST(ensure_of_another_interpreter_is_refused_inside_a_read_side_section)
{
    runtime_up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_read_begin_counted(thread);
    CHECK_PTR(pyrt_thread_ensure(other), NULL);
    EXPECT_REPORT("pyrt_thread_ensure", named(thread), "read-side section");
    CHECK_PTR(pyrt_thread_current(), thread);
    CHECK_UINT(states_in(other), 0);
    /* That of the same one ends nothing. */
    CHECK_PTR(pyrt_thread_ensure(pyrt_interp_main()), thread);
    pyrt_thread_release(thread);
    pyrt_read_end_counted(thread);
    pyrt_thread_release(thread);
    runtime_down();
}

TEST(a_release_that_would_detach_is_refused_inside_a_read_side_section)
{
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_read_begin_counted(thread);
    pyrt_thread_release(thread);
    EXPECT_REPORT("pyrt_thread_release", named(thread), "read-side section");
    CHECK_PTR(pyrt_thread_current(), thread);
    pyrt_read_end_counted(thread);
    pyrt_thread_release(thread);
    CHECK_PTR(pyrt_thread_current(), NULL);
    runtime_down();
}

/* ---- inside a disposer ------------------------------------------------------------------------------------------- */

static pyrt_thread *ensured;

static void
release_own_thread(void *p)
{
    *(int *)p += 1;
    pyrt_thread_release(ensured);
    EXPECT_REPORT("pyrt_thread_release", named(ensured), "disposer");
}

TEST(a_release_that_would_delete_is_refused_inside_a_disposer_of_the_thread)
{
    int disposed = 0;
    runtime_up();
    ensured = pyrt_thread_ensure(pyrt_interp_main());
    CHECK_OK(pyrt_retire(ensured, &disposed, 1, release_own_thread));
    CHECK_UINT(pyrt_process_delayed(ensured), 1);
    CHECK_INT(disposed, 1);
    CHECK_PTR(pyrt_thread_current(), ensured);
    pyrt_thread_release(ensured);
    CHECK_UINT(states_in(pyrt_interp_main()), 0);
    runtime_down();
}

/* ---- short of memory --------------------------------------------------------------------------------------------- */

static pyrt_thread *found;

static void
up_with_two_interpreters(void)
{
    runtime_up();
    found = pyrt_thread_ensure(pyrt_interp_main());
    CHECK(found != NULL);
    /* A state of the other that came and went provides what an interpreter keeps for the next. */
    pyrt_thread_delete(pyrt_thread_new(pyrt_interp_new(NULL)));
}

static bool
try_ensure_of_the_other(void)
{
    pyrt_interp *other = pyrt_interp_pin(1);
    pyrt_thread *thread = pyrt_thread_ensure(other);
    CHECK_PTR(pyrt_thread_current(), thread == NULL ? found : thread);
    CHECK_UINT(states_in(other), thread == NULL ? 0 : 1);
    if (thread != NULL) {
        pyrt_thread_release(thread);
        CHECK_PTR(pyrt_thread_current(), found);
    }
    pyrt_interp_unpin(other);
    return thread != NULL;
}

static void
down_with_two_interpreters(bool succeeded)
{
    (void)succeeded;
    pyrt_thread_release(found);
    runtime_down();
}

TEST(ensure_short_of_memory_changes_nothing)
{
    const fault_plan plan = {up_with_two_interpreters, try_ensure_of_the_other, down_with_two_interpreters};
    CHECK(fault_everywhere(&plan, FAULT_ONCE) >= 1);
    CHECK(fault_everywhere(&plan, FAULT_FROM_ON) >= 1);
}

static void
up_with_an_attached_state(void)
{
    runtime_up();
    found = pyrt_thread_new(pyrt_interp_main());
    pyrt_attach(found);
}

static bool
try_ensure_of_the_attached(void)
{
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    CHECK_PTR(pyrt_thread_current(), found);
    if (thread != NULL) {
        CHECK_PTR(thread, found);
        pyrt_thread_release(thread);
    }
    return thread != NULL;
}

static void
down_with_an_attached_state(bool succeeded)
{
    (void)succeeded;
    pyrt_detach(found);
    pyrt_thread_delete(found);
    runtime_down();
}

TEST(ensure_of_the_attached_state_short_of_memory_changes_nothing)
{
    const fault_plan plan = {up_with_an_attached_state, try_ensure_of_the_attached, down_with_an_attached_state};
    CHECK(fault_everywhere(&plan, FAULT_ONCE) >= 1);
}
