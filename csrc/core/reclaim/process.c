/* process.c -- disposing: the one place where retired things meet the functions they were retired with.
 *
 * User code runs with no lock held. It may do anything: retire, detach, end its OS thread. So what is being disposed of is
 * always written down in a pyrt_disposal that others can find, and after each item everything is looked at afresh. A disposer
 * does not dispose of other things (that would nest without bound): inside of one, processing does nothing.
 */
#include "platform/futex.h"
#include "platform/report.h"
#include "reclaim/reclaim.h"

#include <limits.h>

pyrt_shared_queue pyrt_global_queue = {.queue.window = &pyrt_global_queue.window};

/* While readers do not pass, a thread asks again after 1, 2, 4, ... safepoints, at most after so many. */
enum { MOST_SKIPPED = 64 };

/* ---- whether a goal is reached ----------------------------------------------------------------------------------- */

static bool
reached_everywhere(uint64_t goal)
{
    bool reached = true;
    pyrt_raw_mutex_lock(&pyrt_the_registry.lock);
    for (pyrt_interp *interp = pyrt_the_registry.interps; interp != NULL && reached; interp = interp->next) {
        reached = pyrt_qsbr_poll_interp(interp, goal);
    }
    pyrt_raw_mutex_unlock(&pyrt_the_registry.lock);
    return reached;
}

/* ---- disposing of one chunk or batch ----------------------------------------------------------------------------- */

/* Who disposes, for counting and for putting things right after user code. */
typedef struct runner {
    pyrt_thread_impl *self; /* the attached state of this OS thread, or NULL */
    pyrt_interp *interp;    /* whose statistics count it */
} runner;

/* Counts what was taken, before it is disposed of; what is put back is taken off again (pyrt_reclaim_uncount). */
static void
count_taken(const runner *runner, uint64_t items, uint64_t bytes)
{
    if (runner->self != NULL && runner->self->base.interp == runner->interp) {
        PYRT_COUNT(runner->self, disposed, items);
        PYRT_COUNT(runner->self, pending_bytes, -bytes);
        return;
    }
    PYRT_INTERP_COUNT(runner->interp, disposed, items);
    PYRT_INTERP_COUNT(runner->interp, pending_bytes, -bytes);
}

void
pyrt_reclaim_uncount(pyrt_interp *interp, const pyrt_disposal *disposal)
{
    uint64_t items = disposal->batch.head != NULL ? disposal->batch.items : 0;
    uint64_t bytes = disposal->batch.head != NULL ? disposal->batch.bytes : 0;
    if (disposal->chunk != NULL) {
        items += (uint64_t)(disposal->chunk->end - disposal->chunk->read);
        bytes += disposal->chunk->bytes;
    }
    PYRT_INTERP_COUNT(interp, disposed, -items);
    PYRT_INTERP_COUNT(interp, pending_bytes, bytes);
}

/* The clock is asked only for goals that were looked at in vain before. */
static void
note_grace(const runner *runner, int64_t waiting_since)
{
    if (waiting_since != 0) {
        uint64_t waited = (uint64_t)(pyrt_now_ns() - waiting_since);
        pyrt_qsbr_stats_raise(&runner->interp->stats.longest_grace_ns, waited);
    }
}

/* What user code finds attached: the runner's state or, if he has none, whatever is. */
static pyrt_thread *
attached_for(const runner *runner)
{
    return runner->self != NULL ? &runner->self->base : pyrt_thread_current();
}

/* User code has left something else attached. */
static pyrt_thread *
attach_again_for(const runner *runner)
{
    if (runner->self != NULL) {
        pyrt_thread_attach_again(runner->self);
    }
    return attached_for(runner);
}

static size_t
run_chunk(pyrt_disposal *running, const runner *runner)
{
    pyrt_retired_chunk *chunk = running->chunk;
    pyrt_retired *item = chunk->read;
    pyrt_retired *const end = chunk->end;
    const size_t count = (size_t)(end - item);
    note_grace(runner, chunk->waiting_since);
    count_taken(runner, count, chunk->bytes);
    const pyrt_thread *attached = attached_for(runner);
    /* Two to a round: a jump less for each second one. */
#pragma GCC unroll 2
    while (item < end) {
        const pyrt_retired *taken = item++;
        /* Read before it is disposed of: whoever goes on from here does not dispose of it again. */
        pyrt_store_release(&chunk->read, item);
        taken->dispose(taken->p);
        if (pyrt_unlikely(pyrt_thread_current() != attached)) {
            attached = attach_again_for(runner);
        }
    }
    return count;
}

