/* parking_lot.c -- the buckets: queues of waiting threads, in the order in which they began to wait.
 *
 * Invariant, under the lock of a bucket: its list holds exactly the waits that are `queued` on an address of the bucket,
 * those of one address in the order of `since`, and the bucket's cell counts them. Whoever takes one out of the list owns
 * its wake-up: an unparker sets `awake`, the thread itself (its time is over) just goes. A wait is on the stack of its
 * thread, which does not return before it has left the list by itself or has seen `awake`.
 *
 * The locks of the buckets are the last in the order of raw mutexes; of two, that with the lower index comes first.
 */
#include "platform/futex.h"
#include "platform/raw_mutex.h"
#include "platform/report.h"
#include "sync/lock_watch.h"
#include "sync/waiting.h"

#include <string.h>

/* On a cache line of its own. */
typedef struct PYRT_ALIGNED(64) bucket {
    pyrt_raw_mutex lock;
    pyrt_parking *first, *last;
} bucket;

uint32_t pyrt_parking_cells[PYRT_PARKING_CELLS] PYRT_ALIGNED(64);

static bucket buckets[PYRT_PARKING_CELLS];

static pyrt_waiting_hooks hooks;

/* Set by the constructor below, or never. */
static bool membarrier_refused;
static bool membarrier_registered;

/* ---- membarrier -------------------------------------------------------------------------------------------------- */

__attribute__((constructor)) static void
ask_for_membarrier(void)
{
    membarrier_refused = !pyrt_membarrier_is_supported();
    if (membarrier_refused) {
        pyrt_parking_set_always(true);
    }
}

bool
pyrt_waiter_barrier(void)
{
    if (membarrier_refused) {
        /* What the caller wrote before it looks (its count in the cell) was a read-modify-write. Pairs with the fence of the
         * long way of an unlock. */
        pyrt_fence_after_rmw();
        return true;
    }
    /* Late, because it takes milliseconds in a process with threads; twice does no harm. relaxed: who sees it set comes
     * after the call that it stands for, in the kernel's eyes too. */
    if (!pyrt_load_relaxed(&membarrier_registered)) {
        pyrt_membarrier_register();
        pyrt_store_relaxed(&membarrier_registered, true);
    }
    return pyrt_membarrier();
}

void
pyrt_parking_set_always(bool always)
{
    for (size_t i = 0; i < PYRT_PARKING_CELLS; i++) {
        if (always) {
            pyrt_fetch_or_seq_cst(&pyrt_parking_cells[i], PYRT_PARKED_ALWAYS);
        }
        else if (!membarrier_refused) {
            pyrt_fetch_and_seq_cst(&pyrt_parking_cells[i], ~PYRT_PARKED_ALWAYS);
        }
    }
}

/* ---- queues: the caller holds the lock of the bucket -------------------------------------------------------------- */

static bucket *
bucket_of(const void *address)
{
    return &buckets[pyrt_parking_index(address)];
}

static bucket *
lock_bucket(const void *address)
{
    bucket *b = bucket_of(address);
    pyrt_raw_mutex_lock(&b->lock);
    return b;
}

static pyrt_parking *
first_of(const pyrt_parking *p, const void *address)
{
    while (p != NULL && p->key != address) {
        p = p->next;
    }
    return (pyrt_parking *)p;
}

static void
enqueue(bucket *b, pyrt_parking *p, const void *address, pyrt_parking *before)
{
    /* seq_cst: comes before this thread's look at what it waits for. Pairs with "unlock, then look at the cell". */
    pyrt_fetch_add_seq_cst(&pyrt_parking_cells[b - buckets], 1u);
    /* relaxed: read without this lock by its own thread only, which then looks again under it. */
    pyrt_store_relaxed(&p->key, address);
    p->queued = true;
    p->next = before;
    p->previous = before != NULL ? before->previous : b->last;
    if (p->previous != NULL) {
        p->previous->next = p;
    }
    else {
        b->first = p;
    }
    if (before != NULL) {
        before->previous = p;
    }
    else {
        b->last = p;
    }
}

