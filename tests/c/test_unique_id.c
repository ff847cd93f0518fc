/* test_unique_id.c -- counts per thread by unique ids: the pool, the arrays, adding up, and the ends of everything. */
#include "support.h"

#include "faults.h"
#include "steps.h"
#include "things.h"
#include "workers.h"

#include "object/object_impl.h"
#include "platform/meta_alloc.h"

#include <errno.h>
#include <limits.h>

static pyrt_thread *self;

static void
up(void)
{
    self = things_up_attached();
}

static void
down(void)
{
    things_down_attached(self);
}

static thing *
thing_with_id(void)
{
    thing *t = thing_new(self);
    CHECK_OK(pyrt_unique_id_new(pyrt_interp_main(), &t->base, &t->id));
    CHECK(t->id != 0);
    return t;
}

static void
up_by_id(thing *t)
{
    pyrt_incref_by_id(pyrt_thread_current(), &t->base, t->id);
}

static void
down_by_id(thing *t)
{
    pyrt_decref_by_id(pyrt_thread_current(), &t->base, t->id);
}

static int64_t
merge_counts(void)
{
    return pyrt_merge_unique_counts(pyrt_interp_main());
}

/* ---- counting ---------------------------------------------------------------------------------------------------- */

static void
use_by_id(void *arg)
{
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    thing *t = arg;
    for (int i = 0; i < 1000; i++) {
        up_by_id(t);
    }
    for (int i = 0; i < 1000; i++) {
        down_by_id(t);
    }
    down_by_id(t);
    pyrt_thread_release(thread);
}

TEST(threads_count_for_themselves_and_the_sum_decides)
{
    up();
    worker w;
    worker_start(&w);
    thing *t = thing_with_id();
    CHECK(t->base.flags & PYRT_OBJECT_HAS_ID);
    int64_t before = t->base.shared;
    up_by_id(t);
    up_by_id(t);
    CHECK_INT(t->base.shared, before);
    CHECK_INT(self->unique_counts.values[t->id - 1], 2);
    /* The other one drops one more than it counts, and ends. */
    worker_do(&w, use_by_id, t);
    CHECK_INT(thing_look(t).shared, -1);
    CHECK_INT(merge_counts(), 0);
    CHECK_INT(self->unique_counts.values[t->id - 1], 0);
    CHECK_INT(pyrt_refcount(&t->base), 2);
    down_by_id(t);
    CHECK_INT(merge_counts(), 0);
    pyrt_decref(&t->base);
    CHECK_UINT(things_died(), 0);
    CHECK_INT(merge_counts(), 1);
    CHECK_UINT(things_died(), 1);
    worker_end(&w);
    down();
}

TEST(wrong_use_is_refused)
{
    up();
    thing *t = thing_new(self);
    pyrt_interp *interp = pyrt_interp_main();
    CHECK_STATUS(pyrt_unique_id_new(NULL, &t->base, &t->id), PYRT_EINVAL);
    CHECK_STATUS(pyrt_unique_id_new(interp, NULL, &t->id), PYRT_EINVAL);
    CHECK_STATUS(pyrt_unique_id_new(interp, &t->base, NULL), PYRT_EINVAL);
    uint32_t field = 3;
    CHECK_STATUS(pyrt_unique_id_new(interp, &t->base, &field), PYRT_EINVAL);
    CHECK_UINT(field, 3);
    CHECK_OK(pyrt_unique_id_new(interp, &t->base, &t->id));
    field = 0;
    CHECK_STATUS(pyrt_unique_id_new(interp, &t->base, &field), PYRT_EEXIST);
    CHECK_UINT(field, 0);
    CHECK_INT(pyrt_merge_unique_counts(NULL), -PYRT_EINVAL);
    pyrt_decref(&t->base);
    CHECK_INT(merge_counts(), 1);
    down();
}

