/* SPDX-License-Identifier: MIT
 *
 * atomic.h -- the only atomic operations of the project, each named by its memory order.
 *
 * They are macros over the __atomic builtins, because public inline code must also compile as C++17, which has no
 * <stdatomic.h>, and because one place is then enough to substitute them: a build that defines PYRT_ATOMIC_HEADER to a
 * header name gets its operations from there. The model checker of tests/c/model does so.
 *
 * No operation here blocks, allocates or runs user code; all are async-signal-safe.
 */
#ifndef PYRUNTIME_ATOMIC_H
#define PYRUNTIME_ATOMIC_H

#include "config.h"

#if defined(PYRT_ATOMIC_HEADER)
#    include PYRT_ATOMIC_HEADER
#else

#    define pyrt_load_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#    define pyrt_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#    define pyrt_load_seq_cst(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)

#    define pyrt_store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#    define pyrt_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)

/* Read-modify-write. All return the old value. */
#    define pyrt_exchange_seq_cst(p, v) __atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST)
#    define pyrt_exchange_acquire(p, v) __atomic_exchange_n((p), (v), __ATOMIC_ACQUIRE)
#    define pyrt_exchange_release(p, v) __atomic_exchange_n((p), (v), __ATOMIC_RELEASE)
#    define pyrt_fetch_add_relaxed(p, v) __atomic_fetch_add((p), (v), __ATOMIC_RELAXED)
#    define pyrt_fetch_add_seq_cst(p, v) __atomic_fetch_add((p), (v), __ATOMIC_SEQ_CST)
#    define pyrt_fetch_sub_acq_rel(p, v) __atomic_fetch_sub((p), (v), __ATOMIC_ACQ_REL)
#    define pyrt_fetch_or_seq_cst(p, v) __atomic_fetch_or((p), (v), __ATOMIC_SEQ_CST)
#    define pyrt_fetch_and_seq_cst(p, v) __atomic_fetch_and((p), (v), __ATOMIC_SEQ_CST)

/* Compare-and-swap, strong. `expected` points to the value wanted and receives the value found. */
#    define pyrt_cas_seq_cst(p, expected, v) \
        __atomic_compare_exchange_n((p), (expected), (v), 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)
#    define pyrt_cas_acquire(p, expected, v) \
        __atomic_compare_exchange_n((p), (expected), (v), 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)
#    define pyrt_cas_release(p, expected, v) \
        __atomic_compare_exchange_n((p), (expected), (v), 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED)
#    define pyrt_cas_acq_rel(p, expected, v) \
        __atomic_compare_exchange_n((p), (expected), (v), 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)

/* Stands behind a sequentially consistent read-modify-write whose store must be visible before any later plain load.
 * A locked instruction of x86 is that barrier already; on aarch64 the store half may still be overtaken by a plain load. */
#    if defined(__x86_64__)
#        define pyrt_fence_after_rmw() __atomic_signal_fence(__ATOMIC_SEQ_CST)
#    else
#        define pyrt_fence_after_rmw() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#    endif

/* The cheap half of an asymmetric barrier: it holds back the compiler only. The other side calls pyrt_membarrier(), which
 * makes every running thread of the process pass a full barrier. */
#    define pyrt_light_barrier() __atomic_signal_fence(__ATOMIC_SEQ_CST)

#    if defined(__x86_64__)
#        define pyrt_cpu_relax() __builtin_ia32_pause()
#    else
#        define pyrt_cpu_relax() __asm__ volatile("yield" ::: "memory")
#    endif

#endif /* PYRT_ATOMIC_HEADER */
#endif /* PYRUNTIME_ATOMIC_H */
