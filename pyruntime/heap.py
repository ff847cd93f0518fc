"""Memory apart from Python's own: heaps whose buffers die on any thread, and what is known of all memory of pyruntime.

A :class:`Heap` hands out :class:`Buffer` objects, which have the buffer protocol. Each thread allocates from pages of its
own; a buffer may be released by any thread, and outlive its heap and the thread that made it.

    >>> from threading import Thread
    >>> from pyruntime.heap import Heap, leaks, owner
    >>> frames = []
    >>> with Heap("frames") as heap:
    ...     thread = Thread(target=lambda: frames.append(heap.alloc(1 << 16)))
    ...     thread.start()
    ...     thread.join()
    >>> frames[0][:5] = b"pixel"
    >>> owner(frames[0])
    0
    >>> [one.name for one in leaks()]
    ['frames']
    >>> frames.clear()
    >>> leaks()
    []

:func:`stats` and :func:`report` tell what each interpreter of pyruntime and the process have, C code's included. Sizes
are in bytes everywhere.

After mimalloc's heaps with owners, and the per-interpreter allocator state of CPython.
"""

from __future__ import annotations

from pyruntime import _core
from pyruntime._core import ffi, lib
from pyruntime.errors import ArgumentError, ArgumentTypeError

_core.add_heap_types()

from pyruntime._core import Buffer, Heap  # noqa: E402  (made by the line above)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    from typing_extensions import Buffer as AnyBuffer

    from pyruntime._records import HeapStats, LeftBlocks, MemoryStats, SizeClassStats

__all__ = [
    "Buffer",
    "Heap",
    "HeapStats",
    "LeftBlocks",
    "MemoryStats",
    "SizeClassStats",
    "leaks",
    "owner",
    "report",
    "stats",
]


def owner(address: int | AnyBuffer) -> int | Literal["process"] | None:
    """Whose memory an address lies in, any address: an interpreter's id, "process", or None for none of pyruntime's.

        >>> from pyruntime.heap import Heap, owner
        >>> buffer = Heap().alloc(100)
        >>> owner(buffer), owner(buffer.address + 99), owner(memoryview(buffer)[10:])
        (0, 0, 0)
        >>> owner(bytearray(100)) is None
        True

    address: a number, or an object with the buffer protocol, whose memory is to lie in one piece. "process" is the domain of
    ``pyrt_malloc``. The memory itself is not touched, and nothing waits.

    Raises ArgumentTypeError, ArgumentError for a number that is no address and for memory in pieces, and StateError for a
    buffer that was released. After Go's and Windows' look-ups of an address in a heap.
    """
    if isinstance(address, int) and not isinstance(address, bool):
        if not 0 <= address < 2**64:
            raise ArgumentError(f"an address is from 0 to 2**64 - 1, not {_core.shown(address)}")
        number = lib.pyrt_address_owner(ffi.cast("void *", address))
    else:
        try:
            view = memoryview(address)  # type: ignore[arg-type]
        except TypeError:
            raise ArgumentTypeError(f"owner() takes an address, an int, or a buffer, not {address!r}") from None
        with view:
            if not view.contiguous:
                raise ArgumentError(f"owner() takes a buffer in one piece, not {address!r}")
            with ffi.from_buffer(view) as start:
                number = lib.pyrt_address_owner(start)
    return None if number == lib.PYRT_OWNER_NONE else "process" if number == lib.PYRT_OWNER_PROCESS else number


def _heap_stats(figures: tuple[Any, ...]) -> HeapStats:
    """Of a tuple of the compiled part, which calls this too."""
    from pyruntime._records import HeapStats, SizeClassStats

    fields: list[Any] = [*figures[:-1], tuple(SizeClassStats(*one) for one in figures[-1])]
    return HeapStats(*fields)


def _memory_of(interp: Any, number: int | None, name: str, heaps: list[HeapStats]) -> MemoryStats:
    from pyruntime._records import MemoryStats

    stats = ffi.new("pyrt_memory_stats *", {"struct_size": ffi.sizeof("pyrt_memory_stats")})
    lib.pyrt_interp_memory_stats(interp, stats)
    return MemoryStats(
        owner="process" if number is None else number,
        name=name,
        ended=False,
        reserved_bytes=stats.reserved_bytes,
        page_bytes=stats.page_bytes,
        pages=stats.pages,
        huge_bytes=stats.huge_bytes,
        held_bytes=stats.held_bytes,
        abandoned_segments=stats.abandoned_segments,
        adopted_segments=stats.adopted_segments,
        heap_count=stats.heaps,
        heaps=tuple(heap for heap in heaps if heap.owner == number),
    )


def _ended() -> list[Any]:
    """What is left of interpreters that have ended, in the order of their ends."""
    found: list[Any] = []
    place = ffi.new("uint64_t *")
    while True:
        one = ffi.new("pyrt_ended_memory *", {"struct_size": ffi.sizeof("pyrt_ended_memory")})
        if lib.pyrt_ended_memory_next(place, one) != lib.PYRT_OK:
            return found
        found.append(one)


