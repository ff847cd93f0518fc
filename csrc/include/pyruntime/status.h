/* SPDX-License-Identifier: MIT
 *
 * status.h -- what a function answers, the version, and the one hook through which the library speaks.
 *
 * The line under each public function, here and in every header, says in this order:
 *   blocks         may wait for another thread
 *   allocates      may ask the system for memory
 *   runs user code may call a function that the user handed in
 *   quiescent      never, may or always: whether it ends the read-side section of the calling thread (see qsbr.h)
 *   needs attached whether the calling OS thread must have an attached pyrt_thread (see thread.h)
 *   async-signal-safe
 */
#ifndef PYRUNTIME_STATUS_H
#define PYRUNTIME_STATUS_H

#include "config.h"

PYRT_BEGIN_DECLS

/* cdef: begin */
typedef enum {
    PYRT_OK = 0,
    PYRT_ENOMEM,        /* no memory; nothing was done */
    PYRT_EINVAL,        /* an argument is outside of what the function takes */
    PYRT_ESTATE,        /* not now: the runtime, thread or world is not in the state that the call needs */
    PYRT_ETIMEDOUT,     /* the time ran out; what was begun has been undone or goes on by itself, as the function says */
    PYRT_EBUSY,         /* in use, or a bound is passed; the function says what was done all the same */
    PYRT_ENOTFOUND,     /* there is no such thing */
    PYRT_EOVERFLOW,     /* a number does not fit */
    PYRT_ENOTSHAREABLE, /* the object cannot go to another interpreter */
    PYRT_EEXIST,        /* there is one already */
    PYRT_EINTR,         /* a signal came in between */
    PYRT_EDEADLK,       /* waiting here would wait for ever */
    PYRT_ENOTSUP,       /* this system or build cannot do it */
    PYRT_EVERSION       /* table and header do not fit together */
} pyrt_status;

/* A short English sentence for a status; never NULL, also for a number that is none.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
const char *pyrt_strerror(pyrt_status status);

/* "major.minor.patch" of the core that runs.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
const char *pyrt_version(void);

/* Where stalls, misuse and errors that no caller can be told of are reported: one line of text, without a line end, valid
 * during the call. NULL goes back to the default, which writes the line to stderr. The hook runs on the thread that
 * noticed, holding no lock of the library; it must return, and it must not attach or detach.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
void pyrt_set_report_hook(void (*hook)(const char *message, void *arg), void *arg);
/* cdef: end */

PYRT_END_DECLS
#endif /* PYRUNTIME_STATUS_H */
