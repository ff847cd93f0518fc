/* sync_rwlock.c -- pyruntime.sync.RWLock, and its two sides: the locks that read() and write() answer.
 *
 * The lock is the core's (rwlock.h), where each side is left by the OS thread that has taken it. `writer` is written by who
 * writes, right after locking and right before unlocking; everybody reads it. A side is a view of its lock and has no state, so
 * that threads may share one.
 */
#include "binding/gil.h"
#include "binding/sync.h"
#include "binding/sync_lockable.h"

#include <pyruntime/rwlock.h>

#include <structmember.h>

typedef struct rwlock {
    PyObject_HEAD
    PyObject *weakrefs;
    uint64_t writer;         /* atomic: pyrt_py_ident(); 0: nobody writes */
    PyTypeObject *side_type; /* held */
    pyrt_rwlock lock;
} rwlock;

typedef enum { READ, WRITE } side_kind;

typedef struct side {
    PyObject_HEAD
    PyObject *weakrefs;
    rwlock *of; /* held */
    side_kind kind;
} side;

static rwlock *
rwlock_of(PyObject *self)
{
    return (rwlock *)self;
}

static side *
side_of(PyObject *self)
{
    return (side *)self;
}

static const char *
name_of(const side *self)
{
    return self->kind == READ ? "RWLock.read()" : "RWLock.write()";
}

/* ---- who holds it ---------------------------------------------------------------------------------------------------- */

/* As far as the row of this thread tells; what does not fit into it is only counted (rwlock.h). */
static bool
reads(const pyrt_rwlock *lock)
{
    const pyrt_tls_block *tls = pyrt_tls();
    const char *address = (const char *)lock;
    for (size_t i = 0; tls->own_row != NULL && i < PYRT_READER_SLOTS; i++) {
        const char *slot = pyrt_load_relaxed(&tls->own_row->slots[i]);
        if (slot == address || slot == address + 1) {
            return true;
        }
    }
    return tls->unlisted_reads != 0 && pyrt_load_relaxed(&lock->state) >= PYRT_RWLOCK_READER;
}

static PyObject *
refuse_release(const side *self)
{
    uint64_t writer = pyrt_load_relaxed(&self->of->writer);
    PyObject *text = writer == 0 ? PyUnicode_FromString("nobody writes") : pyrt_py_thread_text(writer);
    if (text != NULL) {
        pyrt_py_raise(PYRT_ESTATE, "release unlocked lock: this thread does not hold the %s side of this RWLock; %S%s",
                      self->kind == READ ? "read" : "write", text, writer == 0 ? "" : " writes");
        Py_DECREF(text);
    }
    return NULL;
}

/* ---- taking and leaving ---------------------------------------------------------------------------------------------- */

static pyrt_status
attempt_read(void *lock, int64_t timeout_ns, unsigned flags)
{
    return pyrt_rwlock_read_lock_timed(lock, timeout_ns, flags);
}

static pyrt_status
attempt_write(void *lock, int64_t timeout_ns, unsigned flags)
{
    return pyrt_rwlock_write_lock_timed(lock, timeout_ns, flags);
}

__attribute__((noinline)) static pyrt_py_wait_result
wait_for(side *self, int64_t timeout_ns)
{
    pyrt_py_attempt *attempt = self->kind == READ ? attempt_read : attempt_write;
    return pyrt_py_wait(&(pyrt_py_waiting){name_of(self), attempt, &self->of->lock, &self->of->writer}, timeout_ns);
}

