/* attach.c -- the long ways of attach, detach, safepoint and quiescent state: waiting, answering, and naming misuse.
 *
 * The short ways are inline in thread.h and qsbr.h, the state table of the word is in qsbr_slot.h.
 */
#include "platform/futex.h"
#include "platform/report.h"
#include "state/pause.h"
#include "sync/waiting.h"

/* The kernel sleeps on 32 bits; the low half of a word tells the waited-for state from every other. */
static const uint32_t *
low_half(const uint64_t *word)
{
    PYRT_STATIC_ASSERT(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the low half comes first");
    return (const uint32_t *)(const void *)word;
}

void
pyrt_report_thread(const char *function, pyrt_thread *thread, const char *what)
{
    pyrt_report("%s: thread %llu '%s' of interpreter %lld '%s' %s", function, (unsigned long long)thread->id,
                pyrt_thread_impl_of(thread)->name, (long long)pyrt_interp_id(thread->interp),
                pyrt_interp_name(thread->interp), what);
}

bool
pyrt_is_reading(const char *function)
{
    pyrt_thread *current = pyrt_thread_current();
    if (current == NULL || current->slot.read_depth == 0) {
        return false;
    }
    pyrt_report_thread(function, current,
                       "is inside a read-side section, which this call would end; leave the section first");
    return true;
}

/* ---- attach ------------------------------------------------------------------------------------------------------ */

/* Why it cannot be attached here, reported; or true. */
static bool
may_attach(pyrt_thread *thread)
{
    const pyrt_tls_block *tls = pyrt_tls();
    if (tls->os_id != thread->os_id) {
        pyrt_report_thread("pyrt_attach", thread, "belongs to another OS thread");
        return false;
    }
    if (tls->current == thread) {
        pyrt_report_thread("pyrt_attach", thread, "is attached already");
        return false;
    }
    if (tls->current != NULL) {
        pyrt_report_thread("pyrt_attach", tls->current, "is attached on this OS thread; detach it first");
        return false;
    }
    return true;
}

/* Who gives up does not wait any more when the hook comes, which may not return: the end of the pause leaves it no turn. */
static pyrt_futex_end
sleep_while_suspended(pyrt_thread *thread, int64_t deadline, bool interruptible)
{
    /* A lock that was reserved for this thread is somebody's who can run: perhaps the one who stopped the world. */
    pyrt_mutex_give_back();
    void *saved = pyrt_block_before();
    pyrt_futex_end end =
        pyrt_futex_sleep(low_half(&thread->slot.word), PYRT_STATE_SUSPENDED_WAITED, deadline, interruptible);
    if (end == PYRT_FUTEX_TIMED_OUT || (end == PYRT_FUTEX_INTERRUPTED && interruptible)) {
        uint64_t waited = PYRT_STATE_SUSPENDED_WAITED;
        /* acq_rel, as when it was set; whoever starts the world finds one or the other under the interpreter's lock. */
        (void)pyrt_cas_acq_rel(&thread->slot.word, &waited, (uint64_t)PYRT_STATE_SUSPENDED);
    }
    pyrt_block_after(saved);
    return end;
}

/* PYRT_OK when it is attached, but for its critical sections. */
static pyrt_status
attach_until(pyrt_thread *thread, int64_t deadline, bool interruptible)
{
    pyrt_futex_end end = PYRT_FUTEX_WOKEN;
    for (;;) {
        uint64_t found = PYRT_STATE_DETACHED;
        /* acquire and seq_cst: as in the inline pyrt_tryattach. */
        uint64_t sequence = pyrt_load_acquire(thread->slot.sequence);
        if (pyrt_cas_seq_cst(&thread->slot.word, &found, sequence)) {
            return PYRT_OK;
        }
        if (found != PYRT_STATE_SUSPENDED && found != PYRT_STATE_SUSPENDED_WAITED) {
            pyrt_report_thread("pyrt_attach", thread, "has ended");
            return PYRT_ESTATE;
        }
        if (end == PYRT_FUTEX_INTERRUPTED && interruptible) {
            return PYRT_EINTR;
        }
        if (end == PYRT_FUTEX_TIMED_OUT || deadline == 0) {
            return PYRT_ETIMEDOUT;
        }
        if (found == PYRT_STATE_SUSPENDED_WAITED ||
            pyrt_cas_acq_rel(&thread->slot.word, &found, (uint64_t)PYRT_STATE_SUSPENDED_WAITED)) {
            int64_t next_look = pyrt_pause_cancel_abandoned(pyrt_now_ns());
            end = sleep_while_suspended(thread, next_look < deadline ? next_look : deadline, interruptible);
            end = end == PYRT_FUTEX_TIMED_OUT && next_look < deadline ? PYRT_FUTEX_WOKEN : end;
        }
    }
}

static pyrt_status
attach_within(pyrt_thread *thread, int64_t deadline, bool interruptible)
{
    pyrt_status status = may_attach(thread) ? attach_until(thread, deadline, interruptible) : PYRT_ESTATE;
    if (status != PYRT_OK) {
        return status;
    }
    pyrt_tls_block *tls = pyrt_tls();
    pyrt_fence_after_rmw();
    pyrt_pause_had_turn(pyrt_thread_impl_of(thread));
    tls->current = thread;
    tls->self_id = thread->self_id;
    if (thread->critical_sections != 0) {
        pyrt_critical_sections_resume(thread);
    }
    return PYRT_OK;
}

void
pyrt_attach_slow(pyrt_thread *thread)
{
    (void)attach_within(thread, INT64_MAX, false);
}

pyrt_status
pyrt_attach_timed(pyrt_thread *thread, int64_t timeout_ns, unsigned flags)
{
    if ((flags & ~(unsigned)PYRT_LOCK_INTERRUPTIBLE) != 0) {
        return PYRT_EINVAL;
    }
    int64_t deadline = timeout_ns == 0 ? 0 : pyrt_deadline_after(timeout_ns);
    return attach_within(thread, deadline, (flags & PYRT_LOCK_INTERRUPTIBLE) != 0);
}

/* ---- detach ------------------------------------------------------------------------------------------------------ */

/* The inline pyrt_detach found a reason not to, or critical sections. */
void
pyrt_detach_slow(pyrt_thread *thread)
{
    if (pyrt_thread_current() != thread) {
        pyrt_report_thread("pyrt_detach", thread, "is not attached on this OS thread");
        return;
    }
    if (!pyrt_is_reading("pyrt_detach")) {
        pyrt_critical_sections_suspend(thread);
        pyrt_detach_unchecked(thread);
    }
}

/* Others had asked something of the thread when it detached. */
void
pyrt_detach_answer(pyrt_thread *thread)
{
    uint32_t asked = pyrt_load_relaxed(&thread->slot.flags);
    if (asked & PYRT_FLAG_STOP) {
        pyrt_pause_count_detached(pyrt_thread_impl_of(thread));
    }
    for (int i = 0; i < PYRT_STAGES && (asked & (PYRT_FLAG_COLLECT | PYRT_FLAG_MERGE)) != 0; i++) {
        const pyrt_stage *stage = pyrt_stages[i];
        if (stage != NULL && stage->thread_detached != NULL && (asked & PYRT_FLAG_MERGE) != 0) {
            stage->thread_detached(pyrt_thread_impl_of(thread));
        }
        if (stage != NULL && stage->thread_collect != NULL && (asked & PYRT_FLAG_COLLECT) != 0) {
            stage->thread_collect(pyrt_thread_impl_of(thread));
        }
    }
    if (asked & PYRT_FLAG_WAKE) {
        pyrt_qsbr_answer_wake(&thread->interp->domain, &thread->slot);
    }
}

/* ---- quiescent state and safepoint ------------------------------------------------------------------------------- */

static bool
may_pass(pyrt_thread *thread, const char *function)
{
    if (pyrt_thread_current() != thread) {
        pyrt_report_thread(function, thread, "is not attached on this OS thread");
        return false;
    }
    return !pyrt_is_reading(function);
}

void
pyrt_qsbr_quiescent_slow(pyrt_thread *thread)
{
    if (may_pass(thread, "pyrt_qsbr_quiescent_state")) {
        pyrt_qsbr_pass(&thread->interp->domain, &thread->slot);
    }
}

void
pyrt_safepoint_slow(pyrt_thread *thread)
{
    if (!may_pass(thread, "pyrt_safepoint")) {
        return;
    }
    pyrt_thread_impl *impl = pyrt_thread_impl_of(thread);
    pyrt_qsbr_pass(&thread->interp->domain, &thread->slot);
    if (pyrt_load_relaxed(&thread->slot.flags) & PYRT_FLAG_STOP) {
        pyrt_pause_park(impl);
    }
    for (int i = 0; i < PYRT_STAGES; i++) {
        if (pyrt_stages[i] != NULL && pyrt_stages[i]->thread_work != NULL) {
            pyrt_stages[i]->thread_work(impl);
        }
    }
}

/* ---- counted read-side sections ---------------------------------------------------------------------------------- */

void
pyrt_read_begin_counted(pyrt_thread *thread)
{
    if (pyrt_thread_current() != thread) {
        pyrt_report_thread("pyrt_read_begin", thread, "is not attached on this OS thread: nothing protects this section");
        return;
    }
    thread->slot.read_depth++;
}

void
pyrt_read_end_counted(pyrt_thread *thread)
{
    if (pyrt_thread_current() != thread || thread->slot.read_depth == 0) {
        pyrt_report_thread("pyrt_read_end", thread, "has no open read-side section on this OS thread");
        return;
    }
    thread->slot.read_depth--;
}
