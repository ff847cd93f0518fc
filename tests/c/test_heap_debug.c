/* test_heap_debug.c -- watching the use of blocks (pyrt_heap_debug): what is misused is named and does no harm, and everything
 * else goes on as it does without. */
#include "support.h"

#include "faults.h"
#include "memory/heap_impl.h"
#include "memory/watched_page.h"
#include "platform/poison.h"
#include "workers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ALL = PYRT_HEAP_DEBUG_CHECK | PYRT_HEAP_DEBUG_FILL, FRESH = 0xCD, DEAD = 0xDD };

static bool
is_filled(const void *block, size_t from, size_t to, int byte)
{
    for (size_t i = from; i < to; i++) {
        if (((const unsigned char *)block)[i] != byte) {
            return false;
        }
    }
    return true;
}

static void
free_it(void *block)
{
    pyrt_free(block);
}

/* Refused: it is free. */
static void
resize_it(void *block)
{
    errno = 0;
    CHECK_PTR(pyrt_realloc(block, 2 * pyrt_usable_size(block)), NULL);
    CHECK_INT(errno, EINVAL);
    EXPECT_REPORT("pyrt_realloc: ", "is free already; nothing was done");
}

/* In a thread that has no pages yet, with every page watched. */
static void
watched(unsigned flags, void (*step)(void *), void *arg)
{
    CHECK_OK(pyrt_heap_debug(flags));
    worker w;
    worker_start(&w);
    worker_do(&w, step, arg);
    worker_end(&w);
    CHECK_OK(pyrt_heap_debug(0));
}

static void
check_page(void *block)
{
    pyrt_page *page = pyrt_map_page_of(pyrt_map_entry(block));
    CHECK(page != NULL && pyrt_page_is_watched(page));
    CHECK(pyrt_page_is_sound(page));
}

/* ---- misuse ------------------------------------------------------------------------------------------------------ */

static const size_t sizes[] = {1, 8, 9, 100, 1000, 1024, 5000, 65536, 65537, 1000000};
enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

static void
misuse_each_size(void *unused)
{
    (void)unused;
    worker other;
    worker_start(&other);
    for (size_t i = 0; i < SIZES; i++) {
        char *block = pyrt_malloc(sizes[i]);
        char *between = pyrt_malloc(sizes[i]);
        check_page(block);
        /* Something else is freed in between, here or elsewhere. */
        pyrt_free(block + 1);
        EXPECT_REPORT("pyrt_free", "lies 1 byte inside");
        worker_do(&other, free_it, block + sizes[i] / 2 + 1);
        EXPECT_REPORT("pyrt_free", sizes[i] < 2 ? "lies 1 byte inside of the block at" : "bytes inside of the block at");
        check_page(block);
        pyrt_free(block);
        worker_do(&other, free_it, between);
        for (int again = 0; again < 2; again++) {
            /* A large block's page goes at once. */
            bool large = sizes[i] > 65536;
            pyrt_free(block);
            EXPECT_REPORT("pyrt_free", large ? "no block of ours" : "is free already");
            worker_do(&other, free_it, block);
            EXPECT_REPORT("pyrt_free", large ? "no block of ours" : "is free already");
        }
        /* Nothing is handed out twice. */
        char *more[20];
        for (int k = 0; k < 20; k++) {
            more[k] = pyrt_malloc(sizes[i]);
            memset(more[k], k, sizes[i]);
        }
        for (int k = 0; k < 20; k++) {
            CHECK(is_filled(more[k], 0, sizes[i], k));
            check_page(more[k]);
            pyrt_free(more[k]);
        }
    }
    worker_end(&other);
    CHECK_UINT(reports_pending(), 0);
}

