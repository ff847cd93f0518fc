/* races.c -- which steps have to do with each other, and where another order of them is worth a try.
 *
 * Most schedules differ in the order of steps that have nothing to do with each other; one of each kind is enough. So an
 * alternative is only tried where it can matter (dynamic partial-order reduction): when a step and a later one of another
 * actor touch the same word, one of them writing, and nothing else forces their order (each step has a vector clock that says
 * what came before it), then an actor that leads to the later one is tried at the place of the earlier.
 *
 * Under a bound of preemptions that place may cost too much. The alternative is then also tried where the thread that is in
 * the way got its turn, because there it may cost nothing.
 */
#include "path.h"

/* ---- which steps have to do with each other ---------------------------------------------------------------------- */

/* Of two steps of different threads at the same address. A wake-up is not for the word but for those who sleep on it, and
 * only for them; in what order they come does not matter, since all are woken. */
static bool
conflict(model_kind a, model_kind b)
{
    if (a == MODEL_RESUME || b == MODEL_RESUME) {
        return a == MODEL_WAKE || b == MODEL_WAKE;
    }
    if (a == MODEL_WAKE || b == MODEL_WAKE) {
        return a == MODEL_WAIT || b == MODEL_WAIT;
    }
    if (a == MODEL_STORE || b == MODEL_STORE) {
        return false;
    }
    bool a_reads = a == MODEL_LOAD || a == MODEL_WAIT;
    bool b_reads = b == MODEL_LOAD || b == MODEL_WAIT;
    return !(a_reads && b_reads);
}

/* Whether a membarrier waits for the buffer that the other step fills or empties. */
static bool
barrier_sees(const model_op *barrier, const model_op *op)
{
    return barrier->kind == MODEL_BARRIER && barrier->other == op->thread &&
           (op->kind == MODEL_STORE || op->kind == MODEL_FLUSH);
}

bool
races_dependent(const model_op *a, const model_op *b)
{
    if (barrier_sees(a, b) || barrier_sees(b, a)) {
        return true;
    }
    if (a->thread == b->thread) {
        bool a_flush = a->kind == MODEL_FLUSH;
        if (a_flush == (b->kind == MODEL_FLUSH)) {
            return true;
        }
        /* A thread and its own buffer. A load has to do with it too: it gets its own store for certain only while that is
         * in the buffer. */
        const model_op *other = a_flush ? b : a;
        return machine_drains(other->kind) || (other->kind == MODEL_LOAD && a->address == b->address);
    }
    return a->address == b->address && a->address != NULL && conflict(a->kind, b->kind);
}

/* Of dependent steps of two actors: whether there is a state in which either could be made. If there is none, the earlier
 * one is what makes the later one possible. */
static bool
can_meet(const model_op *a, const model_op *b)
{
    bool has_flush = a->kind == MODEL_FLUSH || b->kind == MODEL_FLUSH;
    if (a->thread == b->thread || a->kind == MODEL_BARRIER || b->kind == MODEL_BARRIER) {
        const model_op *other = a->kind == MODEL_FLUSH ? b : a;
        return !has_flush || !machine_drains(other->kind);
    }
    if (a->kind == MODEL_UNLOCK || b->kind == MODEL_UNLOCK) {
        return false;
    }
    return a->kind != MODEL_RESUME && b->kind != MODEL_RESUME;
}

/* ---- clocks ------------------------------------------------------------------------------------------------------ */

static void
join(clock *clock, const struct clock *other)
{
    for (int actor = 0; actor < MODEL_ACTORS; actor++) {
        if (clock->of[actor] < other->of[actor]) {
            clock->of[actor] = other->of[actor];
        }
    }
}

static bool
comes_before(int n, const clock *clock)
{
    return n < clock->of[path[n].actor];
}

/* What comes before a step for reasons of its own thread: the actor's own steps, the store that is flushed, the flushes of a
 * buffer that must be empty. */
static clock
clock_of_own(const node *here, int depth)
{
    int buffer = MODEL_THREADS + here->op.thread;
    bool needs_flushes = machine_drains(here->op.kind);
    bool found_own = false;
    clock own = {0};
    for (int n = depth - 1; n >= 0 && (needs_flushes || !found_own); n--) {
        if (path[n].actor == here->actor || (needs_flushes && path[n].actor == buffer)) {
            found_own |= path[n].actor == here->actor;
            needs_flushes &= path[n].actor != buffer;
            join(&own, &path[n].clock);
        }
    }
    if (here->op.kind == MODEL_FLUSH) {
        join(&own, &path[here->op.stored_at].clock);
    }
    return own;
}

/* ---- alternatives ------------------------------------------------------------------------------------------------ */

/* Of the steps between step n and the one at `depth`, those that do not come after n, and that one: the actors whose step
 * could stand first, in the place of n. */
static actor_set
initials(int n, int depth)
{
    actor_set first = 0;
    int first_step[MODEL_ACTORS] = {0}; /* of each actor among those; 0: none */
    for (int k = n + 1; k <= depth; k++) {
        const clock *clock = &path[k].clock;
        if (k < depth && comes_before(n, clock)) {
            continue;
        }
        bool is_first = true;
        for (int actor = 0; actor < MODEL_ACTORS && is_first; actor++) {
            is_first = first_step[actor] == 0 || clock->of[actor] <= first_step[actor];
        }
        int *mine = &first_step[path[k].actor];
        first |= is_first && *mine == 0 ? only(path[k].actor) : 0;
        *mine = *mine == 0 ? k : *mine;
    }
    return first;
}

/* Where the thread got its turn that made step n, or that ran when a buffer did. */
static int
begin_of_turn(int n)
{
    int thread = path[n].actor < MODEL_THREADS ? path[n].actor : path[n].running;
    int begin = n;
    for (int before = n - 1; before >= 0 && (path[before].actor == thread || path[before].actor >= MODEL_THREADS);
         before--) {
        begin = path[before].actor == thread ? before : begin;
    }
    return begin;
}

/* Step n and the one at `depth` race: some schedule must have them the other way round. */
static void
want_reversed(int n, int depth, races_mode mode)
{
    actor_set first = initials(n, depth);
    if (mode == RACES_ALL) {
        /* One of them is enough; one that sleeps has been tried in the place of an earlier step. */
        if ((first & (path[n].wanted | path[n].sleeping)) == 0) {
            path[n].wanted |= first & -first;
        }
        return;
    }
    path[n].wanted |= first;
    node *begin = &path[begin_of_turn(n)];
    begin->wanted |= (first & begin->can) != 0 ? first : begin->can;
}

/* A race is with a step that this one depends on, with none in between that comes after the one and before the other. */
void
races_find(int depth, races_mode mode)
{
    node *here = &path[depth];
    clock racing = clock_of_own(here, depth);
    clock enabling = racing;
    int races[MOST_STEPS];
    int race_count = 0;
    for (int n = depth - 1; n >= 0; n--) {
        if (comes_before(n, &racing) || !races_dependent(&path[n].op, &here->op)) {
            continue;
        }
        if (can_meet(&path[n].op, &here->op)) {
            races[race_count++] = n;
            join(&racing, &path[n].clock);
        }
        else {
            join(&enabling, &path[n].clock);
        }
    }
    here->clock = racing;
    join(&here->clock, &enabling);
    here->clock.of[here->actor] = (uint16_t)(depth + 1);
    while (race_count > 0 && mode != RACES_IGNORED) {
        want_reversed(races[--race_count], depth, mode);
    }
}
