/* states.h -- which thread states an OS thread has, as far as the binding makes them.
 *
 * In the default domain of the main interpreter an OS thread keeps one state as long as it lives. In every other domain it
 * has one only while it is inside, so that a domain can be closed when nobody is.
 */
#ifndef PYRT_BINDING_STATES_H
#define PYRT_BINDING_STATES_H

#include "binding/domain.h"

/* The name that threading knows for a thread, by threading.get_ident(): a new reference; NULL, and no exception, where it knows
 * none. Nothing is imported for that. */
PyObject *pyrt_py_thread_name(uint64_t ident);

/* The same by the kernel's thread id, its native_id. */
PyObject *pyrt_py_thread_name_of_tid(int32_t tid);

/* Learns Python's name for this OS thread, for its states. Runs Python code, which may come back to us: to be called before
 * anything else is begun. */
void pyrt_py_state_learn_name(void);

/* The same, once. */
static inline void
pyrt_py_state_prepare(void)
{
    if (pyrt_unlikely(!pyrt_py_my_words()->is_named)) {
        pyrt_py_state_learn_name();
    }
}

/* The state that this OS thread keeps in the interpreter, made if need be, attached or not; NULL with an exception. */
pyrt_thread *pyrt_py_state_keep(pyrt_interp *interp);

/* The same, where it has one that is free to be attached for a moment, outside of everything; else NULL. */
pyrt_thread *pyrt_py_state_at_hand(void);

/* Attaches a state of this OS thread. Waits while the world is stopped; false with the exception of a signal handler. */
bool pyrt_py_state_attach(pyrt_thread *thread);

/* An attached state of the domain, by pyrt_thread_ensure, for pyrt_py_state_release; NULL with an exception, also that of a
 * signal handler, as above. The caller has begun a use of the domain. */
pyrt_thread *pyrt_py_state_ensure(pyrt_py_domain *domain);
void pyrt_py_state_release(pyrt_thread *thread);

#endif
