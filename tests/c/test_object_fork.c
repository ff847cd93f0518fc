/* test_object_fork.c -- objects in the children of forks: what lost threads owned, had in their queues, and had counted by ids.
 *
 * In the child of a raw fork another thread may have stood between any two steps of counting. What it was just destroying or
 * queueing then is lost, and nothing else: objects that it only owned are merged by who drops them.
 */
#include "mills.h"

#include "steps.h"
#include "things.h"

#include <string.h>
#include <unistd.h>

enum { THREADS = 3, OBJECTS = 300, SHARED = 8 };

static struct {
    pyrt_thread *self;
    worker workers[THREADS];
    pyrt_thread *threads[THREADS];
    thing *objects[THREADS][OBJECTS]; /* owned by the thread; the reference is the test's */
    thing *counted; /* by id */
    pyrt_object *shared[SHARED]; /* slots that all change */
    int running;
    bool over;
} f;

/* Makes its objects, then makes, hands round, counts and drops others until it is told to stop. */
static void
work(void *arg)
{
    int number = (int)(intptr_t)arg;
    random_stream random = random_for((uint64_t)number);
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    f.threads[number] = thread;
    pyrt_attach(thread);
    for (int i = 0; i < OBJECTS; i++) {
        f.objects[number][i] = thing_new(thread);
    }
    pyrt_incref_by_id(thread, &f.counted->base, f.counted->id);
    pyrt_fetch_add_seq_cst(&f.running, 1); /* as release, for who waits for all */
    while (!pyrt_load_acquire(&f.over)) {
        thing *t = thing_new(thread);
        pyrt_object *found = pyrt_load_ref(&f.shared[random_below(&random, SHARED)]);
        pyrt_store_ref(&f.shared[random_below(&random, SHARED)], &t->base);
        pyrt_xdecref(found);
        /* One more of its own, which is lost if the fork comes here. */
        thing *mine = f.objects[number][random_below(&random, OBJECTS)];
        pyrt_incref(&mine->base);
        pyrt_decref(&mine->base);
        if (random_below(&random, 4) == 0) {
            pyrt_safepoint(thread);
        }
    }
    pyrt_decref_by_id(thread, &f.counted->base, f.counted->id);
    pyrt_detach(thread);
}

static void
works_up(void)
{
    things_up();
    memset(&f, 0, sizeof(f));
    f.self = pyrt_thread_ensure(pyrt_interp_main());
    f.counted = thing_new(f.self);
    CHECK_OK(pyrt_unique_id_new(pyrt_interp_main(), &f.counted->base, &f.counted->id));
    for (int i = 0; i < THREADS; i++) {
        worker_start(&f.workers[i]);
        worker_begin(&f.workers[i], work, (void *)(intptr_t)i);
    }
    WAIT_UNTIL((pyrt_safepoint(f.self), pyrt_load_acquire(&f.running) == THREADS));
}

static void
end_work(void *arg)
{
    pyrt_thread_delete(f.threads[(intptr_t)arg]);
}

static void
works_down(void)
{
    pyrt_store_release(&f.over, true);
    pyrt_detach(f.self);
    for (int i = 0; i < THREADS; i++) {
        worker_finish(&f.workers[i]);
        worker_do(&f.workers[i], end_work, (void *)(intptr_t)i);
        worker_end(&f.workers[i]);
    }
    pyrt_attach(f.self);
    for (int i = 0; i < SHARED; i++) {
        pyrt_store_ref(&f.shared[i], NULL);
    }
    for (int t = 0; t < THREADS; t++) {
        for (int i = 0; i < OBJECTS; i++) {
            pyrt_decref(&f.objects[t][i]->base);
        }
    }
    pyrt_decref(&f.counted->base);
    pyrt_thread_release(f.self);
    things_down();
}

/* ---- what lost threads owned --------------------------------------------------------------------------------------- */

