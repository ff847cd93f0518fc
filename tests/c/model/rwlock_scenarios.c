/* rwlock_scenarios.c -- the read-write lock: readers by their slots and by the word, a writer that revokes the bias and waits.
 *
 * A writer adds one to two words, one after the other; a reader must find them equal. In the end the count must be right, the
 * lock free, and nobody left asleep.
 */
#include "model.h"

#include "sync/waiting.h"

#include <pyruntime/rwlock.h>

static pyrt_rwlock lock;
static uint64_t first, second;
static uint64_t wanted;

static void
setup_unbiased(void)
{
    /* Rows of runs that were left half way. */
    pyrt_rwlock_fork_child();
    lock = (pyrt_rwlock){.unbiased_reads = UINT8_MAX};
    first = second = wanted = 0;
    /* The first one registers with the kernel. */
    (void)pyrt_waiter_barrier();
}

static void
setup_biased(void)
{
    setup_unbiased();
    lock.state = PYRT_RWLOCK_BIASED;
}

static void
finish(void)
{
    MODEL_CHECK(first == wanted && second == wanted, "counted %llu and %llu, not %llu", (unsigned long long)first,
                (unsigned long long)second, (unsigned long long)wanted);
    MODEL_CHECK(pyrt_rwlock_readers(&lock) == 0, "%zu readers are left", pyrt_rwlock_readers(&lock));
    MODEL_CHECK((lock.state & ~PYRT_RWLOCK_BIASED) == 0, "the lock is left in state %u", lock.state);
    MODEL_CHECK(!pyrt_mutex_is_locked(&lock.gate), "the gate is left locked");
    MODEL_CHECK(pyrt_parked_near(&lock) == 0, "the cell says that %u wait", pyrt_parked_near(&lock));
}

static void
look(void)
{
    uint64_t a = pyrt_load_relaxed(&first);
    uint64_t b = pyrt_load_relaxed(&second);
    MODEL_CHECK(a == b, "a reader sees %llu and %llu", (unsigned long long)a, (unsigned long long)b);
}

static void
reader(void)
{
    /* Its row, by a lock of its own. */
    pyrt_rwlock warm = PYRT_RWLOCK_INIT;
    MODEL_CHECK(pyrt_rwlock_read_lock(&warm) == PYRT_OK, "a free lock cannot be read");
    pyrt_rwlock_read_unlock(&warm);
    model_begin();
    MODEL_CHECK(pyrt_rwlock_read_lock(&lock) == PYRT_OK, "a reader is refused");
    look();
    pyrt_rwlock_read_unlock(&lock);
    model_end();
    pyrt_rwlock_end_of_os_thread();
}

static void
write_both(void)
{
    uint64_t next = pyrt_load_relaxed(&first) + 1;
    pyrt_store_relaxed(&first, next);
    pyrt_store_relaxed(&second, next);
}

static void
writer(void)
{
    wanted++;
    model_begin();
    MODEL_CHECK(pyrt_rwlock_write_lock(&lock) == PYRT_OK, "a writer is refused");
    write_both();
    pyrt_rwlock_write_unlock(&lock);
    model_end();
}

/* The last is the writer. */
static void
one_reader_body(int thread)
{
    thread == 0 ? reader() : writer();
}

static void
two_readers_body(int thread)
{
    thread < 2 ? reader() : writer();
}

static void
two_writers_body(int thread)
{
    thread == 0 ? reader() : writer();
}

/* A writer that only tries, and then one that waits: what the first leaves must say whom to look for. */
static void
tries_body(int thread)
{
    if (thread == 0) {
        reader();
        return;
    }
    model_begin();
    bool locked = pyrt_rwlock_write_trylock(&lock);
    if (!locked) {
        MODEL_CHECK(pyrt_rwlock_write_lock(&lock) == PYRT_OK, "a writer is refused");
    }
    write_both();
    pyrt_rwlock_write_unlock(&lock);
    model_end();
    wanted++;
}

const model_scenario model_rwlock_scenarios[] = {
    {"rwlock", "a reader by its slot, and a writer", MODEL_ALL, setup_biased, one_reader_body, finish, {"reader", "writer"}},
    {"rwlock-word",
     "a reader by the word, and a writer",
     MODEL_ALL,
     setup_unbiased,
     one_reader_body,
     finish,
     {"reader", "writer"}},
    {"rwlock-try",
     "a reader by its slot, and a writer that tries first",
     MODEL_ALL,
     setup_biased,
     tries_body,
     finish,
     {"reader", "writer"}},
    {"rwlock-readers", "two readers and a writer", 1, setup_biased, two_readers_body, finish, {"one", "two", "writer"}},
    {"rwlock-writers", "a reader and two writers", 1, setup_biased, two_writers_body, finish, {"reader", "one", "two"}},
    {.name = NULL},
};
