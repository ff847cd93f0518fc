/* scheduler.h -- which schedules are run, and what is told about them. */
#ifndef TESTS_C_MODEL_SCHEDULER_H
#define TESTS_C_MODEL_SCHEDULER_H

#include "model.h"

typedef struct model_search {
    const model_scenario *scenario;
    int bound;           /* preemptions, or MODEL_ALL */
    bool brute;          /* no reduction: every order of steps, to check the reduction against */
    uint64_t most;       /* schedules to run at most */
    uint64_t seed;       /* random: of the first run, the others count up */
    uint64_t runs;       /* random: so many */
    const char *replay;  /* the schedule to run, or NULL */
    const char *command; /* how to call this again: for the message of a failure */
} model_search;

/* Each runs the scenario under schedules until all are done or one fails, which ends the process. Depth first, up to the
 * bound; at random; one. */
void model_explore(const model_search *search);
void model_run_random(const model_search *search);
void model_replay(const model_search *search);

#endif
