/* merge_queue.h -- each thread's queue of objects that it owns and that others want merged, and what an interpreter keeps of them.
 *
 * The queue is a stack of objects linked by their owners' words, so that asking needs no memory. While an object is linked
 * its owner does not find its name on it and counts in the shared word like everybody else; so all that merging has to wait
 * for is that the owner has left the one operation that it may have been in. It has when it merges itself, when it is
 * detached or stands still, and when it has ended.
 *
 * Who pushes needs no lock. Who takes things out holds `lock` from before he takes them until they are merged, which runs no user
 * code: so the child of a fork finds no object half merged. The dead are destroyed after that.
 *
 * State table of `head`:
 *
 *   value     meaning                        who sets it
 *   NULL      empty                          the owner at its birth; who takes everything, by exchange, under `lock`
 *   address   the newest object in it        who asks, by compare-and-swap
 *   CLOSED    its thread has ended, or has   the owner at its end, NULL -> CLOSED; the child of a fork for it
 *             none
 */
#ifndef PYRT_OBJECT_MERGE_QUEUE_H
#define PYRT_OBJECT_MERGE_QUEUE_H

#include "object/object_impl.h"

#define PYRT_QUEUE_CLOSED ((pyrt_object *)(uintptr_t)1)

enum { PYRT_MERGE_LATELY = 64 };

/* Belongs to a pyrt_thread_impl for good, whichever thread state that is, and like it is freed with the interpreter: who looks for
 * an owner without a lock may still be looking at it. */
typedef struct pyrt_merge_queue {
    pyrt_object *head; /* see the table above */
    uint64_t owner; /* what stands in the owner's words of its objects; 0: nobody's */
    pyrt_thread_impl *thread; /* never changes */
    struct pyrt_merge_queue *next; /* in its bucket: written under the interpreter's lock, read without */
    pyrt_raw_mutex lock; /* see above; after the interpreter's in the order of locks */
    int64_t since; /* when the oldest object in it was pushed, or 0; written by who found it empty */
    struct {
        uint64_t asked; /* by this thread, in the queues of others; its own to write */
    } stats;
    /* The headers that are pushed are in the caches of who has dropped them, and each link is found behind one that has to come
     * from there. So who pushes notes the address here as well, and who merges asks for all of these at once before he follows
     * the links. Hints: of two who push at a time one may lose his, and nobody looks at what they lead to. */
    PYRT_ALIGNED(64) pyrt_object *lately[PYRT_MERGE_LATELY];
} pyrt_merge_queue;

enum { PYRT_MERGE_BUCKETS = 64 };

typedef struct pyrt_merge_interp {
    pyrt_merge_queue *buckets[PYRT_MERGE_BUCKETS]; /* all queues that are open, by owner */
    pyrt_heap *heap; /* of all its objects; NULL until the first type */
    pyrt_raw_mutex lock; /* guards `dead`; after those of the queues in the order of locks */
    pyrt_object *dead; /* found where no user code may run; the next safepoint or barrier destroys them */
    struct {
        uint64_t asked; /* by threads of other interpreters, and of none */
        uint64_t done, for_ended, borrowed, longest_queue, longest_wait_ns, immortal;
    } stats;
} pyrt_merge_interp;

static inline pyrt_merge_queue *
pyrt_merge_queue_of(const pyrt_thread_impl *thread)
{
    return thread->stage[PYRT_STAGE_MERGE];
}

static inline pyrt_merge_interp *
pyrt_merge_of_interp(const pyrt_interp *interp)
{
    return interp->stage[PYRT_STAGE_MERGE];
}

/* The object has been made QUEUED by the caller and has one reference for that. Puts it into its owner's queue; merges it at once
 * if the owner has ended, or is detached. Says whether nothing is left of this object: then the caller has to see to its death.
 * Others that have died in that queue stand in the list of this OS thread. */
bool pyrt_merge_ask(pyrt_object *object);

/* Opens a queue for a thread that is being born. */
void pyrt_merge_open(pyrt_merge_queue *queue, uint64_t owner);

/* Closes it, if it is empty. From then on who asks merges by himself. */
bool pyrt_merge_close(pyrt_merge_queue *queue);

/* Takes it out of its bucket; the interpreter's lock is held. */
void pyrt_merge_unlist(pyrt_merge_queue *queue);

/* Merges everything in the queue; the dead go into the list. The owner is the calling thread, attached; or it cannot be
 * counting. */
void pyrt_merge_all(pyrt_merge_queue *queue, pyrt_object **dead);

/* The same for the queue of another thread, or of a detached one of this OS thread, if it is detached or stands still; false
 * if it is not. The interpreter's lock is held. */
bool pyrt_merge_borrow(pyrt_merge_queue *queue, pyrt_object **dead);

/* For who must not run user code: leaves a list of dead to the interpreter. And for who may: destroys what it has in its list. */
void pyrt_merge_leave_dead(pyrt_interp *interp, pyrt_object *list);
void pyrt_merge_run_dead(pyrt_interp *interp);

/* One more that has been made immortal. */
void pyrt_merge_count_immortal(const pyrt_object *object);

/* Around a fork: the lock under which objects are merged whose owner has ended; the process's. */
extern pyrt_raw_mutex pyrt_merge_ended_lock;

#endif
