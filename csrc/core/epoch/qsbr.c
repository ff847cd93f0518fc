/* qsbr.c -- the scan, and sleeping until it succeeds. The argument for its order is in qsbr.h. */
#include "epoch/qsbr.h"

#include "platform/futex.h"

#include <limits.h>

pyrt_qsbr_sequence_line pyrt_qsbr_sequence = {PYRT_QSBR_INITIAL};

void
pyrt_qsbr_domain_init(pyrt_qsbr_domain *domain)
{
    *domain = (pyrt_qsbr_domain){0};
    domain->reached = pyrt_load_acquire(&pyrt_qsbr_sequence.value);
    domain->watched_goal = domain->reached;
}

void
pyrt_qsbr_sequence_start(uint64_t value)
{
    pyrt_store_relaxed(&pyrt_qsbr_sequence.value, value | 1);
}

uint64_t
pyrt_qsbr_sequence_advance(void)
{
    /* seq_cst: the full barrier that the whole scheme stands on. Pairs with every acquire load of the sequence. */
    return pyrt_fetch_add_seq_cst(&pyrt_qsbr_sequence.value, (uint64_t)PYRT_QSBR_STEP) + PYRT_QSBR_STEP;
}

void
pyrt_qsbr_add_slot(pyrt_qsbr_domain *domain, pyrt_qsbr_slot *slot)
{
    slot->next = pyrt_load_relaxed(&domain->slots);
    /* release: the slot is whole before a scan finds it. Pairs with the acquire of the walks below. */
    pyrt_store_release(&domain->slots, slot);
}

/* Whether a word stands for a reader that has not passed the goal. */
static bool
is_behind(uint64_t word, uint64_t goal)
{
    return (word & 1) != 0 && pyrt_qsbr_before(word, goal);
}

bool
pyrt_qsbr_scan(pyrt_qsbr_domain *domain, uint64_t goal)
{
    /* acquire: L of the argument. */
    uint64_t oldest = pyrt_load_acquire(&pyrt_qsbr_sequence.value);
    /* acquire: pairs with the release of pyrt_qsbr_add_slot. A slot added later belongs to a thread that attaches later. */
    for (pyrt_qsbr_slot *slot = pyrt_load_acquire(&domain->slots); slot != NULL; slot = slot->next) {
        /* seq_cst: S of the argument; as an acquire it pairs with the release of detach and of the quiescent state. */
        uint64_t word = pyrt_load_seq_cst(&slot->word);
        if (is_behind(word, oldest)) {
            oldest = word;
        }
    }
    uint64_t reached = pyrt_load_relaxed(&domain->reached);
    while (pyrt_qsbr_before(reached, oldest)) {
        /* release: what this scan has seen of the readers is passed on. Pairs with the acquire in pyrt_qsbr_is_reached. */
        if (pyrt_cas_acq_rel(&domain->reached, &reached, oldest)) {
            break;
        }
    }
    return !pyrt_qsbr_before(oldest, goal);
}

void
pyrt_qsbr_watch(pyrt_qsbr_domain *domain, uint64_t goal)
{
    uint64_t watched = pyrt_load_relaxed(&domain->watched_goal);
    if (!pyrt_qsbr_is_reached(domain, watched) || !pyrt_qsbr_before(watched, goal)) {
        return;
    }
    /* The time first: of several that come here at once one wins, and all have about the same time. The release half of
     * the compare-and-swap pairs with the acquire of who reports. */
    pyrt_store_relaxed(&domain->watched_since, pyrt_now_ns());
    (void)pyrt_cas_acq_rel(&domain->watched_goal, &watched, goal);
}

pyrt_qsbr_slot *
pyrt_qsbr_furthest_behind(pyrt_qsbr_domain *domain, uint64_t goal)
{
    pyrt_qsbr_slot *found = NULL;
    uint64_t oldest = goal;
    for (pyrt_qsbr_slot *slot = pyrt_load_acquire(&domain->slots); slot != NULL; slot = slot->next) {
        uint64_t word = pyrt_load_seq_cst(&slot->word);
        if (is_behind(word, oldest)) {
            oldest = word;
            found = slot;
        }
    }
    return found;
}

uint32_t
pyrt_qsbr_wakeups(const pyrt_qsbr_domain *domain)
{
    /* acquire: what is looked at next is looked at after this. Pairs with the add in pyrt_qsbr_wake. */
    return pyrt_load_acquire(&domain->wakeups);
}

/* Asks every slot that is behind the goal to wake the sleepers when it passes. Answers one of them, or NULL. */
static const pyrt_qsbr_slot *
ask_to_wake(pyrt_qsbr_domain *domain, uint64_t goal)
{
    const pyrt_qsbr_slot *asked = NULL;
    for (pyrt_qsbr_slot *slot = pyrt_load_acquire(&domain->slots); slot != NULL; slot = slot->next) {
        if (is_behind(pyrt_load_seq_cst(&slot->word), goal)) {
            /* seq_cst, then a membarrier: pairs with "store word, light barrier, load flags" of the owner. */
            pyrt_fetch_or_seq_cst(&slot->flags, PYRT_FLAG_WAKE);
            asked = slot;
        }
    }
    return asked;
}

/* It sleeps only while one that was asked before the membarrier is seen to be behind after it: that one finds the request
 * when it passes. Others prove nothing. A thread that loaded the sequence before the advance, and attached after it was looked
 * at here, is behind and has not been asked, or so lately that its word may have moved without it. */
bool
pyrt_qsbr_sleep(pyrt_qsbr_domain *domain, uint64_t goal, int64_t deadline)
{
    for (;;) {
        uint32_t wakeups = pyrt_qsbr_wakeups(domain);
        const pyrt_qsbr_slot *asked = ask_to_wake(domain, goal);
        bool ordered = pyrt_membarrier();
        if (pyrt_qsbr_scan(domain, goal)) {
            return true;
        }
        if (asked == NULL || !is_behind(pyrt_load_seq_cst(&asked->word), goal)) {
            continue;
        }
        int64_t until = deadline;
        if (!ordered && pyrt_now_ns() + PYRT_WITHOUT_MEMBARRIER_NS < deadline) {
            until = pyrt_now_ns() + PYRT_WITHOUT_MEMBARRIER_NS;
        }
        if (!pyrt_qsbr_sleep_on(domain, wakeups, until) && until == deadline) {
            return pyrt_qsbr_scan(domain, goal);
        }
    }
}

bool
pyrt_qsbr_sleep_on(const pyrt_qsbr_domain *domain, uint32_t wakeups, int64_t deadline)
{
    return pyrt_futex_wait(&domain->wakeups, wakeups, deadline);
}

void
pyrt_qsbr_wake(pyrt_qsbr_domain *domain)
{
    /* seq_cst: pairs with the acquire in pyrt_qsbr_wakeups; a sleeper that loaded the old number does not fall asleep. */
    pyrt_fetch_add_seq_cst(&domain->wakeups, 1u);
    pyrt_futex_wake(&domain->wakeups, INT_MAX);
}

void
pyrt_qsbr_answer_wake(pyrt_qsbr_domain *domain, pyrt_qsbr_slot *slot)
{
    pyrt_fetch_and_seq_cst(&slot->flags, ~PYRT_FLAG_WAKE);
    pyrt_qsbr_wake(domain);
}
