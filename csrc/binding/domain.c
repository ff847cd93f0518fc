/* domain.c -- the type behind pyruntime.qsbr.Domain: its life, and the calls that Python code makes often.
 *
 * What is here takes plain numbers and answers plain values; pyruntime/qsbr.py checks the arguments that need words, and
 * names what comes back.
 */
#include "binding/domain.h"

#include "binding/callables.h"
#include "binding/gil.h"
#include "binding/section.h"
#include "binding/uses.h"
#include "binding/waits.h"

#include "platform/report.h"

#include <string.h>

static pyrt_py_domain *
domain_of(PyObject *self)
{
    return (pyrt_py_domain *)self;
}

void
pyrt_py_raise_closed(pyrt_py_domain *domain, const char *what)
{
    pyrt_py_raise(PYRT_ESTATE, "%s: domain '%S' is closed; make a new one", what, domain->name);
}

/* ---- birth ------------------------------------------------------------------------------------------------------- */

static void
link_domain(pyrt_py_domain *domain)
{
    pyrt_py_home *home = domain->home;
    pyrt_raw_mutex_lock(&home->lock);
    domain->next = home->domains;
    home->domains = domain;
    pyrt_raw_mutex_unlock(&home->lock);
}

static void
unlink_domain(pyrt_py_domain *domain)
{
    pyrt_raw_mutex_lock(&domain->home->lock);
    for (pyrt_py_domain **link = &domain->home->domains; *link != NULL; link = &(*link)->next) {
        if (*link == domain) {
            *link = domain->next;
            break;
        }
    }
    pyrt_raw_mutex_unlock(&domain->home->lock);
}

/* An object without an interp: the caller fills it, or gives it up. */
static pyrt_py_domain *
new_object(PyTypeObject *type, pyrt_py_home *home)
{
    allocfunc alloc = PyType_GetSlot(type, Py_tp_alloc);
    pyrt_py_domain *domain = (pyrt_py_domain *)alloc(type, 0);
    if (domain != NULL) {
        pyrt_py_home_hold(home);
        domain->home = home;
        domain->interp_id = -1;
        domain->closed = 1;
    }
    return domain;
}

static PyObject *
open_object(pyrt_py_domain *domain, pyrt_interp *interp)
{
    domain->name = PyUnicode_FromString(pyrt_interp_name(interp));
    if (domain->name == NULL) {
        /* Cut in the middle of a character. */
        PyErr_Clear();
        domain->name =
            PyUnicode_DecodeUTF8(pyrt_interp_name(interp), (Py_ssize_t)strlen(pyrt_interp_name(interp)), "ignore");
    }
    domain->interp = interp;
    domain->interp_id = pyrt_interp_id(interp);
    domain->closed = 0;
    link_domain(domain);
    if (domain->name == NULL) {
        Py_DECREF((PyObject *)domain);
        return NULL;
    }
    return (PyObject *)domain;
}

/* NULL stands for no name; false with an exception. */
static bool
name_argument(PyObject *args, PyObject *kwargs, const char **name)
{
    static char *keywords[] = {"name", NULL};
    PyObject *object = Py_None;
    *name = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Domain", keywords, &object)) {
        return false;
    }
    if (object == Py_None) {
        return true;
    }
    if (!PyUnicode_Check(object)) {
        pyrt_py_raise(PYRT_PY_WRONG_TYPE, "the name of a domain is a str, not %R", (PyObject *)Py_TYPE(object));
        return false;
    }
    Py_ssize_t length = 0;
    const char *text = PyUnicode_AsUTF8AndSize(object, &length);
    if (text == NULL) {
        return false;
    }
    if (length == 0 || length >= PYRT_PY_NAME || strlen(text) != (size_t)length) {
        pyrt_py_raise(PYRT_EINVAL, "the name of a domain has 1 to %d bytes of UTF-8 and no null character, not %R",
                      PYRT_PY_NAME - 1, object);
        return false;
    }
    *name = text;
    return true;
}

