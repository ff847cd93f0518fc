"""The floors of the core: a file includes only from its own floor or from floors below it, and nothing of Python."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from c_support import CORE, INCLUDE

FLOORS = ["platform", "sync", "epoch", "state", "reclaim", "memory", "object", "cross", "vm", "capi"]

# The floor that a public header belongs to: what it declares is defined there.
PUBLIC = {
    "atomic.h": "platform",
    "backoff.h": "platform",
    "block.h": "platform",
    "config.h": "platform",
    "current.h": "platform",
    "prefix.h": "platform",
    "status.h": "platform",
    "parking_lot.h": "sync",
    "mutex.h": "sync",
    "lock_debug.h": "sync",
    "striped_lock.h": "sync",
    "event.h": "sync",
    "once.h": "sync",
    "recursive_mutex.h": "sync",
    "rwlock.h": "sync",
    "seqlock.h": "sync",
    "condition.h": "sync",
    "qsbr_slot.h": "epoch",
    "thread.h": "state",
    "qsbr.h": "state",
    "stop_the_world.h": "state",
    "critical_section.h": "state",
    "fork.h": "state",
    "retire.h": "reclaim",
    "heap.h": "memory",
    "object.h": "object",
    "refcount.h": "object",
    "unique_id.h": "object",
    "weakref.h": "object",
}

# These include all the others: they are for users, and for the floor that nobody includes from.
FOR_USERS = {"pyruntime.h", "capi.h", "capi_table.h", "layout.h", "vendored.h"}

INCLUDED = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:<([^>]+)>|"([^"]+)")', re.MULTILINE)
PYTHON = re.compile(r"\b(?:Python|structmember|pyconfig|patchlevel|cpython/|internal/pycore_)")


def violations(core: Path) -> list[str]:
    """What is wrong below a directory that is laid out like csrc/core, one line a fault."""
    found = []
    for file in sorted([*core.rglob("*.c"), *core.rglob("*.h")]):
        name = file.relative_to(core)
        floor = name.parts[0]
        if floor not in FLOORS or len(name.parts) == 1:
            found.append(f"{name}: is on no floor")
            continue
        for in_angles, in_quotes in INCLUDED.findall(file.read_text()):
            fault = fault_of(core, floor, in_angles, in_quotes)
            if fault is not None:
                found.append(f"{name}: {fault}")
    return found


def fault_of(core: Path, floor: str, in_angles: str, in_quotes: str) -> str | None:
    """What is wrong with one include of a file on a floor."""
    included = in_angles or in_quotes
    if PYTHON.search(included):
        return f"includes {included}, which is Python's"
    if in_quotes:
        other = in_quotes.split("/")[0]
        if other not in FLOORS or not (core / in_quotes).is_file():
            return f'includes "{in_quotes}", which is not a header of the core by its floor and name'
        if FLOORS.index(other) > FLOORS.index(floor):
            return f"includes {in_quotes} from a floor above"
    if in_angles.startswith("pyruntime/"):
        header = in_angles.removeprefix("pyruntime/")
        if header in FOR_USERS and floor == FLOORS[-1]:
            return None
        if header in FOR_USERS:
            return f"includes {in_angles}, which includes every floor"
        if header not in PUBLIC:
            return f"includes {in_angles}, of which this test does not know the floor"
        if FLOORS.index(PUBLIC[header]) > FLOORS.index(floor):
            return f"includes {in_angles} of a floor above"
    return None


def test_every_file_keeps_to_its_floor() -> None:
    assert list(CORE.rglob("*.c"))
    assert violations(CORE) == []


def test_every_public_header_has_a_floor() -> None:
    assert {file.name for file in (INCLUDE / "pyruntime").glob("*.h")} == set(PUBLIC) | FOR_USERS


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("platform/a.c", '#include "epoch/e.h"\n', "includes epoch/e.h from a floor above"),
        ("epoch/a.h", '#  include "state/s.h"\n', "includes state/s.h from a floor above"),
        ("state/a.c", "#include <Python.h>\n", "includes Python.h, which is Python's"),
        ("state/a.c", '#include "Python.h"\n', "includes Python.h, which is Python's"),
        ("state/a.c", '#include "s.h"\n', "not a header of the core by its floor and name"),
        ("state/a.c", '#include "state/none.h"\n', "not a header of the core by its floor and name"),
        ("state/a.c", '#include "../binding/b.h"\n', "not a header of the core by its floor and name"),
        ("epoch/a.c", "#include <pyruntime/thread.h>\n", "includes pyruntime/thread.h of a floor above"),
        ("state/a.c", "#include <pyruntime/pyruntime.h>\n", "which includes every floor"),
        ("state/a.c", "#include <pyruntime/new.h>\n", "does not know the floor"),
        ("a.c", "", "is on no floor"),
        ("tests/a.c", "", "is on no floor"),
    ],
)
def test_a_violation_is_found(tmp_path: Path, file: str, text: str, fault: str) -> None:
    for header in ("platform/p.h", "epoch/e.h", "state/s.h"):
        (tmp_path / header).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / header).write_text("#include <stdint.h>\n")
    assert violations(tmp_path) == []
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text('#include "platform/p.h"\n' * (file.count("/")) + text)
    found = violations(tmp_path)
    assert len(found) == 1
    assert found[0].startswith(f"{file}: ")
    assert fault in found[0]
