/* things.h -- objects for tests: each counts its death, may refer to others, and may do something when it dies.
 *
 * `died` counts the objects whose dealloc has run; `gone` those that were made and have died is what a test compares.
 */
#ifndef TESTS_C_THINGS_H
#define TESTS_C_THINGS_H

#include <pyruntime/pyruntime.h>

typedef struct thing {
    pyrt_object base;
    uint64_t canary;
    pyrt_object *refers_to;        /* dropped when it dies */
    void (*when_dying)(struct thing *);
    void *arg;
    uint32_t id;
} thing;

enum { THING_ALIVE = 0x7411e };

/* The type of things of the main interpreter, and of another one. */
extern pyrt_type *thing_type;

/* How many have been made and have died since things_up. */
uint64_t things_made(void);
uint64_t things_died(void);

/* The runtime with the type; and down again, with every thing that was made dead. */
void things_up(void);
void things_down(void);

/* The same, with a state of the main interpreter attached here. */
pyrt_thread *things_up_attached(void);
void things_down_attached(pyrt_thread *self);

pyrt_type *thing_type_new(pyrt_interp *interp);

/* A thing of the attached thread; it must be possible. */
thing *thing_new(pyrt_thread *thread);
thing *thing_new_of(pyrt_thread *thread, pyrt_type *type);

/* The end of a thing of the thread's that does this when it dies, and has `arg`. Answers where it was. */
thing *thing_dies(pyrt_thread *thread, void (*when_dying)(thing *), void *arg);

/* It must be alive. */
void thing_check(const thing *t);

/* The fields of its header. */
pyrt_object_info thing_look(const thing *t);

/* Steps for led threads (workers.h): the argument is the object. */
void count_up(void *object);
void count_down(void *object);

/* One figure of the main interpreter. */
pyrt_object_stats object_stats(void);

#endif
