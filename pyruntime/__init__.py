"""The machinery of free-threaded Python as a library, on every CPython from 3.10 on, with and without the GIL.

What stands here are the best names of the modules:

- :mod:`pyruntime.qsbr`: look at shared things without a lock, and dispose of them when nobody can be looking any more.
- :mod:`pyruntime.sync`: locks, events and conditions that wait without holding anybody up.
- :mod:`pyruntime.heap`: memory apart from Python's own, and what is known of it.
- :mod:`pyruntime.state`: thread states, pauses, and what runs here.
- :mod:`pyruntime.refcount`: references that many threads count without a counter in common.
- :mod:`pyruntime.weakref`: a cache of living objects that many threads look up.
- :mod:`pyruntime.rcu`: one object that many threads read without a lock, and replace as a whole.
- :mod:`pyruntime.errors`: the exceptions.

Extensions in C use the same runtime through the headers in :func:`get_include` and the capsule ``pyruntime._C_API``.
"""

# What most programs do not use at once is loaded when it is first asked for: the import is part of every start of theirs. So
# there is no "from __future__" here and in qsbr either; it would be a module more.


def _find_no_such_part(name: str) -> object:
    """The compiled part is asked for what it lacks. No AttributeError: of its words an import would leave nothing."""
    if name.startswith("_"):
        raise AttributeError(f"module 'pyruntime._core' has no attribute {name!r}")
    from pyruntime._explain import explain_missing

    raise ImportError(explain_missing(name, str(_core.__file__)), name="pyruntime", path=_core.__file__)


try:
    from pyruntime import _core
except ImportError as _error:
    from pyruntime._explain import stand_in

    _core = stand_in(_error, __path__)
else:
    if _core.lib.pyrt_py_attach() != 0:
        raise ImportError("pyruntime could not start; the reason stands above", name="pyruntime")

    vars(_core)["__getattr__"] = _find_no_such_part

    from pyruntime.qsbr import (
        Domain,
        Goal,
        advance,
        attached,
        barrier,
        default_domain,
        poll,
        quiescent,
        reading,
        retire,
        set_bound,
        stall_report,
        stats,
        synchronize,
    )

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyruntime import errors, heap, rcu, refcount, state, sync, weakref
    from pyruntime._embedding import get_cmake_dir, get_ffi, get_include, get_pkgconfig_dir, get_sources
    from pyruntime.errors import (
        ArgumentError,
        ArgumentTypeError,
        BufferInUseError,
        BusyError,
        DeadlockError,
        Error,
        NotFoundError,
        OutOfMemoryError,
        RangeError,
        StateError,
        TimeoutExpired,
    )
    from pyruntime.heap import Buffer, Heap
    from pyruntime.qsbr import Section, StallReport, Stats
    from pyruntime.rcu import RCUCell
    from pyruntime.refcount import SharedRef
    from pyruntime.state import (
        InterpreterInfo,
        Pause,
        PauseStats,
        RuntimeInfo,
        ThreadInfo,
        current,
        interpreters,
        pause_stats,
        runtime_info,
        stop_the_world,
        threads,
    )
    from pyruntime.sync import (
        Condition,
        CriticalSection,
        Event,
        Mutex,
        Once,
        RLock,
        RWLock,
        RWLockSide,
        StripedLock,
        Stripes,
    )
    from pyruntime.weakref import WeakRegistry

__all__ = [
    "ArgumentError",
    "ArgumentTypeError",
    "Buffer",
    "BufferInUseError",
    "BusyError",
    "Condition",
    "CriticalSection",
    "DeadlockError",
    "Domain",
    "Error",
    "Event",
    "Goal",
    "Heap",
    "InterpreterInfo",
    "Mutex",
    "NotFoundError",
    "Once",
    "OutOfMemoryError",
    "Pause",
    "PauseStats",
    "RCUCell",
    "RLock",
    "RWLock",
    "RWLockSide",
    "RangeError",
    "RuntimeInfo",
    "Section",
    "SharedRef",
    "StallReport",
    "StateError",
    "Stats",
    "StripedLock",
    "Stripes",
    "ThreadInfo",
    "TimeoutExpired",
    "WeakRegistry",
    "__version__",
    "advance",
    "attached",
    "barrier",
    "current",
    "default_domain",
    "errors",
    "get_cmake_dir",
    "get_ffi",
    "get_include",
    "get_pkgconfig_dir",
    "get_sources",
    "heap",
    "interpreters",
    "pause_stats",
    "poll",
    "qsbr",
    "quiescent",
    "rcu",
    "reading",
    "refcount",
    "retire",
    "runtime_info",
    "set_bound",
    "stall_report",
    "state",
    "stats",
    "stop_the_world",
    "sync",
    "synchronize",
    "threads",
    "weakref",
]

__version__: str = _core.version

_C_API = _core._C_API


_HOMES = {
    "_embedding": ("get_cmake_dir", "get_ffi", "get_include", "get_pkgconfig_dir", "get_sources"),
    "heap": ("Buffer", "Heap"),
    "qsbr": ("Section", "StallReport", "Stats"),
    "rcu": ("RCUCell",),
    "refcount": ("SharedRef",),
    "sync": (
        "Condition",
        "CriticalSection",
        "Event",
        "Mutex",
        "Once",
        "RLock",
        "RWLock",
        "RWLockSide",
        "StripedLock",
        "Stripes",
    ),
    "weakref": ("WeakRegistry",),
}


def _home_of(name: str) -> str:
    """The module of a name that is loaded when it is first asked for."""
    if name.endswith(("Error", "Expired")):
        return "pyruntime.errors"
    return "pyruntime." + next((home for home, names in _HOMES.items() if name in names), "state")


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if name in ("errors", "heap", "rcu", "refcount", "state", "sync", "weakref"):
        return import_module(f"pyruntime.{name}")
    value: object = getattr(import_module(_home_of(name)), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"__dir__", "__getattr__"})
