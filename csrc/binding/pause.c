/* pause.c -- the block of pyruntime.stop_the_world(): stops on entering, starts again on leaving.
 *
 * All of it is compiled, because nothing may come between stopping and the block that will start again: an exception of a
 * signal handler would leave everybody standing. A wait for the stop is a row of growing slices, between which Python looks
 * after its signals; each slice that fails leaves nothing stopped, so that short ones for ever would never come to an end.
 *
 * `owner` is the OS thread that is inside, by its id, and 0 while nobody is; the other fields are its own to write, and anybody
 * may look. A block that is collected while it is open is left by that, on its own thread; on another one it cannot be, and its
 * memory stays: it is the thread's, with which the pause ends.
 */
#include "binding/pause.h"

#include "binding/gil.h"
#include "binding/states.h"
#include "binding/sync.h"
#include "binding/uses.h"

#include "platform/futex.h"
#include "platform/os_thread.h"

#include <structmember.h>
#include <string.h>
#include <unistd.h>

enum { FIRST_SLICE_NS = 100000000, LONGEST_SLICES = 64 };

typedef struct pyrt_py_open_pause {
    PyObject_HEAD
    PyObject *weakrefs;
    pyrt_py_domain *domain; /* a strong reference; NULL: everything */
    int64_t timeout_ns;
    uint64_t owner;          /* atomic, as all that follow */
    int64_t stopped_at;      /* pyrt_now_ns(); 0: never was */
    int64_t started_at;      /* 0: has not ended */
    int64_t time_to_stop_ns;
    uint32_t stopped;
} pause_block;

static pause_block *
block_of(PyObject *self)
{
    return (pause_block *)self;
}

/* ---- stopping ---------------------------------------------------------------------------------------------------- */

/* What the core would refuse with a report, refused with words for Python. */
static bool
refuse(pyrt_py_domain *domain)
{
    const pyrt_thread *current = pyrt_thread_current();
    if (pyrt_tls()->pause != NULL) {
        pyrt_py_raise(PYRT_ESTATE,
                      "stop_the_world() inside a stop_the_world() block of this thread: leave that block first, "
                      "or stop everything=True at once");
        return true;
    }
    if (pyrt_py_refuse_reading("stop_the_world()")) {
        return true;
    }
    if (domain != NULL && current != NULL && current->interp != domain->interp) {
        pyrt_py_raise(
            PYRT_ESTATE,
            "stop_the_world() of domain '%S' inside a block of domain '%s': two threads that do so could wait for each "
            "other; leave that block first, or stop everything=True",
            domain->name, pyrt_interp_name(current->interp));
        return true;
    }
    return false;
}

/* Whose pause is in the way. Who has no state is known to Python by its number. */
static PyObject *
name_of_other(const pyrt_stop_report *report)
{
    PyObject *name = report->thread_id == 0
                         ? pyrt_py_thread_name_of_tid(report->os_tid)
                         : PyUnicode_DecodeUTF8(report->thread_name, (Py_ssize_t)strlen(report->thread_name), "replace");
    PyErr_Clear();
    PyObject *text = name == NULL ? PyUnicode_FromFormat("a thread (system id %d)", (int)report->os_tid)
                                  : PyUnicode_FromFormat("thread %R (system id %d)", name, (int)report->os_tid);
    Py_XDECREF(name);
    return text;
}

static void
raise_timeout(const pause_block *block, const pyrt_stop_report *report)
{
    double seconds = (double)block->timeout_ns * 1e-9;
    char text[64];
    PyOS_snprintf(text, sizeof(text), "stop_the_world(timeout=%g) timed out", seconds);
    if (report->missing == 0) {
        PyObject *other = report->os_tid == 0 ? PyUnicode_FromString("another thread") : name_of_other(report);
        if (other != NULL) {
            pyrt_py_raise(PYRT_ETIMEDOUT, "%s: the pause of %U was in the way all the time; nothing is stopped by this one",
                          text, other);
            Py_DECREF(other);
        }
        return;
    }
    char others[48] = "";
    if (report->missing > 1) {
        PyOS_snprintf(others, sizeof(others), ", nor have %u other%s", report->missing - 1, report->missing == 2 ? "" : "s");
    }
    PyObject *name = PyUnicode_DecodeUTF8(report->thread_name, (Py_ssize_t)strlen(report->thread_name), "replace");
    if (name != NULL) {
        pyrt_py_raise(
            PYRT_ETIMEDOUT,
            "%s: thread %llu %R (system id %d) is inside a block of pyruntime and has passed no safepoint%s; nothing is "
            "stopped now. Leave blocks sooner, or call quiescent() in them",
            text, (unsigned long long)report->thread_id, name, (int)report->os_tid, others);
        Py_DECREF(name);
    }
}