/* Every place inside of a block of each size, at home and abroad, without watching: the block keeps its bytes. */
static void
free_inside_of(char *block, size_t size, worker *other, pyrt_thread *thread, pyrt_heap *heap)
{
    memset(block, 0x5A, size);
    size_t room = pyrt_usable_size(block);
    for (size_t at = 1; at < room; at += at < 70 ? 1 : at % 8 != 0 ? 8 - at % 8 : room / 300 / 8 * 8 + 8) {
        char says[40];
        snprintf(says, sizeof(says), "lies %zu byte%s inside", at, at == 1 ? "" : "s");
        pyrt_free(block + at);
        EXPECT_REPORT("pyrt_free", says);
        CHECK_UINT(pyrt_usable_size(block + at), 0);
        reports_forget();
    }
    worker_do(other, free_it, block + room / 2 + 1);
    EXPECT_REPORT("pyrt_free", "bytes inside of the block at");
    char says[60];
    snprintf(says, sizeof(says), "lies %zu bytes inside of the block at %p; nothing was done", room / 2 + 1, (void *)block);
    errno = 0;
    CHECK_PTR(pyrt_realloc(block + room / 2 + 1, 2 * size), NULL);
    CHECK_INT(errno, EINVAL);
    EXPECT_REPORT("pyrt_realloc", says);
    errno = 0;
    CHECK_PTR(pyrt_heap_realloc(thread, heap, block + room / 2 + 1, 2 * size), NULL);
    CHECK_INT(errno, EINVAL);
    EXPECT_REPORT("pyrt_heap_realloc", says);
    CHECK(is_filled(block, 0, size, 0x5A));
    reports_forget();
}

/* The room behind the last block of a page is too little for one more. True if there is any. */
static bool
refused_behind_the_last(void *block, worker *other)
{
    const pyrt_page *page = pyrt_map_page_of(pyrt_map_entry(block));
    char *behind = page->head.start + page->head.capacity * pyrt_usable_size(block);
    if (behind == page->head.start + page->bytes) {
        return false;
    }
    CHECK_UINT(pyrt_usable_size(behind), 0);
    CHECK_PTR(pyrt_realloc(behind, 20), NULL);
    EXPECT_REPORT("pyrt_realloc", "no block of ours; nothing was done");
    worker_do(other, free_it, behind);
    EXPECT_REPORT("pyrt_free", "no block of ours; nothing was freed");
    CHECK_UINT(reports_pending(), 0);
    reports_forget();
    return true;
}

static void
allocate_each_size(void *arg)
{
    void **blocks = arg;
    for (unsigned class = 0; class < PYRT_CLASS_LARGE; class++) {
        blocks[class] = pyrt_malloc(pyrt_class_size(class));
        CHECK(blocks[class] != NULL);
    }
}

/* The owner is another thread, or has ended: then who frees a block of it takes its pages over. */
TEST(an_address_behind_the_last_block_of_a_page_is_none_for_who_does_not_own_it)
{
    void *blocks[3][PYRT_CLASS_LARGE];
    worker ended, other;
    worker_start(&other);
    worker_do(&other, allocate_each_size, blocks[0]);
    allocate_each_size(blocks[1]);
    worker_start(&ended);
    worker_do(&ended, allocate_each_size, blocks[2]);
    worker_end(&ended);
    unsigned pages = 0;
    for (unsigned class = 0; class < PYRT_CLASS_LARGE; class++) {
        pages += refused_behind_the_last(blocks[1][class], &other) + refused_behind_the_last(blocks[2][class], &other);
    }
    CHECK(pages > 20);
    worker_end(&other);
    for (unsigned class = 0; class < PYRT_CLASS_LARGE; class++) {
        for (int i = 0; i < 3; i++) {
            pyrt_free(blocks[i][class]);
        }
    }
}

TEST(an_address_inside_of_a_block_is_named_without_watching)
{
    runtime_up();
    worker other;
    worker_start(&other);
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_heap *heaps[2];
    for (int i = 0; i < 2; i++) {
        heaps[i] = pyrt_heap_new(pyrt_interp_main(),
                                 &(pyrt_heap_config){.struct_size = sizeof(pyrt_heap_config), .type_stable = i == 1});
    }
    for (unsigned class = 0; class < PYRT_CLASSES + 2; class++) {
        size_t size = class < PYRT_CLASS_LARGE ? pyrt_class_size(class) : (size_t)100000 << 5 * (class - PYRT_CLASS_LARGE);
        char *blocks[3] = {pyrt_malloc(size), pyrt_heap_malloc(thread, heaps[0], size),
                           pyrt_heap_malloc(thread, heaps[1], size)};
        for (int i = 0; i < 3; i++) {
            CHECK(blocks[i] != NULL);
            free_inside_of(blocks[i], size, &other, thread, heaps[0]);
        }
        for (int i = 0; i < 3; i++) {
            pyrt_free(blocks[i]);
        }
    }
    pyrt_heap_delete(heaps[0]);
    pyrt_heap_delete(heaps[1]);
    pyrt_thread_release(thread);
    worker_end(&other);
    runtime_down();
}

