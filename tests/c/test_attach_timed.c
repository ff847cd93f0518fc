/* test_attach_timed.c -- attaching within a time, and until a signal comes: what is given up leaves everything as it was
 * (pyrt_attach_timed and pyrt_thread_ensure_timed of thread.h).
 */
#include "support.h"

#include "faults.h"
#include "platform/meta_alloc.h"
#include "state/thread_impl.h"
#include "steps.h"
#include "workers.h"

#include <signal.h>
#include <string.h>

enum { SHORT_NS = 300000 };

/* ---- led threads ------------------------------------------------------------------------------------------------- */

typedef struct attach_call {
    pyrt_interp *interp; /* of an ensure */
    pyrt_thread *thread; /* to be attached, or what the ensure answered */
    int64_t timeout_ns;
    unsigned flags;
    pyrt_status status;
} attach_call;

static void
attach_as_called(void *arg)
{
    attach_call *call = arg;
    call->status = pyrt_attach_timed(call->thread, call->timeout_ns, call->flags);
}

static void
ensure_as_called(void *arg)
{
    attach_call *call = arg;
    call->status = pyrt_thread_ensure_timed(call->interp, call->timeout_ns, call->flags, &call->thread);
}

static void
release_state(void *thread)
{
    pyrt_thread_release(thread);
}

static void
on_signal(int number)
{
    (void)number;
}

/* ---- attach ------------------------------------------------------------------------------------------------------ */

TEST(where_nothing_is_in_the_way_it_is_attach)
{
    const int64_t timeouts[] = {0, 1, SHORT_NS, -1};
    runtime_up();
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    for (size_t i = 0; i < 4; i++) {
        CHECK_OK(pyrt_attach_timed(thread, timeouts[i], i % 2 == 0 ? 0 : PYRT_LOCK_INTERRUPTIBLE));
        CHECK_PTR(pyrt_thread_current(), thread);
        CHECK_UINT(pyrt_tls()->self_id, thread->self_id);
        pyrt_detach(thread);
        CHECK(pyrt_tryattach(thread));
        CHECK_PTR(pyrt_thread_current(), thread);
        CHECK(!pyrt_tryattach(thread));
        pyrt_detach(thread);
    }
    pyrt_thread_delete(thread);
    runtime_down();
}

TEST(wrong_use_is_answered_and_reported)
{
    runtime_up();
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    CHECK_STATUS(pyrt_attach_timed(thread, -1, PYRT_LOCK_NO_DETACH), PYRT_EINVAL);
    pyrt_attach(thread);
    CHECK_STATUS(pyrt_attach_timed(thread, -1, 0), PYRT_ESTATE);
    EXPECT_REPORT("pyrt_attach", named(thread), "attached already");
    pyrt_detach(thread);
    pyrt_thread_delete(thread);
    CHECK_STATUS(pyrt_attach_timed(thread, -1, 0), PYRT_ESTATE);
    EXPECT_REPORT("pyrt_attach", "ended");
    runtime_down();
}

/* Until the world is started, and after it is over. */
TEST(time_runs_out)
{
    const int64_t timeouts[] = {0, 1, SHORT_NS};
    worker w;
    attach_call call = {0};
    runtime_up();
    worker_start(&w);
    worker_do(&w, make_state, &call.thread);
    CHECK_OK(pyrt_stop_the_world(NULL));
    for (size_t i = 0; i < 3; i++) {
        call.timeout_ns = timeouts[i];
        worker_do(&w, attach_as_called, &call);
        CHECK_STATUS(call.status, PYRT_ETIMEDOUT);
        /* It does not wait any more. */
        CHECK_UINT(call.thread->slot.word, PYRT_STATE_SUSPENDED);
    }
    pyrt_start_the_world(NULL);
    CHECK_INT(pyrt_load_relaxed(&pyrt_thread_impl_of(call.thread)->turn_until), 0);
    CHECK_INT(state_of(call.thread), PYRT_STATE_DETACHED);
    worker_do(&w, attach_as_called, &call);
    CHECK_OK(call.status);
    worker_do(&w, delete_attached, call.thread);
    worker_end(&w);
    runtime_down();
}

