/* waits.c -- waiting in slices, between which Python looks after its signals.
 *
 * Only Python's main thread ever runs signal handlers, and the kernel's interruption of a sleep does not come through the
 * core; so a long wait is a row of short ones. A barrier that starts anew in each slice waits for new readers each time; its
 * slices therefore grow, so that readers who stay long cannot keep it from ever coming to an end.
 */
#include "binding/waits.h"

#include "binding/callables.h"
#include "binding/gil.h"
#include "binding/uses.h"

#include "platform/futex.h"
#include "platform/report.h"
#include "state/thread_impl.h"

#include <stdlib.h>

enum { SLICE_NS = 100000000, LONGEST_SLICES = 32 };

/* What is left of the time, but a slice at most; 0 when it is over. */
static int64_t
next_slice(int64_t deadline, int64_t slice)
{
    if (deadline == INT64_MAX) {
        return slice;
    }
    int64_t left = deadline - pyrt_now_ns();
    if (left <= 0) {
        return 0;
    }
    return left < slice ? left : slice;
}

static int64_t
deadline_of(int64_t timeout_ns)
{
    return timeout_ns == 0 ? 0 : pyrt_deadline_after(timeout_ns);
}

static pyrt_py_wait_result
fail(pyrt_py_domain *domain, pyrt_status status, const char *what)
{
    if (status == PYRT_EDEADLK) {
        pyrt_py_raise(status, "%s inside a disposer would wait for that disposer", what);
    }
    else {
        pyrt_py_raise(status, "%s of domain '%S': %s", what, domain->name, pyrt_strerror(status));
    }
    return PYRT_PY_FAILED;
}

/* ---- synchronize ------------------------------------------------------------------------------------------------- */

static pyrt_py_wait_result
wait_for_readers(pyrt_py_domain *domain, pyrt_thread *thread, int64_t deadline)
{
    const uint64_t goal = pyrt_qsbr_advance(domain->interp);
    for (;;) {
        int64_t slice = next_slice(deadline, SLICE_NS);
        PyThreadState *outer = pyrt_py_enter();
        pyrt_status status = pyrt_qsbr_synchronize_timed(thread, slice);
        pyrt_py_leave(outer);
        /* Each slice waits for a goal of its own, later than ours. */
        if (status == PYRT_OK || (status == PYRT_ETIMEDOUT && pyrt_qsbr_poll(thread, goal))) {
            return PYRT_PY_DONE;
        }
        if (status != PYRT_ETIMEDOUT) {
            return fail(domain, status, "synchronize()");
        }
        if (PyErr_CheckSignals() != 0) {
            return PYRT_PY_FAILED;
        }
        if (slice == 0) {
            return PYRT_PY_TIMED_OUT;
        }
    }
}

pyrt_py_wait_result
pyrt_py_synchronize(pyrt_py_domain *domain, int64_t timeout_ns)
{
    pyrt_py_lease lease;
    if (pyrt_py_refuse_reading("synchronize()") || !pyrt_py_lease_begin(domain, "synchronize()", &lease)) {
        return PYRT_PY_FAILED;
    }
    pyrt_py_wait_result result = wait_for_readers(domain, lease.thread, deadline_of(timeout_ns));
    pyrt_py_lease_end(&lease);
    return result;
}

/* ---- barrier ----------------------------------------------------------------------------------------------------- */

static pyrt_py_wait_result
wait_for_disposal(pyrt_py_domain *domain, pyrt_thread *thread, int64_t deadline)
{
    for (int64_t slices = 1;; slices = slices < LONGEST_SLICES ? 2 * slices : slices) {
        int64_t slice = next_slice(deadline, slices * SLICE_NS);
        PyThreadState *outer = pyrt_py_enter();
        pyrt_status status = pyrt_qsbr_barrier_timed(thread, slice);
        pyrt_py_leave(outer);
        if (status == PYRT_OK) {
            return PYRT_PY_DONE;
        }
        if (status != PYRT_ETIMEDOUT) {
            return fail(domain, status, "barrier()");
        }
        if (PyErr_CheckSignals() != 0) {
            return PYRT_PY_FAILED;
        }
        if (slice == 0) {
            return PYRT_PY_TIMED_OUT;
        }
    }
}

/* Sleeps until the runner is done with a batch, detached. */
static void
sleep_for_runner(pyrt_py_home *home, uint32_t batches, int64_t slice)
{
    pyrt_py_suspended suspended = pyrt_py_suspend_uses();
    PyThreadState *outer = pyrt_py_enter();
    void *saved = pyrt_block_before();
    (void)pyrt_futex_wait(&home->batches, batches, pyrt_deadline_after(slice));
    pyrt_block_after(saved);
    pyrt_py_leave(outer);
    pyrt_py_resume_uses(suspended);
}

/* Who runs a batch here has taken all that was disposed of before, after the runner before was done. */
static pyrt_py_wait_result
wait_for_callables(pyrt_py_home *home, int64_t deadline)
{
    for (;;) {
        uint32_t batches = pyrt_load_seq_cst(&home->batches);
        if (pyrt_py_run_disposed(home) != PYRT_PY_BY_OTHER) {
            return PYRT_PY_DONE;
        }
        int64_t slice = next_slice(deadline, SLICE_NS);
        if (slice == 0) {
            return PYRT_PY_TIMED_OUT;
        }
        sleep_for_runner(home, batches, slice);
        if (PyErr_CheckSignals() != 0) {
            return PYRT_PY_FAILED;
        }
    }
}

