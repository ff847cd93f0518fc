/* event.c -- a flag that threads wait for. The state table is in event.h.
 *
 * A waiter marks the word before it parks, and parks only if, under the lock of its bucket, the word is still marked and
 * not set. So a set that finds no mark has nobody to wake: who comes later sees it set. A set that finds one takes it away
 * under that lock, in one step with the waking: it wakes nobody who began to wait after a clear that came behind it.
 */
#include "platform/futex.h"
#include "sync/waiting.h"

#include <pyruntime/event.h>

/* Under the bucket's lock. */
static bool
is_waited_for(void *arg)
{
    const pyrt_event *event = arg;
    /* relaxed: a set that is seen late unparks under the same lock, after this. */
    return pyrt_load_relaxed(&event->state) == PYRT_EVENT_WAITED;
}

static pyrt_status
wait_until(pyrt_event *event, int64_t deadline, unsigned flags, const char *function)
{
    pyrt_parking parking = {
        .address = event,
        .function = function,
        .validate = is_waited_for,
        .arg = event,
        .deadline = deadline,
        .since = deadline == 0 ? 0 : pyrt_now_ns(),
        .flags = flags,
        .look_at = INT64_MAX,
    };
    for (;;) {
        uint8_t state = 0;
        /* seq_cst: comes before the look under the bucket's lock. Pairs with the exchange in pyrt_event_set, and as acquire
         * with it too if it is found set. */
        (void)pyrt_cas_seq_cst(&event->state, &state, (uint8_t)PYRT_EVENT_WAITED);
        if (state & PYRT_EVENT_SET) {
            return PYRT_OK;
        }
        pyrt_status status = pyrt_park_as(&parking);
        if (status != PYRT_EBUSY) {
            /* Unparked: it was set, and may be clear again. */
            return status == PYRT_OK || pyrt_event_is_set(event) ? PYRT_OK : status;
        }
    }
}

void
pyrt_event_wait_slow(pyrt_event *event)
{
    (void)wait_until(event, INT64_MAX, PYRT_LOCK_DETACH, "pyrt_event_wait");
}

pyrt_status
pyrt_event_wait_timed(pyrt_event *event, int64_t timeout_ns, unsigned flags)
{
    if ((flags & ~PYRT_LOCK_FLAGS) != 0) {
        return PYRT_EINVAL;
    }
    if (pyrt_event_is_set(event)) {
        return PYRT_OK;
    }
    if (timeout_ns == 0) {
        return PYRT_ETIMEDOUT;
    }
    return wait_until(event, pyrt_deadline_after(timeout_ns), flags, "pyrt_event_wait_timed");
}

/* Under the bucket's lock. After it the event may be gone. */
static bool
take_mark(void *arg)
{
    pyrt_event *event = arg;
    /* seq_cst: as below. */
    (void)pyrt_exchange_seq_cst(&event->state, (uint8_t)PYRT_EVENT_SET);
    return true;
}

void
pyrt_event_set(pyrt_event *event)
{
    uint8_t state = pyrt_load_relaxed(&event->state);
    while ((state & PYRT_EVENT_WAITED) == 0) {
        /* seq_cst: as release for all who see it set, also where it was set already. Pairs with the waiter's
         * compare-and-swap. After it the event may be gone. */
        if (pyrt_cas_seq_cst(&event->state, &state, (uint8_t)PYRT_EVENT_SET)) {
            return;
        }
    }
    (void)pyrt_requeue(event, event, SIZE_MAX, 0, 0, take_mark, event);
}

void
pyrt_event_clear(pyrt_event *event)
{
    uint8_t set = PYRT_EVENT_SET;
    /* acquire: what the setter did is visible to who clears, as to who waits. */
    (void)pyrt_cas_acquire(&event->state, &set, (uint8_t)0);
}

void
pyrt_event_at_fork_reinit(pyrt_event *event)
{
    pyrt_store_relaxed(&event->state, (uint8_t)(pyrt_load_relaxed(&event->state) & PYRT_EVENT_SET));
}
