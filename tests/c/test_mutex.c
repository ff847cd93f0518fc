/* test_mutex.c -- the lock of one byte: locking, waiting, its ends, reservations, and misuse. What pauses and forks do to
 * it is in test_mutex_pauses.c.
 */
#include "locking.h"

#include <signal.h>
#include <stdlib.h>

/* ---- one thread -------------------------------------------------------------------------------------------------- */

TEST(zero_is_unlocked)
{
    static pyrt_mutex zero;
    pyrt_mutex initialised = PYRT_MUTEX_INIT;
    CHECK(!pyrt_mutex_is_locked(&zero));
    CHECK(!pyrt_mutex_is_locked(&initialised));
    CHECK_INT(sizeof(pyrt_mutex), 1);
}

TEST(it_works_without_the_runtime)
{
    pyrt_mutex m = PYRT_MUTEX_INIT;
    pyrt_mutex_lock(&m);
    CHECK(pyrt_mutex_is_locked(&m));
    CHECK(!pyrt_mutex_trylock(&m));
    CHECK_STATUS(pyrt_mutex_lock_timed(&m, 0, 0), PYRT_ETIMEDOUT);
    pyrt_mutex_unlock(&m);
    CHECK(!pyrt_mutex_is_locked(&m));
    CHECK(pyrt_mutex_trylock(&m));
    pyrt_mutex_unlock(&m);
    CHECK_OK(pyrt_mutex_lock_timed(&m, 0, 0));
    pyrt_mutex_unlock(&m);
    CHECK_OK(pyrt_mutex_lock_timed(&m, -1, PYRT_LOCK_NO_DETACH | PYRT_LOCK_INTERRUPTIBLE));
    pyrt_mutex_unlock(&m);
}

TEST(unlocking_what_is_not_locked_is_reported)
{
    pyrt_mutex m = PYRT_MUTEX_INIT;
    pyrt_mutex_unlock(&m);
    EXPECT_REPORT("pyrt_mutex_unlock", "not locked");
    CHECK(pyrt_mutex_trylock(&m));
    pyrt_mutex_unlock(&m);
}

TEST(unknown_flags_are_refused)
{
    pyrt_mutex m = PYRT_MUTEX_INIT;
    CHECK_STATUS(pyrt_mutex_lock_timed(&m, 0, PYRT_PARK_FRONT), PYRT_EINVAL);
    CHECK(!pyrt_mutex_is_locked(&m));
}

