/* shared_ref.c -- pyruntime.refcount.SharedRef: a counted reference to a box around a Python object.
 *
 * A SharedRef is one reference to a box (shared_box.h), or none when it has been dropped.
 *
 * On free-threaded builds Python's lock of the SharedRef keeps its box from going while another thread looks; with the GIL that
 * is the GIL. Nothing that may let go of either stands between the look and the use.
 *
 * Python's collector sees the value through the box's anchor.
 */
#include "binding/shared_ref.h"

#include "binding/shared_box.h"

#include <structmember.h>

#if !defined(Py_GIL_DISABLED)
#    define Py_BEGIN_CRITICAL_SECTION(object) {
#    define Py_END_CRITICAL_SECTION() }
#endif

typedef struct shared_ref {
    PyObject_HEAD
    PyObject *weakrefs;
    pyrt_py_home *home; /* its interpreter's, which outlives it */
    pyrt_py_box *box;   /* one reference to it; NULL: dropped */
    PyObject *anchor;   /* the box's, joined; NULL like the box */
} shared_ref;

static shared_ref *
ref_of(PyObject *self)
{
    return (shared_ref *)self;
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

/* A dropped one that Python's collector does not know yet: its maker completes it, and then tracks it. Until then gc.get_objects()
 * does not find it, so that its maker is alone with it. May run the collector. */
static shared_ref *
new_untracked(PyTypeObject *type, pyrt_py_home *home)
{
    shared_ref *self = PyObject_GC_New(shared_ref, type);
    if (self != NULL) {
        self->weakrefs = NULL;
        self->home = home;
        self->box = NULL;
        self->anchor = NULL;
    }
    return self;
}

/* False with an exception. */
static bool
check_arguments(PyObject *finalizer, PyObject *on_owner)
{
    if (finalizer != Py_None && !PyCallable_Check(finalizer)) {
        pyrt_py_raise_not(PYRT_PY_WRONG_TYPE, finalizer,
                          "finalizer is a callable that gets the value when the last reference goes, or None");
        return false;
    }
    if (!PyBool_Check(on_owner)) {
        pyrt_py_raise_not(PYRT_PY_WRONG_TYPE, on_owner, "on_owner is True or False");
        return false;
    }
    return true;
}

static PyObject *
ref_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"", "finalizer", "on_owner", NULL};
    PyObject *value = NULL;
    PyObject *finalizer = Py_None;
    PyObject *on_owner = Py_False;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO$O:SharedRef", keywords, &value, &finalizer, &on_owner)) {
        return NULL;
    }
    if (value == NULL) {
        return pyrt_py_raise(PYRT_PY_WRONG_TYPE,
                             "SharedRef() takes the object that it is to refer to, by position, and then a finalizer");
    }
    if (!check_arguments(finalizer, on_owner)) {
        return NULL;
    }
    pyrt_py_home *home = pyrt_py_home_get();
    pyrt_py_domain *domain = home == NULL ? NULL : pyrt_py_domain_default(home);
    shared_ref *self = domain == NULL ? NULL : new_untracked(type, home);
    if (self == NULL) {
        return NULL;
    }
    PyObject *anchor = pyrt_py_anchor_new(home);
    pyrt_py_callable *node =
        anchor == NULL ? NULL
                       : pyrt_py_ending_new(home, value, finalizer == Py_None ? NULL : finalizer, on_owner == Py_True);
    pyrt_py_box *box = node == NULL ? NULL : pyrt_py_box_new(home, domain, node);
    if (box == NULL) {
        if (node != NULL) {
            pyrt_py_ending_delete(node);
        }
        Py_XDECREF(anchor);
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    self->anchor = pyrt_py_anchor_join(anchor, node);
    self->box = box;
    Py_DECREF(anchor);
    PyObject_GC_Track((PyObject *)self);
    return (PyObject *)self;
}

/* ---- counting ---------------------------------------------------------------------------------------------------- */

static PyObject *
raise_dropped(const char *what)
{
    return pyrt_py_raise(PYRT_ESTATE, "%s: this SharedRef has been dropped; clone() one before", what);
}

