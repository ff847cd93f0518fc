/* attach.c -- adds what cffi cannot express to the module that cffi made: types, fast functions, the capsule.
 *
 * Everything stays in one shared object and one module, so that there is one runtime. Nothing is kept in static variables
 * that belongs to a Python interpreter; it is in the interpreter's home.
 */
#include "binding/attach.h"

#include "binding/callables.h"
#include "binding/capi.h"
#include "binding/domain.h"
#include "binding/endings.h"
#include "binding/gil.h"
#include "binding/heaps.h"
#include "binding/pause.h"
#include "binding/section.h"
#include "binding/shared_ref.h"
#include "binding/sync.h"
#include "binding/sync_wait.h"
#include "binding/uses.h"

#include <pthread.h>

/* ---- once in the process ----------------------------------------------------------------------------------------- */

static struct {
    pyrt_raw_mutex lock;
    bool has_key;
    bool started;
} process;

/* They run before those of the core, which were installed earlier: no lock of the core is held by then. Who forks waits for
 * instructions only, since none of these locks is held while Python runs. */
static void
fork_prepare(void)
{
    pyrt_raw_mutex_lock(&process.lock);
    pyrt_py_homes_fork_prepare();
    pyrt_py_onces_fork_prepare();
}

static void
fork_parent(void)
{
    pyrt_py_onces_fork_parent();
    pyrt_py_homes_fork_parent();
    pyrt_raw_mutex_unlock(&process.lock);
}

static void
fork_child(void)
{
    pyrt_raw_mutex_reinit(&process.lock);
    pyrt_py_homes_fork_child();
    for (pyrt_py_home *home = pyrt_py_homes(); home != NULL; home = home->next) {
        pyrt_py_callables_fork_child(home);
    }
    pyrt_py_callables_fork_settle();
    pyrt_py_endings_fork_child();
    pyrt_py_domains_fork_child();
    pyrt_py_uses_fork_child();
    pyrt_py_heaps_fork_child();
    pyrt_py_sections_fork_child();
    pyrt_py_conditions_fork_child();
    pyrt_py_onces_fork_child();
    pyrt_py_forks++;
}

static pyrt_status
start_locked(void)
{
    if (process.started) {
        return PYRT_OK;
    }
    pyrt_py_install_block_hooks();
    /* Before the core makes its key: glibc runs their destructors in that order. */
    if (!process.has_key && pyrt_py_uses_start() != 0) {
        return PYRT_ENOMEM;
    }
    process.has_key = true;
    pyrt_status status = pyrt_runtime_init();
    if (status != PYRT_OK) {
        return status;
    }
    /* This user of the runtime stays to the end of the process: Python threads may come back to it at any time. */
    process.started = true;
    return pthread_atfork(fork_prepare, fork_parent, fork_child) == 0 ? PYRT_OK : PYRT_ENOMEM;
}

pyrt_status
pyrt_py_start_process(void)
{
    pyrt_raw_mutex_lock(&process.lock);
    pyrt_status status = start_locked();
    pyrt_raw_mutex_unlock(&process.lock);
    return status;
}

/* ---- functions of the module ------------------------------------------------------------------------------------- */

static PyObject *
attached_thread(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    const pyrt_thread *thread = pyrt_thread_current();
    if (thread == NULL) {
        Py_RETURN_NONE;
    }
    return Py_BuildValue("(KL)", (unsigned long long)thread->id, (long long)pyrt_interp_id(thread->interp));
}

PyDoc_STRVAR(attached_thread_doc, "attached_thread($module, /)\n--\n\n"
                                  "The ids of the attached state of this thread and of its interpreter, or None.");

static PyObject *
has_stopped_the_world(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyBool_FromLong(pyrt_tls()->pause != NULL);
}

PyDoc_STRVAR(has_stopped_the_world_doc, "has_stopped_the_world($module, /)\n--\n\n"
                                        "Whether this thread is inside of a pause of its own, of whichever domain.");

static PyObject *
forks(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromUnsignedLong(pyrt_py_forks);
}

PyDoc_STRVAR(forks_doc, "forks($module, /)\n--\n\n"
                        "How many forks this process is the child of, itself and its parents.");

