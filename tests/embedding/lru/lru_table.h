/* lru_table.h -- the cache as it was, for one thread at a time: a hash table, a list of entries by their last use, and a free list.
 *
 * It keeps references to Python objects and never runs any of their code: what it gives up it hands back, for the caller to drop.
 */
#ifndef LRU_TABLE_H
#define LRU_TABLE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct lru_figures {
    size_t size, hits, misses, evictions;
} lru_figures;

typedef struct lru_entry {
    int64_t key;
    PyObject *value;
    struct lru_entry *chain; /* in the bucket, or in the free list */
    struct lru_entry *newer, *older; /* by last use */
} lru_entry;

typedef struct lru_table {
    lru_entry *entries; /* all there are */
    lru_entry *free;
    lru_entry **buckets;
    lru_entry used; /* between the oldest, used.newer, and the newest, used.older */
    size_t capacity, size, mask;
    size_t hits, misses, evictions;
} lru_table;

static bool
table_init(lru_table *t, size_t capacity)
{
    size_t buckets = 1;
    while (buckets < capacity) {
        buckets *= 2;
    }
    t->entries = calloc(capacity, sizeof(*t->entries));
    t->buckets = calloc(buckets, sizeof(*t->buckets));
    if (t->entries == NULL || t->buckets == NULL) {
        free(t->entries);
        free(t->buckets);
        t->entries = NULL;
        t->buckets = NULL;
        return false;
    }
    for (size_t i = 0; i < capacity; i++) {
        t->entries[i].chain = t->free;
        t->free = &t->entries[i];
    }
    t->used.newer = t->used.older = &t->used;
    t->capacity = capacity;
    t->mask = buckets - 1;
    return true;
}

static lru_entry **
table_bucket(lru_table *t, int64_t key)
{
    uint64_t mixed = (uint64_t)key * 0x9E3779B97F4A7C15u;
    return &t->buckets[(mixed >> 32) & t->mask];
}

static void
table_unlink(lru_entry *e)
{
    e->newer->older = e->older;
    e->older->newer = e->newer;
}

static void
table_link_newest(lru_table *t, lru_entry *e)
{
    e->newer = &t->used;
    e->older = t->used.older;
    e->older->newer = e->newer->older = e;
}

static lru_entry *
table_look(lru_table *t, int64_t key)
{
    lru_entry *e = *table_bucket(t, key);
    while (e != NULL && e->key != key) {
        e = e->chain;
    }
    return e;
}

/* The entry of a key, which is the newest from now on; NULL if there is none. */
static lru_entry *
table_find(lru_table *t, int64_t key)
{
    lru_entry *e = table_look(t, key);
    if (e == NULL) {
        t->misses++;
        return NULL;
    }
    t->hits++;
    table_unlink(e);
    table_link_newest(t, e);
    return e;
}

/* Takes the oldest entry out. Its value, for the caller to drop or to put elsewhere; NULL if there is none. */
static PyObject *
table_pop(lru_table *t, int64_t *key)
{
    lru_entry *e = t->used.newer;
    if (e == &t->used) {
        return NULL;
    }
    lru_entry **link = table_bucket(t, e->key);
    while (*link != e) {
        link = &(*link)->chain;
    }
    *link = e->chain;
    table_unlink(e);
    t->size--;
    e->chain = t->free;
    t->free = e;
    *key = e->key;
    PyObject *value = e->value;
    e->value = NULL;
    return value;
}

/* Takes over a reference to the value. What had to give way for it, for the caller to drop, or NULL. */
static PyObject *
table_put(lru_table *t, int64_t key, PyObject *value)
{
    PyObject *displaced = NULL;
    lru_entry *e = table_look(t, key);
    if (e != NULL) {
        displaced = e->value;
        e->value = value;
        table_unlink(e);
        table_link_newest(t, e);
        return displaced;
    }
    if (t->size == t->capacity) {
        int64_t oldest;
        displaced = table_pop(t, &oldest);
        t->evictions++;
    }
    e = t->free;
    t->free = e->chain;
    e->key = key;
    e->value = value;
    lru_entry **bucket = table_bucket(t, key);
    e->chain = *bucket;
    *bucket = e;
    table_link_newest(t, e);
    t->size++;
    return displaced;
}

static int
table_traverse(lru_table *t, visitproc visit, void *arg)
{
    for (size_t i = 0; i < t->capacity; i++) {
        Py_VISIT(t->entries[i].value);
    }
    return 0;
}

static void
table_fini(lru_table *t)
{
    free(t->entries);
    free(t->buckets);
}

#endif
