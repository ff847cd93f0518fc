/* test_object_special.c -- objects that do not die of counting, references out of nothing, slots, and traces. */
#include "support.h"

#include "steps.h"
#include "things.h"
#include "workers.h"

#include "object/object_impl.h"

#include <stdio.h>

static pyrt_thread *self;
static worker w;

static void
up(void)
{
    self = things_up_attached();
    worker_start(&w);
}

static void
down(void)
{
    worker_end(&w);
    things_down_attached(self);
}

/* Immortal things stay in use when their interpreter ends, and their type with them. */
static void
down_with_immortals(unsigned count)
{
    char text[60];
    snprintf(text, sizeof(text), "has ended with %u blocks of its heaps in use", count + 1);
    worker_end(&w);
    pyrt_thread_release(self);
    pyrt_decref((pyrt_object *)thing_type);
    CHECK_OK(pyrt_runtime_fini());
    EXPECT_REPORT(text);
    CHECK_UINT(things_died() + count, things_made());
}

static void
make_immortal(void *object)
{
    pyrt_set_immortal(object);
}

static void
check_immortal(thing *t)
{
    CHECK(pyrt_is_immortal(&t->base));
    CHECK(thing_look(t).immortal);
    CHECK_INT(pyrt_refcount(&t->base), INT64_MAX);
    pyrt_object before = t->base;
    for (int i = 0; i < 10; i++) {
        pyrt_decref(&t->base);
        worker_do(&w, count_down, t);
    }
    pyrt_incref(&t->base);
    worker_do(&w, count_up, t);
    CHECK(pyrt_try_incref(&t->base));
    /* Nothing was written. */
    CHECK_INT(t->base.shared, before.shared);
    CHECK_UINT(t->base.local, before.local);
    CHECK_UINT(t->base.owner, before.owner);
    thing_check(t);
}

/* ---- immortal ---------------------------------------------------------------------------------------------------- */

TEST(an_owner_makes_its_object_immortal_at_once)
{
    up();
    thing *t = thing_new(self);
    worker_do(&w, count_up, t);
    pyrt_set_immortal(&t->base);
    pyrt_set_immortal(&t->base);
    check_immortal(t);
    CHECK_UINT(object_stats().immortal, 1);
    down_with_immortals(1);
}

TEST(a_merged_object_becomes_immortal_at_once)
{
    up();
    thing *t = thing_new(self);
    worker_do(&w, count_up, t);
    pyrt_decref(&t->base);
    CHECK_UINT(thing_look(t).state, PYRT_SHARED_MERGED);
    pyrt_set_immortal(&t->base);
    check_immortal(t);
    down_with_immortals(1);
}

TEST(another_owners_object_is_immortal_at_once_and_quiet_when_that_has_merged)
{
    up();
    thing *t = thing_new(self);
    worker_do(&w, make_immortal, t);
    CHECK(thing_look(t).immortal);
    CHECK_UINT(thing_look(t).state, PYRT_SHARED_QUEUED);
    /* Every reference that there was is dropped, and more. */
    pyrt_decref(&t->base);
    worker_do(&w, count_down, t);
    CHECK_UINT(things_died(), 0);
    pyrt_safepoint(self);
    check_immortal(t);
    down_with_immortals(1);
}

TEST(a_queued_object_may_become_immortal)
{
    up();
    thing *t = thing_new(self);
    pyrt_incref(&t->base);
    worker_do(&w, count_down, t);
    CHECK_UINT(thing_look(t).state, PYRT_SHARED_QUEUED);
    pyrt_set_immortal(&t->base);
    pyrt_decref(&t->base);
    CHECK(!pyrt_is_immortal(&t->base));
    pyrt_safepoint(self);
    check_immortal(t);
    thing *other = thing_new(self);
    worker_do(&w, count_down, other);
    pyrt_safepoint(self);
    CHECK_UINT(things_died(), 1);
    down_with_immortals(1);
}

static void
make_thing(void *out)
{
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    *(thing **)out = thing_new(thread);
    pyrt_thread_release(thread);
}

TEST(an_object_whose_owner_has_ended_becomes_immortal_at_once)
{
    up();
    thing *t;
    worker_do(&w, make_thing, &t);
    pyrt_set_immortal(&t->base);
    check_immortal(t);
    down_with_immortals(1);
}

