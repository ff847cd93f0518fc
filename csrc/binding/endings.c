/* endings.c -- see endings.h. */
#include "binding/endings.h"

#include "binding/uses.h"

#include <stdlib.h>

static pyrt_py_callable mail_closed;
#define MAIL_CLOSED (&mail_closed)

/* Pushed to by compare-and-swap; nothing is ever taken out. */
static pyrt_py_mailbox *mailboxes;

static pyrt_py_mailbox *
first_mailbox(void)
{
    /* acquire: pairs with the push in take_mailbox. */
    return pyrt_load_acquire(&mailboxes);
}

/* ---- mailboxes --------------------------------------------------------------------------------------------------- */

static void
drop_mailbox(pyrt_py_mailbox *mailbox)
{
    /* seq_cst: everything that was done with it comes before its next life. Pairs with the swap in take_mailbox. */
    (void)pyrt_fetch_add_seq_cst(&mailbox->references, (uint32_t)-1);
}

/* One that was nobody's, closed, with one reference. NULL when memory is short. */
static pyrt_py_mailbox *
take_mailbox(void)
{
    for (pyrt_py_mailbox *mailbox = first_mailbox(); mailbox != NULL; mailbox = mailbox->next) {
        uint32_t none = 0;
        if (pyrt_cas_seq_cst(&mailbox->references, &none, 1u)) {
            return mailbox;
        }
    }
    pyrt_py_mailbox *mailbox = malloc(sizeof(*mailbox));
    if (mailbox == NULL) {
        return NULL;
    }
    *mailbox = (pyrt_py_mailbox){pyrt_load_relaxed(&mailboxes), 1, MAIL_CLOSED};
    while (!pyrt_cas_acq_rel(&mailboxes, &mailbox->next, mailbox)) {
    }
    return mailbox;
}

/* This OS thread's; NULL when memory is short. */
static pyrt_py_mailbox *
my_mailbox(void)
{
    pyrt_py_words *words = pyrt_py_my_words();
    if (words->mailbox == NULL && pyrt_py_uses_watch_end()) {
        words->mailbox = take_mailbox();
        if (words->mailbox != NULL) {
            /* release: who is told of it finds it open. */
            pyrt_store_release(&words->mailbox->head, (pyrt_py_callable *)NULL);
        }
    }
    return words->mailbox;
}

/* False when it is closed. The caller's node holds the mailbox. */
static bool
push_mail(pyrt_py_mailbox *mailbox, pyrt_py_callable *node)
{
    node->next = pyrt_load_acquire(&mailbox->head);
    do {
        if (node->next == MAIL_CLOSED) {
            return false;
        }
        /* seq_cst: as release it hands the node over. Pairs with the swap in take_mail. */
    } while (!pyrt_cas_seq_cst(&mailbox->head, &node->next, node));
    return true;
}

/* Takes everything out, oldest first, and leaves `instead`. A closed one stays so. */
static pyrt_py_callable *
take_mail(pyrt_py_mailbox *mailbox, pyrt_py_callable *instead)
{
    pyrt_py_callable *newest = pyrt_load_acquire(&mailbox->head);
    do {
        if (newest == MAIL_CLOSED) {
            return NULL;
        }
    } while (!pyrt_cas_seq_cst(&mailbox->head, &newest, instead));
    pyrt_py_callable *oldest = NULL;
    while (newest != NULL) {
        pyrt_py_callable *older = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = older;
    }
    return oldest;
}

static void
give_each(pyrt_py_callable *oldest, void (*to)(pyrt_py_callable *))
{
    while (oldest != NULL) {
        pyrt_py_callable *next = oldest->next;
        to(oldest);
        oldest = next;
    }
}

static void
close_mailbox(pyrt_py_mailbox *mailbox, void (*give)(pyrt_py_callable *))
{
    give_each(take_mail(mailbox, MAIL_CLOSED), give);
    drop_mailbox(mailbox);
}

/* ---- the list of this OS thread ---------------------------------------------------------------------------------- */

static void
append(pyrt_py_words *words, pyrt_py_callable *node)
{
    node->next = NULL;
    *(words->ended == NULL ? &words->ended : &words->ended_last->next) = node;
    words->ended_last = node;
}

/* The oldest of the home; NULL: there is none. Those of others are of calls outside of this one. */
static pyrt_py_callable *
take_ended(pyrt_py_words *words, const pyrt_py_home *home)
{
    pyrt_py_callable *before = NULL;
    for (pyrt_py_callable *node = words->ended; node != NULL; before = node, node = node->next) {
        if (node->home == home) {
            *(before == NULL ? &words->ended : &before->next) = node->next;
            words->ended_last = node->next == NULL ? before : words->ended_last;
            return node;
        }
    }
    return NULL;
}

static void
collect_mail(pyrt_py_words *words)
{
    /* relaxed: a hint. What is not seen yet is seen in the next call. */
    if (words->mailbox == NULL || pyrt_likely(pyrt_load_relaxed(&words->mailbox->head) == NULL)) {
        return;
    }
    pyrt_py_callable *node = take_mail(words->mailbox, NULL);
    while (node != NULL) {
        pyrt_py_callable *next = node->next;
        append(words, node);
        node = next;
    }
}

