/* test_fork.c -- fork(2) and pyrt_fork with threads running: the child can use everything, and what the lost threads had
 * retired is disposed of there once (fork.h, law 10).
 *
 * A child reports a failure by its exit status, like any run of tests.
 */
#include "mills.h"

#include "platform/meta_alloc.h"

#include <sys/syscall.h>
#include <unistd.h>

/* ---- what a child does --------------------------------------------------------------------------------------------- */

#if defined(UNDER_TSAN)
enum { GENERATIONS = 1 };
#else
enum { GENERATIONS = 3 };
#endif

typedef enum { EXACT, GIVE_OR_TAKE } how_exact;

/* Every function is usable: threads, pauses, waiting, barriers; and all that the lost threads had retired goes, and nothing is
 * pending then, wherever those threads stood. What they retired is counted exactly where the world was stopped. */
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
    CHECK_UINT(stat_of(main, "retired"), stat_of(main, "disposed"));
    CHECK_UINT(stat_of(main, "pending_bytes"), 0);

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
