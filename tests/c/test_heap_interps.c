/* test_heap_interps.c -- the memory of interpreters: of their own or shared, and what is left of it at their end. */
#include "support.h"

#include "heaps.h"
#include "memory/heap_impl.h"
#include "platform/meta_alloc.h"
#include "platform/poison.h"
#include "workers.h"

#include <stdio.h>
#include <string.h>

static pyrt_memory_stats
stats_of(pyrt_interp *interp)
{
    pyrt_memory_stats stats = {.struct_size = sizeof(stats)};
    pyrt_interp_memory_stats(interp, &stats);
    return stats;
}

static pyrt_interp *
new_interp(int use_main_allocator, int free_leaked_blocks)
{
    pyrt_interp *interp = pyrt_interp_new(&(pyrt_interp_config){.struct_size = sizeof(pyrt_interp_config),
                                                                .use_main_allocator = use_main_allocator,
                                                                .free_leaked_blocks = free_leaked_blocks});
    CHECK(interp != NULL);
    return interp;
}

/* ---- whose room -------------------------------------------------------------------------------------------------- */

/* The segment of 4 MiB that a block lies in: which of its slices are whose. */
static int
slices_of(const void *block, int64_t owner)
{
    const char *start = (const char *)((uintptr_t)block & ~(uintptr_t)(PYRT_SEGMENT - 1));
    int count = 0;
    for (size_t at = 0; at < PYRT_SEGMENT; at += PYRT_SLICE) {
        count += pyrt_address_owner(start + at) == owner && pyrt_address_owner(start + at + PYRT_SLICE - 1) == owner;
    }
    return count;
}

TEST(an_interpreter_has_room_of_its_own)
{
    runtime_up();
    pyrt_interp *main = pyrt_interp_main();
    pyrt_interp *own = new_interp(0, 0);
    char *mine = block_of(main, new_heap(main, 0, false), 100);
    uint64_t reserved = stats_of(main).reserved_bytes;
    CHECK_UINT(stats_of(own).reserved_bytes, 0);
    pyrt_heap *heap = new_heap(own, 0, false);
    char *theirs = block_of(own, heap, 100);
    CHECK_UINT(stats_of(own).reserved_bytes, PYRT_SEGMENT);
    CHECK_UINT(stats_of(main).reserved_bytes, reserved);
    CHECK_INT(slices_of(theirs, pyrt_interp_id(own)), PYRT_SEGMENT_SLICES);
    CHECK_INT(slices_of(mine, 0), PYRT_SEGMENT_SLICES);
    /* At its end its arenas are freed, and the map forgets them. */
    pyrt_free(theirs);
    CHECK_OK(pyrt_interp_delete(own));
    CHECK_INT(slices_of(theirs, PYRT_OWNER_NONE), PYRT_SEGMENT_SLICES);
    pyrt_free(mine);
    runtime_down();
    CHECK_INT(slices_of(mine, PYRT_OWNER_NONE), PYRT_SEGMENT_SLICES);
}

TEST(or_it_shares_that_of_the_main_one)
{
    runtime_up();
    pyrt_interp *main = pyrt_interp_main();
    pyrt_interp *sharing = new_interp(1, 0);
    char *mine = block_of(main, new_heap(main, 0, false), 100);
    uint64_t reserved = stats_of(main).reserved_bytes;
    CHECK_UINT(stats_of(sharing).reserved_bytes, reserved);
    char *theirs = block_of(sharing, new_heap(sharing, 0, false), 100);
    /* A segment more for its thread, out of arenas that are the main interpreter's; what is in no page is still that one's. */
    CHECK(stats_of(main).reserved_bytes > reserved);
    CHECK_UINT(stats_of(sharing).reserved_bytes, stats_of(main).reserved_bytes);
    CHECK_INT(slices_of(theirs, pyrt_interp_id(sharing)), 1);
    CHECK_INT(slices_of(theirs, 0), PYRT_SEGMENT_SLICES - 1);
    pyrt_free(theirs);
    CHECK_OK(pyrt_interp_delete(sharing));
    CHECK_INT(slices_of(theirs, 0), PYRT_SEGMENT_SLICES);
    pyrt_free(mine);
    runtime_down();
}

