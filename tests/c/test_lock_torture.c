/* test_lock_torture.c -- mutexes, and all that can happen around them at once: every way of locking, signals, timeouts,
 * threads that are born, die, die in their wait, attach, detach and are stopped, and pauses inside which locks are taken.
 *
 * Each mutex guards a plain number; each thread counts what it has added to it, and what became of each of its tries. In
 * the end the books balance: that is mutual exclusion. That it comes to an end is the absence of lost wake-ups; a
 * watchdog says who waits if nobody gets on any more.
 *
 * Each thread draws its choices from a stream of its own, so that --seed gives every thread the same life again. --break
 * makes it wrong in one way, to see it caught:
 *
 *      forget-to-lock    adds to the number now and then without having locked
 *      forget-to-wake    unlocks by a store, without a look whether somebody waits
 */
#include "support.h"
#include "workers.h"

#include "platform/futex.h"
#include "sync/waiting.h"

#include <pyruntime/current.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>

/* The last mutex is for moments: who holds it never waits for anything. So it may be waited for attached, and whoever has
 * stopped the world gets it. */
enum { MUTEXES = 4, FOR_MOMENTS = MUTEXES - 1, SPAWNERS = 6, LIVES = 25, STEPS = 400 };

typedef enum { GOT_IT, WAS_BUSY, TIMED_OUT, INTERRUPTED, RESULTS } result;

typedef struct life {
    struct life *next;
    pthread_t os_thread;
    random_stream choices;
    pyrt_thread *thread; /* NULL: has no state */
    int holds; /* how many it has */
    bool mortal; /* may end in the wait that it is in */
    bool died; /* has ended there */
    uint64_t tries;
    uint64_t results[RESULTS];
    uint64_t added[MUTEXES];
} life;

static struct guarded {
    pyrt_mutex mutex;
    uint64_t number;
} guarded[MUTEXES];

static __thread life *my_life;

static uint64_t reservations;
static uint64_t progress;

/* Everybody gets a signal each time that there were so many results. */
enum { RESULTS_A_BEAT = 16 };
static uint32_t beats;

/* The sums over all lives. */
static struct {
    pthread_mutex_t lock;
    uint64_t lives, deaths, tries, pauses;
    uint64_t results[RESULTS];
    uint64_t added[MUTEXES];
    life *alive; /* those that signals are sent to */
} books = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool
is_broken(const char *how)
{
    return test_sabotage() != NULL && strcmp(test_sabotage(), how) == 0;
}

/* A signal goes to nobody who is gone: the thread itself takes itself off, under the lock under which they are sent. */
static void
begin_life(life *self)
{
    self->os_thread = pthread_self();
    pthread_mutex_lock(&books.lock);
    self->next = books.alive;
    books.alive = self;
    pthread_mutex_unlock(&books.lock);
}

static void
end_life(life *self)
{
    pthread_mutex_lock(&books.lock);
    life **link = &books.alive;
    while (*link != self) {
        link = &(*link)->next;
    }
    *link = self->next;
    pthread_mutex_unlock(&books.lock);
}

/* ---- the host ---------------------------------------------------------------------------------------------------- */

static void *
before_sleep(void)
{
    return NULL;
}

/* Sees whether the mutex was handed over, and ends a thread now and then. */
static void
after_sleep(void *unused)
{
    (void)unused;
    const pyrt_tls_block *tls = pyrt_tls();
    if (tls->woken_for != NULL && tls->reserved) {
        (void)pyrt_fetch_add_relaxed(&reservations, (uint64_t)1);
    }
    life *self = my_life;
    if (self != NULL && self->mortal && self->holds == 0 && random_below(&self->choices, 60) == 0) {
        self->died = true;
        self->mortal = false;
        end_life(self);
        pthread_exit(NULL);
    }
}

/* ---- one lock ---------------------------------------------------------------------------------------------------- */

