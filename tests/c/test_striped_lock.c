/* test_striped_lock.c -- tables of mutexes (striped_lock.h): which stripe a key has, several at once, all, counts, memory.
 *
 * The stress moves money between accounts with random sets of keys; --break skip-one leaves one key of a set unlocked, which
 * the sum then shows.
 */
#include "support.h"

#include "faults.h"
#include "platform/meta_alloc.h"
#include "workers.h"

#include <pyruntime/striped_lock.h>

#include <string.h>

static size_t
locked_stripes(const pyrt_striped_lock *lock)
{
    pyrt_striped_lock_stats stats = {.struct_size = sizeof(stats)};
    CHECK_OK(pyrt_striped_lock_stats_read(lock, &stats));
    CHECK_UINT(stats.stripes, pyrt_striped_lock_stripes(lock));
    return stats.locked;
}

static pyrt_striped_lock
make(size_t stripes, uint32_t flags)
{
    pyrt_striped_lock lock;
    pyrt_striped_lock_config config = {.struct_size = sizeof(config), .flags = flags, .stripes = stripes};
    CHECK_OK(pyrt_striped_lock_init_config(&lock, &config));
    return lock;
}

static void
unmake(pyrt_striped_lock *lock)
{
    CHECK_UINT(locked_stripes(lock), 0);
    pyrt_striped_lock_fini(lock);
    CHECK_UINT(pyrt_meta_live_bytes(), 0);
}

/* A hash whose stripe is the wanted one. */
static uint64_t
hash_of_stripe(const pyrt_striped_lock *lock, size_t stripe)
{
    uint64_t hash = 0;
    while (pyrt_striped_lock_stripe(lock, hash) != stripe) {
        hash++;
    }
    return hash;
}

/* ---- the table ------------------------------------------------------------------------------------------------------- */

TEST(the_number_of_stripes_is_rounded_up)
{
    static const size_t asked[] = {1, 2, 3, 4, 5, 1000, 1024, 1025, PYRT_STRIPES_MAX};
    static const size_t given[] = {1, 2, 4, 4, 8, 1024, 1024, 2048, PYRT_STRIPES_MAX};
    for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
        pyrt_striped_lock lock;
        CHECK_OK(pyrt_striped_lock_init(&lock, asked[i]));
        CHECK_UINT(pyrt_striped_lock_stripes(&lock), given[i]);
        unmake(&lock);
    }
}

TEST(wrong_configurations_are_refused)
{
    pyrt_striped_lock lock;
    CHECK_STATUS(pyrt_striped_lock_init(&lock, 0), PYRT_EINVAL);
    CHECK_STATUS(pyrt_striped_lock_init(&lock, PYRT_STRIPES_MAX + 1), PYRT_EINVAL);
    CHECK_STATUS(pyrt_striped_lock_init(&lock, SIZE_MAX), PYRT_EINVAL);
    pyrt_striped_lock_config config = {.struct_size = sizeof(config), .flags = 2, .stripes = 4};
    CHECK_STATUS(pyrt_striped_lock_init_config(&lock, &config), PYRT_EINVAL);
    config.flags = 0;
    config.struct_size = 4;
    CHECK_STATUS(pyrt_striped_lock_init_config(&lock, &config), PYRT_EINVAL);
    CHECK_UINT(pyrt_striped_lock_bytes(0, 0), 0);
    CHECK_UINT(pyrt_striped_lock_bytes(4, 2), 0);
    pyrt_striped_lock_fini(&lock);
}

