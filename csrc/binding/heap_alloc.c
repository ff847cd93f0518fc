/* heap_alloc.c -- Heap.alloc(): from a number of bytes to a buffer.
 *
 * A Python thread is detached; the core gives blocks to attached ones only. So the call attaches the thread for as long as it
 * takes the block, in the state that the thread keeps in the default domain, or in one for a while (uses.h).
 */
#include "binding/gil.h"
#include "binding/heaps.h"
#include "binding/states.h"
#include "binding/uses.h"

/* Zeroing what is larger may take long. */
enum { LONG_ALLOC = 256 * 1024 };

/* alloc(nbytes, *, zero=True). Negative with an exception. */
static Py_ssize_t
alloc_arguments(PyObject *const *args, Py_ssize_t count, PyObject *names, bool *zero)
{
    Py_ssize_t named = names == NULL ? 0 : PyTuple_Size(names);
    if (count != 1 || named > 1 ||
        (named == 1 && PyUnicode_CompareWithASCIIString(PyTuple_GetItem(names, 0), "zero") != 0)) {
        pyrt_py_raise(PYRT_PY_WRONG_TYPE, "Heap.alloc() takes a number of bytes and zero=True, nothing else");
        return -1;
    }
    if (named == 1 && !PyBool_Check(args[1])) {
        pyrt_py_raise_not(PYRT_PY_WRONG_TYPE, args[1], "zero is True or False");
        return -1;
    }
    *zero = named == 0 || args[1] == Py_True;
    if (PyBool_Check(args[0]) || !PyIndex_Check(args[0])) {
        pyrt_py_raise(PYRT_PY_WRONG_TYPE, "Heap.alloc() takes an int, a number of bytes, not %R",
                      (PyObject *)Py_TYPE(args[0]));
        return -1;
    }
    Py_ssize_t size = PyNumber_AsSsize_t(args[0], NULL);
    if (size < 0 && !PyErr_Occurred()) {
        pyrt_py_raise_not(PYRT_EINVAL, args[0], "Heap.alloc() takes a number of bytes from 0 on");
    }
    return size;
}

/* False when it is closed. */
static bool
begin_use(pyrt_py_heap *heap)
{
    /* Counts and looks at once; pairs with the fetch-or of close(). */
    return (pyrt_fetch_add_seq_cst(&heap->users, 1u) & PYRT_PY_HEAP_CLOSED) == 0;
}

static void
end_use(pyrt_py_heap *heap)
{
    if (pyrt_fetch_add_seq_cst(&heap->users, (uint32_t)-1) == (PYRT_PY_HEAP_CLOSED | 1u)) {
        pyrt_py_heap_end(heap);
    }
}

static void
count_allocated(pyrt_py_heap *heap, size_t room)
{
    unsigned class = pyrt_py_heap_class(room);
    if (class == PYRT_CLASS_LARGE) {
        pyrt_fetch_add_relaxed(&heap->large_allocated, (uint64_t)room);
    }
    pyrt_fetch_add_relaxed(&heap->counts[class].allocated, (uint64_t)1);
}

/* With an attached thread, which may have let go of the GIL. Python runs nothing in between, so that no fork by this thread
 * finds it here. */
static pyrt_status
alloc_in_use(pyrt_py_heap *heap, pyrt_thread *thread, pyrt_py_buffer *buffer, size_t size, bool zero)
{
    pyrt_status status = PYRT_ESTATE;
    if (begin_use(heap)) {
        char *block = zero ? pyrt_heap_calloc(thread, heap->handle, size, 1) : pyrt_heap_malloc(thread, heap->handle, size);
        status = block == NULL ? PYRT_ENOMEM : PYRT_OK;
        if (block != NULL) {
            buffer->block = block;
            buffer->size = (Py_ssize_t)size;
            buffer->room = pyrt_usable_size(block);
            count_allocated(heap, buffer->room);
            /* release: pairs with the compare-and-swap of a view; Python's collector shows it to other threads already. */
            pyrt_store_release(&buffer->exports, (Py_ssize_t)0);
        }
        else {
            pyrt_fetch_add_relaxed(&heap->refused, (uint64_t)1);
        }
    }
    end_use(heap);
    return status;
}

