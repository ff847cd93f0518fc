/* SPDX-License-Identifier: MIT
 *
 * stop_the_world.h -- a pause in which no thread of an interpreter, or of the process, is attached but the one who asked.
 *
 * A request flags every attached thread, which parks at its next safepoint or when it detaches; a detached thread cannot
 * attach until the world is started again. The requester sleeps meanwhile, woken by the last to park. Only threads with a
 * pyrt_thread take part: nothing else in the process is stopped.
 */
#ifndef PYRUNTIME_STOP_THE_WORLD_H
#define PYRUNTIME_STOP_THE_WORLD_H

#include "thread.h"

PYRT_BEGIN_DECLS

/* cdef: begin */
typedef struct pyrt_stop_report {
    uint32_t struct_size;     /* in: sizeof(pyrt_stop_report) */
    uint32_t stopped;         /* threads that stand still */
    uint32_t missing;         /* threads that have not parked in time */
    int32_t os_tid;           /* of the first of them: the kernel's thread id */
    uint64_t thread_id;
    int64_t interp_id;
    int64_t time_to_stop_ns;  /* from the request to the stop, or to giving up */
    char thread_name[32];
} pyrt_stop_report;

/* Stops the threads of an interpreter; NULL: of all. The states of the calling OS thread itself stay free to attach.
 * Requests of other threads wait for their turn; pauses of different interpreters may overlap, a global one excludes all.
 * Errors: PYRT_ESTATE for a nested request of this OS thread, attached to another interpreter than the one to stop, inside a
 * counted read-side section (all reported), or without runtime; PYRT_ENOMEM; PYRT_EINVAL for a wrong struct_size. The timed form gives PYRT_ETIMEDOUT, fills the report with the first thread that is missing, and leaves
 * nothing stopped; a negative timeout is none.
 * blocks: yes · allocates: no · runs user code: no · quiescent: always · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_stop_the_world(pyrt_interp *or_null);
pyrt_status pyrt_stop_the_world_timed(pyrt_interp *or_null, int64_t timeout_ns, pyrt_stop_report *report_or_null);

/* Ends the pause that this OS thread began with the same argument; anything else is reported and changes nothing.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
void pyrt_start_the_world(pyrt_interp *or_null);

/* Whether the interpreter (NULL: every one) stands still at this moment.
 * blocks: shortly · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
bool pyrt_world_is_stopped(pyrt_interp *or_null);
/* cdef: end */

PYRT_END_DECLS
#endif /* PYRUNTIME_STOP_THE_WORLD_H */
