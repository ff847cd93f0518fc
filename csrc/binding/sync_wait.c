/* sync_wait.c -- arguments, owners' names, and the loop around every wait of a lock. */
#include "binding/sync_wait.h"

#include "binding/gil.h"
#include "binding/states.h"

#include "platform/futex.h"
#include "platform/os_thread.h"

#include <math.h>
#include <unistd.h>

/* How long the main thread sleeps at most before it looks whether a signal has come. */
enum { SLICE_NS = 200000000 };

uint32_t pyrt_py_forks;

/* ---- owners ------------------------------------------------------------------------------------------------------ */

PyObject *
pyrt_py_thread_text(uint64_t ident)
{
    PyObject *name = pyrt_py_thread_name(ident);
    if (name == NULL) {
        return PyUnicode_FromFormat("thread %llu", (unsigned long long)ident);
    }
    PyObject *text = PyUnicode_FromFormat("thread %R (id %llu)", name, (unsigned long long)ident);
    Py_DECREF(name);
    return text;
}

/* ---- arguments --------------------------------------------------------------------------------------------------- */

/* As threading.TIMEOUT_MAX: what 63 bits of nanoseconds can hold, in whole seconds. */
static const double LONGEST_SECONDS = 9223372036.0;

bool
pyrt_py_timeout_ns(PyObject *seconds, int64_t *timeout_ns)
{
    if (!PyFloat_Check(seconds) && !PyIndex_Check(seconds)) {
        pyrt_py_raise(PYRT_PY_WRONG_TYPE, "a timeout is an int or a float, in seconds, not %R",
                      (PyObject *)Py_TYPE(seconds));
        return false;
    }
    double value = PyFloat_AsDouble(seconds);
    bool fits = !(value == -1.0 && PyErr_Occurred());
    if (!fits) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
            return false;
        }
        PyErr_Clear();
    }
    else if (isnan(value)) {
        pyrt_py_raise(PYRT_EINVAL, "a timeout is a number of seconds, not NaN");
        return false;
    }
    if (!fits || fabs(value) > LONGEST_SECONDS) {
        /* Without the number: it may have more digits than Python writes. */
        pyrt_py_raise(PYRT_EOVERFLOW,
                      "timeout value is too large: more than threading.TIMEOUT_MAX seconds, or less than minus that");
        return false;
    }
    *timeout_ns = (int64_t)ceil(value * 1e9);
    return true;
}

/* The argument `name` at a position, by position or by keyword; NULL if it is not given. */
typedef struct arguments {
    const char *what;
    const char *const *known;
    Py_ssize_t capacity;
} arguments;

static bool
take_arguments(const arguments *wanted, PyObject *const *args, Py_ssize_t count, PyObject *names, PyObject **found)
{
    Py_ssize_t named = names == NULL ? 0 : PyTuple_Size(names);
    if (count > wanted->capacity) {
        pyrt_py_raise(PYRT_PY_WRONG_TYPE, "%s takes at most %zd arguments, not %zd", wanted->what, wanted->capacity, count);
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        found[i] = args[i];
    }
    for (Py_ssize_t n = 0; n < named; n++) {
        PyObject *name = PyTuple_GetItem(names, n);
        Py_ssize_t i = 0;
        while (i < wanted->capacity && PyUnicode_CompareWithASCIIString(name, wanted->known[i]) != 0) {
            i++;
        }
        if (i == wanted->capacity || found[i] != NULL) {
            pyrt_py_raise(PYRT_PY_WRONG_TYPE, "%s has no argument %R, or got it twice", wanted->what, name);
            return false;
        }
        found[i] = args[count + n];
    }
    return true;
}

bool
pyrt_py_acquire_arguments(PyObject *const *args, Py_ssize_t count, PyObject *names, const char *what, int64_t *timeout_ns)
{
    static const char *const known[] = {"blocking", "timeout"};
    PyObject *found[2] = {NULL, NULL};
    *timeout_ns = -1;
    if (count == 0 && names == NULL) {
        return true;
    }
    if (!take_arguments(&(arguments){what, known, 2}, args, count, names, found)) {
        return false;
    }
    int blocking = found[0] == NULL ? 1 : PyObject_IsTrue(found[0]);
    int64_t timeout = -1000000000;
    if (blocking < 0 || (found[1] != NULL && !pyrt_py_timeout_ns(found[1], &timeout))) {
        return false;
    }
    bool has_timeout = timeout != -1000000000;
    if (!blocking && has_timeout) {
        pyrt_py_raise(PYRT_EINVAL, "%s: can't specify a timeout for a non-blocking call", what);
        return false;
    }
    if (has_timeout && timeout < 0) {
        pyrt_py_raise(PYRT_EINVAL, "%s: timeout value must be a non-negative number, or -1 to wait without end", what);
        return false;
    }
    *timeout_ns = !blocking ? 0 : has_timeout ? timeout : -1;
    return true;
}

