/* gil.c -- the block hooks: letting go of the GIL for as long as the core sleeps, and taking it again.
 *
 * Calls come in with the GIL and without it: from Python, from other extensions through the table, from C threads, from
 * thread-exit destructors. What is let go is the current Python thread state, if there is one and it is this OS thread's.
 * From 3.12 on the current thread state is a word of the OS thread. Before, it is a word of the process, that of whoever
 * holds the GIL; it is this OS thread's if it came in with it (gil.h), or if Python made it for this OS thread. Left out are,
 * on 3.10 and 3.11, calls through the table from an interpreter that is not the main one: they sleep with the GIL.
 *
 * PyGILState_Check would not do: it says yes to everything as soon as there has been a second interpreter.
 */
#include "binding/gil.h"

#include <dlfcn.h>

__thread pyrt_py_words pyrt_py_tls __attribute__((tls_model("initial-exec")));

#if defined(Py_GIL_DISABLED)

static PyThreadState *
my_thread_state(void)
{
    return PyThreadState_GetUnchecked();
}

static void
learn_about_python(void)
{
}

#else

static struct {
    /* Not part of the limited API, but exported by every version there is, under one name or the other. */
    PyThreadState *(*get_unchecked)(void);
    bool is_of_os_thread;
} current;

static PyThreadState *
my_thread_state(void)
{
    PyThreadState *came_in = pyrt_py_my_words()->inside;
    if (current.get_unchecked == NULL) {
        return came_in;
    }
    PyThreadState *found = current.get_unchecked();
    bool mine = current.is_of_os_thread || found == came_in || found == PyGILState_GetThisThreadState();
    return mine ? found : NULL;
}

static void
learn_about_python(void)
{
    void *found = dlsym(RTLD_DEFAULT, "PyThreadState_GetUnchecked");
    if (found == NULL) {
        found = dlsym(RTLD_DEFAULT, "_PyThreadState_UncheckedGet");
    }
    current.get_unchecked = (PyThreadState * (*)(void)) found;
    PyObject *version = PySys_GetObject("hexversion");
    current.is_of_os_thread = version != NULL && PyLong_AsLong(version) >= 0x030c0000;
}

#endif

static void *
let_go(void)
{
    if (my_thread_state() == NULL) {
        return NULL;
    }
    /* Cleared first: if Python ends the thread instead of giving the GIL back, its destructors must not find the word. */
    pyrt_py_my_words()->inside_before_sleep = pyrt_py_my_words()->inside;
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
    pyrt_py_my_words()->inside = pyrt_py_my_words()->inside_before_sleep;
}

void
pyrt_py_install_block_hooks(void)
{
    learn_about_python();
    static const pyrt_block_hooks hooks = {let_go, take_again};
    pyrt_set_block_hooks(&hooks);
}
