"""The loops in C, as samplers. The tables are those of loops/bench_loop.h, ours and each peer library's."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pyruntime._core import _C_API, ffi, lib

from .measure import Sample, Sampler, Shares, SingleTimes


class LoopError(RuntimeError):
    """A loop could not be opened or run; what it measured is void."""


class Loop:
    """One entry of a table."""

    def __init__(self, entry: Any) -> None:
        self._entry = entry
        self.bench = _text(entry.bench)
        self.impl = _text(entry.impl)

    @contextlib.contextmanager
    def sampler(self, threads: int, cpus: Sequence[int] = ()) -> Iterator[Sampler]:
        """Sets the loop up, and tears it down in the end. `cpus`: where several threads run, one behind the other; none:
        wherever the system puts them."""
        out = ffi.new("pyrt_bench_sample *")
        places = ffi.new("int[]", list(cpus))  # alive until the end of this generator, as the order needs it
        order = ffi.new("pyrt_bench_order *", {"threads": threads, "cpus": places, "cpu_count": len(cpus)})

        def sample(operations: int) -> Sample:
            order.iterations = operations
            self._check(self._entry.run(self._entry, order, out))
            return _sample_of(out)

        if self._entry.setup != ffi.NULL:
            self._check(self._entry.setup())
        try:
            yield sample
        finally:
            if self._entry.teardown != ffi.NULL:
                self._entry.teardown()

    def _check(self, error: int) -> None:
        if error != 0:
            raise LoopError(f"{self.bench} of {self.impl}: {os.strerror(error)}")


def _sample_of(out: Any) -> Sample:
    return Sample(
        float(out.ns),
        out.peak_bytes,
        out.refused,
        shares=Shares(out.least_share, out.most_share) if out.least_share >= 0 else None,
        singles=SingleTimes(out.p50_ns, out.p99_ns, out.max_ns) if out.p50_ns >= 0 else None,
    )


def _text(chars: Any) -> str:
    text = ffi.string(chars)
    assert isinstance(text, bytes)
    return text.decode()


def _loops_of(table: Any, count: int) -> dict[tuple[str, str], Loop]:
    loops = (Loop(table + i) for i in range(count))
    return {(loop.bench, loop.impl): loop for loop in loops}


def give_memory_back() -> None:
    """Has malloc return to the system what nobody uses."""
    lib.pyrt_bench_trim()


def compiled_in() -> dict[tuple[str, str], Loop]:
    """Our own loops, by benchmark and implementation."""
    count = ffi.new("size_t *")
    table = lib.pyrt_bench_loops(count)
    return _loops_of(table, count[0])


def _address_of_our_api() -> int:
    """For loops that use ours from outside."""
    from_capsule = ctypes.pythonapi.PyCapsule_GetPointer
    from_capsule.restype = ctypes.c_void_p
    from_capsule.argtypes = (ctypes.py_object, ctypes.c_char_p)
    address = from_capsule(_C_API, b"pyruntime._C_API")
    assert isinstance(address, int)
    return address


def of_library(path: str) -> dict[tuple[str, str], Loop]:
    """A peer's loops."""
    count = ffi.new("size_t *")
    table = lib.pyrt_bench_open(os.fsencode(path), ffi.cast("void *", _address_of_our_api()), count)
    if table == ffi.NULL:
        raise LoopError(_text(lib.pyrt_bench_open_error()))
    return _loops_of(table, count[0])


def of_libraries(paths: Mapping[str, str]) -> tuple[dict[tuple[str, str], Loop], dict[str, str]]:
    """The loops of several libraries, and what went wrong, by library."""
    loops: dict[tuple[str, str], Loop] = {}
    errors: dict[str, str] = {}
    for name, path in paths.items():
        try:
            loops.update(of_library(path))
        except LoopError as error:
            errors[name] = str(error)
    return loops, errors
