"""References to one object from many threads, counted without a counter that they all write to.

:class:`SharedRef` is a counted reference to any object, for what has to be closed when the last of several threads is
done with it, at once and not whenever a collector comes by:

    >>> from pyruntime.refcount import SharedRef
    >>> first = SharedRef("connection", finalizer=lambda name: print("closing the", name))
    >>> second = first.clone()                     # for another thread
    >>> first.drop()
    >>> second.drop()
    closing the connection

Its counts are *biased*: the thread that makes the first one owns the count, and counts in ``local`` without an atomic
operation; all others count in ``shared``. When a reference is dropped elsewhere that may have been the last, the owner
is asked to *merge* the two, or, if it is outside of all blocks or has ended, that is done for it. ``python -m pyruntime
explain`` shows each step.

What to rely on:

====================================  ==================================================================================
a finalizer                           runs once, when the last reference has gone; see :class:`SharedRef` for where
its exceptions                        go to ``sys.unraisablehook``
values that refer to each other       SharedRefs that end because others end do so in little stack, however many they are
a circle                              Python's collector sees the value through its SharedRefs, and ends circles through
                                      any number of them, with the finalizer
the same SharedRef on two threads     is safe; who comes after the ``drop()`` gets StateError. A clone for each is better
a thread that ends                    takes nothing with it: what it owns is counted on by all others
``fork``                              the child has the references of all threads. What was another thread's to finalize is
                                      done by whoever calls :func:`settle`; what that was in the middle of is lost
the exit of the interpreter           what has ended by then, and what ends on the way, is finalized; what is never dropped
                                      may be left, as any object may
another interpreter                   a SharedRef belongs to its own
====================================  ==================================================================================
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, TextIO

from pyruntime import _core
from pyruntime._core import ffi, lib
from pyruntime._records import RefcountStats
from pyruntime.errors import ArgumentTypeError, StateError
from pyruntime.qsbr import Domain, default_domain

_core.add_sync_types()

from pyruntime._core import SharedRef, settle  # noqa: E402  (made by the line above)

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["RefcountStats", "SharedRef", "explain", "settle", "stats"]


def stats(*, domain: Domain | None = None) -> RefcountStats:
    """How often owners have been asked to merge their counts, and what came of it. Threads go on while it is read.

        >>> from threading import Thread
        >>> from pyruntime.refcount import SharedRef, stats
        >>> first = SharedRef("made here")
        >>> before = stats().merges_asked
        >>> thread = Thread(target=first.drop)
        >>> thread.start(); thread.join()
        >>> stats().merges_asked - before
        1

    domain: None: :data:`~pyruntime.qsbr.default_domain`, which has all SharedRefs; others have objects of C code. Raises
    ArgumentTypeError, and StateError when the domain is closed.
    """
    whose = default_domain if domain is None else domain
    if not isinstance(whose, Domain):
        raise ArgumentTypeError(f"domain is a Domain, or None for the default one, not {_core.shown(domain)}")
    interp = lib.pyrt_interp_pin(whose.interpreter_id)
    if interp == ffi.NULL:
        raise StateError(f"stats(): {whose!r} is closed")
    found = ffi.new("pyrt_object_stats *", {"struct_size": ffi.sizeof("pyrt_object_stats")})
    lib.pyrt_object_stats_read(interp, found)
    lib.pyrt_interp_unpin(interp)
    return RefcountStats(
        merges_asked=found.merges_asked,
        merges_done=found.merges_done,
        merges_for_ended=found.merges_for_ended,
        queues_borrowed=found.queues_borrowed,
        longest_queue=found.longest_queue,
        longest_wait=found.longest_wait_ns * 1e-9,
        immortal=found.immortal,
        unique_ids=found.unique_ids,
    )


class _Actor:
    """A thread that does what it is told, one thing at a time, with its state attached from begin to end."""

    def __init__(self, name: str) -> None:
        self._orders: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name=name)
        self._thread.start()

    def _work(self) -> None:
        with default_domain.attached():
            while (order := self._orders.get()) is not None:
                call, answer = order
                try:
                    answer.set_result(call())
                except BaseException as error:
                    answer.set_exception(error)
                # So that nothing of it stays until the next one.
                del order, call, answer

    def do(self, call: Callable[[], Any]) -> Any:
        from concurrent.futures import Future

        answer: Future[Any] = Future()
        self._orders.put((call, answer))
        return answer.result()

    def end(self) -> None:
        self._orders.put(None)
        self._thread.join()


def _step(file: TextIO, title: str, seen: SharedRef[str] | None, why: str) -> None:
    print(title, file=file)
    if seen is not None:
        queue = "1 waits" if seen.state == "queued" else "empty"
        print(f"    local {seen.local}  shared {seen.shared:2}  {seen.state:6}  queue of the owner: {queue}", file=file)
    print(f"    {why}", file=file)


def explain(file: TextIO | None = None) -> None:
    """Runs two threads through the life of one count, and prints what its fields are at each step.

    It is a real count that real threads count in; what is printed is read from it. The output is always the same.

    file: where to print, with a method write(); None: ``sys.stdout``. Raises ArgumentTypeError for something else, and
    StateError inside of a block of pyruntime or of this thread's stop_the_world(), where the two and this thread might wait
    for each other without end.

        >>> from io import StringIO
        >>> from pyruntime.refcount import explain
        >>> text = StringIO()
        >>> explain(text)
        >>> print(*text.getvalue().splitlines()[:3], sep="\\n")
        1. The owner makes a SharedRef.
            local 1  shared  0  owned   queue of the owner: empty
            It counts in local, where nobody else writes: not atomic.
    """
    out = sys.stdout if file is None else file
    if not callable(getattr(out, "write", None)):
        raise ArgumentTypeError(f"file is something with a method write(), or None for sys.stdout, not {_core.shown(file)}")
    if _core.has_stopped_the_world():
        raise StateError(
            "explain() waits for two threads of its own, which would wait for the end of this stop_the_world() block: call "
            "it outside"
        )
    if _core.attached_thread() is not None:
        raise StateError(
            "explain() waits for two threads of its own, which a pause might stop that waits for the end of this block of "
            "pyruntime: call it outside"
        )
    owner, other = _Actor("owner"), _Actor("other")
    try:
        _explain(out, owner, other)
    finally:
        owner.end()
        other.end()


def _explain(out: TextIO, owner: _Actor, other: _Actor) -> None:
    ends: list[str] = []
    first: SharedRef[str] = owner.do(lambda: SharedRef("value", ends.append))
    _step(out, "1. The owner makes a SharedRef.", first, "It counts in local, where nobody else writes: not atomic.")
    second: SharedRef[str] = owner.do(first.clone)
    third: SharedRef[str] = owner.do(first.clone)
    _step(out, "2. The owner clones it twice.", first, "The same: three references, all counted in local.")
    abroad: SharedRef[str] = other.do(first.clone)
    _step(out, "3. The other thread clones it.", first, "It may not touch local. It counts in shared, atomically.")
    other.do(abroad.drop)
    _step(out, "4. The other thread drops its clone.", first, "Counted in shared, dropped there: the owner need not know.")
    other.do(second.drop)
    _step(
        out,
        "5. The other thread drops one of the owner's.",
        first,
        "Shared would be -1, and only the owner knows whether local makes up for it. So the owner is asked to merge: the\n"
        "    count goes into its queue, and the queue keeps the reference until then.",
    )
    other.do(third.drop)
    _step(
        out,
        "6. The other thread drops another one of the owner's.",
        first,
        "The owner has been asked already, so shared is negative now. What is left is the sum, less the queue's: 1.",
    )
    owner.do(default_domain.quiescent)
    _step(
        out,
        "7. The owner passes a safepoint.",
        first,
        "Local is added to shared, and the queue gives its reference up. Nobody owns the count any more.",
    )
    owner.do(first.drop)
    _step(
        out,
        "8. The owner drops the last one.",
        None,
        f"In shared now, like everybody. Nothing is left: the finalizer has been called with {', '.join(map(repr, ends))}.",
    )
