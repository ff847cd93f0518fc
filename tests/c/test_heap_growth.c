/* test_heap_growth.c -- programs whose live blocks stay few, or grow slowly, while threads come, go and free what others have made:
 * what they take stays near what they use, whoever frees, and however long it goes on. Of the process's domain and of a heap.
 */
#include "support.h"

#include "heaps.h"
#include "workers.h"

#include <string.h>

enum { MIB = 1 << 20, SEGMENT = 4 * MIB, LIVES = 1500, ROUNDS = 20, MOST = 8192 };

static struct {
    pyrt_interp *interp; /* NULL: blocks are the process's */
    pyrt_heap *heap;
    void *blocks[MOST];
    int count;
    size_t size;
} w;

static void
begin(bool of_heap, bool type_stable)
{
    memset(&w, 0, sizeof(w));
    if (of_heap) {
        runtime_up();
        w.interp = pyrt_interp_main();
        w.heap = new_heap(w.interp, 0, type_stable);
    }
}

static void
end(void)
{
    if (w.interp != NULL) {
        pyrt_heap_destroy(w.heap);
        runtime_down();
    }
}

static pyrt_memory_stats
figures(void)
{
    pyrt_memory_stats stats = {.struct_size = sizeof(stats)};
    pyrt_interp_memory_stats(w.interp, &stats);
    return stats;
}

/* By a thread that has allocated before, and so may take over what ended ones have left; it has a state of the interpreter. */
static pyrt_thread *
my_state(void)
{
    return w.interp == NULL ? NULL : pyrt_thread_ensure(w.interp);
}

static void
leave_state(pyrt_thread *or_null)
{
    if (or_null != NULL) {
        pyrt_thread_release(or_null);
    }
}

static void *
allocate(pyrt_thread *or_null, size_t size)
{
    char *block = or_null == NULL ? pyrt_malloc(size) : pyrt_heap_malloc(or_null, w.heap, size);
    CHECK(block != NULL);
    block[0] = block[size - 1] = 1;
    return block;
}

static void
one_more(void *unused)
{
    (void)unused;
    pyrt_thread *thread = my_state();
    w.blocks[w.count++] = allocate(thread, w.size);
    leave_state(thread);
}

static void
fill(void *unused)
{
    (void)unused;
    pyrt_thread *thread = my_state();
    for (int i = 0; i < w.count; i++) {
        w.blocks[i] = allocate(thread, w.size);
    }
    leave_state(thread);
}

/* On an OS thread that ends with it. */
static void
in_a_life(void (*step)(void *))
{
    worker once;
    worker_start(&once);
    worker_do(&once, step, NULL);
    worker_end(&once);
}

static void
free_all(void)
{
    for (int i = 0; i < w.count; i++) {
        pyrt_free(w.blocks[i]);
        w.blocks[i] = NULL;
    }
}

/* ---- what ended threads have left is used before anything new ---------------------------------------------------- */

static void
each_life_leaves_one(bool of_heap, size_t size)
{
    begin(of_heap, false);
    w.size = size;
    size_t before = figures().reserved_bytes;
    for (int i = 0; i < LIVES; i++) {
        in_a_life(one_more);
    }
    /* An arena is up to twice what there was before. */
    CHECK(figures().reserved_bytes - before <= 4 * (LIVES * pyrt_good_size(size) + 4 * SEGMENT));
    CHECK(figures().page_bytes <= 2 * LIVES * pyrt_good_size(size) + SEGMENT);
    free_all();
    end();
}

TEST(threads_that_each_leave_a_block_share_segments)
{
    each_life_leaves_one(true, 5000);
    each_life_leaves_one(true, 100);
    each_life_leaves_one(false, 5000);
    each_life_leaves_one(false, 100);
}

TEST(so_they_do_with_large_ones)
{
    each_life_leaves_one(true, 100000);
    each_life_leaves_one(false, 100000);
}

/* ---- makers end, and others free ---------------------------------------------------------------------------------- */

typedef struct freer {
    worker worker;
    pyrt_thread *thread;
    void *own; /* so that it may take over what it frees */
    int number;
} freer;

static void
become_freer(void *arg)
{
    freer *me = arg;
    me->thread = my_state();
    me->own = allocate(me->thread, 64);
}

static void
free_every_second(void *arg)
{
    freer *me = arg;
    for (int i = me->number; i < w.count; i += 2) {
        pyrt_free(w.blocks[i]);
    }
    if (me->thread != NULL) {
        pyrt_safepoint(me->thread); /* it reads nothing */
    }
}

static void
retire_freer(void *arg)
{
    freer *me = arg;
    pyrt_free(me->own);
    leave_state(me->thread);
}

