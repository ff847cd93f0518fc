/* recursive_mutex.c -- the long ways of the mutex that its owner may lock again. All of its idea is in recursive_mutex.h. */
#include "platform/report.h"

#include "sync/waiting.h"

#include <pyruntime/recursive_mutex.h>

/* The inline pyrt_recursive_mutex_unlock found another owner, or none. */
void
pyrt_recursive_mutex_unlock_slow(pyrt_recursive_mutex *mutex)
{
    pyrt_report("pyrt_recursive_mutex_unlock: the mutex at %p is %s; only its owner can unlock it", (void *)mutex,
                pyrt_load_relaxed(&mutex->owner) == NULL ? "not locked" : "locked by another OS thread");
}

pyrt_status
pyrt_recursive_mutex_lock_timed(pyrt_recursive_mutex *mutex, int64_t timeout_ns, unsigned flags)
{
    if ((flags & ~PYRT_LOCK_FLAGS) != 0) {
        return PYRT_EINVAL;
    }
    if (!pyrt_recursive_mutex_is_owned(mutex)) {
        pyrt_status status = pyrt_mutex_lock_timed(&mutex->mutex, timeout_ns, flags);
        if (status != PYRT_OK) {
            return status;
        }
        pyrt_store_relaxed(&mutex->owner, pyrt_os_thread_identity());
    }
    mutex->depth++;
    return PYRT_OK;
}

void
pyrt_recursive_mutex_at_fork_reinit(pyrt_recursive_mutex *mutex)
{
    pyrt_store_relaxed(&mutex->owner, (const void *)NULL);
    mutex->depth = 0;
    pyrt_mutex_at_fork_reinit(&mutex->mutex);
}
