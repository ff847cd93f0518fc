/* vendored.c -- an extension that brings a core of its own, and prefers the runtime of the process where there is one. It is
 * compiled together with the core, under a prefix; test_vendored.py looks whose runtime each copy of it works with.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pyruntime/vendored.h>

#include <sched.h>

#include "sample_module.h"

static int answer; /* of the import */

static PyObject *
is_shared(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyBool_FromLong(answer == PYRUNTIME_SHARED);
}

static pyrt_mutex mutex;

/* lock() and unlock(): lock() sleeps where another thread holds it, and that must not be with the GIL. */
static PyObject *
lock(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    pyrt_mutex_lock(&mutex);
    return Py_NewRef(Py_None);
}

static PyObject *
unlock(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    pyrt_mutex_unlock(&mutex);
    return Py_NewRef(Py_None);
}

/* counted() -> int: threads of the runtime while this one is attached; and what it retires is disposed of. */
static PyObject *
counted(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    if (thread == NULL) {
        return PyErr_NoMemory();
    }
    void *block = pyrt_malloc(64);
    pyrt_status status = pyrt_free_delayed(thread, block);
    size_t count = pyrt_thread_list(pyrt_interp_main(), NULL, 0);
    pyrt_thread_release(thread);
    if (status != PYRT_OK || pyrt_qsbr_barrier(NULL) != PYRT_OK) {
        return PyErr_NoMemory();
    }
    return PyLong_FromSize_t(count);
}

static PyMethodDef methods[] = {
    SAMPLE_METHODS,
    {"is_shared", is_shared, METH_NOARGS, NULL},
    {"lock", lock, METH_NOARGS, NULL},
    {"unlock", unlock, METH_NOARGS, NULL},
    {"counted", counted, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int
module_exec(PyObject *module)
{
    (void)module;
    answer = pyruntime_import_or_vendored();
    return answer < 0 ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)module_exec},
    {0, NULL},
};

SAMPLE_MODULE((void)0);