static PyObject *
ref_clone(PyObject *object, PyObject *unused)
{
    (void)unused;
    shared_ref *self = ref_of(object);
    /* First: it may run the collector. */
    shared_ref *made = new_untracked(Py_TYPE(object), self->home);
    if (made == NULL) {
        return NULL;
    }
    pyrt_py_moment now = pyrt_py_moment_begin(self->home);
    Py_BEGIN_CRITICAL_SECTION(object);
    if (self->box != NULL) {
        made->box = (pyrt_py_box *)pyrt_incref(&self->box->base);
        made->anchor = pyrt_py_anchor_join(self->anchor, self->box->node);
    }
    Py_END_CRITICAL_SECTION();
    pyrt_py_moment_end(&now);
    if (made->box == NULL) {
        Py_DECREF((PyObject *)made);
        return raise_dropped("clone()");
    }
    PyObject_GC_Track((PyObject *)made);
    return (PyObject *)made;
}

/* What other threads do with the same SharedRef: one of them gets the box. */
static void
drop(PyObject *object)
{
    shared_ref *self = ref_of(object);
    pyrt_py_box *dropped;
    PyObject *anchor;
    Py_BEGIN_CRITICAL_SECTION(object);
    dropped = self->box;
    anchor = self->anchor;
    self->anchor = NULL;
    /* relaxed: for who only asks whether there is one. */
    pyrt_store_relaxed(&self->box, (pyrt_py_box *)NULL);
    Py_END_CRITICAL_SECTION();
    if (dropped != NULL) {
        pyrt_py_anchor_leave(anchor);
        pyrt_py_moment now = pyrt_py_moment_begin(self->home);
        pyrt_decref(&dropped->base);
        pyrt_py_moment_end(&now);
    }
}

static PyObject *
ref_drop(PyObject *self, PyObject *unused)
{
    (void)unused;
    drop(self);
    Py_RETURN_NONE;
}

static PyObject *
ref_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    return pyrt_load_relaxed(&ref_of(self)->box) == NULL ? raise_dropped("with") : Py_NewRef(self);
}

static PyObject *
ref_exit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)args;
    (void)count;
    drop(self);
    Py_RETURN_NONE;
}

const char pyrt_py_shared_ref_settle_doc[] =
    "settle($module, /)\n--\n\n"
    "Does what other threads have left for this one: merges counts, and runs finalizers.\n\n"
    "For a thread that owns SharedRefs and seldom makes, clones or drops one, which does the same.\n\n"
    "    >>> from threading import Thread\n"
    "    >>> from pyruntime.refcount import SharedRef, settle\n"
    "    >>> window = SharedRef('window', print, on_owner=True)\n"
    "    >>> other = Thread(target=window.drop)\n"
    "    >>> other.start()\n"
    "    >>> other.join()\n"
    "    >>> settle()\n"
    "    window\n";

