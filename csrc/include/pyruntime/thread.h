/* SPDX-License-Identifier: MIT
 *
 * thread.h -- the runtime of the process, its interpreters, and the thread states with which OS threads take part.
 *
 * An OS thread takes part in the machinery of an interpreter through a pyrt_thread. The state is bound to the OS thread
 * that made it and is either *detached* (it looks at nothing shared, holds nobody up, costs nobody anything) or *attached*
 * (it may look at shared memory, must pass a safepoint now and then, and a pause of the world waits for it). An OS thread
 * may own several states, usually one for each interpreter, but at most one of them is attached at a time.
 *
 * The public struct is the first member of a private one; every state is allocated as the private one.
 */
#ifndef PYRUNTIME_THREAD_H
#define PYRUNTIME_THREAD_H

#include "current.h"
#include "qsbr_slot.h"
#include "status.h"

PYRT_BEGIN_DECLS

/* One retired thing (retire.h), and the place where the next one goes: so much of a retire queue is public that retiring is
 * inline. Both belong to the library. */
typedef struct pyrt_retired {
    void *p;
    void (*dispose)(void *p);
} pyrt_retired;

typedef struct pyrt_retire_window {
    pyrt_retired *cursor;  /* the next free item; NULL without an open chunk */
    pyrt_retired *slow_at; /* an item there takes the long way */
    size_t bytes_left;     /* so does one that needs them all */
} pyrt_retire_window;

/* Counts of objects with unique ids (unique_id.h), by id - 1. The owner's; another's while the world stands still. */
typedef struct pyrt_unique_counts {
    int64_t *values;
    size_t size;
} pyrt_unique_counts;

/* What a thread is as an owner of objects (object.h): its id, and above that the number of its interpreter among all of the
 * process, never used again. A thread or interpreter that comes after so many others owns nothing. */
#define PYRT_OWNERS_SHIFT 38
#define PYRT_OWNERS_LAST ((1ull << 24) - 1)

/* The public part of a thread state. Read-only for users. */
struct pyrt_thread {
    pyrt_qsbr_slot slot;  /* first: state word and flags */
    uint64_t os_id;       /* of the OS thread that it is bound to */
    uint64_t id;          /* unique in the process, never reused */
    pyrt_interp *interp;
    int32_t index;        /* the smallest number that no other living thread state of the interpreter has */
    pyrt_retire_window retire; /* the owner's while it is attached; else under the interpreter's lock */
    uintptr_t critical_sections; /* the newest open one, with tags (critical_section.h); the owner's */
    struct pyrt_heap_table *heaps; /* heap.h; the owner's */
    uint64_t self_id;     /* whom it is as an owner of objects (object.h), or 0 when its end is near */
    pyrt_unique_counts unique_counts;
};

PYRT_STATIC_ASSERT(offsetof(struct pyrt_thread, slot) == 0, "the slot is the thread's first cache line");
PYRT_STATIC_ASSERT(offsetof(struct pyrt_thread, os_id) == 64, "inline code of embedding extensions reads it there");
PYRT_STATIC_ASSERT(offsetof(struct pyrt_thread, id) == 72, "inline code of embedding extensions reads it there");
PYRT_STATIC_ASSERT(offsetof(struct pyrt_thread, interp) == 80, "inline code of embedding extensions reads it there");
PYRT_STATIC_ASSERT(offsetof(struct pyrt_thread, index) == 88, "inline code of embedding extensions reads it there");
PYRT_STATIC_ASSERT(offsetof(struct pyrt_thread, retire) == 96, "inline code of embedding extensions uses it there");
PYRT_STATIC_ASSERT(offsetof(struct pyrt_thread, heaps) == 128, "inline code of embedding extensions uses it there");
PYRT_STATIC_ASSERT(offsetof(struct pyrt_thread, self_id) == 136, "inline code of embedding extensions reads it there");
PYRT_STATIC_ASSERT(offsetof(struct pyrt_thread, unique_counts) == 144, "inline code of embedding extensions uses it there");
PYRT_STATIC_ASSERT(offsetof(pyrt_unique_counts, size) == 8, "inline code of embedding extensions uses it there");
PYRT_STATIC_ASSERT(offsetof(pyrt_retire_window, cursor) == 0, "inline code of embedding extensions uses it there");
PYRT_STATIC_ASSERT(offsetof(pyrt_retire_window, slow_at) == 8, "inline code of embedding extensions reads it there");
PYRT_STATIC_ASSERT(offsetof(pyrt_retire_window, bytes_left) == 16, "inline code of embedding extensions uses it there");
PYRT_STATIC_ASSERT(sizeof(pyrt_retired) == 16, "inline code of embedding extensions steps over items");
PYRT_STATIC_ASSERT(offsetof(pyrt_retired, p) == 0, "inline code of embedding extensions writes it there");
PYRT_STATIC_ASSERT(offsetof(pyrt_retired, dispose) == 8, "inline code of embedding extensions writes it there");
PYRT_STATIC_ASSERT(offsetof(struct pyrt_thread, critical_sections) == 120,
                   "inline code of embedding extensions uses it there");

