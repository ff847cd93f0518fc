/* os_thread.h -- the OS thread under a thread state: its block of thread-local words, its identity, and its end. */
#ifndef PYRT_OS_THREAD_H
#define PYRT_OS_THREAD_H

#include <pyruntime/current.h>
#include <pyruntime/status.h>

enum { PYRT_OS_THREAD_NAME = 32 };

/* Gives the calling OS thread its id and registers it for the exit hook, also when it is ending and the hook has run. The
 * first call in the process makes the TLS key and pins this shared object: it is never unloaded under a thread.
 * PYRT_ENOMEM if the system has no key or memory left. */
pyrt_status pyrt_os_thread_register(void);

/* What to call on an OS thread that registered and ends; always the same function. */
void pyrt_os_thread_set_exit_hook(void (*hook)(void));

int32_t pyrt_os_thread_tid(void);
void pyrt_os_thread_name(char name[PYRT_OS_THREAD_NAME]);

void pyrt_os_thread_fork_child(void);

#endif
