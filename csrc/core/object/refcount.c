/* refcount.c -- the long ways of counting: the last references, words that are no counts, and references out of nothing.
 *
 * Two rules keep an object whole. A reference that was dropped last is not counted before it is known who destroys the object:
 * where only the owner can know, the reference goes to the merge queue uncounted, or one more is counted for that
 * (pyrt_decref_taken). And who merges writes `local` and `owner` before
 * `shared`: from the moment that the shared word is merged, anybody may drop the last reference and free the memory.
 */
#include "object/death.h"
#include "object/merge_queue.h"
#include "platform/report.h"

/* ---- merging ----------------------------------------------------------------------------------------------------- */

bool
pyrt_merge(pyrt_object *object, int64_t count)
{
    /* release: whoever finds that it is nobody's may write `local` from then on. Pairs with the acquire of settle (special.c). */
    pyrt_store_release(&object->owner, PYRT_UNOWNED);
    /* acquire, here and in what fails below: who makes it immortal sets the flag and then changes the shared word. Either that is
     * seen here, and the flag with it, or it comes after the swap, and he sees that the object is nobody's. */
    int64_t shared = pyrt_load_acquire(&object->shared);
    int64_t left;
    do {
        pyrt_store_relaxed(&object->local, pyrt_local_of_unowned(pyrt_load_relaxed(&object->flags)));
        left = pyrt_shared_count(shared) + count;
        /* acq_rel: what was done with the object before any reference was dropped comes before its end; the stores above before
         * whatever others do with it now. Pairs with itself and with the release of every other drop. */
    } while (!pyrt_cas_acq_rel(&object->shared, &shared, pyrt_shared_word(left, PYRT_SHARED_MERGED)));
    return left == 0;
}

bool
pyrt_disown(pyrt_object *object, int64_t *local)
{
    uint64_t self = PYRT_TLS.self_id;
    /* Before the name is off: then `local` may be written by who wants it to be no count (special.c). */
    *local = pyrt_local_count(object);
    /* acq_rel: against who queues it at this moment, by the same operation (pyrt_merge_ask): one of the two wins. */
    return self != 0 && pyrt_load_relaxed(&object->owner) == self && pyrt_cas_acq_rel(&object->owner, &self, PYRT_UNOWNED);
}

/* The owner has dropped its last local reference, and `local` says so. */
void
pyrt_decref_last_local(pyrt_object *object)
{
    int64_t local;
    /* acquire: pairs with the release of the others' drops. No reference is left and nobody can get one: nobody else looks. */
    if (pyrt_load_acquire(&object->shared) == PYRT_SHARED_PLAIN ||
        (pyrt_disown(object, &local) && pyrt_merge(object, local))) {
        pyrt_die(object);
    }
    /* Else there are others, or it stands in the queue: whoever takes it out there merges. */
}

/* ---- dropping ---------------------------------------------------------------------------------------------------- */

static void
report_too_many(const pyrt_object *object)
{
    pyrt_report("pyrt_decref: object %p has no reference that could be dropped: it has been dropped once too often",
                (const void *)object);
}

bool
pyrt_drop(pyrt_object *object, int64_t count)
{
    int64_t shared = pyrt_load_relaxed(&object->shared);
    for (;;) {
        int state = pyrt_shared_state(shared);
        int64_t left = pyrt_shared_count(shared) - count;
        bool ask = pyrt_is_unasked(state) && left < 0;
        if (state == PYRT_SHARED_MERGED && left < 0 && (pyrt_load_relaxed(&object->flags) & PYRT_OBJECT_DYING) == 0) {
            report_too_many(object);
            return false;
        }
        if (ask) {
            /* One is kept, for the queue. */
            left++;
            state = PYRT_SHARED_QUEUED;
        }
        /* acq_rel: as in pyrt_merge. */
        if (!pyrt_cas_acq_rel(&object->shared, &shared, pyrt_shared_word(left, state))) {
            continue;
        }
        if (ask) {
            return pyrt_merge_ask(object);
        }
        return state == PYRT_SHARED_MERGED && left == 0;
    }
}

void
pyrt_decref_slow(pyrt_object *object)
{
    uint32_t local = pyrt_load_relaxed(&object->local);
    if (local == PYRT_LOCAL_IMMORTAL) {
        return;
    }
    if (local == PYRT_LOCAL_TRACED) {
        pyrt_trace(object, "is dropped", __builtin_return_address(0));
    }
    if (pyrt_drop(object, 1)) {
        pyrt_die(object);
    }
}

/* Who comes here for a count below 0 may find any object of his interpreter; see the table of the shared word. */
void
pyrt_decref_taken(pyrt_object *object, bool last)
{
    if (last) {
        pyrt_die(object);
        return;
    }
    int64_t shared = pyrt_load_relaxed(&object->shared);
    do {
        if (!pyrt_is_unasked(pyrt_shared_state(shared)) || shared >= 0) {
            return;
        }
        /* acq_rel: as in pyrt_merge. */
    } while (
        !pyrt_cas_acq_rel(&object->shared, &shared, pyrt_shared_word(pyrt_shared_count(shared) + 1, PYRT_SHARED_QUEUED)));
    if (pyrt_merge_ask(object)) {
        pyrt_die(object);
    }
}

