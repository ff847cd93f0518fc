/* page.c -- the lists of a page; see page.h for the invariant and who may touch what. */
#include "memory/part.h"
#include "memory/watched_page.h"
#include "platform/os_memory.h"
#include "platform/report.h"

#include <pyruntime/qsbr.h>

/* So much is carved at a time: a page is not touched before its blocks are wanted. */
enum { CARVE_BYTES = 4096 };

PYRT_STATIC_ASSERT(PYRT_HEAP_SEGMENT == PYRT_SEGMENT, "what inline code holds links to");

/* ---- lists of pages ---------------------------------------------------------------------------------------------- */

void
pyrt_page_list_push_front(pyrt_page_list *list, pyrt_page *page)
{
    page->previous = NULL;
    page->next = list->first;
    *(list->first != NULL ? &list->first->previous : &list->last) = page;
    list->first = page;
}

void
pyrt_page_list_push_back(pyrt_page_list *list, pyrt_page *page)
{
    page->next = NULL;
    page->previous = list->last;
    *(list->last != NULL ? &list->last->next : &list->first) = page;
    list->last = page;
}

void
pyrt_page_list_remove(pyrt_page_list *list, pyrt_page *page)
{
    *(page->previous != NULL ? &page->previous->next : &list->first) = page->next;
    *(page->next != NULL ? &page->next->previous : &list->last) = page->previous;
    page->next = page->previous = NULL;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

/* Another one for each page of each process. */
static uint32_t
key_of(const pyrt_page *page)
{
    uint64_t mixed = (pyrt_os_secret() ^ (uint64_t)(uintptr_t)page->head.start) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(mixed >> 32);
}

void
pyrt_page_init(pyrt_page *page, unsigned class, const pyrt_part *part, bool zero)
{
    page->head.class_ = (uint8_t)class;
    size_t block_size = pyrt_page_block_size(page);
    page->head.free = page->head.local = NULL;
    page->head.slow_below = PYRT_SLOW_WHEN_EMPTY;
    pyrt_page_set_used(page, 0);
    page->head.divider = class == PYRT_CLASS_LARGE ? 1 : UINT64_MAX / block_size + 1; /* 1: at offset 0 alone */
    page->head.carved = 0;
    page->head.capacity = (uint16_t)(page->bytes / block_size);
    page->head.key = key_of(page);
    page->next = page->previous = NULL;
    page->goal = 0;
    page->heap = part->heap;
    page->head.link = part->link;
    page->head.flags = zero ? PYRT_PAGE_ZERO : 0;
    page->head.tag = part->tag;
    page->head.is_guarded = part->is_guarded;
    /* relaxed: nobody has a block of it yet. */
    pyrt_store_relaxed(&page->foreign, NULL);
}

bool
pyrt_page_carve(pyrt_page *page)
{
    uint32_t left = (uint32_t)(page->head.capacity - page->head.carved);
    if (left == 0) {
        return false;
    }
    uint32_t more = pyrt_page_block_size(page) >= CARVE_BYTES ? 1 : (uint32_t)(CARVE_BYTES / pyrt_page_block_size(page));
    more = more < left ? more : left;
    if (pyrt_page_is_watched(page)) {
        pyrt_watched_carve(page, page->head.carved, more);
        page->head.carved = (uint16_t)(page->head.carved + more);
        return true;
    }
    char *first = page->head.start + (size_t)page->head.carved * pyrt_page_block_size(page);
    char *block = first;
    for (uint32_t i = 1; i < more; i++, block += pyrt_page_block_size(page)) {
        pyrt_link_write(page, block, block + pyrt_page_block_size(page));
    }
    pyrt_link_write(page, block, page->head.free);
    page->head.flags |= page->head.free == NULL && (page->head.flags & PYRT_PAGE_ZERO) != 0 ? PYRT_PAGE_FRESH : 0;
    page->head.free = first;
    page->head.carved = (uint16_t)(page->head.carved + more);
    return true;
}

/* How long a list is, and its last block; 0 if it is longer than `most`, because one block is in it twice, or leads nowhere,
 * because one was written to. */
static uint32_t
measure(const pyrt_page *page, void *first, uint32_t most, void **last)
{
    uint32_t count = 0;
    for (void *block = first; block != NULL; block = pyrt_link_read(page, block)) {
        if (!pyrt_page_has(page, block) || ++count > most) {
            return 0;
        }
        *last = block;
    }
    return count;
}

/* What can still be reached are the blocks of `local`, if that is whole. */
static void
lose_free(pyrt_page *page)
{
    void *last;
    uint32_t local = measure(page, page->head.local, page->head.carved, &last);
    page->head.free = NULL;
    page->head.local = local == 0 ? NULL : page->head.local;
    pyrt_page_set_used(page, (uint32_t)page->head.carved - local);
}

void *
pyrt_page_take(pyrt_page *page)
{
    void *block = page->head.free;
    void *next = pyrt_link_read(page, block);
    page->head.until_slow++;
    page->head.free = next;
    if (pyrt_unlikely(next != NULL && !pyrt_page_has(page, next))) {
        lose_free(page);
        pyrt_report("the block at %p, of %zu bytes, was written to after it had been freed; the free blocks behind it are "
                    "not used any more",
                    block, pyrt_page_block_size(page));
    }
    return block;
}

static void
renew_goal(pyrt_page *page)
{
    if (pyrt_page_used(page) == 0 && page->goal != 0 && page->part != NULL) {
        /* That goal is of an earlier time when it was empty. */
        page->goal = pyrt_qsbr_advance(page->part->interp);
    }
}

/* How long a list is that others have made, and its last block; 0, reported, if that cannot be. */
static uint32_t
measure_foreign(const pyrt_page *page, void *first, uint32_t most, void **last)
{
    uint32_t count = measure(page, first, most, last);
    if (count == 0) {
        pyrt_report(
            "pyrt_free: blocks of %zu bytes near %p were freed twice, on threads that do not own them, or written to "
            "after that; they are not used any more",
            pyrt_page_block_size(page), first);
    }
    return count;
}

static void
put_before_local(pyrt_page *page, void *first, void *last, uint32_t count)
{
    page->head.until_slow -= (int32_t)count;
    pyrt_link_write(page, last, page->head.local);
    page->head.local = first;
}

static void
collect_foreign(pyrt_page *page)
{
    /* relaxed: the exchange below orders. */
    if (pyrt_load_relaxed(&page->foreign) == NULL) {
        return;
    }
    /* acquire: pairs with the release in pyrt_page_free_foreign; links and bodies are seen as they were left. */
    void *first = pyrt_exchange_acquire(&page->foreign, NULL);
    void *last;
    uint32_t count = measure_foreign(page, first, pyrt_page_used(page), &last);
    if (count != 0) {
        put_before_local(page, first, last, count);
        renew_goal(page);
    }
}

void
pyrt_page_mark(pyrt_page *page)
{
    /* acquire: as above. What is taken out belongs to nobody else; the other lists may change under the lock from now on. */
    void *first = pyrt_exchange_acquire(&page->foreign, PYRT_ENDED);
    void *last;
    uint32_t count = first == NULL ? 0 : measure_foreign(page, first, page->head.carved, &last);
    if (count != 0) {
        pyrt_raw_mutex_lock(&page->segment->pool->lock);
        put_before_local(page, first, last, count);
        pyrt_raw_mutex_unlock(&page->segment->pool->lock);
    }
}

bool
pyrt_page_collect(pyrt_page *page)
{
    if (pyrt_page_is_watched(page)) {
        uint32_t used = pyrt_page_used(page);
        bool some = pyrt_watched_collect(page);
        if (used != 0) {
            renew_goal(page);
        }
        return some;
    }
    collect_foreign(page);
    if (page->head.free == NULL) {
        page->head.free = page->head.local;
        page->head.local = NULL;
        page->head.flags &= (uint8_t)~PYRT_PAGE_FRESH;
    }
    return page->head.free != NULL;
}

void
pyrt_page_lose_blocks(pyrt_page *page)
{
    page->head.free = NULL;
    page->head.local = pyrt_page_is_watched(page) ? page->head.local : NULL;
    /* relaxed: nobody frees a block of a heap that is destroyed. */
    pyrt_store_relaxed(&page->foreign, NULL);
    page->head.carved = page->head.capacity = 0;
    pyrt_page_set_used(page, 0);
}

void
pyrt_page_refuse(const char *function, const char *done, const void *address, const pyrt_page *page)
{
    size_t size = page == NULL ? 0 : pyrt_page_block_size(page);
    size_t offset = page == NULL ? 0 : (size_t)((const char *)address - page->head.start);
    if (page == NULL || offset / size >= page->head.capacity) {
        pyrt_report("%s: %p is no block of ours; nothing was %s", function, address, done);
    }
    else if (offset % size != 0) {
        size_t inside = offset % size;
        pyrt_report("%s: %p lies %zu byte%s inside of the block at %p; nothing was %s", function, address, inside,
                    inside == 1 ? "" : "s", (const void *)((const char *)address - inside), done);
    }
    else {
        pyrt_report("%s: the block at %p, of %zu bytes, is free already; nothing was %s", function, address, size, done);
    }
}

void
pyrt_page_refuse_free(const void *address, const pyrt_page *page)
{
    pyrt_page_refuse("pyrt_free", "freed", address, page);
}

void
pyrt_page_free_foreign(pyrt_page *page, void *block)
{
    /* relaxed, then release: pairs with the exchange in collect_foreign. No ABA: blocks are only ever taken all at once. */
    if (pyrt_unlikely(!pyrt_page_may_have(page, block))) {
        pyrt_page_refuse_free(block, page);
        return;
    }
    void *head = pyrt_load_relaxed(&page->foreign);
    do {
        if (pyrt_unlikely(head == block)) {
            pyrt_page_refuse_free(block, page);
            return;
        }
        if (pyrt_unlikely(head == PYRT_ENDED)) {
            pyrt_pool_free(page, block);
            return;
        }
        pyrt_link_write(page, block, head);
    } while (!pyrt_cas_release(&page->foreign, &head, block));
}

/* ---- looking at all of them -------------------------------------------------------------------------------------- */

enum { WORD_BITS = 64, MOST_BLOCKS = 8192 };

/* Sets a bit for every block of a list; false when one is not of the page or is there twice. */
static bool
mark(const pyrt_page *page, void *first, uint64_t *bits)
{
    for (void *block = first; block != NULL; block = pyrt_link_read(page, block)) {
        size_t index = (size_t)((char *)block - page->head.start) / pyrt_page_block_size(page);
        if (!pyrt_page_has(page, block) || (bits[index / WORD_BITS] >> index % WORD_BITS & 1) != 0) {
            return false;
        }
        bits[index / WORD_BITS] |= UINT64_C(1) << index % WORD_BITS;
    }
    return true;
}

bool
pyrt_page_visit(pyrt_page *page, bool (*visit)(void *, size_t, void *), void *arg)
{
    uint64_t unused[MOST_BLOCKS / WORD_BITS] = {0};
    bool watched = pyrt_page_is_watched(page);
    if (!watched) {
        collect_foreign(page);
        if (!mark(page, page->head.free, unused) || !mark(page, page->head.local, unused)) {
            return false;
        }
    }
    for (uint32_t i = 0; i < page->head.carved; i++) {
        bool in_use = watched ? pyrt_watched_is_live(page, i) : (unused[i / WORD_BITS] >> i % WORD_BITS & 1) == 0;
        if (in_use && !visit(page->head.start + (size_t)i * pyrt_page_block_size(page), pyrt_page_block_size(page), arg)) {
            return false;
        }
    }
    return true;
}

bool
pyrt_page_is_sound(pyrt_page *page)
{
    if (pyrt_page_is_watched(page)) {
        return pyrt_watched_is_sound(page);
    }
    uint64_t listed[MOST_BLOCKS / WORD_BITS] = {0};
    if (page->head.carved > page->head.capacity || pyrt_page_used(page) > page->head.carved ||
        !mark(page, page->head.free, listed) || !mark(page, page->head.local, listed)) {
        return false;
    }
    uint32_t count = 0;
    for (size_t i = 0; i < MOST_BLOCKS / WORD_BITS; i++) {
        count += (uint32_t)__builtin_popcountll(listed[i]);
    }
    return page->head.carved == count + pyrt_page_used(page) && mark(page, pyrt_load_acquire(&page->foreign), listed);
}
