/* test_barrier.c -- waiting until all that was retired is disposed of: borrowing, asking, orphans, time-outs (retire.h,
 * law 4).
 */
#include "support.h"

#include "faults.h"
#include "platform/meta_alloc.h"
#include "workers.h"

#include <stdlib.h>

static int disposed;

static void
count(void *p)
{
    (void)p;
    pyrt_fetch_add_seq_cst(&disposed, 1);
}

static int
disposals(void)
{
    return pyrt_load_seq_cst(&disposed);
}

/* ---- led threads --------------------------------------------------------------------------------------------------- */

typedef struct actor {
    worker w;
    pyrt_interp *interp; /* NULL: main */
    pyrt_thread *thread;
    int items;
    size_t bytes;
    int64_t timeout_ns;
    pyrt_status status; /* of the barrier */
    int gone;           /* disposed of when it returned */
} actor;

static void
step_attach_new(void *arg)
{
    actor *a = arg;
    a->thread = pyrt_thread_new(a->interp != NULL ? a->interp : pyrt_interp_main());
    pyrt_attach(a->thread);
}

static void
step_attach(void *arg)
{
    pyrt_attach(((actor *)arg)->thread);
}

static void
step_detach(void *arg)
{
    pyrt_detach(((actor *)arg)->thread);
}

static void
step_safepoint(void *arg)
{
    pyrt_safepoint(((actor *)arg)->thread);
}

static void
step_quiescent(void *arg)
{
    pyrt_qsbr_quiescent_state(((actor *)arg)->thread);
}

static void
step_retire(void *arg)
{
    actor *a = arg;
    for (int i = 0; i < a->items; i++) {
        pyrt_status status = pyrt_retire(a->thread, NULL, a->bytes, count);
        CHECK(status == PYRT_OK || status == PYRT_EBUSY);
    }
}

static void
step_delete(void *arg)
{
    actor *a = arg;
    if (pyrt_thread_current() == a->thread) {
        pyrt_detach(a->thread);
    }
    pyrt_thread_delete(a->thread);
}

static void
step_barrier(void *arg)
{
    actor *a = arg;
    a->status = pyrt_qsbr_barrier_timed(a->thread, a->timeout_ns);
    a->gone = disposals();
}

static void
begin(actor *a)
{
    worker_start(&a->w);
    worker_do(&a->w, step_attach_new, a);
}

static void
do_step(actor *a, void (*step)(void *))
{
    worker_do(&a->w, step, a);
}

static void
end(actor *a)
{
    do_step(a, step_delete);
    worker_end(&a->w);
}

/* ---- alone --------------------------------------------------------------------------------------------------------- */

TEST(a_barrier_without_runtime_is_refused)
{
    CHECK_STATUS(pyrt_qsbr_barrier(NULL), PYRT_ESTATE);
    CHECK_STATUS(pyrt_qsbr_barrier_timed(NULL, 0), PYRT_ESTATE);
}

TEST(a_barrier_with_nothing_to_wait_for_returns)
{
    runtime_up();
    watch_sleepers();
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    CHECK_OK(pyrt_qsbr_barrier_timed(NULL, 0));
    CHECK_UINT(pyrt_thread_list(pyrt_interp_main(), NULL, 0), 0);
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    CHECK_OK(pyrt_qsbr_barrier(thread));
    CHECK_PTR(pyrt_thread_current(), NULL);
    pyrt_attach(thread);
    CHECK_OK(pyrt_qsbr_barrier(thread));
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    CHECK_PTR(pyrt_thread_current(), thread);
    CHECK_UINT(stat_of(pyrt_interp_main(), "barriers"), 5);
    CHECK_INT(sleeps_begun(), 0);
    stop_watching_sleepers();
    pyrt_detach(thread);
    pyrt_thread_delete(thread);
    runtime_down();
}

TEST(all_that_the_caller_retired_is_gone)
{
    disposed = 0;
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    for (int i = 1; i <= 1000; i += 37) {
        int before = disposals();
        for (int k = 0; k < i; k++) {
            CHECK_OK(pyrt_retire(thread, NULL, 1, count));
        }
        CHECK_OK(pyrt_retire_global(NULL, 1, count));
        CHECK_OK(pyrt_retire(NULL, NULL, 1, count));
        CHECK_OK(pyrt_qsbr_barrier(thread));
        CHECK_INT(disposals(), before + i + 2);
    }
    pyrt_thread_release(thread);
    runtime_down();
}

