/* test_malloc.c -- the malloc family of the process (heap.h): sizes, alignment, zeroes, other threads, misuse, no memory. */
#include "support.h"

#include "faults.h"
#include "memory/part.h"
#include "platform/os_memory.h"
#include "workers.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static pyrt_memory_stats
process_stats(void)
{
    pyrt_memory_stats stats = {.struct_size = sizeof(stats)};
    pyrt_interp_memory_stats(NULL, &stats);
    return stats;
}

/* Every page of the process that a block can lie in is as its invariant says. */
static void
check_page_of(void *block)
{
    pyrt_page *page = pyrt_map_page_of(pyrt_map_entry(block));
    CHECK(page != NULL);
    CHECK(pyrt_page_is_sound(page));
}

TEST(classes_cover_every_size_with_bounded_waste)
{
    for (size_t size = 0; size <= PYRT_CLASSED_MAX; size++) {
        unsigned class = pyrt_class_of(size);
        CHECK(class <= PYRT_CLASS_MAX);
        CHECK(pyrt_class_size(class) >= size);
        CHECK(class == 0 || pyrt_class_size(class - 1) < size);
        CHECK(size <= 128 || pyrt_class_size(class) * 4 <= size * 5);
    }
    CHECK_UINT(pyrt_class_size(PYRT_CLASS_SMALL_MAX), PYRT_HEAP_SMALL_MAX);
    CHECK_UINT(pyrt_class_size(PYRT_CLASS_MAX), PYRT_CLASSED_MAX);
}

TEST(blocks_of_every_size_are_whole_and_apart)
{
    static const size_t sizes[] = {0,    1,    7,    8,    9,    16,    17,    100,     128,     129,
                                   1000, 1024, 1025, 8192, 8193, 65536, 65537, 2097152, 2097153, 9000000};
    enum { SIZES = sizeof(sizes) / sizeof(sizes[0]), EACH = 3 };
    unsigned char *blocks[SIZES][EACH];
    for (size_t i = 0; i < SIZES; i++) {
        for (size_t k = 0; k < EACH; k++) {
            blocks[i][k] = pyrt_malloc(sizes[i]);
            CHECK(blocks[i][k] != NULL);
            CHECK(pyrt_usable_size(blocks[i][k]) >= sizes[i]);
            CHECK_UINT(pyrt_usable_size(blocks[i][k]), pyrt_good_size(sizes[i]));
            CHECK((uintptr_t)blocks[i][k] % (sizes[i] > 8 ? 16 : 8) == 0);
            CHECK_INT(pyrt_address_owner(blocks[i][k] + sizes[i] / 2), PYRT_OWNER_PROCESS);
            memset(blocks[i][k], (int)(i * EACH + k), sizes[i]);
        }
    }
    for (size_t i = 0; i < SIZES; i++) {
        for (size_t k = 0; k < EACH; k++) {
            for (size_t at = 0; at < sizes[i]; at++) {
                CHECK(blocks[i][k][at] == (unsigned char)(i * EACH + k));
            }
            check_page_of(blocks[i][k]);
            pyrt_free(blocks[i][k]);
        }
    }
}

TEST(aligned_blocks_are_aligned)
{
    for (size_t align = 1; align <= (size_t)64 << 20; align *= 2) {
        for (size_t size = 1; size < 300000; size = size * 3 + 1) {
            char *block = pyrt_aligned_alloc(align, size);
            CHECK(block != NULL);
            CHECK((uintptr_t)block % align == 0);
            CHECK(pyrt_usable_size(block) >= size);
            block[0] = block[size - 1] = 1;
            pyrt_free(block);
        }
    }
    errno = 0;
    CHECK(pyrt_aligned_alloc(24, 100) == NULL);
    CHECK_INT(errno, EINVAL);
    CHECK(pyrt_aligned_alloc(0, 100) == NULL);
}

