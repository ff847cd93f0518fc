/* malloc.c -- the malloc family of the C library and C++'s new and delete, over the process's domain of the core.
 *
 * `make malloc` builds it together with the core into libpyruntime-malloc.so, for LD_PRELOAD. Only the names below leave
 * that object. Nothing here, nor in the allocation paths below it, calls a function of the C library that can allocate but
 * pthread_setspecific, once in a thread, when that thread can allocate already.
 */
#include "platform/report.h"

#include <errno.h>
#include <pyruntime/heap.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

/* What C++ calls when it has no memory, and the exception then: both only if there is C++ in the process. */
typedef void (*new_handler)(void);
extern new_handler _ZSt15get_new_handlerv(void) __attribute__((weak));
extern void _ZSt17__throw_bad_allocv(void) __attribute__((weak, noreturn));

/* PYRUNTIME_HEAP_DEBUG=check or =fill in the environment: what pyrt_heap_debug says, from here on. Nothing, or =off: no. */
__attribute__((constructor)) static void
debug_if_wanted(void)
{
    const char *wanted = getenv("PYRUNTIME_HEAP_DEBUG");
    if (wanted == NULL || *wanted == '\0' || strcmp(wanted, "off") == 0) {
        return;
    }
    if (strcmp(wanted, "check") == 0) {
        (void)pyrt_heap_debug(PYRT_HEAP_DEBUG_CHECK);
    }
    else if (strcmp(wanted, "fill") == 0) {
        (void)pyrt_heap_debug(PYRT_HEAP_DEBUG_CHECK | PYRT_HEAP_DEBUG_FILL);
    }
    else {
        pyrt_report("PYRUNTIME_HEAP_DEBUG is '%.40s', which is none of check, fill and off: blocks are not watched", wanted);
    }
}

/* ---- C ----------------------------------------------------------------------------------------------------------- */

EXPORTED void *
malloc(size_t size)
{
    return pyrt_malloc(size);
}

EXPORTED void *
calloc(size_t n, size_t size)
{
    return pyrt_calloc(n, size);
}

/* As the C library does: a block that is to have no byte is freed. pyrt_realloc answers a small one. */
static void *
resize(void *block, size_t size)
{
    if (block != NULL && size == 0) {
        pyrt_free(block);
        return NULL;
    }
    return pyrt_realloc(block, size);
}

EXPORTED void *
realloc(void *block, size_t size)
{
    return resize(block, size);
}

EXPORTED void *
reallocarray(void *block, size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return resize(block, bytes);
}

EXPORTED void
free(void *block)
{
    pyrt_free(block);
}

EXPORTED void
cfree(void *block)
{
    pyrt_free(block);
}

EXPORTED void *
aligned_alloc(size_t align, size_t size)
{
    return pyrt_aligned_alloc(align, size);
}

/* Older than the rule that it has to be a power of two: what is none is rounded up. */
EXPORTED void *
memalign(size_t align, size_t size)
{
    if (align > SIZE_MAX / 2 + 1) {
        errno = EINVAL;
        return NULL;
    }
    size_t power = 1;
    while (power < align) {
        power *= 2;
    }
    return pyrt_aligned_alloc(power, size);
}

EXPORTED int
posix_memalign(void **block, size_t align, size_t size)
{
    if (align < sizeof(void *) || (align & (align - 1)) != 0) {
        return EINVAL;
    }
    int saved_errno = errno;
    void *made = pyrt_aligned_alloc(align, size);
    errno = saved_errno;
    if (made == NULL) {
        return ENOMEM;
    }
    *block = made;
    return 0;
}

EXPORTED void *
valloc(size_t size)
{
    return pyrt_aligned_alloc((size_t)sysconf(_SC_PAGESIZE), size);
}

EXPORTED void *
pvalloc(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (size > PTRDIFF_MAX) {
        errno = ENOMEM;
        return NULL;
    }
    return pyrt_aligned_alloc(page, (size + page - 1) & ~(page - 1));
}

EXPORTED size_t
malloc_usable_size(void *block)
{
    return pyrt_usable_size(block);
}

/* C23. */
EXPORTED void
free_sized(void *block, size_t size)
{
    (void)size;
    pyrt_free(block);
}

EXPORTED void
free_aligned_sized(void *block, size_t align, size_t size)
{
    (void)align, (void)size;
    pyrt_free(block);
}

