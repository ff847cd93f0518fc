/* test_block_hooks.c -- the hooks around every real sleep (block.h, law 1): never without a sleep, always in pairs, after
 * the sleep detached and with no lock held.
 */
#include "support.h"

#include "steps.h"
#include "workers.h"

static struct {
    int before;
    int after;
    int attached_after;   /* calls of after with an attached state */
    char token;
} seen;

static void *
before(void)
{
    pyrt_fetch_add_seq_cst(&seen.before, 1);
    return &seen.token;
}

/* Uses the library: with a lock of its own held that would hang. */
static void
after(void *saved)
{
    CHECK_PTR(saved, &seen.token);
    pyrt_fetch_add_seq_cst(&seen.after, 1);
    pyrt_fetch_add_seq_cst(&seen.attached_after, pyrt_thread_current() != NULL);
    pyrt_interp *main = pyrt_interp_pin(0);
    CHECK(main != NULL);
    (void)pyrt_thread_list(main, NULL, 0);
    CHECK(stat_of(main, "retired") < UINT64_MAX);
    pyrt_interp_unpin(main);
}

static void
hooks_up(void)
{
    seen.before = seen.after = seen.attached_after = 0;
    pyrt_set_block_hooks(&(pyrt_block_hooks){before, after});
}

static void
check_slept(int times)
{
    CHECK(pyrt_load_seq_cst(&seen.before) >= times);
    CHECK_INT(pyrt_load_seq_cst(&seen.after), pyrt_load_seq_cst(&seen.before));
    CHECK_INT(pyrt_load_seq_cst(&seen.attached_after), 0);
}

/* Somebody is in a sleep: before was called once more than after. */
static bool
somebody_sleeps(void)
{
    return pyrt_load_seq_cst(&seen.before) > pyrt_load_seq_cst(&seen.after);
}

/* ---- led threads --------------------------------------------------------------------------------------------------- */

static void
synchronize(void *thread)
{
    CHECK_OK(pyrt_qsbr_synchronize(thread));
}

static void
barrier(void *thread)
{
    CHECK_OK(pyrt_qsbr_barrier(thread));
}

static void
stop(void *unused)
{
    (void)unused;
    CHECK_OK(pyrt_stop_the_world(NULL));
}

static void
start(void *unused)
{
    (void)unused;
    pyrt_start_the_world(NULL);
}

static int disposed;

static void
count(void *p)
{
    (void)p;
    disposed++;
}

/* ---- never without a sleep ----------------------------------------------------------------------------------------- */

TEST(calls_that_do_not_sleep_do_not_call_them)
{
    runtime_up();
    hooks_up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    for (int i = 0; i < 500; i++) {
        CHECK_OK(pyrt_retire(thread, NULL, 1, count));
        pyrt_safepoint(thread);
        pyrt_qsbr_quiescent_state(thread);
        pyrt_detach(thread);
        pyrt_attach(thread);
    }
    CHECK_OK(pyrt_qsbr_synchronize(thread));
    CHECK_OK(pyrt_qsbr_barrier(thread));
    CHECK_OK(pyrt_stop_the_world(NULL));
    pyrt_start_the_world(NULL);
    (void)pyrt_process_delayed(thread);
    pyrt_thread *second = pyrt_thread_ensure(other);
    pyrt_thread_release(second);
    pyrt_thread_release(thread);
    CHECK_OK(pyrt_interp_delete(other));
    CHECK_INT(seen.before + seen.after, 0);
    pyrt_set_block_hooks(NULL);
    runtime_down();
}

/* ---- around each kind of sleep ------------------------------------------------------------------------------------- */

TEST(around_the_attach_of_a_suspended_thread)
{
    worker w;
    pyrt_thread *thread;
    runtime_up();
    worker_start(&w);
    worker_do(&w, attach_new, &thread);
    worker_do(&w, detach, thread);
    CHECK_OK(pyrt_stop_the_world(NULL));
    hooks_up();
    worker_begin(&w, attach, thread);
    WAIT_UNTIL(somebody_sleeps());
    pyrt_start_the_world(NULL);
    worker_finish(&w);
    check_slept(1);
    pyrt_set_block_hooks(NULL);
    worker_do(&w, delete_attached, thread);
    worker_end(&w);
    runtime_down();
}

