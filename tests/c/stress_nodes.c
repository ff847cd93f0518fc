/* stress_nodes.c -- see stress_nodes.h. */
#include "stress_nodes.h"

#include "platform/meta_alloc.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { ALIVE = 0xa11fe, POISON = 0xdead };

/* What a disposer does besides: bits of `manners`. */
enum { RETIRES_ANOTHER = 1, DETACHES = 2, PASSES_A_SAFEPOINT = 4, TRIES_WHAT_IS_REFUSED = 8 };

stress_world world;

/* ---- the dead, before their memory is used again -------------------------------------------------------------------- */

enum { KEPT = 512 };

static struct {
    pthread_mutex_t lock;
    stress_node *nodes[KEPT];
    size_t next;
} morgue = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void
bury(stress_node *node)
{
    pthread_mutex_lock(&morgue.lock);
    stress_node *oldest = morgue.nodes[morgue.next];
    morgue.nodes[morgue.next] = node;
    morgue.next = (morgue.next + 1) % KEPT;
    pthread_mutex_unlock(&morgue.lock);
    free(oldest);
}

static void
empty_the_morgue(void)
{
    for (size_t i = 0; i < KEPT; i++) {
        free(morgue.nodes[i]);
        morgue.nodes[i] = NULL;
    }
}

/* ---- disposal ------------------------------------------------------------------------------------------------------ */

static stress_node *
plain_node(void)
{
    stress_node *node = calloc(1, sizeof(*node));
    CHECK(node != NULL);
    pyrt_store_relaxed(&node->canary, (uint64_t)ALIVE);
    pyrt_fetch_add_relaxed(&world.alive, (uint64_t)1);
    return node;
}

static void
behave(uint32_t manners)
{
    pyrt_thread *thread = pyrt_thread_current();
    if (manners & RETIRES_ANOTHER) {
        (void)node_retire(thread, plain_node(), BY_VALUE, 64);
    }
    if (thread == NULL) {
        return;
    }
    if (manners & DETACHES) {
        pyrt_detach(thread);
        pyrt_attach(thread);
    }
    if (manners & PASSES_A_SAFEPOINT) {
        pyrt_safepoint(thread);
    }
    if (manners & TRIES_WHAT_IS_REFUSED) {
        CHECK_UINT(pyrt_process_delayed(thread), 0);
        CHECK_STATUS(pyrt_qsbr_barrier(thread), PYRT_EDEADLK);
    }
}

static void
dispose(void *p)
{
    stress_node *node = p;
    uint32_t manners = node->manners;
    node_check(node);
    pyrt_store_relaxed(&node->canary, (uint64_t)POISON);
    pyrt_fetch_add_relaxed(&world.disposed[node->book], (uint64_t)1);
    pyrt_fetch_add_relaxed(&world.alive, (uint64_t)-1);
    if (node->also_count != NULL) {
        pyrt_fetch_add_seq_cst(node->also_count, 1);
    }
    bury(node);
    behave(manners);
}

static void
dispose_call(void *p, void *arg)
{
    CHECK_PTR(arg, &world);
    dispose(p);
}

static void
dispose_node(pyrt_retire_node *embedded)
{
    dispose(embedded);
}

/* ---- nodes and cells ------------------------------------------------------------------------------------------------- */

stress_node *
node_new(random_stream *choices)
{
    stress_node *node = plain_node();
    if (random_below(choices, 8) == 0) {
        node->manners = random_below(choices, 16);
    }
    return node;
}

void
node_check(const stress_node *node)
{
    uint64_t canary = pyrt_load_relaxed(&node->canary);
    if (canary != ALIVE) {
        FAIL("a node that was disposed of is looked at: its canary is %" PRIx64, canary);
    }
}

int
group_of(const pyrt_thread *or_null)
{
    if (or_null == NULL) {
        return 0;
    }
    for (int i = 0; i < GROUPS; i++) {
        if (world.groups[i] == or_null->interp) {
            return i;
        }
    }
    return PASSING;
}

static bool
sabotage_is(const char *what)
{
    return test_sabotage() != NULL && strcmp(test_sabotage(), what) == 0;
}

