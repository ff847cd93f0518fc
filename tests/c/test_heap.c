/* test_heap.c -- heaps of interpreters (heap.h): abandonment and adoption, isolation, type-stable memory, visiting, the end of
 * heaps and interpreters, misuse, no memory. */
#include "support.h"

#include "faults.h"
#include "memory/heap_impl.h"
#include "memory/watched_page.h"
#include "steps.h"
#include "workers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static pyrt_memory_stats
stats_of(pyrt_interp *interp)
{
    pyrt_memory_stats stats = {.struct_size = sizeof(stats)};
    pyrt_interp_memory_stats(interp, &stats);
    return stats;
}

static pyrt_heap *
heap_with_tag(pyrt_interp *interp, uint8_t tag, bool type_stable)
{
    pyrt_heap *heap = pyrt_heap_new(
        interp, &(pyrt_heap_config){.struct_size = sizeof(pyrt_heap_config), .tag = tag, .type_stable = type_stable});
    CHECK(heap != NULL);
    return heap;
}

static bool
count_block(void *block, size_t size, uint8_t tag, void *arg)
{
    CHECK(block != NULL && size != 0);
    ((size_t *)arg)[tag]++;
    return true;
}

/* Blocks in use by tag, looked at in a pause. */
static void
count_blocks(pyrt_interp *interp, unsigned tags, size_t counts[32])
{
    memset(counts, 0, 32 * sizeof(counts[0]));
    CHECK_OK(pyrt_stop_the_world(interp));
    CHECK_OK(pyrt_heap_visit(interp, tags, count_block, counts));
    pyrt_start_the_world(interp);
}

static size_t
blocks_in_use(pyrt_interp *interp, uint8_t tag)
{
    size_t counts[32];
    count_blocks(interp, 1u << tag, counts);
    return counts[tag];
}

/* ---- a thread that allocates ------------------------------------------------------------------------------------- */

enum { MANY = 3000 };

typedef struct batch {
    pyrt_interp *interp;
    pyrt_heap *heap;
    size_t size;
    void *blocks[MANY];
} batch;

static void
allocate_batch(void *arg)
{
    batch *b = arg;
    pyrt_thread *thread = pyrt_thread_ensure(b->interp);
    for (int i = 0; i < MANY; i++) {
        b->blocks[i] = pyrt_heap_malloc(thread, b->heap, b->size);
        CHECK(b->blocks[i] != NULL);
        memset(b->blocks[i], 0x5A, b->size);
    }
    pyrt_thread_release(thread);
}

static void
in_a_thread_that_ends(void (*step)(void *), void *arg)
{
    worker other;
    worker_start(&other);
    worker_do(&other, step, arg);
    worker_end(&other);
}

static void
free_batch(batch *b)
{
    for (int i = 0; i < MANY; i++) {
        pyrt_free(b->blocks[i]);
    }
}

static batch one, two;

TEST(what_a_dead_thread_leaves_goes_to_its_interpreter_and_to_no_other)
{
    runtime_up();
    pyrt_interp *a = pyrt_interp_new(NULL);
    pyrt_interp *b = pyrt_interp_new(NULL);
    one = (batch){.interp = a, .heap = heap_with_tag(a, 1, false), .size = 200};
    two = (batch){.interp = b, .heap = heap_with_tag(b, 2, false), .size = 200};
    in_a_thread_that_ends(allocate_batch, &one);
    in_a_thread_that_ends(allocate_batch, &two);
    CHECK(stats_of(a).abandoned_segments > 0);
    CHECK(stats_of(b).abandoned_segments > 0);
    CHECK_INT(pyrt_address_owner(one.blocks[7]), pyrt_interp_id(a));
    CHECK_INT(pyrt_address_owner(two.blocks[7]), pyrt_interp_id(b));

    uint64_t left_in_b = stats_of(b).abandoned_segments;
    pyrt_thread *thread = pyrt_thread_ensure(a);
    void *more[200];
    for (int i = 0; i < 200; i++) {
        more[i] = pyrt_heap_malloc(thread, one.heap, 3000);
        CHECK_INT(pyrt_address_owner(more[i]), pyrt_interp_id(a));
    }
    CHECK(stats_of(a).adopted_segments > 0);
    CHECK_INT(stats_of(a).abandoned_segments, 0);
    CHECK_UINT(stats_of(b).abandoned_segments, left_in_b);
    CHECK_UINT(blocks_in_use(a, 1), MANY + 200);
    for (int i = 0; i < 200; i++) {
        pyrt_free(more[i]);
    }
    free_batch(&one);
    free_batch(&two);
    CHECK_UINT(blocks_in_use(a, 1), 0);
    pyrt_thread_release(thread);
    CHECK_OK(pyrt_interp_delete(a));
    CHECK_OK(pyrt_interp_delete(b));
    runtime_down();
}

