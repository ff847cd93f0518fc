/* refcount_loops.h -- the loops over objects that are the same text compiled in and in an extension of its own, which goes through
 * the table of functions (peers/embedded.c). Include what declares the API before.
 */
#ifndef PYRT_BENCH_REFCOUNT_LOOPS_H
#define PYRT_BENCH_REFCOUNT_LOOPS_H

#include "harness.h"

typedef struct bench_counted_thing {
    pyrt_object base;
    uint64_t room[4];
} bench_counted_thing;

/* What a thread counts, and under which states: the maker's, and its own, which may be the same. */
typedef struct bench_counting {
    pyrt_thread *maker;
    pyrt_thread *self;
    pyrt_type *type;
    pyrt_object *object;
    pyrt_weakref *weak;
} bench_counting;

static inline pyrt_type *
bench_type_new(void)
{
    pyrt_type_spec spec = {0};
    spec.struct_size = sizeof(spec);
    spec.name = "counted";
    spec.basic_size = sizeof(bench_counted_thing);
    return pyrt_type_new(pyrt_interp_main(), &spec);
}

static inline void
bench_leave_counting(bench_thread *self)
{
    bench_counting *counting = (bench_counting *)self->state;
    if (counting->weak != NULL) {
        pyrt_decref(&counting->weak->base);
    }
    if (counting->object != NULL) {
        pyrt_decref(counting->object);
    }
    if (counting->type != NULL) {
        pyrt_decref((pyrt_object *)(void *)counting->type);
    }
    if (counting->self != NULL) {
        pyrt_detach(counting->self);
        pyrt_thread_delete(counting->self);
    }
    if (counting->maker != counting->self) {
        pyrt_thread_delete(counting->maker);
    }
    free(counting);
}

/* An object of the thread's own, with a weak reference; if it is to be another's, then that of another state of the same OS thread,
 * which is detached. */
static inline int
bench_enter_counting(bench_thread *self, bool is_others)
{
    bench_counting *counting = (bench_counting *)calloc(1, sizeof(*counting));
    if (counting == NULL) {
        return ENOMEM;
    }
    self->state = counting;
    counting->maker = pyrt_thread_new(pyrt_interp_main());
    counting->self = is_others ? pyrt_thread_new(pyrt_interp_main()) : counting->maker;
    counting->type = bench_type_new();
    if (counting->maker != NULL && counting->self != NULL && counting->type != NULL) {
        pyrt_attach(counting->maker);
        counting->object = pyrt_object_new(counting->maker, counting->type);
        counting->weak = counting->object == NULL ? NULL : pyrt_weakref_new(counting->maker, counting->object, NULL, NULL);
        if (is_others) {
            pyrt_detach(counting->maker);
            pyrt_attach(counting->self);
        }
        if (counting->weak != NULL) {
            return 0;
        }
    }
    bench_leave_counting(self);
    return ENOMEM;
}

static inline int
bench_enter_owner(bench_thread *self)
{
    return bench_enter_counting(self, false);
}

static inline int
bench_enter_other(bench_thread *self)
{
    return bench_enter_counting(self, true);
}

static inline void
bench_count_loop(bench_thread *self)
{
    pyrt_object *object = ((bench_counting *)self->state)->object;
    uint64_t iterations = self->iterations;
    for (uint64_t i = 0; i < iterations; i++) {
        (void)pyrt_incref(object);
        bench_work();
        pyrt_decref(object);
    }
}

#endif
