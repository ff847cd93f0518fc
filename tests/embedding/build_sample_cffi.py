"""The builder of a cffi module that uses the runtime which the process already has, and shares its types and functions.

``ffi.include`` makes the types one; the C text below calls the functions, inline ones too, through the table. The module
finds the table by itself when it is imported.
"""

from __future__ import annotations

from cffi import FFI

import pyruntime

SOURCE = r"""
#include <pyruntime/capi.h>
#include <sched.h>
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

static pyrt_status sample_drop(uintptr_t object)
{
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    if (thread == NULL) {
        return PYRT_ENOMEM;
    }
    pyrt_decref((pyrt_object *)object);
    pyrt_thread_release(thread);
    return PYRT_OK;
}

/* Adds to the first of two words until the second is 0. */
static pyrt_status sample_count(uintptr_t address)
{
    long *words = (long *)address;
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    if (thread == NULL) {
        return PYRT_ENOMEM;
    }
    while (pyrt_load_relaxed(&words[1])) {
        (void)pyrt_fetch_add_relaxed(&words[0], 1L);
        pyrt_safepoint(thread);
    }
    pyrt_thread_release(thread);
    return PYRT_OK;
}

/* Whether nobody adds to the word while this one has stopped the world. */
static bool sample_stands_still(uintptr_t address)
{
    const long *word = (const long *)address;
    if (pyrt_stop_the_world(NULL) != PYRT_OK) {
        return false;
    }
    long before = pyrt_load_relaxed(word);
    bool still = true;
    for (int i = 0; i < 1000 && still; i++) {
        sched_yield();
        still = pyrt_load_relaxed(word) == before;
    }
    pyrt_start_the_world(NULL);
    return still;
}
"""

ffibuilder = FFI()
ffibuilder.include(pyruntime.get_ffi())
ffibuilder.cdef("""
    typedef struct { pyrt_thread_info who; long what; } sample_note;
    pyrt_status sample_replace(long value);
    long sample_look(pyrt_thread *thread);
    pyrt_interp *sample_runtime(void);
    pyrt_status sample_drop(uintptr_t object);
    pyrt_status sample_count(uintptr_t address);
    bool sample_stands_still(uintptr_t address);
    extern long disposed;
""")
ffibuilder.set_source("sample_cffi", SOURCE, include_dirs=[pyruntime.get_include()])

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
