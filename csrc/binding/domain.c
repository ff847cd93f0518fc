/* domain.c -- the type behind pyruntime.qsbr.Domain, and its life: made, found as the default one, closed, dropped.
 *
 * What is here and in domain_calls.c takes plain numbers and answers plain values; pyruntime/qsbr.py checks the arguments
 * that need words, and names what comes back.
 */
#include "binding/domain.h"

#include "binding/callables.h"
#include "binding/domain_calls.h"
#include "binding/gil.h"
#include "binding/heaps.h"
#include "binding/uses.h"

#include "platform/futex.h"
#include "platform/report.h"

#include <string.h>
#include <time.h>

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

static void
unlink_domain(pyrt_py_domain *domain)
{
    pyrt_raw_mutex_lock(&domain->home->lock);
    for (pyrt_py_domain **link = &domain->home->domains; *link != NULL; link = &(*link)->next) {
        if (*link == domain) {
            *link = domain->next;
            break;
        }
    }
    pyrt_raw_mutex_unlock(&domain->home->lock);
}

static bool
is_linked(pyrt_py_domain *domain)
{
    pyrt_raw_mutex_lock(&domain->home->lock);
    const pyrt_py_domain *other = domain->home->domains;
    while (other != NULL && other != domain) {
        other = other->next;
    }
    pyrt_raw_mutex_unlock(&domain->home->lock);
    return other != NULL;
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

/* ---- end --------------------------------------------------------------------------------------------------------- */

/* How long an end waits for who only looks: a heap.stats() or a barrier of all that goes over the interpreters on another
 * thread, which may have to wait for the GIL with its pin. What keeps an interpreter for good keeps it longer. */
enum { PATIENCE_NS = 500000000, LOOK_AGAIN_NS = 100000 };

/* Lets the others go on for a moment; false when it has been long enough. */
static bool
be_patient(int64_t end)
{
    if (pyrt_now_ns() >= end) {
        return false;
    }
    PyThreadState *outer = pyrt_py_enter();
    void *saved = pyrt_block_before();
    nanosleep(&(struct timespec){.tv_nsec = LOOK_AGAIN_NS}, NULL);
    pyrt_block_after(saved);
    pyrt_py_leave(outer);
    return true;
}

/* The caller has closed the domain. Forgotten first: what comes to be at its address must not be taken for it. */
static pyrt_status
delete_interp(pyrt_py_domain *domain)
{
    pyrt_interp *interp = domain->interp;
    pyrt_store_relaxed(&domain->interp, (pyrt_interp *)NULL);
    PyThreadState *outer = pyrt_py_enter();
    pyrt_status status = pyrt_interp_delete(interp);
    pyrt_py_leave(outer);
    if (status != PYRT_OK) {
        pyrt_store_relaxed(&domain->interp, interp);
    }
    return status;
}

enum { NAMED_AT_MOST = 8 };

/* Appends to the text, which it takes; answers the longer one. NULL stands for an exception. */
static PyObject *
append_thread(PyObject *text, const pyrt_thread_info *info, const char *before, const char *after)
{
    if (text == NULL) {
        return NULL;
    }
    /* Names are cut, perhaps in the middle of a character. */
    PyObject *name = PyUnicode_DecodeUTF8(info->name, (Py_ssize_t)strlen(info->name), "replace");
    PyObject *longer = name == NULL ? NULL : PyUnicode_FromFormat("%U%s'%U'%s", text, before, name, after);
    Py_XDECREF(name);
    Py_DECREF(text);
    return longer;
}

/* "thread 'x' is", "threads 'x', 'y' (this one) are": who has states in the interp. NULL with an exception. */
static PyObject *
who_is_inside(pyrt_interp *interp)
{
    pyrt_thread_info infos[NAMED_AT_MOST];
    size_t count = pyrt_thread_list(interp, infos, NAMED_AT_MOST);
    if (count == 0) {
        return PyUnicode_FromString("a call that has just returned was");
    }
    const pyrt_thread *mine = pyrt_thread_find(interp);
    PyObject *text = PyUnicode_FromString(count == 1 ? "thread " : "threads ");
    for (size_t i = 0; i < count && i < NAMED_AT_MOST; i++) {
        bool is_mine = mine != NULL && mine->id == infos[i].id;
        text = append_thread(text, &infos[i], i == 0 ? "" : ", ", is_mine ? " (this one)" : "");
    }
    if (text == NULL) {
        return NULL;
    }
    PyObject *whole = count > NAMED_AT_MOST ? PyUnicode_FromFormat("%U, and %zu more are", text, count - NAMED_AT_MOST)
                                            : PyUnicode_FromFormat("%U %s", text, count == 1 ? "is" : "are");
    Py_DECREF(text);
    return whole;
}

/* Sets the exception for a domain that is in use. */
static void
raise_busy(pyrt_py_domain *domain, bool has_users)
{
    PyObject *who = has_users ? who_is_inside(domain->interp) : NULL;
    if (who != NULL) {
        pyrt_py_raise(PYRT_EBUSY, "domain '%S' cannot be closed: %U inside of it", domain->name, who);
        Py_DECREF(who);
    }
    else if (!has_users) {
        pyrt_py_raise(PYRT_EBUSY,
                      "domain '%S' cannot be closed: an extension keeps it by a thread state or a pin, or its disposers go "
                      "on retiring",
                      domain->name);
    }
}

/* Disposes of what is retired in it. Between two attempts the domain is as open as before, so that nobody takes it for closed
 * that then stays; what another thread has closed, or is closing, is closed for good once it is not linked any more. False
 * with an exception. */
static bool
close_domain(pyrt_py_domain *domain)
{
    if (domain->is_default) {
        pyrt_py_raise(PYRT_ESTATE, "the default domain cannot be closed: it ends with its Python interpreter");
        return false;
    }
    int64_t end = pyrt_deadline_after(PATIENCE_NS);
    do {
        uint32_t users = 0;
        if (pyrt_cas_seq_cst(&domain->users, &users, PYRT_PY_DOMAIN_CLOSED)) {
            if (delete_interp(domain) == PYRT_OK) {
                unlink_domain(domain);
                return true;
            }
            pyrt_fetch_and_seq_cst(&domain->users, ~PYRT_PY_DOMAIN_CLOSED);
        }
        else if (pyrt_py_use_try(domain)) {
            /* Named are the others; a use of our own keeps what is looked at. */
            raise_busy(domain, true);
            pyrt_py_use_end(domain);
            return false;
        }
        else if (!is_linked(domain)) {
            return true;
        }
    } while (be_patient(end));
    raise_busy(domain, false);
    return false;
}

/* Takes close_default back. */
static void
reopen_default(pyrt_py_home *home, pyrt_interp *interp)
{
    pyrt_raw_mutex_lock(&home->lock);
    home->interp = interp;
    for (pyrt_py_domain *domain = home->domains; domain != NULL; domain = domain->next) {
        if (domain->is_default) {
            pyrt_fetch_and_seq_cst(&domain->users, ~PYRT_PY_DOMAIN_CLOSED);
        }
    }
    pyrt_raw_mutex_unlock(&home->lock);
}

/* Closes the objects that stand for the default domain, so that no more come to be, and takes the interp; NULL if it is gone, or
 * somebody uses it. */
static pyrt_interp *
close_default(pyrt_py_home *home)
{
    uint32_t users = 0;
    pyrt_raw_mutex_lock(&home->lock);
    for (pyrt_py_domain *domain = home->domains; domain != NULL; domain = domain->next) {
        if (domain->is_default) {
            users += pyrt_fetch_or_seq_cst(&domain->users, PYRT_PY_DOMAIN_CLOSED) & ~PYRT_PY_DOMAIN_CLOSED;
        }
    }
    pyrt_interp *interp = home->interp;
    home->interp = NULL;
    pyrt_raw_mutex_unlock(&home->lock);
    if (users != 0) {
        reopen_default(home, interp);
        return NULL;
    }
    return interp;
}

/* The type of boxes, of which there are none, is to go with it. */
static pyrt_status
delete_default(pyrt_py_home *home, pyrt_interp *interp)
{
    pyrt_type *type = pyrt_exchange_seq_cst(&home->box_type, (pyrt_type *)NULL);
    if (type != NULL) {
        pyrt_decref((pyrt_object *)type);
    }
    return pyrt_interp_delete(interp);
}

void
pyrt_py_domain_end_default(pyrt_py_home *home)
{
    pyrt_interp *interp = close_default(home);
    if (interp == NULL) {
        return;
    }
    bool goes = !pyrt_py_heaps_in_use(home) && pyrt_load_relaxed(&home->boxes) == 0;
    int64_t end = pyrt_deadline_after(PATIENCE_NS);
    PyThreadState *outer = pyrt_py_enter();
    while (goes && delete_default(home, interp) != PYRT_OK) {
        goes = be_patient(end);
    }
    pyrt_py_leave(outer);
    home->leaving = goes ? NULL : interp;
}

void
pyrt_py_domain_end_left(pyrt_py_home *home)
{
    pyrt_interp *interp = home->leaving;
    home->leaving = NULL;
    if (interp != NULL && pyrt_load_relaxed(&home->boxes) != 0) {
        pyrt_store_relaxed(&home->box_type, (pyrt_type *)NULL);
        uint64_t left = pyrt_load_relaxed(&home->boxes);
        pyrt_report("domain '%s' stays in memory: %llu value%s outlived %s Python interpreter", pyrt_interp_name(interp),
                    (unsigned long long)left, left == 1 ? " of a SharedRef has" : "s of SharedRefs have",
                    left == 1 ? "its" : "their");
    }
    else if (interp != NULL && delete_default(home, interp) != PYRT_OK) {
        pyrt_report("domain '%s' stays in memory: an extension keeps it", pyrt_interp_name(interp));
    }
}

static void
domain_dealloc(PyObject *self)
{
    pyrt_py_domain *domain = pyrt_py_domain_of(self);
    PyTypeObject *type = Py_TYPE(self);
    unlink_domain(domain);
    bool is_open = !pyrt_py_domain_is_closed(domain);
    if (is_open && !domain->is_default && delete_interp(domain) != PYRT_OK) {
        pyrt_report("domain %lld was dropped without close() while an extension keeps it; it stays in memory",
                    (long long)domain->interp_id);
    }
    Py_XDECREF(domain->name);
    pyrt_py_home_drop(domain->home);
    freefunc free_object = PyType_GetSlot(type, Py_tp_free);
    free_object(self);
    Py_DECREF((PyObject *)type);
}

PyDoc_STRVAR(close_doc,
             "close($self, /)\n--\n\n"
             "Ends the domain; what is retired in it is disposed of. A second close does nothing.\n\n"
             "Raises BusyError while a thread is inside, and where an extension keeps the domain for more than half a\n"
             "second, which is waited for; StateError for the default domain.");

static PyObject *
domain_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (!close_domain(pyrt_py_domain_of(self))) {
        return NULL;
    }
    pyrt_py_run_if_outside(pyrt_py_domain_of(self)->home);
    Py_RETURN_NONE;
}

/* ---- the type ---------------------------------------------------------------------------------------------------- */

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
    {"close", domain_close, METH_NOARGS, close_doc},
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
