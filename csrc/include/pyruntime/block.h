/* SPDX-License-Identifier: MIT
 *
 * block.h -- the hooks around every real sleep of the library.
 *
 * The core knows no Python and no GIL, but a thread that sleeps while it holds some lock of its host would stop the host.
 * So the host tells how to let go. The hooks are called only when a thread is about to sleep in the kernel, never on the
 * paths that do not wait.
 */
#ifndef PYRUNTIME_BLOCK_H
#define PYRUNTIME_BLOCK_H

#include "config.h"

PYRT_BEGIN_DECLS

/* cdef: begin */
/* before: let go of the host's locks; what it returns is handed to after. after: take them again. `after` is called detached
 * and with no lock of the library held, because a host that is shutting down may never return from it. One exception: in
 * pyrt_stop_the_world it runs with the world stopped and the caller as it was. It may end the OS thread everywhere, or stay
 * in the hook for ever, as CPython 3.14 has it of threads that outlive the interpreter. A pause is its requester's only when
 * that has come back from the hook: if it ends its OS thread there the world is started again, and if it stays, by whoever
 * has waited for the end of the pause for some tenths of a second. Who comes back later asks again, so that a slow host loses
 * time only. A request for a pause that is still waiting for its turn, or has timed out, leaves nothing behind. */
typedef struct pyrt_block_hooks {
    void *(*before)(void);
    void (*after)(void *saved);
} pyrt_block_hooks;

/* Sets the hooks of the process; NULL takes them away. Call it while no thread is inside the library.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
void pyrt_set_block_hooks(const pyrt_block_hooks *hooks_or_null);
/* cdef: end */

PYRT_END_DECLS
#endif /* PYRUNTIME_BLOCK_H */
