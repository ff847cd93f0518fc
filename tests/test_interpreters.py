"""Several Python interpreters in one process: each has a default domain, retired callables and an end of its own."""

from __future__ import annotations

import re
import textwrap

import pytest
from conftest import FREE_THREADED, Python, needs_subinterpreters

import pyruntime

PRELUDE = """
import sys, threading
try:
    import _interpreters as interpreters  # 3.13
except ImportError:
    import _xxsubinterpreters as interpreters

def create(kind):
    if sys.version_info >= (3, 13):
        return interpreters.create(kind)
    if kind == "legacy":
        return interpreters.create(isolated=False)
    return interpreters.create()

def run(interpreter, program):
    error = interpreters.run_string(interpreter, program)
    if error is not None:
        raise RuntimeError(error.formatted)
"""


def program(body: str) -> str:
    return PRELUDE + textwrap.dedent(body)


@needs_subinterpreters
def test_each_interpreter_has_a_domain_of_its_own(python: Python) -> None:
    result = python.run(
        program('''
        import pyruntime
        inside = """if True:
            import pyruntime
            from pyruntime import qsbr
            with pyruntime.reading():
                me = pyruntime.current()
                assert me.interpreter_id == qsbr.default_domain.interpreter_id != 0
            ran = []
            pyruntime.retire(lambda: ran.append(1))
            pyruntime.barrier()
            assert ran == [1]
            pyruntime.quiescent()
            pyruntime.synchronize(timeout=10)
            assert pyruntime.poll(pyruntime.advance())
            with pyruntime.Domain("of mine") as domain, domain.reading():
                pass
            try:
                pyruntime.retire(None)
            except pyruntime.ArgumentTypeError:
                pass
            print(qsbr.default_domain.name, [one.name for one in pyruntime.interpreters()])
        """
        for i in range(3):
            interpreter = create("legacy")
            run(interpreter, inside)
            interpreters.destroy(interpreter)
        print([one.name for one in pyruntime.interpreters()])
        ''')
    )
    lines = result.out.splitlines()
    assert lines == [f"python {i} ['main', 'python {i}']" for i in (1, 2, 3)] + ["['main']"]
    assert result.err == ""


@needs_subinterpreters
def test_the_main_interpreter_need_not_come_first(python: Python) -> None:
    result = python.run(
        program('''
        interpreter = create("legacy")
        run(interpreter, "import pyruntime; print(pyruntime.qsbr.default_domain.interpreter_id != 0)")
        import pyruntime
        print(pyruntime.qsbr.default_domain.interpreter_id)
        with pyruntime.reading():
            run(interpreter, """if True:
                pyruntime.stats()
                try:
                    pyruntime.reading().__enter__()
                except pyruntime.StateError as error:
                    print(error)
            """)
        ''')
    )
    first, second, third = result.out.splitlines()
    assert (first, second) == ("True", "0")
    assert "inside a reading() block of domain 'main' would end the protection of that block" in third


@needs_subinterpreters
def test_what_is_retired_runs_in_its_own_interpreter(python: Python) -> None:
    """Even if another interpreter's barrier disposes of it, and at the latest when its own ends."""
    result = python.run(
        program('''
        import pyruntime
        interpreter = create("legacy")
        run(interpreter, """if True:
            import pyruntime
            where = "sub"
            for i in range(400):
                pyruntime.retire(lambda: print(where))
        """)
        where = "main"
        pyruntime.retire(lambda: print(where))
        pyruntime.barrier()
        print("--")
        interpreters.destroy(interpreter)
        print([one.name for one in pyruntime.interpreters()])
        ''')
    )
    lines = result.out.splitlines()
    assert lines[0] == "main"
    assert lines[1] == "--"
    assert lines[2:-1] == ["sub"] * 400
    assert lines[-1] == "['main']"


@needs_subinterpreters
def test_a_cell_ends_with_its_interpreter(python: Python) -> None:
    """The one in a circle with its value, and the one that a module holds."""
    result = python.run(
        program('''
        import pyruntime
        for turn in range(3):
            interpreter = create("legacy")
            run(interpreter, """if True:
                from pyruntime import RCUCell
                class Thing:
                    def __del__(self, report=print):
                        report("ends")
                thing = Thing()
                thing.cell = RCUCell([thing])
                del thing
                kept = RCUCell(Thing())
                kept.update(lambda old: Thing())
            """)
            interpreters.destroy(interpreter)
        print([one.name for one in pyruntime.interpreters()])
        ''')
    )
    assert result.out.splitlines() == ["ends"] * 9 + ["['main']"]


@needs_subinterpreters
def test_interpreters_come_and_go_without_a_trace(python: Python) -> None:
    python.run(
        program('''
        import pyruntime
        for turn in range(30):
            interpreter = create("legacy")
            run(interpreter, """if True:
                import pyruntime
                pyruntime.retire(int)
                with pyruntime.attached():
                    pass
                domain = pyruntime.Domain()
            """)
            interpreters.destroy(interpreter)
            assert [one.name for one in pyruntime.interpreters()] == ["main"], turn
            assert len(pyruntime.threads()) <= 1
        ''')
    )


