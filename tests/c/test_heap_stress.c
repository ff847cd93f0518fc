/* test_heap_stress.c -- threads that are born and die, allocate from the process and from heaps of two interpreters, free each
 * other's blocks, and stop the world to count: every block keeps its bytes, every count comes out exact.
 *
 * A block says at its start how large it is, which byte fills it and whose it is. Blocks change hands through a table of
 * slots, by exchange. --break forget loses one block: the last count must find it.
 */
#include "support.h"

#include "workers.h"

#include <stdlib.h>
#include <string.h>

enum { SLOTS = 1024, MINE = 128, STEPS = 4000, CROWD = 4, GENERATIONS = 6, SOURCES = 5 };

typedef struct header {
    uint32_t size;
    uint8_t fill;
    uint8_t source; /* 0: the process; 1, 2: heaps of a; 3, 4: heaps of b */
} header;

static struct {
    pyrt_interp *interps[2];
    pyrt_heap *heaps[SOURCES];
    void *slots[SLOTS]; /* atomic: exchanged, seq_cst: who gets a block sees its bytes */
    long live[SOURCES]; /* atomic: counts that are compared when all have come together */
    int generation;
} world;

static pyrt_interp *
interp_of(int source)
{
    return world.interps[(source - 1) / 2];
}

static void
check_and_free(void *block)
{
    header h;
    memcpy(&h, block, sizeof(h));
    CHECK(h.source < SOURCES && h.size >= sizeof(h));
    CHECK(pyrt_usable_size(block) >= h.size);
    CHECK_INT(pyrt_address_owner(block), h.source == 0 ? PYRT_OWNER_PROCESS : pyrt_interp_id(interp_of(h.source)));
    /* Of large ones not every byte. */
    for (size_t i = sizeof(h); i < h.size; i += 1 + i / 512) {
        CHECK(((unsigned char *)block)[i] == h.fill);
    }
    pyrt_fetch_add_relaxed(&world.live[h.source], -1L);
    pyrt_free(block);
}

static size_t
random_size(random_stream *random)
{
    uint32_t kind = random_below(random, 200);
    uint32_t most = kind == 0 ? 2500000 : kind < 4 ? 200000 : kind < 20 ? 10000 : 600;
    return sizeof(header) + random_below(random, most);
}

static void *
allocate(random_stream *random, pyrt_thread *threads[2])
{
    int source = (int)random_below(random, SOURCES);
    size_t size = random_size(random);
    bool zero = random_below(random, 4) == 0;
    unsigned char *block;
    if (source == 0) {
        size_t align = (size_t)1 << random_below(random, 13);
        block = zero                           ? pyrt_calloc(1, size)
                : random_below(random, 3) == 0 ? pyrt_aligned_alloc(align, size)
                                               : pyrt_malloc(size);
    }
    else {
        pyrt_thread *thread = threads[(source - 1) / 2];
        pyrt_attach(thread);
        pyrt_heap *heap = world.heaps[source];
        block = zero ? pyrt_heap_calloc(thread, heap, 1, size) : pyrt_heap_malloc(thread, heap, size);
        pyrt_safepoint(thread);
        pyrt_detach(thread);
    }
    CHECK(block != NULL);
    for (size_t i = 0; zero && i < size; i += 1 + i / 512) {
        CHECK(block[i] == 0);
    }
    header h = {(uint32_t)size, (uint8_t)random_next(random), (uint8_t)source};
    memset(block, h.fill, size);
    memcpy(block, &h, sizeof(h));
    pyrt_fetch_add_relaxed(&world.live[source], 1L);
    return block;
}

/* With both worlds stopped nobody allocates from heaps, but everybody may free: so there are at least as many as are counted
 * afterwards and at most as many as were before. */
static bool
count_block(void *block, size_t size, uint8_t tag, void *arg)
{
    (void)block, (void)size;
    ((long *)arg)[tag]++;
    return true;
}

static void
count_in_a_pause(int which)
{
    long counts[32] = {0};
    if (pyrt_stop_the_world(world.interps[which]) == PYRT_OK) {
        CHECK_OK(pyrt_heap_visit(world.interps[which], UINT32_MAX, count_block, counts));
        pyrt_start_the_world(world.interps[which]);
    }
}

