/* support.c -- the runner of the C tests; see support.h.
 *
 *      test_x [--list] [--seed N] [--scale N] [--guard SECONDS] [--break WHAT] [NAME...]
 *
 * Without names all tests run. The guard is an alarm for each test: it ends a run that hangs and is no part of any check.
 */
#include "support.h"

#include "platform/meta_alloc.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { REPORTS = 64, REPORT_LINE = 512, USUAL_GUARD_S = 60 };

static struct {
    test_case *tests; /* in the order of the file */
    const char *running;
    uint64_t seed;
    unsigned scale;
    unsigned guard;
    const char *sabotage;
} runner = {.scale = 1, .guard = USUAL_GUARD_S};

static struct {
    pthread_mutex_t lock;
    char lines[REPORTS][REPORT_LINE];
    size_t first; /* the oldest that is not expected yet */
    size_t count; /* all that came in this test */
} reports = {.lock = PTHREAD_MUTEX_INITIALIZER};

void
test_register(test_case *test)
{
    test_case **end = &runner.tests;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = test;
}

unsigned
test_scale(void)
{
    return runner.scale;
}

const char *
test_sabotage(void)
{
    return runner.sabotage;
}

/* ---- checks ------------------------------------------------------------------------------------------------------ */

void
test_fail(const char *file, int line, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    fprintf(stderr, "FAILED %s at %s:%d: %s\n  replay with: --seed %" PRIu64 " --scale %u %s\n",
            runner.running == NULL ? "(no test)" : runner.running, file, line, text, runner.seed, runner.scale,
            runner.running == NULL ? "" : runner.running);
    fflush(stderr);
    _exit(1);
}

void
check_int(const char *file, int line, const char *text, int64_t found, int64_t wanted)
{
    if (found != wanted) {
        test_fail(file, line, "%s is %" PRId64 ", not %" PRId64, text, found, wanted);
    }
}

void
check_uint(const char *file, int line, const char *text, uint64_t found, uint64_t wanted)
{
    if (found != wanted) {
        test_fail(file, line, "%s is %" PRIu64 ", not %" PRIu64, text, found, wanted);
    }
}

void
check_pointer(const char *file, int line, const char *text, const void *found, const void *wanted)
{
    if (found != wanted) {
        test_fail(file, line, "%s is %p, not %p", text, found, wanted);
    }
}

void
check_string(const char *file, int line, const char *text, const char *found, const char *wanted)
{
    if (found == NULL || strcmp(found, wanted) != 0) {
        test_fail(file, line, "%s is '%s', not '%s'", text, found == NULL ? "(null)" : found, wanted);
    }
}

void
check_status(const char *file, int line, const char *text, pyrt_status found, pyrt_status wanted)
{
    if (found != wanted) {
        test_fail(file, line, "%s answers '%s', not '%s'", text, pyrt_strerror(found), pyrt_strerror(wanted));
    }
}

/* ---- reports ----------------------------------------------------------------------------------------------------- */

static void
keep_report(const char *message, void *unused)
{
    (void)unused;
    pthread_mutex_lock(&reports.lock);
    if (reports.count < REPORTS) {
        snprintf(reports.lines[reports.count], REPORT_LINE, "%s", message);
    }
    reports.count++;
    pthread_mutex_unlock(&reports.lock);
}

size_t
reports_pending(void)
{
    pthread_mutex_lock(&reports.lock);
    size_t pending = reports.count - reports.first;
    pthread_mutex_unlock(&reports.lock);
    return pending;
}

void
reports_forget(void)
{
    pthread_mutex_lock(&reports.lock);
    if (reports.first == reports.count) {
        reports.first = reports.count = 0;
    }
    pthread_mutex_unlock(&reports.lock);
}

void
expect_report(const char *file, int line, const char *const *parts, size_t count)
{
    pthread_mutex_lock(&reports.lock);
    if (reports.first == reports.count || reports.first >= REPORTS) {
        test_fail(file, line, "nothing was reported; wanted a text with '%s'", parts[0]);
    }
    const char *report = reports.lines[reports.first++];
    for (size_t i = 0; i < count; i++) {
        bool first = parts[i][0] == '^';
        if (first ? strncmp(report, parts[i] + 1, strlen(parts[i] + 1)) != 0 : strstr(report, parts[i]) == NULL) {
            test_fail(file, line, "reported was '%s', in which '%s' is missing", report, parts[i]);
        }
    }
    pthread_mutex_unlock(&reports.lock);
}

static void
check_no_report_left(void)
{
    if (reports_pending() != 0) {
        FAIL("%zu unexpected reports, the first: '%s'", reports.count - reports.first,
             reports.first < REPORTS ? reports.lines[reports.first] : "(lost)");
    }
}

const char *
named(const pyrt_thread *thread)
{
    static __thread char text[40];
    snprintf(text, sizeof(text), "thread %" PRIu64 " ", thread->id);
    return text;
}

/* ---- the runtime under test -------------------------------------------------------------------------------------- */

void
runtime_up(void)
{
    CHECK_OK(pyrt_runtime_init());
}

/* Not there where a test is linked to the shared library, which shows what is public. */
#pragma weak pyrt_meta_live_bytes

