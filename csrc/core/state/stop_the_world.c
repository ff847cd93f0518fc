/* stop_the_world.c -- pauses: the gate, asking, parking, starting again.
 *
 * A pause goes through three steps. The *gate* (under the registry's lock) decides whose turn it is: a pause of one
 * interpreter excludes a second one of the same and a global one, a global one excludes all. *Asking* (under each
 * interpreter's lock) suspends the detached threads by compare-and-swap and flags and counts the attached ones. Then the
 * requester *waits* until `missing` is zero: each counted thread takes itself off when it parks, detaches or ends.
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
 */
#include "platform/futex.h"
#include "platform/report.h"
#include "state/thread_impl.h"

#include <pyruntime/stop_the_world.h>

#include <limits.h>
#include <string.h>

/* Looks at `missing` so often before it sleeps. */
enum { LOOKS = 400 };

static pyrt_registry *const registry = &pyrt_the_registry;

/* What tls->pause points to while this OS thread has stopped the whole process. */
static const char everything;

static const void *
mark_of(pyrt_interp *or_null)
{
    return or_null != NULL ? (const void *)or_null : (const void *)&everything;
}

/* Calls `visit` for the one interpreter or for all; the list keeps still under the registry's lock. */
static void
for_each(pyrt_interp *or_null, void (*visit)(pyrt_interp *, void *), void *arg)
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

/* ---- the gate ---------------------------------------------------------------------------------------------------- */

/* The requester is set before anybody can find the pause: from here on an interpreter may be born into it. The caller holds
 * the registry's lock. */
static bool
take_gate(pyrt_interp *or_null)
{
    if (registry->global_taken) {
        return false;
    }
    if (or_null == NULL) {
        registry->global_taken = registry->gates_taken == 0;
        registry->global_pause.requester = registry->global_taken ? pyrt_tls()->os_id : 0;
        return registry->global_taken;
    }
    /* One that wants all has been waiting: single ones do not go on overtaking it. */
    if (or_null->gate_taken || registry->global_waiting != 0) {
        return false;
    }
    or_null->gate_taken = true;
    or_null->own_pause.requester = pyrt_tls()->os_id;
    registry->gates_taken++;
    return true;
}

typedef struct gate_wait {
    uint32_t turn;
    bool is_global;
    int64_t deadline;
} gate_wait;

/* Sleeps until some gate has become free. It does not wait any more when it returns: the block hook after it may not. */
static bool
sleep_at_gate(void *arg)
{
    gate_wait *wait = arg;
    bool in_time = pyrt_futex_wait(&registry->turn, wait->turn, wait->deadline);
    pyrt_raw_mutex_lock(&registry->lock);
    registry->global_waiting -= wait->is_global;
    pyrt_raw_mutex_unlock(&registry->lock);
    return in_time;
}

/* Whether there is something to stop. The caller holds the registry's lock. */
static bool
is_ending(pyrt_interp *or_null)
{
    return registry->users == 0 || registry->ending || (or_null != NULL && or_null->ending);
}

