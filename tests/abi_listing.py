"""What a compiled program relies on, as a list: exported names, the members of the table, public structs and constants.

csrc/abi.txt is that list, and belongs to the version in its first line. ``python tests/abi_listing.py`` brings it up to
date, and refuses to while the version in config.h is still the one that the old list belongs to.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from c_support import INCLUDE, ROOT, build_library
from names_of_core import defined

LISTING = ROOT / "csrc" / "abi.txt"
HEADERS = INCLUDE / "pyruntime"

# Of these, what stands behind the last of the fields is the core's own.
PUBLIC_FRONT = {"pyrt_tls_block": "identity", "pyrt_thread": "unique_counts"}
# Of these, inline code uses some fields; the rest is the core's own.
INLINE_ONLY = {"pyrt_page_head": ["free", "until_slow", "key", "link"], "pyrt_heap": ["index"]}
# The core's own; one that has lines of its own here; and one that users read by number, as far as it goes.
NOT_LISTED = {"pyrt_pause_turn", "pyrt_capi", "pyrt_qsbr_stats"}

_STRUCT = re.compile(r"^(?:typedef )?struct (?:PYRT_ALIGNED\(\d+\) )?(pyrt_\w+) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_ENUM = re.compile(r"\benum(?: \w+)? \{(.*?)\}", re.DOTALL)


def _text(header: Path) -> str:
    return re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.DOTALL)


def _fields(body: str) -> list[str]:
    found = []
    for declaration in body.split(";"):
        function = re.search(r"\(\*(\w+)\)", declaration)
        if function is not None:
            found.append(function[1])
        elif declaration.strip():
            found += [re.sub(r"\[.*", "", part).split()[-1].lstrip("*") for part in declaration.split(",")]
    return found


def _structs() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for header in sorted(HEADERS.glob("*.h")):
        for name, body in _STRUCT.findall(_text(header)):
            fields = _fields(body)
            last = PUBLIC_FRONT.get(name)
            found[name] = INLINE_ONLY.get(name, fields if last is None else fields[: fields.index(last) + 1])
    return found


def _constants() -> list[str]:
    found = []
    for header in sorted(HEADERS.glob("*.h")):
        for body in _ENUM.findall(_text(header)):
            found += re.findall(r"\b(PYRT_\w+)\s*(?=[=,\n]|$)", re.sub(r"=[^,]*", "=", body))
    return found


def _program() -> str:
    """A C program that prints what only a compiler knows."""
    lines = []
    structs = _structs()
    for member in structs["pyrt_capi"]:
        lines.append(f'printf("table %zu {member}\\n", offsetof(pyrt_capi, {member}));')
    for name, fields in sorted(structs.items()):
        if name in NOT_LISTED:
            continue
        # What says its own size may grow.
        if name not in PUBLIC_FRONT and name not in INLINE_ONLY and "struct_size" not in fields:
            lines.append(f'printf("struct {name} %zu\\n", sizeof({name}));')
        lines += [f'printf("field {name}.{field} %zu\\n", offsetof({name}, {field}));' for field in fields]
    lines += [f'printf("constant {name} %lld\\n", (long long){name});' for name in sorted(set(_constants()))]
    body = "\n".join(lines)
    return f"#include <pyruntime/layout.h>\n#include <stdio.h>\nint main(void)\n{{\n{body}\nreturn 0;\n}}\n"


def _version() -> str:
    numbers = re.findall(r"^#define PYRT_ABI_(?:MAJOR|MINOR) (\d+)$", (HEADERS / "config.h").read_text(), re.MULTILINE)
    return "abi " + ".".join(numbers)


def listing() -> list[str]:
    with tempfile.TemporaryDirectory() as where:
        source, program = Path(where, "abi.c"), Path(where, "abi")
        source.write_text(_program())
        subprocess.run(["gcc", "-std=gnu11", f"-I{INCLUDE}", str(source), "-o", str(program)], check=True)
        printed = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
    exports = [f"export {name}" for name in defined(build_library() / "libpyruntime.so", dynamic=True)]
    return [_version(), *exports, *printed.splitlines()]


def change(old: list[str], new: list[str]) -> str | None:
    """What is wrong with going from one list to another: the version that would have to be raised, and is not."""
    (_, old_version), (_, new_version) = old[0].split(), new[0].split()
    old_major, new_major = old_version.split(".")[0], new_version.split(".")[0]
    gone = sorted(set(old[1:]) - set(new[1:]))
    if gone and old_major == new_major:
        return f"a break: raise PYRT_ABI_MAJOR in config.h, and set PYRT_ABI_MINOR to 0. Gone or changed: {'; '.join(gone)}"
    more = sorted(set(new[1:]) - set(old[1:]))
    if more and old_version == new_version:
        return f"it has grown: raise PYRT_ABI_MINOR in config.h. New: {'; '.join(more)}"
    return None


if __name__ == "__main__":
    new = listing()
    wrong = change(LISTING.read_text().splitlines(), new) if LISTING.exists() else None
    if wrong is not None:
        sys.exit(wrong)
    LISTING.write_text("\n".join(new) + "\n")
