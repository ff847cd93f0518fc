"""os.fork in the middle of everything: the child goes on with what its one thread had, and nothing it needs is locked."""

from __future__ import annotations

import textwrap

import pytest
from conftest import HANG_GUARD, Python, needs_subinterpreters

PRELUDE = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import pyruntime

def in_child(body):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            body()
            status = 0
        finally:
            sys.stdout.flush()
            os._exit(status)
    return pid

def wait_for(pid):
    _, status = os.waitpid(pid, 0)
    assert status == 0, status

def use_everything():
    ran = []
    with pyruntime.Domain() as domain:
        for one in (domain, pyruntime.qsbr.default_domain):
            with one.attached():
                one.retire(lambda: ran.append(1))
                one.quiescent()
            with one.reading():
                goal = one.advance()
            one.synchronize(timeout=60)
            assert one.poll(goal)
            one.retire(lambda: ran.append(1))
            one.barrier(timeout=60)
    assert ran == [1] * 4
"""


def program(body: str) -> str:
    return PRELUDE + textwrap.dedent(body)


def test_a_child_can_do_everything(python: Python) -> None:
    python.run(
        program("""
        use_everything()
        wait_for(in_child(use_everything))
        use_everything()
        """)
    )


def test_three_generations_of_children_with_busy_threads(python: Python) -> None:
    """Ten children in each; the threads allocate, read, retire and wait while the process forks."""
    python.run(
        program("""
        def work(domain):
            while True:
                with pyruntime.attached():
                    pyruntime.retire(lambda: None, nbytes=len(bytearray(100)))
                    pyruntime.quiescent()
                with domain.reading():
                    domain.retire(int)
                pyruntime.synchronize()
                domain.barrier()
        def generation(depth):
            domain = pyruntime.Domain()
            for _ in range(3):
                threading.Thread(target=work, args=(domain,), daemon=True).start()
            use_everything()
            if depth == 3:
                return
            for i in range(10 if depth == 0 else 1):
                wait_for(in_child(lambda: generation(depth + 1)))
            use_everything()
        generation(0)
        """),
        # Without a GIL four generations of busy threads really run at once, and each wait is for readers that have no core.
        guard=4 * HANG_GUARD,
    )


def test_a_fork_inside_a_block_that_another_thread_has_collected(python: Python) -> None:
    """The child leaves it in its next call, as the parent does; what other threads were told is forgotten there."""
    python.run(
        program("""
        warnings.simplefilter("ignore", ResourceWarning)
        domain = pyruntime.Domain("mine")
        def run(body):
            thread = threading.Thread(target=body)
            thread.start()
            thread.join()
        def be_collected():
            made = []
            run(lambda: made.append(domain.reading()))
            made[0].__enter__()
            run(made.clear)
        def check():
            assert pyruntime.current().state == "attached"
            domain.synchronize(timeout=60)
            assert pyruntime.current() is None
            domain.close()
        is_in, leave = threading.Event(), threading.Event()
        def other():
            be_collected()
            is_in.set()
            leave.wait()
            domain.quiescent()
        thread = threading.Thread(target=other)
        thread.start()
        is_in.wait()
        be_collected()
        wait_for(in_child(check))
        leave.set()
        thread.join()
        check()
        """)
    )


@pytest.mark.parametrize("kind", ["reading", "attached"])
def test_a_fork_inside_a_block(python: Python, kind: str) -> None:
    """The child is inside as well, and can leave; the other thread's block is not there."""
    python.run(
        program(f"""
        domain = pyruntime.Domain("mine")
        is_in, leave = threading.Event(), threading.Event()
        def other():
            with domain.{kind}():
                is_in.set()
                leave.wait()
        thread = threading.Thread(target=other)
        thread.start()
        is_in.wait()
        def child():
            assert pyruntime.current().state == "attached"
            assert len(pyruntime.threads(domain.interpreter_id)) == 1
            section.__exit__(None, None, None)
            domain.synchronize(timeout=60)
            domain.close()
        section = domain.{kind}()
        section.__enter__()
        wait_for(in_child(child))
        section.__exit__(None, None, None)
        leave.set()
        thread.join()
        domain.close()
        """)
    )


def test_the_child_adopts_what_lost_threads_had_retired(python: Python) -> None:
    result = python.run(
        program("""
        retired, end = threading.Event(), threading.Event()
        def other():
            for _ in range(1000):
                pyruntime.retire(lambda: ran.append(1))
            retired.set()
            end.wait()
        ran = []
        with pyruntime.reading():  # so that nothing is disposed of before the fork
            thread = threading.Thread(target=other)
            thread.start()
            retired.wait()
            def child():
                section.__exit__(None, None, None)
            pid = os.fork()
        pyruntime.barrier()
        if pid != 0:
            wait_for(pid)
        print(len(ran), flush=True)
        if pid == 0:
            os._exit(0)
        end.set()
        thread.join()
        """)
    )
    assert result.out == "1000\n1000\n"


