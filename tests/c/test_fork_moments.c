/* test_fork_moments.c -- forks at particular moments: without a runtime, inside pauses and disposers, and while other threads
 * wait, stop the world, or end something (fork.h).
 */
#include "mills.h"
#include "object/merge_queue.h"
#include "object/weak_lists.h"
#include "platform/meta_alloc.h"
#include "steps.h"

#include <errno.h>
#include <unistd.h>

/* ---- where a fork may come ------------------------------------------------------------------------------------------ */

static void
check_no_runtime(void)
{
    CHECK(!pyrt_runtime_is_initialized());
    runtime_up();
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    runtime_down();
}

TEST(without_runtime)
{
    in_a_child(pyrt_fork, check_no_runtime);
    in_a_child(fork, check_no_runtime);
    CHECK(!pyrt_runtime_is_initialized());
}

static unsigned free_locks;

static void
count_if_free(pyrt_raw_mutex *lock)
{
    if (pyrt_raw_mutex_trylock(lock)) {
        pyrt_raw_mutex_unlock(lock);
        free_locks++;
    }
}

static void
count_free_locks(void)
{
    free_locks = 0;
    count_if_free(&pyrt_merge_ended_lock);
    pyrt_weak_each_lock(count_if_free);
}

/* Before the library's own constructors: the last prepared is the first installed. */
__attribute__((constructor(101))) static void
look_at_each_fork(void)
{
    (void)pthread_atfork(count_free_locks, NULL, NULL);
}

static void
check_all_are_free(void)
{
    unsigned taken_at_the_fork = free_locks;
    count_free_locks();
    CHECK_UINT(taken_at_the_fork, 0);
    CHECK(free_locks > 1);
}

/* Objects outlive the runtime, and so their threads may be under these locks. */
TEST(locks_of_the_process_are_taken_with_and_without_runtime)
{
    in_a_child(fork, check_all_are_free);
    check_all_are_free();
    runtime_up();
    pyrt_interp *more = pyrt_interp_new(NULL);
    CHECK(more != NULL);
    in_a_child(fork, check_all_are_free);
    CHECK_OK(pyrt_interp_delete(more));
    runtime_down();
    in_a_child(fork, check_all_are_free);
    check_all_are_free();
}

static pyrt_interp *stopped_interp;

static void
check_pause_goes_on(void)
{
    CHECK(pyrt_world_is_stopped(stopped_interp));
    CHECK_STATUS(pyrt_stop_the_world(NULL), PYRT_ESTATE);
    EXPECT_REPORT("pyrt_stop_the_world");
    CHECK_UINT(pyrt_thread_list(pyrt_interp_main(), NULL, 0), 0);
    pyrt_start_the_world(stopped_interp);
    CHECK(!pyrt_world_is_stopped(NULL));
    use_threads_in_the_child();
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    runtime_down();
}

static void
inside_a_pause(bool one, pid_t (*how)(void))
{
    worker w;
    pyrt_thread *thread;
    runtime_up();
    stopped_interp = one ? pyrt_interp_main() : NULL;
    worker_start(&w);
    worker_do(&w, make_state, &thread);
    CHECK_OK(pyrt_stop_the_world(stopped_interp));
    watch_sleepers();
    worker_begin(&w, attach, thread);
    WAIT_UNTIL(sleepers() == 1);
    in_a_child(how, check_pause_goes_on);
    CHECK(pyrt_world_is_stopped(stopped_interp));
    CHECK(worker_is_busy(&w));
    pyrt_start_the_world(stopped_interp);
    worker_do(&w, delete_attached, thread);
    worker_end(&w);
    stop_watching_sleepers();
    runtime_down();
}

TEST(a_pause_of_the_forking_thread_goes_on_in_both)
{
    inside_a_pause(false, pyrt_fork);
    inside_a_pause(false, fork);
    inside_a_pause(true, pyrt_fork);
    inside_a_pause(true, fork);
}

/* ---- what other threads were in the middle of ----------------------------------------------------------------------- */

static void
stop_the_world(void *unused)
{
    (void)unused;
    CHECK_OK(pyrt_stop_the_world(NULL));
}

static void
start_the_world(void *unused)
{
    (void)unused;
    pyrt_start_the_world(NULL);
}

/* The detached state of the thread that forks. */
static pyrt_thread *forking;

