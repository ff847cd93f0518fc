/* test_read_section.c -- counted read-side sections: what may not be called inside, by name (qsbr.h, law 2).
 *
 * The counting calls exist in every build; pyrt_read_begin and pyrt_read_end call them where PYRT_DEBUG is defined and are
 * nothing otherwise. The build with PYRT_DEBUG also makes the inline functions look.
 */
#include "support.h"

#include "workers.h"

static pyrt_thread *
up_and_reading(void)
{
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_read_begin_counted(thread);
    return thread;
}

static void
down(pyrt_thread *thread)
{
    pyrt_read_end_counted(thread);
    pyrt_thread_release(thread);
    runtime_down();
}

/* Inside a section nothing may have moved: still attached, at the same place, still counted. */
static void
check_still_reading(pyrt_thread *thread, uint64_t word)
{
    CHECK_PTR(pyrt_thread_current(), thread);
    CHECK_UINT(thread->slot.word, word);
    CHECK_UINT(thread->slot.read_depth, 1);
}

/* ---- counting ------------------------------------------------------------------------------------------------------ */

TEST(sections_nest)
{
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    for (uint32_t depth = 0; depth < 5; depth++) {
        CHECK_UINT(thread->slot.read_depth, depth);
        pyrt_read_begin_counted(thread);
    }
    for (uint32_t depth = 5; depth > 0; depth--) {
        CHECK_UINT(thread->slot.read_depth, depth);
        pyrt_read_end_counted(thread);
    }
    CHECK_UINT(thread->slot.read_depth, 0);
    pyrt_thread_release(thread);
    runtime_down();
}

TEST(the_macros_count_in_debug_builds_only)
{
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_read_begin(thread);
#if defined(PYRT_DEBUG)
    CHECK_UINT(thread->slot.read_depth, 1);
#else
    CHECK_UINT(thread->slot.read_depth, 0);
#endif
    pyrt_read_end(thread);
    CHECK_UINT(thread->slot.read_depth, 0);
    pyrt_thread_release(thread);
    runtime_down();
}

TEST(a_section_of_a_thread_that_is_not_attached_is_reported)
{
    runtime_up();
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    pyrt_read_begin_counted(thread);
    EXPECT_REPORT("pyrt_read_begin", named(thread));
    CHECK_UINT(thread->slot.read_depth, 0);
    pyrt_read_end_counted(thread);
    EXPECT_REPORT("pyrt_read_end", named(thread));
    CHECK_UINT(thread->slot.read_depth, 0);
    pyrt_thread_delete(thread);
    runtime_down();
}

TEST(an_end_without_a_begin_is_reported)
{
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_read_end_counted(thread);
    EXPECT_REPORT("pyrt_read_end", named(thread));
    CHECK_UINT(thread->slot.read_depth, 0);
    pyrt_thread_release(thread);
    runtime_down();
}

static void
end_section(void *thread)
{
    pyrt_read_end_counted(thread);
}

static void
begin_section(void *thread)
{
    pyrt_read_begin_counted(thread);
}

TEST(a_section_of_another_os_thread_is_reported)
{
    worker w;
    pyrt_thread *thread = up_and_reading();
    worker_start(&w);
    worker_do(&w, begin_section, thread);
    EXPECT_REPORT("pyrt_read_begin", named(thread));
    worker_do(&w, end_section, thread);
    EXPECT_REPORT("pyrt_read_end", named(thread));
    worker_end(&w);
    CHECK_UINT(thread->slot.read_depth, 1);
    down(thread);
}

/* ---- what would end the section is refused ------------------------------------------------------------------------- */

TEST(detach_inside_is_reported)
{
    pyrt_thread *thread = up_and_reading();
    uint64_t word = thread->slot.word;
    pyrt_detach(thread);
    EXPECT_REPORT("pyrt_detach", named(thread), "read-side section");
    check_still_reading(thread, word);
    down(thread);
}

