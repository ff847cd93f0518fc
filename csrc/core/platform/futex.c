/* futex.c -- the kernel's part of every wait. */
#include "platform/futex.h"

#include <errno.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { NS_PER_S = 1000000000 };

int64_t
pyrt_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

int64_t
pyrt_deadline_after(int64_t timeout_ns)
{
    if (timeout_ns < 0) {
        return INT64_MAX;
    }
    int64_t now = pyrt_now_ns();
    return timeout_ns > INT64_MAX - now ? INT64_MAX : now + timeout_ns;
}

pyrt_futex_end
pyrt_futex_sleep(const uint32_t *word, uint32_t expected, int64_t deadline, bool interruptible)
{
    int saved_errno = errno;
    struct timespec until;
    struct timespec *timeout = NULL;
    bool endless = deadline < 0 || deadline == INT64_MAX;
    /* A sleep with an end, however far, is not taken up again by itself after a handler with SA_RESTART. */
    if (!endless || interruptible) {
        deadline = endless ? INT64_MAX : deadline;
        until.tv_sec = (time_t)(deadline / NS_PER_S);
        until.tv_nsec = (long)(deadline % NS_PER_S);
        timeout = &until;
    }
    /* The bitset form takes an absolute time of CLOCK_MONOTONIC. */
    long result = syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected, timeout, NULL, FUTEX_BITSET_MATCH_ANY);
    pyrt_futex_end end = result == -1 && errno == ETIMEDOUT ? PYRT_FUTEX_TIMED_OUT
                         : result == -1 && errno == EINTR   ? PYRT_FUTEX_INTERRUPTED
                                                            : PYRT_FUTEX_WOKEN;
    errno = saved_errno;
    return end;
}

bool
pyrt_futex_wait(const uint32_t *word, uint32_t expected, int64_t deadline)
{
    return pyrt_futex_sleep(word, expected, deadline, false) != PYRT_FUTEX_TIMED_OUT;
}

void
pyrt_futex_wake(const uint32_t *word, int count)
{
    int saved_errno = errno;
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
    errno = saved_errno;
}

void
pyrt_yield(void)
{
    (void)sched_yield();
}

bool
pyrt_membarrier_is_supported(void)
{
    int saved_errno = errno;
    long commands = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
    errno = saved_errno;
    return commands > 0 && (commands & MEMBARRIER_CMD_PRIVATE_EXPEDITED) != 0;
}

void
pyrt_membarrier_register(void)
{
    int saved_errno = errno;
    syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
    errno = saved_errno;
}

bool
pyrt_membarrier(void)
{
    int saved_errno = errno;
    bool done = syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
    errno = saved_errno;
    return done;
}
