/* lock_order.c -- which lock was held when which other one was asked for, as a graph, and its cycles.
 *
 * Invariant: the graph has an order from -> to for every pair that was seen and not forgotten. An order is added once, and
 * only then a way back is looked for, so that a cycle is found by the order that closes it, and not again.
 *
 * A lock of a class is stood for by its class, but among locks of the same class by itself. Guarded by pyrt_watch.lock.
 */
#include "sync/lock_tables.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- locks ----------------------------------------------------------------------------------------------------------- */

static uint32_t *
head_of(watch_tables *t, const void *address)
{
    return &t->lock_heads[((uint64_t)(uintptr_t)address * 0x9E3779B97F4A7C15u) >> 52];
}

uint32_t
pyrt_watch_find_lock(watch_tables *t, const void *address)
{
    uint32_t i = *head_of(t, address);
    while (i != 0 && t->locks[i].address != address) {
        i = t->locks[i].next;
    }
    t->locks[i].used = true;
    return i;
}

static uint32_t
find_class(watch_tables *t, const char *name)
{
    /* Their chain is that of the address NULL. */
    uint32_t i = *head_of(t, NULL);
    while (i != 0 && (t->locks[i].address != NULL || strcmp(t->locks[i].name, name) != 0)) {
        i = t->locks[i].next;
    }
    return i;
}

static void
drop_orders_from(watch_tables *t, watched_lock *lock)
{
    while (lock->orders != 0) {
        uint32_t order = lock->orders;
        lock->orders = t->orders[order].next;
        t->orders[order] = (watched_order){.next = t->orders_pool.free};
        t->orders_pool.free = order;
    }
}

void
pyrt_watch_remove_lock(watch_tables *t, uint32_t lock)
{
    watched_lock *l = &t->locks[lock];
    uint32_t *link = head_of(t, l->address);
    while (*link != lock) {
        link = &t->locks[*link].next;
    }
    *link = l->next;
    drop_orders_from(t, l);
    *l = (watched_lock){.generation = l->generation + 1, .next = t->locks_pool.free};
    t->locks_pool.free = lock;
}

/* The hand of a clock goes round, and takes the first that nobody holds and nobody has asked about since it came by last.
 * Classes stay: there are no more of them than names. */
static uint32_t
forget_one_lock(watch_tables *t)
{
    for (uint32_t tries = 0; tries < 2 * PYRT_LOCK_DEBUG_LOCKS; tries++) {
        t->locks_pool.hand = t->locks_pool.hand % (PYRT_LOCK_DEBUG_LOCKS - 1) + 1;
        watched_lock *l = &t->locks[t->locks_pool.hand];
        if (l->live && l->address != NULL && l->holds == 0 && !l->used) {
            pyrt_watch_remove_lock(t, t->locks_pool.hand);
            return t->locks_pool.hand;
        }
        l->used = false;
    }
    return 0;
}

static uint32_t
new_lock(watch_tables *t, const void *address, watch_lines *lines)
{
    if (t->locks_pool.free == 0 && t->locks_pool.used == PYRT_LOCK_DEBUG_LOCKS - 1) {
        pyrt_watch_forgot(t, lines, "locks", PYRT_LOCK_DEBUG_LOCKS);
        if (forget_one_lock(t) == 0) {
            return 0;
        }
    }
    uint32_t lock = t->locks_pool.free;
    if (lock != 0) {
        t->locks_pool.free = t->locks[lock].next;
    }
    else {
        lock = ++t->locks_pool.used;
    }
    uint32_t *head = head_of(t, address);
    t->locks[lock] = (watched_lock){
        .address = address, .next = *head, .generation = t->locks[lock].generation, .live = true, .used = true};
    *head = lock;
    return lock;
}

/* Gives a lock its name, and its class if it has one. */
static void
name_lock(watch_tables *t, uint32_t lock, const char *name, uint32_t class)
{
    memcpy(t->locks[lock].name, name, PYRT_LOCK_NAME);
    t->locks[lock].class = class;
}

static uint32_t
class_of(watch_tables *t, const char *name, watch_lines *lines)
{
    uint32_t class = find_class(t, name);
    if (class == 0) {
        class = new_lock(t, NULL, lines);
        if (class != 0) {
            name_lock(t, class, name, 0);
        }
    }
    return class;
}

uint32_t
pyrt_watch_make_lock(watch_tables *t, const void *address, watch_lines *lines)
{
    uint32_t lock = pyrt_watch_find_lock(t, address);
    if (lock != 0) {
        return lock;
    }
    char name[PYRT_LOCK_NAME];
    char class_name[PYRT_LOCK_NAME];
    uint32_t class = pyrt_watch_name(address, name, class_name) ? class_of(t, class_name, lines) : 0;
    lock = new_lock(t, address, lines);
    if (lock != 0) {
        name_lock(t, lock, name, class);
    }
    return lock;
}

void
pyrt_watch_reset_lock(watch_tables *t, uint32_t lock)
{
    watched_lock *l = &t->locks[lock];
    drop_orders_from(t, l);
    l->generation++;
    l->slept_attached = false;
    char name[PYRT_LOCK_NAME];
    char class_name[PYRT_LOCK_NAME];
    bool has_class = pyrt_watch_name(l->address, name, class_name);
    /* Nobody can be told here that the tables are full; the lock then stands for itself. */
    watch_lines unread = {.count = WATCH_LINES};
    /* Not to be the one that goes, if one has to. */
    l->holds++;
    name_lock(t, lock, name, has_class ? class_of(t, class_name, &unread) : 0);
    l->holds--;
}

/* ---- orders ---------------------------------------------------------------------------------------------------------- */

