/* domain.h -- the Python object behind pyruntime.qsbr.Domain: one pyrt_interp, and whether somebody is inside.
 *
 * `interp` is valid from a successful begin of a use (uses.h) to its end; the closing thread alone sets it to NULL, before the
 * interp is gone. Domains that are kept, the default one of Python's main interpreter, are never closed, and are not counted.
 *
 * State table of `users`:
 *   bit 31         closed: no use can begin     close(), by compare-and-swap from 0, and cleared before it looks again where
 *                                               an extension keeps the interp; the exit of the interpreter, for its
 *                                               default domain, however many there are, and cleared if one is in use
 *   bits 0 to 30   uses and leases              one more by who begins one; one less by who ends it, or has found bit 31
 */
#ifndef PYRT_BINDING_DOMAIN_H
#define PYRT_BINDING_DOMAIN_H

#include "binding/home.h"

typedef struct pyrt_py_domain {
    PyObject_HEAD
    struct pyrt_py_domain *next; /* in home->domains, under its lock */
    pyrt_py_home *home;          /* held */
    pyrt_interp *interp;         /* atomic outside of a use; NULL when closed */
    PyObject *name;
    int64_t interp_id;
    uint32_t users;              /* atomic */
    bool is_default;             /* of its Python interpreter, and ends with it */
    bool is_kept;                /* OS threads keep their states in it */
} pyrt_py_domain;

#define PYRT_PY_DOMAIN_CLOSED 0x80000000u

static inline bool
pyrt_py_domain_is_closed(const pyrt_py_domain *domain)
{
    return (pyrt_load_acquire(&domain->users) & PYRT_PY_DOMAIN_CLOSED) != 0;
}

static inline pyrt_py_domain *
pyrt_py_domain_of(PyObject *self)
{
    return (pyrt_py_domain *)self;
}

/* The default domain of the calling interpreter, borrowed: an object of our own. NULL with an exception. */
pyrt_py_domain *pyrt_py_domain_default(pyrt_py_home *home);

/* Whether an object is one. What only says that it is, by __class__, as mocks do, is not. */
static inline bool
pyrt_py_is_domain(const pyrt_py_home *home, PyObject *object)
{
    return PyType_IsSubtype(Py_TYPE(object), (PyTypeObject *)pyrt_py_published(&home->domain_type)) != 0;
}

/* Sets the exception for a domain that is closed. */
void pyrt_py_raise_closed(pyrt_py_domain *domain, const char *what);

/* At the exit of an interpreter that is not main: ends its default domain, unless another thread is inside of it; that one's
 * memory stays. While buffers of it are in use, or an extension keeps it longer than is waited for, it is only closed, and
 * ended when the interpreter is gone; what stays even then is reported. */
void pyrt_py_domain_end_default(pyrt_py_home *home);
void pyrt_py_domain_end_left(pyrt_py_home *home);

PyTypeObject *pyrt_py_domain_type_new(void);

/* The name of a thing, "domain" or "heap", out of an argument; false with an exception. */
bool pyrt_py_name_argument(PyObject *object, const char *what, char name[PYRT_PY_NAME]);

#endif
