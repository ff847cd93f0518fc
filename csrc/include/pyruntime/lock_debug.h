/* SPDX-License-Identifier: MIT
 *
 * lock_debug.h -- watching locks while the program runs: in which order they are taken, who holds what for how long, and who
 * sleeps on one while attached. A switch for the whole process; off, it costs nothing.
 *
 * While it is on, every lock and unlock of a mutex takes the long way and is written down, which takes about a microsecond
 * for both. A mutex is seen from its second use on, or from the first if it was named while watching; likewise one that was
 * initialised anew. Of a read-write lock writers are seen, and readers that had to wait, by the mutex inside. What is said
 * goes to the report hook (status.h), a line each:
 *
 *   - a cycle in the order of locks, by names, when a lock is asked for that closes it: once per cycle, before the thread
 *     waits, and whether or not it comes to a deadlock this time. "A was held when B was asked for" is remembered after both
 *     were unlocked. A trylock cannot wait, so that nothing comes before it; locks of critical sections are given up in a
 *     wait, so that nothing comes behind them.
 *   - a thread that asks for what it holds, and will wait for ever;
 *   - a thread that sleeps on a lock while attached, so that pauses and reclamation wait for it: the first time for each
 *     lock, and each time that it lasted longer than the bound;
 *   - a thread that ended holding a lock.
 *
 * What a thread that ends leaves behind, whether watched or not:
 *
 *      a pyrt_mutex, recursive mutex, stripe     locked; reported while watched. Any thread may unlock a mutex or a stripe.
 *      a pyrt_seqlock as writer                  the same: any thread may end it
 *      a pyrt_rwlock as writer                   locked for good
 *      a pyrt_rwlock as reader                   unlocked, and reported
 *      a pyrt_once that it ran                   new: another one runs it
 *      a critical section                        its mutexes stay locked, if it was attached; reported
 *      a pause of the world                      started again
 *      a wait for any of them                    nothing: the wake-up, the reservation or the notification goes on to the next
 *
 * Memory is bounded: PYRT_LOCK_DEBUG_LOCKS locks and so on. Where that is not enough, the oldest is forgotten, which is
 * reported once and counted; the locks themselves never fail.
 */
#ifndef PYRUNTIME_LOCK_DEBUG_H
#define PYRUNTIME_LOCK_DEBUG_H

#include "mutex.h"

PYRT_BEGIN_DECLS

/* cdef: begin */
enum {
    PYRT_LOCK_NAME = 48,           /* bytes of a name with its end; longer ones are cut */
    PYRT_LOCK_DEBUG_NAMES = 1024,  /* names given */
    PYRT_LOCK_DEBUG_LOCKS = 4096,  /* locks and classes in the order */
    PYRT_LOCK_DEBUG_ORDERS = 16384, /* pairs in the order */
    PYRT_LOCK_DEBUG_HOLDS = 4096,  /* locks held at one moment */
    PYRT_LOCK_DEBUG_THREADS = 1024 /* threads that hold or wait at one moment */
};

/* A lock that a thread holds, or waits for, at one moment. */
typedef struct pyrt_lock_hold {
    const void *lock;
    int64_t since_ns;     /* for how long, in nanoseconds */
    int32_t os_tid;       /* the kernel's thread id */
    uint8_t waits;        /* 1: it sleeps on the lock and does not hold it */
    uint8_t attached;     /* 1: it waits attached */
    char name[48];        /* of the lock, as in reports */
    char thread_name[32];
} pyrt_lock_hold;

typedef struct pyrt_lock_debug_stats {
    uint32_t struct_size; /* in: sizeof(pyrt_lock_debug_stats) */
    uint32_t on;
    uint64_t taken;       /* locks and trylocks seen, since it was switched on; all numbers are */
    uint64_t released;    /* of those */
    uint64_t lost;        /* of those: the thread ended, or the lock was initialised anew */
    uint64_t held;        /* now: taken - released - lost */
    uint64_t orders;      /* pairs seen */
    uint64_t cycles;      /* reported */
    uint64_t attached_sleeps;
    uint64_t forgotten;   /* for want of room: locks, pairs, and locks or threads that could not be followed */
    int64_t longest_ns;   /* the longest that a lock was held, and which, by whom; of those released */
    int32_t longest_tid;
    char longest_name[48];
    char longest_thread[32];
} pyrt_lock_debug_stats;

/* Switches it on, with everything but names forgotten, or off. PYRT_ENOMEM: it stays off. Again is no error and changes
 * nothing.
 * blocks: shortly · allocates: yes · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_lock_debug(bool on);

/* Names a lock for reports; the name is copied, and kept also while debugging is off. NULL takes it away. Locks with equal
 * names are still different locks. PYRT_ENOMEM for the first name.
 * blocks: shortly · allocates: yes · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_lock_name(pyrt_mutex *mutex, const char *name);

/* Names a lock as one of a class, "every account's lock": the order is then that of classes, and only among locks of the
 * same class that of the locks. What is true of one lock is said of all.
 * blocks: shortly · allocates: yes · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_lock_name_class(pyrt_mutex *mutex, const char *name);

/* Names `count` mutexes that stand `stride` bytes apart "name[0]", "name[1]", and so on. PYRT_EINVAL for a count or stride
 * of 0.
 * blocks: shortly · allocates: yes · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_lock_name_array(pyrt_mutex *first, size_t count, size_t stride, const char *name);

/* Forgets all about the locks in a piece of memory, their names included: before it is used for something else.
 * blocks: shortly · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
void pyrt_lock_forget(const void *memory, size_t bytes);

/* What threads hold and wait for, at one moment. Fills in up to `capacity`, none if `out` is NULL, and answers how many there
 * are; 0 while it is off.
 * blocks: shortly · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
size_t pyrt_lock_holds(pyrt_lock_hold *out, size_t capacity);

/* Who holds this lock: PYRT_ENOTFOUND if nobody is known to. PYRT_EINVAL if `out` is NULL.
 * blocks: shortly · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_lock_holder(const void *lock, pyrt_lock_hold *out);

/* Reports all of them, a line each, and the longest hold; answers how many lines.
 * blocks: shortly · allocates: no · runs user code: the report hook · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
size_t pyrt_lock_report(void);

/* Reports every wait that lasted longer than this while attached; 10 ms in the beginning.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
void pyrt_lock_debug_set_bound(int64_t attached_wait_ns);

/* PYRT_EINVAL for NULL or a wrong struct_size.
 * blocks: shortly · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_lock_debug_stats_read(pyrt_lock_debug_stats *out);
/* cdef: end */

PYRT_END_DECLS
#endif /* PYRUNTIME_LOCK_DEBUG_H */