/* In the child. Every one that is dropped dies at once, but for the one that its owner was just counting. */
static void
drop_all(void)
{
    for (int t = 0; t < THREADS; t++) {
        int left = 0;
        for (int i = 0; i < OBJECTS; i++) {
            thing *object = f.objects[t][i];
            thing_check(object);
            pyrt_incref(&object->base);
            pyrt_decref(&object->base);
            CHECK(pyrt_refcount(&object->base) == 1 || pyrt_refcount(&object->base) == 2);
            uint64_t before = things_died();
            pyrt_decref(&object->base);
            left += things_died() == before;
        }
        CHECK(left <= 1);
    }
}

static void
use_slots(void)
{
    for (int i = 0; i < 1000; i++) {
        pyrt_object *found = pyrt_load_ref(&f.shared[i % SHARED]);
        if (found != NULL) {
            thing_check((thing *)(void *)found);
        }
        pyrt_store_ref(&f.shared[(i + 1) % SHARED], &thing_new(f.self)->base);
        pyrt_xdecref(found);
    }
    for (int i = 0; i < SHARED; i++) {
        pyrt_store_ref(&f.shared[i], NULL);
    }
}

static int generation;

static void
live_on(void)
{
    if (generation++ == 0) {
        drop_all();
    }
    use_slots();
    pyrt_safepoint(f.self);
    CHECK_OK(pyrt_qsbr_barrier(f.self));
    if (generation < 3) {
        in_a_child(fork, live_on);
    }
    CHECK_UINT(reports_pending(), 0);
}

TEST(three_generations_of_raw_forks_among_threads_that_count)
{
    works_up();
    for (int i = 0; i < 20; i++) {
        generation = 0;
        pyrt_safepoint(f.self);
        in_a_child(fork, live_on);
    }
    works_down();
}

TEST(the_same_with_the_world_stopped)
{
    works_up();
    for (int i = 0; i < 20; i++) {
        generation = 0;
        pyrt_safepoint(f.self);
        in_a_child(pyrt_fork, live_on);
    }
    works_down();
}

/* ---- what lost threads had counted by ids --------------------------------------------------------------------------- */

/* Each of them has one reference, which is in the object's own count now. */
static void
counts_are_there(void)
{
    int64_t count = pyrt_refcount(&f.counted->base);
    CHECK_INT(count, 1 + THREADS);
    for (int i = 0; i < THREADS; i++) {
        pyrt_decref(&f.counted->base);
    }
    /* What was in their queues dies now. */
    pyrt_safepoint(f.self);
    uint64_t before = things_died();
    pyrt_decref(&f.counted->base);
    CHECK_INT(pyrt_merge_unique_counts(pyrt_interp_main()), 1);
    CHECK_UINT(things_died(), before + 1);
}

TEST(the_counts_of_lost_threads_are_added_up)
{
    works_up();
    for (int i = 0; i < 10; i++) {
        pyrt_safepoint(f.self);
        in_a_child(fork, counts_are_there);
    }
    works_down();
}

/* ---- what lost threads had in their queues -------------------------------------------------------------------------- */

static thing *queued[2];

/* Their owner was asked and is not there any more: the one that nobody refers to dies at a safepoint of who is. */
static void
queue_is_merged(void)
{
    CHECK_UINT(things_died(), 0);
    CHECK_UINT(thing_look(queued[1]).state, PYRT_SHARED_MERGED);
    CHECK_INT(pyrt_refcount(&queued[1]->base), 1);
    pyrt_safepoint(f.self);
    CHECK_UINT(things_died(), 1);
    pyrt_decref(&queued[1]->base);
    CHECK_UINT(things_died(), 2);
}

static void
make_two(void *owner)
{
    queued[0] = thing_new(owner);
    queued[1] = thing_new(owner);
    pyrt_incref(&queued[1]->base);
}

TEST(the_queue_of_a_lost_thread_is_merged)
{
    things_up();
    worker w;
    worker_start(&w);
    f.self = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_thread *owner;
    worker_do(&w, attach_new, &owner);
    worker_do(&w, make_two, owner);
    pyrt_decref(&queued[0]->base);
    pyrt_decref(&queued[1]->base);
    CHECK_UINT(thing_look(queued[0]).state, PYRT_SHARED_QUEUED);
    in_a_child(fork, queue_is_merged);
    CHECK_UINT(thing_look(queued[0]).state, PYRT_SHARED_QUEUED);
    worker_do(&w, pass_safepoint, owner);
    CHECK_UINT(things_died(), 1);
    pyrt_decref(&queued[1]->base);
    CHECK_UINT(things_died(), 2);
    worker_do(&w, delete_attached, owner);
    worker_end(&w);
    pyrt_thread_release(f.self);
    things_down();
}

