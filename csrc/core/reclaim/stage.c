/* stage.c -- reclamation in the life of interpreters and threads: made, emptied, freed, forked. */
#include "platform/meta_alloc.h"
#include "platform/report.h"
#include "reclaim/reclaim.h"

/* Disposers that go on retiring are followed so far before the end of an interpreter is refused. */
enum { DRAIN_ROUNDS = 1000 };

static pyrt_status
interp_init(pyrt_interp *interp)
{
    pyrt_reclaim_interp *reclaim = pyrt_meta_alloc(sizeof(*reclaim));
    if (reclaim == NULL) {
        return PYRT_ENOMEM;
    }
    reclaim->orphans.queue.window = &reclaim->orphans.window;
    reclaim->bound_items = PYRT_BOUND_ITEMS;
    reclaim->bound_bytes = PYRT_BOUND_BYTES;
    interp->stage[PYRT_STAGE_RETIRE] = reclaim;
    return PYRT_OK;
}

static bool
is_main(const pyrt_interp *interp)
{
    return interp == pyrt_interp_main();
}

static void
interp_fini(pyrt_interp *interp)
{
    pyrt_reclaim_interp *reclaim = pyrt_reclaim_of_interp(interp);
    interp->stage[PYRT_STAGE_RETIRE] = NULL;
    pyrt_queue_fini(&reclaim->orphans.queue);
    pyrt_meta_free(reclaim, sizeof(*reclaim));
    if (interp->id == 0) {
        pyrt_queue_fini(&pyrt_global_queue.queue);
    }
}

static void
run_everything(pyrt_shared_queue *shared, pyrt_interp *or_null)
{
    size_t count = 0;
    pyrt_thread *current = pyrt_thread_current();
    pyrt_shared_seal(shared);
    (void)pyrt_shared_run(shared, or_null, current == NULL ? NULL : pyrt_thread_impl_of(current), &count);
}

static bool
is_empty(pyrt_shared_queue *shared)
{
    pyrt_raw_mutex_lock(&shared->lock);
    bool empty = pyrt_queue_is_empty(&shared->queue);
    pyrt_raw_mutex_unlock(&shared->lock);
    return empty;
}

static pyrt_status
interp_drain(pyrt_interp *interp)
{
    pyrt_shared_queue *orphans = &pyrt_reclaim_of_interp(interp)->orphans;
    bool empty = false;
    for (int round = 0; round < DRAIN_ROUNDS && !empty; round++) {
        run_everything(orphans, interp);
        if (is_main(interp)) {
            run_everything(&pyrt_global_queue, NULL);
        }
        empty = is_empty(orphans) && (!is_main(interp) || is_empty(&pyrt_global_queue));
    }
    return empty ? PYRT_OK : PYRT_EBUSY;
}

static void
interp_give_up(pyrt_interp *interp)
{
    pyrt_shared_give_up(&pyrt_reclaim_of_interp(interp)->orphans, interp);
    if (is_main(interp)) {
        pyrt_shared_give_up(&pyrt_global_queue, interp);
    }
}

static pyrt_status
thread_init(pyrt_thread_impl *thread)
{
    pyrt_reclaim_thread *reclaim = pyrt_meta_alloc(sizeof(*reclaim));
    if (reclaim == NULL) {
        return PYRT_ENOMEM;
    }
    reclaim->next_skip = 1;
    thread->base.retire = (pyrt_retire_window){0};
    reclaim->queue.window = &thread->base.retire;
    /* Barriers that have begun before its birth want nothing of it. */
    pyrt_raw_mutex_lock(&thread->base.interp->lock);
    reclaim->collected = pyrt_reclaim_of_interp(thread->base.interp)->barriers;
    pyrt_raw_mutex_unlock(&thread->base.interp->lock);
    thread->stage[PYRT_STAGE_RETIRE] = reclaim;
    return PYRT_OK;
}

/* Under the interpreter's lock. */
static void
thread_stats(pyrt_thread_impl *thread, pyrt_qsbr_stats *sum)
{
    if (pyrt_reclaim_of(thread) != NULL) {
        pyrt_queue_count(&pyrt_reclaim_of(thread)->queue, &sum->retired, &sum->pending_bytes);
    }
}

/* A barrier of another thread, or who adds up statistics, may be looking at it. */
static void
thread_fini(pyrt_thread_impl *thread)
{
    pyrt_interp *interp = thread->base.interp;
    pyrt_raw_mutex_lock(&interp->lock);
    pyrt_reclaim_thread *reclaim = pyrt_reclaim_of(thread);
    pyrt_qsbr_stats counted = {0};
    thread_stats(thread, &counted);
    pyrt_qsbr_stats_add(&thread->stats, &counted);
    thread->stage[PYRT_STAGE_RETIRE] = NULL;
    pyrt_raw_mutex_unlock(&interp->lock);
    if (reclaim != NULL) {
        pyrt_queue_fini(&reclaim->queue);
        pyrt_meta_free(reclaim, sizeof(*reclaim));
    }
}

/* Disposes of what it can and leaves the rest to the others. Where many threads come and go, nobody else may have a reason
 * to look at the orphans: so this thread does. */
