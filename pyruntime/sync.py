"""Locks that never wait with the GIL and never hold up a pause.

:class:`Mutex`, :class:`RLock`, :class:`Event` and :class:`Condition` have the arguments and the meaning of the classes of
:mod:`threading`, and can stand in for them: also where a lock is handed to other code. What is different:

- They wait *detached*. A thread that sleeps on one of them inside an ``attached()`` block holds up neither memory
  reclamation nor ``stop_the_world()``, as it would on a lock of :mod:`threading`. Inside a ``reading()`` block a wait would
  end the protection; there every call that may wait raises StateError, also if it would not wait this time.
- They know who holds them: ``repr()`` tells, and so does every error that is about waiting.
- Waiting is fair after a millisecond: a thread that has waited that long is the next.

Errors are those of :mod:`threading` by class (RuntimeError, ValueError, OverflowError) and :class:`pyruntime.Error` besides.
Every lock has ``_at_fork_reinit``, for ``os.register_at_fork(after_in_child=...)``.

    >>> from threading import Thread
    >>> from pyruntime.sync import Mutex
    >>> lock, total = Mutex(), 0
    >>> def add():
    ...     global total
    ...     for _ in range(1000):
    ...         with lock:
    ...             total += 1
    >>> threads = [Thread(target=add) for _ in range(4)]
    >>> for thread in threads:
    ...     thread.start()
    >>> for thread in threads:
    ...     thread.join()
    >>> total
    4000
"""

from pyruntime import _core

_core.add_sync_types()

from pyruntime._core import (  # noqa: E402  (made by the line above)
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

__all__ = [
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
]
