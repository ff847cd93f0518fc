"""pyruntime.sync: each lock against Python's own with the same checks, what is ours alone, and all of it on every Python."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import Python, needs_subinterpreters
from sync_behaviour import CHECKS, elsewhere, raises, running, together, wait_until

import pyruntime
from pyruntime import errors, sync

HERE = Path(__file__).parent


@pytest.mark.parametrize("module", [sync, threading], ids=["ours", "threading"])
@pytest.mark.parametrize("check", CHECKS)
def test_behaviour(module: ModuleType, check: str) -> None:
    CHECKS[check](module)


def test_the_same_on_every_python(python: Python) -> None:
    result = python.run(f"import sys; sys.path.insert(0, {str(HERE)!r}); import sync_behaviour; sync_behaviour.main()")
    assert result.out == f"{len(CHECKS)} checks passed\n"


def test_the_examples_run_on_every_python(python: Python) -> None:
    result = python.run("""
        import doctest
        from pyruntime import sync
        found = doctest.DocTestFinder().find(sync, "sync")
        for name in sync.__all__:
            found += doctest.DocTestFinder().find(getattr(sync, name), name, module=False)
        runner = doctest.DocTestRunner()
        for example in found:
            runner.run(example)
        assert runner.failures == 0
        print(runner.tries)
    """)
    assert int(result.out) > 50


# ---- errors ----------------------------------------------------------------------------------------------------------


PLAIN = {
    "Mutex": sync.Mutex,
    "RLock": sync.RLock,
    "Condition": sync.Condition,
    "reader": lambda: sync.RWLock().read(),
    "writer": lambda: sync.RWLock().write(),
    "stripe": lambda: sync.StripedLock().for_key("a"),
    "stripes": lambda: sync.StripedLock(stripes=4).for_keys(*"abcdef"),
    "all stripes": lambda: sync.StripedLock(stripes=8, apart=True).all(),
}


@pytest.mark.parametrize("kind", PLAIN.values(), ids=PLAIN)
def test_errors_are_pyruntimes_too(kind: Any) -> None:
    lock = kind()
    with raises(RuntimeError, errors.StateError):
        lock.release()
    with raises(ValueError, errors.ArgumentError):
        lock.acquire(timeout=-5)
    with raises(ValueError, errors.ArgumentError):
        lock.acquire(False, 1)
    with raises(OverflowError, errors.RangeError):
        lock.acquire(timeout=1e300)
    with raises(TypeError, errors.ArgumentTypeError):
        lock.acquire(timeout="soon")


def test_a_release_by_a_stranger_names_the_owner() -> None:
    lock = sync.RLock()

    def hold() -> None:
        lock.acquire()
        held.set()
        go.wait()
        lock.release()

    held, go = threading.Event(), threading.Event()
    with running(hold) as (thread,):
        thread.name = "Käthe"
        held.wait()
        try:
            with pytest.raises(errors.StateError, match=rf"held by thread 'Käthe' \(id {thread.ident}\)"):
                lock.release()
            assert f"locked once by thread 'Käthe' (id {thread.ident})" in repr(lock)
        finally:
            go.set()


def test_a_condition_takes_our_locks_only() -> None:
    for foreign in (threading.Lock(), 1, sync.Event(), sync.Condition()):
        with pytest.raises(errors.ArgumentTypeError, match="Mutex, an RLock"):
            sync.Condition(foreign)  # type: ignore[arg-type]


def test_repr() -> None:
    lock = sync.Mutex()
    assert repr(lock).startswith("<pyruntime.Mutex, unlocked, 0 waiting, at 0x")
    with lock:
        assert f"locked by thread 'MainThread' (id {threading.get_ident()})" in repr(lock)
    event = sync.Event()
    assert "not set, 0 waiting" in repr(event)
    event.set()
    assert "Event, set, 0 waiting" in repr(event)
    once = sync.Once()
    assert "not done" in repr(once)
    once.call(lambda: "run by thread 'MainThread'" in repr(once) or 1 / 0)
    assert "Once, done" in repr(once)
    condition = sync.Condition(lock)
    assert repr(lock) in repr(condition)


def test_repr_counts_those_who_wait() -> None:
    lock, event, condition = sync.Mutex(), sync.Event(), sync.Condition()

    def wait_for_notification() -> None:
        with condition:
            condition.wait()

    lock.acquire()
    with running(lock.acquire, event.wait, event.wait, wait_for_notification):
        wait_until(lambda: ", 1 waiting" in repr(lock))
        wait_until(lambda: ", 2 waiting" in repr(event))
        wait_until(lambda: ", 1 waiting" in repr(condition))
        lock.release()
        event.set()
        with condition:
            condition.notify()
    lock.release()
    assert ", 0 waiting" in repr(lock)
    assert ", 0 waiting" in repr(event)
    assert ", 0 waiting" in repr(condition)


# ---- inside of blocks ------------------------------------------------------------------------------------------------


def test_what_may_wait_is_refused_inside_reading() -> None:
    """Also where it would not wait this time: otherwise the error would come up by chance."""
    lock, rlock, event, once, condition = sync.Mutex(), sync.RLock(), sync.Event(), sync.Once(), sync.Condition()
    event.set()
    with pyruntime.reading():
        calls: list[Any] = [lock.acquire, lock.__enter__, rlock.acquire, rlock.__enter__, event.wait, condition.acquire]
        calls += [lambda: once.call(int), lambda: lock.acquire(timeout=1)]
        for call in calls:
            with pytest.raises(errors.StateError, match=r"inside a reading\(\) block"):
                call()
        assert lock.acquire(blocking=False)
        assert rlock.acquire(blocking=False)
        assert event.is_set()
        lock.release()
        rlock.release()
    with condition, pyruntime.reading(), pytest.raises(errors.StateError, match="reading"):
        condition.wait(0)
    assert once.call(int) == 0
    with pyruntime.reading():
        assert once.call(str) == 0


def test_a_wait_is_detached_and_holds_up_nobody() -> None:
    lock, event, condition = sync.Mutex(), sync.Event(), sync.Condition()

    def wait_attached() -> None:
        with pyruntime.attached(), lock:
            event.wait()
            with condition:
                condition.wait()
            current = pyruntime.current()
            assert current is not None
            assert current.state == "attached"

    lock.acquire()
    with running(wait_attached):
        wait_until(lambda: ", 1 waiting" in repr(lock))
        pyruntime.synchronize(timeout=60)
        with pyruntime.stop_the_world(timeout=60):
            pass
        lock.release()
        wait_until(lambda: ", 1 waiting" in repr(event))
        pyruntime.synchronize(timeout=60)
        event.set()
        wait_until(lambda: ", 1 waiting" in repr(condition))
        with pyruntime.stop_the_world(timeout=60):
            pass
        with condition:
            condition.notify()


# ---- Event, Condition: what threading does not promise ----------------------------------------------------------------


def test_an_event_that_is_set_and_cleared_wakes_who_waited() -> None:
    event = sync.Event()
    answers: list[bool] = []
    with running(*[lambda: answers.append(event.wait())] * 3):
        wait_until(lambda: ", 3 waiting" in repr(event))
        event.set()
        event.clear()
    assert answers == [True] * 3


def test_hostile_predicates() -> None:
    condition = sync.Condition()

    class Odd:
        def __bool__(self) -> bool:
            raise KeyError

    def release_and_answer() -> bool:
        condition.release()
        return False

    with condition:
        with pytest.raises(KeyError):
            condition.wait_for(Odd)
        with pytest.raises(errors.StateError):
            condition.wait_for(release_and_answer)
        condition.acquire()
        with pytest.raises(ValueError, match="by the predicate"):
            condition.wait_for(lambda: (_ for _ in ()).throw(ValueError("by the predicate")))
    assert elsewhere(lambda: condition.acquire(blocking=False) and (condition.release() or True))


def test_finalizers_that_take_locks() -> None:
    lock, order = sync.RLock(), []

    class Late:
        def __del__(self) -> None:
            with lock:
                order.append("finalizer")

    class Cycle:
        def __init__(self) -> None:
            self.me = self
            self.late = Late()

    with lock:
        Cycle()
        gc.collect()
        order.append("block")
    assert order == ["finalizer", "block"]
    assert not lock.locked()


# ---- Once ------------------------------------------------------------------------------------------------------------


def test_once_runs_once() -> None:
    once, ran = sync.Once(), []
    answers: list[object] = []

    def work(number: int) -> int:
        ran.append(number)
        return number

    together(*[lambda number=number: answers.append(once.call(work, number)) for number in range(8)])
    assert len(ran) == 1
    assert answers == ran * 8
    assert once.done


def test_once_passes_arguments_and_keeps_the_result() -> None:
    once = sync.Once()
    result = once.call(dict, [("a", 1)], b=2)
    assert result == {"a": 1, "b": 2}
    assert once.call(list) is result
    for wrong in ((), (1,), (None, 2)):
        with pytest.raises(TypeError):
            once.call(*wrong)


def test_once_that_fails_is_tried_again_by_those_who_wait() -> None:
    once, attempts = sync.Once(), []
    begun, go = threading.Event(), threading.Event()
    answers: list[object] = []

    def fail() -> None:
        attempts.append("fails")
        begun.set()
        go.wait()
        raise LookupError

    def first() -> None:
        with pytest.raises(LookupError):
            once.call(fail)

    def second() -> None:
        begun.wait()
        answers.append(once.call(lambda: attempts.append("works") or "done"))

    with running(first, second, second):
        begun.wait()
        wait_until(lambda: ", 2 waiting" in repr(once))
        go.set()
    assert attempts == ["fails", "works"]
    assert answers == ["done"] * 2


def test_once_inside_of_itself() -> None:
    once = sync.Once()
    with pytest.raises(errors.DeadlockError, match="would wait for that function"):
        once.call(lambda: once.call(int))
    assert not once.done
    assert once.call(int) == 0


def test_once_is_collected_with_what_it_keeps() -> None:
    class Node:
        def __init__(self) -> None:
            self.once = sync.Once()
            self.once.call(lambda: self)

    reference = weakref.ref(Node())
    gc.collect()
    assert reference() is None


def test_locks_are_freed() -> None:
    """Objects of heap types hold their type: none is lost, and none too many is given up."""
    for kind in (sync.Mutex, sync.RLock, sync.Event, sync.Condition, sync.Once, sync.RWLock, sync.StripedLock):
        before = sys.getrefcount(kind)
        kept = [kind() for _ in range(100)]
        assert sys.getrefcount(kind) >= before + 100
        del kept
        gc.collect()
        assert sys.getrefcount(kind) == before


def test_calls_leak_nothing(python: Python) -> None:
    python.run("""
        import gc, sys, threading
        from pyruntime import sync
        def use():
            lock, rlock, event, once = sync.Mutex(), sync.RLock(), sync.Event(), sync.Once()
            condition = sync.Condition(lock)
            with lock, rlock, rlock:
                condition.wait(0); condition.notify(); condition.notify_all(); repr(lock); repr(rlock)
                condition.wait_for(lambda: True)
                try: rlock._acquire_restore("x")
                except TypeError: pass
            state = rlock.acquire() and rlock._release_save()
            rlock._acquire_restore(state); rlock.release()
            wrongs = [lock.release, rlock.release, condition.wait, lambda: lock.acquire(1, 2, 3)]
            wrongs += [lambda: lock.acquire(timeout="x")]
            for wrong in wrongs:
                try: wrong()
                except (RuntimeError, TypeError): pass
            event.set(); event.wait(); event.clear(); event.wait(0); event.is_set(); repr(event)
            once.call(dict, a=1); once.call(int); repr(once); repr(condition)
            lock.acquire(timeout=1); lock.locked(); lock.release()
            rw, striped = sync.RWLock(), sync.StripedLock(4)
            for one in (rw.read(), rw.write(), striped.for_key(1), striped.for_keys(1, 2), striped.all()):
                with one: repr(one); one.locked()
                try: one.release()
                except RuntimeError: pass
            sync.Condition(rw.write()); striped.waits(); striped.stripes
            with sync.CriticalSection(rw), sync.CriticalSection([], rw) as section: repr(section)
        def measure():
            gc.collect()
            return [sys.getrefcount(x) for x in (None, True, False, sync.Mutex, sync.RLock)], sys.getallocatedblocks()
        for _ in range(1000): use()
        counts, blocks = measure()
        for _ in range(1000): use()
        new_counts, new_blocks = measure()
        assert max(abs(a - b) for a, b in zip(counts, new_counts)) < 500, (counts, new_counts)
        assert abs(new_blocks - blocks) < 500, (blocks, new_blocks)
    """)


def test_every_call_without_memory(this_python: Python) -> None:
    """Python's own n-th allocation fails, for each n: MemoryError, and nothing stays locked, attached or stopped."""
    pytest.importorskip("_testcapi")
    result = this_python.run("""
        import _testcapi
        import pyruntime
        from pyruntime import sync
        domain = pyruntime.Domain()
        rw, striped, once, lock = sync.RWLock(), sync.StripedLock(), sync.Once(), sync.Mutex()
        condition = sync.Condition(lock)
        thing = []
        true = lambda: True
        def in_condition():
            with condition:
                condition.wait(0)
                condition.wait_for(true)
                condition.notify_all()
        def in_section():
            with sync.CriticalSection(thing, lock):
                pass
        def in_side():
            with rw.read(): pass
            with rw.write(): pass
        def in_keys():
            with striped.for_keys(1, 2, 3): pass
            with striped.all(): pass
        def in_pause():
            with pyruntime.stop_the_world(timeout=60): pass
        def with_error(call):
            def wrapped():
                try: call()
                except (RuntimeError, ValueError, SystemError): pass  # the last: where Python forgets to say why
            return wrapped
        calls = [sync.Mutex, sync.RLock, sync.Event, sync.RWLock, sync.StripedLock, sync.Condition, sync.Once,
                 lambda: sync.Once().call(dict, a=1), in_condition, in_section, in_side, in_keys, in_pause,
                 lambda: repr(condition), lambda: repr(striped),
                 lambda: striped.waits(), with_error(lock.release), with_error(rw.read().release),
                 with_error(lambda: lock.acquire(timeout=-7))]
        for call in calls: call()
        failed = 0
        for call in calls:
            for n in range(200):
                _testcapi.set_nomemory(n, n + 1)
                try:
                    call()
                except MemoryError:
                    failed += 1
                else:
                    pass
                finally:
                    _testcapi.remove_mem_hooks()
            assert not lock.locked() and not rw.read().locked() and not rw.write().locked(), call
            assert "0 locked" in repr(striped)
            assert pyruntime.current() is None
            assert not pyruntime._core.lib.pyrt_world_is_stopped(pyruntime._core.lib.pyrt_interp_main())
        print(failed)
    """)
    assert int(result.out) > 20


