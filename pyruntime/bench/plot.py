"""The picture of a run, as SVG: a row for each benchmark, with our time over that of each peer, and how sure the rounds are.

Needs matplotlib, which the extra ``bench`` brings. The same results make the same file, to the byte.
"""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyruntime._text import time_text

# In a checkout that is what stands there, not what has been published.
_CHECKOUT = (Path(__file__).parents[2] / "pyproject.toml").exists()
INSTALL = "pip install -e '.[bench]'" if _CHECKOUT else "pip install 'pyruntime-ft[bench]'"

_WIDTH, _MARGINS, _ROW, _PEER = 9.0, 1.4, 0.1, 0.09  # inches: a row, and each peer in it
_PEERS_IN_A_LINE = 5

# Colours that the colour-blind can tell apart, and with each round of them another mark.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MARKS = ("o", "s", "^", "D")


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


@dataclass(frozen=True)
class Row:
    """A benchmark in the picture: what we took, and what became of each peer."""

    title: str
    ours_ns: float
    lines: tuple[Ratio, ...]


def rows(results: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows, in the order of the results. Ourselves in another guise, such as preloaded, is no peer here."""
    found: dict[tuple[str, int], list[Ratio]] = {}
    for line in ratios(results):
        if not line.peer.startswith("pyruntime"):
            found.setdefault((line.bench, line.threads), []).append(line)
    ours = {(row["bench"], row["threads"]): row["ns_per_op"]["median"] for row in results if row["ratio_to"]}
    return [
        Row(bench if threads == 1 else f"{bench}, {threads} threads", ours[bench, threads], tuple(lines))
        for (bench, threads), lines in found.items()
    ]


def _height(row: Row) -> float:
    return _ROW + _PEER * len(row.lines)


def _draw_row(axes: Any, place: float, row: Row, styles: Mapping[str, Mapping[str, Any]]) -> None:
    for number, line in enumerate(row.lines):
        low, high = min(line.low, line.median), max(line.high, line.median)
        axes.errorbar(
            [line.median],
            [place + (number - (len(row.lines) - 1) / 2) * _PEER],
            xerr=[[line.median - low], [high - line.median]],
            markersize=4,
            elinewidth=0.9,
            zorder=3,
            **styles[line.peer],
        )
    axes.annotate(
        time_text(row.ours_ns),
        (1.0, place),
        xycoords=("axes fraction", "data"),
        xytext=(6, 0),
        textcoords="offset points",
        verticalalignment="center",
        annotation_clip=False,
    )


def _draw_rows(axes: Any, drawn: Sequence[Row], styles: Mapping[str, Mapping[str, Any]]) -> None:
    """Every second row on grey. The axis goes down in inches."""
    top = 0.0
    places = []
    for number, row in enumerate(drawn):
        bottom = top + _height(row)
        if number % 2:
            axes.axhspan(top, bottom, color="#f4f4f4", linewidth=0, zorder=0)
        places.append((top + bottom) / 2)
        _draw_row(axes, places[-1], row, styles)
        top = bottom
    axes.set_yticks(places, [row.title for row in drawn])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(top, 0)


def _finish_axes(axes: Any, tickers: Any) -> None:
    axes.axvline(1, color="black", linewidth=0.9, zorder=2)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(tickers.LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(tickers.NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_title("faster \N{LEFTWARDS ARROW} our time over the peer's \N{RIGHTWARDS ARROW} slower", fontsize=9)
    axes.annotate(
        "ours", (1.0, 1.0), xycoords="axes fraction", xytext=(6, 4), textcoords="offset points", annotation_clip=False
    )


def draw(results: Sequence[Mapping[str, Any]], machine: Mapping[str, Any], file: Path) -> None:
    """Writes the picture. Raises PlotError where there is no ratio, and OSError."""
    check()
    matplotlib = importlib.import_module("matplotlib")
    figures = importlib.import_module("matplotlib.figure")
    tickers = importlib.import_module("matplotlib.ticker")
    drawn = rows(results)
    if not drawn:
        raise PlotError("there is nothing to draw: no benchmark of this run was compared with anybody")
    peers = list(dict.fromkeys(line.peer for row in drawn for line in row.lines))
    styles = {
        peer: {
            "color": _COLOURS[number % len(_COLOURS)],
            "fmt": _MARKS[number // len(_COLOURS) % len(_MARKS)],
            "label": peer,
        }
        for number, peer in enumerate(peers)
    }
    with matplotlib.rc_context({"svg.hashsalt": "pyruntime", "svg.fonttype": "none", "font.size": 8}):
        figure = figures.Figure(figsize=(_WIDTH, _MARGINS + sum(map(_height, drawn))), layout="constrained")
        axes = figure.add_subplot()
        _draw_rows(axes, drawn, styles)
        _finish_axes(axes, tickers)
        handles, labels = axes.get_legend_handles_labels()
        by_peer = dict(zip(labels, handles, strict=True))
        figure.legend(
            by_peer.values(),
            by_peer.keys(),
            loc="outside upper center",
            ncols=min(len(peers), _PEERS_IN_A_LINE),
            frameon=False,
        )
        axes.set_xlabel(
            "marks: the medians of the rounds; bars: all of them but the outermost tenths; on the right our own medians\n"
            f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, pyruntime {machine['pyruntime']}"
        )
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": "python -m pyruntime bench"})
