/* test_lock_debug.c -- watched locks (lock_debug.h): their order, who holds what, sleeping attached, ends, and the switch.
 *
 * --break unordered makes the stress of several stripes take them by hand, in the order in which the keys come (one thread
 * at a time, so that it does not hang): the order of locks must show it.
 */
#define _GNU_SOURCE /* gettid */
#include "support.h"

#include "faults.h"
#include "platform/meta_alloc.h"
#include "steps.h"
#include "workers.h"

#include <pyruntime/critical_section.h>
#include <pyruntime/lock_debug.h>
#include <pyruntime/rwlock.h>
#include <pyruntime/striped_lock.h>

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- a watched test ------------------------------------------------------------------------------------------------- */

static pyrt_mutex a, b, c;

static void
watch(void)
{
    a = b = c = (pyrt_mutex)PYRT_MUTEX_INIT;
    CHECK_OK(pyrt_lock_debug(true));
    CHECK_OK(pyrt_lock_name(&a, "A"));
    CHECK_OK(pyrt_lock_name(&b, "B"));
    CHECK_OK(pyrt_lock_name(&c, "C"));
}

static pyrt_lock_debug_stats
stats(void)
{
    pyrt_lock_debug_stats s = {.struct_size = sizeof(s)};
    CHECK_OK(pyrt_lock_debug_stats_read(&s));
    CHECK_UINT(s.taken, s.released + s.lost + s.held);
    return s;
}

static void
forget_names(void)
{
    pyrt_lock_forget(NULL, SIZE_MAX);
}

static void
unwatch(void)
{
    CHECK_UINT(stats().held, 0);
    CHECK_UINT(pyrt_lock_holds(NULL, 0), 0);
    CHECK_OK(pyrt_lock_debug(false));
    forget_names();
    CHECK_UINT(pyrt_meta_live_bytes(), 0);
    CHECK_UINT(reports_pending(), 0);
}

static void
lock_both(pyrt_mutex *first, pyrt_mutex *second)
{
    pyrt_mutex_lock(first);
    pyrt_mutex_lock(second);
    pyrt_mutex_unlock(second);
    pyrt_mutex_unlock(first);
}

/* ---- the switch ----------------------------------------------------------------------------------------------------- */

TEST(off_it_is_free)
{
    pyrt_mutex mutex = PYRT_MUTEX_INIT;
    pyrt_mutex_lock(&mutex);
    CHECK_UINT(mutex.state, PYRT_MUTEX_LOCKED);
    pyrt_mutex_unlock(&mutex);
    CHECK_UINT(mutex.state, PYRT_MUTEX_UNLOCKED);
    CHECK_UINT(pyrt_meta_live_bytes(), 0);
    CHECK_UINT(stats().on, 0);
    CHECK_UINT(pyrt_lock_holds(NULL, 0), 0);
    CHECK_UINT(pyrt_lock_report(), 0);
    pyrt_lock_hold hold;
    CHECK_STATUS(pyrt_lock_holder(&mutex, &hold), PYRT_ENOTFOUND);
}

TEST(on_and_off)
{
    pyrt_mutex mutex = PYRT_MUTEX_INIT;
    for (int round = 0; round < 3; round++) {
        CHECK_OK(pyrt_lock_debug(true));
        CHECK_OK(pyrt_lock_debug(true));
        CHECK_UINT(stats().on, 1);
        /* Its first use is not seen, but marks it. */
        pyrt_mutex_lock(&mutex);
        CHECK_UINT(stats().taken, 0);
        pyrt_mutex_unlock(&mutex);
        CHECK_UINT(mutex.state, PYRT_MUTEX_WATCHED);
        CHECK(!pyrt_mutex_is_locked(&mutex));
        for (uint64_t i = 1; i < 4; i++) {
            pyrt_mutex_lock(&mutex);
            CHECK_UINT(stats().taken, i);
            CHECK_UINT(stats().held, 1);
            pyrt_mutex_unlock(&mutex);
            CHECK_UINT(stats().released, i);
        }
        CHECK(pyrt_mutex_trylock(&mutex));
        CHECK(!pyrt_mutex_trylock(&mutex));
        CHECK_UINT(stats().held, 1);
        pyrt_mutex_unlock(&mutex);
        CHECK_OK(pyrt_lock_debug(false));
        CHECK_OK(pyrt_lock_debug(false));
        CHECK_UINT(pyrt_meta_live_bytes(), 0);
        pyrt_mutex_lock(&mutex);
        CHECK_UINT(mutex.state, PYRT_MUTEX_LOCKED);
        pyrt_mutex_unlock(&mutex);
        CHECK_UINT(mutex.state, PYRT_MUTEX_UNLOCKED);
    }
}