def _name_of(one: Any) -> str:
    return bytes(ffi.string(one.name)).decode(errors="replace")


def _memory_left(one: Any, heaps: list[HeapStats]) -> MemoryStats:
    from pyruntime._records import MemoryStats

    return MemoryStats(
        owner=one.interp_id,
        name=_name_of(one),
        ended=True,
        reserved_bytes=one.reserved_bytes,
        page_bytes=one.page_bytes,
        pages=one.pages,
        huge_bytes=one.huge_bytes,
        held_bytes=0,
        abandoned_segments=0,
        adopted_segments=0,
        heap_count=0,
        heaps=tuple(heap for heap in heaps if heap.owner == one.interp_id),
    )


def _blocks_left(one: Any, heaps: list[HeapStats]) -> LeftBlocks:
    """Without those that the heaps of Python account for. Their figures are older: a block of theirs never counts here."""
    from pyruntime._records import LeftBlocks

    by_size = {count.block_size: count.blocks for count in one.by_class}
    by_tag = dict(enumerate(one.by_tag))
    block_bytes = one.bytes
    for heap in heaps:
        if heap.owner == one.interp_id:
            block_bytes -= heap.block_bytes
            by_tag[heap.tag] -= heap.blocks
            for figures in heap.size_classes:
                by_size[figures.block_size] -= figures.blocks
    return LeftBlocks(
        name=_name_of(one),
        owner=one.interp_id,
        by_size={size: blocks for size, blocks in by_size.items() if blocks > 0},
        by_tag={tag: blocks for tag, blocks in by_tag.items() if blocks > 0},
        block_bytes=max(block_bytes, 0),
    )


def stats() -> list[MemoryStats]:
    """The memory of the process's domain and of each interpreter of pyruntime, by heap and size class; the process first.

        >>> from pyruntime.heap import Heap, stats
        >>> heap = Heap("frames")
        >>> kept = [heap.alloc(100) for _ in range(3)]
        >>> frames = [heap for one in stats() for heap in one.heaps if heap.name == "frames"][-1]
        >>> frames.blocks, frames.block_bytes
        (3, 336)
        >>> stats()[0].owner
        'process'

    Interpreters that have ended come last, as long as blocks in use keep something of their memory.

    A snapshot: threads go on while it is taken, and none waits. The process's domain is what C code has of ``pyrt_malloc``;
    Python's own objects are not in it. :meth:`Heap.stats` is about one heap. After CPython's ``sys._debugmallocstats`` and
    jemalloc's ``stats``.
    """
    from pyruntime.state import interpreters

    heaps = [_heap_stats(one) for one in _core.heap_figures()]
    found = [_memory_of(ffi.NULL, None, "process", heaps)]
    for interpreter in interpreters():
        interp = lib.pyrt_interp_pin(interpreter.id)
        if interp != ffi.NULL:
            try:
                found.append(_memory_of(interp, interpreter.id, interpreter.name, heaps))
            finally:
                lib.pyrt_interp_unpin(interp)
    return found + [_memory_left(one, heaps) for one in _ended()]


def leaks() -> list[HeapStats | LeftBlocks]:
    """The heaps of Python that are closed and have buffers in use, oldest first, and what C code has left of ended ones.

    A heap is closed by itself or with its domain. C code's blocks in use of an interpreter that has ended are one
    :class:`LeftBlocks`.

        >>> from pyruntime.heap import Heap, leaks
        >>> with Heap("cache") as cache:
        ...     forgotten = cache.alloc(1000)
        >>> [(leak.name, leak.blocks, leak.block_bytes) for leak in leaks()]
        [('cache', 1, 1024)]
        >>> del forgotten
        >>> leaks()
        []

    Nothing is lost: the memory goes back when the buffers die, and when C code frees its blocks, also if their domain was
    closed before. After the leak report of Go's and LLVM's heap checkers.
    """
    heaps = [_heap_stats(one) for one in _core.heap_figures()]
    left = (_blocks_left(one, heaps) for one in _ended())
    return [heap for heap in heaps if heap.closed and heap.blocks] + [one for one in left if one.blocks]


def report() -> str:
    """What :func:`stats` tells and :func:`leaks` find, as a table for people.

    >>> from pyruntime.heap import Heap, report
    >>> heap = Heap("frames", tag=3)
    >>> kept = [heap.alloc(1000) for _ in range(4)]
    >>> "frames" in report()
    True
    """
    from pyruntime._heap_report import table

    return table(stats(), leaks())


def __getattr__(name: str) -> object:
    if name in ("HeapStats", "LeftBlocks", "MemoryStats", "SizeClassStats"):
        from pyruntime import _records

        return getattr(_records, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"__dir__", "__getattr__"})
