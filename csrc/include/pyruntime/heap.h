/* SPDX-License-Identifier: MIT
 *
 * heap.h -- memory: the malloc family of the process, and heaps that belong to an interpreter.
 *
 * There are two domains. The *process's* (pyrt_malloc and its family) needs no runtime and no thread state, works before
 * main and while a thread ends. *Heaps* belong to an interpreter and carry a tag; they can be visited while the world is
 * stopped, and what a thread leaves in them when it ends is taken over by threads of the same interpreter and of no other.
 *
 * Any block is freed with pyrt_free, on any thread, attached or not. Blocks of 16 bytes and more are aligned to 16.
 *
 * A block of more than 2 MiB is a mapping of its own. Whose it is can be asked of each address in it: for each 64 KiB there is a
 * word, so that such a block, touched or not, costs 1/8192 of its size, for good: the next one at that place has it too. What the
 * system would not give to malloc it does not give here, and nobody gets more than 2^44 bytes: that is refused before anything
 * is written.
 *
 * A thread that has 16 MiB in use asks for transparent huge pages behind what it takes from the system from then on; memory of
 * which parts go back is in small pages again.
 *
 * A *type-stable* heap is one that lock-free readers may look into: the memory of a freed block stays a block of that size
 * until every reader that was under way has passed, and the first `stable_prefix` bytes of it are written by nobody in between.
 */
#ifndef PYRUNTIME_HEAP_H
#define PYRUNTIME_HEAP_H

#include "retire.h"

PYRT_BEGIN_DECLS

/* ---- the malloc family of the process ---------------------------------------------------------------------------- */

/* cdef: begin */
/* As the functions of the C library without the prefix: NULL and errno ENOMEM when memory is short, the sizes absurd or
 * their product too large, and then nothing is lost; size 0 gives a block of its own; NULL may be freed. pyrt_aligned_alloc
 * takes any power of two (NULL and EINVAL for others) and any size. pyrt_free and pyrt_realloc take the blocks of heaps too; what
 * is no block of ours, lies inside of one, is an object (object.h), or is seen to be free already (watching, below), is reported
 * and left alone; pyrt_realloc answers NULL and EINVAL. A block that pyrt_realloc moves out of a heap stays in that heap if this
 * thread may allocate there, else it moves to the process's domain.
 * blocks: shortly · allocates: yes · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
void *pyrt_malloc(size_t size);
void *pyrt_calloc(size_t n, size_t size);
void *pyrt_realloc(void *block, size_t size);
void *pyrt_aligned_alloc(size_t align, size_t size);
void pyrt_free(void *block);

/* The bytes that a block has room for; 0 for NULL, for what is no block of ours and for what lies inside of one. And what
 * pyrt_malloc would give for a size.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
size_t pyrt_usable_size(const void *block);
size_t pyrt_good_size(size_t size);

enum { PYRT_OWNER_NONE = -1, PYRT_OWNER_PROCESS = -2 };

/* Whose memory an address lies in, any address: the id of an interpreter, PYRT_OWNER_PROCESS, or PYRT_OWNER_NONE. The memory
 * itself is not touched. Of room that interpreters share, what is not in use belongs to the main one.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
int64_t pyrt_address_owner(const void *address);
/* cdef: end */

/* ---- heaps ------------------------------------------------------------------------------------------------------- */

/* cdef: begin */
typedef struct pyrt_heap pyrt_heap;
/* cdef: end */

/* A page of blocks of one size, as far as inline code reads it. Its owner's. */
typedef struct pyrt_page_head {
    uintptr_t owner;       /* who frees at home: core/memory/page.h has the table */
    void *free;            /* blocks to allocate */
    void *local;           /* blocks that the owner has freed */
    int32_t until_slow;    /* local frees that may take the short way: blocks in use, less `slow_below` */
    int32_t slow_below;    /* a local free that leaves fewer blocks in use takes the long way */
    char *start;
    uint64_t divider;      /* 2^64 / size of a block, rounded up: tells where blocks begin */
    uint32_t key;          /* links in free blocks are encoded with it: what is written there by mistake leads nowhere */
    uint16_t carved, capacity;
    uint16_t link;         /* where in a free block the link stands: behind what readers may look at */
    uint8_t class_, flags, tag;
    bool is_guarded;       /* pyrt_free does not take its blocks: they are objects */
} pyrt_page_head;

