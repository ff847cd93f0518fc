/* rcu_cell.h -- the type of pyruntime.rcu.RCUCell (sync.h). */
#ifndef PYRT_BINDING_RCU_CELL_H
#define PYRT_BINDING_RCU_CELL_H

#include "binding/sync.h"

PyTypeObject *pyrt_py_rcu_cell_type_new(void);

#endif