static size_t
live_bytes(void)
{
    return pyrt_meta_live_bytes == NULL ? 0 : pyrt_meta_live_bytes();
}

void
runtime_down(void)
{
    CHECK_OK(pyrt_runtime_fini());
    CHECK(!pyrt_runtime_is_initialized());
    CHECK_UINT(live_bytes(), 0);
}

int32_t
state_of(const pyrt_thread *thread)
{
    pyrt_thread_info infos[32];
    size_t count = pyrt_thread_list(thread->interp, infos, 32);
    for (size_t i = 0; i < count && i < 32; i++) {
        if (infos[i].id == thread->id) {
            return infos[i].state;
        }
    }
    return PYRT_STATE_SHUTTING_DOWN;
}

uint64_t
stat_of(pyrt_interp *interp, const char *name)
{
    uint64_t values[64];
    size_t count = pyrt_qsbr_stats_read(interp, values, 64);
    for (size_t i = 0; i < count && i < 64; i++) {
        if (strcmp(pyrt_qsbr_stats_name(i), name) == 0) {
            return values[i];
        }
    }
    FAIL("there is no statistic '%s'", name);
}

/* ---- random choices ---------------------------------------------------------------------------------------------- */

uint64_t
test_seed(void)
{
    return runner.seed;
}

/* A counter put through a mixing function: every seed and number gives a good stream. */
uint64_t
random_next(random_stream *stream)
{
    uint64_t mixed = stream->state += 0x9e3779b97f4a7c15u;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    return mixed ^ (mixed >> 31);
}

random_stream
random_for(uint64_t number)
{
    random_stream seeded = {runner.seed};
    return (random_stream){random_next(&seeded) ^ (number * 0xd1342543de82ef95u)};
}

uint32_t
random_below(random_stream *stream, uint32_t below)
{
    return (uint32_t)(((random_next(stream) >> 32) * below) >> 32);
}

/* ---- the run ----------------------------------------------------------------------------------------------------- */

static void
on_alarm(int signal)
{
    (void)signal;
    static const char text[] = "HANGS: the guard ended ";
    ssize_t ignored = write(STDERR_FILENO, text, sizeof(text) - 1);
    ignored += write(STDERR_FILENO, runner.running, strlen(runner.running));
    ignored += write(STDERR_FILENO, "\n", 1);
    _exit(ignored != 0 ? 124 : 125);
}

static void
run(const test_case *test)
{
    runner.running = test->name;
    reports.first = reports.count = 0;
    pyrt_set_report_hook(keep_report, NULL);
    pyrt_set_block_hooks(NULL);
    /* AddressSanitizer starts with watched pages: it is to see the others too. */
    (void)pyrt_heap_debug(0);
    alarm(runner.guard * runner.scale);
    test->run();
    alarm(0);
    check_no_report_left();
    CHECK(!pyrt_runtime_is_initialized());
    CHECK_UINT(live_bytes(), 0);
    CHECK_PTR(pyrt_thread_current(), NULL);
    printf("ok %s\n", test->name);
    fflush(stdout);
    runner.running = NULL;
}

static const test_case *
find(const char *name)
{
    const test_case *test = runner.tests;
    while (test != NULL && strcmp(test->name, name) != 0) {
        test = test->next;
    }
    if (test == NULL) {
        fprintf(stderr, "there is no test '%s'; --list names them\n", name);
        exit(2);
    }
    return test;
}

static const char *
value_of(int argc, char **argv, int *i)
{
    if (*i + 1 >= argc) {
        fprintf(stderr, "%s wants a value\n", argv[*i]);
        exit(2);
    }
    return argv[++*i];
}

/* Options first; answers the index of the first name. */
static int
read_options(int argc, char **argv)
{
    int i = 1;
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "--list") == 0) {
            for (const test_case *test = runner.tests; test != NULL; test = test->next) {
                puts(test->name);
            }
            exit(0);
        }
        else if (strcmp(argv[i], "--seed") == 0) {
            runner.seed = strtoull(value_of(argc, argv, &i), NULL, 0);
        }
        else if (strcmp(argv[i], "--scale") == 0) {
            runner.scale = (unsigned)strtoul(value_of(argc, argv, &i), NULL, 0);
        }
        else if (strcmp(argv[i], "--guard") == 0) {
            runner.guard = (unsigned)strtoul(value_of(argc, argv, &i), NULL, 0);
        }
        else if (strcmp(argv[i], "--break") == 0) {
            runner.sabotage = value_of(argc, argv, &i);
        }
        else {
            fprintf(stderr, "unknown option %s\n", argv[i]);
            exit(2);
        }
    }
    return i;
}

int
main(int argc, char **argv)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    runner.seed = (uint64_t)now.tv_sec * 1000000007u + (uint64_t)now.tv_nsec;
    int first_name = read_options(argc, argv);
    signal(SIGALRM, on_alarm);
    printf("seed %" PRIu64 "\n", runner.seed);
    fflush(stdout);
    if (first_name == argc) {
        for (const test_case *test = runner.tests; test != NULL; test = test->next) {
            run(test);
        }
    }
    for (int i = first_name; i < argc; i++) {
        run(find(argv[i]));
    }
    return 0;
}