static PyObject *
domain_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    pyrt_py_home *home = pyrt_py_home_get();
    const char *name = NULL;
    if (home == NULL || !name_argument(args, kwargs, &name)) {
        return NULL;
    }
    pyrt_py_domain *domain = new_object(type, home);
    if (domain == NULL) {
        return NULL;
    }
    PyThreadState *outer = pyrt_py_enter();
    pyrt_interp *interp = pyrt_interp_new(&(pyrt_interp_config){sizeof(pyrt_interp_config), 0, PYRT_WHENCE_STDLIB, name});
    pyrt_py_leave(outer);
    if (interp == NULL) {
        Py_DECREF((PyObject *)domain);
        return pyrt_py_raise(PYRT_ENOMEM, "no memory for a domain");
    }
    return open_object(domain, interp);
}

static PyObject *
domain_default(PyObject *type, PyObject *unused)
{
    (void)unused;
    pyrt_py_home *home = pyrt_py_home_get();
    if (home == NULL) {
        return NULL;
    }
    if (home->interp == NULL) {
        return pyrt_py_raise(PYRT_ESTATE, "this Python interpreter is exiting");
    }
    pyrt_py_domain *domain = new_object((PyTypeObject *)type, home);
    if (domain == NULL) {
        return NULL;
    }
    domain->is_default = true;
    domain->is_kept = home->is_main;
    return open_object(domain, home->interp);
}

/* ---- end --------------------------------------------------------------------------------------------------------- */

static pyrt_status
delete_interp(pyrt_py_domain *domain)
{
    PyThreadState *outer = pyrt_py_enter();
    pyrt_status status = pyrt_interp_delete(domain->interp);
    pyrt_py_leave(outer);
    return status;
}

/* Disposes of what is retired in it. False with an exception. */
static bool
close_domain(pyrt_py_domain *domain)
{
    if (domain->is_default) {
        pyrt_py_raise(PYRT_ESTATE, "the default domain cannot be closed: it ends with its Python interpreter");
        return false;
    }
    uint32_t open = 0;
    if (!pyrt_cas_seq_cst(&domain->closed, &open, 1u)) {
        return true;
    }
    uint32_t users = pyrt_load_seq_cst(&domain->users);
    pyrt_status status = users == 0 ? delete_interp(domain) : PYRT_EBUSY;
    if (status != PYRT_OK) {
        pyrt_store_release(&domain->closed, 0u);
        if (users != 0) {
            pyrt_py_raise(status, "domain '%S' cannot be closed: %u threads are inside of it", domain->name, users);
        }
        else {
            pyrt_py_raise(
                status,
                "domain '%S' cannot be closed: an extension keeps it by a thread state or a pin, or its disposers go "
                "on retiring",
                domain->name);
        }
        return false;
    }
    unlink_domain(domain);
    domain->interp = NULL;
    return true;
}

/* Closes or opens the objects that stand for the default domain, and answers how many uses there are of them. */
static uint32_t
mark_default(pyrt_py_home *home, uint32_t closed)
{
    uint32_t users = 0;
    pyrt_raw_mutex_lock(&home->lock);
    for (pyrt_py_domain *domain = home->domains; domain != NULL; domain = domain->next) {
        if (domain->is_default) {
            (void)pyrt_exchange_seq_cst(&domain->closed, closed);
            users += pyrt_load_seq_cst(&domain->users);
        }
    }
    pyrt_raw_mutex_unlock(&home->lock);
    return users;
}

void
pyrt_py_domain_end_default(pyrt_py_home *home)
{
    PyThreadState *outer = pyrt_py_enter();
    bool ended = mark_default(home, 1) == 0 && pyrt_interp_delete(home->interp) == PYRT_OK;
    pyrt_py_leave(outer);
    if (ended) {
        home->interp = NULL;
    }
    else {
        (void)mark_default(home, 0);
    }
}

