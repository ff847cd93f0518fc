/* test_disposers.c -- what a disposer may do, and what is refused inside of one (retire.h, law 3).
 *
 * Each test runs its disposer from every place where user code runs: a safepoint, process_delayed, the barrier, the end of
 * the thread, and from a shared queue.
 */
#include "support.h"

#include "workers.h"

static pyrt_thread *self;
static int disposed;

static void
count(void *p)
{
    (void)p;
    pyrt_fetch_add_seq_cst(&disposed, 1);
}

/* ---- the places ---------------------------------------------------------------------------------------------------- */

static void
at_safepoints(void (*dispose)(void *))
{
    /* As many bytes as fill a chunk: it gets its goal at once. */
    pyrt_status status = pyrt_retire(self, NULL, (size_t)1 << 20, dispose);
    CHECK(status == PYRT_OK || status == PYRT_EBUSY);
    int before = pyrt_load_seq_cst(&disposed);
    WAIT_UNTIL((pyrt_safepoint(self), pyrt_load_seq_cst(&disposed) > before));
}

static void
in_process_delayed(void (*dispose)(void *))
{
    CHECK_OK(pyrt_retire(self, NULL, 1, dispose));
    CHECK(pyrt_process_delayed(self) >= 1);
}

static void
in_a_barrier(void (*dispose)(void *))
{
    CHECK_OK(pyrt_retire(self, NULL, 1, dispose));
    CHECK_OK(pyrt_qsbr_barrier(self));
}

static void
in_the_global_queue(void (*dispose)(void *))
{
    CHECK_OK(pyrt_retire_global(NULL, 1, dispose));
    CHECK_OK(pyrt_qsbr_barrier(self));
}

static void
retire_without_state(void *dispose)
{
    CHECK_OK(pyrt_retire(NULL, NULL, 1, *(void (**)(void *))dispose));
}

static void
among_the_orphans(void (*dispose)(void *))
{
    worker w;
    worker_start(&w);
    worker_do(&w, retire_without_state, &dispose);
    worker_end(&w);
    CHECK(pyrt_process_delayed(self) >= 1);
}

static void
at_the_end(void (*dispose)(void *))
{
    CHECK_OK(pyrt_retire(self, NULL, 1, dispose));
    pyrt_detach(self);
    pyrt_thread_delete(self);
    self = pyrt_thread_new(pyrt_interp_main());
    pyrt_attach(self);
}

static void (*const places[])(void (*)(void *)) = {
    at_safepoints, in_process_delayed, in_a_barrier, in_the_global_queue, among_the_orphans, at_the_end,
};

enum { PLACES = sizeof(places) / sizeof(places[0]) };

/* Runs the disposer once in each place; each run ends with at least one more disposed of. */
static void
everywhere(void (*dispose)(void *))
{
    for (int i = 0; i < PLACES; i++) {
        disposed = 0;
        runtime_up();
        CHECK(pyrt_interp_new(NULL) != NULL);
        self = pyrt_thread_new(pyrt_interp_main());
        pyrt_attach(self);
        places[i](dispose);
        CHECK(disposed >= 1);
        CHECK_PTR(pyrt_thread_current(), self);
        CHECK(self->slot.word & 1);
        CHECK_OK(pyrt_qsbr_barrier(self));
        pyrt_detach(self);
        pyrt_thread_delete(self);
        CHECK_UINT(stat_of(pyrt_interp_main(), "retired"), stat_of(pyrt_interp_main(), "disposed"));
        CHECK_UINT(stat_of(pyrt_interp_main(), "disposed"), (uint64_t)disposed);
        CHECK_UINT(stat_of(pyrt_interp_main(), "pending_bytes"), 0);
        runtime_down();
    }
}

/* ---- what is allowed ----------------------------------------------------------------------------------------------- */

static void
retire_a_few(void *p)
{
    static struct {
        pyrt_retire_node node;
    } nodes[8];
    static int next_node;
    count(p);
    CHECK_OK(pyrt_retire(pyrt_thread_current(), NULL, 1, count));
    CHECK_OK(pyrt_retire(NULL, NULL, 1, count));
    CHECK_OK(pyrt_retire_global(NULL, 1, count));
    pyrt_retire_node(pyrt_thread_current(), &nodes[next_node++ % 8].node, 1, (void (*)(pyrt_retire_node *))(void *)count);
}