/* Before the GIL is taken again: that call may not return, and then holds up nobody. */
static void
leave(pyrt_thread *thread)
{
    pyrt_safepoint(thread);
    pyrt_detach(thread);
}

static pyrt_status
alloc_attached(pyrt_py_heap *heap, pyrt_thread *thread, pyrt_py_buffer *buffer, size_t size, bool zero, bool leaves)
{
    bool is_long = zero && size >= LONG_ALLOC;
    PyThreadState *saved = is_long ? PyEval_SaveThread() : NULL;
    PyThreadState *outer = is_long ? NULL : pyrt_py_enter();
    pyrt_status status = alloc_in_use(heap, thread, buffer, size, zero);
    if (leaves) {
        leave(thread);
    }
    if (is_long) {
        PyEval_RestoreThread(saved);
    }
    else {
        pyrt_py_leave(outer);
    }
    return status;
}

/* A block inside another domain's block would detach the thread, and so end what that block protects. */
static bool
refuse_elsewhere(const pyrt_py_heap *heap)
{
    const pyrt_thread *current = pyrt_thread_current();
    if (pyrt_likely(current == NULL || current->interp == pyrt_load_relaxed(&heap->domain->interp)) ||
        pyrt_py_domain_is_closed(heap->domain)) {
        return false;
    }
    pyrt_py_raise(PYRT_ESTATE,
                  "Heap.alloc() of heap %U in domain '%S' inside a block of domain '%s' would end the protection of that "
                  "block: leave it first, or make the heap with domain=",
                  heap->shown, heap->domain->name, pyrt_interp_name(current->interp));
    return true;
}

/* False with an exception. What was asked for may be more than a size can say. */
static bool
fill(pyrt_py_heap *heap, pyrt_py_buffer *buffer, size_t size, bool zero, PyObject *asked)
{
    pyrt_py_lease lease;
    if (refuse_elsewhere(heap) || !pyrt_py_lease_begin(heap->domain, "Heap.alloc()", &lease)) {
        return false;
    }
    bool attaches = pyrt_thread_current() != lease.thread;
    if (attaches && !pyrt_py_state_attach(lease.thread)) {
        pyrt_py_lease_end(&lease);
        return false;
    }
    pyrt_status status = alloc_attached(heap, lease.thread, buffer, size, zero, attaches);
    pyrt_py_lease_end(&lease);
    if (status == PYRT_ESTATE) {
        pyrt_py_raise(status, "Heap.alloc(): heap %U is closed; make a new one", heap->shown);
    }
    else if (status != PYRT_OK) {
        PyObject *shown = pyrt_py_shown(asked);
        if (shown != NULL) {
            pyrt_py_raise(status, "no memory for a buffer of %U bytes in heap %U", shown, heap->shown);
            Py_DECREF(shown);
        }
    }
    return status == PYRT_OK;
}

const char pyrt_py_heap_alloc_doc[] =
    "alloc($self, nbytes, /, *, zero=True)\n--\n\n"
    "A buffer of so many bytes, zeroed unless zero is False; then it has in it what was there before.\n\n"
    "    >>> from pyruntime.heap import Heap\n"
    "    >>> heap = Heap()\n"
    "    >>> buffer = heap.alloc(4)\n"
    "    >>> memoryview(buffer)[1:3] = b'ab'\n"
    "    >>> bytes(buffer)\n"
    "    b'\\x00ab\\x00'\n\n"
    "Any thread of this Python interpreter may call it. A pause of the world is waited for; Ctrl-C ends that wait. nbytes\n"
    "may be 0. Raises OutOfMemoryError, a MemoryError, with nothing changed; StateError when the heap or its domain is\n"
    "closed, and inside a block of another domain than the heap's; ArgumentTypeError and ArgumentError.";
PyObject *
pyrt_py_heap_alloc(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    pyrt_py_heap *heap = (pyrt_py_heap *)self;
    bool zero = true;
    Py_ssize_t size = alloc_arguments(args, count, names, &zero);
    /* First the object, which may run the collector. */
    pyrt_py_buffer *buffer = size < 0 ? NULL : pyrt_py_buffer_new(heap);
    if (buffer != NULL && !fill(heap, buffer, (size_t)size, zero, args[0])) {
        Py_CLEAR(buffer);
    }
    return (PyObject *)buffer;
}
