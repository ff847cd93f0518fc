/* retire.c -- handing memory over and getting it disposed of: the machinery alone, with malloc and free, and how much waits.
 *
 * Every loop passes a safepoint after each operation, where the disposal happens, and ends with a barrier inside of the
 * measured time: nothing that was retired is left out of the figure.
 */
#define _GNU_SOURCE

#include "loops.h"

#include <string.h>

enum { BLOCK = 64, BATCH_MAX = 4096 };

/* ---- without an allocator ---------------------------------------------------------------------------------------- */

static void
count_one(void *p)
{
    ++*(uint64_t *)p;
}

static void
dispatch_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    pyrt_thread *thread = self->state;
    for (uint64_t i = 0; i < iterations; i++) {
        pyrt_status status = pyrt_retire(thread, bench_counter(self, i), BLOCK, count_one);
        if (pyrt_unlikely(status != PYRT_OK)) {
            self->refused++;
        }
        pyrt_safepoint(thread);
    }
    if (pyrt_qsbr_barrier(thread) != PYRT_OK || bench_counted(self) != iterations) {
        self->error = EPROTO;
    }
}

/* The floor of it: writing function and argument down, and calling later, as many at a time as ours does. */
static size_t batch;

static void
batched_call_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    struct {
        void (*call)(void *);
        void *p;
    } waiting[BATCH_MAX];
    size_t count = 0;
    size_t limit = batch;
    for (uint64_t i = 0; i < iterations; i++) {
        waiting[count].call = count_one;
        waiting[count].p = bench_counter(self, i);
        count++;
        bench_work();
        if (count == limit || i + 1 == iterations) {
            for (size_t j = 0; j < count; j++) {
                waiting[j].call(waiting[j].p);
            }
            count = 0;
        }
    }
    if (bench_counted(self) != iterations) {
        self->error = EPROTO;
    }
}

/* ---- with malloc and free ---------------------------------------------------------------------------------------- */

static void
malloc_free_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    pyrt_thread *thread = self->state;
    for (uint64_t i = 0; i < iterations; i++) {
        uint64_t *block = malloc(BLOCK);
        if (block == NULL) {
            self->error = ENOMEM;
            break;
        }
        *block = i;
        pyrt_status status = pyrt_retire(thread, block, BLOCK, free);
        if (pyrt_unlikely(status != PYRT_OK)) {
            self->refused++;
        }
        pyrt_safepoint(thread);
    }
    if (pyrt_qsbr_barrier(thread) != PYRT_OK) {
        self->error = EPROTO;
    }
}

/* The allocator's part of it: no reclamation at all, but as many blocks alive at a time. */
static void
batched_free_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    void *blocks[BATCH_MAX];
    size_t waiting = 0;
    size_t limit = batch;
    for (uint64_t i = 0; i < iterations; i++) {
        uint64_t *block = malloc(BLOCK);
        if (block == NULL) {
            self->error = ENOMEM;
            break;
        }
        *block = i;
        blocks[waiting++] = block;
        bench_work();
        if (waiting == limit) {
            for (size_t j = 0; j < waiting; j++) {
                free(blocks[j]);
            }
            waiting = 0;
        }
    }
    for (size_t j = 0; j < waiting; j++) {
        free(blocks[j]);
    }
}

static void
immediate_free_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    for (uint64_t i = 0; i < iterations; i++) {
        uint64_t *block = malloc(BLOCK);
        if (block == NULL) {
            self->error = ENOMEM;
            break;
        }
        *block = i;
        __asm__ volatile("" : : "r"(block) : "memory");
        free(block);
    }
}

static uint64_t
statistic(const char *name)
{
    uint64_t values[64];
    size_t count = pyrt_qsbr_stats_read(pyrt_interp_main(), values, 64);
    for (size_t i = 0; i < count && i < 64; i++) {
        if (strcmp(pyrt_qsbr_stats_name(i), name) == 0) {
            return values[i];
        }
    }
    return 0;
}

static const bench_body malloc_free_body = {
    .enter = pyrt_bench_enter_attached, .leave = pyrt_bench_leave_attached, .loop = malloc_free_loop};

