/* shared_ref.h -- the type of pyruntime.refcount.SharedRef (sync.h). */
#ifndef PYRT_BINDING_SHARED_REF_H
#define PYRT_BINDING_SHARED_REF_H

#include "binding/sync.h"

PyTypeObject *pyrt_py_shared_ref_type_new(void);

/* pyruntime.refcount.settle(), for the module's method table. */
extern const char pyrt_py_shared_ref_settle_doc[];
PyObject *pyrt_py_shared_ref_settle(PyObject *module, PyObject *unused);

#endif
