/* queue.h -- a queue of retired things, in the order of retiring: items in chunks, embedded nodes in batches.
 *
 * Invariant: everything retired is in exactly one place -- the open chunk or batch (no goal yet), a sealed one (with a goal),
 * or in the hands of the one who disposes of it. Goals do not decrease along a queue, but for queues that were handed over.
 *
 * A queue belongs to its thread while that is attached; to whoever holds the interpreter's lock while it is not; a shared
 * queue to whoever holds its lock. Nothing in here is atomic for the sake of two at a time. Stores that publish are ordered
 * all the same: the child of a fork adopts a queue whose owner was stopped between any two of them (queue.c says how).
 */
#ifndef PYRT_RECLAIM_QUEUE_H
#define PYRT_RECLAIM_QUEUE_H

#include "epoch/qsbr.h"

#include <pyruntime/retire.h>

/* A chunk gets its goal when it is full of items, or holds so many bytes, whatever comes first; so a thread has at most so
 * much that is not waiting for a goal yet. */
enum { PYRT_CHUNK_SIZE = 8192, PYRT_CHUNK_ROOM = PYRT_CHUNK_SIZE - 48, PYRT_SEAL_BYTES = 64 * 1024 };

/* An item whose function takes two arguments: `p` of the item is the address of this, and `dispose` is pyrt_retired_run_call.
 * So each item is one function to call with one argument, and most need no more than two words. */
typedef struct pyrt_retired_call {
    void *p;
    void *arg;
    void (*fn)(void *p, void *arg);
} pyrt_retired_call;

void pyrt_retired_run_call(void *call);

/* Items fill it from the front, what their calls need from the back. It is full when not both find room any more. */
typedef struct pyrt_retired_chunk {
    struct pyrt_retired_chunk *next; /* sealed after this one */
    uint64_t goal;
    int64_t waiting_since;           /* when its goal was first found not to be reached; 0 until then */
    size_t bytes;                    /* of all its items, once sealed */
    pyrt_retired *read;              /* items before it have been taken, each before it was disposed of */
    pyrt_retired *end;               /* of the items in it, once sealed */
    pyrt_retired items[PYRT_CHUNK_ROOM / sizeof(pyrt_retired)];
} pyrt_retired_chunk;

PYRT_STATIC_ASSERT(sizeof(pyrt_retired_chunk) == PYRT_CHUNK_SIZE, "a chunk is a block of the allocator, to the last byte");

/* So many items of one argument fill a chunk; as many nodes get a goal together. */
enum { PYRT_CHUNK_ITEMS = (PYRT_CHUNK_ROOM - sizeof(pyrt_retired) - sizeof(pyrt_retired_call)) / sizeof(pyrt_retired) + 1 };

typedef struct pyrt_retired_batch {
    pyrt_retire_node *head; /* the chain ends with NULL; `tail` is only trusted by the owner */
    pyrt_retire_node *tail;
    size_t items;
    size_t bytes;
    uint64_t goal;
    int64_t waiting_since;
} pyrt_retired_batch;

enum { PYRT_BATCHES = 8 };

typedef struct pyrt_retire_queue {
    pyrt_retire_window *window; /* into the open chunk: the thread's own, or the shared queue's */
    pyrt_retired_chunk *open;  /* NULL until the first item, and when memory is short */
    pyrt_retired_call *calls;  /* the lowest one in the open chunk: it is free from the window's cursor up to here */
    pyrt_retired_chunk *spare; /* reserved when the open one is half full */
    size_t capacity;           /* bytes at which the open one is sealed, and items: less than usual close to the bound */
    size_t most_items;
    bool over_bound;           /* every push takes the long way and is answered with PYRT_EBUSY */

    pyrt_retired_chunk *sealed;
    pyrt_retired_chunk *sealed_last;

    /* A ring: batches first_batch to open_batch - 1 are sealed. When it is full the newest of them takes the open one in. */
    pyrt_retired_batch batches[PYRT_BATCHES];
    uint32_t first_batch;
    uint32_t open_batch;

    /* What is sealed in it, and what has ever been sealed in chunks. The latter is atomic: see pyrt_queue_count. */
    size_t sealed_items;
    size_t sealed_bytes;
    uint64_t ever_items;
    uint64_t ever_bytes;
} pyrt_retire_queue;

typedef enum {
    PYRT_PUSHED,
    PYRT_PUSHED_SHORT,  /* done, but no chunk could be reserved for what comes next */
    PYRT_PUSHED_SEALED, /* done, and there is a new goal; short as well if no chunk is open then */
    PYRT_PUSH_FAILED    /* no memory; nothing was done */
} pyrt_push_result;

