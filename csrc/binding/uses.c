/* uses.c -- entering and leaving domains on one OS thread. */
#include "binding/uses.h"

#include "binding/callables.h"
#include "binding/gil.h"

#include "platform/os_thread.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static pthread_key_t end_of_thread;

/* ---- the name and the kept state of an OS thread ------------------------------------------------------------------ */

/* Python's name for this thread, without making one up: threading.current_thread() would add a thread that nobody removes.
 * Any failure means: no name. Where the module is not loaded there are no other threads of Python's to be told apart. */
static void
find_name(char name[PYRT_PY_NAME])
{
    if (pyrt_os_thread_tid() == getpid()) {
        PyOS_snprintf(name, PYRT_PY_NAME, "MainThread");
    }
    PyObject *module_name = PyUnicode_FromString("threading");
    PyObject *module = module_name == NULL ? NULL : PyImport_GetModule(module_name);
    PyObject *threads = module == NULL ? NULL : PyObject_GetAttrString(module, "_active");
    PyObject *key = PyLong_FromUnsignedLong(PyThread_get_thread_ident());
    PyObject *found = NULL;
    if (threads != NULL && key != NULL && PyDict_Check(threads)) {
        PyObject *thread = PyDict_GetItemWithError(threads, key);
        found = thread == NULL ? NULL : PyObject_GetAttrString(thread, "name");
    }
    Py_ssize_t length = 0;
    const char *text = found != NULL && PyUnicode_Check(found) ? PyUnicode_AsUTF8AndSize(found, &length) : NULL;
    if (text != NULL) {
        PyOS_snprintf(name, PYRT_PY_NAME, "%s", text);
    }
    PyErr_Clear();
    Py_XDECREF(module_name);
    Py_XDECREF(module);
    Py_XDECREF(threads);
    Py_XDECREF(key);
    Py_XDECREF(found);
}

/* For a state that has just been made here. */
static void
introduce(pyrt_thread *thread)
{
    pyrt_py_words *words = pyrt_py_my_words();
    if (words->name[0] == '\0') {
        find_name(words->name);
    }
    if (words->name[0] != '\0') {
        pyrt_thread_set_name(thread, words->name);
    }
}

/* Whether the kept state is still the one that was kept: its memory stays the interpreter's, so that looking is safe. */
static bool
is_kept(const pyrt_py_words *words)
{
    return words->kept != NULL && words->kept->id == words->kept_id &&
           pyrt_load_relaxed(&words->kept->slot.word) != PYRT_STATE_SHUTTING_DOWN;
}

static pyrt_thread *
keep_state(pyrt_interp *interp)
{
    pyrt_py_words *words = pyrt_py_my_words();
    if (pyrt_likely(is_kept(words))) {
        return words->kept;
    }
    pyrt_thread *thread = pyrt_thread_find(interp);
    if (thread == NULL) {
        PyThreadState *outer = pyrt_py_enter();
        thread = pyrt_thread_new(interp);
        pyrt_py_leave(outer);
        if (thread == NULL) {
            return NULL;
        }
        introduce(thread);
    }
    words->kept = thread;
    words->kept_id = thread->id;
    return thread;
}

/* ---- refusals ---------------------------------------------------------------------------------------------------- */

static bool
is_reading(void)
{
    pyrt_thread *current = pyrt_thread_current();
    return current != NULL && current->slot.read_depth != 0;
}

bool
pyrt_py_refuse_reading(const char *what)
{
    if (pyrt_likely(!is_reading())) {
        return false;
    }
    pyrt_py_raise(
        PYRT_ESTATE,
        "%s inside a reading() block of domain '%s' would end that block, or wait for itself: leave the block first", what,
        pyrt_interp_name(pyrt_thread_current()->interp));
    return true;
}

bool
pyrt_py_use_begin(pyrt_py_domain *domain, const char *what)
{
    if (domain->is_kept) {
        return true;
    }
    /* Counted, then looked at `closed`; pairs with "closed, then look at the count" of close_domain. */
    pyrt_fetch_add_seq_cst(&domain->users, 1u);
    if (pyrt_likely(pyrt_load_seq_cst(&domain->closed) == 0)) {
        return true;
    }
    pyrt_fetch_add_seq_cst(&domain->users, (uint32_t)-1);
    pyrt_py_raise_closed(domain, what);
    return false;
}

void
pyrt_py_use_end(pyrt_py_domain *domain)
{
    if (!domain->is_kept) {
        pyrt_fetch_add_seq_cst(&domain->users, (uint32_t)-1);
    }
}