TEST(switched_while_a_lock_is_held)
{
    watch();
    pyrt_mutex_lock(&a);
    CHECK_OK(pyrt_lock_debug(false));
    CHECK_OK(pyrt_lock_debug(true));
    CHECK_UINT(stats().held, 0);
    pyrt_mutex_unlock(&a);
    CHECK_UINT(stats().released, 0);
    pyrt_mutex_lock(&a);
    CHECK_OK(pyrt_lock_debug(false));
    pyrt_mutex_unlock(&a);
    CHECK_UINT(a.state, PYRT_MUTEX_UNLOCKED);
    unwatch();
}

TEST(unlocking_what_is_not_locked_is_still_misuse)
{
    watch();
    CHECK_UINT(a.state, PYRT_MUTEX_WATCHED);
    pyrt_mutex_unlock(&a);
    EXPECT_REPORT("pyrt_mutex_unlock");
    unwatch();
}

TEST(wrong_arguments)
{
    pyrt_lock_debug_stats s = {.struct_size = 3};
    CHECK_STATUS(pyrt_lock_debug_stats_read(&s), PYRT_EINVAL);
    CHECK_STATUS(pyrt_lock_debug_stats_read(NULL), PYRT_EINVAL);
    CHECK_STATUS(pyrt_lock_name_array(&a, 0, 1, "x"), PYRT_EINVAL);
    CHECK_STATUS(pyrt_lock_name_array(&a, 1, 0, "x"), PYRT_EINVAL);
    CHECK_STATUS(pyrt_lock_name_array(&a, SIZE_MAX, 2, "x"), PYRT_EINVAL);
}

/* ---- order ---------------------------------------------------------------------------------------------------------- */

TEST(two_orders_of_two_locks_are_a_cycle)
{
    watch();
    lock_both(&a, &b);
    CHECK_UINT(reports_pending(), 0);
    lock_both(&b, &a);
    EXPECT_REPORT("lock order cycle: 'A' -> 'B' -> 'A'", "holds 'B' and asks for 'A'", "held 'A' and asked for 'B'");
    /* Once. */
    lock_both(&b, &a);
    lock_both(&a, &b);
    CHECK_UINT(stats().cycles, 1);
    CHECK_UINT(stats().orders, 2);
    unwatch();
}

TEST(the_order_of_three_locks)
{
    watch();
    lock_both(&a, &b);
    lock_both(&b, &c);
    lock_both(&a, &c);
    CHECK_UINT(reports_pending(), 0);
    lock_both(&c, &a);
    /* The shortest: A and C were taken one after the other as well. */
    EXPECT_REPORT("'A' -> 'C' -> 'A'");
    unwatch();
    watch();
    lock_both(&a, &b);
    lock_both(&b, &c);
    lock_both(&c, &a);
    EXPECT_REPORT("lock order cycle: 'A' -> 'B' -> 'C' -> 'A'", "holds 'C' and asks for 'A'", "held 'A' and asked for 'B'",
                  "held 'B' and asked for 'C'");
    unwatch();
}

/* While an outer lock keeps both threads from a deadlock, the order of the inner ones is wrong all the same. */
static void
take_b_then_a(void *unused)
{
    (void)unused;
    lock_both(&b, &a);
}

TEST(orders_of_different_threads)
{
    watch();
    worker other;
    worker_start(&other);
    lock_both(&a, &b);
    worker_do(&other, take_b_then_a, NULL);
    EXPECT_REPORT("'A' -> 'B' -> 'A'");
    worker_end(&other);
    unwatch();
}

TEST(a_timed_lock_is_in_the_order)
{
    watch();
    lock_both(&a, &b);
    pyrt_mutex_lock(&b);
    CHECK_OK(pyrt_mutex_lock_timed(&a, 1000000000, PYRT_LOCK_DETACH));
    EXPECT_REPORT("'A' -> 'B' -> 'A'");
    pyrt_mutex_unlock(&a);
    pyrt_mutex_unlock(&b);
    unwatch();
}

TEST(a_trylock_waits_for_nothing)
{
    watch();
    lock_both(&a, &b);
    pyrt_mutex_lock(&b);
    CHECK(pyrt_mutex_trylock(&a));
    pyrt_mutex_unlock(&a);
    CHECK_OK(pyrt_mutex_lock_timed(&a, 0, PYRT_LOCK_DETACH));
    pyrt_mutex_unlock(&a);
    pyrt_mutex_unlock(&b);
    CHECK_UINT(stats().orders, 1);
    CHECK_UINT(reports_pending(), 0);
    /* But what is asked for under it comes after it. */
    CHECK(pyrt_mutex_trylock(&b));
    pyrt_mutex_lock(&a);
    EXPECT_REPORT("'A' -> 'B' -> 'A'");
    pyrt_mutex_unlock(&a);
    pyrt_mutex_unlock(&b);
    unwatch();
}

