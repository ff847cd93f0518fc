/* interp_memory.c -- the memory of interpreters, from the first to the last of it, which may come long after their end.
 *
 * When an interpreter ends, what is in use of its heaps stays, with its pool and the arenas that it is in, until who frees the
 * last block gives all of that back; pyrt_address_owner names the interpreter so long, no other one gets its address, and
 * pyrt_ended_memory_next tells what there is. What threads had that were lost in a fork, in the middle of something, stays for
 * good: nobody knows which of it is in use.
 *
 * All are in a list, under `list_lock`, from their beginning on: so that a fork finds their locks, whichever step an end is at.
 * `users` counts who keeps the arenas: the own pool, and interpreters that share them. Order of locks: the list's, pools', those
 * of heaps, those of arenas.
 */
#include "memory/heap_impl.h"

#include "platform/meta_alloc.h"
#include "platform/report.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

PYRT_STATIC_ASSERT((int)PYRT_HEAP_CLASSES == (int)PYRT_CLASSES, "the classes that the figures have room for");
PYRT_STATIC_ASSERT(sizeof(((pyrt_interp *)0)->name) == sizeof(((pyrt_ended_memory *)0)->name), "of the same length");

static pyrt_raw_mutex list_lock;
static pyrt_interp_heaps *list;
static uint64_t ends; /* interpreters that have ended, ever */

static pyrt_interp_heaps *
heaps_of_pool(pyrt_pool *pool)
{
    return (pyrt_interp_heaps *)(void *)((char *)pool - offsetof(pyrt_interp_heaps, pool));
}

static pyrt_interp_heaps *
heaps_of_memory(pyrt_memory *own)
{
    return (pyrt_interp_heaps *)(void *)((char *)own - offsetof(pyrt_interp_heaps, own));
}

/* ---- the beginning ----------------------------------------------------------------------------------------------- */