static void
domain_dealloc(PyObject *self)
{
    pyrt_py_domain *domain = domain_of(self);
    PyTypeObject *type = Py_TYPE(self);
    unlink_domain(domain);
    if (domain->interp != NULL && !domain->is_default && delete_interp(domain) != PYRT_OK) {
        pyrt_report("domain %lld was dropped without close() while an extension keeps it; it stays in memory",
                    (long long)domain->interp_id);
    }
    Py_XDECREF(domain->name);
    pyrt_py_home_drop(domain->home);
    freefunc free_object = PyType_GetSlot(type, Py_tp_free);
    free_object(self);
    Py_DECREF((PyObject *)type);
}

static PyObject *
domain_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (!close_domain(domain_of(self))) {
        return NULL;
    }
    pyrt_py_run_if_any(domain_of(self)->home);
    Py_RETURN_NONE;
}

/* ---- blocks and quiescent states --------------------------------------------------------------------------------- */

static PyObject *
domain_reading(PyObject *self, PyObject *unused)
{
    (void)unused;
    return pyrt_py_section_new(domain_of(self), PYRT_PY_READING);
}

static PyObject *
domain_attached(PyObject *self, PyObject *unused)
{
    (void)unused;
    return pyrt_py_section_new(domain_of(self), PYRT_PY_ATTACHED);
}

/* Callables wait for their readers, in the queue of this thread perhaps. */
static bool
process(pyrt_py_domain *domain)
{
    pyrt_py_lease lease;
    if (!pyrt_py_lease_begin(domain, "quiescent()", &lease)) {
        return false;
    }
    PyThreadState *outer = pyrt_py_enter();
    (void)pyrt_process_delayed(lease.thread);
    pyrt_py_leave(outer);
    pyrt_py_lease_end(&lease);
    return true;
}

static PyObject *
domain_quiescent(PyObject *self, PyObject *unused)
{
    (void)unused;
    pyrt_py_domain *domain = domain_of(self);
    pyrt_py_home *home = domain->home;
    pyrt_thread *current = pyrt_thread_current();
    if (pyrt_unlikely(pyrt_load_relaxed(&domain->closed) != 0)) {
        pyrt_py_raise_closed(domain, "quiescent()");
        return NULL;
    }
    if (current != NULL) {
        if (pyrt_unlikely(pyrt_py_refuse_reading("quiescent()"))) {
            return NULL;
        }
        if (current->interp == domain->interp) {
            PyThreadState *outer = pyrt_py_enter();
            pyrt_safepoint(current);
            pyrt_py_leave(outer);
        }
    }
    if (pyrt_unlikely(pyrt_load_relaxed(&home->waiting) != 0) && !process(domain)) {
        return NULL;
    }
    pyrt_py_run_if_any(home);
    Py_RETURN_NONE;
}

/* ---- goals ------------------------------------------------------------------------------------------------------- */

static PyObject *
domain_advance(PyObject *self, PyObject *unused)
{
    (void)unused;
    pyrt_py_domain *domain = domain_of(self);
    if (!pyrt_py_use_begin(domain, "advance()")) {
        return NULL;
    }
    uint64_t goal = pyrt_qsbr_advance(domain->interp);
    pyrt_py_use_end(domain);
    return PyLong_FromUnsignedLongLong(goal);
}

static PyObject *
domain_poll(PyObject *self, PyObject *goal)
{
    pyrt_py_lease lease;
    uint64_t value = PyLong_AsUnsignedLongLong(goal);
    if ((value == UINT64_MAX && PyErr_Occurred()) || !pyrt_py_lease_begin(domain_of(self), "poll()", &lease)) {
        return NULL;
    }
    bool reached = pyrt_qsbr_poll(lease.thread, value);
    pyrt_py_lease_end(&lease);
    return PyBool_FromLong(reached);
}

/* ---- retire ------------------------------------------------------------------------------------------------------ */

