"""pyruntime.rcu.RCUCell: one object that is read and replaced by many threads, and how it ends."""

from __future__ import annotations

import copy
import gc
import random
import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from conftest import Python
from crowd import together

import pyruntime
from pyruntime import errors, qsbr, state
from pyruntime.rcu import RCUCell


class Thing:
    """Something that there can be weak references to."""


def settle() -> None:
    """What has been replaced is given up, also where that waits for readers."""
    qsbr.barrier()


@pytest.fixture(autouse=True)
def threads_change_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


# ---- one thread ----------------------------------------------------------------------------------------------------


def test_it_holds_what_was_put_there() -> None:
    first, second = Thing(), Thing()
    cell: RCUCell[Any] = RCUCell(first)
    assert cell.get() is first
    assert cell.set(second) is None  # type: ignore[func-returns-value]
    assert cell.get() is second
    empty = RCUCell()
    assert empty.get() is None
    assert pyruntime.RCUCell is RCUCell
    assert RCUCell[Thing] is not None


def test_compare_exchange_goes_by_identity() -> None:
    one, equal = [1], [1]
    cell = RCUCell(one)
    assert not cell.compare_exchange(equal, [2])
    assert cell.get() is one
    assert cell.compare_exchange(one, equal)
    assert cell.get() is equal
    assert cell.compare_exchange(equal, equal)


def test_update_loses_nothing_of_what_happens_meanwhile() -> None:
    cell = RCUCell(0)
    seen = []

    def interrupted(value: int) -> int:
        seen.append(value)
        if len(seen) <= 3:
            cell.set(cell.get() + 10)
        return value + 1

    assert cell.update(interrupted) == 31
    assert cell.get() == 31
    assert seen == [0, 10, 20, 30]


def test_without_it_something_is_lost() -> None:
    """What the test above sees: the same by a get and a set."""
    cell = RCUCell(0)
    value = cell.get()
    cell.set(cell.get() + 10)
    cell.set(value + 1)
    assert cell.get() == 1


def test_what_the_function_raises_changes_nothing() -> None:
    first = Thing()
    cell = RCUCell(first)
    with pytest.raises(ZeroDivisionError):
        cell.update(lambda _: 1 / 0)  # type: ignore[arg-type, return-value]
    assert cell.get() is first


def test_wrong_arguments_say_so() -> None:
    cell: Any = RCUCell(1)
    make: Any = RCUCell
    with pytest.raises(errors.ArgumentTypeError, match="takes what it is to hold at first, by position"):
        make(1, 2)
    with pytest.raises(errors.ArgumentTypeError, match="takes what it is to hold at first, by position"):
        make(value=1)
    with pytest.raises(errors.ArgumentTypeError, match="a callable that makes the new value out of the old one, not 7"):
        cell.update(7)
    with pytest.raises(errors.ArgumentTypeError, match=r"takes 2 arguments, .* not 1"):
        cell.compare_exchange(1)
    with pytest.raises(TypeError):
        cell.set()
    with pytest.raises(TypeError):
        cell.get(1)
    with pytest.raises(TypeError):
        copy.copy(cell)
    with pytest.raises(TypeError):
        type("Sub", (RCUCell,), {})
    assert cell.get() == 1


def test_repr() -> None:
    cell: RCUCell[Any] = RCUCell("text")
    assert repr(cell) == "RCUCell('text')"
    cell.set([cell])
    assert repr(cell) == "RCUCell([RCUCell(...)])"
    cell.set(None)


# ---- ends ----------------------------------------------------------------------------------------------------------


def test_the_old_object_is_given_up_and_the_new_one_kept() -> None:
    old, new = Thing(), Thing()
    seen = weakref.ref(old)
    cell = RCUCell(old)
    del old
    reader = cell.get()
    cell.set(new)
    settle()
    assert seen() is reader
    del reader
    assert seen() is None
    still = weakref.ref(new)
    del new
    assert still() is cell.get()
    del cell
    assert still() is None


def test_counts_come_out_even() -> None:
    thing = Thing()
    before = sys.getrefcount(thing)
    cell: RCUCell[Any] = RCUCell(thing)
    for _ in range(1000):
        cell.set(thing)
        cell.get()
        cell.compare_exchange(thing, thing)
        cell.compare_exchange(None, thing)
        cell.update(lambda old: old)
    settle()
    assert sys.getrefcount(thing) == before + 1
    del cell
    assert sys.getrefcount(thing) == before


def test_the_collector_finds_circles_through_it() -> None:
    cell: RCUCell[Any] = RCUCell()
    thing: Any = Thing()
    thing.cell = cell
    cell.set(thing)
    seen, cell_seen = weakref.ref(thing), weakref.ref(cell)
    del thing, cell
    gc.collect()
    settle()
    assert seen() is None
    assert cell_seen() is None