/* ---- the runtime ------------------------------------------------------------------------------------------------- */

/* cdef: begin */
/* Starts the runtime of the process and its main interpreter (id 0), or counts one user more. Each success wants one
 * pyrt_runtime_fini; after the last the runtime can be initialised again.
 * Errors: PYRT_ENOMEM; PYRT_ESTATE while the last fini is under way.
 * blocks: shortly · allocates: yes · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_runtime_init(void);

/* Counts one user less. The last one disposes of all that is still retired, deletes every interpreter and gives all
 * memory back. Errors: PYRT_ESTATE if the runtime is not initialised; for the last user, PYRT_EBUSY while thread states or
 * pins remain, or if disposal keeps retiring: nothing has been counted then, end them and call again.
 * blocks: no · allocates: no · runs user code: yes (disposers) · quiescent: never · needs attached: no (must be detached) ·
 * async-signal-safe: no */
pyrt_status pyrt_runtime_fini(void);

/* Whether an init has not been undone yet.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
bool pyrt_runtime_is_initialized(void);
/* cdef: end */

/* ---- interpreters ------------------------------------------------------------------------------------------------ */

/* cdef: begin */
enum { PYRT_WHENCE_UNKNOWN = 0, PYRT_WHENCE_RUNTIME = 1, PYRT_WHENCE_CAPI = 3, PYRT_WHENCE_STDLIB = 5 };

typedef struct pyrt_interp_config {
    uint32_t struct_size;   /* sizeof(pyrt_interp_config) */
    int use_main_allocator; /* nonzero: its heaps take their room from the arenas of the main one; 0: from its own */
    int whence;             /* PYRT_WHENCE_...: who made it */
    const char *name;       /* copied, cut to 31 bytes; NULL: "interpreter <id>", "domain <id>" by STDLIB */
    int free_leaked_blocks; /* nonzero: blocks of its heaps that are in use at its end are freed all the same */
} pyrt_interp_config;

/* The main interpreter, or NULL while the runtime is not initialised.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
pyrt_interp *pyrt_interp_main(void);

/* A new interpreter: a group of threads with readers, retire queues and pauses of its own. NULL when memory is short, the
 * config does not fit, or the runtime is not initialised.
 * blocks: shortly · allocates: yes · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
pyrt_interp *pyrt_interp_new(const pyrt_interp_config *or_null);

/* Ends an interpreter; what its threads left retired is disposed of. Errors: PYRT_EBUSY while it has thread states, pins
 * (a barrier of another thread is one, for the time) or a pause, or if disposal keeps retiring; PYRT_EINVAL for NULL and for
 * the main interpreter, which ends with the runtime. On error it goes on, and can be ended later.
 * blocks: shortly · allocates: no · runs user code: yes (disposers) · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
pyrt_status pyrt_interp_delete(pyrt_interp *interp);

/* Ids count up from 0, the main interpreter, and are not reused while the runtime lives.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
int64_t pyrt_interp_id(const pyrt_interp *interp);
const char *pyrt_interp_name(const pyrt_interp *interp);
int pyrt_interp_whence(const pyrt_interp *interp);

/* The interpreter with this id, kept alive until pyrt_interp_unpin; NULL if there is none (any more).
 * blocks: shortly · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
pyrt_interp *pyrt_interp_pin(int64_t id);
void pyrt_interp_unpin(pyrt_interp *interp);

/* Writes the ids of all interpreters, oldest first, at most `capacity`, and answers how many there are.
 * blocks: shortly · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
size_t pyrt_interp_list(int64_t *ids, size_t capacity);
/* cdef: end */