TEST(the_world_is_started_in_time)
{
    worker w;
    attach_call call = {.timeout_ns = INT64_MAX};
    runtime_up();
    worker_start(&w);
    worker_do(&w, make_state, &call.thread);
    CHECK_OK(pyrt_stop_the_world(NULL));
    watch_sleepers();
    worker_begin(&w, attach_as_called, &call);
    WAIT_UNTIL(sleepers() == 1);
    pyrt_start_the_world(NULL);
    worker_finish(&w);
    stop_watching_sleepers();
    CHECK_OK(call.status);
    worker_do(&w, delete_attached, call.thread);
    worker_end(&w);
    runtime_down();
}

TEST(a_signal_ends_it_if_it_may)
{
    const int flags[] = {0, SA_RESTART};
    for (int i = 0; i < 2; i++) {
        struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags[i]};
        CHECK_INT(sigaction(SIGUSR1, &action, NULL), 0);
        worker w, stays;
        attach_call call = {.timeout_ns = -1, .flags = PYRT_LOCK_INTERRUPTIBLE};
        attach_call staying = {.timeout_ns = -1};
        runtime_up();
        worker_start(&w);
        worker_start(&stays);
        worker_do(&w, make_state, &call.thread);
        worker_do(&stays, make_state, &staying.thread);
        CHECK_OK(pyrt_stop_the_world(NULL));
        watch_sleepers();
        worker_begin(&w, attach_as_called, &call);
        worker_begin(&stays, attach_as_called, &staying);
        WAIT_UNTIL(sleepers() == 2);
        /* One that comes before the sleep is not noticed. */
        WAIT_UNTIL((pthread_kill(w.thread, SIGUSR1), pthread_kill(stays.thread, SIGUSR1), !worker_is_busy(&w)));
        worker_finish(&w);
        CHECK_STATUS(call.status, PYRT_EINTR);
        CHECK(worker_is_busy(&stays));
        pyrt_start_the_world(NULL);
        worker_finish(&stays);
        stop_watching_sleepers();
        CHECK_OK(staying.status);
        CHECK_INT(state_of(call.thread), PYRT_STATE_DETACHED);
        worker_do(&w, delete_state, call.thread);
        worker_do(&stays, delete_attached, staying.thread);
        worker_end(&w);
        worker_end(&stays);
        runtime_down();
    }
}

/* ---- ensure ------------------------------------------------------------------------------------------------------ */

static int slot_hooks[2];

static pyrt_status
count_init(void *bytes)
{
    (void)bytes;
    slot_hooks[0]++;
    return PYRT_OK;
}

static void
count_exit(void *bytes)
{
    (void)bytes;
    slot_hooks[1]++;
}

TEST(an_ensure_that_gives_up_leaves_no_state_behind)
{
    worker w;
    attach_call call = {.timeout_ns = SHORT_NS};
    memset(slot_hooks, 0, sizeof(slot_hooks));
    runtime_up();
    pyrt_interp *main = call.interp = pyrt_interp_main();
    CHECK(pyrt_thread_slot_new(count_init, count_exit, 0) >= 0);
    worker_start(&w);
    CHECK_OK(pyrt_stop_the_world(NULL));
    for (int i = 1; i <= 3; i++) {
        worker_do(&w, ensure_as_called, &call);
        CHECK_STATUS(call.status, PYRT_ETIMEDOUT);
        CHECK_PTR(call.thread, NULL);
        CHECK_UINT(pyrt_thread_list(main, NULL, 0), 0);
        CHECK_INT(slot_hooks[0], i);
        CHECK_INT(slot_hooks[1], i);
    }
    pyrt_start_the_world(NULL);
    worker_do(&w, ensure_as_called, &call);
    CHECK_OK(call.status);
    CHECK_INT(state_of(call.thread), PYRT_STATE_ATTACHED);
    worker_do(&w, release_state, call.thread);
    CHECK_UINT(pyrt_thread_list(main, NULL, 0), 0);
    worker_end(&w);
    runtime_down();
}

