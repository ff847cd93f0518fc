/* part.h -- one thread's part of a heap: where its blocks come from.
 *
 * A page in which nothing was left to take is in its class's `full` list, any other in its `usable` list. It stays in the
 * full one, whatever others free of it, until its owner has freed more than a sixteenth of it, or finds it with something to
 * take when it goes round: what full pages keep back that their owner has freed is a sixteenth at most. The table `direct` has
 * for each small size the page to take from, the first usable one, or one that is always empty; so the short way is one load,
 * one compare and a pop. Owner only.
 */
#ifndef PYRT_MEMORY_PART_H
#define PYRT_MEMORY_PART_H

#include "memory/page.h"
#include "memory/size_class.h"

#include <pyruntime/thread.h>

/* A page of which nothing can ever be had. */
extern pyrt_page pyrt_empty_page;

struct pyrt_part {
    pyrt_heap_part base;         /* `direct` */
    pyrt_page_list usable[PYRT_CLASSES];
    pyrt_page_list full[PYRT_CLASSES];
    pyrt_share *share;
    struct pyrt_heap_impl *heap; /* NULL: the process's */
    pyrt_interp *interp;         /* whose readers a type-stable heap waits for; NULL: not type-stable */
    uint32_t waiting;            /* pages with a goal */
    uint64_t soonest;            /* none of their goals is before this */
    uint16_t link;               /* for new pages */
    uint8_t smallest;            /* the first class that has room for the link */
    uint8_t tag;
    bool is_guarded;             /* as in its heap */
};

/* Sets up a zeroed part whose share, heap, interp, link and tag are set. */
void pyrt_part_init(pyrt_part *part);

/* Allocates, by the long way: any size. NULL when memory is short. `*zero` says whether the block is known to be zero but
 * for the link. */
void *pyrt_part_alloc(pyrt_part *part, size_t size, bool *zero);

/* The class for a size in this part. */
static inline unsigned
pyrt_part_class(const pyrt_part *part, size_t size)
{
    unsigned class = pyrt_class_of(size);
    return class < part->smallest ? part->smallest : class;
}

/* Sizes above the classes, or alignments above 64 KiB. */
void *pyrt_part_alloc_large(pyrt_part *part, size_t size, size_t align, bool *zero);

/* A local free has to take the long way. */
void pyrt_part_freed(pyrt_page *page);

/* Collects every page, frees those that are empty, and takes the others out of the part: they are nobody's. */
void pyrt_part_abandon(pyrt_part *part);

void *pyrt_part_aligned_alloc(pyrt_part *part, size_t align, size_t size);

/* Whether it has no page. */
bool pyrt_part_is_empty(const pyrt_part *part);

/* Frees every page, the blocks with them. */
void pyrt_part_destroy(pyrt_part *part);

/* Gives empty pages back whose readers have passed. What is in use again waits for nobody any more. */
void pyrt_part_release(pyrt_part *part);

/* Its heap has been deleted, or memory is wanted: gives back what is empty, also what is kept for the next block. */
void pyrt_part_trim(pyrt_part *part);

/* Takes a page of an adopted segment in. */
void pyrt_part_adopt(pyrt_part *part, pyrt_page *page);

/* Takes the pages of a segment in that has been taken out of the pool: those of a heap each into the part of its own. */
void pyrt_part_adopt_all(pyrt_part *part, const pyrt_segment *segment);

/* The heaps' half (heap.c). Adopting hands each page to the part of its heap; releasing gives back what all heaps of this
 * thread need no more; sweeping looks at all their pages for that (pyrt_part_trim), if its share has grown since it last did so.
 * For parts that are of a heap. */
void pyrt_heap_adopt(const pyrt_segment *segment);
bool pyrt_heap_adopt_this(pyrt_segment *segment);
void pyrt_heap_release(const pyrt_part *asking);
void pyrt_heap_sweep_if_grown(void);

/* Frees a block at home. `link`: where it stands in the block, pyrt_link_of; in the process's pages at its beginning. */
static inline void
pyrt_page_free_local(pyrt_page *page, void *block, void **link)
{
    if (pyrt_unlikely(block == page->head.local) || pyrt_unlikely(!pyrt_page_is_block(page, block))) {
        pyrt_page_refuse_free(block, page);
        return;
    }
    *link = pyrt_link_encode(page, page->head.local);
    page->head.local = block;
    if (pyrt_unlikely(pyrt_page_count_free(page))) {
        pyrt_part_freed(page);
    }
}

#endif
