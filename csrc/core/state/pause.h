/* pause.h -- what the files of the pauses share.
 *
 * pause_gate.c decides whose turn it is, stop_the_world.c asks and waits, pause_park.c is the side of the threads that are
 * asked, pause_offer.c is for requesters who do not come back, pause_stats.c counts.
 */
#ifndef PYRT_STATE_PAUSE_H
#define PYRT_STATE_PAUSE_H

#include "state/thread_impl.h"

#include <pyruntime/stop_the_world.h>

/* Who does not come although it is its turn loses it after this: its host may never let it. */
enum { PYRT_PAUSE_TURN_NS = 10000000 };

/* How long a complete pause waits for a requester who has not come back from its host's block hook; for one that asks again
 * because it was too slow, twice as long each time. */
#define PYRT_PAUSE_OFFERED_NS ((int64_t)200000000)

/* pause_offer.c. The requester, in the order of the state table (interp_impl.h); pyrt_pause_take is false if the pause was
 * cancelled meanwhile. Whether a pause that this OS thread has begun is still its own, to be ended. */
void pyrt_pause_claim(pyrt_pause *pause, uint64_t state);
void pyrt_pause_offer(pyrt_pause *pause, int64_t until);
bool pyrt_pause_take(pyrt_pause *pause);
bool pyrt_pause_reclaim(pyrt_pause *pause);

/* For who waits for the end of pauses: cancels those that nobody comes back for, and answers when to look again. */
int64_t pyrt_pause_cancel_abandoned(int64_t now);

/* Undoes asking, and a complete pause alike, and opens the gate; under the registry's lock. Then, without it, the waiters are
 * to be woken. */
void pyrt_pause_end_locked(pyrt_interp *or_null, int64_t now);

/* What tls->pause points to while this OS thread has stopped an interpreter, or (NULL) the whole process; and back. */
const void *pyrt_pause_mark(pyrt_interp *or_null);
pyrt_interp *pyrt_pause_of_mark(const void *mark);

/* Calls `visit` for the one interpreter or for all; the list keeps still under the registry's lock. */
void pyrt_pause_for_each(pyrt_interp *or_null, void (*visit)(pyrt_interp *, void *), void *arg);

/* Waits for the turn of this OS thread. From PYRT_OK on the gate is its own, and the requester is written into the pause.
 * PYRT_ESTATE if there is nothing to stop (any more), PYRT_ETIMEDOUT, with the requester of the pause that is in the way in the
 * report. `now` is brought up to date if it had to wait. */
pyrt_status pyrt_pause_enter_gate(pyrt_interp *or_null, int64_t *now, int64_t deadline, pyrt_stop_report *report);

/* Opens it again; under the registry's lock. Then, without it, the waiters are to be woken. */
void pyrt_pause_open_gate(pyrt_interp *or_null);
void pyrt_pause_wake_waiters(void);

/* The OS thread ends in the queue; in the child of a fork, with all locks new. */
void pyrt_pause_leave_queue(void);
void pyrt_pause_gate_fork_child(void);

/* DETACHED -> SUSPENDED; under the interpreter's lock. */
bool pyrt_pause_suspend(pyrt_thread_impl *thread);

/* Takes a counted thread off `missing`; under the interpreter's lock. */
void pyrt_pause_uncount_missing(pyrt_thread_impl *thread);

/* Statistics. A pause is complete; is over. */
void pyrt_pause_count_stop(pyrt_pause *pause, int64_t now);
void pyrt_pause_count_start(pyrt_pause *pause, int64_t now);

#endif
