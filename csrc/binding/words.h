/* words.h -- what the binding knows of each OS thread, in one thread-local block.
 *
 * Written by its own OS thread only. Initial-exec, like the block of the core: no access ever calls or allocates.
 */
#ifndef PYRT_BINDING_WORDS_H
#define PYRT_BINDING_WORDS_H

#include "binding/python.h"

enum { PYRT_PY_NAME = 32, PYRT_PY_FIRST_BLOCKS = 6 };

/* Being inside of a domain, from the first block to the last (uses.h). */
typedef struct pyrt_py_use {
    struct pyrt_py_use *outer;     /* put aside: of the thread while it runs no callable */
    struct pyrt_py_domain *domain; /* a strong reference; NULL: `first` is free */
    pyrt_thread *thread;
    bool ensured;                  /* by pyrt_thread_ensure; else the kept state, by pyrt_attach */
} pyrt_py_use;

typedef struct pyrt_py_words {
    PyThreadState *inside;        /* of the innermost call of ours on this OS thread that holds the GIL, or NULL (gil.h) */
    PyThreadState *inside_before_sleep; /* the same, while the thread sleeps */
    pyrt_py_use *top;             /* the innermost use, or NULL */
    pyrt_py_use *floor;           /* it and those outside of it are put aside while callables run; top: none is open */
    uint64_t *blocks;             /* that are open, oldest first (blocks.h) */
    uint32_t block_count;
    uint32_t block_capacity;
    uint32_t floor_count;         /* so many of them are put aside */
    struct pyrt_py_lease *leases; /* newest first; of calls that are under way */
    struct pyrt_py_open_pause *pause; /* that it is in, or NULL (pause.c) */
    struct pyrt_py_open_section *sections; /* newest first; CriticalSections that are open (sync_section.c) */
    struct pyrt_py_home *ending_home; /* a call for it is under way that gives up what ends (endings.h); or NULL */
    struct pyrt_py_callable *ended; /* values that have ended, for this thread to give up; oldest first */
    struct pyrt_py_callable *ended_last;
    struct pyrt_py_mailbox *mailbox; /* for values that are to end here and nowhere else; NULL: none yet */
    uint32_t ending_depth;        /* finalizers and ends of values that are under way, one inside of the other */
    struct pyrt_py_ending_cells *ending_cells; /* the innermost; NULL: no RCUCell is ending (rcu_cell.c) */
    pyrt_thread *kept;            /* its state in the main interpreter's default domain (uses.h) */
    uint64_t kept_id;
    struct pyrt_py_words *next_taker, *previous_taker; /* left_behind.c, under its lock; while is_watched */
    uint64_t taker_id;            /* its OS thread's, for that */
    uint64_t numbers;             /* of blocks, given out so far */
    size_t retired_bytes;         /* since somebody was last asked to look after them */
    uint32_t retires;             /* the same */
    bool is_watched;              /* the end of this OS thread will be seen */
    bool is_ending;               /* it has been seen, and the core is to see it first */
    bool is_named;                /* `name` has been looked for */
    pyrt_py_use first;            /* so that the usual nesting allocates nothing; so is first_blocks */
    uint64_t first_blocks[PYRT_PY_FIRST_BLOCKS];
    char name[PYRT_PY_NAME];      /* Python's name for the thread, as of its first state; "": none */
} pyrt_py_words;

extern __thread pyrt_py_words pyrt_py_tls __attribute__((tls_model("initial-exec")));

static inline pyrt_py_words *
pyrt_py_my_words(void)
{
    return &pyrt_py_tls;
}

#endif
