/* exchange.c -- an extension of which several copies meet in one process: each makes objects that another drops, runs a thread
 * that another stops, and starts and ends the runtime as often as it likes. It is built once for every Python from 3.10 on, and
 * loads in any interpreter of it.
 */
#include <pyconfig.h>
#if !defined(Py_GIL_DISABLED)
#    define Py_LIMITED_API 0x030a0000
#endif
#include <Python.h>

#include <pyruntime/capi.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static PyObject *
no_memory(void)
{
    return PyErr_NoMemory();
}

/* The address of the one runtime: its main interpreter. */
static PyObject *
runtime_address(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromVoidPtr(pyrt_interp_main());
}

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
        return no_memory();
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
    return made == NULL ? no_memory() : PyLong_FromVoidPtr(made);
}

/* value(address) -> int, of a thing of any copy. */
static PyObject *
value_of(PyObject *module, PyObject *arg)
{
    (void)module;
    const thing *it = PyLong_AsVoidPtr(arg);
    return it == NULL ? NULL : PyLong_FromLong(it->value);
}

/* drop(address): gives up a reference to a thing of any copy. */
static PyObject *
drop(PyObject *module, PyObject *arg)
{
    (void)module;
    thing *it = PyLong_AsVoidPtr(arg);
    if (it == NULL) {
        return NULL;
    }
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    if (thread == NULL) {
        return no_memory();
    }
    pyrt_decref(&it->base);
    pyrt_thread_release(thread);
    return Py_NewRef(Py_None);
}

/* destroyed() -> int: how many things of this copy have died. */
static PyObject *
destroyed_count(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromLong(pyrt_load_relaxed(&destroyed));
}

/* ---- a thread ---------------------------------------------------------------------------------------------------- */

static long steps; /* of the thread below; atomic, relaxed */
static int wanted; /* whether it is to run; atomic, relaxed */
static pthread_t runner;

static void *
run(void *unused)
{
    (void)unused;
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    while (thread != NULL && pyrt_load_relaxed(&wanted)) {
        pyrt_fetch_add_relaxed(&steps, 1L);
        pyrt_safepoint(thread);
    }
    if (thread != NULL) {
        pyrt_thread_release(thread);
    }
    return NULL;
}

/* start() -> int: the address of the steps of a thread that runs from now on. */
static PyObject *
start(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    pyrt_store_relaxed(&wanted, 1);
    if (pthread_create(&runner, NULL, run, NULL) != 0) {
        return no_memory();
    }
    return PyLong_FromVoidPtr(&steps);
}

static PyObject *
end(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    pyrt_store_relaxed(&wanted, 0);
    pthread_join(runner, NULL);
    return Py_NewRef(Py_None);
}

/* wait_for_step(address): until the thread of any copy has made one more. */
static PyObject *
wait_for_step(PyObject *module, PyObject *arg)
{
    (void)module;
    const long *counted = PyLong_AsVoidPtr(arg);
    if (counted == NULL) {
        return NULL;
    }
    long before = pyrt_load_relaxed(counted);
    Py_BEGIN_ALLOW_THREADS while (pyrt_load_relaxed(counted) == before)
    {
        sched_yield();
    }
    Py_END_ALLOW_THREADS return Py_NewRef(Py_None);
}

/* stands_still(address) -> bool: whether it makes none while this copy has stopped the world. */
static PyObject *
stands_still(PyObject *module, PyObject *arg)
{
    (void)module;
    const long *counted = PyLong_AsVoidPtr(arg);
    if (counted == NULL) {
        return NULL;
    }
    if (pyrt_stop_the_world(NULL) != PYRT_OK) {
        return no_memory();
    }
    long before = pyrt_load_relaxed(counted);
    bool still = true;
    for (int i = 0; i < 1000 && still; i++) {
        sched_yield();
        still = pyrt_load_relaxed(counted) == before;
    }
    pyrt_start_the_world(NULL);
    return PyBool_FromLong(still);
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
            return no_memory();
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
    {"runtime_address", runtime_address, METH_NOARGS, NULL},
    {"make", make, METH_O, NULL},
    {"value", value_of, METH_O, NULL},
    {"drop", drop, METH_O, NULL},
    {"destroyed", destroyed_count, METH_NOARGS, NULL},
    {"start", start, METH_NOARGS, NULL},
    {"end", end, METH_NOARGS, NULL},
    {"wait_for_step", wait_for_step, METH_O, NULL},
    {"stands_still", stands_still, METH_O, NULL},
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

#define STRING_OF(name) #name
#define STRING(name) STRING_OF(name)
#define INIT_OF(name) PyInit_##name
#define INIT(name) INIT_OF(name)

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = STRING(SAMPLE_NAME),
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC INIT(SAMPLE_NAME)(void);

PyMODINIT_FUNC
INIT(SAMPLE_NAME)(void)
{
    fill_slots();
    return PyModuleDef_Init(&definition);
}
