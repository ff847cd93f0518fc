/* lru_0_single.c -- the cache as it was: it relies on the GIL, and says so. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "lru_table.h"

#define LRU_NAME lru_0_single
#define LRU_NEEDS_GIL 1 /* also in a batch: nobody else may come in between */

typedef lru_table lru;

static bool
lru_init(lru *c, size_t capacity)
{
    return table_init(c, capacity);
}

static PyObject *
lru_get(lru *c, int64_t key)
{
    lru_entry *e = table_find(c, key);
    return e == NULL ? NULL : Py_NewRef(e->value);
}

static int
lru_put(lru *c, int64_t key, PyObject *value)
{
    PyObject *displaced = table_put(c, key, Py_NewRef(value));
    Py_XDECREF(displaced); /* last: it may run anything, this function too */
    return 0;
}

static size_t
lru_touch(lru *c, const int64_t *keys, size_t n)
{
    size_t found = 0;
    for (size_t i = 0; i < n; i++) {
        found += table_find(c, keys[i]) != NULL;
    }
    return found;
}

/* Whether there was one to move. */
static int
lru_move_oldest(lru *from, lru *to)
{
    int64_t key;
    PyObject *value = table_pop(from, &key);
    if (value == NULL) {
        return 0;
    }
    PyObject *displaced = table_put(to, key, value);
    Py_XDECREF(displaced);
    return 1;
}

static int
lru_drop_oldest(lru *c)
{
    int64_t key;
    PyObject *value = table_pop(c, &key);
    Py_XDECREF(value);
    return value != NULL;
}

static lru_figures
lru_look(lru *c)
{
    return (lru_figures){c->size, c->hits, c->misses, c->evictions};
}

static int
lru_traverse(lru *c, visitproc visit, void *arg)
{
    return table_traverse(c, visit, arg);
}

static void
lru_fini(lru *c)
{
    table_fini(c);
}

#include "lru_module.h"