static pyrt_status
enter_gate(pyrt_interp *or_null, int64_t deadline)
{
    bool in_time = true;
    for (;;) {
        pyrt_raw_mutex_lock(&registry->lock);
        pyrt_status status = is_ending(or_null) ? PYRT_ESTATE : take_gate(or_null) ? PYRT_OK : PYRT_ETIMEDOUT;
        bool done = status != PYRT_ETIMEDOUT || !in_time;
        registry->global_waiting += or_null == NULL && !done;
        bool gave_up = or_null == NULL && done && status != PYRT_OK;
        registry->turn += gave_up;
        uint32_t turn = registry->turn;
        pyrt_raw_mutex_unlock(&registry->lock);
        if (gave_up) {
            /* Those that it held back may go on. */
            pyrt_futex_wake(&registry->turn, INT_MAX);
        }
        if (done) {
            return status;
        }
        /* Detached, so that the pause that is in the way can go on. */
        in_time = pyrt_sleep_detached(sleep_at_gate, &(gate_wait){turn, or_null == NULL, deadline});
    }
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

static void
uncount(pyrt_thread_impl *thread)
{
    pyrt_pause *pause = thread->base.interp->pause;
    thread->counted = false;
    /* seq_cst: what the thread did before is seen by the requester who reads the zero. Pairs with its acquire. */
    if (pyrt_fetch_add_seq_cst(&pause->missing, -1u) == 1) {
        pyrt_futex_wake(&pause->missing, INT_MAX);
    }
}

/* DETACHED -> SUSPENDED. The caller holds the interpreter's lock. */
static bool
suspend(pyrt_thread_impl *thread)
{
    uint64_t detached = PYRT_STATE_DETACHED;
    /* seq_cst: pairs with the compare-and-swap of attach, one of the two wins; as an acquire with the release of detach. */
    return pyrt_cas_seq_cst(&thread->base.slot.word, &detached, (uint64_t)PYRT_STATE_SUSPENDED);
}

/* Born into this pause before it asked the interpreter. The caller holds the interpreter's lock. */
static bool
is_suspended(pyrt_thread_impl *thread)
{
    uint64_t state = pyrt_load_relaxed(&thread->base.slot.word);
    return state == PYRT_STATE_SUSPENDED || state == PYRT_STATE_SUSPENDED_WAITED;
}

typedef struct request {
    pyrt_pause *pause; /* NULL: each interpreter's own */
    uint64_t requester;
    uint32_t stopped;
} request;

static void
ask(pyrt_interp *interp, void *arg)
{
    request *asked = arg;
    pyrt_raw_mutex_lock(&interp->lock);
    interp->pause = asked->pause;
    for (pyrt_thread_impl *thread = interp->threads; thread != NULL; thread = thread->next) {
        if (thread->base.os_id == asked->requester) {
            continue;
        }
        asked->stopped++;
        if (!is_suspended(thread) && !suspend(thread)) {
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
    (void)arg;
    pyrt_raw_mutex_lock(&interp->lock);
    for (pyrt_thread_impl *thread = interp->threads; thread != NULL; thread = thread->next) {
        if (thread->counted && suspend(thread)) {
            uncount(thread);
        }
    }
    pyrt_raw_mutex_unlock(&interp->lock);
}

static void
set_stopped(pyrt_interp *interp, void *arg)
{
    pyrt_raw_mutex_lock(&interp->lock);
    interp->stopped = *(const bool *)arg;
    pyrt_raw_mutex_unlock(&interp->lock);
}

static void
let_go(pyrt_interp *interp)
{
    pyrt_raw_mutex_lock(&interp->lock);
    interp->pause = NULL;
    interp->stopped = false;
    for (pyrt_thread_impl *thread = interp->threads; thread != NULL; thread = thread->next) {
        uint64_t *word = &thread->base.slot.word;
        thread->counted = false;
        pyrt_fetch_and_seq_cst(&thread->base.slot.flags, ~PYRT_FLAG_STOP);
        if (is_suspended(thread)) {
            /* seq_cst: as release it hands over what happened in the pause. Pairs with the compare-and-swap of attach. */
            if (pyrt_exchange_seq_cst(word, (uint64_t)PYRT_STATE_DETACHED) == PYRT_STATE_SUSPENDED_WAITED) {
                pyrt_futex_wake((const uint32_t *)(const void *)word, 1);
            }
        }
    }
    pyrt_raw_mutex_unlock(&interp->lock);
}

/* Undoes asking, and a complete pause alike, and opens the gate. In one step: an interpreter that was born in between would
 * stand still for ever. */
static void
end_pause(pyrt_interp *or_null)
{
    pyrt_raw_mutex_lock(&registry->lock);
    if (or_null != NULL) {
        let_go(or_null);
        or_null->gate_taken = false;
        registry->gates_taken--;
    }
    else {
        for (pyrt_interp *interp = registry->interps; interp != NULL; interp = interp->next) {
            let_go(interp);
        }
        registry->global_taken = false;
    }
    registry->turn++;
    pyrt_raw_mutex_unlock(&registry->lock);
    pyrt_futex_wake(&registry->turn, INT_MAX);
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

/* acquire: pairs with the decrement in uncount. */
static bool
nobody_missing(pyrt_pause *pause)
{
    return pyrt_load_acquire(&pause->missing) == 0;
}

static bool
wait_until_still(pyrt_interp *or_null, pyrt_pause *pause, int64_t deadline)
{
    for (int i = 0; i < LOOKS; i++) {
        if (nobody_missing(pause)) {
            return true;
        }
        pyrt_cpu_relax();
    }
    bool in_time = true;
    void *saved = pyrt_block_before();
    while (!nobody_missing(pause) && in_time) {
        bool ordered = pyrt_membarrier();
        for_each(or_null, take_detached, NULL);
        int64_t until = deadline;
        if (!ordered && pyrt_now_ns() + PYRT_WITHOUT_MEMBARRIER_NS < deadline) {
            until = pyrt_now_ns() + PYRT_WITHOUT_MEMBARRIER_NS;
        }
        uint32_t missing = pyrt_load_acquire(&pause->missing);
        if (missing != 0) {
            in_time = pyrt_futex_wait(&pause->missing, missing, until) || until != deadline;
        }
    }
    pyrt_block_after(saved);
    return nobody_missing(pause);
}

typedef struct missing_thread {
    uint32_t count;
    pyrt_stop_report *report;
} missing_thread;

static void
find_missing(pyrt_interp *interp, void *arg)
{
    missing_thread *missing = arg;
    pyrt_raw_mutex_lock(&interp->lock);
    for (pyrt_thread_impl *thread = interp->threads; thread != NULL; thread = thread->next) {
        if (!thread->counted) {
            continue;
        }
        if (missing->count++ == 0) {
            missing->report->thread_id = thread->base.id;
            missing->report->interp_id = interp->id;
            missing->report->os_tid = thread->os_tid;
            memcpy(missing->report->thread_name, thread->name, sizeof(missing->report->thread_name));
        }
    }
    pyrt_raw_mutex_unlock(&interp->lock);
}

/* ---- the calls --------------------------------------------------------------------------------------------------- */

/* What of the caller's own state forbids a pause; reported. */
static bool
may_request(pyrt_interp *or_null)
{
    pyrt_thread *current = pyrt_thread_current();
    if (pyrt_tls()->pause != NULL) {
        pyrt_report("pyrt_stop_the_world: this OS thread has stopped the world already; start it first");
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
    *report = (pyrt_stop_report){.struct_size = sizeof(*report), .interp_id = -1};

    pyrt_status status = enter_gate(or_null, deadline);
    if (status != PYRT_OK) {
        report->time_to_stop_ns = pyrt_now_ns() - begun;
        return status;
    }
    pyrt_tls_block *tls = pyrt_tls();
    if (tls->current != NULL) {
        pyrt_qsbr_pass(&tls->current->interp->domain, &tls->current->slot);
    }
    pyrt_pause *pause = or_null != NULL ? &or_null->own_pause : &registry->global_pause;
    pyrt_store_release(&pause->missing, 1u);
    request asked = {.pause = pause, .requester = tls->os_id};
    for_each(or_null, ask, &asked);
    /* Everybody has been asked: from here zero means that nobody is missing. */
    pyrt_fetch_add_seq_cst(&pause->missing, -1u);

    /* From here on the end of this OS thread undoes it: a host that shuts down may end it in the block hook. */
    tls->pause = mark_of(or_null);
    bool still = wait_until_still(or_null, pause, deadline);
    missing_thread missing = {.report = report};
    if (still) {
        for_each(or_null, set_stopped, &(bool){true});
    }
    else {
        for_each(or_null, find_missing, &missing);
        tls->pause = NULL;
        end_pause(or_null);
    }
    report->missing = missing.count;
    report->stopped = asked.stopped - missing.count;
    report->time_to_stop_ns = pyrt_now_ns() - begun;
    return still ? PYRT_OK : PYRT_ETIMEDOUT;
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
    if (tls->pause != mark_of(or_null)) {
        pyrt_report("pyrt_start_the_world: this OS thread has not stopped %s",
                    or_null != NULL ? or_null->name : "the whole process");
        return;
    }
    tls->pause = NULL;
    end_pause(or_null);
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
    for_each(or_null, check_stopped, &stopped);
    return stopped;
}

/* ---- the thread's side ------------------------------------------------------------------------------------------- */

void
pyrt_pause_park(pyrt_thread_impl *thread)
{
    pyrt_interp *interp = thread->base.interp;
    pyrt_qsbr_slot *slot = &thread->base.slot;
    pyrt_tls_block *tls = pyrt_tls();
    pyrt_raw_mutex_lock(&interp->lock);
    bool park = thread->counted;
    pyrt_fetch_and_seq_cst(&slot->flags, ~PYRT_FLAG_STOP);
    if (park) {
        tls->current = NULL;
        tls->self_id = 0;
        /* seq_cst: as the release of detach, and before the look at the flags below. */
        (void)pyrt_exchange_seq_cst(&slot->word, (uint64_t)PYRT_STATE_SUSPENDED);
        uncount(thread);
    }
    pyrt_raw_mutex_unlock(&interp->lock);
    if (!park) {
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
    if (thread->counted && suspend(thread)) {
        uncount(thread);
    }
    pyrt_raw_mutex_unlock(&interp->lock);
}

void
pyrt_pause_uncount(pyrt_thread_impl *thread)
{
    if (thread->counted) {
        uncount(thread);
    }
}

void
pyrt_pause_end_of_os_thread(void)
{
    const void *mark = pyrt_tls()->pause;
    if (mark != NULL) {
        pyrt_start_the_world(mark == &everything ? NULL : (pyrt_interp *)mark);
    }
}

/* ---- fork -------------------------------------------------------------------------------------------------------- */

/* In the child, with all locks new and the other threads gone: a pause of another thread is over, one of this thread goes
 * on, with nobody left in it. */
void
pyrt_pause_fork_child(void)
{
    const void *mine = pyrt_tls()->pause;
    uint64_t self = pyrt_tls()->os_id;
    registry->global_taken = mine == &everything;
    registry->global_waiting = 0;
    registry->gates_taken = 0;
    for (pyrt_interp *interp = registry->interps; interp != NULL; interp = interp->next) {
        interp->gate_taken = mine == interp;
        registry->gates_taken += interp->gate_taken;
        if (mine == &everything || mine == interp) {
            continue;
        }
        interp->pause = NULL;
        interp->stopped = false;
        for (pyrt_thread_impl *thread = interp->threads; thread != NULL; thread = thread->next) {
            uint64_t word = pyrt_load_relaxed(&thread->base.slot.word);
            bool suspended = word == PYRT_STATE_SUSPENDED || word == PYRT_STATE_SUSPENDED_WAITED;
            thread->counted = false;
            pyrt_fetch_and_seq_cst(&thread->base.slot.flags, ~PYRT_FLAG_STOP);
            if (thread->base.os_id == self && suspended) {
                pyrt_store_release(&thread->base.slot.word, (uint64_t)PYRT_STATE_DETACHED);
            }
        }
    }
}
