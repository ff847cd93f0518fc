/* callables.c -- running retired Python callables, and getting Python to come by when nobody calls us. */
#include "binding/callables.h"

#include "binding/gil.h"
#include "binding/uses.h"

#include "platform/futex.h"
#include "reclaim/reclaim.h"

#include <limits.h>
#include <stdlib.h>

enum { RETIRES_BETWEEN = 128, BYTES_BETWEEN = 64 * 1024 };

pyrt_py_callable *
pyrt_py_callable_new_node(pyrt_py_home *home)
{
    pyrt_py_callable *node = malloc(sizeof(*node));
    if (node != NULL) {
        *node = (pyrt_py_callable){.home = home};
        pyrt_py_home_hold(home);
    }
    return node;
}

pyrt_py_callable *
pyrt_py_callable_new(pyrt_py_home *home, PyObject *callable)
{
    pyrt_py_callable *node = pyrt_py_callable_new_node(home);
    if (node != NULL) {
        node->object = Py_NewRef(callable);
        node->call = true;
        pyrt_fetch_add_relaxed(&home->waiting, (uint64_t)1);
    }
    return node;
}

void
pyrt_py_callable_free(pyrt_py_callable *node)
{
    pyrt_py_home_drop(node->home);
    free(node);
}

void
pyrt_py_callable_delete(pyrt_py_callable *node)
{
    Py_DECREF(node->object);
    pyrt_fetch_add_relaxed(&node->home->waiting, (uint64_t)-1);
    pyrt_py_callable_free(node);
}

/* ---- pending calls ----------------------------------------------------------------------------------------------- */

/* Between the two the home stays what it is, though a node that holds it may be run and freed. A count and no reference: the
 * child of a fork, where nobody is in between, forgets it. */
static void
begin_handing(pyrt_py_home *home)
{
    /* seq_cst: counted, then looked at `open`; pairs with "open = 0, then wait for the count" of the interpreter that exits. */
    pyrt_fetch_add_seq_cst(&home->handing, 1u);
}

static void
end_handing(pyrt_py_home *home)
{
    pyrt_fetch_add_seq_cst(&home->handing, (uint32_t)-1);
}

bool
pyrt_py_is_time_to_process(size_t bytes, bool busy)
{
    pyrt_py_words *words = pyrt_py_my_words();
    words->retires++;
    words->retired_bytes += bytes;
    bool is_time = busy || words->retires >= RETIRES_BETWEEN || words->retired_bytes >= BYTES_BETWEEN;
    if (is_time) {
        words->retires = 0;
        words->retired_bytes = 0;
    }
    return is_time;
}

void
pyrt_py_process_queues(void)
{
    if (pyrt_thread_current() == NULL) {
        PyThreadState *outer = pyrt_py_enter();
        (void)pyrt_qsbr_barrier_timed(NULL, 0);
        pyrt_py_leave(outer);
    }
}

static int
on_pending_call(void *arg)
{
    pyrt_py_home *home = arg;
    uint32_t due = pyrt_exchange_seq_cst(&home->due, 0u);
    if (pyrt_load_acquire(&home->open) == 0) {
        return 0;
    }
    if (due & PYRT_PY_DUE_PROCESS) {
        pyrt_py_process_queues();
    }
    pyrt_py_run_if_outside(home);
    return 0;
}

/* Between the two above. */
static void
schedule(pyrt_py_home *home, uint32_t what)
{
    if (!home->is_main || pyrt_fetch_or_seq_cst(&home->due, what) != 0) {
        return;
    }
    if (pyrt_load_seq_cst(&home->open) == 0 || Py_AddPendingCall(on_pending_call, home) != 0) {
        (void)pyrt_exchange_seq_cst(&home->due, 0u);
    }
}

void
pyrt_py_schedule(pyrt_py_home *home, uint32_t what)
{
    begin_handing(home);
    schedule(home, what);
    end_handing(home);
}

/* ---- from the core, on any OS thread ----------------------------------------------------------------------------- */

void
pyrt_py_callable_leave(pyrt_py_callable *node)
{
    pyrt_py_home *home = node->home;
    if (pyrt_load_seq_cst(&home->open) == 0) {
        /* Python is gone or going: nothing of it may be touched, its object least of all. */
        pyrt_py_callable_free(node);
        return;
    }
    node->next = pyrt_load_relaxed(&home->disposed);
    /* seq_cst: as release it hands the node over. Pairs with the exchange of the runner. */
    while (!pyrt_cas_seq_cst(&home->disposed, &node->next, node)) {
    }
}

