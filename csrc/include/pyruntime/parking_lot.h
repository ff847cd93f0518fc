/* SPDX-License-Identifier: MIT
 *
 * parking_lot.h -- queues of sleeping threads, keyed on an address: what every lock here waits on.
 *
 * A lock needs no queue of its own, so it can be a byte. A thread that must wait parks on the address of what it waits for;
 * whoever changes that unparks. The queues live in a fixed table of buckets, each with a lock of its own; nothing here
 * allocates, so nothing here can fail for want of memory. An address is only a key: it is never dereferenced.
 *
 * Beside the buckets stands a table of counts, a cell for each: how many threads are queued there, for this address or
 * another one that falls into the same cell. Inline code looks at it to see that nobody can be waiting.
 *
 * State table of a cell:
 *   bits 0 to 30   threads queued in the bucket        changed under the bucket's lock, before and after a thread is queued
 *   bit 31         PYRT_PARKED_ALWAYS: go and look     set when the kernel refuses membarrier, or while locks are watched
 *                                                      (lock_debug.h); makes every unlock take the long way
 */
#ifndef PYRUNTIME_PARKING_LOT_H
#define PYRUNTIME_PARKING_LOT_H

#include "atomic.h"
#include "status.h"

PYRT_BEGIN_DECLS

/* cdef: begin */
/* How to wait; also the flags of the timed forms of the locks. */
enum {
    PYRT_LOCK_DETACH = 0,        /* the attached state is detached while the thread sleeps: pauses and readers go on */
    PYRT_LOCK_NO_DETACH = 1,     /* it stays attached and holds them up: only for locks that are held for moments */
    PYRT_LOCK_INTERRUPTIBLE = 2, /* a signal handler that ran ends the wait with PYRT_EINTR */
    PYRT_PARK_FRONT = 4          /* parking only: into the queue at its head, by a thread that had been woken in vain */
};
/* cdef: end */

enum { PYRT_PARKING_CELLS = 1024 };
#define PYRT_PARKED_ALWAYS 0x80000000u

#if defined(PYRT_USE_CAPI)
#    define PYRT_PARKING_CELL_TABLE (pyrt_capi_pointer->parking_cells)
#else
extern uint32_t pyrt_parking_cells[PYRT_PARKING_CELLS];
#    define PYRT_PARKING_CELL_TABLE pyrt_parking_cells
#endif

/* The cell, and bucket, of an address: the top bits of a multiplication, which every bit of the address reaches. */
static inline size_t
pyrt_parking_index(const void *address)
{
    return (size_t)(((uint64_t)(uintptr_t)address * 0x9E3779B97F4A7C15u) >> 54);
}

/* Not zero if somebody may be parked on the address. relaxed: the caller has its own argument why it cannot miss one.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
static inline uint32_t
pyrt_parked_near(const void *address)
{
    return pyrt_load_relaxed(&PYRT_PARKING_CELL_TABLE[pyrt_parking_index(address)]);
}

/* cdef: begin */
/* Parks the calling thread on an address until it is unparked.
 *
 *   validate      (or NULL) is called with the bucket locked. False: it need not wait any more, PYRT_EBUSY.
 *   before_sleep  (or NULL) is called when the thread is queued, with no lock held, before anything is detached. False: it
 *                 leaves the queue, PYRT_EBUSY. Not called again when a wait goes on after a spurious wake-up.
 *   arg           goes to both, and to the callback of who unparks it.
 *   timeout_ns    0: does not sleep, PYRT_ETIMEDOUT; negative: for ever.
 *   flags         PYRT_LOCK_... and PYRT_PARK_FRONT.
 *   token         (or NULL) receives, with PYRT_OK, what the unparker has handed over.
 *
 * PYRT_OK: unparked. PYRT_ETIMEDOUT, PYRT_EINTR: not unparked and not queued any more. PYRT_EINVAL: unknown flags. A thread
 * that is chosen by an unparker while its time runs out counts as unparked. The block hooks (block.h) are called around the
 * sleep, when the thread is queued resp. not queued any more, detached unless PYRT_LOCK_NO_DETACH. Not in a child that was
 * forked in before_sleep or a block hook: nobody is parked there. Inside a counted read-side section it is reported, and
 * the thread waits without being detached.
 * blocks: yes · allocates: no · runs user code: validate, before_sleep · quiescent: may · needs attached: no ·
 * async-signal-safe: no */
pyrt_status pyrt_park(const void *address, bool (*validate)(void *arg), bool (*before_sleep)(void *arg), void *arg,
                      int64_t timeout_ns, unsigned flags, uintptr_t *token);

/* What the callback of pyrt_unpark_one is told, with the bucket locked. */
typedef struct pyrt_unparked {
    bool found;         /* a thread was queued on the address; it is not any more, and will be woken */
    bool more;          /* others are queued on it still: exact, not an estimate */
    void *waiter;       /* the `arg` that the thread parked with, valid during the callback */
    int64_t since;      /* when it began to wait, in nanoseconds of CLOCK_MONOTONIC; 0: it parked at the head */
} pyrt_unparked;

/* Unparks the thread that is first in the queue of the address. The callback (or NULL) is called in any case, and what it
 * answers is the token of the woken thread. It must not park, unpark or run foreign code. True if there was one.
 * blocks: shortly · allocates: no · runs user code: the callback · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
bool pyrt_unpark_one(const void *address, uintptr_t (*callback)(const pyrt_unparked *, void *arg), void *arg);

/* Unparks all, with the same token; answers how many.
 * blocks: shortly · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
size_t pyrt_unpark_all(const void *address, uintptr_t token);

typedef struct pyrt_requeued {
    size_t woken, moved;
} pyrt_requeued;

/* Unparks the first `wake` threads of `from` with `token` and moves up to `move` of the others to the end of the queue of
 * `to`, in order. `validate` (or NULL) is called with both buckets locked; false: nothing happens.
 * blocks: shortly · allocates: no · runs user code: validate · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
pyrt_requeued pyrt_requeue(const void *from, const void *to, size_t wake, size_t move, uintptr_t token,
                           bool (*validate)(void *arg), void *arg);

/* How many are parked on the address at this moment.
 * blocks: shortly · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
size_t pyrt_parked_count(const void *address);
/* cdef: end */

/* Reports `function`, and says so, if this OS thread is inside a counted read-side section: the wait would be its end.
 * Debug builds ask it in the inline functions that may wait, also when they need not.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
bool pyrt_park_is_reading(const char *function);

PYRT_END_DECLS
#endif /* PYRUNTIME_PARKING_LOT_H */