TEST(quiescent_state_and_safepoint_inside_are_reported)
{
    pyrt_thread *thread = up_and_reading();
    uint64_t word = thread->slot.word;
    /* There is a new goal: the calls would move the word. */
    (void)pyrt_qsbr_advance(thread->interp);
    pyrt_qsbr_quiescent_state(thread);
    EXPECT_REPORT("pyrt_qsbr_quiescent_state", named(thread), "read-side section");
    check_still_reading(thread, word);
    pyrt_safepoint(thread);
    EXPECT_REPORT("pyrt_safepoint", named(thread), "read-side section");
    check_still_reading(thread, word);
    down(thread);
}

#if defined(PYRT_DEBUG)
/* Law 2: reported by name even when there was nothing to do this time. */
TEST(they_are_reported_although_nothing_is_asked)
{
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_safepoint(thread);
    pyrt_qsbr_quiescent_state(thread);
    pyrt_read_begin(thread);
    pyrt_qsbr_quiescent_state(thread);
    EXPECT_REPORT("pyrt_qsbr_quiescent_state", named(thread), "read-side section");
    pyrt_safepoint(thread);
    EXPECT_REPORT("pyrt_safepoint", named(thread), "read-side section");
    pyrt_read_end(thread);
    pyrt_safepoint(thread);
    pyrt_thread_release(thread);
    runtime_down();
}
#endif

static int disposed;

static void
count(void *p)
{
    (void)p;
    disposed++;
}

TEST(processing_and_waiting_inside_are_refused_and_lose_nothing)
{
    disposed = 0;
    pyrt_thread *thread = up_and_reading();
    uint64_t word = thread->slot.word;
    /* Retiring is never quiescent and is allowed. */
    CHECK_OK(pyrt_retire(thread, NULL, 1, count));
    CHECK_OK(pyrt_retire_global(NULL, 1, count));
    CHECK_UINT(pyrt_process_delayed(thread), 0);
    EXPECT_REPORT("pyrt_process_delayed", named(thread), "read-side section");
    CHECK_STATUS(pyrt_qsbr_barrier(thread), PYRT_ESTATE);
    EXPECT_REPORT("pyrt_qsbr_barrier", named(thread), "read-side section");
    CHECK_STATUS(pyrt_qsbr_barrier_timed(NULL, 0), PYRT_ESTATE);
    EXPECT_REPORT("pyrt_qsbr_barrier", named(thread), "read-side section");
    CHECK_STATUS(pyrt_qsbr_synchronize(NULL), PYRT_ESTATE);
    EXPECT_REPORT("pyrt_qsbr_synchronize", named(thread), "read-side section");
    CHECK_STATUS(pyrt_stop_the_world(NULL), PYRT_ESTATE);
    EXPECT_REPORT("pyrt_stop_the_world", named(thread), "read-side section");
    check_still_reading(thread, word);
    CHECK_INT(disposed, 0);
    pyrt_read_end_counted(thread);
    CHECK_OK(pyrt_qsbr_barrier(thread));
    CHECK_INT(disposed, 2);
    pyrt_read_begin_counted(thread);
    down(thread);
}

TEST(deleting_another_state_inside_is_refused)
{
    pyrt_thread *thread = up_and_reading();
    uint64_t word = thread->slot.word;
    pyrt_thread *other = pyrt_thread_new(pyrt_interp_new(NULL));
    pyrt_thread_delete(other);
    EXPECT_REPORT("pyrt_thread_delete", named(thread), "read-side section");
    check_still_reading(thread, word);
    CHECK_PTR(pyrt_thread_find(other->interp), other);
    pyrt_read_end_counted(thread);
    pyrt_thread_delete(other);
    pyrt_read_begin_counted(thread);
    down(thread);
}

TEST(fork_inside_is_refused)
{
    pyrt_thread *thread = up_and_reading();
    uint64_t word = thread->slot.word;
    CHECK_INT(pyrt_fork(), -1);
    EXPECT_REPORT("read-side section");
    check_still_reading(thread, word);
    down(thread);
}
