/* sync_condition.c -- pyruntime.sync.Condition: threads that wait, in order, for a word from another.
 *
 * Each waiter has a node in the condition's list, oldest first; notify() takes the first ones out and marks them, and the mark is
 * what a waiter sleeps on. So a waiter keeps its place while it looks after a signal, and a notification that it can make
 * no use of, because a handler has raised, goes to the next one instead of getting lost.
 *
 * The list and the marks are guarded by `guard`. Nodes are not on the stack of the waiter, because Python may end that thread in
 * its sleep: then its node is one that is notified in vain. They are counted, one for the list and one for the waiter.
 */
#include "binding/sync.h"
#include "binding/sync_lockable.h"

#include "platform/futex.h"

#include <structmember.h>
#include <stdlib.h>

typedef struct node {
    struct node *next;
    uint32_t notified;   /* atomic; changes under the guard */
    uint32_t references; /* the same */
    uint32_t forks;      /* pyrt_py_forks when it was made */
} node;

typedef struct condition {
    PyObject_HEAD
    PyObject *weakrefs;
    PyObject *lock;
    const pyrt_py_lockable *lockable; /* what the lock can do */
    pyrt_raw_mutex guard;
    uint32_t forks; /* atomic: pyrt_py_forks when it was last looked at */
    node *first;
    node **end;     /* the link to hang the next one on; NULL: `first` */
    uint32_t count;
} condition;

/* Guards the change of a condition to that of a child; taken before its guard. */
static pyrt_raw_mutex forgetting;

static condition *
condition_of(PyObject *self)
{
    return (condition *)self;
}

/* ---- the list ---------------------------------------------------------------------------------------------------- */

/* In the child of a fork the guard may be held by nobody, and the list is one of threads that are not there. Several threads of
 * the child may find that at a time; one of them empties it. */
static void
forget_parent(condition *self)
{
    pyrt_raw_mutex_lock(&forgetting);
    if (pyrt_load_relaxed(&self->forks) != pyrt_py_forks) {
        self->guard = (pyrt_raw_mutex){0};
        self->first = NULL;
        self->end = NULL;
        self->count = 0;
        /* release: pairs with the load in lock_list. */
        pyrt_store_release(&self->forks, pyrt_py_forks);
    }
    pyrt_raw_mutex_unlock(&forgetting);
}

void
pyrt_py_conditions_fork_child(void)
{
    forgetting = (pyrt_raw_mutex){0};
}

static void
lock_list(condition *self)
{
    if (pyrt_unlikely(pyrt_load_acquire(&self->forks) != pyrt_py_forks)) {
        forget_parent(self);
    }
    pyrt_raw_mutex_lock(&self->guard);
}

/* The caller holds the guard, or the node is in no list any more. */
static void
drop(node *one)
{
    if (--one->references == 0) {
        free(one);
    }
}

static node *
append(condition *self)
{
    node *one = malloc(sizeof(*one));
    if (one == NULL) {
        return NULL;
    }
    *one = (node){.references = 2, .forks = pyrt_py_forks};
    lock_list(self);
    node **end = self->end == NULL ? &self->first : self->end;
    *end = one;
    self->end = &one->next;
    self->count++;
    pyrt_raw_mutex_unlock(&self->guard);
    return one;
}

/* Takes the first one out, marks it, and answers what to unpark; NULL: there is none. The caller holds the guard. */
static const void *
mark_first(condition *self)
{
    node *one = self->first;
    if (one == NULL) {
        return NULL;
    }
    self->first = one->next;
    self->end = self->first == NULL ? NULL : self->end;
    self->count--;
    const void *address = &one->notified;
    /* release: what came before the notification is seen by the waiter, also where the lock is not taken again. */
    pyrt_store_release(&one->notified, 1u);
    drop(one);
    return address;
}

static uint32_t
count_waiters(condition *self)
{
    lock_list(self);
    uint32_t count = self->count;
    pyrt_raw_mutex_unlock(&self->guard);
    return count;
}

