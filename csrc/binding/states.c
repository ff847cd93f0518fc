/* states.c -- making, naming and keeping the thread states of Python's threads. */
#include "binding/states.h"

#include "binding/gil.h"

#include "platform/os_thread.h"

#include <unistd.h>

/* How long the main thread waits at most before it looks whether a signal has come. */
enum { ATTACH_SLICE_NS = 200000000 };

/* ---- the name and the kept state of an OS thread ------------------------------------------------------------------ */

/* The dict of threads by threading.get_ident(); a new reference, or NULL, perhaps with an exception. */
static PyObject *
active_threads(void)
{
    PyObject *module_name = PyUnicode_FromString("threading");
    PyObject *module = module_name == NULL ? NULL : PyImport_GetModule(module_name);
    PyObject *threads = module == NULL ? NULL : PyObject_GetAttrString(module, "_active");
    Py_XDECREF(module_name);
    Py_XDECREF(module);
    if (threads != NULL && !PyDict_Check(threads)) {
        Py_CLEAR(threads);
    }
    return threads;
}

PyObject *
pyrt_py_thread_name(uint64_t ident)
{
    PyObject *threads = active_threads();
    PyObject *key = PyLong_FromUnsignedLongLong(ident);
    PyObject *name = NULL;
    if (threads != NULL && key != NULL) {
        /* Not PyDict_GetItem..., which lends what another thread may be taking out. */
        PyObject *thread = PyObject_GetItem(threads, key);
        name = thread == NULL ? NULL : PyObject_GetAttrString(thread, "name");
        Py_XDECREF(thread);
    }
    PyErr_Clear();
    Py_XDECREF(threads);
    Py_XDECREF(key);
    return name;
}

PyObject *
pyrt_py_thread_name_of_tid(int32_t tid)
{
    PyObject *threads = active_threads();
    PyObject *all = threads == NULL ? NULL : PyDict_Values(threads);
    PyObject *name = NULL;
    for (Py_ssize_t i = 0; all != NULL && name == NULL && i < PyList_Size(all); i++) {
        PyObject *thread = PyList_GetItem(all, i);
        PyObject *native_id = PyObject_GetAttrString(thread, "native_id");
        if (native_id != NULL && PyLong_Check(native_id) && PyLong_AsLong(native_id) == tid) {
            name = PyObject_GetAttrString(thread, "name");
        }
        Py_XDECREF(native_id);
    }
    PyErr_Clear();
    Py_XDECREF(threads);
    Py_XDECREF(all);
    return name;
}

/* Python's name for this thread, without making one up: threading.current_thread() would add a thread that nobody removes.
 * Any failure means: no name. Where the module is not loaded there are no other threads of Python's to be told apart. */
static void
find_name(char name[PYRT_PY_NAME])
{
    if (pyrt_os_thread_tid() == getpid()) {
        PyOS_snprintf(name, PYRT_PY_NAME, "MainThread");
    }
    PyObject *found = pyrt_py_thread_name(PyThread_get_thread_ident());
    Py_ssize_t length = 0;
    const char *text = found != NULL && PyUnicode_Check(found) ? PyUnicode_AsUTF8AndSize(found, &length) : NULL;
    if (text != NULL) {
        PyOS_snprintf(name, PYRT_PY_NAME, "%s", text);
    }
    PyErr_Clear();
    Py_XDECREF(found);
}

void
pyrt_py_state_learn_name(void)
{
    pyrt_py_words *words = pyrt_py_my_words();
    words->is_named = true;
    find_name(words->name);
}

/* For a state that has just been made here. */
static void
introduce(pyrt_thread *thread)
{
    const pyrt_py_words *words = pyrt_py_my_words();
    if (words->name[0] != '\0') {
        pyrt_thread_set_name(thread, words->name);
    }
}

