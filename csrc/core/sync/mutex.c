/* mutex.c -- the long ways of the lock of one byte: spinning, waiting, handing on, and giving back. The state table and the
 * argument are in mutex.h.
 *
 * No wake-up is lost, although the owner unlocks with a plain store:
 *
 *      owner                                            waiter
 *      store state = 0, release                         count itself in the cell, and queue up, under the bucket's lock
 *      light barrier                                    pyrt_waiter_barrier()
 *      load the cell: not 0 -> wake the first           load state: 0 -> do not sleep
 *
 * After the waiter's barrier either the owner's store is visible to it, or the owner's load of the cell comes later and
 * sees the waiter. An owner that sees the cell before it unlocks takes the long way, where a read-modify-write stands in
 * the place of the store. A thread that was woken owes the wake-up to the others until it has looked at the lock again:
 * if it cannot go on (the world is stopped, its OS thread ends) it wakes the next. And who looked in vain has seen an
 * owner, who will unlock.
 */
#include "platform/futex.h"
#include "platform/os_thread.h"
#include "platform/report.h"
#include "sync/lock_watch.h"
#include "sync/waiting.h"

#include <pyruntime/current.h>
#include <pyruntime/mutex.h>

/* For so long it looks, while nobody is parked, before it sleeps: about what a sleep costs, with the barrier that all threads
 * have to pass and the way back. Twice as long gains a tenth more, half as long loses as much. */
enum { SPIN_NS = 20000 };

/* How often a waiter looks, unasked, whether the host has kept the thread that the lock was reserved for: each time after
 * twice as long, up to this. */
enum { LONGEST_PERIOD_NS = 64 * PYRT_MUTEX_RESERVED_NS };

typedef struct mutex_wait {
    pyrt_parking parking;
    pyrt_mutex *mutex;
    int64_t reserved_since; /* when it first saw the reservation that is on now, or 0 */
    int64_t period;
} mutex_wait;

static uint8_t
without_watch(uint8_t state)
{
    return state & (uint8_t)~PYRT_MUTEX_WATCHED;
}

/* What a long way sets: marked while locks are watched, and not any more after that. */
static uint8_t
with_watch(uint8_t state)
{
    return (uint8_t)(state | (pyrt_lock_watch_is_on() ? PYRT_MUTEX_WATCHED : 0));
}

/* Told before it waits, because it may wait for ever. The mark may be lost to an unlock that goes on just now. */
static void
tell_asks(pyrt_mutex *mutex)
{
    if (pyrt_lock_watch_is_on()) {
        uint8_t before = pyrt_fetch_or_seq_cst(&mutex->state, (uint8_t)PYRT_MUTEX_WATCHED);
        pyrt_watch_asks(mutex, (before & PYRT_MUTEX_WATCHED) == 0);
    }
}

static pyrt_status
tell_took(pyrt_mutex *mutex)
{
    if (pyrt_lock_watch_is_on()) {
        pyrt_watch_took(mutex);
    }
    return PYRT_OK;
}

/* ---- taking it --------------------------------------------------------------------------------------------------- */

static bool
may_take_reserved(mutex_wait *wait)
{
    if (pyrt_tls()->pause != NULL) {
        return true;
    }
    int64_t now = pyrt_now_ns();
    if (wait->reserved_since == 0) {
        wait->reserved_since = now;
    }
    return now - wait->reserved_since >= PYRT_MUTEX_RESERVED_NS;
}

static bool
must_wait(mutex_wait *wait, uint8_t state)
{
    switch (without_watch(state)) {
    case PYRT_MUTEX_UNLOCKED:
        return false;
    case PYRT_MUTEX_RESERVED:
        return !may_take_reserved(wait);
    default:
        wait->reserved_since = 0;
        return true;
    }
}

static bool
try_to_take(mutex_wait *wait)
{
    uint8_t *word = &wait->mutex->state;
    uint8_t state = pyrt_load_relaxed(word);
    while (!must_wait(wait, state)) {
        /* acquire: as in the inline pyrt_mutex_lock. */
        if (pyrt_cas_acquire(word, &state, with_watch(PYRT_MUTEX_LOCKED))) {
            return true;
        }
    }
    return false;
}

