/* report.h -- the library's one way to say something that no caller can be told of. */
#ifndef PYRT_REPORT_H
#define PYRT_REPORT_H

#include <pyruntime/block.h>
#include <pyruntime/status.h>

/* Formats one line and hands it to the report hook. Call it with no lock held, or after pyrt_report_hold: the hook is user
 * code. */
void pyrt_report(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* What is found while a lock is held, or in the middle of something that a hook would find half done, waits on this OS thread's
 * stack until pyrt_report_tell: the first reports, and how many there were besides. One inside of another leaves it to that. */
typedef struct pyrt_held_reports {
    bool is_inner;
    size_t used, lost;
    char text[2048]; /* lines, each with its zero */
} pyrt_held_reports;

void pyrt_report_hold(pyrt_held_reports *held);
void pyrt_report_tell(pyrt_held_reports *held);

/* Around a real sleep, with no lock of ours held: pyrt_block_before lets go of the host's locks, pyrt_block_after takes
 * them again and may never return. */
void *pyrt_block_before(void);
void pyrt_block_after(void *saved);

/* Whether there is a host that may keep a thread in them. */
bool pyrt_block_hooks_are_set(void);

void pyrt_report_fork_child(void);

#endif
