/* thread.c -- birth and end of thread states.
 *
 * A state is claimed from its interpreter's free ones, or made; its slot is in the domain for good from then on, with the
 * word SHUTTING_DOWN while nobody uses it. It becomes visible to pauses and barriers when it is linked, and it ends in one
 * step under the interpreter's lock: unlinked, uncounted, its word SHUTTING_DOWN again.
 */
#include "platform/meta_alloc.h"
#include "platform/report.h"
#include "state/thread_impl.h"

#include <stdio.h>
#include <string.h>

/* Never reused in the process. */
static uint64_t next_thread_id = 1;

/* ---- birth ------------------------------------------------------------------------------------------------------- */

/* In and out of the list of those being born, or of those alive. The caller holds the interpreter's lock. */
static void
link_into(pyrt_thread_impl **list, pyrt_thread_impl *thread)
{
    thread->previous = NULL;
    thread->next = *list;
    if (*list != NULL) {
        (*list)->previous = thread;
    }
    *list = thread;
}

static void
unlink_from(pyrt_thread_impl **list, pyrt_thread_impl *thread)
{
    if (thread->previous != NULL) {
        thread->previous->next = thread->next;
    }
    else {
        *list = thread->next;
    }
    if (thread->next != NULL) {
        thread->next->previous = thread->previous;
    }
}

/* A state with slot and index, among those being born. */
static pyrt_status
claim(pyrt_interp *interp, pyrt_thread_impl **out)
{
    pyrt_raw_mutex_lock(&interp->lock);
    pyrt_status status = interp->ending ? PYRT_ESTATE : PYRT_ENOMEM;
    pyrt_thread_impl *thread = interp->free_threads;
    int32_t index = interp->ending ? -1 : pyrt_index_reserve(&interp->indexes);
    if (index >= 0 && thread != NULL) {
        interp->free_threads = thread->next;
    }
    else if (index >= 0) {
        thread = pyrt_meta_alloc(sizeof(*thread));
        if (thread != NULL) {
            thread->base.slot.word = PYRT_STATE_SHUTTING_DOWN;
            thread->base.slot.sequence = &pyrt_qsbr_sequence.value;
            thread->base.interp = interp;
            pyrt_qsbr_add_slot(&interp->domain, &thread->base.slot);
        }
        else {
            pyrt_index_release(&interp->indexes, index);
            index = -1;
        }
    }
    if (index >= 0) {
        /* Counted from here on: the interpreter cannot end before the state is alive, or given up. */
        interp->thread_count++;
        thread->base.index = index;
        thread->base.os_id = pyrt_tls()->os_id;
        link_into(&interp->births, thread);
    }
    pyrt_raw_mutex_unlock(&interp->lock);
    *out = thread;
    return index >= 0 ? PYRT_OK : status;
}

/* The other way round: what it has counted is the interpreter's now. The caller holds the interpreter's lock. */
static void
unclaim(pyrt_thread_impl *thread)
{
    pyrt_interp *interp = thread->base.interp;
    pyrt_qsbr_stats_add(&interp->stats, &thread->stats);
    thread->stats = (pyrt_qsbr_stats){0};
    pyrt_index_release(&interp->indexes, thread->base.index);
    thread->next = interp->free_threads;
    interp->free_threads = thread;
    interp->thread_count--;
}

static void
fini_stages(pyrt_thread_impl *thread, int count)
{
    while (count-- > 0) {
        if (pyrt_stages[count] != NULL && pyrt_stages[count]->thread_fini != NULL) {
            pyrt_stages[count]->thread_fini(thread);
        }
    }
}

static bool
init_stages(pyrt_thread_impl *thread)
{
    for (int i = 0; i < PYRT_STAGES; i++) {
        if (pyrt_stages[i] != NULL && pyrt_stages[i]->thread_init != NULL &&
            pyrt_stages[i]->thread_init(thread) != PYRT_OK) {
            fini_stages(thread, i);
            return false;
        }
    }
    return true;
}

static void
identify(pyrt_thread_impl *thread)
{
    thread->base.id = pyrt_fetch_add_relaxed(&next_thread_id, (uint64_t)1);
    bool can_own = thread->base.interp->owners != 0 && thread->base.id >> PYRT_OWNERS_SHIFT == 0;
    thread->base.self_id = can_own ? thread->base.interp->owners | thread->base.id : 0;
    thread->base.slot.read_depth = 0;
    thread->base.critical_sections = 0;
    thread->os_tid = pyrt_os_thread_tid();
    pyrt_os_thread_name(thread->name);
    thread->ending = false;
    thread->held = 0;
    thread->kept = 0;
    thread->counted = false;
    thread->turn_until = 0;
    thread->frames = NULL;
}

