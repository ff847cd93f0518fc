/* domain_calls.c -- the calls of a domain that do not end it, but for retire(): blocks, quiescent states, goals, waits, and
 * what there is to look at.
 */
#include "binding/domain_calls.h"

#include "binding/callables.h"
#include "binding/gil.h"
#include "binding/section.h"
#include "binding/uses.h"
#include "binding/waits.h"

#include "state/thread_impl.h"

#include <string.h>

/* ---- blocks and quiescent states --------------------------------------------------------------------------------- */

const char pyrt_py_domain_reading_doc[] =
    "reading($self, /)\n--\n\n"
    "A block in which this thread may look at shared things without a lock.\n\n"
    "For a with statement. What was reachable when the block was entered, and is retired meanwhile, is not\n"
    "disposed of before the block is left. Blocks of one domain nest. Keep it short, and do not sleep in it: it holds up\n"
    "every goal of the domain. Do not await or yield in it: it belongs to the thread, not to the task or generator, and\n"
    "leaving blocks in another order than the reverse one of entering, or on another thread, raises StateError.\n\n"
    "    >>> from pyruntime.qsbr import reading\n"
    "    >>> shared = [1, 2, 3]\n"
    "    >>> with reading():\n"
    "    ...     total = sum(shared)\n"
    "    >>> total\n"
    "    6\n\n"
    "Entering raises StateError inside a block of another domain, whose protection it would end, and when the domain is\n"
    "closed. Inside, quiescent(), synchronize() and barrier(), of any domain, raise StateError.\n\n"
    "After FreeBSD's epoch and smr sections, and Linux' rcu_read_lock.";

PyObject *
pyrt_py_domain_reading(PyObject *self, PyObject *unused)
{
    (void)unused;
    return pyrt_py_section_new(pyrt_py_domain_of(self), PYRT_PY_READING);
}

const char pyrt_py_domain_attached_doc[] =
    "attached($self, /)\n--\n\n"
    "A block in which this thread takes part in the domain: it stays attached from the first line to the last.\n\n"
    "For loops that look at shared things all the time. As in reading(), nothing that the thread can reach is\n"
    "disposed of; but quiescent(), synchronize() and barrier(), of any domain, may be called, and end that protection at\n"
    "their place. Nothing else ends it. A pause of the world waits until the thread calls quiescent() or leaves. As with\n"
    "reading(), do not await or yield in it: blocks are left in the reverse order of entering, by their thread.\n\n"
    "    >>> from pyruntime.qsbr import quiescent\n"
    "    >>> from pyruntime.state import attached, current\n"
    "    >>> with attached():\n"
    "    ...     for turn in range(3):\n"
    "    ...         quiescent()\n"
    "    ...     state = current().state\n"
    "    >>> state\n"
    "    'attached'\n\n"
    "Entering raises StateError inside a block of another domain, whose protection it would end, and when the domain is\n"
    "closed.\n\n"
    "After PyThreadState attach and detach of CPython's free-threaded build.";

PyObject *
pyrt_py_domain_attached(PyObject *self, PyObject *unused)
{
    (void)unused;
    return pyrt_py_section_new(pyrt_py_domain_of(self), PYRT_PY_ATTACHED);
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

const char pyrt_py_domain_quiescent_doc[] =
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
    "After liburcu's rcu_quiescent_state.";

PyObject *
pyrt_py_domain_quiescent(PyObject *self, PyObject *unused)
{
    (void)unused;
    pyrt_py_domain *domain = pyrt_py_domain_of(self);
    pyrt_py_home *home = domain->home;
    if (pyrt_unlikely(pyrt_py_domain_is_closed(domain))) {
        pyrt_py_raise_closed(domain, "quiescent()");
        return NULL;
    }
    pyrt_py_leave_what_is_left_behind();
    pyrt_thread *current = pyrt_thread_current();
    if (current != NULL) {
        if (pyrt_unlikely(pyrt_py_refuse_reading("quiescent()"))) {
            return NULL;
        }
        if (current->interp == pyrt_load_relaxed(&domain->interp)) {
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

PyObject *
pyrt_py_domain_advance(PyObject *self, PyObject *unused)
{
    (void)unused;
    pyrt_py_domain *domain = pyrt_py_domain_of(self);
    if (!pyrt_py_use_begin(domain, "advance()")) {
        return NULL;
    }
    uint64_t goal = pyrt_qsbr_advance(domain->interp);
    pyrt_py_use_end(domain);
    return PyLong_FromUnsignedLongLong(goal);
}

PyObject *
pyrt_py_domain_poll(PyObject *self, PyObject *goal)
{
    pyrt_py_domain *domain = pyrt_py_domain_of(self);
    uint64_t value = PyLong_AsUnsignedLongLong(goal);
    if ((value == UINT64_MAX && PyErr_Occurred()) || !pyrt_py_use_begin(domain, "poll()")) {
        return NULL;
    }
    /* Without a state of this thread, which it would have to attach. */
    bool reached = pyrt_qsbr_poll_interp(domain->interp, value);
    pyrt_py_use_end(domain);
    return PyBool_FromLong(reached);
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static PyObject *
wait_with(pyrt_py_wait_result (*wait)(pyrt_py_domain *, int64_t), PyObject *self, PyObject *timeout_ns)
{
    int64_t timeout = PyLong_AsLongLong(timeout_ns);
    if (timeout == -1 && PyErr_Occurred()) {
        return NULL;
    }
    pyrt_py_wait_result result = wait(pyrt_py_domain_of(self), timeout);
    return result == PYRT_PY_FAILED ? NULL : PyBool_FromLong(result == PYRT_PY_DONE);
}

PyObject *
pyrt_py_domain_synchronize(PyObject *self, PyObject *timeout_ns)
{
    return wait_with(pyrt_py_synchronize, self, timeout_ns);
}

PyObject *
pyrt_py_domain_barrier(PyObject *self, PyObject *timeout_ns)
{
    return wait_with(pyrt_py_barrier, self, timeout_ns);
}

/* ---- looking at it ----------------------------------------------------------------------------------------------- */

enum { STATS_AT_MOST = 64 };

PyObject *
pyrt_py_domain_stats(PyObject *self, PyObject *unused)
{
    (void)unused;
    pyrt_py_domain *domain = pyrt_py_domain_of(self);
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

PyObject *
pyrt_py_domain_stall_report(PyObject *self, PyObject *unused)
{
    (void)unused;
    pyrt_py_domain *domain = pyrt_py_domain_of(self);
    pyrt_stall_report report = {.struct_size = sizeof(report)};
    pyrt_memory_stats memory = {.struct_size = sizeof(memory)};
    if (!pyrt_py_use_begin(domain, "stall_report()")) {
        return NULL;
    }
    pyrt_status status = pyrt_qsbr_stall_report(domain->interp, &report);
    pyrt_interp_memory_stats(domain->interp, &memory);
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
    return Py_BuildValue("(KNiLKLKKK)", (unsigned long long)report.thread_id, name, (int)report.os_tid,
                         (long long)report.interp_id, (unsigned long long)report.goal, (long long)report.held_ns,
                         (unsigned long long)report.pending_items, (unsigned long long)report.pending_bytes,
                         (unsigned long long)memory.held_bytes);
}

PyObject *
pyrt_py_domain_set_bound(PyObject *self, PyObject *args)
{
    pyrt_py_domain *domain = pyrt_py_domain_of(self);
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
