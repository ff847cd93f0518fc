/* stop_the_world.c -- pauses: asking, waiting, starting again.
 *
 * A pause goes through three steps. The *gate* (pause_gate.c) decides whose turn it is. *Asking* (under each interpreter's
 * lock) suspends the detached threads by compare-and-swap and flags and counts the attached ones. Then the requester
 * *waits* until `missing` is zero: each counted thread takes itself off when it parks, detaches or ends (pause_park.c).
 *
 * No wake-up is lost, although a thread detaches with a plain store followed by a load of its flags:
 *
 *      requester                                        thread
 *      flag STOP, seq_cst                               store word = 0, release
 *      pyrt_membarrier()                                light barrier
 *      look at the word: 0 -> suspend it and uncount    load flags: STOP -> suspend itself and uncount
 *
 * After the membarrier either the thread's store is visible to the requester, or its load comes later and sees STOP. Both
 * may be true; the compare-and-swap 0 -> SUSPENDED lets one of them count.
 *
 * Nobody starves. A thread that has waited for the end of a pause is owed a *turn*: the next request finds it detached, but
 * leaves it alone, counts it, and flags it, so that it stands still when it has attached and come to a safepoint. Without
 * that the moment between two pauses would be over before the thread is awake. After PYRT_PAUSE_TURN_NS, or at the
 * deadline of the request, it loses its turn and is suspended like others, until the end of the next pause.
 */
#include "platform/futex.h"
#include "platform/report.h"
#include "state/pause.h"

#include <pyruntime/stop_the_world.h>

#include <string.h>

/* For so long the requester hands its core on before it sleeps: about what the sleep costs, with its barrier and its wake-up.
 * The threads that it waits for may be waiting for that core. */
enum { YIELD_NS = 50000 };

static pyrt_registry *const registry = &pyrt_the_registry;

static pyrt_pause *
pause_of(pyrt_interp *or_null)
{
    return or_null != NULL ? &or_null->own_pause : &registry->global_pause;
}