static inline PyObject *
take(side *self, int64_t timeout_ns)
{
    pyrt_rwlock *lock = &self->of->lock;
    if (timeout_ns != 0 && pyrt_unlikely(pyrt_py_refuse_waiting(name_of(self)))) {
        return NULL;
    }
    bool taken = self->kind == READ ? pyrt_rwlock_read_trylock(lock) : pyrt_rwlock_write_trylock(lock);
    if (pyrt_unlikely(!taken)) {
        pyrt_py_wait_result result = timeout_ns == 0 ? PYRT_PY_TIMED_OUT : wait_for(self, timeout_ns);
        if (result != PYRT_PY_DONE) {
            return result == PYRT_PY_FAILED ? NULL : PyBool_FromLong(0);
        }
    }
    if (self->kind == WRITE) {
        pyrt_store_relaxed(&self->of->writer, pyrt_py_ident());
    }
    Py_RETURN_TRUE;
}

static inline PyObject *
give_up(side *self)
{
    pyrt_rwlock *lock = &self->of->lock;
    if (self->kind == READ) {
        if (pyrt_unlikely(!reads(lock))) {
            return refuse_release(self);
        }
        pyrt_rwlock_read_unlock(lock);
        Py_RETURN_NONE;
    }
    if (pyrt_unlikely(!pyrt_rwlock_is_owned(lock))) {
        return refuse_release(self);
    }
    pyrt_store_relaxed(&self->of->writer, (uint64_t)0);
    pyrt_rwlock_write_unlock(lock);
    Py_RETURN_NONE;
}

static PyObject *
side_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    return take(side_of(self), -1);
}

static PyObject *
side_acquire(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    int64_t timeout_ns;
    if (!pyrt_py_acquire_arguments(args, count, names, "acquire() of an RWLock", &timeout_ns)) {
        return NULL;
    }
    return take(side_of(self), timeout_ns);
}

static PyObject *
side_exit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)args;
    (void)count;
    return give_up(side_of(self));
}

static PyObject *
side_release(PyObject *self, PyObject *unused)
{
    (void)unused;
    return give_up(side_of(self));
}

static PyObject *
side_locked(PyObject *self, PyObject *unused)
{
    (void)unused;
    const side *me = side_of(self);
    return PyBool_FromLong(me->kind == READ ? pyrt_rwlock_readers(&me->of->lock) != 0
                                            : pyrt_rwlock_is_write_locked(&me->of->lock));
}

/* ---- for conditions -------------------------------------------------------------------------------------------------- */

static bool
is_owned(PyObject *self)
{
    return pyrt_rwlock_is_owned(&side_of(self)->of->lock);
}

static bool
release_all(PyObject *self, uint32_t *depth)
{
    *depth = 1;
    if (!is_owned(self)) {
        return false;
    }
    pyrt_store_relaxed(&side_of(self)->of->writer, (uint64_t)0);
    pyrt_rwlock_write_unlock(&side_of(self)->of->lock);
    return true;
}

static void
take_back(PyObject *self, uint32_t depth)
{
    (void)depth;
    PyThreadState *outer = pyrt_py_enter();
    (void)pyrt_rwlock_write_lock(&side_of(self)->of->lock);
    pyrt_py_leave(outer);
    pyrt_store_relaxed(&side_of(self)->of->writer, pyrt_py_ident());
}

const pyrt_py_lockable *
pyrt_py_rwlock_side_lockable(PyObject *self)
{
    static const pyrt_py_lockable of_writers = {side_enter, side_release, is_owned, release_all, take_back};
    return side_of(self)->kind == WRITE ? &of_writers : NULL;
}

/* ---- the sides ------------------------------------------------------------------------------------------------------- */

static PyObject *
new_side(PyObject *self, side_kind kind)
{
    side *made = PyObject_New(side, rwlock_of(self)->side_type);
    if (made != NULL) {
        Py_INCREF(self);
        made->weakrefs = NULL;
        made->of = rwlock_of(self);
        made->kind = kind;
    }
    return (PyObject *)made;
}

static PyObject *
rwlock_read(PyObject *self, PyObject *unused)
{
    (void)unused;
    return new_side(self, READ);
}

static PyObject *
rwlock_write(PyObject *self, PyObject *unused)
{
    (void)unused;
    return new_side(self, WRITE);
}