/* Bit 7 sends every call the long way, and changes nothing else. */
TEST(a_watched_one_is_locked_all_the_same)
{
    pyrt_mutex m = {PYRT_MUTEX_WATCHED};
    CHECK(!pyrt_mutex_is_locked(&m));
    pyrt_mutex_lock(&m);
    CHECK(pyrt_mutex_is_locked(&m));
    pyrt_mutex_unlock(&m);
    CHECK(!pyrt_mutex_is_locked(&m));
    m.state = PYRT_MUTEX_WATCHED;
    CHECK(pyrt_mutex_trylock(&m));
    CHECK(!pyrt_mutex_trylock(&m));
    m.state |= PYRT_MUTEX_WATCHED;
    CHECK(!pyrt_mutex_trylock(&m));
    CHECK_STATUS(pyrt_mutex_lock_timed(&m, 1, 0), PYRT_ETIMEDOUT);
    pyrt_mutex_unlock(&m);
    CHECK(!pyrt_mutex_is_locked(&m));
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

TEST(a_waiter_gets_it_after_the_unlock)
{
    locker one;
    pyrt_mutex_lock(&the_mutex);
    begin_locking(&one);
    check_waits(&one);
    pyrt_mutex_unlock(&the_mutex);
    check_has_it(&one);
    end_locker(&one);
    CHECK(!pyrt_mutex_is_locked(&the_mutex));
    CHECK_UINT(pyrt_parked_near(&the_mutex) & ~PYRT_PARKED_ALWAYS, 0);
}

static void
count_up(void *counter, int number)
{
    (void)number;
    for (int i = 0; i < 20000; i++) {
        pyrt_mutex_lock(&the_mutex);
        (*(long *)counter)++;
        pyrt_mutex_unlock(&the_mutex);
    }
}

static void
check_exclusion(void)
{
    long counter = 0;
    run_crowd(8, count_up, &counter);
    CHECK_INT(counter, 8 * 20000);
    CHECK_UINT(pyrt_parked_count(&the_mutex), 0);
    CHECK(!pyrt_mutex_is_locked(&the_mutex));
}

TEST(one_owner_at_a_time)
{
    check_exclusion();
}

/* As it is where the kernel refuses membarrier. */
TEST(one_owner_at_a_time_by_read_modify_writes)
{
    pyrt_parking_set_always(true);
    CHECK(pyrt_parked_near(&the_mutex) & PYRT_PARKED_ALWAYS);
    check_exclusion();
    pyrt_parking_set_always(false);
    CHECK_UINT(pyrt_parked_near(&the_mutex), 0);
}

TEST(time_runs_out)
{
    locker one;
    pyrt_mutex_lock(&the_mutex);
    begin_locking_for(&one, 1, 0);
    check_gave_up(&one, PYRT_ETIMEDOUT);
    begin_locking_for(&one, 300000, 0);
    check_gave_up(&one, PYRT_ETIMEDOUT);
    CHECK_UINT(pyrt_parked_count(&the_mutex), 0);
    pyrt_mutex_unlock(&the_mutex);
    begin_locking_for(&one, 1, 0);
    check_has_it(&one);
    end_locker(&one);
}

static void
on_signal(int number)
{
    (void)number;
}

TEST(a_signal_ends_an_interruptible_wait_alone)
{
    const int flags[] = {0, SA_RESTART};
    for (int i = 0; i < 2; i++) {
        struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags[i]};
        CHECK_INT(sigaction(SIGUSR1, &action, NULL), 0);
        locker one, other;
        pyrt_mutex_lock(&the_mutex);
        begin_locking(&other);
        check_waits(&other);
        begin_locking_for(&one, -1, PYRT_LOCK_INTERRUPTIBLE);
        WAIT_UNTIL(pyrt_parked_count(&the_mutex) == 2);
        /* One that comes before the sleep is not noticed. */
        WAIT_UNTIL((pthread_kill(one.worker.thread, SIGUSR1), pthread_kill(other.worker.thread, SIGUSR1),
                    !worker_is_busy(&one.worker)));
        check_gave_up(&one, PYRT_EINTR);
        check_waits(&other);
        pyrt_mutex_unlock(&the_mutex);
        check_has_it(&other);
        end_locker(&other);
    }
}

TEST(a_waiter_is_detached_unless_told_otherwise)
{
    runtime_up();
    const unsigned flags[] = {PYRT_LOCK_DETACH, PYRT_LOCK_NO_DETACH};
    for (int i = 0; i < 2; i++) {
        locker one;
        pyrt_mutex_lock(&the_mutex);
        watch_sleepers();
        begin_attached(&one, flags[i]);
        WAIT_UNTIL(sleepers() == 1);
        CHECK_INT(state_of(one.thread), i == 0 ? PYRT_STATE_DETACHED : PYRT_STATE_ATTACHED);
        pyrt_mutex_unlock(&the_mutex);
        check_has_it(&one);
        CHECK_INT(state_of(one.thread), PYRT_STATE_ATTACHED);
        stop_watching_sleepers();
        end_locker(&one);
    }
    runtime_down();
}

TEST(in_a_read_side_section_it_waits_attached_and_that_is_reported)
{
    runtime_up();
    pyrt_thread *thread;
    attach_new(&thread);
    pyrt_mutex m = {PYRT_MUTEX_LOCKED};
    pyrt_read_begin_counted(thread);
    CHECK_STATUS(pyrt_mutex_lock_timed(&m, 1000, 0), PYRT_ETIMEDOUT);
    EXPECT_REPORT("pyrt_mutex_lock_timed", named(thread), "read-side section");
    CHECK_PTR(pyrt_thread_current(), thread);
    /* Who does not detach does no wrong. */
    CHECK_STATUS(pyrt_mutex_lock_timed(&m, 1000, PYRT_LOCK_NO_DETACH), PYRT_ETIMEDOUT);
    pyrt_read_end_counted(thread);
    delete_attached(thread);
    runtime_down();
}

