/* test_object.c -- types and objects, and counting by owners and others, one step at a time (object.h, refcount.h). */
#include "support.h"

#include "faults.h"
#include "steps.h"
#include "things.h"
#include "workers.h"

#include "object/object_impl.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>

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

#define CHECK_LOOK(t_, owner_, local_, shared_, state_) \
    do {                                                \
        pyrt_object_info info_ = thing_look(t_);        \
        CHECK_UINT(info_.owner, (owner_));              \
        CHECK_UINT(info_.local, (uint32_t)(local_));    \
        CHECK_INT(info_.shared, (shared_));             \
        CHECK_UINT(info_.state, (unsigned)(state_));    \
    } while (0)

/* ---- types ------------------------------------------------------------------------------------------------------- */

static pyrt_type_spec
good_spec(void)
{
    return (pyrt_type_spec){.struct_size = sizeof(pyrt_type_spec), .name = "plain", .basic_size = sizeof(pyrt_object) + 16};
}

static void
check_refused(pyrt_type_spec spec)
{
    errno = 0;
    CHECK(pyrt_type_new(pyrt_interp_main(), &spec) == NULL);
    CHECK_INT(errno, EINVAL);
}

TEST(a_spec_that_does_not_fit_is_refused)
{
    up();
    pyrt_type_spec spec = good_spec();
    spec.struct_size = 8;
    check_refused(spec);
    spec = good_spec();
    spec.name = NULL;
    check_refused(spec);
    spec = good_spec();
    spec.basic_size = sizeof(pyrt_object) - 1;
    check_refused(spec);
    spec = good_spec();
    spec.basic_size = (size_t)PTRDIFF_MAX + 1;
    check_refused(spec);
    size_t bad_offsets[] = {8, 24, 33, sizeof(pyrt_object) + 16, sizeof(pyrt_object) + 12};
    for (size_t i = 0; i < sizeof(bad_offsets) / sizeof(bad_offsets[0]); i++) {
        spec = good_spec();
        spec.weaklist_offset = bad_offsets[i];
        check_refused(spec);
    }
    CHECK(pyrt_type_new(NULL, &spec) == NULL);
    CHECK(pyrt_type_new(pyrt_interp_main(), NULL) == NULL);
    down();
}

TEST(a_type_is_an_object_that_its_objects_refer_to)
{
    up();
    pyrt_type_spec spec = good_spec();
    spec.weaklist_offset = sizeof(pyrt_object) + 8;
    spec.name = "a name that is a good deal longer than the sixty-three bytes that are kept of it";
    pyrt_type *type = pyrt_type_new(pyrt_interp_main(), &spec);
    CHECK(type != NULL);
    CHECK_UINT(strlen(pyrt_type_name(type)), 63);
    CHECK(strncmp(pyrt_type_name(type), spec.name, 63) == 0);
    CHECK_UINT(object_stats().unique_ids, 2);
    pyrt_object *object = pyrt_object_new(self, type);
    CHECK_PTR(object->type, type);
    pyrt_decref((pyrt_object *)type);
    CHECK_INT(pyrt_merge_unique_counts(pyrt_interp_main()), 0);
    CHECK_STR(pyrt_type_name(object->type), pyrt_type_name(type));
    pyrt_decref(object);
    CHECK_UINT(object_stats().unique_ids, 2);
    CHECK_INT(pyrt_merge_unique_counts(pyrt_interp_main()), 1);
    CHECK_UINT(object_stats().unique_ids, 1);
    down();
}

TEST(a_type_can_be_made_without_a_thread_and_ends_with_its_interpreter)
{
    things_up();
    pyrt_type_spec spec = good_spec();
    pyrt_type *type = pyrt_type_new(pyrt_interp_main(), &spec);
    CHECK(type != NULL);
    CHECK(pyrt_thread_current() == NULL);
    pyrt_decref((pyrt_object *)type);
    things_down();
}

/* ---- objects ----------------------------------------------------------------------------------------------------- */

