"""Writes the table of memory in the README anew, from the run that is recorded beside this file in heap.json."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyruntime._text import time_text
from pyruntime.bench.suite import SUITE

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
HEAD = (
    "| `bench heap.` | ours | mimalloc | jemalloc | time, to the faster | memory, to the leaner |\n"
    "|---|---|---|---|---|---|\n"
)
TABLE = re.compile(re.escape(HEAD) + r"(\|[^\n]*\n)*")


def _ratio(figures: Mapping[str, Any], name: str) -> str:
    return f"{figures[name]['ratio']:.2f}" if name in figures else ""


def table(results: list[dict[str, Any]]) -> str:
    """A row for each benchmark that compares allocators, by the medians of the rounds."""
    measures = {bench.name: bench.measures for bench in SUITE}
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for result in results:
        rows.setdefault(result["bench"], {})[result["impl"]] = result
    lines = []
    for name, impls in rows.items():
        if not {"pyruntime", "mimalloc", "jemalloc"} <= impls.keys():
            continue
        times = [time_text(impls[impl]["ns_per_op"]["median"]) for impl in ("pyruntime", "mimalloc", "jemalloc")]
        figures = impls["pyruntime"].get("figures", {})
        words = f"`{name.removeprefix('heap.')}`: {measures[name]}"
        ratios = [_ratio(figures, "to_faster"), _ratio(figures, "to_leaner")]
        lines.append("| " + " | ".join([words, *times, *ratios]) + " |\n")
    return HEAD + "".join(lines)


def main() -> None:
    """Does it."""
    recorded = json.loads((HERE / "heap.json").read_text())
    README.write_text(TABLE.sub(lambda _: table(recorded["results"]), README.read_text()))


if __name__ == "__main__":
    main()