/* While somebody is parked, whoever unlocks has a thread to wake: spinning would only take the lock away from it.
 *
 * Each look takes the lock's line from the owner, who has to fetch it back. So the next look comes after as long as it has
 * waited already: an owner that is soon done is soon noticed; one that takes the lock again and again gets many turns done
 * between two looks, however long a line is on its way on this machine; and of the rests that it leaves the lock for, a look
 * sooner or later meets one. */
static bool
spin(mutex_wait *wait)
{
    int64_t begun = pyrt_now_ns();
    int64_t look_at = begun;
    for (int64_t now = begun; now - begun < SPIN_NS; now = pyrt_now_ns()) {
        if (now >= look_at) {
            if (try_to_take(wait)) {
                return true;
            }
            if ((pyrt_parked_near(wait->mutex) & ~PYRT_PARKED_ALWAYS) != 0) {
                return false;
            }
            look_at = now + (now - begun);
        }
        pyrt_cpu_relax();
    }
    return try_to_take(wait);
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

/* Under the bucket's lock. */
static bool
is_still_locked(void *arg)
{
    mutex_wait *wait = arg;
    return must_wait(wait, pyrt_load_relaxed(&wait->mutex->state));
}

/* Queued: the second look. It also says when to look again, because of what no unlocker would wake it for. */
static bool
look_again(void *arg)
{
    mutex_wait *wait = arg;
    bool ordered = pyrt_waiter_barrier();
    /* relaxed: it comes after the barrier, and what it finds is only acted on by a compare-and-swap. */
    if (!must_wait(wait, pyrt_load_relaxed(&wait->mutex->state))) {
        return false;
    }
    pyrt_parking *parking = &wait->parking;
    parking->look_at = INT64_MAX;
    if (wait->reserved_since != 0) {
        parking->look_at = wait->reserved_since + PYRT_MUTEX_RESERVED_NS;
    }
    else if (pyrt_block_hooks_are_set()) {
        parking->look_at = pyrt_now_ns() + wait->period;
        wait->period = wait->period < LONGEST_PERIOD_NS ? 2 * wait->period : wait->period;
    }
    int64_t unordered_until = ordered ? INT64_MAX : pyrt_now_ns() + PYRT_WITHOUT_MEMBARRIER_NS;
    if (unordered_until < parking->look_at) {
        parking->look_at = unordered_until;
    }
    return true;
}

static void
note_woken(void *arg, uintptr_t token)
{
    pyrt_mutex_note_woken(((mutex_wait *)arg)->mutex, token);
}

/* For who has told that it asks. */
static pyrt_status
lock_until(pyrt_mutex *mutex, int64_t deadline, unsigned flags, const char *function)
{
    mutex_wait wait = {
        .parking = {.address = mutex,
                    .function = function,
                    .validate = is_still_locked,
                    .before_sleep = look_again,
                    .woken = note_woken,
                    .deadline = deadline,
                    .flags = flags,
                    .look_at = INT64_MAX},
        .mutex = mutex,
        .period = PYRT_MUTEX_RESERVED_NS,
    };
    if (spin(&wait)) {
        return tell_took(mutex);
    }
    wait.parking.arg = &wait;
    wait.parking.since = (flags & PYRT_PARK_FRONT) != 0 ? 0 : pyrt_now_ns();
    pyrt_waiter_may_end();
    for (;;) {
        pyrt_status status = pyrt_park_as(&wait.parking);
        if (status == PYRT_OK && pyrt_mutex_claim(mutex)) {
            return PYRT_OK;
        }
        if (spin(&wait)) {
            return tell_took(mutex);
        }
        if (status == PYRT_ETIMEDOUT || status == PYRT_EINTR) {
            return status;
        }
        if (wait.parking.interrupted) {
            return PYRT_EINTR;
        }
    }
}

pyrt_status
pyrt_mutex_lock_until(pyrt_mutex *mutex, int64_t deadline, unsigned flags, const char *function)
{
    tell_asks(mutex);
    return lock_until(mutex, deadline, flags, function);
}

/* ---- reservations ------------------------------------------------------------------------------------------------ */

void
pyrt_waiter_may_end(void)
{
    if (pyrt_block_hooks_are_set() && pyrt_tls()->os_id == 0) {
        (void)pyrt_os_thread_register();
    }
}

void
pyrt_mutex_note_woken(const void *mutex, uintptr_t token)
{
    pyrt_tls_block *tls = pyrt_tls();
    tls->woken_for = mutex;
    tls->reserved = token == PYRT_MUTEX_TOKEN_RESERVED;
}

/* 3 -> something, unless it has been taken. Another thread's reservation of the same mutex may be meant by mistake, if
 * one's own has been taken before: that one is then as good as taken too. */
static bool
end_reservation(pyrt_mutex *mutex, uint8_t next)
{
    uint8_t state = pyrt_load_relaxed(&mutex->state);
    while (without_watch(state) == PYRT_MUTEX_RESERVED) {
        /* As acquire it pairs with the exchange in unlock; as release, for a reservation that is given back, it passes that
         * on to the next owner. */
        if (pyrt_cas_acq_rel(&mutex->state, &state, with_watch(next))) {
            return true;
        }
    }
    return false;
}

bool
pyrt_mutex_claim(void *mutex)
{
    pyrt_tls_block *tls = pyrt_tls();
    bool reserved = tls->woken_for == mutex && tls->reserved;
    tls->woken_for = NULL;
    return reserved && end_reservation(mutex, PYRT_MUTEX_LOCKED) && tell_took(mutex) == PYRT_OK;
}

void
pyrt_mutex_give_back(void)
{
    pyrt_tls_block *tls = pyrt_tls();
    const void *mutex = tls->woken_for;
    pyrt_rwlock_give_back();
    if (mutex == NULL) {
        return;
    }
    tls->woken_for = NULL;
    if (tls->reserved) {
        (void)end_reservation((pyrt_mutex *)mutex, PYRT_MUTEX_UNLOCKED);
    }
    pyrt_mutex_wake(mutex);
}

/* ---- the calls --------------------------------------------------------------------------------------------------- */

/* For who only tries, and so looks at different times: what it saw the last time may have been another reservation, which
 * costs somebody else its turn, but no more often than once in so long. */
static bool
may_take_reserved_at_once(const pyrt_mutex *mutex)
{
    pyrt_tls_block *tls = pyrt_tls();
    if (tls->pause != NULL) {
        return true;
    }
    int64_t now = pyrt_now_ns();
    if (tls->seen_reserved != mutex) {
        tls->seen_reserved = mutex;
        tls->seen_reserved_at = now;
    }
    return now - tls->seen_reserved_at >= PYRT_MUTEX_RESERVED_NS;
}

/* A reservation is not waited for: inside of one's own pause its thread may be standing still. */
bool
pyrt_mutex_trylock_slow(pyrt_mutex *mutex)
{
    uint8_t state = pyrt_load_relaxed(&mutex->state);
    while (without_watch(state) == PYRT_MUTEX_UNLOCKED ||
           (without_watch(state) == PYRT_MUTEX_RESERVED && may_take_reserved_at_once(mutex))) {
        /* acquire: as in the inline form. */
        if (pyrt_cas_acquire(&mutex->state, &state, with_watch(PYRT_MUTEX_LOCKED))) {
            pyrt_tls()->seen_reserved = NULL;
            return tell_took(mutex) == PYRT_OK;
        }
    }
    return false;
}

/* In a pause of its own, with locks watched: a holder that stands still would never unlock. Looked for again from time to
 * time, because it may come to stand still later. Who must not be refused is only told so, and waits. */
static pyrt_status
lock_in_pause(pyrt_mutex *mutex, int64_t deadline, unsigned flags, const char *function, bool may_refuse)
{
    bool reported = false;
    for (bool told = false;; told = true) {
        pyrt_lock_hold hold;
        uint64_t holder = reported ? 0 : pyrt_watch_holder(mutex, &hold);
        if (holder != 0 && pyrt_waiting_stands_still(holder)) {
            pyrt_report("%s: '%s' is held by thread '%s' (%d), which this pause has stopped", function, hold.name,
                        hold.thread_name, hold.os_tid);
            if (may_refuse) {
                return PYRT_EDEADLK;
            }
            reported = true;
        }
        int64_t next_look = pyrt_now_ns() + PYRT_MUTEX_RESERVED_NS;
        int64_t until = next_look < deadline ? next_look : deadline;
        if (!told) {
            tell_asks(mutex);
        }
        pyrt_status status = lock_until(mutex, until, flags, function);
        if (status != PYRT_ETIMEDOUT || until == deadline) {
            return status;
        }
    }
}

void
pyrt_mutex_lock_slow(pyrt_mutex *mutex)
{
    static const char function[] = "pyrt_mutex_lock";
    if (pyrt_lock_watch_is_on() && pyrt_tls()->pause != NULL) {
        (void)lock_in_pause(mutex, INT64_MAX, PYRT_LOCK_DETACH, function, false);
        return;
    }
    (void)pyrt_mutex_lock_until(mutex, INT64_MAX, PYRT_LOCK_DETACH, function);
}

pyrt_status
pyrt_mutex_lock_timed(pyrt_mutex *mutex, int64_t timeout_ns, unsigned flags)
{
    static const char function[] = "pyrt_mutex_lock_timed";
    if ((flags & ~PYRT_LOCK_FLAGS) != 0) {
        return PYRT_EINVAL;
    }
    /* Who could wait is asked for the order of locks also when it need not. */
    if ((timeout_ns == 0 || !pyrt_lock_watch_is_on()) && pyrt_mutex_trylock(mutex)) {
        return PYRT_OK;
    }
    if (timeout_ns == 0) {
        return PYRT_ETIMEDOUT;
    }
    int64_t deadline = pyrt_deadline_after(timeout_ns);
    if (pyrt_lock_watch_is_on() && pyrt_tls()->pause != NULL) {
        return lock_in_pause(mutex, deadline, flags, function, true);
    }
    return pyrt_mutex_lock_until(mutex, deadline, flags, function);
}

/* Under the bucket's lock. After the exchange the mutex may be another's, or gone. */
static uintptr_t
hand_on(const pyrt_unparked *unparked, void *arg)
{
    pyrt_mutex *mutex = arg;
    bool reserve = unparked->found && pyrt_now_ns() - unparked->since >= PYRT_MUTEX_FAIR_NS;
    /* seq_cst: as release for the next owner; the waiter's look at the state in validate is under the same lock. */
    (void)pyrt_exchange_seq_cst(&mutex->state, with_watch(reserve ? PYRT_MUTEX_RESERVED : PYRT_MUTEX_UNLOCKED));
    return reserve ? PYRT_MUTEX_TOKEN_RESERVED : PYRT_MUTEX_TOKEN_FREE;
}

void
pyrt_mutex_unlock_slow(pyrt_mutex *mutex)
{
    uint8_t state = pyrt_load_relaxed(&mutex->state);
    if (without_watch(state) != PYRT_MUTEX_LOCKED) {
        pyrt_report("pyrt_mutex_unlock: the mutex at %p is not locked", (void *)mutex);
        return;
    }
    if (pyrt_lock_watch_is_on()) {
        pyrt_watch_lets_go(mutex, (state & PYRT_MUTEX_WATCHED) == 0);
    }
    if ((pyrt_parked_near(mutex) & ~PYRT_PARKED_ALWAYS) != 0) {
        (void)pyrt_unpark_one(mutex, hand_on, mutex);
        return;
    }
    /* seq_cst, and then the look at the cell: the read-modify-writes of both sides stand for the membarrier. */
    (void)pyrt_exchange_seq_cst(&mutex->state, with_watch(PYRT_MUTEX_UNLOCKED));
    pyrt_fence_after_rmw();
    if ((pyrt_parked_near(mutex) & ~PYRT_PARKED_ALWAYS) != 0) {
        pyrt_mutex_wake(mutex);
    }
}

/* It is unlocked already, and may be gone. */
void
pyrt_mutex_wake(const pyrt_mutex *address_only)
{
    (void)pyrt_unpark_one(address_only, NULL, NULL);
}

void
pyrt_mutex_at_fork_reinit(pyrt_mutex *mutex)
{
    pyrt_store_relaxed(&mutex->state, (uint8_t)PYRT_MUTEX_UNLOCKED);
}
