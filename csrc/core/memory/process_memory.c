/* process_memory.c -- the process's own memory: the pyrt_malloc family.
 *
 * A heap for each OS thread, made at its first allocation, without runtime or thread state. Works before main, and inside
 * the destructors that run when a thread ends: a thread that allocates after its part has gone gets another one.
 */
#include "memory/heap_impl.h"
#include "memory/watched_page.h"
#include "platform/report.h"
#include "state/stage.h"

#include <pyruntime/heap.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>

/* What a thread has that has none: nothing is to be had of it, so that allocation need not ask. No page is its. */
static pyrt_part no_part = {.base = {.direct = {[0 ... PYRT_HEAP_DIRECT - 1] = &pyrt_empty_page.head}}};

/* The calling thread's part, or no_part. Its value is the token in its pages. */
static __thread pyrt_part *process_part __attribute__((tls_model("initial-exec"))) = &no_part;

static pyrt_memory process_memory = {.for_good = true};
static pyrt_pool process_pool = {.memory = &process_memory, .for_good = true};
static pyrt_raw_mutex init_lock;
static bool initialized;
static pthread_key_t exit_key;

/* All are in a list, under the pool's lock. */
typedef struct process_thread {
    pyrt_part part;
    pyrt_share share;
    struct process_thread *next, *previous;
} process_thread;

static process_thread *process_threads;

static void
on_thread_exit(void *arg)
{
    process_thread *mine = arg;
    pyrt_held_reports held;
    pyrt_report_hold(&held);
    pyrt_part_abandon(&mine->part);
    pyrt_share_abandon(&mine->share);
    process_part = &no_part;
    pyrt_raw_mutex_lock(&process_pool.lock);
    *(mine->previous != NULL ? &mine->previous->next : &process_threads) = mine->next;
    if (mine->next != NULL) {
        mine->next->previous = mine->previous;
    }
    pyrt_raw_mutex_unlock(&process_pool.lock);
    pyrt_memory_struct_free(true, mine, sizeof(*mine));
    pyrt_report_tell(&held);
}

static bool
init(void)
{
    /* acquire: pairs with the release below. */
    if (pyrt_load_acquire(&initialized)) {
        return true;
    }
    pyrt_raw_mutex_lock(&init_lock);
    if (!initialized && pthread_key_create(&exit_key, on_thread_exit) == 0) {
        process_memory.number = process_pool.number = pyrt_owner_number(PYRT_OWNER_PROCESS);
        if (process_pool.number != 0) {
            pyrt_store_release(&initialized, true);
        }
        else {
            pthread_key_delete(exit_key);
        }
    }
    bool done = initialized;
    pyrt_raw_mutex_unlock(&init_lock);
    return done;
}

static pyrt_part *
make_part(void)
{
    process_thread *mine = init() ? pyrt_memory_struct_new(true, sizeof(*mine)) : NULL;
    if (mine == NULL) {
        return NULL;
    }
    mine->share.memory = &process_memory;
    mine->share.pool = &process_pool;
    mine->share.token = (uintptr_t)&mine->part;
    mine->share.next_purge = INT64_MAX;
    mine->part.share = &mine->share;
    pyrt_part_init(&mine->part);
    pyrt_raw_mutex_lock(&process_pool.lock);
    mine->next = process_threads;
    if (process_threads != NULL) {
        process_threads->previous = mine;
    }
    process_threads = mine;
    pyrt_raw_mutex_unlock(&process_pool.lock);
    /* First the part, then the key: setting it may allocate, through us. */
    process_part = &mine->part;
    if (pthread_setspecific(exit_key, mine) != 0) {
        on_thread_exit(mine);
        return NULL;
    }
    return &mine->part;
}

/* What is called once a block begins on a line of its own, so that it takes up the fewest in the caches of code: a twentieth of a
 * pair of calls. */
#define PYRT_HOT_ENTRY __attribute__((aligned(64)))

static __attribute__((noinline)) void *
alloc_slow(size_t size, bool *zero)
{
    pyrt_part *part = process_part != &no_part ? process_part : make_part();
    void *block = part == NULL ? NULL : pyrt_part_alloc(part, size, zero);
    if (block == NULL) {
        errno = ENOMEM;
    }
    return block;
}

