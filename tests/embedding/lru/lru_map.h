/* lru_map.h -- the same table for readers without a lock. Writers are alone, by a section; readers are attached.
 *
 * What a reader follows, buckets and chains, is written with release. An entry that has been taken out still leads on, to where it led,
 * and is retired. Readers do not move entries: they mark them, and the writer that looks for the oldest gives a marked one a second
 * chance. They count what they found beside each other, not in one place.
 */
#ifndef LRU_MAP_H
#define LRU_MAP_H

#include <pyruntime/capi.h>

#include <stdlib.h>
#include <string.h>

typedef struct lru_figures {
    size_t size, hits, misses, evictions;
} lru_figures;

typedef struct lru_entry {
    struct pyrt_retire_node retired; /* first: a disposer gets its address */
    int64_t key;                     /* never changes */
    void *value;                     /* what that is, the versions say */
    struct lru_entry *chain;         /* in the bucket; readers follow it */
    struct lru_entry *newer, *older; /* the writers' */
    bool used;                       /* since a writer last looked; set by readers, relaxed */
} lru_entry;

enum { COUNTERS = 8 };

typedef struct lru_map {
    pyrt_mutex mutex; /* of the section in which writers are */
    lru_entry **buckets;
    lru_entry ends; /* of the list: ends.newer is the oldest */
    size_t capacity, size, mask, evictions;
    struct {
        size_t hits, misses;
        char apart[112]; /* two threads' are not on one cache line */
    } counters[COUNTERS];
} lru_map;

static bool
map_init(lru_map *m, size_t capacity)
{
    size_t buckets = 1;
    while (buckets < capacity) {
        buckets *= 2;
    }
    m->buckets = calloc(buckets, sizeof(*m->buckets));
    m->ends.newer = m->ends.older = &m->ends;
    m->capacity = capacity;
    m->mask = buckets - 1;
    return m->buckets != NULL;
}

static lru_entry **
map_bucket(lru_map *m, int64_t key)
{
    uint64_t mixed = (uint64_t)key * 0x9E3779B97F4A7C15u;
    return &m->buckets[(mixed >> 32) & m->mask];
}

/* Good until the thread is next quiescent. */
static lru_entry *
map_look(lru_map *m, int64_t key)
{
    lru_entry *e = pyrt_load_acquire(map_bucket(m, key));
    while (e != NULL && e->key != key) {
        e = pyrt_load_acquire(&e->chain);
    }
    return e;
}

static lru_entry *
map_find(lru_map *m, int64_t key)
{
    lru_entry *e = map_look(m, key);
    if (e != NULL && !pyrt_load_relaxed(&e->used)) {
        pyrt_store_relaxed(&e->used, true);
    }
    return e;
}

static void
map_count(lru_map *m, pyrt_thread *thread, size_t hits, size_t misses)
{
    size_t mine = (size_t)thread->index % COUNTERS;
    (void)pyrt_fetch_add_relaxed(&m->counters[mine].hits, hits);
    (void)pyrt_fetch_add_relaxed(&m->counters[mine].misses, misses);
}

static void
map_link_newest(lru_map *m, lru_entry *e)
{
    e->newer = &m->ends;
    e->older = m->ends.older;
    e->older->newer = e->newer->older = e;
}

static void
map_unlink(lru_entry *e)
{
    e->newer->older = e->older;
    e->older->newer = e->newer;
}

/* Takes the oldest entry out that has not been used since it was last looked at; NULL if there is none at all. */
static lru_entry *
map_pop(lru_map *m)
{
    lru_entry *e = m->ends.newer;
    /* Readers may mark faster than we look: everybody has had a second chance after one round. */
    for (size_t n = m->size; n > 0 && pyrt_load_relaxed(&e->used); n--) {
        pyrt_store_relaxed(&e->used, false);
        map_unlink(e);
        map_link_newest(m, e);
        e = m->ends.newer;
    }
    if (e == &m->ends) {
        return NULL;
    }
    lru_entry **link = map_bucket(m, e->key);
    while (*link != e) {
        link = &(*link)->chain;
    }
    pyrt_store_release(link, e->chain); /* and e->chain stays, for readers who are at e */
    map_unlink(e);
    pyrt_store_relaxed(&m->size, m->size - 1);
    return e;
}

/* The entry is complete when readers can find it. */
static void
map_add(lru_map *m, lru_entry *e)
{
    lru_entry **bucket = map_bucket(m, e->key);
    e->used = false;
    e->chain = *bucket;
    pyrt_store_release(bucket, e);
    map_link_newest(m, e);
    pyrt_store_relaxed(&m->size, m->size + 1);
}

static lru_figures
map_figures(lru_map *m)
{
    lru_figures now = {pyrt_load_relaxed(&m->size), 0, 0, pyrt_load_relaxed(&m->evictions)};
    for (int i = 0; i < COUNTERS; i++) {
        now.hits += pyrt_load_relaxed(&m->counters[i].hits);
        now.misses += pyrt_load_relaxed(&m->counters[i].misses);
    }
    return now;
}

#endif
