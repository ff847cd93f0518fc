/* python.h -- Python.h as the binding wants it: the limited API of 3.10 on builds with a GIL, so that one shared object serves
 * them all; the full API on free-threaded ones. Include it first.
 */
#ifndef PYRT_BINDING_PYTHON_H
#define PYRT_BINDING_PYTHON_H

#include <pyconfig.h>

#if !defined(Py_GIL_DISABLED)
/* The cffi part of the shared object defines it empty, which means the API of 3.2. */
#    undef Py_LIMITED_API
#    define Py_LIMITED_API 0x030a0000
#endif
#include <Python.h>

#include <pyruntime/pyruntime.h>

/* From the name of a function that takes its arguments in some other way to what a method table wants. */
#define PYRT_PY_METHOD(function) ((PyCFunction)(void (*)(void))(function))

#endif
