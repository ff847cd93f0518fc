/* test_heap_released.c -- what threads keep of heaps that have ended, or sleep, or are gone themselves, goes back all the same: by
 * barriers, and by who ends the heap.
 */
#include "support.h"

#include "heaps.h"
#include "steps.h"
#include "workers.h"

#include <string.h>
#include <sys/mman.h>

enum { BLOCKS = 400, SIZE = 40000, ROUNDS = 2000 };

static struct {
    pyrt_interp *interp;
    pyrt_heap *heap;
    pyrt_thread *thread; /* the test's own, detached when others are to be alone */
    worker other;
    pyrt_thread *others;
    void *blocks[BLOCKS];
} w;

static pyrt_memory_stats
figures(void)
{
    pyrt_memory_stats stats = {.struct_size = sizeof(stats)};
    pyrt_interp_memory_stats(w.interp, &stats);
    return stats;
}

static void
allocate_all(void *unused)
{
    (void)unused;
    for (int i = 0; i < BLOCKS; i++) {
        w.blocks[i] = pyrt_heap_malloc(w.others, w.heap, SIZE);
        CHECK(w.blocks[i] != NULL);
        memset(w.blocks[i], 1, SIZE);
    }
}

/* Also by an OS thread that has no state: that one takes nothing over. */
static void
free_all(void *unused)
{
    (void)unused;
    for (int i = 0; i < BLOCKS; i++) {
        pyrt_free(w.blocks[i]);
    }
}

/* With another thread, which is attached. */
static void
begin_with_another(bool type_stable)
{
    runtime_up();
    memset(&w, 0, sizeof(w));
    w.interp = pyrt_interp_main();
    w.heap = new_heap(w.interp, 0, type_stable);
    w.thread = pyrt_thread_ensure(w.interp);
    worker_start(&w.other);
    worker_do(&w.other, attach_new, &w.others);
}

/* With another thread, which has all the blocks. */
static void
begin(bool type_stable)
{
    begin_with_another(type_stable);
    worker_do(&w.other, allocate_all, NULL);
    CHECK(figures().page_bytes >= (uint64_t)BLOCKS * SIZE);
}

static void
end(void)
{
    pyrt_thread_release(w.thread);
    runtime_down();
}

/* Nothing is left, but for the pages that threads keep for the next block. */
static void
check_all_is_back(void)
{
    pyrt_memory_stats stats = figures();
    CHECK_UINT(stats.held_bytes, 0);
    CHECK_UINT(stats.page_bytes, 0);
    CHECK_UINT(stats.pages, 0);
    CHECK_UINT(stats.abandoned_segments, 0);
}

/* The test's own thread is the reader. */
static uint64_t
let_the_other_end_while_we_read(void)
{
    worker_do(&w.other, free_all, NULL);
    uint64_t held = figures().held_bytes;
    CHECK(held >= (uint64_t)(BLOCKS - 1) * SIZE);
    worker_do(&w.other, delete_attached, w.others);
    return held;
}

TEST(what_an_ended_thread_held_is_held_until_a_barrier)
{
    begin(true);
    uint64_t held = let_the_other_end_while_we_read();
    CHECK(figures().held_bytes >= held);
    CHECK_UINT(figures().held_bytes, figures().page_bytes);
    CHECK(figures().abandoned_segments != 0);
    CHECK_OK(pyrt_qsbr_barrier(w.thread));
    check_all_is_back();
    pyrt_heap_destroy(w.heap);
    worker_end(&w.other);
    end();
}

TEST(or_until_somebody_processes_who_has_no_heap)
{
    begin(true);
    (void)let_the_other_end_while_we_read();
    CHECK_UINT(pyrt_process_delayed(w.thread), 0);
    check_all_is_back();
    pyrt_heap_destroy(w.heap);
    worker_end(&w.other);
    end();
}

