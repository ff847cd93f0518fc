/* sync_mutex.c -- pyruntime.sync.Mutex and RLock: the one-byte lock of the core, and who owns it.
 *
 * Both are the same object; an RLock looks at its owner before it looks at the lock. `owner` and `depth` belong to whoever holds
 * the lock; `owner` is read by everybody. On builds with a GIL it changes together with the lock, as far as Python code can
 * see: a thread that gets the lock after a wait has the GIL again by then. Without one, any thread may release a Mutex while
 * its owner does, so who unlocks is who has taken the owner's mark off (pyrt_py_take_mark).
 */
#include "binding/sync.h"
#include "binding/sync_lockable.h"

#include <structmember.h>

typedef struct mutex_object {
    PyObject_HEAD
    PyObject *weakrefs;
    uint64_t owner; /* atomic: pyrt_py_ident() of who holds it; 0: nobody */
    uint32_t depth; /* atomic, for repr(): how often its owner has acquired it, of an RLock */
    pyrt_mutex lock;
} mutex_object;

static mutex_object *
mutex_of(PyObject *self)
{
    return (mutex_object *)self;
}

/* ---- taking it --------------------------------------------------------------------------------------------------- */

__attribute__((noinline)) static pyrt_py_wait_result
wait_for(mutex_object *mutex, const char *what, int64_t timeout_ns)
{
    return pyrt_py_wait(&(pyrt_py_waiting){what, pyrt_py_attempt_mutex, &mutex->lock, &mutex->owner}, timeout_ns);
}

/* Whatever of it is not the usual case is in functions of its own, so that no registers are saved for it. */
static inline pyrt_py_wait_result
take(mutex_object *mutex, const char *what, int64_t timeout_ns)
{
    if (timeout_ns != 0 && pyrt_unlikely(pyrt_py_refuse_waiting(what))) {
        return PYRT_PY_FAILED;
    }
    if (pyrt_unlikely(!pyrt_mutex_trylock(&mutex->lock))) {
        pyrt_py_wait_result result = timeout_ns == 0 ? PYRT_PY_TIMED_OUT : wait_for(mutex, what, timeout_ns);
        if (result != PYRT_PY_DONE) {
            return result;
        }
    }
    pyrt_store_relaxed(&mutex->owner, pyrt_py_ident());
    return PYRT_PY_DONE;
}

static PyObject *
answer(pyrt_py_wait_result result)
{
    return result == PYRT_PY_FAILED ? NULL : PyBool_FromLong(result == PYRT_PY_DONE);
}

static PyObject *
mutex_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    return answer(take(mutex_of(self), "Mutex.__enter__()", -1));
}

static PyObject *
mutex_acquire(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    int64_t timeout_ns;
    if (!pyrt_py_acquire_arguments(args, count, names, "Mutex.acquire()", &timeout_ns)) {
        return NULL;
    }
    return answer(take(mutex_of(self), "Mutex.acquire()", timeout_ns));
}

/* ---- giving it up ------------------------------------------------------------------------------------------------ */

static PyObject *
refuse_release(void)
{
    return pyrt_py_raise(PYRT_ESTATE, "release unlocked lock: nobody holds this Mutex");
}

static inline PyObject *
give_up(mutex_object *mutex)
{
    if (pyrt_unlikely(pyrt_py_take_mark(&mutex->owner) == 0)) {
        return refuse_release();
    }
    pyrt_mutex_unlock(&mutex->lock);
    Py_RETURN_NONE;
}

static PyObject *
mutex_exit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)args;
    (void)count;
    return give_up(mutex_of(self));
}

static PyObject *
mutex_release(PyObject *self, PyObject *unused)
{
    (void)unused;
    return give_up(mutex_of(self));
}

/* ---- the recursive one ------------------------------------------------------------------------------------------- */

static inline bool
is_mine(const mutex_object *mutex)
{
    return pyrt_load_relaxed(&mutex->owner) == pyrt_py_ident();
}

static inline pyrt_py_wait_result
take_again(mutex_object *mutex, const char *what, int64_t timeout_ns)
{
    if (!is_mine(mutex)) {
        pyrt_py_wait_result result = take(mutex, what, timeout_ns);
        if (result == PYRT_PY_DONE) {
            pyrt_store_relaxed(&mutex->depth, 1u);
        }
        return result;
    }
    if (pyrt_unlikely(mutex->depth == UINT32_MAX)) {
        pyrt_py_raise(PYRT_EOVERFLOW, "%s: this thread has acquired it %u times already", what, mutex->depth);
        return PYRT_PY_FAILED;
    }
    pyrt_store_relaxed(&mutex->depth, mutex->depth + 1);
    return PYRT_PY_DONE;
}