/* "As many at a time": how many items our loop disposes of at once is measured, by running it and asking the statistics. */
static int
measure_batch(void)
{
    int error = pyrt_bench_runtime_up();
    if (error != 0) {
        return error;
    }
    const pyrt_bench_loop ours = {.run = bench_run, .body = &malloc_free_body};
    pyrt_bench_sample ignored;
    uint64_t retired = statistic("retired");
    uint64_t goals = statistic("goals");
    error = bench_run(&ours, &(pyrt_bench_order){.iterations = 50000, .threads = 1}, &ignored);
    retired = statistic("retired") - retired;
    goals = statistic("goals") - goals;
    batch = goals == 0 ? 1 : (size_t)(retired / goals);
    batch = batch < 1 ? 1 : batch > BATCH_MAX ? BATCH_MAX : batch;
    pyrt_bench_runtime_down();
    return error;
}

/* ---- how much waits ---------------------------------------------------------------------------------------------- */

typedef struct counted_block {
    bench_thread *owner;
    char rest[BLOCK - sizeof(bench_thread *)];
} counted_block;

static void
free_counted(void *p)
{
    counted_block *block = p;
    bench_subtract_pending(block->owner, sizeof(*block));
    free(block);
}

/* What a program does that heeds PYRT_EBUSY: it disposes of what it can and lets others run, until half is gone. */
static void
slow_down(bench_thread *self)
{
    int64_t enough = pyrt_load_relaxed(&self->pending_bytes) / 2;
    self->refused++;
    while (pyrt_load_relaxed(&self->pending_bytes) > enough) {
        if (pyrt_process_delayed(self->state) == 0) {
            sched_yield();
        }
    }
}

static void
pending_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    pyrt_thread *thread = self->state;
    for (uint64_t i = 0; i < iterations; i++) {
        counted_block *block = malloc(sizeof(*block));
        if (block == NULL) {
            self->error = ENOMEM;
            break;
        }
        block->owner = self;
        bench_add_pending(self, sizeof(*block));
        if (pyrt_retire(thread, block, sizeof(*block), free_counted) == PYRT_EBUSY) {
            slow_down(self);
        }
        pyrt_safepoint(thread);
    }
    if (pyrt_qsbr_barrier(thread) != PYRT_OK || pyrt_load_relaxed(&self->pending_bytes) != 0) {
        self->error = EPROTO;
    }
}

static void
reader_of_10_us(bench_thread *self)
{
    pyrt_thread *thread = self->state;
    while (!bench_is_over(self)) {
        int64_t until = bench_now() + 10000;
        while (bench_now() < until) {
            pyrt_cpu_relax();
        }
        pyrt_safepoint(thread);
    }
}

static const bench_body dispatch_body = {
    .enter = pyrt_bench_enter_attached, .leave = pyrt_bench_leave_attached, .loop = dispatch_loop};
static const bench_body batched_call_body = {.loop = batched_call_loop};
static const bench_body batched_free_body = {.loop = batched_free_loop};
static const bench_body immediate_free_body = {.loop = immediate_free_loop};
static const bench_body pending_body = {.enter = pyrt_bench_enter_attached,
                                        .leave = pyrt_bench_leave_attached,
                                        .loop = pending_loop,
                                        .companion = reader_of_10_us,
                                        .companions = BENCH_ON_OTHER_CORES,
                                        .counts_bytes = true};

static const pyrt_bench_loop loops[] = {
    PYRT_BENCH_OURS("retire.dispatch", &dispatch_body),
    {.bench = "retire.dispatch",
     .impl = "batched-call",
     .setup = measure_batch,
     .run = bench_run,
     .body = &batched_call_body},
    PYRT_BENCH_OURS("retire.malloc_free", &malloc_free_body),
    {.bench = "retire.malloc_free",
     .impl = "batched-free",
     .setup = measure_batch,
     .run = bench_run,
     .body = &batched_free_body},
    {.bench = "retire.malloc_free", .impl = "immediate-free", .run = bench_run, .body = &immediate_free_body},
    PYRT_BENCH_OURS("retire.pending_peak", &pending_body),
};

const pyrt_bench_group pyrt_bench_retire_group = PYRT_BENCH_GROUP(loops);
