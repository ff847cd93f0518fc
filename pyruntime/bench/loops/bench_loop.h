/* bench_loop.h -- what a benchmark loop is, to those who run it: one table entry, the same for our loops and for peers'.
 *
 * Our loops are compiled into the package. A peer's loops are a shared library of its own, made on the user's machine
 * against the peer's installed headers, which exports one function of the type of pyrt_bench_loops under the name
 * PYRT_BENCH_PEER_ENTRY. Whoever runs a loop calls setup once, run any number of times and teardown once, all from one thread.
 */
#ifndef PYRT_BENCH_LOOP_H
#define PYRT_BENCH_LOOP_H

#include <stddef.h>
#include <stdint.h>

#define PYRT_BENCH_PEER_ENTRY "pyrt_bench_peer"
#define PYRT_BENCH_PEER_TABLE "pyrt_bench_peer_table"

/* cdef: begin */
typedef struct pyrt_bench_sample {
    int64_t ns;         /* from the common start of all measured to the end of the slowest; or the sum of single times */
    int64_t peak_bytes; /* most that waited to be freed at one time, in the worst thread; -1: not counted */
    int64_t refused;    /* times that the library asked the loop to slow down */
    double least_share; /* of all operations, what the thread with the fewest did; -1: each was told to do as many */
    double most_share;
    int64_t p50_ns;     /* of single operations; -1: they were not timed one by one */
    int64_t p99_ns;
    int64_t max_ns;
} pyrt_bench_sample;

typedef struct pyrt_bench_order {
    uint64_t iterations; /* of each measured thread */
    int threads;         /* how many are measured */
    const int *cpus;     /* where several threads run, one behind the other: a CPU for each core first */
    int cpu_count;       /* 0: wherever the system puts them */
} pyrt_bench_order;

typedef struct pyrt_bench_loop {
    const char *bench;  /* "qsbr.quiescent" */
    const char *impl;   /* "pyruntime", or the peer's name */
    int (*setup)(void); /* NULL: nothing to do; answers 0 or an errno */
    int (*run)(const struct pyrt_bench_loop *self, const pyrt_bench_order *order, pyrt_bench_sample *out); /* as setup */
    void (*teardown)(void);
    const void *body; /* what `run` runs; the loop's own */
} pyrt_bench_loop;

/* The loops that are compiled in. */
const pyrt_bench_loop *pyrt_bench_loops(size_t *count);

/* The loops of a peer's library, which is never closed again; NULL if it cannot be opened, and the reason below. A library that
 * uses ours exports PYRT_BENCH_PEER_TABLE and is handed the table of functions. */
const pyrt_bench_loop *pyrt_bench_open(const char *path, const void *api, size_t *count);
const char *pyrt_bench_open_error(void);

/* malloc_trim. */
void pyrt_bench_trim(void);

/* Nothing but the call, for the benchmarks call.*. */
int pyrt_bench_call0(void);
int pyrt_bench_call1(int a);
int pyrt_bench_call2(int a, int b);
/* cdef: end */

#endif
