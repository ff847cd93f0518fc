/* domain_end.c -- the end of domains: closed, dropped, the default one at the exit of its interpreter; and what becomes of an
 * end whose OS thread is lost in the middle of it, in a fork or by its own end (domain.h).
 */
#include "binding/callables.h"
#include "binding/domain_calls.h"
#include "binding/gil.h"
#include "binding/heaps.h"
#include "binding/uses.h"

#include "platform/futex.h"
#include "platform/report.h"

#include <string.h>
#include <time.h>

/* ---- of those that are open ---------------------------------------------------------------------------------------- */

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

/* ---- closing ------------------------------------------------------------------------------------------------------ */

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

/* Marks it, if nobody is inside of it. */
static bool
begin_close(pyrt_py_domain *domain)
{
    uint32_t users = 0;
    if (!pyrt_cas_seq_cst(&domain->users, &users, PYRT_PY_DOMAIN_CLOSED)) {
        return false;
    }
    pyrt_store_relaxed(&domain->closer, pyrt_py_my_words());
    return true;
}

/* Takes begin_close back. */
static void
reopen(pyrt_py_domain *domain, pyrt_interp *interp)
{
    pyrt_store_relaxed(&domain->interp, interp);
    pyrt_store_relaxed(&domain->closer, (pyrt_py_words *)NULL);
    pyrt_fetch_and_seq_cst(&domain->users, ~PYRT_PY_DOMAIN_CLOSED);
}

/* After begin_close; if it fails the domain is open again. Forgotten first: what comes to be at the interp's address must not be
 * taken for it. */
static pyrt_status
finish_close(pyrt_py_domain *domain)
{
    pyrt_interp *interp = domain->interp;
    pyrt_store_relaxed(&domain->interp, (pyrt_interp *)NULL);
    PyThreadState *outer = pyrt_py_enter();
    pyrt_status status = pyrt_interp_delete(interp);
    pyrt_py_leave(outer);
    if (status == PYRT_OK) {
        unlink_domain(domain);
    }
    else {
        reopen(domain, interp);
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
    (void)pyrt_py_uses_watch_end();
    int64_t end = pyrt_deadline_after(PATIENCE_NS);
    do {
        pyrt_py_lease lease;
        if (begin_close(domain)) {
            if (finish_close(domain) == PYRT_OK) {
                return true;
            }
        }
        else if (pyrt_py_lease_try(domain, &lease)) {
            /* Named are the others; a use of our own keeps what is looked at. */
            raise_busy(domain, true);
            pyrt_py_lease_end(&lease);
            return false;
        }
        else if (!is_linked(domain)) {
            return true;
        }
    } while (be_patient(end));
    raise_busy(domain, false);
    return false;
}

void
pyrt_py_domain_drop(pyrt_py_domain *domain)
{
    if (!domain->is_default && begin_close(domain) && finish_close(domain) != PYRT_OK) {
        pyrt_report("domain %lld was dropped without close() while an extension keeps it; it stays in memory",
                    (long long)domain->interp_id);
    }
    unlink_domain(domain);
}

const char pyrt_py_domain_close_doc[] =
    "close($self, /)\n--\n\n"
    "Ends the domain; what is retired in it is disposed of. A second close does nothing.\n\n"
    "Raises BusyError while a thread is inside, and where an extension keeps the domain for more than half a\n"
    "second, which is waited for; StateError for the default domain.";

PyObject *
pyrt_py_domain_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (!close_domain(pyrt_py_domain_of(self))) {
        return NULL;
    }
    pyrt_py_run_if_outside(pyrt_py_domain_of(self)->home);
    Py_RETURN_NONE;
}

/* ---- the default domain ------------------------------------------------------------------------------------------- */

/* Takes close_default back. */
static void
reopen_default(pyrt_py_home *home, pyrt_interp *interp)
{
    pyrt_raw_mutex_lock(&home->lock);
    home->interp = interp;
    home->ender = NULL;
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
    home->ender = pyrt_py_my_words();
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
    (void)pyrt_py_uses_watch_end();
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
    pyrt_raw_mutex_lock(&home->lock);
    home->leaving = goes ? NULL : interp;
    home->ender = NULL;
    pyrt_raw_mutex_unlock(&home->lock);
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

/* ---- ends whose thread is lost -------------------------------------------------------------------------------------- */

/* The core has taken the end back, where it could still be: then the interp is there, and not ending. */
static void
settle_close(pyrt_py_domain *domain)
{
    pyrt_interp *interp = pyrt_interp_pin(domain->interp_id);
    if (interp == NULL) {
        unlink_domain(domain);
        return;
    }
    reopen(domain, interp);
    pyrt_interp_unpin(interp);
}

static void
settle_default(pyrt_py_home *home)
{
    pyrt_interp *interp = pyrt_interp_pin(home->interp_id);
    if (interp == NULL) {
        pyrt_raw_mutex_lock(&home->lock);
        home->ender = NULL;
        pyrt_raw_mutex_unlock(&home->lock);
        return;
    }
    reopen_default(home, interp);
    pyrt_interp_unpin(interp);
}

void
pyrt_py_domains_fork_child(void)
{
    const pyrt_py_words *me = pyrt_py_my_words();
    for (pyrt_py_home *home = pyrt_py_homes(); home != NULL; home = home->next) {
        if (home->ender != NULL && home->ender != me) {
            settle_default(home);
        }
        pyrt_py_domain *next;
        for (pyrt_py_domain *domain = home->domains; domain != NULL; domain = next) {
            next = domain->next;
            if (!domain->is_default && pyrt_py_domain_is_closed(domain) && domain->closer != me) {
                settle_close(domain);
            }
        }
    }
}

/* One that this OS thread is closing, or NULL; its object is referred to by that call, which never returns. */
static pyrt_py_domain *
find_mine(pyrt_py_home *home)
{
    pyrt_raw_mutex_lock(&home->lock);
    pyrt_py_domain *domain = home->domains;
    while (domain != NULL && pyrt_load_relaxed(&domain->closer) != pyrt_py_my_words()) {
        domain = domain->next;
    }
    pyrt_raw_mutex_unlock(&home->lock);
    return domain;
}

static bool
is_default_mine(pyrt_py_home *home)
{
    pyrt_raw_mutex_lock(&home->lock);
    bool mine = home->ender == pyrt_py_my_words();
    pyrt_raw_mutex_unlock(&home->lock);
    return mine;
}

void
pyrt_py_domains_end_of_thread(void)
{
    for (pyrt_py_home *home = pyrt_py_homes(); home != NULL; home = home->next) {
        if (is_default_mine(home)) {
            settle_default(home);
        }
        pyrt_py_domain *domain;
        while ((domain = find_mine(home)) != NULL) {
            settle_close(domain);
        }
    }
}