static bool
is_true_still(const watch_tables *t, const watched_order *order)
{
    return t->locks[order->to].live && t->locks[order->to].generation == order->to_generation;
}

/* The order from -> to, or 0. Drops those on its way that are not true any more. */
static uint32_t
find_order(watch_tables *t, uint32_t from, uint32_t to)
{
    uint32_t *link = &t->locks[from].orders;
    while (*link != 0) {
        uint32_t order = *link;
        if (!is_true_still(t, &t->orders[order])) {
            *link = t->orders[order].next;
            t->orders[order] = (watched_order){.next = t->orders_pool.free};
            t->orders_pool.free = order;
            continue;
        }
        if (t->orders[order].to == to) {
            return order;
        }
        link = &t->orders[order].next;
    }
    return 0;
}

/* Orders are taken in turn, so that the next one is the oldest. */
static uint32_t
forget_one_order(watch_tables *t)
{
    t->orders_pool.hand = t->orders_pool.hand % (PYRT_LOCK_DEBUG_ORDERS - 1) + 1;
    uint32_t order = t->orders_pool.hand;
    uint32_t *link = &t->locks[t->orders[order].from].orders;
    while (*link != order) {
        link = &t->orders[*link].next;
    }
    *link = t->orders[order].next;
    return order;
}

static void
new_order(watch_tables *t, uint32_t from, uint32_t to, const watched_thread *thread, watch_lines *lines)
{
    uint32_t order = t->orders_pool.free;
    if (order != 0) {
        t->orders_pool.free = t->orders[order].next;
    }
    else if (t->orders_pool.used < PYRT_LOCK_DEBUG_ORDERS - 1) {
        order = ++t->orders_pool.used;
    }
    else {
        pyrt_watch_forgot(t, lines, "pairs of locks", PYRT_LOCK_DEBUG_ORDERS);
        order = forget_one_order(t);
    }
    watched_order *o = &t->orders[order];
    *o = (watched_order){.from = from,
                         .to = to,
                         .to_generation = t->locks[to].generation,
                         .next = t->locks[from].orders,
                         .os_tid = thread->os_tid};
    memcpy(o->thread_name, thread->name, sizeof(o->thread_name) - 1);
    t->locks[from].orders = order;
    t->stats.orders++;
}

/* ---- cycles ---------------------------------------------------------------------------------------------------------- */

/* Breadth first, so that the shortest way is found; leaves it in `parent`, backwards. */
static bool
leads_to(watch_tables *t, uint32_t start, uint32_t goal)
{
    uint32_t search = ++t->searches;
    uint32_t first = 0, last = 0;
    t->queue[last++] = start;
    t->locks[start].search = search;
    t->locks[start].parent = 0;
    while (first < last) {
        uint32_t from = t->queue[first++];
        if (from == goal) {
            return true;
        }
        for (uint32_t order = t->locks[from].orders; order != 0; order = t->orders[order].next) {
            watched_lock *to = &t->locks[t->orders[order].to];
            if (to->search != search && is_true_still(t, &t->orders[order])) {
                to->search = search;
                to->parent = from;
                t->queue[last++] = t->orders[order].to;
            }
        }
    }
    return false;
}

__attribute__((format(printf, 3, 4))) static size_t
append(char line[WATCH_LINE], size_t length, const char *format, ...)
{
    if (length >= WATCH_LINE) {
        return length;
    }
    va_list args;
    va_start(args, format);
    int more = vsnprintf(line + length, WATCH_LINE - length, format, args);
    va_end(args);
    return length + (size_t)(more < 0 ? 0 : more);
}

/* "'a' -> 'b' -> 'a'": what is held comes before what is asked for then. The way is from `asked` to `held`, backwards. */
static void
say_cycle(watch_tables *t, uint32_t held, uint32_t asked, const watched_thread *thread, watch_lines *lines)
{
    uint32_t way[PYRT_LOCK_DEBUG_THREADS];
    size_t count = 0;
    for (uint32_t i = held; i != 0 && count < PYRT_LOCK_DEBUG_THREADS; i = t->locks[i].parent) {
        way[count++] = i;
    }
    char line[WATCH_LINE];
    size_t length = append(line, 0, "lock order cycle: ");
    for (size_t i = count; i-- > 0;) {
        length = append(line, length, "'%s' -> ", t->locks[way[i]].name);
    }
    length = append(line, length, "'%s'; thread '%s' (%d) holds '%s' and asks for '%s'", t->locks[asked].name, thread->name,
                    thread->os_tid, t->locks[held].name, t->locks[asked].name);
    for (size_t i = count; i-- > 1;) {
        const watched_order *order = &t->orders[find_order(t, way[i], way[i - 1])];
        length = append(line, length, "; earlier thread '%s' (%d) held '%s' and asked for '%s'", order->thread_name,
                        order->os_tid, t->locks[way[i]].name, t->locks[way[i - 1]].name);
    }
    pyrt_watch_say(lines, "%s", line);
}

void
pyrt_watch_add_order(watch_tables *t, uint32_t held, uint32_t asked, const watched_thread *thread, watch_lines *lines)
{
    uint32_t class_held = t->locks[held].class;
    uint32_t class_asked = t->locks[asked].class;
    uint32_t from = held;
    uint32_t to = asked;
    if (class_held == 0 || class_held != class_asked) {
        from = class_held != 0 ? class_held : held;
        to = class_asked != 0 ? class_asked : asked;
    }
    if (find_order(t, from, to) != 0) {
        return;
    }
    if (leads_to(t, to, from)) {
        t->stats.cycles++;
        say_cycle(t, from, to, thread, lines);
    }
    new_order(t, from, to, thread, lines);
}