TEST(or_until_somebody_who_ends_a_heap)
{
    begin(true);
    (void)let_the_other_end_while_we_read();
    uint64_t held = figures().held_bytes;
    pyrt_heap_delete(new_heap(w.interp, 0, false));
    CHECK_UINT(figures().held_bytes, held);
    pyrt_safepoint(w.thread);
    pyrt_heap_delete(new_heap(w.interp, 0, false));
    check_all_is_back();
    pyrt_heap_destroy(w.heap);
    worker_end(&w.other);
    end();
}

TEST(it_counts_for_who_takes_it_over)
{
    begin(true);
    (void)let_the_other_end_while_we_read();
    uint64_t held = figures().held_bytes;
    uint64_t segments = figures().abandoned_segments;
    /* A block of another size: the segments are looked through for it, a few at a time, and their pages go on waiting. */
    void *block = pyrt_heap_malloc(w.thread, w.heap, 100);
    CHECK(block != NULL);
    CHECK(figures().abandoned_segments < segments);
    CHECK_UINT(figures().held_bytes, held);
    pyrt_free(block);
    pyrt_heap_destroy(w.heap);
    pyrt_safepoint(w.thread);
    CHECK_OK(pyrt_qsbr_barrier(w.thread));
    CHECK_OK(pyrt_qsbr_barrier(w.thread));
    check_all_is_back();
    worker_end(&w.other);
    end();
}

static void
free_what_an_ended_thread_left(bool type_stable)
{
    begin(type_stable);
    worker_do(&w.other, delete_attached, w.others);
    CHECK_UINT(figures().held_bytes, 0);
    worker_do(&w.other, free_all, NULL);
    CHECK(figures().page_bytes >= (uint64_t)BLOCKS * SIZE);
    CHECK_OK(pyrt_qsbr_barrier(w.thread));
    check_all_is_back();
    pyrt_heap_destroy(w.heap);
    worker_end(&w.other);
    end();
}

TEST(blocks_of_ended_threads_that_nobody_took_over_go_with_a_barrier)
{
    free_what_an_ended_thread_left(false);
}

TEST(so_do_those_that_readers_may_look_at)
{
    free_what_an_ended_thread_left(true);
}

TEST(so_it_is_when_pages_are_watched)
{
    CHECK_OK(pyrt_heap_debug(PYRT_HEAP_DEBUG_FILL));
    free_what_an_ended_thread_left(true);
    free_what_an_ended_thread_left(false);
    CHECK_OK(pyrt_heap_debug(0));
}

static size_t
resident_in(const char *segment)
{
    static unsigned char pages[PYRT_HEAP_SEGMENT / 4096];
    CHECK(mincore((void *)(uintptr_t)segment, PYRT_HEAP_SEGMENT, pages) == 0);
    size_t count = 0;
    for (size_t i = 0; i < sizeof(pages); i++) {
        count += pages[i] & 1;
    }
    return count;
}

/* Its pages went with it, but nobody takes from their segment any more, in which one is left. */
TEST(what_an_ended_thread_had_freed_goes_back_to_the_system)
{
    begin(false);
    char *last = w.blocks[0];
    const char *segment = (const char *)((uintptr_t)last & ~((uintptr_t)PYRT_HEAP_SEGMENT - 1));
    w.blocks[0] = NULL;
    CHECK(resident_in(segment) > 4 * SIZE / 4096);
    worker_do(&w.other, free_all, NULL);
    worker_do(&w.other, delete_attached, w.others);
    CHECK_UINT(figures().pages, 1);
    CHECK_OK(pyrt_qsbr_barrier(w.thread));
    CHECK_UINT(figures().pages, 1);
    CHECK(resident_in(segment) * 4096 <= figures().page_bytes);
    pyrt_free(last);
    pyrt_heap_destroy(w.heap);
    check_all_is_back();
    worker_end(&w.other);
    end();
}

TEST(a_destroyed_heap_takes_with_it_what_an_ended_thread_left)
{
    begin(false);
    worker_do(&w.other, delete_attached, w.others);
    pyrt_heap_destroy(w.heap);
    check_all_is_back();
    worker_end(&w.other);
    end();
}

