/* sync_striped.c -- pyruntime.sync.StripedLock, and the blocks that lock some of its stripes.
 *
 * The stripes are those of the core (striped_lock.h), found by the hashes of keys; beside them stands, for each, its owner. A
 * block names hashes and belongs to no thread: entering locks, leaving unlocks the same stripes, on whichever thread. What is
 * unlocked is looked for first, so that a block that is not open is refused and not reported by the core.
 */
#include "binding/sync.h"
#include "binding/sync_wait.h"

#include <pyruntime/striped_lock.h>

#include <structmember.h>
#include <stdlib.h>

typedef struct striped {
    PyObject_HEAD
    PyObject *weakrefs;
    pyrt_striped_lock table;
    uint64_t *owners;         /* atomic, one for each stripe: pyrt_py_ident(); 0: nobody */
    PyTypeObject *block_type; /* held */
} striped;

/* count < 0: all stripes. */
typedef struct stripes_block {
    PyObject_VAR_HEAD striped *lock; /* held */
    uint64_t hashes[1];
} stripes_block;

static striped *
striped_of(PyObject *self)
{
    return (striped *)self;
}

static stripes_block *
block_of(PyObject *self)
{
    return (stripes_block *)self;
}

/* ---- a block --------------------------------------------------------------------------------------------------------- */

static size_t
count_of(const stripes_block *block)
{
    return (size_t)Py_SIZE((PyObject *)block);
}

static bool
is_all(const stripes_block *block)
{
    return count_of(block) == 0;
}

/* How many owners it looks at; some of them twice, where keys share a stripe. */
static size_t
owners_of(const stripes_block *block)
{
    return is_all(block) ? pyrt_striped_lock_stripes(&block->lock->table) : count_of(block);
}

static uint64_t *
owner_at(const stripes_block *block, size_t i)
{
    const striped *lock = block->lock;
    return &lock->owners[is_all(block) ? i : pyrt_striped_lock_stripe(&lock->table, block->hashes[i])];
}

/* Writes the owner of its first n stripes. */
static void
mark(stripes_block *block, size_t n, uint64_t owner)
{
    for (size_t i = 0; i < n; i++) {
        pyrt_store_relaxed(owner_at(block, i), owner);
    }
}

static bool
is_repeated(const stripes_block *block, size_t i)
{
    for (size_t j = 0; j < i; j++) {
        if (owner_at(block, j) == owner_at(block, i)) {
            return true;
        }
    }
    return false;
}

/* Takes the owners' marks off all its stripes; false, and none is off, where nobody holds one of them. */
static bool
take_marks(stripes_block *block)
{
    uint64_t owner = 0;
    for (size_t i = 0; i < owners_of(block); i++) {
        uint64_t found = pyrt_py_take_mark(owner_at(block, i));
        if (found == 0 && !is_repeated(block, i)) {
            mark(block, i, owner);
            return false;
        }
        owner = found == 0 ? owner : found;
    }
    return true;
}

/* The owner of the first stripe that somebody holds (want_held) or, as 1, whether there is one that nobody holds. */
static uint64_t
find_owner(const stripes_block *block, bool want_held)
{
    for (size_t i = 0; i < owners_of(block); i++) {
        uint64_t owner = pyrt_load_relaxed(owner_at(block, i));
        if ((owner != 0) == want_held) {
            return want_held ? owner : 1;
        }
    }
    return 0;
}

static pyrt_status
attempt(void *arg, int64_t timeout_ns, unsigned flags)
{
    stripes_block *block = arg;
    pyrt_striped_lock *table = &block->lock->table;
    return is_all(block) ? pyrt_striped_lock_all_timed(table, timeout_ns, flags)
                         : pyrt_striped_lock_hashes_timed(table, block->hashes, count_of(block), timeout_ns, flags);
}

static bool
try_once(stripes_block *block)
{
    pyrt_striped_lock *table = &block->lock->table;
    if (count_of(block) == 1) {
        return pyrt_striped_trylock_hash(table, block->hashes[0]);
    }
    return is_all(block) ? pyrt_striped_trylock_all(table)
                         : pyrt_striped_trylock_hashes(table, block->hashes, count_of(block));
}

/* Inside of this thread's own pause the core says so by a timeout; the owner is found here. */
static pyrt_py_wait_result
wait_for(stripes_block *block, int64_t timeout_ns)
{
    uint64_t owner = find_owner(block, true);
    return pyrt_py_wait(&(pyrt_py_waiting){"StripedLock", attempt, block, &owner}, timeout_ns);
}

