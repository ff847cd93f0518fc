"""The headers for C++, and an extension that uses them through the capsule. What they do is for tests/c/test_cxx.cc."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from types import ModuleType

import pytest
from c_support import CXX, INCLUDE, compiles
from installed import EMBEDDING, SUFFIX, Samples, load
from test_headers import LONGEST_LINE, WARNINGS

import pyruntime

SOURCE = EMBEDDING / "sample_cxx.cc"
HEADERS = sorted(file.name for file in (INCLUDE / "pyruntime").glob("*.hpp"))


@pytest.mark.parametrize("standard", ["c++17", "c++20"])
@pytest.mark.parametrize("compiler", CXX)
@pytest.mark.parametrize("table", [(), ("-include", "pyruntime/capi.h")], ids=["compiled in", "table"])
def test_they_compile_both_ways(tmp_path: Path, compiler: str, standard: str, table: tuple[str, ...]) -> None:
    command = [CXX[compiler], f"-std={standard}", *WARNINGS, f"-I{INCLUDE}", *table, "-fsyntax-only"]
    source = "#include <pyruntime/pyruntime.hpp>\n#include <pyruntime/pyruntime.hpp>\n"
    done = compiles(command, source, "all.cc", tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("header", [name for name in HEADERS if name != "pyruntime.hpp"])
def test_each_compiles_alone(tmp_path: Path, header: str) -> None:
    command = ["g++", "-std=c++17", *WARNINGS, f"-I{INCLUDE}", "-fsyntax-only"]
    done = compiles(command, f"#include <pyruntime/{header}>\n", "one.cc", tmp_path)
    assert done.returncode == 0, done.stderr
    assert f'#include "{header}"' in (INCLUDE / "pyruntime" / "pyruntime.hpp").read_text()


def test_an_older_standard_is_told(tmp_path: Path) -> None:
    done = compiles(
        ["g++", "-std=c++14", f"-I{INCLUDE}", "-fsyntax-only"], "#include <pyruntime/locks.hpp>\n", "a.cc", tmp_path
    )
    assert "pyruntime.hpp needs C++17" in done.stderr


def test_their_lines_can_be_read_and_name_the_licence() -> None:
    for header in HEADERS:
        lines = (INCLUDE / "pyruntime" / header).read_text().splitlines()
        assert lines[0] == "/* SPDX-License-Identifier: MIT"
        assert [number for number, line in enumerate(lines, start=1) if len(line) > LONGEST_LINE] == [], header


@pytest.fixture(scope="module", params=["g++", "clang++"])
def built(request: pytest.FixtureRequest, samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample, with each compiler; once with nothing inlined."""
    if request.param == "g++":
        return samples.build("sample_cxx")
    target = tmp_path_factory.mktemp("cxx") / f"sample_cxx{SUFFIX}"
    return samples.compile(target, "-std=c++17", "-fvisibility=hidden", str(SOURCE), compiler=request.param)


@pytest.fixture
def sample(built: Path) -> ModuleType:
    return load(built, "sample_cxx")


def test_nothing_of_ours_leaves_the_extension(built: Path) -> None:
    """Else the functions of one extension would be called by another, whose table they do not know."""
    symbols = subprocess.run(["nm", "-DC", str(built)], capture_output=True, text=True, check=True).stdout
    defined = [line for line in symbols.splitlines() if len(line.split(" ", 2)[0]) == 16 and " U " not in line]
    assert any("PyInit_sample_cxx" in line for line in defined)
    assert [line for line in defined if "pyruntime" in line or "pyrt_" in line] == []


def test_it_uses_the_runtime_of_the_process(sample: ModuleType) -> None:
    from pyruntime import _core

    assert sample.runtime_address() == int(_core.ffi.cast("intptr_t", _core.lib.pyrt_interp_main()))


def test_threads_add_under_its_locks(sample: ModuleType) -> None:
    before = sample.add(0, 1)
    threads = [threading.Thread(target=sample.add, args=(n, 20000)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sample.add(0, 1) - before == 60000


def test_what_it_replaces_is_destroyed_when_readers_have_passed(sample: ModuleType) -> None:
    def read() -> None:
        while (text := sample.look()) != "999":
            assert text == "" or 0 <= int(text) < 1000

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1000):
        sample.replace(str(number))
    reader.join()
    pyruntime.barrier(timeout=60.0)
    assert sample.living() == 1


def test_its_objects_are_counted(sample: ModuleType) -> None:
    assert sample.name("anna, longer than what fits into a string") == (
        "anna, longer than what fits into a string",
        True,
        False,
    )


def test_an_error_has_the_words_of_the_library(sample: ModuleType) -> None:
    with pytest.raises(RuntimeError, match=r"pyruntime::shared_mutex: .+"):
        sample.deadlock()
    assert sample.add(0, 1) is not None  # and it was left
