/* blocks.c -- the array of the open blocks: in the words of the thread until it grows out of them. */
#include "binding/blocks.h"

#include <stdlib.h>
#include <string.h>

bool
pyrt_py_blocks_reserve(pyrt_py_words *words)
{
    if (pyrt_likely(words->block_count < words->block_capacity)) {
        return true;
    }
    if (words->block_capacity == 0) {
        words->blocks = words->first_blocks;
        words->block_capacity = PYRT_PY_FIRST_BLOCKS;
        return true;
    }
    if (words->block_capacity > UINT32_MAX / 2) {
        return false;
    }
    bool moves_out = words->blocks == words->first_blocks;
    uint64_t *blocks = realloc(moves_out ? NULL : words->blocks, 2 * words->block_capacity * sizeof(*blocks));
    if (blocks == NULL) {
        return false;
    }
    if (moves_out) {
        memcpy(blocks, words->first_blocks, sizeof(words->first_blocks));
    }
    words->blocks = blocks;
    words->block_capacity *= 2;
    return true;
}

pyrt_py_block_place
pyrt_py_block_find(const pyrt_py_words *words, uint64_t number)
{
    for (uint32_t i = words->block_count; i-- > 0;) {
        if (words->blocks[i] != number) {
            continue;
        }
        if (i < words->floor_count) {
            return PYRT_PY_PUT_ASIDE;
        }
        return i + 1 == words->block_count ? PYRT_PY_NEWEST : PYRT_PY_BURIED;
    }
    return PYRT_PY_NOT_OPEN;
}

uint32_t
pyrt_py_blocks_collect(pyrt_py_words *words, uint64_t number)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < words->block_count; i++) {
        if (words->blocks[i] == number) {
            words->blocks[i] = PYRT_PY_BLOCK_COLLECTED;
            found++;
        }
    }
    return found;
}

void
pyrt_py_blocks_settle(pyrt_py_words *words)
{
    uint32_t kept = words->floor_count;
    for (uint32_t i = words->floor_count; i < words->block_count; i++) {
        if (words->blocks[i] != PYRT_PY_BLOCK_COLLECTED) {
            words->blocks[kept++] = words->blocks[i];
        }
    }
    words->block_count = kept;
}

void
pyrt_py_blocks_free(pyrt_py_words *words)
{
    if (words->blocks != words->first_blocks) {
        free(words->blocks);
    }
    words->blocks = NULL;
    words->block_capacity = 0;
    words->block_count = 0;
    words->floor_count = 0;
}