TEST(of_a_type_stable_one_when_readers_have_passed)
{
    begin(true);
    worker_do(&w.other, delete_attached, w.others);
    pyrt_heap_destroy(w.heap);
    CHECK_UINT(figures().held_bytes, figures().page_bytes);
    CHECK(figures().held_bytes >= (uint64_t)BLOCKS * SIZE);
    CHECK_OK(pyrt_qsbr_barrier(w.thread));
    check_all_is_back();
    worker_end(&w.other);
    end();
}

TEST(what_a_sleeping_thread_holds_goes_without_it)
{
    begin(true);
    worker_do(&w.other, free_all, NULL);
    worker_do(&w.other, detach, w.others);
    CHECK(figures().held_bytes >= (uint64_t)(BLOCKS - 1) * SIZE);
    CHECK_OK(pyrt_qsbr_barrier(w.thread));
    /* It may keep one page for the next block of that size, which is not held. */
    CHECK_UINT(figures().held_bytes, 0);
    CHECK(figures().pages <= 1);
    pyrt_heap_delete(w.heap);
    CHECK_OK(pyrt_qsbr_barrier(w.thread));
    check_all_is_back();
    worker_do(&w.other, delete_state, w.others);
    worker_end(&w.other);
    end();
}

TEST(a_sleeping_thread_keeps_nothing_of_an_ended_heap)
{
    begin(false);
    worker_do(&w.other, detach, w.others);
    pyrt_heap_delete(w.heap);
    CHECK(figures().page_bytes >= (uint64_t)BLOCKS * SIZE);
    CHECK_UINT(figures().heaps, 1);
    free_all(NULL);
    CHECK_OK(pyrt_qsbr_barrier(w.thread));
    check_all_is_back();
    CHECK_UINT(figures().heaps, 0);
    worker_do(&w.other, delete_state, w.others);
    worker_end(&w.other);
    end();
}

TEST(one_that_is_attached_is_asked)
{
    begin(true);
    worker_do(&w.other, free_all, NULL);
    pyrt_detach(w.thread);
    pyrt_heap_delete(w.heap);
    /* It stands somewhere in its own lists, for all that others know. */
    CHECK(figures().held_bytes >= (uint64_t)(BLOCKS - 1) * SIZE);
    worker_do(&w.other, pass_quiescent_state, w.others);
    worker_do(&w.other, pass_safepoint, w.others);
    CHECK_UINT(figures().held_bytes, 0);
    worker_do(&w.other, delete_attached, w.others);
    check_all_is_back();
    worker_end(&w.other);
    pyrt_attach(w.thread);
    end();
}

/* ---- in a stopped world ------------------------------------------------------------------------------------------ */

enum { SMALL = 100 };

static struct {
    pyrt_heap *heap;
    worker ender;
    size_t seen;
} v;

/* Blocks of both heaps, so that their pages are side by side in a segment. */
static void
allocate_of_both(void *unused)
{
    (void)unused;
    for (int i = 0; i < BLOCKS; i++) {
        w.blocks[i] = pyrt_heap_malloc(w.others, w.heap, SMALL);
        CHECK(w.blocks[i] != NULL && pyrt_heap_malloc(w.others, v.heap, SIZE) != NULL);
    }
}

static void
destroy_heap(void *heap)
{
    pyrt_heap_destroy(heap);
}

static bool
count_while_another_ends_a_heap(void *block, size_t size, uint8_t tag, void *unused)
{
    (void)block, (void)size, (void)unused;
    CHECK_UINT(tag, 0);
    if (v.seen++ == 0) {
        worker_do(&v.ender, destroy_heap, v.heap);
    }
    return true;
}

