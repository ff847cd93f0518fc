/* heap_scenarios.c -- blocks that are freed from abroad while their owner ends and others take its segment over, or while their
 * interpreter ends; and a page of a type-stable heap that must not go while somebody reads.
 *
 * The memory floor is the real one but for heaps (heap.c), of which there is one, and for the system's memory. In the end every
 * block is in use, or in exactly one list: none is lost and none is there twice.
 */
#include "shared_item.h"

#include "machine.h"
#include "memory/heap_impl.h"
#include "platform/meta_alloc.h"
#include "platform/os_memory.h"
#include "reclaim/reclaim.h"

#include <string.h>

/* ---- what the memory floor needs of the files that are not here -------------------------------------------------- */

enum { LEAVES = 4 };

static char segment_room[PYRT_SEGMENT] __attribute__((aligned(1 << 22)));
static pyrt_map_leaf leaves[LEAVES];
static int leaves_used;
static bool segment_used;

/* Once a segment in each run; leaves of the map stay. */
void *
pyrt_os_map(size_t bytes, size_t align)
{
    (void)align;
    if (bytes == sizeof(pyrt_map_leaf) && leaves_used < LEAVES) {
        return &leaves[leaves_used++];
    }
    if (bytes != PYRT_SEGMENT || segment_used) {
        model_fail("%zu bytes are asked of the system", bytes);
    }
    segment_used = true;
    return segment_room;
}

void
pyrt_os_unmap(void *start, size_t bytes)
{
    MODEL_CHECK(start == segment_room && bytes == PYRT_SEGMENT, "what was not mapped is unmapped");
    segment_used = false;
}

bool
pyrt_os_purge(void *start, size_t bytes)
{
    (void)start, (void)bytes;
    return true;
}

uint64_t
pyrt_os_secret(void)
{
    return 7;
}

void
pyrt_os_advise_huge(void *start, size_t bytes, bool wanted)
{
    (void)start, (void)bytes, (void)wanted;
    model_fail("so much is in use that huge pages are wanted");
}

static size_t kept;
static int releases;

void
pyrt_meta_keep(size_t size)
{
    kept += size;
}

void
pyrt_meta_unkeep(size_t size)
{
    MODEL_CHECK(kept >= size, "%zu bytes have not stayed with the process", size);
    kept -= size;
}

void
pyrt_heaps_release(pyrt_pool *pool)
{
    (void)pool;
    releases++;
}

void
pyrt_heap_ref(pyrt_heap_impl *heap)
{
    (void)heap;
}

void
pyrt_heap_unref(pyrt_heap_impl *heap)
{
    (void)heap;
}

void
pyrt_heap_release(const pyrt_part *asking)
{
    (void)asking;
}

void
pyrt_heap_sweep_if_grown(void)
{
}

bool
pyrt_heap_adopt_this(pyrt_segment *segment)
{
    model_fail("segment %p is adopted by a heap", (void *)segment);
}

void
pyrt_heap_adopt(const pyrt_segment *segment)
{
    model_fail("segment %p is adopted by itself", (const void *)segment);
}

/* ---- three owners, one after the other --------------------------------------------------------------------------- */

enum { BLOCKS = 4, SIZE = 16, OWNERS = 3, NUMBER = 1 };

static pyrt_memory memory;
static pyrt_pool pool;
static pyrt_share shares[OWNERS];
static pyrt_part parts[OWNERS];
static char *blocks[BLOCKS];

static void
sweep(void)
{
    pyrt_raw_mutex_lock(&pool.lock);
    pyrt_pool_sweep(&pool);
}

static void
owner_init(int n, pyrt_heap_impl *heap, pyrt_interp *interp)
{
    shares[n] = (pyrt_share){.memory = &memory, .pool = &pool, .token = (uintptr_t)&parts[n], .next_purge = INT64_MAX};
    memset(&parts[n], 0, sizeof(parts[n]));
    parts[n].share = &shares[n];
    parts[n].heap = heap;
    parts[n].interp = interp;
    parts[n].link = interp != NULL ? 32 : 0;
    pyrt_part_init(&parts[n]);
}