TEST(what_is_freed_twice_or_is_no_block_is_named)
{
    watched(PYRT_HEAP_DEBUG_CHECK, misuse_each_size, NULL);
}

TEST(so_it_is_when_blocks_are_filled)
{
    watched(ALL, misuse_each_size, NULL);
}

static void
free_never_handed_out(void *unused)
{
    (void)unused;
    char *block = pyrt_malloc(48);
    pyrt_free(block + 48 * 1000);
    EXPECT_REPORT("is free already");
    pyrt_free(block + 65535);
    EXPECT_REPORT("no block of ours");
    pyrt_free(block);
}

TEST(a_place_that_was_never_handed_out_is_named)
{
    watched(PYRT_HEAP_DEBUG_CHECK, free_never_handed_out, NULL);
}

TEST(the_same_block_twice_in_a_row_is_named_without_watching)
{
    char *block = pyrt_malloc(100);
    char *other = pyrt_malloc(100);
    pyrt_free(block);
    pyrt_free(block);
    EXPECT_REPORT("pyrt_free", "is free already");
    worker w;
    worker_start(&w);
    worker_do(&w, free_it, other);
    worker_do(&w, free_it, other);
    EXPECT_REPORT("pyrt_free", "is free already");
    worker_end(&w);
    char *first = pyrt_malloc(100);
    CHECK(first != pyrt_malloc(100));
}

/* Refused with its name by each, larger and as large as it is; and nothing has come of it. */
static void
refused_as_free(void *block, pyrt_thread *thread, pyrt_heap *heap)
{
    size_t room = pyrt_usable_size(block);
    uint64_t used = pyrt_page_used(pyrt_map_page_of(pyrt_map_entry(block)));
    for (size_t size = room; size <= 2 * room; size += room) {
        errno = 0;
        CHECK_PTR(pyrt_realloc(block, size), NULL);
        CHECK_INT(errno, EINVAL);
        EXPECT_REPORT("pyrt_realloc: ", "is free already; nothing was done");
        errno = 0;
        CHECK_PTR(pyrt_heap_realloc(thread, heap, block, size), NULL);
        CHECK_INT(errno, EINVAL);
        EXPECT_REPORT("pyrt_heap_realloc: ", "is free already; nothing was done");
    }
    CHECK_UINT(pyrt_page_used(pyrt_map_page_of(pyrt_map_entry(block))), used);
    CHECK_UINT(reports_pending(), 0);
    reports_forget();
}

static void
resize_after_freeing(void *unused)
{
    (void)unused;
    worker other;
    worker_start(&other);
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_heap *heaps[2];
    for (int i = 0; i < 2; i++) {
        heaps[i] = pyrt_heap_new(pyrt_interp_main(),
                                 &(pyrt_heap_config){.struct_size = sizeof(pyrt_heap_config), .type_stable = i == 1});
    }
    for (size_t size = 8; size <= 30000; size = size * 5 + 8) {
        for (int kind = 0; kind < 3; kind++) {
            char *blocks[3];
            for (int i = 0; i < 3; i++) {
                blocks[i] = kind == 0 ? pyrt_malloc(size) : pyrt_heap_malloc(thread, heaps[kind - 1], size);
                CHECK(blocks[i] != NULL);
            }
            /* The one that was freed here last; and abroad, seen from there. */
            pyrt_free(blocks[1]);
            refused_as_free(blocks[1], thread, heaps[0]);
            worker_do(&other, free_it, blocks[2]);
            worker_do(&other, resize_it, blocks[2]);
            pyrt_free(blocks[0]);
        }
    }
    pyrt_heap_delete(heaps[0]);
    pyrt_heap_delete(heaps[1]);
    pyrt_thread_release(thread);
    worker_end(&other);
}

TEST(a_block_that_is_resized_right_after_it_was_freed_is_named_without_watching)
{
    runtime_up();
    resize_after_freeing(NULL);
    runtime_down();
}

