/* striped_lock.c -- making the table, and taking several of its stripes in one order.
 *
 * Invariant: whoever waits for a stripe holds none behind it in the table. The keys of a call come in any order and may
 * share stripes, so they are walked through in windows of the table: a bitmap of one window is filled from all keys, then
 * its bits are taken in order. That needs a fixed piece of the stack for any number of keys, and unlocking and undoing walk
 * the same way.
 */
#include "platform/futex.h"
#include "platform/meta_alloc.h"
#include "platform/report.h"

#include <pyruntime/lock_debug.h>
#include <pyruntime/striped_lock.h>

#include <string.h>

enum { WINDOW = 1024, WORD = 64, WORDS = WINDOW / WORD };

#define FLAGS ((unsigned)(PYRT_LOCK_NO_DETACH | PYRT_LOCK_INTERRUPTIBLE))

/* ---- the table ------------------------------------------------------------------------------------------------------- */

static size_t
round_up(size_t stripes)
{
    size_t rounded = 1;
    while (rounded < stripes) {
        rounded *= 2;
    }
    return rounded;
}

size_t
pyrt_striped_lock_bytes(size_t stripes, uint32_t flags)
{
    if (stripes == 0 || stripes > PYRT_STRIPES_MAX || (flags & ~(uint32_t)PYRT_STRIPES_APART) != 0) {
        return 0;
    }
    if ((flags & PYRT_STRIPES_APART) != 0) {
        return round_up(stripes) * sizeof(pyrt_stripe);
    }
    /* The counts come first, so that they are aligned. */
    return round_up(stripes) * (sizeof(uint64_t) + sizeof(pyrt_mutex));
}

pyrt_status
pyrt_striped_lock_init_config(pyrt_striped_lock *lock, const pyrt_striped_lock_config *config)
{
    memset(lock, 0, sizeof(*lock));
    if (config->struct_size != sizeof(*config)) {
        return PYRT_EINVAL;
    }
    size_t bytes = pyrt_striped_lock_bytes(config->stripes, config->flags);
    bool apart = (config->flags & PYRT_STRIPES_APART) != 0;
    if (bytes == 0) {
        return PYRT_EINVAL;
    }
    char *memory = config->memory;
    if (memory == NULL) {
        /* Zeroed, and aligned to a line at least. */
        memory = pyrt_meta_alloc(bytes);
        if (memory == NULL) {
            return PYRT_ENOMEM;
        }
        lock->own_bytes = bytes;
    }
    else {
        size_t alignment = apart ? PYRT_STRIPE_LINE : sizeof(uint64_t);
        if (config->memory_bytes < bytes || ((uintptr_t)memory & (alignment - 1)) != 0) {
            return PYRT_EINVAL;
        }
        memset(memory, 0, bytes);
    }
    size_t stripes = round_up(config->stripes);
    lock->mask = (uint32_t)(stripes - 1);
    lock->hash_shift = stripes == 1 ? 63 : (uint8_t)(__builtin_clzll((unsigned long long)stripes) + 1);
    lock->mutex_shift = apart ? 6 : 0;
    lock->waits_shift = apart ? 6 : 3;
    lock->mutexes = apart ? memory + offsetof(pyrt_stripe, mutex) : memory + stripes * sizeof(uint64_t);
    lock->waits = apart ? memory + offsetof(pyrt_stripe, waits) : memory;
    return PYRT_OK;
}

pyrt_status
pyrt_striped_lock_init(pyrt_striped_lock *lock, size_t stripes)
{
    pyrt_striped_lock_config config = {.struct_size = sizeof(config), .stripes = stripes};
    return pyrt_striped_lock_init_config(lock, &config);
}