/* ---- borrowing ----------------------------------------------------------------------------------------------------- */

/* Law 4: a thread retires 100 MB and sleeps for ever. */
TEST(what_a_sleeping_detached_thread_retired_is_gone)
{
    actor sleeper = {.items = 1600, .bytes = 64 * 1024};
    disposed = 0;
    runtime_up();
    begin(&sleeper);
    do_step(&sleeper, step_retire);
    do_step(&sleeper, step_detach);
    CHECK_UINT(stat_of(pyrt_interp_main(), "pending_bytes"), 1600u * 64 * 1024);
    CHECK(disposals() == 0);
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    CHECK_INT(disposals(), 1600);
    CHECK_UINT(stat_of(pyrt_interp_main(), "pending_bytes"), 0);
    CHECK_UINT(stat_of(pyrt_interp_main(), "borrowed"), 1);
    /* It may go on as if nothing had been: also its bound is free again. */
    do_step(&sleeper, step_attach);
    CHECK_UINT(sleeper.thread->slot.flags & (PYRT_FLAG_STOP | PYRT_FLAG_COLLECT), 0);
    sleeper.items = 10;
    sleeper.bytes = 1;
    do_step(&sleeper, step_retire);
    CHECK_UINT(stat_of(pyrt_interp_main(), "pending_items"), 10);
    CHECK_OK(pyrt_qsbr_barrier_timed(NULL, 0) == PYRT_ETIMEDOUT ? PYRT_OK : PYRT_ESTATE);
    do_step(&sleeper, step_detach);
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    CHECK_INT(disposals(), 1610);
    end(&sleeper);
    runtime_down();
}

TEST(the_borrowed_threads_bound_is_free_again)
{
    actor sleeper = {.items = 40, .bytes = 64 * 1024};
    disposed = 0;
    runtime_up();
    begin(&sleeper);
    do_step(&sleeper, step_retire);
    do_step(&sleeper, step_detach);
    uint64_t busy = stat_of(pyrt_interp_main(), "busy");
    CHECK(busy > 0);
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    do_step(&sleeper, step_attach);
    sleeper.items = 5;
    do_step(&sleeper, step_retire);
    CHECK_UINT(stat_of(pyrt_interp_main(), "busy"), busy);
    end(&sleeper);
    runtime_down();
    CHECK_INT(disposals(), 45);
}

/* A thread that stands still in a pause is nobody's reader, and its queue may be had as well. */
TEST(a_barrier_inside_a_pause_takes_from_all)
{
    actor actors[3] = {{.items = 100, .bytes = 1}, {.items = 300, .bytes = 1}, {.items = 1, .bytes = 1}};
    disposed = 0;
    runtime_up();
    for (int i = 0; i < 3; i++) {
        begin(&actors[i]);
        do_step(&actors[i], step_retire);
        do_step(&actors[i], step_detach);
    }
    CHECK_OK(pyrt_stop_the_world(NULL));
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    CHECK_INT(disposals(), 401);
    pyrt_start_the_world(NULL);
    for (int i = 0; i < 3; i++) {
        end(&actors[i]);
    }
    runtime_down();
}

static int in_disposer;

/* Parks, if a pause is asked for, in the middle of a disposal. */
static void
park(void *p)
{
    count(p);
    pyrt_exchange_seq_cst(&in_disposer, 1);
    WAIT_UNTIL(pyrt_load_seq_cst(&pyrt_thread_current()->slot.flags) & PYRT_FLAG_STOP);
    pyrt_safepoint(pyrt_thread_current());
}

static void
step_dispose_and_park(void *arg)
{
    actor *a = arg;
    CHECK_OK(pyrt_retire(a->thread, NULL, 1, park));
    CHECK_OK(pyrt_retire(a->thread, NULL, 1, count));
    CHECK_UINT(pyrt_process_delayed(a->thread), 2);
    pyrt_detach(a->thread);
}

/* What a thread is disposing of, while it is parked for the caller's own pause, can be neither had nor waited for. */
TEST(a_barrier_inside_a_pause_does_not_wait_for_a_disposer_that_is_parked)
{
    actor disposing = {0};
    disposed = in_disposer = 0;
    runtime_up();
    begin(&disposing);
    worker_begin(&disposing.w, step_dispose_and_park, &disposing);
    WAIT_UNTIL(pyrt_load_seq_cst(&in_disposer));
    CHECK_OK(pyrt_stop_the_world(NULL));
    CHECK_STATUS(pyrt_qsbr_barrier(NULL), PYRT_EDEADLK);
    CHECK_STATUS(pyrt_qsbr_barrier_timed(NULL, 0), PYRT_EDEADLK);
    CHECK_INT(disposals(), 1);
    pyrt_start_the_world(NULL);
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    CHECK_INT(disposals(), 2);
    end(&disposing);
    runtime_down();
}

