/* SPDX-License-Identifier: MIT
 *
 * striped_lock.h -- many locks for even more things: a fixed table of mutexes, in which an address or a hash finds its own.
 *
 * A thing needs no lock of its own if it can share one with others: its key chooses a *stripe*, and all keys of a stripe
 * exclude each other. Who holds one key must therefore not lock a second one on top of it, which may be the same stripe or
 * the other way round in another thread: it asks for both at once. The calls for several keys take their stripes in one
 * order, that of the table, each stripe once however many of the keys fall into it; so they cannot deadlock against each
 * other, nor against the calls for one key or for all.
 *
 * Guarantees:
 *   - A table has a power of two of stripes, at least one: what is asked for is rounded up.
 *   - A key's stripe never changes, and the table neither grows nor moves. What stands behind the keys can be resized with
 *     all stripes locked.
 *   - Locking allocates nothing and cannot fail half way, for any number of keys: when the time of a timed call runs out,
 *     what was locked is unlocked again.
 *   - The stripes are plain mutexes (mutex.h), with all that is said there: waiting is detached and fair.
 *   - Neighbouring objects, and hashes that count up, fall into different stripes as far as there are any.
 *
 * A stripe is a byte, 64 of them to a cache line, or has a line to itself (PYRT_STRIPES_APART): a thread that locks one then
 * does not slow down another that locks its neighbour. Apart is for tables that several threads use all the time.
 */
#ifndef PYRUNTIME_STRIPED_LOCK_H
#define PYRUNTIME_STRIPED_LOCK_H

#include "mutex.h"

PYRT_BEGIN_DECLS

/* cdef: begin */
enum {
    PYRT_STRIPES_APART = 1,   /* every stripe on a cache line of its own */
    PYRT_STRIPES_MAX = 1048576,
    PYRT_STRIPE_LINE = 64
};

/* Its fields are set once and are for the functions of this header. */
typedef struct pyrt_striped_lock {
    void *mutexes;       /* the mutex of stripe i stands (i << mutex_shift) bytes behind */
    void *waits;         /* how often stripe i was waited for, a uint64_t, (i << waits_shift) bytes behind */
    size_t own_bytes;    /* of memory to be freed at the end; 0: it is the user's */
    uint32_t mask;       /* stripes - 1 */
    uint8_t hash_shift;  /* leaves of 64 bits those that count the stripes; of one bit none is left by the mask */
    uint8_t mutex_shift; /* 0, or 6 apart */
    uint8_t waits_shift; /* 3, or 6 apart */
} pyrt_striped_lock;

typedef struct pyrt_striped_lock_config {
    uint32_t struct_size; /* sizeof(pyrt_striped_lock_config) */
    uint32_t flags;       /* PYRT_STRIPES_APART or 0 */
    size_t stripes;       /* 1 to PYRT_STRIPES_MAX, rounded up to a power of two */
    void *memory;         /* of the user, for as long as the table lives; NULL: the library's own */
    size_t memory_bytes;  /* of it, at least pyrt_striped_lock_bytes */
} pyrt_striped_lock_config;

typedef struct pyrt_striped_lock_stats {
    uint32_t struct_size; /* in: sizeof(pyrt_striped_lock_stats) */
    uint32_t stripes;
    uint32_t locked;      /* stripes that were locked when it came by */
    uint32_t worst;       /* the stripe that was waited for most */
    uint64_t worst_waits;
    uint64_t waits;       /* in all */
} pyrt_striped_lock_stats;

/* Makes a table of stripes that lie close together. Errors: PYRT_EINVAL for a number outside of 1 to PYRT_STRIPES_MAX;
 * PYRT_ENOMEM. Needs a pyrt_striped_lock_fini.
 * blocks: no · allocates: yes · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_striped_lock_init(pyrt_striped_lock *lock, size_t stripes);

/* The same as a configuration says. Errors: as above; PYRT_EINVAL for a wrong struct_size, unknown flags, or memory that is
 * too small or not aligned: to 8 bytes, or to PYRT_STRIPE_LINE apart.
 * blocks: no · allocates: yes, without memory of the user · runs user code: no · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
pyrt_status pyrt_striped_lock_init_config(pyrt_striped_lock *lock, const pyrt_striped_lock_config *config);

/* How many bytes such a table needs; 0 for a number of stripes or flags that there are not.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
size_t pyrt_striped_lock_bytes(size_t stripes, uint32_t flags);

/* Frees the memory that init took. A table with a locked stripe is in use: that is reported, and nothing is freed. Once
 * more, or on a zeroed struct, it does nothing.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
void pyrt_striped_lock_fini(pyrt_striped_lock *lock);

/* In the child of a fork, where the owners may be gone: all unlocked.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
void pyrt_striped_lock_at_fork_reinit(pyrt_striped_lock *lock);

/* Names its stripes "name[0]", "name[1]", ... for lock debugging, as pyrt_lock_name_array does; until fini.
 * blocks: shortly · allocates: yes · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_striped_lock_name(pyrt_striped_lock *lock, const char *name);

/* ---- several keys, all stripes -------------------------------------------------------------------------------------- */

