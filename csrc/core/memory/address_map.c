/* address_map.c -- see address_map.h. */
#include "memory/address_map.h"

#include "platform/os_memory.h"

pyrt_map_leaf *pyrt_map_root[(size_t)1 << PYRT_MAP_ROOT_BITS];

bool
pyrt_map_cover(const void *start, size_t bytes)
{
    uint64_t first = (uint64_t)(uintptr_t)start >> (PYRT_SLICE_SHIFT + PYRT_MAP_LEAF_BITS);
    uint64_t last = ((uint64_t)(uintptr_t)start + bytes - 1) >> (PYRT_SLICE_SHIFT + PYRT_MAP_LEAF_BITS);
    if (last >> PYRT_MAP_ROOT_BITS != 0) {
        return false;
    }
    for (uint64_t i = first; i <= last; i++) {
        pyrt_map_leaf *none = NULL;
        if (pyrt_load_relaxed(&pyrt_map_root[i]) != NULL) {
            continue;
        }
        pyrt_map_leaf *leaf = pyrt_os_map(sizeof(*leaf), 4096);
        if (leaf == NULL) {
            return false;
        }
        /* acq_rel: publishes the zeroed leaf to pyrt_map_entry. The loser's is the same as the winner's. */
        if (!pyrt_cas_acq_rel(&pyrt_map_root[i], &none, leaf)) {
            pyrt_os_unmap(leaf, sizeof(*leaf));
        }
    }
    return true;
}

void
pyrt_map_set(const void *start, size_t bytes, struct pyrt_page *page, uint32_t owner)
{
    uint64_t entry = (uint64_t)(uintptr_t)page | (owner & PYRT_MAP_OWNER_LOW) | (uint64_t)(owner >> 7) << 48;
    uint64_t slice = (uint64_t)(uintptr_t)start >> PYRT_SLICE_SHIFT;
    uint64_t end = slice + (bytes >> PYRT_SLICE_SHIFT);
    for (; slice < end; slice++) {
        pyrt_map_leaf *leaf = pyrt_load_relaxed(&pyrt_map_root[slice >> PYRT_MAP_LEAF_BITS]);
        /* release: pairs with the acquire in pyrt_map_entry. */
        pyrt_store_release(&leaf->entries[slice & (((size_t)1 << PYRT_MAP_LEAF_BITS) - 1)], entry);
    }
}
