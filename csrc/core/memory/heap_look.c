/* heap_look.c -- looking at memory from outside of its threads: whose an address is, the blocks in use, figures, and what is
 * left when an interpreter ends.
 */
#include "memory/heap_impl.h"

#include "platform/meta_alloc.h"
#include "platform/report.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

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
    /* Another interpreter that ends may be putting segments in front of these. */
    pyrt_raw_mutex_lock(&pool->lock);
    pyrt_segment *abandoned = pool->abandoned;
    pyrt_raw_mutex_unlock(&pool->lock);
    bool go_on = each_page_of_segments(abandoned, function, arg);
    /* Huge blocks are freed by whoever frees them, attached or not: that waits. */
    pyrt_raw_mutex_lock(&pool->lock);
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
    if (out->struct_size != sizeof(*out)) {
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

/* ---- the end of an interpreter ----------------------------------------------------------------------------------- */

/* Blocks in use by class and tag; and how many of them are in use of interpreters that have ended before. */
typedef struct leaks {
    uint64_t blocks, bytes;
    uint64_t inherited;
    uint64_t by_class[PYRT_CLASSES];
    uint64_t by_tag[32];
} leaks;

/* Its heap goes with the interpreter. Who frees a huge block looks at that under the pool's lock, which is held here. What is of
 * no heap any more came from an interpreter that shared the memory, and was reported at that one's end. */
static bool
count_leaks(pyrt_page *page, void *arg)
{
    leaks *found = arg;
    const pyrt_heap_impl *heap = page->heap;
    page->heap = NULL;
    if (heap != NULL && pyrt_load_acquire(&heap->state) == PYRT_HEAP_DESTROYED) {
        return true;
    }
    if (pyrt_load_relaxed(&page->head.owner) != PYRT_WHOEVER) {
        pyrt_page_collect(page);
    }
    if (heap == NULL) {
        found->inherited += pyrt_page_used(page);
        return true;
    }
    found->blocks += pyrt_page_used(page);
    found->bytes += pyrt_page_used(page) * page->head.block_size;
    found->by_class[page->head.class_] += pyrt_page_used(page);
    found->by_tag[page->head.tag] += pyrt_page_used(page);
    return true;
}

/* A report that may be longer than one: what does not fit any more begins the next. */
typedef struct leak_report {
    const pyrt_interp *interp;
    size_t at;
    char text[400];
} leak_report;

static void
end_report(leak_report *report)
{
    pyrt_report("interpreter %lld '%s' %s", (long long)report->interp->id, report->interp->name, report->text);
    report->at = 0;
}

__attribute__((format(printf, 2, 3))) static void
add_to_report(leak_report *report, const char *format, ...)
{
    char more[100];
    va_list args;
    va_start(args, format);
    size_t length = (size_t)vsnprintf(more, sizeof(more), format, args);
    va_end(args);
    if (report->at + length >= sizeof(report->text)) {
        end_report(report);
        report->at = (size_t)snprintf(report->text, sizeof(report->text), "has left besides");
    }
    memcpy(report->text + report->at, more, length + 1);
    report->at += length;
}

static void
report_leaks(const pyrt_interp *interp, const leaks *found)
{
    leak_report report = {.interp = interp};
    add_to_report(&report, "has ended with %llu blocks of its heaps in use, %llu bytes; their memory stays",
                  (unsigned long long)found->blocks, (unsigned long long)found->bytes);
    for (unsigned class = 0; class < PYRT_CLASSES; class++) {
        unsigned long long count = found->by_class[class];
        if (count != 0 && class < PYRT_CLASS_LARGE) {
            add_to_report(&report, ", %llu of %zu bytes", count, pyrt_class_size(class));
        }
        else if (count != 0) {
            add_to_report(&report, ", %llu larger", count);
        }
    }
    for (unsigned tag = 0; tag < 32; tag++) {
        if (found->by_tag[tag] != 0) {
            add_to_report(&report, ", %llu with tag %u", (unsigned long long)found->by_tag[tag], tag);
        }
    }
    end_report(&report);
}

static void
free_heap_structs(pyrt_interp_heaps *heaps)
{
    while (heaps->heaps != NULL) {
        pyrt_heap_impl *heap = heaps->heaps;
        heaps->heaps = heap->next;
        pyrt_meta_free(heap, sizeof(*heap));
    }
    pyrt_index_pool_fini(&heaps->indexes);
}

/* Its threads are gone. What it shares with the main interpreter goes over to that. Else, with blocks still in use everything
 * stays as it is, for those who use them: freeing goes on working, and pyrt_address_owner goes on naming the interpreter. So
 * it does, unreported, with what threads had that were lost in the middle of something: nobody knows which of it is in use. */
void
pyrt_heaps_interp_fini(pyrt_interp *interp)
{
    pyrt_interp_heaps *heaps = pyrt_heaps_of_interp(interp);
    leaks found = {0};
    if (heaps == NULL) {
        return;
    }
    (void)each_page_of_pool(&heaps->pool, count_leaks, &found);
    interp->stage[PYRT_STAGE_HEAPS] = NULL;
    free_heap_structs(heaps);
    bool shares = heaps->memory != &heaps->own;
    bool in_use = found.blocks != 0 || found.inherited != 0 || heaps->frozen != 0;
    if (in_use && !interp->free_leaked_blocks) {
        if (found.blocks != 0) {
            report_leaks(interp, &found);
        }
        if (shares) {
            pyrt_pool_move(&heaps->pool, &pyrt_heaps_of_interp(pyrt_interp_main())->pool);
        }
        else {
            pyrt_memory_keep(&heaps->own, &heaps->pool);
        }
        /* Somebody may be freeing a block at this moment, and hold the lock of the pool. */
        pyrt_meta_keep(sizeof(*heaps));
        return;
    }
    pyrt_pool_fini(&heaps->pool);
    pyrt_memory_fini(&heaps->own);
    pyrt_owner_forget(heaps->pool.number);
    pyrt_meta_free(heaps, sizeof(*heaps));
}
