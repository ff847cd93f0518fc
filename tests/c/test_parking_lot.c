/* test_parking_lot.c -- queues keyed on an address: who is woken, in which order, with which token; leaving; requeueing. */
#include "steps.h"
#include "support.h"
#include "workers.h"

#include <signal.h>
#include <string.h>

enum { MANY = 5 };

/* One parked thread and what came of it. */
typedef struct parked {
    worker worker;
    const void *address;
    bool (*validate)(void *);
    bool (*before_sleep)(void *);
    int64_t timeout_ns;
    unsigned flags;
    int asked;          /* calls of before_sleep */
    pyrt_status status;
    uintptr_t token;
} parked;

static char here, there;

static void
park(void *arg)
{
    parked *self = arg;
    self->status =
        pyrt_park(self->address, self->validate, self->before_sleep, self, self->timeout_ns, self->flags, &self->token);
}

static bool
count_asked(void *arg)
{
    parked *self = arg;
    (void)pyrt_fetch_add_seq_cst(&self->asked, 1);
    return true;
}

static bool
refuse(void *arg)
{
    (void)arg;
    return false;
}

/* Returns when it is queued. */
static void
begin_parking(parked *self, const void *address)
{
    size_t before = pyrt_parked_count(address);
    *self = (parked){.address = address, .before_sleep = count_asked, .timeout_ns = -1, .flags = self->flags};
    worker_start(&self->worker);
    worker_begin(&self->worker, park, self);
    WAIT_UNTIL(pyrt_parked_count(address) == before + 1);
}

static void
begin_many(parked *all, int count, const void *address)
{
    memset(all, 0, (size_t)count * sizeof(*all));
    for (int i = 0; i < count; i++) {
        begin_parking(&all[i], address);
    }
}

/* It has been woken, with this token. */
static void
check_woken(parked *self, uintptr_t token)
{
    worker_finish(&self->worker);
    CHECK_OK(self->status);
    CHECK_UINT(self->token, token);
    worker_end(&self->worker);
}

static void
check_parked(parked *self)
{
    CHECK(worker_is_busy(&self->worker));
}

/* ---- not parking at all -------------------------------------------------------------------------------------------- */

TEST(validate_says_that_there_is_no_need)
{
    CHECK_STATUS(pyrt_park(&here, refuse, NULL, NULL, -1, 0, NULL), PYRT_EBUSY);
    CHECK_UINT(pyrt_parked_near(&here), 0);
}

static bool
leave_queue(void *arg)
{
    *(size_t *)arg = pyrt_parked_count(&here);
    CHECK_UINT(pyrt_parked_near(&here) & ~PYRT_PARKED_ALWAYS, 1);
    return false;
}

TEST(before_sleep_says_so_when_it_is_queued)
{
    size_t count = 0;
    CHECK_STATUS(pyrt_park(&here, NULL, leave_queue, &count, -1, 0, NULL), PYRT_EBUSY);
    CHECK_UINT(count, 1);
    CHECK_UINT(pyrt_parked_count(&here), 0);
    CHECK_UINT(pyrt_parked_near(&here) & ~PYRT_PARKED_ALWAYS, 0);
}

TEST(without_time_it_does_not_sleep)
{
    parked self = {.timeout_ns = 0};
    watch_sleepers();
    CHECK_STATUS(pyrt_park(&here, NULL, NULL, &self, 0, 0, NULL), PYRT_ETIMEDOUT);
    CHECK_INT(sleeps_begun(), 0);
    stop_watching_sleepers();
    CHECK_STATUS(pyrt_park(&here, refuse, NULL, &self, 0, 0, NULL), PYRT_EBUSY);
}

TEST(unknown_flags_are_refused)
{
    CHECK_STATUS(pyrt_park(&here, refuse, NULL, NULL, 0, 8, NULL), PYRT_EINVAL);
}

TEST(a_short_time_ends)
{
    uintptr_t token = 7;
    CHECK_STATUS(pyrt_park(&here, NULL, NULL, NULL, 1, 0, &token), PYRT_ETIMEDOUT);
    CHECK_STATUS(pyrt_park(&here, NULL, NULL, NULL, 200000, 0, &token), PYRT_ETIMEDOUT);
    CHECK_UINT(token, 7);
    CHECK_UINT(pyrt_parked_count(&here), 0);
    CHECK_UINT(pyrt_parked_near(&here) & ~PYRT_PARKED_ALWAYS, 0);
}

/* ---- chosen and leaving at the same time ----------------------------------------------------------------------------- */