/* Whether the kept state is still the one that was kept: its memory stays the interpreter's, so that looking is safe. */
static bool
is_kept(const pyrt_py_words *words)
{
    return words->kept != NULL && words->kept->id == words->kept_id &&
           pyrt_load_relaxed(&words->kept->slot.word) != PYRT_STATE_SHUTTING_DOWN;
}

pyrt_thread *
pyrt_py_state_at_hand(void)
{
    const pyrt_py_words *words = pyrt_py_my_words();
    bool is_free = pyrt_thread_current() == NULL && is_kept(words) && words->kept->critical_sections == 0;
    return is_free ? words->kept : NULL;
}

pyrt_thread *
pyrt_py_state_keep(pyrt_interp *interp)
{
    pyrt_py_words *words = pyrt_py_my_words();
    if (pyrt_likely(is_kept(words))) {
        return words->kept;
    }
    pyrt_thread *thread = pyrt_thread_find(interp);
    if (thread == NULL) {
        PyThreadState *outer = pyrt_py_enter();
        thread = pyrt_thread_new(interp);
        pyrt_py_leave(outer);
        if (thread == NULL) {
            pyrt_py_raise(PYRT_ENOMEM, "no memory for a state of this thread");
            return NULL;
        }
        introduce(thread);
    }
    words->kept = thread;
    words->kept_id = thread->id;
    return thread;
}

/* ---- attaching -------------------------------------------------------------------------------------------------- */

/* Either attaches `*thread`, or (domain) ensures one and writes it there. Who comes in during a pause waits for its end, in
 * Python's main thread in slices: it alone runs signal handlers, and one that comes between its last look and its sleep does
 * not end that sleep. PYRT_EINTR: with the exception of a handler. */
static pyrt_status
attach(pyrt_thread **thread, pyrt_py_domain *domain)
{
    bool sliced = pyrt_os_thread_tid() == getpid();
    int64_t timeout_ns = sliced ? ATTACH_SLICE_NS : -1;
    unsigned flags = sliced ? PYRT_LOCK_INTERRUPTIBLE : 0;
    for (;;) {
        PyThreadState *outer = pyrt_py_enter();
        pyrt_status status = domain != NULL ? pyrt_thread_ensure_timed(domain->interp, timeout_ns, flags, thread)
                                            : pyrt_attach_timed(*thread, timeout_ns, flags);
        pyrt_py_leave(outer);
        if (status != PYRT_ETIMEDOUT && status != PYRT_EINTR) {
            return status;
        }
        if (PyErr_CheckSignals() != 0) {
            return PYRT_EINTR;
        }
    }
}

bool
pyrt_py_state_attach(pyrt_thread *thread)
{
    PyThreadState *outer = pyrt_py_enter();
    bool attached = pyrt_tryattach(thread);
    pyrt_py_leave(outer);
    if (pyrt_likely(attached)) {
        return true;
    }
    pyrt_status status = attach(&thread, NULL);
    if (status != PYRT_OK && status != PYRT_EINTR) {
        pyrt_py_raise(status, "the state of this thread cannot be attached: %s", pyrt_strerror(status));
    }
    return status == PYRT_OK;
}

/* ---- for a while ------------------------------------------------------------------------------------------------ */

pyrt_thread *
pyrt_py_state_ensure(pyrt_py_domain *domain)
{
    bool made = pyrt_thread_find(domain->interp) == NULL;
    pyrt_thread *thread;
    pyrt_status status = attach(&thread, domain);
    if (status == PYRT_OK && made) {
        introduce(thread);
    }
    else if (status == PYRT_ENOMEM) {
        pyrt_py_raise(status, "no memory for a thread state in domain '%S'", domain->name);
    }
    else if (status != PYRT_OK && status != PYRT_EINTR) {
        pyrt_py_raise(status, "no thread state in domain '%S': %s", domain->name, pyrt_strerror(status));
    }
    return thread;
}

void
pyrt_py_state_release(pyrt_thread *thread)
{
    PyThreadState *outer = pyrt_py_enter();
    pyrt_thread_release(thread);
    pyrt_py_leave(outer);
}
