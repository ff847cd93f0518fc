/* SPDX-License-Identifier: MIT
 *
 * unique_id.h -- counts per thread, for the few objects that all threads refer to all the time: types, functions, code.
 *
 * Such an object has a *unique id* in its interpreter, and each thread an array with a count for each id. Counting is an addition
 * to one's own array: no two threads write the same line. A thread's count may be negative; only the sum means anything, and it is
 * known when all arrays are added up, in a pause of the world (pyrt_merge_unique_counts). A thread that ends adds its own.
 *
 * The id is kept in a field of yours, 0 for none: with none everything works, by plain counting. An object with an id is kept as
 * a deferred one is (pyrt_set_deferred): it dies in pyrt_merge_unique_counts, or with its interpreter, when nobody refers to it,
 * and not by counting. Ids are used again.
 * When an interpreter ends before its objects do, their fields become 0 and they count plainly from then on.
 */
#ifndef PYRUNTIME_UNIQUE_ID_H
#define PYRUNTIME_UNIQUE_ID_H

#include "refcount.h"

PYRT_BEGIN_DECLS

/* The long ways of the inline functions below; call those. */
void pyrt_count_by_id_slow(pyrt_thread *thread, pyrt_object *object, uint32_t id, int32_t n);

/* cdef: begin */
/* Gives an object a unique id in an interpreter and writes it to the field, which must live as long as the object and be 0. The
 * caller has a reference. The id goes when the object dies. Errors, with the field and the object as they were: PYRT_ENOMEM,
 * PYRT_EINVAL (NULL, a field that is not 0, an object of another interpreter or of static memory), PYRT_EEXIST (the object has
 * an id), PYRT_ESTATE (the interpreter is ending).
 * blocks: shortly · allocates: yes · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_unique_id_new(pyrt_interp *interp, pyrt_object *object, uint32_t *field);

/* Stops the world of the interpreter, adds all threads' counts to the objects, and destroys those that nobody refers to, when the
 * world goes on. Answers how many. In a pause of one's own it uses that, and they wait for the next
 * safepoint of a thread of the interpreter. Errors, as minus a pyrt_status: those of pyrt_stop_the_world; -PYRT_EINVAL for
 * NULL.
 * blocks: yes · allocates: no · runs user code: yes · quiescent: may · needs attached: no · async-signal-safe: no */
int64_t pyrt_merge_unique_counts(pyrt_interp *interp);
/* cdef: end */

/* Counts for the thread, which must be the one attached here, and the object's interpreter's. `id` is the object's.
 * blocks: no · allocates: yes (without memory it counts plainly) · runs user code: the second: yes, with id 0, when objects die ·
 * quiescent: never · needs attached: yes · async-signal-safe: no */
static inline void
pyrt_incref_by_id(pyrt_thread *thread, pyrt_object *object, uint32_t id)
{
    /* With id 0 the difference is larger than any size. relaxed: the thread's own; read by others while it stands still. */
    if (pyrt_likely((size_t)id - 1 < thread->unique_counts.size)) {
        int64_t *count = &thread->unique_counts.values[id - 1];
        pyrt_store_relaxed(count, pyrt_load_relaxed(count) + 1);
        return;
    }
    PYRT_CALL(count_by_id_slow)(thread, object, id, 1);
}

static inline void
pyrt_decref_by_id(pyrt_thread *thread, pyrt_object *object, uint32_t id)
{
    if (pyrt_likely((size_t)id - 1 < thread->unique_counts.size)) {
        int64_t *count = &thread->unique_counts.values[id - 1];
        pyrt_store_relaxed(count, pyrt_load_relaxed(count) - 1);
        return;
    }
    PYRT_CALL(count_by_id_slow)(thread, object, id, -1);
}

PYRT_END_DECLS
#endif /* PYRUNTIME_UNIQUE_ID_H */
