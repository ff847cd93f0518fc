"""What the public headers declare, for those who cannot include them: cffi and Cython.

No declaration stands twice. What they have to know is read out of the headers, from between the lines ``/* cdef: begin */``
and ``/* cdef: end */``; a C compiler checks it against the header that it came from.

csrc/build_ffi.py and csrc/build_pxd.py load this file by itself, when there is no package yet.
"""

from __future__ import annotations

import re
from pathlib import Path

BEGIN = "/* cdef: begin */"
END = "/* cdef: end */"

# The headers of what cffi can call, whose regions refer to each other: lower ones first.
CALLABLE = (
    "status.h",
    "qsbr_slot.h",
    "thread.h",
    "qsbr.h",
    "retire.h",
    "heap.h",
    "stop_the_world.h",
    "mutex.h",
    "object.h",
)


class HeaderError(ValueError):
    """A marked region of a header is not what it can be."""


def regions(header: Path) -> list[str]:
    """The marked regions of a header, in order."""
    found: list[str] = []
    inside: list[str] | None = None
    for number, line in enumerate(header.read_text().splitlines(), start=1):
        word = line.strip()
        if word in (BEGIN, END) and (inside is None) != (word == BEGIN):
            raise HeaderError(f"{header}:{number}: {word} without its partner")
        if word == BEGIN:
            inside = []
        elif word == END and inside is not None:
            found.append("\n".join(inside))
            inside = None
        elif inside is not None:
            if word.startswith("#"):
                raise HeaderError(f"{header}:{number}: no preprocessor line may stand in a cdef region")
            inside.append(line)
    if inside is not None:
        raise HeaderError(f"{header}: the last region is not ended")
    return found


def opaque_types(header: Path) -> list[str]:
    """The lines ``typedef struct NAME NAME;``: types that users only have pointers to."""
    return re.findall(r"^typedef struct (?:\w+) (?:\w+);$", header.read_text(), re.MULTILINE)


def callable_cdef(headers: Path) -> list[str]:
    """What cffi is told of the public headers, which lie in a directory."""
    return opaque_types(headers / "config.h") + [region for name in CALLABLE for region in regions(headers / name)]
