/* runtime.c -- the runtime and its interpreters: counted init and fini, the list, ids and pins.
 *
 * The registry's lock guards the list of interpreters, pins and the gate of the pauses. It is the first in the order of
 * locks: an interpreter's lock may be taken under it, never the other way round.
 */
#include "platform/futex.h"
#include "platform/meta_alloc.h"
#include "platform/report.h"
#include "state/thread_impl.h"
#include "sync/lock_watch.h"
#include "sync/waiting.h"

#include <stdio.h>

pyrt_registry pyrt_the_registry;
const pyrt_stage *pyrt_stages[PYRT_STAGES];

static pyrt_registry *const registry = &pyrt_the_registry;

void
pyrt_stage_register(pyrt_stage_number number, const pyrt_stage *stage)
{
    pyrt_stages[number] = stage;
}

/* ---- making and freeing an interpreter --------------------------------------------------------------------------- */

static void
fini_stages(pyrt_interp *interp, int count)
{
    while (count-- > 0) {
        if (pyrt_stages[count] != NULL && pyrt_stages[count]->interp_fini != NULL) {
            pyrt_stages[count]->interp_fini(interp);
        }
    }
}

static bool
init_stages(pyrt_interp *interp)
{
    for (int i = 0; i < PYRT_STAGES; i++) {
        if (pyrt_stages[i] != NULL && pyrt_stages[i]->interp_init != NULL &&
            pyrt_stages[i]->interp_init(interp) != PYRT_OK) {
            fini_stages(interp, i);
            return false;
        }
    }
    return true;
}

/* Python code knows no interpreters but its own: what it makes here are domains. */
static void
set_name(pyrt_interp *interp, const char *name)
{
    const char *kind = interp->whence == PYRT_WHENCE_STDLIB ? "domain" : "interpreter";
    if (name != NULL) {
        snprintf(interp->name, sizeof(interp->name), "%s", name);
    }
    else {
        snprintf(interp->name, sizeof(interp->name), "%s %lld", kind, (long long)interp->id);
    }
}

/* Of the process, not of the runtime: objects may outlive that. */
static uint64_t
next_owners(void)
{
    static uint64_t last;
    last += last <= PYRT_OWNERS_LAST;
    return last <= PYRT_OWNERS_LAST ? last << PYRT_OWNERS_SHIFT : 0;
}

void
pyrt_interp_let_go(pyrt_interp *interp)
{
    /* seq_cst for want of less: who frees it comes after the other's last look. Pairs with itself. */
    if (pyrt_fetch_add_seq_cst(&interp->keepers, UINT32_MAX) == 1) {
        pyrt_meta_free(interp, sizeof(*interp));
    }
}

/* Makes an interpreter and links it as the newest. The caller holds the registry's lock. */
static pyrt_interp *
make_interp(const pyrt_interp_config *config, int whence)
{
    pyrt_interp *interp = pyrt_meta_alloc(sizeof(*interp));
    if (interp == NULL) {
        return NULL;
    }
    interp->keepers = 1;
    interp->id = registry->next_interp_id;
    interp->owners = next_owners();
    interp->whence = whence;
    interp->use_main_allocator = config->use_main_allocator;
    interp->free_leaked_blocks = config->free_leaked_blocks;
    set_name(interp, config->name);
    pyrt_qsbr_domain_init(&interp->domain);
    if (!init_stages(interp)) {
        pyrt_interp_let_go(interp);
        return NULL;
    }
    if (registry->global_taken) {
        /* Born into a stopped process: it has no thread, so it stands still already. */
        interp->pause = &registry->global_pause;
        interp->stopped = true;
    }
    registry->next_interp_id++;
    pyrt_interp **end = &registry->interps;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = interp;
    return interp;
}

/* Of an interpreter that is unlinked and drained. Without a lock: what is left of its heaps is reported. */
static void
free_interp(pyrt_interp *interp)
{
    fini_stages(interp, PYRT_STAGES);
    while (interp->free_threads != NULL) {
        pyrt_thread_impl *thread = interp->free_threads;
        interp->free_threads = thread->next;
        pyrt_meta_free(thread, sizeof(*thread));
    }
    pyrt_index_pool_fini(&interp->indexes);
    pyrt_interp_let_go(interp);
}

/* Marks it as ending, if nothing keeps it. The caller holds the registry's lock. */
static bool
begin_end(pyrt_interp *interp)
{
    pyrt_raw_mutex_lock(&interp->lock);
    bool free =
        interp->thread_count == 0 && interp->pins == 0 && interp->visits == 0 && !interp->gate_taken && !interp->ending;
    if (free) {
        interp->ending = true;
        interp->ender = pyrt_tls();
    }
    pyrt_raw_mutex_unlock(&interp->lock);
    return free;
}

