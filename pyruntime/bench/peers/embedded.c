/* embedded.c -- our own fast paths as they are in another extension: inline, through the table of functions, which whoever opens
 * this library hands over.
 */
#define _GNU_SOURCE

#include <pyruntime/capi.h>
#include <pyruntime/pyruntime.h>

#include "embed_loops.h"
#include "refcount_loops.h"

static int
runtime_up(void)
{
    return pyrt_runtime_init() == PYRT_OK ? 0 : ENOMEM;
}

static void
runtime_down(void)
{
    (void)pyrt_runtime_fini();
}

static const bench_body owner_body = {.enter = bench_enter_owner, .loop = bench_count_loop, .leave = bench_leave_counting};
static const bench_body other_body = {.enter = bench_enter_other, .loop = bench_count_loop, .leave = bench_leave_counting};

static const bench_body call_body = BENCH_EMBED_BODY(bench_embed_call_loop);
static const bench_body mutex_body = BENCH_EMBED_BODY(bench_embed_mutex_loop);
static const bench_body quiescent_body = BENCH_EMBED_BODY(bench_embed_quiescent_loop);

#define EMBEDDED(name, its_body)   \
    {.bench = name,                \
     .impl = "pyruntime-embedded", \
     .setup = runtime_up,          \
     .run = bench_run,             \
     .teardown = runtime_down,     \
     .body = its_body}

static const pyrt_bench_loop loops[] = {
    EMBEDDED("refcount.owner", &owner_body),      EMBEDDED("refcount.other", &other_body),
    EMBEDDED("embed.call", &call_body),           EMBEDDED("embed.mutex", &mutex_body),
    EMBEDDED("embed.quiescent", &quiescent_body),
};

__attribute__((visibility("default"))) void
pyrt_bench_peer_table(const void *table)
{
    pyrt_capi_use((const pyrt_capi *)table);
}

__attribute__((visibility("default"))) const pyrt_bench_loop *
pyrt_bench_peer(size_t *count)
{
    *count = sizeof(loops) / sizeof(loops[0]);
    return loops;
}
