"""pyruntime.refcount: counts on one thread and on many, finalizers, and what ends in the middle of everything."""

from __future__ import annotations

import copy
import doctest
import gc
import io
import os
import pickle
import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from conftest import FREE_THREADED, Python, needs_subinterpreters
from crowd import together
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import pyruntime
from pyruntime import __main__ as command
from pyruntime import errors, qsbr, refcount
from pyruntime.refcount import SharedRef, explain, settle, stats


class Led:
    """A thread that does one thing after the other, when it is told to."""

    def __init__(self) -> None:
        self.orders: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self.answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self.thread = threading.Thread(target=self._work)
        self.thread.start()
        self.ident = self.do(threading.get_ident)

    def _work(self) -> None:
        while (order := self.orders.get()) is not None:
            try:
                self.answers.put((order(), None))
            except BaseException as error:
                self.answers.put((None, error))
            del order

    def do(self, order: Callable[[], Any]) -> Any:
        self.orders.put(order)
        answer, error = self.answers.get()
        if error is not None:
            raise error
        return answer

    def end(self) -> None:
        """Until the OS thread is gone: Python's join() returns a little before what it has left is seen to."""
        task = Path(f"/proc/self/task/{self.thread.native_id}")
        self.orders.put(None)
        self.thread.join()
        while task.exists():
            os.sched_yield()


def elsewhere(call: Callable[[], Any]) -> None:
    """On another thread, which has ended when this returns."""
    together(1, lambda _: call())


# ---- one thread ------------------------------------------------------------------------------------------------------


def test_a_reference_refers_until_it_is_dropped() -> None:
    value: list[int] = []
    ends: list[object] = []
    first = SharedRef(value, ends.append)
    assert first.value is value
    second = first.clone()
    assert second.value is value
    assert (first.local, first.shared, first.count, first.state, first.merged) == (2, 0, 2, "owned", False)
    first.drop()
    first.drop()
    assert first.dropped
    assert not second.dropped
    assert second.count == 1
    assert ends == []
    second.drop()
    assert len(ends) == 1
    assert ends[0] is value


def test_the_owner_is_the_state_of_the_thread_that_made_it() -> None:
    first = SharedRef(0)
    with pyruntime.attached():
        here = pyruntime.current()
        assert here is not None
        assert first.owner == here.id == SharedRef(1).owner
    other: list[int | None] = []
    elsewhere(lambda: other.append(SharedRef(2).owner))
    assert other[0] not in (None, here.id)


def test_with_and_the_end_of_the_object_drop_it() -> None:
    ends: list[int] = []
    with SharedRef(1, ends.append) as one:
        assert one.value == 1
        assert ends == []
    assert ends == [1]
    assert one.dropped
    two = SharedRef(2, ends.append)
    del two
    assert ends == [1, 2]
    with pytest.raises(ZeroDivisionError), SharedRef(3, ends.append):
        raise ZeroDivisionError
    assert ends == [1, 2, 3]


def test_a_copy_is_a_clone() -> None:
    first = SharedRef([1])
    second = copy.copy(first)
    assert type(second) is SharedRef
    assert second is not first
    assert second.value is first.value
    assert first.count == 2


def test_the_value_goes_with_the_last_reference_and_not_with_the_object() -> None:
    class Thing:
        pass

    thing = Thing()
    gone = weakref.ref(thing)
    first = SharedRef(thing)
    del thing
    first.drop()
    assert gone() is None


def test_weak_references_to_one() -> None:
    first = SharedRef(1)
    gone = weakref.ref(first)
    assert gone() is first
    del first
    assert gone() is None


def test_what_it_looks_like() -> None:
    first: SharedRef[dict[int, int]] = SharedRef({})
    assert repr(first).startswith("<pyruntime.SharedRef of <class 'dict'>, owned, local 1, shared 0, at 0x")
    first.drop()
    assert repr(first).startswith("<pyruntime.SharedRef, dropped, at 0x")


