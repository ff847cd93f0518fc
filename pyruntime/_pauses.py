"""Pauses of the world from Python; :mod:`pyruntime.state` has them in public."""

from __future__ import annotations

from pyruntime import _core
from pyruntime._core import ffi, lib
from pyruntime.errors import ArgumentError, ArgumentTypeError, StateError
from pyruntime.qsbr import Domain, _nanoseconds, default_domain

_core.add_sync_types()
Pause = _core.Pause

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyruntime._records import PauseStats


def _whose(function: str, domain: Domain | None, everything: bool) -> Domain | None:
    """The domain that a call is about; None: everything."""
    if domain is not None and not isinstance(domain, Domain):
        raise ArgumentTypeError(f"domain is a Domain, or None for the default one, not {_core.shown(domain)}")
    if not isinstance(everything, bool):
        raise ArgumentTypeError(f"everything is True or False, not {_core.shown(everything)}")
    if everything and domain is not None:
        raise ArgumentError(f"{function}() takes a domain or everything=True, not both")
    return None if everything else default_domain if domain is None else domain


def stop_the_world(timeout: float | None = None, *, domain: Domain | None = None, everything: bool = False) -> Pause:
    """A block in which no other thread is inside of pyruntime: for a with statement.

    What stands still are thread states, as :func:`threads` lists them. A thread inside of an attached() or reading() block
    stops at its next safepoint (``quiescent()``, a contended lock, the end of the block), a C thread at its own; who is
    outside cannot come in. **Python's own threads go on**: they run bytecode, hold the GIL and change what they like, until
    they come to a block of pyruntime. So this guards what is touched inside of such blocks only, and data of extensions that
    keep to the rule; it is no substitute for a lock around plain Python code.

        >>> from pyruntime import stop_the_world
        >>> with stop_the_world(timeout=5.0) as pause:
        ...     pass  # look at what the others change, or change what they look at
        >>> 0 <= pause.time_to_stop < 5, pause.duration > 0
        (True, True)

    timeout: how many seconds to wait for the stop, at most; None, or infinity: without end. domain: whose threads; None:
    those of :data:`~pyruntime.qsbr.default_domain`. everything: all domains of the process, and what C code has made. The
    pause tells ``time_to_stop`` and ``duration`` in seconds, and ``stopped_threads``, a number.

    Keep it short. Pauses of different domains may overlap; those of one wait for each other, and one of everything waits
    for all. Inside, whatever would wait for a lock of :mod:`pyruntime.sync` raises DeadlockError with the owner's name,
    because the owner may be one who stands still. Ctrl-C ends the wait for the stop. A thread that ends inside of its block
    starts the world again.

    Raises on entering: TimeoutExpired, a TimeoutError, which names the thread that has not stopped, and then nothing is
    stopped; StateError inside of another pause of this thread, inside a reading() block, inside a block of another domain
    than the one to stop, and when the domain is closed. ArgumentTypeError and ArgumentError at once.

    After the stop-the-world of CPython's free-threaded build, and of the collectors of Java and Go.
    """
    return _core.new_pause(_whose("stop_the_world", domain, everything), _nanoseconds(timeout))


def pause_stats(*, domain: Domain | None = None, everything: bool = False) -> PauseStats:
    """What the pauses of a domain have cost, or (everything) those of the whole process at once.

        >>> from pyruntime import pause_stats, stop_the_world
        >>> before = pause_stats().pauses
        >>> with stop_the_world():
        ...     pass
        >>> pause_stats().pauses - before
        1

    domain: None: :data:`~pyruntime.qsbr.default_domain`. Raises ArgumentTypeError and ArgumentError, and StateError when the
    domain is closed. After HotSpot's log of safepoints.
    """
    from pyruntime._records import PauseStats

    whose = _whose("pause_stats", domain, everything)
    stats = ffi.new("pyrt_pause_stats *", {"struct_size": ffi.sizeof("pyrt_pause_stats")})
    interp = ffi.NULL if whose is None else lib.pyrt_interp_pin(whose.interpreter_id)
    if whose is not None and interp == ffi.NULL:
        raise StateError(f"pause_stats(): {whose!r} is closed")
    try:
        status = lib.pyrt_stop_the_world_stats(interp, stats)
    finally:
        if interp != ffi.NULL:
            lib.pyrt_interp_unpin(interp)
    if status != lib.PYRT_OK:
        raise StateError("pause_stats(): the runtime has ended")
    times = [stats.to_stop_p50_ns, stats.to_stop_p99_ns, stats.to_stop_max_ns]
    times += [stats.stopped_p50_ns, stats.stopped_p99_ns, stats.stopped_max_ns, stats.stopped_total_ns]
    return PauseStats(stats.pauses, stats.timed_out, stats.turns_lost, *(time * 1e-9 for time in times))
