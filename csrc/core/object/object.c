/* object.c -- making objects, and the figures of an interpreter. */
#include "object/merge_queue.h"

#include "memory/size_class.h"
#include "platform/report.h"

#include <errno.h>
#include <string.h>

/* Readers may still be looking at what was here: word by word, and open to nobody before it is published. A thread that is no
 * owner any more, because it is ending, makes an object that nobody owns. */
void
pyrt_object_init(pyrt_thread *thread, pyrt_object *object, pyrt_type *type)
{
    bool owned = thread->self_id != 0;
    /* relaxed, all of them: whoever gets the object from its maker gets it through something that orders them. Who still looks at
     * what stood here finds a shared count of 0 in state PLAIN or MERGED, and takes nothing; if the new object is nobody's he may
     * get a reference, finds that it is not what he was looking for, and drops it again. */
    pyrt_store_relaxed(&object->shared,
                       owned ? pyrt_shared_word(0, PYRT_SHARED_PLAIN) : pyrt_shared_word(1, PYRT_SHARED_MERGED));
    pyrt_store_relaxed(&object->owner, owned ? thread->self_id : PYRT_UNOWNED);
    pyrt_store_relaxed(&object->local, owned ? 1u : 0u);
    pyrt_store_relaxed(&object->flags, (uint16_t)0);
    pyrt_store_relaxed(&object->mutex.state, (uint8_t)PYRT_MUTEX_UNLOCKED);
    pyrt_store_relaxed(&object->collector, (uint8_t)0);
    pyrt_store_relaxed(&object->type, type);
}

static __attribute__((noinline, cold)) void
refuse(const pyrt_thread *thread, const pyrt_type *type)
{
    if (thread == NULL || pyrt_thread_current() != thread) {
        pyrt_report("pyrt_object_new: the thread is not the one that is attached here; attach it first");
    }
    else if (type == NULL) {
        pyrt_report("pyrt_object_new: the type is NULL; see what pyrt_type_new has answered");
    }
    else {
        pyrt_report("pyrt_object_new: the type '%s' is of interpreter %lld, the thread of interpreter %lld", type->name,
                    (long long)type->interp_id, (long long)pyrt_interp_id(thread->interp));
    }
    errno = EINVAL;
}

static inline bool
may_make(const pyrt_thread *thread, const pyrt_type *type)
{
    if (pyrt_likely(thread != NULL && type != NULL && pyrt_thread_current() == thread && type->interp == thread->interp)) {
        return true;
    }
    refuse(thread, type);
    return false;
}

/* Above the classes a block comes fresh from the system as a rule, and the heap knows whether it is zero already. Below it costs
 * less not to ask. (With a bound as low as a small block gcc clears by `rep stos`, which is slow to start.) */
static pyrt_object *
make(pyrt_thread *thread, pyrt_type *type, size_t size)
{
    pyrt_object *object;
    if (pyrt_unlikely(size > PYRT_CLASSED_MAX)) {
        object = pyrt_heap_calloc(thread, type->heap, 1, size);
    }
    else {
        object = pyrt_heap_malloc(thread, type->heap, size);
        if (object != NULL) {
            memset((char *)object + sizeof(*object), 0, size - sizeof(*object));
        }
    }
    if (object == NULL) {
        return NULL;
    }
    pyrt_object_init(thread, object, type);
    pyrt_incref_by_id(thread, &type->base, type->id);
    return object;
}

pyrt_object *
pyrt_object_new(pyrt_thread *thread, pyrt_type *type)
{
    return may_make(thread, type) ? make(thread, type, type->basic_size) : NULL;
}

pyrt_object *
pyrt_object_new_var(pyrt_thread *thread, pyrt_type *type, size_t n)
{
    size_t size;
    if (!may_make(thread, type)) {
        return NULL;
    }
    if (__builtin_mul_overflow(n, type->item_size, &size) || __builtin_add_overflow(size, type->basic_size, &size)) {
        errno = ENOMEM;
        return NULL;
    }
    return make(thread, type, size);
}

/* ---- figures ----------------------------------------------------------------------------------------------------- */

static uint64_t
asked_by(const pyrt_thread_impl *list)
{
    uint64_t asked = 0;
    for (; list != NULL; list = list->next) {
        const pyrt_merge_queue *queue = pyrt_merge_queue_of(list);
        asked += queue == NULL ? 0 : pyrt_load_relaxed(&queue->stats.asked);
    }
    return asked;
}

void
pyrt_object_stats_read(pyrt_interp *interp, pyrt_object_stats *out)
{
    if (out == NULL || out->struct_size != sizeof(*out)) {
        return;
    }
    *out = (pyrt_object_stats){.struct_size = sizeof(*out)};
    if (interp == NULL) {
        return;
    }
    pyrt_merge_interp *merge = pyrt_merge_of_interp(interp);
    /* The queues of threads that have ended keep what they have counted. */
    pyrt_raw_mutex_lock(&interp->lock);
    out->merges_asked = asked_by(interp->threads) + asked_by(interp->births) + asked_by(interp->free_threads);
    pyrt_raw_mutex_unlock(&interp->lock);
    out->merges_asked += pyrt_load_relaxed(&merge->stats.asked);
    out->merges_done = pyrt_load_relaxed(&merge->stats.done);
    out->merges_for_ended = pyrt_load_relaxed(&merge->stats.for_ended);
    out->queues_borrowed = pyrt_load_relaxed(&merge->stats.borrowed);
    out->longest_queue = pyrt_load_relaxed(&merge->stats.longest_queue);
    out->longest_wait_ns = pyrt_load_relaxed(&merge->stats.longest_wait_ns);
    out->immortal = pyrt_load_relaxed(&merge->stats.immortal);
    out->unique_ids = pyrt_unique_ids_in_use(interp);
}