TEST(who_frees_a_block_of_a_dead_thread_takes_over_what_it_left_if_he_may_allocate_there)
{
    runtime_up();
    pyrt_interp *a = pyrt_interp_new(NULL);
    one = (batch){.interp = a, .heap = heap_with_tag(a, 1, false), .size = 200};
    in_a_thread_that_ends(allocate_batch, &one);
    uint64_t left = stats_of(a).abandoned_segments;
    CHECK(left > 0);
    /* Not attached, or to another interpreter. */
    pyrt_free(one.blocks[0]);
    pyrt_thread *elsewhere = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_free(one.blocks[1]);
    pyrt_thread_release(elsewhere);
    CHECK_UINT(stats_of(a).abandoned_segments, left);
    CHECK_UINT(blocks_in_use(a, 1), MANY - 2);
    pyrt_thread *thread = pyrt_thread_ensure(a);
    pyrt_free(one.blocks[2]);
    CHECK_UINT(stats_of(a).abandoned_segments, left - 1);
    CHECK_UINT(stats_of(a).adopted_segments, 1);
    CHECK_UINT(blocks_in_use(a, 1), MANY - 3);
    for (int i = 3; i < MANY; i++) {
        pyrt_free(one.blocks[i]);
    }
    CHECK_UINT(blocks_in_use(a, 1), 0);
    CHECK_UINT(stats_of(a).abandoned_segments, 0);
    pyrt_thread_release(thread);
    CHECK_OK(pyrt_interp_delete(a));
    runtime_down();
}

TEST(interpreters_that_share_an_allocator_keep_their_pools)
{
    runtime_up();
    pyrt_interp *main = pyrt_interp_main();
    pyrt_interp *a =
        pyrt_interp_new(&(pyrt_interp_config){.struct_size = sizeof(pyrt_interp_config), .use_main_allocator = 1});
    one = (batch){.interp = a, .heap = heap_with_tag(a, 1, false), .size = 100};
    two = (batch){.interp = main, .heap = heap_with_tag(main, 2, false), .size = 100};
    in_a_thread_that_ends(allocate_batch, &one);
    in_a_thread_that_ends(allocate_batch, &two);
    CHECK_UINT(stats_of(a).reserved_bytes, stats_of(main).reserved_bytes);
    CHECK_INT(pyrt_address_owner(one.blocks[0]), pyrt_interp_id(a));
    CHECK_INT(pyrt_address_owner(two.blocks[0]), pyrt_interp_id(main));
    CHECK_UINT(blocks_in_use(a, 1), MANY);
    CHECK_UINT(blocks_in_use(main, 2), MANY);
    free_batch(&one);
    free_batch(&two);
    CHECK_OK(pyrt_interp_delete(a));
    runtime_down();
}

TEST(an_interpreter_names_what_it_leaves_and_its_blocks_live_on)
{
    runtime_up();
    pyrt_interp *a = pyrt_interp_new(NULL);
    int64_t id = pyrt_interp_id(a);
    one = (batch){.interp = a, .heap = heap_with_tag(a, 9, false), .size = 64};
    in_a_thread_that_ends(allocate_batch, &one);
    CHECK_OK(pyrt_interp_delete(a));
    EXPECT_REPORT("3000 blocks", "of 64 bytes", "with tag 9");
    CHECK_INT(pyrt_address_owner(one.blocks[5]), id);
    CHECK(*(unsigned char *)one.blocks[5] == 0x5A);
    free_batch(&one);
    pyrt_runtime_fini();
}

TEST(an_interpreter_frees_what_is_left_if_it_is_to)
{
    runtime_up();
    pyrt_interp *a =
        pyrt_interp_new(&(pyrt_interp_config){.struct_size = sizeof(pyrt_interp_config), .free_leaked_blocks = 1});
    one = (batch){.interp = a, .heap = heap_with_tag(a, 9, false), .size = 64};
    in_a_thread_that_ends(allocate_batch, &one);
    CHECK_OK(pyrt_interp_delete(a));
    CHECK_INT(pyrt_address_owner(one.blocks[5]), PYRT_OWNER_NONE);
    runtime_down();
}

/* ---- visiting ---------------------------------------------------------------------------------------------------- */

static bool
stop_at_once(void *block, size_t size, uint8_t tag, void *arg)
{
    (void)block, (void)size, (void)tag;
    return ++*(int *)arg < 3;
}

TEST(a_visit_finds_every_block_of_the_tags_wherever_it_is)
{
    runtime_up();
    pyrt_interp *interp = pyrt_interp_main();
    one = (batch){.interp = interp, .heap = heap_with_tag(interp, 1, false), .size = 48};
    two = (batch){.interp = interp, .heap = heap_with_tag(interp, 31, true), .size = 500};
    in_a_thread_that_ends(allocate_batch, &one);
    allocate_batch(&two);
    pyrt_thread *thread = pyrt_thread_ensure(interp);
    void *large = pyrt_heap_malloc(thread, one.heap, 100000);
    void *huge = pyrt_heap_malloc(thread, one.heap, 5000000);
    void *aligned = pyrt_heap_aligned_alloc(thread, two.heap, 4096, 100);
    CHECK((uintptr_t)aligned % 4096 == 0);
    size_t counts[32];
    count_blocks(interp, UINT32_MAX, counts);
    CHECK_UINT(counts[1], MANY + 2);
    CHECK_UINT(counts[31], MANY + 1);
    count_blocks(interp, 1u << 31, counts);
    CHECK_UINT(counts[1], 0);
    CHECK_UINT(counts[31], MANY + 1);

    int seen = 0;
    CHECK_OK(pyrt_stop_the_world(NULL));
    CHECK_STATUS(pyrt_heap_visit(interp, UINT32_MAX, stop_at_once, &seen), PYRT_EINTR);
    pyrt_start_the_world(NULL);
    CHECK_INT(seen, 3);
    CHECK_STATUS(pyrt_heap_visit(interp, 1, count_block, counts), PYRT_ESTATE);
    EXPECT_REPORT("pyrt_heap_visit", "has not stopped");
    CHECK_STATUS(pyrt_heap_visit(NULL, 1, count_block, counts), PYRT_EINVAL);

    pyrt_free(large);
    pyrt_free(huge);
    pyrt_free(aligned);
    free_batch(&one);
    free_batch(&two);
    count_blocks(interp, UINT32_MAX, counts);
    CHECK_UINT(counts[1] + counts[31], 0);
    pyrt_thread_release(thread);
    runtime_down();
}

