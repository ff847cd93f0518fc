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
    uint32_t missing;         /* threads that have not parked in time; 0: another pause was in the way all the time */
    int32_t os_tid;           /* of the first of them, or of who made that pause: the kernel's thread id; 0: nobody */
    uint64_t thread_id;       /* of its state; who makes a pause may have none: 0, and no name */
    int64_t interp_id;
    int64_t time_to_stop_ns;  /* from the request to the stop, or to giving up */
    char thread_name[32];
} pyrt_stop_report;

/* Stops the threads of an interpreter; NULL: of all. The states of the calling OS thread itself stay free to attach.
 * Requests of other threads that exclude each other get their turn in the order in which they came; pauses of different
 * interpreters may overlap, a global one excludes all. However close pauses follow each other, a thread that waits to attach
 * gets through between two of them.
 * Errors: PYRT_ESTATE for a nested request of this OS thread, attached to another interpreter than the one to stop, inside a
 * counted read-side section (all reported), or without runtime; PYRT_ENOMEM; PYRT_EINVAL for a wrong struct_size. The timed
 * form gives PYRT_ETIMEDOUT, fills the report with the thread that is in the way, and leaves nothing stopped; a negative
 * timeout is none.
 * blocks: yes · allocates: no · runs user code: no · quiescent: always · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_stop_the_world(pyrt_interp *or_null);
pyrt_status pyrt_stop_the_world_timed(pyrt_interp *or_null, int64_t timeout_ns, pyrt_stop_report *report_or_null);

/* Ends the pause that this OS thread began with the same argument; anything else is reported and changes nothing. The newest
 * critical section of the attached state is resumed, if its mutex could not be had in the pause.
 * blocks: to resume a critical section · allocates: no · runs user code: no · quiescent: may · needs attached: no ·
 * async-signal-safe: no */
void pyrt_start_the_world(pyrt_interp *or_null);

/* Whether the interpreter (NULL: every one) stands still at this moment.
 * blocks: shortly · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
bool pyrt_world_is_stopped(pyrt_interp *or_null);

/* What the pauses of one interpreter have cost, or (NULL) those of the whole process. A percentile is told at most an eighth
 * too long. */
typedef struct pyrt_pause_stats {
    uint32_t struct_size;      /* in: sizeof(pyrt_pause_stats) */
    uint64_t pauses;
    uint64_t timed_out;        /* requests that were given up because a thread was missing */
    uint64_t turns_lost; /* times that a thread which had waited, to attach or for a pause of its own, was woken, did not
                                  come in time, and had to wait again */
    int64_t to_stop_p50_ns; /* from the request, when it had its turn, until everybody stood still */
    int64_t to_stop_p99_ns;
    int64_t to_stop_max_ns;
    int64_t stopped_p50_ns; /* from then until the world was started again */
    int64_t stopped_p99_ns;
    int64_t stopped_max_ns;
    int64_t stopped_total_ns;
} pyrt_pause_stats;

/* Errors: PYRT_EINVAL for NULL or a wrong struct_size; PYRT_ESTATE without runtime.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
pyrt_status pyrt_stop_the_world_stats(pyrt_interp *or_null, pyrt_pause_stats *out);
/* cdef: end */

PYRT_END_DECLS
#endif /* PYRUNTIME_STOP_THE_WORLD_H */
