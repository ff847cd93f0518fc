/* lock_debug.c -- the switch of lock debugging, and what locks tell it (lock_watch.h).
 *
 * Switching on makes the tables, marks every cell of the parking lot (PYRT_PARKED_ALWAYS), so that no unlock takes the short
 * way, and an unlock by the long way marks its mutex, so that no lock does either. What is held at that time is not known;
 * its unlock is of a hold that nobody has seen, and is passed over. Switching off undoes all but the marks on mutexes, which
 * their next long way takes off.
 *
 * State table of pyrt_lock_watching:
 *   0  off   set first when it is switched off: the tables go after it, under pyrt_watch.lock
 *   1  on    set last when it is switched on, under switch_lock
 * Who has read 1 therefore looks again, under pyrt_watch.lock, whether there are tables.
 */
#include "platform/futex.h"
#include "platform/meta_alloc.h"
#include "platform/os_thread.h"
#include "platform/report.h"
#include "sync/lock_tables.h"
#include "sync/waiting.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { ATTACHED_BOUND_NS = 10000000 };

uint32_t pyrt_lock_watching;

struct pyrt_watch_state pyrt_watch = {.bound = ATTACHED_BOUND_NS};

/* One switches at a time. Taken before pyrt_watch.lock. */
static pyrt_raw_mutex switch_lock;

/* This OS thread is inside the report hook: what it locks there is watched, but nothing is reported of it. */
static __thread bool reporting __attribute__((tls_model("initial-exec")));

/* ---- reporting ------------------------------------------------------------------------------------------------------- */

void
pyrt_watch_say(watch_lines *lines, const char *format, ...)
{
    if (lines->count >= WATCH_LINES) {
        return;
    }
    va_list args;
    va_start(args, format);
    vsnprintf(lines->text[lines->count++], WATCH_LINE, format, args);
    va_end(args);
}

void
pyrt_watch_forgot(watch_tables *t, watch_lines *lines, const char *what, unsigned room)
{
    t->stats.forgotten++;
    if (!t->said_full) {
        t->said_full = true;
        pyrt_watch_say(lines, "lock debugging: more than %u %s; the oldest is forgotten from here on", room - 1, what);
    }
}

static void
report_lines(const watch_lines *lines)
{
    if (reporting) {
        return;
    }
    reporting = true;
    for (int i = 0; i < lines->count; i++) {
        pyrt_report("%s", lines->text[i]);
    }
    reporting = false;
}

/* ---- the switch ------------------------------------------------------------------------------------------------------ */

static pyrt_status
switch_on(void)
{
    watch_tables *t = pyrt_meta_alloc(sizeof(watch_tables));
    if (t == NULL) {
        return PYRT_ENOMEM;
    }
    pyrt_raw_mutex_lock(&pyrt_watch.lock);
    pyrt_watch.tables = t;
    pyrt_raw_mutex_unlock(&pyrt_watch.lock);
    pyrt_parking_set_always(true);
    /* release: pairs with the acquire in pyrt_lock_watch_is_on. */
    pyrt_store_release(&pyrt_lock_watching, 1u);
    return PYRT_OK;
}

static void
switch_off(void)
{
    /* relaxed: who misses it looks for the tables. */
    pyrt_store_relaxed(&pyrt_lock_watching, 0u);
    pyrt_raw_mutex_lock(&pyrt_watch.lock);
    watch_tables *t = pyrt_watch.tables;
    pyrt_watch.tables = NULL;
    pyrt_raw_mutex_unlock(&pyrt_watch.lock);
    pyrt_meta_free(t, sizeof(watch_tables));
    pyrt_parking_set_always(false);
}

pyrt_status
pyrt_lock_debug(bool on)
{
    pyrt_status status = PYRT_OK;
    pyrt_raw_mutex_lock(&switch_lock);
    if (on && !pyrt_lock_watch_is_on()) {
        status = switch_on();
    }
    else if (!on && pyrt_lock_watch_is_on()) {
        switch_off();
    }
    pyrt_raw_mutex_unlock(&switch_lock);
    return status;
}

void
pyrt_lock_debug_set_bound(int64_t attached_wait_ns)
{
    pyrt_store_relaxed(&pyrt_watch.bound, attached_wait_ns);
}

pyrt_status
pyrt_lock_debug_stats_read(pyrt_lock_debug_stats *out)
{
    if (out == NULL || out->struct_size != sizeof(*out)) {
        return PYRT_EINVAL;
    }
    pyrt_raw_mutex_lock(&pyrt_watch.lock);
    *out = pyrt_watch.tables == NULL ? (pyrt_lock_debug_stats){.on = 0} : pyrt_watch.tables->stats;
    out->on = pyrt_watch.tables != NULL;
    pyrt_raw_mutex_unlock(&pyrt_watch.lock);
    out->struct_size = sizeof(*out);
    return PYRT_OK;
}