static void
link_thread(pyrt_thread_impl *thread)
{
    pyrt_interp *interp = thread->base.interp;
    pyrt_raw_mutex_lock(&interp->lock);
    unlink_from(&interp->births, thread);
    link_into(&interp->threads, thread);
    /* Born into a pause it is suspended and not counted; the requester's own threads stay free. */
    bool suspended = interp->pause != NULL && interp->pause->requester != thread->base.os_id;
    pyrt_store_release(&thread->base.slot.word, (uint64_t)(suspended ? PYRT_STATE_SUSPENDED : PYRT_STATE_DETACHED));
    pyrt_raw_mutex_unlock(&interp->lock);
}

static void
abandon_birth(pyrt_thread_impl *thread, bool staged)
{
    pyrt_interp *interp = thread->base.interp;
    if (staged) {
        fini_stages(thread, PYRT_STAGES);
    }
    pyrt_slots_free(thread);
    pyrt_raw_mutex_lock(&interp->lock);
    unlink_from(&interp->births, thread);
    unclaim(thread);
    pyrt_raw_mutex_unlock(&interp->lock);
}

pyrt_status
pyrt_thread_make(pyrt_interp *interp, pyrt_thread **out)
{
    *out = NULL;
    if (interp == NULL) {
        return PYRT_ESTATE;
    }
    if (pyrt_os_thread_register() != PYRT_OK) {
        return PYRT_ENOMEM;
    }
    pyrt_thread_impl *thread;
    pyrt_status status = claim(interp, &thread);
    if (status != PYRT_OK) {
        return status;
    }
    identify(thread);
    if (!init_stages(thread)) {
        abandon_birth(thread, false);
        return PYRT_ENOMEM;
    }
    status = pyrt_slots_init(thread);
    if (status != PYRT_OK) {
        pyrt_slots_exit(thread);
        abandon_birth(thread, true);
        return status;
    }
    link_thread(thread);
    pyrt_tls_block *tls = pyrt_tls();
    thread->next_of_os_thread = tls->states;
    tls->states = thread;
    *out = &thread->base;
    return PYRT_OK;
}

pyrt_thread *
pyrt_thread_new(pyrt_interp *interp)
{
    pyrt_thread *thread;
    (void)pyrt_thread_make(interp, &thread);
    return thread;
}

/* ---- end --------------------------------------------------------------------------------------------------------- */

void
pyrt_thread_attach_again(pyrt_thread_impl *thread)
{
    pyrt_thread *current = pyrt_tls()->current;
    if (current == &thread->base) {
        return;
    }
    if (current != NULL && current->slot.read_depth != 0) {
        pyrt_report("thread %llu has been left attached in a read-side section by a hook or disposer of thread %llu; it is "
                    "detached",
                    (unsigned long long)current->id, (unsigned long long)thread->base.id);
        current->slot.read_depth = 0;
    }
    if (current != NULL) {
        pyrt_detach(current);
    }
    pyrt_attach(&thread->base);
}

static void
forget_in_os_thread(pyrt_thread_impl *thread)
{
    pyrt_thread_impl **link = &pyrt_tls()->states;
    while (*link != thread) {
        link = &(*link)->next_of_os_thread;
    }
    *link = thread->next_of_os_thread;
}

/* The one step in which it ceases to exist for others. The caller holds the interpreter's lock. */
static void
unlink_alive(pyrt_thread_impl *thread)
{
    pyrt_interp *interp = thread->base.interp;
    /* seq_cst: as release it ends the read side; as a full barrier it orders the look at the flags behind it. Pairs with
     * the scan, and with who sets a flag and then looks at the word. */
    (void)pyrt_exchange_seq_cst(&thread->base.slot.word, (uint64_t)PYRT_STATE_SHUTTING_DOWN);
    pyrt_pause_uncount(thread);
    unlink_from(&interp->threads, thread);
    if (pyrt_exchange_seq_cst(&thread->base.slot.flags, 0u) & (PYRT_FLAG_WAKE | PYRT_FLAG_COLLECT)) {
        pyrt_qsbr_wake(&interp->domain);
    }
}

static void
unlink_thread(pyrt_thread_impl *thread)
{
    pyrt_interp *interp = thread->base.interp;
    pyrt_tls_block *tls = pyrt_tls();
    pyrt_raw_mutex_lock(&interp->lock);
    tls->current = NULL;
    tls->self_id = 0;
    unlink_alive(thread);
    unclaim(thread);
    /* Last: without a thread the interpreter may be freed as soon as its lock is. */
    pyrt_raw_mutex_unlock(&interp->lock);
}

/* Back among those being born, and then as if its birth had failed. It has nothing that others could look at in a pause. */
void
pyrt_thread_unmake(pyrt_thread *made)
{
    pyrt_thread_impl *thread = pyrt_thread_impl_of(made);
    pyrt_interp *interp = made->interp;
    forget_in_os_thread(thread);
    pyrt_raw_mutex_lock(&interp->lock);
    unlink_alive(thread);
    link_into(&interp->births, thread);
    pyrt_raw_mutex_unlock(&interp->lock);
    thread->ending = true;
    pyrt_slots_exit(thread);
    abandon_birth(thread, true);
}

