/* sync_section.c -- pyruntime.sync.CriticalSection: one or two objects that no other thread is working on.
 *
 * Any Python object will do: what is locked is a stripe of a table of the process, chosen by the object's address. Two objects
 * may share one, which costs a wait and nothing else, because sections cannot deadlock over anything (critical_section.h). For
 * that the thread must be attached, so a section is a block of its own, of the domain that the thread is inside of or else of
 * the default one. The core's section lies in it: one that is collected while it is open is ended by that, on its own thread; on
 * another one it cannot be, and the memory stays until the process ends. A thread that ends inside gives up what it holds: a
 * stripe that stayed locked would be that of other objects, too.
 *
 * The wait of the core ends for nothing but the lock. So who finds a stripe locked first waits in a way that a signal can end,
 * with nothing taken, and begins the section after that.
 *
 * `owner` is the OS thread that is inside, by its id, and 0 while nobody is; the fields behind it are its own.
 */
#include "binding/callables.h"
#include "binding/gil.h"
#include "binding/sync.h"
#include "binding/sync_wait.h"

#include "platform/os_thread.h"
#include "state/thread_impl.h"

#include <pyruntime/critical_section.h>

#include <structmember.h>

static const char WHAT[] = "CriticalSection";

/* Found by pyrt_parking_index, which is as good a hash as any. */
static pyrt_mutex stripes[PYRT_PARKING_CELLS];

typedef struct pyrt_py_open_section {
    PyObject_HEAD
    PyObject *weakrefs;
    PyObject *first, *second; /* second: NULL if there is one only */
    pyrt_py_home *home;       /* held */
    uint64_t owner;           /* atomic */
    uint64_t number;          /* of its block on the owner */
    struct pyrt_py_open_section *outer; /* that is open on the owner, entered before */
    bool has_two;             /* stripes, so that `core` is one of two */
    pyrt_critical_section2 core;
} section;

static section *
section_of(PyObject *self)
{
    return (section *)self;
}

static pyrt_mutex *
stripe_of(const PyObject *object)
{
    return &stripes[pyrt_parking_index(object)];
}

void
pyrt_py_sections_fork_child(void)
{
    for (size_t i = 0; i < PYRT_PARKING_CELLS; i++) {
        if (pyrt_mutex_is_locked(&stripes[i]) && !pyrt_critical_section_holds(&stripes[i])) {
            pyrt_mutex_at_fork_reinit(&stripes[i]);
        }
    }
}

/* ---- entering -------------------------------------------------------------------------------------------------------- */

/* Until it is unlocked, for a moment at least. */
static pyrt_status
attempt(void *mutex, int64_t timeout_ns, unsigned flags)
{
    pyrt_status status = pyrt_mutex_lock_timed(mutex, timeout_ns, flags);
    if (status == PYRT_OK) {
        pyrt_mutex_unlock(mutex);
    }
    return status;
}

/* False with an exception. Inside of a pause of its own the section itself waits for nobody. */
static bool
wait_until_free(const PyObject *object)
{
    pyrt_mutex *stripe = stripe_of(object);
    if (pyrt_likely(!pyrt_mutex_is_locked(stripe)) || pyrt_tls()->pause != NULL || pyrt_critical_section_holds(stripe)) {
        return true;
    }
    return pyrt_py_wait(&(pyrt_py_waiting){WHAT, attempt, stripe, NULL}, -1) == PYRT_PY_DONE;
}

static void
begin(section *self)
{
    pyrt_mutex *first = stripe_of(self->first);
    pyrt_mutex *second = self->second == NULL ? first : stripe_of(self->second);
    self->has_two = first != second;
    PyThreadState *outer = pyrt_py_enter();
    if (self->has_two) {
        pyrt_critical_section2_begin(&self->core, first, second);
    }
    else {
        pyrt_critical_section_begin(&self->core.base, first);
    }
    pyrt_py_leave(outer);
}

/* The domain whose state is attached meanwhile; borrowed, NULL with an exception. */
static pyrt_py_domain *
domain_to_enter(const section *self)
{
    const pyrt_py_use *use = pyrt_py_innermost_use();
    return use != NULL ? use->domain : pyrt_py_domain_default(self->home);
}

static PyObject *
section_enter(PyObject *object, PyObject *unused)
{
    (void)unused;
    section *self = section_of(object);
    uint64_t nobody = 0;
    pyrt_py_domain *domain = pyrt_py_refuse_waiting(WHAT) ? NULL : domain_to_enter(self);
    if (domain == NULL || pyrt_py_use_enter(domain, WHAT) == NULL) {
        return NULL;
    }
    if (!pyrt_cas_acquire(&self->owner, &nobody, pyrt_tls()->os_id)) {
        pyrt_py_use_leave();
        return pyrt_py_raise(PYRT_ESTATE, "this CriticalSection is open already, %s; make a new one for each block",
                             nobody == pyrt_tls()->os_id ? "on this thread" : "on another thread");
    }
    pyrt_py_words *words = pyrt_py_my_words();
    self->number = ++words->numbers;
    words->blocks[words->block_count - 1] = self->number;
    if (!wait_until_free(self->first) || (self->second != NULL && !wait_until_free(self->second))) {
        pyrt_store_release(&self->owner, (uint64_t)0);
        pyrt_py_use_leave();
        return NULL;
    }
    /* Before it begins: the exit of Python may end the thread in there. */
    self->outer = words->sections;
    words->sections = self;
    begin(self);
    return Py_NewRef(object);
}

