/* size_class.h -- from sizes to classes of blocks and back.
 *
 * Class 0 has 8 bytes; classes 1 to 8 go up to 128 in steps of 16; from there four classes to each doubling, so that at most
 * a fifth of a block is wasted. Blocks begin at multiples of their size from the start of a 64 KiB slice: a block whose size
 * is a multiple of a power of two up to 64 KiB is aligned to it.
 */
#ifndef PYRT_MEMORY_SIZE_CLASS_H
#define PYRT_MEMORY_SIZE_CLASS_H

#include "memory/memory.h"

enum {
    PYRT_CLASS_MAX = 44,               /* the last one with many blocks in a page: 64 KiB */
    PYRT_CLASS_LARGE = 45,             /* one block in whole slices */
    PYRT_CLASSES,
    PYRT_CLASS_SMALL_MAX = 20          /* 1 KiB: up to here a table finds the page */
};
#define PYRT_CLASSED_MAX ((size_t)65536)

static inline unsigned
pyrt_class_of(size_t size)
{
    if (size <= 128) {
        return size <= 8 ? 0 : (unsigned)((size + 15) / 16);
    }
    unsigned top = 63 - (unsigned)__builtin_clzll(size - 1);
    return (top - 7) * 4 + (unsigned)((size - 1) >> (top - 2)) + 5;
}

static inline size_t
pyrt_class_size(unsigned class)
{
    if (class <= 8) {
        return class == 0 ? 8 : (size_t)class * 16;
    }
    return (size_t)((class - 9) % 4 + 5) << ((class - 9) / 4 + 5);
}

/* The slices of a page of a class: eight blocks or more, but at most eight slices. */
static inline size_t
pyrt_class_slices(unsigned class)
{
    size_t slices = (pyrt_class_size(class) * 8 + PYRT_SLICE - 1) / PYRT_SLICE;
    return slices < 8 ? slices : 8;
}

#endif
