/* ck.c -- the loops of Concurrency Kit's ck_epoch, the counterparts of ../loops/qsbr.c and retire.c under the same harness.
 *
 * A thread is in no section but where it says so, so there is no counterpart of a quiescent state. A record may never be
 * freed, so each is used again by a later thread. Compiled on the user's machine against the installed headers.
 */
#define _GNU_SOURCE

#include <ck_epoch.h>

#include "harness.h"

#define IMPL "ck-epoch"

/* POLL_EVERY: a poll that succeeds moves the epoch by one and disposes of what is two epochs old; one for each item would be
 * dear, and so many items are about what a chunk of ours holds. */
enum { BLOCK = 64, POLL_EVERY = 512, RING = 1024 };

static ck_epoch_t epoch;

static int
setup(void)
{
    static bool is_done;
    if (!is_done) {
        ck_epoch_init(&epoch);
        is_done = true;
    }
    return 0;
}

static int
enter(bench_thread *self)
{
    ck_epoch_record_t *record = ck_epoch_recycle(&epoch, self);
    if (record == NULL) {
        record = aligned_alloc(128, (sizeof(*record) + 127) / 128 * 128);
        if (record == NULL) {
            return ENOMEM;
        }
        ck_epoch_register(&epoch, record, self);
    }
    self->state = record;
    return 0;
}

static void
leave(bench_thread *self)
{
    ck_epoch_barrier(self->state);
    ck_epoch_unregister(self->state);
}

/* ---- readers and waiting ----------------------------------------------------------------------------------------- */

static void
section_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    ck_epoch_record_t *record = self->state;
    for (uint64_t i = 0; i < iterations; i++) {
        ck_epoch_begin(record, NULL);
        bench_work();
        ck_epoch_end(record, NULL);
    }
}

static void
synchronize_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    ck_epoch_record_t *record = self->state;
    for (uint64_t i = 0; i < iterations; i++) {
        bench_work();
        ck_epoch_synchronize(record);
    }
}

static void
busy_reader(bench_thread *self)
{
    ck_epoch_record_t *record = self->state;
    while (!bench_is_over(self)) {
        ck_epoch_begin(record, NULL);
        bench_work();
        ck_epoch_end(record, NULL);
    }
}

/* ---- deferred work ----------------------------------------------------------------------------------------------- */

typedef struct block {
    ck_epoch_entry_t entry;
    bench_thread *owner;
    uint64_t count;
    bool is_waiting;
    char rest[BLOCK - sizeof(ck_epoch_entry_t) - sizeof(bench_thread *) - sizeof(uint64_t) - sizeof(bool)];
} block;

static void
count_one(ck_epoch_entry_t *entry)
{
    block *b = (block *)entry;
    b->is_waiting = false;
    b->count++;
}

/* The entry is part of the thing that waits, so things are taken from a ring in turn, and a poll is made when the next of
 * them is still waiting. */
static void
dispatch_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    ck_epoch_record_t *record = self->state;
    block *ring = calloc(RING, sizeof(*ring));
    if (ring == NULL) {
        self->error = ENOMEM;
        return;
    }
    for (uint64_t i = 0; i < iterations; i++) {
        block *b = &ring[i % RING];
        while (b->is_waiting) {
            ck_epoch_poll(record);
        }
        b->is_waiting = true;
        ck_epoch_call(record, &b->entry, count_one);
        if (i % POLL_EVERY == POLL_EVERY - 1) {
            ck_epoch_poll(record);
        }
    }
    ck_epoch_barrier(record);
    uint64_t counted = 0;
    for (int i = 0; i < RING; i++) {
        counted += ring[i].count;
    }
    if (counted != iterations) {
        self->error = EPROTO;
    }
    free(ring);
}

static void
free_block(ck_epoch_entry_t *entry)
{
    free(entry); /* the first member */
}

static void
malloc_free_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    ck_epoch_record_t *record = self->state;
    for (uint64_t i = 0; i < iterations; i++) {
        block *b = malloc(sizeof(*b));
        if (b == NULL) {
            self->error = ENOMEM;
            break;
        }
        ck_epoch_call(record, &b->entry, free_block);
        if (i % POLL_EVERY == POLL_EVERY - 1) {
            ck_epoch_poll(record);
        }
    }
    ck_epoch_barrier(record);
}

static void
free_counted(ck_epoch_entry_t *entry)
{
    block *b = (block *)entry;
    bench_subtract_pending(b->owner, sizeof(*b));
    free(b);
}

static void
pending_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    ck_epoch_record_t *record = self->state;
    for (uint64_t i = 0; i < iterations; i++) {
        block *b = malloc(sizeof(*b));
        if (b == NULL) {
            self->error = ENOMEM;
            break;
        }
        b->owner = self;
        bench_add_pending(self, sizeof(*b));
        ck_epoch_call(record, &b->entry, free_counted);
        if (i % POLL_EVERY == POLL_EVERY - 1) {
            ck_epoch_poll(record);
        }
    }
    ck_epoch_barrier(record);
}

static void
reader_of_10_us(bench_thread *self)
{
    ck_epoch_record_t *record = self->state;
    while (!bench_is_over(self)) {
        ck_epoch_begin(record, NULL);
        int64_t until = bench_now() + 10000;
        while (bench_now() < until) {
            pyrt_cpu_relax();
        }
        ck_epoch_end(record, NULL);
    }
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

#define REGISTERED .enter = enter, .leave = leave

static const bench_body section_body = {REGISTERED, .loop = section_loop};
static const bench_body synchronize_body = {REGISTERED, .loop = synchronize_loop};
static const bench_body synchronize_reader_body = {REGISTERED, .loop = synchronize_loop, .companion = busy_reader,
                                                   .companions = 1};
static const bench_body dispatch_body = {REGISTERED, .loop = dispatch_loop};
static const bench_body malloc_free_body = {REGISTERED, .loop = malloc_free_loop};
static const bench_body pending_body = {REGISTERED, .loop = pending_loop, .companion = reader_of_10_us,
                                        .companions = BENCH_ON_OTHER_CORES, .counts_bytes = true};

#define ENTRY(name, its_body) {.bench = name, .impl = IMPL, .setup = setup, .run = bench_run, .body = its_body}

static const pyrt_bench_loop loops[] = {
    ENTRY("qsbr.attach_detach", &section_body),
    ENTRY("qsbr.synchronize", &synchronize_body),
    ENTRY("qsbr.synchronize_reader", &synchronize_reader_body),
    ENTRY("retire.dispatch", &dispatch_body),
    ENTRY("retire.malloc_free", &malloc_free_body),
    ENTRY("retire.pending_peak", &pending_body),
};

__attribute__((visibility("default"))) const pyrt_bench_loop *
pyrt_bench_peer(size_t *count)
{
    *count = sizeof(loops) / sizeof(loops[0]);
    return loops;
}