/* ---- type-stable memory ------------------------------------------------------------------------------------------ */

TEST(the_prefix_of_a_freed_block_stays)
{
    runtime_up();
    pyrt_interp *interp = pyrt_interp_main();
    pyrt_heap *heap = heap_with_tag(interp, 0, true);
    pyrt_thread *thread = pyrt_thread_ensure(interp);
    for (size_t size = 1; size <= 3000; size = size * 2 + 3) {
        unsigned char *block = pyrt_heap_malloc(thread, heap, size);
        CHECK(pyrt_usable_size(block) >= 40);
        memset(block, 0xC3, 32);
        pyrt_free(block);
        for (int i = 0; i < 32; i++) {
            CHECK(block[i] == 0xC3);
        }
        unsigned char *again = pyrt_heap_calloc(thread, heap, 1, size);
        for (size_t i = 0; i < size; i++) {
            CHECK(again[i] == 0);
        }
        pyrt_free(again);
    }
    pyrt_thread_release(thread);
    runtime_down();
}

TEST(an_empty_page_waits_for_readers_but_serves_its_own_size)
{
    runtime_up();
    pyrt_interp *interp = pyrt_interp_main();
    pyrt_heap *heap = heap_with_tag(interp, 0, true);
    pyrt_thread *reader = pyrt_thread_ensure(interp); /* attached, and not quiescent from here on */
    one = (batch){.interp = interp, .heap = heap, .size = 4000};
    for (int i = 0; i < 200; i++) {
        one.blocks[i] = pyrt_heap_malloc(reader, heap, 4000);
    }
    for (int i = 0; i < 200; i++) {
        pyrt_free(one.blocks[i]);
    }
    uint64_t held = stats_of(interp).held_bytes;
    CHECK(held > 0);
    CHECK(pyrt_address_owner(one.blocks[150]) == pyrt_interp_id(interp));
    /* Another size takes other pages; its own size takes these. */
    void *other = pyrt_heap_malloc(reader, heap, 1000);
    CHECK_UINT(stats_of(interp).held_bytes, held);
    uint64_t pages = stats_of(interp).pages;
    for (int i = 0; i < 200; i++) {
        one.blocks[i] = pyrt_heap_malloc(reader, heap, 4000);
    }
    CHECK_UINT(stats_of(interp).pages, pages);
    for (int i = 0; i < 200; i++) {
        pyrt_free(one.blocks[i]);
    }
    pyrt_free(other);
    CHECK_OK(pyrt_qsbr_synchronize(reader));
    /* Readers have passed: the next page that is wanted finds them. */
    void *more = pyrt_heap_malloc(reader, heap, 60000);
    CHECK(stats_of(interp).held_bytes < held);
    pyrt_free(more);
    pyrt_thread_release(reader);
    runtime_down();
}

/* A page that is full goes back among those to take from when that is worth the way; what is free of it before is taken when there
 * is nothing else. */
TEST(a_full_page_waits_until_more_than_a_sixteenth_of_it_is_free)
{
    enum { SIZE = 1024, OF_A_PAGE = 64, WORTH = OF_A_PAGE / 16, ALL = 3 * OF_A_PAGE };
    runtime_up();
    pyrt_interp *interp = pyrt_interp_main();
    pyrt_heap *heap = heap_with_tag(interp, 0, false);
    pyrt_thread *thread = pyrt_thread_ensure(interp);
    char *blocks[ALL];
    for (int i = 0; i < ALL; i++) {
        blocks[i] = pyrt_heap_malloc(thread, heap, SIZE);
    }
    uint64_t pages = stats_of(interp).pages;
    const pyrt_page *page = pyrt_map_page_of(pyrt_map_entry(blocks[0]));
    CHECK((page->head.flags & PYRT_PAGE_FULL) != 0);
    pyrt_free(blocks[0]);
    CHECK((page->head.flags & PYRT_PAGE_FULL) != 0);
    CHECK_PTR(pyrt_heap_malloc(thread, heap, SIZE), blocks[0]);
    CHECK_UINT(stats_of(interp).pages, pages);
    /* The next one finds nothing anywhere; and then every page but its own is full. */
    char *more = pyrt_heap_malloc(thread, heap, SIZE);
    CHECK_UINT(stats_of(interp).pages, pages + 1);
    for (int i = 0; i <= WORTH; i++) {
        CHECK((page->head.flags & PYRT_PAGE_FULL) != 0);
        pyrt_free(blocks[i]);
    }
    CHECK((page->head.flags & PYRT_PAGE_FULL) == 0);
    pyrt_free(more);
    for (int i = WORTH + 1; i < ALL; i++) {
        pyrt_free(blocks[i]);
    }
    pyrt_heap_delete(heap);
    pyrt_thread_release(thread);
    runtime_down();
}

