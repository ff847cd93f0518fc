/* epoch_scenarios.c -- goals: attach, detach and quiescent states against advance, poll and synchronize.
 *
 * Reader one detaches and attaches again, reader two passes a quiescent state; the writer unlinks, and disposes as soon as it
 * may.
 */
#include "shared_item.h"

/* ---- readers ----------------------------------------------------------------------------------------------------- */

static void
read_once(int thread)
{
    pyrt_thread *self = item_thread(thread);
    model_begin();
    pyrt_attach(self);
    item_read(self);
    pyrt_detach(self);
    model_end();
    pyrt_thread_delete(self);
}

static void
read_and_come_back(int thread)
{
    pyrt_thread *self = item_thread(thread);
    model_begin();
    pyrt_attach(self);
    item_read(self);
    pyrt_detach(self);
    pyrt_attach(self);
    item_read(self);
    pyrt_detach(self);
    model_end();
    pyrt_thread_delete(self);
}

static void
read_and_pass(int thread)
{
    pyrt_thread *self = item_thread(thread);
    model_begin();
    pyrt_attach(self);
    item_read(self);
    pyrt_qsbr_quiescent_state(self);
    item_read(self);
    pyrt_detach(self);
    model_end();
    pyrt_thread_delete(self);
}

/* ---- polling ----------------------------------------------------------------------------------------------------- */

/* Attached, because then nothing that it does for the statistics is a locked instruction: the advance is the one barrier
 * between unlinking and looking at the readers. Asks twice while the others run, and once more when they are gone. */
static void
write_and_poll(int thread)
{
    enum { POLLS = 2 };
    pyrt_thread *self = item_thread(thread);
    bool reached = false;
    pyrt_attach(self);
    model_begin();
    item *old = item_unlink(1);
    uint64_t goal = pyrt_qsbr_advance(self->interp);
    pyrt_qsbr_quiescent_state(self);
    for (int n = 0; n < POLLS && !reached; n++) {
        reached = pyrt_qsbr_poll(self, goal);
    }
    if (reached) {
        item_dispose(old);
    }
    model_end();
    if (!reached) {
        MODEL_CHECK(pyrt_qsbr_poll(self, goal), "the readers are gone, and the goal is not reached");
        item_dispose(old);
    }
    pyrt_detach(self);
    pyrt_thread_delete(self);
}

static void
poll_body(int thread)
{
    if (thread == 0) {
        read_and_come_back(thread);
    }
    else if (thread == 1) {
        read_and_pass(thread);
    }
    else {
        write_and_poll(thread);
    }
}

static void
one_gone(void)
{
    item_finish(1);
}

/* ---- polling for a goal that another thread has got -------------------------------------------------------------- */

static uint64_t handed_goal;

static void
hand_setup(void)
{
    handed_goal = 0;
    item_setup();
}

/* The writer only unlinks; whoever finds the goal polls and disposes. */
static void
hand_body(int thread)
{
    if (thread == 0) {
        read_once(thread);
    }
    else if (thread == 1) {
        model_begin();
        (void)item_unlink(1);
        pyrt_store_release(&handed_goal, pyrt_qsbr_advance(pyrt_interp_main()));
        model_end();
    }
    else {
        model_begin();
        uint64_t goal = pyrt_load_acquire(&handed_goal);
        bool reached = goal != 0 && pyrt_qsbr_poll(NULL, goal);
        if (reached) {
            item_dispose(&items[0]);
        }
        model_end();
        if (!reached) {
            item_dispose(&items[0]);
        }
    }
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static void
write_and_wait(int thread)
{
    pyrt_thread *self = item_thread(thread);
    model_begin();
    item *old = item_unlink(1);
    MODEL_CHECK(pyrt_qsbr_synchronize(self) == PYRT_OK, "synchronize without a deadline fails");
    item_dispose(old);
    model_end();
    pyrt_thread_delete(self);
}

/* Neither reader comes back: a wake-up that one of them forgets is lost for good. */
static void
synchronize_body(int thread)
{
    if (thread == 0) {
        read_once(thread);
    }
    else if (thread == 1) {
        read_and_pass(thread);
    }
    else {
        write_and_wait(thread);
    }
}

/* Two that are attached wait for each other, and both get on. */
static void
synchronize_both_body(int thread)
{
    pyrt_thread *self = item_thread(thread);
    model_begin();
    pyrt_attach(self);
    item_read(self);
    MODEL_CHECK(pyrt_qsbr_synchronize(self) == PYRT_OK, "synchronize without a deadline fails");
    item_read(self);
    pyrt_detach(self);
    model_end();
    pyrt_thread_delete(self);
}

static void
none_gone(void)
{
    item_finish(0);
}

const model_scenario model_epoch_scenarios[] = {
    {"poll",
     "two readers, one who unlinks, polls and disposes",
     MODEL_ALL,
     item_setup,
     poll_body,
     one_gone,
     {"reader", "passer", "writer"}},
    {"poll-elsewhere",
     "the one who polls is not the one who unlinked",
     MODEL_ALL,
     hand_setup,
     hand_body,
     one_gone,
     {"reader", "writer", "poller"}},
    {"synchronize",
     "two readers, one who unlinks and sleeps until he may dispose",
     MODEL_ALL,
     item_setup,
     synchronize_body,
     one_gone,
     {"reader", "passer", "writer"}},
    {"synchronize-both",
     "two that are attached wait for each other",
     MODEL_ALL,
     item_setup,
     synchronize_both_body,
     none_gone,
     {"one", "two"}},
    {.name = NULL},
};
