/* uses.h -- which domains this OS thread is inside of, and with which thread states.
 *
 * Blocks of the same domain in a row share one use, which holds the thread attached. A block of another domain starts a use of
 * its own, further in; the outer one is put aside meanwhile, which ends its protection, so that it is refused inside
 * reading(). Uses are left in the reverse order; blocks within one use in any order.
 *
 * States. In the default domain of the main interpreter an OS thread keeps one state as long as it lives. In every other
 * domain it has one only while it is inside, so that a domain can be closed when nobody is.
 */
#ifndef PYRT_BINDING_USES_H
#define PYRT_BINDING_USES_H

#include "binding/domain.h"

/* The innermost use, or NULL. */
static inline pyrt_py_use *
pyrt_py_innermost_use(void)
{
    const pyrt_py_words *words = pyrt_py_my_words();
    return words->top == words->floor ? NULL : words->top;
}

/* Goes into the domain, or one block deeper. `what` is what the user called, for the message. NULL with an exception. */
pyrt_py_use *pyrt_py_use_enter(pyrt_py_domain *domain, const char *what);

/* One block out of the innermost use; the last one detaches. */
void pyrt_py_use_leave(void);

/* Keeps the domain from being closed between the two; false with an exception when it is closed already. */
bool pyrt_py_use_begin(pyrt_py_domain *domain, const char *what);
void pyrt_py_use_end(pyrt_py_domain *domain);

/* A thread state of the domain for the time of one call: attached if this OS thread is inside, else as it happens to be. */
typedef struct pyrt_py_lease {
    struct pyrt_py_lease *outer;
    pyrt_py_domain *domain;
    pyrt_thread *thread;
    bool ensured;
} pyrt_py_lease;

/* False with an exception. The caller keeps the domain and the lease until the end, which is in the same function. */
bool pyrt_py_lease_begin(pyrt_py_domain *domain, const char *what, pyrt_py_lease *lease);
void pyrt_py_lease_end(pyrt_py_lease *lease);

/* Sets StateError and answers true if this OS thread is inside a reading block, which `what` would end or wait for. */
bool pyrt_py_refuse_reading(const char *what);

/* Puts this OS thread outside of everything while callables run, and back again. What those left open is closed. */
typedef struct pyrt_py_suspended {
    pyrt_py_use *floor;
    pyrt_thread *attached;
} pyrt_py_suspended;

pyrt_py_suspended pyrt_py_suspend_uses(void);
void pyrt_py_resume_uses(pyrt_py_suspended suspended);

/* Once in the process: what an OS thread that ends inside of blocks leaves behind is cleaned up. */
int pyrt_py_uses_start(void);

/* In the child of a fork: the blocks of the threads that are not there are closed. */
void pyrt_py_uses_fork_child(void);

#endif
