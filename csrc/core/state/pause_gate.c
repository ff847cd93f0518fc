/* pause_gate.c -- who may pause whom, and in which order.
 *
 * A pause of one interpreter excludes a second one of the same and a global one; a global one excludes all. Requests that
 * exclude each other get their turn in the order in which they came, so neither kind starves the other; requests that do
 * not may overtake each other.
 *
 * A request that must wait stands in a queue under the registry's lock. The gate is not handed to a sleeper: it wakes, takes
 * back the locks of its host, attaches, and takes the gate then. For PYRT_PAUSE_TURN_NS the others leave it to it. Should
 * its host hold it up for longer, or for ever, they go on, and it keeps its place for when it comes. Its place is in its
 * thread-local block, so it may even end its OS thread there.
 *
 * State table of `awake_since` of a place:
 *
 *   value          meaning                          who sets it, under the registry's lock
 *   0              sleeps: it is heard at once      its OS thread, before it sleeps
 *                  when its turn comes
 *   a time         does something else; counts      its OS thread, on entry, and when it wakes because its turn has come or
 *                  for PYRT_PAUSE_TURN_NS           its time is up
 */
#include "platform/futex.h"
#include "platform/os_thread.h"
#include "state/pause.h"

#include <limits.h>
#include <string.h>

static pyrt_registry *const registry = &pyrt_the_registry;

/* What tls->pause points to while this OS thread has stopped the whole process. */
static const char everything;

const void *
pyrt_pause_mark(pyrt_interp *or_null)
{
    return or_null != NULL ? (const void *)or_null : (const void *)&everything;
}

pyrt_interp *
pyrt_pause_of_mark(const void *mark)
{
    return mark == &everything ? NULL : (pyrt_interp *)mark;
}

bool
pyrt_pause_is_mine(pyrt_interp *or_null)
{
    const void *mark = pyrt_tls()->pause;
    return mark != NULL && (mark == &everything || mark == or_null);
}

/* ---- the gate itself --------------------------------------------------------------------------------------------- */

/* Whether no pause is in the way. The caller holds the registry's lock, in all functions here. */
static bool
is_free(const void *wants)
{
    if (registry->global_taken) {
        return false;
    }
    return wants == &everything ? registry->gates_taken == 0 : !((const pyrt_interp *)wants)->gate_taken;
}

/* The requester is set before anybody can find the pause: from here on an interpreter may be born into it. */
static void
take(const void *wants, uint64_t overtaken)
{
    pyrt_interp *interp = pyrt_pause_of_mark(wants);
    pyrt_pause *pause = interp != NULL ? &interp->own_pause : &registry->global_pause;
    pause->requester = pyrt_tls()->os_id;
    pause->requester_tid = pyrt_os_thread_tid();
    pyrt_pause_claim(pause, PYRT_PAUSE_ASKED);
    (void)pyrt_fetch_add_relaxed(&pause->stats.turns_lost, overtaken);
    if (interp == NULL) {
        registry->global_taken = true;
        return;
    }
    interp->gate_taken = true;
    registry->gates_taken++;
}

void
pyrt_pause_open_gate(pyrt_interp *or_null)
{
    if (or_null != NULL) {
        or_null->gate_taken = false;
        registry->gates_taken--;
    }
    else {
        registry->global_taken = false;
    }
    registry->turn++;
}

void
pyrt_pause_wake_waiters(void)
{
    pyrt_futex_wake(&registry->turn, INT_MAX);
}

/* The pause that keeps the gate closed for this one, or NULL. */
static const pyrt_pause *
in_the_way(const void *wants)
{
    if (registry->global_taken) {
        return &registry->global_pause;
    }
    for (const pyrt_interp *interp = registry->interps; interp != NULL; interp = interp->next) {
        if (interp->gate_taken && (wants == &everything || wants == interp)) {
            return &interp->own_pause;
        }
    }
    return NULL;
}

/* The oldest state of an OS thread tells its name. */
static void
name_requester(const pyrt_pause *pause, pyrt_stop_report *report)
{
    report->os_tid = pause->requester_tid;
    for (pyrt_interp *interp = registry->interps; interp != NULL; interp = interp->next) {
        pyrt_raw_mutex_lock(&interp->lock);
        for (const pyrt_thread_impl *thread = interp->threads; thread != NULL; thread = thread->next) {
            if (thread->base.os_id == pause->requester) {
                report->thread_id = thread->base.id;
                report->interp_id = interp->id;
                memcpy(report->thread_name, thread->name, sizeof(report->thread_name));
            }
        }
        pyrt_raw_mutex_unlock(&interp->lock);
    }
}

/* ---- the queue --------------------------------------------------------------------------------------------------- */

static void
join_queue(pyrt_pause_turn *place, const void *wants, int64_t now)
{
    *place = (pyrt_pause_turn){.wants = wants, .awake_since = now};
    pyrt_pause_turn **end = &registry->turns;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = place;
}

