/* sync_lockable.h -- what a Condition asks of the lock that it waits with. */
#ifndef PYRT_BINDING_SYNC_LOCKABLE_H
#define PYRT_BINDING_SYNC_LOCKABLE_H

#include "binding/sync_wait.h"

typedef struct pyrt_py_lockable {
    /* Its methods of these names, called without memory: a block has to be left also when there is none. */
    PyCFunction acquire, release;
    /* Whether this thread holds it, so that it alone can release it. */
    bool (*is_owned)(PyObject *lock);
    /* Unlocks, however often this thread has acquired it; false if it does not hold it, or not any more. The depth goes to
     * take_back, which waits as long as it takes, through signals and with an exception set. */
    bool (*release_all)(PyObject *lock, uint32_t *depth);
    void (*take_back)(PyObject *lock, uint32_t depth);
} pyrt_py_lockable;

extern const pyrt_py_lockable pyrt_py_mutex_lockable, pyrt_py_rlock_lockable;

/* NULL for the side that reads. */
const pyrt_py_lockable *pyrt_py_rwlock_side_lockable(PyObject *side);

/* NULL, and no exception, for an object that is none of our locks. */
const pyrt_py_lockable *pyrt_py_lockable_of(const pyrt_py_home *home, PyObject *lock);

#endif
