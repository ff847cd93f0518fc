/* SPDX-License-Identifier: MIT
 *
 * errors.hpp -- a pyrt_status as an exception, and what the other headers for C++ have in common. pyruntime.hpp includes them all.
 */
#ifndef PYRUNTIME_ERRORS_HPP
#define PYRUNTIME_ERRORS_HPP

#if !defined(__cplusplus) || __cplusplus < 201703L
#    error "pyruntime.hpp needs C++17"
#endif

#include "pyruntime.h"

#include <chrono>
#include <cstddef>
#include <new>
#include <string>
#include <system_error>

/* Through the table nothing of this leaves the shared object: the functions of another one may have another table, or none yet. */
#if defined(PYRT_USE_CAPI)
#    define PYRT_OWN __attribute__((visibility("hidden")))
#else
#    define PYRT_OWN
#endif

namespace pyruntime PYRT_OWN {

class status_category_type final : public std::error_category {
  public:
    const char *
    name() const noexcept override
    {
        return "pyruntime";
    }

    std::string
    message(int status) const override
    {
        return pyrt_strerror(static_cast<pyrt_status>(status));
    }

    std::error_condition
    default_error_condition(int status) const noexcept override
    {
        switch (static_cast<pyrt_status>(status)) {
        case PYRT_ENOMEM:
            return std::errc::not_enough_memory;
        case PYRT_EINVAL:
            return std::errc::invalid_argument;
        case PYRT_ESTATE:
            return std::errc::operation_not_permitted;
        case PYRT_ETIMEDOUT:
            return std::errc::timed_out;
        case PYRT_EBUSY:
            return std::errc::device_or_resource_busy;
        case PYRT_EOVERFLOW:
            return std::errc::value_too_large;
        case PYRT_EEXIST:
            return std::errc::file_exists;
        case PYRT_EINTR:
            return std::errc::interrupted;
        case PYRT_EDEADLK:
            return std::errc::resource_deadlock_would_occur;
        case PYRT_ENOTSUP:
            return std::errc::not_supported;
        case PYRT_OK:
        case PYRT_ENOTFOUND:
        case PYRT_ENOTSHAREABLE:
        case PYRT_EVERSION:
            break;
        }
        return std::error_condition(status, *this);
    }
};

/* Of the codes that are thrown. It outlives every static object: threads may still run when those are gone. */
inline const std::error_category &
status_category() noexcept
{
    alignas(status_category_type) static unsigned char room[sizeof(status_category_type)];
    static const status_category_type *category = ::new (static_cast<void *>(room)) status_category_type;
    return *category;
}

/* Throws what a status stands for, unless it is PYRT_OK. For the C functions that have no form here:
 * check(pyrt_qsbr_barrier(nullptr), "pyrt_qsbr_barrier"). */
inline void
check(pyrt_status status, const char *what)
{
    if (pyrt_unlikely(status != PYRT_OK)) {
        if (status == PYRT_ENOMEM) {
            throw std::bad_alloc();
        }
        throw std::system_error(static_cast<int>(status), status_category(), what);
    }
}

namespace detail {

/* A duration as the C functions take it, where a negative one has no end: rounded up, and cut to what there is. */
template <class Rep, class Period>
constexpr int64_t
timeout_ns(const std::chrono::duration<Rep, Period> &duration)
{
    using longest = std::chrono::duration<long double, std::nano>;
    if (!(duration > duration.zero())) {
        return 0;
    }
    if (longest(duration) >= longest(static_cast<long double>(INT64_MAX))) {
        return INT64_MAX;
    }
    return static_cast<int64_t>(std::chrono::ceil<std::chrono::duration<int64_t, std::nano>>(duration).count());
}

/* By any clock: one that was set while we waited is looked at again. */
template <class Clock, class Duration, class Attempt>
bool
until(const std::chrono::time_point<Clock, Duration> &end, const Attempt &attempt)
{
    for (;;) {
        auto now = Clock::now();
        bool late = !(now < end);
        if (attempt(late ? 0 : timeout_ns(end - now))) {
            return true;
        }
        if (late) {
            return false;
        }
    }
}

inline bool
in_time(pyrt_status status, const char *what)
{
    if (status == PYRT_ETIMEDOUT) {
        return false;
    }
    check(status, what);
    return true;
}

/* A lock is where it is: others know its address. */
struct immovable {
    immovable() = default;
    immovable(const immovable &) = delete;
    immovable &operator=(const immovable &) = delete;
};

/* A section lies on the stack. */
struct scoped : immovable {
    static void *operator new(std::size_t) = delete;
    static void *operator new[](std::size_t) = delete;
};

} // namespace detail

} // namespace pyruntime PYRT_OWN

#endif /* PYRUNTIME_ERRORS_HPP */