TEST(an_object_that_is_counted_to_the_brim_becomes_immortal)
{
    up();
    thing *t = thing_new(self);
    t->base.local = PYRT_LOCAL_TRACED - 2;
    pyrt_incref(&t->base);
    CHECK(!pyrt_is_immortal(&t->base));
    pyrt_incref(&t->base);
    check_immortal(t);
    t = thing_new(self);
    t->base.local = PYRT_LOCAL_TRACED - 1;
    CHECK(pyrt_try_incref(&t->base));
    check_immortal(t);
    down_with_immortals(2);
}

typedef struct static_thing {
    pyrt_object base;
    int value;
} static_thing;

TEST(an_object_in_static_memory)
{
    static static_thing t = {PYRT_OBJECT_IMMORTAL_INIT(NULL), 7};
    static pyrt_object *slot;
    up();
    pyrt_decref(&t.base);
    pyrt_incref(&t.base);
    pyrt_set_immortal(&t.base);
    CHECK(pyrt_is_immortal(&t.base));
    pyrt_store_ref(&slot, &t.base);
    CHECK_PTR(pyrt_load_ref(&slot), &t);
    pyrt_store_ref(&slot, NULL);
    down();
}

/* ---- deferred ---------------------------------------------------------------------------------------------------- */

static void
clear_deferred(void *object)
{
    pyrt_clear_deferred(object);
}

TEST(a_deferred_object_dies_when_its_collector_says_so)
{
    up();
    thing *t = thing_new(self);
    pyrt_set_deferred(&t->base);
    pyrt_set_deferred(&t->base);
    CHECK(thing_look(t).deferred);
    CHECK_INT(pyrt_refcount(&t->base), 1);
    worker_do(&w, count_up, t);
    worker_do(&w, count_down, t);
    worker_do(&w, count_down, t);
    CHECK_INT(pyrt_refcount(&t->base), 0);
    CHECK_UINT(things_died(), 0);
    pyrt_clear_deferred(&t->base);
    CHECK_UINT(things_died(), 1);

    /* With references left; as its owner, as another, and merged. */
    t = thing_new(self);
    pyrt_set_deferred(&t->base);
    pyrt_clear_deferred(&t->base);
    pyrt_clear_deferred(&t->base);
    CHECK_INT(pyrt_refcount(&t->base), 1);
    pyrt_decref(&t->base);
    t = thing_new(self);
    pyrt_set_deferred(&t->base);
    worker_do(&w, clear_deferred, t);
    pyrt_decref(&t->base);
    pyrt_safepoint(self);
    t = thing_new(self);
    worker_do(&w, count_up, t);
    pyrt_decref(&t->base);
    pyrt_set_deferred(&t->base);
    worker_do(&w, count_down, t);
    CHECK_UINT(things_died(), 3);
    worker_do(&w, clear_deferred, t);
    CHECK_UINT(things_died(), 4);

    /* Dropped by others more often than they counted it: the owner is asked. */
    t = thing_new(self);
    pyrt_incref(&t->base);
    pyrt_set_deferred(&t->base);
    worker_do(&w, count_down, t);
    worker_do(&w, count_down, t);
    CHECK_INT(thing_look(t).shared, -2);
    worker_do(&w, clear_deferred, t);
    CHECK_UINT(things_died(), 4);
    pyrt_safepoint(self);
    CHECK_UINT(things_died(), 5);

    /* The same, and it stands in the queue already. */
    t = thing_new(self);
    pyrt_incref(&t->base);
    worker_do(&w, count_down, t);
    pyrt_set_deferred(&t->base);
    pyrt_decref(&t->base);
    pyrt_safepoint(self);
    CHECK_UINT(things_died(), 5);
    pyrt_clear_deferred(&t->base);
    CHECK_UINT(things_died(), 6);
    down();
}

static void
set_and_clear(void *object, int number)
{
    (void)number;
    pyrt_incref(object);
    for (int i = 0; i < 300000; i++) {
        pyrt_set_deferred(object);
        pyrt_clear_deferred(object);
    }
    pyrt_decref(object);
}

TEST(several_defer_one_object_and_no_share_is_left)
{
    up();
    for (int merged = 0; merged < 2; merged++) {
        thing *t = thing_new(self);
        if (merged) {
            worker_do(&w, count_up, t);
            pyrt_decref(&t->base);
        }
        pyrt_detach(self);
        run_crowd(4, set_and_clear, t);
        pyrt_attach(self);
        CHECK(!thing_look(t).deferred);
        CHECK_INT(pyrt_refcount(&t->base), 1);
        pyrt_decref(&t->base);
        CHECK_UINT(things_died(), (uint64_t)merged + 1);
    }
    down();
}