static size_t
notify(condition *self, size_t most)
{
    size_t done = 0;
    while (done < most) {
        lock_list(self);
        const void *address = mark_first(self);
        pyrt_raw_mutex_unlock(&self->guard);
        if (address == NULL) {
            break;
        }
        /* The node may be gone by now; its address is a key and nothing else. */
        (void)pyrt_unpark_all(address, 0);
        done++;
    }
    return done;
}

/* The waiter is done with its node; whether it was notified. */
static bool
take_out(condition *self, node *one)
{
    lock_list(self);
    bool notified = pyrt_load_relaxed(&one->notified) != 0;
    node **link = &self->first;
    while (!notified && *link != NULL && *link != one) {
        link = &(*link)->next;
    }
    if (!notified && *link == one) {
        *link = one->next;
        if (self->end == &one->next) {
            self->end = self->first == NULL ? NULL : link;
        }
        self->count--;
        one->references--;
    }
    bool lost = one->forks != self->forks;
    drop(one);
    pyrt_raw_mutex_unlock(&self->guard);
    return notified || lost;
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static bool
is_not_notified(void *arg)
{
    return pyrt_load_acquire(&((node *)arg)->notified) == 0;
}

static pyrt_status
attempt(void *arg, int64_t timeout_ns, unsigned flags)
{
    node *one = arg;
    if (one->forks != pyrt_py_forks) {
        /* A signal handler has forked, and this is the child: in its list the node is not. A wait may end for no reason. */
        return PYRT_OK;
    }
    pyrt_status status = pyrt_park(&one->notified, is_not_notified, NULL, one, timeout_ns, flags, NULL);
    if (status == PYRT_OK && is_not_notified(one)) {
        /* Meant for a node that was at this address before. */
        return PYRT_EINTR;
    }
    return status == PYRT_EBUSY ? PYRT_OK : status;
}

static void
refuse(condition *self, const char *what)
{
    pyrt_py_raise(PYRT_ESTATE, "cannot %s on un-acquired lock: this thread does not hold %R", what, self->lock);
}

static bool
must_own(condition *self, const char *what)
{
    if (self->lockable->is_owned(self->lock)) {
        return true;
    }
    refuse(self, what);
    return false;
}

/* Releases the lock, waits, takes the lock back. */
static pyrt_py_wait_result
wait_once(condition *self, const char *what, int64_t timeout_ns)
{
    if (pyrt_py_refuse_waiting(what) || !must_own(self, "wait")) {
        return PYRT_PY_FAILED;
    }
    if (pyrt_tls()->pause != NULL) {
        pyrt_py_raise(PYRT_EDEADLK, "%s would wait inside of this thread's stop_the_world() block", what);
        return PYRT_PY_FAILED;
    }
    node *one = append(self);
    if (one == NULL) {
        pyrt_py_raise(PYRT_ENOMEM, "%s: no memory to wait; the lock was not released", what);
        return PYRT_PY_FAILED;
    }
    uint32_t depth;
    if (!self->lockable->release_all(self->lock, &depth)) {
        /* Another thread has released it just now. */
        (void)take_out(self, one);
        refuse(self, "wait");
        return PYRT_PY_FAILED;
    }
    pyrt_py_wait_result result = pyrt_py_wait(&(pyrt_py_waiting){what, attempt, one, NULL}, timeout_ns);
    bool notified = take_out(self, one);
    if (notified && result == PYRT_PY_FAILED) {
        (void)notify(self, 1);
    }
    self->lockable->take_back(self->lock, depth);
    return notified && result == PYRT_PY_TIMED_OUT ? PYRT_PY_DONE : result;
}

static PyObject *
condition_wait(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    static const char what[] = "Condition.wait()";
    int64_t timeout_ns;
    if (!pyrt_py_wait_arguments(args, count, names, what, &timeout_ns)) {
        return NULL;
    }
    pyrt_py_wait_result result = wait_once(condition_of(self), what, timeout_ns);
    return result == PYRT_PY_FAILED ? NULL : PyBool_FromLong(result == PYRT_PY_DONE);
}

static PyObject *
condition_wait_for(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static const char what[] = "Condition.wait_for()";
    static char *keywords[] = {"predicate", "timeout", NULL};
    PyObject *predicate, *timeout = Py_None;
    int64_t timeout_ns;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:wait_for", keywords, &predicate, &timeout) ||
        !pyrt_py_wait_arguments(&timeout, 1, NULL, what, &timeout_ns) || !must_own(condition_of(self), "wait")) {
        return NULL;
    }
    int64_t deadline = pyrt_deadline_after(timeout_ns);
    for (;;) {
        PyObject *answer = PyObject_CallObject(predicate, NULL);
        int is_true = answer == NULL ? -1 : PyObject_IsTrue(answer);
        int64_t left = deadline == INT64_MAX ? -1 : deadline - pyrt_now_ns();
        if (is_true == 1 || (is_true == 0 && deadline != INT64_MAX && left <= 0)) {
            return answer;
        }
        Py_XDECREF(answer);
        if (is_true < 0 || wait_once(condition_of(self), what, left) == PYRT_PY_FAILED) {
            return NULL;
        }
    }
}

