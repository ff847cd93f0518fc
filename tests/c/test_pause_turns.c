/* test_pause_turns.c -- nobody starves, neither those who want to attach nor those who want to stop the world, however close
 * pauses follow each other; and what the statistics say (stop_the_world.h).
 *
 * Who is woken has its turn for a bounded time. On a busy machine that may not be enough; then the library says that a turn
 * was lost, and so often something else may be seen than order.
 */
#include "support.h"

#include "state/pause.h"
#include "steps.h"
#include "workers.h"

static const int64_t FOR_EVER = -1;

static pyrt_pause_stats
stats_of(pyrt_interp *or_null)
{
    pyrt_pause_stats stats = {.struct_size = sizeof(stats)};
    CHECK_OK(pyrt_stop_the_world_stats(or_null, &stats));
    return stats;
}

/* ---- between two pauses -------------------------------------------------------------------------------------------- */

enum { VISITORS = 4 };

static struct {
    uint64_t pauses; /* that have been complete */
    uint64_t extra; /* pauses that visitors waited through, beyond the one that each may have found */
    int visitors; /* that have not finished */
    int visits;
} traffic;

/* Of the calling OS thread: what `pauses` was when it first went to sleep. */
static __thread uint64_t asleep_since;
static __thread bool slept;

static void *
note_sleep(void)
{
    if (!slept) {
        slept = true;
        asleep_since = pyrt_load_relaxed(&traffic.pauses);
    }
    return NULL;
}

static void
visit(void)
{
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    for (int i = 0; i < traffic.visits; i++) {
        slept = false;
        pyrt_attach(thread);
        /* The pause that it found may not have been counted yet. */
        uint64_t through = slept ? pyrt_load_relaxed(&traffic.pauses) - asleep_since : 0;
        if (through > 1) {
            (void)pyrt_fetch_add_relaxed(&traffic.extra, through - 1);
        }
        if (i % 2 == 0) {
            pyrt_safepoint(thread);
        }
        pyrt_detach(thread);
    }
    pyrt_fetch_add_seq_cst(&traffic.visitors, -1);
    pyrt_thread_delete(thread);
}

static void
be_in_the_traffic(void *interp, int number)
{
    if (number < VISITORS) {
        visit();
        return;
    }
    while (pyrt_load_seq_cst(&traffic.visitors) != 0) {
        CHECK_OK(pyrt_stop_the_world(interp));
        (void)pyrt_fetch_add_relaxed(&traffic.pauses, (uint64_t)1);
        pyrt_start_the_world(interp);
    }
}

static void
visit_between_pauses(bool all)
{
    runtime_up();
    traffic.pauses = traffic.extra = 0;
    traffic.visitors = VISITORS;
    traffic.visits = 300 * (int)test_scale();
    pyrt_set_block_hooks(&(pyrt_block_hooks){note_sleep, NULL});
    pyrt_interp *what = all ? NULL : pyrt_interp_main();
    run_crowd(VISITORS + 1, be_in_the_traffic, what);
    pyrt_set_block_hooks(NULL);
    pyrt_pause_stats stats = stats_of(what);
    CHECK_UINT(stats.pauses, traffic.pauses);
    if (traffic.extra > stats.turns_lost) {
        FAIL("threads waited through %" PRIu64 " pauses more than they had to, and %" PRIu64 " turns were lost",
             traffic.extra, stats.turns_lost);
    }
    runtime_down();
}

TEST(who_waits_to_attach_gets_through_between_two_pauses)
{
    visit_between_pauses(false);
    visit_between_pauses(true);
}

/* ---- a host that holds threads up ---------------------------------------------------------------------------------- */

static int may_go_on;
static __thread bool is_held_up;

static void
hold_up_some(void *saved)
{
    (void)saved;
    if (is_held_up) {
        WAIT_UNTIL(pyrt_load_seq_cst(&may_go_on) != 0);
    }
}

static void
attach_held_up(void *thread)
{
    is_held_up = true;
    pyrt_attach(thread);
}