static void
owners_init(pyrt_heap_impl *heap, pyrt_interp *interp)
{
    memory = (pyrt_memory){.number = NUMBER};
    pool = (pyrt_pool){.number = NUMBER, .memory = &memory, .interp = interp};
    for (int n = 0; n < OWNERS; n++) {
        owner_init(n, heap, interp);
    }
}

static char *
allocate(int owner, size_t size)
{
    bool zero;
    char *block = pyrt_part_alloc(&parts[owner], size, &zero);
    MODEL_CHECK(block != NULL, "there is no block");
    return block;
}

static pyrt_page *
page_of(const char *block)
{
    return pyrt_map_page_of(pyrt_map_entry(block));
}

/* As pyrt_free of a thread that is the nth owner, or (-1) none. */
static void
free_as(int owner, char *block)
{
    pyrt_page *page = page_of(block);
    MODEL_CHECK(page != NULL, "the page of a block in use is gone");
    uintptr_t token = pyrt_load_relaxed(&page->head.owner);
    if (owner >= 0 && token == shares[owner].token) {
        pyrt_page_free_local(page, block, pyrt_link_of(page, block));
    }
    else {
        pyrt_page_free_foreign(page, block);
    }
}

static void
blocks_setup(void)
{
    owners_init(NULL, NULL);
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = allocate(0, SIZE);
    }
}

/* One has been freed before. */
static void
setup_with_foreign(void)
{
    blocks_setup();
    free_as(-1, blocks[1]);
}

/* The nth owner ends, as a thread does. */
static void
leave(int owner)
{
    pyrt_part_abandon(&parts[owner]);
    pyrt_share_abandon(&shares[owner]);
}

static bool
take(int owner)
{
    pyrt_segment *segment = pyrt_segment_adopt(&parts[owner], pyrt_class_of(SIZE), 1);
    for (uint64_t left = segment == NULL ? 0 : segment->first; left != 0; left &= left - 1) {
        pyrt_part_adopt(&parts[owner], &segment->pages[__builtin_ctzll(left)]);
    }
    return segment != NULL;
}

static void
check_count(size_t wanted)
{
    size_t count = 0;
    for (const pyrt_segment *segment = pool.abandoned; segment != NULL; segment = segment->next) {
        count++;
    }
    MODEL_CHECK(count == pool.abandoned_count && count == wanted,
                "%zu segments are in the pool, which counts %zu; %zu should be", count, pool.abandoned_count, wanted);
}

static void
check_blocks(uint32_t used)
{
    pyrt_page *page = page_of(blocks[3]);
    MODEL_CHECK(page != NULL, "the page has gone, and a block of it is in use");
    (void)pyrt_page_collect(page);
    MODEL_CHECK(pyrt_page_is_sound(page), "a block is in two lists, or in none");
    MODEL_CHECK(pyrt_page_used(page) == used, "%u blocks are in use, not %u", pyrt_page_used(page), used);
}

/* Everything ends, and nothing is left. */
static void
all_end(void)
{
    for (int n = 0; n < OWNERS; n++) {
        leave(n);
    }
    MODEL_CHECK(pyrt_pool_end(&pool, true), "something is left in the pool");
    pyrt_memory_fini(&memory);
    MODEL_CHECK(!segment_used, "the segment has not been given back");
    MODEL_CHECK(kept == 0, "%zu bytes have stayed with the process", kept);
}

/* Two who free, and the owner who looks. */
static void
collect_body(int thread)
{
    model_begin();
    if (thread == 0) {
        (void)pyrt_page_collect(page_of(blocks[3]));
    }
    else {
        free_as(-1, blocks[thread - 1]);
    }
    model_end();
}

static void
collect_finish(void)
{
    check_blocks(2);
    all_end();
}

/* ---- taking over ------------------------------------------------------------------------------------------------- */

static bool taken[OWNERS];

static void
take_over_setup(void)
{
    memset(taken, 0, sizeof(taken));
    setup_with_foreign();
}

