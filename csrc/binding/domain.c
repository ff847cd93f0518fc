/* domain.c -- the type behind pyruntime.qsbr.Domain, and its birth: made, or found as the default one. Its end is domain_end.c's.
 *
 * What is here and in domain_calls.c takes plain numbers and answers plain values; pyruntime/qsbr.py checks the arguments
 * that need words, and names what comes back.
 */
#include "binding/domain.h"

#include "binding/domain_calls.h"
#include "binding/gil.h"
#include "binding/uses.h"

#include <string.h>

void
pyrt_py_raise_closed(pyrt_py_domain *domain, const char *what)
{
    pyrt_py_raise(PYRT_ESTATE, "%s: domain '%S' is closed; make a new one", what, domain->name);
}

/* ---- birth ------------------------------------------------------------------------------------------------------- */

/* Opens the domain, with one use under way. NULL stands for the default interp of the home, which an exit may have ended: then
 * it answers false. */
static bool
link_domain(pyrt_py_domain *domain, pyrt_interp *interp)
{
    pyrt_py_home *home = domain->home;
    pyrt_raw_mutex_lock(&home->lock);
    interp = interp == NULL ? home->interp : interp;
    if (interp != NULL) {
        domain->interp = interp;
        domain->interp_id = pyrt_interp_id(interp);
        pyrt_store_release(&domain->users, domain->is_kept ? 0u : 1u);
        domain->next = home->domains;
        home->domains = domain;
    }
    pyrt_raw_mutex_unlock(&home->lock);
    return interp != NULL;
}

/* An object without an interp: the caller fills it, or gives it up. */
static pyrt_py_domain *
new_object(PyTypeObject *type, pyrt_py_home *home)
{
    allocfunc alloc = PyType_GetSlot(type, Py_tp_alloc);
    pyrt_py_domain *domain = (pyrt_py_domain *)alloc(type, 0);
    if (domain != NULL) {
        pyrt_py_home_hold(home);
        domain->home = home;
        domain->interp_id = -1;
        domain->users = PYRT_PY_DOMAIN_CLOSED;
    }
    return domain;
}

/* A use of the domain is under way. */
static PyObject *
open_object(pyrt_py_domain *domain)
{
    const char *name = pyrt_interp_name(domain->interp);
    domain->name = PyUnicode_FromString(name);
    if (domain->name == NULL) {
        /* Cut in the middle of a character. */
        PyErr_Clear();
        domain->name = PyUnicode_DecodeUTF8(name, (Py_ssize_t)strlen(name), "ignore");
    }
    pyrt_py_use_end(domain);
    if (domain->name == NULL) {
        Py_DECREF((PyObject *)domain);
        return NULL;
    }
    return (PyObject *)domain;
}

bool
pyrt_py_name_argument(PyObject *object, const char *what, char name[PYRT_PY_NAME])
{
    if (!PyUnicode_Check(object)) {
        pyrt_py_raise(PYRT_PY_WRONG_TYPE, "the name of a %s is a str, not %R", what, (PyObject *)Py_TYPE(object));
        return false;
    }
    Py_ssize_t length = 0;
    const char *text = PyUnicode_AsUTF8AndSize(object, &length);
    if (text == NULL && !PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
        return false;
    }
    /* It says which character it is, and the message does not. */
    PyErr_Clear();
    if (text == NULL) {
        pyrt_py_raise(PYRT_EINVAL, "the name of a %s is written as UTF-8, which has no surrogates: take them out of %R",
                      what, object);
        return false;
    }
    if (length == 0 || length >= PYRT_PY_NAME || strlen(text) != (size_t)length) {
        pyrt_py_raise(PYRT_EINVAL, "the name of a %s has 1 to %d bytes of UTF-8 and no null character, not %R", what,
                      PYRT_PY_NAME - 1, object);
        return false;
    }
    memcpy(name, text, (size_t)length + 1);
    return true;
}

static PyObject *
domain_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    pyrt_py_home *home = pyrt_py_home_get();
    static char *keywords[] = {"name", NULL};
    PyObject *object = Py_None;
    char name[PYRT_PY_NAME];
    if (home == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Domain", keywords, &object) ||
        (object != Py_None && !pyrt_py_name_argument(object, "domain", name))) {
        return NULL;
    }
    pyrt_py_domain *domain = new_object(type, home);
    if (domain == NULL) {
        return NULL;
    }
    PyThreadState *outer = pyrt_py_enter();
    pyrt_interp *interp = pyrt_interp_new(&(pyrt_interp_config){
        .struct_size = sizeof(pyrt_interp_config), .whence = PYRT_WHENCE_STDLIB, .name = object != Py_None ? name : NULL});
    pyrt_py_leave(outer);
    if (interp == NULL) {
        Py_DECREF((PyObject *)domain);
        return pyrt_py_raise(PYRT_ENOMEM, "no memory for a domain");
    }
    (void)link_domain(domain, interp);
    return open_object(domain);
}

