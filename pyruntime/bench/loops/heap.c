/* heap.c -- allocators under the uses that tell them apart. The loops are one text for two ways in: "pyruntime" calls pyrt_malloc
 * through a table, as an extension does that has imported it; "malloc" calls malloc, whichever one the process has been given.
 *
 * A process that runs one of these runs no other allocator's: what it has resident at the peak is a figure, too. So nothing
 * here but the allocator takes memory once a loop is set up: where the loops keep their blocks is mapped, and touched, before.
 */
#define _GNU_SOURCE

#include "loops.h"
#include "ring.h"

#include <pyruntime/capi_table.h>

#include <sys/mman.h>

enum {
    FIXED = 64,
    MIXED_LEAST = 16,
    MIXED_MOST = 256,
    MOST_BLOCKS = 100000,
    CHURN_MOST = 1024,
    TOUCHED_THREADS = 2,
    OF_A_THREAD = 4000,
    GENERATIONS = 8,
    ADDRESSES = 4096,
    OWN_BLOCK_MOST = 8192
};

typedef void *alloc_call(size_t size);
typedef void free_call(void *block);

/* ---- the two ways in --------------------------------------------------------------------------------------------- */

/* Not static and not constant: a compiler that knew what it points to would call directly. */
const pyrt_capi *pyrt_bench_table;

static const pyrt_capi members_used = {.malloc = pyrt_malloc, .free = pyrt_free, .address_owner = pyrt_address_owner};

BENCH_INLINED void *
table_alloc(size_t size)
{
    return pyrt_bench_table->malloc(size);
}

BENCH_INLINED void
table_free(void *block)
{
    pyrt_bench_table->free(block);
}

BENCH_INLINED void *
process_alloc(size_t size)
{
    return malloc(size);
}

BENCH_INLINED void
process_free(void *block)
{
    free(block);
}

/* ---- where the blocks are kept ----------------------------------------------------------------------------------- */

/* MOST_BLOCKS for each thread that there may be; those of the first ones have been touched. */
static void **places;

static void **
places_of(const bench_thread *self)
{
    return places + (size_t)self->number * MOST_BLOCKS;
}

static int
map_places(void)
{
    if (places != NULL) {
        return 0;
    }
    size_t bytes = sizeof(void *) * MOST_BLOCKS * BENCH_MAX_THREADS;
    void *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) {
        return errno;
    }
    places = mapped;
    for (size_t i = 0; i < (size_t)MOST_BLOCKS * TOUCHED_THREADS; i++) {
        *(void *volatile *)&places[i] = NULL;
    }
    return 0;
}

/* The first block of a process costs what the second does not; it is no part of what is measured. */
static int
set_table_up(void)
{
    pyrt_bench_table = &members_used;
    int error = map_places();
    table_free(table_alloc(FIXED));
    return error;
}

static int
set_process_up(void)
{
    int error = map_places();
    void *block = process_alloc(FIXED);
    __asm__ volatile("" : : "r"(block) : "memory");
    process_free(block);
    return error;
}

/* ---- sizes ------------------------------------------------------------------------------------------------------- */

static inline uint64_t
next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

#define SEED UINT64_C(88172645463325252)

/* From least to most, both included. */
static inline size_t
random_size(uint64_t *state, size_t least, size_t most)
{
    return least + (size_t)((next_random(state) >> 32) * (most - least + 1) >> 32);
}

/* A block, written to; NULL has been noted. */
BENCH_INLINED void *
take(bench_thread *self, alloc_call *alloc, size_t size)
{
    void *block = alloc(size);
    if (pyrt_unlikely(block == NULL)) {
        self->error = ENOMEM;
        return NULL;
    }
    *(volatile uint64_t *)block = size;
    return block;
}

/* ---- a block at a time, and many at a time, freed in the same order or the other one -------------------------------- */

/* A body that says what it is to do with which blocks. */
typedef struct batch_body {
    bench_body body;
    size_t count;
    size_t least, most; /* bytes */
    bool last_first;
} batch_body;

