/* buffer_protocol.h -- what types need that export their memory, also where the limited API does not have it yet.
 *
 * The buffer protocol came into the limited API with 3.11. Its struct, its flags and the numbers of its slots are those of 3.10
 * and earlier, which takes the slots in PyType_FromSpec too; only the declarations are missing there.
 */
#ifndef PYRT_BINDING_BUFFER_PROTOCOL_H
#define PYRT_BINDING_BUFFER_PROTOCOL_H

#include "binding/python.h"

#if defined(Py_LIMITED_API) && Py_LIMITED_API < 0x030b0000
typedef struct Py_buffer {
    void *buf;
    PyObject *obj;
    Py_ssize_t len;
    Py_ssize_t itemsize;
    int readonly;
    int ndim;
    char *format;
    Py_ssize_t *shape;
    Py_ssize_t *strides;
    Py_ssize_t *suboffsets;
    void *internal;
} Py_buffer;

#    if !defined(Py_bf_getbuffer)
#        define Py_bf_getbuffer 1
#        define Py_bf_releasebuffer 2
#    endif
enum { PyBUF_FORMAT = 0x4, PyBUF_ND = 0x8, PyBUF_STRIDES = 0x10 | PyBUF_ND };
#endif

#endif