TEST(calloc_zeroes_what_was_used_and_what_was_not)
{
    for (size_t size = 1; size < 3000000; size = size * 2 + 5) {
        for (int again = 0; again < 3; again++) {
            unsigned char *block = pyrt_calloc(1, size);
            CHECK(block != NULL);
            for (size_t i = 0; i < size; i++) {
                CHECK(block[i] == 0);
            }
            memset(block, 0xAB, size);
            pyrt_free(block);
        }
    }
    errno = 0;
    CHECK(pyrt_calloc(SIZE_MAX / 2, 3) == NULL);
    CHECK_INT(errno, ENOMEM);
}

/* How much of a range has memory behind it. */
static size_t
resident_bytes(const char *start, size_t bytes)
{
    size_t resident = 0;
    for (const char *at = (const char *)((uintptr_t)start & ~(uintptr_t)4095); at < start + bytes; at += 4096) {
        unsigned char is_there = 0;
        resident += mincore((void *)at, 4096, &is_there) == 0 && (is_there & 1) != 0 ? 4096 : 0;
    }
    return resident;
}

static void
look_at_fresh_memory(void *unused)
{
    (void)unused;
    char *block = pyrt_calloc(1, 1500000);
    CHECK(resident_bytes(block, 1500000) <= 8192);
    pyrt_free(block);
    block = pyrt_calloc(1, 9000000);
    CHECK(resident_bytes(block, 9000000) <= 8192);
    pyrt_free(block);
    char *small = pyrt_calloc(1, 500);
    CHECK(resident_bytes(small, 65536 - 500) <= 8192);
    pyrt_free(small);
}

/* In a new thread, whose segment is fresh. */
TEST(memory_that_is_known_to_be_zero_is_not_written_to)
{
    worker other;
    worker_start(&other);
    worker_do(&other, look_at_fresh_memory, NULL);
    worker_end(&other);
}

TEST(any_address_has_an_answer)
{
    runtime_up();
    int on_stack;
    const void *strange[] = {NULL,
                             &on_stack,
                             (const void *)(uintptr_t)1,
                             (const void *)(UINTPTR_MAX / 2),
                             (const void *)((uintptr_t)1 << 47),
                             (const void *)(((uintptr_t)1 << 47) - 1),
                             (const void *)((uintptr_t)1 << 48),
                             (const void *)(UINTPTR_MAX - 4095),
                             (const void *)((uintptr_t)0xFFFF8 << 44),
                             (const void *)(uintptr_t)pyrt_malloc};
    for (size_t i = 0; i < sizeof(strange) / sizeof(strange[0]); i++) {
        CHECK_INT(pyrt_address_owner(strange[i]), PYRT_OWNER_NONE);
        CHECK_UINT(pyrt_usable_size(strange[i]), 0);
    }
    void *mine = pyrt_malloc(100);
    random_stream random = random_for(2);
    for (int i = 0; i < 1000000; i++) {
        uintptr_t any = random_next(&random) >> random_below(&random, 40);
        int64_t owner = pyrt_address_owner((const void *)any);
        CHECK(owner == PYRT_OWNER_NONE || owner == PYRT_OWNER_PROCESS);
        /* With the high half of a word that is ours: no address. */
        CHECK_INT(pyrt_address_owner((const void *)((uintptr_t)mine | (any | 1) << 48)), PYRT_OWNER_NONE);
    }
    CHECK_INT(pyrt_address_owner(mine), PYRT_OWNER_PROCESS);
    pyrt_free(mine);
    runtime_down();
}

TEST(realloc_keeps_the_bytes)
{
    unsigned char *block = NULL;
    size_t had = 0;
    random_stream random = random_for(1);
    for (int i = 0; i < 2000; i++) {
        size_t size = random_below(&random, 1 + (uint32_t)(1 << random_below(&random, 18)));
        block = pyrt_realloc(block, size);
        CHECK(block != NULL);
        for (size_t k = 0; k < (had < size ? had : size); k++) {
            CHECK(block[k] == (unsigned char)(k * 7));
        }
        for (size_t k = 0; k < size; k++) {
            block[k] = (unsigned char)(k * 7);
        }
        had = size;
    }
    pyrt_free(block);
}

