/* sync_once.c -- pyruntime.sync.Once: a function that runs to its end once, and everybody gets its result.
 *
 * State table of `state`:
 *   0  new       nobody has begun, or who began has failed     the runner, when its function has raised; the child of a fork
 *   1  running   `owner` runs the function                     the runner, 0 -> 1 by compare-and-swap
 *   2  done      `result` is there, for good                   the runner, when its function has returned
 *
 * Who finds it running sleeps on the state, which changes before those are woken; they look at it under the bucket's lock.
 *
 * Those that are running are in a list of the process. In the child of a fork those of the threads that are not there are new
 * again, before anything of Python runs. It is locked for instructions only, and across a fork, so that the child finds it whole.
 */
#include "binding/sync.h"
#include "binding/sync_wait.h"

#include "platform/raw_mutex.h"

#include <structmember.h>

enum { NEW, RUNNING, DONE };

typedef struct once {
    PyObject_HEAD
    PyObject *weakrefs;
    PyObject *result; /* the runner's, until it is done */
    uint64_t owner;   /* atomic: pyrt_py_ident() of the runner */
    uint32_t state;   /* atomic */
    struct once *next; /* in the list; the list's lock guards both */
    struct once **link; /* to itself; NULL: it is not in it */
} once;

static struct {
    pyrt_raw_mutex lock;
    once *first;
} running;

static once *
once_of(PyObject *self)
{
    return (once *)self;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

/* True: this thread is the runner. */
static bool
try_to_run(once *self)
{
    pyrt_raw_mutex_lock(&running.lock);
    uint32_t state = NEW;
    bool mine = pyrt_cas_acquire(&self->state, &state, (uint32_t)RUNNING);
    if (mine) {
        pyrt_store_relaxed(&self->owner, pyrt_py_ident());
        self->next = running.first;
        self->link = &running.first;
        if (self->next != NULL) {
            self->next->link = &self->next;
        }
        running.first = self;
    }
    pyrt_raw_mutex_unlock(&running.lock);
    return mine;
}

/* The caller holds the list's lock. */
static void
stop_running(once *self, uint32_t state)
{
    if (self->link != NULL) {
        *self->link = self->next;
        if (self->next != NULL) {
            self->next->link = self->link;
        }
        self->link = NULL;
    }
    pyrt_store_relaxed(&self->owner, (uint64_t)0);
    /* seq_cst: as a release it publishes the result. Pairs with the acquire in once_call and is_done. */
    (void)pyrt_exchange_seq_cst(&self->state, state);
}

/* Takes over the result, which is NULL unless it is done. */
static void
change_state(once *self, uint32_t state, PyObject *result)
{
    pyrt_raw_mutex_lock(&running.lock);
    if (state == DONE) {
        self->result = result;
    }
    stop_running(self, state);
    pyrt_raw_mutex_unlock(&running.lock);
    (void)pyrt_unpark_all(&self->state, 0);
}

void
pyrt_py_onces_fork_prepare(void)
{
    pyrt_raw_mutex_lock(&running.lock);
}

void
pyrt_py_onces_fork_parent(void)
{
    pyrt_raw_mutex_unlock(&running.lock);
}

void
pyrt_py_onces_fork_child(void)
{
    pyrt_raw_mutex_reinit(&running.lock);
    once *next;
    for (once *one = running.first; one != NULL; one = next) {
        next = one->next;
        /* One that this thread runs goes on. Nobody sleeps on the others any more. */
        if (pyrt_load_relaxed(&one->owner) != pyrt_py_ident()) {
            stop_running(one, NEW);
        }
    }
}

/* args[0] with the arguments after it. */
static PyObject *
call(PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Py_ssize_t named = names == NULL ? 0 : PyTuple_Size(names);
    PyObject *positional = PyTuple_New(count - 1);
    PyObject *keywords = named == 0 ? NULL : PyDict_New();
    PyObject *result = NULL;
    bool built = positional != NULL && (named == 0 || keywords != NULL);
    for (Py_ssize_t i = 1; built && i < count; i++) {
        built = PyTuple_SetItem(positional, i - 1, Py_NewRef(args[i])) == 0;
    }
    for (Py_ssize_t i = 0; built && i < named; i++) {
        built = PyDict_SetItem(keywords, PyTuple_GetItem(names, i), args[count + i]) == 0;
    }
    if (built) {
        result = PyObject_Call(args[0], positional, keywords);
    }
    Py_XDECREF(positional);
    Py_XDECREF(keywords);
    return result;
}

static PyObject *
run(once *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *result = call(args, count, names);
    if (result == NULL) {
        change_state(self, NEW, NULL);
        return NULL;
    }
    change_state(self, DONE, Py_NewRef(result));
    return result;
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static bool
is_running(void *state)
{
    return pyrt_load_acquire((uint32_t *)state) == RUNNING;
}

static pyrt_status
attempt(void *state, int64_t timeout_ns, unsigned flags)
{
    pyrt_status status = pyrt_park(state, is_running, NULL, state, timeout_ns, flags, NULL);
    return status == PYRT_EBUSY || !is_running(state) ? PYRT_OK : status;
}

/* Makes this thread the runner, or finds it done. Negative with an exception. */
static int
begin(once *self)
{
    static const char what[] = "Once.call()";
    if (pyrt_py_refuse_waiting(what)) {
        return -1;
    }
    for (;;) {
        if (try_to_run(self)) {
            return NEW;
        }
        if (pyrt_load_acquire(&self->state) == DONE) {
            return DONE;
        }
        if (pyrt_load_relaxed(&self->owner) == pyrt_py_ident()) {
            pyrt_py_raise(PYRT_EDEADLK, "%s inside of the function that this Once is running would wait for that function",
                          what);
            return -1;
        }
        if (pyrt_py_wait(&(pyrt_py_waiting){what, attempt, &self->state, &self->owner}, -1) == PYRT_PY_FAILED) {
            return -1;
        }
    }
}

static PyObject *
once_call(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    once *self = once_of(object);
    if (count < 1 || !PyCallable_Check(args[0])) {
        return pyrt_py_raise(PYRT_PY_WRONG_TYPE, "Once.call() takes a function, and then its arguments");
    }
    if (pyrt_unlikely(pyrt_load_acquire(&self->state) != DONE)) {
        int begun = begin(self);
        if (begun != DONE) {
            return begun < 0 ? NULL : run(self, args, count, names);
        }
    }
    return Py_NewRef(self->result);
}

/* ---- the type ---------------------------------------------------------------------------------------------------- */

static bool
is_done(const once *self)
{
    return pyrt_load_acquire(&self->state) == DONE;
}

static PyObject *
once_done(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(is_done(once_of(self)));
}

static PyObject *
once_at_fork_reinit(PyObject *object, PyObject *unused)
{
    (void)unused;
    once *self = once_of(object);
    /* One that this thread runs goes on in the child. */
    if (pyrt_load_relaxed(&self->state) == RUNNING && pyrt_load_relaxed(&self->owner) != pyrt_py_ident()) {
        change_state(self, NEW, NULL);
    }
    Py_RETURN_NONE;
}

static PyObject *
once_repr(PyObject *object)
{
    once *self = once_of(object);
    uint64_t owner = pyrt_load_relaxed(&self->owner);
    unsigned long waiting = (unsigned long)pyrt_parked_count(&self->state);
    PyObject *text = owner == 0 ? NULL : pyrt_py_thread_text(owner);
    if (text == NULL) {
        return PyErr_Occurred() ? NULL
                                : PyUnicode_FromFormat("<pyruntime.Once, %s, %lu waiting, at %p>",
                                                       is_done(self) ? "done" : "not done", waiting, (void *)self);
    }
    PyObject *repr = PyUnicode_FromFormat("<pyruntime.Once, run by %U, %lu waiting, at %p>", text, waiting, (void *)self);
    Py_DECREF(text);
    return repr;
}

static int
once_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(once_of(self)->result);
    return 0;
}

/* It stays done: who comes to it out of some finalizer gets None. */
static int
once_clear(PyObject *self)
{
    PyObject *result = once_of(self)->result;
    if (result != NULL) {
        once_of(self)->result = Py_NewRef(Py_None);
        Py_DECREF(result);
    }
    return 0;
}

static void
once_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    Py_XDECREF(once_of(self)->result);
    pyrt_py_sync_free(self, &once_of(self)->weakrefs);
}