/* By an OS thread without a state: that one does not stand still. */
static void
visit_while_another_ends_a_heap(void (*other_goes)(void *))
{
    runtime_up();
    memset(&w, 0, sizeof(w));
    w.interp = pyrt_interp_main();
    w.heap = new_heap(w.interp, 0, false);
    v.heap = new_heap(w.interp, 1, false);
    v.seen = 0;
    w.thread = pyrt_thread_ensure(w.interp);
    worker_start(&v.ender);
    worker_start(&w.other);
    worker_do(&w.other, attach_new, &w.others);
    worker_do(&w.other, allocate_of_both, NULL);
    worker_do(&w.other, other_goes, w.others);
    uint64_t bytes = figures().page_bytes;
    CHECK_OK(pyrt_stop_the_world(w.interp));
    CHECK_OK(pyrt_heap_visit(w.interp, 1, count_while_another_ends_a_heap, NULL));
    CHECK_UINT(v.seen, BLOCKS);
    CHECK_UINT(figures().page_bytes, bytes);
    pyrt_start_the_world(w.interp);
    CHECK_OK(pyrt_qsbr_barrier(w.thread));
    CHECK(figures().page_bytes < (uint64_t)BLOCKS * SIZE);
    CHECK_UINT(figures().heaps, 1);
    pyrt_heap_destroy(w.heap);
    check_all_is_back();
    if (other_goes == detach) {
        worker_do(&w.other, delete_state, w.others);
    }
    worker_end(&w.other);
    worker_end(&v.ender);
    end();
}

TEST(who_looks_at_sleeping_threads_in_a_stopped_world_finds_them_still)
{
    visit_while_another_ends_a_heap(detach);
}

TEST(so_does_who_looks_at_what_ended_threads_have_left)
{
    visit_while_another_ends_a_heap(delete_attached);
}

/* In more than one segment. */
enum { LARGE = 300000, LARGE_ONES = 40, SEGMENT_SHIFT = 22 };

static void
allocate_large_ones(void *unused)
{
    (void)unused;
    for (int i = 0; i < LARGE_ONES; i++) {
        w.blocks[i] = pyrt_heap_malloc(w.others, w.heap, LARGE);
        CHECK(w.blocks[i] != NULL);
    }
}

static bool
is_beside(const void *one, const void *other)
{
    return (uintptr_t)one >> SEGMENT_SHIFT == (uintptr_t)other >> SEGMENT_SHIFT;
}

static void
free_all_beside(void *visited)
{
    for (int i = 0; i < LARGE_ONES; i++) {
        if (is_beside(w.blocks[i], visited)) {
            pyrt_free(w.blocks[i]);
            w.blocks[i] = NULL;
        }
    }
}

static bool
count_while_another_frees(void *block, size_t size, uint8_t tag, void *unused)
{
    (void)size, (void)tag, (void)unused;
    if (v.seen++ == 0) {
        worker_do(&v.ender, free_all_beside, block);
        return true;
    }
    for (int i = 0; i < LARGE_ONES; i++) {
        if (w.blocks[i] == block) {
            return true;
        }
    }
    CHECK(!"a block that is in use");
    return false;
}

/* By an OS thread without a state: each of these has a page of its own, which goes with it, but not now. */
TEST(who_looks_finds_what_ended_threads_have_left_still_while_others_free_it)
{
    runtime_up();
    memset(&w, 0, sizeof(w));
    w.interp = pyrt_interp_main();
    w.heap = new_heap(w.interp, 0, false);
    v.seen = 0;
    w.thread = pyrt_thread_ensure(w.interp);
    worker_start(&v.ender);
    worker_start(&w.other);
    worker_do(&w.other, attach_new, &w.others);
    worker_do(&w.other, allocate_large_ones, NULL);
    worker_do(&w.other, delete_attached, w.others);
    CHECK_OK(pyrt_stop_the_world(w.interp));
    CHECK_OK(pyrt_heap_visit(w.interp, 1, count_while_another_frees, NULL));
    pyrt_start_the_world(w.interp);
    size_t left = 0;
    for (int i = 0; i < LARGE_ONES; i++) {
        left += w.blocks[i] != NULL;
    }
    CHECK(left != 0 && left != LARGE_ONES);
    CHECK_UINT(v.seen, left + 1);
    CHECK_OK(pyrt_qsbr_barrier(w.thread));
    CHECK_UINT(figures().pages, left);
    for (int i = 0; i < LARGE_ONES; i++) {
        pyrt_free(w.blocks[i]);
    }
    pyrt_heap_destroy(w.heap);
    check_all_is_back();
    worker_end(&w.other);
    worker_end(&v.ender);
    end();
}

