/* thread_slots.c -- bytes of the user's in every thread state, with hooks at its birth and end.
 *
 * The table of slots is the process's and only grows, under its lock, until the runtime ends; the bytes belong to the
 * owner of the state. `slots_live` says which slots of a state have been initialised and want their exit hook.
 */
#include "platform/meta_alloc.h"
#include "platform/raw_mutex.h"
#include "state/thread_impl.h"

#include <string.h>

typedef struct slot_kind {
    pyrt_status (*init)(void *);
    void (*exit)(void *);
    int order;
} slot_kind;

static struct {
    pyrt_raw_mutex lock;
    int count; /* entries below it are complete and do not change */
    slot_kind kinds[PYRT_THREAD_SLOT_MAX];
} table;

enum { BYTES = PYRT_THREAD_SLOT_MAX * PYRT_THREAD_SLOT_SIZE };

PYRT_STATIC_ASSERT(PYRT_THREAD_SLOT_MAX <= 64, "slots_live has a bit for each");

int
pyrt_thread_slot_new(pyrt_status (*init)(void *), void (*exit)(void *), int order)
{
    if (!pyrt_runtime_is_initialized()) {
        return -PYRT_ESTATE;
    }
    pyrt_raw_mutex_lock(&table.lock);
    int slot = -PYRT_EOVERFLOW;
    if (table.count < PYRT_THREAD_SLOT_MAX) {
        slot = table.count;
        table.kinds[slot] = (slot_kind){init, exit, order};
        /* release: pairs with the acquire of the look-ups. */
        pyrt_store_release(&table.count, slot + 1);
    }
    pyrt_raw_mutex_unlock(&table.lock);
    return slot;
}

static unsigned char *
bytes_of(pyrt_thread_impl *thread, int slot)
{
    return thread->slots + (size_t)slot * PYRT_THREAD_SLOT_SIZE;
}

static pyrt_status
init_slot(pyrt_thread_impl *thread, int slot)
{
    if (thread->slots == NULL) {
        thread->slots = pyrt_meta_alloc(BYTES);
    }
    if (thread->slots == NULL) {
        return PYRT_ENOMEM;
    }
    pyrt_status status = PYRT_OK;
    if (table.kinds[slot].init != NULL) {
        /* One that refused before may have written. */
        memset(bytes_of(thread, slot), 0, PYRT_THREAD_SLOT_SIZE);
        status = table.kinds[slot].init(bytes_of(thread, slot));
    }
    if (status == PYRT_OK) {
        thread->slots_live |= (uint64_t)1 << slot;
    }
    return status;
}

void *
pyrt_thread_slot(pyrt_thread *thread, int slot)
{
    pyrt_thread_impl *impl = pyrt_thread_impl_of(thread);
    /* acquire: pairs with the release of pyrt_thread_slot_new. */
    if (slot < 0 || slot >= pyrt_load_acquire(&table.count)) {
        return NULL;
    }
    bool live = (impl->slots_live >> slot) & 1;
    if (!live && (impl->ending || init_slot(impl, slot) != PYRT_OK)) {
        return NULL;
    }
    return bytes_of(impl, slot);
}

pyrt_status
pyrt_slots_init(pyrt_thread_impl *thread)
{
    int count = pyrt_load_acquire(&table.count);
    for (int slot = 0; slot < count; slot++) {
        pyrt_status status = init_slot(thread, slot);
        if (status != PYRT_OK) {
            return status;
        }
    }
    return PYRT_OK;
}

/* The live slot of the lowest order, the oldest of equals; -1 when none is left. */
static int
first_live(pyrt_thread_impl *thread)
{
    int first = -1;
    for (int slot = 0; slot < PYRT_THREAD_SLOT_MAX; slot++) {
        bool live = (thread->slots_live >> slot) & 1;
        if (live && (first < 0 || table.kinds[slot].order < table.kinds[first].order)) {
            first = slot;
        }
    }
    return first;
}

void
pyrt_slots_exit(pyrt_thread_impl *thread)
{
    for (int slot = first_live(thread); slot >= 0; slot = first_live(thread)) {
        thread->slots_live &= ~((uint64_t)1 << slot);
        if (table.kinds[slot].exit != NULL) {
            table.kinds[slot].exit(bytes_of(thread, slot));
        }
    }
}

void
pyrt_slots_free(pyrt_thread_impl *thread)
{
    /* Forgotten before it is freed: a fork in between loses the bytes in the child, which is better than freeing twice. */
    unsigned char *slots = thread->slots;
    thread->slots = NULL;
    thread->slots_live = 0;
    pyrt_meta_free(slots, BYTES);
}

void
pyrt_slots_forget_all(void)
{
    pyrt_store_release(&table.count, 0);
}

void
pyrt_slots_fork_child(void)
{
    pyrt_raw_mutex_reinit(&table.lock);
}