static void
stop_and_start(void *interp)
{
    CHECK_OK(pyrt_stop_the_world(interp));
    pyrt_start_the_world(interp);
}

static void
stop_held_up(void *interp)
{
    is_held_up = true;
    stop_and_start(interp);
}

/* It has been let go and cannot come: it loses its turn, and pauses do not wait for it for ever. */
TEST(a_thread_that_its_host_holds_up_loses_its_turn)
{
    worker w;
    pyrt_thread *thread;
    may_go_on = 0;
    runtime_up();
    worker_start(&w);
    worker_do(&w, make_state, &thread);
    pyrt_interp *main = pyrt_interp_main();
    CHECK_OK(pyrt_stop_the_world(main));
    pyrt_set_block_hooks(&(pyrt_block_hooks){NULL, hold_up_some});
    worker_begin(&w, attach_held_up, thread);
    WAIT_UNTIL(pyrt_load_seq_cst(&thread->slot.word) == PYRT_STATE_SUSPENDED_WAITED);
    pyrt_start_the_world(main);
    CHECK_UINT(stats_of(main).turns_lost, 0);
    /* Waits for as long as a turn lasts. */
    CHECK_OK(pyrt_stop_the_world(main));
    CHECK_UINT(stats_of(main).turns_lost, 1);
    CHECK_INT(state_of(thread), PYRT_STATE_SUSPENDED);
    pyrt_start_the_world(main);
    /* It does not wait, as far as one can see: it has no turn. */
    CHECK_OK(pyrt_stop_the_world_timed(main, 0, NULL));
    CHECK_UINT(stats_of(main).turns_lost, 1);
    pyrt_exchange_seq_cst(&may_go_on, 1);
    WAIT_UNTIL(pyrt_load_seq_cst(&thread->slot.word) == PYRT_STATE_SUSPENDED_WAITED);
    pyrt_exchange_seq_cst(&may_go_on, 0);
    pyrt_start_the_world(main);
    /* A request without time leaves nobody a turn. */
    CHECK_OK(pyrt_stop_the_world_timed(main, 0, NULL));
    CHECK_UINT(stats_of(main).turns_lost, 2);
    pyrt_exchange_seq_cst(&may_go_on, 1);
    pyrt_start_the_world(main);
    worker_finish(&w);
    pyrt_set_block_hooks(NULL);
    worker_do(&w, detach, thread);
    worker_do(&w, delete_state, thread);
    worker_end(&w);
    runtime_down();
}

static bool
somebody_sleeps_in_the_queue(void)
{
    pyrt_raw_mutex_lock(&pyrt_the_registry.lock);
    bool sleeps = pyrt_the_registry.turns != NULL && pyrt_the_registry.turns->awake_since == 0;
    pyrt_raw_mutex_unlock(&pyrt_the_registry.lock);
    return sleeps;
}

/* It has been woken and has the first place in the queue; the others go on without it. */
TEST(a_requester_that_its_host_holds_up_holds_up_nobody)
{
    worker stuck;
    worker next;
    may_go_on = 0;
    runtime_up();
    worker_start(&stuck);
    worker_start(&next);
    CHECK_OK(pyrt_stop_the_world(NULL));
    pyrt_set_block_hooks(&(pyrt_block_hooks){NULL, hold_up_some});
    worker_begin(&stuck, stop_held_up, NULL);
    WAIT_UNTIL(somebody_sleeps_in_the_queue());
    pyrt_start_the_world(NULL);
    worker_do(&next, stop_and_start, pyrt_interp_main());
    worker_do(&next, stop_and_start, NULL);
    CHECK_UINT(stats_of(NULL).pauses, 2);
    CHECK_UINT(stats_of(NULL).turns_lost, 1);
    CHECK_UINT(stats_of(pyrt_interp_main()).turns_lost, 1);
    pyrt_exchange_seq_cst(&may_go_on, 1);
    worker_finish(&stuck);
    pyrt_set_block_hooks(NULL);
    CHECK_UINT(stats_of(NULL).pauses, 3);
    worker_end(&stuck);
    worker_end(&next);
    runtime_down();
}

