/* test_status.c -- status texts, the version, and the hook through which the library speaks (status.h). */
#include "support.h"

#include "platform/report.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

TEST(every_status_has_a_text_of_its_own)
{
    for (int a = PYRT_OK; a <= PYRT_EVERSION; a++) {
        const char *text = pyrt_strerror((pyrt_status)a);
        CHECK(text != NULL && text[0] != '\0');
        CHECK(strcmp(text, pyrt_strerror((pyrt_status)1000)) != 0);
        for (int b = PYRT_OK; b < a; b++) {
            CHECK(strcmp(text, pyrt_strerror((pyrt_status)b)) != 0);
        }
    }
}

TEST(a_number_that_is_no_status_has_a_text_too)
{
    const int none[] = {-1, PYRT_EVERSION + 1, 1000, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        CHECK_STR(pyrt_strerror((pyrt_status)none[i]), "unknown status");
    }
}

TEST(version_is_that_of_the_headers)
{
    unsigned major;
    unsigned minor;
    unsigned patch;
    char rest;
    CHECK_STR(pyrt_version(), PYRT_VERSION);
    CHECK_INT(sscanf(pyrt_version(), "%u.%u.%u%c", &major, &minor, &patch, &rest), 3);
}

/* ---- the report hook --------------------------------------------------------------------------------------------- */

static struct {
    int calls;
    char line[600];
    void *arg;
    pthread_t thread;
} seen;

static void
see(const char *message, void *arg)
{
    seen.calls++;
    snprintf(seen.line, sizeof(seen.line), "%s", message);
    seen.arg = arg;
    seen.thread = pthread_self();
}

TEST(hook_gets_line_and_argument_on_the_thread_that_noticed)
{
    int argument;
    seen.calls = 0;
    pyrt_set_report_hook(see, &argument);
    pyrt_start_the_world(NULL);
    CHECK_INT(seen.calls, 1);
    CHECK_PTR(seen.arg, &argument);
    CHECK(pthread_equal(seen.thread, pthread_self()));
    CHECK(strstr(seen.line, "pyrt_start_the_world") != NULL);
    CHECK(strchr(seen.line, '\n') == NULL);
}

TEST(a_line_too_long_is_cut)
{
    char text[2000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    pyrt_set_report_hook(see, NULL);
    pyrt_report("%s", text);
    CHECK(strlen(seen.line) >= 400 && strlen(seen.line) < sizeof(seen.line));
    CHECK(strspn(seen.line, "x") == strlen(seen.line));
}

/* It may report itself, and set another hook: no lock of the library is held. */
static void
see_again(const char *message, void *arg)
{
    pyrt_set_report_hook(see, arg);
    pyrt_report("again: %s", message);
}

TEST(hook_may_use_the_hook)
{
    pyrt_set_report_hook(see_again, NULL);
    pyrt_report("once");
    CHECK_STR(seen.line, "again: once");
}

TEST(without_a_hook_the_line_goes_to_stderr)
{
    int ends[2];
    CHECK_INT(pipe(ends), 0);
    fflush(stderr);
    int saved = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    pyrt_set_report_hook(NULL, NULL);
    pyrt_report("a line for %s", "everybody");
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(ends[1]);
    char text[200];
    ssize_t length = read(ends[0], text, sizeof(text) - 1);
    close(ends[0]);
    CHECK(length > 0);
    text[length] = '\0';
    CHECK(strstr(text, "pyruntime") != NULL);
    CHECK(strstr(text, "a line for everybody\n") != NULL);
}
