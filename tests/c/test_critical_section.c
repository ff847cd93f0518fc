/* test_critical_section.c -- locks that are given up whenever their thread detaches: nesting, suspending and resuming, and pauses
 * (critical_section.h). Wrong use is in test_section_misuse.c.
 */
#include "sections.h"

/* ---- one thread ---------------------------------------------------------------------------------------------------- */

TEST(a_section_holds_its_mutex_from_begin_to_end)
{
    pyrt_thread *thread = up();
    pyrt_critical_section s;
    CHECK(!pyrt_critical_section_holds(&a));
    pyrt_critical_section_begin(&s, &a);
    CHECK(pyrt_mutex_is_locked(&a));
    CHECK(pyrt_critical_section_holds(&a));
    CHECK(!pyrt_critical_section_holds(&b));
    pyrt_critical_section_end(&s);
    CHECK(!pyrt_mutex_is_locked(&a));
    CHECK(!pyrt_critical_section_holds(&a));
    down(thread);
}

TEST(the_same_object_twice)
{
    pyrt_thread *thread = up();
    pyrt_critical_section s, t;
    pyrt_critical_section2 u;
    pyrt_critical_section_begin(&s, &a);
    pyrt_critical_section_begin(&t, &a);
    CHECK(pyrt_critical_section_holds(&a));
    pyrt_critical_section2_begin(&u, &a, &a);
    CHECK(pyrt_critical_section_holds(&a));
    /* Also after everything was given up in between. */
    pyrt_detach(thread);
    CHECK(!pyrt_mutex_is_locked(&a));
    pyrt_attach(thread);
    CHECK(pyrt_critical_section_holds(&a));
    pyrt_critical_section2_end(&u);
    pyrt_critical_section_end(&t);
    CHECK(pyrt_critical_section_holds(&a));
    pyrt_critical_section_end(&s);
    down(thread);
}

TEST(an_object_around_another_one_around_itself)
{
    pyrt_thread *thread = up();
    pyrt_critical_section s, t, u;
    pyrt_critical_section_begin(&s, &a);
    pyrt_critical_section_begin(&t, &b);
    CHECK(pyrt_critical_section_holds(&a) && pyrt_critical_section_holds(&b));
    pyrt_critical_section_begin(&u, &a);
    CHECK(pyrt_critical_section_holds(&a));
    CHECK(!pyrt_mutex_is_locked(&b));
    pyrt_critical_section_end(&u);
    CHECK(pyrt_critical_section_holds(&b));
    pyrt_critical_section_end(&t);
    CHECK(pyrt_critical_section_holds(&a));
    pyrt_critical_section_end(&s);
    down(thread);
}

TEST(two_objects_in_any_order)
{
    pyrt_thread *thread = up();
    pyrt_mutex *const pairs[][2] = {{&a, &b}, {&b, &a}, {&a, &a}};
    for (int i = 0; i < 3; i++) {
        pyrt_critical_section2 s, t;
        pyrt_critical_section2_begin(&s, pairs[i][0], pairs[i][1]);
        CHECK(pyrt_critical_section_holds(pairs[i][0]) && pyrt_critical_section_holds(pairs[i][1]));
        pyrt_critical_section2_begin(&t, pairs[i][1], pairs[i][0]);
        CHECK(pyrt_critical_section_holds(pairs[i][0]) && pyrt_critical_section_holds(pairs[i][1]));
        pyrt_critical_section2_end(&t);
        pyrt_detach(thread);
        CHECK(!pyrt_mutex_is_locked(&a) && !pyrt_mutex_is_locked(&b));
        pyrt_attach(thread);
        CHECK(pyrt_critical_section_holds(pairs[i][0]) && pyrt_critical_section_holds(pairs[i][1]));
        pyrt_critical_section2_end(&s);
        CHECK(!pyrt_mutex_is_locked(&a) && !pyrt_mutex_is_locked(&b));
    }
    down(thread);
}

