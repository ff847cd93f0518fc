/* special.c -- objects that counting does not end: immortal, deferred; and those whose counting is told of.
 *
 * Each of the first two adds a share to the shared count, which makes it so at once, whoever owns the object. That counting then
 * writes nothing, or takes the long way, is said by `local`, which only becomes nobody's when the object does: here, if the caller
 * owns it, or when the owner has been asked to merge it.
 */
#include "object/death.h"
#include "object/merge_queue.h"
#include "object/special.h"

#define KEPT_WORD (PYRT_DEFERRED_COUNT * PYRT_SHARED_ONE)

bool
pyrt_keep(pyrt_object *object, uint16_t flag)
{
    if (pyrt_load_relaxed(&object->flags) & flag) {
        return false;
    }
    /* First the share, then the flag: who takes the flag off finds the share there. */
    (void)pyrt_fetch_add_relaxed(&object->shared, KEPT_WORD);
    /* seq_cst, as release for the share. Pairs with pyrt_unkeep. */
    if (pyrt_fetch_or_seq_cst(&object->flags, flag) & flag) {
        /* Another was faster. The caller has a reference: something is left. */
        (void)pyrt_drop(object, PYRT_DEFERRED_COUNT);
        return false;
    }
    return true;
}

bool
pyrt_unkeep(pyrt_object *object, uint16_t flag)
{
    /* seq_cst, as acquire: pairs with pyrt_keep. */
    if ((pyrt_fetch_and_seq_cst(&object->flags, (uint16_t)~flag) & flag) == 0) {
        return false;
    }
    int64_t local;
    return pyrt_disown(object, &local) ? pyrt_merge(object, local - PYRT_DEFERRED_COUNT)
                                       : pyrt_drop(object, PYRT_DEFERRED_COUNT);
}

/* Queues it for its owner, with a reference more; not if it has been queued or merged. */
static void
ask_owner(pyrt_object *object)
{
    int64_t shared = pyrt_load_relaxed(&object->shared);
    do {
        if (!pyrt_is_unasked(pyrt_shared_state(shared))) {
            return;
        }
        /* acq_rel: as in pyrt_drop. */
    } while (
        !pyrt_cas_acq_rel(&object->shared, &shared, pyrt_shared_word(pyrt_shared_count(shared) + 1, PYRT_SHARED_QUEUED)));
    if (pyrt_merge_ask(object)) {
        pyrt_die(object);
    }
}

/* A flag has been set that wants `local` to be no count. */
static void
settle(pyrt_object *object)
{
    int64_t local;
    if (pyrt_disown(object, &local)) {
        /* The caller has a reference: something is left. */
        (void)pyrt_merge(object, local);
        return;
    }
    /* acquire: pairs with the release of pyrt_merge, which writes the same to `local` until it is done, and nobody else does. */
    if (pyrt_load_acquire(&object->owner) != PYRT_UNOWNED) {
        ask_owner(object);
    }
    if (pyrt_load_acquire(&object->owner) == PYRT_UNOWNED) {
        pyrt_store_relaxed(&object->local, pyrt_local_of_unowned(pyrt_load_relaxed(&object->flags)));
    }
}

void
pyrt_set_immortal(pyrt_object *object)
{
    if (pyrt_load_relaxed(&object->flags) & PYRT_OBJECT_IMMORTAL ||
        pyrt_fetch_or_seq_cst(&object->flags, (uint16_t)PYRT_OBJECT_IMMORTAL) & PYRT_OBJECT_IMMORTAL) {
        return;
    }
    /* First the flag, which nobody takes off, then the share: whoever merges and sees the share sees the flag, or else has merged
     * before, and settle sees that it is nobody's. seq_cst, as release and acquire: pairs with pyrt_merge. */
    (void)pyrt_fetch_add_seq_cst(&object->shared, KEPT_WORD);
    pyrt_merge_count_immortal(object);
    settle(object);
}

void
pyrt_set_deferred(pyrt_object *object)
{
    (void)pyrt_keep(object, PYRT_OBJECT_DEFERRED);
}

void
pyrt_clear_deferred(pyrt_object *object)
{
    if (pyrt_unkeep(object, PYRT_OBJECT_DEFERRED)) {
        pyrt_die(object);
    }
}

void
pyrt_object_trace(pyrt_object *object, bool on)
{
    if (!on) {
        pyrt_trace(object, "is no longer traced", __builtin_return_address(0));
        (void)pyrt_fetch_and_seq_cst(&object->flags, (uint16_t)~PYRT_OBJECT_TRACED);
        return;
    }
    (void)pyrt_fetch_or_seq_cst(&object->flags, (uint16_t)PYRT_OBJECT_TRACED);
    settle(object);
    pyrt_trace(object, "is traced from here on", __builtin_return_address(0));
}
