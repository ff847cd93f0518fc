/* embed_loops.h -- what an extension does all the time: the same text compiled together with the core, and in an extension of its
 * own, which goes through the table of functions (peers/embedded.c). Include what declares the API before.
 */
#ifndef PYRT_BENCH_EMBED_LOOPS_H
#define PYRT_BENCH_EMBED_LOOPS_H

#include "harness.h"

/* enter and leave: an attached state in `state`. */
static inline int
bench_enter_embed(bench_thread *self)
{
    self->state = pyrt_thread_ensure(pyrt_interp_main());
    return self->state == NULL ? ENOMEM : 0;
}

static inline void
bench_leave_embed(bench_thread *self)
{
    pyrt_thread_release((pyrt_thread *)self->state);
}

/* A function that does next to nothing, so that the way to it is what is seen. */
static inline void
bench_embed_call_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    for (uint64_t i = 0; i < iterations; i++) {
        bench_work();
        (void)pyrt_interp_main();
    }
}

static inline void
bench_embed_mutex_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    pyrt_mutex mutex = PYRT_MUTEX_INIT;
    for (uint64_t i = 0; i < iterations; i++) {
        pyrt_mutex_lock(&mutex);
        bench_work();
        pyrt_mutex_unlock(&mutex);
    }
}

static inline void
bench_embed_quiescent_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    pyrt_thread *thread = (pyrt_thread *)self->state;
    for (uint64_t i = 0; i < iterations; i++) {
        bench_work();
        pyrt_qsbr_quiescent_state(thread);
    }
}

#define BENCH_EMBED_BODY(its_loop) {.enter = bench_enter_embed, .loop = its_loop, .leave = bench_leave_embed}

#endif
