"""The sample behind ``python -m pyruntime heap-stats``: a few threads that allocate, free each other's buffers, and die.

Each thread is seeded, and so does the same in every run with that seed; how the threads mix is the machine's. What a thread
has when it dies goes to the next one.
"""

from __future__ import annotations

import math
import os
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from pyruntime import _heap_report, heap
from pyruntime._records import MemoryStats
from pyruntime._text import counted
from pyruntime.heap import Buffer, Heap

if TYPE_CHECKING:
    from typing_extensions import Self

TURNS_OF_A_THREAD = 2000
KEPT_BY_A_THREAD = 500
ON_THE_WAY = 64
REFRESHES_PER_SECOND = 4

_CLEAR = "\x1b[H\x1b[J"


class Sample:
    """The workload, for a with statement: it runs inside of the block, and everything is freed after it.

    Three heaps: small buffers that live shortly, ones of all sizes, and a type-stable one. A buffer is freed by its own
    thread, or put on the way to whoever comes next.

    Many threads under one lock leave others, who have started them or look at the clock, waiting for seconds. So they begin
    when all have been started, and see for themselves when the time is up: then they stand still, with what they have, until
    the end of the block.
    """

    def __init__(
        self, threads: int, seed: int, seconds: float = math.inf, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.heaps = [Heap("messages", tag=1), Heap("frames", tag=2), Heap("nodes", tag=3, type_stable=True)]
        self.died = [0] * threads
        self._left: list[list[Buffer]] = [[] for _ in range(threads)]
        self._seed = seed
        self._seconds = seconds
        self._clock = clock
        self._started = math.inf
        self._go = threading.Event()
        self._on_the_way: deque[Buffer] = deque(maxlen=ON_THE_WAY)
        self._stop = threading.Event()
        self._keepers = [
            threading.Thread(target=self._keep_alive, args=(number,), name=f"sample {number}") for number in range(threads)
        ]

    def __enter__(self) -> Self:
        try:
            for keeper in self._keepers:
                keeper.start()
            self._started = self._clock()
            self._go.set()
        except BaseException:
            self._stop.set()  # those that have started must not keep the process from its end
            self._go.set()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        for keeper in self._keepers:
            keeper.join()
        self._on_the_way.clear()
        self._left.clear()
        for one in self.heaps:
            one.close()

    @property
    def elapsed(self) -> float:
        """Seconds since the threads began."""
        return self._clock() - self._started

    def _is_over(self) -> bool:
        if self.elapsed >= self._seconds:
            self._stop.wait()
        return self._stop.is_set()

    def _keep_alive(self, number: int) -> None:
        """One thread after another does the work of a place."""
        self._go.wait()
        while not self._is_over():
            choices = random.Random(f"{self._seed}, {number}, {self.died[number]}")
            worker = threading.Thread(target=self._work, args=(choices, self._left[number]), name=f"worker {number}")
            worker.start()
            worker.join()
            self.died[number] += 1

    def _allocate(self, choices: random.Random) -> Buffer:
        kind = choices.random()
        if kind < 0.6:
            return self.heaps[0].alloc(choices.randrange(16, 512))
        if kind < 0.9:
            return self.heaps[2].alloc(choices.choice((48, 96)))
        return self.heaps[1].alloc(1 << choices.randrange(9, 19), zero=False)

    def _work(self, choices: random.Random, mine: list[Buffer]) -> None:
        for _ in range(TURNS_OF_A_THREAD):
            if self._is_over():
                return
            buffer = self._allocate(choices)
            buffer[:1] = b"x"
            mine.append(buffer)
            if len(mine) > KEPT_BY_A_THREAD:
                place = choices.randrange(len(mine))
                mine[place], mine[-1] = mine[-1], mine[place]
                given = mine.pop()
                if choices.random() < 0.3:
                    self._on_the_way.append(given)


def _refreshes() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


@dataclass(frozen=True)
class Moment:
    """What there was to see at one time of the sample."""

    seconds: float
    threads: int
    seed: int
    threads_died: int
    memory: list[MemoryStats]

    def as_text(self) -> str:
        """The report for people."""
        have_died = f"{counted(self.threads_died, 'thread')} {'has' if self.threads_died == 1 else 'have'} died"
        title = f"{counted(self.threads, 'thread')} for {self.seconds:.1f} s, seed {self.seed}; {have_died}"
        return f"{title}\n\n{_heap_report.table(self.memory, [])}"


def run(seconds: float, threads: int, seed: int, *, shown: bool) -> Generator[Moment, None, None]:
    """Runs the sample for so long and gives how it stands, a few times in a second; the last one is of just before its end.
    `shown`: on a terminal it is drawn anew all the time meanwhile."""
    drawn = shown and _refreshes()
    try:
        with Sample(threads, seed, seconds) as sample:
            while True:
                elapsed = sample.elapsed
                moment = Moment(elapsed, threads, seed, sum(sample.died), heap.stats())
                if drawn:
                    print(_CLEAR + moment.as_text(), flush=True)
                yield moment
                if elapsed >= seconds:
                    break
                time.sleep(min(seconds - elapsed, 1 / REFRESHES_PER_SECOND))
    finally:
        if drawn:
            print(_CLEAR, end="")