static PyObject *
domain_default(PyObject *type, PyObject *unused)
{
    (void)unused;
    pyrt_py_home *home = pyrt_py_home_get();
    if (home == NULL) {
        return NULL;
    }
    pyrt_py_domain *domain = new_object((PyTypeObject *)type, home);
    if (domain == NULL) {
        return NULL;
    }
    domain->is_default = true;
    domain->is_kept = home->is_main;
    if (!link_domain(domain, NULL)) {
        Py_DECREF((PyObject *)domain);
        return pyrt_py_raise(PYRT_ESTATE, "this Python interpreter is exiting");
    }
    return open_object(domain);
}

pyrt_py_domain *
pyrt_py_domain_default(pyrt_py_home *home)
{
    PyObject *domain = pyrt_py_published(&home->default_domain);
    if (domain == NULL) {
        PyObject *type = pyrt_py_published(&home->domain_type);
        domain = pyrt_py_publish(&home->default_domain, PyObject_CallMethod(type, "_default", NULL));
    }
    return (pyrt_py_domain *)domain;
}

/* ---- the type ---------------------------------------------------------------------------------------------------- */

static void
domain_dealloc(PyObject *self)
{
    pyrt_py_domain *domain = pyrt_py_domain_of(self);
    PyTypeObject *type = Py_TYPE(self);
    pyrt_py_domain_drop(domain);
    Py_XDECREF(domain->name);
    pyrt_py_home_drop(domain->home);
    freefunc free_object = PyType_GetSlot(type, Py_tp_free);
    free_object(self);
    Py_DECREF((PyObject *)type);
}

static PyObject *
domain_get_name(PyObject *self, void *unused)
{
    (void)unused;
    Py_INCREF(pyrt_py_domain_of(self)->name);
    return pyrt_py_domain_of(self)->name;
}

static PyObject *
domain_get_closed(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(pyrt_py_domain_is_closed(pyrt_py_domain_of(self)));
}

static PyObject *
domain_get_interpreter_id(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromLongLong(pyrt_py_domain_of(self)->interp_id);
}

static PyObject *
domain_repr(PyObject *self)
{
    pyrt_py_domain *domain = pyrt_py_domain_of(self);
    return PyUnicode_FromFormat("<domain '%S'%s>", domain->name, pyrt_py_domain_is_closed(domain) ? ", closed" : "");
}

static PyMethodDef domain_methods[] = {
    {"reading", pyrt_py_domain_reading, METH_NOARGS, pyrt_py_domain_reading_doc},
    {"attached", pyrt_py_domain_attached, METH_NOARGS, pyrt_py_domain_attached_doc},
    {"quiescent", pyrt_py_domain_quiescent, METH_NOARGS, pyrt_py_domain_quiescent_doc},
    {"retire", PYRT_PY_METHOD(pyrt_py_domain_retire), METH_FASTCALL | METH_KEYWORDS, pyrt_py_domain_retire_doc},
    {"close", pyrt_py_domain_close, METH_NOARGS, pyrt_py_domain_close_doc},
    {"_default", domain_default, METH_NOARGS | METH_CLASS, "The default domain of the calling Python interpreter."},
    {"_advance", pyrt_py_domain_advance, METH_NOARGS, "The next goal, as an int."},
    {"_poll", pyrt_py_domain_poll, METH_O, "Whether a goal, an int, is reached."},
    {"_synchronize", pyrt_py_domain_synchronize, METH_O, "Waits so many nanoseconds (negative: for ever); False: in vain."},
    {"_barrier", pyrt_py_domain_barrier, METH_O, "As _synchronize."},
    {"_stats", pyrt_py_domain_stats, METH_NOARGS, "The statistics, by name."},
    {"_stall_report", pyrt_py_domain_stall_report, METH_NOARGS, "The fields of a StallReport, or None."},
    {"_set_bound", pyrt_py_domain_set_bound, METH_VARARGS, "Items and bytes."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef domain_properties[] = {
    {"name", domain_get_name, NULL, "The name, in reports and in repr().", NULL},
    {"closed", domain_get_closed, NULL, "Whether close() has succeeded.", NULL},
    {"interpreter_id", domain_get_interpreter_id, NULL, "The id of the domain among pyruntime's interpreters.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot domain_slots[] = {
    {Py_tp_new, domain_new},
    {Py_tp_dealloc, domain_dealloc},
    {Py_tp_repr, domain_repr},
    {Py_tp_methods, domain_methods},
    {Py_tp_getset, domain_properties},
    {Py_tp_doc, "The compiled half of pyruntime.qsbr.Domain."},
    {0, NULL},
};

static PyType_Spec domain_spec = {
    .name = "pyruntime._core.Domain",
    .basicsize = sizeof(pyrt_py_domain),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = domain_slots,
};

PyTypeObject *
pyrt_py_domain_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&domain_spec);
}
