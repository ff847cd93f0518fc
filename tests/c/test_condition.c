/* test_condition.c -- waiting for a change, sentence by sentence (condition.h). */
#include "steps.h"
#include "support.h"
#include "workers.h"

#include <signal.h>
#include <time.h>

enum { WAITERS = 4 };

/* A wait of a led thread: it locks, waits once, and says in which turn it came back before it unlocks. */
typedef struct wait_once {
    pyrt_condition *condition;
    pyrt_mutex *mutex;
    int64_t timeout_ns;
    unsigned flags;
    pyrt_status status;
    int turn; /* 0 until it is back */
} wait_once;

static int turns; /* under the mutex */

static void
do_wait(void *arg)
{
    wait_once *wait = arg;
    pyrt_mutex_lock(wait->mutex);
    wait->status = wait->timeout_ns == -1 && wait->flags == 0
                       ? pyrt_condition_wait(wait->condition, wait->mutex)
                       : pyrt_condition_wait_timed(wait->condition, wait->mutex, wait->timeout_ns, wait->flags);
    CHECK(pyrt_mutex_is_locked(wait->mutex));
    pyrt_exchange_seq_cst(&wait->turn, ++turns);
    pyrt_mutex_unlock(wait->mutex);
}

typedef struct scene {
    pyrt_condition condition;
    pyrt_mutex mutex;
    worker workers[WAITERS];
    wait_once waits[WAITERS];
} scene;

/* All wait, in the order of their numbers. */
static void
scene_up(scene *s)
{
    *s = (scene){.condition = PYRT_CONDITION_INIT};
    turns = 0;
    for (int i = 0; i < WAITERS; i++) {
        s->waits[i] = (wait_once){.condition = &s->condition, .mutex = &s->mutex, .timeout_ns = -1, .status = PYRT_ENOTSUP};
        worker_start(&s->workers[i]);
        worker_begin(&s->workers[i], do_wait, &s->waits[i]);
        WAIT_UNTIL(pyrt_parked_count(&s->condition) == (size_t)i + 1);
    }
    WAIT_UNTIL(!pyrt_mutex_is_locked(&s->mutex));
}

static void
scene_down(scene *s)
{
    for (int i = 0; i < WAITERS; i++) {
        worker_end(&s->workers[i]);
        CHECK_OK(s->waits[i].status);
    }
    CHECK(!pyrt_mutex_is_locked(&s->mutex));
    CHECK_UINT(pyrt_parked_count(&s->condition), 0);
}

/* ---- without waiting --------------------------------------------------------------------------------------------- */

TEST(nobody_to_notify)
{
    pyrt_condition condition = PYRT_CONDITION_INIT;
    CHECK_UINT(pyrt_condition_notify_one(&condition), 0);
    CHECK_UINT(pyrt_condition_notify_all(&condition), 0);
    CHECK_UINT(pyrt_condition_notify_slow(&condition, SIZE_MAX), 0);
    CHECK_UINT(pyrt_condition_notify_slow(&condition, 0), 0);
}

TEST(wrong_use_is_refused)
{
    pyrt_condition condition = PYRT_CONDITION_INIT;
    pyrt_mutex mutex = PYRT_MUTEX_INIT;
    pyrt_recursive_mutex recursive = PYRT_RECURSIVE_MUTEX_INIT;
    CHECK_STATUS(pyrt_condition_wait(&condition, &mutex), PYRT_ESTATE);
    CHECK_STATUS(pyrt_condition_wait_timed(&condition, &mutex, 0, 64), PYRT_EINVAL);
    CHECK_STATUS(pyrt_condition_wait_recursive(&condition, &recursive, 0, 0), PYRT_ESTATE);
    CHECK_STATUS(pyrt_condition_wait_recursive(&condition, &recursive, 0, PYRT_PARK_FRONT), PYRT_EINVAL);
}

TEST(time_may_run_out)
{
    pyrt_condition condition = PYRT_CONDITION_INIT;
    pyrt_mutex mutex = PYRT_MUTEX_INIT;
    pyrt_mutex_lock(&mutex);
    for (int64_t timeout_ns = 0; timeout_ns <= 100000; timeout_ns = 10 * timeout_ns + 1) {
        CHECK_STATUS(pyrt_condition_wait_timed(&condition, &mutex, timeout_ns, 0), PYRT_ETIMEDOUT);
        CHECK(pyrt_mutex_is_locked(&mutex));
    }
    pyrt_mutex_unlock(&mutex);
    CHECK(!pyrt_mutex_is_locked(&mutex));
}

/* ---- notifications ----------------------------------------------------------------------------------------------- */