static uintptr_t
token_42(const pyrt_unparked *unparked, void *arg)
{
    *(pyrt_unparked *)arg = *unparked;
    return 42;
}

static bool
unpark_myself(void *arg)
{
    pyrt_unparked unparked;
    CHECK(pyrt_unpark_one(&here, token_42, &unparked));
    CHECK_PTR(unparked.waiter, arg);
    return false;
}

TEST(who_was_chosen_is_unparked_though_it_wants_to_leave)
{
    uintptr_t token = 0;
    watch_sleepers();
    CHECK_OK(pyrt_park(&here, NULL, unpark_myself, &token, -1, 0, &token));
    CHECK_UINT(token, 42);
    CHECK_INT(sleeps_begun(), 0);
    stop_watching_sleepers();
}

/* Uses up the time first. */
static bool
unpark_myself_too_late(void *arg)
{
    int64_t *time = arg;
    CHECK_STATUS(pyrt_park(&there, NULL, NULL, NULL, *time, 0, NULL), PYRT_ETIMEDOUT);
    *time = 0;
    pyrt_unparked unparked;
    CHECK(pyrt_unpark_one(&here, token_42, &unparked));
    return true;
}

TEST(who_was_chosen_is_unparked_though_its_time_is_over)
{
    int64_t time = 100000;
    uintptr_t token = 0;
    pyrt_status status;
    /* It may be over before the thread is queued. */
    do {
        status = pyrt_park(&here, NULL, unpark_myself_too_late, &time, time, 0, &token);
    } while (time != 0);
    CHECK_OK(status);
    CHECK_UINT(token, 42);
}

/* ---- unparking ----------------------------------------------------------------------------------------------------- */

TEST(the_first_is_woken_with_the_token)
{
    parked all[MANY];
    begin_many(all, MANY, &here);
    CHECK_UINT(pyrt_parked_near(&here) & ~PYRT_PARKED_ALWAYS, MANY);
    for (int i = 0; i < MANY; i++) {
        pyrt_unparked unparked;
        CHECK(pyrt_unpark_one(&here, token_42, &unparked));
        CHECK(unparked.found);
        CHECK(unparked.more == (i + 1 < MANY));
        CHECK_PTR(unparked.waiter, &all[i]);
        CHECK(unparked.since > 0);
        check_woken(&all[i], 42);
        CHECK_INT(all[i].asked, 1);
    }
    CHECK_UINT(pyrt_parked_near(&here) & ~PYRT_PARKED_ALWAYS, 0);
}

TEST(the_callback_is_called_in_any_case)
{
    pyrt_unparked unparked = {.found = true, .more = true};
    CHECK(!pyrt_unpark_one(&here, token_42, &unparked));
    CHECK(!unparked.found);
    CHECK(!unparked.more);
    CHECK_PTR(unparked.waiter, NULL);
    CHECK(!pyrt_unpark_one(&here, NULL, NULL));
}

TEST(without_a_callback_the_token_is_0)
{
    parked one;
    begin_many(&one, 1, &here);
    CHECK(pyrt_unpark_one(&here, NULL, NULL));
    check_woken(&one, 0);
}

TEST(all_are_woken_with_one_token)
{
    parked all[MANY];
    begin_many(all, MANY, &here);
    CHECK_UINT(pyrt_unpark_all(&here, 9), MANY);
    for (int i = 0; i < MANY; i++) {
        check_woken(&all[i], 9);
    }
    CHECK_UINT(pyrt_unpark_all(&here, 9), 0);
}

/* An address in the same bucket as another. */
static const void *
neighbour_of(const void *address)
{
    const char *other = address;
    do {
        other++;
    } while (pyrt_parking_index(other) != pyrt_parking_index(address));
    return other;
}

TEST(other_addresses_of_the_bucket_are_left_alone)
{
    const void *other = neighbour_of(&here);
    parked one, two;
    begin_many(&one, 1, &here);
    begin_many(&two, 1, other);
    CHECK_UINT(pyrt_parked_near(&here) & ~PYRT_PARKED_ALWAYS, 2);
    CHECK_UINT(pyrt_parked_count(&here), 1);
    pyrt_unparked unparked;
    CHECK(pyrt_unpark_one(other, token_42, &unparked));
    CHECK(!unparked.more);
    check_woken(&two, 42);
    CHECK(!pyrt_unpark_one(other, NULL, NULL));
    CHECK_UINT(pyrt_unpark_all(other, 0), 0);
    check_parked(&one);
    CHECK(pyrt_unpark_one(&here, NULL, NULL));
    check_woken(&one, 0);
}

