/* test_recursive_mutex.c -- a mutex that its owner may lock again, sentence by sentence (recursive_mutex.h). */
#include "support.h"
#include "workers.h"

static pyrt_recursive_mutex mutex;

static void
lock(void *m)
{
    pyrt_recursive_mutex_lock(m);
}

static void
unlock(void *m)
{
    pyrt_recursive_mutex_unlock(m);
}

TEST(zero_is_unlocked)
{
    static pyrt_recursive_mutex zero;
    pyrt_recursive_mutex initialised = PYRT_RECURSIVE_MUTEX_INIT;
    CHECK(!pyrt_recursive_mutex_is_locked(&zero));
    CHECK(!pyrt_recursive_mutex_is_owned(&zero));
    CHECK(!pyrt_recursive_mutex_is_locked(&initialised));
    CHECK_UINT(pyrt_recursive_mutex_depth(&initialised), 0);
}

TEST(its_owner_locks_it_again)
{
    pyrt_recursive_mutex m = PYRT_RECURSIVE_MUTEX_INIT;
    pyrt_recursive_mutex_lock(&m);
    CHECK(pyrt_recursive_mutex_trylock(&m));
    CHECK_OK(pyrt_recursive_mutex_lock_timed(&m, 0, 0));
    CHECK_UINT(pyrt_recursive_mutex_depth(&m), 3);
    for (int left = 2; left >= 0; left--) {
        CHECK(pyrt_recursive_mutex_is_owned(&m));
        pyrt_recursive_mutex_unlock(&m);
        CHECK_UINT(pyrt_recursive_mutex_depth(&m), left);
    }
    CHECK(!pyrt_recursive_mutex_is_owned(&m));
    CHECK(!pyrt_recursive_mutex_is_locked(&m));
}

TEST(wrong_use_is_told)
{
    worker w;
    pyrt_recursive_mutex m = PYRT_RECURSIVE_MUTEX_INIT;
    pyrt_recursive_mutex_unlock(&m);
    EXPECT_REPORT("pyrt_recursive_mutex_unlock", "not locked");
    worker_start(&w);
    worker_do(&w, lock, &m);
    pyrt_recursive_mutex_unlock(&m);
    EXPECT_REPORT("pyrt_recursive_mutex_unlock", "another OS thread");
    CHECK_STATUS(pyrt_recursive_mutex_lock_timed(&m, 0, 64), PYRT_EINVAL);
    worker_do(&w, unlock, &m);
    worker_end(&w);
    CHECK(pyrt_recursive_mutex_trylock(&m));
    pyrt_recursive_mutex_unlock(&m);
}

TEST(others_wait_for_the_last_unlock)
{
    worker w;
    worker_start(&w);
    pyrt_recursive_mutex_lock(&mutex);
    pyrt_recursive_mutex_lock(&mutex);
    worker_begin(&w, lock, &mutex);
    WAIT_UNTIL(pyrt_parked_count(&mutex.mutex) == 1);
    pyrt_recursive_mutex_unlock(&mutex);
    CHECK(worker_is_busy(&w));
    CHECK_UINT(pyrt_parked_count(&mutex.mutex), 1);
    pyrt_recursive_mutex_unlock(&mutex);
    worker_finish(&w);
    CHECK(!pyrt_recursive_mutex_is_owned(&mutex));
    CHECK(!pyrt_recursive_mutex_trylock(&mutex));
    CHECK_STATUS(pyrt_recursive_mutex_lock_timed(&mutex, 1000, 0), PYRT_ETIMEDOUT);
    CHECK_UINT(pyrt_recursive_mutex_depth(&mutex), 0);
    worker_do(&w, unlock, &mutex);
    worker_end(&w);
    CHECK(!pyrt_recursive_mutex_is_locked(&mutex));
}

static void
lock_it(void *mutex)
{
    pyrt_recursive_mutex_lock(mutex);
}

static void
check_is_not_mine(void *mutex)
{
    CHECK(!pyrt_recursive_mutex_is_owned(mutex));
    CHECK(!pyrt_recursive_mutex_trylock(mutex));
    CHECK_UINT(pyrt_recursive_mutex_depth(mutex), 0);
}

/* The next OS thread most often gets the stack, and with it the thread-local block, of the one that has ended. */
TEST(nobody_inherits_it_from_an_os_thread_that_has_ended)
{
    pyrt_recursive_mutex mutex = PYRT_RECURSIVE_MUTEX_INIT;
    worker owner;
    worker_start(&owner);
    worker_do(&owner, lock_it, &mutex);
    worker_end(&owner);
    for (int i = 0; i < 10; i++) {
        worker next;
        worker_start(&next);
        worker_do(&next, check_is_not_mine, &mutex);
        worker_end(&next);
    }
    CHECK(pyrt_recursive_mutex_is_locked(&mutex));
}

TEST(in_the_child_of_a_fork_it_is_unlocked)
{
    worker w;
    pyrt_recursive_mutex m = PYRT_RECURSIVE_MUTEX_INIT;
    worker_start(&w);
    worker_do(&w, lock, &m);
    worker_end(&w);
    pyrt_recursive_mutex_at_fork_reinit(&m);
    CHECK(pyrt_recursive_mutex_trylock(&m));
    CHECK_UINT(pyrt_recursive_mutex_depth(&m), 1);
    pyrt_recursive_mutex_unlock(&m);
}
