/* report.c -- status texts, the report hook, and the block hooks. */
#include "platform/report.h"

#include "platform/raw_mutex.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { LINE = 512 };

static struct {
    pyrt_raw_mutex lock; /* keeps hook and arg together */
    void (*hook)(const char *, void *);
    void *arg;
} report;

/* Where reports of this OS thread wait, or NULL. */
static __thread pyrt_held_reports *holding __attribute__((tls_model("initial-exec")));

/* Written while no thread is inside the library (block.h), read without a lock. */
static pyrt_block_hooks block_hooks;

const char *
pyrt_strerror(pyrt_status status)
{
    static const char *const texts[] = {
        [PYRT_OK] = "success",
        [PYRT_ENOMEM] = "out of memory",
        [PYRT_EINVAL] = "invalid argument",
        [PYRT_ESTATE] = "not possible in this state",
        [PYRT_ETIMEDOUT] = "timed out",
        [PYRT_EBUSY] = "busy: in use, or a bound is passed",
        [PYRT_ENOTFOUND] = "not found",
        [PYRT_EOVERFLOW] = "a number does not fit",
        [PYRT_ENOTSHAREABLE] = "object cannot be shared between interpreters",
        [PYRT_EEXIST] = "exists already",
        [PYRT_EINTR] = "interrupted by a signal",
        [PYRT_EDEADLK] = "would wait for ever",
        [PYRT_ENOTSUP] = "not supported here",
        [PYRT_EVERSION] = "versions do not fit together",
    };
    if ((unsigned)status < sizeof(texts) / sizeof(texts[0])) {
        return texts[status];
    }
    return "unknown status";
}

const char *
pyrt_version(void)
{
    return PYRT_VERSION;
}

void
pyrt_set_report_hook(void (*hook)(const char *message, void *arg), void *arg)
{
    pyrt_raw_mutex_lock(&report.lock);
    report.hook = hook;
    report.arg = arg;
    pyrt_raw_mutex_unlock(&report.lock);
}

static void
tell(const char *line)
{
    pyrt_raw_mutex_lock(&report.lock);
    void (*hook)(const char *, void *) = report.hook;
    void *arg = report.arg;
    pyrt_raw_mutex_unlock(&report.lock);
    if (hook != NULL) {
        hook(line, arg);
        return;
    }
    fprintf(stderr, "pyruntime: %s\n", line);
}

static void
keep(pyrt_held_reports *held, const char *line)
{
    size_t bytes = strlen(line) + 1;
    if (held->lost != 0 || bytes > sizeof(held->text) - held->used) {
        held->lost++;
        return;
    }
    memcpy(held->text + held->used, line, bytes);
    held->used += bytes;
}

void
pyrt_report(const char *format, ...)
{
    char line[LINE];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    if (holding != NULL) {
        keep(holding, line);
    }
    else {
        tell(line);
    }
}

void
pyrt_report_hold(pyrt_held_reports *held)
{
    held->used = held->lost = 0;
    held->is_inner = holding != NULL;
    holding = held->is_inner ? holding : held;
}

void
pyrt_report_tell(pyrt_held_reports *held)
{
    if (held->is_inner) {
        return;
    }
    holding = NULL;
    for (size_t at = 0; at < held->used; at += strlen(held->text + at) + 1) {
        tell(held->text + at);
    }
    if (held->lost != 0) {
        pyrt_report("and %zu report%s more like the last one", held->lost, held->lost == 1 ? "" : "s");
    }
}

void
pyrt_set_block_hooks(const pyrt_block_hooks *hooks_or_null)
{
    block_hooks = hooks_or_null == NULL ? (pyrt_block_hooks){NULL, NULL} : *hooks_or_null;
}

void *
pyrt_block_before(void)
{
    return block_hooks.before == NULL ? NULL : block_hooks.before();
}

void
pyrt_block_after(void *saved)
{
    if (block_hooks.after != NULL) {
        block_hooks.after(saved);
    }
}

bool
pyrt_block_hooks_are_set(void)
{
    return block_hooks.after != NULL;
}

void
pyrt_report_fork_child(void)
{
    pyrt_raw_mutex_reinit(&report.lock);
}
