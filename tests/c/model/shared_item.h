/* shared_item.h -- what the scenarios share: a pointer to an item that readers follow without a lock, and the books that
 * are kept about items.
 *
 * A reader checks that the item behind the pointer has not been disposed of while it may look at it. Disposing of an item
 * takes it from fresh to gone, once: doing so twice ends the run, and so does ending with one too few.
 */
#ifndef TESTS_C_MODEL_SHARED_ITEM_H
#define TESTS_C_MODEL_SHARED_ITEM_H

#include "model.h"

#include <pyruntime/pyruntime.h>

enum { ITEMS = 4, ITEM_FRESH = 0, ITEM_GONE = 1 };

typedef struct item {
    pyrt_retire_node node; /* first */
    uint32_t state;
} item;

extern item items[ITEMS];
extern item *shared;

/* Of the scheduled threads, made before model_begin(). */
extern pyrt_thread *states[MODEL_THREADS];

/* The runtime comes up, `shared` points to item 0. */
void item_setup(void);

/* Exactly the items before `gone` have been disposed of, the runtime goes down and leaves nothing behind. */
void item_finish(int gone);

/* Makes the state of a scheduled thread. */
pyrt_thread *item_thread(int thread);

/* Follows the pointer and looks at the item; the thread is attached. */
void item_read(pyrt_thread *thread);

/* Puts another item in the place of the one that is shared, and answers that. A plain store: nothing but the library makes
 * sure that it is seen. */
item *item_unlink(int next);

/* Disposes of an item, or of the one that a node is in. */
void item_dispose(void *gone);
void item_dispose_node(pyrt_retire_node *node);

#endif
