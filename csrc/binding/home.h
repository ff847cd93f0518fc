/* home.h -- what belongs to one Python interpreter: its default domain, and its retired callables.
 *
 * A home is found through the interpreter's own dict. Homes are never freed, because disposers on any OS thread may still
 * have to look at one when its Python interpreter is gone; a home without references is taken for the next interpreter.
 *
 * `references` counts the interpreter itself, every Domain object, and every retired callable that has not run. Who is handing
 * one over counts in `handing`, and the home stays what it is until he is done. What is marked "atomic" is shared with OS
 * threads that hold no GIL; the rest belongs to threads of the interpreter.
 *
 * `open` goes from 1 to 0 once, when the interpreter exits. After that nobody but its own threads touches Python.
 */
#ifndef PYRT_BINDING_HOME_H
#define PYRT_BINDING_HOME_H

#include "binding/words.h"

#include "platform/raw_mutex.h"

/* pyruntime/errors.py has the exception classes in the order of pyrt_status, and then one for arguments of the wrong type, and
 * one for buffers that are looked at. */
enum { PYRT_PY_WRONG_TYPE = PYRT_EVERSION + 1, PYRT_PY_BUFFER_IN_USE, PYRT_PY_ERRORS };

/* The types that are made when they are first asked for (sync.c). */
enum {
    PYRT_PY_SYNC_MUTEX,
    PYRT_PY_SYNC_RLOCK,
    PYRT_PY_SYNC_EVENT,
    PYRT_PY_SYNC_CONDITION,
    PYRT_PY_SYNC_ONCE,
    PYRT_PY_SYNC_STRIPES,
    PYRT_PY_SYNC_STRIPED_LOCK,
    PYRT_PY_SYNC_RWLOCK_SIDE,
    PYRT_PY_SYNC_RWLOCK,
    PYRT_PY_SYNC_CRITICAL_SECTION,
    PYRT_PY_SYNC_PAUSE,
    PYRT_PY_SYNC_WEAK_EXPIRY,
    PYRT_PY_SYNC_WEAK_TABLE,
    PYRT_PY_SYNC_SHARED_ANCHOR,
    PYRT_PY_SYNC_SHARED_REF,
    PYRT_PY_SYNC_RCU_CELL,
    PYRT_PY_SYNC_TYPES
};

typedef struct pyrt_py_home {
    struct pyrt_py_home *next;         /* all homes, newest first; never changes once linked */
    uint32_t references;               /* atomic */
    uint32_t open;                     /* atomic */
    bool is_main;                      /* of Python's main interpreter: shares the core's, and takes pending calls */

    /* Retired callables (callables.c). */
    uint64_t waiting;                  /* atomic: retired, and readers may still see them */
    struct pyrt_py_callable *disposed; /* atomic: no reader can see them; to be run; newest first */
    struct pyrt_py_callable *batch;    /* the runner's: oldest first */
    uintptr_t runner;                  /* atomic: the OS thread that runs them now, by the address of its words; 0: none */
    uint32_t batches;                  /* atomic: run so far; who waits for the runner sleeps on it */
    uint32_t due;                      /* atomic: PYRT_PY_DUE_... that a pending call has been asked for */
    uint32_t handing;                  /* atomic: OS threads that hand something over, or ask for such a call, right now */

    pyrt_raw_mutex lock;               /* guards the five that follow, and what goes from `disposed` to `batch`;
                                        * no other lock is taken while it is held */
    struct pyrt_py_domain *domains;    /* that are not closed */
    struct pyrt_py_heap *heaps;        /* newest first */
    pyrt_interp *interp;               /* the default domain's; NULL after the exit of an interpreter that is not main */
    pyrt_interp *leaving;              /* what it was then, while it could not be ended; NULL: none */
    pyrt_py_words *ender;              /* the OS thread that is ending it; NULL: none (domain.h) */
    int64_t interp_id;                 /* the default domain's */

    /* The boxes of SharedRefs (shared_box.c). */
    pyrt_type *box_type;               /* atomic; of `interp`, NULL until it is first wanted */
    uint64_t boxes;                    /* atomic: in memory of `interp` or `leaving`; of the main one, which stays: 0 */

    /* Made when they are first wanted, by pyrt_py_publish; NULL until then, and when the interpreter is gone. */
    PyObject *section_type;                   /* atomic */
    PyObject *domain_type;                    /* atomic */
    PyObject *sync_types[PYRT_PY_SYNC_TYPES]; /* atomic */
    PyObject *default_domain;                 /* atomic */
    PyObject *heap_type;                      /* atomic */
    PyObject *buffer_type;                    /* atomic */
} pyrt_py_home;

/* Puts what was made, a new reference or NULL, where everybody finds it; of several threads that make it at a time one puts
 * its own, and the others drop theirs. Answers what is there, borrowed; NULL if nothing was made. */
PyObject *pyrt_py_publish(PyObject **place, PyObject *made);

/* What was published, borrowed; NULL: nothing yet. acquire: pairs with the swap in pyrt_py_publish. */
static inline PyObject *
pyrt_py_published(PyObject *const *place)
{
    return pyrt_load_acquire(place);
}

static inline PyTypeObject *
pyrt_py_sync_type(const pyrt_py_home *home, size_t which)
{
    return (PyTypeObject *)pyrt_py_published(&home->sync_types[which]);
}

/* The home of the calling interpreter; made, with its default domain, where there is none yet. NULL with an exception. */
pyrt_py_home *pyrt_py_home_get(void);

/* Every home there is or was; the next one by `next`. */
pyrt_py_home *pyrt_py_homes(void);

/* Fork handlers: the child finds the lists of every home whole. One OS thread at a time is between prepare and parent. */
void pyrt_py_homes_fork_prepare(void);
void pyrt_py_homes_fork_parent(void);
void pyrt_py_homes_fork_child(void);

static inline void
pyrt_py_home_hold(pyrt_py_home *home)
{
    pyrt_fetch_add_relaxed(&home->references, 1u);
}

void pyrt_py_home_drop(pyrt_py_home *home);

/* Sets the exception that stands for a status (or PYRT_PY_WRONG_TYPE) and answers NULL. */
PyObject *pyrt_py_raise(int status, const char *format, ...);

/* The same, with ", not " and what was given instead behind the text, as pyrt_py_shown has it. */
PyObject *pyrt_py_raise_not(int status, PyObject *given, const char *format, ...);

/* An argument as a message names it, a new reference: its repr; of an int beyond 128 bits the size, as "2**1000 or more", for
 * Python refuses to write more digits than it is set to. */
PyObject *pyrt_py_shown(PyObject *object);

/* A ResourceWarning about something that is collected while it is open. It keeps the exception that may be set; a warning that
 * is made an error cannot be raised here, and goes to sys.unraisablehook with `context`. */
void pyrt_py_warn_of_collection(PyObject *context, const char *format, ...);

#endif
