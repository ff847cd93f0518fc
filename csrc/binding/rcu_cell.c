/* rcu_cell.c -- pyruntime.rcu.RCUCell: one reference that is read without a lock and replaced as a whole.
 *
 * The cell owns one reference to its value. A reader loads the pointer, and then counts a reference of its own; in between the
 * cell's must not be given up:
 *
 *   with a GIL    nobody comes in between, so it is given up at once, by who replaces the value
 *   without       the reader is attached meanwhile, to whatever domain, and who replaces the value retires the cell's reference
 *                 for the readers of all domains
 *
 * `value` is never NULL: it is replaced by exchange or compare-and-swap, until the cell ends.
 *
 * State table of `postponed`, which only grows without a GIL: references that could not be retired for want of memory.
 *   NULL        none
 *   a node      newest first; pushed by who could not retire it. All are taken at once by the next one who replaces the value,
 *               who tries again, and by the end of the cell, which no reader outlives
 */
#include "binding/rcu_cell.h"

#include "binding/callables.h"
#include "binding/states.h"

#include <structmember.h>

typedef struct rcu_cell {
    PyObject_HEAD
    PyObject *value;             /* atomic */
    pyrt_py_callable *postponed; /* atomic */
    pyrt_py_home *home;          /* held */
    PyObject *weakrefs;
} rcu_cell;

static rcu_cell *
cell_of(PyObject *self)
{
    return (rcu_cell *)self;
}

/* ---- what the GIL makes simple ----------------------------------------------------------------------------------- */

#if defined(Py_GIL_DISABLED)

/* A new reference; NULL with the exception of a signal handler, or when memory is short. */
static PyObject *
load(rcu_cell *self)
{
    pyrt_thread *mine = NULL;
    if (pyrt_thread_current() == NULL) {
        pyrt_py_state_prepare();
        mine = pyrt_py_state_keep(pyrt_interp_main());
        if (mine == NULL || !pyrt_py_state_attach(mine)) {
            return NULL;
        }
    }
    /* acquire: the object is complete. Pairs with the exchange or swap that has put it there. */
    PyObject *value = Py_NewRef(pyrt_load_acquire(&self->value));
    if (mine != NULL) {
        pyrt_detach(mine);
    }
    return value;
}

/* What giving the old value up will take, so that a lack of memory shows before anything is replaced. */
static bool
prepare(const rcu_cell *self, pyrt_py_callable **node)
{
    *node = pyrt_py_callable_new_node(self->home);
    if (*node == NULL) {
        (void)pyrt_py_raise(PYRT_ENOMEM, "no memory to replace what an RCUCell holds; it holds what it held");
    }
    return *node != NULL;
}

static void
discard(pyrt_py_callable *node)
{
    pyrt_py_callable_free(node);
}

/* False when memory is short. */
static bool
retire(pyrt_py_home *home, pyrt_py_callable *node)
{
    pyrt_fetch_add_relaxed(&home->waiting, (uint64_t)1);
    pyrt_status status = pyrt_retire_global(node, sizeof(*node), pyrt_py_callable_dispose);
    bool busy = status == PYRT_EBUSY;
    if (status != PYRT_OK && !busy) {
        pyrt_fetch_add_relaxed(&home->waiting, (uint64_t)-1);
        return false;
    }
    if (pyrt_py_is_time_to_process(sizeof(*node), busy)) {
        /* A program that only writes has nobody else who would do it. */
        pyrt_py_process_queues();
        pyrt_py_run_if_outside(home);
    }
    return true;
}

static void
postpone(rcu_cell *self, pyrt_py_callable *node)
{
    node->next = pyrt_load_relaxed(&self->postponed);
    /* release: the node is complete. Pairs with the exchange in give_up. */
    while (!pyrt_cas_release(&self->postponed, &node->next, node)) {
    }
}

/* Takes over the reference that the cell had. */
static void
give_up(rcu_cell *self, pyrt_py_callable *node, PyObject *old)
{
    node->object = old;
    node->next = NULL;
    if (pyrt_unlikely(pyrt_load_relaxed(&self->postponed) != NULL)) {
        /* acquire: the nodes are complete. Pairs with the push in postpone. */
        node->next = pyrt_exchange_acquire(&self->postponed, (pyrt_py_callable *)NULL);
    }
    while (node != NULL) {
        pyrt_py_callable *next = node->next;
        if (!retire(self->home, node)) {
            postpone(self, node);
        }
        node = next;
    }
}

#else

static PyObject *
load(const rcu_cell *self)
{
    return Py_NewRef(pyrt_load_relaxed(&self->value));
}

static bool
prepare(const rcu_cell *self, pyrt_py_callable **node)
{
    (void)self;
    *node = NULL;
    return true;
}

static void
discard(const pyrt_py_callable *node)
{
    (void)node;
}

static void
give_up(const rcu_cell *self, const pyrt_py_callable *node, PyObject *old)
{
    (void)self;
    (void)node;
    Py_DECREF(old);
}

#endif

