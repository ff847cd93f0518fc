/* weakref.c -- weak references: the lists that they stand in, making them, and what the end of a referent does with them.
 *
 * The lists of all objects are divided among STRIPES locks, by the address of the referent. The table belongs to addresses, and
 * therefore to the process and not to an interpreter: a weak reference that outlives its interpreter finds it still. The locks
 * are raw: never held while user code runs or a thread sleeps, so no pause finds one held for long, and waiting for one lets
 * go of nothing.
 *
 * A list: the one without a callback first, if there is one, and then the others, newest first. Its first member stands in the
 * word of the object that the type's weaklist_offset names, or in a hash table of the stripe, which the members' `chain` links.
 *
 * What must not be touched without the lock: any weak reference that one has no reference to. It may be dying; but before it
 * goes it takes itself out of the list under the lock, unless it finds itself cleared. So clearing is the last thing that is
 * done to one.
 *
 * Order of locks: a stripe comes after an interpreter's lock and before the metadata's.
 */
#include "object/death.h"
#include "platform/meta_alloc.h"
#include "platform/report.h"

#include <errno.h>
#include <pyruntime/weakref.h>

enum { STRIPES_LOG2 = 7, STRIPES = 1 << STRIPES_LOG2, LEAST_BUCKETS = 8, BUCKET = sizeof(void *) };

typedef struct PYRT_ALIGNED(64) stripe {
    pyrt_raw_mutex lock;
    uint32_t lists;         /* in the hash table */
    uint32_t mask;          /* buckets - 1 */
    pyrt_weakref **buckets; /* NULL: there is only `one` */
    pyrt_weakref *one;
} stripe;

static stripe stripes[STRIPES];

/* Its top bits choose the stripe, others the bucket. */
static uint64_t
hash_of(const pyrt_object *object)
{
    return (uint64_t)(uintptr_t)object * 0x9E3779B97F4A7C15u;
}

static stripe *
lock_stripe(const pyrt_object *object)
{
    stripe *chosen = &stripes[hash_of(object) >> (64 - STRIPES_LOG2)];
    pyrt_raw_mutex_lock(&chosen->lock);
    return chosen;
}

/* ---- the hash table of a stripe ---------------------------------------------------------------------------------- */

static pyrt_weakref **
bucket_of(stripe *locked, const pyrt_object *object)
{
    return locked->buckets == NULL ? &locked->one : &locked->buckets[(hash_of(object) >> 24) & locked->mask];
}

static size_t
bucket_count(const stripe *locked)
{
    return locked->buckets == NULL ? 1 : (size_t)locked->mask + 1;
}

/* Where the first member of the object's list is or would be. */
static pyrt_weakref **
place_of(stripe *locked, const pyrt_object *object)
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
move_lists(stripe *locked, pyrt_weakref **from, size_t count)
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
grow(stripe *locked)
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
give_back(stripe *locked)
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