/* ---- what locks tell -------------------------------------------------------------------------------------------------- */

/* The tables, locked, or NULL with nothing locked. The thread gets its identity, without which it is not followed. */
static watch_tables *
enter(void)
{
    if (pyrt_tls()->os_id == 0) {
        (void)pyrt_os_thread_register();
    }
    pyrt_raw_mutex_lock(&pyrt_watch.lock);
    watch_tables *t = pyrt_watch.tables;
    if (t == NULL) {
        pyrt_raw_mutex_unlock(&pyrt_watch.lock);
    }
    return t;
}

static void
leave(const watch_lines *lines)
{
    pyrt_raw_mutex_unlock(&pyrt_watch.lock);
    if (lines->count != 0) {
        report_lines(lines);
    }
}

/* It is not the lock any more that was known at this address. */
static void
start_anew(watch_tables *t, uint32_t lock)
{
    if (lock != 0) {
        pyrt_watch_lose_holds(t, lock);
        pyrt_watch_reset_lock(t, lock);
    }
}

void
pyrt_watch_asks(const void *lock, bool fresh)
{
    watch_lines lines;
    lines.count = 0;
    watch_tables *t = enter();
    if (t == NULL) {
        return;
    }
    if (fresh) {
        start_anew(t, pyrt_watch_find_lock(t, lock));
    }
    uint32_t thread = pyrt_watch_find_thread(t);
    uint32_t asked = thread != 0 && t->threads[thread].holds != 0 ? pyrt_watch_make_lock(t, lock, &lines) : 0;
    for (uint32_t hold = asked != 0 ? t->threads[thread].holds : 0; hold != 0; hold = t->holds[hold].next) {
        uint32_t held = t->holds[hold].lock;
        if (t->holds[hold].suspendable) {
            continue;
        }
        if (held == asked) {
            t->stats.cycles++;
            pyrt_watch_say(&lines, "lock order cycle: thread '%s' (%d) holds '%s' and asks for it again",
                           t->threads[thread].name, t->threads[thread].os_tid, t->locks[held].name);
            continue;
        }
        pyrt_watch_add_order(t, held, asked, &t->threads[thread], &lines);
    }
    leave(&lines);
}

void
pyrt_watch_took(const void *lock)
{
    watch_lines lines;
    lines.count = 0;
    watch_tables *t = enter();
    if (t == NULL) {
        return;
    }
    uint32_t taken = pyrt_watch_make_lock(t, lock, &lines);
    if (taken != 0) {
        /* Who had it according to the table let it go unseen. */
        pyrt_watch_lose_holds(t, taken);
        uint32_t thread = pyrt_watch_make_thread(t, &lines);
        if (thread != 0 && !pyrt_watch_add_hold(t, taken, thread, &lines)) {
            pyrt_watch_drop_thread(t, thread);
        }
    }
    leave(&lines);
}

void
pyrt_watch_suspendable(const void *lock)
{
    watch_lines none = {.count = 0};
    watch_tables *t = lock != NULL ? enter() : NULL;
    if (t == NULL) {
        return;
    }
    uint32_t thread = pyrt_watch_find_thread(t);
    uint32_t hold = thread == 0 ? 0 : pyrt_watch_find_hold(t, pyrt_watch_find_lock(t, lock), thread);
    if (hold != 0) {
        t->holds[hold].suspendable = true;
    }
    leave(&none);
}

static void
note_longest(watch_tables *t, const watched_hold *hold)
{
    int64_t ns = pyrt_now_ns() - hold->since;
    if (ns <= t->stats.longest_ns) {
        return;
    }
    t->stats.longest_ns = ns;
    t->stats.longest_tid = t->threads[hold->thread].os_tid;
    memcpy(t->stats.longest_name, t->locks[hold->lock].name, sizeof(t->stats.longest_name));
    memcpy(t->stats.longest_thread, t->threads[hold->thread].name, sizeof(t->stats.longest_thread));
}

void
pyrt_watch_lets_go(const void *lock, bool fresh)
{
    watch_lines none = {.count = 0};
    watch_tables *t = enter();
    if (t == NULL) {
        return;
    }
    uint32_t known = pyrt_watch_find_lock(t, lock);
    if (fresh) {
        start_anew(t, known);
    }
    /* Most often it is its own; a mutex may also be unlocked by another thread. */
    uint32_t thread = pyrt_watch_find_thread(t);
    uint32_t hold = pyrt_watch_find_hold(t, known, thread);
    if (hold == 0 && thread != 0) {
        hold = pyrt_watch_find_hold(t, known, 0);
    }
    if (hold != 0) {
        note_longest(t, &t->holds[hold]);
        pyrt_watch_end_hold(t, hold);
        t->stats.released++;
    }
    leave(&none);
}

/* ---- sleeping ------------------------------------------------------------------------------------------------------- */