/* True if somebody else's turn may have come by it. */
static bool
quit_queue(pyrt_pause_turn *place)
{
    pyrt_pause_turn **link = &registry->turns;
    while (*link != place) {
        link = &(*link)->next;
    }
    *link = place->next;
    place->wants = NULL;
    return *link != NULL;
}

static bool
excludes(const pyrt_pause_turn *a, const pyrt_pause_turn *b)
{
    return a->wants == b->wants || a->wants == &everything || b->wants == &everything;
}

/* Whether an older request that excludes this one is still to be waited for. */
static bool
is_behind(const pyrt_pause_turn *place, int64_t now)
{
    for (const pyrt_pause_turn *older = registry->turns; older != place; older = older->next) {
        bool comes = older->awake_since == 0 || now < older->awake_since + PYRT_PAUSE_TURN_NS;
        if (comes && excludes(older, place)) {
            return true;
        }
    }
    return false;
}

static int64_t
earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static uint64_t
count_overtaken(const pyrt_pause_turn *place)
{
    uint64_t count = 0;
    for (const pyrt_pause_turn *older = registry->turns; older != place; older = older->next) {
        count += excludes(older, place);
    }
    return count;
}

static bool
has_turn(const pyrt_pause_turn *place, int64_t now)
{
    return is_free(place->wants) && !is_behind(place, now);
}

/* Whether there is something to stop. */
static bool
is_ending(const void *wants)
{
    return registry->users == 0 || registry->ending || (wants != &everything && ((const pyrt_interp *)wants)->ending);
}

/* Sleeps until its turn has come; false if the deadline (arg) has passed. When it returns nobody counts on it for long: the
 * block hook after it may not return. */
static bool
sleep_in_queue(void *arg)
{
    int64_t deadline = *(const int64_t *)arg;
    pyrt_pause_turn *place = &pyrt_tls()->turn;
    for (;;) {
        int64_t now = pyrt_now_ns();
        int64_t until = earlier(pyrt_pause_cancel_abandoned(now), deadline);
        pyrt_raw_mutex_lock(&registry->lock);
        bool in_time = now < deadline;
        if (!in_time || is_ending(place->wants) || has_turn(place, now)) {
            place->awake_since = now;
            pyrt_raw_mutex_unlock(&registry->lock);
            return in_time;
        }
        place->awake_since = 0;
        /* A free gate is left to somebody who may never come. */
        until = is_free(place->wants) ? earlier(now + PYRT_PAUSE_TURN_NS, until) : until;
        uint32_t turn = registry->turn;
        pyrt_raw_mutex_unlock(&registry->lock);
        (void)pyrt_futex_wait(&registry->turn, turn, until);
    }
}

pyrt_status
pyrt_pause_enter_gate(pyrt_interp *or_null, int64_t *now, int64_t deadline, pyrt_stop_report *report)
{
    const void *wants = pyrt_pause_mark(or_null);
    pyrt_pause_turn *place = &pyrt_tls()->turn;
    bool queued = false;
    bool in_time = true;
    for (;;) {
        pyrt_raw_mutex_lock(&registry->lock);
        if (!queued && !is_ending(wants)) {
            join_queue(place, wants, *now);
            queued = true;
        }
        pyrt_status status = is_ending(wants) ? PYRT_ESTATE : has_turn(place, *now) ? PYRT_OK : PYRT_ETIMEDOUT;
        bool done = status != PYRT_ETIMEDOUT || !in_time;
        if (status == PYRT_OK) {
            take(wants, count_overtaken(place));
        }
        const pyrt_pause *other = done && status == PYRT_ETIMEDOUT ? in_the_way(wants) : NULL;
        if (other != NULL) {
            name_requester(other, report);
        }
        bool wake = done && queued && quit_queue(place);
        registry->turn += wake;
        pyrt_raw_mutex_unlock(&registry->lock);
        if (wake) {
            pyrt_pause_wake_waiters();
        }
        if (done) {
            return status;
        }
        /* Detached, so that the pause that is in the way can go on. */
        in_time = pyrt_sleep_detached(sleep_in_queue, &deadline);
        *now = pyrt_now_ns();
    }
}

void
pyrt_pause_leave_queue(void)
{
    pyrt_pause_turn *place = &pyrt_tls()->turn;
    if (place->wants == NULL) {
        return;
    }
    pyrt_raw_mutex_lock(&registry->lock);
    bool wake = quit_queue(place);
    registry->turn += wake;
    pyrt_raw_mutex_unlock(&registry->lock);
    if (wake) {
        pyrt_pause_wake_waiters();
    }
}

void
pyrt_pause_gate_fork_child(void)
{
    const void *mine = pyrt_tls()->pause;
    pyrt_tls()->turn.wants = NULL;
    registry->turns = NULL;
    registry->global_taken = mine == &everything;
    registry->gates_taken = 0;
    for (pyrt_interp *interp = registry->interps; interp != NULL; interp = interp->next) {
        interp->gate_taken = mine == interp;
        registry->gates_taken += interp->gate_taken;
    }
}
