/* urcu.c -- the loops of liburcu, in the flavour that PEER_URCU names: qsbr or memb.
 *
 * The counterparts of the loops in ../loops/qsbr.c and retire.c, under the same harness. The read-side functions are inlined,
 * as liburcu offers it to code that is compatible with the LGPL (this file is MIT), and thread-local variables are compiled
 * as in an executable (-ftls-model=initial-exec): the fastest that liburcu can be.
 *
 * Compiled on the user's machine against the installed headers; no liburcu code is part of this project.
 */
#define _GNU_SOURCE
#define _LGPL_SOURCE

#define QSBR 1
#define MEMB 2
#if PEER_URCU == QSBR
#    include <urcu-qsbr.h>
#    define IMPL "liburcu-qsbr"
/* An online thread is in a read-side section: what a reader does now and then. */
#    define pass_quiescent() rcu_quiescent_state()
#else
#    include <urcu.h>
#    define IMPL "liburcu-memb"
#    define pass_quiescent() ((void)0)
#endif

#include "harness.h"

enum { BLOCK = 64 };

static int
enter(bench_thread *self)
{
    (void)self;
    rcu_register_thread();
    return 0;
}

static void
leave(bench_thread *self)
{
    (void)self;
    rcu_unregister_thread();
}

/* ---- readers ----------------------------------------------------------------------------------------------------- */

#if PEER_URCU == QSBR
static void
quiescent_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    for (uint64_t i = 0; i < iterations; i++) {
        bench_work();
        rcu_quiescent_state();
    }
}

static void
online_offline_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    rcu_thread_offline();
    for (uint64_t i = 0; i < iterations; i++) {
        rcu_thread_online();
        bench_work();
        rcu_thread_offline();
    }
    rcu_thread_online();
}

static void
busy_reader(bench_thread *self)
{
    while (!bench_is_over(self)) {
        rcu_quiescent_state();
    }
}
#else
static void
section_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    for (uint64_t i = 0; i < iterations; i++) {
        rcu_read_lock();
        bench_work();
        rcu_read_unlock();
    }
}

static void
busy_reader(bench_thread *self)
{
    while (!bench_is_over(self)) {
        rcu_read_lock();
        bench_work();
        rcu_read_unlock();
    }
}
#endif

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static void
synchronize_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    for (uint64_t i = 0; i < iterations; i++) {
        bench_work();
        synchronize_rcu();
    }
}

/* ---- call_rcu ---------------------------------------------------------------------------------------------------- */

typedef struct block {
    struct rcu_head head;
    bench_thread *owner;
    char rest[BLOCK - sizeof(struct rcu_head) - sizeof(bench_thread *)];
} block;

static void
free_block(struct rcu_head *head)
{
    free(head); /* the first member */
}

static void
malloc_free_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    for (uint64_t i = 0; i < iterations; i++) {
        block *b = malloc(sizeof(*b));
        if (b == NULL) {
            self->error = ENOMEM;
            break;
        }
        call_rcu(&b->head, free_block);
        pass_quiescent();
    }
    rcu_barrier();
}

static void
free_counted(struct rcu_head *head)
{
    block *b = (block *)head;
    bench_subtract_pending(b->owner, sizeof(*b));
    free(b);
}

static void
pending_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    for (uint64_t i = 0; i < iterations; i++) {
        block *b = malloc(sizeof(*b));
        if (b == NULL) {
            self->error = ENOMEM;
            break;
        }
        b->owner = self;
        bench_add_pending(self, sizeof(*b));
        call_rcu(&b->head, free_counted);
        pass_quiescent();
    }
    rcu_barrier();
}

static void
reader_of_10_us(bench_thread *self)
{
    while (!bench_is_over(self)) {
        rcu_read_lock();
        int64_t until = bench_now() + 10000;
        while (bench_now() < until) {
            pyrt_cpu_relax();
        }
        rcu_read_unlock();
        pass_quiescent();
    }
}

/* ---- defer_rcu --------------------------------------------------------------------------------------------------- */

/* The cheaper way, of the memb flavour only: a ring for each thread, emptied by a grace period when it is full. In the qsbr
 * flavour an online thread that fills its ring waits for itself. */
#if PEER_URCU == MEMB
static int
enter_deferring(bench_thread *self)
{
    (void)enter(self);
    return rcu_defer_register_thread() == 0 ? 0 : ENOMEM;
}

static void
leave_deferring(bench_thread *self)
{
    rcu_defer_unregister_thread();
    leave(self);
}

static void
count_one(void *p)
{
    ++*(uint64_t *)p;
}

static void
deferred_dispatch_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    for (uint64_t i = 0; i < iterations; i++) {
        defer_rcu(count_one, bench_counter(self, i));
        bench_work();
    }
    rcu_defer_barrier_thread();
    if (bench_counted(self) != iterations) {
        self->error = EPROTO;
    }
}

static void
deferred_malloc_free_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    for (uint64_t i = 0; i < iterations; i++) {
        uint64_t *b = malloc(BLOCK);
        if (b == NULL) {
            self->error = ENOMEM;
            break;
        }
        *b = i;
        defer_rcu(free, b);
    }
    rcu_defer_barrier_thread();
}
#endif

/* ---- the table --------------------------------------------------------------------------------------------------- */

#define REGISTERED .enter = enter, .leave = leave

static const bench_body synchronize_body = {REGISTERED, .loop = synchronize_loop};
static const bench_body synchronize_reader_body = {REGISTERED, .loop = synchronize_loop, .companion = busy_reader,
                                                   .companions = 1};
static const bench_body malloc_free_body = {REGISTERED, .loop = malloc_free_loop};
static const bench_body pending_body = {REGISTERED, .loop = pending_loop, .companion = reader_of_10_us,
                                        .companions = BENCH_ON_OTHER_CORES, .counts_bytes = true};
#if PEER_URCU == QSBR
static const bench_body quiescent_body = {REGISTERED, .loop = quiescent_loop};
static const bench_body online_offline_body = {REGISTERED, .loop = online_offline_loop};
#else
static const bench_body section_body = {REGISTERED, .loop = section_loop};
static const bench_body deferred_dispatch_body = {
    .enter = enter_deferring, .leave = leave_deferring, .loop = deferred_dispatch_loop};
static const bench_body deferred_malloc_free_body = {
    .enter = enter_deferring, .leave = leave_deferring, .loop = deferred_malloc_free_loop};
#endif

#define ENTRY(name, its_impl, its_body) {.bench = name, .impl = its_impl, .run = bench_run, .body = its_body}

static const pyrt_bench_loop loops[] = {
#if PEER_URCU == QSBR
    ENTRY("qsbr.quiescent", IMPL, &quiescent_body),
    ENTRY("qsbr.safepoint", IMPL, &quiescent_body),
    ENTRY("qsbr.attach_detach", IMPL, &online_offline_body),
#else
    ENTRY("qsbr.attach_detach", IMPL, &section_body),
    ENTRY("retire.dispatch", IMPL "-defer", &deferred_dispatch_body),
    ENTRY("retire.malloc_free", IMPL "-defer", &deferred_malloc_free_body),
#endif
    ENTRY("qsbr.synchronize", IMPL, &synchronize_body),
    ENTRY("qsbr.synchronize_reader", IMPL, &synchronize_reader_body),
    ENTRY("retire.malloc_free", IMPL, &malloc_free_body),
    ENTRY("retire.pending_peak", IMPL, &pending_body),
};

__attribute__((visibility("default"))) const pyrt_bench_loop *
pyrt_bench_peer(size_t *count)
{
    *count = sizeof(loops) / sizeof(loops[0]);
    return loops;
}
