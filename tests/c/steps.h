/* steps.h -- what led threads (workers.h) do with the library, one call a step. The argument is the thread state, but for
 * those that make one, which write it down where the argument points to. All are of the main interpreter.
 */
#ifndef TESTS_C_STEPS_H
#define TESTS_C_STEPS_H

#include <pyruntime/pyruntime.h>

void make_state(void *out);
void attach_new(void *out);

void attach(void *thread);
void detach(void *thread);
void pass_safepoint(void *thread);
void pass_quiescent_state(void *thread);

void delete_state(void *thread);
void delete_attached(void *thread);

/* ---- a pause that a led thread asks for ------------------------------------------------------------------------------ */

typedef struct pause_call {
    pyrt_interp *interp; /* or NULL: all */
    int64_t timeout_ns;
    pyrt_status status;
    pyrt_stop_report report;
} pause_call;

void stop_as_called(void *call);
void start_as_called(void *call);

/* ---- a reader in the way --------------------------------------------------------------------------------------------- */

/* Attached on an OS thread of its own, so that nothing of the main interpreter is disposed of until it passes. */
extern pyrt_thread *the_reader;
void reader_begin(void);
void reader_passes(void);
void reader_end(void);

#endif
