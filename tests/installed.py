"""The wheel in an environment of its own, and every sample of tests/embedding built from it alone.

Each sample is built when it is first asked for, and once: all tests that load one take it from here.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest
from c_support import ROOT, command, need, need_compiler
from conftest import FREE_THREADED

import pyruntime

EMBEDDING = ROOT / "tests" / "embedding"
LRU = EMBEDDING / "lru"
LRU_VERSIONS = ("lru_0_single", "lru_1_mutex", "lru_2_sections", "lru_3_qsbr", "lru_4_objects")
INCLUDE = sysconfig.get_path("include")
CC = (sysconfig.get_config_var("CC") or "cc").split()[0]
SUFFIX = ".so"  # that of no version: some are built for all of them

GENERATED = ("-shared", "-fPIC", "-O1", "-Wall", "-Werror", f"-isystem{INCLUDE}")
WRITTEN = ("-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", f"-isystem{INCLUDE}")

CMAKE = f"""
cmake_minimum_required(VERSION 3.15)
project(samples LANGUAGES C)
find_package(pyruntime {pyruntime.__version__} CONFIG REQUIRED)

add_library(exchange_cmake MODULE {EMBEDDING}/exchange.c)
target_link_libraries(exchange_cmake PRIVATE pyruntime::capi)

add_library(two_vendored MODULE {EMBEDDING}/vendored.c)
pyruntime_add_core(two_vendored PREFIX two_)

foreach(sample exchange_cmake two_vendored)
    target_compile_definitions(${{sample}} PRIVATE SAMPLE_NAME=${{sample}})
    target_include_directories(${{sample}} PRIVATE {INCLUDE})
    set_target_properties(${{sample}} PROPERTIES PREFIX "" SUFFIX "{SUFFIX}" C_VISIBILITY_PRESET hidden)
endforeach()

add_executable(program {EMBEDDING}/program.c)
target_link_libraries(program PRIVATE pyruntime::core)

find_package(pyruntime 99 CONFIG QUIET)
if(pyruntime_FOUND)
    message(FATAL_ERROR "any version is taken for any other")
endif()
"""


def load(path: Path, name: str) -> ModuleType:
    """The extension in this process."""
    loader = importlib.machinery.ExtensionFileLoader(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


class Samples:
    """The samples, in a directory for sys.path."""

    def __init__(self, environment: Path, work: Path) -> None:
        self.environment = environment
        self.python = str(environment / "bin" / "python")
        (self.site,) = environment.glob("lib/python*/site-packages")
        self.work = work
        self.where = work / "samples"
        self.where.mkdir()

    @functools.cache  # noqa: B019 -- one for the session
    def asked(self, *options: str) -> list[str]:
        """What the command of the installed package prints."""
        return command(self.python, "-m", "pyruntime", *options, cwd=self.environment).split()

    @functools.cached_property
    def by_cmake(self) -> Path:
        """Where CMake has built what CMAKE says."""
        need("cmake")
        where = self.work / "cmake"
        where.mkdir()
        (where / "CMakeLists.txt").write_text(CMAKE)
        (directory,) = self.asked("--cmakedir")
        command("cmake", "-S", ".", "-B", ".", f"-Dpyruntime_DIR={directory}", cwd=where)
        command("cmake", "--build", ".", "--parallel", str(os.cpu_count() or 1), cwd=where)
        return where

    @functools.cached_property
    def core_by_hand(self) -> Path:
        """Where the object files of a core with the prefix one_ are."""
        where = self.work / "core"
        where.mkdir()
        command(CC, "-c", "-O0", "-fPIC", "-DPYRT_PREFIX=one_", *self.asked("--cflags", "--sources"), cwd=where)
        return where

    def core_objects(self, prefix: str) -> list[Path]:
        """The object files of the core that one_vendored or two_vendored brings."""
        where = self.core_by_hand if prefix == "one_" else self.by_cmake / "CMakeFiles" / "two_vendored_pyruntime.dir"
        return sorted(where.rglob("*.o"))

    def compile(
        self,
        target: Path,
        *arguments: str,
        compiler: str = CC,
        options: tuple[str, ...] = WRITTEN,
        flags: list[str] | None = None,
    ) -> Path:
        """An extension. `flags`: in the place of those that the installed package names."""
        need_compiler(compiler)
        named = self.asked("--cflags", "--libs") if flags is None else flags
        command(compiler, *options, *named, *arguments, "-o", str(target), cwd=self.work)
        return target

    def sample(self, where: Path, name: str, *defines: str, include: Path | None = None) -> Path:
        """sample.c under a name of its own. `include`: other headers than those of the wheel."""
        flags = None if include is None else [f"-I{include}", "-pthread"]
        source = str(EMBEDDING / "sample.c")
        return self.compile(where / (name + SUFFIX), f"-DSAMPLE_NAME={name}", *defines, source, flags=flags)

    def build(self, name: str) -> Path:
        """The file of a sample."""
        target = self.where / (name + SUFFIX)
        if not target.exists():
            self._build(name, target)
        return target

    def load(self, name: str) -> ModuleType:
        """The sample in this process."""
        return load(self.build(name), name)

    def _build(self, name: str, target: Path) -> None:
        named = f"-DSAMPLE_NAME={name}"
        generated = self.work / f"{name}.c"
        if name in ("exchange_cmake", "two_vendored"):
            shutil.copy(self.by_cmake / target.name, target)
        elif name == "exchange_line":
            self.compile(target, named, str(EMBEDDING / "exchange.c"))
        elif name == "exchange_pkgconfig":
            need("pkg-config")
            (path,) = self.asked("--pkgconfigdir")
            flags = command("pkg-config", "--cflags", "--libs", "pyruntime", PKG_CONFIG_PATH=path).split()
            self.compile(target, named, str(EMBEDDING / "exchange.c"), flags=flags)
        elif name == "one_vendored":
            parts = [str(EMBEDDING / "vendored.c"), *map(str, self.core_objects("one_"))]
            self.compile(target, named, "-DPYRT_PREFIX=one_", "-fvisibility=hidden", *parts, "-Wl,-z,nodelete")
        elif name == "sample_cxx":
            # With nothing inlined: what is inline is a function then, which must stay in the extension.
            options = ("-std=c++17", "-O0", "-fvisibility=hidden")
            self.compile(target, *options, str(EMBEDDING / "sample_cxx.cc"), compiler="g++")
        elif name == "sample_cython":
            pytest.importorskip("Cython")
            line = [sys.executable, "-m", "cython", "-3", "-Werror", "-I", str(self.site)]
            command(*line, str(EMBEDDING / "sample_cython.pyx"), "-o", str(generated), cwd=self.work)
            self.compile(target, str(generated), options=GENERATED)
        elif name == "sample_cffi":
            builder = f"runpy.run_path({str(EMBEDDING / 'build_sample_cffi.py')!r})['ffibuilder']"
            program = f"import runpy; {builder}.emit_c_code({str(generated)!r})"
            command(self.python, "-c", program, cwd=self.work)
            self.compile(target, str(generated), options=GENERATED)
        elif name in LRU_VERSIONS:
            self.compile(target, "-std=gnu11", str(LRU / f"{name}.c"))
        else:
            self.sample(self.where, name)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one that $PYRUNTIME_WHEEL names, which is for all versions with a GIL, or one that is built now."""
    given = os.environ.get("PYRUNTIME_WHEEL")
    if given is not None and not FREE_THREADED:
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
def samples(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """The samples of tests/embedding."""
    return Samples(environment, tmp_path_factory.mktemp("work"))
