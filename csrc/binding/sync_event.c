/* sync_event.c -- pyruntime.sync.Event: a word that threads wait for.
 *
 * State table of `word`:
 *   bit 0          it is set             set() 0 -> 1, clear() 1 -> 0, by compare-and-swap
 *   bits 1 to 63   times it was set      one more with each 0 -> 1
 *
 * Who waits remembers the word it has seen, and is done as soon as the word is another one: an event that is set and cleared
 * again wakes all that were waiting, also those that looked after a signal just then. No wake-up is lost: set() changes the
 * word before it takes the lock of the bucket, the waiter looks at it under that lock.
 */
#include "binding/sync.h"
#include "binding/sync_wait.h"

#include <structmember.h>

typedef struct event {
    PyObject_HEAD
    PyObject *weakrefs;
    uint64_t word; /* atomic */
} event;

enum { IS_SET = 1, ONE_MORE = 2 };

static event *
event_of(PyObject *self)
{
    return (event *)self;
}

/* acquire: pairs with the swap in set(), so that what came before it is seen. */
static bool
is_set(const event *self)
{
    return (pyrt_load_acquire(&self->word) & IS_SET) != 0;
}

static PyObject *
event_is_set(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(is_set(event_of(self)));
}

static PyObject *
event_set(PyObject *self, PyObject *unused)
{
    (void)unused;
    uint64_t *word = &event_of(self)->word;
    uint64_t seen = pyrt_load_relaxed(word);
    while ((seen & IS_SET) == 0) {
        /* seq_cst: as a release it publishes what came before. */
        if (pyrt_cas_seq_cst(word, &seen, (seen + ONE_MORE) | IS_SET)) {
            (void)pyrt_unpark_all(word, 0);
            break;
        }
    }
    Py_RETURN_NONE;
}

static PyObject *
event_clear(PyObject *self, PyObject *unused)
{
    (void)unused;
    (void)pyrt_fetch_and_seq_cst(&event_of(self)->word, ~(uint64_t)IS_SET);
    Py_RETURN_NONE;
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

typedef struct wait {
    uint64_t *word;
    uint64_t seen;
} wait;

static bool
is_unchanged(void *arg)
{
    const wait *waited = arg;
    return pyrt_load_acquire(waited->word) == waited->seen;
}

static pyrt_status
attempt(void *arg, int64_t timeout_ns, unsigned flags)
{
    wait *waited = arg;
    pyrt_status status = pyrt_park(waited->word, is_unchanged, NULL, waited, timeout_ns, flags, NULL);
    /* Set while the time ran out. */
    return status == PYRT_EBUSY || !is_unchanged(waited) ? PYRT_OK : status;
}

static PyObject *
event_wait(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    static const char what[] = "Event.wait()";
    uint64_t *word = &event_of(self)->word;
    int64_t timeout_ns = -1;
    if (((count != 0 || names != NULL) && !pyrt_py_wait_arguments(args, count, names, what, &timeout_ns)) ||
        pyrt_py_refuse_waiting(what)) {
        return NULL;
    }
    wait waited = {word, pyrt_load_acquire(word)};
    if ((waited.seen & IS_SET) != 0) {
        Py_RETURN_TRUE;
    }
    if (timeout_ns == 0) {
        Py_RETURN_FALSE;
    }
    pyrt_py_wait_result result = pyrt_py_wait(&(pyrt_py_waiting){what, attempt, &waited, NULL}, timeout_ns);
    return result == PYRT_PY_FAILED ? NULL : PyBool_FromLong(result == PYRT_PY_DONE);
}

/* ---- the type ---------------------------------------------------------------------------------------------------- */

/* The sleepers of the parent are gone from the parking lot already. */
static PyObject *
event_at_fork_reinit(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    Py_RETURN_NONE;
}

static PyObject *
event_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<pyruntime.Event, %s, %lu waiting, at %p>", is_set(event_of(self)) ? "set" : "not set",
                                (unsigned long)pyrt_parked_count(&event_of(self)->word), (void *)self);
}

static void
event_dealloc(PyObject *self)
{
    pyrt_py_sync_free(self, &event_of(self)->weakrefs);
}

PyDoc_STRVAR(is_set_doc, "is_set($self, /)\n--\n\n"
                         "Whether the event is set.\n\n"
                         "    >>> from pyruntime.sync import Event\n"
                         "    >>> Event().is_set()\n"
                         "    False");
PyDoc_STRVAR(set_doc, "set($self, /)\n--\n\n"
                      "Sets the event, and wakes all that wait. Does nothing if it is set.\n\n"
                      "    >>> from pyruntime.sync import Event\n"
                      "    >>> ready = Event()\n"
                      "    >>> ready.set()\n"
                      "    >>> ready.is_set()\n"
                      "    True");
PyDoc_STRVAR(clear_doc, "clear($self, /)\n--\n\n"
                        "Takes it back: who waits from now on waits for the next set().\n\n"
                        "    >>> from pyruntime.sync import Event\n"
                        "    >>> ready = Event()\n"
                        "    >>> ready.set()\n"
                        "    >>> ready.clear()\n"
                        "    >>> ready.is_set()\n"
                        "    False");
PyDoc_STRVAR(
    wait_doc,
    "wait($self, /, timeout=None)\n--\n\n"
    "Waits until the event is set; False when the time ran out before.\n\n"
    "timeout: how many seconds at most, an int or a float; None: without end. An event that is set and cleared\n"
    "again lets everybody go who waited by then. Ctrl-C ends the wait. Raises OverflowError, ValueError and TypeError\n"
    "for a timeout that is none, StateError inside a reading() block, and DeadlockError where it would have to\n"
    "wait inside of this thread's stop_the_world() block.\n\n"
    "    >>> from pyruntime.sync import Event\n"
    "    >>> Event().wait(timeout=0.01)\n"
    "    False");
PyDoc_STRVAR(event_doc, "Event()\n--\n\n"
                        "Something that happens, and that threads wait for; as threading.Event.\n\n"
                        "    >>> from threading import Thread\n"
                        "    >>> from pyruntime.sync import Event\n"
                        "    >>> ready = Event()\n"
                        "    >>> Thread(target=ready.set).start()\n"
                        "    >>> ready.wait()\n"
                        "    True\n\n"
                        "After Win32's manual-reset events, and Java's and Python's classes of that kind.");

static PyMethodDef methods[] = {
    {"is_set", event_is_set, METH_NOARGS, is_set_doc},
    {"set", event_set, METH_NOARGS, set_doc},
    {"clear", event_clear, METH_NOARGS, clear_doc},
    {"wait", PYRT_PY_METHOD(event_wait), METH_FASTCALL | METH_KEYWORDS, wait_doc},
    {"_at_fork_reinit", event_at_fork_reinit, METH_NOARGS,
     "_at_fork_reinit($self, /)\n--\n\nFor the child of a fork: nobody waits any more."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = PYRT_PY_WEAKREFS(event);

static PyType_Slot slots[] = {
    {Py_tp_new, pyrt_py_sync_new},
    {Py_tp_dealloc, event_dealloc},
    {Py_tp_repr, event_repr},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_doc, (void *)event_doc},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyruntime.sync.Event",
    .basicsize = sizeof(event),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

PyTypeObject *
pyrt_py_event_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&spec);
}
