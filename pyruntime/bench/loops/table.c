/* table.c -- all loops that are compiled in, as one table; opening a peer's; and what our loops have in common. */
#define _GNU_SOURCE

#include "loops.h"

#include <dlfcn.h>
#include <malloc.h>

enum { LOOPS_MAX = 128 };

const pyrt_bench_loop *
pyrt_bench_loops(size_t *count)
{
    static const pyrt_bench_group *const groups[] = {
        &pyrt_bench_control_group,  &pyrt_bench_qsbr_group,    &pyrt_bench_retire_group, &pyrt_bench_lock_group,
        &pyrt_bench_section_group,  &pyrt_bench_striped_group, &pyrt_bench_stw_group,    &pyrt_bench_heap_group,
        &pyrt_bench_refcount_group, &pyrt_bench_embed_group,
    };
    /* Filled anew with the same entries at every call: nobody runs benchmarks from two threads, and it would do no harm. */
    static pyrt_bench_loop all[LOOPS_MAX];
    size_t n = 0;
    for (size_t g = 0; g < sizeof(groups) / sizeof(groups[0]); g++) {
        for (size_t i = 0; i < groups[g]->count && n < LOOPS_MAX; i++) {
            all[n++] = groups[g]->loops[i];
        }
    }
    *count = n;
    return all;
}

const pyrt_bench_loop *
pyrt_bench_open(const char *path, const void *api, size_t *count)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        return NULL;
    }
    void (*take_table)(const void *) = NULL;
    *(void **)&take_table = dlsym(library, PYRT_BENCH_PEER_TABLE);
    if (take_table != NULL) {
        take_table(api);
    }
    const pyrt_bench_loop *(*entry)(size_t *) = NULL;
    *(void **)&entry = dlsym(library, PYRT_BENCH_PEER_ENTRY);
    return entry == NULL ? NULL : entry(count);
}

const char *
pyrt_bench_open_error(void)
{
    const char *error = dlerror();
    return error == NULL ? "unknown error" : error;
}

void
pyrt_bench_trim(void)
{
    (void)malloc_trim(0);
}

int
pyrt_bench_runtime_up(void)
{
    return pyrt_runtime_init() == PYRT_OK ? 0 : ENOMEM;
}

void
pyrt_bench_runtime_down(void)
{
    (void)pyrt_runtime_fini();
}

int
pyrt_bench_enter_detached(bench_thread *self)
{
    self->state = pyrt_thread_new(pyrt_interp_main());
    return self->state == NULL ? ENOMEM : 0;
}

void
pyrt_bench_leave_detached(bench_thread *self)
{
    pyrt_thread_delete(self->state);
}

int
pyrt_bench_enter_attached(bench_thread *self)
{
    int error = pyrt_bench_enter_detached(self);
    if (error == 0) {
        pyrt_attach(self->state);
    }
    return error;
}

void
pyrt_bench_leave_attached(bench_thread *self)
{
    pyrt_detach(self->state);
    pyrt_bench_leave_detached(self);
}