static void
insert(stripe *locked, pyrt_weakref *weak)
{
    pyrt_weakref **place = place_of(locked, weak->key);
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

static void
take_out(stripe *locked, pyrt_weakref *weak)
{
    if (weak->next != NULL) {
        weak->next->previous = weak->previous;
    }
    if (weak->previous != NULL) {
        weak->previous->next = weak->next;
        return;
    }
    pyrt_weakref **place = place_of(locked, weak->key);
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

/* The one without a callback, if it lives; a new reference. */
static pyrt_weakref *
find_shared(stripe *locked, const pyrt_object *object)
{
    pyrt_weakref *first = *place_of(locked, object);
    return first != NULL && first->callback == NULL && pyrt_try_count(&first->base) ? first : NULL;
}

/* ---- the end of a weak reference --------------------------------------------------------------------------------- */

static void
dealloc(pyrt_object *object)
{
    pyrt_weakref *weak = (pyrt_weakref *)(void *)object;
    /* acquire: who has cleared it is done with it. Pairs with the release in clear_one. */
    if (pyrt_load_acquire(&weak->referent) == NULL) {
        return;
    }
    stripe *locked = lock_stripe(weak->key);
    /* relaxed: under the lock. */
    if (pyrt_load_relaxed(&weak->referent) != NULL) {
        take_out(locked, weak);
    }
    pyrt_raw_mutex_unlock(&locked->lock);
}

/* ---- the end of a referent --------------------------------------------------------------------------------------- */

/* It stays in the list if its callback is to run, with a reference for that. */
static void
clear_one(stripe *locked, pyrt_weakref *weak)
{
    if (weak->callback == NULL || !pyrt_try_count(&weak->base)) {
        take_out(locked, weak);
    }
    /* release: the last step. Pairs with the acquire in pyrt_weakref_get, which must see it when it has counted up what is in
     * the memory after the referent, and with that in dealloc. */
    pyrt_store_release(&weak->referent, (pyrt_object *)NULL);
}

/* Those that are cleared already are there because the OS thread that cleared them has ended in a callback. */
static void
clear_all(pyrt_object *dying)
{
    stripe *locked = lock_stripe(dying);
    pyrt_weakref *weak = *place_of(locked, dying);
    while (weak != NULL) {
        pyrt_weakref *next = weak->next;
        if (pyrt_load_relaxed(&weak->referent) != NULL) {
            clear_one(locked, weak);
        }
        weak = next;
    }
    pyrt_raw_mutex_unlock(&locked->lock);
}

/* The next one whose callback is to run, and that callback, which is then no more to be run: NULL if an OS thread has ended in it.
 * The weak reference stays in the list meanwhile, and keeps its reference. */
static pyrt_weakref *
next_to_call(pyrt_object *dying, int (**callback)(pyrt_weakref *, void *))
{
    stripe *locked = lock_stripe(dying);
    pyrt_weakref *first = *place_of(locked, dying);
    if (first != NULL) {
        *callback = first->callback;
        first->callback = NULL;
    }
    pyrt_raw_mutex_unlock(&locked->lock);
    return first;
}

static void
leave_list(pyrt_weakref *weak)
{
    stripe *locked = lock_stripe(weak->key);
    take_out(locked, weak);
    pyrt_raw_mutex_unlock(&locked->lock);
    pyrt_decref(&weak->base);
}

/* Step 2 of a death (death.h). Runs user code; when the OS thread ends in it, it is run again for the rest. */
static void
clear_weakrefs(pyrt_object *dying)
{
    clear_all(dying);
    pyrt_weakref *weak;
    int (*callback)(pyrt_weakref *, void *) = NULL;
    while ((weak = next_to_call(dying, &callback)) != NULL) {
        pyrt_trace_found(&weak->base, NULL);
        int status = callback == NULL ? 0 : callback(weak, weak->arg);
        if (status != 0) {
            pyrt_report("the callback of a weak reference (%p) to an object of type '%s' failed with %d", (void *)weak,
                        pyrt_type_name(dying->type), status);
        }
        leave_list(weak);
    }
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

/* The type of the interpreter's weak references, borrowed; made when it is first wanted. NULL with errno. */
static pyrt_type *
type_of(pyrt_interp *interp)
{
    static const pyrt_type_spec spec = {
        .struct_size = sizeof(spec),
        .name = "weakref",
        .basic_size = sizeof(pyrt_weakref),
        .dealloc = dealloc,
    };
    void **place = &interp->stage[PYRT_STAGE_WEAKREFS];
    /* acquire: pairs with the swap below. */
    void *found = pyrt_load_acquire(place);
    if (found == NULL) {
        pyrt_type *made = pyrt_type_new(interp, &spec);
        if (made == NULL || pyrt_cas_seq_cst(place, &found, (void *)made)) {
            return made;
        }
        pyrt_decref(&made->base);
    }
    return found;
}

static pyrt_weakref *
refuse(pyrt_thread *thread, const char *what)
{
    pyrt_report_thread("pyrt_weakref_new", thread, what);
    errno = EINVAL;
    return NULL;
}

/* From now on the object can be found by what refers to it weakly. */
static void
open_to_weakrefs(pyrt_object *object)
{
    pyrt_enable_try_incref(object);
    if (!(pyrt_load_relaxed(&object->flags) & PYRT_OBJECT_HAS_WEAKREFS)) {
        /* seq_cst for want of less: who destroys the object has got the caller's reference, and with it this. */
        (void)pyrt_fetch_or_seq_cst(&object->flags, (uint16_t)PYRT_OBJECT_HAS_WEAKREFS);
    }
}

static pyrt_weakref *
look_for_shared(const pyrt_object *object)
{
    stripe *locked = lock_stripe(object);
    pyrt_weakref *shared = find_shared(locked, object);
    pyrt_raw_mutex_unlock(&locked->lock);
    if (shared != NULL) {
        pyrt_trace_found(&shared->base, __builtin_return_address(0));
    }
    return shared;
}

/* One that stands in no list. NULL with errno. */
static pyrt_weakref *
make(pyrt_thread *thread, pyrt_object *object, int (*callback)(pyrt_weakref *, void *arg), void *arg)
{
    pyrt_type *type = type_of(thread->interp);
    pyrt_weakref *made = type == NULL ? NULL : (pyrt_weakref *)(void *)pyrt_object_new(thread, type);
    if (made == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    pyrt_enable_try_incref(&made->base);
    made->interp = thread->interp;
    made->key = object;
    made->callback = callback;
    made->arg = arg;
    return made;
}

/* Puts it into the list; or, one without a callback, drops it for that which somebody else has put there meanwhile. */
static pyrt_weakref *
publish(pyrt_weakref *made)
{
    stripe *locked = lock_stripe(made->key);
    pyrt_weakref *shared = made->callback == NULL ? find_shared(locked, made->key) : NULL;
    if (shared == NULL) {
        insert(locked, made);
        /* release: the fields are complete. Pairs with the acquire of pyrt_weakref_get. */
        pyrt_store_release(&made->referent, made->key);
    }
    pyrt_raw_mutex_unlock(&locked->lock);
    if (shared == NULL) {
        return made;
    }
    pyrt_trace_found(&shared->base, __builtin_return_address(0));
    pyrt_decref(&made->base);
    return shared;
}

pyrt_weakref *
pyrt_weakref_new(pyrt_thread *thread, pyrt_object *object, int (*callback)(pyrt_weakref *, void *arg), void *arg)
{
    if (thread == NULL || pyrt_thread_current() != thread) {
        pyrt_report("pyrt_weakref_new: the thread is not the one that is attached here");
        errno = EINVAL;
        return NULL;
    }
    if (object == NULL || !pyrt_is_of_interp(object, thread->interp)) {
        return refuse(thread, "wants a weak reference to what is no object of its interpreter");
    }
    if (pyrt_load_relaxed(&object->flags) & PYRT_OBJECT_DYING) {
        return refuse(thread, "wants a weak reference to an object that is dying");
    }
    open_to_weakrefs(object);
    pyrt_weakref *shared = callback == NULL ? look_for_shared(object) : NULL;
    if (shared != NULL) {
        return shared;
    }
    pyrt_weakref *made = make(thread, object, callback, arg);
    return made == NULL ? NULL : publish(made);
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

/* The lock keeps the referent from going further than to its weak references, so its memory is an object's. */
pyrt_object *
pyrt_weakref_get_slow(pyrt_weakref *weak)
{
    stripe *locked = lock_stripe(weak->key);
    pyrt_object *referent = pyrt_load_relaxed(&weak->referent);
    if (referent != NULL && !pyrt_try_count(referent)) {
        referent = NULL;
    }
    pyrt_raw_mutex_unlock(&locked->lock);
    if (referent != NULL) {
        pyrt_trace_found(referent, __builtin_return_address(0));
    }
    return referent;
}

size_t
pyrt_weakref_count(const pyrt_object *object)
{
    size_t count = 0;
    if (object != NULL && (pyrt_load_relaxed(&object->flags) & PYRT_OBJECT_HAS_WEAKREFS)) {
        stripe *locked = lock_stripe(object);
        for (const pyrt_weakref *weak = *place_of(locked, object); weak != NULL; weak = weak->next) {
            count++;
        }
        pyrt_raw_mutex_unlock(&locked->lock);
    }
    return count;
}

/* The first hash stays, whoever else asks for one at the same time. */
static void
remember_hash(pyrt_weakref *weak, int64_t hash)
{
    pyrt_mutex_lock(&weak->base.mutex);
    if (!pyrt_load_relaxed(&weak->is_hashed)) {
        weak->hash = hash;
        /* release: pairs with the acquire in pyrt_weakref_hash. */
        pyrt_store_release(&weak->is_hashed, 1u);
    }
    pyrt_mutex_unlock(&weak->base.mutex);
}

pyrt_status
pyrt_weakref_hash(pyrt_weakref *weak, int64_t (*hash)(pyrt_object *), int64_t *out)
{
    if (weak == NULL || hash == NULL || out == NULL) {
        return PYRT_EINVAL;
    }
    if (!pyrt_load_acquire(&weak->is_hashed)) {
        pyrt_object *referent = pyrt_weakref_get(weak);
        if (referent == NULL) {
            return PYRT_ENOTFOUND;
        }
        remember_hash(weak, hash(referent));
        pyrt_decref(referent);
    }
    *out = weak->hash;
    return PYRT_OK;
}

/* ---- the life of an interpreter, and forks ----------------------------------------------------------------------- */

static pyrt_status
interp_drain(pyrt_interp *interp)
{
    pyrt_type *type = pyrt_exchange_seq_cst(&interp->stage[PYRT_STAGE_WEAKREFS], NULL);
    if (type != NULL) {
        pyrt_decref(&type->base);
    }
    return PYRT_OK;
}

/* With the main interpreter, which is there as long as the runtime. */
static void
each_stripe(const pyrt_interp *interp, void (*fn)(pyrt_raw_mutex *))
{
    for (size_t i = 0; i < STRIPES && interp == pyrt_interp_main(); i++) {
        fn(&stripes[i].lock);
    }
}

static void
fork_prepare(pyrt_interp *interp)
{
    each_stripe(interp, pyrt_raw_mutex_lock);
}

static void
fork_parent(pyrt_interp *interp)
{
    each_stripe(interp, pyrt_raw_mutex_unlock);
}

static void
fork_child(pyrt_interp *interp)
{
    each_stripe(interp, pyrt_raw_mutex_reinit);
}

__attribute__((constructor)) static void
register_stage(void)
{
    static const pyrt_stage stage = {
        .interp_drain = interp_drain,
        .fork_prepare = fork_prepare,
        .fork_parent = fork_parent,
        .fork_child = fork_child,
    };
    pyrt_death_set_weakrefs(clear_weakrefs);
    pyrt_stage_register(PYRT_STAGE_WEAKREFS, &stage);
}
