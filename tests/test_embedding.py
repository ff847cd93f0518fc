"""An extension that goes through the capsule: one runtime, inline fast paths.

The samples are compiled against the headers that an installed wheel names, as a user would.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import threading
from pathlib import Path
from types import ModuleType

import pytest
from c_support import need_compiler
from installed import CC, EMBEDDING, Samples

import pyruntime


@pytest.fixture(scope="module")
def both(samples: Samples) -> list[ModuleType]:
    return [samples.load(name) for name in ("sample_one", "sample_two")]


def test_all_extensions_share_one_runtime(both: list[ModuleType]) -> None:
    first, second = both
    assert first.runtime_address() == second.runtime_address() != 0


def test_each_inline_path_works_through_the_table(both: list[ModuleType]) -> None:
    for sample in both:
        assert sample.inline_paths() == (True,) * 6


def test_an_extension_counts_references_to_its_own_objects(both: list[ModuleType]) -> None:
    for sample in both:
        assert sample.counting() == (True,) * 6


def test_what_an_extension_retires_is_disposed_of(both: list[ModuleType]) -> None:
    sample = both[0]
    before = sample.disposed()
    assert sample.read() is None or isinstance(sample.read(), int)
    for value in range(1000):
        sample.replace(value)
    assert sample.read() == 999
    pyruntime.qsbr.barrier(timeout=60.0)
    assert sample.disposed() - before in (999, 1000)


def test_two_threads_read_and_replace(both: list[ModuleType]) -> None:
    sample = both[1]
    sample.replace(0)
    before = sample.disposed()
    wrong: list[object] = []

    def write() -> None:
        for value in range(5000):
            sample.replace(value)

    def read() -> None:
        for _ in range(5000):
            value = sample.read()
            if not 0 <= value < 5000:
                wrong.append(value)

    threads = [threading.Thread(target=target) for target in (write, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pyruntime.qsbr.barrier(timeout=60.0)
    assert wrong == []
    assert sample.disposed() - before == 5000


def test_a_thread_state_that_is_refused_is_no_lack_of_memory(both: list[ModuleType]) -> None:
    with pyruntime.Domain() as domain:
        with domain.reading(), pytest.raises(RuntimeError, match="end a read-side section of another interpreter"):
            both[0].read()
        with domain.attached():
            both[0].read()


def test_a_runtime_that_has_ended_is_no_lack_of_memory(samples: Samples) -> None:
    path = samples.build("sample_one")
    script = f"""
import importlib.machinery, importlib.util, os
import pyruntime
loader = importlib.machinery.ExtensionFileLoader("sample_one", {str(path)!r})
module = importlib.util.module_from_spec(importlib.util.spec_from_loader("sample_one", loader))
loader.exec_module(module)
assert pyruntime._core.lib.pyrt_runtime_fini() == 0
try:
    module.read()
except RuntimeError as error:
    print(error, flush=True)
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "the runtime of the process has not been started, or has ended\n", done.stderr


ORDERS = {
    "python first": (["Python.h", "pyruntime/capi.h"], True),
    "python second": (["pyruntime/capi.h", "Python.h"], False),
    "python between": (["pyruntime/capi.h", "Python.h", "pyruntime/capi.h"], False),
    "no python": (["pyruntime/capi.h"], False),
}


@pytest.mark.parametrize("language", ["c", "c++"])
@pytest.mark.parametrize("order", ORDERS)
def test_an_import_without_python_says_what_is_missing(tmp_path: Path, order: str, language: str) -> None:
    headers, works = ORDERS[order]
    source = tmp_path / "order.c"
    source.write_text(
        "".join(f"#include <{header}>\n" for header in headers)
        + "int use(void);\nint use(void)\n{\n    return pyruntime_import();\n}\n"
    )
    standard = "-std=c11" if language == "c" else "-std=c++17"
    command = [CC, "-x", language, standard, "-Wall", "-Wextra", "-fsyntax-only"]
    command += [f"-I{sysconfig.get_path('include')}", f"-I{pyruntime.get_include()}", str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode == 0) is works, done.stderr
    assert ("where <Python.h> is included before <pyruntime/capi.h>" in done.stderr) is not works


@pytest.mark.parametrize("build", ["", "-std=c11 -D_GNU_SOURCE", "-fsanitize=address,undefined", "-fsanitize=thread"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_words_of_a_thread_are_found_in_every_build(tmp_path: Path, compiler: str, build: str) -> None:
    """And not before there is a table; nor does it disturb anybody who looks that another interpreter imports it, too."""
    need_compiler(compiler)
    program = str(tmp_path / "words")
    command = [compiler, "-O2", *build.split(), f"-I{pyruntime.get_include()}", str(EMBEDDING / "words.c"), "-o", program]
    subprocess.run([*command, "-pthread"], check=True)

    def run(*ways: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *ways], capture_output=True, text=True)

    for done in run(), run("race"):
        assert (done.returncode, done.stdout, done.stderr) == (0, "0 wrong\n", "")
    forgot = run("forgot")
    assert forgot.returncode != 0
    assert forgot.stdout == ""


def test_the_header_refuses_to_come_second(tmp_path: Path) -> None:
    source = tmp_path / "late.c"
    source.write_text("#include <pyruntime/thread.h>\n#include <pyruntime/capi.h>\n")
    command = [CC, "-fsyntax-only", f"-I{pyruntime.get_include()}", str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "before any other pyruntime header" in done.stderr
