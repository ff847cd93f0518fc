/* SPDX-License-Identifier: MIT
 *
 * config.h -- what every public header starts from: the two ways in, and a few compiler words.
 *
 * There are two ways to use these headers, and the same source text works in both:
 *
 *   compiled in     include the headers, compile csrc/core/ into your program or extension, call the functions.
 *   through a table include <pyruntime/capi.h> before any other pyruntime header; every out-of-line call then goes through
 *                   the function table of the one runtime that the process already has. Nothing of the core is linked.
 *
 * In the text of the headers an out-of-line call of pyrt_name is therefore written PYRT_CALL(name).
 */
#ifndef PYRUNTIME_CONFIG_H
#define PYRUNTIME_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PYRT_VERSION "0.1.0"

/* A break of the table's layout, and the number of times that it was appended to. */
#define PYRT_ABI_MAJOR 0
#define PYRT_ABI_MINOR 3

/* What the public headers declare is what a shared library of the core exports (PYRT_EXPORT, in its build alone). */
#if defined(PYRT_EXPORT)
#    define PYRT_VISIBLE_BEGIN _Pragma("GCC visibility push(default)")
#    define PYRT_VISIBLE_END _Pragma("GCC visibility pop")
#else
#    define PYRT_VISIBLE_BEGIN
#    define PYRT_VISIBLE_END
#endif

#if defined(__cplusplus)
#    define PYRT_BEGIN_DECLS          \
        PYRT_VISIBLE_BEGIN extern "C" \
        {
#    define PYRT_END_DECLS \
        }                  \
        PYRT_VISIBLE_END
#    define PYRT_STATIC_ASSERT(condition, message) static_assert(condition, message)
#else
#    define PYRT_BEGIN_DECLS PYRT_VISIBLE_BEGIN
#    define PYRT_END_DECLS PYRT_VISIBLE_END
#    define PYRT_STATIC_ASSERT(condition, message) _Static_assert(condition, message)
#endif

#define PYRT_ALIGNED(n) __attribute__((aligned(n)))
#define pyrt_likely(condition) __builtin_expect(!!(condition), 1)
#define pyrt_unlikely(condition) __builtin_expect(!!(condition), 0)

#if !defined(__linux__) || !(defined(__x86_64__) || defined(__aarch64__)) || !defined(__LP64__)
#    error "pyruntime supports 64-bit Linux on x86-64 and aarch64; csrc/core/platform is what a port has to replace"
#endif

/* Who compiles the core in gives it names that nobody else has, with -DPYRT_PREFIX=mine_ for the core and for all that includes
 * its headers: pyrt_malloc is then mine_pyrt_malloc for the linker, and still pyrt_malloc in the text. */
#if defined(PYRT_PREFIX)
#    define PYRT_PREFIXED_AS(prefix, name) prefix##name
#    define PYRT_PREFIXED_WITH(prefix, name) PYRT_PREFIXED_AS(prefix, name)
#    define PYRT_PREFIXED(name) PYRT_PREFIXED_WITH(PYRT_PREFIX, name)
#    include "prefix.h"
#    if defined(PYRT_USE_CAPI)
#        define pyrt_capi_own PYRT_PREFIXED(pyrt_capi_own)
#        define pyrt_capi_pointer PYRT_PREFIXED(pyrt_capi_pointer)
#        define pyrt_capi_tls_offset PYRT_PREFIXED(pyrt_capi_tls_offset)
#    endif
#endif

/* Opaque everywhere but in the core, and declared once for all headers. */
typedef struct pyrt_interp pyrt_interp;
typedef struct pyrt_thread pyrt_thread;

#if defined(PYRT_USE_CAPI)
#    include "capi_table.h"
#    define PYRT_CALL(name) (pyrt_capi_pointer->name)
#else
#    define PYRT_CALL(name) pyrt_##name
#endif

#endif /* PYRUNTIME_CONFIG_H */
