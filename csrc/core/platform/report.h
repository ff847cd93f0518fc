/* report.h -- the library's one way to say something that no caller can be told of. */
#ifndef PYRT_REPORT_H
#define PYRT_REPORT_H

#include <pyruntime/block.h>
#include <pyruntime/status.h>

/* Formats one line and hands it to the report hook. Call it with no lock held: the hook is user code. */
void pyrt_report(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Around a real sleep, with no lock of ours held: pyrt_block_before lets go of the host's locks, pyrt_block_after takes
 * them again and may never return. */
void *pyrt_block_before(void);
void pyrt_block_after(void *saved);

/* Whether there is a host that may keep a thread in them. */
bool pyrt_block_hooks_are_set(void);

void pyrt_report_fork_child(void);

#endif
