/* test_cxx.cc -- the headers for C++, sentence by sentence: what the standard asks of locks, errors as exceptions, sections that are
 * left by one, pointers that count and retire exactly, and a host that ends a thread in its sleep.
 */
#include <pyruntime/pyruntime.hpp>

extern "C" {
#include "faults.h"
#include "support.h"
#include "workers.h"
}

#include <atomic>
#include <cmath>
#include <map>
#include <memory>
#include <shared_mutex>
#include <string>
#include <thread>
#include <unordered_set>
#include <vector>

using namespace std::chrono_literals;

namespace {

/* ---- what the standard asks -------------------------------------------------------------------------------------- */

template <class Lock>
constexpr bool is_basic_lockable =
    std::is_void_v<decltype(std::declval<Lock &>().lock())> && noexcept(std::declval<Lock &>().unlock());

template <class Lock>
constexpr bool is_lockable = is_basic_lockable<Lock> && std::is_same_v<decltype(std::declval<Lock &>().try_lock()), bool>;

template <class Lock>
constexpr bool is_timed_lockable =
    is_lockable<Lock> && std::is_same_v<decltype(std::declval<Lock &>().try_lock_for(1s)), bool> &&
    std::is_same_v<decltype(std::declval<Lock &>().try_lock_until(std::chrono::system_clock::now())), bool>;

template <class Lock>
constexpr bool is_shared_timed_lockable =
    is_timed_lockable<Lock> && noexcept(std::declval<Lock &>().unlock_shared()) &&
    std::is_void_v<decltype(std::declval<Lock &>().lock_shared())> &&
    std::is_same_v<decltype(std::declval<Lock &>().try_lock_shared()), bool> &&
    std::is_same_v<decltype(std::declval<Lock &>().try_lock_shared_for(1.5s)), bool> &&
    std::is_same_v<decltype(std::declval<Lock &>().try_lock_shared_until(std::chrono::steady_clock::now())), bool>;

/* Mutex requirements: where it is, it stays; made of nothing, ended without a trace. */
template <class Lock>
constexpr bool is_a_place =
    std::is_nothrow_default_constructible_v<Lock> && std::is_nothrow_destructible_v<Lock> &&
    !std::is_copy_constructible_v<Lock> && !std::is_move_constructible_v<Lock> && !std::is_copy_assignable_v<Lock> &&
    !std::is_move_assignable_v<Lock> && std::is_trivially_destructible_v<Lock> && std::is_standard_layout_v<Lock>;

static_assert(is_timed_lockable<pyruntime::mutex> && is_a_place<pyruntime::mutex>);
static_assert(is_timed_lockable<pyruntime::recursive_mutex> && is_a_place<pyruntime::recursive_mutex>);
static_assert(is_shared_timed_lockable<pyruntime::shared_mutex> && is_a_place<pyruntime::shared_mutex>);
static_assert(is_a_place<pyruntime::condition_variable> && is_a_place<pyruntime::event> && is_a_place<pyruntime::once>);
static_assert(sizeof(pyruntime::mutex) == 1 && sizeof(pyruntime::event) == sizeof(pyrt_event));
static_assert(sizeof(pyruntime::recursive_mutex) == sizeof(pyrt_recursive_mutex));
static_assert(sizeof(pyruntime::shared_mutex) == sizeof(pyrt_rwlock) && sizeof(pyruntime::once) == sizeof(pyrt_once));

using text = pyruntime::object<std::string>;
using text_ptr = pyruntime::object_ptr<text>;
static_assert(sizeof(text_ptr) == sizeof(void *) && std::is_nothrow_move_constructible_v<text_ptr>);
static_assert(std::is_nothrow_move_assignable_v<text_ptr> && std::is_nothrow_copy_constructible_v<text_ptr>);
static_assert(sizeof(pyruntime::retired<int>) == sizeof(int *));
static_assert(std::allocator_traits<pyruntime::allocator<int>>::is_always_equal::value);
static_assert(
    std::is_same_v<std::allocator_traits<pyruntime::allocator<int>>::rebind_alloc<char>, pyruntime::allocator<char>>);

/* Constant initialisation: usable by every constructor of a static object. */
pyruntime::mutex early_mutex;
pyruntime::shared_mutex early_shared_mutex;
const bool was_early = (std::lock(early_mutex, early_shared_mutex), early_mutex.unlock(), early_shared_mutex.unlock(), true);

/* The code that a call throws, compared as users would. */
template <class Call>
void
check_throws(const Call &call, std::errc wanted, pyrt_status status)
{
    try {
        call();
    } catch (const std::system_error &error) {
        CHECK(error.code() == wanted);
        CHECK_STATUS(static_cast<pyrt_status>(error.code().value()), status);
        CHECK_STR(error.code().category().name(), "pyruntime");
        CHECK(std::string(error.what()).find(pyrt_strerror(status)) != std::string::npos);
        return;
    }
    FAIL("it did not throw");
}

template <class Call>
bool
throws_bad_alloc(const Call &call)
{
    try {
        call();
    } catch (const std::bad_alloc &) {
        return true;
    }
    return false;
}

constexpr int ROUNDS = 20000;

} // namespace