/* Locks the stripes of n keys; doubles are fine, and so is n == 0. It waits as long as it takes. Errors, with nothing
 * locked: PYRT_EINVAL if keys is NULL and n is not 0; PYRT_EDEADLK as pyrt_mutex_lock_timed has it. Costs n steps for
 * each 1024 stripes among which keys are found.
 * blocks: yes · allocates: no · runs user code: no · quiescent: may · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_striped_lock_keys(pyrt_striped_lock *lock, const void *const *keys, size_t n);
pyrt_status pyrt_striped_lock_hashes(pyrt_striped_lock *lock, const uint64_t *hashes, size_t n);

/* The same within a time for all of them together, and with flags, as pyrt_mutex_lock_timed; its errors, with nothing
 * locked.
 * blocks: yes · allocates: no · runs user code: no · quiescent: may · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_striped_lock_keys_timed(pyrt_striped_lock *lock, const void *const *keys, size_t n, int64_t timeout_ns,
                                         unsigned flags);
pyrt_status pyrt_striped_lock_hashes_timed(pyrt_striped_lock *lock, const uint64_t *hashes, size_t n, int64_t timeout_ns,
                                           unsigned flags);

/* All of them if that is possible at once, else none.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
bool pyrt_striped_trylock_keys(pyrt_striped_lock *lock, const void *const *keys, size_t n);
bool pyrt_striped_trylock_hashes(pyrt_striped_lock *lock, const uint64_t *hashes, size_t n);

/* Unlocks what was locked with the same keys, in any order of them.
 * blocks: shortly, if somebody waits · allocates: no · runs user code: no · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
void pyrt_striped_unlock_keys(pyrt_striped_lock *lock, const void *const *keys, size_t n);
void pyrt_striped_unlock_hashes(pyrt_striped_lock *lock, const uint64_t *hashes, size_t n);

/* Every stripe: nobody else holds any key. For resizing what they guard, or for a snapshot of it. Errors as above.
 * blocks: yes · allocates: no · runs user code: no · quiescent: may · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_striped_lock_all(pyrt_striped_lock *lock);
pyrt_status pyrt_striped_lock_all_timed(pyrt_striped_lock *lock, int64_t timeout_ns, unsigned flags);

/* blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
bool pyrt_striped_trylock_all(pyrt_striped_lock *lock);

/* blocks: shortly, if somebody waits · allocates: no · runs user code: no · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
void pyrt_striped_unlock_all(pyrt_striped_lock *lock);

/* ---- statistics ----------------------------------------------------------------------------------------------------- */

/* How often a stripe was found locked by a call of this header that then waited. Counted by those who wait and read without
 * a lock: each stripe is exact, the sum is of no one moment. What is locked through pyrt_striped_lock_for is not counted. 0
 * for a stripe that there is not.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
uint64_t pyrt_striped_lock_waits(const pyrt_striped_lock *lock, size_t stripe);

/* PYRT_EINVAL if `out` is NULL or its struct_size wrong.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
pyrt_status pyrt_striped_lock_stats_read(const pyrt_striped_lock *lock, pyrt_striped_lock_stats *out);
/* cdef: end */

/* A table without init and fini, apart: at file scope, PYRT_STRIPED_LOCK_STATIC(name, 10); is one of 1024 stripes. */
typedef struct PYRT_ALIGNED(64) pyrt_stripe {
    pyrt_mutex mutex;
    uint64_t waits;
} pyrt_stripe;

