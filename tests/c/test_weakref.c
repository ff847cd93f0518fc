/* test_weakref.c -- weak references, sentence by sentence (weakref.h): with the list in the object, and in the table beside it. */
#include "support.h"

#include "faults.h"
#include "things.h"
#include "workers.h"

#include <errno.h>
#include <pyruntime/weakref.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static pyrt_thread *self;

static void
up(void)
{
    things_up();
    self = pyrt_thread_ensure(pyrt_interp_main());
    CHECK(self != NULL);
}

static void
down(void)
{
    pyrt_thread_release(self);
    things_down();
}

static void
drop(void *object)
{
    pyrt_decref(object);
}

static void
drop_weak(pyrt_weakref *weak)
{
    pyrt_decref(&weak->base);
}

static pyrt_weakref *
weak_to(void *object, int (*callback)(pyrt_weakref *, void *), void *arg)
{
    pyrt_weakref *weak = pyrt_weakref_new(self, object, callback, arg);
    CHECK(weak != NULL);
    return weak;
}

/* Whether it gives the object. */
static bool
gives(pyrt_weakref *weak, void *object)
{
    pyrt_object *found = pyrt_weakref_get(weak);
    pyrt_xdecref(found);
    return found != NULL && found == object;
}

/* ---- objects with a word for the list ---------------------------------------------------------------------------- */

typedef struct listed {
    pyrt_object base;
    void *list;
    uint64_t number;
} listed;

static pyrt_type *
listed_type_new(void)
{
    pyrt_type *type = pyrt_type_new(pyrt_interp_main(), &(pyrt_type_spec){.struct_size = sizeof(pyrt_type_spec),
                                                                          .name = "listed",
                                                                          .basic_size = sizeof(listed),
                                                                          .weaklist_offset = offsetof(listed, list)});
    CHECK(type != NULL);
    return type;
}

/* Runs a test with a type without and with that word. */
static void
with_both(void (*test)(pyrt_type *type))
{
    up();
    pyrt_type *type = listed_type_new();
    test(thing_type);
    CHECK_UINT(things_died(), things_made());
    test(type);
    pyrt_decref((pyrt_object *)type);
    down();
}

