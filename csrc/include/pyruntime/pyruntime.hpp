/* SPDX-License-Identifier: MIT
 *
 * pyruntime.hpp -- the same for C++17 and later: locks that the standard's guards take, sections that end with their block, and
 * pointers that count, retire and free.
 *
 *      #include <Python.h>                        an extension: first these two, and pyruntime_import() once;
 *      #include <pyruntime/capi.h>                a program with the core compiled in: not
 *      #include <pyruntime/pyruntime.hpp>
 *
 *      pyruntime::mutex mutex;                    static or a member; one byte, needs no runtime
 *      std::scoped_lock guard(mutex, another);
 *
 * Each type is one of the C library's and nothing more, so that C and C++ can share a lock or an object: native_handle() and get()
 * give it. What the C functions promise holds here, too; the lines under each name there say what blocks and what allocates.
 *
 * Errors. What a function answers with a pyrt_status is thrown: std::bad_alloc for PYRT_ENOMEM, else std::system_error with
 * status_category(), whose codes compare with std::errc. Whatever may sleep is not noexcept, the destructors that may among it: a
 * host that ends, as CPython does, may end an OS thread in its sleep, and that unwinds the stack.
 *
 * In an extension nothing of this leaves the shared object, so that two may be compiled against two versions. Compile it with
 * -fvisibility=hidden, as extensions should be: GCC warns of a class with a member of these types that others could see.
 */
#ifndef PYRUNTIME_PYRUNTIME_HPP
#define PYRUNTIME_PYRUNTIME_HPP

#include "errors.hpp"
#include "locks.hpp"
#include "objects.hpp"
#include "retired.hpp"
#include "sections.hpp"

#endif /* PYRUNTIME_PYRUNTIME_HPP */
