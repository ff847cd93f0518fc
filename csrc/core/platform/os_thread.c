/* os_thread.c -- identity and end of OS threads.
 *
 * The exit hook hangs on a pthread key, whose destructors run while thread-local storage is still there, in no order among
 * keys. A destructor of somebody else may come later and use the library again; registering again makes the system call
 * ours once more (it does so PTHREAD_DESTRUCTOR_ITERATIONS times).
 */
#define _GNU_SOURCE /* dladdr, RTLD_NOLOAD */
#include "platform/os_thread.h"

#include "platform/raw_mutex.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

__thread pyrt_tls_block pyrt_tls_storage __attribute__((tls_model("initial-exec")));

static struct {
    pyrt_raw_mutex lock;
    bool made;
    pthread_key_t key;
    void (*exit_hook)(void);
} exit_key;

/* Ids start at 1: 0 means none. */
static uint64_t next_os_id = 1;
static uint64_t next_identity = 1;

static void
on_thread_exit(void *block)
{
    /* acquire: pairs with the release in pyrt_os_thread_set_exit_hook. */
    void (*hook)(void) = pyrt_load_acquire(&exit_key.exit_hook);
    if (hook != NULL) {
        /* The user code in it may end the OS thread once more: the system then calls what is registered at that time. */
        (void)pthread_setspecific(exit_key.key, block);
        hook();
        (void)pthread_setspecific(exit_key.key, NULL);
    }
}

/* A destructor in an unloaded object would be a jump into nothing: ask the loader to keep the object that this code is in.
 * That fails only for a static executable, which cannot be unloaded. */
static void
pin_this_object(void)
{
    Dl_info info;
    if (dladdr((void *)&next_os_id, &info) != 0 && info.dli_fname != NULL) {
        (void)dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
    }
}

static bool
make_key(void)
{
    /* acquire: pairs with the release below. */
    if (pyrt_load_acquire(&exit_key.made)) {
        return true;
    }
    pyrt_raw_mutex_lock(&exit_key.lock);
    bool first = !exit_key.made && pthread_key_create(&exit_key.key, on_thread_exit) == 0;
    if (first) {
        pyrt_store_release(&exit_key.made, true);
    }
    bool made = exit_key.made;
    pyrt_raw_mutex_unlock(&exit_key.lock);
    if (first) {
        /* Without the lock: the loader has one of its own, and may be waiting for us. */
        pin_this_object();
    }
    return made;
}

pyrt_status
pyrt_os_thread_register(void)
{
    pyrt_tls_block *tls = pyrt_tls();
    if (!make_key() || pthread_setspecific(exit_key.key, tls) != 0) {
        return PYRT_ENOMEM;
    }
    if (tls->os_id == 0) {
        tls->os_id = pyrt_fetch_add_relaxed(&next_os_id, (uint64_t)1);
    }
    return PYRT_OK;
}

/* Not os_id, which means that the exit hook will run. A signal handler that comes in between may get another one; it holds
 * no lock any more when it has returned. */
const void *
pyrt_os_thread_identity_new(void)
{
    pyrt_tls_block *tls = pyrt_tls();
    if (tls->identity == NULL) {
        tls->identity = (const void *)(uintptr_t)pyrt_fetch_add_relaxed(&next_identity, (uint64_t)1);
    }
    return tls->identity;
}

void
pyrt_os_thread_set_exit_hook(void (*hook)(void))
{
    /* release: OS threads may be ending. */
    pyrt_store_release(&exit_key.exit_hook, hook);
}

int32_t
pyrt_os_thread_tid(void)
{
    return (int32_t)syscall(SYS_gettid);
}

void
pyrt_os_thread_name(char name[PYRT_OS_THREAD_NAME])
{
    memset(name, 0, PYRT_OS_THREAD_NAME);
    prctl(PR_GET_NAME, name);
}

void
pyrt_os_thread_fork_child(void)
{
    pyrt_raw_mutex_reinit(&exit_key.lock);
}
