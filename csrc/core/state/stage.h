/* stage.h -- how the floors above take part in the life of interpreters and threads without being known down here.
 *
 * A floor that keeps something for each interpreter or thread registers one stage from a constructor. The numbers of the
 * stages are the order in which a thread ends: after the exit hooks of its slots, before its epoch slot and index.
 * Any member may be NULL. `stage[number]` of interpreter and thread is the stage's own.
 */
#ifndef PYRT_STATE_STAGE_H
#define PYRT_STATE_STAGE_H

#include <pyruntime/qsbr.h>

typedef enum {
    PYRT_STAGE_WEAKREFS, /* their type; no thread has any */
    PYRT_STAGE_COUNTS,  /* per-thread reference counts */
    PYRT_STAGE_MERGE,   /* merge queue */
    PYRT_STAGE_RETIRE,  /* retire queue */
    PYRT_STAGE_HEAPS,   /* thread parts of heaps */
    PYRT_STAGES
} pyrt_stage_number;

struct pyrt_thread_impl;

typedef struct pyrt_fork_hooks {
    void (*prepare)(void);
    void (*parent)(void);
    void (*child)(void);
} pyrt_fork_hooks;

typedef struct pyrt_stage {
    /* Make and free what the stage keeps for an interpreter; fini finds it empty. */
    pyrt_status (*interp_init)(pyrt_interp *interp);
    void (*interp_fini)(pyrt_interp *interp);
    /* Empties it, when the last thread is gone; the main interpreter comes last and takes with it what belongs to the whole
     * process. Runs user code. PYRT_EBUSY if that does not come to an end. */
    pyrt_status (*interp_drain)(pyrt_interp *interp);

    /* The OS thread that was emptying it ends in the middle. */
    void (*interp_give_up)(pyrt_interp *interp);

    /* Make and free what the stage keeps for a thread; fini finds it empty. */
    pyrt_status (*thread_init)(struct pyrt_thread_impl *thread);
    void (*thread_fini)(struct pyrt_thread_impl *thread);
    /* Adds to the statistics what the stage has not counted in the thread; under the interpreter's lock. */
    void (*thread_stats)(struct pyrt_thread_impl *thread, pyrt_qsbr_stats *sum);
    /* At a safepoint that had to take the long way; attached. Runs user code. */
    void (*thread_work)(struct pyrt_thread_impl *thread);
    /* Gives back what it holds for readers who have passed by now; attached, on its own OS thread. */
    void (*thread_release)(struct pyrt_thread_impl *thread);
    /* It has just detached and found that something of it is wanted (PYRT_FLAG_COLLECT). */
    void (*thread_collect)(struct pyrt_thread_impl *thread);
    /* It has just detached with something to do (PYRT_FLAG_MERGE), and may stay so for long. */
    void (*thread_detached)(struct pyrt_thread_impl *thread);
    /* At the beginning of a barrier, and again when all threads have been at a safepoint, or detached, since: what waits in the
     * interpreter's threads is finished or asked for, and finished. By a thread that is attached to it. Runs user code. */
    void (*barrier)(pyrt_interp *interp);
    /* Gives back what nobody in the interpreter needs: in a barrier, before it waits for readers and when those have passed. */
    void (*interp_release)(pyrt_interp *interp);
    /* Empties it, at the thread's end; attached, on its own OS thread. Runs user code. */
    void (*thread_exit)(struct pyrt_thread_impl *thread);
    /* The calling OS thread ends, perhaps in the middle of user code of the stage's; its states are still there. Runs user
     * code. */
    void (*os_thread_exit)(void);

    /* Around a fork, for each interpreter and with its lock held: the stage's own locks. */
    void (*fork_prepare)(pyrt_interp *interp);
    void (*fork_parent)(pyrt_interp *interp);
    void (*fork_child)(pyrt_interp *interp);
    /* In the child, for a thread that is not there any more: its OS thread stood anywhere, also inside of the stage. */
    void (*thread_lost)(struct pyrt_thread_impl *thread);
    /* In the child, for each interpreter, when its lost threads are gone: sets right what they were in the middle of counting. */
    void (*fork_settle)(pyrt_interp *interp);
    /* Around a fork, once, whether there is an interpreter or not: locks of the stage's that are the process's. They come after
     * those of the interpreters in the order of locks. */
    pyrt_fork_hooks process;
} pyrt_stage;

/* Called from constructors, before any interpreter exists. */
void pyrt_stage_register(pyrt_stage_number number, const pyrt_stage *stage);

/* The stages in order; NULL where no floor has registered. */
extern const pyrt_stage *pyrt_stages[PYRT_STAGES];

/* Around a fork, once: the locks of memory that belongs to no interpreter. They come before the metadata's in the order of
 * locks. From a constructor. */
void pyrt_fork_set_memory_hooks(const pyrt_fork_hooks *hooks);

#endif