/* The caller holds the registry's lock. */
static void
cancel_end(pyrt_interp *interp)
{
    pyrt_raw_mutex_lock(&interp->lock);
    interp->ending = false;
    pyrt_raw_mutex_unlock(&interp->lock);
}

static pyrt_status
drain(pyrt_interp *interp)
{
    for (int i = 0; i < PYRT_STAGES; i++) {
        if (pyrt_stages[i] != NULL && pyrt_stages[i]->interp_drain != NULL) {
            pyrt_status status = pyrt_stages[i]->interp_drain(interp);
            if (status != PYRT_OK) {
                return status;
            }
        }
    }
    return PYRT_OK;
}

/* ---- init and fini ----------------------------------------------------------------------------------------------- */

pyrt_status
pyrt_runtime_init(void)
{
    pyrt_status status = PYRT_OK;
    pyrt_raw_mutex_lock(&registry->lock);
    if (registry->ending) {
        status = PYRT_ESTATE;
    }
    else if (registry->users == 0) {
        status = pyrt_fork_install_handlers();
        if (status == PYRT_OK) {
            pyrt_membarrier_register();
            registry->next_interp_id = 0;
            registry->global_pause = (pyrt_pause){0};
            pyrt_interp *main = make_interp(&(pyrt_interp_config){.name = "main"}, PYRT_WHENCE_RUNTIME);
            status = main == NULL ? PYRT_ENOMEM : PYRT_OK;
            /* release: whoever finds the pointer finds the interpreter. Pairs with pyrt_interp_main. */
            pyrt_store_release(&registry->main, main);
        }
    }
    registry->users += status == PYRT_OK;
    pyrt_raw_mutex_unlock(&registry->lock);
    return status;
}

/* The last fini, first half: nothing may keep any interpreter. The caller holds the registry's lock. */
static pyrt_status
begin_end_of_all(void)
{
    if (registry->global_taken) {
        return PYRT_EBUSY;
    }
    for (pyrt_interp *interp = registry->interps; interp != NULL; interp = interp->next) {
        if (!begin_end(interp)) {
            for (pyrt_interp *undo = registry->interps; undo != interp; undo = undo->next) {
                cancel_end(undo);
            }
            return PYRT_EBUSY;
        }
    }
    registry->ending = true;
    registry->ender = pyrt_tls();
    return PYRT_OK;
}

/* Second half, without a lock: disposal runs user code. The list cannot change: the registry is ending. */
static pyrt_status
drain_all(void)
{
    pyrt_status status = PYRT_OK;
    /* The main interpreter, the oldest, takes what disposers of the others retire without a thread: it comes last. */
    for (pyrt_interp *interp = registry->interps->next; interp != NULL && status == PYRT_OK; interp = interp->next) {
        status = drain(interp);
    }
    return status == PYRT_OK ? drain(registry->main) : status;
}

/* What drain_all came to: the ends of all are taken back; or the runtime has no interpreter any more, and no user, so that the
 * child of a fork, in which this call does not go on, can begin anew. Hands out the main one, with the others behind it. */
static pyrt_interp *
unlink_all(pyrt_status drained)
{
    pyrt_interp *main = NULL;
    pyrt_raw_mutex_lock(&registry->lock);
    if (drained == PYRT_OK) {
        main = registry->main;
        registry->interps = NULL;
        pyrt_store_release(&registry->main, (pyrt_interp *)NULL);
        pyrt_slots_forget_all();
        registry->users = 0;
    }
    else {
        for (pyrt_interp *interp = registry->interps; interp != NULL; interp = interp->next) {
            cancel_end(interp);
        }
    }
    registry->ending = drained == PYRT_OK;
    pyrt_raw_mutex_unlock(&registry->lock);
    return main;
}

/* Third part, without a lock too. The main interpreter, the oldest, comes last here too: others may share its memory. */
static void
free_all(pyrt_interp *main)
{
    while (main->next != NULL) {
        pyrt_interp *interp = main->next;
        main->next = interp->next;
        free_interp(interp);
    }
    free_interp(main);
    pyrt_meta_trim();
}