TEST(the_memory_may_be_the_users)
{
    static char memory[16 * PYRT_STRIPE_LINE + 1] PYRT_ALIGNED(64);
    for (uint32_t flags = 0; flags <= PYRT_STRIPES_APART; flags++) {
        size_t bytes = pyrt_striped_lock_bytes(16, flags);
        CHECK(bytes > 0 && bytes < sizeof(memory));
        memset(memory, 0xFF, sizeof(memory));
        pyrt_striped_lock lock;
        pyrt_striped_lock_config config = {sizeof(config), flags, 16, memory, bytes - 1};
        CHECK_STATUS(pyrt_striped_lock_init_config(&lock, &config), PYRT_EINVAL);
        config.memory = memory + 1;
        config.memory_bytes = bytes;
        CHECK_STATUS(pyrt_striped_lock_init_config(&lock, &config), PYRT_EINVAL);
        config.memory = memory;
        CHECK_OK(pyrt_striped_lock_init_config(&lock, &config));
        CHECK_UINT(pyrt_meta_live_bytes(), 0);
        CHECK_UINT(locked_stripes(&lock), 0);
        CHECK_OK(pyrt_striped_lock_all(&lock));
        CHECK_UINT(locked_stripes(&lock), 16);
        pyrt_striped_unlock_all(&lock);
        for (size_t i = 0; i < 16; i++) {
            char *mutex = (char *)pyrt_striped_lock_mutex(&lock, i);
            CHECK(mutex >= memory && mutex < memory + bytes);
            CHECK_UINT(pyrt_striped_lock_waits(&lock, i), 0);
        }
        CHECK_INT(memory[bytes], (char)0xFF);
        unmake(&lock);
    }
}

TEST(stripes_apart_have_a_line_each)
{
    pyrt_striped_lock lock = make(64, PYRT_STRIPES_APART);
    for (size_t i = 0; i < 64; i++) {
        CHECK_UINT((uintptr_t)pyrt_striped_lock_mutex(&lock, i) % PYRT_STRIPE_LINE, 0);
    }
    CHECK(pyrt_striped_lock_mutex(&lock, 0) != pyrt_striped_lock_mutex(&lock, 1));
    unmake(&lock);
}

PYRT_STRIPED_LOCK_STATIC(of_one, 0);
PYRT_STRIPED_LOCK_STATIC(of_many, 7);

TEST(a_static_table_needs_no_init)
{
    CHECK_UINT(pyrt_striped_lock_stripes(&of_one), 1);
    CHECK_UINT(pyrt_striped_lock_stripes(&of_many), 128);
    CHECK_UINT(pyrt_striped_lock_stripe(&of_one, UINT64_MAX), 0);
    CHECK_OK(pyrt_striped_lock_all(&of_many));
    CHECK_UINT(locked_stripes(&of_many), 128);
    pyrt_striped_unlock_all(&of_many);
    CHECK_UINT(locked_stripes(&of_many), 0);
    pyrt_striped_lock same = make(128, PYRT_STRIPES_APART);
    for (uint64_t hash = 0; hash < 1000; hash++) {
        CHECK_UINT(pyrt_striped_lock_stripe(&same, hash), pyrt_striped_lock_stripe(&of_many, hash));
    }
    unmake(&same);
}

TEST(a_table_in_use_is_not_freed)
{
    pyrt_striped_lock lock = make(8, 0);
    uint64_t hash = hash_of_stripe(&lock, 5);
    pyrt_striped_lock_hash(&lock, hash);
    pyrt_striped_lock_fini(&lock);
    EXPECT_REPORT("pyrt_striped_lock_fini", "stripe 5 of 8 is locked");
    pyrt_striped_unlock_hash(&lock, hash);
    unmake(&lock);
    pyrt_striped_lock_fini(&lock);
}

static bool
init_and_fini(void)
{
    pyrt_striped_lock lock;
    pyrt_status status = pyrt_striped_lock_init(&lock, 4096);
    if (status != PYRT_OK) {
        CHECK_STATUS(status, PYRT_ENOMEM);
    }
    pyrt_striped_lock_fini(&lock);
    return status == PYRT_OK;
}

static void
nothing(void)
{
}

static void
nothing_after(bool succeeded)
{
    (void)succeeded;
}

TEST(out_of_memory_is_an_answer)
{
    static const fault_plan plan = {nothing, init_and_fini, nothing_after};
    CHECK_INT(fault_everywhere(&plan, FAULT_ONCE), 1);
}

TEST(a_fork_child_unlocks_all)
{
    pyrt_striped_lock lock = make(32, 0);
    CHECK_OK(pyrt_striped_lock_all(&lock));
    pyrt_striped_lock_at_fork_reinit(&lock);
    unmake(&lock);
}

