/* index_pool.h -- small numbers for living threads: always the smallest that is free, so that arrays keyed on them stay
 * short after many threads have come and gone.
 *
 * A number is reserved when a thread is made, so that giving it back never fails. The caller holds the interpreter's lock.
 */
#ifndef PYRT_STATE_INDEX_POOL_H
#define PYRT_STATE_INDEX_POOL_H

#include <stddef.h>
#include <stdint.h>

typedef struct pyrt_index_pool {
    uint64_t *words; /* bit set: taken */
    size_t count;    /* of words */
} pyrt_index_pool;

/* The smallest free number, or -1 when memory is short. */
int32_t pyrt_index_reserve(pyrt_index_pool *pool);
void pyrt_index_release(pyrt_index_pool *pool, int32_t index);
void pyrt_index_pool_fini(pyrt_index_pool *pool);

#endif