/* blocks[3] stays in use; blocks[2] is the heir's to free. */
static void
take_over_body(int thread)
{
    model_begin();
    if (thread == 0) {
        leave(0);
    }
    else if (thread == 1) {
        taken[1] = take(1);
        if (taken[1]) {
            free_as(1, blocks[2]);
        }
    }
    else {
        free_as(-1, blocks[0]);
    }
    model_end();
}

static void
take_over_finish(void)
{
    check_count(taken[1] ? 0 : 1);
    MODEL_CHECK(taken[1] || take(1), "what was left is not there");
    check_blocks(taken[1] ? 1 : 2);
    all_end();
}

static void
heirs_setup(void)
{
    take_over_setup();
    leave(0);
    model_unlocked = &pool.lock;
}

/* The first heir ends again when it has got the segment; the second one may get it before, after, or not at all. */
static void
heirs_body(int thread)
{
    model_begin();
    if (thread == 2) {
        free_as(-1, blocks[0]);
    }
    else {
        taken[thread + 1] = take(thread + 1);
        if (taken[1] && thread == 0) {
            leave(1);
        }
    }
    model_end();
}

static void
heirs_finish(void)
{
    check_count(taken[2] ? 0 : 1);
    MODEL_CHECK(taken[1] || taken[2], "nobody has got it");
    MODEL_CHECK(taken[2] || take(2), "what was left is not there");
    check_blocks(2);
    all_end();
}

/* As pyrt_free of an owner who takes over what he frees a block of. */
static bool
free_and_take(int owner, char *block)
{
    bool takes = pyrt_segment_adopt_this(&shares[owner], page_of(block)->segment);
    if (takes) {
        pyrt_part_adopt_all(&parts[owner], page_of(block)->segment);
    }
    free_as(owner, block);
    return takes;
}

/* Two free a block each, and want the segment: one gets it, the other's block goes to him. */
static void
free_take_body(int thread)
{
    model_begin();
    taken[thread + 1] = free_and_take(thread + 1, blocks[thread == 0 ? 0 : 2]);
    model_end();
}

static void
free_take_finish(void)
{
    check_count(0);
    MODEL_CHECK(taken[1] != taken[2], "both have got it, or nobody");
    check_blocks(1);
    all_end();
}

/* ---- giving back what nobody has --------------------------------------------------------------------------------- */

static pyrt_heap_impl plain_heap;

/* What the first owner has left: blocks[0] and blocks[2] are in use, blocks[1] has been freed by somebody else, blocks[3] by it. */
static void
sweep_setup(void)
{
    memset(taken, 0, sizeof(taken));
    plain_heap = (pyrt_heap_impl){0};
    owners_init(&plain_heap, NULL);
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = allocate(0, SIZE);
    }
    free_as(-1, blocks[1]);
    free_as(0, blocks[3]);
    leave(0);
    model_unlocked = &pool.lock;
}

static void
sweep_body(int thread)
{
    model_begin();
    if (thread == 0) {
        sweep();
    }
    else {
        free_as(-1, blocks[thread == 1 ? 0 : 2]);
    }
    model_end();
}

static void
sweep_finish(void)
{
    sweep();
    check_count(0);
    MODEL_CHECK(page_of(blocks[0]) == NULL, "every block is free, and the page is there");
    all_end();
}

/* blocks[2] is in use until the heir frees it, if he is one. */
static void
sweep_heir_body(int thread)
{
    model_begin();
    if (thread == 0) {
        sweep();
    }
    else if (thread == 1) {
        taken[1] = take(1);
    }
    else {
        free_as(-1, blocks[0]);
    }
    model_end();
}

static void
sweep_heir_finish(void)
{
    check_count(0);
    MODEL_CHECK(taken[1], "what is in use was not there");
    blocks[3] = blocks[2];
    check_blocks(1);
    free_as(1, blocks[2]);
    all_end();
}

/* ---- the end of the interpreter ---------------------------------------------------------------------------------- */

static bool was_over;

/* Two blocks are left in use. */
static void
end_setup(void)
{
    releases = 0;
    was_over = false;
    setup_with_foreign();
    free_as(0, blocks[3]);
    leave(0);
    model_unlocked = &pool.lock;
}