TEST(absurd_sizes_give_null_and_lose_nothing)
{
    char *block = pyrt_malloc(100);
    block[99] = 'x';
    CHECK(pyrt_malloc(SIZE_MAX) == NULL);
    CHECK(pyrt_malloc(PTRDIFF_MAX) == NULL);
    CHECK(pyrt_aligned_alloc(4096, SIZE_MAX - 4096) == NULL);
    CHECK(pyrt_aligned_alloc((size_t)1 << 60, 100) == NULL);
    void *empty = pyrt_aligned_alloc((size_t)1 << 20, 0);
    CHECK(empty != NULL);
    pyrt_free(empty);
    errno = 0;
    CHECK(pyrt_realloc(block, SIZE_MAX - 5) == NULL);
    CHECK_INT(errno, ENOMEM);
    CHECK(block[99] == 'x');
    pyrt_free(block);
    pyrt_free(NULL);
    CHECK_UINT(pyrt_usable_size(NULL), 0);
}

static bool
count_and_fail(void *count)
{
    ++*(int *)count;
    return true;
}

/* Of what is too large for the map the system is not even asked. */
TEST(more_than_the_map_takes_is_refused_before_anything_is_written)
{
    int asked = 0;
    void *first = pyrt_malloc(1);
    pyrt_os_set_fault(count_and_fail, &asked);
    for (int shift = 44; shift < 63; shift++) {
        errno = 0;
        CHECK(pyrt_calloc(1, ((size_t)1 << shift) + 1) == NULL);
        CHECK_INT(errno, ENOMEM);
    }
    CHECK_INT(asked, 0);
    CHECK(pyrt_malloc((size_t)1 << 44) == NULL);
    CHECK_INT(asked, 1);
    pyrt_os_set_fault(NULL, NULL);
    pyrt_free(first);
}

TEST(what_is_no_block_is_named_and_left_alone)
{
    static int mine;
    pyrt_free(&mine);
    EXPECT_REPORT("pyrt_free", "no block of ours");
    errno = 0;
    CHECK(pyrt_realloc(&mine, 100) == NULL);
    EXPECT_REPORT("pyrt_realloc", "no block of ours");
    CHECK_INT(errno, EINVAL);
    CHECK_UINT(pyrt_usable_size(&mine), 0);
    CHECK_INT(pyrt_address_owner(&mine), PYRT_OWNER_NONE);
    CHECK_INT(pyrt_address_owner(NULL), PYRT_OWNER_NONE);
    CHECK_INT(pyrt_address_owner((void *)UINTPTR_MAX), PYRT_OWNER_NONE);
    void *huge = pyrt_malloc(5000000);
    pyrt_free(huge);
    pyrt_free(huge);
    EXPECT_REPORT("pyrt_free", "no block of ours");
}

/* ---- other threads ----------------------------------------------------------------------------------------------- */

enum { GIVEN = 5000 };

static void *given[GIVEN];

static void
fill_given(void *arg)
{
    (void)arg;
    for (int i = 0; i < GIVEN; i++) {
        given[i] = pyrt_malloc((size_t)i % 700 + 1);
        memset(given[i], i, (size_t)i % 700 + 1);
    }
}

static void
free_given(void *arg)
{
    (void)arg;
    for (int i = 0; i < GIVEN; i++) {
        CHECK(*(unsigned char *)given[i] == (unsigned char)i);
        pyrt_free(given[i]);
    }
}

