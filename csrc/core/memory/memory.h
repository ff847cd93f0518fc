/* memory.h -- memory states: where the room for blocks comes from. The process has one, and every interpreter that does not
 * share the main interpreter's has one of its own.
 *
 * Memory goes down in four steps: a state reserves *arenas* from the system; an arena is cut into *segments* of 4 MiB; a
 * segment belongs to one OS thread's *share* of the state and is cut into slices of 64 KiB; one or more slices make a *page*
 * of blocks of one size (page.h). What is larger than half a segment is a mapping of its own with one page over it.
 *
 * Arenas are under their state's lock. What a share owns, its segments and their pages, is touched by its thread only, or by who
 * holds that still (state/hold.c), and a page's `foreign` list by everybody.
 */
#ifndef PYRT_MEMORY_MEMORY_H
#define PYRT_MEMORY_MEMORY_H

#include "memory/address_map.h"
#include "platform/raw_mutex.h"

enum { PYRT_SEGMENT_SLICES = 64 };
#define PYRT_SEGMENT (PYRT_SLICE * PYRT_SEGMENT_SLICES)
#define PYRT_LARGE_MAX (PYRT_SEGMENT / 2)
/* What nobody gets more of, whatever the system would map: each slice costs a word in the map. */
#define PYRT_HUGE_MAX ((size_t)1 << 44)

typedef struct pyrt_page pyrt_page;
typedef struct pyrt_memory pyrt_memory;
typedef struct pyrt_pool pyrt_pool;
typedef struct pyrt_part pyrt_part;

typedef struct pyrt_segment {
    struct pyrt_segment *next, *previous; /* in a list of its share, or in the pool */
    char *start;
    pyrt_pool *pool;      /* its interpreter's, or the process's; where it is when its thread has ended. Never changes */
    struct pyrt_arena *arena;
    pyrt_page *pages;     /* one for each slice; the first slice of a page has it */
    /* A bit for each slice. */
    uint64_t free;        /* in no page */
    uint64_t dirty;       /* touched since it was zero */
    uint64_t first;       /* a page starts here */
    uint64_t aged;        /* free and dirty when they were last looked at, and ever since */
    bool is_adopted;      /* it was in the pool before */
    bool is_abandoned;    /* it is there; under the pool's lock */
    bool is_huge;         /* in huge pages of the system's, if it pleases */
    int64_t purge_at;     /* when its aged slices go back and the other free dirty ones age; 0: there are none */
} pyrt_segment;

/* `free` of one that has no page. */
#define PYRT_ALL_SLICES UINT64_MAX

typedef struct pyrt_arena {
    struct pyrt_arena *next;
    char *start;
    uint32_t segments;   /* how many it has, at most 32 */
    uint32_t free;       /* a bit for each */
} pyrt_arena;

/* What one thread has of a state. The owner's. */
typedef struct pyrt_share {
    pyrt_memory *memory;
    pyrt_pool *pool;
    struct pyrt_thread_impl *thread; /* whose bound what is held for readers counts against; NULL: the process's */
    uintptr_t token;           /* what `owner` of its pages says */
    pyrt_segment *open;        /* with free slices */
    pyrt_segment *full;
    uint32_t spare;            /* how many of the open ones have no page */
    uint32_t segments;         /* open and full */
    uint32_t sweep_at;         /* with so many, all pages are looked at before there is one more */
    uint32_t adopt_skip;       /* times that the pool is not asked before it is asked again, */
    uint32_t adopt_pause;      /* which double while it has nothing */
    uint32_t is_asked;         /* atomic, relaxed: a barrier wants it to give back what it can */
    int64_t next_purge;        /* the earliest purge_at of its segments; INT64_MAX: none */
    /* Statistics: written by the owner, read by anybody, relaxed. */
    uint64_t pages, page_bytes, held_bytes, adopted;
} pyrt_share;

/* What `sweep_at` is when the pages have just been looked at, and at most when a segment goes: what there was at a peak is no
 * licence to grow to it again, over pages that others have emptied. */
static inline uint32_t
pyrt_share_next_sweep(const pyrt_share *share)
{
    return share->segments + share->segments / 4 + 1;
}

struct pyrt_memory {
    pyrt_raw_mutex lock;
    uint32_t number;           /* in the map, for slices that are in no page */
    bool for_good;             /* outlives every runtime: the process's, or that of an interpreter which has ended */
    bool ended;                /* its interpreter has: no arena is kept for the next segment */
    pyrt_arena *arenas;        /* newest first */
    size_t reserved_bytes;
};

/* What has outlived its thread, of one interpreter or of the process; under its lock. Interpreters that share a memory state
 * have pools of their own all the same. */
struct pyrt_pool {
    pyrt_raw_mutex lock;
    uint32_t number;           /* in the map; 0 is none */
    /* Segments of threads that have ended: in use, and nobody's. In front those that have room, as far as is known. */
    pyrt_segment *abandoned, *abandoned_last;
    size_t abandoned_count;
    pyrt_page *huge;           /* pages that are mappings of their own */
    size_t huge_bytes;
    /* What waits for readers, of type-stable heaps: huge pages that are free, and empty ones in abandoned segments, which are
     * those with a goal. */
    pyrt_page *held;
    size_t waiting;            /* how many of the latter */
    uint64_t soonest;          /* none of their goals is before this */
    size_t held_bytes;         /* of both; read without the lock, too */
    pyrt_memory *memory;       /* never changes */
    struct pyrt_interp *interp; /* whose readers; NULL: the process's. Never changes */
    uint32_t frozen;           /* threads lost in a fork: nobody knows which blocks of theirs are in use */
    bool for_good;             /* as in its memory */
    bool ending;               /* its interpreter is: nothing goes until it has ended */
    bool visited;              /* who has stopped the world walks the list without the lock: nothing goes */
    bool ended;                /* its interpreter has: what is freed goes back to the system at once, by who frees it */
};