TEST(another_interpreters_object_gets_no_id)
{
    up();
    static struct {
        pyrt_object base;
        uint32_t id;
    } of_static_memory = {PYRT_OBJECT_IMMORTAL_INIT(NULL), 0};
    pyrt_interp *other = pyrt_interp_new(NULL);
    thing *t = thing_new(self);
    CHECK_STATUS(pyrt_unique_id_new(other, &t->base, &t->id), PYRT_EINVAL);
    CHECK_STATUS(pyrt_unique_id_new(other, &of_static_memory.base, &of_static_memory.id), PYRT_EINVAL);
    CHECK_UINT(t->id, 0);
    CHECK_OK(pyrt_interp_delete(other));
    pyrt_decref(&t->base);
    CHECK_UINT(things_died(), 1);
    down();
}

enum { IDS = 20000, ASKERS = 2 };

static thing *to_be_counted[IDS];
static uint32_t given[ASKERS][IDS];

static void
ask_for_ids(void *arg, int number)
{
    uint64_t *gave = arg;
    for (int i = 0; i < IDS; i++) {
        pyrt_status status = pyrt_unique_id_new(pyrt_interp_main(), &to_be_counted[i]->base, &given[number][i]);
        CHECK(status == PYRT_OK || status == PYRT_EEXIST);
        CHECK((status == PYRT_OK) == (given[number][i] != 0));
        (void)pyrt_fetch_add_seq_cst(gave, (uint64_t)(status == PYRT_OK));
    }
}

TEST(of_several_who_ask_for_the_id_of_one_object_one_gets_it)
{
    up();
    uint64_t gave = 0;
    for (int i = 0; i < IDS; i++) {
        to_be_counted[i] = thing_new(self);
    }
    run_crowd(ASKERS, ask_for_ids, &gave);
    CHECK_UINT(gave, IDS);
    CHECK_UINT(object_stats().unique_ids, IDS + 1);
    for (int i = 0; i < IDS; i++) {
        pyrt_decref(&to_be_counted[i]->base);
    }
    CHECK_INT(merge_counts(), IDS);
    CHECK_UINT(things_died(), IDS);
    down();
}

TEST(counting_without_an_id_is_plain)
{
    up();
    thing *t = thing_new(self);
    up_by_id(t);
    CHECK_UINT(thing_look(t).local, 2);
    down_by_id(t);
    CHECK_UINT(thing_look(t).local, 1);
    down_by_id(t);
    CHECK_UINT(things_died(), 1);
    down();
}

/* ---- the pool ---------------------------------------------------------------------------------------------------- */

TEST(ids_are_used_again_and_the_table_grows)
{
    enum { MANY = 1000 };
    up();
    static thing *all[MANY];
    uint32_t seen[MANY + 2] = {0};
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < MANY; i++) {
            all[i] = thing_with_id();
            /* The type has one. */
            CHECK(all[i]->id <= MANY + 1);
            CHECK_UINT(seen[all[i]->id], (uint32_t)round);
            seen[all[i]->id]++;
            up_by_id(all[i]);
        }
        CHECK_UINT(object_stats().unique_ids, MANY + 1);
        for (int i = 0; i < MANY; i++) {
            pyrt_decref(&all[i]->base);
        }
        CHECK_INT(merge_counts(), 0);
        for (int i = 0; i < MANY; i++) {
            down_by_id(all[i]);
        }
        CHECK_INT(merge_counts(), MANY);
        CHECK_UINT(things_died(), (uint64_t)MANY * (uint64_t)(round + 1));
        CHECK_UINT(object_stats().unique_ids, 1);
    }
    down();
}

TEST(a_thread_that_is_older_than_an_id_makes_room)
{
    up();
    worker w;
    worker_start(&w);
    pyrt_thread *old;
    worker_do(&w, attach_new, &old);
    thing *all[40];
    for (int i = 0; i < 40; i++) {
        all[i] = thing_with_id();
    }
    up_by_id(all[39]);
    CHECK(self->unique_counts.size >= 41);
    CHECK_UINT(old->unique_counts.size, 0);
    down_by_id(all[39]);
    worker_do(&w, delete_attached, old);
    for (int i = 0; i < 40; i++) {
        pyrt_decref(&all[i]->base);
    }
    CHECK_INT(merge_counts(), 40);
    worker_end(&w);
    down();
}

