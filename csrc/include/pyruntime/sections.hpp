/* SPDX-License-Identifier: MIT
 *
 * sections.hpp -- what begins with a block and ends with it: the runtime, being attached, reading, critical sections, a pause.
 *
 * Ends are not noexcept: most of them may sleep. They are left in the reverse order of entering, as C++ does by itself.
 */
#ifndef PYRUNTIME_SECTIONS_HPP
#define PYRUNTIME_SECTIONS_HPP

#include "locks.hpp"

namespace pyruntime PYRT_OWN {

/* One use of the runtime of the process. An extension needs none: the package has one. If thread states remain at the end, the
 * runtime goes on. */
class runtime : detail::immovable {
  public:
    runtime()
    {
        check(pyrt_runtime_init(), "pyrt_runtime_init");
    }

    ~runtime() noexcept(false)
    {
        (void)pyrt_runtime_fini();
    }
};

/* An attached state of this OS thread, as pyrt_thread_ensure has it: nested ones share it, and another interpreter's is detached
 * for the time. Whoever comes often keeps one around all of its loop, and passes safepoints. */
class attached : detail::scoped {
  public:
    explicit attached(pyrt_interp *interp = pyrt_interp_main())
    {
        check(pyrt_thread_ensure_timed(interp, -1, 0, &thread_), "pyruntime::attached");
    }

    ~attached() noexcept(false)
    {
        pyrt_thread_release(thread_);
    }

    /* For the C functions. */
    operator pyrt_thread *() const noexcept
    {
        return thread_;
    }

    /* Nothing that was read before is protected any more. Runs disposers, and stands still for a pause. */
    void
    safepoint()
    {
        pyrt_safepoint(thread_);
    }

    void
    quiescent_state()
    {
        pyrt_qsbr_quiescent_state(thread_);
    }

  private:
    pyrt_thread *thread_;
};

/* The other way round: an attached thread is not, for as long as it sleeps or works elsewhere. */
class detached : detail::scoped {
  public:
    explicit detached(pyrt_thread *thread) : thread_(thread)
    {
        pyrt_detach(thread_);
    }

    ~detached() noexcept(false)
    {
        pyrt_attach(thread_);
    }

  private:
    pyrt_thread *thread_;
};

/* A read-side section: what is reachable in it is not disposed of before it ends. The first form attaches for it, if need be; the
 * second is for who is attached, costs nothing, and its protection goes on to the next quiescent state of the thread. */
class reader : detail::scoped {
  public:
    explicit reader(pyrt_interp *interp = pyrt_interp_main()) : ensured_(true)
    {
        check(pyrt_thread_ensure_timed(interp, -1, 0, &thread_), "pyruntime::reader");
        pyrt_read_begin(thread_);
    }

    explicit reader(pyrt_thread *attached) noexcept : thread_(attached), ensured_(false)
    {
        pyrt_read_begin(thread_);
    }

    explicit reader(const attached &thread) noexcept : reader(static_cast<pyrt_thread *>(thread))
    {
    }

    ~reader() noexcept(false)
    {
        pyrt_read_end(thread_);
        if (ensured_) {
            pyrt_thread_release(thread_);
        }
    }

    operator pyrt_thread *() const noexcept
    {
        return thread_;
    }

  private:
    pyrt_thread *thread_;
    bool ensured_;
};

/* The mutex by which a section knows an object: overload it for your own, in their namespace. */
inline pyrt_mutex *
mutex_of(pyrt_mutex &mutex) noexcept
{
    return &mutex;
}

inline pyrt_mutex *
mutex_of(mutex &mutex) noexcept
{
    return mutex.native_handle();
}

inline pyrt_mutex *
mutex_of(pyrt_object &object) noexcept
{
    return &object.mutex;
}

namespace detail {

/* Where a host ends the OS thread in a sleep, the stack is unwound with the thread detached and its sections suspended: then
 * there is nothing to unlock and nothing to resume, but the newest one is not to be on the stack any more. True: that was it. */
inline bool
left_while_suspended(const pyrt_critical_section &section, uintptr_t tagged) noexcept
{
    pyrt_thread *thread = section.thread;
    if (pyrt_likely(thread == nullptr || thread == pyrt_thread_current() ||
                    thread->critical_sections != (tagged | PYRT_SECTION_SUSPENDED))) {
        return false;
    }
    thread->critical_sections = section.previous;
    return true;
}

} // namespace detail

/* critical_section.h: a section on one object, or on two at once. An object is a pyrt_mutex, a pyruntime::mutex, a pyrt_object,
 * an object_ptr, or whatever else mutex_of takes. Given up whenever the thread detaches, so sections never deadlock, and what
 * was read under an outer one is looked at again after an inner one. */
class critical_section : detail::scoped {
  public:
    template <class Object> explicit critical_section(Object &object)
    {
        pyrt_critical_section_begin(&section_, mutex_of(object));
    }

    ~critical_section() noexcept(false)
    {
        if (!detail::left_while_suspended(section_, reinterpret_cast<uintptr_t>(&section_))) {
            pyrt_critical_section_end(&section_);
        }
    }

  private:
    pyrt_critical_section section_;
};

class critical_section2 : detail::scoped {
  public:
    template <class First, class Second> critical_section2(First &first, Second &second)
    {
        pyrt_critical_section2_begin(&section_, mutex_of(first), mutex_of(second));
    }

    ~critical_section2() noexcept(false)
    {
        if (!detail::left_while_suspended(section_.base, reinterpret_cast<uintptr_t>(&section_) | PYRT_SECTION_TWO)) {
            pyrt_critical_section2_end(&section_);
        }
    }

  private:
    pyrt_critical_section2 section_;
};

/* stop_the_world.h: nobody else of the interpreter (nullptr: of any) is attached until it ends. */
class stopped_world : detail::scoped {
  public:
    explicit stopped_world(pyrt_interp *or_null) : interp_(or_null)
    {
        check(pyrt_stop_the_world(interp_), "pyruntime::stopped_world");
    }

    ~stopped_world() noexcept(false)
    {
        pyrt_start_the_world(interp_);
    }

  private:
    pyrt_interp *interp_;
};

} // namespace pyruntime PYRT_OWN

#endif /* PYRUNTIME_SECTIONS_HPP */
