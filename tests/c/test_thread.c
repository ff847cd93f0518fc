/* test_thread.c -- thread states: birth, end, look-up, names, indexes, and wrong ends (thread.h, "thread states"). */
#include "support.h"

#include "faults.h"
#include "platform/meta_alloc.h"
#include "state/index_pool.h"
#include "steps.h"
#include "workers.h"

#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int32_t
own_tid(void)
{
    return (int32_t)syscall(SYS_gettid);
}

static pyrt_thread_info
info_of(pyrt_thread *thread)
{
    pyrt_thread_info infos[64];
    size_t count = pyrt_thread_list(thread->interp, infos, 64);
    for (size_t i = 0; i < count; i++) {
        if (infos[i].id == thread->id) {
            return infos[i];
        }
    }
    FAIL("thread %" PRIu64 " is not listed", thread->id);
}

/* ---- birth ------------------------------------------------------------------------------------------------------- */

TEST(a_new_state_is_detached_and_belongs_to_its_os_thread)
{
    runtime_up();
    pyrt_interp *main = pyrt_interp_main();
    CHECK_PTR(pyrt_thread_find(main), NULL);
    pyrt_thread *thread = pyrt_thread_new(main);
    CHECK(thread != NULL);
    CHECK_PTR(pyrt_thread_current(), NULL);
    CHECK_PTR(pyrt_thread_find(main), thread);
    CHECK_PTR(thread->interp, main);
    CHECK_INT(thread->index, 0);
    CHECK(thread->os_id != 0);
    CHECK_UINT(thread->os_id, pyrt_tls()->os_id);
    CHECK_UINT(pyrt_tls()->self_id, 0);
    CHECK_UINT(thread->slot.word, PYRT_STATE_DETACHED);
    CHECK_UINT(thread->slot.flags, 0);
    pyrt_thread_info info = info_of(thread);
    CHECK_INT(info.interp_id, 0);
    CHECK_INT(info.index, 0);
    CHECK_INT(info.os_tid, own_tid());
    CHECK_INT(info.state, PYRT_STATE_DETACHED);
    pyrt_thread_delete(thread);
    CHECK_PTR(pyrt_thread_find(main), NULL);
    CHECK_UINT(pyrt_thread_list(main, NULL, 0), 0);
    runtime_down();
}

TEST(there_is_no_state_without_an_interpreter)
{
    CHECK_PTR(pyrt_thread_new(NULL), NULL);
    CHECK_PTR(pyrt_thread_ensure(NULL), NULL);
    CHECK_PTR(pyrt_thread_find(NULL), NULL);
    CHECK_UINT(pyrt_thread_list(NULL, NULL, 0), 0);
}

TEST(an_os_thread_may_have_a_state_for_each_interpreter)
{
    runtime_up();
    pyrt_interp *other = pyrt_interp_new(NULL);
    pyrt_thread *a = pyrt_thread_new(pyrt_interp_main());
    pyrt_thread *b = pyrt_thread_new(other);
    CHECK(a != b);
    CHECK_UINT(a->os_id, b->os_id);
    CHECK_PTR(pyrt_thread_find(pyrt_interp_main()), a);
    CHECK_PTR(pyrt_thread_find(other), b);
    pyrt_thread_delete(a);
    CHECK_PTR(pyrt_thread_find(pyrt_interp_main()), NULL);
    CHECK_PTR(pyrt_thread_find(other), b);
    pyrt_thread_delete(b);
    runtime_down();
}

static void
note_ids(void *arg)
{
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    uint64_t *ids = arg;
    ids[0] = thread->id;
    ids[1] = thread->os_id;
    pyrt_thread_delete(thread);
}

TEST(ids_are_never_reused)
{
    uint64_t last[2] = {0, 0};
    for (int round = 0; round < 3; round++) {
        runtime_up();
        for (int i = 0; i < 5; i++) {
            uint64_t ids[2];
            worker w;
            worker_start(&w);
            worker_do(&w, note_ids, ids);
            worker_end(&w);
            CHECK(ids[0] > last[0] && ids[1] > last[1]);
            last[0] = ids[0];
            last[1] = ids[1];
        }
        runtime_down();
    }
}

