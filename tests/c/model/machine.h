/* machine.h -- the simulated machine: coroutines for threads, a store buffer for each, and steps.
 *
 * The memory model is that of x86 as "x86-TSO" describes it. A store goes into its thread's buffer, first in, first out; a
 * load sees the newest store in the own buffer, else memory; a locked instruction needs an empty buffer and acts on memory at
 * once. What moves is therefore one of two *actors* for each thread: the thread itself, or its buffer, which writes the
 * oldest store to memory. A step of a thread is one atomic operation and all that is done until the next one.
 *
 * pyrt_membarrier makes one thread after the other pass a full barrier: a step for each, possible at any moment at which
 * the buffer of that thread is empty. Locks and futexes are steps too (model_platform.c).
 */
#ifndef TESTS_C_MODEL_MACHINE_H
#define TESTS_C_MODEL_MACHINE_H

#include "model.h"

#include <string.h>

enum { MODEL_ACTORS = 2 * MODEL_THREADS }; /* thread t is actor t, its buffer is actor MODEL_THREADS + t */

typedef enum model_kind {
    MODEL_NOTHING, /* the thread has not begun, or has ended */
    MODEL_LOAD,
    MODEL_STORE,   /* into the buffer */
    MODEL_FLUSH,   /* out of the buffer */
    MODEL_RMW,
    MODEL_LOCK,
    MODEL_UNLOCK,
    MODEL_WAIT,    /* looks at a futex and falls asleep, or does not */
    MODEL_RESUME,  /* has been woken */
    MODEL_WAKE,
    MODEL_BARRIER  /* sees thread `other` with an empty buffer */
} model_kind;

typedef struct model_op {
    model_kind kind;
    int thread;                      /* that does it, or whose buffer does */
    int other;                       /* MODEL_BARRIER */
    int stored_at;                   /* MODEL_FLUSH: the number of the step that made the store */
    const volatile void *address;
    const char *text;
    const char *function;
} model_op;

/* What --break can break. */
typedef enum model_break {
    MODEL_BREAK_NOTHING,
    MODEL_BREAK_ATTACH,     /* the compare-and-swap of attach is a load and a plain store */
    MODEL_BREAK_SUSPEND,    /* so is the one of who suspends a thread */
    MODEL_BREAK_ADVANCE,    /* the addition of the advance is a load and a plain store */
    MODEL_BREAK_MEMBARRIER, /* pyrt_membarrier does nothing */
    MODEL_BREAK_FUTEX,      /* pyrt_futex_wait falls asleep without a look at the word */
    MODEL_BREAK_TURN,       /* the clock runs so fast that every turn is lost */
    MODEL_BREAK_LOCK,       /* the compare-and-swap that locks a mutex is a load and a plain store */
    MODEL_BREAK_CLAIM,      /* so is the one that makes use of a reservation */
    MODEL_BREAK_LOOK,       /* who waits for a mutex does not look at it once more before it sleeps */
    MODEL_BREAK_CELL,       /* who has unlocked a mutex does not look whether somebody waits */
    MODEL_BREAK_GIVE_BACK,  /* who was woken for a mutex and cannot attach keeps that to itself */
    MODEL_BREAK_SECTIONS,   /* plain locks take the place of critical sections */
    MODEL_BREAK_FREE,       /* the compare-and-swap of a foreign free is a load and a plain store */
    MODEL_BREAK_COLLECT,    /* so is the exchange of who collects them */
    MODEL_BREAK_POOL,       /* the lock that `model_unlocked` points to is not taken */
    MODEL_BREAK_GOAL,       /* a page that is empty again keeps its first goal */
    MODEL_BREAK_MERGE,      /* who merges writes `local` and `owner` of the object when the shared word is merged */
    MODEL_BREAK_DISOWN,     /* the compare-and-swap by which an owner takes its name off is a load and a plain store */
    MODEL_BREAK_TAKEN,      /* who has taken a count below 0 does not look what has become of it */
    MODEL_BREAK_STABLE,     /* a thread without a state drops as if the memory stayed an object's for it */
    MODEL_BREAK_LAST,       /* an owner that drops its last reference takes an object that is open for one that is not */
    MODEL_BREAK_SLOT        /* who has a reference out of a slot does not look there once more */
} model_break;

extern model_break model_broken;
extern const void *model_unlocked;
extern bool model_tracing;

/* ---- for the scheduler ------------------------------------------------------------------------------------------- */

/* Begins a run: everything up to and including the model_begin() of every thread. */
void machine_start(const model_scenario *scenario);

/* Whether all threads have come to model_end() and all buffers are empty. */
bool machine_is_done(void);

/* Ends a run that is done. */
void machine_finish(void);

/* What an actor does next; kind MODEL_NOTHING if it has nothing to do. */
const model_op *machine_next(int actor);

/* Whether it can; and whether it could if no buffer were in the way that it needs empty. */
bool machine_can(int actor);
bool machine_could(int actor);

/* Does it. */
void machine_step(int actor);

/* Whether a step needs the buffer of its thread empty. */
bool machine_drains(model_kind kind);

/* Writes down who stands where. */
void machine_describe(void);

/* ---- for operations and platform --------------------------------------------------------------------------------- */

/* The number of the thread that runs, and how many there are. Outside of the scheduled part there are no steps: the thread is
 * alone. */
int machine_self(void);
int machine_threads(void);
bool machine_is_scheduling(void);

/* Waits for its turn to do this. */
void machine_turn(model_kind kind, const volatile void *address, int other, const char *text, const char *function);

/* Memory as the calling thread sees it; and a store of its own that goes into its buffer. */
static inline uint64_t
machine_read(const volatile void *address, size_t size)
{
    uint64_t value = 0;
    memcpy(&value, (const void *)address, size);
    return value;
}

static inline void
machine_write(volatile void *address, size_t size, uint64_t value)
{
    memcpy((void *)address, &value, size);
}

void machine_store(volatile void *address, size_t size, uint64_t value, const char *text, const char *function);

/* Of the futex that the calling thread sleeps on, from WAIT to RESUME; and who sleeps, to wake him. */
void machine_sleep(const volatile void *address);
bool machine_wake_one(const volatile void *address);

/* Says in the trace what a step of that function has done. */
__attribute__((format(printf, 2, 3))) void machine_note(const char *function, const char *format, ...);

/* Called at the beginning of a run; and whether an address is in memory that has been freed. */
void platform_start(void);
bool platform_is_freed(const volatile void *address);

/* How often a thread was about to sleep in this run. */
int platform_sleeps(int thread);

/* Spin loops end by the clock: time passes in each turn of one, whether or not the clock is in use. */
void platform_relaxes(void);

/* What an OS thread does that ends, and what must hold of it before. */
void platform_thread_exit(void);

#endif
