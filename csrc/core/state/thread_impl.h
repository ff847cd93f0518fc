/* thread_impl.h -- the private thread state behind the public one.
 *
 * Every pyrt_thread is the first member of a pyrt_thread_impl, so that casting either way is safe. The memory of a state
 * belongs to its interpreter and is used again for later states: the slot in it must never go away under a scan.
 */
#ifndef PYRT_STATE_THREAD_IMPL_H
#define PYRT_STATE_THREAD_IMPL_H

#include "platform/os_thread.h"
#include "state/interp_impl.h"

typedef struct pyrt_thread_impl {
    pyrt_thread base;

    /* Under the interpreter's lock. */
    struct pyrt_thread_impl *next;     /* in threads, births or free_threads */
    struct pyrt_thread_impl *previous; /* in threads or births */
    bool counted;                      /* in `missing` of the pause that was asked for */
    int64_t turn_until;                /* pauses let it attach first, until then; 0, also set by the owner: no need */
    char name[PYRT_OS_THREAD_NAME];

    /* The owner's. */
    struct pyrt_thread_impl *next_of_os_thread;
    bool ending;                       /* the end has begun: no new slots, no second end */
    uint32_t held;                     /* disposers run on it, so many deep: it cannot end, nor be borrowed from */
    uint32_t kept;                     /* calls further out return to it, so many: it cannot end */
    int32_t os_tid;
    unsigned char *slots;              /* PYRT_THREAD_SLOT_MAX times PYRT_THREAD_SLOT_SIZE bytes, or NULL */
    uint64_t slots_live;               /* bit set: init has run, exit has not */
    struct pyrt_ensure_frame *frames;  /* of the ensures that returned it, newest first */

    /* Written by the owner with PYRT_COUNT, read by anybody. */
    pyrt_qsbr_stats stats;

    void *stage[PYRT_STAGES];
} pyrt_thread_impl;

PYRT_STATIC_ASSERT(offsetof(pyrt_thread_impl, base) == 0, "casting between the two is the identity");

static inline pyrt_thread_impl *
pyrt_thread_impl_of(pyrt_thread *thread)
{
    return (pyrt_thread_impl *)thread;
}

/* Adds to a statistic that only this OS thread writes. relaxed: readers want some recent value. */
#define PYRT_COUNT(thread, name, n) \
    pyrt_store_relaxed(&(thread)->stats.name, pyrt_load_relaxed(&(thread)->stats.name) + (uint64_t)(n))

/* Counts for the attached state if it is one of the interpreter, else for the interpreter. */
#define PYRT_COUNT_FOR(interp_, name, n)                         \
    do {                                                         \
        pyrt_thread *current_ = pyrt_thread_current();           \
        if (current_ != NULL && current_->interp == (interp_)) { \
            PYRT_COUNT(pyrt_thread_impl_of(current_), name, n);  \
        }                                                        \
        else {                                                   \
            PYRT_INTERP_COUNT(interp_, name, n);                 \
        }                                                        \
    } while (0)

/* Reports misuse by `function`: "thread <id> '<name>' of interpreter <id> <what>". */
void pyrt_report_thread(const char *function, pyrt_thread *thread, const char *what);

/* Critical sections (critical_section.c). All of an attached state are given up; those of a state that ends are forgotten,
 * which is reported. */
void pyrt_critical_sections_suspend(pyrt_thread *thread);
void pyrt_critical_sections_forget(pyrt_thread *thread);

/* Reports that `function` was called in an open counted read-side section of the thread that is attached here, and says
 * whether it was. */
bool pyrt_is_reading(const char *function);

/* pyrt_thread_new that says why not: PYRT_ENOMEM, PYRT_ESTATE for an interpreter that is NULL or ending, or what the init of
 * a slot refused with. And its undoing, for a state that has never been attached: it does not wait for the end of a pause. */
pyrt_status pyrt_thread_make(pyrt_interp *interp, pyrt_thread **out);
void pyrt_thread_unmake(pyrt_thread *made);

/* Ends a state that is bound to this OS thread and detached; another attached state is put aside for the time. */
void pyrt_thread_end(pyrt_thread_impl *thread);