TEST(around_parking_at_a_safepoint)
{
    worker w;
    worker requester;
    pyrt_thread *thread;
    runtime_up();
    worker_start(&w);
    worker_start(&requester);
    worker_do(&w, attach_new, &thread);
    hooks_up();
    worker_begin(&requester, stop, NULL);
    WAIT_UNTIL(pyrt_load_seq_cst(&seen.before) == 1);
    worker_begin(&w, pass_safepoint, thread);
    worker_finish(&requester);
    WAIT_UNTIL(pyrt_load_seq_cst(&seen.before) == 2);
    CHECK_INT(pyrt_load_seq_cst(&seen.after), 1);
    worker_do(&requester, start, NULL);
    worker_finish(&w);
    check_slept(2);
    pyrt_set_block_hooks(NULL);
    worker_do(&w, delete_attached, thread);
    worker_end(&w);
    worker_end(&requester);
    runtime_down();
}

static void
around_waiting_for_a_reader(void (*wait)(void *), bool attached)
{
    worker w;
    worker waiter;
    pyrt_thread *reader;
    pyrt_thread *waiting;
    runtime_up();
    worker_start(&w);
    worker_start(&waiter);
    worker_do(&w, attach_new, &reader);
    worker_do(&waiter, attach_new, &waiting);
    if (!attached) {
        worker_do(&waiter, detach, waiting);
    }
    hooks_up();
    worker_begin(&waiter, wait, waiting);
    WAIT_UNTIL(somebody_sleeps());
    worker_do(&w, detach, reader);
    worker_finish(&waiter);
    check_slept(1);
    pyrt_set_block_hooks(NULL);
    worker_do(&w, attach, reader);
    if (!attached) {
        worker_do(&waiter, attach, waiting);
    }
    worker_do(&w, delete_attached, reader);
    worker_do(&waiter, delete_attached, waiting);
    worker_end(&w);
    worker_end(&waiter);
    runtime_down();
}

TEST(around_synchronize)
{
    around_waiting_for_a_reader(synchronize, true);
    around_waiting_for_a_reader(synchronize, false);
}

TEST(around_a_barrier)
{
    around_waiting_for_a_reader(barrier, true);
    around_waiting_for_a_reader(barrier, false);
}

/* The one exception: the requester of a pause wakes with the world stopped, and it may be attached. */
TEST(around_the_wait_for_the_last_to_park)
{
    worker w;
    worker requester;
    pyrt_thread *thread;
    runtime_up();
    worker_start(&w);
    worker_start(&requester);
    worker_do(&w, attach_new, &thread);
    hooks_up();
    worker_begin(&requester, stop, NULL);
    WAIT_UNTIL(somebody_sleeps());
    worker_do(&w, detach, thread);
    worker_finish(&requester);
    CHECK_INT(seen.before, 1);
    CHECK_INT(seen.after, 1);
    worker_do(&requester, start, NULL);
    pyrt_set_block_hooks(NULL);
    worker_do(&w, attach, thread);
    worker_do(&w, delete_attached, thread);
    worker_end(&w);
    worker_end(&requester);
    runtime_down();
}

TEST(around_the_wait_for_ones_turn_to_pause)
{
    worker requester;
    worker attached_requester;
    pyrt_thread *thread;
    runtime_up();
    worker_start(&requester);
    worker_start(&attached_requester);
    worker_do(&attached_requester, attach_new, &thread);
    worker_do(&attached_requester, detach, thread);
    worker_do(&requester, stop, NULL);
    hooks_up();
    worker_begin(&attached_requester, stop, NULL);
    WAIT_UNTIL(somebody_sleeps());
    worker_do(&requester, start, NULL);
    worker_finish(&attached_requester);
    check_slept(1);
    worker_do(&attached_requester, start, NULL);
    pyrt_set_block_hooks(NULL);
    worker_do(&attached_requester, attach, thread);
    worker_do(&attached_requester, delete_attached, thread);
    worker_end(&attached_requester);
    worker_end(&requester);
    runtime_down();
}

/* A host that is shutting down: `after` never comes back. Nothing of ours may be held by that thread, so that everybody
 * else goes on. */