/* Links stay in their segment, of this size and aligned to it. */
#define PYRT_HEAP_SEGMENT ((uintptr_t)1 << 22)

/* The block behind a free one, or NULL, by its link. Whether that can be is for pyrt_page_link_is_sound to say. */
static inline void *
pyrt_page_link_read(const pyrt_page_head *page, const void *link)
{
    return (void *)(*(const uintptr_t *)link ^ page->key);
}

static inline bool
pyrt_page_link_is_sound(const void *block, const void *next)
{
    return next == NULL || ((uintptr_t)next ^ (uintptr_t)block) < PYRT_HEAP_SEGMENT;
}

/* The first free block of a page; NULL when the long way is to be taken: there is none, or its link was written to. */
static inline void *
pyrt_page_pop(pyrt_page_head *page, size_t link)
{
    char *block = (char *)page->free;
    if (pyrt_likely(block != NULL)) {
        void *next = pyrt_page_link_read(page, block + link);
        if (pyrt_likely(pyrt_page_link_is_sound(block, next))) {
            page->free = next;
            page->until_slow++;
            /* Its link is what the next allocation waits for, and nobody may have touched it for long. */
            __builtin_prefetch(next, 1);
            return block;
        }
    }
    return NULL;
}

enum { PYRT_HEAP_SMALL_MAX = 1024, PYRT_HEAP_DIRECT = PYRT_HEAP_SMALL_MAX / 8 + 1 };

/* One thread's part of a heap: for each small size the page to take from. */
typedef struct pyrt_heap_part {
    const struct pyrt_heap *heap; /* whose */
    pyrt_page_head *direct[PYRT_HEAP_DIRECT];
} pyrt_heap_part;

/* What a thread has of all heaps: its address is the owner in its pages. */
typedef struct pyrt_heap_table {
    pyrt_heap_part **parts; /* by index of the heap; NULL: none yet */
    uint32_t count;
} pyrt_heap_table;

struct pyrt_heap {
    uint32_t index;        /* the smallest that no other heap of the interpreter has */
};

PYRT_STATIC_ASSERT(offsetof(pyrt_page_head, free) == 8 && offsetof(pyrt_page_head, until_slow) == 24 &&
                       offsetof(pyrt_page_head, key) == 48 && offsetof(pyrt_page_head, link) == 56,
                   "inline code of embedding extensions uses them there");

/* cdef: begin */
typedef struct pyrt_heap_config {
    uint32_t struct_size;   /* sizeof(pyrt_heap_config) */
    uint8_t tag;            /* 0 to 31: what pyrt_heap_visit chooses by */
    bool type_stable;
    uint16_t stable_prefix; /* of a type-stable heap: at most 1024, a multiple of 8; 0 is 32. Of others 0 */
} pyrt_heap_config;

/* A heap of an interpreter, for all its threads; NULL for the config: tag 0, not type-stable. NULL when memory is short, the
 * config does not fit (errno EINVAL), or the interpreter is NULL or ending.
 * blocks: shortly · allocates: yes · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
pyrt_heap *pyrt_heap_new(pyrt_interp *interp, const pyrt_heap_config *or_null);

/* Ends a heap. delete: its blocks live on until they are freed. destroy: its blocks are gone. What is empty of it goes back now:
 * of this thread, of detached ones, and what ended ones have left; of another that is attached when that next needs a page, in
 * a barrier when it is detached, or when it ends; to the system with a delay, or with the next barrier. Of a type-stable heap it
 * waits for readers first, and goes in the next barrier after them, or when a thread next needs a page. While the world is
 * stopped nothing goes but huge blocks, and the rest as if its threads had been attached. No thread may allocate from the heap
 * any more, and, for destroy, none may use or free its blocks.
 * blocks: shortly · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
void pyrt_heap_delete(pyrt_heap *heap);
void pyrt_heap_destroy(pyrt_heap *heap);

/* The long way of the inline functions below; call those. */
void *pyrt_heap_alloc_slow(pyrt_thread *thread, pyrt_heap *heap, size_t size, bool zero);

