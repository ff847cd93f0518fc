/* SPDX-License-Identifier: MIT
 *
 * locks.hpp -- locks that the guards of the standard take, and what threads wait for: mutex, recursive_mutex, shared_mutex,
 * condition_variable, event, once.
 *
 * They need no runtime, start from constant initialisation, and cost what the C types cost, whose sizes they have.
 */
#ifndef PYRUNTIME_LOCKS_HPP
#define PYRUNTIME_LOCKS_HPP

#include "errors.hpp"

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <utility>

namespace pyruntime PYRT_OWN {

/* mutex.h. TimedLockable. */
class mutex : detail::immovable {
  public:
    using native_handle_type = pyrt_mutex *;

    constexpr mutex() noexcept = default;

    void
    lock()
    {
        pyrt_mutex_lock(&mutex_);
    }

    bool
    try_lock() noexcept
    {
        return pyrt_mutex_trylock(&mutex_);
    }

    void
    unlock() noexcept
    {
        pyrt_mutex_unlock(&mutex_);
    }

    template <class Rep, class Period>
    bool
    try_lock_for(const std::chrono::duration<Rep, Period> &duration)
    {
        return lock_in(detail::timeout_ns(duration));
    }

    template <class Clock, class Duration>
    bool
    try_lock_until(const std::chrono::time_point<Clock, Duration> &end)
    {
        return detail::until(end, [this](int64_t ns) { return lock_in(ns); });
    }

    pyrt_mutex *
    native_handle() noexcept
    {
        return &mutex_;
    }

  private:
    bool
    lock_in(int64_t ns)
    {
        return detail::in_time(pyrt_mutex_lock_timed(&mutex_, ns, PYRT_LOCK_DETACH), "pyruntime::mutex");
    }

    pyrt_mutex mutex_ = PYRT_MUTEX_INIT;
};

/* recursive_mutex.h. TimedLockable, by its owner as often as it likes. */
class recursive_mutex : detail::immovable {
  public:
    using native_handle_type = pyrt_recursive_mutex *;

    constexpr recursive_mutex() noexcept = default;

    void
    lock()
    {
        pyrt_recursive_mutex_lock(&mutex_);
    }

    bool
    try_lock() noexcept
    {
        return pyrt_recursive_mutex_trylock(&mutex_);
    }

    void
    unlock() noexcept
    {
        pyrt_recursive_mutex_unlock(&mutex_);
    }

    template <class Rep, class Period>
    bool
    try_lock_for(const std::chrono::duration<Rep, Period> &duration)
    {
        return lock_in(detail::timeout_ns(duration));
    }

    template <class Clock, class Duration>
    bool
    try_lock_until(const std::chrono::time_point<Clock, Duration> &end)
    {
        return detail::until(end, [this](int64_t ns) { return lock_in(ns); });
    }

    pyrt_recursive_mutex *
    native_handle() noexcept
    {
        return &mutex_;
    }

  private:
    bool
    lock_in(int64_t ns)
    {
        return detail::in_time(pyrt_recursive_mutex_lock_timed(&mutex_, ns, PYRT_LOCK_DETACH), "pyruntime::recursive_mutex");
    }

    pyrt_recursive_mutex mutex_ = PYRT_RECURSIVE_MUTEX_INIT;
};

/* rwlock.h. SharedTimedLockable. Whoever holds it, either way, and locks it again gets
 * std::errc::resource_deadlock_would_occur. */
class shared_mutex : detail::immovable {
  public:
    using native_handle_type = pyrt_rwlock *;

    constexpr shared_mutex() noexcept = default;

    void
    lock()
    {
        check(pyrt_rwlock_write_lock(&lock_), "pyruntime::shared_mutex");
    }

    bool
    try_lock() noexcept
    {
        return pyrt_rwlock_write_trylock(&lock_);
    }

    void
    unlock() noexcept
    {
        pyrt_rwlock_write_unlock(&lock_);
    }

