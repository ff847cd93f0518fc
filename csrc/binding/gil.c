/* gil.c -- the block hooks: letting go of the GIL for as long as the core sleeps, and taking it again.
 *
 * Whether this OS thread holds the GIL at the moment is not a question that Python answers everywhere: PyGILState_Check says yes
 * to everything as soon as there was a second interpreter. So the binding notes who came in (gil.h), and asks only whether
 * that thread state is still the current one: a C disposer may have released it before it came back to us.
 */
#include "binding/gil.h"

#include <dlfcn.h>

__thread pyrt_py_words pyrt_py_tls __attribute__((tls_model("initial-exec")));

#if defined(Py_GIL_DISABLED)

static PyThreadState *
current_thread_state(void)
{
    return PyThreadState_GetUnchecked();
}

#else

/* Not part of the limited API, but exported by every version there is, under one name or the other. Before 3.12 it answers
 * the thread state that holds the GIL, whosever it is; both answers are this one's exactly when it may be saved. */
static PyThreadState *(*get_unchecked)(void);

static PyThreadState *
current_thread_state(void)
{
    return get_unchecked == NULL ? pyrt_py_my_words()->inside : get_unchecked();
}

#endif

static void *
let_go(void)
{
    PyThreadState *mine = pyrt_py_my_words()->inside;
    if (mine == NULL || current_thread_state() != mine) {
        return NULL;
    }
    /* Cleared first: if Python ends the thread instead of giving the GIL back, its destructors must not find the word. */
    pyrt_py_my_words()->inside = NULL;
    return PyEval_SaveThread();
}

static void
take_again(void *saved)
{
    if (saved == NULL) {
        return;
    }
    PyEval_RestoreThread(saved);
    pyrt_py_my_words()->inside = saved;
}

void
pyrt_py_install_block_hooks(void)
{
#if !defined(Py_GIL_DISABLED)
    void *found = dlsym(RTLD_DEFAULT, "PyThreadState_GetUnchecked");
    if (found == NULL) {
        found = dlsym(RTLD_DEFAULT, "_PyThreadState_UncheckedGet");
    }
    get_unchecked = (PyThreadState * (*)(void)) found;
#endif
    static const pyrt_block_hooks hooks = {let_go, take_again};
    pyrt_set_block_hooks(&hooks);
}
