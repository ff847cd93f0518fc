/* locking.c -- see locking.h. */
#include "locking.h"

#include "platform/futex.h"
#include "platform/os_thread.h"

#include <unistd.h>

pyrt_mutex the_mutex;

uint8_t
the_state(void)
{
    return pyrt_load_relaxed(&the_mutex.state);
}

static void
lock(void *arg)
{
    locker *l = arg;
    l->status = PYRT_OK;
    if (l->timeout_ns < 0 && l->flags == 0) {
        pyrt_mutex_lock(&the_mutex);
        return;
    }
    l->status = pyrt_mutex_lock_timed(&the_mutex, l->timeout_ns, l->flags);
}

static void
unlock(void *unused)
{
    (void)unused;
    pyrt_mutex_unlock(&the_mutex);
}

void
begin_locking(locker *l)
{
    begin_locking_for(l, -1, 0);
}

void
begin_locking_for(locker *l, int64_t timeout_ns, unsigned flags)
{
    *l = (locker){.timeout_ns = timeout_ns, .flags = flags};
    worker_start(&l->worker);
    worker_begin(&l->worker, lock, l);
}

void
begin_attached(locker *l, unsigned flags)
{
    *l = (locker){.timeout_ns = -1, .flags = flags};
    worker_start(&l->worker);
    worker_do(&l->worker, attach_new, &l->thread);
    worker_begin(&l->worker, lock, l);
}

void
check_waits(locker *l)
{
    WAIT_UNTIL(pyrt_parked_count(&the_mutex) != 0);
    CHECK(worker_is_busy(&l->worker));
}

void
check_has_it(locker *l)
{
    worker_finish(&l->worker);
    CHECK_OK(l->status);
    CHECK_INT(the_state(), PYRT_MUTEX_LOCKED);
}

void
check_gave_up(locker *l, pyrt_status status)
{
    worker_finish(&l->worker);
    CHECK_STATUS(l->status, status);
    worker_end(&l->worker);
}

void
end_locker(locker *l)
{
    if (l->status == PYRT_OK) {
        worker_do(&l->worker, unlock, NULL);
    }
    if (l->thread != NULL) {
        worker_do(&l->worker, delete_attached, l->thread);
    }
    worker_end(&l->worker);
}

void
wait_until_fair(void)
{
    int64_t end = pyrt_now_ns() + 2 * PYRT_MUTEX_FAIR_NS;
    WAIT_UNTIL(pyrt_now_ns() >= end);
}

/* ---- the host ------------------------------------------------------------------------------------------------------ */

static int asleep;
static int kept;
static bool keeping;
static void (*doing)(void);

static void *
before(void)
{
    (void)pyrt_fetch_add_seq_cst(&asleep, 1);
    return NULL;
}

int
waiters_asleep(void)
{
    return pyrt_load_seq_cst(&asleep);
}

/* The test itself is led by nobody. */
static void
keep(void *unused)
{
    (void)unused;
    (void)pyrt_fetch_add_seq_cst(&asleep, -1);
    if (pyrt_os_thread_tid() == getpid()) {
        return;
    }
    (void)pyrt_fetch_add_seq_cst(&kept, 1);
    WAIT_UNTIL(!pyrt_load_seq_cst(&keeping));
    (void)pyrt_fetch_add_seq_cst(&kept, -1);
}

static void
act(void *unused)
{
    (void)unused;
    (void)pyrt_fetch_add_seq_cst(&asleep, -1);
    static __thread bool inside;
    void (*what)(void) = pyrt_load_acquire(&doing);
    if (what != NULL && !inside) {
        inside = true;
        what();
        inside = false;
    }
}

void
host_keeps_waiters(void)
{
    (void)pyrt_exchange_seq_cst(&keeping, true);
    pyrt_set_block_hooks(&(pyrt_block_hooks){before, keep});
}

int
waiters_kept(void)
{
    return pyrt_load_seq_cst(&kept);
}

/* Whoever comes now is not kept. */
void
host_lets_go(void)
{
    (void)pyrt_exchange_seq_cst(&keeping, false);
    WAIT_UNTIL(waiters_kept() == 0);
}

void
host_does(void (*what)(void))
{
    pyrt_store_release(&doing, what);
    if (what != NULL) {
        pyrt_set_block_hooks(&(pyrt_block_hooks){before, act});
    }
}

void
host_leaves(void)
{
    host_does(NULL);
    pyrt_set_block_hooks(NULL);
}
