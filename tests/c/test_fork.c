/* test_fork.c -- fork(2) and pyrt_fork with threads running: the child can use everything, and what the lost threads had
 * retired is disposed of there once (fork.h, law 10).
 *
 * A mill is a thread that makes items, retires them and passes safepoints, until it is told to stop. It counts each item
 * before and after it retires it, so that the child of a fork, which finds the counts as they were, knows how many items
 * there must be: exactly, if the world was stopped; give or take the one that each mill had in its hands, if it was not.
 *
 * A child reports a failure by its exit status, like any run of tests.
 */
#include "support.h"

#include "platform/meta_alloc.h"
#include "workers.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_THREAD__)
#    define UNDER_TSAN 1
#elif defined(__has_feature)
#    if __has_feature(thread_sanitizer)
#        define UNDER_TSAN 1
#    endif
#endif

#if defined(__SANITIZE_ADDRESS__)
#    define UNDER_ASAN 1
#elif defined(__has_feature)
#    if __has_feature(address_sanitizer)
#        define UNDER_ASAN 1
#    endif
#endif

/* The allocator of AddressSanitizer is not safe to use in the child of a fork that came while another thread was in it. */
#if defined(UNDER_ASAN)
#    define MALLOC_SURVIVES_RAW_FORK 0
#else
#    define MALLOC_SURVIVES_RAW_FORK 1
#endif

/* ---- items --------------------------------------------------------------------------------------------------------- */

enum { ALIVE = 0x11ce, DEAD = 0xdead, MILLS = 3, POOL = 4096 };

typedef struct item {
    pyrt_retire_node node;
    uint32_t canary;
    bool from_pool;
} item;

/* Of one mill, written by it alone. */
typedef struct mill {
    uint64_t begun;    /* items that it was about to retire */
    uint64_t retired;  /* items that it has retired */
    item pool[POOL];
    worker w;
} mill;

static struct {
    mill mills[MILLS];
    int stop;
    bool use_malloc;
    bool attached_only; /* so that a stopped world has nobody in the middle of retiring */
    uint64_t disposed;
    uint64_t retired_by_others;
    uint64_t retired_before; /* what the statistics counted in earlier generations */
} works;

static void
dispose_item(item *thing)
{
    CHECK_UINT(pyrt_load_relaxed(&thing->canary), ALIVE);
    pyrt_store_relaxed(&thing->canary, (uint32_t)DEAD);
    pyrt_fetch_add_seq_cst(&works.disposed, (uint64_t)1);
    if (!thing->from_pool) {
        free(thing);
    }
}

static void
dispose(void *thing)
{
    dispose_item(thing);
}

static void
dispose_call(void *thing, void *arg)
{
    CHECK_PTR(arg, &works);
    dispose_item(thing);
}

static void
dispose_node(pyrt_retire_node *node)
{
    dispose_item((item *)(void *)node);
}

/* A dead item of the pool, or a fresh one; NULL if all of the pool are still waiting. */
static item *
new_item(mill *m)
{
    item *thing = NULL;
    if (works.use_malloc) {
        thing = malloc(sizeof(*thing));
        CHECK(thing != NULL);
        thing->from_pool = false;
    }
    for (uint64_t i = 0; thing == NULL && i < POOL; i++) {
        item *candidate = &m->pool[(m->begun + i) % POOL];
        if (pyrt_load_relaxed(&candidate->canary) != ALIVE) {
            thing = candidate;
            thing->from_pool = true;
        }
    }
    if (thing != NULL) {
        pyrt_store_relaxed(&thing->canary, (uint32_t)ALIVE);
    }
    return thing;
}

static void
retire_item(pyrt_thread *or_null, item *thing, uint32_t form)
{
    pyrt_status status = PYRT_OK;
    switch (form) {
    case 0:
        status = pyrt_retire(or_null, thing, sizeof(*thing), dispose);
        break;
    case 1:
        status = pyrt_retire_call(or_null, dispose_call, thing, &works, sizeof(*thing));
        break;
    case 2:
        status = pyrt_retire_global(thing, sizeof(*thing), dispose);
        break;
    default:
        pyrt_retire_node(or_null, &thing->node, sizeof(*thing), dispose_node);
        break;
    }
    CHECK(status == PYRT_OK || status == PYRT_EBUSY);
}

