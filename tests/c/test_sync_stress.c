/* test_sync_stress.c -- the locks that are made of the parking lot and the mutex, under fire: what they protect is kept in
 * plain words that come out exact, or a check says which did not. Choices are seeded.
 *
 * --break breaks one use of a lock, to show that the test of it can fail:
 *   write-as-reader      rwlock      a writer locks for reading
 *   one-look             condition   who was notified does not look again whether there is anything for it
 *   lose-notification    condition   sometimes nobody is notified; the test hangs, and its guard says so
 *   set-early            event       it is set before what it announces is there
 *   run-again            once        one that is done is made new
 *   skip-lock            recursive_mutex
 *   no-retry             seqlock     a reader takes what it found first
 */
#include "steps.h"
#include "support.h"
#include "workers.h"

#include <string.h>

enum { MANY = 3000 };

static bool
breaks(const char *what)
{
    return test_sabotage() != NULL && strcmp(test_sabotage(), what) == 0;
}

static int
many(void)
{
    return MANY * (int)test_scale();
}

/* A moment in which a wrong neighbour shows. */
static void
dwell(random_stream *random)
{
    if (random_below(random, 16) == 0) {
        sched_yield();
    }
}

static int64_t
short_time(random_stream *random)
{
    return random_below(random, 200000);
}

/* ---- read-write lock --------------------------------------------------------------------------------------------- */

enum { RW_THREADS = 4 };

/* Under the lock: b is always 3 * a, a counts the writes. Plain words, so that the thread sanitizer looks too. */
static struct {
    pyrt_rwlock lock;
    uint64_t a, b;
    uint64_t writes; /* all who wrote add here at their end */
    int running;
} rw;

static bool
rw_lock_for_reading(random_stream *random)
{
    switch (random_below(random, 8)) {
    case 0:
        return pyrt_rwlock_read_trylock(&rw.lock);
    case 1: {
        pyrt_status status = pyrt_rwlock_read_lock_timed(&rw.lock, short_time(random), 0);
        CHECK(status == PYRT_OK || status == PYRT_ETIMEDOUT);
        return status == PYRT_OK;
    }
    default:
        CHECK_OK(pyrt_rwlock_read_lock(&rw.lock));
        return true;
    }
}

static bool
rw_lock_for_writing(random_stream *random)
{
    switch (random_below(random, 4)) {
    case 0:
        return pyrt_rwlock_write_trylock(&rw.lock);
    case 1: {
        pyrt_status status = pyrt_rwlock_write_lock_timed(&rw.lock, short_time(random), 0);
        CHECK(status == PYRT_OK || status == PYRT_ETIMEDOUT);
        return status == PYRT_OK;
    }
    default:
        CHECK_OK(pyrt_rwlock_write_lock(&rw.lock));
        return true;
    }
}

static void
rw_look(random_stream *random)
{
    uint64_t a = rw.a;
    dwell(random);
    if (rw.b != 3 * a) {
        FAIL("a reader sees a pair that is half written: %" PRIu64 ", %" PRIu64, a, rw.b);
    }
}

static void
rw_write(random_stream *random)
{
    uint64_t a = rw.a + 1;
    rw.a = a;
    dwell(random);
    rw.b = 3 * a;
}

static uint64_t
rw_work(random_stream *random, uint32_t writes_in)
{
    if (random_below(random, writes_in) != 0) {
        if (rw_lock_for_reading(random)) {
            rw_look(random);
            pyrt_rwlock_read_unlock(&rw.lock);
        }
        return 0;
    }
    if (breaks("write-as-reader")) {
        CHECK_OK(pyrt_rwlock_read_lock(&rw.lock));
        rw_write(random);
        pyrt_rwlock_read_unlock(&rw.lock);
        return 1;
    }
    if (!rw_lock_for_writing(random)) {
        return 0;
    }
    rw_look(random);
    rw_write(random);
    pyrt_rwlock_write_unlock(&rw.lock);
    return 1;
}

/* Phases of many and of few writes, so that the lock is biased, revoked and biased again. */
static void
rw_run(void *unused, int number)
{
    (void)unused;
    random_stream random = random_for((uint64_t)number);
    uint64_t writes = 0;
    pyrt_thread *thread = number % 2 == 0 ? pyrt_thread_ensure(pyrt_interp_main()) : NULL;
    for (int i = 0; i < many(); i++) {
        writes += rw_work(&random, i / 500 % 2 == 0 ? 4 : 400);
        if (thread != NULL) {
            pyrt_safepoint(thread);
        }
    }
    if (thread != NULL) {
        pyrt_thread_release(thread);
    }
    pyrt_fetch_add_seq_cst(&rw.writes, writes);
    pyrt_fetch_add_seq_cst(&rw.running, -1);
}

