/* test_mutex_pauses.c -- the mutex while the world is stopped, and across a fork: a stopped thread never owns a lock that
 * who stopped it needs, and loses no place by that; and a child finds nobody waiting.
 */
#include "locking.h"
#include "mills.h"

#include <pyruntime/fork.h>

#include <unistd.h>

/* Parked at the mutex, detached, in the order of the array. */
static void
begin_waiters(locker *all, int count)
{
    for (int i = 0; i < count; i++) {
        begin_attached(&all[i], 0);
        WAIT_UNTIL(pyrt_parked_count(&the_mutex) == (size_t)i + 1);
        WAIT_UNTIL(state_of(all[i].thread) == PYRT_STATE_DETACHED);
    }
}

/* Parked at the mutex, with no state that could be stopped. */
static void
begin_free_waiter(locker *l)
{
    size_t before = pyrt_parked_count(&the_mutex);
    begin_locking(l);
    WAIT_UNTIL(pyrt_parked_count(&the_mutex) == before + 1);
}

static void
check_stands_still(locker *l)
{
    CHECK(worker_is_busy(&l->worker));
    CHECK_INT(state_of(l->thread), PYRT_STATE_SUSPENDED);
}

/* ---- pauses ------------------------------------------------------------------------------------------------------ */

TEST(a_stopped_waiter_gives_back_what_is_reserved_for_it)
{
    runtime_up();
    locker one, two;
    pyrt_mutex_lock(&the_mutex);
    begin_waiters(&one, 1);
    begin_attached(&two, 0);
    WAIT_UNTIL(pyrt_parked_count(&the_mutex) == 2);
    wait_until_fair();
    CHECK_OK(pyrt_stop_the_world(NULL));
    pyrt_mutex_unlock(&the_mutex);
    /* Reserved for one, who cannot attach; and so it went on to two, who cannot either. */
    WAIT_UNTIL(pyrt_parked_count(&the_mutex) == 0 && the_state() == PYRT_MUTEX_UNLOCKED);
    check_stands_still(&one);
    check_stands_still(&two);
    pyrt_mutex_lock(&the_mutex);
    pyrt_start_the_world(NULL);
    /* Both are back in the queue, in whichever order they came, and stand in it as before. */
    WAIT_UNTIL(pyrt_parked_count(&the_mutex) == 2);
    pyrt_mutex_unlock(&the_mutex);
    check_has_it(&one);
    CHECK(worker_is_busy(&two.worker));
    end_locker(&one);
    check_has_it(&two);
    end_locker(&two);
    runtime_down();
}

TEST(it_goes_to_one_behind_it_who_is_not_stopped)
{
    runtime_up();
    locker stopped, free_one;
    pyrt_mutex_lock(&the_mutex);
    begin_waiters(&stopped, 1);
    begin_free_waiter(&free_one);
    wait_until_fair();
    CHECK_OK(pyrt_stop_the_world(NULL));
    pyrt_mutex_unlock(&the_mutex);
    check_has_it(&free_one);
    check_stands_still(&stopped);
    pyrt_start_the_world(NULL);
    WAIT_UNTIL(pyrt_parked_count(&the_mutex) == 1);
    end_locker(&free_one);
    check_has_it(&stopped);
    end_locker(&stopped);
    runtime_down();
}

typedef struct stopper {
    worker worker;
    bool stopped;
} stopper;

static void
stop_and_lock(void *arg)
{
    stopper *self = arg;
    CHECK_OK(pyrt_stop_the_world(NULL));
    pyrt_store_release(&self->stopped, true);
    pyrt_mutex_lock(&the_mutex);
}

static void
start_and_unlock(void *unused)
{
    (void)unused;
    pyrt_start_the_world(NULL);
    pyrt_mutex_unlock(&the_mutex);
}

static int
who_is_done(locker **waiting, int count)
{
    while (count-- > 0 && worker_is_busy(&waiting[count]->worker)) {
    }
    return count;
}

/* The requester waits behind those that it has stopped; whether or not they have waited for long. */
static void
check_requester_in_the_queue(bool fair)
{
    runtime_up();
    locker waiters[3];
    stopper requester = {.stopped = false};
    pyrt_mutex_lock(&the_mutex);
    begin_waiters(waiters, 3);
    if (fair) {
        wait_until_fair();
    }
    worker_start(&requester.worker);
    worker_begin(&requester.worker, stop_and_lock, &requester);
    WAIT_UNTIL(pyrt_parked_count(&the_mutex) == 4);
    CHECK(pyrt_load_acquire(&requester.stopped));
    pyrt_mutex_unlock(&the_mutex);
    worker_finish(&requester.worker);
    CHECK_INT(the_state(), PYRT_MUTEX_LOCKED);
    for (int i = 0; i < 3; i++) {
        check_stands_still(&waiters[i]);
    }
    worker_do(&requester.worker, start_and_unlock, NULL);
    worker_end(&requester.worker);
    locker *waiting[] = {&waiters[0], &waiters[1], &waiters[2]};
    for (int left = 3; left > 0; left--) {
        int next = -1;
        WAIT_UNTIL((next = who_is_done(waiting, left)) >= 0);
        check_has_it(waiting[next]);
        end_locker(waiting[next]);
        waiting[next] = waiting[left - 1];
    }
    CHECK_INT(the_state(), PYRT_MUTEX_UNLOCKED);
    runtime_down();
}

TEST(a_requester_behind_those_it_stopped_gets_it)
{
    check_requester_in_the_queue(false);
}

TEST(a_requester_behind_those_it_stopped_gets_what_was_reserved)
{
    check_requester_in_the_queue(true);
}

