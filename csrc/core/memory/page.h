/* page.h -- a page of blocks of one size, its three lists, and freeing.
 *
 * Invariant, for the owner between two operations:
 *
 *      carved = |free| + |local| + used          used = blocks handed out + |foreign| = until_slow + slow_below
 *
 * `free` is what allocation takes from; `local` what the owner has freed; `foreign`, atomic, what everybody else has freed.
 * All three are linked through the blocks, each link encoded with the page's key, so that what a program writes into a freed block
 * is seen and followed by nobody.
 *
 * When the interpreter of a page that is no thread's any more ends, `foreign` becomes PYRT_ENDED for good. From then on who
 * frees a block puts it into `local` under the lock of the pool, and gives back what is empty: nobody would come to collect.
 *
 * State table of `foreign`:
 *   NULL, or a block   the first of those that others have freed   who frees one, by compare-and-swap, which fails at PYRT_ENDED
 *                                                                  and then takes the lock; taken out as a whole by the owner
 *   PYRT_ENDED         none, nor will there be                     who ends the interpreter, by the exchange that takes out the
 *                                                                  last ones. Never cleared
 * So a free comes before that exchange, and is found by it, or sees the mark: none is lost.
 *
 * The owner moves foreign to local and local to free when free has run out, so that allocation passes its long way now and
 * then. A page with used == 0 has no foreign blocks: it may go.
 *
 * State of `owner`: the token of the share whose thread it belongs to; PYRT_NOBODY (abandoned); or PYRT_WHOEVER (huge: who
 * frees the block frees the page). Set by who has taken the segment out of the pool, and back by that owner when it ends. Only
 * a thread with that token can find its own token there, so comparing needs no order. A page that is watched
 * (watched_page.h) has a bit more there, and other lists.
 */
#ifndef PYRT_MEMORY_PAGE_H
#define PYRT_MEMORY_PAGE_H

#include "memory/memory.h"
#include "memory/size_class.h"

#include <pyruntime/heap.h>

/* No tokens: those are addresses. */
#define PYRT_NOBODY ((uintptr_t)1)
#define PYRT_WHOEVER ((uintptr_t)2)

/* In `foreign`; no block. */
#define PYRT_ENDED ((void *)1)

/* What `slow_below` of a page says: never, for the only usable page of its class, which stays when it is empty because the next
 * block is wanted soon; when it is empty; for a full one, so many that what is free is worth taking (part.c). */
enum { PYRT_SLOW_NEVER = 0, PYRT_SLOW_WHEN_EMPTY = 1 };

enum {
    PYRT_PAGE_FULL = 2,    /* in the full list of its part, owner's */
    PYRT_PAGE_ZERO = 4,    /* what is not carved yet is zero */
    PYRT_PAGE_FRESH = 8    /* all of `free` is zero but for the links, owner's */
};

/* 128 bytes, aligned to them: the owner's line, and the line of the others. */
struct PYRT_ALIGNED(128) pyrt_page {
    pyrt_page_head head;   /* heap.h */

    void *foreign;         /* atomic: blocks freed by others, linked like the rest; or PYRT_ENDED */
    struct pyrt_page *next, *previous; /* in a list of its part, or among the pool's huge ones; NULL: in none */
    struct pyrt_part *part; /* NULL: abandoned, or huge */
    union {
        pyrt_segment *segment;
        pyrt_pool *pool;   /* of a huge page */
    };
    struct pyrt_heap_impl *heap; /* NULL: the process's */
    size_t bytes;          /* of all its slices */
    uint64_t goal; /* of a type-stable heap: when it was last empty, it could go when readers have passed this; or 0 */
};

PYRT_STATIC_ASSERT(sizeof(pyrt_page) == 128, "the map keeps other things in the low bits");
PYRT_STATIC_ASSERT(offsetof(pyrt_page, foreign) == 64, "others write the second line only");

static inline size_t
pyrt_page_block_size(const pyrt_page *page)
{
    return page->head.class_ == PYRT_CLASS_LARGE ? page->bytes : pyrt_class_size(page->head.class_);
}

/* Whether an address in the page is a multiple of the block size from its start: the product with 2^64 / size, rounded up, has a
 * fraction below that rounding then only. Every free asks, and at home no more than this. */
static inline bool
pyrt_page_is_block(const pyrt_page *page, const void *address)
{
    return (uint64_t)((const char *)address - page->head.start) * page->head.divider < page->head.divider;
}

