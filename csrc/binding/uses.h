/* uses.h -- which domain this OS thread is inside of, and with which thread state.
 *
 * The blocks that are open on it are all of one domain, and share one use, which holds the thread attached. A block of
 * another domain would detach it, which ends the protection of those that are open; so it is refused, and so is leaving blocks
 * in another order than the reverse one of entering.
 *
 * While a retired callable runs, what was open before is put aside, below a floor; the callable may use another domain.
 */
#ifndef PYRT_BINDING_USES_H
#define PYRT_BINDING_USES_H

#include "binding/blocks.h"
#include "binding/domain.h"

/* The use above the floor, or NULL. */
static inline pyrt_py_use *
pyrt_py_innermost_use(void)
{
    const pyrt_py_words *words = pyrt_py_my_words();
    return words->top == words->floor ? NULL : words->top;
}

/* Opens a block, PYRT_PY_BLOCK_NEW, in the domain. `what` is what the user called, for messages. NULL with an exception. */
pyrt_py_use *pyrt_py_use_enter(pyrt_py_domain *domain, const char *what);

/* Closes the newest block; the last one detaches. */
void pyrt_py_use_leave(void);

/* Why the newest block cannot be closed now, or NULL. */
const char *pyrt_py_why_not_leave(void);

/* The section of this OS thread with this number is gone: closes its blocks, where the thread is inside of something now as
 * soon as it is not. `is_reading`: they have counted as read-side sections. False if none was open. */
bool pyrt_py_use_collect(uint64_t number, bool is_reading);

/* Makes sure that the end of this OS thread is seen. False when memory is short. */
bool pyrt_py_uses_watch_end(void);

/* Keeps the domain from being closed between the two; false, begin with an exception, when it is closed already. */
bool pyrt_py_use_try(pyrt_py_domain *domain);
bool pyrt_py_use_begin(pyrt_py_domain *domain, const char *what);
void pyrt_py_use_end(pyrt_py_domain *domain);

/* A thread state of the domain for the time of one call: attached if this OS thread is inside, else as it happens to be. */
typedef struct pyrt_py_lease {
    struct pyrt_py_lease *outer;
    pyrt_py_domain *domain;
    const pyrt_py_use *inside; /* the use that it was begun in, or NULL: cannot be left before the lease has ended */
    pyrt_thread *thread;
    bool ensured;
} pyrt_py_lease;

/* False with an exception. The caller keeps the domain and the lease until the end, which is in the same function. */
bool pyrt_py_lease_begin(pyrt_py_domain *domain, const char *what, pyrt_py_lease *lease);
void pyrt_py_lease_end(pyrt_py_lease *lease);

/* The same without a thread state, and without an exception: for what may run Python, and so fork, in the middle of a use. */
bool pyrt_py_lease_try(pyrt_py_domain *domain, pyrt_py_lease *lease);

/* Ends such a lease, and leaves its use to the caller, who puts it where the child of a fork finds it. */
void pyrt_py_lease_give(pyrt_py_lease *lease);

/* Leaves the blocks of this OS thread whose sections were collected on other threads. Called where a block or call begins or
 * ends, with nothing of the thread's own words in hand. */
void pyrt_py_leave_what_is_left_behind(void);

/* Sets StateError and answers true if this OS thread is inside a reading block, which `what` would end or wait for. */
bool pyrt_py_refuse_reading(const char *what);

/* Puts this OS thread outside of everything while callables run, and back again. What those left open is closed. */
typedef struct pyrt_py_suspended {
    pyrt_py_use *floor;
    uint32_t floor_count;
    pyrt_thread *attached;
} pyrt_py_suspended;

pyrt_py_suspended pyrt_py_suspend_uses(void);
void pyrt_py_resume_uses(pyrt_py_suspended suspended);

/* Once in the process: what an OS thread that ends inside of blocks leaves behind is cleaned up. */
int pyrt_py_uses_start(void);

/* In the child of a fork: the blocks of the threads that are not there are closed, and what this OS thread is inside of, by its
 * blocks, leases and pause, is counted anew. */
void pyrt_py_uses_fork_child(void);

#endif
