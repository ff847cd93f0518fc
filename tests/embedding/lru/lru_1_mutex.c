/* lru_1_mutex.c -- step 1: one lock around each operation. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pyruntime/capi.h>

#include "lru_table.h"

#define LRU_NAME lru_1_mutex
#define LRU_NEEDS_GIL 0
#define LRU_START pyruntime_import

typedef struct lru {
    pyrt_mutex mutex; /* zero is unlocked */
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
    pyrt_mutex_lock(&c->mutex);
    lru_entry *e = table_find(&c->table, key);
    PyObject *value = e == NULL ? NULL : Py_NewRef(e->value);
    pyrt_mutex_unlock(&c->mutex);
    return value;
}

static int
lru_put(lru *c, int64_t key, PyObject *value)
{
    Py_INCREF(value);
    pyrt_mutex_lock(&c->mutex);
    PyObject *displaced = table_put(&c->table, key, value);
    pyrt_mutex_unlock(&c->mutex);
    Py_XDECREF(displaced); /* not before: it may run anything, this function too, which would wait for itself */
    return 0;
}

static size_t
lru_touch(lru *c, const int64_t *keys, size_t n)
{
    size_t found = 0;
    for (size_t i = 0; i < n; i++) {
        pyrt_mutex_lock(&c->mutex);
        found += table_find(&c->table, keys[i]) != NULL;
        pyrt_mutex_unlock(&c->mutex);
    }
    return found;
}

/* Whether there was one to move. Two locks at once are taken in one order everywhere, that of their addresses. */
static int
lru_move_oldest(lru *from, lru *to)
{
    lru *lower = from < to ? from : to;
    lru *higher = from < to ? to : from;
    int64_t key;
    PyObject *displaced = NULL;
    pyrt_mutex_lock(&lower->mutex);
    pyrt_mutex_lock(&higher->mutex);
    PyObject *value = table_pop(&from->table, &key);
    if (value != NULL) {
        displaced = table_put(&to->table, key, value);
    }
    pyrt_mutex_unlock(&higher->mutex);
    pyrt_mutex_unlock(&lower->mutex);
    Py_XDECREF(displaced);
    return value != NULL;
}

static int
lru_drop_oldest(lru *c)
{
    int64_t key;
    pyrt_mutex_lock(&c->mutex);
    PyObject *value = table_pop(&c->table, &key);
    pyrt_mutex_unlock(&c->mutex);
    Py_XDECREF(value);
    return value != NULL;
}

static lru_figures
lru_look(lru *c)
{
    pyrt_mutex_lock(&c->mutex);
    lru_figures now = {c->table.size, c->table.hits, c->table.misses, c->table.evictions};
    pyrt_mutex_unlock(&c->mutex);
    return now;
}

/* Without the lock: whoever changes values has the GIL, or stands still while the collector of a Python without one runs. */
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
