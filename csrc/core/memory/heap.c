/* heap.c -- heaps of interpreters: making and ending them, and each thread's part of them.
 *
 * A thread makes its part of a heap when it first allocates from it. A heap that was ended is forgotten by each thread for
 * itself, when it next takes the long way or ends. Nobody touches the lists of another thread but who holds that still: then it
 * is detached, and so in the middle of nothing (release_everywhere).
 */
#include "memory/heap_impl.h"

#include "platform/meta_alloc.h"
#include "platform/report.h"

#include <errno.h>
#include <string.h>

enum { PREFIX_DEFAULT = 32, PREFIX_MOST = 1024, TAGS = 32 };

/* ---- references -------------------------------------------------------------------------------------------------- */

void
pyrt_heap_ref(pyrt_heap_impl *heap)
{
    /* relaxed: the caller has a reference, or a part. */
    pyrt_fetch_add_relaxed(&heap->refs, 1u);
}

void
pyrt_heap_unref(pyrt_heap_impl *heap)
{
    /* seq_cst, as release and acquire: what others did with it is done before it is freed. */
    if (pyrt_fetch_add_seq_cst(&heap->refs, -1u) != 1) {
        return;
    }
    pyrt_interp_heaps *heaps = pyrt_heaps_of_interp(heap->interp);
    pyrt_raw_mutex_lock(&heaps->lock);
    *(heap->previous != NULL ? &heap->previous->next : &heaps->heaps) = heap->next;
    if (heap->next != NULL) {
        heap->next->previous = heap->previous;
    }
    heaps->heap_count--;
    pyrt_index_release(&heaps->indexes, (int32_t)heap->base.index);
    pyrt_raw_mutex_unlock(&heaps->lock);
    pyrt_meta_free(heap, sizeof(*heap));
}

/* ---- making and ending ------------------------------------------------------------------------------------------- */

static bool
is_good_config(const pyrt_heap_config *config)
{
    return config->struct_size == sizeof(*config) && config->tag < TAGS && config->stable_prefix <= PREFIX_MOST &&
           config->stable_prefix % sizeof(void *) == 0 && (config->type_stable || config->stable_prefix == 0);
}