/* A number for an owner, in the map; 0 when there are too many or memory is short. What pyrt_owner_find says of a number that
 * is none is -1; it takes no lock. */
uint32_t pyrt_owner_number(int64_t owner);
void pyrt_owner_forget(uint32_t number);
int64_t pyrt_owner_find(uint32_t number);

/* Around a fork: the lock of the numbers. */
void pyrt_owners_fork_prepare(void);
void pyrt_owners_fork_parent(void);
void pyrt_owners_fork_child(void);

/* The interpreter of a state ends: what is not in use goes, and what is belongs to the process. */
void pyrt_memory_end(pyrt_memory *memory);

/* Frees the arenas of a state; its blocks are gone. */
void pyrt_memory_fini(pyrt_memory *memory);

/* The end of a pool, in two steps, when the threads of its interpreter are gone; others may be freeing its blocks all the while.
 * First every page is marked: from then on who frees a block of it does so under the pool's lock. Then what is in no use goes
 * back to the system, and what is in use stays until it is freed; `all`: everything goes, and the blocks with it. True if nothing
 * is left. Else who frees the last block calls pyrt_heaps_release. */
void pyrt_pool_mark(pyrt_pool *pool);
bool pyrt_pool_end(pyrt_pool *pool, bool all);

/* Frees a block of a page that is marked. */
void pyrt_pool_free(pyrt_page *page, void *block);

/* A block of a page has been freed that is not the calling thread's, under its pool's lock, which this gives up. The page may have
 * gone since, if the interpreter lives. */
void pyrt_pool_freed(pyrt_pool *pool, pyrt_page *page);

/* Nothing is left in the pool of an interpreter that has ended. (interp_memory.c) */
void pyrt_heaps_release(pyrt_pool *pool);

/* Memory for a structure; zeroed. `for_good` as its state or pool says: then it is the process's (platform/meta_alloc.h). */
void *pyrt_memory_struct_new(bool for_good, size_t size);
void pyrt_memory_struct_free(bool for_good, void *p, size_t size);

/* Those of a segment are from now on. */
void pyrt_segment_keep(const pyrt_segment *segment);

/* What a share has in pages before its next segments are to be in huge pages of the system's: of those up to 2 MiB are resident
 * for a block, and that is to be a small part of the whole. */
#define PYRT_HUGE_FROM (PYRT_SEGMENT * 4)

/* A segment for the share, all slices free. NULL when memory is short. And its end; it is in no list any more. */
pyrt_segment *pyrt_segment_new(pyrt_share *share);
void pyrt_segment_free(pyrt_segment *segment);

void pyrt_segment_list_remove(pyrt_segment **list, pyrt_segment *segment);
void pyrt_segment_list_push(pyrt_segment **list, pyrt_segment *segment);

/* Whether so many slices in a row are free in a segment, or in one of the share's. */
bool pyrt_segment_has_room(const pyrt_segment *segment, size_t slices);
bool pyrt_share_has_room(const pyrt_share *share, size_t slices);

/* Takes `slices` in a row out of the share's segments, from a new one if need be, and answers the page over them, with
 * only its place set. NULL when memory is short. */
pyrt_page *pyrt_slices_take(pyrt_share *share, size_t slices, bool *zero);
void pyrt_slices_give(pyrt_share *share, pyrt_page *page);

/* Marks the slices of a page free, wherever its segment is. */
void pyrt_slices_free(pyrt_page *page);

/* Gives free slices, a bit for each, back to the system. */
void pyrt_segment_purge(pyrt_segment *segment, uint64_t slices);

/* Gives memory that has been free for a while back to the system; the last: all that is free. The first has a segment of the share
 * looked at for that. */
void pyrt_segment_purge_later(pyrt_share *share, pyrt_segment *segment);
void pyrt_share_purge(pyrt_share *share, int64_t now);
void pyrt_share_purge_if_due(pyrt_share *share);
void pyrt_share_purge_all(pyrt_share *share);

/* A mapping of its own with one page over it, and its end: of a type-stable heap it goes when readers have passed, which
 * pyrt_pool_release looks for. */
pyrt_page *pyrt_huge_new(struct pyrt_part *part, size_t bytes, size_t align);
void pyrt_huge_free(pyrt_page *page);

/* Gives back what readers have passed. And looks at every page that is nobody's before: for blocks that have been freed since,
 * and for heaps that have been destroyed; under the pool's lock, which this gives up. What it finds wrong is reported while it
 * has it (pyrt_report_hold). */
void pyrt_pool_release(pyrt_pool *pool);
void pyrt_pool_sweep(pyrt_pool *pool);

/* What the share holds for readers has changed, or what its pool holds: both count against the bound of its thread. */
void pyrt_share_note_held(const pyrt_share *share);

/* The end of the share's thread: what is in use goes to the pool, the rest to the arenas. Its pages have been given
 * up before (page.h). And a segment out of the pool in which there is a page of this class with something to take, of the part's
 * heap, or room for so many slices; NULL if none is found. What is empty in those that are looked at goes. */
void pyrt_share_abandon(pyrt_share *share);
pyrt_segment *pyrt_segment_adopt(const pyrt_part *part, unsigned class, size_t slices);

/* The same of one segment, a block of which is in use; false if it is not there, or its interpreter has ended. */
bool pyrt_segment_adopt_this(pyrt_share *share, pyrt_segment *segment);

/* Frees the block of a page that has only that one, of a thread that has ended: it goes at once. False if it is not there. */
bool pyrt_pool_free_single(pyrt_page *page, void *block);

#endif
