/* os_memory.h -- address space for blocks, straight from the system: reserve, purge, release.
 *
 * Fresh memory is zero and takes no room until it is touched.
 */
#ifndef PYRT_OS_MEMORY_H
#define PYRT_OS_MEMORY_H

#include <pyruntime/config.h>

/* `bytes` is a multiple of 4 KiB, `align` a power of two of at least that. NULL when the system has no more, or when the
 * fault hook says so. */
void *pyrt_os_map(size_t bytes, size_t align);
void pyrt_os_unmap(void *start, size_t bytes);

/* Gives the pages behind a range back; it reads as zero afterwards. False: nothing has changed. */
bool pyrt_os_purge(void *start, size_t bytes);

/* Whether the system had better take huge pages for a range when it is touched. Advice: what becomes of it nobody is told. */
void pyrt_os_advise_huge(void *start, size_t bytes, bool wanted);

/* A number that nobody outside of the process can guess; the same at every call. */
uint64_t pyrt_os_secret(void);

/* Bytes mapped and not unmapped. */
size_t pyrt_os_mapped_bytes(void);

/* Asked before every map and purge; true makes it fail. NULL: none. For tests; set it while one thread runs. */
void pyrt_os_set_fault(bool (*should_fail)(void *arg), void *arg);

#endif