def test_annotations() -> None:
    kind: Any = SharedRef[int]
    assert kind.__origin__ is SharedRef
    assert pyruntime.SharedRef is SharedRef
    assert pyruntime.refcount is refcount


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_wrong_arguments() -> None:
    make: Any = SharedRef
    with pytest.raises(errors.ArgumentTypeError, match=r"finalizer is a callable .* or None, not 5"):
        make(1, 5)
    with pytest.raises(errors.ArgumentTypeError, match="on_owner is True or False, not 1"):
        make(1, print, on_owner=1)
    for call in (make, lambda: make(finalizer=print)):
        with pytest.raises(errors.ArgumentTypeError, match=r"SharedRef\(\) takes the object that it is to refer to"):
            call()
    for arguments, keywords in [((1, print, True), {}), ((1,), {"other": 2}), ((), {"value": 1})]:
        with pytest.raises(TypeError, match="SharedRef"):
            make(*arguments, **keywords)
    with pytest.raises(TypeError, match=r"'pyruntime\.refcount\.SharedRef' is not an acceptable base type"):
        type("Mine", (make,), {})
    assert "cannot be subclassed" in str(make.__doc__)


def test_what_has_been_dropped_says_so() -> None:
    first = SharedRef(1)
    first.drop()
    for name in ("value", "local", "shared", "count", "owner", "state", "merged"):
        with pytest.raises(errors.StateError, match=f"{name}: this SharedRef has been dropped"):
            getattr(first, name)
    for call in (first.clone, first.__enter__, first.__copy__):
        with pytest.raises(errors.StateError, match="has been dropped"):
            call()


def test_it_cannot_be_pickled() -> None:
    first = SharedRef(1)
    with pytest.raises(errors.ArgumentTypeError, match="cannot be pickled or copied deeply"):
        pickle.dumps(first)
    with pytest.raises(errors.ArgumentTypeError, match="cannot be pickled or copied deeply"):
        copy.deepcopy(first)
    assert first.count == 1


def test_making_inside_of_another_domains_block_is_refused_and_counting_is_not() -> None:
    ends: list[int] = []
    first = SharedRef(1, ends.append)
    with pyruntime.Domain("other") as domain, domain.reading():
        with pytest.raises(errors.StateError, match="inside a block of domain 'other'"):
            SharedRef(2, ends.append)
        second = first.clone()
        assert first.count == 2
        second.drop()
        first.drop()
        assert ends == [1]
    with qsbr.reading(), SharedRef(3, ends.append) as third:
        assert (third.local, third.shared) == (1, 0)
    assert ends == [1, 3]


def test_an_error_of_a_finalizer_goes_to_the_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    caught: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", caught.append)

    def fail(value: int) -> None:
        raise ZeroDivisionError(value)

    SharedRef(7, fail).drop()
    assert len(caught) == 1
    assert caught[0].exc_type is ZeroDivisionError
    assert caught[0].object is fail
    caught.clear()


def test_an_exception_under_way_survives_a_finalizer() -> None:
    ends: list[int] = []

    def leave() -> None:
        one = SharedRef(1, ends.append)
        assert one.count == 1
        raise KeyError("under way")

    with pytest.raises(KeyError, match="under way"):
        leave()
    assert ends == [1]


# ---- Python's collector ----------------------------------------------------------------------------------------------


class Node:
    ref: Any
    other: Any


def test_a_circle_through_an_only_reference_is_collected() -> None:
    ends: list[bool] = []
    node = Node()
    node.ref = SharedRef(node, lambda there: ends.append(there.ref is not None))
    gone = weakref.ref(node)
    del node
    gc.collect()
    assert gone() is None
    assert ends == [True]


def test_one_that_was_shared_once_is_collected_too() -> None:
    ends: list[int] = []
    node = Node()
    node.ref = SharedRef(node, lambda _: ends.append(1))
    for on_thread in (elsewhere, lambda call: call()):
        clone = node.ref.clone()
        on_thread(clone.drop)
    assert node.ref.count == 1
    gone = weakref.ref(node)
    del node, clone
    gc.collect()
    assert gone() is None
    assert ends == [1]


def test_what_another_reference_keeps_is_not_collected() -> None:
    ends: list[int] = []
    node = Node()
    node.ref = SharedRef(node, lambda _: ends.append(1))
    kept = node.ref.clone()
    gone: Any = weakref.ref(node)
    del node
    gc.collect()
    assert ends == []
    assert kept.value is gone()
    kept.value.ref.drop()
    kept.drop()
    assert ends == [1]


def test_a_circle_through_several_references_is_collected() -> None:
    ends: list[int] = []
    node = Node()
    node.ref = SharedRef(node, lambda there: ends.append(len(there.other)))
    node.other = [node.ref.clone() for _ in range(3)]
    elsewhere(partial(lambda there: there.other.append(there.ref.clone()), node))
    kept = node.ref.clone()
    gone = weakref.ref(node)
    del node
    gc.collect()
    assert ends == []
    assert kept.value is gone()
    kept.drop()
    gc.collect()
    assert gone() is None
    assert ends == [4]


