"""Safe memory reclamation: look at shared things without a lock, and dispose of them when nobody can be looking any more.

The scheme is called QSBR, quiescent-state based reclamation. Readers only say when they are inside (:func:`reading`). A
writer unlinks a thing, so that no reader comes to it anew, and hands it over (:func:`retire`); it is disposed of when every
reader that was inside at that moment has left.

    >>> from pyruntime import barrier, reading, retire
    >>> config = {"current": ["v1"]}
    >>> def reader():
    ...     with reading():
    ...         return config["current"][0]
    >>> def replace(new):
    ...     old, config["current"] = config["current"], new
    ...     retire(old.clear)
    >>> replace(["v2"])
    >>> reader()
    'v2'
    >>> barrier()

A :class:`Domain` is a group of readers. The functions of this module are the methods of :data:`default_domain`, which every
Python interpreter has for itself. A Python thread is detached, and holds nobody up, whenever it is outside of a block.

The scheme is that of FreeBSD's global unbounded sequences, as the free-threaded build of CPython uses it; goals that can be
polled are those of Linux' ``get_state_synchronize_rcu``.
"""

from pyruntime import _core
from pyruntime._core import Section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from pyruntime._records import StallReport, Stats
    from pyruntime.errors import TimeoutExpired

__all__ = [
    "Domain",
    "Goal",
    "Section",
    "StallReport",
    "Stats",
    "advance",
    "attached",
    "barrier",
    "default_domain",
    "poll",
    "quiescent",
    "reading",
    "retire",
    "set_bound",
    "stall_report",
    "stats",
    "synchronize",
]

_LONGEST_NS = 2**63 - 1


def _type_error(message: str) -> Exception:
    from pyruntime.errors import ArgumentTypeError

    return ArgumentTypeError(message)


def _value_error(message: str) -> Exception:
    from pyruntime.errors import ArgumentError

    return ArgumentError(message)


def _nanoseconds(timeout: float | None) -> int:
    """What the compiled part takes; -1 is for ever."""
    if timeout is None:
        return -1
    if isinstance(timeout, (bool, str, bytes, bytearray)) or not hasattr(timeout, "__float__"):
        raise _type_error(f"timeout is a number of seconds, or None to wait for ever, not {_core.shown(timeout)}")
    try:
        seconds = float(timeout)
    except OverflowError:
        seconds = float("inf") if timeout > 0 else float("-inf")
    if seconds != seconds:
        raise _value_error("timeout is a number of seconds, or None to wait for ever, not NaN")
    if seconds < 0:
        raise _value_error(f"timeout is a number of seconds from 0 on, or None to wait for ever, not {_core.shown(timeout)}")
    return int(min(seconds * 1e9, _LONGEST_NS - 1024))


def _count(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _type_error(f"{name} is an int, not {_core.shown(value)}")
    if not 1 <= value < 2**63:
        raise _value_error(f"{name} is from 1 to 2**63 - 1, not {_core.shown(value)}")
    return value


class Goal:
    """A moment that every reader of a domain has to pass, made by :meth:`Domain.advance` and by nothing else.

    Goals of one domain compare by age: an older one is less than a newer one. To compare with anything else raises
    ArgumentTypeError, but for ``==``, which is False.

        >>> from pyruntime import advance
        >>> first, second = advance(), advance()
        >>> first < second
        True
    """

    __slots__ = ("_domain", "_value")

    _domain: "Domain"
    _value: int

    def __new__(cls, *args: object, **kwargs: object) -> "Self":
        raise _type_error("a Goal cannot be made by hand: advance(), of a Domain or of the default one, answers one")

    @property
    def domain(self) -> "Domain":
        """The domain whose readers have to pass it."""
        return self._domain

    @property
    def value(self) -> int:
        """The number of the write sequence; odd, 64 bits, may wrap."""
        return self._value

    def _is_before(self, other: "Goal") -> bool:
        if not isinstance(other, Goal):
            raise _type_error(f"{self!r} compares with other goals of its domain, not with {other!r}")
        if self._domain is not other._domain:
            raise _type_error(f"{self!r} and {other!r} have no order: they are goals of two domains")
        return (self._value - other._value) % 2**64 >= 2**63

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Goal):
            return NotImplemented
        return self._domain is other._domain and self._value == other._value

    def __hash__(self) -> int:
        return hash((id(self._domain), self._value))

    def __lt__(self, other: "Goal") -> bool:
        return self._is_before(other)

    def __le__(self, other: "Goal") -> bool:
        return self._is_before(other) or self._value == other._value

    def __gt__(self, other: "Goal") -> bool:
        return not self <= other

    def __ge__(self, other: "Goal") -> bool:
        return not self < other

    def __repr__(self) -> str:
        return f"<goal {self._value} of {self._domain!r}>"


