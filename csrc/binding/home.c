/* home.c -- homes of Python interpreters: made at the first import, closed by an exit function, used again when empty. */
#include "binding/home.h"

#include "binding/callables.h"
#include "binding/domain.h"
#include "binding/endings.h"
#include "binding/gil.h"
#include "binding/waits.h"

#include "platform/futex.h"
#include "platform/report.h"

#include <sched.h>
#include <stdlib.h>

/* How long an interpreter that exits waits for readers that do not pass. Daemon threads may sleep in a block for ever. */
enum { PATIENCE_AT_EXIT_NS = 500000000 };

static const char KEY[] = "pyruntime._home";

/* Pushed to by compare-and-swap; nothing is ever taken out. */
static pyrt_py_home *homes;

pyrt_py_home *
pyrt_py_homes(void)
{
    /* acquire: pairs with the push in make_home. */
    return pyrt_load_acquire(&homes);
}

/* ---- forks ------------------------------------------------------------------------------------------------------- */

/* The newest of the homes that a fork under way has locked. Homes that come meanwhile belong to interpreters whose import of us
 * has not ended: in the child nobody uses them. */
static pyrt_py_home *locked;

void
pyrt_py_homes_fork_prepare(void)
{
    locked = pyrt_py_homes();
    for (pyrt_py_home *home = locked; home != NULL; home = home->next) {
        pyrt_raw_mutex_lock(&home->lock);
    }
}

void
pyrt_py_homes_fork_parent(void)
{
    for (pyrt_py_home *home = locked; home != NULL; home = home->next) {
        pyrt_raw_mutex_unlock(&home->lock);
    }
}

void
pyrt_py_homes_fork_child(void)
{
    for (pyrt_py_home *home = pyrt_py_homes(); home != NULL; home = home->next) {
        pyrt_raw_mutex_reinit(&home->lock);
    }
}

/* ---- errors ------------------------------------------------------------------------------------------------------ */

/* A new reference, never NULL. Looked up each time: errors are rare, and an import that few programs need costs all of them. */
static PyObject *
error_class(int status)
{
    PyObject *module = PyImport_ImportModule("pyruntime.errors");
    PyObject *classes = module == NULL ? NULL : PyObject_GetAttrString(module, "_FOR_THE_COMPILED_PART");
    PyObject *found = NULL;
    if (classes != NULL && PyTuple_Check(classes) && PyTuple_Size(classes) == PYRT_PY_ERRORS) {
        found = PyTuple_GetItem(classes, status);
    }
    Py_XINCREF(found);
    Py_XDECREF(classes);
    Py_XDECREF(module);
    if (found == NULL) {
        /* Python is on its way out and imports nothing any more. */
        PyErr_Clear();
        found = PyExc_RuntimeError;
        Py_INCREF(found);
    }
    return found;
}

PyObject *
pyrt_py_raise(int status, const char *format, ...)
{
    PyObject *type = error_class(status);
    va_list args;
    va_start(args, format);
    PyErr_FormatV(type, format, args);
    va_end(args);
    Py_DECREF(type);
    return NULL;
}

/* So many bits of an int, or more, are not written out as digits. */
enum { BITS_NOT_SHOWN = 129 };

PyObject *
pyrt_py_shown(PyObject *object)
{
    if (!PyLong_Check(object)) {
        return PyObject_Repr(object);
    }
    int overflow = 0;
    (void)PyLong_AsLongLongAndOverflow(object, &overflow);
    PyObject *size = overflow == 0 ? NULL : PyObject_CallMethod((PyObject *)&PyLong_Type, "bit_length", "O", object);
    size_t bits = size == NULL ? 0 : PyLong_AsSize_t(size);
    Py_XDECREF(size);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (bits < BITS_NOT_SHOWN) {
        return PyObject_Repr(object);
    }
    return overflow > 0 ? PyUnicode_FromFormat("2**%zu or more", bits - 1)
                        : PyUnicode_FromFormat("-2**%zu or less", bits - 1);
}