static void
one_life(void *arg, int number)
{
    (void)arg;
    random_stream random = random_for((uint64_t)(world.generation * CROWD + number));
    pyrt_thread *threads[2] = {pyrt_thread_new(world.interps[0]), pyrt_thread_new(world.interps[1])};
    CHECK(threads[0] != NULL && threads[1] != NULL);
    void *mine[MINE] = {0};
    for (int step = 0; step < STEPS; step++) {
        uint32_t at = random_below(&random, MINE);
        if (mine[at] == NULL) {
            mine[at] = allocate(&random, threads);
            continue;
        }
        uint32_t choice = random_below(&random, 1000);
        if (choice == 0) {
            count_in_a_pause((int)random_below(&random, 2));
        }
        if (choice == 1) {
            /* What it gives back is the other threads', the living and the dead. */
            CHECK_OK(pyrt_qsbr_barrier(threads[random_below(&random, 2)]));
        }
        void *block = mine[at];
        mine[at] = NULL;
        if (choice < 500) {
            block = pyrt_exchange_seq_cst(&world.slots[random_below(&random, SLOTS)], block);
        }
        pyrt_thread *home = threads[random_below(&random, 2)];
        bool attached = random_below(&random, 2) == 0;
        if (attached) {
            pyrt_attach(home);
        }
        if (block != NULL) {
            check_and_free(block);
        }
        if (attached) {
            pyrt_detach(home);
        }
    }
    for (int i = 0; i < MINE; i++) {
        void *block = mine[i] == NULL ? NULL : pyrt_exchange_seq_cst(&world.slots[random_below(&random, SLOTS)], mine[i]);
        if (block != NULL) {
            check_and_free(block);
        }
    }
    pyrt_thread_delete(threads[0]);
    pyrt_thread_delete(threads[1]);
}

static void
check_counts(void)
{
    for (int which = 0; which < 2; which++) {
        long counts[32] = {0};
        CHECK_OK(pyrt_stop_the_world(world.interps[which]));
        CHECK_OK(pyrt_heap_visit(world.interps[which], UINT32_MAX, count_block, counts));
        pyrt_start_the_world(world.interps[which]);
        for (int source = 1 + 2 * which; source < 3 + 2 * which; source++) {
            CHECK_INT(counts[source], pyrt_load_relaxed(&world.live[source]));
        }
    }
}

static void
stress(void)
{
    runtime_up();
    memset(&world, 0, sizeof(world));
    for (int i = 0; i < 2; i++) {
        world.interps[i] = pyrt_interp_new(NULL);
    }
    for (int source = 1; source < SOURCES; source++) {
        world.heaps[source] = pyrt_heap_new(interp_of(source), &(pyrt_heap_config){.struct_size = sizeof(pyrt_heap_config),
                                                                                   .tag = (uint8_t)source,
                                                                                   .type_stable = source % 2 == 0});
        CHECK(world.heaps[source] != NULL);
    }
    for (unsigned i = 0; i < GENERATIONS * test_scale(); i++) {
        world.generation = (int)i;
        run_crowd(CROWD, one_life, NULL);
        check_counts();
    }
    for (int i = 0; i < SLOTS; i++) {
        void *block = pyrt_exchange_seq_cst(&world.slots[i], (void *)NULL);
        if (block != NULL) {
            check_and_free(block);
        }
    }
    if (test_sabotage() != NULL && strcmp(test_sabotage(), "forget") == 0) {
        pyrt_thread *thread = pyrt_thread_ensure(world.interps[0]);
        CHECK(pyrt_heap_malloc(thread, world.heaps[1], 100) != NULL);
        pyrt_thread_release(thread);
    }
    check_counts();
    for (int source = 0; source < SOURCES; source++) {
        CHECK_INT(pyrt_load_relaxed(&world.live[source]), 0);
    }
    CHECK_OK(pyrt_interp_delete(world.interps[0]));
    CHECK_OK(pyrt_interp_delete(world.interps[1]));
    runtime_down();
}

TEST(every_block_keeps_its_bytes_and_every_count_is_exact)
{
    stress();
}

TEST(so_it_is_when_pages_are_watched)
{
    CHECK_OK(pyrt_heap_debug(PYRT_HEAP_DEBUG_CHECK | PYRT_HEAP_DEBUG_FILL));
    stress();
    CHECK_OK(pyrt_heap_debug(0));
}

TEST(so_it_is_when_freed_blocks_are_poisoned)
{
    if (pyrt_heap_debug(PYRT_HEAP_DEBUG_POISON) == PYRT_OK) {
        stress();
        CHECK_OK(pyrt_heap_debug(0));
    }
}
