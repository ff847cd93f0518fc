/* seqlock.c -- the long ways of the sequence lock. The argument is in seqlock.h. */
#include "platform/report.h"

#include <pyruntime/seqlock.h>

/* A writer is inside: to wait for it is to lock it out for a moment. */
uint64_t
pyrt_seqlock_read_begin_slow(pyrt_seqlock *lock)
{
    pyrt_mutex_lock(&lock->writers);
    /* relaxed: the writer's unlock of the mutex has been acquired. */
    uint64_t sequence = pyrt_load_relaxed(&lock->sequence);
    pyrt_mutex_unlock(&lock->writers);
    return sequence;
}

void
pyrt_seqlock_write_unlock_slow(pyrt_seqlock *lock)
{
    pyrt_report("pyrt_seqlock_write_unlock: no writer is inside of the sequence lock at %p", (void *)lock);
}

pyrt_status
pyrt_seqlock_write_lock_timed(pyrt_seqlock *lock, int64_t timeout_ns, unsigned flags)
{
    pyrt_status status = pyrt_mutex_lock_timed(&lock->writers, timeout_ns, flags);
    if (status == PYRT_OK) {
        /* relaxed: as in write_lock. */
        pyrt_store_relaxed(&lock->sequence, pyrt_load_relaxed(&lock->sequence) + 1);
    }
    return status;
}

bool
pyrt_seqlock_at_fork_reinit(pyrt_seqlock *lock)
{
    uint64_t sequence = pyrt_load_relaxed(&lock->sequence);
    pyrt_store_relaxed(&lock->sequence, sequence + (sequence & 1));
    pyrt_mutex_at_fork_reinit(&lock->writers);
    return (sequence & 1) != 0;
}
