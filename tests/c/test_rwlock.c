/* test_rwlock.c -- the read-write lock, sentence by sentence (rwlock.h): biased and by the word, waiting, giving back,
 * wrong use. */
#include "steps.h"
#include "support.h"
#include "workers.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- steps ------------------------------------------------------------------------------------------------------- */

static void
read_lock(void *lock)
{
    CHECK_OK(pyrt_rwlock_read_lock(lock));
}

static void
read_unlock(void *lock)
{
    pyrt_rwlock_read_unlock(lock);
}

static void
write_lock(void *lock)
{
    CHECK_OK(pyrt_rwlock_write_lock(lock));
}

static void
write_unlock(void *lock)
{
    pyrt_rwlock_write_unlock(lock);
}

typedef struct timed_lock {
    pyrt_rwlock *lock;
    pyrt_status (*how)(pyrt_rwlock *, int64_t, unsigned);
    int64_t timeout_ns;
    unsigned flags;
    pyrt_status status;
} timed_lock;

static void
lock_timed(void *arg)
{
    timed_lock *call = arg;
    call->status = call->how(call->lock, call->timeout_ns, call->flags);
}

static uint32_t
state_of_lock(pyrt_rwlock *lock)
{
    return pyrt_load_seq_cst(&lock->state);
}

/* Whether this kernel lets locks be biased: the second reader of a new lock finds it so. */
static void
make_biased(pyrt_rwlock *lock)
{
    while ((state_of_lock(lock) & PYRT_RWLOCK_BIASED) == 0) {
        read_lock(lock);
        read_unlock(lock);
    }
}

static void
make_unbiased(pyrt_rwlock *lock)
{
    make_biased(lock);
    write_lock(lock);
    write_unlock(lock);
    CHECK_UINT(state_of_lock(lock), 0);
}

/* Every test of waiting is run for readers of both kinds. */
typedef void (*prepare_lock)(pyrt_rwlock *);
static const prepare_lock both_kinds[] = {make_biased, make_unbiased};

#define FOR_BOTH_KINDS(prepare) for (int kind_ = 0; kind_ < 2 && ((prepare) = both_kinds[kind_], true); kind_++)

/* ---- one thread -------------------------------------------------------------------------------------------------- */

TEST(zero_is_unlocked)
{
    static pyrt_rwlock zero;
    pyrt_rwlock lock = PYRT_RWLOCK_INIT;
    CHECK_UINT(zero.state, lock.state);
    CHECK(pyrt_rwlock_write_trylock(&zero));
    CHECK(pyrt_rwlock_is_owned(&zero));
    CHECK(pyrt_rwlock_is_write_locked(&zero));
    pyrt_rwlock_write_unlock(&zero);
    CHECK(!pyrt_rwlock_is_owned(&zero));
    CHECK(!pyrt_rwlock_is_write_locked(&zero));
    CHECK(pyrt_rwlock_read_trylock(&lock));
    CHECK_UINT(pyrt_rwlock_readers(&lock), 1);
    pyrt_rwlock_read_unlock(&lock);
    CHECK_UINT(pyrt_rwlock_readers(&lock), 0);
    CHECK_UINT(sizeof(pyrt_rwlock), 16);
}

TEST(a_reader_makes_it_biased_and_a_writer_ends_that_for_a_while)
{
    pyrt_rwlock lock = PYRT_RWLOCK_INIT;
    make_biased(&lock);
    read_lock(&lock);
    CHECK_UINT(state_of_lock(&lock), PYRT_RWLOCK_BIASED);
    CHECK_UINT(pyrt_rwlock_readers(&lock), 1);
    read_unlock(&lock);
    write_lock(&lock);
    CHECK_UINT(state_of_lock(&lock), PYRT_RWLOCK_WRITER);
    write_unlock(&lock);
    for (int i = 0; i < PYRT_RWLOCK_UNBIASED_READS; i++) {
        read_lock(&lock);
        CHECK_UINT(state_of_lock(&lock), PYRT_RWLOCK_READER);
        read_unlock(&lock);
        CHECK_UINT(state_of_lock(&lock), 0);
    }
    read_lock(&lock);
    CHECK_UINT(state_of_lock(&lock), PYRT_RWLOCK_READER | PYRT_RWLOCK_BIASED);
    read_unlock(&lock);
    CHECK_UINT(state_of_lock(&lock), PYRT_RWLOCK_BIASED);
}

