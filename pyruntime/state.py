"""Thread states: who takes part, and in which state it is.

An OS thread takes part in a domain through a state of its own, which is *detached* (it looks at nothing shared and holds
nobody up) or *attached*. Python threads are attached only inside of the blocks of :mod:`pyruntime.qsbr` and of
:func:`attached`; C threads as long as they like.

    >>> from pyruntime.state import attached, current
    >>> current() is None
    True
    >>> with attached():
    ...     current().state
    'attached'

After the thread states of CPython's free-threaded build, without the rest of the interpreter.
"""

from __future__ import annotations

import sys

from pyruntime import _core
from pyruntime._core import Section, ffi, lib
from pyruntime._pauses import Pause, pause_stats, stop_the_world
from pyruntime.errors import ArgumentTypeError, NotFoundError
from pyruntime.qsbr import attached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyruntime._records import InterpreterInfo, PauseStats, RuntimeInfo, ThreadInfo, ThreadState

__all__ = [
    "InterpreterInfo",
    "Pause",
    "PauseStats",
    "RuntimeInfo",
    "Section",
    "ThreadInfo",
    "attached",
    "current",
    "interpreters",
    "pause_stats",
    "runtime_info",
    "stop_the_world",
    "threads",
]

_STATES: dict[int, ThreadState] = {
    lib.PYRT_STATE_DETACHED: "detached",
    lib.PYRT_STATE_ATTACHED: "attached",
    lib.PYRT_STATE_SUSPENDED: "suspended",
    lib.PYRT_STATE_SHUTTING_DOWN: "shutting down",
}


def _text(chars: Any) -> str:
    """Of a C string, which may have been cut in the middle of a character."""
    raw: bytes = ffi.string(chars)
    return raw.decode("utf-8", "replace")


def _interpreter_ids() -> list[int]:
    capacity = 16
    while True:
        ids = ffi.new("int64_t[]", capacity)
        count: int = lib.pyrt_interp_list(ids, capacity)
        if count <= capacity:
            return list(ids[0:count])
        capacity = 2 * count


def _threads_of(interp: Any) -> list[ThreadInfo]:
    from pyruntime._records import ThreadInfo

    capacity = 16
    while True:
        found = ffi.new("pyrt_thread_info[]", capacity)
        count = lib.pyrt_thread_list(interp, found, capacity)
        if count <= capacity:
            break
        capacity = 2 * count
    return [
        ThreadInfo(one.id, _text(one.name), one.os_tid, one.interp_id, one.index, _STATES[one.state])
        for one in found[0:count]
    ]


def threads(interpreter_id: int | None = None) -> list[ThreadInfo]:
    """The thread states of one of pyruntime's interpreters, or of all, oldest first.

    Each is read once and may have moved on meanwhile.

        >>> from pyruntime.state import attached, threads
        >>> with attached():
        ...     [thread.state for thread in threads() if thread.name == "MainThread"]
        ['attached']

    Raises ArgumentTypeError, and NotFoundError when there is no interpreter with this id.
    """
    if interpreter_id is None:
        ids = _interpreter_ids()
    elif isinstance(interpreter_id, bool) or not isinstance(interpreter_id, int):
        raise ArgumentTypeError(f"interpreter_id is an int, or None for all, not {interpreter_id!r}")
    else:
        ids = [interpreter_id]
    found: list[ThreadInfo] = []
    for one in ids:
        interp = lib.pyrt_interp_pin(one) if -(2**63) <= one < 2**63 else ffi.NULL
        if interp != ffi.NULL:
            try:
                found += _threads_of(interp)
            finally:
                lib.pyrt_interp_unpin(interp)
        elif interpreter_id is not None:
            raise NotFoundError(
                f"there is no interpreter with id {_core.shown(interpreter_id)}, or no longer; interpreters() lists them"
            )
    return sorted(found, key=lambda thread: thread.id)


def current() -> ThreadInfo | None:
    """The attached state of this thread, or None where the thread is outside of all blocks.

    >>> from pyruntime.state import current
    >>> current() is None
    True
    """
    ids = _core.attached_thread()
    if ids is None:
        return None
    thread_id, interpreter_id = ids
    return next(thread for thread in threads(interpreter_id) if thread.id == thread_id)


def interpreters() -> list[InterpreterInfo]:
    """All of pyruntime's interpreters in this process, oldest first.

    The main one, those of Python's other interpreters, domains, and those that C code has made.

        >>> from pyruntime import Domain
        >>> from pyruntime.state import interpreters
        >>> with Domain(name="mine") as mine:
        ...     [one.name for one in interpreters() if one.id == mine.interpreter_id]
        ['mine']
    """
    from pyruntime._records import InterpreterInfo

    whences: dict[int, Any] = {
        lib.PYRT_WHENCE_RUNTIME: "the runtime",
        lib.PYRT_WHENCE_CAPI: "a C extension",
        lib.PYRT_WHENCE_STDLIB: "Python code",
    }
    found = []
    for one in _interpreter_ids():
        interp = lib.pyrt_interp_pin(one)
        if interp == ffi.NULL:
            continue
        try:
            whence = whences.get(lib.pyrt_interp_whence(interp), "unknown")
            found.append(InterpreterInfo(one, _text(lib.pyrt_interp_name(interp)), whence))
        finally:
            lib.pyrt_interp_unpin(interp)
    return found


def runtime_info() -> RuntimeInfo:
    """Versions, and what this build and this Python are.

    >>> from pyruntime import __version__
    >>> from pyruntime.state import runtime_info
    >>> runtime_info().version == __version__
    True
    """
    import platform

    from pyruntime._records import RuntimeInfo

    is_gil_enabled = getattr(sys, "_is_gil_enabled", lambda: True)
    return RuntimeInfo(
        version=_text(lib.pyrt_version()),
        abi_version=_core.abi_version,
        uses_limited_api=_core.uses_limited_api,
        compiled_part=str(_core.__file__),
        python_version=platform.python_version(),
        python_implementation=platform.python_implementation(),
        gil_enabled=is_gil_enabled(),
        platform=platform.platform(),
    )


def __getattr__(name: str) -> object:
    if name in ("InterpreterInfo", "PauseStats", "RuntimeInfo", "ThreadInfo"):
        from pyruntime import _records

        return getattr(_records, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"__dir__", "__getattr__"})
