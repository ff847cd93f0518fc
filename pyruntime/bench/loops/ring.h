/* ring.h -- a ring of pointers through which one measured thread hands things to the other. */
#ifndef PYRT_BENCH_RING_H
#define PYRT_BENCH_RING_H

#include "harness.h"

enum { BENCH_RING = 1024 };

typedef struct bench_ring {
    PYRT_ALIGNED(128) uint64_t written; /* by the producer, number 0 */
    PYRT_ALIGNED(128) uint64_t read;    /* by the consumer */
    PYRT_ALIGNED(128) void *things[BENCH_RING];
} bench_ring;

/* enter: the ring is emptied before the threads start. */
static inline int
bench_enter_ring(bench_thread *self, bench_ring *ring)
{
    if (self->number == 0) {
        ring->written = ring->read = 0;
    }
    return self->crew->measured == 2 ? 0 : EINVAL;
}

/* Waits until the other side's count has come to `wanted`. */
static inline void
bench_ring_wait(const uint64_t *count, uint64_t wanted)
{
    /* acquire: pairs with the releases in bench_ring_put and bench_ring_take. */
    for (unsigned spins = 0; pyrt_load_acquire(count) < wanted; spins++) {
        if (spins < 200) {
            pyrt_cpu_relax();
        }
        else {
            sched_yield();
        }
    }
}

/* The i-th thing. */
static inline void
bench_ring_put(bench_ring *ring, uint64_t i, void *thing)
{
    if (i >= BENCH_RING) {
        bench_ring_wait(&ring->read, i - BENCH_RING + 1);
    }
    ring->things[i % BENCH_RING] = thing;
    pyrt_store_release(&ring->written, i + 1);
}

static inline void *
bench_ring_take(bench_ring *ring, uint64_t i)
{
    bench_ring_wait(&ring->written, i + 1);
    void *thing = ring->things[i % BENCH_RING];
    pyrt_store_release(&ring->read, i + 1);
    return thing;
}

#endif