pyrt_status
pyrt_heaps_interp_init(pyrt_interp *interp)
{
    pyrt_interp_heaps *heaps = pyrt_meta_alloc(sizeof(*heaps));
    if (heaps == NULL) {
        return PYRT_ENOMEM;
    }
    heaps->pool.number = pyrt_owner_number(interp->id);
    if (heaps->pool.number == 0) {
        pyrt_meta_free(heaps, sizeof(*heaps));
        return PYRT_ENOMEM;
    }
    pyrt_interp *main = pyrt_interp_main();
    bool shares = interp->use_main_allocator != 0 && main != NULL && main != interp;
    heaps->own.number = heaps->pool.number;
    heaps->pool.interp = interp;
    heaps->pool.memory = heaps->memory = shares ? &pyrt_heaps_of_interp(main)->own : &heaps->own;
    heaps->interp_id = interp->id;
    memcpy(heaps->name, interp->name, sizeof(heaps->name));
    pyrt_raw_mutex_lock(&list_lock);
    heaps->users = 1;
    heaps_of_memory(heaps->memory)->users += shares;
    heaps->next = list;
    if (list != NULL) {
        list->previous = heaps;
    }
    list = heaps;
    pyrt_raw_mutex_unlock(&list_lock);
    interp->keepers++;
    interp->stage[PYRT_STAGE_HEAPS] = heaps;
    return PYRT_OK;
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

/* One user less. The last one takes it out of the list. */
static bool
is_last_user(pyrt_interp_heaps *heaps)
{
    pyrt_raw_mutex_lock(&list_lock);
    bool last = --heaps->users == 0;
    if (last) {
        *(heaps->previous != NULL ? &heaps->previous->next : &list) = heaps->next;
        if (heaps->next != NULL) {
            heaps->next->previous = heaps->previous;
        }
    }
    pyrt_raw_mutex_unlock(&list_lock);
    return last;
}

void
pyrt_heaps_release(pyrt_pool *pool)
{
    pyrt_interp_heaps *heaps = heaps_of_pool(pool);
    while (heaps != NULL && is_last_user(heaps)) {
        pyrt_interp_heaps *lender = heaps->memory != &heaps->own ? heaps_of_memory(heaps->memory) : NULL;
        pyrt_memory_fini(&heaps->own);
        pyrt_owner_forget(heaps->pool.number);
        pyrt_meta_unkeep(sizeof(*heaps->pool.interp));
        pyrt_interp_let_go(heaps->pool.interp);
        pyrt_memory_struct_free(true, heaps, sizeof(*heaps));
        heaps = lender;
    }
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

static void
count_page(pyrt_ended_memory *out, const pyrt_page *page)
{
    pyrt_block_count *count = &out->by_class[page->head.class_];
    uint32_t used = pyrt_page_used(page);
    count->blocks += used;
    count->bytes += used * pyrt_page_block_size(page);
    out->by_tag[page->head.tag] += used;
    out->blocks += used;
    out->bytes += used * pyrt_page_block_size(page);
}

/* Under the list's lock, so that it is there. */
static void
look_at(pyrt_interp_heaps *heaps, pyrt_ended_memory *out)
{
    pyrt_pool *pool = &heaps->pool;
    *out = (pyrt_ended_memory){.struct_size = sizeof(*out), .interp_id = heaps->interp_id};
    memcpy(out->name, heaps->name, sizeof(out->name));
    for (unsigned class = 0; class < PYRT_CLASS_LARGE; class++) {
        out->by_class[class].block_size = pyrt_class_size(class);
    }
    pyrt_raw_mutex_lock(&pool->lock);
    for (const pyrt_segment *segment = pool->abandoned; segment != NULL; segment = segment->next) {
        for (uint64_t left = segment->first; left != 0; left &= left - 1) {
            const pyrt_page *page = &segment->pages[__builtin_ctzll(left)];
            out->pages++;
            out->page_bytes += page->bytes;
            count_page(out, page);
        }
    }
    for (const pyrt_page *page = pool->huge; page != NULL; page = page->next) {
        count_page(out, page);
    }
    out->huge_bytes = pool->huge_bytes;
    pyrt_raw_mutex_unlock(&pool->lock);
    pyrt_raw_mutex_lock(&heaps->memory->lock);
    out->reserved_bytes = heaps->memory->reserved_bytes;
    pyrt_raw_mutex_unlock(&heaps->memory->lock);
}

/* A report that may be longer than one: what does not fit any more begins the next. */
typedef struct leak_report {
    const pyrt_ended_memory *of;
    size_t at;
    char text[400];
} leak_report;

static void
end_report(leak_report *report)
{
    pyrt_report("interpreter %lld '%s' %s", (long long)report->of->interp_id, report->of->name, report->text);
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
report_left(const pyrt_ended_memory *left)
{
    leak_report report = {.of = left};
    add_to_report(&report, "has ended with %llu block%s of its heaps in use, %llu bytes, which go back when they are freed",
                  (unsigned long long)left->blocks, left->blocks == 1 ? "" : "s", (unsigned long long)left->bytes);
    for (unsigned class = 0; class < PYRT_CLASSES; class++) {
        unsigned long long count = left->by_class[class].blocks;
        if (count != 0 && class < PYRT_CLASS_LARGE) {
            add_to_report(&report, ", %llu of %zu bytes", count, pyrt_class_size(class));
        }
        else if (count != 0) {
            add_to_report(&report, ", %llu larger", count);
        }
    }
    for (unsigned tag = 0; tag < PYRT_HEAP_TAGS; tag++) {
        if (left->by_tag[tag] != 0) {
            add_to_report(&report, ", %llu with tag %u", (unsigned long long)left->by_tag[tag], tag);
        }
    }
    end_report(&report);
}

/* Its threads are gone. Who frees the last block waits for the list's lock before anything goes. */
void
pyrt_heaps_interp_fini(pyrt_interp *interp)
{
    pyrt_interp_heaps *heaps = pyrt_heaps_of_interp(interp);
    pyrt_ended_memory left;
    if (heaps == NULL) {
        return;
    }
    pyrt_pool_mark(&heaps->pool);
    pyrt_raw_mutex_lock(&list_lock);
    pyrt_memory_end(&heaps->own);
    pyrt_meta_keep(sizeof(*heaps));
    pyrt_meta_keep(sizeof(*interp));
    bool is_over = pyrt_pool_end(&heaps->pool, interp->free_leaked_blocks != 0);
    heaps->ended_as = ++ends;
    interp->stage[PYRT_STAGE_HEAPS] = NULL;
    free_heap_structs(heaps);
    look_at(heaps, &left);
    pyrt_raw_mutex_unlock(&list_lock);
    if (is_over) {
        pyrt_heaps_release(&heaps->pool);
    }
    else if (left.blocks != 0) {
        report_left(&left);
    }
}

/* ---- afterwards -------------------------------------------------------------------------------------------------- */

pyrt_status
pyrt_ended_memory_next(uint64_t *place, pyrt_ended_memory *out)
{
    if (place == NULL || out == NULL || out->struct_size != sizeof(*out)) {
        return PYRT_EINVAL;
    }
    pyrt_interp_heaps *found = NULL;
    pyrt_raw_mutex_lock(&list_lock);
    for (pyrt_interp_heaps *heaps = list; heaps != NULL; heaps = heaps->next) {
        if (heaps->ended_as > *place && (found == NULL || heaps->ended_as < found->ended_as)) {
            found = heaps;
        }
    }
    if (found != NULL) {
        *place = found->ended_as;
        look_at(found, out);
    }
    pyrt_raw_mutex_unlock(&list_lock);
    return found != NULL ? PYRT_OK : PYRT_ENOTFOUND;
}

/* ---- fork -------------------------------------------------------------------------------------------------------- */

void
pyrt_heaps_fork_prepare(void)
{
    pyrt_raw_mutex_lock(&list_lock);
    for (pyrt_interp_heaps *heaps = list; heaps != NULL; heaps = heaps->next) {
        pyrt_raw_mutex_lock(&heaps->pool.lock);
    }
    for (pyrt_interp_heaps *heaps = list; heaps != NULL; heaps = heaps->next) {
        pyrt_raw_mutex_lock(&heaps->lock);
    }
    for (pyrt_interp_heaps *heaps = list; heaps != NULL; heaps = heaps->next) {
        pyrt_raw_mutex_lock(&heaps->own.lock);
    }
}

void
pyrt_heaps_fork_parent(void)
{
    for (pyrt_interp_heaps *heaps = list; heaps != NULL; heaps = heaps->next) {
        pyrt_raw_mutex_unlock(&heaps->own.lock);
        pyrt_raw_mutex_unlock(&heaps->lock);
        pyrt_raw_mutex_unlock(&heaps->pool.lock);
    }
    pyrt_raw_mutex_unlock(&list_lock);
}

void
pyrt_heaps_fork_child(void)
{
    for (pyrt_interp_heaps *heaps = list; heaps != NULL; heaps = heaps->next) {
        pyrt_raw_mutex_reinit(&heaps->own.lock);
        pyrt_raw_mutex_reinit(&heaps->lock);
        pyrt_raw_mutex_reinit(&heaps->pool.lock);
        /* Who was at it is not here. */
        heaps->pool.visited = false;
    }
    pyrt_raw_mutex_reinit(&list_lock);
}
