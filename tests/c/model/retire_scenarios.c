/* retire_scenarios.c -- retired items: the own queue at safepoints, what ended threads leave behind, and barriers that take
 * the queues of detached threads while these attach and retire.
 */
#include "shared_item.h"

/* Alone enough to get a goal at once. */
enum { MUCH = 64 * 1024, LITTLE = 16 };

static void
retire(pyrt_thread *or_null, item *old, size_t bytes)
{
    pyrt_status status = pyrt_retire(or_null, old, bytes, item_dispose);
    MODEL_CHECK(status == PYRT_OK, "retiring answers with status %d", (int)status);
}

/* Replaces the shared item for certain, also if another one does so at the same time. */
static item *
exchange(int next)
{
    return pyrt_exchange_seq_cst(&shared, &items[next]);
}

/* ---- at safepoints ----------------------------------------------------------------------------------------------- */

static void
reader_body(int thread)
{
    pyrt_thread *self = item_thread(thread);
    model_begin();
    pyrt_attach(self);
    item_read(self);
    pyrt_safepoint(self);
    item_read(self);
    pyrt_detach(self);
    model_end();
    pyrt_thread_delete(self);
}

static void
visitor_body(int thread)
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
safepoint_body(int thread)
{
    if (thread == 0) {
        visitor_body(thread);
        return;
    }
    if (thread == 1) {
        reader_body(thread);
        return;
    }
    pyrt_thread *self = item_thread(thread);
    pyrt_attach(self);
    model_begin();
    retire(self, item_unlink(1), MUCH);
    pyrt_safepoint(self);
    item_read(self);
    pyrt_safepoint(self);
    model_end();
    pyrt_detach(self);
    pyrt_thread_delete(self);
}

static void
one_gone(void)
{
    item_finish(1);
}

/* Two that read, replace and retire, each the other's reader. */
static void
both_body(int thread)
{
    pyrt_thread *self = item_thread(thread);
    pyrt_attach(self);
    model_begin();
    item_read(self);
    retire(self, exchange(thread + 1), MUCH);
    pyrt_safepoint(self);
    pyrt_detach(self);
    model_end();
    pyrt_thread_delete(self);
}

/* The one that is shared in the end stays. */
static void
all_but_the_shared_gone(void)
{
    int last = (int)(shared - items);
    item swap = items[last];
    items[last] = items[2];
    items[2] = swap;
    item_finish(2);
}

/* ---- orphans ----------------------------------------------------------------------------------------------------- */

/* One ends with something retired, one has no state at all; a third works off what they leave, a reader looks on. */
static void
orphans_body(int thread)
{
    if (thread == 0) {
        visitor_body(thread);
        return;
    }
    if (thread == 1) {
        pyrt_thread *self = item_thread(thread);
        model_begin();
        retire(self, exchange(1), LITTLE);
        pyrt_thread_delete(self);
        model_end();
        return;
    }
    pyrt_thread *self = item_thread(thread);
    model_begin();
    (void)pyrt_process_delayed(self);
    model_end();
    (void)pyrt_process_delayed(self);
    MODEL_CHECK(items[0].state == ITEM_GONE, "nobody has disposed of what an ended thread left");
    pyrt_thread_delete(self);
}

static void
stateless_body(int thread)
{
    if (thread == 1) {
        model_begin();
        retire(NULL, item_unlink(1), LITTLE);
        model_end();
        return;
    }
    orphans_body(thread);
}

/* ---- two interpreters -------------------------------------------------------------------------------------------- */

static pyrt_interp *other;

static void
global_setup(void)
{
    item_setup();
    other = pyrt_interp_new(NULL);
    MODEL_CHECK(other != NULL, "no second interpreter");
}

/* A reader in each interpreter, and what is retired waits for both. */
static void
global_body(int thread)
{
    if (thread == 0) {
        visitor_body(thread);
        return;
    }
    pyrt_thread *self = pyrt_thread_new(thread == 1 ? other : pyrt_interp_main());
    MODEL_CHECK(self != NULL, "no thread state");
    model_begin();
    if (thread == 1) {
        pyrt_attach(self);
        item_read(self);
        pyrt_detach(self);
    }
    else {
        MODEL_CHECK(pyrt_retire_global(item_unlink(1), LITTLE, item_dispose) == PYRT_OK, "retiring fails");
        (void)pyrt_process_delayed(self);
    }
    model_end();
    pyrt_thread_delete(self);
}

static void
global_finish(void)
{
    MODEL_CHECK(pyrt_interp_delete(other) == PYRT_OK, "the second interpreter does not end");
    item_finish(1);
}

/* ---- barriers ---------------------------------------------------------------------------------------------------- */

static uint32_t retired; /* bit n: item n was retired before */

static void
barrier_setup(void)
{
    retired = 0;
    item_setup();
}

