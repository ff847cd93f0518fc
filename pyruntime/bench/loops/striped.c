/* striped.c -- a table of locks that several threads use at once, each for things of its own. */
#define _GNU_SOURCE

#include "loops.h"

/* With as many stripes as keys, some stripes have a key of each thread, and those pass from core to core. */
enum { KEYS = 1024, STRIPES = 2 * KEYS };

/* What the keys stand for: small objects, side by side as an allocator puts them. */
typedef struct thing {
    uint64_t count;
    char rest[56];
} thing;

static PYRT_ALIGNED(128) thing things[KEYS];
static PYRT_ALIGNED(128) pyrt_striped_lock table; /* only read, and on a line that nobody writes to */

static int
setup(void)
{
    pyrt_striped_lock_config config = {.struct_size = sizeof(config), .flags = PYRT_STRIPES_APART, .stripes = STRIPES};
    pyrt_status status = pyrt_striped_lock_init_config(&table, &config);
    return status == PYRT_OK ? 0 : status == PYRT_ENOMEM ? ENOMEM : EINVAL;
}

static void
teardown(void)
{
    pyrt_striped_lock_fini(&table);
}

/* Each thread has its part of the things, one behind the other, and takes them in no order. Of the same things several threads
 * cannot make use without passing them on from core to core, whatever the lock: with all 1024 shared, an operation takes twice as
 * long, and so it does with no lock at all. */
static void
lock_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    uint64_t own = KEYS / self->crew->measured;
    thing *first = &things[own * (uint64_t)self->number];
    uint64_t random = (uint64_t)self->number + 1;
    for (uint64_t i = 0; i < iterations; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        thing *one = &first[((random >> 32) * own) >> 32];
        pyrt_striped_lock_key(&table, one);
        one->count++;
        pyrt_striped_unlock_key(&table, one);
    }
}

static const bench_body lock_body = {.loop = lock_loop};

static const pyrt_bench_loop loops[] = {
    {.bench = "striped.lock",
     .impl = "pyruntime",
     .setup = setup,
     .run = bench_run,
     .teardown = teardown,
     .body = &lock_body},
};

const pyrt_bench_group pyrt_bench_striped_group = PYRT_BENCH_GROUP(loops);
