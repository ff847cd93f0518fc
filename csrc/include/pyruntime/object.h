/* SPDX-License-Identifier: MIT
 *
 * object.h -- a header to put first in your own struct: who owns the thing, how often it is referred to, a lock, its type.
 *
 *      struct point { pyrt_object base; double x, y; };
 *
 * Reference counts are *biased*: the thread that makes an object owns it and counts in `local` without atomic operations; all
 * others count in `shared`, and so does an owner while it is detached. What is left is the sum. Nobody but the owner can look at
 * `local`, so when a reference is dropped elsewhere that may have been the last, the object is put into its owner's *merge
 * queue*. The owner merges the two counts at its next safepoint; if it is detached, whoever asks does it at once; if it has
 * ended, too. From then on all count in `shared`. refcount.h has the operations.
 *
 * An object dies when its last reference is dropped: its weak references are cleared, `finalize` and `dealloc` of its type run,
 * and its memory goes back to its interpreter's type-stable heap. Nothing can bring it back. Objects that die inside of a
 * `dealloc` die at once up to a depth of PYRT_DEATH_DEPTH; beyond it they wait until the outermost one has returned.
 *
 * State table of `shared`: the low two bits are a state, the rest a signed count, of which
 *
 *      references = local + shared count (+ per-thread counts, unique_id.h)
 *
 *   state     value  meaning                                       who sets it
 *   PLAIN     0      nobody gets a reference out of nothing        the maker
 *   OPEN      1      pyrt_try_incref may succeed                   a holder, PLAIN -> OPEN (pyrt_enable_try_incref)
 *   QUEUED    2      the owner has been asked to merge; the        who drops a reference that may be the last, or wants it
 *                    queue holds one reference                     merged: PLAIN, OPEN -> QUEUED; the count may fall below 0
 *   MERGED    3      `local` is 0 for good, all count here         the owner when its last local reference goes; who merges
 *
 * A state is only ever left for a higher one. MERGED with a count of 0 is dead: so reads the word of every object whose memory is
 * free. While it is being destroyed it is MERGED and far below 0, so that a destructor may count it up and down.
 *
 * A count below 0 in PLAIN or OPEN: several others have dropped at the same moment, and who took it below 0 has given up a
 * reference without knowing whether it was the last. Those who did are about to ask the owner: the one of them who makes it
 * QUEUED takes a reference for the queue. They hold none meanwhile, so it may die, and its memory be another object's, before they
 * come to it; to that, too, it is right to do so, if it is below 0. Hence only threads that are attached to the interpreter
 * of the object drop in this way: until they are quiescent its memory stays an object's of that interpreter.
 *
 * State table of `owner`:
 *
 *   value                    meaning                                             who sets it
 *   a thread's self_id       that thread state owns it, alive or ended: its id,  the maker
 *                            and from PYRT_OWNERS_SHIFT on the number of its
 *                            interpreter, which is the object's, and never 0
 *   bit 63, rest 0           nobody's: merged, immortal or free                  who merges, before `shared` says so
 *   bit 63, rest an address  linked, before the object there, or (1) the last:   who has made it QUEUED, by compare-and-swap from
 *                            in a merge queue, or among the dead that wait       the owner, who leaves `local` alone from then on
 *
 * `local` is the owner's while `owner` names it. Two values are no counts: PYRT_LOCAL_IMMORTAL, which counting leaves alone, and
 * PYRT_LOCAL_TRACED, whose counting takes the long way. They stand only where `owner` is nobody's.
 */
#ifndef PYRUNTIME_OBJECT_H
#define PYRUNTIME_OBJECT_H

#include "heap.h"
#include "mutex.h"

PYRT_BEGIN_DECLS

/* cdef: begin */
typedef struct pyrt_type pyrt_type;

/* 32 bytes. Read-only for users, but for the mutex, which is theirs. */
typedef struct pyrt_object {
    uint64_t owner;     /* see the table above */
    uint16_t flags;     /* PYRT_OBJECT_...; set and cleared by read-modify-writes of whoever holds a reference */
    pyrt_mutex mutex;   /* the object's own, for critical sections (critical_section.h) */
    uint8_t collector;  /* a collector's; nobody else looks at it */
    uint32_t local;     /* references that the owner counts; see above */
    int64_t shared;     /* see the table above */
    pyrt_type *type;    /* each object counts its type */
} pyrt_object;
/* cdef: end */