TEST(asking_for_what_it_holds)
{
    watch();
    pyrt_mutex_lock(&a);
    CHECK_STATUS(pyrt_mutex_lock_timed(&a, 1000, PYRT_LOCK_DETACH), PYRT_ETIMEDOUT);
    EXPECT_REPORT("holds 'A' and asks for it again");
    pyrt_mutex_unlock(&a);
    unwatch();
}

TEST(a_new_lock_at_an_old_address_is_a_new_lock)
{
    watch();
    lock_both(&a, &b);
    a = (pyrt_mutex)PYRT_MUTEX_INIT;
    lock_both(&a, &b); /* its first use, not seen */
    lock_both(&b, &a);
    CHECK_UINT(reports_pending(), 0);
    pyrt_lock_forget(&a, sizeof(a));
    lock_both(&a, &b);
    CHECK_UINT(reports_pending(), 0);
    lock_both(&b, &a);
    EXPECT_REPORT("-> 'B' ->");
    unwatch();
    /* One that was held when its memory was used anew is held no more. */
    watch();
    pyrt_mutex_lock(&a);
    CHECK_UINT(stats().held, 1);
    pyrt_mutex_at_fork_reinit(&a);
    lock_both(&b, &a);
    CHECK_UINT(stats().lost, 1);
    CHECK_UINT(stats().held, 0);
    unwatch();
}

TEST(classes_have_an_order)
{
    pyrt_mutex accounts[3] = {PYRT_MUTEX_INIT};
    watch();
    for (int i = 0; i < 3; i++) {
        CHECK_OK(pyrt_lock_name_class(&accounts[i], "account"));
    }
    lock_both(&accounts[0], &a);
    lock_both(&a, &accounts[1]);
    EXPECT_REPORT("lock order cycle: 'account' -> 'A' -> 'account'");
    /* Among themselves each is one of its own. */
    lock_both(&accounts[0], &accounts[1]);
    lock_both(&accounts[1], &accounts[2]);
    lock_both(&accounts[0], &accounts[2]);
    CHECK_UINT(reports_pending(), 0);
    lock_both(&accounts[1], &accounts[0]);
    EXPECT_REPORT("'account@0x", "-> 'account@0x");
    unwatch();
}

TEST(writers_of_a_read_write_lock_are_in_the_order)
{
    watch();
    pyrt_rwlock lock = PYRT_RWLOCK_INIT;
    for (int i = 0; i < 2; i++) {
        CHECK_OK(pyrt_rwlock_write_lock(&lock));
        CHECK_UINT(stats().held, 1);
        pyrt_mutex_lock(&a);
        pyrt_mutex_unlock(&a);
        pyrt_rwlock_write_unlock(&lock);
    }
    pyrt_mutex_lock(&a);
    CHECK_OK(pyrt_rwlock_write_lock(&lock));
    EXPECT_REPORT("lock order cycle: ", "holds 'A' and asks for '0x");
    pyrt_rwlock_write_unlock(&lock);
    pyrt_mutex_unlock(&a);
    unwatch();
}

static void
section_of_a_around_b(void)
{
    pyrt_critical_section section;
    pyrt_critical_section_begin(&section, &a);
    CHECK(pyrt_critical_section_holds(&a));
    pyrt_mutex_lock(&b);
    pyrt_mutex_unlock(&b);
    pyrt_critical_section_end(&section);
}

static void
section_of_a_inside_of_b(void)
{
    pyrt_critical_section section;
    pyrt_mutex_lock(&b);
    pyrt_critical_section_begin(&section, &a);
    pyrt_critical_section_end(&section);
    pyrt_mutex_unlock(&b);
}

TEST(nothing_comes_behind_a_critical_section)
{
    runtime_up();
    watch();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    section_of_a_around_b();
    section_of_a_inside_of_b();
    section_of_a_around_b();
    CHECK_UINT(stats().orders, 1);
    pyrt_critical_section2 both;
    pyrt_critical_section2_begin(&both, &b, &a);
    pyrt_critical_section inner;
    pyrt_critical_section_begin(&inner, &c);
    pyrt_critical_section_end(&inner);
    CHECK_UINT(stats().held, 2);
    pyrt_critical_section2_end(&both);
    CHECK_UINT(stats().orders, 1);
    pyrt_thread_release(thread);
    CHECK_UINT(reports_pending(), 0);
    /* Without an attached state it is a plain lock. */
    section_of_a_inside_of_b();
    pyrt_critical_section section;
    pyrt_critical_section_begin(&section, &a);
    pyrt_mutex_lock(&b);
    EXPECT_REPORT("lock order cycle: 'B' -> 'A' -> 'B'");
    pyrt_mutex_unlock(&b);
    pyrt_critical_section_end(&section);
    CHECK_OK(pyrt_lock_debug(false));
    forget_names();
    runtime_down();
}