/* ---- references out of nothing ----------------------------------------------------------------------------------- */

static void
try_up(void *arg)
{
    pyrt_object **object = arg;
    if (!pyrt_try_incref(*object)) {
        *object = NULL;
    }
}

static bool
worker_tries(thing *t)
{
    pyrt_object *object = &t->base;
    worker_do(&w, try_up, &object);
    return object != NULL;
}

TEST(trying_succeeds_for_what_is_open_and_alive)
{
    up();
    thing *t = thing_new(self);
    CHECK(pyrt_try_incref(&t->base));
    CHECK(!worker_tries(t));
    worker_do(&w, count_up, t);
    CHECK(worker_tries(t));
    worker_do(&w, count_down, t);
    worker_do(&w, count_down, t);
    pyrt_enable_try_incref(&t->base);
    pyrt_enable_try_incref(&t->base);
    CHECK_UINT(thing_look(t).state, PYRT_SHARED_OPEN);
    pyrt_decref(&t->base);
    CHECK(!pyrt_is_uniquely_referenced(&t->base));
    CHECK(worker_tries(t));
    worker_do(&w, count_down, t);
    /* The last one of its owner. */
    pyrt_decref(&t->base);
    CHECK_UINT(things_died(), 1);
    CHECK(!worker_tries(t));
    CHECK(!pyrt_try_incref(&t->base));

    /* Queued, and merged. */
    t = thing_new(self);
    pyrt_incref(&t->base);
    worker_do(&w, count_down, t);
    CHECK(worker_tries(t));
    CHECK(pyrt_try_incref(&t->base));
    pyrt_safepoint(self);
    CHECK_UINT(thing_look(t).state, PYRT_SHARED_MERGED);
    CHECK_INT(pyrt_refcount(&t->base), 3);
    CHECK(worker_tries(t));
    for (int i = 0; i < 4; i++) {
        pyrt_decref(&t->base);
    }
    CHECK(!worker_tries(t));
    CHECK_UINT(things_died(), 2);
    down();
}

/* ---- slots ------------------------------------------------------------------------------------------------------- */

static pyrt_object *slot;

static void
load_slot(void *out)
{
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    *(pyrt_object **)out = pyrt_load_ref(&slot);
    pyrt_thread_release(thread);
}

TEST(slots_take_over_and_hand_out_references)
{
    up();
    slot = NULL;
    CHECK(pyrt_load_ref(&slot) == NULL);
    thing *a = thing_new(self);
    thing *b = thing_new(self);
    pyrt_store_ref(&slot, &a->base);
    CHECK_UINT(thing_look(a).state, PYRT_SHARED_OPEN);
    CHECK_PTR(pyrt_load_ref(&slot), a);
    CHECK_INT(pyrt_refcount(&a->base), 2);
    pyrt_object *found;
    worker_do(&w, load_slot, &found);
    CHECK_PTR(found, a);
    CHECK_INT(thing_look(a).shared, 1);
    worker_do(&w, count_down, a);
    pyrt_decref(&a->base);

    CHECK(!pyrt_compare_exchange_ref(&slot, &b->base, &b->base));
    CHECK(!pyrt_compare_exchange_ref(&slot, NULL, &b->base));
    CHECK_INT(pyrt_refcount(&b->base), 1);
    CHECK_UINT(things_died(), 0);
    CHECK(pyrt_compare_exchange_ref(&slot, &a->base, &b->base));
    CHECK_UINT(things_died(), 1);
    pyrt_object *old = pyrt_exchange_ref(&slot, NULL);
    CHECK_PTR(old, b);
    CHECK_INT(pyrt_refcount(old), 1);
    CHECK(pyrt_compare_exchange_ref(&slot, NULL, old));
    CHECK(pyrt_compare_exchange_ref(&slot, old, NULL));
    CHECK_UINT(things_died(), 2);
    CHECK(slot == NULL);
    pyrt_store_ref(&slot, &thing_new(self)->base);
    pyrt_store_ref(&slot, &thing_new(self)->base);
    CHECK_UINT(things_died(), 3);
    pyrt_store_ref(&slot, NULL);
    CHECK_UINT(things_died(), 4);
    down();
}

