/* embed.c -- what an extension does all the time, compiled together with the core; peers/embedded.c has it from outside. */
#define _GNU_SOURCE

#include "loops.h"

#include "embed_loops.h"

static const bench_body call_body = BENCH_EMBED_BODY(bench_embed_call_loop);
static const bench_body mutex_body = BENCH_EMBED_BODY(bench_embed_mutex_loop);
static const bench_body quiescent_body = BENCH_EMBED_BODY(bench_embed_quiescent_loop);

static const pyrt_bench_loop loops[] = {
    PYRT_BENCH_OURS("embed.call", &call_body),
    PYRT_BENCH_OURS("embed.mutex", &mutex_body),
    PYRT_BENCH_OURS("embed.quiescent", &quiescent_body),
};

const pyrt_bench_group pyrt_bench_embed_group = PYRT_BENCH_GROUP(loops);