@needs_subinterpreters
def test_calls_after_the_exit_function_of_an_interpreter(python: Python) -> None:
    """Its default domain is gone by then, and says so."""
    result = python.run(
        program('''
        import pyruntime
        interpreter = create("legacy")
        run(interpreter, """if True:
            import atexit
            def late():
                for call in (pyruntime.reading().__enter__, pyruntime.quiescent, pyruntime.synchronize, pyruntime.stats):
                    try:
                        call()
                    except pyruntime.StateError as error:
                        print(error, flush=True)
            atexit.register(late)
            import pyruntime
            kept = pyruntime.reading()
            with kept:
                pass
        """)
        interpreters.destroy(interpreter)
        print([one.name for one in pyruntime.interpreters()])
        ''')
    )
    *late, last = result.out.splitlines()
    assert len(late) == 4
    assert all("is closed" in line for line in late)
    assert last == "['main']"


@needs_subinterpreters
def test_an_interpreter_that_is_looked_at_while_it_exits_ends_with_its_dict(python: Python) -> None:
    """Its exit function waits in vain for a pin that goes away only after it."""
    result = python.run(
        program('''
        import pyruntime
        from pyruntime._core import lib
        interpreter = create("legacy")
        run(interpreter, """if True:
            import atexit
            atexit.register(lambda: lib.pyrt_interp_unpin(pinned))
            import pyruntime
            from pyruntime._core import lib
            pinned = lib.pyrt_interp_pin(pyruntime.qsbr.default_domain.interpreter_id)
        """)
        interpreters.destroy(interpreter)
        print([one.name for one in pyruntime.interpreters()])
        interpreter = create("legacy")
        run(interpreter, """if True:
            import pyruntime
            from pyruntime._core import lib
            lib.pyrt_interp_pin(pyruntime.qsbr.default_domain.interpreter_id)
        """)
        interpreters.destroy(interpreter)
        print(len(pyruntime.interpreters()))
        ''')
    )
    assert result.out.splitlines() == ["['main']", "2"]
    assert re.findall(r"domain 'python \d+' stays in memory: an extension keeps it", result.err) != []
    assert result.err.count("stays in memory") == 1


@needs_subinterpreters
def test_two_interpreters_in_two_threads(python: Python) -> None:
    result = python.run(
        program('''
        import pyruntime
        inside = """if True:
            import pyruntime
            ran = []
            for i in range(200):
                with pyruntime.attached():
                    pyruntime.retire(lambda: ran.append(1))
                    pyruntime.quiescent()
                pyruntime.synchronize()
            pyruntime.barrier()
            assert len(ran) == 200, len(ran)
        """
        made = [create("legacy") for _ in range(2)]
        threads = [threading.Thread(target=run, args=(one, inside)) for one in made]
        errors = []
        threading.excepthook = lambda args: errors.append(args.exc_value)
        for thread in threads: thread.start()
        for _ in range(200):
            pyruntime.retire(int)
            pyruntime.barrier()
        for thread in threads: thread.join()
        for one in made: interpreters.destroy(one)
        print(errors)
        ''')
    )
    assert result.out == "[]\n"


@needs_subinterpreters
def test_a_daemon_thread_of_an_interpreter_that_ends(python: Python) -> None:
    """The main thread ends the process while an interpreter of its own still has open blocks on other threads."""
    python.run(
        program('''
        import pyruntime
        interpreter = create("legacy")
        is_in = threading.Event()
        def body():
            run(interpreter, """if True:
                import pyruntime, time
                with pyruntime.reading():
                    print("in", flush=True)
                    time.sleep(10**6)
            """)
        threading.Thread(target=body, daemon=True).start()
        while not any(one.state == "attached" for one in pyruntime.threads()):
            pass
        import os
        os._exit(0)
        ''')
    )


def isolated(python: Python, inside: str, *, status: int = 0) -> str:
    """Runs a program in an interpreter with a GIL of its own, and says what it wrote."""
    if python.version in ("3.10", "3.11"):
        pytest.skip("no such interpreters before 3.12")
    result = python.run(
        program(f'''
        interpreter = create("isolated")
        run(interpreter, """if True:
{textwrap.indent(textwrap.dedent(inside), " " * 12)}
        """)
        interpreters.destroy(interpreter)
        import pyruntime
        pyruntime.barrier()
        '''),
        status=status,
    )
    return result.out


TOLD = "in a subinterpreter of a free-threaded Python" if FREE_THREADED else "in a Python interpreter with a GIL of its own"


USES = (
    "pyruntime.reading()",
    "pyruntime.Mutex()",
    "pyruntime.sync",
    "pyruntime.runtime_info()",
    "from pyruntime import qsbr",
    "import pyruntime.heap",
    "from pyruntime.sync import Event",
    "from pyruntime._core import lib",
)


def test_an_interpreter_with_a_gil_of_its_own_is_told_what_it_cannot_have(python: Python) -> None:
    out = isolated(
        python,
        f"""
        import pyruntime
        for use in {USES}:
            try:
                exec(use)
            except ImportError as error:
                print(error)
        """,
    )
    lines = out.splitlines()
    assert len(lines) == len(USES)
    for line in lines:
        assert f"{TOLD}, because cffi cannot be loaded there: use it in the main interpreter" in line


def test_an_interpreter_with_a_gil_of_its_own_has_what_extensions_need(python: Python) -> None:
    out = isolated(
        python,
        """
        import os, pyruntime
        assert os.path.basename(pyruntime.get_include()) == "include"
        print(pyruntime.__version__, pyruntime._C_API, pyruntime._core.abi_version, hasattr(pyruntime, "nothing"))
        """,
    )
    major, minor = pyruntime.runtime_info().abi_version
    assert re.fullmatch(
        rf'{re.escape(pyruntime.__version__)} <capsule object "pyruntime._C_API" at .*> \({major}, {minor}\) False\n', out
    )