    void
    lock_shared()
    {
        check(pyrt_rwlock_read_lock(&lock_), "pyruntime::shared_mutex");
    }

    bool
    try_lock_shared() noexcept
    {
        return pyrt_rwlock_read_trylock(&lock_);
    }

    void
    unlock_shared() noexcept
    {
        pyrt_rwlock_read_unlock(&lock_);
    }

    template <class Rep, class Period>
    bool
    try_lock_for(const std::chrono::duration<Rep, Period> &duration)
    {
        return lock_in(detail::timeout_ns(duration));
    }

    template <class Clock, class Duration>
    bool
    try_lock_until(const std::chrono::time_point<Clock, Duration> &end)
    {
        return detail::until(end, [this](int64_t ns) { return lock_in(ns); });
    }

    template <class Rep, class Period>
    bool
    try_lock_shared_for(const std::chrono::duration<Rep, Period> &duration)
    {
        return lock_shared_in(detail::timeout_ns(duration));
    }

    template <class Clock, class Duration>
    bool
    try_lock_shared_until(const std::chrono::time_point<Clock, Duration> &end)
    {
        return detail::until(end, [this](int64_t ns) { return lock_shared_in(ns); });
    }

    pyrt_rwlock *
    native_handle() noexcept
    {
        return &lock_;
    }

  private:
    bool
    lock_in(int64_t ns)
    {
        return detail::in_time(pyrt_rwlock_write_lock_timed(&lock_, ns, PYRT_LOCK_DETACH), "pyruntime::shared_mutex");
    }

    bool
    lock_shared_in(int64_t ns)
    {
        return detail::in_time(pyrt_rwlock_read_lock_timed(&lock_, ns, PYRT_LOCK_DETACH), "pyruntime::shared_mutex");
    }

    pyrt_rwlock lock_ = PYRT_RWLOCK_INIT;
};

/* condition.h, for std::unique_lock of the first two. std::condition_variable_any takes the locks, too, but sleeps with the GIL
 * and attached: it knows of neither. */
class condition_variable : detail::immovable {
  public:
    using native_handle_type = pyrt_condition *;

    constexpr condition_variable() noexcept = default;

    void
    notify_one() noexcept
    {
        (void)pyrt_condition_notify_one(&condition_);
    }

    void
    notify_all() noexcept
    {
        (void)pyrt_condition_notify_all(&condition_);
    }

    template <class Mutex>
    void
    wait(std::unique_lock<Mutex> &lock)
    {
        check(wait_in(lock.mutex()->native_handle(), -1), "pyruntime::condition_variable");
    }

    template <class Mutex, class Predicate>
    void
    wait(std::unique_lock<Mutex> &lock, Predicate predicate)
    {
        while (!predicate()) {
            wait(lock);
        }
    }

    template <class Mutex, class Clock, class Duration>
    std::cv_status
    wait_until(std::unique_lock<Mutex> &lock, const std::chrono::time_point<Clock, Duration> &end)
    {
        bool notified = detail::until(end, [&](int64_t ns) {
            return detail::in_time(wait_in(lock.mutex()->native_handle(), ns), "pyruntime::condition_variable");
        });
        return notified ? std::cv_status::no_timeout : std::cv_status::timeout;
    }

    template <class Mutex, class Clock, class Duration, class Predicate>
    bool
    wait_until(std::unique_lock<Mutex> &lock, const std::chrono::time_point<Clock, Duration> &end, Predicate predicate)
    {
        while (!predicate()) {
            if (wait_until(lock, end) == std::cv_status::timeout) {
                return predicate();
            }
        }
        return true;
    }

    template <class Mutex, class Rep, class Period>
    std::cv_status
    wait_for(std::unique_lock<Mutex> &lock, const std::chrono::duration<Rep, Period> &duration)
    {
        bool notified = detail::in_time(wait_in(lock.mutex()->native_handle(), detail::timeout_ns(duration)),
                                        "pyruntime::condition_variable");
        return notified ? std::cv_status::no_timeout : std::cv_status::timeout;
    }

