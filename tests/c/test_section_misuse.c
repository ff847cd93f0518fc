/* test_section_misuse.c -- critical sections that are ended in another order, twice, elsewhere or never: what is reported, and
 * what is done all the same (critical_section.h).
 */
#include "sections.h"

#include <stdio.h>

TEST(ends_out_of_order_are_reported_and_done)
{
    pyrt_thread *thread = up();
    pyrt_critical_section s, t;
    pyrt_critical_section2 u;
    pyrt_critical_section_begin(&s, &a);
    pyrt_critical_section_begin(&t, &b);
    pyrt_critical_section_end(&s);
    EXPECT_REPORT("pyrt_critical_section_end", named(thread), "began later; end that first");
    CHECK(!pyrt_mutex_is_locked(&a));
    CHECK(pyrt_critical_section_holds(&b));
    pyrt_critical_section_end(&t);
    pyrt_critical_section2_begin(&u, &a, &b);
    pyrt_critical_section_begin(&t, &c);
    pyrt_critical_section2_end(&u);
    EXPECT_REPORT("pyrt_critical_section2_end", named(thread), "began later; end that first");
    pyrt_critical_section_end(&t);
    down(thread);
}

TEST(an_end_too_many_is_reported)
{
    pyrt_thread *thread = up();
    pyrt_critical_section s;
    pyrt_critical_section_begin(&s, &a);
    pyrt_critical_section_end(&s);
    pyrt_critical_section_end(&s);
    EXPECT_REPORT("pyrt_critical_section_end", named(thread), "ended already");
    down(thread);
}

TEST(an_end_while_detached_is_reported_and_done)
{
    pyrt_thread *thread = up();
    pyrt_critical_section s;
    pyrt_critical_section_begin(&s, &a);
    pyrt_detach(thread);
    pyrt_critical_section_end(&s);
    EXPECT_REPORT("pyrt_critical_section_end", named(thread), "not attached");
    pyrt_attach(thread);
    down(thread);
}

static void
end_section(void *section)
{
    pyrt_critical_section_end(section);
}

TEST(an_end_on_another_os_thread_is_reported_and_not_done)
{
    worker w;
    pyrt_thread *thread = up();
    pyrt_critical_section s;
    worker_start(&w);
    pyrt_critical_section_begin(&s, &a);
    pyrt_detach(thread);
    worker_do(&w, end_section, &s);
    EXPECT_REPORT("pyrt_critical_section_end", named(thread), "another OS thread");
    pyrt_attach(thread);
    CHECK(pyrt_critical_section_holds(&a));
    pyrt_critical_section_end(&s);
    worker_end(&w);
    down(thread);
}

TEST(a_state_that_ends_inside_of_a_section_is_reported)
{
    pyrt_thread *thread = up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    pyrt_detach(thread);
    pyrt_thread *ends = pyrt_thread_new(other);
    pyrt_critical_section s;
    pyrt_attach(ends);
    pyrt_critical_section_begin(&s, &a);
    pyrt_detach(ends);
    char name[32];
    snprintf(name, sizeof(name), "%s", named(ends));
    pyrt_thread_delete(ends);
    EXPECT_REPORT(name, "ends inside of a critical section");
    CHECK(!pyrt_mutex_is_locked(&a));
    CHECK_OK(pyrt_interp_delete(other));
    pyrt_attach(thread);
    down(thread);
}

static void
end_inside(void *unused)
{
    (void)unused;
    static __thread pyrt_critical_section s; /* not on a stack that is gone */
    (void)pyrt_thread_ensure(pyrt_interp_main());
    pyrt_critical_section_begin(&s, &a);
}

TEST(an_os_thread_that_ends_inside_of_a_section_is_reported)
{
    worker w;
    pyrt_thread *thread = up();
    worker_start(&w);
    worker_do(&w, end_inside, NULL);
    worker_end(&w);
    EXPECT_REPORT("ends inside of a critical section, whose mutex stays locked");
    pyrt_mutex_at_fork_reinit(&a);
    down(thread);
}
