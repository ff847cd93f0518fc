/* lru_drop.h -- Python objects that are given up where nobody may run Python: without the GIL, in a disposer, on any thread.
 *
 * They wait in a stack until somebody comes by with the GIL: the next call that changes a cache, or Python itself between two of its
 * instructions.
 */
#ifndef LRU_DROP_H
#define LRU_DROP_H

#include <pyruntime/capi.h>

typedef struct held {
    struct pyrt_retire_node retired; /* first: a disposer gets its address */
    PyObject *object;
    struct held *next;
} held;

static held *dropped; /* pushed to by compare-and-swap, taken as a whole */

static held *
held_new(PyObject *object)
{
    held *h = pyrt_malloc(sizeof(*h));
    if (h == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    h->object = Py_NewRef(object);
    return h;
}

/* With the GIL, and with no lock of ours: it runs whatever the ends of objects run. */
static int
drop_all(void *unused)
{
    (void)unused;
    /* acquire: pairs with the release below. */
    held *h = pyrt_exchange_acquire(&dropped, (held *)NULL);
    while (h != NULL) {
        held *next = h->next;
        Py_DECREF(h->object);
        pyrt_free(h);
        h = next;
    }
    return 0;
}

/* Without the GIL. */
static void
drop_later(held *h)
{
    held *head = pyrt_load_relaxed(&dropped);
    do {
        h->next = head;
    } while (!pyrt_cas_release(&dropped, &head, h));
    if (head == NULL && Py_IsInitialized()) {
        (void)Py_AddPendingCall(drop_all, NULL); /* there may be no room: the next call of ours looks */
    }
}

#endif
