/* scheduler.c -- which actor moves next: depth first over all schedules that differ, at random, or as told.
 *
 * Depth first means that a schedule is run from the start, then the newest choice that has an alternative is changed, and
 * so on. Most schedules differ in the order of steps that have nothing to do with each other; one of each kind is enough. So an
 * alternative is only tried where it can matter (dynamic partial-order reduction): when a step and a later one of another
 * actor touch the same word, one of them writing, and nothing else forces their order (each step has a vector clock that says
 * what came before it), then the actor of the later one is tried at the place of the earlier. Sleep sets keep two orders of
 * independent steps from both being run. `--brute` does without any of it; the two must see the same outcomes.
 *
 * A bound limits preemptions: turns taken from a thread that could have gone on. Buffers are not counted. Under a bound an
 * alternative is also tried where the thread that is in the way got its turn, because there it may cost nothing, and sleep
 * sets are not used, because the schedule that a sleeping actor stands for may have cost too much.
 */
#include "scheduler.h"

#include "machine.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_STEPS = 4000 };

typedef uint32_t actor_set;

typedef struct clock {
    uint16_t of[MODEL_ACTORS]; /* 1 + the number of the newest step of that actor which comes before; 0: none */
} clock;

/* A step that was made, and the choice that it was made from. */
typedef struct node {
    int actor;
    model_op op;
    clock clock;
    model_op next[MODEL_ACTORS]; /* before the step */
    actor_set can;
    actor_set could;             /* also those that only wait for a buffer */
    actor_set wanted;            /* to be tried here */
    actor_set tried;
    actor_set sleeping;          /* need not be tried here */
    int running;                 /* the thread of the newest step before, or -1 */
    int preemptions;             /* before the step */
} node;

static const model_search *search;
static node path[MOST_STEPS];
static int chosen;               /* nodes of the path that are given for the next run */
static char schedule[MOST_STEPS + 1];
static int length;               /* of the run under way, also where it leaves the path */

static struct {
    uint64_t runs;
    uint64_t redundant;          /* of these, given up because another run stands for them */
    uint64_t cut;                /* alternatives not tried because of the bound */
    int longest;
} count;

/* ---- schedules as text ------------------------------------------------------------------------------------------- */

/* A digit for a thread, a letter for its buffer. */
static char
letter_of(int actor)
{
    return (char)(actor < MODEL_THREADS ? '0' + actor : 'a' + actor - MODEL_THREADS);
}

static int
actor_of(char letter)
{
    for (int actor = 0; actor < MODEL_ACTORS; actor++) {
        if (letter_of(actor) == letter) {
            return actor;
        }
    }
    return -1;
}

void
model_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("FAILED %s: ", search->scenario->name);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    machine_describe();
    printf("after %llu schedules; to see this one: %s --replay %s\n", (unsigned long long)count.runs + 1, search->command,
           length == 0 ? "-" : schedule);
    fflush(stdout);
    _Exit(1);
}

static void
on_crash(int number)
{
    model_fail("crashed with signal %d", number);
}

/* Coroutines have small stacks, and a crash may be an overflow of one. */
static void
catch_crashes(void)
{
    static char stack[64 * 1024];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
    struct sigaction action = {.sa_handler = on_crash, .sa_flags = SA_ONSTACK};
    sigaltstack(&alternate, NULL);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGABRT, &action, NULL);
    sigaction(SIGFPE, &action, NULL);
}

/* ---- outcomes ---------------------------------------------------------------------------------------------------- */

enum { MOST_OUTCOMES = 4096 };

static uint64_t outcomes[MOST_OUTCOMES];
static size_t outcome_count;

void
model_outcome(uint64_t outcome)
{
    size_t n = 0;
    while (n < outcome_count && outcomes[n] < outcome) {
        n++;
    }
    if (n < outcome_count && outcomes[n] == outcome) {
        return;
    }
    MODEL_CHECK(outcome_count < MOST_OUTCOMES, "more than %d outcomes", MOST_OUTCOMES);
    memmove(&outcomes[n + 1], &outcomes[n], (outcome_count - n) * sizeof(outcomes[0]));
    outcomes[n] = outcome;
    outcome_count++;
}

static void
print_outcomes(void)
{
    if (outcome_count != 0) {
        printf("outcomes:");
        for (size_t n = 0; n < outcome_count; n++) {
            printf(" %llx", (unsigned long long)outcomes[n]);
        }
        printf("\n");
    }
}

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

/* Whether the order of two steps can matter. */
static bool
dependent(const model_op *a, const model_op *b)
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