TEST(so_it_is_with_watching)
{
    runtime_up();
    watched(PYRT_HEAP_DEBUG_CHECK, resize_after_freeing, NULL);
    runtime_down();
}

static void
free_round_trip(void *arg)
{
    void **blocks = arg;
    pyrt_free(blocks[0]);
    pyrt_free(blocks[1]);
    pyrt_free(blocks[0]);
}

TEST(a_round_of_blocks_that_others_have_freed_twice_is_named_and_ends)
{
    /* A size of its own, so that the owner looks when it has used up the page. */
    void *blocks[2] = {pyrt_malloc(60000), pyrt_malloc(60000)};
    worker w;
    worker_start(&w);
    worker_do(&w, free_round_trip, blocks);
    worker_end(&w);
    for (int i = 0; i < 30; i++) {
        void *block = pyrt_malloc(60000);
        CHECK(block != NULL && block != blocks[0] && block != blocks[1]);
    }
    EXPECT_REPORT("pyrt_free", "freed twice", "not used any more");
}

TEST(flags_that_there_are_not_are_refused)
{
    CHECK_STATUS(pyrt_heap_debug(8), PYRT_EINVAL);
    CHECK_OK(pyrt_heap_debug(0));
}

/* ---- filling ----------------------------------------------------------------------------------------------------- */

static void
look_at_fill(void *unused)
{
    (void)unused;
    for (size_t i = 0; i < SIZES; i++) {
        unsigned char *block = pyrt_malloc(sizes[i]);
        size_t room = pyrt_usable_size(block);
        CHECK(is_filled(block, 0, room, FRESH));
        unsigned char *zero = pyrt_calloc(1, sizes[i]);
        CHECK(is_filled(zero, 0, sizes[i], 0));
        pyrt_free(zero);
        memset(block, 1, room);
        if (sizes[i] <= 65536) {
            pyrt_free(block);
            CHECK(is_filled(block, 0, room, DEAD));
        }
        else {
            pyrt_free(block);
        }
    }
}

TEST(blocks_are_filled_when_they_are_handed_out_and_freed)
{
    watched(ALL, look_at_fill, NULL);
}

static void
write_after_free(void *unused)
{
    (void)unused;
    char *block = pyrt_malloc(1000);
    pyrt_free(block);
    block[123] = 'x';
    while (reports_pending() == 0) {
        CHECK(pyrt_malloc(1000) != NULL);
    }
    EXPECT_REPORT("^the block at", "of 1024 bytes, was written to after it had been freed, at byte 123");
}

TEST(a_write_to_a_freed_block_is_named_when_it_comes_again)
{
    watched(ALL, write_after_free, NULL);
}

/* What a thread gets after it has written to the first word of a freed block, where a link would stand. `keeps`: what is in the
 * same segment and stays. */
static void
take_again(size_t size, bool keeps_page)
{
    enum { MOST = 20000 };
    static char *taken[MOST];
    char *segment = pyrt_malloc(100);
    char *kept = keeps_page ? pyrt_malloc(size) : NULL;
    char *block = pyrt_malloc(size);
    pyrt_free(block);
    memset(block, 0x41, 16);
    size_t count = 0;
    do {
        CHECK(count < MOST);
        taken[count] = pyrt_malloc(size);
        CHECK(taken[count] != NULL);
    } while (taken[count++] != block);
    for (size_t i = 0; i < count; i++) {
        pyrt_free(taken[i]);
    }
    pyrt_free(kept);
    pyrt_free(segment);
}

static void
write_to_each_kind(void *how)
{
    bool fill = *(const unsigned *)how != PYRT_HEAP_DEBUG_CHECK;
    for (size_t size = 16; size <= PYRT_CLASSED_MAX; size *= 16) {
        take_again(size, true);
        if (fill) {
            EXPECT_REPORT("^the block at", "was written to after it had been freed, at byte 0");
        }
        CHECK_UINT(reports_pending(), 0);
    }
    take_again(PYRT_CLASSED_MAX + 1, false);
    take_again(PYRT_LARGE_MAX, false);
    CHECK_UINT(reports_pending(), 0);
}