static void
barrier_after_others(pyrt_thread *self)
{
    uint32_t before = pyrt_load_acquire(&retired);
    MODEL_CHECK(pyrt_qsbr_barrier(self) == PYRT_OK, "a barrier without a deadline fails");
    for (int n = 0; n < ITEMS; n++) {
        MODEL_CHECK(((before >> n) & 1) == 0 || pyrt_load_relaxed(&items[n].state) == ITEM_GONE,
                    "item %d was retired before the barrier and is there after it", n);
    }
}

static void
retire_and_say(pyrt_thread *self, int n)
{
    retire(self, &items[n], LITTLE);
    (void)pyrt_fetch_or_seq_cst(&retired, (uint32_t)1 << n);
}

/* Retires by the node in the item, detaches and does not come back. */
static void
retire_and_sleep(int thread, int n)
{
    pyrt_thread *self = item_thread(thread);
    model_begin();
    pyrt_attach(self);
    pyrt_retire_node(self, &items[n].node, LITTLE, item_dispose_node);
    (void)pyrt_fetch_or_seq_cst(&retired, (uint32_t)1 << n);
    pyrt_detach(self);
    model_end();
    pyrt_thread_delete(self);
}

/* Comes back just when its queue is being taken. */
static void
retire_and_come_back(int thread, int first)
{
    pyrt_thread *self = item_thread(thread);
    pyrt_attach(self);
    retire(self, &items[first], LITTLE);
    retired |= 1u << first;
    pyrt_detach(self);
    model_begin();
    pyrt_attach(self);
    retire_and_say(self, first + 1);
    pyrt_detach(self);
    model_end();
    pyrt_thread_delete(self);
}

static void
barrier_once(int thread)
{
    pyrt_thread *self = item_thread(thread);
    model_begin();
    barrier_after_others(self);
    model_end();
    pyrt_thread_delete(self);
}

static void
borrow_body(int thread)
{
    if (thread == 0) {
        retire_and_come_back(thread, 0);
    }
    else {
        barrier_once(thread);
    }
}

static void
two_gone(void)
{
    item_finish(2);
}

/* As above, with a second thread that detaches and sleeps. */
static void
borrow_two_body(int thread)
{
    if (thread == 0) {
        retire_and_come_back(thread, 0);
    }
    else if (thread == 1) {
        retire_and_sleep(thread, 2);
    }
    else {
        barrier_once(thread);
    }
}

static void
three_gone(void)
{
    item_finish(3);
}

/* Two barriers, one of them by a thread that has retired itself. */
static void
barriers_body(int thread)
{
    if (thread != 0) {
        barrier_once(thread);
        return;
    }
    pyrt_thread *self = item_thread(thread);
    model_begin();
    pyrt_attach(self);
    retire_and_say(self, 0);
    pyrt_safepoint(self);
    pyrt_detach(self);
    model_end();
    pyrt_thread_delete(self);
}

/* A thread is born, retires and ends while the barrier collects. */
static void
birth_body(int thread)
{
    if (thread == 1) {
        barrier_once(thread);
        return;
    }
    model_begin();
    pyrt_thread *self = item_thread(thread);
    pyrt_attach(self);
    retire_and_say(self, 0);
    pyrt_detach(self);
    pyrt_thread_delete(self);
    model_end();
}

const model_scenario model_retire_scenarios[] = {
    {"safepoint",
     "two readers, one who retires and passes safepoints",
     MODEL_ALL,
     item_setup,
     safepoint_body,
     one_gone,
     {"visitor", "reader", "writer"}},
    {"retire-both",
     "two that retire, read and pass safepoints",
     MODEL_ALL,
     item_setup,
     both_body,
     all_but_the_shared_gone,
     {"one", "two"}},
    {"orphans",
     "one ends with something retired, another works it off",
     MODEL_ALL,
     item_setup,
     orphans_body,
     one_gone,
     {"reader", "ender", "worker"}},
    {"stateless",
     "one without a state retires, another works it off",
     MODEL_ALL,
     item_setup,
     stateless_body,
     one_gone,
     {"reader", "retirer", "worker"}},
    {"global",
     "one retires for two interpreters with a reader each",
     MODEL_ALL,
     global_setup,
     global_body,
     global_finish,
     {"reader here", "reader there", "writer"}},
    {"borrow",
     "a barrier, and one that attaches and retires just then",
     MODEL_ALL,
     barrier_setup,
     borrow_body,
     two_gone,
     {"retirer", "barrier"}},
    {"borrow-two",
     "a barrier over one that comes back and one that sleeps",
     0,
     barrier_setup,
     borrow_two_body,
     three_gone,
     {"retirer", "sleeper", "barrier"}},
    {"barriers",
     "two barriers over one that passes a safepoint",
     0,
     barrier_setup,
     barriers_body,
     one_gone,
     {"retirer", "barrier 1", "barrier 2"}},
    {"birth",
     "a barrier while a thread is born, retires and ends",
     0,
     barrier_setup,
     birth_body,
     one_gone,
     {"newborn", "barrier"}},
    {.name = NULL},
};