static result
result_of(pyrt_status status)
{
    CHECK(status == PYRT_OK || status == PYRT_ETIMEDOUT || status == PYRT_EINTR);
    return status == PYRT_OK ? GOT_IT : status == PYRT_ETIMEDOUT ? TIMED_OUT : INTERRUPTED;
}

static result
try_to_lock(life *self, int which)
{
    pyrt_mutex *mutex = &guarded[which].mutex;
    int64_t time = random_below(&self->choices, 200000);
    unsigned moments = which == FOR_MOMENTS && random_below(&self->choices, 2) == 0 ? PYRT_LOCK_NO_DETACH : 0;
    switch (random_below(&self->choices, 6)) {
    case 0:
        return pyrt_mutex_trylock(mutex) ? GOT_IT : WAS_BUSY;
    case 1:
        return result_of(pyrt_mutex_lock_timed(mutex, time, moments));
    case 2:
        return result_of(pyrt_mutex_lock_timed(mutex, 0, moments));
    case 3:
        return result_of(pyrt_mutex_lock_timed(mutex, -1, moments | PYRT_LOCK_INTERRUPTIBLE));
    case 4:
        return result_of(pyrt_mutex_lock_timed(mutex, time, moments | PYRT_LOCK_INTERRUPTIBLE));
    default:
        pyrt_mutex_lock(mutex);
        return GOT_IT;
    }
}

static void
beat(void)
{
    (void)pyrt_fetch_add_relaxed(&beats, 1u);
    pyrt_futex_wake(&beats, 1);
}

static bool
count_result(life *self, result what)
{
    self->results[what]++;
    if (pyrt_fetch_add_relaxed(&progress, (uint64_t)1) % RESULTS_A_BEAT == 0) {
        beat();
    }
    return what == GOT_IT;
}

/* The number is read before, and written after, others had a chance to come in between. */
static void
add_one(life *self, int which)
{
    volatile uint64_t *number = &guarded[which].number;
    uint64_t found = *number;
    uint32_t delay = random_below(&self->choices, 400);
    if (delay < 50) {
        sched_yield();
    }
    else if (delay == 50) {
        /* So that those who wait are due. */
        int64_t end = pyrt_now_ns() + PYRT_MUTEX_FAIR_NS;
        while (pyrt_now_ns() < end) {
            sched_yield();
        }
    }
    *number = found + 1;
    self->added[which]++;
}

static void
unlock(life *self, int which)
{
    self->holds--;
    if (is_broken("forget-to-wake")) {
        pyrt_store_release(&guarded[which].mutex.state, (uint8_t)PYRT_MUTEX_UNLOCKED);
        return;
    }
    pyrt_mutex_unlock(&guarded[which].mutex);
}

static void rest(life *self);

/* Locks one, and perhaps others inside of it, always in the same order. */
static void
lock_from(life *self, int first)
{
    int which = first + (int)random_below(&self->choices, (uint32_t)(MUTEXES - first));
    self->tries++;
    self->mortal = true;
    result what = try_to_lock(self, which);
    self->mortal = false;
    if (!count_result(self, what)) {
        return;
    }
    self->holds++;
    add_one(self, which);
    if (which != FOR_MOMENTS && random_below(&self->choices, 3) == 0) {
        lock_from(self, which + 1);
    }
    if (which != FOR_MOMENTS && random_below(&self->choices, 10) == 0) {
        rest(self);
    }
    unlock(self, which);
}

/* ---- around it --------------------------------------------------------------------------------------------------- */

/* Where it can be stopped, also while it holds a mutex. */
static void
rest(life *self)
{
    if (self->thread == NULL || random_below(&self->choices, 4) == 0) {
        sched_yield();
    }
    else if (random_below(&self->choices, 2) == 0) {
        pyrt_safepoint(self->thread);
    }
    else {
        pyrt_detach(self->thread);
        sched_yield();
        pyrt_attach(self->thread);
    }
}