TEST(such_a_write_is_seen_with_filling_alone_and_not_after_the_page_has_gone_back)
{
    unsigned flags[] = {PYRT_HEAP_DEBUG_CHECK, ALL};
    for (int i = 0; i < 2; i++) {
        watched(flags[i], write_to_each_kind, &flags[i]);
    }
}

static void
look_at_mappings(void *unused)
{
    (void)unused;
    char *blocks[2] = {pyrt_malloc(PYRT_LARGE_MAX + 1), pyrt_aligned_alloc(2 * PYRT_SLICE, 100)};
    for (int i = 0; i < 2; i++) {
        CHECK(is_filled(blocks[i], 0, 100, 0));
        pyrt_free(blocks[i]);
    }
}

TEST(a_block_that_is_a_mapping_of_its_own_is_not_filled)
{
    watched(ALL, look_at_mappings, NULL);
}

/* ---- AddressSanitizer -------------------------------------------------------------------------------------------- */

TEST(so_it_is_when_freed_memory_is_poisoned)
{
    if (!pyrt_can_poison()) {
        CHECK_STATUS(pyrt_heap_debug(PYRT_HEAP_DEBUG_POISON), PYRT_ENOTSUP);
        return;
    }
    watched(PYRT_HEAP_DEBUG_POISON, misuse_each_size, NULL);
}

TEST(so_it_is_when_it_is_filled_and_poisoned)
{
    if (pyrt_can_poison()) {
        watched(ALL | PYRT_HEAP_DEBUG_POISON, misuse_each_size, NULL);
    }
}

typedef struct touch {
    size_t size;
    size_t at;
    bool type_stable, write, destroy;
} touch;

/* Touches one byte of a block that is freed by then. */
static void
touch_freed(const touch *how)
{
    CHECK_OK(pyrt_heap_debug(PYRT_HEAP_DEBUG_POISON));
    runtime_up();
    pyrt_heap *heap = pyrt_heap_new(
        pyrt_interp_main(), &(pyrt_heap_config){.struct_size = sizeof(pyrt_heap_config), .type_stable = how->type_stable});
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    volatile char *block = pyrt_heap_calloc(thread, heap, 1, how->size);
    block[how->at] = 1;
    if (how->destroy) {
        pyrt_heap_destroy(heap);
    }
    else {
        pyrt_free((void *)block);
    }
    if (how->write) {
        block[how->at] = 2;
    }
    else {
        (void)block[how->at];
    }
}

/* In a child, whose last words come back. */
static bool
is_caught(const touch *how)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        touch_freed(how);
        _exit(0);
    }
    close(ends[1]);
    static char words[100000];
    size_t length = 0;
    for (ssize_t got; (got = read(ends[0], words + length, sizeof(words) - 1 - length)) > 0;) {
        length += (size_t)got;
    }
    words[length] = '\0';
    close(ends[0]);
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    bool caught = strstr(words, "use-after-poison") != NULL;
    CHECK(caught == (status != 0));
    return caught;
}

TEST(address_sanitizer_names_who_touches_a_freed_block)
{
    if (!pyrt_can_poison()) {
        return;
    }
    for (size_t i = 0; i < SIZES; i++) {
        CHECK(is_caught(&(touch){.size = sizes[i]}));
        CHECK(is_caught(&(touch){.size = sizes[i], .at = sizes[i] - 1, .write = true}));
        CHECK(is_caught(&(touch){.size = sizes[i], .destroy = true}));
    }
    /* What readers may look at is free to be looked at, and nothing behind it. */
    CHECK(!is_caught(&(touch){.size = 100, .at = 31, .type_stable = true}));
    CHECK(is_caught(&(touch){.size = 100, .at = 32, .type_stable = true}));
}

/* ---- heaps ------------------------------------------------------------------------------------------------------- */

static bool
count_block(void *block, size_t size, uint8_t tag, void *arg)
{
    (void)block, (void)size, (void)tag;
    ++*(size_t *)arg;
    return true;
}

static size_t
blocks_in_use(pyrt_interp *interp)
{
    size_t count = 0;
    CHECK_OK(pyrt_stop_the_world(interp));
    CHECK_OK(pyrt_heap_visit(interp, UINT32_MAX, count_block, &count));
    pyrt_start_the_world(interp);
    return count;
}

