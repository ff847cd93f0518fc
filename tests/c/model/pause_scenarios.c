/* pause_scenarios.c -- suspend against attach: pauses while others attach, detach and pass safepoints.
 *
 * Each worker marks when it is attached and between safepoints. With the world stopped no mark may be set, and none may
 * come; and everybody must get going again.
 */
#include "machine.h"
#include "shared_item.h"

static uint32_t attached[MODEL_THREADS];

static void
setup(void)
{
    for (int n = 0; n < MODEL_THREADS; n++) {
        attached[n] = 0;
    }
    item_setup();
}

static void
mark(pyrt_thread *self, bool now)
{
    pyrt_store_relaxed(&attached[self->os_id - 1], (uint32_t)now);
}

static void
work(pyrt_thread *self)
{
    mark(self, true);
    mark(self, false);
}

static void
stop_and_start(pyrt_interp *or_null)
{
    MODEL_CHECK(pyrt_stop_the_world(or_null) == PYRT_OK, "a pause without a deadline fails");
    for (int n = 0; n < MODEL_THREADS; n++) {
        MODEL_CHECK(pyrt_load_relaxed(&attached[n]) == 0, "thread %d is attached, and the world is stopped", n);
    }
    pyrt_start_the_world(or_null);
}

/* ---- workers ----------------------------------------------------------------------------------------------------- */

static void
come_and_go(int thread)
{
    pyrt_thread *self = item_thread(thread);
    model_begin();
    pyrt_attach(self);
    work(self);
    pyrt_detach(self);
    model_end();
    pyrt_thread_delete(self);
}

static void
pass_safepoint(int thread)
{
    pyrt_thread *self = item_thread(thread);
    pyrt_attach(self);
    model_begin();
    work(self);
    pyrt_safepoint(self);
    work(self);
    pyrt_detach(self);
    model_end();
    pyrt_thread_delete(self);
}

static void
stop_once(int thread)
{
    (void)thread;
    model_begin();
    stop_and_start(pyrt_interp_main());
    model_end();
}

static void
stop_all_once(int thread)
{
    (void)thread;
    model_begin();
    stop_and_start(NULL);
    model_end();
}

/* ---- scenarios --------------------------------------------------------------------------------------------------- */

static void
attach_body(int thread)
{
    thread == 0 ? come_and_go(thread) : stop_once(thread);
}

static void
safepoint_body(int thread)
{
    thread == 0 ? pass_safepoint(thread) : stop_once(thread);
}

static void
pause_body(int thread)
{
    thread == 0 ? come_and_go(thread) : thread == 1 ? pass_safepoint(thread) : stop_once(thread);
}

static void
global_body(int thread)
{
    thread == 0 ? come_and_go(thread) : stop_all_once(thread);
}

/* Two that want to stop the world at the same time, one of it all. */
static void
gate_body(int thread)
{
    thread == 0 ? come_and_go(thread) : thread == 1 ? stop_once(thread) : stop_all_once(thread);
}

/* The one who stops is attached, and so is the other who stops. */
static void
stop_attached(int thread)
{
    pyrt_thread *self = item_thread(thread);
    pyrt_attach(self);
    model_begin();
    stop_and_start(self->interp);
    work(self);
    pyrt_detach(self);
    model_end();
    pyrt_thread_delete(self);
}

/* Born into a pause, and ending in one. */
static void
birth_body(int thread)
{
    if (thread == 1) {
        stop_once(thread);
        return;
    }
    model_begin();
    pyrt_thread *self = item_thread(thread);
    pyrt_attach(self);
    work(self);
    pyrt_detach(self);
    pyrt_thread_delete(self);
    model_end();
}

/* Pauses one after the other, and one that comes in the middle: it waits for the end of one of them at most. */
static void
come_soon(int thread)
{
    pyrt_thread *self = item_thread(thread);
    model_begin();
    pyrt_attach(self);
    MODEL_CHECK(platform_sleeps(thread) <= 1, "a thread has waited for the end of %d pauses", platform_sleeps(thread));
    pyrt_detach(self);
    model_end();
    pyrt_thread_delete(self);
}

static void
again_body(int thread)
{
    if (thread == 0) {
        come_soon(thread);
        return;
    }
    model_begin();
    stop_and_start(pyrt_interp_main());
    stop_and_start(pyrt_interp_main());
    model_end();
}

static void
none_gone(void)
{
    item_finish(0);
}

const model_scenario model_pause_scenarios[] = {
    {"pause-attach",
     "a pause, and one that attaches and detaches",
     MODEL_ALL,
     setup,
     attach_body,
     none_gone,
     {"worker", "stopper"}},
    {"pause-safepoint",
     "a pause, and one that passes a safepoint",
     MODEL_ALL,
     setup,
     safepoint_body,
     none_gone,
     {"worker", "stopper"}},
    {"pause",
     "a pause, one that attaches and one that passes a safepoint",
     MODEL_ALL,
     setup,
     pause_body,
     none_gone,
     {"visitor", "worker", "stopper"}},
    {"pause-all",
     "a pause of the process, and one that attaches",
     MODEL_ALL,
     setup,
     global_body,
     none_gone,
     {"worker", "stopper"}},
    {"pause-gate",
     "a pause of one interpreter and one of all",
     MODEL_ALL,
     setup,
     gate_body,
     none_gone,
     {"worker", "stopper", "stopper of all"}},
    {"pause-attached", "two that are attached stop the world", MODEL_ALL, setup, stop_attached, none_gone, {"one", "two"}},
    {"pause-birth",
     "a pause while a thread is born and ends",
     MODEL_ALL,
     setup,
     birth_body,
     none_gone,
     {"newborn", "stopper"}},
    {"pause-again",
     "two pauses in a row, and one that attaches",
     MODEL_ALL,
     setup,
     again_body,
     none_gone,
     {"worker", "stopper"}},
    {.name = NULL},
};
