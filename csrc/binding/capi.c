/* capi.c -- the capsule around the function table. */
#include "binding/capi.h"

#include <pyruntime/capi_table.h>

PyObject *
pyrt_py_capi_capsule(void)
{
    /* Capsules hold what may be written to; nobody writes to this. */
    return PyCapsule_New((void *)(uintptr_t)pyrt_capi_own(), "pyruntime._C_API", NULL);
}
