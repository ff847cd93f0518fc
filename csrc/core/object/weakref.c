/* weakref.c -- weak references: making them, looking, and what the end of a referent does with them. The lists that they stand
 * in, and the locks of these, are in weak_lists.c.
 */
#include "object/death.h"
#include "object/weak_lists.h"
#include "platform/report.h"

#include <errno.h>
#include <pyruntime/weakref.h>

/* ---- the end of a weak reference --------------------------------------------------------------------------------- */

static void
dealloc(pyrt_object *object)
{
    pyrt_weakref *weak = (pyrt_weakref *)(void *)object;
    /* acquire: who has cleared it is done with it. Pairs with the release in clear_one. */
    if (pyrt_load_acquire(&weak->referent) == NULL) {
        return;
    }
    pyrt_weak_stripe *locked = pyrt_weak_lock(weak->key);
    /* relaxed: under the lock. */
    if (pyrt_load_relaxed(&weak->referent) != NULL) {
        pyrt_weak_take_out(locked, weak);
    }
    pyrt_weak_unlock(locked);
}

/* ---- the end of a referent --------------------------------------------------------------------------------------- */

/* It stays in the list if its callback is to run, with a reference for that. */
static void
clear_one(pyrt_weak_stripe *locked, pyrt_weakref *weak)
{
    if (weak->callback == NULL || !pyrt_try_count(&weak->base)) {
        pyrt_weak_take_out(locked, weak);
    }
    /* release: the last step. Pairs with the acquire in pyrt_weakref_get, which must see it when it has counted up what is in
     * the memory after the referent, and with that in dealloc. */
    pyrt_store_release(&weak->referent, (pyrt_object *)NULL);
}

/* Those that are cleared already are there because the OS thread that cleared them has ended in a callback. */
static void
clear_all(pyrt_object *dying)
{
    pyrt_weak_stripe *locked = pyrt_weak_lock(dying);
    pyrt_weakref *weak = *pyrt_weak_place(locked, dying);
    while (weak != NULL) {
        pyrt_weakref *next = weak->next;
        if (pyrt_load_relaxed(&weak->referent) != NULL) {
            clear_one(locked, weak);
        }
        weak = next;
    }
    pyrt_weak_unlock(locked);
}

/* The next one whose callback is to run, and that callback, which is then no more to be run: NULL if an OS thread has ended in it.
 * The weak reference stays in the list meanwhile, and keeps its reference. */
static pyrt_weakref *
next_to_call(pyrt_object *dying, int (**callback)(pyrt_weakref *, void *))
{
    pyrt_weak_stripe *locked = pyrt_weak_lock(dying);
    pyrt_weakref *first = *pyrt_weak_place(locked, dying);
    if (first != NULL) {
        *callback = first->callback;
        first->callback = NULL;
    }
    pyrt_weak_unlock(locked);
    return first;
}

static void
leave_list(pyrt_weakref *weak)
{
    pyrt_weak_stripe *locked = pyrt_weak_lock(weak->key);
    pyrt_weak_take_out(locked, weak);
    pyrt_weak_unlock(locked);
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
    pyrt_weak_stripe *locked = pyrt_weak_lock(object);
    pyrt_weakref *shared = pyrt_weak_find_shared(locked, object);
    pyrt_weak_unlock(locked);
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
    pyrt_weak_stripe *locked = pyrt_weak_lock(made->key);
    pyrt_weakref *shared = made->callback == NULL ? pyrt_weak_find_shared(locked, made->key) : NULL;
    if (shared == NULL) {
        pyrt_weak_insert(locked, made);
        /* release: the fields are complete. Pairs with the acquire of pyrt_weakref_get. */
        pyrt_store_release(&made->referent, made->key);
    }
    pyrt_weak_unlock(locked);
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
    pyrt_weak_stripe *locked = pyrt_weak_lock(weak->key);
    pyrt_object *referent = pyrt_load_relaxed(&weak->referent);
    if (referent != NULL && !pyrt_try_count(referent)) {
        referent = NULL;
    }
    pyrt_weak_unlock(locked);
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
        pyrt_weak_stripe *locked = pyrt_weak_lock(object);
        for (const pyrt_weakref *weak = *pyrt_weak_place(locked, object); weak != NULL; weak = weak->next) {
            count++;
        }
        pyrt_weak_unlock(locked);
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

static void
fork_prepare(void)
{
    pyrt_weak_each_lock(pyrt_raw_mutex_lock);
}

static void
fork_parent(void)
{
    pyrt_weak_each_lock(pyrt_raw_mutex_unlock);
}

static void
fork_child(void)
{
    pyrt_weak_each_lock(pyrt_raw_mutex_reinit);
}

__attribute__((constructor)) static void
register_stage(void)
{
    static const pyrt_stage stage = {
        .interp_drain = interp_drain,
        .process = {fork_prepare, fork_parent, fork_child},
    };
    pyrt_death_set_weakrefs(clear_weakrefs);
    pyrt_stage_register(PYRT_STAGE_WEAKREFS, &stage);
}
