/* loops.h -- our own loops, a group a file; table.c puts them together. Public headers only: a loop is what a user writes. */
#ifndef PYRT_BENCH_LOOPS_H
#define PYRT_BENCH_LOOPS_H

#include "harness.h"

#include <pyruntime/pyruntime.h>

/* The runtime, for setup and teardown. */
int pyrt_bench_runtime_up(void);
void pyrt_bench_runtime_down(void);

/* enter and leave: a thread state of the main interpreter in `state`; in the attached form, attached. */
int pyrt_bench_enter_detached(bench_thread *self);
void pyrt_bench_leave_detached(bench_thread *self);
int pyrt_bench_enter_attached(bench_thread *self);
void pyrt_bench_leave_attached(bench_thread *self);

typedef struct pyrt_bench_group {
    const pyrt_bench_loop *loops;
    size_t count;
} pyrt_bench_group;

extern const pyrt_bench_group pyrt_bench_control_group;
extern const pyrt_bench_group pyrt_bench_qsbr_group;
extern const pyrt_bench_group pyrt_bench_retire_group;
extern const pyrt_bench_group pyrt_bench_lock_group;
extern const pyrt_bench_group pyrt_bench_section_group;
extern const pyrt_bench_group pyrt_bench_striped_group;
extern const pyrt_bench_group pyrt_bench_stw_group;
extern const pyrt_bench_group pyrt_bench_heap_group;
extern const pyrt_bench_group pyrt_bench_refcount_group;
extern const pyrt_bench_group pyrt_bench_embed_group;

/* The table entry of a loop that needs the runtime. */
#define PYRT_BENCH_OURS(name, its_body) PYRT_BENCH_WITH_RUNTIME(name, "pyruntime", its_body)
#define PYRT_BENCH_WITH_RUNTIME(name, its_impl, its_body) \
    {.bench = name,                                       \
     .impl = its_impl,                                    \
     .setup = pyrt_bench_runtime_up,                      \
     .run = bench_run,                                    \
     .teardown = pyrt_bench_runtime_down,                 \
     .body = its_body}

#define PYRT_BENCH_GROUP(array) {array, sizeof(array) / sizeof(array[0])}

#endif