TEST(two_objects_around_and_inside_of_one)
{
    pyrt_thread *thread = up();
    pyrt_critical_section s;
    pyrt_critical_section2 t, u;
    pyrt_critical_section2_begin(&t, &a, &b);
    pyrt_critical_section_begin(&s, &b);
    CHECK(pyrt_critical_section_holds(&a) && pyrt_critical_section_holds(&b));
    pyrt_critical_section_end(&s);
    pyrt_critical_section2_begin(&u, &b, &c);
    CHECK(pyrt_critical_section_holds(&b) && pyrt_critical_section_holds(&c));
    pyrt_critical_section2_end(&u);
    CHECK(pyrt_critical_section_holds(&a) && pyrt_critical_section_holds(&b));
    CHECK(!pyrt_mutex_is_locked(&c));
    pyrt_critical_section2_end(&t);
    pyrt_critical_section_begin(&s, &b);
    pyrt_critical_section2_begin(&u, &b, &a);
    CHECK(pyrt_critical_section_holds(&a) && pyrt_critical_section_holds(&b));
    pyrt_critical_section2_end(&u);
    CHECK(pyrt_critical_section_holds(&b));
    CHECK(!pyrt_mutex_is_locked(&a));
    pyrt_critical_section_end(&s);
    down(thread);
}

TEST(without_a_state_it_is_a_plain_lock)
{
    a = b = (pyrt_mutex)PYRT_MUTEX_INIT;
    pyrt_critical_section s;
    pyrt_critical_section2 t;
    pyrt_critical_section_begin(&s, &a);
    CHECK(pyrt_mutex_is_locked(&a));
    CHECK(!pyrt_critical_section_holds(&a));
    pyrt_critical_section_end(&s);
    CHECK(!pyrt_mutex_is_locked(&a));
    pyrt_critical_section2_begin(&t, &b, &a);
    CHECK(pyrt_mutex_is_locked(&a) && pyrt_mutex_is_locked(&b));
    pyrt_critical_section2_end(&t);
    CHECK(!pyrt_mutex_is_locked(&a) && !pyrt_mutex_is_locked(&b));
    pyrt_critical_section2_begin(&t, &a, &a);
    pyrt_critical_section2_end(&t);
    CHECK(!pyrt_mutex_is_locked(&a));
}

/* ---- suspended and resumed ------------------------------------------------------------------------------------------- */

TEST(detaching_suspends_all_and_attaching_resumes_the_newest)
{
    pyrt_thread *thread = up();
    pyrt_critical_section s, t;
    pyrt_critical_section_begin(&s, &a);
    pyrt_critical_section_begin(&t, &b);
    pyrt_detach(thread);
    CHECK(!pyrt_mutex_is_locked(&a) && !pyrt_mutex_is_locked(&b));
    pyrt_attach(thread);
    CHECK(pyrt_critical_section_holds(&b));
    CHECK(!pyrt_mutex_is_locked(&a));
    pyrt_detach(thread);
    CHECK(!pyrt_mutex_is_locked(&b));
    pyrt_attach(thread);
    pyrt_critical_section_end(&t);
    CHECK(pyrt_critical_section_holds(&a));
    CHECK(!pyrt_mutex_is_locked(&b));
    pyrt_critical_section_end(&s);
    down(thread);
}

TEST(a_state_of_another_interpreter_in_between)
{
    pyrt_thread *thread = up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    pyrt_critical_section s, t;
    pyrt_critical_section_begin(&s, &a);
    pyrt_thread *second = pyrt_thread_ensure(other);
    CHECK(!pyrt_mutex_is_locked(&a));
    pyrt_critical_section_begin(&t, &a);
    CHECK_PTR(t.thread, second);
    pyrt_critical_section_end(&t);
    pyrt_thread_release(second);
    CHECK(pyrt_critical_section_holds(&a));
    pyrt_critical_section_end(&s);
    CHECK_OK(pyrt_interp_delete(other));
    down(thread);
}

/* Nests a section in another, with pauses where the test wants them. */
typedef struct nest {
    pyrt_mutex *outer, *inner;
    pyrt_critical_section s, t;
    pyrt_thread *thread;
} nest;

static void
begin_outer(void *arg)
{
    nest *n = arg;
    n->thread = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_critical_section_begin(&n->s, n->outer);
}

static void
begin_inner(void *arg)
{
    nest *n = arg;
    pyrt_critical_section_begin(&n->t, n->inner);
    CHECK(pyrt_critical_section_holds(n->inner));
}

static void
end_inner(void *arg)
{
    nest *n = arg;
    pyrt_critical_section_end(&n->t);
    CHECK(pyrt_critical_section_holds(n->outer));
}

