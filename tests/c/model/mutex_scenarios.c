/* mutex_scenarios.c -- the mutex: its byte, the parking lot's cell, reservations, and pauses in between.
 *
 * Every owner adds one to a counter by a load and a store, with nothing but the mutex to keep two from doing so at once. In the
 * end the count must be right, the mutex unlocked, and nobody left asleep (a run in which nobody can move is a failure).
 */
#include "shared_item.h"

#include "sync/waiting.h"

static pyrt_mutex mutex;
static uint64_t counter;
static uint64_t wanted;

static void
setup(void)
{
    mutex = (pyrt_mutex)PYRT_MUTEX_INIT;
    counter = wanted = 0;
    /* The first one registers with the kernel. */
    (void)pyrt_waiter_barrier();
}

static void
setup_timed(void)
{
    setup();
    model_use_clock();
}

static void
setup_threads(void)
{
    setup();
    item_setup();
}

static void
setup_threads_timed(void)
{
    setup_timed();
    item_setup();
}

static void
finish(void)
{
    MODEL_CHECK(counter == wanted, "counted %llu, not %llu: two owners at a time", (unsigned long long)counter,
                (unsigned long long)wanted);
    MODEL_CHECK(mutex.state == PYRT_MUTEX_UNLOCKED, "the mutex is left in state %d", mutex.state);
    MODEL_CHECK(pyrt_parked_near(&mutex) == 0, "the cell says that %u wait", pyrt_parked_near(&mutex));
}

static void
finish_threads(void)
{
    finish();
    item_finish(0);
}

static void
count(void)
{
    pyrt_store_relaxed(&counter, pyrt_load_relaxed(&counter) + 1);
}

static void
lock_and_count(void)
{
    pyrt_mutex_lock(&mutex);
    count();
    pyrt_mutex_unlock(&mutex);
}

/* ---- threads without states -------------------------------------------------------------------------------------- */

static void
locker_body(int thread)
{
    (void)thread;
    wanted++;
    model_begin();
    lock_and_count();
    model_end();
}

/* Owns it from the start. */
static void
owner_body(int thread)
{
    if (thread != 0) {
        locker_body(thread);
        return;
    }
    wanted++;
    pyrt_mutex_lock(&mutex);
    model_begin();
    count();
    pyrt_mutex_unlock(&mutex);
    model_end();
}

static void
try_body(int thread)
{
    if (thread == 0) {
        locker_body(thread);
        return;
    }
    model_begin();
    bool locked = pyrt_mutex_trylock(&mutex);
    if (locked) {
        count();
        pyrt_mutex_unlock(&mutex);
    }
    model_end();
    wanted += locked;
}

/* So long that whoever is parked by now gets it next. */
static void
reserve_body(int thread)
{
    if (thread != 0) {
        locker_body(thread);
        return;
    }
    wanted++;
    pyrt_mutex_lock(&mutex);
    model_begin();
    count();
    model_pass_time(PYRT_MUTEX_FAIR_NS);
    pyrt_mutex_unlock(&mutex);
    model_end();
}

/* ---- pauses ------------------------------------------------------------------------------------------------------ */

static void
attached_locker(int thread)
{
    pyrt_thread *self = item_thread(thread);
    wanted++;
    pyrt_attach(self);
    model_begin();
    lock_and_count();
    pyrt_detach(self);
    model_end();
    pyrt_thread_delete(self);
}

/* Unlocks in its pause, for one that may be standing still, and wants it again before the pause is over. */
static void
pausing_owner(bool long_enough)
{
    wanted += 2;
    pyrt_mutex_lock(&mutex);
    model_begin();
    MODEL_CHECK(pyrt_stop_the_world(pyrt_interp_main()) == PYRT_OK, "a pause without a deadline fails");
    count();
    if (long_enough) {
        model_pass_time(PYRT_MUTEX_FAIR_NS);
    }
    pyrt_mutex_unlock(&mutex);
    lock_and_count();
    pyrt_start_the_world(pyrt_interp_main());
    model_end();
}

static void
pause_body(int thread)
{
    thread == 0 ? attached_locker(thread) : pausing_owner(false);
}

static void
pause_reserve_body(int thread)
{
    thread == 0 ? attached_locker(thread) : pausing_owner(true);
}

/* The owner has no state. The one who stops the world waits for the mutex too, perhaps behind one that it has stopped. */
static void
requester_body(int thread)
{
    if (thread == 0) {
        attached_locker(thread);
        return;
    }
    wanted++;
    if (thread == 1) {
        pyrt_mutex_lock(&mutex);
        model_begin();
        count();
        pyrt_mutex_unlock(&mutex);
        model_end();
        return;
    }
    model_begin();
    MODEL_CHECK(pyrt_stop_the_world(pyrt_interp_main()) == PYRT_OK, "a pause without a deadline fails");
    lock_and_count();
    pyrt_start_the_world(pyrt_interp_main());
    model_end();
}

const model_scenario model_mutex_scenarios[] = {
    {"mutex", "two lock a mutex", MODEL_ALL, setup, locker_body, finish, {"one", "two"}},
    {"mutex-owned", "one unlocks a mutex, two others lock it", 2, setup, owner_body, finish, {"owner", "one", "two"}},
    {"mutex-three", "three lock a mutex", 2, setup, locker_body, finish, {"one", "two", "three"}},
    {"mutex-try", "one locks a mutex, another tries to", MODEL_ALL, setup, try_body, finish, {"locker", "trier"}},
    {"mutex-reserved",
     "a mutex is reserved for a waiter",
     MODEL_ALL,
     setup_timed,
     reserve_body,
     finish,
     {"owner", "waiter"}},
    {"mutex-reserved-two",
     "a mutex is reserved for one of two waiters",
     1,
     setup_timed,
     reserve_body,
     finish,
     {"owner", "one", "two"}},
    {"mutex-pause",
     "a pause by the owner of a mutex, and a waiter that is stopped",
     MODEL_ALL,
     setup_threads,
     pause_body,
     finish_threads,
     {"waiter", "stopper"}},
    {"mutex-pause-reserved",
     "the same, with the mutex reserved for the waiter",
     MODEL_ALL,
     setup_threads_timed,
     pause_reserve_body,
     finish_threads,
     {"waiter", "stopper"}},
    {"mutex-requester",
     "a pause by one who waits behind a waiter that it has stopped",
     1,
     setup_threads,
     requester_body,
     finish_threads,
     {"waiter", "owner", "stopper"}},
    {.name = NULL},
};
