/* queue.c -- pushing, sealing, taking and moving. Who may do so when is said in queue.h.
 *
 * The order of the stores matters to one reader only, the child of a fork: what another thread had stored at that moment is a
 * prefix of its stores in program order, because its memory is copied while it cannot go on storing. So each step is written
 * such that any prefix of it can be told apart: an item is complete before the cursor passes it, and `read` has passed it
 * before it is disposed of; what moves from one place to another is for a moment in both, never in none, and pyrt_queue_adopt
 * drops the second. The release stores keep the compiler from reordering.
 */
#include "reclaim/queue.h"

#include "platform/meta_alloc.h"

static pyrt_retired_chunk *
new_chunk(void)
{
    return pyrt_meta_alloc(PYRT_CHUNK_SIZE);
}

/* In a sealed one, those that have not been taken. */
static size_t
items_in(const pyrt_retired_chunk *chunk)
{
    return (size_t)(chunk->end - chunk->read);
}

static pyrt_retired_batch *
batch_at(const pyrt_retire_queue *queue, uint32_t number)
{
    return (pyrt_retired_batch *)&queue->batches[number % PYRT_BATCHES];
}

/* ---- the open chunk ---------------------------------------------------------------------------------------------- */

static uint32_t
items_in_open(const pyrt_retire_queue *queue)
{
    return queue->window->cursor == NULL ? 0 : (uint32_t)(queue->window->cursor - queue->open->items);
}

/* A chunk with less room than this is full, and one with less than half its room wants a spare one reserved. */
enum { FULL = sizeof(pyrt_retired) + sizeof(pyrt_retired_call), HALF_FULL = PYRT_CHUNK_ROOM / 2 };

static pyrt_retired_call *
end_of(pyrt_retired_chunk *chunk)
{
    return (pyrt_retired_call *)(void *)(chunk + 1);
}

static size_t
room_in_open(const pyrt_retire_queue *queue)
{
    return (size_t)((const char *)queue->calls - (const char *)queue->window->cursor);
}

/* The long way is for the push that fills the chunk or reaches the bound; for the upper half of the chunk without a spare
 * one; for every push while the bound is passed. */
static void
set_slow_at(pyrt_retire_queue *queue)
{
    pyrt_retired *cursor = queue->window->cursor;
    size_t left = queue->spare != NULL ? FULL : HALF_FULL;
    size_t fast = 0;
    if (queue->open != NULL && !queue->over_bound && room_in_open(queue) >= left) {
        size_t until_bound = queue->most_items - items_in_open(queue);
        fast = (room_in_open(queue) - left) / sizeof(pyrt_retired);
        fast = fast < until_bound ? fast : until_bound == 0 ? 0 : until_bound - 1;
    }
    queue->window->slow_at = fast == 0 ? cursor : cursor + fast;
}

/* The order is that of repair_chunks: an open chunk with the cursor elsewhere has no items yet. set_slow_at comes next. */
static void
open_chunk(pyrt_retire_queue *queue, pyrt_retired_chunk *chunk)
{
    pyrt_store_release(&queue->open, chunk);
    queue->calls = chunk == NULL ? NULL : end_of(chunk);
    pyrt_store_release(&queue->window->cursor, chunk == NULL ? NULL : chunk->items);
    pyrt_store_relaxed(&queue->capacity, (size_t)PYRT_SEAL_BYTES);
    pyrt_store_relaxed(&queue->window->bytes_left, (size_t)PYRT_SEAL_BYTES);
    queue->most_items = PYRT_CHUNK_ITEMS;
}

static size_t
bytes_in_open(const pyrt_retire_queue *queue)
{
    /* relaxed: who adds up statistics may see the two in between; nothing is made of a difference that cannot be. */
    size_t capacity = pyrt_load_relaxed(&queue->capacity);
    size_t bytes_left = pyrt_load_relaxed(&queue->window->bytes_left);
    return capacity > bytes_left ? capacity - bytes_left : 0;
}

