"""What a lock does, as functions that take the module it comes from: ours and Python's own must both pass.

Plain Python without pytest, so that every Python of the machine can run it: ``python sync_behaviour.py`` runs all of it
over ``pyruntime.sync``. Nothing here sleeps to let another thread come first: threads tell each other by events of
``threading``, and who has to be seen waiting is looked for in ``repr()`` or counted.
"""

from __future__ import annotations

import contextlib
import gc
import random
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

Body = Callable[[], object]


@contextlib.contextmanager
def raises(*kinds: type[BaseException]) -> Iterator[list[BaseException]]:
    """The block raises an exception that is of all these kinds."""
    caught: list[BaseException] = []
    try:
        yield caught
    except kinds[0] as error:
        caught.append(error)
    if not caught:
        raise AssertionError(f"no {kinds} was raised")
    assert all(isinstance(caught[0], kind) for kind in kinds), (caught, kinds)


@contextlib.contextmanager
def running(*bodies: Body) -> Iterator[list[threading.Thread]]:
    """Threads that are joined at the end; an exception of one of them is the block's."""
    errors: list[BaseException] = []

    def run(body: Body) -> None:
        try:
            body()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


def together(*bodies: Body) -> None:
    with running(*bodies):
        pass


def wait_until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0)


def elsewhere(function: Callable[[], Any]) -> Any:
    """What a function answers on another thread."""
    answers: list[Any] = []
    together(lambda: answers.append(function()))
    return answers[0]


def is_waiting(thing: object, count: int = 1) -> Callable[[], bool]:
    """So many threads wait, as repr() says; for Python's own, which do not tell, it is taken to be so."""
    if type(thing).__module__ != "pyruntime.sync":
        return lambda: True
    return lambda: f" {count} waiting" in repr(thing).replace(", 0 waiting", "")


# ---- Mutex and RLock -------------------------------------------------------------------------------------------------


def kinds_of_lock(module: types.ModuleType) -> list[Callable[[], Any]]:
    names = ("Mutex", "RLock") if hasattr(module, "Mutex") else ("Lock", "RLock")
    return [getattr(module, name) for name in names]


def check_lock_and_unlock(module: types.ModuleType) -> None:
    for kind in kinds_of_lock(module):
        lock = kind()
        assert lock.acquire() is True
        assert elsewhere(lambda lock=lock: lock.acquire(False)) is False
        assert elsewhere(lambda lock=lock: lock.acquire(blocking=False)) is False
        assert elsewhere(lambda lock=lock: lock.acquire(True, 0.001)) is False
        assert elsewhere(lambda lock=lock: lock.acquire(timeout=0)) is False
        assert lock.release() is None
        with lock as entered:
            assert entered is True
            assert elsewhere(lambda lock=lock: lock.acquire(False)) is False
        assert elsewhere(lambda lock=lock: (lock.acquire(), lock.release())) == (True, None)
        assert lock.acquire(timeout=5) is True
        lock.release()
        with raises(KeyError), lock:
            raise KeyError
        assert lock.acquire(0) is True
        lock.release()


def check_release_of_what_is_not_held(module: types.ModuleType) -> None:
    for kind in kinds_of_lock(module):
        lock = kind()
        with raises(RuntimeError):
            lock.release()
        with lock:
            pass
        with raises(RuntimeError):
            lock.release()
        with raises(RuntimeError):
            lock.__exit__(None, None, None)
        assert lock.acquire(False)


def check_an_rlock_belongs_to_its_thread(module: types.ModuleType) -> None:
    lock = module.RLock()
    for _ in range(3):
        assert lock.acquire()
    assert lock.acquire(blocking=False)
    lock.release()

    def foreign() -> None:
        with raises(RuntimeError):
            lock.release()

    for _ in range(3):
        together(foreign)
        assert elsewhere(lambda: lock.acquire(False)) is False
        lock.release()
    assert elsewhere(lambda: lock.acquire(False) and (lock.release() or True))
    with raises(RuntimeError):
        lock.release()


def check_a_plain_lock_is_released_by_anybody(module: types.ModuleType) -> None:
    lock = kinds_of_lock(module)[0]()
    lock.acquire()
    together(lock.release)
    assert lock.locked() is False
    lock.acquire()
    assert lock.locked() is True


class OneSecond:
    """Not an int, but one for operator.index(), as the numbers of other libraries are."""

    def __index__(self) -> int:
        return 1


