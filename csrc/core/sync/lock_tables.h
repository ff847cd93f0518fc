/* lock_tables.h -- the tables of lock debugging. All of them are guarded by pyrt_watch.lock, a leaf: under it nothing is
 * called that locks, allocates or reports. An index of 0 is none; a table's entry 0 is not used.
 */
#ifndef PYRT_SYNC_LOCK_TABLES_H
#define PYRT_SYNC_LOCK_TABLES_H

#include "platform/raw_mutex.h"
#include "sync/lock_watch.h"

#include <pyruntime/lock_debug.h>

enum {
    WATCH_HASH = 4096, /* heads of the chains of locks */
    WATCH_THREAD_HASH = 256,
    WATCH_THREAD_NAME = 32,
    WATCH_LINE = 512,
    WATCH_LINES = 4 /* reports of one call; more cycles at once are found, and counted, but not printed */
};

/* A lock, or a class of locks. */
typedef struct watched_lock {
    const void *address; /* of a lock, else NULL */
    char name[PYRT_LOCK_NAME];
    uint32_t class; /* the lock's, or 0 */
    uint32_t next; /* of its chain; of the free ones */
    uint32_t generation; /* counts its lives: an order from or to an earlier one is not true any more */
    uint32_t orders; /* what was asked for while it was held, newest first */
    uint32_t holds;
    uint32_t search, parent; /* of the search that saw it last */
    bool live, used; /* used: since the hand of the clock passed */
    bool slept_attached; /* has been reported */
} watched_lock;

/* `from` was held when `to` was asked for. */
typedef struct watched_order {
    uint32_t from, to;
    uint32_t to_generation;
    uint32_t next; /* of the same `from`; of the free ones */
    int32_t os_tid; /* the first thread that did it */
    char thread_name[16]; /* all that the kernel keeps */
} watched_order;

typedef struct watched_hold {
    uint32_t lock, thread;
    uint32_t next; /* of the thread, newest first; of the free ones */
    bool suspendable;
    int64_t since;
} watched_hold;

/* Is here while it holds or waits. */
typedef struct watched_thread {
    uint64_t os_id; /* 0: not in use */
    uint32_t next; /* of its chain; of the free ones */
    uint32_t holds;
    int32_t os_tid;
    bool attached;
    const void *waits_for; /* or NULL */
    int64_t waits_since;
    char name[WATCH_THREAD_NAME];
} watched_thread;

/* Entries that were never used come after `used`; those given back are chained by their `next`. */
typedef struct watch_pool {
    uint32_t used, free, hand;
} watch_pool;

typedef struct watch_tables {
    watch_pool locks_pool, orders_pool, holds_pool, threads_pool;
    uint32_t searches;
    bool said_full;
    pyrt_lock_debug_stats stats;
    uint32_t lock_heads[WATCH_HASH];
    uint32_t thread_heads[WATCH_THREAD_HASH];
    uint32_t queue[PYRT_LOCK_DEBUG_LOCKS]; /* of a search */
    watched_lock locks[PYRT_LOCK_DEBUG_LOCKS];
    watched_hold holds[PYRT_LOCK_DEBUG_HOLDS];
    watched_thread threads[PYRT_LOCK_DEBUG_THREADS];
    watched_order orders[PYRT_LOCK_DEBUG_ORDERS];
} watch_tables;

extern struct pyrt_watch_state {
    pyrt_raw_mutex lock;
    watch_tables *tables; /* NULL while it is off */
    int64_t bound;
} pyrt_watch;

/* What is to be reported when the lock is let go. */
typedef struct watch_lines {
    int count;
    char text[WATCH_LINES][WATCH_LINE];
} watch_lines;

void pyrt_watch_say(watch_lines *lines, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A thing was forgotten, or cannot be followed. */
void pyrt_watch_forgot(watch_tables *t, watch_lines *lines, const char *what, unsigned room);

/* ---- lock_names.c --------------------------------------------------------------------------------------------------- */

/* The name of a lock; its address where it has none. True, with the name of the class, if it is one of a class. */
bool pyrt_watch_name(const void *lock, char name[PYRT_LOCK_NAME], char class[PYRT_LOCK_NAME]);

/* ---- lock_order.c --------------------------------------------------------------------------------------------------- */

/* 0: there is none, or no room for it. */
uint32_t pyrt_watch_find_lock(watch_tables *t, const void *address);
uint32_t pyrt_watch_make_lock(watch_tables *t, const void *address, watch_lines *lines);

/* It goes on with its name, but without what was true of it. */
void pyrt_watch_reset_lock(watch_tables *t, uint32_t lock);
void pyrt_watch_remove_lock(watch_tables *t, uint32_t lock);

/* Remembers that the thread asks for a lock while it holds another, and says so if that closes a cycle. */
void pyrt_watch_add_order(watch_tables *t, uint32_t held, uint32_t asked, const watched_thread *thread, watch_lines *lines);

/* ---- lock_holds.c --------------------------------------------------------------------------------------------------- */

/* The entry of the calling thread, or 0. make: with a new one if there is room. */
uint32_t pyrt_watch_find_thread(watch_tables *t);
uint32_t pyrt_watch_make_thread(watch_tables *t, watch_lines *lines);

/* If it neither holds nor waits any more. */
void pyrt_watch_drop_thread(watch_tables *t, uint32_t thread);

bool pyrt_watch_add_hold(watch_tables *t, uint32_t lock, uint32_t thread, watch_lines *lines);

/* The hold of a lock by a thread, or by any thread if that is 0; 0: none. */
uint32_t pyrt_watch_find_hold(const watch_tables *t, uint32_t lock, uint32_t thread);
void pyrt_watch_end_hold(watch_tables *t, uint32_t hold);

/* All holds of a lock end without an unlock. */
void pyrt_watch_lose_holds(watch_tables *t, uint32_t lock);

#endif
