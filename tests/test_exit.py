"""The end of processes and of threads, in the middle of everything: exit status 0, no hang, nothing lost in silence."""

from __future__ import annotations

import os
import re
import signal

import pytest
from conftest import Python

DAEMONS = {
    "in a wait": """
        def body():
            ready.set()
            pyruntime.synchronize()
        with pyruntime.reading():
            start(body)
            wait_until(lambda: pyruntime.stats().sleeps > 0)
            raise SystemExit(0)
    """,
    "in a barrier": """
        def body():
            ready.set()
            pyruntime.barrier()
        with pyruntime.reading():
            start(body)
            wait_until(lambda: pyruntime.stats().sleeps > 0)
            raise SystemExit(0)
    """,
    "asleep inside attached()": """
        def body():
            with pyruntime.attached():
                ready.set()
                threading.Event().wait()
        start(body)
    """,
    "asleep inside reading()": """
        def body():
            with pyruntime.reading():
                ready.set()
                threading.Event().wait()
        start(body)
    """,
    "asleep inside a domain of its own": """
        domain = pyruntime.Domain(name="mine")
        def body():
            with domain.reading():
                ready.set()
                threading.Event().wait()
        start(body)
    """,
    "inside stop_the_world()": """
        def body():
            with pyruntime.stop_the_world():
                ready.set()
                threading.Event().wait()
        start(body)
    """,
    "waiting to stop the world": """
        inside = threading.Event()
        def holder():
            with pyruntime.attached():
                inside.set()
                threading.Event().wait()
        def body():
            inside.wait()
            ready.set()
            with pyruntime.stop_the_world():
                pass
        def another_pause_is_in_the_way():
            try:
                with pyruntime.stop_the_world(timeout=0):
                    return False
            except pyruntime.TimeoutExpired as error:
                return "in the way" in str(error)
        threading.Thread(target=holder, daemon=True).start()
        start(body)
        wait_until(another_pause_is_in_the_way)
    """,
    "stopping the world while we exit": """
        def inside():
            with pyruntime.attached():
                ready.set()
                threading.Event().wait()
        def body():
            while pyruntime.stats().sleeps == 0:
                time.sleep(0)
            with pyruntime.stop_the_world():
                threading.Event().wait()
        threading.Thread(target=body, daemon=True).start()
        start(inside)
        pyruntime.retire(int)
    """,
    "busy with everything": """
        domain = pyruntime.Domain(name="mine")
        def body():
            ready.set()
            while True:
                with pyruntime.attached():
                    pyruntime.quiescent()
                with domain.reading():
                    domain.retire(int)
                pyruntime.retire(int)
                pyruntime.synchronize()
        start(body)
        start(body)
    """,
    "parked in a pause": """
        lib, ffi = pyruntime._core.lib, pyruntime._core.ffi
        assert lib.pyrt_stop_the_world(ffi.NULL) == 0
        def body():
            ready.set()
            with pyruntime.attached():
                pass
        start(body)
    """,
}

PRELUDE = """
import sys, threading, time
import pyruntime
ready = threading.Event()
def start(body):
    threading.Thread(target=body, daemon=True).start()
    ready.wait()
def wait_until(condition):
    while not condition():
        time.sleep(0)
"""


def program(body: str) -> str:
    import textwrap

    return PRELUDE + textwrap.dedent(body)


@pytest.mark.parametrize("where", DAEMONS)
def test_daemon_threads_do_not_hold_up_the_exit(python: Python, where: str) -> None:
    python.run(program(DAEMONS[where]))


def test_what_is_retired_runs_at_exit_at_the_latest(python: Python) -> None:
    result = python.run(
        program("""
        domain = pyruntime.Domain()
        for i in range(1000):
            pyruntime.retire(lambda i=i: print("default", i))
            domain.retire(lambda i=i: print("own", i))
        def body():
            for i in range(10):
                pyruntime.retire(lambda i=i: print("thread", i))
            ready.set()
            threading.Event().wait()
        start(body)
        """)
    )
    lines = result.out.splitlines()
    for name, count in (("default", 1000), ("own", 1000), ("thread", 10)):
        mine = [line.split()[1] for line in lines if line.startswith(name)]
        assert mine == [str(i) for i in range(count)]
    assert result.err == ""


