"""Two laws on every Python: nothing sleeps with the GIL, and a thread that sleeps detached holds nothing up."""

from __future__ import annotations

import subprocess
import sysconfig
import textwrap
from pathlib import Path

import pytest
from conftest import Python

import pyruntime

PRELUDE = """
import sys, threading, time
import pyruntime
from pyruntime._core import ffi, lib

def wait_until(condition):
    while not condition():
        time.sleep(0)

class Counter:
    value = 0

def in_thread(body, *args):
    thread = threading.Thread(target=body, args=args)
    thread.start()
    return thread
"""


def program(body: str) -> str:
    return PRELUDE + textwrap.dedent(body)


STOPPERS = {
    "stopping the world": """
        assert lib.pyrt_stop_the_world(ffi.NULL) == 0
        lib.pyrt_start_the_world(ffi.NULL)
    """,
    "synchronizing": "pyruntime.synchronize()",
    "at a barrier": "pyruntime.retire(int); pyruntime.barrier()",
}


@pytest.mark.parametrize("stopper", STOPPERS)
def test_quiescent_a_waiter_and_plain_bytecode_do_not_hang(python: Python, stopper: str) -> None:
    """Each does its work 50 times over while the others go on."""
    python.run(
        program(
            f"""
            def passing():
                with pyruntime.attached():
                    while waited.value < 50:
                        pyruntime.quiescent()
            def waiting():
                for _ in range(50):
                    {textwrap.indent(textwrap.dedent(STOPPERS[stopper]).strip(), " " * 20).strip()}
                    waited.value += 1
            def plain():
                while waited.value < 50:
                    counted.value += 1
            waited, counted = Counter(), Counter()
            threads = [in_thread(passing), in_thread(waiting), in_thread(plain)]
            for thread in threads:
                thread.join()
            """
        )
    )


def test_attaching_waits_for_a_pause_without_the_gil(python: Python) -> None:
    """The thread that is to end the pause needs the GIL, which the one that waits for it had."""
    python.run(
        program("""
        assert lib.pyrt_stop_the_world(ffi.NULL) == 0
        inside = []
        def enter():
            with pyruntime.reading():
                inside.append(lib.pyrt_world_is_stopped(ffi.NULL))
        threads = [in_thread(enter) for _ in range(4)]
        wait_until(lambda: [thread.state for thread in pyruntime.threads()].count("suspended") == 4)
        assert inside == []
        lib.pyrt_start_the_world(ffi.NULL)
        for thread in threads:
            thread.join()
        assert inside == [False] * 4
        """)
    )


def test_a_safepoint_parks_without_the_gil(python: Python) -> None:
    python.run(
        program("""
        go = Counter()
        def passing():
            with pyruntime.attached():
                while not go.value:
                    pyruntime.quiescent()
        threads = [in_thread(passing) for _ in range(3)]
        wait_until(lambda: len(pyruntime.threads()) == 3)
        for _ in range(50):
            assert lib.pyrt_stop_the_world(ffi.NULL) == 0
            assert {thread.state for thread in pyruntime.threads()} <= {"suspended", "detached"}
            lib.pyrt_start_the_world(ffi.NULL)
        go.value = 1
        for thread in threads:
            thread.join()
        """)
    )


def test_an_extension_that_calls_with_the_gil_sleeps_without_it(python: Python) -> None:
    """As through the table: the call does not come through the binding, which therefore has not noted who came in."""
    python.run(
        program("""
        import ctypes
        def function(name, *types):
            address = int(ffi.cast("intptr_t", ffi.addressof(lib, name)))
            return ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, *types)(address)
        stop, start = function("pyrt_stop_the_world"), function("pyrt_start_the_world")
        synchronize = function("pyrt_qsbr_synchronize")
        done = Counter()
        def passing():
            with pyruntime.attached():
                while not done.value:
                    pyruntime.quiescent()
        threads = [in_thread(passing) for _ in range(3)]
        wait_until(lambda: len(pyruntime.threads()) == 3)
        for _ in range(20):
            assert stop(None) == 0
            start(None)
            assert synchronize(None) == 0
        done.value = 1
        for thread in threads:
            thread.join()
        """)
    )


def test_two_threads_wait_for_each_other(python: Python) -> None:
    """Both are attached and wait: each passes while it waits."""
    python.run(
        program("""
        barrier = threading.Barrier(2)
        def body():
            for _ in range(50):
                with pyruntime.attached():
                    pyruntime.synchronize()
                    pyruntime.barrier()
        threads = [in_thread(body), in_thread(body)]
        for thread in threads:
            thread.join()
        """)
    )