def test_who_looks_at_all_objects_finds_no_half_made_one(python: Python) -> None:
    """While one is being made the collector may run, whose callbacks may run anything."""
    result = python.run("""
        import gc
        from pyruntime.refcount import SharedRef
        dropped = []
        def look(phase, info):
            dropped.extend(one for one in gc.get_objects() if type(one) is SharedRef and one.dropped)
        gc.callbacks.append(look)
        gc.set_threshold(1)
        kept = []
        for _ in range(20):
            kept.append(SharedRef([]))
            kept.append(kept[-1].clone())
        gc.set_threshold(0)
        print(len(dropped), len([one for one in gc.get_objects() if type(one) is SharedRef]))
    """)
    assert (result.out, result.err) == ("0 40\n", "")


def test_a_finalizer_in_a_circle_is_collected_with_it() -> None:
    ends: list[int] = []

    class Closing:
        ref: SharedRef[int]

        def __call__(self, value: int) -> None:
            ends.append(value)

    closing = Closing()
    closing.ref = SharedRef(5, closing)
    gone = weakref.ref(closing)
    del closing
    gc.collect()
    assert gone() is None
    assert ends == [5]


@pytest.mark.parametrize("length", [1, 31, 32, 33, 100_000])
def test_a_chain_of_references_ends_in_little_stack(length: int) -> None:
    ends: list[int] = []
    chain: Any = None
    for number in range(length):
        chain = SharedRef((chain, number), lambda value: ends.append(value[1]))
    chain.drop()
    assert ends == list(range(length))[::-1]


def test_finalizers_that_drop_and_make_others() -> None:
    ends: list[object] = []
    inner = SharedRef("inner", ends.append)

    def outer(value: str) -> None:
        inner.drop()
        assert ends == ["inner"]
        SharedRef("made", ends.append).drop()
        ends.append(value)

    SharedRef("outer", outer).drop()
    assert ends == ["inner", "made", "outer"]


def test_nothing_is_left_of_many() -> None:
    def turn() -> None:
        for number in range(300):
            one = SharedRef([number], lambda _: None, on_owner=number % 2 == 0)
            two = one.clone()
            del one
            two.drop()

    def blocks() -> int:
        gc.collect()
        return sys.getallocatedblocks()

    for _ in range(3):
        turn()
    before = blocks()
    for _ in range(10):
        turn()
    assert blocks() - before < 300


# ---- several threads, step by step -----------------------------------------------------------------------------------


def test_what_was_dropped_elsewhere_waits_for_an_owner_that_is_inside() -> None:
    ends: list[tuple[object, int]] = []
    owner = Led()
    block = qsbr.default_domain.attached()
    try:
        first: SharedRef[int] = owner.do(lambda: SharedRef(1, lambda value: ends.append((value, threading.get_ident()))))
        owner.do(block.__enter__)
        first.drop()
        assert ends == []
        owner.do(settle)
        assert ends == [(1, owner.ident)]
        second: SharedRef[int] = owner.do(lambda: SharedRef(2, lambda value: ends.append((value, threading.get_ident()))))
        keep = owner.do(second.clone)
        second.drop()
        assert (keep.local, keep.shared, keep.state, keep.count, keep.owner) == (2, 0, "queued", 1, None)
        owner.do(qsbr.quiescent)
        assert (keep.local, keep.shared, keep.state, keep.count, keep.owner) == (0, 1, "merged", 1, None)
        owner.do(lambda: block.__exit__(None, None, None))
    finally:
        owner.end()
    keep.drop()
    assert ends == [(1, owner.ident), (2, threading.get_ident())]


def test_on_owner_runs_in_the_next_call_of_the_owner() -> None:
    ran: list[int] = []

    def note(_: object) -> None:
        ran.append(threading.get_ident())

    owner = Led()
    calls: list[Callable[[SharedRef[int]], object]] = [
        lambda kept: settle(),
        lambda kept: kept.clone(),
        lambda kept: SharedRef(1),
        lambda kept: kept.clone().drop(),
    ]
    try:
        kept = owner.do(lambda: SharedRef(0))
        for number, call in enumerate(calls):
            one = owner.do(lambda: SharedRef(1, note, on_owner=True))
            one.drop()
            assert len(ran) == number
            owner.do(partial(call, kept))
            assert ran == [owner.ident] * (number + 1)
        one = owner.do(lambda: SharedRef(1, note, on_owner=True))
        owner.do(one.drop)
        assert ran == [owner.ident] * (len(calls) + 1)
    finally:
        owner.end()