/* Puts things right after user code, which may have left another state attached, or this one detached. */
void pyrt_thread_attach_again(pyrt_thread_impl *thread);

/* Whether a goal is reached, looking at the readers if need be; counts and watches it. */
bool pyrt_qsbr_poll_interp(pyrt_interp *interp, uint64_t goal);

/* Waits until a goal is reached in an interpreter or the deadline has passed; says whether it is reached. The attached state
 * of this OS thread passes, and is detached while it sleeps. */
bool pyrt_qsbr_wait_for(pyrt_interp *interp, uint64_t goal, int64_t deadline);

/* Runs `wait` with the attached state of this OS thread detached and the host's locks let go. */
bool pyrt_sleep_detached(bool (*wait)(void *arg), void *arg);

/* Whether a thread that does not run code of the library, detached or in a pause, is held so until it is let go; `*suspended` is
 * for that. The caller holds the interpreter's lock throughout. */
bool pyrt_thread_hold_still(pyrt_thread_impl *thread, bool *suspended);
void pyrt_thread_let_go(pyrt_thread_impl *thread, bool suspended);

/* Whether the state is one of the calling OS thread and may end now; reports why not. */
bool pyrt_thread_may_end(pyrt_thread_impl *thread, const char *function);

/* Slots (thread_slots.c). */
pyrt_status pyrt_slots_init(pyrt_thread_impl *thread);
void pyrt_slots_exit(pyrt_thread_impl *thread);
void pyrt_slots_free(pyrt_thread_impl *thread);
void pyrt_slots_forget_all(void);
void pyrt_slots_fork_child(void);

/* What one pyrt_thread_ensure found, or several in a row that found the same (ensure.c). */
typedef struct pyrt_ensure_frame {
    struct pyrt_ensure_frame *next; /* the ensure before it */
    struct pyrt_ensure_frame *next_of_thread; /* the one before it that returned the same state */
    pyrt_thread *thread;            /* what it returned */
    pyrt_thread *found;             /* the state that was attached, or NULL */
    bool made;                      /* whether the ensure made `thread` */
    uint32_t count;
    uint32_t disposing;             /* disposers that were running: one further in cannot release it */
} pyrt_ensure_frame;

/* Frees the frames of this OS thread. */
void pyrt_ensure_drop_all(void);

/* A state is ending: frees the frames that an exit hook or disposer has left behind for it, and reports them. */
void pyrt_ensure_forget(pyrt_thread_impl *thread);

/* In the child of a fork: frees the frames of a state whose OS thread is not there any more. */
void pyrt_ensure_lose(pyrt_thread_impl *thread);

/* Pauses, the thread's side (pause_park.c). Park at a safepoint if a pause is asked for; count a thread that has just become
 * detached or that is being unlinked, the latter under the interpreter's lock; it has attached after a wait. */
void pyrt_pause_park(pyrt_thread_impl *thread);
void pyrt_pause_count_detached(pyrt_thread_impl *thread);
void pyrt_pause_uncount(pyrt_thread_impl *thread);
void pyrt_pause_had_turn(pyrt_thread_impl *thread);

/* Whether this OS thread has stopped the interpreter, alone or with the whole process; NULL: the whole process. */
bool pyrt_pause_is_mine(pyrt_interp *or_null);

/* Waits until no pause stops the interpreter, and then keeps everybody from beginning one, until the end of this or of the OS
 * thread; nobody is stopped by it. PYRT_ETIMEDOUT; PYRT_ESTATE in a pause of one's own, or if there is nothing to stop any
 * more. */
pyrt_status pyrt_pause_hold_off(pyrt_interp *interp, int64_t deadline);
void pyrt_pause_hold_off_end(pyrt_interp *interp);

/* The OS thread ends with the world stopped, or waiting for its turn; in the child of a fork. */
void pyrt_pause_end_of_os_thread(void);
void pyrt_pause_fork_child(void);

/* Fork handlers, installed by the first init (fork.c). PYRT_ENOMEM if the system refuses. */
pyrt_status pyrt_fork_install_handlers(void);

#endif
