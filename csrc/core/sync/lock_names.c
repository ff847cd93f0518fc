/* lock_names.c -- the names that users gave to locks, kept whether or not locks are watched.
 *
 * A name stands for a row of `count` addresses, most often one. The table is made with the first name and freed with the
 * last one; when it is full, the name that was given first goes. Guarded by pyrt_watch.lock.
 */
#include "platform/meta_alloc.h"
#include "sync/lock_tables.h"

#include <stdio.h>
#include <string.h>

typedef struct lock_name {
    uintptr_t first;
    size_t count; /* 0: not in use */
    size_t stride;
    uint64_t given; /* counts names */
    bool is_class;
    char text[PYRT_LOCK_NAME];
} lock_name;

static struct {
    lock_name *table; /* NULL without names */
    uint64_t given;
    size_t in_use;
} names;

enum { TABLE_BYTES = PYRT_LOCK_DEBUG_NAMES * sizeof(lock_name) };

/* Of several names the one that was given last. */
bool
pyrt_watch_name(const void *lock, char name[PYRT_LOCK_NAME], char class[PYRT_LOCK_NAME])
{
    const lock_name *found = NULL;
    uintptr_t address = (uintptr_t)lock;
    for (size_t i = 0; names.table != NULL && i < PYRT_LOCK_DEBUG_NAMES; i++) {
        const lock_name *n = &names.table[i];
        if (n->count != 0 && address >= n->first && (address - n->first) % n->stride == 0 &&
            (address - n->first) / n->stride < n->count && (found == NULL || n->given > found->given)) {
            found = n;
        }
    }
    if (found == NULL) {
        snprintf(name, PYRT_LOCK_NAME, "%p", lock);
        return false;
    }
    char which[24] = "";
    int length = found->is_class ? snprintf(which, sizeof(which), "@%p", lock)
                 : found->count > 1
                     ? snprintf(which, sizeof(which), "[%zu]", (size_t)((address - found->first) / found->stride))
                     : 0;
    snprintf(name, PYRT_LOCK_NAME, "%.*s%s", PYRT_LOCK_NAME - 1 - length, found->text, which);
    memcpy(class, found->text, PYRT_LOCK_NAME);
    return found->is_class;
}

/* Takes away the names of rows that begin in a piece of memory; hands over the table to be freed if none is left. */
static lock_name *
take_away(uintptr_t start, size_t bytes)
{
    for (size_t i = 0; names.table != NULL && i < PYRT_LOCK_DEBUG_NAMES; i++) {
        lock_name *n = &names.table[i];
        if (n->count != 0 && n->first >= start && n->first - start < bytes) {
            n->count = 0;
            names.in_use--;
        }
    }
    lock_name *unused = NULL;
    if (names.in_use == 0) {
        unused = names.table;
        names.table = NULL;
    }
    return unused;
}

/* An unused place, or that of the oldest name. */
static lock_name *
place(void)
{
    lock_name *oldest = &names.table[0];
    for (size_t i = 0; i < PYRT_LOCK_DEBUG_NAMES; i++) {
        lock_name *n = &names.table[i];
        if (n->count == 0) {
            names.in_use++;
            return n;
        }
        if (n->given < oldest->given) {
            oldest = n;
        }
    }
    return oldest;
}

/* Locks that are known already get their new names, and what was true of them before is forgotten. */
static void
rename_known(uintptr_t start, size_t bytes, bool remove)
{
    watch_tables *t = pyrt_watch.tables;
    for (uint32_t i = 1; t != NULL && i <= t->locks_pool.used; i++) {
        uintptr_t address = (uintptr_t)t->locks[i].address;
        if (!t->locks[i].live || address < start || address - start >= bytes) {
            continue;
        }
        if (remove && t->locks[i].holds == 0) {
            pyrt_watch_remove_lock(t, i);
        }
        else {
            pyrt_watch_reset_lock(t, i);
        }
    }
}

static pyrt_status
give(uintptr_t first, size_t count, size_t stride, const char *name, bool is_class)
{
    size_t bytes = (count - 1) * stride + 1;
    lock_name *made = name == NULL ? NULL : pyrt_meta_alloc(TABLE_BYTES);
    lock_name *unused = made;
    pyrt_status status = PYRT_OK;
    pyrt_raw_mutex_lock(&pyrt_watch.lock);
    if (name == NULL) {
        unused = take_away(first, bytes);
    }
    else if (names.table == NULL && made == NULL) {
        status = PYRT_ENOMEM;
    }
    else {
        if (names.table == NULL) {
            names.table = made;
            unused = NULL;
        }
        /* The old name goes, but not the table with it. */
        names.in_use++;
        (void)take_away(first, 1);
        names.in_use--;
        lock_name *n = place();
        *n = (lock_name){.first = first, .count = count, .stride = stride, .given = ++names.given, .is_class = is_class};
        snprintf(n->text, sizeof(n->text), "%s", name);
    }
    if (status == PYRT_OK) {
        rename_known(first, bytes, false);
    }
    pyrt_raw_mutex_unlock(&pyrt_watch.lock);
    pyrt_meta_free(unused, TABLE_BYTES);
    return status;
}

/* Marked, so that already the next lock is seen. An unlock that runs just now may take the mark off again. */
static void
mark(pyrt_mutex *mutex)
{
    if (pyrt_lock_watch_is_on()) {
        pyrt_fetch_or_seq_cst(&mutex->state, (uint8_t)PYRT_MUTEX_WATCHED);
    }
}

pyrt_status
pyrt_lock_name(pyrt_mutex *mutex, const char *name)
{
    pyrt_status status = give((uintptr_t)mutex, 1, 1, name, false);
    mark(mutex);
    return status;
}

pyrt_status
pyrt_lock_name_class(pyrt_mutex *mutex, const char *name)
{
    pyrt_status status = give((uintptr_t)mutex, 1, 1, name, true);
    mark(mutex);
    return status;
}

pyrt_status
pyrt_lock_name_array(pyrt_mutex *first, size_t count, size_t stride, const char *name)
{
    size_t bytes;
    if (count == 0 || stride == 0 || __builtin_mul_overflow(count, stride, &bytes)) {
        return PYRT_EINVAL;
    }
    pyrt_status status = give((uintptr_t)first, count, stride, name, false);
    for (size_t i = 0; i < count; i++) {
        mark((pyrt_mutex *)(void *)((char *)first + i * stride));
    }
    return status;
}

void
pyrt_lock_forget(const void *memory, size_t bytes)
{
    pyrt_raw_mutex_lock(&pyrt_watch.lock);
    lock_name *unused = take_away((uintptr_t)memory, bytes);
    rename_known((uintptr_t)memory, bytes, true);
    pyrt_raw_mutex_unlock(&pyrt_watch.lock);
    pyrt_meta_free(unused, TABLE_BYTES);
}
