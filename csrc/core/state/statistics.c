/* statistics.c -- the numbers of an interpreter, and the report of who holds up its oldest goal.
 *
 * Each thread counts in its own state, without atomics; calls without a thread and threads that ended count in the
 * interpreter. A reader adds all of it up under the interpreter's lock, while the threads go on.
 */
#include "platform/futex.h"
#include "state/thread_impl.h"

#include <string.h>

void
pyrt_qsbr_stats_raise(uint64_t *max, uint64_t value)
{
    uint64_t seen = pyrt_load_relaxed(max);
    while (seen < value && !pyrt_cas_acq_rel(max, &seen, value)) {
    }
}

void
pyrt_qsbr_stats_add(pyrt_qsbr_stats *sum, const pyrt_qsbr_stats *more)
{
#define MERGE_sum(name) (void)pyrt_fetch_add_relaxed(&sum->name, pyrt_load_relaxed(&more->name));
#define MERGE_max(name) pyrt_qsbr_stats_raise(&sum->name, pyrt_load_relaxed(&more->name));
#define MERGE(name, merge) MERGE_##merge(name)
    PYRT_QSBR_STATS(MERGE)
#undef MERGE
#undef MERGE_max
#undef MERGE_sum
}

const char *
pyrt_qsbr_stats_name(size_t n)
{
#define NAME(name, merge) #name,
    static const char *const names[] = {PYRT_QSBR_STATS(NAME)};
#undef NAME
    return n < sizeof(names) / sizeof(names[0]) ? names[n] : NULL;
}

static pyrt_qsbr_stats
sum_of(pyrt_interp *interp)
{
    pyrt_qsbr_stats sum = {0};
    pyrt_raw_mutex_lock(&interp->lock);
    pyrt_qsbr_stats_add(&sum, &interp->stats);
    for (pyrt_thread_impl *thread = interp->threads; thread != NULL; thread = thread->next) {
        pyrt_qsbr_stats_add(&sum, &thread->stats);
        for (int i = 0; i < PYRT_STAGES; i++) {
            if (pyrt_stages[i] != NULL && pyrt_stages[i]->thread_stats != NULL) {
                pyrt_stages[i]->thread_stats(thread, &sum);
            }
        }
    }
    pyrt_raw_mutex_unlock(&interp->lock);
    return sum;
}

static pyrt_qsbr_stats
stats_of(pyrt_interp *interp)
{
    pyrt_qsbr_stats sum = sum_of(interp);
    /* Bytes are added by the one who retires and taken off by the one who disposes, and may be seen in the other order. */
    sum.pending_items = sum.retired > sum.disposed ? sum.retired - sum.disposed : 0;
    sum.pending_bytes = (int64_t)sum.pending_bytes < 0 ? 0 : sum.pending_bytes;
    return sum;
}

void
pyrt_qsbr_stats_settle(pyrt_interp *interp, uint64_t items, uint64_t bytes)
{
    pyrt_qsbr_stats sum = sum_of(interp);
    PYRT_INTERP_COUNT(interp, disposed, sum.retired - items - sum.disposed);
    PYRT_INTERP_COUNT(interp, pending_bytes, bytes - sum.pending_bytes);
}

size_t
pyrt_qsbr_stats_read(pyrt_interp *interp, uint64_t *values, size_t capacity)
{
    enum { COUNT = sizeof(pyrt_qsbr_stats) / sizeof(uint64_t) };
    if (interp == NULL) {
        return 0;
    }
    pyrt_qsbr_stats sum = stats_of(interp);
    size_t count = capacity < COUNT ? capacity : COUNT;
    if (values != NULL && count != 0) {
        memcpy(values, &sum, count * sizeof(uint64_t));
    }
    return COUNT;
}

/* Writes down whose slot it is; false if the thread has ended meanwhile. */
static bool
describe(pyrt_interp *interp, const pyrt_qsbr_slot *slot, pyrt_stall_report *out)
{
    pyrt_raw_mutex_lock(&interp->lock);
    pyrt_thread_impl *thread = interp->threads;
    while (thread != NULL && &thread->base.slot != slot) {
        thread = thread->next;
    }
    if (thread != NULL) {
        out->os_tid = thread->os_tid;
        out->thread_id = thread->base.id;
        memcpy(out->thread_name, thread->name, sizeof(out->thread_name));
    }
    pyrt_raw_mutex_unlock(&interp->lock);
    return thread != NULL;
}

pyrt_status
pyrt_qsbr_stall_report(pyrt_interp *interp, pyrt_stall_report *out)
{
    if (interp == NULL || out == NULL || out->struct_size != sizeof(*out)) {
        return PYRT_EINVAL;
    }
    pyrt_qsbr_domain *domain = &interp->domain;
    pyrt_qsbr_stats sum = stats_of(interp);
    *out = (pyrt_stall_report){
        .struct_size = sizeof(*out),
        .interp_id = interp->id,
        .pending_items = sum.pending_items,
        .pending_bytes = sum.pending_bytes,
    };
    uint64_t goal = pyrt_load_acquire(&domain->watched_goal);
    int64_t since = pyrt_load_relaxed(&domain->watched_since);
    if (pyrt_qsbr_scan(domain, goal)) {
        return PYRT_ENOTFOUND;
    }
    out->goal = goal;
    out->held_ns = pyrt_now_ns() - since;
    pyrt_qsbr_slot *slot = pyrt_qsbr_furthest_behind(domain, goal);
    return slot != NULL && describe(interp, slot, out) ? PYRT_OK : PYRT_ENOTFOUND;
}
