/* table_module.c -- pyruntime._table, a second module in the same shared object: the capsule alone.
 *
 * The module that cffi makes cannot be loaded in an interpreter with a GIL of its own, nor in any but the main one of a
 * free-threaded Python. This one can: it has several phases, and keeps nothing that belongs to an interpreter. So extensions find
 * the one runtime of the process everywhere.
 */
#include "binding/python.h"

#include "binding/attach.h"
#include "binding/capi.h"

#include <string.h>

static int
exec(PyObject *module)
{
    pyrt_status status = pyrt_py_start_process();
    if (status != PYRT_OK) {
        PyErr_Format(PyExc_ImportError, "pyruntime cannot start: %s", pyrt_strerror(status));
        return -1;
    }
    return pyrt_py_add_constants(module);
}

/* What newer versions want to be told, and older ones refuse to hear, so it is filled in when it is known which one this is. The
 * numbers are those of Python's headers, of which the limited API of 3.10 has none. */
enum { SLOT_INTERPRETERS = 3, SLOT_GIL = 4 };
#define GIL_OF_ITS_OWN_SUPPORTED ((void *)2)
#define GIL_NOT_USED ((void *)1)

static PyModuleDef_Slot slots[4] = {{Py_mod_exec, (void *)exec}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyruntime._table",
    .m_doc = "The function table for extensions, where the compiled part as a whole cannot be loaded.",
    .m_slots = slots,
};

/* Whether the Python that runs is 3.`minor` or newer. */
static bool
is_at_least(long minor)
{
    const char *version = Py_GetVersion();
    return strncmp(version, "3.", 2) != 0 || strtol(version + 2, NULL, 10) >= minor;
}

PyMODINIT_FUNC PyInit__table(void);

PyMODINIT_FUNC
PyInit__table(void)
{
    /* Interpreters that load it at the same time write the same. */
    if (is_at_least(13)) {
        slots[2] = (PyModuleDef_Slot){SLOT_GIL, GIL_NOT_USED};
    }
    if (is_at_least(12)) {
        slots[1] = (PyModuleDef_Slot){SLOT_INTERPRETERS, GIL_OF_ITS_OWN_SUPPORTED};
    }
    return PyModuleDef_Init(&definition);
}
