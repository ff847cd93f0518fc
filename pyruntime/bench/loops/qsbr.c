/* qsbr.c -- quiescent states, attaching, goals and waiting for them, each in a loop as a user would write it. */
#define _GNU_SOURCE

#include "loops.h"

/* ---- the reader's side ------------------------------------------------------------------------------------------- */

static void
quiescent_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    pyrt_thread *thread = self->state;
    for (uint64_t i = 0; i < iterations; i++) {
        bench_work();
        pyrt_qsbr_quiescent_state(thread);
    }
}

static void
safepoint_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    pyrt_thread *thread = self->state;
    for (uint64_t i = 0; i < iterations; i++) {
        bench_work();
        pyrt_safepoint(thread);
    }
}

static void
attach_detach_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    pyrt_thread *thread = self->state;
    for (uint64_t i = 0; i < iterations; i++) {
        pyrt_attach(thread);
        bench_work();
        pyrt_detach(thread);
    }
}

/* ---- the writer's side ------------------------------------------------------------------------------------------- */

static void
advance_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    pyrt_interp *interp = pyrt_interp_main();
    for (uint64_t i = 0; i < iterations; i++) {
        pyrt_qsbr_advance(interp);
        bench_work();
    }
}

/* The floor of an advance: it has to be one full barrier. */
static void
atomic_add_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    static PYRT_ALIGNED(128) uint64_t sequence;
    for (uint64_t i = 0; i < iterations; i++) {
        (void)pyrt_fetch_add_seq_cst(&sequence, (uint64_t)2);
        bench_work();
    }
}

/* A goal that all have passed: what a poller gets most of the time. */
static void
poll_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    pyrt_thread *thread = self->state;
    pyrt_interp *interp = thread->interp;
    uint64_t goal = pyrt_qsbr_advance(interp);
    pyrt_qsbr_quiescent_state(thread);
    for (uint64_t i = 0; i < iterations; i++) {
        bench_work();
        if (!pyrt_qsbr_poll(thread, goal)) {
            pyrt_qsbr_quiescent_state(thread);
        }
    }
}

/* A whole grace period without waiting: begin it, pass it, see that it is over. The poll has to look at every reader. */
static void
grace_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    pyrt_thread *thread = self->state;
    pyrt_interp *interp = thread->interp;
    for (uint64_t i = 0; i < iterations; i++) {
        uint64_t goal = pyrt_qsbr_advance(interp);
        pyrt_qsbr_quiescent_state(thread);
        while (!pyrt_qsbr_poll(thread, goal)) {
            pyrt_cpu_relax();
            pyrt_qsbr_quiescent_state(thread);
        }
    }
}

static void
synchronize_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    pyrt_thread *thread = self->state;
    for (uint64_t i = 0; i < iterations; i++) {
        bench_work();
        if (pyrt_qsbr_synchronize(thread) != PYRT_OK) {
            self->error = EPROTO;
            return;
        }
    }
}

static void
busy_reader(bench_thread *self)
{
    pyrt_thread *thread = self->state;
    while (!bench_is_over(self)) {
        pyrt_qsbr_quiescent_state(thread);
    }
}

#define ATTACHED .enter = pyrt_bench_enter_attached, .leave = pyrt_bench_leave_attached
#define DETACHED .enter = pyrt_bench_enter_detached, .leave = pyrt_bench_leave_detached

static const bench_body quiescent_body = {ATTACHED, .loop = quiescent_loop};
static const bench_body safepoint_body = {ATTACHED, .loop = safepoint_loop};
static const bench_body attach_detach_body = {DETACHED, .loop = attach_detach_loop};
static const bench_body advance_body = {ATTACHED, .loop = advance_loop};
static const bench_body atomic_add_body = {.loop = atomic_add_loop};
static const bench_body poll_body = {ATTACHED, .loop = poll_loop};
static const bench_body grace_body = {ATTACHED, .loop = grace_loop};
static const bench_body synchronize_body = {ATTACHED, .loop = synchronize_loop};
static const bench_body synchronize_reader_body = {ATTACHED, .loop = synchronize_loop, .companion = busy_reader,
                                                   .companions = 1};

static const pyrt_bench_loop loops[] = {
    PYRT_BENCH_OURS("qsbr.quiescent", &quiescent_body),
    PYRT_BENCH_OURS("qsbr.safepoint", &safepoint_body),
    PYRT_BENCH_OURS("qsbr.attach_detach", &attach_detach_body),
    PYRT_BENCH_OURS("qsbr.advance", &advance_body),
    {.bench = "qsbr.advance", .impl = "atomic-add", .run = bench_run, .body = &atomic_add_body},
    PYRT_BENCH_OURS("qsbr.poll", &poll_body),
    PYRT_BENCH_OURS("qsbr.grace", &grace_body),
    PYRT_BENCH_OURS("qsbr.synchronize", &synchronize_body),
    PYRT_BENCH_OURS("qsbr.synchronize_reader", &synchronize_reader_body),
};

const pyrt_bench_group pyrt_bench_qsbr_group = PYRT_BENCH_GROUP(loops);
