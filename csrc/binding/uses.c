/* uses.c -- entering and leaving a domain on one OS thread. */
#include "binding/uses.h"

#include "binding/callables.h"
#include "binding/endings.h"
#include "binding/gil.h"
#include "binding/left_behind.h"
#include "binding/pause.h"
#include "binding/states.h"
#include "binding/sync.h"

#include "platform/os_thread.h"

#include <pthread.h>
#include <stdlib.h>

static pthread_key_t end_of_thread;

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
    pyrt_py_leave_what_is_left_behind();
    if (!is_reading()) {
        return false;
    }
    pyrt_py_raise(
        PYRT_ESTATE,
        "%s inside a reading() block of domain '%s' would end that block, or wait for itself: leave the block first", what,
        pyrt_interp_name(pyrt_thread_current()->interp));
    return true;
}

bool
pyrt_py_use_try(pyrt_py_domain *domain)
{
    if (domain->is_kept) {
        return true;
    }
    /* Counts and looks at once; pairs with the swap of close_domain. */
    if (pyrt_likely((pyrt_fetch_add_seq_cst(&domain->users, 1u) & PYRT_PY_DOMAIN_CLOSED) == 0)) {
        return true;
    }
    pyrt_fetch_add_seq_cst(&domain->users, (uint32_t)-1);
    return false;
}

bool
pyrt_py_use_begin(pyrt_py_domain *domain, const char *what)
{
    if (pyrt_likely(pyrt_py_use_try(domain))) {
        return true;
    }
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

/* Ends the use when the last of its blocks was collected. Called where the thread's own words are whole. */
static void settle(void);

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
        return pyrt_py_state_keep(domain->interp);
    }
    if (pyrt_py_refuse_reading(what)) {
        return NULL;
    }
    *ensured = true;
    return pyrt_py_state_ensure(domain);
}

bool
pyrt_py_lease_try(pyrt_py_domain *domain, pyrt_py_lease *lease)
{
    if (!pyrt_py_use_try(domain)) {
        return false;
    }
    pyrt_py_words *words = pyrt_py_my_words();
    *lease = (pyrt_py_lease){words->leases, domain, words->top, NULL, false};
    words->leases = lease;
    return true;
}

bool
pyrt_py_lease_begin(pyrt_py_domain *domain, const char *what, pyrt_py_lease *lease)
{
    pyrt_py_state_prepare();
    pyrt_py_leave_what_is_left_behind();
    if (!pyrt_py_lease_try(domain, lease)) {
        pyrt_py_raise_closed(domain, what);
        return false;
    }
    lease->thread = state_for_call(domain, what, &lease->ensured);
    if (lease->thread == NULL) {
        lease->ensured = false;
        pyrt_py_lease_end(lease);
        return false;
    }
    return true;
}

void
pyrt_py_lease_end(pyrt_py_lease *lease)
{
    if (lease->ensured) {
        pyrt_py_state_release(lease->thread);
    }
    pyrt_py_my_words()->leases = lease->outer;
    pyrt_py_use_end(lease->domain);
    settle();
}

void
pyrt_py_lease_give(pyrt_py_lease *lease)
{
    pyrt_py_my_words()->leases = lease->outer;
    settle();
}

/* ---- entering ---------------------------------------------------------------------------------------------------- */

bool
pyrt_py_uses_watch_end(void)
{
    pyrt_py_words *words = pyrt_py_my_words();
    if (!words->is_watched && pyrt_os_thread_register() == PYRT_OK && pthread_setspecific(end_of_thread, words) == 0) {
        words->is_watched = true;
        pyrt_py_left_behind_begin(words);
    }
    return words->is_watched;
}

static pyrt_py_use *
new_use(pyrt_py_words *words)
{
    if (!pyrt_py_uses_watch_end()) {
        return NULL;
    }
    return words->first.domain == NULL ? &words->first : malloc(sizeof(pyrt_py_use));
}

static void
free_use(pyrt_py_words *words, pyrt_py_use *use)
{
    if (use == &words->first) {
        use->domain = NULL;
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
        use->thread = pyrt_py_state_ensure(domain);
        return use->thread != NULL;
    }
    use->thread = pyrt_py_state_keep(domain->interp);
    return use->thread != NULL && pyrt_py_state_attach(use->thread);
}

