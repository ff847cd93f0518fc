"""Finding the allocators that a process can be given in place of the C library's: those that are installed, and ours.

They are taken as their users take them, by LD_PRELOAD: nothing is compiled against their headers. Ours is in no wheel, for a
program in C has no use for one; in a checkout ``make malloc`` builds it, which does nothing where nothing has changed.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import subprocess
from pathlib import Path

import pyruntime

from .peer_build import Allocator, Built, State
from .suite import JEMALLOC, MIMALLOC, PRELOADED

_BUILD_TIMEOUT = 300  # seconds


ALLOCATORS: tuple[Allocator, ...] = (
    Allocator(PRELOADED, "", "run from a checkout, where `make malloc` builds it"),
    Allocator(MIMALLOC, "mimalloc", "libmimalloc2.0 (Debian, Ubuntu) or mimalloc (Fedora)"),
    Allocator(JEMALLOC, "jemalloc", "libjemalloc2 (Debian, Ubuntu) or jemalloc (Fedora)"),
)


def _make(allocator: Allocator) -> Built:
    checkout = Path(pyruntime.__file__).resolve().parent.parent
    if not (checkout / "csrc" / "malloc" / "malloc.c").exists():
        return Built(allocator, State.MISSING, reason=f"not in a wheel; {allocator.install}")
    try:
        done = subprocess.run(
            ["make", "-s", "-C", str(checkout), "malloc"],
            capture_output=True,
            text=True,
            timeout=_BUILD_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Built(allocator, State.MISSING, reason=f"could not be built: {error}")
    if done.returncode != 0:
        return Built(allocator, State.FAILED, reason="`make malloc` failed; --verbose shows why", details=done.stderr)
    return Built(allocator, State.READY, path=str(checkout / "build" / "libpyruntime-malloc.so"))


def find(allocator: Allocator) -> Built:
    """Where it is; that it can be preloaded shows where it is measured."""
    if not allocator.library:
        return _make(allocator)
    found = None
    with contextlib.suppress(OSError):
        found = ctypes.util.find_library(allocator.library)
    if found is None:
        return Built(allocator, State.MISSING, reason=f"not installed; install {allocator.install}")
    return Built(allocator, State.READY, path=found)
