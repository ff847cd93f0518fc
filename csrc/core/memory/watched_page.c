/* watched_page.c -- see watched_page.h. */
#include "memory/watched_page.h"

#include "memory/part.h"
#include "platform/poison.h"
#include "platform/report.h"

#include <string.h>

enum { BITS = 64, FRESH_BYTE = 0xCD, DEAD_BYTE = 0xDD };

typedef struct watch {
    bool fill, poison;
    uint32_t words;
    uint32_t next;   /* where the owner looks first: it goes round, so that a freed block stays free for a while */
    uint64_t bits[]; /* `words` of live, then as many of taken */
} watch;

uint32_t pyrt_heap_debug_flags;

pyrt_status
pyrt_heap_debug(unsigned flags)
{
    if ((flags & ~(unsigned)(PYRT_HEAP_DEBUG_CHECK | PYRT_HEAP_DEBUG_FILL | PYRT_HEAP_DEBUG_POISON)) != 0) {
        return PYRT_EINVAL;
    }
    if ((flags & PYRT_HEAP_DEBUG_POISON) != 0 && !pyrt_can_poison()) {
        return PYRT_ENOTSUP;
    }
    /* relaxed: a page that is made at this moment may be watched or not. */
    pyrt_store_relaxed(&pyrt_heap_debug_flags, (uint32_t)flags);
    return PYRT_OK;
}

__attribute__((constructor)) static void
poison_if_that_helps(void)
{
    if (pyrt_can_poison()) {
        (void)pyrt_heap_debug(PYRT_HEAP_DEBUG_POISON);
    }
}

static watch *
watch_of(const pyrt_page *page)
{
    return page->head.local;
}

static uint64_t *
live(watch *w)
{
    return w->bits;
}

static uint64_t *
taken(watch *w)
{
    return w->bits + w->words;
}

static size_t
watch_bytes(uint32_t words)
{
    return sizeof(watch) + (size_t)2 * words * sizeof(uint64_t);
}

size_t
pyrt_watched_bytes(const pyrt_page *page)
{
    return watch_bytes(watch_of(page)->words);
}

void
pyrt_page_watch(pyrt_page *page)
{
    uint32_t flags = pyrt_load_relaxed(&pyrt_heap_debug_flags);
    uint32_t words = (page->head.capacity + BITS - 1) / BITS;
    watch *w = flags == 0 ? NULL : pyrt_memory_struct_new(page->segment->pool->for_good, watch_bytes(words));
    if (w == NULL) {
        return;
    }
    w->fill = (flags & PYRT_HEAP_DEBUG_FILL) != 0;
    w->poison = (flags & PYRT_HEAP_DEBUG_POISON) != 0;
    w->words = words;
    page->head.local = w;
    if (w->poison) {
        pyrt_poison(page->head.start, page->bytes);
    }
    /* relaxed: nobody has a block of it yet. */
    pyrt_store_relaxed(&page->head.owner, page->head.owner | PYRT_WATCHED);
}

void
pyrt_page_unwatch(pyrt_page *page)
{
    if (pyrt_page_is_watched(page)) {
        if (watch_of(page)->poison) {
            pyrt_poison(page->head.start, page->bytes);
        }
        pyrt_memory_struct_free(page->segment->pool->for_good, watch_of(page), pyrt_watched_bytes(page));
        page->head.local = NULL;
    }
}

/* ---- filling ----------------------------------------------------------------------------------------------------- */

/* None of this is for what readers of a freed block may look at. */

static void
fill(const pyrt_page *page, char *block, int byte)
{
    memset(block + page->head.link, byte, pyrt_page_block_size(page) - page->head.link);
}

static void
fill_dead(const pyrt_page *page, char *block)
{
    if (watch_of(page)->fill) {
        fill(page, block, DEAD_BYTE);
    }
    if (watch_of(page)->poison) {
        pyrt_poison(block + page->head.link, pyrt_page_block_size(page) - page->head.link);
    }
}