def test_a_fork_inside_a_callable(python: Python) -> None:
    """The child goes on with the callables that stand behind it."""
    result = python.run(
        program("""
        children = []
        def fork():
            pid = os.fork()
            if pid == 0:
                children.append(None)
            else:
                wait_for(pid)
        pyruntime.retire(fork)
        pyruntime.retire(lambda: print("behind", flush=True))
        with pyruntime.attached():
            pyruntime.barrier()
        use_everything()
        if children:
            os._exit(0)
        """)
    )
    assert result.out == "behind\nbehind\n"


def test_a_fork_while_another_thread_runs_callables(python: Python) -> None:
    """What that thread had taken and not run is the child's too."""
    result = python.run(
        program("""
        began, end = threading.Event(), threading.Event()
        def slow():
            began.set()
            end.wait()
        ran = []
        def other():
            pyruntime.retire(slow)
            for _ in range(10):
                pyruntime.retire(lambda: ran.append(1))
            pyruntime.barrier()
        thread = threading.Thread(target=other)
        thread.start()
        began.wait()
        def child():
            pyruntime.barrier(timeout=60)
            print(len(ran))
        wait_for(in_child(child))
        end.set()
        thread.join()
        print(len(ran))
        """)
    )
    assert result.out == "10\n10\n"


def test_a_fork_while_another_thread_retires(python: Python) -> None:
    """What it had not given over yet is not missed at the exit of the child; what waits in a queue is counted there."""
    result = python.run(
        program("""
        domain = pyruntime.Domain("mine")
        other = threading.Thread(target=domain.retire, args=[lambda: None])
        with pyruntime.attached():
            pyruntime.retire(lambda: print("kept", flush=True))
            with pyruntime.stop_the_world(timeout=60, everything=True):
                other.start()
                while not any(one.os_thread_id == other.native_id for one in pyruntime.threads(domain.interpreter_id)):
                    pass
                pid = os.fork()
        if pid != 0:
            wait_for(pid)
            other.join()
        """)
    )
    assert result.out == "kept\nkept\n"
    assert result.err == ""


def test_a_fork_while_threads_make_and_close_heaps_and_domains(python: Python) -> None:
    """The lists of both are whole in the child, and their locks nobody's."""
    python.run(
        program("""
        from pyruntime import heap
        use_everything()  # a fork in the middle of an import would keep the module locked in the child
        end = threading.Event()
        def work():
            while not end.is_set():
                with pyruntime.Domain() as domain, pyruntime.Heap(domain=domain) as one, pyruntime.Heap() as two:
                    with one.alloc(100), two.alloc(100):
                        pass
        def child():
            before = sum(len(memory.heaps) for memory in heap.stats())
            with pyruntime.Heap(name="of the child"):
                assert sum(len(memory.heaps) for memory in heap.stats()) == before + 1
            use_everything()
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(10):
            wait_for(in_child(child))
        end.set()
        for thread in threads:
            thread.join()
        """)
    )


# ---- while a domain is being closed ----------------------------------------------------------------------------------

CLOSING = """
import ctypes
from pyruntime import _core
ffi, lib = _core.ffi, _core.lib

def c_function(function):
    return ffi.cast("void (*)(void *, void *)", ctypes.cast(function, ctypes.c_void_p).value)

# A disposer for the core, which runs Python text where it is called: in the middle of a close, that is.
RUN = c_function(ctypes.pythonapi.PyRun_SimpleString)

def retire_c(interp, function, argument):
    assert lib.pyrt_retire_call(lib.pyrt_thread_find(interp), function, argument, ffi.NULL, 0) == 0

def interp_of(domain):
    interp = lib.pyrt_interp_pin(domain.interpreter_id)
    lib.pyrt_interp_unpin(interp)
    return interp

def leave_in(domain, *disposers):
    # They wait in the domain with no thread in it: who leaves disposes of what is there, but not of what that retires.
    interp = interp_of(domain)
    def retire_them():
        for function, argument in disposers:
            retire_c(interp, function, argument)
    todo.append(retire_them)
    with domain.attached():
        retire_c(interp, RUN, FIRST)
    assert not todo

def text(code):
    texts.append(ffi.new("char[]", code.encode()))
    return RUN, texts[-1]

texts, todo = [], []
FIRST = text("todo.pop()()")[1]
is_closing, go_on = threading.Event(), threading.Event()
WAIT = text("is_closing.set(); go_on.wait()")
RAN = text("print('ran', flush=True)")

def in_thread(body):
    thread = threading.Thread(target=body)
    thread.start()
    return thread

def check_is_closed(domain):
    assert domain.closed
    for use in (domain.reading().__enter__, domain.stats, lambda: domain.retire(int), lambda: pyruntime.Heap(domain=domain)):
        try:
            use()
        except pyruntime.StateError as error:
            assert "is closed; make a new one" in str(error), error
        else:
            assert False, use
    domain.close()
    assert domain.interpreter_id not in [one.id for one in pyruntime.interpreters()]

def use_and_close(domain):
    assert not domain.closed
    ran = []
    with domain.attached():
        domain.retire(lambda: ran.append(1))
    with domain.reading():
        pass
    domain.barrier(timeout=60)
    assert ran == [1]
    with pyruntime.Heap(domain=domain) as heap, heap.alloc(100):
        pass
    domain.close()
    check_is_closed(domain)
"""


