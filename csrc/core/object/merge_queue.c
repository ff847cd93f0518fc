/* merge_queue.c -- asking an owner to merge, and merging what was asked for. See merge_queue.h for the protocol.
 *
 * A thread of the object's interpreter finds the owner's queue without a lock: its own being alive keeps the interpreter.
 * Others glance at the interpreter for the time; if that is gone, so is the owner.
 */
#include "object/merge_queue.h"

#include "object/death.h"
#include "platform/futex.h"

/* Merging in place takes no queue. Of the process, because the object's interpreter may be gone; after all others but those of
 * memory in the order of locks. */
pyrt_raw_mutex pyrt_merge_ended_lock;

/* So many queues of a bucket are looked at before the look is repeated under the lock: without it a queue that is just changing
 * buckets may lead anywhere. */
enum { LOOKS = 64 };

/* ---- finding the owner ------------------------------------------------------------------------------------------- */

static pyrt_merge_queue **
bucket_of(pyrt_interp *interp, uint64_t owner)
{
    return &pyrt_merge_of_interp(interp)->buckets[owner % PYRT_MERGE_BUCKETS];
}

static pyrt_merge_queue *
find(pyrt_interp *interp, uint64_t owner, int looks)
{
    /* acquire, both: pairs with the release of pyrt_merge_open. */
    pyrt_merge_queue *queue = pyrt_load_acquire(bucket_of(interp, owner));
    while (queue != NULL && looks != 0 && pyrt_load_relaxed(&queue->owner) != owner) {
        queue = pyrt_load_acquire(&queue->next);
        looks--;
    }
    return looks != 0 ? queue : NULL;
}

/* NULL: the owner has ended. */
static pyrt_merge_queue *
queue_of_owner(pyrt_interp *interp, uint64_t owner)
{
    pyrt_merge_queue *queue = find(interp, owner, LOOKS);
    if (queue == NULL) {
        pyrt_raw_mutex_lock(&interp->lock);
        queue = find(interp, owner, -1);
        pyrt_raw_mutex_unlock(&interp->lock);
    }
    return queue;
}

void
pyrt_merge_open(pyrt_merge_queue *queue, uint64_t owner)
{
    pyrt_interp *interp = queue->thread->base.interp;
    pyrt_raw_mutex_lock(&interp->lock);
    pyrt_merge_queue **bucket = bucket_of(interp, owner);
    pyrt_store_relaxed(&queue->owner, owner);
    pyrt_store_relaxed(&queue->next, *bucket);
    /* release: who pushes into it sees it as it is now, and all that its former owner did. */
    pyrt_store_release(&queue->head, (pyrt_object *)NULL);
    pyrt_store_release(bucket, queue);
    pyrt_raw_mutex_unlock(&interp->lock);
}

bool
pyrt_merge_close(pyrt_merge_queue *queue)
{
    pyrt_object *empty = NULL;
    /* acq_rel: as release, who finds it closed finds all that the owner has counted. Pairs with the acquire of push. */
    return pyrt_cas_acq_rel(&queue->head, &empty, PYRT_QUEUE_CLOSED);
}