TEST(one_that_was_woken_in_vain_goes_to_the_head)
{
    parked all[3];
    begin_many(all, 2, &here);
    all[2].flags = PYRT_PARK_FRONT;
    begin_parking(&all[2], &here);
    /* begin_parking keeps the flags. */
    pyrt_unparked unparked;
    CHECK(pyrt_unpark_one(&here, token_42, &unparked));
    CHECK_PTR(unparked.waiter, &all[2]);
    CHECK_INT(unparked.since, 0);
    check_woken(&all[2], 42);
    CHECK_UINT(pyrt_unpark_all(&here, 1), 2);
    check_woken(&all[0], 1);
    check_woken(&all[1], 1);
}

/* ---- requeue ------------------------------------------------------------------------------------------------------- */

static bool
agree(void *arg)
{
    *(bool *)arg = true;
    return true;
}

static void
check_requeue(const void *from, const void *to)
{
    parked all[MANY];
    begin_many(all, MANY, from);
    parked before;
    begin_many(&before, 1, to);
    bool asked = false;
    pyrt_requeued nothing = pyrt_requeue(from, to, 1, 2, 5, refuse, NULL);
    CHECK_UINT(nothing.woken + nothing.moved, 0);
    pyrt_requeued done = pyrt_requeue(from, to, 1, 2, 5, agree, &asked);
    CHECK(asked);
    CHECK_UINT(done.woken, 1);
    CHECK_UINT(done.moved, 2);
    check_woken(&all[0], 5);
    CHECK_UINT(pyrt_parked_count(from), 2);
    CHECK_UINT(pyrt_parked_count(to), 3);
    parked *order[] = {&before, &all[1], &all[2]};
    for (int i = 0; i < 3; i++) {
        pyrt_unparked unparked;
        CHECK(pyrt_unpark_one(to, token_42, &unparked));
        CHECK_PTR(unparked.waiter, order[i]);
        check_woken(order[i], 42);
    }
    done = pyrt_requeue(from, to, 0, SIZE_MAX, 5, NULL, NULL);
    CHECK_UINT(done.woken, 0);
    CHECK_UINT(done.moved, 2);
    CHECK_UINT(pyrt_unpark_all(to, 6), 2);
    check_woken(&all[3], 6);
    check_woken(&all[4], 6);
    CHECK_UINT(pyrt_parked_near(from) & ~PYRT_PARKED_ALWAYS, 0);
    CHECK_UINT(pyrt_parked_near(to) & ~PYRT_PARKED_ALWAYS, 0);
}

TEST(requeue_wakes_some_and_moves_some)
{
    check_requeue(&here, &there);
    check_requeue(&there, &here);
}

TEST(requeue_within_one_bucket)
{
    check_requeue(&here, neighbour_of(&here));
}

TEST(requeue_to_the_same_address_moves_nobody)
{
    parked all[2];
    begin_many(all, 2, &here);
    pyrt_requeued done = pyrt_requeue(&here, &here, 1, 5, 3, NULL, NULL);
    CHECK_UINT(done.woken, 1);
    CHECK_UINT(done.moved, 0);
    check_woken(&all[0], 3);
    CHECK_UINT(pyrt_unpark_all(&here, 4), 1);
    check_woken(&all[1], 4);
}

static void
on_signal(int number)
{
    (void)number;
}

static void
set_handler(int flags)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags};
    CHECK_INT(sigaction(SIGUSR1, &action, NULL), 0);
}

/* A signal that comes before the sleep ends nothing: again and again, until it has come in the sleep. */
static void
interrupt(parked *self)
{
    WAIT_UNTIL((pthread_kill(self->worker.thread, SIGUSR1), !worker_is_busy(&self->worker)));
    worker_finish(&self->worker);
}

TEST(one_that_was_moved_leaves_the_new_queue)
{
    parked one = {.flags = PYRT_LOCK_INTERRUPTIBLE};
    set_handler(0);
    begin_parking(&one, &here);
    CHECK_UINT(pyrt_requeue(&here, &there, 0, 1, 0, NULL, NULL).moved, 1);
    interrupt(&one);
    CHECK_STATUS(one.status, PYRT_EINTR);
    CHECK_UINT(pyrt_parked_count(&there), 0);
    CHECK_UINT(pyrt_parked_near(&there) & ~PYRT_PARKED_ALWAYS, 0);
    CHECK_UINT(pyrt_parked_near(&here) & ~PYRT_PARKED_ALWAYS, 0);
    worker_end(&one.worker);
}

/* ---- signals ------------------------------------------------------------------------------------------------------- */