/* A new page is taken when nothing is usable; so there are never more than if each but the new one lacked that sixteenth. */
TEST(what_full_pages_keep_back_is_a_sixteenth_at_most)
{
    enum { SIZE = 1024, OF_A_PAGE = 64, WORTH = OF_A_PAGE / 16, ALL = 100 * OF_A_PAGE, FEW = 60, TURNS = 1000 };
    static char *blocks[ALL];
    int gaps[FEW];
    runtime_up();
    pyrt_interp *interp = pyrt_interp_main();
    pyrt_heap *heap = heap_with_tag(interp, 0, false);
    pyrt_thread *thread = pyrt_thread_ensure(interp);
    random_stream random = random_for(1);
    for (int i = 0; i < ALL; i++) {
        blocks[i] = pyrt_heap_malloc(thread, heap, SIZE);
    }
    for (int turn = 0; turn < TURNS; turn++) {
        for (int i = 0; i < FEW; i++) {
            do {
                gaps[i] = (int)random_below(&random, ALL);
            } while (blocks[gaps[i]] == NULL);
            const pyrt_page *page = pyrt_map_page_of(pyrt_map_entry(blocks[gaps[i]]));
            pyrt_free(blocks[gaps[i]]);
            blocks[gaps[i]] = NULL;
            CHECK((page->head.flags & PYRT_PAGE_FULL) == 0 || pyrt_page_used(page) >= OF_A_PAGE - WORTH);
        }
        for (int i = 0; i < FEW; i++) {
            blocks[gaps[i]] = pyrt_heap_malloc(thread, heap, SIZE);
        }
        CHECK(stats_of(interp).pages <= ALL / (OF_A_PAGE - WORTH) + 1);
    }
    for (int i = 0; i < ALL; i++) {
        pyrt_free(blocks[i]);
    }
    CHECK_UINT(blocks_in_use(interp, 0), 0);
    pyrt_heap_delete(heap);
    CHECK_UINT(stats_of(interp).pages, 0);
    pyrt_thread_release(thread);
    runtime_down();
}

static void
free_until_null(void *arg)
{
    for (char **blocks = arg; *blocks != NULL; blocks++) {
        pyrt_free(*blocks);
    }
}

/* Its owner has freed too little to take the long way, and is never told of what others free; unless a visit has collected that:
 * then the owner's next free takes it. */
TEST(what_its_owner_and_others_free_of_a_full_page_is_all_found)
{
    enum { SIZE = 1024, OF_A_PAGE = 64, WORTH = OF_A_PAGE / 16 };
    char *blocks[2 * OF_A_PAGE + 1];
    runtime_up();
    pyrt_interp *interp = pyrt_interp_main();
    pyrt_heap *heap = heap_with_tag(interp, 0, false);
    pyrt_thread *thread = pyrt_thread_ensure(interp);
    for (int visited = 0; visited < 2; visited++) {
        for (int i = 0; i <= OF_A_PAGE; i++) {
            blocks[i] = pyrt_heap_malloc(thread, heap, SIZE);
        }
        char *of_the_other = blocks[OF_A_PAGE];
        blocks[OF_A_PAGE] = NULL;
        const pyrt_page *page = pyrt_map_page_of(pyrt_map_entry(blocks[0]));
        CHECK((page->head.flags & PYRT_PAGE_FULL) != 0);
        in_a_thread_that_ends(free_until_null, blocks + WORTH);
        CHECK(!visited || blocks_in_use(interp, 0) == WORTH + 1);
        for (int i = 0; i < WORTH; i++) {
            pyrt_free(blocks[i]);
        }
        /* A watched page is not collected by a visit. An empty one goes. */
        bool is_gone = visited && !pyrt_page_is_watched(pyrt_map_page_of(pyrt_map_entry(of_the_other)));
        CHECK_UINT(stats_of(interp).pages, is_gone ? 1 : 2);
        blocks[0] = of_the_other;
        for (int i = 1; i < 2 * OF_A_PAGE; i++) {
            blocks[i] = pyrt_heap_malloc(thread, heap, SIZE);
        }
        blocks[2 * OF_A_PAGE] = NULL;
        CHECK_UINT(stats_of(interp).pages, 2);
        free_until_null(blocks);
        CHECK_UINT(blocks_in_use(interp, 0), 0);
    }
    pyrt_heap_delete(heap);
    CHECK_UINT(stats_of(interp).pages, 0);
    pyrt_thread_release(thread);
    runtime_down();
}

