/* memory.c -- arenas, segments and slices; see memory.h for the four steps and whose they are. */
#include "memory/memory.h"

#include "memory/heap_impl.h"
#include "memory/watched_page.h"
#include "platform/futex.h"
#include "platform/meta_alloc.h"
#include "platform/os_memory.h"
#include "platform/poison.h"
#include "reclaim/reclaim.h"

#include <string.h>

enum {
    ARENA_FIRST = 1, /* segments of the first arena of a state; each next one has twice as many */
    ARENA_MOST = 16,
    SPARE_MOST = 4, /* segments that a share keeps without a page, until they have aged */
    PURGE_DELAY_NS = 10000000
};

#define ALL_SLICES UINT64_MAX

void *
pyrt_memory_struct_new(const pyrt_memory *memory, size_t size)
{
    void *p = pyrt_meta_alloc(size);
    if (p != NULL && memory->for_good) {
        pyrt_meta_keep(size);
    }
    return p;
}

void
pyrt_memory_struct_free(const pyrt_memory *memory, void *p, size_t size)
{
    if (p != NULL && memory->for_good) {
        pyrt_meta_unkeep(size);
    }
    pyrt_meta_free(p, size);
}

/* ---- arenas, under the state's lock ------------------------------------------------------------------------------ */

static uint32_t
low_bits(uint32_t n)
{
    return n >= 32 ? UINT32_MAX : ((uint32_t)1 << n) - 1;
}

static pyrt_arena *
arena_new(pyrt_memory *memory)
{
    pyrt_arena *newest = memory->arenas;
    uint32_t segments = newest == NULL ? ARENA_FIRST : newest->segments * 2;
    segments = segments < ARENA_MOST ? segments : ARENA_MOST;
    pyrt_arena *arena = pyrt_memory_struct_new(memory, sizeof(*arena));
    if (arena == NULL) {
        return NULL;
    }
    size_t bytes = segments * PYRT_SEGMENT;
    arena->start = pyrt_os_map(bytes, PYRT_SEGMENT);
    if (arena->start == NULL && segments > 1) {
        segments = 1;
        bytes = PYRT_SEGMENT;
        arena->start = pyrt_os_map(bytes, PYRT_SEGMENT);
    }
    if (arena->start == NULL || !pyrt_map_cover(arena->start, bytes)) {
        if (arena->start != NULL) {
            pyrt_os_unmap(arena->start, bytes);
        }
        pyrt_memory_struct_free(memory, arena, sizeof(*arena));
        return NULL;
    }
    pyrt_map_set(arena->start, bytes, NULL, memory->number);
    arena->segments = segments;
    arena->free = low_bits(segments);
    arena->next = memory->arenas;
    memory->arenas = arena;
    memory->reserved_bytes += bytes;
    return arena;
}

static void
arena_free(pyrt_memory *memory, pyrt_arena *arena)
{
    size_t bytes = arena->segments * PYRT_SEGMENT;
    pyrt_map_set(arena->start, bytes, NULL, 0);
    pyrt_unpoison(arena->start, bytes);
    pyrt_os_unmap(arena->start, bytes);
    memory->reserved_bytes -= bytes;
    pyrt_memory_struct_free(memory, arena, sizeof(*arena));
}

/* ---- segments ---------------------------------------------------------------------------------------------------- */

static const size_t pages_size = PYRT_SEGMENT_SLICES * sizeof(pyrt_page);

static void
list_remove(pyrt_segment **list, pyrt_segment *segment)
{
    *(segment->previous != NULL ? &segment->previous->next : list) = segment->next;
    if (segment->next != NULL) {
        segment->next->previous = segment->previous;
    }
}

static void
list_push(pyrt_segment **list, pyrt_segment *segment)
{
    segment->previous = NULL;
    segment->next = *list;
    if (*list != NULL) {
        (*list)->previous = segment;
    }
    *list = segment;
}

/* Of what is purged in part the system would make whole huge pages again, and who gets the segment next may want little. */
static void
become_small(pyrt_segment *segment)
{
    if (segment->is_huge) {
        segment->is_huge = false;
        pyrt_os_advise_huge(segment->start, PYRT_SEGMENT, false);
    }
}

