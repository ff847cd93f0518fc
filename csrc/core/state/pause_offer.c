/* pause_offer.c -- a complete pause belongs to its requester only when it has come back for it.
 *
 * The requester of a pause sleeps until everybody stands still, and then takes back the locks of its host, in the block hook.
 * A host that shuts down may keep it there for ever, and its OS thread never ends. So the pause is only offered meanwhile:
 * who waits for its end (to attach, or for a pause of its own) cancels it after a time, and the requester, if it comes back
 * after all, finds that out and asks again. The state table is in interp_impl.h. */
#include "platform/report.h"
#include "state/pause.h"

static pyrt_registry *const registry = &pyrt_the_registry;

enum { STATE_BITS = 2, STATE_MASK = 3 };

static uint64_t
claim_of_mine(uint64_t state)
{
    return pyrt_tls()->os_id << STATE_BITS | state;
}

void
pyrt_pause_claim(pyrt_pause *pause, uint64_t state)
{
    /* release: as OFFERED it publishes offered_until. Pairs with the acquire in look_at. */
    pyrt_store_release(&pause->claim, claim_of_mine(state));
}

void
pyrt_pause_offer(pyrt_pause *pause, int64_t until)
{
    pyrt_store_relaxed(&pause->offered_until, until);
    pyrt_pause_claim(pause, PYRT_PAUSE_OFFERED);
}

/* OFFERED, by me -> something. Nobody else changes another state of a pause that is this OS thread's; ids are not reused. */
static bool
withdraw(pyrt_pause *pause, uint64_t state)
{
    uint64_t offered = claim_of_mine(PYRT_PAUSE_OFFERED);
    /* acq_rel: pairs with the one in look_at; one of the two has it. */
    return pyrt_cas_acq_rel(&pause->claim, &offered, claim_of_mine(state));
}

bool
pyrt_pause_take(pyrt_pause *pause)
{
    return withdraw(pause, PYRT_PAUSE_TAKEN);
}

bool
pyrt_pause_reclaim(pyrt_pause *pause)
{
    return withdraw(pause, PYRT_PAUSE_ASKED) || pyrt_load_relaxed(&pause->claim) >> STATE_BITS == pyrt_tls()->os_id;
}

/* The caller holds the registry's lock. True if it has cancelled the pause; else `next` is when to look again. */
static bool
look_at(pyrt_interp *or_null, int64_t now, int64_t *next)
{
    pyrt_pause *pause = or_null != NULL ? &or_null->own_pause : &registry->global_pause;
    /* acquire: pairs with the release in pyrt_pause_claim. */
    uint64_t claim = pyrt_load_acquire(&pause->claim);
    int64_t until = now + PYRT_PAUSE_OFFERED_NS;
    switch (claim & STATE_MASK) {
    case PYRT_PAUSE_OFFERED:
        until = pyrt_load_relaxed(&pause->offered_until);
        /* Its requester will not get it back. */
        if (now >= until && pyrt_cas_acq_rel(&pause->claim, &claim, (uint64_t)PYRT_PAUSE_NONE)) {
            pyrt_pause_end_locked(or_null, now);
            return true;
        }
        break;
    case PYRT_PAUSE_ASKED:
        break;
    default: /* The end of one that is taken is told. */
        return false;
    }
    *next = until < *next ? until : *next;
    return false;
}

int64_t
pyrt_pause_cancel_abandoned(int64_t now)
{
    int64_t next = INT64_MAX;
    if (!pyrt_block_hooks_are_set()) {
        return next;
    }
    pyrt_raw_mutex_lock(&registry->lock);
    bool cancelled = look_at(NULL, now, &next);
    for (pyrt_interp *interp = registry->interps; interp != NULL; interp = interp->next) {
        cancelled |= look_at(interp, now, &next);
    }
    pyrt_raw_mutex_unlock(&registry->lock);
    if (cancelled) {
        pyrt_pause_wake_waiters();
    }
    return next;
}
