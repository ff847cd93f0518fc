/* heap_figures.c -- what the heaps of Python have allocated and have in use.
 *
 * All of it is counted by the objects themselves (heaps.h), exact and without a pause: where pages and segments are, the core
 * tells (pyrt_interp_memory_stats). Figures are copied out under the lock of the home, where nothing of Python's is called.
 */
#include "binding/heaps.h"

#include <stdlib.h>
#include <string.h>

typedef struct class_figures {
    uint64_t allocated, blocks, bytes;
} class_figures;

typedef struct heap_figures {
    char name[PYRT_PY_NAME];
    int64_t interp_id;
    pyrt_heap_config config;
    bool is_closed;
    uint64_t refused;
    class_figures classes[PYRT_PY_HEAP_CLASSES];
} heap_figures;

/* acquire: pairs with the end of a block (free_block): what it counted as allocated is seen too, so that nothing comes out
 * negative. */
static class_figures
count_class(const pyrt_py_heap *heap, unsigned class)
{
    uint64_t freed = pyrt_load_acquire(&heap->counts[class].freed);
    class_figures found = {.allocated = pyrt_load_acquire(&heap->counts[class].allocated)};
    found.blocks = found.allocated - freed;
    if (class == PYRT_CLASS_LARGE) {
        uint64_t large_freed = pyrt_load_acquire(&heap->large_freed);
        found.bytes = pyrt_load_relaxed(&heap->large_allocated) - large_freed;
    }
    else {
        found.bytes = found.blocks * pyrt_class_size(class);
    }
    return found;
}

static void
look_at(const pyrt_py_heap *heap, heap_figures *out)
{
    memcpy(out->name, heap->name, sizeof(out->name));
    out->interp_id = heap->domain->interp_id;
    out->config = heap->config;
    out->is_closed = pyrt_py_heap_is_closed(heap);
    out->refused = pyrt_load_relaxed(&heap->refused);
    for (unsigned class = 0; class < PYRT_PY_HEAP_CLASSES; class++) {
        out->classes[class] = count_class(heap, class);
    }
}

uint64_t
pyrt_py_heap_blocks(const pyrt_py_heap *heap)
{
    uint64_t blocks = 0;
    for (unsigned class = 0; class < PYRT_PY_HEAP_CLASSES; class++) {
        blocks += count_class(heap, class).blocks;
    }
    return blocks;
}

bool
pyrt_py_heaps_in_use(pyrt_py_home *home)
{
    uint64_t blocks = 0;
    pyrt_raw_mutex_lock(&home->lock);
    for (const pyrt_py_heap *heap = home->heaps; heap != NULL; heap = heap->next) {
        blocks += pyrt_py_heap_blocks(heap);
    }
    pyrt_raw_mutex_unlock(&home->lock);
    return blocks != 0;
}

/* ---- for Python -------------------------------------------------------------------------------------------------- */

/* (block size, allocated, blocks, bytes) of each class that was ever used; the size 0 stands for what is above the classes. */
static PyObject *
classes_as_tuple(const heap_figures *figures)
{
    PyObject *list = PyList_New(0);
    for (unsigned class = 0; list != NULL && class < PYRT_PY_HEAP_CLASSES; class++) {
        const class_figures *one = &figures->classes[class];
        if (one->allocated == 0) {
            continue;
        }
        PyObject *item = Py_BuildValue(
            "(KKKK)", class == PYRT_CLASS_LARGE ? 0ull : (unsigned long long)pyrt_class_size(class),
            (unsigned long long)one->allocated, (unsigned long long)one->blocks, (unsigned long long)one->bytes);
        if (item == NULL || PyList_Append(list, item) != 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(item);
    }
    PyObject *tuple = list == NULL ? NULL : PyList_AsTuple(list);
    Py_XDECREF(list);
    return tuple;
}

static PyObject *
as_tuple(const heap_figures *figures)
{
    PyObject *classes = classes_as_tuple(figures);
    if (classes == NULL) {
        return NULL;
    }
    return Py_BuildValue("(sLiNiNKN)", figures->name, (long long)figures->interp_id, (int)figures->config.tag,
                         PyBool_FromLong(figures->config.type_stable), (int)figures->config.stable_prefix,
                         PyBool_FromLong(figures->is_closed), (unsigned long long)figures->refused, classes);
}

PyObject *
pyrt_py_heap_figures_of(const pyrt_py_heap *heap)
{
    heap_figures figures;
    look_at(heap, &figures);
    return as_tuple(&figures);
}

/* Appends the heaps of a home to the list. False with an exception. */
static bool
append_heaps(PyObject *list, pyrt_py_home *home)
{
    heap_figures *found = NULL;
    size_t capacity = 0;
    size_t count = 0;
    for (;;) {
        count = 0;
        pyrt_raw_mutex_lock(&home->lock);
        for (const pyrt_py_heap *heap = home->heaps; heap != NULL; heap = heap->next, count++) {
            if (count < capacity) {
                look_at(heap, &found[count]);
            }
        }
        pyrt_raw_mutex_unlock(&home->lock);
        if (count <= capacity) {
            break;
        }
        free(found);
        capacity = count + 8;
        found = malloc(capacity * sizeof(*found));
        if (found == NULL) {
            PyErr_NoMemory();
            return false;
        }
    }
    bool appended = true;
    /* Oldest first: the newest is the first of the home. */
    while (appended && count-- > 0) {
        PyObject *item = as_tuple(&found[count]);
        appended = item != NULL && PyList_Append(list, item) == 0;
        Py_XDECREF(item);
    }
    free(found);
    return appended;
}

PyObject *
pyrt_py_heap_figures(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyObject *list = PyList_New(0);
    for (pyrt_py_home *home = pyrt_py_homes(); list != NULL && home != NULL; home = home->next) {
        if (!append_heaps(list, home)) {
            Py_CLEAR(list);
        }
    }
    return list;
}