void
pyrt_striped_lock_fini(pyrt_striped_lock *lock)
{
    if (lock->mutexes == NULL) {
        return;
    }
    size_t stripes = pyrt_striped_lock_stripes(lock);
    for (size_t i = 0; i < stripes; i++) {
        if (pyrt_mutex_is_locked(pyrt_striped_lock_mutex(lock, i))) {
            pyrt_report("pyrt_striped_lock_fini: stripe %zu of %zu is locked; unlock it first", i, stripes);
            return;
        }
    }
    /* Names, and what was found out while locks are watched. */
    pyrt_lock_forget(lock->mutexes, stripes << lock->mutex_shift);
    if (lock->own_bytes != 0) {
        /* The counts of stripes that lie close together stand in front of them. */
        pyrt_meta_free(lock->mutex_shift == 0 ? lock->waits : lock->mutexes, lock->own_bytes);
    }
    memset(lock, 0, sizeof(*lock));
}

void
pyrt_striped_lock_at_fork_reinit(pyrt_striped_lock *lock)
{
    for (size_t i = 0; lock->mutexes != NULL && i < pyrt_striped_lock_stripes(lock); i++) {
        pyrt_mutex_at_fork_reinit(pyrt_striped_lock_mutex(lock, i));
    }
}

pyrt_status
pyrt_striped_lock_name(pyrt_striped_lock *lock, const char *name)
{
    return pyrt_lock_name_array(lock->mutexes, pyrt_striped_lock_stripes(lock), (size_t)1 << lock->mutex_shift, name);
}

/* ---- one stripe ------------------------------------------------------------------------------------------------------ */

static uint64_t *
waits_of(const pyrt_striped_lock *lock, size_t stripe)
{
    return (uint64_t *)(void *)((char *)lock->waits + (stripe << lock->waits_shift));
}

/* What the lock found when it could not be taken at once. */
static void
count_wait(pyrt_striped_lock *lock, size_t stripe, uint8_t found)
{
    /* Free, but watched: that is no wait. relaxed: a count and nothing else. */
    if ((found & PYRT_MUTEX_LOCKED) != 0) {
        pyrt_fetch_add_relaxed(waits_of(lock, stripe), (uint64_t)1);
    }
}

void
pyrt_striped_lock_slow(pyrt_striped_lock *lock, size_t stripe)
{
    pyrt_mutex *mutex = pyrt_striped_lock_mutex(lock, stripe);
    count_wait(lock, stripe, pyrt_load_relaxed(&mutex->state));
    pyrt_mutex_lock(mutex);
}

static pyrt_status
lock_stripe(pyrt_striped_lock *lock, size_t stripe, int64_t deadline, unsigned flags)
{
    pyrt_mutex *mutex = pyrt_striped_lock_mutex(lock, stripe);
    uint8_t found = PYRT_MUTEX_UNLOCKED;
    /* acquire: as in pyrt_mutex_lock. */
    if (pyrt_cas_acquire(&mutex->state, &found, (uint8_t)PYRT_MUTEX_LOCKED)) {
        return PYRT_OK;
    }
    if (deadline == INT64_MAX) {
        count_wait(lock, stripe, found);
        return pyrt_mutex_lock_timed(mutex, -1, flags);
    }
    int64_t left = deadline - pyrt_now_ns();
    if (left > 0) {
        count_wait(lock, stripe, found);
    }
    return pyrt_mutex_lock_timed(mutex, left > 0 ? left : 0, flags);
}

/* ---- the stripes of several keys, in order -------------------------------------------------------------------------- */

/* Keys are given as addresses or as hashes; the other is NULL. */
typedef struct key_set {
    const void *const *keys;
    const uint64_t *hashes;
    size_t n;
} key_set;

static bool
has_keys(const key_set *set)
{
    return set->n == 0 || set->keys != NULL || set->hashes != NULL;
}

typedef struct stripe_walk {
    const pyrt_striped_lock *lock;
    const key_set *set;
    size_t window;      /* the one that the bits are of */
    size_t next_window; /* the first one behind it with a key in it, or SIZE_MAX */
    size_t word;        /* the first one that may have a bit left */
    size_t words;
    uint64_t bits[WORDS];
} stripe_walk;