# ---- RWLock ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PLAIN.values(), ids=PLAIN)
def test_everything_that_locks_is_a_lock(kind: Any) -> None:
    lock = kind()
    for _ in range(2):
        assert lock.acquire(timeout=5) is True
        assert lock.locked()
        lock.release()
        assert not lock.locked()
        with lock:
            assert lock.locked()
        assert not lock.locked()
        assert lock.acquire(False) is True
        lock.release()
    with pytest.raises(errors.StateError):
        lock.__exit__(None, None, None)
    with pyruntime.reading():
        with pytest.raises(errors.StateError, match="reading"):
            lock.acquire()
        assert lock.acquire(blocking=False)
        lock.release()


def test_readers_are_inside_together_and_a_writer_alone() -> None:
    lock = sync.RWLock()
    all_in = threading.Barrier(4)

    def read() -> None:
        for _ in range(300):  # biased and not
            with lock.read():
                assert not lock.write().acquire(blocking=False)
        with lock.read():
            all_in.wait()

    together(*[read] * 4)
    with lock.write():
        assert not elsewhere(lambda: lock.read().acquire(timeout=0.01))
        assert not elsewhere(lambda: lock.write().acquire(blocking=False))
        assert lock.write().locked()
        assert not lock.read().locked()
    assert elsewhere(lambda: lock.read().acquire() and (lock.read().release() or True))


