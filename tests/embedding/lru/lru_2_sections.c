/* lru_2_sections.c -- step 2: critical sections, which no order of locks and no code that comes in between can make wait for ever. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "lru_thread.h"

#include "lru_table.h"

#define LRU_NAME lru_2_sections
#define LRU_NEEDS_GIL 0
#define LRU_START pyruntime_import

typedef struct lru {
    pyrt_mutex mutex;
    lru_table table;
} lru;

static bool
lru_init(lru *c, size_t capacity)
{
    return table_init(&c->table, capacity);
}

static PyObject *
lru_get(lru *c, int64_t key)
{
    lru_visit visit = lru_enter();
    pyrt_thread *thread = visit.thread;
    if (thread == NULL) {
        return PyErr_NoMemory();
    }
    pyrt_critical_section section;
    pyrt_critical_section_begin(&section, &c->mutex);
    lru_entry *e = table_find(&c->table, key);
    PyObject *value = e == NULL ? NULL : Py_NewRef(e->value);
    pyrt_critical_section_end(&section);
    lru_leave(visit);
    return value;
}

static int
lru_put(lru *c, int64_t key, PyObject *value)
{
    lru_visit visit = lru_enter();
    pyrt_thread *thread = visit.thread;
    if (thread == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    pyrt_critical_section section;
    pyrt_critical_section_begin(&section, &c->mutex);
    PyObject *displaced = table_put(&c->table, key, Py_NewRef(value));
    pyrt_critical_section_end(&section);
    lru_leave(visit);
    Py_XDECREF(displaced);
    return 0;
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
        pyrt_critical_section section;
        pyrt_critical_section_begin(&section, &c->mutex);
        found += table_find(&c->table, keys[i]) != NULL;
        pyrt_critical_section_end(&section);
        pyrt_safepoint(thread); /* a pause of the world need not wait for the end of the batch */
    }
    lru_leave(visit);
    return found;
}

/* Whether there was one to move: both caches at once, in whatever order, also when they are one. */
static int
lru_move_oldest(lru *from, lru *to)
{
    lru_visit visit = lru_enter();
    pyrt_thread *thread = visit.thread;
    if (thread == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int64_t key;
    PyObject *displaced = NULL;
    pyrt_critical_section2 section;
    pyrt_critical_section2_begin(&section, &from->mutex, &to->mutex);
    PyObject *value = table_pop(&from->table, &key);
    if (value != NULL) {
        displaced = table_put(&to->table, key, value);
    }
    pyrt_critical_section2_end(&section);
    lru_leave(visit);
    Py_XDECREF(displaced);
    return value != NULL;
}

/* Also at the end of a cache, so it needs no memory: without a thread state a section is a lock. */
static int
lru_drop_oldest(lru *c)
{
    int64_t key;
    pyrt_critical_section section;
    pyrt_critical_section_begin(&section, &c->mutex);
    PyObject *value = table_pop(&c->table, &key);
    pyrt_critical_section_end(&section);
    Py_XDECREF(value);
    return value != NULL;
}

static lru_figures
lru_look(lru *c)
{
    pyrt_critical_section section;
    pyrt_critical_section_begin(&section, &c->mutex);
    lru_figures now = {c->table.size, c->table.hits, c->table.misses, c->table.evictions};
    pyrt_critical_section_end(&section);
    return now;
}

static int
lru_traverse(lru *c, visitproc visit, void *arg)
{
    return table_traverse(&c->table, visit, arg);
}

static void
lru_fini(lru *c)
{
    table_fini(&c->table);
}

#include "lru_module.h"
