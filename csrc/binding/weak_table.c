/* weak_table.c -- what pyruntime.weakref.WeakRegistry stands on: a dict from keys to weak references to objects.
 *
 * There is no lock of ours here. Each step on the dict is one call of Python's, which is one step for all threads: without a
 * GIL the dict sees to that by itself, and finds a key without its lock as long as nobody changes it; a reference is read under
 * Python's lock of the object's weak references. What takes several steps is written so that another thread may come in between:
 *
 *   an object dies      its entry is removed if the reference that stands there then is a dead one, in one step; so a new
 *                       object under the key stays (Python's own _remove_dead_weakref)
 *   setdefault          puts a reference of its own where there is none, in one step; what it finds instead is answered if
 *                       it lives, else removed as above, and the step is tried again
 *   pop, popitem        take the entry out in one step, and then look whether it lived
 *
 * References are those of weakref.WeakValueDictionary, which know their key: weakref.KeyedRef, made without its functions in Python.
 * A reference keeps a small object, its *expiry*, that knows the dict and the key and is called when the object dies. So dict,
 * references and expiries hold each other in a circle, which the end of the table breaks by emptying the dict.
 */
#include "binding/weak_table.h"

#include <structmember.h>

/* ---- an entry's end ---------------------------------------------------------------------------------------------- */

/* All that is needed to take an entry out; cleared by Python's collector. */
typedef struct expiry {
    PyObject_HEAD
    PyObject *entries;
    PyObject *key;
    PyObject *remove; /* _weakref._remove_dead_weakref */
} expiry;

static expiry *
expiry_of(PyObject *self)
{
    return (expiry *)self;
}

/* Called with the dead reference. */
static PyObject *
expiry_call(PyObject *object, PyObject *args, PyObject *kwargs)
{
    (void)args;
    (void)kwargs;
    const expiry *self = expiry_of(object);
    if (self->entries == NULL) {
        Py_RETURN_NONE;
    }
    return PyObject_CallFunctionObjArgs(self->remove, self->entries, self->key, NULL);
}

static int
expiry_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(expiry_of(self)->entries);
    Py_VISIT(expiry_of(self)->key);
    Py_VISIT(expiry_of(self)->remove);
    return 0;
}

static int
expiry_clear(PyObject *self)
{
    Py_CLEAR(expiry_of(self)->entries);
    Py_CLEAR(expiry_of(self)->key);
    Py_CLEAR(expiry_of(self)->remove);
    return 0;
}

static void
free_object(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc free_it = PyType_GetSlot(type, Py_tp_free);
    free_it(self);
    Py_DECREF((PyObject *)type);
}

static void
expiry_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    (void)expiry_clear(self);
    free_object(self);
}

static PyType_Slot expiry_slots[] = {
    {Py_tp_dealloc, expiry_dealloc},
    {Py_tp_traverse, expiry_traverse},
    {Py_tp_clear, expiry_clear},
    {Py_tp_call, expiry_call},
    {0, NULL},
};

static PyType_Spec expiry_spec = {
    .name = "pyruntime._core.WeakTableExpiry",
    .basicsize = sizeof(expiry),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = expiry_slots,
};

PyTypeObject *
pyrt_py_weak_expiry_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&expiry_spec);
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

typedef struct weak_table {
    PyObject_HEAD
    PyObject *entries;     /* a dict of our own: from keys to references */
    PyObject *remove;      /* as in expiry */
    PyObject *expiry_type;
    PyObject *keyed_ref;   /* weakref.KeyedRef */
    PyObject *make_ref;    /* weakref.ref.__new__ */
} weak_table;

static weak_table *
table_of(PyObject *self)
{
    return (weak_table *)self;
}

/* Whether the object of a reference lives; if so, a new reference to it. Negative with an exception. */
static int
live_object(PyObject *reference, PyObject **object)
{
#if defined(Py_GIL_DISABLED)
    return PyWeakref_GetRef(reference, object);
#else
    *object = PyWeakref_GetObject(reference);
    if (*object == NULL) {
        return -1;
    }
    /* Without references it is being taken apart, and the reference will be told. */
    if (*object == Py_None || Py_REFCNT(*object) <= 0) {
        *object = NULL;
        return 0;
    }
    Py_INCREF(*object);
    return 1;
#endif
}

