/* retire.c -- the forms of retiring. None runs user code or waits; what is to be done is left to the next safepoint.
 *
 * The short way, inline in retire.h, is for the attached state of the calling OS thread, whose queue is nobody else's. A
 * detached state's queue may be a borrower's at any moment: it is touched under the interpreter's lock. Without a state there
 * are the orphans.
 */
#include "platform/report.h"
#include "reclaim/reclaim.h"

static size_t
bound_items_of(const pyrt_interp *interp)
{
    return pyrt_load_relaxed(&pyrt_reclaim_of_interp(interp)->bound_items);
}

static size_t
bound_bytes_of(const pyrt_interp *interp)
{
    return pyrt_load_relaxed(&pyrt_reclaim_of_interp(interp)->bound_bytes);
}

void
pyrt_reclaim_check_bound(pyrt_thread_impl *thread)
{
    const pyrt_interp *interp = thread->base.interp;
    pyrt_reclaim_thread *mine = pyrt_reclaim_of(thread);
    size_t bytes = bound_bytes_of(interp);
    pyrt_queue_set_bound(&mine->queue, bound_items_of(interp), bytes > mine->held_bytes ? bytes - mine->held_bytes : 0);
}

void
pyrt_reclaim_hold(pyrt_thread_impl *thread, size_t bytes)
{
    pyrt_reclaim_thread *mine = pyrt_reclaim_of(thread);
    if (mine == NULL) {
        return;
    }
    mine->held_bytes = bytes;
    pyrt_reclaim_check_bound(thread);
    if (mine->queue.over_bound) {
        mine->skip = 0;
        pyrt_fetch_or_seq_cst(&thread->base.slot.flags, PYRT_FLAG_RETIRE);
    }
}

/* Whether the next pushes may find no memory: a chunk could not be reserved when this one got half full, or full at once. */
static bool
is_short(const pyrt_retire_queue *queue, pyrt_push_result result)
{
    return result == PYRT_PUSHED_SHORT || (result == PYRT_PUSHED_SEALED && queue->open == NULL);
}

/* Counts for the interpreter, whose bound holds too. */
static pyrt_status
shared_push(pyrt_shared_queue *shared, pyrt_interp *interp, pyrt_retired item, size_t bytes)
{
    pyrt_raw_mutex_lock(&shared->lock);
    pyrt_push_result result = pyrt_queue_push(&shared->queue, item, bytes);
    bool busy =
        is_short(&shared->queue, result) || pyrt_queue_holds(&shared->queue, bound_items_of(interp), bound_bytes_of(interp));
    pyrt_store_relaxed(&shared->filled, 1u);
    pyrt_raw_mutex_unlock(&shared->lock);
    if (result == PYRT_PUSH_FAILED) {
        return PYRT_ENOMEM;
    }
    PYRT_INTERP_COUNT(interp, retired, 1);
    PYRT_INTERP_COUNT(interp, pending_bytes, bytes);
    PYRT_INTERP_COUNT(interp, goals, result == PYRT_PUSHED_SEALED);
    PYRT_INTERP_COUNT(interp, busy, busy);
    return busy ? PYRT_EBUSY : PYRT_OK;
}

/* There is a new goal: the next safepoint looks after it, at once. */
static void
note_sealed(pyrt_thread_impl *thread)
{
    PYRT_COUNT(thread, goals, 1);
    pyrt_reclaim_of(thread)->skip = 0;
    pyrt_reclaim_check_bound(thread);
    pyrt_fetch_or_seq_cst(&thread->base.slot.flags, PYRT_FLAG_RETIRE);
}

static pyrt_status
own_push(pyrt_thread_impl *thread, pyrt_retired item, size_t bytes)
{
    pyrt_retire_queue *queue = &pyrt_reclaim_of(thread)->queue;
    if (queue->open == NULL && pyrt_queue_open(queue)) {
        pyrt_reclaim_check_bound(thread);
    }
    pyrt_push_result result = pyrt_queue_push(queue, item, bytes);
    if (result == PYRT_PUSH_FAILED) {
        return PYRT_ENOMEM;
    }
    if (result == PYRT_PUSHED_SEALED) {
        note_sealed(thread);
    }
    bool busy = queue->over_bound || is_short(queue, result);
    PYRT_COUNT(thread, busy, busy);
    return busy ? PYRT_EBUSY : PYRT_OK;
}

static pyrt_status
orphan_push(pyrt_interp *interp, pyrt_retired item, size_t bytes)
{
    return shared_push(&pyrt_reclaim_of_interp(interp)->orphans, interp, item, bytes);
}

static bool
is_mine(pyrt_thread_impl *thread)
{
    return thread->base.os_id == pyrt_tls()->os_id;
}