/* ---- locks ------------------------------------------------------------------------------------------------------- */

TEST(the_guards_of_the_standard_take_every_lock)
{
    CHECK(was_early);
    pyruntime::mutex plain;
    pyruntime::recursive_mutex recursive;
    pyruntime::shared_mutex shared;
    long count = 0, read = 0;
    auto work = [&](bool backwards) {
        for (int i = 0; i < ROUNDS; i++) {
            if (backwards) {
                std::scoped_lock guard(shared, recursive, plain);
                count++;
            }
            else {
                std::scoped_lock guard(plain, shared, recursive);
                std::lock_guard again(recursive);
                count++;
            }
            std::shared_lock reading(shared);
            pyrt_fetch_add_relaxed(&read, count > 0 ? 1L : 0L);
        }
    };
    std::thread other(work, true);
    work(false);
    other.join();
    CHECK_INT(count, 2 * ROUNDS);
    CHECK_INT(read, 2 * ROUNDS);
}

TEST(timed_forms_take_any_duration_and_any_clock)
{
    pyruntime::mutex mutex;
    pyruntime::shared_mutex shared;
    std::lock_guard held(mutex);
    std::lock_guard held_shared(shared);
    std::thread([&] {
        CHECK(!mutex.try_lock());
        CHECK(!mutex.try_lock_for(0s));
        CHECK(!mutex.try_lock_for(-1h));
        CHECK(!mutex.try_lock_for(std::chrono::duration<double>(std::nan(""))));
        CHECK(!mutex.try_lock_for(1ns));
        CHECK(!mutex.try_lock_until(std::chrono::system_clock::time_point::min()));
        CHECK(!mutex.try_lock_until(std::chrono::steady_clock::now() + 1us));
        CHECK(!mutex.try_lock_until(std::chrono::system_clock::now() + 1us));
        CHECK(!shared.try_lock_for(1ns) && !shared.try_lock_shared() && !shared.try_lock_shared_for(1us));
        CHECK(!shared.try_lock_shared_until(std::chrono::system_clock::now()));
        std::unique_lock<pyruntime::mutex> lock(mutex, 1us);
        CHECK(!lock.owns_lock());
    }).join();

    /* The longest ones there are wait until it is free, and do not overflow into none. */
    pyruntime::mutex other;
    CHECK(other.try_lock_for(std::chrono::hours::max()));
    std::thread waiter([&] {
        CHECK(other.try_lock_for(std::chrono::duration<double>::max()));
        other.unlock();
        CHECK(other.try_lock_until(std::chrono::steady_clock::time_point::max()));
        other.unlock();
    });
    WAIT_UNTIL(pyrt_parked_count(other.native_handle()) == 1);
    other.unlock();
    waiter.join();
}

TEST(a_lock_that_would_wait_for_itself_throws)
{
    pyruntime::shared_mutex shared;
    {
        std::unique_lock<pyruntime::shared_mutex> writing(shared);
        check_throws([&] { shared.lock(); }, std::errc::resource_deadlock_would_occur, PYRT_EDEADLK);
        check_throws([&] { std::shared_lock reading(shared); }, std::errc::resource_deadlock_would_occur, PYRT_EDEADLK);
        check_throws([&] { (void)shared.try_lock_for(1h); }, std::errc::resource_deadlock_would_occur, PYRT_EDEADLK);
    }
    std::shared_lock reading(shared);
    check_throws([&] { shared.lock(); }, std::errc::resource_deadlock_would_occur, PYRT_EDEADLK);
    CHECK(!shared.try_lock());
}

