/* SPDX-License-Identifier: MIT
 *
 * refcount.h -- counting references to objects, and references in shared memory that threads read without a lock.
 *
 * Counting needs no attached thread and no interpreter: whoever holds a reference may copy and drop it, anywhere. It is cheapest
 * for the owner while it is attached (no atomic operation); others use one read-modify-write. object.h has the tables.
 *
 * A *slot* is a pyrt_object * in shared memory that holds a reference, or NULL. The four operations on slots are what a structure
 * needs whose readers take no lock. What makes them safe: memory of an object that has died stays an object's until every reader
 * has passed, the count of a dead one cannot be raised, and a reader looks at the slot once more when it has its reference.
 */
#ifndef PYRUNTIME_REFCOUNT_H
#define PYRUNTIME_REFCOUNT_H

#include "object.h"

PYRT_BEGIN_DECLS

/* The long ways of the inline functions below; call those. */
void pyrt_incref_slow(pyrt_object *object);
void pyrt_decref_slow(pyrt_object *object);
void pyrt_decref_last_local(pyrt_object *object);
void pyrt_decref_taken(pyrt_object *object, bool last);
bool pyrt_try_incref_slow(pyrt_object *object);
void pyrt_enable_try_incref_slow(pyrt_object *object);

/* Whether code that was compiled for libraries of minor versions back to this one may take the short way of a drop by another
 * than the owner: older ones have no long way behind it, and self_ids without the number of the interpreter. */
#if defined(PYRT_USE_CAPI) && defined(PYRT_ABI_TARGET) && PYRT_ABI_TARGET < 3
#    define PYRT_CAN_TAKE false
#else
#    define PYRT_CAN_TAKE true
#endif

/* ---- counting ---------------------------------------------------------------------------------------------------- */

/* The ways of counting up and down, for an owner and for everybody else. */
static inline void
pyrt_incref_by(uint64_t self_id, pyrt_object *object)
{
    /* relaxed, all three: if `owner` names this thread, which only it can make so, nobody else touches `local`. */
    uint32_t local = pyrt_load_relaxed(&object->local);
    if (pyrt_likely(pyrt_load_relaxed(&object->owner) == self_id)) {
        pyrt_store_relaxed(&object->local, local + 1);
        if (pyrt_unlikely(local + 1 >= PYRT_LOCAL_TRACED)) {
            PYRT_CALL(incref_slow)(object);
        }
    }
    else if (pyrt_unlikely(local >= PYRT_LOCAL_TRACED)) {
        if (local != PYRT_LOCAL_IMMORTAL) {
            PYRT_CALL(incref_slow)(object);
        }
    }
    else {
        /* relaxed: whoever copies a reference has one, which keeps the object as it is. */
        (void)pyrt_fetch_add_relaxed(&object->shared, (int64_t)PYRT_SHARED_ONE);
    }
}

static inline void
pyrt_decref_by(uint64_t self_id, pyrt_object *object)
{
    /* relaxed, all: as above. */
    uint32_t local = pyrt_load_relaxed(&object->local);
    if (pyrt_likely(pyrt_load_relaxed(&object->owner) == self_id)) {
        pyrt_store_relaxed(&object->local, local - 1);
        if (pyrt_unlikely(local == 1)) {
            PYRT_CALL(decref_last_local)(object);
        }
        return;
    }
    /* So that the owner's way above keeps neither word in a register for what follows. */
    pyrt_light_barrier();
    int64_t shared = pyrt_load_relaxed(&object->shared);
    /* The short way takes a reference off without knowing what comes of it: off a count that is above 0 as far as this thread can
     * see, if it is attached to the object's interpreter, because then it may still look at the object if it was mistaken; or off
     * one that is all there is. What is no count is nobody's. */
    if (PYRT_CAN_TAKE && pyrt_likely(shared >= PYRT_SHARED_ONE) &&
        (pyrt_likely((pyrt_load_relaxed(&object->owner) ^ PYRT_TLS.self_id) >> PYRT_OWNERS_SHIFT == 0) ||
         ((shared & PYRT_SHARED_STATES) == PYRT_SHARED_MERGED && local < PYRT_LOCAL_TRACED))) {
        /* acq_rel: as release, what this thread did with the object is done before it is destroyed. Pairs with the acquire of
         * whoever takes the last one. */
        int64_t old = pyrt_fetch_sub_acq_rel(&object->shared, (int64_t)PYRT_SHARED_ONE);
        if (pyrt_unlikely(old < PYRT_SHARED_ONE || old == (PYRT_SHARED_ONE | PYRT_SHARED_MERGED))) {
            PYRT_CALL(decref_taken)(object, old >= PYRT_SHARED_ONE);
        }
    }
    else if (local != PYRT_LOCAL_IMMORTAL) {
        PYRT_CALL(decref_slow)(object);
    }
}

