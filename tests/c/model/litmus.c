/* litmus.c -- the two orders that everything rests on, on the processor that this runs on; a program of its own, beside the
 * model.
 *
 * Two threads go through the same array of small experiments, each its own half of each. What must not come out is counted;
 * so is what may, as a sign that the experiment can show anything at all: the same with what keeps the order taken away.
 *
 *      attach      a reader attaches and loads the shared pointer; a writer unlinks, advances and looks at the reader's word.
 *                  The reader must not find the old pointer when the writer does not find the reader.
 *      detach      a thread detaches and loads its flags; another sets a flag, calls pyrt_membarrier and looks at the word.
 *                  The flag must not be missed on the one side when the detaching is missed on the other.
 *
 *
 * Prints a line for each: its name, whether the outcome is forbidden, how often it was run, how often the outcome came. Exit
 * status 1 if one came that is forbidden.
 */
#include <pyruntime/qsbr_slot.h>

#include "platform/futex.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 2048, BATCHES = 40, BATCHES_OF_SYSTEM_CALLS = 5, PATIENCE = 2000 };

typedef struct PYRT_ALIGNED(64) line {
    uint64_t value;
} line;

/* One experiment, and what either side has seen. */
typedef struct experiment {
    pyrt_qsbr_slot slot;
    line sequence;
    line shared; /* 0: old, 1: new */
    line left_saw;
    line right_saw;
    uint32_t PYRT_ALIGNED(64) present;
} experiment;

typedef struct litmus {
    const char *name;
    void (*left)(experiment *);
    void (*right)(experiment *);
    bool (*shows)(const experiment *);
    bool forbidden;
    uint64_t word; /* at the start */
    int batches;
} litmus;

static experiment experiments[BATCH];

/* ---- attach against advance -------------------------------------------------------------------------------------- */

static void
attach(experiment *e)
{
    uint64_t detached = PYRT_STATE_DETACHED;
    uint64_t sequence = pyrt_load_acquire(&e->sequence.value);
    if (!pyrt_cas_seq_cst(&e->slot.word, &detached, sequence)) {
        abort();
    }
    pyrt_fence_after_rmw();
    e->left_saw.value = pyrt_load_acquire(&e->shared.value);
}

static void
unlink_and_scan(experiment *e)
{
    pyrt_store_release(&e->shared.value, (uint64_t)1);
    pyrt_fetch_add_seq_cst(&e->sequence.value, (uint64_t)PYRT_QSBR_STEP);
    e->right_saw.value = pyrt_load_seq_cst(&e->slot.word);
}

static void
attach_plainly(experiment *e)
{
    pyrt_store_relaxed(&e->slot.word, (uint64_t)PYRT_QSBR_INITIAL);
    e->left_saw.value = pyrt_load_acquire(&e->shared.value);
}

static void
unlink_and_scan_plainly(experiment *e)
{
    pyrt_store_release(&e->shared.value, (uint64_t)1);
    e->right_saw.value = pyrt_load_relaxed(&e->slot.word);
}

static bool
both_missed(const experiment *e)
{
    return e->left_saw.value == 0 && e->right_saw.value == PYRT_STATE_DETACHED;
}

/* ---- detach against a flag --------------------------------------------------------------------------------------- */

static void
detach(experiment *e)
{
    pyrt_store_release(&e->slot.word, (uint64_t)PYRT_STATE_DETACHED);
    pyrt_light_barrier();
    e->left_saw.value = pyrt_load_relaxed(&e->slot.flags);
}

static void
ask_and_look(experiment *e)
{
    pyrt_fetch_or_seq_cst(&e->slot.flags, PYRT_FLAG_WAKE);
    if (!pyrt_membarrier()) {
        abort();
    }
    e->right_saw.value = pyrt_load_seq_cst(&e->slot.word);
}

static void
ask_and_look_alone(experiment *e)
{
    pyrt_fetch_or_seq_cst(&e->slot.flags, PYRT_FLAG_WAKE);
    e->right_saw.value = pyrt_load_seq_cst(&e->slot.word);
}

static bool
neither_noticed(const experiment *e)
{
    return e->left_saw.value == 0 && e->right_saw.value != PYRT_STATE_DETACHED;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static const litmus litmuses[] = {
    {"attach", attach, unlink_and_scan, both_missed, true, PYRT_STATE_DETACHED, BATCHES},
    {"attach-plainly", attach_plainly, unlink_and_scan_plainly, both_missed, false, PYRT_STATE_DETACHED, BATCHES},
    {"detach", detach, ask_and_look, neither_noticed, true, PYRT_QSBR_INITIAL, BATCHES_OF_SYSTEM_CALLS},
    {"detach-alone", detach, ask_and_look_alone, neither_noticed, false, PYRT_QSBR_INITIAL, BATCHES},
};

/* Waits for the other side, if it is running at all: both halves are to happen at the same time. */
static void
meet(experiment *e)
{
    pyrt_fetch_add_seq_cst(&e->present, 1u);
    for (int n = 0; n < PATIENCE && pyrt_load_acquire(&e->present) < 2; n++) {
        pyrt_cpu_relax();
    }
}

static const litmus *running;
static uint32_t waiting_for; /* the number of the batch that the right side may run; ~0: end */
static uint32_t done;        /* batches that the right side has run */

static void *
right_side(void *unused)
{
    (void)unused;
    for (uint32_t batch = 1;; batch++) {
        uint32_t now;
        while ((now = pyrt_load_acquire(&waiting_for)) < batch) {
            sched_yield();
        }
        if (now == UINT32_MAX) {
            return NULL;
        }
        for (int n = 0; n < BATCH; n++) {
            meet(&experiments[n]);
            running->right(&experiments[n]);
        }
        pyrt_store_release(&done, batch);
    }
}

static void
reset(void)
{
    memset(experiments, 0, sizeof(experiments));
    for (int n = 0; n < BATCH; n++) {
        experiments[n].slot.word = running->word;
        experiments[n].sequence.value = PYRT_QSBR_INITIAL;
    }
}

int
main(void)
{
    int status = 0;
    uint32_t batch = 0;
    pthread_t right;
    pyrt_membarrier_register();
    if (pthread_create(&right, NULL, right_side, NULL) != 0) {
        return 2;
    }
    for (size_t l = 0; l < sizeof(litmuses) / sizeof(litmuses[0]); l++) {
        running = &litmuses[l];
        long shown = 0;
        for (int n = 0; n < running->batches; n++) {
            reset();
            pyrt_store_release(&waiting_for, ++batch);
            for (int e = 0; e < BATCH; e++) {
                meet(&experiments[e]);
                running->left(&experiments[e]);
            }
            while (pyrt_load_acquire(&done) < batch) {
                sched_yield();
            }
            for (int e = 0; e < BATCH; e++) {
                shown += running->shows(&experiments[e]);
            }
        }
        printf("%s %s %ld %ld\n", running->name, running->forbidden ? "forbidden" : "allowed",
               (long)running->batches * BATCH, shown);
        status |= running->forbidden && shown != 0;
    }
    pyrt_store_release(&waiting_for, UINT32_MAX);
    pthread_join(right, NULL);
    return status;
}
