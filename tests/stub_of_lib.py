"""What pyruntime/_core.pyi has to say of cffi's ``lib``, made from what is really there.

``python tests/stub_of_lib.py`` prints it, to be put into the stub when a header has got a new function.
"""

from __future__ import annotations

from typing import Any

from pyruntime._core import ffi, lib

_WORDS = {"void": "None", "_Bool": "bool", "pyrt_status": "int"}


def _annotation(ctype: Any, *, is_result: bool) -> str:
    if ctype.cname == "char *" and not is_result:
        return "_Pointer | bytes"
    if ctype.kind in ("pointer", "function"):
        return "_Pointer"
    return _WORDS.get(ctype.cname, "int")


def _line(name: str) -> str:
    value = getattr(lib, name)
    if isinstance(value, int):
        return f"    {name}: int"
    ctype = ffi.typeof(value)
    args = [f"a{i}: {_annotation(one, is_result=False)}" for i, one in enumerate(ctype.args)]
    parameters = ", ".join(["self", *args, "/"] if args else ["self"])
    return f"    def {name}({parameters}) -> {_annotation(ctype.result, is_result=True)}: ..."


def lines() -> list[str]:
    return [_line(name) for name in sorted(dir(lib))]


if __name__ == "__main__":
    print("\n".join(lines()))
