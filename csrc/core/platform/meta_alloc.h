/* meta_alloc.h -- memory for the library's own structures, straight from the system.
 *
 * Independent of malloc, so that it works under a malloc that is ours, in fork handlers and in thread-exit destructors.
 * Blocks are zeroed, sizes round up to a power of two of at least 64 bytes, and blocks of up to 32 KiB are aligned to their
 * size (to 4 KiB at most), larger ones to 4 KiB.
 *
 * A freed small block stays with the process for the next caller of its size, until pyrt_meta_trim.
 */
#ifndef PYRT_META_ALLOC_H
#define PYRT_META_ALLOC_H

#include <pyruntime/config.h>

/* NULL when the system has no more, or when the fault hook says so. */
void *pyrt_meta_alloc(size_t size);

/* `size` is what the block was asked for with. NULL is fine. */
void pyrt_meta_free(void *block, size_t size);

/* Bytes handed out and not freed (in rounded sizes): what a leak test compares. */
size_t pyrt_meta_live_bytes(void);

/* Takes a live block out of that number, because it belongs to the process and may stay for good; and puts it in again, before
 * it is freed. */
void pyrt_meta_keep(size_t size);
void pyrt_meta_unkeep(size_t size);

/* Asked before every allocation; true makes it fail. NULL: none. For tests of the out-of-memory paths; set it while one
 * thread runs. */
void pyrt_meta_set_fault(bool (*should_fail)(void *arg), void *arg);

/* Gives every unused region back. Called when the runtime ends; does nothing while blocks are live. */
void pyrt_meta_trim(void);

/* Around a fork: the lock is held across it, so that the child finds the lists whole. */
void pyrt_meta_fork_prepare(void);
void pyrt_meta_fork_parent(void);
void pyrt_meta_fork_child(void);

#endif
