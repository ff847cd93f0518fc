/* attach.h -- what makes a cffi module out of the shared object into the compiled part of a Python package. */
#ifndef PYRT_BINDING_ATTACH_H
#define PYRT_BINDING_ATTACH_H

#include "binding/python.h"

/* Starts the runtime and lets it know of Python, once in the process: PYRT_OK or PYRT_ENOMEM. */
pyrt_status pyrt_py_start_process(void);

/* Adds the capsule and the versions to a module: 0, or -1 with an exception. */
int pyrt_py_add_constants(PyObject *module);

/* cdef: begin */
/* Starts the runtime for the calling Python interpreter, and adds types, functions and the capsule to its module
 * pyruntime._core. 0, or -1 after the reason has gone to sys.unraisablehook. Call it once for each module. */
int pyrt_py_attach(void);
/* cdef: end */

#endif