TEST(a_new_object_is_its_makers_and_zeroed)
{
    up();
    /* Twice: the second one stands where the first one stood. */
    for (int i = 0; i < 2; i++) {
        thing *t = thing_new(self);
        CHECK_LOOK(t, self->id, 1, 0, PYRT_SHARED_PLAIN);
        CHECK_INT(pyrt_refcount(&t->base), 1);
        CHECK(!pyrt_is_immortal(&t->base));
        CHECK(!pyrt_mutex_is_locked(&t->base.mutex));
        CHECK_UINT((uintptr_t)t % 16, 0);
        CHECK_INT(pyrt_address_owner(t), 0);
        pyrt_decref(&t->base);
        CHECK_UINT(things_died(), (uint64_t)i + 1);
        CHECK_INT(t->base.shared, PYRT_SHARED_MERGED);
        CHECK_UINT(t->base.owner, PYRT_UNOWNED);
        CHECK_UINT(t->base.local, 0);
    }
    down();
}

TEST(objects_of_any_number_of_items)
{
    up();
    pyrt_type_spec spec = good_spec();
    spec.item_size = 24;
    pyrt_type *type = pyrt_type_new(pyrt_interp_main(), &spec);
    size_t numbers[] = {0, 1, 7, 100, 5000, 400000};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        size_t size = spec.basic_size + numbers[i] * 24;
        unsigned char *bytes = (unsigned char *)pyrt_object_new_var(self, type, numbers[i]);
        CHECK(bytes != NULL);
        CHECK(pyrt_usable_size(bytes) >= size);
        for (size_t at = sizeof(pyrt_object); at < size; at++) {
            CHECK_UINT(bytes[at], 0);
        }
        memset(bytes + sizeof(pyrt_object), 0xee, size - sizeof(pyrt_object));
        pyrt_decref((pyrt_object *)(void *)bytes);
    }
    size_t absurd[] = {SIZE_MAX, SIZE_MAX / 24, PTRDIFF_MAX / 24, (size_t)1 << 42};
    for (size_t i = 0; i < sizeof(absurd) / sizeof(absurd[0]); i++) {
        errno = 0;
        CHECK(pyrt_object_new_var(self, type, absurd[i]) == NULL);
        CHECK_INT(errno, ENOMEM);
    }
    pyrt_decref((pyrt_object *)type);
    down();
}

TEST(a_large_body_that_is_zero_already_is_not_written_to)
{
    enum { MIB = 1 << 20 };
    up();
    pyrt_type_spec spec = good_spec();
    spec.item_size = MIB;
    pyrt_type *type = pyrt_type_new(pyrt_interp_main(), &spec);
    pyrt_object *object = pyrt_object_new_var(self, type, 64);
    char *middle = (char *)(((uintptr_t)object + 32 * (uintptr_t)MIB) & ~(uintptr_t)4095);
    unsigned char is_there = 2;
    CHECK_INT(mincore(middle, 4096, &is_there), 0);
    CHECK_INT(is_there & 1, 0);
    CHECK_INT(middle[0], 0);
    pyrt_decref(object);
    pyrt_decref((pyrt_object *)type);
    down();
}

TEST(the_wrong_thread_or_type_is_named)
{
    up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    pyrt_type *foreign = thing_type_new(other);
    errno = 0;
    CHECK(pyrt_object_new(self, foreign) == NULL);
    CHECK_INT(errno, EINVAL);
    EXPECT_REPORT("pyrt_object_new", "type 'thing' is of interpreter 1", "of interpreter 0");
    pyrt_detach(self);
    errno = 0;
    CHECK(pyrt_object_new(self, thing_type) == NULL);
    CHECK_INT(errno, EINVAL);
    EXPECT_REPORT("pyrt_object_new", "attach it first");
    pyrt_attach(self);
    CHECK(pyrt_object_new(NULL, thing_type) == NULL);
    EXPECT_REPORT("pyrt_object_new", "attach it first");
    errno = 0;
    CHECK(pyrt_object_new(self, NULL) == NULL);
    CHECK_INT(errno, EINVAL);
    EXPECT_REPORT("pyrt_object_new", "the type is NULL");
    errno = 0;
    CHECK(pyrt_object_new_var(self, NULL, 3) == NULL);
    CHECK_INT(errno, EINVAL);
    EXPECT_REPORT("pyrt_object_new", "the type is NULL");
    CHECK(pyrt_object_new(NULL, NULL) == NULL);
    EXPECT_REPORT("pyrt_object_new", "attach it first");
    pyrt_decref((pyrt_object *)foreign);
    CHECK_OK(pyrt_interp_delete(other));
    down();
}

