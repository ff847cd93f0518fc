/* test_object_death.c -- the end of objects: in which order, how deep, and with destructors that do what they like. */
#include "support.h"

#include "steps.h"
#include "things.h"
#include "workers.h"

#include "memory/heap_impl.h"
#include "object/death.h"

#include <errno.h>
#include <string.h>

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

/* ---- order ------------------------------------------------------------------------------------------------------- */

static char story[100];

static void
tell(char letter)
{
    size_t length = strlen(story);
    CHECK(length + 1 < sizeof(story));
    story[length] = letter;
    story[length + 1] = '\0';
}

static void
check_is_dying(pyrt_object *object)
{
    CHECK(!pyrt_try_incref(object));
    CHECK(object->flags & PYRT_OBJECT_DYING);
    CHECK(!pyrt_is_uniquely_referenced(object));
    CHECK_INT(pyrt_refcount(object), 0);
    /* Counting it up and down does no harm, and opens it to nobody. */
    pyrt_incref(object);
    CHECK_INT(pyrt_refcount(object), 1);
    CHECK(!pyrt_try_incref(object));
    pyrt_decref(object);
}

static int
tell_weakref(pyrt_weakref *weak, void *dying)
{
    CHECK(pyrt_weakref_get(weak) == NULL);
    check_is_dying(dying);
    tell('w');
    return 0;
}

static void
tell_finalize(pyrt_object *object)
{
    check_is_dying(object);
    tell('f');
}

static void
tell_dealloc(pyrt_object *object)
{
    check_is_dying(object);
    tell('d');
}