static size_t
run_batch(pyrt_disposal *running, const runner *runner)
{
    const size_t count = running->batch.items;
    note_grace(runner, running->batch.waiting_since);
    count_taken(runner, count, running->batch.bytes);
    const pyrt_thread *attached = attached_for(runner);
    while (running->batch.head != NULL) {
        pyrt_retire_node *node = running->batch.head;
        pyrt_store_release(&running->batch.head, node->next);
        running->batch.items--;
        node->dispose(node);
        if (pyrt_unlikely(pyrt_thread_current() != attached)) {
            attached = attach_again_for(runner);
        }
    }
    running->batch = (pyrt_retired_batch){0};
    return count;
}

static pyrt_retired_chunk *
take_empty(pyrt_disposal *running)
{
    pyrt_retired_chunk *chunk = running->chunk;
    pyrt_store_release(&running->chunk, (pyrt_retired_chunk *)NULL);
    return chunk;
}

/* ---- a thread's own queue ---------------------------------------------------------------------------------------- */

/* What is left in the queue after a look has been found unreached. */
static void
note_waiting(pyrt_retire_queue *queue)
{
    int64_t now = 0;
    if (queue->sealed != NULL && queue->sealed->waiting_since == 0) {
        now = queue->sealed->waiting_since = pyrt_now_ns();
    }
    pyrt_retired_batch *batch = pyrt_queue_first_batch(queue);
    if (batch != NULL && batch->waiting_since == 0) {
        batch->waiting_since = now != 0 ? now : pyrt_now_ns();
    }
}

static void
release_held(pyrt_thread_impl *thread)
{
    for (int i = 0; i < PYRT_STAGES; i++) {
        if (pyrt_stages[i] != NULL && pyrt_stages[i]->thread_release != NULL) {
            pyrt_stages[i]->thread_release(thread);
        }
    }
}

size_t
pyrt_reclaim_own(pyrt_thread_impl *thread)
{
    pyrt_reclaim_thread *mine = pyrt_reclaim_of(thread);
    const runner runner = {thread, thread->base.interp};
    size_t count = 0;
    bool more = true;
    thread->held++;
    pyrt_tls()->disposing++;
    while (more) {
        uint64_t goal;
        more = false;
        if (pyrt_queue_chunk_goal(&mine->queue, &goal) && pyrt_qsbr_poll_interp(runner.interp, goal)) {
            pyrt_queue_take_chunk(&mine->queue, &mine->running);
            /* What is taken does not wait any more: disposers may retire in its place. */
            pyrt_reclaim_check_bound(thread);
            count += run_chunk(&mine->running, &runner);
            pyrt_queue_recycle(&mine->queue, take_empty(&mine->running));
            more = true;
        }
        if (pyrt_queue_batch_goal(&mine->queue, &goal) && pyrt_qsbr_poll_interp(runner.interp, goal)) {
            pyrt_queue_take_batch(&mine->queue, &mine->running);
            count += run_batch(&mine->running, &runner);
            more = true;
        }
    }
    pyrt_tls()->disposing--;
    thread->held--;
    note_waiting(&mine->queue);
    release_held(thread);
    pyrt_reclaim_check_bound(thread);
    return count;
}

bool
pyrt_reclaim_hand_over(pyrt_thread_impl *thread)
{
    pyrt_reclaim_thread *theirs = pyrt_reclaim_of(thread);
    pyrt_shared_queue *orphans = &pyrt_reclaim_of_interp(thread->base.interp)->orphans;
    if (pyrt_queue_is_empty(&theirs->queue)) {
        return false;
    }
    pyrt_raw_mutex_lock(&orphans->lock);
    pyrt_queue_move(&theirs->queue, &orphans->queue);
    pyrt_store_relaxed(&orphans->filled, 1u);
    pyrt_raw_mutex_unlock(&orphans->lock);
    pyrt_reclaim_check_bound(thread);
    return true;
}

/* ---- shared queues ----------------------------------------------------------------------------------------------- */

uint32_t
pyrt_shared_seal(pyrt_shared_queue *shared)
{
    pyrt_raw_mutex_lock(&shared->lock);
    pyrt_queue_seal(&shared->queue);
    uint32_t end_of_batches = shared->queue.open_batch;
    pyrt_raw_mutex_unlock(&shared->lock);
    return end_of_batches;
}

bool
pyrt_shared_has_batch_before(pyrt_shared_queue *shared, uint32_t end_of_batches, uint64_t *goal)
{
    pyrt_raw_mutex_lock(&shared->lock);
    bool any = (int32_t)(shared->queue.first_batch - end_of_batches) < 0 && pyrt_queue_batch_goal(&shared->queue, goal);
    pyrt_raw_mutex_unlock(&shared->lock);
    return any;
}

