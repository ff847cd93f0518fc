"""The builder of a cffi module that uses the runtime which the process already has, and shares its types and functions.

``ffi.include`` makes the types one; the C text below calls the functions, inline ones too, through the table. The module
finds the table by itself when it is imported.
"""

from __future__ import annotations

from cffi import FFI

import pyruntime

SOURCE = r"""
#include <pyruntime/capi.h>
#include <stdlib.h>

typedef struct { pyrt_thread_info who; long what; } sample_note;

static long *current;
static long disposed;

static void dispose(void *p)
{
    (void)pyrt_fetch_add_relaxed(&disposed, 1L);
    free(p);
}

static pyrt_status sample_replace(long value)
{
    long *fresh = (long *)malloc(sizeof(*fresh));
    if (fresh == NULL) {
        return PYRT_ENOMEM;
    }
    *fresh = value;
    long *old = pyrt_exchange_seq_cst(&current, fresh);
    return old == NULL ? PYRT_OK : pyrt_retire(pyrt_thread_current(), old, sizeof(*old), dispose);
}

static long sample_look(pyrt_thread *thread)
{
    pyrt_read_begin(thread);
    const long *found = pyrt_load_acquire(&current);
    long value = found == NULL ? -1 : *found;
    pyrt_read_end(thread);
    pyrt_safepoint(thread);
    return value;
}

static pyrt_interp *sample_runtime(void)
{
    return pyrt_interp_main();
}
"""

ffibuilder = FFI()
ffibuilder.include(pyruntime.get_ffi())
ffibuilder.cdef("""
    typedef struct { pyrt_thread_info who; long what; } sample_note;
    pyrt_status sample_replace(long value);
    long sample_look(pyrt_thread *thread);
    pyrt_interp *sample_runtime(void);
    extern long disposed;
""")
ffibuilder.set_source("sample_cffi", SOURCE, include_dirs=[pyruntime.get_include()])

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
