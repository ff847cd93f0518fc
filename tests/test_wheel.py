"""The wheel, in an environment of its own: extensions are built from it alone, in each way, and meet in one process."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import sys
import sysconfig
import zipfile
from pathlib import Path

import names_of_core
import pytest
from c_support import ROOT, need_compiler
from conftest import FREE_THREADED, Python
from test_core_line import PROGRAM
from test_interpreters import PRELUDE
from test_plain_library import command, need, runs

import pyruntime

EXCHANGE = ROOT / "tests" / "embedding" / "exchange.c"
INCLUDE = sysconfig.get_path("include")
OPTIONS = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
SUFFIX = ".so" if FREE_THREADED else ".abi3.so"
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one that $PYRUNTIME_WHEEL names, or one that is built now."""
    given = os.environ.get("PYRUNTIME_WHEEL")
    if given is not None:
        return Path(given)
    where = tmp_path_factory.mktemp("wheel")
    command(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(where), str(ROOT), cwd=where)
    (found,) = where.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and what it needs."""
    where = tmp_path_factory.mktemp("environment") / "venv"
    command(sys.executable, "-m", "venv", "--without-pip", str(where))
    target = [str(path) for path in where.glob("lib/python*/site-packages")]
    command(sys.executable, "-m", "pip", "install", "-q", "--target", *target, str(wheel))
    return where


@pytest.fixture(scope="session")
def site(environment: Path) -> Path:
    (found,) = environment.glob("lib/python*/site-packages")
    return found


def asked(environment: Path, *options: str) -> list[str]:
    """What the command of the installed package prints."""
    return command(str(environment / "bin" / "python"), "-m", "pyruntime", *options, cwd=environment).split()


CMAKE = f"""
cmake_minimum_required(VERSION 3.15)
project(two LANGUAGES C)
find_package(pyruntime {pyruntime.__version__} CONFIG REQUIRED)
add_library(exchange_cmake MODULE {EXCHANGE})
target_compile_definitions(exchange_cmake PRIVATE SAMPLE_NAME=exchange_cmake)
target_include_directories(exchange_cmake PRIVATE {INCLUDE})
target_link_libraries(exchange_cmake PRIVATE pyruntime::capi)
set_target_properties(exchange_cmake PROPERTIES PREFIX "" SUFFIX "{SUFFIX}" C_VISIBILITY_PRESET hidden)
add_executable(program program.c)
target_link_libraries(program PRIVATE pyruntime::core)
find_package(pyruntime 99 CONFIG QUIET)
if(pyruntime_FOUND)
    message(FATAL_ERROR "any version is taken for any other")
endif()
"""


@pytest.fixture(scope="session")
def by_cmake(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("cmake")
    where = tmp_path_factory.mktemp("by-cmake")
    (where / "CMakeLists.txt").write_text(CMAKE)
    (where / "program.c").write_text(PROGRAM)
    (directory,) = asked(environment, "--cmakedir")
    command("cmake", "-S", ".", "-B", ".", f"-Dpyruntime_DIR={directory}", cwd=where)
    command("cmake", "--build", ".", "--parallel", str(os.cpu_count() or 1), cwd=where)
    return where


@pytest.fixture(scope="session")
def extensions(environment: Path, by_cmake: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the same extension three times, each built in another way."""
    need("pkg-config")
    need_compiler("gcc")
    where = tmp_path_factory.mktemp("extensions")
    (pkgconfig,) = asked(environment, "--pkgconfigdir")
    ways = {
        "exchange_line": asked(environment, "--cflags", "--libs"),
        "exchange_pkgconfig": command("pkg-config", "--cflags", "--libs", "pyruntime", PKG_CONFIG_PATH=pkgconfig).split(),
    }
    for name, options in ways.items():
        given = [*OPTIONS, f"-I{INCLUDE}", *options, f"-DSAMPLE_NAME={name}"]
        command("gcc", *given, str(EXCHANGE), "-o", name + SUFFIX, cwd=where)
    shutil.copy(by_cmake / f"exchange_cmake{SUFFIX}", where)
    return where


NAMES = ("exchange_line", "exchange_cmake", "exchange_pkgconfig")


@pytest.fixture
def installed(environment: Path, extensions: Path) -> Python:
    """The Python of the environment, which finds the extensions, and nothing of the source tree."""
    return Python("", str(environment / "bin" / "python"), str(extensions))


def test_the_wheel_has_what_others_build_with(wheel: Path) -> None:
    assert wheel.stat().st_size < 1 << 20
    assert ("-abi3-" in wheel.name) is not FREE_THREADED
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    csrc = {
        file.relative_to(ROOT).as_posix()
        for where in ("include", "core")
        for file in (ROOT / "csrc" / where).rglob("*.[ch]*")
    }
    assert {f"pyruntime/{name}" for name in csrc} - names == set()
    for name in ("cmake/pyruntimeConfig.cmake", "cmake/pyruntimeConfigVersion.cmake", "lib/pkgconfig/pyruntime.pc"):
        assert f"pyruntime/csrc/{name}" in names
    assert [name for name in names if "/binding/" in name or name.startswith("tests/")] == []