PyDoc_STRVAR(
    call_doc,
    "call($self, function, /, *args, **kwargs)\n--\n\n"
    "Calls the function, unless one has been called here before, and answers what that one has answered.\n\n"
    "The first call runs, the others wait for it. If it raises, its caller gets the exception, and the next call runs;\n"
    "one of those that wait takes over, with its own function. Ctrl-C ends the wait.\n\n"
    "    >>> from pyruntime.sync import Once\n"
    "    >>> once = Once()\n"
    "    >>> once.call(dict, colour='blue')\n"
    "    {'colour': 'blue'}\n"
    "    >>> once.call(dict, colour='red')\n"
    "    {'colour': 'blue'}\n\n"
    "Raises DeadlockError, a RuntimeError, when the function that it runs calls it, and where it would have to wait\n"
    "inside of this thread's stop_the_world() block; until it is done, StateError inside a reading() block;\n"
    "ArgumentTypeError for what is no function.");
PyDoc_STRVAR(doc, "Once()\n--\n\n"
                  "Something that is done once in the process, by whoever comes first.\n\n"
                  "    >>> from pyruntime.sync import Once\n"
                  "    >>> once = Once()\n"
                  "    >>> def table():\n"
                  "    ...     return once.call(lambda: {n: n * n for n in range(10)})\n"
                  "    >>> table()[9]\n"
                  "    81\n"
                  "    >>> table() is table()\n"
                  "    True\n\n"
                  "After C++'s call_once and Rust's OnceLock.");

static PyMethodDef methods[] = {
    {"call", PYRT_PY_METHOD(once_call), METH_FASTCALL | METH_KEYWORDS, call_doc},
    {"_at_fork_reinit", once_at_fork_reinit, METH_NOARGS,
     "_at_fork_reinit($self, /)\n--\n\nFor the child of a fork: what a thread was running that is gone is new again."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"done", once_done, NULL, "Whether a function has run to its end.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = PYRT_PY_WEAKREFS(once);

static PyType_Slot slots[] = {
    {Py_tp_new, pyrt_py_sync_new},   {Py_tp_dealloc, once_dealloc},
    {Py_tp_traverse, once_traverse}, {Py_tp_clear, once_clear},
    {Py_tp_repr, once_repr},         {Py_tp_methods, methods},
    {Py_tp_getset, properties},      {Py_tp_members, members},
    {Py_tp_doc, (void *)doc},        {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyruntime.sync.Once",
    .basicsize = sizeof(once),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

PyTypeObject *
pyrt_py_once_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&spec);
}