static int ended_in_hook;

static void
never_return(void *saved)
{
    (void)saved;
    CHECK_PTR(pyrt_thread_current(), NULL);
    pyrt_exchange_seq_cst(&ended_in_hook, 1);
    pthread_exit(NULL);
}

TEST(after_may_never_return)
{
    worker w;
    worker reader_worker;
    pyrt_thread *thread;
    pyrt_thread *reader;
    ended_in_hook = 0;
    disposed = 0;
    runtime_up();
    worker_start(&w);
    worker_start(&reader_worker);
    worker_do(&w, attach_new, &thread);
    worker_do(&reader_worker, attach_new, &reader);
    pyrt_set_block_hooks(&(pyrt_block_hooks){before, never_return});
    int begun = seen.before;
    worker_begin(&w, synchronize, thread);
    WAIT_UNTIL(pyrt_load_seq_cst(&seen.before) > begun);
    worker_do(&reader_worker, detach, reader);
    worker_join_exited(&w);
    CHECK_INT(ended_in_hook, 1);
    pyrt_set_block_hooks(NULL);
    worker_do(&reader_worker, attach, reader);
    worker_do(&reader_worker, delete_attached, reader);
    worker_end(&reader_worker);
    CHECK_OK(pyrt_retire(NULL, NULL, 1, count));
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    CHECK_INT(disposed, 1);
    runtime_down();
}

/* A barrier that waits for all interpreters keeps each alive while it waits for its readers. */
static void
attach_in_second(void *where)
{
    pyrt_interp *second = pyrt_interp_pin(1);
    pyrt_thread *reader = *(pyrt_thread **)where = pyrt_thread_new(second);
    pyrt_attach(reader);
    pyrt_interp_unpin(second);
}

TEST(after_may_end_an_os_thread_that_waits_for_all_interpreters)
{
    worker w;
    worker reader_worker;
    pyrt_thread *thread;
    pyrt_thread *reader;
    ended_in_hook = 0;
    disposed = 0;
    runtime_up();
    pyrt_interp *second = pyrt_interp_new(NULL);
    worker_start(&w);
    worker_start(&reader_worker);
    worker_do(&w, attach_new, &thread);
    worker_do(&reader_worker, attach_in_second, &reader);
    CHECK_OK(pyrt_retire_global(NULL, 1, count));
    pyrt_set_block_hooks(&(pyrt_block_hooks){before, never_return});
    int begun = seen.before;
    worker_begin(&w, barrier, thread);
    WAIT_UNTIL(pyrt_load_seq_cst(&seen.before) > begun);
    CHECK_STATUS(pyrt_interp_delete(second), PYRT_EBUSY);
    worker_do(&reader_worker, delete_attached, reader);
    worker_join_exited(&w);
    CHECK_INT(ended_in_hook, 1);
    pyrt_set_block_hooks(NULL);
    worker_end(&reader_worker);
    CHECK_OK(pyrt_interp_delete(second));
    runtime_down();
    CHECK_INT(disposed, 1);
}

static void
stop_for_ever(void *unused)
{
    (void)unused;
    (void)pyrt_stop_the_world(NULL);
    FAIL("the hook should have ended the OS thread");
}

TEST(after_may_end_the_os_thread_that_stops_the_world)
{
    worker requester;
    worker w;
    pyrt_thread *thread;
    ended_in_hook = 0;
    runtime_up();
    worker_start(&requester);
    worker_start(&w);
    worker_do(&w, attach_new, &thread);
    int begun = seen.before;
    pyrt_set_block_hooks(&(pyrt_block_hooks){before, never_return});
    worker_begin(&requester, stop_for_ever, NULL);
    WAIT_UNTIL(pyrt_load_seq_cst(&seen.before) > begun);
    worker_do(&w, detach, thread);
    worker_join_exited(&requester);
    CHECK_INT(ended_in_hook, 1);
    pyrt_set_block_hooks(NULL);
    CHECK(!pyrt_world_is_stopped(NULL));
    worker_do(&w, attach, thread);
    worker_do(&w, delete_attached, thread);
    worker_end(&w);
    CHECK_OK(pyrt_stop_the_world(NULL));
    pyrt_start_the_world(NULL);
    runtime_down();
}