/* Those that stand still may hold what is locked, but not what is for moments. */
static void
stop_the_others(life *self)
{
    int64_t timeout = random_below(&self->choices, 2) == 0 ? -1 : (int64_t)random_below(&self->choices, 100000);
    if (pyrt_stop_the_world_timed(NULL, timeout, NULL) != PYRT_OK) {
        return;
    }
    self->tries++;
    pyrt_mutex_lock(&guarded[FOR_MOMENTS].mutex);
    self->holds++;
    (void)count_result(self, GOT_IT);
    add_one(self, FOR_MOMENTS);
    unlock(self, FOR_MOMENTS);
    int other = (int)random_below(&self->choices, FOR_MOMENTS);
    self->tries++;
    pyrt_status status = pyrt_mutex_lock_timed(&guarded[other].mutex, random_below(&self->choices, 50000), 0);
    if (count_result(self, result_of(status))) {
        self->holds++;
        add_one(self, other);
        unlock(self, other);
    }
    pyrt_start_the_world(NULL);
    (void)pyrt_fetch_add_relaxed(&books.pauses, (uint64_t)1);
}

static void
step(life *self)
{
    uint32_t choice = random_below(&self->choices, 100);
    if (choice < 85) {
        lock_from(self, 0);
    }
    else if (choice < 98) {
        rest(self);
    }
    else {
        stop_the_others(self);
    }
    if (is_broken("forget-to-lock") && choice % 8 == 0) {
        add_one(self, 0);
    }
}

/* ---- lives ------------------------------------------------------------------------------------------------------- */

static void *
live(void *arg)
{
    life *self = arg;
    my_life = self;
    begin_life(self);
    /* One in three has no state. */
    if (random_below(&self->choices, 3) != 0) {
        self->thread = pyrt_thread_ensure(pyrt_interp_main());
        CHECK(self->thread != NULL);
    }
    for (int i = 0; i < STEPS; i++) {
        step(self);
    }
    if (self->thread != NULL && random_below(&self->choices, 2) == 0) {
        pyrt_thread_release(self->thread);
    }
    end_life(self);
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
        pthread_mutex_lock(&books.lock);
        books.lives++;
        books.deaths += self.died;
        books.tries += self.tries;
        for (int n = 0; n < RESULTS; n++) {
            books.results[n] += self.results[n];
        }
        for (int n = 0; n < MUTEXES; n++) {
            books.added[n] += self.added[n];
        }
        pthread_mutex_unlock(&books.lock);
    }
}

/* ---- signals, and the watchdog ----------------------------------------------------------------------------------- */

#define USUAL_PATIENCE_NS INT64_C(40000000000)
#define PATIENCE_WITH_SABOTAGE_NS INT64_C(2000000000)

static bool over;

static void
on_signal(int number)
{
    (void)number;
}

static void
say_who_waits(void)
{
    char line[256] = "";
    for (int n = 0; n < MUTEXES; n++) {
        size_t used = strlen(line);
        snprintf(line + used, sizeof(line) - used, "%s mutex %d in state %d with %zu parked", n == 0 ? "" : ",", n,
                 pyrt_load_relaxed(&guarded[n].mutex.state), pyrt_parked_count(&guarded[n].mutex));
    }
    FAIL("nobody gets on any more:%s", line);
}

static void
send_signals(void)
{
    pthread_mutex_lock(&books.lock);
    for (life *l = books.alive; l != NULL; l = l->next) {
        CHECK_INT(pthread_kill(l->os_thread, SIGUSR1), 0);
    }
    pthread_mutex_unlock(&books.lock);
}

static void *
pester_and_watch(void *unused)
{
    (void)unused;
    int64_t patience = test_sabotage() == NULL ? USUAL_PATIENCE_NS : PATIENCE_WITH_SABOTAGE_NS;
    while (!pyrt_load_acquire(&over)) {
        uint32_t seen = pyrt_load_relaxed(&beats);
        int64_t deadline = pyrt_now_ns() + patience;
        send_signals();
        while (pyrt_load_relaxed(&beats) == seen) {
            if (!pyrt_futex_wait(&beats, seen, deadline)) {
                say_who_waits();
            }
        }
    }
    return NULL;
}