def test_on_owner_in_order() -> None:
    ends: list[int] = []
    ours = [SharedRef(number, ends.append, on_owner=True) for number in range(100)]
    elsewhere(lambda: list(map(SharedRef.drop, ours)))
    assert ends == []
    settle()
    assert ends == list(range(100))


@pytest.mark.parametrize("dropped", ["before it ends", "after it has ended"])
def test_on_owner_when_the_owner_has_ended(dropped: str) -> None:
    ran: list[int] = []
    owner = Led()
    one = owner.do(lambda: SharedRef(1, lambda _: ran.append(threading.get_ident()), on_owner=True))
    two = owner.do(one.clone)
    if dropped == "before it ends":
        one.drop()
        two.drop()
        assert ran == []
        owner.end()
    else:
        owner.end()
        one.drop()
        assert ran == []
        two.drop()
    settle()
    assert ran == [threading.get_ident()]


STEPS: dict[str, Callable[[Led, SharedRef[Any]], list[SharedRef[Any]]]] = {
    "made": lambda owner, one: [one],
    "cloned": lambda owner, one: [one, owner.do(one.clone)],
    "cloned here": lambda owner, one: [one, one.clone()],
    "dropped here": lambda owner, one: [one, owner.do(one.clone), *_dropped(one.clone)],
    "queued": lambda owner, one: [one, *_dropped(lambda: owner.do(one.clone))],
    "queued, and more": lambda owner, one: [one, *_dropped(lambda: owner.do(one.clone)), *_dropped(one.clone)],
}


def _dropped(make: Callable[[], SharedRef[Any]]) -> list[SharedRef[Any]]:
    make().drop()
    return []


@pytest.mark.filterwarnings("ignore:attached.. block of domain 'main' was entered, never left:ResourceWarning")
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_owners_that_end_at_every_step(step: str, inside: bool) -> None:
    ends: list[int] = []
    owner = Led()
    block = qsbr.default_domain.attached()
    if inside:
        owner.do(block.__enter__)
    one = owner.do(lambda: SharedRef(1, ends.append))
    left = STEPS[step](owner, one)
    # Inside of its block, if it is in one.
    owner.end()
    assert left[0].count == len(left)
    for number, ref in enumerate(left):
        assert ends == []
        assert left[-1].count == len(left) - number
        ref.drop()
    settle()
    assert ends == [1]


# ---- several threads at once -----------------------------------------------------------------------------------------

THREADS, ROUNDS = 4, 300


def test_clones_of_one_on_all_threads() -> None:
    ends: list[int] = []
    first = SharedRef(1, ends.append)
    mine = [first.clone() for _ in range(THREADS)]

    def work(index: int) -> None:
        for turn in range(ROUNDS):
            clones = [mine[index].clone() for _ in range(turn % 5)]
            assert all(clone.value == 1 for clone in clones)
            for clone in clones[1:]:
                clone.drop()

    together(THREADS, work)
    assert first.count == 1 + THREADS
    assert first.local + first.shared - (first.state == "queued") == 1 + THREADS
    together(THREADS, lambda index: mine[index].drop())
    assert first.count == 1
    assert ends == []
    first.drop()
    assert ends == [1]


def test_the_last_drop_is_one_of_all() -> None:
    for turn in range(ROUNDS):
        ends: list[int] = []
        first = SharedRef(turn, ends.append, on_owner=turn % 2 == 0)
        refs = [first, *(first.clone() for _ in range(THREADS - 1))]
        together(THREADS, lambda index, refs=refs: refs[index].drop())  # type: ignore[misc]
        settle()
        assert ends == [turn]


def test_the_same_reference_on_all_threads() -> None:
    """It is dropped once, and a clone is of before or is refused."""
    for turn in range(ROUNDS):
        ends: list[int] = []
        one = SharedRef(turn, ends.append)
        clones: list[SharedRef[int]] = []

        def work(index: int, one: SharedRef[int] = one, clones: list[SharedRef[int]] = clones) -> None:
            try:
                if index % 2 == 0:
                    clones.append(one.clone())
                assert one.value >= 0
                assert one.count >= 1
            except errors.StateError:
                pass
            one.drop()

        together(THREADS, work)
        assert one.dropped
        assert ends == ([] if clones else [turn])
        for number, clone in enumerate(clones):
            assert clone.count == len(clones) - number
            clone.drop()
        settle()
        assert ends == [turn]


