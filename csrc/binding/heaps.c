/* heaps.c -- pyruntime.heap.Heap: making it, and its end. Allocating is heap_alloc.c's. */
#include "binding/heaps.h"

#include "binding/sync.h"
#include "binding/uses.h"

#include <structmember.h>
#include <string.h>

enum { TAGS = 32, PREFIX_DEFAULT = 32, PREFIX_MOST = 1024 };

static pyrt_py_heap *
heap_of(PyObject *self)
{
    return (pyrt_py_heap *)self;
}

/* ---- arguments --------------------------------------------------------------------------------------------------- */

/* A number from `low` to `high`; `what` says what it is. False with an exception. */
static bool
number_argument(PyObject *object, const char *what, long low, long high, long *number)
{
    if (!PyLong_Check(object) || PyBool_Check(object)) {
        pyrt_py_raise_not(PYRT_PY_WRONG_TYPE, object, "%s is an int from %ld to %ld", what, low, high);
        return false;
    }
    int overflow = 0;
    *number = PyLong_AsLongAndOverflow(object, &overflow);
    if (overflow != 0 || *number < low || *number > high) {
        pyrt_py_raise_not(PYRT_EINVAL, object, "%s is from %ld to %ld", what, low, high);
        return false;
    }
    return true;
}

static bool
name_argument(PyObject *object, char name[PYRT_PY_NAME])
{
    static uint64_t unnamed; /* atomic */
    if (object == Py_None) {
        PyOS_snprintf(name, PYRT_PY_NAME, "heap %llu", (unsigned long long)pyrt_fetch_add_relaxed(&unnamed, (uint64_t)1));
        return true;
    }
    return pyrt_py_name_argument(object, "heap", name);
}

static PyObject *
shown_name(const char *text)
{
    PyObject *name = PyUnicode_FromString(text);
    PyObject *shown = name == NULL ? NULL : PyObject_Repr(name);
    Py_XDECREF(name);
    return shown;
}

/* type_stable, and stable_prefix, which only such a heap has. */
static bool
stability_arguments(PyObject *type_stable, PyObject *stable_prefix, pyrt_heap_config *config)
{
    if (!PyBool_Check(type_stable)) {
        pyrt_py_raise_not(PYRT_PY_WRONG_TYPE, type_stable, "type_stable is True or False");
        return false;
    }
    config->type_stable = type_stable == Py_True;
    config->stable_prefix = config->type_stable ? PREFIX_DEFAULT : 0;
    long prefix = 0;
    if (stable_prefix == Py_None) {
        return true;
    }
    if (!number_argument(stable_prefix, "stable_prefix", 8, PREFIX_MOST, &prefix)) {
        return false;
    }
    if (prefix % 8 != 0) {
        pyrt_py_raise(PYRT_EINVAL, "stable_prefix is a multiple of 8, not %ld", prefix);
        return false;
    }
    if (!config->type_stable) {
        pyrt_py_raise(PYRT_EINVAL, "stable_prefix=%ld is for a heap with type_stable=True", prefix);
        return false;
    }
    config->stable_prefix = (uint16_t)prefix;
    return true;
}

/* The domain, a new reference; NULL with an exception. */
static pyrt_py_domain *
domain_argument(const pyrt_py_home *home, PyObject *object)
{
    PyObject *found = NULL;
    if (object != Py_None) {
        found = Py_NewRef(object);
    }
    else {
        /* That of pyruntime.qsbr, which the import has made. */
        PyObject *module = PyImport_ImportModule("pyruntime.qsbr");
        found = module == NULL ? NULL : PyObject_GetAttrString(module, "default_domain");
        Py_XDECREF(module);
    }
    if (found != NULL && !pyrt_py_is_domain(home, found)) {
        pyrt_py_raise_not(PYRT_PY_WRONG_TYPE, found, "domain is a Domain, or None for the default one");
        Py_CLEAR(found);
    }
    return (pyrt_py_domain *)found;
}

/* ---- birth ------------------------------------------------------------------------------------------------------- */

