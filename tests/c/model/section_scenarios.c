/* section_scenarios.c -- critical sections: against each other in crossed order, and against a pause.
 *
 * --break sections puts plain locks in their place, which deadlock, and stay locked in a world that stands still.
 */
#include "machine.h"
#include "shared_item.h"

#include "sync/waiting.h"

static pyrt_mutex mutexes[2];
static uint32_t counts[2];

static void
setup(void)
{
    for (int n = 0; n < 2; n++) {
        mutexes[n] = (pyrt_mutex)PYRT_MUTEX_INIT;
        counts[n] = 0;
    }
    /* The first one registers with the kernel. */
    (void)pyrt_waiter_barrier();
    item_setup();
}

static void
begin(pyrt_critical_section *section, int n)
{
    if (model_broken == MODEL_BREAK_SECTIONS) {
        pyrt_mutex_lock(&mutexes[n]);
        return;
    }
    pyrt_critical_section_begin(section, &mutexes[n]);
}

static void
end(pyrt_critical_section *section, int n)
{
    if (model_broken == MODEL_BREAK_SECTIONS) {
        pyrt_mutex_unlock(&mutexes[n]);
        return;
    }
    pyrt_critical_section_end(section);
}

static void
count(int n)
{
    pyrt_store_relaxed(&counts[n], pyrt_load_relaxed(&counts[n]) + 1);
}

/* ---- in crossed order ---------------------------------------------------------------------------------------------- */

static void
cross_body(int thread)
{
    pyrt_thread *self = item_thread(thread);
    pyrt_critical_section outer;
    pyrt_critical_section inner;
    pyrt_attach(self);
    model_begin();
    begin(&outer, thread);
    begin(&inner, 1 - thread);
    count(1 - thread);
    end(&inner, 1 - thread);
    count(thread);
    end(&outer, thread);
    model_end();
    pyrt_detach(self);
    pyrt_thread_delete(self);
}

static void
all_counted(void)
{
    MODEL_CHECK(counts[0] == 2 && counts[1] == 2, "counted %u and %u", counts[0], counts[1]);
    MODEL_CHECK(mutexes[0].state == 0 && mutexes[1].state == 0, "a mutex stays locked");
    item_finish(0);
}

/* ---- suspended by a pause -------------------------------------------------------------------------------------------- */

static void
work_in_section(int thread)
{
    pyrt_thread *self = item_thread(thread);
    pyrt_critical_section section;
    pyrt_attach(self);
    model_begin();
    begin(&section, 0);
    pyrt_safepoint(self);
    count(0);
    end(&section, 0);
    pyrt_detach(self);
    model_end();
    pyrt_thread_delete(self);
}

static void
look_while_still(int thread)
{
    (void)thread;
    model_begin();
    MODEL_CHECK(pyrt_stop_the_world(pyrt_interp_main()) == PYRT_OK, "a pause without a deadline fails");
    MODEL_CHECK(pyrt_load_relaxed(&mutexes[0].state) != PYRT_MUTEX_LOCKED, "a section holds its mutex in a still world");
    pyrt_start_the_world(pyrt_interp_main());
    model_end();
}

static void
pause_body(int thread)
{
    thread == 0 ? work_in_section(thread) : look_while_still(thread);
}

static void
one_counted(void)
{
    MODEL_CHECK(counts[0] == 1 && mutexes[0].state == 0, "counted %u, the mutex is %u", counts[0], mutexes[0].state);
    item_finish(0);
}

const model_scenario model_section_scenarios[] = {
    {"section-cross",
     "two that nest two sections, each in its own order",
     MODEL_ALL,
     setup,
     cross_body,
     all_counted,
     {"one", "two"}},
    {"section-pause",
     "a pause, and one that passes a safepoint in a section",
     MODEL_ALL,
     setup,
     pause_body,
     one_counted,
     {"worker", "stopper"}},
    {.name = NULL},
};