pyrt_heap *
pyrt_heap_new(pyrt_interp *interp, const pyrt_heap_config *or_null)
{
    pyrt_heap_config config = {.struct_size = sizeof(config)};
    if (or_null != NULL) {
        config = *or_null;
    }
    if (interp == NULL || !is_good_config(&config)) {
        errno = EINVAL;
        return NULL;
    }
    pyrt_interp_heaps *heaps = pyrt_heaps_of_interp(interp);
    pyrt_heap_impl *heap = heaps == NULL ? NULL : pyrt_meta_alloc(sizeof(*heap));
    if (heap == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    heap->refs = 1;
    heap->interp = interp;
    heap->tag = config.tag;
    heap->type_stable = config.type_stable;
    if (config.type_stable) {
        heap->link = config.stable_prefix != 0 ? config.stable_prefix : PREFIX_DEFAULT;
    }
    pyrt_raw_mutex_lock(&heaps->lock);
    int32_t index = pyrt_index_reserve(&heaps->indexes);
    if (index >= 0) {
        heap->base.index = (uint32_t)index;
        heap->next = heaps->heaps;
        if (heaps->heaps != NULL) {
            heaps->heaps->previous = heap;
        }
        heaps->heaps = heap;
        heaps->heap_count++;
    }
    pyrt_raw_mutex_unlock(&heaps->lock);
    if (index < 0) {
        pyrt_meta_free(heap, sizeof(*heap));
        errno = ENOMEM;
        return NULL;
    }
    return &heap->base;
}

void
pyrt_heap_guard(pyrt_heap *heap)
{
    ((pyrt_heap_impl *)heap)->is_guarded = true;
}

/* ---- a thread's parts -------------------------------------------------------------------------------------------- */

static void
drop_part(pyrt_thread_heaps *mine, uint32_t index)
{
    pyrt_part *part = (pyrt_part *)(void *)mine->table.parts[index];
    mine->table.parts[index] = NULL;
    pyrt_heap_impl *heap = part->heap;
    pyrt_meta_free(part, sizeof(*part));
    pyrt_heap_unref(heap);
}

/* Forgets the heaps that have been ended, as far as that is possible. */
static void
forget_ended(pyrt_thread_heaps *mine)
{
    pyrt_held_reports held;
    pyrt_report_hold(&held);
    for (uint32_t i = 0; i < mine->table.count; i++) {
        pyrt_part *part = (pyrt_part *)(void *)mine->table.parts[i];
        if (part == NULL || pyrt_load_acquire(&part->heap->state) == PYRT_HEAP_LIVE) {
            continue;
        }
        if (pyrt_load_acquire(&part->heap->state) == PYRT_HEAP_DESTROYED) {
            pyrt_part_destroy(part);
        }
        pyrt_part_trim(part);
        if (pyrt_part_is_empty(part)) {
            drop_part(mine, i);
        }
    }
    pyrt_report_tell(&held);
}

static void
look_for_ended(pyrt_thread_heaps *mine, pyrt_interp_heaps *heaps)
{
    /* acquire: pairs with the release in end. */
    uint32_t ended = pyrt_load_acquire(&heaps->ended);
    if (mine->seen_ended != ended) {
        mine->seen_ended = ended;
        forget_ended(mine);
    }
}

/* Not the part that is asking for a page: it goes on being used. */
static void
release(pyrt_thread_heaps *mine, const pyrt_part *asking)
{
    for (uint32_t i = 0; i < mine->table.count; i++) {
        pyrt_part *part = (pyrt_part *)(void *)mine->table.parts[i];
        if (part == NULL) {
            continue;
        }
        pyrt_part_release(part);
        if (part != asking && pyrt_load_acquire(&part->heap->state) != PYRT_HEAP_LIVE && pyrt_part_is_empty(part)) {
            drop_part(mine, i);
        }
    }
    pyrt_pool_release(mine->share.pool);
    pyrt_share_note_held(&mine->share);
}

static void
sweep(pyrt_thread_heaps *mine)
{
    for (uint32_t i = 0; i < mine->table.count; i++) {
        if (mine->table.parts[i] != NULL) {
            pyrt_part_trim((pyrt_part *)(void *)mine->table.parts[i]);
        }
    }
}

/* Of heaps that have ended; `all`: of every heap, and from there to the system. */
static void
release_all_of(pyrt_thread_heaps *mine, bool all)
{
    forget_ended(mine);
    if (all) {
        sweep(mine);
    }
    release(mine, NULL);
    if (all) {
        pyrt_share_purge_all(&mine->share);
    }
}

/* Of the calling thread, and of those that are detached or stand still. The others are asked for it, at a safepoint. Under the
 * interpreter's lock. */
static void
release_threads(pyrt_interp *interp, bool all)
{
    const pyrt_thread *current = pyrt_thread_current();
    for (pyrt_thread_impl *thread = interp->threads; thread != NULL; thread = thread->next) {
        pyrt_thread_heaps *theirs = pyrt_heaps_of(thread);
        bool suspended;
        if (theirs == NULL) {
            continue;
        }
        if (&thread->base == current) {
            release_all_of(theirs, all);
            continue;
        }
        if (pyrt_thread_hold_still(thread, &suspended)) {
            release_all_of(theirs, all);
        }
        else if (all || pyrt_load_relaxed(&theirs->share.held_bytes) != 0) {
            /* relaxed: a thread that begins to hold something in this moment holds it for readers of now. */
            if (all) {
                pyrt_store_relaxed(&theirs->share.is_asked, 1u);
            }
            /* seq_cst, as release: pairs with the clearing in pyrt_reclaim_work; who does that sees what was asked before. */
            pyrt_fetch_or_seq_cst(&thread->base.slot.flags, PYRT_FLAG_RETIRE);
        }
        pyrt_thread_let_go(thread, suspended);
    }
}

/* What an interpreter needs no more goes back, also of what threads that have ended have left. In a stopped world nothing does:
 * who has stopped it may be looking at all of that (pyrt_heap_visit). */
static void
release_everywhere(pyrt_interp *interp, bool all)
{
    pyrt_pool *pool = &pyrt_heaps_of_interp(interp)->pool;
    pyrt_held_reports held;
    pyrt_raw_mutex_lock(&interp->lock);
    if (interp->stopped) {
        pyrt_raw_mutex_unlock(&interp->lock);
        return;
    }
    pyrt_report_hold(&held);
    release_threads(interp, all);
    /* Before the interpreter's is given up: who stops the world then finds this one taken until the pool has been swept. */
    pyrt_raw_mutex_lock(&pool->lock);
    pyrt_raw_mutex_unlock(&interp->lock);
    pyrt_pool_sweep(pool);
    pyrt_report_tell(&held);
}

void
pyrt_heap_release(const pyrt_part *asking)
{
    release(pyrt_heaps_of(pyrt_thread_impl_of(pyrt_thread_current())), asking);
}

static void
sweep_if_grown(pyrt_thread_heaps *mine)
{
    if (mine->share.segments >= mine->share.sweep_at) {
        sweep(mine);
        mine->share.sweep_at = pyrt_share_next_sweep(&mine->share);
    }
}

void
pyrt_heap_sweep_if_grown(void)
{
    sweep_if_grown(pyrt_heaps_of(pyrt_thread_impl_of(pyrt_thread_current())));
}

static void
thread_release(pyrt_thread_impl *thread)
{
    pyrt_thread_heaps *mine = pyrt_heaps_of(thread);
    if (mine == NULL) {
        return;
    }
    /* relaxed: the flag that came here orders, as in release_threads. */
    if (pyrt_load_relaxed(&mine->share.is_asked) != 0) {
        pyrt_held_reports held;
        pyrt_store_relaxed(&mine->share.is_asked, 0u);
        pyrt_report_hold(&held);
        release_all_of(mine, true);
        pyrt_report_tell(&held);
    }
    /* relaxed: a look that saves a walk over all heaps, with each chunk that is retired. */
    else if ((mine->share.held_bytes | pyrt_load_relaxed(&mine->share.pool->held_bytes)) != 0) {
        release(mine, NULL);
    }
}

static bool
grow_table(pyrt_heap_table *table, uint32_t index)
{
    uint32_t count = table->count == 0 ? 8 : table->count;
    while (count <= index) {
        count *= 2;
    }
    pyrt_heap_part **parts = pyrt_meta_alloc(count * sizeof(void *));
    if (parts == NULL) {
        return false;
    }
    if (table->count != 0) {
        memcpy(parts, table->parts, table->count * sizeof(void *));
        pyrt_meta_free(table->parts, table->count * sizeof(void *));
    }
    table->parts = parts;
    table->count = count;
    return true;
}

static pyrt_part *
part_of(pyrt_thread_impl *thread, pyrt_heap_impl *heap)
{
    pyrt_thread_heaps *mine = pyrt_heaps_of(thread);
    uint32_t index = heap->base.index;
    if (index < mine->table.count && mine->table.parts[index] != NULL) {
        return (pyrt_part *)(void *)mine->table.parts[index];
    }
    if (index >= mine->table.count && !grow_table(&mine->table, index)) {
        return NULL;
    }
    pyrt_part *part = pyrt_meta_alloc(sizeof(*part));
    if (part == NULL) {
        return NULL;
    }
    part->share = &mine->share;
    part->base.heap = &heap->base;
    part->heap = heap;
    part->interp = heap->type_stable ? heap->interp : NULL;
    part->link = heap->link;
    part->tag = heap->tag;
    part->is_guarded = heap->is_guarded;
    pyrt_part_init(part);
    pyrt_heap_ref(heap);
    mine->table.parts[index] = &part->base;
    return part;
}

/* A page whose part cannot be made for want of memory stays nobody's: it is adopted again when this thread has ended. */
void
pyrt_heap_adopt(const pyrt_segment *segment)
{
    pyrt_thread_impl *thread = pyrt_thread_impl_of(pyrt_thread_current());
    pyrt_held_reports held;
    pyrt_report_hold(&held);
    for (uint64_t left = segment->first; left != 0; left &= left - 1) {
        pyrt_page *page = &segment->pages[__builtin_ctzll(left)];
        pyrt_part *part = part_of(thread, page->heap);
        if (part != NULL) {
            pyrt_part_adopt(part, page);
        }
    }
    /* Some may have been of heaps that are gone. */
    forget_ended(pyrt_heaps_of(thread));
    sweep_if_grown(pyrt_heaps_of(thread));
    pyrt_report_tell(&held);
}

/* What nobody owns and the calling thread frees a block of becomes its own, if it is attached to that interpreter. */
bool
pyrt_heap_adopt_this(pyrt_segment *segment)
{
    pyrt_thread *current = pyrt_thread_current();
    pyrt_thread_heaps *mine = current == NULL ? NULL : pyrt_heaps_of(pyrt_thread_impl_of(current));
    if (mine == NULL || !pyrt_segment_adopt_this(&mine->share, segment)) {
        return false;
    }
    pyrt_store_relaxed(&mine->share.adopted, pyrt_load_relaxed(&mine->share.adopted) + 1);
    pyrt_heap_adopt(segment);
    return true;
}

/* ---- allocating -------------------------------------------------------------------------------------------------- */

static bool
may_allocate(const char *function, pyrt_thread *thread, const pyrt_heap_impl *heap)
{
    if (thread == NULL || pyrt_thread_current() != thread) {
        pyrt_report("%s: the thread is not the one that is attached here; attach it first", function);
    }
    else if (heap == NULL) {
        pyrt_report("%s: the heap is NULL; see what pyrt_heap_new has answered", function);
    }
    else if (heap->interp != thread->interp) {
        pyrt_report("%s: the heap is of interpreter %lld, the thread of interpreter %lld", function,
                    (long long)pyrt_interp_id(heap->interp), (long long)pyrt_interp_id(thread->interp));
    }
    else {
        return true;
    }
    errno = EINVAL;
    return false;
}

static pyrt_part *
my_part(const char *function, pyrt_thread *thread, pyrt_heap_impl *heap)
{
    if (!may_allocate(function, thread, heap)) {
        return NULL;
    }
    look_for_ended(pyrt_heaps_of(pyrt_thread_impl_of(thread)), pyrt_heaps_of_interp(heap->interp));
    pyrt_part *part = part_of(pyrt_thread_impl_of(thread), heap);
    if (part == NULL) {
        errno = ENOMEM;
    }
    return part;
}

/* Readers may be looking at it: word by word, so that they see no half of one. Rounded up to words: the prefix has only whole
 * ones. */
static void
zero_prefix(void *block, size_t bytes)
{
    uint64_t *words = block;
    for (size_t i = 0; i * sizeof(*words) < bytes; i++) {
        pyrt_store_relaxed(&words[i], UINT64_C(0));
    }
}

void *
pyrt_heap_alloc_slow(pyrt_thread *thread, pyrt_heap *handle, size_t size, bool zero)
{
    pyrt_part *part = my_part(zero ? "pyrt_heap_calloc" : "pyrt_heap_malloc", thread, (pyrt_heap_impl *)handle);
    if (part == NULL) {
        return NULL;
    }
    bool is_zero = false;
    void *block = pyrt_part_alloc(part, size, &is_zero);
    if (block == NULL) {
        errno = ENOMEM;
    }
    else if (zero) {
        size_t prefix = size < part->link ? size : part->link;
        if (!is_zero) {
            zero_prefix(block, prefix);
            memset((char *)block + prefix, 0, size - prefix);
        }
        else if (size > prefix) {
            memset((char *)block + prefix, 0, size - prefix < sizeof(void *) ? size - prefix : sizeof(void *));
        }
    }
    return block;
}

void *
pyrt_heap_aligned_alloc(pyrt_thread *thread, pyrt_heap *handle, size_t align, size_t size)
{
    if (align == 0 || (align & (align - 1)) != 0) {
        errno = EINVAL;
        return NULL;
    }
    pyrt_part *part = my_part("pyrt_heap_aligned_alloc", thread, (pyrt_heap_impl *)handle);
    if (part == NULL) {
        return NULL;
    }
    void *block = pyrt_part_aligned_alloc(part, align, size);
    if (block == NULL) {
        errno = ENOMEM;
    }
    return block;
}

/* The words of a prefix, into one that readers may be looking at. */
static void
copy_prefix(void *to, const void *from, size_t bytes)
{
    uint64_t *into = to;
    const uint64_t *words = from;
    for (size_t i = 0; i * sizeof(*words) < bytes; i++) {
        pyrt_store_relaxed(&into[i], pyrt_load_relaxed(&words[i]));
    }
}

void *
pyrt_heap_realloc(pyrt_thread *thread, pyrt_heap *heap, void *block, size_t size)
{
    size_t usable = block == NULL ? 0 : pyrt_room_to_resize("pyrt_heap_realloc", block);
    if (block != NULL && usable == 0) {
        return NULL;
    }
    if (block != NULL && size <= usable && size >= usable / 2) {
        return block;
    }
    bool may_move = may_allocate("pyrt_heap_realloc", thread, (pyrt_heap_impl *)heap);
    void *moved = may_move ? pyrt_heap_malloc(thread, heap, size) : NULL;
    if (moved == NULL) {
        /* A block that has room enough does for a smaller one. */
        return block != NULL && size <= usable ? block : NULL;
    }
    if (block != NULL) {
        size_t bytes = size < usable ? size : usable;
        size_t prefix = ((pyrt_heap_impl *)heap)->link < bytes ? ((pyrt_heap_impl *)heap)->link : bytes;
        copy_prefix(moved, block, prefix);
        memcpy((char *)moved + prefix, (char *)block + prefix, bytes - prefix);
        pyrt_free(block);
    }
    return moved;
}

/* ---- ending a heap ----------------------------------------------------------------------------------------------- */

/* Blocks of a destroyed heap that are mappings of their own. */
static void
free_huge(pyrt_interp_heaps *heaps, const pyrt_heap_impl *heap)
{
    for (;;) {
        pyrt_raw_mutex_lock(&heaps->pool.lock);
        pyrt_page *page = heaps->pool.huge;
        while (page != NULL && page->heap != heap) {
            page = page->next;
        }
        pyrt_raw_mutex_unlock(&heaps->pool.lock);
        if (page == NULL) {
            return;
        }
        pyrt_huge_free(page);
    }
}

static void
end(pyrt_heap_impl *heap, uint32_t state)
{
    pyrt_interp_heaps *heaps = pyrt_heaps_of_interp(heap->interp);
    pyrt_store_release(&heap->state, state);
    if (state == PYRT_HEAP_DESTROYED) {
        free_huge(heaps, heap);
    }
    /* seq_cst, as release: pairs with look_for_ended. */
    pyrt_fetch_add_seq_cst(&heaps->ended, 1u);
    release_everywhere(heap->interp, false);
    pyrt_heap_unref(heap);
}

void
pyrt_heap_delete(pyrt_heap *heap)
{
    if (heap != NULL) {
        end((pyrt_heap_impl *)heap, PYRT_HEAP_DELETED);
    }
}

void
pyrt_heap_destroy(pyrt_heap *heap)
{
    if (heap != NULL) {
        end((pyrt_heap_impl *)heap, PYRT_HEAP_DESTROYED);
    }
}

/* ---- the lives of threads and interpreters ----------------------------------------------------------------------- */

static pyrt_status
thread_init(pyrt_thread_impl *thread)
{
    pyrt_thread_heaps *mine = pyrt_meta_alloc(sizeof(*mine));
    if (mine == NULL) {
        return PYRT_ENOMEM;
    }
    pyrt_interp_heaps *heaps = pyrt_heaps_of_interp(thread->base.interp);
    mine->share.memory = heaps->memory;
    mine->share.pool = &heaps->pool;
    mine->share.thread = thread;
    mine->share.token = (uintptr_t)&mine->table;
    mine->share.next_purge = INT64_MAX;
    mine->seen_ended = pyrt_load_acquire(&heaps->ended);
    thread->base.heaps = &mine->table;
    thread->stage[PYRT_STAGE_HEAPS] = mine;
    return PYRT_OK;
}

static void
leave_all(pyrt_thread_heaps *mine)
{
    forget_ended(mine);
    for (uint32_t i = 0; i < mine->table.count; i++) {
        if (mine->table.parts[i] != NULL) {
            pyrt_part_abandon((pyrt_part *)(void *)mine->table.parts[i]);
            drop_part(mine, i);
        }
    }
    pyrt_share_abandon(&mine->share);
}

static void
thread_exit(pyrt_thread_impl *thread)
{
    pyrt_thread_heaps *mine = pyrt_heaps_of(thread);
    pyrt_held_reports held;
    if (mine == NULL) {
        return;
    }
    pyrt_report_hold(&held);
    leave_all(mine);
    pyrt_report_tell(&held);
    /* A hook may have allocated. */
    leave_all(mine);
    pyrt_fetch_add_relaxed(&pyrt_heaps_of_interp(thread->base.interp)->adopted, mine->share.adopted);
    /* relaxed: who adds up figures may be reading it. */
    pyrt_store_relaxed(&mine->share.adopted, UINT64_C(0));
}

/* Who adds up figures, or gives back what is not needed, may be looking at it. */
static void
thread_fini(pyrt_thread_impl *thread)
{
    pyrt_interp *interp = thread->base.interp;
    pyrt_raw_mutex_lock(&interp->lock);
    pyrt_thread_heaps *mine = pyrt_heaps_of(thread);
    thread->stage[PYRT_STAGE_HEAPS] = NULL;
    thread->base.heaps = NULL;
    pyrt_raw_mutex_unlock(&interp->lock);
    if (mine != NULL) {
        if (mine->table.count != 0) {
            pyrt_meta_free(mine->table.parts, mine->table.count * sizeof(void *));
        }
        pyrt_meta_free(mine, sizeof(*mine));
    }
}

/* In the child of a fork. A thread that was attached may have stood in the middle of a list: what it had stays as it is,
 * its blocks can only be freed from abroad, and its token is never used again. */
static void
thread_lost(pyrt_thread_impl *thread)
{
    pyrt_thread_heaps *mine = pyrt_heaps_of(thread);
    bool was_attached = pyrt_load_relaxed(&thread->base.slot.word) % 2 == 1;
    if (mine != NULL && was_attached && mine->table.count != 0) {
        pyrt_heaps_of_interp(thread->base.interp)->pool.frozen++;
        thread->stage[PYRT_STAGE_HEAPS] = NULL;
        return;
    }
    thread_exit(thread);
}

static void
interp_release(pyrt_interp *interp)
{
    release_everywhere(interp, true);
}

__attribute__((constructor)) static void
register_stage(void)
{
    static const pyrt_stage stage = {
        .interp_init = pyrt_heaps_interp_init,
        .interp_fini = pyrt_heaps_interp_fini,
        .interp_release = interp_release,
        .thread_init = thread_init,
        .thread_fini = thread_fini,
        .thread_release = thread_release,
        .thread_exit = thread_exit,
        .thread_lost = thread_lost,
    };
    pyrt_stage_register(PYRT_STAGE_HEAPS, &stage);
}