/* ---- mills --------------------------------------------------------------------------------------------------------- */

static void
grind(void *arg)
{
    mill *m = arg;
    random_stream choices = random_for((uint64_t)(m - works.mills));
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    CHECK(thread != NULL);
    pyrt_attach(thread);
    while (!pyrt_load_acquire(&works.stop)) {
        uint32_t choice = random_below(&choices, 100);
        item *thing = choice < 90 ? new_item(m) : NULL;
        bool aside = thing != NULL && choice >= 80 && !works.attached_only;
        if (aside) {
            pyrt_detach(thread);
        }
        if (thing != NULL) {
            pyrt_store_release(&m->begun, m->begun + 1);
            retire_item(aside && choice >= 85 ? NULL : thread, thing, choice % 4);
            pyrt_store_release(&m->retired, m->retired + 1);
        }
        if (aside) {
            pyrt_attach(thread);
        }
        if (choice == 99) {
            pyrt_detach(thread);
            sched_yield();
            pyrt_attach(thread);
        }
        pyrt_safepoint(thread);
        if (thing == NULL) {
            (void)pyrt_process_delayed(thread);
        }
    }
    pyrt_detach(thread);
    pyrt_thread_delete(thread);
}

static void
mills_up(bool use_malloc, bool attached_only)
{
    works.stop = 0;
    works.use_malloc = use_malloc;
    works.attached_only = attached_only;
    works.disposed = 0;
    works.retired_by_others = 0;
    works.retired_before = stat_of(pyrt_interp_main(), "retired");
    for (int i = 0; i < MILLS; i++) {
        mill *m = &works.mills[i];
        m->begun = m->retired = 0;
        for (int k = 0; k < POOL; k++) {
            m->pool[k].canary = DEAD;
        }
        worker_start(&m->w);
        worker_begin(&m->w, grind, m);
    }
}

static uint64_t
all_begun(void)
{
    uint64_t sum = pyrt_load_seq_cst(&works.retired_by_others);
    for (int i = 0; i < MILLS; i++) {
        sum += pyrt_load_acquire(&works.mills[i].begun);
    }
    return sum;
}

static uint64_t
all_retired(void)
{
    uint64_t sum = pyrt_load_seq_cst(&works.retired_by_others);
    for (int i = 0; i < MILLS; i++) {
        sum += pyrt_load_acquire(&works.mills[i].retired);
    }
    return sum;
}

static void
mills_down(void)
{
    pyrt_store_release(&works.stop, 1);
    for (int i = 0; i < MILLS; i++) {
        worker_end(&works.mills[i].w);
    }
}

/* Lets the mills get on, so that each fork finds them elsewhere: all of them, so that none is still being born. */
static void
wait_for_some_work(void)
{
    for (int i = 0; i < MILLS; i++) {
        uint64_t retired = pyrt_load_acquire(&works.mills[i].retired);
        WAIT_UNTIL(pyrt_load_acquire(&works.mills[i].retired) > retired + 20);
    }
}

/* ---- what a child does --------------------------------------------------------------------------------------------- */

static void
work_in_the_child(void *unused, int number)
{
    (void)unused;
    pyrt_thread *thread = number % 2 == 0 ? pyrt_thread_ensure(pyrt_interp_main()) : NULL;
    for (int i = 0; i < 300; i++) {
        item *thing = malloc(sizeof(*thing));
        CHECK(thing != NULL);
        *thing = (item){.canary = ALIVE};
        retire_item(thread, thing, (uint32_t)i % 4);
        pyrt_fetch_add_seq_cst(&works.retired_by_others, (uint64_t)1);
        if (thread != NULL) {
            pyrt_safepoint(thread);
        }
    }
    if (thread != NULL) {
        pyrt_thread_release(thread);
    }
}

/* Two threads of the child's own. ThreadSanitizer cannot start threads in such a child, which then does the work itself. */
static void
use_threads_in_the_child(void)
{
#if defined(UNDER_TSAN)
    work_in_the_child(NULL, 0);
    work_in_the_child(NULL, 1);
#else
    run_crowd(2, work_in_the_child, NULL);
#endif
}

#if defined(UNDER_TSAN)
enum { GENERATIONS = 1 };
#else
enum { GENERATIONS = 3 };
#endif