/* And whether one may begin there: behind the last block there may be room too little for one more. */
static inline bool
pyrt_page_may_have(const pyrt_page *page, const void *address)
{
    size_t offset = (size_t)((const char *)address - page->head.start);
    return pyrt_page_is_block(page, address) && offset < page->head.capacity * pyrt_page_block_size(page);
}

/* Whether a block begins at an address, any, that has been carved. */
static inline bool
pyrt_page_has(const pyrt_page *page, const void *address)
{
    size_t offset = (size_t)((const char *)address - page->head.start);
    return pyrt_page_is_block(page, address) && offset < page->head.carved * pyrt_page_block_size(page);
}

static inline void **
pyrt_link_of(const pyrt_page *page, void *block)
{
    return (void **)(void *)((char *)block + page->head.link);
}

/* What stands in a link for a block, or for NULL. */
static inline void *
pyrt_link_encode(const pyrt_page *page, const void *next)
{
    return (void *)((uintptr_t)next ^ page->head.key);
}

static inline void *
pyrt_link_read(const pyrt_page *page, void *block)
{
    return pyrt_page_link_read(&page->head, pyrt_link_of(page, block));
}

static inline void
pyrt_link_write(const pyrt_page *page, void *block, const void *next)
{
    *pyrt_link_of(page, block) = pyrt_link_encode(page, next);
}

/* The blocks in use. What is stored is how far they are from the long way, so that a free counts and compares in one. */
static inline uint32_t
pyrt_page_used(const pyrt_page *page)
{
    return (uint32_t)(page->head.until_slow + page->head.slow_below);
}

static inline void
pyrt_page_set_used(pyrt_page *page, uint32_t used)
{
    page->head.until_slow = (int32_t)used - page->head.slow_below;
}

static inline void
pyrt_page_set_slow_below(pyrt_page *page, int32_t slow_below)
{
    page->head.until_slow += page->head.slow_below - slow_below;
    page->head.slow_below = slow_below;
}

/* One block fewer, freed at home; whether the long way is to be taken. */
static inline bool
pyrt_page_count_free(pyrt_page *page)
{
    return --page->head.until_slow < 0;
}

/* Lists of pages. */
typedef struct pyrt_page_list {
    pyrt_page *first, *last;
} pyrt_page_list;

void pyrt_page_list_push_front(pyrt_page_list *list, pyrt_page *page);
void pyrt_page_list_push_back(pyrt_page_list *list, pyrt_page *page);
void pyrt_page_list_remove(pyrt_page_list *list, pyrt_page *page);

/* Sets up a page over `page->start` and `page->bytes`. */
void pyrt_page_init(pyrt_page *page, unsigned class, const struct pyrt_part *part, bool zero);

/* Puts more blocks into `free`; false if none are left to carve. */
bool pyrt_page_carve(pyrt_page *page);

/* Takes what others have freed, and what was freed at home, into `free`; false if that stays empty. */
bool pyrt_page_collect(pyrt_page *page);

/* The first block of `free`, which has one. A link in it that leads nowhere is reported: the block was written to when it was
 * free. The blocks behind it are lost, and count as used. */
void *pyrt_page_take(pyrt_page *page);

/* Its heap has been destroyed, and every block with it: it has none to take any more. */
void pyrt_page_lose_blocks(pyrt_page *page);

/* Reports what is no block that a function can take, and what was not done to it: an address in no page (NULL), or in a page and
 * at no block's beginning; else a block that is free. */
void pyrt_page_refuse(const char *function, const char *done, const void *address, const pyrt_page *page);

/* The same, of pyrt_free. */
void pyrt_page_refuse_free(const void *address, const pyrt_page *page);

/* Frees a block that the calling thread does not own. */
void pyrt_page_free_foreign(pyrt_page *page, void *block);

/* Its interpreter ends, and no thread owns it: `foreign` becomes PYRT_ENDED. */
void pyrt_page_mark(pyrt_page *page);

/* Calls `visit` for every block that is handed out; the page keeps still meanwhile. False if `visit` says so. Blocks freed
 * by others are collected first. */
bool pyrt_page_visit(pyrt_page *page, bool (*visit)(void *block, size_t size, void *arg), void *arg);

/* Whether the equation above holds; walks the lists. For tests. */
bool pyrt_page_is_sound(pyrt_page *page);

#endif
