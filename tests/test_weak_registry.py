"""pyruntime.weakref.WeakRegistry: as a mapping beside Python's own, and with several threads on it at once."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from conftest import Python
from crowd import together
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pyruntime import errors, qsbr, stop_the_world
from pyruntime.weakref import WeakRegistry


class Thing:
    """Something that can be weakly referenced."""

    def __init__(self, number: int = 0) -> None:
        self.number = number


# ---- a mapping -------------------------------------------------------------------------------------------------------


class BesidePythons(RuleBasedStateMachine):
    """Every step is done to a WeakValueDictionary, too; objects die in between."""

    def __init__(self) -> None:
        super().__init__()
        self.ours: WeakRegistry[int, Thing] = WeakRegistry()
        self.pythons: weakref.WeakValueDictionary[int, Thing] = weakref.WeakValueDictionary()
        self.kept: dict[int, Thing] = {}

    keys = st.integers(0, 7)

    @rule(key=keys, which=keys)
    def assign(self, key: int, which: int) -> None:
        thing = self.kept.setdefault(which, Thing(which))
        self.ours[key] = self.pythons[key] = thing

    @rule(key=keys, which=keys)
    def setdefault(self, key: int, which: int) -> None:
        thing = self.kept.setdefault(which, Thing(which))
        assert self.ours.setdefault(key, thing) is self.pythons.setdefault(key, thing)

    @rule(key=keys)
    def delete(self, key: int) -> None:
        assert _outcome(self.ours.__delitem__, key) == _outcome(self.pythons.__delitem__, key)

    @rule(key=keys)
    def pop(self, key: int) -> None:
        assert self.ours.pop(key, None) is self.pythons.pop(key, None)

    @rule(key=keys)
    def pop_or_raise(self, key: int) -> None:
        assert _outcome(self.ours.pop, key) == _outcome(self.pythons.pop, key)

    @rule()
    def popitem(self) -> None:
        assert _outcome(self.ours.popitem) == _outcome(self.pythons.popitem)

    @rule(which=keys)
    def die(self, which: int) -> None:
        self.kept.pop(which, None)

    @rule()
    def clear(self) -> None:
        self.ours.clear()
        self.pythons.clear()

    @rule(key=keys)
    def look(self, key: int) -> None:
        assert self.ours.get(key) is self.pythons.get(key)
        assert self.ours.get(key, default=self) is self.pythons.get(key, self)
        assert (key in self.ours) == (key in self.pythons)
        assert _outcome(self.ours.__getitem__, key) == _outcome(self.pythons.__getitem__, key)

    @invariant()
    def are_equal(self) -> None:
        assert list(self.ours.items()) == list(self.pythons.items())
        assert list(self.ours) == list(self.pythons.keys())
        assert list(self.ours.values()) == list(self.pythons.values())
        assert len(self.ours) == len(self.pythons)
        assert _references(self.ours.valuerefs()) == _references(self.pythons.valuerefs())
        assert _references(self.ours.itervaluerefs()) == _references(self.pythons.itervaluerefs())


def _outcome(call: Callable[..., Any], *arguments: Any) -> object:
    try:
        return call(*arguments)
    except KeyError as error:
        return KeyError, error.args


def _references(references: Iterable[weakref.KeyedRef[int, Thing]]) -> list[tuple[int, Thing | None]]:
    return [(reference.key, reference()) for reference in references]


TestBesidePythons = BesidePythons.TestCase
TestBesidePythons.settings = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


def test_made_of_what_a_dict_is_made_of() -> None:
    one, two = Thing(1), Thing(2)
    assert WeakRegistry({"a": one}) == {"a": one}
    assert WeakRegistry([("a", one), ("b", two)]) == {"a": one, "b": two}
    registry: WeakRegistry[str, Thing] = WeakRegistry()
    registry.update(a=one)
    registry |= {"b": two}
    assert registry == {"a": one, "b": two}
    assert {"c": one} | registry == {"a": one, "b": two, "c": one}
    assert (registry | {"a": two})["a"] is two
    assert registry.copy() == copy.copy(registry) == registry
    assert registry != {"a": one}
    assert two in registry.values()
    assert ("a", one) in registry.items()


class Entries:
    """What is no mapping and has what update() looks for."""

    def __init__(self, **entries: Thing) -> None:
        self._entries = entries

    def items(self) -> Iterator[tuple[str, Thing]]:
        return iter(self._entries.items())


class Keys:
    def __init__(self, **entries: Thing) -> None:
        self._entries = entries

    def keys(self) -> Iterator[str]:
        return iter(self._entries)

    def __getitem__(self, key: str) -> Thing:
        return self._entries[key]


@pytest.mark.parametrize("make", [WeakRegistry, weakref.WeakValueDictionary])
def test_updated_with_what_pythons_is_updated_with(make: Any) -> None:
    one, two = Thing(1), Thing(2)
    cases: list[tuple[tuple[Any, ...], dict[str, Thing]]] = [
        ((), {}),
        ((None,), {}),
        ((None,), {"a": one}),
        (({"a": one},), {"a": two, "b": one}),
        (([("a", one), ("b", two)],), {}),
        (((("a", one), ("a", two)),), {"self": one, "other": two}),
        ((Entries(a=one),), {"b": two}),
        ((Keys(a=one),), {}),
        ((weakref.WeakValueDictionary(a=one),), {}),
        ((WeakRegistry(a=one),), {"b": two}),
    ]
    for arguments, keywords in cases:
        other = arguments[0] if arguments and arguments[0] is not None else {}
        wanted = {**dict(other.items() if hasattr(other, "items") else other), **keywords}
        updated = make()
        updated.update(*arguments, **keywords)
        assert dict(make(*arguments, **keywords).items()) == dict(updated.items()) == wanted
    updated.update(iter([("c", two)]))
    assert updated["c"] is two
    for wrong in (1, [1], [(1, 2, 3)]):
        with pytest.raises((TypeError, ValueError)):
            make().update(wrong)
        with pytest.raises((TypeError, ValueError)):
            make(wrong)
    with pytest.raises(TypeError):
        make().update(1, 2)


def test_references_know_their_key_also_when_the_object_has_died() -> None:
    registry: WeakRegistry[Any, Thing] = WeakRegistry()
    key, things = Thing(7), [Thing(1), Thing(2)]
    registry[key] = things[0]
    assert registry.setdefault("b", things[1]) is things[1]
    assert all(type(reference) is weakref.KeyedRef for reference in registry.valuerefs())
    references = list(registry.itervaluerefs())
    del things
    gc.collect()
    assert [(reference.key, reference()) for reference in references] == [(key, None), ("b", None)]
    assert registry.valuerefs() == []


def test_a_subclass_need_not_call_init() -> None:
    class Named(WeakRegistry[str, Thing]):
        def __init__(self, name: str, *, limit: int) -> None:
            self.name = (name, limit)

    named = Named("cache", limit=3)
    made = named.get_or_create("a", Thing)
    assert named == {"a": made}
    assert named.name == ("cache", 3)
    named.update(b=made)
    assert list(named) == ["a", "b"]


def test_a_deep_copy_has_the_same_objects_under_copied_keys() -> None:
    class Key:
        pass

    key, thing = Key(), Thing()
    copied = copy.deepcopy(WeakRegistry({key: thing}))
    assert list(copied.values()) == [thing]
    assert key not in copied


def test_a_key_goes_with_its_object() -> None:
    registry: WeakRegistry[object, Thing] = WeakRegistry()
    key, thing = Thing(), Thing()
    registry[key] = thing
    kept = weakref.ref(key)
    del key, thing
    gc.collect()
    assert kept() is None
    assert len(registry) == 0


def test_a_new_object_under_the_key_stays_when_the_old_one_dies() -> None:
    registry: WeakRegistry[str, Thing] = WeakRegistry()
    old, new = Thing(1), Thing(2)
    registry["a"] = old
    reference = registry.valuerefs()[0]  # which would tell, since it lives on
    registry["a"] = new
    del old
    gc.collect()
    assert reference() is None
    assert registry["a"] is new


def test_a_reference_may_outlive_the_registry() -> None:
    thing = Thing()
    registry = WeakRegistry({1: thing})
    reference = registry.valuerefs()[0]
    del registry
    gc.collect()
    assert reference() is thing
    del thing
    gc.collect()
    assert reference() is None


def test_who_looks_at_all_objects_finds_whole_registries(python: Python) -> None:
    """While one is being made the collector may run, whose callbacks may run anything."""
    result = python.run("""
        import gc
        from pyruntime import WeakRegistry
        def look(phase, info):
            for one in [one for one in gc.get_objects() if isinstance(one, WeakRegistry)]:
                assert len(one) == 0 and one.get(1) is None and one.pop(1, None) is None and one.valuerefs() == []
                one.clear()
        gc.callbacks.append(look)
        gc.set_threshold(1)
        for _ in range(20): WeakRegistry()
        gc.set_threshold(0)
        print("ok")
    """)
    assert (result.out, result.err) == ("ok\n", "")


def test_a_circle_through_a_key_is_collected() -> None:
    registry: WeakRegistry[Any, Thing] = WeakRegistry()
    key, thing = Thing(), Thing()
    key.registry = registry  # type: ignore[attr-defined]
    registry[key] = thing
    gone = weakref.ref(registry)
    del registry, key
    gc.collect()
    assert gone() is None
    assert thing.number == 0


def test_nothing_is_left_of_many_entries() -> None:
    registry: WeakRegistry[int, Thing] = WeakRegistry()

    def turn() -> None:
        things = [Thing(n) for n in range(100)]
        for thing in things:
            registry[thing.number] = thing
            registry.get_or_create(thing.number, Thing)
        for thing in things[::2]:
            registry.pop(thing.number)

    def blocks() -> int:
        gc.collect()
        return sys.getallocatedblocks()

    for _ in range(3):
        turn()
    before = blocks()
    for _ in range(20):
        turn()
    assert blocks() - before < 500  # one for each entry would be 2000
    assert len(registry) == 0


def test_iterating_keeps_alive_what_it_is_over() -> None:
    things = [Thing(n) for n in range(3)]
    registry = WeakRegistry({thing.number: thing for thing in things})
    values: Iterator[Thing] = iter(registry.values())
    next(values)
    del things
    registry[7] = another = Thing(7)
    assert [thing.number for thing in values] == [1, 2]
    del values
    gc.collect()
    assert list(registry.values()) == [another]


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_weakly_referenced_is_refused() -> None:
    registry: WeakRegistry[str, Any] = WeakRegistry()
    values: list[Any] = [1, "text", (), [], {}, None]
    for value in values:
        with pytest.raises(errors.ArgumentTypeError, match="holds its objects weakly"):
            registry["a"] = value
        with pytest.raises(TypeError, match="holds its objects weakly"):
            registry.setdefault("a", value)
        with pytest.raises(errors.ArgumentTypeError, match="holds its objects weakly"):
            registry.get_or_create("a", [value].pop)
    assert len(registry) == 0
    with pytest.raises(errors.ArgumentTypeError, match="holds its objects weakly"):
        WeakRegistry({"a": 1})


def test_wrong_calls() -> None:
    registry: Any = WeakRegistry()
    for call in (registry.get, registry.setdefault, registry.pop):
        for arguments, keywords in [((), {}), ((1, 2, 3), {}), ((1,), {"other": 2}), ((1, 2), {"default": 2})]:
            with pytest.raises(errors.ArgumentTypeError, match="takes a key"):
                call(*arguments, **keywords)
    with pytest.raises(errors.ArgumentTypeError, match="a function that makes its object, not 5"):
        registry.get_or_create("a", 5)
    with pytest.raises(TypeError):
        hash(registry)
    with pytest.raises(errors.ArgumentTypeError, match="cannot be pickled"):
        pickle.dumps(registry)
    with pytest.raises(TypeError):
        registry | 5
    there = registry.get_or_create("a", Thing)
    keys: list[Any] = [[], {}]
    for key in keys:
        for call in (registry.get, registry.__getitem__, registry.pop, registry.__contains__, registry.__delitem__):
            with pytest.raises(TypeError, match="unhashable"):
                call(key)
        with pytest.raises(TypeError, match="unhashable"):
            registry[key] = Thing()
    assert registry == {"a": there}


def test_an_error_of_a_key_is_the_callers() -> None:
    class Odd:
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError

    thing = Thing()
    registry: WeakRegistry[Any, Thing] = WeakRegistry({1: thing})
    for call in (registry.get, registry.__getitem__, registry.pop, registry.__contains__, registry.__delitem__):
        with pytest.raises(ZeroDivisionError):
            call(Odd())
    with pytest.raises(ZeroDivisionError):
        registry.setdefault(Odd(), thing)
    with pytest.raises(ZeroDivisionError):
        registry[Odd()] = thing
    assert registry == {1: thing}


def test_a_tuple_is_a_key_like_any_other() -> None:
    registry: WeakRegistry[tuple[int, int], Thing] = WeakRegistry()
    for call in (registry.__getitem__, registry.__delitem__, registry.pop):
        with pytest.raises(KeyError) as caught:
            call((1, 2))
        assert caught.value.args == ((1, 2),)


def test_annotations() -> None:
    assert WeakRegistry[str, Thing] is not None
    with pytest.raises(TypeError):
        WeakRegistry(1)  # type: ignore[arg-type]


# ---- making ----------------------------------------------------------------------------------------------------------


def test_of_many_that_want_one_key_one_makes_it() -> None:
    for turn in range(20):
        registry: WeakRegistry[int, Thing] = WeakRegistry()
        made: list[int] = []
        got: list[Thing] = []

        def make(made: list[int] = made) -> Thing:
            made.append(threading.get_ident())
            return Thing()

        def want(_: int, registry: WeakRegistry[int, Thing] = registry, got: list[Thing] = got, make: Any = make) -> None:
            got.append(registry.get_or_create(1, make))

        together(4, want)
        assert len(made) == 1, turn
        assert len(got) == 4
        assert len(set(map(id, got))) == 1


def test_a_factory_that_fails_leaves_the_key_to_the_next() -> None:
    registry: WeakRegistry[int, Thing] = WeakRegistry()
    made = [0]
    lock = threading.Lock()

    def make() -> Thing:
        with lock:
            made[0] += 1
            if made[0] < 4:
                raise ZeroDivisionError
        return Thing()

    results: list[object] = []

    def want(_: int) -> None:
        try:
            results.append(registry.get_or_create(1, make))
        except ZeroDivisionError:
            results.append(None)

    together(4, want)
    assert results.count(None) == 3
    assert made[0] == 4
    assert all(not makings.by_key for makings in registry._makings.values())


def test_a_factory_that_wants_its_own_key_is_told() -> None:
    registry: WeakRegistry[int, Thing] = WeakRegistry()
    words = r"get_or_create\(\) for the key 1 inside of the factory that makes the object of this key would wait"
    with pytest.raises(errors.DeadlockError, match=words):
        registry.get_or_create(1, lambda: registry.get_or_create(1, Thing))
    inner = Thing(2)
    outer = registry.get_or_create(1, lambda: Thing(registry.get_or_create(2, lambda: inner).number))
    assert outer.number == 2


@pytest.mark.parametrize("count", [2, 3])
def test_of_factories_that_wait_for_each_other_one_is_told(count: int) -> None:
    registries: list[WeakRegistry[int, Thing]] = [WeakRegistry() for _ in range(count)]
    all_inside = threading.Barrier(count)
    told: list[str] = []
    got: list[Thing] = []

    def ask(index: int) -> None:
        following = (index + 1) % count

        def make() -> Thing:
            all_inside.wait()
            return Thing(registries[following].get_or_create(following, lambda: Thing(7)).number)

        try:
            got.append(registries[index].get_or_create(index, make))
        except errors.DeadlockError as error:
            told.append(str(error))

    together(count, ask)
    assert len(told) == 1
    assert "would wait for another thread's factory, which waits for one that this thread is in" in told[0]
    assert [thing.number for thing in got] == [7] * (count - 1)
    assert all(not makings.by_key for registry in registries for makings in registry._makings.values())


def test_a_wait_that_a_signal_handler_interrupts_counts_all_the_same(this_python: Python) -> None:
    """The main thread makes one, for which it waits for the other; whose factory asks for the one while the handler runs."""
    result = this_python.run("""
        import signal, threading
        from pyruntime import DeadlockError, WeakRegistry, weakref
        class Thing: pass
        registry, told = WeakRegistry(), []
        in_handler, done = threading.Event(), threading.Event()
        main = threading.get_ident()
        def make_other():
            thread_is_making.set()
            while main not in weakref._waits_here().get(): pass
            signal.pthread_kill(main, signal.SIGUSR1)
            in_handler.wait()
            try:
                registry.get_or_create("one", Thing)
            except DeadlockError as error:
                told.append(error)
            done.set()
            return Thing()
        def make_third():
            in_handler.set()
            done.wait()
            return Thing()
        def make_one():
            thread.start()
            thread_is_making.wait()
            registry.get_or_create("other", Thing)
            return Thing()
        thread_is_making = threading.Event()
        thread = threading.Thread(target=registry.get_or_create, args=("other", make_other), daemon=True)
        signal.signal(signal.SIGUSR1, lambda *_: registry.get_or_create("third", make_third))
        one = registry.get_or_create("one", make_one)
        thread.join()
        print(len(told), registry["one"] is one, weakref._waits_here().get())
    """)
    assert (result.out, result.err) == ("1 True {}\n", "")


def test_between_any_two_lines_another_may_be_made(this_python: Python) -> None:
    """By a signal handler, or by a finalizer when the collector runs. Here by a trace function."""
    result = this_python.run("""
        import sys
        from pyruntime import WeakRegistry, weakref
        class Thing: pass
        registry = WeakRegistry()
        def interrupted_at(number):
            seen, others = 0, []
            def trace(frame, event, arg):
                nonlocal seen
                if frame.f_code.co_filename != weakref.__file__:
                    return None
                seen += event == "line"
                if seen == number and not others:
                    others.append(registry.get_or_create("other", Thing))
                return trace
            sys.settrace(trace)
            try:
                thing = registry.get_or_create("thing", Thing)
            finally:
                sys.settrace(None)
            assert registry["thing"] is thing and (not others or registry["other"] is others[0])
            assert weakref._waits_here().get() == {}
            assert all(not makings.by_key for makings in registry._makings.values())
            return len(others)
        number = 1
        while interrupted_at(number): number += 1
        print(number > 30)
    """)
    assert (result.out, result.err) == ("True\n", "")


def test_between_any_two_lines_the_same_may_be_made(this_python: Python) -> None:
    """As above, for the same key, also by a factory that fails, and of objects that nobody keeps."""
    result = this_python.run("""
        import sys
        from pyruntime import WeakRegistry, errors, weakref
        class Thing: pass
        class Failed(Exception): pass
        def fail(): raise Failed
        def interrupted_at(number, factory, keep):
            registry = WeakRegistry()
            seen, done, told, kept = 0, False, 0, []
            def trace(frame, event, arg):
                nonlocal seen, done, told
                if frame.f_code.co_filename != weakref.__file__:
                    return None
                seen += event == "line"
                if seen == number and not done:
                    done = True
                    try:
                        made = registry.get_or_create("thing", Thing)
                        assert type(made) is Thing
                        if keep: kept.append(made)
                    except errors.DeadlockError:
                        told = 1
                return trace
            thing = None
            sys.settrace(trace)
            try:
                thing = registry.get_or_create("thing", factory)
            except Failed:
                pass
            finally:
                sys.settrace(None)
            assert factory is fail or registry["thing"] is thing
            assert not kept or thing in (None, kept[0])
            assert weakref._waits_here().get() == {}
            assert all(not makings.by_key for makings in registry._makings.values())
            return done, told
        for factory in Thing, fail:
            for keep in True, False:
                number, told = 1, 0
                while (result := interrupted_at(number, factory, keep))[0]:
                    told += result[1]
                    number += 1
                print(number > 30, 0 < told < number // 2)
    """)
    assert (result.out, result.err) == ("True True\n" * 4, "")


def test_in_a_pause_nobody_waits_for_another_threads_factory() -> None:
    registry: WeakRegistry[int, Thing] = WeakRegistry()
    inside, go = threading.Event(), threading.Event()

    def factory() -> Thing:
        inside.set()
        go.wait()
        return Thing(1)

    here = Thing(2)
    made: list[Thing] = []
    thread = threading.Thread(target=lambda: made.append(registry.get_or_create(1, factory)))
    thread.start()
    inside.wait()
    try:
        with stop_the_world():
            with pytest.raises(errors.DeadlockError, match=r"another thread's factory .* stop_the_world\(\) block"):
                registry.get_or_create(1, Thing)
            assert registry.get_or_create(2, lambda: here) is here
    finally:
        go.set()
        thread.join()
    assert registry.get_or_create(1, Thing) is made[0]


def test_making_inside_of_reading_is_refused_and_looking_is_not() -> None:
    thing = Thing()
    registry = WeakRegistry({1: thing})
    with qsbr.reading():
        assert registry.get_or_create(1, Thing) is thing
        with pytest.raises(errors.StateError, match=r"get_or_create\(\) inside of a reading\(\) block"):
            registry.get_or_create(2, Thing)
    assert all(not makings.by_key for makings in registry._makings.values())


# ---- several threads -------------------------------------------------------------------------------------------------


def test_setdefault_gives_all_threads_the_same_object() -> None:
    registry: WeakRegistry[int, Thing] = WeakRegistry()
    got: list[list[Thing]] = [[] for _ in range(4)]

    def bring(index: int) -> None:
        for key in range(500):
            got[index].append(registry.setdefault(key, Thing(index)))

    together(4, bring)
    for same in zip(*got, strict=True):
        assert len(set(map(id, same))) == 1


def test_objects_that_come_and_go_under_all_threads() -> None:
    """An object that is found is the one that was registered under the key, and it is alive."""
    registry: WeakRegistry[int, Thing] = WeakRegistry()
    found = [0] * 4

    def work(index: int) -> None:
        kept: list[Thing] = []
        for turn in range(1500):
            key = (turn * 7 + index) % 13
            kept.append(registry.setdefault(key, Thing(key)))
            if turn % 3 == 0:
                registry[key] = kept[-1]
            if turn % 5 == 0:
                registry.pop(key, None)
            if turn % 64 == 0:
                for there, thing in registry.items():
                    assert thing.number == there
            if len(kept) > 4:
                del kept[:3]
            thing_or_none = registry.get(key)
            if thing_or_none is not None:
                assert thing_or_none.number == key
                found[index] += 1

    together(4, work)
    assert sum(found) > 0
    gc.collect()
    assert len(registry) == 0


def test_the_same_on_every_python(python: Python) -> None:
    result = python.run("""
        import doctest, gc, threading
        from pyruntime import weakref
        assert doctest.testmod(weakref).failed == 0
        class Thing: pass
        registry, got = weakref.WeakRegistry(), []
        def work():
            for n in range(300):
                thing = registry.get_or_create(n % 7, Thing)
                assert registry[n % 7] is thing
                got.append(thing)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert len(set(map(id, got))) == 7
        got.clear(); gc.collect()
        assert len(registry) == 0
        print("ok")
    """)
    assert result.out == "ok\n"


def test_a_child_waits_for_nothing_that_lost_threads_were_making(python: Python) -> None:
    """One thread is in its factory at the fork, one holds the registry's lock: it compares its key."""
    python.run("""
        import os, threading, warnings
        warnings.simplefilter("ignore")
        from pyruntime import WeakRegistry, stop_the_world
        class Thing: pass
        class Key:
            def __hash__(self): return hash(1)
            def __eq__(self, other):
                comparing.set()
                go.wait()
                return False
        making, comparing, go = threading.Event(), threading.Event(), threading.Event()
        registry = WeakRegistry()
        def make():
            making.set()
            go.wait()
            return Thing()
        threads = [threading.Thread(target=registry.get_or_create, args=(key, make), daemon=True)
                   for key in (1, Key())]
        threads[0].start()
        making.wait()
        threads[1].start()
        comparing.wait()
        def look():
            for key in ("another", 1):
                with stop_the_world():
                    thing = registry.get_or_create(key, Thing)
                assert registry[key] is thing
                del thing
            assert all(not makings.by_key for makings in registry._makings.values())
        def in_child(body):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    body()
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitpid(child, 0)[1] == 0
        in_child(lambda: (look(), in_child(look)))
        go.set()
        for one in threads:
            one.join()
    """)


def test_a_factory_that_forks_ends_in_the_child_too(python: Python) -> None:
    python.run("""
        import os, warnings
        warnings.simplefilter("ignore")
        from pyruntime import WeakRegistry
        class Thing: pass
        registry, children = WeakRegistry(), []
        def make():
            children.append(os.fork())
            return Thing()
        thing = registry.get_or_create(1, make)
        assert registry.get_or_create(1, Thing) is thing
        other = registry.get_or_create(2, Thing)
        assert all(not makings.by_key for makings in registry._makings.values())
        if children[0] == 0:
            os._exit(0)
        assert os.waitpid(children[0], 0)[1] == 0
    """)


def test_one_that_lives_to_the_end_of_the_interpreter(this_python: Python) -> None:
    result = this_python.run("""
        import threading
        from pyruntime.weakref import WeakRegistry
        class Thing:
            def __del__(self):
                if registry is not None and kept is not None:  # modules are cleared before the last objects go
                    registry.pop(1, None)
                    registry.setdefault(2, kept)
        registry, kept, thing = WeakRegistry(), Thing(), Thing()
        registry[1] = thing
        registry[thing] = registry
        threading.Thread(target=lambda: registry.get_or_create(3, threading.Event().wait), daemon=True).start()
    """)
    assert result.err == ""
