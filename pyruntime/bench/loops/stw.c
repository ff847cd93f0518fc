/* stw.c -- how long it takes until the world stands still: with threads that run, and with states that are detached.
 *
 * Only the stop is timed, from the request until it returns. Between two of them the world is started, and the requester waits
 * until every thread has passed a safepoint again: one that is still waking up needs no stopping. It does not wait longer than
 * that, or a machine with other work to do would show how soon the threads get a core, not how soon they stop.
 */
#define _GNU_SOURCE

#include "loops.h"

enum { RUNNING = 8, DETACHED = 1000 };

static void
timed_stop(bench_thread *self, uint64_t i)
{
    pyrt_interp *interp = pyrt_interp_main();
    int64_t start = bench_now();
    pyrt_status status = pyrt_stop_the_world(interp);
    self->times[i] = bench_now() - start;
    if (status != PYRT_OK) {
        self->error = EPROTO;
        return;
    }
    pyrt_start_the_world(interp);
}

/* ---- threads that run -------------------------------------------------------------------------------------------- */

/* How many safepoints each has passed, on a line of its own; written by its thread. */
static struct PYRT_ALIGNED(128) {
    uint64_t count;
} passed[RUNNING];

/* While the requester waits for all of them: there are fewer cores than threads, and each would use up its time first. */
static PYRT_ALIGNED(128) uint32_t is_gathering;

static void
running_thread(bench_thread *self)
{
    uint64_t *count = &passed[self->number].count;
    while (!bench_is_over(self)) {
        bench_work();
        pyrt_safepoint(self->state);
        pyrt_store_relaxed(count, *count + 1);
        if (pyrt_load_relaxed(&is_gathering) != 0) {
            sched_yield();
        }
    }
}

static void
wait_until_all_run(bench_thread *self)
{
    pyrt_store_relaxed(&is_gathering, 1u);
    for (int i = 0; i < RUNNING; i++) {
        uint64_t before = pyrt_load_relaxed(&passed[i].count);
        while (pyrt_load_relaxed(&passed[i].count) == before) {
            pyrt_safepoint(self->state);
            sched_yield();
        }
    }
    pyrt_store_relaxed(&is_gathering, 0u);
}

static void
stop_loop(bench_thread *self)
{
    for (uint64_t i = 0; i < self->iterations && self->error == 0; i++) {
        wait_until_all_run(self);
        timed_stop(self, i);
    }
}

static const bench_body stop_body = {.enter = pyrt_bench_enter_attached,
                                     .loop = stop_loop,
                                     .leave = pyrt_bench_leave_attached,
                                     .companion = running_thread,
                                     .companions = RUNNING,
                                     .is_unbound = true,
                                     .times_each = true};

/* ---- states that are detached ------------------------------------------------------------------------------------ */

/* They belong to another OS thread than the requester's: its own ones a pause does not concern. */
typedef struct crowd {
    int count;
    pyrt_thread *detached[DETACHED];
} crowd;

static void
leave_crowd(bench_thread *self)
{
    if (!self->is_companion) {
        pyrt_bench_leave_attached(self);
        return;
    }
    crowd *all = self->state;
    while (all->count > 0) {
        pyrt_thread_delete(all->detached[--all->count]);
    }
    free(all);
}

static int
enter_crowd(bench_thread *self)
{
    if (!self->is_companion) {
        return pyrt_bench_enter_attached(self);
    }
    crowd *all = calloc(1, sizeof(*all));
    if (all == NULL) {
        return ENOMEM;
    }
    self->state = all;
    for (; all->count < DETACHED; all->count++) {
        all->detached[all->count] = pyrt_thread_new(pyrt_interp_main());
        if (all->detached[all->count] == NULL) {
            leave_crowd(self);
            return ENOMEM;
        }
    }
    return 0;
}

static void
sleep_until_over(bench_thread *self)
{
    while (!bench_is_over(self)) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static void
stop_of_detached_loop(bench_thread *self)
{
    for (uint64_t i = 0; i < self->iterations && self->error == 0; i++) {
        timed_stop(self, i);
    }
}

static const bench_body many_detached_body = {.enter = enter_crowd,
                                              .loop = stop_of_detached_loop,
                                              .leave = leave_crowd,
                                              .companion = sleep_until_over,
                                              .companions = 1,
                                              .times_each = true};
static const bench_body none_detached_body = {.enter = pyrt_bench_enter_attached,
                                              .loop = stop_of_detached_loop,
                                              .leave = pyrt_bench_leave_attached,
                                              .times_each = true};

static const pyrt_bench_loop loops[] = {
    PYRT_BENCH_OURS("stw.stop", &stop_body),
    PYRT_BENCH_OURS("stw.detached", &many_detached_body),
    PYRT_BENCH_WITH_RUNTIME("stw.detached", "none-detached", &none_detached_body),
};

const pyrt_bench_group pyrt_bench_stw_group = PYRT_BENCH_GROUP(loops);
