/* litmus_scenarios.c -- small programs whose outcomes on x86 are known: what the machine itself is checked with.
 *
 * Each tells the outcomes that it has seen; tests/test_model.py knows which there must be. `program` makes a program up, from
 * --program: the outcomes that the search finds must be those that --brute finds.
 */
#include "model.h"

#include <pyruntime/current.h>

#include "platform/futex.h"
#include "platform/raw_mutex.h"

enum { CELLS = 3, LOADS = 9 };

static uint64_t cell[CELLS];
static uint64_t loaded[LOADS];
static uint32_t flag;
static pyrt_raw_mutex lock;

static void
setup(void)
{
    for (int n = 0; n < CELLS; n++) {
        cell[n] = 0;
    }
    for (int n = 0; n < LOADS; n++) {
        loaded[n] = 0;
    }
    flag = 0;
    lock = (pyrt_raw_mutex){0};
}

/* A hexadecimal digit for each load, in the order of `loaded`, and behind them one for each cell. */
static uint64_t
digits(int loads, int cells)
{
    uint64_t all = 0;
    for (int n = 0; n < loads; n++) {
        all = all * 16 + loaded[n];
    }
    for (int n = 0; n < cells; n++) {
        all = all * 16 + cell[n];
    }
    return all;
}

static void
tell_two(void)
{
    model_outcome(digits(2, 0));
}

/* ---- the classics ------------------------------------------------------------------------------------------------ */

/* Store, then load the other's: on x86 both may find nothing. */
static void
store_buffering(int thread)
{
    model_begin();
    pyrt_store_release(&cell[thread], (uint64_t)1);
    loaded[thread] = pyrt_load_acquire(&cell[1 - thread]);
    model_end();
}

static void
store_buffering_locked(int thread)
{
    model_begin();
    (void)pyrt_exchange_seq_cst(&cell[thread], (uint64_t)1);
    loaded[thread] = pyrt_load_acquire(&cell[1 - thread]);
    model_end();
}

/* One side has a plain store and load, the other a membarrier in between. */
static void
store_buffering_asymmetric(int thread)
{
    model_begin();
    pyrt_store_release(&cell[thread], (uint64_t)1);
    if (thread == 0) {
        pyrt_light_barrier();
    }
    else {
        (void)pyrt_membarrier();
    }
    loaded[thread] = pyrt_load_acquire(&cell[1 - thread]);
    model_end();
}

/* Who sees the flag sees the message. */
static void
message_passing(int thread)
{
    model_begin();
    if (thread == 0) {
        pyrt_store_release(&cell[0], (uint64_t)1);
        pyrt_store_release(&cell[1], (uint64_t)1);
    }
    else {
        loaded[0] = pyrt_load_acquire(&cell[1]);
        loaded[1] = pyrt_load_acquire(&cell[0]);
    }
    model_end();
}

/* A thread may see its own store before anybody else does, and before an older store of another thread. */
static void
forwarding(int thread)
{
    model_begin();
    pyrt_store_release(&cell[thread], (uint64_t)1);
    loaded[2 * thread] = pyrt_load_acquire(&cell[thread]);
    loaded[2 * thread + 1] = pyrt_load_acquire(&cell[1 - thread]);
    model_end();
}

static void
tell_four(void)
{
    model_outcome(digits(4, 0));
}

/* Independent readers see independent writes in the same order. */
static void
independent_reads(int thread)
{
    model_begin();
    if (thread < 2) {
        pyrt_store_release(&cell[thread], (uint64_t)1);
    }
    else {
        int first = thread - 2;
        loaded[2 * first] = pyrt_load_acquire(&cell[first]);
        loaded[2 * first + 1] = pyrt_load_acquire(&cell[1 - first]);
    }
    model_end();
}

/* ---- words that are stored to atomically and then plainly -------------------------------------------------------- */

/* The plain store stays behind the atomic ones in the order of stores, and the owner sees his newest. */
static void
plain_after_atomic(int thread)
{
    model_begin();
    if (thread == 0) {
        pyrt_store_release(&cell[0], (uint64_t)1);
        cell[0]++;
        pyrt_store_release(&cell[1], (uint64_t)1);
        MODEL_CHECK(cell[0] == 2, "the owner does not see its own store");
    }
    else {
        loaded[0] = pyrt_load_acquire(&cell[1]);
        loaded[1] = pyrt_load_acquire(&cell[0]);
    }
    model_end();
}

