/* capi.h -- the function table for other extensions (<pyruntime/capi.h> is their side of it). */
#ifndef PYRT_BINDING_CAPI_H
#define PYRT_BINDING_CAPI_H

#include "binding/python.h"

/* A capsule "pyruntime._C_API" around the table. */
PyObject *pyrt_py_capi_capsule(void);

#endif