def check_bad_timeouts(module: types.ModuleType) -> None:
    for kind in kinds_of_lock(module):
        lock = kind()
        for held in (False, True):
            if held:
                lock.acquire()
            for wrong in (-2, -0.5, float("nan")):
                with raises(ValueError):
                    lock.acquire(timeout=wrong)
            with raises(ValueError):
                lock.acquire(False, 1)
            with raises(ValueError):
                lock.acquire(blocking=False, timeout=0)
            for huge in (threading.TIMEOUT_MAX * 1.01, 1e100, float("inf"), 10**30, 10**400, 10**5000):
                with raises(OverflowError):
                    lock.acquire(timeout=huge)
            for no_number in ("1", None, [], b"1", 1j):
                with raises(TypeError):
                    lock.acquire(timeout=no_number)
            with raises(TypeError):
                lock.acquire(1, 1, 1)
            with raises(TypeError):
                lock.acquire(nonsense=1)
            with raises(TypeError):
                lock.acquire(True, blocking=True)
        lock.release()
        assert lock.acquire(timeout=OneSecond())
        lock.release()
        assert lock.acquire(timeout=threading.TIMEOUT_MAX)
        lock.release()
        assert lock.acquire(True, -1)
        lock.release()


def check_a_waiter_gets_it(module: types.ModuleType) -> None:
    for kind in kinds_of_lock(module):
        lock = kind()
        order: list[str] = []

        def waiter(lock: Any = lock, order: list[str] = order) -> None:
            assert lock.acquire(timeout=threading.TIMEOUT_MAX)
            order.append("waiter")
            lock.release()

        lock.acquire()
        with running(waiter, waiter):
            wait_until(is_waiting(lock, 2))
            order.append("owner")
            lock.release()
        assert order == ["owner", "waiter", "waiter"]


def check_mutual_exclusion(module: types.ModuleType) -> None:
    for kind in kinds_of_lock(module):
        lock = kind()
        shared = [0, 0]
        switch = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)

        def add(lock: Any = lock, shared: list[int] = shared) -> None:
            for turn in range(2000):
                if turn % 3 == 0:
                    while not lock.acquire(timeout=1e-4):
                        pass
                else:
                    lock.acquire()
                seen = shared[0]
                shared[1] += 1
                shared[0] = seen + 1
                lock.release()

        try:
            together(*[add] * 4)
        finally:
            sys.setswitchinterval(switch)
        assert shared == [8000, 8000]


def check_the_fork_method_unlocks(module: types.ModuleType) -> None:
    for kind in kinds_of_lock(module):
        lock = kind()
        together(lock.acquire)
        lock._at_fork_reinit()
        assert lock.acquire(False) is True
        lock.release()
        with raises(RuntimeError):
            lock.release()


def check_constructors_take_nothing(module: types.ModuleType) -> None:
    if module is threading:
        return  # its RLock takes anything
    for kind in [*kinds_of_lock(module), module.Event]:
        with raises(TypeError):
            kind(1)
        with raises(TypeError):
            kind(nonsense=1)


def check_weak_references(module: types.ModuleType) -> None:
    for kind in [*kinds_of_lock(module), module.Event, module.Condition]:
        died: list[object] = []
        lock = kind()
        reference = weakref.ref(lock, died.append)
        assert reference() is lock
        del lock
        gc.collect()
        assert reference() is None
        assert died == [reference]


def check_locks_are_keys_and_not_equal(module: types.ModuleType) -> None:
    for kind in [*kinds_of_lock(module), module.Event, module.Condition]:
        one, other = kind(), kind()
        assert one != other
        assert len({one, other}) == 2
        assert repr(one) != repr(other)


def check_threading_takes_them(module: types.ModuleType) -> None:
    """The standard library's classes on our locks."""
    for kind in kinds_of_lock(module):
        condition = threading.Condition(kind())
        found: list[int] = []

        def get(condition: Any = condition, found: list[int] = found) -> None:
            with condition:
                condition.wait_for(lambda: found)
                found.pop()
                condition.notify_all()

        with running(get, get, get):
            for _ in range(3):
                with condition:
                    condition.wait_for(lambda found=found: not found)
                    found.append(1)
                    condition.notify_all()
        assert found == []
        with condition:
            assert condition.wait(0.001) is False


def check_a_recursive_lock_is_given_up_altogether(module: types.ModuleType) -> None:
    for make in (threading.Condition, module.Condition):
        lock = module.RLock()
        condition = make(lock)
        ready: list[int] = []

        def set_ready(condition: Any = condition, ready: list[int] = ready) -> None:
            with condition:
                ready.append(1)
                condition.notify()

        with running(), condition, condition, lock:
            thread = threading.Thread(target=set_ready)
            thread.start()
            assert condition.wait_for(lambda ready=ready: ready, timeout=60)
            thread.join()
            lock.release()
            lock.release()
            assert elsewhere(lambda lock=lock: lock.acquire(False)) is False
            lock.acquire()
            lock.acquire()
        assert elsewhere(lambda lock=lock: lock.acquire(False) and (lock.release() or True))


# ---- Event -----------------------------------------------------------------------------------------------------------


def check_event(module: types.ModuleType) -> None:
    event = module.Event()
    assert event.is_set() is False
    assert event.wait(0) is False
    assert event.wait(timeout=0.001) is False
    assert event.wait(-1) is False
    assert event.set() is None
    assert event.is_set() is True
    assert event.wait() is True
    assert event.wait(None) is True
    assert event.wait(0) is True
    event.set()
    assert event.clear() is None
    event.clear()
    assert event.is_set() is False
    assert event.wait(0) is False