static void
link_heap(pyrt_py_heap *heap)
{
    pyrt_py_home *home = heap->domain->home;
    pyrt_raw_mutex_lock(&home->lock);
    heap->next = home->heaps;
    if (home->heaps != NULL) {
        home->heaps->previous = heap;
    }
    home->heaps = heap;
    pyrt_raw_mutex_unlock(&home->lock);
}

static void
unlink_heap(pyrt_py_heap *heap)
{
    pyrt_py_home *home = heap->domain->home;
    pyrt_raw_mutex_lock(&home->lock);
    *(heap->previous != NULL ? &heap->previous->next : &home->heaps) = heap->next;
    if (heap->next != NULL) {
        heap->next->previous = heap->previous;
    }
    pyrt_raw_mutex_unlock(&home->lock);
}

static PyObject *
heap_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"name", "tag", "type_stable", "stable_prefix", "domain", NULL};
    PyObject *name = Py_None;
    PyObject *tag = NULL;
    PyObject *type_stable = Py_False;
    PyObject *stable_prefix = Py_None;
    PyObject *of = Py_None;
    char text[PYRT_PY_NAME];
    pyrt_heap_config config = {.struct_size = sizeof(config)};
    long number = 0;
    pyrt_py_home *home = pyrt_py_home_get();
    if (home == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "|O$OOOO:Heap", keywords, &name, &tag, &type_stable,
                                                     &stable_prefix, &of)) {
        return NULL;
    }
    if (!name_argument(name, text) || (tag != NULL && !number_argument(tag, "tag", 0, TAGS - 1, &number)) ||
        !stability_arguments(type_stable, stable_prefix, &config)) {
        return NULL;
    }
    config.tag = (uint8_t)number;
    pyrt_py_domain *domain = domain_argument(home, of);
    PyObject *shown = domain == NULL ? NULL : shown_name(text);
    allocfunc alloc = PyType_GetSlot(type, Py_tp_alloc);
    pyrt_py_heap *heap = shown == NULL ? NULL : (pyrt_py_heap *)alloc(type, 0);
    if (heap == NULL) {
        Py_XDECREF(shown);
        Py_XDECREF((PyObject *)domain);
        return NULL;
    }
    heap->domain = domain;
    heap->shown = shown;
    heap->config = config;
    memcpy(heap->name, text, sizeof(text));
    link_heap(heap);
    if (pyrt_py_use_begin(domain, "Heap()")) {
        heap->handle = pyrt_heap_new(domain->interp, &config);
        pyrt_py_use_end(domain);
        if (heap->handle != NULL) {
            return (PyObject *)heap;
        }
        pyrt_py_raise(PYRT_ENOMEM, "no memory for heap %U", heap->shown);
    }
    Py_DECREF((PyObject *)heap);
    return NULL;
}

/* ---- end --------------------------------------------------------------------------------------------------------- */

void
pyrt_py_heap_end(pyrt_py_heap *heap)
{
    if (!pyrt_py_use_try(heap->domain)) {
        return;
    }
    /* seq_cst, as acquire: what was allocated before has been. Who finds it closed may think to be the last one, too. */
    pyrt_heap *handle = pyrt_exchange_seq_cst(&heap->handle, (pyrt_heap *)NULL);
    if (handle != NULL) {
        pyrt_heap_delete(handle);
    }
    pyrt_py_use_end(heap->domain);
}

static PyObject *
heap_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (pyrt_fetch_or_seq_cst(&heap_of(self)->users, PYRT_PY_HEAP_CLOSED) == 0) {
        pyrt_py_heap_end(heap_of(self));
    }
    Py_RETURN_NONE;
}

static void
heap_dealloc(PyObject *self)
{
    pyrt_py_heap *heap = heap_of(self);
    PyObject_GC_UnTrack(self);
    if (heap->domain != NULL) {
        unlink_heap(heap);
        pyrt_py_heap_end(heap);
        Py_DECREF((PyObject *)heap->domain);
        Py_DECREF(heap->shown);
    }
    pyrt_py_sync_free(self, &heap->weakrefs);
}

/* Nothing is cleared, as in a buffer. */
static int
heap_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)heap_of(self)->domain);
    return 0;
}

