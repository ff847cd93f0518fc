"""Weakly held objects that many threads look up.

:class:`WeakRegistry` is a cache of living objects: keys to objects that somebody else keeps alive. It has the interface of
:class:`weakref.WeakValueDictionary` and differs where several threads use it at once:

- There is no lock of the registry's for looking up, which is one call into C. (Without the GIL Python itself takes the lock
  of the object's weak references for a moment, as it does for any weak reference.)
- ``setdefault``, ``get_or_create`` and ``pop`` are one step for all threads. Of several threads that bring an object each
  for one key, all get the same one; ``get_or_create`` makes only one in the first place.
- What happens while it is being iterated changes nothing: the iteration is over the objects that lived when it began, and
  keeps those alive until it ends. ``items()``, ``keys()`` and ``values()`` are views, as those of a dict.
- ``copy()`` and ``|`` of a subclass give one of its class, made by calling the class with the entries.

    >>> from pyruntime.weakref import WeakRegistry
    >>> class Connection:
    ...     def __init__(self, host):
    ...         self.host = host
    >>> connections = WeakRegistry()
    >>> first = connections.get_or_create("alpha", lambda: Connection("alpha"))
    >>> connections.get_or_create("alpha", lambda: Connection("another")) is first
    True
    >>> del first
    >>> connections.get("alpha") is None
    True
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, ItemsView, Iterable, Iterator, Mapping, MutableMapping, ValuesView
from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pyruntime import _core
from pyruntime.errors import ArgumentTypeError, DeadlockError, StateError
from pyruntime.rcu import RCUCell
from pyruntime.sync import Once, RLock

if TYPE_CHECKING:
    from weakref import KeyedRef

    from typing_extensions import Self

__all__ = ["WeakRegistry"]

_core.add_sync_types()

from pyruntime._core import WeakTable  # noqa: E402  (made by the line above)

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class _Items(ItemsView[_K, _V]):
    _mapping: WeakRegistry[_K, _V]

    def __iter__(self) -> Iterator[tuple[_K, _V]]:
        return iter(self._mapping._pairs())


class _Values(ValuesView[_V]):
    _mapping: WeakRegistry[Any, _V]

    def __iter__(self) -> Iterator[_V]:
        return (value for _, value in self._mapping._pairs())

    def __contains__(self, value: object) -> bool:
        return any(value is there or value == there for there in self)


class _Making:
    """An object that is being made, for as long as anybody wants it."""

    __slots__ = ("maker", "once", "users")

    def __init__(self) -> None:
        self.once = Once()
        self.users = 1  # who brings it
        self.maker = 0  # the thread whose factory is running; 0: none


class _Makings(Generic[_K]):
    """The objects of a registry that are being made in this process, and the lock that guards them."""

    __slots__ = ("by_key", "lock")

    def __init__(self) -> None:
        self.by_key: dict[_K, _Making] = {}
        self.lock = RLock()  # recursive, because looking for a key may call code of its class


# Which thread of this process waits for the making of what, in any registry: of several, all but the last are waits that a
# signal handler or a finalizer has interrupted. Replaced as a whole, without a lock: those may come in anywhere, and wait.
_Waits = dict[int, tuple[_Making, ...]]

# By _core.forks(), as in WeakRegistry.
_waits: dict[int, RCUCell[_Waits]] = {}


def _waits_here() -> RCUCell[_Waits]:
    forks = _core.forks()
    waits = _waits.get(forks)
    if waits is None:
        waits = _waits.setdefault(forks, RCUCell({}))
        for other in list(_waits):
            if other != forks:
                _waits.pop(other, None)
    return waits


def _leads_to(me: int, making: _Making, waits: _Waits) -> bool:
    """Whether who is making waits for this thread, itself or through others, or is this thread."""
    seen = {0}
    to_see = [making]
    while to_see:
        maker = to_see.pop().maker
        if maker == me:
            return True
        if maker not in seen:
            seen.add(maker)
            to_see.extend(waits.get(maker, ()))
    return False


def _begin_wait(cell: RCUCell[_Waits], me: int, making: _Making) -> bool:
    """False: it would never end.

    A thread is marked as a maker before it begins a wait. So of those that would close a circle, the one that puts its wait
    there last finds the waits of all others, and their makers; and who waits while this looks stays the maker that it is.
    """
    while True:
        waits = cell.get()
        if not _leads_to(me, making, waits):
            if cell.compare_exchange(waits, {**waits, me: (*waits.get(me, ()), making)}):
                return True
        elif cell.get() is waits:
            return False


def _end_wait(cell: RCUCell[_Waits], me: int, outer: tuple[_Making, ...]) -> None:
    def ended(waits: _Waits) -> _Waits:
        left = waits.copy()
        if outer:
            left[me] = outer
        else:
            left.pop(me, None)
        return left

    if cell.get().get(me, ()) != outer:
        cell.update(ended)


class WeakRegistry(WeakTable[_K, _V], MutableMapping[_K, _V]):
    """Keys to weakly held objects, for many threads at once.

    Takes what ``dict`` takes: another mapping or an iterable of pairs, and keywords. Keys are held like those of a dict,
    until their objects die; objects must be such that there can be weak references to them (not ints, strs, tuples, lists or
    dicts), else ArgumentTypeError, a TypeError. A subclass need not call this ``__init__``.

    ``len()`` may count objects that have died in this moment. It is equal to a mapping with the same keys and equal objects.

        >>> class Node: pass
        >>> node, other = Node(), Node()
        >>> nodes = WeakRegistry({1: node})
        >>> nodes[2] = other
        >>> nodes.setdefault(2, node) is other
        True
        >>> del other
        >>> sorted(nodes)
        [1]

    After :class:`weakref.WeakValueDictionary`; that iteration is over what there was when it began is from the concurrent
    maps of Java.
    """

    __slots__ = ("__weakref__", "_makings")

    # By _core.forks(): in the child of a fork, a thread that is not there may hold the lock or be making an object. So the
    # child begins anew.
    _makings: dict[int, _Makings[_K]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        self._makings = {}
        return self

    def __init__(self, other: Mapping[_K, _V] | Iterable[tuple[_K, _V]] | None = None, /, **entries: _V) -> None:
        self.update(other, **entries)

    def get_or_create(self, key: _K, factory: Callable[[], _V], /) -> _V:
        """The object of the key; if there is none that lives, the one that ``factory()`` makes, which is registered then.

        While one thread makes it, others that want the same key wait for it, detached; those that want other keys do not. If
        the factory raises, its caller gets the exception, and one of those that wait tries with its own.

        In the child of a fork nobody waits for factories of threads that are not there.

        Raises DeadlockError, a RuntimeError, when a factory asks for the key that it is called for, or for one whose
        factory, on another thread, waits for it in turn, itself or through others; and where it would have to wait for one
        inside of this thread's ``stop_the_world()`` block; StateError where it would have to call or wait inside a
        ``reading()`` block; ArgumentTypeError if the factory is not callable.

            >>> class Image:
            ...     def __init__(self, path):
            ...         self.path = path
            >>> images = WeakRegistry()
            >>> image = images.get_or_create("a.png", lambda: Image("a.png"))
            >>> image.path
            'a.png'
        """
        found = self.get(key)
        if found is not None:
            return found
        if not callable(factory):
            raise ArgumentTypeError(
                f"get_or_create() takes a key and a function that makes its object, not {_core.shown(factory)}"
            )
        try:
            making = self._begin(key)
        except StateError as error:
            raise StateError(
                "WeakRegistry.get_or_create() inside of a reading() block would have to make the object or to wait for it, "
                "which would end the protection: call it before the block, or look with get()"
            ) from error
        try:
            return self._make(key, factory, making)
        finally:
            self._end(key, making)

    def _make(self, key: _K, factory: Callable[[], _V], making: _Making) -> _V:
        me = get_ident()
        waits = _waits_here()

        outer = waits.get().get(me, ())

        def make() -> _V:
            _end_wait(waits, me, outer)
            making.maker = me
            try:
                found = self.get(key)  # who made it may have come and gone since this thread looked
                return self.setdefault(key, factory()) if found is None else found
            finally:
                making.maker = 0

        if making.maker == me:
            raise DeadlockError(
                f"WeakRegistry.get_or_create() for the key {key!r} inside of the factory that makes the object of this key "
                "would wait for that factory"
            )
        if _core.has_stopped_the_world() and making.maker != 0:
            raise DeadlockError(
                "WeakRegistry.get_or_create() would wait for another thread's factory inside of this thread's "
                "stop_the_world() block: call it outside, or look with get()"
            )
        if not _begin_wait(waits, me, making):
            raise DeadlockError(
                f"WeakRegistry.get_or_create() for the key {key!r} would wait for another thread's factory, which waits for "
                "one that this thread is in: ask for both keys in the same order everywhere, or outside of the factory"
            )
        try:
            return making.once.call(make)
        finally:
            _end_wait(waits, me, outer)

    def _begin(self, key: _K) -> _Making:
        forks = _core.forks()
        makings = self._makings.get(forks)
        if makings is None:
            makings = self._makings.setdefault(forks, _Makings())
            for other in list(self._makings):
                if other != forks:
                    self._makings.pop(other, None)
        with makings.lock:
            mine = _Making()
            making = makings.by_key.setdefault(key, mine)
            if making is not mine:
                making.users += 1
            return making

    def _end(self, key: _K, making: _Making) -> None:
        makings = self._makings.get(_core.forks())
        if makings is None:
            return  # the factory has forked, and this is the child
        with makings.lock:
            # While it can be found it is counted: who comes in here (the lock is recursive) would take it for his to end.
            try:
                if making.users == 1 and makings.by_key.get(key) is making:
                    del makings.by_key[key]
            finally:
                making.users -= 1
            if making.users == 0:
                # It has the object. Without a GIL, what was replaced of the waits has `making` until readers have passed.
                making.once = Once()

    def update(  # type: ignore[override]
        self, other: Mapping[_K, _V] | Iterable[tuple[_K, _V]] | None = None, /, **entries: _V
    ) -> None:
        """Registers all that the other mapping or the iterable of pairs has, and then the keywords; of None only these.

        >>> class Node: pass
        >>> node, other = Node(), Node()
        >>> nodes = WeakRegistry()
        >>> nodes.update({"a": node}, b=other)
        >>> list(nodes)
        ['a', 'b']
        """
        if other is not None:
            items = getattr(other, "items", None)
            for key, value in dict(other).items() if items is None else items():
                self[key] = value
        for name, value in entries.items():
            self[name] = value  # type: ignore[index]

    def itervaluerefs(self) -> Iterator[KeyedRef[_K, _V]]:
        """The weak references of this moment, one after the other; an object of one may die before it is looked at.

        >>> class Node: pass
        >>> node = Node()
        >>> [(reference.key, reference() is node) for reference in WeakRegistry(a=node).itervaluerefs()]
        [('a', True)]
        """
        return iter(self.valuerefs())

    def __iter__(self) -> Iterator[_K]:
        return (key for key, _ in self._pairs())

    def items(self) -> ItemsView[_K, _V]:
        """The keys and objects; as a view, which is read anew by each iteration."""
        return _Items(self)

    def values(self) -> ValuesView[_V]:
        """The objects; as a view, which is read anew by each iteration."""
        return _Values(self)

    def copy(self) -> WeakRegistry[_K, _V]:
        """Another registry with the same keys and the same objects."""
        return type(self)(self._pairs())

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> WeakRegistry[_K, _V]:
        return type(self)((copy.deepcopy(key, memo), value) for key, value in self._pairs())

    def __or__(self, other: Mapping[_K, _V]) -> WeakRegistry[_K, _V]:
        if not isinstance(other, Mapping):
            return NotImplemented
        merged = self.copy()
        merged.update(other)
        return merged

    def __ror__(self, other: Mapping[_K, _V]) -> WeakRegistry[_K, _V]:
        if not isinstance(other, Mapping):
            return NotImplemented
        merged = type(self)(other)
        merged.update(self)
        return merged

    def __ior__(self, other: Mapping[_K, _V] | Iterable[tuple[_K, _V]]) -> WeakRegistry[_K, _V]:
        self.update(other)
        return self

    def __reduce__(self) -> str:
        raise ArgumentTypeError("a WeakRegistry cannot be pickled: others keep alive what it refers to")

    def __repr__(self) -> str:
        return f"<pyruntime.WeakRegistry, {len(self._pairs())} objects, at {id(self):#x}>"