def test_a_domain_that_cannot_be_looked_at_any_more_does_not_hide_the_others(python: Python) -> None:
    """One is ending on another thread: here an extension has ended it behind its back."""
    result = python.run(
        program("""
        import ctypes
        from pyruntime._core import lib
        pyruntime.retire(lambda: print("ran"))
        ending = pyruntime.Domain()
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(ending))  # it is never given up
        interp = lib.pyrt_interp_pin(ending.interpreter_id)
        lib.pyrt_interp_unpin(interp)
        assert lib.pyrt_interp_delete(interp) == 0
        """)
    )
    assert result.out == "ran\n"
    assert result.err == ""


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("where", ["main", "mine"])
def test_what_cannot_run_at_exit_is_reported(python: Python, where: str, count: int) -> None:
    result = python.run(
        program(f"""
        domain = pyruntime.Domain("mine") if "{where}" == "mine" else pyruntime.qsbr.default_domain
        def body():
            with domain.reading():
                ready.set()
                threading.Event().wait()
        start(body)
        for _ in range({count}):
            domain.retire(lambda: print("ran"))
        """)
    )
    assert result.out == ""
    what = "1 retired callable was" if count == 1 else "2 retired callables were"
    words = rf"{what} not run at exit: thread \d+ 'Thread-1.*' is still inside a block of domain '{where}'$"
    assert re.search(words, result.err, re.MULTILINE)


def test_who_cannot_leave_is_named_however_many_idle_threads_came_later(python: Python) -> None:
    result = python.run(
        program("""
        def body():
            with pyruntime.reading():
                ready.set()
                threading.Event().wait()
        start(body)
        came = threading.Semaphore(0)
        def idle():
            with pyruntime.reading():
                pass
            came.release()
            threading.Event().wait()
        for _ in range(20):
            start(idle)
            came.acquire()
        pyruntime.retire(print)
        """)
    )
    assert re.search(r"not run at exit: thread 1 'Thread-1.*' is still inside a block of domain 'main'$", result.err, re.M)


def test_a_main_thread_that_exits_inside_a_block_is_named(python: Python) -> None:
    result = python.run("""
        import pyruntime
        section = pyruntime.attached().__enter__()
        pyruntime.retire(print)
    """)
    assert "1 retired callable was not run at exit: thread 1 'MainThread' is still inside a block" in result.err


def test_calls_after_our_exit_function_are_refused_or_work(python: Python) -> None:
    result = python.run("""
        import atexit
        @atexit.register
        def late():
            with pyruntime.reading():
                pass
            pyruntime.quiescent()
            pyruntime.synchronize()
            pyruntime.barrier()
            pyruntime.stats()
            try:
                pyruntime.retire(print)
            except pyruntime.StateError as error:
                print(error)
        import pyruntime
    """)
    assert "exiting" in result.out
    assert result.err == ""


def test_an_exception_of_a_callable_at_exit_is_unraisable(python: Python) -> None:
    result = python.run("""
        import pyruntime
        pyruntime.retire(lambda: 1 / 0)
        pyruntime.retire(lambda: print("next"))
    """)
    assert "ZeroDivisionError" in result.err
    assert result.out == "next\n"


def test_a_program_that_exits_inside_a_block(python: Python) -> None:
    python.run("""
        import pyruntime
        section = pyruntime.reading()
        section.__enter__()
        pyruntime.retire(print)
    """)


def test_threads_that_end_inside_of_blocks_leave_nothing_behind(python: Python) -> None:
    result = python.run(
        program("""
        domain = pyruntime.Domain(name="mine")
        sections = []
        def body():
            domain.retire(lambda: print("ran"))
            one = domain if len(sections) % 4 == 0 else pyruntime.qsbr.default_domain
            sections.extend([one.attached().__enter__(), one.reading().__enter__()])
        for _ in range(20):
            thread = threading.Thread(target=body)
            thread.start()
            thread.join()
            domain.barrier()
        # join() comes back shortly before the thread has ended.
        wait_until(lambda: pyruntime.threads() == [])
        pyruntime.synchronize()
        domain.close()
        """)
    )
    assert result.out == "ran\n" * 20


def test_many_threads_come_and_go(python: Python) -> None:
    result = python.run(
        program("""
        ran = []
        def body():
            for _ in range(20):
                with pyruntime.reading():
                    pass
                pyruntime.retire(lambda: ran.append(1))
        for _ in range(20):
            threads = [threading.Thread(target=body) for _ in range(10)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
        pyruntime.barrier()
        print(len(ran), len(pyruntime.interpreters()))
        """)
    )
    assert result.out == "4000 1\n"


def test_a_child_that_outlives_its_program_is_not_waited_for(this_python: Python) -> None:
    """By the tests, that is: it has the output of the program open."""
    program = """
        import os, signal
        child = os.fork()
        if child == 0:
            signal.pause()
        print(child)
    """
    child = int(this_python.run(program).out)
    os.kill(child, signal.SIGKILL)