PyObject *
pyrt_py_raise_not(int status, PyObject *given, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    PyObject *text = PyUnicode_FromFormatV(format, args);
    va_end(args);
    PyObject *shown = text == NULL ? NULL : pyrt_py_shown(given);
    if (shown != NULL) {
        pyrt_py_raise(status, "%U, not %U", text, shown);
    }
    Py_XDECREF(text);
    Py_XDECREF(shown);
    return NULL;
}

void
pyrt_py_warn_of_collection(PyObject *context, const char *format, ...)
{
    PyObject *type = NULL;
    PyObject *value = NULL;
    PyObject *traceback = NULL;
    PyErr_Fetch(&type, &value, &traceback);
    va_list args;
    va_start(args, format);
    PyObject *text = PyUnicode_FromFormatV(format, args);
    va_end(args);
    if (text == NULL || PyErr_ResourceWarning(NULL, 1, "%U", text) != 0) {
        PyErr_WriteUnraisable(context);
    }
    Py_XDECREF(text);
    PyErr_Restore(type, value, traceback);
}

void
pyrt_py_home_drop(pyrt_py_home *home)
{
    /* seq_cst: everything that was done with the home comes before its next life. Pairs with the swap in make_home. */
    (void)pyrt_fetch_add_seq_cst(&home->references, (uint32_t)-1);
}

PyObject *
pyrt_py_publish(PyObject **place, PyObject *made)
{
    PyObject *there = NULL;
    /* As release it hands over what was made; as acquire it takes over what another has made. */
    if (made == NULL || pyrt_cas_acq_rel(place, &there, made)) {
        return made;
    }
    Py_DECREF(made);
    return there;
}

/* ---- the exit of the interpreter --------------------------------------------------------------------------------- */

/* From here on no other OS thread asks Python for anything. Who is asking now may have to wait for a pause of Python's, which
 * waits for this thread in turn, unless it is detached. */
static void
shut(pyrt_py_home *home)
{
    (void)pyrt_exchange_seq_cst(&home->open, 0u);
    /* seq_cst: pairs with "count, then look at open" of who hands over. */
    while (pyrt_load_seq_cst(&home->handing) != 0) {
        PyThreadState *outer = pyrt_py_enter();
        void *saved = pyrt_block_before();
        sched_yield();
        pyrt_block_after(saved);
        pyrt_py_leave(outer);
    }
}

/* The exit function of the interpreter, registered with atexit: other threads are still there, and so is all of Python. */
static PyObject *
at_exit(PyObject *capsule, PyObject *unused)
{
    (void)unused;
    pyrt_py_home *home = PyCapsule_GetPointer(capsule, KEY);
    if (home == NULL) {
        return NULL;
    }
    pyrt_py_wait_at_exit(home, pyrt_deadline_after(PATIENCE_AT_EXIT_NS));
    pyrt_py_report_at_exit(home);
    shut(home);
    pyrt_py_endings_at_exit(home);
    if (!home->is_main) {
        pyrt_py_domain_end_default(home);
    }
    Py_RETURN_NONE;
}