def closing(body: str) -> str:
    return program(CLOSING + textwrap.dedent(body))


def test_a_fork_while_another_thread_closes_a_domain(python: Python) -> None:
    """Before the core has let go of it: in the child it is open again, with its heaps and with what was retired in it."""
    result = python.run(
        closing("""
        domain = pyruntime.Domain("mine")
        heap = pyruntime.Heap(domain=domain)
        leave_in(domain, WAIT, RAN)
        closer = in_thread(domain.close)
        is_closing.wait()
        def child():
            assert not heap.closed
            with heap.alloc(100):
                use_and_close(domain)
            assert heap.closed
        wait_for(in_child(child))
        go_on.set()
        closer.join()
        pyruntime.barrier()
        check_is_closed(domain)
        """)
    )
    assert result.out == "ran\nran\n"


def test_a_fork_while_another_thread_has_closed_a_domain(python: Python) -> None:
    """When the core has let go of it, and the call has not returned: in the child it is closed.

    What is left in it is reported just then, which is where the closing thread stands.
    """
    result = python.run(
        closing("""
        domain = pyruntime.Domain("mine")
        buffer = pyruntime.Heap(domain=domain).alloc(100)
        buffer[0] = 7
        @ffi.callback(ffi.typeof(lib.pyrt_set_report_hook).args[0])
        def report(message, unused):
            is_closing.set()
            go_on.wait()
        lib.pyrt_set_report_hook(report, ffi.NULL)
        closer = in_thread(domain.close)
        is_closing.wait()
        lib.pyrt_set_report_hook(ffi.NULL, ffi.NULL)
        def child():
            check_is_closed(domain)
            assert buffer[0] == 7
            buffer.release()
            assert pyruntime.heap.leaks() == []
        wait_for(in_child(child))
        go_on.set()
        closer.join()
        child()
        """)
    )
    assert result.err == ""


def test_a_fork_by_who_closes_a_domain(python: Python) -> None:
    """The close goes on in both."""
    python.run(
        closing("""
        domain = pyruntime.Domain("mine")
        leave_in(domain, text("pid = os.fork()"))
        domain.close()
        check_is_closed(domain)
        if pid == 0:
            os._exit(0)
        wait_for(pid)
        """)
    )


def test_a_fork_while_another_thread_drops_a_domain(python: Python) -> None:
    """Nobody can come to it any more; what was retired in it is run all the same, at the exit of the child."""
    result = python.run(
        closing("""
        def drop():
            domain = pyruntime.Domain("mine")
            leave_in(domain, WAIT, RAN)
        dropper = in_thread(drop)
        is_closing.wait()
        pid = os.fork()
        if pid != 0:
            wait_for(pid)
        go_on.set()
        if pid != 0:
            dropper.join()
        """)
    )
    assert result.out == "ran\nran\n"
    assert result.err == ""


def test_a_thread_that_ends_while_it_closes_a_domain(python: Python) -> None:
    """A disposer has ended it: the domain is open again, for others to close."""
    python.run(
        closing("""
        domain = pyruntime.Domain("mine")
        # The first lets go of the GIL, which the second would take with it.
        functions = ctypes.pythonapi.PyEval_SaveThread, ctypes.CDLL(None).pthread_exit
        leave_in(domain, *[(c_function(function), ffi.NULL) for function in functions])
        tid = []
        def close():
            tid.append(threading.get_native_id())
            domain.close()
        threading.Thread(target=close, daemon=True).start()
        while not tid or os.path.exists(f"/proc/self/task/{tid[0]}"):
            pass
        use_and_close(domain)
        sys.stdout.flush()
        os._exit(0)  # Python waits for the end of that thread, or not, by its version
        """)
    )