/* ---- counting ---------------------------------------------------------------------------------------------------- */

TEST(the_owner_counts_in_local)
{
    up();
    thing *t = thing_new(self);
    CHECK_PTR(pyrt_incref(&t->base), &t->base);
    CHECK_PTR(pyrt_incref_as(self, &t->base), &t->base);
    CHECK_PTR(pyrt_xincref(&t->base), &t->base);
    CHECK(pyrt_xincref(NULL) == NULL);
    pyrt_xdecref(NULL);
    CHECK_LOOK(t, self->id, 4, 0, PYRT_SHARED_PLAIN);
    pyrt_decref(&t->base);
    pyrt_decref_as(self, &t->base);
    pyrt_xdecref(&t->base);
    CHECK_LOOK(t, self->id, 1, 0, PYRT_SHARED_PLAIN);
    CHECK(pyrt_is_uniquely_referenced(&t->base));
    pyrt_decref(&t->base);
    CHECK_UINT(things_died(), 1);
    down();
}

TEST(others_count_in_shared)
{
    up();
    worker w;
    worker_start(&w);
    thing *t = thing_new(self);
    worker_do(&w, count_up, t);
    CHECK_LOOK(t, self->id, 1, 1, PYRT_SHARED_PLAIN);
    CHECK(!pyrt_is_uniquely_referenced(&t->base));
    CHECK_INT(pyrt_refcount(&t->base), 2);
    worker_do(&w, count_up, t);
    worker_do(&w, count_down, t);
    CHECK_LOOK(t, self->id, 1, 1, PYRT_SHARED_PLAIN);
    /* The owner drops its last one while the other has some. */
    pyrt_decref(&t->base);
    CHECK_LOOK(t, 0, 0, 1, PYRT_SHARED_MERGED);
    CHECK_UINT(things_died(), 0);
    pyrt_incref(&t->base);
    CHECK_LOOK(t, 0, 0, 2, PYRT_SHARED_MERGED);
    pyrt_decref(&t->base);
    worker_do(&w, count_down, t);
    CHECK_UINT(things_died(), 1);
    CHECK_UINT(object_stats().merges_asked, 0);
    worker_end(&w);
    down();
}

/* A reference for each slot, and what is loaded is one more: the last of them ends the object, and none before. */
TEST(every_slot_has_a_reference_of_its_own)
{
    up();
    thing *t = thing_new(self);
    pyrt_object *slots[2] = {NULL, NULL};
    pyrt_incref(&t->base);
    pyrt_store_ref(&slots[0], &t->base);
    pyrt_store_ref(&slots[1], pyrt_load_ref(&slots[0]));
    CHECK_INT(pyrt_refcount(&t->base), 3);
    pyrt_decref(&t->base);
    pyrt_store_ref(&slots[0], NULL);
    thing_check(t);
    CHECK_INT(pyrt_refcount(&t->base), 1);
    CHECK_UINT(things_died(), 0);
    pyrt_store_ref(&slots[1], NULL);
    CHECK_UINT(things_died(), 1);
    down();
}

TEST(a_detached_owner_counts_in_shared)
{
    up();
    thing *t = thing_new(self);
    pyrt_detach(self);
    pyrt_incref(&t->base);
    CHECK_LOOK(t, self->id, 1, 1, PYRT_SHARED_PLAIN);
    pyrt_decref(&t->base);
    CHECK_LOOK(t, self->id, 1, 0, PYRT_SHARED_PLAIN);
    pyrt_attach(self);
    pyrt_decref(&t->base);
    CHECK_UINT(things_died(), 1);
    down();
}

/* ---- merging ----------------------------------------------------------------------------------------------------- */