def _goal(domain: "Domain", value: int) -> Goal:
    goal = object.__new__(Goal)
    goal._domain = domain
    goal._value = value
    return goal


class Domain(_core.Domain):
    """A group of readers, with goals and retired things of its own: ``Domain(name=None)``.

    What is retired in a domain waits for the readers of that domain only, so that a library with a domain of its own does
    not wait for its users' long readers. A domain costs a few kilobytes; one for each shared structure is too many, one for
    each library is about right. The name, of 1 to 31 bytes, stands in reports.

        >>> from pyruntime import Domain
        >>> with Domain(name="cache") as cache:
        ...     with cache.reading():
        ...         pass
        ...     _ = cache.retire(lambda: print("evicted"))
        ...     cache.barrier()
        evicted
        >>> cache.closed
        True

    A thread has a state in it only while it is inside of a block or call, so that :meth:`close` does not wait for idle
    threads. A domain that is not closed is closed when it is collected; a block that is open in it keeps it. If an extension
    keeps it by a thread state or a pin, it stays in memory, and that is reported.

    Raises ArgumentTypeError, ArgumentError (the name), OutOfMemoryError.
    """

    __slots__ = ()

    def advance(self) -> Goal:
        """Ends what was unlinked so far: a goal that every reader has to pass. Does not wait.

            >>> from pyruntime import advance, poll, reading
            >>> with reading():
            ...     goal = advance()
            ...     poll(goal)
            False
            >>> poll(goal)
            True

        Raises StateError when the domain is closed. After CPython's ``_Py_qsbr_advance``.
        """
        return _goal(self, self._advance())

    def poll(self, goal: Goal) -> bool:
        """Whether every reader has passed a goal. The calling thread counts as one while it is inside.

            >>> from pyruntime import advance, poll
            >>> poll(advance())
            True

        Raises ArgumentTypeError for what is no goal, ArgumentError for a goal of another domain, and StateError when the
        domain is closed. After CPython's ``_Py_qsbr_poll``.
        """
        if not isinstance(goal, Goal):
            raise _type_error(f"poll() takes a Goal, which advance() makes, not {_core.shown(goal)}")
        if goal._domain is not self:
            raise _value_error(f"{goal!r} is a goal of another domain than {self!r}: ask the domain that made it")
        return self._poll(goal._value)

    def synchronize(self, timeout: float | None = None) -> None:
        """Waits until every reader that is inside now has left. `timeout` in seconds; None: for ever; 0: looks once.

            >>> from pyruntime import synchronize
            >>> synchronize(timeout=1)

        A thread in an attached() block passes here, and is detached while it waits. Signal handlers run meanwhile.

        Raises TimeoutExpired, which says who is in the way; ArgumentTypeError, ArgumentError (the timeout); StateError
        inside a reading() block, which would wait for itself, and when the domain is closed. After Linux'
        ``synchronize_rcu``.
        """
        if not self._synchronize(_nanoseconds(timeout)):
            raise self._timed_out("synchronize", timeout)

    def barrier(self, timeout: float | None = None) -> None:
        """Waits until all that was retired before, by any thread, has been disposed of, and every callable among it has run.
        `timeout` in seconds; None: for ever; 0: does what can be done without waiting.

            >>> from pyruntime import barrier, retire
            >>> done = []
            >>> retire(lambda: done.append(1))
            True
            >>> barrier()
            >>> done
            [1]

        A thread that retired and then sleeps, detached, holds nothing up: its queue is taken over. A thread that is inside
        of a block is waited for. Signal handlers run meanwhile. What heaps keep of memory that is not in use goes back
        to the system, unless the timeout is 0.

        Raises TimeoutExpired (nothing is lost then: what remains is disposed of later); ArgumentTypeError, ArgumentError
        (the timeout); DeadlockError inside a retired callable; StateError inside a reading() block, and when the domain is
        closed. After Linux' ``rcu_barrier``.
        """
        if not self._barrier(_nanoseconds(timeout)):
            raise self._timed_out("barrier", timeout)

    def stats(self) -> "Stats":
        """Counters, and what waits now. A snapshot: threads go on while it is taken.

            >>> from pyruntime import stats
            >>> stats().pending_items
            0

        Raises StateError when the domain is closed.
        """
        from pyruntime._records import Stats

        return Stats(**self._stats())

    def stall_report(self) -> "StallReport | None":
        """Who holds up the oldest goal that somebody waits for; None if nobody does.

            >>> from pyruntime import advance, poll, reading, stall_report
            >>> with reading():
            ...     poll(advance())
            ...     stall_report().thread_name
            False
            'MainThread'
            >>> stall_report() is None
            True

        Raises StateError when the domain is closed.
        """
        fields = self._stall_report()
        if fields is None:
            return None
        from pyruntime._records import StallReport

        thread, name, tid, interpreter, goal, held_ns, items, nbytes, heap_bytes = fields
        return StallReport(thread, name, tid, interpreter, goal, held_ns / 1e9, items, nbytes, heap_bytes)

    def set_bound(self, *, items: int, nbytes: int) -> None:
        """How much of one thread may wait before retire() answers False: so many callables, or so many bytes.

            >>> from pyruntime import Domain
            >>> with Domain() as domain:
            ...     domain.set_bound(items=1000, nbytes=2**24)

        It starts at 65536 items and 1 MiB. Raises ArgumentTypeError, ArgumentError, and StateError when the domain is
        closed.
        """
        self._set_bound(_count("items", items), _count("nbytes", nbytes))

    def _timed_out(self, what: str, timeout: float | None) -> "TimeoutExpired":
        from pyruntime.errors import TimeoutExpired
        from pyruntime.state import threads

        report = self.stall_report()
        inside = [repr(thread.name) for thread in threads(self.interpreter_id) if thread.state == "attached"]
        reason = "the readers have left meanwhile, call it again"
        if report is not None:
            reason = str(report)
        elif inside:
            who = f"thread {inside[0]} is" if len(inside) == 1 else f"threads {', '.join(inside)} are"
            reason = f"{who} inside of a block"
        return TimeoutExpired(f"{what}(timeout={timeout!r}) of {self!r} timed out: {reason}")

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: "TracebackType | None"
    ) -> None:
        self.close()


#: The domain of this Python interpreter, which the functions of this module are about.
default_domain: Domain = Domain._default()

reading = default_domain.reading
attached = default_domain.attached
quiescent = default_domain.quiescent
advance = default_domain.advance
poll = default_domain.poll
synchronize = default_domain.synchronize
retire = default_domain.retire
barrier = default_domain.barrier
stats = default_domain.stats
stall_report = default_domain.stall_report
set_bound = default_domain.set_bound


def __getattr__(name: str) -> object:
    if name in ("StallReport", "Stats"):
        from pyruntime import _records

        return getattr(_records, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"__dir__", "__getattr__"})
