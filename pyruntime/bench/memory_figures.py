"""What is said of allocators: ours over the better of the others, in time and in memory, for each benchmark and as the
geometric mean of all."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import measure
from .suite import JEMALLOC, MIMALLOC, Bench, Figure

RIVALS = (MIMALLOC, JEMALLOC)


def add(bench: Bench, results: Sequence[dict[str, Any]]) -> None:
    """Adds to the rows of one benchmark what each had resident, and how all but the rivals stand beside the better of these:
    in time by the median of the ratios within the rounds, in memory only where that is a goal."""
    memory_counts = any(goal.figure is Figure.TO_LEANER for goal in bench.goals)
    rivals = [row for row in results if row["impl"] in RIVALS]
    for row in results:
        figures: dict[str, Any] = {"resident": {"max": row["peak_rss_kb"] * 1024}}
        if rivals and row["impl"] not in RIVALS:
            ratios = {rival["impl"]: measure.ratio(row["rounds"], rival["rounds"])["median"] for rival in rivals}
            faster = max(ratios, key=lambda impl: ratios[impl])
            figures["to_faster"] = {"peer": faster, "ratio": ratios[faster]}
            if memory_counts:
                leaner = min(rivals, key=lambda rival: float(rival["peak_rss_kb"]))
                figures["to_leaner"] = {"peer": leaner["impl"], "ratio": row["peak_rss_kb"] / leaner["peak_rss_kb"]}
        row["figures"] = figures


def _mean(values: Iterable[float]) -> float:
    return statistics.geometric_mean(list(values))


def _mean_row(bench: Bench, impl: str, mine: Sequence[Mapping[str, Any]], others: Iterable[str]) -> dict[str, Any]:
    memory = _mean(row["peak_rss_kb"] for row in mine)
    figures: dict[str, Any] = {"resident": {"max": memory * 1024}}
    for name in ("to_faster", "to_leaner"):
        ratios = [row["figures"][name]["ratio"] for row in mine if name in row["figures"]]
        if ratios:
            figures[name] = {"ratio": _mean(ratios)}
    return {
        "bench": bench.name,
        "impl": impl,
        "threads": 1,
        "ns_per_op": {which: _mean(row["ns_per_op"][which] for row in mine) for which in ("min", "median", "max")},
        "rounds": [_mean(values) for values in zip(*(row["rounds"] for row in mine), strict=False)],
        "ratio_to": {
            peer: {which: _mean(row["ratio_to"][peer][which] for row in mine) for which in ("best", "median")}
            for peer in others
        },
        "peak_rss_kb": round(memory),
        "operations": len(mine),
        "figures": figures,
    }


def mean_results(bench: Bench, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the means: of every implementation that has a figure in each of the benchmarks that were run."""
    by_bench: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        if "resident" in row.get("figures", {}):
            by_bench.setdefault(f"{row['bench']} {row['threads']}", {})[row["impl"]] = row
    complete = [impl for impl in bench.impls if by_bench and all(impl in found for found in by_bench.values())]
    if bench.ours not in complete:
        return []
    others = {bench.ours: [impl for impl in complete if impl != bench.ours]}
    return [_mean_row(bench, impl, [found[impl] for found in by_bench.values()], others.get(impl, ())) for impl in complete]
