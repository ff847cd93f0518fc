/* waiting.h -- what the locks of this floor wait with: the parking lot with all that a lock wants of it, and the hooks by
 * which the floor of the threads above detaches who waits.
 */
#ifndef PYRT_SYNC_WAITING_H
#define PYRT_SYNC_WAITING_H

#include <pyruntime/mutex.h>

/* What a caller of a timed form may ask for. */
#define PYRT_LOCK_FLAGS ((unsigned)(PYRT_LOCK_NO_DETACH | PYRT_LOCK_INTERRUPTIBLE))

/* ---- hooks of the floor above ------------------------------------------------------------------------------------ */

/* `detach` and `attach` stand around every sleep without PYRT_LOCK_NO_DETACH. `detach` is called when the thread is queued
 * and holds no lock of this library; it suspends critical sections and detaches the attached state, which it returns (NULL:
 * none). `attach` gets it back when the thread is not queued any more; it may wait for the end of a pause, and it calls
 * pyrt_mutex_give_back() before it does. `is_reading` reports, and says whether, `function` was called inside a counted
 * read-side section: the thread then waits without being detached. `stands_still` tells whether a pause keeps the OS thread
 * from running. None is called while a bucket is locked. */
typedef struct pyrt_waiting_hooks {
    void *(*detach)(void);
    void (*attach)(void *detached);
    bool (*is_reading)(const char *function);
    bool (*stands_still)(uint64_t os_id);
} pyrt_waiting_hooks;

/* From a constructor of the floor above. */
void pyrt_waiting_set_hooks(const pyrt_waiting_hooks *hooks);

/* The hook of the same name. */
bool pyrt_waiting_stands_still(uint64_t os_id);

/* ---- parking ----------------------------------------------------------------------------------------------------- */

/* One wait, on the stack of who waits; used again for its next try, when it was woken in vain. pyrt_park is made of it. */
typedef struct pyrt_parking {
    /* Given. */
    const void *address;
    const char *function;                       /* of the public call, as reports name it */
    bool (*validate)(void *arg);                /* as for pyrt_park; may be NULL */
    bool (*before_sleep)(void *arg);            /* as for pyrt_park; may be NULL */
    void (*asleep)(void *arg);                  /* or NULL: it sleeps next, whatever else there was to do is done */
    void (*woken)(void *arg, uintptr_t token);  /* or NULL: it was unparked; still detached, and the host's locks let go */
    void *arg;
    int64_t deadline;                           /* INT64_MAX: none */
    int64_t since;                              /* when it began to wait; the queue is in this order, so 0 is the head */
    unsigned flags;

    /* Given, and changed by before_sleep: at that time before_sleep is called again, in the sleep, and may end it with
     * false. INT64_MAX: never. */
    int64_t look_at;

    /* Answered. */
    uintptr_t token;                            /* what the unparker has handed over */
    bool interrupted;                           /* a signal handler ran, also if it was unparked all the same */

    /* The parking lot's: under the lock of the bucket, but for `key`, which a requeue changes under the locks of both. */
    struct pyrt_parking *next, *previous;
    bool queued;
    const void *key; /* the address that it is queued on now */
    uint32_t awake; /* 0, then 1: set by the unparker, who touches nothing of it after that */
} pyrt_parking;

/* As pyrt_park. */
pyrt_status pyrt_park_as(pyrt_parking *parking);

/* For `validate`, under the lock of the bucket: whether anybody is queued on the address. */
bool pyrt_parking_is_queue_empty(const void *address);

/* The heavy half of a lock whose unlock is a plain store: what other threads did before is visible to the caller after it,
 * or they look at the cell later. False: the kernel has failed, and the caller must look again after
 * PYRT_WITHOUT_MEMBARRIER_NS. Where membarrier is refused from the start all unlocks are read-modify-writes with a fence
 * behind them, and a fence is all that is done here. Called from before_sleep. */
bool pyrt_waiter_barrier(void);

/* Sets or clears PYRT_PARKED_ALWAYS in every cell, so that all unlocks take the long way; where the kernel refuses
 * membarrier it stays set. One caller at a time. */
void pyrt_parking_set_always(bool always);

/* In the child of a fork: nobody is parked any more. */
void pyrt_parking_lot_fork_child(void);

/* pyrt_mutex_lock_timed for a lock that has a mutex inside: until a moment, in the name of another function, and with
 * PYRT_PARK_FRONT at the head of the queue. */
pyrt_status pyrt_mutex_lock_until(pyrt_mutex *mutex, int64_t deadline, unsigned flags, const char *function);

/* ---- reservations ------------------------------------------------------------------------------------------------ */

/* What a thread is told with its token when it was parked on a mutex. */
enum { PYRT_MUTEX_TOKEN_FREE = 0, PYRT_MUTEX_TOKEN_RESERVED = 1 };

/* For `woken`, of a wait that was unparked by a mutex: writes down that this OS thread was woken for it, so that the
 * wake-up, and a reservation, goes on to others if the thread cannot take the mutex now. */
void pyrt_mutex_note_woken(const void *mutex, uintptr_t token);

/* Takes what was written down; true: the mutex was reserved, and belongs to the caller now. */
bool pyrt_mutex_claim(void *mutex);

/* Before a wait after which something is owed: the host may end this OS thread in its hook, and the exit hook then gives
 * back. Without memory for that, a reservation is taken after its time. */
void pyrt_waiter_may_end(void);

/* Gives back what this OS thread was woken for, if anything: it cannot take it now. Called before every sleep that is not
 * the wait itself (attach in a pause, a lock further in), and when an OS thread ends in the middle of a wait. */
void pyrt_mutex_give_back(void);

/* The same for the writer of a pyrt_rwlock that sleeps until the readers are gone; done by pyrt_mutex_give_back. */
void pyrt_rwlock_give_back(void);

/* An OS thread ends: what it reads under is unlocked, and its row of slots is another's. Last of all that may lock. */
void pyrt_rwlock_end_of_os_thread(void);

/* In the child of a fork: the slots of other threads are free. */
void pyrt_rwlock_fork_child(void);

#endif
