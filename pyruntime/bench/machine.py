"""Where a run was made: what a reader must know before comparing its figures with others."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from pathlib import Path
from typing import Any

from pyruntime._core import ffi, lib


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "CPU part"):
            return value.strip()
    return platform.machine()


def cpu_order() -> list[int]:
    """The CPUs that this process may use, the first hardware thread of every core before any second one."""
    seen: dict[str, int] = {}

    def rank(cpu: int) -> tuple[int, int]:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            core = siblings.read_text()
        except OSError:
            core = str(cpu)
        seen[core] = seen.get(core, -1) + 1
        return seen[core], cpu

    return sorted(os.sched_getaffinity(0), key=rank)


def _has_gil() -> bool:
    is_enabled = getattr(sys, "_is_gil_enabled", None)
    return True if is_enabled is None else bool(is_enabled())


def describe() -> dict[str, Any]:
    """The machine, the system and the Python of this process."""
    version = ffi.string(lib.pyrt_version())
    assert isinstance(version, bytes)
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "gil": _has_gil(),
        "pyruntime": version.decode(),
        "load": os.getloadavg()[0],
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def warnings(machine: dict[str, Any]) -> list[str]:
    """What makes the figures of this machine doubtful."""
    found = []
    if machine["load"] > 0.5 * machine["cores"]:
        found.append(f"the machine was busy when this began (load {machine['load']:.1f} on {machine['cores']} cores)")
    if machine["cores"] < 2:
        found.append("there is one core only: nothing here ran at the same time as anything else")
    return found