/* ---- what readers saw before ------------------------------------------------------------------------------------- */

enum { FEW = 100 };

static void
allocate_few(void)
{
    for (int i = 0; i < FEW; i++) {
        w.blocks[i] = pyrt_heap_malloc(w.thread, w.heap, 3000);
        CHECK(w.blocks[i] != NULL);
    }
}

/* The page of it was empty once, and readers of that time have passed. */
TEST(a_block_that_goes_with_its_heap_waits_for_readers_of_today)
{
    runtime_up();
    memset(&w, 0, sizeof(w));
    w.interp = pyrt_interp_main();
    w.heap = new_heap(w.interp, 0, true);
    w.thread = pyrt_thread_ensure(w.interp);
    allocate_few();
    for (int i = 0; i < FEW; i++) {
        pyrt_free(w.blocks[i]);
    }
    CHECK(figures().held_bytes != 0);
    pyrt_qsbr_quiescent_state(w.thread);
    CHECK(figures().held_bytes != 0);
    CHECK(pyrt_heap_malloc(w.thread, w.heap, 3000) != NULL);
    pyrt_heap_destroy(w.heap);
    CHECK_UINT(figures().pages, 1);
    CHECK_UINT(figures().held_bytes, figures().page_bytes);
    CHECK_OK(pyrt_qsbr_barrier(w.thread));
    check_all_is_back();
    end();
}

/* ---- what a thread is asked for --------------------------------------------------------------------------------- */

static void
wait_for_a_barrier(void *unused)
{
    (void)unused;
    CHECK_OK(pyrt_qsbr_barrier(NULL));
}

/* The barrier takes its queue, and asks it for the rest then. It holds something for readers, too: itself. */
static void
pass_until_asked_for_memory(void *type_stable)
{
    WAIT_UNTIL((pyrt_load_acquire(&w.others->slot.flags) & PYRT_FLAG_COLLECT) != 0);
    pyrt_safepoint(w.others);
    void *held = pyrt_heap_malloc(w.others, type_stable, LARGE);
    CHECK(held != NULL);
    pyrt_free(held);
    WAIT_UNTIL((pyrt_load_acquire(&w.others->slot.flags) & PYRT_FLAG_RETIRE) != 0);
    CHECK(figures().held_bytes != 0);
}

static void
pass_and_look(void *unused)
{
    (void)unused;
    pyrt_safepoint(w.others);
    CHECK(figures().page_bytes < (uint64_t)BLOCKS * SIZE);
}

TEST(what_a_barrier_has_asked_for_is_given_also_when_a_heap_has_ended_since)
{
    worker waits;
    runtime_up();
    memset(&w, 0, sizeof(w));
    w.interp = pyrt_interp_main();
    w.heap = new_heap(w.interp, 0, false);
    pyrt_heap *type_stable = new_heap(w.interp, 0, true);
    worker_start(&waits);
    worker_start(&w.other);
    worker_do(&w.other, attach_new, &w.others);
    worker_do(&w.other, allocate_all, NULL);
    free_all(NULL);
    worker_begin(&waits, wait_for_a_barrier, NULL);
    worker_do(&w.other, pass_until_asked_for_memory, type_stable);
    CHECK(figures().page_bytes >= (uint64_t)BLOCKS * SIZE);
    pyrt_heap_delete(new_heap(w.interp, 0, false));
    worker_do(&w.other, pass_and_look, NULL);
    worker_finish(&waits);
    worker_end(&waits);
    worker_do(&w.other, delete_attached, w.others);
    worker_end(&w.other);
    pyrt_heap_destroy(type_stable);
    pyrt_heap_destroy(w.heap);
    check_all_is_back();
    runtime_down();
}

/* ---- reports ----------------------------------------------------------------------------------------------------- */