/* ---- notifying --------------------------------------------------------------------------------------------------- */

static PyObject *
condition_notify(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"n", NULL};
    PyObject *number = NULL;
    Py_ssize_t n = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:notify", keywords, &number) ||
        (number != NULL && !pyrt_py_count(number, "the n of Condition.notify()", &n)) ||
        !must_own(condition_of(self), "notify")) {
        return NULL;
    }
    (void)notify(condition_of(self), n < 0 ? 0 : (size_t)n);
    Py_RETURN_NONE;
}

static PyObject *
condition_notify_all(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (!must_own(condition_of(self), "notify")) {
        return NULL;
    }
    (void)notify(condition_of(self), count_waiters(condition_of(self)));
    Py_RETURN_NONE;
}

/* ---- the lock's own methods -------------------------------------------------------------------------------------- */

static PyObject *
condition_acquire(PyObject *self, PyObject *args, PyObject *kwargs)
{
    PyObject *method = PyObject_GetAttrString(condition_of(self)->lock, "acquire");
    PyObject *result = method == NULL ? NULL : PyObject_Call(method, args, kwargs);
    Py_XDECREF(method);
    return result;
}

static PyObject *
call_lock(PyObject *self, const char *name)
{
    return PyObject_CallMethod(condition_of(self)->lock, name, NULL);
}

static PyObject *
condition_release(PyObject *self, PyObject *unused)
{
    (void)unused;
    return condition_of(self)->lockable->release(condition_of(self)->lock, NULL);
}

static PyObject *
condition_locked(PyObject *self, PyObject *unused)
{
    (void)unused;
    return call_lock(self, "locked");
}

static PyObject *
condition_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    return condition_of(self)->lockable->acquire(condition_of(self)->lock, NULL);
}

static PyObject *
condition_exit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)args;
    (void)count;
    return condition_of(self)->lockable->release(condition_of(self)->lock, NULL);
}

static PyObject *
condition_at_fork_reinit(PyObject *self, PyObject *unused)
{
    (void)unused;
    lock_list(condition_of(self));
    pyrt_raw_mutex_unlock(&condition_of(self)->guard);
    return call_lock(self, "_at_fork_reinit");
}

/* ---- the type ---------------------------------------------------------------------------------------------------- */