/* True when the world stands still; false with an exception. */
static bool
stop(pause_block *block, pyrt_interp *interp)
{
    int64_t deadline = pyrt_deadline_after(block->timeout_ns);
    int64_t begun = pyrt_now_ns();
    bool sliced = pyrt_os_thread_tid() == getpid();
    for (int64_t slices = 1;; slices = slices < LONGEST_SLICES ? 2 * slices : slices) {
        int64_t left = deadline == INT64_MAX ? -1 : deadline - pyrt_now_ns();
        left = deadline != INT64_MAX && left < 0 ? 0 : left;
        bool is_slice = sliced && (left < 0 || left > slices * FIRST_SLICE_NS);
        pyrt_stop_report report = {.struct_size = sizeof(report)};
        PyThreadState *outer = pyrt_py_enter();
        pyrt_status status = pyrt_stop_the_world_timed(interp, is_slice ? slices * FIRST_SLICE_NS : left, &report);
        pyrt_py_leave(outer);
        if (status == PYRT_OK) {
            int64_t now = pyrt_now_ns();
            pyrt_store_relaxed(&block->stopped_at, now);
            pyrt_store_relaxed(&block->time_to_stop_ns, now - begun);
            pyrt_store_relaxed(&block->stopped, report.stopped);
            return true;
        }
        if (status != PYRT_ETIMEDOUT) {
            pyrt_py_raise(status, "stop_the_world(): %s", pyrt_strerror(status));
            return false;
        }
        if (PyErr_CheckSignals() != 0) {
            return false;
        }
        if (!is_slice) {
            raise_timeout(block, &report);
            return false;
        }
    }
}

static PyObject *
pause_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    pause_block *block = block_of(self);
    pyrt_py_domain *domain = block->domain;
    uint64_t nobody = 0;
    /* A lease: a signal handler that runs in the middle of the wait may fork. */
    pyrt_py_lease lease;
    if (domain != NULL && !pyrt_py_lease_try(domain, &lease)) {
        pyrt_py_raise_closed(domain, "stop_the_world()");
        return NULL;
    }
    if (refuse(domain)) {
        goto refused;
    }
    if (pyrt_os_thread_register() != PYRT_OK || !pyrt_py_uses_watch_end()) {
        pyrt_py_raise(PYRT_ENOMEM, "no memory to stop the world");
        goto refused;
    }
    if (!pyrt_cas_acquire(&block->owner, &nobody, pyrt_tls()->os_id)) {
        pyrt_py_raise(PYRT_ESTATE, "another thread is inside this stop_the_world() block: call stop_the_world() anew");
        goto refused;
    }
    pyrt_store_relaxed(&block->stopped_at, (int64_t)0);
    pyrt_store_relaxed(&block->started_at, (int64_t)0);
    pyrt_store_relaxed(&block->time_to_stop_ns, (int64_t)0);
    pyrt_store_relaxed(&block->stopped, 0u);
    if (!stop(block, domain == NULL ? NULL : domain->interp)) {
        pyrt_store_release(&block->owner, (uint64_t)0);
        goto refused;
    }
    if (domain != NULL) {
        pyrt_py_lease_give(&lease);
    }
    pyrt_py_my_words()->pause = block;
    return Py_NewRef(self);

refused:
    if (domain != NULL) {
        pyrt_py_lease_end(&lease);
    }
    return NULL;
}

/* ---- starting ---------------------------------------------------------------------------------------------------- */

static void
is_over(pause_block *block)
{
    pyrt_py_my_words()->pause = NULL;
    if (block->domain != NULL) {
        pyrt_py_use_end(block->domain);
    }
    /* release: pairs with the swap of the next owner. */
    pyrt_store_release(&block->owner, (uint64_t)0);
}

void
pyrt_py_pause_end_of_thread(void)
{
    pause_block *block = pyrt_py_my_words()->pause;
    if (block != NULL) {
        pyrt_store_relaxed(&block->started_at, pyrt_now_ns());
        is_over(block);
    }
}

void
pyrt_py_pause_fork_child(void)
{
    const pause_block *block = pyrt_py_my_words()->pause;
    if (block != NULL && block->domain != NULL) {
        block->domain->users++;
    }
}

/* On the owner's thread. */
static void
start(pause_block *block)
{
    pyrt_store_relaxed(&block->started_at, pyrt_now_ns());
    PyThreadState *outer = pyrt_py_enter();
    pyrt_start_the_world(block->domain == NULL ? NULL : block->domain->interp);
    pyrt_py_leave(outer);
    is_over(block);
}

static PyObject *
pause_exit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)args;
    (void)count;
    pause_block *block = block_of(self);
    uint64_t owner = pyrt_load_relaxed(&block->owner);
    if (owner == 0) {
        return pyrt_py_raise(PYRT_ESTATE,
                             "this stop_the_world() block is not open: it was never entered, or was left already");
    }
    if (owner != pyrt_tls()->os_id) {
        return pyrt_py_raise(PYRT_ESTATE,
                             "this stop_the_world() block was entered on another thread, and can be left on that "
                             "thread only; the world stands still");
    }
    start(block);
    Py_RETURN_NONE;
}

/* ---- what it tells ----------------------------------------------------------------------------------------------- */

static PyObject *
pause_time_to_stop(PyObject *self, void *unused)
{
    (void)unused;
    return PyFloat_FromDouble((double)pyrt_load_relaxed(&block_of(self)->time_to_stop_ns) * 1e-9);
}

