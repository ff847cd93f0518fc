"""What to do when the compiled part does not load, or is not that of these Python modules. Loaded only then.

Neither importlib.util nor sysconfig is imported here: they import threading, and Python 3.12 never ends an interpreter in
which another thread has done that than the one that ends it.
"""

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn


def explain(error: ImportError) -> str:
    """The message of the ImportError that the user sees."""
    if error.name == "_cffi_backend" and isinstance(error, ModuleNotFoundError):
        return "pyruntime needs cffi 2.1.1 or newer: python -m pip install 'cffi>=2.1.1'"
    if _cffi_cannot(error):
        if "t" in sys.abiflags:
            where, instead = "a subinterpreter of a free-threaded Python", "the main interpreter"
        else:
            where, instead = (
                "a Python interpreter with a GIL of its own",
                "the main interpreter, or in one that shares its GIL",
            )
        return (
            f"the Python side of pyruntime cannot be used in {where}, because cffi cannot be loaded there: "
            f"use it in {instead}. Extensions that use pyruntime through its function table work here, too"
        )
    if "cannot import name '_core'" in str(error):
        return (
            "pyruntime._core, the compiled part of pyruntime, is missing for this Python: install the package with "
            "'python -m pip install pyruntime-ft', or a source tree with 'python -m pip install -e .' in its root"
        )
    return f"the compiled part of pyruntime does not load: {error}"


def _cffi_cannot(error: ImportError) -> bool:
    return "subinterpreters" in str(error)


def stand_in(error: ImportError, path: Sequence[str]) -> Any:
    """What takes the place of pyruntime._core where only cffi is in the way: it has the table for extensions, and says of
    all else why it is not there. Raises ImportError where it is something else that does not load."""
    words = explain(error)
    table = _load_table(path) if _cffi_cannot(error) else None
    if table is None:
        raise ImportError(words, name="pyruntime") from error

    def refuse(name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ImportError(words, name="pyruntime")

    module = ModuleType("pyruntime._core", words)
    for name in ("_C_API", "abi_version", "uses_limited_api", "version"):
        setattr(module, name, getattr(table, name))
    module.__getattr__ = refuse  # type: ignore[method-assign]
    sys.modules["pyruntime._core"] = module
    return module


def _load_table(path: Sequence[str]) -> ModuleType | None:
    """pyruntime._table, a second module in the file of pyruntime._core."""
    from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder

    compiled = PathFinder.find_spec("pyruntime._core", path)
    if compiled is None or compiled.origin is None:
        return None
    loader = ExtensionFileLoader("pyruntime._table", compiled.origin)
    module = loader.create_module(ModuleSpec("pyruntime._table", loader, origin=compiled.origin))
    loader.exec_module(module)
    return module


def explain_missing(name: str, path: str) -> str:
    """The message of the ImportError when the compiled part lacks what a module of the package asks it for."""
    return (
        f"the compiled part of pyruntime ({path}) has no {name!r}: it was built from other sources than these modules. "
        "After a change of a source tree, as by a pull, run 'python -m pip install -e .' in its root again; an installed "
        "package wants 'python -m pip install --force-reinstall pyruntime-ft'"
    )