void
pyrt_py_callable_hand_over(pyrt_py_callable *node)
{
    pyrt_py_home *home = node->home;
    begin_handing(home);
    pyrt_py_callable_leave(node);
    schedule(home, PYRT_PY_DUE_RUN);
    end_handing(home);
}

void
pyrt_py_callable_dispose(void *node)
{
    pyrt_py_callable *callable = node;
    pyrt_py_home *home = callable->home;
    begin_handing(home);
    pyrt_py_callable_leave(callable);
    schedule(home, PYRT_PY_DUE_RUN);
    /* Only now: who sees nothing waiting finds everything on the list. */
    pyrt_fetch_add_seq_cst(&home->waiting, (uint64_t)-1);
    end_handing(home);
}

void
pyrt_py_release_later(pyrt_py_home *home, PyObject *object)
{
    pyrt_py_callable *node = pyrt_py_callable_new_node(home);
    if (node != NULL) {
        node->object = object;
        pyrt_py_callable_hand_over(node);
    }
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

/* Takes everything that has been disposed of, oldest first, behind what a runner that a fork lost has left. Under the lock,
 * which a fork takes too: so the child finds all of it either here or there. */
static void
take_batch(pyrt_py_home *home)
{
    pyrt_raw_mutex_lock(&home->lock);
    pyrt_py_callable *newest = pyrt_exchange_seq_cst(&home->disposed, (pyrt_py_callable *)NULL);
    pyrt_py_callable *oldest = NULL;
    while (newest != NULL) {
        pyrt_py_callable *older = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = older;
    }
    pyrt_py_callable **end = &home->batch;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = oldest;
    pyrt_raw_mutex_unlock(&home->lock);
}

void
pyrt_py_callable_run(pyrt_py_callable *node)
{
    PyObject *object = node->object;
    PyObject *argument = node->argument;
    bool call = node->call;
    pyrt_py_callable_free(node);
    if (call) {
        PyObject *result = PyObject_CallFunctionObjArgs(object, argument, NULL);
        if (result == NULL) {
            PyErr_WriteUnraisable(object);
        }
        Py_XDECREF(result);
    }
    Py_XDECREF(argument);
    Py_XDECREF(object);
}

static void
run_batch(pyrt_py_home *home)
{
    while (home->batch != NULL) {
        pyrt_py_callable *node = home->batch;
        home->batch = node->next;
        pyrt_py_callable_run(node);
    }
}

pyrt_py_run_result
pyrt_py_run_disposed(pyrt_py_home *home)
{
    pyrt_thread *current = pyrt_thread_current();
    if (current != NULL && current->slot.read_depth != 0) {
        return PYRT_PY_NOT_HERE;
    }
    uintptr_t me = (uintptr_t)pyrt_py_my_words();
    uintptr_t runner = 0;
    /* acquire: pairs with the release below; the batch is this thread's now. */
    if (!pyrt_cas_acquire(&home->runner, &runner, me)) {
        return runner == me ? PYRT_PY_BY_MYSELF : PYRT_PY_BY_OTHER;
    }
    pyrt_py_suspended suspended = pyrt_py_suspend_uses();
    take_batch(home);
    run_batch(home);
    pyrt_store_release(&home->runner, (uintptr_t)0);
    /* seq_cst: pairs with the load of who is about to sleep on it. */
    pyrt_fetch_add_seq_cst(&home->batches, 1u);
    pyrt_futex_wake(&home->batches, INT_MAX);
    pyrt_py_resume_uses(suspended);
    if (pyrt_load_relaxed(&home->disposed) != NULL) {
        pyrt_py_schedule(home, PYRT_PY_DUE_RUN);
    }
    return PYRT_PY_RAN;
}

void
pyrt_py_run_if_outside(pyrt_py_home *home)
{
    if (pyrt_thread_current() == NULL) {
        pyrt_py_run_if_any(home);
    }
}

void
pyrt_py_callables_fork_child(pyrt_py_home *home)
{
    /* What the runner had taken and not run stays in the batch for the next one. */
    if (home->runner != (uintptr_t)pyrt_py_my_words()) {
        home->runner = 0;
    }
    home->handing = 0;
    /* Python keeps the pending calls of the parent, or loses them; asking once more does no harm. */
    home->due = 0;
    /* Those that were lost may have stood between counting a callable and retiring it, or between taking it and counting it. */
    home->waiting = 0;
}

static void
count_if_callable(const pyrt_retired *item)
{
    if (item->dispose == pyrt_py_callable_dispose) {
        ((pyrt_py_callable *)item->p)->home->waiting++;
    }
}

void
pyrt_py_callables_fork_settle(void)
{
    pyrt_reclaim_visit(count_if_callable);
}