/* ---- replacing --------------------------------------------------------------------------------------------------- */

/* False with an exception. May run user code, when all is done. */
static bool
set(rcu_cell *self, PyObject *value)
{
    pyrt_py_callable *node;
    if (!prepare(self, &node)) {
        return false;
    }
    /* seq_cst: as release the new object is complete, which pairs with the load; as acquire the old one is; and the exchange
     * comes before the goal that the old one is retired with. */
    give_up(self, node, pyrt_exchange_seq_cst(&self->value, Py_NewRef(value)));
    return true;
}

/* 1: replaced; 0: something else was there; -1 with an exception. May run user code, when all is done. */
static int
compare_exchange(rcu_cell *self, PyObject *expected, PyObject *desired)
{
    pyrt_py_callable *node;
    if (!prepare(self, &node)) {
        return -1;
    }
    PyObject *there = expected;
    /* seq_cst: as in set. */
    if (pyrt_cas_seq_cst(&self->value, &there, Py_NewRef(desired))) {
        give_up(self, node, expected);
        return 1;
    }
    Py_DECREF(desired);
    discard(node);
    return 0;
}

static PyObject *
cell_get(PyObject *self, PyObject *unused)
{
    (void)unused;
    return load(cell_of(self));
}

static PyObject *
cell_set(PyObject *self, PyObject *value)
{
    return set(cell_of(self), value) ? Py_NewRef(Py_None) : NULL;
}

static PyObject *
cell_compare_exchange(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        return pyrt_py_raise(PYRT_PY_WRONG_TYPE,
                             "compare_exchange() takes 2 arguments, the object that is to be there now "
                             "and the one to put there, not %zd",
                             count);
    }
    int replaced = compare_exchange(cell_of(self), args[0], args[1]);
    return replaced < 0 ? NULL : PyBool_FromLong(replaced);
}

static PyObject *
cell_update(PyObject *object, PyObject *function)
{
    if (!PyCallable_Check(function)) {
        return pyrt_py_raise_not(PYRT_PY_WRONG_TYPE, function,
                                 "update() takes a callable that makes the new value out of the old one");
    }
    rcu_cell *self = cell_of(object);
    PyObject *made = NULL;
    int replaced = 0;
    while (replaced == 0) {
        PyObject *old = load(self);
        made = old == NULL ? NULL : PyObject_CallFunctionObjArgs(function, old, NULL);
        replaced = made == NULL ? -1 : compare_exchange(self, old, made);
        Py_XDECREF(old);
        if (replaced <= 0) {
            Py_CLEAR(made);
        }
    }
    return made;
}

/* ---- the object -------------------------------------------------------------------------------------------------- */

static PyObject *
cell_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    Py_ssize_t count = PyTuple_Size(args);
    if (count > 1 || (kwargs != NULL && PyDict_Size(kwargs) != 0)) {
        return pyrt_py_raise(PYRT_PY_WRONG_TYPE, "RCUCell() takes what it is to hold at first, by position; nothing else");
    }
    pyrt_py_home *home = pyrt_py_home_get();
    if (home == NULL) {
        return NULL;
    }
    rcu_cell *self = PyObject_GC_New(rcu_cell, type);
    if (self == NULL) {
        return NULL;
    }
    pyrt_py_home_hold(home);
    self->home = home;
    self->value = Py_NewRef(count == 0 ? Py_None : PyTuple_GetItem(args, 0));
    self->postponed = NULL;
    self->weakrefs = NULL;
    /* Complete: from here on gc.get_objects() of another thread finds it. */
    PyObject_GC_Track((PyObject *)self);
    return (PyObject *)self;
}

static PyObject *
cell_repr(PyObject *self)
{
    int entered = Py_ReprEnter(self);
    if (entered != 0) {
        return entered < 0 ? NULL : PyUnicode_FromString("RCUCell(...)");
    }
    PyObject *value = load(cell_of(self));
    PyObject *text = value == NULL ? NULL : PyUnicode_FromFormat("RCUCell(%R)", value);
    Py_XDECREF(value);
    Py_ReprLeave(self);
    return text;
}

static int
cell_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(cell_of(self)->value);
    return 0;
}

/* Other objects of the circle are still being ended, and may come by here. */
static int
cell_clear(PyObject *self)
{
    if (!set(cell_of(self), Py_None)) {
        PyErr_WriteUnraisable(NULL);
    }
    return 0;
}

/* Cells end inside of each other where one holds the next, here and through whatever else: beyond a depth they wait for the
 * outermost, so that a chain of any length ends in little stack. On that one's stack, one for each interpreter that is in it. */
typedef struct pyrt_py_ending_cells {
    const pyrt_py_home *home;
    rcu_cell *waiting; /* newest first, by `weakrefs`, which is of no use any more */
    unsigned depth;
} ending_cells;

enum { DEPTH = 40 };