#if defined(PYRT_DEBUG)
TEST(in_a_read_side_section_it_is_reported_also_when_it_need_not_wait)
{
    runtime_up();
    pyrt_thread *thread;
    attach_new(&thread);
    pyrt_mutex m = PYRT_MUTEX_INIT;
    pyrt_read_begin(thread);
    pyrt_mutex_lock(&m);
    EXPECT_REPORT("pyrt_mutex_lock", named(thread), "read-side section");
    CHECK(pyrt_mutex_is_locked(&m));
    pyrt_mutex_unlock(&m);
    pyrt_read_end(thread);
    delete_attached(thread);
    runtime_down();
}
#endif

/* ---- its memory ---------------------------------------------------------------------------------------------------- */

enum { MORTALS = 2000 };

static pyrt_mutex *mortals[MORTALS];

/* Two threads for each mutex; the second owner frees it. The first may still be on its way out of the unlock. */
static void
lock_and_free(void *visits, int number)
{
    (void)number;
    for (int i = 0; i < MORTALS; i++) {
        pyrt_mutex *m = mortals[i];
        pyrt_mutex_lock(m);
        bool last = ++((int *)visits)[i] == 2;
        pyrt_mutex_unlock(m);
        if (last) {
            free(m);
        }
    }
}

TEST(its_memory_may_go_when_another_thread_has_had_it)
{
    static int visits[MORTALS];
    for (int i = 0; i < MORTALS; i++) {
        visits[i] = 0;
        mortals[i] = calloc(1, sizeof(pyrt_mutex));
        CHECK(mortals[i] != NULL);
    }
    run_crowd(2, lock_and_free, visits);
}

/* ---- reservations -------------------------------------------------------------------------------------------------- */

/* Leaves the mutex reserved for a waiter that its host keeps. */
static void
reserve(locker *one)
{
    pyrt_mutex_lock(&the_mutex);
    host_keeps_waiters();
    begin_locking(one);
    WAIT_UNTIL(waiters_asleep() == 1);
    wait_until_fair();
    pyrt_mutex_unlock(&the_mutex);
    WAIT_UNTIL(waiters_kept() == 1);
}

TEST(who_has_waited_for_long_has_it_reserved)
{
    locker one;
    reserve(&one);
    CHECK_INT(the_state(), PYRT_MUTEX_RESERVED);
    CHECK(pyrt_mutex_is_locked(&the_mutex));
    CHECK(!pyrt_mutex_trylock(&the_mutex));
    CHECK_STATUS(pyrt_mutex_lock_timed(&the_mutex, 1, 0), PYRT_ETIMEDOUT);
    /* Nobody holds it. */
    pyrt_mutex_unlock(&the_mutex);
    EXPECT_REPORT("pyrt_mutex_unlock", "not locked");
    CHECK_INT(the_state(), PYRT_MUTEX_RESERVED);
    host_lets_go();
    check_has_it(&one);
    CHECK_INT(the_state(), PYRT_MUTEX_LOCKED);
    end_locker(&one);
    host_leaves();
}

TEST(a_reservation_that_nobody_uses_is_anybodys)
{
    locker one;
    reserve(&one);
    pyrt_mutex_lock(&the_mutex);
    CHECK_INT(the_state(), PYRT_MUTEX_LOCKED);
    /* The one that it was reserved for goes on waiting, and has it next. */
    host_lets_go();
    check_waits(&one);
    pyrt_mutex_unlock(&the_mutex);
    check_has_it(&one);
    end_locker(&one);
    host_leaves();
}

