"""Extensions that compile the core in, each under a prefix of its own, and prefer the runtime of the process to theirs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import names_of_core
import pytest
from c_support import HANG_GUARD
from conftest import Python, Result, needs_subinterpreters
from installed import CC, SUFFIX, Samples

PREFIXES = ("one_", "two_")

PROGRAM = """
#include <pyruntime/pyruntime.h>

pyrt_interp *NAME(void);

pyrt_interp *NAME(void)
{
    return pyrt_runtime_init() == PYRT_OK ? pyrt_interp_main() : NULL;
}
"""

MAIN = """
#include <stdio.h>

void *start_one(void);
void *start_two(void);

int main(void)
{
    void *one = start_one(), *two = start_two();
    puts(one != NULL && two != NULL && one != two ? "two runtimes" : "not two runtimes");
    return 0;
}
"""


def cc(where: Path, *arguments: str) -> None:
    done = subprocess.run([CC, *arguments], cwd=where, capture_output=True, text=True, timeout=HANG_GUARD)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.fixture(scope="module")
def extensions(samples: Samples) -> Path:
    """A directory for sys.path: with one_vendored, built by a command line, and two_vendored, built by CMake."""
    for prefix in PREFIXES:
        samples.build(f"{prefix}vendored")
    return samples.where


def run(python: Python, extensions: Path, program: str, *, status: int = 0) -> Result:
    with_extensions = Python(python.version, python.executable, f"{python.path}{os.pathsep}{extensions}")
    return with_extensions.run(program, status=status)


def test_all_names_have_the_prefix(samples: Samples) -> None:
    for prefix in PREFIXES:
        names = set(names_of_core.defined(*samples.core_objects(prefix)))
        assert f"{prefix}pyrt_runtime_init" in names
        assert {name for name in names if not name.startswith(f"{prefix}pyrt_")} == set()


def test_an_extension_exports_its_init_function_only(extensions: Path) -> None:
    for prefix in PREFIXES:
        file = extensions / f"{prefix}vendored{SUFFIX}"
        assert names_of_core.defined(file, dynamic=True) == [f"PyInit_{prefix}vendored"]


def test_two_cores_in_one_program(samples: Samples, tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text(MAIN)
    for prefix in PREFIXES:
        start = f"start_{prefix.rstrip('_')}"
        (tmp_path / f"{start}.c").write_text(PROGRAM.replace("NAME", start))
        cc(tmp_path, "-c", *samples.asked("--cflags"), f"-DPYRT_PREFIX={prefix}", f"{start}.c")
    parts = [str(file) for prefix in PREFIXES for file in samples.core_objects(prefix)]
    cc(tmp_path, "main.c", "start_one.o", "start_two.o", *parts, "-pthread", "-o", "main")
    done = subprocess.run([tmp_path / "main"], capture_output=True, text=True, timeout=HANG_GUARD)
    assert done.stdout == "two runtimes\n"


def test_with_pyruntime_all_share_its_runtime(this_python: Python, extensions: Path) -> None:
    result = run(
        this_python,
        extensions,
        """
        import one_vendored, two_vendored, pyruntime
        assert one_vendored.is_shared() and two_vendored.is_shared()
        assert one_vendored.runtime_address() == two_vendored.runtime_address() != 0
        with pyruntime.attached():
            print(one_vendored.counted() >= 1, two_vendored.counted() >= 1)
        """,
    )
    assert result.out == "True True\n"


def test_without_pyruntime_each_has_its_own(this_python: Python, extensions: Path) -> None:
    result = run(
        this_python,
        extensions,
        """
        import sys
        sys.modules["pyruntime"] = None
        import one_vendored, two_vendored
        assert not one_vendored.is_shared() and not two_vendored.is_shared()
        assert 0 != one_vendored.runtime_address() != two_vendored.runtime_address() != 0
        print(one_vendored.counted(), two_vendored.counted())
        """,
    )
    assert result.out == "1 1\n"
    assert result.err == ""


def test_what_was_chosen_first_holds(this_python: Python, extensions: Path) -> None:
    """One came before pyruntime could be imported, the other after."""
    result = run(
        this_python,
        extensions,
        """
        import sys
        sys.modules["pyruntime"] = None
        import one_vendored
        del sys.modules["pyruntime"]
        import two_vendored, pyruntime
        own, shared = one_vendored.runtime_address(), two_vendored.runtime_address()
        del sys.modules["one_vendored"]
        import one_vendored
        assert one_vendored.runtime_address() == own != shared
        print(one_vendored.is_shared(), two_vendored.is_shared(), one_vendored.counted(), two_vendored.counted() > 0)
        """,
    )
    assert result.out == "False True 1 True\n"


NOT_FITTING = """
import sys, types, warnings
sys.modules["pyruntime"] = types.ModuleType("pyruntime")
"""


def test_a_pyruntime_that_does_not_fit_is_told(this_python: Python, extensions: Path) -> None:
    warned = run(this_python, extensions, NOT_FITTING + "warnings.simplefilter('default')\nimport one_vendored\n")
    assert "ImportWarning: compiled for pyruntime ABI" in warned.err
    assert "has no table _C_API" in warned.err
    silent = run(this_python, extensions, NOT_FITTING + "import one_vendored; print(one_vendored.is_shared())\n")
    assert (silent.out, silent.err) == ("False\n", "")
    refused = run(this_python, extensions, NOT_FITTING + "warnings.simplefilter('error')\nimport one_vendored\n", status=1)
    assert "ImportWarning: compiled for pyruntime ABI" in refused.err


@pytest.mark.parametrize("first", ["", "import sys; sys.modules['pyruntime'] = None"], ids=["shared", "own"])
def test_nobody_sleeps_with_the_gil(this_python: Python, extensions: Path, first: str) -> None:
    result = run(
        this_python,
        extensions,
        f"""
        {first}
        import threading
        import one_vendored
        one_vendored.lock()
        at_it = threading.Event()
        def body():
            at_it.set()
            one_vendored.lock()
            print("locked")
        thread = threading.Thread(target=body)
        thread.start()
        at_it.wait()
        for _ in range(100000):  # it comes to the lock meanwhile; that it sleeps there must not stop this
            pass
        one_vendored.unlock()
        thread.join()
        """,
    )
    assert result.out == "locked\n"


@needs_subinterpreters
def test_an_interpreter_that_comes_later_gets_the_same(this_python: Python, extensions: Path) -> None:
    result = run(
        this_python,
        extensions,
        """
        import sys
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        sys.modules["pyruntime"] = None
        import one_vendored
        print(one_vendored.runtime_address())
        made = interpreters.create("legacy") if sys.version_info >= (3, 13) else interpreters.create(isolated=False)
        program = f"import sys; sys.path = {sys.path!r}; import one_vendored; print(one_vendored.runtime_address())"
        interpreters.run_string(made, program)
        """,
    )
    first, second = result.out.split()
    assert first == second
