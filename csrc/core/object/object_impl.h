/* object_impl.h -- what stands behind the public header of an object: the type, and the words in parts.
 *
 * Every step that changes an owner's word, or ends an object, is in one of four files: refcount.c (counting), merge_queue.c
 * (asking the owner), death.c (destroying), unique_id.c (counts per thread). The tables of the words are in object.h.
 */
#ifndef PYRT_OBJECT_OBJECT_IMPL_H
#define PYRT_OBJECT_OBJECT_IMPL_H

#include "state/thread_impl.h"

#include <pyruntime/unique_id.h>

enum { PYRT_TYPE_NAME = 64 };

/* Immutable, but for the header and the id. */
struct pyrt_type {
    pyrt_object base;
    pyrt_interp *interp; /* to compare with: it may have ended, and no other is there; NULL: the type of all types */
    int64_t interp_id;
    pyrt_heap *heap;     /* of its objects; theirs only while the interpreter lives */
    uint32_t id;         /* unique_id.h */
    bool has_destructors; /* finalize or dealloc */
    size_t basic_size, item_size, weaklist_offset;
    void (*dealloc)(pyrt_object *);
    void (*finalize)(pyrt_object *);
    int (*traverse)(pyrt_object *, int (*visit)(pyrt_object *, void *), void *);
    int (*clear)(pyrt_object *);
    char name[PYRT_TYPE_NAME];
};

/* The type of types: immortal, of the process. */
extern pyrt_type pyrt_type_of_types;

/* The interpreter that an object belongs to. */
static inline const pyrt_type *
pyrt_home_of(const pyrt_object *object)
{
    return object->type == &pyrt_type_of_types ? (const pyrt_type *)(const void *)object : object->type;
}

/* False for one of static memory, too. */
static inline bool
pyrt_is_of_interp(const pyrt_object *object, const pyrt_interp *interp)
{
    const pyrt_type *home = object->type == NULL ? NULL : pyrt_home_of(object);
    return home != NULL && home->interp == interp;
}

/* Writes the header of an object that the thread makes. */
void pyrt_object_init(pyrt_thread *thread, pyrt_object *object, pyrt_type *type);

/* How many unique ids are in use (unique_id.c). */
uint32_t pyrt_unique_ids_in_use(const pyrt_interp *interp);

/* ---- the shared word --------------------------------------------------------------------------------------------- */

static inline int64_t
pyrt_shared_count(int64_t shared)
{
    return shared >> 2;
}

static inline int
pyrt_shared_state(int64_t shared)
{
    return (int)(shared & PYRT_SHARED_STATES);
}

/* Whether the owner has neither been asked to merge nor merged. */
static inline bool
pyrt_is_unasked(int state)
{
    return state == PYRT_SHARED_PLAIN || state == PYRT_SHARED_OPEN;
}

static inline int64_t
pyrt_shared_word(int64_t count, int state)
{
    return count * PYRT_SHARED_ONE + state;
}

/* What it is while the object is being destroyed, when nobody has a reference. */
#define PYRT_SHARED_DYING pyrt_shared_word(-PYRT_DEFERRED_COUNT, PYRT_SHARED_MERGED)

/* What keeps an object besides its references: each of these has added PYRT_DEFERRED_COUNT to its shared count. */
enum { PYRT_OBJECT_KEPT = PYRT_OBJECT_IMMORTAL | PYRT_OBJECT_DEFERRED | PYRT_OBJECT_HAS_ID };

static inline int64_t
pyrt_kept_by(uint16_t flags)
{
    return __builtin_popcount(flags & PYRT_OBJECT_KEPT) * PYRT_DEFERRED_COUNT;
}

/* The references that are counted in the shared word; while it is being destroyed, those of destructors. */
static inline int64_t
pyrt_shared_references(int64_t shared, uint16_t flags)
{
    return pyrt_shared_count(shared) + (flags & PYRT_OBJECT_DYING ? PYRT_DEFERRED_COUNT : -pyrt_kept_by(flags));
}

/* What `local` counts. */
static inline int64_t
pyrt_local_count(const pyrt_object *object)
{
    uint32_t local = pyrt_load_relaxed(&object->local);
    return local >= PYRT_LOCAL_TRACED ? 0 : local;
}

/* What stands in `local` of an object that nobody owns. */
static inline uint32_t
pyrt_local_of_unowned(uint16_t flags)
{
    return flags & PYRT_OBJECT_IMMORTAL ? PYRT_LOCAL_IMMORTAL : flags & PYRT_OBJECT_TRACED ? PYRT_LOCAL_TRACED : 0;
}

/* ---- the owner's word -------------------------------------------------------------------------------------------- */

/* The end of a list is no address, and not nothing: that would be the word of an object that stands in no list. */
#define PYRT_LINK_END ((uint64_t)1)

static inline uint64_t
pyrt_link_to(const pyrt_object *or_null)
{
    return PYRT_UNOWNED | (or_null == NULL ? PYRT_LINK_END : (uint64_t)(uintptr_t)or_null);
}

static inline pyrt_object *
pyrt_linked_object(const pyrt_object *object)
{
    uint64_t link = pyrt_load_relaxed(&object->owner) & ~PYRT_UNOWNED;
    return link == PYRT_LINK_END ? NULL : (pyrt_object *)(uintptr_t)link;
}

/* ---- steps of counting (refcount.c) ------------------------------------------------------------------------------ */

/* Makes the object nobody's and adds `count` to the shared count: what stood in `local`, and more. The caller is the owner, which
 * has taken its name off the object; or it holds what has been queued, and the owner cannot be counting in `local`. Says whether
 * nothing is left: then the caller has to see to the death. */
bool pyrt_merge(pyrt_object *object, int64_t count);

/* Takes `count` off a merged or queued object's shared count, or asks for a merge if the rest may be nothing. Says whether nothing
 * is left. */
bool pyrt_drop(pyrt_object *object, int64_t count);

/* If the calling thread owns the object: takes its name off, and hands out the local count, which is to be merged. False if
 * it does not, or if the object stands in its queue. */
bool pyrt_disown(pyrt_object *object, int64_t *local);

/* Reports a step in the life of a traced object. With no lock held: the report hook is user code. */
void pyrt_trace(const pyrt_object *object, const char *what, const void *from);

/* pyrt_try_incref in two parts, for who holds a lock: the reference, and, later, the report of it. */
bool pyrt_try_count(pyrt_object *object);
void pyrt_trace_found(const pyrt_object *object, const void *from);

#endif