PYRT_STATIC_ASSERT(sizeof(pyrt_stripe) == PYRT_STRIPE_LINE, "mutex_shift and waits_shift are 6");

#define PYRT_STRIPED_LOCK_STATIC(name, log2_of_stripes)                                    \
    static pyrt_stripe name##_stripes[1u << (log2_of_stripes)];                            \
    static pyrt_striped_lock name = {&name##_stripes[0].mutex,                             \
                                     &name##_stripes[0].waits,                             \
                                     0,                                                    \
                                     (1u << (log2_of_stripes)) - 1,                        \
                                     (log2_of_stripes) == 0 ? 63 : 64 - (log2_of_stripes), \
                                     6,                                                    \
                                     6}

/* The long way of the inline functions below; call those. */
void pyrt_striped_lock_slow(pyrt_striped_lock *lock, size_t stripe);

/* ---- one key -------------------------------------------------------------------------------------------------------- */

/* blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
static inline size_t
pyrt_striped_lock_stripes(const pyrt_striped_lock *lock)
{
    return (size_t)lock->mask + 1;
}

/* The stripe of a hash, 0 to stripes - 1: the top bits of a multiplication, which every bit of the hash reaches.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
static inline size_t
pyrt_striped_lock_stripe(const pyrt_striped_lock *lock, uint64_t hash)
{
    return (size_t)((hash * 0x9E3779B97F4A7C15u) >> lock->hash_shift) & lock->mask;
}

/* The mutex of a stripe.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
static inline pyrt_mutex *
pyrt_striped_lock_mutex(const pyrt_striped_lock *lock, size_t stripe)
{
    return (pyrt_mutex *)(void *)((char *)lock->mutexes + (stripe << lock->mutex_shift));
}

/* The mutex of a key, to be used like any other; of two of them at once the one with the lower address comes first.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
static inline pyrt_mutex *
pyrt_striped_lock_for_hash(pyrt_striped_lock *lock, uint64_t hash)
{
    return pyrt_striped_lock_mutex(lock, pyrt_striped_lock_stripe(lock, hash));
}

static inline pyrt_mutex *
pyrt_striped_lock_for(pyrt_striped_lock *lock, const void *key)
{
    return pyrt_striped_lock_for_hash(lock, (uint64_t)(uintptr_t)key);
}

/* Locks the stripe of a key; waits as long as it takes.
 * blocks: yes · allocates: no · runs user code: no · quiescent: may · needs attached: no · async-signal-safe: no */
static inline void
pyrt_striped_lock_hash(pyrt_striped_lock *lock, uint64_t hash)
{
    size_t stripe = pyrt_striped_lock_stripe(lock, hash);
    uint8_t unlocked = PYRT_MUTEX_UNLOCKED;
    /* acquire: as in pyrt_mutex_lock. Written out, because who finds it locked is counted. */
    if (pyrt_unlikely(
            !pyrt_cas_acquire(&pyrt_striped_lock_mutex(lock, stripe)->state, &unlocked, (uint8_t)PYRT_MUTEX_LOCKED))) {
        PYRT_CALL(striped_lock_slow)(lock, stripe);
    }
}

static inline void
pyrt_striped_lock_key(pyrt_striped_lock *lock, const void *key)
{
    pyrt_striped_lock_hash(lock, (uint64_t)(uintptr_t)key);
}

/* Locks it if that is possible at once.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
static inline bool
pyrt_striped_trylock_hash(pyrt_striped_lock *lock, uint64_t hash)
{
    return pyrt_mutex_trylock(pyrt_striped_lock_for_hash(lock, hash));
}

static inline bool
pyrt_striped_trylock_key(pyrt_striped_lock *lock, const void *key)
{
    return pyrt_mutex_trylock(pyrt_striped_lock_for(lock, key));
}

/* blocks: shortly, if somebody waits · allocates: no · runs user code: no · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
static inline void
pyrt_striped_unlock_hash(pyrt_striped_lock *lock, uint64_t hash)
{
    pyrt_mutex_unlock(pyrt_striped_lock_for_hash(lock, hash));
}

static inline void
pyrt_striped_unlock_key(pyrt_striped_lock *lock, const void *key)
{
    pyrt_mutex_unlock(pyrt_striped_lock_for(lock, key));
}

PYRT_END_DECLS
#endif /* PYRUNTIME_STRIPED_LOCK_H */