def test_all_that_is_printed_is_in_the_environment(environment: Path) -> None:
    options = asked(environment, "--includes", "--cflags", "--sources", "--libs", "--cmakedir", "--pkgconfigdir")
    paths = [option.removeprefix("-I") for option in options if option.startswith(("-I", "/"))]
    assert len(paths) > 50
    assert [path for path in paths if not path.startswith(str(environment)) or not os.path.exists(path)] == []


def test_an_extension_exports_its_init_function_only(extensions: Path) -> None:
    for name in ("exchange_cmake",):
        assert names_of_core.defined(extensions / (name + SUFFIX), dynamic=True) == [f"PyInit_{name}"]
    for name in NAMES:
        assert [one for one in names_of_core.defined(extensions / (name + SUFFIX), dynamic=True) if "pyrt" in one] == []


def test_a_program_with_the_core_of_the_wheel(by_cmake: Path) -> None:
    runs(by_cmake / "program")


@pytest.mark.parametrize("order", list(itertools.permutations([*NAMES[:2], "pyruntime"])), ids="-".join)
def test_any_order_of_import_finds_the_same_runtime(installed: Python, order: tuple[str, ...]) -> None:
    modules = ", ".join(NAMES)
    result = installed.run(f"""
        import {", ".join(order)}, {NAMES[2]}
        modules = ({modules})
        for module in modules:
            module.again(3)
        assert pyruntime.__file__.startswith({str(Path(installed.executable).parents[1])!r})
        print(len({{module.runtime_address() for module in modules}}), modules[0].runtime_address() != 0)
        """)
    assert result.out == "1 True\n"


def test_they_exchange_objects_and_stop_each_others_threads(installed: Python) -> None:
    result = installed.run(f"""
        import threading
        import {", ".join(NAMES)}
        import pyruntime
        modules = ({", ".join(NAMES)})

        # Each makes a hundred, and the next one drops them, on a thread of its own.
        made = [[module.make(10 * n + i) for n in range(100)] for i, module in enumerate(modules)]
        def drop(i):
            for n, address in enumerate(made[i - 1]):
                assert modules[i].value(address) == 10 * n + (i - 1) % len(modules)
                modules[i].drop(address)
        threads = [threading.Thread(target=drop, args=(i,)) for i in range(len(modules))]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        pyruntime.barrier(timeout=60)
        print(*[module.destroyed() for module in modules])

        steps = [module.start() for module in modules]
        for module in modules:
            for counted in steps:
                module.wait_for_step(counted)
                assert module.stands_still(counted)
                module.wait_for_step(counted)
        with pyruntime.stop_the_world():
            pass
        for module in modules:
            module.again(100)
            module.end()
        print("ended")
        """)
    assert result.out == "100 100 100\nended\n"


def test_they_load_in_interpreters_with_a_gil_of_their_own(python: Python, extensions: Path, site: Path) -> None:
    """Built once, and for every version: in the main interpreter, and in two others at the same time."""
    paths = [str(site), str(extensions), *python.path.split(os.pathsep)[1:]]
    from_the_wheel = Python(python.version, python.executable, os.pathsep.join(paths))
    inside = f"""if True:
        import os, sys
        sys.path[:0] = {paths}
        import {", ".join(NAMES)}
        import pyruntime
        assert pyruntime.__file__.startswith({str(site)!r})
        for module in ({", ".join(NAMES)}):
            address = module.make(7)
            assert module.value(address) == 7
            module.drop(address)
            module.again(10)
        addresses = [module.runtime_address() for module in ({", ".join(NAMES)})]
        os.write(1, f"{{len(set(addresses))}} {{addresses[0]}}\\n".encode())  # in one piece, whoever else writes
    """
    kind = "legacy" if python.version in ("3.10", "3.11") else "isolated"
    result = from_the_wheel.run(
        PRELUDE
        + f"""
inside = {inside!r}
exec(inside)
made = [create({kind!r}) for _ in range(2)]
threads = [threading.Thread(target=run, args=(one, inside)) for one in made]
for thread in threads: thread.start()
for thread in threads: thread.join()
for one in made: interpreters.destroy(one)
import pyruntime
pyruntime.barrier(timeout=60)
print(exchange_line.destroyed())
"""
    )
    *lines, destroyed = result.out.splitlines()
    assert len(lines) == 3
    assert len(set(lines)) == 1
    assert lines[0].startswith("1 ")
    assert destroyed == "3"


def test_the_page_of_the_readme(environment: Path, tmp_path: Path) -> None:
    """From pip to a running extension; what the first two lines do is there already."""
    page = README[README.index("From nothing to a running extension") :]
    blocks = re.findall(r"^```(c|sh)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (c_language, source), (shell, lines) = blocks[:2]
    assert (c_language, shell) == ("c", "sh")
    (tmp_path / "counter.c").write_text(source)
    create, install, *rest = lines.splitlines()
    assert create == "python3 -m venv venv && . venv/bin/activate"
    assert install == "pip install pyruntime-ft"
    path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    assert command("sh", "-euc", "\n".join(rest), cwd=tmp_path, PATH=path) == "42\n"
