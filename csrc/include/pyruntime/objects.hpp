/* SPDX-License-Identifier: MIT
 *
 * objects.hpp -- pointers that count references to objects (object.h), types of C++ values, weak pointers, and shared slots.
 *
 *      static pyruntime::object_type<std::string> names(pyrt_interp_main(), "name");
 *
 *      auto name = names.make(thread, "anna");         object_ptr<object<std::string>>: name->value
 *      slot.store(name);                               object_slot<...>: any thread loads it without a lock
 *      pyruntime::weak_ptr weak(thread, name);         weak.lock() as long as it lives
 */
#ifndef PYRUNTIME_OBJECTS_HPP
#define PYRUNTIME_OBJECTS_HPP

#include "sections.hpp"

#include <cerrno>
#include <cstddef>
#include <functional>
#include <type_traits>
#include <utility>

namespace pyruntime PYRT_OWN {

namespace detail {

/* The header of a T, and the T of a header: a T is derived from pyrt_object, or has one as `base`, its first member, as in C. */
template <class T>
pyrt_object *
header_of(T *p) noexcept
{
    if constexpr (std::is_same_v<T, pyrt_type>) {
        return reinterpret_cast<pyrt_object *>(p);
    }
    else if constexpr (std::is_base_of_v<pyrt_object, T>) {
        return p;
    }
    else {
        static_assert(!std::is_polymorphic_v<T> && std::is_same_v<decltype(T::base), pyrt_object>,
                      "an object starts with a pyrt_object: derive from it, or have it as first member, `base`");
        return p == nullptr ? nullptr : &p->base;
    }
}

template <class T>
T *
of_header(pyrt_object *object) noexcept
{
    if constexpr (std::is_base_of_v<pyrt_object, T>) {
        static_assert(!std::is_polymorphic_v<T> || std::is_polymorphic_v<pyrt_object>,
                      "the header comes first in an object");
        return static_cast<T *>(object);
    }
    else {
        return reinterpret_cast<T *>(object);
    }
}

[[noreturn]] inline void
throw_errno(const char *what)
{
    check(errno == ENOMEM ? PYRT_ENOMEM : PYRT_EINVAL, what);
    std::terminate();
}

} // namespace detail

/* One reference to an object, or none. Copying counts up, the end counts down; the last one destroys the object, here or on its
 * owner's thread. Both anywhere, attached or not. */
template <class T> class object_ptr {
  public:
    using element_type = T;

    constexpr object_ptr() noexcept = default;
    constexpr object_ptr(std::nullptr_t) noexcept
    {
    }

    /* Takes over a reference that the caller has: what pyrt_object_new and the like have answered. */
    static object_ptr
    adopt(T *or_null) noexcept
    {
        object_ptr made;
        made.object_ = or_null;
        return made;
    }

    /* A reference more. */
    static object_ptr
    share(T *or_null) noexcept
    {
        (void)pyrt_xincref(detail::header_of(or_null));
        return adopt(or_null);
    }

    object_ptr(const object_ptr &other) noexcept : object_ptr(share(other.object_))
    {
    }

    object_ptr(object_ptr &&other) noexcept : object_(other.release())
    {
    }

    object_ptr &
    operator=(const object_ptr &other) noexcept
    {
        object_ptr(other).swap(*this);
        return *this;
    }

    object_ptr &
    operator=(object_ptr &&other) noexcept
    {
        object_ptr(std::move(other)).swap(*this);
        return *this;
    }

    ~object_ptr()
    {
        pyrt_xdecref(detail::header_of(object_));
    }

    T *
    get() const noexcept
    {
        return object_;
    }

    T &
    operator*() const noexcept
    {
        return *object_;
    }

    T *
    operator->() const noexcept
    {
        return object_;
    }

    explicit
    operator bool() const noexcept
    {
        return object_ != nullptr;
    }

    pyrt_object *
    header() const noexcept
    {
        return detail::header_of(object_);
    }

    void
    reset() noexcept
    {
        object_ptr().swap(*this);
    }

    /* The reference is the caller's from now on. */
    [[nodiscard]] T *
    release() noexcept
    {
        return std::exchange(object_, nullptr);
    }

    void
    swap(object_ptr &other) noexcept
    {
        std::swap(object_, other.object_);
    }

    /* As pyrt_refcount; 0 of none. */
    int64_t
    use_count() const noexcept
    {
        return object_ == nullptr ? 0 : pyrt_refcount(header());
    }

    friend bool
    operator==(const object_ptr &a, const object_ptr &b) noexcept
    {
        return a.object_ == b.object_;
    }

    friend bool
    operator!=(const object_ptr &a, const object_ptr &b) noexcept
    {
        return a.object_ != b.object_;
    }

  private:
    T *object_ = nullptr;
};

template <class T>
pyrt_mutex *
mutex_of(const object_ptr<T> &object) noexcept
{
    return &object.header()->mutex;
}

/* ---- objects of C++ values --------------------------------------------------------------------------------------- */

/* A value with a header; made by object_type only. */
template <class Value> struct object {
    pyrt_object base;
    bool whole; /* the value has been made: its destructor is to be called */
    Value value;
};

/* The type of such objects, of one interpreter. */
template <class Value> class object_type {
  public:
    static_assert(alignof(object<Value>) <= 16, "blocks of memory are aligned to 16 bytes");

    object_type(pyrt_interp *interp, const char *name)
    {
        pyrt_type_spec spec = {};
        spec.struct_size = sizeof(spec);
        spec.name = name;
        spec.basic_size = sizeof(object<Value>);
        spec.dealloc = [](pyrt_object *dying) {
            auto *it = detail::of_header<object<Value>>(dying);
            if (it->whole) {
                it->value.~Value();
            }
        };
        type_ = object_ptr<pyrt_type>::adopt(pyrt_type_new(interp, &spec));
        if (!type_) {
            detail::throw_errno("pyruntime::object_type");
        }
    }

    /* A new object of the thread that is attached here. What the constructor of the value throws is thrown. */
    template <class... Arguments>
    object_ptr<object<Value>>
    make(pyrt_thread *thread, Arguments &&...arguments)
    {
        if (pyrt_unlikely(thread == nullptr || thread != pyrt_thread_current())) {
            check(PYRT_ESTATE, "pyruntime::object_type::make");
        }
        auto made = object_ptr<object<Value>>::adopt(detail::of_header<object<Value>>(pyrt_object_new(thread, type_.get())));
        if (!made) {
            throw std::bad_alloc();
        }
        ::new (static_cast<void *>(std::addressof(made->value))) Value(std::forward<Arguments>(arguments)...);
        made->whole = true;
        return made;
    }

    pyrt_type *
    get() const noexcept
    {
        return type_.get();
    }

  private:
    object_ptr<pyrt_type> type_;
};

/* ---- weak pointers, shared slots --------------------------------------------------------------------------------- */

/* weakref.h: gives a reference as long as the object lives, and keeps it no longer. */
template <class T> class weak_ptr {
  public:
    constexpr weak_ptr() noexcept = default;

    /* Of an object, for the thread that is attached here. */
    weak_ptr(pyrt_thread *thread, const object_ptr<T> &object)
    {
        if (object) {
            weak_ = object_ptr<pyrt_weakref>::adopt(pyrt_weakref_new(thread, object.header(), nullptr, nullptr));
            if (!weak_) {
                detail::throw_errno("pyruntime::weak_ptr");
            }
        }
    }

    /* Empty when the object is gone or going. */
    object_ptr<T>
    lock() const noexcept
    {
        return object_ptr<T>::adopt(weak_ ? detail::of_header<T>(pyrt_weakref_get(weak_.get())) : nullptr);
    }

    bool
    expired() const noexcept
    {
        return !weak_ || pyrt_weakref_is_dead(weak_.get());
    }

    void
    reset() noexcept
    {
        weak_.reset();
    }

  private:
    object_ptr<pyrt_weakref> weak_;
};

/* A slot that holds a reference (refcount.h), for many threads: loading takes no lock, and wants an attached thread. */
template <class T> class object_slot : detail::immovable {
  public:
    constexpr object_slot() noexcept = default;

    ~object_slot()
    {
        pyrt_store_ref(&slot_, nullptr);
    }

    object_ptr<T>
    load() const noexcept
    {
        return object_ptr<T>::adopt(detail::of_header<T>(pyrt_load_ref(&slot_)));
    }

    void
    store(object_ptr<T> object) noexcept
    {
        pyrt_store_ref(&slot_, detail::header_of(object.release()));
    }

    object_ptr<T>
    exchange(object_ptr<T> object) noexcept
    {
        return object_ptr<T>::adopt(detail::of_header<T>(pyrt_exchange_ref(&slot_, detail::header_of(object.release()))));
    }

    /* Whether `expected` was there; then `desired` is now, and else it goes with the call. */
    bool
    compare_exchange(const object_ptr<T> &expected, object_ptr<T> desired) noexcept
    {
        if (!pyrt_compare_exchange_ref(&slot_, expected.header(), desired.header())) {
            return false;
        }
        (void)desired.release();
        return true;
    }

  private:
    pyrt_object *slot_ = nullptr;
};

} // namespace pyruntime PYRT_OWN

/* For unordered containers. */
template <class T> struct std::hash<pyruntime::object_ptr<T>> {
    std::size_t
    operator()(const pyruntime::object_ptr<T> &object) const noexcept
    {
        return std::hash<T *>()(object.get());
    }
};

#endif /* PYRUNTIME_OBJECTS_HPP */