static void
end_body(int thread)
{
    model_begin();
    if (thread == 0) {
        pyrt_pool_mark(&pool);
        pyrt_memory_end(&memory);
        was_over = pyrt_pool_end(&pool, false);
    }
    else {
        free_as(-1, blocks[thread == 1 ? 0 : 2]);
    }
    model_end();
}

static void
end_finish(void)
{
    MODEL_CHECK(pool.abandoned == NULL && page_of(blocks[0]) == NULL, "every block is free, and the page is there");
    MODEL_CHECK(releases + was_over == 1, "the end of it is seen %d times", releases + was_over);
    MODEL_CHECK(!segment_used && memory.arenas == NULL, "the segment has not been given back");
    MODEL_CHECK(kept == 0, "%zu bytes have stayed with the process", kept);
}

/* ---- type-stable pages ------------------------------------------------------------------------------------------- */

enum { STABLE_SIZE = 8192, EACH = 8, GOOD = 7 };

static pyrt_heap_impl stable_heap;
static char *stable[2 * EACH];
static char *shown; /* to readers */

static void
show(char *block)
{
    pyrt_store_relaxed((uint64_t *)(void *)block, (uint64_t)GOOD);
    pyrt_store_release(&shown, block);
}

/* Two pages: of the first one block is in use, of the second one all but one. So the first is not kept when it is empty. */
static void
stable_setup(void)
{
    MODEL_CHECK(pyrt_runtime_init() == PYRT_OK, "the runtime does not come up");
    stable_heap = (pyrt_heap_impl){.interp = pyrt_interp_main(), .type_stable = true, .link = 32};
    owners_init(&stable_heap, pyrt_interp_main());
    for (int i = 0; i < 2 * EACH - 1; i++) {
        stable[i] = allocate(0, STABLE_SIZE);
    }
    for (int i = 1; i < EACH; i++) {
        free_as(0, stable[i]);
    }
    MODEL_CHECK(pyrt_page_used(page_of(stable[0])) == 1 && pyrt_page_used(page_of(stable[EACH])) == EACH - 1,
                "the pages are others");
    show(stable[0]);
}

static void
look(pyrt_thread *self)
{
    pyrt_attach(self);
    char *block = pyrt_load_acquire(&shown);
    if (block != NULL) {
        MODEL_CHECK(pyrt_load_relaxed((uint64_t *)(void *)block) == GOOD, "a reader finds another prefix");
        MODEL_CHECK(page_of(block) != NULL, "a reader looks at a block whose page has gone");
    }
    pyrt_detach(self);
}

static void
empty(pyrt_thread *self, char *block)
{
    pyrt_store_release(&shown, NULL);
    free_as(0, block);
    pyrt_qsbr_quiescent_state(self);
}

static void
goal_body(int thread)
{
    pyrt_thread *self = item_thread(thread);
    if (thread == 0) {
        pyrt_attach(self);
    }
    model_begin();
    if (thread == 0) {
        empty(self, stable[0]);
        pyrt_part_release(&parts[0]);
        pyrt_part_release(&parts[0]);
    }
    else {
        look(self);
    }
    model_end();
    if (thread == 0) {
        pyrt_detach(self);
    }
    pyrt_thread_delete(self);
}

/* The page is used again before readers have passed, shown again, and empty again: only the second goal counts. */
static void
again_body(int thread)
{
    pyrt_thread *self = item_thread(thread);
    if (thread == 0) {
        pyrt_attach(self);
    }
    model_begin();
    if (thread == 0) {
        pyrt_page *page = page_of(stable[0]);
        empty(self, stable[0]);
        uint64_t first_goal = page->goal;
        (void)allocate(0, STABLE_SIZE);
        char *again = allocate(0, STABLE_SIZE);
        MODEL_CHECK(page_of(again) == page, "its own size does not take the empty page");
        show(again);
        free_as(0, stable[EACH]);
        empty(self, again);
        if (model_broken == MODEL_BREAK_GOAL) {
            page->goal = parts[0].soonest = first_goal;
        }
        pyrt_part_release(&parts[0]);
    }
    else {
        look(self);
    }
    model_end();
    if (thread == 0) {
        pyrt_detach(self);
    }
    pyrt_thread_delete(self);
}

