"""What the tests of the C side share: the compilers of this machine, the builds of the root Makefile, and running them."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import pytest

A = TypeVar("A")
T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "csrc" / "core"
INCLUDE = ROOT / "csrc" / "include"
C_TESTS = ROOT / "tests" / "c"
BUILD = ROOT / "build" / "c"
HANG_GUARD = 300.0

CXX = {"gcc": "g++", "clang": "clang++"}


@dataclass(frozen=True)
class Config:
    """One of the builds of the Makefile."""

    compiler: str
    sanitizer: str

    def __str__(self) -> str:
        return f"{self.compiler}-{self.sanitizer}"

    @property
    def directory(self) -> Path:
        """Where its executables are."""
        return BUILD / str(self)


CONFIGS = [Config(compiler, sanitizer) for compiler in CXX for sanitizer in ("plain", "address", "thread")]
CONFIGS.append(Config("gcc", "debug"))


def need_compiler(name: str) -> None:
    """Skips the test if the compiler is not installed."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """One process at a time, also when the tests run on several."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@functools.cache
def build(config: Config) -> None:
    """Brings the executables of a configuration up to date."""
    need_compiler(config.compiler)
    command = ["make", "-s", f"-j{os.cpu_count() or 1}", "build", f"CC={config.compiler}", f"SAN={config.sanitizer}"]
    with _alone(str(config).replace("debug", "plain")):  # these two share the core
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)}\n{done.stdout}{done.stderr}", pytrace=False)


def run(config: Config, executable: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs an executable of a configuration; what it writes comes back as one text in `stdout`."""
    build(config)
    environment = {
        **os.environ,
        "ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
    }
    command = [str(config.directory / executable), *arguments]
    try:
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=HANG_GUARD,
        )
    except subprocess.TimeoutExpired as hang:
        pytest.fail(f"{' '.join(command)} hangs\n{hang.stdout!r}", pytrace=False)


def compiles(command: list[str], source: str, name: str, where: Path) -> subprocess.CompletedProcess[str]:
    """Compiles a text, which is written to `where / name`, with a command that ends before the file."""
    need_compiler(command[0])
    file = where / name
    file.write_text(source)
    return subprocess.run(
        [*command, str(file)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HANG_GUARD, cwd=where
    )


@functools.cache
def build_library() -> Path:
    """Brings the libraries for programs without Python up to date, and says where they are."""
    need_compiler("gcc")
    with _alone("lib"):
        done = subprocess.run(
            ["make", "-s", f"-j{os.cpu_count() or 1}", "lib"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    if done.returncode != 0:
        pytest.fail(f"make lib\n{done.stdout}{done.stderr}", pytrace=False)
    return ROOT / "build" / "lib"


def on_all_cores(function: Callable[[A], T], arguments: Iterable[A]) -> list[T]:
    """What a function that waits for a process says to each argument, asked on all cores; the first failure counts."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        return list(pool.map(function, arguments))
    finally:
        pool.shutdown(cancel_futures=True)


class Ahead(Generic[T]):
    """What the tests of a module look at, made on all cores: while one test waits for its part, the next ones' are made.

    `work` says for each function of the module that takes part what to call, with the parameters of the test. A test that
    fails or is skipped in there fails or is skipped when it asks.
    """

    WINDOW = 16  # so far ahead: those of a long one keep the other cores busy, and what is not asked for is not all made

    def __init__(self, items: Iterable[pytest.Item], module: object, work: dict[str, Callable[..., T]]) -> None:
        self._calls = {
            item.nodeid: functools.partial(work[item.originalname], **item.callspec.params)
            for item in items
            if isinstance(item, pytest.Function) and item.module is module and item.originalname in work
        }
        self._order = list(self._calls)
        self._made: dict[str, Future[T]] = {}
        self._pool = ThreadPoolExecutor(os.cpu_count())

    def of(self, item: pytest.Item) -> T:
        """What was made for this test."""
        place = self._order.index(item.nodeid)
        for nodeid in self._order[place : place + self.WINDOW]:
            if nodeid not in self._made:
                self._made[nodeid] = self._pool.submit(self._calls[nodeid])
        return self._made[item.nodeid].result()

    def end(self) -> None:
        """What has not begun never will."""
        self._pool.shutdown(cancel_futures=True)


def command(*line: str, cwd: Path = ROOT, **environment: str) -> str:
    """What a command that has to work prints."""
    done = subprocess.run(
        line,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HANG_GUARD,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def need(tool: str) -> None:
    """Skips the test if a tool is not installed."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
