/* SPDX-License-Identifier: MIT
 *
 * fork.h -- what becomes of the runtime in the child of a fork.
 *
 * Any fork(2) through the C library is safe: handlers of ours hold the library's short locks across it. In the child only
 * the forking thread's states live on. The others are shut down without their exit hooks; what they had retired belongs to
 * the interpreter now, but for the one item that such a thread was disposing of just then, and its memory is given back, but
 * for a block that it was taking or giving back just then. pyrt_fork stops the world first, so that other threads stand at a
 * safepoint or are detached: a disposal is cut in two only if its disposer is.
 *
 * Objects (object.h) are counted right in the child, but for references that lost threads had. What a lost thread had been asked
 * to merge is merged, and destroyed by those that are left. Destroyed by nobody is what it was itself in the middle of: the
 * object whose destructor it was in, which may have run halfway and cannot be run again; those that waited for that destructor to
 * return; and the one, if any, that it had made QUEUED and not yet pushed, which nobody can tell from one that a thread which is
 * still there is about to push. Their memory goes with the interpreter. After pyrt_fork there is none of the last kind.
 */
#ifndef PYRUNTIME_FORK_H
#define PYRUNTIME_FORK_H

#include "thread.h"
#include <sys/types.h>

PYRT_BEGIN_DECLS

/* cdef: begin */
/* fork(2) with all other threads of the runtime stopped; in the parent they go on. If this OS thread has a world stopped
 * already, it forks inside of that pause, which goes on in both. Answers as fork does: -1 with errno, EDEADLK inside a
 * counted read-side section (reported) and while the runtime ends.
 * A Python process forks with os.fork(), which prepares the interpreter too; the handlers above work there as well.
 * blocks: yes · allocates: as fork · runs user code: no (but others' fork handlers) · quiescent: always · needs attached:
 * no · async-signal-safe: no */
pid_t pyrt_fork(void);
/* cdef: end */

PYRT_END_DECLS
#endif /* PYRUNTIME_FORK_H */