TEST(disposers_may_retire)
{
    everywhere(retire_a_few);
}

/* So much that chunks fill and get their goals while one is being worked off. */
static void
retire_very_many(void *p)
{
    count(p);
    for (int i = 0; i < 1000; i++) {
        pyrt_status status = pyrt_retire(pyrt_thread_current(), NULL, 1, count);
        CHECK(status == PYRT_OK || status == PYRT_EBUSY);
    }
}

TEST(disposers_may_retire_very_many)
{
    everywhere(retire_very_many);
}

static int generations;

static void
retire_the_next(void *p)
{
    count(p);
    if (--generations > 0) {
        CHECK_OK(pyrt_retire(pyrt_thread_current(), p, 1, retire_the_next));
    }
}

TEST(what_disposers_retire_is_disposed_of_later)
{
    disposed = 0;
    generations = 4;
    runtime_up();
    self = pyrt_thread_ensure(pyrt_interp_main());
    CHECK_OK(pyrt_retire(self, NULL, 1, retire_the_next));
    for (int i = 1; i <= 4; i++) {
        CHECK_UINT(pyrt_process_delayed(self), 1);
        CHECK_INT(disposed, i);
    }
    CHECK_UINT(pyrt_process_delayed(self), 0);
    pyrt_thread_release(self);
    runtime_down();
}

static void
detach_and_attach(void *p)
{
    pyrt_thread *thread = pyrt_thread_current();
    count(p);
    pyrt_detach(thread);
    CHECK_OK(pyrt_retire(thread, NULL, 1, count));
    pyrt_attach(thread);
}

TEST(disposers_may_detach_and_attach)
{
    everywhere(detach_and_attach);
}

static void
leave_detached(void *p)
{
    count(p);
    pyrt_detach(pyrt_thread_current());
}

TEST(a_disposer_may_leave_its_thread_detached)
{
    everywhere(leave_detached);
}

static void
leave_another_attached(void *p)
{
    count(p);
    pyrt_interp *other = pyrt_interp_pin(1);
    pyrt_detach(pyrt_thread_current());
    pyrt_thread *thread = pyrt_thread_find(other);
    if (thread == NULL) {
        thread = pyrt_thread_new(other);
    }
    pyrt_attach(thread);
    pyrt_interp_unpin(other);
}

static void
one_other_state_is_left(void (*place)(void (*)(void *)))
{
    disposed = 0;
    runtime_up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    self = pyrt_thread_new(pyrt_interp_main());
    pyrt_attach(self);
    place(leave_another_attached);
    CHECK_INT(disposed, 1);
    CHECK_PTR(pyrt_thread_current(), self);
    pyrt_detach(self);
    pyrt_thread_delete(self);
    pyrt_thread_delete(pyrt_thread_find(other));
    runtime_down();
}

TEST(a_disposer_may_leave_another_state_attached)
{
    for (int i = 0; i < PLACES; i++) {
        one_other_state_is_left(places[i]);
    }
}

static void
pass_safepoints(void *p)
{
    count(p);
    for (int i = 0; i < 5; i++) {
        (void)pyrt_qsbr_advance(pyrt_thread_current()->interp);
        pyrt_safepoint(pyrt_thread_current());
        pyrt_qsbr_quiescent_state(pyrt_thread_current());
    }
}

TEST(disposers_may_pass_safepoints)
{
    everywhere(pass_safepoints);
}

static void
ensure_and_release(void *p)
{
    count(p);
    pyrt_interp *other = pyrt_interp_pin(1);
    pyrt_thread *before = pyrt_thread_current();
    pyrt_thread *thread = pyrt_thread_ensure(other);
    CHECK(thread != NULL);
    CHECK_OK(pyrt_retire(thread, NULL, 1, count));
    pyrt_thread_release(thread);
    CHECK_PTR(pyrt_thread_current(), before);
    pyrt_interp_unpin(other);
}

/* What it retired in the other interpreter is disposed of with that one: not inside of another disposer. */
TEST(disposers_may_ensure_and_release)
{
    for (int i = 0; i < PLACES; i++) {
        disposed = 0;
        runtime_up();
        CHECK(pyrt_interp_new(NULL) != NULL);
        self = pyrt_thread_new(pyrt_interp_main());
        pyrt_attach(self);
        places[i](ensure_and_release);
        CHECK_INT(disposed, 1);
        pyrt_detach(self);
        pyrt_thread_delete(self);
        runtime_down();
        CHECK_INT(disposed, 2);
    }
}