static actor_set
only(int actor)
{
    return (actor_set)1 << actor;
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

static bool
is_bounded(void)
{
    return search->bound != MODEL_ALL;
}

/* Whether trying an actor at a node takes the turn from a thread that could go on. */
static int
cost_of(const node *here, int actor)
{
    return actor < MODEL_THREADS && here->running >= 0 && actor != here->running && (here->could & only(here->running)) != 0;
}

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
want_reversed(int n, int depth)
{
    actor_set first = initials(n, depth);
    if (!is_bounded()) {
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

/* Gives the newest step its clock, and looks for races with it on the way: a step that it depends on, with none in between
 * that comes after the one and before the other. */
static void
set_clock(int depth)
{
    node *here = &path[depth];
    clock racing = clock_of_own(here, depth);
    clock enabling = racing;
    int races[MOST_STEPS];
    int race_count = 0;
    for (int n = depth - 1; n >= 0; n--) {
        if (comes_before(n, &racing) || !dependent(&path[n].op, &here->op)) {
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
    while (race_count > 0 && !search->brute) {
        want_reversed(races[--race_count], depth);
    }
}

static actor_set
who_can(void)
{
    actor_set can = 0;
    for (int actor = 0; actor < MODEL_ACTORS; actor++) {
        can |= machine_can(actor) ? only(actor) : 0;
    }
    MODEL_CHECK(can != 0, "nobody can move: a wake-up was lost, or they wait for each other");
    MODEL_CHECK(length < MOST_STEPS, "no end after %d steps", MOST_STEPS);
    return can;
}

/* Opens the node behind the path. Whoever slept before the newest step sleeps on if he has nothing to do with it, and so
 * does whoever was tried in its place. */
static void
open_node(int depth)
{
    node *here = &path[depth];
    *here = (node){.running = -1, .can = who_can()};
    for (int actor = 0; actor < MODEL_ACTORS; actor++) {
        here->next[actor] = *machine_next(actor);
        here->could |= machine_could(actor) ? only(actor) : 0;
    }
    if (depth == 0) {
        return;
    }
    const node *before = &path[depth - 1];
    here->running = before->actor < MODEL_THREADS ? before->actor : before->running;
    here->preemptions = before->preemptions + cost_of(before, before->actor);
    if (search->brute || is_bounded()) {
        return;
    }
    for (int actor = 0; actor < MODEL_ACTORS; actor++) {
        bool slept = ((before->sleeping | before->tried) & only(actor)) != 0 && actor != before->actor;
        if (slept && !dependent(&here->next[actor], &before->op)) {
            here->sleeping |= only(actor);
        }
    }
}

static int
first_of(actor_set set)
{
    return set == 0 ? -1 : __builtin_ctz(set);
}

/* The thread that ran goes on while it can; then buffers, so that a thread that needs its own empty can; then others. */
static int
usual_choice(const node *here, actor_set among)
{
    if (here->running >= 0 && (among & only(here->running)) != 0) {
        return here->running;
    }
    actor_set buffers = among >> MODEL_THREADS;
    return buffers != 0 ? MODEL_THREADS + first_of(buffers) : first_of(among);
}

/* What is to be tried at a node and has not been yet. */
static actor_set
alternatives(node *here)
{
    actor_set left = here->wanted & here->can & ~here->tried & ~here->sleeping;
    for (int actor = 0; is_bounded() && actor < MODEL_ACTORS; actor++) {
        if ((left & only(actor)) != 0 && here->preemptions + cost_of(here, actor) > search->bound) {
            left &= ~only(actor);
            here->tried |= only(actor);
            count.cut++;
        }
    }
    return left;
}

/* ---- one run ----------------------------------------------------------------------------------------------------- */

static void
step(int actor)
{
    schedule[length++] = letter_of(actor);
    schedule[length] = '\0';
    machine_step(actor);
}

static void
begin_run(void)
{
    length = 0;
    schedule[0] = '\0';
    machine_start(search->scenario);
}

static void
end_run(void)
{
    machine_finish();
    count.runs++;
    count.longest = length > count.longest ? length : count.longest;
}

/* Goes on as usual to the end, so that the next run finds everything as this one did. */
static void
finish_as_usual(node *from)
{
    node here = *from;
    while (!machine_is_done()) {
        here.can = who_can();
        int actor = usual_choice(&here, here.can);
        here.running = actor < MODEL_THREADS ? actor : here.running;
        step(actor);
    }
}

/* Chooses at the node behind the path; false if there is nothing left to try. */
static bool
choose(node *here)
{
    actor_set awake = here->can & ~here->sleeping;
    if (awake == 0) {
        return false;
    }
    here->actor = usual_choice(here, awake);
    here->wanted = search->brute ? here->can : only(here->actor);
    return true;
}

static void
run_path(void)
{
    const int changed = chosen - 1;
    begin_run();
    for (int depth = 0; !machine_is_done(); depth++) {
        node *here = &path[depth];
        if (depth == chosen) {
            open_node(depth);
            if (!choose(here)) {
                finish_as_usual(here);
                count.redundant++;
                break;
            }
            chosen++;
        }
        here->op = here->next[here->actor];
        if (depth >= changed) {
            set_clock(depth);
        }
        step(here->actor);
    }
    end_run();
}

/* Changes the newest choice that has an alternative; false if none has. */
static bool
backtrack(void)
{
    while (chosen > 0) {
        node *here = &path[chosen - 1];
        here->tried |= only(here->actor);
        actor_set left = alternatives(here);
        if (left != 0) {
            here->actor = usual_choice(here, left);
            return true;
        }
        chosen--;
    }
    return false;
}

/* ---- the calls --------------------------------------------------------------------------------------------------- */

static void
begin_search(const model_search *wanted)
{
    search = wanted;
    catch_crashes();
}

void
model_explore(const model_search *wanted)
{
    begin_search(wanted);
    chosen = 0;
    bool more = true;
    while (more && count.runs < search->most) {
        run_path();
        more = backtrack();
    }
    printf("%s: %llu schedules, %s, bound ", search->scenario->name, (unsigned long long)count.runs,
           more ? "stopped" : "complete");
    printf(is_bounded() ? "%d" : "none", search->bound);
    printf(", %llu redundant, %llu beyond the bound, at most %d steps\n", (unsigned long long)count.redundant,
           (unsigned long long)count.cut, count.longest);
    print_outcomes();
}

/* splitmix64 */
static uint64_t
random_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static int
highest_of(actor_set can, const int *priority)
{
    int highest = first_of(can);
    for (int actor = highest + 1; actor < MODEL_ACTORS; actor++) {
        if ((can & only(actor)) != 0 && priority[actor] > priority[highest]) {
            highest = actor;
        }
    }
    return highest;
}

enum { MOST_CHANGES = 5 };

/* Each actor has a priority, and the highest that can move does; at a few moments the one that was about to is put last. So it
 * takes no luck for somebody to be held up for long, or for a store: only to be held up at the right moments. */
static void
run_at_random(uint64_t seed, int usual_steps)
{
    uint64_t state = seed;
    int priority[MODEL_ACTORS];
    int change_at[MOST_CHANGES];
    uint64_t changes = random_next(&state) % (MOST_CHANGES + 1);
    int lowest = 0;
    for (int actor = 0; actor < MODEL_ACTORS; actor++) {
        priority[actor] = (int)(random_next(&state) >> 34);
    }
    for (uint64_t n = 0; n < MOST_CHANGES; n++) {
        change_at[n] = n < changes ? (int)(random_next(&state) % (uint64_t)usual_steps) : -1;
    }
    begin_run();
    while (!machine_is_done()) {
        actor_set can = who_can();
        int highest = highest_of(can, priority);
        for (int n = 0; n < MOST_CHANGES; n++) {
            if (change_at[n] == length) {
                priority[highest] = --lowest;
                highest = highest_of(can, priority);
            }
        }
        step(highest);
    }
    end_run();
}

void
model_run_random(const model_search *wanted)
{
    begin_search(wanted);
    /* How long a run is, so that the moments can be spread over it; the same whatever the seed. */
    begin_run();
    finish_as_usual(&(node){.running = -1});
    end_run();
    const int usual_steps = length;
    for (uint64_t n = 0; n < search->runs; n++) {
        run_at_random(search->seed + n, usual_steps);
    }
    printf("%s: %llu schedules, random, seeds %llu to %llu, at most %d steps\n", search->scenario->name,
           (unsigned long long)search->runs, (unsigned long long)search->seed,
           (unsigned long long)(search->seed + search->runs - 1), count.longest);
    print_outcomes();
}

void
model_replay(const model_search *wanted)
{
    begin_search(wanted);
    model_tracing = true;
    begin_run();
    for (const char *letter = search->replay; *letter != '\0' && *letter != '-'; letter++) {
        int actor = actor_of(*letter);
        if (actor < 0 || machine_is_done() || (who_can() & only(actor)) == 0) {
            printf("this schedule does not fit: '%c' cannot move after %d steps\n", *letter, length);
            exit(2);
        }
        step(actor);
    }
    finish_as_usual(&(node){.running = -1});
    end_run();
    printf("%s: nothing failed\n", search->scenario->name);
    print_outcomes();
}