typedef enum { EXACT, GIVE_OR_TAKE } how_exact;

/* Every function is usable: threads, pauses, waiting, barriers; and all that the lost threads had retired goes. The
 * statistics are exact where the world was stopped; a thread that was lost between taking a chunk and counting it leaves
 * them wrong by that chunk. */
static void
check_usable(how_exact how, pyrt_thread *own)
{
    pyrt_interp *main = pyrt_interp_main();
    pyrt_thread_info infos[8];
    CHECK_UINT(pyrt_thread_list(main, infos, 8), own != NULL ? 1 : 0);
    CHECK_PTR(pyrt_thread_find(main), own);
    if (own != NULL) {
        CHECK_UINT(infos[0].id, own->id);
        CHECK_INT(infos[0].os_tid, syscall(SYS_gettid));
    }
    uint64_t least = all_retired();
    uint64_t most = all_begun();
    if (how == EXACT) {
        CHECK_UINT(most, least);
        CHECK_UINT(stat_of(main, "retired") - works.retired_before, least);
    }
    CHECK_OK(pyrt_qsbr_barrier(own));
    uint64_t gone = pyrt_load_seq_cst(&works.disposed);
    /* Each mill may have been disposing of one, which nobody does again. */
    CHECK(gone >= least - (how == EXACT ? 0 : MILLS));
    CHECK(gone <= most);
    if (how == EXACT) {
        CHECK_UINT(stat_of(main, "pending_items"), 0);
        CHECK_UINT(stat_of(main, "pending_bytes"), 0);
    }

    use_threads_in_the_child();
    CHECK_OK(pyrt_stop_the_world(NULL));
    CHECK(pyrt_world_is_stopped(NULL));
    pyrt_start_the_world(NULL);
    CHECK_OK(pyrt_qsbr_synchronize(own));
    CHECK_OK(pyrt_qsbr_barrier(own));
    CHECK_UINT(pyrt_load_seq_cst(&works.disposed), gone + 600);
}

/* ... and the runtime ends, and can be initialised again. */
static void
check_end(how_exact how, pyrt_thread *own)
{
    if (own != NULL) {
        if (pyrt_thread_current() == own) {
            pyrt_detach(own);
        }
        pyrt_thread_delete(own);
    }
    CHECK_OK(pyrt_runtime_fini());
    if (how == EXACT) {
        CHECK_UINT(pyrt_meta_live_bytes(), 0);
    }
    CHECK_OK(pyrt_runtime_init());
    CHECK_OK(pyrt_runtime_fini());
}

