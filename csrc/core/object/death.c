/* death.c -- destroying objects: one after the other where they would nest too deep, so that a chain of any length dies in little
 * stack. Nothing here can fail or allocates. See death.h for the order.
 */
#include "object/death.h"

#include "memory/heap_impl.h"
#include "platform/report.h"

#include <pyruntime/lock_debug.h>

static void (*clear_weakrefs)(pyrt_object *dying);

void
pyrt_death_set_weakrefs(void (*clear)(pyrt_object *dying))
{
    clear_weakrefs = clear;
}

/* ---- lists of the dead ------------------------------------------------------------------------------------------- */

/* The first step. relaxed: nobody else has a reference, and who tries to get one is refused by what stands there now as well. */
static void
mark(pyrt_object *object)
{
    pyrt_store_relaxed(&object->flags, (uint16_t)(pyrt_load_relaxed(&object->flags) | PYRT_OBJECT_DYING));
    pyrt_store_relaxed(&object->owner, PYRT_UNOWNED);
    pyrt_store_relaxed(&object->local, 0u);
    pyrt_store_relaxed(&object->shared, PYRT_SHARED_DYING);
}

/* relaxed, here and below: nobody but who holds the list looks at the link, and readers only see that it is not theirs. */
static void
dead_link(pyrt_object **list, pyrt_object *object)
{
    pyrt_store_relaxed(&object->owner, pyrt_link_to(*list));
    pyrt_store_relaxed(list, object);
}

/* Nothing is to be run or told of when it dies. relaxed: nobody else has a reference. */
static inline bool
is_plain(const pyrt_object *object)
{
    return pyrt_load_relaxed(&object->flags) == 0 && !object->type->has_destructors &&
           pyrt_load_relaxed(&object->mutex.state) == PYRT_MUTEX_UNLOCKED;
}

void
pyrt_dead_push(pyrt_object **list, pyrt_object *object)
{
    if (!is_plain(object)) {
        mark(object);
    }
    dead_link(list, object);
}

static pyrt_object *
dead_pop(pyrt_object **list)
{
    pyrt_object *object = *list;
    if (object != NULL) {
        pyrt_store_relaxed(list, pyrt_linked_object(object));
        pyrt_store_relaxed(&object->owner, PYRT_UNOWNED);
    }
    return object;
}

void
pyrt_dead_move(pyrt_object **from, pyrt_object **to)
{
    pyrt_object *object;
    while ((object = dead_pop(from)) != NULL) {
        dead_link(to, object);
    }
}

/* ---- one death --------------------------------------------------------------------------------------------------- */

/* Counts the type of an object that is gone. */
static void
drop_type(pyrt_type *type)
{
    pyrt_thread *current = pyrt_thread_current();
    if (current != NULL && current->interp == type->interp) {
        pyrt_decref_by_id(current, &type->base, type->id);
    }
    else {
        pyrt_decref(&type->base);
    }
}

/* Something of it is left in hands that should not have it: the memory stays, and with it the type. */
static bool
is_kept(const pyrt_object *object, int64_t if_not)
{
    if (pyrt_likely(pyrt_load_relaxed(&object->shared) == if_not)) {
        return false;
    }
    pyrt_report(
        "object %p of type '%s': a destructor has kept a reference to it, or dropped one too many; its memory is not freed",
        (const void *)object, object->type->name);
    return true;
}

/* Its memory goes. relaxed: readers that still look see one word or the other, and both say no. */
static void
end_plain(pyrt_object *object)
{
    pyrt_type *type = object->type;
    pyrt_store_relaxed(&object->owner, PYRT_UNOWNED);
    pyrt_store_relaxed(&object->shared, pyrt_shared_word(0, PYRT_SHARED_MERGED));
    pyrt_free_guarded(object);
    drop_type(type);
}

