/* pool.c -- what is no thread's: segments of threads that have ended, and blocks so large that they are mappings of their own.
 * Everything here is done under the pool's lock; see memory.h.
 */
#include "memory/memory.h"

#include "memory/heap_impl.h"
#include "memory/watched_page.h"
#include "platform/meta_alloc.h"
#include "platform/os_memory.h"
#include "reclaim/reclaim.h"

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
            pyrt_segment_list_remove(lists[i], segment);
            segment->purge_at = 0;
            segment->aged = 0;
            if (segment->free == PYRT_ALL_SLICES) {
                pyrt_segment_free(segment);
                continue;
            }
            pyrt_raw_mutex_lock(&pool->lock);
            pyrt_segment_list_push(&pool->abandoned, segment);
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
        pyrt_segment_list_remove(&pool->abandoned, segment);
        pyrt_store_relaxed(&pool->abandoned_count, pool->abandoned_count - 1);
    }
    pyrt_raw_mutex_unlock(&pool->lock);
    if (segment != NULL) {
        segment->is_adopted = true;
        share->segments++;
        pyrt_segment_list_push(segment->free != 0 ? &share->open : &share->full, segment);
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
        segment->free = PYRT_ALL_SLICES;
        pyrt_segment_free(segment);
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
        pyrt_segment_keep(segment);
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
        pyrt_segment_list_remove(&from->abandoned, segment);
        pyrt_segment_list_push(&to->abandoned, segment);
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