static inline const batch_body *
batch_of(const bench_thread *self)
{
    return (const batch_body *)(const void *)self->crew->body;
}

BENCH_INLINED void
pairs(bench_thread *self, alloc_call *alloc, free_call *give)
{
    uint64_t iterations = self->iterations;
    size_t size = batch_of(self)->most;
    for (uint64_t i = 0; i < iterations; i++) {
        give(take(self, alloc, size));
    }
}

BENCH_INLINED void
run_batch(bench_thread *self, size_t count, uint64_t *state, alloc_call *alloc, free_call *give)
{
    const batch_body batch = *batch_of(self);
    void **blocks = places_of(self);
    for (size_t i = 0; i < count; i++) {
        blocks[i] = take(self, alloc, batch.least == batch.most ? batch.most : random_size(state, batch.least, batch.most));
    }
    if (batch.last_first) {
        for (size_t i = count; i > 0; i--) {
            give(blocks[i - 1]);
        }
        return;
    }
    for (size_t i = 0; i < count; i++) {
        give(blocks[i]);
    }
}

/* The first batch, untimed, is the one for which the system has to find memory. */
BENCH_INLINED int
enter_batches(bench_thread *self, alloc_call *alloc, free_call *give)
{
    uint64_t state = SEED;
    run_batch(self, batch_of(self)->count, &state, alloc, give);
    return self->error;
}

BENCH_INLINED void
batches(bench_thread *self, alloc_call *alloc, free_call *give)
{
    uint64_t state = SEED;
    size_t most = batch_of(self)->count;
    for (uint64_t left = self->iterations; left != 0;) {
        size_t count = left < most ? (size_t)left : most;
        run_batch(self, count, &state, alloc, give);
        left -= count;
    }
}

/* ---- 100 000 blocks of all sizes, of which any one is replaced ----------------------------------------------------- */

BENCH_INLINED int
enter_churn(bench_thread *self, alloc_call *alloc)
{
    uint64_t state = SEED + (uint64_t)self->number;
    for (size_t i = 0; i < MOST_BLOCKS; i++) {
        places_of(self)[i] = take(self, alloc, random_size(&state, 1 + sizeof(uint64_t), CHURN_MOST));
    }
    return self->error;
}

BENCH_INLINED void
churn(bench_thread *self, alloc_call *alloc, free_call *give)
{
    uint64_t state = SEED * 3 + (uint64_t)self->number;
    void **blocks = places_of(self);
    uint64_t iterations = self->iterations;
    for (uint64_t i = 0; i < iterations; i++) {
        size_t at = random_size(&state, 0, MOST_BLOCKS - 1);
        give(blocks[at]);
        blocks[at] = take(self, alloc, random_size(&state, 1 + sizeof(uint64_t), CHURN_MOST));
    }
}

BENCH_INLINED void
leave_churn(bench_thread *self, free_call *give)
{
    for (size_t i = 0; i < MOST_BLOCKS; i++) {
        give(places_of(self)[i]);
    }
}

/* ---- one thread allocates, the other frees ------------------------------------------------------------------------ */

static bench_ring ring;

static int
enter_ring(bench_thread *self)
{
    return bench_enter_ring(self, &ring);
}

BENCH_INLINED void
produce_or_consume(bench_thread *self, alloc_call *alloc, free_call *give)
{
    uint64_t iterations = self->iterations;
    uint64_t state = SEED;
    for (uint64_t i = 0; i < iterations; i++) {
        if (self->number == 0) {
            void *block = take(self, alloc, random_size(&state, MIXED_LEAST, MIXED_MOST));
            bench_ring_put(&ring, i, block);
        }
        else {
            give(bench_ring_take(&ring, i));
        }
    }
}

/* ---- threads that end and leave their blocks ----------------------------------------------------------------------- */

typedef struct generation {
    bench_thread *self;
    void **blocks;
    size_t count;
    uint64_t seed;
} generation;

