"""Writes ``pyruntime/__init__.pxd``, by which Cython knows the C functions: ``from pyruntime cimport pyrt_mutex_lock``.

``python csrc/build_pxd.py`` in the root of the project, after a change of what the public headers declare. The declarations
are read out of the headers (pyruntime/_declarations.py): what is marked, and the inline functions by their first lines.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path

from pycparser import c_ast, c_parser

HEADERS = Path("csrc/include/pyruntime")
OUTPUT = Path("pyruntime/__init__.pxd")

_spec = importlib.util.spec_from_file_location("declarations", "pyruntime/_declarations.py")
declarations = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(declarations)

# What the headers get from the standard library, for the parser and for Cython.
STANDARD = [f"{sign}int{bits}_t" for sign in ("", "u") for bits in ("8", "16", "32", "64", "ptr")]
PRELUDE = "".join(f"typedef int {name};" for name in [*STANDARD, "bool", "size_t", "pid_t"])

# Steps of other inline functions.
NOT_FOR_USERS = re.compile(r"_(?:fast|by|unchecked|slow|through_table|index)$")

HEAD = f'''"""What the C headers declare, for Cython. Written by csrc/build_pxd.py: do not edit.

    from pyruntime cimport pyruntime_import, pyrt_mutex, pyrt_mutex_lock, pyrt_mutex_unlock

    pyruntime_import()          # once, before anything else

The headers say what each function does. All can be called without the GIL. A function that is handed over is
`noexcept nogil`, or `noexcept with gil`. Compile with include_dirs=[pyruntime.get_include()].
"""

from libc.stdint cimport ({", ".join(STANDARD[:5])},
                          {", ".join(STANDARD[5:])})

cdef extern from "pyruntime/capi.h":
    int pyruntime_import() except -1

cdef extern from "pyruntime/capi.h" nogil:
    ctypedef bint pyrt_bool "bool"
    ctypedef int pyrt_pid "pid_t"

    # atomic.h: macros for words of any type, here for pointers. Cast the address of yours.
    void *pyrt_load_acquire(void **p) noexcept
    void pyrt_store_release(void **p, void *value) noexcept
    void *pyrt_exchange_seq_cst(void **p, void *value) noexcept
'''


def in_order() -> list[str]:
    """The public headers, each behind those that it includes."""
    found: list[str] = []

    def visit(name: str) -> None:
        for included in re.findall(r'^#\s*include "(.+)"', (HEADERS / name).read_text(), re.MULTILINE):
            if included not in found and included != "capi_table.h":
                visit(included)
        if name not in found:
            found.append(name)

    visit("pyruntime.h")
    return found


def inline_functions(header: Path) -> list[str]:
    """The declarations of the inline functions of a header."""
    heads = re.findall(r"^static inline ([^{;]+?)\n\{", header.read_text(), re.MULTILINE)
    return [re.sub(r"\s+", " ", head) + ";" for head in heads]


def c_text() -> str:
    """All of it, as the parser takes it: without comments."""
    text = [PRELUDE, *declarations.opaque_types(HEADERS / "config.h")]
    for name in in_order():
        text += declarations.regions(HEADERS / name)
        text += [head for head in inline_functions(HEADERS / name) if "pyrt_page_head" not in head and "tls" not in head]
    return re.sub(r"/\*.*?\*/", "", "\n".join(text), flags=re.DOTALL)


def typed(node: c_ast.Node, inner: str) -> str:
    """A C type around a name, or around what stands in the place of one, in Cython's words."""
    if isinstance(node, c_ast.PtrDecl):
        inner = ("const " if "const" in node.quals else "") + inner
        if isinstance(node.type, c_ast.FuncDecl):
            return f"{typed(node.type, f'(*{inner})')} noexcept nogil"
        return typed(node.type, "*" + inner)
    if isinstance(node, c_ast.ArrayDecl):
        return typed(node.type, f"{inner}[{node.dim.value if isinstance(node.dim, c_ast.Constant) else node.dim.name}]")
    if isinstance(node, c_ast.FuncDecl):
        return typed(node.type, f"{inner}({parameters(node)})")
    if isinstance(node, c_ast.TypeDecl):
        names = node.type.names if isinstance(node.type, c_ast.IdentifierType) else [node.type.name]
        words = {"bool": "pyrt_bool", "pid_t": "pyrt_pid"}
        name = " ".join(words.get(one, one) for one in names)
        return f"{'const ' if 'const' in node.quals else ''}{name} {inner}".rstrip()
    raise TypeError(f"a type that nobody has thought of: {node}")


def parameters(function: c_ast.FuncDecl) -> str:
    found = []
    for one in function.args.params if function.args else []:
        name = one.name or ""
        text = typed(one.type, name + "_" if keyword.iskeyword(name) else name)
        if text != "void":
            found.append(text)
    return ", ".join(found)


def members(owner: c_ast.Struct | c_ast.Enum) -> list[str]:
    if isinstance(owner, c_ast.Enum):
        return [one.name for one in owner.values.enumerators]
    return [typed(one.type, one.name) for one in owner.decls or []] or ["pass"]


def declaration(node: c_ast.Node) -> list[str]:
    """The lines of one declaration."""
    kind = node.type.type if isinstance(node.type, c_ast.TypeDecl) else node.type
    if isinstance(kind, (c_ast.Struct, c_ast.Enum)):
        word = "struct" if isinstance(kind, c_ast.Struct) else "enum"
        named = f"ctypedef {word} {node.name}:" if isinstance(node, c_ast.Typedef) else f"{word}:"
        return [named, *(f"    {member}" for member in members(kind))]
    if isinstance(node, c_ast.Typedef):
        return [f"ctypedef {typed(node.type, node.name)} noexcept"]
    return [] if NOT_FOR_USERS.search(node.name) else [f"{typed(node.type, node.name)} noexcept"]


def pxd() -> str:
    """The text of the file."""
    tree = c_parser.CParser().parse(c_text())
    lines: list[str] = []
    before_was_block = True
    for node in tree.ext[PRELUDE.count(";") :]:
        found = declaration(node)
        is_block = len(found) > 1
        if found and (is_block or before_was_block):
            lines.append("")
        if found:
            lines += [f"    {line}" for line in found]
            before_was_block = is_block
    return HEAD + "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    OUTPUT.write_text(pxd())