static void
end_outer(void *arg)
{
    nest *n = arg;
    CHECK(pyrt_critical_section_holds(n->outer));
    pyrt_critical_section_end(&n->s);
    pyrt_thread_release(n->thread);
}

/* a then b, and b then a: the one that waits gives up what it has. */
TEST(who_waits_for_a_section_gives_up_those_around_it)
{
    worker one, two;
    pyrt_thread *thread = up();
    nest first = {.outer = &a, .inner = &b};
    nest second = {.outer = &b, .inner = &a};
    worker_start(&one);
    worker_start(&two);
    worker_do(&one, begin_outer, &first);
    worker_do(&two, begin_outer, &second);
    watch_sleepers();
    worker_begin(&one, begin_inner, &first);
    WAIT_UNTIL(sleepers() == 1);
    CHECK(!pyrt_mutex_is_locked(&a));
    /* b is given up for the while, so that the first gets it. */
    worker_do(&two, begin_inner, &second);
    worker_do(&two, end_inner, &second);
    worker_do(&two, end_outer, &second);
    worker_finish(&one);
    stop_watching_sleepers();
    worker_do(&one, end_inner, &first);
    worker_do(&one, end_outer, &first);
    worker_end(&one);
    worker_end(&two);
    down(thread);
}

static void
lock_plain(void *mutex)
{
    pyrt_mutex_lock(mutex);
}

/* Any lock that is contended. */
TEST(who_waits_for_a_plain_lock_gives_up_its_sections)
{
    worker one;
    pyrt_thread *thread = up();
    nest first = {.outer = &a};
    worker_start(&one);
    worker_do(&one, begin_outer, &first);
    pyrt_mutex_lock(&b);
    watch_sleepers();
    worker_begin(&one, lock_plain, &b);
    WAIT_UNTIL(sleepers() == 1);
    pyrt_critical_section s;
    pyrt_critical_section_begin(&s, &a);
    pyrt_critical_section_end(&s);
    pyrt_mutex_unlock(&b);
    worker_finish(&one);
    stop_watching_sleepers();
    CHECK(pyrt_mutex_is_locked(&b));
    pyrt_mutex_unlock(&b);
    worker_do(&one, end_outer, &first);
    worker_end(&one);
    down(thread);
}

/* ---- pauses ------------------------------------------------------------------------------------------------------------ */

static void
safepoint_in_outer(void *arg)
{
    nest *n = arg;
    pyrt_safepoint(n->thread);
    CHECK(pyrt_critical_section_holds(n->outer));
}

static void
stop_look_and_start(void *arg)
{
    pause_call *call = arg;
    stop_as_called(call);
    CHECK(!pyrt_mutex_is_locked(&a));
    start_as_called(call);
}

TEST(a_parked_thread_holds_nothing_and_gets_it_back)
{
    for (int all = 0; all < 2; all++) {
        worker one, requester;
        pyrt_thread *thread = up();
        nest first = {.outer = &a};
        pause_call call = {.interp = all ? NULL : pyrt_interp_main(), .timeout_ns = -1};
        worker_start(&one);
        worker_start(&requester);
        worker_do(&one, begin_outer, &first);
        pyrt_detach(thread);
        watch_sleepers();
        worker_begin(&requester, stop_look_and_start, &call);
        WAIT_UNTIL(sleepers() == 1);
        CHECK(pyrt_mutex_is_locked(&a));
        worker_do(&one, safepoint_in_outer, &first);
        worker_finish(&requester);
        CHECK_OK(call.status);
        stop_watching_sleepers();
        pyrt_attach(thread);
        worker_do(&one, end_outer, &first);
        worker_end(&one);
        worker_end(&requester);
        down(thread);
    }
}