/* As in the child of a fork, where the thread that it is for is not. */
TEST(who_tries_again_after_its_time_gets_it_too)
{
    pyrt_mutex m = {PYRT_MUTEX_RESERVED};
    pyrt_mutex other = {PYRT_MUTEX_RESERVED};
    CHECK(!pyrt_mutex_trylock(&m));
    WAIT_UNTIL(pyrt_mutex_trylock(&m));
    CHECK_INT(m.state, PYRT_MUTEX_LOCKED);
    /* Its time begins anew with every other lock, and after it was had. */
    CHECK(!pyrt_mutex_trylock(&other));
    m.state = PYRT_MUTEX_RESERVED;
    CHECK(!pyrt_mutex_trylock(&m));
    CHECK_STATUS(pyrt_mutex_lock_timed(&other, 0, 0), PYRT_ETIMEDOUT);
}

/* It had gone to sleep before there was a reservation to look at. */
TEST(so_it_is_for_one_that_sleeps)
{
    locker one, two;
    pyrt_mutex_lock(&the_mutex);
    host_keeps_waiters();
    begin_locking(&one);
    WAIT_UNTIL(waiters_asleep() == 1);
    begin_locking(&two);
    WAIT_UNTIL(waiters_asleep() == 2);
    wait_until_fair();
    pyrt_mutex_unlock(&the_mutex);
    /* One has the reservation; two comes for it, and is then kept too. */
    WAIT_UNTIL(waiters_kept() == 2);
    host_lets_go();
    WAIT_UNTIL(!worker_is_busy(&one.worker) || !worker_is_busy(&two.worker));
    locker *first = worker_is_busy(&one.worker) ? &two : &one;
    check_has_it(first);
    end_locker(first);
    first = first == &one ? &two : &one;
    check_has_it(first);
    end_locker(first);
    host_leaves();
}

static pyrt_mutex inner;

static void
lock_inner(void)
{
    pyrt_mutex_lock(&inner);
    pyrt_mutex_unlock(&inner);
}

TEST(who_waits_for_something_else_first_gives_it_back)
{
    locker one;
    pyrt_mutex_lock(&inner);
    pyrt_mutex_lock(&the_mutex);
    host_does(lock_inner);
    begin_locking(&one);
    WAIT_UNTIL(waiters_asleep() == 1);
    wait_until_fair();
    pyrt_mutex_unlock(&the_mutex);
    WAIT_UNTIL(pyrt_parked_count(&inner) == 1);
    WAIT_UNTIL(the_state() == PYRT_MUTEX_UNLOCKED);
    CHECK(pyrt_mutex_trylock(&the_mutex));
    host_does(NULL);
    pyrt_mutex_unlock(&inner);
    check_waits(&one);
    pyrt_mutex_unlock(&the_mutex);
    check_has_it(&one);
    end_locker(&one);
    host_leaves();
}

/* ---- an OS thread that ends in its wait ------------------------------------------------------------------------------ */

static void
end_os_thread(void)
{
    pthread_exit(NULL);
}

static void
check_end_in_the_wait(bool fair)
{
    locker one, two;
    pyrt_mutex_lock(&the_mutex);
    host_does(end_os_thread);
    begin_locking(&one);
    WAIT_UNTIL(waiters_asleep() == 1);
    begin_locking(&two);
    WAIT_UNTIL(waiters_asleep() == 2);
    if (fair) {
        wait_until_fair();
    }
    pyrt_mutex_unlock(&the_mutex);
    worker_join_exited(&one.worker);
    /* It was let go of and woken, once for each of the two. */
    worker_join_exited(&two.worker);
    CHECK_INT(the_state(), PYRT_MUTEX_UNLOCKED);
    CHECK_UINT(pyrt_parked_count(&the_mutex), 0);
    host_leaves();
}

TEST(an_os_thread_that_ends_in_its_wait_leaves_nothing_reserved)
{
    check_end_in_the_wait(true);
}

TEST(an_os_thread_that_ends_in_its_wait_passes_its_wake_up_on)
{
    check_end_in_the_wait(false);
}