/* A thing of the attached thread with two references, of which a led thread has dropped one. */
static thing *
queued_thing(worker *w)
{
    thing *t = thing_new(self);
    pyrt_incref(&t->base);
    worker_do(w, count_down, t);
    return t;
}

TEST(a_foreign_drop_asks_the_owner)
{
    up();
    worker w;
    worker_start(&w);
    thing *t = queued_thing(&w);
    CHECK_LOOK(t, 0, 2, 0, PYRT_SHARED_QUEUED);
    CHECK_INT(pyrt_refcount(&t->base), 1);
    CHECK_UINT(object_stats().merges_asked, 1);
    CHECK_UINT(object_stats().merges_done, 0);
    /* Its owner counts like everybody else now. */
    pyrt_incref(&t->base);
    CHECK_LOOK(t, 0, 2, 1, PYRT_SHARED_QUEUED);
    CHECK(self->slot.flags & PYRT_FLAG_MERGE);
    pyrt_safepoint(self);
    CHECK((self->slot.flags & PYRT_FLAG_MERGE) == 0);
    CHECK_LOOK(t, 0, 0, 2, PYRT_SHARED_MERGED);
    CHECK_UINT(object_stats().merges_done, 1);
    CHECK_UINT(object_stats().longest_queue, 1);
    CHECK(object_stats().longest_wait_ns > 0);
    pyrt_decref(&t->base);
    worker_do(&w, count_down, t);
    CHECK_UINT(things_died(), 1);
    worker_end(&w);
    down();
}

TEST(what_is_queued_and_has_no_reference_dies_when_it_is_merged)
{
    up();
    worker w;
    worker_start(&w);
    for (int i = 0; i < 10; i++) {
        (void)thing_new(self);
    }
    thing *t = thing_new(self);
    worker_do(&w, count_down, t);
    CHECK_LOOK(t, 0, 1, 0, PYRT_SHARED_QUEUED);
    CHECK_INT(pyrt_refcount(&t->base), 0);
    CHECK_UINT(things_died(), 0);
    pyrt_merge_refcounts(self);
    CHECK_UINT(things_died(), 1);
    worker_end(&w);
    /* The ten are leaked on purpose, which the end of the interpreter tells. */
    pyrt_thread_release(self);
    pyrt_decref((pyrt_object *)thing_type);
    CHECK_OK(pyrt_runtime_fini());
    EXPECT_REPORT("has ended with 11 blocks of its heaps in use");
}

TEST(more_drops_of_a_queued_object_only_count)
{
    up();
    worker w;
    worker_start(&w);
    thing *t = thing_new(self);
    for (int i = 0; i < 4; i++) {
        pyrt_incref(&t->base);
    }
    for (int i = 0; i < 4; i++) {
        worker_do(&w, count_down, t);
        CHECK_LOOK(t, 0, 5, -i, PYRT_SHARED_QUEUED);
    }
    CHECK_UINT(object_stats().merges_asked, 1);
    pyrt_safepoint(self);
    CHECK_LOOK(t, 0, 0, 1, PYRT_SHARED_MERGED);
    pyrt_decref(&t->base);
    CHECK_UINT(things_died(), 1);
    worker_end(&w);
    down();
}

TEST(many_are_merged_at_once_oldest_first)
{
    enum { MANY = 1000 };
    up();
    worker w;
    worker_start(&w);
    static thing *all[MANY];
    for (int i = 0; i < MANY; i++) {
        all[i] = thing_new(self);
    }
    for (int i = 0; i < MANY; i++) {
        worker_do(&w, count_down, all[i]);
    }
    CHECK_UINT(object_stats().merges_asked, MANY);
    pyrt_safepoint(self);
    CHECK_UINT(things_died(), MANY);
    CHECK_UINT(object_stats().longest_queue, MANY);
    CHECK_UINT(object_stats().merges_done, MANY);
    worker_end(&w);
    down();
}