TEST(stripes_are_taken_in_order)
{
    bool unordered = test_sabotage() != NULL && strcmp(test_sabotage(), "unordered") == 0;
    CHECK_OK(pyrt_lock_debug(true));
    pyrt_striped_lock lock;
    CHECK_OK(pyrt_striped_lock_init(&lock, 16));
    CHECK_OK(pyrt_striped_lock_name(&lock, "stripes"));
    random_stream choices = random_for(3);
    for (int i = 0; i < 500; i++) {
        uint64_t hashes[3] = {random_next(&choices), random_next(&choices), random_next(&choices)};
        if (!unordered) {
            CHECK_OK(pyrt_striped_lock_hashes(&lock, hashes, 3));
            pyrt_striped_unlock_hashes(&lock, hashes, 3);
            continue;
        }
        pyrt_mutex *first = pyrt_striped_lock_for_hash(&lock, hashes[0]);
        pyrt_mutex *second = pyrt_striped_lock_for_hash(&lock, hashes[1]);
        if (first != second) {
            lock_both(first, second);
        }
    }
    CHECK_OK(pyrt_striped_lock_all(&lock));
    CHECK_UINT(stats().held, 16);
    pyrt_striped_unlock_all(&lock);
    if (reports_pending() != 0) {
        EXPECT_REPORT("lock order cycle: 'stripes[", " -> 'stripes[");
        FAIL("stripes were taken in two orders");
    }
    CHECK_UINT(stats().orders, 16 * 15 / 2);
    pyrt_striped_lock_fini(&lock);
    /* Its names are gone with it. */
    CHECK_OK(pyrt_lock_debug(false));
    CHECK_UINT(pyrt_meta_live_bytes(), 0);
}

/* ---- names ---------------------------------------------------------------------------------------------------------- */

static const char *
name_of(pyrt_mutex *mutex)
{
    static pyrt_lock_hold hold;
    pyrt_mutex_lock(mutex);
    CHECK_OK(pyrt_lock_holder(mutex, &hold));
    CHECK_PTR(hold.lock, mutex);
    CHECK_INT(hold.os_tid, gettid());
    CHECK_STATUS(pyrt_lock_holder(mutex, NULL), PYRT_EINVAL);
    CHECK_UINT(pyrt_lock_holds(NULL, 1), 1);
    pyrt_mutex_unlock(mutex);
    CHECK_STATUS(pyrt_lock_holder(mutex, &hold), PYRT_ENOTFOUND);
    return hold.name;
}

