/* SPDX-License-Identifier: MIT
 *
 * backoff.h -- the 16-bit counter that says when something adaptive is worth trying, and waits longer after each failure.
 *
 * A counter counts down; at zero it *triggers*. Who then tries and fails restarts it, and it counts from a higher value, up to
 * 8191 steps; who tries and succeeds sets it as suits him. It is two small numbers in one word, so that the question whether it
 * triggers is one compare:
 *
 *      15                              3 2       0
 *      +--------------------------------+---------+
 *      |     value, counts down to 0    | backoff |        backoff 0 to 6: how far it has come; 7: it never triggers
 *      +--------------------------------+---------+
 *
 * A counter triggers when its word is below 7: the value is 0 and the backoff is not 7. Restart chooses the value by the
 * backoff before: about 2^(2 * backoff + 1) steps, and always a prime number of them, so that no loop of the program that
 * is being watched falls into step with the counter.
 *
 * The functions take and give counters by value. One that several threads share is loaded and stored, relaxed; there is no
 * read-modify-write, because a step that is lost does no harm.
 *
 * No function here blocks, allocates or runs user code; none is quiescent or needs attached; all are async-signal-safe.
 */
#ifndef PYRUNTIME_BACKOFF_H
#define PYRUNTIME_BACKOFF_H

#include "atomic.h"

PYRT_BEGIN_DECLS

/* cdef: begin */
typedef struct pyrt_backoff_counter {
    uint16_t word;
} pyrt_backoff_counter;

enum {
    PYRT_BACKOFF_MAX = 6,          /* the highest backoff of a counter that triggers */
    PYRT_BACKOFF_UNREACHABLE = 7,  /* the backoff of one that does not */
    PYRT_BACKOFF_VALUE_MAX = 8191
};

/* Where counters begin: {value, backoff}. Of what is tried when it is executed a second time; after a success, which so lives
 * through 52 failures before it is tried anew as if at first; of loops, and of exits out of compiled code. */
enum {
    PYRT_BACKOFF_WARMUP_VALUE = 1,
    PYRT_BACKOFF_WARMUP_BACKOFF = 1,
    PYRT_BACKOFF_COOLDOWN_VALUE = 52,
    PYRT_BACKOFF_COOLDOWN_BACKOFF = 0,
    PYRT_BACKOFF_JUMP_VALUE = 4000,
    PYRT_BACKOFF_JUMP_BACKOFF = 6,
    PYRT_BACKOFF_EXIT_VALUE = 4000,
    PYRT_BACKOFF_EXIT_BACKOFF = 6
};
/* cdef: end */

PYRT_STATIC_ASSERT((int)PYRT_BACKOFF_EXIT_VALUE > (int)PYRT_BACKOFF_COOLDOWN_VALUE,
                   "an exit must not be tried before what it leads to has had the time to adapt");

#define PYRT_BACKOFF_BITS 3
#define PYRT_BACKOFF_STEP (1u << PYRT_BACKOFF_BITS)

/* A counter with this value, 0 to PYRT_BACKOFF_VALUE_MAX, and backoff, 0 to PYRT_BACKOFF_UNREACHABLE; of larger numbers the
 * low bits. */
static inline pyrt_backoff_counter
pyrt_backoff_make(unsigned value, unsigned backoff)
{
    pyrt_backoff_counter counter = {(uint16_t)(value << PYRT_BACKOFF_BITS | (backoff & (PYRT_BACKOFF_STEP - 1)))};
    return counter;
}

static inline unsigned
pyrt_backoff_value(pyrt_backoff_counter counter)
{
    return counter.word >> PYRT_BACKOFF_BITS;
}

static inline unsigned
pyrt_backoff_backoff(pyrt_backoff_counter counter)
{
    return counter.word & (PYRT_BACKOFF_STEP - 1);
}

/* A counter that never triggers, whatever is done to it; and whether one is such. */
static inline pyrt_backoff_counter
pyrt_backoff_unreachable(void)
{
    return pyrt_backoff_make(0, PYRT_BACKOFF_UNREACHABLE);
}

static inline bool
pyrt_backoff_is_unreachable(pyrt_backoff_counter counter)
{
    return pyrt_backoff_backoff(counter) == PYRT_BACKOFF_UNREACHABLE;
}

/* Whether it is time to try. */
static inline bool
pyrt_backoff_triggers(pyrt_backoff_counter counter)
{
    return counter.word < PYRT_BACKOFF_UNREACHABLE;
}

/* One step nearer. Of a counter that triggers, and was neither restarted nor set, the value starts over from its highest; the
 * backoff stays in every case, and with it what is unreachable. */
static inline pyrt_backoff_counter
pyrt_backoff_advance(pyrt_backoff_counter counter)
{
    counter.word = (uint16_t)(counter.word - PYRT_BACKOFF_STEP);
    return counter;
}

/* It does not trigger now: if it would have, it will at the next step. */
static inline pyrt_backoff_counter
pyrt_backoff_pause(pyrt_backoff_counter counter)
{
    counter.word = (uint16_t)(counter.word | PYRT_BACKOFF_STEP);
    return counter;
}

/* After a failure: the next, higher backoff, and the value that goes with it. What is unreachable stays so. */
static inline pyrt_backoff_counter
pyrt_backoff_restart(pyrt_backoff_counter counter)
{
    /* By the backoff before. One more than each value is a prime. */
    static const uint16_t after[PYRT_BACKOFF_UNREACHABLE + 1] = {
        1 << PYRT_BACKOFF_BITS | 1,    6 << PYRT_BACKOFF_BITS | 2,   30 << PYRT_BACKOFF_BITS | 3,
        126 << PYRT_BACKOFF_BITS | 4,  508 << PYRT_BACKOFF_BITS | 5, 2052 << PYRT_BACKOFF_BITS | 6,
        8190 << PYRT_BACKOFF_BITS | 6, PYRT_BACKOFF_UNREACHABLE,
    };
    counter.word = after[pyrt_backoff_backoff(counter)];
    return counter;
}

/* A counter that triggers at once. */
static inline pyrt_backoff_counter
pyrt_backoff_trigger(void)
{
    return pyrt_backoff_make(0, 0);
}

/* Of a counter that several threads look at. relaxed: nothing else is learned from it. */
static inline pyrt_backoff_counter
pyrt_backoff_load(const pyrt_backoff_counter *counter)
{
    pyrt_backoff_counter loaded = {pyrt_load_relaxed(&counter->word)};
    return loaded;
}

static inline void
pyrt_backoff_store(pyrt_backoff_counter *counter, pyrt_backoff_counter value)
{
    pyrt_store_relaxed(&counter->word, value.word);
}

PYRT_END_DECLS
#endif /* PYRUNTIME_BACKOFF_H */
