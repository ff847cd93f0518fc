"""The plain values that pyruntime answers: what a thread, a stall, an interpreter looked like at one moment.

A module of its own, loaded when the first of them is needed: dataclasses cost more to import than all the rest of the
package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ThreadState = Literal["detached", "attached", "suspended", "shutting down"]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@dataclass(frozen=True)
class Stats:
    """Counters of one domain, from its beginning on, and what waits in it now.

    The list is PYRT_QSBR_STATS of ``qsbr.h``, and so is the order.
    """

    goals: int
    """Grace periods begun."""
    polls: int
    """Times that a goal was asked for."""
    scans: int
    """Of these, times that the readers had to be looked at."""
    synchronizes: int
    """Waits for a goal."""
    sleeps: int
    """Of these and of barriers, times that the thread went to sleep."""
    barriers: int
    """Barriers completed."""
    retired: int
    """Items retired, from Python and from C."""
    disposed: int
    """Items disposed of. A callable counts here when no reader can see it any more, shortly before it is called."""
    pending_items: int
    """Retired less disposed of."""
    pending_bytes: int
    """Their bytes, as given to retire()."""
    busy: int
    """Times that retire() answered False."""
    borrowed: int
    """Queues that barriers took from detached threads."""
    orphaned: int
    """Queues that threads left behind when they ended."""
    longest_grace_ns: int
    """The longest time from a goal to its being seen as reached, in nanoseconds."""


@dataclass(frozen=True)
class StallReport:
    """Who holds up the oldest goal of a domain that is not reached."""

    thread_id: int
    """The id of its state, as in :class:`ThreadInfo`."""
    thread_name: str
    """At most 31 bytes of its name."""
    os_thread_id: int
    """As :func:`threading.get_native_id` gives it."""
    interpreter_id: int
    goal: int
    """The value of the goal."""
    held_seconds: float
    """How long the goal has been waiting."""
    pending_items: int
    """What waits in the domain for this and later goals."""
    pending_bytes: int

    def __str__(self) -> str:
        seconds = self.held_seconds
        held = f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"
        waits = f"{_counted(self.pending_items, 'item')} ({_counted(self.pending_bytes, 'byte')})"
        if self.pending_items == 0:
            waits = "nothing"
        verb = "wait" if self.pending_items > 1 else "waits"
        who = f"thread '{self.thread_name}' (id {self.thread_id}, system id {self.os_thread_id})"
        return f"{who} has held up a goal for {held}; {waits} {verb} for it"


@dataclass(frozen=True)
class ThreadInfo:
    """A thread state, as it was at one moment."""

    id: int
    """Unique in the process, never used again."""
    name: str
    """The thread's name when it got its state; at most 31 bytes."""
    os_thread_id: int
    """As :func:`threading.get_native_id` gives it."""
    interpreter_id: int
    """Of the interpreter, which is the domain, that the state belongs to."""
    index: int
    """The smallest number that no other living state of the interpreter has."""
    state: ThreadState


@dataclass(frozen=True)
class PauseStats:
    """What the pauses of one domain, or those of everything, have cost since it was made. Times are in seconds.

    A percentile is told at most an eighth too long.
    """

    pauses: int
    """Pauses begun."""
    timed_out: int
    """Requests given up because a thread had not stopped in time."""
    turns_lost: int
    """Times that a thread which had waited for its turn was woken, came too late, and had to wait again."""
    time_to_stop_p50: float
    """From the request, when it had its turn, until all stood still: half of them took no longer."""
    time_to_stop_p99: float
    time_to_stop_max: float
    duration_p50: float
    """How long the world stood still."""
    duration_p99: float
    duration_max: float
    duration_total: float


@dataclass(frozen=True)
class InterpreterInfo:
    """One of pyruntime's interpreters.

    A Python interpreter's default domain, a :class:`~pyruntime.qsbr.Domain`, or one that C code has made.
    """

    id: int
    """Counted up from 0, the main one; not used again."""
    name: str
    whence: Literal["unknown", "the runtime", "a C extension", "Python code"]
    """Who made it."""


@dataclass(frozen=True)
class RuntimeInfo:
    """What runs here."""

    version: str
    """Of pyruntime's core."""
    abi_version: tuple[int, int]
    """Of the function table behind the capsule ``pyruntime._C_API``: major, minor."""
    uses_limited_api: bool
    """Whether the compiled part is one for all versions of Python (abi3)."""
    compiled_part: str
    """Its path."""
    python_version: str
    python_implementation: str
    gil_enabled: bool
    """Whether Python's threads take turns in this process."""
    platform: str
