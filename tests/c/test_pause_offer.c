/* test_pause_offer.c -- a requester that has stopped the world and does not come back from its host's block hook (block.h):
 * who waits for the end of its pause cancels it, and if it comes back after all it asks again.
 */
#include "support.h"

#include "steps.h"
#include "workers.h"

/* ---- a host that keeps threads in its hook ------------------------------------------------------------------------- */

static __thread bool is_kept;

static struct {
    int asleep;
    int inside;
    int may_leave;
    bool ends;
} hook;

static void *
before(void)
{
    pyrt_fetch_add_seq_cst(&hook.asleep, (int)is_kept);
    return NULL;
}

static void
after(void *saved)
{
    (void)saved;
    if (!is_kept) {
        return;
    }
    pyrt_fetch_add_seq_cst(&hook.inside, 1);
    WAIT_UNTIL(pyrt_load_seq_cst(&hook.may_leave));
    if (hook.ends) {
        pthread_exit(NULL);
    }
}

static void
hooks_up(void)
{
    hook.asleep = hook.inside = hook.may_leave = 0;
    hook.ends = false;
    pyrt_set_block_hooks(&(pyrt_block_hooks){before, after});
}

static void
keep_and_stop(void *call)
{
    is_kept = true;
    stop_as_called(call);
}

/* ---- a requester, and one who is in its way until it has to sleep -------------------------------------------------- */

typedef struct scene {
    worker requester, other;
    pyrt_thread *thread; /* the other's */
    pause_call call;
} scene;

/* Until the world is stopped and the requester in the hook. */
static void
scene_begin(scene *s, pyrt_interp *interp)
{
    s->call = (pause_call){.interp = interp, .timeout_ns = -1};
    worker_start(&s->requester);
    worker_start(&s->other);
    worker_do(&s->other, attach_new, &s->thread);
    hooks_up();
    worker_begin(&s->requester, keep_and_stop, &s->call);
    WAIT_UNTIL(pyrt_load_seq_cst(&hook.asleep) == 1);
    pyrt_thread *mine = pyrt_thread_new(pyrt_interp_main());
    CHECK_STATUS(pyrt_attach_timed(mine, 1000000, 0), PYRT_ETIMEDOUT);
    worker_do(&s->other, detach, s->thread);
    WAIT_UNTIL(pyrt_load_seq_cst(&hook.inside) == 1);
    CHECK(!pyrt_world_is_stopped(pyrt_interp_main()));
    /* Not the moment it comes. */
    CHECK_STATUS(pyrt_attach_timed(mine, 0, 0), PYRT_ETIMEDOUT);
    worker_begin(&s->other, attach, s->thread);
    pyrt_attach(mine);
    worker_finish(&s->other);
    pyrt_detach(mine);
    pyrt_thread_delete(mine);
}

static void
scene_end(scene *s)
{
    pyrt_set_block_hooks(NULL);
    worker_do(&s->other, delete_attached, s->thread);
    worker_end(&s->other);
    worker_end(&s->requester);
}

TEST(who_waits_to_attach_cancels_it_and_the_requester_asks_again)
{
    for (int everything = 0; everything < 2; everything++) {
        scene s;
        runtime_up();
        scene_begin(&s, everything ? NULL : pyrt_interp_main());
        worker_do(&s.other, detach, s.thread);
        pyrt_store_release(&hook.may_leave, 1);
        worker_finish(&s.requester);
        CHECK_OK(s.call.status);
        CHECK_UINT(s.call.report.stopped, 1);
        CHECK(pyrt_world_is_stopped(s.call.interp));
        CHECK_STATUS(pyrt_stop_the_world_timed(NULL, 0, NULL), PYRT_ETIMEDOUT);
        worker_do(&s.requester, start_as_called, &s.call);
        worker_do(&s.other, attach, s.thread);
        scene_end(&s);
        runtime_down();
    }
}

TEST(another_request_gets_its_turn)
{
    for (int everything = 0; everything < 2; everything++) {
        scene s;
        runtime_up();
        scene_begin(&s, everything ? NULL : pyrt_interp_main());
        worker_do(&s.other, detach, s.thread);
        for (int i = 0; i < 3; i++) {
            CHECK_OK(pyrt_stop_the_world(i % 2 == 0 ? NULL : pyrt_interp_main()));
            pyrt_start_the_world(i % 2 == 0 ? NULL : pyrt_interp_main());
        }
        /* It comes back into the pause of another, and waits for its turn. */
        CHECK_OK(pyrt_stop_the_world(NULL));
        pyrt_store_release(&hook.may_leave, 1);
        CHECK(worker_is_busy(&s.requester));
        pyrt_start_the_world(NULL);
        worker_finish(&s.requester);
        CHECK_OK(s.call.status);
        worker_do(&s.requester, start_as_called, &s.call);
        worker_do(&s.other, attach, s.thread);
        scene_end(&s);
        runtime_down();
    }
}

/* Alone in the queue: nobody waits to attach. */
TEST(who_waits_for_a_pause_of_its_own_cancels_it)
{
    for (int everything = 0; everything < 2; everything++) {
        scene s;
        runtime_up();
        s.call = (pause_call){.interp = everything ? NULL : pyrt_interp_main(), .timeout_ns = -1};
        worker_start(&s.requester);
        worker_start(&s.other);
        worker_do(&s.other, attach_new, &s.thread);
        hooks_up();
        worker_begin(&s.requester, keep_and_stop, &s.call);
        WAIT_UNTIL(pyrt_load_seq_cst(&hook.asleep) == 1);
        CHECK_STATUS(pyrt_stop_the_world_timed(NULL, 1000000, NULL), PYRT_ETIMEDOUT);
        worker_do(&s.other, detach, s.thread);
        WAIT_UNTIL(pyrt_load_seq_cst(&hook.inside) == 1);
        CHECK_OK(pyrt_stop_the_world(NULL));
        pyrt_start_the_world(NULL);
        pyrt_store_release(&hook.may_leave, 1);
        worker_finish(&s.requester);
        CHECK_OK(s.call.status);
        worker_do(&s.requester, start_as_called, &s.call);
        worker_do(&s.other, attach, s.thread);
        scene_end(&s);
        runtime_down();
    }
}

TEST(a_requester_that_ends_after_its_pause_was_cancelled_opens_no_gate_of_another)
{
    scene s;
    runtime_up();
    scene_begin(&s, NULL);
    worker_do(&s.other, detach, s.thread);
    CHECK_OK(pyrt_stop_the_world(pyrt_interp_main()));
    hook.ends = true;
    pyrt_store_release(&hook.may_leave, 1);
    worker_join_exited(&s.requester);
    CHECK(pyrt_world_is_stopped(pyrt_interp_main()));
    worker_start(&s.requester);
    s.call = (pause_call){.timeout_ns = 1000};
    worker_do(&s.requester, stop_as_called, &s.call);
    CHECK_STATUS(s.call.status, PYRT_ETIMEDOUT);
    pyrt_start_the_world(pyrt_interp_main());
    worker_do(&s.requester, stop_as_called, &s.call);
    CHECK_OK(s.call.status);
    worker_do(&s.requester, start_as_called, &s.call);
    worker_do(&s.other, attach, s.thread);
    scene_end(&s);
    runtime_down();
}
