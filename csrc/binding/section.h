/* section.h -- the object that reading() and attached() answer: a block for a with statement. */
#ifndef PYRT_BINDING_SECTION_H
#define PYRT_BINDING_SECTION_H

#include "binding/domain.h"

typedef enum { PYRT_PY_ATTACHED, PYRT_PY_READING } pyrt_py_section_kind;

PyObject *pyrt_py_section_new(pyrt_py_domain *domain, pyrt_py_section_kind kind);

PyTypeObject *pyrt_py_section_type_new(void);

#endif
