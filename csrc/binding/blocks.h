/* blocks.h -- the open blocks of an OS thread, oldest first, each by the number of the section that opened it.
 *
 * A section that is entered several times stands there as often. Numbers are given out per OS thread and not used again, so
 * that one that is not there stands for a block that is not open any more. Touched by their OS thread only.
 */
#ifndef PYRT_BINDING_BLOCKS_H
#define PYRT_BINDING_BLOCKS_H

#include "binding/words.h"

/* In the place of a number: a block that has just been opened and has none yet, and one whose section was collected. */
#define PYRT_PY_BLOCK_NEW UINT64_MAX
#define PYRT_PY_BLOCK_COLLECTED ((uint64_t)0)

typedef enum {
    PYRT_PY_NOT_OPEN,
    PYRT_PY_PUT_ASIDE, /* below the floor: outside of the callable that runs now */
    PYRT_PY_BURIED,    /* another block was opened later */
    PYRT_PY_NEWEST
} pyrt_py_block_place;

/* Makes room for one block more. False when memory is short. */
bool pyrt_py_blocks_reserve(pyrt_py_words *words);

/* Where the newest block of this number is. */
pyrt_py_block_place pyrt_py_block_find(const pyrt_py_words *words, uint64_t number);

/* Marks all blocks of this number as collected; answers how many there were. */
uint32_t pyrt_py_blocks_collect(pyrt_py_words *words, uint64_t number);

/* Takes out the collected blocks above the floor. */
void pyrt_py_blocks_settle(pyrt_py_words *words);

/* At the end of the OS thread. */
void pyrt_py_blocks_free(pyrt_py_words *words);

#endif