static void
fill_window(stripe_walk *walk, size_t window)
{
    memset(walk->bits, 0, walk->words * sizeof(uint64_t));
    walk->window = window;
    walk->next_window = SIZE_MAX;
    walk->word = 0;
    const key_set *set = walk->set;
    for (size_t i = 0; i < set->n; i++) {
        uint64_t hash = set->hashes != NULL ? set->hashes[i] : (uint64_t)(uintptr_t)set->keys[i];
        size_t stripe = pyrt_striped_lock_stripe(walk->lock, hash);
        if (stripe / WINDOW == window) {
            walk->bits[stripe % WINDOW / WORD] |= (uint64_t)1 << (stripe % WORD);
        }
        else if (stripe / WINDOW > window && stripe / WINDOW < walk->next_window) {
            walk->next_window = stripe / WINDOW;
        }
    }
}

static void
walk_begin(stripe_walk *walk, const pyrt_striped_lock *lock, const key_set *set)
{
    size_t stripes = pyrt_striped_lock_stripes(lock);
    walk->lock = lock;
    walk->set = set;
    walk->words = stripes >= WINDOW ? WORDS : (stripes + WORD - 1) / WORD;
    fill_window(walk, 0);
}

/* The next stripe, each once and in rising order; false: there is none. */
static bool
walk_next(stripe_walk *walk, size_t *stripe)
{
    for (;;) {
        for (; walk->word < walk->words; walk->word++) {
            uint64_t bits = walk->bits[walk->word];
            if (bits != 0) {
                walk->bits[walk->word] = bits & (bits - 1);
                *stripe = walk->window * WINDOW + walk->word * WORD + (size_t)__builtin_ctzll(bits);
                return true;
            }
        }
        if (walk->next_window == SIZE_MAX) {
            return false;
        }
        fill_window(walk, walk->next_window);
    }
}

/* Unlocks the stripes of a set that stand in front of `end`. */
static void
unlock_set(pyrt_striped_lock *lock, const key_set *set, size_t end)
{
    if (!has_keys(set)) {
        pyrt_report("pyrt_striped_unlock: keys is NULL, but n is %zu; pass what was locked", set->n);
        return;
    }
    stripe_walk walk;
    size_t stripe;
    walk_begin(&walk, lock, set);
    while (walk_next(&walk, &stripe) && stripe < end) {
        pyrt_mutex_unlock(pyrt_striped_lock_mutex(lock, stripe));
    }
}

static pyrt_status
lock_set(pyrt_striped_lock *lock, const key_set *set, int64_t timeout_ns, unsigned flags)
{
    if (!has_keys(set) || (flags & ~FLAGS) != 0) {
        return PYRT_EINVAL;
    }
    int64_t deadline = pyrt_deadline_after(timeout_ns);
    stripe_walk walk;
    size_t stripe;
    walk_begin(&walk, lock, set);
    while (walk_next(&walk, &stripe)) {
        pyrt_status status = lock_stripe(lock, stripe, deadline, flags);
        if (status != PYRT_OK) {
            unlock_set(lock, set, stripe);
            return status;
        }
    }
    return PYRT_OK;
}

static bool
trylock_set(pyrt_striped_lock *lock, const key_set *set)
{
    if (!has_keys(set)) {
        return false;
    }
    stripe_walk walk;
    size_t stripe;
    walk_begin(&walk, lock, set);
    while (walk_next(&walk, &stripe)) {
        if (!pyrt_mutex_trylock(pyrt_striped_lock_mutex(lock, stripe))) {
            unlock_set(lock, set, stripe);
            return false;
        }
    }
    return true;
}

pyrt_status
pyrt_striped_lock_keys(pyrt_striped_lock *lock, const void *const *keys, size_t n)
{
    return pyrt_striped_lock_keys_timed(lock, keys, n, -1, PYRT_LOCK_DETACH);
}

pyrt_status
pyrt_striped_lock_hashes(pyrt_striped_lock *lock, const uint64_t *hashes, size_t n)
{
    return pyrt_striped_lock_hashes_timed(lock, hashes, n, -1, PYRT_LOCK_DETACH);
}

pyrt_status
pyrt_striped_lock_keys_timed(pyrt_striped_lock *lock, const void *const *keys, size_t n, int64_t timeout_ns, unsigned flags)
{
    key_set set = {keys, NULL, n};
    return lock_set(lock, &set, timeout_ns, flags);
}

