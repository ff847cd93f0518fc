"""What a crossing from Python into C costs, measured in Python: a loop of calls, less the same loop without them."""

from __future__ import annotations

import contextlib
import math
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import repeat
from typing import Any

from pyruntime import qsbr, state
from pyruntime._core import lib

from .measure import Sample, Sampler
from .suite import LOCK, OURS, PYTHON_BLOCK, PYTHON_CALL

Block = Callable[[], AbstractContextManager[Any]]

_IN_A_ROW = 10  # statements in one turn of the loop


def _make_loop(statement: str, names: dict[str, object]) -> Callable[[int], None]:
    """A function that runs the statement _IN_A_ROW times in each turn. The names are its local variables, as in a user's
    function that has bound what it calls."""
    body = textwrap.indent((statement + "\n") * _IN_A_ROW, " " * 8)
    source = f"def loop(turns, {', '.join(names)}):\n    for _ in repeat(None, turns):\n{body}"
    scope: dict[str, object] = {"repeat": repeat}
    exec(source, scope)
    loop = scope["loop"]
    assert callable(loop)
    return lambda turns: loop(turns, *names.values())


def _empty_loop(turns: int) -> None:
    for _ in repeat(None, turns):
        pass


def _seconds_of(loop: Callable[[int], None], turns: int) -> float:
    start = time.perf_counter()
    loop(turns)
    return time.perf_counter() - start


def statement_sampler(statement: str, block: Block = contextlib.nullcontext, /, **names: object) -> Sampler:
    """One operation is the statement once; the loop runs inside of the block."""
    loop = _make_loop(statement, names)
    # Of one turn that does nothing. Only the least of all samples can be taken off: one that was held up would make the
    # statement look as if it cost nothing.
    empty_turn = math.inf

    def sample(operations: int) -> Sample:
        nonlocal empty_turn
        turns = -(-operations // _IN_A_ROW)
        with block():
            seconds = _seconds_of(loop, turns)
            empty_turn = min(empty_turn, _seconds_of(_empty_loop, turns) / turns)
            # Of very few turns the empty ones may take longer; a time is positive all the same.
            ns = max(1.0, 1e9 * (seconds - turns * empty_turn))
        return Sample(ns * operations / (turns * _IN_A_ROW))

    return sample


def _python0() -> int:
    return 0


def _python1(a: int) -> int:
    return a


def _python2(a: int, b: int) -> int:
    return a + b


class _Block:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: object) -> None:
        pass


def _calls_of(
    ours: object, pythons: object, arguments: str, block: Block = contextlib.nullcontext, /, **values: object
) -> dict[str, Sampler]:
    statement = f"f({arguments})"
    return {
        OURS: statement_sampler(statement, block, f=ours, **values),
        PYTHON_CALL: statement_sampler(statement, f=pythons, **values),
    }


def _blocks() -> dict[str, Sampler]:
    return {
        OURS: statement_sampler("with make(): pass", make=qsbr.reading),
        LOCK: statement_sampler("with lock: pass", lock=threading.Lock()),
        PYTHON_BLOCK: statement_sampler("with make(): pass", make=_Block),
    }


def samplers(bench: str) -> dict[str, Sampler]:
    """By implementation."""
    if bench == "call.cffi0":
        return _calls_of(lib.pyrt_bench_call0, _python0, "")
    if bench == "call.cffi1":
        return _calls_of(lib.pyrt_bench_call1, _python1, "a", a=5)
    if bench == "call.cffi2":
        return _calls_of(lib.pyrt_bench_call2, _python2, "a, b", a=5, b=6)
    if bench == "call.quiescent":
        return _calls_of(qsbr.quiescent, _python0, "", state.attached)
    if bench == "call.poll":
        return _calls_of(qsbr.poll, _python1, "goal", goal=qsbr.advance())
    if bench == "call.reading":
        return _blocks()
    raise ValueError(f"no call benchmark {bench!r}")
