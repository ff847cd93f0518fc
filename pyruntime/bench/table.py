"""The report on the terminal: one line for each benchmark, number of threads and implementation, and a footer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pyruntime._text import bytes_text, time_text

from .suite import Bench, Figure


def _more_text(ns: float) -> str:
    """A difference, with its sign."""
    return f"+{time_text(ns)}" if ns >= 0 else time_text(ns)


def figure_text(figures: Mapping[str, Any]) -> str:
    """What a row has to say beside its times."""
    parts = []
    if "cores" in figures:
        parts.append(f"{figures['cores']['median']:.2f} cores")
    if "scaling" in figures:
        parts.append(f"{figures['scaling']['median']:.2f} of the control's")
    if "peak_bytes" in figures:
        peak = figures["peak_bytes"]
        parts.append(f"peak {bytes_text(peak['max'])} (median {bytes_text(peak['median'])})")
    if "over_bare" in figures:
        over = figures["over_bare"]
        parts.append(f"{_more_text(over['best'])} (median {_more_text(over['median'])})")
    if "least_share" in figures:
        least, most = figures["least_share"], figures["most_share"]
        parts.append(f"{least['median']:.0%} to {most['median']:.0%} each ({least['min']:.0%} to {most['max']:.0%})")
    if "p50_ns" in figures:
        parts.append(
            f"p50 {time_text(figures['p50_ns']['median'])}, p99 {time_text(figures['p99_ns']['median'])}, "
            f"longest {time_text(figures['max_ns']['max'])}"
        )
    if "resident" in figures:
        parts.append(bytes_text(figures["resident"]["max"]))
    for name, what in (("to_faster", "the faster"), ("to_leaner", "the leaner")):
        if name in figures:
            peer = f", {figures[name]['peer']}" if "peer" in figures[name] else ""
            parts.append(f"{figures[name]['ratio']:.2f}x {what}{peer}")
    if "refused" in figures:
        parts.append(f"{round(figures['refused']['max'])} refused")
    return ", ".join(parts)


def _amount_text(figure: Figure, amount: float, digits: int = 2) -> str:
    """A figure of a goal, or its limit."""
    if figure in (Figure.RATIO, Figure.RATIO_MEDIAN, Figure.TO_FASTER, Figure.TO_LEANER, Figure.PEER_TO_OURS):
        return f"{amount:.{digits}f}x"
    if figure is Figure.SCALING:
        return f"{amount:.{digits}f}"
    if figure is Figure.LEAST_SHARE:
        return f"{amount:.0%}"
    if figure is Figure.PEAK_BYTES:
        return bytes_text(amount)
    return (_more_text if figure in (Figure.OVER_BARE, Figure.PEER_OVER_OURS) else time_text)(amount)


# What the figure of a goal is called: in its row, beside the figure, and in the footer, far away from it.
_IN_ROW = {
    Figure.PEAK_BYTES: "peak ",
    Figure.P50: "p50 ",
    Figure.LEAST_SHARE: "each ",
    Figure.RATIO_MEDIAN: "median ",
    Figure.TO_FASTER: "time ",
    Figure.TO_LEANER: "memory ",
    Figure.PEER_TO_OURS: "it/ours ",
}
_IN_FOOTER = {
    Figure.RATIO: ", over {peer}",
    Figure.RATIO_MEDIAN: ", over {peer}, median",
    Figure.PEAK_BYTES: ", peak",
    Figure.OVER_BARE: ", over bare",
    Figure.P50: ", p50",
    Figure.LEAST_SHARE: ", of the thread with the least",
    Figure.SCALING: ", of the control's cores, median",
    Figure.TO_FASTER: ", over the faster of the others, median",
    Figure.TO_LEANER: ", memory over the leaner of the others",
    Figure.TIME_OF_PEER: ", {peer}",
    Figure.PEER_OVER_OURS: ", {peer} over ours",
    Figure.PEER_TO_OURS: ", {peer} over ours",
}


def goal_text(goal: Mapping[str, Any]) -> str:
    """A goal in its row."""
    figure = Figure(goal["figure"])
    relation = ">=" if figure.is_floor else "<="
    verdict = "met" if goal["met"] else "MISSED"
    return f"{_IN_ROW.get(figure, '')}{relation} {_amount_text(figure, goal['limit'])} {verdict}"


def missed_text(bench: str, goal: Mapping[str, Any]) -> str:
    """A missed goal in the footer."""
    figure = Figure(goal["figure"])
    what = _IN_FOOTER.get(figure, "").format(peer=goal["peer"])
    is_, wanted = (_amount_text(figure, amount, 3) for amount in (goal["value"], goal["limit"]))
    return f"{bench}{what}: {is_}, wanted {wanted} or {'more' if figure.is_floor else 'less'}"


def _goals_of(impl: str, bench: Bench, goals: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """A goal stands where its figure does: what is over bare in our row, all else that has a peer in the peer's."""
    for goal in goals:
        is_of_peer = goal["peer"] is not None and Figure(goal["figure"]) is not Figure.OVER_BARE
        if impl == (goal["peer"] if is_of_peer else bench.ours):
            yield goal


