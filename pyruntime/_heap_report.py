"""The figures of memory as a table, for :func:`pyruntime.heap.report` and the command ``heap-stats``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyruntime._records import HeapStats, LeftBlocks, MemoryStats
from pyruntime._text import bytes_text, counted, name_text


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
                "" if one.owner == "process" else name_text(one.name) + ", ended" * one.ended,
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
                name_text(heap.name),
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


def _sentence(leak: HeapStats | LeftBlocks) -> str:
    if isinstance(leak, HeapStats):
        blocks = counted(leak.blocks, "buffer")
        return f"heap {leak.name!r} is closed and has {blocks} in use, {bytes_text(leak.block_bytes)}"
    kinds = [f"{blocks} of {bytes_text(size) if size else '> 64 KiB'}" for size, blocks in leak.by_size.items()]
    kinds += [f"{blocks} with tag {tag}" for tag, blocks in leak.by_tag.items()]
    return (
        f"interpreter {leak.owner} {leak.name!r} has ended, and C code has {counted(leak.blocks, 'block')} of it in use, "
        f"{bytes_text(leak.block_bytes)}: {', '.join(kinds)}"
    )


def table(memory: Sequence[MemoryStats], leaks: Iterable[HeapStats | LeftBlocks]) -> str:
    """Both tables, and a sentence for each heap that is closed and has blocks in use, and for what C code has left."""
    lines = lay_out(_memory_rows(memory), 2)
    heaps = [heap for one in memory for heap in one.heaps]
    if heaps:
        lines += ["", *lay_out(_heap_rows(heaps), 1)]
    sentences = [_sentence(leak) for leak in leaks]
    return "\n".join(lines + [""] * bool(sentences) + sentences)