static void
end_some(void *saved)
{
    (void)saved;
    if (is_held_up) {
        pthread_exit(NULL);
    }
}

TEST(a_requester_may_end_in_the_queue)
{
    worker ends;
    runtime_up();
    worker_start(&ends);
    CHECK_OK(pyrt_stop_the_world(NULL));
    pyrt_set_block_hooks(&(pyrt_block_hooks){NULL, end_some});
    worker_begin(&ends, stop_held_up, NULL);
    WAIT_UNTIL(somebody_sleeps_in_the_queue());
    pyrt_start_the_world(NULL);
    worker_join_exited(&ends);
    CHECK(pyrt_the_registry.turns == NULL);
    pyrt_set_block_hooks(NULL);
    stop_and_start(NULL);
    CHECK_UINT(stats_of(NULL).turns_lost, 0);
    runtime_down();
}

/* ---- the order of requests ----------------------------------------------------------------------------------------- */

enum { REQUESTS = 6 };

typedef struct request {
    pyrt_interp *what;
    int came;
} request;

static int arrivals;

static void
pause_and_note(void *arg)
{
    request *asked = arg;
    CHECK_OK(pyrt_stop_the_world(asked->what));
    asked->came = pyrt_fetch_add_seq_cst(&arrivals, 1);
    pyrt_start_the_world(asked->what);
}

TEST(requests_have_their_turn_in_the_order_in_which_they_came)
{
    worker w[REQUESTS];
    runtime_up();
    pyrt_interp *main = pyrt_interp_main();
    request asked[REQUESTS] = {{NULL, 0}, {main, 0}, {NULL, 0}, {main, 0}, {main, 0}, {NULL, 0}};
    arrivals = 0;
    CHECK_OK(pyrt_stop_the_world(main));
    watch_sleepers();
    for (int i = 0; i < REQUESTS; i++) {
        worker_start(&w[i]);
        worker_begin(&w[i], pause_and_note, &asked[i]);
        WAIT_UNTIL(sleepers() == i + 1);
    }
    pyrt_start_the_world(main);
    bool in_order = true;
    for (int i = 0; i < REQUESTS; i++) {
        worker_end(&w[i]);
        in_order &= asked[i].came == i;
    }
    stop_watching_sleepers();
    CHECK_INT(arrivals, REQUESTS);
    CHECK(in_order || stats_of(NULL).turns_lost + stats_of(main).turns_lost != 0);
    CHECK_UINT(stats_of(NULL).pauses, 3);
    CHECK_UINT(stats_of(main).pauses, 4);
    runtime_down();
}

/* One of an interpreter that nobody else wants need not wait behind one of another. */
TEST(requests_that_do_not_exclude_each_other_overtake)
{
    worker waits;
    worker passes;
    runtime_up();
    pyrt_interp *main = pyrt_interp_main();
    pause_call first = {.interp = main, .timeout_ns = FOR_EVER};
    pause_call other = {.interp = pyrt_interp_new(NULL), .timeout_ns = FOR_EVER};
    CHECK_OK(pyrt_stop_the_world(main));
    worker_start(&waits);
    worker_start(&passes);
    watch_sleepers();
    worker_begin(&waits, stop_as_called, &first);
    WAIT_UNTIL(sleepers() == 1);
    worker_do(&passes, stop_as_called, &other);
    CHECK_OK(other.status);
    worker_do(&passes, start_as_called, &other);
    pyrt_start_the_world(main);
    worker_finish(&waits);
    CHECK_OK(first.status);
    worker_do(&waits, start_as_called, &first);
    stop_watching_sleepers();
    worker_end(&waits);
    worker_end(&passes);
    runtime_down();
}

/* ---- statistics ---------------------------------------------------------------------------------------------------- */