void
pyrt_thread_end(pyrt_thread_impl *thread)
{
    pyrt_thread *aside = pyrt_tls()->current;
    if (aside != NULL) {
        pyrt_thread_impl_of(aside)->kept++;
        pyrt_detach(aside);
    }
    thread->ending = true;
    pyrt_critical_sections_forget(&thread->base);
    /* Attached until it is unlinked: a pause waits for it, so that no world is still while it takes itself apart. */
    pyrt_attach(&thread->base);
    pyrt_slots_exit(thread);
    pyrt_thread_attach_again(thread);
    for (int i = 0; i < PYRT_STAGES; i++) {
        if (pyrt_stages[i] != NULL && pyrt_stages[i]->thread_exit != NULL) {
            pyrt_stages[i]->thread_exit(thread);
            pyrt_thread_attach_again(thread);
        }
    }
    pyrt_ensure_forget(thread);
    fini_stages(thread, PYRT_STAGES);
    pyrt_slots_free(thread);
    forget_in_os_thread(thread);
    unlink_thread(thread);
    if (aside != NULL) {
        pyrt_attach(aside);
        pyrt_thread_impl_of(aside)->kept--;
    }
}

bool
pyrt_thread_may_end(pyrt_thread_impl *thread, const char *function)
{
    const char *reason = NULL;
    pyrt_tls_block *tls = pyrt_tls();
    if (tls->os_id == 0 || thread->base.os_id != tls->os_id) {
        reason = "it belongs to another OS thread";
    }
    else if (pyrt_load_relaxed(&thread->base.slot.word) == PYRT_STATE_SHUTTING_DOWN) {
        reason = "it has ended already";
    }
    else if (tls->current == &thread->base) {
        reason = "it is attached; detach it first";
    }
    else if (thread->ending) {
        reason = "it is ending already";
    }
    else if (thread->held != 0) {
        reason = "one of its disposers is running";
    }
    else if (thread->kept != 0) {
        reason = "a call further out returns to it";
    }
    if (reason != NULL) {
        pyrt_report("%s: thread %llu '%s' cannot end: %s", function, (unsigned long long)thread->base.id, thread->name,
                    reason);
        return false;
    }
    return !pyrt_is_reading(function);
}

void
pyrt_thread_delete(pyrt_thread *thread)
{
    if (thread == NULL) {
        return;
    }
    pyrt_thread_impl *impl = pyrt_thread_impl_of(thread);
    if (!pyrt_thread_may_end(impl, "pyrt_thread_delete")) {
        return;
    }
    for (pyrt_ensure_frame *frame = pyrt_tls()->ensures; frame != NULL; frame = frame->next) {
        if (frame->thread == thread || frame->found == thread) {
            pyrt_report("pyrt_thread_delete: thread %llu '%s' cannot end: a pyrt_thread_ensure of it has not been released",
                        (unsigned long long)thread->id, impl->name);
            return;
        }
    }
    pyrt_thread_end(impl);
}

/* ---- looking at threads ------------------------------------------------------------------------------------------ */

pyrt_thread *
pyrt_thread_find(pyrt_interp *interp)
{
    pyrt_thread_impl *thread = pyrt_tls()->states;
    while (thread != NULL && thread->base.interp != interp) {
        thread = thread->next_of_os_thread;
    }
    return thread == NULL ? NULL : &thread->base;
}

void
pyrt_thread_set_name(pyrt_thread *thread, const char *name)
{
    pyrt_thread_impl *impl = pyrt_thread_impl_of(thread);
    pyrt_raw_mutex_lock(&thread->interp->lock);
    snprintf(impl->name, sizeof(impl->name), "%s", name == NULL ? "" : name);
    pyrt_raw_mutex_unlock(&thread->interp->lock);
}

static int32_t
state_of(pyrt_thread_impl *thread)
{
    uint64_t word = pyrt_load_acquire(&thread->base.slot.word);
    if (word & 1) {
        return PYRT_STATE_ATTACHED;
    }
    return word == PYRT_STATE_SUSPENDED_WAITED ? PYRT_STATE_SUSPENDED : (int32_t)word;
}

size_t
pyrt_thread_list(pyrt_interp *interp, pyrt_thread_info *out, size_t capacity)
{
    if (interp == NULL) {
        return 0;
    }
    size_t count = 0;
    pyrt_raw_mutex_lock(&interp->lock);
    for (pyrt_thread_impl *thread = interp->threads; thread != NULL; thread = thread->next) {
        if (out != NULL && count < capacity) {
            out[count] = (pyrt_thread_info){
                .id = thread->base.id,
                .interp_id = interp->id,
                .index = thread->base.index,
                .os_tid = thread->os_tid,
                .state = state_of(thread),
            };
            memcpy(out[count].name, thread->name, sizeof(out[count].name));
        }
        count++;
    }
    pyrt_raw_mutex_unlock(&interp->lock);
    return count;
}
