/* reclaim.h -- what reclamation keeps for each thread, for each interpreter, and for the process.
 *
 * Three kinds of queues: a thread's own; the *orphans* of an interpreter, for what threads left behind, what barriers took
 * from them, and what OS threads without a state retire; the *global* one, whose goals the readers of every interpreter must
 * pass. The latter two are shared queues: under a lock, worked off by one runner at a time.
 */
#ifndef PYRT_RECLAIM_RECLAIM_H
#define PYRT_RECLAIM_RECLAIM_H

#include "reclaim/queue.h"
#include "state/thread_impl.h"

typedef struct pyrt_reclaim_thread {
    pyrt_retire_queue queue;  /* see queue.h for who may touch it when */
    pyrt_disposal running;    /* the owner's, while it disposes */
    uint64_t collected;       /* the newest barrier that has got the queue; under the interpreter's lock */
    uint32_t skip;            /* safepoints to pass before the goal is asked for again */
    uint32_t next_skip;       /* doubles while readers do not pass */
    uint64_t reported_goal;   /* the stall report of this goal has been given */
    size_t held_bytes;        /* what a floor above keeps until readers have passed: counts against the bound */
} pyrt_reclaim_thread;

typedef struct pyrt_shared_queue {
    pyrt_raw_mutex lock;
    pyrt_retire_window window;
    pyrt_retire_queue queue;
    const void *runner;     /* the thread-local block of the OS thread that works it off, or NULL */
    pyrt_disposal running;  /* the runner's */
    uint32_t turn;          /* changes when a runner is done; waiters sleep on it */
    uint32_t filled;        /* nonzero if there may be something in it: a hint, read without the lock */
} pyrt_shared_queue;

typedef struct pyrt_reclaim_interp {
    pyrt_shared_queue orphans;
    uint64_t barriers;   /* the number of the newest barrier; under the interpreter's lock */
    size_t bound_items;  /* atomic, relaxed */
    size_t bound_bytes;
} pyrt_reclaim_interp;

extern pyrt_shared_queue pyrt_global_queue;

enum { PYRT_BOUND_ITEMS = 64 * 1024, PYRT_BOUND_BYTES = 1024 * 1024 };

/* NULL before the stage has made it and after it has freed it. */
static inline pyrt_reclaim_thread *
pyrt_reclaim_of(const pyrt_thread_impl *thread)
{
    return thread->stage[PYRT_STAGE_RETIRE];
}

static inline pyrt_reclaim_interp *
pyrt_reclaim_of_interp(const pyrt_interp *interp)
{
    return interp->stage[PYRT_STAGE_RETIRE];
}

/* Sets `over_bound` from what is sealed in the thread's queue, and what is held for it. */
void pyrt_reclaim_check_bound(pyrt_thread_impl *thread);

/* So many bytes of the thread's are held elsewhere until readers have passed. Once they have brought it over its bound its
 * safepoints ask for them (thread_release of the stages). For its owner. */
void pyrt_reclaim_hold(pyrt_thread_impl *thread, size_t bytes);

/* Disposes of what is reached in the thread's own queue; attached, on its own OS thread, not in a disposer. */
size_t pyrt_reclaim_own(pyrt_thread_impl *thread);

/* Answers a barrier that has asked for the thread's queue, if one has; attached, on its own OS thread. */
void pyrt_reclaim_answer_barrier(pyrt_thread_impl *thread);

/* The same for a thread that has just detached, and is taken for the moment as a barrier would take it. */
void pyrt_reclaim_collect_detached(pyrt_thread_impl *thread);

/* At a safepoint. */
void pyrt_reclaim_work(pyrt_thread_impl *thread);

/* Moves a thread's queue to its interpreter's orphans; says whether there was anything in it. */
bool pyrt_reclaim_hand_over(pyrt_thread_impl *thread);

/* Works off what is reached in a shared queue: the orphans of an interpreter, or the global one for NULL. What its own
 * disposers retire meanwhile is left. `self` is the attached state of this OS thread, or NULL. False if somebody else is at
 * it; else adds the number of items to *count. */
bool pyrt_shared_run(pyrt_shared_queue *shared, pyrt_interp *or_null, pyrt_thread_impl *self, size_t *count);

/* Gives all that is open in it a goal, and answers the number of the first batch that is not sealed. */
uint32_t pyrt_shared_seal(pyrt_shared_queue *shared);

/* Whether a batch with a number before this one is still in it, and the goal of the oldest. */
bool pyrt_shared_has_batch_before(pyrt_shared_queue *shared, uint32_t end_of_batches, uint64_t *goal);

/* What was taken goes back: it does not count as disposed of any more. */
void pyrt_reclaim_uncount(pyrt_interp *interp, const pyrt_disposal *disposal);

/* Shows each item that waits in any queue of the process; for a fork handler in the child that comes after the core's, so that
 * what lost threads had is there too. */
void pyrt_reclaim_visit(void (*visit)(const pyrt_retired *item));

/* The runner cannot go on: puts back what it had taken. `interp` has counted it. */
void pyrt_shared_give_up(pyrt_shared_queue *shared, pyrt_interp *interp);

#endif