BENCH_INLINED void *
fill_generation(generation *mine, alloc_call *alloc)
{
    for (size_t i = 0; i < mine->count; i++) {
        mine->blocks[i] = take(mine->self, alloc, random_size(&mine->seed, MIXED_LEAST, MIXED_MOST));
    }
    return NULL;
}

/* Each thread allocates and ends; the one that starts them frees what the thread before the last few has left. */
BENCH_INLINED void
generations(bench_thread *self, void *(*fill)(void *), free_call *give)
{
    size_t counts[GENERATIONS] = {0};
    uint64_t left = self->iterations;
    for (uint64_t i = 0; left != 0 || i % GENERATIONS != 0; i++) {
        size_t place = i % GENERATIONS;
        generation next = {.self = self, .blocks = places_of(self) + place * OF_A_THREAD, .seed = SEED + i};
        for (size_t j = 0; j < counts[place]; j++) {
            give(next.blocks[j]);
        }
        next.count = counts[place] = left < OF_A_THREAD ? (size_t)left : OF_A_THREAD;
        left -= next.count;
        pthread_t thread;
        if (next.count != 0) {
            int error = pthread_create(&thread, NULL, fill, &next);
            if (error != 0) {
                self->error = error;
                return;
            }
            pthread_join(thread, NULL);
        }
    }
    for (size_t place = 0; place < GENERATIONS; place++) {
        for (size_t j = 0; j < counts[place]; j++) {
            give(places_of(self)[place * OF_A_THREAD + j]);
        }
    }
}

/* ---- whose an address is ------------------------------------------------------------------------------------------- */

static const void *addresses[ADDRESSES];
static void *own_blocks[ADDRESSES / 2];

/* Half of them inside blocks of ours, half anywhere else, in no order. */
static int
gather_addresses(void)
{
    int error = set_table_up();
    uint64_t state = SEED;
    for (size_t i = 0; i < ADDRESSES / 2 && error == 0; i++) {
        size_t size = random_size(&state, 1, OWN_BLOCK_MOST);
        own_blocks[i] = table_alloc(size);
        error = own_blocks[i] == NULL ? ENOMEM : 0;
        addresses[2 * i] = (char *)own_blocks[i] + random_size(&state, 0, size - 1);
        const void *elsewhere[] = {&state, &addresses[i], (const char *)(uintptr_t)(next_random(&state) >> 17), NULL};
        addresses[2 * i + 1] = elsewhere[i % 4];
    }
    for (size_t i = ADDRESSES - 1; i > 0; i--) {
        size_t other = random_size(&state, 0, i);
        const void *kept = addresses[i];
        addresses[i] = addresses[other];
        addresses[other] = kept;
    }
    return error;
}

static void
forget_addresses(void)
{
    for (size_t i = 0; i < ADDRESSES / 2; i++) {
        table_free(own_blocks[i]);
        own_blocks[i] = NULL;
    }
}

static void
owner_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    uint64_t ours = 0;
    for (uint64_t i = 0; i < iterations; i++) {
        ours += pyrt_bench_table->address_owner(addresses[i % ADDRESSES]) != PYRT_OWNER_NONE;
    }
    if (iterations % ADDRESSES == 0 && ours != iterations / 2) {
        self->error = EPROTO;
    }
}

/* ---- the table ----------------------------------------------------------------------------------------------------- */

