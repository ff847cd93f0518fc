/* rwlock.c -- the ways of the read-write lock that are not inline: rows, the word, the gate, and draining. The idea and the
 * state tables are in rwlock.h.
 *
 * The gate orders writers among each other and with the readers that had to wait. Its holder alone sets WRITER and
 * DRAINING, and it keeps the gate until both are clear. Readers that find neither bit never touch the gate.
 */
#include "platform/futex.h"
#include "platform/os_thread.h"
#include "platform/report.h"
#include "sync/lock_watch.h"
#include "sync/waiting.h"

#include <pyruntime/rwlock.h>

enum { ROWS = 256 };

#define MOST_READERS (UINT32_MAX / PYRT_RWLOCK_READER)

/* Threads that find no row free do without one. */
static pyrt_reader_row rows[ROWS];

/* 1 while a thread has the row. Set by compare-and-swap by that thread, cleared by it at its end. */
static uint32_t claimed[ROWS];

/* No row from here on was ever claimed. Only grows. */
static uint32_t rows_used;

/* Whether locks may be biased at all. */
static bool can_bias;

__attribute__((constructor)) static void
ask_for_membarrier(void)
{
    can_bias = pyrt_membarrier_is_supported();
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static void
note_row_used(uint32_t count)
{
    uint32_t used = pyrt_load_relaxed(&rows_used);
    /* seq_cst: comes before anything that is written into the row. A writer that reads less does so before its thread
     * looks at the bias. */
    while (used < count && !pyrt_cas_seq_cst(&rows_used, &used, count)) {
    }
}

/* The row of the calling thread; NULL if it gets none, for now. */
static pyrt_reader_row *
own_row(void)
{
    pyrt_tls_block *tls = pyrt_tls();
    if (tls->own_row != NULL) {
        return tls->own_row;
    }
    if (pyrt_os_thread_register() != PYRT_OK) {
        return NULL;
    }
    for (uint32_t i = 0; i < ROWS; i++) {
        uint32_t is_free = 0;
        /* acquire: pairs with the release of who had it last. */
        if (pyrt_load_relaxed(&claimed[i]) == 0 && pyrt_cas_acquire(&claimed[i], &is_free, 1u)) {
            note_row_used(i + 1);
            tls->own_row = tls->reader_row = &rows[i];
            return &rows[i];
        }
    }
    return NULL;
}

static size_t
slot_of(const pyrt_rwlock *lock)
{
    return pyrt_parking_index(lock) % PYRT_READER_SLOTS;
}

static const void *
by_word(const pyrt_rwlock *lock)
{
    return (const char *)lock + 1;
}

static const void **
find(pyrt_reader_row *row, const void *entry)
{
    for (size_t i = 0; i < PYRT_READER_SLOTS; i++) {
        if (pyrt_load_relaxed(&row->slots[i]) == entry) {
            return &row->slots[i];
        }
    }
    return NULL;
}

/* What the calling thread is known to read. */
static bool
is_reader(const pyrt_rwlock *lock)
{
    pyrt_reader_row *row = pyrt_tls()->own_row;
    return row != NULL && (pyrt_load_relaxed(&row->slots[slot_of(lock)]) == lock || find(row, by_word(lock)) != NULL);
}

/* The inline way in looks only into the slot of the lock's address: it is for threads whose locks all stand there. */
static void
choose_way(pyrt_tls_block *tls)
{
    pyrt_reader_row *row = tls->own_row;
    bool all_in_place = true;
    for (size_t i = 0; i < PYRT_READER_SLOTS; i++) {
        uintptr_t entry = (uintptr_t)pyrt_load_relaxed(&row->slots[i]);
        all_in_place &= (entry & 1) == 0 || slot_of((const pyrt_rwlock *)(entry - 1)) == i;
    }
    tls->reader_row = all_in_place ? row : NULL;
}

/* Rows in which the lock is held by its slot. acquire: pairs with the release of the reader that leaves. */
static size_t
count_slots(const pyrt_rwlock *lock)
{
    size_t count = 0;
    size_t slot = slot_of(lock);
    uint32_t used = pyrt_load_relaxed(&rows_used);
    for (uint32_t i = 0; i < used; i++) {
        count += pyrt_load_acquire(&rows[i].slots[slot]) == lock;
    }
    return count;
}

/* ---- the word ---------------------------------------------------------------------------------------------------- */

/* Bits that keep a reader out. Who has stopped the world does not wait for a writer that only waits: perhaps for readers
 * that stand still. */
static uint32_t
barring_bits(void)
{
    return pyrt_tls()->pause != NULL ? PYRT_RWLOCK_WRITER : PYRT_RWLOCK_WRITER | PYRT_RWLOCK_DRAINING;
}

/* Whether this reader by the word is the one who makes the lock biased. Other readers may count down at the same time: a
 * count that is lost does no harm. */
static bool
is_time_to_bias(pyrt_rwlock *lock)
{
    uint8_t left = pyrt_load_relaxed(&lock->unbiased_reads);
    if (left != 0) {
        pyrt_store_relaxed(&lock->unbiased_reads, (uint8_t)(left - 1));
    }
    return left == 0 && pyrt_load_relaxed(&can_bias);
}

/* In the slot of its address, if that is free: then the biased way in is no way in a second time. */
static void
remember(pyrt_reader_row *row, const pyrt_rwlock *lock)
{
    const void **free_slot = NULL;
    if (row != NULL) {
        const void **own = &row->slots[slot_of(lock)];
        free_slot = pyrt_load_relaxed(own) == NULL ? own : find(row, NULL);
    }
    if (free_slot != NULL) {
        pyrt_store_relaxed(free_slot, by_word(lock));
        choose_way(pyrt_tls());
    }
    else {
        pyrt_tls()->unlisted_reads++;
    }
}

/* PYRT_EBUSY: a writer is in the way. */
static pyrt_status
enter(pyrt_rwlock *lock)
{
    pyrt_reader_row *row = own_row();
    uint32_t bars = barring_bits();
    uint32_t state = pyrt_load_relaxed(&lock->state);
    bool bias = row != NULL && (state & PYRT_RWLOCK_BIASED) == 0 && is_time_to_bias(lock);
    while ((state & bars) == 0) {
        if ((state & PYRT_RWLOCK_BIASED) != 0 && pyrt_rwlock_read_fast(lock)) {
            return PYRT_OK;
        }
        if (state / PYRT_RWLOCK_READER == MOST_READERS) {
            return PYRT_EOVERFLOW;
        }
        uint32_t next = state + PYRT_RWLOCK_READER;
        if (bias && (state & PYRT_RWLOCK_DRAINING) == 0) {
            next |= PYRT_RWLOCK_BIASED;
        }
        /* acquire: pairs with the release of the last writer. */
        if (pyrt_cas_acquire(&lock->state, &state, next)) {
            remember(row, lock);
            return PYRT_OK;
        }
    }
    return PYRT_EBUSY;
}

static void
leave_word(pyrt_rwlock *lock)
{
    /* seq_cst: as release for the writer, which acquires the word without readers. After it the lock may be gone. */
    uint32_t before = pyrt_fetch_add_seq_cst(&lock->state, -PYRT_RWLOCK_READER);
    /* Then the look at the cell. Pairs with the writer, who counts itself there and then looks at the word. */
    pyrt_fence_after_rmw();
    if ((before & PYRT_RWLOCK_DRAINING) != 0 && before / PYRT_RWLOCK_READER == 1) {
        pyrt_rwlock_wake(lock);
    }
}

/* ---- draining ---------------------------------------------------------------------------------------------------- */

typedef struct drain {
    pyrt_parking parking;
    pyrt_rwlock *lock;
    bool recorded; /* in the thread-local block, from where it may be given back */
} drain;

/* Makes the rows of all readers that came in by the bias visible; those that come now see that there is none. */
static void
wait_for_visible_rows(void)
{
    if (!pyrt_waiter_barrier()) {
        /* The kernel has failed. By then every processor has been interrupted, which is a barrier as well. It is not to
         * happen again. */
        static const uint32_t nobody_wakes = 0;
        pyrt_store_relaxed(&can_bias, false);
        (void)pyrt_futex_wait(&nobody_wakes, 0, pyrt_deadline_after(PYRT_WITHOUT_MEMBARRIER_NS));
    }
}

/* The caller has the gate. True: it is the writer already. */
static bool
begin_to_drain(pyrt_rwlock *lock)
{
    uint32_t state = pyrt_load_relaxed(&lock->state);
    uint32_t next;
    do {
        /* Nobody is inside, by the word or by a slot: only a lock that is biased has readers in slots. */
        next = state == 0 ? PYRT_RWLOCK_WRITER : (state | PYRT_RWLOCK_DRAINING) & ~PYRT_RWLOCK_BIASED;
        /* seq_cst: as acquire for a lock that is free; comes before the look at the rows. */
    } while (!pyrt_cas_seq_cst(&lock->state, &state, next));
    if ((state & PYRT_RWLOCK_BIASED) != 0) {
        pyrt_store_relaxed(&lock->unbiased_reads, (uint8_t)PYRT_RWLOCK_UNBIASED_READS);
        wait_for_visible_rows();
    }
    return next == PYRT_RWLOCK_WRITER;
}

/* Without having got the lock. Readers that are inside by their slots stay there, so that the next writer has to look for
 * them: biased again. */
static void
end_drain(pyrt_rwlock *lock)
{
    uint32_t bias = count_slots(lock) != 0 ? PYRT_RWLOCK_BIASED : 0;
    /* DRAINING is set and BIASED is not, so that adding exchanges the bits. */
    pyrt_fetch_add_seq_cst(&lock->state, bias - PYRT_RWLOCK_DRAINING);
    pyrt_mutex_unlock(&lock->gate);
}

static bool
take_if_drained(pyrt_rwlock *lock)
{
    uint32_t drained = PYRT_RWLOCK_DRAINING;
    /* acquire: pairs with the readers that have left the word. */
    return count_slots(lock) == 0 && pyrt_cas_acquire(&lock->state, &drained, PYRT_RWLOCK_WRITER);
}

/* Queued: the last look before the sleep. */
static bool
is_still_read(void *arg)
{
    drain *self = arg;
    bool ordered = pyrt_waiter_barrier();
    if (count_slots(self->lock) == 0 && pyrt_load_relaxed(&self->lock->state) == PYRT_RWLOCK_DRAINING) {
        return false;
    }
    self->parking.look_at = ordered ? INT64_MAX : pyrt_now_ns() + PYRT_WITHOUT_MEMBARRIER_NS;
    return true;
}

/* Not earlier: a report hook that waits for a lock before the sleep would give it back, and then nobody would wake this wait. */
static void
record(void *arg)
{
    drain *self = arg;
    self->recorded = true;
    pyrt_tls()->draining = self->lock;
}

/* PYRT_EBUSY: the gate has been given back. With any error the caller has nothing any more. */
static pyrt_status
wait_for_readers(pyrt_rwlock *lock, int64_t deadline, unsigned flags, const char *function)
{
    if (deadline == 0) {
        /* Not a wait, so that it is none in a read-side section either. */
        if (take_if_drained(lock)) {
            return PYRT_OK;
        }
        end_drain(lock);
        return PYRT_ETIMEDOUT;
    }
    pyrt_tls_block *tls = pyrt_tls();
    drain self = {
        .parking = {.address = lock,
                    .function = function,
                    .before_sleep = is_still_read,
                    .asleep = record,
                    .deadline = deadline,
                    .since = pyrt_now_ns(),
                    .flags = flags,
                    .look_at = INT64_MAX},
        .lock = lock,
    };
    self.parking.arg = &self;
    pyrt_waiter_may_end();
    while (!take_if_drained(lock)) {
        self.recorded = false;
        pyrt_status status = pyrt_park_as(&self.parking);
        bool given_back = self.recorded && tls->draining != lock;
        if (self.recorded) {
            tls->draining = NULL;
        }
        if (status == PYRT_OK && self.parking.interrupted) {
            status = PYRT_EINTR;
        }
        bool over = status == PYRT_ETIMEDOUT || status == PYRT_EINTR;
        if (given_back) {
            return over ? status : PYRT_EBUSY;
        }
        if (over) {
            if (take_if_drained(lock)) {
                return PYRT_OK;
            }
            end_drain(lock);
            return status;
        }
    }
    return PYRT_OK;
}

void
pyrt_rwlock_give_back(void)
{
    pyrt_tls_block *tls = pyrt_tls();
    pyrt_rwlock *lock = tls->draining;
    if (lock != NULL) {
        tls->draining = NULL;
        end_drain(lock);
    }
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

void
pyrt_rwlock_wake(const pyrt_rwlock *address_only)
{
    /* Without membarrier nobody holds a lock by a slot, and PYRT_PARKED_ALWAYS says nothing here. */
    if ((pyrt_parked_near(address_only) & ~PYRT_PARKED_ALWAYS) != 0) {
        (void)pyrt_unpark_one(address_only, NULL, NULL);
    }
}

/* The inline way in may just have taken back what a writer has seen of it. */
static void
wake_after_try(const pyrt_rwlock *lock)
{
    /* Store, then load, as in the inline unlock. */
    pyrt_light_barrier();
    pyrt_rwlock_wake(lock);
}

static pyrt_status
read_until(pyrt_rwlock *lock, int64_t deadline, unsigned flags, const char *function)
{
    wake_after_try(lock);
    if (pyrt_rwlock_is_owned(lock) || is_reader(lock)) {
        return PYRT_EDEADLK;
    }
    pyrt_status status = enter(lock);
    if (status != PYRT_EBUSY) {
        return status;
    }
    wake_after_try(lock);
    if (deadline == 0) {
        return PYRT_ETIMEDOUT;
    }
    status = pyrt_mutex_lock_until(&lock->gate, deadline, flags, function);
    if (status == PYRT_OK) {
        /* Who has the gate finds no writer. */
        status = enter(lock);
        pyrt_mutex_unlock(&lock->gate);
    }
    return status;
}

pyrt_status
pyrt_rwlock_read_lock_slow(pyrt_rwlock *lock)
{
    return read_until(lock, INT64_MAX, PYRT_LOCK_DETACH, "pyrt_rwlock_read_lock");
}

bool
pyrt_rwlock_read_trylock_slow(pyrt_rwlock *lock)
{
    return read_until(lock, 0, PYRT_LOCK_DETACH, "pyrt_rwlock_read_trylock") == PYRT_OK;
}

pyrt_status
pyrt_rwlock_read_lock_timed(pyrt_rwlock *lock, int64_t timeout_ns, unsigned flags)
{
    if ((flags & ~PYRT_LOCK_FLAGS) != 0) {
        return PYRT_EINVAL;
    }
    if (pyrt_rwlock_read_fast(lock)) {
        return PYRT_OK;
    }
    int64_t deadline = timeout_ns == 0 ? 0 : pyrt_deadline_after(timeout_ns);
    return read_until(lock, deadline, flags, "pyrt_rwlock_read_lock_timed");
}

void
pyrt_rwlock_read_unlock_slow(pyrt_rwlock *lock)
{
    pyrt_tls_block *tls = pyrt_tls();
    pyrt_reader_row *row = tls->own_row;
    if (row != NULL && pyrt_load_relaxed(&row->slots[slot_of(lock)]) == lock) {
        /* release: as in the inline form. */
        pyrt_store_release(&row->slots[slot_of(lock)], (const void *)NULL);
        wake_after_try(lock);
        return;
    }
    const void **slot = row != NULL ? find(row, by_word(lock)) : NULL;
    if (slot != NULL) {
        pyrt_store_relaxed(slot, (const void *)NULL);
        choose_way(tls);
    }
    else if (tls->unlisted_reads != 0 && pyrt_load_relaxed(&lock->state) / PYRT_RWLOCK_READER != 0) {
        tls->unlisted_reads--;
    }
    else {
        pyrt_report("pyrt_rwlock_read_unlock: this OS thread does not read under the lock at %p", (void *)lock);
        return;
    }
    leave_word(lock);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static pyrt_status
write_until(pyrt_rwlock *lock, int64_t deadline, unsigned flags, const char *function)
{
    if (pyrt_rwlock_is_owned(lock) || is_reader(lock)) {
        return PYRT_EDEADLK;
    }
    pyrt_status status;
    do {
        /* Who could wait is asked for the order of locks also when it need not. */
        bool asked = deadline != 0 && pyrt_lock_watch_is_on();
        if (asked || !pyrt_mutex_trylock(&lock->gate)) {
            status = deadline == 0 ? PYRT_ETIMEDOUT : pyrt_mutex_lock_until(&lock->gate, deadline, flags, function);
            if (status != PYRT_OK) {
                return status;
            }
        }
        status = begin_to_drain(lock) ? PYRT_OK : wait_for_readers(lock, deadline, flags, function);
        /* Given back: it waits again, but for nobody who came later. */
        flags |= PYRT_PARK_FRONT;
    } while (status == PYRT_EBUSY);
    if (status == PYRT_OK) {
        pyrt_store_relaxed(&lock->writer, pyrt_os_thread_identity());
    }
    return status;
}

pyrt_status
pyrt_rwlock_write_lock(pyrt_rwlock *lock)
{
    return write_until(lock, INT64_MAX, PYRT_LOCK_DETACH, "pyrt_rwlock_write_lock");
}

bool
pyrt_rwlock_write_trylock(pyrt_rwlock *lock)
{
    return write_until(lock, 0, PYRT_LOCK_DETACH, "pyrt_rwlock_write_trylock") == PYRT_OK;
}

pyrt_status
pyrt_rwlock_write_lock_timed(pyrt_rwlock *lock, int64_t timeout_ns, unsigned flags)
{
    if ((flags & ~PYRT_LOCK_FLAGS) != 0) {
        return PYRT_EINVAL;
    }
    int64_t deadline = timeout_ns == 0 ? 0 : pyrt_deadline_after(timeout_ns);
    return write_until(lock, deadline, flags, "pyrt_rwlock_write_lock_timed");
}

void
pyrt_rwlock_write_unlock(pyrt_rwlock *lock)
{
    if (!pyrt_rwlock_is_owned(lock)) {
        pyrt_report("pyrt_rwlock_write_unlock: this OS thread does not write under the lock at %p", (void *)lock);
        return;
    }
    pyrt_store_relaxed(&lock->writer, (const void *)NULL);
    /* release: pairs with the acquire of whoever comes in next. The word is WRITER alone until now. */
    pyrt_store_release(&lock->state, 0u);
    pyrt_mutex_unlock(&lock->gate);
}

/* ---- looking, ends of threads, forks ----------------------------------------------------------------------------- */

size_t
pyrt_rwlock_readers(const pyrt_rwlock *lock)
{
    return count_slots(lock) + pyrt_load_relaxed(&lock->state) / PYRT_RWLOCK_READER;
}

size_t
pyrt_rwlock_waiters(const pyrt_rwlock *lock)
{
    return pyrt_parked_count(lock) + pyrt_parked_count(&lock->gate);
}

/* What it read it does not read any more, so others may write. */
static void
drop_slot(const void **slot)
{
    uintptr_t entry = (uintptr_t)*slot;
    if (entry == 0) {
        return;
    }
    pyrt_rwlock *lock = (pyrt_rwlock *)(entry & ~(uintptr_t)1);
    pyrt_report("an OS thread has ended that reads under the pyrt_rwlock at %p; it is unlocked", (void *)lock);
    /* release: as in the inline unlock. */
    pyrt_store_release(slot, (const void *)NULL);
    if ((entry & 1) != 0) {
        leave_word(lock);
    }
    else {
        wake_after_try(lock);
    }
}

void
pyrt_rwlock_end_of_os_thread(void)
{
    pyrt_tls_block *tls = pyrt_tls();
    pyrt_reader_row *row = tls->own_row;
    if (tls->unlisted_reads != 0) {
        bool one = tls->unlisted_reads == 1;
        pyrt_report("an OS thread has ended that holds %u lock%s (pyrt_rwlock) for reading; %s locked",
                    (unsigned)tls->unlisted_reads, one ? "" : "s", one ? "it stays" : "they stay");
        tls->unlisted_reads = 0;
    }
    if (row == NULL) {
        return;
    }
    for (size_t i = 0; i < PYRT_READER_SLOTS; i++) {
        drop_slot(&row->slots[i]);
    }
    tls->own_row = tls->reader_row = NULL;
    /* release: pairs with the acquire of the next thread that claims it. */
    pyrt_store_release(&claimed[row - rows], 0u);
}

void
pyrt_rwlock_at_fork_reinit(pyrt_rwlock *lock)
{
    pyrt_tls_block *tls = pyrt_tls();
    pyrt_reader_row *row = tls->own_row;
    const void **slot = row != NULL ? find(row, by_word(lock)) : NULL;
    if (slot != NULL) {
        *slot = NULL;
        choose_way(tls);
    }
    if (row != NULL && row->slots[slot_of(lock)] == lock) {
        row->slots[slot_of(lock)] = NULL;
    }
    *lock = (pyrt_rwlock)PYRT_RWLOCK_INIT;
}

/* The rows of threads that are not in this process. */
void
pyrt_rwlock_fork_child(void)
{
    pyrt_reader_row *own = pyrt_tls()->own_row;
    for (uint32_t i = 0; i < rows_used; i++) {
        if (&rows[i] != own) {
            rows[i] = (pyrt_reader_row){{NULL}};
            claimed[i] = 0;
        }
    }
}
