"""The binding and the loops of the benchmarks compile without a warning, with the headers of the Python that runs this."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import pytest
from c_support import CXX, HANG_GUARD, ROOT, need_compiler, on_all_cores

INCLUDES = [ROOT / where for where in ("csrc/include", "csrc", "csrc/core", "pyruntime/bench/loops")]
LINE = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-c", f"-I{sysconfig.get_path('include')}"]
SOURCES = [file for where in ("csrc/binding", "pyruntime/bench/loops") for file in sorted((ROOT / where).glob("*.c"))]


def compile_one(compiler: str, source: Path, where: Path) -> subprocess.CompletedProcess[str]:
    command = [compiler, *LINE, *(f"-I{include}" for include in INCLUDES), str(source)]
    return subprocess.run(command, cwd=where, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HANG_GUARD)


@pytest.mark.parametrize("compiler", CXX)
def test_it_compiles_without_a_warning(compiler: str, tmp_path: Path) -> None:
    need_compiler(compiler)
    for done in on_all_cores(lambda source: compile_one(compiler, source, tmp_path), SOURCES):
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""


@pytest.mark.parametrize("compiler", CXX)
def test_a_warning_is_seen(compiler: str, tmp_path: Path) -> None:
    need_compiler(compiler)
    file = tmp_path / "forgotten.c"
    file.write_text('#include "binding/home.h"\nstatic int forgotten(void) { return 0; }\n')
    done = compile_one(compiler, file, tmp_path)
    assert done.returncode != 0
    assert "forgotten" in done.stderr
