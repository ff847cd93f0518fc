/* SPDX-License-Identifier: MIT
 *
 * qsbr.h -- knowing when nobody can be looking any more: goals, polling, waiting, and who is in the way.
 *
 * The pattern of use. A reader attaches, reads shared pointers without a lock, and passes a quiescent state when it holds
 * none of them any more. A writer unlinks, gets a goal, and disposes of what it unlinked when the goal is reached:
 *
 *      reader                                       writer
 *      pyrt_read_begin(t);                          old = exchange(&shared, new);
 *      p = pyrt_load_acquire(&shared);              goal = pyrt_qsbr_advance(interp);
 *      use(p);                                      ... later: if (pyrt_qsbr_poll(t, goal)) free(old);
 *      pyrt_read_end(t);
 *      pyrt_qsbr_quiescent_state(t);                or simply pyrt_retire(t, old, size, free), see retire.h
 *
 * An attached thread counts as a reader from attach to detach, but for the quiescent states that it passes. An attached
 * thread that sleeps holds up every goal of its interpreter: detach before sleeping. A detached one costs nothing.
 * All interpreters share one sequence, and each has its own readers.
 */
#ifndef PYRUNTIME_QSBR_H
#define PYRUNTIME_QSBR_H

#include "thread.h"

PYRT_BEGIN_DECLS

/* cdef: begin */
/* Ends what was unlinked so far: the goal that the readers of an interpreter must pass. One step of the sequence of the
 * process. Goals are odd and compare by signed difference, so that they may wrap. NULL, as without runtime: a step all the
 * same, which no statistics count.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
uint64_t pyrt_qsbr_advance(pyrt_interp *interp);

/* Whether all readers of the thread's interpreter have passed the goal. The calling thread is one of them while it is
 * attached. NULL: the readers of the attached state's interpreter, or of the main one if none is attached.
 * blocks: no (never) · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
bool pyrt_qsbr_poll(pyrt_thread *thread, uint64_t goal);

/* Waits until every reader has passed a goal advanced here. The calling thread is quiescent, and is detached while it
 * sleeps. NULL: as in pyrt_qsbr_poll. Errors: PYRT_ESTATE inside a counted read-side section (reported) or without runtime;
 * the timed form PYRT_ETIMEDOUT. A negative timeout is none, zero looks once.
 * blocks: yes · allocates: no · runs user code: no · quiescent: always · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_qsbr_synchronize(pyrt_thread *or_null);
pyrt_status pyrt_qsbr_synchronize_timed(pyrt_thread *or_null, int64_t timeout_ns);
/* cdef: end */

/* The long way of the inline function below; call that. */
void pyrt_qsbr_quiescent_slow(pyrt_thread *thread);

/* The thread holds no reference to shared memory at this point. Two loads and a compare when no goal is new.
 * blocks: no · allocates: no · runs user code: no · quiescent: always · needs attached: yes · async-signal-safe: no */
static inline void
pyrt_qsbr_quiescent_state(pyrt_thread *thread)
{
    /* acquire: pairs with the advance, as in pyrt_attach. relaxed: the owner's own word. */
    uint64_t behind = pyrt_load_acquire(thread->slot.sequence) ^ pyrt_load_relaxed(&thread->slot.word);
#if defined(PYRT_DEBUG)
    behind |= thread->slot.read_depth;
#endif
    if (pyrt_unlikely(behind != 0)) {
        PYRT_CALL(qsbr_quiescent_slow)(thread);
    }
}

/* The long ways of the debug forms below; call those. */
void pyrt_read_begin_counted(pyrt_thread *thread);
void pyrt_read_end_counted(pyrt_thread *thread);

/* Mark a read-side section. They cost nothing: being attached is what protects. Where PYRT_DEBUG is defined they are
 * counted, and a call between them that ends the section, or could have, is reported by name.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: yes · async-signal-safe: no */
static inline void
pyrt_read_begin(pyrt_thread *thread)
{
#if defined(PYRT_DEBUG)
    PYRT_CALL(read_begin_counted)(thread);
#else
    (void)thread;
#endif
}

static inline void
pyrt_read_end(pyrt_thread *thread)
{
#if defined(PYRT_DEBUG)
    PYRT_CALL(read_end_counted)(thread);
#else
    (void)thread;
#endif
}

/* ---- who is in the way ------------------------------------------------------------------------------------------- */

/* cdef: begin */
typedef struct pyrt_stall_report {
    uint32_t struct_size;   /* in: sizeof(pyrt_stall_report) */
    int32_t os_tid;         /* the kernel's thread id of the thread that is furthest behind */
    uint64_t thread_id;
    int64_t interp_id;
    uint64_t goal;          /* the oldest goal that is not reached */
    int64_t held_ns;        /* how long that goal has been waiting */
    uint64_t pending_items; /* what waits in the interpreter for this and later goals */
    uint64_t pending_bytes;
    char thread_name[32];
} pyrt_stall_report;

/* Names the attached thread that holds up the oldest goal of an interpreter. Errors: PYRT_ENOTFOUND if no goal is waiting or
 * nobody holds it up (the struct then says what is pending), PYRT_EINVAL for NULL or a wrong struct_size.
 * blocks: shortly · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_qsbr_stall_report(pyrt_interp *interp, pyrt_stall_report *out);
/* cdef: end */

/* ---- statistics -------------------------------------------------------------------------------------------------- */

/* The one list of the statistics of an interpreter: name, and whether two values merge by sum or by max. The struct, its
 * merge and the names come from here. A thread that waits for a goal does not ask the clock for its first few dozen looks
 * at the readers: a wait that ends by then is not timed, and of a longer one the stall report counts the time after them. */
#define PYRT_QSBR_STATS(X)                                                                                        \
    X(goals, sum)           /* grace periods begun: times that the interpreter's threads advanced the sequence */ \
    X(polls, sum)           /* times that a goal was asked for */                                                 \
    X(scans, sum)           /* of these, times that the readers had to be looked at */                            \
    X(synchronizes, sum)    /* waits for a goal */                                                                \
    X(sleeps, sum)          /* of these and of barriers, times that the thread went to sleep */                   \
    X(barriers, sum)        /* barriers completed */                                                              \
    X(retired, sum)         /* items retired */                                                                   \
    X(disposed, sum)        /* items disposed of */                                                               \
    X(pending_items, sum)   /* retired less disposed of */                                                        \
    X(pending_bytes, sum)   /* their bytes */                                                                     \
    X(busy, sum)            /* retires that were answered with PYRT_EBUSY */                                      \
    X(borrowed, sum)        /* queues taken from detached threads by barriers */                                  \
    X(orphaned, sum)        /* queues left behind by threads that ended */                                        \
    X(longest_grace_ns, max) /* longest time from finding a goal not reached to finding it reached */

typedef struct pyrt_qsbr_stats {
#define PYRT_X(name, merge) uint64_t name;
    PYRT_QSBR_STATS(PYRT_X)
#undef PYRT_X
} pyrt_qsbr_stats;

/* cdef: begin */
/* Writes the statistics in the order of PYRT_QSBR_STATS, at most `capacity` numbers, none if `values` is NULL, and answers how
 * many there are. A snapshot: threads go on while it is taken. NULL interp: 0.
 * blocks: shortly · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
size_t pyrt_qsbr_stats_read(pyrt_interp *interp, uint64_t *values, size_t capacity);

/* The name of the n-th statistic, or NULL behind the last.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
const char *pyrt_qsbr_stats_name(size_t n);
/* cdef: end */

PYRT_END_DECLS
#endif /* PYRUNTIME_QSBR_H */
