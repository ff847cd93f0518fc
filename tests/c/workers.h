/* workers.h -- OS threads for tests: one that is led step by step, a crowd that runs at once, and ways to wait for a state.
 *
 * Nothing here sleeps to synchronise. WAIT_UNTIL looks at a condition again and again; its deadline is a guard against
 * hanging and no part of a check.
 */
#ifndef TESTS_C_WORKERS_H
#define TESTS_C_WORKERS_H

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

/* ---- a thread that is led ---------------------------------------------------------------------------------------- */

/* Runs the functions that it is handed, one after the other, on an OS thread of its own. */
typedef struct worker {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    void (*step)(void *); /* what to do, NULL while idle */
    void *arg;
    bool leaving;
} worker;

void worker_start(worker *w);

/* Hands over a step and returns at once; worker_finish waits until it is done. */
void worker_begin(worker *w, void (*step)(void *), void *arg);
void worker_finish(worker *w);
bool worker_is_busy(worker *w);

/* Both at once. */
void worker_do(worker *w, void (*step)(void *), void *arg);

/* Lets the thread return from its start function, and waits until it is gone, thread-exit destructors included. */
void worker_end(worker *w);

/* Waits for a thread whose step ended it with pthread_exit. */
void worker_join_exited(worker *w);

/* ---- a crowd ----------------------------------------------------------------------------------------------------- */

/* Runs fn(arg, number) on `count` OS threads, which start together, and waits for all of them. */
void run_crowd(int count, void (*fn)(void *arg, int number), void *arg);

/* ---- waiting for a state ----------------------------------------------------------------------------------------- */

/* Yields, and fails the test when a generous time has passed since `begun`, which starts as 0. */
void wait_a_moment(int64_t *begun, const char *file, int line, const char *text);

#define WAIT_UNTIL(condition)                                       \
    do {                                                            \
        int64_t begun_ = 0;                                         \
        while (!(condition)) {                                      \
            wait_a_moment(&begun_, __FILE__, __LINE__, #condition); \
        }                                                           \
    } while (0)

/* ---- who sleeps -------------------------------------------------------------------------------------------------- */

/* Sets block hooks that count. A thread is in here from shortly before it sleeps in the library until it has woken. */
void watch_sleepers(void);
void stop_watching_sleepers(void);
int sleepers(void);

/* How often a thread was about to sleep since watch_sleepers. */
int sleeps_begun(void);

#endif
