"""An extension meets a table that it cannot work with: each time an exception that names both versions and the mend."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from installed import CC, Samples

import pyruntime

MAJOR, MINOR = pyruntime.runtime_info().abi_version

# A copy of the true table, to be falsified, in a package of its own.
PRELUDE = """
import ctypes, importlib.machinery, importlib.util, struct, sys, types
import pyruntime

api = ctypes.pythonapi
api.PyCapsule_GetPointer.restype, api.PyCapsule_GetPointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
api.PyCapsule_New.restype, api.PyCapsule_New.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
NAME = ctypes.c_char_p(b"pyruntime._C_API")
true = api.PyCapsule_GetPointer(pyruntime._C_API, NAME)
size = ctypes.c_size_t.from_address(true + 8).value
table = ctypes.create_string_buffer(ctypes.string_at(true, size), size)
package = types.ModuleType("pyruntime")
package._C_API = api.PyCapsule_New(ctypes.addressof(table), NAME, None)
sys.modules["pyruntime"] = package

def load(name, path):
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    try:
        loader.exec_module(module)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return f"it works: {module.runtime_address() != 0}"
"""

OTHER_MAJOR = "struct.pack_into('I', table, 0, 7)"
OLDER_MINOR = "struct.pack_into('I', table, 4, 1)"
TRUNCATED = "struct.pack_into('N', table, 8, size - 8)"
OTHER_LAYOUT = """
count, items = struct.unpack_from("NP", table, size - 24)
layout = ctypes.create_string_buffer(ctypes.string_at(items, 16 * count), 16 * count)
struct.pack_into("Q", layout, 16 * 1 + 8, 4096)
struct.pack_into("P", table, size - 16, ctypes.addressof(layout))
"""

WRONG = {
    "another major": (
        OTHER_MAJOR,
        f"ImportError: compiled for pyruntime ABI {MAJOR}.{MINOR}, but the installed pyruntime has ABI 7.{MINOR}: rebuild "
        f"this extension against it, or install a pyruntime-ft with ABI {MAJOR}",
    ),
    "an older minor": (
        OLDER_MINOR,
        f"ImportError: needs pyruntime ABI {MAJOR}.{MINOR} or a newer minor, but the installed pyruntime has ABI {MAJOR}.1: "
        "upgrade pyruntime-ft",
    ),
    "a truncated table": (
        TRUNCATED,
        f"ImportError: the installed pyruntime says that it has ABI {MAJOR}.{MINOR}, but its table ends after ",
    ),
    "another layout": (
        OTHER_LAYOUT,
        f"ImportError: compiled for pyruntime ABI {MAJOR}.{MINOR} with pyrt_tls_block.self_id 8, but that is 4096 in the "
        f"installed pyruntime, ABI {MAJOR}.{MINOR}: rebuild this extension against it",
    ),
    "no capsule": (
        "del package._C_API",
        f"ImportError: compiled for pyruntime ABI {MAJOR}.{MINOR}, but the package pyruntime has no table _C_API: it is "
        "another package, or its compiled part is missing; install pyruntime-ft again",
    ),
    "another capsule": (
        "package._C_API = api.PyCapsule_New(ctypes.addressof(table), ctypes.c_char_p(b'other'), None)",
        f"ImportError: compiled for pyruntime ABI {MAJOR}.{MINOR}, but the package pyruntime has no table _C_API",
    ),
    "no package": (
        "del sys.modules['pyruntime']; sys.path[:] = []; sys.meta_path[:] = []",
        f"ModuleNotFoundError: compiled for pyruntime ABI {MAJOR}.{MINOR}, but there is no package pyruntime: "
        "python -m pip install pyruntime-ft",
    ),
    "what there is": ("", "it works: True"),
}


@pytest.fixture(scope="module")
def sample(samples: Samples) -> Path:
    return samples.build("sample_one")


def said_by(sample: Path, change: str) -> str:
    program = f"{PRELUDE}\n{change}\nprint(load('sample_one', {str(sample)!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("case", WRONG)
def test_a_table_that_does_not_fit(sample: Path, case: str) -> None:
    change, words = WRONG[case]
    assert said_by(sample, change).startswith(words)


def test_the_target_is_the_oldest_minor_version_that_will_do(samples: Samples, tmp_path: Path) -> None:
    """Built against these headers for the users of the previous version: its table is shorter, and has no layout."""
    path = samples.sample(tmp_path, "sample_one", "-DPYRT_ABI_TARGET=1")
    assert said_by(path, OLDER_MINOR + "; struct.pack_into('N', table, 8, size - 32)") == "it works: True\n"
    assert "but its table ends after" in said_by(path, OLDER_MINOR + "; struct.pack_into('N', table, 8, size - 40)")


def test_a_target_that_the_headers_do_not_have(tmp_path: Path) -> None:
    file = tmp_path / "late.c"
    file.write_text("#include <pyruntime/capi.h>\n")
    command = [CC, "-fsyntax-only", "-DPYRT_ABI_TARGET=99", f"-I{pyruntime.get_include()}", str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "PYRT_ABI_TARGET is a newer minor version of the table than that of these headers" in done.stderr
