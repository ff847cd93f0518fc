/* left_behind.h -- open blocks whose section was collected on another thread than theirs.
 *
 * Only its own OS thread can leave a block. So who collects the section leaves a note, and the thread leaves the block in
 * its next call. The notes are the process's, under a lock; how many there are is looked at without it. A thread that has ended
 * would never take its own: so each that goes into a block is known here until it ends.
 */
#ifndef PYRT_BINDING_LEFT_BEHIND_H
#define PYRT_BINDING_LEFT_BEHIND_H

#include "binding/words.h"

extern uint32_t pyrt_py_left_behind_count;

typedef enum { PYRT_PY_NOTED, PYRT_PY_NOTE_NO_MEMORY, PYRT_PY_NOTE_ENDED } pyrt_py_note_result;

/* From now on there may be notes for the calling OS thread, which has an id. And at its end: there are none any more. */
void pyrt_py_left_behind_begin(pyrt_py_words *mine);
void pyrt_py_left_behind_end(pyrt_py_words *mine);

/* For the blocks with this number on an OS thread. None for one that has ended. */
pyrt_py_note_result pyrt_py_left_behind_note(uint64_t os_id, uint64_t number, bool is_reading);

/* Takes the next note for this OS thread; false if there is none. */
bool pyrt_py_left_behind_take(uint64_t *number, bool *is_reading);

/* This OS thread is the only one that is left, after a fork. */
void pyrt_py_left_behind_fork_child(void);

/* relaxed: a hint. A note that is not seen yet is seen at the next call. */
static inline bool
pyrt_py_is_any_left_behind(void)
{
    return pyrt_unlikely(pyrt_load_relaxed(&pyrt_py_left_behind_count) != 0);
}

#endif