/* ---- thread states ----------------------------------------------------------------------------------------------- */

/* cdef: begin */
/* A new state for the calling OS thread, detached. NULL when memory is short, a slot's init refused, or the interpreter is
 * NULL or ending. An OS thread that ends without deleting its states has them cleaned up.
 * blocks: shortly · allocates: yes · runs user code: yes (init hooks of slots) · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
pyrt_thread *pyrt_thread_new(pyrt_interp *interp);

/* Ends a state, on its own OS thread, detached. What is retired and cannot be disposed of yet goes to the interpreter.
 * Order: exit hooks of slots, per-thread counts, merge queue, retire queue, heaps, epoch slot, index.
 * Wrong use (another OS thread, attached, inside ensure or a disposer) is reported and changes nothing.
 * blocks: while the world is stopped · allocates: no · runs user code: yes · quiescent: may · needs attached: no (must be
 * detached) · async-signal-safe: no */
void pyrt_thread_delete(pyrt_thread *thread);

/* Makes sure that the calling OS thread has an attached state of this interpreter, and returns it; NULL when memory is
 * short or the interpreter is NULL or ending, with nothing changed. An attached state of another interpreter is detached for
 * the time being. The calls form a stack for each OS thread. Inside an open counted read-side section of another state it
 * is reported and refused (NULL), because it would end that section.
 * blocks: while the world is stopped · allocates: yes · runs user code: yes (init hooks of slots) · quiescent: may ·
 * needs attached: no · async-signal-safe: no */
pyrt_thread *pyrt_thread_ensure(pyrt_interp *interp);

/* The same within a time, as for pyrt_attach_timed; what it answers is written to `out`. Errors, with nothing changed and
 * NULL written: those of pyrt_attach_timed, PYRT_ENOMEM, PYRT_ESTATE for an interpreter that is NULL or ending, and what the
 * init of a slot refused with. A state that was made and found no time to attach is ended again, its slots' exit hooks run
 * detached. An attached state of another interpreter is attached again first, and that has no time limit.
 * blocks: while the world is stopped, so long · allocates: yes · runs user code: yes (hooks of slots) · quiescent: may ·
 * needs attached: no · async-signal-safe: no */
pyrt_status pyrt_thread_ensure_timed(pyrt_interp *interp, int64_t timeout_ns, unsigned flags, pyrt_thread **out);

/* Undoes the newest pyrt_thread_ensure of this OS thread and restores what it found: a state that it made is deleted, a
 * state that it detached is attached again. `thread` is what that ensure returned; anything else is reported and changes
 * nothing.
 * blocks: while the world is stopped · allocates: no · runs user code: yes, if it deletes · quiescent: may · needs
 * attached: no · async-signal-safe: no */
void pyrt_thread_release(pyrt_thread *thread);

/* The state of the calling OS thread for this interpreter, attached or not; NULL if there is none.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
pyrt_thread *pyrt_thread_find(pyrt_interp *interp);

/* Names the thread in reports; copied, cut to 31 bytes. Until then it has the name that the OS thread had at the start.
 * blocks: shortly · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
void pyrt_thread_set_name(pyrt_thread *thread, const char *name);

typedef struct pyrt_thread_info {
    uint64_t id;
    int64_t interp_id;
    int32_t index;
    int32_t os_tid;         /* the kernel's thread id */
    int32_t state;          /* PYRT_STATE_... */
    char name[32];
} pyrt_thread_info;

