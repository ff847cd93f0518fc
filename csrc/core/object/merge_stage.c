/* merge_stage.c -- merge queues in the life of interpreters and threads: when they are worked off, closed, freed, forked.
 *
 * A thread that ends first stops being an owner: from then on it counts in the shared words like everybody else, so that what its
 * disposers and destructors still drop is right. Then it merges what it was asked for, until its queue is empty and can be closed.
 */
#include "object/death.h"
#include "object/merge_queue.h"
#include "platform/meta_alloc.h"
#include "platform/report.h"

/* ---- work -------------------------------------------------------------------------------------------------------- */

static void
thread_work(pyrt_thread_impl *thread)
{
    pyrt_merge_queue *queue = pyrt_merge_queue_of(thread);
    if (pyrt_load_relaxed(&thread->base.slot.flags) & PYRT_FLAG_MERGE) {
        /* seq_cst: before the look into the queue. Pairs with the push and then the flag of who asks. */
        pyrt_fetch_and_seq_cst(&thread->base.slot.flags, ~PYRT_FLAG_MERGE);
        pyrt_merge_all(queue, &pyrt_tls()->dead);
        pyrt_merge_run_dead(thread->base.interp);
        pyrt_thread_attach_again(thread);
    }
}

void
pyrt_merge_refcounts(pyrt_thread *thread)
{
    pyrt_thread_impl *impl = pyrt_thread_impl_of(thread);
    if (thread == NULL || pyrt_tls()->os_id == 0 || thread->os_id != pyrt_tls()->os_id) {
        pyrt_report("pyrt_merge_refcounts: the thread is not one of this OS thread");
        return;
    }
    pyrt_interp *interp = thread->interp;
    if (pyrt_thread_current() == thread) {
        pyrt_merge_all(pyrt_merge_queue_of(impl), &pyrt_tls()->dead);
    }
    else {
        pyrt_raw_mutex_lock(&interp->lock);
        (void)pyrt_merge_borrow(pyrt_merge_queue_of(impl), &pyrt_tls()->dead);
        pyrt_raw_mutex_unlock(&interp->lock);
    }
    pyrt_merge_run_dead(interp);
}

/* Everybody's: of those that are detached or stand still now; the others are asked, and have merged when they have answered the
 * barrier at a safepoint. */
static void
barrier(pyrt_interp *interp)
{
    pyrt_thread *current = pyrt_thread_current();
    pyrt_raw_mutex_lock(&interp->lock);
    for (pyrt_thread_impl *thread = interp->threads; thread != NULL; thread = thread->next) {
        pyrt_merge_queue *queue = pyrt_merge_queue_of(thread);
        if (&thread->base == current) {
            pyrt_merge_all(queue, &pyrt_tls()->dead);
        }
        else if (!pyrt_merge_borrow(queue, &pyrt_tls()->dead) && pyrt_load_relaxed(&queue->head) != NULL) {
            pyrt_fetch_or_seq_cst(&thread->base.slot.flags, PYRT_FLAG_MERGE);
        }
    }
    pyrt_raw_mutex_unlock(&interp->lock);
    pyrt_merge_run_dead(interp);
}

/* Asks one to destroy what stands in the interpreter's list: one that is attached, as long as there is one. Under the
 * interpreter's lock. */
static void
ask_somebody(pyrt_interp *interp, pyrt_thread_impl *or_else)
{
    pyrt_thread_impl *thread = interp->threads;
    while (thread != NULL && pyrt_load_relaxed(&thread->base.slot.word) % 2 == 0) {
        thread = thread->next;
    }
    pyrt_fetch_or_seq_cst(&(thread != NULL ? thread : or_else)->base.slot.flags, PYRT_FLAG_MERGE);
}