/* ---- traces ------------------------------------------------------------------------------------------------------ */

static void
trace_on(void *object)
{
    pyrt_object_trace(object, true);
}

TEST(the_life_of_a_traced_object_is_told)
{
    up();
    thing *t = thing_new(self);
    pyrt_incref(&t->base);
    pyrt_object_trace(&t->base, true);
    EXPECT_REPORT("type 'thing' is traced from here on", named(self), "shared count 2, merged");
    CHECK(thing_look(t).traced);
    pyrt_incref(&t->base);
    EXPECT_REPORT("type 'thing' is counted by", named(self), "from 0x", "shared count 3");
    CHECK(pyrt_try_incref(&t->base));
    while (reports_pending() != 0) {
        EXPECT_REPORT("type 'thing' is found and counted");
    }
    pyrt_decref(&t->base);
    EXPECT_REPORT("type 'thing' is dropped by", named(self));
    worker_do(&w, count_down, t);
    EXPECT_REPORT("type 'thing' is dropped by", "thread 0 ");
    pyrt_object_trace(&t->base, false);
    EXPECT_REPORT("type 'thing' is no longer traced");
    pyrt_incref(&t->base);
    pyrt_decref(&t->base);
    CHECK_UINT(reports_pending(), 0);
    pyrt_object_trace(&t->base, true);
    EXPECT_REPORT("is traced from here on");
    pyrt_decref(&t->base);
    EXPECT_REPORT("type 'thing' is dropped by");
    pyrt_decref(&t->base);
    EXPECT_REPORT("type 'thing' is dropped by");
    EXPECT_REPORT("type 'thing' dies by", named(self), "shared count 0, merged");
    CHECK_UINT(things_died(), 1);
    down();
}

/* A hook may do what it likes: no lock is held. */
static int told;

static void
look_again(const char *message, void *weak)
{
    static bool is_inside;
    (void)message;
    if (!is_inside) {
        is_inside = true;
        told++;
        pyrt_xdecref(pyrt_weakref_get(weak));
        is_inside = false;
    }
}

static void
get_and_drop(void *weak)
{
    pyrt_object *found = pyrt_weakref_get(weak);
    CHECK(found != NULL);
    pyrt_decref(found);
}

static int
check_is_cleared(pyrt_weakref *weak, void *arg)
{
    (void)arg;
    CHECK(pyrt_weakref_get(weak) == NULL);
    return 0;
}

TEST(who_is_told_of_a_traced_object_may_look_at_it)
{
    up();
    thing *t = thing_new(self);
    pyrt_weakref *weak = pyrt_weakref_new(self, &t->base, NULL, NULL);
    pyrt_weakref *calls = pyrt_weakref_new(self, &t->base, check_is_cleared, NULL);
    pyrt_set_report_hook(look_again, weak);
    pyrt_object_trace(&t->base, true);
    pyrt_object_trace(&weak->base, true);
    pyrt_object_trace(&calls->base, true);
    CHECK_INT(told, 3);
    /* Found and dropped, with a state and without. */
    get_and_drop(weak);
    CHECK_INT(told, 5);
    worker_do(&w, get_and_drop, weak);
    CHECK_INT(told, 7);
    CHECK_PTR(pyrt_weakref_new(self, &t->base, NULL, NULL), weak);
    CHECK_INT(told, 8);
    /* Dropped, and dies; the one with a callback is counted for that, and dropped. */
    pyrt_decref(&t->base);
    CHECK_INT(told, 12);
    CHECK_UINT(things_died(), 1);
    pyrt_decref(&calls->base);
    pyrt_decref(&weak->base);
    pyrt_decref(&weak->base);
    down();
}

TEST(another_owners_object_is_traced_when_that_has_merged_it)
{
    up();
    thing *t = thing_new(self);
    worker_do(&w, trace_on, t);
    EXPECT_REPORT("type 'thing' is traced from here on", "thread 0 ", "queued");
    pyrt_incref(&t->base);
    CHECK_UINT(reports_pending(), 0);
    pyrt_safepoint(self);
    pyrt_decref(&t->base);
    EXPECT_REPORT("type 'thing' is dropped by", named(self), "shared count 2");
    pyrt_set_immortal(&t->base);
    check_immortal(t);
    CHECK_UINT(reports_pending(), 0);
    down_with_immortals(1);
}
