/* test_heap_links.c -- links in free blocks: what a program writes into a block that it has freed is named, followed by nobody, and
 * costs at most the free blocks of that page.
 */
#include "support.h"

#include "memory/page.h"
#include "platform/poison.h"
#include "workers.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCKS = 400, MORE = 1500, SIZE = 96 };

typedef struct block {
    uint64_t number;
    char rest[SIZE - sizeof(uint64_t)];
} block;

static block *blocks[BLOCKS + MORE];

static void
take(size_t from, size_t count)
{
    for (size_t i = from; i < from + count; i++) {
        blocks[i] = pyrt_malloc(sizeof(block));
        CHECK(blocks[i] != NULL);
        blocks[i]->number = i;
        memset(blocks[i]->rest, (int)i, sizeof(blocks[i]->rest));
    }
}

/* All keep their bytes: no two are the same memory. */
static void
check(size_t from, size_t count)
{
    for (size_t i = from; i < from + count; i++) {
        CHECK_UINT(blocks[i]->number, i);
        for (size_t j = 0; j < sizeof(blocks[i]->rest); j++) {
            CHECK_UINT((unsigned char)blocks[i]->rest[j], (unsigned char)i);
        }
    }
}

static void
give(size_t from, size_t count)
{
    for (size_t i = from; i < from + count; i++) {
        pyrt_free(blocks[i]);
    }
}

static bool
is_sound(const void *address)
{
    return pyrt_page_is_sound(pyrt_map_page_of(pyrt_map_entry(address)));
}

typedef struct scribble {
    uint64_t what;
    bool abroad; /* freed by another thread */
    bool aims; /* `what` is the address of a block in use */
} scribble;

static void
give_first(void *unused)
{
    (void)unused;
    give(0, BLOCKS - 1);
}

/* In a thread of its own. The last block stays, so that the page does. */
static void
scribble_and_go_on(void *arg)
{
    const scribble *s = arg;
    take(0, BLOCKS);
    if (s->abroad) {
        worker other;
        worker_start(&other);
        worker_do(&other, give_first, NULL);
        worker_end(&other);
    }
    else {
        give_first(NULL);
    }
    uint64_t written = s->aims ? (uint64_t)(uintptr_t)blocks[BLOCKS - 1] : s->what;
    memcpy(blocks[BLOCKS / 2], &written, sizeof(written));
    take(BLOCKS, MORE);
    check(BLOCKS - 1, MORE + 1);
    CHECK(is_sound(blocks[BLOCKS - 1]));
    give(BLOCKS - 1, MORE + 1);
}

static void
run_scribble(scribble s)
{
    worker w;
    worker_start(&w);
    worker_do(&w, scribble_and_go_on, &s);
    worker_end(&w);
    EXPECT_REPORT("written to");
    CHECK_UINT(reports_pending(), 0);
}

/* Where blocks are poisoned they stand in no lists. */
static bool
has_lists(void)
{
    return !pyrt_can_poison();
}

TEST(a_link_that_was_written_to_is_named)
{
    for (int abroad = 0; abroad < 2 && has_lists(); abroad++) {
        run_scribble((scribble){.what = UINT64_C(0x4141414141414141), .abroad = abroad});
        run_scribble((scribble){.what = 1, .abroad = abroad});
        run_scribble((scribble){.what = UINT64_C(0), .abroad = abroad});
    }
}

/* So nobody is handed memory that is in use, also where the program writes an address of its own. */
TEST(an_address_in_it_is_not_followed)
{
    for (int abroad = 0; abroad < 2 && has_lists(); abroad++) {
        run_scribble((scribble){.aims = true, .abroad = abroad});
    }
}

static void
note_key(void *out)
{
    void *made = pyrt_malloc(SIZE);
    *(uint32_t *)out = pyrt_map_page_of(pyrt_map_entry(made))->head.key;
    pyrt_free(made);
}

TEST(pages_have_keys_of_their_own)
{
    uint32_t keys[2];
    worker w[2];
    for (int i = 0; i < 2; i++) {
        worker_start(&w[i]);
        worker_do(&w[i], note_key, &keys[i]);
    }
    for (int i = 0; i < 2; i++) {
        worker_end(&w[i]);
    }
    CHECK(keys[0] != keys[1]);
}

/* ---- heaps ------------------------------------------------------------------------------------------------------- */

TEST(in_a_heap_too_behind_what_readers_may_look_at)
{
    if (!has_lists()) {
        return;
    }
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_heap *heap =
        pyrt_heap_new(pyrt_interp_main(), &(pyrt_heap_config){.struct_size = sizeof(pyrt_heap_config), .type_stable = true});
    char *kept = pyrt_heap_malloc(thread, heap, SIZE);
    char *first = pyrt_heap_malloc(thread, heap, SIZE);
    char *second = pyrt_heap_malloc(thread, heap, SIZE);
    pyrt_free(second);
    pyrt_free(first); /* the first of its list: its link is followed when it is handed out */
    memset(first, 0x41, SIZE);
    char *again = NULL;
    for (int i = 0; i < 10000 && again != first; i++) {
        again = pyrt_heap_malloc(thread, heap, SIZE);
        CHECK(again != NULL && again != kept);
    }
    CHECK_PTR(again, first);
    EXPECT_REPORT("^the block at", "was written to after it had been freed");
    for (int i = 0; i < 100; i++) {
        again = pyrt_heap_malloc(thread, heap, SIZE);
        CHECK(again != NULL && again != kept && again != first);
    }
    CHECK(is_sound(kept));
    pyrt_heap_destroy(heap);
    pyrt_thread_release(thread);
    runtime_down();
}