TEST(the_forms_with_a_time)
{
    pyrt_rwlock lock = PYRT_RWLOCK_INIT;
    CHECK_STATUS(pyrt_rwlock_read_lock_timed(&lock, 0, 64), PYRT_EINVAL);
    CHECK_STATUS(pyrt_rwlock_write_lock_timed(&lock, 0, PYRT_PARK_FRONT), PYRT_EINVAL);
    CHECK_OK(pyrt_rwlock_read_lock_timed(&lock, 0, 0));
    read_unlock(&lock);
    CHECK_OK(pyrt_rwlock_read_lock_timed(&lock, -1, PYRT_LOCK_NO_DETACH));
    read_unlock(&lock);
    CHECK_OK(pyrt_rwlock_write_lock_timed(&lock, 0, 0));
    write_unlock(&lock);
    CHECK_OK(pyrt_rwlock_write_lock_timed(&lock, 1000000, PYRT_LOCK_INTERRUPTIBLE));
    write_unlock(&lock);
}

TEST(a_thread_does_not_wait_for_itself)
{
    pyrt_rwlock lock = PYRT_RWLOCK_INIT;
    prepare_lock prepare;
    FOR_BOTH_KINDS(prepare)
    {
        prepare(&lock);
        read_lock(&lock);
        CHECK_STATUS(pyrt_rwlock_read_lock(&lock), PYRT_EDEADLK);
        CHECK(!pyrt_rwlock_read_trylock(&lock));
        CHECK_STATUS(pyrt_rwlock_read_lock_timed(&lock, -1, 0), PYRT_EDEADLK);
        CHECK_STATUS(pyrt_rwlock_write_lock(&lock), PYRT_EDEADLK);
        CHECK(!pyrt_rwlock_write_trylock(&lock));
        CHECK_STATUS(pyrt_rwlock_write_lock_timed(&lock, -1, 0), PYRT_EDEADLK);
        CHECK_UINT(pyrt_rwlock_readers(&lock), 1);
        read_unlock(&lock);
        write_lock(&lock);
        CHECK_STATUS(pyrt_rwlock_read_lock(&lock), PYRT_EDEADLK);
        CHECK_STATUS(pyrt_rwlock_write_lock(&lock), PYRT_EDEADLK);
        write_unlock(&lock);
        CHECK_UINT(pyrt_rwlock_readers(&lock), 0);
    }
}

/* It goes by the word, and sets the bias for those after it. */
TEST(the_read_that_makes_a_lock_biased_is_known)
{
    enum { LOCKS = 4 * PYRT_READER_SLOTS };
    pyrt_rwlock locks[LOCKS] = {{0}};
    for (int i = 0; i < LOCKS; i++) {
        read_lock(&locks[i]);
        CHECK_STATUS(pyrt_rwlock_read_lock(&locks[i]), PYRT_EDEADLK);
        CHECK(!pyrt_rwlock_read_trylock(&locks[i]));
        CHECK_UINT(pyrt_rwlock_readers(&locks[i]), 1);
        read_unlock(&locks[i]);
    }
}

static size_t
slot_of_lock(const pyrt_rwlock *lock)
{
    return pyrt_parking_index(lock) % PYRT_READER_SLOTS;
}