PYRT_HOT_ENTRY void *
pyrt_malloc(size_t size)
{
    if (pyrt_likely(size <= PYRT_HEAP_SMALL_MAX)) {
        void *block = pyrt_page_pop(process_part->base.direct[(size + 7) >> 3], 0);
        if (pyrt_likely(block != NULL)) {
            return block;
        }
    }
    bool zero;
    return alloc_slow(size, &zero);
}

/* The first to free a block of what a thread has left takes it over, all of the segment, if he may allocate there. The page may
 * stay nobody's all the same, for want of memory. */
static void
adopt(pyrt_segment *segment)
{
    pyrt_part *part = process_part;
    if (segment->pool != &process_pool) {
        (void)pyrt_heap_adopt_this(segment);
    }
    else if (part != &no_part && pyrt_segment_adopt_this(part->share, segment)) {
        pyrt_part_adopt_all(part, segment);
    }
}

static void
free_of_nobody(pyrt_page *page, void *block)
{
    adopt(page->segment);
    /* The page was found empty, and has gone: the block was free. Or it waits for readers. */
    if (pyrt_map_page_of(pyrt_map_entry(block)) != page) {
        pyrt_page_refuse_free(block, NULL);
        return;
    }
    const pyrt_thread *current = PYRT_TLS.current;
    uintptr_t owner = pyrt_load_relaxed(&page->head.owner);
    if (owner == (uintptr_t)process_part || (current != NULL && owner == (uintptr_t)current->heaps)) {
        if (pyrt_page_used(page) == 0) {
            pyrt_page_refuse_free(block, page);
            return;
        }
        pyrt_page_free_local(page, block, pyrt_link_of(page, block));
    }
    else if (page->head.class_ != PYRT_CLASS_LARGE || !pyrt_pool_free_single(page, block)) {
        pyrt_page_free_foreign(page, block);
    }
}

/* Looks the page up again, so that the short ways need no register to keep it in. */
static __attribute__((noinline)) void
free_elsewhere(void *block)
{
    pyrt_page *page = pyrt_map_page_of(pyrt_map_entry(block));
    if (page == NULL) {
        if (block != NULL) {
            pyrt_page_refuse_free(block, NULL);
        }
        return;
    }
    uintptr_t owner = pyrt_load_relaxed(&page->head.owner);
    if ((owner & PYRT_WATCHED) != 0) {
        pyrt_thread *current = PYRT_TLS.current;
        uintptr_t token = owner & ~PYRT_WATCHED;
        bool mine = token == (uintptr_t)process_part || (current != NULL && token == (uintptr_t)current->heaps);
        pyrt_watched_free(page, block, mine);
    }
    else if (owner == PYRT_WHOEVER) {
        if (block == page->head.start) {
            pyrt_huge_free(page);
        }
        else {
            pyrt_page_refuse_free(block, page);
        }
    }
    else if (owner == PYRT_NOBODY && pyrt_page_may_have(page, block)) {
        free_of_nobody(page, block);
    }
    else {
        pyrt_page_free_foreign(page, block);
    }
}

static __attribute__((noinline)) void
refuse_object(const char *function, const char *done, const void *object)
{
    pyrt_report("%s: %p is an object, which goes with its last reference: use pyrt_decref; nothing was %s", function, object,
                done);
}

/* `guarded`: it may be of a heap whose blocks pyrt_free does not take. */
static inline __attribute__((always_inline)) void
free_block(void *block, bool guarded)
{
    /* The link is written last of all, and a block that was not touched for a while is far away. */
    __builtin_prefetch(block, 1);
    pyrt_page *page = pyrt_map_page_of(pyrt_map_entry(block));
    if (pyrt_likely(page != NULL)) {
        /* relaxed: only this thread can put its own token there. */
        uintptr_t owner = pyrt_load_relaxed(&page->head.owner);
        if (pyrt_likely(owner == (uintptr_t)process_part)) {
            pyrt_page_free_local(page, block, block);
            return;
        }
        if (!guarded && pyrt_unlikely(page->head.is_guarded)) {
            refuse_object("pyrt_free", "freed", block);
            return;
        }
        pyrt_thread *current = PYRT_TLS.current;
        if (current != NULL && owner == (uintptr_t)current->heaps) {
            pyrt_page_free_local(page, block, pyrt_link_of(page, block));
            return;
        }
    }
    free_elsewhere(block);
}