TEST(a_status_is_its_own_code_and_that_of_the_system)
{
    pyruntime::check(PYRT_OK, "nothing");
    CHECK(throws_bad_alloc([] { pyruntime::check(PYRT_ENOMEM, "memory"); }));
    check_throws([] { pyruntime::check(PYRT_ETIMEDOUT, "time"); }, std::errc::timed_out, PYRT_ETIMEDOUT);
    check_throws([] { pyruntime::check(PYRT_EBUSY, "use"); }, std::errc::device_or_resource_busy, PYRT_EBUSY);
    check_throws([] { pyruntime::check(PYRT_EINTR, "signal"); }, std::errc::interrupted, PYRT_EINTR);
    std::error_code code(PYRT_EVERSION, pyruntime::status_category());
    CHECK(code.default_error_condition().category() == pyruntime::status_category());
}

namespace {

/* One hands numbers over, one takes them, with a condition of either kind. */
template <class Mutex, class Condition>
void
hand_over()
{
    Mutex mutex;
    Condition changed;
    int full = 0;
    long sum = 0;
    std::thread taker([&] {
        for (int i = 1; i <= ROUNDS / 10; i++) {
            std::unique_lock<Mutex> lock(mutex);
            changed.wait(lock, [&] { return full != 0; });
            sum += std::exchange(full, 0);
            changed.notify_all();
        }
    });
    for (int i = 1; i <= ROUNDS / 10; i++) {
        std::unique_lock<Mutex> lock(mutex);
        while (!changed.wait_for(lock, 100h, [&] { return full == 0; })) {
        }
        full = i;
        changed.notify_one();
    }
    taker.join();
    CHECK_INT(sum, static_cast<long>(ROUNDS / 10) * (ROUNDS / 10 + 1) / 2);
}

} // namespace

TEST(conditions_wait_with_both_mutexes)
{
    hand_over<pyruntime::mutex, pyruntime::condition_variable>();
    hand_over<pyruntime::recursive_mutex, pyruntime::condition_variable>();
    hand_over<pyruntime::mutex, std::condition_variable_any>();
    hand_over<pyruntime::shared_mutex, std::condition_variable_any>();

    pyruntime::condition_variable never;
    pyruntime::mutex mutex;
    std::unique_lock<pyruntime::mutex> lock(mutex);
    CHECK(never.wait_for(lock, 1us) == std::cv_status::timeout);
    CHECK(never.wait_until(lock, std::chrono::system_clock::now()) == std::cv_status::timeout);
    CHECK(!never.wait_for(lock, 1us, [] { return false; }));
    CHECK(never.wait_for(lock, std::chrono::hours::max(), [] { return true; }));
    CHECK(lock.owns_lock() && !mutex.try_lock());
    lock.unlock();
    check_throws(
        [&] {
            std::unique_lock<pyruntime::mutex> none(mutex, std::defer_lock);
            never.wait(none);
        },
        std::errc::operation_not_permitted, PYRT_ESTATE);
}

TEST(an_event_is_waited_for)
{
    pyruntime::event event;
    CHECK(!event.is_set() && !event.wait_for(1us) && !event.wait_until(std::chrono::steady_clock::now()));
    int seen = 0;
    std::thread waiter([&] {
        event.wait();
        CHECK_INT(seen, 1);
    });
    seen = 1;
    event.set();
    waiter.join();
    CHECK(event.is_set() && event.wait_for(0s));
    event.clear();
    CHECK(!event.is_set());
}

