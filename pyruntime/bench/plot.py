"""The picture of a run, as SVG: how our time compares with that of every peer, with what the rounds say of how sure that is.

Needs matplotlib, which the extra ``bench`` brings. The same results make the same file, to the byte.
"""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INSTALL = "pip install 'pyruntime-ft[bench]'"

_ROW_HEIGHT, _MARGINS, _WIDTH = 0.21, 1.5, 9.0  # inches
_FASTER, _SLOWER = "#1f6f8b", "#c8553d"


class PlotError(RuntimeError):
    """There is nothing to draw, or nothing to draw it with; the message says what to do."""


@dataclass(frozen=True)
class Ratio:
    """One line of the picture: ours over a peer, in the median round and in all but the outermost tenths of them."""

    bench: str
    threads: int
    peer: str
    low: float
    median: float
    high: float


def _tenths(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    return tenths[0], tenths[-1]


def ratios(results: Sequence[Mapping[str, Any]]) -> list[Ratio]:
    """The lines, in the order of the results. `results` is that of the JSON file.

    >>> ours = {"bench": "a.b", "impl": "pyruntime", "threads": 1, "rounds": [1.0, 3.0], "ratio_to": {"peer": {}}}
    >>> theirs = {"bench": "a.b", "impl": "peer", "threads": 1, "rounds": [2.0, 2.0], "ratio_to": {}}
    >>> [line.median for line in ratios([ours, theirs])]
    [1.0]
    """
    # The halves of one figure, one thread and two, are no peers of each other: their numbers of threads differ.
    rounds = {(row["bench"], row["threads"], row["impl"]): row["rounds"] for row in results}
    lines = []
    for row in results:
        for peer in row["ratio_to"]:
            theirs = rounds.get((row["bench"], row["threads"], peer))
            if theirs is None:
                continue
            each = [ours / its for ours, its in zip(row["rounds"], theirs, strict=False)]
            low, high = _tenths(each)
            lines.append(Ratio(row["bench"], row["threads"], peer, low, statistics.median(each), high))
    return lines


def check() -> None:
    """Raises PlotError where matplotlib is missing: better before everything is measured than after."""
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise PlotError(f"--plot needs matplotlib: {INSTALL} ({error})") from error


def _titles(lines: Sequence[Ratio]) -> list[str]:
    """The name of the benchmark at the first of its lines, and the peer at each."""
    titles = []
    before = None
    for line in lines:
        name = line.bench if line.threads == 1 else f"{line.bench}, {line.threads} threads"
        titles.append(line.peer if name == before else f"{name}    {line.peer}")
        before = name
    return titles


def draw(results: Sequence[Mapping[str, Any]], machine: Mapping[str, Any], file: Path) -> None:
    """Writes the picture. Raises PlotError where there is no ratio, and OSError."""
    check()
    matplotlib = importlib.import_module("matplotlib")
    figures = importlib.import_module("matplotlib.figure")
    lines = ratios(results)
    if not lines:
        raise PlotError("there is nothing to draw: no benchmark of this run was compared with anybody")
    with matplotlib.rc_context({"svg.hashsalt": "pyruntime", "svg.fonttype": "none", "font.size": 8}):
        figure = figures.Figure(figsize=(_WIDTH, _MARGINS + _ROW_HEIGHT * len(lines)), layout="constrained")
        axes = figure.add_subplot()
        for place, line in enumerate(lines):
            axes.errorbar(
                [line.median],
                [place],
                xerr=[[line.median - min(line.low, line.median)], [max(line.high, line.median) - line.median]],
                fmt="o",
                markersize=4,
                capsize=2,
                color=_FASTER if line.median <= 1 else _SLOWER,
            )
            if place > 0 and lines[place - 1].bench != line.bench:
                axes.axhline(place - 0.5, color="#dddddd", linewidth=0.5)
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
        axes.tick_params(axis="x", top=True, labeltop=True)
        axes.grid(axis="x", color="#eeeeee")
        axes.set_axisbelow(True)
        axes.set_yticks(range(len(lines)), _titles(lines))
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.set_xlabel(
            "our time over the peer's: left of 1x we are faster\n"
            "the median of the rounds, and all of them but the outermost tenths\n"
            f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, pyruntime {machine['pyruntime']}"
        )
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": "python -m pyruntime bench"})