/* One reference more, which is returned; the caller has one already.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
static inline pyrt_object *
pyrt_incref(pyrt_object *object)
{
    pyrt_incref_by(PYRT_TLS.self_id, object);
    return object;
}

/* One reference less. If it was the last the object is destroyed, here or, when only its owner can tell, by that one.
 * blocks: shortly, if it may be the last · allocates: no · runs user code: yes, when objects die · quiescent: never, but for what
 * a destructor does · needs attached: no · async-signal-safe: no */
static inline void
pyrt_decref(pyrt_object *object)
{
    pyrt_decref_by(PYRT_TLS.self_id, object);
}

/* The same for loops that hold their thread, which must be the attached one of this OS thread: a load less. */
static inline pyrt_object *
pyrt_incref_as(pyrt_thread *thread, pyrt_object *object)
{
    pyrt_incref_by(thread->self_id, object);
    return object;
}

static inline void
pyrt_decref_as(pyrt_thread *thread, pyrt_object *object)
{
    pyrt_decref_by(thread->self_id, object);
}

/* The same for pointers that may be NULL. */
static inline pyrt_object *
pyrt_xincref(pyrt_object *or_null)
{
    return or_null == NULL ? NULL : pyrt_incref(or_null);
}

static inline void
pyrt_xdecref(pyrt_object *or_null)
{
    if (or_null != NULL) {
        pyrt_decref(or_null);
    }
}

/* Whether the caller's is the only reference and nobody can get another one: it owns the object, which has one reference and is
 * not open to pyrt_try_incref. What others did with the object before is done. False also when that cannot be told.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: yes · async-signal-safe: no */
static inline bool
pyrt_is_uniquely_referenced(const pyrt_object *object)
{
    /* relaxed: the owner's own. acquire: pairs with the release of who has dropped a reference. */
    return pyrt_load_relaxed(&object->owner) == PYRT_TLS.self_id && pyrt_load_relaxed(&object->local) == 1 &&
           pyrt_load_acquire(&object->shared) == PYRT_SHARED_PLAIN;
}

/* Whether counting it does nothing.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
static inline bool
pyrt_is_immortal(const pyrt_object *object)
{
    return pyrt_load_relaxed(&object->local) == PYRT_LOCAL_IMMORTAL;
}

/* ---- references out of nothing ----------------------------------------------------------------------------------- */

/* Opens an object to pyrt_try_incref, for good. The caller has a reference. The operations on slots do so by themselves.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
static inline void
pyrt_enable_try_incref(pyrt_object *object)
{
    /* relaxed: a state is only left for a higher one. */
    if (pyrt_unlikely((pyrt_load_relaxed(&object->shared) & PYRT_SHARED_STATES) == PYRT_SHARED_PLAIN)) {
        PYRT_CALL(enable_try_incref_slow)(object);
    }
}