static void
check_pause_is_over(void)
{
    CHECK(!pyrt_world_is_stopped(NULL));
    CHECK_UINT(pyrt_load_relaxed(&forking->slot.word), PYRT_STATE_DETACHED);
    works.disposed = works.retired_by_others = 0;
    pyrt_attach(forking);
    pyrt_safepoint(forking);
    pyrt_detach(forking);
    use_threads_in_the_child();
    CHECK_OK(pyrt_stop_the_world(NULL));
    pyrt_start_the_world(NULL);
    pyrt_thread_delete(forking);
    runtime_down();
    CHECK_UINT(works.disposed, 600);
}

TEST(a_pause_of_another_thread_is_over_in_the_child)
{
    worker w;
    runtime_up();
    forking = pyrt_thread_new(pyrt_interp_main());
    worker_start(&w);
    worker_do(&w, stop_the_world, NULL);
    CHECK_UINT(pyrt_load_relaxed(&forking->slot.word), PYRT_STATE_SUSPENDED);
    in_a_child(fork, check_pause_is_over);
    CHECK_UINT(pyrt_load_relaxed(&forking->slot.word), PYRT_STATE_SUSPENDED);
    worker_do(&w, start_the_world, NULL);
    worker_end(&w);
    pyrt_thread_delete(forking);
    runtime_down();
}

/* A reader that held everything up is not there any more; those who waited for it neither. */
static void
wait_in_a_barrier(void *unused)
{
    (void)unused;
    CHECK_OK(pyrt_qsbr_barrier(NULL));
}

static void
wait_in_synchronize(void *unused)
{
    (void)unused;
    CHECK_OK(pyrt_qsbr_synchronize(NULL));
}

static void
wait_in_a_pause(void *unused)
{
    (void)unused;
    CHECK_OK(pyrt_stop_the_world(NULL));
    pyrt_start_the_world(NULL);
}

static void
check_nobody_holds_up(void)
{
    CHECK_UINT(pyrt_thread_list(pyrt_interp_main(), NULL, 0), 0);
    CHECK_OK(pyrt_qsbr_synchronize_timed(NULL, 0));
    CHECK_OK(pyrt_stop_the_world_timed(NULL, 0, NULL));
    pyrt_start_the_world(NULL);
    CHECK_OK(pyrt_qsbr_barrier_timed(NULL, -1));
    CHECK_UINT(works.disposed, 10);
    runtime_down();
}

TEST(those_who_wait_in_the_parent_are_gone_in_the_child)
{
    void (*const waits[])(void *) = {wait_in_a_barrier, wait_in_synchronize, wait_in_a_pause};
    for (int i = 0; i < 3; i++) {
        static item items[10];
        worker reader_worker;
        worker waiting;
        pyrt_thread *reader;
        works.disposed = 0;
        runtime_up();
        worker_start(&reader_worker);
        worker_start(&waiting);
        worker_do(&reader_worker, make_state, &reader);
        worker_do(&reader_worker, attach, reader);
        for (int k = 0; k < 10; k++) {
            items[k] = (item){.canary = ALIVE, .from_pool = true};
            retire_item(NULL, &items[k], (uint32_t)k % 4);
        }
        watch_sleepers();
        worker_begin(&waiting, waits[i], NULL);
        WAIT_UNTIL(sleepers() == 1);
        in_a_child(fork, check_nobody_holds_up);
        CHECK(worker_is_busy(&waiting));
        worker_do(&reader_worker, delete_attached, reader);
        worker_end(&reader_worker);
        worker_end(&waiting);
        stop_watching_sleepers();
        CHECK_OK(pyrt_qsbr_barrier(NULL));
        CHECK_UINT(works.disposed, 10);
        runtime_down();
    }
}

/* A barrier for what is retired globally keeps the interpreter alive whose readers it waits for. */
static pyrt_interp *second;

static void
attach_in_second(void *where)
{
    pyrt_thread *reader = *(pyrt_thread **)where = pyrt_thread_new(second);
    pyrt_attach(reader);
}

static void
count_one(void *p)
{
    (void)p;
    works.disposed++;
}

static void
check_interpreters_can_end(void)
{
    CHECK_OK(pyrt_interp_delete(second));
    runtime_down();
    CHECK_UINT(works.disposed, 1);
}