/* The first read of `kept` goes by the word, because `other` has its slot, which is free at the second one. */
TEST(a_read_that_stands_in_another_slot_is_known)
{
    enum { LOCKS = 16 * PYRT_READER_SLOTS };
    pyrt_rwlock locks[LOCKS] = {{0}};
    pyrt_rwlock *kept = &locks[0];
    pyrt_rwlock *other = &locks[1];
    while (slot_of_lock(other) != slot_of_lock(kept)) {
        CHECK(++other < &locks[LOCKS]);
    }
    make_biased(kept);
    make_biased(other);
    read_lock(other);
    read_lock(kept);
    read_unlock(other);
    CHECK_STATUS(pyrt_rwlock_read_lock(kept), PYRT_EDEADLK);
    CHECK(!pyrt_rwlock_read_trylock(kept));
    CHECK_STATUS(pyrt_rwlock_write_lock(kept), PYRT_EDEADLK);
    read_lock(other);
    CHECK_STATUS(pyrt_rwlock_read_lock(other), PYRT_EDEADLK);
    CHECK_UINT(pyrt_rwlock_readers(kept), 1);
    read_unlock(kept);
    CHECK_UINT(pyrt_rwlock_readers(other), 1);
    read_unlock(other);
    CHECK_UINT(pyrt_rwlock_readers(other), 0);
    /* The inline ways are open again. */
    read_lock(kept);
    CHECK_INT(pyrt_tls()->reader_row != NULL, 1);
    read_unlock(kept);
    CHECK(pyrt_rwlock_write_trylock(kept) && pyrt_rwlock_write_trylock(other));
    pyrt_rwlock_write_unlock(kept);
    pyrt_rwlock_write_unlock(other);
}

TEST(more_locks_than_slots)
{
    enum { LOCKS = 3 * PYRT_READER_SLOTS };
    pyrt_rwlock locks[LOCKS];
    prepare_lock prepare;
    FOR_BOTH_KINDS(prepare)
    {
        for (int i = 0; i < LOCKS; i++) {
            locks[i] = (pyrt_rwlock)PYRT_RWLOCK_INIT;
            prepare(&locks[i]);
        }
        for (int i = 0; i < LOCKS; i++) {
            read_lock(&locks[i]);
        }
        for (int i = 0; i < LOCKS; i++) {
            CHECK_UINT(pyrt_rwlock_readers(&locks[i]), 1);
            read_unlock(&locks[i]);
        }
        for (int i = 0; i < LOCKS; i++) {
            CHECK_UINT(pyrt_rwlock_readers(&locks[i]), 0);
            CHECK(pyrt_rwlock_write_trylock(&locks[i]));
            write_unlock(&locks[i]);
        }
    }
}

TEST(wrong_unlocks_are_reported)
{
    worker w;
    pyrt_rwlock lock = PYRT_RWLOCK_INIT;
    worker_start(&w);
    pyrt_rwlock_read_unlock(&lock);
    EXPECT_REPORT("pyrt_rwlock_read_unlock", "does not read");
    pyrt_rwlock_write_unlock(&lock);
    EXPECT_REPORT("pyrt_rwlock_write_unlock", "does not write");
    prepare_lock prepare;
    FOR_BOTH_KINDS(prepare)
    {
        prepare(&lock);
        worker_do(&w, read_lock, &lock);
        pyrt_rwlock_read_unlock(&lock);
        EXPECT_REPORT("pyrt_rwlock_read_unlock", "does not read");
        worker_do(&w, read_unlock, &lock);
    }
    worker_do(&w, write_lock, &lock);
    pyrt_rwlock_write_unlock(&lock);
    EXPECT_REPORT("pyrt_rwlock_write_unlock", "does not write");
    pyrt_rwlock_read_unlock(&lock);
    EXPECT_REPORT("pyrt_rwlock_read_unlock", "does not read");
    worker_do(&w, write_unlock, &lock);
    worker_end(&w);
    CHECK(pyrt_rwlock_write_trylock(&lock));
    write_unlock(&lock);
}