/* Describes the thread states of an interpreter, at most `capacity`, none if `out` is NULL, and answers how many there are.
 * Each is read once and may have moved on since. NULL interp: 0.
 * blocks: shortly · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
size_t pyrt_thread_list(pyrt_interp *interp, pyrt_thread_info *out, size_t capacity);
/* cdef: end */

/* ---- attach, detach, safepoint ----------------------------------------------------------------------------------- */

/* The long ways of the inline functions below; call those. */
void pyrt_attach_slow(pyrt_thread *thread);
void pyrt_detach_slow(pyrt_thread *thread);
void pyrt_detach_answer(pyrt_thread *thread);
void pyrt_safepoint_slow(pyrt_thread *thread);
void pyrt_critical_sections_resume(pyrt_thread *thread);

/* cdef: begin */
/* pyrt_attach within a time: 0 does not wait for the end of a pause, a negative one has no end. `flags`: 0, or
 * PYRT_LOCK_INTERRUPTIBLE (parking_lot.h). Errors, with the thread as it was: PYRT_ETIMEDOUT; PYRT_EINTR when a signal
 * handler ran in the sleep; PYRT_EINVAL for unknown flags; PYRT_ESTATE for wrong use, reported. A critical section that is to
 * be resumed is waited for without end.
 * blocks: while the world is stopped, so long; or to resume a critical section · allocates: no · runs user code: no ·
 * quiescent: never · needs attached: no · async-signal-safe: no */
pyrt_status pyrt_attach_timed(pyrt_thread *thread, int64_t timeout_ns, unsigned flags);
/* cdef: end */

/* The attached state of this OS thread, or NULL.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
static inline pyrt_thread *
pyrt_thread_current(void)
{
    return PYRT_TLS.current;
}

/* Attaches as pyrt_attach does, if that is possible at once; false for wrong use too, without a report.
 * blocks: to resume a critical section · allocates: no · runs user code: no · quiescent: never · needs attached: no ·
 * async-signal-safe: no */
static inline bool
pyrt_tryattach(pyrt_thread *thread)
{
    uint64_t expected = PYRT_STATE_DETACHED;
    /* acquire: pairs with the advance of pyrt_qsbr_sequence_advance. What was unlinked before the sequence got this value
     * is seen as unlinked. */
    uint64_t sequence = pyrt_load_acquire(thread->slot.sequence);
    /* seq_cst: the word is visible before anything that this thread reads next. A scan that still saw 0 comes before it
     * and so does the unlinking that the scan stands for. Pairs with the advance, and with the load of the scan. */
    if (pyrt_unlikely(PYRT_TLS.current != NULL || PYRT_TLS.os_id != thread->os_id ||
                      !pyrt_cas_seq_cst(&thread->slot.word, &expected, sequence))) {
        return false;
    }
    pyrt_fence_after_rmw();
    PYRT_TLS.current = thread;
    PYRT_TLS.self_id = thread->self_id;
    if (pyrt_unlikely(thread->critical_sections != 0)) {
        PYRT_CALL(critical_sections_resume)(thread);
    }
    return true;
}

/* Attaches a detached state of the calling OS thread. From here on nothing that the thread can reach is disposed of, until
 * it is quiescent. Its newest critical section, if it is in one, is resumed. Wrong use (attached already, another state
 * attached, another OS thread's, deleted) is reported and changes nothing.
 * blocks: while the world is stopped, or to resume a critical section · allocates: no · runs user code: no ·
 * quiescent: never · needs attached: no · async-signal-safe: no */
static inline void
pyrt_attach(pyrt_thread *thread)
{
    if (pyrt_unlikely(!pyrt_tryattach(thread))) {
        PYRT_CALL(attach_slow)(thread);
    }
}

