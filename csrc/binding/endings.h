/* endings.h -- giving up values whose last reference has gone: the core says that it has, Python runs the finalizer.
 *
 * The node of an ending is made with the value, so that nothing is left to fail at its end. The way of one:
 *
 *   disposed of   by the core, on any OS thread, with or without the GIL
 *   here          this OS thread is in a call that sees to it (pyrt_py_endings_begin): in the words' list, given up when the
 *                 call has done its own work
 *   by mail       another OS thread has asked to be the one: in its mailbox, given up in its next call
 *   anywhere      else, or when that OS thread has ended: with the callables that have been disposed of (callables.h)
 *
 * What ends inside of a finalizer, or of the end of a value, is given up at once up to a depth of PYRT_DEATH_DEPTH, as in the
 * core; beyond it, it waits for the outermost, so that a chain of any length ends in little stack.
 *
 * Mailboxes are never freed, because others may be about to write; one without references is taken by the next OS thread.
 *
 * State table of a mailbox's `head`:
 *   MAIL_CLOSED   its thread has ended, or it is nobody's    that thread, with what was in it; a fork, for lost threads
 *   else          the newest node, NULL: empty               pushed by who disposes; taken out, all at once, by the thread, or
 *                                                            at the exit of an interpreter
 */
#ifndef PYRT_BINDING_ENDINGS_H
#define PYRT_BINDING_ENDINGS_H

#include "binding/callables.h"

typedef struct pyrt_py_mailbox {
    struct pyrt_py_mailbox *next; /* all mailboxes; never changes once linked */
    uint32_t references;          /* atomic: the thread, and the nodes that are to come here */
    pyrt_py_callable *head;       /* atomic; see the table */
} pyrt_py_mailbox;

/* The node for a value and its finalizer, or NULL, that this OS thread alone is to run if `here`. NULL with an exception. */
pyrt_py_callable *pyrt_py_ending_new(pyrt_py_home *home, PyObject *value, PyObject *or_null, bool here);

/* Takes back a node that has not been disposed of. */
void pyrt_py_ending_delete(pyrt_py_callable *node);

/* What the core calls. No Python here. */
void pyrt_py_ending_dispose(pyrt_py_callable *node);

/* Around what may dispose, in a call from Python. The first answers what the second wants, which gives up what has ended; an
 * exception that is set stays. */
pyrt_py_home *pyrt_py_endings_begin(pyrt_py_home *home);
void pyrt_py_endings_end(pyrt_py_home *home, pyrt_py_home *outer);

/* At the exit of the interpreter, after which nobody calls again: what is in the mailboxes of threads that are still there. */
void pyrt_py_endings_at_exit(pyrt_py_home *home);

/* An OS thread ends: others see to what it has left. */
void pyrt_py_endings_end_of_thread(void);

/* In the child of a fork: so do they for the threads that are not there. */
void pyrt_py_endings_fork_child(void);

#endif