/* ---- which stripe --------------------------------------------------------------------------------------------------- */

/* How many stripes are used by `keys` keys that lie `step` apart. */
static size_t
used_by(const pyrt_striped_lock *lock, uint64_t step, size_t keys)
{
    bool used[1024] = {false};
    size_t count = 0;
    for (uint64_t i = 0; i < keys; i++) {
        size_t stripe = pyrt_striped_lock_stripe(lock, 0x7f0012345670u + i * step);
        CHECK(stripe < pyrt_striped_lock_stripes(lock));
        count += !used[stripe];
        used[stripe] = true;
    }
    return count;
}

TEST(neighbours_spread)
{
    pyrt_striped_lock lock = make(1024, 0);
    static const uint64_t steps[] = {1, 8, 16, 24, 32, 48, 64, 96, 128, 256, 4096, (uint64_t)1 << 32};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        /* Chosen at random, 1024 keys would use 647 stripes and 16 keys 15.9; steps are better or a bit worse. */
        CHECK(used_by(&lock, steps[i], 1024) >= 400);
        CHECK_UINT(used_by(&lock, steps[i], 16), 16);
    }
    unmake(&lock);
}

TEST(every_bit_of_a_hash_counts)
{
    pyrt_striped_lock lock = make(1024, 0);
    for (int bit = 0; bit < 64; bit++) {
        int changed = 0;
        for (uint64_t hash = 0; hash < 64; hash++) {
            changed += pyrt_striped_lock_stripe(&lock, hash) != pyrt_striped_lock_stripe(&lock, hash ^ ((uint64_t)1 << bit));
        }
        CHECK(changed >= 32);
    }
    unmake(&lock);
}

TEST(a_key_and_its_address_as_hash_are_the_same)
{
    pyrt_striped_lock lock = make(256, 0);
    int things[100];
    for (int i = 0; i < 100; i++) {
        CHECK_PTR(pyrt_striped_lock_for(&lock, &things[i]),
                  pyrt_striped_lock_for_hash(&lock, (uint64_t)(uintptr_t)&things[i]));
    }
    unmake(&lock);
}

/* ---- one key -------------------------------------------------------------------------------------------------------- */

TEST(one_key_locks_one_stripe)
{
    pyrt_striped_lock lock = make(64, PYRT_STRIPES_APART);
    int thing;
    pyrt_striped_lock_key(&lock, &thing);
    CHECK_UINT(locked_stripes(&lock), 1);
    CHECK(pyrt_mutex_is_locked(pyrt_striped_lock_for(&lock, &thing)));
    CHECK(!pyrt_striped_trylock_key(&lock, &thing));
    CHECK(!pyrt_striped_trylock_hash(&lock, (uint64_t)(uintptr_t)&thing));
    pyrt_striped_unlock_key(&lock, &thing);
    CHECK(pyrt_striped_trylock_key(&lock, &thing));
    pyrt_striped_unlock_key(&lock, &thing);
    unmake(&lock);
}

typedef struct waiting {
    pyrt_striped_lock *lock;
    uint64_t hash;
} waiting;

static void
lock_and_unlock(void *arg)
{
    waiting *w = arg;
    pyrt_striped_lock_hash(w->lock, w->hash);
    pyrt_striped_unlock_hash(w->lock, w->hash);
}

static void
lock_keys_and_unlock(void *arg)
{
    waiting *w = arg;
    CHECK_OK(pyrt_striped_lock_hashes(w->lock, &w->hash, 1));
    pyrt_striped_unlock_hashes(w->lock, &w->hash, 1);
}