TEST(blocks_outlive_their_thread_and_are_taken_over)
{
    worker other;
    worker_start(&other);
    worker_do(&other, fill_given, NULL);
    CHECK_INT(process_stats().abandoned_segments, 0);
    worker_end(&other);
    CHECK(process_stats().abandoned_segments > 0);
    /* Whoever needs a page next finds them. */
    uint64_t adopted = process_stats().adopted_segments;
    void *blocks[300];
    for (int i = 0; i < 300; i++) {
        blocks[i] = pyrt_malloc(5000);
    }
    CHECK(process_stats().adopted_segments > adopted);
    CHECK_INT(process_stats().abandoned_segments, 0);
    for (int i = 0; i < 300; i++) {
        pyrt_free(blocks[i]);
    }
    free_given(NULL);
}

TEST(the_first_to_free_a_block_of_a_dead_thread_takes_over_what_it_left)
{
    pyrt_free(pyrt_malloc(1)); /* a thread without memory of its own takes nothing over */
    worker other;
    worker_start(&other);
    worker_do(&other, fill_given, NULL);
    worker_end(&other);
    pyrt_memory_stats before = process_stats();
    CHECK(before.abandoned_segments > 0);
    free_given(NULL);
    pyrt_memory_stats after = process_stats();
    CHECK_INT(after.abandoned_segments, 0);
    CHECK_UINT(after.adopted_segments, before.adopted_segments + before.abandoned_segments);
    CHECK(after.page_bytes < before.page_bytes);
}

TEST(what_others_free_comes_back)
{
    worker other;
    worker_start(&other);
    uint64_t most = 0;
    for (int round = 0; round < 50; round++) {
        fill_given(NULL);
        worker_do(&other, free_given, NULL);
        if (round == 5) {
            most = process_stats().pages;
        }
    }
    /* Not a page more than after the first rounds, but for the few that are looked at too late. */
    CHECK(process_stats().pages <= most + most / 4);
    worker_end(&other);
}

enum { FEW_MIB = 24, OF_200 = FEW_MIB * (1 << 20) / 208 };

static void *many[OF_200];

static void
free_many(void *unused)
{
    (void)unused;
    for (int i = 0; i < OF_200; i++) {
        pyrt_free(many[i]);
    }
}

/* All in one new thread, so that every page is its own. */
static void
change_sizes(void *arg)
{
    worker *other = arg;
    static const size_t sizes[] = {200, 400, 1000, 30000, 250};
    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        int count = (int)((size_t)FEW_MIB * (1 << 20) / pyrt_good_size(sizes[k]));
        memset(many, 0, sizeof(many));
        for (int i = 0; i < count && i < OF_200; i++) {
            many[i] = pyrt_malloc(sizes[k]);
            CHECK(many[i] != NULL);
        }
        worker_do(other, free_many, NULL);
    }
}

/* A peak of the thread's own, which is over, is no licence to grow to it again. */
static void
change_sizes_after_a_peak(void *arg)
{
    enum { PEAK = 8 * OF_200 };
    static void *peak[PEAK];
    for (int i = 0; i < PEAK; i++) {
        peak[i] = pyrt_malloc(200);
        CHECK(peak[i] != NULL);
    }
    for (int i = 0; i < PEAK; i++) {
        pyrt_free(peak[i]);
    }
    change_sizes(arg);
}

static void
check_that_sizes_take_turns(void (*change)(void *other))
{
    worker owner;
    worker other;
    worker_start(&owner);
    worker_start(&other);
    uint64_t before = process_stats().page_bytes;
    worker_do(&owner, change, &other);
    /* Five sizes in turn, each of 24 MiB. */
    CHECK(process_stats().page_bytes - before < (uint64_t)2 * FEW_MIB * (1 << 20));
    worker_end(&owner);
    worker_end(&other);
}

TEST(what_others_free_is_there_for_other_sizes_too)
{
    check_that_sizes_take_turns(change_sizes);
}

TEST(so_it_is_after_a_peak)
{
    check_that_sizes_take_turns(change_sizes_after_a_peak);
}

/* ---- numbers of owners ------------------------------------------------------------------------------------------- */