PyObject *
pyrt_py_shared_ref_settle(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    pyrt_py_home *home = pyrt_py_home_get();
    if (home == NULL) {
        return NULL;
    }
    pyrt_py_moment now = pyrt_py_moment_begin(home);
    if (pyrt_thread_current() != NULL) {
        pyrt_merge_refcounts(pyrt_thread_current());
    }
    pyrt_py_moment_end(&now);
    pyrt_py_run_if_outside(home);
    Py_RETURN_NONE;
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

/* False with an exception when it has been dropped. */
static bool
look(PyObject *object, const char *what, pyrt_object_info *info)
{
    const shared_ref *self = ref_of(object);
    bool is_there;
    *info = (pyrt_object_info){.struct_size = sizeof(*info)};
    Py_BEGIN_CRITICAL_SECTION(object);
    is_there = self->box != NULL;
    if (is_there) {
        pyrt_object_look(&self->box->base, info);
    }
    Py_END_CRITICAL_SECTION();
    if (!is_there) {
        raise_dropped(what);
    }
    return is_there;
}

static PyObject *
get_value(PyObject *object, void *unused)
{
    (void)unused;
    const shared_ref *self = ref_of(object);
    PyObject *value = NULL;
    Py_BEGIN_CRITICAL_SECTION(object);
    if (self->box != NULL) {
        value = Py_NewRef(self->box->node->argument);
    }
    Py_END_CRITICAL_SECTION();
    return value == NULL ? raise_dropped("value") : value;
}

static PyObject *
get_local(PyObject *self, void *unused)
{
    (void)unused;
    pyrt_object_info info;
    return look(self, "local", &info) ? PyLong_FromUnsignedLong(info.local) : NULL;
}

static PyObject *
get_shared(PyObject *self, void *unused)
{
    (void)unused;
    pyrt_object_info info;
    return look(self, "shared", &info) ? PyLong_FromLongLong(info.shared) : NULL;
}

static PyObject *
get_count(PyObject *self, void *unused)
{
    (void)unused;
    pyrt_object_info info;
    return look(self, "count", &info) ? PyLong_FromLongLong(info.local + info.shared - (info.state == PYRT_SHARED_QUEUED))
                                      : NULL;
}

static PyObject *
get_owner(PyObject *self, void *unused)
{
    (void)unused;
    pyrt_object_info info;
    if (!look(self, "owner", &info)) {
        return NULL;
    }
    return info.owner == 0 ? Py_NewRef(Py_None) : PyLong_FromUnsignedLongLong(info.owner);
}

static const char *
name_of_state(const pyrt_object_info *info)
{
    static const char *const names[] = {
        [PYRT_SHARED_PLAIN] = "owned",
        [PYRT_SHARED_OPEN] = "owned",
        [PYRT_SHARED_QUEUED] = "queued",
        [PYRT_SHARED_MERGED] = "merged",
    };
    return names[info->state];
}

static PyObject *
get_state(PyObject *self, void *unused)
{
    (void)unused;
    pyrt_object_info info;
    return look(self, "state", &info) ? PyUnicode_FromString(name_of_state(&info)) : NULL;
}

static PyObject *
get_merged(PyObject *self, void *unused)
{
    (void)unused;
    pyrt_object_info info;
    return look(self, "merged", &info) ? PyBool_FromLong(info.state == PYRT_SHARED_MERGED) : NULL;
}

static PyObject *
get_dropped(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(pyrt_load_relaxed(&ref_of(self)->box) == NULL);
}

static PyObject *
ref_repr(PyObject *self)
{
    pyrt_object_info info;
    PyObject *value = get_value(self, NULL);
    if (value == NULL || !look(self, "repr()", &info)) {
        Py_XDECREF(value);
        PyErr_Clear();
        return PyUnicode_FromFormat("<pyruntime.SharedRef, dropped, at %p>", (void *)self);
    }
    PyObject *text =
        PyUnicode_FromFormat("<pyruntime.SharedRef of %R, %s, local %u, shared %lld, at %p>", (PyObject *)Py_TYPE(value),
                             name_of_state(&info), (unsigned)info.local, (long long)info.shared, (void *)self);
    Py_DECREF(value);
    return text;
}

static PyObject *
ref_reduce(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return pyrt_py_raise(
        PYRT_PY_WRONG_TYPE,
        "a SharedRef cannot be pickled or copied deeply: it is a reference to what is in this process; clone() it, or "
        "take its value");
}

/* ---- Python's collector, and the end ----------------------------------------------------------------------------- */

static int
ref_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(ref_of(self)->anchor);
    return 0;
}

/* Before anything of a circle is cleared, so that the finalizer finds the value as it was. */
static void
ref_finalize(PyObject *self)
{
    drop(self);
}

static int
ref_clear(PyObject *self)
{
    drop(self);
    return 0;
}

static void
ref_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    pyrt_py_sync_clear_weakrefs(self, &ref_of(self)->weakrefs);
    drop(self);
    pyrt_py_sync_free(self, NULL);
}

PyDoc_STRVAR(clone_doc, "clone($self, /)\n--\n\n"
                        "Another SharedRef to the same value; StateError if this one has been dropped.\n\n"
                        "    >>> from pyruntime.refcount import SharedRef\n"
                        "    >>> first = SharedRef([1, 2])\n"
                        "    >>> second = first.clone()\n"
                        "    >>> first.count, second.value is first.value\n"
                        "    (2, True)");
