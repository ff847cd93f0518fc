"""Finding the peers that are installed, and compiling the loops of those that are C libraries.

A peer's fast paths are inline functions of its headers, so a loop over them has to be compiled where the headers are: here,
with the user's compiler. The result goes to the user's cache directory under a name that is a digest of everything that went
into it -- our source, every header that it includes, the compiler and its options -- so that it is made once, and again when
any of these changes. Nothing in here raises because of a peer: one that is missing or does not compile is reported as such.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes.util
import enum
import hashlib
import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyruntime

from .suite import (
    CEREGGII,
    CK,
    CK_RWLOCK,
    CK_SPINLOCK,
    EMBEDDED,
    FT_UTILS,
    SHARED_PTR,
    URCU_DEFER,
    URCU_MEMB,
    URCU_QSBR,
)

_HERE = Path(__file__).parent
_FLAGS = (
    *("-O2", "-shared", "-fPIC", "-pthread", "-fvisibility=hidden"),
    # Thread-local variables are reached as in an executable; worker.py says how that is made possible.
    "-ftls-model=initial-exec",
)


@dataclass(frozen=True)
class Peer:
    """A library that brings loops of its own."""

    name: str
    impls: tuple[str, ...]
    source: str
    header: str
    package: str  # for pkg-config; "": there is nothing to ask for
    libraries: tuple[str, ...]  # where pkg-config knows nothing
    install: str
    defines: tuple[str, ...] = ()

    @property
    def is_cpp(self) -> bool:
        return self.source.endswith(".cc")


@dataclass(frozen=True)
class Package:
    """A peer in Python, which is measured as it is; `name` is what pip calls it."""

    name: str
    impls: tuple[str, ...]
    module: str


@dataclass(frozen=True)
class Allocator:
    """A library that takes the place of malloc (allocators.py); `library`: what the linker would call it, "" for ours."""

    name: str
    library: str
    install: str

    @property
    def impls(self) -> tuple[str, ...]:
        return (self.name,)


PACKAGES: tuple[Package, ...] = (Package(CEREGGII, (CEREGGII,), "cereggii"), Package(FT_UTILS, (FT_UTILS,), "ft_utils"))

PEERS: tuple[Peer, ...] = (
    Peer(
        name=URCU_QSBR,
        impls=(URCU_QSBR,),
        source="urcu.c",
        header="urcu-qsbr.h",
        package="liburcu-qsbr",
        libraries=("-lurcu-qsbr", "-lurcu-common"),
        install="liburcu-dev (Debian, Ubuntu) or userspace-rcu-devel (Fedora)",
        defines=("-DPEER_URCU=1",),
    ),
    Peer(
        name=URCU_MEMB,
        impls=(URCU_MEMB, URCU_DEFER),
        source="urcu.c",
        header="urcu.h",
        package="liburcu-memb",
        libraries=("-lurcu-memb", "-lurcu-common"),
        install="liburcu-dev (Debian, Ubuntu) or userspace-rcu-devel (Fedora)",
        defines=("-DPEER_URCU=2",),
    ),
    Peer(
        name=CK,
        impls=(CK,),
        source="ck.c",
        header="ck_epoch.h",
        package="ck",
        libraries=("-lck",),
        install="libck-dev (Debian, Ubuntu) or ck-devel (Fedora)",
    ),
    Peer(
        name="ck-locks",
        impls=(CK_SPINLOCK, CK_RWLOCK),
        source="ck_locks.c",
        header="ck_rwlock.h",
        package="ck",
        libraries=("-lck",),
        install="libck-dev (Debian, Ubuntu) or ck-devel (Fedora)",
    ),
    Peer(
        name=EMBEDDED,
        impls=(EMBEDDED,),
        source="embedded.c",
        header="pyruntime/capi.h",
        package="",
        libraries=(),
        install="pyruntime-ft again, with its headers",
    ),
    Peer(
        name=SHARED_PTR,
        impls=(SHARED_PTR,),
        source="shared_ptr.cc",
        header="memory",
        package="",
        libraries=(),
        install="g++ (Debian, Ubuntu) or gcc-c++ (Fedora)",
    ),
)


class State(enum.Enum):
    READY = "ready"
    MISSING = "missing"  # not installed, or there is no compiler
    FAILED = "failed"  # installed, but its loops do not compile


@dataclass(frozen=True)
class Built:
    """What became of a peer."""

    peer: Peer | Package | Allocator
    state: State
    path: str = ""
    reason: str = ""  # one line
    details: str = ""  # what the compiler said


class _CompilerError(Exception):
    pass


def find_compiler(is_cpp: bool = False) -> list[str] | None:
    """$CC or $CXX, which may have arguments, or the first of the usual names that is there."""
    given = os.environ.get("CXX" if is_cpp else "CC", "")
    if given.strip():
        command = shlex.split(given)
        return command if shutil.which(command[0]) else None
    for name in ("c++", "g++", "clang++") if is_cpp else ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    return None


def cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "pyruntime" / "bench"


def writable_directory() -> Path:
    """The cache, or where that cannot be had, a directory for this run."""
    with contextlib.suppress(OSError, RuntimeError):
        directory = cache_directory()
        directory.mkdir(parents=True, exist_ok=True)
        if os.access(directory, os.W_OK | os.X_OK):
            return directory
    directory = Path(tempfile.mkdtemp(prefix="pyruntime-bench-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def _output_of(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, env={**os.environ, "LC_ALL": "C"}, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _CompilerError(str(error)) from error
    if done.returncode != 0:
        raise _CompilerError(f"{shlex.join(command)}\n{done.stderr}")
    return done.stdout


def _pkg_config(package: str, option: str) -> list[str] | None:
    if not package:
        return None
    try:
        return shlex.split(_output_of(["pkg-config", option, package]))
    except _CompilerError:
        return None


# Neither pip nor pkg-config knows a library without its headers; it does itself, in a process that was given it.
_ASK_ALLOCATOR = """
import ctypes
lib = ctypes.CDLL(None)
if hasattr(lib, "mi_version"):
    number = lib.mi_version()
    base = 10 if number < 10000 else 100
    print(number // base**2, number // base % base, number % base, sep=".")
else:
    text, size = ctypes.c_char_p(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_char_p))
    lib.mallctl(b"version", ctypes.byref(text), ctypes.byref(size), None, ctypes.c_size_t(0))
    print(text.value.decode().split("-")[0])
