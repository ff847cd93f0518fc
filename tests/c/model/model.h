/* model.h -- what a scenario of the model checker sees.
 *
 * A scenario is a small program of two to four threads over the real core. It is run again and again, each time under
 * another schedule of an x86-TSO machine: which thread does its next atomic operation, and when a store leaves the store
 * buffer of its thread (machine.h says what the machine does, scheduler.h how schedules are chosen).
 *
 * Each run goes through
 *      setup()               alone, nothing is scheduled
 *      body(0), body(1), ... each up to model_begin(), one after the other: the place to make thread states
 *                            from model_begin() to model_end() scheduled, all together
 *                            the rest, one after the other again
 *      finish()              alone: what must hold at the end of every run
 *
 * Scenarios share data through the atomics of pyruntime/atomic.h only, and through memory that the library protects.
 */
#ifndef TESTS_C_MODEL_MODEL_H
#define TESTS_C_MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MODEL_THREADS = 4 };

typedef struct model_scenario {
    const char *name;
    const char *about;
    int bound;                          /* preemptions to explore unless told otherwise; MODEL_ALL: every schedule */
    void (*setup)(void);
    void (*body)(int thread);
    void (*finish)(void);
    const char *threads[MODEL_THREADS]; /* their names; NULL ends the list */
} model_scenario;

enum { MODEL_ALL = -1 };

void model_begin(void);
void model_end(void);

/* The clock stands as good as still. A scenario in which time matters says so in its setup: reading the clock is a step then,
 * and so is this, by which time passes. */
void model_use_clock(void);
void model_pass_time(int64_t ns);

/* Ends everything: prints the message and the schedule that led here. */
__attribute__((noreturn, format(printf, 1, 2))) void model_fail(const char *format, ...);

#define MODEL_CHECK(condition, ...)  \
    do {                             \
        if (!(condition)) {          \
            model_fail(__VA_ARGS__); \
        }                            \
    } while (0)

/* A number that stands for what a run has seen. The set of all of them is printed at the end. */
void model_outcome(uint64_t outcome);

/* The seed of the program (--program), for scenarios that make one up. */
uint64_t model_program(void);

/* The tables of scenarios, each ended by one without a name. */
extern const model_scenario model_litmus_scenarios[];
extern const model_scenario model_epoch_scenarios[];
extern const model_scenario model_retire_scenarios[];
extern const model_scenario model_pause_scenarios[];
extern const model_scenario model_mutex_scenarios[];
extern const model_scenario model_section_scenarios[];
extern const model_scenario model_rwlock_scenarios[];
extern const model_scenario model_heap_scenarios[];
extern const model_scenario model_object_scenarios[];

#endif