USE_DEFAULT = """
def use_default():
    default = pyruntime.qsbr.default_domain
    assert default.interpreter_id != 0 and not default.closed
    with default.reading():
        goal = default.advance()
    default.synchronize(timeout=60)
    assert default.poll(goal)
    with pyruntime.Heap():
        pass
    print("used", flush=True)

# Until the domain is being closed it puts itself off.
def step():
    if pyruntime.qsbr.default_domain.closed:
        os.write(is_ending, b".")
        os.read(answer, 1)
    else:
        retire_c(interp_of(pyruntime.qsbr.default_domain), *STEP)

STEP = text("step()")
"""


@needs_subinterpreters
def test_a_fork_while_the_default_domain_of_an_interpreter_ends(python: Python) -> None:
    """A raw fork, since os.fork would end the other interpreters in the child. There the domain is open again.

    For who comes to it, as the child does between two disposers that change its thread state for one of that interpreter.
    """
    result = python.run(
        closing("""
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        api = ctypes.pythonapi
        for name in "PyInterpreterState_Head", "PyThreadState_New", "PyThreadState_Get":
            getattr(api, name).restype = ctypes.c_void_p
        SWAP = c_function(api.PyThreadState_Swap)
        is_ending, answer = os.pipe(), os.pipe()
        if sys.version_info >= (3, 13):
            interpreter = interpreters.create("legacy")
        else:
            interpreter = interpreters.create(isolated=False)
        theirs = PROGRAM + f"is_ending, answer = {is_ending[1]}, {answer[0]}\\n"
        theirs += "leave_in(pyruntime.qsbr.default_domain, STEP)\\n"
        error = interpreters.run_string(interpreter, theirs)
        assert error is None, error
        def fork():
            os.read(is_ending[0], 1)
            pid = ctypes.PyDLL(None).fork()
            if pid == 0:
                status = 1
                try:
                    child()
                    status = 0
                finally:
                    os._exit(status)
            wait_for(pid)
            os.write(answer[1], b".")
        def child():
            main = lib.pyrt_interp_main()
            there = api.PyThreadState_New(ctypes.c_void_p(api.PyInterpreterState_Head()))
            here = api.PyThreadState_Get()
            with pyruntime.attached():
                retire_c(main, SWAP, ffi.cast("void *", there))
                retire_c(main, *text("use_default()"))
                retire_c(main, SWAP, ffi.cast("void *", here))
            assert lib.pyrt_qsbr_barrier(ffi.NULL) == 0
            assert len(pyruntime.interpreters()) == 2
        forker = in_thread(fork)
        interpreters.destroy(interpreter)
        forker.join()
        assert [one.name for one in pyruntime.interpreters()] == ["main"]
        """).replace("PROGRAM", repr(closing(USE_DEFAULT)))
    )
    assert result.out == "used\n"
    assert result.err == ""


def test_a_fork_inside_a_pause_of_a_domain(python: Python) -> None:
    """The pause goes on in the child, and is a use of the domain there too."""
    python.run(
        closing("""
        domain = pyruntime.Domain("mine")
        with pyruntime.stop_the_world(domain=domain):
            pid = os.fork()
            try:
                domain.close()
            except pyruntime.BusyError:
                pass
            else:
                assert False
        use_and_close(domain)
        if pid == 0:
            os._exit(0)
        wait_for(pid)
        """)
    )


def test_a_fork_in_a_signal_handler_that_runs_while_a_block_is_entered(python: Python) -> None:
    """The block is entered in the child as well, and counted there."""
    python.run(
        closing("""
        import signal
        domain = pyruntime.Domain("mine")
        is_stopped, forked = threading.Event(), threading.Event()
        pids = []
        def fork(signum, frame):
            pids.append(os.fork())
            forked.set()
        signal.signal(signal.SIGUSR1, fork)
        me, my_id = threading.get_ident(), threading.get_native_id()
        def stop():
            with pyruntime.stop_the_world(timeout=60, domain=domain):
                is_stopped.set()
                # It has begun, and cannot come in.
                while not any(one.os_thread_id == my_id for one in pyruntime.threads(domain.interpreter_id)):
                    pass
                signal.pthread_kill(me, signal.SIGUSR1)
                forked.wait()
        stopper = in_thread(stop)
        is_stopped.wait()
        with domain.reading():
            assert len(pids) == 1
            try:
                domain.close()
            except pyruntime.BusyError as error:
                assert "(this one) is inside of it" in str(error), error
            else:
                assert False
        if pids == [0]:
            use_and_close(domain)
            os._exit(0)
        stopper.join()
        wait_for(pids[0])
        use_and_close(domain)
        """)
    )