def test_references_that_travel() -> None:
    """Each thread makes some, hands them on, and drops what it gets; every finalizer runs once, on its owner if it asked."""
    boxes: list[SimpleQueue[SharedRef[tuple[int, int]] | None]] = [SimpleQueue() for _ in range(THREADS)]
    ran: list[list[tuple[int, int, int]]] = [[] for _ in range(THREADS)]
    idents = [0] * THREADS
    end = threading.Barrier(THREADS)

    def work(index: int) -> None:
        idents[index] = threading.get_ident()

        def note(value: tuple[int, int]) -> None:
            ran[value[0]].append((*value, threading.get_ident()))

        for turn in range(ROUNDS):
            one = SharedRef((index, turn), note, on_owner=turn % 2 == 0)
            for step in range(turn % 4):
                boxes[(index + step) % THREADS].put(one.clone())
            one.drop()
            if turn % 3 == index % 3:
                with qsbr.attached():
                    boxes[(index + 1) % THREADS].put(SharedRef((index, turn + ROUNDS), note, on_owner=True))
            while not boxes[index].empty():
                got = boxes[index].get()
                assert got is not None
                got.drop()
        end.wait()
        while not boxes[index].empty():
            got = boxes[index].get()
            assert got is not None
            got.drop()
        end.wait()
        settle()

    together(THREADS, work)
    settle()
    for index, seen in enumerate(ran):
        turns = [turn for _, turn, _ in seen]
        made = [*range(ROUNDS), *(turn + ROUNDS for turn in range(ROUNDS) if turn % 3 == index % 3)]
        assert sorted(turns) == made
        for _, turn, ident in seen:
            if turn % 2 == 0 or turn >= ROUNDS:
                assert ident == idents[index]


# ---- the laws of counting --------------------------------------------------------------------------------------------


class Laws(RuleBasedStateMachine):
    """Threads that are led step by step, some of them inside of blocks: what is counted is what there is, and the finalizer
    runs when there is nothing any more, or, where the owner is inside of a block, when that has been told."""

    def __init__(self) -> None:
        super().__init__()
        self.threads = [Led() for _ in range(3)]
        self.inside: dict[int, Any] = {}
        self.refs: dict[int, list[SharedRef[int]]] = {}
        self.owners: dict[int, tuple[int, bool]] = {}
        self.ran: list[tuple[int, int]] = []
        self.made = 0

    def teardown(self) -> None:
        for number in list(self.inside):
            self.leave(number)
        for refs in self.refs.values():
            for ref in refs:
                ref.drop()
        for thread in self.threads:
            thread.do(settle)
            thread.end()
        settle()
        assert sorted(value for value, _ in self.ran) == list(range(self.made))

    numbers = st.integers(0, 2)
    choices = st.integers(0, 1000)

    def living(self) -> list[int]:
        return [value for value, refs in self.refs.items() if refs]

    @rule(number=numbers, on_owner=st.booleans())
    def make(self, number: int, on_owner: bool) -> None:
        value, self.made = self.made, self.made + 1
        ran = self.ran
        thread = self.threads[number]
        ref = thread.do(lambda: SharedRef(value, lambda it: ran.append((it, threading.get_ident())), on_owner=on_owner))
        self.refs[value] = [ref]
        self.owners[value] = (number, on_owner)

    @precondition(lambda self: bool(self.living()))
    @rule(number=numbers, choice=choices, times=st.integers(1, 3))
    def clone(self, number: int, choice: int, times: int) -> None:
        refs = self.refs[self.living()[choice % len(self.living())]]
        for _ in range(times):
            refs.append(self.threads[number].do(refs[choice % len(refs)].clone))

    @precondition(lambda self: bool(self.living()))
    @rule(number=numbers, choice=choices)
    def drop(self, number: int, choice: int) -> None:
        refs = self.refs[self.living()[choice % len(self.living())]]
        self.threads[number].do(refs.pop(choice % len(refs)).drop)

    @rule(number=numbers)
    def enter(self, number: int) -> None:
        if number not in self.inside:
            block = qsbr.default_domain.attached()
            self.threads[number].do(block.__enter__)
            self.inside[number] = block

    @rule(number=numbers)
    def leave(self, number: int) -> None:
        block = self.inside.pop(number, None)
        if block is not None:
            self.threads[number].do(lambda: block.__exit__(None, None, None))

    @rule(number=numbers)
    def settle(self, number: int) -> None:
        self.threads[number].do(settle)
        for value, refs in self.refs.items():
            if not refs and self.owners[value][0] == number:
                assert value in [it for it, _ in self.ran]

    @rule(number=numbers)
    def end(self, number: int) -> None:
        """Another thread takes its place, and its owner's number."""
        self.leave(number)
        self.threads[number].end()
        self.threads[number] = Led()
        for value, (owner, _) in self.owners.items():
            if owner == number:
                self.owners[value] = (-1, False)
        settle()

    @invariant()
    def look(self) -> None:
        for value, refs in self.refs.items():
            ran = [ident for it, ident in self.ran if it == value]
            if refs:
                one = refs[-1]
                assert ran == []
                assert one.count == len(refs)
                assert one.local + one.shared == len(refs) + (one.state == "queued")
                assert one.merged == (one.state == "merged")
                assert (one.owner is None) == (one.state != "owned")
                assert one.value == value
            else:
                owner, on_owner = self.owners[value]
                assert len(ran) <= 1
                if on_owner and ran:
                    assert ran == [self.threads[owner].ident]
                if not on_owner and owner not in self.inside and owner >= 0 and not self.inside:
                    settle()
                    assert [it for it, _ in self.ran].count(value) == 1