TEST(once_runs_until_it_does_not_throw)
{
    pyruntime::once once;
    int runs = 0;
    for (int i = 0; i < 3; i++) {
        try {
            once.call(
                [&](int number) {
                    runs++;
                    throw number;
                },
                i);
            FAIL("it did not throw");
        } catch (int number) {
            CHECK_INT(number, i);
        }
    }
    CHECK(!once.is_done());
    std::thread([&] {
        once.call([&] {
            runs++;
            pthread_exit(nullptr);
        });
    }).join();
    CHECK(!once.is_done());
    once.call([&] {
        runs++;
        check_throws([&] { once.call([] {}); }, std::errc::resource_deadlock_would_occur, PYRT_EDEADLK);
    });
    CHECK(once.is_done());
    once.call([&] { runs++; });
    CHECK_INT(runs, 5);

    pyruntime::once many;
    std::atomic<int> made{0};
    auto ask = [&] {
        for (int i = 0; i < ROUNDS; i++) {
            many.call([&] { made++; });
            CHECK_INT(made.load(), 1);
        }
    };
    std::thread other(ask);
    ask();
    other.join();
}

/* ---- sections ---------------------------------------------------------------------------------------------------- */

TEST(sections_end_with_their_block_also_by_an_exception)
{
    check_throws([] { pyruntime::attached none; }, std::errc::operation_not_permitted, PYRT_ESTATE);
    check_throws([] { pyruntime::reader none; }, std::errc::operation_not_permitted, PYRT_ESTATE);
    runtime_up();
    {
        pyruntime::runtime second;
        pyruntime::attached thread;
        pyruntime::mutex first, other;
        pyrt_object header = PYRT_OBJECT_IMMORTAL_INIT(nullptr);
        CHECK_PTR(pyrt_thread_current(), thread);
        try {
            pyruntime::critical_section outer(first);
            pyruntime::critical_section2 inner(header, *other.native_handle());
            CHECK(pyrt_critical_section_holds(first.native_handle()) && pyrt_critical_section_holds(&header.mutex));
            throw 1;
        } catch (int) {
        }
        CHECK(first.try_lock() && other.try_lock() && !pyrt_mutex_is_locked(&header.mutex));
        first.unlock();
        {
            pyruntime::critical_section outer(first);
            pyruntime::detached asleep(thread);
            CHECK_PTR(pyrt_thread_current(), nullptr);
            CHECK(first.try_lock());
            first.unlock();
        }
        {
            pyruntime::attached nested;
            CHECK_PTR(static_cast<pyrt_thread *>(nested), thread);
            pyruntime::reader here(nested);
            pyruntime::reader anywhere;
            CHECK_PTR(static_cast<pyrt_thread *>(anywhere), thread);
        }
        thread.safepoint();
        thread.quiescent_state();
        pyruntime::stopped_world pause(pyrt_interp_main());
        CHECK(pyrt_world_is_stopped(pyrt_interp_main()));
    }
    CHECK_PTR(pyrt_thread_current(), nullptr);
    runtime_down();
}

TEST(critical_sections_in_any_order_do_not_deadlock)
{
    runtime_up();
    pyruntime::mutex a, b;
    long count = 0;
    auto work = [&](bool backwards) {
        pyruntime::attached thread;
        for (int i = 0; i < ROUNDS; i++) {
            pyruntime::critical_section outer(backwards ? a : b);
            pyruntime::critical_section inner(backwards ? b : a);
            pyruntime::critical_section2 both(a, b);
            count++;
        }
    };
    std::thread other(work, true);
    work(false);
    other.join();
    CHECK_INT(count, 2 * ROUNDS);
    runtime_down();
}

namespace {

std::atomic<int> put_to_sleep{0};

void *
let_go()
{
    put_to_sleep++;
    return &early_mutex;
}

void
end_the_thread(void *)
{
    pthread_exit(nullptr);
}

} // namespace

