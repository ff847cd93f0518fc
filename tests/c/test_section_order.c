/* test_section_order.c -- critical sections nested in any order never deadlock, and keep others out all the same, while threads
 * detach and the world stops (critical_section.h).
 */
#include "support.h"

#include "workers.h"

#include <string.h>

enum { OBJECTS = 4, WORKERS = 4, DEEPEST = 4 };

static struct {
    pyrt_mutex mutex;
    uint64_t count; /* a plain load and a plain store each */
} objects[OBJECTS];

static struct {
    uint64_t counted[OBJECTS];
    int working;
    int rounds;
    bool outer; /* the sabotage: counts where the section around the newest is thought to hold */
} order;

static void
count(int object)
{
    uint64_t seen = pyrt_load_relaxed(&objects[object].count);
    if (seen % 8 == 0) {
        sched_yield();
    }
    pyrt_store_relaxed(&objects[object].count, seen + 1);
    (void)pyrt_fetch_add_relaxed(&order.counted[object], (uint64_t)1);
}

static void
visit(pyrt_thread *thread, random_stream *choices, int depth, int around)
{
    int one = (int)random_below(choices, OBJECTS);
    int other = (int)random_below(choices, OBJECTS);
    bool two = random_below(choices, 3) == 0;
    pyrt_critical_section s;
    pyrt_critical_section2 t;
    if (two) {
        pyrt_critical_section2_begin(&t, &objects[one].mutex, &objects[other].mutex);
    }
    else {
        pyrt_critical_section_begin(&s, &objects[one].mutex);
    }
    count(order.outer && around >= 0 ? around : one);
    switch (random_below(choices, 8)) {
    case 0:
        pyrt_detach(thread);
        pyrt_attach(thread);
        break;
    case 1:
        pyrt_safepoint(thread);
        break;
    default:
        break;
    }
    count(two ? other : one);
    for (uint32_t inner = random_below(choices, 3); inner > 0 && depth < DEEPEST; inner--) {
        visit(thread, choices, depth + 1, one);
        count(one);
    }
    if (two) {
        count(other);
        pyrt_critical_section2_end(&t);
    }
    else {
        pyrt_critical_section_end(&s);
    }
}

static void
be_one_of_many(void *unused, int number)
{
    (void)unused;
    random_stream choices = random_for((uint64_t)number);
    if (number < WORKERS) {
        pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
        for (int i = 0; i < order.rounds; i++) {
            visit(thread, &choices, 0, -1);
            pyrt_safepoint(thread);
        }
        CHECK_UINT(thread->critical_sections, 0);
        pyrt_thread_release(thread);
        pyrt_fetch_add_seq_cst(&order.working, -1);
        return;
    }
    while (pyrt_load_seq_cst(&order.working) != 0) {
        pyrt_interp *what = random_below(&choices, 2) == 0 ? NULL : pyrt_interp_main();
        CHECK_OK(pyrt_stop_the_world(what));
        /* A world that stands still holds no section; a reservation may be on its way back. */
        for (int i = 0; i < OBJECTS; i++) {
            CHECK(pyrt_load_relaxed(&objects[i].mutex.state) != PYRT_MUTEX_LOCKED);
        }
        pyrt_start_the_world(what);
    }
}

TEST(sections_in_any_order_never_deadlock_and_lose_nothing)
{
    runtime_up();
    const char *sabotage = test_sabotage();
    order.outer = sabotage != NULL && strcmp(sabotage, "outer") == 0;
    order.working = WORKERS;
    order.rounds = 500 * (int)test_scale();
    for (int i = 0; i < OBJECTS; i++) {
        order.counted[i] = objects[i].count = 0;
    }
    run_crowd(WORKERS + 1, be_one_of_many, NULL);
    for (int i = 0; i < OBJECTS; i++) {
        CHECK_UINT(objects[i].count, order.counted[i]);
        CHECK(!pyrt_mutex_is_locked(&objects[i].mutex));
    }
    runtime_down();
}