def test_a_reader_that_comes_after_a_writer_waits_for_it() -> None:
    lock, order = sync.RWLock(), []

    def write() -> None:
        with lock.write():
            order.append("writer")

    def read() -> None:
        with lock.read():
            order.append("reader")

    with lock.read():
        writer = threading.Thread(target=write)
        writer.start()
        wait_until(lambda: ", 1 waiting" in repr(lock))
        reader = threading.Thread(target=read)
        reader.start()
        wait_until(lambda: ", 2 waiting" in repr(lock))
        order.append("first reader")
    writer.join()
    reader.join()
    assert order == ["first reader", "writer", "reader"]


def test_an_rwlock_that_this_thread_holds() -> None:
    lock = sync.RWLock()
    for outer in (lock.read(), lock.write()):
        with outer:
            for inner in (lock.read(), lock.write()):
                with pytest.raises(errors.DeadlockError, match="this thread itself"):
                    inner.acquire()
                with pytest.raises(errors.DeadlockError, match="this thread itself"):
                    inner.acquire(timeout=1)
                assert not inner.acquire(blocking=False)
    assert "0 readers, 0 waiting" in repr(lock)


def test_each_side_is_left_by_the_thread_that_took_it(capfd: pytest.CaptureFixture[str]) -> None:
    lock = sync.RWLock()

    def refused() -> None:
        for side in (lock.read(), lock.write()):
            with pytest.raises(errors.StateError, match="does not hold"):
                side.release()

    for side, other in ((lock.read(), lock.write()), (lock.write(), lock.read())):
        with side:
            with running(refused):
                pass
            with pytest.raises(errors.StateError, match="does not hold"):
                other.release()
    refused()
    assert capfd.readouterr().err == ""