/* An attached state of the domain, made if need be; NULL with an exception. The caller has begun the use. */
static pyrt_thread *
ensure_state(pyrt_py_domain *domain)
{
    bool made = pyrt_thread_find(domain->interp) == NULL;
    PyThreadState *outer = pyrt_py_enter();
    pyrt_thread *thread = pyrt_thread_ensure(domain->interp);
    pyrt_py_leave(outer);
    if (thread == NULL) {
        pyrt_py_raise(PYRT_ENOMEM, "no memory for a thread state in domain '%S'", domain->name);
    }
    else if (made) {
        introduce(thread);
    }
    return thread;
}

static void
release_state(pyrt_thread *thread)
{
    PyThreadState *outer = pyrt_py_enter();
    pyrt_thread_release(thread);
    pyrt_py_leave(outer);
}

/* ---- leases ------------------------------------------------------------------------------------------------------ */

/* The state that a lease is about; NULL with an exception. The caller has begun the use. */
static pyrt_thread *
state_for_call(pyrt_py_domain *domain, const char *what, bool *ensured)
{
    pyrt_thread *current = pyrt_thread_current();
    *ensured = false;
    if (current != NULL && current->interp == domain->interp) {
        return current;
    }
    if (domain->is_kept) {
        pyrt_thread *kept = keep_state(domain->interp);
        if (kept == NULL) {
            pyrt_py_raise(PYRT_ENOMEM, "no memory for a state of this thread");
        }
        return kept;
    }
    if (pyrt_py_refuse_reading(what)) {
        return NULL;
    }
    *ensured = true;
    return ensure_state(domain);
}

bool
pyrt_py_lease_begin(pyrt_py_domain *domain, const char *what, pyrt_py_lease *lease)
{
    if (!pyrt_py_use_begin(domain, what)) {
        return false;
    }
    bool ensured = false;
    pyrt_thread *thread = state_for_call(domain, what, &ensured);
    if (thread == NULL) {
        pyrt_py_use_end(domain);
        return false;
    }
    *lease = (pyrt_py_lease){pyrt_py_my_words()->leases, domain, thread, ensured};
    pyrt_py_my_words()->leases = lease;
    return true;
}

void
pyrt_py_lease_end(pyrt_py_lease *lease)
{
    if (lease->ensured) {
        release_state(lease->thread);
    }
    pyrt_py_my_words()->leases = lease->outer;
    pyrt_py_use_end(lease->domain);
}

/* ---- uses -------------------------------------------------------------------------------------------------------- */

static pyrt_py_use *
new_use(pyrt_py_words *words)
{
    if (!words->is_watched) {
        if (pthread_setspecific(end_of_thread, words) != 0) {
            return NULL;
        }
        words->is_watched = true;
    }
    return words->first.depth == 0 ? &words->first : malloc(sizeof(pyrt_py_use));
}

static void
free_use(pyrt_py_words *words, pyrt_py_use *use)
{
    if (use == &words->first) {
        use->depth = 0;
    }
    else {
        free(use);
    }
}

static bool
attach_in(pyrt_py_domain *domain, pyrt_py_use *use)
{
    use->ensured = !domain->is_kept || pyrt_thread_current() != NULL;
    if (use->ensured) {
        use->thread = ensure_state(domain);
        return use->thread != NULL;
    }
    use->thread = keep_state(domain->interp);
    if (use->thread == NULL) {
        pyrt_py_raise(PYRT_ENOMEM, "no memory for a state of this thread");
        return false;
    }
    PyThreadState *outer = pyrt_py_enter();
    pyrt_attach(use->thread);
    pyrt_py_leave(outer);
    return true;
}

/* The first block of a use. */
__attribute__((noinline)) static pyrt_py_use *
start_use(pyrt_py_domain *domain, const char *what)
{
    pyrt_py_words *words = pyrt_py_my_words();
    pyrt_thread *current = pyrt_thread_current();
    if (current != NULL && current->interp != domain->interp && pyrt_py_refuse_reading(what)) {
        return NULL;
    }
    if (!pyrt_py_use_begin(domain, what)) {
        return NULL;
    }
    pyrt_py_use *use = new_use(words);
    if (use == NULL) {
        pyrt_py_use_end(domain);
        pyrt_py_raise(PYRT_ENOMEM, "no memory to enter domain '%S'", domain->name);
        return NULL;
    }
    pyrt_py_use made = {.outer = words->top, .domain = domain, .serial = ++words->serials, .depth = 1};
    if (!attach_in(domain, &made)) {
        if (use != &words->first) {
            free(use);
        }
        pyrt_py_use_end(domain);
        return NULL;
    }
    *use = made;
    Py_INCREF((PyObject *)domain);
    words->top = use;
    return use;
}