pyrt_status
pyrt_runtime_fini(void)
{
    /* So that the end of this OS thread is noticed, if a disposer ends it; without memory for that it is not. */
    (void)pyrt_os_thread_register();
    pyrt_raw_mutex_lock(&registry->lock);
    if (registry->users == 0 || registry->ending) {
        pyrt_raw_mutex_unlock(&registry->lock);
        return PYRT_ESTATE;
    }
    if (registry->users > 1) {
        registry->users--;
        pyrt_raw_mutex_unlock(&registry->lock);
        return PYRT_OK;
    }
    pyrt_status status = begin_end_of_all();
    pyrt_raw_mutex_unlock(&registry->lock);
    if (status != PYRT_OK) {
        return status;
    }

    status = drain_all();
    pyrt_interp *main = unlink_all(status);
    if (main != NULL) {
        free_all(main);
        pyrt_raw_mutex_lock(&registry->lock);
        registry->ending = false;
        pyrt_raw_mutex_unlock(&registry->lock);
    }
    return status;
}

bool
pyrt_runtime_is_initialized(void)
{
    return pyrt_interp_main() != NULL;
}

/* ---- interpreters ------------------------------------------------------------------------------------------------ */

pyrt_interp *
pyrt_interp_main(void)
{
    return pyrt_load_acquire(&registry->main);
}

pyrt_interp *
pyrt_interp_of(pyrt_thread *or_null)
{
    pyrt_thread *thread = or_null != NULL ? or_null : pyrt_thread_current();
    return thread != NULL ? thread->interp : pyrt_interp_main();
}

pyrt_interp *
pyrt_interp_new(const pyrt_interp_config *or_null)
{
    static const pyrt_interp_config usual = {.struct_size = sizeof(usual), .whence = PYRT_WHENCE_CAPI};
    const pyrt_interp_config *config = or_null != NULL ? or_null : &usual;
    if (config->struct_size != sizeof(*config)) {
        return NULL;
    }
    pyrt_interp *interp = NULL;
    pyrt_raw_mutex_lock(&registry->lock);
    if (registry->users != 0 && !registry->ending) {
        interp = make_interp(config, config->whence);
    }
    pyrt_raw_mutex_unlock(&registry->lock);
    return interp;
}

static void
unlink_interp(pyrt_interp *interp)
{
    pyrt_interp **link = &registry->interps;
    while (*link != interp) {
        link = &(*link)->next;
    }
    *link = interp->next;
}

pyrt_status
pyrt_interp_delete(pyrt_interp *interp)
{
    if (interp == NULL || interp == pyrt_interp_main()) {
        return PYRT_EINVAL;
    }
    (void)pyrt_os_thread_register();
    pyrt_raw_mutex_lock(&registry->lock);
    bool free = begin_end(interp);
    pyrt_raw_mutex_unlock(&registry->lock);
    if (!free) {
        return PYRT_EBUSY;
    }
    /* From here no thread, pin or pause of it can begin, so nobody but this call knows it. */
    pyrt_status status = drain(interp);
    pyrt_raw_mutex_lock(&registry->lock);
    if (status == PYRT_OK) {
        unlink_interp(interp);
    }
    else {
        cancel_end(interp);
    }
    pyrt_raw_mutex_unlock(&registry->lock);
    if (status == PYRT_OK) {
        free_interp(interp);
    }
    return status;
}

int64_t
pyrt_interp_id(const pyrt_interp *interp)
{
    return interp->id;
}

const char *
pyrt_interp_name(const pyrt_interp *interp)
{
    return interp->name;
}

int
pyrt_interp_whence(const pyrt_interp *interp)
{
    return interp->whence;
}

/* The oldest interpreter whose id is in the range and that is not ending. The caller holds the registry's lock. */
static pyrt_interp *
find_between(int64_t first, int64_t last)
{
    pyrt_interp *interp = registry->ending ? NULL : registry->interps;
    while (interp != NULL && (interp->id < first || interp->id > last || interp->ending)) {
        interp = interp->next;
    }
    return interp;
}

pyrt_interp *
pyrt_interp_pin(int64_t id)
{
    pyrt_raw_mutex_lock(&registry->lock);
    pyrt_interp *interp = find_between(id, id);
    if (interp != NULL) {
        interp->pins++;
    }
    pyrt_raw_mutex_unlock(&registry->lock);
    return interp;
}

/* Ends the visit, if there is one, and begins the next unless `next` is NULL. The caller holds the registry's lock. */
static void
visit(pyrt_interp *next)
{
    pyrt_tls_block *tls = pyrt_tls();
    if (tls->visited != NULL) {
        tls->visited->visits--;
    }
    if (next != NULL) {
        next->visits++;
    }
    tls->visited = next;
}

