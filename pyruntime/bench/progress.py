"""How far a run is, on a terminal. The rows of the report go to standard output whether there is one or not.

The bar is drawn on standard error, by tqdm, which the extra ``bench`` brings: only where that is a terminal, and not while
anything is printed. Without tqdm there is none.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

_FORMAT = "{n_fmt}/{total_fmt} {bar:24} {elapsed}  {desc}"


def _make_bar(total: int) -> Any:
    if not sys.stderr.isatty():
        return None
    try:
        tqdm = importlib.import_module("tqdm").tqdm
    except ImportError:
        return None
    tqdm.monitor_interval = 0  # no thread of its own beside what is measured
    return tqdm(total=total, file=sys.stderr, leave=False, bar_format=_FORMAT)


class Progress:
    """The run of so many benchmarks; close it in the end."""

    def __init__(self, total: int) -> None:
        self._bar = _make_bar(total)

    def close(self) -> None:
        """The run is over."""
        if self._bar is not None:
            self._bar.close()

    def begin(self, name: str) -> None:
        """This one runs now."""
        if self._bar is not None:
            self._bar.set_description_str(name)

    def end(self) -> None:
        """It has been run."""
        if self._bar is not None:
            self._bar.update()

    def print(self, line: str) -> None:
        """A line of the report."""
        if self._bar is None:
            print(line, flush=True)
        else:
            self._bar.write(line, file=sys.stdout)
            sys.stdout.flush()
