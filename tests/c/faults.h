/* faults.h -- out of memory at every allocation: the n-th fails, for n = 1, 2, 3, ..., until one run meets no failure.
 *
 * A plan makes a state, runs one operation in it, and takes the state down again. The driver arms the failure around the
 * operation alone. When the operation says that it failed, the library's live bytes must be what they were before it.
 */
#ifndef TESTS_C_FAULTS_H
#define TESTS_C_FAULTS_H

#include <stdbool.h>

typedef struct fault_plan {
    void (*prepare)(void);              /* NULL: runtime_up */
    bool (*operation)(void);            /* whether it did what it is for; checks everything else itself */
    void (*finish)(bool succeeded);     /* NULL: runtime_down; with every byte accounted for at the end */
} fault_plan;

typedef enum fault_kind {
    FAULT_ONCE,    /* the n-th allocation fails, those after it do not */
    FAULT_FROM_ON, /* the n-th and all after it fail */
} fault_kind;

/* Runs the plan for every n and answers at how many points an allocation was made to fail. */
int fault_everywhere(const fault_plan *plan, fault_kind kind);

/* Arms and disarms by hand: allocations from the n-th on fail, counted from 1, `count` of them. */
void fault_arm(int nth, int count);
void fault_disarm(void);

/* How many allocations have failed since it was armed. */
int faults_hit(void);

#endif
