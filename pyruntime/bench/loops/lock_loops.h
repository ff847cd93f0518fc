/* lock_loops.h -- the loops over locks, the same text for every kind: each takes the two functions as constants, and is inlined
 * with them. */
#ifndef PYRT_BENCH_LOCK_LOOPS_H
#define PYRT_BENCH_LOCK_LOOPS_H

#include "harness.h"

typedef void bench_lock_call(void *lock);

/* enter and leave: a cache line of zeros for a lock of the thread's own, in `state`. */
static inline int
bench_enter_own_line(bench_thread *self)
{
    self->state = aligned_alloc(128, 128);
    if (self->state == NULL) {
        return ENOMEM;
    }
    for (size_t i = 0; i < 128 / sizeof(uint64_t); i++) {
        ((uint64_t *)self->state)[i] = 0;
    }
    return 0;
}

static inline void
bench_leave_own_line(bench_thread *self)
{
    free(self->state);
}

BENCH_INLINED void
bench_pair_loop(bench_thread *self, void *lock, bench_lock_call *take, bench_lock_call *give)
{
    uint64_t iterations = self->iterations;
    for (uint64_t i = 0; i < iterations; i++) {
        take(lock);
        bench_work();
        give(lock);
    }
}

/* What the lock guards; on another line than the lock. */
typedef struct PYRT_ALIGNED(128) bench_guarded {
    uint64_t count;
} bench_guarded;

/* enter: all threads enter before one of them counts. */
static inline int
bench_enter_guarded(bench_thread *self, const bench_guarded *guarded)
{
    self->before = guarded->count;
    return 0;
}

/* Takes the lock and counts until all threads together have done what there is to do; with `rest` turns of an empty loop between. */
BENCH_INLINED void
bench_contended_loop(bench_thread *self, bench_guarded *guarded, int rest, void *lock, bench_lock_call *take,
                     bench_lock_call *give)
{
    uint64_t before = self->before;
    uint64_t all = bench_all_iterations(self);
    uint64_t mine = 0;
    for (;;) {
        take(lock);
        bool is_over = guarded->count - before >= all;
        guarded->count += !is_over;
        give(lock);
        if (is_over) {
            break;
        }
        mine++;
        for (int i = 0; i < rest; i++) {
            bench_work();
        }
    }
    self->done = mine;
}

#endif
