/* pool.c -- what is no thread's: segments of threads that have ended, and blocks so large that they are mappings of their own.
 * Everything here is done under the pool's lock; see memory.h.
 */
#include "memory/memory.h"

#include "memory/heap_impl.h"
#include "memory/watched_page.h"
#include "platform/meta_alloc.h"
#include "platform/os_memory.h"
#include "platform/report.h"
#include "reclaim/reclaim.h"

/* ---- huge pages -------------------------------------------------------------------------------------------------- */

pyrt_page *
pyrt_huge_new(pyrt_part *part, size_t bytes, size_t align)
{
    if (bytes > PYRT_HUGE_MAX) {
        return NULL;
    }
    bytes = bytes == 0 ? PYRT_SLICE : (bytes + PYRT_SLICE - 1) & ~(PYRT_SLICE - 1);
    pyrt_pool *pool = part->share->pool;
    pyrt_page *page = pyrt_memory_struct_new(pool->for_good, sizeof(*page));
    if (page == NULL) {
        return NULL;
    }
    page->head.start = pyrt_os_map(bytes, align > PYRT_SLICE ? align : PYRT_SLICE);
    if (page->head.start == NULL || !pyrt_map_cover(page->head.start, bytes)) {
        if (page->head.start != NULL) {
            pyrt_os_unmap(page->head.start, bytes);
        }
        pyrt_memory_struct_free(pool->for_good, page, sizeof(*page));
        return NULL;
    }
    page->bytes = bytes;
    pyrt_page_init(page, PYRT_CLASS_LARGE, part, true);
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

/* Under its lock: nothing is left of an interpreter that has ended. */
static bool
pool_is_over(const pyrt_pool *pool)
{
    return pool->ended && pool->abandoned == NULL && pool->huge == NULL && pool->frozen == 0;
}

/* It is in no list any more. Under the pool's lock: the state may go when nothing of its interpreter is left in the pool. */
static void
unmap_huge(const pyrt_pool *pool, pyrt_page *page)
{
    pyrt_map_set(page->head.start, page->bytes, NULL, 0);
    pyrt_os_unmap(page->head.start, page->bytes);
    pyrt_memory_struct_free(pool->for_good, page, sizeof(*page));
}

static void
remove_huge(pyrt_pool *pool, pyrt_page *page)
{
    *(page->previous != NULL ? &page->previous->next : &pool->huge) = page->next;
    if (page->next != NULL) {
        page->next->previous = page->previous;
    }
    pool->huge_bytes -= page->bytes;
}

void
pyrt_huge_free(pyrt_page *page)
{
    pyrt_pool *pool = page->pool;
    pyrt_raw_mutex_lock(&pool->lock);
    /* The page goes out of the map first: who frees the same block again finds nothing. */
    pyrt_map_set(page->head.start, page->bytes, NULL, pool->number);
    remove_huge(pool, page);
    pyrt_heap_impl *heap = page->heap;
    bool is_held = heap != NULL && heap->type_stable;
    if (is_held) {
        page->goal = pyrt_qsbr_advance(pool->interp);
        page->next = pool->held;
        pool->held = page;
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
    bool is_over = pool_is_over(pool);
    pyrt_raw_mutex_unlock(&pool->lock);
    if (is_over) {
        pyrt_heaps_release(pool);
    }
    else if (is_ours) {
        pyrt_share_note_held(&pyrt_heaps_of(pyrt_thread_impl_of(current))->share);
    }
}

static void
release_huge(pyrt_pool *pool, bool all)
{
    pyrt_page **link = &pool->held;
    while (*link != NULL) {
        pyrt_page *page = *link;
        if (!all && !pyrt_qsbr_poll_interp(pool->interp, page->goal)) {
            link = &page->next;
            continue;
        }
        *link = page->next;
        pyrt_store_relaxed(&pool->held_bytes, pool->held_bytes - page->bytes);
        unmap_huge(pool, page);
    }
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

/* A page of the pool waits for readers from now on, or no more. */
static void
wait_for_readers(pyrt_pool *pool, const pyrt_page *page)
{
    pool->soonest = pool->waiting == 0 || pyrt_qsbr_before(page->goal, pool->soonest) ? page->goal : pool->soonest;
    pool->waiting++;
    pyrt_store_relaxed(&pool->held_bytes, pool->held_bytes + page->bytes);
}

static void
wait_no_more(pyrt_pool *pool, const pyrt_page *page)
{
    pool->waiting--;
    pyrt_store_relaxed(&pool->held_bytes, pool->held_bytes - page->bytes);
}

static void
each_that_waits(pyrt_pool *pool, const pyrt_segment *segment, void (*function)(pyrt_pool *, const pyrt_page *))
{
    for (uint64_t left = segment->first; left != 0; left &= left - 1) {
        const pyrt_page *page = &segment->pages[__builtin_ctzll(left)];
        if (page->goal != 0) {
            function(pool, page);
        }
    }
}

/* Under the lock, as all of these. */
static void
link_segment(pyrt_pool *pool, pyrt_segment *segment, bool in_front)
{
    if (in_front || pool->abandoned == NULL) {
        pool->abandoned_last = pool->abandoned == NULL ? segment : pool->abandoned_last;
        pyrt_segment_list_push(&pool->abandoned, segment);
        return;
    }
    segment->previous = pool->abandoned_last;
    segment->next = NULL;
    pool->abandoned_last->next = segment;
    pool->abandoned_last = segment;
}

static void
unlink_segment(pyrt_pool *pool, pyrt_segment *segment)
{
    if (pool->abandoned_last == segment) {
        pool->abandoned_last = segment->previous;
    }
    pyrt_segment_list_remove(&pool->abandoned, segment);
}

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
            /* What has room is found first. */
            link_segment(pool, segment, segment->free != 0);
            segment->is_abandoned = true;
            each_that_waits(pool, segment, wait_for_readers);
            pyrt_store_relaxed(&pool->abandoned_count, pool->abandoned_count + 1);
            pyrt_raw_mutex_unlock(&pool->lock);
        }
    }
    share->next_purge = INT64_MAX;
    share->spare = share->segments = 0;
}