/* Who has stopped the world gets the lock: nobody who stands still has it, or what a waiter has of it. */
static void
rw_pause(random_stream *random)
{
    uint64_t writes = 0;
    while (pyrt_load_seq_cst(&rw.running) != 0) {
        CHECK_OK(pyrt_stop_the_world(NULL));
        for (int i = 0; i < 3; i++) {
            writes += rw_work(random, 2);
        }
        pyrt_start_the_world(NULL);
        sched_yield();
    }
    pyrt_fetch_add_seq_cst(&rw.writes, writes);
}

static void
rw_member(void *unused, int number)
{
    if (number < RW_THREADS) {
        rw_run(unused, number);
        return;
    }
    random_stream random = random_for((uint64_t)number);
    rw_pause(&random);
}

TEST(rwlock)
{
    memset(&rw, 0, sizeof(rw));
    rw.running = RW_THREADS;
    runtime_up();
    run_crowd(RW_THREADS + 1, rw_member, NULL);
    runtime_down();
    CHECK_UINT(rw.a, rw.writes);
    CHECK_UINT(rw.b, 3 * rw.writes);
    CHECK_UINT(pyrt_rwlock_readers(&rw.lock), 0);
    CHECK_UINT(pyrt_rwlock_waiters(&rw.lock), 0);
    CHECK(pyrt_rwlock_write_trylock(&rw.lock));
    pyrt_rwlock_write_unlock(&rw.lock);
}

/* ---- condition: a bounded queue ---------------------------------------------------------------------------------- */

enum { ENDS = 3, CAPACITY = 4 };

static struct {
    pyrt_mutex mutex;
    pyrt_condition not_empty, not_full;
    uint64_t items[CAPACITY];
    int first, count;
    uint64_t put, taken; /* sums, under the mutex */
} queue;

static void
queue_wait(pyrt_condition *condition, random_stream *random)
{
    if (random_below(random, 4) != 0) {
        CHECK_OK(pyrt_condition_wait(condition, &queue.mutex));
        return;
    }
    pyrt_status status = pyrt_condition_wait_timed(condition, &queue.mutex, short_time(random), 0);
    CHECK(status == PYRT_OK || status == PYRT_ETIMEDOUT);
}

/* One item, one notification: if it were lost, its thread would sleep for ever. Now and then it is for more than there
 * is. */
static void
queue_notify(pyrt_condition *condition, random_stream *random)
{
    uint32_t choice = random_below(random, 32);
    if (breaks("lose-notification") && choice < 16) {
        return;
    }
    (void)pyrt_condition_notify(condition, choice == 0 ? SIZE_MAX : choice == 1 ? 2 : 1);
}

static void
queue_put(uint64_t item, random_stream *random)
{
    pyrt_mutex_lock(&queue.mutex);
    while (queue.count == CAPACITY) {
        queue_wait(&queue.not_full, random);
    }
    queue.items[(queue.first + queue.count++) % CAPACITY] = item;
    queue.put += item;
    bool locked = random_below(random, 2) == 0;
    if (!locked) {
        pyrt_mutex_unlock(&queue.mutex);
    }
    queue_notify(&queue.not_empty, random);
    if (locked) {
        pyrt_mutex_unlock(&queue.mutex);
    }
}

static void
queue_take(random_stream *random)
{
    pyrt_mutex_lock(&queue.mutex);
    while (queue.count == 0) {
        queue_wait(&queue.not_empty, random);
        if (breaks("one-look")) {
            break;
        }
    }
    if (queue.count == 0) {
        FAIL("the queue is empty");
    }
    queue.taken += queue.items[queue.first];
    queue.first = (queue.first + 1) % CAPACITY;
    queue.count--;
    queue_notify(&queue.not_full, random);
    pyrt_mutex_unlock(&queue.mutex);
}

static void
queue_member(void *unused, int number)
{
    (void)unused;
    random_stream random = random_for((uint64_t)number);
    for (int i = 0; i < many(); i++) {
        if (number % 2 == 0) {
            queue_put(random_next(&random), &random);
        }
        else {
            queue_take(&random);
        }
    }
}

TEST(condition)
{
    memset(&queue, 0, sizeof(queue));
    run_crowd(2 * ENDS, queue_member, NULL);
    CHECK_INT(queue.count, 0);
    CHECK_UINT(queue.taken, queue.put);
}