enum { RETIRES_BETWEEN = 128, BYTES_BETWEEN = 64 * 1024 };

static bool
size_argument(PyObject *object, size_t *size)
{
    if (object == NULL) {
        *size = 0;
        return true;
    }
    if (!PyLong_Check(object) || PyBool_Check(object)) {
        pyrt_py_raise(PYRT_PY_WRONG_TYPE, "nbytes is an int, a number of bytes, not %R", (PyObject *)Py_TYPE(object));
        return false;
    }
    Py_ssize_t value = PyLong_AsSsize_t(object);
    if (value < 0) {
        PyErr_Clear();
        pyrt_py_raise(PYRT_EINVAL, "nbytes is from 0 to %zd, not %R", PY_SSIZE_T_MAX, object);
        return false;
    }
    *size = (size_t)value;
    return true;
}

/* retire(callable, nbytes=0); the callable by position. */
static bool
retire_arguments(PyObject *const *args, Py_ssize_t count, PyObject *names, size_t *bytes)
{
    Py_ssize_t named = names == NULL ? 0 : PyTuple_Size(names);
    if (count < 1 || count + named > 2 ||
        (named == 1 && PyUnicode_CompareWithASCIIString(PyTuple_GetItem(names, 0), "nbytes") != 0)) {
        pyrt_py_raise(PYRT_PY_WRONG_TYPE, "retire() takes a callable and nbytes=0, nothing else");
        return false;
    }
    if (!PyCallable_Check(args[0])) {
        pyrt_py_raise(PYRT_PY_WRONG_TYPE, "retire() takes a callable without arguments, not %R", args[0]);
        return false;
    }
    return size_argument(count + named == 2 ? args[1] : NULL, bytes);
}

/* Inside a reading block of another domain this thread cannot have a state of this one attached; the queue that waits for
 * the readers of all domains will do. */
static bool
is_reading_elsewhere(const pyrt_py_domain *domain)
{
    const pyrt_thread *current = pyrt_thread_current();
    return !domain->is_kept && current != NULL && current->slot.read_depth != 0 && current->interp != domain->interp;
}

/* -1 with an exception. */
static int
retire_node(pyrt_py_domain *domain, pyrt_py_callable *node, size_t bytes)
{
    if (is_reading_elsewhere(domain)) {
        if (!pyrt_py_use_begin(domain, "retire()")) {
            return -1;
        }
        pyrt_status status = pyrt_retire_global(node, bytes, pyrt_py_callable_dispose);
        pyrt_py_use_end(domain);
        return (int)status;
    }
    pyrt_py_lease lease;
    if (!pyrt_py_lease_begin(domain, "retire()", &lease)) {
        return -1;
    }
    pyrt_status status = pyrt_retire(lease.thread, node, bytes, pyrt_py_callable_dispose);
    pyrt_py_lease_end(&lease);
    return (int)status;
}

/* Detached threads pass no safepoint. So that what they retire does not wait until they come back, the main thread looks
 * after it now and then: as often as a chunk of the core's queues is full. */
static void
ask_to_process(pyrt_py_home *home, size_t bytes, bool busy)
{
    pyrt_py_words *words = pyrt_py_my_words();
    words->retires++;
    words->retired_bytes += bytes;
    if (busy || words->retires >= RETIRES_BETWEEN || words->retired_bytes >= BYTES_BETWEEN) {
        words->retires = 0;
        words->retired_bytes = 0;
        pyrt_py_schedule(home, PYRT_PY_DUE_PROCESS);
    }
}

