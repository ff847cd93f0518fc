/* memory.c -- arenas, segments and slices; see memory.h for the four steps and whose they are, pool.c for what is nobody's. */
#include "memory/memory.h"

#include "memory/watched_page.h"
#include "platform/futex.h"
#include "platform/meta_alloc.h"
#include "platform/os_memory.h"
#include "platform/poison.h"

#include <string.h>

enum {
    ARENA_FIRST = 1, /* segments of the first arena of a state; each next one has twice as many */
    ARENA_MOST = 16,
    SPARE_MOST = 4, /* segments that a share keeps without a page, until they have aged */
    PURGE_DELAY_NS = 10000000
};

void *
pyrt_memory_struct_new(bool for_good, size_t size)
{
    void *p = pyrt_meta_alloc(size);
    if (p != NULL && for_good) {
        pyrt_meta_keep(size);
    }
    return p;
}

void
pyrt_memory_struct_free(bool for_good, void *p, size_t size)
{
    if (p != NULL && for_good) {
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
    pyrt_arena *arena = pyrt_memory_struct_new(memory->for_good, sizeof(*arena));
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
        pyrt_memory_struct_free(memory->for_good, arena, sizeof(*arena));
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
    pyrt_memory_struct_free(memory->for_good, arena, sizeof(*arena));
}

/* ---- segments ---------------------------------------------------------------------------------------------------- */

static const size_t pages_size = PYRT_SEGMENT_SLICES * sizeof(pyrt_page);

void
pyrt_segment_list_remove(pyrt_segment **list, pyrt_segment *segment)
{
    *(segment->previous != NULL ? &segment->previous->next : list) = segment->next;
    if (segment->next != NULL) {
        segment->next->previous = segment->previous;
    }
}

void
pyrt_segment_list_push(pyrt_segment **list, pyrt_segment *segment)
{
    segment->previous = NULL;
    segment->next = *list;
    if (*list != NULL) {
        (*list)->previous = segment;
    }
    *list = segment;
}

void
pyrt_segment_keep(const pyrt_segment *segment)
{
    pyrt_meta_keep(sizeof(*segment));
    pyrt_meta_keep(pages_size);
    for (uint64_t left = segment->first; left != 0; left &= left - 1) {
        const pyrt_page *page = &segment->pages[__builtin_ctzll(left)];
        if (pyrt_page_is_watched(page)) {
            pyrt_meta_keep(pyrt_watched_bytes(page));
        }
    }
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
    pyrt_segment *segment = pyrt_memory_struct_new(share->pool->for_good, sizeof(*segment));
    pyrt_page *pages = pyrt_memory_struct_new(share->pool->for_good, pages_size);
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
        pyrt_memory_struct_free(share->pool->for_good, pages, pages_size);
        pyrt_memory_struct_free(share->pool->for_good, segment, sizeof(*segment));
        return NULL;
    }
    segment->pool = share->pool;
    segment->arena = arena;
    segment->pages = pages;
    segment->free = PYRT_ALL_SLICES;
    if (share->page_bytes >= PYRT_HUGE_FROM) {
        segment->is_huge = true;
        pyrt_os_advise_huge(segment->start, PYRT_SEGMENT, true);
    }
    pyrt_segment_list_push(&share->open, segment);
    share->spare++;
    share->segments++;
    return segment;
}

/* All of its slices are free, and it is in no list any more. */
void
pyrt_segment_free(pyrt_segment *segment)
{
    pyrt_memory *memory = segment->pool->memory;
    pyrt_arena *arena = segment->arena;
    become_small(segment);
    /* An arena hands out zero memory. What cannot be purged stays reserved for good: nothing is lost but room. */
    bool zero = segment->dirty == 0 || pyrt_os_purge(segment->start, PYRT_SEGMENT);
    pyrt_raw_mutex_lock(&memory->lock);
    if (zero) {
        arena->free |= (uint32_t)1 << (size_t)(segment->start - arena->start) / PYRT_SEGMENT;
        if (arena->free == low_bits(arena->segments) && (arena != memory->arenas || memory->ended)) {
            pyrt_arena **link = &memory->arenas;
            while (*link != arena) {
                link = &(*link)->next;
            }
            *link = arena->next;
            arena_free(memory, arena);
        }
    }
    pyrt_raw_mutex_unlock(&memory->lock);
    bool for_good = segment->pool->for_good;
    pyrt_memory_struct_free(for_good, segment->pages, pages_size);
    pyrt_memory_struct_free(for_good, segment, sizeof(*segment));
}

/* ---- slices ------------------------------------------------------------------------------------------------------ */