/* ---- the end of the runtime, with interpreters that nobody has ended --------------------------------------------- */

static struct {
    pyrt_interp *interp;
    pyrt_heap *heap;
    char *small, *huge, *of_main;
} left;

/* Two interpreters, with the blocks of one, or both, in use. */
static void
leave(int use_main_allocator, int free_leaked_blocks)
{
    runtime_up();
    left.interp = new_interp(use_main_allocator, free_leaked_blocks);
    left.heap = new_heap(left.interp, 3, false);
    left.small = block_of(left.interp, left.heap, 100);
    left.huge = block_of(left.interp, left.heap, 5000000);
    left.of_main = block_of(pyrt_interp_main(), new_heap(pyrt_interp_main(), 4, false), 100);
}

static void
free_what_is_left(void)
{
    CHECK_INT(pyrt_address_owner(left.small), 1);
    CHECK_INT(pyrt_address_owner(left.huge), 1);
    CHECK(left.small[99] == 0x5A && left.huge[4999999] == 0x5A);
    pyrt_free(left.small);
    pyrt_free(left.huge);
}

TEST(the_runtime_ends_with_interpreters_of_either_kind)
{
    for (int shares = 0; shares < 2; shares++) {
        leave(shares, 0);
        pyrt_free(left.of_main);
        pyrt_free(left.small);
        pyrt_free(left.huge);
        runtime_down();
        CHECK_INT(pyrt_address_owner(left.small), PYRT_OWNER_NONE);
    }
}

TEST(what_is_left_is_named_once_and_lives_on)
{
    for (int shares = 0; shares < 2; shares++) {
        leave(shares, 0);
        CHECK_OK(pyrt_runtime_fini());
        EXPECT_REPORT("interpreter 1 ", "2 blocks", "1 of 112 bytes", "1 larger", "2 with tag 3");
        EXPECT_REPORT("interpreter 0 ", "1 block ", "1 of 112 bytes", "1 with tag 4");
        CHECK_UINT(reports_pending(), 0);
        free_what_is_left();
        CHECK(left.of_main[99] == 0x5A);
        pyrt_free(left.of_main);
    }
}

TEST(what_shared_its_memory_keeps_that_of_the_main_one)
{
    leave(1, 0);
    pyrt_free(left.of_main);
    CHECK_OK(pyrt_runtime_fini());
    EXPECT_REPORT("interpreter 1 ", "2 blocks");
    CHECK_UINT(reports_pending(), 0);
    free_what_is_left();
    /* Ended before, and freed by the end: nothing has to stay. */
    leave(1, 0);
    CHECK_OK(pyrt_interp_delete(left.interp));
    EXPECT_REPORT("interpreter 1 ", "2 blocks");
    free_what_is_left();
    pyrt_free(left.of_main);
    CHECK_OK(pyrt_runtime_fini());
    CHECK_INT(pyrt_address_owner(left.small), PYRT_OWNER_NONE);
}

TEST(it_is_freed_all_the_same_if_it_is_to)
{
    for (int shares = 0; shares < 2; shares++) {
        leave(shares, 1);
        pyrt_free(left.of_main);
        runtime_down();
        CHECK_INT(pyrt_address_owner(left.small), PYRT_OWNER_NONE);
        CHECK_INT(pyrt_address_owner(left.huge), PYRT_OWNER_NONE);
    }
}