/* A reference to an object of which the caller has none, but knows that the memory is an object's: because its thread is attached
 * to the interpreter of the object and has not been quiescent since it found the pointer, or because it holds the lock that the
 * object's end needs. False when it is dying, dead, or not open. When the memory has been used again it is a reference to another
 * object: who has the pointer from a slot looks there again, as pyrt_load_ref does.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
static inline bool
pyrt_try_incref(pyrt_object *object)
{
    uint64_t self_id = PYRT_TLS.self_id;
    uint64_t owner = pyrt_load_relaxed(&object->owner);
    /* relaxed: as in pyrt_incref. An object that this thread owns is alive. */
    if (owner == self_id) {
        pyrt_incref_by(self_id, object);
        return true;
    }
    int64_t shared = pyrt_load_relaxed(&object->shared);
    /* The short ways are for an object whose owner lives by it alone, and for one with references in `shared`; not for what is
     * no count, which only an object of nobody has. In the first the new word does not come out of the load, so that the
     * processor need not wait for it. acquire: what is read of the object now is of after it became this one. Pairs with the
     * release with which a pointer to it was published. */
    if (pyrt_likely((owner & PYRT_UNOWNED) == 0 || pyrt_load_relaxed(&object->local) < PYRT_LOCAL_TRACED)) {
        int64_t open = PYRT_SHARED_OPEN;
        __asm__("" : "+r"(open)); /* else the compiler takes `shared`, which is the same */
        if (shared == PYRT_SHARED_OPEN
                ? pyrt_cas_acquire(&object->shared, &open, PYRT_SHARED_OPEN + PYRT_SHARED_ONE)
                : shared >= PYRT_SHARED_ONE && pyrt_cas_acquire(&object->shared, &shared, shared + PYRT_SHARED_ONE)) {
            return true;
        }
    }
    return PYRT_CALL(try_incref_slow)(object);
}

/* ---- slots ------------------------------------------------------------------------------------------------------- */

/* A new reference to what is in the slot, or NULL; the slot keeps its own. Everything that the object's publisher did before is
 * seen.
 * blocks: as pyrt_decref · allocates: no · runs user code: yes, when what was there before dies here · quiescent: never ·
 * needs attached: yes, to the interpreter of the objects · async-signal-safe: no */
static inline pyrt_object *
pyrt_load_ref(pyrt_object *const *slot)
{
    for (;;) {
        /* acquire, here and below: pairs with the release of the stores below. */
        pyrt_object *object = pyrt_load_acquire(slot);
        if (object == NULL) {
            return NULL;
        }
        if (pyrt_likely(pyrt_try_incref(object))) {
            /* The slot has a reference of its own: what is in it now, with a reference held here, is the one that was meant. */
            if (pyrt_likely(pyrt_load_acquire(slot) == object)) {
                return object;
            }
            pyrt_decref(object);
        }
    }
}

/* Puts an object (or NULL) into the slot, which takes over the caller's reference. exchange answers what was there, with the
 * slot's reference to it; store drops that. A reference belongs to one slot: one that is put into two, or kept beside, is dropped
 * once too often, and the object dies while somebody has it; pyrt_incref makes one for each.
 * blocks: as pyrt_decref · allocates: no · runs user code: store: yes, when objects die; exchange: no · quiescent: never · needs
 * attached: no · async-signal-safe: no */
static inline pyrt_object *
pyrt_exchange_ref(pyrt_object **slot, pyrt_object *or_null)
{
    if (or_null != NULL) {
        pyrt_enable_try_incref(or_null);
    }
    /* seq_cst, as release for the new object and acquire for the old one. */
    return pyrt_exchange_seq_cst(slot, or_null);
}

static inline void
pyrt_store_ref(pyrt_object **slot, pyrt_object *or_null)
{
    pyrt_xdecref(pyrt_exchange_ref(slot, or_null));
}

/* Puts `desired` (or NULL) into the slot if `expected` (or NULL) is in it. True: the slot has taken over the caller's reference to
 * desired and has dropped its own to expected; the caller keeps the one that it had. False: nothing has changed hands.
 * blocks: as pyrt_decref · allocates: no · runs user code: yes, when objects die · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
static inline bool
pyrt_compare_exchange_ref(pyrt_object **slot, pyrt_object *expected, pyrt_object *desired)
{
    pyrt_object *found = expected;
    if (desired != NULL) {
        pyrt_enable_try_incref(desired);
    }
    /* seq_cst: as in pyrt_exchange_ref. */
    if (!pyrt_cas_seq_cst(slot, &found, desired)) {
        return false;
    }
    pyrt_xdecref(expected);
    return true;
}

PYRT_END_DECLS
#endif /* PYRUNTIME_REFCOUNT_H */