void
pyrt_py_heaps_fork_child(void)
{
    for (pyrt_py_home *home = pyrt_py_homes(); home != NULL; home = home->next) {
        for (pyrt_py_heap *heap = home->heaps; heap != NULL; heap = heap->next) {
            heap->users &= PYRT_PY_HEAP_CLOSED;
        }
    }
}

/* ---- the type ---------------------------------------------------------------------------------------------------- */

static PyObject *
heap_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (pyrt_py_heap_is_closed(heap_of(self))) {
        return pyrt_py_raise(PYRT_ESTATE, "heap %U is closed; make a new one", heap_of(self)->shown);
    }
    return Py_NewRef(self);
}

static PyObject *
heap_exit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)args;
    (void)count;
    return heap_close(self, NULL);
}

static PyObject *
heap_stats(PyObject *self, PyObject *unused)
{
    (void)unused;
    PyObject *figures = pyrt_py_heap_figures_of(heap_of(self));
    PyObject *module = figures == NULL ? NULL : PyImport_ImportModule("pyruntime.heap");
    PyObject *stats = module == NULL ? NULL : PyObject_CallMethod(module, "_heap_stats", "(O)", figures);
    Py_XDECREF(module);
    Py_XDECREF(figures);
    return stats;
}

static PyObject *
heap_name(PyObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(heap_of(self)->name);
}

static PyObject *
heap_domain(PyObject *self, void *unused)
{
    (void)unused;
    return Py_NewRef((PyObject *)heap_of(self)->domain);
}

static PyObject *
heap_tag(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromLong(heap_of(self)->config.tag);
}

static PyObject *
heap_type_stable(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(heap_of(self)->config.type_stable);
}

static PyObject *
heap_stable_prefix(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromLong(heap_of(self)->config.stable_prefix);
}

static PyObject *
heap_closed(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(pyrt_py_heap_is_closed(heap_of(self)));
}

static PyObject *
heap_repr(PyObject *self)
{
    pyrt_py_heap *heap = heap_of(self);
    unsigned long blocks = (unsigned long)pyrt_py_heap_blocks(heap);
    return PyUnicode_FromFormat("<heap %U of domain %R%s, %lu buffer%s in use>", heap->shown, heap->domain->name,
                                pyrt_py_heap_is_closed(heap) ? ", closed" : "", blocks, blocks == 1 ? "" : "s");
}

PyDoc_STRVAR(close_doc,
             "close($self, /)\n--\n\n"
             "Ends the heap: nothing more is allocated from it. A second close does nothing.\n\n"
             "    >>> from pyruntime.heap import Heap\n"
             "    >>> heap = Heap()\n"
             "    >>> buffer = heap.alloc(3)\n"
             "    >>> heap.close()\n"
             "    >>> bytes(buffer)\n"
             "    b'\\x00\\x00\\x00'\n\n"
             "Its buffers go on, and their memory goes back when they do; leaks() tells which heaps are closed and\n"
             "still have some. What is free goes back to the system by and by, or with the next barrier().");
PyDoc_STRVAR(stats_doc, "stats($self, /)\n--\n\n"
                        "What has been allocated and what is in use, in all and by size class: a HeapStats.\n\n"
                        "    >>> from pyruntime.heap import Heap\n"
                        "    >>> heap = Heap()\n"
                        "    >>> kept = [heap.alloc(n) for n in (10, 100, 100)]\n"
                        "    >>> heap.stats().blocks, heap.stats().block_bytes\n"
                        "    (3, 240)\n"
                        "    >>> [(one.block_size, one.blocks) for one in heap.stats().size_classes]\n"
                        "    [(16, 1), (112, 2)]\n\n"
                        "A snapshot: threads go on while it is taken.");
