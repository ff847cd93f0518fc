/* mills.h -- what the tests of fork have running, and what their children check.
 *
 * A mill is a thread that makes items, retires them and passes safepoints, until it is told to stop. It counts each item
 * before and after it retires it, so that the child of a fork, which finds the counts as they were, knows how many items
 * there must be: exactly, if the world was stopped; give or take the one that each mill had in its hands, if it was not.
 */
#ifndef TESTS_C_MILLS_H
#define TESTS_C_MILLS_H

#include "support.h"
#include "workers.h"

#include <sys/types.h>

#if defined(__SANITIZE_THREAD__)
#    define UNDER_TSAN 1
#elif defined(__has_feature)
#    if __has_feature(thread_sanitizer)
#        define UNDER_TSAN 1
#    endif
#endif

#if defined(__SANITIZE_ADDRESS__)
#    define UNDER_ASAN 1
#elif defined(__has_feature)
#    if __has_feature(address_sanitizer)
#        define UNDER_ASAN 1
#    endif
#endif

/* The allocators of the sanitizers are not safe to use in the child of a fork that came while another thread was in them. */
#if defined(UNDER_ASAN) || defined(UNDER_TSAN)
#    define MALLOC_SURVIVES_RAW_FORK 0
#else
#    define MALLOC_SURVIVES_RAW_FORK 1
#endif

/* ---- items --------------------------------------------------------------------------------------------------------- */

enum { ALIVE = 0x11ce, DEAD = 0xdead, MILLS = 3, POOL = 4096 };

typedef struct item {
    pyrt_retire_node node;
    uint32_t canary;
    bool from_pool;
} item;

/* Disposers: they check that the item is alive, and count. */
void dispose(void *thing);
void dispose_node(pyrt_retire_node *node);

/* In one of four forms. */
void retire_item(pyrt_thread *or_null, item *thing, uint32_t form);

/* ---- mills --------------------------------------------------------------------------------------------------------- */

/* Of one mill, written by it alone. */
typedef struct mill {
    uint64_t begun;    /* items that it was about to retire */
    uint64_t retired;  /* items that it has retired */
    item pool[POOL];
    worker w;
} mill;

typedef struct mill_works {
    mill mills[MILLS];
    int stop;
    bool use_malloc;
    bool attached_only;      /* so that a stopped world has nobody in the middle of retiring */
    uint64_t disposed;
    uint64_t retired_by_others;
    uint64_t retired_before; /* what the statistics counted in earlier generations */
} mill_works;

extern mill_works works;

void mills_up(bool use_malloc, bool attached_only);
void mills_down(void);

/* Lets the mills get on, so that each fork finds them elsewhere: all of them, so that none is still being born. */
void wait_for_some_work(void);

uint64_t all_begun(void);
uint64_t all_retired(void);

/* ---- children ------------------------------------------------------------------------------------------------------ */

/* Retires 300 items with a state, and 300 without, each on a thread of the child's own. ThreadSanitizer cannot start threads
 * in such a child, which then does the work itself. */
void use_threads_in_the_child(void);

/* Ends a hanging child by a signal, instead of letting it hold up its parent. */
void guard_the_child(void);

/* In the parent: the child must have ended well. */
void wait_for_child(pid_t pid);

/* Forks; in the child runs `check` and ends it, in the parent waits for it. */
void in_a_child(pid_t (*how)(void), void (*check)(void));

#endif