/* A pause of one interpreter keeps nobody in another from being waited for. */
TEST(a_barrier_of_another_interpreter_inside_a_pause_waits)
{
    actor busy = {.items = 50, .bytes = 1};
    disposed = 0;
    runtime_up();
    busy.interp = pyrt_interp_new(NULL);
    begin(&busy);
    do_step(&busy, step_retire);
    CHECK_OK(pyrt_stop_the_world(pyrt_interp_main()));
    CHECK_STATUS(pyrt_qsbr_barrier_timed(busy.thread, 0), PYRT_ETIMEDOUT);
    do_step(&busy, step_detach);
    CHECK_OK(pyrt_qsbr_barrier(busy.thread));
    CHECK_INT(disposals(), 50);
    pyrt_start_the_world(pyrt_interp_main());
    end(&busy);
    runtime_down();
}

/* ---- asking -------------------------------------------------------------------------------------------------------- */

static void
attached_thread_answers(void (*way)(void *))
{
    actor busy = {.items = 50, .bytes = 1};
    actor waiting = {.timeout_ns = -1};
    disposed = 0;
    runtime_up();
    begin(&busy);
    begin(&waiting);
    do_step(&busy, step_retire);
    watch_sleepers();
    worker_begin(&waiting.w, step_barrier, &waiting);
    WAIT_UNTIL(sleepers() == 1);
    CHECK_INT(disposals(), 0);
    /* Once for its queue; and as a reader it must pass, or be gone, after that too. */
    WAIT_UNTIL((do_step(&busy, way), !worker_is_busy(&waiting.w)));
    CHECK_OK(waiting.status);
    CHECK_INT(disposals(), 50);
    CHECK_PTR(waiting.thread->slot.word & 1 ? waiting.thread : NULL, waiting.thread);
    stop_watching_sleepers();
    end(&busy);
    end(&waiting);
    runtime_down();
}

static void
step_detach_and_attach(void *arg)
{
    step_detach(arg);
    step_attach(arg);
}

TEST(an_attached_thread_hands_over_at_its_safepoint)
{
    attached_thread_answers(step_safepoint);
}

TEST(an_attached_thread_hands_over_when_it_detaches)
{
    attached_thread_answers(step_detach_and_attach);
}

TEST(an_attached_thread_that_ends_is_waited_for)
{
    actor dying = {.items = 50, .bytes = 1};
    actor waiting = {.timeout_ns = -1};
    disposed = 0;
    runtime_up();
    begin(&dying);
    begin(&waiting);
    do_step(&dying, step_retire);
    watch_sleepers();
    worker_begin(&waiting.w, step_barrier, &waiting);
    WAIT_UNTIL(sleepers() == 1);
    end(&dying);
    worker_finish(&waiting.w);
    CHECK_OK(waiting.status);
    CHECK_INT(disposals(), 50);
    stop_watching_sleepers();
    end(&waiting);
    runtime_down();
}

/* Two barriers that are attached when they are called wait for each other's readers too: both are quiescent. */
static void
barrier_often(void *unused, int number)
{
    (void)unused;
    pyrt_thread *thread = number % 2 == 0 ? pyrt_thread_ensure(pyrt_interp_main()) : NULL;
    for (int i = 0; i < 100; i++) {
        CHECK_OK(pyrt_retire(thread, NULL, 1, count));
        CHECK_OK(pyrt_retire_global(NULL, 1, count));
        CHECK_OK(pyrt_qsbr_barrier(thread));
    }
    if (thread != NULL) {
        pyrt_thread_release(thread);
    }
}

TEST(many_barriers_at_once)
{
    disposed = 0;
    runtime_up();
    run_crowd(4, barrier_often, NULL);
    CHECK_UINT(stat_of(pyrt_interp_main(), "barriers"), 400);
    CHECK_INT(disposals(), 800);
    CHECK_UINT(stat_of(pyrt_interp_main(), "pending_items"), 0);
    runtime_down();
}

/* ---- interpreters -------------------------------------------------------------------------------------------------- */

