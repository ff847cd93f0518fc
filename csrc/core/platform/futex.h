/* futex.h -- sleeping on a word, the asymmetric barrier, and the clock. */
#ifndef PYRT_FUTEX_H
#define PYRT_FUTEX_H

#include <pyruntime/atomic.h>

/* Nanoseconds of CLOCK_MONOTONIC. */
int64_t pyrt_now_ns(void);

/* The moment at which a timeout given now ends; a negative timeout never ends, which is INT64_MAX. */
int64_t pyrt_deadline_after(int64_t timeout_ns);

/* Sleeps while *word == expected, until woken, interrupted, or `deadline` (a pyrt_now_ns value, or -1 or INT64_MAX for
 * none). May return early for no reason: the caller looks again. False only when the deadline has passed. */
bool pyrt_futex_wait(const uint32_t *word, uint32_t expected, int64_t deadline);

/* The same for a wait that signals may end: with `interruptible` a handler that ran in the sleep is told of, whether or not it
 * was installed with SA_RESTART. */
typedef enum pyrt_futex_end { PYRT_FUTEX_WOKEN, PYRT_FUTEX_TIMED_OUT, PYRT_FUTEX_INTERRUPTED } pyrt_futex_end;
pyrt_futex_end pyrt_futex_sleep(const uint32_t *word, uint32_t expected, int64_t deadline, bool interruptible);

/* Wakes at most `count` sleepers. */
void pyrt_futex_wake(const uint32_t *word, int count);

/* Lets another thread that is ready run on this core; at once back if there is none. */
void pyrt_yield(void);

/* Whether the kernel has pyrt_membarrier at all; cheap. */
bool pyrt_membarrier_is_supported(void);

/* Asks the kernel for pyrt_membarrier; again in the child of a fork. */
void pyrt_membarrier_register(void);

/* Makes every running thread of the process pass a full barrier; the caller too. False where the kernel refuses: the caller
 * then must not sleep longer than PYRT_WITHOUT_MEMBARRIER_NS before it looks again. */
bool pyrt_membarrier(void);
enum { PYRT_WITHOUT_MEMBARRIER_NS = 1000000 };

#endif