TEST(waits_are_counted_by_stripe)
{
    pyrt_striped_lock lock = make(16, 0);
    waiting w = {&lock, hash_of_stripe(&lock, 9)};
    worker other;
    worker_start(&other);
    /* Nobody has waited as long as nobody was in the way. */
    worker_do(&other, lock_and_unlock, &w);
    CHECK_UINT(pyrt_striped_lock_waits(&lock, 9), 0);
    void (*const ways[])(void *) = {lock_and_unlock, lock_keys_and_unlock};
    for (uint64_t i = 0; i < 2; i++) {
        pyrt_striped_lock_hash(&lock, w.hash);
        worker_begin(&other, ways[i], &w);
        WAIT_UNTIL(pyrt_striped_lock_waits(&lock, 9) == i + 1);
        pyrt_striped_unlock_hash(&lock, w.hash);
        worker_finish(&other);
    }
    worker_end(&other);
    pyrt_striped_lock_stats stats = {.struct_size = sizeof(stats)};
    CHECK_OK(pyrt_striped_lock_stats_read(&lock, &stats));
    CHECK_UINT(stats.stripes, 16);
    CHECK_UINT(stats.waits, 2);
    CHECK_UINT(stats.worst, 9);
    CHECK_UINT(stats.worst_waits, 2);
    CHECK_UINT(pyrt_striped_lock_waits(&lock, 16), 0);
    stats.struct_size = 1;
    CHECK_STATUS(pyrt_striped_lock_stats_read(&lock, &stats), PYRT_EINVAL);
    CHECK_STATUS(pyrt_striped_lock_stats_read(&lock, NULL), PYRT_EINVAL);
    unmake(&lock);
}

/* ---- several keys --------------------------------------------------------------------------------------------------- */

TEST(doubles_and_shared_stripes_are_locked_once)
{
    pyrt_striped_lock lock = make(2, 0);
    int things[100];
    const void *keys[300];
    for (int i = 0; i < 300; i++) {
        keys[i] = &things[i % 100];
    }
    CHECK_OK(pyrt_striped_lock_keys(&lock, keys, 300));
    CHECK_UINT(locked_stripes(&lock), 2);
    pyrt_striped_unlock_keys(&lock, keys, 300);
    CHECK_UINT(locked_stripes(&lock), 0);
    CHECK(pyrt_striped_trylock_keys(&lock, keys, 300));
    pyrt_striped_unlock_keys(&lock, keys, 300);
    unmake(&lock);
}

TEST(no_keys_lock_nothing)
{
    pyrt_striped_lock lock = make(16, 0);
    CHECK_OK(pyrt_striped_lock_keys(&lock, NULL, 0));
    CHECK(pyrt_striped_trylock_hashes(&lock, NULL, 0));
    CHECK_UINT(locked_stripes(&lock), 0);
    pyrt_striped_unlock_keys(&lock, NULL, 0);
    CHECK_STATUS(pyrt_striped_lock_keys(&lock, NULL, 1), PYRT_EINVAL);
    CHECK_STATUS(pyrt_striped_lock_hashes(&lock, NULL, 1), PYRT_EINVAL);
    CHECK(!pyrt_striped_trylock_keys(&lock, NULL, 1));
    pyrt_striped_unlock_hashes(&lock, NULL, 1);
    EXPECT_REPORT("pyrt_striped_unlock", "n is 1");
    uint64_t hash = 1;
    CHECK_STATUS(pyrt_striped_lock_hashes_timed(&lock, &hash, 1, -1, 0x100), PYRT_EINVAL);
    CHECK_STATUS(pyrt_striped_lock_all_timed(&lock, -1, 0x100), PYRT_EINVAL);
    unmake(&lock);
}

/* Random sets, in tables of one word, one window, and many windows: the stripes of the keys are locked and no others. */
TEST(exactly_the_stripes_of_the_keys_are_locked)
{
    static uint64_t hashes[20000];
    static const size_t tables[] = {1, 8, 64, 1024, 2048, 65536};
    static const size_t sizes[] = {1, 2, 3, 10, 100, 20000};
    random_stream choices = random_for(1);
    for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++) {
        pyrt_striped_lock lock = make(tables[t], t % 2 == 0 ? 0 : PYRT_STRIPES_APART);
        for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
            size_t distinct = 0;
            static bool wanted[65536];
            memset(wanted, 0, sizeof(wanted));
            for (size_t i = 0; i < sizes[s]; i++) {
                hashes[i] = random_next(&choices);
                size_t stripe = pyrt_striped_lock_stripe(&lock, hashes[i]);
                distinct += !wanted[stripe];
                wanted[stripe] = true;
            }
            CHECK_OK(pyrt_striped_lock_hashes(&lock, hashes, sizes[s]));
            CHECK_UINT(locked_stripes(&lock), distinct);
            for (size_t i = 0; i < tables[t]; i++) {
                CHECK_INT(pyrt_mutex_is_locked(pyrt_striped_lock_mutex(&lock, i)), wanted[i]);
            }
            pyrt_striped_unlock_hashes(&lock, hashes, sizes[s]);
            CHECK_UINT(locked_stripes(&lock), 0);
        }
        unmake(&lock);
    }
}

