/* buffers.c -- pyruntime.heap.Buffer: a block of a heap as a Python object with the buffer protocol. */
#include "binding/buffer_protocol.h"
#include "binding/heaps.h"
#include "binding/states.h"
#include "binding/sync.h"

#include <structmember.h>

enum { RELEASED = -1 };

/* Giving back what is larger takes long: the system takes it page by page. */
enum { LONG_FREE = 1024 * 1024 };

static pyrt_py_buffer *
buffer_of(PyObject *self)
{
    return (pyrt_py_buffer *)self;
}

pyrt_py_buffer *
pyrt_py_buffer_new(pyrt_py_heap *heap)
{
    PyTypeObject *type = (PyTypeObject *)pyrt_py_published(&heap->domain->home->buffer_type);
    allocfunc alloc = PyType_GetSlot(type, Py_tp_alloc);
    pyrt_py_buffer *buffer = (pyrt_py_buffer *)alloc(type, 0);
    if (buffer == NULL) {
        return NULL;
    }
    buffer->exports = RELEASED;
    buffer->heap = (pyrt_py_heap *)Py_NewRef((PyObject *)heap);
    if (heap->domain->is_kept) {
        /* Such a domain never goes, so that a cycle that could be collected does not come through here. */
        PyObject_GC_UnTrack((PyObject *)buffer);
    }
    return buffer;
}

/* ---- released, or not -------------------------------------------------------------------------------------------- */

static bool
is_released(const pyrt_py_buffer *buffer)
{
    return pyrt_load_acquire(&buffer->exports) == RELEASED;
}

static bool
refuse_released(const pyrt_py_buffer *buffer)
{
    if (pyrt_likely(!is_released(buffer))) {
        return false;
    }
    pyrt_py_raise(PYRT_ESTATE, "this buffer of heap %U has been released; allocate a new one", buffer->heap->shown);
    return true;
}

/* What a thread frees attached, and has allocated, is at home at once; what comes from abroad is taken back when the owner next
 * wants such a block. Where attaching is not possible at once, or would disturb something, the block goes abroad. */
static void
free_at_home(const pyrt_py_heap *heap, void *block)
{
    pyrt_thread *thread = heap->domain->is_kept ? pyrt_py_state_at_hand() : NULL;
    if (thread == NULL || !pyrt_tryattach(thread)) {
        pyrt_free(block);
        return;
    }
    pyrt_free(block);
    pyrt_detach(thread);
}

/* The caller has the block to himself. */
static void
free_block(pyrt_py_buffer *buffer)
{
    pyrt_py_heap *heap = buffer->heap;
    unsigned class = pyrt_py_heap_class(buffer->room);
    PyThreadState *saved = buffer->room >= LONG_FREE ? PyEval_SaveThread() : NULL;
    free_at_home(heap, buffer->block);
    /* seq_cst, as release: pairs with the acquire of count_class. */
    if (class == PYRT_CLASS_LARGE) {
        pyrt_fetch_add_seq_cst(&heap->large_freed, (uint64_t)buffer->room);
    }
    pyrt_fetch_add_seq_cst(&heap->counts[class].freed, (uint64_t)1);
    if (saved != NULL) {
        PyEval_RestoreThread(saved);
    }
}

static PyObject *
buffer_release(PyObject *self, PyObject *unused)
{
    (void)unused;
    pyrt_py_buffer *buffer = buffer_of(self);
    Py_ssize_t found = 0;
    /* acquire: pairs with the end of the last view. */
    if (pyrt_cas_acquire(&buffer->exports, &found, (Py_ssize_t)RELEASED)) {
        free_block(buffer);
    }
    else if (found != RELEASED) {
        return pyrt_py_raise(PYRT_PY_BUFFER_IN_USE,
                             "this buffer of heap %U cannot be released: %zd view%s of it %s open; release them first",
                             buffer->heap->shown, found, found == 1 ? "" : "s", found == 1 ? "is" : "are");
    }
    Py_RETURN_NONE;
}

static void
buffer_dealloc(PyObject *self)
{
    pyrt_py_buffer *buffer = buffer_of(self);
    PyObject_GC_UnTrack(self);
    if (buffer->heap != NULL) {
        /* A view keeps its buffer: there is none. */
        if (buffer->exports == 0) {
            free_block(buffer);
        }
        Py_DECREF((PyObject *)buffer->heap);
    }
    pyrt_py_sync_free(self, &buffer->weakrefs);
}

