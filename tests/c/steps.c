/* steps.c -- see steps.h. */
#include "steps.h"

#include "support.h"
#include "workers.h"

void
make_state(void *out)
{
    pyrt_thread *thread = pyrt_thread_new(pyrt_interp_main());
    CHECK(thread != NULL);
    *(pyrt_thread **)out = thread;
}

void
attach_new(void *out)
{
    make_state(out);
    pyrt_attach(*(pyrt_thread **)out);
}

void
attach(void *thread)
{
    pyrt_attach(thread);
}

void
detach(void *thread)
{
    pyrt_detach(thread);
}

void
pass_safepoint(void *thread)
{
    pyrt_safepoint(thread);
}

void
pass_quiescent_state(void *thread)
{
    pyrt_qsbr_quiescent_state(thread);
}

void
delete_state(void *thread)
{
    pyrt_thread_delete(thread);
}

void
delete_attached(void *thread)
{
    pyrt_detach(thread);
    pyrt_thread_delete(thread);
}

/* ---- a pause that a led thread asks for ------------------------------------------------------------------------------ */

void
stop_as_called(void *arg)
{
    pause_call *call = arg;
    call->report.struct_size = sizeof(call->report);
    call->status = pyrt_stop_the_world_timed(call->interp, call->timeout_ns, &call->report);
}

void
start_as_called(void *arg)
{
    pyrt_start_the_world(((pause_call *)arg)->interp);
}

/* ---- a reader in the way --------------------------------------------------------------------------------------------- */

static worker reader_worker;
pyrt_thread *the_reader;

void
reader_begin(void)
{
    worker_start(&reader_worker);
    worker_do(&reader_worker, attach_new, &the_reader);
}

void
reader_passes(void)
{
    worker_do(&reader_worker, pass_quiescent_state, the_reader);
}

void
reader_end(void)
{
    worker_do(&reader_worker, delete_attached, the_reader);
    worker_end(&reader_worker);
}