/* The living object of a key, a new reference; 0 if there is none; negative with an exception. */
static int
find(const weak_table *self, PyObject *key, PyObject **object)
{
    *object = NULL;
#if defined(Py_GIL_DISABLED)
    PyObject *reference = NULL;
    int found = PyDict_GetItemRef(self->entries, key, &reference);
    if (found > 0) {
        found = live_object(reference, object);
        Py_DECREF(reference);
    }
    return found;
#else
    PyObject *reference = PyDict_GetItemWithError(self->entries, key);
    if (reference == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    return live_object(reference, object);
#endif
}

static PyObject *
raise_missing(PyObject *key)
{
    /* In a tuple, so that a key that is one stays one argument. */
    PyObject *argument = PyTuple_Pack(1, key);
    if (argument != NULL) {
        PyErr_SetObject(PyExc_KeyError, argument);
        Py_DECREF(argument);
    }
    return NULL;
}

static PyObject *
table_subscript(PyObject *self, PyObject *key)
{
    PyObject *object;
    int found = find(table_of(self), key, &object);
    return found == 0 ? raise_missing(key) : object;
}

static int
table_contains(PyObject *self, PyObject *key)
{
    PyObject *object;
    int found = find(table_of(self), key, &object);
    Py_XDECREF(object);
    return found;
}

static Py_ssize_t
table_length(PyObject *self)
{
    return PyDict_Size(table_of(self)->entries);
}

/* The key and, if there is one, what `name` calls the second argument, by place or by name. False with an exception. */
static bool
key_and(const char *method, const char *name, PyObject *const *args, Py_ssize_t count, PyObject *names, PyObject **second)
{
    Py_ssize_t named = names == NULL ? 0 : PyTuple_Size(names);
    bool fits = count >= 1 && count + named <= 2 &&
                (named == 0 || PyUnicode_CompareWithASCIIString(PyTuple_GetItem(names, 0), name) == 0);
    if (!fits) {
        (void)pyrt_py_raise(PYRT_PY_WRONG_TYPE, "%s() takes a key, and then %s", method, name);
        return false;
    }
    if (count + named == 2) {
        *second = args[1];
    }
    return true;
}

static PyObject *
table_get(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *fallback = Py_None;
    if ((count != 1 || names != NULL) && !key_and("get", "default", args, count, names, &fallback)) {
        return NULL;
    }
    PyObject *object;
    int found = find(table_of(self), args[0], &object);
    return found == 0 ? Py_NewRef(fallback) : object;
}

/* ---- changing ---------------------------------------------------------------------------------------------------- */

static PyObject *
new_reference(const weak_table *self, PyObject *key, PyObject *object)
{
    PyTypeObject *type = (PyTypeObject *)self->expiry_type;
    allocfunc alloc = PyType_GetSlot(type, Py_tp_alloc);
    PyObject *end = alloc(type, 0);
    if (end == NULL) {
        return NULL;
    }
    expiry_of(end)->entries = Py_NewRef(self->entries);
    expiry_of(end)->key = Py_NewRef(key);
    expiry_of(end)->remove = Py_NewRef(self->remove);
    PyObject *reference = PyObject_CallFunctionObjArgs(self->make_ref, self->keyed_ref, object, end, NULL);
    Py_DECREF(end);
    if (reference != NULL && PyObject_SetAttrString(reference, "key", key) != 0) {
        Py_CLEAR(reference);
    }
    else if (reference == NULL && PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Clear();
        (void)pyrt_py_raise(PYRT_PY_WRONG_TYPE,
                            "a WeakRegistry holds its objects weakly, and there are no weak references to those of %R: "
                            "register an instance of a class of your own that holds it",
                            (PyObject *)Py_TYPE(object));
    }
    return reference;
}

static int
table_assign(PyObject *object, PyObject *key, PyObject *value)
{
    weak_table *self = table_of(object);
    if (value == NULL) {
        int found = table_contains(object, key);
        if (found == 0) {
            (void)raise_missing(key);
        }
        return found <= 0 ? -1 : PyDict_DelItem(self->entries, key);
    }
    PyObject *reference = new_reference(self, key, value);
    int result = reference == NULL ? -1 : PyDict_SetItem(self->entries, key, reference);
    Py_XDECREF(reference);
    return result;
}

/* entries.method(first, second) with as many arguments as are not NULL. */
static PyObject *
call_dict(const weak_table *self, const char *method, PyObject *first, PyObject *second)
{
    PyObject *name = PyUnicode_FromString(method);
    PyObject *result = name == NULL ? NULL : PyObject_CallMethodObjArgs(self->entries, name, first, second, NULL);
    Py_XDECREF(name);
    return result;
}

/* One try: the object that stands there now, `value` or another; NULL without an exception: a dead one did. */
static PyObject *
try_setdefault(const weak_table *self, PyObject *key, PyObject *reference, PyObject *value)
{
    PyObject *there = call_dict(self, "setdefault", key, reference);
    if (there == NULL || there == reference) {
        Py_XDECREF(there);
        return there == NULL ? NULL : Py_NewRef(value);
    }
    PyObject *object = NULL;
    int lives = live_object(there, &object);
    Py_DECREF(there);
    if (lives == 0) {
        Py_XDECREF(PyObject_CallFunctionObjArgs(self->remove, self->entries, key, NULL));
    }
    return object;
}

static PyObject *
table_setdefault(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    const weak_table *self = table_of(object);
    PyObject *value = Py_None;
    if (!key_and("setdefault", "default", args, count, names, &value)) {
        return NULL;
    }
    PyObject *result;
    if (find(self, args[0], &result) != 0) {
        return result;
    }
    PyObject *reference = new_reference(self, args[0], value);
    while (reference != NULL && result == NULL && !PyErr_Occurred()) {
        result = try_setdefault(self, args[0], reference, value);
    }
    Py_XDECREF(reference);
    return result;
}

static PyObject *
table_pop(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *fallback = NULL;
    if (!key_and("pop", "default", args, count, names, &fallback)) {
        return NULL;
    }
    PyObject *reference = call_dict(table_of(object), "pop", args[0], Py_None);
    if (reference == NULL) {
        return NULL;
    }
    PyObject *popped = NULL;
    int lives = reference == Py_None ? 0 : live_object(reference, &popped);
    Py_DECREF(reference);
    if (lives != 0) {
        return popped;
    }
    return fallback == NULL ? raise_missing(args[0]) : Py_NewRef(fallback);
}

/* A pair of key and reference, to one of key and living object, or to NULL without an exception. */
static PyObject *
live_pair(PyObject *pair)
{
    PyObject *object = NULL;
    PyObject *result = NULL;
    if (live_object(PyTuple_GetItem(pair, 1), &object) > 0) {
        result = PyTuple_Pack(2, PyTuple_GetItem(pair, 0), object);
        Py_DECREF(object);
    }
    return result;
}

/* The pair with the object in place of the reference; takes both. As a rule the pair is ours alone and can be changed, so that
 * without memory nothing is lost. On another thread gc.get_objects() may have found it: then it is that one's too. */
static PyObject *
with_object(PyObject *pair, PyObject *object)
{
    if (Py_REFCNT(pair) == 1) {
        (void)PyTuple_SetItem(pair, 1, object);
        return pair;
    }
    PyObject *result = PyTuple_Pack(2, PyTuple_GetItem(pair, 0), object);
    Py_DECREF(object);
    Py_DECREF(pair);
    return result;
}

static PyObject *
table_popitem(PyObject *self, PyObject *unused)
{
    (void)unused;
    for (;;) {
        PyObject *pair = call_dict(table_of(self), "popitem", NULL, NULL);
        if (pair == NULL) {
            return NULL;
        }
        PyObject *object = NULL;
        int lives = live_object(PyTuple_GetItem(pair, 1), &object);
        if (lives > 0) {
            return with_object(pair, object);
        }
        Py_DECREF(pair);
        if (lives < 0) {
            return NULL;
        }
    }
}

static PyObject *
table_clear_entries(PyObject *self, PyObject *unused)
{
    (void)unused;
    PyDict_Clear(table_of(self)->entries);
    Py_RETURN_NONE;
}

/* ---- all of them ------------------------------------------------------------------------------------------------- */

static PyObject *
table_pairs(PyObject *self, PyObject *unused)
{
    (void)unused;
    PyObject *pairs = PyDict_Items(table_of(self)->entries);
    PyObject *result = pairs == NULL ? NULL : PyList_New(0);
    for (Py_ssize_t i = 0; result != NULL && i < PyList_Size(pairs); i++) {
        PyObject *pair = live_pair(PyList_GetItem(pairs, i));
        if (PyErr_Occurred() || (pair != NULL && PyList_Append(result, pair) != 0)) {
            Py_CLEAR(result);
        }
        Py_XDECREF(pair);
    }
    Py_XDECREF(pairs);
    return result;
}

static PyObject *
table_references(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyDict_Values(table_of(self)->entries);
}

/* ---- the type ---------------------------------------------------------------------------------------------------- */

/* An attribute of a module of Python's. */
static PyObject *
attribute_of(const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *attribute = module == NULL ? NULL : PyObject_GetAttrString(module, name);
    Py_XDECREF(module);
    return attribute;
}

static PyObject *
ref_new(void)
{
    PyObject *type = attribute_of("weakref", "ref");
    PyObject *function = type == NULL ? NULL : PyObject_GetAttrString(type, "__new__");
    Py_XDECREF(type);
    return function;
}

static PyObject *
table_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    /* For the __init__ of the class that is made of it. */
    (void)args;
    (void)kwargs;
    pyrt_py_home *home = pyrt_py_home_get();
    PyObject *entries = home == NULL ? NULL : PyDict_New();
    PyObject *remove = entries == NULL ? NULL : attribute_of("_weakref", "_remove_dead_weakref");
    PyObject *keyed_ref = remove == NULL ? NULL : attribute_of("weakref", "KeyedRef");
    PyObject *make_ref = keyed_ref == NULL ? NULL : ref_new();
    allocfunc alloc = PyType_GetSlot(type, Py_tp_alloc);
    PyObject *object = make_ref == NULL ? NULL : alloc(type, 0);
    if (object == NULL) {
        Py_XDECREF(entries);
        Py_XDECREF(remove);
        Py_XDECREF(keyed_ref);
        Py_XDECREF(make_ref);
        return NULL;
    }
    /* Nothing that may run other code stands in between: gc.get_objects() finds it from here on, on any thread, and complete. */
    weak_table *self = table_of(object);
    self->entries = entries;
    self->remove = remove;
    self->keyed_ref = keyed_ref;
    self->make_ref = make_ref;
    self->expiry_type = Py_NewRef((PyObject *)pyrt_py_sync_type(home, PYRT_PY_SYNC_WEAK_EXPIRY));
    return object;
}