def test_more_read_locks_than_a_thread_is_known_to_hold() -> None:
    locks = [sync.RWLock() for _ in range(40)]
    for lock in locks:
        assert lock.read().acquire()
    assert all(lock.read().locked() for lock in locks)
    for lock in locks:
        lock.read().release()
    for lock in locks:
        with pytest.raises(errors.StateError):
            lock.read().release()
        with lock.write():
            pass


def test_an_rwlock_that_is_freed_while_it_is_read() -> None:
    for _ in range(50):
        sync.RWLock().read().acquire()
        sync.RWLock().write().acquire()
    gc.collect()
    locks = [sync.RWLock() for _ in range(50)]
    for lock in locks:
        with lock.read():
            pass
        with lock.write():
            pass


def test_a_condition_of_a_writer() -> None:
    lock, items = sync.RWLock(), []
    condition = sync.Condition(lock.write())

    def put() -> None:
        with lock.write():
            items.append(1)
            condition.notify()

    with running(put), condition:
        assert condition.wait_for(lambda: items) == [1]
        assert lock.write().locked()
    with pytest.raises(errors.ArgumentTypeError):
        sync.Condition(lock.read())


# ---- StripedLock -----------------------------------------------------------------------------------------------------


def test_equal_keys_exclude_each_other() -> None:
    stripes = sync.StripedLock(stripes=1024)
    with stripes.for_key(1):
        assert not stripes.for_key(1.0).acquire(blocking=False)
        assert not stripes.for_keys("x", True).acquire(timeout=0.001)
        assert not stripes.all().acquire(blocking=False)
        assert stripes.for_key(1).locked()
        assert "1 locked" in repr(stripes)
        others = [key for key in range(2, 50) if stripes.for_key(key).acquire(blocking=False)]
        assert len(others) > 30
        for key in others:
            stripes.for_key(key).release()
    assert "0 locked" in repr(stripes)
    assert sum(stripes.waits()) == 1


def test_keys_and_stripes_that_there_cannot_be() -> None:
    for count, rounded in ((1, 1), (3, 4), (64, 64), (1000, 1024)):
        stripes = sync.StripedLock(stripes=count)
        assert stripes.stripes == rounded == len(stripes.waits())
        with stripes.for_keys(*range(100)), pytest.raises(TypeError):
            stripes.for_key([])  # type: ignore[arg-type]
    for wrong in (0, -1, 2**21):
        with raises(ValueError, errors.ArgumentError):
            sync.StripedLock(wrong)
    for no_number in ("4", None, 1.5):
        with pytest.raises(TypeError):
            sync.StripedLock(no_number)  # type: ignore[arg-type]
    with raises(TypeError, errors.ArgumentTypeError):
        stripes.for_keys()
    with pytest.raises(TypeError):
        stripes.for_keys(1, {})  # type: ignore[arg-type]

    class Hostile:
        def __hash__(self) -> int:
            raise LookupError

    with pytest.raises(LookupError):
        stripes.for_keys(1, 2, Hostile())


