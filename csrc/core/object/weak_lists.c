/* weak_lists.c -- see weak_lists.h. */
#include "object/weak_lists.h"

#include "platform/meta_alloc.h"

enum { STRIPES_LOG2 = 7, STRIPES = 1 << STRIPES_LOG2, LEAST_BUCKETS = 8, BUCKET = sizeof(void *) };

struct PYRT_ALIGNED(64) pyrt_weak_stripe {
    pyrt_raw_mutex lock;
    uint32_t lists;         /* in the hash table */
    uint32_t mask;          /* buckets - 1 */
    pyrt_weakref **buckets; /* NULL: there is only `one` */
    pyrt_weakref *one;
};

static pyrt_weak_stripe stripes[STRIPES];

/* Its top bits choose the stripe, others the bucket. */
static uint64_t
hash_of(const pyrt_object *object)
{
    return (uint64_t)(uintptr_t)object * 0x9E3779B97F4A7C15u;
}

pyrt_weak_stripe *
pyrt_weak_lock(const pyrt_object *object)
{
    pyrt_weak_stripe *chosen = &stripes[hash_of(object) >> (64 - STRIPES_LOG2)];
    pyrt_raw_mutex_lock(&chosen->lock);
    return chosen;
}

void
pyrt_weak_unlock(pyrt_weak_stripe *locked)
{
    pyrt_raw_mutex_unlock(&locked->lock);
}

void
pyrt_weak_each_lock(void (*fn)(pyrt_raw_mutex *))
{
    for (size_t i = 0; i < STRIPES; i++) {
        fn(&stripes[i].lock);
    }
}

/* ---- the hash table of a stripe ---------------------------------------------------------------------------------- */

static pyrt_weakref **
bucket_of(pyrt_weak_stripe *locked, const pyrt_object *object)
{
    return locked->buckets == NULL ? &locked->one : &locked->buckets[(hash_of(object) >> 24) & locked->mask];
}

static size_t
bucket_count(const pyrt_weak_stripe *locked)
{
    return locked->buckets == NULL ? 1 : (size_t)locked->mask + 1;
}

pyrt_weakref **
pyrt_weak_place(pyrt_weak_stripe *locked, const pyrt_object *object)
{
    size_t offset = object->type->weaklist_offset;
    if (offset != 0) {
        return (pyrt_weakref **)((uintptr_t)object + offset);
    }
    pyrt_weakref **place = bucket_of(locked, object);
    while (*place != NULL && (*place)->key != object) {
        place = &(*place)->chain;
    }
    return place;
}

static void
move_lists(pyrt_weak_stripe *locked, pyrt_weakref **from, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        while (from[i] != NULL) {
            pyrt_weakref *first = from[i];
            pyrt_weakref **bucket = bucket_of(locked, first->key);
            from[i] = first->chain;
            first->chain = *bucket;
            *bucket = first;
        }
    }
}

/* When chains get long. Without memory they grow longer instead. */
static void
grow(pyrt_weak_stripe *locked)
{
    size_t old_count = bucket_count(locked);
    if (locked->lists <= 2 * old_count) {
        return;
    }
    size_t count = old_count < LEAST_BUCKETS ? LEAST_BUCKETS : old_count * 4;
    pyrt_weakref **buckets = pyrt_meta_alloc(count * BUCKET);
    if (buckets == NULL) {
        return;
    }
    pyrt_weakref **old = locked->buckets == NULL ? &locked->one : locked->buckets;
    locked->buckets = buckets;
    locked->mask = (uint32_t)count - 1;
    move_lists(locked, old, old_count);
    if (old != &locked->one) {
        pyrt_meta_free(old, old_count * BUCKET);
    }
}

/* When it is empty, so that nothing is left when the runtime ends. */
static void
give_back(pyrt_weak_stripe *locked)
{
    if (locked->lists == 0 && locked->buckets != NULL) {
        pyrt_meta_free(locked->buckets, bucket_count(locked) * BUCKET);
        locked->buckets = NULL;
    }
}

/* ---- a list ------------------------------------------------------------------------------------------------------ */

static void
put_first(pyrt_weakref **place, pyrt_weakref *weak)
{
    pyrt_weakref *first = *place;
    weak->next = first;
    if (first != NULL) {
        first->previous = weak;
        weak->chain = first->chain;
        first->chain = NULL;
    }
    *place = weak;
}

static void
put_after(pyrt_weakref *before, pyrt_weakref *weak)
{
    weak->previous = before;
    weak->next = before->next;
    if (weak->next != NULL) {
        weak->next->previous = weak;
    }
    before->next = weak;
}

void
pyrt_weak_insert(pyrt_weak_stripe *locked, pyrt_weakref *weak)
{
    pyrt_weakref **place = pyrt_weak_place(locked, weak->key);
    bool is_new = *place == NULL;
    if (weak->callback == NULL || is_new || (*place)->callback != NULL) {
        put_first(place, weak);
    }
    else {
        put_after(*place, weak);
    }
    if (is_new && weak->key->type->weaklist_offset == 0) {
        locked->lists++;
        grow(locked);
    }
}

void
pyrt_weak_take_out(pyrt_weak_stripe *locked, pyrt_weakref *weak)
{
    if (weak->next != NULL) {
        weak->next->previous = weak->previous;
    }
    if (weak->previous != NULL) {
        weak->previous->next = weak->next;
        return;
    }
    pyrt_weakref **place = pyrt_weak_place(locked, weak->key);
    if (weak->next != NULL) {
        weak->next->chain = weak->chain;
        *place = weak->next;
        return;
    }
    *place = weak->chain;
    if (weak->key->type->weaklist_offset == 0) {
        locked->lists--;
        give_back(locked);
    }
}

pyrt_weakref *
pyrt_weak_find_shared(pyrt_weak_stripe *locked, const pyrt_object *object)
{
    pyrt_weakref *first = *pyrt_weak_place(locked, object);
    return first != NULL && first->callback == NULL && pyrt_try_count(&first->base) ? first : NULL;
}
