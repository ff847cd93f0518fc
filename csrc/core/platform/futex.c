/* futex.c -- the kernel's part of every wait. */
#include "platform/futex.h"

#include <errno.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
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

bool
pyrt_futex_wait(const uint32_t *word, uint32_t expected, int64_t deadline)
{
    int saved_errno = errno;
    struct timespec until;
    struct timespec *timeout = NULL;
    if (deadline >= 0 && deadline != INT64_MAX) {
        until.tv_sec = (time_t)(deadline / NS_PER_S);
        until.tv_nsec = (long)(deadline % NS_PER_S);
        timeout = &until;
    }
    /* The bitset form takes an absolute time of CLOCK_MONOTONIC. */
    long result = syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected, timeout, NULL, FUTEX_BITSET_MATCH_ANY);
    bool in_time = !(result == -1 && errno == ETIMEDOUT);
    errno = saved_errno;
    return in_time;
}

void
pyrt_futex_wake(const uint32_t *word, int count)
{
    int saved_errno = errno;
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
    errno = saved_errno;
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