/* Does what is asked of the thread, too: a state that is never attached for long passes no other safepoint. */
static void
detach_from(const pyrt_py_use *use)
{
    PyThreadState *outer = pyrt_py_enter();
    pyrt_safepoint(use->thread);
    if (use->ensured) {
        pyrt_thread_release(use->thread);
    }
    else {
        pyrt_detach(use->thread);
    }
    pyrt_py_leave(outer);
}

/* For the first block. */
__attribute__((noinline)) static pyrt_py_use *
start_use(pyrt_py_domain *domain, const char *what)
{
    pyrt_py_words *words = pyrt_py_my_words();
    pyrt_thread *current = pyrt_thread_current();
    if (current != NULL && current->interp != pyrt_load_relaxed(&domain->interp) && pyrt_py_refuse_reading(what)) {
        return NULL;
    }
    pyrt_py_lease lease;
    if (!pyrt_py_lease_try(domain, &lease)) {
        pyrt_py_raise_closed(domain, what);
        return NULL;
    }
    /* First: while it waits for the end of a pause a signal handler may run, which may come in and go out again, and fork. */
    pyrt_py_use made = {.domain = domain};
    if (!attach_in(domain, &made)) {
        pyrt_py_lease_end(&lease);
        return NULL;
    }
    pyrt_py_lease_give(&lease);
    pyrt_py_use *use = new_use(words);
    if (use == NULL) {
        detach_from(&made);
        pyrt_py_use_end(domain);
        pyrt_py_raise(PYRT_ENOMEM, "no memory to enter domain '%S'", domain->name);
        return NULL;
    }
    made.outer = words->top;
    *use = made;
    Py_INCREF((PyObject *)domain);
    words->top = use;
    return use;
}

static void
refuse_second_domain(const pyrt_py_use *open, const pyrt_py_domain *domain, const char *what)
{
    pyrt_py_raise(PYRT_ESTATE,
                  "%s of domain '%S' inside %s block of domain '%S' would end the protection of that block: leave it first",
                  what, domain->name, open->thread->slot.read_depth != 0 ? "a reading()" : "an attached()",
                  open->domain->name);
}

pyrt_py_use *
pyrt_py_use_enter(pyrt_py_domain *domain, const char *what)
{
    pyrt_py_state_prepare();
    pyrt_py_leave_what_is_left_behind();
    pyrt_py_words *words = pyrt_py_my_words();
    pyrt_py_use *use = pyrt_py_innermost_use();
    if (use == NULL) {
        use = start_use(domain, what);
    }
    else if (use->thread->interp != pyrt_load_relaxed(&domain->interp)) {
        refuse_second_domain(use, domain, what);
        return NULL;
    }
    else if (pyrt_thread_current() != use->thread) {
        pyrt_py_raise(PYRT_ESTATE,
                      "%s: the thread is inside a block of domain '%S', but something has detached its state meanwhile",
                      what, domain->name);
        return NULL;
    }
    if (use == NULL) {
        return NULL;
    }
    if (pyrt_unlikely(!pyrt_py_blocks_reserve(words))) {
        settle();
        pyrt_py_raise(PYRT_ENOMEM, "no memory for one block more in domain '%S'", domain->name);
        return NULL;
    }
    words->blocks[words->block_count++] = PYRT_PY_BLOCK_NEW;
    return use;
}

/* ---- leaving ----------------------------------------------------------------------------------------------------- */

/* Whether a call that is under way counts on the use. */
static bool
is_leased(const pyrt_py_words *words, const pyrt_py_use *use)
{
    return words->leases != NULL && words->leases->inside == use;
}

static void
end_use(pyrt_py_words *words)
{
    pyrt_py_use *use = words->top;
    words->top = use->outer;
    pyrt_py_use ended = *use;
    free_use(words, use);
    detach_from(&ended);
    pyrt_py_use_end(ended.domain);
    Py_DECREF((PyObject *)ended.domain);
}

static void
settle(void)
{
    pyrt_py_words *words = pyrt_py_my_words();
    pyrt_py_use *use = pyrt_py_innermost_use();
    if (use == NULL) {
        return;
    }
    pyrt_py_blocks_settle(words);
    if (words->block_count == words->floor_count && !is_leased(words, use)) {
        end_use(words);
    }
}