TEST(names_are_copied_cut_and_replaced)
{
    char name[100];
    char address[PYRT_LOCK_NAME];
    memset(name, 'x', sizeof(name));
    name[99] = '\0';
    watch();
    CHECK_OK(pyrt_lock_name(&a, name));
    memset(name, 'y', sizeof(name));
    CHECK_UINT(strlen(name_of(&a)), PYRT_LOCK_NAME - 1);
    CHECK_STR(name_of(&a), "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
    CHECK_OK(pyrt_lock_name(&a, "second"));
    CHECK_STR(name_of(&a), "second");
    CHECK_OK(pyrt_lock_name(&a, NULL));
    snprintf(address, sizeof(address), "%p", (void *)&a);
    CHECK_STR(name_of(&a), address);
    CHECK_STR(name_of(&b), "B");
    unwatch();
}

TEST(names_are_kept_while_it_is_off)
{
    CHECK_OK(pyrt_lock_name(&a, "A"));
    CHECK_OK(pyrt_lock_debug(true));
    pyrt_mutex_lock(&a);
    pyrt_mutex_unlock(&a);
    CHECK_STR(name_of(&a), "A");
    CHECK_OK(pyrt_lock_debug(false));
    CHECK(pyrt_meta_live_bytes() > 0);
    CHECK_OK(pyrt_lock_name(&a, NULL));
    CHECK_UINT(pyrt_meta_live_bytes(), 0);
}

TEST(the_name_that_was_given_first_goes_first)
{
    static pyrt_mutex many[PYRT_LOCK_DEBUG_NAMES + 1];
    CHECK_OK(pyrt_lock_debug(true));
    for (int i = 0; i <= PYRT_LOCK_DEBUG_NAMES; i++) {
        char name[32];
        snprintf(name, sizeof(name), "lock %d", i);
        CHECK_OK(pyrt_lock_name(&many[i], name));
    }
    CHECK(strncmp(name_of(&many[0]), "0x", 2) == 0);
    CHECK_STR(name_of(&many[1]), "lock 1");
    CHECK_STR(name_of(&many[PYRT_LOCK_DEBUG_NAMES]), "lock 1024");
    unwatch();
}

/* ---- who holds what ------------------------------------------------------------------------------------------------- */

static void
lock_a(void *unused)
{
    (void)unused;
    pyrt_mutex_lock(&a);
}

static void
unlock_a(void *unused)
{
    (void)unused;
    pyrt_mutex_unlock(&a);
}

static void
lock_and_unlock_a(void *unused)
{
    lock_a(unused);
    unlock_a(unused);
}

TEST(holds_and_waits_are_listed)
{
    watch();
    worker other;
    worker_start(&other);
    pyrt_mutex_lock(&a);
    pyrt_mutex_lock(&b);
    worker_begin(&other, lock_and_unlock_a, NULL);
    WAIT_UNTIL(pyrt_lock_holds(NULL, 0) == 3);
    pyrt_lock_hold holds[3];
    CHECK_UINT(pyrt_lock_holds(holds, 3), 3);
    CHECK_STR(holds[0].name, "A");
    CHECK_STR(holds[1].name, "B");
    CHECK_STR(holds[2].name, "A");
    CHECK_INT(holds[0].waits, 0);
    CHECK_INT(holds[2].waits, 1);
    CHECK_INT(holds[2].attached, 0);
    CHECK_INT(holds[0].os_tid, gettid());
    CHECK(holds[2].os_tid != gettid());
    CHECK(holds[0].since_ns >= holds[1].since_ns && holds[1].since_ns >= 0);
    CHECK_UINT(pyrt_lock_report(), 3);
    EXPECT_REPORT("has held 'A' for", " ms");
    EXPECT_REPORT("has held 'B' for");
    EXPECT_REPORT("has waited for 'A' for");
    pyrt_mutex_unlock(&b);
    pyrt_mutex_unlock(&a);
    worker_finish(&other);
    worker_end(&other);
    pyrt_lock_debug_stats s = stats();
    CHECK_STR(s.longest_name, "A");
    CHECK_INT(s.longest_tid, gettid());
    CHECK(s.longest_ns > 0);
    CHECK_UINT(pyrt_lock_report(), 1);
    EXPECT_REPORT("longest hold", "held 'A' for");
    unwatch();
}

TEST(a_lock_that_another_thread_unlocks)
{
    watch();
    worker other;
    worker_start(&other);
    pyrt_mutex_lock(&a);
    pyrt_mutex_lock(&b);
    worker_do(&other, unlock_a, NULL);
    CHECK_UINT(stats().released, 1);
    CHECK_UINT(stats().held, 1);
    pyrt_mutex_unlock(&b);
    worker_end(&other);
    unwatch();
}

static void
lock_a_and_b(void *unused)
{
    (void)unused;
    pyrt_mutex_lock(&a);
    pyrt_mutex_lock(&b);
}

TEST(a_thread_that_ends_with_locks)
{
    watch();
    worker other;
    worker_start(&other);
    worker_do(&other, lock_a_and_b, NULL);
    CHECK_UINT(stats().held, 2);
    worker_end(&other);
    EXPECT_REPORT("ended while it held 'B'");
    EXPECT_REPORT("ended while it held 'A'");
    CHECK_UINT(stats().lost, 2);
    pyrt_mutex_unlock(&a);
    pyrt_mutex_unlock(&b);
    unwatch();
}

/* ---- sleeping attached ---------------------------------------------------------------------------------------------- */

static void
lock_a_attached(void *unused)
{
    (void)unused;
    CHECK_OK(pyrt_mutex_lock_timed(&a, -1, PYRT_LOCK_NO_DETACH));
    pyrt_mutex_unlock(&a);
}

TEST(a_sleep_while_attached_is_reported)
{
    runtime_up();
    watch();
    pyrt_lock_debug_set_bound(0);
    worker other;
    pyrt_thread *thread;
    worker_start(&other);
    worker_do(&other, attach_new, &thread);
    for (int round = 0; round < 2; round++) {
        pyrt_mutex_lock(&a);
        worker_begin(&other, lock_a_attached, NULL);
        WAIT_UNTIL(pyrt_lock_holds(NULL, 0) == 2);
        pyrt_lock_hold holds[2];
        CHECK_UINT(pyrt_lock_holds(holds, 2), 2);
        CHECK_INT(holds[1].attached, 1);
        pyrt_mutex_unlock(&a);
        worker_finish(&other);
        if (round == 0) {
            EXPECT_REPORT("sleeps attached on 'A' (held by thread '");
        }
        EXPECT_REPORT("slept attached on 'A' for", "the bound is 0.000 ms");
    }
    /* Detached nobody minds. */
    pyrt_mutex_lock(&a);
    worker_begin(&other, lock_and_unlock_a, NULL);
    WAIT_UNTIL(pyrt_lock_holds(NULL, 0) == 2);
    pyrt_mutex_unlock(&a);
    worker_finish(&other);
    CHECK_UINT(stats().attached_sleeps, 2);
    worker_do(&other, delete_attached, thread);
    worker_end(&other);
    pyrt_lock_debug_set_bound(10000000);
    CHECK_OK(pyrt_lock_debug(false));
    forget_names();
    runtime_down();
}

/* ---- in a pause ------------------------------------------------------------------------------------------------------ */

static bool may_unlock;

static void
hold_a_and_pass_safepoints(void *thread)
{
    pyrt_mutex_lock(&a);
    while (!pyrt_load_seq_cst(&may_unlock)) {
        pass_safepoint(thread);
    }
    pyrt_mutex_unlock(&a);
}

static void
unlock_what_is_waited_for(void *mutex)
{
    WAIT_UNTIL(pyrt_parked_count(mutex) == 1);
    pyrt_mutex_unlock(mutex);
}

TEST(who_has_stopped_the_holder_does_not_wait_for_it)
{
    runtime_up();
    watch();
    worker other;
    pyrt_thread *thread;
    worker_start(&other);
    worker_do(&other, attach_new, &thread);
    may_unlock = false;
    worker_begin(&other, hold_a_and_pass_safepoints, thread);
    WAIT_UNTIL(stats().held == 1);
    CHECK_OK(pyrt_stop_the_world(NULL));
    CHECK_STATUS(pyrt_mutex_lock_timed(&a, 0, PYRT_LOCK_DETACH), PYRT_ETIMEDOUT);
    CHECK_STATUS(pyrt_mutex_lock_timed(&a, -1, PYRT_LOCK_DETACH), PYRT_EDEADLK);
    EXPECT_REPORT("'A' is held by thread '", "which this pause has stopped");
    /* What nobody stopped holds is waited for, and told once, however often it looks who holds it. */
    pyrt_mutex_lock(&c);
    CHECK_STATUS(pyrt_mutex_lock_timed(&c, 3 * (int64_t)PYRT_MUTEX_RESERVED_NS, PYRT_LOCK_DETACH), PYRT_ETIMEDOUT);
    EXPECT_REPORT("holds 'C' and asks for it again");
    CHECK_UINT(reports_pending(), 0);
    pyrt_mutex_unlock(&c);
    /* The form that cannot answer tells it, once, and waits: here for one that unlocks what another holds. */
    worker helper;
    worker_start(&helper);
    worker_begin(&helper, unlock_what_is_waited_for, &a);
    pyrt_mutex_lock(&a);
    EXPECT_REPORT("pyrt_mutex_lock: 'A' is held by thread '", "which this pause has stopped");
    worker_finish(&helper);
    worker_end(&helper);
    pyrt_start_the_world(NULL);
    pyrt_store_release(&may_unlock, true);
    worker_finish(&other);
    CHECK_OK(pyrt_mutex_lock_timed(&a, -1, PYRT_LOCK_DETACH));
    pyrt_mutex_unlock(&a);
    worker_do(&other, delete_attached, thread);
    worker_end(&other);
    CHECK_OK(pyrt_lock_debug(false));
    forget_names();
    runtime_down();
}

/* ---- the hook ------------------------------------------------------------------------------------------------------- */

static int heard;

static void
hook_that_locks(const char *message, void *unused)
{
    (void)message;
    (void)unused;
    heard++;
    lock_both(&c, &a);
    lock_both(&a, &c);
}

static void
report_elsewhere(void (*hook)(const char *, void *))
{
    pyrt_set_report_hook(hook, NULL);
}

TEST(the_hook_may_lock)
{
    pid_t child = fork();
    if (child == 0) {
        /* In a process of its own, because the hook is the runner's. */
        report_elsewhere(hook_that_locks);
        watch();
        lock_both(&a, &b);
        lock_both(&b, &a);
        CHECK_INT(heard, 1);
        CHECK_UINT(stats().held, 0);
        _exit(0);
    }
    int status;
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
}

/* ---- fork ----------------------------------------------------------------------------------------------------------- */

TEST(the_child_knows_what_it_holds)
{
    watch();
    worker other;
    worker_start(&other);
    worker_do(&other, lock_a, NULL);
    pyrt_mutex_lock(&b);
    pid_t child = fork();
    if (child == 0) {
        pyrt_lock_hold hold;
        CHECK_UINT(stats().held, 1);
        CHECK_UINT(stats().lost, 1);
        CHECK_UINT(pyrt_lock_holds(&hold, 1), 1);
        CHECK_STR(hold.name, "B");
        CHECK_INT(hold.os_tid, gettid());
        pyrt_mutex_unlock(&b);
        pyrt_mutex_at_fork_reinit(&a);
        lock_both(&a, &b);
        lock_both(&a, &b);
        CHECK_OK(pyrt_lock_debug(false));
        CHECK_OK(pyrt_lock_debug(true));
        _exit(reports_pending() == 0 ? 0 : 3);
    }
    int status;
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
    pyrt_mutex_unlock(&b);
    worker_do(&other, unlock_a, NULL);
    worker_end(&other);
    unwatch();
}

/* ---- bounds --------------------------------------------------------------------------------------------------------- */

static pyrt_mutex crowd_of_locks[PYRT_LOCK_DEBUG_LOCKS + 1000];

static void
lock_and_unlock_twice(pyrt_mutex *mutex)
{
    for (int i = 0; i < 2; i++) {
        pyrt_mutex_lock(mutex);
        pyrt_mutex_unlock(mutex);
    }
}

TEST(more_locks_than_there_is_room_for)
{
    watch();
    lock_both(&a, &b);
    pyrt_mutex_lock(&c);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < PYRT_LOCK_DEBUG_LOCKS + 1000; i++) {
            lock_and_unlock_twice(&crowd_of_locks[i]);
        }
        /* In use, and so not forgotten. */
        CHECK_UINT(stats().held, 1);
    }
    EXPECT_REPORT("more than 4095 locks");
    CHECK(stats().forgotten > 1000);
    pyrt_mutex_unlock(&c);
    CHECK_UINT(reports_pending(), 0);
    /* What is known is still right. */
    lock_both(&a, &b);
    lock_both(&b, &a);
    EXPECT_REPORT("'A' -> 'B' -> 'A'");
    unwatch();
}