/* One stripe is taken, in turn each of those that are wanted: nothing else stays locked. */
TEST(what_fails_leaves_nothing_locked)
{
    pyrt_striped_lock lock = make(4096, 0);
    enum { KEYS = 40 };
    uint64_t hashes[KEYS];
    const void *keys[KEYS];
    random_stream choices = random_for(2);
    for (int i = 0; i < KEYS; i++) {
        hashes[i] = random_next(&choices);
        keys[i] = (const void *)(uintptr_t)hashes[i];
    }
    for (int i = 0; i < KEYS; i++) {
        pyrt_striped_lock_hash(&lock, hashes[i]);
        CHECK(!pyrt_striped_trylock_hashes(&lock, hashes, KEYS));
        CHECK(!pyrt_striped_trylock_keys(&lock, keys, KEYS));
        CHECK(!pyrt_striped_trylock_all(&lock));
        CHECK_STATUS(pyrt_striped_lock_hashes_timed(&lock, hashes, KEYS, 0, PYRT_LOCK_DETACH), PYRT_ETIMEDOUT);
        CHECK_STATUS(pyrt_striped_lock_keys_timed(&lock, keys, KEYS, 10000, PYRT_LOCK_NO_DETACH), PYRT_ETIMEDOUT);
        CHECK_STATUS(pyrt_striped_lock_all_timed(&lock, 10000, PYRT_LOCK_DETACH), PYRT_ETIMEDOUT);
        CHECK_UINT(locked_stripes(&lock), 1);
        pyrt_striped_unlock_hash(&lock, hashes[i]);
    }
    unmake(&lock);
}

static void
lock_all_and_unlock(void *arg)
{
    waiting *w = arg;
    CHECK_OK(pyrt_striped_lock_all(w->lock));
    CHECK_UINT(locked_stripes(w->lock), pyrt_striped_lock_stripes(w->lock));
    pyrt_striped_unlock_all(w->lock);
}

TEST(all_waits_for_every_key)
{
    pyrt_striped_lock lock = make(16, 0);
    worker other;
    worker_start(&other);
    waiting w = {&lock, 0};
    for (size_t i = 0; i < 16; i++) {
        uint64_t hash = hash_of_stripe(&lock, i);
        pyrt_striped_lock_hash(&lock, hash);
        worker_begin(&other, lock_all_and_unlock, &w);
        WAIT_UNTIL(pyrt_striped_lock_waits(&lock, i) == 1);
        CHECK_UINT(locked_stripes(&lock), i + 1);
        pyrt_striped_unlock_hash(&lock, hash);
        worker_finish(&other);
    }
    worker_end(&other);
    unmake(&lock);
}

/* ---- stress --------------------------------------------------------------------------------------------------------- */

enum { ACCOUNTS = 60, TELLERS = 6, TRANSFERS = 4000, START = 1000, MOST_KEYS = 7 };

typedef struct bank {
    pyrt_striped_lock lock;
    int64_t accounts[ACCOUNTS];
    int64_t snapshots; /* under all stripes */
} bank;

typedef struct set {
    size_t n;
    uint64_t hashes[MOST_KEYS];
    const void *keys[MOST_KEYS];
    int64_t *accounts[MOST_KEYS];
} set;

static void
choose(set *chosen, bank *b, random_stream *choices)
{
    chosen->n = 1 + random_below(choices, MOST_KEYS);
    for (size_t i = 0; i < chosen->n; i++) {
        chosen->accounts[i] = &b->accounts[random_below(choices, ACCOUNTS)];
        chosen->keys[i] = chosen->accounts[i];
        chosen->hashes[i] = (uint64_t)(uintptr_t)chosen->accounts[i];
    }
}