static PyObject *
condition_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"lock", NULL};
    PyObject *lock = Py_None;
    pyrt_py_home *home = pyrt_py_home_get();
    if (home == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Condition", keywords, &lock)) {
        return NULL;
    }
    lock = lock == Py_None ? PyObject_CallObject((PyObject *)pyrt_py_sync_type(home, PYRT_PY_SYNC_RLOCK), NULL)
                           : Py_NewRef(lock);
    const pyrt_py_lockable *lockable = lock == NULL ? NULL : pyrt_py_lockable_of(home, lock);
    if (lock != NULL && lockable == NULL) {
        pyrt_py_raise_not(PYRT_PY_WRONG_TYPE, lock, "a Condition takes a Mutex, an RLock or the write() of an RWLock");
    }
    allocfunc alloc = PyType_GetSlot(type, Py_tp_alloc);
    condition *self = lockable == NULL ? NULL : (condition *)alloc(type, 0);
    if (self == NULL) {
        Py_XDECREF(lock);
        return NULL;
    }
    self->lock = lock;
    self->lockable = lockable;
    self->forks = pyrt_py_forks;
    return (PyObject *)self;
}

static PyObject *
condition_repr(PyObject *self)
{
    unsigned long count = count_waiters(condition_of(self));
    return PyUnicode_FromFormat("<pyruntime.Condition of %R, %lu waiting, at %p>", condition_of(self)->lock, count,
                                (void *)self);
}

/* Nobody waits: a waiter holds the condition. */
static void
condition_dealloc(PyObject *self)
{
    Py_DECREF(condition_of(self)->lock);
    pyrt_py_sync_free(self, &condition_of(self)->weakrefs);
}

PyDoc_STRVAR(acquire_doc, "acquire($self, /, blocking=True, timeout=-1)\n--\n\n"
                          "Takes the lock; as its own acquire().\n\n"
                          "    >>> from pyruntime.sync import Condition\n"
                          "    >>> Condition().acquire()\n"
                          "    True");
PyDoc_STRVAR(release_doc, "release($self, /)\n--\n\n"
                          "Gives the lock up; as its own release().\n\n"
                          "    >>> from pyruntime.sync import Condition\n"
                          "    >>> changed = Condition()\n"
                          "    >>> changed.acquire()\n"
                          "    True\n"
                          "    >>> changed.release()");
PyDoc_STRVAR(locked_doc, "locked($self, /)\n--\n\n"
                         "Whether some thread holds the lock at this moment.\n\n"
                         "    >>> from pyruntime.sync import Condition\n"
                         "    >>> Condition().locked()\n"
                         "    False");
PyDoc_STRVAR(wait_doc,
             "wait($self, /, timeout=None)\n--\n\n"
             "Gives the lock up, waits for a notification, takes the lock back; False when the time ran out.\n\n"
             "timeout: how many seconds to wait for the notification at most, an int or a float; None: without end. The\n"
             "lock is held again whenever it comes back, with an exception too; waiting for that has no time, and Ctrl-C\n"
             "does not end it. An RLock is given up altogether. A notification that comes together with an exception of a\n"
             "signal handler goes to the next one who waits.\n\n"
             "    >>> from pyruntime.sync import Condition\n"
             "    >>> changed = Condition()\n"
             "    >>> with changed:\n"
             "    ...     changed.wait(timeout=0.01)\n"
             "    False\n\n"
             "Raises StateError, a RuntimeError, where this thread does not hold the lock and inside a reading() block;\n"
             "DeadlockError inside of this thread's stop_the_world() block; OverflowError, ValueError and TypeError for a\n"
             "timeout that is none; OutOfMemoryError.");
PyDoc_STRVAR(wait_for_doc,
             "wait_for($self, /, predicate, timeout=None)\n--\n\n"
             "Waits until a function without arguments answers something true, and answers that.\n\n"
             "It is called with the lock held, first at once, then after each notification. When the time runs out (in\n"
             "seconds), its last answer is the result. Raises what wait() raises, and what the function raises.\n\n"
             "    >>> from threading import Thread\n"
             "    >>> from pyruntime.sync import Condition\n"
             "    >>> changed, basket = Condition(), []\n"
             "    >>> def put():\n"
             "    ...     with changed:\n"
             "    ...         basket.append('apple')\n"
             "    ...         changed.notify()\n"
             "    >>> Thread(target=put).start()\n"
             "    >>> with changed:\n"
             "    ...     changed.wait_for(lambda: basket)\n"
             "    ['apple']");