static void
free_from_abroad(void *block)
{
    pyrt_free(block);
}

/* A page that was empty, is in use again and gets empty again waits for the readers of the last time. */
static void
empty_twice(bool from_abroad)
{
    enum { EACH = 8 }; /* blocks in a page of the largest class */
    runtime_up();
    pyrt_interp *interp = pyrt_interp_main();
    pyrt_heap *heap = heap_with_tag(interp, 0, true);
    pyrt_thread *thread = pyrt_thread_ensure(interp);
    char *blocks[3 * EACH];
    for (int i = 0; i <= 2 * EACH; i++) {
        blocks[i] = pyrt_heap_malloc(thread, heap, 65536);
    }
    /* The third page is usable, so the second one, when it is empty, may go. */
    for (int i = EACH; i < 2 * EACH; i++) {
        pyrt_free(blocks[i]);
    }
    CHECK_UINT(stats_of(interp).held_bytes, EACH * 65536);
    for (int i = 2 * EACH + 1; i < 3 * EACH; i++) {
        blocks[i] = pyrt_heap_malloc(thread, heap, 65536);
    }
    /* Nothing is left but the second one. */
    char *again = pyrt_heap_malloc(thread, heap, 65536);
    CHECK(again >= blocks[EACH] && again <= blocks[2 * EACH - 1]);
    CHECK_OK(pyrt_qsbr_synchronize(thread));
    /* From here on somebody reads, who may have found that block. */
    worker reader;
    worker_start(&reader);
    pyrt_thread *reading;
    worker_do(&reader, attach_new, &reading);
    if (from_abroad) {
        worker freer;
        worker_start(&freer);
        worker_do(&freer, free_from_abroad, again);
        worker_end(&freer);
        /* Its end is when its threads look at what others have freed. */
        pyrt_heap_delete(heap);
    }
    else {
        pyrt_free(again);
        pyrt_safepoint(thread);
        CHECK(pyrt_heap_malloc(thread, heap, 3000) != NULL);
    }
    CHECK_INT(pyrt_address_owner(again), pyrt_interp_id(interp));
    CHECK_UINT(pyrt_usable_size(again), 65536);
    worker_do(&reader, delete_attached, reading);
    worker_end(&reader);
    if (from_abroad) {
        for (int i = 0; i < EACH; i++) {
            pyrt_free(blocks[i]);
            pyrt_free(blocks[2 * EACH + i]);
        }
    }
    else {
        pyrt_heap_destroy(heap);
    }
    pyrt_thread_release(thread);
    runtime_down();
}

TEST(a_page_that_was_empty_before_waits_for_the_readers_of_now)
{
    empty_twice(false);
    empty_twice(true);
}

TEST(a_huge_block_waits_for_readers)
{
    runtime_up();
    pyrt_interp *interp = pyrt_interp_main();
    pyrt_heap *heap = heap_with_tag(interp, 0, true);
    pyrt_thread *thread = pyrt_thread_ensure(interp);
    unsigned char *huge = pyrt_heap_malloc(thread, heap, 5000000);
    memset(huge, 0xC3, 5000000);
    pyrt_free(huge + 16);
    EXPECT_REPORT("pyrt_free", "16 bytes inside");
    pyrt_free(huge);
    pyrt_free(huge);
    EXPECT_REPORT("pyrt_free", "no block of ours");
    CHECK(huge[0] == 0xC3 && huge[4999999] == 0xC3);
    CHECK_UINT(stats_of(interp).huge_bytes, 0);
    CHECK(stats_of(interp).held_bytes >= 5000000);
    CHECK_INT(pyrt_address_owner(huge), pyrt_interp_id(interp));
    CHECK_OK(pyrt_qsbr_synchronize(thread));
    void *next = pyrt_heap_malloc(thread, heap, 3000000);
    CHECK_UINT(stats_of(interp).held_bytes, 0);
    pyrt_free(next);
    pyrt_thread_release(thread);
    runtime_down();
}

typedef struct look {
    uint64_t *block;
    int over;
} look;

static void
look_at_prefix(void *arg)
{
    look *at = arg;
    while (!pyrt_load_acquire(&at->over)) {
        for (int i = 0; i < 4; i++) {
            uint64_t word = pyrt_load_relaxed(&at->block[i]);
            CHECK(word == 0 || word == UINT64_MAX);
        }
    }
}

TEST(readers_may_look_at_the_prefix_of_a_block_that_is_allocated_again)
{
    runtime_up();
    pyrt_interp *interp = pyrt_interp_main();
    pyrt_heap *heap = heap_with_tag(interp, 0, true);
    pyrt_thread *thread = pyrt_thread_ensure(interp);
    look at = {.block = pyrt_heap_calloc(thread, heap, 1, 100)};
    worker reader;
    worker_start(&reader);
    worker_begin(&reader, look_at_prefix, &at);
    for (int i = 0; i < 3000; i++) {
        for (int k = 0; k < 4; k++) {
            pyrt_store_relaxed(&at.block[k], UINT64_MAX);
        }
        pyrt_free(at.block);
        /* The blocks of its page go round until it comes again. */
        void *taken[1000];
        int count = 0;
        do {
            taken[count] = pyrt_heap_calloc(thread, heap, 1, 100);
        } while (taken[count++] != (void *)at.block && count < 1000);
        CHECK(taken[--count] == (void *)at.block);
        while (count-- > 0) {
            pyrt_free(taken[count]);
        }
    }
    pyrt_store_release(&at.over, 1);
    worker_finish(&reader);
    worker_end(&reader);
    pyrt_heap_destroy(heap);
    pyrt_thread_release(thread);
    runtime_down();
}

