/* gil.h -- calls of ours keep the GIL, and let go of it only where the core really sleeps.
 *
 * A call from Python stands between pyrt_py_enter and pyrt_py_leave, which note its Python thread state in a word of the OS
 * thread, for the block hooks (gil.c). The word is an outer one's again when a nested call leaves, so that calls may nest: a
 * disposer or callback may call us, from another Python thread state too.
 *
 * On free-threaded builds the same hooks detach the Python thread state, so that its pauses need not wait for us.
 */
#ifndef PYRT_BINDING_GIL_H
#define PYRT_BINDING_GIL_H

#include "binding/words.h"

/* What pyrt_py_enter answers is for the pyrt_py_leave that belongs to it. */
static inline PyThreadState *
pyrt_py_enter(void)
{
    PyThreadState *outer = pyrt_py_my_words()->inside;
    pyrt_py_my_words()->inside = PyThreadState_Get();
    return outer;
}

static inline void
pyrt_py_leave(PyThreadState *outer)
{
    pyrt_py_my_words()->inside = outer;
}

/* Sets the block hooks of the process; once. */
void pyrt_py_install_block_hooks(void);

#endif
