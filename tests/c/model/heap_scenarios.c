/* heap_scenarios.c -- a page of blocks: foreign frees while its owner ends and another thread takes it over.
 *
 * The page and its lists are the core's (page.c); leaving it in a pool and taking it out are done here as there (memory.c), by a
 * lock. In the end every block is in use, or in exactly one list: none is lost and none is there twice.
 */
#include "model.h"

#include "memory/part.h"
#include "platform/meta_alloc.h"

#include <string.h>

enum { BLOCKS = 8, SIZE = 16, OWNER = 0x1000, HEIR = 0x2000 };

static char memory[BLOCKS * SIZE] __attribute__((aligned(64)));
static pyrt_page page;
static pyrt_part no_part;
static pyrt_raw_mutex pool;
static bool in_pool;
static void *blocks[4];

/* What pages need of the files that are not here. */

void
pyrt_part_freed(pyrt_page *freed)
{
    (void)freed;
    model_fail("a page is empty that has a block in use");
}

void *
pyrt_memory_struct_new(const pyrt_memory *state, size_t size)
{
    (void)state;
    return pyrt_meta_alloc(size);
}

void
pyrt_memory_struct_free(const pyrt_memory *state, void *p, size_t size)
{
    (void)state;
    pyrt_meta_free(p, size);
}

static void
setup(void)
{
    memset(&page, 0, sizeof(page));
    page.head.start = memory;
    page.bytes = sizeof(memory);
    page.head.owner = OWNER;
    pyrt_page_init(&page, SIZE, 1, &no_part, false);
    page.part = NULL;
    (void)pyrt_page_carve(&page);
    for (int i = 0; i < 4; i++) {
        blocks[i] = page.head.free;
        page.head.free = *pyrt_link_of(&page, blocks[i]);
        page.head.used++;
    }
    in_pool = false;
    pyrt_raw_mutex_reinit(&pool);
}

/* One has been freed before. */
static void
setup_with_foreign(void)
{
    setup();
    pyrt_page_free_foreign(&page, blocks[1]);
}

/* As pyrt_free on a thread that has no pages. */
static void
free_abroad(void *block)
{
    uintptr_t owner = pyrt_load_relaxed(&page.head.owner);
    MODEL_CHECK(owner == OWNER || owner == HEIR || owner == PYRT_NOBODY, "the owner is %#lx", (unsigned long)owner);
    pyrt_page_free_foreign(&page, block);
}

static void
leave(void)
{
    (void)pyrt_page_collect(&page);
    pyrt_store_relaxed(&page.head.owner, PYRT_NOBODY);
    pyrt_raw_mutex_lock(&pool);
    in_pool = true;
    pyrt_raw_mutex_unlock(&pool);
}

static bool
take(void)
{
    pyrt_raw_mutex_lock(&pool);
    bool there = in_pool;
    in_pool = false;
    pyrt_raw_mutex_unlock(&pool);
    if (there) {
        pyrt_store_relaxed(&page.head.owner, (uintptr_t)HEIR);
        (void)pyrt_page_collect(&page);
    }
    return there;
}

static bool freed_at_home;

static void
take_and_free(void)
{
    freed_at_home = take();
    if (freed_at_home) {
        pyrt_page_free_local(&page, blocks[2]);
    }
}

/* blocks[3] stays in use; blocks[2] is the heir's to free. */
static void
take_over_body(int thread)
{
    model_begin();
    if (thread == 0) {
        leave();
    }
    else if (thread == 1) {
        take_and_free();
    }
    else {
        free_abroad(blocks[0]);
    }
    model_end();
}

/* Two who free, and the owner who looks. */
static void
collect_body(int thread)
{
    model_begin();
    if (thread == 0) {
        (void)pyrt_page_collect(&page);
    }
    else {
        free_abroad(blocks[thread - 1]);
    }
    model_end();
}

static void
check(uint32_t used)
{
    (void)pyrt_page_collect(&page);
    MODEL_CHECK(pyrt_page_is_sound(&page), "a block is in two lists, or in none");
    MODEL_CHECK(page.head.used == used, "%u blocks are in use, not %u", page.head.used, used);
}

static void
take_over_finish(void)
{
    if (in_pool) {
        MODEL_CHECK(take(), "what was left is not there");
    }
    check(freed_at_home ? 1 : 2);
}

static void
collect_finish(void)
{
    check(2);
}

const model_scenario model_heap_scenarios[] = {
    {"heap-collect",
     "two foreign frees, and the owner who collects",
     MODEL_ALL,
     setup,
     collect_body,
     collect_finish,
     {"owner", "one", "two"}},
    {"heap-take-over",
     "a foreign free, while the owner leaves a page and another thread takes it over",
     MODEL_ALL,
     setup_with_foreign,
     take_over_body,
     take_over_finish,
     {"owner", "heir", "freer"}},
    {.name = NULL},
};
