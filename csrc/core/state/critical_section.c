/* critical_section.c -- the long ways of critical sections: waiting, giving up, taking again, and naming misuse.
 *
 * Invariant: a thread never waits for a mutex while one of its sections holds another. Who must wait suspends the sections
 * around it first, and a section of two objects lets go of one before it waits for the other. So nobody who holds a
 * section's mutex waits for another such mutex, and there is no cycle.
 *
 * State table of a section, by the tag of the pointer to it and by its mutexes:
 *
 *   tag         mutex      meaning
 *   -           not NULL   active: it holds the mutex
 *   -           NULL       it holds nothing: it is just being begun or resumed, or was begun in a pause of its own
 *   SUSPENDED   any        it holds nothing, and wants its mutex back, if it has one
 *
 * The mutexes are written into a section when it holds them, not before: what suspends it in the middle of taking them finds
 * nothing to unlock.
 */
#include "platform/report.h"
#include "state/thread_impl.h"
#include "sync/lock_watch.h"

#include <pyruntime/critical_section.h>

static pyrt_critical_section *
section_of(uintptr_t tagged)
{
    return (pyrt_critical_section *)(tagged & ~(uintptr_t)PYRT_SECTION_TAGS);
}

/* The second mutex, in a section that has one. */
static pyrt_mutex **
second_of(uintptr_t tagged)
{
    return (tagged & PYRT_SECTION_TWO) != 0 ? &((pyrt_critical_section2 *)section_of(tagged))->second : NULL;
}

static bool
is_active(uintptr_t tagged)
{
    return tagged != 0 && (tagged & PYRT_SECTION_SUSPENDED) == 0;
}

static bool
holds(uintptr_t tagged, const pyrt_mutex *mutex)
{
    pyrt_mutex **second = second_of(tagged);
    return is_active(tagged) && (section_of(tagged)->mutex == mutex || (second != NULL && *second == mutex));
}

/* ---- taking mutexes ---------------------------------------------------------------------------------------------- */

/* What a section wants to take, or has taken; NULL: nothing. */
typedef struct pair {
    pyrt_mutex *first, *second;
} pair;

static void
unlock(pair held)
{
    if (held.second != NULL) {
        pyrt_mutex_unlock(held.second);
    }
    if (held.first != NULL) {
        pyrt_mutex_unlock(held.first);
    }
}

/* The one that was locked when it was tried is waited for next, with nothing held. */
static void
lock_both(pyrt_mutex *wait_for, pyrt_mutex *try)
{
    for (;;) {
        pyrt_mutex_lock(wait_for);
        if (pyrt_mutex_trylock(try)) {
            return;
        }
        pyrt_mutex_unlock(wait_for);
        pyrt_mutex *locked = try;
        try = wait_for;
        wait_for = locked;
    }
}

/* Inside a pause of its own nobody may wait: others stand still. What is locked all the same is left out. */
static pair
take(pair wanted, bool may_wait)
{
    if (!may_wait) {
        return (pair){wanted.first != NULL && pyrt_mutex_trylock(wanted.first) ? wanted.first : NULL,
                      wanted.second != NULL && pyrt_mutex_trylock(wanted.second) ? wanted.second : NULL};
    }
    if (wanted.first != NULL && wanted.second != NULL) {
        lock_both(wanted.first, wanted.second);
    }
    else if (wanted.first != NULL || wanted.second != NULL) {
        pyrt_mutex_lock(wanted.first != NULL ? wanted.first : wanted.second);
    }
    return wanted;
}

/* The same for an attached state, which gives them up when it must wait: nothing comes behind them in the order of locks. */
static pair
take_suspendable(pair wanted, bool may_wait)
{
    pair taken = take(wanted, may_wait);
    if (pyrt_lock_watch_is_on()) {
        pyrt_watch_suspendable(taken.first);
        pyrt_watch_suspendable(taken.second);
    }
    return taken;
}

/* ---- suspending and resuming ------------------------------------------------------------------------------------- */

static pair
mutexes_of(uintptr_t tagged)
{
    pyrt_mutex **second = second_of(tagged);
    return (pair){section_of(tagged)->mutex, second != NULL ? *second : NULL};
}

static void
set_mutexes(uintptr_t tagged, pair mutexes)
{
    pyrt_mutex **second = second_of(tagged);
    section_of(tagged)->mutex = mutexes.first;
    if (second != NULL) {
        *second = mutexes.second;
    }
}

void
pyrt_critical_sections_suspend(pyrt_thread *thread)
{
    uintptr_t *link = &thread->critical_sections;
    while (is_active(*link)) {
        unlock(mutexes_of(*link));
        *link |= PYRT_SECTION_SUSPENDED;
        link = &section_of(*link)->previous;
    }
}