/* ---- adding ------------------------------------------------------------------------------------------------------ */

void
pyrt_incref_slow(pyrt_object *object)
{
    if (pyrt_load_relaxed(&object->owner) == PYRT_TLS.self_id) {
        /* Its owner has counted as far as it can: so many references are never dropped. */
        pyrt_set_immortal(object);
        return;
    }
    /* relaxed: as in pyrt_incref. */
    (void)pyrt_fetch_add_relaxed(&object->shared, (int64_t)PYRT_SHARED_ONE);
    pyrt_trace(object, "is counted", __builtin_return_address(0));
}

/* For who does not own it. */
static bool
try_shared(pyrt_object *object)
{
    if (pyrt_load_relaxed(&object->local) == PYRT_LOCAL_IMMORTAL) {
        return true;
    }
    int64_t shared = pyrt_load_relaxed(&object->shared);
    do {
        int state = pyrt_shared_state(shared);
        int64_t count = pyrt_shared_count(shared);
        if ((state == PYRT_SHARED_PLAIN && count == 0) || (state == PYRT_SHARED_MERGED && count <= 0)) {
            return false;
        }
        /* acquire: as in pyrt_try_incref. */
    } while (!pyrt_cas_acquire(&object->shared, &shared, shared + PYRT_SHARED_ONE));
    return true;
}

bool
pyrt_try_incref_slow(pyrt_object *object)
{
    if (!try_shared(object)) {
        return false;
    }
    pyrt_trace_found(object, __builtin_return_address(0));
    return true;
}

bool
pyrt_try_count(pyrt_object *object)
{
    uint64_t self_id = PYRT_TLS.self_id;
    /* relaxed: as in pyrt_try_incref. */
    if (pyrt_load_relaxed(&object->owner) == self_id) {
        pyrt_incref_by(self_id, object);
        return true;
    }
    return try_shared(object);
}

void
pyrt_enable_try_incref_slow(pyrt_object *object)
{
    int64_t shared = pyrt_load_relaxed(&object->shared);
    /* acq_rel, though the caller's reference is enough: there is no weaker one. Who is owner and drops its last reference later
     * sees it, because that comes after this in the life of the caller's reference. */
    while (pyrt_shared_state(shared) == PYRT_SHARED_PLAIN &&
           !pyrt_cas_acq_rel(&object->shared, &shared, shared + PYRT_SHARED_OPEN - PYRT_SHARED_PLAIN)) {
    }
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

int64_t
pyrt_refcount(const pyrt_object *object)
{
    if (pyrt_load_relaxed(&object->flags) & PYRT_OBJECT_IMMORTAL) {
        return INT64_MAX;
    }
    int64_t shared = pyrt_load_relaxed(&object->shared);
    int64_t count = pyrt_shared_references(shared, pyrt_load_relaxed(&object->flags));
    return count + pyrt_local_count(object) - (pyrt_shared_state(shared) == PYRT_SHARED_QUEUED);
}

void
pyrt_object_look(const pyrt_object *object, pyrt_object_info *out)
{
    if (out == NULL || out->struct_size != sizeof(*out)) {
        return;
    }
    uint16_t flags = pyrt_load_relaxed(&object->flags);
    uint64_t owner = pyrt_load_relaxed(&object->owner);
    int64_t shared = pyrt_load_relaxed(&object->shared);
    *out = (pyrt_object_info){
        .struct_size = sizeof(*out),
        .local = (uint32_t)pyrt_local_count(object),
        .shared = pyrt_shared_references(shared, flags),
        .owner = owner & PYRT_UNOWNED ? 0 : owner & (((uint64_t)1 << PYRT_OWNERS_SHIFT) - 1),
        .state = (uint8_t)pyrt_shared_state(shared),
        .immortal = (flags & PYRT_OBJECT_IMMORTAL) != 0,
        .deferred = (flags & PYRT_OBJECT_DEFERRED) != 0,
        .traced = (flags & PYRT_OBJECT_TRACED) != 0,
    };
}

void
pyrt_trace(const pyrt_object *object, const char *what, const void *from)
{
    if ((pyrt_load_relaxed(&object->flags) & PYRT_OBJECT_TRACED) == 0) {
        return;
    }
    static const char *const names[] = {
        [PYRT_SHARED_MERGED] = "merged",
        [PYRT_SHARED_PLAIN] = "plain",
        [PYRT_SHARED_OPEN] = "open",
        [PYRT_SHARED_QUEUED] = "queued",
    };
    const pyrt_thread *current = pyrt_thread_current();
    int64_t shared = pyrt_load_relaxed(&object->shared);
    pyrt_report("object %p of type '%s' %s by thread %llu from %p: shared count %lld, %s", (const void *)object,
                object->type->name, what, (unsigned long long)(current == NULL ? 0 : current->id), from,
                (long long)pyrt_shared_references(shared, pyrt_load_relaxed(&object->flags)),
                names[pyrt_shared_state(shared)]);
}

void
pyrt_trace_found(const pyrt_object *object, const void *from)
{
    if (pyrt_load_relaxed(&object->local) == PYRT_LOCAL_TRACED) {
        pyrt_trace(object, "is found and counted", from);
    }
}
