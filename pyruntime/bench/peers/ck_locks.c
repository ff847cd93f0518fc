/* ck_locks.c -- the locks of Concurrency Kit under the loops of ../loops/lock.c. They never sleep, so taking and leaving one that
 * nobody wants is about the least that a lock can cost: an exchange and a plain store.
 */
#define _GNU_SOURCE

#include <ck_rwlock.h>
#include <ck_spinlock.h>

#include "lock_loops.h"

BENCH_INLINED void
take_spinlock(void *lock)
{
    ck_spinlock_fas_lock(lock);
}

BENCH_INLINED void
give_spinlock(void *lock)
{
    ck_spinlock_fas_unlock(lock);
}

BENCH_INLINED void
take_read(void *lock)
{
    ck_rwlock_read_lock(lock);
}

BENCH_INLINED void
give_read(void *lock)
{
    ck_rwlock_read_unlock(lock);
}

static void
spinlock_loop(bench_thread *self)
{
    bench_pair_loop(self, self->state, take_spinlock, give_spinlock);
}

static PYRT_ALIGNED(128) ck_rwlock_t shared_rwlock = CK_RWLOCK_INITIALIZER;

static void
read_loop(bench_thread *self)
{
    bench_pair_loop(self, &shared_rwlock, take_read, give_read);
}

static const bench_body spinlock_body = {
    .enter = bench_enter_own_line, .loop = spinlock_loop, .leave = bench_leave_own_line};
static const bench_body read_body = {.loop = read_loop};

static const pyrt_bench_loop loops[] = {
    {.bench = "lock.pair", .impl = "ck-spinlock", .run = bench_run, .body = &spinlock_body},
    {.bench = "lock.read", .impl = "ck-rwlock", .run = bench_run, .body = &read_body},
};

__attribute__((visibility("default"))) const pyrt_bench_loop *
pyrt_bench_peer(size_t *count)
{
    *count = sizeof(loops) / sizeof(loops[0]);
    return loops;
}