def test_a_circle_of_cells_alone() -> None:
    first: RCUCell[Any] = RCUCell()
    second = RCUCell(first)
    first.set(second)
    seen = weakref.ref(first)
    del first, second
    gc.collect()
    settle()
    gc.collect()
    assert seen() is None


def test_an_end_may_use_the_cell_that_it_came_from() -> None:
    cell: RCUCell[Any] = RCUCell()
    ends = []

    class Hostile:
        def __del__(self) -> None:
            ends.append(cell.get())
            if len(ends) < 50:
                cell.set(Hostile())
                cell.set(len(ends))

    cell.set(Hostile())
    cell.set("last")
    settle()
    while len(ends) < 50:
        settle()
    assert len(ends) == 50


@pytest.mark.parametrize("between", [lambda cell: cell, lambda cell: [cell], lambda cell: Holder(cell)])
def test_a_chain_of_any_length_ends_in_little_stack(between: Any) -> None:
    """Also where something else stands between each two of them, and where a set() in the middle begins it."""
    last = Thing()
    seen = weakref.ref(last)
    cell: RCUCell[Any] = RCUCell(last)
    del last
    for _ in range(100_000):
        cell = RCUCell(between(cell))
    assert seen() is not None
    cell.set(None)
    settle()
    assert seen() is None


class Holder:
    """An object of Python with a reference, and an end that looks at other cells."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __del__(self) -> None:
        assert RCUCell(RCUCell(1)).get().get() == 1


# ---- many threads --------------------------------------------------------------------------------------------------


class Certificate:
    """A pair that belongs together, and that is written down when it ends."""

    ends: ClassVar[list[tuple[int, int]]] = []  # without a lock: an end may come in the middle of another one

    def __init__(self, writer: int, number: int) -> None:
        self.pair = (writer, number)
        self.again = (number, writer)

    def __del__(self) -> None:
        self.ends.append(self.pair)


def test_every_object_ends_once_and_is_whole_until_then() -> None:
    seed = random.getrandbits(32)
    print("seed", seed)
    writers, readers, rounds = 2, 2, 3000
    Certificate.ends.clear()
    cell = RCUCell(Certificate(-1, 0))
    done = [0]

    def work(index: int) -> None:
        choice = random.Random(seed + index)
        if index < writers:
            for number in range(rounds):
                new = Certificate(index, number)
                if choice.random() < 0.5:
                    cell.set(new)
                else:
                    cell.update(lambda _, new=new: new)  # type: ignore[misc]
            done[0] += 1
        while done[0] < writers:
            kept = [cell.get() for _ in range(choice.randrange(1, 5))]
            assert all(one.again == one.pair[::-1] for one in kept)

    together(writers + readers, work)
    left = cell.get().pair
    settle()
    assert len(Certificate.ends) == writers * rounds
    assert left not in Certificate.ends
    cell.set(Certificate(-2, 0))
    settle()
    assert set(Counter(Certificate.ends).values()) == {1}
    assert len(Certificate.ends) == writers * rounds + 1


def test_updates_by_all_threads_add_up() -> None:
    cell = RCUCell((0, 0))
    won = [0] * 4

    def work(index: int) -> None:
        for _ in range(1000):
            cell.update(lambda old: (old[0] + 1, old[1] - 1))
            old = cell.get()
            won[index] += cell.compare_exchange(old, (old[0] + 1, old[1] - 1))

    together(4, work)
    assert cell.get() == (4000 + sum(won), -4000 - sum(won))


def test_inside_of_blocks_and_pauses() -> None:
    cell = RCUCell(Thing())
    with qsbr.Domain("of its own") as domain, domain.reading():
        cell.set(cell.get())
    with qsbr.reading():
        cell.set(cell.get())
    with qsbr.attached():
        cell.set(cell.get())
    with state.stop_the_world():
        cell.set(cell.get())
        assert isinstance(cell.update(lambda old: old), Thing)


def test_threads_that_end_at_once_leave_nothing(python: Python) -> None:
    """Readers and writers come and go, in a child of a fork too, and at the exit daemon threads are in the middle of it."""
    program = """
        import os, threading
        from pyruntime import RCUCell, barrier

        cell = RCUCell(0)

        def some() -> None:
            for _ in range(50):
                cell.update(lambda old: old + 1)

        def all_of_them() -> None:
            threads = [threading.Thread(target=some) for _ in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            barrier()

        all_of_them()
        assert cell.get() == 1000
        child = os.fork()
        if child == 0:
            all_of_them()
            os._exit(0 if cell.get() == 2000 else 1)
        assert os.waitpid(child, 0)[1] == 0

        begun = threading.Barrier(4)

        def for_ever() -> None:
            begun.wait()
            while True:
                cell.set([cell.get()][:0])

        for _ in range(3):
            threading.Thread(target=for_ever, daemon=True).start()
        begun.wait()
        print("exits")
    """
    assert python.run(program).out == "exits\n"