pyrt_segment *
pyrt_segment_new(pyrt_share *share)
{
    pyrt_memory *memory = share->memory;
    pyrt_segment *segment = pyrt_memory_struct_new(memory, sizeof(*segment));
    pyrt_page *pages = pyrt_memory_struct_new(memory, pages_size);
    pyrt_arena *arena = NULL;
    if (segment != NULL && pages != NULL) {
        pyrt_raw_mutex_lock(&memory->lock);
        for (arena = memory->arenas; arena != NULL && arena->free == 0; arena = arena->next) {
        }
        arena = arena != NULL ? arena : arena_new(memory);
        if (arena != NULL) {
            int bit = __builtin_ctz(arena->free);
            arena->free &= arena->free - 1;
            segment->start = arena->start + (size_t)bit * PYRT_SEGMENT;
        }
        pyrt_raw_mutex_unlock(&memory->lock);
    }
    if (arena == NULL) {
        pyrt_memory_struct_free(memory, pages, pages_size);
        pyrt_memory_struct_free(memory, segment, sizeof(*segment));
        return NULL;
    }
    segment->memory = memory;
    segment->arena = arena;
    segment->pages = pages;
    segment->free = ALL_SLICES;
    if (share->page_bytes >= PYRT_HUGE_FROM) {
        segment->is_huge = true;
        pyrt_os_advise_huge(segment->start, PYRT_SEGMENT, true);
    }
    list_push(&share->open, segment);
    share->spare++;
    share->segments++;
    return segment;
}

/* All of its slices are free, and it is in no list any more. */
static void
segment_free(pyrt_segment *segment)
{
    pyrt_memory *memory = segment->memory;
    pyrt_arena *arena = segment->arena;
    become_small(segment);
    /* An arena hands out zero memory. What cannot be purged stays reserved for good: nothing is lost but room. */
    bool zero = segment->dirty == 0 || pyrt_os_purge(segment->start, PYRT_SEGMENT);
    pyrt_raw_mutex_lock(&memory->lock);
    if (zero) {
        arena->free |= (uint32_t)1 << (size_t)(segment->start - arena->start) / PYRT_SEGMENT;
        if (arena->free == low_bits(arena->segments) && arena != memory->arenas) {
            pyrt_arena **link = &memory->arenas;
            while (*link != arena) {
                link = &(*link)->next;
            }
            *link = arena->next;
            arena_free(memory, arena);
        }
    }
    pyrt_raw_mutex_unlock(&memory->lock);
    pyrt_memory_struct_free(memory, segment->pages, pages_size);
    pyrt_memory_struct_free(memory, segment, sizeof(*segment));
}

/* ---- slices ------------------------------------------------------------------------------------------------------ */

static uint64_t
run_at(int slice, size_t slices)
{
    return (slices >= 64 ? ALL_SLICES : (UINT64_C(1) << slices) - 1) << slice;
}

/* The lowest slice at which so many in a row are free; -1 if there is none. */
static int
find_run(uint64_t free, size_t slices)
{
    /* After each step a bit says that so many from here on are free. */
    size_t have = 1;
    while (have < slices && free != 0) {
        size_t more = slices - have < have ? slices - have : have;
        free &= free >> more;
        have += more;
    }
    return free == 0 ? -1 : __builtin_ctzll(free);
}

bool
pyrt_share_has_room(const pyrt_share *share, size_t slices)
{
    const pyrt_segment *segment = share->open;
    while (segment != NULL && find_run(segment->free, slices) < 0) {
        segment = segment->next;
    }
    return segment != NULL;
}

pyrt_page *
pyrt_slices_take(pyrt_share *share, size_t slices, bool *zero)
{
    pyrt_segment *segment = share->open;
    int slice = -1;
    for (; segment != NULL; segment = segment->next) {
        slice = find_run(segment->free, slices);
        if (slice >= 0) {
            break;
        }
    }
    if (segment == NULL) {
        segment = pyrt_segment_new(share);
        if (segment == NULL) {
            return NULL;
        }
        slice = 0;
    }
    uint64_t run = run_at(slice, slices);
    *zero = (segment->dirty & run) == 0;
    share->spare -= segment->free == ALL_SLICES;
    segment->aged &= ~run;
    segment->free &= ~run;
    segment->dirty |= run;
    segment->first |= UINT64_C(1) << slice;
    if (segment->free == 0) {
        list_remove(&share->open, segment);
        list_push(&share->full, segment);
    }
    pyrt_page *page = &segment->pages[slice];
    page->head.start = segment->start + (size_t)slice * PYRT_SLICE;
    page->bytes = slices * PYRT_SLICE;
    page->segment = segment;
    page->head.owner = share->token;
    pyrt_unpoison(page->head.start, page->bytes);
    pyrt_map_set(page->head.start, page->bytes, page, share->pool->number);
    return page;
}

