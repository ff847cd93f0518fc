/* os_memory.c -- see os_memory.h. */
#include "platform/os_memory.h"

#include <pyruntime/atomic.h>

#include <errno.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>

static size_t mapped_bytes;
static bool (*fault)(void *);
static void *fault_arg;

static bool
must_fail(void)
{
    return fault != NULL && fault(fault_arg);
}

/* Not MAP_NORESERVE: what the machine could never back is refused at once. */
static char *
map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* Maps more than is wanted and cuts off what stands over on both sides. */
static char *
map_and_cut(size_t bytes, size_t align)
{
    char *p = bytes > (size_t)-1 - align ? NULL : map(bytes + align);
    if (p == NULL) {
        return NULL;
    }
    size_t before = -(size_t)p & (align - 1);
    if (before != 0) {
        munmap(p, before);
    }
    if (align != before) {
        munmap(p + before + bytes, align - before);
    }
    return p + before;
}

void *
pyrt_os_map(size_t bytes, size_t align)
{
    int saved_errno = errno;
    char *p = must_fail() ? NULL : map(bytes);
    if (p != NULL && ((size_t)p & (align - 1)) != 0) {
        munmap(p, bytes);
        p = map_and_cut(bytes, align);
    }
    if (p != NULL) {
        /* relaxed: a statistic. */
        pyrt_fetch_add_relaxed(&mapped_bytes, bytes);
    }
    errno = saved_errno;
    return p;
}

void
pyrt_os_unmap(void *start, size_t bytes)
{
    int saved_errno = errno;
    munmap(start, bytes);
    pyrt_fetch_add_relaxed(&mapped_bytes, -bytes);
    errno = saved_errno;
}

bool
pyrt_os_purge(void *start, size_t bytes)
{
    int saved_errno = errno;
    bool done = !must_fail() && madvise(start, bytes, MADV_DONTNEED) == 0;
    errno = saved_errno;
    return done;
}

void
pyrt_os_advise_huge(void *start, size_t bytes, bool wanted)
{
    int saved_errno = errno;
    (void)madvise(start, bytes, wanted ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    errno = saved_errno;
}

size_t
pyrt_os_mapped_bytes(void)
{
    return pyrt_load_relaxed(&mapped_bytes);
}

void
pyrt_os_set_fault(bool (*should_fail)(void *), void *arg)
{
    fault = should_fail;
    fault_arg = arg;
}

/* Where the system has no random bytes yet, it is as hard to guess as where things are, and when. */
static uint64_t
make_secret(void)
{
    uint64_t made = 0;
    if (getrandom(&made, sizeof(made), GRND_NONBLOCK) != (ssize_t)sizeof(made) || made == 0) {
        struct timespec now = {0};
        clock_gettime(CLOCK_MONOTONIC, &now);
        made = ((uint64_t)(uintptr_t)&made ^ (uint64_t)now.tv_nsec) * 0x9E3779B97F4A7C15u | 1;
    }
    return made;
}

uint64_t
pyrt_os_secret(void)
{
    static uint64_t secret;
    /* relaxed, also the swap's failure: it is the number alone that counts. */
    uint64_t found = pyrt_load_relaxed(&secret);
    if (found == 0) {
        uint64_t made = make_secret();
        found = pyrt_cas_acquire(&secret, &found, made) ? made : found;
    }
    return found;
}