# The titles of the columns, and to which side each is set.
COLUMNS = (
    ("benchmark", "<"),
    ("threads", ">"),
    ("implementation", "<"),
    ("best", ">"),
    ("median", ">"),
    ("ours/it", ">"),
    ("median", ">"),
    ("goal", "<"),
)

Cells = tuple[str, str, str, str, str, str, str, str]


def cells(bench: Bench, threads: int, results: Sequence[Mapping[str, Any]], absent: Mapping[str, str]) -> Iterator[Cells]:
    """The rows of a benchmark. `absent`: for each implementation that has no result, why."""
    by_impl = {result["impl"]: result for result in results}
    ours = by_impl.get(bench.ours, {})
    goals: Sequence[Mapping[str, Any]] = ours.get("goals", ())
    name, shown_threads = bench.name, str(threads)
    for impl in bench.impls:
        if impl in by_impl:
            ratio = ours.get("ratio_to", {}).get(impl)
            yield _cells(name, shown_threads, by_impl[impl], ratio, _goals_of(impl, bench, goals))
        elif impl in absent:
            yield (name, shown_threads, impl, absent[impl], "", "", "", "")
        else:
            continue
        name = shown_threads = ""


def _cells(
    name: str,
    threads: str,
    result: Mapping[str, Any],
    ratio: Mapping[str, float] | None,
    goals: Iterable[Mapping[str, Any]],
) -> Cells:
    notes = [figure_text(result.get("figures", {}))]
    notes += [goal_text(goal) for goal in goals]
    return (
        name,
        str(result["threads"]) if threads else "",
        result["impl"],
        time_text(result["ns_per_op"]["min"]),
        time_text(result["ns_per_op"]["median"]),
        f"{ratio['best']:.2f}x" if ratio else "",
        f"{ratio['median']:.2f}x" if ratio else "",
        "; ".join(filter(None, notes)),
    )


class Table:
    """Lays out rows as they come: the widths are those of the names that may come, so that no row waits for the next."""

    def __init__(self, benches: Sequence[Bench]) -> None:
        impls = {impl for bench in benches for impl in bench.impls}
        names = max(len("benchmark"), *(len(bench.name) for bench in benches))
        self._widths = (names, 7, max(len("implementation"), *map(len, impls)), 8, 8, 7, 7, 0)

    def _line(self, texts: Iterable[str]) -> str:
        padded = (f"{text:{align}{width}}" for text, (_, align), width in zip(texts, COLUMNS, self._widths, strict=True))
        return "  ".join(padded).rstrip()

    def header(self) -> list[str]:
        line = self._line(title for title, _ in COLUMNS)
        return [line, "-" * max(len(line) + 20, 100)]

    def rows(
        self, bench: Bench, threads: int, results: Sequence[Mapping[str, Any]], absent: Mapping[str, str]
    ) -> Iterator[str]:
        """The lines of a benchmark; the arguments are those of cells()."""
        return map(self._line, cells(bench, threads, results, absent))


def footer(machine: Mapping[str, Any], rounds: str, warnings: Sequence[str]) -> list[str]:
    gil = "with the GIL" if machine["gil"] else "without the GIL"
    return [
        "",
        f"pyruntime {machine['pyruntime']}, {machine['implementation']} {machine['python']} {gil}",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']} {machine['architecture']}, {machine['libc']}",
        *(f"peer {name} {version}" for name, version in machine["peers"].items()),
        rounds,
        *(f"warning: {warning}" for warning in warnings),
    ]