TEST(weak_references_then_finalize_then_dealloc)
{
    up();
    story[0] = '\0';
    pyrt_type *type = pyrt_type_new(pyrt_interp_main(), &(pyrt_type_spec){.struct_size = sizeof(pyrt_type_spec),
                                                                          .name = "teller",
                                                                          .basic_size = sizeof(pyrt_object),
                                                                          .finalize = tell_finalize,
                                                                          .dealloc = tell_dealloc});
    pyrt_object *plain = pyrt_object_new(self, type);
    pyrt_object *watched = pyrt_object_new(self, type);
    pyrt_weakref *weak = pyrt_weakref_new(self, watched, tell_weakref, watched);
    CHECK(weak != NULL);
    pyrt_decref(plain);
    CHECK_STR(story, "fd");
    pyrt_decref(watched);
    CHECK_STR(story, "fdwfd");
    pyrt_decref(&weak->base);
    pyrt_decref((pyrt_object *)type);
    down();
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static int deallocs;

static void
count_dealloc(pyrt_object *object)
{
    (void)object;
    deallocs++;
}

static pyrt_type *
type_with(void (*dealloc)(pyrt_object *))
{
    pyrt_type_spec spec = {.struct_size = sizeof(spec), .name = "body", .basic_size = 64, .dealloc = dealloc};
    pyrt_type *type = pyrt_type_new(pyrt_interp_main(), &spec);
    CHECK(type != NULL);
    return type;
}

static uint64_t
pages(void)
{
    pyrt_memory_stats stats = {.struct_size = sizeof(stats)};
    pyrt_interp_memory_stats(pyrt_interp_main(), &stats);
    return stats.pages;
}

/* Any number of them, one after the other, are in one page; and the end of the interpreter finds nothing left. */
TEST(the_memory_is_the_librarys_to_free_with_a_dealloc_and_without)
{
    enum { MANY = 10000 };
    up();
    pyrt_type *types[] = {type_with(NULL), type_with(count_dealloc)};
    uint64_t before = pages();
    for (int i = 0; i < MANY; i++) {
        pyrt_decref(pyrt_object_new(self, types[i % 2]));
    }
    CHECK_INT(deallocs, MANY / 2);
    CHECK(pages() <= before + 1);
    pyrt_decref((pyrt_object *)types[0]);
    pyrt_decref((pyrt_object *)types[1]);
    down();
}

static void
free_the_object(pyrt_object *object)
{
    pyrt_free(object);
}

TEST(a_dealloc_that_frees_its_object_is_told_of)
{
    up();
    pyrt_type *type = type_with(free_the_object);
    pyrt_decref(pyrt_object_new(self, type));
    EXPECT_REPORT("pyrt_free", "is an object", "use pyrt_decref; nothing was freed");
    pyrt_decref((pyrt_object *)type);
    down();
}

static void
free_elsewhere(void *object)
{
    pyrt_free(object);
}

TEST(an_object_that_is_freed_as_a_block_is_told_of_and_lives)
{
    up();
    worker other;
    worker_start(&other);
    thing *t = thing_new(self);
    pyrt_free(t);
    EXPECT_REPORT("pyrt_free", "is an object", "use pyrt_decref; nothing was freed");
    worker_do(&other, free_elsewhere, t);
    EXPECT_REPORT("pyrt_free", "is an object");
    errno = 0;
    CHECK(pyrt_realloc(t, 10000) == NULL && errno == EINVAL);
    EXPECT_REPORT("pyrt_realloc", "is an object", "nothing was done");
    pyrt_heap *heap = pyrt_heap_new(self->interp, NULL);
    errno = 0;
    CHECK(pyrt_heap_realloc(self, heap, t, 10000) == NULL && errno == EINVAL);
    EXPECT_REPORT("pyrt_heap_realloc", "is an object", "nothing was done");
    pyrt_heap_delete(heap);
    CHECK_UINT(things_died(), 0);
    pyrt_decref(&t->base);
    CHECK_UINT(things_died(), 1);
    worker_end(&other);
    down();
}

/* ---- depth ------------------------------------------------------------------------------------------------------- */

typedef struct link {
    pyrt_object base;
    pyrt_object *next;
} link;

static pyrt_type *link_type;
static uint64_t links_died;
static uint32_t deepest;

static void
link_dealloc(pyrt_object *object)
{
    links_died++;
    deepest = pyrt_tls()->dying > deepest ? pyrt_tls()->dying : deepest;
    pyrt_xdecref(((link *)(void *)object)->next);
}

static pyrt_object *
make_chain(pyrt_thread *thread, uint64_t length)
{
    pyrt_object *head = NULL;
    for (uint64_t i = 0; i < length; i++) {
        link *new = (link *)(void *)pyrt_object_new(thread, link_type);
        CHECK(new != NULL);
        new->next = head;
        head = &new->base;
    }
    return head;
}

/* With --scale 10 it is ten million long. */
static uint64_t
chain_length(void)
{
    return (uint64_t)1000000 * test_scale();
}

typedef struct chain {
    pyrt_object *head;
    bool attached;
} chain;

static void *
drop_chain(void *arg)
{
    chain *c = arg;
    pyrt_thread *thread = c->attached ? pyrt_thread_ensure(pyrt_interp_main()) : NULL;
    if (c->head == NULL) {
        c->head = make_chain(thread, chain_length());
    }
    pyrt_decref(c->head);
    if (thread != NULL) {
        pyrt_thread_release(thread);
    }
    return NULL;
}

/* So little that each object of the chain would have a fraction of a byte. */
static void
on_a_small_stack(chain c)
{
    pthread_attr_t attributes;
    pthread_t thread;
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setstacksize(&attributes, 512 * 1024) == 0);
    CHECK(pthread_create(&thread, &attributes, drop_chain, &c) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(pthread_attr_destroy(&attributes) == 0);
}

static void
chains_up(void)
{
    up();
    links_died = 0;
    deepest = 0;
    link_type = pyrt_type_new(pyrt_interp_main(), &(pyrt_type_spec){.struct_size = sizeof(pyrt_type_spec),
                                                                    .name = "link",
                                                                    .basic_size = sizeof(link),
                                                                    .dealloc = link_dealloc});
    CHECK(link_type != NULL);
}

static void
chains_down(void)
{
    CHECK_UINT(links_died, chain_length());
    CHECK(deepest <= PYRT_DEATH_DEPTH);
    pyrt_decref((pyrt_object *)link_type);
    down();
}

TEST(a_long_chain_dies_in_little_stack_by_its_owner)
{
    chains_up();
    on_a_small_stack((chain){NULL, true});
    CHECK_UINT(deepest, PYRT_DEATH_DEPTH);
    chains_down();
}

TEST(a_long_chain_dies_in_little_stack_without_a_thread_state)
{
    chains_up();
    pyrt_object *head = make_chain(self, chain_length());
    /* Detached, so that whoever drops merges for it. */
    pyrt_detach(self);
    on_a_small_stack((chain){head, false});
    CHECK_UINT(links_died, chain_length());
    pyrt_attach(self);
    chains_down();
}

TEST(a_long_chain_of_an_attached_owner_dies_at_its_safepoints)
{
    chains_up();
    pyrt_object *head = make_chain(self, chain_length());
    on_a_small_stack((chain){head, true});
    CHECK_UINT(links_died, 0);
    pyrt_safepoint(self);
    chains_down();
}

/* ---- misuse by destructors --------------------------------------------------------------------------------------- */

static void
keep(thing *t)
{
    *(pyrt_object **)t->arg = pyrt_incref(&t->base);
}

TEST(a_destructor_that_keeps_its_object_is_reported_and_the_memory_stays)
{
    up();
    pyrt_object *kept = NULL;
    thing *t = thing_dies(self, keep, &kept);
    EXPECT_REPORT("type 'thing'", "a destructor has kept a reference");
    CHECK_UINT(things_died(), 1);
    CHECK_PTR(kept, t);
    /* It cannot come back, but dropping it does no harm, and the block is not handed out again. */
    CHECK(!pyrt_try_incref(kept));
    thing *other = thing_new(self);
    CHECK(other != t);
    pyrt_decref(&other->base);
    pyrt_decref(kept);
    CHECK_UINT(things_died(), 2);
    /* Its type stays, too: that reference is the test's to give up. */
    pyrt_decref((pyrt_object *)thing_type);
    CHECK_INT(pyrt_merge_unique_counts(pyrt_interp_main()), 0);
    CHECK_STR(pyrt_type_name(kept->type), "thing");
    pyrt_free_guarded(kept);
    pyrt_decref((pyrt_object *)thing_type);
    pyrt_thread_release(self);
    runtime_down();
}

static void
drop_itself(thing *t)
{
    pyrt_decref(&t->base);
}

TEST(a_destructor_that_drops_its_object_once_more_is_reported)
{
    up();
    thing *t = thing_dies(self, drop_itself, NULL);
    EXPECT_REPORT("type 'thing'", "or dropped one too many");
    CHECK_UINT(things_died(), 1);
    pyrt_free_guarded(t);
    pyrt_decref((pyrt_object *)thing_type);
    down();
}

/* ---- destructors that do other things ---------------------------------------------------------------------------- */

static void
drop_the_thing_in_arg(thing *t)
{
    pyrt_decref(t->arg);
}

static void
make_and_drop_many(thing *t)
{
    pyrt_thread *thread = pyrt_thread_current();
    for (int i = 0; i < 100; i++) {
        thing *other = thing_new(thread);
        other->when_dying = i % 2 == 0 ? drop_the_thing_in_arg : NULL;
        other->arg = i % 2 == 0 ? thing_new(thread) : NULL;
        pyrt_decref(&other->base);
    }
    pyrt_safepoint(thread);
    (void)t;
}

TEST(a_destructor_makes_and_drops_others_and_passes_safepoints)
{
    up();
    (void)thing_dies(self, make_and_drop_many, NULL);
    CHECK_UINT(things_died(), 151);
    down();
}

static void
leave_detached(thing *t)
{
    (void)t;
    pyrt_detach(pyrt_thread_current());
}

static void
leave_another_attached(thing *t)
{
    pyrt_detach(pyrt_thread_current());
    pyrt_attach(t->arg);
}

static void
end_the_state(thing *t)
{
    pyrt_detach(t->arg);
    pyrt_thread_delete(t->arg);
    pyrt_attach(t->arg);
}

TEST(who_drops_finds_his_state_attached_whatever_the_destructor_left)
{
    up();
    pyrt_thread *other = pyrt_thread_new(pyrt_interp_main());
    thing *t = thing_dies(self, leave_detached, NULL);
    CHECK_PTR(pyrt_thread_current(), self);
    t = thing_new(self);
    t->when_dying = leave_another_attached;
    t->arg = other;
    pyrt_decref(&t->base);
    CHECK_PTR(pyrt_thread_current(), self);
    CHECK_INT(state_of(other), PYRT_STATE_DETACHED);
    pyrt_thread_delete(other);
    down();
}

TEST(a_destructor_cannot_end_the_state_of_who_drops)
{
    things_up();
    self = pyrt_thread_new(pyrt_interp_main());
    pyrt_attach(self);
    (void)thing_dies(self, end_the_state, self);
    EXPECT_REPORT("pyrt_thread_delete", named(self), "a call further out returns to it");
    CHECK_PTR(pyrt_thread_current(), self);
    pyrt_detach(self);
    pyrt_thread_delete(self);
    things_down();
}

static void
merge_everything(thing *t)
{
    pyrt_merge_refcounts(pyrt_thread_current());
    CHECK_UINT(things_died(), *(uint64_t *)t->arg);
}

/* What a destructor merges dies when the outermost one has returned. */
TEST(merging_inside_of_a_destructor)
{
    up();
    worker w;
    worker_start(&w);
    uint64_t before = 0;
    thing *t = thing_new(self);
    thing *waiting = thing_new(self);
    t->when_dying = merge_everything;
    t->arg = &before;
    worker_do(&w, count_down, waiting);
    pyrt_decref(&t->base);
    CHECK_UINT(things_died(), 2);
    worker_end(&w);
    down();
}

static void
revive_what_waits(thing *t)
{
    pyrt_object *plain = t->arg;
    pyrt_merge_refcounts(pyrt_thread_current());
    CHECK(!pyrt_try_incref(plain));
    pyrt_decref(plain);
    EXPECT_REPORT("pyrt_decref", "once too often");
    pyrt_incref(plain);
}

/* One that has no destructor stands in the list as it is. Who takes what he has no right to is told, and has no freed memory. */
TEST(what_waits_is_neither_dropped_nor_taken)
{
    up();
    worker w;
    worker_start(&w);
    pyrt_type *type = type_with(NULL);
    pyrt_object *waiting = pyrt_object_new(self, type);
    pyrt_object *other = pyrt_object_new(self, type);
    thing *t = thing_new(self);
    t->when_dying = revive_what_waits;
    t->arg = waiting;
    worker_do(&w, count_down, waiting);
    worker_do(&w, count_down, other);
    pyrt_decref(&t->base);
    EXPECT_REPORT("type 'body'", "has kept a reference");
    pyrt_decref((pyrt_object *)type);
    CHECK_INT(pyrt_merge_unique_counts(pyrt_interp_main()), 0);
    CHECK_STR(pyrt_type_name(waiting->type), "body");
    pyrt_decref(waiting);
    CHECK_INT(pyrt_merge_unique_counts(pyrt_interp_main()), 1);
    worker_end(&w);
    down();
}

static void
destructor_waits_for_a_barrier(thing *t)
{
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    (void)t;
}

TEST(a_destructor_may_wait_for_a_barrier)
{
    up();
    worker w;
    worker_start(&w);
    thing *t = thing_new(self);
    thing *waiting = thing_new(self);
    t->when_dying = destructor_waits_for_a_barrier;
    worker_do(&w, count_down, waiting);
    pyrt_decref(&t->base);
    CHECK_UINT(things_died(), 2);
    worker_end(&w);
    down();
}

static void
destructor_stops_the_world(thing *t)
{
    CHECK_OK(pyrt_stop_the_world(pyrt_interp_main()));
    pyrt_start_the_world(pyrt_interp_main());
    (void)t;
}

TEST(a_destructor_may_stop_the_world)
{
    up();
    (void)thing_dies(self, destructor_stops_the_world, NULL);
    CHECK_UINT(things_died(), 1);
    down();
}

/* ---- destructors that end the OS thread -------------------------------------------------------------------------- */

static void
end_the_os_thread(thing *t)
{
    /* Counted here, because dealloc does not get further. */
    t->refers_to = NULL;
    pthread_exit(NULL);
}

/* One whose destructor ends the OS thread, and before it in the queue, or in the list of dead, `others` plain ones. */
typedef struct deadly {
    pyrt_thread *owner;
    thing *first;
    thing *others[PYRT_DEATH_DEPTH + 10];
} deadly;

enum { OTHERS = PYRT_DEATH_DEPTH + 10 };

static void
make_deadly(void *arg)
{
    deadly *d = arg;
    d->owner = pyrt_thread_new(pyrt_interp_main());
    pyrt_attach(d->owner);
    d->first = thing_new(d->owner);
    d->first->when_dying = end_the_os_thread;
    for (int i = 0; i < OTHERS; i++) {
        d->others[i] = thing_new(d->owner);
    }
}

static void
drop_deadly(void *arg)
{
    pyrt_decref(&((deadly *)arg)->first->base);
}

static void
deadly_safepoint(void *arg)
{
    pyrt_safepoint(((deadly *)arg)->owner);
}

static void
deadly_end(void *arg)
{
    pyrt_detach(((deadly *)arg)->owner);
    pyrt_thread_delete(((deadly *)arg)->owner);
}

/* All but the one that ended its thread have died as usual. That one is gone, too, its memory and its count of its type given back. */
static void
deadly_down(void)
{
    CHECK_UINT(things_died() + 1, things_made());
    pyrt_thread_release(self);
    pyrt_decref((pyrt_object *)thing_type);
    runtime_down();
}

TEST(the_os_thread_ends_in_a_final_drop)
{
    up();
    worker w;
    worker_start(&w);
    deadly d;
    worker_do(&w, make_deadly, &d);
    for (int i = 0; i < OTHERS; i++) {
        pyrt_decref(&d.others[i]->base);
    }
    worker_begin(&w, drop_deadly, &d);
    worker_join_exited(&w);
    deadly_down();
}

TEST(the_os_thread_ends_in_the_middle_of_what_it_merges_at_a_safepoint)
{
    up();
    worker w;
    worker_start(&w);
    deadly d;
    worker_do(&w, make_deadly, &d);
    pyrt_decref(&d.first->base);
    for (int i = 0; i < OTHERS; i++) {
        pyrt_decref(&d.others[i]->base);
    }
    CHECK_UINT(things_died(), 0);
    worker_begin(&w, deadly_safepoint, &d);
    worker_join_exited(&w);
    deadly_down();
}

TEST(the_os_thread_ends_while_its_state_ends)
{
    up();
    worker w;
    worker_start(&w);
    deadly d;
    worker_do(&w, make_deadly, &d);
    pyrt_decref(&d.first->base);
    for (int i = 0; i < OTHERS; i++) {
        pyrt_decref(&d.others[i]->base);
    }
    worker_begin(&w, deadly_end, &d);
    worker_join_exited(&w);
    deadly_down();
}

/* Its state is detached, and another OS thread, which has none, does its work and ends in it. */
TEST(the_os_thread_that_borrows_ends_in_a_destructor)
{
    up();
    worker w;
    worker_start(&w);
    deadly d;
    thing *keep_alive = thing_new(self);
    d.owner = self;
    d.first = thing_new(self);
    d.first->when_dying = end_the_os_thread;
    for (int i = 0; i < OTHERS; i++) {
        d.others[i] = thing_new(self);
        worker_do(&w, count_down, d.others[i]);
    }
    CHECK_UINT(things_died(), 0);
    pyrt_detach(self);
    worker_begin(&w, drop_deadly, &d);
    worker_join_exited(&w);
    pyrt_attach(self);
    pyrt_decref(&keep_alive->base);
    deadly_down();
}

/* ---- watching ---------------------------------------------------------------------------------------------------- */

TEST(an_object_dies_with_its_lock_watched)
{
    up();
    CHECK_OK(pyrt_lock_debug(true));
    thing *t = thing_new(self);
    CHECK_OK(pyrt_lock_name(&t->base.mutex, "of a thing"));
    pyrt_mutex_lock(&t->base.mutex);
    pyrt_mutex_unlock(&t->base.mutex);
    pyrt_decref(&t->base);
    CHECK_UINT(t->base.mutex.state, PYRT_MUTEX_UNLOCKED);
    CHECK_OK(pyrt_lock_debug(false));
    down();
}