TEST(one_goes_to_who_has_waited_longest)
{
    scene s;
    scene_up(&s);
    for (int i = 0; i < WAITERS; i++) {
        CHECK_UINT(pyrt_condition_notify_one(&s.condition), 1);
        WAIT_UNTIL(pyrt_load_seq_cst(&s.waits[i].turn) != 0);
        CHECK_INT(s.waits[i].turn, i + 1);
        CHECK_UINT(pyrt_parked_count(&s.condition), WAITERS - 1 - i);
    }
    CHECK_UINT(pyrt_condition_notify_one(&s.condition), 0);
    scene_down(&s);
}

TEST(some_are_woken_and_the_others_stay)
{
    scene s;
    scene_up(&s);
    CHECK_UINT(pyrt_condition_notify(&s.condition, 3), 3);
    WAIT_UNTIL(pyrt_load_seq_cst(&s.waits[0].turn) != 0 && pyrt_load_seq_cst(&s.waits[1].turn) != 0 &&
               pyrt_load_seq_cst(&s.waits[2].turn) != 0);
    CHECK_UINT(pyrt_parked_count(&s.condition), 1);
    CHECK(worker_is_busy(&s.workers[3]));
    CHECK_UINT(pyrt_condition_notify(&s.condition, 3), 1);
    scene_down(&s);
}

static int64_t
now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* False: it took so long that those who were moved have looked by themselves, as they do where there are hooks. */
static bool
all_are_moved(void)
{
    scene s;
    watch_sleepers();
    int64_t began = now_ns();
    scene_up(&s);
    WAIT_UNTIL(sleepers() == WAITERS);
    int begun = sleeps_begun();
    pyrt_mutex_lock(&s.mutex);
    CHECK_UINT(pyrt_condition_notify_all(&s.condition), WAITERS);
    CHECK_UINT(pyrt_parked_count(&s.condition), 0);
    /* The one that is woken finds the mutex locked and queues up behind those that were moved; they have not moved. */
    WAIT_UNTIL(pyrt_parked_count(&s.mutex) == WAITERS && sleepers() == WAITERS);
    int woken = sleeps_begun() - begun;
    bool nobody_looked = now_ns() - began < PYRT_MUTEX_RESERVED_NS;
    if (nobody_looked) {
        CHECK_INT(woken, 1);
    }
    CHECK_INT(turns, 0);
    pyrt_mutex_unlock(&s.mutex);
    scene_down(&s);
    CHECK_INT(turns, WAITERS);
    stop_watching_sleepers();
    return nobody_looked;
}

TEST(all_are_moved_to_the_mutex_and_woken_by_its_unlocks)
{
    while (!all_are_moved()) {
    }
}

TEST(all_with_the_mutex_unlocked)
{
    scene s;
    scene_up(&s);
    CHECK_UINT(pyrt_condition_notify_all(&s.condition), WAITERS);
    scene_down(&s);
    CHECK_INT(turns, WAITERS);
}

TEST(whose_time_runs_out_on_the_queue_of_the_mutex_was_notified)
{
    worker first;
    worker second;
    pyrt_condition condition = PYRT_CONDITION_INIT;
    pyrt_mutex mutex = PYRT_MUTEX_INIT;
    wait_once endless = {&condition, &mutex, -1, 0, PYRT_ENOTSUP, 0};
    wait_once timed = {&condition, &mutex, 500000000, 0, PYRT_ENOTSUP, 0};
    worker_start(&first);
    worker_start(&second);
    worker_begin(&first, do_wait, &endless);
    WAIT_UNTIL(pyrt_parked_count(&condition) == 1);
    /* Half a second is enough to be moved first; if it is not, the test has shown less, but is not wrong. */
    worker_begin(&second, do_wait, &timed);
    WAIT_UNTIL(pyrt_parked_count(&condition) == 2 && !pyrt_mutex_is_locked(&mutex));
    pyrt_mutex_lock(&mutex);
    size_t notified = pyrt_condition_notify_all(&condition);
    /* The first waits for the mutex; the second leaves its queue when the time is over, and comes back to it. */
    WAIT_UNTIL(pyrt_parked_count(&mutex) == notified);
    pyrt_mutex_unlock(&mutex);
    worker_end(&first);
    worker_end(&second);
    CHECK_OK(endless.status);
    CHECK_STATUS(timed.status, notified == 2 ? PYRT_OK : PYRT_ETIMEDOUT);
}

static void
ignore_signal(int number)
{
    (void)number;
}