/* Whoever holds it may stand still: nobody waits, and what was free is held. */
TEST(nothing_waits_in_a_pause_of_ones_own)
{
    for (int all = 0; all < 2; all++) {
        pyrt_thread *thread = up();
        pyrt_interp *what = all ? NULL : pyrt_interp_main();
        pyrt_critical_section s, t;
        pyrt_critical_section2 u;
        pyrt_mutex_lock(&b); /* by nobody who would end it */
        CHECK_OK(pyrt_stop_the_world(what));
        pyrt_critical_section_begin(&s, &a);
        CHECK(pyrt_critical_section_holds(&a));
        pyrt_critical_section_begin(&t, &b);
        CHECK(!pyrt_critical_section_holds(&b));
        pyrt_critical_section_end(&t);
        CHECK(pyrt_critical_section_holds(&a));
        pyrt_critical_section2_begin(&u, &b, &c);
        CHECK(!pyrt_critical_section_holds(&b) && pyrt_critical_section_holds(&c));
        pyrt_critical_section2_end(&u);
        CHECK(!pyrt_mutex_is_locked(&c));
        pyrt_critical_section2_begin(&u, &a, &b);
        pyrt_critical_section2_end(&u);
        pyrt_critical_section_end(&s);
        pyrt_start_the_world(what);
        pyrt_mutex_unlock(&b);
        down(thread);
    }
}

/* What cannot be had back at once stays given up, until the next time: an attach, or the end of the pause. */
TEST(a_section_that_cannot_be_resumed_in_ones_own_pause)
{
    pyrt_thread *thread = up();
    pyrt_critical_section s, t;
    pyrt_critical_section2 u;
    pyrt_critical_section_begin(&s, &c);
    pyrt_critical_section2_begin(&u, &a, &b);
    CHECK_OK(pyrt_stop_the_world(NULL));
    pyrt_detach(thread);
    CHECK(pyrt_mutex_trylock(&b));
    pyrt_attach(thread);
    CHECK(!pyrt_critical_section_holds(&a) && !pyrt_mutex_is_locked(&a));
    pyrt_critical_section_begin(&t, &a);
    CHECK(pyrt_critical_section_holds(&a));
    pyrt_critical_section_end(&t);
    CHECK(!pyrt_mutex_is_locked(&a));
    pyrt_detach(thread);
    pyrt_mutex_unlock(&b);
    pyrt_attach(thread);
    CHECK(pyrt_critical_section_holds(&a) && pyrt_critical_section_holds(&b));
    pyrt_start_the_world(NULL);
    pyrt_critical_section2_end(&u);
    CHECK(pyrt_critical_section_holds(&c));
    pyrt_critical_section_end(&s);
    down(thread);
}

static void
lock_plainly(void *mutex)
{
    pyrt_mutex_lock(mutex);
}

static void
unlock_after_the_pause(void *mutex)
{
    WAIT_UNTIL(!pyrt_world_is_stopped(NULL));
    pyrt_mutex_unlock(mutex);
}

TEST(a_section_that_could_not_be_resumed_in_the_pause_is_after_it)
{
    pyrt_thread *thread = up();
    pyrt_critical_section s;
    worker other;
    worker_start(&other);
    pyrt_critical_section_begin(&s, &a);
    CHECK_OK(pyrt_stop_the_world(NULL));
    pyrt_detach(thread);
    worker_do(&other, lock_plainly, &a);
    pyrt_attach(thread);
    CHECK(!pyrt_critical_section_holds(&a));
    worker_begin(&other, unlock_after_the_pause, &a);
    pyrt_start_the_world(NULL);
    CHECK(pyrt_critical_section_holds(&a));
    pyrt_critical_section_end(&s);
    worker_end(&other);
    down(thread);
}

TEST(without_a_state_nothing_waits_in_a_pause_of_ones_own)
{
    for (int all = 0; all < 2; all++) {
        pyrt_thread *thread = up();
        pyrt_interp *what = all ? NULL : pyrt_interp_main();
        pyrt_critical_section s;
        pyrt_critical_section2 u;
        pyrt_detach(thread);
        pyrt_mutex_lock(&a);
        CHECK_OK(pyrt_stop_the_world(what));
        pyrt_critical_section_begin(&s, &a);
        pyrt_critical_section2_begin(&u, &a, &b);
        CHECK(pyrt_mutex_is_locked(&b));
        pyrt_critical_section2_end(&u);
        pyrt_critical_section_end(&s);
        CHECK(pyrt_mutex_is_locked(&a));
        CHECK(!pyrt_mutex_is_locked(&b));
        pyrt_start_the_world(what);
        pyrt_mutex_unlock(&a);
        pyrt_attach(thread);
        down(thread);
    }
}