static void
wait_for_child(pid_t pid)
{
    int status;
    CHECK_INT(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        FAIL("the child ended with %s %d", WIFEXITED(status) ? "status" : "signal",
             WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    }
}

/* A hanging child ends by a signal instead of holding up its parent. */
static void
guard_the_child(void)
{
    alarm(40);
}

/* ---- three generations of ten children ------------------------------------------------------------------------------ */

typedef struct line {
    pid_t (*fork)(void);
    how_exact how;
    bool use_malloc;
} line;

/* Ten children, one after the other; the last one starts mills of its own and has children in turn. */
static void
have_children(const line *line, int generations, pyrt_thread *own)
{
    enum { CHILDREN = 10 };
    mills_up(line->use_malloc, line->how == EXACT);
    for (int i = 0; i < CHILDREN; i++) {
        wait_for_some_work();
        pid_t pid = line->fork();
        CHECK(pid >= 0);
        if (pid != 0) {
            wait_for_child(pid);
            continue;
        }
        guard_the_child();
        check_usable(line->how, own);
        if (i == CHILDREN - 1 && generations > 1) {
            have_children(line, generations - 1, own);
        }
        check_end(line->how, own);
        _exit(0);
    }
    mills_down();
    CHECK_OK(pyrt_qsbr_barrier(own));
    CHECK_UINT(all_begun(), all_retired());
    CHECK_UINT(pyrt_load_seq_cst(&works.disposed), all_retired());
}

/* Without a state, with a detached one, and with one that is attached when it forks. */
static pyrt_thread *forking;

static pid_t
pyrt_fork_attached(void)
{
    pyrt_attach(forking);
    pid_t pid = pyrt_fork();
    CHECK_PTR(pyrt_thread_current(), forking);
    pyrt_detach(forking);
    return pid;
}

static pid_t
fork_attached(void)
{
    pyrt_attach(forking);
    pid_t pid = fork();
    CHECK_PTR(pyrt_thread_current(), forking);
    pyrt_detach(forking);
    return pid;
}

static void
three_generations(const line *line, bool with_state)
{
    runtime_up();
    forking = with_state ? pyrt_thread_new(pyrt_interp_main()) : NULL;
    have_children(line, GENERATIONS, forking);
    if (with_state) {
        pyrt_thread_delete(forking);
    }
    CHECK_UINT(stat_of(pyrt_interp_main(), "pending_items"), 0);
    runtime_down();
}

TEST(three_generations_by_pyrt_fork)
{
    three_generations(&(line){pyrt_fork, EXACT, true}, true);
    three_generations(&(line){pyrt_fork, EXACT, true}, false);
    three_generations(&(line){pyrt_fork_attached, EXACT, true}, true);
}

TEST(three_generations_by_fork)
{
    three_generations(&(line){fork, GIVE_OR_TAKE, MALLOC_SURVIVES_RAW_FORK}, true);
    three_generations(&(line){fork, GIVE_OR_TAKE, MALLOC_SURVIVES_RAW_FORK}, false);
    three_generations(&(line){fork_attached, GIVE_OR_TAKE, MALLOC_SURVIVES_RAW_FORK}, true);
}

/* ---- where a fork may come ------------------------------------------------------------------------------------------ */

/* Forks; in the child runs `check`, in the parent waits for it. */
static void
in_a_child(pid_t (*how)(void), void (*check)(void))
{
    pid_t pid = how();
    CHECK(pid >= 0);
    if (pid == 0) {
        guard_the_child();
        check();
        _exit(0);
    }
    wait_for_child(pid);
}

static void
check_no_runtime(void)
{
    CHECK(!pyrt_runtime_is_initialized());
    runtime_up();
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    runtime_down();
}

TEST(without_runtime)
{
    in_a_child(pyrt_fork, check_no_runtime);
    in_a_child(fork, check_no_runtime);
    CHECK(!pyrt_runtime_is_initialized());
}

static pyrt_interp *stopped_interp;

static void
check_pause_goes_on(void)
{
    CHECK(pyrt_world_is_stopped(stopped_interp));
    CHECK_STATUS(pyrt_stop_the_world(NULL), PYRT_ESTATE);
    EXPECT_REPORT("pyrt_stop_the_world");
    CHECK_UINT(pyrt_thread_list(pyrt_interp_main(), NULL, 0), 0);
    pyrt_start_the_world(stopped_interp);
    CHECK(!pyrt_world_is_stopped(NULL));
    use_threads_in_the_child();
    CHECK_OK(pyrt_qsbr_barrier(NULL));
    runtime_down();
}

static void
detached_thread(void *out)
{
    *(pyrt_thread **)out = pyrt_thread_new(pyrt_interp_main());
}

static void
attach(void *thread)
{
    pyrt_attach(thread);
}

static void
delete_attached(void *thread)
{
    pyrt_detach(thread);
    pyrt_thread_delete(thread);
}

static void
inside_a_pause(bool one, pid_t (*how)(void))
{
    worker w;
    pyrt_thread *thread;
    runtime_up();
    stopped_interp = one ? pyrt_interp_main() : NULL;
    worker_start(&w);
    worker_do(&w, detached_thread, &thread);
    CHECK_OK(pyrt_stop_the_world(stopped_interp));
    watch_sleepers();
    worker_begin(&w, attach, thread);
    WAIT_UNTIL(sleepers() == 1);
    in_a_child(how, check_pause_goes_on);
    CHECK(pyrt_world_is_stopped(stopped_interp));
    CHECK(worker_is_busy(&w));
    pyrt_start_the_world(stopped_interp);
    worker_do(&w, delete_attached, thread);
    worker_end(&w);
    stop_watching_sleepers();
    runtime_down();
}

TEST(a_pause_of_the_forking_thread_goes_on_in_both)
{
    inside_a_pause(false, pyrt_fork);
    inside_a_pause(false, fork);
    inside_a_pause(true, pyrt_fork);
    inside_a_pause(true, fork);
}

/* ---- what other threads were in the middle of ----------------------------------------------------------------------- */

static void
stop_the_world(void *unused)
{
    (void)unused;
    CHECK_OK(pyrt_stop_the_world(NULL));
}

static void
start_the_world(void *unused)
{
    (void)unused;
    pyrt_start_the_world(NULL);
}

static void
check_pause_is_over(void)
{
    CHECK(!pyrt_world_is_stopped(NULL));
    CHECK_UINT(pyrt_load_relaxed(&forking->slot.word), PYRT_STATE_DETACHED);
    works.disposed = works.retired_by_others = 0;
    pyrt_attach(forking);
    pyrt_safepoint(forking);
    pyrt_detach(forking);
    use_threads_in_the_child();
    CHECK_OK(pyrt_stop_the_world(NULL));
    pyrt_start_the_world(NULL);
    pyrt_thread_delete(forking);
    runtime_down();
    CHECK_UINT(works.disposed, 600);
}

TEST(a_pause_of_another_thread_is_over_in_the_child)
{
    worker w;
    runtime_up();
    forking = pyrt_thread_new(pyrt_interp_main());
    worker_start(&w);
    worker_do(&w, stop_the_world, NULL);
    CHECK_UINT(pyrt_load_relaxed(&forking->slot.word), PYRT_STATE_SUSPENDED);
    in_a_child(fork, check_pause_is_over);
    CHECK_UINT(pyrt_load_relaxed(&forking->slot.word), PYRT_STATE_SUSPENDED);
    worker_do(&w, start_the_world, NULL);
    worker_end(&w);
    pyrt_thread_delete(forking);
    runtime_down();
}

/* A reader that held everything up is not there any more; those who waited for it neither. */
static void
wait_in_a_barrier(void *unused)
{
    (void)unused;
    CHECK_OK(pyrt_qsbr_barrier(NULL));
}

static void
wait_in_synchronize(void *unused)
{
    (void)unused;
    CHECK_OK(pyrt_qsbr_synchronize(NULL));
}

static void
wait_in_a_pause(void *unused)
{
    (void)unused;
    CHECK_OK(pyrt_stop_the_world(NULL));
    pyrt_start_the_world(NULL);
}

static void
check_nobody_holds_up(void)
{
    CHECK_UINT(pyrt_thread_list(pyrt_interp_main(), NULL, 0), 0);
    CHECK_OK(pyrt_qsbr_synchronize_timed(NULL, 0));
    CHECK_OK(pyrt_stop_the_world_timed(NULL, 0, NULL));
    pyrt_start_the_world(NULL);
    CHECK_OK(pyrt_qsbr_barrier_timed(NULL, -1));
    CHECK_UINT(works.disposed, 10);
    runtime_down();
}

TEST(those_who_wait_in_the_parent_are_gone_in_the_child)
{
    void (*const waits[])(void *) = {wait_in_a_barrier, wait_in_synchronize, wait_in_a_pause};
    for (int i = 0; i < 3; i++) {
        static item items[10];
        worker reader_worker;
        worker waiting;
        pyrt_thread *reader;
        works.disposed = 0;
        runtime_up();
        worker_start(&reader_worker);
        worker_start(&waiting);
        worker_do(&reader_worker, detached_thread, &reader);
        worker_do(&reader_worker, attach, reader);
        for (int k = 0; k < 10; k++) {
            items[k] = (item){.canary = ALIVE, .from_pool = true};
            retire_item(NULL, &items[k], (uint32_t)k % 4);
        }
        watch_sleepers();
        worker_begin(&waiting, waits[i], NULL);
        WAIT_UNTIL(sleepers() == 1);
        in_a_child(fork, check_nobody_holds_up);
        CHECK(worker_is_busy(&waiting));
        worker_do(&reader_worker, delete_attached, reader);
        worker_end(&reader_worker);
        worker_end(&waiting);
        stop_watching_sleepers();
        CHECK_OK(pyrt_qsbr_barrier(NULL));
        CHECK_UINT(works.disposed, 10);
        runtime_down();
    }
}

/* ---- forks inside of disposers --------------------------------------------------------------------------------------- */

static pid_t (*fork_in_disposer)(void);
static pid_t forked;

static void
fork_and_dispose(void *thing)
{
    forked = fork_in_disposer();
    CHECK(forked >= 0);
    dispose(thing);
}

/* Both processes go on with the disposal that they were in. */
static void
fork_inside_a_disposer(pid_t (*how)(void), bool without_state)
{
    static item items[10];
    works.disposed = 0;
    fork_in_disposer = how;
    runtime_up();
    pyrt_thread *thread = without_state ? NULL : pyrt_thread_ensure(pyrt_interp_main());
    for (int i = 0; i < 10; i++) {
        items[i] = (item){.canary = ALIVE, .from_pool = true};
        CHECK_OK(pyrt_retire(thread, &items[i], 1, i == 4 ? fork_and_dispose : dispose));
    }
    if (!without_state) {
        CHECK_UINT(pyrt_process_delayed(thread), 10);
        CHECK_UINT(works.disposed, 10);
        pyrt_thread_release(thread);
    }
    runtime_down();
    CHECK_UINT(works.disposed, 10);
    if (forked == 0) {
        _exit(0);
    }
    wait_for_child(forked);
}

TEST(a_disposer_may_fork)
{
    fork_inside_a_disposer(pyrt_fork, false);
    fork_inside_a_disposer(fork, false);
    /* In the last fini, where no state is left and no world either. */
    fork_inside_a_disposer(fork, true);
}

/* ---- ends that were under way ---------------------------------------------------------------------------------------- */

static int entered;
static int may_leave;

static void
linger(void *thing)
{
    pyrt_exchange_seq_cst(&entered, 1);
    WAIT_UNTIL(pyrt_load_seq_cst(&may_leave));
    dispose(thing);
}

static pyrt_interp *other;

static void
leave_an_orphan(void *thing)
{
    pyrt_thread *thread = pyrt_thread_ensure(other);
    CHECK_OK(pyrt_retire(thread, thing, 1, linger));
    pyrt_thread_release(thread);
}

static void
delete_other(void *unused)
{
    (void)unused;
    CHECK_OK(pyrt_interp_delete(other));
}

static void
end_runtime(void *unused)
{
    (void)unused;
    CHECK_OK(pyrt_runtime_fini());
}

/* The disposal that kept the end busy is in the parent only, and with it the item. The child ends for itself. */
static void
check_can_end(void)
{
    CHECK(pyrt_runtime_is_initialized());
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    CHECK(thread != NULL);
    pyrt_thread_release(thread);
    CHECK_OK(pyrt_runtime_fini());
}

static void
attach_in_other(void *unused)
{
    (void)unused;
    CHECK(pyrt_thread_ensure(other) != NULL);
}

static void
release_in_other(void *unused)
{
    (void)unused;
    pyrt_thread_release(pyrt_thread_current());
}

static void
fork_while_something_ends(void (*end)(void *))
{
    item thing = {.canary = ALIVE, .from_pool = true};
    worker ending;
    worker reader;
    entered = may_leave = 0;
    works.disposed = 0;
    runtime_up();
    other = pyrt_interp_new(NULL);
    worker_start(&ending);
    worker_start(&reader);
    /* While the reader is attached the item stays an orphan. It must not dispose of it either when it ends: the item comes
     * last, from a thread that saw it. */
    worker_do(&reader, attach_in_other, NULL);
    worker_do(&ending, leave_an_orphan, &thing);
    CHECK_INT(pyrt_load_seq_cst(&entered), 0);
    worker_begin(&reader, release_in_other, NULL);
    WAIT_UNTIL(pyrt_load_seq_cst(&entered) || !worker_is_busy(&reader));
    if (!pyrt_load_seq_cst(&entered)) {
        worker_begin(&ending, end, NULL);
        WAIT_UNTIL(pyrt_load_seq_cst(&entered));
    }
    in_a_child(fork, check_can_end);
    pyrt_exchange_seq_cst(&may_leave, 1);
    worker_end(&reader);
    worker_end(&ending);
    CHECK_UINT(works.disposed, 1);
    if (pyrt_runtime_is_initialized()) {
        runtime_down();
    }
}

TEST(an_end_that_another_thread_had_begun_is_open_again_in_the_child)
{
    fork_while_something_ends(delete_other);
    fork_while_something_ends(end_runtime);
}
