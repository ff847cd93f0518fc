/* test_attach.c -- the transitions of a state between detached, attached and suspended, and each wrong one (thread.h,
 * "attach, detach, safepoint").
 */
#include "support.h"

#include "steps.h"
#include "workers.h"

/* ---- the words --------------------------------------------------------------------------------------------------- */

TEST(attach_and_detach_move_all_words_together)
{
    runtime_up();
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    for (int i = 0; i < 3; i++) {
        pyrt_attach(thread);
        CHECK_PTR(pyrt_thread_current(), thread);
        CHECK_UINT(pyrt_tls()->self_id, thread->self_id);
        CHECK_UINT(thread->slot.word, *thread->slot.sequence);
        CHECK_UINT(thread->slot.word & 1, 1);
        CHECK_INT(state_of(thread), PYRT_STATE_ATTACHED);
        pyrt_detach(thread);
        CHECK_PTR(pyrt_thread_current(), NULL);
        CHECK_UINT(pyrt_tls()->self_id, 0);
        CHECK_UINT(thread->slot.word, PYRT_STATE_DETACHED);
        CHECK_INT(state_of(thread), PYRT_STATE_DETACHED);
    }
    pyrt_thread_delete(thread);
    runtime_down();
}

TEST(safepoint_and_quiescent_state_copy_the_sequence)
{
    runtime_up();
    pyrt_interp *main = pyrt_interp_main();
    pyrt_thread *thread = pyrt_thread_ensure(main);
    uint64_t attached_at = thread->slot.word;
    uint64_t goal = pyrt_qsbr_advance(main);
    CHECK_UINT(thread->slot.word, attached_at);
    pyrt_qsbr_quiescent_state(thread);
    CHECK_UINT(thread->slot.word, goal);
    goal = pyrt_qsbr_advance(main);
    pyrt_safepoint(thread);
    CHECK_UINT(thread->slot.word, goal);
    pyrt_safepoint(thread);
    CHECK_UINT(thread->slot.word, goal);
    pyrt_thread_release(thread);
    runtime_down();
}

TEST(current_is_each_os_threads_own)
{
    worker w;
    pyrt_thread *others;
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    worker_start(&w);
    worker_do(&w, make_state, &others);
    worker_do(&w, attach, others);
    CHECK_PTR(pyrt_thread_current(), thread);
    worker_do(&w, detach, others);
    CHECK_PTR(pyrt_thread_current(), thread);
    worker_do(&w, delete_state, others);
    worker_end(&w);
    pyrt_thread_release(thread);
    runtime_down();
}

/* ---- wrong transitions: reported, and nothing has changed ---------------------------------------------------------- */

TEST(attach_twice_is_reported)
{
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    uint64_t word = thread->slot.word;
    (void)pyrt_qsbr_advance(pyrt_interp_main());
    pyrt_attach(thread);
    EXPECT_REPORT("pyrt_attach", named(thread), "attached already");
    CHECK_PTR(pyrt_thread_current(), thread);
    CHECK_UINT(thread->slot.word, word);
    pyrt_thread_release(thread);
    runtime_down();
}

TEST(attach_while_another_state_is_attached_is_reported)
{
    runtime_up();
    pyrt_thread *a = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_thread *b = pyrt_thread_new(pyrt_interp_new(NULL));
    pyrt_attach(b);
    EXPECT_REPORT("pyrt_attach", named(a), "detach");
    CHECK_PTR(pyrt_thread_current(), a);
    CHECK_UINT(b->slot.word, PYRT_STATE_DETACHED);
    pyrt_thread_release(a);
    pyrt_thread_delete(b);
    runtime_down();
}

TEST(attach_of_another_os_threads_state_is_reported)
{
    worker w;
    pyrt_thread *others;
    runtime_up();
    worker_start(&w);
    worker_do(&w, make_state, &others);
    /* Both without a state of one's own, where the OS thread has no id yet, and with one. */
    pyrt_attach(others);
    EXPECT_REPORT("pyrt_attach", named(others), "another OS thread");
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    pyrt_attach(others);
    EXPECT_REPORT("pyrt_attach", named(others), "another OS thread");
    CHECK_PTR(pyrt_thread_current(), NULL);
    CHECK_UINT(others->slot.word, PYRT_STATE_DETACHED);
    pyrt_thread_delete(thread);
    worker_do(&w, delete_state, others);
    worker_end(&w);
    runtime_down();
}

TEST(attach_of_a_deleted_state_is_reported)
{
    runtime_up();
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    pyrt_thread_delete(thread);
    pyrt_attach(thread);
    EXPECT_REPORT("pyrt_attach", "ended");
    CHECK_PTR(pyrt_thread_current(), NULL);
    runtime_down();
}

