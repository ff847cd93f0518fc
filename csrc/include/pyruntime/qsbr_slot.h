/* SPDX-License-Identifier: MIT
 *
 * qsbr_slot.h -- one thread's place in quiescent-state based reclamation (QSBR): the word that says whether it may be
 * looking at shared memory, and since when.
 *
 * The scheme is that of FreeBSD's "global unbounded sequences", as CPython's free-threaded build uses it. There is one
 * write sequence in the process. It is odd, starts at PYRT_QSBR_INITIAL and grows in steps of PYRT_QSBR_STEP. Who has
 * unlinked something advances the sequence and gets a goal. An attached thread copies the sequence into its word whenever
 * it holds no reference to shared memory: it is then *quiescent*. The goal is reached when no word is odd and older.
 *
 * State table of `word`. It is the thread's state as well: one read-modify-write attaches the thread and puts it online.
 *
 *   value            state          who sets it                                      who leaves it
 *   0                DETACHED       the owner, on detach (release store)             the owner (compare-and-swap to odd), or
 *                                                                                    another thread (compare-and-swap to 2)
 *   odd              ATTACHED       the owner only; the sequence last copied         the owner only
 *   2                SUSPENDED      a pause or a borrower, under the interpreter's   whoever set it, under the same lock, back
 *                                   lock; the owner when it parks, same lock         to 0
 *   6                SUSPENDED and  the owner, before it sleeps (2 -> 6)             as 2; the one who leaves it wakes the owner
 *                    waited for
 *   4                SHUTTING_DOWN  the owner at the end of its life, same lock;     nobody: the slot is handed out anew with 0
 *                                   the child of a fork, for threads it lost
 *
 * State table of `flags`: what is asked of the thread. Set by read-modify-write by anybody who holds the lock named, cleared
 * by the owner when it has answered.
 *
 *   bit                  asked for                                    set under             answered at
 *   PYRT_FLAG_STOP       park: the world is to stop                   interpreter lock      safepoint, detach
 *   PYRT_FLAG_WAKE       wake the sleepers of the domain when passed  no lock               quiescent state, detach
 *   PYRT_FLAG_COLLECT    hand over the retire queue for a barrier     interpreter lock      safepoint, detach
 *   PYRT_FLAG_RETIRE     work off the own retire queue, and give      by the owner, or      safepoint
 *                        back what heaps need no more                 interpreter lock
 *   PYRT_FLAG_MERGE      merge and destroy objects that wait for it   no lock               safepoint; detach merges only
 */
#ifndef PYRUNTIME_QSBR_SLOT_H
#define PYRUNTIME_QSBR_SLOT_H

#include "atomic.h"

PYRT_BEGIN_DECLS

/* cdef: begin */
enum {
    PYRT_STATE_DETACHED = 0,
    PYRT_STATE_ATTACHED = 1, /* what pyrt_thread_info says of an attached thread; in the word itself any odd number */
    PYRT_STATE_SUSPENDED = 2,
    PYRT_STATE_SHUTTING_DOWN = 4
};
/* cdef: end */

#define PYRT_STATE_SUSPENDED_WAITED 6

#define PYRT_QSBR_INITIAL 1
#define PYRT_QSBR_STEP 2

#define PYRT_FLAG_STOP 1u
#define PYRT_FLAG_WAKE 2u
#define PYRT_FLAG_COLLECT 4u
#define PYRT_FLAG_RETIRE 8u
#define PYRT_FLAG_MERGE 16u
#define PYRT_FLAGS_OF_OTHERS (PYRT_FLAG_STOP | PYRT_FLAG_WAKE | PYRT_FLAG_COLLECT | PYRT_FLAG_MERGE)

/* 64 bytes, a cache line of its own. A slot never moves and is not freed before its domain is, so that a scan needs no
 * lock. Inline code reads the fields in front; their offsets are part of the ABI. */
typedef struct PYRT_ALIGNED(64) pyrt_qsbr_slot {
    uint64_t word;                   /* see the table above */
    const uint64_t *sequence;        /* the write sequence of the process; never changes */
    uint32_t flags;                  /* see the table above */
    uint32_t read_depth;             /* owner only: open read-side sections that were counted (debug builds, Python) */
    struct pyrt_qsbr_slot *next;     /* all slots of the domain, newest first; never changes once linked */
    uint64_t reserved[4];
} pyrt_qsbr_slot;

PYRT_STATIC_ASSERT(sizeof(pyrt_qsbr_slot) == 64, "a slot is one cache line");
PYRT_STATIC_ASSERT(offsetof(pyrt_qsbr_slot, word) == 0, "inline code of embedding extensions reads it there");
PYRT_STATIC_ASSERT(offsetof(pyrt_qsbr_slot, sequence) == 8, "inline code of embedding extensions reads it there");
PYRT_STATIC_ASSERT(offsetof(pyrt_qsbr_slot, flags) == 16, "inline code of embedding extensions reads it there");
PYRT_STATIC_ASSERT(offsetof(pyrt_qsbr_slot, read_depth) == 20, "inline code of embedding extensions reads it there");

PYRT_END_DECLS
#endif /* PYRUNTIME_QSBR_SLOT_H */
