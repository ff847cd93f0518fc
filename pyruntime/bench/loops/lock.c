/* lock.c -- locks in C: taken by one thread alone, by several at once, and shared by readers.
 *
 * Threads are attached where the lock is ours: so a user's are, and waiting has to detach them.
 */
#define _GNU_SOURCE

#include "lock_loops.h"
#include "loops.h"

BENCH_INLINED void
take_mutex(void *lock)
{
    pyrt_mutex_lock(lock);
}

BENCH_INLINED void
give_mutex(void *lock)
{
    pyrt_mutex_unlock(lock);
}

BENCH_INLINED void
take_pthread(void *lock)
{
    pthread_mutex_lock(lock);
}

BENCH_INLINED void
give_pthread(void *lock)
{
    pthread_mutex_unlock(lock);
}

/* ---- alone ------------------------------------------------------------------------------------------------------- */

static void
mutex_loop(bench_thread *self)
{
    bench_pair_loop(self, self->state, take_mutex, give_mutex);
}

static void
pthread_loop(bench_thread *self)
{
    bench_pair_loop(self, self->state, take_pthread, give_pthread);
}

#define OWN_LINE .enter = bench_enter_own_line, .leave = bench_leave_own_line

static const bench_body mutex_body = {OWN_LINE, .loop = mutex_loop};
static const bench_body pthread_body = {OWN_LINE, .loop = pthread_loop};

/* ---- contended --------------------------------------------------------------------------------------------------- */

static PYRT_ALIGNED(128) pyrt_mutex shared_mutex;
static PYRT_ALIGNED(128) pthread_mutex_t shared_pthread = PTHREAD_MUTEX_INITIALIZER;
static bench_guarded guarded;

static int
enter_guarded(bench_thread *self)
{
    return bench_enter_guarded(self, &guarded);
}

static int
enter_guarded_attached(bench_thread *self)
{
    (void)enter_guarded(self);
    return pyrt_bench_enter_attached(self);
}

static void
mutex_contended_loop(bench_thread *self)
{
    bench_contended_loop(self, &guarded, 0, &shared_mutex, take_mutex, give_mutex);
}

static void
pthread_contended_loop(bench_thread *self)
{
    bench_contended_loop(self, &guarded, 0, &shared_pthread, take_pthread, give_pthread);
}

/* With something else to do between, a thread that has left the lock does not take it again before another one can. */
enum { REST = 50 };

static void
mutex_rest_loop(bench_thread *self)
{
    bench_contended_loop(self, &guarded, REST, &shared_mutex, take_mutex, give_mutex);
}

static void
pthread_rest_loop(bench_thread *self)
{
    bench_contended_loop(self, &guarded, REST, &shared_pthread, take_pthread, give_pthread);
}

#define GUARDED .counts_shares = true, .enter = enter_guarded
#define GUARDED_ATTACHED .counts_shares = true, .enter = enter_guarded_attached, .leave = pyrt_bench_leave_attached

static const bench_body mutex_contended_body = {GUARDED_ATTACHED, .loop = mutex_contended_loop};
static const bench_body mutex_rest_body = {GUARDED_ATTACHED, .loop = mutex_rest_loop};
static const bench_body pthread_contended_body = {GUARDED, .loop = pthread_contended_loop};
static const bench_body pthread_rest_body = {GUARDED, .loop = pthread_rest_loop};

/* ---- readers ----------------------------------------------------------------------------------------------------- */

static PYRT_ALIGNED(128) pyrt_rwlock shared_rwlock;
static PYRT_ALIGNED(128) pthread_rwlock_t shared_pthread_rwlock = PTHREAD_RWLOCK_INITIALIZER;

BENCH_INLINED void
take_read(void *lock)
{
    (void)pyrt_rwlock_read_lock(lock);
}

BENCH_INLINED void
give_read(void *lock)
{
    pyrt_rwlock_read_unlock(lock);
}

BENCH_INLINED void
take_write(void *lock)
{
    (void)pyrt_rwlock_write_lock(lock);
}

BENCH_INLINED void
give_write(void *lock)
{
    pyrt_rwlock_write_unlock(lock);
}

BENCH_INLINED void
take_pthread_read(void *lock)
{
    pthread_rwlock_rdlock(lock);
}

BENCH_INLINED void
take_pthread_write(void *lock)
{
    pthread_rwlock_wrlock(lock);
}

BENCH_INLINED void
give_pthread_any(void *lock)
{
    pthread_rwlock_unlock(lock);
}

static void
rwlock_read_loop(bench_thread *self)
{
    bench_pair_loop(self, &shared_rwlock, take_read, give_read);
}

static void
pthread_read_loop(bench_thread *self)
{
    bench_pair_loop(self, &shared_pthread_rwlock, take_pthread_read, give_pthread_any);
}

/* Each thread writes under a lock of its own: nobody waits. */
static void
rwlock_write_loop(bench_thread *self)
{
    bench_pair_loop(self, self->state, take_write, give_write);
}

static void
pthread_write_loop(bench_thread *self)
{
    bench_pair_loop(self, self->state, take_pthread_write, give_pthread_any);
}

static const bench_body rwlock_read_body = {
    .enter = pyrt_bench_enter_attached, .loop = rwlock_read_loop, .leave = pyrt_bench_leave_attached};
static const bench_body pthread_read_body = {.loop = pthread_read_loop};
static const bench_body rwlock_write_body = {OWN_LINE, .loop = rwlock_write_loop};
static const bench_body pthread_write_body = {OWN_LINE, .loop = pthread_write_loop};

#define PTHREAD(name, its_body) {.bench = name, .impl = "pthread-mutex", .run = bench_run, .body = its_body}
#define PTHREAD_RWLOCK(name, its_body) {.bench = name, .impl = "pthread-rwlock", .run = bench_run, .body = its_body}

static const pyrt_bench_loop loops[] = {
    {.bench = "lock.pair", .impl = "pyruntime", .run = bench_run, .body = &mutex_body},
    PTHREAD("lock.pair", &pthread_body),
    PYRT_BENCH_OURS("lock.contended", &mutex_contended_body),
    PTHREAD("lock.contended", &pthread_contended_body),
    PYRT_BENCH_OURS("lock.contended_rest", &mutex_rest_body),
    PTHREAD("lock.contended_rest", &pthread_rest_body),
    PYRT_BENCH_OURS("lock.read", &rwlock_read_body),
    PTHREAD_RWLOCK("lock.read", &pthread_read_body),
    {.bench = "lock.write", .impl = "pyruntime", .run = bench_run, .body = &rwlock_write_body},
    PTHREAD_RWLOCK("lock.write", &pthread_write_body),
};

const pyrt_bench_group pyrt_bench_lock_group = PYRT_BENCH_GROUP(loops);
