/* harness.h -- runs the body of a loop in some threads at once, and times it: the same text for our loops and for peers'.
 *
 * What is measured. Every measured thread runs `iterations` operations. They enter (register, attach), wait for each other,
 * and start together; the time of a sample goes from the first thread's start to the last one's end, entering and leaving
 * excluded. So with a core for each thread and nothing shared, the time per operation stays what it is with one thread, and
 * every rise is a cost of running together.
 *
 * Several threads are each bound to a CPU. Left to itself, the system likes to start two threads that hand over to each other
 * on one core, and moves one of them away only after some milliseconds. A single thread runs where the system wants it.
 *
 * Companions are threads that are not measured, the readers in the way of a grace period: they start with the others and
 * run until all of these are done.
 *
 * Two kinds of bodies differ. One that counts shares has its threads work together until all operations are done, however
 * they fall to them, so that a thread that gets nothing can be seen. One that times each operation says itself what belongs
 * to it, and the time of a sample is the sum of that.
 *
 * The caller's thread sleeps in pthread_join meanwhile. So a loop never runs in a process with one thread only, where glibc
 * takes locks and atomic operations out of malloc and no real program with threads would see the same times.
 */
#ifndef PYRT_BENCH_HARNESS_H
#define PYRT_BENCH_HARNESS_H

#if !defined(_GNU_SOURCE)
#    error "define _GNU_SOURCE before the first header: threads are bound to CPUs"
#endif

#include "bench_loop.h"

#include <pyruntime/atomic.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { BENCH_MAX_THREADS = 256, BENCH_ON_OTHER_CORES = -1, BENCH_COUNTERS = 256 };

/* Of functions that loops are made of: inlined together with the functions that they are given. */
#define BENCH_INLINED static inline __attribute__((always_inline))

/* Stands where a real loop would do something with memory: the compiler keeps nothing that could change in a register
 * across it, so that every operation pays its loads and stores. */
#define bench_work() __asm__ volatile("" ::: "memory")

struct bench_crew;

/* Each on cache lines of its own. */
typedef struct PYRT_ALIGNED(128) bench_thread {
    struct bench_crew *crew;
    uint64_t iterations;
    void *state; /* the body's own, from enter to leave */
    int64_t pending_bytes;
    int64_t peak_bytes;
    int64_t refused;
    uint64_t done;   /* operations, where the body counts shares */
    uint64_t before; /* what a count that the threads share was when this one entered; the body's own */
    int64_t *times;  /* of single operations, where the body times each; room for all iterations */
    int error; /* an errno of enter or of the loop; the sample is void then */
    bool is_companion;
    int number; /* its place among the measured threads, or among the companions */
    bool is_running;
    int64_t started;
    int64_t ended;
    pthread_t id;
    uint64_t counters[BENCH_COUNTERS];
} bench_thread;

typedef struct bench_body {
    int (*enter)(bench_thread *self); /* answers 0 or an errno; leave is called after a success */
    void (*loop)(bench_thread *self);
    void (*leave)(bench_thread *self);
    void (*companion)(bench_thread *self); /* runs until bench_is_over */
    int companions; /* how many; BENCH_ON_OTHER_CORES: one for each core that has no measured thread, but at least one */
    bool counts_bytes;
    bool counts_shares;
    bool times_each;
    bool is_unbound; /* several threads run wherever the system puts them */
} bench_body;

typedef struct bench_crew {
    const bench_body *body;
    uint32_t measured;
    uint32_t expected;
    uint32_t arrived;
    uint32_t failed;
    uint32_t over;
} bench_crew;

static inline int64_t
bench_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline bool
bench_is_over(const bench_thread *self)
{
    return pyrt_load_relaxed(&self->crew->over) != 0;
}

/* Keeps book of what waits to be freed, for loops whose body says counts_bytes. The subtraction may come from another
 * thread, a peer's helper. relaxed: a count, nothing hangs on it. */