static bool
become_runner(pyrt_shared_queue *shared)
{
    pyrt_raw_mutex_lock(&shared->lock);
    bool free = shared->runner == NULL;
    if (free) {
        pyrt_store_relaxed(&shared->runner, (const void *)pyrt_tls());
    }
    pyrt_raw_mutex_unlock(&shared->lock);
    return free;
}

static void
stop_running(pyrt_shared_queue *shared)
{
    pyrt_raw_mutex_lock(&shared->lock);
    /* release, here and below: who sees that nothing is left, or nobody at it, sees what the disposers did. Pairs with the
     * acquire of the barrier, which looks without the lock. */
    pyrt_store_release(&shared->runner, (const void *)NULL);
    /* seq_cst: pairs with the acquire of who is about to sleep on it. */
    pyrt_fetch_add_seq_cst(&shared->turn, 1u);
    pyrt_store_release(&shared->filled, pyrt_queue_is_empty(&shared->queue) ? 0u : 1u);
    pyrt_raw_mutex_unlock(&shared->lock);
    pyrt_futex_wake(&shared->turn, INT_MAX);
}

typedef enum { NOTHING, A_CHUNK, A_BATCH } taken;

static bool
is_reached(pyrt_interp *or_null, uint64_t goal)
{
    return or_null != NULL ? pyrt_qsbr_poll_interp(or_null, goal) : reached_everywhere(goal);
}

/* Takes the oldest chunk or batch that is reached, with a goal no newer than the one given. The goal is looked at without the
 * lock: only the runner takes anything out, so that what was the oldest stays the oldest. */
static taken
take_next(pyrt_shared_queue *shared, pyrt_interp *or_null, uint64_t newest)
{
    uint64_t chunk_goal = 0;
    uint64_t batch_goal = 0;
    pyrt_raw_mutex_lock(&shared->lock);
    bool chunk = pyrt_queue_chunk_goal(&shared->queue, &chunk_goal);
    bool batch = pyrt_queue_batch_goal(&shared->queue, &batch_goal);
    pyrt_raw_mutex_unlock(&shared->lock);
    chunk = chunk && !pyrt_qsbr_before(newest, chunk_goal) && is_reached(or_null, chunk_goal);
    batch = batch && !pyrt_qsbr_before(newest, batch_goal) && is_reached(or_null, batch_goal);
    taken result = NOTHING;
    pyrt_raw_mutex_lock(&shared->lock);
    if (chunk) {
        pyrt_queue_take_chunk(&shared->queue, &shared->running);
        result = A_CHUNK;
    }
    else if (batch && pyrt_queue_batch_goal(&shared->queue, &chunk_goal) && chunk_goal == batch_goal) {
        /* A batch may have taken a younger one in meanwhile and have a new goal. */
        pyrt_queue_take_batch(&shared->queue, &shared->running);
        result = A_BATCH;
    }
    pyrt_raw_mutex_unlock(&shared->lock);
    return result;
}

bool
pyrt_shared_run(pyrt_shared_queue *shared, pyrt_interp *or_null, pyrt_thread_impl *self, size_t *count)
{
    /* relaxed: a hint; who needs to be sure has sealed the queue under its lock. */
    if (pyrt_load_relaxed(&shared->filled) == 0 && pyrt_load_relaxed(&shared->runner) == NULL) {
        return true;
    }
    if (!become_runner(shared)) {
        return false;
    }
    const runner runner = {self, or_null != NULL ? or_null : pyrt_interp_main()};
    const uint64_t newest = pyrt_load_acquire(&pyrt_qsbr_sequence.value);
    if (self != NULL) {
        self->held++;
    }
    pyrt_tls()->disposing++;
    for (taken next; (next = take_next(shared, or_null, newest)) != NOTHING;) {
        if (next == A_BATCH) {
            *count += run_batch(&shared->running, &runner);
            continue;
        }
        *count += run_chunk(&shared->running, &runner);
        pyrt_raw_mutex_lock(&shared->lock);
        pyrt_queue_recycle(&shared->queue, take_empty(&shared->running));
        pyrt_raw_mutex_unlock(&shared->lock);
    }
    pyrt_tls()->disposing--;
    if (self != NULL) {
        self->held--;
    }
    stop_running(shared);
    return true;
}

void
pyrt_shared_give_up(pyrt_shared_queue *shared, pyrt_interp *interp)
{
    pyrt_raw_mutex_lock(&shared->lock);
    bool mine = shared->runner == pyrt_tls();
    if (mine) {
        pyrt_reclaim_uncount(interp, &shared->running);
        pyrt_queue_put_back(&shared->queue, &shared->running);
    }
    pyrt_raw_mutex_unlock(&shared->lock);
    if (mine) {
        stop_running(shared);
    }
}

