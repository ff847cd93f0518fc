"""The page of a run, in Markdown: a table for each benchmark, below the command that measures it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .suite import SUITE, Bench, Kind
from .table import COLUMNS, cells, footer, missed_text

QUICK_RUN, FULL_RUN = "quick run, short rounds: use it for a first look", "full run"

_INTRODUCTION = """\
# Results

One run of the benchmark suite, on the machine below; `python -m pyruntime bench --page FILE.md` writes such a page. Above
each table stands the command that measures it alone. In a round every implementation runs once, in turn. *best* and *median*
are times of one operation; *ours/it* is our time over that implementation's, of the best rounds, then the median of the
ratios within rounds: below 1 we are faster. With several threads all run the loop at once; the time is that of one operation
in each. A goal of the project stands in the row of the figure that it is about, *met* or *MISSED*.
"""

Results = Sequence[Mapping[str, Any]]


def _runs(bench: Bench, results: Results) -> Iterator[list[Mapping[str, Any]]]:
    """The results of a benchmark, one list for each number of threads that it was run with."""
    run: list[Mapping[str, Any]] = []
    for result in results:
        if result["bench"] != bench.name:
            continue
        if run and result["impl"] == run[0]["impl"]:
            yield run
            run = []
        run.append(result)
    if run:
        yield run


def _command(bench: Bench, runs: Sequence[Results], length: str) -> str:
    name = bench.group if bench.kind is Kind.MEAN else bench.name  # a mean is of what was measured in the same run
    threads = tuple(run[0]["threads"] for run in runs)
    wanted = f" --threads {','.join(map(str, threads))}" if bench.with_threads and threads != bench.threads else ""
    return f"python -m pyruntime bench {name}{wanted}{' --quick' if length == QUICK_RUN else ''}"


def _row(texts: Iterable[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def _goals(results: Results) -> Iterator[str]:
    """How many were met, and what was missed."""
    goals = [(result["bench"], goal) for result in results for goal in result.get("goals", ())]
    missed = [missed_text(bench, goal) for bench, goal in goals if not goal["met"]]
    yield f"\nGoals met: {len(goals) - len(missed)} of {len(goals)}{'; missed:' if missed else '.'}\n"
    yield from (f"- {line}" for line in missed)
    if missed:
        yield ""


def _section(bench: Bench, runs: Sequence[Results], length: str) -> Iterator[str]:
    yield f"### {bench.name}\n"
    yield f"{bench.measures[0].upper()}{bench.measures[1:]}.\n"
    yield f"```sh\n{_command(bench, runs, length)}\n```\n"
    columns = COLUMNS[1:]  # the first is the heading
    yield _row(title for title, _ in columns)
    yield _row("---:" if align == ">" else "---" for _, align in columns)
    for run in runs:
        for row in cells(bench, run[0]["threads"], run, {}):
            yield _row(row[1:])
    yield ""


def text(results: Results, machine: Mapping[str, Any], length: str, warnings: Sequence[str]) -> str:
    """The page. All arguments are as the JSON file has them.

    >>> ours = {"bench": "qsbr.quiescent", "impl": "pyruntime", "threads": 1, "ns_per_op": {"min": 0.6, "median": 0.7}}
    >>> machine = dict.fromkeys("pyruntime implementation python gil cpu cores system architecture libc".split(), "some")
    >>> page = text([ours], {**machine, "peers": {}, "load": 0.1, "date": "2027-01-31"}, FULL_RUN, [])
    >>> [line for line in page.splitlines() if line.startswith(("#", "python"))]
    ['# Results', '## qsbr', '### qsbr.quiescent', 'python -m pyruntime bench qsbr.quiescent']
    """
    lines = [_INTRODUCTION]
    lines += [f"- {line}" for line in footer(machine, length, warnings) if line]
    lines.append(f"- of {machine['date']}, with a load of {machine['load']:.1f} when it began")
    lines += _goals(results)
    group = ""
    for bench in SUITE:
        runs = list(_runs(bench, results))
        if not runs:
            continue
        if bench.group != group:
            group = bench.group
            lines.append(f"## {group}\n")
        lines += _section(bench, runs, length)
    return "\n".join(lines).rstrip("\n") + "\n"