/* ---- leaving --------------------------------------------------------------------------------------------------------- */

static const char *
why_not_leave(const section *self)
{
    uint64_t owner = pyrt_load_relaxed(&self->owner);
    if (owner == 0) {
        return "it is not open: it was never entered, or was left already";
    }
    if (owner != pyrt_tls()->os_id) {
        return "it was entered on another thread, and can be left on that thread only; there it is still open";
    }
    if (pyrt_py_block_find(pyrt_py_my_words(), self->number) != PYRT_PY_NEWEST) {
        return "another block was entered after it on this thread and is still open; leave that one first";
    }
    return pyrt_py_why_not_leave();
}

/* Its block is the caller's to close. */
static void
end(section *self)
{
    section **link = &pyrt_py_my_words()->sections;
    while (*link != self) {
        link = &(*link)->outer;
    }
    *link = self->outer;
    PyThreadState *outer = pyrt_py_enter();
    if (self->has_two) {
        pyrt_critical_section2_end(&self->core);
    }
    else {
        pyrt_critical_section_end(&self->core.base);
    }
    pyrt_py_leave(outer);
    /* release: pairs with the swap of the next owner. */
    pyrt_store_release(&self->owner, (uint64_t)0);
}

static PyObject *
section_exit(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    (void)args;
    (void)count;
    section *self = section_of(object);
    const char *reason = why_not_leave(self);
    if (reason != NULL) {
        return pyrt_py_raise(PYRT_ESTATE, "%s: %s", WHAT, reason);
    }
    end(self);
    pyrt_py_home *home = self->home;
    pyrt_py_use_leave();
    if (pyrt_py_innermost_use() == NULL) {
        pyrt_py_run_if_any(home);
    }
    Py_RETURN_NONE;
}

/* ---- ends ------------------------------------------------------------------------------------------------------------ */

static bool
is_open_here(const pyrt_critical_section *core)
{
    const section *found = pyrt_py_my_words()->sections;
    while (found != NULL && &found->core.base != core) {
        found = found->outer;
    }
    return found != NULL;
}

/* Where the exit of Python has ended the thread, nothing is wrong with the program, and the core has nothing to say. */
static void
forget_at_exit(void)
{
    const section *newest = pyrt_py_my_words()->sections;
    if (newest == NULL || pyrt_load_acquire(&newest->home->open) != 0) {
        return;
    }
    for (pyrt_thread_impl *state = pyrt_tls()->states; state != NULL; state = state->next_of_os_thread) {
        uintptr_t tagged = state->base.critical_sections;
        const pyrt_critical_section *core = (pyrt_critical_section *)(tagged & ~(uintptr_t)PYRT_SECTION_TAGS);
        /* An active one would be that of C code, whose mutex stays locked. */
        if ((tagged & PYRT_SECTION_SUSPENDED) != 0 && is_open_here(core)) {
            state->base.critical_sections = 0;
        }
    }
}

void
pyrt_py_sections_end_of_thread(void)
{
    pyrt_thread *thread = pyrt_thread_current();
    uintptr_t tagged = thread == NULL ? 0 : thread->critical_sections;
    bool all_here = thread != NULL;
    /* Not those of C code, which lay on a stack that is gone. */
    while (all_here && tagged != 0 && (tagged & PYRT_SECTION_SUSPENDED) == 0) {
        const pyrt_critical_section *core = (pyrt_critical_section *)(tagged & ~(uintptr_t)PYRT_SECTION_TAGS);
        all_here = is_open_here(core);
        tagged = all_here ? core->previous : 0;
    }
    if (all_here) {
        pyrt_critical_sections_suspend(thread);
    }
    forget_at_exit();
    /* Nothing looks into them any more: they may be entered again, and collected. */
    for (section *next, *self = pyrt_py_my_words()->sections; self != NULL; self = next) {
        next = self->outer;
        pyrt_store_release(&self->owner, (uint64_t)0);
    }
    pyrt_py_my_words()->sections = NULL;
}

/* False: it stays open. */
static bool
leave_collected(section *self)
{
    bool mine = pyrt_load_relaxed(&self->owner) == pyrt_tls()->os_id;
    if (mine) {
        end(self);
        (void)pyrt_py_use_collect(self->number, false);
    }
    pyrt_py_warn_of_collection(Py_None, "a CriticalSection was entered, never left, and is collected: %s",
                               mine ? "it is left now"
                                    : "the thread that entered it is another one than this, and stays inside until it ends");
    return mine;
}