/* One from each goes to the last. */
static void
transfer(set *chosen, random_stream *choices)
{
    int64_t *last = chosen->accounts[chosen->n - 1];
    for (size_t i = 0; i < chosen->n; i++) {
        int64_t left = *chosen->accounts[i] - 1;
        if (random_below(choices, 16) == 0) {
            sched_yield();
        }
        *chosen->accounts[i] = left;
        *last += 1;
    }
}

static void
take_snapshot(bank *b)
{
    int64_t sum = 0;
    for (int i = 0; i < ACCOUNTS; i++) {
        sum += b->accounts[i];
    }
    if (sum != (int64_t)ACCOUNTS * START) {
        FAIL("the accounts hold %" PRId64 " and not %d", sum, ACCOUNTS * START);
    }
    b->snapshots++;
}

static void
tell(void *arg, int number)
{
    bank *b = arg;
    random_stream choices = random_for((uint64_t)number);
    bool skip_one = test_sabotage() != NULL && strcmp(test_sabotage(), "skip-one") == 0;
    for (unsigned i = 0; i < TRANSFERS * test_scale(); i++) {
        set chosen;
        choose(&chosen, b, &choices);
        size_t locked = chosen.n - (skip_one && chosen.n > 1);
        switch (random_below(&choices, 8)) {
        case 0:
            CHECK_OK(pyrt_striped_lock_keys(&b->lock, chosen.keys, locked));
            transfer(&chosen, &choices);
            pyrt_striped_unlock_keys(&b->lock, chosen.keys, locked);
            break;
        case 1:
            CHECK_OK(pyrt_striped_lock_hashes(&b->lock, chosen.hashes, locked));
            transfer(&chosen, &choices);
            pyrt_striped_unlock_keys(&b->lock, chosen.keys, locked);
            break;
        case 2:
            if (pyrt_striped_trylock_keys(&b->lock, chosen.keys, locked)) {
                transfer(&chosen, &choices);
                pyrt_striped_unlock_hashes(&b->lock, chosen.hashes, locked);
            }
            break;
        case 3:
            if (pyrt_striped_lock_hashes_timed(&b->lock, chosen.hashes, locked, random_below(&choices, 100000),
                                               PYRT_LOCK_INTERRUPTIBLE) == PYRT_OK) {
                transfer(&chosen, &choices);
                pyrt_striped_unlock_hashes(&b->lock, chosen.hashes, locked);
            }
            break;
        case 4:
            if (random_below(&choices, 8) == 0) {
                CHECK_OK(pyrt_striped_lock_all(&b->lock));
                take_snapshot(b);
                pyrt_striped_unlock_all(&b->lock);
            }
            break;
        case 5:
            if (pyrt_striped_lock_all_timed(&b->lock, 50000, PYRT_LOCK_DETACH) == PYRT_OK) {
                take_snapshot(b);
                pyrt_striped_unlock_all(&b->lock);
            }
            break;
        case 6:
            chosen.n = 1;
            pyrt_striped_lock_key(&b->lock, chosen.keys[0]);
            transfer(&chosen, &choices);
            pyrt_striped_unlock_hash(&b->lock, chosen.hashes[0]);
            break;
        default:
            chosen.n = 1;
            if (pyrt_striped_trylock_hash(&b->lock, chosen.hashes[0])) {
                transfer(&chosen, &choices);
                pyrt_striped_unlock_key(&b->lock, chosen.keys[0]);
            }
            break;
        }
    }
}

static void
run_bank(size_t stripes, uint32_t flags)
{
    static bank b;
    b.lock = make(stripes, flags);
    b.snapshots = 0;
    for (int i = 0; i < ACCOUNTS; i++) {
        b.accounts[i] = START;
    }
    run_crowd(TELLERS, tell, &b);
    take_snapshot(&b);
    unmake(&b.lock);
}

TEST(stress)
{
    run_bank(1, 0);
    run_bank(4, 0);
    run_bank(16, PYRT_STRIPES_APART);
    run_bank(64, 0);
}
