/* test_heap_model.c -- the allocator against a simple reference: random calls, one at a time, on three OS threads that come and go.
 *
 * The reference is a list of the blocks in use: where, how large, what is in them, whose they are. After each call the block that
 * it was about is compared with it, its page's lists are walked, and now and then (in a debug build after each call) everything.
 * Calls are led (workers.h), so that a seed gives the same calls again. --break: the allocator, or its use, is broken
 * in one way, which must be noticed.
 */
#include "support.h"

#include "memory/heap_impl.h"
#include "memory/watched_page.h"
#include "workers.h"

#include <errno.h>
#include <string.h>

enum { STEPS = 10000, MOST = 400, ACTORS = 3, INTERPS = 2, HEAPS = 6, EDGE = 512 };

typedef struct source {
    pyrt_heap *heap; /* NULL: not made, or ended */
    int interp;
    bool type_stable;
} source;

/* Of a block in use. */
typedef struct entry {
    unsigned char *block;
    size_t size;
    int interp; /* -1: the process's */
    int heap; /* -1: of the process, or of a heap that was deleted */
    uint8_t tag;
    uint8_t fill;
} entry;

/* One call, and the state to be attached meanwhile: of one interpreter, or none (-1). */
typedef struct call {
    enum { MALLOC, CALLOC, ALIGNED, REALLOC, HEAP_MALLOC, HEAP_CALLOC, HEAP_ALIGNED, HEAP_REALLOC, FREE, FREE_DELAYED } what;
    int actor, attached;
    pyrt_heap *heap;
    void *block;
    size_t size, align;
    void *result;
} call;

static struct {
    pyrt_interp *interps[INTERPS];
    worker workers[ACTORS];
    pyrt_thread *threads[ACTORS][INTERPS];
    source sources[HEAPS];
    entry entries[MOST];
    int count;
    random_stream random;
} w;

static uint32_t
below(uint32_t limit)
{
    return random_below(&w.random, limit);
}

static bool
breaks(const char *what)
{
    return test_sabotage() != NULL && strcmp(test_sabotage(), what) == 0;
}

/* ---- actors ------------------------------------------------------------------------------------------------------ */

static void
make_states(void *arg)
{
    pyrt_thread **threads = arg;
    for (int i = 0; i < INTERPS; i++) {
        threads[i] = pyrt_thread_new(w.interps[i]);
        CHECK(threads[i] != NULL);
    }
}

static void
end_states(void *arg)
{
    pyrt_thread **threads = arg;
    for (int i = 0; i < INTERPS; i++) {
        pyrt_thread_delete(threads[i]);
    }
}

static void
actor_begin(int actor)
{
    worker_start(&w.workers[actor]);
    worker_do(&w.workers[actor], make_states, w.threads[actor]);
}

/* Its states end first, or with the OS thread. */
static void
actor_end(int actor)
{
    if (below(2) == 0) {
        worker_do(&w.workers[actor], end_states, w.threads[actor]);
    }
    worker_end(&w.workers[actor]);
}

static void
perform(void *arg)
{
    call *c = arg;
    pyrt_thread *thread = c->attached < 0 ? NULL : w.threads[c->actor][c->attached];
    if (thread != NULL) {
        pyrt_attach(thread);
    }
    switch (c->what) {
    case MALLOC:
        c->result = pyrt_malloc(c->size);
        break;
    case CALLOC:
        c->result = pyrt_calloc(c->size % 3 == 0 ? 3 : 1, c->size % 3 == 0 ? c->size / 3 : c->size);
        break;
    case ALIGNED:
        c->result = pyrt_aligned_alloc(c->align, c->size);
        break;
    case REALLOC:
        c->result = pyrt_realloc(c->block, c->size);
        break;
    case HEAP_MALLOC:
        c->result = pyrt_heap_malloc(thread, c->heap, c->size);
        break;
    case HEAP_CALLOC:
        c->result = pyrt_heap_calloc(thread, c->heap, 1, c->size);
        break;
    case HEAP_ALIGNED:
        c->result = pyrt_heap_aligned_alloc(thread, c->heap, c->align, c->size);
        break;
    case HEAP_REALLOC:
        c->result = pyrt_heap_realloc(thread, c->heap, c->block, c->size);
        break;
    case FREE:
        pyrt_free(c->block);
        break;
    case FREE_DELAYED: {
        pyrt_status status = pyrt_free_delayed(thread, c->block);
        CHECK(status == PYRT_OK || status == PYRT_EBUSY);
        CHECK_OK(pyrt_qsbr_barrier(thread));
        break;
    }
    }
    if (thread != NULL) {
        pyrt_safepoint(thread);
        pyrt_detach(thread);
    }
}

static void *
on_actor(call c)
{
    worker_do(&w.workers[c.actor], perform, &c);
    return c.result;
}

