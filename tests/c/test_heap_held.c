/* test_heap_held.c -- empty pages of type-stable heaps, which wait for readers, count against the bound of who keeps them: once it is
 * passed retiring answers PYRT_EBUSY, and safepoints give back what readers have passed.
 */
#include "support.h"

#include "steps.h"
#include "workers.h"

#include <string.h>

enum { BLOCKS = 600, SIZE = 4000, MIB = 1 << 20 };

static struct {
    pyrt_interp *interp;
    pyrt_heap *heap;
    pyrt_thread *thread;
    worker reader;
    pyrt_thread *reading;
    void *blocks[BLOCKS];
    int disposed;
} w;

static uint64_t
held_bytes(void)
{
    pyrt_memory_stats stats = {.struct_size = sizeof(stats)};
    pyrt_interp_memory_stats(w.interp, &stats);
    return stats.held_bytes;
}

static void
dispose(void *unused)
{
    (void)unused;
    w.disposed++;
}

static pyrt_status
retire(size_t bytes)
{
    static int something;
    return pyrt_retire(w.thread, &something, bytes, dispose);
}

static void
allocate(int from, int to)
{
    for (int i = from; i < to; i++) {
        w.blocks[i] = pyrt_heap_malloc(w.thread, w.heap, SIZE);
        CHECK(w.blocks[i] != NULL);
    }
}

static void
free_blocks(int from, int to)
{
    for (int i = from; i < to; i++) {
        pyrt_free(w.blocks[i]);
    }
}

/* With a reader that has begun already. */
static void
begin(void)
{
    runtime_up();
    memset(&w, 0, sizeof(w));
    w.interp = pyrt_interp_main();
    w.heap = pyrt_heap_new(w.interp, &(pyrt_heap_config){.struct_size = sizeof(pyrt_heap_config), .type_stable = true});
    w.thread = pyrt_thread_ensure(w.interp);
    worker_start(&w.reader);
    worker_do(&w.reader, attach_new, &w.reading);
}

static void
reader_ends(void)
{
    worker_do(&w.reader, delete_attached, w.reading);
    worker_end(&w.reader);
}

static void
end(void)
{
    pyrt_heap_destroy(w.heap);
    pyrt_thread_release(w.thread);
    runtime_down();
}

static void
pass_safepoints(void)
{
    for (int i = 0; i < 200; i++) {
        pyrt_safepoint(w.thread);
    }
}

TEST(held_pages_pass_the_bound_and_come_back_when_readers_have_passed)
{
    begin();
    allocate(0, BLOCKS);
    CHECK_OK(retire(1));
    free_blocks(0, BLOCKS);
    uint64_t held = held_bytes();
    CHECK(held > MIB);
    CHECK_STATUS(retire(1), PYRT_EBUSY);
    /* While the reader reads, nothing comes back. */
    pass_safepoints();
    CHECK_UINT(held_bytes(), held);
    CHECK_STATUS(retire(1), PYRT_EBUSY);
    reader_ends();
    pass_safepoints();
    CHECK_UINT(held_bytes(), 0);
    CHECK_OK(retire(1));
    end();
    CHECK_INT(w.disposed, 4);
}

TEST(they_leave_less_room_for_what_is_retired)
{
    begin();
    CHECK_OK(pyrt_retire_set_bound(w.interp, 1000, 4 * MIB));
    allocate(0, BLOCKS);
    free_blocks(0, BLOCKS);
    size_t room = 4 * MIB - held_bytes();
    CHECK(room < 3 * MIB);
    size_t retired = 0;
    while (retired + 10000 < room) {
        CHECK_OK(retire(10000));
        retired += 10000;
    }
    CHECK_STATUS(retire(10000), PYRT_EBUSY);
    reader_ends();
    end();
}

TEST(what_is_in_use_again_is_not_held)
{
    begin();
    allocate(0, BLOCKS);
    free_blocks(0, BLOCKS);
    CHECK_STATUS(retire(1), PYRT_EBUSY);
    allocate(0, BLOCKS);
    CHECK(held_bytes() < MIB);
    CHECK_OK(retire(1));
    free_blocks(0, BLOCKS);
    CHECK_STATUS(retire(1), PYRT_EBUSY);
    reader_ends();
    end();
}

TEST(huge_blocks_count_for_who_frees_them)
{
    begin();
    void *huge = pyrt_heap_malloc(w.thread, w.heap, 5000000);
    CHECK_OK(retire(1));
    pyrt_free(huge);
    CHECK_STATUS(retire(1), PYRT_EBUSY);
    reader_ends();
    pass_safepoints();
    CHECK_UINT(held_bytes(), 0);
    CHECK_OK(retire(1));
    end();
}

TEST(processing_gives_them_back_too)
{
    begin();
    allocate(0, 100);
    free_blocks(0, 100);
    uint64_t held = held_bytes();
    CHECK(held > 0 && held < MIB);
    CHECK_UINT(pyrt_process_delayed(w.thread), 0);
    CHECK_UINT(held_bytes(), held);
    reader_ends();
    CHECK_UINT(pyrt_process_delayed(w.thread), 0);
    CHECK_UINT(held_bytes(), 0);
    end();
}

TEST(the_bound_holds_for_each_thread)
{
    begin();
    allocate(0, BLOCKS);
    free_blocks(0, BLOCKS);
    CHECK_STATUS(retire(1), PYRT_EBUSY);
    pyrt_thread *second = pyrt_thread_new(w.interp);
    pyrt_detach(w.thread);
    pyrt_attach(second);
    CHECK_OK(pyrt_retire(second, &w, 1, dispose));
    pyrt_detach(second);
    pyrt_thread_delete(second);
    pyrt_attach(w.thread);
    reader_ends();
    end();
}
