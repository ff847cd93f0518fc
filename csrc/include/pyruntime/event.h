/* SPDX-License-Identifier: MIT
 *
 * event.h -- a flag that threads wait for.
 *
 * Everybody who waits when it is set goes on, also those who only wake when it has been cleared again. What a thread did
 * before it set the event is visible to whoever has seen it set or was woken by that.
 *
 * State table of `state`:
 *
 *   bit                  meaning                        who sets it                    who clears it
 *   PYRT_EVENT_SET       the event is set               set                            clear, reinit
 *   PYRT_EVENT_WAITED    the next set has to wake       a waiter, before it parks;     set
 *                                                       only while SET is clear
 */
#ifndef PYRUNTIME_EVENT_H
#define PYRUNTIME_EVENT_H

#include "parking_lot.h"

PYRT_BEGIN_DECLS

/* cdef: begin */
typedef struct pyrt_event {
    uint8_t state; /* zero is clear */
} pyrt_event;
/* cdef: end */

#define PYRT_EVENT_INIT {0}

#define PYRT_EVENT_SET 1u
#define PYRT_EVENT_WAITED 2u

/* The long way of the inline function below; call that. */
void pyrt_event_wait_slow(pyrt_event *event);

/* Whether it is set at this moment.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
static inline bool
pyrt_event_is_set(const pyrt_event *event)
{
    /* acquire: pairs with the exchange in pyrt_event_set. */
    return (pyrt_load_acquire(&event->state) & PYRT_EVENT_SET) != 0;
}

/* Waits until it is set, as long as it takes, detached (PYRT_LOCK_DETACH).
 * blocks: yes · allocates: no · runs user code: no · quiescent: may · needs attached: no · async-signal-safe: no */
static inline void
pyrt_event_wait(pyrt_event *event)
{
    if (!pyrt_event_is_set(event)) {
        PYRT_CALL(event_wait_slow)(event);
    }
}

/* cdef: begin */
/* Sets it and wakes all who wait. The memory of the event may go as soon as another thread has seen it set.
 * blocks: shortly, if somebody waits · allocates: no · runs user code: no · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
void pyrt_event_set(pyrt_event *event);

/* Clears it. Who waits from now on waits for the next set.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
void pyrt_event_clear(pyrt_event *event);

/* Waits within a time. 0: only looks; negative: no end. `flags` are PYRT_LOCK_.... Errors: PYRT_ETIMEDOUT; PYRT_EINTR with
 * PYRT_LOCK_INTERRUPTIBLE; PYRT_EINVAL for unknown flags. If it is set in the same moment as the time runs out or the signal
 * comes, it is PYRT_OK.
 * blocks: yes · allocates: no · runs user code: no · quiescent: may · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_event_wait_timed(pyrt_event *event, int64_t timeout_ns, unsigned flags);

/* In the child of a fork, where nobody waits any more. Set stays set.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
void pyrt_event_at_fork_reinit(pyrt_event *event);
/* cdef: end */

PYRT_END_DECLS
#endif /* PYRUNTIME_EVENT_H */