/* Behind all that have waited for as long or longer. Nearly always that is the end. */
static void
enqueue_in_order(bucket *b, pyrt_parking *p)
{
    pyrt_parking *before = NULL;
    for (pyrt_parking *q = b->last; q != NULL; q = q->previous) {
        if (q->key == p->address) {
            if (q->since <= p->since && p->since != 0) {
                break;
            }
            before = q;
        }
    }
    enqueue(b, p, p->address, before);
}

static void
dequeue(bucket *b, pyrt_parking *p)
{
    if (p->previous != NULL) {
        p->previous->next = p->next;
    }
    else {
        b->first = p->next;
    }
    if (p->next != NULL) {
        p->next->previous = p->previous;
    }
    else {
        b->last = p->previous;
    }
    p->queued = false;
    pyrt_fetch_add_seq_cst(&pyrt_parking_cells[b - buckets], -1u);
}

/* ---- parking ----------------------------------------------------------------------------------------------------- */

/* acquire: pairs with the release in wake; the token is there. */
static bool
is_awake(const pyrt_parking *p)
{
    return pyrt_load_acquire(&p->awake) != 0;
}

/* Leaves the queue. False: an unparker was faster; its wake-up has been taken then. */
static bool
leave(pyrt_parking *p)
{
    bucket *b;
    for (;;) {
        const void *key = pyrt_load_relaxed(&p->key);
        b = lock_bucket(key);
        if (p->key == key) {
            break;
        }
        pyrt_raw_mutex_unlock(&b->lock);
    }
    bool queued = p->queued;
    if (queued) {
        dequeue(b, p);
    }
    pyrt_raw_mutex_unlock(&b->lock);
    while (!queued && !is_awake(p)) {
        (void)pyrt_futex_wait(&p->awake, 0, -1);
    }
    return queued;
}

static bool
has_passed(int64_t moment)
{
    return moment != INT64_MAX && (moment <= 0 || pyrt_now_ns() >= moment);
}

static pyrt_status
sleep_until_woken(pyrt_parking *p)
{
    bool interruptible = (p->flags & PYRT_LOCK_INTERRUPTIBLE) != 0;
    while (!is_awake(p)) {
        int64_t until = p->look_at < p->deadline ? p->look_at : p->deadline;
        pyrt_futex_end end = pyrt_futex_sleep(&p->awake, 0, until, interruptible);
        p->interrupted |= interruptible && end == PYRT_FUTEX_INTERRUPTED;
        if (is_awake(p)) {
            break;
        }
        if (p->interrupted) {
            return leave(p) ? PYRT_EINTR : PYRT_OK;
        }
        if (end != PYRT_FUTEX_TIMED_OUT) {
            continue;
        }
        if (has_passed(p->deadline)) {
            return leave(p) ? PYRT_ETIMEDOUT : PYRT_OK;
        }
        if (has_passed(p->look_at) && !p->before_sleep(p->arg)) {
            return leave(p) ? PYRT_EBUSY : PYRT_OK;
        }
    }
    return PYRT_OK;
}

/* Law: no real sleep without the hooks, and they are not for anything else. */
static pyrt_status
sleep_with_hooks(pyrt_parking *p)
{
    bool detaches = (p->flags & PYRT_LOCK_NO_DETACH) == 0 && hooks.detach != NULL;
    void *detached = detaches ? hooks.detach() : NULL;
    bool watched = pyrt_lock_watch_is_on();
    if (watched) {
        pyrt_watch_sleeps(p->address);
    }
    void *saved = pyrt_block_before();
    if (p->asleep != NULL) {
        p->asleep(p->arg);
    }
    pyrt_status status = sleep_until_woken(p);
    if (status == PYRT_OK && p->woken != NULL) {
        /* Before anything that may not return. */
        p->woken(p->arg, p->token);
    }
    pyrt_block_after(saved);
    if (detaches) {
        hooks.attach(detached);
    }
    if (watched) {
        pyrt_watch_woke(p->address);
    }
    return status;
}