PYRT_STATIC_ASSERT(sizeof(pyrt_object) == 32, "what readers may look at in a block that is free ends here");
PYRT_STATIC_ASSERT(offsetof(pyrt_object, owner) == 0, "inline code of embedding extensions uses it there");
PYRT_STATIC_ASSERT(offsetof(pyrt_object, flags) == 8, "inline code of embedding extensions reads it there");
PYRT_STATIC_ASSERT(offsetof(pyrt_object, mutex) == 10, "inline code of embedding extensions locks it there");
PYRT_STATIC_ASSERT(offsetof(pyrt_object, collector) == 11, "embedding extensions use it there");
PYRT_STATIC_ASSERT(offsetof(pyrt_object, local) == 12, "inline code of embedding extensions uses it there");
PYRT_STATIC_ASSERT(offsetof(pyrt_object, shared) == 16, "inline code of embedding extensions uses it there");
PYRT_STATIC_ASSERT(offsetof(pyrt_object, type) == 24, "inline code of embedding extensions reads it there");

enum {
    PYRT_OBJECT_HAS_WEAKREFS = 1, /* there may be weak references: they are cleared before it goes */
    PYRT_OBJECT_IMMORTAL = 2,     /* never dies; is being made so, or is */
    PYRT_OBJECT_DEFERRED = 4,     /* PYRT_DEFERRED_COUNT has been added to its shared count */
    PYRT_OBJECT_TRACED = 8,       /* pyrt_object_trace */
    PYRT_OBJECT_DYING = 16,       /* its destruction has begun */
    PYRT_OBJECT_FINALIZED = 64,   /* as it was destroyed: finalize has been called, */
    PYRT_OBJECT_DEALLOCATED = 128, /* dealloc has been called */
    PYRT_OBJECT_HAS_ID = 32       /* it has a unique id (unique_id.h), which keeps it as if it were deferred */
};

enum {
    PYRT_SHARED_PLAIN = 0,
    PYRT_SHARED_OPEN = 1,
    PYRT_SHARED_QUEUED = 2,
    PYRT_SHARED_MERGED = 3,
    PYRT_SHARED_STATES = 3, /* the bits of the state */
    PYRT_SHARED_ONE = 4     /* one reference */
};

#define PYRT_UNOWNED ((uint64_t)1 << 63)
#define PYRT_LOCAL_IMMORTAL UINT32_MAX
#define PYRT_LOCAL_TRACED (UINT32_MAX - 1)
#define PYRT_DEFERRED_COUNT ((int64_t)1 << 58) /* what keeps an object of deferred counts, or one that becomes immortal */
#define PYRT_DEATH_DEPTH 32
#define PYRT_OBJECT_TAG 31 /* of the heap that objects are in: for pyrt_heap_visit, and not for heaps of your own */

/* A header for an object that is in static memory: immortal, of this type (NULL for one that nobody asks). */
#define PYRT_OBJECT_IMMORTAL_INIT(type_) \
    {PYRT_UNOWNED, PYRT_OBJECT_IMMORTAL, {0}, 0, PYRT_LOCAL_IMMORTAL, PYRT_SHARED_MERGED, (type_)}

/* ---- types ------------------------------------------------------------------------------------------------------- */

/* cdef: begin */
/* What is said of the functions holds for all objects of the type. They run where the last reference is dropped: on any thread,
 * attached or not, with no lock of the library held. They may do anything, also end the OS thread (the object goes all the
 * same, when that ends); what they drop dies. The object's own memory is the library's: it frees that when `dealloc` has
 * returned, or at once where there is none. A `dealloc` frees what the body points to, and never the object. */
typedef struct pyrt_type_spec {
    uint32_t struct_size;     /* sizeof(pyrt_type_spec) */
    const char *name;         /* copied, cut to 63 bytes */
    size_t basic_size;        /* of your struct, header included */
    size_t item_size;         /* added for each item of pyrt_object_new_var */
    size_t weaklist_offset;   /* of a word of yours for the list of weak references, a multiple of 8; 0: there is none */
    void (*dealloc)(pyrt_object *dying);  /* gives up what the body holds, see above; NULL: nothing */
    void (*finalize)(pyrt_object *dying); /* before dealloc, the body still whole; NULL: none */
    int (*traverse)(pyrt_object *, int (*visit)(pyrt_object *, void *), void *); /* for a collector; NULL: none */
    int (*clear)(pyrt_object *);          /* for a collector; NULL: none */
} pyrt_type_spec;

/* A new type, a reference of the caller's: an object itself, that lives as long as it is referred to, and that its objects refer
 * to. It has a unique id (unique_id.h), so that making and dropping objects of one type on many threads shares no counter; it
 * therefore dies in pyrt_merge_unique_counts, or with its interpreter. NULL, with errno: ENOMEM; EINVAL for a spec that does not
 * fit, or an interpreter that is NULL or ending.
 * blocks: while the world is stopped, if not attached · allocates: yes · runs user code: no · quiescent: may · needs attached:
 * no · async-signal-safe: no */
pyrt_type *pyrt_type_new(pyrt_interp *interp, const pyrt_type_spec *spec);