TEST(a_barrier_is_one_interpreters_and_the_global_queues)
{
    actor in_other = {.items = 20, .bytes = 1};
    disposed = 0;
    runtime_up();
    in_other.interp = pyrt_interp_new(NULL);
    begin(&in_other);
    do_step(&in_other, step_retire);
    /* Attached and asleep, but in another interpreter: it holds nothing of the main one up. */
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    CHECK_OK(pyrt_retire(thread, NULL, 1, count));
    CHECK_OK(pyrt_qsbr_barrier(thread));
    CHECK_INT(disposals(), 1);
    CHECK_OK(pyrt_retire_global(NULL, 1, count));
    CHECK_STATUS(pyrt_qsbr_barrier_timed(thread, 0), PYRT_ETIMEDOUT);
    CHECK_INT(disposals(), 1);
    do_step(&in_other, step_detach);
    CHECK_OK(pyrt_qsbr_barrier(thread));
    CHECK_INT(disposals(), 2);
    /* A state of the other interpreter stands for that one, whoever calls. */
    pyrt_thread_release(thread);
    CHECK_OK(pyrt_qsbr_barrier(in_other.thread));
    CHECK_INT(disposals(), 22);
    CHECK_UINT(pyrt_thread_list(in_other.interp, NULL, 0), 1);
    end(&in_other);
    runtime_down();
}

/* ---- time-outs ----------------------------------------------------------------------------------------------------- */

TEST(a_barrier_that_times_out_loses_nothing)
{
    actor stuck = {.items = 30, .bytes = 7};
    actor asleep = {.items = 500, .bytes = 7};
    disposed = 0;
    runtime_up();
    begin(&stuck);
    do_step(&stuck, step_retire);
    begin(&asleep);
    do_step(&asleep, step_retire);
    do_step(&asleep, step_detach);
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    CHECK_OK(pyrt_retire(thread, NULL, 7, count));
    CHECK_OK(pyrt_retire_global(NULL, 7, count));
    const int64_t timeouts[] = {0, 1, 1000000};
    for (int i = 0; i < 3; i++) {
        CHECK_STATUS(pyrt_qsbr_barrier_timed(thread, timeouts[i]), PYRT_ETIMEDOUT);
        CHECK_PTR(pyrt_thread_current(), thread);
        CHECK_INT(disposals(), 0);
        CHECK_UINT(stat_of(pyrt_interp_main(), "pending_items"), 532);
        CHECK_UINT(stat_of(pyrt_interp_main(), "pending_bytes"), 532 * 7);
        CHECK_UINT(stat_of(pyrt_interp_main(), "barriers"), 0);
    }
    CHECK_STATUS(pyrt_qsbr_barrier_timed(NULL, 0), PYRT_ETIMEDOUT);
    /* What was collected is disposed of by whoever processes next, the rest by its owner. */
    do_step(&stuck, step_quiescent);
    (void)pyrt_process_delayed(thread);
    CHECK_INT(disposals(), 501);
    do_step(&stuck, step_detach);
    CHECK_OK(pyrt_qsbr_barrier_timed(thread, -1));
    CHECK_INT(disposals(), 532);
    CHECK_UINT(stat_of(pyrt_interp_main(), "pending_bytes"), 0);
    pyrt_thread_release(thread);
    end(&stuck);
    end(&asleep);
    runtime_down();
}

TEST(a_thread_that_was_asked_in_vain_answers_later)
{
    actor stuck = {.items = 30, .bytes = 7};
    disposed = 0;
    runtime_up();
    begin(&stuck);
    do_step(&stuck, step_retire);
    CHECK_STATUS(pyrt_qsbr_barrier_timed(NULL, 0), PYRT_ETIMEDOUT);
    for (int i = 0; i < 3; i++) {
        do_step(&stuck, step_safepoint);
    }
    CHECK_UINT(stuck.thread->slot.flags & PYRT_FLAG_COLLECT, 0);
    do_step(&stuck, step_detach);
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    CHECK_INT(disposals(), 30);
    end(&stuck);
    runtime_down();
}

/* ---- many batches of nodes ------------------------------------------------------------------------------------------ */

static void
count_node(pyrt_retire_node *node)
{
    count(node);
}

/* A queue keeps a few sealed batches of nodes and then lets the newest take in more. What a barrier waits for must not be put
 * off by what is retired behind it while it waits:
 *
 *      holder  attached, so that the nodes retired before the barrier fill the batches; detaches when it is asked
 *      old     attaches after the barrier has had its queue: the barrier's goal waits for it
 *      young   attaches after that goal was given: later goals wait for it
 */
