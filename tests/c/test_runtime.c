/* test_runtime.c -- counted init and fini, and what keeps the runtime from ending (thread.h, "the runtime"). */
#include "support.h"

#include "faults.h"
#include "platform/meta_alloc.h"
#include "state/thread_impl.h"
#include "workers.h"

/* ---- casting, which everything else rests on ---------------------------------------------------------------------- */

TEST(casting_between_public_and_private_thread_is_the_identity)
{
    CHECK_UINT(offsetof(pyrt_thread_impl, base), 0);
    runtime_up();
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    pyrt_thread_impl *impl = pyrt_thread_impl_of(thread);
    CHECK_PTR(impl, thread);
    CHECK_PTR(&impl->base, thread);
    CHECK_PTR(pyrt_thread_impl_of(&impl->base), impl);
    CHECK_PTR(&thread->slot, thread);
    CHECK_UINT((uintptr_t)thread % 64, 0);
    pyrt_thread_delete(thread);
    runtime_down();
}

/* ---- init and fini ----------------------------------------------------------------------------------------------- */

TEST(init_is_counted)
{
    CHECK(!pyrt_runtime_is_initialized());
    for (int i = 0; i < 3; i++) {
        CHECK_OK(pyrt_runtime_init());
        CHECK(pyrt_runtime_is_initialized());
    }
    pyrt_interp *main = pyrt_interp_main();
    for (int i = 0; i < 2; i++) {
        CHECK_OK(pyrt_runtime_fini());
        CHECK_PTR(pyrt_interp_main(), main);
    }
    CHECK_OK(pyrt_runtime_fini());
    CHECK(!pyrt_runtime_is_initialized());
}

TEST(fini_without_init_is_refused)
{
    CHECK_STATUS(pyrt_runtime_fini(), PYRT_ESTATE);
    runtime_up();
    runtime_down();
    CHECK_STATUS(pyrt_runtime_fini(), PYRT_ESTATE);
}

TEST(can_be_initialised_again)
{
    for (int i = 0; i < 20; i++) {
        runtime_up();
        CHECK_INT(pyrt_interp_id(pyrt_interp_main()), 0);
        pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
        CHECK(thread != NULL);
        CHECK_INT(thread->index, 0);
        pyrt_thread_release(thread);
        runtime_down();
    }
}

TEST(init_gives_the_memory_of_the_time_before_back)
{
    runtime_up();
    pyrt_interp *more[20];
    for (int i = 0; i < 20; i++) {
        more[i] = pyrt_interp_new(NULL);
        CHECK(more[i] != NULL);
    }
    CHECK(pyrt_meta_live_bytes() > 0);
    /* Interpreters that nobody deleted end with the runtime. */
    runtime_down();
}

TEST(fini_is_busy_while_a_thread_state_remains)
{
    runtime_up();
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    CHECK_STATUS(pyrt_runtime_fini(), PYRT_EBUSY);
    CHECK(pyrt_runtime_is_initialized());
    pyrt_attach(thread);
    CHECK_STATUS(pyrt_runtime_fini(), PYRT_EBUSY);
    CHECK_PTR(pyrt_thread_current(), thread);
    pyrt_detach(thread);
    pyrt_thread_delete(thread);
    runtime_down();
}

TEST(fini_that_was_busy_has_counted_nothing)
{
    runtime_up();
    runtime_up();
    CHECK_OK(pyrt_runtime_fini());
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    CHECK_STATUS(pyrt_runtime_fini(), PYRT_EBUSY);
    CHECK_STATUS(pyrt_runtime_fini(), PYRT_EBUSY);
    /* Everything still works: new threads and new interpreters too. */
    pyrt_interp *other = pyrt_interp_new(NULL);
    CHECK(other != NULL);
    pyrt_thread *second = pyrt_thread_new(other);
    CHECK(second != NULL);
    pyrt_thread_delete(second);
    pyrt_thread_delete(thread);
    runtime_down();
}

TEST(fini_is_busy_while_a_thread_state_of_another_interpreter_remains)
{
    runtime_up();
    pyrt_interp *first = pyrt_interp_new(NULL);
    pyrt_interp *second = pyrt_interp_new(NULL);
    pyrt_thread *thread = pyrt_thread_new(second);
    CHECK_STATUS(pyrt_runtime_fini(), PYRT_EBUSY);
    /* The interpreters that were looked at before that one are not left half ended. */
    pyrt_thread *in_main = pyrt_thread_new(pyrt_interp_main());
    pyrt_thread *in_first = pyrt_thread_new(first);
    CHECK(in_main != NULL && in_first != NULL);
    pyrt_thread_delete(in_first);
    pyrt_thread_delete(in_main);
    pyrt_thread_delete(thread);
    runtime_down();
}

TEST(fini_is_busy_while_a_pin_remains)
{
    runtime_up();
    pyrt_interp *pinned = pyrt_interp_pin(0);
    CHECK_PTR(pinned, pyrt_interp_main());
    CHECK_STATUS(pyrt_runtime_fini(), PYRT_EBUSY);
    pyrt_interp_unpin(pinned);
    runtime_down();
}

/* ---- fini disposes ----------------------------------------------------------------------------------------------- */

static int disposed;

static void
count(void *p)
{
    (void)p;
    disposed++;
}

TEST(the_last_fini_disposes_of_all_that_is_retired)
{
    disposed = 0;
    runtime_up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    pyrt_thread *thread = pyrt_thread_ensure(other);
    for (int i = 0; i < 500; i++) {
        CHECK_OK(pyrt_retire(thread, &disposed, 1, count));
        CHECK_OK(pyrt_retire_global(&disposed, 1, count));
    }
    pyrt_thread_release(thread);
    for (int i = 0; i < 500; i++) {
        CHECK_OK(pyrt_retire(NULL, &disposed, 1, count));
    }
    runtime_up();
    CHECK_OK(pyrt_runtime_fini());
    CHECK(disposed <= 500);
    runtime_down();
    CHECK_INT(disposed, 1500);
}