void
pyrt_queue_set_bound(pyrt_retire_queue *queue, size_t items, size_t bytes)
{
    bool over = queue->sealed_items >= items || queue->sealed_bytes >= bytes;
    if (queue->open != NULL) {
        /* Beyond the bound chunks are of the usual size again: sealing each item would cost a chunk for each. */
        size_t item_room = over ? PYRT_CHUNK_ITEMS : items - queue->sealed_items;
        size_t room = over ? PYRT_SEAL_BYTES : bytes - queue->sealed_bytes;
        size_t used = bytes_in_open(queue);
        size_t used_items = items_in_open(queue);
        size_t capacity = room < PYRT_SEAL_BYTES ? room : PYRT_SEAL_BYTES;
        pyrt_store_relaxed(&queue->capacity, capacity > used ? capacity : used);
        pyrt_store_relaxed(&queue->window->bytes_left, queue->capacity - used);
        item_room = item_room < PYRT_CHUNK_ITEMS ? item_room : PYRT_CHUNK_ITEMS;
        queue->most_items = item_room > used_items ? item_room : used_items;
    }
    queue->over_bound = over;
    set_slow_at(queue);
}

bool
pyrt_queue_holds(const pyrt_retire_queue *queue, size_t items, size_t bytes)
{
    return queue->sealed_items + items_in_open(queue) >= items || queue->sealed_bytes + bytes_in_open(queue) >= bytes;
}

/* ---- sealing ----------------------------------------------------------------------------------------------------- */

static void
append_sealed(pyrt_retire_queue *queue, pyrt_retired_chunk *chunk)
{
    chunk->next = NULL;
    if (queue->sealed_last == NULL) {
        pyrt_store_release(&queue->sealed, chunk);
    }
    else {
        pyrt_store_release(&queue->sealed_last->next, chunk);
    }
    pyrt_store_release(&queue->sealed_last, chunk);
    queue->sealed_items += items_in(chunk);
    queue->sealed_bytes += chunk->bytes;
}

static void
seal_chunk(pyrt_retire_queue *queue, uint64_t goal)
{
    pyrt_retired_chunk *chunk = queue->open;
    chunk->goal = goal;
    chunk->waiting_since = 0;
    /* Until here it had only what went beyond the bytes of a full one. */
    chunk->bytes += bytes_in_open(queue);
    chunk->read = chunk->items;
    pyrt_store_release(&chunk->end, queue->window->cursor);
    append_sealed(queue, chunk);
    open_chunk(queue, queue->spare);
    pyrt_store_release(&queue->spare, (pyrt_retired_chunk *)NULL);
    set_slow_at(queue);
    /* release, after the window has moved on: who sees the sum does not see the items in the window as well. Pairs with
     * pyrt_queue_count. */
    pyrt_store_release(&queue->ever_bytes, queue->ever_bytes + chunk->bytes);
    pyrt_store_release(&queue->ever_items, queue->ever_items + items_in(chunk));
}

/* Whether a cursor stands in a chunk; at the latter's end, too. Looks at the addresses only. */
static bool
is_in(const pyrt_retired *cursor, const pyrt_retired_chunk *chunk)
{
    return chunk != NULL && cursor >= chunk->items && cursor <= chunk->items + PYRT_CHUNK_ITEMS;
}

void
pyrt_queue_count(const pyrt_retire_queue *queue, uint64_t *items, uint64_t *bytes)
{
    /* acquire: the window is looked at afterwards. */
    *bytes += pyrt_load_acquire(&queue->ever_bytes);
    *items += pyrt_load_acquire(&queue->ever_items);
    pyrt_retired_chunk *open = pyrt_load_acquire(&queue->open);
    pyrt_retired *cursor = pyrt_load_acquire(&queue->window->cursor);
    if (is_in(cursor, open)) {
        *items += (size_t)(cursor - open->items);
        *bytes += bytes_in_open(queue);
    }
}

void
pyrt_queue_pending(const pyrt_retire_queue *queue, uint64_t *items, uint64_t *bytes)
{
    const pyrt_retired_batch *nodes = batch_at(queue, queue->open_batch);
    *items += queue->sealed_items + items_in_open(queue) + nodes->items;
    *bytes += queue->sealed_bytes + nodes->bytes;
    *bytes += queue->open == NULL ? 0 : bytes_in_open(queue) + queue->open->bytes;
}

static bool
ring_is_full(const pyrt_retire_queue *queue)
{
    return queue->open_batch - queue->first_batch == PYRT_BATCHES - 1;
}

