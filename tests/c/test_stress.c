/* test_stress.c -- everything at once: threads are born and die, attach, detach, pass safepoints, read, replace and retire,
 * wait, stop the world, and make and delete interpreters; at the end the books balance (stress_nodes.h).
 *
 * Each thread draws its choices from a stream of its own, so that --seed gives every thread the same life again; how they
 * interleave is the machine's. --scale makes it longer. --break makes it wrong in one way, to see it caught:
 *
 *      free-early      disposes at once instead of retiring
 *      read-detached   looks at a node that was found while attached after detaching
 *      wrong-readers   retires what all groups read for the readers of one
 *      lose-one        drops one node instead of retiring it
 */
#include "epoch/qsbr.h"
#include "stress_nodes.h"
#include "workers.h"

#include <string.h>

enum { SPAWNERS = 4, LIVES = 40, STEPS = 300, HELD = 4 };

/* A thread while it lives. What it holds is good until it is quiescent. */
typedef struct life {
    random_stream choices;
    pyrt_thread *thread; /* attached, but for the steps that say otherwise */
    int group;
    stress_node *held[HELD];
} life;

/* ---- reading --------------------------------------------------------------------------------------------------------- */

/* Before everything that ends the read side. */
static void
let_go(life *self)
{
    for (int i = 0; i < HELD; i++) {
        if (self->held[i] != NULL) {
            node_check(self->held[i]);
            self->held[i] = NULL;
        }
    }
}

static void
read_some(life *self)
{
    uint32_t place = random_below(&self->choices, HELD);
    int cells = random_below(&self->choices, 3) == 0 ? CELLS_OF_ALL : self->group;
    self->held[place] = cell_read(cells, &self->choices);
    for (int i = 0; i < HELD; i++) {
        if (self->held[i] != NULL) {
            node_check(self->held[i]);
        }
    }
    /* Others run while this one holds what it has found. */
    if (random_below(&self->choices, 4) == 0) {
        sched_yield();
    }
    if (test_sabotage() != NULL && strcmp(test_sabotage(), "read-detached") == 0) {
        pyrt_detach(self->thread);
        sched_yield();
        node_check(self->held[place]);
        pyrt_attach(self->thread);
    }
}

/* ---- retiring -------------------------------------------------------------------------------------------------------- */

static size_t
some_size(life *self)
{
    static const size_t sizes[] = {0, 32, 32, 100, 1000, 20000};
    return sizes[random_below(&self->choices, 6)];
}

/* With the thread's state, attached or detached. */
static void
replace_one(life *self)
{
    if (random_below(&self->choices, 4) == 0) {
        (void)node_retire(self->thread, cell_replace(CELLS_OF_ALL, &self->choices), FOR_ALL, some_size(self));
        return;
    }
    stress_node *old = cell_replace(self->group, &self->choices);
    retire_form form = (retire_form)random_below(&self->choices, FOR_ALL);
    pyrt_status status = node_retire(self->thread, old, form, some_size(self));
    if (status == PYRT_EBUSY && pyrt_thread_current() == self->thread) {
        let_go(self);
        (void)pyrt_process_delayed(self->thread);
    }
}

static void
replace_some(life *self)
{
    for (uint32_t i = random_below(&self->choices, 20); i > 0; i--) {
        replace_one(self);
    }
}

/* ---- being quiescent ------------------------------------------------------------------------------------------------- */

static void
be_quiescent(life *self)
{
    let_go(self);
    switch (random_below(&self->choices, 3)) {
    case 0:
        pyrt_qsbr_quiescent_state(self->thread);
        break;
    case 1:
        (void)pyrt_process_delayed(self->thread);
        break;
    default:
        pyrt_safepoint(self->thread);
        break;
    }
}

