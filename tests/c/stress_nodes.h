/* stress_nodes.h -- what the stress reads, replaces and retires: nodes with a canary, in cells that a group of threads
 * shares, and the books that must balance at the end.
 *
 * A node is reached through a cell until it is replaced there; then it is retired, exactly once, and disposed of, exactly
 * once. Disposal poisons the canary, and the memory stays for some time as it is: who still looks sees the poison.
 */
#ifndef TESTS_C_STRESS_NODES_H
#define TESTS_C_STRESS_NODES_H

#include "support.h"

/* Group 0 is the main interpreter, 1 and 2 are interpreters that live as long as the test, and what is not one of these
 * is accounted for in the last. Cells that the threads of all groups read have an index of their own. */
enum { GROUPS = 3, PASSING = GROUPS, BOOKS = GROUPS + 1, CELLS_OF_ALL = GROUPS, CELLS = 8 };

typedef struct stress_node {
    pyrt_retire_node embedded; /* first: the embedded form hands it back */
    uint64_t canary;
    int book;                  /* where its disposal is counted */
    uint32_t manners;          /* what its disposer does besides */
    int *also_count;           /* NULL, or one more counter of disposals */
} stress_node;

typedef struct stress_world {
    pyrt_interp *groups[GROUPS];
    stress_node *cells[GROUPS + 1][CELLS];
    uint64_t retired[BOOKS];
    uint64_t disposed[BOOKS];
    uint64_t alive;            /* nodes made and not disposed of */
    uint64_t moving[GROUPS];   /* steps of attached threads */
    bool short_of_memory;
} stress_world;

extern stress_world world;

void world_begin(bool short_of_memory);

/* Waits for everything, checks that the books balance and the statistics agree, and ends the runtime. */
void world_end(void);

/* The group of a thread; PASSING for interpreters of which there is none. */
int group_of(const pyrt_thread *or_null);

stress_node *node_new(random_stream *choices);

/* Fails the test if the node has been disposed of. */
void node_check(const stress_node *node);

typedef enum { BY_VALUE, BY_CALL, BY_NODE, FOR_ALL, FORMS } retire_form;

/* Retires a node that nobody can reach any more, with the state given or without one. What cannot be taken for want of
 * memory goes by its embedded node. Answers PYRT_EBUSY as the library does. */
pyrt_status node_retire(pyrt_thread *or_null, stress_node *node, retire_form form, size_t bytes);

/* Puts a new node into a cell and hands out the old one. */
stress_node *cell_replace(int cells, random_stream *choices);

/* A pointer that is good until the thread is quiescent. */
stress_node *cell_read(int cells, random_stream *choices);

#endif
