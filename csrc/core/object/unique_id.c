/* unique_id.c -- counts per thread by unique ids: the pool of an interpreter, the arrays of its threads, and adding them up.
 *
 * The pool is a table of objects by id - 1, under its lock. An id that is free stands in a list through the table. Adding up a
 * thread's array needs the lock as well, and that the thread is not counting: it ends, or stands still.
 */
#include "object/death.h"
#include "object/merge_queue.h"
#include "object/special.h"
#include "platform/meta_alloc.h"

#include <pyruntime/stop_the_world.h>

#include <string.h>

enum { IDS_FIRST = 8 };

typedef struct entry {
    pyrt_object *object; /* NULL: the id is free */
    union {
        uint32_t *field; /* where the id is written down */
        uint32_t next; /* the next free id; 0: none */
    };
} entry;

typedef struct id_pool {
    pyrt_raw_mutex lock; /* after the interpreter's in the order of locks, before those of merge queues */
    entry *table;
    uint32_t size; /* stored when the table has it; read without the lock, acquire */
    uint32_t free; /* the first free id; 0: none */
    uint32_t in_use;
} id_pool;

static id_pool *
pool_of(const pyrt_interp *interp)
{
    return interp->stage[PYRT_STAGE_COUNTS];
}

/* ---- ids ----------------------------------------------------------------------------------------------------------- */

static void
put_free(id_pool *pool, uint32_t id)
{
    pool->table[id - 1] = (entry){.next = pool->free};
    pool->free = id;
}

/* Only when no id is free. */
static bool
grow(id_pool *pool)
{
    uint32_t size = pool->size == 0 ? IDS_FIRST : pool->size * 2;
    entry *table = size > pool->size ? pyrt_meta_alloc(size * sizeof(entry)) : NULL;
    if (table == NULL) {
        return false;
    }
    uint32_t old = pool->size;
    if (old != 0) {
        memcpy(table, pool->table, old * sizeof(entry));
        pyrt_meta_free(pool->table, old * sizeof(entry));
    }
    pool->table = table;
    for (uint32_t id = size; id > old; id--) {
        put_free(pool, id);
    }
    /* release: pairs with the acquire of who grows an array to it. */
    pyrt_store_release(&pool->size, size);
    return true;
}

static uint32_t
take_id(id_pool *pool, pyrt_object *object, uint32_t *field)
{
    if (pool->free == 0 && !grow(pool)) {
        return 0;
    }
    uint32_t id = pool->free;
    pool->free = pool->table[id - 1].next;
    pool->table[id - 1] = (entry){object, {field}};
    pyrt_store_relaxed(&pool->in_use, pool->in_use + 1);
    return id;
}

/* relaxed: who counts by the field has a reference, and looks at it afresh each time. */
static void
give_id(id_pool *pool, uint32_t id)
{
    pyrt_store_relaxed(pool->table[id - 1].field, 0u);
    put_free(pool, id);
    pyrt_store_relaxed(&pool->in_use, pool->in_use - 1);
}

static bool
is_ending(pyrt_interp *interp)
{
    pyrt_raw_mutex_lock(&interp->lock);
    bool ending = interp->ending;
    pyrt_raw_mutex_unlock(&interp->lock);
    return ending;
}

/* Under the lock, so that of two who ask at a time one comes too late. */
static pyrt_status
give_first_id(id_pool *pool, pyrt_object *object, uint32_t *field)
{
    if (pyrt_load_relaxed(&object->flags) & PYRT_OBJECT_HAS_ID) {
        return PYRT_EEXIST;
    }
    uint32_t id = take_id(pool, object, field);
    if (id == 0) {
        return PYRT_ENOMEM;
    }
    (void)pyrt_keep(object, PYRT_OBJECT_HAS_ID);
    pyrt_store_relaxed(field, id);
    return PYRT_OK;
}

pyrt_status
pyrt_unique_id_new(pyrt_interp *interp, pyrt_object *object, uint32_t *field)
{
    if (interp == NULL || object == NULL || field == NULL || *field != 0) {
        return PYRT_EINVAL;
    }
    if (!pyrt_is_of_interp(object, interp)) {
        return PYRT_EINVAL;
    }
    if (is_ending(interp)) {
        return PYRT_ESTATE;
    }
    id_pool *pool = pool_of(interp);
    pyrt_raw_mutex_lock(&pool->lock);
    pyrt_status status = give_first_id(pool, object, field);
    pyrt_raw_mutex_unlock(&pool->lock);
    return status;
}

