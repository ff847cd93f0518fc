/* test_object_stress.c -- threads that make objects, hand them to each other, count them up and down, publish them, and come and go:
 * each object is destroyed exactly once, and used by nobody after that.
 *
 * Every object has a death certificate: a word by its serial number, that its destructor signs. References change hands through
 * mailboxes, by exchange, also to threads of another interpreter and to threads without a state; and through slots that are
 * read without a lock, each of which holds only objects of its own number.
 *
 * --break drop-twice    a reference is dropped twice, while one more is held
 *         forget        one reference is never dropped
 *         plain-load    a slot is read by loading the pointer and counting it
 *         no-look       a slot is read by pyrt_try_incref without looking at the slot again
 *
 * What is broken gives what it may meet the time to happen, and is seen before a count of a dead thing is changed: what comes
 * after that may be anything, a crash or a thread that waits for ever.
 */
#include "support.h"

#include "things.h"
#include "workers.h"

#include <stdlib.h>
#include <string.h>

enum { SLOTS = 8, MAIL = 16, HAND = 12, STEPS = 50000, ACTORS = 6, GENERATIONS = 5 };

typedef struct body {
    pyrt_object base;
    uint32_t serial;
    uint32_t slot;
    pyrt_object *child;
} body;

static struct {
    pyrt_interp *other;
    pyrt_type *type;
    pyrt_object *slots[SLOTS];
    pyrt_object *mail[MAIL];
    uint32_t made;
    uint32_t died;
    uint32_t *certificates; /* 0: not born; 1: alive; 2: died */
    uint32_t most;
    uint32_t forgotten;
} world;

static bool
broken(const char *what)
{
    return test_sabotage() != NULL && strcmp(test_sabotage(), what) == 0;
}

static uint32_t
serial_of(pyrt_object *object)
{
    return pyrt_load_relaxed(&((body *)(void *)object)->serial);
}

static bool
lives(uint32_t serial)
{
    return serial < world.most && pyrt_load_acquire(&world.certificates[serial]) == 1;
}

static void
must_live(uint32_t serial)
{
    if (!lives(serial)) {
        FAIL("thing %u is used and has died", serial);
    }
}

static void
use(pyrt_object *object, uint32_t slot)
{
    body *b = (body *)(void *)object;
    CHECK_PTR(object->type, world.type);
    must_live(serial_of(object));
    if (slot < SLOTS && b->slot != slot) {
        FAIL("slot %u has handed out a thing of slot %u", slot, b->slot);
    }
}

static void
body_dealloc(pyrt_object *object)
{
    body *b = (body *)(void *)object;
    uint32_t found = pyrt_exchange_seq_cst(&world.certificates[b->serial], 2u);
    if (found != 1) {
        FAIL("thing %u dies, and its certificate says %u", b->serial, found);
    }
    (void)pyrt_fetch_add_relaxed(&world.died, 1u);
    pyrt_xdecref(b->child);
}

/* ---- one thread -------------------------------------------------------------------------------------------------- */

typedef enum { OF_MAIN, OF_OTHER, OF_NONE } actor_kind;

typedef struct actor {
    actor_kind kind;
    random_stream random;
    pyrt_thread *thread; /* NULL: none */
    bool attached;
    pyrt_object *hand[HAND];
} actor;

static pyrt_object **
any_of_hand(actor *a)
{
    return &a->hand[random_below(&a->random, HAND)];
}

static pyrt_object *
make(actor *a)
{
    if (a->kind != OF_MAIN || !a->attached) {
        return NULL;
    }
    body *b = (body *)(void *)pyrt_object_new(a->thread, world.type);
    CHECK(b != NULL);
    uint32_t serial = pyrt_fetch_add_relaxed(&world.made, 1u);
    CHECK(serial < world.most);
    b->slot = random_below(&a->random, SLOTS);
    pyrt_store_relaxed(&b->serial, serial);
    pyrt_store_release(&world.certificates[serial], 1u);
    return &b->base;
}

/* Where the other reference is in the same hand, which uses it then. */
static void
drop_twice(actor *a, pyrt_object *object)
{
    uint32_t serial = serial_of(object);
    pyrt_decref(object);
    for (int i = 0; i < HAND; i++) {
        if (a->hand[i] == object && pyrt_is_uniquely_referenced(object)) {
            pyrt_decref(object);
            must_live(serial);
        }
    }
}