/* Opens a chunk if none is; false without memory for it. A push does so too, but then knows no bound. */
bool pyrt_queue_open(pyrt_retire_queue *queue);

/* Pushes in any case; what pyrt_retire does inline is the part of it that neither opens, reserves nor seals a chunk. The
 * call of an item for pyrt_retired_run_call is copied. */
pyrt_push_result pyrt_queue_push(pyrt_retire_queue *queue, pyrt_retired item, size_t bytes);

pyrt_push_result pyrt_queue_push_node(pyrt_retire_queue *queue, pyrt_retire_node *node, size_t bytes);

/* Gives all that is open a goal; says whether there was anything. */
bool pyrt_queue_seal(pyrt_retire_queue *queue);

/* Adds the items that were ever pushed, and their bytes. Anybody may ask while the queue exists: what is being sealed at this
 * moment may be left out. */
void pyrt_queue_count(const pyrt_retire_queue *queue, uint64_t *items, uint64_t *bytes);

/* Adds what is in it now, open and sealed; for who owns it. */
void pyrt_queue_pending(const pyrt_retire_queue *queue, uint64_t *items, uint64_t *bytes);

/* Sets `over_bound`, and how much more may be pushed before it has to be thought over again, so that the bound is met to the
 * item. The open chunk has no bound before. */
void pyrt_queue_set_bound(pyrt_retire_queue *queue, size_t items, size_t bytes);

/* Whether so many items, or bytes, are in it; open nodes do not count. */
bool pyrt_queue_holds(const pyrt_retire_queue *queue, size_t items, size_t bytes);

/* The oldest sealed batch, or NULL. */
static inline pyrt_retired_batch *
pyrt_queue_first_batch(pyrt_retire_queue *queue)
{
    return queue->first_batch == queue->open_batch ? NULL : &queue->batches[queue->first_batch % PYRT_BATCHES];
}

/* The oldest goal of the chunks, or of the batches; false if none is sealed. */
static inline bool
pyrt_queue_chunk_goal(const pyrt_retire_queue *queue, uint64_t *goal)
{
    if (queue->sealed == NULL) {
        return false;
    }
    *goal = queue->sealed->goal;
    return true;
}

static inline bool
pyrt_queue_batch_goal(const pyrt_retire_queue *queue, uint64_t *goal)
{
    if (queue->first_batch == queue->open_batch) {
        return false;
    }
    *goal = queue->batches[queue->first_batch % PYRT_BATCHES].goal;
    return true;
}

bool pyrt_queue_is_empty(const pyrt_retire_queue *queue);

/* What somebody has taken out of a queue and is disposing of: a chunk or a batch, the rest of it. If he cannot go on it goes
 * back, and in the child of a fork it is adopted. */
typedef struct pyrt_disposal {
    pyrt_retired_chunk *chunk;
    pyrt_retired_batch batch;
} pyrt_disposal;

/* Takes the oldest sealed chunk, or batch, out of the queue; there is one. */
void pyrt_queue_take_chunk(pyrt_retire_queue *queue, pyrt_disposal *disposal);
void pyrt_queue_take_batch(pyrt_retire_queue *queue, pyrt_disposal *disposal);

/* Puts back what is left. */
void pyrt_queue_put_back(pyrt_retire_queue *queue, pyrt_disposal *disposal);

/* An emptied chunk comes back, to be used again or freed. */
void pyrt_queue_recycle(pyrt_retire_queue *queue, pyrt_retired_chunk *chunk);

/* Moves everything to the end of another queue, with a new goal for what was open. `from` keeps nothing but its memory. */
void pyrt_queue_move(pyrt_retire_queue *from, pyrt_retire_queue *to);

/* Repairs, in the child of a fork, a queue whose owner was stopped anywhere in this file, and puts back what the owner was
 * disposing of, but for the one item that was under way. */
void pyrt_queue_adopt(pyrt_retire_queue *queue, pyrt_disposal *disposal);

/* Shows each item that has not been taken, in the queue and in what its owner is disposing of; no nodes. For the child of a fork,
 * where nobody else is. */
void pyrt_queue_visit(const pyrt_retire_queue *queue, const pyrt_disposal *disposal,
                      void (*visit)(const pyrt_retired *item));

/* Frees the memory of an empty queue. */
void pyrt_queue_fini(pyrt_retire_queue *queue);

#endif
