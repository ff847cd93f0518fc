/* weak_table.h -- the types behind pyruntime.weakref. */
#ifndef PYRT_BINDING_WEAK_TABLE_H
#define PYRT_BINDING_WEAK_TABLE_H

#include "binding/home.h"

/* Makes a heap type; a new reference, NULL with an exception. */
PyTypeObject *pyrt_py_weak_table_type_new(void);
PyTypeObject *pyrt_py_weak_expiry_type_new(void);

#endif
