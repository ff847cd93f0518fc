/* poison.h -- memory that nobody may touch, said to AddressSanitizer: in a process that has it, whoever touches it is named.
 *
 * The process decides, not how this code was compiled: without it the two functions are not there.
 */
#ifndef PYRT_POISON_H
#define PYRT_POISON_H

#include <stdbool.h>
#include <stddef.h>

extern void __asan_poison_memory_region(const volatile void *start, size_t bytes) __attribute__((weak));
extern void __asan_unpoison_memory_region(const volatile void *start, size_t bytes) __attribute__((weak));

static inline bool
pyrt_can_poison(void)
{
    return __asan_poison_memory_region != NULL;
}

static inline void
pyrt_poison(const void *start, size_t bytes)
{
    if (pyrt_can_poison()) {
        __asan_poison_memory_region(start, bytes);
    }
}

static inline void
pyrt_unpoison(const void *start, size_t bytes)
{
    if (pyrt_can_poison()) {
        __asan_unpoison_memory_region(start, bytes);
    }
}

#endif