static int
register_exit(PyObject *capsule)
{
    static PyMethodDef definition = {"pyruntime_at_exit", at_exit, METH_NOARGS, NULL};
    PyObject *function = PyCFunction_NewEx(&definition, capsule, NULL);
    PyObject *module = PyImport_ImportModule("atexit");
    PyObject *done = NULL;
    if (function != NULL && module != NULL) {
        done = PyObject_CallMethod(module, "register", "O", function);
    }
    Py_XDECREF(function);
    Py_XDECREF(module);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* The interpreter's dict goes away: the last thing that it does with us. */
static void
forget(PyObject *capsule)
{
    pyrt_py_home *home = PyCapsule_GetPointer(capsule, KEY);
    shut(home);
    Py_CLEAR(home->section_type);
    Py_CLEAR(home->default_domain);
    Py_CLEAR(home->domain_type);
    Py_CLEAR(home->heap_type);
    Py_CLEAR(home->buffer_type);
    for (size_t i = 0; i < PYRT_PY_SYNC_TYPES; i++) {
        Py_CLEAR(home->sync_types[i]);
    }
    pyrt_py_domain_end_left(home);
    pyrt_py_home_drop(home);
}

/* ---- making one -------------------------------------------------------------------------------------------------- */

static pyrt_py_home *
take_empty_home(void)
{
    for (pyrt_py_home *home = pyrt_py_homes(); home != NULL; home = home->next) {
        uint32_t none = 0;
        if (!pyrt_cas_seq_cst(&home->references, &none, 1u)) {
            continue;
        }
        /* Who has handed the last one over may not be done with the home: he was counted before the node went. */
        if (pyrt_load_seq_cst(&home->handing) == 0) {
            return home;
        }
        pyrt_py_home_drop(home);
    }
    pyrt_py_home *home = calloc(1, sizeof(*home));
    if (home == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    home->references = 1;
    home->next = pyrt_load_relaxed(&homes);
    while (!pyrt_cas_acq_rel(&homes, &home->next, home)) {
    }
    return home;
}

/* The names of Python's interpreters, in reports. */
static pyrt_interp *
new_default_interp(int64_t python_id)
{
    char name[PYRT_PY_NAME];
    PyOS_snprintf(name, sizeof(name), "python %lld", (long long)python_id);
    return pyrt_interp_new(
        &(pyrt_interp_config){.struct_size = sizeof(pyrt_interp_config), .whence = PYRT_WHENCE_CAPI, .name = name});
}

static pyrt_py_home *
make_home(PyObject *dict)
{
    pyrt_py_home *home = take_empty_home();
    if (home == NULL) {
        return NULL;
    }
    int64_t python_id = PyInterpreterState_GetID(PyInterpreterState_Get());
    home->is_main = python_id == 0;
    home->interp = home->is_main ? pyrt_interp_main() : new_default_interp(python_id);
    PyObject *capsule = home->interp == NULL ? PyErr_NoMemory() : PyCapsule_New(home, KEY, forget);
    if (capsule == NULL) {
        if (!home->is_main) {
            (void)pyrt_interp_delete(home->interp);
        }
        pyrt_py_home_drop(home);
        return NULL;
    }
    home->interp_id = pyrt_interp_id(home->interp);
    /* The capsule holds the reference from here on. */
    pyrt_store_release(&home->open, 1u);
    PyObject *kept = register_exit(capsule) == 0 ? PyObject_CallMethod(dict, "setdefault", "sO", KEY, capsule) : NULL;
    if (kept != capsule && !home->is_main) {
        /* Another thread was faster. Ours has nothing in it, and is there until the interpreter exits. */
        pyrt_py_domain_end_default(home);
    }
    Py_DECREF(capsule);
    home = kept == NULL ? NULL : PyCapsule_GetPointer(kept, KEY);
    /* The dict has it. */
    Py_XDECREF(kept);
    return home;
}

pyrt_py_home *
pyrt_py_home_get(void)
{
    PyObject *dict = PyInterpreterState_GetDict(PyInterpreterState_Get());
    if (dict == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this interpreter has no dict for its extensions any more");
        return NULL;
    }
    /* Not PyDict_GetItemString, for which lack of memory is "there is none": a second home would take the place of the first. */
    PyObject *key = PyUnicode_FromString(KEY);
    PyObject *capsule = key == NULL ? NULL : PyDict_GetItemWithError(dict, key);
    Py_XDECREF(key);
    if (capsule != NULL) {
        return PyCapsule_GetPointer(capsule, KEY);
    }
    return PyErr_Occurred() ? NULL : make_home(dict);
}
