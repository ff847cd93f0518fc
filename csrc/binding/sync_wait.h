/* sync_wait.h -- what all locks for Python have in common: their arguments, who owns them, when they refuse, how they wait.
 *
 * A lock remembers its owner by threading.get_ident(), so that whoever cannot have it can be told by name who has. The word is
 * written by the owner, right after it has locked and right before it unlocks; everybody else only looks.
 *
 * Waiting never happens with the GIL or attached (the block hooks and the parking lot see to that). It ends early for a signal:
 * the handlers run, with nothing queued anywhere, and the wait goes on with the time that is left, or an exception of theirs
 * ends it. Only Python's main thread runs handlers; a signal that comes between its last look and its sleep does not end that
 * sleep, so it sleeps in slices.
 */
#ifndef PYRT_BINDING_SYNC_WAIT_H
#define PYRT_BINDING_SYNC_WAIT_H

#include "binding/uses.h"
#include "binding/waits.h"

#include <pthread.h>

/* What threading.get_ident() answers on this OS thread; never 0. */
static inline uint64_t
pyrt_py_ident(void)
{
    return (uint64_t)pthread_self();
}

/* Takes an owner's mark off, and answers what it was; of several threads that do so at a time one gets it. */
static inline uint64_t
pyrt_py_take_mark(uint64_t *owner)
{
#if defined(Py_GIL_DISABLED)
    /* acquire: the unlocking that follows does not come before it. */
    return pyrt_exchange_acquire(owner, (uint64_t)0);
#else
    uint64_t found = pyrt_load_relaxed(owner);
    pyrt_store_relaxed(owner, (uint64_t)0);
    return found;
#endif
}

/* "thread 'Worker' (id 140...)", or without the name where Python knows none. A new reference; NULL with an exception. */
PyObject *pyrt_py_thread_text(uint64_t ident);

/* A call that may wait, and would end the block: refused even when it would not wait this time. True with an exception. */
static inline bool
pyrt_py_refuse_waiting(const char *what)
{
    const pyrt_thread *current = pyrt_thread_current();
    return pyrt_unlikely(current != NULL && current->slot.read_depth != 0) && pyrt_py_refuse_reading(what);
}

/* Seconds, as an int or a float, in nanoseconds, rounded up. False with an exception: of the wrong type, not a number, or
 * larger than threading.TIMEOUT_MAX. Negative ones stay negative. */
bool pyrt_py_timeout_ns(PyObject *seconds, int64_t *timeout_ns);

/* acquire(blocking=True, timeout=-1). 0 stands for "do not wait", negative for "no end". False with an exception. */
bool pyrt_py_acquire_arguments(PyObject *const *args, Py_ssize_t count, PyObject *names, const char *what,
                               int64_t *timeout_ns);

/* wait(timeout=None). False with an exception. */
bool pyrt_py_wait_arguments(PyObject *const *args, Py_ssize_t count, PyObject *names, const char *what, int64_t *timeout_ns);

/* An int, as operator.index() has it; one that is too large or small is the largest or smallest there is. False with an
 * exception. */
bool pyrt_py_count(PyObject *number, const char *what, Py_ssize_t *count);

/* One try to get `lock` within a time; PYRT_OK, PYRT_ETIMEDOUT or PYRT_EINTR, else an error. It enters and leaves nothing of
 * Python's: that is done around it. */
typedef pyrt_status pyrt_py_attempt(void *lock, int64_t timeout_ns, unsigned flags);

typedef struct pyrt_py_waiting {
    const char *what;         /* what the user called */
    pyrt_py_attempt *attempt;
    void *lock;
    const uint64_t *owner;    /* NULL: it has none */
} pyrt_py_waiting;

/* Waits; PYRT_PY_FAILED with an exception. In this OS thread's own pause of the world it does not wait, but raises. */
pyrt_py_wait_result pyrt_py_wait(const pyrt_py_waiting *waiting, int64_t timeout_ns);

/* Waits for a mutex through signals, which are handled when Python comes to it, and through pauses. */
void pyrt_py_lock_again(pyrt_mutex *mutex);

/* pyrt_mutex_lock_timed as an attempt. */
pyrt_status pyrt_py_attempt_mutex(void *mutex, int64_t timeout_ns, unsigned flags);

/* Counts the forks that this process is the child of. */
extern uint32_t pyrt_py_forks;

#endif