uint32_t
pyrt_unique_ids_in_use(const pyrt_interp *interp)
{
    return pyrt_load_relaxed(&pool_of(interp)->in_use);
}

/* ---- counting ---------------------------------------------------------------------------------------------------- */

/* Makes room for all ids that there are now. The array that is left is freed when the other one stands: the child of a fork that
 * comes in between finds one or the other. */
static bool
grow_counts(pyrt_unique_counts *counts, uint32_t size)
{
    int64_t *values = pyrt_meta_alloc(size * sizeof(*values));
    if (values == NULL) {
        return false;
    }
    int64_t *old = counts->values;
    size_t old_size = counts->size;
    if (old_size != 0) {
        memcpy(values, old, old_size * sizeof(*values));
    }
    pyrt_store_release(&counts->values, values);
    pyrt_store_release(&counts->size, (size_t)size);
    if (old_size != 0) {
        pyrt_meta_free(old, old_size * sizeof(*old));
    }
    return true;
}

static bool
has_room(pyrt_thread *thread, uint32_t id)
{
    pyrt_unique_counts *counts = &thread->unique_counts;
    if (id == 0 || pyrt_thread_current() != thread || pyrt_thread_impl_of(thread)->ending) {
        return false;
    }
    if (id > counts->size) {
        /* acquire: pairs with the release of grow. */
        uint32_t size = pyrt_load_acquire(&pool_of(thread->interp)->size);
        return id <= size && grow_counts(counts, size);
    }
    return true;
}

void
pyrt_count_by_id_slow(pyrt_thread *thread, pyrt_object *object, uint32_t id, int32_t n)
{
    if (has_room(thread, id)) {
        int64_t *count = &thread->unique_counts.values[id - 1];
        pyrt_store_relaxed(count, pyrt_load_relaxed(count) + n);
    }
    else if (n > 0) {
        pyrt_incref(object);
    }
    else {
        pyrt_decref(object);
    }
}

/* ---- adding up --------------------------------------------------------------------------------------------------- */

/* Adds a thread's counts to the objects. The pool's lock is held, so that the child of a fork finds each count in one place. */
static void
add_up(id_pool *pool, pyrt_unique_counts *counts)
{
    for (size_t i = 0; i < counts->size; i++) {
        int64_t count = counts->values[i];
        if (count != 0) {
            counts->values[i] = 0;
            /* seq_cst, as release: what the thread did with the object comes before its end. */
            (void)pyrt_fetch_add_seq_cst(&pool->table[i].object->shared, count * PYRT_SHARED_ONE);
        }
    }
}

/* Takes an object that has an id for destroying, if nobody refers to it: with all counts added up, and its owner not counting. */
static bool
take_unreferenced(pyrt_object *object)
{
    uint16_t flags = pyrt_load_relaxed(&object->flags);
    /* acquire: pairs with the release of every drop. */
    int64_t shared = pyrt_load_acquire(&object->shared);
    /* acq_rel: against who is not stopped, having no thread attached, and gets a reference out of a weak one: one of the two
     * wins. */
    return (flags & PYRT_OBJECT_KEPT) == PYRT_OBJECT_HAS_ID &&
           pyrt_shared_count(shared) + pyrt_local_count(object) == pyrt_kept_by(flags) &&
           pyrt_cas_acq_rel(&object->shared, &shared, PYRT_SHARED_DYING);
}

/* The world of the interpreter is stopped. */
static int64_t
find_dead(pyrt_interp *interp, pyrt_object **dead)
{
    id_pool *pool = pool_of(interp);
    int64_t found = 0;
    pyrt_raw_mutex_lock(&interp->lock);
    pyrt_raw_mutex_lock(&pool->lock);
    for (pyrt_thread_impl *thread = interp->threads; thread != NULL; thread = thread->next) {
        add_up(pool, &thread->base.unique_counts);
    }
    for (uint32_t id = 1; id <= pool->size; id++) {
        pyrt_object *object = pool->table[id - 1].object;
        if (object != NULL && take_unreferenced(object)) {
            give_id(pool, id);
            pyrt_dead_push(dead, object);
            found++;
        }
    }
    pyrt_raw_mutex_unlock(&pool->lock);
    pyrt_raw_mutex_unlock(&interp->lock);
    return found;
}

