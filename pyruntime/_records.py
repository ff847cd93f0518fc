"""The plain values that pyruntime answers: what a thread, a stall, an interpreter looked like at one moment.

A module of its own, loaded when the first of them is needed: dataclasses cost more to import than all the rest of the
package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pyruntime._text import counted

ThreadState = Literal["detached", "attached", "suspended", "shutting down"]


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
    """The longest time from seeing a goal not reached to seeing it reached, in ns; a wait of few looks is not timed."""


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
    """What was retired in the domain and waits for this and later goals."""
    pending_bytes: int
    heap_bytes: int
    """Memory of heaps that waits for readers, as ``held_bytes`` of :class:`MemoryStats`: a barrier gives that back, too."""

    def __str__(self) -> str:
        seconds = self.held_seconds
        held = f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"
        waiting = []
        if self.pending_items:
            waiting.append(f"{counted(self.pending_items, 'item')} ({counted(self.pending_bytes, 'byte')})")
        if self.heap_bytes:
            waiting.append(f"{counted(self.heap_bytes, 'byte')} of heaps")
        verb = "wait" if self.pending_items > 1 or self.heap_bytes else "waits"
        who = f"thread '{self.thread_name}' (id {self.thread_id}, system id {self.os_thread_id})"
        return f"{who} has held up a goal for {held}; {' and '.join(waiting) or 'nothing retired'} {verb} for it"


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
class RefcountStats:
    """What counting has asked of owners in one domain since it was made, for SharedRefs and for the objects of C code.

    An owner is asked to *merge* its count with that of all others when one of these drops what may be the last reference.
    """

    merges_asked: int
    """Objects put into their owner's queue."""
    merges_done: int
    """Of these, taken out and merged."""
    merges_for_ended: int
    """Objects merged by who dropped a reference, because the owner had ended."""
    queues_borrowed: int
    """Times that the queue of a detached owner was worked off by another thread."""
    longest_queue: int
    """The most objects that were taken out of a queue at once."""
    longest_wait: float
    """The longest time that an object stood in a queue, in seconds."""
    immortal: int
    """Objects made immortal."""
    unique_ids: int
    """Ids in use, for counts that each thread keeps by itself; each type has one."""


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


Owner = int | Literal["process"]


@dataclass(frozen=True)
class SizeClassStats:
    """The blocks of one size in a heap."""

    block_size: int
    """Bytes of a block, which is what a buffer is rounded up to; 0: the ones above 64 KiB, each of a size of its own."""
    allocated: int
    """Blocks allocated since the heap was made."""
    blocks: int
    """Of these, in use now."""
    block_bytes: int
    """Bytes of the blocks in use."""

    def __repr__(self) -> str:
        size = str(self.block_size) if self.block_size else "0 (each above 64 KiB)"
        return (
            f"SizeClassStats(block_size={size}, allocated={self.allocated}, blocks={self.blocks}, "
            f"block_bytes={self.block_bytes})"
        )


@dataclass(frozen=True)
class HeapStats:
    """What one :class:`~pyruntime.heap.Heap` has allocated and has in use."""

    name: str
    owner: int
    """The id of the interpreter, which is its domain's."""
    tag: int
    type_stable: bool
    stable_prefix: int
    """In bytes."""
    closed: bool
    """Whether nothing can be allocated any more."""
    refused: int
    """Allocations that failed for want of memory."""
    size_classes: tuple[SizeClassStats, ...]
    """Those that were ever used, smallest first, and the ones above 64 KiB last."""

    @property
    def allocated(self) -> int:
        """Blocks allocated since the heap was made."""
        return sum(one.allocated for one in self.size_classes)

    @property
    def blocks(self) -> int:
        """Of these, in use now: one for each buffer."""
        return sum(one.blocks for one in self.size_classes)

    @property
    def block_bytes(self) -> int:
        """Bytes of the blocks in use."""
        return sum(one.block_bytes for one in self.size_classes)


@dataclass(frozen=True)
class MemoryStats:
    """The memory of one of pyruntime's interpreters, or of the process's domain, C code's blocks included. In bytes."""

    owner: Owner
    """The interpreter's id, or "process": the domain of ``pyrt_malloc``."""
    name: str
    ended: bool
    """Whether the interpreter has ended, and this is what blocks in use keep of its memory."""
    reserved_bytes: int
    """Address space that was reserved for it."""
    page_bytes: int
    """In pages of blocks, free ones and those in use."""
    pages: int
    """How many such pages."""
    huge_bytes: int
    """In blocks above 2 MiB, which are no part of a page, until they are freed."""
    held_bytes: int
    """Waits for readers: empty pages, in page_bytes too, and freed blocks above 2 MiB, in huge_bytes no more."""
    abandoned_segments: int
    """Segments of 4 MiB that threads which have ended left behind, and that nobody has taken over yet."""
    adopted_segments: int
    """Those taken over, ever."""
    heap_count: int
    """Heaps that are not ended, C code's included."""
    heaps: tuple[HeapStats, ...]
    """Those that Python has made, oldest first."""


@dataclass(frozen=True)
class LeftBlocks:
    """Blocks that C code has in use of an interpreter that has ended. What buffers of Python have is not counted here."""

    name: str
    """The interpreter's."""
    owner: int
    """Its id."""
    by_size: dict[int, int]
    """How many blocks of so many bytes; 0: those above 64 KiB."""
    by_tag: dict[int, int]
    """How many blocks of heaps with that tag."""
    block_bytes: int
    """Bytes of the blocks."""

    @property
    def blocks(self) -> int:
        """How many there are."""
        return sum(self.by_size.values())