PyDoc_STRVAR(
    doc,
    "Heap(name=None, *, tag=0, type_stable=False, stable_prefix=None, domain=None)\n--\n\n"
    "Memory apart from Python's own, for what is large, long-lived, shared with C, or to be told apart.\n\n"
    "    >>> from pyruntime.heap import Heap\n"
    "    >>> with Heap('frames', tag=3) as heap:\n"
    "    ...     frame = heap.alloc(640 * 480)\n"
    "    ...     frame[0] = 255\n"
    "    >>> heap.closed, frame[0]\n"
    "    (True, 255)\n\n"
    "Every thread allocates from pages of its own, and a buffer may die on any thread. The with block ends the heap, and\n"
    "with it the right to allocate; buffers live on for as long as somebody has them.\n\n"
    "name, of 1 to 31 bytes, stands in reports; None: \"heap\" and a number. tag, from 0 to 31, is what C code that visits\n"
    "blocks (pyrt_heap_visit) chooses by. domain is the Domain whose memory it is; None:\n"
    "pyruntime.qsbr.default_domain. Close a domain when its buffers have died: the memory of those that have not\n"
    "stays until they do, and that is reported.\n\n"
    "type_stable is for lock-free readers that look at blocks by their address, in C: the memory of a buffer that has\n"
    "died stays a block of that size until every reading() block of the domain that was open has been left, and nobody but "
    "its\n"
    "next owner writes to the first stable_prefix bytes, a multiple of 8 from 8 to 1024; None: 32.\n\n"
    "Raises ArgumentTypeError, ArgumentError, OutOfMemoryError, and StateError when the domain is closed. The class\n"
    "cannot be subclassed.\n\n"
    "After mimalloc's heaps, and the segment heaps of CPython's free-threaded build.");

static PyMethodDef methods[] = {
    {"alloc", PYRT_PY_METHOD(pyrt_py_heap_alloc), METH_FASTCALL | METH_KEYWORDS, pyrt_py_heap_alloc_doc},
    {"close", heap_close, METH_NOARGS, close_doc},
    {"stats", heap_stats, METH_NOARGS, stats_doc},
    {"__enter__", heap_enter, METH_NOARGS, "__enter__($self, /)\n--\n\nThe heap itself."},
    {"__exit__", PYRT_PY_METHOD(heap_exit), METH_FASTCALL, "__exit__($self, /, *exc_info)\n--\n\nCloses it."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"name", heap_name, NULL, "The name, in reports and in repr().", NULL},
    {"domain", heap_domain, NULL, "The domain whose memory it is.", NULL},
    {"tag", heap_tag, NULL, "What visitors in C choose by, from 0 to 31.", NULL},
    {"type_stable", heap_type_stable, NULL, "Whether readers may look at blocks that are free.", NULL},
    {"stable_prefix", heap_stable_prefix, NULL, "How many bytes of a free block nobody writes to.", NULL},
    {"closed", heap_closed, NULL, "Whether nothing can be allocated any more: it, or its domain, is closed.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = PYRT_PY_WEAKREFS(pyrt_py_heap);

static PyType_Slot slots[] = {
    {Py_tp_new, heap_new},    {Py_tp_dealloc, heap_dealloc}, {Py_tp_traverse, heap_traverse},
    {Py_tp_repr, heap_repr},  {Py_tp_methods, methods},      {Py_tp_getset, properties},
    {Py_tp_members, members}, {Py_tp_doc, (void *)doc},      {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyruntime.heap.Heap",
    .basicsize = sizeof(pyrt_py_heap),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

PyTypeObject *
pyrt_py_heap_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&spec);
}

PyObject *
pyrt_py_heap_add_types(PyObject *module, PyObject *unused)
{
    (void)unused;
    pyrt_py_home *home = pyrt_py_home_get();
    if (home == NULL) {
        return NULL;
    }
    PyObject *heap = pyrt_py_published(&home->heap_type);
    PyObject *buffer = pyrt_py_published(&home->buffer_type);
    if (heap == NULL) {
        heap = pyrt_py_publish(&home->heap_type, (PyObject *)pyrt_py_heap_type_new());
    }
    if (buffer == NULL) {
        buffer = pyrt_py_publish(&home->buffer_type, (PyObject *)pyrt_py_buffer_type_new());
    }
    if (heap == NULL || buffer == NULL || PyObject_SetAttrString(module, "Heap", heap) != 0 ||
        PyObject_SetAttrString(module, "Buffer", buffer) != 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}