/* The newest only. In a pause of its own it stays suspended if its mutexes cannot be had at once. */
void
pyrt_critical_sections_resume(pyrt_thread *thread)
{
    uintptr_t newest = thread->critical_sections;
    if (newest == 0 || is_active(newest)) {
        return;
    }
    bool may_wait = !pyrt_pause_is_mine(thread->interp);
    pair wanted = mutexes_of(newest);
    if (may_wait) {
        uintptr_t active = newest & ~(uintptr_t)PYRT_SECTION_SUSPENDED;
        set_mutexes(newest, (pair){NULL, NULL});
        thread->critical_sections = active;
        set_mutexes(active, take_suspendable(wanted, true));
        return;
    }
    pair taken = take_suspendable(wanted, false);
    if (taken.first == wanted.first && taken.second == wanted.second) {
        thread->critical_sections = newest & ~(uintptr_t)PYRT_SECTION_SUSPENDED;
        return;
    }
    unlock(taken);
}

void
pyrt_critical_sections_forget(pyrt_thread *thread)
{
    if (thread->critical_sections == 0) {
        return;
    }
    /* Where they lie on the stack there may be something else by now. */
    pyrt_report_thread("pyrt_critical_section_begin", thread,
                       is_active(thread->critical_sections) ? "ends inside of a critical section, whose mutex stays locked"
                                                            : "ends inside of a critical section");
    thread->critical_sections = 0;
}

/* ---- beginning --------------------------------------------------------------------------------------------------- */

/* Without an attached state: a plain lock. In any pause of its own: whose sections it may meet was not asked. */
static void
begin_plain(uintptr_t tagged, pair wanted)
{
    section_of(tagged)->previous = 0;
    section_of(tagged)->thread = NULL;
    set_mutexes(tagged, take(wanted, pyrt_tls()->pause == NULL));
}

static void
begin(uintptr_t tagged, pair wanted)
{
    pyrt_thread *thread = pyrt_thread_current();
    if (thread == NULL) {
        begin_plain(tagged, wanted);
        return;
    }
    uintptr_t newest = thread->critical_sections;
    set_mutexes(tagged, (pair){NULL, NULL});
    if (holds(newest, wanted.first) && (wanted.second == NULL || holds(newest, wanted.second))) {
        /* The section around it does what is to be done, also when the thread detaches. */
        section_of(tagged)->previous = 0;
        section_of(tagged)->thread = NULL;
        return;
    }
    pyrt_critical_sections_suspend(thread);
    section_of(tagged)->previous = thread->critical_sections;
    section_of(tagged)->thread = thread;
    thread->critical_sections = tagged;
    set_mutexes(tagged, take_suspendable(wanted, !pyrt_pause_is_mine(thread->interp)));
}

void
pyrt_critical_section_begin_slow(pyrt_critical_section *section, pyrt_mutex *mutex)
{
    begin((uintptr_t)section, (pair){mutex, NULL});
}

void
pyrt_critical_section2_begin_slow(pyrt_critical_section2 *section, pyrt_mutex *a, pyrt_mutex *b)
{
    bool ordered = (uintptr_t)a < (uintptr_t)b;
    begin((uintptr_t)section | PYRT_SECTION_TWO, (pair){ordered ? a : b, a == b ? NULL : ordered ? b : a});
}

/* ---- ending ------------------------------------------------------------------------------------------------------ */

/* The link to the section, or NULL if it is not open on the thread. */
static uintptr_t *
find_link(pyrt_thread *thread, const pyrt_critical_section *section)
{
    uintptr_t *link = &thread->critical_sections;
    while (*link != 0 && section_of(*link) != section) {
        link = &section_of(*link)->previous;
    }
    return *link != 0 ? link : NULL;
}

static void
end(uintptr_t tagged, const char *function)
{
    pyrt_critical_section *section = section_of(tagged);
    pyrt_thread *thread = section->thread;
    if (thread == NULL) {
        unlock(mutexes_of(tagged));
        return;
    }
    if (thread->os_id != pyrt_tls()->os_id) {
        pyrt_report_thread(function, thread, "belongs to another OS thread, which is in this critical section");
        return;
    }
    uintptr_t *link = find_link(thread, section);
    if (link == NULL) {
        pyrt_report_thread(function, thread, "is not in this critical section: it has ended already");
        return;
    }
    if (pyrt_thread_current() != thread) {
        pyrt_report_thread(function, thread, "is not attached on this OS thread");
    }
    else if (link != &thread->critical_sections) {
        pyrt_report_thread(function, thread, "is in a critical section that began later; end that first");
    }
    bool active = is_active(*link);
    *link = section->previous;
    if (active) {
        unlock(mutexes_of(tagged));
    }
    if (pyrt_thread_current() == thread) {
        pyrt_critical_sections_resume(thread);
    }
}

void
pyrt_critical_section_end_slow(pyrt_critical_section *section)
{
    end((uintptr_t)section, "pyrt_critical_section_end");
}

void
pyrt_critical_section2_end_slow(pyrt_critical_section2 *section)
{
    end((uintptr_t)section | PYRT_SECTION_TWO, "pyrt_critical_section2_end");
}

bool
pyrt_critical_section_holds(const pyrt_mutex *mutex)
{
    pyrt_thread *thread = pyrt_thread_current();
    uintptr_t tagged = thread != NULL ? thread->critical_sections : 0;
    while (is_active(tagged)) {
        if (holds(tagged, mutex)) {
            return true;
        }
        tagged = section_of(tagged)->previous;
    }
    return false;
}