TEST(the_number_of_the_process_is_given_to_nobody_else)
{
    enum { OTHERS = 3 };
    uint32_t low = pyrt_owner_number(7);
    uint32_t held = pyrt_owner_number(PYRT_OWNER_PROCESS);
    CHECK(low != 0 && held > low);
    pyrt_owner_forget(low);
    CHECK_INT(pyrt_owner_find(low), PYRT_OWNER_NONE);
    CHECK_INT(pyrt_owner_find(0), PYRT_OWNER_NONE);
    uint32_t others[OTHERS];
    for (uint32_t i = 0; i < OTHERS; i++) {
        others[i] = pyrt_owner_number(i);
        CHECK(others[i] != held);
        CHECK_INT(pyrt_owner_find(others[i]), (int64_t)i);
    }
    CHECK_INT(others[0], (int64_t)low);
    CHECK_INT(pyrt_owner_find(held), PYRT_OWNER_PROCESS);
    for (uint32_t i = 0; i < OTHERS; i++) {
        pyrt_owner_forget(others[i]);
    }
    pyrt_owner_forget(held);
}

/* ---- back to the system ------------------------------------------------------------------------------------------- */

enum { SLICES = 1024 };

/* How many of these blocks still have memory behind their first byte. */
static int
count_resident(char *const blocks[SLICES])
{
    int resident = 0;
    for (int i = 0; i < SLICES; i++) {
        unsigned char is_there = 0;
        char *page = (char *)((uintptr_t)blocks[i] & ~(uintptr_t)4095);
        resident += mincore(page, 4096, &is_there) == 0 && (is_there & 1) != 0;
    }
    return resident;
}

TEST(freed_memory_is_kept_for_a_while_but_not_much_of_it)
{
    static char *blocks[SLICES];
    void *kept = pyrt_malloc(100);
    pyrt_share *share = pyrt_map_page_of(pyrt_map_entry(kept))->part->share;
    for (int i = 0; i < SLICES; i++) {
        blocks[i] = pyrt_malloc(PYRT_CLASSED_MAX);
        CHECK(blocks[i] != NULL);
        *blocks[i] = 1;
    }
    CHECK_INT(count_resident(blocks), SLICES);
    for (int i = 0; i < SLICES; i++) {
        pyrt_free(blocks[i]);
    }
    int resident = count_resident(blocks);
    CHECK(resident > 0 && resident <= SLICES / 2);
    /* As if the time had come: once to age, and again to go. But the last page of the class stays. */
    pyrt_share_purge(share, INT64_MAX / 2);
    CHECK_INT(count_resident(blocks), resident);
    pyrt_share_purge(share, INT64_MAX - INT64_MAX / 4);
    CHECK(count_resident(blocks) <= 8);
    CHECK_INT(share->next_purge, INT64_MAX);
    pyrt_free(kept);
}

/* Whether the system was told to take huge pages where an address lies; it says so in the flags of the mapping. */
static bool
is_in_huge_pages(const void *address)
{
    FILE *file = fopen("/proc/self/smaps", "r");
    CHECK(file != NULL);
    char line[512];
    uintptr_t start = 0, end = 0;
    bool is_huge = false;
    while (fgets(line, sizeof(line), file) != NULL) {
        uintptr_t from, to;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &from, &to) == 2) {
            start = from;
            end = to;
        }
        else if (strncmp(line, "VmFlags:", 8) == 0 && (uintptr_t)address >= start && (uintptr_t)address < end) {
            is_huge = strstr(line, " hg") != NULL;
        }
    }
    fclose(file);
    return is_huge;
}