def check_event_bad_timeouts(module: types.ModuleType) -> None:
    event = module.Event()
    for huge in (1e100, 10**30, float("inf")):
        with raises(OverflowError):
            event.wait(huge)
    for no_number in ("1", [], b""):
        with raises(TypeError):
            event.wait(no_number)
    with raises(TypeError):
        event.wait(1, 2)
    with raises(TypeError):
        event.wait(nonsense=1)


def check_an_event_wakes_all(module: types.ModuleType) -> None:
    event = module.Event()
    answers: list[bool] = []
    with running(*[lambda: answers.append(event.wait())] * 5):
        wait_until(is_waiting(event, 5))
        event.set()
    assert answers == [True] * 5


def check_events_back_and_forth(module: types.ModuleType) -> None:
    there, back = module.Event(), module.Event()
    turns: list[str] = []

    def answer() -> None:
        for _ in range(500):
            assert there.wait(60)
            there.clear()
            turns.append("there")
            back.set()

    def ask() -> None:
        for _ in range(500):
            there.set()
            assert back.wait(60)
            back.clear()
            turns.append("back")

    together(answer, ask)
    assert turns == ["there", "back"] * 500


# ---- Condition -------------------------------------------------------------------------------------------------------


def check_condition_needs_its_lock(module: types.ModuleType) -> None:
    for kind in [*kinds_of_lock(module), lambda: None]:
        condition = module.Condition(kind())
        for call in (condition.wait, condition.notify, condition.notify_all, lambda c=condition: c.wait_for(lambda: False)):
            with raises(RuntimeError):
                call()
        with raises(RuntimeError):
            condition.release()
        assert condition.acquire() is True
        condition.notify()
        condition.notify(n=3)
        condition.notify_all()
        assert condition.wait(0.001) is False
        assert condition.wait(timeout=-1) is False
        condition.release()
        assert condition.acquire(blocking=False) is True
        condition.release()


def check_condition_notifies_the_oldest(module: types.ModuleType) -> None:
    condition = module.Condition(kinds_of_lock(module)[0]())
    waiting: list[int] = []
    woken: list[int] = []

    def wait(number: int) -> None:
        with condition:
            waiting.append(number)
            assert condition.wait() is True
            woken.append(number)

    with contextlib.ExitStack() as threads:
        for number in range(4):
            threads.enter_context(running(lambda number=number: wait(number)))
            wait_until(lambda number=number: len(waiting) > number)
        for expected in ([0], [0, 1, 2], [0, 1, 2, 3]):
            with condition:
                condition.notify(len(expected) - len(woken))
            wait_until(lambda expected=expected: len(woken) == len(expected))
            assert sorted(woken) == expected


def check_wait_for(module: types.ModuleType) -> None:
    condition = module.Condition()
    asked: list[bool] = []

    def never() -> int:
        asked.append(True)
        return 0

    with condition:
        assert condition.wait_for(lambda: "yes") == "yes"
        assert condition.wait_for(never, timeout=0.001) == 0
        assert condition.wait_for(predicate=never, timeout=0) == 0
        with raises(ZeroDivisionError):
            condition.wait_for(lambda: 1 // 0)
        assert elsewhere(lambda: condition.acquire(blocking=False)) is False
        with raises(TypeError):
            condition.wait_for()
        with raises(TypeError):
            condition.wait_for(1)
    assert len(asked) >= 3
    assert elsewhere(lambda: condition.acquire(blocking=False) and (condition.release() or True))


def check_a_queue_of_conditions(module: types.ModuleType) -> None:
    """Producers and consumers over a bounded buffer; every item arrives once."""
    lock = kinds_of_lock(module)[0]()
    not_full, not_empty = module.Condition(lock), module.Condition(lock)
    buffer: list[int] = []
    taken: list[int] = []

    def produce(first: int) -> None:
        for item in range(first, first + 500):
            with not_full:
                not_full.wait_for(lambda: len(buffer) < 3)
                buffer.append(item)
                not_empty.notify()

    def consume() -> None:
        for _ in range(500):
            with not_empty:
                while not buffer:
                    not_empty.wait(timeout=random.choice((None, 1e-4)))
                taken.append(buffer.pop(0))
                not_full.notify()

    together(lambda: produce(0), consume, lambda: produce(500), consume)
    assert sorted(taken) == list(range(1000))


CHECKS = {name.removeprefix("check_"): value for name, value in sorted(globals().items()) if name.startswith("check_")}


def main() -> None:
    from pyruntime import sync

    for name, check in CHECKS.items():
        try:
            check(sync)
        except BaseException:
            print(f"{name} fails", flush=True)
            raise
    print(f"{len(CHECKS)} checks passed")


if __name__ == "__main__":
    main()
