/* callables.h -- retired Python callables, and what else Python has to do when the core says so.
 *
 * The way of a callable:
 *
 *   retired     a node is in a retire queue of the core                        counted in home->waiting
 *   disposed    the core's disposer has put the node on home->disposed         on any OS thread, with or without the GIL
 *   batch       a thread of the Python interpreter, the runner, has taken all  home->runner is that thread
 *   run         called and freed                                               exceptions go to sys.unraisablehook
 *
 * In the child of a fork the home's counts of what was under way are set right, and what a lost runner had taken is the next
 * one's. Lost is what a thread that is not there had in its hands between two of these places: the core has given it out and it
 * is on no list, or it was just being called. Whether such a disposer has done its work, or half of it, nobody can tell (fork.h),
 * so it is neither called nor given up there; nothing of the domain waits for it. Its node goes on holding the home: the only
 * thing to see of that is that the child does not take the home for another Python interpreter, when this one has ended.
 *
 * The runner is detached meanwhile: a callable may wait for anything, and what it enters starts from nothing. Callables of one
 * interpreter run one after another.
 */
#ifndef PYRT_BINDING_CALLABLES_H
#define PYRT_BINDING_CALLABLES_H

#include "binding/home.h"

typedef struct pyrt_py_callable {
    struct pyrt_py_callable *next;
    pyrt_py_home *home;              /* held */
    PyObject *object;                /* a strong reference, or NULL */
    PyObject *argument;              /* the same: what it is called with; given up after that */
    bool call;                       /* else only give up what is held */
    struct pyrt_py_mailbox *mailbox; /* held: of the thread that is to run it (endings.h), or NULL */
} pyrt_py_callable;

/* A node that will call `callable`; holds it and the home. NULL when memory is short. */
pyrt_py_callable *pyrt_py_callable_new(pyrt_py_home *home, PyObject *callable);

/* Takes back a node that was not retired. */
void pyrt_py_callable_delete(pyrt_py_callable *node);

/* The disposer to retire a node with. */
void pyrt_py_callable_dispose(void *node);

/* A node that holds its home and nothing else yet. NULL when memory is short. */
pyrt_py_callable *pyrt_py_callable_new_node(pyrt_py_home *home);

/* Puts a node on home->disposed, on whatever OS thread. If Python is gone only the node goes. */
void pyrt_py_callable_hand_over(pyrt_py_callable *node);

/* The same for the child of a fork, where Python cannot be asked yet to come by: the next call finds it. */
void pyrt_py_callable_leave(pyrt_py_callable *node);

/* Does what the node says, and frees it. An exception goes to sys.unraisablehook. */
void pyrt_py_callable_run(pyrt_py_callable *node);

/* Frees a node and nothing of what it holds. */
void pyrt_py_callable_free(pyrt_py_callable *node);

/* Gives a reference up on an OS thread that has no Python thread state: the object goes the way of the disposed, and is not
 * called. Lost when memory is short or the interpreter is gone. */
void pyrt_py_release_later(pyrt_py_home *home, PyObject *object);

typedef enum {
    PYRT_PY_RAN,       /* everything that was disposed of by then has been run */
    PYRT_PY_BY_OTHER,  /* another thread is running them */
    PYRT_PY_BY_MYSELF, /* this call comes out of a callable that is running */
    PYRT_PY_NOT_HERE   /* this OS thread is inside a reading block */
} pyrt_py_run_result;

/* Runs what has been disposed of. No exception may be set, and none is. */
pyrt_py_run_result pyrt_py_run_disposed(pyrt_py_home *home);

/* Two loads where there is nothing to run. */
static inline void
pyrt_py_run_if_any(pyrt_py_home *home)
{
    if (pyrt_unlikely(pyrt_load_relaxed(&home->disposed) != NULL)) {
        (void)pyrt_py_run_disposed(home);
    }
}

/* The same for calls that may come anywhere: not inside a block, which it would interrupt. */
void pyrt_py_run_if_outside(pyrt_py_home *home);

/* Detached threads pass no safepoint, so what they retire might wait until they come back. Counts what this OS thread retires;
 * true once in a while: somebody else should look after it now. */
bool pyrt_py_is_time_to_process(size_t bytes, bool busy);

/* What threads retired and then left alone: one look at everybody's queues, without waiting for anybody. Nothing inside of a
 * block. */
void pyrt_py_process_queues(void);

/* What a pending call of Python's main thread is asked to do. */
enum {
    PYRT_PY_DUE_RUN = 1,     /* run what has been disposed of */
    PYRT_PY_DUE_PROCESS = 2  /* look after retire queues that nobody may come back to */
};

/* Asks for a pending call, where the interpreter can have one (the main one). With or without the GIL. */
void pyrt_py_schedule(pyrt_py_home *home, uint32_t what);

/* In the child of a fork: of each home, and then once, which counts what waits. */
void pyrt_py_callables_fork_child(pyrt_py_home *home);
void pyrt_py_callables_fork_settle(void);

#endif
