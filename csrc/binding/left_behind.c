/* left_behind.c -- the list of notes; see left_behind.h. No Python object is touched under its lock, which is the last. */
#include "binding/left_behind.h"

#include "platform/raw_mutex.h"

#include <stdlib.h>

typedef struct note {
    struct note *next;
    uint64_t os_id;
    uint64_t number;
    bool is_reading;
} note;

uint32_t pyrt_py_left_behind_count;

static struct {
    pyrt_raw_mutex lock;
    note *newest;
    pyrt_py_words *takers; /* of the OS threads that take their notes */
} notes;

void
pyrt_py_left_behind_begin(pyrt_py_words *mine)
{
    pyrt_raw_mutex_lock(&notes.lock);
    mine->taker_id = pyrt_tls()->os_id;
    mine->previous_taker = NULL;
    mine->next_taker = notes.takers;
    if (notes.takers != NULL) {
        notes.takers->previous_taker = mine;
    }
    notes.takers = mine;
    pyrt_raw_mutex_unlock(&notes.lock);
}

/* The caller holds the lock. */
static bool
is_taker(uint64_t os_id)
{
    const pyrt_py_words *words = notes.takers;
    while (words != NULL && words->taker_id != os_id) {
        words = words->next_taker;
    }
    return words != NULL;
}

pyrt_py_note_result
pyrt_py_left_behind_note(uint64_t os_id, uint64_t number, bool is_reading)
{
    note *made = malloc(sizeof(*made));
    if (made == NULL) {
        return PYRT_PY_NOTE_NO_MEMORY;
    }
    pyrt_raw_mutex_lock(&notes.lock);
    bool is_there = is_taker(os_id);
    if (is_there) {
        *made = (note){notes.newest, os_id, number, is_reading};
        /* release: the child of a fork finds it whole. */
        pyrt_store_release(&notes.newest, made);
        pyrt_store_relaxed(&pyrt_py_left_behind_count, pyrt_py_left_behind_count + 1);
    }
    pyrt_raw_mutex_unlock(&notes.lock);
    if (!is_there) {
        free(made);
    }
    return is_there ? PYRT_PY_NOTED : PYRT_PY_NOTE_ENDED;
}

/* The caller holds the lock. */
static note *
unlink_mine(void)
{
    uint64_t me = pyrt_tls()->os_id;
    note **link = &notes.newest;
    while (*link != NULL && (*link)->os_id != me) {
        link = &(*link)->next;
    }
    note *mine = *link;
    if (mine != NULL) {
        pyrt_store_release(link, mine->next);
        pyrt_store_relaxed(&pyrt_py_left_behind_count, pyrt_py_left_behind_count - 1);
    }
    return mine;
}

bool
pyrt_py_left_behind_take(uint64_t *number, bool *is_reading)
{
    pyrt_raw_mutex_lock(&notes.lock);
    note *mine = unlink_mine();
    pyrt_raw_mutex_unlock(&notes.lock);
    if (mine == NULL) {
        return false;
    }
    *number = mine->number;
    *is_reading = mine->is_reading;
    free(mine);
    return true;
}

void
pyrt_py_left_behind_end(pyrt_py_words *mine)
{
    pyrt_raw_mutex_lock(&notes.lock);
    *(mine->previous_taker != NULL ? &mine->previous_taker->next_taker : &notes.takers) = mine->next_taker;
    if (mine->next_taker != NULL) {
        mine->next_taker->previous_taker = mine->previous_taker;
    }
    pyrt_raw_mutex_unlock(&notes.lock);
    uint64_t number;
    bool is_reading;
    while (pyrt_py_is_any_left_behind() && pyrt_py_left_behind_take(&number, &is_reading)) {
    }
}

/* What others were told is lost with them; a note that somebody had in his hands just then is, too. */
void
pyrt_py_left_behind_fork_child(void)
{
    pyrt_raw_mutex_reinit(&notes.lock);
    note *kept = NULL;
    uint32_t count = 0;
    note *next;
    for (note *one = notes.newest; one != NULL; one = next) {
        next = one->next;
        if (one->os_id == pyrt_tls()->os_id) {
            one->next = kept;
            kept = one;
            count++;
        }
        else {
            free(one);
        }
    }
    notes.newest = kept;
    notes.takers = NULL;
    if (pyrt_py_my_words()->is_watched) {
        pyrt_py_left_behind_begin(pyrt_py_my_words());
    }
    pyrt_py_left_behind_count = count;
}
