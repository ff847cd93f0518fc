/* attach.h -- what makes a cffi module out of the shared object into the compiled part of a Python package. */
#ifndef PYRT_BINDING_ATTACH_H
#define PYRT_BINDING_ATTACH_H

/* cdef: begin */
/* Starts the runtime for the calling Python interpreter, and adds types, functions and the capsule to its module
 * pyruntime._core. 0, or -1 after the reason has gone to sys.unraisablehook. Call it once for each module. */
int pyrt_py_attach(void);
/* cdef: end */

#endif