TEST(a_host_may_end_a_thread_in_its_sleep)
{
    runtime_up();
    pyrt_block_hooks hooks = {let_go, end_the_thread};
    pyruntime::mutex mutex, outer;
    pyruntime::shared_mutex shared;
    pyruntime::event event;
    std::atomic<int> unwound{0};
    struct counter {
        std::atomic<int> &count;
        ~counter()
        {
            count++;
        }
    };
    mutex.lock();
    shared.lock();
    pyrt_set_block_hooks(&hooks);
    auto dies = [&](auto &&sleep, auto &&wake) {
        int before = put_to_sleep.load();
        std::thread thread([&] {
            counter at_the_end{unwound};
            pyruntime::attached state;
            sleep();
            FAIL("it came back");
        });
        WAIT_UNTIL(put_to_sleep.load() > before);
        wake();
        thread.join();
    };
    dies([&] { std::scoped_lock guard(mutex, outer); }, [&] { mutex.unlock(); });
    CHECK(mutex.try_lock() && outer.try_lock());
    dies([&] { event.wait(); }, [&] { event.set(); });
    /* In the destructor of a section: the one around it is wanted back, and somebody has it. */
    outer.unlock();
    dies(
        [&] {
            pyruntime::critical_section first(outer);
            pyruntime::mutex other;
            {
                pyruntime::critical_section second(other);
                pyrt_detach(pyrt_thread_current());
                std::thread([&] { outer.lock(); }).join();
                pyrt_attach(pyrt_thread_find(pyrt_interp_main()));
            }
        },
        [&] { outer.unlock(); });
    pyrt_set_block_hooks(nullptr);
    CHECK(outer.try_lock());
    CHECK_INT(unwound.load(), 3);
    runtime_down();
}

/* ---- retiring ---------------------------------------------------------------------------------------------------- */

namespace {

std::atomic<int> living{0};

template <std::size_t Alignment = 8> struct alignas(Alignment) pair {
    long first, second;
    explicit pair(long number = 0) noexcept : first(number), second(-number)
    {
        CHECK_UINT(reinterpret_cast<std::uintptr_t>(this) % Alignment, 0);
        living++;
    }
    ~pair()
    {
        CHECK_INT(first + second, 0);
        first = second = 1;
        living--;
    }
};

} // namespace

TEST(what_a_unique_ptr_owns_is_retired)
{
    check_throws([] { (void)pyruntime::retire(std::make_unique<pair<>>(1)); }, std::errc::operation_not_permitted,
                 PYRT_ESTATE);
    runtime_up();
    {
        pyruntime::attached thread;
        CHECK(pyruntime::retire(std::make_unique<pair<>>(1)));
        CHECK(pyruntime::retire(std::unique_ptr<const pair<>>(new pair<>(2))));
        CHECK(pyruntime::retire(std::make_unique<pair<>[]>(2), 32));
        CHECK(pyruntime::retire(std::unique_ptr<pair<>>()));
        CHECK_INT(living.load(), 4);
    }
    CHECK(pyruntime::retire(std::make_unique<pair<>>(5))); /* without a thread state */
    CHECK_OK(pyrt_qsbr_barrier(nullptr));
    CHECK_INT(living.load(), 0);
    CHECK_OK(pyrt_retire_set_bound(pyrt_interp_main(), 1, 1));
    {
        pyruntime::attached thread;
        CHECK(!pyruntime::retire(std::make_unique<pair<>>(6)));
    }
    CHECK_OK(pyrt_qsbr_barrier(nullptr));
    CHECK_INT(living.load(), 0);
    runtime_down();
}

namespace {

std::unique_ptr<pair<>> kept;

void
prepare_retire()
{
    runtime_up();
    kept = std::make_unique<pair<>>(1);
}

bool
retire_kept()
{
    bool failed = throws_bad_alloc([] { (void)pyruntime::retire(std::move(kept)); });
    CHECK((kept != nullptr) == failed); /* not taken is not lost */
    return !failed;
}

void
finish_retire(bool)
{
    kept.reset();
    runtime_down();
    CHECK_INT(living.load(), 0);
}

} // namespace

TEST(without_memory_nothing_is_taken)
{
    fault_plan plan = {prepare_retire, retire_kept, finish_retire};
    CHECK(fault_everywhere(&plan, FAULT_FROM_ON) > 0);
    CHECK(fault_everywhere(&plan, FAULT_ONCE) > 0);
}

