/* refcount.c -- objects in C: counted by their owner and by others, made and dropped by several threads, and looked up through weak
 * references; beside a count without atomic operations, and one with.
 */
#define _GNU_SOURCE

#include "loops.h"

#include "refcount_loops.h"
#include "ring.h"

/* ---- plain counts to compare with -------------------------------------------------------------------------------- */

static int
enter_count(bench_thread *self)
{
    self->counters[0] = 1;
    return 0;
}

static void
plain_loop(bench_thread *self)
{
    uint64_t *count = &self->counters[0];
    uint64_t iterations = self->iterations;
    for (uint64_t i = 0; i < iterations; i++) {
        ++*count;
        bench_work();
        if (--*count == 0) {
            self->error = EPROTO;
        }
    }
}

/* As std::shared_ptr and CPython without a GIL count: up without order; down so that the last one sees what the others did. */
static void
atomic_loop(bench_thread *self)
{
    uint64_t *count = &self->counters[0];
    uint64_t iterations = self->iterations;
    for (uint64_t i = 0; i < iterations; i++) {
        (void)__atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
        bench_work();
        if (__atomic_fetch_sub(count, 1, __ATOMIC_ACQ_REL) == 1) {
            self->error = EPROTO;
        }
    }
}

static const bench_body plain_body = {.enter = enter_count, .loop = plain_loop};
static const bench_body atomic_body = {.enter = enter_count, .loop = atomic_loop};

/* ---- ours -------------------------------------------------------------------------------------------------------- */

static const bench_body owner_body = {.enter = bench_enter_owner, .loop = bench_count_loop, .leave = bench_leave_counting};
static const bench_body other_body = {.enter = bench_enter_other, .loop = bench_count_loop, .leave = bench_leave_counting};

static void
weak_loop(bench_thread *self)
{
    pyrt_weakref *weak = ((bench_counting *)self->state)->weak;
    uint64_t iterations = self->iterations;
    for (uint64_t i = 0; i < iterations; i++) {
        pyrt_object *object = pyrt_weakref_get(weak);
        bench_work();
        if (object != NULL) {
            pyrt_decref(object);
        }
    }
}

static const bench_body weak_owner_body = {.enter = bench_enter_owner, .loop = weak_loop, .leave = bench_leave_counting};
static const bench_body weak_other_body = {.enter = bench_enter_other, .loop = weak_loop, .leave = bench_leave_counting};

/* ---- instances of one type --------------------------------------------------------------------------------------- */

static pyrt_type *shared_type;
static PYRT_ALIGNED(128) uint64_t atomic_type;

static int
set_type_up(void)
{
    int error = pyrt_bench_runtime_up();
    if (error == 0) {
        shared_type = bench_type_new();
        if (shared_type == NULL) {
            pyrt_bench_runtime_down();
            error = ENOMEM;
        }
    }
    return error;
}

static void
take_type_down(void)
{
    pyrt_decref((pyrt_object *)(void *)shared_type);
    pyrt_bench_runtime_down();
}

static void
instances_loop(bench_thread *self)
{
    pyrt_thread *thread = self->state;
    uint64_t iterations = self->iterations;
    for (uint64_t i = 0; i < iterations; i++) {
        pyrt_object *object = pyrt_object_new(thread, shared_type);
        if (object == NULL) {
            self->error = ENOMEM;
            return;
        }
        bench_work();
        pyrt_decref(object);
    }
}

/* The same with an atomic count in the type. */
static void
atomic_instances_loop(bench_thread *self)
{
    uint64_t iterations = self->iterations;
    for (uint64_t i = 0; i < iterations; i++) {
        void *object = pyrt_malloc(sizeof(bench_counted_thing));
        if (object == NULL) {
            self->error = ENOMEM;
            return;
        }
        (void)__atomic_fetch_add(&atomic_type, 1, __ATOMIC_RELAXED);
        bench_work();
        pyrt_free(object);
        (void)__atomic_fetch_sub(&atomic_type, 1, __ATOMIC_ACQ_REL);
    }
}

static const bench_body instances_body = {
    .enter = pyrt_bench_enter_attached, .loop = instances_loop, .leave = pyrt_bench_leave_attached};
static const bench_body atomic_instances_body = {.loop = atomic_instances_loop};

/* ---- made here, dropped there ------------------------------------------------------------------------------------ */

static bench_ring ring;

static int
enter_handover(bench_thread *self)
{
    int error = bench_enter_ring(self, &ring);
    return error != 0 ? error : pyrt_bench_enter_attached(self);
}

/* Both pass safepoints, as any thread does; the maker merges there what the other has dropped. */
enum { STEPS = 64 };

static void
handover_loop(bench_thread *self)
{
    pyrt_thread *thread = self->state;
    uint64_t iterations = self->iterations;
    for (uint64_t i = 0; i < iterations; i++) {
        if (self->number == 0) {
            pyrt_object *object = pyrt_object_new(thread, shared_type);
            if (object == NULL) {
                self->error = ENOMEM;
            }
            bench_ring_put(&ring, i, object);
        }
        else {
            pyrt_object *object = bench_ring_take(&ring, i);
            if (object != NULL) {
                pyrt_decref(object);
            }
        }
        if (i % STEPS == 0) {
            pyrt_safepoint(thread);
        }
    }
}

static const bench_body handover_body = {.enter = enter_handover, .loop = handover_loop, .leave = pyrt_bench_leave_attached};

/* ---- the table --------------------------------------------------------------------------------------------------- */

#define WITH_TYPE(name, its_body) \
    {.bench = name,               \
     .impl = "pyruntime",         \
     .setup = set_type_up,        \
     .run = bench_run,            \
     .teardown = take_type_down,  \
     .body = its_body}

#define COUNTS(name)                                                                  \
    {.bench = name, .impl = "plain-count", .run = bench_run, .body = &plain_body},    \
    {                                                                                 \
        .bench = name, .impl = "atomic-count", .run = bench_run, .body = &atomic_body \
    }

static const pyrt_bench_loop loops[] = {
    PYRT_BENCH_OURS("refcount.owner", &owner_body),
    COUNTS("refcount.owner"),
    PYRT_BENCH_OURS("refcount.other", &other_body),
    COUNTS("refcount.other"),
    WITH_TYPE("refcount.instances", &instances_body),
    {.bench = "refcount.instances_atomic", .impl = "pyruntime", .run = bench_run, .body = &atomic_instances_body},
    WITH_TYPE("refcount.handover", &handover_body),
    PYRT_BENCH_OURS("weakref.owner", &weak_owner_body),
    COUNTS("weakref.owner"),
    PYRT_BENCH_OURS("weakref.other", &weak_other_body),
    COUNTS("weakref.other"),
    PYRT_BENCH_OURS("weakref.two_threads", &weak_owner_body),
};

const pyrt_bench_group pyrt_bench_refcount_group = PYRT_BENCH_GROUP(loops);
