/* workers.c -- see workers.h. */
#include "workers.h"

#include "support.h"

#include <stdlib.h>
#include <time.h>

enum { PATIENCE_S = 50 };

/* ---- a thread that is led ---------------------------------------------------------------------------------------- */

static void *
lead(void *arg)
{
    worker *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->leaving) {
        if (w->step == NULL) {
            pthread_cond_wait(&w->changed, &w->lock);
            continue;
        }
        pthread_mutex_unlock(&w->lock);
        w->step(w->arg);
        pthread_mutex_lock(&w->lock);
        w->step = NULL;
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

void
worker_start(worker *w)
{
    *w = (worker){.step = NULL};
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    CHECK_INT(pthread_create(&w->thread, NULL, lead, w), 0);
}

void
worker_begin(worker *w, void (*step)(void *), void *arg)
{
    worker_finish(w);
    pthread_mutex_lock(&w->lock);
    w->step = step;
    w->arg = arg;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

void
worker_finish(worker *w)
{
    pthread_mutex_lock(&w->lock);
    while (w->step != NULL) {
        pthread_cond_wait(&w->changed, &w->lock);
    }
    pthread_mutex_unlock(&w->lock);
}

bool
worker_is_busy(worker *w)
{
    pthread_mutex_lock(&w->lock);
    bool busy = w->step != NULL;
    pthread_mutex_unlock(&w->lock);
    return busy;
}

void
worker_do(worker *w, void (*step)(void *), void *arg)
{
    worker_begin(w, step, arg);
    worker_finish(w);
}

void
worker_end(worker *w)
{
    worker_finish(w);
    pthread_mutex_lock(&w->lock);
    w->leaving = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    worker_join_exited(w);
}

void
worker_join_exited(worker *w)
{
    CHECK_INT(pthread_join(w->thread, NULL), 0);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
}

/* ---- a crowd ----------------------------------------------------------------------------------------------------- */

typedef struct crowd {
    pthread_barrier_t gate;
    void (*fn)(void *, int);
    void *arg;
} crowd;

typedef struct member {
    crowd *of;
    int number;
    pthread_t thread;
} member;

static void *
run_member(void *arg)
{
    member *self = arg;
    pthread_barrier_wait(&self->of->gate);
    self->of->fn(self->of->arg, self->number);
    return NULL;
}

void
run_crowd(int count, void (*fn)(void *arg, int number), void *arg)
{
    crowd all = {.fn = fn, .arg = arg};
    member *members = calloc((size_t)count, sizeof(member));
    CHECK(members != NULL);
    pthread_barrier_init(&all.gate, NULL, (unsigned)count);
    for (int i = 0; i < count; i++) {
        members[i] = (member){.of = &all, .number = i};
        CHECK_INT(pthread_create(&members[i].thread, NULL, run_member, &members[i]), 0);
    }
    for (int i = 0; i < count; i++) {
        CHECK_INT(pthread_join(members[i].thread, NULL), 0);
    }
    pthread_barrier_destroy(&all.gate);
    free(members);
}

/* ---- waiting for a state ----------------------------------------------------------------------------------------- */

void
wait_a_moment(int64_t *begun, const char *file, int line, const char *text)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (*begun == 0) {
        *begun = now.tv_sec;
    }
    if (now.tv_sec - *begun > PATIENCE_S) {
        test_fail(file, line, "waited in vain for: %s", text);
    }
    sched_yield();
}

/* ---- who sleeps -------------------------------------------------------------------------------------------------- */

static int asleep;
static int begun_sleeps;
static char token;

static void *
before_sleep(void)
{
    pyrt_fetch_add_seq_cst(&begun_sleeps, 1);
    pyrt_fetch_add_seq_cst(&asleep, 1);
    return &token;
}

static void
after_sleep(void *saved)
{
    CHECK_PTR(saved, &token);
    pyrt_fetch_add_seq_cst(&asleep, -1);
}

void
watch_sleepers(void)
{
    pyrt_exchange_seq_cst(&asleep, 0);
    pyrt_exchange_seq_cst(&begun_sleeps, 0);
    pyrt_set_block_hooks(&(pyrt_block_hooks){before_sleep, after_sleep});
}

void
stop_watching_sleepers(void)
{
    CHECK_INT(sleepers(), 0);
    pyrt_set_block_hooks(NULL);
}

int
sleepers(void)
{
    return pyrt_load_seq_cst(&asleep);
}

int
sleeps_begun(void)
{
    return pyrt_load_seq_cst(&begun_sleeps);
}