static pyrt_status
push(pyrt_thread *or_null, pyrt_retired item, size_t bytes)
{
    pyrt_thread *thread = or_null != NULL ? or_null : pyrt_thread_current();
    pyrt_interp *interp = pyrt_interp_of(thread);
    if (interp == NULL) {
        return PYRT_ESTATE;
    }
    if (thread == NULL) {
        return orphan_push(interp, item, bytes);
    }
    pyrt_thread_impl *impl = pyrt_thread_impl_of(thread);
    if (!is_mine(impl)) {
        return PYRT_EINVAL;
    }
    if (pyrt_thread_current() == thread && pyrt_reclaim_of(impl) != NULL) {
        return own_push(impl, item, bytes);
    }
    pyrt_raw_mutex_lock(&interp->lock);
    bool has_queue = pyrt_reclaim_of(impl) != NULL;
    pyrt_status status = has_queue ? own_push(impl, item, bytes) : PYRT_OK;
    pyrt_raw_mutex_unlock(&interp->lock);
    return has_queue ? status : orphan_push(interp, item, bytes);
}

pyrt_status
pyrt_retire_slow(pyrt_thread *or_null, void *p, size_t bytes, void (*dispose)(void *))
{
    if (dispose == NULL) {
        return PYRT_EINVAL;
    }
    return push(or_null, (pyrt_retired){p, dispose}, bytes);
}

pyrt_status
pyrt_retire_call(pyrt_thread *or_null, void (*fn)(void *p, void *arg), void *p, void *arg, size_t bytes)
{
    if (fn == NULL) {
        return PYRT_EINVAL;
    }
    pyrt_retired_call call = {p, arg, fn};
    return push(or_null, (pyrt_retired){&call, pyrt_retired_run_call}, bytes);
}

pyrt_status
pyrt_retire_global(void *p, size_t bytes, void (*dispose)(void *))
{
    pyrt_interp *main = pyrt_interp_main();
    if (dispose == NULL || main == NULL) {
        return dispose == NULL ? PYRT_EINVAL : PYRT_ESTATE;
    }
    return shared_push(&pyrt_global_queue, main, (pyrt_retired){p, dispose}, bytes);
}

/* ---- embedded nodes ---------------------------------------------------------------------------------------------- */

static void
own_push_node(pyrt_thread_impl *thread, pyrt_retire_node *node, size_t bytes)
{
    PYRT_COUNT(thread, retired, 1);
    PYRT_COUNT(thread, pending_bytes, bytes);
    if (pyrt_queue_push_node(&pyrt_reclaim_of(thread)->queue, node, bytes) == PYRT_PUSHED_SEALED) {
        note_sealed(thread);
    }
}

static void
orphan_push_node(pyrt_interp *interp, pyrt_retire_node *node, size_t bytes)
{
    pyrt_shared_queue *orphans = &pyrt_reclaim_of_interp(interp)->orphans;
    PYRT_INTERP_COUNT(interp, retired, 1);
    PYRT_INTERP_COUNT(interp, pending_bytes, bytes);
    pyrt_raw_mutex_lock(&orphans->lock);
    (void)pyrt_queue_push_node(&orphans->queue, node, bytes);
    pyrt_store_relaxed(&orphans->filled, 1u);
    pyrt_raw_mutex_unlock(&orphans->lock);
}

void
pyrt_retire_embedded(pyrt_thread *or_null, pyrt_retire_node *embedded, size_t bytes, void (*dispose)(pyrt_retire_node *))
{
    pyrt_thread *thread = or_null != NULL ? or_null : pyrt_thread_current();
    pyrt_interp *interp = pyrt_interp_of(thread);
    embedded->dispose = dispose;
    if (dispose == NULL) {
        pyrt_report("pyrt_retire_node: there is no function to dispose of node %p with; it has not been taken",
                    (void *)embedded);
        return;
    }
    if (interp == NULL) {
        pyrt_report("pyrt_retire_node: the runtime is not initialised; the node %p is never disposed of", (void *)embedded);
        return;
    }
    pyrt_thread_impl *impl = pyrt_thread_impl_of(thread);
    if (thread == NULL || !is_mine(impl)) {
        /* Another OS thread's state: its queue is not ours to touch, but its interpreter's readers are the right ones. */
        orphan_push_node(interp, embedded, bytes);
        return;
    }
    if (pyrt_thread_current() == thread && pyrt_reclaim_of(impl) != NULL) {
        own_push_node(impl, embedded, bytes);
        return;
    }
    pyrt_raw_mutex_lock(&interp->lock);
    bool has_queue = pyrt_reclaim_of(impl) != NULL;
    if (has_queue) {
        own_push_node(impl, embedded, bytes);
    }
    pyrt_raw_mutex_unlock(&interp->lock);
    if (!has_queue) {
        orphan_push_node(interp, embedded, bytes);
    }
}

pyrt_status
pyrt_retire_set_bound(pyrt_interp *interp, size_t items, size_t bytes)
{
    if (interp == NULL || items == 0 || bytes == 0) {
        return PYRT_EINVAL;
    }
    pyrt_store_relaxed(&pyrt_reclaim_of_interp(interp)->bound_items, items);
    pyrt_store_relaxed(&pyrt_reclaim_of_interp(interp)->bound_bytes, bytes);
    return PYRT_OK;
}
