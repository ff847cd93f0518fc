"""Builds ``pyruntime._core``: the C core, the binding and the loops of the benchmarks, in one shared object.

What cffi has to know is read out of the headers (pyruntime/_declarations.py). A compiler checks it against the header it
came from, because the generated C includes both.

setup.py names this file in ``cffi_modules``; it runs in the root of the project, and all paths are relative to that.
"""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path

from cffi import FFI

INCLUDE = Path("csrc/include")
HEADERS = INCLUDE / "pyruntime"
CORE = Path("csrc/core")
BINDING = Path("csrc/binding")
LOOPS = Path("pyruntime/bench/loops")

# There is no package to import it from.
_spec = importlib.util.spec_from_file_location("declarations", "pyruntime/_declarations.py")
declarations = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(declarations)
HeaderError, regions = declarations.HeaderError, declarations.regions

# Without the debug information that Python's own flags ask for: it was three quarters of the compiled part.
COMPILE_ARGS = ["-std=gnu11", "-O2", "-g0", "-fvisibility=hidden", "-pthread"]
LINK_ARGS = ["-Wl,-z,nodelete", "-pthread"]

# Calls keep the GIL. Where the core really sleeps, the block hooks let go of it: see csrc/binding/gil.h.
PREAMBLE = """
#include "binding/gil.h"
#undef Py_BEGIN_ALLOW_THREADS
#undef Py_END_ALLOW_THREADS
#define Py_BEGIN_ALLOW_THREADS { PyThreadState *pyrt_py_outer = pyrt_py_enter();
#define Py_END_ALLOW_THREADS pyrt_py_leave(pyrt_py_outer); }
"""


def sources() -> list[str]:
    paths = [*CORE.glob("**/*.c"), *BINDING.glob("*.c"), *LOOPS.glob("*.c")]
    return sorted(path.as_posix() for path in paths)


def headers() -> list[str]:
    """Every file that a change in makes everything be compiled anew."""
    paths = [*Path("csrc").glob("**/*.h"), *LOOPS.glob("*.h")]
    return sorted(path.as_posix() for path in paths)


def declared() -> tuple[str, str]:
    """What cffi is told, and the includes that tell the compiler the same."""
    text = declarations.callable_cdef(HEADERS)
    includes = ["<pyruntime/pyruntime.h>"]
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