/* It may sleep for long now: what it was asked for is merged. It must not run user code here, so others destroy what that ends. */
static void
thread_detached(pyrt_thread_impl *thread)
{
    pyrt_interp *interp = thread->base.interp;
    pyrt_object *dead = NULL;
    bool suspended;
    pyrt_raw_mutex_lock(&interp->lock);
    pyrt_fetch_and_seq_cst(&thread->base.slot.flags, ~PYRT_FLAG_MERGE);
    if (pyrt_thread_hold_still(thread, &suspended)) {
        pyrt_merge_all(pyrt_merge_queue_of(thread), &dead);
    }
    pyrt_thread_let_go(thread, suspended);
    pyrt_merge_leave_dead(interp, dead);
    if (pyrt_load_relaxed(&pyrt_merge_of_interp(interp)->dead) != NULL) {
        ask_somebody(interp, thread);
    }
    pyrt_raw_mutex_unlock(&interp->lock);
}

/* ---- the life of a thread ---------------------------------------------------------------------------------------- */

/* A state whose memory is used again has its queue already. */
static pyrt_status
thread_init(pyrt_thread_impl *thread)
{
    pyrt_merge_queue *queue = pyrt_merge_queue_of(thread);
    if (queue == NULL) {
        queue = pyrt_meta_alloc(sizeof(*queue));
        if (queue == NULL) {
            return PYRT_ENOMEM;
        }
        queue->thread = thread;
        queue->head = PYRT_QUEUE_CLOSED;
        thread->stage[PYRT_STAGE_MERGE] = queue;
    }
    /* One that owns nothing has a queue all the same, under a name that no object has. */
    pyrt_merge_open(queue, thread->base.self_id != 0 ? thread->base.self_id : thread->base.id);
    return PYRT_OK;
}

/* It owns nothing any more that it counts by itself, and takes no more questions. The second time there is nothing to do: user
 * code may have ended the OS thread in the middle of the end of a state, which then ends once more. */
static void
close_queue(pyrt_merge_queue *queue, pyrt_object **dead)
{
    pyrt_interp *interp = queue->thread->base.interp;
    bool closed = queue->owner == 0;
    while (!closed) {
        pyrt_merge_all(queue, dead);
        pyrt_dead_run();
        pyrt_raw_mutex_lock(&interp->lock);
        closed = pyrt_merge_close(queue);
        if (closed) {
            pyrt_merge_unlist(queue);
        }
        pyrt_raw_mutex_unlock(&interp->lock);
    }
}

static void
thread_exit(pyrt_thread_impl *thread)
{
    thread->base.self_id = 0;
    pyrt_tls()->self_id = 0;
    close_queue(pyrt_merge_queue_of(thread), &pyrt_tls()->dead);
    /* It may have been asked to. */
    pyrt_merge_run_dead(thread->base.interp);
}

/* A birth that is given up has a queue that is open, and nothing in it: it has never owned anything. */
static void
thread_fini(pyrt_thread_impl *thread)
{
    pyrt_merge_queue *queue = pyrt_merge_queue_of(thread);
    if (queue != NULL) {
        close_queue(queue, &pyrt_tls()->dead);
    }
}

/* ---- the life of an interpreter ---------------------------------------------------------------------------------- */

static pyrt_status
interp_init(pyrt_interp *interp)
{
    pyrt_merge_interp *merge = pyrt_meta_alloc(sizeof(*merge));
    interp->stage[PYRT_STAGE_MERGE] = merge;
    return merge == NULL ? PYRT_ENOMEM : PYRT_OK;
}

/* The heap goes with all others of the interpreter. */
static void
interp_fini(pyrt_interp *interp)
{
    for (pyrt_thread_impl *thread = interp->free_threads; thread != NULL; thread = thread->next) {
        pyrt_meta_free(thread->stage[PYRT_STAGE_MERGE], sizeof(pyrt_merge_queue));
        thread->stage[PYRT_STAGE_MERGE] = NULL;
    }
    pyrt_meta_free(interp->stage[PYRT_STAGE_MERGE], sizeof(pyrt_merge_interp));
    interp->stage[PYRT_STAGE_MERGE] = NULL;
}

