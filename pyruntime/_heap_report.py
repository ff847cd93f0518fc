"""The figures of memory as a table, for :func:`pyruntime.heap.report` and the command ``heap-stats``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyruntime._records import HeapStats, MemoryStats
from pyruntime._text import bytes_text


def lay_out(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """The rows as lines; the first so many columns stand on the left of theirs, the others on the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _memory_rows(memory: Iterable[MemoryStats]) -> list[list[str]]:
    rows = [["memory of", "", "reserved", "in pages", "pages", "huge", "held", "left behind", "taken over", "heaps"]]
    for one in memory:
        rows.append(
            [
                str(one.owner),
                "" if one.owner == "process" else one.name,
                bytes_text(one.reserved_bytes),
                bytes_text(one.page_bytes),
                str(one.pages),
                bytes_text(one.huge_bytes),
                bytes_text(one.held_bytes),
                str(one.abandoned_segments),
                str(one.adopted_segments),
                str(one.heap_count),
            ]
        )
    return rows


def _heap_rows(heaps: Iterable[HeapStats]) -> list[list[str]]:
    rows = [["heap", "owner", "tag", "blocks of", "in use", "bytes in use", "allocated", "refused"]]
    for heap in heaps:
        kind = "closed" if heap.closed else "all sizes"
        rows.append(
            [
                heap.name,
                str(heap.owner),
                str(heap.tag),
                kind,
                str(heap.blocks),
                bytes_text(heap.block_bytes),
                str(heap.allocated),
                str(heap.refused),
            ]
        )
        for one in heap.size_classes:
            size = bytes_text(one.block_size) if one.block_size else "> 64 KiB"
            rows.append(["", "", "", size, str(one.blocks), bytes_text(one.block_bytes), str(one.allocated), ""])
    return rows


def table(memory: Sequence[MemoryStats], leaks: Sequence[HeapStats]) -> str:
    """Both tables, and a sentence for each heap that is closed and has blocks in use."""
    lines = lay_out(_memory_rows(memory), 2)
    heaps = [heap for one in memory for heap in one.heaps]
    if heaps:
        lines += ["", *lay_out(_heap_rows(heaps), 1)]
    lines += [""] if leaks else []
    for heap in leaks:
        blocks = "1 buffer" if heap.blocks == 1 else f"{heap.blocks} buffers"
        lines.append(f"heap '{heap.name}' is closed and has {blocks} in use, {bytes_text(heap.block_bytes)}")
    return "\n".join(lines)