def test_transfers_between_accounts_come_out_exact() -> None:
    stripes, balance = sync.StripedLock(stripes=8), dict.fromkeys(range(20), 100)
    totals: list[int] = []

    def transfer(seed: int) -> None:
        import random

        r = random.Random(seed)
        for _ in range(500):
            source, target = r.sample(range(20), 2)
            with stripes.for_keys(source, target):
                balance[source] -= 1
                balance[target] += 1

    def audit() -> None:
        for _ in range(100):
            with stripes.all():
                totals.append(sum(balance.values()))

    together(*[lambda seed=seed: transfer(seed) for seed in range(3)], audit)
    assert totals == [2000] * 100
    assert sum(balance.values()) == 2000
    assert "0 locked" in repr(stripes)


def test_a_striped_lock_names_its_owner_in_a_pause() -> None:
    stripes, lock = sync.StripedLock(), sync.RWLock()
    ready, go = threading.Event(), threading.Event()

    def hold() -> None:
        with stripes.for_key("a"), lock.write():
            ready.set()
            go.wait()

    with running(hold) as (thread,):
        ready.wait()
        try:
            with pyruntime.stop_the_world(timeout=60):
                for one in (stripes.for_key("a"), stripes.for_keys("b", "a"), stripes.all(), lock.read(), lock.write()):
                    with pytest.raises(errors.DeadlockError, match=rf"held by thread .* \(id {thread.ident}\)"):
                        one.acquire()
        finally:
            go.set()


# ---- CriticalSection -------------------------------------------------------------------------------------------------


def test_sections_of_one_object_exclude_each_other() -> None:
    counters = [[0], [0]]

    def count() -> None:
        for turn in range(500):
            with sync.CriticalSection(counters[turn % 2]):
                seen = counters[turn % 2][0]
                counters[turn % 2][0] = seen + 1
            with sync.CriticalSection(*counters):
                counters[0][0] += 1

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        together(*[count] * 4)
    finally:
        sys.setswitchinterval(switch)
    assert counters == [[3000], [1000]]


def test_sections_nest_in_any_order() -> None:
    one, other = object(), object()

    def nest(first: object, second: object) -> None:
        for _ in range(300):
            with sync.CriticalSection(first), sync.CriticalSection(second), sync.CriticalSection(first, second):
                pass
            with sync.CriticalSection(first), sync.CriticalSection(first):
                pass
            with sync.CriticalSection(second, first), sync.CriticalSection(first, first):
                pass

    together(*[lambda: nest(one, other), lambda: nest(other, one)] * 2)


def test_a_section_is_given_up_in_a_wait() -> None:
    thing, lock, entered = object(), sync.Mutex(), threading.Event()

    def wait_inside() -> None:
        with sync.CriticalSection(thing):
            with lock:
                pass
            assert pyruntime.current() is not None

    def enter() -> None:
        with sync.CriticalSection(thing):
            entered.set()

    lock.acquire()
    with running(wait_inside):
        wait_until(lambda: ", 1 waiting" in repr(lock))
        with running(enter):
            entered.wait()
        with pyruntime.stop_the_world(timeout=60), sync.CriticalSection(thing):
            pass
        lock.release()


def test_a_section_waits_for_another_thread() -> None:
    thing, ready, go, order = object(), threading.Event(), threading.Event(), []

    def hold() -> None:
        with sync.CriticalSection(thing):
            ready.set()
            go.wait()
            order.append("holder")

    def enter() -> None:
        with sync.CriticalSection(object(), thing):
            order.append("waiter")

    with running(hold):
        ready.wait()
        with running(enter):
            go.set()
    assert order == ["holder", "waiter"]


def test_sections_in_wrong_places(capfd: pytest.CaptureFixture[str]) -> None:
    section, inner = sync.CriticalSection(1), sync.CriticalSection(2)
    with pytest.raises(errors.StateError, match="not open"):
        section.__exit__(None, None, None)
    with pyruntime.reading(), pytest.raises(errors.StateError, match="reading"):
        section.__enter__()

    def foreign() -> None:
        with pytest.raises(errors.StateError, match="another thread"):
            section.__exit__(None, None, None)
        with pytest.raises(errors.StateError, match="another thread"):
            section.__enter__()

    with section as entered:
        assert entered is section
        with pytest.raises(errors.StateError, match="on this thread"):
            section.__enter__()
        with running(foreign):
            pass
        inner.__enter__()
        with pytest.raises(errors.StateError, match="leave that one first"):
            section.__exit__(None, None, None)
        inner.__exit__(None, None, None)
    with section:
        assert "open" in repr(section)
    assert "not open" in repr(section)
    assert pyruntime.current() is None
    for wrong in ((), (1, 2, 3)):
        with raises(TypeError, errors.ArgumentTypeError):
            sync.CriticalSection(*wrong)
    with pytest.raises(TypeError):
        sync.CriticalSection(object=1)  # type: ignore[call-overload]
    with pyruntime.Domain() as mine, mine.attached(), section:
        current = pyruntime.current()
        assert current is not None
        assert current.interpreter_id == mine.interpreter_id
    assert capfd.readouterr().err == ""