/* The first to free takes the segments over; what the second frees is found although the first wants no page of that size. */
static void
two_free_what_ended_threads_made(bool of_heap, bool type_stable, size_t size)
{
    static freer freers[2];
    begin(of_heap, type_stable);
    w.size = size;
    w.count = (int)(16 * MIB / size);
    CHECK(w.count <= MOST);
    for (int i = 0; i < 2; i++) {
        freers[i].number = i;
        worker_start(&freers[i].worker);
        worker_do(&freers[i].worker, become_freer, &freers[i]);
    }
    size_t before = figures().page_bytes;
    for (int round = 0; round < ROUNDS; round++) {
        in_a_life(fill);
        for (int i = 0; i < 2; i++) {
            worker_do(&freers[i].worker, free_every_second, &freers[i]);
        }
        /* Some of it is found with the next round only. */
        CHECK(figures().page_bytes - before <= (size_t)64 * MIB);
    }
    for (int i = 0; i < 2; i++) {
        worker_do(&freers[i].worker, retire_freer, &freers[i]);
        worker_end(&freers[i].worker);
    }
    end();
}

TEST(what_two_threads_free_of_ended_ones_comes_back)
{
    two_free_what_ended_threads_made(true, false, 5000);
    two_free_what_ended_threads_made(true, false, 100000);
    two_free_what_ended_threads_made(false, false, 5000);
    two_free_what_ended_threads_made(false, false, 100000);
}

TEST(of_type_stable_heaps_too_when_nobody_reads)
{
    two_free_what_ended_threads_made(true, true, 5000);
}

/* A large block is a page of its own: who frees it and takes nothing over gives the page back himself. */
static void
large_ones_are_freed_by_a_thread_that_has_nothing(bool of_heap, bool type_stable)
{
    begin(of_heap, type_stable);
    w.size = 300000;
    w.count = 50;
    size_t before = figures().page_bytes;
    for (int round = 0; round < ROUNDS; round++) {
        in_a_life(fill);
        free_all();
        CHECK_UINT(figures().page_bytes - figures().held_bytes, before);
        CHECK(figures().held_bytes == 0 || type_stable);
    }
    end();
}

TEST(a_large_block_of_an_ended_thread_goes_at_once)
{
    large_ones_are_freed_by_a_thread_that_has_nothing(true, false);
    large_ones_are_freed_by_a_thread_that_has_nothing(false, false);
}

TEST(of_a_type_stable_heap_as_soon_as_nobody_reads)
{
    large_ones_are_freed_by_a_thread_that_has_nothing(true, true);
}

/* ---- makers sleep, and others free -------------------------------------------------------------------------------- */

static void
fill_and_sleep(void *arg)
{
    pyrt_thread **thread = arg;
    *thread = pyrt_thread_new(w.interp);
    pyrt_attach(*thread);
    for (int i = 0; i < w.count; i++) {
        w.blocks[i] = allocate(*thread, w.size);
    }
    pyrt_detach(*thread);
}

static void
attach_state(void *thread)
{
    pyrt_attach(thread);
}

static void
pass_and_detach(void *thread)
{
    pyrt_safepoint(thread);
    pyrt_detach(thread);
}

static void
delete_state(void *thread)
{
    pyrt_thread_delete(thread);
}

static void
a_barrier_finds_what_died_elsewhere(bool type_stable, bool sleeps)
{
    worker maker;
    pyrt_thread *made;
    begin(true, type_stable);
    w.size = 5000;
    w.count = 2000;
    worker_start(&maker);
    worker_do(&maker, fill_and_sleep, &made);
    free_all();
    CHECK(figures().page_bytes >= w.count * w.size);
    if (sleeps) {
        CHECK_OK(pyrt_qsbr_barrier(NULL));
    }
    else {
        /* The end of the heap asks it; a barrier would wait for it, and it for this thread. */
        worker_do(&maker, attach_state, made);
        CHECK_STATUS(pyrt_qsbr_barrier_timed(NULL, 1), PYRT_ETIMEDOUT);
        worker_do(&maker, pass_and_detach, made);
        CHECK_OK(pyrt_qsbr_barrier(NULL));
    }
    CHECK_UINT(figures().page_bytes, 0);
    worker_do(&maker, delete_state, made);
    worker_end(&maker);
    end();
}

TEST(a_barrier_gives_back_what_others_have_freed_of_a_sleeping_thread)
{
    a_barrier_finds_what_died_elsewhere(false, true);
    a_barrier_finds_what_died_elsewhere(true, true);
}

TEST(and_of_one_that_was_attached_for_a_while)
{
    a_barrier_finds_what_died_elsewhere(false, false);
    a_barrier_finds_what_died_elsewhere(true, false);
}