static int told;

enum { MOST_PASSED = 200 };

/* Looks at the library from within: it holds no lock. In the end the blocks that were lost are told of. */
static void
look_around(const char *text, void *unused)
{
    (void)unused;
    if (strstr(text, "freed twice") == NULL) {
        CHECK(strstr(text, "6 blocks of its heaps in use") != NULL);
        return;
    }
    CHECK(pyrt_thread_list(w.interp, NULL, 0) != 0);
    CHECK(figures().pages != 0);
    told++;
}

/* In two pages, of two sizes. */
static void
free_some_twice(void *unused)
{
    (void)unused;
    for (int i = 0; i < 2; i++) {
        pyrt_free(w.blocks[3 * i]);
        pyrt_free(w.blocks[3 * i + 1]);
        pyrt_free(w.blocks[3 * i]);
    }
}

static void
allocate_some(void *unused)
{
    (void)unused;
    for (int i = 0; i < 6; i++) {
        w.blocks[i] = pyrt_heap_malloc(w.others, w.heap, i < 3 ? 100 : 1000);
        CHECK(w.blocks[i] != NULL);
    }
}

static void
report_what_is_found(void (*other_goes)(void *))
{
    begin_with_another(false);
    worker_do(&w.other, allocate_some, NULL);
    worker_do(&w.other, other_goes, w.others);
    worker_do(&w.other, free_some_twice, NULL);
    told = 0;
    pyrt_set_report_hook(look_around, NULL);
    pyrt_heap_delete(w.heap);
    CHECK_INT(told, 2);
    if (other_goes == detach) {
        worker_do(&w.other, delete_state, w.others);
    }
    worker_end(&w.other);
    end();
}

TEST(damage_that_is_found_in_a_sleeping_thread_is_told_without_a_lock)
{
    report_what_is_found(detach);
}

TEST(so_is_that_in_what_an_ended_one_has_left)
{
    report_what_is_found(delete_attached);
}

static void
free_first_twice(void *unused)
{
    (void)unused;
    pyrt_free(w.blocks[0]);
    pyrt_free(w.blocks[1]);
    pyrt_free(w.blocks[0]);
}

static void
free_large_one(void *block)
{
    pyrt_free(block);
}

static void
allocate_a_large_one_beside(void *unused)
{
    allocate_some(unused);
    w.blocks[6] = pyrt_heap_malloc(w.others, w.heap, LARGE);
    CHECK(w.blocks[6] != NULL && is_beside(w.blocks[0], w.blocks[6]));
}

/* The page of a large block goes with it, and the segment is looked at for more. */
TEST(so_is_that_which_is_found_beside_a_large_block_that_goes)
{
    begin_with_another(false);
    worker_do(&w.other, allocate_a_large_one_beside, NULL);
    worker_do(&w.other, delete_attached, w.others);
    worker_do(&w.other, free_some_twice, NULL);
    told = 0;
    pyrt_set_report_hook(look_around, NULL);
    worker_do(&w.other, free_large_one, w.blocks[6]);
    CHECK_INT(told, 2);
    CHECK_UINT(figures().pages, 2);
    pyrt_heap_destroy(w.heap);
    worker_end(&w.other);
    end();
}

/* The only block in use of one of two pages; the other is damaged. */
static void *in_next_page;

static void
free_in_next_page(const char *text, void *unused)
{
    (void)text, (void)unused;
    pyrt_free(in_next_page);
    in_next_page = NULL;
    told++;
}

static void
have_two_pages(void *unused)
{
    (void)unused;
    int count = 0;
    do {
        w.blocks[count] = pyrt_heap_malloc(w.others, w.heap, 1000);
        CHECK(w.blocks[count] != NULL);
    } while (figures().pages == 1 && ++count < BLOCKS - 2);
    CHECK_UINT(figures().pages, 2);
    in_next_page = w.blocks[0];
    for (int i = 1; i < count; i++) {
        pyrt_free(w.blocks[i]);
    }
    w.blocks[0] = w.blocks[count];
    for (int i = 1; i < 3; i++) {
        w.blocks[i] = pyrt_heap_malloc(w.others, w.heap, 1000);
        CHECK(w.blocks[i] != NULL);
    }
    CHECK_UINT(figures().pages, 2);
}