static pyrt_status
interp_drain(pyrt_interp *interp)
{
    pyrt_merge_run_dead(interp);
    return PYRT_OK;
}

/* ---- fork -------------------------------------------------------------------------------------------------------- */

static void
each_queue(pyrt_interp *interp, void (*fn)(pyrt_raw_mutex *))
{
    pyrt_thread_impl *lists[] = {interp->threads, interp->births};
    for (int i = 0; i < 2; i++) {
        for (pyrt_thread_impl *thread = lists[i]; thread != NULL; thread = thread->next) {
            if (pyrt_merge_queue_of(thread) != NULL) {
                fn(&pyrt_merge_queue_of(thread)->lock);
            }
        }
    }
}

static void
fork_prepare(pyrt_interp *interp)
{
    each_queue(interp, pyrt_raw_mutex_lock);
    pyrt_raw_mutex_lock(&pyrt_merge_of_interp(interp)->lock);
}

static void
fork_parent(pyrt_interp *interp)
{
    pyrt_raw_mutex_unlock(&pyrt_merge_of_interp(interp)->lock);
    each_queue(interp, pyrt_raw_mutex_unlock);
}

static void
fork_child(pyrt_interp *interp)
{
    pyrt_raw_mutex_reinit(&pyrt_merge_of_interp(interp)->lock);
    each_queue(interp, pyrt_raw_mutex_reinit);
}

static void
process_fork_prepare(void)
{
    pyrt_raw_mutex_lock(&pyrt_merge_ended_lock);
}

static void
process_fork_parent(void)
{
    pyrt_raw_mutex_unlock(&pyrt_merge_ended_lock);
}

static void
process_fork_child(void)
{
    pyrt_raw_mutex_reinit(&pyrt_merge_ended_lock);
}

/* What it was asked for is merged, and what that ends is destroyed by those that are left. What it was destroying itself, or
 * was just about to queue, is lost: it stays as it is. */
static void
thread_lost(pyrt_thread_impl *thread)
{
    pyrt_merge_queue *queue = pyrt_merge_queue_of(thread);
    pyrt_interp *interp = thread->base.interp;
    if (queue == NULL || queue->owner == 0) {
        return;
    }
    pyrt_merge_all(queue, &pyrt_merge_of_interp(interp)->dead);
    (void)pyrt_merge_close(queue);
    pyrt_merge_unlist(queue);
}

/* Those that are left see to what lost threads have left: the dead, and what was put into a queue whose owner has not been told
 * yet. */
static void
fork_settle(pyrt_interp *interp)
{
    for (pyrt_thread_impl *thread = interp->threads; thread != NULL; thread = thread->next) {
        if (pyrt_merge_of_interp(interp)->dead != NULL || pyrt_merge_queue_of(thread)->head != NULL) {
            pyrt_fetch_or_seq_cst(&thread->base.slot.flags, PYRT_FLAG_MERGE);
        }
    }
}

__attribute__((constructor)) static void
register_stage(void)
{
    static const pyrt_stage stage = {
        .interp_init = interp_init,
        .interp_fini = interp_fini,
        .interp_drain = interp_drain,
        .thread_init = thread_init,
        .thread_fini = thread_fini,
        .thread_work = thread_work,
        .thread_detached = thread_detached,
        .barrier = barrier,
        .thread_exit = thread_exit,
        .os_thread_exit = pyrt_dead_end_of_os_thread,
        .fork_prepare = fork_prepare,
        .fork_parent = fork_parent,
        .fork_child = fork_child,
        .thread_lost = thread_lost,
        .fork_settle = fork_settle,
        .process = {process_fork_prepare, process_fork_parent, process_fork_child},
    };
    pyrt_stage_register(PYRT_STAGE_MERGE, &stage);
}