TEST(an_ensure_that_gives_up_attaches_again_what_it_found)
{
    worker w;
    pyrt_thread *found;
    runtime_up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    attach_call call = {.interp = other, .timeout_ns = SHORT_NS};
    worker_start(&w);
    worker_do(&w, attach_new, &found);
    CHECK_OK(pyrt_stop_the_world(other));
    worker_do(&w, ensure_as_called, &call);
    CHECK_STATUS(call.status, PYRT_ETIMEDOUT);
    CHECK_INT(state_of(found), PYRT_STATE_ATTACHED);
    pyrt_start_the_world(other);
    worker_do(&w, ensure_as_called, &call);
    CHECK_OK(call.status);
    CHECK_INT(state_of(found), PYRT_STATE_DETACHED);
    worker_do(&w, release_state, call.thread);
    CHECK_INT(state_of(found), PYRT_STATE_ATTACHED);
    worker_do(&w, delete_attached, found);
    worker_end(&w);
    CHECK_OK(pyrt_interp_delete(other));
    runtime_down();
}

TEST(an_ensure_says_why_not)
{
    pyrt_thread *thread = (void *)&thread;
    CHECK_STATUS(pyrt_thread_ensure_timed(NULL, 0, 0, &thread), PYRT_ESTATE);
    CHECK_PTR(thread, NULL);
    runtime_up();
    pyrt_interp *main = pyrt_interp_main();
    CHECK_STATUS(pyrt_thread_ensure_timed(main, 0, PYRT_LOCK_NO_DETACH, &thread), PYRT_EINVAL);
    pyrt_interp *other = pyrt_interp_new(NULL);
    CHECK_OK(pyrt_thread_ensure_timed(main, 0, 0, &thread));
    pyrt_thread *second;
    pyrt_read_begin_counted(thread);
    CHECK_STATUS(pyrt_thread_ensure_timed(other, 0, 0, &second), PYRT_ESTATE);
    EXPECT_REPORT("pyrt_thread_ensure", named(thread), "read-side section");
    pyrt_read_end_counted(thread);
    fault_arm(1, INT32_MAX);
    CHECK_STATUS(pyrt_thread_ensure_timed(other, 0, 0, &second), PYRT_ENOMEM);
    fault_disarm();
    CHECK_PTR(second, NULL);
    CHECK_PTR(pyrt_thread_current(), thread);
    pyrt_thread_release(thread);
    CHECK_OK(pyrt_interp_delete(other));
    runtime_down();
}

/* ---- a look at the heap while states come and go ------------------------------------------------------------------- */

enum { BLOCKS = 300, LOOKS = 200, GUESTS = 3 };

static int looks_over;

static void
come_in_vain(void *interp, int number)
{
    if (number == 0) {
        return;
    }
    while (!pyrt_load_acquire(&looks_over)) {
        pyrt_thread *thread;
        if (pyrt_thread_ensure_timed(interp, number * 1000, 0, &thread) == PYRT_OK) {
            pyrt_thread_release(thread);
        }
    }
}

static bool
count_block(void *block, size_t size, uint8_t tag, void *arg)
{
    (void)block;
    (void)size;
    (void)tag;
    ++*(int *)arg;
    return true;
}

typedef struct housed {
    pyrt_interp *interp;
    pyrt_heap *heap;
    pyrt_thread *thread;
    void *blocks[BLOCKS];
} housed;