/* Under these names the C library has them too, and who calls one of them frees with the usual name, or the other way round. */
#define DEFINE_OTHER_NAME(result, name, parameters, call) \
    EXPORTED result name parameters                       \
    {                                                     \
        return call;                                      \
    }

DEFINE_OTHER_NAME(void *, __libc_malloc, (size_t size), pyrt_malloc(size))
DEFINE_OTHER_NAME(void *, __libc_calloc, (size_t n, size_t size), pyrt_calloc(n, size))
DEFINE_OTHER_NAME(void *, __libc_realloc, (void *block, size_t size), resize(block, size))
DEFINE_OTHER_NAME(void *, __libc_memalign, (size_t align, size_t size), memalign(align, size))
DEFINE_OTHER_NAME(void *, __libc_valloc, (size_t size), valloc(size))
DEFINE_OTHER_NAME(void *, __libc_pvalloc, (size_t size), pvalloc(size))

EXPORTED void
__libc_free(void *block)
{
    pyrt_free(block);
}

/* ---- C++, by the names that its compilers give to them ------------------------------------------------------------ */

static void *
allocate(size_t size, size_t align)
{
    return align <= 16 ? pyrt_malloc(size) : pyrt_aligned_alloc(align, size);
}

static void *
new_or_throw(size_t size, size_t align)
{
    for (;;) {
        void *block = allocate(size, align);
        if (block != NULL) {
            return block;
        }
        new_handler handler = _ZSt15get_new_handlerv != NULL ? _ZSt15get_new_handlerv() : NULL;
        if (handler != NULL) {
            handler();
        }
        else if (_ZSt17__throw_bad_allocv != NULL) {
            _ZSt17__throw_bad_allocv();
        }
        else {
            abort();
        }
    }
}

/* The handler may throw, and nothing here could catch it: it is not asked. */
#define DEFINE_NEW(name)                                                                                 \
    EXPORTED void *_Zn##name##m(size_t size)                                                             \
    {                                                                                                    \
        return new_or_throw(size, 1);                                                                    \
    }                                                                                                    \
    EXPORTED void *_Zn##name##mSt11align_val_t(size_t size, size_t align)                                \
    {                                                                                                    \
        return new_or_throw(size, align);                                                                \
    }                                                                                                    \
    EXPORTED void *_Zn##name##mRKSt9nothrow_t(size_t size, const void *tag)                              \
    {                                                                                                    \
        (void)tag;                                                                                       \
        return allocate(size, 1);                                                                        \
    }                                                                                                    \
    EXPORTED void *_Zn##name##mSt11align_val_tRKSt9nothrow_t(size_t size, size_t align, const void *tag) \
    {                                                                                                    \
        (void)tag;                                                                                       \
        return allocate(size, align);                                                                    \
    }

#define DEFINE_DELETE(name)                                                                              \
    EXPORTED void _Zd##name##Pv(void *block)                                                             \
    {                                                                                                    \
        pyrt_free(block);                                                                                \
    }                                                                                                    \
    EXPORTED void _Zd##name##Pvm(void *block, size_t size)                                               \
    {                                                                                                    \
        (void)size;                                                                                      \
        pyrt_free(block);                                                                                \
    }                                                                                                    \
    EXPORTED void _Zd##name##PvSt11align_val_t(void *block, size_t align)                                \
    {                                                                                                    \
        (void)align;                                                                                     \
        pyrt_free(block);                                                                                \
    }                                                                                                    \
    EXPORTED void _Zd##name##PvmSt11align_val_t(void *block, size_t size, size_t align)                  \
    {                                                                                                    \
        (void)size;                                                                                      \
        (void)align;                                                                                     \
        pyrt_free(block);                                                                                \
    }                                                                                                    \
    EXPORTED void _Zd##name##PvRKSt9nothrow_t(void *block, const void *tag)                              \
    {                                                                                                    \
        (void)tag;                                                                                       \
        pyrt_free(block);                                                                                \
    }                                                                                                    \
    EXPORTED void _Zd##name##PvSt11align_val_tRKSt9nothrow_t(void *block, size_t align, const void *tag) \
    {                                                                                                    \
        (void)align;                                                                                     \
        (void)tag;                                                                                       \
        pyrt_free(block);                                                                                \
    }

DEFINE_NEW(w)
DEFINE_NEW(a)
DEFINE_DELETE(l)
DEFINE_DELETE(a)