/* No reader is left: one would have a reference to the cell. */
static void
finish(rcu_cell *self)
{
    pyrt_py_callable *node = self->postponed;
    while (node != NULL) {
        pyrt_py_callable *next = node->next;
        pyrt_py_callable_run(node);
        node = next;
    }
    Py_DECREF(self->value);
    pyrt_py_home_drop(self->home);
    pyrt_py_sync_free((PyObject *)self, NULL);
}

static void
finish_outermost(rcu_cell *self, pyrt_py_words *words)
{
    ending_cells *outer = words->ending_cells;
    ending_cells mine = {.home = self->home, .depth = 1};
    words->ending_cells = &mine;
    finish(self);
    while (mine.waiting != NULL) {
        rcu_cell *next = mine.waiting;
        mine.waiting = (rcu_cell *)next->weakrefs;
        finish(next);
    }
    words->ending_cells = outer;
}

static void
cell_dealloc(PyObject *object)
{
    rcu_cell *self = cell_of(object);
    PyObject_GC_UnTrack(object);
    pyrt_py_sync_clear_weakrefs(object, &self->weakrefs);
    pyrt_py_words *words = pyrt_py_my_words();
    ending_cells *outer = words->ending_cells;
    if (outer == NULL || outer->home != self->home) {
        finish_outermost(self, words);
    }
    else if (outer->depth < DEPTH) {
        outer->depth++;
        finish(self);
        outer->depth--;
    }
    else {
        self->weakrefs = (PyObject *)outer->waiting;
        outer->waiting = self;
    }
}

PyDoc_STRVAR(get_doc, "get($self, /)\n--\n\n"
                      "What the cell holds now. Takes no lock and waits for no writer, however many write.\n\n"
                      "Without a GIL it is a read-side section of the default domain, so it waits while that is stopped.");
PyDoc_STRVAR(set_doc,
             "set($self, value, /)\n--\n\n"
             "Puts another object there.\n\n"
             "With a GIL the cell's reference to the old one is given up at once; without, when nobody can be in the\n"
             "middle of get() any more: when the thread that sets or another one comes by next, in one of its\n"
             "following sets, in quiescent() or barrier(). Raises OutOfMemoryError, with nothing changed.");
PyDoc_STRVAR(update_doc,
             "update($self, function, /)\n--\n\n"
             "Puts function(what is there) there, and answers it.\n\n"
             "If another thread has replaced the object meanwhile the function is called again with the new one, so\n"
             "it should have no other effect; let it make a new object and leave the old one as it is. What the\n"
             "function raises is raised, with nothing changed. Also raises ArgumentTypeError, OutOfMemoryError.\n\n"
             "    >>> from pyruntime import RCUCell\n"
             "    >>> settings = RCUCell({'colour': 'red'})\n"
             "    >>> settings.update(lambda old: {**old, 'size': 3})\n"
             "    {'colour': 'red', 'size': 3}");
PyDoc_STRVAR(compare_exchange_doc,
             "compare_exchange($self, expected, desired, /)\n--\n\n"
             "Puts `desired` there if what is there is `expected`, the very object (as `is` tells); whether it has.\n\n"
             "    >>> from pyruntime import RCUCell\n"
             "    >>> cell = RCUCell()\n"
             "    >>> cell.compare_exchange(None, 'first'), cell.compare_exchange(None, 'second'), cell.get()\n"
             "    (True, False, 'first')\n\n"
             "Raises ArgumentTypeError, OutOfMemoryError.");
PyDoc_STRVAR(doc,
             "RCUCell(value=None, /)\n--\n\n"
             "Holds one object, which any number of threads read without a lock and writers replace as a whole.\n\n"
             "    >>> from pyruntime import RCUCell\n"
             "    >>> routes = RCUCell(('alpha', 'beta'))\n"
             "    >>> routes.get()\n"
             "    ('alpha', 'beta')\n"
             "    >>> routes.set(('alpha', 'gamma'))\n"
             "    >>> routes\n"
             "    RCUCell(('alpha', 'gamma'))\n\n"
             "Python's garbage collector looks through it. There can be weak references to it. Raises ArgumentTypeError.\n\n"
             "After Linux' read-copy-update, and the references of Clojure's atoms.");

static PyMethodDef methods[] = {
    {"get", cell_get, METH_NOARGS, get_doc},
    {"set", cell_set, METH_O, set_doc},
    {"update", cell_update, METH_O, update_doc},
    {"compare_exchange", PYRT_PY_METHOD(cell_compare_exchange), METH_FASTCALL, compare_exchange_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "For annotations: RCUCell[Settings]."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = PYRT_PY_WEAKREFS(rcu_cell);

static PyType_Slot slots[] = {
    {Py_tp_new, cell_new},     {Py_tp_dealloc, cell_dealloc}, {Py_tp_traverse, cell_traverse},
    {Py_tp_clear, cell_clear}, {Py_tp_repr, cell_repr},       {Py_tp_methods, methods},
    {Py_tp_members, members},  {Py_tp_doc, (void *)doc},      {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyruntime.rcu.RCUCell",
    .basicsize = sizeof(rcu_cell),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

PyTypeObject *
pyrt_py_rcu_cell_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&spec);
}