/* ---- condition: as many come back as were notified ----------------------------------------------------------------- */

enum { COUNTED = 4 };

static struct {
    pyrt_mutex mutex;
    pyrt_condition condition;
    int waiting, notified, timed_out; /* under the mutex */
    int running;
} counted;

static void
counted_wait(random_stream *random)
{
    pyrt_mutex_lock(&counted.mutex);
    counted.waiting++;
    pyrt_status status = pyrt_condition_wait_timed(&counted.condition, &counted.mutex, 1 + short_time(random), 0);
    counted.waiting--;
    CHECK(status == PYRT_OK || status == PYRT_ETIMEDOUT);
    counted.notified += status == PYRT_OK;
    pyrt_mutex_unlock(&counted.mutex);
}

static void
counted_member(void *arg, int number)
{
    int64_t *chosen = arg;
    random_stream random = random_for((uint64_t)number);
    if (number < COUNTED) {
        for (int i = 0; i < many(); i++) {
            counted_wait(&random);
        }
        pyrt_fetch_add_seq_cst(&counted.running, -1);
        return;
    }
    while (pyrt_load_seq_cst(&counted.running) != 0) {
        *chosen += (int64_t)pyrt_condition_notify(&counted.condition, 1 + random_below(&random, 3));
        sched_yield();
    }
}

TEST(condition_counts)
{
    int64_t chosen = 0;
    memset(&counted, 0, sizeof(counted));
    counted.running = COUNTED;
    run_crowd(COUNTED + 1, counted_member, &chosen);
    CHECK_INT(counted.notified, chosen);
    CHECK_INT(counted.waiting, 0);
}

/* ---- event ------------------------------------------------------------------------------------------------------- */

enum { ROUNDS = 400, EVENT_THREADS = 4 };

static struct {
    pyrt_event events[ROUNDS];
    uint64_t data[ROUNDS]; /* plain: announced by the event */
} news;

static void
news_wait(pyrt_event *event, random_stream *random)
{
    switch (random_below(random, 3)) {
    case 0:
        while (pyrt_event_wait_timed(event, short_time(random), 0) == PYRT_ETIMEDOUT) {
        }
        return;
    case 1:
        CHECK_OK(pyrt_event_wait_timed(event, -1, PYRT_LOCK_NO_DETACH));
        return;
    default:
        pyrt_event_wait(event);
    }
}

static void
news_member(void *arg, int number)
{
    uint64_t *sums = arg;
    random_stream random = random_for((uint64_t)number);
    for (int i = 0; i < ROUNDS; i++) {
        if (i % EVENT_THREADS == number) {
            bool early = breaks("set-early");
            if (early) {
                pyrt_event_set(&news.events[i]);
                sched_yield();
            }
            news.data[i] = (uint64_t)i + 1;
            if (!early) {
                pyrt_event_set(&news.events[i]);
            }
        }
        news_wait(&news.events[i], &random);
        sums[number] += news.data[i];
    }
}

TEST(event)
{
    for (int i = 0; i < 5 * (int)test_scale(); i++) {
        uint64_t sums[EVENT_THREADS] = {0};
        memset(&news, 0, sizeof(news));
        run_crowd(EVENT_THREADS, news_member, sums);
        for (int t = 0; t < EVENT_THREADS; t++) {
            CHECK_UINT(sums[t], (uint64_t)ROUNDS * (ROUNDS + 1) / 2);
        }
    }
}

/* ---- once -------------------------------------------------------------------------------------------------------- */

typedef struct try {
    int number;
    uint32_t failures; /* so many before it succeeds */
} try;

static struct {
    pyrt_once onces[ROUNDS];
    int runs[ROUNDS]; /* plain: only one runs it at a time */
    int done[ROUNDS];
    int failed; /* runs that failed */
    int told; /* callers that were told */
} first;

static pyrt_status
first_run(void *arg)
{
    const try *this = arg;
    int runs = first.runs[this->number];
    sched_yield();
    first.runs[this->number] = runs + 1;
    if ((uint32_t)runs < this->failures) {
        pyrt_fetch_add_seq_cst(&first.failed, 1);
        return PYRT_EEXIST;
    }
    first.done[this->number]++;
    return PYRT_OK;
}