/* The owner has ended, and who frees the block has no heap at all. */
static void
left_setup(void)
{
    stable_setup();
    leave(0);
}

static void
goal_sweep_body(int thread)
{
    pyrt_thread *self = item_thread(thread);
    model_begin();
    if (thread == 0) {
        pyrt_store_release(&shown, NULL);
        free_as(-1, stable[0]);
        sweep();
        if (model_broken == MODEL_BREAK_GOAL && page_of(stable[0]) != NULL) {
            page_of(stable[0])->goal = pool.soonest = PYRT_QSBR_INITIAL;
        }
        pyrt_pool_release(&pool);
    }
    else {
        look(self);
    }
    model_end();
    pyrt_thread_delete(self);
}

static void
left_finish(void)
{
    pyrt_pool_release(&pool);
    MODEL_CHECK(page_of(stable[0]) == NULL, "nobody reads, and the page is there");
    MODEL_CHECK(pool.held_bytes == 0 && pool.waiting == 0, "%zu bytes are held for nobody", pool.held_bytes);
    all_end();
    MODEL_CHECK(pyrt_runtime_fini() == PYRT_OK, "the runtime does not go down");
    MODEL_CHECK(pyrt_meta_live_bytes() == 0, "%zu bytes are left", pyrt_meta_live_bytes());
}

static void
stable_finish(void)
{
    pyrt_part_release(&parts[0]);
    MODEL_CHECK(page_of(stable[0]) == NULL, "nobody reads, and the page is there");
    all_end();
    MODEL_CHECK(pyrt_runtime_fini() == PYRT_OK, "the runtime does not go down");
    MODEL_CHECK(pyrt_meta_live_bytes() == 0, "%zu bytes are left", pyrt_meta_live_bytes());
}

const model_scenario model_heap_scenarios[] = {
    {"heap-collect",
     "two foreign frees, and the owner who collects",
     MODEL_ALL,
     blocks_setup,
     collect_body,
     collect_finish,
     {"owner", "one", "two"}},
    {"heap-take-over",
     "a foreign free, while the owner ends and another thread takes its segment over",
     MODEL_ALL,
     take_over_setup,
     take_over_body,
     take_over_finish,
     {"owner", "heir", "freer"}},
    {"heap-heirs",
     "a foreign free, while two want the segment out of the pool and one of them ends in turn",
     MODEL_ALL,
     heirs_setup,
     heirs_body,
     heirs_finish,
     {"heir", "other", "freer"}},
    {"heap-free-take",
     "two frees of what a thread has left, each of which takes it over if it can",
     MODEL_ALL,
     heirs_setup,
     free_take_body,
     free_take_finish,
     {"one", "other"}},
    {"heap-sweep",
     "two foreign frees of the last blocks that a thread has left, while what it left is swept",
     MODEL_ALL,
     sweep_setup,
     sweep_body,
     sweep_finish,
     {"sweeper", "one", "two"}},
    {"heap-sweep-heir",
     "a foreign free, while one sweeps what a thread has left and another takes it over",
     MODEL_ALL,
     sweep_setup,
     sweep_heir_body,
     sweep_heir_finish,
     {"sweeper", "heir", "freer"}},
    {"heap-end",
     "two foreign frees of the last blocks, while the interpreter ends",
     MODEL_ALL,
     end_setup,
     end_body,
     end_finish,
     {"ender", "one", "two"}},
    {"heap-goal",
     "an empty page of a type-stable heap goes, and a reader looks at its last block",
     MODEL_ALL,
     stable_setup,
     goal_body,
     stable_finish,
     {"owner", "reader"}},
    {"heap-goal-again",
     "it was used, and shown, again before it could go",
     MODEL_ALL,
     stable_setup,
     again_body,
     stable_finish,
     {"owner", "reader"}},
    {"heap-goal-sweep",
     "an empty page goes whose owner has ended, and a reader looks at its last block",
     MODEL_ALL,
     left_setup,
     goal_sweep_body,
     left_finish,
     {"sweeper", "reader"}},
    {.name = NULL},
};