bool
pyrt_park_is_reading(const char *function)
{
    return hooks.is_reading != NULL && hooks.is_reading(function);
}

pyrt_status
pyrt_park_as(pyrt_parking *p)
{
    p->token = 0;
    p->interrupted = false;
    /* Plain: nobody else knows it now. */
    p->awake = 0;
    if ((p->flags & PYRT_LOCK_NO_DETACH) == 0 && pyrt_park_is_reading(p->function)) {
        p->flags |= PYRT_LOCK_NO_DETACH;
    }
    bucket *b = lock_bucket(p->address);
    pyrt_status status = p->validate != NULL && !p->validate(p->arg) ? PYRT_EBUSY
                         : has_passed(p->deadline)                   ? PYRT_ETIMEDOUT
                                                                     : PYRT_OK;
    if (status == PYRT_OK) {
        enqueue_in_order(b, p);
    }
    pyrt_raw_mutex_unlock(&b->lock);
    if (status != PYRT_OK) {
        return status;
    }
    /* What it was woken for further out it cannot take while it sleeps here. */
    pyrt_mutex_give_back();
    if (p->before_sleep != NULL && !p->before_sleep(p->arg) && leave(p)) {
        return PYRT_EBUSY;
    }
    if (!is_awake(p)) {
        return sleep_with_hooks(p);
    }
    if (p->woken != NULL) {
        p->woken(p->arg, p->token);
    }
    return PYRT_OK;
}

pyrt_status
pyrt_park(const void *address, bool (*validate)(void *arg), bool (*before_sleep)(void *arg), void *arg, int64_t timeout_ns,
          unsigned flags, uintptr_t *token)
{
    if ((flags & ~(unsigned)(PYRT_LOCK_NO_DETACH | PYRT_LOCK_INTERRUPTIBLE | PYRT_PARK_FRONT)) != 0) {
        return PYRT_EINVAL;
    }
    pyrt_parking parking = {
        .address = address,
        .function = "pyrt_park",
        .validate = validate,
        .before_sleep = before_sleep,
        .arg = arg,
        .deadline = timeout_ns == 0 ? 0 : pyrt_deadline_after(timeout_ns),
        .since = (flags & PYRT_PARK_FRONT) != 0 || timeout_ns == 0 ? 0 : pyrt_now_ns(),
        .flags = flags,
        .look_at = INT64_MAX,
    };
    pyrt_status status = pyrt_park_as(&parking);
    if (status == PYRT_OK && token != NULL) {
        *token = parking.token;
    }
    return status;
}

/* ---- unparking --------------------------------------------------------------------------------------------------- */

/* The thread may be gone as soon as `awake` is set: after that its address is only a key of the kernel's, which wakes, at
 * the worst, somebody who looks again. */
static void
wake(pyrt_parking *p)
{
    const uint32_t *word = &p->awake;
    /* release: pairs with the acquire in is_awake. */
    pyrt_store_release(&p->awake, 1u);
    pyrt_futex_wake(word, 1);
}

/* A chain of waits that have left their queue, by `next`. */
static size_t
wake_all(pyrt_parking *chain)
{
    size_t count = 0;
    while (chain != NULL) {
        pyrt_parking *next = chain->next;
        wake(chain);
        chain = next;
        count++;
    }
    return count;
}

bool
pyrt_unpark_one(const void *address, uintptr_t (*callback)(const pyrt_unparked *, void *arg), void *arg)
{
    bucket *b = lock_bucket(address);
    pyrt_parking *p = first_of(b->first, address);
    pyrt_unparked unparked = {.found = p != NULL};
    if (p != NULL) {
        unparked.more = first_of(p->next, address) != NULL;
        unparked.waiter = p->arg;
        unparked.since = p->since;
        dequeue(b, p);
    }
    uintptr_t token = callback != NULL ? callback(&unparked, arg) : 0;
    if (p != NULL) {
        p->token = token;
    }
    pyrt_raw_mutex_unlock(&b->lock);
    if (p != NULL) {
        wake(p);
    }
    return p != NULL;
}

