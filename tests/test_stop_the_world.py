"""stop_the_world() of Python: who stands still, what it tells, what it refuses, and every way out of it."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from pathlib import Path
from unittest.mock import Mock

import pytest
from conftest import Python
from sync_behaviour import elsewhere, raises, running, wait_until

import pyruntime
from pyruntime import Domain, errors, sync
from pyruntime._core import ffi, lib


def is_stopped() -> bool:
    return bool(lib.pyrt_world_is_stopped(lib.pyrt_interp_main()))


@pytest.fixture(autouse=True)
def _nothing_stays_stopped() -> object:
    yield
    assert not is_stopped()
    assert not lib.pyrt_world_is_stopped(ffi.NULL)


# ---- what it does ----------------------------------------------------------------------------------------------------


def test_threads_inside_of_blocks_stand_still() -> None:
    turns, over = [0], threading.Event()

    def passing() -> None:
        with pyruntime.attached():
            while not over.is_set():
                turns[0] += 1
                pyruntime.quiescent()

    with running(passing, passing):
        wait_until(lambda: turns[0] > 10)
        try:
            for _ in range(20):
                with pyruntime.stop_the_world(timeout=60) as pause:
                    before = turns[0]
                    for _ in range(100):
                        elsewhere(lambda: None)  # Python's own threads go on
                    assert turns[0] == before
                    assert pause.stopped_threads >= 2
        finally:
            over.set()


def test_nobody_comes_in_meanwhile() -> None:
    inside: list[str] = []

    def enter() -> None:
        with pyruntime.reading():
            inside.append("reading")

    with pyruntime.stop_the_world(timeout=60):
        thread = threading.Thread(target=enter)
        thread.start()
        wait_until(lambda: "suspended" in [one.state for one in pyruntime.threads()])
        assert inside == []
        with pyruntime.reading(), pyruntime.attached():
            pass  # this thread may
    thread.join()
    assert inside == ["reading"]


def test_what_it_tells() -> None:
    pause = pyruntime.stop_the_world(timeout=60)
    assert (pause.time_to_stop, pause.duration, pause.stopped_threads, pause.is_open) == (0, 0, 0, False)
    assert repr(pause) == "<pause of domain 'main', not begun, 0 threads>"
    with pause as entered:
        assert entered is pause
        assert is_stopped()
        assert not lib.pyrt_world_is_stopped(ffi.NULL) or len(pyruntime.interpreters()) == 1
        assert pause.is_open
        assert "open" in repr(pause)
        so_far = pause.duration
    assert 0 < so_far < pause.duration < 60
    assert 0 < pause.time_to_stop < 60
    assert not pause.is_open
    assert "over" in repr(pause)
    at_end = pause.duration
    assert pause.duration == at_end
    with pause:
        assert pause.is_open
    assert weakref.ref(pause)() is pause


def test_one_domain_or_everything() -> None:
    with Domain(name="other") as other, Domain(name="third") as third:
        pinned = lib.pyrt_interp_pin(third.interpreter_id)
        with pyruntime.stop_the_world(domain=other, timeout=60) as pause:
            assert not is_stopped()
            assert not lib.pyrt_world_is_stopped(pinned)
            assert "domain 'other'" in repr(pause)
            with pytest.raises(errors.BusyError):
                other.close()
            assert elsewhere(lambda: pyruntime.advance()) is not None
        with pyruntime.stop_the_world(everything=True, timeout=60) as pause:
            assert is_stopped()
            assert lib.pyrt_world_is_stopped(pinned)
            assert "everything" in repr(pause)
        lib.pyrt_interp_unpin(pinned)


def test_pauses_of_two_domains_overlap_and_those_of_one_follow_each_other() -> None:
    with Domain() as other:
        ready, go, order = threading.Event(), threading.Event(), []

        def stop_other() -> None:
            with pyruntime.stop_the_world(domain=other, timeout=60):
                order.append("other")
                ready.set()
                go.wait()

        def stop_the_same() -> None:
            with pyruntime.stop_the_world(timeout=60):
                order.append("second")

        with running(stop_other):
            ready.wait()
            with pyruntime.stop_the_world(timeout=60):
                order.append("main")
                go.set()
        with pyruntime.stop_the_world(timeout=60):
            thread = threading.Thread(target=stop_the_same)
            thread.start()
            order.append("first")
        thread.join()
    assert order == ["other", "main", "first", "second"]


def test_stats() -> None:
    with Domain() as domain:
        assert pyruntime.pause_stats(domain=domain).pauses == 0
        for _ in range(10):
            with pyruntime.stop_the_world(domain=domain, timeout=60) as pause:
                pass
        stats = pyruntime.pause_stats(domain=domain)
        assert stats.pauses == 10
        assert 0 < stats.time_to_stop_p50 <= stats.time_to_stop_p99 <= stats.time_to_stop_max * 9 / 8
        assert 0 < stats.duration_p50 <= stats.duration_p99 <= stats.duration_max * 9 / 8
        assert 0 < stats.duration_max <= stats.duration_total < 60
        assert pause.duration < 60
    before = pyruntime.pause_stats(everything=True).pauses
    with pyruntime.stop_the_world(everything=True, timeout=60):
        pass
    assert pyruntime.pause_stats(everything=True).pauses == before + 1
    with raises(errors.StateError):
        pyruntime.pause_stats(domain=domain)


# ---- what it refuses -------------------------------------------------------------------------------------------------


def test_a_thread_that_does_not_stop_is_named() -> None:
    ready, go = threading.Event(), threading.Event()

    def stay() -> None:
        with pyruntime.attached():
            ready.set()
            go.wait()

    with running() as _:
        thread = threading.Thread(target=stay, name="Bummler")
        thread.start()
        ready.wait()
        before = pyruntime.pause_stats().timed_out
        try:
            for everything in (False, True):
                pause = pyruntime.stop_the_world(timeout=0.01, everything=everything)
                with raises(TimeoutError, errors.TimeoutExpired) as caught:
                    pause.__enter__()
                assert f"'Bummler' (system id {thread.native_id})" in str(caught[0])
                assert "nothing is stopped" in str(caught[0])
                assert not pause.is_open
        finally:
            go.set()
            thread.join()
    assert pyruntime.pause_stats().timed_out > before
    with pause:
        pass


def test_another_pause_in_the_way() -> None:
    with pyruntime.stop_the_world(timeout=60):

        def refused() -> None:
            with raises(errors.TimeoutExpired) as caught, pyruntime.stop_the_world(timeout=0.01):
                pass
            assert "the pause of thread 'MainThread' (system id " in str(caught[0])

        with running(refused):
            pass


def test_nested_pauses_are_refused() -> None:
    with Domain() as other, pyruntime.stop_the_world(timeout=60) as pause:
        for inner in (pause, pyruntime.stop_the_world(), pyruntime.stop_the_world(domain=other)):
            with pytest.raises(errors.StateError, match="inside a stop_the_world"):
                inner.__enter__()
        with pytest.raises(errors.StateError, match="inside a stop_the_world"):
            pyruntime.stop_the_world(everything=True).__enter__()
        assert is_stopped()


def test_wrong_places(capfd: pytest.CaptureFixture[str]) -> None:
    with Domain(name="mine") as mine:
        with pyruntime.reading(), pytest.raises(errors.StateError, match="reading"):
            pyruntime.stop_the_world().__enter__()
        with mine.attached(), pytest.raises(errors.StateError, match="inside a block of domain 'mine'"):
            pyruntime.stop_the_world().__enter__()
        with mine.attached(), pyruntime.stop_the_world(domain=mine, timeout=60):
            pass
        with pyruntime.attached(), pyruntime.stop_the_world(everything=True, timeout=60):
            pass
    with pytest.raises(errors.StateError, match="closed"):
        pyruntime.stop_the_world(domain=mine).__enter__()
    assert capfd.readouterr().err == ""


def test_wrong_exits() -> None:
    pause = pyruntime.stop_the_world(timeout=60)
    with pytest.raises(errors.StateError, match="not open"):
        pause.__exit__(None, None, None)

    def foreign() -> None:
        with pytest.raises(errors.StateError, match="another thread"):
            pause.__exit__(None, None, None)
        with pytest.raises(errors.StateError, match="another thread is inside"):
            pause.__enter__()

    with pause, running(foreign):
        pass
    with pytest.raises(errors.StateError, match="left already"):
        pause.__exit__(None, None, None)


def test_wrong_arguments() -> None:
    for function in (pyruntime.stop_the_world, pyruntime.pause_stats):
        with raises(TypeError, errors.ArgumentTypeError):
            function(domain=1)  # type: ignore[arg-type]
        with raises(TypeError, errors.ArgumentTypeError):
            function(everything="yes")  # type: ignore[arg-type]
        with raises(ValueError, errors.ArgumentError):
            function(domain=pyruntime.qsbr.default_domain, everything=True)
    with raises(TypeError, errors.ArgumentTypeError):
        pyruntime.stop_the_world(domain=Mock(spec=Domain))
    for wrong in (-1, float("nan")):
        with raises(ValueError, errors.ArgumentError):
            pyruntime.stop_the_world(timeout=wrong)
    with raises(TypeError, errors.ArgumentTypeError):
        pyruntime.stop_the_world(timeout="5")  # type: ignore[arg-type]
    with raises(TypeError):
        type(pyruntime.stop_the_world())()


# ---- locks inside of a pause -----------------------------------------------------------------------------------------


def test_what_would_wait_raises_and_names_the_owner() -> None:
    lock, rlock, once, event = sync.Mutex(), sync.RLock(), sync.Once(), sync.Event()
    condition = sync.Condition()
    ready, go = threading.Event(), threading.Event()

    def hold() -> None:
        with lock, rlock, condition:
            once.call(lambda: (ready.set(), go.wait()))

    with running(hold) as (thread,):
        thread.name = "Eigner"
        ready.wait()
        try:
            with pyruntime.stop_the_world(timeout=60):
                waits = [lock.acquire, lock.__enter__, rlock.acquire, condition.acquire, lambda: once.call(int)]
                waits += [lambda: lock.acquire(timeout=5)]
                for wait in waits:
                    with raises(RuntimeError, errors.DeadlockError) as caught:
                        wait()
                    assert f"held by thread 'Eigner' (id {thread.ident})" in str(caught[0])
                    assert "stop_the_world() block" in str(caught[0])
                with raises(errors.DeadlockError):
                    event.wait()
                assert lock.acquire(blocking=False) is False
                assert event.wait(0) is False
                free = sync.Mutex()
                with free, sync.RLock():
                    pass
                event.set()
                assert event.wait()
        finally:
            go.set()
    own = sync.Condition()
    with own, pyruntime.stop_the_world(timeout=60):
        with raises(errors.DeadlockError):
            own.wait()
        own.notify_all()


def test_a_lock_that_is_handed_on_while_the_world_stands_still() -> None:
    """A waiter that is woken but cannot attach gives the lock back: the one who stopped the world gets it."""
    lock, woken = sync.Mutex(), []

    def wait_attached() -> None:
        with pyruntime.attached(), lock:
            woken.append(lib.pyrt_world_is_stopped(lib.pyrt_interp_main()))

    for _ in range(20):
        lock.acquire()
        with running(wait_attached):
            wait_until(lambda: ", 1 waiting" in repr(lock))
            with pyruntime.stop_the_world(timeout=60):
                lock.release()
                for _ in range(100):
                    with lock:
                        pass
    assert woken == [False] * 20


# ---- ways out --------------------------------------------------------------------------------------------------------


def test_an_exception_ends_the_pause() -> None:
    with pytest.raises(ZeroDivisionError), pyruntime.stop_the_world(timeout=60):
        _ = 1 // 0
    assert not is_stopped()


def test_a_thread_that_ends_inside_starts_the_world_again(python: Python) -> None:
    python.run("""
        import threading
        import pyruntime
        kept = []
        def body():
            kept.append(pyruntime.stop_the_world(timeout=60))
            kept[-1].__enter__()
        for _ in range(5):
            thread = threading.Thread(target=body)
            thread.start()
            thread.join()
            with pyruntime.stop_the_world(timeout=60), pyruntime.attached():
                pass
    """)


def test_ctrl_c_ends_the_wait_for_the_stop(python: Python) -> None:
    python.run("""
        import os, signal, threading, time
        import pyruntime
        from pyruntime._core import ffi, lib
        ready, go = threading.Event(), threading.Event()
        def stay():
            with pyruntime.attached():
                ready.set()
                go.wait()
        waiting = [False]
        def interrupt():
            while not waiting[0]: time.sleep(0)
            os.kill(os.getpid(), signal.SIGINT)
        threads = [threading.Thread(target=body) for body in (stay, interrupt)]
        for one in threads: one.start()
        ready.wait()
        try:
            waiting[0] = True
            with pyruntime.stop_the_world():
                raise SystemExit("stopped")
        except KeyboardInterrupt:
            pass
        assert not lib.pyrt_world_is_stopped(ffi.NULL)
        go.set()
        for one in threads: one.join()
        with pyruntime.stop_the_world(): pass
    """)


COMING_IN = {
    "attached": "with pyruntime.attached(): pass",
    "reading": "with pyruntime.reading(): pass",
    "a domain of one's own": "with domain.reading(): pass",
    "a call in a domain of one's own": "domain.synchronize()",
}


@pytest.mark.parametrize("what", COMING_IN)
def test_ctrl_c_ends_the_wait_to_come_in(python: Python, what: str) -> None:
    python.run(f"""
        import os, signal, threading, time
        import pyruntime
        from pyruntime import sync
        domain = pyruntime.Domain()
        ready, go = threading.Event(), threading.Event()
        def stop():
            with pyruntime.stop_the_world(everything=True):
                ready.set()
                go.wait()
        handled = []
        def handler(*args):
            handled.append(args)
            pyruntime.current(), sync.Mutex().acquire()
            if len(handled) > 1:
                raise KeyboardInterrupt
        signal.signal(signal.SIGINT, handler)
        waiting = [False]
        def interrupt():
            while not waiting[0]: time.sleep(0)
            os.kill(os.getpid(), signal.SIGINT)
            while not handled: time.sleep(0)
            os.kill(os.getpid(), signal.SIGINT)
        def body():
            {COMING_IN[what]}
        with pyruntime.attached(): pass
        threads = [threading.Thread(target=one, daemon=True) for one in (stop, interrupt)]
        for one in threads: one.start()
        ready.wait()
        try:
            waiting[0] = True
            body()
            raise SystemExit("inside")
        except KeyboardInterrupt:
            pass
        # A domain has nobody in it now.
        assert [one.state for one in pyruntime.threads()] == ["suspended"], pyruntime.threads()
        go.set()
        for one in threads: one.join()
        body()
        domain.close()
    """)


def test_fork_inside_of_a_pause(python: Python) -> None:
    python.run("""
        import os, threading, warnings
        warnings.simplefilter("ignore")
        import pyruntime
        go = threading.Event()
        def passing():
            while not go.is_set():
                with pyruntime.attached():
                    pyruntime.quiescent()
        threads = [threading.Thread(target=passing) for _ in range(2)]
        for one in threads: one.start()
        for everything in (False, True):
            with pyruntime.stop_the_world(timeout=60, everything=everything) as pause:
                child = os.fork()
                if child == 0:
                    pause.__exit__(None, None, None)
                    with pyruntime.attached(), pyruntime.stop_the_world(timeout=60): pass
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
        go.set()
        for one in threads: one.join()
    """)


@pytest.mark.parametrize("everything", [False, True])
def test_the_process_ends_inside_of_a_pause(python: Python, everything: bool) -> None:
    python.run(f"""
        import threading, time
        import pyruntime
        def enter():
            with pyruntime.attached(): pass
        pause = pyruntime.stop_the_world(everything={everything})
        pause.__enter__()
        threading.Thread(target=enter, daemon=True).start()
        while "suspended" not in [one.state for one in pyruntime.threads()]: time.sleep(0)
    """)


def test_pauses_leak_nothing() -> None:
    with Domain() as domain:
        kind = type(pyruntime.stop_the_world())
        gc.collect()
        before = sys.getrefcount(kind), sys.getrefcount(domain)
        for _ in range(100):
            with pyruntime.stop_the_world(domain=domain):
                pass
        gc.collect()
        assert (sys.getrefcount(kind), sys.getrefcount(domain)) == before


def test_two_threads_pause_and_others_pass(python: Python) -> None:
    """Counters that are only changed inside of blocks are whole in every pause."""
    python.run("""
        import random, sys, threading
        import pyruntime
        sys.setswitchinterval(1e-5)
        pairs = [[0, 0] for _ in range(3)]
        over = threading.Event()
        torn = []
        def passing(pair):
            with pyruntime.attached():
                while not over.is_set():
                    pair[0] += 1
                    pair[1] += 1
                    pyruntime.quiescent()
        def pausing(seed):
            r = random.Random(seed)
            for _ in range(100):
                with pyruntime.stop_the_world(timeout=60, everything=r.random() < 0.3):
                    torn.extend(pair for pair in pairs if pair[0] != pair[1])
        passers = [threading.Thread(target=passing, args=(pair,)) for pair in pairs]
        pausers = [threading.Thread(target=pausing, args=(seed,)) for seed in range(2)]
        for one in passers + pausers: one.start()
        for one in pausers: one.join()
        over.set()
        for one in passers: one.join()
        assert torn == []
        assert min(pair[0] for pair in pairs) > 0
    """)


def test_the_examples_of_the_documentation_run(python: Python) -> None:
    tests = str(Path(__file__).parent)
    result = python.run(f"""
import doctest, sys
sys.path.insert(0, {tests!r})
from pyruntime import pause_stats, stop_the_world
runner = doctest.DocTestRunner()
for function in (stop_the_world, pause_stats):
    for example in doctest.DocTestFinder().find(function, function.__name__, module=False):
        runner.run(example)
assert runner.failures == 0
print(runner.tries)
""")
    assert int(result.out) >= 6
