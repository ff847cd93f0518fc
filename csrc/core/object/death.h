/* death.h -- the end of an object, and the seam for weak references.
 *
 * Whoever finds that nothing is left of an object's count calls pyrt_die, holding no lock. Then, in this order:
 *
 *   1. the shared word becomes PYRT_SHARED_DYING: pyrt_try_incref fails from here on
 *   2. with PYRT_OBJECT_HAS_WEAKREFS in `flags`, the function that pyrt_death_set_weakrefs was given: it clears all weak
 *      references and runs their callbacks; the body is still whole, and the type's weaklist_offset says where the list is
 *   3. the type's finalize, then its dealloc
 *   4. the prefix of the block becomes what readers find in free memory: nobody's, merged, 0; the block is freed
 *   5. the type is counted down
 *
 * A *plain* object, which has nothing but a count, needs no user code to die: of the steps it takes the last two alone, and
 * nobody can get a reference meanwhile, because none was left and nobody was let in.
 *
 * Steps 2 and 3 are user code. Inside of a destructor further deaths nest PYRT_DEATH_DEPTH deep; beyond that, and for what
 * is found dead where no user code may run, objects stand in the list `dead` of the OS thread, linked by their owner's words.
 */
#ifndef PYRT_OBJECT_DEATH_H
#define PYRT_OBJECT_DEATH_H

#include "object/object_impl.h"

/* Destroys it, now or when the destructors further out have returned. */
void pyrt_die(pyrt_object *object);

/* Puts it into a list of dead that wait; nobody has a reference. */
void pyrt_dead_push(pyrt_object **list, pyrt_object *object);

/* Moves everything to another list. */
void pyrt_dead_move(pyrt_object **from, pyrt_object **to);

/* Destroys what stands in the list of this OS thread, unless it is inside of a destructor: then that is done further out. */
void pyrt_dead_run(void);

/* The OS thread ends, perhaps inside of destructors: what these were destroying is destroyed by the steps that have not
 * begun, those callbacks of weak references that have not been called among them. */
void pyrt_dead_end_of_os_thread(void);

/* From a constructor of the floor. */
void pyrt_death_set_weakrefs(void (*clear)(pyrt_object *dying));

#endif
