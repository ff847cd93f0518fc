"""Rounds, and what is made of them: best, median, worst, and ratios pair by pair.

Knows nothing of what is measured. A sampler runs some number of operations once and says how long they took.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_MAX_OPERATIONS = 1 << 40


@dataclass(frozen=True)
class Shares:
    """How unevenly the operations of a sample fell to its threads: the parts of all of them, from 0 to 1."""

    least: float
    most: float


@dataclass(frozen=True)
class SingleTimes:
    """The operations of a sample one by one, in ns."""

    p50: float
    p99: float
    max: float


@dataclass(frozen=True)
class Sample:
    """One run of a loop."""

    ns: float
    peak_bytes: int = -1  # -1: not counted
    refused: int = 0
    peak_rss_kb: int = 0  # of a process of its own; 0: it ran in this one
    shares: Shares | None = None  # None: each thread was told to do as many
    singles: SingleTimes | None = None  # None: they were not timed one by one


Sampler = Callable[[int], Sample]


@dataclass
class Rounds:
    """What one implementation did in all rounds."""

    operations: int
    samples: list[Sample] = field(default_factory=list)
    peak_rss_kb: int = 0

    @property
    def ns_per_op(self) -> list[float]:
        return [sample.ns / self.operations for sample in self.samples]


def calibrate(sampler: Sampler, target_ns: float) -> int:
    """How many operations take about as long as a sample should."""
    operations = 1
    while True:
        ns = sampler(operations).ns
        if ns >= target_ns / 4:
            # Perhaps it was only kept waiting.
            ns = min(ns, sampler(operations).ns, sampler(operations).ns)
        if ns >= target_ns / 4 or operations >= _MAX_OPERATIONS:
            return max(1, min(_MAX_OPERATIONS, round(operations * target_ns / max(ns, 1.0))))
        # What takes next to no time says little: at most ten times as many at once.
        operations *= int(min(10.0, max(2.0, target_ns / 2 / max(ns, 1.0))))


def reset_peak_rss() -> bool:
    """Has the kernel forget the peak so far; False where it will not."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_rss_kb() -> int:
    """The most memory this process has had in use since the last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


def run_rounds(samplers: Mapping[str, Sampler], operations: Mapping[str, int], rounds: int) -> dict[str, Rounds]:
    """Every sampler once in each round, in turn; each round begins with another one, so that no place is always first."""
    results = {name: Rounds(operations[name]) for name in samplers}
    names = list(samplers)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            results[name].samples.append(samplers[name](operations[name]))
    return results


def measure_memory(samplers: Mapping[str, Sampler], results: Mapping[str, Rounds], give_back: Callable[[], object]) -> None:
    """Fills in the peaks, in one round more: `give_back` makes the allocator return what the sampler before has left behind,
    and a sampler that begins with an empty heap is not a figure of its time."""
    for name, rounds in results.items():
        rounds.peak_rss_kb = max(sample.peak_rss_kb for sample in rounds.samples)
        if rounds.peak_rss_kb == 0:
            give_back()
            reset_peak_rss()
            samplers[name](rounds.operations)
            rounds.peak_rss_kb = peak_rss_kb()


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Ours over theirs: of the best rounds, and the median of the ratios within the rounds."""
    return {
        "best": min(ours) / min(theirs),
        "median": statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
    }