def test_a_thread_that_retired_and_sleeps_for_ever_holds_nothing_up(python: Python) -> None:
    """The barrier borrows its queue; the memory of all of it is free again."""
    result = python.run(
        program("""
        retired, forever = threading.Event(), threading.Event()
        ran = Counter()
        def count():
            ran.value += 1
        def body():
            for _ in range(5000):
                pyruntime.retire(count, nbytes=20000)
            retired.set()
            forever.wait()
        thread = threading.Thread(target=body, daemon=True)
        thread.start()
        retired.wait()
        pyruntime.barrier()
        print(ran.value, pyruntime.stats().pending_bytes, pyruntime.stats().borrowed > 0, thread.is_alive())
        """)
    )
    assert result.out == "5000 0 True True\n"


def test_a_callable_may_wait_for_a_thread_that_waits_for_readers(python: Python) -> None:
    """Callables run detached: this one waits for a lock whose holder waits until every reader has left."""
    python.run(
        program("""
        lock = threading.Lock()
        holds, asked = threading.Event(), threading.Event()
        def holder():
            with lock:
                holds.set()
                asked.wait()
                pyruntime.synchronize()
        def callable():
            asked.set()
            with lock:
                pass
        thread = in_thread(holder)
        holds.wait()
        with pyruntime.attached():
            pyruntime.retire(callable)
            pyruntime.quiescent()
            assert asked.is_set()
        thread.join()
        """)
    )


def test_a_barrier_waits_for_callables_that_another_thread_runs(python: Python) -> None:
    result = python.run(
        program("""
        began, end = threading.Event(), threading.Event()
        def slow():
            began.set()
            end.wait()
            print("ran")
        def runner():
            with pyruntime.Domain() as domain:
                domain.retire(slow)
                domain.barrier()
        first = in_thread(runner)
        began.wait()
        def second():
            pyruntime.barrier()
            print("barrier")
        waiter = in_thread(second)
        wait_until(lambda: pyruntime.stats().barriers > 0)
        try:
            pyruntime.barrier(timeout=0)
        except TimeoutError:
            print("timed out")
        end.set()
        first.join(); waiter.join()
        """)
    )
    assert result.out == "timed out\nran\nbarrier\n"


SIGNALLED = {
    "synchronize": "pyruntime.synchronize()",
    "synchronize with a timeout": "pyruntime.synchronize(timeout=1000)",
    "barrier": "pyruntime.barrier()",
    "own domain": "domain.synchronize()",
}


@pytest.mark.parametrize("call", SIGNALLED)
def test_control_c_ends_a_wait(python: Python, call: str) -> None:
    result = python.run(
        program(f"""
        import os, signal
        domain = pyruntime.Domain()
        reader_is_in, may_leave = threading.Event(), threading.Event()
        def reader():
            with pyruntime.{"attached()" if call != "own domain" else "Domain.reading(domain)"}:
                reader_is_in.set()
                may_leave.wait()
        def interrupt():
            wait_until(lambda: domain.stats().sleeps + pyruntime.stats().sleeps > 0)
            os.kill(os.getpid(), signal.SIGINT)
        threads = [in_thread(reader)]
        reader_is_in.wait()
        threads.append(in_thread(interrupt))
        try:
            {SIGNALLED[call]}
        except KeyboardInterrupt:
            print("interrupted")
        may_leave.set()
        for thread in threads:
            thread.join()
        pyruntime.synchronize()
        domain.synchronize()
        """)
    )
    assert result.out == "interrupted\n"


def test_a_signal_handler_runs_during_a_wait_and_may_call_us(python: Python) -> None:
    python.run(
        program("""
        import os, signal
        reader_is_in, may_leave = threading.Event(), threading.Event()
        def reader():
            with pyruntime.reading():
                reader_is_in.set()
                may_leave.wait()
        def handler(*args):
            with pyruntime.reading():
                pass
            pyruntime.quiescent()
            may_leave.set()
        signal.signal(signal.SIGUSR1, handler)
        thread = in_thread(reader)
        reader_is_in.wait()
        def interrupt():
            wait_until(lambda: pyruntime.stats().sleeps > 0)
            os.kill(os.getpid(), signal.SIGUSR1)
        killer = in_thread(interrupt)
        pyruntime.synchronize()
        assert may_leave.is_set()
        thread.join(); killer.join()
        """)
    )


