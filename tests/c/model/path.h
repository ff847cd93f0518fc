/* path.h -- the schedule that is being run, step by step, with what is known about each: between scheduler.c, which makes
 * the path, and races.c, which finds out where another one is worth a try.
 */
#ifndef TESTS_C_MODEL_PATH_H
#define TESTS_C_MODEL_PATH_H

#include "machine.h"

enum { MOST_STEPS = 4000 };

typedef uint32_t actor_set;

typedef struct clock {
    uint16_t of[MODEL_ACTORS]; /* 1 + the number of the newest step of that actor which comes before; 0: none */
} clock;

/* A step that was made, and the choice that it was made from. */
typedef struct node {
    int actor;
    model_op op;
    clock clock;
    model_op next[MODEL_ACTORS]; /* before the step */
    actor_set can;
    actor_set could;             /* also those that only wait for a buffer */
    actor_set wanted;            /* to be tried here */
    actor_set tried;
    actor_set sleeping;          /* need not be tried here */
    int running;                 /* the thread of the newest step before, or -1 */
    int preemptions;             /* before the step */
} node;

extern node path[MOST_STEPS];

static inline actor_set
only(int actor)
{
    return (actor_set)1 << actor;
}

/* Whether the order of two steps can matter. */
bool races_dependent(const model_op *a, const model_op *b);

/* What to do about steps that race: nothing, for a search that tries everything anyway; that one schedule has them the
 * other way round; the same within a bound of preemptions. */
typedef enum races_mode { RACES_IGNORED, RACES_ALL, RACES_BOUNDED } races_mode;

/* Gives the step at `depth`, the newest, its clock, and marks in the nodes before it who is to be tried there because
 * of it. */
void races_find(int depth, races_mode mode);

#endif