static void
side_dealloc(PyObject *self)
{
    PyObject *of = (PyObject *)side_of(self)->of;
    pyrt_py_sync_free(self, &side_of(self)->weakrefs);
    Py_DECREF(of);
}

static PyObject *
side_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<%s side of %R>", side_of(self)->kind == READ ? "read" : "write",
                                (PyObject *)side_of(self)->of);
}

/* ---- the lock -------------------------------------------------------------------------------------------------------- */

static PyObject *
rwlock_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    pyrt_py_home *home = pyrt_py_home_get();
    PyObject *self = home == NULL ? NULL : pyrt_py_sync_new(type, args, kwargs);
    if (self != NULL) {
        PyTypeObject *side_type = pyrt_py_sync_type(home, PYRT_PY_SYNC_RWLOCK_SIDE);
        Py_INCREF((PyObject *)side_type);
        rwlock_of(self)->side_type = side_type;
    }
    return self;
}

static void
rwlock_dealloc(PyObject *self)
{
    PyObject *side_type = (PyObject *)rwlock_of(self)->side_type;
    pyrt_rwlock *lock = &rwlock_of(self)->lock;
    if (reads(lock)) {
        /* What this thread has never left; its row must not name memory that is another lock's then. */
        pyrt_rwlock_at_fork_reinit(lock);
    }
    pyrt_py_sync_free(self, &rwlock_of(self)->weakrefs);
    Py_XDECREF(side_type);
}

static PyObject *
rwlock_at_fork_reinit(PyObject *self, PyObject *unused)
{
    (void)unused;
    pyrt_rwlock_at_fork_reinit(&rwlock_of(self)->lock);
    pyrt_store_relaxed(&rwlock_of(self)->writer, (uint64_t)0);
    Py_RETURN_NONE;
}

static PyObject *
rwlock_repr(PyObject *object)
{
    rwlock *self = rwlock_of(object);
    uint64_t writer = pyrt_load_relaxed(&self->writer);
    unsigned long waiting = (unsigned long)pyrt_rwlock_waiters(&self->lock);
    if (writer == 0) {
        unsigned long readers = (unsigned long)pyrt_rwlock_readers(&self->lock);
        return PyUnicode_FromFormat("<pyruntime.RWLock, %lu reader%s, %lu waiting, at %p>", readers, readers == 1 ? "" : "s",
                                    waiting, (void *)self);
    }
    PyObject *text = pyrt_py_thread_text(writer);
    PyObject *repr = NULL;
    if (text != NULL) {
        repr = PyUnicode_FromFormat("<pyruntime.RWLock, written by %U, %lu waiting, at %p>", text, waiting, (void *)self);
        Py_DECREF(text);
    }
    return repr;
}

#define SIDE_WORDS                                                                                                         \
    "The side is a lock: for a with statement, or with acquire(blocking=True, timeout=-1), release() and locked(), as\n"   \
    "those of Mutex. The thread that took it leaves it. Taking it where this thread holds the lock already, either way,\n" \
    "raises DeadlockError; so does a wait inside of this thread's stop_the_world() block.\n\n"

PyDoc_STRVAR(read_doc, "read($self, /)\n--\n\n"
                       "The side for reading: any number of threads at a time, while nobody writes.\n\n" SIDE_WORDS
                       "    >>> from pyruntime.sync import RWLock\n"
                       "    >>> lock, table = RWLock(), {'colour': 'blue'}\n"
                       "    >>> with lock.read():\n"
                       "    ...     table['colour']\n"
                       "    'blue'");
PyDoc_STRVAR(write_doc, "write($self, /)\n--\n\n"
                        "The side for writing: one thread, and nobody else.\n\n" SIDE_WORDS
                        "    >>> from pyruntime.sync import RWLock\n"
                        "    >>> lock, table = RWLock(), {}\n"
                        "    >>> with lock.write():\n"
                        "    ...     table['colour'] = 'red'\n"
                        "    >>> lock.write().acquire(timeout=1)\n"
                        "    True");