static void
drop(actor *a, pyrt_object **place)
{
    pyrt_object *object = *place;
    *place = NULL;
    if (object == NULL) {
        return;
    }
    use(object, SLOTS);
    if (broken("forget") && pyrt_fetch_add_relaxed(&world.forgotten, 1u) == 500) {
        return;
    }
    if (broken("drop-twice")) {
        drop_twice(a, object);
        return;
    }
    pyrt_decref(object);
}

static pyrt_object *
load_plainly(pyrt_object **slot)
{
    pyrt_object *object = pyrt_load_acquire(slot);
    if (object == NULL) {
        return NULL;
    }
    uint32_t serial = serial_of(object);
    /* Time for it to be dropped. */
    sched_yield();
    must_live(serial);
    return pyrt_incref(object);
}

static pyrt_object *
load_without_a_look(actor *a, pyrt_object **slot)
{
    pyrt_object *object = pyrt_load_acquire(slot);
    if (object == NULL) {
        return NULL;
    }
    /* What others might do meanwhile: the slot is emptied; if that was the last reference, new things have the same memory. */
    uint32_t serial = serial_of(object);
    pyrt_store_ref(slot, NULL);
    bool counted = pyrt_try_incref(object);
    for (int i = 0; i < 1000 && !counted && !lives(serial); i++) {
        pyrt_object *new = make(a);
        counted = pyrt_try_incref(object);
        pyrt_decref(new);
    }
    return counted ? object : NULL;
}

static pyrt_object *
load(actor *a, pyrt_object **slot)
{
    if (broken("plain-load")) {
        return load_plainly(slot);
    }
    return broken("no-look") ? load_without_a_look(a, slot) : pyrt_load_ref(slot);
}

static void
count(actor *a)
{
    pyrt_object *object = *any_of_hand(a);
    pyrt_object **free = any_of_hand(a);
    if (object != NULL && *free == NULL) {
        use(object, SLOTS);
        *free = pyrt_incref(object);
    }
}

static void
exchange_mail(actor *a)
{
    pyrt_object **place = any_of_hand(a);
    *place = pyrt_exchange_seq_cst(&world.mail[random_below(&a->random, MAIL)], *place);
    if (*place != NULL) {
        use(*place, SLOTS);
    }
}

static void
publish(actor *a)
{
    pyrt_object **place = any_of_hand(a);
    if (*place == NULL) {
        return;
    }
    uint32_t slot = ((body *)(void *)*place)->slot;
    pyrt_object **where = &world.slots[slot];
    uint32_t how = random_below(&a->random, 4);
    if (how == 0) {
        *place = pyrt_exchange_ref(where, *place);
    }
    else if (how == 1 && a->kind == OF_MAIN && a->attached) {
        pyrt_object *expected = load(a, where);
        if (pyrt_compare_exchange_ref(where, expected, *place)) {
            *place = NULL;
        }
        pyrt_xdecref(expected);
    }
    else {
        pyrt_object *object = *place;
        *place = NULL;
        pyrt_store_ref(where, object);
    }
}

static void
read_slot(actor *a)
{
    pyrt_object **place = any_of_hand(a);
    uint32_t slot = random_below(&a->random, SLOTS);
    if (a->kind == OF_MAIN && a->attached && *place == NULL) {
        *place = load(a, &world.slots[slot]);
        if (*place != NULL) {
            use(*place, slot);
        }
    }
}

static void
adopt_child(actor *a)
{
    pyrt_object *new = make(a);
    pyrt_object **place = any_of_hand(a);
    if (new == NULL) {
        return;
    }
    ((body *)(void *)new)->child = *place;
    *place = new;
}

static void
special(actor *a)
{
    pyrt_object *object = *any_of_hand(a);
    if (object == NULL) {
        return;
    }
    use(object, SLOTS);
    if (random_below(&a->random, 2) == 0) {
        pyrt_enable_try_incref(object);
    }
    else {
        pyrt_set_deferred(object);
        pyrt_clear_deferred(object);
    }
}

static void
flip(actor *a)
{
    if (a->thread == NULL) {
        return;
    }
    a->attached ? pyrt_detach(a->thread) : pyrt_attach(a->thread);
    a->attached = !a->attached;
}

/* What it owns has no owner any more. */
static void
be_born_again(actor *a)
{
    if (a->thread == NULL) {
        return;
    }
    if (a->attached) {
        pyrt_detach(a->thread);
    }
    pyrt_thread_delete(a->thread);
    a->thread = pyrt_thread_new(a->kind == OF_OTHER ? world.other : pyrt_interp_main());
    CHECK(a->thread != NULL);
    pyrt_attach(a->thread);
    a->attached = true;
}

