"""Numbers and names as people read them."""

from __future__ import annotations

_TIME_UNITS = ((1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns"))
_BYTE_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def time_text(ns: float) -> str:
    """Three digits and the unit that fits: ``"5.12 ns"``. Differences may be negative."""
    size = abs(ns)
    scale, unit = next((pair for pair in _TIME_UNITS if size >= pair[0]), _TIME_UNITS[-1])
    return f"{'-' if ns < 0 else ''}{_three_digits(size / scale)} {unit}"


def bytes_text(count: float) -> str:
    """The same of bytes: ``"67.4 KiB"``; below a kibibyte all digits."""
    scale, unit = next((pair for pair in _BYTE_UNITS if count >= pair[0]), _BYTE_UNITS[-1])
    return f"{_three_digits(count / scale) if scale > 1 else round(count)} {unit}"


def counted(number: int, noun: str) -> str:
    """``"1 block"``, ``"2 blocks"``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def name_text(name: str) -> str:
    """The name on one line: a line break in it, and what else cannot be seen, as ``repr`` has it."""
    return repr(name)[1:-1]