/* In a thread of its own, whose first segment is as good as new. */
static void *
take_much_and_give_it_back(void *arg)
{
    static char *blocks[SLICES];
    bool *has_huge_pages = arg;
    for (int i = 0; i < SLICES; i++) {
        blocks[i] = pyrt_malloc(PYRT_CLASSED_MAX);
        CHECK(blocks[i] != NULL);
        *blocks[i] = 1;
    }
    CHECK_INT(is_in_huge_pages(blocks[0]), false);
    CHECK_INT(is_in_huge_pages(blocks[SLICES - 1]), *has_huge_pages);
    pyrt_page *last = pyrt_map_page_of(pyrt_map_entry(blocks[SLICES - 1]));
    CHECK_INT(last->segment->is_huge, true);
    pyrt_share *share = last->part->share;
    CHECK(share->page_bytes >= PYRT_HUGE_FROM);
    /* A segment of which something goes back is in small pages again: the system would fill the gaps. The last block stays. */
    for (int i = SLICES - 65; i < SLICES - 1; i++) {
        pyrt_free(blocks[i]);
    }
    pyrt_share_purge(share, INT64_MAX / 2);
    pyrt_share_purge(share, INT64_MAX - INT64_MAX / 4);
    CHECK_INT(last->segment->is_huge, false);
    CHECK_INT(is_in_huge_pages(blocks[SLICES - 1]), false);
    for (int i = 0; i < SLICES - 65; i++) {
        pyrt_free(blocks[i]);
    }
    pyrt_free(blocks[SLICES - 1]);
    return NULL;
}

TEST(much_memory_is_in_huge_pages_until_some_goes_back)
{
    bool has_huge_pages = access("/sys/kernel/mm/transparent_hugepage/enabled", F_OK) == 0;
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, take_much_and_give_it_back, &has_huge_pages) == 0);
        pthread_join(thread, NULL);
    }
}

/* ---- no memory --------------------------------------------------------------------------------------------------- */

static bool
allocate_much(void)
{
    void *blocks[40];
    int made = 0;
    bool failed = false;
    for (int i = 0; i < 40; i++) {
        size_t size = (size_t)1 << (i % 23);
        blocks[made] = pyrt_malloc(size);
        failed |= blocks[made] == NULL;
        made += blocks[made] != NULL;
    }
    for (int i = 0; i < made; i++) {
        pyrt_free(blocks[i]);
    }
    return !failed;
}

static void *
in_a_new_thread(void *succeeded)
{
    *(bool *)succeeded = allocate_much();
    return NULL;
}

static bool
allocate_in_a_new_thread(void)
{
    bool succeeded;
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, in_a_new_thread, &succeeded) == 0);
    pthread_join(thread, NULL);
    return succeeded;
}

static void
nothing(void)
{
}

static void
check_nothing_lost(bool succeeded)
{
    (void)succeeded;
    CHECK_INT(process_stats().abandoned_segments, 0);
    CHECK_UINT(process_stats().huge_bytes, 0);
}

TEST(every_allocation_may_fail)
{
    static const fault_plan plan = {nothing, allocate_in_a_new_thread, check_nothing_lost};
    CHECK(fault_everywhere(&plan, FAULT_ONCE) > 3);
    CHECK(fault_everywhere(&plan, FAULT_FROM_ON) > 3);
}

/* ---- thread-exit destructors ------------------------------------------------------------------------------------- */

static pthread_key_t late_key;

static void
allocate_late(void *arg)
{
    char *block = pyrt_malloc(333);
    CHECK(block != NULL);
    memset(block, 1, 333);
    pyrt_free(block);
    pyrt_free(arg);
}

static void *
leave_a_destructor(void *arg)
{
    (void)arg;
    CHECK(pthread_setspecific(late_key, pyrt_malloc(77)) == 0);
    return NULL;
}

TEST(allocation_works_in_thread_exit_destructors)
{
    CHECK(pthread_key_create(&late_key, allocate_late) == 0);
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, leave_a_destructor, NULL) == 0);
        pthread_join(thread, NULL);
    }
    pthread_key_delete(late_key);
    CHECK_INT(process_stats().abandoned_segments, 0);
}
