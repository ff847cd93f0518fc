/* index_pool.c -- a bitmap that doubles. */
#include "state/index_pool.h"

#include "platform/meta_alloc.h"

#include <string.h>

enum { BITS = 64, FIRST_WORDS = 8 };

int32_t
pyrt_index_reserve(pyrt_index_pool *pool)
{
    size_t word = 0;
    while (word < pool->count && pool->words[word] == UINT64_MAX) {
        word++;
    }
    if (word == pool->count) {
        size_t count = pool->count == 0 ? FIRST_WORDS : pool->count * 2;
        uint64_t *words = pyrt_meta_alloc(count * sizeof(uint64_t));
        if (words == NULL) {
            return -1;
        }
        if (pool->count != 0) {
            memcpy(words, pool->words, pool->count * sizeof(uint64_t));
            pyrt_meta_free(pool->words, pool->count * sizeof(uint64_t));
        }
        pool->words = words;
        pool->count = count;
    }
    int bit = __builtin_ctzll(~pool->words[word]);
    pool->words[word] |= (uint64_t)1 << bit;
    return (int32_t)(word * BITS) + bit;
}

void
pyrt_index_release(pyrt_index_pool *pool, int32_t index)
{
    pool->words[index / BITS] &= ~((uint64_t)1 << (index % BITS));
}

void
pyrt_index_pool_fini(pyrt_index_pool *pool)
{
    pyrt_meta_free(pool->words, pool->count * sizeof(uint64_t));
    *pool = (pyrt_index_pool){0};
}
