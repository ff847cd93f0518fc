/* sync.c -- making the types of pyruntime.sync, and those of pauses and of references, and what they have in common. */
#include "binding/sync.h"

#include "binding/pause.h"
#include "binding/rcu_cell.h"
#include "binding/shared_box.h"
#include "binding/shared_ref.h"
#include "binding/sync_lockable.h"
#include "binding/weak_table.h"

typedef struct type_maker {
    const char *name; /* in the module; NULL: nobody asks for it there */
    PyTypeObject *(*make)(void);
} type_maker;

/* In the order of PYRT_PY_SYNC_.... */
static const type_maker makers[PYRT_PY_SYNC_TYPES] = {
    [PYRT_PY_SYNC_MUTEX] = {"Mutex", pyrt_py_mutex_type_new},
    [PYRT_PY_SYNC_RLOCK] = {"RLock", pyrt_py_rlock_type_new},
    [PYRT_PY_SYNC_EVENT] = {"Event", pyrt_py_event_type_new},
    [PYRT_PY_SYNC_CONDITION] = {"Condition", pyrt_py_condition_type_new},
    [PYRT_PY_SYNC_ONCE] = {"Once", pyrt_py_once_type_new},
    [PYRT_PY_SYNC_STRIPES] = {"Stripes", pyrt_py_stripes_type_new},
    [PYRT_PY_SYNC_STRIPED_LOCK] = {"StripedLock", pyrt_py_striped_type_new},
    [PYRT_PY_SYNC_RWLOCK_SIDE] = {"RWLockSide", pyrt_py_rwlock_side_type_new},
    [PYRT_PY_SYNC_RWLOCK] = {"RWLock", pyrt_py_rwlock_type_new},
    [PYRT_PY_SYNC_CRITICAL_SECTION] = {"CriticalSection", pyrt_py_section_lock_type_new},
    [PYRT_PY_SYNC_PAUSE] = {"Pause", pyrt_py_pause_type_new},
    [PYRT_PY_SYNC_WEAK_EXPIRY] = {NULL, pyrt_py_weak_expiry_type_new},
    [PYRT_PY_SYNC_WEAK_TABLE] = {"WeakTable", pyrt_py_weak_table_type_new},
    [PYRT_PY_SYNC_SHARED_ANCHOR] = {NULL, pyrt_py_shared_anchor_type_new},
    [PYRT_PY_SYNC_SHARED_REF] = {"SharedRef", pyrt_py_shared_ref_type_new},
    [PYRT_PY_SYNC_RCU_CELL] = {"RCUCell", pyrt_py_rcu_cell_type_new},
};

PyObject *
pyrt_py_sync_add_types(PyObject *module, PyObject *unused)
{
    (void)unused;
    pyrt_py_home *home = pyrt_py_home_get();
    if (home == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < PYRT_PY_SYNC_TYPES; i++) {
        PyObject *type = pyrt_py_published(&home->sync_types[i]);
        if (type == NULL) {
            type = pyrt_py_publish(&home->sync_types[i], (PyObject *)makers[i].make());
        }
        if (type == NULL || (makers[i].name != NULL && PyObject_SetAttrString(module, makers[i].name, type) != 0)) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

PyObject *
pyrt_py_sync_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (PyTuple_Size(args) != 0 || (kwargs != NULL && PyDict_Size(kwargs) != 0)) {
        return pyrt_py_raise(PYRT_PY_WRONG_TYPE, "%R takes no arguments", (PyObject *)type);
    }
    allocfunc alloc = PyType_GetSlot(type, Py_tp_alloc);
    return alloc(type, 0);
}

void
pyrt_py_sync_clear_weakrefs(PyObject *self, PyObject *const *weakrefs)
{
#if defined(Py_GIL_DISABLED)
    /* Another thread may be taking one out of the list, under a lock of Python's. */
    bool has_weakrefs = weakrefs != NULL;
#else
    bool has_weakrefs = weakrefs != NULL && *weakrefs != NULL;
#endif
    if (has_weakrefs) {
        PyObject_ClearWeakRefs(self);
    }
}

void
pyrt_py_sync_free(PyObject *self, PyObject *const *weakrefs)
{
    PyTypeObject *type = Py_TYPE(self);
    pyrt_py_sync_clear_weakrefs(self, weakrefs);
    freefunc free_object = PyType_GetSlot(type, Py_tp_free);
    free_object(self);
    Py_DECREF((PyObject *)type);
}

const pyrt_py_lockable *
pyrt_py_lockable_of(const pyrt_py_home *home, PyObject *lock)
{
    PyTypeObject *type = Py_TYPE(lock);
    if (type == pyrt_py_sync_type(home, PYRT_PY_SYNC_MUTEX)) {
        return &pyrt_py_mutex_lockable;
    }
    if (type == pyrt_py_sync_type(home, PYRT_PY_SYNC_RLOCK)) {
        return &pyrt_py_rlock_lockable;
    }
    return type == pyrt_py_sync_type(home, PYRT_PY_SYNC_RWLOCK_SIDE) ? pyrt_py_rwlock_side_lockable(lock) : NULL;
}