static PyObject *
domain_retire(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    pyrt_py_domain *domain = domain_of(self);
    pyrt_py_home *home = domain->home;
    size_t bytes = 0;
    if (!retire_arguments(args, count, names, &bytes)) {
        return NULL;
    }
    if (pyrt_load_acquire(&home->open) == 0) {
        return pyrt_py_raise(PYRT_ESTATE, "retire(): this Python interpreter is exiting and will run no more callables");
    }
    pyrt_py_callable *node = pyrt_py_callable_new(home, args[0]);
    if (node == NULL) {
        return pyrt_py_raise(PYRT_ENOMEM, "no memory to retire a callable; it was not taken");
    }
    int status = retire_node(domain, node, bytes);
    if (status != PYRT_OK && status != PYRT_EBUSY) {
        pyrt_py_callable_delete(node);
        return status < 0
                   ? NULL
                   : pyrt_py_raise(status, "retire(): %s; the callable was not taken", pyrt_strerror((pyrt_status)status));
    }
    ask_to_process(home, bytes, status == PYRT_EBUSY);
    return PyBool_FromLong(status == PYRT_OK);
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static PyObject *
wait_with(pyrt_py_wait_result (*wait)(pyrt_py_domain *, int64_t), PyObject *self, PyObject *timeout_ns)
{
    int64_t timeout = PyLong_AsLongLong(timeout_ns);
    if (timeout == -1 && PyErr_Occurred()) {
        return NULL;
    }
    pyrt_py_wait_result result = wait(domain_of(self), timeout);
    return result == PYRT_PY_FAILED ? NULL : PyBool_FromLong(result == PYRT_PY_DONE);
}

static PyObject *
domain_synchronize(PyObject *self, PyObject *timeout_ns)
{
    return wait_with(pyrt_py_synchronize, self, timeout_ns);
}

static PyObject *
domain_barrier(PyObject *self, PyObject *timeout_ns)
{
    return wait_with(pyrt_py_barrier, self, timeout_ns);
}

/* ---- looking at it ----------------------------------------------------------------------------------------------- */

enum { STATS_AT_MOST = 64 };

static PyObject *
domain_stats(PyObject *self, PyObject *unused)
{
    (void)unused;
    pyrt_py_domain *domain = domain_of(self);
    uint64_t values[STATS_AT_MOST];
    if (!pyrt_py_use_begin(domain, "stats()")) {
        return NULL;
    }
    size_t count = pyrt_qsbr_stats_read(domain->interp, values, STATS_AT_MOST);
    pyrt_py_use_end(domain);
    PyObject *dict = PyDict_New();
    for (size_t i = 0; dict != NULL && i < count && i < STATS_AT_MOST; i++) {
        PyObject *value = PyLong_FromUnsignedLongLong(values[i]);
        if (value == NULL || PyDict_SetItemString(dict, pyrt_qsbr_stats_name(i), value) != 0) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(value);
    }
    return dict;
}

static PyObject *
domain_stall_report(PyObject *self, PyObject *unused)
{
    (void)unused;
    pyrt_py_domain *domain = domain_of(self);
    pyrt_stall_report report = {.struct_size = sizeof(report)};
    if (!pyrt_py_use_begin(domain, "stall_report()")) {
        return NULL;
    }
    pyrt_status status = pyrt_qsbr_stall_report(domain->interp, &report);
    pyrt_py_use_end(domain);
    if (status == PYRT_ENOTFOUND) {
        Py_RETURN_NONE;
    }
    if (status != PYRT_OK) {
        return pyrt_py_raise(status, "stall_report(): %s", pyrt_strerror(status));
    }
    PyObject *name = PyUnicode_DecodeUTF8(report.thread_name, (Py_ssize_t)strlen(report.thread_name), "replace");
    if (name == NULL) {
        return NULL;
    }
    return Py_BuildValue("(KNiLKLKK)", (unsigned long long)report.thread_id, name, (int)report.os_tid,
                         (long long)report.interp_id, (unsigned long long)report.goal, (long long)report.held_ns,
                         (unsigned long long)report.pending_items, (unsigned long long)report.pending_bytes);
}

static PyObject *
domain_set_bound(PyObject *self, PyObject *args)
{
    pyrt_py_domain *domain = domain_of(self);
    Py_ssize_t items = 0;
    Py_ssize_t bytes = 0;
    if (!PyArg_ParseTuple(args, "nn", &items, &bytes) || !pyrt_py_use_begin(domain, "set_bound()")) {
        return NULL;
    }
    pyrt_status status = pyrt_retire_set_bound(domain->interp, (size_t)items, (size_t)bytes);
    pyrt_py_use_end(domain);
    if (status != PYRT_OK) {
        return pyrt_py_raise(status, "set_bound(): %s", pyrt_strerror(status));
    }
    Py_RETURN_NONE;
}

static PyObject *
domain_get_name(PyObject *self, void *unused)
{
    (void)unused;
    Py_INCREF(domain_of(self)->name);
    return domain_of(self)->name;
}

static PyObject *
domain_get_closed(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(pyrt_load_acquire(&domain_of(self)->closed) != 0);
}

static PyObject *
domain_get_interpreter_id(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromLongLong(domain_of(self)->interp_id);
}

static PyObject *
domain_repr(PyObject *self)
{
    pyrt_py_domain *domain = domain_of(self);
    return PyUnicode_FromFormat("<domain '%S'%s>", domain->name, pyrt_load_acquire(&domain->closed) ? ", closed" : "");
}

/* ---- the type ---------------------------------------------------------------------------------------------------- */

PyDoc_STRVAR(
    reading_doc,
    "reading($self, /)\n--\n\n"
    "A block in which this thread may look at shared things without a lock.\n\n"
    "For a with statement. What was reachable when the block was entered, and is retired meanwhile, is not\n"
    "disposed of before the block is left. Blocks of one domain nest. Keep it short, and do not sleep in it: it holds up\n"
    "every goal of the domain.\n\n"
    "    >>> from pyruntime.qsbr import reading\n"
    "    >>> shared = [1, 2, 3]\n"
    "    >>> with reading():\n"
    "    ...     total = sum(shared)\n"
    "    >>> total\n"
    "    6\n\n"
    "Entering raises StateError inside a reading() block of another domain, which it would end, and when the\n"
    "domain is closed. Inside, quiescent(), synchronize() and barrier() raise StateError.\n\n"
    "After FreeBSD's epoch and smr sections, and Linux' rcu_read_lock.");

PyDoc_STRVAR(attached_doc,
             "attached($self, /)\n--\n\n"
             "A block in which this thread takes part in the domain: it stays attached from the first line to the last.\n\n"
             "For loops that look at shared things all the time. As in reading(), nothing that the thread can reach is\n"
             "disposed of; but quiescent(), synchronize() and barrier() may be called, and end that protection at their\n"
             "place. A pause of the world waits until the thread calls quiescent() or leaves.\n\n"
             "    >>> from pyruntime.qsbr import quiescent\n"
             "    >>> from pyruntime.state import attached, current\n"
             "    >>> with attached():\n"
             "    ...     for turn in range(3):\n"
             "    ...         quiescent()\n"
             "    ...     state = current().state\n"
             "    >>> state\n"
             "    'attached'\n\n"
             "Entering raises StateError inside a reading() block of another domain, and when the domain is closed.\n\n"
             "After PyThreadState attach and detach of CPython's free-threaded build.");

PyDoc_STRVAR(
    quiescent_doc,
    "quiescent($self, /)\n--\n\n"
    "Says that this thread holds no reference to shared things at this point.\n\n"
    "In an attached() block this is a safepoint: goals pass, a pause of the world stops the thread here. Everywhere,\n"
    "callables that no reader can see any more are run, by this thread, which is detached meanwhile.\n\n"
    "    >>> from pyruntime.qsbr import quiescent, retire\n"
    "    >>> retire(lambda: print('gone'))\n"
    "    True\n"
    "    >>> quiescent()\n"
    "    gone\n\n"
    "Raises StateError inside a reading() block, which it would end, and when the domain is closed.\n\n"
    "After liburcu's rcu_quiescent_state.");

PyDoc_STRVAR(
    retire_doc,
    "retire($self, callable, /, nbytes=0)\n--\n\n"
    "Has a callable called when every reader that is inside now has left.\n\n"
    "Unlink the thing first, so that no reader comes to it anew. The callable takes no arguments; what it raises goes to\n"
    "sys.unraisablehook. It is called by a thread of this Python interpreter: in quiescent(), synchronize(),\n"
    "barrier() and Domain.close(), where an outermost block is left, in the main thread between two instructions,\n"
    "as signal handlers are, and at exit at the latest. Never inside retire(). nbytes is what the thing holds, in\n"
    "bytes, for the bound.\n\n"
    "Answers True, or False when the callable was taken but more waits than the bound allows (1 MiB or 65536\n"
    "callables a thread, see Domain.set_bound): slow down, call quiescent() or barrier().\n\n"
    "    >>> from pyruntime.qsbr import barrier, retire\n"
    "    >>> shared = {'table': [1, 2]}\n"
    "    >>> old, shared['table'] = shared['table'], [3]\n"
    "    >>> retire(old.clear, nbytes=80)\n"
    "    True\n"
    "    >>> barrier()\n"
    "    >>> old\n"
    "    []\n\n"
    "Raises ArgumentTypeError, ArgumentError for a negative nbytes, OutOfMemoryError (the callable was not\n"
    "taken), and StateError when the domain is closed or the interpreter is exiting.\n\n"
    "After Linux' call_rcu, and the delayed free of CPython's free-threaded build.");

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\n"
                        "Ends the domain; what is retired in it is disposed of. A second close does nothing.\n\n"
                        "Raises BusyError while a thread is inside, and StateError for the default domain.");