static inline void
bench_add_pending(bench_thread *self, int64_t bytes)
{
    int64_t pending = pyrt_fetch_add_relaxed(&self->pending_bytes, bytes) + bytes;
    if (pending > self->peak_bytes) {
        self->peak_bytes = pending;
    }
}

static inline void
bench_subtract_pending(bench_thread *self, int64_t bytes)
{
    (void)pyrt_fetch_add_relaxed(&self->pending_bytes, -bytes);
}

/* What a disposer counts in, when the machinery is measured and not an allocator. Taken in turn: increments of one and the same
 * word would wait for each other, and their latency would be the figure. */
static inline uint64_t *
bench_counter(bench_thread *self, uint64_t i)
{
    return &self->counters[i % BENCH_COUNTERS];
}

static inline uint64_t
bench_counted(const bench_thread *self)
{
    uint64_t sum = 0;
    for (int i = 0; i < BENCH_COUNTERS; i++) {
        sum += self->counters[i];
    }
    return sum;
}

/* How many operations all measured threads are to do together, for loops whose body says counts_shares. */
static inline uint64_t
bench_all_iterations(const bench_thread *self)
{
    return self->iterations * self->crew->measured;
}

/* All arrive before any goes on. Yields after a while: there may be more threads than cores. */
static inline void
bench_wait_for_start(bench_crew *crew)
{
    (void)pyrt_fetch_add_seq_cst(&crew->arrived, 1u);
    /* acquire: pairs with the adds of the others. */
    for (unsigned spins = 0; pyrt_load_acquire(&crew->arrived) < crew->expected; spins++) {
        if (spins < 2000) {
            pyrt_cpu_relax();
        }
        else {
            sched_yield();
        }
    }
}

static inline void *
bench_thread_main(void *arg)
{
    bench_thread *self = (bench_thread *)arg;
    const bench_body *body = self->crew->body;
    self->error = body->enter != NULL ? body->enter(self) : 0;
    bool entered = self->error == 0;
    if (!entered) {
        (void)pyrt_fetch_add_relaxed(&self->crew->failed, 1u);
    }
    bench_wait_for_start(self->crew);
    if (pyrt_load_relaxed(&self->crew->failed) == 0) {
        self->started = bench_now();
        (self->is_companion ? body->companion : body->loop)(self);
        self->ended = bench_now();
    }
    if (entered && body->leave != NULL) {
        body->leave(self);
    }
    return NULL;
}

static inline int
bench_create(bench_thread *thread, int cpu)
{
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);
    if (error != 0) {
        return error;
    }
    if (cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        error = pthread_attr_setaffinity_np(&attributes, sizeof(set), &set);
    }
    if (error == 0) {
        error = pthread_create(&thread->id, &attributes, bench_thread_main, thread);
    }
    pthread_attr_destroy(&attributes);
    return error;
}

/* Starts what it can; a thread that cannot be started counts as arrived and failed. */
static inline void
bench_start(bench_thread *threads, int count, const pyrt_bench_order *order)
{
    bool is_bound = count > 1 && order->cpu_count > 0 && !threads[0].crew->body->is_unbound;
    for (int i = 0; i < count; i++) {
        threads[i].error = bench_create(&threads[i], is_bound ? order->cpus[i % order->cpu_count] : -1);
        threads[i].is_running = threads[i].error == 0;
        if (!threads[i].is_running) {
            (void)pyrt_fetch_add_relaxed(&threads[i].crew->failed, 1u);
            (void)pyrt_fetch_add_seq_cst(&threads[i].crew->arrived, 1u);
        }
    }
}

static inline int
bench_join(bench_thread *threads, int count)
{
    int error = 0;
    for (int i = 0; i < count; i++) {
        if (threads[i].is_running) {
            pthread_join(threads[i].id, NULL);
        }
        if (error == 0) {
            error = threads[i].error;
        }
    }
    return error;
}