static void
wait_for_others(actor *a)
{
    if (a->kind == OF_OTHER && a->attached) {
        /* Attached to one interpreter it cannot stop another. */
        flip(a);
    }
    uint32_t how = random_below(&a->random, 4);
    if (how == 0) {
        CHECK_OK(pyrt_stop_the_world(pyrt_interp_main()));
        pyrt_start_the_world(pyrt_interp_main());
    }
    else if (how == 1) {
        CHECK(pyrt_merge_unique_counts(pyrt_interp_main()) >= 0);
    }
    else if (how == 2 && a->kind == OF_MAIN) {
        CHECK_OK(pyrt_qsbr_barrier(a->thread));
    }
    else if (a->thread != NULL) {
        pyrt_merge_refcounts(a->thread);
    }
}

static void
step(actor *a)
{
    switch (random_below(&a->random, 16)) {
    case 0:
    case 1:
    case 2: {
        pyrt_object **place = any_of_hand(a);
        if (*place == NULL) {
            *place = make(a);
        }
        break;
    }
    case 3:
    case 4:
        count(a);
        break;
    case 5:
    case 6:
    case 7:
        drop(a, any_of_hand(a));
        break;
    case 8:
    case 9:
        exchange_mail(a);
        break;
    case 10:
        publish(a);
        break;
    case 11:
    case 12:
        read_slot(a);
        break;
    case 13:
        adopt_child(a);
        break;
    case 14:
        special(a);
        break;
    default:
        if (random_below(&a->random, 8) == 0) {
            be_born_again(a);
        }
        else if (random_below(&a->random, 40) == 0) {
            wait_for_others(a);
        }
        else {
            flip(a);
        }
    }
    if (a->attached && random_below(&a->random, 4) == 0) {
        pyrt_safepoint(a->thread);
    }
}

static void
act(void *generation, int number)
{
    static const actor_kind kinds[ACTORS] = {OF_MAIN, OF_MAIN, OF_MAIN, OF_MAIN, OF_OTHER, OF_NONE};
    actor a = {.kind = kinds[number], .random = random_for((uint64_t)(*(int *)generation * ACTORS + number))};
    if (a.kind != OF_NONE) {
        a.thread = pyrt_thread_new(a.kind == OF_OTHER ? world.other : pyrt_interp_main());
        CHECK(a.thread != NULL);
    }
    flip(&a);
    for (unsigned i = 0; i < STEPS * test_scale(); i++) {
        step(&a);
    }
    for (int i = 0; i < HAND; i++) {
        drop(&a, &a.hand[i]);
    }
    if (a.attached) {
        flip(&a);
    }
    /* Every other state is left to the end of its OS thread. */
    if (a.thread != NULL && number % 2 == 0) {
        pyrt_thread_delete(a.thread);
    }
}

static void
check_all_died(void)
{
    for (uint32_t i = 0; i < world.made; i++) {
        if (world.certificates[i] != 2) {
            FAIL("thing %u has not died", i);
        }
    }
    CHECK_UINT(world.died, world.made);
}

TEST(every_object_dies_once_and_is_not_used_after_that)
{
    memset(&world, 0, sizeof(world));
    /* No step makes more than one. */
    world.most = ACTORS * STEPS * GENERATIONS * test_scale();
    world.certificates = calloc(world.most, sizeof(uint32_t));
    CHECK(world.certificates != NULL);
    runtime_up();
    world.other = pyrt_interp_new(NULL);
    world.type = pyrt_type_new(pyrt_interp_main(), &(pyrt_type_spec){.struct_size = sizeof(pyrt_type_spec),
                                                                     .name = "certified",
                                                                     .basic_size = sizeof(body),
                                                                     .dealloc = body_dealloc});
    CHECK(world.other != NULL && world.type != NULL);
    for (int generation = 0; generation < GENERATIONS; generation++) {
        run_crowd(ACTORS, act, &generation);
    }
    for (int i = 0; i < SLOTS; i++) {
        pyrt_store_ref(&world.slots[i], NULL);
    }
    for (int i = 0; i < MAIL; i++) {
        pyrt_xdecref(world.mail[i]);
    }
    check_all_died();
    free(world.certificates);
    CHECK(world.made > 1000);
    pyrt_object_stats stats = object_stats();
    CHECK(stats.merges_asked > 0 && stats.merges_done > 0 && stats.merges_for_ended > 0 && stats.queues_borrowed > 0);
    CHECK_UINT(stats.merges_asked, stats.merges_done);
    pyrt_decref((pyrt_object *)world.type);
    CHECK_OK(pyrt_interp_delete(world.other));
    runtime_down();
}