TEST(the_queue_of_a_detached_owner_is_worked_off_by_who_asks)
{
    up();
    worker w;
    worker_start(&w);
    thing *waiting = thing_new(self);
    thing *t = thing_new(self);
    worker_do(&w, count_down, waiting);
    CHECK_UINT(things_died(), 0);
    pyrt_detach(self);
    CHECK_UINT(things_died(), 0);
    worker_do(&w, count_down, t);
    CHECK_UINT(things_died(), 2);
    CHECK_UINT(object_stats().queues_borrowed, 1);
    pyrt_attach(self);
    worker_end(&w);
    down();
}

/* The owner may sleep for ever: what it was asked for is merged when it detaches, and somebody else destroys it. */
TEST(what_waits_when_the_owner_detaches_is_destroyed_by_who_passes_a_safepoint)
{
    up();
    worker w;
    worker_start(&w);
    pyrt_thread *other;
    worker_do(&w, attach_new, &other);
    thing *t = thing_new(self);
    thing *kept = thing_new(self);
    pyrt_incref(&kept->base);
    worker_do(&w, count_down, t);
    worker_do(&w, count_down, kept);
    pyrt_detach(self);
    CHECK_UINT(things_died(), 0);
    CHECK_LOOK(kept, 0, 0, 1, PYRT_SHARED_MERGED);
    worker_do(&w, pass_safepoint, other);
    CHECK_UINT(things_died(), 1);
    /* Nobody else is attached: it does so itself when it comes back. */
    pyrt_attach(self);
    t = thing_new(self);
    worker_do(&w, count_down, t);
    worker_do(&w, detach, other);
    pyrt_detach(self);
    CHECK_UINT(things_died(), 1);
    pyrt_attach(self);
    pyrt_safepoint(self);
    CHECK_UINT(things_died(), 2);
    pyrt_decref(&kept->base);
    worker_do(&w, delete_state, other);
    worker_end(&w);
    down();
}

TEST(a_detached_owner_that_drops_the_last_one_merges_by_itself)
{
    up();
    thing *t = thing_new(self);
    thing *kept = thing_new(self);
    pyrt_incref(&kept->base);
    pyrt_detach(self);
    pyrt_decref(&t->base);
    CHECK_UINT(things_died(), 1);
    pyrt_decref(&kept->base);
    CHECK_LOOK(kept, 0, 0, 1, PYRT_SHARED_MERGED);
    pyrt_decref(&kept->base);
    CHECK_UINT(things_died(), 2);
    pyrt_attach(self);
    down();
}

TEST(a_barrier_borrows_what_waits)
{
    up();
    worker w;
    worker_start(&w);
    thing *t = thing_new(self);
    worker_do(&w, count_down, t);
    pyrt_detach(self);
    CHECK_UINT(things_died(), 0);
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    CHECK_UINT(things_died(), 1);
    pyrt_attach(self);
    t = thing_new(self);
    worker_do(&w, count_down, t);
    CHECK_OK(pyrt_qsbr_barrier(self));
    CHECK_UINT(things_died(), 2);
    worker_end(&w);
    down();
}

TEST(merging_is_for_ones_own_threads)
{
    up();
    worker w;
    worker_start(&w);
    pyrt_thread *other;
    worker_do(&w, make_state, &other);
    pyrt_merge_refcounts(other);
    EXPECT_REPORT("pyrt_merge_refcounts", "not one of this OS thread");
    pyrt_merge_refcounts(NULL);
    EXPECT_REPORT("pyrt_merge_refcounts");
    thing *t = thing_new(self);
    worker_do(&w, count_down, t);
    pyrt_detach(self);
    pyrt_merge_refcounts(self);
    CHECK_UINT(things_died(), 1);
    pyrt_attach(self);
    worker_do(&w, delete_state, other);
    worker_end(&w);
    down();
}

/* The whole way of an object, from the drop that asks its owner to its end, here and by others. */
TEST(asking_merging_and_dying_need_no_memory)
{
    enum { MANY = 3000 };
    up();
    worker w;
    worker_start(&w);
    pyrt_thread *other;
    worker_do(&w, attach_new, &other);
    static thing *all[MANY];
    for (int i = 0; i < MANY; i++) {
        all[i] = thing_new(self);
        all[i]->refers_to = i % 3 == 0 ? &thing_new(self)->base : NULL;
    }
    uint64_t ask = object_stats().merges_asked;
    fault_arm(1, INT_MAX);
    for (int i = 0; i < MANY; i++) {
        worker_do(&w, count_down, all[i]);
    }
    CHECK_UINT(object_stats().merges_asked, ask + MANY);
    pyrt_safepoint(self);
    CHECK_UINT(things_died(), things_made());
    fault_disarm();
    worker_do(&w, delete_attached, other);
    worker_end(&w);
    down();
}

