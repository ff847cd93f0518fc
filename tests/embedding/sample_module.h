/* sample_module.h -- what all samples in C do when they meet: say whose runtime they use, drop objects of others, run a thread that
 * others stop, and stop those of others. Included after <pyruntime/capi.h> or <pyruntime/vendored.h>.
 */

/* The address of the one runtime: its main interpreter. */
static PyObject *
sample_runtime_address(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromVoidPtr(pyrt_interp_main());
}

/* drop(address): gives up a reference to an object of any extension. */
static PyObject *
sample_drop(PyObject *module, PyObject *arg)
{
    (void)module;
    pyrt_object *object = PyLong_AsVoidPtr(arg);
    if (object == NULL) {
        return NULL;
    }
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    if (thread == NULL) {
        return PyErr_NoMemory();
    }
    pyrt_decref(object);
    pyrt_thread_release(thread);
    return Py_NewRef(Py_None);
}

/* count(address): adds to the first of two words, attached and without the GIL, until the second is 0. */
static PyObject *
sample_count(PyObject *module, PyObject *arg)
{
    (void)module;
    long *words = PyLong_AsVoidPtr(arg);
    if (words == NULL) {
        return NULL;
    }
    PyThreadState *python = PyEval_SaveThread();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    while (thread != NULL && pyrt_load_relaxed(&words[1])) {
        (void)pyrt_fetch_add_relaxed(&words[0], 1L);
        pyrt_safepoint(thread);
    }
    if (thread != NULL) {
        pyrt_thread_release(thread);
    }
    PyEval_RestoreThread(python);
    return thread == NULL ? PyErr_NoMemory() : Py_NewRef(Py_None);
}

/* stands_still(address) -> bool: whether nobody adds to the word while this one has stopped the world. */
static PyObject *
sample_stands_still(PyObject *module, PyObject *arg)
{
    (void)module;
    const long *word = PyLong_AsVoidPtr(arg);
    if (word == NULL) {
        return NULL;
    }
    if (pyrt_stop_the_world(NULL) != PYRT_OK) {
        return PyErr_NoMemory();
    }
    long before = pyrt_load_relaxed(word);
    bool still = true;
    for (int i = 0; i < 1000 && still; i++) {
        sched_yield();
        still = pyrt_load_relaxed(word) == before;
    }
    pyrt_start_the_world(NULL);
    return PyBool_FromLong(still);
}

#define SAMPLE_METHODS                                                                                   \
    {"runtime_address", sample_runtime_address, METH_NOARGS, NULL}, {"drop", sample_drop, METH_O, NULL}, \
        {"count", sample_count, METH_O, NULL},                                                           \
    {                                                                                                    \
        "stands_still", sample_stands_still, METH_O, NULL                                                \
    }

#define STRING_OF(name) #name
#define STRING(name) STRING_OF(name)
#define INIT_OF(name) PyInit_##name
#define INIT(name) INIT_OF(name)

/* The module of `methods` and `slots`. Each file is compiled several times, under names of their own. */
#define SAMPLE_MODULE(prepare)                \
    static PyModuleDef definition = {         \
        PyModuleDef_HEAD_INIT,                \
        .m_name = STRING(SAMPLE_NAME),        \
        .m_methods = methods,                 \
        .m_slots = slots,                     \
    };                                        \
    PyMODINIT_FUNC INIT(SAMPLE_NAME)(void);   \
    PyMODINIT_FUNC INIT(SAMPLE_NAME)(void)    \
    {                                         \
        prepare;                              \
        return PyModuleDef_Init(&definition); \
    }                                         \
    _Static_assert(sizeof(methods) > 0, "for a semicolon behind it")
