/* test_seqlock.c -- the sequence lock, sentence by sentence (seqlock.h). */
#include "support.h"
#include "workers.h"

static void
write_lock(void *lock)
{
    pyrt_seqlock_write_lock(lock);
}

static void
write_unlock(void *lock)
{
    pyrt_seqlock_write_unlock(lock);
}

typedef struct begin_read {
    pyrt_seqlock *lock;
    uint64_t begun;
} begin_read;

static void
read_begin(void *arg)
{
    begin_read *read = arg;
    read->begun = pyrt_seqlock_read_begin(read->lock);
}

TEST(a_reader_tries_again_only_after_a_writer)
{
    pyrt_seqlock lock = PYRT_SEQLOCK_INIT;
    uint64_t begun = pyrt_seqlock_read_begin(&lock);
    CHECK(!pyrt_seqlock_read_retry(&lock, begun));
    pyrt_seqlock_write_lock(&lock);
    CHECK(pyrt_seqlock_read_retry(&lock, begun));
    pyrt_seqlock_write_unlock(&lock);
    CHECK(pyrt_seqlock_read_retry(&lock, begun));
    begun = pyrt_seqlock_read_begin(&lock);
    CHECK(!pyrt_seqlock_read_retry(&lock, begun));
}

TEST(one_writer_at_a_time)
{
    worker w;
    pyrt_seqlock lock = PYRT_SEQLOCK_INIT;
    CHECK(pyrt_seqlock_write_trylock(&lock));
    CHECK(!pyrt_seqlock_write_trylock(&lock));
    CHECK_STATUS(pyrt_seqlock_write_lock_timed(&lock, 0, 0), PYRT_ETIMEDOUT);
    CHECK_STATUS(pyrt_seqlock_write_lock_timed(&lock, 1000, 0), PYRT_ETIMEDOUT);
    CHECK_STATUS(pyrt_seqlock_write_lock_timed(&lock, 0, 64), PYRT_EINVAL);
    worker_start(&w);
    worker_begin(&w, write_lock, &lock);
    WAIT_UNTIL(pyrt_parked_count(&lock.writers) == 1);
    pyrt_seqlock_write_unlock(&lock);
    worker_finish(&w);
    CHECK_UINT(lock.sequence, 3);
    worker_do(&w, write_unlock, &lock);
    worker_end(&w);
    CHECK_OK(pyrt_seqlock_write_lock_timed(&lock, -1, 0));
    pyrt_seqlock_write_unlock(&lock);
    CHECK_UINT(lock.sequence, 6);
}

TEST(who_begins_to_read_waits_for_the_writer)
{
    worker w;
    pyrt_seqlock lock = PYRT_SEQLOCK_INIT;
    begin_read read = {&lock, 0};
    pyrt_seqlock_write_lock(&lock);
    worker_start(&w);
    worker_begin(&w, read_begin, &read);
    WAIT_UNTIL(pyrt_parked_count(&lock.writers) == 1);
    pyrt_seqlock_write_unlock(&lock);
    worker_end(&w);
    CHECK_UINT(read.begun, 2);
    CHECK(!pyrt_seqlock_read_retry(&lock, read.begun));
}

TEST(an_unlock_without_a_writer_is_reported)
{
    pyrt_seqlock lock = PYRT_SEQLOCK_INIT;
    pyrt_seqlock_write_unlock(&lock);
    EXPECT_REPORT("pyrt_seqlock_write_unlock", "no writer");
    CHECK_UINT(lock.sequence, 0);
}

TEST(in_the_child_of_a_fork_no_writer_is_inside)
{
    worker w;
    pyrt_seqlock lock = PYRT_SEQLOCK_INIT;
    CHECK(!pyrt_seqlock_at_fork_reinit(&lock));
    uint64_t begun = pyrt_seqlock_read_begin(&lock);
    worker_start(&w);
    worker_do(&w, write_lock, &lock);
    worker_end(&w);
    CHECK(pyrt_seqlock_at_fork_reinit(&lock));
    CHECK(pyrt_seqlock_read_retry(&lock, begun));
    begun = pyrt_seqlock_read_begin(&lock);
    CHECK(!pyrt_seqlock_read_retry(&lock, begun));
    CHECK(pyrt_seqlock_write_trylock(&lock));
    pyrt_seqlock_write_unlock(&lock);
}