/* Detached it retires, lets others run and borrow, or waits for the main interpreter. */
static void
be_detached(life *self)
{
    let_go(self);
    pyrt_detach(self->thread);
    switch (random_below(&self->choices, 6)) {
    case 0:
        replace_some(self);
        break;
    case 1:
        (void)node_retire(NULL, cell_replace(0, &self->choices), BY_VALUE, some_size(self));
        break;
    case 2:
        (void)pyrt_qsbr_synchronize_timed(NULL, 100000);
        break;
    case 3:
        (void)pyrt_process_delayed(self->thread);
        break;
    default:
        sched_yield();
        break;
    }
    pyrt_attach(self->thread);
}

static void
wait_for_others(life *self)
{
    let_go(self);
    int64_t timeout = random_below(&self->choices, 2) == 0 ? -1 : (int64_t)random_below(&self->choices, 200000);
    pyrt_status status = random_below(&self->choices, 2) == 0 ? pyrt_qsbr_synchronize_timed(self->thread, timeout)
                                                              : pyrt_qsbr_barrier_timed(self->thread, timeout);
    CHECK(status == PYRT_OK || (status == PYRT_ETIMEDOUT && timeout >= 0) ||
          (status == PYRT_ENOMEM && world.short_of_memory));
    CHECK_PTR(pyrt_thread_current(), self->thread);
}

/* ---- pauses ---------------------------------------------------------------------------------------------------------- */

static void
stop_the_others(life *self)
{
    let_go(self);
    bool all = random_below(&self->choices, 3) == 0;
    int64_t timeout = random_below(&self->choices, 2) == 0 ? -1 : (int64_t)random_below(&self->choices, 100000);
    pyrt_interp *what = all ? NULL : self->thread->interp;
    if (pyrt_stop_the_world_timed(what, timeout, NULL) != PYRT_OK) {
        return;
    }
    uint64_t moving[GROUPS];
    for (int i = 0; i < GROUPS; i++) {
        moving[i] = pyrt_load_relaxed(&world.moving[i]);
    }
    sched_yield();
    for (int i = 0; i < GROUPS; i++) {
        CHECK(pyrt_load_relaxed(&world.moving[i]) == moving[i] || !(all || i == self->group));
    }
    /* The others' queues may be had as well, but of those that are parked inside of a disposer. */
    if (random_below(&self->choices, 4) == 0) {
        pyrt_status status = pyrt_qsbr_barrier_timed(self->thread, 0);
        CHECK(status == PYRT_OK || status == PYRT_ETIMEDOUT || status == PYRT_EDEADLK ||
              (status == PYRT_ENOMEM && world.short_of_memory));
    }
    pyrt_start_the_world(what);
}

/* ---- other interpreters ---------------------------------------------------------------------------------------------- */

static void step(life *self, int depth);

/* Goes on as a thread of another group for a while. */
static void
visit(life *self, int depth)
{
    life there = {.group = (int)random_below(&self->choices, GROUPS), .choices = self->choices};
    let_go(self);
    there.thread = pyrt_thread_ensure(world.groups[there.group]);
    if (there.thread != NULL) {
        for (int i = 0; i < 10; i++) {
            step(&there, depth + 1);
        }
        let_go(&there);
        pyrt_thread_release(there.thread);
    }
    else {
        CHECK(world.short_of_memory);
    }
    self->choices = there.choices;
    CHECK_PTR(pyrt_thread_current(), self->thread);
}

/* An interpreter that lives for a moment, and takes all that was retired in it along. */
static void
make_and_delete_interp(life *self)
{
    int disposed = 0;
    int retired = (int)random_below(&self->choices, 300);
    let_go(self);
    pyrt_interp *interp = pyrt_interp_new(NULL);
    pyrt_thread *thread = interp == NULL ? NULL : pyrt_thread_ensure(interp);
    if (thread == NULL) {
        CHECK(world.short_of_memory);
        retired = 0;
    }
    for (int i = 0; i < retired; i++) {
        stress_node *node = node_new(&self->choices);
        node->also_count = &disposed;
        (void)node_retire(thread, node, (retire_form)random_below(&self->choices, FOR_ALL), some_size(self));
    }
    if (thread != NULL) {
        pyrt_thread_release(thread);
    }
    if (interp != NULL) {
        /* A barrier of another thread may pin it for a moment. */
        WAIT_UNTIL((pyrt_safepoint(self->thread), pyrt_interp_delete(interp) == PYRT_OK));
    }
    CHECK_INT(disposed, retired);
}