TEST(who_waits_for_all_interpreters_keeps_none_alive_in_the_child)
{
    worker reader_worker;
    worker waiting;
    pyrt_thread *reader;
    works.disposed = 0;
    runtime_up();
    second = pyrt_interp_new(NULL);
    worker_start(&reader_worker);
    worker_start(&waiting);
    worker_do(&reader_worker, attach_in_second, &reader);
    CHECK_OK(pyrt_retire_global(NULL, 1, count_one));
    watch_sleepers();
    worker_begin(&waiting, wait_in_a_barrier, NULL);
    WAIT_UNTIL(sleepers() == 1);
    in_a_child(fork, check_interpreters_can_end);
    CHECK_STATUS(pyrt_interp_delete(second), PYRT_EBUSY);
    worker_do(&reader_worker, delete_attached, reader);
    worker_end(&reader_worker);
    worker_end(&waiting);
    stop_watching_sleepers();
    check_interpreters_can_end();
}

/* ---- births -------------------------------------------------------------------------------------------------------------- */

static int born;
static int may_be_born;

static pyrt_status
linger_in_init(void *bytes)
{
    (void)bytes;
    pyrt_exchange_seq_cst(&born, 1);
    WAIT_UNTIL(pyrt_load_seq_cst(&may_be_born));
    return PYRT_OK;
}

/* The one that was being made took the first index, and memory. */
static void
check_birth_is_lost(void)
{
    pyrt_thread_info info;
    may_be_born = 1;
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    CHECK(thread != NULL);
    CHECK_UINT(pyrt_thread_list(pyrt_interp_main(), &info, 1), 1);
    CHECK_INT(info.index, 0);
    pyrt_thread_delete(thread);
    use_threads_in_the_child();
    runtime_down();
    CHECK_UINT(pyrt_meta_live_bytes(), 0);
}

TEST(a_state_that_another_thread_was_making_is_given_back_in_the_child)
{
    worker w;
    pyrt_thread *thread;
    born = may_be_born = 0;
    runtime_up();
    CHECK(pyrt_thread_slot_new(linger_in_init, NULL, 0) >= 0);
    worker_start(&w);
    worker_begin(&w, make_state, &thread);
    WAIT_UNTIL(pyrt_load_seq_cst(&born));
    in_a_child(fork, check_birth_is_lost);
    pyrt_exchange_seq_cst(&may_be_born, 1);
    worker_finish(&w);
    worker_do(&w, delete_state, thread);
    worker_end(&w);
    runtime_down();
}

static pid_t (*fork_in_init)(void);
static pid_t forked_in_init;

static pyrt_status
fork_while_being_born(void *bytes)
{
    (void)bytes;
    if (fork_in_init != NULL) {
        pid_t (*how)(void) = fork_in_init;
        fork_in_init = NULL;
        forked_in_init = how();
        CHECK(forked_in_init >= 0);
    }
    return PYRT_OK;
}

/* Both processes finish what was begun. */
static void
fork_inside_a_birth(pid_t (*how)(void))
{
    runtime_up();
    CHECK(pyrt_thread_slot_new(fork_while_being_born, NULL, 0) >= 0);
    fork_in_init = how;
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    CHECK(thread != NULL);
    CHECK_STATUS(pyrt_runtime_fini(), PYRT_EBUSY);
    CHECK_UINT(pyrt_thread_list(pyrt_interp_main(), NULL, 0), 1);
    pyrt_thread_release(thread);
    runtime_down();
    CHECK_UINT(pyrt_meta_live_bytes(), 0);
    if (forked_in_init == 0) {
        _exit(0);
    }
    wait_for_child(forked_in_init);
}

TEST(an_init_hook_may_fork)
{
    fork_inside_a_birth(pyrt_fork);
    fork_inside_a_birth(fork);
}

/* ---- forks inside of disposers --------------------------------------------------------------------------------------- */

static pid_t (*fork_in_disposer)(void);
static pid_t forked;

static void
fork_and_dispose(void *thing)
{
    forked = fork_in_disposer();
    CHECK(forked >= 0);
    dispose(thing);
}

