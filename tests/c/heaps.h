/* heaps.h -- heaps and blocks of interpreters, for the tests of what is left of them. */
#ifndef TESTS_C_HEAPS_H
#define TESTS_C_HEAPS_H

#include <pyruntime/pyruntime.h>

#include <stdbool.h>
#include <stddef.h>

/* It must be possible. */
pyrt_heap *new_heap(pyrt_interp *interp, uint8_t tag, bool type_stable);

/* A block of a heap of the interpreter, full of 0x5A, from a thread that comes and goes for it. */
char *block_of(pyrt_interp *interp, pyrt_heap *heap, size_t size);

/* What is mapped, but for the leaves of the address map. Those stay for ever, and a new one comes whenever the system places
 * memory where there was none yet, which differs from run to run. */
size_t mapped_beside_the_map(void);

#endif