pyrt_status
pyrt_striped_lock_hashes_timed(pyrt_striped_lock *lock, const uint64_t *hashes, size_t n, int64_t timeout_ns, unsigned flags)
{
    key_set set = {NULL, hashes, n};
    return lock_set(lock, &set, timeout_ns, flags);
}

bool
pyrt_striped_trylock_keys(pyrt_striped_lock *lock, const void *const *keys, size_t n)
{
    key_set set = {keys, NULL, n};
    return trylock_set(lock, &set);
}

bool
pyrt_striped_trylock_hashes(pyrt_striped_lock *lock, const uint64_t *hashes, size_t n)
{
    key_set set = {NULL, hashes, n};
    return trylock_set(lock, &set);
}

void
pyrt_striped_unlock_keys(pyrt_striped_lock *lock, const void *const *keys, size_t n)
{
    key_set set = {keys, NULL, n};
    unlock_set(lock, &set, SIZE_MAX);
}

void
pyrt_striped_unlock_hashes(pyrt_striped_lock *lock, const uint64_t *hashes, size_t n)
{
    key_set set = {NULL, hashes, n};
    unlock_set(lock, &set, SIZE_MAX);
}

/* ---- all stripes ---------------------------------------------------------------------------------------------------- */

static void
unlock_first(pyrt_striped_lock *lock, size_t end)
{
    for (size_t i = 0; i < end; i++) {
        pyrt_mutex_unlock(pyrt_striped_lock_mutex(lock, i));
    }
}

pyrt_status
pyrt_striped_lock_all_timed(pyrt_striped_lock *lock, int64_t timeout_ns, unsigned flags)
{
    if ((flags & ~FLAGS) != 0) {
        return PYRT_EINVAL;
    }
    int64_t deadline = pyrt_deadline_after(timeout_ns);
    for (size_t i = 0; i < pyrt_striped_lock_stripes(lock); i++) {
        pyrt_status status = lock_stripe(lock, i, deadline, flags);
        if (status != PYRT_OK) {
            unlock_first(lock, i);
            return status;
        }
    }
    return PYRT_OK;
}

pyrt_status
pyrt_striped_lock_all(pyrt_striped_lock *lock)
{
    return pyrt_striped_lock_all_timed(lock, -1, PYRT_LOCK_DETACH);
}

bool
pyrt_striped_trylock_all(pyrt_striped_lock *lock)
{
    for (size_t i = 0; i < pyrt_striped_lock_stripes(lock); i++) {
        if (!pyrt_mutex_trylock(pyrt_striped_lock_mutex(lock, i))) {
            unlock_first(lock, i);
            return false;
        }
    }
    return true;
}

void
pyrt_striped_unlock_all(pyrt_striped_lock *lock)
{
    unlock_first(lock, pyrt_striped_lock_stripes(lock));
}

/* ---- statistics ----------------------------------------------------------------------------------------------------- */

uint64_t
pyrt_striped_lock_waits(const pyrt_striped_lock *lock, size_t stripe)
{
    /* relaxed: as where it is counted. */
    return stripe < pyrt_striped_lock_stripes(lock) ? pyrt_load_relaxed(waits_of(lock, stripe)) : 0;
}

pyrt_status
pyrt_striped_lock_stats_read(const pyrt_striped_lock *lock, pyrt_striped_lock_stats *out)
{
    if (out == NULL || out->struct_size != sizeof(*out)) {
        return PYRT_EINVAL;
    }
    pyrt_striped_lock_stats stats = {.struct_size = sizeof(stats), .stripes = lock->mask + 1};
    for (size_t i = 0; i < stats.stripes; i++) {
        uint64_t waits = pyrt_striped_lock_waits(lock, i);
        stats.waits += waits;
        stats.locked += pyrt_mutex_is_locked(pyrt_striped_lock_mutex(lock, i));
        if (waits > stats.worst_waits) {
            stats.worst_waits = waits;
            stats.worst = (uint32_t)i;
        }
    }
    *out = stats;
    return PYRT_OK;
}
