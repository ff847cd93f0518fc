/* sample.c -- an extension as somebody else would write it: it links nothing of pyruntime, includes <pyruntime/capi.h>, and
 * uses the runtime that the process already has.
 *
 * It keeps one shared word that readers read without a lock and a writer replaces; what is replaced is retired. The functions
 * are thin, so that the test in Python can see each inline path of the headers work through the table.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pyruntime/capi.h>

#include <sched.h>
#include <stdlib.h>

#include "sample_module.h"

static long *shared_word; /* read with acquire, replaced by exchange */
static long disposed;     /* atomic, relaxed */

static void
dispose_word(void *word)
{
    pyrt_fetch_add_relaxed(&disposed, 1L);
    free(word);
}

/* Raises what stands behind a NULL of pyrt_thread_ensure and pyrt_thread_new: each reason wants something else of the user. */
static PyObject *
raise_no_state(void)
{
    const pyrt_thread *current = pyrt_thread_current();
    if (pyrt_interp_main() == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the runtime of the process has not been started, or has ended");
    }
    else if (current != NULL && current->interp != pyrt_interp_main() && current->slot.read_depth != 0) {
        PyErr_SetString(PyExc_RuntimeError, "this would end a read-side section of another interpreter: leave it first");
    }
    else {
        PyErr_SetString(PyExc_MemoryError, "no memory for a thread state, or for a slot of it");
    }
    return NULL;
}

/* read() -> int | None: attach, read without a lock, detach; all three are inline. */
static PyObject *
read_word(PyObject *module, PyObject *args)
{
    (void)module;
    (void)args;
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    if (thread == NULL) {
        return raise_no_state();
    }
    pyrt_read_begin(thread);
    const long *word = pyrt_load_acquire(&shared_word);
    bool found = word != NULL;
    long value = found ? *word : 0;
    pyrt_read_end(thread);
    pyrt_qsbr_quiescent_state(thread);
    pyrt_safepoint(thread);
    pyrt_thread_release(thread);
    if (!found) {
        Py_RETURN_NONE;
    }
    return PyLong_FromLong(value);
}

/* replace(int): publish a new word, retire the old one. */
static PyObject *
replace_word(PyObject *module, PyObject *arg)
{
    (void)module;
    long value = PyLong_AsLong(arg);
    if (value == -1 && PyErr_Occurred()) {
        return NULL;
    }
    long *fresh = malloc(sizeof(*fresh));
    if (fresh == NULL) {
        return PyErr_NoMemory();
    }
    *fresh = value;
    long *old = pyrt_exchange_seq_cst(&shared_word, fresh);
    if (old != NULL) {
        pyrt_status status = pyrt_retire(NULL, old, sizeof(*old), dispose_word);
        if (status != PYRT_OK && status != PYRT_EBUSY) {
            /* Not taken: nobody can be told to wait, so wait here. */
            pyrt_qsbr_synchronize(NULL);
            dispose_word(old);
        }
    }
    Py_RETURN_NONE;
}

/* inline_paths() -> tuple of bools: each inline function, seen to do what it says. */
static PyObject *
inline_paths(PyObject *module, PyObject *args)
{
    (void)module;
    (void)args;
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    if (thread == NULL) {
        return raise_no_state();
    }
    bool detached_first = pyrt_thread_current() != thread && PYRT_TLS.self_id == 0;
    pyrt_attach(thread);
    bool attached = pyrt_thread_current() == thread && PYRT_TLS.self_id == thread->self_id;
    uint64_t goal = pyrt_qsbr_advance(thread->interp);
    bool in_the_way = !pyrt_qsbr_poll(thread, goal);
    pyrt_qsbr_quiescent_state(thread);
    bool passed = pyrt_qsbr_poll(thread, goal);
    goal = pyrt_qsbr_advance(thread->interp);
    pyrt_safepoint(thread);
    bool passed_again = pyrt_qsbr_poll(thread, goal);
    pyrt_detach(thread);
    bool detached_last = pyrt_thread_current() == NULL && PYRT_TLS.self_id == 0;
    pyrt_thread_delete(thread);
    return Py_BuildValue("(OOOOOO)", detached_first ? Py_True : Py_False, attached ? Py_True : Py_False,
                         in_the_way ? Py_True : Py_False, passed ? Py_True : Py_False, passed_again ? Py_True : Py_False,
                         detached_last ? Py_True : Py_False);
}

static long destroyed; /* atomic, relaxed */

typedef struct counted {
    pyrt_object base;
    pyrt_object *other;
} counted;

static void
counted_dealloc(pyrt_object *object)
{
    pyrt_xdecref(((counted *)(void *)object)->other);
    (void)pyrt_fetch_add_seq_cst(&destroyed, 1L);
}

/* counting() -> tuple of bools: objects with the header of this extension's own structs, counted inline. */
static PyObject *
counting(PyObject *module, PyObject *args)
{
    (void)module;
    (void)args;
    static pyrt_object *slot;
    const pyrt_type_spec spec = {
        .struct_size = sizeof(spec), .name = "counted", .basic_size = sizeof(counted), .dealloc = counted_dealloc};
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_type *type = thread == NULL ? NULL : pyrt_type_new(pyrt_interp_main(), &spec);
    counted *first = type == NULL ? NULL : (counted *)(void *)pyrt_object_new(thread, type);
    pyrt_object *second = first == NULL ? NULL : pyrt_object_new(thread, type);
    if (second == NULL) {
        return raise_no_state();
    }
    long before = pyrt_load_relaxed(&destroyed);
    bool owned = pyrt_is_uniquely_referenced(second) && second->owner == thread->self_id;
    first->other = pyrt_incref_as(thread, second);
    bool counted_twice = second->local == 2 && pyrt_refcount(second) == 2;
    pyrt_decref_as(thread, second);
    pyrt_store_ref(&slot, &first->base);
    pyrt_object *found = pyrt_load_ref(&slot);
    bool found_first = found == &first->base && pyrt_refcount(found) == 2;
    pyrt_decref(found);
    bool alive = pyrt_load_relaxed(&destroyed) == before;
    pyrt_store_ref(&slot, NULL);
    bool both_died = pyrt_load_relaxed(&destroyed) == before + 2;
    (void)pyrt_merge_unique_counts(pyrt_interp_main()); /* types that others have left */
    pyrt_decref((pyrt_object *)type);
    bool type_died = pyrt_merge_unique_counts(pyrt_interp_main()) == 1;
    pyrt_thread_release(thread);
    return Py_BuildValue("(OOOOOO)", owned ? Py_True : Py_False, counted_twice ? Py_True : Py_False,
                         found_first ? Py_True : Py_False, alive ? Py_True : Py_False, both_died ? Py_True : Py_False,
                         type_died ? Py_True : Py_False);
}

static PyObject *
disposed_count(PyObject *module, PyObject *args)
{
    (void)module;
    (void)args;
    return PyLong_FromLong(pyrt_load_relaxed(&disposed));
}

static PyMethodDef methods[] = {
    SAMPLE_METHODS,
    {"read", read_word, METH_NOARGS, NULL},
    {"replace", replace_word, METH_O, NULL},
    {"inline_paths", inline_paths, METH_NOARGS, NULL},
    {"counting", counting, METH_NOARGS, NULL},
    {"disposed", disposed_count, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int
module_exec(PyObject *module)
{
    (void)module;
    return pyruntime_import();
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030d0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

SAMPLE_MODULE((void)0);
