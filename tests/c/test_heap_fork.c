/* test_heap_fork.c -- memory in the children of forks: what threads that are not there have left, and going on.
 *
 * In the child of a raw fork an attached thread may have stood in the middle of a list: its pages are frozen, and its blocks can
 * be freed but are not used again. In the child of pyrt_fork, and where a thread was detached, they are taken over.
 */
#include "mills.h"

#include "memory/heap_impl.h"

#include <string.h>
#include <unistd.h>

enum { THREADS = 3, BLOCKS = 400, GENERATIONS = 3 };

static struct {
    pyrt_interp *interp;
    pyrt_heap *heap, *stable;
    unsigned char *blocks[THREADS][BLOCKS]; /* of the process and of both heaps in turn; of size (i % 700) + 9 */
    worker workers[THREADS];
    pyrt_thread *threads[THREADS];
    bool over;   /* atomic, relaxed: nothing is handed over with it */
    int running; /* atomic: the blocks are there, seq_cst as release; pairs with the acquire of works_up */
    bool attached;
} w;

static bool
count_block(void *block, size_t size, uint8_t tag, void *arg)
{
    (void)block, (void)size, (void)tag;
    ++*(size_t *)arg;
    return true;
}

static size_t
blocks_in_use(void)
{
    size_t count = 0;
    CHECK_OK(pyrt_stop_the_world(w.interp));
    CHECK_OK(pyrt_heap_visit(w.interp, UINT32_MAX, count_block, &count));
    pyrt_start_the_world(w.interp);
    return count;
}

static pyrt_memory_stats
stats_now(void)
{
    pyrt_memory_stats stats = {.struct_size = sizeof(stats)};
    pyrt_interp_memory_stats(w.interp, &stats);
    return stats;
}

/* ---- threads that allocate --------------------------------------------------------------------------------------- */

static void *
allocate(pyrt_thread *thread, unsigned kind, size_t size)
{
    return kind % 3 == 0 ? pyrt_malloc(size) : pyrt_heap_malloc(thread, kind % 3 == 1 ? w.heap : w.stable, size);
}

/* Makes its blocks and goes on allocating and freeing until it is told to stop, or detaches. */
static void
work(void *arg)
{
    int number = (int)(intptr_t)arg;
    pyrt_thread *thread = pyrt_thread_new(w.interp);
    w.threads[number] = thread;
    pyrt_attach(thread);
    for (unsigned i = 0; i < BLOCKS; i++) {
        size_t size = i % 700 + 9;
        w.blocks[number][i] = allocate(thread, i, size);
        CHECK(w.blocks[number][i] != NULL);
        memset(w.blocks[number][i], (int)i, size);
    }
    pyrt_fetch_add_seq_cst(&w.running, 1);
    for (unsigned i = 0; w.attached && !pyrt_load_relaxed(&w.over); i++) {
        pyrt_free(allocate(thread, i, i % 3000));
        pyrt_safepoint(thread);
    }
    pyrt_detach(thread);
}

static void
end_work(void *arg)
{
    pyrt_thread_delete(w.threads[(intptr_t)arg]);
}

static void
works_up(bool attached)
{
    runtime_up();
    memset(&w, 0, sizeof(w));
    w.attached = attached;
    w.interp = pyrt_interp_main();
    w.heap = pyrt_heap_new(w.interp, NULL);
    w.stable =
        pyrt_heap_new(w.interp, &(pyrt_heap_config){.struct_size = sizeof(pyrt_heap_config), .tag = 1, .type_stable = true});
    for (int i = 0; i < THREADS; i++) {
        worker_start(&w.workers[i]);
        worker_begin(&w.workers[i], work, (void *)(intptr_t)i);
    }
    WAIT_UNTIL(pyrt_load_acquire(&w.running) == THREADS);
}

static void
free_all(void)
{
    for (int t = 0; t < THREADS; t++) {
        for (unsigned i = 0; i < BLOCKS; i++) {
            CHECK(w.blocks[t][i][i % 700] == (unsigned char)i);
            pyrt_free(w.blocks[t][i]);
        }
    }
}

