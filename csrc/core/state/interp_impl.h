/* interp_impl.h -- the interpreter, and the registry of all of them.
 *
 * An interpreter is a group of threads with a domain of readers of its own. It lives until pyrt_interp_delete succeeds, which
 * needs that no thread and no pin is left. Its memory stays until nothing in use of its heaps is left, so that its address never
 * means two interpreters to who compares it with what an object, a type or a weak reference has kept: these are in its heaps.
 */
#ifndef PYRT_STATE_INTERP_IMPL_H
#define PYRT_STATE_INTERP_IMPL_H

#include "epoch/qsbr.h"
#include "platform/raw_mutex.h"
#include "state/index_pool.h"
#include "state/stage.h"

#include <pyruntime/qsbr.h>

enum { PYRT_INTERP_NAME = 32 };

/* How often a time was in each of the spans of pause_stats.c. Written by whoever has the gate, read by anybody. */
enum { PYRT_PAUSE_SPANS = 328 };

typedef struct pyrt_pause_times {
    uint64_t spans[PYRT_PAUSE_SPANS];
    uint64_t total;
    uint64_t max;
} pyrt_pause_times;

typedef struct pyrt_pause_counts {
    uint64_t timed_out;
    uint64_t turns_lost;
    pyrt_pause_times to_stop;
    pyrt_pause_times stopped;
} pyrt_pause_counts;

/* A pause that somebody asked for. `missing` counts the threads that have not parked, and one more while they are being
 * asked; who takes it to zero wakes the requester, who sleeps on it. The rest is the requester's.
 *
 * State table of `claim`: in the low two bits
 *
 *   value      meaning                                   who sets it
 *   NONE       nobody's; all other bits are 0            who ends it, under the registry's lock
 *   ASKED      threads are asked, and waited for         the requester, with the gate, under the registry's lock
 *   OFFERED    complete, and the requester is in its     the requester, ASKED -> OFFERED
 *              host's block hook, until offered_until
 *   TAKEN      the requester has come back, or never     the requester, from ASKED or OFFERED
 *              slept
 *
 * and above them the os_id of the requester. Who waits for the end of one that was OFFERED for too long cancels it,
 * OFFERED -> NONE: a host that shuts down may keep the requester in the hook for ever (pause_offer.c). */
enum { PYRT_PAUSE_NONE, PYRT_PAUSE_ASKED, PYRT_PAUSE_OFFERED, PYRT_PAUSE_TAKEN };

typedef struct pyrt_pause {
    uint32_t missing;
    uint64_t claim;
    int64_t offered_until;
    uint64_t requester; /* os_id; and the kernel's thread id, for reports */
    int32_t requester_tid;
    int64_t asked_at;   /* when its turn had come */
    int64_t stopped_at; /* when nobody was missing any more; 0: somebody is */
    pyrt_pause_counts stats;
} pyrt_pause;

struct pyrt_interp {
    int64_t id;
    uint64_t owners; /* what the self_ids of its threads have in their upper bits; 0: they own nothing */
    char name[PYRT_INTERP_NAME];
    int whence;
    int use_main_allocator;
    int free_leaked_blocks;
    uint32_t keepers; /* of this memory, atomic: the interpreter while it lives, and its heaps, which may do so longer */

    /* Under the registry's lock. */
    struct pyrt_interp *next; /* oldest first */
    uint32_t pins;
    uint32_t visits; /* visits and glances that are under way */
    bool gate_taken; /* this OS thread's or that one's pause of this interpreter is on or under way */

    /* Guards everything from here to the domain. */
    pyrt_raw_mutex lock;
    bool ending;
    const void *ender;                     /* the thread-local block of who ends it */
    struct pyrt_thread_impl *threads;      /* newest first */
    struct pyrt_thread_impl *births;       /* those being made: nobody but the child of a fork asks for them */
    struct pyrt_thread_impl *free_threads; /* their memory and slots are used again, and freed with the interpreter */
    size_t thread_count;
    pyrt_index_pool indexes;
    pyrt_pause *pause;        /* the pause asked for: own_pause, the registry's, or NULL */
    bool stopped;             /* the pause is complete */
    pyrt_pause own_pause;
    pyrt_qsbr_stats stats;    /* of threads that ended, and of calls without a thread; added to atomically */

    pyrt_qsbr_domain domain;

    void *stage[PYRT_STAGES];
};

typedef struct pyrt_registry {
    pyrt_raw_mutex lock; /* the first in the order of locks */
    uint32_t users;      /* inits not undone */
    bool ending;         /* the last fini is under way */
    const void *ender;   /* the thread-local block of who calls it */
    pyrt_interp *interps;
    pyrt_interp *main;   /* also read without the lock, acquire */
    int64_t next_interp_id;

    /* The gate: who may pause whom (pause_gate.c). */
    bool global_taken;
    uint32_t gates_taken;          /* by pauses of single interpreters */
    struct pyrt_pause_turn *turns; /* requests that have not had their turn, oldest first */
    uint32_t turn;                 /* changes whenever somebody's turn may have come; waiters sleep on it */
    pyrt_pause global_pause;
} pyrt_registry;

extern pyrt_registry pyrt_the_registry;

/* What a call with `thread or NULL` means: the thread's interpreter, the attached state's, or the main one. NULL without
 * runtime. */
pyrt_interp *pyrt_interp_of(pyrt_thread *or_null);

/* One keeper of its memory less; the last one frees it. */
void pyrt_interp_let_go(pyrt_interp *interp);

/* Takes back the ends of interpreters and of the runtime that cannot be finished: those of this OS thread, which ends itself;
 * or, in the child of a fork and without a lock, those of all others. */
void pyrt_ends_cancel(bool mine);

/* From one interpreter to the next, oldest first; NULL behind the last. This OS thread *visits* the one that it is at, which
 * keeps it alive as a pin does, but ends with the OS thread, and in the child of a fork for all but the one that forks. */
pyrt_interp *pyrt_interp_visit_next(void);
void pyrt_interp_visit_end(void);
void pyrt_interp_visits_fork_child(pyrt_interp *interp);

/* The interpreter with this id, kept alive for the caller's next steps, in which no user code runs but a report hook; NULL if
 * there is none, or it is ending. A visit beside the one above: a fork in the middle does not leave it in the child, as it
 * would leave a pin. */
pyrt_interp *pyrt_interp_glance(int64_t id);
void pyrt_interp_glance_end(pyrt_interp *interp);

/* Adds to a statistic of the interpreter without a thread of one's own. */
#define PYRT_INTERP_COUNT(interp, name, n) ((void)pyrt_fetch_add_relaxed(&(interp)->stats.name, (uint64_t)(n)))

/* Merge statistics; others may add to `sum` and `max` at the same time. */
void pyrt_qsbr_stats_raise(uint64_t *max, uint64_t value);
void pyrt_qsbr_stats_add(pyrt_qsbr_stats *sum, const pyrt_qsbr_stats *more);

/* Makes the statistics say that so much is pending; while nobody else counts. */
void pyrt_qsbr_stats_settle(pyrt_interp *interp, uint64_t items, uint64_t bytes);

#endif