static uint64_t
run_at(int slice, size_t slices)
{
    return (slices >= 64 ? PYRT_ALL_SLICES : (UINT64_C(1) << slices) - 1) << slice;
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
pyrt_segment_has_room(const pyrt_segment *segment, size_t slices)
{
    return find_run(segment->free, slices) >= 0;
}

bool
pyrt_share_has_room(const pyrt_share *share, size_t slices)
{
    const pyrt_segment *segment = share->open;
    while (segment != NULL && !pyrt_segment_has_room(segment, slices)) {
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
    share->spare -= segment->free == PYRT_ALL_SLICES;
    segment->aged &= ~run;
    segment->free &= ~run;
    segment->dirty |= run;
    segment->first |= UINT64_C(1) << slice;
    if (segment->free == 0) {
        pyrt_segment_list_remove(&share->open, segment);
        pyrt_segment_list_push(&share->full, segment);
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

void
pyrt_slices_free(pyrt_page *page)
{
    pyrt_segment *segment = page->segment;
    int slice = (int)((size_t)(page->head.start - segment->start) / PYRT_SLICE);
    pyrt_map_set(page->head.start, page->bytes, NULL, segment->pool->memory->number);
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
    /* Not for what comes and goes with the spare ones. */
    if (share->sweep_at > pyrt_share_next_sweep(share) + SPARE_MOST) {
        share->sweep_at = pyrt_share_next_sweep(share) + SPARE_MOST;
    }
    pyrt_segment_list_remove(&share->open, segment);
    pyrt_segment_free(segment);
}

void
pyrt_slices_give(pyrt_share *share, pyrt_page *page)
{
    pyrt_segment *segment = page->segment;
    bool was_full = segment->free == 0;
    pyrt_slices_free(page);
    if (was_full) {
        pyrt_segment_list_remove(&share->full, segment);
        pyrt_segment_list_push(&share->open, segment);
    }
    if (segment->free == PYRT_ALL_SLICES) {
        share->spare++;
        /* What another thread has left is not kept: threads that come and go would hand it on, ever larger. */
        if (share->spare > SPARE_MOST || (segment->is_adopted && !is_only_open(segment))) {
            spare_free(share, segment);
            return;
        }
    }
    pyrt_segment_purge_later(share, segment);
}

void
pyrt_segment_purge_later(pyrt_share *share, pyrt_segment *segment)
{
    if (segment->purge_at == 0) {
        segment->purge_at = pyrt_now_ns() + PURGE_DELAY_NS;
        share->next_purge = segment->purge_at < share->next_purge ? segment->purge_at : share->next_purge;
    }
}

void
pyrt_segment_purge(pyrt_segment *segment, uint64_t wanted)
{
    if (wanted != 0) {
        become_small(segment);
    }
    while (wanted != 0) {
        int slice = __builtin_ctzll(wanted);
        uint64_t rest = ~(wanted >> slice);
        size_t slices = rest == 0 ? 64 : (size_t)__builtin_ctzll(rest);
        uint64_t run = run_at(slice, slices);
        if (pyrt_os_purge(segment->start + (size_t)slice * PYRT_SLICE, slices * PYRT_SLICE)) {
            segment->dirty &= ~run;
        }
        wanted &= ~run;
    }
}

/* Gives back what has aged; the rest of what is free ages from now on. */
static void
purge_aged(pyrt_segment *segment, int64_t now)
{
    pyrt_segment_purge(segment, segment->aged);
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
            if (segment->free == PYRT_ALL_SLICES && segment->aged == segment->dirty && !is_only_open(segment)) {
                spare_free(share, segment);
                continue;
            }
            purge_aged(segment, now);
        }
        if (segment->purge_at != 0 && segment->purge_at < share->next_purge) {
            share->next_purge = segment->purge_at;
        }
    }
}

void
pyrt_share_purge_all(pyrt_share *share)
{
    pyrt_segment *next;
    share->next_purge = INT64_MAX;
    for (pyrt_segment *segment = share->open; segment != NULL; segment = next) {
        next = segment->next;
        if (segment->free == PYRT_ALL_SLICES) {
            spare_free(share, segment);
            continue;
        }
        pyrt_segment_purge(segment, segment->free & segment->dirty);
        segment->aged = 0;
        segment->purge_at = 0;
    }
}

void
pyrt_share_purge_if_due(pyrt_share *share)
{
    if (share->next_purge != INT64_MAX) {
        int64_t now = pyrt_now_ns();
        if (now >= share->next_purge) {
            pyrt_share_purge(share, now);
        }
    }
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

void
pyrt_memory_end(pyrt_memory *memory)
{
    pyrt_raw_mutex_lock(&memory->lock);
    for (pyrt_arena **link = &memory->arenas; *link != NULL;) {
        pyrt_arena *arena = *link;
        if (arena->free == low_bits(arena->segments)) {
            *link = arena->next;
            arena_free(memory, arena);
            continue;
        }
        pyrt_meta_keep(sizeof(*arena));
        link = &arena->next;
    }
    memory->ended = memory->for_good = true;
    pyrt_raw_mutex_unlock(&memory->lock);
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