static void *
new_of(pyrt_type *type)
{
    if (type == thing_type) {
        return thing_new(self);
    }
    pyrt_object *object = pyrt_object_new(self, type);
    CHECK(object != NULL);
    return object;
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

static void
lives_and_dies(pyrt_type *type)
{
    void *object = new_of(type);
    pyrt_weakref *weak = weak_to(object, NULL, NULL);
    CHECK(!pyrt_weakref_is_dead(weak));
    pyrt_object *found = pyrt_weakref_get(weak);
    CHECK_PTR(found, object);
    CHECK_INT(pyrt_refcount(object), 2);
    drop(object);
    CHECK(gives(weak, object));
    drop(found);
    CHECK(pyrt_weakref_is_dead(weak));
    CHECK_PTR(pyrt_weakref_get(weak), NULL);
    drop_weak(weak);
}

TEST(it_gives_its_object_as_long_as_that_lives)
{
    with_both(lives_and_dies);
}

static void
is_shared(pyrt_type *type)
{
    void *object = new_of(type);
    CHECK_UINT(pyrt_weakref_count(object), 0);
    pyrt_weakref *weak = weak_to(object, NULL, NULL);
    CHECK_PTR(weak_to(object, NULL, NULL), weak);
    CHECK_INT(pyrt_refcount(&weak->base), 2);
    CHECK_UINT(pyrt_weakref_count(object), 1);
    drop_weak(weak);
    drop_weak(weak);
    CHECK_UINT(pyrt_weakref_count(object), 0);
    weak = weak_to(object, NULL, NULL);
    CHECK(gives(weak, object));
    drop_weak(weak);
    drop(object);
}

TEST(one_without_a_callback_is_shared)
{
    with_both(is_shared);
}

static void
no_stranger(pyrt_type *type)
{
    enum { ENOUGH = 100000 }; /* until the memory of the first is used again */
    void **others = malloc(ENOUGH * sizeof(*others));
    void *first = new_of(type);
    pyrt_weakref *weak = weak_to(first, NULL, NULL);
    drop(first);
    size_t count = 0;
    do {
        CHECK(count < ENOUGH);
        others[count++] = new_of(type);
    } while (others[count - 1] != first);
    pyrt_weakref *other = weak_to(first, NULL, NULL);
    CHECK_PTR(pyrt_weakref_get(weak), NULL);
    CHECK(other != weak);
    CHECK(gives(other, first));
    drop_weak(weak);
    CHECK(gives(other, first));
    while (count > 0) {
        drop(others[--count]);
    }
    CHECK(pyrt_weakref_is_dead(other));
    drop_weak(other);
    free(others);
}

TEST(it_gives_no_object_that_came_into_the_same_memory)
{
    with_both(no_stranger);
}

typedef struct look {
    pyrt_weakref *weak;
    pyrt_interp *interp;
    pyrt_object *found;
} look;

static void
look_from_there(void *arg)
{
    look *looking = arg;
    pyrt_thread *thread = looking->interp == NULL ? NULL : pyrt_thread_ensure(looking->interp);
    looking->found = pyrt_weakref_get(looking->weak);
    pyrt_xdecref(looking->found);
    if (thread != NULL) {
        pyrt_thread_release(thread);
    }
}

static void
from_anywhere(pyrt_type *type)
{
    pyrt_interp *other = pyrt_interp_new(NULL);
    void *object = new_of(type);
    pyrt_weakref *weak = weak_to(object, NULL, NULL);
    worker elsewhere;
    worker_start(&elsewhere);
    pyrt_interp *from[] = {NULL, pyrt_interp_main(), other};
    for (size_t i = 0; i < 3; i++) {
        look looking = {weak, from[i], NULL};
        worker_do(&elsewhere, look_from_there, &looking);
        CHECK_PTR(looking.found, object);
    }
    drop(object);
    pyrt_merge_refcounts(self);
    for (size_t i = 0; i < 3; i++) {
        look looking = {weak, from[i], NULL};
        worker_do(&elsewhere, look_from_there, &looking);
        CHECK_PTR(looking.found, NULL);
    }
    worker_end(&elsewhere);
    drop_weak(weak);
    CHECK_OK(pyrt_interp_delete(other));
}

TEST(any_thread_may_look)
{
    with_both(from_anywhere);
}

/* ---- callbacks --------------------------------------------------------------------------------------------------- */

enum { CALLS = 8 };

static pyrt_weakref *called[CALLS];
static int calls;
static pyrt_weakref **all; /* must be cleared when the first is called */

static int
note(pyrt_weakref *weak, void *arg)
{
    CHECK(calls < CALLS);
    CHECK(pyrt_weakref_is_dead(weak));
    CHECK_PTR(pyrt_weakref_get(weak), NULL);
    CHECK(pyrt_refcount(&weak->base) >= 1);
    for (pyrt_weakref **one = all; one != NULL && *one != NULL; one++) {
        CHECK(pyrt_weakref_is_dead(*one));
    }
    called[calls++] = weak;
    return arg == NULL ? 0 : *(int *)arg;
}

static void
newest_first(pyrt_type *type)
{
    calls = 0;
    void *object = new_of(type);
    pyrt_weakref *first = weak_to(object, note, NULL);
    pyrt_weakref *shared = weak_to(object, NULL, NULL);
    pyrt_weakref *second = weak_to(object, note, NULL);
    pyrt_weakref *third = weak_to(object, note, NULL);
    pyrt_weakref *them[] = {first, shared, second, third, NULL};
    all = them;
    CHECK_UINT(pyrt_weakref_count(object), 4);
    drop(object);
    CHECK_INT(calls, 3);
    CHECK_PTR(called[0], third);
    CHECK_PTR(called[1], second);
    CHECK_PTR(called[2], first);
    all = NULL;
    for (int i = 0; i < 4; i++) {
        drop_weak(them[i]);
    }
}

TEST(callbacks_run_newest_first_when_all_are_cleared)
{
    with_both(newest_first);
}

static void
only_living(pyrt_type *type)
{
    calls = 0;
    void *object = new_of(type);
    pyrt_weakref *gone = weak_to(object, note, NULL);
    pyrt_weakref *there = weak_to(object, note, NULL);
    pyrt_weakref *newest = weak_to(object, note, NULL);
    drop_weak(gone);
    drop_weak(newest);
    drop(object);
    CHECK_INT(calls, 1);
    CHECK_PTR(called[0], there);
    drop_weak(there);
}

TEST(that_of_a_weak_reference_which_is_gone_does_not_run)
{
    with_both(only_living);
}

static int
drop_the_rest(pyrt_weakref *weak, void *arg)
{
    (void)weak;
    pyrt_weakref **rest = arg;
    for (; *rest != NULL; rest++) {
        drop_weak(*rest);
    }
    return 0;
}

static void
dropped_by_another(pyrt_type *type)
{
    calls = 0;
    void *object = new_of(type);
    pyrt_weakref *rest[3] = {weak_to(object, note, NULL), weak_to(object, note, NULL), NULL};
    pyrt_weakref *dropping = weak_to(object, drop_the_rest, rest);
    drop(object);
    CHECK_INT(calls, 2); /* they are alive for the time of their call */
    drop_weak(dropping);
}

TEST(a_callback_may_drop_the_others)
{
    with_both(dropped_by_another);
}

TEST(a_callback_that_fails_is_reported_and_the_others_run)
{
    up();
    calls = 0;
    int three = 3;
    thing *t = thing_new(self);
    pyrt_weakref *good = weak_to(t, note, NULL);
    pyrt_weakref *bad = weak_to(t, note, &three);
    drop(t);
    EXPECT_REPORT("callback of a weak reference", "'thing'", "failed with 3");
    CHECK_INT(calls, 2);
    drop_weak(good);
    drop_weak(bad);
    down();
}

static int
drop_what_it_has(pyrt_weakref *weak, void *arg)
{
    (void)weak;
    drop(arg);
    return 0;
}

/* Object, weak reference and what the callback holds go at the same moment: each refers to the next. */
TEST(a_chain_of_objects_whose_callbacks_drop_the_next)
{
    enum { LENGTH = 1000 };
    up();
    static pyrt_weakref *weak[LENGTH];
    thing *next = NULL;
    for (int i = 0; i < LENGTH; i++) {
        thing *t = thing_new(self);
        weak[i] = next == NULL ? weak_to(t, note, NULL) : weak_to(t, drop_what_it_has, next);
        next = t;
    }
    calls = 0;
    drop(next);
    CHECK_INT(calls, 1);
    CHECK_UINT(things_died(), LENGTH);
    for (int i = 0; i < LENGTH; i++) {
        drop_weak(weak[i]);
    }
    down();
}

static int
end_here(pyrt_weakref *weak, void *arg)
{
    (void)weak;
    (void)arg;
    pthread_exit(NULL);
}

static void
drop_and_end(void *arg)
{
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    CHECK(thread != NULL);
    drop(arg);
}

TEST(a_callback_may_end_the_os_thread)
{
    up();
    calls = 0;
    thing *t = thing_new(self);
    pyrt_weakref *rest = weak_to(t, note, NULL);
    pyrt_weakref *ending = weak_to(t, end_here, NULL);
    (void)pyrt_incref(&t->base);
    drop(t);
    pyrt_detach(self); /* so that the other thread can have it merged */
    worker elsewhere;
    worker_start(&elsewhere);
    worker_begin(&elsewhere, drop_and_end, t);
    worker_join_exited(&elsewhere);
    pyrt_attach(self);
    CHECK_INT(calls, 1);
    CHECK_UINT(things_died(), 1);
    drop_weak(rest);
    CHECK(pyrt_weakref_is_dead(ending));
    drop_weak(ending);
    down();
}

/* ---- weak references of weak references, and many ---------------------------------------------------------------- */

TEST(a_weak_reference_can_be_weakly_referenced)
{
    up();
    calls = 0;
    thing *t = thing_new(self);
    pyrt_weakref *weak = weak_to(t, NULL, NULL);
    pyrt_weakref *weaker = weak_to(weak, note, NULL);
    CHECK(gives(weaker, weak));
    drop_weak(weak);
    CHECK_INT(calls, 1);
    CHECK(pyrt_weakref_is_dead(weaker));
    drop_weak(weaker);
    drop(t);
    down();
}

static void
many(pyrt_type *type)
{
    enum { MANY = 20000 };
    void **objects = malloc(MANY * sizeof(*objects));
    pyrt_weakref **weak = malloc(MANY * sizeof(*weak));
    random_stream random = random_for(1);
    for (size_t i = 0; i < MANY; i++) {
        objects[i] = new_of(type);
        weak[i] = weak_to(objects[i], NULL, NULL);
    }
    for (size_t i = MANY - 1; i > 0; i--) {
        size_t other = random_below(&random, (uint32_t)i + 1);
        void *object = objects[i];
        pyrt_weakref *its = weak[i];
        objects[i] = objects[other];
        weak[i] = weak[other];
        objects[other] = object;
        weak[other] = its;
    }
    for (size_t i = 0; i < MANY; i++) {
        CHECK(gives(weak[i], objects[i]));
        if (i % 2 == 0) {
            drop_weak(weak[i]);
            CHECK_UINT(pyrt_weakref_count(objects[i]), 0);
            drop(objects[i]);
        }
        else {
            drop(objects[i]);
            CHECK_PTR(pyrt_weakref_get(weak[i]), NULL);
            drop_weak(weak[i]);
        }
    }
    free(objects);
    free(weak);
}

TEST(many_objects_with_weak_references)
{
    with_both(many);
}

/* ---- hashes ------------------------------------------------------------------------------------------------------ */

static int hashes_asked;

static int64_t
hash(pyrt_object *object)
{
    hashes_asked++;
    return (int64_t)(uintptr_t)object >> 4;
}

TEST(the_hash_outlives_the_object)
{
    up();
    hashes_asked = 0;
    thing *t = thing_new(self);
    pyrt_weakref *weak = weak_to(t, NULL, NULL);
    pyrt_weakref *late = weak_to(t, note, NULL);
    int64_t found = 0;
    CHECK_OK(pyrt_weakref_hash(weak, hash, &found));
    CHECK_INT(found, (int64_t)(uintptr_t)t >> 4);
    calls = 0;
    drop(t);
    int64_t again = 0;
    CHECK_OK(pyrt_weakref_hash(weak, hash, &again));
    CHECK_INT(again, found);
    CHECK_INT(hashes_asked, 1);
    CHECK_STATUS(pyrt_weakref_hash(late, hash, &again), PYRT_ENOTFOUND);
    CHECK_STATUS(pyrt_weakref_hash(NULL, hash, &again), PYRT_EINVAL);
    CHECK_STATUS(pyrt_weakref_hash(weak, NULL, &again), PYRT_EINVAL);
    CHECK_STATUS(pyrt_weakref_hash(weak, hash, NULL), PYRT_EINVAL);
    drop_weak(weak);
    drop_weak(late);
    down();
}

/* ---- wrong use --------------------------------------------------------------------------------------------------- */

static void
check_refused(pyrt_thread *thread, void *object, const char *why)
{
    errno = 0;
    CHECK(pyrt_weakref_new(thread, object, NULL, NULL) == NULL);
    CHECK_INT(errno, EINVAL);
    EXPECT_REPORT("pyrt_weakref_new", why);
}

static void
refer_to_dying(thing *dying)
{
    check_refused(pyrt_thread_current(), dying, "dying");
    CHECK_PTR(pyrt_weakref_get(dying->arg), NULL);
}

TEST(wrong_use_is_refused)
{
    static pyrt_object untyped = PYRT_OBJECT_IMMORTAL_INIT(NULL);
    up();
    thing *t = thing_new(self);
    check_refused(NULL, t, "not the one that is attached here");
    check_refused(self, NULL, "no object of its interpreter");
    check_refused(self, &untyped, "no object of its interpreter");
    pyrt_detach(self);
    check_refused(self, t, "not the one that is attached here");
    pyrt_interp *other = pyrt_interp_new(NULL);
    pyrt_thread *stranger = pyrt_thread_ensure(other);
    check_refused(stranger, t, "no object of its interpreter");
    pyrt_thread_release(stranger);
    CHECK_OK(pyrt_interp_delete(other));
    pyrt_attach(self);
    pyrt_weakref *weak = weak_to(t, NULL, NULL);
    t->arg = weak;
    t->when_dying = refer_to_dying;
    drop(t);
    CHECK_UINT(pyrt_weakref_count(NULL), 0);
    drop_weak(weak);
    down();
}

/* ---- out of memory ----------------------------------------------------------------------------------------------- */

enum { FAULT_OBJECTS = 600 };

static thing *faulted[FAULT_OBJECTS];
static pyrt_weakref *weak_of[FAULT_OBJECTS];

static void
prepare(void)
{
    up();
    for (int i = 0; i < FAULT_OBJECTS; i++) {
        faulted[i] = thing_new(self);
        weak_of[i] = NULL;
    }
}

/* Each by itself succeeds or fails cleanly. */
static bool
refer_to_all(void)
{
    for (int i = 0; i < FAULT_OBJECTS; i++) {
        errno = 0;
        weak_of[i] = pyrt_weakref_new(self, &faulted[i]->base, i % 2 == 0 ? note : NULL, NULL);
        CHECK(weak_of[i] != NULL || errno == ENOMEM);
        CHECK(weak_of[i] == NULL || gives(weak_of[i], faulted[i]));
    }
    return true;
}

static void
finish(bool succeeded)
{
    (void)succeeded;
    for (int i = 0; i < FAULT_OBJECTS; i++) {
        calls = 0;
        drop(faulted[i]);
        CHECK_INT(calls, i % 2 == 0 && weak_of[i] != NULL);
        if (weak_of[i] != NULL) {
            CHECK(pyrt_weakref_is_dead(weak_of[i]));
            drop_weak(weak_of[i]);
        }
    }
    down();
}

TEST(out_of_memory_at_every_allocation)
{
    static const fault_plan plan = {prepare, refer_to_all, finish};
    CHECK(fault_everywhere(&plan, FAULT_ONCE) > 0);
    CHECK(fault_everywhere(&plan, FAULT_FROM_ON) > 0);
}

/* ---- fork -------------------------------------------------------------------------------------------------------- */

TEST(in_the_child_of_a_fork_all_is_as_it_was)
{
    up();
    thing *t = thing_new(self);
    pyrt_weakref *weak = weak_to(t, note, NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    calls = 0;
    if (child == 0) {
        CHECK(gives(weak, t));
        drop(t);
        CHECK(pyrt_weakref_is_dead(weak));
        _exit(calls == 1 ? 0 : 1);
    }
    int status = -1;
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
    CHECK(gives(weak, t));
    drop(t);
    CHECK_INT(calls, 1);
    drop_weak(weak);
    down();
}

/* ---- many threads ------------------------------------------------------------------------------------------------ */

/* In each place stands an object, and a weak reference to it that knows its number. Threads replace both, and look through the
 * weak references that others have put there: what they find is the object of that number, and alive. Some weak references are
 * dropped when they are replaced; their callbacks run once or never. Others are kept to the end; theirs run once. */
enum { PLACES = 8, THREADS = 4, TURNS = 3000 };

/* So large that few are in a page, and its memory is soon used again. */
typedef struct numbered {
    pyrt_object base;
    uint64_t number;
    uint64_t canary;
    char room[880];
} numbered;

typedef struct place {
    pyrt_mutex lock;
    numbered *object;
    pyrt_weakref *weak;
} place;

static place places[PLACES];
static pyrt_type *numbered_type;
static uint64_t number;
static uint64_t died;
static uint64_t found;
static uint8_t *callbacks; /* by number */
static pyrt_weakref **kept; /* by number, or NULL */

static void
numbered_dealloc(pyrt_object *object)
{
    numbered *n = (numbered *)(void *)object;
    CHECK_UINT(n->canary, THING_ALIVE);
    n->canary = 0;
    (void)pyrt_fetch_add_seq_cst(&died, UINT64_C(1));
}

static int
count_callback(pyrt_weakref *weak, void *arg)
{
    CHECK_PTR(pyrt_weakref_get(weak), NULL);
    (void)pyrt_fetch_add_seq_cst(&callbacks[(uintptr_t)arg], (uint8_t)1);
    return 0;
}

/* What pyrt_weakref_get does, without its second look; and it waits for something to happen in between. */
static pyrt_object *
get_without_a_second_look(pyrt_weakref *weak)
{
    pyrt_object *referent = pyrt_load_acquire(&weak->referent);
    if (referent == NULL) {
        return NULL;
    }
    for (int i = 0; i < 20 && !pyrt_weakref_is_dead(weak); i++) {
        sched_yield();
    }
    for (int i = 0; i < 200 && pyrt_weakref_is_dead(weak); i++) {
        if (pyrt_try_incref(referent)) {
            return referent;
        }
        sched_yield();
    }
    return NULL;
}

static void
look_at(pyrt_weakref *weak)
{
    bool is_broken = test_sabotage() != NULL && strcmp(test_sabotage(), "look-once") == 0;
    numbered *n = (numbered *)(void *)(is_broken ? get_without_a_second_look(weak) : pyrt_weakref_get(weak));
    if (n != NULL) {
        if (n->number != (uintptr_t)weak->arg) {
            FAIL("it gives a stranger: number %" PRIu64 " for %" PRIu64, n->number, (uint64_t)(uintptr_t)weak->arg);
        }
        CHECK_UINT(n->canary, THING_ALIVE);
        (void)pyrt_fetch_add_relaxed(&found, UINT64_C(1));
        drop(n);
    }
}

static void
replace(pyrt_thread *thread, place *where, random_stream *random)
{
    numbered *object = (numbered *)(void *)pyrt_object_new(thread, numbered_type);
    CHECK(object != NULL);
    object->canary = THING_ALIVE;
    object->number = pyrt_fetch_add_seq_cst(&number, UINT64_C(1));
    pyrt_weakref *weak = pyrt_weakref_new(thread, &object->base, count_callback, (void *)(uintptr_t)object->number);
    CHECK(weak != NULL);
    pyrt_mutex_lock(&where->lock);
    numbered *old_object = where->object;
    pyrt_weakref *old_weak = where->weak;
    where->object = object;
    where->weak = weak;
    pyrt_mutex_unlock(&where->lock);
    if (old_object == NULL) {
        return;
    }
    uint32_t what = random_below(random, 4);
    if (what == 0) { /* before the object, unless somebody looks through it */
        drop_weak(old_weak);
    }
    drop(old_object);
    if (what == 1) { /* at about the same time */
        drop_weak(old_weak);
    }
    if (what > 1) {
        kept[(uintptr_t)old_weak->arg] = old_weak;
    }
}

static void
turn(void *arg, int index)
{
    (void)arg;
    random_stream random = random_for((uint64_t)index + 100);
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    CHECK(thread != NULL);
    for (unsigned i = 0; i < TURNS * test_scale(); i++) {
        place *where = &places[random_below(&random, PLACES)];
        uint32_t what = random_below(&random, 8);
        if (what == 0) {
            replace(thread, where, &random);
        }
        else {
            pyrt_mutex_lock(&where->lock);
            pyrt_weakref *weak = where->weak;
            if (weak != NULL) {
                (void)pyrt_incref(&weak->base);
            }
            pyrt_mutex_unlock(&where->lock);
            if (weak != NULL && what == 1) {
                pyrt_detach(thread);
                look_at(weak);
                pyrt_attach(thread);
            }
            else if (weak != NULL) {
                look_at(weak);
            }
            pyrt_xdecref(weak == NULL ? NULL : &weak->base);
        }
        if (what < 3) {
            pyrt_safepoint(thread);
        }
    }
    pyrt_thread_release(thread);
}

static void
check_fates(void)
{
    for (uint64_t i = 0; i < number; i++) {
        CHECK(callbacks[i] <= 1);
        if (kept[i] != NULL) {
            CHECK_UINT(callbacks[i], 1);
            CHECK(pyrt_weakref_is_dead(kept[i]));
            drop_weak(kept[i]);
        }
    }
}

TEST(stress)
{
    up();
    number = died = found = 0;
    numbered_type = pyrt_type_new(pyrt_interp_main(), &(pyrt_type_spec){.struct_size = sizeof(pyrt_type_spec),
                                                                        .name = "numbered",
                                                                        .basic_size = sizeof(numbered),
                                                                        .dealloc = numbered_dealloc});
    CHECK(numbered_type != NULL);
    memset(places, 0, sizeof(places));
    callbacks = calloc((size_t)THREADS * TURNS * test_scale(), sizeof(*callbacks));
    kept = calloc((size_t)THREADS * TURNS * test_scale(), sizeof(pyrt_weakref *));
    pyrt_detach(self);
    run_crowd(THREADS, turn, NULL);
    pyrt_attach(self);
    for (int i = 0; i < PLACES; i++) {
        if (places[i].object != NULL) {
            drop(places[i].object);
            kept[(uintptr_t)places[i].weak->arg] = places[i].weak;
        }
    }
    CHECK_UINT(died, number);
    CHECK(found > 0);
    check_fates();
    free(callbacks);
    free(kept);
    pyrt_decref((pyrt_object *)numbered_type);
    down();
}
