"""One benchmark in a process of its own, ``python -m pyruntime.bench.worker``: the order comes in as JSON on standard input,
the results go out as JSON on standard output.

A process of its own, so that no benchmark sees the heap, the helper threads or the crash of another, and so that peers'
libraries can be preloaded: they keep their thread-local variables where the threads of a program have them, and a library
that comes later finds no room there.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from . import import_time, machine, measure, memory_figures, native, own_process, python_calls, python_classes
from .suite import CONTROL_ONE, CONTROL_TWO, GLIBC, ONE_THREAD, OURS, SUITE, TWO_THREADS, Bench, Figure, Goal, Kind


@dataclass(frozen=True)
class Order:
    """What to run."""

    bench: str
    threads: int
    impls: tuple[str, ...]
    rounds: int
    sample_ns: float
    operations: int | None = None
    libraries: Mapping[str, str] = field(default_factory=dict)  # peers' shared libraries, by the peer's name
    allocators: Mapping[str, str] = field(default_factory=dict)  # the same, of those that take the place of malloc

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Order:
        fields = json.loads(text)
        return cls(**{**fields, "impls": tuple(fields["impls"])})


def _threads_of(impl: str, order: Order) -> int:
    return {ONE_THREAD: 1, TWO_THREADS: 2, CONTROL_ONE: 1, CONTROL_TWO: 2}.get(impl, order.threads)


def _loop_of(impl: str, bench: Bench) -> tuple[str, str]:
    """Benchmark and implementation of the loop that is run for an implementation."""
    if impl in (CONTROL_ONE, CONTROL_TWO):
        return "control.cores", OURS
    return bench.name, OURS if impl in (ONE_THREAD, TWO_THREADS) else impl


def _measure(order: Order, samplers: Mapping[str, measure.Sampler]) -> dict[str, measure.Rounds]:
    operations = {
        name: order.operations or measure.calibrate(sampler, order.sample_ns) for name, sampler in samplers.items()
    }
    results = measure.run_rounds(samplers, operations, order.rounds)
    measure.measure_memory(samplers, results, native.give_memory_back)
    return results


def _measure_loops(bench: Bench, order: Order) -> tuple[dict[str, measure.Rounds], dict[str, str]]:
    cpus = machine.cpu_order()
    loops = native.compiled_in()
    of_peers, errors = native.of_libraries(order.libraries)
    loops.update(of_peers)
    failed = {impl: errors[impl] for impl in order.impls if impl in errors}
    with contextlib.ExitStack() as stack:
        samplers = {}
        for impl in order.impls:
            loop = loops.get(_loop_of(impl, bench))
            if loop is None:
                failed.setdefault(impl, "has no such loop")
                continue
            samplers[impl] = stack.enter_context(loop.sampler(_threads_of(impl, order), cpus))
        return _measure(order, samplers), failed


def _measure_allocators(bench: Bench, order: Order) -> tuple[dict[str, measure.Rounds], dict[str, str]]:
    failed = {}
    with contextlib.ExitStack() as stack:
        samplers = {}
        for impl in order.impls:
            preload = None if impl == OURS else "" if impl == GLIBC else order.allocators[impl]
            sampler = stack.enter_context(own_process.sampler(bench.name, preload, order.threads))
            try:
                sampler(1)
            except own_process.ProcessFailed as error:
                failed[impl] = str(error)
            else:
                samplers[impl] = sampler
        return _measure(order, samplers), failed


def _measure_any(bench: Bench, order: Order) -> tuple[dict[str, measure.Rounds], dict[str, str]]:
    if bench.kind in (Kind.LOOP, Kind.CORES, Kind.SCALING):
        return _measure_loops(bench, order)
    if bench.kind is Kind.ALLOCATOR:
        return _measure_allocators(bench, order)
    if bench.name in python_classes.MAKERS:
        made, failed = python_classes.samplers(bench.name, order.impls)
        return _measure(order, made), failed
    samplers = import_time.samplers() if bench.kind is Kind.IMPORT else python_calls.samplers(bench.name)
    return _measure(order, {impl: samplers[impl] for impl in order.impls}), {}


def _cores(one: measure.Rounds, two: measure.Rounds) -> list[float]:
    """How much two threads got done in the time of one, round by round."""
    return [2 * alone / each for alone, each in zip(one.ns_per_op, two.ns_per_op, strict=True)]


def _figures(bench: Bench, impl: str, done: Mapping[str, measure.Rounds]) -> dict[str, Any]:
    """What a row says beside its times."""
    figures: dict[str, Any] = {}
    rounds = done[impl]
    if any(sample.peak_bytes >= 0 for sample in rounds.samples):
        figures["peak_bytes"] = measure.spread([sample.peak_bytes for sample in rounds.samples])
    if any(sample.refused for sample in rounds.samples):
        figures["refused"] = measure.spread([sample.refused for sample in rounds.samples])
    shares = [sample.shares for sample in rounds.samples if sample.shares is not None]
    if shares:
        figures["least_share"] = measure.spread([each.least for each in shares])
        figures["most_share"] = measure.spread([each.most for each in shares])
    singles = [sample.singles for sample in rounds.samples if sample.singles is not None]
    if singles:
        figures["p50_ns"] = measure.spread([each.p50 for each in singles])
        figures["p99_ns"] = measure.spread([each.p99 for each in singles])
        figures["max_ns"] = measure.spread([each.max for each in singles])
    if impl == TWO_THREADS and ONE_THREAD in done:
        cores = _cores(done[ONE_THREAD], rounds)
        figures["cores"] = measure.spread(cores)
        if CONTROL_TWO in done and CONTROL_ONE in done:
            control = _cores(done[CONTROL_ONE], done[CONTROL_TWO])
            pairs = zip(cores, control, strict=True)
            figures["scaling"] = measure.spread([ours / there for ours, there in pairs])
    if impl == bench.ours and bench.bare is not None and bench.bare in done:
        bare = done[bench.bare].ns_per_op
        extra = measure.spread([with_it - without for with_it, without in zip(rounds.ns_per_op, bare, strict=True)])
        extra["best"] = min(rounds.ns_per_op) - min(bare)
        figures["over_bare"] = {name: value / bench.bare_units for name, value in extra.items()}
    return figures


# Which of its figures a goal is about, and of which rounds.
_FIGURE_OF_GOAL = {
    Figure.PEAK_BYTES: ("peak_bytes", "max"),
    Figure.OVER_BARE: ("over_bare", "best"),
    Figure.LEAST_SHARE: ("least_share", "median"),
    Figure.SCALING: ("scaling", "median"),
    Figure.P50: ("p50_ns", "median"),
    Figure.TO_FASTER: ("to_faster", "ratio"),
    Figure.TO_LEANER: ("to_leaner", "ratio"),
}

# What it is, from our best time and the ratio of that to the peer's.
_OF_PEER: Mapping[Figure, Callable[[float, float], float]] = {
    Figure.TIME_OF_PEER: lambda ours, ratio: ours / ratio,
    Figure.PEER_OVER_OURS: lambda ours, ratio: ours / ratio - ours,
    Figure.PEER_TO_OURS: lambda _, ratio: 1 / ratio,
}


def _goal(goal: Goal, result: Mapping[str, Any]) -> dict[str, Any] | None:
    """The goal as it stands after this run; None if what it is about was not measured."""
    if goal.figure is Figure.TIME:
        value = result["ns_per_op"]["min"]
    elif goal.figure in (Figure.RATIO, Figure.RATIO_MEDIAN):
        value = result["ratio_to"].get(goal.peer, {}).get("best" if goal.figure is Figure.RATIO else "median")
    elif goal.figure in _OF_PEER:
        ratio = result["ratio_to"].get(goal.peer, {}).get("best")
        value = None if ratio is None else _OF_PEER[goal.figure](result["ns_per_op"]["min"], ratio)
    else:
        name, which = _FIGURE_OF_GOAL[goal.figure]
        value = result.get("figures", {}).get(name, {}).get(which)
    if value is None:
        return None
    met = value >= goal.limit if goal.figure.is_floor else value <= goal.limit
    return {"figure": goal.figure.value, "peer": goal.peer, "limit": goal.limit, "value": value, "met": met}


def goals_of(bench: Bench, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The goals of our row, as far as what they are about was measured."""
    return [goal for goal in (_goal(goal, result) for goal in bench.goals) if goal is not None]