static PyObject *
rlock_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    return answer(take_again(mutex_of(self), "RLock.__enter__()", -1));
}

static PyObject *
rlock_acquire(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    int64_t timeout_ns;
    if (!pyrt_py_acquire_arguments(args, count, names, "RLock.acquire()", &timeout_ns)) {
        return NULL;
    }
    return answer(take_again(mutex_of(self), "RLock.acquire()", timeout_ns));
}

static PyObject *
refuse_rlock_release(mutex_object *mutex)
{
    uint64_t owner = pyrt_load_relaxed(&mutex->owner);
    PyObject *text = owner == 0 ? PyUnicode_FromString("nobody") : pyrt_py_thread_text(owner);
    if (text != NULL) {
        pyrt_py_raise(PYRT_ESTATE, "cannot release un-acquired lock: this RLock is held by %S", text);
        Py_DECREF(text);
    }
    return NULL;
}

static void
give_up_mine(mutex_object *mutex)
{
    pyrt_store_relaxed(&mutex->depth, 0u);
    pyrt_store_relaxed(&mutex->owner, (uint64_t)0);
    pyrt_mutex_unlock(&mutex->lock);
}

static inline PyObject *
give_up_once(mutex_object *mutex)
{
    if (pyrt_unlikely(!is_mine(mutex))) {
        return refuse_rlock_release(mutex);
    }
    if (mutex->depth > 1) {
        pyrt_store_relaxed(&mutex->depth, mutex->depth - 1);
    }
    else {
        give_up_mine(mutex);
    }
    Py_RETURN_NONE;
}

static PyObject *
rlock_exit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)args;
    (void)count;
    return give_up_once(mutex_of(self));
}

static PyObject *
rlock_release(PyObject *self, PyObject *unused)
{
    (void)unused;
    return give_up_once(mutex_of(self));
}

/* ---- for conditions ---------------------------------------------------------------------------------------------- */

static bool
is_owned(PyObject *self)
{
    return is_mine(mutex_of(self));
}

static bool
release_all(PyObject *self, uint32_t *depth)
{
    mutex_object *mutex = mutex_of(self);
    uint64_t me = pyrt_py_ident();
    /* By who takes the mark off, as in give_up: another thread may be releasing a Mutex. */
    if (!pyrt_cas_acquire(&mutex->owner, &me, (uint64_t)0)) {
        return false;
    }
    *depth = mutex->depth;
    pyrt_store_relaxed(&mutex->depth, 0u);
    pyrt_mutex_unlock(&mutex->lock);
    return true;
}

static void
take_back(PyObject *self, uint32_t depth)
{
    mutex_object *mutex = mutex_of(self);
    if (!pyrt_mutex_trylock(&mutex->lock)) {
        pyrt_py_lock_again(&mutex->lock);
    }
    pyrt_store_relaxed(&mutex->owner, pyrt_py_ident());
    pyrt_store_relaxed(&mutex->depth, depth);
}

const pyrt_py_lockable pyrt_py_mutex_lockable = {mutex_enter, mutex_release, is_owned, release_all, take_back};
const pyrt_py_lockable pyrt_py_rlock_lockable = {rlock_enter, rlock_release, is_owned, release_all, take_back};

/* What threading.Condition asks of a lock that is acquired more than once. */
static PyObject *
rlock_is_owned(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(is_mine(mutex_of(self)));
}

static PyObject *
rlock_release_save(PyObject *self, PyObject *unused)
{
    (void)unused;
    uint32_t depth;
    return release_all(self, &depth) ? PyLong_FromUnsignedLong(depth) : refuse_rlock_release(mutex_of(self));
}

static PyObject *
rlock_acquire_restore(PyObject *self, PyObject *saved)
{
    unsigned long depth = PyLong_AsUnsignedLong(saved);
    if (PyErr_Occurred()) {
        return NULL;
    }
    pyrt_py_wait_result result = take(mutex_of(self), "RLock._acquire_restore()", -1);
    if (result != PYRT_PY_DONE) {
        return NULL;
    }
    pyrt_store_relaxed(&mutex_of(self)->depth, (uint32_t)depth);
    Py_RETURN_NONE;
}

static PyObject *
rlock_recursion_count(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(is_mine(mutex_of(self)) ? mutex_of(self)->depth : 0);
}

/* ---- the rest ---------------------------------------------------------------------------------------------------- */

static PyObject *
mutex_locked(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(pyrt_mutex_is_locked(&mutex_of(self)->lock));
}