static struct {
    pyrt_interp *interp;
    pyrt_heap *heap;
    void *blocks[300];
} made;

static void
allocate_many(void *unused)
{
    (void)unused;
    pyrt_thread *thread = pyrt_thread_ensure(made.interp);
    for (int i = 0; i < 300; i++) {
        made.blocks[i] = pyrt_heap_malloc(thread, made.heap, 500);
        CHECK(made.blocks[i] != NULL);
    }
    pyrt_thread_release(thread);
}

static void
live_and_die(bool type_stable)
{
    runtime_up();
    made.interp = pyrt_interp_new(NULL);
    made.heap =
        pyrt_heap_new(made.interp, &(pyrt_heap_config){.struct_size = sizeof(pyrt_heap_config), .type_stable = type_stable});
    watched(ALL, allocate_many, NULL);
    CHECK_UINT(blocks_in_use(made.interp), 300);
    /* Nobody's by now: freed from abroad, then taken over. */
    for (int i = 0; i < 100; i++) {
        memset(made.blocks[i], 0xC3, 500);
        pyrt_free(made.blocks[i]);
        CHECK(is_filled(made.blocks[i], 0, type_stable ? 32 : 0, 0xC3));
        CHECK(is_filled(made.blocks[i], type_stable ? 32 : 0, 500, DEAD));
    }
    pyrt_free(made.blocks[50]);
    EXPECT_REPORT("is free already");
    CHECK_UINT(blocks_in_use(made.interp), 200);
    pyrt_thread *thread = pyrt_thread_ensure(made.interp);
    for (int i = 0; i < 50; i++) {
        made.blocks[i] = pyrt_heap_calloc(thread, made.heap, 1, 500);
        CHECK(is_filled(made.blocks[i], 0, 500, 0));
        check_page(made.blocks[i]);
    }
    CHECK_UINT(blocks_in_use(made.interp), 250);
    pyrt_free(made.blocks[0]);
    pyrt_free(made.blocks[0]);
    EXPECT_REPORT("is free already");
    pyrt_heap_destroy(made.heap);
    CHECK_UINT(blocks_in_use(made.interp), 0);
    pyrt_thread_release(thread);
    CHECK_OK(pyrt_interp_delete(made.interp));
    runtime_down();
}

TEST(watched_pages_outlive_their_thread_and_are_taken_over)
{
    live_and_die(false);
    live_and_die(true);
}

TEST(what_an_interpreter_leaves_is_counted_and_still_watched)
{
    runtime_up();
    made.interp = pyrt_interp_new(NULL);
    made.heap = pyrt_heap_new(made.interp, NULL);
    watched(ALL, allocate_many, NULL);
    CHECK_OK(pyrt_interp_delete(made.interp));
    EXPECT_REPORT("300 blocks");
    pyrt_free(made.blocks[7]);
    pyrt_free(made.blocks[7]);
    EXPECT_REPORT("is free already");
    runtime_down();
}

/* ---- no memory --------------------------------------------------------------------------------------------------- */

static bool
allocate_watched(void)
{
    pyrt_interp *interp = pyrt_interp_new(NULL);
    if (interp == NULL) {
        return false;
    }
    bool good = false;
    CHECK_OK(pyrt_heap_debug(ALL));
    pyrt_heap *heap = pyrt_heap_new(interp, NULL);
    pyrt_thread *thread = pyrt_thread_ensure(interp);
    if (heap != NULL && thread != NULL) {
        good = true;
        for (size_t size = 1; size < 3000000; size *= 3) {
            void *block = pyrt_heap_calloc(thread, heap, 1, size);
            good &= block != NULL;
            CHECK(block == NULL || is_filled(block, 0, size, 0));
            pyrt_free(block);
        }
    }
    CHECK_OK(pyrt_heap_debug(0));
    if (thread != NULL) {
        pyrt_thread_release(thread);
    }
    pyrt_heap_delete(heap);
    CHECK_OK(pyrt_interp_delete(interp));
    return good;
}

TEST(every_allocation_may_fail)
{
    /* A page that cannot be watched for want of memory is not: that is no failure. */
    static const fault_plan plan = {.operation = allocate_watched};
    CHECK(fault_everywhere(&plan, FAULT_FROM_ON) > 10);
}