TEST(a_block_is_freed_when_readers_have_passed)
{
    runtime_up();
    pyrt_interp *interp = pyrt_interp_main();
    pyrt_heap *heap = heap_with_tag(interp, 5, false);
    pyrt_thread *thread = pyrt_thread_ensure(interp);
    void *block = pyrt_heap_malloc(thread, heap, 100);
    CHECK_OK(pyrt_free_delayed(thread, block));
    CHECK_OK(pyrt_free_delayed(thread, NULL));
    CHECK_UINT(blocks_in_use(interp, 5), 1);
    CHECK_OK(pyrt_qsbr_barrier(thread));
    CHECK_UINT(blocks_in_use(interp, 5), 0);
    pyrt_thread_release(thread);
    runtime_down();
}

/* ---- the end of heaps -------------------------------------------------------------------------------------------- */

TEST(blocks_outlive_a_deleted_heap)
{
    runtime_up();
    pyrt_interp *interp = pyrt_interp_main();
    one = (batch){.interp = interp, .heap = heap_with_tag(interp, 4, false), .size = 90};
    in_a_thread_that_ends(allocate_batch, &one);
    pyrt_thread *thread = pyrt_thread_ensure(interp);
    void *mine = pyrt_heap_malloc(thread, one.heap, 90);
    pyrt_heap_delete(one.heap);
    CHECK_UINT(blocks_in_use(interp, 4), MANY + 1);
    pyrt_heap *next = heap_with_tag(interp, 6, false);
    CHECK(next->index != one.heap->index);
    void *other = pyrt_heap_malloc(thread, next, 90);
    CHECK_UINT(blocks_in_use(interp, 6), 1);
    pyrt_free(mine);
    free_batch(&one);
    pyrt_free(other);
    CHECK_UINT(blocks_in_use(interp, 4), 0);
    pyrt_thread_release(thread);
    CHECK_UINT(stats_of(interp).heaps, 1);
    runtime_down();
}

TEST(a_huge_block_outlives_its_deleted_heap)
{
    runtime_up();
    pyrt_interp *interp = pyrt_interp_main();
    pyrt_thread *thread = pyrt_thread_ensure(interp);
    pyrt_heap *first = heap_with_tag(interp, 4, false);
    char *huge = pyrt_heap_malloc(thread, first, 5000000);
    pyrt_heap_delete(first);
    /* Its block keeps what is known of the heap, so that another one is not taken for it. */
    CHECK_UINT(stats_of(interp).heaps, 1);
    for (int i = 0; i < 10; i++) {
        pyrt_heap *next = heap_with_tag(interp, 5, false);
        CHECK(pyrt_heap_malloc(thread, next, 90) != NULL);
        pyrt_heap_destroy(next);
        CHECK_UINT(blocks_in_use(interp, 4), 1);
    }
    huge[4999999] = 1;
    pyrt_free(huge);
    CHECK_UINT(stats_of(interp).heaps, 0);
    pyrt_thread_release(thread);
    runtime_down();
}

TEST(heaps_come_and_go_in_flat_memory)
{
    runtime_up();
    pyrt_interp *interp = pyrt_interp_main();
    pyrt_thread *thread = pyrt_thread_ensure(interp);
    pyrt_heap *other = heap_with_tag(interp, 0, false);
    for (int i = 0; i < 300; i++) {
        pyrt_heap *heap = heap_with_tag(interp, 1, i % 2 == 0);
        void *blocks[20];
        for (int k = 0; k < 20; k++) {
            blocks[k] = pyrt_heap_malloc(thread, heap, (size_t)k * 500);
        }
        if (i % 4 < 2) {
            for (int k = 0; k < 20; k++) {
                pyrt_free(blocks[k]);
            }
            pyrt_heap_delete(heap);
        }
        else {
            pyrt_heap_destroy(heap);
        }
        pyrt_safepoint(thread);
    }
    /* A page is wanted by another heap: what waited for readers goes. */
    CHECK_OK(pyrt_qsbr_synchronize(thread));
    CHECK(pyrt_heap_malloc(thread, other, 3000) != NULL);
    CHECK_UINT(stats_of(interp).held_bytes, 0);
    CHECK_UINT(stats_of(interp).heaps, 1);
    CHECK_UINT(stats_of(interp).pages, 1);
    pyrt_heap_destroy(other);
    pyrt_thread_release(thread);
    runtime_down();
}

