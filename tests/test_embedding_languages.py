"""Extensions in Cython and by cffi that use the runtime of the process, next to each other and to one in C."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from c_support import ROOT
from installed import GENERATED, SUFFIX, Samples, load

import pyruntime
from pyruntime import _core


def cythonize(samples: Samples, source: Path, where: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("Cython")
    line = [sys.executable, "-m", "cython", "-3", "-Werror", "-I", str(samples.site), str(source)]
    return subprocess.run([*line, "-o", str(where / f"{source.stem}.c")], capture_output=True, text=True, cwd=where)


@pytest.fixture(scope="module")
def in_cython(samples: Samples) -> ModuleType:
    return samples.load("sample_cython")


@pytest.fixture(scope="module")
def by_cffi(samples: Samples) -> ModuleType:
    return samples.load("sample_cffi")


def run_at_once(*calls: Callable[[], object]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_all_of_them_share_one_runtime(in_cython: ModuleType, by_cffi: ModuleType, samples: Samples) -> None:
    in_c = samples.load("sample_one")
    main = _core.lib.pyrt_interp_main()
    assert by_cffi.lib.sample_runtime() == main
    assert in_c.runtime_address() == in_cython.runtime_address() == int(_core.ffi.cast("intptr_t", main))


# ---- Cython ---------------------------------------------------------------------------------------------------------------


def test_the_pxd_is_what_the_headers_declare(monkeypatch: pytest.MonkeyPatch) -> None:
    """If not: ``python csrc/build_pxd.py``."""
    pytest.importorskip("pycparser")
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT / "csrc"))
    build_pxd = importlib.import_module("build_pxd")
    assert build_pxd.pxd() == (ROOT / "pyruntime" / "__init__.pxd").read_text()


def test_every_name_of_the_pxd_can_be_had(samples: Samples, tmp_path: Path) -> None:
    (tmp_path / "all.pyx").write_text("from pyruntime cimport *\npyruntime_import()\n")
    done = cythonize(samples, tmp_path / "all.pyx", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pyruntime/capi.h" in (tmp_path / "all.c").read_text()


def test_locks_and_sections_in_cython(in_cython: ModuleType) -> None:
    a, b = in_cython.Account(), in_cython.Account()
    run_at_once(lambda: a.add(1, 20000), lambda: a.add(2, 20000))
    assert a.total == 60000
    run_at_once(lambda: a.move_to(b, 1, 20000), lambda: b.move_to(a, 3, 20000))
    assert (a.total, b.total) == (100000, -40000)


def test_readers_and_retiring_in_cython(in_cython: ModuleType) -> None:
    before = in_cython.disposed()
    assert in_cython.look() == -1

    def read() -> None:
        while (seen := in_cython.look()) != 999:
            assert -1 <= seen < 1000

    run_at_once(read, lambda: [in_cython.replace(number) for number in range(1000)])
    pyruntime.barrier(timeout=60.0)
    assert in_cython.disposed() - before == 999
    assert in_cython.words(0) == _core.ffi.string(_core.lib.pyrt_strerror(0)).decode()


def test_cython_refuses_a_callback_that_needs_the_gil(samples: Samples, tmp_path: Path) -> None:
    source = tmp_path / "needy.pyx"
    text = "from pyruntime cimport pyrt_retire\ncdef void dispose(void *p) noexcept {}:\n    {}\n"
    text += "pyrt_retire(NULL, NULL, 0, dispose)\n"
    source.write_text(text.format("with gil", "print(1)"))
    assert cythonize(samples, source, tmp_path).returncode == 0
    source.write_text(text.format("", "print(1)"))
    done = cythonize(samples, source, tmp_path)
    assert done.returncode != 0
    assert "Cannot assign type" in done.stderr


# ---- cffi -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["pyrt_thread *", "pyrt_thread_info", "pyrt_object *", "pyrt_interp_config *", "pyrt_heap *"]
)
def test_types_are_the_same(by_cffi: ModuleType, name: str) -> None:
    assert by_cffi.ffi.typeof(name) is _core.ffi.typeof(name)


def test_values_go_from_one_module_to_the_other(by_cffi: ModuleType) -> None:
    lib = by_cffi.lib
    thread = _core.lib.pyrt_thread_ensure(lib.sample_runtime())
    before = lib.disposed
    for number in range(100):
        assert lib.sample_replace(number) == lib.PYRT_OK
        assert lib.sample_look(thread) == number
    note = by_cffi.ffi.new("sample_note *")
    assert lib.pyrt_thread_list(lib.sample_runtime(), by_cffi.ffi.addressof(note, "who"), 1) >= 1
    assert note.who.interp_id == 0
    lib.pyrt_thread_release(thread)
    pyruntime.barrier(timeout=60.0)
    assert lib.disposed - before == 99


def test_a_cffi_module_that_does_not_fit_is_not_imported(samples: Samples, tmp_path: Path) -> None:
    """So it did look for the table when it was imported."""
    samples.build("sample_cffi")
    (installed,) = samples.asked("--includes")
    include = shutil.copytree(installed.removeprefix("-I"), tmp_path / "include")
    config = include / "pyruntime" / "config.h"
    config.write_text(re.sub("#define PYRT_ABI_MAJOR .*", "#define PYRT_ABI_MAJOR 99", config.read_text()))
    flags = [f"-I{include}", "-pthread"]
    path = samples.compile(
        tmp_path / f"sample_cffi{SUFFIX}", str(samples.work / "sample_cffi.c"), options=GENERATED, flags=flags
    )
    with pytest.raises(ImportError, match=r"compiled for pyruntime ABI 99\."):
        load(path, "sample_cffi")