def test_sections_on_every_python(python: Python) -> None:
    """Ctrl-C, fork and the end of the process with a section open."""
    python.run("""
        import os, signal, sys, threading, time, warnings
        warnings.simplefilter("ignore")
        import pyruntime
        from pyruntime.sync import CriticalSection
        thing, ready, go = object(), threading.Event(), threading.Event()
        def hold():
            with CriticalSection(thing):
                ready.set()
                go.wait()
        holder = threading.Thread(target=hold)
        holder.start()
        ready.wait()
        child = os.fork()
        if child == 0:
            with CriticalSection(thing): pass
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        with CriticalSection(object()):
            child = os.fork()
            if child == 0:
                with CriticalSection(thing): pass
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        asked = [False]
        def interrupt():
            while not asked[0]: time.sleep(0)
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        try:
            asked[0] = True
            with CriticalSection(thing): raise SystemExit("inside")
        except KeyboardInterrupt:
            pass
        assert pyruntime.current() is None
        go.set()
        holder.join()
        go.clear()
        ready.clear()
        threading.Thread(target=hold, daemon=True).start()
        ready.wait()
        def enter():
            with CriticalSection(thing): pass
        threading.Thread(target=enter, daemon=True).start()
        section = CriticalSection(object())
        section.__enter__()
        sys.exit(0)
    """)


# ---- signals, exit, fork, interpreters --------------------------------------------------------------------------------

BLOCKED = {
    "Mutex": "lock = sync.Mutex(); lock.acquire(); thing, wait = lock, lock.acquire",
    "Mutex with a time": "lock = sync.Mutex(); lock.acquire(); thing, wait = lock, lambda: lock.acquire(timeout=1000)",
    "RLock": """
lock = sync.RLock()
thread = threading.Thread(target=lock.acquire); thread.start(); thread.join()
thing, wait = lock, lock.acquire
""",
    "Event": "thing = sync.Event(); wait = thing.wait",
    "Condition": "thing = sync.Condition(); thing.acquire(); wait = thing.wait",
    "RWLock, a writer behind a reader": """
thing = sync.RWLock()
begun, never = threading.Event(), threading.Event()
def read():
    with thing.read():
        begun.set()
        never.wait()
threading.Thread(target=read, daemon=True).start()
begun.wait()
wait = thing.write().acquire
""",
    "RWLock, a reader behind a writer": """
thing = sync.RWLock()
thread = threading.Thread(target=thing.write().acquire); thread.start(); thread.join()
wait = thing.read().acquire
""",
    "Once": """
thing, begun, never = sync.Once(), threading.Event(), threading.Event()
threading.Thread(target=thing.call, args=(lambda: (begun.set(), never.wait()),), daemon=True).start()
begun.wait()
wait = lambda: thing.call(int)
""",
}

SIGNALLED = """
import os, signal, threading, time
from pyruntime import sync
{setup}
def interrupt():
    while ", 1 waiting" not in repr(thing):
        time.sleep(0)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
try:
    wait()
except KeyboardInterrupt:
    print("interrupted", repr(thing).count(", 0 waiting"))
"""


@pytest.mark.parametrize("what", BLOCKED)
def test_ctrl_c_ends_a_wait(python: Python, what: str) -> None:
    out = python.run(SIGNALLED.format(setup=BLOCKED[what])).out
    assert out.startswith("interrupted")
    assert " 0\n" not in out


@pytest.mark.parametrize("what", BLOCKED)
def test_a_handler_that_returns_does_not_end_a_wait(this_python: Python, what: str) -> None:
    this_python.run(
        f"""
import os, signal, threading, time
from pyruntime import sync
{BLOCKED[what]}
class Enough(Exception): pass
calls = []
def handler(*_):
    calls.append(1)
    if len(calls) == 3:
        raise Enough
signal.signal(signal.SIGUSR1, handler)
def interrupt():
    for n in range(3):
        while ", 1 waiting" not in repr(thing) or len(calls) < n:
            time.sleep(0)
        os.kill(os.getpid(), signal.SIGUSR1)
threading.Thread(target=interrupt, daemon=True).start()
try:
    wait()
except Enough:
    pass
else:
    raise SystemExit("not ended")
"""
    )


def test_a_notification_is_not_lost_with_an_exception(python: Python) -> None:
    """The main thread is notified while a handler of its runs that raises: the thread behind it is told instead."""
    python.run("""
        import os, signal, threading, time
        from pyruntime import sync
        class Stop(Exception): pass
        condition, told, main_is_notified = sync.Condition(), [], threading.Event()
        def handler(*_):
            notify.start()
            main_is_notified.wait()
            raise Stop
        signal.signal(signal.SIGUSR1, handler)
        def wait():
            with condition:
                told.append(condition.wait(60))
        def interrupt():
            while ", 2 waiting" not in repr(condition): time.sleep(0)
            os.kill(os.getpid(), signal.SIGUSR1)
        def notify_one():
            with condition:
                condition.notify()
            main_is_notified.set()
        threads = [threading.Thread(target=body) for body in (wait, interrupt, notify_one)]
        notify = threads[2]
        with condition:
            for one in threads[:2]: one.start()
            try:
                condition.wait(60)
            except Stop:
                told.append("Stop")
        for one in threads: one.join()
        assert sorted(map(str, told)) == ["Stop", "True"], told
    """)


