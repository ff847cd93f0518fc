/* domain.h -- the Python object behind pyruntime.qsbr.Domain: one pyrt_interp, and whether somebody is inside.
 *
 * `interp` is valid from a successful begin of a use (uses.c) to its end; the closing thread alone sets it to NULL. Domains
 * that are kept, the default one of Python's main interpreter, are never closed, and are not counted.
 */
#ifndef PYRT_BINDING_DOMAIN_H
#define PYRT_BINDING_DOMAIN_H

#include "binding/home.h"

typedef struct pyrt_py_domain {
    PyObject_HEAD
    struct pyrt_py_domain *next; /* in home->domains, under its lock */
    pyrt_py_home *home;          /* held */
    pyrt_interp *interp;         /* NULL when closed */
    PyObject *name;
    int64_t interp_id;
    uint32_t users;              /* atomic: uses and leases */
    uint32_t closed;             /* atomic: 1 from the begin of closing on */
    bool is_default;             /* of its Python interpreter, and ends with it */
    bool is_kept;                /* OS threads keep their states in it */
} pyrt_py_domain;

static inline pyrt_py_domain *
pyrt_py_domain_of(PyObject *self)
{
    return (pyrt_py_domain *)self;
}

/* Sets the exception for a domain that is closed. */
void pyrt_py_raise_closed(pyrt_py_domain *domain, const char *what);

/* At the exit of an interpreter that is not main: ends its default domain, unless another thread is inside of it; that one's
 * memory stays. */
void pyrt_py_domain_end_default(pyrt_py_home *home);

PyTypeObject *pyrt_py_domain_type_new(void);

#endif