static pyrt_status status_in_disposer[3];
static pyrt_interp *interp_in_disposer;

/* What a disposer sees in the last fini: a runtime that is ending. */
static void
try_the_runtime(void *p)
{
    count(p);
    status_in_disposer[0] = pyrt_runtime_init();
    status_in_disposer[1] = pyrt_runtime_fini();
    interp_in_disposer = pyrt_interp_new(NULL);
    CHECK(pyrt_thread_new(pyrt_interp_main()) == NULL);
    CHECK(pyrt_thread_ensure(pyrt_interp_main()) == NULL);
    CHECK(pyrt_interp_pin(0) == NULL);
}

TEST(while_the_last_fini_is_under_way_nothing_new_begins)
{
    disposed = 0;
    runtime_up();
    CHECK_OK(pyrt_retire(NULL, NULL, 1, try_the_runtime));
    runtime_down();
    CHECK_INT(disposed, 1);
    CHECK_STATUS(status_in_disposer[0], PYRT_ESTATE);
    CHECK_STATUS(status_in_disposer[1], PYRT_ESTATE);
    CHECK_PTR(interp_in_disposer, NULL);
}

static int generations;

static void
retire_the_next_generation(void *p)
{
    disposed++;
    if (--generations > 0) {
        CHECK_OK(pyrt_retire(NULL, p, 1, retire_the_next_generation));
    }
}

TEST(fini_disposes_of_what_its_disposers_retire)
{
    disposed = 0;
    generations = 5;
    runtime_up();
    CHECK_OK(pyrt_retire(NULL, NULL, 1, retire_the_next_generation));
    runtime_down();
    CHECK_INT(disposed, 5);
}

static bool go_on;

static void
retire_for_ever(void *p)
{
    disposed++;
    if (go_on) {
        pyrt_retire(NULL, p, 1, retire_for_ever);
    }
}

TEST(fini_is_busy_if_disposal_keeps_retiring)
{
    go_on = true;
    runtime_up();
    CHECK_OK(pyrt_retire(NULL, NULL, 1, retire_for_ever));
    CHECK_STATUS(pyrt_runtime_fini(), PYRT_EBUSY);
    CHECK(pyrt_runtime_is_initialized());
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    CHECK(thread != NULL);
    pyrt_thread_delete(thread);
    go_on = false;
    runtime_down();
}

/* ---- races ------------------------------------------------------------------------------------------------------- */

static void
init_and_fini(void *unused, int number)
{
    (void)unused;
    random_stream choices = random_for((uint64_t)number);
    for (int i = 0; i < 300; i++) {
        pyrt_status status;
        /* ESTATE only while another thread's last fini is under way. */
        do {
            status = pyrt_runtime_init();
        } while (status == PYRT_ESTATE);
        CHECK_OK(status);
        CHECK(pyrt_runtime_is_initialized());
        if (random_below(&choices, 2) == 0) {
            pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
            CHECK(thread != NULL);
            pyrt_thread_release(thread);
        }
        /* EBUSY cannot come: whoever is the last to count down has seen the others' states deleted. */
        CHECK_OK(pyrt_runtime_fini());
    }
}

TEST(many_threads_init_and_fini)
{
    run_crowd(4, init_and_fini, NULL);
    CHECK(!pyrt_runtime_is_initialized());
}

static void
be_born_and_die(void *stop)
{
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    CHECK(thread != NULL);
    pyrt_exchange_seq_cst((int *)stop, 1);
    pyrt_safepoint(thread);
    pyrt_thread_release(thread);
}

/* The moment in which the last state is gone is the earliest in which fini may succeed and free everything: the ending
 * thread must not touch its interpreter any more. The waiting synchronize makes it have something to do to the last. */
TEST(fini_races_with_the_end_of_the_last_thread)
{
    for (int i = 0; i < 400; i++) {
        int alive = 0;
        worker w;
        runtime_up();
        worker_start(&w);
        worker_begin(&w, be_born_and_die, &alive);
        WAIT_UNTIL(pyrt_load_seq_cst(&alive));
        CHECK_OK(pyrt_qsbr_synchronize(NULL));
        pyrt_status status;
        do {
            status = pyrt_runtime_fini();
        } while (status == PYRT_EBUSY);
        CHECK_OK(status);
        worker_end(&w);
        CHECK_UINT(pyrt_meta_live_bytes(), 0);
    }
}

/* ---- short of memory --------------------------------------------------------------------------------------------- */

static void
nothing(void)
{
}

static bool
try_init(void)
{
    pyrt_status status = pyrt_runtime_init();
    CHECK(status == PYRT_OK || status == PYRT_ENOMEM);
    CHECK(pyrt_runtime_is_initialized() == (status == PYRT_OK));
    CHECK((pyrt_interp_main() != NULL) == (status == PYRT_OK));
    return status == PYRT_OK;
}

static void
fini_if(bool succeeded)
{
    if (succeeded) {
        runtime_down();
        return;
    }
    CHECK_STATUS(pyrt_runtime_fini(), PYRT_ESTATE);
}

TEST(init_short_of_memory_changes_nothing)
{
    const fault_plan plan = {nothing, try_init, fini_if};
    CHECK(fault_everywhere(&plan, FAULT_ONCE) >= 1);
    CHECK(fault_everywhere(&plan, FAULT_FROM_ON) >= 1);
}
