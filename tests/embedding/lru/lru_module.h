/* lru_module.h -- the module around the cache: the same for all versions, which include it at their end.
 *
 *      Cache(capacity)             get(key, default=None)   put(key, value)   len(cache)   clear()   stats()
 *      touch(keys)                 marks the keys as used and answers how many there are; keys is an array('q')
 *      get_many(keys)              their values, None where there is none
 *      absorb(other)               moves all that the other cache has over
 */

typedef struct cache {
    PyObject_HEAD
    Py_ssize_t capacity;
    lru core;
} cache;

#define STRING_OF(name) #name
#define STRING(name) STRING_OF(name)
#define INIT_OF(name) PyInit_##name
#define INIT(name) INIT_OF(name)

static lru *
core_of(PyObject *self)
{
    return &((cache *)(void *)self)->core;
}

static PyObject *
cache_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"capacity", NULL};
    Py_ssize_t capacity;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n", names, &capacity)) {
        return NULL;
    }
    if (capacity < 1 || capacity > PY_SSIZE_T_MAX / 256) {
        PyErr_SetString(PyExc_ValueError, "a cache has room for one entry at least, and not for absurdly many");
        return NULL;
    }
    cache *self = (cache *)(void *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    if (!lru_init(&self->core, (size_t)capacity)) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    self->capacity = capacity;
    return (PyObject *)self;
}

/* As many as there are now: others may be putting meanwhile. */
static PyObject *
cache_clear(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    for (size_t n = lru_look(core_of(self)).size; n > 0 && lru_drop_oldest(core_of(self)) > 0; n--) {
    }
    Py_RETURN_NONE;
}

static int
cache_tp_clear(PyObject *self)
{
    if (((cache *)(void *)self)->capacity != 0) {
        while (lru_drop_oldest(core_of(self)) > 0) {
        }
    }
    return 0;
}

static int
cache_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return ((cache *)(void *)self)->capacity == 0 ? 0 : lru_traverse(core_of(self), visit, arg);
}

static void
cache_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)cache_tp_clear(self);
    if (((cache *)(void *)self)->capacity != 0) {
        lru_fini(core_of(self));
    }
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
cache_get(PyObject *self, PyObject *args)
{
    long long key;
    PyObject *otherwise = Py_None;
    if (!PyArg_ParseTuple(args, "L|O", &key, &otherwise)) {
        return NULL;
    }
    PyObject *value = lru_get(core_of(self), key);
    return value != NULL ? value : PyErr_Occurred() ? NULL : Py_NewRef(otherwise);
}

static PyObject *
cache_put(PyObject *self, PyObject *args)
{
    long long key;
    PyObject *value;
    if (!PyArg_ParseTuple(args, "LO", &key, &value) || lru_put(core_of(self), key, value) != 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* The keys of a batch: nobody resizes the array as long as the view is held. */
static bool
keys_of(PyObject *keys, Py_buffer *view)
{
    if (PyObject_GetBuffer(keys, view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS) != 0) {
        return false;
    }
    if (view->itemsize != 8 || view->format == NULL || (strcmp(view->format, "q") != 0 && strcmp(view->format, "l") != 0)) {
        PyBuffer_Release(view);
        PyErr_SetString(PyExc_TypeError, "keys are 64-bit integers: an array('q')");
        return false;
    }
    return true;
}

static PyObject *
cache_touch(PyObject *self, PyObject *keys)
{
    Py_buffer view;
    if (!keys_of(keys, &view)) {
        return NULL;
    }
#if !LRU_NEEDS_GIL
    PyThreadState *python = PyEval_SaveThread();
#endif
    size_t found = lru_touch(core_of(self), view.buf, (size_t)view.len / 8);
#if !LRU_NEEDS_GIL
    PyEval_RestoreThread(python);
#endif
    PyBuffer_Release(&view);
    return found == SIZE_MAX ? PyErr_NoMemory() : PyLong_FromSize_t(found);
}

#if defined(LRU_GET_MANY)
static PyObject *
values_of(lru *core, const int64_t *keys, Py_ssize_t n)
{
    return lru_get_many(core, keys, n);
}
#else
static PyObject *
values_of(lru *core, const int64_t *keys, Py_ssize_t n)
{
    PyObject *values = PyList_New(n);
    for (Py_ssize_t i = 0; values != NULL && i < n; i++) {
        PyObject *value = lru_get(core, keys[i]);
        if (value == NULL && PyErr_Occurred()) {
            Py_CLEAR(values);
            break;
        }
        PyList_SET_ITEM(values, i, value != NULL ? value : Py_NewRef(Py_None));
    }
    return values;
}
#endif

static PyObject *
cache_get_many(PyObject *self, PyObject *keys)
{
    Py_buffer view;
    if (!keys_of(keys, &view)) {
        return NULL;
    }
    PyObject *values = values_of(core_of(self), view.buf, view.len / 8);
    PyBuffer_Release(&view);
    return values;
}

static PyObject *
cache_absorb(PyObject *self, PyObject *other)
{
    if (Py_TYPE(other) != Py_TYPE(self)) {
        PyErr_SetString(PyExc_TypeError, "only a cache of the same type can be absorbed");
        return NULL;
    }
    int moved = 1;
    for (size_t n = self == other ? 0 : lru_look(core_of(other)).size; n > 0 && moved > 0; n--) {
        moved = lru_move_oldest(core_of(other), core_of(self));
    }
    if (moved < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
cache_stats(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    lru_figures now = lru_look(core_of(self));
    return Py_BuildValue("{snsnsnsn}", "size", (Py_ssize_t)now.size, "hits", (Py_ssize_t)now.hits, "misses",
                         (Py_ssize_t)now.misses, "evictions", (Py_ssize_t)now.evictions);
}

static Py_ssize_t
cache_len(PyObject *self)
{
    return (Py_ssize_t)lru_look(core_of(self)).size;
}

static PyMethodDef cache_methods[] = {
    {"get", cache_get, METH_VARARGS, NULL},    {"put", cache_put, METH_VARARGS, NULL},
    {"clear", cache_clear, METH_NOARGS, NULL}, {"stats", cache_stats, METH_NOARGS, NULL},
    {"touch", cache_touch, METH_O, NULL},      {"get_many", cache_get_many, METH_O, NULL},
    {"absorb", cache_absorb, METH_O, NULL},    {NULL, NULL, 0, NULL},
};

static PyType_Slot cache_slots[] = {
    {Py_tp_new, cache_new},
    {Py_tp_dealloc, cache_dealloc},
    {Py_tp_traverse, cache_traverse},
    {Py_tp_clear, cache_tp_clear},
    {Py_tp_methods, cache_methods},
    {Py_sq_length, cache_len},
    {0, NULL},
};

static PyType_Spec cache_spec = {
    STRING(LRU_NAME) ".Cache", sizeof(cache), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, cache_slots,
};

static int
module_exec(PyObject *module)
{
#if defined(LRU_START)
    if (LRU_START() != 0) {
        return -1;
    }
#endif
    PyObject *type = PyType_FromSpec(&cache_spec);
    int done = type == NULL ? -1 : PyModule_AddObjectRef(module, "Cache", type);
    Py_XDECREF(type);
    return done;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030d0000 && !LRU_NEEDS_GIL
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT, STRING(LRU_NAME), NULL, 0, NULL, module_slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC
INIT(LRU_NAME)(void)
{
    return PyModuleDef_Init(&module_definition);
}