"""


def _ask_allocator(library: str) -> str:
    found = ctypes.util.find_library(library)
    command = ["env", f"LD_PRELOAD={found}", sys.executable, "-I", "-S", "-c", _ASK_ALLOCATOR]
    try:
        return _output_of(command).strip() if found else "unknown version"
    except _CompilerError:
        return "unknown version"


def version_of(peer: Peer | Package | Allocator) -> str:
    """The installed version, where it can be known: by pip, by pkg-config, or by an allocator itself."""
    if isinstance(peer, Package):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(peer.name)
        return "unknown version"
    if (isinstance(peer, Allocator) and not peer.library) or peer.name == EMBEDDED:
        return pyruntime.__version__
    if isinstance(peer, Allocator):
        return _ask_allocator(peer.library)
    words = _pkg_config(peer.package, "--modversion")
    return words[0] if words else "unknown version"


def _dependencies(rule: str) -> list[Path]:
    """The files that a rule of make, as compilers write it, names behind the colon."""
    _, _, names = rule.replace("\\\n", " ").partition(":")
    return [Path(name.replace("\\ ", " ")) for name in _split_unescaped(names)]


def _split_unescaped(text: str) -> list[str]:
    return [word.replace("\0", "\\ ") for word in text.replace("\\ ", "\0").split()]


def _digest(command: Sequence[str], compiler_version: str, files: Sequence[Path]) -> str:
    digest = hashlib.sha256("\0".join([*command, compiler_version]).encode())
    for file in files:
        digest.update(file.read_bytes())
        digest.update(b"\0")
    return digest.hexdigest()[:24]


def _compile(compiler: Sequence[str], peer: Peer, directory: Path) -> Path:
    source = _HERE / "peers" / peer.source
    includes = [f"-I{_HERE / 'loops'}", f"-I{pyruntime.get_include()}"]
    standard = "-std=gnu++17" if peer.is_cpp else "-std=gnu11"
    options = [standard, *_FLAGS, *peer.defines, *includes, *(_pkg_config(peer.package, "--cflags") or [])]
    libraries = _pkg_config(peer.package, "--libs") or list(peer.libraries)

    files = _dependencies(_output_of([*compiler, *options, "-M", str(source)]))
    name = _digest([*compiler, *options, *libraries], _output_of([*compiler, "--version"]), files)
    target = directory / f"{peer.name}-{name}.so"
    if not target.exists():
        # Made under another name and then renamed: who looks at the same time finds it whole or not at all.
        handle, temporary = tempfile.mkstemp(dir=directory, prefix=f"{peer.name}-", suffix=".tmp")
        os.close(handle)
        try:
            _output_of([*compiler, *options, str(source), "-o", temporary, *libraries])
            os.replace(temporary, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
    return target


def find(package: Package) -> Built:
    """Whether it is installed; whether it can be imported shows where it is measured."""
    if importlib.util.find_spec(package.module) is None:
        return Built(package, State.MISSING, reason=f"not installed; pip install {package.name}")
    return Built(package, State.READY)


def build(peer: Peer, directory: Path) -> Built:
    """Makes the peer's library ready in that directory, if it is not there already."""
    compiler = find_compiler(peer.is_cpp)
    if compiler is None:
        variable, language, usual = ("CXX", "C++", "g++") if peer.is_cpp else ("CC", "C", "gcc")
        given = os.environ.get(variable, "").strip()
        reason = f"no {language} compiler; install {usual} or set ${variable}"
        if given:
            reason = f"the compiler that ${variable} names is not there: {given}"
        return Built(peer, State.MISSING, reason=reason)
    try:
        path = _compile(compiler, peer, directory)
    except _CompilerError as error:
        details = str(error)
        if (peer.header in details and "No such file" in details) or f"'{peer.header}' file not found" in details:
            return Built(peer, State.MISSING, reason=f"not installed; install {peer.install}", details=details)
        return Built(peer, State.FAILED, reason="its loops did not compile; --verbose shows why", details=details)
    except OSError as error:
        return Built(peer, State.FAILED, reason=f"its loops could not be compiled: {error}")
    return Built(peer, State.READY, path=str(path))