/* The name from the spec; good as long as the type is.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
const char *pyrt_type_name(const pyrt_type *type);

/* ---- objects ----------------------------------------------------------------------------------------------------- */

/* A new object with one reference, owned by the thread, its body zeroed; the second form adds n items (and does not keep n). The
 * thread must be the one attached here, and the type of its interpreter. NULL, with errno: ENOMEM, also for an absurd size;
 * EINVAL, reported, for the wrong thread or type, or NULL for one.
 * blocks: shortly · allocates: yes · runs user code: no · quiescent: never · needs attached: yes · async-signal-safe: no */
pyrt_object *pyrt_object_new(pyrt_thread *thread, pyrt_type *type);
pyrt_object *pyrt_object_new_var(pyrt_thread *thread, pyrt_type *type, size_t n);

/* ---- special counts ---------------------------------------------------------------------------------------------- */

/* Makes an object immortal, for good: it never dies, and counting it writes nothing. The caller has a reference, which need not be
 * dropped any more. Of an object that another thread owns, or that is queued, counting goes on writing until that owner
 * has merged it. No way back.
 * blocks: shortly · allocates: no · runs user code: yes, when others die that wait for a detached owner · quiescent: never ·
 * needs attached: no · async-signal-safe: no */
void pyrt_set_immortal(pyrt_object *object);

/* Defers an object's death: PYRT_DEFERRED_COUNT is added to its shared count, so that counting alone never ends it; a collector
 * does, by the second call, which takes it away again. The caller has a reference. Doing either twice does nothing.
 * blocks: shortly · allocates: no · runs user code: yes, when objects die · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
void pyrt_set_deferred(pyrt_object *object);
void pyrt_clear_deferred(pyrt_object *object);

/* ---- merging ----------------------------------------------------------------------------------------------------- */

/* Merges now what is in the thread's queue, and destroys what that has ended; what pyrt_safepoint does besides. A thread of the
 * calling OS thread; inside of a destructor what dies waits for the outermost one.
 * blocks: no · allocates: no · runs user code: yes · quiescent: never · needs attached: no · async-signal-safe: no */
void pyrt_merge_refcounts(pyrt_thread *thread);

/* ---- looking ----------------------------------------------------------------------------------------------------- */

/* How many references there are, as far as this thread can see: exact where no other thread counts meanwhile; without a deferred
 * or a queue's share, and without per-thread counts that have not been merged. INT64_MAX for an immortal one; in a destructor,
 * what that has added.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
int64_t pyrt_refcount(const pyrt_object *object);

typedef struct pyrt_object_info {
    uint32_t struct_size; /* in: sizeof(pyrt_object_info) */
    uint32_t local;       /* the owner's count; 0 once merged */
    int64_t shared;       /* the others' */
    uint64_t owner;       /* the thread id (pyrt_thread.id) of the owner; 0: nobody's, or queued */
    uint8_t state;        /* PYRT_SHARED_... */
    bool immortal, deferred, traced;
} pyrt_object_info;

/* The fields of a header, one after the other. A struct_size that is none leaves the struct as it was; NULL for `out` does
 * nothing.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
void pyrt_object_look(const pyrt_object *object, pyrt_object_info *out);

/* Traces one object: from here on every time that it is counted, who does so and from where is told through the report hook,
 * until its end. The caller has a reference. What is counted before its owner has merged it is not told of, and if it is being
 * merged at this moment, nothing until it is asked for once more. Off: counting is silent again, and costs a call still.
 * blocks: shortly · allocates: no · runs user code: the report hook, and when others die that wait for a detached owner ·
 * quiescent: never · needs attached: no · async-signal-safe: no */
void pyrt_object_trace(pyrt_object *object, bool on);

typedef struct pyrt_object_stats {
    uint32_t struct_size;      /* in: sizeof(pyrt_object_stats) */
    uint32_t unique_ids;       /* in use */
    uint64_t merges_asked;     /* objects put into their owner's queue */
    uint64_t merges_done;      /* of these, taken out and merged */
    uint64_t merges_for_ended; /* merged by who asked, because the owner had ended */
    uint64_t queues_borrowed;  /* queues of detached threads that others have worked off */
    uint64_t longest_queue;    /* most objects that were taken out at once */
    uint64_t longest_wait_ns;  /* longest time that an object stood in a queue */
    uint64_t immortal;         /* objects made immortal */
} pyrt_object_stats;

/* The figures of an interpreter; NULL leaves them 0. A struct_size that is none leaves the struct as it was; NULL for `out`
 * does nothing.
 * blocks: shortly · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
void pyrt_object_stats_read(pyrt_interp *interp, pyrt_object_stats *out);
/* cdef: end */

PYRT_END_DECLS
#endif /* PYRUNTIME_OBJECT_H */
