"""What a Python program uses, alone: our locks and mappings, and those of the standard library and of other packages."""

from __future__ import annotations

import importlib
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from pyruntime import sync
from pyruntime.heap import Heap
from pyruntime.rcu import RCUCell
from pyruntime.refcount import SharedRef
from pyruntime.weakref import WeakRegistry

from .measure import Sampler
from .python_calls import statement_sampler
from .suite import (
    ATTRIBUTE,
    BYTEARRAY,
    CEREGGII,
    EVENT,
    FT_UTILS,
    LOCK,
    LOCKED_ATTRIBUTE,
    LOCKED_COUNT,
    OURS,
    WEAK_DICTIONARY,
)

_WAIT = "event.wait()"
_SET_CLEAR = "event.set(); event.clear()"


def _mutex() -> Sampler:
    return statement_sampler("with lock: pass", lock=sync.Mutex())


def _lock() -> Sampler:
    return statement_sampler("with lock: pass", lock=threading.Lock())


def _wait(event: sync.Event | threading.Event) -> Sampler:
    event.set()
    return statement_sampler(_WAIT, event=event)


def _of(module: str, name: str) -> Any:
    """As `from module import name`, for names that not every release of a package has."""
    found = getattr(importlib.import_module(module), name, None)
    if found is None:
        raise ImportError(f"the installed {module} has no {name}")
    return found


def _wait_of_cereggii() -> Sampler:
    event = _of("cereggii", "AtomicEvent")()
    event.set()
    return statement_sampler(_WAIT, event=event)


def _with_cereggii(side: str) -> Sampler:
    lock = _of("cereggii", "ReadersWriterLock")()
    return statement_sampler(f"with lock.{side}(): pass", lock=lock)


def _with_ft_utils(side: str) -> Sampler:
    locks = "ft_utils.synchronization"
    return statement_sampler("with side(lock): pass", side=_of(locks, side), lock=_of(locks, "RWLock")())


class _Thing:
    pass


class _Holder:
    """What one writes in Python: an attribute, and a lock where more than one step has to be one."""

    def __init__(self) -> None:
        self.value = object()
        self.lock = threading.Lock()


def _get(make: Callable[[], WeakRegistry[int, _Thing] | weakref.WeakValueDictionary[int, _Thing]]) -> Sampler:
    thing, objects = _Thing(), make()
    objects[1] = thing
    return statement_sampler("objects.get(1)", objects=objects, thing=thing)


class _LockedCount:
    """What one writes in Python: the count of the value, under its lock."""

    __slots__ = ("_state",)

    def __init__(self, state: tuple[object, threading.Lock, list[int]]) -> None:
        self._state = state

    def clone(self) -> _LockedCount:
        _, lock, count = self._state
        with lock:
            count[0] += 1
        return _LockedCount(self._state)

    def drop(self) -> None:
        _, lock, count = self._state
        with lock:
            count[0] -= 1


def _clone_and_drop(ref: SharedRef[object] | _LockedCount) -> Sampler:
    return statement_sampler("ref.clone().drop()", ref=ref)


def _alloc(nbytes: int) -> dict[str, Callable[[], Sampler]]:
    return {
        OURS: lambda: statement_sampler("alloc(nbytes)", alloc=Heap().alloc, nbytes=nbytes),
        BYTEARRAY: lambda: statement_sampler("alloc(nbytes)", alloc=bytearray, nbytes=nbytes),
    }


MAKERS: dict[str, dict[str, Callable[[], Sampler]]] = {
    "lock.with_mutex": {OURS: _mutex, LOCK: _lock},
    "lock.with_read": {
        OURS: lambda: statement_sampler("with lock.read(): pass", lock=sync.RWLock()),
        CEREGGII: lambda: _with_cereggii("reader"),
        FT_UTILS: lambda: _with_ft_utils("RWReadContext"),
    },
    "lock.with_write": {
        OURS: lambda: statement_sampler("with lock.write(): pass", lock=sync.RWLock()),
        CEREGGII: lambda: _with_cereggii("writer"),
        FT_UTILS: lambda: _with_ft_utils("RWWriteContext"),
    },
    "lock.event_wait": {
        OURS: lambda: _wait(sync.Event()),
        EVENT: lambda: _wait(threading.Event()),
        CEREGGII: _wait_of_cereggii,
    },
    "lock.event_set": {
        OURS: lambda: statement_sampler(_SET_CLEAR, event=sync.Event()),
        EVENT: lambda: statement_sampler(_SET_CLEAR, event=threading.Event()),
    },
    "call.heap_alloc": _alloc(64),
    "call.heap_alloc_64k": _alloc(65536),
    "refcount.python": {
        OURS: lambda: _clone_and_drop(SharedRef(None)),
        LOCKED_COUNT: lambda: _clone_and_drop(_LockedCount((None, threading.Lock(), [1]))),
    },
    "rcu.get": {
        OURS: lambda: statement_sampler("cell.get()", cell=RCUCell(object())),
        ATTRIBUTE: lambda: statement_sampler("holder.value", holder=_Holder()),
        LOCKED_ATTRIBUTE: lambda: statement_sampler("with holder.lock: holder.value", holder=_Holder()),
    },
    "weakref.registry": {OURS: lambda: _get(WeakRegistry), WEAK_DICTIONARY: lambda: _get(weakref.WeakValueDictionary)},
}


def samplers(bench: str, impls: Sequence[str]) -> tuple[dict[str, Sampler], dict[str, str]]:
    """By implementation; and why some of them cannot be had."""
    made: dict[str, Sampler] = {}
    failed: dict[str, str] = {}
    for impl in impls:
        try:
            made[impl] = MAKERS[bench][impl]()
        except ImportError as error:
            failed[impl] = str(error)
    return made, failed