/* ---- from birth to end ------------------------------------------------------------------------------------------- */

pyrt_py_callable *
pyrt_py_ending_new(pyrt_py_home *home, PyObject *value, PyObject *or_null, bool here)
{
    pyrt_py_mailbox *mailbox = here ? my_mailbox() : NULL;
    pyrt_py_callable *node = here && mailbox == NULL ? NULL : pyrt_py_callable_new_node(home);
    if (node == NULL) {
        return (void *)pyrt_py_raise(PYRT_ENOMEM, "no memory for a SharedRef");
    }
    node->argument = Py_NewRef(value);
    node->call = or_null != NULL;
    if (node->call) {
        node->object = Py_NewRef(or_null);
    }
    node->mailbox = mailbox;
    if (mailbox != NULL) {
        pyrt_fetch_add_relaxed(&mailbox->references, 1u);
    }
    return node;
}

void
pyrt_py_ending_delete(pyrt_py_callable *node)
{
    if (node->mailbox != NULL) {
        drop_mailbox(node->mailbox);
    }
    node->call = false;
    pyrt_py_callable_run(node);
}

/* Where the node goes. When Python is exiting, to whoever is there. */
static void
route(pyrt_py_callable *node)
{
    pyrt_py_words *words = pyrt_py_my_words();
    pyrt_py_mailbox *mailbox = node->mailbox;
    bool is_here = words->ending_home == node->home;
    bool is_mine = mailbox == NULL || mailbox == words->mailbox || pyrt_load_acquire(&node->home->open) == 0;
    if (is_here && is_mine) {
        append(words, node);
    }
    else if (mailbox != NULL && push_mail(mailbox, node)) {
        return;
    }
    else if (is_here) {
        append(words, node);
    }
    else {
        pyrt_py_callable_hand_over(node);
    }
}

void
pyrt_py_ending_dispose(pyrt_py_callable *node)
{
    pyrt_py_mailbox *mailbox = node->mailbox;
    route(node);
    if (mailbox != NULL) {
        drop_mailbox(mailbox);
    }
}

/* ---- giving up --------------------------------------------------------------------------------------------------- */

/* The depth is that of one interpreter: one that is inside of another's finalizer gives up all of its own before it leaves. */
static void
run(pyrt_py_words *words, pyrt_py_home *home, uint32_t depth)
{
    uint32_t outer_depth = words->ending_depth;
    pyrt_py_home *outer = words->ending_home;
    (void)pyrt_py_uses_watch_end();
    words->ending_depth = depth + 1;
    words->ending_home = home;
    pyrt_py_callable *node;
    while ((node = take_ended(words, home)) != NULL) {
        pyrt_py_callable_run(node);
    }
    words->ending_depth = outer_depth;
    words->ending_home = outer;
}

pyrt_py_home *
pyrt_py_endings_begin(pyrt_py_home *home)
{
    pyrt_py_words *words = pyrt_py_my_words();
    pyrt_py_home *outer = words->ending_home;
    words->ending_home = home;
    return outer;
}

void
pyrt_py_endings_end(pyrt_py_home *home, pyrt_py_home *outer)
{
    pyrt_py_words *words = pyrt_py_my_words();
    uint32_t depth = outer == home ? words->ending_depth : 0;
    words->ending_home = outer;
    collect_mail(words);
    if (pyrt_unlikely(words->ended != NULL) && depth < PYRT_DEATH_DEPTH) {
        PyObject *type;
        PyObject *value;
        PyObject *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        run(words, home, depth);
        PyErr_Restore(type, value, traceback);
    }
}

/* ---- ends -------------------------------------------------------------------------------------------------------- */

void
pyrt_py_endings_at_exit(pyrt_py_home *home)
{
    pyrt_py_words *words = pyrt_py_my_words();
    for (pyrt_py_mailbox *mailbox = first_mailbox(); mailbox != NULL; mailbox = mailbox->next) {
        pyrt_py_callable *node = take_mail(mailbox, NULL);
        while (node != NULL) {
            pyrt_py_callable *next = node->next;
            if (node->home == home) {
                append(words, node);
            }
            else if (!push_mail(mailbox, node)) {
                pyrt_py_callable_hand_over(node);
            }
            node = next;
        }
    }
    pyrt_py_endings_end(home, pyrt_py_endings_begin(home));
}

void
pyrt_py_endings_end_of_thread(void)
{
    pyrt_py_words *words = pyrt_py_my_words();
    pyrt_py_callable *left = words->ended;
    words->ending_home = NULL;
    words->ending_depth = 0;
    words->ended = NULL;
    give_each(left, pyrt_py_callable_hand_over);
    if (words->mailbox != NULL) {
        close_mailbox(words->mailbox, pyrt_py_callable_hand_over);
        words->mailbox = NULL;
    }
}

void
pyrt_py_endings_fork_child(void)
{
    const pyrt_py_mailbox *mine = pyrt_py_my_words()->mailbox;
    for (pyrt_py_mailbox *mailbox = first_mailbox(); mailbox != NULL; mailbox = mailbox->next) {
        if (mailbox != mine && pyrt_load_relaxed(&mailbox->head) != MAIL_CLOSED) {
            close_mailbox(mailbox, pyrt_py_callable_leave);
        }
    }
}
