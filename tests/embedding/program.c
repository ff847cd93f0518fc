/* program.c -- retires a thousand things and sees all of them disposed of, in plain C. */
#include <pyruntime/pyruntime.h>
#include <stdio.h>

static long sum;
static long numbers[1000];

static void
add(void *number)
{
    sum += *(long *)number;
}

int
main(void)
{
    if (pyrt_runtime_init() != PYRT_OK) {
        return 1;
    }
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    for (long i = 0; i < 1000; i++) {
        numbers[i] = i;
        if (pyrt_retire(thread, &numbers[i], sizeof(long), add) != PYRT_OK) {
            return 2;
        }
    }
    pyrt_status status = pyrt_qsbr_barrier(thread);
    uint64_t stats[64];
    size_t count = pyrt_qsbr_stats_read(pyrt_interp_main(), stats, 64);
    pyrt_thread_release(thread);
    printf("%s %s sum %ld stats %zu\n", pyrt_version(), pyrt_strerror(status), sum, count);
    return pyrt_runtime_fini() == PYRT_OK ? 0 : 3;
}