/* Takes up to `count` of an address out of a locked bucket and appends them to a chain. */
static pyrt_parking **
take_out(bucket *b, const void *address, size_t count, uintptr_t token, pyrt_parking **end)
{
    pyrt_parking *p = first_of(b->first, address);
    while (p != NULL && count-- > 0) {
        pyrt_parking *next = first_of(p->next, address);
        dequeue(b, p);
        p->token = token;
        p->next = NULL;
        *end = p;
        end = &p->next;
        p = next;
    }
    return end;
}

size_t
pyrt_unpark_all(const void *address, uintptr_t token)
{
    pyrt_parking *chain = NULL;
    bucket *b = lock_bucket(address);
    (void)take_out(b, address, SIZE_MAX, token, &chain);
    pyrt_raw_mutex_unlock(&b->lock);
    return wake_all(chain);
}

pyrt_requeued
pyrt_requeue(const void *from, const void *to, size_t wake_count, size_t move, uintptr_t token, bool (*validate)(void *arg),
             void *arg)
{
    bucket *source = bucket_of(from);
    bucket *target = bucket_of(to);
    bucket *low = source < target ? source : target;
    bucket *high = source < target ? target : source;
    pyrt_parking *chain = NULL;
    pyrt_requeued done = {0, 0};
    int64_t moved_at = pyrt_now_ns();
    pyrt_raw_mutex_lock(&low->lock);
    if (high != low) {
        pyrt_raw_mutex_lock(&high->lock);
    }
    if (validate == NULL || validate(arg)) {
        (void)take_out(source, from, wake_count, token, &chain);
        pyrt_parking *p;
        while (from != to && done.moved < move && (p = first_of(source->first, from)) != NULL) {
            dequeue(source, p);
            /* It begins to wait for that now: neither its time on the other queue makes it the next owner, nor is the order
             * disturbed. */
            p->since = moved_at;
            enqueue(target, p, to, NULL);
            done.moved++;
        }
    }
    if (high != low) {
        pyrt_raw_mutex_unlock(&high->lock);
    }
    pyrt_raw_mutex_unlock(&low->lock);
    done.woken = wake_all(chain);
    return done;
}

bool
pyrt_parking_is_queue_empty(const void *address)
{
    return first_of(bucket_of(address)->first, address) == NULL;
}

size_t
pyrt_parked_count(const void *address)
{
    size_t count = 0;
    bucket *b = lock_bucket(address);
    for (pyrt_parking *p = first_of(b->first, address); p != NULL; p = first_of(p->next, address)) {
        count++;
    }
    pyrt_raw_mutex_unlock(&b->lock);
    return count;
}

/* ---- the floor above, and forks ---------------------------------------------------------------------------------- */

void
pyrt_waiting_set_hooks(const pyrt_waiting_hooks *new_hooks)
{
    hooks = *new_hooks;
}

bool
pyrt_waiting_stands_still(uint64_t os_id)
{
    return hooks.stands_still != NULL && hooks.stands_still(os_id);
}

/* The waits are on stacks of threads that are not there any more. */
void
pyrt_parking_lot_fork_child(void)
{
    for (size_t i = 0; i < PYRT_PARKING_CELLS; i++) {
        bucket *b = &buckets[i];
        /* Only what is not as it should be: this is not to copy every page. */
        if (b->lock.word != 0 || b->first != NULL) {
            pyrt_raw_mutex_reinit(&b->lock);
            b->first = b->last = NULL;
        }
        if ((pyrt_load_relaxed(&pyrt_parking_cells[i]) & ~PYRT_PARKED_ALWAYS) != 0) {
            pyrt_fetch_and_seq_cst(&pyrt_parking_cells[i], PYRT_PARKED_ALWAYS);
        }
    }
    pyrt_store_relaxed(&membarrier_registered, false);
}