static PyObject *
take(stripes_block *block, int64_t timeout_ns)
{
    if (timeout_ns != 0 && pyrt_py_refuse_waiting("StripedLock")) {
        return NULL;
    }
    if (!try_once(block)) {
        pyrt_py_wait_result result = timeout_ns == 0 ? PYRT_PY_TIMED_OUT : wait_for(block, timeout_ns);
        if (result != PYRT_PY_DONE) {
            return result == PYRT_PY_FAILED ? NULL : PyBool_FromLong(0);
        }
    }
    mark(block, owners_of(block), pyrt_py_ident());
    Py_RETURN_TRUE;
}

static PyObject *
give_up(stripes_block *block)
{
    pyrt_striped_lock *table = &block->lock->table;
    if (find_owner(block, false) != 0 || !take_marks(block)) {
        return pyrt_py_raise(PYRT_ESTATE, "release unlocked lock: nobody holds these keys of the StripedLock");
    }
    if (is_all(block)) {
        pyrt_striped_unlock_all(table);
    }
    else if (count_of(block) == 1) {
        pyrt_striped_unlock_hash(table, block->hashes[0]);
    }
    else {
        pyrt_striped_unlock_hashes(table, block->hashes, count_of(block));
    }
    Py_RETURN_NONE;
}

static PyObject *
block_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    return take(block_of(self), -1);
}

static PyObject *
block_acquire(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    int64_t timeout_ns;
    if (!pyrt_py_acquire_arguments(args, count, names, "acquire() of a StripedLock", &timeout_ns)) {
        return NULL;
    }
    return take(block_of(self), timeout_ns);
}

static PyObject *
block_exit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)args;
    (void)count;
    return give_up(block_of(self));
}

static PyObject *
block_release(PyObject *self, PyObject *unused)
{
    (void)unused;
    return give_up(block_of(self));
}

static PyObject *
block_locked(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(find_owner(block_of(self), true) != 0);
}

static PyObject *
block_repr(PyObject *self)
{
    const stripes_block *block = block_of(self);
    if (is_all(block)) {
        return PyUnicode_FromFormat("<all stripes of %R>", (PyObject *)block->lock);
    }
    return PyUnicode_FromFormat("<stripes of %zd key%s of %R>", Py_SIZE(self), Py_SIZE(self) == 1 ? "" : "s",
                                (PyObject *)block->lock);
}

static void
block_dealloc(PyObject *self)
{
    Py_DECREF((PyObject *)block_of(self)->lock);
    pyrt_py_sync_free(self, NULL);
}

/* ---- making blocks --------------------------------------------------------------------------------------------------- */

static stripes_block *
new_block(PyObject *self, Py_ssize_t count)
{
    PyTypeObject *type = striped_of(self)->block_type;
    allocfunc alloc = PyType_GetSlot(type, Py_tp_alloc);
    stripes_block *block = (stripes_block *)alloc(type, count);
    if (block != NULL) {
        Py_INCREF(self);
        block->lock = striped_of(self);
    }
    return block;
}

static PyObject *
striped_for_keys(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    if (count == 0) {
        return pyrt_py_raise(PYRT_PY_WRONG_TYPE, "for_keys() takes at least one key; all() locks everything");
    }
    stripes_block *block = new_block(self, count);
    for (Py_ssize_t i = 0; block != NULL && i < count; i++) {
        Py_hash_t hash = PyObject_Hash(args[i]);
        if (hash == -1) {
            Py_CLEAR(block);
            break;
        }
        block->hashes[i] = (uint64_t)hash;
    }
    return (PyObject *)block;
}

static PyObject *
striped_for_key(PyObject *self, PyObject *key)
{
    return striped_for_keys(self, &key, 1);
}

static PyObject *
striped_all(PyObject *self, PyObject *unused)
{
    (void)unused;
    return (PyObject *)new_block(self, 0);
}

/* ---- the lock -------------------------------------------------------------------------------------------------------- */

static PyObject *
striped_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"stripes", "apart", NULL};
    PyObject *number = NULL;
    Py_ssize_t stripes = 64;
    int apart = 0;
    pyrt_py_home *home = pyrt_py_home_get();
    if (home == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "|O$p:StripedLock", keywords, &number, &apart) ||
        (number != NULL && !pyrt_py_count(number, "the number of stripes of a StripedLock", &stripes))) {
        return NULL;
    }
    if (stripes < 1 || stripes > PYRT_STRIPES_MAX) {
        return pyrt_py_raise_not(PYRT_EINVAL, number, "StripedLock() has from 1 to %d stripes", PYRT_STRIPES_MAX);
    }
    allocfunc alloc = PyType_GetSlot(type, Py_tp_alloc);
    striped *self = (striped *)alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->block_type = (PyTypeObject *)Py_NewRef((PyObject *)pyrt_py_sync_type(home, PYRT_PY_SYNC_STRIPES));
    pyrt_striped_lock_config config = {sizeof(config), apart ? PYRT_STRIPES_APART : 0, (size_t)stripes, NULL, 0};
    if (pyrt_striped_lock_init_config(&self->table, &config) == PYRT_OK) {
        self->owners = calloc(pyrt_striped_lock_stripes(&self->table), sizeof(uint64_t));
    }
    if (self->owners == NULL) {
        Py_DECREF((PyObject *)self);
        return pyrt_py_raise(PYRT_ENOMEM, "no memory for a StripedLock of %zd stripes", stripes);
    }
    return (PyObject *)self;
}

