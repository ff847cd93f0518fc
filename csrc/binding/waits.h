/* waits.h -- waiting for readers and for callables: interruptible by signals, and never with the GIL. */
#ifndef PYRT_BINDING_WAITS_H
#define PYRT_BINDING_WAITS_H

#include "binding/domain.h"

typedef enum { PYRT_PY_FAILED = -1, PYRT_PY_TIMED_OUT = 0, PYRT_PY_DONE = 1 } pyrt_py_wait_result;

/* PYRT_PY_FAILED: an exception is set. A negative timeout is none, zero looks once. */
pyrt_py_wait_result pyrt_py_synchronize(pyrt_py_domain *domain, int64_t timeout_ns);

/* Until everything that was retired in the domain before has been disposed of, and every callable among it has run. */
pyrt_py_wait_result pyrt_py_barrier(pyrt_py_domain *domain, int64_t timeout_ns);

/* At the exit of the interpreter: all domains, as far as they come until the deadline. */
void pyrt_py_wait_at_exit(pyrt_py_home *home, int64_t deadline);

/* After that: says which callables will not be run, and who is in the way. */
void pyrt_py_report_at_exit(pyrt_py_home *home);

#endif