static bool
is_in_callable(const pyrt_py_home *home)
{
    return pyrt_load_relaxed(&home->runner) == (uintptr_t)pyrt_py_my_words();
}

pyrt_py_wait_result
pyrt_py_barrier(pyrt_py_domain *domain, int64_t timeout_ns)
{
    if (is_in_callable(domain->home)) {
        pyrt_py_raise(PYRT_EDEADLK, "barrier() inside a retired callable would wait for that callable");
        return PYRT_PY_FAILED;
    }
    pyrt_py_lease lease;
    if (pyrt_py_refuse_reading("barrier()") || !pyrt_py_lease_begin(domain, "barrier()", &lease)) {
        return PYRT_PY_FAILED;
    }
    int64_t deadline = deadline_of(timeout_ns);
    pyrt_py_wait_result result = wait_for_disposal(domain, lease.thread, deadline);
    pyrt_py_lease_end(&lease);
    return result == PYRT_PY_DONE ? wait_for_callables(domain->home, deadline) : result;
}

/* ---- the exit of the interpreter --------------------------------------------------------------------------------- */

/* Whether there is an n-th domain that is not closed; its interp, pinned, or NULL where it is ending now. */
static bool
pin_interp(pyrt_py_home *home, size_t n, pyrt_interp **interp)
{
    pyrt_raw_mutex_lock(&home->lock);
    const pyrt_py_domain *domain = home->domains;
    while (domain != NULL && n-- > 0) {
        domain = domain->next;
    }
    int64_t id = domain == NULL ? -1 : domain->interp_id;
    pyrt_raw_mutex_unlock(&home->lock);
    *interp = pyrt_interp_pin(id);
    return domain != NULL;
}

/* Without exceptions and signals: the interpreter is on its way out, and this is not to stop it. A daemon thread may have
 * left the world stopped, or may stop it any moment, for ever: so no pause is begun meanwhile, and the end of one that is on
 * is waited for in the queue of requests. */
static void
dispose_until(pyrt_interp *interp, int64_t deadline)
{
    PyThreadState *outer = pyrt_py_enter();
    bool held = pyrt_pause_hold_off(interp, deadline) == PYRT_OK;
    if (held || pyrt_tls()->pause != NULL) {
        pyrt_thread *thread = pyrt_thread_ensure(interp);
        if (thread != NULL) {
            (void)pyrt_qsbr_barrier_timed(thread, next_slice(deadline, INT64_MAX));
            pyrt_thread_release(thread);
        }
    }
    if (held) {
        pyrt_pause_hold_off_end(interp);
    }
    pyrt_py_leave(outer);
}

void
pyrt_py_wait_at_exit(pyrt_py_home *home, int64_t deadline)
{
    if (pyrt_thread_current() != NULL) {
        /* The main thread exits inside of a block, and would wait for itself. */
        return;
    }
    pyrt_interp *interp;
    for (size_t n = 0; pin_interp(home, n, &interp); n++) {
        if (interp == NULL) {
            continue;
        }
        dispose_until(interp, deadline);
        pyrt_interp_unpin(interp);
    }
    for (;;) {
        uint32_t batches = pyrt_load_seq_cst(&home->batches);
        if (pyrt_py_run_disposed(home) != PYRT_PY_BY_OTHER) {
            return;
        }
        int64_t left = next_slice(deadline, INT64_MAX);
        if (left == 0) {
            return;
        }
        sleep_for_runner(home, batches, left);
    }
}

/* The attached thread that holds up this domain. Threads that came later are listed first, so all are looked at. */
static bool
find_who_is_inside(pyrt_interp *interp, pyrt_thread_info *found)
{
    pyrt_stall_report stall = {.struct_size = sizeof(stall)};
    bool is_stalled = pyrt_qsbr_stall_report(interp, &stall) == PYRT_OK;
    size_t room = pyrt_thread_list(interp, NULL, 0);
    pyrt_thread_info *infos = calloc(room, sizeof(*infos));
    size_t count = infos == NULL ? 0 : pyrt_thread_list(interp, infos, room);
    bool is_found = false;
    for (size_t i = 0; i < count && i < room && !is_found; i++) {
        is_found = is_stalled ? infos[i].id == stall.thread_id : infos[i].state == PYRT_STATE_ATTACHED;
        if (is_found) {
            *found = infos[i];
        }
    }
    free(infos);
    return is_found;
}

void
pyrt_py_report_at_exit(pyrt_py_home *home)
{
    unsigned long long left = pyrt_load_acquire(&home->waiting);
    if (left == 0) {
        return;
    }
    const char *what = left == 1 ? "retired callable was" : "retired callables were";
    pyrt_interp *interp;
    for (size_t n = 0; pin_interp(home, n, &interp); n++) {
        if (interp == NULL) {
            continue;
        }
        pyrt_thread_info thread;
        bool found = find_who_is_inside(interp, &thread);
        if (found) {
            pyrt_report("%llu %s not run at exit: thread %llu '%s' is still inside a block of domain '%s'", left, what,
                        (unsigned long long)thread.id, thread.name, pyrt_interp_name(interp));
        }
        pyrt_interp_unpin(interp);
        if (found) {
            return;
        }
    }
    pyrt_report("%llu %s not run at exit: the readers did not leave in time", left, what);
}