static void
pass_until(void *done)
{
    while (pyrt_load_acquire((bool *)done) == false) {
        pyrt_safepoint(w.others);
    }
    /* It may have found readers in the way. */
    for (int i = 0; i < MOST_PASSED; i++) {
        pyrt_safepoint(w.others);
    }
}

/* A thread that a barrier asks looks at its pages itself. */
TEST(a_hook_may_free_where_a_thread_that_is_asked_looks)
{
    bool done = false;
    runtime_up();
    memset(&w, 0, sizeof(w));
    w.interp = pyrt_interp_main();
    w.heap = new_heap(w.interp, 0, false);
    worker_start(&w.other);
    worker_do(&w.other, attach_new, &w.others);
    worker_do(&w.other, have_two_pages, NULL);
    free_first_twice(NULL);
    told = 0;
    pyrt_set_report_hook(free_in_next_page, NULL);
    worker_begin(&w.other, pass_until, &done);
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    pyrt_store_release(&done, true);
    worker_finish(&w.other);
    CHECK_INT(told, 1);
    /* The damaged one; the other has become empty. */
    CHECK_UINT(figures().pages, 1);
    worker_do(&w.other, delete_attached, w.others);
    pyrt_heap_destroy(w.heap);
    CHECK_UINT(figures().pages, 0);
    worker_end(&w.other);
    runtime_down();
}

static void
free_first(void *unused)
{
    (void)unused;
    pyrt_free(w.blocks[0]);
}

static void
allocate_first(void *unused)
{
    (void)unused;
    w.blocks[0] = pyrt_heap_malloc(w.others, w.heap, 1000);
    CHECK(w.blocks[0] != NULL);
}

/* The one who takes its page over to free it finds that it is free, and that the page is empty. */
static void
free_the_last_of_an_ended_thread_twice(bool type_stable)
{
    runtime_up();
    memset(&w, 0, sizeof(w));
    w.interp = pyrt_interp_main();
    w.heap = new_heap(w.interp, 0, type_stable);
    w.thread = pyrt_thread_ensure(w.interp);
    /* So that the segment that is taken over does not stay. */
    void *own = pyrt_heap_malloc(w.thread, w.heap, 100);
    CHECK(own != NULL);
    worker_start(&w.other);
    worker_do(&w.other, attach_new, &w.others);
    worker_do(&w.other, allocate_first, NULL);
    worker_do(&w.other, delete_attached, w.others);
    worker_do(&w.other, free_first, NULL);
    CHECK_UINT(figures().pages, 2);
    free_first(NULL);
    EXPECT_REPORT("pyrt_free", "nothing was freed");
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    CHECK_UINT(figures().pages, 1);
    pyrt_free(own);
    pyrt_heap_destroy(w.heap);
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    check_all_is_back();
    worker_end(&w.other);
    end();
}

TEST(the_last_block_of_an_ended_thread_is_not_freed_twice)
{
    free_the_last_of_an_ended_thread_twice(false);
    free_the_last_of_an_ended_thread_twice(true);
}

enum { OF_HOOK = 3 };

static void *of_hook[OF_HOOK];

/* Allocates there, too: what the hook is told of is found when a page is looked for. */
static void
allocate_around(const char *text, void *unused)
{
    (void)text, (void)unused;
    for (int i = 0; i < OF_HOOK; i++) {
        of_hook[i] = pyrt_heap_malloc(w.thread, w.heap, 1000);
        CHECK(of_hook[i] != NULL);
    }
    told++;
}

/* So many blocks are in one page. */
static int
fill_a_page(void)
{
    int count = 0;
    do {
        w.blocks[count] = pyrt_heap_malloc(w.thread, w.heap, 1000);
        CHECK(w.blocks[count] != NULL);
    } while (figures().pages == 1 && ++count < BLOCKS);
    return count;
}