static void
synchronize_and_pause(void *p)
{
    count(p);
    CHECK_OK(pyrt_qsbr_synchronize(NULL));
    CHECK_OK(pyrt_stop_the_world(NULL));
    pyrt_start_the_world(NULL);
}

TEST(disposers_may_wait_and_stop_the_world)
{
    everywhere(synchronize_and_pause);
}

/* ---- what is refused ----------------------------------------------------------------------------------------------- */

static void
process_again(void *p)
{
    count(p);
    int before = disposed;
    CHECK_OK(pyrt_retire(pyrt_thread_current(), NULL, 1, count));
    CHECK_UINT(pyrt_process_delayed(pyrt_thread_current()), 0);
    CHECK_INT(disposed, before);
}

TEST(processing_inside_does_nothing)
{
    everywhere(process_again);
}

static void
wait_for_everything(void *p)
{
    count(p);
    int before = disposed;
    CHECK_OK(pyrt_retire(pyrt_thread_current(), NULL, 1, count));
    CHECK_STATUS(pyrt_qsbr_barrier(pyrt_thread_current()), PYRT_EDEADLK);
    CHECK_STATUS(pyrt_qsbr_barrier(NULL), PYRT_EDEADLK);
    CHECK_STATUS(pyrt_qsbr_barrier_timed(NULL, 0), PYRT_EDEADLK);
    CHECK_INT(disposed, before);
}

TEST(a_barrier_inside_would_wait_for_ever)
{
    everywhere(wait_for_everything);
}

/* Also through a state of another interpreter: it is the OS thread that is inside of the disposer. */
static void
wait_in_another_interpreter(void *p)
{
    count(p);
    pyrt_interp *other = pyrt_interp_pin(1);
    pyrt_thread *thread = pyrt_thread_ensure(other);
    CHECK_STATUS(pyrt_qsbr_barrier(thread), PYRT_EDEADLK);
    CHECK_UINT(pyrt_process_delayed(thread), 0);
    pyrt_thread_release(thread);
    pyrt_interp_unpin(other);
}

TEST(so_it_would_through_another_interpreter)
{
    everywhere(wait_in_another_interpreter);
}

/* Another OS thread's barrier waits for the disposer that is running, and does not answer before it. */
static int entered;
static int may_leave;

static void
linger(void *p)
{
    pyrt_exchange_seq_cst(&entered, 1);
    WAIT_UNTIL(pyrt_load_seq_cst(&may_leave));
    count(p);
}

static void
linger_detached(void *p)
{
    pyrt_thread *thread = pyrt_thread_current();
    pyrt_detach(thread);
    linger(p);
    pyrt_attach(thread);
}

static void
retire_and_process(void *dispose)
{
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    CHECK_OK(pyrt_retire(thread, NULL, 1, *(void (**)(void *))dispose));
    CHECK_OK(pyrt_retire(thread, NULL, 1, count));
    CHECK_UINT(pyrt_process_delayed(thread), 2);
    pyrt_thread_release(thread);
}

static void
wait_for_barrier(void *out)
{
    *(pyrt_status *)out = pyrt_qsbr_barrier(NULL);
    CHECK_INT(pyrt_load_seq_cst(&disposed), 2);
}

static void
barrier_waits_for(void (*dispose)(void *))
{
    worker disposing;
    worker waiting;
    pyrt_status status;
    disposed = entered = may_leave = 0;
    runtime_up();
    worker_start(&disposing);
    worker_start(&waiting);
    worker_begin(&disposing, retire_and_process, &dispose);
    WAIT_UNTIL(pyrt_load_seq_cst(&entered));
    CHECK_STATUS(pyrt_qsbr_barrier_timed(NULL, 0), PYRT_ETIMEDOUT);
    watch_sleepers();
    worker_begin(&waiting, wait_for_barrier, &status);
    WAIT_UNTIL(sleepers() == 1);
    CHECK_INT(disposed, 0);
    pyrt_exchange_seq_cst(&may_leave, 1);
    worker_end(&waiting);
    worker_end(&disposing);
    CHECK_OK(status);
    stop_watching_sleepers();
    runtime_down();
}

TEST(a_barrier_waits_for_a_disposer_that_runs)
{
    barrier_waits_for(linger);
    barrier_waits_for(linger_detached);
}
