"""Where an extension finds what it is built with: the headers, the sources of the core, and the files of build systems.

``csrc`` lies in an installed package as it lies in the source tree, so everything in it has one place.
"""

from __future__ import annotations

import os
import os.path

TYPE_CHECKING = False
if TYPE_CHECKING:
    import cffi

# As they stand on every command line that compiles the core.
CORE_OPTIONS = ("-std=gnu11", "-fvisibility=hidden")


def _csrc(*names: str) -> str:
    package = os.path.dirname(os.path.abspath(__file__))
    installed = os.path.join(package, "csrc")
    csrc = installed if os.path.isdir(installed) else os.path.join(os.path.dirname(package), "csrc")
    return os.path.join(csrc, *names)


def get_include() -> str:
    """The directory of the public C headers, for the ``include_dirs`` of an extension.

    >>> import os, pyruntime
    >>> os.path.isfile(os.path.join(pyruntime.get_include(), "pyruntime", "capi.h"))
    True
    """
    return _csrc("include")


def get_sources() -> list[str]:
    """The C files of the core, for the ``sources`` of what compiles it in.

    They want ``-std=gnu11``, ``-pthread``, and two include directories: :func:`get_include`, and the one that all of them
    are in.

    >>> import os, pyruntime
    >>> os.path.commonpath(pyruntime.get_sources()).endswith("core")
    True
    """
    return sorted(
        os.path.join(directory, name)
        for directory, _, names in os.walk(_csrc("core"))
        for name in names
        if name.endswith(".c")
    )


def get_cmake_dir() -> str:
    """The directory of ``pyruntimeConfig.cmake``: what ``pyruntime_DIR`` has to be for ``find_package(pyruntime)``.

    >>> import os, pyruntime
    >>> os.path.isfile(os.path.join(pyruntime.get_cmake_dir(), "pyruntimeConfig.cmake"))
    True
    """
    return _csrc("cmake")


def get_pkgconfig_dir() -> str:
    """The directory of ``pyruntime.pc``, for ``PKG_CONFIG_PATH``.

    >>> import os, pyruntime
    >>> os.path.isfile(os.path.join(pyruntime.get_pkgconfig_dir(), "pyruntime.pc"))
    True
    """
    return _csrc("lib", "pkgconfig")


def get_ffi() -> cffi.FFI:
    """What C functions and types there are, for the builder of another cffi module: ``ffi.include(pyruntime.get_ffi())``.

    The module then shares the types and the functions of this package. C text of its own that calls them begins with
    ``#include <pyruntime/capi.h>``, which needs :func:`get_include`, and nothing else.

    Inline functions (``pyrt_mutex_lock``, ``pyrt_safepoint``) are not in it. C text calls them as they are; for calls from
    Python, declare those that are wanted in a ``cdef`` of the module's own, as the headers do but without the body.

    >>> import cffi, pyruntime
    >>> ffi = cffi.FFI()
    >>> ffi.include(pyruntime.get_ffi())
    >>> ffi.cdef("pyrt_status mine(pyrt_thread *thread);")
    """
    from pathlib import Path

    from cffi import FFI

    from pyruntime._declarations import callable_cdef

    ffi = FFI()
    ffi.cdef("\n".join(callable_cdef(Path(_csrc("include", "pyruntime")))))
    ffi.set_source("pyruntime._core", "#error this is built by pyruntime")
    return ffi


def core_cflags() -> list[str]:
    """The compiler options of the core and of what it is compiled together with."""
    return [*CORE_OPTIONS, f"-I{get_include()}", f"-I{_csrc('core')}", "-pthread"]


def capi_cflags() -> list[str]:
    """The compiler options of an extension that uses the runtime of the process."""
    return [f"-I{get_include()}", "-pthread"]