TEST(a_signal_ends_an_interruptible_wait_without_a_notification)
{
    worker w;
    pyrt_condition condition = PYRT_CONDITION_INIT;
    pyrt_mutex mutex = PYRT_MUTEX_INIT;
    wait_once wait = {&condition, &mutex, -1, PYRT_LOCK_INTERRUPTIBLE, PYRT_ENOTSUP, 0};
    signal(SIGUSR1, ignore_signal);
    worker_start(&w);
    worker_begin(&w, do_wait, &wait);
    while (worker_is_busy(&w)) {
        pthread_kill(w.thread, SIGUSR1);
        sched_yield();
    }
    CHECK_STATUS(wait.status, PYRT_EINTR);
    CHECK_UINT(pyrt_condition_notify_one(&condition), 0);
    worker_end(&w);
    CHECK(!pyrt_mutex_is_locked(&mutex));
}

TEST(another_mutex_is_refused_while_somebody_waits)
{
    scene s;
    pyrt_mutex other = PYRT_MUTEX_INIT;
    scene_up(&s);
    pyrt_mutex_lock(&other);
    CHECK_STATUS(pyrt_condition_wait(&s.condition, &other), PYRT_EINVAL);
    CHECK(pyrt_mutex_is_locked(&other));
    CHECK_UINT(pyrt_condition_notify_all(&s.condition), WAITERS);
    scene_down(&s);
    CHECK_STATUS(pyrt_condition_wait_timed(&s.condition, &other, 1, 0), PYRT_ETIMEDOUT);
    CHECK(pyrt_mutex_is_locked(&other));
}

/* ---- a recursive mutex ------------------------------------------------------------------------------------------- */

typedef struct recursive_wait {
    pyrt_condition condition;
    pyrt_recursive_mutex mutex;
} recursive_wait;

static void
wait_recursive(void *arg)
{
    recursive_wait *wait = arg;
    pyrt_recursive_mutex_lock(&wait->mutex);
    pyrt_recursive_mutex_lock(&wait->mutex);
    CHECK_OK(pyrt_condition_wait_recursive(&wait->condition, &wait->mutex, -1, 0));
    CHECK_UINT(pyrt_recursive_mutex_depth(&wait->mutex), 2);
    pyrt_recursive_mutex_unlock(&wait->mutex);
    pyrt_recursive_mutex_unlock(&wait->mutex);
}

TEST(a_recursive_mutex_is_let_go_and_locked_as_often_again)
{
    worker w;
    recursive_wait wait = {PYRT_CONDITION_INIT, PYRT_RECURSIVE_MUTEX_INIT};
    worker_start(&w);
    worker_begin(&w, wait_recursive, &wait);
    WAIT_UNTIL(pyrt_parked_count(&wait.condition) == 1);
    pyrt_recursive_mutex_lock(&wait.mutex);
    CHECK_UINT(pyrt_recursive_mutex_depth(&wait.mutex), 1);
    CHECK_UINT(pyrt_condition_notify_one(&wait.condition), 1);
    pyrt_recursive_mutex_unlock(&wait.mutex);
    worker_end(&w);
    CHECK(!pyrt_recursive_mutex_is_locked(&wait.mutex));
    pyrt_recursive_mutex_lock(&wait.mutex);
    pyrt_recursive_mutex_lock(&wait.mutex);
    CHECK_STATUS(pyrt_condition_wait_recursive(&wait.condition, &wait.mutex, 1000, 0), PYRT_ETIMEDOUT);
    CHECK_STATUS(pyrt_condition_wait_recursive(&wait.condition, &wait.mutex, 0, 0), PYRT_ETIMEDOUT);
    CHECK_UINT(pyrt_recursive_mutex_depth(&wait.mutex), 2);
}

/* ---- pauses and forks -------------------------------------------------------------------------------------------- */

TEST(who_waits_is_detached_and_leaves_the_mutex_to_who_stopped_the_world)
{
    worker w;
    pyrt_thread *thread;
    pyrt_condition condition = PYRT_CONDITION_INIT;
    pyrt_mutex mutex = PYRT_MUTEX_INIT;
    wait_once wait = {&condition, &mutex, -1, 0, PYRT_ENOTSUP, 0};
    runtime_up();
    worker_start(&w);
    worker_do(&w, attach_new, &thread);
    worker_begin(&w, do_wait, &wait);
    WAIT_UNTIL(pyrt_parked_count(&condition) == 1 && state_of(thread) == PYRT_STATE_DETACHED);
    CHECK_OK(pyrt_stop_the_world(NULL));
    pyrt_mutex_lock(&mutex);
    CHECK_UINT(pyrt_condition_notify_all(&condition), 1);
    pyrt_mutex_unlock(&mutex);
    pyrt_mutex_lock(&mutex);
    CHECK(worker_is_busy(&w));
    pyrt_mutex_unlock(&mutex);
    pyrt_start_the_world(NULL);
    worker_finish(&w);
    CHECK_OK(wait.status);
    worker_do(&w, delete_attached, thread);
    worker_end(&w);
    runtime_down();
}

