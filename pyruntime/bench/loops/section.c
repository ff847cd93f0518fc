/* section.c -- critical sections, next to the mutexes that they lock: what it costs that they can be suspended. */
#define _GNU_SOURCE

#include "loops.h"

/* A thread and what it locks; on cache lines of its own. */
typedef struct PYRT_ALIGNED(128) own {
    pyrt_thread *thread;
    pyrt_mutex first, second;
} own;

static int
enter(bench_thread *self)
{
    int error = pyrt_bench_enter_attached(self);
    if (error != 0) {
        return error;
    }
    own *mine = aligned_alloc(128, sizeof(*mine));
    if (mine == NULL) {
        pyrt_bench_leave_attached(self);
        return ENOMEM;
    }
    *mine = (own){.thread = self->state};
    self->state = mine;
    return 0;
}

static void
leave(bench_thread *self)
{
    own *mine = self->state;
    self->state = mine->thread;
    free(mine);
    pyrt_bench_leave_attached(self);
}

static void
section_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    own *mine = self->state;
    for (uint64_t i = 0; i < iterations; i++) {
        pyrt_critical_section section;
        pyrt_critical_section_begin(&section, &mine->first);
        bench_work();
        pyrt_critical_section_end(&section);
    }
}

static void
mutex_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    own *mine = self->state;
    for (uint64_t i = 0; i < iterations; i++) {
        pyrt_mutex_lock(&mine->first);
        bench_work();
        pyrt_mutex_unlock(&mine->first);
    }
}

static void
section2_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    own *mine = self->state;
    for (uint64_t i = 0; i < iterations; i++) {
        pyrt_critical_section2 section;
        pyrt_critical_section2_begin(&section, &mine->first, &mine->second);
        bench_work();
        pyrt_critical_section2_end(&section);
    }
}

static void
mutexes_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    own *mine = self->state;
    for (uint64_t i = 0; i < iterations; i++) {
        pyrt_mutex_lock(&mine->first);
        pyrt_mutex_lock(&mine->second);
        bench_work();
        pyrt_mutex_unlock(&mine->second);
        pyrt_mutex_unlock(&mine->first);
    }
}

#define OWN .enter = enter, .leave = leave

static const bench_body section_body = {OWN, .loop = section_loop};
static const bench_body mutex_body = {OWN, .loop = mutex_loop};
static const bench_body section2_body = {OWN, .loop = section2_loop};
static const bench_body mutexes_body = {OWN, .loop = mutexes_loop};

static const pyrt_bench_loop loops[] = {
    PYRT_BENCH_OURS("lock.section", &section_body),
    PYRT_BENCH_WITH_RUNTIME("lock.section", "pyruntime-mutex", &mutex_body),
    PYRT_BENCH_OURS("lock.section2", &section2_body),
    PYRT_BENCH_WITH_RUNTIME("lock.section2", "pyruntime-mutex", &mutexes_body),
};

const pyrt_bench_group pyrt_bench_section_group = PYRT_BENCH_GROUP(loops);