TEST(more_pairs_than_there_is_room_for)
{
    enum { LOCKS = 200 }; /* 19900 pairs */
    watch();
    for (int i = 0; i < LOCKS; i++) {
        lock_and_unlock_twice(&crowd_of_locks[i]);
    }
    for (int i = 0; i < LOCKS; i++) {
        pyrt_mutex_lock(&crowd_of_locks[i]);
    }
    for (int i = LOCKS; i-- > 0;) {
        pyrt_mutex_unlock(&crowd_of_locks[i]);
    }
    EXPECT_REPORT("more than 16383 pairs of locks");
    CHECK_UINT(stats().forgotten, LOCKS * (LOCKS - 1) / 2 - (PYRT_LOCK_DEBUG_ORDERS - 1));
    CHECK_UINT(stats().cycles, 0);
    unwatch();
}

TEST(more_holds_than_there_is_room_for)
{
    enum { LOCKS = PYRT_LOCK_DEBUG_HOLDS + 500 };
    watch();
    for (int i = 0; i < LOCKS; i++) {
        lock_and_unlock_twice(&crowd_of_locks[i]);
    }
    EXPECT_REPORT("more than 4095 locks");
    for (int i = 0; i < LOCKS; i++) {
        CHECK(pyrt_mutex_trylock(&crowd_of_locks[i]));
    }
    CHECK_UINT(stats().held, PYRT_LOCK_DEBUG_HOLDS - 1);
    for (int i = 0; i < LOCKS; i++) {
        pyrt_mutex_unlock(&crowd_of_locks[i]);
    }
    unwatch();
}

