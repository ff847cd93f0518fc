/* SPDX-License-Identifier: MIT
 *
 * critical_section.h -- locks on objects that cannot deadlock, because they are given up whenever their thread detaches.
 *
 * A critical section is a place on the C stack that names one mutex, or two. The open sections of a thread form a stack. When
 * the thread detaches (to sleep on a contended lock, to stand still for a pause, by pyrt_detach) all of them are *suspended*:
 * their mutexes are unlocked. When it attaches, the newest one is *resumed*: locked again; an outer one is resumed when all
 * inner ones have ended. So only the newest section is held for sure, and after every call that may be quiescent what was
 * read under an outer one has to be looked at again. In return sections nest in any order, over the same object too.
 *
 * Inside of a pause of its own interpreter or of all that this thread has made, a section waits for nobody: the others have
 * given theirs up. It then holds nothing if the mutex is taken by something else than a section.
 *
 * Without an attached state a section is a plain lock of its mutexes, which nothing suspends: a second one of the same object
 * on top of it would wait for itself. It waits for nobody in any pause that this thread has made.
 *
 * A section begins and ends in the same C function (no return, goto or longjmp in between): it lies on the stack.
 */
#ifndef PYRUNTIME_CRITICAL_SECTION_H
#define PYRUNTIME_CRITICAL_SECTION_H

#include "mutex.h"
#include "thread.h"

PYRT_BEGIN_DECLS

/* cdef: begin */
/* Owner only. `previous` and pyrt_thread.critical_sections are pointers with two tag bits of the section pointed to:
 *   PYRT_SECTION_SUSPENDED   its mutexes were given up; so were those of all older ones
 *   PYRT_SECTION_TWO         it is a pyrt_critical_section2
 * It stands between the two that are known before the lock is taken: compilers would write neighbours with one wide store, which
 * across the end of a cache line costs the end of the section a nanosecond. */
typedef struct pyrt_critical_section {
    pyrt_thread *thread; /* whose stack it is on; NULL: on none, a plain lock, or nothing to do at its end */
    uintptr_t previous;
    pyrt_mutex *mutex; /* what it holds or wants back; NULL: nothing, the section around it or a pause keeps others away */
} pyrt_critical_section;

typedef struct pyrt_critical_section2 {
    pyrt_critical_section base; /* base.mutex has the lower address */
    pyrt_mutex *second; /* NULL: the same object twice */
} pyrt_critical_section2;
/* cdef: end */

#define PYRT_SECTION_SUSPENDED 1u
#define PYRT_SECTION_TWO 2u
#define PYRT_SECTION_TAGS 3u

/* The long ways of the inline functions; call those. */
void pyrt_critical_section_begin_slow(pyrt_critical_section *section, pyrt_mutex *mutex);
void pyrt_critical_section_end_slow(pyrt_critical_section *section);
void pyrt_critical_section2_begin_slow(pyrt_critical_section2 *section, pyrt_mutex *a, pyrt_mutex *b);
void pyrt_critical_section2_end_slow(pyrt_critical_section2 *section);

/* Begins a section on one object.
 * blocks: yes · allocates: no · runs user code: no · quiescent: may · needs attached: no, but then it is a plain lock ·
 * async-signal-safe: no */
static inline void
pyrt_critical_section_begin(pyrt_critical_section *section, pyrt_mutex *mutex)
{
    pyrt_thread *thread = PYRT_TLS.current;
    uint8_t unlocked = PYRT_MUTEX_UNLOCKED;
    /* acquire: as in pyrt_mutex_lock. */
    if (pyrt_unlikely(thread == NULL || !pyrt_cas_acquire(&mutex->state, &unlocked, (uint8_t)PYRT_MUTEX_LOCKED))) {
        PYRT_CALL(critical_section_begin_slow)(section, mutex);
        return;
    }
    section->previous = thread->critical_sections;
    section->mutex = mutex;
    section->thread = thread;
    thread->critical_sections = (uintptr_t)section;
}

/* Ends it. It is the newest of the thread; else that is reported, and it ends all the same. Resumes the one around it if
 * that is suspended.
 * blocks: if the section around it must be resumed · allocates: no · runs user code: no · quiescent: may · needs attached:
 * as the begin was · async-signal-safe: no */
static inline void
pyrt_critical_section_end(pyrt_critical_section *section)
{
    pyrt_thread *thread = section->thread;
    if (pyrt_unlikely(thread == NULL || thread->critical_sections != (uintptr_t)section || section->mutex == NULL ||
                      (section->previous & PYRT_SECTION_SUSPENDED) != 0)) {
        PYRT_CALL(critical_section_end_slow)(section);
        return;
    }
    thread->critical_sections = section->previous;
    pyrt_mutex_unlock(section->mutex);
}

/* The same for two objects at once, in any order; they may be the same. Never waits for one while it holds the other.
 * blocks: yes · allocates: no · runs user code: no · quiescent: may · needs attached: no, but then it is a plain lock ·
 * async-signal-safe: no */
static inline void
pyrt_critical_section2_begin(pyrt_critical_section2 *section, pyrt_mutex *a, pyrt_mutex *b)
{
    pyrt_thread *thread = PYRT_TLS.current;
    bool ordered = (uintptr_t)a < (uintptr_t)b;
    pyrt_mutex *lower = ordered ? a : b;
    pyrt_mutex *higher = ordered ? b : a;
    uint8_t unlocked = PYRT_MUTEX_UNLOCKED;
    /* acquire: as in pyrt_mutex_lock. */
    if (pyrt_likely(thread != NULL && a != b && pyrt_cas_acquire(&lower->state, &unlocked, (uint8_t)PYRT_MUTEX_LOCKED))) {
        unlocked = PYRT_MUTEX_UNLOCKED;
        if (pyrt_likely(pyrt_cas_acquire(&higher->state, &unlocked, (uint8_t)PYRT_MUTEX_LOCKED))) {
            section->base.previous = thread->critical_sections;
            section->base.mutex = lower;
            section->base.thread = thread;
            section->second = higher;
            thread->critical_sections = (uintptr_t)section | PYRT_SECTION_TWO;
            return;
        }
        pyrt_mutex_unlock(lower);
    }
    PYRT_CALL(critical_section2_begin_slow)(section, a, b);
}

/* Ends it, as pyrt_critical_section_end.
 * blocks: if the section around it must be resumed · allocates: no · runs user code: no · quiescent: may · needs attached:
 * as the begin was · async-signal-safe: no */
static inline void
pyrt_critical_section2_end(pyrt_critical_section2 *section)
{
    pyrt_thread *thread = section->base.thread;
    if (pyrt_unlikely(thread == NULL || thread->critical_sections != ((uintptr_t)section | PYRT_SECTION_TWO) ||
                      section->base.mutex == NULL || section->second == NULL ||
                      (section->base.previous & PYRT_SECTION_SUSPENDED) != 0)) {
        PYRT_CALL(critical_section2_end_slow)(section);
        return;
    }
    thread->critical_sections = section->base.previous;
    pyrt_mutex_unlock(section->second);
    pyrt_mutex_unlock(section->base.mutex);
}

/* cdef: begin */
/* Whether a section of the attached state holds the mutex at this moment: for assertions. A plain lock is not seen.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
bool pyrt_critical_section_holds(const pyrt_mutex *mutex);
/* cdef: end */

PYRT_END_DECLS
#endif /* PYRUNTIME_CRITICAL_SECTION_H */