void
pyrt_watch_sleeps(const void *address)
{
    watch_lines lines;
    lines.count = 0;
    bool attached = pyrt_tls()->current != NULL;
    watch_tables *t = enter();
    if (t == NULL) {
        return;
    }
    uint32_t thread = pyrt_watch_make_thread(t, &lines);
    if (thread != 0) {
        t->threads[thread].attached = attached;
        t->threads[thread].waits_for = address;
        t->threads[thread].waits_since = pyrt_now_ns();
    }
    uint32_t lock = attached ? pyrt_watch_make_lock(t, address, &lines) : 0;
    t->stats.attached_sleeps += attached;
    if (lock != 0 && thread != 0 && !t->locks[lock].slept_attached) {
        t->locks[lock].slept_attached = true;
        uint32_t hold = pyrt_watch_find_hold(t, lock, 0);
        const char *owner = hold == 0 ? "not known" : t->threads[t->holds[hold].thread].name;
        pyrt_watch_say(&lines, "thread '%s' (%d) sleeps attached on '%s' (held by %s%s%s): pauses wait for it",
                       t->threads[thread].name, t->threads[thread].os_tid, t->locks[lock].name, hold == 0 ? "" : "thread '",
                       owner, hold == 0 ? "" : "'");
    }
    leave(&lines);
}

void
pyrt_watch_woke(const void *address)
{
    watch_lines lines;
    lines.count = 0;
    watch_tables *t = enter();
    if (t == NULL) {
        return;
    }
    uint32_t thread = pyrt_watch_find_thread(t);
    if (thread != 0 && t->threads[thread].waits_for == address) {
        watched_thread *self = &t->threads[thread];
        int64_t slept = pyrt_now_ns() - self->waits_since;
        if (self->attached && slept > pyrt_load_relaxed(&pyrt_watch.bound)) {
            char name[PYRT_LOCK_NAME];
            char class[PYRT_LOCK_NAME];
            (void)pyrt_watch_name(address, name, class);
            pyrt_watch_say(&lines, "thread '%s' (%d) slept attached on '%s' for %.3f ms; the bound is %.3f ms", self->name,
                           self->os_tid, name, (double)slept / 1e6, (double)pyrt_load_relaxed(&pyrt_watch.bound) / 1e6);
        }
        self->waits_for = NULL;
        pyrt_watch_drop_thread(t, thread);
    }
    leave(&lines);
}

/* ---- ends ----------------------------------------------------------------------------------------------------------- */

void
pyrt_watch_thread_ends(void)
{
    if (!pyrt_lock_watch_is_on()) {
        return;
    }
    for (;;) {
        watch_lines lines;
        lines.count = 0;
        watch_tables *t = enter();
        if (t == NULL) {
            return;
        }
        uint32_t thread = pyrt_watch_find_thread(t);
        if (thread != 0) {
            t->threads[thread].waits_for = NULL;
            pyrt_watch_drop_thread(t, thread);
        }
        uint32_t hold = t->threads[thread].holds;
        if (thread == 0 || hold == 0) {
            leave(&lines);
            return;
        }
        pyrt_watch_say(&lines, "thread '%s' (%d) ended while it held '%s', for %.3f ms by then", t->threads[thread].name,
                       t->threads[thread].os_tid, t->locks[t->holds[hold].lock].name,
                       (double)(pyrt_now_ns() - t->holds[hold].since) / 1e6);
        pyrt_watch_end_hold(t, hold);
        t->stats.lost++;
        leave(&lines);
    }
}

/* ---- fork ----------------------------------------------------------------------------------------------------------- */

void
pyrt_watch_fork_prepare(void)
{
    pyrt_raw_mutex_lock(&switch_lock);
    pyrt_raw_mutex_lock(&pyrt_watch.lock);
}

void
pyrt_watch_fork_parent(void)
{
    pyrt_raw_mutex_unlock(&pyrt_watch.lock);
    pyrt_raw_mutex_unlock(&switch_lock);
}

void
pyrt_watch_fork_child(void)
{
    pyrt_raw_mutex_reinit(&switch_lock);
    pyrt_raw_mutex_reinit(&pyrt_watch.lock);
    watch_tables *t = pyrt_watch.tables;
    if (t == NULL) {
        return;
    }
    uint32_t self = pyrt_watch_find_thread(t);
    for (uint32_t hold = 1; hold <= t->holds_pool.used; hold++) {
        if (t->holds[hold].lock != 0 && t->holds[hold].thread != self) {
            pyrt_watch_end_hold(t, hold);
            t->stats.lost++;
        }
    }
    for (uint32_t thread = 1; thread <= t->threads_pool.used; thread++) {
        if (t->threads[thread].os_id != 0 && thread != self) {
            t->threads[thread].waits_for = NULL;
            pyrt_watch_drop_thread(t, thread);
        }
    }
    if (self != 0) {
        t->threads[self].os_tid = pyrt_os_thread_tid();
    }
}
