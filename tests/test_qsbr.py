"""pyruntime.qsbr: what its names do, and what they say to wrong use."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import operator
import os
import re
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import FREE_THREADED
from hypothesis import given, settings
from hypothesis import strategies as st

import pyruntime
from pyruntime import qsbr
from pyruntime.heap import Heap
from pyruntime.qsbr import Domain, Goal


def run_in_thread(body: Callable[[], object]) -> None:
    """Runs it in another thread, and raises here what it raises there."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            body()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


class Reader:
    """A thread that is inside a block for the time of a with statement."""

    def __init__(self, block: Any) -> None:
        self._block = block
        self._is_in, self._may_leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._body, name="the reader")

    def _body(self) -> None:
        with self._block:
            self._is_in.set()
            self._may_leave.wait()

    def __enter__(self) -> Reader:  # noqa: PYI034 (Self is of Python 3.11)
        self._thread.start()
        self._is_in.wait()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._may_leave.set()
        self._thread.join()


def close_when_empty(domain: Domain) -> None:
    """join() comes back shortly before a thread has ended, and with it the blocks that it left open."""
    while not domain.closed:
        try:
            domain.close()
        except pyruntime.BusyError:
            time.sleep(0)


@pytest.fixture(params=["default domain", "own domain"])
def domain(request: pytest.FixtureRequest) -> Iterator[Domain]:
    """A domain, in which nothing waits before and after."""
    if request.param == "default domain":
        qsbr.barrier()
        yield qsbr.default_domain
        qsbr.barrier()
        return
    mine = Domain(name="mine")
    yield mine
    close_when_empty(mine)


# ---- goals -----------------------------------------------------------------------------------------------------------


def test_a_goal_is_reached_when_readers_have_left(domain: Domain) -> None:
    with Reader(domain.reading()):
        goal = domain.advance()
        assert not domain.poll(goal)
        later = domain.advance()
    assert domain.poll(goal)
    assert domain.poll(later)


def test_readers_that_came_later_do_not_count(domain: Domain) -> None:
    goal = domain.advance()
    with Reader(domain.reading()):
        assert domain.poll(goal)


def test_the_calling_thread_counts_while_it_is_inside(domain: Domain) -> None:
    with domain.attached():
        goal = domain.advance()
        assert not domain.poll(goal)
        domain.quiescent()
        assert domain.poll(goal)


def test_readers_of_another_domain_do_not_count() -> None:
    with Domain() as one, Domain() as other, Reader(one.reading()):
        other.synchronize(timeout=0)
        assert other.poll(other.advance())
        qsbr.synchronize(timeout=0)


def test_goals_know_their_domain_and_compare_by_age(domain: Domain) -> None:
    first, second = domain.advance(), domain.advance()
    assert first.domain is domain
    assert first.value % 2 == 1
    assert first < second
    assert first <= second
    assert second > first
    assert second >= first
    assert first != second
    assert first == first
    assert len({first, second, first}) == 2
    assert str(first.value) in repr(first)


@settings(deadline=None)
@given(value=st.integers(0, 2**64 - 1), steps=st.integers(1, 2**62 - 1))
def test_goals_may_wrap(value: int, steps: int) -> None:
    first = qsbr._goal(qsbr.default_domain, value)
    second = qsbr._goal(qsbr.default_domain, (value + 2 * steps) % 2**64)
    assert first < second
    assert not second < first
    assert first <= second
    assert not second <= first
    assert second > first
    assert not first > second
    assert second >= first
    assert not first >= second


