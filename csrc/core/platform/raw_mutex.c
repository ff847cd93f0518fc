/* raw_mutex.c -- see raw_mutex.h for the state table. */
#include "platform/raw_mutex.h"

#include "platform/futex.h"

enum { UNLOCKED = 0, LOCKED = 1, LOCKED_WAITED = 2 };

/* A holder needs well under a microsecond; sleeping at once would cost more than looking again. */
enum { SPINS = 40 };

bool
pyrt_raw_mutex_trylock(pyrt_raw_mutex *mutex)
{
    uint32_t expected = UNLOCKED;
    /* acquire: pairs with the release of the unlock. */
    return pyrt_cas_acquire(&mutex->word, &expected, (uint32_t)LOCKED);
}

void
pyrt_raw_mutex_lock(pyrt_raw_mutex *mutex)
{
    for (int i = 0; i < SPINS; i++) {
        if (pyrt_raw_mutex_trylock(mutex)) {
            return;
        }
        pyrt_cpu_relax();
    }
    /* Whoever gets it here marks it as waited for: there may be more sleepers. acquire: as in trylock. */
    while (pyrt_exchange_acquire(&mutex->word, (uint32_t)LOCKED_WAITED) != UNLOCKED) {
        pyrt_futex_wait(&mutex->word, LOCKED_WAITED, -1);
    }
}

void
pyrt_raw_mutex_unlock(pyrt_raw_mutex *mutex)
{
    /* release: pairs with the acquire of the next owner. */
    if (pyrt_exchange_release(&mutex->word, (uint32_t)UNLOCKED) == LOCKED_WAITED) {
        pyrt_futex_wake(&mutex->word, 1);
    }
}

void
pyrt_raw_mutex_reinit(pyrt_raw_mutex *mutex)
{
    pyrt_store_relaxed(&mutex->word, (uint32_t)UNLOCKED);
}