/* ---- the reference ----------------------------------------------------------------------------------------------- */

#define DIFFERS(...) FAIL("the allocator and the reference differ: " __VA_ARGS__)

static unsigned char
byte_at(const entry *e, size_t at)
{
    return (unsigned char)(e->fill + at * 31);
}

/* Large blocks are written and looked at at both ends only. */
static size_t
after(const entry *e, size_t at)
{
    return at + 1 == EDGE && e->size > (size_t)2 * EDGE ? e->size - EDGE : at + 1;
}

static void
fill(entry *e)
{
    e->fill = (uint8_t)random_next(&w.random);
    for (size_t at = 0; at < e->size; at = after(e, at)) {
        e->block[at] = byte_at(e, at);
    }
}

static void
check_bytes(const entry *e, size_t bytes)
{
    for (size_t at = 0; at < bytes; at = after(e, at)) {
        if (e->block[at] != byte_at(e, at)) {
            DIFFERS("byte %zu of the block of %zu bytes at %p has changed", at, e->size, (void *)e->block);
        }
    }
}

static void
check_page(const entry *e)
{
    pyrt_page *page = pyrt_map_page_of(pyrt_map_entry(e->block));
    if (page == NULL || !pyrt_page_is_sound(page) || (char *)e->block < page->head.start ||
        (char *)e->block + e->size > page->head.start + page->bytes) {
        DIFFERS("the page of the block at %p is not sound", (void *)e->block);
    }
}

static void
check_entry(const entry *e)
{
    int64_t owner = e->interp < 0 ? PYRT_OWNER_PROCESS : pyrt_interp_id(w.interps[e->interp]);
    const unsigned char *places[] = {e->block, e->block + e->size / 2, e->block + (e->size == 0 ? 0 : e->size - 1)};
    for (int i = 0; i < 3; i++) {
        if (pyrt_address_owner(places[i]) != owner) {
            DIFFERS("%p belongs to %lld", (const void *)places[i], (long long)pyrt_address_owner(places[i]));
        }
    }
    if (pyrt_usable_size(e->block) < e->size) {
        DIFFERS("%p has room for %zu bytes", (void *)e->block, pyrt_usable_size(e->block));
    }
    check_bytes(e, e->size);
}

static void
check_apart(const entry *new)
{
    size_t room = pyrt_usable_size(new->block);
    for (int i = 0; i < w.count; i++) {
        const entry *e = &w.entries[i];
        if (e != new && new->block < e->block + pyrt_usable_size(e->block) && e->block < new->block + room) {
            DIFFERS("the blocks at %p and at %p lie in one another", (void *)new->block, (void *)e->block);
        }
    }
}

/* First the blocks: what is written into one of them says more than that a page is not sound. */
static void
check_everything(void)
{
    for (int i = 0; i < w.count; i++) {
        check_entry(&w.entries[i]);
    }
    for (int i = 0; i < w.count; i++) {
        check_page(&w.entries[i]);
    }
}

typedef struct visit {
    unsigned tags;
    int interp;
    bool seen[MOST];
    int count;
} visit;

static bool
see(void *block, size_t size, uint8_t tag, void *arg)
{
    visit *v = arg;
    v->count++;
    for (int i = 0; i < w.count; i++) {
        const entry *e = &w.entries[i];
        if (e->block == block && e->interp == v->interp && e->tag == tag && !v->seen[i] && size == pyrt_usable_size(block)) {
            return v->seen[i] = true;
        }
    }
    DIFFERS("a visit comes by the block of %zu bytes at %p with tag %u", size, block, tag);
}

/* Each block in use of these tags is come by once, and nothing else. */
static void
check_visit(int interp, unsigned tags)
{
    visit v = {.tags = tags, .interp = interp};
    int expected = 0;
    for (int i = 0; i < w.count; i++) {
        expected += w.entries[i].interp == interp && (tags >> w.entries[i].tag & 1) != 0;
    }
    CHECK_OK(pyrt_stop_the_world(w.interps[interp]));
    CHECK_OK(pyrt_heap_visit(w.interps[interp], tags, see, &v));
    pyrt_start_the_world(w.interps[interp]);
    if (v.count != expected) {
        DIFFERS("a visit comes by %d blocks, not %d", v.count, expected);
    }
}