pyrt_py_use *
pyrt_py_use_enter(pyrt_py_domain *domain, const char *what)
{
    pyrt_py_use *top = pyrt_py_innermost_use();
    if (top == NULL || top->thread->interp != domain->interp) {
        return start_use(domain, what);
    }
    if (pyrt_thread_current() != top->thread) {
        pyrt_py_raise(PYRT_ESTATE,
                      "%s: the thread is inside a block of domain '%S', but something has detached its state meanwhile",
                      what, domain->name);
        return NULL;
    }
    top->depth++;
    return top;
}

void
pyrt_py_use_leave(void)
{
    pyrt_py_words *words = pyrt_py_my_words();
    pyrt_py_use *use = words->top;
    if (use->depth > 1) {
        use->depth--;
        return;
    }
    words->top = use->outer;
    pyrt_py_domain *domain = use->domain;
    pyrt_thread *thread = use->thread;
    bool ensured = use->ensured;
    free_use(words, use);
    PyThreadState *outer = pyrt_py_enter();
    /* What is asked of the thread: a state that is never attached for long passes no other safepoint. */
    pyrt_safepoint(thread);
    if (ensured) {
        pyrt_thread_release(thread);
    }
    else {
        pyrt_detach(thread);
    }
    pyrt_py_leave(outer);
    pyrt_py_use_end(domain);
    Py_DECREF((PyObject *)domain);
}

/* ---- outside of everything, for a while -------------------------------------------------------------------------- */

pyrt_py_suspended
pyrt_py_suspend_uses(void)
{
    pyrt_py_words *words = pyrt_py_my_words();
    pyrt_py_suspended suspended = {words->floor, pyrt_thread_current()};
    words->floor = words->top;
    if (suspended.attached != NULL) {
        pyrt_detach(suspended.attached);
    }
    return suspended;
}

/* A callable has entered a block by hand and has not left it. */
static void
close_what_is_open(pyrt_py_words *words)
{
    pyrt_py_raise(PYRT_ESTATE, "a retired callable has left a block of domain '%S' open; it is closed now",
                  words->top->domain->name);
    PyErr_WriteUnraisable(NULL);
    while (words->top != words->floor) {
        pyrt_thread *thread = words->top->thread;
        while (pyrt_thread_current() == thread && thread->slot.read_depth != 0) {
            pyrt_read_end_counted(thread);
        }
        words->top->depth = 1;
        pyrt_py_use_leave();
    }
}

void
pyrt_py_resume_uses(pyrt_py_suspended suspended)
{
    pyrt_py_words *words = pyrt_py_my_words();
    if (words->top != words->floor) {
        close_what_is_open(words);
    }
    words->floor = suspended.floor;
    if (suspended.attached != NULL) {
        PyThreadState *outer = pyrt_py_enter();
        pyrt_attach(suspended.attached);
        pyrt_py_leave(outer);
    }
}

/* ---- ends -------------------------------------------------------------------------------------------------------- */

/* The OS thread ends inside of blocks: Python has ended it, or C code has. There is no Python here any more; the core ends
 * the states. */
static void
on_end_of_thread(void *arg)
{
    pyrt_py_words *words = arg;
    words->is_watched = false;
    words->floor = NULL;
    words->leases = NULL;
    while (words->top != NULL) {
        pyrt_py_use *use = words->top;
        words->top = use->outer;
        pyrt_py_domain *domain = use->domain;
        free_use(words, use);
        pyrt_py_use_end(domain);
        pyrt_py_release_later(domain->home, (PyObject *)domain);
    }
}

int
pyrt_py_uses_start(void)
{
    return pthread_key_create(&end_of_thread, on_end_of_thread);
}

void
pyrt_py_uses_fork_child(void)
{
    for (pyrt_py_home *home = pyrt_py_homes(); home != NULL; home = home->next) {
        home->lock = (pyrt_raw_mutex){0};
        for (pyrt_py_domain *domain = home->domains; domain != NULL; domain = domain->next) {
            domain->users = 0;
        }
    }
    for (pyrt_py_use *use = pyrt_py_my_words()->top; use != NULL; use = use->outer) {
        use->domain->users++;
    }
    for (pyrt_py_lease *lease = pyrt_py_my_words()->leases; lease != NULL; lease = lease->outer) {
        lease->domain->users++;
    }
}
