/* SPDX-License-Identifier: MIT
 *
 * current.h -- the words that every OS thread has: which thread state is attached, and whom the thread is as an owner.
 *
 * They live in one thread-local block of the core. Code that was compiled together with the core names the block; an
 * extension that goes through the table finds it at thread pointer + an offset that the table publishes and importing it keeps,
 * which costs as little (a call would cost 3 ns).
 */
#ifndef PYRUNTIME_CURRENT_H
#define PYRUNTIME_CURRENT_H

#include "atomic.h"

PYRT_BEGIN_DECLS

/* The place of an OS thread in the queue of those who want to stop the world; under the registry's lock. */
typedef struct pyrt_pause_turn {
    struct pyrt_pause_turn *next;
    const void *wants;   /* what pyrt_tls_block.pause will be; NULL: not in the queue */
    int64_t awake_since; /* when it last began to look whether its turn has come; 0: it sleeps */
} pyrt_pause_turn;

/* Written by its own OS thread only. */
typedef struct pyrt_tls_block {
    pyrt_thread *current; /* the attached thread state of this OS thread, or NULL */
    uint64_t self_id;     /* the attached state's, else 0: tells in one compare whether an attached owner is here */
    uint64_t os_id;       /* unique per OS thread, never reused in this process; 0 until the thread has its first state */
    struct pyrt_reader_row *reader_row; /* where its read locks stand (rwlock.h), or NULL while they go the long way */
    const void *identity; /* what no other OS thread has or had in this process, or NULL until it needs one; no address */
    /* From here on the core's own. */
    struct pyrt_thread_impl *states;    /* all states bound to this OS thread, newest first */
    struct pyrt_ensure_frame *ensures;  /* what pyrt_thread_release restores, newest first */
    const void *pause;                  /* the interpreter that this OS thread has stopped, or the mark for all, or NULL */
    pyrt_pause_turn turn;
    uint32_t disposing;                 /* disposers that run on it, one inside of the other */
    bool reserved;                      /* the mutex of `woken_for` is reserved for this OS thread */
    struct pyrt_reader_row *own_row;    /* the same, or NULL until it needs one */
    uint32_t unlisted_reads;            /* read locks (rwlock.h) that found no place in the row */
    struct pyrt_rwlock *draining;       /* the lock whose readers it waits for as a writer, asleep, or NULL */
    const void *woken_for;              /* the mutex that it was woken for and has not looked at yet, or NULL */
    const void *seen_reserved;          /* the mutex that its last trylock found reserved, or NULL */
    int64_t seen_reserved_at;           /* when it first did */
    pyrt_interp *visited;               /* the interpreter whose readers a barrier of all waits for, or NULL */
    struct pyrt_object *unfinished;     /* objects whose destructors run on it, the innermost first */
    struct pyrt_object *dead;           /* objects that wait until a destructor further out has returned */
    uint32_t dying;                     /* destructors that run on it, one inside of the other */
} pyrt_tls_block;

PYRT_STATIC_ASSERT(offsetof(pyrt_tls_block, current) == 0, "inline code of embedding extensions reads it there");
PYRT_STATIC_ASSERT(offsetof(pyrt_tls_block, self_id) == 8, "inline code of embedding extensions reads it there");
PYRT_STATIC_ASSERT(offsetof(pyrt_tls_block, os_id) == 16, "inline code of embedding extensions reads it there");
PYRT_STATIC_ASSERT(offsetof(pyrt_tls_block, reader_row) == 24, "inline code of embedding extensions reads it there");
PYRT_STATIC_ASSERT(offsetof(pyrt_tls_block, identity) == 32, "inline code of embedding extensions reads it there");

/* PYRT_TLS is the block of the calling OS thread, as an lvalue. */
#if defined(PYRT_TLS_BLOCK)
/* A test build says where the block of its simulated thread is. */
#    define PYRT_TLS (*(PYRT_TLS_BLOCK))
#elif defined(PYRT_USE_CAPI)
static inline pyrt_tls_block *
pyrt_tls_at_offset(void)
{
    char *thread_pointer;
#    if defined(__x86_64__)
    __asm__("movq %%fs:0, %0" : "=r"(thread_pointer));
#    else
    __asm__("mrs %0, tpidr_el0" : "=r"(thread_pointer));
#    endif
    return (pyrt_tls_block *)(void *)(thread_pointer + pyrt_capi_tls_offset);
}

#    if defined(__SEG_FS) && !defined(__cplusplus) && \
        (defined(__clang__) ||                        \
         !(defined(__STRICT_ANSI__) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)))
/* The thread pointer is a segment's base: the processor adds it, and nobody need read it. GCC has no such pointers in C++, nor
 * under -std=c11, and its sanitizers take them for addresses. */
#        define PYRT_TLS (*(pyrt_tls_block __seg_fs *)(uintptr_t)pyrt_capi_tls_offset)
#    else
#        define PYRT_TLS (*pyrt_tls_at_offset())
#    endif
#else
/* Initial-exec: an address known when the object is loaded, so that no access ever calls or allocates. */
extern __thread pyrt_tls_block pyrt_tls_storage __attribute__((tls_model("initial-exec")));
#    define PYRT_TLS pyrt_tls_storage
#endif

/* Its address, where several words of it are wanted and time does not matter. The empty asm hides from the compiler how the
 * address was made: GCC 12 with -fsanitize=undefined takes the flags of that addition for its null check, and the linker may
 * replace the addition by one that sets none. */
static inline pyrt_tls_block *
pyrt_tls(void)
{
#if defined(PYRT_USE_CAPI) && !defined(PYRT_TLS_BLOCK)
    pyrt_tls_block *block = pyrt_tls_at_offset();
#else
    pyrt_tls_block *block = &PYRT_TLS;
#endif
    __asm__("" : "+r"(block));
    return block;
}

/* The long way of the inline function below; call that. */
const void *pyrt_os_thread_identity_new(void);

/* Who the calling OS thread is, as the owner of a lock: without a thread state or the runtime, and not even after its end
 * mistaken for another. Never NULL.
 * blocks: no · allocates: no · runs user code: no · quiescent: never · needs attached: no · async-signal-safe: yes */
static inline const void *
pyrt_os_thread_identity(void)
{
    const void *identity = PYRT_TLS.identity;
    return pyrt_likely(identity != NULL) ? identity : PYRT_CALL(os_thread_identity_new)();
}

PYRT_END_DECLS
#endif /* PYRUNTIME_CURRENT_H */