const char *
pyrt_py_why_not_leave(void)
{
    const pyrt_py_words *words = pyrt_py_my_words();
    const pyrt_py_use *use = pyrt_py_innermost_use();
    if (pyrt_thread_current() != use->thread) {
        return "something else than a block has detached the state of this thread";
    }
    if (words->block_count - 1 == words->floor_count && is_leased(words, use)) {
        return "a call that this thread is in has to return first: it was made inside of the block";
    }
    return NULL;
}

void
pyrt_py_use_leave(void)
{
    pyrt_py_words *words = pyrt_py_my_words();
    words->block_count--;
    if (words->block_count == words->floor_count) {
        end_use(words);
    }
}

bool
pyrt_py_use_collect(uint64_t number, bool is_reading)
{
    pyrt_py_words *words = pyrt_py_my_words();
    const pyrt_py_use *use = pyrt_py_innermost_use();
    uint32_t count = pyrt_py_blocks_collect(words, number);
    /* A reading block is never put aside. */
    for (uint32_t i = 0; is_reading && i < count && use != NULL && pyrt_thread_current() == use->thread; i++) {
        pyrt_read_end_counted(use->thread);
    }
    settle();
    return count != 0;
}

void
pyrt_py_leave_what_is_left_behind(void)
{
    uint64_t number;
    bool is_reading;
    while (pyrt_py_is_any_left_behind() && pyrt_py_left_behind_take(&number, &is_reading)) {
        (void)pyrt_py_use_collect(number, is_reading);
    }
}

/* ---- outside of everything, for a while -------------------------------------------------------------------------- */

pyrt_py_suspended
pyrt_py_suspend_uses(void)
{
    pyrt_py_words *words = pyrt_py_my_words();
    pyrt_py_suspended suspended = {words->floor, words->floor_count, pyrt_thread_current()};
    words->floor = words->top;
    words->floor_count = words->block_count;
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
    pyrt_thread *thread = words->top->thread;
    while (pyrt_thread_current() == thread && thread->slot.read_depth != 0) {
        pyrt_read_end_counted(thread);
    }
    words->block_count = words->floor_count;
    end_use(words);
}

void
pyrt_py_resume_uses(pyrt_py_suspended suspended)
{
    pyrt_py_words *words = pyrt_py_my_words();
    if (words->top != words->floor) {
        close_what_is_open(words);
    }
    words->floor = suspended.floor;
    words->floor_count = suspended.floor_count;
    if (suspended.attached != NULL) {
        PyThreadState *outer = pyrt_py_enter();
        pyrt_attach(suspended.attached);
        pyrt_py_leave(outer);
    }
    settle();
}

/* ---- ends -------------------------------------------------------------------------------------------------------- */

/* The OS thread ends inside of blocks: Python has ended it, or C code has. There is no Python here any more; the core ends
 * the states. */
static void
on_end_of_thread(void *arg)
{
    pyrt_py_words *words = arg;
    pyrt_py_sections_end_of_thread();
    if (!words->is_ending) {
        /* The core ends the states, and a pause, before the uses of their domains end. */
        words->is_ending = true;
        if (pthread_setspecific(end_of_thread, words) == 0) {
            return;
        }
    }
    words->is_ending = false;
    pyrt_py_pause_end_of_thread();
    pyrt_py_domains_end_of_thread();
    pyrt_py_endings_end_of_thread();
    pyrt_py_left_behind_end(words);
    words->is_watched = false;
    words->floor = NULL;
    words->leases = NULL;
    pyrt_py_blocks_free(words);
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
    pyrt_py_left_behind_fork_child();
    for (pyrt_py_home *home = pyrt_py_homes(); home != NULL; home = home->next) {
        for (pyrt_py_domain *domain = home->domains; domain != NULL; domain = domain->next) {
            domain->users &= PYRT_PY_DOMAIN_CLOSED;
        }
    }
    for (pyrt_py_use *use = pyrt_py_my_words()->top; use != NULL; use = use->outer) {
        use->domain->users++;
    }
    for (pyrt_py_lease *lease = pyrt_py_my_words()->leases; lease != NULL; lease = lease->outer) {
        lease->domain->users++;
    }
    pyrt_py_pause_fork_child();
}
