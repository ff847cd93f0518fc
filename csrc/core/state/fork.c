/* fork.c -- what stays whole across a fork, and what the child does with the threads that it lost.
 *
 * Before a fork the handlers take every lock of the library, in the order of locks, so that the child finds every list
 * whole. No lock is ever held while user code runs or a thread sleeps, so this waits for instructions only. What other
 * threads keep without a lock (their retire queues) is written so that each state in between can be adopted.
 */
#include "platform/futex.h"
#include "platform/meta_alloc.h"
#include "platform/report.h"
#include "state/thread_impl.h"
#include "sync/lock_watch.h"
#include "sync/waiting.h"

#include <pyruntime/fork.h>
#include <pyruntime/stop_the_world.h>

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

static pyrt_registry *const registry = &pyrt_the_registry;

/* Under the registry's lock. */
static bool installed;

static const pyrt_fork_hooks *memory_hooks;

void
pyrt_fork_set_memory_hooks(const pyrt_fork_hooks *hooks)
{
    memory_hooks = hooks;
}

static void
prepare(void)
{
    pyrt_raw_mutex_lock(&registry->lock);
    for (pyrt_interp *interp = registry->interps; interp != NULL; interp = interp->next) {
        pyrt_raw_mutex_lock(&interp->lock);
        for (int i = 0; i < PYRT_STAGES; i++) {
            if (pyrt_stages[i] != NULL && pyrt_stages[i]->fork_prepare != NULL) {
                pyrt_stages[i]->fork_prepare(interp);
            }
        }
    }
    for (int i = 0; i < PYRT_STAGES; i++) {
        if (pyrt_stages[i] != NULL && pyrt_stages[i]->process.prepare != NULL) {
            pyrt_stages[i]->process.prepare();
        }
    }
    pyrt_watch_fork_prepare();
    if (memory_hooks != NULL) {
        memory_hooks->prepare();
    }
    pyrt_meta_fork_prepare();
}

static void
parent(void)
{
    pyrt_meta_fork_parent();
    pyrt_watch_fork_parent();
    if (memory_hooks != NULL) {
        memory_hooks->parent();
    }
    for (int i = 0; i < PYRT_STAGES; i++) {
        if (pyrt_stages[i] != NULL && pyrt_stages[i]->process.parent != NULL) {
            pyrt_stages[i]->process.parent();
        }
    }
    for (pyrt_interp *interp = registry->interps; interp != NULL; interp = interp->next) {
        for (int i = 0; i < PYRT_STAGES; i++) {
            if (pyrt_stages[i] != NULL && pyrt_stages[i]->fork_parent != NULL) {
                pyrt_stages[i]->fork_parent(interp);
            }
        }
        pyrt_raw_mutex_unlock(&interp->lock);
    }
    pyrt_raw_mutex_unlock(&registry->lock);
}

/* Its OS thread is not in this process. No exit hook can run: what they would touch may be in any state. */
static void
lose(pyrt_thread_impl *thread)
{
    pyrt_interp *interp = thread->base.interp;
    for (int i = 0; i < PYRT_STAGES; i++) {
        if (pyrt_stages[i] != NULL && pyrt_stages[i]->thread_lost != NULL) {
            pyrt_stages[i]->thread_lost(thread);
        }
    }
    for (int i = PYRT_STAGES - 1; i >= 0; i--) {
        if (pyrt_stages[i] != NULL && pyrt_stages[i]->thread_fini != NULL) {
            pyrt_stages[i]->thread_fini(thread);
        }
    }
    pyrt_slots_free(thread);
    pyrt_ensure_lose(thread);
    pyrt_store_release(&thread->base.slot.word, (uint64_t)PYRT_STATE_SHUTTING_DOWN);
    pyrt_store_relaxed(&thread->base.slot.flags, 0u);
    pyrt_qsbr_stats_add(&interp->stats, &thread->stats);
    thread->stats = (pyrt_qsbr_stats){0};
    pyrt_index_release(&interp->indexes, thread->base.index);
    thread->next = interp->free_threads;
    interp->free_threads = thread;
}

/* Of a list of states those of this OS thread stay, and are counted. */
static void
lose_others(pyrt_interp *interp, pyrt_thread_impl **list)
{
    uint64_t self = pyrt_tls()->os_id;
    pyrt_thread_impl *kept = NULL;
    pyrt_thread_impl *next;
    for (pyrt_thread_impl *thread = *list; thread != NULL; thread = next) {
        next = thread->next;
        if (thread->base.os_id != self) {
            lose(thread);
            continue;
        }
        interp->thread_count++;
        thread->os_tid = pyrt_os_thread_tid();
        thread->next = kept;
        thread->previous = NULL;
        if (kept != NULL) {
            kept->previous = thread;
        }
        kept = thread;
    }
    *list = kept;
}

static void
restore_interp(pyrt_interp *interp)
{
    pyrt_raw_mutex_reinit(&interp->lock);
    pyrt_interp_visits_fork_child(interp);
    for (int i = 0; i < PYRT_STAGES; i++) {
        if (pyrt_stages[i] != NULL && pyrt_stages[i]->fork_child != NULL) {
            pyrt_stages[i]->fork_child(interp);
        }
    }
    interp->thread_count = 0;
    lose_others(interp, &interp->threads);
    lose_others(interp, &interp->births);
    for (int i = 0; i < PYRT_STAGES; i++) {
        if (pyrt_stages[i] != NULL && pyrt_stages[i]->fork_settle != NULL) {
            pyrt_stages[i]->fork_settle(interp);
        }
    }
}

static void
child(void)
{
    pyrt_meta_fork_child();
    if (memory_hooks != NULL) {
        memory_hooks->child();
    }
    pyrt_report_fork_child();
    pyrt_os_thread_fork_child();
    pyrt_parking_lot_fork_child();
    pyrt_watch_fork_child();
    pyrt_rwlock_fork_child();
    pyrt_slots_fork_child();
    pyrt_membarrier_register();
    pyrt_raw_mutex_reinit(&registry->lock);
    for (int i = 0; i < PYRT_STAGES; i++) {
        if (pyrt_stages[i] != NULL && pyrt_stages[i]->process.child != NULL) {
            pyrt_stages[i]->process.child();
        }
    }
    for (pyrt_interp *interp = registry->interps; interp != NULL; interp = interp->next) {
        restore_interp(interp);
    }
    pyrt_pause_fork_child();
    /* Whoever was ending the runtime or an interpreter, if not this OS thread, is not here: in this process they live on. */
    pyrt_ends_cancel(false);
}

pyrt_status
pyrt_fork_install_handlers(void)
{
    if (!installed) {
        installed = pthread_atfork(prepare, parent, child) == 0;
    }
    return installed ? PYRT_OK : PYRT_ENOMEM;
}

/* Early, while nobody can be forking and no lock is held; if the system refuses, the first init tries again. */
__attribute__((constructor)) static void
install_early(void)
{
    (void)pyrt_fork_install_handlers();
}

pid_t
pyrt_fork(void)
{
    const void *pause = pyrt_tls()->pause;
    if (pyrt_runtime_is_initialized() && pause == NULL) {
        pyrt_status status = pyrt_stop_the_world(NULL);
        if (status != PYRT_OK) {
            errno = status == PYRT_ENOMEM ? ENOMEM : EDEADLK;
            return -1;
        }
        pid_t pid = fork();
        int saved_errno = errno;
        pyrt_start_the_world(NULL);
        errno = saved_errno;
        return pid;
    }
    /* The world is this OS thread's already, or there is none. */
    return fork();
}