TEST(a_hook_may_allocate_where_the_damage_was_found)
{
    runtime_up();
    memset(&w, 0, sizeof(w));
    w.interp = pyrt_interp_main();
    w.thread = pyrt_thread_ensure(w.interp);
    w.heap = new_heap(w.interp, 0, false);
    int of_page = fill_a_page();
    pyrt_heap_destroy(w.heap);
    w.heap = new_heap(w.interp, 0, false);
    for (int i = 0; i < of_page; i++) {
        w.blocks[i] = pyrt_heap_malloc(w.thread, w.heap, 1000);
        CHECK(w.blocks[i] != NULL);
    }
    CHECK_UINT(figures().pages, 1);
    worker_start(&w.other);
    worker_do(&w.other, free_first_twice, NULL);
    worker_end(&w.other);
    told = 0;
    pyrt_set_report_hook(allocate_around, NULL);
    char *one_more = pyrt_heap_malloc(w.thread, w.heap, 1000);
    CHECK(one_more != NULL && told == 1);
    CHECK_UINT(figures().pages, 2);
    for (int i = 0; i < OF_HOOK; i++) {
        CHECK(of_hook[i] != one_more);
        pyrt_free(of_hook[i]);
    }
    pyrt_free(one_more);
    pyrt_heap_destroy(w.heap);
    check_all_is_back();
    end();
}

/* ---- all at once ------------------------------------------------------------------------------------------------- */

enum { THREADS = 4, OF_EACH = 40, LOOKS = 100 };

/* One in four gives back and looks at the figures all the time; the others come and go, sleep while they hold something, and leave blocks for others to
 * free, full of their own address. */
static void
come_and_go(void *arg, int number)
{
    void **shelf = arg;
    for (int round = 0; round < ROUNDS * (int)test_scale(); round++) {
        pyrt_thread *thread = pyrt_thread_new(w.interp);
        pyrt_attach(thread);
        if (number == 0) {
            pyrt_heap_delete(new_heap(w.interp, 0, true));
            CHECK_OK(pyrt_qsbr_barrier(thread));
            for (int i = 0; i < LOOKS; i++) {
                (void)figures();
            }
        }
        for (int i = 0; number != 0 && i < OF_EACH; i++) {
            uintptr_t *block = pyrt_heap_malloc(thread, w.heap, 3000 + (size_t)(round % 5) * 9000);
            CHECK(block != NULL);
            block[0] = block[200] = (uintptr_t)block;
            uintptr_t *before = pyrt_exchange_seq_cst(&shelf[i], (void *)block);
            if (before != NULL) {
                CHECK_UINT(before[0], (uintptr_t)before);
                CHECK_UINT(before[200], (uintptr_t)before);
                pyrt_free(before);
            }
            if (i % 8 == 0) {
                pyrt_detach(thread);
                pyrt_attach(thread);
            }
        }
        pyrt_detach(thread);
        pyrt_thread_delete(thread);
    }
}

static void
all_at_once(bool type_stable)
{
    static void *shelf[OF_EACH];
    runtime_up();
    memset(&w, 0, sizeof(w));
    w.interp = pyrt_interp_main();
    w.heap = new_heap(w.interp, 0, type_stable);
    run_crowd(THREADS, come_and_go, shelf);
    for (int i = test_sabotage() != NULL && strcmp(test_sabotage(), "keep") == 0; i < OF_EACH; i++) {
        pyrt_free(shelf[i]);
        shelf[i] = NULL;
    }
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    check_all_is_back();
    pyrt_heap_destroy(w.heap);
    runtime_down();
}

TEST(threads_come_and_go_while_one_gives_back)
{
    all_at_once(true);
    all_at_once(false);
}

TEST(so_they_do_when_pages_are_watched)
{
    CHECK_OK(pyrt_heap_debug(PYRT_HEAP_DEBUG_CHECK));
    all_at_once(true);
    all_at_once(false);
    CHECK_OK(pyrt_heap_debug(0));
}