static void
destroy_at_home_and_abroad(bool type_stable)
{
    runtime_up();
    pyrt_interp *interp = pyrt_interp_main();
    one = (batch){.interp = interp, .heap = heap_with_tag(interp, 4, type_stable), .size = 90};
    worker other;
    worker_start(&other);
    worker_do(&other, allocate_batch, &one);
    two = (batch){.interp = interp, .heap = one.heap, .size = 90};
    allocate_batch(&two);
    pyrt_thread *thread = pyrt_thread_ensure(interp);
    CHECK(pyrt_heap_malloc(thread, one.heap, 5000000) != NULL);
    pyrt_heap_destroy(one.heap);
    CHECK_UINT(blocks_in_use(interp, 4), 0);
    CHECK_UINT(stats_of(interp).huge_bytes, 0);
    pyrt_heap *next = heap_with_tag(interp, 6, false);
    CHECK(pyrt_heap_malloc(thread, next, 90) != NULL);
    CHECK_UINT(blocks_in_use(interp, 6), 1);
    pyrt_heap_destroy(next);
    pyrt_thread_release(thread);
    worker_end(&other);
    runtime_down();
}

TEST(a_destroyed_heap_takes_its_blocks_with_it)
{
    destroy_at_home_and_abroad(false);
    destroy_at_home_and_abroad(true);
}

/* ---- misuse ------------------------------------------------------------------------------------------------------ */

TEST(wrong_use_is_reported_and_changes_nothing)
{
    runtime_up();
    pyrt_interp *interp = pyrt_interp_main();
    pyrt_interp *other = pyrt_interp_new(NULL);
    CHECK(pyrt_heap_new(NULL, NULL) == NULL);
    pyrt_heap_config config = {.struct_size = sizeof(config), .tag = 32};
    errno = 0;
    CHECK(pyrt_heap_new(interp, &config) == NULL);
    CHECK_INT(errno, EINVAL);
    config = (pyrt_heap_config){.struct_size = sizeof(config) - 1};
    CHECK(pyrt_heap_new(interp, &config) == NULL);
    config = (pyrt_heap_config){.struct_size = sizeof(config), .stable_prefix = 8};
    CHECK(pyrt_heap_new(pyrt_interp_main(), &config) == NULL && errno == EINVAL);
    config = (pyrt_heap_config){.struct_size = sizeof(config), .type_stable = true, .stable_prefix = 12};
    CHECK(pyrt_heap_new(interp, &config) == NULL);

    pyrt_heap *heap = pyrt_heap_new(interp, NULL);
    pyrt_thread *thread = pyrt_thread_new(interp);
    errno = 0;
    CHECK(pyrt_heap_malloc(thread, heap, 10) == NULL);
    CHECK_INT(errno, EINVAL);
    EXPECT_REPORT("pyrt_heap_malloc", "not the one that is attached");
    CHECK(pyrt_heap_malloc(NULL, heap, 10) == NULL);
    EXPECT_REPORT("pyrt_heap_malloc", "not the one that is attached");
    pyrt_thread *there = pyrt_thread_ensure(other);
    CHECK(pyrt_heap_malloc(there, heap, 10) == NULL);
    EXPECT_REPORT("pyrt_heap_malloc", "of interpreter 0");
    /* Also when it has a heap of its own of the same number. */
    pyrt_heap *theirs = pyrt_heap_new(other, NULL);
    CHECK_UINT(theirs->index, heap->index);
    void *their_block = pyrt_heap_malloc(there, theirs, 10);
    CHECK(their_block != NULL);
    CHECK(pyrt_heap_malloc(there, heap, 10) == NULL);
    EXPECT_REPORT("pyrt_heap_malloc", "of interpreter 0");
    CHECK(pyrt_heap_realloc(there, heap, their_block, 4000) == NULL);
    EXPECT_REPORT("^pyrt_heap_realloc: the heap is of interpreter 0");
    pyrt_free(their_block);
    pyrt_thread_release(there);
    pyrt_attach(thread);
    errno = 0;
    CHECK(pyrt_heap_malloc(thread, NULL, 3) == NULL);
    CHECK_INT(errno, EINVAL);
    EXPECT_REPORT("pyrt_heap_malloc", "the heap is NULL");
    CHECK(pyrt_heap_malloc(thread, NULL, 3000) == NULL);
    EXPECT_REPORT("pyrt_heap_malloc", "the heap is NULL");
    errno = 0;
    CHECK(pyrt_heap_calloc(thread, NULL, 1, 3) == NULL);
    CHECK_INT(errno, EINVAL);
    EXPECT_REPORT("^pyrt_heap_calloc: the heap is NULL");
    errno = 0;
    CHECK(pyrt_heap_realloc(thread, NULL, NULL, 3) == NULL);
    CHECK_INT(errno, EINVAL);
    EXPECT_REPORT("^pyrt_heap_realloc: the heap is NULL");
    CHECK(pyrt_heap_aligned_alloc(thread, NULL, 64, 3) == NULL);
    EXPECT_REPORT("pyrt_heap_aligned_alloc", "the heap is NULL");
    errno = 0;
    CHECK(pyrt_heap_aligned_alloc(thread, heap, 3, 3) == NULL);
    CHECK_INT(errno, EINVAL);
    errno = 0;
    CHECK(pyrt_heap_realloc(thread, heap, &config, 3) == NULL);
    EXPECT_REPORT("pyrt_heap_realloc", "no block of ours");
    CHECK_INT(errno, EINVAL);
    void *block = pyrt_heap_malloc(thread, heap, 10);
    pyrt_detach(thread);
    /* Detached: freed from abroad, and found again by its owner. */
    pyrt_free(block);
    CHECK_UINT(blocks_in_use(interp, 0), 0);
    pyrt_thread_delete(thread);
    CHECK_OK(pyrt_interp_delete(other));
    runtime_down();
}

