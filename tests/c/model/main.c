/* main.c -- the command line of the model checker. */
#include "machine.h"
#include "scheduler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: model --list\n"
    "       model SCENARIO [--bound N|none] [--brute] [--most N]       every schedule with at most N preemptions\n"
    "       model SCENARIO --seed N --runs N                           schedules at random\n"
    "       model SCENARIO --replay SCHEDULE                           this one, step by step\n"
    "further: --break attach|suspend|advance|membarrier|futex|turn|lock|claim|look|cell|give-back|sections|free|collect|\n"
    "         pool|goal|merge|disown|last|slot, --program N\n"
    "exit status: 0 nothing failed, 1 a schedule failed, 2 the arguments are wrong\n";

static const model_scenario *const tables[] = {
    model_litmus_scenarios,  model_epoch_scenarios,  model_retire_scenarios, model_pause_scenarios,  model_mutex_scenarios,
    model_section_scenarios, model_rwlock_scenarios, model_heap_scenarios,   model_object_scenarios,
};

enum { TABLES = sizeof(tables) / sizeof(tables[0]) };

static uint64_t program;

uint64_t
model_program(void)
{
    return program;
}

static void
list(void)
{
    for (int table = 0; table < TABLES; table++) {
        for (const model_scenario *s = tables[table]; s->name != NULL; s++) {
            printf("%-20s %s\n", s->name, s->about);
        }
    }
}

static const model_scenario *
find(const char *name)
{
    for (int table = 0; table < TABLES; table++) {
        for (const model_scenario *s = tables[table]; s->name != NULL; s++) {
            if (strcmp(s->name, name) == 0) {
                return s;
            }
        }
    }
    return NULL;
}

__attribute__((noreturn)) static void
refuse(const char *what, const char *value)
{
    fprintf(stderr, "model: %s '%s'\n%s", what, value, usage);
    exit(2);
}

static uint64_t
number(const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    if (*text == '\0' || *end != '\0') {
        refuse("not a number:", text);
    }
    return value;
}

static model_break
break_of(const char *name)
{
    static const char *const names[] = {
        [MODEL_BREAK_NOTHING] = "nothing",
        [MODEL_BREAK_ATTACH] = "attach",
        [MODEL_BREAK_SUSPEND] = "suspend",
        [MODEL_BREAK_ADVANCE] = "advance",
        [MODEL_BREAK_MEMBARRIER] = "membarrier",
        [MODEL_BREAK_FUTEX] = "futex",
        [MODEL_BREAK_TURN] = "turn",
        [MODEL_BREAK_LOCK] = "lock",
        [MODEL_BREAK_CLAIM] = "claim",
        [MODEL_BREAK_LOOK] = "look",
        [MODEL_BREAK_CELL] = "cell",
        [MODEL_BREAK_GIVE_BACK] = "give-back",
        [MODEL_BREAK_SECTIONS] = "sections",
        [MODEL_BREAK_FREE] = "free",
        [MODEL_BREAK_COLLECT] = "collect",
        [MODEL_BREAK_POOL] = "pool",
        [MODEL_BREAK_GOAL] = "goal",
        [MODEL_BREAK_MERGE] = "merge",
        [MODEL_BREAK_DISOWN] = "disown",
        [MODEL_BREAK_TAKEN] = "taken",
        [MODEL_BREAK_STABLE] = "stable",
        [MODEL_BREAK_LAST] = "last",
        [MODEL_BREAK_SLOT] = "slot",
    };
    for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++) {
        if (strcmp(names[n], name) == 0) {
            return (model_break)n;
        }
    }
    refuse("nothing of that name to break:", name);
}

/* How to call this again, without what says which schedules. */
static char command[256];

static void
remember(const char *word)
{
    snprintf(command + strlen(command), sizeof(command) - strlen(command), "%s%s", command[0] == '\0' ? "" : " ", word);
}

int
main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        list();
        return 0;
    }
    const model_scenario *scenario = argc < 2 ? NULL : find(argv[1]);
    if (scenario == NULL) {
        refuse("no scenario", argc < 2 ? "" : argv[1]);
    }
    model_search search = {.scenario = scenario, .bound = scenario->bound, .most = UINT64_MAX, .command = command};
    remember(argv[0]);
    remember(scenario->name);
    for (int n = 2; n < argc; n++) {
        const char *option = argv[n];
        if (strcmp(option, "--brute") == 0) {
            search.brute = true;
            continue;
        }
        if (n + 1 == argc) {
            refuse("no value for", option);
        }
        const char *value = argv[++n];
        if (strcmp(option, "--bound") == 0) {
            search.bound = strcmp(value, "none") == 0 ? MODEL_ALL : (int)number(value);
        }
        else if (strcmp(option, "--most") == 0) {
            search.most = number(value);
        }
        else if (strcmp(option, "--seed") == 0) {
            search.seed = number(value);
        }
        else if (strcmp(option, "--runs") == 0) {
            search.runs = number(value);
        }
        else if (strcmp(option, "--replay") == 0) {
            search.replay = value;
        }
        else if (strcmp(option, "--break") == 0) {
            model_broken = break_of(value);
            remember(option);
            remember(value);
        }
        else if (strcmp(option, "--program") == 0) {
            program = number(value);
            remember(option);
            remember(value);
        }
        else {
            refuse("no such option:", option);
        }
    }
    if (search.replay != NULL) {
        model_replay(&search);
    }
    else if (search.runs != 0) {
        model_run_random(&search);
    }
    else {
        model_explore(&search);
    }
    return 0;
}
