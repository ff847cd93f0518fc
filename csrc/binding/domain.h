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
 *
 * A close may lose its OS thread: in the child of a fork of another one, or when a disposer ends it. Bit 31 alone does not tell
 * such a close from one that is done, or goes on. The domain is settled then, after the core has settled its side, by who
 * closes and whether the core still has the interp; a domain that is linked is in one of these states:
 *
 *   bit 31   closer       interp      when the closer is lost
 *   0        any          there       nothing: open
 *   1        OS thread    there       open again, with what was retired, as before the close
 *   1        OS thread    gone        closed: unlinked, so that closing it again is answered at once
 *   1        not yet, or not any more: as for an OS thread that is lost; whoever forks or ends is outside of these moments
 *
 * The default domain of an interpreter that exits: the same, by home->ender and home->interp, for all its objects at once.
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
    pyrt_py_words *closer;       /* atomic: the OS thread that is closing it, or the last that did; see the second table */
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

/* The object goes: ends the domain, if nobody has. */
void pyrt_py_domain_drop(pyrt_py_domain *domain);

/* Settles what the OS threads that are lost were closing: those that are not in the child of a fork; or this one, which ends,
 * when the core has seen its end. */
void pyrt_py_domains_fork_child(void);
void pyrt_py_domains_end_of_thread(void);

PyTypeObject *pyrt_py_domain_type_new(void);

/* The name of a thing, "domain" or "heap", out of an argument; false with an exception. */
bool pyrt_py_name_argument(PyObject *object, const char *what, char name[PYRT_PY_NAME]);

#endif
