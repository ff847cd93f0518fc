/* sections.h -- three objects, and a thread that is attached: what the tests of critical sections start from, and must end with.
 */
#ifndef TESTS_C_SECTIONS_H
#define TESTS_C_SECTIONS_H

#include "steps.h"
#include "support.h"
#include "workers.h"

static pyrt_mutex a, b, c;

static inline pyrt_thread *
up(void)
{
    a = b = c = (pyrt_mutex)PYRT_MUTEX_INIT;
    runtime_up();
    return pyrt_thread_ensure(pyrt_interp_main());
}

static inline void
down(pyrt_thread *thread)
{
    CHECK_UINT(thread->critical_sections, 0);
    CHECK(!pyrt_mutex_is_locked(&a) && !pyrt_mutex_is_locked(&b) && !pyrt_mutex_is_locked(&c));
    pyrt_thread_release(thread);
    runtime_down();
}

#endif