/* ---- out of memory -------------------------------------------------------------------------------------------------- */

static void
nothing(void)
{
}

static bool
switch_on(void)
{
    pyrt_status status = pyrt_lock_debug(true);
    if (status != PYRT_OK) {
        CHECK_STATUS(status, PYRT_ENOMEM);
        CHECK_UINT(stats().on, 0);
        lock_both(&a, &b);
    }
    return status == PYRT_OK;
}

static bool
name_a(void)
{
    pyrt_status status = pyrt_lock_name(&a, "A");
    if (status != PYRT_OK) {
        CHECK_STATUS(status, PYRT_ENOMEM);
    }
    return status == PYRT_OK;
}

static void
all_off(bool succeeded)
{
    (void)succeeded;
    CHECK_OK(pyrt_lock_debug(false));
    forget_names();
}

TEST(out_of_memory_is_an_answer)
{
    static const fault_plan on = {nothing, switch_on, all_off};
    static const fault_plan name = {nothing, name_a, all_off};
    CHECK_INT(fault_everywhere(&on, FAULT_ONCE), 1);
    CHECK_INT(fault_everywhere(&name, FAULT_ONCE), 1);
}

/* ---- under load ----------------------------------------------------------------------------------------------------- */

enum { LOAD_LOCKS = 7, LOAD_THREADS = 4, LOAD_ROUNDS = 3000 };

