/* control.c -- what the other figures are judged by: the machine itself, and a call that does nothing. */
#define _GNU_SOURCE

#include "loops.h"

/* Four chains of dependent multiplications that share nothing and touch no memory. They keep the multiplier of a core busy,
 * so that two hardware threads of one core are not taken for two cores. */
static void
spin_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    uint64_t a = 1, b = 2, c = 3, d = 4;
    for (uint64_t i = 0; i < iterations; i++) {
        a = a * 6364136223846793005u + 1442695040888963407u;
        b = b * 6364136223846793005u + 1442695040888963407u;
        c = c * 6364136223846793005u + 1442695040888963407u;
        d = d * 6364136223846793005u + 1442695040888963407u;
        __asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d));
    }
}

static const bench_body spin_body = {.loop = spin_loop};

int
pyrt_bench_call0(void)
{
    return 0;
}

int
pyrt_bench_call1(int a)
{
    return a;
}

int
pyrt_bench_call2(int a, int b)
{
    return a + b;
}

static const pyrt_bench_loop loops[] = {
    {.bench = "control.cores", .impl = "pyruntime", .run = bench_run, .body = &spin_body},
};

const pyrt_bench_group pyrt_bench_control_group = PYRT_BENCH_GROUP(loops);
