/* ensure.c -- "give me an attached state, and put everything back afterwards": a stack for each OS thread.
 *
 * Only the OS thread itself touches its stack. Ensures in a row that find their state attached share one frame, so that
 * the usual nesting allocates nothing.
 */
#include "platform/meta_alloc.h"
#include "platform/report.h"
#include "state/thread_impl.h"

#include <pyruntime/parking_lot.h>

static void
push(pyrt_ensure_frame *frame, pyrt_thread *thread, pyrt_thread *found, bool made)
{
    pyrt_tls_block *tls = pyrt_tls();
    pyrt_thread_impl *impl = pyrt_thread_impl_of(thread);
    *frame = (pyrt_ensure_frame){
        .next = tls->ensures,
        .next_of_thread = impl->frames,
        .thread = thread,
        .found = found,
        .made = made,
        .count = 1,
        .disposing = tls->disposing,
    };
    /* release: the child of a fork finds whole frames. */
    pyrt_store_release(&impl->frames, frame);
    tls->ensures = frame;
}

static pyrt_ensure_frame
pop(void)
{
    pyrt_tls_block *tls = pyrt_tls();
    pyrt_ensure_frame *frame = tls->ensures;
    pyrt_ensure_frame top = *frame;
    tls->ensures = top.next;
    pyrt_store_release(&pyrt_thread_impl_of(top.thread)->frames, top.next_of_thread);
    pyrt_meta_free(frame, sizeof(top));
    return top;
}

/* With nothing else attached. Undone, the frame has been popped and `made` is gone. */
static pyrt_status
attach_pushed(pyrt_thread *thread, bool made, int64_t timeout_ns, unsigned flags)
{
    pyrt_status status = pyrt_attach_timed(thread, timeout_ns, flags);
    if (status != PYRT_OK) {
        (void)pop();
        if (made) {
            pyrt_thread_unmake(thread);
        }
    }
    return status;
}

pyrt_status
pyrt_thread_ensure_timed(pyrt_interp *interp, int64_t timeout_ns, unsigned flags, pyrt_thread **out)
{
    pyrt_tls_block *tls = pyrt_tls();
    pyrt_thread *found = tls->current;
    *out = NULL;
    if ((flags & ~(unsigned)PYRT_LOCK_INTERRUPTIBLE) != 0) {
        return PYRT_EINVAL;
    }
    if (interp == NULL) {
        return PYRT_ESTATE;
    }
    bool attached = found != NULL && found->interp == interp;
    if (attached && tls->ensures != NULL && tls->ensures->thread == found && tls->ensures->disposing == tls->disposing) {
        tls->ensures->count++;
        *out = found;
        return PYRT_OK;
    }
    if (!attached && pyrt_is_reading("pyrt_thread_ensure")) {
        return PYRT_ESTATE;
    }
    /* First, so that no state has to be ended again, which runs user code, when memory is short. */
    pyrt_ensure_frame *frame = pyrt_meta_alloc(sizeof(*frame));
    if (frame == NULL) {
        return PYRT_ENOMEM;
    }
    if (attached) {
        push(frame, found, found, false);
        *out = found;
        return PYRT_OK;
    }
    pyrt_thread *thread = pyrt_thread_find(interp);
    bool made = thread == NULL;
    pyrt_status status = made ? pyrt_thread_make(interp, &thread) : PYRT_OK;
    if (status != PYRT_OK) {
        pyrt_meta_free(frame, sizeof(*frame));
        return status;
    }
    push(frame, thread, found, made);
    if (found != NULL) {
        pyrt_detach(found);
    }
    status = attach_pushed(thread, made, timeout_ns, flags);
    if (status == PYRT_OK) {
        *out = thread;
    }
    else if (found != NULL) {
        pyrt_attach(found);
    }
    return status;
}

pyrt_thread *
pyrt_thread_ensure(pyrt_interp *interp)
{
    pyrt_thread *thread;
    (void)pyrt_thread_ensure_timed(interp, -1, 0, &thread);
    return thread;
}

void
pyrt_thread_release(pyrt_thread *thread)
{
    pyrt_tls_block *tls = pyrt_tls();
    pyrt_ensure_frame *top = tls->ensures;
    if (top != NULL && top->disposing != tls->disposing) {
        pyrt_report(
            "pyrt_thread_release: thread %llu was ensured outside of the disposer that runs now, which cannot release it",
            (unsigned long long)top->thread->id);
        return;
    }
    if (top == NULL || thread == NULL || top->thread != thread) {
        pyrt_report("pyrt_thread_release: thread %llu is not what the newest pyrt_thread_ensure of this OS thread returned "
                    "(that is %llu; 0 is none)",
                    thread == NULL ? 0ULL : (unsigned long long)thread->id,
                    top == NULL ? 0ULL : (unsigned long long)top->thread->id);
        return;
    }
    if (top->count > 1) {
        top->count--;
        return;
    }
    if (top->found != thread && pyrt_is_reading("pyrt_thread_release")) {
        return;
    }
    if (top->made && (pyrt_thread_impl_of(thread)->held != 0 || pyrt_thread_impl_of(thread)->kept != 0)) {
        pyrt_report("pyrt_thread_release: thread %llu cannot end: %s", (unsigned long long)thread->id,
                    pyrt_thread_impl_of(thread)->held != 0 ? "one of its disposers is running"
                                                           : "a call further out returns to it");
        return;
    }
    pyrt_ensure_frame frame = pop();
    if (tls->current != NULL && tls->current != frame.found) {
        pyrt_detach(tls->current);
    }
    if (frame.found != NULL) {
        pyrt_thread_impl_of(frame.found)->kept++;
    }
    if (frame.made) {
        pyrt_thread_end(pyrt_thread_impl_of(thread));
    }
    if (frame.found != NULL) {
        pyrt_thread_impl_of(frame.found)->kept--;
        if (tls->current == NULL) {
            pyrt_attach(frame.found);
        }
    }
}

void
pyrt_ensure_drop_all(void)
{
    while (pyrt_tls()->ensures != NULL) {
        (void)pop();
    }
}

void
pyrt_ensure_forget(pyrt_thread_impl *thread)
{
    pyrt_ensure_frame **link = &pyrt_tls()->ensures;
    while (*link != NULL) {
        pyrt_ensure_frame *frame = *link;
        if (frame->found == &thread->base) {
            frame->found = NULL;
        }
        if (frame->thread != &thread->base) {
            link = &frame->next;
            continue;
        }
        *link = frame->next;
        pyrt_meta_free(frame, sizeof(*frame));
        pyrt_report("thread %llu '%s' ends with a pyrt_thread_ensure that has not been released",
                    (unsigned long long)thread->base.id, thread->name);
    }
    thread->frames = NULL;
}

void
pyrt_ensure_lose(pyrt_thread_impl *thread)
{
    while (thread->frames != NULL) {
        pyrt_ensure_frame *frame = thread->frames;
        thread->frames = frame->next_of_thread;
        pyrt_meta_free(frame, sizeof(*frame));
    }
}