static void
fill(void *arg)
{
    housed *house = arg;
    house->thread = pyrt_thread_new(house->interp);
    pyrt_attach(house->thread);
    for (int i = 0; i < BLOCKS; i++) {
        house->blocks[i] = pyrt_heap_malloc(house->thread, house->heap, 64);
        CHECK(house->blocks[i] != NULL);
    }
    pyrt_detach(house->thread);
}

static void
empty(void *arg)
{
    housed *house = arg;
    pyrt_attach(house->thread);
    for (int i = 0; i < BLOCKS; i++) {
        pyrt_free(house->blocks[i]);
    }
    pyrt_detach(house->thread);
    pyrt_thread_delete(house->thread);
}

static void
look_or_come(void *interp, int number)
{
    come_in_vain(interp, number);
    for (int i = 0; number == 0 && i < LOOKS; i++) {
        int found = 0;
        CHECK_OK(pyrt_stop_the_world(interp));
        CHECK_OK(pyrt_heap_visit(interp, UINT32_MAX, count_block, &found));
        pyrt_start_the_world(interp);
        CHECK_INT(found, 2 * BLOCKS);
    }
    if (number == 0) {
        pyrt_store_release(&looks_over, 1);
    }
}

TEST(the_heap_is_looked_at_while_states_give_up)
{
    worker older, younger;
    housed houses[2];
    runtime_up();
    pyrt_interp *main = pyrt_interp_main();
    looks_over = 0;
    pyrt_heap *heap = pyrt_heap_new(main, &(pyrt_heap_config){.struct_size = sizeof(pyrt_heap_config), .tag = 1});
    CHECK(heap != NULL);
    houses[0] = houses[1] = (housed){.interp = main, .heap = heap};
    worker_start(&older);
    worker_start(&younger);
    worker_do(&older, fill, &houses[0]);
    worker_do(&younger, fill, &houses[1]);
    run_crowd(1 + GUESTS, look_or_come, main);
    CHECK_UINT(pyrt_thread_list(main, NULL, 0), 2);
    worker_do(&older, empty, &houses[0]);
    worker_do(&younger, empty, &houses[1]);
    worker_end(&older);
    worker_end(&younger);
    pyrt_heap_delete(heap);
    runtime_down();
}

/* ---- what stands on it: a barrier ---------------------------------------------------------------------------------- */

typedef struct barrier_call {
    pyrt_thread *or_null;
    int64_t timeout_ns;
    pyrt_status status;
} barrier_call;

static void
barrier_as_called(void *arg)
{
    barrier_call *call = arg;
    call->status = pyrt_qsbr_barrier_timed(call->or_null, call->timeout_ns);
}

TEST(a_barrier_keeps_its_time_while_the_world_is_stopped)
{
    worker w;
    barrier_call call = {.timeout_ns = SHORT_NS};
    runtime_up();
    worker_start(&w);
    CHECK_OK(pyrt_stop_the_world(NULL));
    worker_do(&w, barrier_as_called, &call);
    CHECK_STATUS(call.status, PYRT_ETIMEDOUT);
    pyrt_start_the_world(NULL);
    CHECK_UINT(pyrt_thread_list(pyrt_interp_main(), NULL, 0), 0);
    call.timeout_ns = -1;
    worker_do(&w, barrier_as_called, &call);
    CHECK_OK(call.status);
    worker_end(&w);
    runtime_down();
}

static worker at_the_end;

static void
ask_for_a_barrier(void *p)
{
    worker_do(&at_the_end, barrier_as_called, p);
}

TEST(a_barrier_of_an_interpreter_that_is_ending_says_so)
{
    barrier_call call = {.timeout_ns = -1};
    worker_start(&at_the_end);
    runtime_up();
    CHECK_OK(pyrt_retire(NULL, &call, 1, ask_for_a_barrier));
    runtime_down();
    CHECK_STATUS(call.status, PYRT_ESTATE);
    worker_end(&at_the_end);
}