static void
take_out(pyrt_pool *pool, pyrt_segment *segment)
{
    unlink_segment(pool, segment);
    segment->is_abandoned = false;
    each_that_waits(pool, segment, wait_no_more);
    pyrt_store_relaxed(&pool->abandoned_count, pool->abandoned_count - 1);
}

static void
become_part_of(pyrt_share *share, pyrt_segment *segment)
{
    segment->is_adopted = true;
    share->segments++;
    share->spare += segment->free == PYRT_ALL_SLICES;
    pyrt_segment_list_push(segment->free != 0 ? &share->open : &share->full, segment);
    if ((segment->free & segment->dirty) != 0) {
        pyrt_segment_purge_later(share, segment);
    }
}

/* ---- giving back ------------------------------------------------------------------------------------------------- */

/* A segment of the pool has free slices more. */
static void
give_back(pyrt_pool *pool, pyrt_segment *segment)
{
    if (segment->free != PYRT_ALL_SLICES) {
        pyrt_segment_purge(segment, segment->free & segment->dirty);
        return;
    }
    take_out(pool, segment);
    pyrt_segment_free(segment);
}

/* Whether a page has become empty without its having been seen: who frees a block of it and does not take the segment over
 * tells nobody. */
static bool
has_become_empty(pyrt_page *page)
{
    if (page->heap != NULL && pyrt_load_acquire(&page->heap->state) == PYRT_HEAP_DESTROYED) {
        pyrt_page_lose_blocks(page);
    }
    (void)pyrt_page_collect(page);
    return pyrt_page_used(page) == 0;
}

/* Whether a page may go; `look`: also if it did not wait so far. */
static bool
may_go(pyrt_pool *pool, pyrt_page *page, bool look)
{
    if (page->goal == 0) {
        if (!look || !has_become_empty(page)) {
            return false;
        }
        if (page->heap == NULL || !page->heap->type_stable) {
            return true;
        }
        page->goal = pyrt_qsbr_advance(pool->interp);
    }
    return pyrt_qsbr_poll_interp(pool->interp, page->goal);
}

/* Whether one has gone. Those that wait have been counted out before, and are counted in here. */
static bool
release_pages_of(pyrt_pool *pool, pyrt_segment *segment, bool look)
{
    bool some = false;
    for (uint64_t left = segment->first; left != 0; left &= left - 1) {
        pyrt_page *page = &segment->pages[__builtin_ctzll(left)];
        if (may_go(pool, page, look)) {
            if (page->heap != NULL) {
                pyrt_heap_unref(page->heap);
            }
            pyrt_slices_free(page);
            some = true;
        }
        else if (page->goal != 0) {
            wait_for_readers(pool, page);
        }
    }
    return some;
}

