"""The names that the core brings to a linker, and the header that gives them a prefix, made from what is really there.

``python tests/names_of_core.py`` builds the core and prints what csrc/include/pyruntime/prefix.h has to be, when a file of
the core has got a new function.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from c_support import CORE, ROOT, build_library

HEADER = """/* SPDX-License-Identifier: MIT
 *
 * prefix.h -- every name of the core that a linker sees, with the prefix of who compiles the core in. config.h includes it
 * where there is one. Written by tests/names_of_core.py.
 */
#ifndef PYRUNTIME_PREFIX_H
#define PYRUNTIME_PREFIX_H

#if defined(PYRT_PREFIX) && !defined(PYRT_USE_CAPI)
%s#endif

#endif /* PYRUNTIME_PREFIX_H */
"""


def defined(*files: Path, dynamic: bool = False) -> list[str]:
    """The external names that object files, a library of them, or a shared one have, sorted."""
    command = ["nm", "-P", "--defined-only", "--extern-only", *(["--dynamic"] if dynamic else []), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return sorted({line.split()[0] for line in done.stdout.splitlines() if len(line.split()) > 2})


def names() -> list[str]:
    """All that its object files have."""
    where = build_library()
    return defined(*(where / source.relative_to(ROOT).with_suffix(".o") for source in CORE.rglob("*.c")))


def header() -> str:
    return HEADER % "".join(f"#    define {name} PYRT_PREFIXED({name})\n" for name in names())


if __name__ == "__main__":
    print(header(), end="")