TestLaws = Laws.TestCase
TestLaws.settings = settings(max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))


# ---- explain ---------------------------------------------------------------------------------------------------------

FIELDS = [
    "local 1  shared  0  owned   queue of the owner: empty",
    "local 3  shared  0  owned   queue of the owner: empty",
    "local 3  shared  1  owned   queue of the owner: empty",
    "local 3  shared  0  owned   queue of the owner: empty",
    "local 3  shared  0  queued  queue of the owner: 1 waits",
    "local 3  shared -1  queued  queue of the owner: 1 waits",
    "local 0  shared  1  merged  queue of the owner: empty",
]


def test_explain_shows_a_real_count(capsys: pytest.CaptureFixture[str]) -> None:
    text = io.StringIO()
    explain(text)
    lines = text.getvalue().splitlines()
    assert [line.strip() for line in lines if line.startswith("    local")] == FIELDS
    assert [line[0] for line in lines if not line.startswith(" ")] == list("12345678")
    assert lines[-1].endswith("the finalizer has been called with 'value'.")
    assert max(map(len, lines)) <= 120
    explain()
    assert capsys.readouterr().out == text.getvalue()
    assert command.main(["explain"]) == 0
    assert capsys.readouterr().out == text.getvalue()


def test_explain_wants_something_to_write_to() -> None:
    wrong: Any = 5
    with pytest.raises(errors.ArgumentTypeError, match="a method write"):
        explain(wrong)
    before = threading.active_count()
    with pytest.raises(io.UnsupportedOperation):
        explain(io.TextIOBase())  # type: ignore[arg-type]
    assert threading.active_count() == before


def test_explain_waits_for_nobody_who_would_wait_for_it() -> None:
    text = io.StringIO()
    before = threading.active_count()
    with pyruntime.Domain() as domain:
        for block in (domain.attached(), qsbr.attached(), qsbr.reading()):
            with block, pytest.raises(errors.StateError, match="the end of this block of pyruntime: call it outside"):
                explain(text)
        stop = pyruntime.stop_the_world
        for pause in (stop(), stop(domain=domain), stop(everything=True)):
            with pause, pytest.raises(errors.StateError, match=r"of this stop_the_world\(\) block: call it outside"):
                explain(text)
    assert text.getvalue() == ""
    assert threading.active_count() == before
    explain(text)
    assert "8. " in text.getvalue()


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_what_owners_were_asked_is_counted() -> None:
    owner = Led()
    block = qsbr.default_domain.attached()
    before = stats()
    assert before.unique_ids >= 1  # the type of SharedRefs
    try:
        ours = owner.do(lambda: [SharedRef(number) for number in range(5)])
        owner.do(block.__enter__)
        for one in ours[:3]:
            one.drop()
        asked = stats()
        assert (asked.merges_asked, asked.merges_done) == (before.merges_asked + 3, before.merges_done)
        owner.do(qsbr.quiescent)
        done = stats()
        assert done.merges_done == before.merges_done + 3
        assert done.longest_queue >= 3
        assert done.longest_wait > 0
        assert done.queues_borrowed == before.queues_borrowed
        owner.do(lambda: block.__exit__(None, None, None))
        ours[3].drop()
        assert stats().queues_borrowed == before.queues_borrowed + 1
    finally:
        owner.end()
    ours[4].drop()
    assert stats().merges_for_ended == before.merges_for_ended + 1
    assert stats().immortal == before.immortal


