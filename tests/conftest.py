"""Other Pythons for the tests: the compiled part is one for all versions with a GIL, so it is built once and loaded by each.

A test that takes the fixture ``python`` runs once for each CPython from 3.10 on that is on this machine. Its programs run in
processes of their own, each with a guard against hanging.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

import pyruntime
from pyruntime import _core

pytest_plugins = ["installed"]

VERSIONS = ["3.10", "3.11", "3.12", "3.13"]
NEWER = ["3.14", "3.15", "3.16"]
THIS_VERSION = "{}.{}".format(*sys.version_info)
HANG_GUARD = 60.0
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in the background of a shell: programs that are started here would inherit it, and no Ctrl-C would end their waits.
    signal.signal(signal.SIGINT, signal.default_int_handler)

needs_subinterpreters = pytest.mark.skipif(
    FREE_THREADED, reason="a free-threaded Python imports what cffi makes in its main interpreter only"
)


@dataclass(frozen=True)
class Result:
    """How a program ended."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Python:
    """A CPython that can import the package under test."""

    version: str
    executable: str
    path: str

    def run(self, program: str, *arguments: str, status: int | None = 0, guard: float = HANG_GUARD) -> Result:
        """Runs a program. `status`: what it must exit with; None: anything."""
        environment = {**os.environ, "PYTHONPATH": self.path, "PYTHONDONTWRITEBYTECODE": "1"}
        # Each interpreter of a process has a buffer of its own: unbuffered, lines come in the order of their writing.
        environment["PYTHONUNBUFFERED"] = "1"
        command = [self.executable, "-X", "faulthandler", "-c", textwrap.dedent(program), *arguments]
        # Not where we are: that may be a source tree, which Python would take for the package.
        where = self.path.split(os.pathsep)[0]
        # Files: a pipe ends only with the last child of the program that holds it, and one may be what hangs.
        with tempfile.TemporaryFile("w+") as out_file, tempfile.TemporaryFile("w+") as err_file:
            process = subprocess.Popen(
                command, env=environment, cwd=where, stdin=subprocess.DEVNULL, stdout=out_file, stderr=err_file
            )
            try:
                process.wait(timeout=guard)
                hangs = False
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)
                process.wait()
                hangs = True
            out_file.seek(0)
            err_file.seek(0)
            result = Result(process.returncode, out_file.read(), err_file.read())
        out, err = result.out, result.err
        if hangs:
            pytest.fail(f"it hangs; stacks:\n{err}\noutput:\n{out}")
        if status is not None and result.status != status:
            pytest.fail(f"exit status {result.status} instead of {status}\n{err}\noutput:\n{out}")
        return result


def _version_of(executable: str) -> str | None:
    """ "3.12", or None if it is none of the Pythons that can load the compiled part."""
    program = (
        "import sys, sysconfig\n"
        "assert sys.implementation.name == 'cpython' and not sysconfig.get_config_var('Py_GIL_DISABLED')\n"
        "print('{}.{}'.format(*sys.version_info))"
    )
    done = subprocess.run([executable, "-c", program], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


@functools.cache
def _executables() -> dict[str, str]:
    """The Pythons of this machine, by version: this one, those on PATH, and pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    candidates = [shutil.which(f"python{version}") for version in VERSIONS + NEWER]
    candidates += [str(path) for path in sorted(pyenv.glob("versions/3.*/bin/python"))]
    found: dict[str, str] = {THIS_VERSION: sys.executable}
    for candidate in candidates:
        version = _version_of(candidate) if candidate is not None else None
        if candidate is not None and version in VERSIONS + NEWER:
            found.setdefault(version, candidate)
    return found


@pytest.fixture(scope="session")
def package_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that holds the package under test and nothing else, for PYTHONPATH."""
    assert pyruntime.__file__ is not None
    where = tmp_path_factory.mktemp("package")
    shutil.copytree(Path(pyruntime.__file__).parent, where / "pyruntime", ignore=shutil.ignore_patterns("__pycache__"))
    return where


@pytest.fixture(scope="session")
def this_python(package_copy: Path) -> Python:
    """The Python that runs the tests."""
    return Python(THIS_VERSION, sys.executable, str(package_copy))


@pytest.fixture(scope="session", params=VERSIONS + [version for version in NEWER if version in _executables()])
def python(request: pytest.FixtureRequest, package_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Python:
    """Each Python in turn."""
    version: str = request.param
    if version == THIS_VERSION:
        return Python(version, sys.executable, str(package_copy))
    if not _core.uses_limited_api:
        pytest.skip("this build of the compiled part is for one version of Python")
    executable = _executables().get(version)
    if executable is None:
        pytest.skip(f"no CPython {version} on this machine")
    where = tmp_path_factory.mktemp(f"cffi-{version}")
    command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(where), "--only-binary=:all:"]
    command += ["--python-version", version, "--implementation", "cp", "cffi>=2.1.1"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return Python(version, executable, f"{package_copy}{os.pathsep}{where}")