static void
works_down(void)
{
    pyrt_store_relaxed(&w.over, true);
    for (int i = 0; i < THREADS; i++) {
        worker_finish(&w.workers[i]);
        worker_do(&w.workers[i], end_work, (void *)(intptr_t)i);
        worker_end(&w.workers[i]);
    }
    CHECK_UINT(blocks_in_use(), THREADS * (BLOCKS - (BLOCKS + 2) / 3));
    free_all();
    CHECK_UINT(blocks_in_use(), 0);
    runtime_down();
}

/* ---- the child --------------------------------------------------------------------------------------------------- */

static int generation;

/* The threads have been lost as they stood. Their blocks are freed, a third in each generation, and others allocated. */
static void
live_on(void)
{
    pyrt_thread *thread = pyrt_thread_ensure(w.interp);
    CHECK(thread != NULL);
    for (int t = 0; t < THREADS; t++) {
        for (unsigned i = (unsigned)generation; i < BLOCKS; i += GENERATIONS) {
            CHECK(w.blocks[t][i][i % 700] == (unsigned char)i);
            pyrt_free(w.blocks[t][i]);
        }
    }
    unsigned char *mine[BLOCKS];
    size_t before = blocks_in_use();
    for (unsigned i = 0; i < BLOCKS; i++) {
        mine[i] = allocate(thread, i + 1, i * 7 % 9000);
        CHECK(mine[i] != NULL);
        memset(mine[i], (int)i, i * 7 % 9000);
    }
    CHECK_UINT(blocks_in_use(), before + BLOCKS - BLOCKS / 3);
    pyrt_detach(thread);
    if (++generation < GENERATIONS) {
        in_a_child(fork, live_on);
    }
    pyrt_attach(thread);
    for (unsigned i = 0; i < BLOCKS; i++) {
        size_t size = i * 7 % 9000;
        CHECK(size == 0 || (mine[i][0] == (unsigned char)i && mine[i][size - 1] == (unsigned char)i));
        pyrt_free(mine[i]);
    }
    CHECK_UINT(blocks_in_use(), before);
    CHECK_OK(pyrt_qsbr_synchronize(thread));
    pyrt_thread_release(thread);
    CHECK_UINT(reports_pending(), 0);
}

TEST(three_generations_of_raw_forks_among_threads_that_allocate)
{
    works_up(true);
    for (int i = 0; i < 10; i++) {
        generation = 0;
        in_a_child(fork, live_on);
    }
    works_down();
}

/* Nothing was in the middle of anything: everything is found, taken over and freed to the last byte. */
static void
take_over(void)
{
    CHECK(stats_now().abandoned_segments > 0);
    CHECK_UINT(blocks_in_use(), THREADS * (BLOCKS - (BLOCKS + 2) / 3));
    pyrt_thread *thread = pyrt_thread_ensure(w.interp);
    uint64_t pages = stats_now().pages;
    void *block = pyrt_heap_malloc(thread, w.heap, 20);
    CHECK(stats_now().adopted_segments > 0);
    CHECK(stats_now().pages <= pages);
    pyrt_free(block);
    free_all();
    CHECK_UINT(blocks_in_use(), 0);
    pyrt_thread_release(thread);
    runtime_down();
}

TEST(what_detached_threads_had_is_taken_over_after_any_fork)
{
    works_up(false);
    for (int i = 0; i < THREADS; i++) {
        worker_finish(&w.workers[i]);
    }
    in_a_child(fork, take_over);
    in_a_child(pyrt_fork, take_over);
    works_down();
}