def results_of(bench: Bench, order: Order, done: Mapping[str, measure.Rounds]) -> list[dict[str, Any]]:
    """The results in the form of the JSON file, in the order of the implementations."""
    results = []
    for impl in (impl for impl in order.impls if impl in done):
        times = done[impl].ns_per_op
        result: dict[str, Any] = {
            "bench": bench.name,
            "impl": impl,
            "threads": _threads_of(impl, order),
            "ns_per_op": measure.spread(times),
            "rounds": times,
            "ratio_to": {},
            "peak_rss_kb": done[impl].peak_rss_kb,
            "operations": done[impl].operations,
        }
        if impl == bench.ours:
            result["ratio_to"] = {
                peer: measure.ratio(times, done[peer].ns_per_op)
                for peer in order.impls
                if peer in done and peer != bench.ours
            }
        figures = _figures(bench, impl, done)
        if figures:
            result["figures"] = figures
        results.append(result)
    if bench.kind is Kind.ALLOCATOR:
        memory_figures.add(bench, results)
    for result in results:
        goals = goals_of(bench, result) if result["impl"] == bench.ours and order.threads in bench.threads else []
        if goals:
            result["goals"] = goals
    return results


def run(order: Order) -> dict[str, Any]:
    bench = next(bench for bench in SUITE if bench.name == order.bench)
    done, failed = _measure_any(bench, order)
    return {"results": results_of(bench, order, done), "failed": failed}


def main() -> None:
    answer = run(Order.from_json(sys.stdin.read()))
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
