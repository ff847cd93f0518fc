/* pause_park.c -- the side of the threads that are asked to stand still.
 *
 * A thread that was asked is counted in `missing` and takes itself off, under its interpreter's lock, when it parks at a
 * safepoint, detaches or ends. A parked thread is a suspended one that is already waiting to attach.
 */
#include "platform/futex.h"
#include "state/pause.h"

#include <limits.h>

void
pyrt_pause_uncount_missing(pyrt_thread_impl *thread)
{
    pyrt_pause *pause = thread->base.interp->pause;
    thread->counted = false;
    /* seq_cst: what the thread did before is seen by the requester who reads the zero. Pairs with its acquire. */
    if (pyrt_fetch_add_seq_cst(&pause->missing, -1u) == 1) {
        pyrt_futex_wake(&pause->missing, INT_MAX);
    }
}

bool
pyrt_pause_suspend(pyrt_thread_impl *thread)
{
    uint64_t detached = PYRT_STATE_DETACHED;
    /* seq_cst: pairs with the compare-and-swap of attach, one of the two wins; as an acquire with the release of detach. */
    return pyrt_cas_seq_cst(&thread->base.slot.word, &detached, (uint64_t)PYRT_STATE_SUSPENDED);
}

void
pyrt_pause_park(pyrt_thread_impl *thread)
{
    pyrt_interp *interp = thread->base.interp;
    pyrt_qsbr_slot *slot = &thread->base.slot;
    pyrt_tls_block *tls = pyrt_tls();
    /* Without the lock: somebody may wait for their mutexes. */
    pyrt_critical_sections_suspend(&thread->base);
    pyrt_raw_mutex_lock(&interp->lock);
    bool park = thread->counted;
    pyrt_fetch_and_seq_cst(&slot->flags, ~PYRT_FLAG_STOP);
    if (park) {
        tls->current = NULL;
        tls->self_id = 0;
        /* Waited for at once: it is sure to want to attach, so the next pause lets it. seq_cst: as the release of detach, and
         * before the look at the flags below. */
        (void)pyrt_exchange_seq_cst(&slot->word, (uint64_t)PYRT_STATE_SUSPENDED_WAITED);
        pyrt_pause_uncount_missing(thread);
    }
    pyrt_raw_mutex_unlock(&interp->lock);
    if (!park) {
        pyrt_critical_sections_resume(&thread->base);
        return;
    }
    if (pyrt_load_relaxed(&slot->flags) & (PYRT_FLAG_WAKE | PYRT_FLAG_COLLECT)) {
        pyrt_qsbr_answer_wake(&interp->domain, slot);
    }
    pyrt_attach_slow(&thread->base);
}

void
pyrt_pause_count_detached(pyrt_thread_impl *thread)
{
    pyrt_interp *interp = thread->base.interp;
    pyrt_raw_mutex_lock(&interp->lock);
    pyrt_fetch_and_seq_cst(&thread->base.slot.flags, ~PYRT_FLAG_STOP);
    if (thread->counted && pyrt_pause_suspend(thread)) {
        pyrt_pause_uncount_missing(thread);
    }
    pyrt_raw_mutex_unlock(&interp->lock);
}

void
pyrt_pause_uncount(pyrt_thread_impl *thread)
{
    if (thread->counted) {
        pyrt_pause_uncount_missing(thread);
    }
}

void
pyrt_pause_had_turn(pyrt_thread_impl *thread)
{
    /* relaxed: only this OS thread could have lost it from here on; a request that sees the word of a later detach sees this
     * too, by the release of that. Pairs with the acquire of leaves_turn in stop_the_world.c. */
    if (pyrt_load_relaxed(&thread->turn_until) != 0) {
        pyrt_store_relaxed(&thread->turn_until, (int64_t)0);
    }
}