static struct {
    pyrt_mutex locks[LOAD_LOCKS];
    int64_t counts[LOAD_LOCKS]; /* each under its lock */
    uint64_t taken[LOAD_THREADS + 1];
    int running;
} load;

/* In order, so that nothing is to be reported. */
static void
work(int number)
{
    random_stream choices = random_for((uint64_t)number);
    for (unsigned i = 0; i < LOAD_ROUNDS * test_scale(); i++) {
        uint32_t first = random_below(&choices, LOAD_LOCKS);
        uint32_t second = random_below(&choices, LOAD_LOCKS);
        pyrt_mutex *outer = &load.locks[first < second ? first : second];
        pyrt_mutex *inner = &load.locks[first < second ? second : first];
        if (random_below(&choices, 8) == 0) {
            if (pyrt_mutex_lock_timed(outer, random_below(&choices, 20000), PYRT_LOCK_DETACH) != PYRT_OK) {
                continue;
            }
        }
        else {
            pyrt_mutex_lock(outer);
        }
        load.taken[number]++;
        load.counts[outer - load.locks]++;
        if (outer != inner &&
            (random_below(&choices, 2) == 0 ? (pyrt_mutex_lock(inner), true) : pyrt_mutex_trylock(inner))) {
            load.taken[number]++;
            load.counts[inner - load.locks]++;
            if (random_below(&choices, 16) == 0) {
                sched_yield();
            }
            pyrt_mutex_unlock(inner);
        }
        pyrt_mutex_unlock(outer);
    }
}

static void
work_or_switch(void *switches, int number)
{
    if (number < LOAD_THREADS) {
        work(number);
        pyrt_fetch_add_seq_cst(&load.running, -1);
        return;
    }
    bool on = true;
    while (*(bool *)switches && pyrt_load_seq_cst(&load.running) != 0) {
        on = !on;
        CHECK_OK(pyrt_lock_debug(on));
        (void)pyrt_lock_holds(NULL, 0);
        (void)pyrt_lock_name(&load.locks[0], on ? "first" : NULL);
        sched_yield();
    }
    CHECK_OK(pyrt_lock_debug(true));
}

static uint64_t
run_load(bool switches)
{
    uint64_t taken = 0;
    int64_t counted = 0;
    memset(&load, 0, sizeof(load));
    load.running = LOAD_THREADS;
    CHECK_OK(pyrt_lock_debug(true));
    CHECK_OK(pyrt_lock_name_array(load.locks, LOAD_LOCKS, sizeof(pyrt_mutex), "load"));
    run_crowd(LOAD_THREADS + 1, work_or_switch, &switches);
    for (int i = 0; i < LOAD_LOCKS; i++) {
        counted += load.counts[i];
        CHECK(!pyrt_mutex_is_locked(&load.locks[i]));
    }
    for (int i = 0; i <= LOAD_THREADS; i++) {
        taken += load.taken[i];
    }
    CHECK_INT(counted, taken);
    return taken;
}

TEST(every_lock_under_load_is_counted)
{
    uint64_t taken = run_load(false);
    CHECK_UINT(stats().taken, taken);
    CHECK_UINT(stats().released, taken);
    CHECK_UINT(stats().lost, 0);
    CHECK_UINT(stats().orders, LOAD_LOCKS * (LOAD_LOCKS - 1) / 2);
    unwatch();
}

TEST(switched_on_and_off_under_load)
{
    uint64_t taken = run_load(true);
    CHECK(stats().taken <= taken);
    unwatch();
    for (int i = 0; i < LOAD_LOCKS; i++) {
        pyrt_mutex_lock(&load.locks[i]);
        pyrt_mutex_unlock(&load.locks[i]);
        CHECK_UINT(load.locks[i].state, PYRT_MUTEX_UNLOCKED);
    }
}
