/* barrier.c -- waiting until all that was retired before has been disposed of, whoever retired it and wherever he is now.
 *
 * A barrier collects first: it takes the queues of detached threads (a detached thread belongs to whoever suspends it, for
 * the moment, under the interpreter's lock), and asks the attached ones, which hand theirs over at the next safepoint. A
 * thread that is disposing is asked as well, and answers when it is done. Then it waits for a goal advanced after all that,
 * and works off the orphans, where everything has gone. No thread needs to be awake for it but those that are attached. In the
 * end what heaps keep goes back that those readers could have looked at.
 */
#include "platform/futex.h"
#include "platform/report.h"
#include "reclaim/reclaim.h"

#include <limits.h>

/* ---- collecting -------------------------------------------------------------------------------------------------- */

/* Takes the queue and says so to all barriers that have asked for it, not only to the one that takes it: they sleep, and
 * the thread will find the flag gone. The caller holds the interpreter's lock and the state. */
static bool
collect(pyrt_thread_impl *thread)
{
    pyrt_interp *interp = thread->base.interp;
    bool any = pyrt_reclaim_hand_over(thread);
    pyrt_reclaim_of(thread)->collected = pyrt_reclaim_of_interp(interp)->barriers;
    if (pyrt_fetch_and_seq_cst(&thread->base.slot.flags, ~PYRT_FLAG_COLLECT) & PYRT_FLAG_COLLECT) {
        pyrt_qsbr_wake(&interp->domain);
    }
    return any;
}

/* Collects from a thread that is detached or stands still in a pause. The caller holds the interpreter's lock, without
 * which neither a suspended thread is let go nor its queue touched. */
static bool
borrow(pyrt_thread_impl *thread)
{
    bool suspended;
    bool collected = pyrt_thread_hold_still(thread, &suspended) && thread->held == 0;
    if (collected && collect(thread)) {
        PYRT_INTERP_COUNT(thread->base.interp, borrowed, 1);
    }
    pyrt_thread_let_go(thread, suspended);
    return collected;
}

/* Collects from whom it can, asks the others, and answers how many those are. */
static size_t
collect_round(pyrt_interp *interp, pyrt_thread_impl *self, uint64_t barrier)
{
    size_t missing = 0;
    pyrt_raw_mutex_lock(&interp->lock);
    for (pyrt_thread_impl *thread = interp->threads; thread != NULL; thread = thread->next) {
        pyrt_reclaim_thread *theirs = pyrt_reclaim_of(thread);
        if (theirs == NULL || theirs->collected >= barrier) {
            continue;
        }
        if (thread == self) {
            (void)collect(thread);
        }
        else if (!borrow(thread)) {
            pyrt_fetch_or_seq_cst(&thread->base.slot.flags, PYRT_FLAG_COLLECT);
            missing++;
        }
    }
    pyrt_raw_mutex_unlock(&interp->lock);
    return missing;
}

void
pyrt_reclaim_answer_barrier(pyrt_thread_impl *thread)
{
    pyrt_interp *interp = thread->base.interp;
    if ((pyrt_load_relaxed(&thread->base.slot.flags) & PYRT_FLAG_COLLECT) == 0) {
        return;
    }
    pyrt_raw_mutex_lock(&interp->lock);
    (void)collect(thread);
    pyrt_raw_mutex_unlock(&interp->lock);
}