/* Marks the slices of a page free, wherever the segment is. */
static void
free_slices(pyrt_segment *segment, pyrt_page *page)
{
    int slice = (int)((size_t)(page->head.start - segment->start) / PYRT_SLICE);
    pyrt_map_set(page->head.start, page->bytes, NULL, segment->memory->number);
    segment->free |= run_at(slice, page->bytes / PYRT_SLICE);
    segment->first &= ~(UINT64_C(1) << slice);
    pyrt_page_unwatch(page);
    page->head.owner = PYRT_NOBODY;
}

/* That one stays: the next page comes soon. */
static bool
is_only_open(const pyrt_segment *segment)
{
    return segment->next == NULL && segment->previous == NULL;
}

static void
spare_free(pyrt_share *share, pyrt_segment *segment)
{
    share->spare--;
    share->segments--;
    list_remove(&share->open, segment);
    segment_free(segment);
}

void
pyrt_slices_give(pyrt_share *share, pyrt_page *page)
{
    pyrt_segment *segment = page->segment;
    bool was_full = segment->free == 0;
    free_slices(segment, page);
    if (was_full) {
        list_remove(&share->full, segment);
        list_push(&share->open, segment);
    }
    if (segment->free == ALL_SLICES) {
        share->spare++;
        /* What another thread has left is not kept: threads that come and go would hand it on, ever larger. */
        if (share->spare > SPARE_MOST || (segment->is_adopted && !is_only_open(segment))) {
            spare_free(share, segment);
            return;
        }
    }
    if (segment->purge_at == 0) {
        segment->purge_at = pyrt_now_ns() + PURGE_DELAY_NS;
        share->next_purge = segment->purge_at < share->next_purge ? segment->purge_at : share->next_purge;
    }
}

/* Gives back what has aged; the rest of what is free ages from now on. */
static void
purge_segment(pyrt_segment *segment, int64_t now)
{
    if (segment->aged != 0) {
        become_small(segment);
    }
    for (uint64_t wanted = segment->aged; wanted != 0;) {
        int slice = __builtin_ctzll(wanted);
        uint64_t rest = ~(wanted >> slice);
        size_t slices = rest == 0 ? 64 : (size_t)__builtin_ctzll(rest);
        uint64_t run = run_at(slice, slices);
        if (pyrt_os_purge(segment->start + (size_t)slice * PYRT_SLICE, slices * PYRT_SLICE)) {
            segment->dirty &= ~run;
        }
        wanted &= ~run;
    }
    segment->aged = segment->free & segment->dirty;
    segment->purge_at = segment->aged != 0 ? now + PURGE_DELAY_NS : 0;
}

void
pyrt_share_purge(pyrt_share *share, int64_t now)
{
    pyrt_segment *next;
    share->next_purge = INT64_MAX;
    for (pyrt_segment *segment = share->open; segment != NULL; segment = next) {
        next = segment->next;
        if (segment->purge_at != 0 && segment->purge_at <= now) {
            if (segment->free == ALL_SLICES && segment->aged == segment->dirty && !is_only_open(segment)) {
                spare_free(share, segment);
                continue;
            }
            purge_segment(segment, now);
        }
        if (segment->purge_at != 0 && segment->purge_at < share->next_purge) {
            share->next_purge = segment->purge_at;
        }
    }
}

/* ---- huge pages -------------------------------------------------------------------------------------------------- */

pyrt_page *
pyrt_huge_new(pyrt_part *part, size_t bytes, size_t align)
{
    if (bytes > PTRDIFF_MAX - PYRT_SLICE) {
        return NULL;
    }
    bytes = bytes == 0 ? PYRT_SLICE : (bytes + PYRT_SLICE - 1) & ~(PYRT_SLICE - 1);
    pyrt_pool *pool = part->share->pool;
    pyrt_page *page = pyrt_memory_struct_new(pool->memory, sizeof(*page));
    if (page == NULL) {
        return NULL;
    }
    page->head.start = pyrt_os_map(bytes, align > PYRT_SLICE ? align : PYRT_SLICE);
    if (page->head.start == NULL || !pyrt_map_cover(page->head.start, bytes)) {
        if (page->head.start != NULL) {
            pyrt_os_unmap(page->head.start, bytes);
        }
        pyrt_memory_struct_free(pool->memory, page, sizeof(*page));
        return NULL;
    }
    page->bytes = bytes;
    pyrt_page_init(page, bytes, PYRT_CLASS_LARGE, part, true);
    page->head.carved = page->head.capacity = 1;
    pyrt_page_set_used(page, 1);
    page->head.owner = PYRT_WHOEVER;
    page->pool = pool;
    if (page->heap != NULL) {
        pyrt_heap_ref(page->heap);
    }
    pyrt_map_set(page->head.start, bytes, page, pool->number);
    pyrt_raw_mutex_lock(&pool->lock);
    page->next = pool->huge;
    if (pool->huge != NULL) {
        pool->huge->previous = page;
    }
    pool->huge = page;
    pool->huge_bytes += bytes;
    pyrt_raw_mutex_unlock(&pool->lock);
    return page;
}

