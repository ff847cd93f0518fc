/* heap_impl.h -- heaps of interpreters: what stands behind the public handle, and what interpreters and threads keep. */
#ifndef PYRT_MEMORY_HEAP_IMPL_H
#define PYRT_MEMORY_HEAP_IMPL_H

#include "memory/part.h"
#include "state/index_pool.h"
#include "state/thread_impl.h"

/* State table of `state`: set once, by who ends the heap, seq_cst; read by every thread that has a part of it. */
enum { PYRT_HEAP_LIVE, PYRT_HEAP_DELETED, PYRT_HEAP_DESTROYED };

/* Lives as long as its user, a part or a page refers to it: the user's reference is dropped by delete and destroy. */
typedef struct pyrt_heap_impl {
    pyrt_heap base;
    uint32_t refs;
    uint32_t state;
    pyrt_interp *interp;
    struct pyrt_heap_impl *next, *previous; /* of the interpreter, under its heaps' lock */
    uint16_t link;
    uint8_t tag;
    bool type_stable;
    bool is_guarded; /* pyrt_free does not take its blocks */
} pyrt_heap_impl;

/* An interpreter's. */
typedef struct pyrt_interp_heaps {
    pyrt_memory own;
    pyrt_memory *memory;       /* own, or the main interpreter's */
    pyrt_pool pool;
    pyrt_raw_mutex lock;       /* guards what follows; after the pool's in the order of locks */
    pyrt_heap_impl *heaps;
    uint32_t heap_count;
    pyrt_index_pool indexes;
    uint32_t ended;            /* heaps deleted or destroyed, ever; read without the lock */
    uint64_t adopted;          /* by threads that have ended */
    /* Among all, under the lock of the list (interp_memory.c). */
    struct pyrt_interp_heaps *next, *previous;
    uint32_t users;            /* of `own`, and of this struct */
    uint64_t ended_as;         /* the how manieth interpreter to end; 0: it has not */
    int64_t interp_id;
    char name[PYRT_INTERP_NAME];
} pyrt_interp_heaps;

/* A thread's: its table is what pyrt_thread.heaps points to, and the token of its share. */
typedef struct pyrt_thread_heaps {
    pyrt_heap_table table;
    pyrt_share share;
    uint32_t seen_ended;       /* of `ended`: others have to be looked for */
} pyrt_thread_heaps;

static inline pyrt_interp_heaps *
pyrt_heaps_of_interp(pyrt_interp *interp)
{
    return interp->stage[PYRT_STAGE_HEAPS];
}

static inline pyrt_thread_heaps *
pyrt_heaps_of(pyrt_thread_impl *thread)
{
    return thread->stage[PYRT_STAGE_HEAPS];
}

/* The stage's interp_init and interp_fini; and, around a fork, the locks of all interpreters' memory, ended ones' too. */
pyrt_status pyrt_heaps_interp_init(pyrt_interp *interp);
void pyrt_heaps_interp_fini(pyrt_interp *interp);
void pyrt_heaps_fork_prepare(void);
void pyrt_heaps_fork_parent(void);
void pyrt_heaps_fork_child(void);

/* Looks at the process's domain with these. */
void pyrt_process_memory_look(pyrt_memory_stats *out, void (*share)(pyrt_memory_stats *, const pyrt_share *),
                              void (*pool)(pyrt_memory_stats *, pyrt_pool *),
                              void (*memory)(pyrt_memory_stats *, pyrt_memory *));

/* A heap whose blocks have an end of their own, before which they are not freed: pyrt_free refuses them, and the second function
 * is for who has ended one. The first is for a heap that nobody has allocated from. */
void pyrt_heap_guard(pyrt_heap *heap);
void pyrt_free_guarded(void *block);

/* The room of a block that the function, one that resizes, may take; 0 for what it may not, reported in its name, and errno is
 * EINVAL. */
size_t pyrt_room_to_resize(const char *function, const void *block);

void pyrt_heap_ref(pyrt_heap_impl *heap);
void pyrt_heap_unref(pyrt_heap_impl *heap);

#endif