EXITS = {
    "blocked on a Mutex": "lock = sync.Mutex(); lock.acquire(); body = lock.acquire; thing = lock",
    "blocked on an RLock": "lock = sync.RLock(); lock.acquire(); body = lock.acquire; thing = lock",
    "blocked on an Event": "thing = sync.Event(); body = thing.wait",
    "blocked on a Condition": """
thing = sync.Condition()
def body():
    with thing: thing.wait()
""",
    "blocked on an RWLock": """
thing = sync.RWLock()
thing.write().acquire()
body = thing.read().acquire
""",
    "blocked on a Once": """
thing, begun = sync.Once(), threading.Event()
threading.Thread(target=thing.call, args=(lambda: (begun.set(), threading.Event().wait()),), daemon=True).start()
begun.wait()
body = lambda: thing.call(int)
""",
}


@pytest.mark.parametrize("inside", ["", "attached"])
@pytest.mark.parametrize("how", EXITS)
def test_the_process_ends_while_threads_are_blocked(python: Python, how: str, inside: str) -> None:
    wrapped = "with pyruntime.attached(): body()" if inside else "body()"
    python.run(f"""
import sys, threading, time
import pyruntime
from pyruntime import sync
{EXITS[how]}
def run():
    {wrapped}
for _ in range(3):
    threading.Thread(target=run, daemon=True).start()
while ", 3 waiting" not in repr(thing):
    time.sleep(0)
class AtExit:
    def __del__(self):
        # Other threads are ended as soon as they want the GIL; their locks can still be used.
        if isinstance(thing, sync.Event):
            thing.set()
        elif isinstance(thing, sync.Condition):
            with thing: thing.notify_all()
        elif isinstance(thing, sync.RWLock):
            thing.write().release()
        elif not isinstance(thing, sync.Once):
            thing.release()
            assert thing.acquire(timeout=20)
sys.kept = AtExit()
""")