TEST(a_signal_ends_an_interruptible_wait)
{
    const int flags[] = {0, SA_RESTART};
    for (int i = 0; i < 2; i++) {
        parked one = {.flags = PYRT_LOCK_INTERRUPTIBLE};
        set_handler(flags[i]);
        begin_parking(&one, &here);
        interrupt(&one);
        CHECK_STATUS(one.status, PYRT_EINTR);
        CHECK_UINT(pyrt_parked_count(&here), 0);
        worker_end(&one.worker);
    }
}

TEST(a_signal_does_not_end_another_wait)
{
    parked one;
    set_handler(0);
    begin_many(&one, 1, &here);
    for (int i = 0; i < 100; i++) {
        CHECK_INT(pthread_kill(one.worker.thread, SIGUSR1), 0);
        sched_yield();
    }
    check_parked(&one);
    CHECK(pyrt_unpark_one(&here, NULL, NULL));
    check_woken(&one, 0);
    /* Not asked again after the signals. */
    CHECK_INT(one.asked, 1);
}

/* ---- hooks --------------------------------------------------------------------------------------------------------- */

static pyrt_thread *the_thread;
static int hooks_called;
static size_t queued_before, queued_after;
static bool attached_before, attached_after, attached_asked;

static void *
hook_before(void)
{
    queued_before = pyrt_parked_count(&here);
    attached_before = pyrt_thread_current() != NULL;
    (void)pyrt_fetch_add_seq_cst(&hooks_called, 1);
    return &here;
}

static void
hook_after(void *saved)
{
    CHECK_PTR(saved, &here);
    queued_after = pyrt_parked_count(&here);
    attached_after = pyrt_thread_current() != NULL;
}

static bool
look_if_attached(void *arg)
{
    (void)arg;
    attached_asked = pyrt_thread_current() != NULL;
    return true;
}

TEST(the_hooks_stand_around_the_sleep_alone)
{
    runtime_up();
    parked one = {.address = &here, .before_sleep = look_if_attached, .timeout_ns = -1};
    hooks_called = 0;
    attached_asked = false;
    attached_before = attached_after = true;
    pyrt_set_block_hooks(&(pyrt_block_hooks){hook_before, hook_after});
    worker_start(&one.worker);
    worker_do(&one.worker, attach_new, &the_thread);
    worker_begin(&one.worker, park, &one);
    WAIT_UNTIL(pyrt_load_seq_cst(&hooks_called) == 1);
    CHECK_INT(state_of(the_thread), PYRT_STATE_DETACHED);
    CHECK(pyrt_unpark_one(&here, NULL, NULL));
    worker_finish(&one.worker);
    CHECK_OK(one.status);
    CHECK_INT(hooks_called, 1);
    CHECK(attached_asked);
    CHECK(!attached_before);
    CHECK(!attached_after);
    CHECK_UINT(queued_before, 1);
    CHECK_UINT(queued_after, 0);
    CHECK_INT(state_of(the_thread), PYRT_STATE_ATTACHED);
    worker_do(&one.worker, delete_attached, the_thread);
    worker_end(&one.worker);
    pyrt_set_block_hooks(NULL);
    runtime_down();
}

static pyrt_status
wait_attached(void)
{
    return pyrt_park(&here, NULL, look_if_attached, NULL, 200000, PYRT_LOCK_NO_DETACH, NULL);
}

TEST(no_detach_stays_attached)
{
    runtime_up();
    pyrt_thread *thread;
    attach_new(&thread);
    attached_before = attached_after = false;
    pyrt_set_block_hooks(&(pyrt_block_hooks){hook_before, hook_after});
    /* The time may be over before it can sleep. */
    do {
        CHECK_STATUS(wait_attached(), PYRT_ETIMEDOUT);
        CHECK_PTR(pyrt_thread_current(), thread);
    } while (!attached_before);
    CHECK(attached_after);
    CHECK(attached_asked);
    pyrt_set_block_hooks(NULL);
    delete_attached(thread);
    runtime_down();
}

TEST(in_a_read_side_section_it_is_reported_and_stays_attached)
{
    runtime_up();
    pyrt_thread *thread;
    attach_new(&thread);
    pyrt_read_begin_counted(thread);
    CHECK_STATUS(pyrt_park(&here, NULL, look_if_attached, NULL, 1000, 0, NULL), PYRT_ETIMEDOUT);
    EXPECT_REPORT("pyrt_park", named(thread), "read-side section");
    CHECK_PTR(pyrt_thread_current(), thread);
    pyrt_read_end_counted(thread);
    delete_attached(thread);
    runtime_down();
}