/* A block that is aligned to a power of two, any; NULL and errno EINVAL for others. And one of another size with the same bytes:
 * it stays where it is if it has room and is not too large by more than half, else it moves into the heap, wherever it came from.
 * NULL is a new block; a block that cannot move for want of memory stays, and has room enough or the answer is NULL. What is no
 * block for pyrt_realloc is none here. Of errno, the thread and the heap as pyrt_heap_malloc says.
 * blocks: shortly · allocates: yes · runs user code: no · quiescent: never · needs attached: yes · async-signal-safe: no */
void *pyrt_heap_aligned_alloc(pyrt_thread *thread, pyrt_heap *heap, size_t align, size_t size);
void *pyrt_heap_realloc(pyrt_thread *thread, pyrt_heap *heap, void *block, size_t size);
/* cdef: end */

/* A block from this thread's part of the heap. NULL, with errno: ENOMEM when memory is short or the size absurd; EINVAL,
 * reported, when the thread is not the one that is attached here, or the heap is NULL or another interpreter's.
 * blocks: shortly · allocates: yes · runs user code: no · quiescent: never · needs attached: yes · async-signal-safe: no */
static inline void *
pyrt_heap_malloc(pyrt_thread *thread, pyrt_heap *heap, size_t size)
{
    pyrt_heap_table *table = thread == NULL ? NULL : thread->heaps;
    if (pyrt_likely(size <= PYRT_HEAP_SMALL_MAX && PYRT_TLS.current == thread && table != NULL && heap != NULL &&
                    heap->index < table->count)) {
        pyrt_heap_part *part = table->parts[heap->index];
        if (pyrt_likely(part != NULL && part->heap == heap)) {
            pyrt_page_head *page = part->direct[(size + 7) >> 3];
            void *block = pyrt_page_pop(page, page->link);
            if (pyrt_likely(block != NULL)) {
                return block;
            }
        }
    }
    return PYRT_CALL(heap_alloc_slow)(thread, heap, size, false);
}

/* The same, zeroed; ENOMEM when n * size overflows, too. */
static inline void *
pyrt_heap_calloc(pyrt_thread *thread, pyrt_heap *heap, size_t n, size_t size)
{
    size_t bytes;
    bool is_absurd = __builtin_mul_overflow(n, size, &bytes);
    return PYRT_CALL(heap_alloc_slow)(thread, heap, is_absurd ? SIZE_MAX : bytes, true);
}

/* Frees a block when no reader can be looking at it any more: pyrt_retire with pyrt_free. The statuses are those of
 * pyrt_retire; PYRT_OK for NULL.
 * blocks: no · allocates: yes · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
static inline pyrt_status
pyrt_free_delayed(pyrt_thread *thread, void *block)
{
    return block == NULL ? PYRT_OK : pyrt_retire(thread, block, PYRT_CALL(usable_size)(block), PYRT_CALL(free));
}

/* ---- watching ---------------------------------------------------------------------------------------------------- */

/* cdef: begin */
enum {
    PYRT_HEAP_DEBUG_CHECK = 1, /* freeing a block twice, or what is none, is reported and does nothing */
    PYRT_HEAP_DEBUG_FILL = 2, /* and: blocks are filled, with 0xCD when they are handed out and 0xDD when they are freed; a
                                * write in between is seen when the block is handed out again, and then only */
    PYRT_HEAP_DEBUG_POISON = 4 /* and: AddressSanitizer names who touches a block that is not in use, where it does */
};

/* Watches the use of blocks, of the process and of heaps; 0: no more. It is for pages that are made while it is on: switch it
 * on before the first block. Off, it costs nothing; on, some tens of nanoseconds and filling. What readers may look at in
 * type-stable memory is neither filled nor poisoned. A process that has AddressSanitizer starts with PYRT_HEAP_DEBUG_POISON.
 * A write to a freed block is seen with FILL alone, and not if its page has gone back before it is handed out again. A block of
 * more than 64 KiB has a page of its own, which goes back as soon as it is freed; one of more than 2 MiB, or aligned to more than
 * 64 KiB, is a mapping of its own and never filled; the page of smaller ones goes with the last of them that is freed, unless it
 * is the only one with room for their size. With CHECK alone no write is seen, also none to the link of a free block that is
 * seen without watching: what is free in a watched page stands in bit maps outside of it, and there are no links.
 * Without watching is seen, reported and left alone: an address at which no block begins, in the middle of one or in no page; a
 * block that is freed twice in a row on a thread, or resized right after it was freed, or freed twice by others than its owner
 * when the owner collects them; a huge one that is freed again; and, when it is handed out, a free block whose link was written
 * to: links are encoded, so that is followed by nobody. Not seen without watching is a block that is freed twice where it is at
 * home with others in between, or that was never handed out; and, where it is at home, the address behind the last block of a
 * page, where room too little for one more may be.
 * Errors: PYRT_EINVAL for flags that there are not; PYRT_ENOTSUP for poison in a process without AddressSanitizer.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
pyrt_status pyrt_heap_debug(unsigned flags);
/* cdef: end */

