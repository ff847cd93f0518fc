/* address_map.h -- from any address to the page of blocks that it lies in, and to the memory state that owns it.
 *
 * Two levels over the 48 bits of user addresses, in slices of 64 KiB. An entry is one word:
 *
 *   bits 7 to 47    the pyrt_page of the slice (they are aligned to 128 bytes), or 0: no blocks there
 *   bits 0 to 6 and 48 to 63   the number of the owning memory state (states.h), or 0: not ours
 *
 * The root is static, leaves are never freed, entries are single words: reading takes no lock, and
 * touches neither the address nor anything that could go away. Written by whoever owns the slice: the state that reserves
 * it, then the thread that makes a page of it.
 */
#ifndef PYRT_MEMORY_ADDRESS_MAP_H
#define PYRT_MEMORY_ADDRESS_MAP_H

#include <pyruntime/atomic.h>

enum { PYRT_SLICE_SHIFT = 16, PYRT_MAP_LEAF_BITS = 16, PYRT_MAP_ROOT_BITS = 48 - PYRT_SLICE_SHIFT - PYRT_MAP_LEAF_BITS };
#define PYRT_SLICE ((size_t)1 << PYRT_SLICE_SHIFT)

#define PYRT_MAP_PAGE_MASK UINT64_C(0x0000FFFFFFFFFF80)
#define PYRT_MAP_OWNER_LOW UINT64_C(0x7F)
enum { PYRT_MAP_OWNER_MAX = (1 << 23) - 1 };

typedef struct pyrt_map_leaf {
    uint64_t entries[(size_t)1 << PYRT_MAP_LEAF_BITS];
} pyrt_map_leaf;

extern pyrt_map_leaf *pyrt_map_root[(size_t)1 << PYRT_MAP_ROOT_BITS];

/* The entry of an address; 0 for what is not ours. */
static inline uint64_t
pyrt_map_entry(const void *address)
{
    uint64_t slice = (uint64_t)(uintptr_t)address >> PYRT_SLICE_SHIFT;
    uint64_t place = (uint64_t)(uintptr_t)address >> (PYRT_SLICE_SHIFT + PYRT_MAP_LEAF_BITS);
    if (pyrt_unlikely(place >= (uint64_t)1 << PYRT_MAP_ROOT_BITS)) {
        return 0;
    }
    /* acquire: pairs with the release in pyrt_map_cover; the leaf is seen zeroed. */
    const pyrt_map_leaf *leaf = pyrt_load_acquire(&pyrt_map_root[place]);
    if (pyrt_unlikely(leaf == NULL)) {
        return 0;
    }
    /* acquire: pairs with the release in pyrt_map_set; the page is seen set up. */
    return pyrt_load_acquire(&leaf->entries[slice & (((size_t)1 << PYRT_MAP_LEAF_BITS) - 1)]);
}

/* The same for addresses of which nobody knows whose they are: without a branch that hangs on the address, which no processor
 * could foresee. */
static inline uint64_t
pyrt_map_entry_of_any(const void *address)
{
    static const uint64_t none = 0;
    uint64_t slice = (uint64_t)(uintptr_t)address >> PYRT_SLICE_SHIFT;
    /* acquire, twice: as above. */
    const pyrt_map_leaf *leaf =
        pyrt_load_acquire(&pyrt_map_root[slice >> PYRT_MAP_LEAF_BITS & (((size_t)1 << PYRT_MAP_ROOT_BITS) - 1)]);
    bool is_covered = (slice >> (PYRT_MAP_LEAF_BITS + PYRT_MAP_ROOT_BITS) == 0) & (leaf != NULL);
    uintptr_t entry = (uintptr_t)leaf + (slice & (((size_t)1 << PYRT_MAP_LEAF_BITS) - 1)) * sizeof(uint64_t);
    uintptr_t mask = (uintptr_t)0 - is_covered;
    entry = (entry & mask) | ((uintptr_t)&none & ~mask);
    return pyrt_load_acquire((const uint64_t *)entry);
}

static inline struct pyrt_page *
pyrt_map_page_of(uint64_t entry)
{
    return (struct pyrt_page *)(uintptr_t)(entry & PYRT_MAP_PAGE_MASK);
}

static inline uint32_t
pyrt_map_owner_of(uint64_t entry)
{
    return (uint32_t)(entry & PYRT_MAP_OWNER_LOW) | (uint32_t)(entry >> 48) << 7;
}

/* Makes sure that the leaves for a range exist; false when memory is short. */
bool pyrt_map_cover(const void *start, size_t bytes);

/* Writes the entries of a range that is covered: whole slices. */
void pyrt_map_set(const void *start, size_t bytes, struct pyrt_page *page, uint32_t owner);

#endif
