/* heaps.c -- see heaps.h. */
#include "heaps.h"

#include "support.h"

#include "memory/address_map.h"
#include "platform/os_memory.h"

#include <string.h>

pyrt_heap *
new_heap(pyrt_interp *interp, uint8_t tag, bool type_stable)
{
    pyrt_heap *heap = pyrt_heap_new(
        interp, &(pyrt_heap_config){.struct_size = sizeof(pyrt_heap_config), .tag = tag, .type_stable = type_stable});
    CHECK(heap != NULL);
    return heap;
}

char *
block_of(pyrt_interp *interp, pyrt_heap *heap, size_t size)
{
    pyrt_thread *thread = pyrt_thread_ensure(interp);
    char *block = pyrt_heap_malloc(thread, heap, size);
    CHECK(block != NULL);
    memset(block, 0x5A, size);
    pyrt_thread_release(thread);
    return block;
}

size_t
mapped_beside_the_map(void)
{
    size_t leaves = 0;
    for (size_t i = 0; i < (size_t)1 << PYRT_MAP_ROOT_BITS; i++) {
        leaves += pyrt_load_relaxed(&pyrt_map_root[i]) != NULL;
    }
    return pyrt_os_mapped_bytes() - leaves * sizeof(pyrt_map_leaf);
}