    template <class Mutex, class Rep, class Period, class Predicate>
    bool
    wait_for(std::unique_lock<Mutex> &lock, const std::chrono::duration<Rep, Period> &duration, Predicate predicate)
    {
        std::chrono::nanoseconds longest(detail::timeout_ns(duration));
        std::chrono::steady_clock::time_point now = std::chrono::steady_clock::now();
        std::chrono::nanoseconds most = std::chrono::steady_clock::time_point::max() - now;
        return wait_until(lock, now + (longest < most ? longest : most), std::move(predicate));
    }

    pyrt_condition *
    native_handle() noexcept
    {
        return &condition_;
    }

  private:
    pyrt_status
    wait_in(pyrt_mutex *mutex, int64_t ns)
    {
        return pyrt_condition_wait_timed(&condition_, mutex, ns, PYRT_LOCK_DETACH);
    }

    pyrt_status
    wait_in(pyrt_recursive_mutex *mutex, int64_t ns)
    {
        return pyrt_condition_wait_recursive(&condition_, mutex, ns, PYRT_LOCK_DETACH);
    }

    pyrt_condition condition_ = PYRT_CONDITION_INIT;
};

/* event.h. */
class event : detail::immovable {
  public:
    using native_handle_type = pyrt_event *;

    constexpr event() noexcept = default;

    bool
    is_set() const noexcept
    {
        return pyrt_event_is_set(&event_);
    }

    void
    set() noexcept
    {
        pyrt_event_set(&event_);
    }

    void
    clear() noexcept
    {
        pyrt_event_clear(&event_);
    }

    void
    wait()
    {
        pyrt_event_wait(&event_);
    }

    template <class Rep, class Period>
    bool
    wait_for(const std::chrono::duration<Rep, Period> &duration)
    {
        return wait_in(detail::timeout_ns(duration));
    }

    template <class Clock, class Duration>
    bool
    wait_until(const std::chrono::time_point<Clock, Duration> &end)
    {
        return detail::until(end, [this](int64_t ns) { return wait_in(ns); });
    }

    pyrt_event *
    native_handle() noexcept
    {
        return &event_;
    }

  private:
    bool
    wait_in(int64_t ns)
    {
        return detail::in_time(pyrt_event_wait_timed(&event_, ns, PYRT_LOCK_DETACH), "pyruntime::event");
    }

    pyrt_event event_ = PYRT_EVENT_INIT;
};

/* once.h. What the function throws is thrown to the caller that ran it, and another one tries again. */
class once : detail::immovable {
  public:
    using native_handle_type = pyrt_once *;

    constexpr once() noexcept = default;

    bool
    is_done() const noexcept
    {
        return pyrt_once_is_done(&once_);
    }

    /* Throws std::errc::resource_deadlock_would_occur inside of the function itself. */
    template <class Function, class... Arguments>
    void
    call(Function &&function, Arguments &&...arguments)
    {
        std::exception_ptr thrown;
        auto run = [&] { (void)std::invoke(std::forward<Function>(function), std::forward<Arguments>(arguments)...); };
        auto attempt = [&]() -> pyrt_status {
            try {
                run();
            } catch (...) {
                thrown = std::current_exception();
                if (thrown == nullptr) { /* none of C++: the OS thread ends */
                    throw;
                }
                return PYRT_ESTATE;
            }
            return PYRT_OK;
        };
        using attempt_type = decltype(attempt);
        pyrt_status status =
            pyrt_once_call(&once_, [](void *arg) { return (*static_cast<attempt_type *>(arg))(); }, &attempt);
        if (thrown != nullptr) {
            std::rethrow_exception(std::move(thrown));
        }
        check(status, "pyruntime::once");
    }

    pyrt_once *
    native_handle() noexcept
    {
        return &once_;
    }

  private:
    pyrt_once once_ = PYRT_ONCE_INIT;
};

} // namespace pyruntime PYRT_OWN

#endif /* PYRUNTIME_LOCKS_HPP */