TEST(detach_of_what_is_not_attached_is_reported)
{
    runtime_up();
    pyrt_thread *a = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_thread *b = pyrt_thread_new(pyrt_interp_new(NULL));
    pyrt_detach(b);
    EXPECT_REPORT("pyrt_detach", named(b), "not attached");
    CHECK_PTR(pyrt_thread_current(), a);
    CHECK(a->slot.word & 1);
    pyrt_thread_release(a);
    pyrt_detach(b);
    EXPECT_REPORT("pyrt_detach", named(b), "not attached");
    CHECK_UINT(b->slot.word, PYRT_STATE_DETACHED);
    pyrt_thread_delete(b);
    runtime_down();
}

TEST(detach_from_abroad_is_reported)
{
    worker w;
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    worker_start(&w);
    worker_do(&w, detach, thread);
    EXPECT_REPORT("pyrt_detach", named(thread), "not attached on this OS thread");
    worker_end(&w);
    CHECK_PTR(pyrt_thread_current(), thread);
    CHECK(thread->slot.word & 1);
    pyrt_thread_release(thread);
    runtime_down();
}

/* The fast path of a safepoint sees only the state itself: that the wrong thread is at it shows when there is something
 * to do. */
TEST(safepoint_of_what_is_not_attached_is_reported)
{
    worker w;
    runtime_up();
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    pyrt_safepoint(thread);
    EXPECT_REPORT("pyrt_safepoint", named(thread), "not attached");
    pyrt_qsbr_quiescent_state(thread);
    EXPECT_REPORT("pyrt_qsbr_quiescent_state", named(thread), "not attached");
    pyrt_attach(thread);
    uint64_t word = thread->slot.word;
    (void)pyrt_qsbr_advance(pyrt_interp_main());
    worker_start(&w);
    worker_do(&w, pass_safepoint, thread);
    EXPECT_REPORT("pyrt_safepoint", named(thread), "not attached on this OS thread");
    worker_do(&w, pass_quiescent_state, thread);
    EXPECT_REPORT("pyrt_qsbr_quiescent_state", named(thread), "not attached on this OS thread");
    worker_end(&w);
    CHECK_UINT(thread->slot.word, word);
    pyrt_detach(thread);
    pyrt_thread_delete(thread);
    runtime_down();
}

/* ---- attaching while the world is stopped ------------------------------------------------------------------------- */

TEST(attach_of_a_suspended_state_sleeps_until_the_world_goes_on)
{
    worker w;
    pyrt_thread *thread;
    runtime_up();
    worker_start(&w);
    worker_do(&w, make_state, &thread);
    CHECK_OK(pyrt_stop_the_world(NULL));
    CHECK_INT(state_of(thread), PYRT_STATE_SUSPENDED);
    watch_sleepers();
    worker_begin(&w, attach, thread);
    WAIT_UNTIL(pyrt_load_acquire(&thread->slot.word) == PYRT_STATE_SUSPENDED_WAITED && sleepers() == 1);
    CHECK_INT(state_of(thread), PYRT_STATE_SUSPENDED);
    CHECK(worker_is_busy(&w));
    pyrt_start_the_world(NULL);
    worker_finish(&w);
    CHECK_INT(state_of(thread), PYRT_STATE_ATTACHED);
    stop_watching_sleepers();
    worker_do(&w, detach, thread);
    worker_do(&w, delete_state, thread);
    worker_end(&w);
    runtime_down();
}

/* ---- many at once ------------------------------------------------------------------------------------------------ */

static void
come_and_go(void *unused, int number)
{
    (void)unused;
    random_stream choices = random_for((uint64_t)number);
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    CHECK(thread != NULL);
    for (int i = 0; i < 3000; i++) {
        pyrt_attach(thread);
        CHECK_PTR(pyrt_thread_current(), thread);
        CHECK(pyrt_load_relaxed(&thread->slot.word) & 1);
        switch (random_below(&choices, 4)) {
        case 0:
            pyrt_safepoint(thread);
            break;
        case 1:
            pyrt_qsbr_quiescent_state(thread);
            break;
        case 2:
            (void)pyrt_qsbr_advance(thread->interp);
            break;
        default:
            break;
        }
        pyrt_detach(thread);
        CHECK(!(pyrt_load_relaxed(&thread->slot.word) & 1));
    }
    pyrt_thread_delete(thread);
}

TEST(many_threads_attach_and_detach)
{
    runtime_up();
    run_crowd(4, come_and_go, NULL);
    CHECK_UINT(stat_of(pyrt_interp_main(), "retired"), 0);
    CHECK(stat_of(pyrt_interp_main(), "goals") > 0);
    runtime_down();
}
