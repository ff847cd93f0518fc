"""An extension that goes through the capsule: one runtime, inline fast paths.

The samples are compiled here, against the headers that the installed package names, as a user would.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path
from types import ModuleType

import pytest

import pyruntime

SOURCE = Path(__file__).parent / "embedding" / "sample.c"
CC = (sysconfig.get_config_var("CC") or "cc").split()[0]


def build(where: Path, name: str, *defines: str, include: str | None = None) -> Path:
    target = where / (name + (sysconfig.get_config_var("EXT_SUFFIX") or ".so"))
    command = [CC, "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
    command += [f"-I{sysconfig.get_path('include')}", f"-I{include or pyruntime.get_include()}"]
    command += [f"-DSAMPLE_NAME={name}", *defines, str(SOURCE), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def load(path: Path, name: str) -> ModuleType:
    loader = importlib.machinery.ExtensionFileLoader(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[ModuleType]:
    where = tmp_path_factory.mktemp("samples")
    return [load(build(where, name), name) for name in ("sample_one", "sample_two")]


def test_all_extensions_share_one_runtime(samples: list[ModuleType]) -> None:
    first, second = samples
    assert first.runtime_address() == second.runtime_address() != 0


def test_each_inline_path_works_through_the_table(samples: list[ModuleType]) -> None:
    for sample in samples:
        assert sample.inline_paths() == (True,) * 6


def test_an_extension_counts_references_to_its_own_objects(samples: list[ModuleType]) -> None:
    for sample in samples:
        assert sample.counting() == (True,) * 6


def test_what_an_extension_retires_is_disposed_of(samples: list[ModuleType]) -> None:
    sample = samples[0]
    before = sample.disposed()
    assert sample.read() is None or isinstance(sample.read(), int)
    for value in range(1000):
        sample.replace(value)
    assert sample.read() == 999
    pyruntime.qsbr.barrier(timeout=60.0)
    assert sample.disposed() - before in (999, 1000)


def test_two_threads_read_and_replace(samples: list[ModuleType]) -> None:
    sample = samples[1]
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


def test_a_thread_state_that_is_refused_is_no_lack_of_memory(samples: list[ModuleType]) -> None:
    with pyruntime.Domain() as domain:
        with domain.reading(), pytest.raises(RuntimeError, match="end a read-side section of another interpreter"):
            samples[0].read()
        with domain.attached():
            samples[0].read()


def test_a_runtime_that_has_ended_is_no_lack_of_memory(tmp_path: Path) -> None:
    path = build(tmp_path, "sample_late")
    script = f"""
import importlib.machinery, importlib.util, os
import pyruntime
loader = importlib.machinery.ExtensionFileLoader("sample_late", {str(path)!r})
module = importlib.util.module_from_spec(importlib.util.spec_from_loader("sample_late", loader))
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


def test_the_header_refuses_to_come_second(tmp_path: Path) -> None:
    source = tmp_path / "late.c"
    source.write_text("#include <pyruntime/thread.h>\n#include <pyruntime/capi.h>\n")
    command = [CC, "-fsyntax-only", f"-I{pyruntime.get_include()}", str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "before any other pyruntime header" in done.stderr