void
pyrt_reclaim_collect_detached(pyrt_thread_impl *thread)
{
    pyrt_interp *interp = thread->base.interp;
    pyrt_raw_mutex_lock(&interp->lock);
    if (pyrt_reclaim_of(thread) != NULL) {
        (void)borrow(thread);
    }
    pyrt_raw_mutex_unlock(&interp->lock);
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

typedef struct word_wait {
    const uint32_t *word;
    uint32_t seen;
    int64_t deadline;
} word_wait;

static bool
sleep_on_word(void *arg)
{
    word_wait *wait = arg;
    return pyrt_futex_wait(wait->word, wait->seen, wait->deadline);
}

static bool
is_stopped_by_caller(pyrt_interp *interp)
{
    pyrt_raw_mutex_lock(&interp->lock);
    bool stopped = interp->stopped && interp->pause->requester == pyrt_tls()->os_id;
    pyrt_raw_mutex_unlock(&interp->lock);
    return stopped;
}

static pyrt_status
collect_all(pyrt_interp *interp, pyrt_thread_impl *self, int64_t deadline)
{
    pyrt_raw_mutex_lock(&interp->lock);
    uint64_t barrier = ++pyrt_reclaim_of_interp(interp)->barriers;
    pyrt_raw_mutex_unlock(&interp->lock);
    for (bool in_time = true;;) {
        uint32_t wakeups = pyrt_qsbr_wakeups(&interp->domain);
        if (collect_round(interp, self, barrier) == 0) {
            return PYRT_OK;
        }
        /* Pairs with "store word, light barrier, load flags" of detach: after it a thread that has detached without seeing
         * COLLECT is seen as detached. */
        bool ordered = pyrt_membarrier();
        if (collect_round(interp, self, barrier) == 0) {
            return PYRT_OK;
        }
        if (is_stopped_by_caller(interp)) {
            /* Who is missing is parked in a disposer, until this OS thread starts the world again. */
            return PYRT_EDEADLK;
        }
        if (!in_time) {
            return PYRT_ETIMEDOUT;
        }
        int64_t until = deadline;
        if (!ordered && pyrt_now_ns() + PYRT_WITHOUT_MEMBARRIER_NS < deadline) {
            until = pyrt_now_ns() + PYRT_WITHOUT_MEMBARRIER_NS;
        }
        PYRT_COUNT(self, sleeps, 1);
        in_time =
            pyrt_sleep_detached(sleep_on_word, &(word_wait){&interp->domain.wakeups, wakeups, until}) || until != deadline;
    }
}

static bool
wait_everywhere(uint64_t goal, int64_t deadline)
{
    bool reached = true;
    pyrt_interp *interp;
    while (reached && (interp = pyrt_interp_visit_next()) != NULL) {
        reached = pyrt_qsbr_wait_for(interp, goal, deadline);
    }
    pyrt_interp_visit_end();
    return reached;
}

static bool
wait_for(pyrt_interp *or_null, uint64_t goal, int64_t deadline)
{
    return or_null != NULL ? pyrt_qsbr_wait_for(or_null, goal, deadline) : wait_everywhere(goal, deadline);
}

/* Works a shared queue off up to what is reached, after whoever is at it now. What was in it when the barrier sealed it
 * is reached by then, but for a batch that has taken later nodes, and their goal, in since. */
static bool
run_all(pyrt_shared_queue *shared, pyrt_interp *or_null, pyrt_thread_impl *self, uint32_t end_of_batches, int64_t deadline)
{
    size_t count = 0;
    for (bool in_time = true;;) {
        uint32_t turn = pyrt_load_acquire(&shared->turn);
        if (pyrt_shared_run(shared, or_null, self, &count)) {
            uint64_t goal;
            if (!pyrt_shared_has_batch_before(shared, end_of_batches, &goal)) {
                return true;
            }
            if (!wait_for(or_null, goal, deadline)) {
                return false;
            }
            continue;
        }
        if (!in_time) {
            return false;
        }
        in_time = pyrt_sleep_detached(sleep_on_word, &(word_wait){&shared->turn, turn, deadline});
    }
}

static bool
finish(pyrt_shared_queue *shared, pyrt_interp *or_null, pyrt_thread_impl *self, int64_t deadline)
{
    uint32_t end_of_batches = pyrt_shared_seal(shared);
    return wait_for(or_null, pyrt_qsbr_advance(self->base.interp), deadline) &&
           run_all(shared, or_null, self, end_of_batches, deadline);
}

/* What the floors above have waiting in the threads: ending that may retire more, so it comes first. */
static void
finish_stages(pyrt_thread_impl *self)
{
    for (int i = 0; i < PYRT_STAGES; i++) {
        if (pyrt_stages[i] != NULL && pyrt_stages[i]->barrier != NULL) {
            pyrt_stages[i]->barrier(self->base.interp);
            pyrt_thread_attach_again(self);
        }
    }
}

/* What the floors above keep that nobody needs. */
static void
release_stages(pyrt_interp *interp)
{
    for (int i = 0; i < PYRT_STAGES; i++) {
        if (pyrt_stages[i] != NULL && pyrt_stages[i]->interp_release != NULL) {
            pyrt_stages[i]->interp_release(interp);
        }
    }
}

static pyrt_status
barrier(pyrt_thread_impl *self, int64_t deadline, bool releases)
{
    pyrt_interp *interp = self->base.interp;
    finish_stages(self);
    pyrt_status status = collect_all(interp, self, deadline);
    if (status != PYRT_OK) {
        return status;
    }
    finish_stages(self);
    if (releases) {
        release_stages(interp);
    }
    if (!finish(&pyrt_reclaim_of_interp(interp)->orphans, interp, self, deadline)) {
        return PYRT_ETIMEDOUT;
    }
    /* acquire: pairs with the release of the last runner. */
    bool is_empty =
        pyrt_load_acquire(&pyrt_global_queue.filled) == 0 && pyrt_load_acquire(&pyrt_global_queue.runner) == NULL;
    if (!is_empty && !finish(&pyrt_global_queue, NULL, self, deadline)) {
        return PYRT_ETIMEDOUT;
    }
    if (releases) {
        release_stages(interp);
    }
    return PYRT_OK;
}

/* ---- the calls --------------------------------------------------------------------------------------------------- */

pyrt_status
pyrt_qsbr_barrier_timed(pyrt_thread *or_null, int64_t timeout_ns)
{
    pyrt_interp *interp = pyrt_interp_of(or_null);
    if (interp == NULL || pyrt_is_reading("pyrt_qsbr_barrier")) {
        return PYRT_ESTATE;
    }
    if (pyrt_tls()->disposing != 0) {
        return PYRT_EDEADLK;
    }
    int64_t deadline = pyrt_deadline_after(timeout_ns);
    pyrt_thread *self;
    pyrt_status status = pyrt_thread_ensure_timed(interp, timeout_ns, 0, &self);
    if (status != PYRT_OK) {
        return status;
    }
    /* Who asks in passing asks often. */
    status = barrier(pyrt_thread_impl_of(self), deadline, timeout_ns != 0);
    PYRT_COUNT(pyrt_thread_impl_of(self), barriers, status == PYRT_OK);
    pyrt_thread_release(self);
    return status;
}

pyrt_status
pyrt_qsbr_barrier(pyrt_thread *or_null)
{
    return pyrt_qsbr_barrier_timed(or_null, -1);
}
