/* domain_retire.c -- Domain.retire(): from a Python callable to a node in a retire queue of the core.
 *
 * The call never runs user code and never waits. What happens to the node then is callables.c's.
 */
#include "binding/domain_calls.h"

#include "binding/callables.h"
#include "binding/uses.h"

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
        pyrt_py_raise_not(PYRT_EINVAL, object, "nbytes is from 0 to %zd", PY_SSIZE_T_MAX);
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
        pyrt_py_raise_not(PYRT_PY_WRONG_TYPE, args[0], "retire() takes a callable without arguments");
        return false;
    }
    return size_argument(count + named == 2 ? args[1] : NULL, bytes);
}

/* Inside a block of another domain this thread cannot have a state of this one attached, without ending what that block
 * protects; the queue that waits for the readers of all domains will do. */
static bool
is_inside_elsewhere(const pyrt_py_domain *domain)
{
    const pyrt_thread *current = pyrt_thread_current();
    return !domain->is_kept && current != NULL && current->interp != pyrt_load_relaxed(&domain->interp);
}

/* -1 with an exception. */
static int
retire_node(pyrt_py_domain *domain, pyrt_py_callable *node, size_t bytes)
{
    if (is_inside_elsewhere(domain)) {
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

const char pyrt_py_domain_retire_doc[] =
    "retire($self, callable, /, nbytes=0)\n--\n\n"
    "Has a callable called when every reader that is inside now has left.\n\n"
    "Unlink the thing first, so that no reader comes to it anew. The callable takes no arguments; what it raises goes to\n"
    "sys.unraisablehook. nbytes is what the thing holds, in bytes, for the bound.\n\n"
    "When it is called: what a thread retires collects in batches (of some hundreds, or 64 KiB by nbytes), and a batch\n"
    "waits for the readers when it is full. The last, open one waits for quiescent() or barrier(), in this thread, for a\n"
    "barrier() anywhere, or for the end of the thread or program. Who calls it: a thread of this Python interpreter that\n"
    "is then outside of all blocks, in quiescent(), barrier() or Domain.close(), where an outermost block is left, in the\n"
    "main thread between two instructions, as signal handlers are, and at exit at the latest. Never inside retire().\n\n"
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
    "After Linux' call_rcu, and the delayed free of CPython's free-threaded build.";

PyObject *
pyrt_py_domain_retire(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    pyrt_py_domain *domain = pyrt_py_domain_of(self);
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
    if (pyrt_py_is_time_to_process(bytes, status == PYRT_EBUSY)) {
        pyrt_py_schedule(home, PYRT_PY_DUE_PROCESS);
    }
    return PyBool_FromLong(status == PYRT_OK);
}