PyDoc_STRVAR(notify_doc, "notify($self, /, n=1)\n--\n\n"
                         "Wakes those n threads that have waited longest. They go on when the lock is released.\n\n"
                         "Raises StateError, a RuntimeError, where this thread does not hold the lock.\n\n"
                         "    >>> from pyruntime.sync import Condition\n"
                         "    >>> changed = Condition()\n"
                         "    >>> with changed:\n"
                         "    ...     changed.notify(2)");
PyDoc_STRVAR(notify_all_doc, "notify_all($self, /)\n--\n\n"
                             "Wakes all threads that wait. Raises as notify().\n\n"
                             "    >>> from pyruntime.sync import Condition\n"
                             "    >>> changed = Condition()\n"
                             "    >>> with changed:\n"
                             "    ...     changed.notify_all()");
PyDoc_STRVAR(doc,
             "Condition(lock=None)\n--\n\n"
             "Threads that wait until another has changed something under a lock; as threading.Condition.\n\n"
             "lock: a Mutex, an RLock, or the write() of an RWLock; None: an RLock of its own. Raises ArgumentTypeError, a\n"
             "TypeError, for anything else. A `with` block holds the lock.\n\n"
             "    >>> from threading import Thread\n"
             "    >>> from pyruntime.sync import Condition\n"
             "    >>> changed, done = Condition(), []\n"
             "    >>> def work():\n"
             "    ...     with changed:\n"
             "    ...         done.append(True)\n"
             "    ...         changed.notify_all()\n"
             "    >>> Thread(target=work).start()\n"
             "    >>> with changed:\n"
             "    ...     while not done:\n"
             "    ...         _ = changed.wait()\n"
             "    >>> done\n"
             "    [True]\n\n"
             "After Hoare's and Mesa's monitors.");

static PyMethodDef methods[] = {
    {"acquire", PYRT_PY_METHOD(condition_acquire), METH_VARARGS | METH_KEYWORDS, acquire_doc},
    {"release", condition_release, METH_NOARGS, release_doc},
    {"locked", condition_locked, METH_NOARGS, locked_doc},
    {"wait", PYRT_PY_METHOD(condition_wait), METH_FASTCALL | METH_KEYWORDS, wait_doc},
    {"wait_for", PYRT_PY_METHOD(condition_wait_for), METH_VARARGS | METH_KEYWORDS, wait_for_doc},
    {"notify", PYRT_PY_METHOD(condition_notify), METH_VARARGS | METH_KEYWORDS, notify_doc},
    {"notify_all", condition_notify_all, METH_NOARGS, notify_all_doc},
    {"__enter__", condition_enter, METH_NOARGS, "__enter__($self, /)\n--\n\nacquire(), without a time."},
    {"__exit__", PYRT_PY_METHOD(condition_exit), METH_FASTCALL, "__exit__($self, /, *exc_info)\n--\n\nrelease()."},
    {"_at_fork_reinit", condition_at_fork_reinit, METH_NOARGS,
     "_at_fork_reinit($self, /)\n--\n\nFor the child of a fork: nobody waits any more, and the lock is unlocked."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = PYRT_PY_WEAKREFS(condition);

static PyType_Slot slots[] = {
    {Py_tp_new, condition_new},
    {Py_tp_dealloc, condition_dealloc},
    {Py_tp_repr, condition_repr},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_doc, (void *)doc},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyruntime.sync.Condition",
    .basicsize = sizeof(condition),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

PyTypeObject *
pyrt_py_condition_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&spec);
}