ORDER: dict[str, Callable[[Any, Any], object]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@pytest.mark.parametrize("sign", ORDER)
def test_goals_compare_with_nothing_else(sign: str) -> None:
    with Domain("theirs") as other:
        mine, theirs = qsbr.advance(), other.advance()
        assert mine != theirs
        with pytest.raises(pyruntime.ArgumentTypeError, match=r"of <domain 'main'>.* of <domain 'theirs'>.*two domains"):
            ORDER[sign](mine, theirs)
    for wrong in (3, None, "goal"):
        assert mine != wrong
        with pytest.raises(pyruntime.ArgumentTypeError, match="compares with other goals of its domain, not with"):
            ORDER[sign](mine, wrong)


def test_a_goal_cannot_be_made_by_hand() -> None:
    with pytest.raises(pyruntime.ArgumentTypeError, match=r"cannot be made by hand: advance\(\), .* answers one"):
        Goal(qsbr.default_domain, 1)
    with pytest.raises(pyruntime.ArgumentTypeError, match="cannot be made by hand"):
        Goal()
    with pytest.raises(pyruntime.ArgumentTypeError, match="cannot be made by hand"):
        copy.deepcopy(qsbr.advance())


def test_poll_refuses_goals_of_other_domains_by_name() -> None:
    with Domain(name="theirs") as other:
        goal = other.advance()
        with pytest.raises(
            pyruntime.ArgumentError, match=r"another domain than <domain 'main'>.*ask the domain that made it"
        ):
            qsbr.poll(goal)


@pytest.mark.parametrize("wrong", [None, 1, "goal", 1.5])
def test_poll_refuses_what_is_no_goal(wrong: Any) -> None:
    with pytest.raises(pyruntime.ArgumentTypeError, match=r"takes a Goal, which advance\(\) makes"):
        qsbr.poll(wrong)


# ---- synchronize and barrier -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 0, 0.0, 1, 1.5, 1e9, 1e300, float("inf"), 10**400])
def test_waits_that_are_over_at_once(domain: Domain, timeout: float | None) -> None:
    domain.synchronize(timeout=timeout)
    domain.barrier(timeout)


@pytest.mark.parametrize("call", ["synchronize", "barrier"])
@pytest.mark.parametrize("timeout", [0, 0.001])
def test_a_timeout_says_who_is_in_the_way(domain: Domain, call: str, timeout: float) -> None:
    domain.retire(int)
    with Reader(domain.reading()), pytest.raises(pyruntime.TimeoutExpired, match=rf"{call}\(timeout={timeout}\)") as caught:
        getattr(domain, call)(timeout=timeout)
    assert isinstance(caught.value, TimeoutError)
    assert "'the reader'" in str(caught.value)


def test_a_barrier_that_times_out_says_that_memory_of_heaps_waits() -> None:
    with Domain("own") as domain:
        heap = Heap(domain=domain, type_stable=True)
        with Reader(domain.reading()):
            heap.alloc(3 << 20).release()
            with pytest.raises(pyruntime.TimeoutExpired, match=r"; 3145728 bytes of heaps wait for it$"):
                domain.barrier(timeout=0.001)
            report = domain.stall_report()
            assert report is not None
            assert (report.pending_items, report.heap_bytes) == (0, 3 << 20)
        domain.barrier()
        heap.close()


def test_a_wait_ends_when_the_reader_leaves(domain: Domain) -> None:
    with Reader(domain.reading()) as reader:
        before = domain.stats().sleeps

        def leave() -> None:
            while domain.stats().sleeps == before:
                threading.Event().wait(0.001)
            reader._may_leave.set()

        thread = threading.Thread(target=leave)
        thread.start()
        domain.synchronize()
        thread.join()
        domain.barrier()


@pytest.mark.parametrize("call", ["synchronize", "barrier"])
@pytest.mark.parametrize("wrong", [True, False, "1", b"1", [1], object()])
def test_timeouts_of_wrong_types(call: str, wrong: Any) -> None:
    with pytest.raises(pyruntime.ArgumentTypeError, match="timeout is a number of seconds"):
        getattr(qsbr, call)(timeout=wrong)


@pytest.mark.parametrize("call", ["synchronize", "barrier"])
@pytest.mark.parametrize("wrong", [-1, -0.001, float("nan"), float("-inf"), -(10**400)])
def test_timeouts_of_wrong_values(call: str, wrong: float) -> None:
    with pytest.raises(pyruntime.ArgumentError, match="timeout is a number of seconds"):
        getattr(qsbr, call)(timeout=wrong)


@pytest.mark.parametrize("call", ["synchronize", "barrier", "quiescent"])
def test_calls_that_would_end_a_reading_block_are_refused(domain: Domain, call: str) -> None:
    with domain.reading(), pytest.raises(pyruntime.StateError, match=rf"{call}\(\) inside a reading\(\) block"):
        getattr(domain, call)()
    getattr(domain, call)()


@pytest.mark.parametrize("call", ["synchronize", "barrier", "quiescent"])
def test_also_for_another_domain(call: str) -> None:
    with Domain() as other, qsbr.reading(), pytest.raises(pyruntime.StateError, match="inside a reading"):
        getattr(other, call)()


def test_synchronize_inside_attached_passes(domain: Domain) -> None:
    with domain.attached():
        goal = domain.advance()
        domain.synchronize()
        assert domain.poll(goal)
        domain.barrier()


# ---- blocks ----------------------------------------------------------------------------------------------------------


def test_blocks_of_one_domain_nest(domain: Domain) -> None:
    section = domain.reading()
    with section, section, domain.attached(), domain.reading():
        goal = domain.advance()
        assert not domain.poll(goal)
    assert domain.poll(goal)
    with section:
        pass


def test_blocks_are_left_in_the_reverse_order_of_entering(domain: Domain) -> None:
    outer, inner = domain.attached(), domain.reading()
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(
        pyruntime.StateError, match=r"attached\(\) block .*: another block was entered after it on this thread"
    ):
        outer.__exit__(None, None, None)
    goal = domain.advance()
    assert not domain.poll(goal)
    inner.__exit__(None, None, None)
    assert not domain.poll(goal)
    outer.__exit__(None, None, None)
    assert domain.poll(goal)


def test_a_section_may_be_entered_again_around_another_one(domain: Domain) -> None:
    section = domain.attached()
    with section, domain.reading(), section:
        with pytest.raises(pyruntime.StateError, match="inside a reading"):
            domain.quiescent()
        goal = domain.advance()
    assert domain.poll(goal)
    with pytest.raises(pyruntime.StateError, match="never entered, or was left already"):
        section.__exit__(None, None, None)


def test_many_blocks_nest(domain: Domain) -> None:
    sections = [domain.reading() for _ in range(1000)]
    for section in sections:
        section.__enter__()
    goal = domain.advance()
    for section in reversed(sections):
        assert not domain.poll(goal)
        section.__exit__(None, None, None)
    assert domain.poll(goal)


@pytest.mark.filterwarnings("ignore:.*is collected:ResourceWarning")
def test_tasks_that_await_inside_a_block_are_told(domain: Domain) -> None:
    """The first task leaves while the second one is inside: not the block that was entered last."""

    async def main() -> list[BaseException | None]:
        first_may_leave, second_may_leave = asyncio.Event(), asyncio.Event()

        async def first() -> None:
            with domain.reading():
                await first_may_leave.wait()

        async def second() -> None:
            with domain.reading():
                first_may_leave.set()
                await second_may_leave.wait()

        tasks = [asyncio.create_task(first()), asyncio.create_task(second())]
        await asyncio.wait(tasks[:1])
        second_may_leave.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    wrong, right = asyncio.run(main())
    assert isinstance(wrong, pyruntime.StateError)
    assert re.search("another block was entered after it on this thread.*await or yield", str(wrong))
    assert right is None
    del wrong
    gc.collect()
    assert pyruntime.current() is None


def test_an_exception_leaves_the_block(domain: Domain) -> None:
    with pytest.raises(KeyError), domain.reading():
        raise KeyError
    domain.synchronize(timeout=0)


@pytest.mark.parametrize("outer", ["reading", "attached"])
@pytest.mark.parametrize("inner", ["reading", "attached"])
def test_a_block_of_a_second_domain_inside_a_block_is_refused(outer: str, inner: str) -> None:
    with Domain(name="second") as second:
        for one, other in ((qsbr.default_domain, second), (second, qsbr.default_domain)):
            message = (
                rf"{inner}\(\) of domain '{other.name}' inside an? {outer}\(\) block of domain '{one.name}' would end "
                "the protection of that block: leave it first"
            )
            with getattr(one, outer)():
                goal = one.advance()
                with pytest.raises(pyruntime.StateError, match=message):
                    getattr(other, inner)().__enter__()
                assert not one.poll(goal)
            assert one.poll(goal)
            with getattr(other, inner)():
                pass


@pytest.mark.parametrize("kind", ["reading", "attached"])
def test_what_may_be_called_for_another_domain_inside_a_block_ends_nothing(kind: str) -> None:
    ran: list[int] = []
    with Domain() as one, Domain() as other:
        with getattr(one, kind)():
            goal = one.advance()
            other.retire(lambda: ran.append(1))
            assert other.poll(other.advance())
            other.stats()
            other.stall_report()
            other.set_bound(items=10, nbytes=10)
            with Domain() as third:
                third.retire(lambda: ran.append(2))
            assert not one.poll(goal)
            assert ran == []
        assert one.poll(goal)
        other.barrier()
    qsbr.barrier()
    assert sorted(ran) == [1, 2]


def test_a_pending_call_does_not_interrupt_a_block() -> None:
    """What others retired is run by the main thread between two instructions, but not where that would end a block."""
    from pyruntime._core import ffi, lib

    ran: list[int] = []

    def body() -> None:
        qsbr.retire(lambda: ran.append(1))
        assert lib.pyrt_qsbr_barrier(ffi.NULL) == lib.PYRT_OK

    with Domain() as domain:
        with domain.attached():
            goal = domain.advance()
            run_in_thread(body)
            for _ in range(10000):
                pass
            Domain().close()
            assert not domain.poll(goal)
            assert ran == []
        assert ran == [1]


def test_leaving_what_was_not_entered(domain: Domain) -> None:
    section = domain.reading()
    with pytest.raises(pyruntime.StateError, match="never entered, or was left already"):
        section.__exit__(None, None, None)
    with section:
        pass
    with pytest.raises(pyruntime.StateError, match="never entered, or was left already"):
        section.__exit__(None, None, None)


def test_leaving_on_another_thread(domain: Domain) -> None:
    section = domain.reading()
    section.__enter__()
    with pytest.raises(pyruntime.StateError, match="entered on another thread"):
        run_in_thread(lambda: section.__exit__(None, None, None))
    with pytest.raises(pyruntime.StateError, match="another thread is inside"):
        run_in_thread(section.__enter__)
    goal = domain.advance()
    assert not domain.poll(goal)
    section.__exit__(None, None, None)
    assert domain.poll(goal)
    run_in_thread(lambda: section.__enter__().__exit__(None, None, None))


def of_another_thread(make: Callable[[], Any]) -> Any:
    """What is made on a thread that is gone, so that it is collected where it is dropped. Without a GIL, what is dropped on
    another thread than the one that has made it is collected on the latter, as long as that lives."""
    made: list[Any] = []
    run_in_thread(lambda: made.append(make()))
    return made.pop()


def test_a_generator_that_is_resumed_on_another_thread(domain: Domain) -> None:
    def generate() -> Iterator[int]:
        with domain.reading():
            yield 1

    generator = generate()
    assert next(generator) == 1
    # Without a GIL the section may be collected here, by the thread that has made it, and is left then.
    end = "" if FREE_THREADED else "another one than this, and leaves it when it next"
    with (
        pytest.raises(pyruntime.StateError, match="entered on another thread"),
        pytest.warns(ResourceWarning, match=rf"reading\(\) block .* is collected.*{end}"),
    ):
        run_in_thread(lambda: next(generator, None))
    domain.synchronize(timeout=60)
    assert domain.poll(domain.advance())


@pytest.mark.parametrize("kind", ["reading", "attached"])
@pytest.mark.parametrize("times", [1, 3])
def test_a_section_that_is_collected_while_it_is_open_is_left(domain: Domain, kind: str, times: int) -> None:
    section = getattr(domain, kind)()
    for _ in range(times):
        section.__enter__()
    goal = domain.advance()
    assert not domain.poll(goal)
    message = rf"{kind}\(\) block of domain '{domain.name}' was entered, never left, and is collected: it is left now"
    with pytest.warns(ResourceWarning, match=message):
        del section
    assert domain.poll(goal)
    assert pyruntime.current() is None


@pytest.mark.filterwarnings("ignore:.*is collected:ResourceWarning")
def test_a_collected_section_takes_no_other_one_with_it(domain: Domain) -> None:
    outer, inner, innermost = domain.attached(), domain.reading(), domain.attached()
    for section in (outer, inner, innermost):
        section.__enter__()
    goal = domain.advance()
    del inner
    assert not domain.poll(goal)
    innermost.__exit__(None, None, None)
    domain.quiescent()
    assert domain.poll(goal)
    goal = domain.advance()
    assert not domain.poll(goal)
    del section, innermost
    outer.__exit__(None, None, None)
    assert domain.poll(goal)


@pytest.mark.filterwarnings("ignore:.*is collected:ResourceWarning")
def test_a_section_that_a_callable_collects_is_left_when_the_callable_returns(domain: Domain) -> None:
    sections = [domain.attached()]
    sections[0].__enter__()
    domain.retire(sections.clear)
    domain.barrier()
    assert sections == []
    assert pyruntime.current() is None
    domain.synchronize(timeout=0)


@pytest.mark.filterwarnings("ignore:.*is collected:ResourceWarning")
@settings(deadline=None, max_examples=50)
@given(steps=st.lists(st.tuples(st.sampled_from(["enter", "leave", "collect"]), st.integers(0, 3)), max_size=60))
def test_any_order_of_entering_leaving_and_collecting(steps: list[tuple[str, int]]) -> None:
    """Against a list of what is open: only the newest can be left, and what is collected is not open any more."""
    for domain in (qsbr.default_domain, Domain(name="mine")):
        makers = [domain.reading, domain.attached, domain.reading, domain.attached]
        sections = [make() for make in makers]
        opened: list[int] = []
        for step, number in steps:
            if step == "enter":
                sections[number].__enter__()
                opened.append(number)
            elif step == "collect":
                sections[number] = makers[number]()
                opened = [one for one in opened if one != number]
            elif opened[-1:] == [number]:
                sections[number].__exit__(None, None, None)
                opened.pop()
            else:
                reason = "another block was entered after it" if number in opened else "never entered, or was left already"
                with pytest.raises(pyruntime.StateError, match=reason):
                    sections[number].__exit__(None, None, None)
            assert (pyruntime.current() is not None) is bool(opened)
            assert domain.poll(domain.advance()) is not bool(opened)
            if opened and not any(makers[one] == domain.reading for one in opened):
                domain.quiescent()
        sections.clear()
        assert pyruntime.current() is None
        if domain is not qsbr.default_domain:
            domain.close()


def test_a_warning_that_is_made_an_error_is_unraisable(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    caught: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: caught.append((args.exc_type, args.object)))
    domain.attached().__enter__()
    assert caught == [(ResourceWarning, domain)]
    assert pyruntime.current() is None


def test_a_section_that_is_collected_on_another_thread_stays_open_until_its_thread_ends(domain: Domain) -> None:
    sections: list[Any] = []

    def enter() -> None:
        sections.append(of_another_thread(domain.attached).__enter__())
        goal.append(domain.advance())
        with pytest.warns(ResourceWarning, match="the thread that entered it is another one than this"):
            run_in_thread(sections.clear)
        assert not domain.poll(goal[0])

    goal: list[Goal] = []
    run_in_thread(enter)
    domain.synchronize(timeout=60)
    assert domain.poll(goal[0])


@pytest.mark.parametrize("kind", ["reading", "attached"])
def test_a_section_whose_thread_has_ended_leaves_no_note_for_it(kind: str) -> None:
    mine = Domain(name="mine")
    sections: list[Any] = []
    run_in_thread(lambda: sections.append(getattr(mine, kind)().__enter__()))
    # The end of the thread takes its uses of the domain back last of all.
    close_when_empty(mine)
    with pytest.warns(ResourceWarning, match="the thread that entered it has ended, which has left it"):
        sections.clear()


def enter_and_leave(block: qsbr.Section) -> None:
    with block:
        pass


CALLS_THAT_LEAVE: dict[str, Callable[[Domain], object]] = {
    "quiescent": lambda domain: domain.quiescent(),
    "synchronize": lambda domain: domain.synchronize(timeout=60),
    "barrier": lambda domain: domain.barrier(timeout=60),
    "retire": lambda domain: domain.retire(int),
    "a block": lambda domain: enter_and_leave(domain.attached()),
    "a block of another domain": lambda domain: enter_and_leave(pyruntime.reading()),
}


@pytest.mark.parametrize("kind", ["reading", "attached"])
@pytest.mark.parametrize("call", CALLS_THAT_LEAVE)
def test_what_is_collected_on_another_thread_is_left_by_the_next_call(domain: Domain, call: str, kind: str) -> None:
    sections = [of_another_thread(getattr(domain, kind)).__enter__()]
    goal = domain.advance()
    with pytest.warns(ResourceWarning, match="leaves it when it next"):
        run_in_thread(sections.clear)
    assert not domain.poll(goal)
    CALLS_THAT_LEAVE[call](domain)
    assert domain.poll(goal)
    state = pyruntime.current()
    assert state is None or state.state == "detached"
    domain.barrier(timeout=60)


def test_a_buried_section_that_is_collected_on_another_thread_is_out_of_the_way(domain: Domain) -> None:
    outer = domain.reading()
    outer.__enter__()
    sections = [of_another_thread(domain.reading).__enter__()]
    with pytest.warns(ResourceWarning, match="leaves it when it next"):
        run_in_thread(sections.clear)
    outer.__exit__(None, None, None)
    domain.synchronize(timeout=60)


def test_a_block_that_a_call_counts_on_cannot_be_left_inside_of_it(domain: Domain) -> None:
    """By a signal handler that runs while the call waits."""
    section = domain.attached()
    caught: list[BaseException] = []

    def handler(*_: object) -> None:
        try:
            section.__exit__(None, None, None)
        except pyruntime.StateError as error:
            caught.append(error)
        reader._may_leave.set()

    before = signal.signal(signal.SIGUSR1, handler)
    sleeps = domain.stats().sleeps

    def interrupt() -> None:
        while domain.stats().sleeps == sleeps:
            time.sleep(0)
        os.kill(os.getpid(), signal.SIGUSR1)

    try:
        with Reader(domain.reading()) as reader, section:
            thread = threading.Thread(target=interrupt)
            thread.start()
            domain.synchronize()
            thread.join()
            assert pyruntime.current() is not None
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(caught) == 1
    assert "a call that this thread is in has to return first" in str(caught[0])
    assert pyruntime.current() is None


def test_sections_have_a_repr_and_cannot_be_made_by_hand() -> None:
    section = qsbr.reading()
    assert repr(section) == "<reading() block of domain 'main', not open>"
    with section:
        assert repr(section) == "<reading() block of domain 'main', open>"
    assert repr(qsbr.attached()) == "<attached() block of domain 'main', not open>"
    with pytest.raises(TypeError):
        type(section)()


# ---- retire ----------------------------------------------------------------------------------------------------------


def test_a_retired_callable_waits_for_the_readers_of_its_time(domain: Domain) -> None:
    ran: list[int] = []
    with Reader(domain.reading()):
        assert domain.retire(lambda: ran.append(1)) is True
        domain.quiescent()
        assert ran == []
    domain.quiescent()
    assert ran == [1]


def test_callables_run_in_the_order_of_retiring(domain: Domain) -> None:
    ran: list[int] = []
    with domain.attached():
        for i in range(1000):
            domain.retire(lambda i=i: ran.append(i))  # type: ignore[misc]
        domain.barrier()
    assert ran == list(range(1000))


def test_a_callable_and_what_it_holds_is_dropped(domain: Domain) -> None:
    class Thing:
        def close(self) -> None:
            pass

    thing = Thing()
    gone = weakref.ref(thing)
    domain.retire(thing.close)
    del thing
    domain.barrier()
    gc.collect()
    assert gone() is None


def test_what_a_callable_raises_is_unraisable(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    caught: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: caught.append((args.exc_type, args.object)))
    ran: list[int] = []

    def fail() -> None:
        raise KeyError("mine")

    domain.retire(fail)
    domain.retire(lambda: ran.append(1))
    domain.barrier()
    assert caught == [(KeyError, fail)]
    assert ran == [1]


def test_callables_may_retire_and_enter_blocks(domain: Domain) -> None:
    ran: list[str] = []

    def first() -> None:
        assert pyruntime.current() is None
        with domain.reading(), domain.reading():
            ran.append("first")
        domain.retire(lambda: ran.append("second"))
        domain.quiescent()
        domain.synchronize()

    with domain.attached():
        domain.retire(first)
        domain.barrier()
        assert ran[:1] == ["first"]
        domain.barrier()
        current = pyruntime.current()
        assert current is not None
        assert current.interpreter_id == domain.interpreter_id
    assert ran == ["first", "second"]


def test_barrier_inside_a_callable_is_refused(domain: Domain) -> None:
    caught: list[BaseException] = []

    def body() -> None:
        try:
            domain.barrier()
        except BaseException as error:
            caught.append(error)

    domain.retire(body)
    domain.barrier()
    assert [type(error) for error in caught] == [pyruntime.DeadlockError]


def test_blocks_that_a_callable_leaves_open_are_closed(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    caught: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: caught.append(str(args.exc_value)))
    sections = [domain.attached(), domain.reading()]

    def body() -> None:
        for section in sections:
            section.__enter__()

    with qsbr.attached():
        domain.retire(body)
        domain.barrier()
        assert len(caught) == 1
        assert "left a block" in caught[0]
        with pytest.raises(pyruntime.StateError):
            sections[1].__exit__(None, None, None)
        assert pyruntime.current() is not None
    assert pyruntime.current() is None
    domain.synchronize(timeout=0)


def test_a_thread_runs_nothing_inside_its_reading_block(domain: Domain) -> None:
    ran: list[int] = []
    with Reader(domain.reading()):
        for _ in range(500):
            domain.retire(lambda: ran.append(threading.get_ident()))
        section = domain.reading().__enter__()
    try:
        for _ in range(500):
            domain.retire(int)
        assert threading.get_ident() not in ran
    finally:
        section.__exit__(None, None, None)
    domain.barrier()
    assert len(ran) == 500


def test_retiring_in_one_domain_inside_reading_of_another() -> None:
    ran: list[int] = []
    with Domain() as other:
        with qsbr.reading():
            other.retire(lambda: ran.append(1))
        other.barrier()
    assert ran == [1]


def test_the_main_thread_looks_after_what_others_retired(domain: Domain) -> None:
    """Nobody calls us any more: a pending call of Python's main thread does it."""
    ran: list[int] = []
    run_in_thread(lambda: [domain.retire(lambda: ran.append(1)) for _ in range(5000)])
    deadline = threading.Event()
    for _ in range(2000):
        if len(ran) > 1000:
            break
        deadline.wait(0.01)
    assert len(ran) > 1000


@pytest.mark.parametrize("wrong", [None, 1, "call me"])
def test_retire_refuses_what_cannot_be_called(wrong: Any) -> None:
    with pytest.raises(pyruntime.ArgumentTypeError, match="takes a callable without arguments"):
        qsbr.retire(wrong)


@pytest.mark.parametrize("wrong", [None, 1.0, "1", True])
def test_retire_refuses_sizes_of_wrong_types(wrong: Any) -> None:
    with pytest.raises(pyruntime.ArgumentTypeError, match="nbytes is an int"):
        qsbr.retire(int, nbytes=wrong)
    with pytest.raises(pyruntime.ArgumentTypeError, match="nbytes is an int"):
        qsbr.retire(int, wrong)


@pytest.mark.parametrize("wrong", [-1, 2**63, -(2**100)])
def test_retire_refuses_sizes_of_wrong_values(wrong: int) -> None:
    with pytest.raises(pyruntime.ArgumentError, match="nbytes is from 0 to"):
        qsbr.retire(int, nbytes=wrong)


@pytest.mark.parametrize("args", [(), (int, 1, 2)])
def test_retire_refuses_wrong_numbers_of_arguments(args: Any) -> None:
    with pytest.raises(pyruntime.ArgumentTypeError, match=r"retire\(\) takes a callable and nbytes=0"):
        qsbr.retire(*args)


@pytest.mark.parametrize("kwargs", [{"bytes": 1}, {"callable": int}, {"nbytes": 1, "more": 2}])
def test_retire_refuses_unknown_keywords(kwargs: Any) -> None:
    with pytest.raises(pyruntime.ArgumentTypeError, match=r"retire\(\) takes a callable and nbytes=0"):
        qsbr.retire(int, **kwargs)


def test_refused_callables_are_not_kept() -> None:
    def body() -> None:
        pass

    gone = weakref.ref(body)
    with pytest.raises(pyruntime.ArgumentError):
        qsbr.retire(body, nbytes=-1)
    del body
    gc.collect()
    assert gone() is None


# ---- the bound, statistics, stalls -----------------------------------------------------------------------------------


def test_retire_answers_false_past_the_bound_and_takes_it_all_the_same() -> None:
    ran: list[int] = []
    with Domain() as domain:
        domain.set_bound(items=10**6, nbytes=1_000_000)
        with domain.attached():
            with Reader(domain.reading()):
                answers = [domain.retire(lambda: ran.append(1), nbytes=100_000) for _ in range(20)]
                assert answers[0] is True
                assert answers[-1] is False
                assert domain.stats().busy == answers.count(False)
                assert domain.stats().pending_bytes == 2_000_000
            domain.barrier()
            assert len(ran) == 20
            assert domain.retire(int) is True


@pytest.mark.parametrize("name", ["items", "nbytes"])
@pytest.mark.parametrize("wrong", [0, -1, 2**63])
def test_bounds_of_wrong_values(name: str, wrong: int) -> None:
    arguments = {"items": 10, "nbytes": 10, name: wrong}
    with pytest.raises(pyruntime.ArgumentError, match=f"{name} is from 1"):
        qsbr.set_bound(**arguments)


@pytest.mark.parametrize("wrong", [None, 1.0, "1", True])
def test_bounds_of_wrong_types(wrong: Any) -> None:
    with pytest.raises(pyruntime.ArgumentTypeError, match="items is an int"):
        qsbr.set_bound(items=wrong, nbytes=10)


def test_stats_count() -> None:
    with Domain() as domain:
        before = domain.stats()
        assert (before.retired, before.pending_items, before.barriers, before.synchronizes) == (0, 0, 0, 0)
        with Reader(domain.reading()):
            domain.retire(int, nbytes=7)
            domain.poll(domain.advance())
            waiting = domain.stats()
            assert (waiting.retired, waiting.pending_items, waiting.pending_bytes) == (1, 1, 7)
            assert waiting.polls > before.polls
            assert waiting.goals > before.goals
        domain.synchronize()
        domain.barrier()
        after = domain.stats()
        assert (after.disposed, after.pending_items, after.pending_bytes) == (1, 0, 0)
        assert (after.barriers, after.synchronizes) == (1, 1)
        assert isinstance(after, qsbr.Stats)


@pytest.mark.parametrize(
    ("held", "waiting", "words"),
    [
        (0.0000125, (0, 0, 0), "for 0.0125 ms; nothing retired waits for it"),
        (0.5, (1, 1, 0), "for 500 ms; 1 item (1 byte) waits for it"),
        (75.04, (2, 1000, 0), "for 75 s; 2 items (1000 bytes) wait for it"),
        (1.0, (0, 0, 65536), "for 1 s; 65536 bytes of heaps wait for it"),
        (1.0, (1, 7, 65536), "for 1 s; 1 item (7 bytes) and 65536 bytes of heaps wait for it"),
    ],
)
def test_a_stall_report_reads_well(held: float, waiting: tuple[int, int, int], words: str) -> None:
    report = qsbr.StallReport(5, "reader", 77, 0, 9, held, *waiting)
    assert str(report) == f"thread 'reader' (id 5, system id 77) has held up a goal {words}"


def test_a_stall_report_names_the_reader(domain: Domain) -> None:
    assert domain.stall_report() is None
    with Reader(domain.reading()):
        domain.retire(int, nbytes=11)
        domain.poll(domain.advance())
        report = domain.stall_report()
        assert isinstance(report, qsbr.StallReport)
        assert report.thread_name == "the reader"
        assert report.interpreter_id == domain.interpreter_id
        assert report.held_seconds >= 0
        assert report.pending_items >= 1
        assert report.pending_bytes >= 11
        words = rf"thread 'the reader' \(id {report.thread_id}, system id \d+\) has held up a goal for .* m?s; .* for it"
        assert re.fullmatch(words, str(report))
        assert report.thread_id in {thread.id for thread in pyruntime.threads(domain.interpreter_id)}
    assert domain.stall_report() is None


# ---- domains ---------------------------------------------------------------------------------------------------------


def test_a_domain_has_a_name_and_an_id() -> None:
    with Domain(name="mine") as mine, Domain("other") as other, Domain() as third:
        assert (mine.name, other.name) == ("mine", "other")
        assert len({mine.interpreter_id, other.interpreter_id, third.interpreter_id, 0}) == 4
        assert repr(mine) == "<domain 'mine'>"
        assert third.name == f"domain {third.interpreter_id}"
        assert repr(third) == f"<domain 'domain {third.interpreter_id}'>"
    assert repr(mine) == "<domain 'mine', closed>"
    assert qsbr.default_domain.name == "main"
    assert qsbr.default_domain.interpreter_id == 0


@pytest.mark.parametrize("wrong", ["", "x" * 32, "ü" * 16, "a\0b"])
def test_names_of_wrong_values(wrong: str) -> None:
    with pytest.raises(pyruntime.ArgumentError, match="1 to 31 bytes of UTF-8"):
        Domain(wrong)


@pytest.mark.parametrize("wrong", [1, b"name", object()])
def test_names_of_wrong_types(wrong: Any) -> None:
    with pytest.raises(pyruntime.ArgumentTypeError, match="the name of a domain is a str"):
        Domain(wrong)


def test_a_name_of_31_bytes_is_kept() -> None:
    with Domain("ü" * 15 + "x") as domain:
        assert domain.name == "ü" * 15 + "x"


USES: dict[str, Callable[[Domain], object]] = {
    "reading": lambda domain: domain.reading().__enter__(),
    "attached": lambda domain: domain.attached().__enter__(),
    "quiescent": lambda domain: domain.quiescent(),
    "advance": lambda domain: domain.advance(),
    "retire": lambda domain: domain.retire(int),
    "synchronize": lambda domain: domain.synchronize(),
    "barrier": lambda domain: domain.barrier(),
    "stats": lambda domain: domain.stats(),
    "stall_report": lambda domain: domain.stall_report(),
    "set_bound": lambda domain: domain.set_bound(items=1, nbytes=1),
}


@pytest.mark.parametrize("use", USES)
def test_a_closed_domain_refuses_everything_by_name(use: str) -> None:
    domain = Domain(name="mine")
    goal = domain.advance()
    domain.close()
    assert domain.closed
    with pytest.raises(pyruntime.StateError, match="domain 'mine' is closed"):
        USES[use](domain)
    with pytest.raises(pyruntime.StateError, match="domain 'mine' is closed"):
        domain.poll(goal)
    domain.close()


def test_close_disposes_of_what_is_retired() -> None:
    ran: list[int] = []
    domain = Domain()
    with domain.attached():
        for _ in range(300):
            domain.retire(lambda: ran.append(1))
    domain.close()
    assert len(ran) == 300


def test_close_is_refused_while_somebody_is_inside() -> None:
    domain = Domain(name="mine")
    with Reader(domain.reading()):
        with pytest.raises(pyruntime.BusyError, match=r"'mine' cannot be closed: thread 'the reader' is inside of it$"):
            domain.close()
        assert not domain.closed
        domain.advance()
        with (
            domain.attached(),
            pytest.raises(pyruntime.BusyError, match=r"threads 'MainThread' \(this one\), 'the reader' are inside of it$"),
        ):
            domain.close()
    domain.close()


def test_of_many_threads_inside_some_are_named() -> None:
    domain = Domain(name="mine")
    with contextlib.ExitStack() as stack:
        for _ in range(11):
            stack.enter_context(Reader(domain.reading()))
        with pytest.raises(pyruntime.BusyError, match=r"threads ('the reader', ){8}and 3 more are inside of it$"):
            domain.close()
    domain.close()


def test_close_is_refused_while_an_extension_keeps_it() -> None:
    from pyruntime._core import lib

    domain = Domain()
    interp = lib.pyrt_interp_pin(domain.interpreter_id)
    with pytest.raises(pyruntime.BusyError, match="an extension keeps it"):
        domain.close()
    lib.pyrt_interp_unpin(interp)
    domain.close()


def test_who_only_looks_does_not_keep_a_domain_from_closing() -> None:
    """heap.stats() and the like pin one interpreter after the other, and may have to wait for the GIL with it."""
    from pyruntime._core import lib

    domain = Domain()
    interp = lib.pyrt_interp_pin(domain.interpreter_id)
    closing = threading.Event()

    def look() -> None:
        closing.wait()
        lib.pyrt_interp_unpin(interp)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        closing.set()
        domain.close()
    finally:
        thread.join()


def test_a_domain_that_is_not_closed_in_the_end_has_not_looked_closed() -> None:
    """To nobody: neither to who uses it meanwhile nor to another that closes it."""
    from pyruntime._core import lib

    domain = Domain()
    interp = lib.pyrt_interp_pin(domain.interpreter_id)
    closing, ended = threading.Barrier(3), threading.Event()
    refused: list[str] = []

    def close() -> None:
        closing.wait()
        try:
            domain.close()
        except pyruntime.BusyError as error:
            refused.append(str(error))
        finally:
            ended.set()

    closers = [threading.Thread(target=close) for _ in range(2)]
    for thread in closers:
        thread.start()
    looks_closed = 0
    try:
        closing.wait()
        while not ended.is_set():
            looks_closed += domain.closed
            time.sleep(0)
    finally:
        for thread in closers:
            thread.join()
        lib.pyrt_interp_unpin(interp)
    # Without a GIL one may come by in the middle of an attempt.
    assert looks_closed == 0 or FREE_THREADED
    assert len(refused) == 2
    with domain.reading():
        pass
    domain.close()


def test_idle_threads_do_not_keep_a_domain_from_closing() -> None:
    domain = Domain()
    used, may_end = threading.Event(), threading.Event()

    def body() -> None:
        with domain.reading():
            pass
        domain.retire(int)
        used.set()
        may_end.wait()

    thread = threading.Thread(target=body)
    thread.start()
    used.wait()
    domain.close()
    may_end.set()
    thread.join()


def test_the_default_domain_cannot_be_closed() -> None:
    with pytest.raises(pyruntime.StateError, match="ends with its Python interpreter"):
        qsbr.default_domain.close()


def test_a_dropped_domain_is_closed_and_its_callables_run() -> None:
    ran: list[int] = []
    before = len(pyruntime.interpreters())
    domain = Domain()
    domain.retire(lambda: ran.append(1))
    assert len(pyruntime.interpreters()) == before + 1
    del domain
    gc.collect()
    assert len(pyruntime.interpreters()) == before
    qsbr.barrier()
    assert ran == [1]


def test_an_open_section_keeps_its_domain() -> None:
    section = Domain(name="mine").reading()
    with section:
        gc.collect()
        assert "mine" in {one.name for one in pyruntime.interpreters()}


def test_a_subclass_is_a_domain() -> None:
    class Mine(Domain):
        pass

    with Mine("mine") as mine:
        assert isinstance(mine, Mine)
        assert mine.advance().domain is mine


def test_many_domains_come_and_go() -> None:
    before = len(pyruntime.interpreters())
    for turn in range(300):
        with Domain() as domain, domain.reading():
            domain.retire(int)
            assert pyruntime.threads(domain.interpreter_id)[0].index == 0
            if turn % 100 == 0:
                assert len(pyruntime.interpreters()) == before + 1
    assert len(pyruntime.interpreters()) == before
