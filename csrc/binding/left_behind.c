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
} notes;

bool
pyrt_py_left_behind_note(uint64_t os_id, uint64_t number, bool is_reading)
{
    note *made = malloc(sizeof(*made));
    if (made == NULL) {
        return false;
    }
    pyrt_raw_mutex_lock(&notes.lock);
    *made = (note){notes.newest, os_id, number, is_reading};
    /* release: the child of a fork finds it whole. */
    pyrt_store_release(&notes.newest, made);
    pyrt_store_relaxed(&pyrt_py_left_behind_count, pyrt_py_left_behind_count + 1);
    pyrt_raw_mutex_unlock(&notes.lock);
    return true;
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
    pyrt_py_left_behind_count = count;
}
