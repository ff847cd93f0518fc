/* section.c -- blocks: entered and left by one OS thread, any number of times, each leave for an enter.
 *
 * `owner` is the OS thread that is inside, by its id, and 0 while nobody is. Only the owner touches `number`, so that a
 * block which two threads share by mistake is refused and not broken. Whether it is open, and how often, is in the words of
 * the owner (blocks.h) and not here: so a section may be collected while it is open.
 */
#include "binding/section.h"

#include "binding/callables.h"
#include "binding/gil.h"
#include "binding/left_behind.h"
#include "binding/uses.h"

typedef struct pyrt_py_section {
    PyObject_HEAD
    pyrt_py_domain *domain; /* a strong reference */
    pyrt_py_section_kind kind;
    uint64_t owner;         /* atomic */
    uint64_t number;        /* of its blocks on the owner */
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

/* Makes the calling OS thread, which has a state by now, the owner, and the newest block one of this section. */
static bool
claim(pyrt_py_section *section)
{
    pyrt_py_words *words = pyrt_py_my_words();
    uint64_t owner = 0;
    uint64_t me = pyrt_tls()->os_id;
    bool is_new = pyrt_cas_acquire(&section->owner, &owner, me);
    if (!is_new && owner != me) {
        return false;
    }
    /* What a callable leaves open is closed without the section. */
    if (is_new || pyrt_py_block_find(words, section->number) == PYRT_PY_NOT_OPEN) {
        section->number = ++words->numbers;
    }
    words->blocks[words->block_count - 1] = section->number;
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
    pyrt_thread *thread = use->thread;
    if (!claim(section)) {
        pyrt_py_use_leave();
        return refuse(section, "another thread is inside; call reading() or attached() anew for each thread");
    }
    if (section->kind == PYRT_PY_READING) {
        pyrt_read_begin_counted(thread);
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
    switch (pyrt_py_block_find(pyrt_py_my_words(), section->number)) {
    case PYRT_PY_NOT_OPEN:
        return "it is not open any more: a retired callable had entered it, and left it open when it returned";
    case PYRT_PY_PUT_ASIDE:
        return "it was entered outside of the retired callable that runs now, and cannot be left in there";
    case PYRT_PY_BURIED:
        return "another block was entered after it on this thread and is still open; leave that one first. "
               "(An await or yield inside a block lets others come in between: do neither)";
    case PYRT_PY_NEWEST:
        break;
    }
    return pyrt_py_why_not_leave();
}

static PyObject *
section_exit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)args;
    (void)count;
    pyrt_py_section *section = (pyrt_py_section *)self;
    pyrt_py_leave_what_is_left_behind();
    const char *reason = why_not_leave(section);
    if (reason != NULL) {
        return refuse(section, reason);
    }
    if (section->kind == PYRT_PY_READING) {
        pyrt_read_end_counted(pyrt_py_innermost_use()->thread);
    }
    pyrt_py_home *home = section->domain->home;
    uint64_t number = section->number;
    pyrt_py_use_leave();
    if (pyrt_py_block_find(pyrt_py_my_words(), number) == PYRT_PY_NOT_OPEN) {
        /* release: pairs with the swap of the next owner. */
        pyrt_store_release(&section->owner, (uint64_t)0);
    }
    if (pyrt_py_innermost_use() == NULL) {
        pyrt_py_run_if_any(home);
    }
    Py_RETURN_NONE;
}

/* ---- the type ---------------------------------------------------------------------------------------------------- */

static void
warn_of_collection(const pyrt_py_section *section, const char *what)
{
    pyrt_py_warn_of_collection((PyObject *)section->domain,
                               "%s block of domain '%S' was entered, never left, and is collected: %s", name_of(section),
                               section->domain->name, what);
}

/* Nobody can leave it any more. */
static void
collect_open(const pyrt_py_section *section)
{
    uint64_t owner = pyrt_load_relaxed(&section->owner);
    bool is_reading = section->kind == PYRT_PY_READING;
    if (owner != pyrt_tls()->os_id) {
        static const char *const what[] = {
            [PYRT_PY_NOTED] = "the thread that entered it is another one than this, and leaves it when it next enters or "
                              "leaves a block or calls a domain, or when it ends",
            [PYRT_PY_NOTE_NO_MEMORY] =
                "the thread that entered it is another one than this, and for want of memory it stays "
                "inside until it ends",
            [PYRT_PY_NOTE_ENDED] = "the thread that entered it has ended, which has left it",
        };
        warn_of_collection(section, what[pyrt_py_left_behind_note(owner, section->number, is_reading)]);
    }
    else if (pyrt_py_use_collect(section->number, is_reading)) {
        warn_of_collection(section, "it is left now");
    }
}

static void
section_dealloc(PyObject *self)
{
    pyrt_py_section *section = (pyrt_py_section *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (pyrt_unlikely(pyrt_load_relaxed(&section->owner) != 0)) {
        collect_open(section);
    }
    Py_DECREF((PyObject *)section->domain);
    freefunc free_object = PyType_GetSlot(type, Py_tp_free);
    free_object(self);
    Py_DECREF(type);
}

static bool
is_open(const pyrt_py_section *section)
{
    uint64_t owner = pyrt_load_relaxed(&section->owner);
    return owner != 0 &&
           (owner != pyrt_tls()->os_id || pyrt_py_block_find(pyrt_py_my_words(), section->number) != PYRT_PY_NOT_OPEN);
}

static PyObject *
section_repr(PyObject *self)
{
    pyrt_py_section *section = (pyrt_py_section *)self;
    const char *state = is_open(section) ? "open" : "not open";
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
             "For a with statement. It belongs to the thread, not to a task or generator. A thread may enter it again\n"
             "while it is inside. Blocks are left in the reverse order of entering, by the thread that entered them:\n"
             "anything else raises StateError, and the block stays open.\n\n"
             "One that is collected while it is open gives a ResourceWarning. On the thread that is inside it is left\n"
             "by that. On another one it cannot be: the thread that is inside leaves it when it next enters or leaves a\n"
             "block or calls a domain, or when it ends.");

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
    PyTypeObject *type = (PyTypeObject *)pyrt_py_published(&domain->home->section_type);
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
    section->owner = 0;
    section->number = 0;
    return (PyObject *)section;
}