static void
what_was_pushed_is_merged(void)
{
    pyrt_safepoint(f.self);
    CHECK_UINT(things_died(), 1);
}

TEST(what_a_lost_thread_had_not_told_the_owner_of_is_merged_by_that)
{
    things_up();
    worker w;
    worker_start(&w);
    f.self = pyrt_thread_ensure(pyrt_interp_main());
    thing *t = thing_new(f.self);
    worker_do(&w, count_down, t);
    CHECK_UINT(thing_look(t).state, PYRT_SHARED_QUEUED);
    /* As it is when the fork comes between the push and the flag. */
    (void)pyrt_fetch_and_seq_cst(&f.self->slot.flags, ~(uint32_t)PYRT_FLAG_MERGE);
    in_a_child(fork, what_was_pushed_is_merged);
    pyrt_merge_refcounts(f.self);
    CHECK_UINT(things_died(), 1);
    worker_end(&w);
    pyrt_thread_release(f.self);
    things_down();
}

/* ---- what lost threads were asking an interpreter for ---------------------------------------------------------------- */

enum { FORKS = 20 };

static struct {
    pyrt_interp *interp;
    pyrt_type *type;
    worker workers[THREADS];
    int running;
    bool over;
} asked;

/* Drops objects of the interpreter without a state in it that is attached: it is looked for by its id. */
static void
drop_from_abroad(void *unused)
{
    (void)unused;
    pyrt_thread *thread = pyrt_thread_new(asked.interp);
    pyrt_fetch_add_seq_cst(&asked.running, 1); /* as release, for who waits for all */
    while (!pyrt_load_acquire(&asked.over)) {
        pyrt_attach(thread);
        thing *t = thing_new_of(thread, asked.type);
        pyrt_detach(thread);
        pyrt_decref(&t->base);
    }
    pyrt_thread_delete(thread);
}

/* In the child, where those who kept it for a moment are not there. */
static void
end_of_the_interpreter(void)
{
    CHECK_OK(pyrt_interp_delete(asked.interp));
}

TEST(an_interpreter_that_lost_threads_asked_something_of_can_end)
{
    things_up();
    memset(&asked, 0, sizeof(asked));
    asked.interp = pyrt_interp_new(NULL);
    asked.type = thing_type_new(asked.interp);
    for (int i = 0; i < THREADS; i++) {
        worker_start(&asked.workers[i]);
        worker_begin(&asked.workers[i], drop_from_abroad, NULL);
    }
    WAIT_UNTIL(pyrt_load_acquire(&asked.running) == THREADS);
    for (int i = 0; i < FORKS; i++) {
        in_a_child(fork, end_of_the_interpreter);
    }
    pyrt_store_release(&asked.over, true);
    for (int i = 0; i < THREADS; i++) {
        worker_finish(&asked.workers[i]);
        worker_end(&asked.workers[i]);
    }
    pyrt_decref((pyrt_object *)asked.type);
    CHECK_OK(pyrt_interp_delete(asked.interp));
    things_down();
}

/* ---- forks inside of destructors ------------------------------------------------------------------------------------- */

static void
child_goes_on(void)
{
    pyrt_thread *current = pyrt_thread_current();
    thing *t = thing_new(current);
    pyrt_decref(&t->base);
    pyrt_safepoint(current);
    CHECK_UINT(reports_pending(), 0);
}

static void
fork_in_destructor(thing *t)
{
    (void)t;
    in_a_child(fork, child_goes_on);
    in_a_child(pyrt_fork, child_goes_on);
}

TEST(a_destructor_forks)
{
    things_up();
    f.self = pyrt_thread_ensure(pyrt_interp_main());
    thing *t = thing_new(f.self);
    t->when_dying = fork_in_destructor;
    pyrt_decref(&t->base);
    CHECK_UINT(things_died(), 1);
    pyrt_thread_release(f.self);
    things_down();
}