/* ---- the type -------------------------------------------------------------------------------------------------------- */

static PyObject *
section_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    pyrt_py_home *home = pyrt_py_home_get();
    if (home == NULL) {
        return NULL;
    }
    Py_ssize_t count = PyTuple_Size(args);
    if (count < 1 || count > 2 || (kwargs != NULL && PyDict_Size(kwargs) != 0)) {
        return pyrt_py_raise(PYRT_PY_WRONG_TYPE, "CriticalSection() takes one object or two, not %zd", count);
    }
    allocfunc alloc = PyType_GetSlot(type, Py_tp_alloc);
    section *self = (section *)alloc(type, 0);
    if (self != NULL) {
        pyrt_py_home_hold(home);
        self->home = home;
        self->first = Py_NewRef(PyTuple_GetItem(args, 0));
        self->second = count == 2 ? Py_NewRef(PyTuple_GetItem(args, 1)) : NULL;
    }
    return (PyObject *)self;
}

static int
section_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(section_of(self)->first);
    Py_VISIT(section_of(self)->second);
    return 0;
}

/* Not `first`: it has one as long as it lives. */
static int
section_clear(PyObject *object)
{
    section *self = section_of(object);
    PyObject *first = self->first;
    self->first = Py_NewRef(Py_None);
    Py_CLEAR(self->second);
    Py_XDECREF(first);
    return 0;
}

static void
section_dealloc(PyObject *object)
{
    section *self = section_of(object);
    PyObject_GC_UnTrack(object);
    /* acquire: pairs with the release in pyrt_py_sections_end_of_thread, on a thread that has no GIL any more. */
    if (pyrt_unlikely(pyrt_load_acquire(&self->owner) != 0) && !leave_collected(self)) {
        pyrt_py_sync_clear_weakrefs(object, &self->weakrefs);
        return;
    }
    pyrt_py_home *home = self->home;
    Py_XDECREF(self->first);
    Py_XDECREF(self->second);
    pyrt_py_sync_free(object, &self->weakrefs);
    if (home != NULL) {
        pyrt_py_home_drop(home);
    }
}

static PyObject *
section_repr(PyObject *object)
{
    section *self = section_of(object);
    return PyUnicode_FromFormat("<pyruntime.CriticalSection of %d object%s, %s, at %p>", self->second == NULL ? 1 : 2,
                                self->second == NULL ? "" : "s", pyrt_load_relaxed(&self->owner) != 0 ? "open" : "not open",
                                (void *)self);
}

PyDoc_STRVAR(
    doc,
    "CriticalSection(*objects)\n--\n\n"
    "A block in which no other thread is in a block of this object, or of these two.\n\n"
    "For any Python objects, by identity, and for a with statement; make a new one for each block. Blocks may nest in\n"
    "any order, over the same objects too, and never deadlock: when the thread has to wait inside, for another block or\n"
    "on a lock of this module, or stands still for a pause, it gives up what it holds, and takes it again before it goes\n"
    "on. So only the newest block excludes the others for sure; what was read in an outer one has to be looked at again\n"
    "after a wait.\n\n"
    "    >>> from pyruntime.sync import CriticalSection\n"
    "    >>> source, target = [1, 2, 3], []\n"
    "    >>> with CriticalSection(source, target):\n"
    "    ...     target.append(source.pop())\n"
    "    >>> source, target\n"
    "    ([1, 2], [3])\n\n"
    "The thread is attached() meanwhile. It excludes those who use a CriticalSection too, not the methods of the objects.\n"
    "A thread that sleeps inside on anything that is not of pyruntime goes on holding them. Inside of this thread's\n"
    "stop_the_world() block it waits for nobody.\n\n"
    "Entering raises StateError inside a reading() block and where it is open already; leaving raises it on another\n"
    "thread and before a block that was entered later. Ctrl-C ends the wait. One that is collected while it is open gives\n"
    "a ResourceWarning, and is left by that on the thread that is inside. A thread that ends inside gives it up.\n\n"
    "After the critical sections of CPython's free-threaded build.");

static PyMethodDef methods[] = {
    {"__enter__", section_enter, METH_NOARGS, "__enter__($self, /)\n--\n\nBegins it; waits for its objects."},
    {"__exit__", PYRT_PY_METHOD(section_exit), METH_FASTCALL, "__exit__($self, /, *exc_info)\n--\n\nEnds it."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = PYRT_PY_WEAKREFS(section);

static PyType_Slot slots[] = {
    {Py_tp_new, section_new},     {Py_tp_dealloc, section_dealloc}, {Py_tp_traverse, section_traverse},
    {Py_tp_clear, section_clear}, {Py_tp_repr, section_repr},       {Py_tp_methods, methods},
    {Py_tp_members, members},     {Py_tp_doc, (void *)doc},         {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyruntime.sync.CriticalSection",
    .basicsize = sizeof(section),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

PyTypeObject *
pyrt_py_section_lock_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&spec);
}
