/* synchronize.c -- goals, polling and waiting, for threads: epoch/qsbr.c with a thread state and its interpreter on top. */
#include "platform/futex.h"
#include "platform/report.h"
#include "state/thread_impl.h"

/* Looks at the readers so often before it sleeps: about as long as a sleep and a wake-up cost together. The first of them go
 * by without the clock, which is asked three times for a wait that it times: as long as a reader takes that passes at once. */
enum { LOOKS_UNTIMED = 40, LOOKS = 200 };

uint64_t
pyrt_qsbr_advance(pyrt_interp *interp)
{
    if (interp != NULL) {
        PYRT_COUNT_FOR(interp, goals, 1);
    }
    return pyrt_qsbr_sequence_advance();
}

bool
pyrt_qsbr_poll_interp(pyrt_interp *interp, uint64_t goal)
{
    PYRT_COUNT_FOR(interp, polls, 1);
    if (pyrt_qsbr_is_reached(&interp->domain, goal)) {
        return true;
    }
    PYRT_COUNT_FOR(interp, scans, 1);
    if (pyrt_qsbr_scan(&interp->domain, goal)) {
        return true;
    }
    pyrt_qsbr_watch(&interp->domain, goal);
    return false;
}

bool
pyrt_qsbr_poll(pyrt_thread *thread, uint64_t goal)
{
    pyrt_interp *interp = pyrt_interp_of(thread);
    return interp != NULL && pyrt_qsbr_poll_interp(interp, goal);
}

/* The attached thread goes on passing, so that two that wait for each other both get on. */
static bool
look_for_a_while(pyrt_interp *interp, pyrt_thread *current, uint64_t goal, int looks)
{
    for (int i = 0; i < looks; i++) {
        pyrt_cpu_relax();
        if (current != NULL) {
            pyrt_qsbr_pass(&current->interp->domain, &current->slot);
        }
        if (pyrt_qsbr_scan(&interp->domain, goal)) {
            return true;
        }
    }
    return false;
}

bool
pyrt_sleep_detached(bool (*wait)(void *arg), void *arg)
{
    pyrt_thread *current = pyrt_thread_current();
    if (current != NULL) {
        pyrt_detach(current);
    }
    void *saved = pyrt_block_before();
    bool result = wait(arg);
    pyrt_block_after(saved);
    if (current != NULL) {
        pyrt_attach(current);
    }
    return result;
}

typedef struct goal_wait {
    pyrt_interp *interp;
    uint64_t goal;
    int64_t deadline;
} goal_wait;

static bool
sleep_until_reached(void *arg)
{
    goal_wait *wait = arg;
    return pyrt_qsbr_sleep(&wait->interp->domain, wait->goal, wait->deadline);
}

/* Deadline 0: looks once. */
bool
pyrt_qsbr_wait_for(pyrt_interp *interp, uint64_t goal, int64_t deadline)
{
    pyrt_thread *current = pyrt_thread_current();
    if (current != NULL) {
        pyrt_qsbr_pass(&current->interp->domain, &current->slot);
    }
    if (pyrt_qsbr_scan(&interp->domain, goal)) {
        return true;
    }
    if (deadline != 0 && look_for_a_while(interp, current, goal, LOOKS_UNTIMED)) {
        return true;
    }
    pyrt_qsbr_watch(&interp->domain, goal);
    if (deadline == 0) {
        return false;
    }
    int64_t begun = pyrt_now_ns();
    bool reached = look_for_a_while(interp, current, goal, LOOKS - LOOKS_UNTIMED);
    if (!reached) {
        PYRT_COUNT_FOR(interp, sleeps, 1);
        reached = pyrt_sleep_detached(sleep_until_reached, &(goal_wait){interp, goal, deadline});
    }
    if (reached) {
        pyrt_qsbr_stats_raise(&interp->stats.longest_grace_ns, (uint64_t)(pyrt_now_ns() - begun));
    }
    return reached;
}

pyrt_status
pyrt_qsbr_synchronize_timed(pyrt_thread *or_null, int64_t timeout_ns)
{
    pyrt_interp *interp = pyrt_interp_of(or_null);
    if (interp == NULL || pyrt_is_reading("pyrt_qsbr_synchronize")) {
        return PYRT_ESTATE;
    }
    PYRT_COUNT_FOR(interp, synchronizes, 1);
    /* The clock costs more than a grace period that is over at once: asked for only where a time was given. */
    int64_t deadline = timeout_ns > 0 ? pyrt_deadline_after(timeout_ns) : timeout_ns < 0 ? INT64_MAX : 0;
    return pyrt_qsbr_wait_for(interp, pyrt_qsbr_advance(interp), deadline) ? PYRT_OK : PYRT_ETIMEDOUT;
}

pyrt_status
pyrt_qsbr_synchronize(pyrt_thread *or_null)
{
    return pyrt_qsbr_synchronize_timed(or_null, -1);
}
