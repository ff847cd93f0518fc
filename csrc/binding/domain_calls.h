/* domain_calls.h -- the calls of a domain, for the method table of its type (domain.c), and the words of those that are
 * public as they stand. The others are wrapped by pyruntime/qsbr.py.
 */
#ifndef PYRT_BINDING_DOMAIN_CALLS_H
#define PYRT_BINDING_DOMAIN_CALLS_H

#include "binding/domain.h"

/* domain_calls.c */
PyObject *pyrt_py_domain_reading(PyObject *self, PyObject *unused);
PyObject *pyrt_py_domain_attached(PyObject *self, PyObject *unused);
PyObject *pyrt_py_domain_quiescent(PyObject *self, PyObject *unused);
PyObject *pyrt_py_domain_advance(PyObject *self, PyObject *unused);
PyObject *pyrt_py_domain_poll(PyObject *self, PyObject *goal);
PyObject *pyrt_py_domain_synchronize(PyObject *self, PyObject *timeout_ns);
PyObject *pyrt_py_domain_barrier(PyObject *self, PyObject *timeout_ns);
PyObject *pyrt_py_domain_stats(PyObject *self, PyObject *unused);
PyObject *pyrt_py_domain_stall_report(PyObject *self, PyObject *unused);
PyObject *pyrt_py_domain_set_bound(PyObject *self, PyObject *args);

/* domain_retire.c */
PyObject *pyrt_py_domain_retire(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);

/* domain_end.c */
PyObject *pyrt_py_domain_close(PyObject *self, PyObject *unused);

extern const char pyrt_py_domain_reading_doc[];
extern const char pyrt_py_domain_attached_doc[];
extern const char pyrt_py_domain_quiescent_doc[];
extern const char pyrt_py_domain_retire_doc[];
extern const char pyrt_py_domain_close_doc[];

#endif
