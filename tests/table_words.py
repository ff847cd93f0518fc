"""What the function table says of the GIL behind each member, made from the guarantee line of the function itself."""

from __future__ import annotations

import re

from c_support import INCLUDE

HEADERS = INCLUDE / "pyruntime"
NO_GIL, SHORTLY, MAY_BLOCK = "no GIL", "no GIL; shortly", "no GIL; may block"

# The long ways of inline functions whose names do not say so: the guarantee is that of the inline function.
LONG_WAYS = {
    "detach_answer": "detach",
    "qsbr_quiescent_slow": "qsbr_quiescent_state",
    "read_begin_counted": "read_begin",
    "read_end_counted": "read_begin",
    "mutex_wake": "mutex_unlock",
    "striped_lock_slow": "striped_lock_hash",
    "rwlock_wake": "rwlock_read_unlock",
    "critical_sections_resume": "attach",
    "heap_alloc_slow": "heap_malloc",
    "os_thread_identity_new": "os_thread_identity",
    "decref_last_local": "decref",
    "decref_taken": "decref",
    "count_by_id_slow": "incref_by_id",
}

_COMMENT_AND_DECLARATIONS = re.compile(r"/\*((?:[^*]|\*(?!/))*)\*/\n((?:(?!\n\n|/\*)[\s\S])*)")
_BLOCKS = re.compile(r"blocks:\s*([^·]*?)\s*·")


def guarantees() -> dict[str, str]:
    """What each public function says behind ``blocks:``, by its name without the prefix."""
    found: dict[str, str] = {}
    for header in HEADERS.glob("*.h"):
        for comment, declarations in _COMMENT_AND_DECLARATIONS.findall(header.read_text()):
            blocks = _BLOCKS.search(comment)
            if blocks is not None:
                for name in re.findall(r"\bpyrt_(\w+)\(", declarations):
                    found.setdefault(name, re.sub(r"\s*\n \* ", " ", blocks[1]))
    return found


def members() -> dict[str, str]:
    """The functions of the table in order, each with the words that stand behind it."""
    struct = (HEADERS / "capi_table.h").read_text().split("typedef struct pyrt_capi {")[1].split("} pyrt_capi;")[0]
    declarations = re.findall(r"^    \w[\w ]*\**\(\*(\w+)\)\([^;]*;(?:[ \t]*/\* ([^*]*) \*/)?", struct, re.MULTILINE)
    return dict(declarations)


def wanted(name: str, said: dict[str, str]) -> str | None:
    """The words that have to stand behind a member; None: its function has no guarantee line."""
    function = LONG_WAYS.get(name, name)
    blocks = said.get(function, said.get(function.removesuffix("_slow")))
    if blocks is None:
        return None
    if blocks in ("no", "no (never)"):
        return NO_GIL
    return SHORTLY if re.search(r"\bshortly\b", blocks) else MAY_BLOCK