bool
pyrt_py_wait_arguments(PyObject *const *args, Py_ssize_t count, PyObject *names, const char *what, int64_t *timeout_ns)
{
    static const char *const known[] = {"timeout"};
    PyObject *found[1] = {NULL};
    *timeout_ns = -1;
    if (!take_arguments(&(arguments){what, known, 1}, args, count, names, found)) {
        return false;
    }
    if (found[0] == NULL || found[0] == Py_None) {
        return true;
    }
    if (!pyrt_py_timeout_ns(found[0], timeout_ns)) {
        return false;
    }
    /* As threading has it: a time that is over already. */
    *timeout_ns = *timeout_ns < 0 ? 0 : *timeout_ns;
    return true;
}

bool
pyrt_py_count(PyObject *number, const char *what, Py_ssize_t *count)
{
    if (!PyIndex_Check(number)) {
        pyrt_py_raise(PYRT_PY_WRONG_TYPE, "%s is an int, not %R", what, (PyObject *)Py_TYPE(number));
        return false;
    }
    *count = PyNumber_AsSsize_t(number, NULL);
    return *count != -1 || !PyErr_Occurred();
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static pyrt_status
attempt(const pyrt_py_waiting *waiting, int64_t timeout_ns)
{
    PyThreadState *outer = pyrt_py_enter();
    pyrt_status status = waiting->attempt(waiting->lock, timeout_ns, PYRT_LOCK_INTERRUPTIBLE);
    pyrt_py_leave(outer);
    return status;
}

static pyrt_py_wait_result
fail(const pyrt_py_waiting *waiting, pyrt_status status, const char *why)
{
    uint64_t owner = waiting->owner == NULL ? 0 : pyrt_load_relaxed(waiting->owner);
    PyObject *text = owner == 0 ? NULL : pyrt_py_thread_text(owner);
    if (text != NULL) {
        pyrt_py_raise(status, "%s %s: it is held by %S", waiting->what, why, text);
        Py_DECREF(text);
    }
    else if (!PyErr_Occurred()) {
        pyrt_py_raise(status, "%s %s", waiting->what, why);
    }
    return PYRT_PY_FAILED;
}

/* Who holds the lock may be standing still until this thread goes on. */
static pyrt_py_wait_result
look_once_in_pause(const pyrt_py_waiting *waiting)
{
    pyrt_status status = attempt(waiting, 0);
    if (status == PYRT_OK) {
        return PYRT_PY_DONE;
    }
    return fail(waiting, PYRT_EDEADLK, "would wait inside of this thread's stop_the_world() block");
}

static bool
is_main_thread(void)
{
    return pyrt_os_thread_tid() == getpid();
}

pyrt_py_wait_result
pyrt_py_wait(const pyrt_py_waiting *waiting, int64_t timeout_ns)
{
    if (pyrt_tls()->pause != NULL) {
        return look_once_in_pause(waiting);
    }
    int64_t deadline = pyrt_deadline_after(timeout_ns);
    bool sliced = is_main_thread();
    for (;;) {
        int64_t left = deadline == INT64_MAX ? -1 : deadline - pyrt_now_ns();
        left = deadline != INT64_MAX && left < 0 ? 0 : left;
        bool is_slice = sliced && (left < 0 || left > SLICE_NS);
        pyrt_status status = attempt(waiting, is_slice ? SLICE_NS : left);
        if (status == PYRT_OK) {
            return PYRT_PY_DONE;
        }
        if (status == PYRT_EDEADLK) {
            return fail(waiting, status, "would wait for this thread itself, which holds the lock");
        }
        if (status != PYRT_ETIMEDOUT && status != PYRT_EINTR) {
            return fail(waiting, status, pyrt_strerror(status));
        }
        if (PyErr_CheckSignals() != 0) {
            return PYRT_PY_FAILED;
        }
        if (status == PYRT_ETIMEDOUT && !is_slice) {
            return PYRT_PY_TIMED_OUT;
        }
    }
}

pyrt_status
pyrt_py_attempt_mutex(void *mutex, int64_t timeout_ns, unsigned flags)
{
    return pyrt_mutex_lock_timed(mutex, timeout_ns, flags);
}

void
pyrt_py_lock_again(pyrt_mutex *mutex)
{
    PyThreadState *outer = pyrt_py_enter();
    pyrt_mutex_lock(mutex);
    pyrt_py_leave(outer);
}