/* They stood in a pause. What they were about to free is counted still. */
static void
take_over_from_a_pause(void)
{
    CHECK(stats_now().abandoned_segments > 0);
    CHECK(blocks_in_use() >= THREADS * (BLOCKS - (BLOCKS + 2) / 3));
    CHECK(blocks_in_use() <= THREADS * (BLOCKS - (BLOCKS + 2) / 3) + THREADS);
    pyrt_thread *thread = pyrt_thread_ensure(w.interp);
    void *block = pyrt_heap_malloc(thread, w.heap, 20);
    CHECK(stats_now().adopted_segments > 0);
    pyrt_free(block);
    free_all();
    CHECK(blocks_in_use() <= THREADS);
    pyrt_thread_release(thread);
}

TEST(what_running_threads_had_is_taken_over_after_pyrt_fork)
{
    works_up(true);
    for (int i = 0; i < 10; i++) {
        in_a_child(pyrt_fork, take_over_from_a_pause);
    }
    works_down();
}

/* Nobody knows what of the frozen pages is in use: they stay, and that is nobody's mistake. */
static void
end_with_frozen_pages(void)
{
    unsigned char *block = w.blocks[1][100];
    pyrt_runtime_fini();
    CHECK(!pyrt_runtime_is_initialized());
    CHECK_UINT(reports_pending(), 0);
    CHECK(block[50] == 100);
    free_all();
}

TEST(a_child_can_end_the_runtime_with_what_lost_threads_had)
{
    works_up(true);
    in_a_child(fork, end_with_frozen_pages);
    works_down();
}

/* ---- an interpreter that ends in the child ----------------------------------------------------------------------- */

/* Each has a segment: one is of a thread that the fork loses, the other in the pool. */
static struct {
    pyrt_interp *interp;
    pyrt_heap *heap;
    pyrt_thread *thread;
    char *of_lost, *of_ended;
} two;

static void
attach_and_allocate(void *unused)
{
    (void)unused;
    two.thread = pyrt_thread_new(two.interp);
    pyrt_attach(two.thread);
    two.of_lost = pyrt_heap_malloc(two.thread, two.heap, 100);
    CHECK(two.of_lost != NULL);
}

static void
detach_and_end(void *unused)
{
    (void)unused;
    pyrt_detach(two.thread);
    pyrt_thread_delete(two.thread);
}

static uint64_t
left_of_ended(void)
{
    uint64_t place = 0;
    pyrt_ended_memory left = {.struct_size = sizeof(left)};
    CHECK_OK(pyrt_ended_memory_next(&place, &left));
    return left.blocks;
}

/* What the lost thread had is in no list of the pool. */
static void
end_and_free(void)
{
    CHECK_OK(pyrt_interp_delete(two.interp));
    EXPECT_REPORT("has ended with 1 block ");
    CHECK_UINT(left_of_ended(), 1);
    pyrt_free(two.of_lost);
    CHECK_UINT(left_of_ended(), 1);
    pyrt_free(two.of_ended);
    CHECK_UINT(left_of_ended(), 0);
    CHECK_UINT(reports_pending(), 0);
}

TEST(a_block_of_a_lost_thread_goes_after_its_interpreter_without_harm_to_the_pool)
{
    for (unsigned watched = 0; watched < 2; watched++) {
        CHECK_OK(pyrt_heap_debug(watched ? PYRT_HEAP_DEBUG_CHECK : 0));
        runtime_up();
        two.interp = pyrt_interp_new(NULL);
        two.heap = pyrt_heap_new(two.interp, NULL);
        worker lost;
        worker_start(&lost);
        worker_do(&lost, attach_and_allocate, NULL);
        pyrt_thread *thread = pyrt_thread_ensure(two.interp);
        two.of_ended = pyrt_heap_malloc(thread, two.heap, 100);
        CHECK(two.of_ended != NULL);
        pyrt_thread_release(thread);
        in_a_child(fork, end_and_free);
        pyrt_free(two.of_ended);
        pyrt_free(two.of_lost);
        worker_do(&lost, detach_and_end, NULL);
        worker_end(&lost);
        CHECK_OK(pyrt_interp_delete(two.interp));
        runtime_down();
    }
    CHECK_OK(pyrt_heap_debug(0));
}
