/* lru_3_qsbr.c -- step 3: readers take no lock. What they may be looking at is retired, and goes when they have passed. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "lru_thread.h"

#include "lru_drop.h"
#include "lru_map.h"

#define LRU_NAME lru_3_qsbr
#define LRU_NEEDS_GIL 0
#define LRU_START pyruntime_import

/* The value of an entry is a `held`. */
typedef lru_map lru;

static bool
lru_init(lru *c, size_t capacity)
{
    return map_init(c, capacity);
}

static PyObject *
lru_get(lru *c, int64_t key)
{
    lru_visit visit = lru_enter();
    pyrt_thread *thread = visit.thread;
    if (thread == NULL) {
        return PyErr_NoMemory();
    }
    lru_entry *e = map_find(c, key);
    PyObject *value = NULL;
    if (e != NULL) {
        const held *h = pyrt_load_acquire((held **)&e->value);
        value = Py_NewRef(h->object); /* `h` has a reference, and is not disposed of before we leave */
    }
    map_count(c, thread, e != NULL, e == NULL);
    lru_leave(visit);
    return value;
}

static size_t
lru_touch(lru *c, const int64_t *keys, size_t n)
{
    lru_visit visit = lru_enter();
    pyrt_thread *thread = visit.thread;
    if (thread == NULL) {
        return SIZE_MAX;
    }
    size_t found = 0;
    for (size_t i = 0; i < n; i++) {
        found += map_find(c, keys[i]) != NULL;
        pyrt_safepoint(thread); /* holds no entry here */
    }
    map_count(c, thread, found, n - found);
    lru_leave(visit);
    return found;
}

/* ---- disposing: on any thread, without the GIL --------------------------------------------------------------------- */

static void
dispose_value(struct pyrt_retire_node *node)
{
    drop_later((held *)(void *)node);
}

static void
dispose_entry(struct pyrt_retire_node *node)
{
    lru_entry *e = (lru_entry *)(void *)node;
    drop_later(e->value);
    pyrt_free(e);
}

/* ---- writing: in a section ----------------------------------------------------------------------------------------- */

/* Takes over the two. */
static void
lru_put_held(lru *c, pyrt_thread *thread, lru_entry *fresh, held *value)
{
    lru_entry *e = map_look(c, fresh->key);
    if (e != NULL) {
        held *old = pyrt_exchange_seq_cst((held **)&e->value, value);
        pyrt_retire_node(thread, &old->retired, sizeof(*old), dispose_value);
        pyrt_store_relaxed(&e->used, true);
        pyrt_free(fresh);
        return;
    }
    if (c->size == c->capacity) {
        lru_entry *oldest = map_pop(c);
        pyrt_retire_node(thread, &oldest->retired, sizeof(*oldest), dispose_entry);
        pyrt_store_relaxed(&c->evictions, c->evictions + 1);
    }
    fresh->value = value;
    map_add(c, fresh);
}

/* Out of memory: all as it was. */
static int
lru_give_up(lru_visit visit, lru_entry *fresh, held *value)
{
    lru_leave(visit);
    pyrt_free(fresh);
    if (value != NULL) {
        drop_later(value);
        (void)drop_all(NULL);
    }
    PyErr_NoMemory();
    return -1;
}

static int
lru_put(lru *c, int64_t key, PyObject *object)
{
    lru_entry *fresh = pyrt_malloc(sizeof(*fresh));
    held *value = fresh == NULL ? NULL : held_new(object);
    lru_visit visit = lru_enter();
    pyrt_thread *thread = visit.thread;
    if (value == NULL || thread == NULL) {
        return lru_give_up(visit, fresh, value);
    }
    fresh->key = key;
    pyrt_critical_section section;
    pyrt_critical_section_begin(&section, &c->mutex);
    lru_put_held(c, thread, fresh, value);
    pyrt_critical_section_end(&section);
    pyrt_safepoint(thread); /* disposes of what nobody can be looking at any more */
    lru_leave(visit);
    return drop_all(NULL);
}

static int
lru_move_oldest(lru *from, lru *to)
{
    lru_entry *fresh = pyrt_malloc(sizeof(*fresh));
    held *value = fresh == NULL ? NULL : held_new(Py_None);
    lru_visit visit = lru_enter();
    pyrt_thread *thread = visit.thread;
    if (value == NULL || thread == NULL) {
        return lru_give_up(visit, fresh, value);
    }
    pyrt_critical_section2 section;
    pyrt_critical_section2_begin(&section, &from->mutex, &to->mutex);
    lru_entry *oldest = map_pop(from);
    if (oldest != NULL) {
        /* Readers may be at the old entry: what goes over is a new one, with a reference of its own. */
        PyObject *none = value->object;
        value->object = Py_NewRef(((held *)oldest->value)->object);
        Py_DECREF(none);
        fresh->key = oldest->key;
        pyrt_retire_node(thread, &oldest->retired, sizeof(*oldest), dispose_entry);
        lru_put_held(to, thread, fresh, value);
    }
    pyrt_critical_section2_end(&section);
    pyrt_safepoint(thread);
    lru_leave(visit);
    if (oldest == NULL) {
        drop_later(value);
        pyrt_free(fresh);
    }
    (void)drop_all(NULL);
    return oldest != NULL;
}

/* Also at the end of a cache, so it needs no memory: without a thread state a section is a lock, and retiring a node cannot fail. */
static int
lru_drop_oldest(lru *c)
{
    pyrt_critical_section section;
    pyrt_critical_section_begin(&section, &c->mutex);
    lru_entry *oldest = map_pop(c);
    pyrt_critical_section_end(&section);
    if (oldest != NULL) {
        pyrt_retire_node(NULL, &oldest->retired, sizeof(*oldest), dispose_entry);
    }
    (void)drop_all(NULL);
    return oldest != NULL;
}

static lru_figures
lru_look(lru *c)
{
    return map_figures(c);
}

static int
lru_traverse(lru *c, visitproc visit, void *arg)
{
    for (lru_entry *e = c->ends.newer; e != &c->ends; e = e->newer) {
        Py_VISIT(((held *)e->value)->object);
    }
    return 0;
}

static void
lru_fini(lru *c)
{
    free(c->buckets);
}

#include "lru_module.h"
