/* lru_4_objects.c -- step 4: values are objects of ours, with biased counts. Who has a reference may keep it, without the GIL, attached
 * or not; a value is replaced in its place, and needs no retiring.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "lru_thread.h"

#include "lru_drop.h"
#include "lru_map.h"

#define LRU_NAME lru_4_objects
#define LRU_NEEDS_GIL 0
#define LRU_START start

/* The value of an entry is a slot with a reference to a `box`. */
typedef lru_map lru;

typedef struct box {
    pyrt_object base; /* first: the header, with the count */
    held *held;
} box;

static pyrt_type *box_type;

/* On whichever thread drops the last reference, without the GIL. */
static void
box_dealloc(pyrt_object *dying)
{
    held *value = ((box *)(void *)dying)->held;
    if (value != NULL) { /* it has been made */
        drop_later(value);
    }
}

static int
start(void)
{
    if (pyruntime_import() != 0) {
        return -1;
    }
    const pyrt_type_spec spec = {
        .struct_size = sizeof(spec), .name = "lru.box", .basic_size = sizeof(box), .dealloc = box_dealloc};
    if (box_type == NULL && (box_type = pyrt_type_new(pyrt_interp_main(), &spec)) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static bool
lru_init(lru *c, size_t capacity)
{
    return map_init(c, capacity);
}

static pyrt_object **
slot_of(lru_entry *e)
{
    return (pyrt_object **)&e->value;
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
        /* As in step 3: the box may be replaced, and its memory used again, but not while this thread may look at it. */
        pyrt_object *found = pyrt_load_ref(slot_of(e));
        value = Py_NewRef(((box *)(void *)found)->held->object);
        pyrt_decref(found);
    }
    map_count(c, thread, e != NULL, e == NULL);
    lru_leave(visit);
    return value;
}

/* A batch without the GIL: only the list at the end needs it. The references are kept over safepoints, and when it is detached. */
static PyObject *
lru_get_many(lru *c, const int64_t *keys, Py_ssize_t n)
{
    pyrt_object **found = pyrt_calloc((size_t)n, sizeof(*found));
    if (found == NULL) {
        return PyErr_NoMemory();
    }
    PyThreadState *python = PyEval_SaveThread();
    lru_visit visit = lru_enter();
    pyrt_thread *thread = visit.thread;
    size_t hits = 0;
    for (Py_ssize_t i = 0; thread != NULL && i < n; i++) {
        lru_entry *e = map_find(c, keys[i]);
        if (e != NULL) {
            found[i] = pyrt_load_ref(slot_of(e));
            hits++;
        }
        pyrt_safepoint(thread);
    }
    if (thread != NULL) {
        map_count(c, thread, hits, (size_t)n - hits);
    }
    lru_leave(visit);
    PyEval_RestoreThread(python);
    PyObject *values = thread == NULL ? PyErr_NoMemory() : PyList_New(n);
    for (Py_ssize_t i = 0; i < n; i++) {
        if (values != NULL) {
            PyList_SET_ITEM(values, i, Py_NewRef(found[i] == NULL ? Py_None : ((box *)(void *)found[i])->held->object));
        }
        pyrt_xdecref(found[i]);
    }
    pyrt_free(found);
    (void)drop_all(NULL);
    return values;
}
#define LRU_GET_MANY

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
        pyrt_safepoint(thread);
    }
    map_count(c, thread, found, n - found);
    lru_leave(visit);
    return found;
}

static void
dispose_entry(struct pyrt_retire_node *node)
{
    lru_entry *e = (lru_entry *)(void *)node;
    pyrt_store_ref(slot_of(e), NULL);
    pyrt_free(e);
}

/* Takes over the two. */
static void
lru_put_box(lru *c, pyrt_thread *thread, lru_entry *fresh, pyrt_object *value)
{
    lru_entry *e = map_look(c, fresh->key);
    if (e != NULL) {
        pyrt_store_ref(slot_of(e), value); /* whoever has the old one keeps it */
        pyrt_store_relaxed(&e->used, true);
        pyrt_free(fresh);
        return;
    }
    if (c->size == c->capacity) {
        lru_entry *oldest = map_pop(c);
        pyrt_retire_node(thread, &oldest->retired, sizeof(*oldest), dispose_entry);
        pyrt_store_relaxed(&c->evictions, c->evictions + 1);
    }
    fresh->value = NULL;
    pyrt_store_ref(slot_of(fresh), value);
    map_add(c, fresh);
}

static int
lru_put(lru *c, int64_t key, PyObject *object)
{
    lru_visit visit = lru_enter();
    pyrt_thread *thread = visit.thread;
    lru_entry *fresh = thread == NULL ? NULL : pyrt_malloc(sizeof(*fresh));
    box *value = fresh == NULL ? NULL : (box *)(void *)pyrt_object_new(thread, box_type);
    if (value == NULL || (value->held = held_new(object)) == NULL) {
        goto no_memory;
    }
    fresh->key = key;
    pyrt_critical_section section;
    pyrt_critical_section_begin(&section, &c->mutex);
    lru_put_box(c, thread, fresh, &value->base);
    pyrt_critical_section_end(&section);
    pyrt_safepoint(thread);
    lru_leave(visit);
    return drop_all(NULL);

no_memory:
    if (value != NULL) {
        pyrt_decref(&value->base);
    }
    pyrt_free(fresh);
    lru_leave(visit);
    PyErr_NoMemory();
    return -1;
}

/* The value goes over as it is, by one reference more. */
static int
lru_move_oldest(lru *from, lru *to)
{
    lru_entry *fresh = pyrt_malloc(sizeof(*fresh));
    lru_visit visit = lru_enter();
    pyrt_thread *thread = visit.thread;
    if (fresh == NULL || thread == NULL) {
        lru_leave(visit);
        pyrt_free(fresh);
        PyErr_NoMemory();
        return -1;
    }
    pyrt_critical_section2 section;
    pyrt_critical_section2_begin(&section, &from->mutex, &to->mutex);
    lru_entry *oldest = map_pop(from);
    if (oldest != NULL) {
        fresh->key = oldest->key;
        pyrt_object *value = pyrt_load_ref(slot_of(oldest));
        pyrt_retire_node(thread, &oldest->retired, sizeof(*oldest), dispose_entry);
        lru_put_box(to, thread, fresh, value);
    }
    pyrt_critical_section2_end(&section);
    pyrt_safepoint(thread);
    lru_leave(visit);
    if (oldest == NULL) {
        pyrt_free(fresh);
    }
    (void)drop_all(NULL);
    return oldest != NULL;
}

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
        Py_VISIT(((box *)e->value)->held->object);
    }
    return 0;
}

static void
lru_fini(lru *c)
{
    free(c->buckets);
}

#include "lru_module.h"
