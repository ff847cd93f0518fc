"""Blocks that nobody leaves: collected while they are open, or entered by a thread that ends."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import threading
import weakref
from collections.abc import Callable

import pytest
from conftest import FREE_THREADED, Python
from sync_behaviour import running

import pyruntime
from pyruntime import sync


def collected(what: str, how: str) -> pytest.WarningsRecorder:
    return pytest.warns(ResourceWarning, match=re.escape(f"{what} was entered, never left, and is collected: {how}"))


def test_a_pause_that_is_collected_starts_the_world() -> None:
    pause = pyruntime.stop_the_world(timeout=60)
    pause.__enter__()
    seen = weakref.ref(pause)
    with collected("a stop_the_world() block", "the world is started now"):
        del pause
    assert seen() is None

    def enter() -> None:
        with pyruntime.attached():
            pass

    with running(enter):
        pass
    with pyruntime.stop_the_world(timeout=60) as pause:
        assert pause.is_open


def test_a_section_that_is_collected_is_left() -> None:
    thing = object()
    section = sync.CriticalSection(thing)
    section.__enter__()
    with collected("a CriticalSection", "it is left now"):
        del section
    assert pyruntime.current() is None

    def enter() -> None:
        with sync.CriticalSection(thing):
            pass

    with running(enter):
        pass


def test_sections_that_are_collected_in_any_order(capfd: pytest.CaptureFixture[str]) -> None:
    outer, inner = sync.CriticalSection([]), sync.CriticalSection([], [])
    outer.__enter__()
    inner.__enter__()
    with collected("a CriticalSection", "it is left now"):
        del outer
    assert "began later" in capfd.readouterr().err
    assert pyruntime.current() is not None
    inner.__exit__(None, None, None)
    assert pyruntime.current() is None


def test_an_exception_outlives_the_collection() -> None:
    class Held:
        def __init__(self) -> None:
            self.section = sync.CriticalSection(self)
            self.section.__enter__()
            raise KeyError("mine")

    with collected("a CriticalSection", "it is left now"):
        with pytest.raises(KeyError, match="mine"):
            Held()
        gc.collect()
    assert pyruntime.current() is None


@pytest.mark.skipif(FREE_THREADED, reason="who collects it is not known there")
@pytest.mark.parametrize("kind", ["a CriticalSection", "a stop_the_world() block"])
def test_on_another_thread_it_stays_open_until_its_own_one_ends(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    thing = object()
    make: Callable[[], sync.CriticalSection | pyruntime.Pause]
    make = pyruntime.stop_the_world if "stop" in kind else lambda: sync.CriticalSection(thing)
    box: list[object] = []
    entered, may_end = threading.Event(), threading.Event()

    def stay() -> None:
        block = make()
        block.__enter__()
        box.append(block)
        del block
        entered.set()
        may_end.wait()

    with running(stay):
        entered.wait()
        with collected(kind, "the thread that entered it is another one than this, and "):
            box.clear()
        if "stop" in kind:
            with pytest.raises(pyruntime.TimeoutExpired, match=r"the pause of thread '.*' .* was in the way"):
                pyruntime.stop_the_world(timeout=0.01).__enter__()
        may_end.set()
    with sync.CriticalSection(thing), pyruntime.attached():
        pass
    capfd.readouterr()


def test_a_thread_that_ends_inside_gives_all_up(python: Python) -> None:
    """Also what is kept. What stayed locked would be locked for other objects, too."""
    result = python.run("""
        import threading, time
        import pyruntime
        from pyruntime.sync import CriticalSection
        kept, things = [], [object() for _ in range(2000)]
        def body():
            for one, two in zip(things[::2], things[1::2]):
                kept.append(CriticalSection(one, two))
                kept[-1].__enter__()
        def stop():
            domain = pyruntime.Domain()
            kept.append(pyruntime.stop_the_world(domain=domain))
            kept[-1].__enter__()
            kept.append(domain)
        for target in (body, stop):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
        for thing in things:
            with CriticalSection(thing):
                pass
        domain, pause = kept.pop(), kept.pop()
        # A thread that was joined may still be ending.
        while pause.is_open or not all("not open" in repr(section) for section in kept):
            time.sleep(0)
        assert "over" in repr(pause), pause
        domain.close()
        with kept[0]:
            assert "not open" not in repr(kept[0])
        kept.clear()
    """)
    assert "ends inside of a critical section" in result.err
    assert "stays locked" not in result.err


def test_nothing_is_said_of_sections_that_the_exit_of_python_ends(python: Python) -> None:
    """The thread that reads makes the exit wait; the others are somewhere in their sections when it goes on."""
    result = python.run("""
        import threading
        from pyruntime.qsbr import reading
        from pyruntime.sync import CriticalSection, Mutex
        thing, mutex, ready = object(), Mutex(), threading.Event()
        def work():
            while True:
                with CriticalSection(thing), mutex:
                    pass
        def stay():
            with reading():
                ready.set()
                threading.Event().wait()
        for target in (stay, work, work, work):
            threading.Thread(target=target, daemon=True).start()
        ready.wait()
    """)
    assert result.err == ""


def test_what_a_thread_leaves_locked_when_it_ends(python: Python) -> None:
    result = python.run("""
        import threading
        from pyruntime import stop_the_world
        from pyruntime.sync import CriticalSection, Mutex, Once, RLock, RWLock, StripedLock
        mutex, rlock, written, read = Mutex(), RLock(), RWLock(), RWLock()
        stripes, once, thing = StripedLock(), Once(), object()
        kept = [CriticalSection(thing), stop_the_world()]
        def body():
            mutex.acquire()
            rlock.acquire()
            written.write().acquire()
            read.read().acquire()
            stripes.for_key(1).acquire()
            try:
                once.call(lambda: 1 // 0)
            except ZeroDivisionError:
                pass
            for one in kept: one.__enter__()
        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        # It may still be ending. What it reads is unlocked last.
        assert read.write().acquire(timeout=60)
        for lock in (mutex, rlock, written.read(), written.write(), stripes.for_key(1)):
            assert not lock.acquire(timeout=0.001), lock
        mutex.release()
        with mutex, CriticalSection(thing), stop_the_world():
            assert once.call(lambda: 3) == 3
        for lock in (rlock, written, stripes):
            lock._at_fork_reinit()
        with rlock, written.write(), stripes.all():
            pass
    """)
    assert "that reads under the pyrt_rwlock" in result.err


def test_none_is_a_base_class_or_copied() -> None:
    for kind in (sync.Mutex, sync.RLock, sync.Event, sync.Condition, sync.Once, sync.RWLock, sync.StripedLock):
        with pytest.raises(TypeError, match="not an acceptable base type"):
            type("Mine", (kind,), {})
        for take in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="cannot pickle"):
                take(kind())