/* It has given up everything. */
static void
end(pyrt_object *object)
{
    if (is_kept(object, PYRT_SHARED_DYING)) {
        return;
    }
    pyrt_store_relaxed(&object->flags, (uint16_t)0);
    pyrt_store_relaxed(&object->local, 0u);
    if (pyrt_unlikely(pyrt_load_relaxed(&object->mutex.state) != PYRT_MUTEX_UNLOCKED)) {
        pyrt_lock_forget(object, sizeof(*object));
        pyrt_store_relaxed(&object->mutex.state, (uint8_t)PYRT_MUTEX_UNLOCKED);
    }
    end_plain(object);
}

/* Whether it has not been begun before: by an OS thread that has ended in it. */
static bool
begin_step(pyrt_object *object, uint16_t step)
{
    uint16_t flags = pyrt_load_relaxed(&object->flags);
    pyrt_store_relaxed(&object->flags, (uint16_t)(flags | step));
    return (flags & step) == 0;
}

/* User code may leave another state attached, or none; who called it finds what he had. He returns to that state, so it cannot end
 * meanwhile. */
static void
run_destructors(pyrt_object *object)
{
    const pyrt_type *type = object->type;
    pyrt_thread *attached = pyrt_thread_current();
    if (pyrt_tls()->os_id == 0) {
        /* So that the end of this OS thread is noticed, if a destructor ends it; without memory for that it is not. */
        (void)pyrt_os_thread_register();
    }
    if (attached != NULL) {
        pyrt_thread_impl_of(attached)->kept++;
    }
    dead_link(&pyrt_tls()->unfinished, object);
    if (pyrt_load_relaxed(&object->flags) & PYRT_OBJECT_HAS_WEAKREFS && clear_weakrefs != NULL) {
        clear_weakrefs(object);
    }
    if (type->finalize != NULL && begin_step(object, PYRT_OBJECT_FINALIZED)) {
        type->finalize(object);
    }
    if (type->dealloc != NULL && begin_step(object, PYRT_OBJECT_DEALLOCATED)) {
        type->dealloc(object);
    }
    (void)dead_pop(&pyrt_tls()->unfinished);
    if (attached != NULL) {
        pyrt_thread_attach_again(pyrt_thread_impl_of(attached));
        pyrt_thread_impl_of(attached)->kept--;
    }
}

static bool
has_destructors(const pyrt_object *object)
{
    return object->type->has_destructors || pyrt_load_relaxed(&object->flags) & PYRT_OBJECT_HAS_WEAKREFS;
}

static void
destroy(pyrt_object *object)
{
    pyrt_tls_block *tls = pyrt_tls();
    if (pyrt_load_relaxed(&object->flags) & PYRT_OBJECT_TRACED) {
        pyrt_trace(object, "dies", NULL);
    }
    tls->dying++;
    if (has_destructors(object)) {
        run_destructors(object);
    }
    end(object);
    tls->dying--;
}

void
pyrt_die(pyrt_object *object)
{
    if (is_plain(object)) {
        end_plain(object);
        return;
    }
    pyrt_tls_block *tls = pyrt_tls();
    mark(object);
    if (tls->dying >= PYRT_DEATH_DEPTH) {
        dead_link(&tls->dead, object);
        return;
    }
    destroy(object);
    pyrt_dead_run();
}

void
pyrt_dead_run(void)
{
    pyrt_tls_block *tls = pyrt_tls();
    while (tls->dying == 0 && tls->dead != NULL) {
        pyrt_object *object = dead_pop(&tls->dead);
        if (!is_plain(object)) {
            destroy(object);
        }
        else if (!is_kept(object, pyrt_shared_word(0, PYRT_SHARED_MERGED))) {
            /* Its type may die with it, and what of that dies is the next to be run here: not inside of that death. */
            tls->dying++;
            end_plain(object);
            tls->dying--;
        }
    }
}

void
pyrt_dead_end_of_os_thread(void)
{
    pyrt_tls_block *tls = pyrt_tls();
    pyrt_object *object;
    tls->dying = 0;
    while ((object = dead_pop(&tls->unfinished)) != NULL) {
        dead_link(&tls->dead, object);
    }
    pyrt_dead_run();
}