/* When the ring is full the newest sealed batch takes the open one in and waits for the new goal. */
static void
merge_batch(pyrt_retire_queue *queue, uint64_t goal)
{
    pyrt_retired_batch *last = batch_at(queue, queue->open_batch - 1);
    pyrt_retired_batch *open = batch_at(queue, queue->open_batch);
    pyrt_store_release(&last->goal, goal);
    pyrt_store_release(&last->tail->next, open->head);
    last->tail = open->tail;
    last->items += open->items;
    last->bytes += open->bytes;
    *open = (pyrt_retired_batch){0};
}

static void
seal_batch(pyrt_retire_queue *queue, uint64_t goal)
{
    pyrt_retired_batch *batch = batch_at(queue, queue->open_batch);
    queue->sealed_items += batch->items;
    queue->sealed_bytes += batch->bytes;
    if (ring_is_full(queue)) {
        merge_batch(queue, goal);
        return;
    }
    batch->goal = goal;
    batch->waiting_since = 0;
    *batch_at(queue, queue->open_batch + 1) = (pyrt_retired_batch){0};
    pyrt_store_release(&queue->open_batch, queue->open_batch + 1);
}

bool
pyrt_queue_seal(pyrt_retire_queue *queue)
{
    bool items = items_in_open(queue) != 0;
    bool nodes = batch_at(queue, queue->open_batch)->head != NULL;
    if (!items && !nodes) {
        return false;
    }
    uint64_t goal = pyrt_qsbr_sequence_advance();
    if (items) {
        seal_chunk(queue, goal);
    }
    if (nodes) {
        seal_batch(queue, goal);
    }
    return true;
}

/* ---- pushing ----------------------------------------------------------------------------------------------------- */

void
pyrt_retired_run_call(void *call)
{
    const pyrt_retired_call *it = call;
    it->fn(it->p, it->arg);
}

bool
pyrt_queue_open(pyrt_retire_queue *queue)
{
    if (queue->open == NULL) {
        /* One that came back empty may be there already. Open before it is spare no longer: see repair_chunks. */
        open_chunk(queue, queue->spare != NULL ? queue->spare : new_chunk());
        pyrt_store_release(&queue->spare, (pyrt_retired_chunk *)NULL);
        set_slow_at(queue);
    }
    return queue->open != NULL;
}

pyrt_push_result
pyrt_queue_push(pyrt_retire_queue *queue, pyrt_retired item, size_t bytes)
{
    if (!pyrt_queue_open(queue)) {
        return PYRT_PUSH_FAILED;
    }
    if (item.dispose == pyrt_retired_run_call) {
        *--queue->calls = *(const pyrt_retired_call *)item.p;
        item.p = queue->calls;
    }
    *queue->window->cursor = item;
    size_t fitting = bytes < queue->window->bytes_left ? bytes : queue->window->bytes_left;
    pyrt_store_relaxed(&queue->window->bytes_left, queue->window->bytes_left - fitting);
    queue->open->bytes += bytes - fitting;
    pyrt_store_release(&queue->window->cursor, queue->window->cursor + 1);

    bool half_full = room_in_open(queue) < HALF_FULL || queue->window->bytes_left < PYRT_SEAL_BYTES / 2;
    if (half_full && queue->spare == NULL) {
        pyrt_store_release(&queue->spare, new_chunk());
    }
    bool is_short = half_full && queue->spare == NULL;
    bool full = room_in_open(queue) < FULL || queue->window->bytes_left == 0 || items_in_open(queue) >= queue->most_items;
    if (full) {
        pyrt_queue_seal(queue);
    }
    else {
        set_slow_at(queue);
    }
    return full ? PYRT_PUSHED_SEALED : is_short ? PYRT_PUSHED_SHORT : PYRT_PUSHED;
}