/* The host keeps the one for whom it is reserved, so that it cannot give it back. */
TEST(a_requester_takes_a_reservation_at_once)
{
    runtime_up();
    for (int i = 0; i < 2; i++) {
        locker one;
        pyrt_mutex_lock(&the_mutex);
        host_keeps_waiters();
        begin_waiters(&one, 1);
        WAIT_UNTIL(waiters_asleep() == 1);
        wait_until_fair();
        CHECK_OK(pyrt_stop_the_world(NULL));
        pyrt_mutex_unlock(&the_mutex);
        WAIT_UNTIL(waiters_kept() == 1);
        CHECK_INT(the_state(), PYRT_MUTEX_RESERVED);
        if (i == 0) {
            CHECK(pyrt_mutex_trylock(&the_mutex));
        }
        else {
            pyrt_mutex_lock(&the_mutex);
        }
        CHECK_INT(waiters_kept(), 1);
        host_lets_go();
        WAIT_UNTIL(state_of(one.thread) == PYRT_STATE_SUSPENDED);
        pyrt_start_the_world(NULL);
        WAIT_UNTIL(pyrt_parked_count(&the_mutex) == 1);
        pyrt_mutex_unlock(&the_mutex);
        check_has_it(&one);
        end_locker(&one);
        host_leaves();
    }
    runtime_down();
}

/* ---- forks ------------------------------------------------------------------------------------------------------- */

static void
use_it_in_the_child(void)
{
    long counter = 0;
    for (int i = 0; i < 100; i++) {
        pyrt_mutex_lock(&the_mutex);
        counter++;
        pyrt_mutex_unlock(&the_mutex);
    }
    CHECK_INT(counter, 100);
#if !defined(UNDER_TSAN)
    locker one;
    pyrt_mutex_lock(&the_mutex);
    begin_locking(&one);
    WAIT_UNTIL(pyrt_parked_count(&the_mutex) == 1);
    pyrt_mutex_unlock(&the_mutex);
    check_has_it(&one);
    end_locker(&one);
#endif
    CHECK_UINT(pyrt_parked_near(&the_mutex) & ~PYRT_PARKED_ALWAYS, 0);
}

static void
fork_with_waiters(pid_t (*fork_somehow)(void))
{
    runtime_up();
    locker waiters[3];
    pyrt_mutex_lock(&the_mutex);
    begin_waiters(waiters, 2);
    begin_free_waiter(&waiters[2]);
    pid_t child = fork_somehow();
    if (child == 0) {
        /* The one who forked holds it still, and nobody waits. */
        CHECK_UINT(pyrt_parked_count(&the_mutex), 0);
        CHECK_UINT(pyrt_parked_near(&the_mutex) & ~PYRT_PARKED_ALWAYS, 0);
        CHECK_INT(the_state(), PYRT_MUTEX_LOCKED);
        pyrt_mutex_unlock(&the_mutex);
        use_it_in_the_child();
        _exit(0);
    }
    wait_for_child(child);
    CHECK_UINT(pyrt_parked_count(&the_mutex), 3);
    pyrt_mutex_unlock(&the_mutex);
    for (int i = 0; i < 3; i++) {
        check_has_it(&waiters[i]);
        end_locker(&waiters[i]);
    }
    runtime_down();
}

TEST(fork_with_waiters_present)
{
    fork_with_waiters(fork);
}

TEST(pyrt_fork_with_waiters_present)
{
    fork_with_waiters(pyrt_fork);
}

TEST(a_child_sets_free_what_a_lost_thread_held)
{
    locker owner;
    begin_locking(&owner);
    check_has_it(&owner);
    pid_t child = fork();
    if (child == 0) {
        CHECK(!pyrt_mutex_trylock(&the_mutex));
        pyrt_mutex_at_fork_reinit(&the_mutex);
        use_it_in_the_child();
        _exit(0);
    }
    wait_for_child(child);
    end_locker(&owner);
}

TEST(a_child_takes_what_was_reserved_for_a_lost_thread)
{
    locker one;
    pyrt_mutex_lock(&the_mutex);
    host_keeps_waiters();
    begin_locking(&one);
    WAIT_UNTIL(waiters_asleep() == 1);
    wait_until_fair();
    pyrt_mutex_unlock(&the_mutex);
    WAIT_UNTIL(waiters_kept() == 1);
    pid_t child = fork();
    if (child == 0) {
        host_leaves();
        CHECK_INT(the_state(), PYRT_MUTEX_RESERVED);
        pyrt_mutex_lock(&the_mutex);
        pyrt_mutex_unlock(&the_mutex);
        use_it_in_the_child();
        _exit(0);
    }
    wait_for_child(child);
    host_lets_go();
    check_has_it(&one);
    end_locker(&one);
    host_leaves();
}

enum { FORKS = 30, BUSY = 3 };

static bool over;

static void
keep_busy(void *unused)
{
    (void)unused;
    while (!pyrt_load_relaxed(&over)) {
        pyrt_mutex_lock(&the_mutex);
        sched_yield();
        pyrt_mutex_unlock(&the_mutex);
    }
}

/* Anywhere in a lock, an unlock, or a bucket. */
TEST(fork_at_any_moment)
{
    worker busy[BUSY];
    pyrt_store_relaxed(&over, false);
    for (int i = 0; i < BUSY; i++) {
        worker_start(&busy[i]);
        worker_begin(&busy[i], keep_busy, NULL);
    }
    for (int i = 0; i < FORKS; i++) {
        pid_t child = fork();
        if (child == 0) {
            pyrt_mutex_at_fork_reinit(&the_mutex);
            use_it_in_the_child();
            _exit(0);
        }
        wait_for_child(child);
    }
    pyrt_store_relaxed(&over, true);
    for (int i = 0; i < BUSY; i++) {
        worker_finish(&busy[i]);
        worker_end(&busy[i]);
    }
}