static PyObject *
mutex_at_fork_reinit(PyObject *self, PyObject *unused)
{
    (void)unused;
    mutex_object *mutex = mutex_of(self);
    pyrt_mutex_at_fork_reinit(&mutex->lock);
    pyrt_store_relaxed(&mutex->depth, 0u);
    pyrt_store_relaxed(&mutex->owner, (uint64_t)0);
    Py_RETURN_NONE;
}

static PyObject *
describe(const mutex_object *mutex, const char *name, const char *times)
{
    uint64_t owner = pyrt_load_relaxed(&mutex->owner);
    unsigned long waiting = (unsigned long)pyrt_parked_count(&mutex->lock);
    if (owner == 0) {
        return PyUnicode_FromFormat("<pyruntime.%s, unlocked, %lu waiting, at %p>", name, waiting, (const void *)mutex);
    }
    PyObject *text = pyrt_py_thread_text(owner);
    if (text == NULL) {
        return NULL;
    }
    PyObject *result = PyUnicode_FromFormat("<pyruntime.%s, locked%s by %U, %lu waiting, at %p>", name, times, text, waiting,
                                            (const void *)mutex);
    Py_DECREF(text);
    return result;
}

static PyObject *
mutex_repr(PyObject *self)
{
    return describe(mutex_of(self), "Mutex", "");
}

static PyObject *
rlock_repr(PyObject *self)
{
    char times[32];
    unsigned long depth = (unsigned long)pyrt_load_relaxed(&mutex_of(self)->depth);
    PyOS_snprintf(times, sizeof(times), depth == 1 ? " once" : " %lu times", depth);
    return describe(mutex_of(self), "RLock", times);
}

static void
mutex_dealloc(PyObject *self)
{
    pyrt_py_sync_free(self, &mutex_of(self)->weakrefs);
}

#define ACQUIRE_DOC                                                                                                      \
    "acquire($self, /, blocking=True, timeout=-1)\n--\n\n"                                                               \
    "Takes the lock, and answers whether it has; waits for it if need be.\n\n"                                           \
    "blocking false: does not wait. timeout: how many seconds to wait at most, an int or a float; -1: without end.\n"    \
    "Ctrl-C ends the wait, as every signal handler that raises does. The GIL is let go only for a real wait, and so is " \
    "an\n"                                                                                                               \
    "attached() block. Raises ValueError, OverflowError and TypeError for a timeout that is none, StateError inside a\n" \
    "reading() block, which a wait would end, and DeadlockError, with the owner's name, where it would have to wait "    \
    "inside\n"                                                                                                           \
    "of this thread's stop_the_world() block.\n\n"
#define ENTER_DOC "__enter__($self, /)\n--\n\nacquire(), without a time."
#define EXIT_DOC "__exit__($self, /, *exc_info)\n--\n\nrelease()."
#define LOCKED_DOC "locked($self, /)\n--\n\nWhether some thread holds the lock at this moment.\n\n"
#define FORK_DOC                        \
    "_at_fork_reinit($self, /)\n--\n\n" \
    "For the child of a fork: unlocks it, whoever held it. Give it to os.register_at_fork(after_in_child=...)."

PyDoc_STRVAR(mutex_acquire_doc, ACQUIRE_DOC "    >>> from pyruntime.sync import Mutex\n"
                                            "    >>> lock = Mutex()\n"
                                            "    >>> lock.acquire()\n"
                                            "    True\n"
                                            "    >>> lock.acquire(timeout=0.01)\n"
                                            "    False");
PyDoc_STRVAR(mutex_release_doc,
             "release($self, /)\n--\n\n"
             "Unlocks, on whichever thread. Raises StateError, a RuntimeError, if nobody holds the lock.\n\n"
             "    >>> from pyruntime.sync import Mutex\n"
             "    >>> lock = Mutex()\n"
             "    >>> lock.acquire()\n"
             "    True\n"
             "    >>> lock.release()");
PyDoc_STRVAR(mutex_locked_doc, LOCKED_DOC "    >>> from pyruntime.sync import Mutex\n"
                                          "    >>> Mutex().locked()\n"
                                          "    False");
PyDoc_STRVAR(rlock_acquire_doc, ACQUIRE_DOC "The thread that holds it gets it again, and releases it as often.\n\n"
                                            "    >>> from pyruntime.sync import RLock\n"
                                            "    >>> lock = RLock()\n"
                                            "    >>> lock.acquire(), lock.acquire()\n"
                                            "    (True, True)");