pyrt_interp *
pyrt_interp_visit_next(void)
{
    const pyrt_interp *visited = pyrt_tls()->visited;
    pyrt_raw_mutex_lock(&registry->lock);
    pyrt_interp *next = find_between(visited == NULL ? 0 : visited->id + 1, INT64_MAX);
    visit(next);
    pyrt_raw_mutex_unlock(&registry->lock);
    return next;
}

void
pyrt_interp_visit_end(void)
{
    pyrt_raw_mutex_lock(&registry->lock);
    visit(NULL);
    pyrt_raw_mutex_unlock(&registry->lock);
}

pyrt_interp *
pyrt_interp_glance(int64_t id)
{
    pyrt_raw_mutex_lock(&registry->lock);
    pyrt_interp *interp = find_between(id, id);
    if (interp != NULL) {
        interp->visits++;
    }
    pyrt_raw_mutex_unlock(&registry->lock);
    return interp;
}

void
pyrt_interp_glance_end(pyrt_interp *interp)
{
    pyrt_raw_mutex_lock(&registry->lock);
    /* 0: in the child of a fork that this OS thread's report hook has made in between. */
    interp->visits -= interp->visits > 0;
    pyrt_raw_mutex_unlock(&registry->lock);
}

void
pyrt_interp_visits_fork_child(pyrt_interp *interp)
{
    interp->visits = pyrt_tls()->visited == interp;
}

void
pyrt_interp_unpin(pyrt_interp *interp)
{
    pyrt_raw_mutex_lock(&registry->lock);
    bool balanced = interp->pins > 0;
    interp->pins -= balanced;
    pyrt_raw_mutex_unlock(&registry->lock);
    if (!balanced) {
        pyrt_report("pyrt_interp_unpin: interpreter %lld has no pin", (long long)interp->id);
    }
}

size_t
pyrt_interp_list(int64_t *ids, size_t capacity)
{
    size_t count = 0;
    pyrt_raw_mutex_lock(&registry->lock);
    for (pyrt_interp *interp = registry->interps; interp != NULL; interp = interp->next) {
        if (count < capacity) {
            ids[count] = interp->id;
        }
        count++;
    }
    pyrt_raw_mutex_unlock(&registry->lock);
    return count;
}

/* ---- the end of an OS thread ------------------------------------------------------------------------------------- */

/* A disposer has ended the OS thread in the middle of an interpreter's end: what it had taken goes back. */
static void
give_up_ends(void)
{
    pyrt_raw_mutex_lock(&registry->lock);
    for (pyrt_interp *interp = registry->interps; interp != NULL; interp = interp->next) {
        if (!interp->ending || interp->ender != pyrt_tls()) {
            continue;
        }
        for (int i = 0; i < PYRT_STAGES; i++) {
            if (pyrt_stages[i] != NULL && pyrt_stages[i]->interp_give_up != NULL) {
                pyrt_stages[i]->interp_give_up(interp);
            }
        }
    }
    pyrt_ends_cancel(true);
    pyrt_raw_mutex_unlock(&registry->lock);
}

void
pyrt_ends_cancel(bool mine)
{
    for (pyrt_interp *interp = registry->interps; interp != NULL; interp = interp->next) {
        if (interp->ending && (interp->ender == pyrt_tls()) == mine) {
            interp->ending = false;
        }
    }
    if (registry->ending && (registry->ender == pyrt_tls()) == mine) {
        registry->ending = false;
    }
}

/* Whatever it left open is closed: locks reserved for it, ends of interpreters, pauses, visits, ensures, destructors, read-side
 * sections, then its states, newest first. */
static void
on_os_thread_exit(void)
{
    pyrt_tls_block *tls = pyrt_tls();
    tls->disposing = 0;
    pyrt_mutex_give_back();
    pyrt_pause_end_of_os_thread();
    pyrt_interp_visit_end();
    pyrt_ensure_drop_all();
    give_up_ends();
    for (int i = 0; i < PYRT_STAGES; i++) {
        if (pyrt_stages[i] != NULL && pyrt_stages[i]->os_thread_exit != NULL) {
            pyrt_stages[i]->os_thread_exit();
        }
    }
    while (tls->states != NULL) {
        if (tls->current != NULL) {
            tls->current->slot.read_depth = 0;
            pyrt_critical_sections_forget(tls->current);
            pyrt_detach(tls->current);
        }
        pyrt_thread_end(tls->states);
    }
    pyrt_watch_thread_ends();
    pyrt_rwlock_end_of_os_thread();
}

/* Not from init: locks use it without the runtime. */
__attribute__((constructor)) static void
set_exit_hook(void)
{
    pyrt_os_thread_set_exit_hook(on_os_thread_exit);
}
