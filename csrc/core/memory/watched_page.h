/* watched_page.h -- pages that are made while the heap is being debugged (pyrt_heap_debug): what is in use stands in bit maps
 * outside of the page, so that a block that is freed twice, or was never one, is named and does no harm.
 *
 * A watched page has no lists: `free` is always NULL, so that allocating takes the long way, `local` points to the maps, and
 * its owner's token has the bit PYRT_WATCHED set, so that freeing takes the long way too. The fast paths know nothing of it.
 *
 * State table, a bit for each block:
 *   live   handed out                 set by the owner, last of all; cleared by who frees it, first of all: by one of them
 *   taken  not to be handed out       set by the owner, first of all; cleared by who frees it, last of all
 * In between, the block is whose who has set or cleared: it fills it and checks it, poisons it or ends that. Both are set and
 * cleared by read-modify-writes, seq_cst, as acquire and release: what the one before did with the block is seen.
 *
 * Where freed blocks are poisoned (platform/poison.h), so is all of a page that has gone, until its slices are taken or
 * unmapped.
 *
 * `used` counts, as ever, the blocks in use and those that others have freed and the owner has not seen.
 */
#ifndef PYRT_MEMORY_WATCHED_PAGE_H
#define PYRT_MEMORY_WATCHED_PAGE_H

#include "memory/page.h"

/* In `owner`. */
#define PYRT_WATCHED ((uintptr_t)4)

/* What pyrt_heap_debug has set; 0: pages are not watched. */
extern uint32_t pyrt_heap_debug_flags;

static inline bool
pyrt_page_is_watched(const pyrt_page *page)
{
    /* relaxed: the bit is there from before the first block until after the last. */
    return (pyrt_load_relaxed(&page->head.owner) & PYRT_WATCHED) != 0;
}

/* Begins to watch a page that has no block yet, if that is wanted and there is memory for it. And ends it. */
void pyrt_page_watch(pyrt_page *page);
void pyrt_page_unwatch(pyrt_page *page);

/* The bytes that watching the page takes, as for pyrt_memory_struct_new. */
size_t pyrt_watched_bytes(const pyrt_page *page);

/* As the functions of page.h. Taking needs a block that is free; freeing is for everybody, `mine`: by the owner. */
bool pyrt_watched_collect(pyrt_page *page);
void *pyrt_watched_take(pyrt_page *page);
void pyrt_watched_carve(pyrt_page *page, uint32_t first, uint32_t count);
void pyrt_watched_free(pyrt_page *page, void *block, bool mine);
bool pyrt_watched_is_live(const pyrt_page *page, uint32_t index);
bool pyrt_watched_is_sound(const pyrt_page *page);

#endif
