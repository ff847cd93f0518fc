"""os.fork in the middle of everything: the child goes on with what its one thread had, and nothing it needs is locked."""

from __future__ import annotations

import textwrap

import pytest
from conftest import HANG_GUARD, Python

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