static void
release_pages(pyrt_pool *pool, bool look)
{
    if (!look && (pool->waiting == 0 || !pyrt_qsbr_poll_interp(pool->interp, pool->soonest))) {
        return;
    }
    /* Which is the soonest is found anew. */
    for (const pyrt_segment *segment = pool->abandoned; segment != NULL; segment = segment->next) {
        each_that_waits(pool, segment, wait_no_more);
    }
    pyrt_segment *next;
    for (pyrt_segment *segment = pool->abandoned; segment != NULL; segment = next) {
        next = segment->next;
        /* Also slices that its thread had freed shortly before it ended. */
        if (release_pages_of(pool, segment, look) || look) {
            give_back(pool, segment);
        }
    }
}

void
pyrt_pool_release(pyrt_pool *pool)
{
    /* relaxed: a look that saves the lock. */
    if (pyrt_load_relaxed(&pool->held_bytes) == 0) {
        return;
    }
    pyrt_raw_mutex_lock(&pool->lock);
    release_huge(pool, false);
    release_pages(pool, false);
    pyrt_raw_mutex_unlock(&pool->lock);
}

void
pyrt_pool_sweep(pyrt_pool *pool)
{
    release_huge(pool, false);
    release_pages(pool, true);
    pyrt_raw_mutex_unlock(&pool->lock);
}

bool
pyrt_pool_free_single(pyrt_page *page, void *block)
{
    pyrt_pool *pool = page->segment->pool;
    pyrt_held_reports held;
    pyrt_report_hold(&held);
    pyrt_raw_mutex_lock(&pool->lock);
    bool goes = page->segment->is_abandoned && !pool->ending && !pool->visited && pyrt_page_used(page) == 1;
    if (goes) {
        pyrt_segment *segment = page->segment;
        pyrt_link_write(page, block, page->head.local);
        page->head.local = block;
        pyrt_page_set_used(page, 0);
        each_that_waits(pool, segment, wait_no_more);
        if (release_pages_of(pool, segment, true)) {
            give_back(pool, segment);
        }
    }
    pyrt_raw_mutex_unlock(&pool->lock);
    pyrt_report_tell(&held);
    return goes;
}

/* ---- taking over ------------------------------------------------------------------------------------------------- */

/* So many segments are looked at each time. What is of no use goes to the end, so that all come by; and while nothing is, they are
 * looked at more and more seldom. */
enum { SEGMENTS_LOOKED_AT = 4, PAUSE_MOST = 64 };

static bool
has_page(const pyrt_segment *segment, const pyrt_part *part, unsigned class)
{
    for (uint64_t left = segment->first; left != 0; left &= left - 1) {
        const pyrt_page *page = &segment->pages[__builtin_ctzll(left)];
        if (page->head.class_ == class && page->heap == part->heap && pyrt_page_used(page) < page->head.capacity) {
            return true;
        }
    }
    return false;
}

static pyrt_segment *
find_segment(pyrt_pool *pool, const pyrt_part *part, unsigned class, size_t slices)
{
    for (int i = 0; i < SEGMENTS_LOOKED_AT && pool->abandoned != NULL; i++) {
        pyrt_segment *segment = pool->abandoned;
        each_that_waits(pool, segment, wait_no_more);
        bool some = release_pages_of(pool, segment, true);
        if (pyrt_segment_has_room(segment, slices) || (class != PYRT_CLASS_LARGE && has_page(segment, part, class))) {
            return segment;
        }
        unlink_segment(pool, segment);
        link_segment(pool, segment, false);
        if (some) {
            give_back(pool, segment);
        }
    }
    return NULL;
}

pyrt_segment *
pyrt_segment_adopt(const pyrt_part *part, unsigned class, size_t slices)
{
    pyrt_share *share = part->share;
    pyrt_pool *pool = share->pool;
    /* relaxed: a look that saves the lock; one that comes too early finds the segment the next time. */
    if (pyrt_load_relaxed(&pool->abandoned_count) == 0) {
        return NULL;
    }
    if (share->adopt_skip != 0) {
        share->adopt_skip--;
        return NULL;
    }
    pyrt_raw_mutex_lock(&pool->lock);
    pyrt_segment *segment = find_segment(pool, part, class, slices);
    bool looks_in_vain = segment == NULL && pool->abandoned != NULL;
    if (segment != NULL) {
        take_out(pool, segment);
    }
    pyrt_raw_mutex_unlock(&pool->lock);
    if (segment != NULL) {
        share->adopt_pause = 0;
        become_part_of(share, segment);
    }
    else if (looks_in_vain) {
        share->adopt_pause = share->adopt_pause == 0           ? 1
                             : share->adopt_pause < PAUSE_MOST ? share->adopt_pause * 2
                                                               : PAUSE_MOST;
        share->adopt_skip = share->adopt_pause;
    }
    return segment;
}