pyrt_status
node_retire(pyrt_thread *or_null, stress_node *node, retire_form form, size_t bytes)
{
    pyrt_thread *counting = or_null != NULL ? or_null : pyrt_thread_current();
    if (form == FOR_ALL && sabotage_is("wrong-readers")) {
        form = BY_VALUE;
    }
    node->book = form == FOR_ALL ? 0 : group_of(counting);
    uint64_t number = pyrt_fetch_add_relaxed(&world.retired[node->book], (uint64_t)1);
    if (sabotage_is("free-early")) {
        node->manners = 0;
        dispose(node);
        return PYRT_OK;
    }
    if (sabotage_is("lose-one") && number == 500) {
        return PYRT_OK;
    }
    pyrt_status status = PYRT_OK;
    switch (form) {
    case BY_VALUE:
        status = pyrt_retire(or_null, node, bytes, dispose);
        break;
    case BY_CALL:
        status = pyrt_retire_call(or_null, dispose_call, node, &world, bytes);
        break;
    case FOR_ALL:
        status = pyrt_retire_global(node, bytes, dispose);
        break;
    default:
        pyrt_retire_node(or_null, &node->embedded, bytes, dispose_node);
        break;
    }
    if (status == PYRT_ENOMEM && world.short_of_memory) {
        if (form == FOR_ALL) {
            /* There is no embedded form for all: it is asked again until it is taken. */
            while ((status = pyrt_retire_global(node, bytes, dispose)) == PYRT_ENOMEM) {
            }
            return status;
        }
        pyrt_retire_node(or_null, &node->embedded, bytes, dispose_node);
        return PYRT_EBUSY;
    }
    CHECK(status == PYRT_OK || status == PYRT_EBUSY);
    return status;
}

stress_node *
cell_replace(int cells, random_stream *choices)
{
    stress_node **cell = &world.cells[cells][random_below(choices, CELLS)];
    return pyrt_exchange_seq_cst(cell, node_new(choices));
}

stress_node *
cell_read(int cells, random_stream *choices)
{
    return pyrt_load_acquire(&world.cells[cells][random_below(choices, CELLS)]);
}

/* ---- begin and end --------------------------------------------------------------------------------------------------- */

static random_stream fault_choices;

static bool
fail_now_and_then(void *unused)
{
    (void)unused;
    return random_below(&fault_choices, 6) == 0;
}

/* A bound may be passed while a reader is slow; the library says so, and nothing else. */
static void
expect_stalls_only(const char *message, void *unused)
{
    (void)unused;
    if (strstr(message, "holds up the grace period") == NULL) {
        FAIL("reported: '%s'", message);
    }
}

void
world_begin(bool short_of_memory)
{
    memset(&world, 0, sizeof(world));
    random_stream choices = random_for(UINT64_MAX);
    runtime_up();
    pyrt_set_report_hook(expect_stalls_only, NULL);
    world.groups[0] = pyrt_interp_main();
    for (int i = 1; i < GROUPS; i++) {
        world.groups[i] = pyrt_interp_new(NULL);
        CHECK_OK(pyrt_retire_set_bound(world.groups[i], 2000, 400 * 1024));
    }
    for (int i = 0; i <= GROUPS; i++) {
        for (int k = 0; k < CELLS; k++) {
            world.cells[i][k] = node_new(&choices);
        }
    }
    world.short_of_memory = short_of_memory;
    if (short_of_memory) {
        fault_choices = random_for(UINT64_MAX - 1);
        pyrt_meta_set_fault(fail_now_and_then, NULL);
    }
}

/* What the cells still hold is retired as well, so that nothing is left out of the books. */
static void
empty_the_cells(void)
{
    for (int i = 0; i <= GROUPS; i++) {
        pyrt_thread *thread = i < GROUPS ? pyrt_thread_ensure(world.groups[i]) : NULL;
        for (int k = 0; k < CELLS; k++) {
            (void)node_retire(thread, world.cells[i][k], i < GROUPS ? BY_VALUE : FOR_ALL, 0);
        }
        if (thread != NULL) {
            pyrt_thread_release(thread);
        }
    }
}

static void
check_books(void)
{
    for (int i = 0; i < BOOKS; i++) {
        CHECK_UINT(world.disposed[i], world.retired[i]);
    }
    CHECK_UINT(world.alive, 0);
    for (int i = 0; i < GROUPS; i++) {
        CHECK_UINT(stat_of(world.groups[i], "retired"), world.retired[i]);
        CHECK_UINT(stat_of(world.groups[i], "disposed"), world.disposed[i]);
        CHECK_UINT(stat_of(world.groups[i], "pending_items"), 0);
        CHECK_UINT(stat_of(world.groups[i], "pending_bytes"), 0);
        CHECK_UINT(pyrt_thread_list(world.groups[i], NULL, 0), 0);
    }
    CHECK_UINT(pyrt_interp_list(NULL, 0), GROUPS);
}

void
world_end(void)
{
    pyrt_meta_set_fault(NULL, NULL);
    empty_the_cells();
    /* Disposers retire once more, into any group: one round finds what the round before it made. */
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < GROUPS; i++) {
            pyrt_thread *thread = pyrt_thread_ensure(world.groups[i]);
            CHECK_OK(pyrt_qsbr_barrier(thread));
            pyrt_thread_release(thread);
        }
    }
    check_books();
    runtime_down();
    empty_the_morgue();
}
