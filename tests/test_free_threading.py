"""Several threads on every object at once: what the GIL would keep apart has to come out exact without it.

On a Python with a GIL the same holds, and less is tried: threads change there between two instructions, not inside of ours.
"""

from __future__ import annotations

import gc
import random
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any

import pytest
from conftest import FREE_THREADED, Python

import pyruntime
from pyruntime import _core, qsbr, state, sync
from pyruntime.qsbr import Domain

THREADS = 4
ROUNDS = 1500 if FREE_THREADED else 500


@pytest.fixture(autouse=True)
def threads_change_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def at_once(body: Callable[[int], Any], threads: int = THREADS) -> list[Any]:
    """What body(0), body(1) ... answer, called in threads that begin together; raises what one of them raises."""
    start = threading.Barrier(threads)
    answers: list[Any] = [None] * threads
    errors: list[BaseException] = []

    def run(number: int) -> None:
        start.wait()
        try:
            answers[number] = body(number)
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]
    return answers


class Together:
    """Lets two threads go on at the same moment, which a threading.Barrier, where one wakes the other, does not."""

    def __init__(self) -> None:
        self.turns = [0, 0]

    def meet(self, number: int) -> None:
        self.turns[number] += 1
        spins = 0
        while self.turns[1 - number] < self.turns[number]:
            spins += 1
            if spins > 200 or not FREE_THREADED:
                time.sleep(0)


def succeeds(call: Callable[[], object]) -> bool:
    """Whether it returns, and does not raise StateError."""
    try:
        call()
    except pyruntime.StateError:
        return False
    return True


# ---- this Python -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not FREE_THREADED, reason="this Python has a GIL")
def test_importing_it_does_not_switch_the_gil_on(this_python: Python) -> None:
    result = this_python.run("""
        import sys, warnings
        warnings.simplefilter("error")
        import pyruntime, pyruntime.state, pyruntime.sync
        print(sys._is_gil_enabled(), pyruntime._core.uses_limited_api)
    """)
    assert result.out == "False False\n"


def test_many_threads_import_it_at_once(python: Python) -> None:
    """And make what is made when it is first wanted, each of which there is one of then."""
    result = python.run("""
        import sys, threading
        start = threading.Barrier(8)
        names = ["Mutex", "Condition", "Once", "StripedLock", "RWLock", "Domain", "Section", "stop_the_world"]
        found = []
        def body(number):
            start.wait()
            import pyruntime
            assert pyruntime._core.lib.pyrt_py_attach() == 0
            for name in names[number:] + names[:number]:
                getattr(pyruntime, name)
            start.wait()
            pyruntime._core.add_sync_types()
            with pyruntime.CriticalSection(names, found), pyruntime.Mutex(), pyruntime.Condition():
                pass
            found.append([pyruntime._core.Domain, pyruntime._core.Section, pyruntime._core.Pause, pyruntime.Mutex])
        threads = [threading.Thread(target=body, args=(number,)) for number in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        import pyruntime
        pyruntime.barrier()
        print(len(found), all(one == found[0] for one in found), [one.name for one in pyruntime.interpreters()])
    """)
    assert result.out == "8 True ['main']\n"
    assert result.err == ""


# ---- locks -----------------------------------------------------------------------------------------------------------

_key = object()


def _stripes_of_two(striped: sync.StripedLock) -> Callable[[], AbstractContextManager[object]]:
    return lambda: striped.for_keys(_key, random.random())


def _rwlock_writer() -> Callable[[], AbstractContextManager[object]]:
    return sync.RWLock().write


def _one(lock: Any) -> Callable[[], AbstractContextManager[object]]:
    return lambda: lock


GUARDS: dict[str, Callable[[], Callable[[], AbstractContextManager[object]]]] = {
    "Mutex": lambda: _one(sync.Mutex()),
    "RLock": lambda: _one(sync.RLock()),
    "Condition": lambda: _one(sync.Condition()),
    "Condition of a Mutex": lambda: _one(sync.Condition(sync.Mutex())),
    "RWLock": _rwlock_writer,
    "StripedLock, one key": lambda: _one(sync.StripedLock(stripes=2).for_key(1)),
    "StripedLock, two keys": lambda: _stripes_of_two(sync.StripedLock(stripes=4)),
    "StripedLock, all": lambda: _one(sync.StripedLock(stripes=4).all()),
    "CriticalSection": lambda: lambda: sync.CriticalSection(_key),
    "CriticalSection of two": lambda: lambda: sync.CriticalSection(_key, random),
    "stop_the_world": lambda: state.stop_the_world,
}