FORKS = {
    "waiters of a Mutex": """
thing = sync.Mutex()
thing.acquire()
def body():
    with thing: pass
""",
    "waiters of an RWLock": """
thing = sync.RWLock()
thing.write().acquire()
def body():
    with thing.read(): pass
""",
    "waiters of an Event": "thing = sync.Event(); body = thing.wait",
    "waiters of a Condition": """
thing = sync.Condition()
def body():
    with thing: thing.wait()
""",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", FORKS)
def test_fork_with_waiters(python: Python, what: str) -> None:
    python.run(f"""
import os, sys, threading, time, warnings
warnings.simplefilter("ignore")
from pyruntime import sync
{FORKS[what]}
threads = [threading.Thread(target=body) for _ in range(3)]
for one in threads: one.start()
while ", 3 waiting" not in repr(thing): time.sleep(0)
def finish():
    if isinstance(thing, sync.Event): thing.set()
    elif isinstance(thing, sync.Condition):
        with thing: thing.notify_all()
    elif isinstance(thing, sync.RWLock): thing.write().release()
    else: thing.release()
child = os.fork()
if child == 0:
    # Nobody of those waits here; the locks work on, for new threads too.
    assert ", 0 waiting" in repr(thing), repr(thing)
    mine = threading.Thread(target=body)
    mine.start()
    while ", 1 waiting" not in repr(thing): time.sleep(0)
    finish()
    mine.join()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
finish()
for one in threads: one.join()
""")


def test_locks_that_other_threads_held_are_unlocked_after_fork(python: Python) -> None:
    python.run("""
        import os, threading, warnings
        warnings.simplefilter("ignore")
        from pyruntime import sync
        lock, rlock, condition, once = sync.Mutex(), sync.RLock(), sync.Condition(), sync.Once()
        begun, go = threading.Event(), threading.Event()
        def hold():
            with lock, rlock, condition:
                once.call(lambda: (begun.set(), go.wait()))
        thread = threading.Thread(target=hold)
        thread.start()
        begun.wait()
        for one in (lock, rlock, condition, once):
            os.register_at_fork(after_in_child=one._at_fork_reinit)
        child = os.fork()
        if child == 0:
            for one in (lock, rlock, condition):
                assert one.acquire(timeout=20)
            condition.notify_all()
            assert once.call(int) == 0
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        go.set()
        thread.join()
    """)


def test_a_once_that_a_lost_thread_was_running_is_new_in_the_child(python: Python) -> None:
    """Of five, whose threads end in another order than they began; the forking thread goes on with its own."""
    python.run("""
        import os, threading, warnings
        warnings.simplefilter("ignore")
        from pyruntime import sync
        lost = [sync.Once() for _ in range(5)]
        begun, go = [threading.Event() for _ in lost], [threading.Event() for _ in lost]
        def run(i):
            begun[i].set()
            go[i].wait()
            return i
        threads = [threading.Thread(target=once.call, args=(run, i), daemon=True) for i, once in enumerate(lost)]
        for thread, event in zip(threads, begun):
            thread.start()
            event.wait()
        for i in (2, 0):
            go[i].set()
            threads[i].join()
        mine = sync.Once()
        def fork():
            child = os.fork()
            if child == 0:
                for i, once in enumerate(lost):
                    assert "run by" not in repr(once), once
                    assert once.call(lambda: "child") == (i if i in (0, 2) else "child")
                try:
                    mine.call(int)
                except RuntimeError:
                    return "child"
                os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
            return "parent"
        answer = mine.call(fork)
        assert mine.call(int) == answer
        if answer == "child":
            # Its children find whole what it has made of the list.
            child = os.fork()
            if child == 0:
                os._exit(lost[1].call(int) != "child")
            os._exit(os.waitpid(child, 0)[1] != 0)
        for i in (1, 3, 4):
            assert "run by" in repr(lost[i])
            go[i].set()
            threads[i].join()
        assert [once.call(int) for once in lost] == list(range(5))
    """)


def test_a_handler_that_forks_in_a_wait(python: Python) -> None:
    python.run("""
        import os, signal, threading, time, warnings
        warnings.simplefilter("ignore")
        from pyruntime import sync
        condition = sync.Condition()
        status = []
        def handler(*_):
            child = os.fork()
            status.append(child if child == 0 else os.waitpid(child, 0)[1])
        signal.signal(signal.SIGUSR1, handler)
        def interrupt():
            while ", 1 waiting" not in repr(condition): time.sleep(0)
            os.kill(os.getpid(), signal.SIGUSR1)
            while not status: time.sleep(0)
            with condition: condition.notify()
        thread = threading.Thread(target=interrupt)
        with condition:
            thread.start()
            pid = os.getpid()
            condition.wait()  # in the child it ends by itself
        if status == [0] and os.getppid() == pid:
            os._exit(0)
        thread.join()
        assert status == [0]
    """)


@needs_subinterpreters
def test_two_interpreters_have_types_of_their_own(python: Python) -> None:
    python.run(f"""
import sys
try:
    import _interpreters as interpreters  # 3.13
except ImportError:
    import _xxsubinterpreters as interpreters
from pyruntime import sync
code = {IN_AN_INTERPRETER!r}
for _ in range(5):
    other = interpreters.create("legacy") if sys.version_info >= (3, 13) else interpreters.create(isolated=False)
    error = interpreters.run_string(other, code)
    assert error is None, error.formatted
    interpreters.destroy(other)
lock = sync.Mutex()
with lock:
    pass
""")


IN_AN_INTERPRETER = """
import threading
import pyruntime
from pyruntime import sync
lock, total = sync.Mutex(), []
def add():
    for _ in range(500):
        with lock:
            total.append(1)
threads = [threading.Thread(target=add) for _ in range(2)]
for one in threads: one.start()
for one in threads: one.join()
assert len(total) == 1000
condition = sync.Condition(lock)
with condition:
    condition.notify_all()
with pyruntime.stop_the_world(timeout=60):
    lock.acquire()
    lock.release()
"""


STRESS = """
import random, sys, threading
from pyruntime import sync, stop_the_world, attached, quiescent, retire, barrier
seed = int(sys.argv[1])
sys.setswitchinterval(1e-5)
locks = [sync.Mutex(), sync.RLock()]
condition = sync.Condition(locks[0])
event = sync.Event()
sums, expected = [0, 0], []
def work(number):
    r = random.Random(seed * 1000 + number)
    mine = [0, 0]
    for turn in range(600):
        which = r.randrange(2)
        lock = locks[which]
        how = r.randrange(6)
        if how == 0:
            if not lock.acquire(blocking=False): continue
        elif how == 1:
            if not lock.acquire(timeout=r.choice((0, 1e-6, 1e-4))): continue
        elif how == 2 and which == 0:
            with condition:
                condition.notify(r.randrange(3))
                condition.wait(timeout=r.choice((1e-5, 1e-4)))
                sums[0] += 1; mine[0] += 1
            continue
        elif how == 3:
            event.set() if r.random() < 0.5 else event.clear()
            event.wait(r.choice((0, 1e-5)))
            continue
        elif how == 4 and number == 0 and turn % 20 == 0:
            with stop_the_world(timeout=60): pass
            continue
        elif how == 5:
            with attached():
                quiescent()
                with lock:
                    seen = sums[which]; mine[which] += 1; sums[which] = seen + 1
            continue
        else:
            lock.acquire()
        seen = sums[which]
        mine[which] += 1
        if r.random() < 0.1: retire(int)
        sums[which] = seen + 1
        lock.release()
    expected.append(mine)
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
for one in threads: one.start()
for one in threads: one.join()
assert sums == [sum(column) for column in zip(*expected)], (sums, expected)
barrier()
assert not any(lock.locked() for lock in locks)
"""


@pytest.mark.parametrize("seed", range(2))
def test_stress(python: Python, seed: int) -> None:
    """The sums come out exact. Run it again with its seed as the argument."""
    python.run(STRESS, str(seed))


def test_importing_the_package_does_not_import_the_locks(this_python: Python) -> None:
    loaded = "print('pyruntime.sync' in sys.modules)"
    assert this_python.run(f"import sys, pyruntime; {loaded}; pyruntime.Mutex; {loaded}").out == "False\nTrue\n"


def test_the_signatures_are_told() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import pyruntime.sync as s; help(s.Mutex)"], capture_output=True, text=True
    )
    assert "acquire(self, /, blocking=True, timeout=-1)" in done.stdout
