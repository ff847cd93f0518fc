/* waiting.c -- what the locks below this floor do with the thread that waits: it is detached while it sleeps. */
#include "state/thread_impl.h"
#include "sync/waiting.h"

static void *
detach_waiter(void)
{
    pyrt_thread *current = pyrt_thread_current();
    if (current != NULL) {
        pyrt_detach(current);
    }
    return current;
}

static void
attach_waiter(void *detached)
{
    if (detached != NULL) {
        pyrt_attach(detached);
    }
}

/* It sleeps in attach. A thread that is only suspended runs code of its own, and may still unlock. */
static bool
stands_still(uint64_t os_id)
{
    bool found = false;
    pyrt_registry *registry = &pyrt_the_registry;
    pyrt_raw_mutex_lock(&registry->lock);
    for (pyrt_interp *interp = registry->interps; interp != NULL && !found; interp = interp->next) {
        pyrt_raw_mutex_lock(&interp->lock);
        for (pyrt_thread_impl *thread = interp->threads; thread != NULL && !found; thread = thread->next) {
            found = thread->base.os_id == os_id && pyrt_load_relaxed(&thread->base.slot.word) == PYRT_STATE_SUSPENDED_WAITED;
        }
        pyrt_raw_mutex_unlock(&interp->lock);
    }
    pyrt_raw_mutex_unlock(&registry->lock);
    return found;
}

__attribute__((constructor)) static void
set_hooks(void)
{
    static const pyrt_waiting_hooks of_threads = {detach_waiter, attach_waiter, pyrt_is_reading, stands_still};
    pyrt_waiting_set_hooks(&of_threads);
}