bool
pyrt_segment_adopt_this(pyrt_share *share, pyrt_segment *segment)
{
    pyrt_pool *pool = share->pool;
    if (segment->pool != pool) {
        return false;
    }
    pyrt_raw_mutex_lock(&pool->lock);
    bool is_there = segment->is_abandoned;
    if (is_there) {
        take_out(pool, segment);
    }
    pyrt_raw_mutex_unlock(&pool->lock);
    if (is_there) {
        become_part_of(share, segment);
    }
    return is_there;
}

/* ---- when the interpreter has ended ------------------------------------------------------------------------------ */

void
pyrt_pool_freed(pyrt_pool *pool, pyrt_page *page)
{
    /* While the interpreter lives the page may be gone already, with the thread that owns it. In the child of a fork it may be a
     * lost thread's segment, which is in no list of the pool and stays. */
    bool may_go = pool->ended && page->segment->is_abandoned;
    if (may_go && pyrt_page_is_watched(page)) {
        (void)pyrt_watched_collect(page);
    }
    bool goes = may_go && pyrt_page_used(page) == 0;
    if (goes) {
        pyrt_slices_free(page);
        give_back(pool, page->segment);
    }
    bool is_over = goes && pool_is_over(pool);
    pyrt_raw_mutex_unlock(&pool->lock);
    if (is_over) {
        pyrt_heaps_release(pool);
    }
}

void
pyrt_pool_free(pyrt_page *page, void *block)
{
    pyrt_pool *pool = page->segment->pool;
    pyrt_raw_mutex_lock(&pool->lock);
    if (block == page->head.local) {
        /* The page may go with the lock. */
        const pyrt_page seen = {.head = page->head, .bytes = page->bytes};
        pyrt_raw_mutex_unlock(&pool->lock);
        pyrt_page_refuse_free(block, &seen);
        return;
    }
    pyrt_link_write(page, block, page->head.local);
    page->head.local = block;
    page->head.until_slow--;
    pyrt_pool_freed(pool, page);
}

void
pyrt_pool_mark(pyrt_pool *pool)
{
    pyrt_raw_mutex_lock(&pool->lock);
    pool->ending = true;
    pyrt_raw_mutex_unlock(&pool->lock);
    /* Nobody adds a segment any more, and none goes before the pool has ended. */
    for (const pyrt_segment *segment = pool->abandoned; segment != NULL; segment = segment->next) {
        for (uint64_t left = segment->first; left != 0; left &= left - 1) {
            pyrt_page_mark(&segment->pages[__builtin_ctzll(left)]);
        }
    }
}

/* Whether a page goes with its interpreter. The heap of one that does not, does all the same. */
static bool
goes_too(pyrt_page *page, bool all)
{
    const pyrt_heap_impl *heap = page->heap;
    page->heap = NULL;
    return all || pyrt_page_used(page) == 0 || (heap != NULL && pyrt_load_acquire(&heap->state) == PYRT_HEAP_DESTROYED);
}

static void
end_segment(pyrt_pool *pool, pyrt_segment *segment, bool all)
{
    each_that_waits(pool, segment, wait_no_more);
    for (uint64_t left = segment->first; left != 0; left &= left - 1) {
        pyrt_page *page = &segment->pages[__builtin_ctzll(left)];
        if (pyrt_page_is_watched(page)) {
            (void)pyrt_watched_collect(page);
        }
        if (goes_too(page, all)) {
            pyrt_slices_free(page);
        }
    }
    give_back(pool, segment);
}

/* Under its lock: what is left belongs to the process. */
static void
keep(pyrt_pool *pool)
{
    pool->for_good = true;
    for (const pyrt_segment *segment = pool->abandoned; segment != NULL; segment = segment->next) {
        pyrt_segment_keep(segment);
    }
    for (const pyrt_page *page = pool->huge; page != NULL; page = page->next) {
        pyrt_meta_keep(sizeof(*page));
    }
}

bool
pyrt_pool_end(pyrt_pool *pool, bool all)
{
    pyrt_raw_mutex_lock(&pool->lock);
    release_huge(pool, true);
    pyrt_segment *next_segment;
    for (pyrt_segment *segment = pool->abandoned; segment != NULL; segment = next_segment) {
        next_segment = segment->next;
        end_segment(pool, segment, all);
    }
    pyrt_page *next_page;
    for (pyrt_page *page = pool->huge; page != NULL; page = next_page) {
        next_page = page->next;
        if (goes_too(page, all)) {
            remove_huge(pool, page);
            unmap_huge(pool, page);
        }
    }
    pool->ended = true;
    keep(pool);
    bool is_over = all || pool_is_over(pool);
    pyrt_raw_mutex_unlock(&pool->lock);
    return is_over;
}
