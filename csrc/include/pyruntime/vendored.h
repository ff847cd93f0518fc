/* SPDX-License-Identifier: MIT
 *
 * vendored.h -- for an extension that brings a core of its own and prefers the runtime of the process: where pyruntime can be
 * imported it uses that, and shares it with all others; where not, its own. Two runtimes in one process work, but know nothing of
 * each other: a pause stops the threads of one only, an object of one is nothing to the other.
 *
 *      #include <Python.h>
 *      #include <pyruntime/vendored.h>      in the place of <pyruntime/capi.h>
 *
 *      static int exec(PyObject *module) { return pyruntime_import_or_vendored() < 0 ? -1 : 0; }
 *
 * Compile the core into the same shared object, with -fvisibility=hidden, and give it a prefix (-DPYRT_PREFIX=mine_, for the core
 * and for the extension) where several such objects may be linked into one program.
 */
#ifndef PYRUNTIME_VENDORED_H
#define PYRUNTIME_VENDORED_H

#include "capi.h"

#if defined(Py_PYTHON_H)
#    include <dlfcn.h>
#    include <string.h>

/* What pyruntime_import_or_vendored answers, but for -1. */
enum { PYRUNTIME_SHARED = 0, PYRUNTIME_VENDORED = 1 };

/* The block hooks of the own runtime: nothing of it sleeps with the GIL. From 3.12 on the current Python thread state is a word
 * of the OS thread; before, of the process, and then ours only if it is the one that Python made for this OS thread. */
static inline void *
pyruntime_vendored_before(void)
{
    static PyThreadState *(*get_unchecked)(void);
    static int of_os_thread;
    if (pyrt_load_acquire(&get_unchecked) == NULL) {
        /* Neither is in the limited API, and each version exports one of them. Every thread finds the same. */
        void *found = dlsym(RTLD_DEFAULT, "PyThreadState_GetUnchecked");
        found = found != NULL ? found : dlsym(RTLD_DEFAULT, "_PyThreadState_UncheckedGet");
        if (found == NULL) {
            return NULL;
        }
        const char *version = Py_GetVersion();
        pyrt_store_relaxed(&of_os_thread, strncmp(version, "3.10.", 5) != 0 && strncmp(version, "3.11.", 5) != 0);
        pyrt_store_release(&get_unchecked, (PyThreadState * (*)(void))(uintptr_t)found);
    }
    PyThreadState *current = get_unchecked();
    if (current == NULL || !(pyrt_load_relaxed(&of_os_thread) || current == PyGILState_GetThisThreadState())) {
        return NULL;
    }
    return PyEval_SaveThread();
}

static inline void
pyruntime_vendored_after(void *saved)
{
    if (saved != NULL) {
        PyEval_RestoreThread((PyThreadState *)saved);
    }
}

/* Starts the own runtime, once in the process: PYRUNTIME_VENDORED, or -1 with MemoryError. */
static inline int
pyruntime_start_vendored(void)
{
    static const pyrt_block_hooks hooks = {pyruntime_vendored_before, pyruntime_vendored_after};
    const pyrt_capi *own = pyrt_capi_own();
    if (own->runtime_init() != PYRT_OK) {
        PyErr_NoMemory();
        return -1;
    }
    own->set_block_hooks(&hooks);
    pyrt_capi_use(own);
    return PYRUNTIME_VENDORED;
}

/* As pyruntime_import, but where pyruntime cannot be imported (ImportError, for whatever reason) the table is that of the own
 * core, which is started. PYRUNTIME_SHARED or PYRUNTIME_VENDORED, or -1 with an exception set. A pyruntime that is there and does
 * not fit is told by an ImportWarning with the words of the ImportError. What was chosen first holds for the process: an
 * interpreter that comes later and cannot import what the others share gets the exception. Needs the GIL.
 * blocks: as an import · allocates: yes · runs user code: as an import · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
static inline int
pyruntime_import_or_vendored(void)
{
    if (pyrt_capi_pointer == pyrt_capi_own()) {
        return PYRUNTIME_VENDORED;
    }
    bool chosen = pyrt_capi_pointer != NULL;
    if (pyruntime_import() == 0) {
        return PYRUNTIME_SHARED;
    }
    if (chosen || !PyErr_ExceptionMatches(PyExc_ImportError)) {
        return -1;
    }
    bool absent = PyErr_ExceptionMatches(PyExc_ModuleNotFoundError) != 0;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *words = absent || value == NULL ? NULL : PyObject_Str(value);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    const char *utf8 = words == NULL ? NULL : PyUnicode_AsUTF8AndSize(words, NULL);
    int warned = utf8 == NULL ? 0 : PyErr_WarnEx(PyExc_ImportWarning, utf8, 1);
    Py_XDECREF(words);
    if (warned != 0 || PyErr_Occurred()) {
        return -1;
    }
    return pyruntime_start_vendored();
}

#else
/* So that the compiler says what is missing. */
#    define pyruntime_import_or_vendored() pyruntime_import()
#endif

#endif /* PYRUNTIME_VENDORED_H */
