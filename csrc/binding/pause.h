/* pause.h -- the object that stop_the_world() answers: a block for a with statement. */
#ifndef PYRT_BINDING_PAUSE_H
#define PYRT_BINDING_PAUSE_H

#include "binding/domain.h"

/* new_pause(domain_or_None, timeout_ns), for the module's method table. None: everything; a negative timeout is none. Wants
 * pyrt_py_sync_add_types first. */
PyObject *pyrt_py_pause_new(PyObject *module, PyObject *args);

PyTypeObject *pyrt_py_pause_type_new(void);

/* An OS thread has ended inside of its pause, which the core has ended: so has the block. */
void pyrt_py_pause_end_of_thread(void);

/* In the child of a fork: counts the use of the pause that this OS thread is in. */
void pyrt_py_pause_fork_child(void);

#endif