static PyMethodDef domain_methods[] = {
    {"reading", domain_reading, METH_NOARGS, reading_doc},
    {"attached", domain_attached, METH_NOARGS, attached_doc},
    {"quiescent", domain_quiescent, METH_NOARGS, quiescent_doc},
    {"retire", PYRT_PY_METHOD(domain_retire), METH_FASTCALL | METH_KEYWORDS, retire_doc},
    {"close", domain_close, METH_NOARGS, close_doc},
    {"_default", domain_default, METH_NOARGS | METH_CLASS, "The default domain of the calling Python interpreter."},
    {"_advance", domain_advance, METH_NOARGS, "The next goal, as an int."},
    {"_poll", domain_poll, METH_O, "Whether a goal, an int, is reached."},
    {"_synchronize", domain_synchronize, METH_O, "Waits so many nanoseconds (negative: for ever); False: in vain."},
    {"_barrier", domain_barrier, METH_O, "As _synchronize."},
    {"_stats", domain_stats, METH_NOARGS, "The statistics, by name."},
    {"_stall_report", domain_stall_report, METH_NOARGS, "The fields of a StallReport, or None."},
    {"_set_bound", domain_set_bound, METH_VARARGS, "Items and bytes."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef domain_properties[] = {
    {"name", domain_get_name, NULL, "The name, in reports and in repr().", NULL},
    {"closed", domain_get_closed, NULL, "Whether close() has succeeded.", NULL},
    {"interpreter_id", domain_get_interpreter_id, NULL, "The id of the domain among pyruntime's interpreters.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot domain_slots[] = {
    {Py_tp_new, domain_new},
    {Py_tp_dealloc, domain_dealloc},
    {Py_tp_repr, domain_repr},
    {Py_tp_methods, domain_methods},
    {Py_tp_getset, domain_properties},
    {Py_tp_doc, "The compiled half of pyruntime.qsbr.Domain."},
    {0, NULL},
};

static PyType_Spec domain_spec = {
    .name = "pyruntime._core.Domain",
    .basicsize = sizeof(pyrt_py_domain),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = domain_slots,
};

PyTypeObject *
pyrt_py_domain_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&domain_spec);
}