PYRT_HOT_ENTRY void
pyrt_free(void *block)
{
    free_block(block, false);
}

void
pyrt_free_guarded(void *block)
{
    free_block(block, true);
}

size_t
pyrt_usable_size(const void *block)
{
    const pyrt_page *page = pyrt_map_page_of(pyrt_map_entry(block));
    return page == NULL || !pyrt_page_may_have(page, block) ? 0 : pyrt_page_block_size(page);
}

size_t
pyrt_good_size(size_t size)
{
    return size <= PYRT_CLASSED_MAX ? pyrt_class_size(pyrt_class_of(size))
           : size > PTRDIFF_MAX     ? size
                                    : (size + PYRT_SLICE - 1) & ~(PYRT_SLICE - 1);
}

void *
pyrt_calloc(size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    if (pyrt_likely(bytes <= PYRT_HEAP_SMALL_MAX)) {
        pyrt_page_head *page = process_part->base.direct[(bytes + 7) >> 3];
        if (page->free != NULL && (page->flags & PYRT_PAGE_FRESH) == 0) {
            return memset(pyrt_malloc(bytes), 0, bytes);
        }
    }
    bool zero;
    void *block = alloc_slow(bytes, &zero);
    if (block != NULL) {
        /* Of zero memory only the link has been written. */
        memset(block, 0, zero && bytes > sizeof(void *) ? sizeof(void *) : bytes);
    }
    return block;
}

/* The heap of a block if the calling thread may allocate there, else NULL: the process's domain. */
static pyrt_heap_impl *
heap_to_stay_in(uint64_t entry)
{
    pyrt_thread *current = PYRT_TLS.current;
    if (current == NULL || pyrt_map_owner_of(entry) != pyrt_heaps_of_interp(current->interp)->pool.number) {
        return NULL;
    }
    pyrt_heap_impl *heap = pyrt_map_page_of(entry)->heap;
    return heap != NULL && pyrt_load_acquire(&heap->state) == PYRT_HEAP_LIVE ? heap : NULL;
}

static __attribute__((noinline)) bool
is_free_elsewhere(const pyrt_page *page, const void *block)
{
    uintptr_t owner = pyrt_load_relaxed(&page->head.owner);
    if ((owner & PYRT_WATCHED) != 0) {
        size_t offset = (size_t)((const char *)block - page->head.start);
        return !pyrt_watched_is_live(page, (uint32_t)(offset / pyrt_page_block_size(page)));
    }
    const pyrt_thread *current = PYRT_TLS.current;
    if (current != NULL && owner == (uintptr_t)current->heaps) {
        return block == page->head.local;
    }
    /* relaxed: the address is all that is wanted. */
    const void *last = pyrt_load_relaxed(&page->foreign);
    if (last == PYRT_ENDED) {
        pyrt_raw_mutex_lock(&page->segment->pool->lock);
        last = page->head.local;
        pyrt_raw_mutex_unlock(&page->segment->pool->lock);
    }
    return block == last;
}

/* Whether it is seen at once that a block is free, by what pyrt_free would look at: it was the last one to be freed, here if the
 * page is this thread's, else by any that does not own it; of a page that is watched it always is. */
static inline __attribute__((always_inline)) bool
is_free(const pyrt_page *page, const void *block)
{
    return pyrt_likely(pyrt_load_relaxed(&page->head.owner) == (uintptr_t)process_part) ? block == page->head.local
                                                                                        : is_free_elsewhere(page, block);
}

static __attribute__((noinline)) void *
refuse_to_resize(const char *function, const void *block, const pyrt_page *page)
{
    if (page != NULL && page->head.is_guarded && pyrt_page_may_have(page, block)) {
        refuse_object(function, "done", block);
    }
    else {
        pyrt_page_refuse(function, "done", block, page);
    }
    errno = EINVAL;
    return NULL;
}