void
pyrt_pause_for_each(pyrt_interp *or_null, void (*visit)(pyrt_interp *, void *), void *arg)
{
    if (or_null != NULL) {
        visit(or_null, arg);
        return;
    }
    pyrt_raw_mutex_lock(&registry->lock);
    for (pyrt_interp *interp = registry->interps; interp != NULL; interp = interp->next) {
        visit(interp, arg);
    }
    pyrt_raw_mutex_unlock(&registry->lock);
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

/* Whether the thread is detached and shall attach first. The caller holds the interpreter's lock. */
static bool
is_owed_a_turn(pyrt_thread_impl *thread, int64_t now)
{
    /* acquire: a word that its owner has set when it detached again tells of its turn too. Pairs with detach, and
     * pyrt_pause_had_turn. */
    return pyrt_load_acquire(&thread->base.slot.word) == PYRT_STATE_DETACHED && pyrt_load_relaxed(&thread->turn_until) > now;
}

/* The same, counted if a turn is lost by it. */
static bool
suspend(pyrt_thread_impl *thread)
{
    if (!pyrt_pause_suspend(thread)) {
        return false;
    }
    if (pyrt_load_relaxed(&thread->turn_until) != 0) {
        pyrt_store_relaxed(&thread->turn_until, (int64_t)0);
        (void)pyrt_fetch_add_relaxed(&thread->base.interp->pause->stats.turns_lost, (uint64_t)1);
    }
    return true;
}

/* Born into this pause before it asked the interpreter. The caller holds the interpreter's lock. */
static bool
is_suspended(pyrt_thread_impl *thread)
{
    uint64_t state = pyrt_load_relaxed(&thread->base.slot.word);
    return state == PYRT_STATE_SUSPENDED || state == PYRT_STATE_SUSPENDED_WAITED;
}

/* Visits every interpreter that is to stop: first to ask, then to look for those that have detached. */
typedef struct request {
    pyrt_pause *pause;
    int64_t now;      /* INT64_MAX: nobody has a turn any more */
    uint32_t stopped;
    int64_t next_look; /* when somebody loses a turn */
} request;

/* A locked operation waits for its line, and the loads after it wait for the operation: many states are stopped a tenth sooner
 * if the lines of the one after next are on their way. */
static inline void
fetch_ahead(const pyrt_thread_impl *thread)
{
    const pyrt_thread_impl *next = thread->next;
    const pyrt_thread_impl *ahead = next != NULL ? next->next : NULL;
    if (ahead != NULL) {
        __builtin_prefetch(&ahead->base.slot.word, 1);
        __builtin_prefetch(&ahead->next, 0);
    }
}

static void
ask(pyrt_interp *interp, void *arg)
{
    request *asked = arg;
    pyrt_raw_mutex_lock(&interp->lock);
    interp->pause = asked->pause;
    for (pyrt_thread_impl *thread = interp->threads; thread != NULL; thread = thread->next) {
        fetch_ahead(thread);
        if (thread->base.os_id == asked->pause->requester) {
            continue;
        }
        asked->stopped++;
        if (!is_suspended(thread) && (is_owed_a_turn(thread, asked->now) || !suspend(thread))) {
            thread->counted = true;
            pyrt_fetch_add_seq_cst(&asked->pause->missing, 1u);
            pyrt_fetch_or_seq_cst(&thread->base.slot.flags, PYRT_FLAG_STOP);
        }
    }
    pyrt_raw_mutex_unlock(&interp->lock);
}

/* After a membarrier: takes those that have detached without seeing the flag. */
static void
take_detached(pyrt_interp *interp, void *arg)
{
    request *asked = arg;
    pyrt_raw_mutex_lock(&interp->lock);
    for (pyrt_thread_impl *thread = interp->threads; thread != NULL; thread = thread->next) {
        if (!thread->counted) {
            continue;
        }
        if (is_owed_a_turn(thread, asked->now)) {
            int64_t until = pyrt_load_relaxed(&thread->turn_until);
            asked->next_look = until < asked->next_look ? until : asked->next_look;
        }
        else if (suspend(thread)) {
            pyrt_pause_uncount_missing(thread);
        }
    }
    pyrt_raw_mutex_unlock(&interp->lock);
}

static void
set_stopped(pyrt_interp *interp, void *unused)
{
    (void)unused;
    pyrt_raw_mutex_lock(&interp->lock);
    interp->stopped = true;
    pyrt_raw_mutex_unlock(&interp->lock);
}

static void
let_go(pyrt_interp *interp, int64_t now)
{
    pyrt_raw_mutex_lock(&interp->lock);
    interp->pause = NULL;
    interp->stopped = false;
    for (pyrt_thread_impl *thread = interp->threads; thread != NULL; thread = thread->next) {
        uint64_t *word = &thread->base.slot.word;
        thread->counted = false;
        /* relaxed: it is set under this lock only, and few have it: the detached were never asked. */
        if (pyrt_load_relaxed(&thread->base.slot.flags) & PYRT_FLAG_STOP) {
            pyrt_fetch_and_seq_cst(&thread->base.slot.flags, ~PYRT_FLAG_STOP);
        }
        uint64_t found = PYRT_STATE_SUSPENDED;
        /* seq_cst: as release it hands over what happened in the pause. Pairs with the compare-and-swap of attach; so does
         * the exchange below. */
        if (!pyrt_cas_seq_cst(word, &found, (uint64_t)PYRT_STATE_DETACHED) && found == PYRT_STATE_SUSPENDED_WAITED) {
            pyrt_store_relaxed(&thread->turn_until, now + PYRT_PAUSE_TURN_NS);
            (void)pyrt_exchange_seq_cst(word, (uint64_t)PYRT_STATE_DETACHED);
            pyrt_futex_wake((const uint32_t *)(const void *)word, 1);
        }
    }
    pyrt_raw_mutex_unlock(&interp->lock);
}

/* In one step: an interpreter that was born in between would stand still for ever. */
void
pyrt_pause_end_locked(pyrt_interp *or_null, int64_t now)
{
    if (or_null != NULL) {
        let_go(or_null, now);
    }
    else {
        for (pyrt_interp *interp = registry->interps; interp != NULL; interp = interp->next) {
            let_go(interp, now);
        }
    }
    /* release: nothing but the gate depends on it; as every store of the word. */
    pyrt_store_release(&pause_of(or_null)->claim, (uint64_t)PYRT_PAUSE_NONE);
    pyrt_pause_open_gate(or_null);
}

static void
end_pause(pyrt_interp *or_null)
{
    pyrt_pause *pause = pause_of(or_null);
    int64_t now = pyrt_now_ns();
    if (pause->stopped_at != 0) {
        pyrt_pause_count_start(pause, now);
    }
    pyrt_raw_mutex_lock(&registry->lock);
    pyrt_pause_end_locked(or_null, now);
    pyrt_raw_mutex_unlock(&registry->lock);
    pyrt_pause_wake_waiters();
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

/* acquire: pairs with the decrement in pyrt_pause_uncount_missing. */
static bool
nobody_missing(pyrt_pause *pause)
{
    return pyrt_load_acquire(&pause->missing) == 0;
}

/* False: it takes longer. */
static bool
yield_until_still(pyrt_pause *pause)
{
    int64_t end = nobody_missing(pause) ? 0 : pyrt_now_ns() + YIELD_NS;
    while (!nobody_missing(pause)) {
        if (pyrt_now_ns() >= end) {
            return false;
        }
        pyrt_yield();
    }
    return true;
}

static int64_t
earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void
sleep_until_still(pyrt_interp *or_null, pyrt_pause *pause, int64_t deadline)
{
    bool in_time = true;
    while (!nobody_missing(pause) && in_time) {
        bool ordered = pyrt_membarrier();
        int64_t now = pyrt_now_ns();
        in_time = now < deadline;
        request again = {.pause = pause, .now = in_time ? now : INT64_MAX, .next_look = deadline};
        pyrt_pause_for_each(or_null, take_detached, &again);
        int64_t until = ordered ? again.next_look : earlier(again.next_look, now + PYRT_WITHOUT_MEMBARRIER_NS);
        uint32_t missing = pyrt_load_acquire(&pause->missing);
        if (missing != 0 && in_time) {
            (void)pyrt_futex_wait(&pause->missing, missing, until);
        }
    }
}

/* Writes down who is missing. */
static void
find_missing(pyrt_interp *interp, void *arg)
{
    pyrt_stop_report *report = arg;
    pyrt_raw_mutex_lock(&interp->lock);
    for (pyrt_thread_impl *thread = interp->threads; thread != NULL; thread = thread->next) {
        if (!thread->counted) {
            continue;
        }
        report->stopped--;
        if (report->missing++ == 0) {
            report->thread_id = thread->base.id;
            report->interp_id = interp->id;
            report->os_tid = thread->os_tid;
            memcpy(report->thread_name, thread->name, sizeof(report->thread_name));
        }
    }
    pyrt_raw_mutex_unlock(&interp->lock);
}

/* Waits until nobody is missing. If somebody is at the deadline it is undone, before the block hook that may not return; else
 * it is only offered while the thread is in there. PYRT_OK, PYRT_ETIMEDOUT, or PYRT_EBUSY if it was cancelled meanwhile. */
static pyrt_status
wait_until_still(pyrt_interp *or_null, pyrt_pause *pause, int64_t deadline, int64_t patience, pyrt_stop_report *report)
{
    if (yield_until_still(pause)) {
        pyrt_pause_claim(pause, PYRT_PAUSE_TAKEN);
        return PYRT_OK;
    }
    void *saved = pyrt_block_before();
    sleep_until_still(or_null, pause, deadline);
    bool still = nobody_missing(pause);
    if (!still) {
        pyrt_pause_for_each(or_null, find_missing, report);
        still = report->missing == 0; /* the last one has just parked */
    }
    if (!still) {
        (void)pyrt_fetch_add_relaxed(&pause->stats.timed_out, (uint64_t)1);
        pyrt_tls()->pause = NULL;
        end_pause(or_null);
    }
    else {
        pyrt_pause_offer(pause, pyrt_deadline_after(patience));
    }
    pyrt_block_after(saved);
    return !still ? PYRT_ETIMEDOUT : pyrt_pause_take(pause) ? PYRT_OK : PYRT_EBUSY;
}

/* ---- the calls --------------------------------------------------------------------------------------------------- */

static const char *
name_of(pyrt_interp *or_null)
{
    return or_null != NULL ? or_null->name : "the whole process";
}

/* What of the caller's own state forbids a pause; reported. */
static bool
may_request(pyrt_interp *or_null)
{
    pyrt_thread *current = pyrt_thread_current();
    const void *mark = pyrt_tls()->pause;
    if (mark != NULL) {
        pyrt_report("pyrt_stop_the_world: asks to stop %s, but this OS thread has stopped %s already; start that first",
                    name_of(or_null), name_of(pyrt_pause_of_mark(mark)));
        return false;
    }
    if (or_null != NULL && current != NULL && current->interp != or_null) {
        /* Two that are attached here and stop there, and the other way round, would wait for each other. */
        pyrt_report("pyrt_stop_the_world: thread %llu is attached to interpreter %lld and asks to stop interpreter %lld; "
                    "detach it first",
                    (unsigned long long)current->id, (long long)pyrt_interp_id(current->interp), (long long)or_null->id);
        return false;
    }
    return !pyrt_is_reading("pyrt_stop_the_world");
}

/* With the gate taken: asks, waits, and undoes it if somebody is missing at the deadline. */
static pyrt_status
stop(pyrt_interp *or_null, int64_t now, int64_t deadline, int64_t patience, pyrt_stop_report *report)
{
    pyrt_tls_block *tls = pyrt_tls();
    pyrt_pause *pause = pause_of(or_null);
    if (tls->current != NULL) {
        pyrt_qsbr_pass(&tls->current->interp->domain, &tls->current->slot);
    }
    pause->asked_at = now;
    pyrt_store_release(&pause->missing, 1u);
    request asked = {.pause = pause, .now = now < deadline ? now : INT64_MAX};
    pyrt_pause_for_each(or_null, ask, &asked);
    /* Everybody has been asked: from here zero means that nobody is missing. */
    pyrt_fetch_add_seq_cst(&pause->missing, -1u);

    /* From here on the end of this OS thread undoes it: a host that shuts down may end it in the block hook. */
    tls->pause = pyrt_pause_mark(or_null);
    report->stopped = asked.stopped;
    pyrt_status status = wait_until_still(or_null, pause, deadline, patience, report);
    if (status == PYRT_OK) {
        pyrt_pause_for_each(or_null, set_stopped, NULL);
    }
    else {
        tls->pause = NULL;
    }
    return status;
}

pyrt_status
pyrt_stop_the_world_timed(pyrt_interp *or_null, int64_t timeout_ns, pyrt_stop_report *report_or_null)
{
    pyrt_stop_report ignored = {.struct_size = sizeof(ignored)};
    pyrt_stop_report *report = report_or_null != NULL ? report_or_null : &ignored;
    if (report->struct_size != sizeof(*report)) {
        return PYRT_EINVAL;
    }
    if (!pyrt_runtime_is_initialized() || !may_request(or_null)) {
        return PYRT_ESTATE;
    }
    if (pyrt_os_thread_register() != PYRT_OK) {
        return PYRT_ENOMEM;
    }
    int64_t begun = pyrt_now_ns();
    int64_t deadline = pyrt_deadline_after(timeout_ns);
    int64_t now = begun;
    int64_t patience = PYRT_PAUSE_OFFERED_NS;
    pyrt_status status;
    do {
        *report = (pyrt_stop_report){.struct_size = sizeof(*report), .interp_id = -1};
        status = pyrt_pause_enter_gate(or_null, &now, deadline, report);
        if (status == PYRT_OK) {
            status = stop(or_null, now, deadline, patience, report);
        }
        now = pyrt_now_ns();
        patience *= 2;
    } while (status == PYRT_EBUSY);
    if (status == PYRT_OK) {
        pyrt_pause_count_stop(pause_of(or_null), now);
    }
    report->time_to_stop_ns = now - begun;
    return status;
}

pyrt_status
pyrt_stop_the_world(pyrt_interp *or_null)
{
    return pyrt_stop_the_world_timed(or_null, -1, NULL);
}

void
pyrt_start_the_world(pyrt_interp *or_null)
{
    pyrt_tls_block *tls = pyrt_tls();
    if (tls->pause != pyrt_pause_mark(or_null)) {
        pyrt_report("pyrt_start_the_world: this OS thread has not stopped %s", name_of(or_null));
        return;
    }
    tls->pause = NULL;
    end_pause(or_null);
    if (tls->current != NULL) {
        /* In the pause it could not wait for its mutexes. */
        pyrt_critical_sections_resume(tls->current);
    }
}

pyrt_status
pyrt_pause_hold_off(pyrt_interp *interp, int64_t deadline)
{
    if (pyrt_tls()->pause != NULL) {
        return PYRT_ESTATE;
    }
    if (pyrt_os_thread_register() != PYRT_OK) {
        return PYRT_ENOMEM;
    }
    int64_t now = pyrt_now_ns();
    pyrt_stop_report ignored;
    pyrt_status status = pyrt_pause_enter_gate(interp, &now, deadline, &ignored);
    if (status == PYRT_OK) {
        /* The end of this OS thread opens the gate; and this is a pause as far as it counts for others: a second one of this
         * OS thread is nested. */
        pyrt_tls()->pause = pyrt_pause_mark(interp);
        pyrt_pause_claim(&interp->own_pause, PYRT_PAUSE_TAKEN);
    }
    return status;
}

void
pyrt_pause_hold_off_end(pyrt_interp *interp)
{
    if (pyrt_tls()->pause == pyrt_pause_mark(interp)) {
        pyrt_tls()->pause = NULL;
        end_pause(interp);
    }
}

static void
check_stopped(pyrt_interp *interp, void *arg)
{
    pyrt_raw_mutex_lock(&interp->lock);
    *(bool *)arg &= interp->stopped;
    pyrt_raw_mutex_unlock(&interp->lock);
}

bool
pyrt_world_is_stopped(pyrt_interp *or_null)
{
    bool stopped = pyrt_runtime_is_initialized();
    pyrt_pause_for_each(or_null, check_stopped, &stopped);
    return stopped;
}

void
pyrt_pause_end_of_os_thread(void)
{
    pyrt_pause_leave_queue();
    const void *mark = pyrt_tls()->pause;
    if (mark != NULL) {
        pyrt_tls()->pause = NULL;
        if (pyrt_pause_reclaim(pause_of(pyrt_pause_of_mark(mark)))) {
            end_pause(pyrt_pause_of_mark(mark));
        }
    }
}

/* In the child, with all locks new and the other threads gone: a pause of another thread is over, one of this thread goes
 * on, with nobody left in it. */
void
pyrt_pause_fork_child(void)
{
    const void *mine = pyrt_tls()->pause;
    uint64_t self = pyrt_tls()->os_id;
    pyrt_pause_gate_fork_child();
    if (mine == NULL || pyrt_pause_of_mark(mine) != NULL) {
        registry->global_pause.stopped_at = 0;
        registry->global_pause.claim = PYRT_PAUSE_NONE;
    }
    for (pyrt_interp *interp = registry->interps; interp != NULL; interp = interp->next) {
        if (mine != NULL && (pyrt_pause_of_mark(mine) == NULL || mine == interp)) {
            continue;
        }
        interp->pause = NULL;
        interp->stopped = false;
        interp->own_pause.stopped_at = 0;
        interp->own_pause.claim = PYRT_PAUSE_NONE;
        for (pyrt_thread_impl *thread = interp->threads; thread != NULL; thread = thread->next) {
            thread->counted = false;
            thread->turn_until = 0;
            pyrt_fetch_and_seq_cst(&thread->base.slot.flags, ~PYRT_FLAG_STOP);
            if (thread->base.os_id == self && is_suspended(thread)) {
                pyrt_store_release(&thread->base.slot.word, (uint64_t)PYRT_STATE_DETACHED);
            }
        }
    }
}
