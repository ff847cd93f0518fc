/* test_mutex.c -- the lock of one byte, sentence by sentence: locking, waiting, handing on, and giving back. */
#include "steps.h"
#include "support.h"
#include "workers.h"

#include <time.h>

static pyrt_mutex mutex;

static void
lock(void *arg)
{
    pyrt_mutex_lock(arg);
}

static void
unlock(void *arg)
{
    pyrt_mutex_unlock(arg);
}

/* ---- one thread -------------------------------------------------------------------------------------------------- */

TEST(zero_is_unlocked)
{
    static pyrt_mutex zero;
    pyrt_mutex initialised = PYRT_MUTEX_INIT;
    CHECK(!pyrt_mutex_is_locked(&zero));
    CHECK(!pyrt_mutex_is_locked(&initialised));
    CHECK_INT(sizeof(pyrt_mutex), 1);
}

TEST(it_is_locked_and_unlocked_without_the_runtime)
{
    pyrt_mutex m = PYRT_MUTEX_INIT;
    pyrt_mutex_lock(&m);
    CHECK(pyrt_mutex_is_locked(&m));
    CHECK(!pyrt_mutex_trylock(&m));
    pyrt_mutex_unlock(&m);
    CHECK(!pyrt_mutex_is_locked(&m));
    CHECK(pyrt_mutex_trylock(&m));
    CHECK_STATUS(pyrt_mutex_lock_timed(&m, 0, 0), PYRT_ETIMEDOUT);
    pyrt_mutex_unlock(&m);
    CHECK_OK(pyrt_mutex_lock_timed(&m, 0, 0));
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

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

TEST(a_waiter_gets_it_after_the_unlock)
{
    worker w;
    worker_start(&w);
    pyrt_mutex_lock(&mutex);
    worker_begin(&w, lock, &mutex);
    WAIT_UNTIL(pyrt_parked_count(&mutex) == 1);
    CHECK(worker_is_busy(&w));
    pyrt_mutex_unlock(&mutex);
    worker_finish(&w);
    CHECK(pyrt_mutex_is_locked(&mutex));
    worker_do(&w, unlock, &mutex);
    CHECK(!pyrt_mutex_is_locked(&mutex));
    worker_end(&w);
}

static long counter;

static void
count_up(void *arg, int number)
{
    (void)arg;
    (void)number;
    for (int i = 0; i < 20000; i++) {
        pyrt_mutex_lock(&mutex);
        counter++;
        pyrt_mutex_unlock(&mutex);
    }
}

TEST(one_owner_at_a_time)
{
    counter = 0;
    run_crowd(8, count_up, NULL);
    CHECK_INT(counter, 8 * 20000);
    CHECK_INT(pyrt_parked_count(&mutex), 0);
}

/* ---- pauses ------------------------------------------------------------------------------------------------------ */

TEST(a_waiter_is_detached)
{
    runtime_up();
    worker w;
    pyrt_thread *thread;
    worker_start(&w);
    worker_do(&w, attach_new, &thread);
    pyrt_mutex_lock(&mutex);
    worker_begin(&w, lock, &mutex);
    WAIT_UNTIL(state_of(thread) == PYRT_STATE_DETACHED);
    pyrt_mutex_unlock(&mutex);
    worker_finish(&w);
    CHECK_INT(state_of(thread), PYRT_STATE_ATTACHED);
    worker_do(&w, unlock, &mutex);
    worker_do(&w, detach, thread);
    worker_do(&w, delete_state, thread);
    worker_end(&w);
    runtime_down();
}

static uint8_t
state_byte(void)
{
    return pyrt_load_relaxed(&mutex.state);
}

TEST(a_stopped_waiter_gives_the_lock_back)
{
    runtime_up();
    worker w;
    pyrt_thread *thread;
    worker_start(&w);
    worker_do(&w, attach_new, &thread);
    pyrt_mutex_lock(&mutex);
    worker_begin(&w, lock, &mutex);
    WAIT_UNTIL(state_of(thread) == PYRT_STATE_DETACHED && pyrt_parked_count(&mutex) == 1);
    int64_t begun = 0;
    for (int64_t now = 0; now < begun + 2 * PYRT_MUTEX_FAIR_NS;) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        now = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
        begun = begun == 0 ? now : begun;
    }
    CHECK_OK(pyrt_stop_the_world(NULL));
    pyrt_mutex_unlock(&mutex);
    pyrt_mutex_lock(&mutex);
    WAIT_UNTIL(pyrt_parked_count(&mutex) == 0);
    CHECK(worker_is_busy(&w));
    CHECK_INT(state_byte(), PYRT_MUTEX_LOCKED);
    pyrt_start_the_world(NULL);
    WAIT_UNTIL(pyrt_parked_count(&mutex) == 1);
    pyrt_mutex_unlock(&mutex);
    worker_finish(&w);
    worker_do(&w, unlock, &mutex);
    worker_do(&w, detach, thread);
    worker_do(&w, delete_state, thread);
    worker_end(&w);
    runtime_down();
}