/* Nothing is cleared: the heap is needed to the end. A cycle through it has a domain with a dict in it, or more. */
static int
buffer_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)buffer_of(self)->heap);
    return 0;
}

/* ---- the buffer protocol ----------------------------------------------------------------------------------------- */

static int
buffer_get(PyObject *self, Py_buffer *view, int flags)
{
    static Py_ssize_t stride = 1;
    pyrt_py_buffer *buffer = buffer_of(self);
    Py_ssize_t found = pyrt_load_relaxed(&buffer->exports);
    view->obj = NULL;
    do {
        if (found == RELEASED) {
            (void)refuse_released(buffer);
            return -1;
        }
    } while (!pyrt_cas_acquire(&buffer->exports, &found, found + 1));
    view->buf = buffer->block;
    view->obj = Py_NewRef(self);
    view->len = buffer->size;
    view->itemsize = 1;
    view->readonly = 0;
    view->ndim = 1;
    view->format = (flags & PyBUF_FORMAT) != 0 ? (char *)"B" : NULL;
    view->shape = (flags & PyBUF_ND) != 0 ? &buffer->size : NULL;
    view->strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? &stride : NULL;
    view->suboffsets = NULL;
    view->internal = NULL;
    return 0;
}

static void
buffer_end_of_view(PyObject *self, Py_buffer *view)
{
    (void)view;
    /* seq_cst, as release: what was done with the memory is done before it is freed. Pairs with buffer_release. */
    pyrt_fetch_add_seq_cst(&buffer_of(self)->exports, (Py_ssize_t)-1);
}

static Py_ssize_t
buffer_length(PyObject *self)
{
    return refuse_released(buffer_of(self)) ? -1 : buffer_of(self)->size;
}

/* Items and slices are those of a memoryview. */
static PyObject *
buffer_get_item(PyObject *self, PyObject *key)
{
    PyObject *view = PyMemoryView_FromObject(self);
    PyObject *item = view == NULL ? NULL : PyObject_GetItem(view, key);
    Py_XDECREF(view);
    return item;
}

static int
buffer_set_item(PyObject *self, PyObject *key, PyObject *value)
{
    if (value == NULL) {
        pyrt_py_raise(PYRT_PY_WRONG_TYPE, "the bytes of a buffer can be set, not deleted");
        return -1;
    }
    PyObject *view = PyMemoryView_FromObject(self);
    int result = view == NULL ? -1 : PyObject_SetItem(view, key, value);
    Py_XDECREF(view);
    return result;
}

static PyObject *
buffer_iter(PyObject *self)
{
    PyObject *view = PyMemoryView_FromObject(self);
    PyObject *iterator = view == NULL ? NULL : PyObject_GetIter(view);
    Py_XDECREF(view);
    return iterator;
}

static PyObject *
buffer_reversed(PyObject *self, PyObject *unused)
{
    (void)unused;
    PyObject *view = PyMemoryView_FromObject(self);
    PyObject *iterator = view == NULL ? NULL : PyObject_CallFunctionObjArgs((PyObject *)&PyReversed_Type, view, NULL);
    Py_XDECREF(view);
    return iterator;
}

/* ---- what it tells ----------------------------------------------------------------------------------------------- */

static PyObject *
buffer_nbytes(PyObject *self, void *unused)
{
    (void)unused;
    return refuse_released(buffer_of(self)) ? NULL : PyLong_FromSsize_t(buffer_of(self)->size);
}

static PyObject *
buffer_address(PyObject *self, void *unused)
{
    (void)unused;
    return refuse_released(buffer_of(self)) ? NULL : PyLong_FromVoidPtr(buffer_of(self)->block);
}

static PyObject *
buffer_owner(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromLongLong(buffer_of(self)->heap->domain->interp_id);
}

static PyObject *
buffer_tag(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromLong(buffer_of(self)->heap->config.tag);
}

static PyObject *
buffer_heap(PyObject *self, void *unused)
{
    (void)unused;
    return Py_NewRef((PyObject *)buffer_of(self)->heap);
}

static PyObject *
buffer_released(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(is_released(buffer_of(self)));
}

static PyObject *
buffer_repr(PyObject *self)
{
    const pyrt_py_buffer *buffer = buffer_of(self);
    if (is_released(buffer)) {
        return PyUnicode_FromFormat("<buffer of heap %U, released>", buffer->heap->shown);
    }
    return PyUnicode_FromFormat("<buffer of %zd byte%s of heap %U at %p>", buffer->size, buffer->size == 1 ? "" : "s",
                                buffer->heap->shown, (void *)buffer->block);
}

