/* poison.h -- memory that nobody may touch, said to AddressSanitizer: in a process that has it, whoever touches it is named.
 *
 * The process decides, not how this code was compiled: without it the two functions are not there.
 */
#ifndef PYRT_POISON_H
#define PYRT_POISON_H

#include <stdbool.h>
#include <stddef.h>

extern void pyrt_asan_poison(const volatile void *start, size_t bytes) __asm__("__asan_poison_memory_region")
    __attribute__((weak));
extern void pyrt_asan_unpoison(const volatile void *start, size_t bytes) __asm__("__asan_unpoison_memory_region")
    __attribute__((weak));

static inline bool
pyrt_can_poison(void)
{
    return pyrt_asan_poison != NULL;
}

static inline void
pyrt_poison(const void *start, size_t bytes)
{
    if (pyrt_can_poison()) {
        pyrt_asan_poison(start, bytes);
    }
}

static inline void
pyrt_unpoison(const void *start, size_t bytes)
{
    if (pyrt_can_poison()) {
        pyrt_asan_unpoison(start, bytes);
    }
}

#endif