static PyObject *
shown(PyObject *module, PyObject *object)
{
    (void)module;
    return pyrt_py_shown(object);
}

static PyMethodDef functions[] = {
    {"shown", shown, METH_O, "shown($module, object, /)\n--\n\nAn argument as a message names it."},
    {"attached_thread", attached_thread, METH_NOARGS, attached_thread_doc},
    {"has_stopped_the_world", has_stopped_the_world, METH_NOARGS, has_stopped_the_world_doc},
    {"forks", forks, METH_NOARGS, forks_doc},
    {"new_pause", pyrt_py_pause_new, METH_VARARGS, "A block that stops a domain, or everything for None; in nanoseconds."},
    {"add_sync_types", pyrt_py_sync_add_types, METH_NOARGS,
     "Makes the types of pyruntime.sync, and Pause; no matter how often."},
    {"add_heap_types", pyrt_py_heap_add_types, METH_NOARGS, "Makes the types of pyruntime.heap; no matter how often."},
    {"heap_figures", pyrt_py_heap_figures, METH_NOARGS, "The figures of every Heap there is, as tuples."},
    {"settle", pyrt_py_shared_ref_settle, METH_NOARGS, pyrt_py_shared_ref_settle_doc},
    {NULL, NULL, 0, NULL},
};

/* ---- once in each interpreter ------------------------------------------------------------------------------------ */

/* Steals the value, which may be NULL with an exception. */
static int
add(PyObject *module, const char *name, PyObject *value)
{
    int result = value == NULL ? -1 : PyModule_AddObjectRef(module, name, value);
    Py_XDECREF(value);
    return result;
}

int
pyrt_py_add_constants(PyObject *module)
{
#if defined(Py_LIMITED_API)
    long limited = 1;
#else
    long limited = 0;
#endif
    if (add(module, "abi_version", Py_BuildValue("(ii)", PYRT_ABI_MAJOR, PYRT_ABI_MINOR)) != 0 ||
        add(module, "version", PyUnicode_FromString(pyrt_version())) != 0 ||
        add(module, "uses_limited_api", PyBool_FromLong(limited)) != 0) {
        return -1;
    }
    return add(module, "_C_API", pyrt_py_capi_capsule());
}

/* A module that is imported again gets the types that are there. */
static int
add_types(PyObject *module, pyrt_py_home *home)
{
    PyObject *section = pyrt_py_published(&home->section_type);
    PyObject *domain = pyrt_py_published(&home->domain_type);
    if (section == NULL) {
        section = pyrt_py_publish(&home->section_type, (PyObject *)pyrt_py_section_type_new());
    }
    if (domain == NULL) {
        domain = pyrt_py_publish(&home->domain_type, (PyObject *)pyrt_py_domain_type_new());
    }
    if (section == NULL || domain == NULL || PyModule_AddObjectRef(module, "Section", section) != 0) {
        return -1;
    }
    return PyModule_AddObjectRef(module, "Domain", domain);
}

static int
attach_to(PyObject *module)
{
    pyrt_status status = pyrt_py_start_process();
    if (status != PYRT_OK) {
        PyErr_Format(PyExc_ImportError, "pyruntime cannot start: %s", pyrt_strerror(status));
        return -1;
    }
    pyrt_py_home *home = pyrt_py_home_get();
    if (home == NULL || add_types(module, home) != 0 || pyrt_py_add_constants(module) != 0) {
        return -1;
    }
    return PyModule_AddFunctions(module, functions);
}

static int
attach(void)
{
    PyObject *name = PyUnicode_FromString("pyruntime._core");
    PyObject *module = name == NULL ? NULL : PyImport_GetModule(name);
    Py_XDECREF(name);
    if (module == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ImportError, "pyruntime._core is not in sys.modules: import pyruntime anew");
        }
        return -1;
    }
    int result = attach_to(module);
    Py_DECREF(module);
    return result;
}

int
pyrt_py_attach(void)
{
    if (attach() == 0) {
        return 0;
    }
    PyErr_WriteUnraisable(NULL);
    return -1;
}