/* ---- the type ---------------------------------------------------------------------------------------------------- */

static PyObject *
buffer_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    return refuse_released(buffer_of(self)) ? NULL : Py_NewRef(self);
}

static PyObject *
buffer_exit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)args;
    (void)count;
    return buffer_release(self, NULL);
}

PyDoc_STRVAR(release_doc, "release($self, /)\n--\n\n"
                          "Gives the memory back now. A second release does nothing.\n\n"
                          "    >>> from pyruntime.heap import Heap\n"
                          "    >>> buffer = Heap().alloc(100)\n"
                          "    >>> buffer.release()\n"
                          "    >>> buffer.released\n"
                          "    True\n\n"
                          "After it, len(), items, views and the address raise StateError. Any thread may call it. Raises\n"
                          "BufferInUseError, a BufferError, while views of it are open, and then nothing is released.");
PyDoc_STRVAR(
    doc,
    "So many bytes of a heap, which can be read and written; made by Heap.alloc().\n\n"
    "It has the buffer protocol, for all that takes a bytearray: memoryview(), bytes(), readinto(), struct, NumPy.\n"
    "Items and slices are those of a memoryview of it, of unsigned bytes. The length is fixed.\n\n"
    "    >>> from pyruntime.heap import Heap\n"
    "    >>> buffer = Heap('frames').alloc(5)\n"
    "    >>> buffer[:] = b'hello'\n"
    "    >>> buffer[0], bytes(buffer[1:4]), len(buffer)\n"
    "    (104, b'ell', 5)\n\n"
    "The memory goes back when the object and its last view are gone, on whichever thread that is, also when the heap\n"
    "has been closed; or at once with release(), or at the end of a with block. The address stays the same until\n"
    "then, and is a multiple of 16 (of 8 for buffers of at most 8 bytes). Several threads may use it at once; what one\n"
    "writes while another reads is theirs to order. It can be referred to weakly. The class cannot be subclassed.\n\n"
    "Equality and the hash go by identity, and a bytes is never equal to one. A bytearray or a memoryview compares by\n"
    "itself what is in it, on either side of ==. To compare contents say memoryview(buffer) == other.\n\n"
    "After memoryview and mmap.");

static PyMethodDef methods[] = {
    {"release", buffer_release, METH_NOARGS, release_doc},
    {"__reversed__", buffer_reversed, METH_NOARGS, "__reversed__($self, /)\n--\n\nThe bytes, from the last to the first."},
    {"__enter__", buffer_enter, METH_NOARGS, "__enter__($self, /)\n--\n\nThe buffer itself."},
    {"__exit__", PYRT_PY_METHOD(buffer_exit), METH_FASTCALL, "__exit__($self, /, *exc_info)\n--\n\nReleases it."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"nbytes", buffer_nbytes, NULL, "How many bytes it has, as len().", NULL},
    {"address", buffer_address, NULL, "Where its memory begins.", NULL},
    {"owner", buffer_owner, NULL, "The id of the interpreter whose memory it is, as owner() of it.", NULL},
    {"tag", buffer_tag, NULL, "That of its heap.", NULL},
    {"heap", buffer_heap, NULL, "The heap that it was allocated from.", NULL},
    {"released", buffer_released, NULL, "Whether its memory has been given back.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = PYRT_PY_WEAKREFS(pyrt_py_buffer);

static PyType_Slot slots[] = {
    {Py_tp_dealloc, buffer_dealloc},    {Py_tp_traverse, buffer_traverse},
    {Py_tp_repr, buffer_repr},          {Py_tp_iter, buffer_iter},
    {Py_tp_methods, methods},           {Py_tp_getset, properties},
    {Py_tp_members, members},           {Py_mp_length, buffer_length},
    {Py_mp_subscript, buffer_get_item}, {Py_mp_ass_subscript, buffer_set_item},
    {Py_bf_getbuffer, buffer_get},      {Py_bf_releasebuffer, buffer_end_of_view},
    {Py_tp_doc, (void *)doc},           {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyruntime.heap.Buffer",
    .basicsize = sizeof(pyrt_py_buffer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

PyTypeObject *
pyrt_py_buffer_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&spec);
}
