"""Builds ``pyruntime._core``: the C core, the binding and the loops of the benchmarks, in one shared object.

No declaration stands twice: what cffi has to know is read out of the headers, from between the lines ``/* cdef: begin */``
and ``/* cdef: end */``. A compiler checks it against the header it came from, because the generated C includes both.

setup.py names this file in ``cffi_modules``; it runs in the root of the project, and all paths are relative to that.
"""

from __future__ import annotations

import re
import sysconfig
from pathlib import Path

from cffi import FFI

INCLUDE = Path("csrc/include")
HEADERS = INCLUDE / "pyruntime"
CORE = Path("csrc/core")
BINDING = Path("csrc/binding")
LOOPS = Path("pyruntime/bench/loops")

BEGIN = "/* cdef: begin */"
END = "/* cdef: end */"

# Without the debug information that Python's own flags ask for: it was three quarters of the compiled part.
COMPILE_ARGS = ["-std=gnu11", "-O2", "-g0", "-fvisibility=hidden", "-pthread"]
LINK_ARGS = ["-Wl,-z,nodelete", "-pthread"]

# The public headers whose regions refer to each other, lower ones first.
PUBLIC = ["status.h", "qsbr_slot.h", "thread.h", "qsbr.h", "retire.h", "heap.h", "stop_the_world.h", "mutex.h", "object.h"]

# Calls keep the GIL. Where the core really sleeps, the block hooks let go of it: see csrc/binding/gil.h.
PREAMBLE = """
#include "binding/gil.h"
#undef Py_BEGIN_ALLOW_THREADS
#undef Py_END_ALLOW_THREADS
#define Py_BEGIN_ALLOW_THREADS { PyThreadState *pyrt_py_outer = pyrt_py_enter();
#define Py_END_ALLOW_THREADS pyrt_py_leave(pyrt_py_outer); }
"""


class HeaderError(ValueError):
    """A marked region of a header is not what cffi can take."""


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


def sources() -> list[str]:
    paths = [*CORE.glob("**/*.c"), *BINDING.glob("*.c"), *LOOPS.glob("*.c")]
    return sorted(path.as_posix() for path in paths)


def headers() -> list[str]:
    """Every file that a change in makes everything be compiled anew."""
    paths = [*Path("csrc").glob("**/*.h"), *LOOPS.glob("*.h")]
    return sorted(path.as_posix() for path in paths)


def declared() -> tuple[str, str]:
    """What cffi is told, and the includes that tell the compiler the same."""
    text = opaque_types(HEADERS / "config.h")
    includes = ["<pyruntime/pyruntime.h>"]
    for name in PUBLIC:
        text += regions(HEADERS / name)
    others = [BINDING / "attach.h", *sorted(LOOPS.glob("*.h"))]
    for header in others:
        found = regions(header)
        if found:
            text += found
            includes.append(f'"{header.relative_to("csrc") if header.is_relative_to("csrc") else header.name}"')
    return "\n".join(text), "".join(f"#include {name}\n" for name in includes)


def make_builder() -> FFI:
    cdef, includes = declared()
    builder = FFI()
    builder.cdef(cdef)
    builder.set_source(
        "pyruntime._core",
        PREAMBLE + includes,
        sources=sources(),
        depends=headers(),
        include_dirs=[path.as_posix() for path in (INCLUDE, Path("csrc"), CORE, LOOPS)],
        libraries=["dl"],
        extra_compile_args=COMPILE_ARGS,
        extra_link_args=LINK_ARGS,
        py_limited_api=not sysconfig.get_config_var("Py_GIL_DISABLED"),
    )
    return builder


ffibuilder = make_builder()
