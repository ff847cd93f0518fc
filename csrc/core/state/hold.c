/* hold.c -- holding a thread still for a moment, to do something with what belongs to it.
 *
 * A detached thread belongs to whoever suspends it: its owner waits in attach until it is let go. One that stands still in a pause
 * stays so while the interpreter's lock is held. Neither runs code of the library meanwhile.
 */
#include "platform/futex.h"
#include "state/pause.h"

bool
pyrt_thread_hold_still(pyrt_thread_impl *thread, bool *suspended)
{
    *suspended = pyrt_pause_suspend(thread);
    uint64_t found = *suspended ? (uint64_t)PYRT_STATE_SUSPENDED : pyrt_load_acquire(&thread->base.slot.word);
    return found == PYRT_STATE_SUSPENDED || found == PYRT_STATE_SUSPENDED_WAITED;
}

void
pyrt_thread_let_go(pyrt_thread_impl *thread, bool suspended)
{
    uint64_t *word = &thread->base.slot.word;
    /* seq_cst: as release it hands back what was done for the owner. Pairs with the compare-and-swap of attach. */
    if (suspended && pyrt_exchange_seq_cst(word, (uint64_t)PYRT_STATE_DETACHED) == PYRT_STATE_SUSPENDED_WAITED) {
        pyrt_futex_wake((const uint32_t *)(const void *)word, 1);
    }
}