TEST(every_size_and_every_tag_that_is_left_is_counted)
{
    enum { TAGS = 32 };
    runtime_up();
    pyrt_interp *interp = new_interp(0, 0);
    static char *blocks[PYRT_CLASS_LARGE];
    for (unsigned class = 0; class < PYRT_CLASS_LARGE; class++) {
        blocks[class] = block_of(interp, new_heap(interp, (uint8_t)(class % TAGS), false), pyrt_class_size(class));
    }
    CHECK_OK(pyrt_interp_delete(interp));
    EXPECT_REPORT("interpreter 1 ", "45 blocks", "1 of 8 bytes", "1 of 16 bytes");
    EXPECT_REPORT("interpreter 1 ", "besides", "1 of 16384 bytes");
    EXPECT_REPORT("interpreter 1 ", "besides", "1 of 65536 bytes", "2 with tag 0");
    EXPECT_REPORT("interpreter 1 ", "besides", "1 with tag 31");
    CHECK_UINT(reports_pending(), 0);
    for (unsigned class = 0; class < PYRT_CLASS_LARGE; class++) {
        pyrt_free(blocks[class]);
    }
    runtime_down();
}

/* ---- thousands of them ------------------------------------------------------------------------------------------- */

static size_t
resident_pages(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    size_t size = 0;
    size_t resident = 0;
    CHECK(file != NULL && fscanf(file, "%zu %zu", &size, &resident) == 2);
    fclose(file);
    return resident;
}

/* What one lives: several threads with two heaps, small, large and huge blocks, some freed by others, some left to the pool. */
static struct {
    pyrt_interp *interp;
    pyrt_heap *heaps[2];
    char *blocks[60];
} life;

static void
allocate_of_a_life(void *unused)
{
    (void)unused;
    pyrt_thread *thread = pyrt_thread_ensure(life.interp);
    for (int i = 0; i < 60; i++) {
        size_t size = i == 7 ? 3000000 : i == 8 ? 200000 : (size_t)i * 40 + 1;
        life.blocks[i] = pyrt_heap_malloc(thread, life.heaps[i % 2], size);
        CHECK(life.blocks[i] != NULL);
        memset(life.blocks[i], i, size < 5000 ? size : 5000);
    }
    pyrt_thread_release(thread);
}

static void
live_once(worker *other, int number)
{
    life.interp = new_interp(number % 2, number % 3 == 0);
    for (int i = 0; i < 2; i++) {
        life.heaps[i] = new_heap(life.interp, (uint8_t)i, i == 1);
    }
    worker_do(other, allocate_of_a_life, NULL);
    /* One in three leaves everything, and has it freed with it. */
    if (number % 3 == 1) {
        for (int i = 0; i < 60; i++) {
            pyrt_free(life.blocks[i]);
        }
    }
    else if (number % 3 == 2) {
        pyrt_heap_destroy(life.heaps[0]);
        pyrt_heap_destroy(life.heaps[1]);
    }
    CHECK_OK(pyrt_interp_delete(life.interp));
}

TEST(thousands_of_interpreters_come_and_go_in_flat_memory)
{
    enum { WARM = 300, LIVES = 3000, A_LITTLE = 128 };
    runtime_up();
    worker other;
    worker_start(&other);
    for (int i = 0; i < WARM; i++) {
        live_once(&other, i);
    }
    size_t mapped = mapped_beside_the_map();
    size_t live = pyrt_meta_live_bytes();
    size_t resident = resident_pages();
    size_t most = 0;
    for (int i = WARM; i < WARM + LIVES; i++) {
        live_once(&other, i);
        if (i % 100 == 0) {
            size_t now = resident_pages();
            most = now > most ? now : most;
        }
    }
    CHECK_UINT(mapped_beside_the_map(), mapped);
    CHECK_UINT(pyrt_meta_live_bytes(), live);
    /* Each had touched more than fifty pages. What the C library adds on the way is a little; what AddressSanitizer adds is not: it
     * moves the variables of every call to memory of its own, which goes round and is touched little by little. */
    CHECK(pyrt_can_poison() || most <= resident + A_LITTLE);
    worker_end(&other);
    runtime_down();
}
