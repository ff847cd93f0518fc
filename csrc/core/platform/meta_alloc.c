/* meta_alloc.c -- power-of-two free lists over mapped regions.
 *
 * Invariant, under the lock: every byte of a region is in exactly one block that is live or in the free list of its class,
 * or behind the region's bump mark. live_bytes is the sum of the live blocks.
 */
#include "platform/meta_alloc.h"

#include "platform/raw_mutex.h"

#include <string.h>
#include <sys/mman.h>

enum {
    MIN_SHIFT = 6,  /* 64 bytes: a cache line, so that blocks never share one */
    MAX_SHIFT = 15, /* 32 KiB; beyond it a block is a mapping of its own */
    CLASSES = MAX_SHIFT - MIN_SHIFT + 1,
    PAGE = 4096,
    REGION = 256 * 1024
};

typedef struct free_block {
    struct free_block *next;
} free_block;

/* Stands in the first 64 bytes of its mapping. */
typedef struct region {
    struct region *next;
    size_t used;
} region;

static struct {
    pyrt_raw_mutex lock;
    free_block *free[CLASSES];
    region *regions; /* the newest first; only it has room behind its mark */
    size_t live_bytes; /* kept_bytes among them */
    size_t kept_bytes;
    bool (*should_fail)(void *);
    void *fault_arg;
} meta;

static int
class_of(size_t size)
{
    int shift = MIN_SHIFT;
    while (((size_t)1 << shift) < size) {
        shift++;
    }
    return shift - MIN_SHIFT;
}

static size_t
round_to_pages(size_t size)
{
    return (size + PAGE - 1) & ~(size_t)(PAGE - 1);
}

static void *
map(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* A fresh block, zeroed by the system. What does not fit into the region any more is lost to it: at most one block of the
 * asked size in 256 KiB. */
static void *
carve(size_t size)
{
    size_t align = size < PAGE ? size : PAGE;
    region *r = meta.regions;
    size_t start = r == NULL ? 0 : (r->used + align - 1) & ~(align - 1);
    if (r == NULL || start + size > REGION) {
        r = map(REGION);
        if (r == NULL) {
            return NULL;
        }
        r->next = meta.regions;
        r->used = sizeof(region);
        meta.regions = r;
        start = (r->used + align - 1) & ~(align - 1);
    }
    r->used = start + size;
    return (char *)r + start;
}

void *
pyrt_meta_alloc(size_t size)
{
    if (size == 0 || size > SIZE_MAX / 2) {
        return NULL;
    }
    void *block = NULL;
    pyrt_raw_mutex_lock(&meta.lock);
    if (meta.should_fail == NULL || !meta.should_fail(meta.fault_arg)) {
        if (size > ((size_t)1 << MAX_SHIFT)) {
            block = map(round_to_pages(size));
            meta.live_bytes += block == NULL ? 0 : round_to_pages(size);
        }
        else {
            int class = class_of(size);
            size_t rounded = (size_t)1 << (class + MIN_SHIFT);
            free_block *head = meta.free[class];
            if (head != NULL) {
                meta.free[class] = head->next;
                block = memset(head, 0, rounded);
            }
            else {
                block = carve(rounded);
            }
            meta.live_bytes += block == NULL ? 0 : rounded;
        }
    }
    pyrt_raw_mutex_unlock(&meta.lock);
    return block;
}

void
pyrt_meta_free(void *block, size_t size)
{
    if (block == NULL) {
        return;
    }
    pyrt_raw_mutex_lock(&meta.lock);
    if (size > ((size_t)1 << MAX_SHIFT)) {
        munmap(block, round_to_pages(size));
        meta.live_bytes -= round_to_pages(size);
    }
    else {
        int class = class_of(size);
        free_block *freed = block;
        freed->next = meta.free[class];
        meta.free[class] = freed;
        meta.live_bytes -= (size_t)1 << (class + MIN_SHIFT);
    }
    pyrt_raw_mutex_unlock(&meta.lock);
}

size_t
pyrt_meta_live_bytes(void)
{
    pyrt_raw_mutex_lock(&meta.lock);
    size_t live = meta.live_bytes - meta.kept_bytes;
    pyrt_raw_mutex_unlock(&meta.lock);
    return live;
}

static size_t
rounded_size(size_t size)
{
    return size > ((size_t)1 << MAX_SHIFT) ? round_to_pages(size) : (size_t)1 << (class_of(size) + MIN_SHIFT);
}

void
pyrt_meta_keep(size_t size)
{
    pyrt_raw_mutex_lock(&meta.lock);
    meta.kept_bytes += rounded_size(size);
    pyrt_raw_mutex_unlock(&meta.lock);
}

void
pyrt_meta_unkeep(size_t size)
{
    pyrt_raw_mutex_lock(&meta.lock);
    meta.kept_bytes -= rounded_size(size);
    pyrt_raw_mutex_unlock(&meta.lock);
}

void
pyrt_meta_set_fault(bool (*should_fail)(void *arg), void *arg)
{
    pyrt_raw_mutex_lock(&meta.lock);
    meta.should_fail = should_fail;
    meta.fault_arg = arg;
    pyrt_raw_mutex_unlock(&meta.lock);
}

void
pyrt_meta_trim(void)
{
    pyrt_raw_mutex_lock(&meta.lock);
    if (meta.live_bytes == 0) {
        while (meta.regions != NULL) {
            region *next = meta.regions->next;
            munmap(meta.regions, REGION);
            meta.regions = next;
        }
        memset(meta.free, 0, sizeof(meta.free));
    }
    pyrt_raw_mutex_unlock(&meta.lock);
}

void
pyrt_meta_fork_prepare(void)
{
    pyrt_raw_mutex_lock(&meta.lock);
}

void
pyrt_meta_fork_parent(void)
{
    pyrt_raw_mutex_unlock(&meta.lock);
}

void
pyrt_meta_fork_child(void)
{
    pyrt_raw_mutex_reinit(&meta.lock);
}