TEST(nodes_retired_during_a_barrier_do_not_put_it_off)
{
    enum { BEFORE = 3000, DURING = 1000 };
    pyrt_retire_node *nodes = calloc(BEFORE + DURING, sizeof(*nodes));
    actor holder = {0};
    actor old = {0};
    actor young = {0};
    actor waiting = {.timeout_ns = -1};
    disposed = 0;
    runtime_up();
    begin(&waiting);
    do_step(&waiting, step_detach);
    begin(&old);
    do_step(&old, step_detach);
    begin(&young);
    do_step(&young, step_detach);
    begin(&holder);
    for (int i = 0; i < BEFORE; i++) {
        pyrt_retire_node(NULL, &nodes[i], 1, count_node);
    }
    watch_sleepers();
    worker_begin(&waiting.w, step_barrier, &waiting);
    WAIT_UNTIL(sleepers() == 1);
    do_step(&old, step_attach);
    do_step(&holder, step_detach);
    WAIT_UNTIL(pyrt_load_seq_cst(&old.thread->slot.flags) & PYRT_FLAG_WAKE);
    CHECK_INT(disposals(), 0);
    do_step(&young, step_attach);
    for (int i = BEFORE; i < BEFORE + DURING; i++) {
        pyrt_retire_node(NULL, &nodes[i], 1, count_node);
    }
    do_step(&old, step_detach);
    /* It may return now, or wait for the young one as well; but when it returns all of them are gone. */
    WAIT_UNTIL((sched_yield(), do_step(&young, step_quiescent), !worker_is_busy(&waiting.w)));
    CHECK_OK(waiting.status);
    CHECK(waiting.gone >= BEFORE);
    stop_watching_sleepers();
    end(&young);
    end(&old);
    end(&holder);
    end(&waiting);
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    CHECK_INT(disposals(), BEFORE + DURING);
    runtime_down();
    free(nodes);
}

/* ---- short of memory ----------------------------------------------------------------------------------------------- */

static int wanted;

static void
up_with_items(void)
{
    disposed = 0;
    wanted = 0;
    runtime_up();
    /* Provides what an interpreter keeps for the next state. */
    pyrt_thread_delete(pyrt_thread_new(pyrt_interp_main()));
    for (; wanted < 500; wanted++) {
        CHECK_OK(pyrt_retire(NULL, NULL, 1, count));
    }
}

static bool
try_barrier_without_state(void)
{
    size_t live = pyrt_meta_live_bytes();
    pyrt_status status = pyrt_qsbr_barrier(NULL);
    CHECK(status == PYRT_OK || status == PYRT_ENOMEM);
    CHECK_INT(disposals(), status == PYRT_OK ? wanted : 0);
    if (status == PYRT_ENOMEM) {
        CHECK_UINT(pyrt_meta_live_bytes(), live);
        CHECK_UINT(stat_of(pyrt_interp_main(), "pending_items"), wanted);
    }
    CHECK_UINT(pyrt_thread_list(pyrt_interp_main(), NULL, 0), 0);
    return status == PYRT_OK;
}

static void
down_with_everything_gone(bool succeeded)
{
    (void)succeeded;
    runtime_down();
    CHECK_INT(disposals(), wanted);
}

TEST(a_barrier_without_a_state_short_of_memory_loses_nothing)
{
    const fault_plan plan = {up_with_items, try_barrier_without_state, down_with_everything_gone};
    CHECK(fault_everywhere(&plan, FAULT_ONCE) >= 1);
    CHECK(fault_everywhere(&plan, FAULT_FROM_ON) >= 1);
}

/* With memory for the state, nothing else of a barrier asks for any. */
TEST(collecting_and_disposing_need_no_memory)
{
    actor sleeper = {.items = 700, .bytes = 1};
    disposed = 0;
    runtime_up();
    begin(&sleeper);
    do_step(&sleeper, step_retire);
    do_step(&sleeper, step_detach);
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    CHECK_OK(pyrt_retire(thread, NULL, 1, count));
    fault_arm(1, INT32_MAX);
    CHECK_OK(pyrt_qsbr_barrier(thread));
    CHECK_INT(faults_hit(), 0);
    fault_disarm();
    CHECK_INT(disposals(), 701);
    pyrt_thread_release(thread);
    end(&sleeper);
    runtime_down();
}
