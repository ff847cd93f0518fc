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

/* The headers of 3.12 leave the reference out, because None is immortal there; where this runs it may not be. */
#undef Py_RETURN_NONE
#define Py_RETURN_NONE return Py_NewRef(Py_None)
#undef Py_RETURN_TRUE
#define Py_RETURN_TRUE return Py_NewRef(Py_True)
#undef Py_RETURN_FALSE
#define Py_RETURN_FALSE return Py_NewRef(Py_False)
#undef Py_RETURN_NOTIMPLEMENTED
#define Py_RETURN_NOTIMPLEMENTED return Py_NewRef(Py_NotImplemented)

/* From the name of a function that takes its arguments in some other way to what a method table wants. */
#define PYRT_PY_METHOD(function) ((PyCFunction)(void (*)(void))(function))

#endif
