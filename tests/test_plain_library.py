"""The core without Python: libpyruntime, by make and by CMake, installed and used by programs in C; its own tests."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import c_support
import names_of_core
import pytest
from c_support import HANG_GUARD, ROOT, build, build_library, command, compiles, need, need_compiler
from test_core_line import PROGRAM

import pyruntime

OUTPUT = r"\d+\.\d+\.\d+ success sum 499500 stats \d+\n"


@pytest.fixture(scope="module")
def by_make(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `make install` has put it."""
    build_library()
    where = tmp_path_factory.mktemp("make")
    command("make", "-s", "install", f"PREFIX={where}")
    return where


@pytest.fixture(scope="module")
def by_cmake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("cmake")
    need_compiler("gcc")
    built, where = tmp_path_factory.mktemp("cmake-build"), tmp_path_factory.mktemp("cmake")
    command("cmake", "-S", str(ROOT), "-B", str(built), CC="gcc")
    command("cmake", "--build", str(built), "--parallel", str(os.cpu_count() or 1))
    command("cmake", "--install", str(built), "--prefix", str(where))
    return where


@pytest.fixture(params=["by_make", "by_cmake"])
def installed(request: pytest.FixtureRequest) -> Path:
    where: Path = request.getfixturevalue(request.param)
    return where


def runs(program: Path) -> None:
    ran = subprocess.run([program], capture_output=True, text=True, timeout=HANG_GUARD)
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(OUTPUT, ran.stdout), ran.stdout


def test_a_program_with_the_shared_library(installed: Path, tmp_path: Path) -> None:
    need("pkg-config")
    asked = command("pkg-config", "--cflags", "--libs", "libpyruntime", PKG_CONFIG_PATH=str(installed / "lib" / "pkgconfig"))
    file = tmp_path / "program.c"
    file.write_text(PROGRAM)
    # Libraries stand behind what needs them.
    command("gcc", str(file), *asked.split(), f"-Wl,-rpath,{installed / 'lib'}", "-o", "program", cwd=tmp_path)
    assert "libpyruntime.so." in command("readelf", "-d", "program", cwd=tmp_path)
    runs(tmp_path / "program")


def test_a_program_with_the_static_library(installed: Path, tmp_path: Path) -> None:
    library = str(installed / "lib" / "libpyruntime.a")
    done = compiles(
        ["gcc", f"-I{installed / 'include'}", "-pthread", "-o", "program", "-x", "c"], PROGRAM, "program.c", tmp_path
    )
    assert "undefined reference" in done.stderr
    command("gcc", f"-I{installed / 'include'}", "-pthread", "program.c", library, "-o", "program", cwd=tmp_path)
    runs(tmp_path / "program")


BOTH = f"""
cmake_minimum_required(VERSION 3.15)
project(program C)
find_package(pyruntime {pyruntime.__version__} CONFIG REQUIRED)
foreach(kind shared static)
    add_executable(with_${{kind}} program.c)
    target_link_libraries(with_${{kind}} PRIVATE pyruntime::${{kind}})
endforeach()
find_package(pyruntime 99 CONFIG QUIET)
if(pyruntime_FOUND)
    message(FATAL_ERROR "any version is taken for any other")
endif()
"""


def test_programs_by_find_package(installed: Path, tmp_path: Path) -> None:
    need("cmake")
    (tmp_path / "program.c").write_text(PROGRAM)
    (tmp_path / "CMakeLists.txt").write_text(BOTH)
    command("cmake", "-S", ".", "-B", "build", f"-DCMAKE_PREFIX_PATH={installed}", cwd=tmp_path, CC="gcc")
    command("cmake", "--build", "build", cwd=tmp_path)
    for kind in ("shared", "static"):
        told = command("readelf", "-d", f"build/with_{kind}", cwd=tmp_path)
        assert ("libpyruntime.so." in told) is (kind == "shared")
        runs(tmp_path / "build" / f"with_{kind}")


def test_the_name_of_the_library_is_that_of_its_abi(installed: Path) -> None:
    major, _ = pyruntime.runtime_info().abi_version
    told = command("readelf", "-d", str(installed / "lib" / "libpyruntime.so"))
    assert f"Library soname: [libpyruntime.so.{major}]" in told
    assert "NODELETE" in told
    assert (installed / "lib" / f"libpyruntime.so.{major}").is_file()


def test_both_ways_export_the_same(by_make: Path, by_cmake: Path) -> None:
    first, second = (names_of_core.defined(where / "lib" / "libpyruntime.so", dynamic=True) for where in (by_make, by_cmake))
    assert first == second
    assert {name for name in first if not name.startswith("pyrt_")} == set()


def test_a_program_below_which_the_sources_are(tmp_path: Path) -> None:
    """add_subdirectory() and pyruntime::core; nothing of the libraries is built for it."""
    need("cmake")
    (tmp_path / "program.c").write_text(PROGRAM)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.15)\nproject(program C)\n"
        f'add_subdirectory("{ROOT}" pyruntime)\n'
        "add_executable(program program.c)\ntarget_link_libraries(program PRIVATE pyruntime::core)\n"
    )
    command("cmake", "-S", ".", "-B", "build", cwd=tmp_path)
    command("cmake", "--build", "build", "--parallel", str(os.cpu_count() or 1), cwd=tmp_path)
    assert list(tmp_path.rglob("libpyruntime.*")) == []
    runs(tmp_path / "build" / "program")


def test_the_c_tests_run_with_the_shared_library() -> None:
    build_library()
    build(c_support.Config("gcc", "plain"))
    told = command("make", "-s", "check-lib")
    assert told.count("== ") == len(re.findall(r"^== build/lib/test_\w+$", told, re.MULTILINE)) > 10
    assert told.count("\nok ") > 100