def test_figures_of_a_domain() -> None:
    with pyruntime.Domain() as domain:
        found = stats(domain=domain)
        assert found == refcount.RefcountStats(0, 0, 0, 0, 0, 0.0, 0, 0)
    with pytest.raises(errors.StateError, match="is closed"):
        stats(domain=domain)
    wrong: Any = 5
    with pytest.raises(errors.ArgumentTypeError, match="domain is a Domain, or None for the default one, not 5"):
        stats(domain=wrong)


def test_examples_of_the_module() -> None:
    assert doctest.testmod(refcount).failed == 0


# ---- every Python, fork, exit, interpreters --------------------------------------------------------------------------


def test_the_same_on_every_python(python: Python) -> None:
    result = python.run("""
        import doctest, gc, threading
        from pyruntime import refcount
        from pyruntime.refcount import SharedRef, settle
        assert doctest.testmod(refcount).failed == 0
        ends = []
        refs = [SharedRef(n, ends.append, on_owner=n % 2 == 0) for n in range(200)]
        def work(clones):
            for clone in clones:
                with clone as mine, mine.clone() as another:
                    assert mine.value is another.value
        threads = [threading.Thread(target=work, args=([one.clone() for one in refs],)) for _ in range(4)]
        for thread in threads: thread.start()
        del refs, thread
        for thread in threads: thread.join()
        settle()
        assert sorted(ends) == list(range(200)), len(ends)
        class Node: pass
        node = Node()
        node.ref = SharedRef(node, lambda _: ends.append("node"))
        del node
        gc.collect()
        chain = None
        for n in range(50000):
            chain = SharedRef(chain)
        del chain
        print(ends[-1])
    """)
    assert result.out == "node\n"
    assert result.err == ""


def test_in_the_child_of_a_fork(python: Python) -> None:
    result = python.run("""
        import os, sys, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from pyruntime.refcount import SharedRef, settle
        ends, ready, go = [], threading.Event(), threading.Event()
        theirs = []
        def owner():
            theirs.extend(SharedRef(f"theirs {n}", ends.append, on_owner=True) for n in range(2))
            theirs.extend([theirs[0].clone(), SharedRef("theirs 2", ends.append)])
            ready.set()
            go.wait()
        thread = threading.Thread(target=owner)
        thread.start()
        ready.wait()
        mine = SharedRef("mine", ends.append, on_owner=True)
        clone = mine.clone()
        theirs[1].drop()  # waits in the mailbox of a thread that the child has not got
        def drop_all():
            assert ends == []
            mine.drop()
            clone.drop()
            assert ends == ["mine"]
            theirs[0].drop()
            theirs[2].drop()
            theirs[3].drop()
        pid = os.fork()
        if pid == 0:
            try:
                drop_all()
                settle()
                assert sorted(ends) == ["mine", "theirs 0", "theirs 1", "theirs 2"], ends
                with SharedRef("new", ends.append, on_owner=True):
                    pass
                assert ends[-1] == "new"
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        drop_all()
        assert sorted(ends) == ["mine", "theirs 2"], ends
        go.set()
        thread.join()
        while os.path.exists(f"/proc/self/task/{thread.native_id}"):
            os.sched_yield()  # what it has left is seen to a little later
        settle()
        assert sorted(ends) == ["mine", "theirs 0", "theirs 1", "theirs 2"], ends
    """)
    assert result.err == ""


def test_at_exit_what_waits_for_daemon_threads_is_finalized(python: Python) -> None:
    result = python.run("""
        import sys, threading
        import pyruntime
        from pyruntime.refcount import SharedRef
        ready, refs = threading.Event(), []
        def daemon():
            refs.extend(SharedRef(n, lambda value: print("finalized", value), on_owner=True) for n in range(2))
            ready.set()
            threading.Event().wait()
        threading.Thread(target=daemon, daemon=True).start()
        ready.wait()
        refs.pop().drop()
        kept = SharedRef("kept", print)
        print("exit")
    """)
    assert result.out.splitlines()[:2] == ["exit", "finalized 1"]
    assert result.err == ""