PyDoc_STRVAR(rwlock_doc,
             "RWLock()\n--\n\n"
             "A lock for many readers or one writer.\n\n"
             "Readers do not slow each other down, and neither side starves: a reader that comes after a writer waits\n"
             "for it, and the other way round.\n\n"
             "    >>> from pyruntime.sync import RWLock\n"
             "    >>> lock = RWLock()\n"
             "    >>> with lock.read():\n"
             "    ...     lock.write().acquire(blocking=False)\n"
             "    False\n\n"
             "After POSIX's pthread_rwlock, with the readers of Dice and Kogan's BRAVO.");
PyDoc_STRVAR(side_doc, "A side of an RWLock, made by read() and write(): a lock.");

static PyMethodDef rwlock_methods[] = {
    {"read", rwlock_read, METH_NOARGS, read_doc},
    {"write", rwlock_write, METH_NOARGS, write_doc},
    {"_at_fork_reinit", rwlock_at_fork_reinit, METH_NOARGS,
     "_at_fork_reinit($self, /)\n--\n\nFor the child of a fork: unlocks it, whoever held it."},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef side_methods[] = {
    {"acquire", PYRT_PY_METHOD(side_acquire), METH_FASTCALL | METH_KEYWORDS,
     "acquire($self, /, blocking=True, timeout=-1)\n--\n\nTakes this side, as Mutex.acquire().\n\n"
     "    >>> from pyruntime.sync import RWLock\n"
     "    >>> RWLock().read().acquire(timeout=1)\n"
     "    True"},
    {"release", side_release, METH_NOARGS,
     "release($self, /)\n--\n\nLeaves this side; StateError on a thread that does not hold it.\n\n"
     "    >>> from pyruntime.sync import RWLock\n"
     "    >>> side = RWLock().write()\n"
     "    >>> side.acquire()\n"
     "    True\n"
     "    >>> side.release()"},
    {"locked", side_locked, METH_NOARGS,
     "locked($self, /)\n--\n\nWhether some thread holds this side.\n\n"
     "    >>> from pyruntime.sync import RWLock\n"
     "    >>> RWLock().write().locked()\n"
     "    False"},
    {"__enter__", side_enter, METH_NOARGS, "__enter__($self, /)\n--\n\nacquire(), without a time."},
    {"__exit__", PYRT_PY_METHOD(side_exit), METH_FASTCALL, "__exit__($self, /, *exc_info)\n--\n\nrelease()."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef rwlock_members[] = PYRT_PY_WEAKREFS(rwlock);
static PyMemberDef side_members[] = PYRT_PY_WEAKREFS(side);

static PyType_Slot rwlock_slots[] = {
    {Py_tp_new, rwlock_new},
    {Py_tp_dealloc, rwlock_dealloc},
    {Py_tp_repr, rwlock_repr},
    {Py_tp_methods, rwlock_methods},
    {Py_tp_members, rwlock_members},
    {Py_tp_doc, (void *)rwlock_doc},
    {0, NULL},
};

static PyType_Slot side_slots[] = {
    {Py_tp_dealloc, side_dealloc}, {Py_tp_repr, side_repr},       {Py_tp_methods, side_methods},
    {Py_tp_members, side_members}, {Py_tp_doc, (void *)side_doc}, {0, NULL},
};

static PyType_Spec rwlock_spec = {
    .name = "pyruntime.sync.RWLock",
    .basicsize = sizeof(rwlock),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = rwlock_slots,
};

static PyType_Spec side_spec = {
    .name = "pyruntime.sync.RWLockSide",
    .basicsize = sizeof(side),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = side_slots,
};

PyTypeObject *
pyrt_py_rwlock_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&rwlock_spec);
}

PyTypeObject *
pyrt_py_rwlock_side_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&side_spec);
}