static int
table_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(table_of(self)->entries);
    Py_VISIT(table_of(self)->remove);
    Py_VISIT(table_of(self)->expiry_type);
    Py_VISIT(table_of(self)->keyed_ref);
    Py_VISIT(table_of(self)->make_ref);
    return 0;
}

/* The dict stays: who comes to the table out of some finalizer finds it empty. */
static int
table_clear(PyObject *self)
{
    PyDict_Clear(table_of(self)->entries);
    return 0;
}

static void
table_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    (void)table_clear(self);
    Py_DECREF(table_of(self)->entries);
    Py_DECREF(table_of(self)->remove);
    Py_DECREF(table_of(self)->expiry_type);
    Py_DECREF(table_of(self)->keyed_ref);
    Py_DECREF(table_of(self)->make_ref);
    free_object(self);
}

PyDoc_STRVAR(get_doc, "get($self, key, /, default=None)\n--\n\n"
                      "The object of the key, or `default` if there is none, or none any more.\n\n"
                      "Takes no lock, whatever other threads do meanwhile.");
PyDoc_STRVAR(setdefault_doc,
             "setdefault($self, key, /, default)\n--\n\n"
             "The object of the key; if there is none that lives, `default`, which is registered then.\n\n"
             "One step for all threads: of several that come with objects of their own, all get the same one.");
