"""What ``import pyruntime`` adds to the life of a Python process: whole processes, with the import and without, in turn."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import time

from .measure import Sample, Sampler
from .suite import BARE, OURS

_PROGRAMS = {OURS: "import pyruntime", BARE: "pass"}


def _environment(byte_code: str) -> dict[str, str]:
    """With byte code cached, as after an installation by pip, whatever the user's own settings are."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": byte_code}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def _lifetime(program: str, environment: dict[str, str]) -> Sampler:
    arguments = [sys.executable, "-c", program]

    def sample(operations: int) -> Sample:
        start = time.perf_counter_ns()
        most = 0
        for _ in range(operations):
            child = os.posix_spawn(sys.executable, arguments, environment)
            _, status, usage = os.wait4(child, 0)
            if status != 0:
                raise RuntimeError(f"python -c {program!r} failed with status {status}")
            most = max(most, usage.ru_maxrss)
        return Sample(float(time.perf_counter_ns() - start), peak_rss_kb=most)

    return sample


def samplers() -> dict[str, Sampler]:
    """By implementation. Each has run once, so that byte code and file caches are there."""
    byte_code = tempfile.mkdtemp(prefix="pyruntime-bench-")
    atexit.register(shutil.rmtree, byte_code, ignore_errors=True)
    result = {name: _lifetime(program, _environment(byte_code)) for name, program in _PROGRAMS.items()}
    for sampler in result.values():
        sampler(1)
    return result
