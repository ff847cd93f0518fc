/* sync.h -- the types behind pyruntime.sync: made when they are first wanted, once in each Python interpreter.
 *
 * Each type is in a file of its own, sync_NAME.c. Its objects belong to one Python interpreter. Their methods may run on
 * several threads at once, because there may be no GIL: what they change they change by atomic operations, or only where the
 * lock that the object stands for, or a mark in it, has made this thread its owner.
 */
#ifndef PYRT_BINDING_SYNC_H
#define PYRT_BINDING_SYNC_H

#include "binding/home.h"

/* Adds the types to the module pyruntime._core. For its method table. */
PyObject *pyrt_py_sync_add_types(PyObject *module, PyObject *unused);

/* Makes a heap type; a new reference, NULL with an exception. */
PyTypeObject *pyrt_py_mutex_type_new(void);
PyTypeObject *pyrt_py_rlock_type_new(void);
PyTypeObject *pyrt_py_event_type_new(void);
PyTypeObject *pyrt_py_condition_type_new(void);
PyTypeObject *pyrt_py_once_type_new(void);
PyTypeObject *pyrt_py_section_lock_type_new(void);
PyTypeObject *pyrt_py_rwlock_type_new(void);
PyTypeObject *pyrt_py_rwlock_side_type_new(void);
PyTypeObject *pyrt_py_striped_type_new(void);
PyTypeObject *pyrt_py_stripes_type_new(void);

/* In the child of a fork: the objects of critical sections that other threads were in are free. */
void pyrt_py_sections_fork_child(void);

/* An OS thread ends: if it is still attached, it gives up the objects of the sections that it is in. */
void pyrt_py_sections_end_of_thread(void);

/* Around a fork. In its child what lost threads were running by a Once is new again. */
void pyrt_py_onces_fork_prepare(void);
void pyrt_py_onces_fork_parent(void);
void pyrt_py_onces_fork_child(void);

/* In the child of a fork: the lock that no thread holds any more. */
void pyrt_py_conditions_fork_child(void);

/* tp_new of a type that takes no arguments: an object of zeros. */
PyObject *pyrt_py_sync_new(PyTypeObject *type, PyObject *args, PyObject *kwargs);

/* The end of an object that holds no others. `weakrefs` is its field of that name; NULL: it has none. The first step alone is
 * for one whose memory must stay. */
void pyrt_py_sync_clear_weakrefs(PyObject *self, PyObject *const *weakrefs);
void pyrt_py_sync_free(PyObject *self, PyObject *const *weakrefs);

/* Py_tp_members of a struct with the field `weakrefs`. Wants structmember.h. */
#define PYRT_PY_WEAKREFS(type)                                                        \
    {                                                                                 \
        {"__weaklistoffset__", T_PYSSIZET, offsetof(type, weakrefs), READONLY, NULL}, \
        {                                                                             \
            NULL, 0, 0, 0, NULL                                                       \
        }                                                                             \
    }

#endif
