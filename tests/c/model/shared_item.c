/* shared_item.c -- see shared_item.h. */
#include "shared_item.h"

#include "platform/meta_alloc.h"

item items[ITEMS];
item *shared;
pyrt_thread *states[MODEL_THREADS];

void
item_setup(void)
{
    for (int n = 0; n < ITEMS; n++) {
        items[n].state = ITEM_FRESH;
    }
    shared = &items[0];
    MODEL_CHECK(pyrt_runtime_init() == PYRT_OK, "the runtime does not come up");
}

void
item_finish(int gone)
{
    MODEL_CHECK(pyrt_runtime_fini() == PYRT_OK, "the runtime does not go down");
    MODEL_CHECK(pyrt_meta_live_bytes() == 0, "%zu bytes are left", pyrt_meta_live_bytes());
    for (int n = 0; n < ITEMS; n++) {
        MODEL_CHECK(items[n].state == (n < gone ? ITEM_GONE : ITEM_FRESH), "item %d %s", n,
                    n < gone ? "has not been disposed of" : "has been disposed of, though it was not retired");
    }
}

pyrt_thread *
item_thread(int thread)
{
    states[thread] = pyrt_thread_new(pyrt_interp_main());
    MODEL_CHECK(states[thread] != NULL, "no thread state");
    return states[thread];
}

void
item_read(pyrt_thread *thread)
{
    pyrt_read_begin(thread);
    item *found = pyrt_load_acquire(&shared);
    MODEL_CHECK(pyrt_load_relaxed(&found->state) == ITEM_FRESH, "thread %d reads item %td, which has been disposed of",
                (int)(thread->os_id - 1), found - items);
    pyrt_read_end(thread);
}

item *
item_unlink(int next)
{
    item *old = pyrt_load_relaxed(&shared);
    pyrt_store_release(&shared, &items[next]);
    return old;
}

void
item_dispose(void *gone)
{
    item *it = gone;
    MODEL_CHECK(pyrt_load_relaxed(&it->state) == ITEM_FRESH, "item %td is disposed of a second time", it - items);
    pyrt_store_relaxed(&it->state, (uint32_t)ITEM_GONE);
}

void
item_dispose_node(pyrt_retire_node *node)
{
    item_dispose(node);
}