/* ---- locks and sleep --------------------------------------------------------------------------------------------- */

static void
locked_count(int thread)
{
    (void)thread;
    model_begin();
    pyrt_raw_mutex_lock(&lock);
    uint64_t value = pyrt_load_relaxed(&cell[0]);
    pyrt_store_relaxed(&cell[0], value + 1);
    pyrt_raw_mutex_unlock(&lock);
    model_end();
}

static void
tell_one_cell(void)
{
    model_outcome(digits(0, 1));
}

static void
sleep_and_wake(int thread)
{
    model_begin();
    if (thread == 0) {
        while (pyrt_load_acquire(&flag) == 0) {
            (void)pyrt_futex_wait(&flag, 0, -1);
        }
        loaded[0] = pyrt_load_relaxed(&cell[0]);
    }
    else {
        pyrt_store_relaxed(&cell[0], (uint64_t)thread);
        (void)pyrt_fetch_add_seq_cst(&flag, 1u);
        pyrt_futex_wake(&flag, INT32_MAX);
    }
    model_end();
}

static void
tell_one(void)
{
    model_outcome(digits(1, 0));
}

/* ---- programs by number ------------------------------------------------------------------------------------------ */

/* One of the operations on one of the cells; a third of the programs also lock. */
static void
made_up(int thread)
{
    enum { LENGTH = 3 };
    uint64_t bits = model_program() * UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)thread * UINT64_C(0xbf58476d1ce4e5b9);
    bits ^= bits >> 29;
    bits *= UINT64_C(0x94d049bb133111eb);
    bits ^= bits >> 32;
    bool locks = model_program() % 3 == 0 && bits % 2 == 0;
    bits /= 2;
    int loads = thread * LENGTH;
    model_begin();
    if (locks) {
        pyrt_raw_mutex_lock(&lock);
    }
    for (int n = 0; n < LENGTH; n++) {
        uint64_t *word = &cell[bits / 8 % 2];
        uint64_t value = (uint64_t)(thread * LENGTH + n + 1);
        switch (bits % 8) {
        case 0:
        case 1:
        case 2:
            pyrt_store_release(word, value);
            break;
        case 3:
        case 4:
        case 5:
            loaded[loads++] = pyrt_load_acquire(word);
            break;
        case 6:
            loaded[loads++] = pyrt_exchange_seq_cst(word, value);
            break;
        default:
            (void)pyrt_membarrier();
        }
        bits /= 16;
    }
    if (locks) {
        pyrt_raw_mutex_unlock(&lock);
    }
    model_end();
}

static void
tell_all(void)
{
    model_outcome(digits(LOADS, 2));
}

const model_scenario model_litmus_scenarios[] = {
    {"sb", "store buffering", MODEL_ALL, setup, store_buffering, tell_two, {"left", "right"}},
    {"sb-locked",
     "store buffering with locked stores",
     MODEL_ALL,
     setup,
     store_buffering_locked,
     tell_two,
     {"left", "right"}},
    {"sb-membarrier",
     "store buffering, one side with a membarrier",
     MODEL_ALL,
     setup,
     store_buffering_asymmetric,
     tell_two,
     {"light", "heavy"}},
    {"mp", "message passing", MODEL_ALL, setup, message_passing, tell_two, {"writer", "reader"}},
    {"forwarding", "own stores are seen early", MODEL_ALL, setup, forwarding, tell_four, {"left", "right"}},
    {"iriw",
     "independent reads of independent writes",
     MODEL_ALL,
     setup,
     independent_reads,
     tell_four,
     {"writer 0", "writer 1", "reader 0", "reader 1"}},
    {"plain", "a plain store after an atomic one", MODEL_ALL, setup, plain_after_atomic, tell_two, {"writer", "reader"}},
    {"lock", "counting under a lock", MODEL_ALL, setup, locked_count, tell_one_cell, {"one", "two", "three"}},
    {"futex", "sleep until woken", MODEL_ALL, setup, sleep_and_wake, tell_one, {"sleeper", "waker 1", "waker 2"}},
    {"program-2", "a made-up program of two threads", MODEL_ALL, setup, made_up, tell_all, {"one", "two"}},
    {"program-3", "a made-up program of three threads", MODEL_ALL, setup, made_up, tell_all, {"one", "two", "three"}},
    {.name = NULL},
};