/* The part of pyrt_detach that is left when nothing speaks against it; call that. */
static inline void
pyrt_detach_unchecked(pyrt_thread *thread)
{
    PYRT_TLS.current = NULL;
    PYRT_TLS.self_id = 0;
    /* release: all that was read is read before the word says so. Pairs with the scan's and the borrower's acquire. */
    pyrt_store_release(&thread->slot.word, (uint64_t)PYRT_STATE_DETACHED);
    /* Store, then load, of two words: whoever sets a flag and then sleeps in the hope of this detach calls
     * pyrt_membarrier() between setting the flag and looking at the word once more. */
    pyrt_light_barrier();
    if (pyrt_unlikely(pyrt_load_relaxed(&thread->slot.flags) & PYRT_FLAGS_OF_OTHERS)) {
        PYRT_CALL(detach_answer)(thread);
    }
}

/* Detaches the current state. All references to shared memory that are not otherwise kept alive are given up, and critical
 * sections are suspended. Wrong use (not the attached state of this OS thread, an open counted read-side section) is reported
 * and changes nothing.
 * blocks: no · allocates: no · runs user code: no · quiescent: always · needs attached: yes · async-signal-safe: no */
static inline void
pyrt_detach(pyrt_thread *thread)
{
    if (pyrt_unlikely(PYRT_TLS.current != thread || (thread->slot.read_depth | thread->critical_sections) != 0)) {
        PYRT_CALL(detach_slow)(thread);
        return;
    }
    pyrt_detach_unchecked(thread);
}

/* Quiescent state, and the place where a thread does what is asked of it: parks for a pause, wakes who waits for it, works
 * off its retire queue. Two compares when nothing is asked. Critical sections are suspended while it is parked.
 * blocks: while the world is stopped · allocates: no · runs user code: yes (disposers) · quiescent: always · needs
 * attached: yes · async-signal-safe: no */
static inline void
pyrt_safepoint(pyrt_thread *thread)
{
    /* acquire: as in pyrt_attach. relaxed: the word is the owner's own; a flag that is seen late is seen at the next
     * safepoint. */
    uint64_t behind = pyrt_load_acquire(thread->slot.sequence) ^ pyrt_load_relaxed(&thread->slot.word);
#if defined(PYRT_DEBUG)
    behind |= thread->slot.read_depth;
#endif
    if (pyrt_unlikely((behind | pyrt_load_relaxed(&thread->slot.flags)) != 0)) {
        PYRT_CALL(safepoint_slow)(thread);
    }
}

/* ---- per-thread slots -------------------------------------------------------------------------------------------- */

/* cdef: begin */
enum { PYRT_THREAD_SLOT_MAX = 64, PYRT_THREAD_SLOT_SIZE = 64 };

/* Reserves PYRT_THREAD_SLOT_SIZE bytes in every thread state, until the runtime ends. `init` (NULL: none) gets the zeroed
 * bytes when a state is made, or at the first look-up in a state that is older than the slot; an error of it refuses the
 * state or the look-up. `exit` (NULL: none) gets them back when the state ends, on its own OS thread, attached (but
 * detached if another slot's `init` has refused the state), slots of lower `order` first. Answers the number of the slot,
 * or minus a pyrt_status (-PYRT_EOVERFLOW after PYRT_THREAD_SLOT_MAX, -PYRT_ESTATE while the runtime is not initialised).
 * blocks: shortly · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: no */
int pyrt_thread_slot_new(pyrt_status (*init)(void *), void (*exit)(void *), int order);

/* The bytes of a slot in a state of the calling OS thread. NULL for a number that is none, and when memory is short or
 * `init` refuses.
 * blocks: no · allocates: at the first look-up · runs user code: init, at the first look-up · quiescent: never · needs
 * attached: no · async-signal-safe: no */
void *pyrt_thread_slot(pyrt_thread *thread, int slot);
/* cdef: end */

PYRT_END_DECLS
#endif /* PYRUNTIME_THREAD_H */