static PyObject *
pause_duration(PyObject *self, void *unused)
{
    (void)unused;
    const pause_block *block = block_of(self);
    int64_t stopped_at = pyrt_load_relaxed(&block->stopped_at);
    int64_t started_at = pyrt_load_relaxed(&block->started_at);
    if (stopped_at == 0) {
        return PyFloat_FromDouble(0.0);
    }
    int64_t until = started_at > stopped_at ? started_at : pyrt_now_ns();
    return PyFloat_FromDouble((double)(until - stopped_at) * 1e-9);
}

static PyObject *
pause_stopped_threads(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(pyrt_load_relaxed(&block_of(self)->stopped));
}

static PyObject *
pause_is_open(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(pyrt_load_relaxed(&block_of(self)->owner) != 0);
}

static PyObject *
pause_repr(PyObject *self)
{
    const pause_block *block = block_of(self);
    bool has_ended = pyrt_load_relaxed(&block->started_at) != 0;
    const char *state = pyrt_load_relaxed(&block->owner) != 0 ? "open" : has_ended ? "over" : "not begun";
    unsigned stopped = pyrt_load_relaxed(&block->stopped);
    const char *plural = stopped == 1 ? "" : "s";
    if (block->domain == NULL) {
        return PyUnicode_FromFormat("<pause of everything, %s, %u thread%s>", state, stopped, plural);
    }
    return PyUnicode_FromFormat("<pause of domain '%S', %s, %u thread%s>", block->domain->name, state, stopped, plural);
}

/* ---- the type ---------------------------------------------------------------------------------------------------- */

PyObject *
pyrt_py_pause_new(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *domain = NULL;
    long long timeout_ns = -1;
    pyrt_py_home *home = pyrt_py_home_get();
    if (home == NULL || !PyArg_ParseTuple(args, "OL:new_pause", &domain, &timeout_ns)) {
        return NULL;
    }
    if (domain != Py_None && !pyrt_py_is_domain(home, domain)) {
        return pyrt_py_raise_not(PYRT_PY_WRONG_TYPE, domain, "domain is a Domain");
    }
    PyTypeObject *type = pyrt_py_sync_type(home, PYRT_PY_SYNC_PAUSE);
    allocfunc alloc = PyType_GetSlot(type, Py_tp_alloc);
    pause_block *block = (pause_block *)alloc(type, 0);
    if (block != NULL) {
        block->domain = domain == Py_None ? NULL : (pyrt_py_domain *)Py_NewRef(domain);
        block->timeout_ns = timeout_ns;
    }
    return (PyObject *)block;
}

/* False: the world goes on standing still. */
static bool
leave_collected(pause_block *block)
{
    bool mine = pyrt_load_relaxed(&block->owner) == pyrt_tls()->os_id;
    if (mine) {
        start(block);
    }
    pyrt_py_warn_of_collection(Py_None, "a stop_the_world() block was entered, never left, and is collected: %s",
                               mine ? "the world is started now"
                                    : "the thread that entered it is another one than this, and the world stands still "
                                      "until that one ends");
    return mine;
}

static void
pause_dealloc(PyObject *self)
{
    pause_block *block = block_of(self);
    /* acquire: pairs with the release in is_over, which may be on a thread that ends without the GIL. */
    if (pyrt_load_acquire(&block->owner) != 0 && !leave_collected(block)) {
        pyrt_py_sync_clear_weakrefs(self, &block->weakrefs);
        return;
    }
    Py_XDECREF((PyObject *)block->domain);
    pyrt_py_sync_free(self, &block->weakrefs);
}

static PyMethodDef methods[] = {
    {"__enter__", pause_enter, METH_NOARGS, "__enter__($self, /)\n--\n\nStops the world."},
    {"__exit__", PYRT_PY_METHOD(pause_exit), METH_FASTCALL, "__exit__($self, /, *exc_info)\n--\n\nStarts it again."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"time_to_stop", pause_time_to_stop, NULL, "Seconds from the request to the moment when all stood still.", NULL},
    {"duration", pause_duration, NULL, "Seconds that the world stood still; so far, while the block is open.", NULL},
    {"stopped_threads", pause_stopped_threads, NULL, "How many thread states stood still, detached ones included.", NULL},
    {"is_open", pause_is_open, NULL, "Whether the world stands still for this block now.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = PYRT_PY_WEAKREFS(pause_block);

PyDoc_STRVAR(doc,
             "A pause of the world, made by stop_the_world(): for a with statement.\n\n"
             "One that is collected while it is open gives a ResourceWarning. On the thread that has stopped the world,\n"
             "that starts it again. On another one it cannot: the world stands still until the thread ends.");

static PyType_Slot slots[] = {
    {Py_tp_dealloc, pause_dealloc},
    {Py_tp_repr, pause_repr},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {Py_tp_members, members},
    {Py_tp_doc, (void *)doc},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyruntime.state.Pause",
    .basicsize = sizeof(pause_block),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

PyTypeObject *
pyrt_py_pause_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&spec);
}