static void
first_member(void *unused, int number)
{
    (void)unused;
    random_stream random = random_for((uint64_t)number);
    for (int i = 0; i < ROUNDS; i++) {
        try this = {i, (uint32_t)i % 3};
        pyrt_status status;
        do {
            status = random_below(&random, 2) == 0
                         ? pyrt_once_call(&first.onces[i], first_run, &this)
                         : pyrt_once_call_timed(&first.onces[i], first_run, &this, short_time(&random), 0);
            pyrt_fetch_add_seq_cst(&first.told, status == PYRT_EEXIST);
        } while (status != PYRT_OK);
        CHECK_INT(first.done[i], 1);
        if (breaks("run-again") && i % 16 == 0) {
            pyrt_store_release(&first.onces[i].state, (uint8_t)PYRT_ONCE_NEW);
        }
    }
}

TEST(once)
{
    memset(&first, 0, sizeof(first));
    run_crowd(4, first_member, NULL);
    for (int i = 0; i < ROUNDS; i++) {
        CHECK_INT(first.done[i], 1);
        CHECK_INT(first.runs[i], 1 + i % 3);
    }
    CHECK_INT(first.told, first.failed);
}

/* ---- recursive mutex --------------------------------------------------------------------------------------------- */

static struct {
    pyrt_recursive_mutex mutex;
    uint64_t count; /* plain */
    uint64_t all;
} nested;

static bool
nested_lock(random_stream *random)
{
    switch (random_below(random, 4)) {
    case 0:
        return pyrt_recursive_mutex_trylock(&nested.mutex);
    case 1:
        return pyrt_recursive_mutex_lock_timed(&nested.mutex, short_time(random), 0) == PYRT_OK;
    default:
        pyrt_recursive_mutex_lock(&nested.mutex);
        return true;
    }
}

static void
nested_member(void *unused, int number)
{
    (void)unused;
    random_stream random = random_for((uint64_t)number);
    uint64_t counted_here = 0;
    for (int i = 0; i < many(); i++) {
        size_t depth = 0;
        for (uint32_t wanted = 1 + random_below(&random, 4); depth < wanted && nested_lock(&random); depth++) {
            CHECK_UINT(pyrt_recursive_mutex_depth(&nested.mutex), depth + 1);
        }
        if (depth != 0 || (breaks("skip-lock") && i % 8 == 0)) {
            uint64_t count = nested.count;
            dwell(&random);
            nested.count = count + 1;
            counted_here++;
        }
        for (; depth != 0; depth--) {
            pyrt_recursive_mutex_unlock(&nested.mutex);
        }
        CHECK(!pyrt_recursive_mutex_is_owned(&nested.mutex));
    }
    pyrt_fetch_add_seq_cst(&nested.all, counted_here);
}

TEST(recursive_mutex)
{
    memset(&nested, 0, sizeof(nested));
    run_crowd(4, nested_member, NULL);
    CHECK_UINT(nested.count, nested.all);
}

/* ---- sequence lock ----------------------------------------------------------------------------------------------- */

static struct {
    pyrt_seqlock lock;
    uint64_t a, b;
    int writing;
} pair;

static void
pair_read(random_stream *random)
{
    uint64_t begun;
    uint64_t a;
    uint64_t b;
    do {
        begun = pyrt_seqlock_read_begin(&pair.lock);
        a = pyrt_load_acquire(&pair.a);
        dwell(random);
        b = pyrt_load_acquire(&pair.b);
    } while (pyrt_seqlock_read_retry(&pair.lock, begun) && !breaks("no-retry"));
    if (b != 3 * a) {
        FAIL("a reader keeps a pair that does not belong together: %" PRIu64 ", %" PRIu64, a, b);
    }
}

static void
pair_member(void *unused, int number)
{
    (void)unused;
    random_stream random = random_for((uint64_t)number);
    if (number >= 2) {
        while (pyrt_load_seq_cst(&pair.writing) != 0) {
            pair_read(&random);
        }
        return;
    }
    for (int i = 0; i < many(); i++) {
        pyrt_seqlock_write_lock(&pair.lock);
        uint64_t a = pyrt_load_relaxed(&pair.a) + 1;
        pyrt_store_release(&pair.a, a);
        dwell(&random);
        pyrt_store_release(&pair.b, 3 * a);
        pyrt_seqlock_write_unlock(&pair.lock);
    }
    pyrt_fetch_add_seq_cst(&pair.writing, -1);
}

TEST(seqlock)
{
    memset(&pair, 0, sizeof(pair));
    pair.writing = 2;
    run_crowd(4, pair_member, NULL);
    CHECK_UINT(pair.a, 2 * (uint64_t)many());
    CHECK_UINT(pair.lock.sequence, 4 * (uint64_t)many());
}
