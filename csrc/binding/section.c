/* section.c -- blocks: entered and left by one OS thread, any number of times, each leave for an enter.
 *
 * `owner` is the OS thread that is inside, by its id, and 0 while nobody is. Only the owner touches the other fields, so
 * that a block which two threads share by mistake is refused and not broken.
 */
#include "binding/section.h"

#include "binding/callables.h"
#include "binding/gil.h"
#include "binding/uses.h"

typedef struct pyrt_py_section {
    PyObject_HEAD
    pyrt_py_domain *domain; /* a strong reference */
    pyrt_py_section_kind kind;
    uint32_t entries;
    uint64_t owner;         /* atomic */
    uint64_t serial;        /* of the use that it is open in */
} pyrt_py_section;

static const char *
name_of(const pyrt_py_section *section)
{
    return section->kind == PYRT_PY_READING ? "reading()" : "attached()";
}

static PyObject *
refuse(const pyrt_py_section *section, const char *reason)
{
    return pyrt_py_raise(PYRT_ESTATE, "%s block of domain '%S': %s", name_of(section), section->domain->name, reason);
}

/* ---- enter ------------------------------------------------------------------------------------------------------- */

/* Makes the calling OS thread, which has a state by now, the owner. */
static bool
claim(pyrt_py_section *section, const pyrt_py_use *use)
{
    uint64_t owner = 0;
    uint64_t me = pyrt_tls()->os_id;
    if (pyrt_cas_acquire(&section->owner, &owner, me)) {
        section->serial = use->serial;
        return true;
    }
    if (owner != me) {
        refuse(section, "another thread is inside; call reading() or attached() anew for each thread");
        return false;
    }
    if (section->serial != use->serial) {
        refuse(section, "it is open already, outside of a block of another domain; take a new one");
        return false;
    }
    return true;
}

static PyObject *
section_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    pyrt_py_section *section = (pyrt_py_section *)self;
    pyrt_py_use *use = pyrt_py_use_enter(section->domain, name_of(section));
    if (use == NULL) {
        return NULL;
    }
    if (!claim(section, use)) {
        pyrt_py_use_leave();
        return NULL;
    }
    section->entries++;
    if (section->kind == PYRT_PY_READING) {
        pyrt_read_begin_counted(use->thread);
    }
    Py_INCREF(self);
    return self;
}

/* ---- leave ------------------------------------------------------------------------------------------------------- */

/* Why it cannot be left here and now, or NULL. */
static const char *
why_not_leave(const pyrt_py_section *section)
{
    uint64_t owner = pyrt_load_relaxed(&section->owner);
    if (owner == 0) {
        return "it is not open: it was never entered, or was left already";
    }
    if (owner != pyrt_tls()->os_id) {
        return "it was entered on another thread, and can be left on that thread only; there it is still open";
    }
    const pyrt_py_use *use = pyrt_py_innermost_use();
    if (use == NULL || use->serial < section->serial) {
        return "it has been closed already, with the block around it";
    }
    if (use->serial > section->serial) {
        return "a block of another domain was entered after it and is still open; leave that one first";
    }
    if (pyrt_thread_current() != use->thread) {
        return "something else than a block has detached the state of this thread";
    }
    return NULL;
}

static PyObject *
section_exit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)args;
    (void)count;
    pyrt_py_section *section = (pyrt_py_section *)self;
    const char *reason = why_not_leave(section);
    if (reason != NULL) {
        return refuse(section, reason);
    }
    if (section->kind == PYRT_PY_READING) {
        pyrt_read_end_counted(pyrt_py_innermost_use()->thread);
    }
    pyrt_py_home *home = section->domain->home;
    section->entries--;
    if (section->entries == 0) {
        /* release: pairs with the swap of the next owner. */
        pyrt_store_release(&section->owner, (uint64_t)0);
    }
    pyrt_py_use_leave();
    if (pyrt_py_innermost_use() == NULL) {
        pyrt_py_run_if_any(home);
    }
    Py_RETURN_NONE;
}

/* ---- the type ---------------------------------------------------------------------------------------------------- */

static void
section_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_DECREF((PyObject *)((pyrt_py_section *)self)->domain);
    freefunc free_object = PyType_GetSlot(type, Py_tp_free);
    free_object(self);
    Py_DECREF(type);
}

static PyObject *
section_repr(PyObject *self)
{
    pyrt_py_section *section = (pyrt_py_section *)self;
    const char *state = pyrt_load_relaxed(&section->owner) != 0 ? "open" : "not open";
    return PyUnicode_FromFormat("<%s block of domain '%S', %s>", name_of(section), section->domain->name, state);
}

PyDoc_STRVAR(enter_doc, "__enter__($self, /)\n--\n\nGoes inside. Waits while the world is stopped.");
PyDoc_STRVAR(exit_doc, "__exit__($self, *exc_info)\n--\n\nGoes out again, on the thread that came in.");

static PyMethodDef section_methods[] = {
    {"__enter__", section_enter, METH_NOARGS, enter_doc},
    {"__exit__", PYRT_PY_METHOD(section_exit), METH_FASTCALL, exit_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(section_doc,
             "A block that a thread is inside of, made by Domain.reading() and Domain.attached().\n\n"
             "For a with statement. A thread may enter it again while it is inside. Leaving it raises StateError\n"
             "on another thread than the one that is inside, and before a block of another domain that was\n"
             "entered later; the block stays open then.");

static PyType_Slot section_slots[] = {
    {Py_tp_dealloc, section_dealloc},
    {Py_tp_repr, section_repr},
    {Py_tp_methods, section_methods},
    {Py_tp_doc, (void *)section_doc},
    {0, NULL},
};

static PyType_Spec section_spec = {
    .name = "pyruntime.state.Section",
    .basicsize = sizeof(pyrt_py_section),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = section_slots,
};

PyTypeObject *
pyrt_py_section_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&section_spec);
}

PyObject *
pyrt_py_section_new(pyrt_py_domain *domain, pyrt_py_section_kind kind)
{
    PyTypeObject *type = domain->home->section_type;
    if (type == NULL) {
        return pyrt_py_raise(PYRT_ESTATE, "the Python interpreter of domain '%S' is gone", domain->name);
    }
    pyrt_py_section *section = PyObject_New(pyrt_py_section, type);
    if (section == NULL) {
        return NULL;
    }
    Py_INCREF((PyObject *)domain);
    section->domain = domain;
    section->kind = kind;
    section->entries = 0;
    section->owner = 0;
    section->serial = 0;
    return (PyObject *)section;
}