/* ---- weak references --------------------------------------------------------------------------------------------- */

enum { WATCHED = 1000, LOOKERS = 2 };

static pyrt_weakref *watched[WATCHED];

/* The others have no state attached, so that no pause stops them. */
static void
merge_or_look(void *arg, int number)
{
    int *over = arg;
    if (number == 0) {
        int64_t left = WATCHED;
        while (left != 0) {
            left -= merge_counts();
        }
        (void)pyrt_fetch_add_seq_cst(over, 1);
    }
    while (number != 0 && pyrt_load_seq_cst(over) == 0) {
        for (int i = 0; i < WATCHED; i++) {
            pyrt_object *found = pyrt_weakref_get(watched[i]);
            if (found != NULL) {
                thing_check((thing *)(void *)found);
                pyrt_decref(found);
            }
        }
    }
}

TEST(who_is_not_stopped_finds_an_object_alive_or_not_at_all)
{
    up();
    for (int round = 1; round <= 20; round++) {
        for (int i = 0; i < WATCHED; i++) {
            thing *t = thing_with_id();
            watched[i] = pyrt_weakref_new(self, &t->base, NULL, NULL);
            pyrt_decref(&t->base);
        }
        int over = 0;
        pyrt_detach(self);
        run_crowd(1 + LOOKERS, merge_or_look, &over);
        pyrt_attach(self);
        for (int i = 0; i < WATCHED; i++) {
            CHECK(pyrt_weakref_get(watched[i]) == NULL);
            pyrt_decref(&watched[i]->base);
        }
        pyrt_safepoint(self);
        CHECK_UINT(things_died(), (uint64_t)round * WATCHED);
    }
    CHECK_UINT(reports_pending(), 0);
    down();
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

TEST(what_nobody_refers_to_dies_with_the_interpreter)
{
    up();
    thing *t = thing_with_id();
    thing *counted = thing_with_id();
    up_by_id(counted);
    pyrt_decref(&counted->base);
    down_by_id(counted);
    pyrt_decref(&t->base);
    CHECK_UINT(things_died(), 0);
    down();
    CHECK_UINT(things_died(), 2);
}

TEST(an_object_with_an_id_may_outlive_its_interpreter)
{
    up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    pyrt_thread *thread = pyrt_thread_ensure(other);
    pyrt_type *type = thing_type_new(other);
    thing *t = thing_new_of(thread, type);
    CHECK_OK(pyrt_unique_id_new(other, &t->base, &t->id));
    up_by_id(t);
    up_by_id(t);
    pyrt_thread_release(thread);
    CHECK_OK(pyrt_interp_delete(other));
    EXPECT_REPORT("interpreter 1", "has ended with 2 blocks of its heaps in use");
    CHECK_UINT(t->id, 0);
    CHECK((t->base.flags & PYRT_OBJECT_HAS_ID) == 0);
    CHECK_INT(pyrt_refcount(&t->base), 3);
    /* By a thread of another interpreter, with the id that it is not any more. */
    up_by_id(t);
    down_by_id(t);
    pyrt_decref(&t->base);
    pyrt_decref(&t->base);
    pyrt_decref((pyrt_object *)type);
    CHECK_UINT(things_died(), 0);
    pyrt_decref(&t->base);
    CHECK_UINT(things_died(), 1);
    down();
}

static void
make_with_id_in_destructor(thing *t)
{
    thing *other = t->arg;
    CHECK_STATUS(pyrt_unique_id_new(pyrt_interp_main(), &other->base, &other->id), PYRT_ESTATE);
    pyrt_decref(&other->base);
}

TEST(an_interpreter_that_is_ending_gives_no_ids)
{
    up();
    thing *t = thing_with_id();
    t->when_dying = make_with_id_in_destructor;
    t->arg = thing_new(self);
    pyrt_decref(&t->base);
    down();
    CHECK_UINT(things_died(), 2);
}

TEST(immortal_and_deferred_ones_are_left_alone)
{
    up();
    thing *deferred = thing_with_id();
    pyrt_set_deferred(&deferred->base);
    pyrt_decref(&deferred->base);
    CHECK_INT(merge_counts(), 0);
    pyrt_clear_deferred(&deferred->base);
    CHECK_UINT(things_died(), 0);
    CHECK_INT(merge_counts(), 1);
    thing *immortal = thing_with_id();
    pyrt_set_immortal(&immortal->base);
    CHECK_INT(merge_counts(), 0);
    pyrt_thread_release(self);
    pyrt_decref((pyrt_object *)thing_type);
    CHECK_OK(pyrt_runtime_fini());
    EXPECT_REPORT("has ended with 2 blocks of its heaps in use");
    CHECK_UINT(things_died(), 1);
}

/* ---- pauses ------------------------------------------------------------------------------------------------------ */

TEST(in_a_pause_of_ones_own_the_dead_wait_for_a_safepoint)
{
    up();
    thing *t = thing_with_id();
    pyrt_decref(&t->base);
    CHECK_OK(pyrt_stop_the_world(pyrt_interp_main()));
    CHECK_INT(merge_counts(), 1);
    CHECK_UINT(things_died(), 0);
    pyrt_start_the_world(pyrt_interp_main());
    CHECK_UINT(things_died(), 0);
    pyrt_safepoint(self);
    CHECK_UINT(things_died(), 1);
    down();
}

TEST(the_dead_that_nobody_has_fetched_die_with_the_interpreter)
{
    up();
    thing *t = thing_with_id();
    pyrt_decref(&t->base);
    CHECK_OK(pyrt_stop_the_world(pyrt_interp_main()));
    CHECK_INT(merge_counts(), 1);
    pyrt_start_the_world(pyrt_interp_main());
    CHECK_UINT(things_died(), 0);
    down();
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* Whatever allocation fails, counts are right: they are kept elsewhere then. */
static bool
count_while_memory_is_short(void)
{
    thing *all[20];
    int made = 0;
    bool ids = true;
    while (made < 20 && (all[made] = (thing *)(void *)pyrt_object_new(self, thing_type)) != NULL) {
        thing *t = all[made];
        pyrt_status status = pyrt_unique_id_new(pyrt_interp_main(), &t->base, &t->id);
        CHECK(status == PYRT_OK || (status == PYRT_ENOMEM && t->id == 0));
        ids &= status == PYRT_OK;
        t->canary = THING_ALIVE;
        up_by_id(t);
        pyrt_decref(&t->base);
        made++;
    }
    for (int i = 0; i < made; i++) {
        thing_check(all[i]);
        down_by_id(all[i]);
    }
    (void)merge_counts();
    CHECK_UINT(things_died(), (uint64_t)made);
    return made == 20 && ids && self->unique_counts.size != 0;
}

static void
prepare_short(void)
{
    up();
}

static bool
operate_short(void)
{
    (void)count_while_memory_is_short();
    /* What was made stays for the next one: growing is no loss. */
    return true;
}

static void
finish_short(bool succeeded)
{
    CHECK(succeeded);
    pyrt_thread_release(self);
    pyrt_decref((pyrt_object *)thing_type);
    runtime_down();
}

TEST(counting_survives_every_failed_allocation)
{
    fault_plan plan = {prepare_short, operate_short, finish_short};
    CHECK(fault_everywhere(&plan, FAULT_ONCE) >= 4);
    CHECK(fault_everywhere(&plan, FAULT_FROM_ON) >= 1);
}

static bool
make_a_type(void)
{
    errno = 0;
    pyrt_type *type = pyrt_type_new(
        pyrt_interp_main(),
        &(pyrt_type_spec){.struct_size = sizeof(pyrt_type_spec), .name = "short", .basic_size = sizeof(pyrt_object)});
    if (type == NULL) {
        CHECK_INT(errno, ENOMEM);
        return true;
    }
    pyrt_object *object = pyrt_object_new(self, type);
    if (object == NULL) {
        CHECK_INT(errno, ENOMEM);
    }
    pyrt_xdecref(object);
    pyrt_decref((pyrt_object *)type);
    return true;
}

static void
prepare_type(void)
{
    runtime_up();
    self = pyrt_thread_ensure(pyrt_interp_main());
    CHECK(self != NULL);
}

static void
finish_type(bool succeeded)
{
    CHECK(succeeded);
    pyrt_thread_release(self);
    runtime_down();
}

TEST(making_types_and_objects_survives_every_failed_allocation)
{
    fault_plan plan = {prepare_type, make_a_type, finish_type};
    CHECK(fault_everywhere(&plan, FAULT_ONCE) >= 4);
    CHECK(fault_everywhere(&plan, FAULT_FROM_ON) >= 4);
}

static bool
make_a_thread(void)
{
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    if (thread != NULL) {
        pyrt_thread_delete(thread);
    }
    return true;
}

TEST(a_birth_without_memory_for_its_queue)
{
    fault_plan plan = {NULL, make_a_thread, NULL};
    CHECK(fault_everywhere(&plan, FAULT_ONCE) >= 3);
}

/* ---- types without an id ----------------------------------------------------------------------------------------- */

enum { LONE_TYPES = 8, FIRST_IDS = 8 /* the first table */ };

static const char *frames[LONE_TYPES];
static int types_gone;

static int
note_frame(pyrt_weakref *weak, void *arg)
{
    (void)weak;
    (void)arg;
    frames[types_gone++] = __builtin_frame_address(0);
    return 0;
}

/* A type that has no id, since there is no memory for one: it dies with its only object, which another OS thread drops. */
static pyrt_weakref *
queue_the_last_of_a_type(worker *other)
{
    pyrt_type_spec spec = {.struct_size = sizeof(spec), .name = "lone", .basic_size = sizeof(pyrt_object)};
    fault_arm(1, INT_MAX);
    pyrt_type *type = pyrt_type_new(pyrt_interp_main(), &spec);
    fault_disarm();
    CHECK(type != NULL && type->id == 0);
    pyrt_weakref *weak = pyrt_weakref_new(self, (pyrt_object *)type, note_frame, NULL);
    pyrt_object *object = pyrt_object_new(self, type);
    CHECK(weak != NULL && object != NULL);
    pyrt_decref((pyrt_object *)type);
    worker_do(other, count_down, object);
    return weak;
}

TEST(objects_that_end_their_types_die_in_little_stack)
{
    up();
    worker w;
    worker_start(&w);
    thing *fillers[FIRST_IDS];
    int filled = 0;
    pyrt_weakref *weak[LONE_TYPES + 1] = {pyrt_weakref_new(self, (pyrt_object *)thing_type, NULL, NULL)};
    while (object_stats().unique_ids < FIRST_IDS) {
        fillers[filled++] = thing_with_id();
    }
    for (int i = 1; i <= LONE_TYPES; i++) {
        weak[i] = queue_the_last_of_a_type(&w);
    }
    CHECK_INT(types_gone, 0);
    pyrt_safepoint(self);
    CHECK_INT(types_gone, LONE_TYPES);
    for (int i = 1; i < LONE_TYPES; i++) {
        CHECK(frames[i] == frames[0]);
    }
    for (int i = 0; i <= LONE_TYPES; i++) {
        pyrt_decref(&weak[i]->base);
    }
    while (filled != 0) {
        pyrt_decref(&fillers[--filled]->base);
    }
    CHECK(merge_counts() > 0);
    worker_end(&w);
    down();
}
