/* lru_thread.h -- the thread state with which an OS thread takes part, for as long as a call of ours lasts. */
#ifndef LRU_THREAD_H
#define LRU_THREAD_H

#include <pyruntime/capi.h>

typedef struct lru_visit {
    pyrt_thread *thread;          /* attached; NULL: no memory */
    bool attached_here;           /* not by pyrt_thread_ensure */
} lru_visit;

static __thread pyrt_thread *own_state; /* ends with its OS thread, by itself */

/* The first call of an OS thread makes its state, the others attach it. Unless somebody further out has attached one already. */
static lru_visit
lru_enter(void)
{
    const pyrt_thread *current = pyrt_thread_current();
    if (current == NULL) {
        if (own_state == NULL && (own_state = pyrt_thread_new(pyrt_interp_main())) == NULL) {
            return (lru_visit){NULL, false};
        }
        pyrt_attach(own_state);
        return (lru_visit){own_state, true};
    }
    return (lru_visit){pyrt_thread_ensure(pyrt_interp_main()), false};
}

static void
lru_leave(lru_visit visit)
{
    if (visit.attached_here) {
        pyrt_detach(visit.thread);
    }
    else if (visit.thread != NULL) {
        pyrt_thread_release(visit.thread);
    }
}

#endif