/* What anybody may ask at any time. */
static void
look_around(life *self)
{
    pyrt_stall_report stall = {.struct_size = sizeof(stall)};
    pyrt_thread_info infos[8];
    int64_t ids[4];
    (void)pyrt_qsbr_stall_report(self->thread->interp, &stall);
    CHECK(pyrt_thread_list(self->thread->interp, infos, 8) >= 1);
    CHECK(pyrt_interp_list(ids, 4) >= GROUPS);
    CHECK(stat_of(self->thread->interp, "retired") < UINT64_MAX / 2);
    (void)pyrt_qsbr_poll(self->thread, pyrt_qsbr_advance(self->thread->interp));
    pyrt_interp *pinned = pyrt_interp_pin(ids[1]);
    if (pinned != NULL) {
        pyrt_interp_unpin(pinned);
    }
}

/* ---- lives ----------------------------------------------------------------------------------------------------------- */

static void
step(life *self, int depth)
{
    uint32_t choice = random_below(&self->choices, 100);
    (void)pyrt_fetch_add_relaxed(&world.moving[self->group], (uint64_t)1);
    if (choice < 45) {
        read_some(self);
    }
    else if (choice < 65) {
        replace_some(self);
    }
    else if (choice < 83) {
        be_quiescent(self);
    }
    else if (choice < 91) {
        be_detached(self);
    }
    else if (choice < 93) {
        wait_for_others(self);
    }
    else if (choice < 94) {
        stop_the_others(self);
    }
    else if (choice < 96 && depth < 3) {
        visit(self, depth);
    }
    else if (choice < 97 && depth == 0) {
        make_and_delete_interp(self);
    }
    else {
        look_around(self);
    }
}

/* Ends in one of the ways in which a thread may end: in order, or with anything left open. */
static void
end_somehow(life *self)
{
    let_go(self);
    switch (random_below(&self->choices, 3)) {
    case 0:
        pyrt_thread_release(self->thread);
        break;
    case 1:
        pyrt_detach(self->thread);
        break;
    default:
        break;
    }
}

static void *
live(void *arg)
{
    life *self = arg;
    self->group = (int)random_below(&self->choices, GROUPS);
    self->thread = pyrt_thread_ensure(world.groups[self->group]);
    if (self->thread == NULL) {
        CHECK(world.short_of_memory);
        return NULL;
    }
    for (int i = 0; i < STEPS; i++) {
        step(self, 0);
    }
    end_somehow(self);
    return NULL;
}

static void
spawn(void *unused, int number)
{
    (void)unused;
    for (unsigned i = 0; i < LIVES * test_scale(); i++) {
        pthread_t thread;
        life self = {.choices = random_for((uint64_t)number << 32 | i)};
        CHECK_INT(pthread_create(&thread, NULL, live, &self), 0);
        CHECK_INT(pthread_join(thread, NULL), 0);
    }
}

TEST(stress)
{
    world_begin(false);
    run_crowd(SPAWNERS, spawn, NULL);
    world_end();
}

/* The sequence passes its end early on. */
TEST(stress_across_the_wrap)
{
    pyrt_qsbr_sequence_start(UINT64_MAX - 1000);
    world_begin(false);
    run_crowd(SPAWNERS, spawn, NULL);
    CHECK(pyrt_qsbr_advance(pyrt_interp_main()) < UINT64_MAX / 2);
    world_end();
    pyrt_qsbr_sequence_start(PYRT_QSBR_INITIAL);
}

TEST(stress_short_of_memory)
{
    world_begin(true);
    run_crowd(SPAWNERS, spawn, NULL);
    world_end();
}