/* ---- the tests --------------------------------------------------------------------------------------------------- */

static void
check_books(void)
{
    uint64_t results = 0;
    uint64_t added = 0;
    for (int n = 0; n < RESULTS; n++) {
        results += books.results[n];
    }
    for (int n = 0; n < MUTEXES; n++) {
        CHECK_UINT(guarded[n].number, books.added[n]);
        CHECK_INT(guarded[n].mutex.state, PYRT_MUTEX_UNLOCKED);
        CHECK_UINT(pyrt_parked_count(&guarded[n].mutex), 0);
        CHECK_UINT(pyrt_parked_near(&guarded[n].mutex) & ~PYRT_PARKED_ALWAYS, 0);
        added += books.added[n];
    }
    CHECK_UINT(added, books.results[GOT_IT]);
    /* Who died in a wait has no result of it. */
    CHECK_UINT(results, books.tries - books.deaths);
    CHECK_UINT(books.lives, SPAWNERS * LIVES * test_scale());
    CHECK(books.results[TIMED_OUT] != 0);
    CHECK(books.results[INTERRUPTED] != 0);
    CHECK(pyrt_load_relaxed(&books.pauses) != 0);
}

static void
torture(void)
{
    memset(guarded, 0, sizeof(guarded));
    reservations = 0;
    books.lives = books.deaths = books.tries = books.pauses = 0;
    memset(books.results, 0, sizeof(books.results));
    memset(books.added, 0, sizeof(books.added));
    pyrt_store_release(&over, false);
    struct sigaction action = {.sa_handler = on_signal};
    CHECK_INT(sigaction(SIGUSR1, &action, NULL), 0);
    runtime_up();
    pthread_t pest;
    CHECK_INT(pthread_create(&pest, NULL, pester_and_watch, NULL), 0);
    run_crowd(SPAWNERS, spawn, NULL);
    pyrt_store_release(&over, true);
    beat();
    CHECK_INT(pthread_join(pest, NULL), 0);
    check_books();
    runtime_down();
}

/* Nobody looks at the lock again unless woken. */
TEST(stress)
{
    torture();
    CHECK_UINT(books.deaths, 0);
}

TEST(stress_with_host)
{
    pyrt_set_block_hooks(&(pyrt_block_hooks){before_sleep, after_sleep});
    torture();
    pyrt_set_block_hooks(NULL);
    CHECK(books.deaths != 0);
    CHECK(pyrt_load_relaxed(&reservations) != 0);
}

/* As where the kernel refuses membarrier. */
TEST(stress_by_read_modify_writes)
{
    pyrt_parking_set_always(true);
    torture();
    pyrt_parking_set_always(false);
}

/* ---- nobody starves ---------------------------------------------------------------------------------------------- */

enum { TURNS = 30 };

static pyrt_mutex wanted;
static uint64_t turns;

/* Has it nearly always: its next lock comes at once after its unlock. */
static void
be_a_hog(void)
{
    while (pyrt_load_relaxed(&turns) < TURNS) {
        pyrt_mutex_lock(&wanted);
        for (int i = 0; i < 200; i++) {
            pyrt_cpu_relax();
        }
        pyrt_mutex_unlock(&wanted);
    }
}

static void
hog_or_not(void *unused, int number)
{
    (void)unused;
    if (number == 0) {
        be_a_hog();
        return;
    }
    for (int i = 0; i < TURNS; i++) {
        pyrt_mutex_lock(&wanted);
        pyrt_store_relaxed(&turns, pyrt_load_relaxed(&turns) + (number == 1));
        pyrt_mutex_unlock(&wanted);
    }
}

TEST(a_hog_starves_nobody)
{
    run_crowd(3, hog_or_not, NULL);
    CHECK_UINT(turns, TURNS);
    CHECK_INT(wanted.state, PYRT_MUTEX_UNLOCKED);
}