static void
thread_exit(pyrt_thread_impl *thread)
{
    pyrt_reclaim_thread *mine = pyrt_reclaim_of(thread);
    pyrt_interp *interp = thread->base.interp;
    pyrt_shared_queue *orphans = &pyrt_reclaim_of_interp(interp)->orphans;
    if (thread->held != 0) {
        /* The OS thread ended inside of a disposer. */
        thread->held = 0;
        pyrt_reclaim_uncount(interp, &mine->running);
        pyrt_queue_put_back(&mine->queue, &mine->running);
        pyrt_shared_give_up(orphans, interp);
        pyrt_shared_give_up(&pyrt_global_queue, pyrt_interp_main());
    }
    size_t count = 0;
    if (pyrt_tls()->disposing == 0) {
        pyrt_queue_seal(&mine->queue);
        pyrt_qsbr_pass(&interp->domain, &thread->base.slot);
        (void)pyrt_reclaim_own(thread);
        (void)pyrt_shared_run(orphans, interp, thread, &count);
    }
    pyrt_raw_mutex_lock(&interp->lock);
    if (pyrt_reclaim_hand_over(thread)) {
        PYRT_COUNT(thread, orphaned, 1);
    }
    pyrt_raw_mutex_unlock(&interp->lock);
}

static void
fork_prepare(pyrt_interp *interp)
{
    pyrt_raw_mutex_lock(&pyrt_reclaim_of_interp(interp)->orphans.lock);
    if (is_main(interp)) {
        pyrt_raw_mutex_lock(&pyrt_global_queue.lock);
    }
}

static void
fork_parent(pyrt_interp *interp)
{
    if (is_main(interp)) {
        pyrt_raw_mutex_unlock(&pyrt_global_queue.lock);
    }
    pyrt_raw_mutex_unlock(&pyrt_reclaim_of_interp(interp)->orphans.lock);
}

static void
adopt_shared(pyrt_shared_queue *shared)
{
    pyrt_raw_mutex_reinit(&shared->lock);
    if (shared->runner != NULL && shared->runner != pyrt_tls()) {
        pyrt_queue_adopt(&shared->queue, &shared->running);
        shared->runner = NULL;
    }
}

static void
fork_child(pyrt_interp *interp)
{
    adopt_shared(&pyrt_reclaim_of_interp(interp)->orphans);
    if (is_main(interp)) {
        adopt_shared(&pyrt_global_queue);
    }
}

static void
thread_lost(pyrt_thread_impl *thread)
{
    if (pyrt_reclaim_of(thread) != NULL) {
        pyrt_queue_adopt(&pyrt_reclaim_of(thread)->queue, &pyrt_reclaim_of(thread)->running);
        (void)pyrt_reclaim_hand_over(thread);
    }
}

/* Those that were lost may have stood between taking or pushing something and counting it. What is in the queues now is all
 * that waits; what this OS thread is disposing of, if it forked in a disposer, is counted as disposed of already. */
static void
fork_settle(pyrt_interp *interp)
{
    uint64_t items = 0;
    uint64_t bytes = 0;
    pyrt_queue_pending(&pyrt_reclaim_of_interp(interp)->orphans.queue, &items, &bytes);
    if (is_main(interp)) {
        pyrt_queue_pending(&pyrt_global_queue.queue, &items, &bytes);
    }
    for (pyrt_thread_impl *thread = interp->threads; thread != NULL; thread = thread->next) {
        if (pyrt_reclaim_of(thread) != NULL) {
            pyrt_queue_pending(&pyrt_reclaim_of(thread)->queue, &items, &bytes);
        }
    }
    pyrt_qsbr_stats_settle(interp, items, bytes);
}

void
pyrt_reclaim_visit(void (*visit)(const pyrt_retired *item))
{
    pyrt_queue_visit(&pyrt_global_queue.queue, &pyrt_global_queue.running, visit);
    for (pyrt_interp *interp = pyrt_the_registry.interps; interp != NULL; interp = interp->next) {
        const pyrt_shared_queue *orphans = &pyrt_reclaim_of_interp(interp)->orphans;
        pyrt_queue_visit(&orphans->queue, &orphans->running, visit);
        for (pyrt_thread_impl *thread = interp->threads; thread != NULL; thread = thread->next) {
            if (pyrt_reclaim_of(thread) != NULL) {
                pyrt_queue_visit(&pyrt_reclaim_of(thread)->queue, &pyrt_reclaim_of(thread)->running, visit);
            }
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
        .interp_give_up = interp_give_up,
        .thread_init = thread_init,
        .thread_fini = thread_fini,
        .thread_stats = thread_stats,
        .thread_work = pyrt_reclaim_work,
        .thread_collect = pyrt_reclaim_collect_detached,
        .thread_exit = thread_exit,
        .fork_prepare = fork_prepare,
        .fork_parent = fork_parent,
        .fork_child = fork_child,
        .thread_lost = thread_lost,
        .fork_settle = fork_settle,
    };
    pyrt_stage_register(PYRT_STAGE_RETIRE, &stage);
}
