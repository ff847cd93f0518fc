/* SPDX-License-Identifier: MIT
 *
 * weakref.h -- references to objects that do not keep them alive.
 *
 * A weak reference is an object itself: it is counted, and whoever gets one drops it with pyrt_decref(&weak->base). It gives a
 * reference to its object, the *referent*, as long as that lives; when the referent dies all its weak references are cleared, in
 * one step for whoever looks at one of them, and then their callbacks run. Nothing can bring the referent back: from its
 * last reference on, every look gives NULL.
 *
 * Guarantees:
 *   - pyrt_weakref_get takes no lock while the thread is attached to the interpreter of the two, and never answers another object
 *     than the one that the weak reference was made for, also when its memory has been used again.
 *   - A weak reference without a callback is shared: all who ask for one get the same, while it lives.
 *   - Callbacks run on the thread where the referent dies, the newest weak reference first, each once, when all have been
 *     cleared. That of a weak reference which is itself gone, or going at the same moment, does not run. No memory is needed
 *     for it.
 *
 * The weak references of an object are in a list that starts in a word of the object, if its type has one (weaklist_offset), and
 * else in a table beside it; under one of many locks, which the address of the referent chooses.
 */
#ifndef PYRUNTIME_WEAKREF_H
#define PYRUNTIME_WEAKREF_H

#include "refcount.h"

PYRT_BEGIN_DECLS

/* cdef: begin */
/* Read-only for users. State table of `referent`:
 *
 *   value     meaning                              who sets it
 *   address   of an object that lives or is dying  the maker
 *   NULL      cleared, for good                    who destroys the referent, or the weak reference itself, under the lock
 */
typedef struct pyrt_weakref {
    pyrt_object base;
    pyrt_object *referent;
    pyrt_interp *interp;           /* of both; no other has its address as long as this is there */
    pyrt_object *key;              /* the referent's address, for good: to find the lock and the list by */
    int (*callback)(struct pyrt_weakref *, void *arg);
    void *arg;
    struct pyrt_weakref *next, *previous; /* in the referent's list; this and the next under the lock that `key` chooses */
    struct pyrt_weakref *chain;    /* of the first in a list: the first of another list in the same place of the table */
    int64_t hash;                  /* of the referent, if `is_hashed`; written under the weak reference's own mutex */
    uint32_t is_hashed;
} pyrt_weakref;

/* A weak reference to the object, of which the caller has a reference, for a thread that is attached here and to the object's
 * interpreter; with a callback, or NULL, one of its own. A callback gets the weak reference, alive for the time of the call,
 * and `arg`, may do anything, and answers 0; another number is told through the report hook. NULL, with errno: ENOMEM; EINVAL,
 * reported, for a thread that is not attached here, an object of another interpreter, one of static memory, or one that is
 * dying.
 * blocks: shortly · allocates: yes · runs user code: no · quiescent: never · needs attached: yes · async-signal-safe: no */
pyrt_weakref *pyrt_weakref_new(pyrt_thread *thread, pyrt_object *object, int (*callback)(pyrt_weakref *, void *arg),
                               void *arg);

/* The long way of the inline function below; call that. */
pyrt_object *pyrt_weakref_get_slow(pyrt_weakref *weak);

/* How many weak references an object has, of which the caller has a reference.
 * blocks: shortly · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
size_t pyrt_weakref_count(const pyrt_object *object);

/* The hash of the referent, by the function: asked for once, and remembered when the referent is gone, so that a weak reference
 * can be a key. Errors: PYRT_ENOTFOUND when it is gone and has never been asked for; PYRT_EINVAL for NULL.
 * blocks: shortly · allocates: no · runs user code: yes (the function, and when objects die) · quiescent: may · needs attached: no
 * · async-signal-safe: no */
pyrt_status pyrt_weakref_hash(pyrt_weakref *weak, int64_t (*hash)(pyrt_object *), int64_t *out);
/* cdef: end */

PYRT_STATIC_ASSERT(offsetof(pyrt_weakref, referent) == 32, "inline code of embedding extensions reads it there");
PYRT_STATIC_ASSERT(offsetof(pyrt_weakref, interp) == 40, "inline code of embedding extensions reads it there");

/* A new reference to the referent, or NULL when it is gone or going. The caller has a reference to the weak reference.
 * blocks: shortly, if not attached to its interpreter · allocates: no · runs user code: yes, when another that has come in the
 * referent's place dies here · quiescent: never · needs attached: no · async-signal-safe: no */
static inline pyrt_object *
pyrt_weakref_get(pyrt_weakref *weak)
{
    /* acquire: what the referent's maker did is seen. Pairs with the release in pyrt_weakref_new. */
    pyrt_object *referent = pyrt_load_acquire(&weak->referent);
    if (pyrt_unlikely(referent == NULL)) {
        return NULL;
    }
    const pyrt_thread *thread = PYRT_TLS.current;
    if (pyrt_unlikely(thread == NULL || thread->interp != weak->interp)) {
        return PYRT_CALL(weakref_get_slow)(weak);
    }
    if (pyrt_unlikely(!pyrt_try_incref(referent))) {
        return NULL;
    }
    /* The memory may have become another object's before it was counted up; but the referent's end has cleared the weak reference
     * before it gave the memory away. acquire: keeps this load behind the count. Pairs with the release in the clearing. */
    if (pyrt_likely(pyrt_load_acquire(&weak->referent) == referent)) {
        return referent;
    }
    pyrt_decref(referent);
    return NULL;
}

/* Whether it has been cleared. If not, the referent may be going at this moment: only pyrt_weakref_get tells.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
static inline bool
pyrt_weakref_is_dead(const pyrt_weakref *weak)
{
    return pyrt_load_acquire(&weak->referent) == NULL;
}

PYRT_END_DECLS
#endif /* PYRUNTIME_WEAKREF_H */
