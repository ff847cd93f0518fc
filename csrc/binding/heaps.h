/* heaps.h -- the Python objects behind pyruntime.heap: a heap of an interpreter of the core, and the buffers from it.
 *
 * A buffer keeps its heap object, which keeps its domain; so whoever holds a buffer can be told where it came from, and a
 * domain that nobody closes lives as long as its last buffer. The block itself needs none of them: it goes back by pyrt_free,
 * which works on every thread and outlives the heap, its domain and its interpreter.
 *
 * State table of `users`, of a heap:
 *   bit 31         closed: nothing is allocated any more   close(), by fetch-or. Never cleared
 *   bits 0 to 30   calls that are allocating               one more by who begins; one less by who ends, or has found bit 31.
 *                                                          None in the child of a fork
 * Whoever makes it "closed, and nobody" ends `handle`: close(), or the last call to leave. A call that has found bit 31 may do so
 * once more, at the same time: the handle is taken out in one step, and who gets it deletes it.
 *
 * State table of `exports`, of a buffer:
 *   -1             released: there is no block             release(), by compare-and-swap from 0; as it is made
 *   0              has a block, which nobody looks at      alloc(), once
 *   1 and more     so many views of it are open            one more by compare-and-swap, for each view; one less at its end
 */
#ifndef PYRT_BINDING_HEAPS_H
#define PYRT_BINDING_HEAPS_H

#include "binding/domain.h"

#include "memory/size_class.h"

enum { PYRT_PY_HEAP_CLASSES = PYRT_CLASSES };

/* Blocks of one size class, ever. `freed` is counted by release and read first, by acquire, so that it is never ahead. */
typedef struct pyrt_py_heap_count {
    uint64_t allocated; /* atomic */
    uint64_t freed;     /* atomic */
} pyrt_py_heap_count;

typedef struct pyrt_py_heap {
    PyObject_HEAD
    PyObject *weakrefs;
    struct pyrt_py_heap *next, *previous; /* in home->heaps, under its lock */
    pyrt_py_domain *domain;
    pyrt_heap *handle;         /* atomic at its end; valid while the domain is open; NULL: ended, or not made */
    pyrt_heap_config config;
    char name[PYRT_PY_NAME];
    PyObject *shown;           /* repr() of the name, for messages: of one line, whatever is in it */
    uint32_t users;            /* atomic */
    uint64_t refused;          /* atomic: allocations that failed */
    uint64_t large_allocated, large_freed; /* atomic: bytes of the blocks above the classes, counted like those */
    pyrt_py_heap_count counts[PYRT_PY_HEAP_CLASSES];
} pyrt_py_heap;

typedef struct pyrt_py_buffer {
    PyObject_HEAD
    PyObject *weakrefs;
    pyrt_py_heap *heap;
    char *block;               /* from alloc() on; stays when it is released, and is nobody's then */
    size_t room;               /* of the block */
    Py_ssize_t size;           /* what was asked for */
    Py_ssize_t exports;        /* atomic */
} pyrt_py_buffer;

#define PYRT_PY_HEAP_CLOSED 0x80000000u

static inline bool
pyrt_py_heap_is_closed(const pyrt_py_heap *heap)
{
    return (pyrt_load_acquire(&heap->users) & PYRT_PY_HEAP_CLOSED) != 0 || pyrt_py_domain_is_closed(heap->domain);
}

/* The size class to count a block in. */
static inline unsigned
pyrt_py_heap_class(size_t room)
{
    return room <= PYRT_CLASSED_MAX ? pyrt_class_of(room) : PYRT_CLASS_LARGE;
}

/* A buffer without a block yet, of this heap; NULL with an exception. */
pyrt_py_buffer *pyrt_py_buffer_new(pyrt_py_heap *heap);

/* Ends the handle, by whoever makes the heap closed and nobody's, or has it to himself. A heap whose domain is closed went
 * with it. */
void pyrt_py_heap_end(pyrt_py_heap *heap);

/* For the method table: alloc(). */
PyObject *pyrt_py_heap_alloc(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);
extern const char pyrt_py_heap_alloc_doc[];

/* Blocks of a heap that are in use. */
uint64_t pyrt_py_heap_blocks(const pyrt_py_heap *heap);

/* Whether buffers of the domains of this Python interpreter are in use. */
bool pyrt_py_heaps_in_use(pyrt_py_home *home);

/* For the method table of the module: makes the types and adds them; and all heaps there are, as tuples. */
PyObject *pyrt_py_heap_add_types(PyObject *module, PyObject *unused);
PyObject *pyrt_py_heap_figures(PyObject *module, PyObject *unused);

/* The tuple of one heap. NULL with an exception. */
PyObject *pyrt_py_heap_figures_of(const pyrt_py_heap *heap);

PyTypeObject *pyrt_py_heap_type_new(void);
PyTypeObject *pyrt_py_buffer_type_new(void);

/* In the child of a fork: no other thread is allocating. */
void pyrt_py_heaps_fork_child(void);

#endif