/* No destructor can run in a pause: whichever thread comes to a safepoint first runs them. */
static void
leave_dead(pyrt_interp *interp, pyrt_object *dead)
{
    pyrt_raw_mutex_lock(&interp->lock);
    pyrt_merge_leave_dead(interp, dead);
    for (pyrt_thread_impl *thread = interp->threads; thread != NULL; thread = thread->next) {
        pyrt_fetch_or_seq_cst(&thread->base.slot.flags, PYRT_FLAG_MERGE);
    }
    pyrt_raw_mutex_unlock(&interp->lock);
}

int64_t
pyrt_merge_unique_counts(pyrt_interp *interp)
{
    if (interp == NULL) {
        return -PYRT_EINVAL;
    }
    if (pyrt_pause_is_mine(interp)) {
        pyrt_object *dead = NULL;
        int64_t found = find_dead(interp, &dead);
        leave_dead(interp, dead);
        return found;
    }
    pyrt_status status = pyrt_stop_the_world(interp);
    if (status != PYRT_OK) {
        return -(int64_t)status;
    }
    int64_t found = find_dead(interp, &pyrt_tls()->dead);
    pyrt_start_the_world(interp);
    pyrt_dead_run();
    return found;
}

/* ---- the lives of threads and interpreters ----------------------------------------------------------------------- */

/* From here on it counts plainly: a thread that is ending gets no new array. */
static void
thread_exit(pyrt_thread_impl *thread)
{
    id_pool *pool = pool_of(thread->base.interp);
    pyrt_unique_counts *counts = &thread->base.unique_counts;
    pyrt_raw_mutex_lock(&pool->lock);
    add_up(pool, counts);
    pyrt_raw_mutex_unlock(&pool->lock);
    int64_t *values = counts->values;
    size_t size = counts->size;
    /* The size first, and release: a fork that comes in between finds an array or none. */
    pyrt_store_relaxed(&counts->size, (size_t)0);
    pyrt_store_release(&counts->values, (int64_t *)NULL);
    if (size != 0) {
        pyrt_meta_free(values, size * sizeof(*values));
    }
}

static pyrt_status
interp_init(pyrt_interp *interp)
{
    id_pool *pool = pyrt_meta_alloc(sizeof(*pool));
    interp->stage[PYRT_STAGE_COUNTS] = pool;
    return pool == NULL ? PYRT_ENOMEM : PYRT_OK;
}

static pyrt_object *
take_any(id_pool *pool)
{
    pyrt_object *object = NULL;
    pyrt_raw_mutex_lock(&pool->lock);
    for (uint32_t id = 1; id <= pool->size && object == NULL; id++) {
        object = pool->table[id - 1].object;
        if (object != NULL) {
            give_id(pool, id);
        }
    }
    pyrt_raw_mutex_unlock(&pool->lock);
    return object;
}

/* There are no threads any more: all is added up. What nobody refers to dies, the others count plainly from here on. */
static pyrt_status
interp_drain(pyrt_interp *interp)
{
    pyrt_object *object;
    while ((object = take_any(pool_of(interp))) != NULL) {
        if (pyrt_unkeep(object, PYRT_OBJECT_HAS_ID)) {
            pyrt_die(object);
        }
    }
    return PYRT_OK;
}

static void
interp_fini(pyrt_interp *interp)
{
    id_pool *pool = pool_of(interp);
    interp->stage[PYRT_STAGE_COUNTS] = NULL;
    if (pool != NULL && pool->size != 0) {
        pyrt_meta_free(pool->table, pool->size * sizeof(entry));
    }
    pyrt_meta_free(pool, sizeof(*pool));
}

static void
fork_prepare(pyrt_interp *interp)
{
    pyrt_raw_mutex_lock(&pool_of(interp)->lock);
}

static void
fork_parent(pyrt_interp *interp)
{
    pyrt_raw_mutex_unlock(&pool_of(interp)->lock);
}

static void
fork_child(pyrt_interp *interp)
{
    pyrt_raw_mutex_reinit(&pool_of(interp)->lock);
}

__attribute__((constructor)) static void
register_stage(void)
{
    static const pyrt_stage stage = {
        .interp_init = interp_init,
        .interp_fini = interp_fini,
        .interp_drain = interp_drain,
        .thread_exit = thread_exit,
        .fork_prepare = fork_prepare,
        .fork_parent = fork_parent,
        .fork_child = fork_child,
        .thread_lost = thread_exit,
    };
    pyrt_stage_register(PYRT_STAGE_COUNTS, &stage);
}