TEST(readers_never_see_what_has_been_destroyed)
{
    runtime_up();
    using config = pair<64>;
    std::atomic<config *> current{pyruntime::make_retired<config>(0).release()};
    std::atomic<bool> done{false};
    std::thread reader([&] {
        pyruntime::attached thread;
        long seen = 0;
        while (!done.load()) {
            {
                pyruntime::reader reading(thread);
                const config *it = current.load(std::memory_order_acquire);
                CHECK_INT(it->first + it->second, 0);
                CHECK(it->first >= seen);
                seen = it->first;
            }
            thread.safepoint();
        }
    });
    {
        pyruntime::attached thread;
        /* Less than the bound in all: the reader may be slow. */
        for (int i = 1; i <= ROUNDS / 5; i++) {
            pyruntime::retired<config> old(current.exchange(pyruntime::make_retired<config>(i).release()));
            old.reset();
            thread.safepoint();
        }
    }
    done = true;
    reader.join();
    pyruntime::retired<config>(current.load()).reset(); /* an OS thread without any state */
    CHECK_OK(pyrt_qsbr_barrier(nullptr));
    CHECK_INT(living.load(), 0);
    runtime_down();
}

TEST(a_constructor_that_throws_leaves_nothing_of_a_retired_one)
{
    struct thrower {
        explicit thrower(int number)
        {
            throw number;
        }
    };
    try {
        (void)pyruntime::make_retired<thrower>(7);
        FAIL("it did not throw");
    } catch (int number) {
        CHECK_INT(number, 7);
    }
}

/* ---- objects ----------------------------------------------------------------------------------------------------- */

namespace {

struct node : pyrt_object {
    long number;
};

struct c_node {
    pyrt_object base;
    long number;
};

template <class Node>
void
count_references(pyrt_thread *thread, pyrt_type *type)
{
    using pointer = pyruntime::object_ptr<Node>;
    auto first = pointer::adopt(reinterpret_cast<Node *>(pyrt_object_new(thread, type)));
    first->number = 7;
    CHECK_PTR(first.header(), static_cast<void *>(first.get()));
    CHECK_INT(first.use_count(), 1);
    pointer second = first;
    CHECK_INT(second.use_count(), 2);
    const pointer &itself = second;
    second = itself;
    CHECK_INT(first.use_count(), 2);
    pointer third = std::move(second);
    CHECK(!second && third && third == first && third != second && third->number == 7 && (*third).number == 7);
    third = std::move(third);
    CHECK_INT(first.use_count(), 2);
    Node *raw = third.release();
    CHECK(!third);
    CHECK_INT(first.use_count(), 2);
    pointer::adopt(raw).swap(third);
    pointer fourth = pointer::share(raw);
    CHECK_INT(first.use_count(), 3);
    std::unordered_set<pointer> set{first, third, fourth, nullptr};
    CHECK_UINT(set.size(), 2);
    set.clear();
    {
        pyruntime::critical_section section(first);
        CHECK(pyrt_critical_section_holds(&first.header()->mutex));
    }
    std::thread([moved = std::move(fourth)] {}).join();
    pyrt_safepoint(thread);
    third.reset();
    CHECK_INT(first.use_count(), 1);
    CHECK_INT(pointer().use_count(), 0);

    pyruntime::weak_ptr weak(thread, first);
    pyruntime::weak_ptr<Node> copy = weak, none(thread, pointer());
    CHECK(weak.lock() == first && !copy.expired() && none.expired() && !none.lock());
    first = nullptr;
    CHECK(weak.expired() && !copy.lock());
    copy.reset();
}

std::atomic<int> texts{0};

struct watched {
    std::string name;
    explicit watched(std::string text) : name(std::move(text))
    {
        if (name.empty()) {
            throw std::invalid_argument("no name");
        }
        texts++;
    }
    ~watched()
    {
        texts--;
    }
};

} // namespace

TEST(references_are_counted_by_their_pointers)
{
    runtime_up();
    {
        pyruntime::attached thread;
        pyrt_type_spec spec = {};
        spec.struct_size = sizeof(spec);
        spec.name = "node";
        spec.basic_size = sizeof(node);
        auto type = pyruntime::object_ptr<pyrt_type>::adopt(pyrt_type_new(pyrt_interp_main(), &spec));
        count_references<node>(thread, type.get());
        count_references<c_node>(thread, type.get());
    }
    CHECK_INT(pyrt_merge_unique_counts(pyrt_interp_main()), 1);
    runtime_down();
}