/* ---- owners that have ended -------------------------------------------------------------------------------------- */

static void
make_thing(void *out)
{
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    thing *t = thing_new(thread);
    pyrt_incref(&t->base);
    *(thing **)out = t;
    pyrt_thread_release(thread);
}

TEST(the_asker_merges_when_the_owner_has_ended)
{
    up();
    worker w;
    worker_start(&w);
    thing *t;
    worker_do(&w, make_thing, &t);
    CHECK_UINT(thing_look(t).local, 2);
    /* A new state of the same OS thread is not the owner. */
    pyrt_thread *heir;
    worker_do(&w, attach_new, &heir);
    worker_do(&w, count_up, t);
    CHECK_UINT(thing_look(t).local, 2);
    CHECK_INT(thing_look(t).shared, 1);
    worker_do(&w, count_down, t);
    pyrt_decref(&t->base);
    CHECK_LOOK(t, 0, 0, 1, PYRT_SHARED_MERGED);
    CHECK_UINT(object_stats().merges_for_ended, 1);
    worker_do(&w, count_down, t);
    CHECK_UINT(things_died(), 1);
    worker_do(&w, delete_attached, heir);
    worker_end(&w);
    down();
}

static thing *made_by_worker;

static void
make_two_things(void *owner)
{
    made_by_worker = thing_new(owner);
    made_by_worker->refers_to = &thing_new(owner)->base;
}

TEST(what_waits_at_the_end_of_the_owner_is_merged_by_it)
{
    up();
    worker w;
    worker_start(&w);
    pyrt_thread *owner;
    worker_do(&w, attach_new, &owner);
    worker_do(&w, make_two_things, owner);
    pyrt_decref(&made_by_worker->base);
    CHECK_UINT(things_died(), 0);
    worker_do(&w, delete_attached, owner);
    CHECK_UINT(things_died(), 2);
    /* The first was merged when the owner detached, and died when that ended; the second is dropped by a destructor when its
     * owner owns nothing any more. */
    CHECK_UINT(object_stats().merges_done, 1);
    CHECK_UINT(object_stats().merges_for_ended, 1);
    worker_end(&w);
    down();
}

/* ---- other interpreters, and none --------------------------------------------------------------------------------- */

TEST(threads_of_another_interpreter_ask_the_right_owner)
{
    up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    thing *t = thing_new(self);
    thing *gone = thing_new(self);
    /* The other state of this OS thread is attached; the owner is not, and is borrowed from. */
    pyrt_thread *elsewhere = pyrt_thread_ensure(other);
    CHECK(elsewhere != NULL && pyrt_thread_current() == elsewhere);
    pyrt_incref(&t->base);
    CHECK_LOOK(t, self->id, 1, 1, PYRT_SHARED_PLAIN);
    pyrt_decref(&t->base);
    pyrt_decref(&gone->base);
    CHECK_UINT(things_died(), 1);
    pyrt_thread_release(elsewhere);
    CHECK_PTR(pyrt_thread_current(), self);
    CHECK_LOOK(t, self->id, 1, 0, PYRT_SHARED_PLAIN);
    pyrt_decref(&t->base);
    CHECK_UINT(things_died(), 2);
    CHECK_OK(pyrt_interp_delete(other));
    down();
}

