"""Locks that never wait with the GIL and never hold up a pause.

:class:`Mutex`, :class:`RLock`, :class:`Event` and :class:`Condition` have the arguments and the meaning of the classes of
:mod:`threading`, and can stand in for them: also where a lock is handed to other code. What is different:

- They wait *detached*. A thread that sleeps on one of them inside an ``attached()`` block holds up neither memory
  reclamation nor ``stop_the_world()``, as it would on a lock of :mod:`threading`. Inside a ``reading()`` block a wait would
  end the protection; there every call that may wait raises StateError, also if it would not wait this time.
- They know who holds them: ``repr()`` tells, and so does every error that is about waiting.
- Waiting is fair after a millisecond: a thread that has waited that long is the next.

**Times** are read as :mod:`threading` reads them: an int or a float in seconds, True counts as 1, and more than
``threading.TIMEOUT_MAX``, infinity too, is an OverflowError (:class:`pyruntime.RangeError`). Without end is -1 for
``acquire`` and None for ``wait``. All other functions of pyruntime take a number of seconds from 0 on, or None; they refuse
True, and wait without end for infinity.

**A lock that the thread itself holds**: a second ``acquire`` of a Mutex, or of a key of a StripedLock, waits until its time
is up, as one of ``threading.Lock`` does, because another thread may release it. Nobody else can release an RWLock for its
reader or writer, so there waiting raises DeadlockError at once, with a time or without; ``blocking=False`` answers False.

**A thread that ends** with a lock leaves it like this:

====================================  ===================================================================================
Mutex, RLock, ``RWLock.write()``,     locked, as in :mod:`threading`; a Mutex, or the block that has locked keys, can be
keys of a StripedLock                 released by any thread, all of them unlocked by ``_at_fork_reinit``
``RWLock.read()``                     unlocked, with a report on stderr
``Once``, while it runs               as after an exception: the next call tries again
``CriticalSection``                   left, with a report on stderr
``stop_the_world()``                  the world goes on
a wait for any of them                no trace: a notification or a turn goes to the next one
====================================  ===================================================================================

**In the child of a fork**, where the other threads are not there any more, what they ran by a ``Once`` is new again,
the objects of their ``CriticalSection`` are free, and nobody waits for anything: without ``_at_fork_reinit``. What
they had locked stays locked: a Mutex, an RLock, keys of a StripedLock, and both sides of an RWLock, reading too, also
where one only waited to write. A program that forks with threads gives ``_at_fork_reinit`` of those to
``os.register_at_fork(after_in_child=...)``. It unlocks whatever anybody held, this thread too. Mutex, RLock, Event,
Condition, RWLock, Once and StripedLock have it.

None of the classes can be subclassed, copied or pickled: wrap them instead.

Errors are those of :mod:`threading` by class (RuntimeError, ValueError, OverflowError) and :class:`pyruntime.Error` besides.

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