/* ---- looking ----------------------------------------------------------------------------------------------------- */

/* cdef: begin */
/* Called for a block that is in use; false ends the visit. */
typedef bool pyrt_block_visitor(void *block, size_t size, uint8_t tag, void *arg);

/* Visits the blocks in use of an interpreter whose tag is in `tags` (bit n: tag n), those that threads which have ended left
 * behind included. The calling OS thread must have stopped the interpreter's world. The visitor may free no block, allocate from
 * and end none of these heaps, ask for no figures of theirs, and not fork. Errors: PYRT_ESTATE if the world is not stopped by this
 * thread; PYRT_EINTR if the visitor ended it.
 * blocks: no · allocates: no · runs user code: yes (visitor) · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
pyrt_status pyrt_heap_visit(pyrt_interp *interp, unsigned tags, pyrt_block_visitor *visit, void *arg);

typedef struct pyrt_memory_stats {
    uint32_t struct_size; /* in: sizeof(pyrt_memory_stats) */
    uint32_t heaps;
    uint64_t reserved_bytes; /* address space of the allocator state */
    uint64_t page_bytes; /* in pages of blocks, of this interpreter */
    uint64_t pages;
    uint64_t huge_bytes; /* in blocks that are mappings of their own, until they are freed */
    uint64_t held_bytes; /* waits for readers: empty pages, in page_bytes too; freed huge blocks, in huge_bytes no more */
    uint64_t abandoned_segments; /* that nobody has taken over yet */
    uint64_t adopted_segments; /* taken over, ever */
} pyrt_memory_stats;

/* The figures of an interpreter; NULL: of the process's domain. Each is read once. A struct_size that is none leaves the
 * struct as it was; NULL for `out` does nothing.
 * blocks: shortly · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
void pyrt_interp_memory_stats(pyrt_interp *or_null, pyrt_memory_stats *out);

enum { PYRT_HEAP_CLASSES = 46, PYRT_HEAP_TAGS = 32 };

/* Blocks of one size class that are in use. */
typedef struct pyrt_block_count {
    uint64_t block_size; /* 0: the last class, of which each block has a size of its own */
    uint64_t blocks;
    uint64_t bytes;
} pyrt_block_count;

/* What is left of the heaps of an interpreter that has ended. */
typedef struct pyrt_ended_memory {
    uint32_t struct_size; /* in: sizeof(pyrt_ended_memory) */
    int64_t interp_id;
    char name[32];
    uint64_t blocks; /* in use */
    uint64_t bytes; /* in those */
    uint64_t reserved_bytes; /* address space of the allocator state that they are in */
    uint64_t page_bytes; /* in pages of blocks */
    uint64_t pages;
    uint64_t huge_bytes; /* in blocks that are mappings of their own */
    pyrt_block_count by_class[PYRT_HEAP_CLASSES];
    uint64_t by_tag[PYRT_HEAP_TAGS]; /* blocks */
} pyrt_ended_memory;

/* An interpreter that ends with blocks in use is reported, and their memory stays until they are freed, by whoever frees them: an
 * empty page goes back to the system at once, an arena with its last page, and with the last block everything. This tells of
 * the interpreters of which something is left, in the order of their ends: *place is 0 before the first one, and is moved on.
 * PYRT_ENOTFOUND after the last; PYRT_EINVAL for NULL or another struct_size.
 * blocks: shortly · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_ended_memory_next(uint64_t *place, pyrt_ended_memory *out);
/* cdef: end */

PYRT_END_DECLS
#endif /* PYRUNTIME_HEAP_H */