TEST(a_value_is_destroyed_with_its_object_and_only_if_it_was_made)
{
    check_throws([] { pyruntime::object_type<watched> none(nullptr, "none"); }, std::errc::invalid_argument, PYRT_EINVAL);
    runtime_up();
    {
        pyruntime::object_type<watched> type(pyrt_interp_main(), "watched");
        CHECK_STR(pyrt_type_name(type.get()), "watched");
        check_throws([&] { (void)type.make(nullptr, "anna"); }, std::errc::operation_not_permitted, PYRT_ESTATE);
        pyruntime::attached thread;
        auto anna = type.make(thread, "anna, with more letters than fit into the string itself");
        auto bert = type.make(thread, "bert");
        try {
            (void)type.make(thread, "");
            FAIL("it did not throw");
        } catch (const std::invalid_argument &) {
        }
        CHECK_INT(texts.load(), 2);
        bert.reset();
        CHECK_INT(texts.load(), 1);
        CHECK(anna->value.name.substr(0, 4) == "anna");

        pyruntime::object_slot<pyruntime::object<watched>> slot;
        CHECK(!slot.load());
        slot.store(anna);
        CHECK(slot.load() == anna && slot.compare_exchange(anna, nullptr) && !slot.compare_exchange(anna, anna));
        CHECK(!slot.exchange(anna) && slot.exchange(nullptr) == anna);
        slot.store(anna); /* its end drops it */
        fault_arm(1, INT32_MAX);
        std::vector<pyruntime::object_ptr<pyruntime::object<watched>>> many;
        many.reserve(100000);
        CHECK(throws_bad_alloc([&] {
            for (int i = 0; i < 100000; i++) {
                many.push_back(type.make(thread, "many"));
            }
        }));
        fault_disarm();
        CHECK_INT(texts.load(), static_cast<int>(many.size()) + 1);
    }
    CHECK_INT(texts.load(), 0);
    CHECK_INT(pyrt_merge_unique_counts(pyrt_interp_main()), 1);
    runtime_down();
}

TEST(threads_load_and_replace_what_is_in_a_slot)
{
    runtime_up();
    {
        pyruntime::object_type<pair<>> type(pyrt_interp_main(), "pair");
        pyruntime::object_slot<pyruntime::object<pair<>>> slot;
        std::atomic<bool> done{false};
        std::thread reader([&] {
            pyruntime::attached thread;
            while (!done.load()) {
                if (auto found = slot.load()) {
                    CHECK_INT(found->value.first + found->value.second, 0);
                    pyruntime::weak_ptr weak(thread, found);
                    auto again = weak.lock();
                    CHECK(again == found);
                }
                thread.safepoint();
            }
        });
        {
            pyruntime::attached thread;
            for (int i = 1; i <= ROUNDS / 4; i++) {
                slot.store(type.make(thread, i));
                thread.safepoint();
            }
            slot.store(nullptr);
            done = true;
            pyruntime::detached waiting(thread);
            reader.join();
        }
        CHECK_OK(pyrt_qsbr_barrier(nullptr));
        CHECK_INT(living.load(), 0);
    }
    CHECK_INT(pyrt_merge_unique_counts(pyrt_interp_main()), 1);
    runtime_down();
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

TEST(containers_take_the_memory_of_the_process)
{
    {
        std::vector<long, pyruntime::allocator<long>> numbers;
        for (long i = 0; i < 10000; i++) {
            numbers.push_back(i);
        }
        CHECK_INT(pyrt_address_owner(numbers.data()), PYRT_OWNER_PROCESS);
        auto moved = std::move(numbers);
        std::map<int, std::string, std::less<int>, pyruntime::allocator<std::pair<const int, std::string>>> map;
        map.emplace(1, "one");
        CHECK(moved[9999] == 9999 && map.at(1) == "one");
        CHECK(map.get_allocator() == pyruntime::allocator<long>() && !(map.get_allocator() != moved.get_allocator()));
        std::vector<pair<128>, pyruntime::allocator<pair<128>>> aligned;
        aligned.reserve(3);
        aligned.emplace_back(1);
    }
    try {
        (void)pyruntime::allocator<long>().allocate(SIZE_MAX / 8);
        FAIL("it did not throw");
    } catch (const std::bad_array_new_length &) {
    }
    CHECK(throws_bad_alloc([] { (void)pyruntime::allocator<char>().allocate(PTRDIFF_MAX); }));
}