TEST(the_index_is_the_smallest_free_one)
{
    enum { THREADS = 6 };
    worker w[THREADS];
    pyrt_thread *threads[THREADS];
    runtime_up();
    for (int i = 0; i < THREADS; i++) {
        worker_start(&w[i]);
        worker_do(&w[i], make_state, &threads[i]);
        CHECK_INT(threads[i]->index, i);
    }
    const int leaving[] = {4, 1, 3};
    for (int i = 0; i < 3; i++) {
        worker_do(&w[leaving[i]], delete_state, threads[leaving[i]]);
    }
    const int coming[] = {3, 4, 1};
    const int32_t wanted[] = {1, 3, 4};
    for (int i = 0; i < 3; i++) {
        worker_do(&w[coming[i]], make_state, &threads[coming[i]]);
        CHECK_INT(threads[coming[i]]->index, wanted[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        worker_do(&w[i], delete_state, threads[i]);
        worker_end(&w[i]);
    }
    runtime_down();
}

/* One OS thread with a state in each of many interpreters has index 0 in all. */
TEST(indexes_are_each_interpreters_own)
{
    runtime_up();
    pyrt_thread *threads[10];
    for (int i = 0; i < 10; i++) {
        threads[i] = pyrt_thread_new(pyrt_interp_new(NULL));
        CHECK_INT(threads[i]->index, 0);
    }
    for (int i = 0; i < 10; i++) {
        pyrt_thread_delete(threads[i]);
    }
    runtime_down();
}

static void
hold_an_index(void *arg, int number)
{
    (void)number;
    struct {
        pthread_barrier_t all_have_one;
        int32_t *indexes;
    } *shared = arg;
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    CHECK(thread != NULL);
    pyrt_fetch_add_seq_cst(&shared->indexes[thread->index], 1);
    pthread_barrier_wait(&shared->all_have_one);
    pyrt_thread_delete(thread);
}

TEST(many_living_states_have_all_indexes_from_0_on)
{
    enum { MANY = 80 };
    int32_t taken[MANY] = {0};
    struct {
        pthread_barrier_t all_have_one;
        int32_t *indexes;
    } shared = {.indexes = taken};
    pthread_barrier_init(&shared.all_have_one, NULL, MANY);
    runtime_up();
    run_crowd(MANY, hold_an_index, &shared);
    for (int i = 0; i < MANY; i++) {
        CHECK_INT(taken[i], 1);
    }
    runtime_down();
    pthread_barrier_destroy(&shared.all_have_one);
}

/* ---- names and the list ------------------------------------------------------------------------------------------ */

static void
name_then_make(void *out)
{
    prctl(PR_SET_NAME, "worker-bee");
    make_state(out);
}

TEST(the_name_is_the_os_threads_until_set)
{
    pyrt_thread *thread;
    worker w;
    runtime_up();
    worker_start(&w);
    worker_do(&w, name_then_make, &thread);
    CHECK_STR(info_of(thread).name, "worker-bee");
    pyrt_thread_set_name(thread, "queen");
    CHECK_STR(info_of(thread).name, "queen");
    pyrt_thread_set_name(thread, "a name that is longer than thirty-one bytes");
    CHECK_STR(info_of(thread).name, "a name that is longer than thir");
    worker_do(&w, delete_state, thread);
    worker_end(&w);
    runtime_down();
}

TEST(the_list_says_how_many_there_are_and_writes_no_more_than_asked)
{
    enum { THREADS = 5 };
    worker w[THREADS];
    pyrt_thread *threads[THREADS];
    runtime_up();
    for (int i = 0; i < THREADS; i++) {
        worker_start(&w[i]);
        worker_do(&w[i], make_state, &threads[i]);
    }
    pyrt_thread_info infos[THREADS + 1];
    memset(infos, 0x5a, sizeof(infos));
    pyrt_thread_info untouched = infos[2];
    CHECK_UINT(pyrt_thread_list(pyrt_interp_main(), infos, 2), THREADS);
    CHECK(memcmp(&infos[2], &untouched, sizeof(untouched)) == 0);
    CHECK_UINT(pyrt_thread_list(pyrt_interp_main(), infos, THREADS + 1), THREADS);
    CHECK_UINT(pyrt_thread_list(pyrt_interp_main(), NULL, THREADS), THREADS);
    unsigned found = 0;
    for (int i = 0; i < THREADS; i++) {
        CHECK(infos[i].index >= 0 && infos[i].index < THREADS);
        found |= 1u << infos[i].index;
        CHECK_UINT(infos[i].id, threads[infos[i].index]->id);
    }
    CHECK_UINT(found, (1u << THREADS) - 1);
    for (int i = 0; i < THREADS; i++) {
        worker_do(&w[i], delete_state, threads[i]);
        worker_end(&w[i]);
    }
    runtime_down();
}

/* ---- wrong ends, each reported, each without effect ---------------------------------------------------------------- */

static void
check_alive(pyrt_thread *thread)
{
    CHECK_UINT(pyrt_thread_list(thread->interp, NULL, 0), 1);
    CHECK_PTR(pyrt_thread_find(thread->interp), thread);
    CHECK_UINT(info_of(thread).id, thread->id);
}

TEST(null_is_no_state_to_delete)
{
    pyrt_thread_delete(NULL);
}

TEST(an_attached_state_is_not_deleted)
{
    runtime_up();
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    pyrt_attach(thread);
    pyrt_thread_delete(thread);
    EXPECT_REPORT("pyrt_thread_delete", named(thread), "attached");
    CHECK_PTR(pyrt_thread_current(), thread);
    check_alive(thread);
    pyrt_detach(thread);
    pyrt_thread_delete(thread);
    runtime_down();
}

TEST(another_os_threads_state_is_not_deleted)
{
    worker w;
    runtime_up();
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    worker_start(&w);
    worker_do(&w, delete_state, thread);
    EXPECT_REPORT("pyrt_thread_delete", named(thread), "another OS thread");
    pyrt_thread *others;
    worker_do(&w, make_state, &others);
    pyrt_thread_delete(others);
    EXPECT_REPORT("pyrt_thread_delete", named(others), "another OS thread");
    worker_do(&w, delete_state, others);
    worker_end(&w);
    check_alive(thread);
    pyrt_thread_delete(thread);
    runtime_down();
}

TEST(a_state_inside_ensure_is_not_deleted)
{
    runtime_up();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_detach(thread);
    pyrt_thread_delete(thread);
    EXPECT_REPORT("pyrt_thread_delete", named(thread), "ensure");
    check_alive(thread);
    pyrt_attach(thread);
    pyrt_thread_release(thread);
    runtime_down();
}

/* The release of the newest ensure would attach it again. */
TEST(a_state_that_an_ensure_found_is_not_deleted)
{
    runtime_up();
    pyrt_thread *found = pyrt_thread_new(pyrt_interp_main());
    pyrt_attach(found);
    pyrt_thread *newer = pyrt_thread_ensure(pyrt_interp_new(NULL));
    pyrt_thread_delete(found);
    EXPECT_REPORT("pyrt_thread_delete", named(found), "ensure");
    check_alive(found);
    pyrt_thread_release(newer);
    CHECK_PTR(pyrt_thread_current(), found);
    pyrt_detach(found);
    pyrt_thread_delete(found);
    runtime_down();
}

static pyrt_thread *in_disposal;

static void
delete_own_thread(void *p)
{
    *(int *)p += 1;
    pyrt_detach(in_disposal);
    pyrt_thread_delete(in_disposal);
    EXPECT_REPORT("pyrt_thread_delete", named(in_disposal), "disposer");
    pyrt_attach(in_disposal);
}

TEST(a_state_is_not_deleted_inside_its_disposer)
{
    int disposed = 0;
    runtime_up();
    in_disposal = pyrt_thread_new(pyrt_interp_main());
    pyrt_attach(in_disposal);
    CHECK_OK(pyrt_retire(in_disposal, &disposed, 1, delete_own_thread));
    CHECK_OK(pyrt_qsbr_barrier(in_disposal));
    CHECK_INT(disposed, 1);
    check_alive(in_disposal);
    pyrt_detach(in_disposal);
    pyrt_thread_delete(in_disposal);
    runtime_down();
}

static pyrt_thread *put_aside;

static void
delete_what_was_put_aside(void *bytes)
{
    (void)bytes;
    pyrt_thread *aside = put_aside;
    put_aside = NULL;
    if (aside != NULL) {
        pyrt_thread_delete(aside);
        EXPECT_REPORT("pyrt_thread_delete", named(aside), "a call further out returns to it");
        check_alive(aside);
    }
}

/* The delete of the one attaches the other again when it is done. */
TEST(a_state_that_was_put_aside_for_an_end_is_not_deleted)
{
    runtime_up();
    CHECK(pyrt_thread_slot_new(NULL, delete_what_was_put_aside, 0) >= 0);
    pyrt_thread *ending = pyrt_thread_new(pyrt_interp_new(NULL));
    pyrt_thread *other = pyrt_thread_new(pyrt_interp_main());
    pyrt_attach(other);
    put_aside = other;
    pyrt_thread_delete(ending);
    CHECK_PTR(put_aside, NULL);
    CHECK_PTR(pyrt_thread_current(), other);
    pyrt_detach(other);
    pyrt_thread_delete(other);
    runtime_down();
}

TEST(a_state_is_deleted_while_another_one_is_attached)
{
    runtime_up();
    pyrt_thread *a = pyrt_thread_new(pyrt_interp_main());
    pyrt_thread *b = pyrt_thread_new(pyrt_interp_new(NULL));
    pyrt_attach(b);
    pyrt_thread_delete(a);
    CHECK_PTR(pyrt_thread_current(), b);
    CHECK_PTR(pyrt_thread_find(pyrt_interp_main()), NULL);
    pyrt_detach(b);
    pyrt_thread_delete(b);
    runtime_down();
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

TEST(states_that_come_and_go_need_no_new_memory)
{
    runtime_up();
    pyrt_thread_delete(pyrt_thread_new(pyrt_interp_main()));
    size_t live = pyrt_meta_live_bytes();
    for (int i = 0; i < 100; i++) {
        pyrt_thread_delete(pyrt_thread_new(pyrt_interp_main()));
        CHECK_UINT(pyrt_meta_live_bytes(), live);
    }
    runtime_down();
}

static bool
try_thread_new(void)
{
    pyrt_interp *main = pyrt_interp_main();
    pyrt_thread *thread = pyrt_thread_new(main);
    CHECK_UINT(pyrt_thread_list(main, NULL, 0), thread == NULL ? 0 : 1);
    CHECK_PTR(pyrt_thread_find(main), thread);
    CHECK_PTR(pyrt_thread_current(), NULL);
    if (thread != NULL) {
        CHECK_INT(thread->index, 0);
        pyrt_thread_delete(thread);
    }
    return thread != NULL;
}

/* Memory of a state that could not be finished stays with the interpreter for the next: that is not lost, but it is not
 * back either. So a state that comes and goes first provides it, and the index pool. */
static void
up_with_one_state_used(void)
{
    runtime_up();
    pyrt_thread_delete(pyrt_thread_new(pyrt_interp_main()));
}

TEST(thread_new_short_of_memory_changes_nothing)
{
    const fault_plan again = {up_with_one_state_used, try_thread_new, NULL};
    CHECK(fault_everywhere(&again, FAULT_ONCE) >= 1);
    CHECK(fault_everywhere(&again, FAULT_FROM_ON) >= 1);
}

/* The first state of an interpreter: whatever fails, nothing is seen of it, the end finds every byte, and the next try
 * succeeds. */
TEST(first_thread_new_short_of_memory)
{
    for (int n = 1;; n++) {
        runtime_up();
        fault_arm(n, 1);
        bool succeeded = try_thread_new();
        bool hit = faults_hit() > 0;
        fault_disarm();
        CHECK(try_thread_new());
        runtime_down();
        if (!hit) {
            CHECK(succeeded);
            CHECK(n > 2);
            break;
        }
    }
}

/* ---- the pool of indexes, by itself: it grows far beyond what a test has threads for -------------------------------- */

TEST(the_pool_of_indexes_gives_the_smallest_and_grows)
{
    enum { MANY = 2000 };
    pyrt_index_pool pool = {0};
    for (int32_t i = 0; i < MANY; i++) {
        CHECK_INT(pyrt_index_reserve(&pool), i);
    }
    const int32_t back[] = {1999, 0, 63, 64, 511, 512, 1024};
    for (size_t i = 0; i < 7; i++) {
        pyrt_index_release(&pool, back[i]);
    }
    const int32_t wanted[] = {0, 63, 64, 511, 512, 1024, 1999, 2000};
    for (size_t i = 0; i < 8; i++) {
        CHECK_INT(pyrt_index_reserve(&pool), wanted[i]);
    }
    pyrt_index_pool_fini(&pool);
    CHECK_UINT(pyrt_meta_live_bytes(), 0);
}

TEST(a_pool_that_cannot_grow_keeps_what_it_has)
{
    pyrt_index_pool pool = {0};
    int32_t count = 0;
    CHECK_INT(pyrt_index_reserve(&pool), count++);
    fault_arm(1, INT32_MAX);
    int32_t index;
    while ((index = pyrt_index_reserve(&pool)) >= 0) {
        CHECK_INT(index, count++);
    }
    CHECK(count > 1);
    pyrt_index_release(&pool, 5);
    CHECK_INT(pyrt_index_reserve(&pool), 5);
    CHECK_INT(pyrt_index_reserve(&pool), -1);
    fault_disarm();
    CHECK_INT(pyrt_index_reserve(&pool), count);
    pyrt_index_pool_fini(&pool);
    CHECK_UINT(pyrt_meta_live_bytes(), 0);
}