# ---- whether the GIL is held, seen from C ----------------------------------------------------------------------------

PROBE = """
#include <Python.h>

/* As a disposer: is the GIL held where we are called? */
int held = -1;
void probe(void *unused, void *nothing) { (void)unused; (void)nothing; held = PyGILState_Check(); }

/* As a disposer: lets go of the GIL itself, and then waits in pyruntime. */
int (*synchronize)(void *thread);
void release_and_wait(void *thread, void *nothing)
{
    (void)nothing;
    Py_BEGIN_ALLOW_THREADS
    held = synchronize(thread);
    Py_END_ALLOW_THREADS
}
"""


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("probe")
    (where / "probe.c").write_text(PROBE)
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    command = [compiler, "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}", "probe.c", "-o", "probe.so"]
    subprocess.run(command, cwd=where, check=True)
    return where / "probe.so"


WITH_PROBE = """
import ctypes
probe = ctypes.PyDLL(sys.argv[1])
held = ctypes.c_int.in_dll(probe, "held")
def c_function(function):
    return ffi.cast("void (*)(void *, void *)", ctypes.cast(function, ctypes.c_void_p).value)
"""


@pytest.mark.skipif(not pyruntime.runtime_info().gil_enabled, reason="there is no GIL")
@pytest.mark.parametrize("call", ["lib.pyrt_qsbr_barrier(ffi.NULL)", "pyruntime.barrier()", "pyruntime.quiescent()"])
def test_calls_that_do_not_sleep_keep_the_gil(this_python: Python, probe: Path, call: str) -> None:
    """Through cffi, that is with its Py_BEGIN_ALLOW_THREADS redefined, and through the fast functions."""
    result = this_python.run(
        program(
            WITH_PROBE
            + f"""
pyruntime.retire(int)
assert lib.pyrt_retire_call(ffi.NULL, c_function(probe.probe), ffi.NULL, ffi.NULL, 0) == 0
{call}
pyruntime.barrier()
print(held.value)
"""
        ),
        str(probe),
    )
    assert result.out == "1\n"


def test_a_disposer_that_has_released_the_gil_may_wait_in_pyruntime(this_python: Python, probe: Path) -> None:
    """The hook sees that the thread state which came in is not the current one any more, and leaves it alone."""
    result = this_python.run(
        program(
            WITH_PROBE
            + """
def reader():
    with pyruntime.reading():
        reader_is_in.set()
        wait_until(lambda: pyruntime.stats().sleeps > 0)
reader_is_in = threading.Event()
with pyruntime.reading():
    pass
mine = lib.pyrt_thread_find(lib.pyrt_interp_main())
synchronize = ctypes.c_void_p.in_dll(probe, "synchronize")
synchronize.value = int(ffi.cast("intptr_t", ffi.addressof(lib, "pyrt_qsbr_synchronize")))
thread = in_thread(reader)
reader_is_in.wait()
domain = pyruntime.Domain()
interp = lib.pyrt_interp_pin(domain.interpreter_id)
with domain.attached():
    assert lib.pyrt_retire_call(lib.pyrt_thread_find(interp), c_function(probe.release_and_wait), mine, ffi.NULL, 0) == 0
    domain.barrier()
print(held.value)
lib.pyrt_interp_unpin(interp)
thread.join()
"""
        ),
        str(probe),
    )
    assert result.out == "0\n"


def test_two_threads_in_every_call(this_python: Python) -> None:
    """One of each call at once, with the shortest switch interval: nothing raises, nothing hangs, all callables run."""
    result = this_python.run(
        program("""
        sys.setswitchinterval(1e-6)
        domain = pyruntime.Domain()
        ran = []
        errors = []
        def body():
            try:
                for turn in range(300):
                    for one in (domain, pyruntime.qsbr.default_domain):
                        with one.attached(), one.reading():
                            one.retire(lambda: ran.append(1), nbytes=10)
                        one.quiescent()
                        goal = one.advance()
                        one.synchronize(timeout=60)
                        assert one.poll(goal)
                        one.stats(), one.stall_report()
                        pyruntime.threads(), pyruntime.interpreters(), pyruntime.current()
                    if turn % 50 == 0:
                        one.barrier(timeout=60)
            except BaseException as error:
                errors.append(error)
        threads = [in_thread(body) for _ in range(4)]
        for thread in threads:
            thread.join()
        pyruntime.barrier(); domain.barrier()
        print(len(ran), errors)
        domain.close()
        """)
    )
    assert result.out == "2400 []\n"
