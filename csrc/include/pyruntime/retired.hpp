/* SPDX-License-Identifier: MIT
 *
 * retired.hpp -- memory of which readers without a lock may still hold a pointer, and memory of the process for containers.
 *
 *      std::atomic<config *> current;
 *
 *      pyruntime::reader reading;                                        a reader
 *      use(*current.load(std::memory_order_acquire));
 *
 *      auto fresh = pyruntime::make_retired<config>(...);                a writer
 *      pyruntime::retired<config> old(current.exchange(fresh.release()));     destroyed after this block, when all have passed
 */
#ifndef PYRUNTIME_RETIRED_HPP
#define PYRUNTIME_RETIRED_HPP

#include "errors.hpp"

#include <memory>
#include <type_traits>
#include <utility>

namespace pyruntime PYRT_OWN {

/* Hands over what a unique_ptr owns, to be deleted by its deleter when no reader can be looking at it any more. False: taken,
 * but it is time to slow down (PYRT_EBUSY). What is thrown has taken nothing: std::bad_alloc, or std::system_error without
 * runtime. `bytes` is what it holds in all. The deleter is one without state. */
template <class T, class Deleter>
bool
retire(std::unique_ptr<T, Deleter> &&owner, std::size_t bytes = sizeof(std::remove_extent_t<T>))
{
    using element = typename std::unique_ptr<T, Deleter>::element_type;
    static_assert(std::is_same_v<typename std::unique_ptr<T, Deleter>::pointer, element *>, "a plain pointer is retired");
    static_assert(std::is_empty_v<Deleter> && std::is_default_constructible_v<Deleter>,
                  "the deleter is made anew when it is called");
    if (owner == nullptr) {
        return true;
    }
    void *memory = const_cast<std::remove_cv_t<element> *>(owner.get());
    pyrt_status status =
        pyrt_retire(pyrt_thread_current(), memory, bytes, [](void *p) { Deleter()(static_cast<element *>(p)); });
    if (status != PYRT_OK && status != PYRT_EBUSY) {
        check(status, "pyruntime::retire");
    }
    (void)owner.release();
    return status == PYRT_OK;
}

namespace detail {

/* A retire node and, behind it, a T: so that retiring it needs no memory. */
template <class T> struct retirable {
    using node = struct pyrt_retire_node;
    static constexpr std::size_t alignment = alignof(T) > alignof(pyrt_retire_node) ? alignof(T) : alignof(pyrt_retire_node);
    static constexpr std::size_t offset = (sizeof(pyrt_retire_node) + alignof(T) - 1) / alignof(T) * alignof(T);
    static constexpr std::size_t bytes = offset + sizeof(T);

    static void *
    allocate()
    {
        return ::operator new(bytes, std::align_val_t(alignment));
    }

    static void
    free(void *memory) noexcept
    {
        ::operator delete(memory, std::align_val_t(alignment));
    }

    static void
    dispose(struct pyrt_retire_node *node) noexcept
    {
        char *memory = static_cast<char *>(static_cast<void *>(node));
        std::launder(static_cast<T *>(static_cast<void *>(memory + offset)))->~T();
        free(memory);
    }
};

} // namespace detail

/* The deleter of what make_retired has made. It cannot fail, does not wait and allocates nothing. It wants a running runtime,
 * and does not say when it is time to slow down: retire() does. */
template <class T> struct retirer {
    void
    operator()(T *p) const noexcept
    {
        using box = detail::retirable<std::remove_cv_t<T>>;
        void *value = const_cast<std::remove_cv_t<T> *>(p);
        void *memory = static_cast<char *>(value) - box::offset;
        pyrt_retire_node(pyrt_thread_current(), static_cast<struct pyrt_retire_node *>(memory), box::bytes, box::dispose);
    }
};

/* Owns as a unique_ptr does, but its end is not that of the T: that comes when no reader can be looking at it any more. Only for
 * what make_retired has made. */
template <class T> using retired = std::unique_ptr<T, retirer<T>>;

template <class T, class... Arguments>
retired<T>
make_retired(Arguments &&...arguments)
{
    using box = detail::retirable<std::remove_cv_t<T>>;
    struct freer {
        void
        operator()(void *memory) const noexcept
        {
            box::free(memory);
        }
    };
    std::unique_ptr<void, freer> memory(box::allocate());
    ::new (memory.get()) typename box::node();
    T *value = ::new (static_cast<void *>(static_cast<char *>(memory.get()) + box::offset))
        T(std::forward<Arguments>(arguments)...);
    (void)memory.release();
    return retired<T>(value);
}

/* The memory of pyrt_malloc for the containers of the standard. All are alike: what one has allocated another may free,
 * anywhere. */
template <class T> struct allocator {
    using value_type = T;
    using is_always_equal = std::true_type;
    using propagate_on_container_move_assignment = std::true_type;

    constexpr allocator() noexcept = default;

    template <class Other> constexpr allocator(const allocator<Other> &) noexcept
    {
    }

    T *
    allocate(std::size_t n)
    {
        if (n > PTRDIFF_MAX / sizeof(T)) {
            throw std::bad_array_new_length();
        }
        void *block = alignof(T) > 16 ? pyrt_aligned_alloc(alignof(T), n * sizeof(T)) : pyrt_malloc(n * sizeof(T));
        if (block == nullptr) {
            throw std::bad_alloc();
        }
        return static_cast<T *>(block);
    }

    void
    deallocate(T *block, std::size_t) noexcept
    {
        pyrt_free(block);
    }

    template <class Other>
    friend constexpr bool
    operator==(const allocator &, const allocator<Other> &) noexcept
    {
        return true;
    }

    template <class Other>
    friend constexpr bool
    operator!=(const allocator &, const allocator<Other> &) noexcept
    {
        return false;
    }
};

} // namespace pyruntime PYRT_OWN

#endif /* PYRUNTIME_RETIRED_HPP */
