/* lock_holds.c -- which thread holds which locks since when, which it sleeps on, and what is told of that.
 *
 * Invariant: a hold is in the list of its thread, and counted by its lock; a thread has an entry as long as it has holds or
 * sleeps. taken == released + lost + held. Guarded by pyrt_watch.lock.
 */
#include "platform/futex.h"
#include "platform/os_thread.h"
#include "platform/report.h"
#include "sync/lock_tables.h"

#include <string.h>

/* ---- threads --------------------------------------------------------------------------------------------------------- */

static uint32_t *
thread_head(watch_tables *t, uint64_t os_id)
{
    return &t->thread_heads[os_id % WATCH_THREAD_HASH];
}

uint32_t
pyrt_watch_find_thread(watch_tables *t)
{
    uint64_t os_id = pyrt_tls()->os_id;
    uint32_t i = os_id == 0 ? 0 : *thread_head(t, os_id);
    while (i != 0 && t->threads[i].os_id != os_id) {
        i = t->threads[i].next;
    }
    return i;
}

uint32_t
pyrt_watch_make_thread(watch_tables *t, watch_lines *lines)
{
    uint32_t thread = pyrt_watch_find_thread(t);
    uint64_t os_id = pyrt_tls()->os_id;
    if (thread != 0 || os_id == 0) {
        return thread;
    }
    thread = t->threads_pool.free;
    if (thread != 0) {
        t->threads_pool.free = t->threads[thread].next;
    }
    else if (t->threads_pool.used < PYRT_LOCK_DEBUG_THREADS - 1) {
        thread = ++t->threads_pool.used;
    }
    else {
        pyrt_watch_forgot(t, lines, "threads that hold locks", PYRT_LOCK_DEBUG_THREADS);
        return 0;
    }
    uint32_t *head = thread_head(t, os_id);
    watched_thread *new = &t->threads[thread];
    *new = (watched_thread){.os_id = os_id, .next = *head, .os_tid = pyrt_os_thread_tid()};
    pyrt_os_thread_name(new->name);
    *head = thread;
    return thread;
}

void
pyrt_watch_drop_thread(watch_tables *t, uint32_t thread)
{
    watched_thread *old = &t->threads[thread];
    if (old->holds != 0 || old->waits_for != NULL) {
        return;
    }
    uint32_t *link = thread_head(t, old->os_id);
    while (*link != thread) {
        link = &t->threads[*link].next;
    }
    *link = old->next;
    *old = (watched_thread){.next = t->threads_pool.free};
    t->threads_pool.free = thread;
}

/* ---- holds ----------------------------------------------------------------------------------------------------------- */

bool
pyrt_watch_add_hold(watch_tables *t, uint32_t lock, uint32_t thread, watch_lines *lines)
{
    uint32_t hold = t->holds_pool.free;
    if (hold != 0) {
        t->holds_pool.free = t->holds[hold].next;
    }
    else if (t->holds_pool.used < PYRT_LOCK_DEBUG_HOLDS - 1) {
        hold = ++t->holds_pool.used;
    }
    else {
        pyrt_watch_forgot(t, lines, "locks held at once", PYRT_LOCK_DEBUG_HOLDS);
        return false;
    }
    t->holds[hold] =
        (watched_hold){.lock = lock, .thread = thread, .next = t->threads[thread].holds, .since = pyrt_now_ns()};
    t->threads[thread].holds = hold;
    t->locks[lock].holds++;
    t->stats.taken++;
    t->stats.held++;
    return true;
}

uint32_t
pyrt_watch_find_hold(const watch_tables *t, uint32_t lock, uint32_t thread)
{
    if (lock == 0 || t->locks[lock].holds == 0) {
        return 0;
    }
    if (thread != 0) {
        uint32_t hold = t->threads[thread].holds;
        while (hold != 0 && t->holds[hold].lock != lock) {
            hold = t->holds[hold].next;
        }
        return hold;
    }
    for (uint32_t hold = 1; hold <= t->holds_pool.used; hold++) {
        if (t->holds[hold].lock == lock) {
            return hold;
        }
    }
    return 0;
}

void
pyrt_watch_end_hold(watch_tables *t, uint32_t hold)
{
    watched_hold *h = &t->holds[hold];
    watched_thread *thread = &t->threads[h->thread];
    uint32_t *link = &thread->holds;
    while (*link != hold) {
        link = &t->holds[*link].next;
    }
    *link = h->next;
    t->locks[h->lock].holds--;
    t->stats.held--;
    pyrt_watch_drop_thread(t, h->thread);
    *h = (watched_hold){.next = t->holds_pool.free};
    t->holds_pool.free = hold;
}