TEST(in_the_child_of_a_fork_nobody_waits)
{
    pyrt_mutex mutex = PYRT_MUTEX_INIT;
    pyrt_mutex other = PYRT_MUTEX_INIT;
    pyrt_condition condition = {&other};
    pyrt_condition_at_fork_reinit(&condition);
    pyrt_mutex_lock(&mutex);
    CHECK_STATUS(pyrt_condition_wait_timed(&condition, &mutex, 1000, 0), PYRT_ETIMEDOUT);
    pyrt_mutex_unlock(&mutex);
}

/* ---- a host that does not give a thread back ------------------------------------------------------------------------- */

static __thread bool is_kept;

static struct {
    int asleep;
    int inside;
    int may_leave;
    bool ends;
} hook;

static void *
before_sleep(void)
{
    pyrt_fetch_add_seq_cst(&hook.asleep, 1);
    return NULL;
}

static void
after_sleep(void *saved)
{
    (void)saved;
    if (is_kept) {
        pyrt_fetch_add_seq_cst(&hook.inside, 1);
        WAIT_UNTIL(pyrt_load_seq_cst(&hook.may_leave));
        if (hook.ends) {
            pthread_exit(NULL);
        }
    }
}

static void
do_kept_wait(void *wait)
{
    is_kept = true;
    do {
        do_wait(wait);
        /* Its time was over before it slept. */
    } while (hook.ends);
    is_kept = false;
}

static void
keep_in_hook(bool ends)
{
    hook.asleep = hook.inside = 0;
    hook.may_leave = ends;
    hook.ends = ends;
    pyrt_set_block_hooks(&(pyrt_block_hooks){before_sleep, after_sleep});
}

/* Notified, and its time over. */
TEST(a_waiter_whose_os_thread_ends_in_the_hook_is_not_counted_any_more)
{
    for (int notified = 0; notified < 2; notified++) {
        worker w;
        pyrt_condition condition = PYRT_CONDITION_INIT;
        pyrt_mutex mutex = PYRT_MUTEX_INIT;
        pyrt_mutex other = PYRT_MUTEX_INIT;
        wait_once wait = {&condition, &mutex, notified ? -1 : 1000, 0, PYRT_ENOTSUP, 0};
        keep_in_hook(true);
        worker_start(&w);
        worker_begin(&w, do_kept_wait, &wait);
        if (notified) {
            WAIT_UNTIL(pyrt_load_seq_cst(&hook.asleep) == 1);
            CHECK_UINT(pyrt_condition_notify_one(&condition), 1);
        }
        worker_join_exited(&w);
        pyrt_set_block_hooks(NULL);
        pyrt_mutex_lock(&other);
        CHECK_STATUS(pyrt_condition_wait_timed(&condition, &other, 1000, 0), PYRT_ETIMEDOUT);
        pyrt_mutex_unlock(&other);
        CHECK(!pyrt_mutex_is_locked(&mutex));
    }
}

TEST(who_was_moved_gets_on_although_the_one_who_was_woken_does_not_come_back)
{
    enum { MOVED = 3 };
    worker kept;
    worker moved[MOVED];
    pyrt_condition condition = PYRT_CONDITION_INIT;
    pyrt_mutex mutex = PYRT_MUTEX_INIT;
    wait_once waits[MOVED + 1];
    keep_in_hook(false);
    for (int i = 0; i <= MOVED; i++) {
        worker *w = i == 0 ? &kept : &moved[i - 1];
        waits[i] = (wait_once){&condition, &mutex, -1, 0, PYRT_ENOTSUP, 0};
        worker_start(w);
        worker_begin(w, i == 0 ? do_kept_wait : do_wait, &waits[i]);
        WAIT_UNTIL(pyrt_parked_count(&condition) == (size_t)i + 1 && pyrt_load_seq_cst(&hook.asleep) == i + 1);
    }
    CHECK_UINT(pyrt_condition_notify_all(&condition), MOVED + 1);
    WAIT_UNTIL(pyrt_load_seq_cst(&hook.inside) == 1);
    for (int i = 0; i < MOVED; i++) {
        worker_end(&moved[i]);
        CHECK_OK(waits[i + 1].status);
    }
    CHECK(worker_is_busy(&kept));
    pyrt_store_release(&hook.may_leave, 1);
    worker_end(&kept);
    CHECK_OK(waits[0].status);
    pyrt_set_block_hooks(NULL);
    CHECK(!pyrt_mutex_is_locked(&mutex));
}
