/* locking.h -- threads that lock one mutex step by step, and a host that keeps them after their sleep. */
#ifndef TESTS_C_LOCKING_H
#define TESTS_C_LOCKING_H

#include "steps.h"
#include "support.h"
#include "workers.h"

#include "sync/waiting.h"

extern pyrt_mutex the_mutex;
uint8_t the_state(void);

/* A thread that is led to lock the_mutex. */
typedef struct locker {
    worker worker;
    pyrt_thread *thread; /* or NULL */
    int64_t timeout_ns;
    unsigned flags;
    pyrt_status status;
} locker;

/* On an OS thread of its own, without a thread state, until it is done or has ended. */
void begin_locking(locker *l);
void begin_locking_for(locker *l, int64_t timeout_ns, unsigned flags);

/* The same, attached to the main interpreter. */
void begin_attached(locker *l, unsigned flags);

/* It is parked; it has it; it has given up (and can be made to try again). */
void check_waits(locker *l);
void check_has_it(locker *l);
void check_gave_up(locker *l, pyrt_status status);

/* Unlocks if it has it, and ends it. */
void end_locker(locker *l);

/* Lets so much time go by that who is parked on the_mutex now gets it by reservation. */
void wait_until_fair(void);

/* Block hooks whose `after` keeps the thread, detached, until they let go, or does something (NULL: nothing any more). When
 * nobody can be in them any more, the host leaves. */
void host_keeps_waiters(void);
int waiters_kept(void);
int waiters_asleep(void); /* between the two hooks */
void host_lets_go(void);
void host_does(void (*what)(void));
void host_leaves(void);

#endif