def test_the_exit_of_a_busy_interpreter(python: Python) -> None:
    """They stop after pyruntime's exit function, which is registered later and so runs earlier: a daemon thread that goes on
    in Python's own loop waits for the GIL while Python takes that apart, and crashes at times in 3.10 without ours."""
    for _ in range(3):
        result = python.run("""
            import atexit, threading
            refs, started, stop, stopped = [], [], [], threading.Semaphore(0)
            def end():
                stop.append(1)
                for _ in range(4):
                    stopped.acquire()
            atexit.register(end)
            import pyruntime
            from pyruntime.refcount import SharedRef, settle
            refs.extend(SharedRef([], lambda _: None, on_owner=n % 2 == 0) for n in range(8))
            def busy(mine):
                started.append(1)
                while not stop:
                    for ref in mine:
                        with ref.clone() as clone:
                            try:
                                SharedRef(clone.clone(), lambda _: None, on_owner=True).drop()
                            except pyruntime.StateError:
                                pass
                    with pyruntime.attached():
                        SharedRef(ref.clone(), lambda _: None).clone()
                    clone = ref.clone()
                stopped.release()
                threading.Event().wait()
            for n in range(4):
                threading.Thread(target=busy, args=(refs[n:],), daemon=True).start()
            while len(started) < 4:
                settle()
        """)
        assert result.err == ""


INTERPRETERS = """
import sys, threading
try:
    import _interpreters as interpreters  # 3.13
except ImportError:
    import _xxsubinterpreters as interpreters

def create():
    if sys.version_info >= (3, 13):
        return interpreters.create("legacy")
    return interpreters.create(isolated=False)

def run(interpreter, program):
    error = interpreters.run_string(interpreter, program)
    if error is not None:
        raise RuntimeError(error.formatted)
"""


@needs_subinterpreters
def test_in_other_interpreters(python: Python) -> None:
    result = python.run(
        INTERPRETERS
        + '''
import pyruntime
from pyruntime.refcount import SharedRef
inside = """if True:
    import threading
    import pyruntime
    from pyruntime.heap import Heap
    from pyruntime.refcount import SharedRef, settle, explain
    ends = []
    one = SharedRef(1, ends.append)
    two = one.clone()
    assert one.count == 2
    thread = threading.Thread(target=two.drop)
    thread.start()
    thread.join()
    assert one.count == 1 and ends == []
    one.drop()
    assert ends == [1]
    with pyruntime.attached(), SharedRef(2, ends.append) as three:
        assert (three.local, three.shared, three.owner) == (1, 0, pyruntime.current().id)
    assert ends == [1, 2]
    mine = SharedRef(3, ends.append, on_owner=True)
    thread = threading.Thread(target=mine.drop)
    thread.start()
    thread.join()
    assert ends == [1, 2]
    settle()
    assert ends == [1, 2, 3]
    class Node: pass
    node = Node()
    node.ref = SharedRef(node, lambda _: print("collected"))
    del node
    kept = SharedRef("at the end", print)
    also = kept.clone()
    def close(value): print(value, len(clones))
    conn = SharedRef("of a module", close)
    clones = [conn.clone() for _ in range(2)]
    buffer = Heap("of a module").alloc(100)
    waits = SharedRef("waited", print, on_owner=True)
    thread = threading.Thread(target=waits.drop)
    thread.start()
    thread.join()
    del thread
"""
for turn in range(3):
    interpreter = create()
    run(interpreter, inside)
    with SharedRef("main", print):
        pass
    interpreters.destroy(interpreter)
    assert [one.name for one in pyruntime.interpreters()] == ["main"], pyruntime.interpreters()
'''
    )
    assert result.out.splitlines().count("main") == 3
    assert result.out.splitlines().count("waited") == 3
    assert result.out.splitlines().count("at the end") == 3
    assert result.out.splitlines().count("of a module 2") == 3
    assert result.err == ""


def test_at_exit_what_a_module_has_with_a_function_of_its_own_is_finalized(python: Python) -> None:
    if FREE_THREADED and python.version.startswith("3.13"):
        pytest.skip("once a thread has been started there, functions are immortal, and so is what they refer to")
    result = python.run("""
        import threading
        from pyruntime.refcount import SharedRef
        def close(value):
            print("closed", value, len(workers), conn.dropped)
            raise ZeroDivisionError
        conn = SharedRef("conn", finalizer=close)
        workers = [conn.clone() for _ in range(2)]
        thread = threading.Thread(target=lambda: workers.append(conn.clone()))
        thread.start()
        thread.join()
        print("exit")
    """)
    assert result.out == "exit\nclosed conn 3 True\n"
    assert "ZeroDivisionError" in result.err
