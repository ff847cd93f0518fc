"""The exceptions of pyruntime. Every one is an :class:`Error`, and one of the built-in exceptions that people catch anyway.

>>> from pyruntime import Domain, Error
>>> try:
...     Domain(name="")
... except ValueError as error:
...     isinstance(error, Error)
True
"""

from __future__ import annotations

__all__ = [
    "AlreadyExistsError",
    "ArgumentError",
    "ArgumentTypeError",
    "BufferInUseError",
    "BusyError",
    "DeadlockError",
    "Error",
    "InterruptedCallError",
    "NotFoundError",
    "NotShareableError",
    "OutOfMemoryError",
    "RangeError",
    "StateError",
    "TimeoutExpired",
    "UnsupportedError",
    "VersionError",
]


class Error(Exception):
    """The base of all exceptions that pyruntime raises by itself."""


class OutOfMemoryError(Error, MemoryError):
    """There was no memory; nothing was done."""


class ArgumentError(Error, ValueError):
    """An argument has a value that the function does not take."""


class ArgumentTypeError(Error, TypeError):
    """An argument has a type that the function does not take."""


class StateError(Error, RuntimeError):
    """Not now: the thread, the domain or the interpreter is not in the state that the call needs."""


class TimeoutExpired(Error, TimeoutError):
    """The time ran out. What was begun goes on by itself, or was undone, as the function says."""


class BusyError(Error, RuntimeError):
    """It is in use: end what uses it, and call again."""


class BufferInUseError(Error, BufferError):
    """Somebody still looks at the memory: release the views first."""


class NotFoundError(Error, LookupError):
    """There is no such thing, or no longer."""


class RangeError(Error, OverflowError):
    """A number does not fit."""


class NotShareableError(Error, TypeError):
    """The object cannot go to another interpreter."""


class AlreadyExistsError(Error, ValueError):
    """There is one already."""


class InterruptedCallError(Error, InterruptedError):
    """A signal came in between."""


class DeadlockError(Error, RuntimeError):
    """Waiting here would wait for ever."""


class UnsupportedError(Error, NotImplementedError):
    """This system, or this build, cannot do it."""


class VersionError(Error, ImportError):
    """Two parts do not fit together in their versions."""


#: The class for each ``pyrt_status`` of the C API, by its number. The number 0 is success and never raised.
BY_STATUS: tuple[type[Error], ...] = (
    Error,
    OutOfMemoryError,
    ArgumentError,
    StateError,
    TimeoutExpired,
    BusyError,
    NotFoundError,
    RangeError,
    NotShareableError,
    AlreadyExistsError,
    InterruptedCallError,
    DeadlockError,
    UnsupportedError,
    VersionError,
)

# How the compiled part finds them.
_FOR_THE_COMPILED_PART = (*BY_STATUS, ArgumentTypeError, BufferInUseError)