static inline void
bench_summarise(const bench_thread *threads, int count, bool counts_bytes, pyrt_bench_sample *out)
{
    int64_t first = threads[0].started;
    int64_t last = threads[0].ended;
    *out = (pyrt_bench_sample){
        .peak_bytes = counts_bytes ? 0 : -1, .least_share = -1, .most_share = -1, .p50_ns = -1, .p99_ns = -1, .max_ns = -1};
    for (int i = 0; i < count; i++) {
        first = threads[i].started < first ? threads[i].started : first;
        last = threads[i].ended > last ? threads[i].ended : last;
        out->refused += threads[i].refused;
        if (counts_bytes && threads[i].peak_bytes > out->peak_bytes) {
            out->peak_bytes = threads[i].peak_bytes;
        }
    }
    out->ns = last - first;
}

static inline void
bench_summarise_shares(const bench_thread *threads, int count, pyrt_bench_sample *out)
{
    uint64_t least = threads[0].done, most = least, sum = 0;
    for (int i = 0; i < count; i++) {
        least = threads[i].done < least ? threads[i].done : least;
        most = threads[i].done > most ? threads[i].done : most;
        sum += threads[i].done;
    }
    out->least_share = sum > 0 ? (double)least / (double)sum : 0;
    out->most_share = sum > 0 ? (double)most / (double)sum : 0;
}

static inline int
bench_compare_times(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

/* `times`: those of all threads, one thread behind the other. */
static inline void
bench_summarise_times(int64_t *times, uint64_t iterations, int count, pyrt_bench_sample *out)
{
    out->ns = 0;
    for (int i = 0; i < count; i++) {
        int64_t sum = 0;
        for (uint64_t j = 0; j < iterations; j++) {
            sum += times[(uint64_t)i * iterations + j];
        }
        out->ns = sum > out->ns ? sum : out->ns;
    }
    uint64_t n = iterations * (uint64_t)count;
    qsort(times, n, sizeof(*times), bench_compare_times);
    out->p50_ns = times[n / 2];
    out->p99_ns = times[n - 1 - n / 100];
    out->max_ns = times[n - 1];
}

/* The `run` of every loop. */
static inline int
bench_run(const pyrt_bench_loop *loop, const pyrt_bench_order *order, pyrt_bench_sample *out)
{
    int threads = order->threads;
    const bench_body *body = (const bench_body *)loop->body;
    int companions = body->companions;
    if (companions == BENCH_ON_OTHER_CORES) {
        int cores = order->cpu_count > 0 ? order->cpu_count : (int)sysconf(_SC_NPROCESSORS_ONLN);
        int others = cores - threads;
        companions = others > 1 ? others : 1;
    }
    if (threads < 1 || threads > BENCH_MAX_THREADS || order->iterations < 1) {
        return EINVAL;
    }
    int count = threads + companions;
    bench_crew crew = {.body = body, .measured = (uint32_t)threads, .expected = (uint32_t)count};
    bench_thread *all = (bench_thread *)aligned_alloc(128, sizeof(bench_thread) * (size_t)count);
    int64_t *times = body->times_each ? (int64_t *)calloc(order->iterations * (uint64_t)threads, sizeof(*times)) : NULL;
    if (all == NULL || (body->times_each && times == NULL)) {
        free(times);
        free(all);
        return ENOMEM;
    }
    for (int i = 0; i < count; i++) {
        bool is_companion = i >= threads;
        all[i] = (bench_thread){.crew = &crew,
                                .iterations = order->iterations,
                                .is_companion = is_companion,
                                .number = is_companion ? i - threads : i};
        if (body->times_each && !is_companion) {
            all[i].times = times + order->iterations * (uint64_t)i;
        }
    }
    bench_start(all, count, order);
    int error = bench_join(all, threads);
    pyrt_store_relaxed(&crew.over, 1u);
    int companion_error = bench_join(all + threads, companions);
    if (error == 0) {
        error = companion_error;
    }
    if (error == 0) {
        bench_summarise(all, threads, body->counts_bytes, out);
        if (body->counts_shares) {
            bench_summarise_shares(all, threads, out);
        }
        if (body->times_each) {
            bench_summarise_times(times, order->iterations, threads, out);
        }
    }
    free(times);
    free(all);
    return error;
}

#endif