PyDoc_STRVAR(pop_doc, "pop($self, key, /, default=...)\n--\n\n"
                      "Takes the key out and answers its object; without one that lives, `default`, or KeyError.");
PyDoc_STRVAR(popitem_doc, "popitem($self, /)\n--\n\n"
                          "Takes out the key that came last and answers it with its object; KeyError if there is none.");
PyDoc_STRVAR(clear_doc, "clear($self, /)\n--\n\nForgets all keys. The objects do not notice.");
PyDoc_STRVAR(pairs_doc, "_pairs($self, /)\n--\n\nA list of all keys with their living objects.");
PyDoc_STRVAR(references_doc, "valuerefs($self, /)\n--\n\n"
                             "A list of the weak references; an object of one may die before it is looked at.\n\n"
                             "Each has its `.key`, as those of weakref.WeakValueDictionary.");
PyDoc_STRVAR(doc, "The part of WeakRegistry in C.");

static PyMethodDef methods[] = {
    {"get", PYRT_PY_METHOD(table_get), METH_FASTCALL | METH_KEYWORDS, get_doc},
    {"setdefault", PYRT_PY_METHOD(table_setdefault), METH_FASTCALL | METH_KEYWORDS, setdefault_doc},
    {"pop", PYRT_PY_METHOD(table_pop), METH_FASTCALL | METH_KEYWORDS, pop_doc},
    {"popitem", table_popitem, METH_NOARGS, popitem_doc},
    {"clear", table_clear_entries, METH_NOARGS, clear_doc},
    {"_pairs", table_pairs, METH_NOARGS, pairs_doc},
    {"valuerefs", table_references, METH_NOARGS, references_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "For annotations: WeakRegistry[str, Node]."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, table_new},
    {Py_tp_dealloc, table_dealloc},
    {Py_tp_traverse, table_traverse},
    {Py_tp_clear, table_clear},
    {Py_tp_methods, methods},
    {Py_mp_subscript, table_subscript},
    {Py_mp_ass_subscript, table_assign},
    {Py_mp_length, table_length},
    {Py_sq_contains, table_contains},
    {Py_tp_doc, (void *)doc},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyruntime._core.WeakTable",
    .basicsize = sizeof(weak_table),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = slots,
};

PyTypeObject *
pyrt_py_weak_table_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&spec);
}