@pytest.mark.parametrize("name", GUARDS)
def test_a_counter_under_a_guard_is_exact(name: str) -> None:
    make = GUARDS[name]()
    total = [0]

    def add(_: int) -> None:
        for _ in range(ROUNDS // 3):
            with make():
                seen = total[0]
                repr(total)
                total[0] = seen + 1

    at_once(add)
    assert total == [THREADS * (ROUNDS // 3)]


def test_readers_never_see_half_of_what_a_writer_does() -> None:
    lock = sync.RWLock()
    pair = [0, 0]

    def body(number: int) -> int:
        torn = 0
        for _ in range(ROUNDS):
            if number == 0:
                with lock.write():
                    pair[0] += 1
                    pair[1] += 1
            else:
                with lock.read():
                    torn += pair[0] != pair[1]
        return torn

    assert at_once(body) == [0] * THREADS
    assert pair == [ROUNDS, ROUNDS]


def test_a_try_that_fails_leaves_an_rlock_as_it_was() -> None:
    lock = sync.RLock()

    def body(number: int) -> None:
        for _ in range(ROUNDS):
            if number == 0:
                depth = random.randrange(1, 5)
                with lock:
                    for _ in range(depth):
                        lock.acquire()
                    assert lock._recursion_count() == depth + 1
                    for _ in range(depth):
                        lock.release()
                    assert lock._recursion_count() == 1
            elif lock.acquire(blocking=False):
                lock.release()

    at_once(body)
    assert not lock.locked()


RELEASED_ANYWHERE: dict[str, Callable[[], Any]] = {
    "Mutex": sync.Mutex,
    "one key": lambda: sync.StripedLock().for_key(1),
    "two keys": lambda: sync.StripedLock().for_keys("a", "b", "a"),
    "all": lambda: sync.StripedLock(stripes=8).all(),
}


@pytest.mark.parametrize("name", RELEASED_ANYWHERE)
def test_of_two_releases_one_succeeds(name: str) -> None:
    lock = RELEASED_ANYWHERE[name]()
    both = Together()

    def body(number: int) -> int:
        released = 0
        for _ in range(ROUNDS // 3):
            if number == 0:
                assert lock.acquire(blocking=False)
            both.meet(number)
            released += succeeds(lock.release)
            both.meet(number)
        return released

    assert sum(at_once(body, 2)) == ROUNDS // 3
    assert not lock.locked()


def test_a_release_by_another_while_its_owner_begins_to_wait() -> None:
    """One of the two releases it; or the wait is over, and both do."""
    both = Together()
    condition = sync.Condition(sync.Mutex())

    def body(number: int) -> list[bool]:
        done = []
        for _ in range(ROUNDS // 3):
            if number == 0:
                assert condition.acquire(blocking=False)
            both.meet(number)
            done.append(succeeds((lambda: condition.wait(timeout=0)) if number == 0 else condition.release))
            both.meet(number)
            if number == 0 and condition.locked():
                condition.release()
        return done

    waited, released = at_once(body, 2)
    assert all(one or other for one, other in zip(waited, released, strict=True))
    assert not condition.locked()


@pytest.mark.parametrize("make", [sync.RLock, sync.Mutex, lambda: sync.RWLock().write()], ids=["RLock", "Mutex", "RWLock"])
def test_what_goes_through_a_condition_arrives_once(make: Callable[[], Any]) -> None:
    condition = sync.Condition(make())
    queue: list[int] = []
    each = ROUNDS // 5

    def body(number: int) -> Counter[int]:
        taken: Counter[int] = Counter()
        for turn in range(each):
            with condition:
                if number % 2 == 0:
                    queue.append(number * each + turn)
                    (condition.notify if turn % 3 else condition.notify_all)()
                else:
                    condition.wait(timeout=0)
                    condition.wait_for(lambda: queue)
                    taken[queue.pop()] += 1
            repr(condition)
        return taken

    taken = sum(at_once(body), Counter[int]())
    assert taken == Counter({number * each + turn: 1 for number in range(0, THREADS, 2) for turn in range(each)})
    assert "0 waiting" in repr(condition)


def test_every_set_of_an_event_is_seen() -> None:
    there, back = sync.Event(), sync.Event()

    def body(number: int) -> None:
        for _ in range(ROUNDS // 5):
            if number == 0:
                back.clear()
                there.set()
                assert back.wait(timeout=60)
            elif number == 1:
                assert there.wait(timeout=60)
                there.clear()
                back.set()
            else:
                there.is_set()
                repr(back)

    at_once(body)


def test_a_once_runs_to_its_end_once() -> None:
    ends: Counter[int] = Counter()
    for turn in range(ROUNDS // 10):
        once, tries = sync.Once(), iter([1, 0])

        def run(turn: int, tries: Iterator[int]) -> list[int]:
            if next(tries):
                raise LookupError
            ends[turn] += 1
            return [turn]

        def body(_: int, once: sync.Once = once, turn: int = turn, tries: Iterator[int] = tries) -> object:
            for _ in range(2):
                with suppress(LookupError):
                    return once.call(run, turn, tries)
            raise AssertionError("it raised a second time")

        answers = at_once(body)
        assert once.done
        assert all(answer is answers[0] for answer in answers)
    assert ends == Counter(dict.fromkeys(range(ROUNDS // 10), 1))


def test_an_object_that_threads_share_by_mistake_is_for_one_at_a_time() -> None:
    """It refuses the others, and whoever is inside leaves again."""
    shared: list[Any] = [sync.CriticalSection(_key), state.stop_the_world(), qsbr.reading(), qsbr.attached()]
    inside = [0] * len(shared)

    def body(_: int) -> int:
        entered = 0
        for _ in range(ROUNDS // 10):
            for number, one in enumerate(shared):
                if succeeds(one.__enter__):
                    inside[number] += 1
                    assert inside[number] == 1
                    repr(one)
                    inside[number] -= 1
                    one.__exit__(None, None, None)
                    entered += 1
            repr(shared)
        return entered

    assert sum(at_once(body)) > 0
    assert inside == [0] * len(shared)
    assert state.current() is None
    for one in shared:
        with one:
            pass


def test_what_is_told_of_a_pause_while_it_goes_on() -> None:
    pause = state.stop_the_world()

    def body(number: int) -> None:
        for _ in range(ROUNDS // 5):
            if number == 0:
                with pause:
                    pass
            else:
                assert pause.time_to_stop >= 0
                assert pause.duration >= 0
                assert pause.stopped_threads >= 0
                assert repr(pause).startswith("<pause of domain 'main', ")

    at_once(body)
    assert not pause.is_open


def test_owners_are_named_while_threads_come_and_go() -> None:
    lock, striped = sync.Mutex(), sync.StripedLock(stripes=1)

    def body(number: int) -> None:
        for _ in range(ROUNDS // 10):
            if number == 0:
                thread = threading.Thread(target=hold)
                thread.start()
                thread.join()
            else:
                assert repr(lock).startswith("<pyruntime.Mutex")
                repr(striped)
                with suppress(pyruntime.DeadlockError), state.stop_the_world(), lock:
                    pass

    def hold() -> None:
        with lock, striped.all():
            repr(lock)

    at_once(body)


@pytest.mark.parametrize("make", [sync.Mutex, sync.Event, sync.Condition, sync.Once, sync.RWLock, sync.StripedLock])
def test_weak_references_while_the_object_ends(make: Callable[[], object]) -> None:
    places: list[Any] = [None] * THREADS
    dead: list[int] = []

    def note(number: int, _: object) -> None:
        dead.append(number)

    def body(number: int) -> int:
        seen = 0
        references = []
        for turn in range(ROUNDS // 5):
            made = make()
            references.append(weakref.ref(made, partial(note, number)))
            places[(number + turn) % THREADS] = made
            del made
            there = places[turn % THREADS]
            reference = weakref.ref(there) if there is not None else None
            del there
            seen += reference is not None and reference() is not None
            while len(references) > 8:
                del references[0]
        return seen

    assert sum(at_once(body)) > 0


# ---- domains ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["default", "own"])
def test_everything_that_is_retired_runs_once(where: str) -> None:
    with Domain(name="many threads") as own:
        domain = own if where == "own" else qsbr.default_domain
        ran: Counter[int] = Counter()
        lock = threading.Lock()

        def note(number: int) -> None:
            with lock:
                ran[number] += 1

        def body(number: int) -> None:
            for turn in range(ROUNDS // 5):
                with domain.reading():
                    domain.retire(partial(note, number))
                with domain.attached():
                    domain.quiescent()
                if turn % 50 == 0:
                    domain.synchronize(timeout=60)
                    domain.barrier(timeout=60)
                    assert domain.poll(domain.advance()) in (True, False)
                    domain.stats()
                    domain.stall_report()

        at_once(body)
        domain.barrier(timeout=60)
        assert ran == Counter(dict.fromkeys(range(THREADS), ROUNDS // 5))


def test_a_close_that_is_refused_was_none() -> None:
    """Who is told that the domain is closed finds it closed for good."""
    for _ in range(ROUNDS // 10):
        domain = Domain()

        def body(number: int, domain: Domain = domain) -> int:
            closed = 0
            for _ in range(20):
                if number == 0:
                    try:
                        domain.close()
                    except pyruntime.BusyError:
                        continue
                    closed = 1
                elif not succeeds(lambda: use(domain)):
                    assert domain.closed
                    assert not succeeds(lambda: use(domain))
            return closed

        at_once(body, 3)
        domain.close()
        assert domain.closed


def close(domain: Domain, _: int) -> None:
    domain.close()


def use(domain: Domain) -> None:
    with domain.reading():
        domain.retire(int)


def test_of_many_closes_one_ends_it() -> None:
    before = len(state.interpreters())
    for _ in range(ROUNDS // 10):
        domain, ran = Domain(), [0]

        def note(ran: list[int] = ran) -> None:
            ran[0] += 1

        domain.retire(note)
        at_once(partial(close, domain))
        assert domain.closed
        qsbr.barrier()
        assert ran == [1]
    assert len(state.interpreters()) == before


def test_lists_of_threads_and_domains_while_they_change() -> None:
    def body(number: int) -> None:
        for turn in range(ROUNDS // 15):
            if number == 0:
                domain = Domain(name=f"number {turn}")
                with domain.attached():
                    now = state.current()
                    assert now is not None
                    assert now.interpreter_id == domain.interpreter_id
                # Who lists its threads keeps it for that time.
                while not domain.closed:
                    with suppress(pyruntime.BusyError):
                        domain.close()
            elif number == 1:
                thread = threading.Thread(target=lambda: use(qsbr.default_domain))
                thread.start()
                thread.join()
            else:
                assert "main" in {one.name for one in state.interpreters()}
                ids = [one.id for one in state.threads()]
                assert len(ids) == len(set(ids))
                state.pause_stats(everything=True)
                _core.attached_thread()

    at_once(body)
    qsbr.barrier()


def test_sections_that_are_collected_while_others_use_theirs() -> None:
    """Garbage collection on one thread finds what others have made."""

    class Node:
        def __init__(self) -> None:
            self.me = self
            self.held: list[Any] = [
                sync.CriticalSection(self),
                sync.Once(),
                qsbr.reading(),
                state.stop_the_world(),
                sync.RWLock().read(),
            ]
            self.held[1].call(lambda: self)

    def body(number: int) -> None:
        for turn in range(ROUNDS // 5):
            node = Node()
            with node.held[0], node.held[4]:
                pass
            with node.held[2]:
                pass
            del node
            if number == 0 and turn % 20 == 0:
                gc.collect()

    at_once(body)
    gc.collect()


# ---- fork ------------------------------------------------------------------------------------------------------------


def test_threads_of_a_child_use_what_threads_of_the_parent_waited_on(python: Python) -> None:
    python.run("""
        import os, threading, time, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from pyruntime import sync
        def wait(condition):
            with condition:
                condition.wait(60)
        def child(conditions):
            start = threading.Barrier(4)
            totals = [0] * len(conditions)
            def body():
                for number, condition in enumerate(conditions):
                    start.wait()
                    for _ in range(20):
                        with condition:
                            totals[number] += 1
                            condition.wait(0)
                            condition.notify_all()
            threads = [threading.Thread(target=body) for _ in range(4)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            assert totals == [80] * len(conditions), totals
            assert all("0 waiting" in repr(condition) for condition in conditions)
        conditions = [sync.Condition() for _ in range(20)]
        waiters = [threading.Thread(target=wait, args=(condition,)) for condition in conditions]
        for waiter in waiters: waiter.start()
        while not all("1 waiting" in repr(condition) for condition in conditions):
            time.sleep(0)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                child(conditions)
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        for condition in conditions:
            with condition:
                condition.notify_all()
        for waiter in waiters: waiter.join()
    """)