/* ---- when it happens --------------------------------------------------------------------------------------------- */

/* A reader that only waits for a processor has it sooner, on any machine that can still be used. */
enum { REPORT_AFTER_NS = 100000000 };

/* Says once for each goal who is in the way, and has been for long. */
static void
report_stall(pyrt_thread_impl *thread)
{
    pyrt_stall_report stall = {.struct_size = sizeof(stall)};
    pyrt_reclaim_thread *mine = pyrt_reclaim_of(thread);
    if (pyrt_qsbr_stall_report(thread->base.interp, &stall) != PYRT_OK || stall.held_ns < REPORT_AFTER_NS ||
        stall.goal == mine->reported_goal) {
        return;
    }
    mine->reported_goal = stall.goal;
    pyrt_report(
        "thread %llu '%s' (tid %d) holds up the grace period of interpreter %lld '%s' for %.1f ms: it is attached and "
        "passes no safepoint; %llu item%s with %llu bytes wait%s",
        (unsigned long long)stall.thread_id, stall.thread_name, (int)stall.os_tid, (long long)stall.interp_id,
        pyrt_interp_name(thread->base.interp), (double)stall.held_ns / 1e6, (unsigned long long)stall.pending_items,
        stall.pending_items == 1 ? "" : "s", (unsigned long long)stall.pending_bytes, stall.pending_items == 1 ? "s" : "");
}

static void
run_shared(pyrt_thread_impl *thread, size_t *count)
{
    pyrt_interp *interp = thread->base.interp;
    (void)pyrt_shared_run(&pyrt_reclaim_of_interp(interp)->orphans, interp, thread, count);
    (void)pyrt_shared_run(&pyrt_global_queue, NULL, thread, count);
}

void
pyrt_reclaim_work(pyrt_thread_impl *thread)
{
    pyrt_reclaim_thread *mine = pyrt_reclaim_of(thread);
    if (mine == NULL || pyrt_tls()->disposing != 0) {
        return;
    }
    if (mine->skip != 0) {
        mine->skip--;
    }
    else {
        /* First, so that who asks from here on asks again. seq_cst, as acquire: pairs with who has set it. */
        pyrt_fetch_and_seq_cst(&thread->base.slot.flags, ~PYRT_FLAG_RETIRE);
        size_t count = pyrt_reclaim_own(thread);
        run_shared(thread, &count);
        bool over_bound = mine->queue.over_bound;
        bool waiting = mine->queue.sealed != NULL || mine->queue.first_batch != mine->queue.open_batch;
        if (count == 0 && waiting && over_bound) {
            report_stall(thread);
        }
        waiting = waiting || over_bound;
        if (waiting) {
            pyrt_fetch_or_seq_cst(&thread->base.slot.flags, PYRT_FLAG_RETIRE);
        }
        mine->next_skip = !waiting || count != 0 ? 1 : mine->next_skip < MOST_SKIPPED ? mine->next_skip * 2 : MOST_SKIPPED;
        mine->skip = waiting ? mine->next_skip : 0;
    }
    pyrt_reclaim_answer_barrier(thread);
}

size_t
pyrt_process_delayed(pyrt_thread *thread)
{
    if (thread == NULL || pyrt_is_reading("pyrt_process_delayed") || pyrt_tls()->disposing != 0) {
        return 0;
    }
    pyrt_thread *aside = pyrt_thread_current();
    pyrt_thread_impl *impl = pyrt_thread_impl_of(thread);
    if (thread->os_id != pyrt_tls()->os_id || pyrt_reclaim_of(impl) == NULL) {
        pyrt_report("pyrt_process_delayed: thread %llu is not one of this OS thread", (unsigned long long)thread->id);
        return 0;
    }
    if (aside != NULL) {
        pyrt_thread_impl_of(aside)->kept++;
    }
    pyrt_thread_attach_again(impl);
    size_t count = 0;
    pyrt_queue_seal(&pyrt_reclaim_of(impl)->queue);
    pyrt_shared_seal(&pyrt_reclaim_of_interp(thread->interp)->orphans);
    pyrt_shared_seal(&pyrt_global_queue);
    pyrt_qsbr_pass(&thread->interp->domain, &thread->slot);
    count += pyrt_reclaim_own(impl);
    run_shared(impl, &count);
    if (aside != NULL) {
        pyrt_thread_impl_of(aside)->kept--;
    }
    pyrt_reclaim_answer_barrier(impl);
    if (aside != thread) {
        pyrt_detach(thread);
        if (aside != NULL) {
            pyrt_attach(aside);
        }
    }
    return count;
}
