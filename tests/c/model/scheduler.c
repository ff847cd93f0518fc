/* scheduler.c -- which actor moves next: depth first over all schedules that differ, at random, or as told.
 *
 * Depth first means that a schedule is run from the start, then the newest choice that has an alternative worth a try (races.c)
 * is changed, and so on. Sleep sets keep two orders of independent steps from both being run. `--brute` tries everything;
 * the two must see the same outcomes.
 *
 * A bound limits preemptions: turns taken from a thread that could have gone on. Buffers are not counted. Sleep sets are not
 * used then, because the schedule that a sleeping actor stands for may have cost too much.
 */
#include "scheduler.h"

#include "path.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const model_search *search;
node path[MOST_STEPS];
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
    if (search->runs != 0) {
        printf("seed %llu\n", (unsigned long long)(search->seed + count.runs));
    }
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

/* ---- choices ----------------------------------------------------------------------------------------------------- */

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
        if (slept && !races_dependent(&here->next[actor], &before->op)) {
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
            races_find(depth, search->brute ? RACES_IGNORED : is_bounded() ? RACES_BOUNDED : RACES_ALL);
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
    char bound[16] = "none";
    if (is_bounded()) {
        snprintf(bound, sizeof(bound), "%d", search->bound);
    }
    printf("%s: %llu schedules, %s, bound %s, %llu redundant, %llu beyond the bound, at most %d steps\n",
           search->scenario->name, (unsigned long long)count.runs, more ? "stopped" : "complete", bound,
           (unsigned long long)count.redundant, (unsigned long long)count.cut, count.longest);
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
    count.runs = 0;
    for (uint64_t n = 0; n < search->runs; n++) {
        run_at_random(search->seed + n, usual_steps);
    }
    printf("%s: %llu schedules, random, seeds %llu to %llu, at most %d steps\n", search->scenario->name,
           (unsigned long long)count.runs, (unsigned long long)search->seed,
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