TEST(an_object_may_outlive_its_interpreter)
{
    up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    pyrt_thread *thread = pyrt_thread_ensure(other);
    pyrt_type *type = thing_type_new(other);
    thing *t = thing_new_of(thread, type);
    pyrt_incref(&t->base);
    pyrt_thread_release(thread);
    pyrt_decref((pyrt_object *)type);
    CHECK_OK(pyrt_interp_delete(other));
    EXPECT_REPORT("interpreter 1", "has ended with 2 blocks of its heaps in use");
    pyrt_incref(&t->base);
    pyrt_decref(&t->base);
    pyrt_decref(&t->base);
    CHECK_LOOK(t, 0, 0, 1, PYRT_SHARED_MERGED);
    pyrt_set_deferred(&t->base);
    pyrt_decref(&t->base);
    CHECK_UINT(things_died(), 0);
    pyrt_clear_deferred(&t->base);
    CHECK_UINT(things_died(), 1);
    down();
}

static void
no_object_of(pyrt_interp *interp, pyrt_type *type)
{
    pyrt_thread *thread = pyrt_thread_ensure(interp);
    errno = 0;
    CHECK(pyrt_object_new(thread, type) == NULL);
    CHECK_INT(errno, EINVAL);
    EXPECT_REPORT("pyrt_object_new", "is of interpreter");
    pyrt_thread_release(thread);
}

TEST(a_type_that_has_outlived_its_interpreter_is_not_the_next_ones)
{
    up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    pyrt_type *type = thing_type_new(other);
    CHECK_OK(pyrt_interp_delete(other));
    EXPECT_REPORT("interpreter 1", "has ended with 1 block of its heaps in use");
    pyrt_interp *next = pyrt_interp_new(NULL);
    no_object_of(next, type);
    pyrt_decref((pyrt_object *)type);
    CHECK_OK(pyrt_interp_delete(next));
    down();
}

/* The main interpreter of the next runtime even has the same id. */
TEST(what_has_outlived_the_runtime_is_not_the_next_ones)
{
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_type_spec spec = good_spec();
    pyrt_type *type = pyrt_type_new(pyrt_interp_main(), &spec);
    pyrt_object *object = pyrt_object_new(thread, type);
    CHECK(object != NULL);
    pyrt_incref(object);
    pyrt_thread_release(thread);
    runtime_down();
    EXPECT_REPORT("interpreter 0", "has ended with 2 blocks of its heaps in use");
    up();
    no_object_of(pyrt_interp_main(), type);
    pyrt_decref(object);
    CHECK_INT(pyrt_refcount(object), 1);
    pyrt_decref(object);
    CHECK_UINT(object_stats().merges_for_ended, 0);
    pyrt_decref((pyrt_object *)type);
    down();
}

TEST(an_object_that_nobody_owned_when_it_was_made)
{
    up();
    /* As a thread whose end is near makes it. */
    uint64_t id = self->self_id;
    self->self_id = 0;
    thing *t = thing_new(self);
    self->self_id = id;
    CHECK_LOOK(t, 0, 0, 1, PYRT_SHARED_MERGED);
    pyrt_incref(&t->base);
    pyrt_decref(&t->base);
    pyrt_decref(&t->base);
    CHECK_UINT(things_died(), 1);
    down();
}

/* ---- misuse ------------------------------------------------------------------------------------------------------ */

TEST(one_drop_too_many_is_reported)
{
    up();
    thing *t = thing_new(self);
    pyrt_decref(&t->base);
    pyrt_decref(&t->base);
    EXPECT_REPORT("pyrt_decref", "has been dropped once too often");
    CHECK(!pyrt_try_incref(&t->base));
    CHECK_UINT(things_died(), 1);
    down();
}

TEST(a_look_with_a_wrong_size_or_into_nothing_changes_nothing)
{
    up();
    pyrt_object_info info = {.struct_size = 4, .local = 77};
    pyrt_object_look((pyrt_object *)thing_type, &info);
    CHECK_UINT(info.local, 77);
    pyrt_object_stats stats = {.struct_size = 4, .immortal = 77};
    pyrt_object_stats_read(pyrt_interp_main(), &stats);
    CHECK_UINT(stats.immortal, 77);
    stats.struct_size = sizeof(stats);
    pyrt_object_stats_read(NULL, &stats);
    CHECK_UINT(stats.immortal, 0);
    pyrt_object_look((pyrt_object *)thing_type, NULL);
    pyrt_object_stats_read(pyrt_interp_main(), NULL);
    down();
}