/* The loops for one way in. */
#define DEFINE_WAY(way)                                       \
    static void way##_pairs(bench_thread *self)               \
    {                                                         \
        pairs(self, way##_alloc, way##_free);                 \
    }                                                         \
    static int way##_enter_batches(bench_thread *self)        \
    {                                                         \
        return enter_batches(self, way##_alloc, way##_free);  \
    }                                                         \
    static void way##_batches(bench_thread *self)             \
    {                                                         \
        batches(self, way##_alloc, way##_free);               \
    }                                                         \
    static int way##_enter_churn(bench_thread *self)          \
    {                                                         \
        return enter_churn(self, way##_alloc);                \
    }                                                         \
    static void way##_churn(bench_thread *self)               \
    {                                                         \
        churn(self, way##_alloc, way##_free);                 \
    }                                                         \
    static void way##_leave_churn(bench_thread *self)         \
    {                                                         \
        leave_churn(self, way##_free);                        \
    }                                                         \
    static void way##_produce_or_consume(bench_thread *self)  \
    {                                                         \
        produce_or_consume(self, way##_alloc, way##_free);    \
    }                                                         \
    static void *way##_fill_generation(void *arg)             \
    {                                                         \
        return fill_generation(arg, way##_alloc);             \
    }                                                         \
    static void way##_generations(bench_thread *self)         \
    {                                                         \
        generations(self, way##_fill_generation, way##_free); \
    }

DEFINE_WAY(table)
DEFINE_WAY(process)

#define PAIRS(way, size) &(const batch_body){.body = {.loop = way##_pairs}, .most = size}.body
#define BATCHES(way, n, least_size, most_size, order)                                  \
    &(const batch_body){.body = {.enter = way##_enter_batches, .loop = way##_batches}, \
                        .count = n,                                                    \
                        .least = least_size,                                           \
                        .most = most_size,                                             \
                        .last_first = order}                                           \
         .body
#define CHURN(way, _) &(const bench_body){.enter = way##_enter_churn, .loop = way##_churn, .leave = way##_leave_churn}
#define RING_OF(way, _) &(const bench_body){.enter = enter_ring, .loop = way##_produce_or_consume}
#define THREAD_DEATH(way, _) &(const bench_body){.loop = way##_generations}

/* The entries of a benchmark, for both ways in. */
#define BOTH(name, make_body, ...)                                                          \
    {.bench = "heap." name,                                                                 \
     .impl = "pyruntime",                                                                   \
     .setup = set_table_up,                                                                 \
     .run = bench_run,                                                                      \
     .body = make_body(table, __VA_ARGS__)},                                                \
    {                                                                                       \
        .bench = "heap." name, .impl = "malloc", .setup = set_process_up, .run = bench_run, \
        .body = make_body(process, __VA_ARGS__)                                             \
    }

static const bench_body owner_body = {.loop = owner_loop};

static const pyrt_bench_loop loops[] = {
    BOTH("pair_16", PAIRS, 16),
    BOTH("pair_64", PAIRS, 64),
    BOTH("pair_512", PAIRS, 512),
    BOTH("lifo_10", BATCHES, 10, FIXED, FIXED, true),
    BOTH("lifo_1000", BATCHES, 1000, FIXED, FIXED, true),
    BOTH("lifo_100000", BATCHES, 100000, FIXED, FIXED, true),
    BOTH("fifo_10", BATCHES, 10, FIXED, FIXED, false),
    BOTH("fifo_1000", BATCHES, 1000, FIXED, FIXED, false),
    BOTH("fifo_100000", BATCHES, 100000, FIXED, FIXED, false),
    BOTH("lifo_mixed_10", BATCHES, 10, MIXED_LEAST, MIXED_MOST, true),
    BOTH("lifo_mixed_1000", BATCHES, 1000, MIXED_LEAST, MIXED_MOST, true),
    BOTH("lifo_mixed_100000", BATCHES, 100000, MIXED_LEAST, MIXED_MOST, true),
    BOTH("fifo_mixed_10", BATCHES, 10, MIXED_LEAST, MIXED_MOST, false),
    BOTH("fifo_mixed_1000", BATCHES, 1000, MIXED_LEAST, MIXED_MOST, false),
    BOTH("fifo_mixed_100000", BATCHES, 100000, MIXED_LEAST, MIXED_MOST, false),
    BOTH("churn", CHURN, 0),
    BOTH("producer_consumer", RING_OF, 0),
    BOTH("thread_death", THREAD_DEATH, 0),
    {.bench = "heap.address_owner",
     .impl = "pyruntime",
     .setup = gather_addresses,
     .run = bench_run,
     .teardown = forget_addresses,
     .body = &owner_body},
};

const pyrt_bench_group pyrt_bench_heap_group = PYRT_BENCH_GROUP(loops);