static void
check_dead(const pyrt_page *page, const char *block)
{
    for (size_t i = page->head.link; i < pyrt_page_block_size(page); i++) {
        if ((unsigned char)block[i] != DEAD_BYTE) {
            pyrt_report("the block at %p, of %zu bytes, was written to after it had been freed, at byte %zu",
                        (const void *)block, pyrt_page_block_size(page), i);
            return;
        }
    }
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

void
pyrt_watched_carve(pyrt_page *page, uint32_t first, uint32_t count)
{
    char *block = page->head.start + (size_t)first * pyrt_page_block_size(page);
    if (watch_of(page)->poison) {
        pyrt_unpoison(block, count * pyrt_page_block_size(page));
    }
    for (uint32_t i = 0; i < count; i++) {
        fill_dead(page, block + i * pyrt_page_block_size(page));
    }
}

/* How many of the carved blocks are taken. */
static uint32_t
count_taken(const pyrt_page *page)
{
    watch *w = watch_of(page);
    uint32_t count = 0;
    for (uint32_t i = 0; i * BITS < page->head.carved; i++) {
        /* acquire: pairs with the freeing of the last of them; the page may go. */
        count += (uint32_t)__builtin_popcountll(pyrt_load_acquire(&taken(w)[i]));
    }
    return count;
}

bool
pyrt_watched_collect(pyrt_page *page)
{
    uint32_t taken_now = count_taken(page);
    pyrt_page_set_used(page, taken_now);
    return taken_now < page->head.carved;
}

/* The first block that is free from an index on; `carved` if there is none. */
static uint32_t
find_free(const pyrt_page *page, uint32_t from)
{
    watch *w = watch_of(page);
    uint64_t wanted = ~UINT64_C(0) << from % BITS;
    for (uint32_t i = from / BITS; i * BITS < page->head.carved; i++, wanted = ~UINT64_C(0)) {
        uint64_t free = ~pyrt_load_acquire(&taken(w)[i]) & wanted;
        if (free != 0) {
            uint32_t index = i * BITS + (uint32_t)__builtin_ctzll(free);
            return index < page->head.carved ? index : page->head.carved;
        }
    }
    return page->head.carved;
}

void *
pyrt_watched_take(pyrt_page *page)
{
    watch *w = watch_of(page);
    uint32_t index = find_free(page, w->next < page->head.carved ? w->next : 0);
    index = index < page->head.carved ? index : find_free(page, 0);
    uint64_t bit = UINT64_C(1) << index % BITS;
    char *block = page->head.start + (size_t)index * pyrt_page_block_size(page);
    pyrt_fetch_or_seq_cst(&taken(w)[index / BITS], bit);
    page->head.until_slow++;
    w->next = index + 1;
    if (w->poison) {
        pyrt_unpoison(block, pyrt_page_block_size(page));
    }
    if (w->fill) {
        check_dead(page, block);
        fill(page, block, FRESH_BYTE);
    }
    pyrt_fetch_or_seq_cst(&live(w)[index / BITS], bit);
    return block;
}

void
pyrt_watched_free(pyrt_page *page, void *freed, bool mine)
{
    watch *w = watch_of(page);
    char *block = freed;
    uint32_t index = (uint32_t)((size_t)(block - page->head.start) / pyrt_page_block_size(page));
    uint64_t bit = UINT64_C(1) << index % BITS;
    if (!pyrt_page_may_have(page, block) || (pyrt_fetch_and_seq_cst(&live(w)[index / BITS], ~bit) & bit) == 0) {
        pyrt_page_refuse_free(block, page);
        return;
    }
    fill_dead(page, block);
    pyrt_pool *pool = page->segment->pool;
    if (mine || pool->interp == NULL) {
        pyrt_fetch_and_seq_cst(&taken(w)[index / BITS], ~bit);
        if (mine && pyrt_page_count_free(page)) {
            pyrt_part_freed(page);
        }
        return;
    }
    /* Its interpreter may be ending, or have ended: then the page goes with its last block. */
    pyrt_raw_mutex_lock(&pool->lock);
    pyrt_fetch_and_seq_cst(&taken(w)[index / BITS], ~bit);
    pyrt_pool_freed(pool, page);
}

bool
pyrt_watched_is_live(const pyrt_page *page, uint32_t index)
{
    return (pyrt_load_acquire(&live(watch_of(page))[index / BITS]) >> index % BITS & 1) != 0;
}

bool
pyrt_watched_is_sound(const pyrt_page *page)
{
    return page->head.free == NULL && page->head.carved <= page->head.capacity &&
           pyrt_page_used(page) <= page->head.carved && count_taken(page) <= pyrt_page_used(page);
}