/* The room of a block that may be resized, else 0. */
static inline __attribute__((always_inline)) size_t
room_to_resize(const pyrt_page *page, const void *block)
{
    if (pyrt_unlikely(page == NULL || !pyrt_page_may_have(page, block) || page->head.is_guarded)) {
        return 0;
    }
    size_t room = pyrt_page_block_size(page);
    return pyrt_unlikely(is_free(page, block)) ? 0 : room;
}

size_t
pyrt_room_to_resize(const char *function, const void *block)
{
    const pyrt_page *page = pyrt_map_page_of(pyrt_map_entry(block));
    size_t room = room_to_resize(page, block);
    if (room == 0) {
        refuse_to_resize(function, block, page);
    }
    return room;
}

static __attribute__((noinline)) void *
move(void *block, size_t room, size_t size)
{
    pyrt_heap_impl *heap = heap_to_stay_in(pyrt_map_entry(block));
    if (heap != NULL) {
        return pyrt_heap_realloc(PYRT_TLS.current, &heap->base, block, size);
    }
    void *moved = pyrt_malloc(size);
    if (moved == NULL && size <= room) {
        /* A block that has room enough does for a smaller one. */
        return block;
    }
    if (moved != NULL) {
        memcpy(moved, block, size < room ? size : room);
        pyrt_free(block);
    }
    return moved;
}

void *
pyrt_realloc(void *block, size_t size)
{
    if (block == NULL) {
        return pyrt_malloc(size);
    }
    const pyrt_page *page = pyrt_map_page_of(pyrt_map_entry(block));
    size_t room = room_to_resize(page, block);
    if (pyrt_unlikely(room == 0)) {
        return refuse_to_resize("pyrt_realloc", block, page);
    }
    return size <= room && size >= room / 2 ? block : move(block, room, size);
}

void *
pyrt_aligned_alloc(size_t align, size_t size)
{
    if (align == 0 || (align & (align - 1)) != 0) {
        errno = EINVAL;
        return NULL;
    }
    pyrt_part *part = process_part != &no_part ? process_part : make_part();
    void *block = part == NULL ? NULL : pyrt_part_aligned_alloc(part, align, size);
    if (block == NULL) {
        errno = ENOMEM;
    }
    return block;
}

void
pyrt_process_memory_look(pyrt_memory_stats *out, void (*share)(pyrt_memory_stats *, const pyrt_share *),
                         void (*pool)(pyrt_memory_stats *, pyrt_pool *), void (*memory)(pyrt_memory_stats *, pyrt_memory *))
{
    pyrt_raw_mutex_lock(&process_pool.lock);
    for (process_thread *thread = process_threads; thread != NULL; thread = thread->next) {
        share(out, &thread->share);
    }
    pyrt_raw_mutex_unlock(&process_pool.lock);
    pool(out, &process_pool);
    memory(out, &process_memory);
}

/* ---- fork -------------------------------------------------------------------------------------------------------- */

/* The locks of all memory, in their order (platform/raw_mutex.h). Parts of threads that are not in the child stay as they are:
 * their blocks can only be freed from abroad. */
static void
fork_prepare(void)
{
    pyrt_heaps_fork_prepare();
    pyrt_raw_mutex_lock(&init_lock);
    pyrt_raw_mutex_lock(&process_pool.lock);
    pyrt_raw_mutex_lock(&process_memory.lock);
    pyrt_owners_fork_prepare();
}

static void
fork_parent(void)
{
    pyrt_owners_fork_parent();
    pyrt_raw_mutex_unlock(&process_memory.lock);
    pyrt_raw_mutex_unlock(&process_pool.lock);
    pyrt_raw_mutex_unlock(&init_lock);
    pyrt_heaps_fork_parent();
}

static void
fork_child(void)
{
    pyrt_owners_fork_child();
    pyrt_raw_mutex_reinit(&process_memory.lock);
    pyrt_raw_mutex_reinit(&process_pool.lock);
    pyrt_raw_mutex_reinit(&init_lock);
    pyrt_heaps_fork_child();
}

__attribute__((constructor)) static void
register_fork_hooks(void)
{
    static const pyrt_fork_hooks hooks = {fork_prepare, fork_parent, fork_child};
    pyrt_fork_set_memory_hooks(&hooks);
}
