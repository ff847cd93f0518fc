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

__attribute__((constructor)) static void
set_hooks(void)
{
    static const pyrt_waiting_hooks of_threads = {detach_waiter, attach_waiter, pyrt_is_reading};
    pyrt_waiting_set_hooks(&of_threads);
}