TEST(statistics_want_a_runtime_and_a_struct_of_the_right_size)
{
    pyrt_pause_stats stats = {.struct_size = sizeof(stats)};
    CHECK_STATUS(pyrt_stop_the_world_stats(NULL, &stats), PYRT_ESTATE);
    runtime_up();
    CHECK_STATUS(pyrt_stop_the_world_stats(NULL, NULL), PYRT_EINVAL);
    stats.struct_size--;
    CHECK_STATUS(pyrt_stop_the_world_stats(NULL, &stats), PYRT_EINVAL);
    runtime_down();
}

TEST(pauses_of_the_process_and_of_each_interpreter_are_counted)
{
    worker w;
    pyrt_thread *thread;
    runtime_up();
    pyrt_interp *main = pyrt_interp_main();
    pyrt_interp *other = pyrt_interp_new(NULL);
    CHECK_UINT(stats_of(NULL).pauses, 0);
    CHECK_INT(stats_of(NULL).to_stop_max_ns, 0);
    for (int i = 0; i < 3; i++) {
        stop_and_start(other);
    }
    stop_and_start(NULL);
    worker_start(&w);
    worker_do(&w, attach_new, &thread);
    CHECK_STATUS(pyrt_stop_the_world_timed(main, 0, NULL), PYRT_ETIMEDOUT);
    worker_do(&w, delete_attached, thread);
    worker_end(&w);
    CHECK_UINT(stats_of(NULL).pauses, 1);
    CHECK_UINT(stats_of(main).pauses, 0);
    CHECK_UINT(stats_of(main).timed_out, 1);
    pyrt_pause_stats stats = stats_of(other);
    CHECK_UINT(stats.pauses, 3);
    CHECK_UINT(stats.timed_out + stats.turns_lost, 0);
    CHECK(0 < stats.to_stop_p50_ns && stats.to_stop_p50_ns <= stats.to_stop_p99_ns);
    CHECK(stats.to_stop_p99_ns <= stats.to_stop_max_ns);
    CHECK(0 < stats.stopped_p50_ns && stats.stopped_p50_ns <= stats.stopped_p99_ns);
    CHECK(stats.stopped_p99_ns <= stats.stopped_max_ns && stats.stopped_max_ns <= stats.stopped_total_ns);
    runtime_down();
    runtime_up();
    CHECK_UINT(stats_of(NULL).pauses, 0);
    runtime_down();
}

/* Exactly below 16, at most an eighth too long above. */
TEST(percentiles_of_known_times)
{
    runtime_up();
    pyrt_interp *main = pyrt_interp_main();
    pyrt_pause *pause = &main->own_pause;
    int64_t total = 0;
    for (int64_t ns = 1; ns <= 10; ns++) {
        pause->asked_at = 0;
        pyrt_pause_count_stop(pause, ns);
        pyrt_pause_count_start(pause, ns + 1000 * ns);
        total += 1000 * ns;
    }
    CHECK_INT(stats_of(main).to_stop_p50_ns, 5);
    CHECK_INT(stats_of(main).to_stop_p99_ns, 10);
    CHECK_INT(stats_of(main).to_stop_max_ns, 10);
    CHECK(stats_of(main).stopped_p50_ns >= 5000 && stats_of(main).stopped_p50_ns <= 5000 + 5000 / 8);
    CHECK_INT(stats_of(main).stopped_max_ns, 10000);
    CHECK_INT(stats_of(main).stopped_total_ns, total);
    for (int bit = 0; bit < 63; bit++) {
        pyrt_interp *fresh = pyrt_interp_new(NULL);
        int64_t ns = (int64_t)1 << bit;
        for (int i = 0; i < 3; i++) {
            fresh->own_pause.asked_at = 0;
            pyrt_pause_count_stop(&fresh->own_pause, i == 2 ? INT64_MAX : ns);
        }
        fresh->own_pause.stopped_at = 0;
        int64_t p50 = stats_of(fresh).to_stop_p50_ns;
        CHECK(p50 >= ns && (bit > 42 || p50 <= ns + ns / 8));
        CHECK_INT(stats_of(fresh).to_stop_max_ns, INT64_MAX);
        CHECK_OK(pyrt_interp_delete(fresh));
    }
    runtime_down();
}