void
pyrt_watch_lose_holds(watch_tables *t, uint32_t lock)
{
    uint32_t hold;
    while ((hold = pyrt_watch_find_hold(t, lock, 0)) != 0) {
        pyrt_watch_end_hold(t, hold);
        t->stats.lost++;
    }
}

/* ---- asking ---------------------------------------------------------------------------------------------------------- */

static pyrt_lock_hold
describe(const void *lock, const watched_thread *thread, int64_t since, int64_t now)
{
    pyrt_lock_hold h = {.lock = lock, .since_ns = now - since, .os_tid = thread->os_tid};
    char class[PYRT_LOCK_NAME];
    (void)pyrt_watch_name(lock, h.name, class);
    memcpy(h.thread_name, thread->name, sizeof(h.thread_name));
    return h;
}

/* Holds by their numbers, then waits by those of their threads, from *cursor on; false: there are no more. */
static bool
next_hold(const watch_tables *t, uint32_t *cursor, int64_t now, pyrt_lock_hold *out)
{
    while (t != NULL && *cursor < t->holds_pool.used) {
        const watched_hold *h = &t->holds[++*cursor];
        if (h->lock != 0) {
            *out = describe(t->locks[h->lock].address, &t->threads[h->thread], h->since, now);
            return true;
        }
    }
    if (*cursor < PYRT_LOCK_DEBUG_HOLDS) {
        *cursor = PYRT_LOCK_DEBUG_HOLDS;
    }
    while (t != NULL && *cursor - PYRT_LOCK_DEBUG_HOLDS < t->threads_pool.used) {
        const watched_thread *thread = &t->threads[++*cursor - PYRT_LOCK_DEBUG_HOLDS];
        if (thread->waits_for != NULL) {
            *out = describe(thread->waits_for, thread, thread->waits_since, now);
            out->waits = 1;
            out->attached = thread->attached;
            return true;
        }
    }
    return false;
}

size_t
pyrt_lock_holds(pyrt_lock_hold *out, size_t capacity)
{
    size_t count = 0;
    uint32_t cursor = 0;
    pyrt_lock_hold hold;
    pyrt_raw_mutex_lock(&pyrt_watch.lock);
    /* One moment for all: of two holds the longer one is seen to be longer. */
    int64_t now = pyrt_now_ns();
    while (next_hold(pyrt_watch.tables, &cursor, now, &hold)) {
        if (out != NULL && count < capacity) {
            out[count] = hold;
        }
        count++;
    }
    pyrt_raw_mutex_unlock(&pyrt_watch.lock);
    return count;
}

uint64_t
pyrt_watch_holder(const void *lock, pyrt_lock_hold *out)
{
    uint64_t os_id = 0;
    pyrt_raw_mutex_lock(&pyrt_watch.lock);
    watch_tables *t = pyrt_watch.tables;
    uint32_t hold = t == NULL ? 0 : pyrt_watch_find_hold(t, pyrt_watch_find_lock(t, lock), 0);
    if (hold != 0) {
        *out = describe(lock, &t->threads[t->holds[hold].thread], t->holds[hold].since, pyrt_now_ns());
        os_id = t->threads[t->holds[hold].thread].os_id;
    }
    pyrt_raw_mutex_unlock(&pyrt_watch.lock);
    return os_id;
}

pyrt_status
pyrt_lock_holder(const void *lock, pyrt_lock_hold *out)
{
    if (out == NULL) {
        return PYRT_EINVAL;
    }
    return pyrt_watch_holder(lock, out) != 0 ? PYRT_OK : PYRT_ENOTFOUND;
}

static double
milliseconds(int64_t ns)
{
    return (double)ns / 1e6;
}

/* One at a time, because the hook may use locks. What changes meanwhile may be seen or not. */
size_t
pyrt_lock_report(void)
{
    size_t count = 0;
    uint32_t cursor = 0;
    pyrt_lock_debug_stats stats = {.struct_size = sizeof(stats)};
    for (;;) {
        pyrt_lock_hold h;
        pyrt_raw_mutex_lock(&pyrt_watch.lock);
        bool more = next_hold(pyrt_watch.tables, &cursor, pyrt_now_ns(), &h);
        pyrt_raw_mutex_unlock(&pyrt_watch.lock);
        if (!more) {
            break;
        }
        pyrt_report("thread '%s' (%d) %s '%s' for %.3f ms%s", h.thread_name, h.os_tid,
                    h.waits ? "has waited for" : "has held", h.name, milliseconds(h.since_ns),
                    h.attached ? ", attached: pauses wait for it" : "");
        count++;
    }
    (void)pyrt_lock_debug_stats_read(&stats);
    if (stats.longest_ns > 0) {
        pyrt_report("longest hold: thread '%s' (%d) held '%s' for %.3f ms", stats.longest_thread, stats.longest_tid,
                    stats.longest_name, milliseconds(stats.longest_ns));
        count++;
    }
    return count;
}