TEST(figures_that_have_no_place_are_not_written)
{
    runtime_up();
    pyrt_memory_stats stats = {.struct_size = sizeof(stats) - 1, .pages = 77};
    pyrt_interp *of[] = {NULL, pyrt_interp_main()};
    for (int i = 0; i < 2; i++) {
        pyrt_interp_memory_stats(of[i], &stats);
        CHECK_UINT(stats.pages, 77);
        pyrt_interp_memory_stats(of[i], NULL);
    }
    runtime_down();
}

TEST(absurd_sizes_give_null_and_enomem)
{
    runtime_up();
    pyrt_heap *heap = pyrt_heap_new(pyrt_interp_main(), NULL);
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    pyrt_attach(thread);
    char *block = pyrt_heap_calloc(thread, heap, 1, 100);
    const size_t absurd[] = {SIZE_MAX, (size_t)PTRDIFF_MAX + 1, PTRDIFF_MAX, ((size_t)1 << 44) + 1};
    for (size_t i = 0; i < sizeof(absurd) / sizeof(absurd[0]); i++) {
        errno = 0;
        CHECK(pyrt_heap_malloc(thread, heap, absurd[i]) == NULL);
        CHECK_INT(errno, ENOMEM);
        errno = 0;
        CHECK(pyrt_heap_calloc(thread, heap, 1, absurd[i]) == NULL);
        CHECK_INT(errno, ENOMEM);
        errno = 0;
        CHECK(pyrt_heap_aligned_alloc(thread, heap, 64, absurd[i]) == NULL);
        CHECK_INT(errno, ENOMEM);
        errno = 0;
        CHECK(pyrt_heap_realloc(thread, heap, block, absurd[i]) == NULL);
        CHECK_INT(errno, ENOMEM);
    }
    errno = 0;
    CHECK(pyrt_heap_calloc(thread, heap, SIZE_MAX / 2, 3) == NULL);
    CHECK_INT(errno, ENOMEM);
    pyrt_free(block);
    pyrt_detach(thread);
    pyrt_thread_delete(thread);
    pyrt_heap_delete(heap);
    runtime_down();
}

TEST(realloc_stays_in_the_heap)
{
    runtime_up();
    pyrt_interp *interp = pyrt_interp_main();
    pyrt_heap *heap = heap_with_tag(interp, 8, false);
    pyrt_thread *thread = pyrt_thread_ensure(interp);
    char *block = pyrt_heap_realloc(thread, heap, NULL, 20);
    strcpy(block, "nineteen characters");
    for (size_t size = 20; size < 4000000; size = size * 3 + 1) {
        block = size % 2 == 0 ? pyrt_heap_realloc(thread, heap, block, size) : pyrt_realloc(block, size);
        CHECK_STR(block, "nineteen characters");
        CHECK_INT(pyrt_address_owner(block), 0);
        CHECK_UINT(blocks_in_use(interp, 8), 1);
    }
    /* Who may not allocate there gets a block of the process. */
    pyrt_thread_release(thread);
    block = pyrt_realloc(block, 9000000);
    CHECK_STR(block, "nineteen characters");
    CHECK_INT(pyrt_address_owner(block), PYRT_OWNER_PROCESS);
    CHECK_UINT(blocks_in_use(interp, 8), 0);
    thread = pyrt_thread_ensure(interp);
    pyrt_free(block);
    pyrt_thread_release(thread);
    runtime_down();
}

/* ---- no memory --------------------------------------------------------------------------------------------------- */

static bool
live_a_life(void)
{
    pyrt_interp *interp = pyrt_interp_new(NULL);
    if (interp == NULL) {
        return false;
    }
    bool good = false;
    pyrt_heap *heap = pyrt_heap_new(interp, NULL);
    pyrt_thread *thread = pyrt_thread_ensure(interp);
    if (heap != NULL && thread != NULL) {
        good = true;
        void *blocks[24];
        for (int i = 0; i < 24; i++) {
            blocks[i] = pyrt_heap_calloc(thread, heap, 1, (size_t)1 << i);
            good &= blocks[i] != NULL;
        }
        for (int i = 0; i < 24; i++) {
            pyrt_free(blocks[i]);
        }
    }
    if (thread != NULL) {
        pyrt_thread_release(thread);
    }
    if (heap != NULL) {
        pyrt_heap_delete(heap);
    }
    CHECK_OK(pyrt_interp_delete(interp));
    return good;
}

TEST(every_allocation_may_fail)
{
    static const fault_plan plan = {.operation = live_a_life};
    CHECK(fault_everywhere(&plan, FAULT_ONCE) > 10);
    CHECK(fault_everywhere(&plan, FAULT_FROM_ON) > 10);
}