/* Both processes go on with the disposal that they were in. */
static void
fork_inside_a_disposer(pid_t (*how)(void), bool without_state)
{
    static item items[10];
    works.disposed = 0;
    fork_in_disposer = how;
    runtime_up();
    pyrt_thread *thread = without_state ? NULL : pyrt_thread_ensure(pyrt_interp_main());
    for (int i = 0; i < 10; i++) {
        items[i] = (item){.canary = ALIVE, .from_pool = true};
        CHECK_OK(pyrt_retire(thread, &items[i], 1, i == 4 ? fork_and_dispose : dispose));
    }
    if (!without_state) {
        CHECK_UINT(pyrt_process_delayed(thread), 10);
        CHECK_UINT(works.disposed, 10);
        pyrt_thread_release(thread);
    }
    runtime_down();
    CHECK_UINT(works.disposed, 10);
    if (forked == 0) {
        _exit(0);
    }
    wait_for_child(forked);
}

TEST(a_disposer_may_fork)
{
    fork_inside_a_disposer(pyrt_fork, false);
    fork_inside_a_disposer(fork, false);
    /* In the last fini, where no state is left and no world either. */
    fork_inside_a_disposer(fork, true);
}

static void
pyrt_fork_and_dispose(void *thing)
{
    errno = 0;
    CHECK_INT(pyrt_fork(), -1);
    CHECK_INT(errno, EDEADLK);
    dispose(thing);
}

/* A world that ends cannot be stopped. */
TEST(pyrt_fork_is_refused_while_the_runtime_ends)
{
    item thing = {.canary = ALIVE, .from_pool = true};
    works.disposed = 0;
    runtime_up();
    CHECK_OK(pyrt_retire(NULL, &thing, 1, pyrt_fork_and_dispose));
    runtime_down();
    CHECK_UINT(works.disposed, 1);
}

/* ---- ends that were under way ---------------------------------------------------------------------------------------- */

static int entered;
static int may_leave;
static pyrt_interp *other;

static void
linger(void *thing)
{
    pyrt_exchange_seq_cst(&entered, 1);
    WAIT_UNTIL(pyrt_load_seq_cst(&may_leave));
    dispose(thing);
}

static void
linger_in_node(pyrt_retire_node *node)
{
    linger(node);
}

static void
make_state_in_other(void *out)
{
    *(pyrt_thread **)out = pyrt_thread_new(other);
}

static void
delete_other(void *unused)
{
    (void)unused;
    CHECK_OK(pyrt_interp_delete(other));
}

static void
end_runtime(void *unused)
{
    (void)unused;
    CHECK_OK(pyrt_runtime_fini());
}

/* The disposal that kept the end busy is in the parent only, and with it the item. The child ends for itself. */
static void
check_can_end(void)
{
    CHECK(pyrt_runtime_is_initialized());
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    CHECK(thread != NULL);
    pyrt_thread_release(thread);
    CHECK_OK(pyrt_runtime_fini());
}

static void
fork_while_something_ends(worker *ending, void (*end)(void *))
{
    worker_begin(ending, end, NULL);
    WAIT_UNTIL(pyrt_load_seq_cst(&entered));
    in_a_child(fork, check_can_end);
    pyrt_exchange_seq_cst(&may_leave, 1);
    worker_end(ending);
    CHECK_UINT(works.disposed, 1);
}

TEST(an_end_of_an_interpreter_is_open_again_in_the_child)
{
    item thing = {.canary = ALIVE, .from_pool = true};
    pyrt_thread *thread;
    worker w;
    entered = may_leave = 0;
    works.disposed = 0;
    runtime_up();
    other = pyrt_interp_new(NULL);
    worker_start(&w);
    worker_do(&w, make_state_in_other, &thread);
    /* With another OS thread's state the node goes to its interpreter, which has nobody who looks at it. */
    pyrt_retire_node(thread, &thing.node, 1, linger_in_node);
    worker_do(&w, delete_state, thread);
    CHECK_UINT(works.disposed, 0);
    fork_while_something_ends(&w, delete_other);
    runtime_down();
}

TEST(an_end_of_the_runtime_is_open_again_in_the_child)
{
    item thing = {.canary = ALIVE, .from_pool = true};
    worker w;
    entered = may_leave = 0;
    works.disposed = 0;
    runtime_up();
    CHECK_OK(pyrt_retire(NULL, &thing, 1, linger));
    worker_start(&w);
    fork_while_something_ends(&w, end_runtime);
    CHECK(!pyrt_runtime_is_initialized());
}
