/* SPDX-License-Identifier: MIT
 *
 * retire.h -- handing memory over, to be disposed of when no reader can be looking at it any more.
 *
 * Retiring never runs user code and never waits. Items collect in chunks; a chunk that is full, in items or bytes, gets a
 * goal, and the next safepoint of the thread disposes of the chunks whose goals are reached. So disposal runs in
 * pyrt_safepoint, pyrt_process_delayed, the barrier and when a thread ends; in the order of retiring, within one form and
 * thread, unless a barrier has taken the queue meanwhile. Disposers may retire, attach, detach and pass safepoints; what they
 * retire is disposed of later.
 *
 * What is retired in one interpreter waits for the readers of that interpreter. What readers of several interpreters can
 * reach is retired with pyrt_retire_global.
 *
 * Ownership: PYRT_OK and PYRT_EBUSY have taken the pointer, any other status has not. PYRT_EBUSY is the sign to slow down: a
 * bound is passed (1 MiB or 64 Ki items for each thread unless set otherwise; empty pages of type-stable heaps that it keeps
 * for readers count too) or memory is running short.
 */
#ifndef PYRUNTIME_RETIRE_H
#define PYRUNTIME_RETIRE_H

#include "qsbr.h"

PYRT_BEGIN_DECLS

/* The long way of the inline function below; call that. */
pyrt_status pyrt_retire_slow(pyrt_thread *or_null, void *p, size_t bytes, void (*dispose)(void *));

/* Disposes of `p` with `dispose(p)`, later. `bytes` is what it holds, for the bound. The thread is one of the calling OS
 * thread, attached or detached. NULL: its attached state, or, for an OS thread without one, the main interpreter.
 * Not taken: PYRT_ENOMEM; PYRT_EINVAL if `dispose` is NULL or the thread another OS thread's; PYRT_ESTATE without runtime.
 * blocks: no (shortly when not attached) · allocates: yes · runs user code: no · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
static inline pyrt_status
pyrt_retire(pyrt_thread *or_null, void *p, size_t bytes, void (*dispose)(void *))
{
    if (pyrt_likely(or_null != NULL && PYRT_TLS.current == or_null && dispose != NULL)) {
        pyrt_retire_window *window = &or_null->retire;
        pyrt_retired *item = window->cursor;
        size_t bytes_left = window->bytes_left;
        if (pyrt_likely(item != window->slow_at && bytes < bytes_left)) {
            item->p = p;
            item->dispose = dispose;
            /* relaxed: read by who adds up statistics. */
            pyrt_store_relaxed(&window->bytes_left, bytes_left - bytes);
            /* release: the item is complete before it counts. Pairs with who adds up, and with the child of a fork. */
            pyrt_store_release(&window->cursor, item + 1);
            return PYRT_OK;
        }
    }
    return PYRT_CALL(retire_slow)(or_null, p, bytes, dispose);
}

/* cdef: begin */
/* The same with one argument more: `fn(p, arg)`.
 * blocks: no (shortly when not attached) · allocates: yes · runs user code: no · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
pyrt_status pyrt_retire_call(pyrt_thread *or_null, void (*fn)(void *p, void *arg), void *p, void *arg, size_t bytes);

/* As pyrt_retire, for what several interpreters can reach: waits for the readers of all of them.
 * blocks: shortly · allocates: yes · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_retire_global(void *p, size_t bytes, void (*dispose)(void *));
/* cdef: end */

/* cdef: begin */
/* For what must not fail: a node inside of the thing itself. The fields belong to the library until `dispose` is called. */
typedef struct pyrt_retire_node {
    struct pyrt_retire_node *next;
    void (*dispose)(struct pyrt_retire_node *);
} pyrt_retire_node;

/* Disposes with `dispose(embedded)`, later (NULL is reported, and the node not taken); cannot fail and does not allocate. A
 * state of another OS thread stands for its interpreter. Written pyrt_retire_node(...): C keeps types and functions in one
 * name space, so the function has a name of its own behind the macro.
 * blocks: no (shortly when not attached) · allocates: no · runs user code: no · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
void pyrt_retire_embedded(pyrt_thread *or_null, pyrt_retire_node *embedded, size_t bytes,
                          void (*dispose)(pyrt_retire_node *));
/* cdef: end */
#define pyrt_retire_node(or_null, embedded, bytes, dispose) \
    PYRT_CALL(retire_embedded)((or_null), (embedded), (bytes), (dispose))

/* cdef: begin */
/* Disposes of what this thread has retired and no reader can see any more, then of what ended threads left behind; empty pages of
 * type-stable heaps that both have kept for readers who have passed go back.
 * Answers how many items. Does nothing, and answers 0, inside a disposer (the one who called it goes on by itself), and
 * in a counted read-side section (reported).
 * blocks: while the world is stopped, if detached · allocates: no · runs user code: yes · quiescent: always · needs
 * attached: no (attaches for the time) · async-signal-safe: no */
size_t pyrt_process_delayed(pyrt_thread *thread);

/* Waits until all that was retired before the call has been disposed of: by the threads of the thread's interpreter, by those
 * that ended, and globally. Takes the queues of detached threads, asks the attached ones for theirs at their next safepoint.
 * Objects that wait for their owners to merge them (object.h) are merged too, and destroyed if that ends them. What the heaps of
 * the interpreter keep of memory without blocks goes back to the system: of ended and of detached threads, of this one, and of
 * the attached ones at a safepoint soon (one that has found readers in the way passes up to 64 before it looks again); of
 * type-stable heaps that for which readers had to be waited before the call. In a pause of one's own none goes, nor with a
 * timeout of 0.
 * NULL: the current state, or one of the main interpreter for the time. Errors: PYRT_EDEADLK inside a disposer, and in a
 * pause of one's own if a thread is parked in one; PYRT_ESTATE in a counted read-side section (reported), without runtime or
 * of an interpreter that is ending; PYRT_ENOMEM; the timed form PYRT_ETIMEDOUT (nothing is lost, and what was collected is
 * disposed of by whoever processes next). A negative timeout is none.
 * blocks: yes · allocates: yes (a state for the time, if there is none) · runs user code: yes · quiescent: always · needs
 * attached: no · async-signal-safe: no */
pyrt_status pyrt_qsbr_barrier(pyrt_thread *or_null);
pyrt_status pyrt_qsbr_barrier_timed(pyrt_thread *or_null, int64_t timeout_ns);

/* Sets the bound at which a thread of the interpreter gets PYRT_EBUSY, the item that reaches it first of all. A thread that
 * has retired something already heeds it from its next chunk on. Errors: PYRT_EINVAL for NULL or zero.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
pyrt_status pyrt_retire_set_bound(pyrt_interp *interp, size_t items, size_t bytes);
/* cdef: end */

PYRT_END_DECLS
#endif /* PYRUNTIME_RETIRE_H */