static void
forget(int at)
{
    w.entries[at] = w.entries[--w.count];
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

static size_t
random_size(void)
{
    uint32_t kind = below(200);
    return below(kind == 0 ? 6000000 : kind < 8 ? 300000 : kind < 30 ? 20000 : kind < 120 ? 1200 : 200);
}

static int
random_heap(void)
{
    int heap = (int)below(HEAPS);
    return w.sources[heap].heap == NULL ? -1 : heap;
}

static void
remember(call c, int heap, bool zero)
{
    entry *e = &w.entries[w.count];
    *e = (entry){.block = c.result, .size = c.size, .interp = heap < 0 ? -1 : w.sources[heap].interp, .heap = heap};
    e->tag = heap < 0 ? 0 : (uint8_t)heap;
    if (e->block == NULL || (uintptr_t)e->block % c.align != 0) {
        DIFFERS("%p is what %zu bytes aligned to %zu give", c.result, c.size, c.align);
    }
    for (size_t at = 0; zero && at < e->size; at++) {
        if (e->block[at] != 0) {
            DIFFERS("byte %zu of %zu zeroed ones is not", at, e->size);
        }
    }
    if (c.align == 1 && (heap < 0 || !w.sources[heap].type_stable) && pyrt_usable_size(e->block) != pyrt_good_size(c.size)) {
        DIFFERS("%zu bytes have room for %zu, not %zu", c.size, pyrt_usable_size(e->block), pyrt_good_size(c.size));
    }
    check_apart(e);
    w.count++;
    fill(e);
    check_entry(e);
    check_page(e);
}

static void
allocate(void)
{
    int heap = random_heap();
    bool aligned = below(8) == 0;
    bool zero = !aligned && below(3) == 0;
    call c = {.actor = (int)below(ACTORS), .size = random_size(), .align = 1};
    c.align = aligned ? (size_t)1 << below(below(10) == 0 ? 24 : 14) : 1;
    c.attached = heap < 0 ? (int)below(INTERPS + 1) - 1 : w.sources[heap].interp;
    c.heap = heap < 0 ? NULL : w.sources[heap].heap;
    c.what = heap < 0  ? (aligned ? ALIGNED
                          : zero  ? CALLOC
                                  : MALLOC)
             : aligned ? HEAP_ALIGNED
             : zero    ? HEAP_CALLOC
                       : HEAP_MALLOC;
    c.result = on_actor(c);
    remember(c, heap, zero);
}

static void
give_back(void)
{
    int at = (int)below((uint32_t)w.count);
    entry e = w.entries[at];
    check_entry(&e);
    call c = {.what = FREE, .actor = (int)below(ACTORS), .attached = (int)below(INTERPS + 1) - 1, .block = e.block};
    if (e.interp >= 0 && below(20) == 0) {
        c.what = FREE_DELAYED;
        c.attached = e.interp;
    }
    forget(at);
    if (!breaks("keep") || e.heap < 0) {
        on_actor(c);
    }
}

/* It keeps its bytes; whose it is then hangs on whether it moved, and on who asked. */
static void
resize(void)
{
    int at = (int)below((uint32_t)w.count);
    entry e = w.entries[at];
    int into = below(2) == 0 ? random_heap() : -1;
    call c = {
        .what = into < 0 ? REALLOC : HEAP_REALLOC, .actor = (int)below(ACTORS), .block = e.block, .size = random_size()};
    c.heap = into < 0 ? NULL : w.sources[into].heap;
    c.attached = into < 0 ? (int)below(INTERPS + 1) - 1 : w.sources[into].interp;
    size_t usable = pyrt_usable_size(e.block);
    unsigned char *result = on_actor(c);
    bool stays = c.size <= usable && c.size >= usable / 2;
    if (result == NULL || (result == e.block) != stays) {
        DIFFERS("%zu bytes with room for %zu made %zu are at %p, not %p", e.size, usable, c.size, (void *)result,
                (void *)e.block);
    }
    entry *moved = &w.entries[at];
    if (!stays && into >= 0) {
        moved->heap = into;
    }
    else if (!stays && (e.heap < 0 || c.attached != e.interp)) {
        moved->heap = -1;
    }
    if (!stays) {
        moved->interp = moved->heap < 0 ? -1 : w.sources[moved->heap].interp;
        moved->tag = moved->heap < 0 ? 0 : (uint8_t)moved->heap;
    }
    moved->block = result;
    size_t kept = e.size < c.size ? e.size : c.size;
    if (kept == e.size || kept <= EDGE) {
        check_bytes(&(entry){.block = result, .size = e.size, .fill = e.fill}, kept);
    }
    moved->size = c.size;
    check_apart(moved);
    fill(moved);
    check_entry(moved);
    check_page(moved);
}

static void
make_or_end_heap(void)
{
    int heap = (int)below(HEAPS);
    source *s = &w.sources[heap];
    if (s->heap == NULL) {
        s->interp = (int)below(INTERPS);
        s->type_stable = below(2) == 0;
        /* The tag says which one it is: blocks of a deleted one are counted with those of the next. */
        s->heap = pyrt_heap_new(w.interps[s->interp], &(pyrt_heap_config){.struct_size = sizeof(pyrt_heap_config),
                                                                          .tag = (uint8_t)heap,
                                                                          .type_stable = s->type_stable});
        CHECK(s->heap != NULL);
        return;
    }
    bool destroy = below(2) == 0;
    (destroy ? pyrt_heap_destroy : pyrt_heap_delete)(s->heap);
    s->heap = NULL;
    for (int i = w.count - 1; i >= 0; i--) {
        if (w.entries[i].heap == heap && destroy) {
            forget(i);
        }
        else if (w.entries[i].heap == heap) {
            w.entries[i].heap = -1;
        }
    }
}

static void
ask_for_the_impossible(void)
{
    call c = {.actor = (int)below(ACTORS), .attached = -1, .align = 64};
    static const size_t absurd[] = {SIZE_MAX, SIZE_MAX - 4096, (size_t)PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1,
                                    (size_t)1 << 60};
    c.size = absurd[below(5)];
    c.what = below(2) == 0 ? MALLOC : ALIGNED;
    if (on_actor(c) != NULL) {
        DIFFERS("there are %zu bytes", c.size);
    }
    if (w.count != 0) {
        c.what = REALLOC;
        c.block = w.entries[0].block;
        if (on_actor(c) != NULL) {
            DIFFERS("a block can have %zu bytes", c.size);
        }
        check_entry(&w.entries[0]);
    }
}

/* ---- what is broken ---------------------------------------------------------------------------------------------- */

/* Once, at the first block for which it can be done: a page that is its actor's has it, with more blocks free. */
static void
sabotage(void)
{
    static bool done;
    for (int i = 0; i < w.count && !done; i++) {
        entry *e = &w.entries[i];
        pyrt_page *page = pyrt_map_page_of(pyrt_map_entry(e->block));
        if (page->head.free == NULL || e->size < 100 || pyrt_page_used(page) < 2) {
            continue;
        }
        done = true;
        if (breaks("lose")) {
            page->head.free = pyrt_link_read(page, page->head.free);
        }
        else if (breaks("hand-out-twice")) {
            pyrt_link_write(page, e->block, page->head.free);
            page->head.free = e->block;
            page->head.until_slow--;
        }
        else if (breaks("scribble")) {
            e->block[e->size - 1] ^= 1;
        }
    }
}

/* ---- the test ---------------------------------------------------------------------------------------------------- */

static void
one_step(int step)
{
    uint32_t choice = below(1000);
    bool shrinking = step / 500 % 2 != 0;
    if (choice < 4) {
        int actor = (int)below(ACTORS);
        actor_end(actor);
        actor_begin(actor);
    }
    else if (choice < 20) {
        make_or_end_heap();
    }
    else if (choice < 40) {
        check_visit((int)below(INTERPS), below(2) == 0 ? UINT32_MAX : (uint32_t)random_next(&w.random));
    }
    else if (choice < 50) {
        ask_for_the_impossible();
    }
    else if (choice < 150 && w.count != 0) {
        resize();
    }
    else if (w.count == MOST || (w.count != 0 && choice < (shrinking ? 650u : 500u))) {
        give_back();
    }
    else {
        allocate();
    }
}

static void
compare(void)
{
    memset(&w, 0, sizeof(w));
    runtime_up();
    w.random = random_for(1);
    /* One that shares the main one's memory, and one with its own. */
    w.interps[0] =
        pyrt_interp_new(&(pyrt_interp_config){.struct_size = sizeof(pyrt_interp_config), .use_main_allocator = 1});
    w.interps[1] = pyrt_interp_new(NULL);
    for (int actor = 0; actor < ACTORS; actor++) {
        actor_begin(actor);
    }
    for (int step = 0; step < STEPS * (int)test_scale(); step++) {
        one_step(step);
        if (test_sabotage() != NULL && step > 300) {
            sabotage();
        }
#ifdef PYRT_DEBUG
        bool is_due = true;
#else
        /* What is broken is looked at before the next steps do away with it. */
        bool is_due = test_sabotage() != NULL || step % 50 == 0;
#endif
        if (is_due) {
            check_everything();
        }
    }
    while (w.count != 0) {
        give_back();
    }
    for (int interp = 0; interp < INTERPS; interp++) {
        check_visit(interp, UINT32_MAX);
    }
    for (int actor = 0; actor < ACTORS; actor++) {
        actor_end(actor);
    }
    for (int interp = 0; interp < INTERPS; interp++) {
        CHECK_OK(pyrt_interp_delete(w.interps[interp]));
    }
    runtime_down();
}

TEST(the_allocator_does_what_the_reference_does)
{
    compare();
}

TEST(so_it_does_when_pages_are_watched)
{
    CHECK_OK(pyrt_heap_debug(PYRT_HEAP_DEBUG_CHECK | PYRT_HEAP_DEBUG_FILL));
    compare();
    CHECK_OK(pyrt_heap_debug(0));
}