void
pyrt_merge_unlist(pyrt_merge_queue *queue)
{
    pyrt_merge_queue **link = bucket_of(queue->thread->base.interp, queue->owner);
    while (*link != queue) {
        link = &(*link)->next;
    }
    pyrt_store_release(link, queue->next);
    pyrt_store_relaxed(&queue->owner, (uint64_t)0);
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

typedef enum {
    PUSHED,    /* it may have been merged by now */
    UNOWNED,   /* the owner has taken its name off: it is merging by itself */
    CLOSED     /* the owner has ended */
} push_result;

static void
notify(pyrt_merge_queue *queue)
{
    /* relaxed: for the statistics. */
    pyrt_store_relaxed(&queue->since, pyrt_now_ns());
    pyrt_fetch_or_seq_cst(&queue->thread->base.slot.flags, PYRT_FLAG_MERGE);
}

static push_result
push(pyrt_merge_queue *queue, pyrt_object *object, uint64_t owner)
{
    /* acquire, here and in what fails below: pairs with the release of pyrt_merge_close. */
    pyrt_object *head = pyrt_load_acquire(&queue->head);
    if (head == PYRT_QUEUE_CLOSED) {
        return CLOSED;
    }
    /* acq_rel: against the owner who takes its name off (pyrt_disown), one of the two wins. */
    if (!pyrt_cas_acq_rel(&object->owner, &owner, pyrt_link_to(head))) {
        return UNOWNED;
    }
    /* seq_cst: as release the link comes first. And before the look at the owner's word in ask_in. */
    while (!pyrt_cas_seq_cst(&queue->head, &head, object)) {
        if (head == PYRT_QUEUE_CLOSED) {
            return CLOSED;
        }
        pyrt_store_relaxed(&object->owner, pyrt_link_to(head));
    }
    if (head == NULL) {
        notify(queue);
    }
    return PUSHED;
}

/* For the statistics, and for who merges. */
static void
note_asked(pyrt_interp *interp, pyrt_merge_queue *queue, pyrt_object *object)
{
    pyrt_thread *current = pyrt_thread_current();
    pyrt_merge_queue *mine = NULL;
    if (current != NULL && current->interp == interp) {
        mine = pyrt_merge_queue_of(pyrt_thread_impl_of(current));
    }
    if (mine != NULL) {
        uint64_t asked = pyrt_load_relaxed(&mine->stats.asked);
        pyrt_store_relaxed(&mine->stats.asked, asked + 1);
        /* relaxed: a hint. Pairs with nothing. */
        pyrt_store_relaxed(&queue->lately[asked % PYRT_MERGE_LATELY], object);
    }
    else {
        (void)pyrt_fetch_add_relaxed(&pyrt_merge_of_interp(interp)->stats.asked, (uint64_t)1);
    }
}

/* The owner has ended, and the caller is the only one who merges: an object is made QUEUED once. */
static bool
merge_for_ended(pyrt_object *object)
{
    pyrt_raw_mutex_lock(&pyrt_merge_ended_lock);
    bool dead = pyrt_merge(object, pyrt_local_count(object) - 1);
    pyrt_raw_mutex_unlock(&pyrt_merge_ended_lock);
    return dead;
}

/* Takes over what others have left to the interpreter. */
static void
fetch_dead(pyrt_interp *interp)
{
    pyrt_merge_interp *merge = pyrt_merge_of_interp(interp);
    /* relaxed: a hint; who needs to be sure has put them there himself, or waits for who did. */
    if (pyrt_load_relaxed(&merge->dead) != NULL) {
        pyrt_raw_mutex_lock(&merge->lock);
        pyrt_dead_move(&merge->dead, &pyrt_tls()->dead);
        pyrt_raw_mutex_unlock(&merge->lock);
    }
}

static void
borrow_if_detached(pyrt_interp *interp, pyrt_merge_queue *queue)
{
    /* relaxed: a thread that detaches at this moment is left to the next who asks, to a barrier, or to its own safepoint. */
    if (pyrt_load_relaxed(&queue->thread->base.slot.word) & 1) {
        return;
    }
    pyrt_raw_mutex_lock(&interp->lock);
    (void)pyrt_merge_borrow(queue, &pyrt_tls()->dead);
    pyrt_raw_mutex_unlock(&interp->lock);
    /* What it was asked for before it detached waits there. */
    fetch_dead(interp);
}

/* NULL: the interpreter has ended. */
static bool
ask_in(pyrt_interp *or_null, pyrt_object *object)
{
    /* acquire: pairs with the release of pyrt_merge. */
    uint64_t owner = pyrt_load_acquire(&object->owner);
    push_result result = CLOSED;
    if (owner & PYRT_UNOWNED) {
        result = UNOWNED;
    }
    else if (or_null != NULL) {
        pyrt_merge_queue *queue = queue_of_owner(or_null, owner);
        result = queue == NULL ? CLOSED : push(queue, object, owner);
        if (result == PUSHED) {
            note_asked(or_null, queue, object);
            borrow_if_detached(or_null, queue);
            return false;
        }
        if (result == CLOSED) {
            (void)pyrt_fetch_add_relaxed(&pyrt_merge_of_interp(or_null)->stats.for_ended, (uint64_t)1);
        }
    }
    return result == CLOSED ? merge_for_ended(object) : pyrt_drop(object, 1);
}

/* Runs with the interpreter of the object, which lives so long, or NULL. */
static pyrt_interp *
hold_interp(const pyrt_object *object, bool *glances)
{
    const pyrt_type *home = pyrt_home_of(object);
    const pyrt_thread *current = pyrt_thread_current();
    *glances = false;
    if (current != NULL && current->interp == home->interp) {
        return current->interp;
    }
    pyrt_interp *interp = pyrt_interp_glance(home->interp_id);
    if (interp != NULL && interp != home->interp) {
        /* One of the next runtime, which counts from the beginning. */
        pyrt_interp_glance_end(interp);
        interp = NULL;
    }
    *glances = interp != NULL;
    return interp;
}

static void
let_go(pyrt_interp *interp, bool glances)
{
    if (glances) {
        pyrt_interp_glance_end(interp);
    }
}

bool
pyrt_merge_ask(pyrt_object *object)
{
    bool glances;
    pyrt_interp *interp = hold_interp(object, &glances);
    bool dead = ask_in(interp, object);
    let_go(interp, glances);
    if (!dead) {
        pyrt_dead_run();
    }
    return dead;
}

void
pyrt_merge_count_immortal(const pyrt_object *object)
{
    bool glances;
    pyrt_interp *interp = hold_interp(object, &glances);
    if (interp != NULL) {
        (void)pyrt_fetch_add_relaxed(&pyrt_merge_of_interp(interp)->stats.immortal, (uint64_t)1);
    }
    let_go(interp, glances);
}

/* ---- merging ----------------------------------------------------------------------------------------------------- */

/* relaxed: what is pushed at this moment is told by the flag. Closed it is only by its owner. */
static bool
is_empty(const pyrt_merge_queue *queue)
{
    const pyrt_object *head = pyrt_load_relaxed(&queue->head);
    return head == NULL || head == PYRT_QUEUE_CLOSED;
}

static void
count_merged(pyrt_merge_queue *queue, uint64_t count)
{
    pyrt_merge_interp *merge = pyrt_merge_of_interp(queue->thread->base.interp);
    int64_t since = pyrt_load_relaxed(&queue->since);
    pyrt_store_relaxed(&queue->since, (int64_t)0);
    (void)pyrt_fetch_add_relaxed(&merge->stats.done, count);
    pyrt_qsbr_stats_raise(&merge->stats.longest_queue, count);
    if (since != 0) {
        pyrt_qsbr_stats_raise(&merge->stats.longest_wait_ns, (uint64_t)(pyrt_now_ns() - since));
    }
}

static void
prefetch_for_write(const void *address)
{
#if defined(__x86_64__)
    /* The builtin takes an instruction that every processor has, but that reads: the line would have to be asked for twice. */
    __asm__ volatile("prefetchw %0" : : "m"(*(const char *)address));
#else
    __builtin_prefetch(address, 1);
#endif
}

/* relaxed: hints, which may be of objects that have been merged since, or of memory that is gone: no matter. */
static void
prefetch_lately(pyrt_merge_queue *queue)
{
    for (int i = 0; i < PYRT_MERGE_LATELY; i++) {
        const pyrt_object *object = pyrt_load_relaxed(&queue->lately[i]);
        if (object != NULL) {
            pyrt_store_relaxed(&queue->lately[i], (pyrt_object *)NULL);
            prefetch_for_write(object);
        }
    }
}

void
pyrt_merge_all(pyrt_merge_queue *queue, pyrt_object **dead)
{
    if (is_empty(queue)) {
        return;
    }
    uint64_t count = 0;
    prefetch_lately(queue);
    pyrt_raw_mutex_lock(&queue->lock);
    /* acquire: pairs with the push; from here on the links are the caller's. Newest first: the oldest comes to stand in
     * front of the dead. */
    pyrt_object *object = pyrt_exchange_acquire(&queue->head, (pyrt_object *)NULL);
    while (object != NULL) {
        pyrt_object *next = pyrt_linked_object(object);
        if (pyrt_merge(object, pyrt_local_count(object) - 1)) {
            pyrt_dead_push(dead, object);
        }
        object = next;
        count++;
    }
    pyrt_raw_mutex_unlock(&queue->lock);
    if (count != 0) {
        count_merged(queue, count);
    }
}

bool
pyrt_merge_borrow(pyrt_merge_queue *queue, pyrt_object **dead)
{
    bool suspended;
    bool still = pyrt_thread_hold_still(queue->thread, &suspended);
    if (still && !is_empty(queue)) {
        (void)pyrt_fetch_add_relaxed(&pyrt_merge_of_interp(queue->thread->base.interp)->stats.borrowed, (uint64_t)1);
        pyrt_merge_all(queue, dead);
    }
    pyrt_thread_let_go(queue->thread, suspended);
    return still;
}

void
pyrt_merge_leave_dead(pyrt_interp *interp, pyrt_object *list)
{
    pyrt_merge_interp *merge = pyrt_merge_of_interp(interp);
    pyrt_raw_mutex_lock(&merge->lock);
    pyrt_dead_move(&list, &merge->dead);
    pyrt_raw_mutex_unlock(&merge->lock);
}

void
pyrt_merge_run_dead(pyrt_interp *interp)
{
    fetch_dead(interp);
    pyrt_dead_run();
}
