/* things.c -- see things.h. */
#include "things.h"

#include "support.h"

pyrt_type *thing_type;

static uint64_t made;
static uint64_t died;

static void
thing_dealloc(pyrt_object *object)
{
    thing *t = (thing *)(void *)object;
    thing_check(t);
    if (t->when_dying != NULL) {
        t->when_dying(t);
    }
    thing_check(t);
    t->canary = 0;
    (void)pyrt_fetch_add_seq_cst(&died, UINT64_C(1));
    pyrt_xdecref(t->refers_to);
}

uint64_t
things_made(void)
{
    return pyrt_load_seq_cst(&made);
}

uint64_t
things_died(void)
{
    return pyrt_load_seq_cst(&died);
}

pyrt_type *
thing_type_new(pyrt_interp *interp)
{
    pyrt_type *type = pyrt_type_new(interp, &(pyrt_type_spec){.struct_size = sizeof(pyrt_type_spec),
                                                              .name = "thing",
                                                              .basic_size = sizeof(thing),
                                                              .dealloc = thing_dealloc});
    CHECK(type != NULL);
    return type;
}

void
things_up(void)
{
    made = died = 0;
    runtime_up();
    thing_type = thing_type_new(pyrt_interp_main());
}

void
things_down(void)
{
    pyrt_decref((pyrt_object *)thing_type);
    runtime_down();
    CHECK_UINT(things_died(), things_made());
}

pyrt_thread *
things_up_attached(void)
{
    things_up();
    pyrt_thread *self = pyrt_thread_ensure(pyrt_interp_main());
    CHECK(self != NULL);
    return self;
}

void
things_down_attached(pyrt_thread *self)
{
    pyrt_thread_release(self);
    things_down();
}

thing *
thing_new_of(pyrt_thread *thread, pyrt_type *type)
{
    thing *t = (thing *)(void *)pyrt_object_new(thread, type);
    CHECK(t != NULL);
    CHECK(t->canary == 0 && t->refers_to == NULL && t->when_dying == NULL);
    t->canary = THING_ALIVE;
    (void)pyrt_fetch_add_seq_cst(&made, UINT64_C(1));
    return t;
}

thing *
thing_new(pyrt_thread *thread)
{
    return thing_new_of(thread, thing_type);
}

thing *
thing_dies(pyrt_thread *thread, void (*when_dying)(thing *), void *arg)
{
    thing *t = thing_new(thread);
    t->when_dying = when_dying;
    t->arg = arg;
    pyrt_decref(&t->base);
    return t;
}

void
thing_check(const thing *t)
{
    CHECK_UINT(t->canary, THING_ALIVE);
}

pyrt_object_info
thing_look(const thing *t)
{
    pyrt_object_info info = {.struct_size = sizeof(info)};
    pyrt_object_look(&t->base, &info);
    return info;
}

void
count_up(void *object)
{
    pyrt_incref(object);
}

void
count_down(void *object)
{
    pyrt_decref(object);
}

pyrt_object_stats
object_stats(void)
{
    pyrt_object_stats stats = {.struct_size = sizeof(stats)};
    pyrt_object_stats_read(pyrt_interp_main(), &stats);
    return stats;
}