/* It may be moving to another pool, under the locks of both. */
static pyrt_pool *
lock_pool_of(pyrt_page *page)
{
    for (;;) {
        pyrt_pool *pool = pyrt_load_relaxed(&page->pool);
        pyrt_raw_mutex_lock(&pool->lock);
        if (page->pool == pool) {
            return pool;
        }
        pyrt_raw_mutex_unlock(&pool->lock);
    }
}

/* It is in no list any more. Under the pool's lock: the state may go when nothing of its interpreter is left in the pool. */
static void
unmap_huge(const pyrt_pool *pool, pyrt_page *page)
{
    pyrt_map_set(page->head.start, page->bytes, NULL, 0);
    pyrt_os_unmap(page->head.start, page->bytes);
    pyrt_memory_struct_free(pool->memory, page, sizeof(*page));
}

void
pyrt_huge_free(pyrt_page *page)
{
    pyrt_pool *pool = lock_pool_of(page);
    /* The page goes out of the map first: who frees the same block again finds nothing. */
    pyrt_map_set(page->head.start, page->bytes, NULL, pool->number);
    *(page->previous != NULL ? &page->previous->next : &pool->huge) = page->next;
    if (page->next != NULL) {
        page->next->previous = page->previous;
    }
    pool->huge_bytes -= page->bytes;
    pyrt_heap_impl *heap = page->heap;
    bool is_held = heap != NULL && heap->type_stable;
    if (is_held) {
        page->goal = pyrt_qsbr_advance(pool->interp);
        page->next = pool->held;
        pyrt_store_relaxed(&pool->held, page);
        pyrt_store_relaxed(&pool->held_bytes, pool->held_bytes + page->bytes);
    }
    else {
        unmap_huge(pool, page);
    }
    if (heap != NULL) {
        pyrt_heap_unref(heap);
    }
    pyrt_thread *current = pyrt_thread_current();
    bool is_ours = is_held && current != NULL && current->interp == pool->interp;
    pyrt_raw_mutex_unlock(&pool->lock);
    if (is_ours) {
        pyrt_share_note_held(&pyrt_heaps_of(pyrt_thread_impl_of(current))->share);
    }
}

static void
release_held(pyrt_pool *pool, bool all)
{
    pyrt_page **link = &pool->held;
    while (*link != NULL) {
        pyrt_page *page = *link;
        if (!all && !pyrt_qsbr_poll_interp(pool->interp, page->goal)) {
            link = &page->next;
            continue;
        }
        pyrt_store_relaxed(link, page->next);
        pyrt_store_relaxed(&pool->held_bytes, pool->held_bytes - page->bytes);
        unmap_huge(pool, page);
    }
}

void
pyrt_pool_release(pyrt_pool *pool)
{
    /* relaxed: a look that saves the lock. */
    if (pyrt_load_relaxed(&pool->held) == NULL) {
        return;
    }
    pyrt_raw_mutex_lock(&pool->lock);
    release_held(pool, false);
    pyrt_raw_mutex_unlock(&pool->lock);
}

void
pyrt_share_note_held(const pyrt_share *share)
{
    if (share->thread != NULL) {
        /* relaxed: another thread may be changing it; that one counts it for itself. */
        pyrt_reclaim_hold(share->thread, share->held_bytes + pyrt_load_relaxed(&share->pool->held_bytes));
    }
}

/* ---- the pool of abandoned segments ------------------------------------------------------------------------------ */