/* Stripes that are locked still lock nothing any more: nobody can ask for them. */
static void
striped_dealloc(PyObject *object)
{
    striped *self = striped_of(object);
    PyObject *block_type = (PyObject *)self->block_type;
    if (self->table.mutexes != NULL) {
        pyrt_striped_lock_at_fork_reinit(&self->table);
        pyrt_striped_lock_fini(&self->table);
    }
    free(self->owners);
    pyrt_py_sync_free(object, &self->weakrefs);
    Py_XDECREF(block_type);
}

static PyObject *
striped_at_fork_reinit(PyObject *self, PyObject *unused)
{
    (void)unused;
    pyrt_striped_lock *table = &striped_of(self)->table;
    pyrt_striped_lock_at_fork_reinit(table);
    for (size_t i = 0; i < pyrt_striped_lock_stripes(table); i++) {
        pyrt_store_relaxed(&striped_of(self)->owners[i], (uint64_t)0);
    }
    Py_RETURN_NONE;
}

static pyrt_striped_lock_stats
stats_of(const striped *self)
{
    pyrt_striped_lock_stats stats = {.struct_size = sizeof(stats)};
    (void)pyrt_striped_lock_stats_read(&self->table, &stats);
    return stats;
}

static PyObject *
striped_waits(PyObject *self, PyObject *unused)
{
    (void)unused;
    const pyrt_striped_lock *table = &striped_of(self)->table;
    size_t count = pyrt_striped_lock_stripes(table);
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *value = PyLong_FromUnsignedLongLong(pyrt_striped_lock_waits(table, i));
        if (value == NULL || PyList_SetItem(list, (Py_ssize_t)i, value) != 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *
striped_stripes(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(pyrt_striped_lock_stripes(&striped_of(self)->table));
}

static PyObject *
striped_repr(PyObject *self)
{
    pyrt_striped_lock_stats stats = stats_of(striped_of(self));
    return PyUnicode_FromFormat("<pyruntime.StripedLock, %u stripes, %u locked, at %p>", stats.stripes, stats.locked,
                                (void *)self);
}

PyDoc_STRVAR(for_key_doc,
             "for_key($self, key, /)\n--\n\n"
             "A block in which no other thread holds this key. Equal keys are the same key.\n\n"
             "It is a lock: for a with statement, or with acquire() and release(). Do not ask for a second key inside,\n"
             "which may be of the same stripe: for_keys() takes both. TypeError for a key without a hash.\n\n"
             "    >>> from pyruntime.sync import StripedLock\n"
             "    >>> stripes, counts = StripedLock(), {}\n"
             "    >>> with stripes.for_key('apple'):\n"
             "    ...     counts['apple'] = counts.get('apple', 0) + 1\n"
             "    >>> counts\n"
             "    {'apple': 1}");
PyDoc_STRVAR(for_keys_doc, "for_keys($self, /, *keys)\n--\n\n"
                           "The same for several keys at once, in any order: no two such blocks can wait for each other.\n\n"
                           "    >>> from pyruntime.sync import StripedLock\n"
                           "    >>> stripes, balance = StripedLock(), {'a': 10, 'b': 0}\n"
                           "    >>> with stripes.for_keys('a', 'b'):\n"
                           "    ...     balance['a'], balance['b'] = balance['a'] - 3, balance['b'] + 3\n"
                           "    >>> balance\n"
                           "    {'a': 7, 'b': 3}");
PyDoc_STRVAR(all_doc,
             "all($self, /)\n--\n\n"
             "A block in which no other thread holds any key: for a snapshot, or for rebuilding what they guard.\n\n"
             "    >>> from pyruntime.sync import StripedLock\n"
             "    >>> stripes = StripedLock()\n"
             "    >>> with stripes.all():\n"
             "    ...     stripes.for_key(1).acquire(blocking=False)\n"
             "    False");
PyDoc_STRVAR(waits_doc, "waits($self, /)\n--\n\n"
                        "How often each stripe was waited for, as a list: where one number stands out, a key is hot.\n\n"
                        "    >>> from pyruntime.sync import StripedLock\n"
                        "    >>> StripedLock(stripes=4).waits()\n"
                        "    [0, 0, 0, 0]");
PyDoc_STRVAR(
    striped_doc,
    "StripedLock(stripes=64, *, apart=False)\n--\n\n"
    "Locks for any number of keys, out of a fixed number of stripes.\n\n"
    "A key's hash chooses its stripe, and all keys of a stripe exclude each other: so what is kept by key needs\n"
    "no lock for each. stripes is rounded up to a power of two, 1048576 at most; a byte each, or a cache line\n"
    "(apart), which is faster where several threads run at once. It waits as a Mutex does, with the same errors.\n\n"
    "    >>> from pyruntime.sync import StripedLock\n"
    "    >>> stripes = StripedLock(stripes=1000)\n"
    "    >>> stripes.stripes\n"
    "    1024\n"
    "    >>> with stripes.for_keys('left', 'right'):\n"
    "    ...     pass\n\n"
    "Raises ArgumentError for a number of stripes that there cannot be, OutOfMemoryError.\n\n"
    "After Guava's Striped and Java's old ConcurrentHashMap.");
PyDoc_STRVAR(block_doc, "Some keys of a StripedLock, or all of it: a lock, made by for_key(), for_keys() and all().");

static PyMethodDef striped_methods[] = {
    {"for_key", striped_for_key, METH_O, for_key_doc},
    {"for_keys", PYRT_PY_METHOD(striped_for_keys), METH_FASTCALL, for_keys_doc},
    {"all", striped_all, METH_NOARGS, all_doc},
    {"waits", striped_waits, METH_NOARGS, waits_doc},
    {"_at_fork_reinit", striped_at_fork_reinit, METH_NOARGS,
     "_at_fork_reinit($self, /)\n--\n\nFor the child of a fork: unlocks all stripes, whoever held them."},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef block_methods[] = {
    {"acquire", PYRT_PY_METHOD(block_acquire), METH_FASTCALL | METH_KEYWORDS,
     "acquire($self, /, blocking=True, timeout=-1)\n--\n\nTakes all its stripes or none, as Mutex.acquire().\n\n"
     "    >>> from pyruntime.sync import StripedLock\n"
     "    >>> StripedLock().for_keys('a', 'b').acquire(timeout=1)\n"
     "    True"},
    {"release", block_release, METH_NOARGS,
     "release($self, /)\n--\n\nUnlocks them, as Mutex.release().\n\n"
     "    >>> from pyruntime.sync import StripedLock\n"
     "    >>> keys = StripedLock().all()\n"
     "    >>> keys.acquire()\n"
     "    True\n"
     "    >>> keys.release()"},
    {"locked", block_locked, METH_NOARGS,
     "locked($self, /)\n--\n\nWhether some thread holds one of the stripes.\n\n"
     "    >>> from pyruntime.sync import StripedLock\n"
     "    >>> StripedLock().all().locked()\n"
     "    False"},
    {"__enter__", block_enter, METH_NOARGS, "__enter__($self, /)\n--\n\nacquire(), without a time."},
    {"__exit__", PYRT_PY_METHOD(block_exit), METH_FASTCALL, "__exit__($self, /, *exc_info)\n--\n\nrelease()."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"stripes", striped_stripes, NULL, "How many there are.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = PYRT_PY_WEAKREFS(striped);

static PyType_Slot striped_slots[] = {
    {Py_tp_new, striped_new},         {Py_tp_dealloc, striped_dealloc},
    {Py_tp_repr, striped_repr},       {Py_tp_methods, striped_methods},
    {Py_tp_getset, properties},       {Py_tp_members, members},
    {Py_tp_doc, (void *)striped_doc}, {0, NULL},
};

static PyType_Slot block_slots[] = {
    {Py_tp_dealloc, block_dealloc},
    {Py_tp_repr, block_repr},
    {Py_tp_methods, block_methods},
    {Py_tp_doc, (void *)block_doc},
    {0, NULL},
};

static PyType_Spec striped_spec = {
    .name = "pyruntime.sync.StripedLock",
    .basicsize = sizeof(striped),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = striped_slots,
};

static PyType_Spec block_spec = {
    .name = "pyruntime.sync.Stripes",
    .basicsize = offsetof(stripes_block, hashes),
    .itemsize = sizeof(uint64_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = block_slots,
};

PyTypeObject *
pyrt_py_striped_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&striped_spec);
}

PyTypeObject *
pyrt_py_stripes_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&block_spec);
}
