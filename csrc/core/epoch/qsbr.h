/* qsbr.h -- the write sequence of the process and the domains of readers on it. Knows slots, not threads.
 *
 * The argument, in one place. Goal G is safe when whatever was unlinked before the advance to G can be reached by nobody.
 *
 *      writer                                  scanner (any thread)                    reader
 *      U: unlink                               L: load sequence, acquire; sees >= G    C: compare-and-swap word, seq_cst
 *      A: fetch_add sequence, seq_cst -> G     S: load word, seq_cst                   P: load the shared pointer
 *
 * The scan calls G safe only if S finds the word even (offline), or odd and not before G.
 *   - Odd and not before G: the reader loaded that value of the sequence with acquire, so it has seen A and U with it; what
 *     it reached earlier it gave up before the release store of the word that S read.
 *   - Even: S did not see C, so C comes after S. A is a read-modify-write, hence U is visible to everybody by the time that
 *     A is; L sees A, S follows L, C follows S, P follows C (a full barrier): P sees U.
 * The scan needs no barrier of its own because the advance always is one: a goal is never given out without an advance.
 */
#ifndef PYRT_EPOCH_QSBR_H
#define PYRT_EPOCH_QSBR_H

#include <pyruntime/qsbr_slot.h>

/* The sequence on its own cache line: every quiescent state reads it, only an advance writes it. */
typedef struct PYRT_ALIGNED(64) pyrt_qsbr_sequence_line {
    uint64_t value;
} pyrt_qsbr_sequence_line;

extern pyrt_qsbr_sequence_line pyrt_qsbr_sequence;

typedef struct PYRT_ALIGNED(64) pyrt_qsbr_domain {
    /* Every goal up to here has been passed by all. Raised by scans, never lowered. */
    uint64_t reached;
    /* All slots ever added, newest first; a slot that is out of use stays, with an even word. Added to under the owner's
     * lock, walked without one. */
    pyrt_qsbr_slot *slots;
    /* Counts wake-ups; sleepers wait for it to change. */
    uint32_t wakeups;
    /* The oldest goal that a scan found unreached, and since when it waits; watched while it is ahead of `reached`. */
    uint64_t watched_goal;
    int64_t watched_since;
} pyrt_qsbr_domain;

/* Wrap-safe: whether sequence a is older than b. */
static inline bool
pyrt_qsbr_before(uint64_t a, uint64_t b)
{
    return (int64_t)(a - b) < 0;
}

void pyrt_qsbr_domain_init(pyrt_qsbr_domain *domain);

/* Puts the sequence somewhere else, for a test of its wrap; odd, and only while no domain exists. */
void pyrt_qsbr_sequence_start(uint64_t value);

/* The next goal. */
uint64_t pyrt_qsbr_sequence_advance(void);

/* Adds a slot for good, with whatever word it has. The caller holds the owner's lock. */
void pyrt_qsbr_add_slot(pyrt_qsbr_domain *domain, pyrt_qsbr_slot *slot);

/* Whether a goal is known to be reached; looks at nobody. */
static inline bool
pyrt_qsbr_is_reached(const pyrt_qsbr_domain *domain, uint64_t goal)
{
    /* acquire: pairs with the release of the scan that raised it, which had seen the readers leave. */
    return !pyrt_qsbr_before(pyrt_load_acquire(&domain->reached), goal);
}

/* Looks at all readers, raises `reached`, and says whether the goal is reached. Lock-free. */
bool pyrt_qsbr_scan(pyrt_qsbr_domain *domain, uint64_t goal);

/* Watches a goal for the stall report, unless an older one is being watched. */
void pyrt_qsbr_watch(pyrt_qsbr_domain *domain, uint64_t goal);

/* The slot that is furthest behind the goal, or NULL. */
pyrt_qsbr_slot *pyrt_qsbr_furthest_behind(pyrt_qsbr_domain *domain, uint64_t goal);

/* The number of wake-ups so far: load it first, then look, then sleep on it. */
uint32_t pyrt_qsbr_wakeups(const pyrt_qsbr_domain *domain);

/* Sleeps until a goal is reached or the deadline (INT64_MAX: none) has passed; says whether it is reached. The calling
 * thread is offline in this domain. */
bool pyrt_qsbr_sleep(pyrt_qsbr_domain *domain, uint64_t goal, int64_t deadline);

/* Sleeps until the number of wake-ups is no longer the one given; false when the deadline has passed. */
bool pyrt_qsbr_sleep_on(const pyrt_qsbr_domain *domain, uint32_t wakeups, int64_t deadline);

/* Wakes all sleepers of the domain. */
void pyrt_qsbr_wake(pyrt_qsbr_domain *domain);

/* The owner of a slot answers PYRT_FLAG_WAKE, after its word has moved. */
void pyrt_qsbr_answer_wake(pyrt_qsbr_domain *domain, pyrt_qsbr_slot *slot);

/* The owner passes a quiescent state: publishes the newest sequence and answers who waits. */
static inline void
pyrt_qsbr_pass(pyrt_qsbr_domain *domain, pyrt_qsbr_slot *slot)
{
    /* acquire, release and the light barrier: as in pyrt_attach and pyrt_detach, of which this is both. */
    uint64_t sequence = pyrt_load_acquire(slot->sequence);
    if (pyrt_load_relaxed(&slot->word) != sequence) {
        pyrt_store_release(&slot->word, sequence);
    }
    pyrt_light_barrier();
    if (pyrt_unlikely(pyrt_load_relaxed(&slot->flags) & PYRT_FLAG_WAKE)) {
        pyrt_qsbr_answer_wake(domain, slot);
    }
}

#endif
