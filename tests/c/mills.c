/* mills.c -- see mills.h. */
#include "mills.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

mill_works works;

/* ---- items --------------------------------------------------------------------------------------------------------- */

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

void
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

void
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

void
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

void
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

uint64_t
all_begun(void)
{
    uint64_t sum = pyrt_load_seq_cst(&works.retired_by_others);
    for (int i = 0; i < MILLS; i++) {
        sum += pyrt_load_acquire(&works.mills[i].begun);
    }
    return sum;
}

uint64_t
all_retired(void)
{
    uint64_t sum = pyrt_load_seq_cst(&works.retired_by_others);
    for (int i = 0; i < MILLS; i++) {
        sum += pyrt_load_acquire(&works.mills[i].retired);
    }
    return sum;
}

void
mills_down(void)
{
    pyrt_store_release(&works.stop, 1);
    for (int i = 0; i < MILLS; i++) {
        worker_end(&works.mills[i].w);
    }
}

void
wait_for_some_work(void)
{
    for (int i = 0; i < MILLS; i++) {
        uint64_t retired = pyrt_load_acquire(&works.mills[i].retired);
        WAIT_UNTIL(pyrt_load_acquire(&works.mills[i].retired) > retired + 20);
    }
}

/* ---- children ------------------------------------------------------------------------------------------------------ */

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

void
use_threads_in_the_child(void)
{
#if defined(UNDER_TSAN)
    work_in_the_child(NULL, 0);
    work_in_the_child(NULL, 1);
#else
    run_crowd(2, work_in_the_child, NULL);
#endif
}

void
wait_for_child(pid_t pid)
{
    int status;
    CHECK_INT(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        FAIL("the child ended with %s %d", WIFEXITED(status) ? "status" : "signal",
             WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    }
}

void
guard_the_child(void)
{
    alarm(40);
}

void
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