PyDoc_STRVAR(
    drop_doc,
    "drop($self, /)\n--\n\n"
    "Gives the reference up; a second time does nothing.\n\n"
    "The end of a with block and the end of the SharedRef itself do the same.\n\n"
    "If it was the last one the finalizer is called, here and now, but for what on_owner says. What it raises goes\n"
    "to sys.unraisablehook. If the thread that owns the count is inside of an attached() block, that thread learns\n"
    "of it at its next quiescent(), at the end of the block, or in its next call of this module.\n\n"
    "    >>> from pyruntime.refcount import SharedRef\n"
    "    >>> SharedRef('file', finalizer=lambda name: print('closing', name)).drop()\n"
    "    closing file");
PyDoc_STRVAR(
    doc, "SharedRef(value, /, finalizer=None, *, on_owner=False)\n--\n\n"
         "A counted reference to any object: the first one. clone() makes more, for other threads to have.\n\n"
         "    >>> from threading import Thread\n"
         "    >>> from pyruntime.refcount import SharedRef\n"
         "    >>> def use(mine):\n"
         "    ...     with mine:\n"
         "    ...         mine.value.append('used')\n"
         "    >>> first = SharedRef([], finalizer=lambda found: print('done with', found))\n"
         "    >>> thread = Thread(target=use, args=(first.clone(),))\n"
         "    >>> thread.start()\n"
         "    >>> thread.join()\n"
         "    >>> first.drop()\n"
         "    done with ['used']\n\n"
         "finalizer is called with the value, once, when the last reference has gone; then the value is given up. That\n"
         "happens on the thread that drops the last one; with on_owner=True on the thread that has made the first one: at\n"
         "once if it is dropped there, else in that thread's next call of this module; when that thread has ended, as\n"
         "without on_owner. The exit of the interpreter does what is left then, also for daemon threads.\n\n"
         "Making one raises OutOfMemoryError; StateError inside a block of another domain than the default one, and\n"
         "when the interpreter exits; ArgumentTypeError. The class cannot be subclassed.\n\n"
         "After Swift's and CPython's biased reference counts, and Rust's Arc.");

static PyMethodDef methods[] = {
    {"clone", ref_clone, METH_NOARGS, clone_doc},
    {"drop", ref_drop, METH_NOARGS, drop_doc},
    {"__enter__", ref_enter, METH_NOARGS, "Answers the SharedRef itself; StateError if it has been dropped."},
    {"__exit__", PYRT_PY_METHOD(ref_exit), METH_FASTCALL, "__exit__($self, /, *args)\n--\n\nDrops it."},
    {"__copy__", ref_clone, METH_NOARGS, "The same as clone()."},
    {"__reduce__", ref_reduce, METH_NOARGS, "Raises ArgumentTypeError."},
    {"__reduce_ex__", ref_reduce, METH_O, "Raises ArgumentTypeError."},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "For annotations: SharedRef[Image]."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"value", get_value, NULL, "What it refers to; StateError after drop().", NULL},
    {"local", get_local, NULL, "How many references the owner counts by itself; 0 once merged.", NULL},
    {"shared", get_shared, NULL,
     "How many references all others have counted.\n\n"
     "Below 0 where they have dropped what the owner counts. In the state 'queued' one of them is the queue's.",
     NULL},
    {"count", get_count, NULL, "How many references there are; exact where no other thread counts meanwhile.", NULL},
    {"owner", get_owner, NULL,
     "The id of the thread state that counts in local, as pyruntime.threads() has it, or once had; None: queued or merged.",
     NULL},
    {"state", get_state, NULL,
     "'owned', 'queued' (its owner has been asked to merge) or 'merged' (all count in shared from now on).", NULL},
    {"merged", get_merged, NULL, "Whether the state is 'merged'.", NULL},
    {"dropped", get_dropped, NULL, "Whether the reference has been given up.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = PYRT_PY_WEAKREFS(shared_ref);

static PyType_Slot slots[] = {
    {Py_tp_new, ref_new},
    {Py_tp_dealloc, ref_dealloc},
    {Py_tp_finalize, ref_finalize},
    {Py_tp_traverse, ref_traverse},
    {Py_tp_clear, ref_clear},
    {Py_tp_repr, ref_repr},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {Py_tp_members, members},
    {Py_tp_doc, (void *)doc},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyruntime.refcount.SharedRef",
    .basicsize = sizeof(shared_ref),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

PyTypeObject *
pyrt_py_shared_ref_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&spec);
}
