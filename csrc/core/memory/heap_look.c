/* heap_look.c -- looking at memory from outside of its threads: whose an address is, the blocks in use, and figures. */
#include "memory/heap_impl.h"

#include "platform/report.h"

int64_t
pyrt_address_owner(const void *address)
{
    /* Number 0 is nobody's. */
    return pyrt_owner_find(pyrt_map_owner_of(pyrt_map_entry_of_any(address)));
}

/* ---- visiting ---------------------------------------------------------------------------------------------------- */

typedef struct visit_of_page {
    pyrt_block_visitor *visit;
    void *arg;
    uint8_t tag;
} visit_of_page;

static bool
visit_block(void *block, size_t size, void *arg)
{
    visit_of_page *of = arg;
    return of->visit(block, size, of->tag, of->arg);
}

/* What is done with every page of an interpreter, or of a part of it; false ends it. */
typedef bool page_function(pyrt_page *page, void *arg);

static bool
each_page_of_segments(pyrt_segment *segment, page_function *function, void *arg)
{
    for (; segment != NULL; segment = segment->next) {
        for (uint64_t left = segment->first; left != 0; left &= left - 1) {
            if (!function(&segment->pages[__builtin_ctzll(left)], arg)) {
                return false;
            }
        }
    }
    return true;
}

static bool
each_page_of_pool(pyrt_pool *pool, page_function *function, void *arg)
{
    /* Who was sweeping the pool when the world stopped has done so once its lock can be had; nobody begins to. Nor does a page go
     * with its only block, which may be freed by those who are not attached. */
    pyrt_raw_mutex_lock(&pool->lock);
    pyrt_segment *abandoned = pool->abandoned;
    pool->visited = true;
    pyrt_raw_mutex_unlock(&pool->lock);
    bool go_on = each_page_of_segments(abandoned, function, arg);
    /* Huge blocks are freed by whoever frees them, attached or not: that waits. */
    pyrt_raw_mutex_lock(&pool->lock);
    pool->visited = false;
    for (pyrt_page *page = pool->huge; page != NULL && go_on; page = page->next) {
        go_on = function(page, arg);
    }
    pyrt_raw_mutex_unlock(&pool->lock);
    return go_on;
}

/* The next state that has pages, NULL: the first; its part is written. States without any come and go (pyrt_thread_unmake), so
 * nobody stands on one without the lock. */
static pyrt_thread_impl *
next_with_pages(pyrt_interp *interp, pyrt_thread_impl *after, pyrt_thread_heaps **out)
{
    pyrt_raw_mutex_lock(&interp->lock);
    pyrt_thread_impl *thread = after == NULL ? interp->threads : after->next;
    for (; thread != NULL; thread = thread->next) {
        *out = pyrt_heaps_of(thread);
        if (*out != NULL && ((*out)->share.open != NULL || (*out)->share.full != NULL)) {
            break;
        }
    }
    pyrt_raw_mutex_unlock(&interp->lock);
    return thread;
}

/* The world of the interpreter is stopped: its threads stand still, and none that has been attached ends. */
static bool
each_page(pyrt_interp *interp, page_function *function, void *arg)
{
    pyrt_thread_heaps *heaps;
    pyrt_thread_impl *thread = next_with_pages(interp, NULL, &heaps);
    for (; thread != NULL; thread = next_with_pages(interp, thread, &heaps)) {
        if (!each_page_of_segments(heaps->share.open, function, arg) ||
            !each_page_of_segments(heaps->share.full, function, arg)) {
            return false;
        }
    }
    return each_page_of_pool(&pyrt_heaps_of_interp(interp)->pool, function, arg);
}

typedef struct visit_of_tags {
    visit_of_page of;
    unsigned tags;
} visit_of_tags;

static bool
visit_page(pyrt_page *page, void *arg)
{
    visit_of_tags *visit = arg;
    if ((visit->tags >> page->head.tag & 1) == 0 ||
        (page->heap != NULL && pyrt_load_acquire(&page->heap->state) == PYRT_HEAP_DESTROYED)) {
        return true;
    }
    visit->of.tag = page->head.tag;
    return pyrt_page_visit(page, visit_block, &visit->of);
}

pyrt_status
pyrt_heap_visit(pyrt_interp *interp, unsigned tags, pyrt_block_visitor *visit, void *arg)
{
    if (interp == NULL || visit == NULL) {
        return PYRT_EINVAL;
    }
    if (!pyrt_pause_is_mine(interp)) {
        pyrt_report("pyrt_heap_visit: this OS thread has not stopped interpreter %lld; call pyrt_stop_the_world first",
                    (long long)interp->id);
        return PYRT_ESTATE;
    }
    visit_of_tags all = {.of = {.visit = visit, .arg = arg}, .tags = tags};
    return each_page(interp, visit_page, &all) ? PYRT_OK : PYRT_EINTR;
}

/* ---- figures ----------------------------------------------------------------------------------------------------- */

static void
add_share(pyrt_memory_stats *out, const pyrt_share *share)
{
    out->pages += pyrt_load_relaxed(&share->pages);
    out->page_bytes += pyrt_load_relaxed(&share->page_bytes);
    out->held_bytes += pyrt_load_relaxed(&share->held_bytes);
    out->adopted_segments += pyrt_load_relaxed(&share->adopted);
}

static void
add_pool(pyrt_memory_stats *out, pyrt_pool *pool)
{
    pyrt_raw_mutex_lock(&pool->lock);
    for (pyrt_segment *segment = pool->abandoned; segment != NULL; segment = segment->next) {
        out->abandoned_segments++;
        for (uint64_t left = segment->first; left != 0; left &= left - 1) {
            out->pages++;
            out->page_bytes += segment->pages[__builtin_ctzll(left)].bytes;
        }
    }
    out->huge_bytes += pool->huge_bytes;
    out->held_bytes += pool->held_bytes;
    pyrt_raw_mutex_unlock(&pool->lock);
}

static void
add_memory(pyrt_memory_stats *out, pyrt_memory *memory)
{
    pyrt_raw_mutex_lock(&memory->lock);
    out->reserved_bytes += memory->reserved_bytes;
    pyrt_raw_mutex_unlock(&memory->lock);
}

void
pyrt_interp_memory_stats(pyrt_interp *or_null, pyrt_memory_stats *out)
{
    if (out == NULL || out->struct_size != sizeof(*out)) {
        return;
    }
    pyrt_memory_stats stats = {.struct_size = sizeof(stats)};
    if (or_null == NULL) {
        pyrt_process_memory_look(&stats, add_share, add_pool, add_memory);
    }
    else {
        pyrt_interp_heaps *heaps = pyrt_heaps_of_interp(or_null);
        pyrt_raw_mutex_lock(&or_null->lock);
        for (pyrt_thread_impl *thread = or_null->threads; thread != NULL; thread = thread->next) {
            if (pyrt_heaps_of(thread) != NULL) {
                add_share(&stats, &pyrt_heaps_of(thread)->share);
            }
        }
        pyrt_raw_mutex_unlock(&or_null->lock);
        add_pool(&stats, &heaps->pool);
        add_memory(&stats, heaps->memory);
        pyrt_raw_mutex_lock(&heaps->lock);
        stats.heaps = heaps->heap_count;
        pyrt_raw_mutex_unlock(&heaps->lock);
        stats.adopted_segments += pyrt_load_relaxed(&heaps->adopted);
    }
    *out = stats;
}
