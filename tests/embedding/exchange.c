/* exchange.c -- an extension of which several copies meet in one process: each makes objects that others drop, and starts and ends the runtime as often as it likes. It is built once for every Python from 3.10 on, and
 * loads in any interpreter of it.
 */
#include <pyconfig.h>
#if !defined(Py_GIL_DISABLED)
#    define Py_LIMITED_API 0x030a0000
#endif
#include <Python.h>

#include <pyruntime/capi.h>

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "sample_module.h"

/* ---- objects ----------------------------------------------------------------------------------------------------- */

typedef struct thing {
    pyrt_object base;
    long value;
} thing;

static long destroyed; /* things of this copy; atomic, relaxed */

static void
thing_dealloc(pyrt_object *object)
{
    (void)object;
    pyrt_fetch_add_relaxed(&destroyed, 1L);
}

/* make(int) -> int: the address of a thing with that value, one reference of which is the caller's. */
static PyObject *
make(PyObject *module, PyObject *arg)
{
    (void)module;
    long value = PyLong_AsLong(arg);
    if (value == -1 && PyErr_Occurred()) {
        return NULL;
    }
    const pyrt_type_spec spec = {
        .struct_size = sizeof(spec), .name = "thing", .basic_size = sizeof(thing), .dealloc = thing_dealloc};
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    if (thread == NULL) {
        return PyErr_NoMemory();
    }
    pyrt_type *type = pyrt_type_new(pyrt_interp_main(), &spec);
    thing *made = type == NULL ? NULL : (thing *)(void *)pyrt_object_new(thread, type);
    if (made != NULL) {
        made->value = value;
    }
    if (type != NULL) {
        pyrt_decref((pyrt_object *)type); /* each thing counts it */
    }
    pyrt_thread_release(thread);
    return made == NULL ? PyErr_NoMemory() : PyLong_FromVoidPtr(made);
}

/* value(address) -> int, of a thing of any copy. */
static PyObject *
value_of(PyObject *module, PyObject *arg)
{
    (void)module;
    const thing *it = PyLong_AsVoidPtr(arg);
    return it == NULL ? NULL : PyLong_FromLong(it->value);
}

/* destroyed() -> int: how many things of this copy have died. */
static PyObject *
destroyed_count(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromLong(pyrt_load_relaxed(&destroyed));
}

/* ---- the runtime ------------------------------------------------------------------------------------------------- */

/* again(n): starts the runtime and ends it, n times; it goes on, because others have started it too. */
static PyObject *
again(PyObject *module, PyObject *arg)
{
    (void)module;
    long times = PyLong_AsLong(arg);
    for (long i = 0; i < times; i++) {
        pyrt_thread *thread = pyrt_runtime_init() == PYRT_OK ? pyrt_thread_ensure(pyrt_interp_main()) : NULL;
        if (thread == NULL) {
            return PyErr_NoMemory();
        }
        pyrt_thread_release(thread);
        if (pyrt_runtime_fini() != PYRT_OK || !pyrt_runtime_is_initialized()) {
            PyErr_SetString(PyExc_RuntimeError, "it has ended for the others, too");
            return NULL;
        }
    }
    return Py_NewRef(Py_None);
}

static PyMethodDef methods[] = {
    SAMPLE_METHODS,
    {"make", make, METH_O, NULL},
    {"value", value_of, METH_O, NULL},
    {"destroyed", destroyed_count, METH_NOARGS, NULL},
    {"again", again, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static int
module_exec(PyObject *module)
{
    (void)module;
    return pyruntime_import();
}

/* Py_mod_multiple_interpreters and Py_mod_gil, with their answers "a GIL of its own" and "not used": newer than the API that
 * this is built for, and refused by the older versions, so they are filled in when it is known which version runs. */
static PyModuleDef_Slot slots[4] = {{Py_mod_exec, (void *)module_exec}};

static void
fill_slots(void)
{
    const char *version = Py_GetVersion();
    long minor = strncmp(version, "3.", 2) == 0 ? strtol(version + 2, NULL, 10) : 99;
    if (minor >= 12) {
        slots[1] = (PyModuleDef_Slot){3, (void *)2};
    }
    if (minor >= 13) {
        slots[2] = (PyModuleDef_Slot){4, (void *)1};
    }
}

SAMPLE_MODULE(fill_slots());
