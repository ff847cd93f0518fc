/* weak_lists.h -- the lists that weak references stand in, one for each referent, and the locks of these lists.
 *
 * The lists of all objects are divided among a number of stripes, each with a lock, by the address of the referent. The table
 * belongs to addresses, and therefore to the process and not to an interpreter: a weak reference that outlives its interpreter
 * finds it still. The locks are raw: never held while user code runs or a thread sleeps, so no pause finds one held for long, and
 * waiting for one lets go of nothing.
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
#ifndef PYRT_OBJECT_WEAK_LISTS_H
#define PYRT_OBJECT_WEAK_LISTS_H

#include "object/object_impl.h"

#include <pyruntime/weakref.h>

typedef struct pyrt_weak_stripe pyrt_weak_stripe;

/* Locks the stripe of a referent, of which only the address is looked at. All that follows wants it locked. */
pyrt_weak_stripe *pyrt_weak_lock(const pyrt_object *referent);
void pyrt_weak_unlock(pyrt_weak_stripe *locked);

/* Where the first member of the referent's list is or would be; the referent has not ended. */
pyrt_weakref **pyrt_weak_place(pyrt_weak_stripe *locked, const pyrt_object *referent);

/* Into the list of its key, and out of it. Never fails. */
void pyrt_weak_insert(pyrt_weak_stripe *locked, pyrt_weakref *weak);
void pyrt_weak_take_out(pyrt_weak_stripe *locked, pyrt_weakref *weak);

/* The one without a callback, if it lives; a new reference, whose trace is the caller's, with no lock (pyrt_trace_found). */
pyrt_weakref *pyrt_weak_find_shared(pyrt_weak_stripe *locked, const pyrt_object *referent);

/* Around a fork: every lock. They are the process's: what has outlived its interpreter, and the runtime, still takes them. */
void pyrt_weak_each_lock(void (*fn)(pyrt_raw_mutex *));

#endif