pyrt_push_result
pyrt_queue_push_node(pyrt_retire_queue *queue, pyrt_retire_node *node, size_t bytes)
{
    pyrt_retired_batch *batch = batch_at(queue, queue->open_batch);
    node->next = NULL;
    if (batch->head == NULL) {
        pyrt_store_release(&batch->head, node);
    }
    else {
        pyrt_store_release(&batch->tail->next, node);
    }
    batch->tail = node;
    batch->items++;
    batch->bytes += bytes;
    if (batch->items < PYRT_CHUNK_ITEMS && batch->bytes < PYRT_SEAL_BYTES) {
        return PYRT_PUSHED;
    }
    pyrt_queue_seal(queue);
    return PYRT_PUSHED_SEALED;
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

bool
pyrt_queue_is_empty(const pyrt_retire_queue *queue)
{
    return queue->sealed == NULL && items_in_open(queue) == 0 && queue->first_batch == queue->open_batch &&
           batch_at(queue, queue->open_batch)->head == NULL;
}

/* ---- taking ------------------------------------------------------------------------------------------------------ */

void
pyrt_queue_take_chunk(pyrt_retire_queue *queue, pyrt_disposal *disposal)
{
    pyrt_retired_chunk *chunk = queue->sealed;
    pyrt_store_release(&disposal->chunk, chunk);
    if (chunk->next == NULL) {
        pyrt_store_release(&queue->sealed_last, (pyrt_retired_chunk *)NULL);
    }
    pyrt_store_release(&queue->sealed, chunk->next);
    queue->sealed_items -= items_in(chunk);
    queue->sealed_bytes -= chunk->bytes;
}

void
pyrt_queue_take_batch(pyrt_retire_queue *queue, pyrt_disposal *disposal)
{
    pyrt_retired_batch *batch = batch_at(queue, queue->first_batch);
    queue->sealed_items -= batch->items;
    queue->sealed_bytes -= batch->bytes;
    disposal->batch = *batch;
    pyrt_store_release(&queue->first_batch, queue->first_batch + 1);
}

void
pyrt_queue_recycle(pyrt_retire_queue *queue, pyrt_retired_chunk *chunk)
{
    if (queue->spare != NULL) {
        pyrt_meta_free(chunk, PYRT_CHUNK_SIZE);
        return;
    }
    chunk->next = NULL;
    chunk->bytes = 0;
    pyrt_store_release(&queue->spare, chunk);
}

/* ---- moving ------------------------------------------------------------------------------------------------------ */

/* Hangs a chain of nodes behind the open batch, which gets its goal later. */
static void
append_chain(pyrt_retire_queue *queue, pyrt_retired_batch *chain)
{
    if (chain->head == NULL) {
        return;
    }
    pyrt_retired_batch *batch = batch_at(queue, queue->open_batch);
    if (batch->head == NULL) {
        batch->head = chain->head;
    }
    else {
        batch->tail->next = chain->head;
    }
    batch->tail = chain->tail;
    batch->items += chain->items;
    batch->bytes += chain->bytes;
    *chain = (pyrt_retired_batch){0};
}

/* Before everything that is sealed: it was the oldest, and so is its goal. */
static void
prepend_batch(pyrt_retire_queue *queue, pyrt_retired_batch *batch)
{
    pyrt_retired_batch *first = pyrt_queue_first_batch(queue);
    queue->sealed_items += batch->items;
    queue->sealed_bytes += batch->bytes;
    if (!ring_is_full(queue)) {
        *batch_at(queue, queue->first_batch - 1) = *batch;
        pyrt_store_release(&queue->first_batch, queue->first_batch - 1);
    }
    else {
        batch->tail->next = first->head;
        first->items += batch->items;
        first->bytes += batch->bytes;
        pyrt_store_release(&first->head, batch->head);
    }
    *batch = (pyrt_retired_batch){0};
}

void
pyrt_queue_put_back(pyrt_retire_queue *queue, pyrt_disposal *disposal)
{
    pyrt_retired_chunk *chunk = disposal->chunk;
    if (chunk != NULL) {
        chunk->next = queue->sealed;
        if (queue->sealed == NULL) {
            queue->sealed_last = chunk;
        }
        queue->sealed_items += items_in(chunk);
        queue->sealed_bytes += chunk->bytes;
        pyrt_store_release(&queue->sealed, chunk);
        pyrt_store_release(&disposal->chunk, (pyrt_retired_chunk *)NULL);
    }
    if (disposal->batch.head != NULL) {
        prepend_batch(queue, &disposal->batch);
    }
    disposal->batch = (pyrt_retired_batch){0};
}

void
pyrt_queue_move(pyrt_retire_queue *from, pyrt_retire_queue *to)
{
    pyrt_queue_seal(from);
    while (from->sealed != NULL) {
        pyrt_disposal moved = {0};
        pyrt_queue_take_chunk(from, &moved);
        append_sealed(to, moved.chunk);
    }
    while (from->first_batch != from->open_batch) {
        pyrt_disposal moved = {0};
        pyrt_queue_take_batch(from, &moved);
        append_chain(to, &moved.batch);
    }
}

/* ---- after a fork ------------------------------------------------------------------------------------------------ */

/* Sets tail and count right, which may be behind the chain; says whether the chain contains a node. */
static bool
measure_chain(pyrt_retired_batch *batch, const pyrt_retire_node *wanted)
{
    bool contains = false;
    batch->items = 0;
    for (pyrt_retire_node *node = batch->head; node != NULL; node = node->next) {
        contains |= node == wanted;
        batch->tail = node;
        batch->items++;
    }
    return contains;
}

static void
repair_chunks(pyrt_retire_queue *queue, const pyrt_disposal *disposal)
{
    /* Stopped in take_chunk: the chunk is still in the queue as well. */
    if (queue->sealed != NULL && queue->sealed == disposal->chunk) {
        queue->sealed = disposal->chunk->next;
    }
    queue->sealed_last = NULL;
    queue->sealed_items = 0;
    queue->sealed_bytes = 0;
    for (pyrt_retired_chunk *chunk = queue->sealed; chunk != NULL; chunk = chunk->next) {
        queue->sealed_last = chunk;
        queue->sealed_items += items_in(chunk);
        queue->sealed_bytes += chunk->bytes;
    }
    /* Stopped in seal_chunk: the open chunk is sealed already, or the spare one is open already. */
    if (queue->open != NULL && queue->open == queue->sealed_last) {
        queue->open = NULL;
    }
    if (queue->spare == queue->open) {
        queue->spare = NULL;
    }
    /* Stopped in open_chunk: the cursor still stands in the chunk before. */
    if (queue->open == NULL) {
        queue->window->cursor = NULL;
    }
    else if (!is_in(queue->window->cursor, queue->open)) {
        queue->calls = end_of(queue->open);
        queue->window->cursor = queue->open->items;
    }
    set_slow_at(queue);
}

static void
repair_batches(pyrt_retire_queue *queue, pyrt_disposal *disposal)
{
    /* Stopped in take_batch: the batch is still in the ring as well. */
    if (queue->first_batch != queue->open_batch && disposal->batch.head != NULL &&
        disposal->batch.head == batch_at(queue, queue->first_batch)->head) {
        disposal->batch.head = NULL;
    }
    pyrt_retired_batch *open = batch_at(queue, queue->open_batch);
    bool merged = false;
    for (uint32_t number = queue->first_batch; number != queue->open_batch; number++) {
        pyrt_retired_batch *batch = batch_at(queue, number);
        merged |= open->head != NULL && measure_chain(batch, open->head);
        (void)measure_chain(batch, NULL);
        queue->sealed_items += batch->items;
        queue->sealed_bytes += batch->bytes;
    }
    /* Stopped in merge_batch: the open chain hangs behind the newest sealed one already. */
    if (merged) {
        *open = (pyrt_retired_batch){0};
    }
    (void)measure_chain(open, NULL);
    (void)measure_chain(&disposal->batch, NULL);
}

void
pyrt_queue_adopt(pyrt_retire_queue *queue, pyrt_disposal *disposal)
{
    repair_chunks(queue, disposal);
    repair_batches(queue, disposal);
    pyrt_queue_put_back(queue, disposal);
}

static void
visit_items(const pyrt_retired *from, const pyrt_retired *end, void (*visit)(const pyrt_retired *item))
{
    for (const pyrt_retired *item = from; item != end; item++) {
        visit(item);
    }
}

void
pyrt_queue_visit(const pyrt_retire_queue *queue, const pyrt_disposal *disposal, void (*visit)(const pyrt_retired *item))
{
    if (disposal->chunk != NULL) {
        visit_items(disposal->chunk->read, disposal->chunk->end, visit);
    }
    for (const pyrt_retired_chunk *chunk = queue->sealed; chunk != NULL; chunk = chunk->next) {
        visit_items(chunk->read, chunk->end, visit);
    }
    if (items_in_open(queue) != 0) {
        visit_items(queue->open->items, queue->window->cursor, visit);
    }
}

void
pyrt_queue_fini(pyrt_retire_queue *queue)
{
    pyrt_retired_chunk *open = queue->open;
    pyrt_retired_chunk *spare = queue->spare;
    pyrt_store_release(&queue->spare, (pyrt_retired_chunk *)NULL);
    open_chunk(queue, NULL);
    set_slow_at(queue);
    pyrt_meta_free(open, PYRT_CHUNK_SIZE);
    pyrt_meta_free(spare, PYRT_CHUNK_SIZE);
}