PyDoc_STRVAR(rlock_release_doc, "release($self, /)\n--\n\n"
                                "Takes one acquire() back; the last one unlocks.\n\n"
                                "Raises StateError, a RuntimeError, on any thread but the owner's.\n\n"
                                "    >>> from pyruntime.sync import RLock\n"
                                "    >>> lock = RLock()\n"
                                "    >>> with lock, lock:\n"
                                "    ...     lock.acquire()\n"
                                "    ...     lock.release()\n"
                                "    True");
PyDoc_STRVAR(rlock_locked_doc, LOCKED_DOC "    >>> from pyruntime.sync import RLock\n"
                                          "    >>> RLock().locked()\n"
                                          "    False");

static PyMethodDef mutex_methods[] = {
    {"acquire", PYRT_PY_METHOD(mutex_acquire), METH_FASTCALL | METH_KEYWORDS, mutex_acquire_doc},
    {"release", mutex_release, METH_NOARGS, mutex_release_doc},
    {"locked", mutex_locked, METH_NOARGS, mutex_locked_doc},
    {"__enter__", mutex_enter, METH_NOARGS, ENTER_DOC},
    {"__exit__", PYRT_PY_METHOD(mutex_exit), METH_FASTCALL, EXIT_DOC},
    {"_at_fork_reinit", mutex_at_fork_reinit, METH_NOARGS, FORK_DOC},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef rlock_methods[] = {
    {"acquire", PYRT_PY_METHOD(rlock_acquire), METH_FASTCALL | METH_KEYWORDS, rlock_acquire_doc},
    {"release", rlock_release, METH_NOARGS, rlock_release_doc},
    {"locked", mutex_locked, METH_NOARGS, rlock_locked_doc},
    {"__enter__", rlock_enter, METH_NOARGS, ENTER_DOC},
    {"__exit__", PYRT_PY_METHOD(rlock_exit), METH_FASTCALL, EXIT_DOC},
    {"_at_fork_reinit", mutex_at_fork_reinit, METH_NOARGS, FORK_DOC},
    {"_is_owned", rlock_is_owned, METH_NOARGS, "Whether this thread holds it: for threading.Condition."},
    {"_release_save", rlock_release_save, METH_NOARGS, "Unlocks it altogether: for threading.Condition."},
    {"_acquire_restore", rlock_acquire_restore, METH_O, "Locks it as it was before: for threading.Condition."},
    {"_recursion_count", rlock_recursion_count, METH_NOARGS, "How often this thread has acquired it."},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(mutex_doc,
             "Mutex()\n--\n\n"
             "A lock for one thread at a time, as threading.Lock is one.\n\n"
             "Whoever has waited for a millisecond gets it next, so that nobody starves. It knows its owner, for\n"
             "repr() and for errors, but any thread may release it.\n\n"
             "    >>> from pyruntime.sync import Mutex\n"
             "    >>> lock = Mutex()\n"
             "    >>> with lock:\n"
             "    ...     lock.locked()\n"
             "    True\n\n"
             "After WebKit's one-byte WTF::Lock and CPython's PyMutex.");

PyDoc_STRVAR(rlock_doc, "RLock()\n--\n\n"
                        "A Mutex that the thread which holds it may take again, as threading.RLock is one.\n\n"
                        "    >>> from pyruntime.sync import RLock\n"
                        "    >>> lock = RLock()\n"
                        "    >>> with lock:\n"
                        "    ...     with lock:\n"
                        "    ...         lock.locked()\n"
                        "    True\n\n"
                        "After Java's ReentrantLock.");

static PyMemberDef members[] = PYRT_PY_WEAKREFS(mutex_object);

static PyType_Slot mutex_slots[] = {
    {Py_tp_new, pyrt_py_sync_new},
    {Py_tp_dealloc, mutex_dealloc},
    {Py_tp_repr, mutex_repr},
    {Py_tp_methods, mutex_methods},
    {Py_tp_members, members},
    {Py_tp_doc, (void *)mutex_doc},
    {0, NULL},
};

static PyType_Slot rlock_slots[] = {
    {Py_tp_new, pyrt_py_sync_new},
    {Py_tp_dealloc, mutex_dealloc},
    {Py_tp_repr, rlock_repr},
    {Py_tp_methods, rlock_methods},
    {Py_tp_members, members},
    {Py_tp_doc, (void *)rlock_doc},
    {0, NULL},
};

static PyType_Spec mutex_spec = {
    .name = "pyruntime.sync.Mutex",
    .basicsize = sizeof(mutex_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = mutex_slots,
};

static PyType_Spec rlock_spec = {
    .name = "pyruntime.sync.RLock",
    .basicsize = sizeof(mutex_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = rlock_slots,
};

PyTypeObject *
pyrt_py_mutex_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&mutex_spec);
}

PyTypeObject *
pyrt_py_rlock_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&rlock_spec);
}