TEST(too_many_readers)
{
    pyrt_rwlock lock = {.state = UINT32_MAX / PYRT_RWLOCK_READER * PYRT_RWLOCK_READER, .unbiased_reads = 9};
    CHECK_STATUS(pyrt_rwlock_read_lock(&lock), PYRT_EOVERFLOW);
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

TEST(readers_share_it_and_a_writer_waits_for_all_of_them)
{
    worker reader;
    worker writer;
    prepare_lock prepare;
    worker_start(&reader);
    worker_start(&writer);
    FOR_BOTH_KINDS(prepare)
    {
        pyrt_rwlock lock = PYRT_RWLOCK_INIT;
        prepare(&lock);
        worker_do(&reader, read_lock, &lock);
        read_lock(&lock);
        CHECK_UINT(pyrt_rwlock_readers(&lock), 2);
        worker_begin(&writer, write_lock, &lock);
        WAIT_UNTIL(pyrt_parked_count(&lock) == 1);
        CHECK_UINT(pyrt_rwlock_waiters(&lock), 1);
        read_unlock(&lock);
        CHECK(worker_is_busy(&writer));
        worker_do(&reader, read_unlock, &lock);
        worker_finish(&writer);
        CHECK(pyrt_rwlock_is_write_locked(&lock));
        CHECK(!pyrt_rwlock_read_trylock(&lock));
        CHECK(!pyrt_rwlock_write_trylock(&lock));
        CHECK_STATUS(pyrt_rwlock_read_lock_timed(&lock, 1000, 0), PYRT_ETIMEDOUT);
        CHECK_STATUS(pyrt_rwlock_write_lock_timed(&lock, 1000, 0), PYRT_ETIMEDOUT);
        worker_do(&writer, write_unlock, &lock);
    }
    worker_end(&reader);
    worker_end(&writer);
}

TEST(a_writer_that_waits_keeps_new_readers_out_and_they_come_before_the_next_writer)
{
    worker writer;
    worker reader;
    worker next;
    prepare_lock prepare;
    worker_start(&writer);
    worker_start(&reader);
    worker_start(&next);
    FOR_BOTH_KINDS(prepare)
    {
        pyrt_rwlock lock = PYRT_RWLOCK_INIT;
        prepare(&lock);
        read_lock(&lock);
        worker_begin(&writer, write_lock, &lock);
        WAIT_UNTIL(pyrt_parked_count(&lock) == 1);
        worker_begin(&reader, read_lock, &lock);
        WAIT_UNTIL(pyrt_parked_count(&lock.gate) == 1);
        worker_begin(&next, write_lock, &lock);
        WAIT_UNTIL(pyrt_rwlock_waiters(&lock) == 3);
        read_unlock(&lock);
        worker_finish(&writer);
        CHECK(worker_is_busy(&reader));
        CHECK(worker_is_busy(&next));
        worker_do(&writer, write_unlock, &lock);
        worker_finish(&reader);
        CHECK(worker_is_busy(&next));
        WAIT_UNTIL(pyrt_parked_count(&lock) == 1);
        worker_do(&reader, read_unlock, &lock);
        worker_finish(&next);
        worker_do(&next, write_unlock, &lock);
        CHECK_UINT(state_of_lock(&lock), 0);
    }
    worker_end(&writer);
    worker_end(&reader);
    worker_end(&next);
}

TEST(a_writer_whose_time_runs_out_lets_the_readers_in)
{
    worker reader;
    prepare_lock prepare;
    worker_start(&reader);
    FOR_BOTH_KINDS(prepare)
    {
        pyrt_rwlock lock = PYRT_RWLOCK_INIT;
        prepare(&lock);
        worker_do(&reader, read_lock, &lock);
        CHECK(!pyrt_rwlock_write_trylock(&lock));
        CHECK_STATUS(pyrt_rwlock_write_lock_timed(&lock, 1000, 0), PYRT_ETIMEDOUT);
        CHECK_UINT(pyrt_rwlock_waiters(&lock), 0);
        CHECK(pyrt_rwlock_read_trylock(&lock));
        read_unlock(&lock);
        worker_do(&reader, read_unlock, &lock);
        CHECK(pyrt_rwlock_write_trylock(&lock));
        write_unlock(&lock);
    }
    worker_end(&reader);
}

static void
ignore_signal(int number)
{
    (void)number;
}

TEST(to_try_is_no_wait_in_a_read_side_section)
{
    worker reader;
    pyrt_rwlock lock = PYRT_RWLOCK_INIT;
    pyrt_thread *thread;
    runtime_up();
    attach_new(&thread);
    worker_start(&reader);
    worker_do(&reader, read_lock, &lock);
    pyrt_read_begin_counted(thread);
    CHECK(!pyrt_rwlock_write_trylock(&lock));
    CHECK_STATUS(pyrt_rwlock_write_lock_timed(&lock, 0, 0), PYRT_ETIMEDOUT);
    CHECK_UINT(reports_pending(), 0);
    pyrt_read_end_counted(thread);
    worker_do(&reader, read_unlock, &lock);
    CHECK(pyrt_rwlock_write_trylock(&lock));
    pyrt_rwlock_write_unlock(&lock);
    worker_end(&reader);
    delete_attached(thread);
    runtime_down();
}

TEST(a_signal_ends_an_interruptible_wait)
{
    worker w;
    pyrt_status (*const hows[])(pyrt_rwlock *, int64_t, unsigned) = {pyrt_rwlock_read_lock_timed,
                                                                     pyrt_rwlock_write_lock_timed};
    signal(SIGUSR1, ignore_signal);
    worker_start(&w);
    for (int i = 0; i < 4; i++) {
        pyrt_rwlock lock = PYRT_RWLOCK_INIT;
        timed_lock call = {&lock, hows[i % 2], -1, PYRT_LOCK_INTERRUPTIBLE, PYRT_ENOTSUP};
        bool with_reader = i == 3;
        if (with_reader) {
            read_lock(&lock);
        }
        else {
            write_lock(&lock);
        }
        worker_begin(&w, lock_timed, &call);
        while (worker_is_busy(&w)) {
            pthread_kill(w.thread, SIGUSR1);
            sched_yield();
        }
        CHECK_STATUS(call.status, PYRT_EINTR);
        CHECK_UINT(pyrt_rwlock_waiters(&lock), 0);
        if (with_reader) {
            read_unlock(&lock);
        }
        else {
            write_unlock(&lock);
        }
    }
    worker_end(&w);
}

/* ---- detached, stopped, ended ------------------------------------------------------------------------------------ */

TEST(a_read_lock_outlives_detaching)
{
    prepare_lock prepare;
    FOR_BOTH_KINDS(prepare)
    {
        pyrt_rwlock lock = PYRT_RWLOCK_INIT;
        runtime_up();
        prepare(&lock);
        pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
        pyrt_attach(thread);
        read_lock(&lock);
        pyrt_detach(thread);
        CHECK_UINT(pyrt_rwlock_readers(&lock), 1);
        pyrt_thread_delete(thread);
        CHECK_UINT(pyrt_rwlock_readers(&lock), 1);
        read_unlock(&lock);
        CHECK_UINT(pyrt_rwlock_readers(&lock), 0);
        runtime_down();
    }
}

TEST(a_waiting_writer_that_is_stopped_gives_it_back)
{
    worker w;
    worker reader;
    pyrt_thread *thread;
    prepare_lock prepare;
    runtime_up();
    worker_start(&w);
    worker_start(&reader);
    worker_do(&w, attach_new, &thread);
    FOR_BOTH_KINDS(prepare)
    {
        pyrt_rwlock lock = PYRT_RWLOCK_INIT;
        prepare(&lock);
        worker_do(&reader, read_lock, &lock);
        worker_begin(&w, write_lock, &lock);
        WAIT_UNTIL(pyrt_parked_count(&lock) == 1 && state_of(thread) == PYRT_STATE_DETACHED);
        CHECK_OK(pyrt_stop_the_world(NULL));
        /* It sleeps and waits for the reader: who has stopped the world may read, but not write. */
        CHECK(pyrt_rwlock_read_trylock(&lock));
        read_unlock(&lock);
        CHECK(!pyrt_rwlock_write_trylock(&lock));
        /* It is woken, and cannot attach. */
        worker_do(&reader, read_unlock, &lock);
        CHECK_OK(pyrt_rwlock_write_lock(&lock));
        write_unlock(&lock);
        read_lock(&lock);
        read_unlock(&lock);
        CHECK(worker_is_busy(&w));
        pyrt_start_the_world(NULL);
        worker_finish(&w);
        CHECK(pyrt_rwlock_is_write_locked(&lock));
        worker_do(&w, write_unlock, &lock);
        CHECK_UINT(state_of_lock(&lock), 0);
    }
    worker_do(&w, delete_attached, thread);
    worker_end(&w);
    worker_end(&reader);
    runtime_down();
}

/* Who has called this sleeps, and will call the hook after it: a waiter that is only queued may yet find that it need not. */
static uint32_t about_to_sleep;

static void *
before(void)
{
    pyrt_fetch_add_seq_cst(&about_to_sleep, 1u);
    return NULL;
}

static void
never_return(void *saved)
{
    (void)saved;
    pthread_exit(NULL);
}

TEST(a_waiting_writer_whose_os_thread_ends_gives_it_back)
{
    worker w;
    worker reader;
    pyrt_rwlock lock = PYRT_RWLOCK_INIT;
    make_unbiased(&lock);
    pyrt_store_relaxed(&about_to_sleep, 0u);
    pyrt_set_block_hooks(&(pyrt_block_hooks){before, never_return});
    worker_start(&w);
    worker_start(&reader);
    worker_do(&reader, read_lock, &lock);
    worker_begin(&w, write_lock, &lock);
    WAIT_UNTIL(pyrt_load_seq_cst(&about_to_sleep) == 1);
    worker_do(&reader, read_unlock, &lock);
    worker_join_exited(&w);
    pyrt_set_block_hooks(NULL);
    CHECK_UINT(state_of_lock(&lock), 0);
    CHECK(pyrt_rwlock_write_trylock(&lock));
    write_unlock(&lock);
    worker_end(&reader);
}

TEST(an_os_thread_that_ends_as_reader_is_reported)
{
    prepare_lock prepare;
    FOR_BOTH_KINDS(prepare)
    {
        worker reader;
        worker writer;
        pyrt_rwlock lock = PYRT_RWLOCK_INIT;
        prepare(&lock);
        worker_start(&reader);
        worker_start(&writer);
        worker_do(&reader, read_lock, &lock);
        worker_begin(&writer, write_lock, &lock);
        WAIT_UNTIL(pyrt_parked_count(&lock) == 1);
        worker_end(&reader);
        EXPECT_REPORT("has ended", "reads");
        worker_do(&writer, write_unlock, &lock);
        worker_end(&writer);
        CHECK_UINT(pyrt_rwlock_readers(&lock), 0);
    }
}

/* ---- forks ------------------------------------------------------------------------------------------------------- */

static void
wait_for_child(pid_t pid)
{
    int status = -1;
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
}

static void
check_is_not_mine(void *lock)
{
    CHECK(!pyrt_rwlock_is_owned(lock));
    CHECK_STATUS(pyrt_rwlock_write_lock_timed(lock, 1000, 0), PYRT_ETIMEDOUT);
    CHECK_STATUS(pyrt_rwlock_read_lock_timed(lock, 1000, 0), PYRT_ETIMEDOUT);
}

/* The next OS thread most often gets the stack, and with it the thread-local block, of the one that has ended. */
TEST(nobody_inherits_it_from_a_writer_that_has_ended)
{
    pyrt_rwlock lock = PYRT_RWLOCK_INIT;
    worker writer;
    worker_start(&writer);
    worker_do(&writer, write_lock, &lock);
    worker_end(&writer);
    for (int i = 0; i < 10; i++) {
        worker next;
        worker_start(&next);
        worker_do(&next, check_is_not_mine, &lock);
        worker_end(&next);
    }
    CHECK(pyrt_rwlock_is_write_locked(&lock));
}

TEST(in_the_child_of_a_fork_it_is_unlocked)
{
    worker reader;
    prepare_lock prepare;
    worker_start(&reader);
    FOR_BOTH_KINDS(prepare)
    {
        pyrt_rwlock lock = PYRT_RWLOCK_INIT;
        pyrt_rwlock own = PYRT_RWLOCK_INIT;
        prepare(&lock);
        prepare(&own);
        worker_do(&reader, read_lock, &lock);
        read_lock(&lock);
        read_lock(&own);
        pid_t pid = fork();
        if (pid == 0) {
            alarm(30);
            pyrt_rwlock_at_fork_reinit(&lock);
            CHECK_UINT(pyrt_rwlock_readers(&lock), 0);
            write_lock(&lock);
            write_unlock(&lock);
            read_lock(&lock);
            read_unlock(&lock);
            /* What is not made new keeps the forking thread's hold. */
            CHECK_UINT(pyrt_rwlock_readers(&own), 1);
            CHECK_STATUS(pyrt_rwlock_write_lock(&own), PYRT_EDEADLK);
            read_unlock(&own);
            write_lock(&own);
            write_unlock(&own);
            _exit(0);
        }
        wait_for_child(pid);
        CHECK_UINT(pyrt_rwlock_readers(&lock), 2);
        read_unlock(&own);
        read_unlock(&lock);
        worker_do(&reader, read_unlock, &lock);
    }
    worker_end(&reader);
}

/* ---- more threads than rows -------------------------------------------------------------------------------------- */

typedef struct crowd_lock {
    pyrt_rwlock lock;
    int inside;
    pthread_barrier_t all_inside;
} crowd_lock;

static void
read_together(void *arg, int number)
{
    crowd_lock *crowd = arg;
    (void)number;
    read_lock(&crowd->lock);
    pthread_barrier_wait(&crowd->all_inside);
    pyrt_fetch_add_seq_cst(&crowd->inside, 1);
    pthread_barrier_wait(&crowd->all_inside);
    read_unlock(&crowd->lock);
}

TEST(more_threads_than_rows)
{
    enum { CROWD = 300 };
    crowd_lock crowd = {.lock = PYRT_RWLOCK_INIT};
    make_biased(&crowd.lock);
    pthread_barrier_init(&crowd.all_inside, NULL, CROWD);
    run_crowd(CROWD, read_together, &crowd);
    CHECK_INT(crowd.inside, CROWD);
    CHECK_UINT(pyrt_rwlock_readers(&crowd.lock), 0);
    CHECK(pyrt_rwlock_write_trylock(&crowd.lock));
    write_unlock(&crowd.lock);
    pthread_barrier_destroy(&crowd.all_inside);
}

/* ---- reports before the sleep ---------------------------------------------------------------------------------------- */

static pyrt_mutex of_the_hook;
static __thread bool hook_waits;

/* A host whose log has a lock. */
static void
report_under_a_lock(const char *message, void *unused)
{
    (void)message;
    (void)unused;
    if (hook_waits) {
        hook_waits = false;
        pyrt_mutex_lock(&of_the_hook);
        pyrt_mutex_unlock(&of_the_hook);
    }
}

typedef struct attached_write {
    pyrt_rwlock *lock;
    pyrt_status status;
} attached_write;

static void
write_attached(void *arg)
{
    attached_write *write = arg;
    pyrt_thread *thread;
    attach_new(&thread);
    hook_waits = true;
    write->status = pyrt_rwlock_write_lock_timed(write->lock, -1, PYRT_LOCK_NO_DETACH);
    CHECK(!hook_waits);
    pyrt_rwlock_write_unlock(write->lock);
    delete_attached(thread);
}

TEST(a_report_hook_that_waits_for_a_lock_loses_no_wake_up)
{
    worker w;
    pyrt_rwlock lock = PYRT_RWLOCK_INIT;
    attached_write write = {&lock, PYRT_ENOTSUP};
    runtime_up();
    CHECK_OK(pyrt_lock_debug(true));
    pyrt_set_report_hook(report_under_a_lock, NULL);
    CHECK_OK(pyrt_rwlock_read_lock(&lock));
    pyrt_mutex_lock(&of_the_hook);
    worker_start(&w);
    worker_begin(&w, write_attached, &write);
    WAIT_UNTIL(pyrt_parked_count(&of_the_hook) == 1);
    pyrt_mutex_unlock(&of_the_hook);
    WAIT_UNTIL(pyrt_parked_count(&of_the_hook) == 0 && pyrt_parked_count(&lock) == 1);
    pyrt_rwlock_read_unlock(&lock);
    worker_end(&w);
    CHECK_OK(write.status);
    CHECK_OK(pyrt_lock_debug(false));
    runtime_down();
}