void
pyrt_share_abandon(pyrt_share *share)
{
    pyrt_pool *pool = share->pool;
    pyrt_segment **lists[] = {&share->open, &share->full};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        while (*lists[i] != NULL) {
            pyrt_segment *segment = *lists[i];
            list_remove(lists[i], segment);
            segment->purge_at = 0;
            segment->aged = 0;
            if (segment->free == ALL_SLICES) {
                segment_free(segment);
                continue;
            }
            pyrt_raw_mutex_lock(&pool->lock);
            list_push(&pool->abandoned, segment);
            pyrt_store_relaxed(&pool->abandoned_count, pool->abandoned_count + 1);
            pyrt_raw_mutex_unlock(&pool->lock);
        }
    }
    share->next_purge = INT64_MAX;
    share->spare = share->segments = 0;
}

pyrt_segment *
pyrt_segment_adopt(pyrt_share *share)
{
    pyrt_pool *pool = share->pool;
    /* relaxed: a look that saves the lock; one that comes too early finds the segment the next time. */
    if (pyrt_load_relaxed(&pool->abandoned_count) == 0) {
        return NULL;
    }
    pyrt_raw_mutex_lock(&pool->lock);
    pyrt_segment *segment = pool->abandoned;
    if (segment != NULL) {
        list_remove(&pool->abandoned, segment);
        pyrt_store_relaxed(&pool->abandoned_count, pool->abandoned_count - 1);
    }
    pyrt_raw_mutex_unlock(&pool->lock);
    if (segment != NULL) {
        segment->is_adopted = true;
        share->segments++;
        list_push(segment->free != 0 ? &share->open : &share->full, segment);
    }
    return segment;
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

void
pyrt_pool_fini(pyrt_pool *pool)
{
    while (pool->huge != NULL) {
        pyrt_huge_free(pool->huge);
    }
    release_held(pool, true);
    while (pool->abandoned != NULL) {
        pyrt_segment *segment = pool->abandoned;
        pool->abandoned = segment->next;
        pyrt_map_set(segment->start, PYRT_SEGMENT, NULL, segment->memory->number);
        for (uint64_t left = segment->first; left != 0; left &= left - 1) {
            pyrt_page_unwatch(&segment->pages[__builtin_ctzll(left)]);
        }
        segment->free = ALL_SLICES;
        segment_free(segment);
    }
    pool->abandoned_count = 0;
}

void
pyrt_memory_keep(pyrt_memory *memory, pyrt_pool *pool)
{
    /* Somebody may be freeing a huge block. */
    pyrt_raw_mutex_lock(&pool->lock);
    release_held(pool, true);
    memory->for_good = true;
    for (const pyrt_arena *arena = memory->arenas; arena != NULL; arena = arena->next) {
        pyrt_meta_keep(sizeof(*arena));
    }
    for (const pyrt_segment *segment = pool->abandoned; segment != NULL; segment = segment->next) {
        pyrt_meta_keep(sizeof(*segment));
        pyrt_meta_keep(pages_size);
        for (uint64_t left = segment->first; left != 0; left &= left - 1) {
            const pyrt_page *page = &segment->pages[__builtin_ctzll(left)];
            if (pyrt_page_is_watched(page)) {
                pyrt_meta_keep(pyrt_watched_bytes(page));
            }
        }
    }
    for (const pyrt_page *page = pool->huge; page != NULL; page = page->next) {
        pyrt_meta_keep(sizeof(*page));
    }
    pyrt_raw_mutex_unlock(&pool->lock);
}

void
pyrt_pool_move(pyrt_pool *from, pyrt_pool *to)
{
    pyrt_raw_mutex_lock(&from->lock);
    pyrt_raw_mutex_lock(&to->lock);
    release_held(from, true);
    while (from->abandoned != NULL) {
        pyrt_segment *segment = from->abandoned;
        list_remove(&from->abandoned, segment);
        list_push(&to->abandoned, segment);
        pyrt_store_relaxed(&to->abandoned_count, to->abandoned_count + 1);
    }
    while (from->huge != NULL) {
        pyrt_page *page = from->huge;
        from->huge = page->next;
        pyrt_store_relaxed(&page->pool, to);
        page->previous = NULL;
        page->next = to->huge;
        if (to->huge != NULL) {
            to->huge->previous = page;
        }
        to->huge = page;
        to->huge_bytes += page->bytes;
    }
    pyrt_raw_mutex_unlock(&to->lock);
    pyrt_raw_mutex_unlock(&from->lock);
}

void
pyrt_memory_fini(pyrt_memory *memory)
{
    while (memory->arenas != NULL) {
        pyrt_arena *arena = memory->arenas;
        memory->arenas = arena->next;
        arena_free(memory, arena);
    }
}
