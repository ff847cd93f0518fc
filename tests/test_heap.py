"""pyruntime.heap: heaps, buffers whose memory goes back wherever they die, and the figures."""

from __future__ import annotations

import array
import ctypes
import gc
import io
import itertools
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from unittest.mock import Mock

import pytest
from conftest import FREE_THREADED, Python, needs_subinterpreters
from hypothesis import given, settings
from hypothesis import strategies as st
from test_free_threading import at_once, threads_change_often  # noqa: F401  (a fixture for all tests here)
from test_interpreters import program as in_interpreters

import pyruntime
from pyruntime import __main__ as command
from pyruntime import _core, _heap_sample, errors, heap, qsbr
from pyruntime.heap import Buffer, Heap, HeapStats, LeftBlocks, MemoryStats, SizeClassStats, leaks, owner, report, stats

ROUNDS = 2000 if FREE_THREADED else 500
SIZES = [0, 1, 8, 9, 16, 100, 1024, 1025, 4096, 65536, 65537, 300_000, 2 << 20, (2 << 20) + 1, 5 << 20]


def counts(one: Heap) -> tuple[int, int]:
    """Allocated, and in use."""
    figures = one.stats()
    return figures.allocated, figures.blocks


# ---- making heaps ----------------------------------------------------------------------------------------------------


def test_a_heap_is_what_it_was_asked_to_be() -> None:
    plain = Heap()
    assert (plain.tag, plain.type_stable, plain.stable_prefix, plain.closed) == (0, False, 0, False)
    assert plain.domain is qsbr.default_domain
    assert plain.name.startswith("heap ")
    assert Heap().name != plain.name
    stable = Heap("nodes", tag=31, type_stable=True)
    assert (stable.name, stable.tag, stable.type_stable, stable.stable_prefix) == ("nodes", 31, True, 32)
    assert Heap(name="ö" * 15, type_stable=True, stable_prefix=1024).stable_prefix == 1024
    with pyruntime.Domain("mine") as domain:
        assert Heap(domain=domain).domain is domain


WRONG_HEAPS: dict[str, tuple[dict[str, Any], type[errors.Error], str]] = {
    "name of another type": ({"name": b"x"}, errors.ArgumentTypeError, "the name of a heap is a str, not <class 'bytes'>"),
    "no name at all": ({"name": ""}, errors.ArgumentError, "has 1 to 31 bytes"),
    "a long name": ({"name": "x" * 32}, errors.ArgumentError, "has 1 to 31 bytes"),
    "a surrogate in the name": ({"name": "\udc80"}, errors.ArgumentError, r"no surrogates: take them out of '\\udc80'"),
    "null in the name": ({"name": "a\0b"}, errors.ArgumentError, "no null character"),
    "a tag too high": ({"tag": 32}, errors.ArgumentError, "tag is from 0 to 31, not 32"),
    "a tag too low": ({"tag": -1}, errors.ArgumentError, "tag is from 0 to 31, not -1"),
    "an endless tag": ({"tag": 10**30}, errors.ArgumentError, "tag is from 0 to 31"),
    "a tag of another type": ({"tag": 1.0}, errors.ArgumentTypeError, r"tag is an int from 0 to 31, not 1\.0"),
    "True for a tag": ({"tag": True}, errors.ArgumentTypeError, "tag is an int from 0 to 31, not True"),
    "a number for type_stable": ({"type_stable": 1}, errors.ArgumentTypeError, "type_stable is True or False, not 1"),
    "a prefix without type_stable": ({"stable_prefix": 8}, errors.ArgumentError, "for a heap with type_stable=True"),
    "an odd prefix": ({"type_stable": True, "stable_prefix": 12}, errors.ArgumentError, "a multiple of 8, not 12"),
    "no prefix": ({"type_stable": True, "stable_prefix": 0}, errors.ArgumentError, "from 8 to 1024, not 0"),
    "a prefix too long": ({"type_stable": True, "stable_prefix": 1032}, errors.ArgumentError, "from 8 to 1024"),
    "another domain": ({"domain": "main"}, errors.ArgumentTypeError, "domain is a Domain, or None .* not 'main'"),
    "a mock of a domain": ({"domain": Mock(spec=pyruntime.Domain)}, errors.ArgumentTypeError, "not <Mock spec='Domain' "),
}


@pytest.mark.parametrize("case", WRONG_HEAPS)
def test_heaps_that_there_are_not(case: str) -> None:
    arguments, error, message = WRONG_HEAPS[case]
    with pytest.raises(error, match=message):
        Heap(**arguments)


def test_a_default_domain_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qsbr, "default_domain", 5)
    with pytest.raises(errors.ArgumentTypeError, match="or None for the default one, not 5"):
        Heap()


def test_heaps_take_no_other_arguments() -> None:
    with pytest.raises(TypeError):
        Heap("a", 1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Heap(size=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Buffer()


def test_none_is_a_base_class() -> None:
    for kind in (Heap, Buffer):
        with pytest.raises(TypeError, match=rf"'pyruntime\.heap\.{kind.__name__}' is not an acceptable base type"):
            type("Mine", (kind,), {})
        assert "cannot be subclassed" in " ".join(str(kind.__doc__).split())


def test_a_domain_with_a_surrogate_in_its_name() -> None:
    with pytest.raises(
        errors.ArgumentError, match=r"the name of a domain is written as UTF-8, .* take them out of 'a\\udc80'"
    ):
        pyruntime.Domain("a\udc80")


def test_a_heap_of_a_closed_domain() -> None:
    domain = pyruntime.Domain("gone")
    domain.close()
    with pytest.raises(errors.StateError, match="'gone' is closed"):
        Heap(domain=domain)


# ---- allocating ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_stable", [False, True])
def test_buffers_of_all_sizes(type_stable: bool) -> None:
    one = Heap("sizes", type_stable=type_stable)
    for turn in range(2):
        kept = [one.alloc(size) for size in SIZES]
        for size, buffer in zip(SIZES, kept, strict=True):
            assert len(buffer) == buffer.nbytes == size
            assert bytes(buffer) == bytes(size), (turn, size)
            assert buffer.address % (16 if size > 8 else 8) == 0
            buffer[:] = b"\xff" * size
        assert len({buffer.address for buffer in kept}) == len(SIZES)
        assert counts(one) == ((turn + 1) * len(SIZES), len(SIZES))
        del kept, buffer
        assert counts(one) == ((turn + 1) * len(SIZES), 0)


def test_what_is_not_zeroed_can_be_written() -> None:
    one = Heap()
    for size in SIZES:
        buffer = one.alloc(size, zero=False)
        buffer[:] = b"\x5a" * size
        assert bytes(buffer) == b"\x5a" * size
        assert one.alloc(size, zero=True).nbytes == size


class Nine:
    def __index__(self) -> int:
        return 9


class Hostile:
    def __index__(self) -> int:
        raise KeyError("hostile")


def test_numbers_of_bytes() -> None:
    one = Heap()
    assert len(one.alloc(Nine())) == 9
    with pytest.raises(KeyError, match="hostile"):
        one.alloc(Hostile())
    wrong: list[Any] = [1.0, "1", None, True, b"1"]
    for value in wrong:
        with pytest.raises(errors.ArgumentTypeError, match="takes an int, a number of bytes, not <class"):
            one.alloc(value)
    for negative in (-1, -(10**30)):
        with pytest.raises(errors.ArgumentError, match="from 0 on, not -1"):
            one.alloc(negative)
    calls: list[Callable[[], Any]] = [
        lambda: one.alloc(),  # type: ignore[call-arg]
        lambda: one.alloc(1, False),  # type: ignore[call-arg]
        lambda: one.alloc(1, size=2),  # type: ignore[call-arg]
        lambda: one.alloc(nbytes=2),  # type: ignore[call-arg]
        lambda: one.alloc(1, zero=False, x=2),  # type: ignore[call-arg]
    ]
    for call in calls:
        with pytest.raises(errors.ArgumentTypeError, match="takes a number of bytes and zero=True, nothing else"):
            call()
    with pytest.raises(errors.ArgumentTypeError, match="zero is True or False, not 1"):
        one.alloc(1, zero=1)  # type: ignore[arg-type]
    assert counts(one) == (1, 0)


@pytest.mark.parametrize("size", [2**47, 2**62, 2**63 - 1, 2**63, 10**30])
@pytest.mark.parametrize("zero", [False, True])
def test_absurd_sizes(size: int, zero: bool) -> None:
    one = Heap("small")
    with pytest.raises(errors.OutOfMemoryError, match=f"no memory for a buffer of {size} bytes in heap 'small'") as caught:
        one.alloc(size, zero=zero)
    assert isinstance(caught.value, MemoryError)
    assert one.stats().refused == 1
    assert counts(one) == (0, 0)
    assert len(one.alloc(10)) == 10


# ---- the buffer protocol ---------------------------------------------------------------------------------------------


def test_a_view_is_of_writable_bytes() -> None:
    buffer = Heap().alloc(24)
    with memoryview(buffer) as view:
        assert (view.format, view.itemsize, view.ndim, view.shape, view.strides) == ("B", 1, 1, (24,), (1,))
        assert (view.readonly, view.contiguous, view.nbytes, view.obj) == (False, True, 24, buffer)
        view[3] = 7
        numbers = view.cast("q")
        numbers[2] = -5
        numbers.release()
    assert buffer[3] == 7
    assert struct.unpack_from("q", buffer, 16) == (-5,)


def test_everything_that_takes_a_bytearray_takes_it() -> None:
    buffer = Heap().alloc(8)
    assert io.BytesIO(b"abcdefgh").readinto(buffer) == 8
    assert bytes(buffer) == b"abcdefgh"
    struct.pack_into("<I", buffer, 4, 0x64636261)
    assert bytes(buffer) == b"abcdabcd"
    assert b"".join([buffer, buffer]) == b"abcdabcd" * 2
    assert int.from_bytes(buffer, "big") == 0x6162636461626364
    in_c = (ctypes.c_char * 8).from_buffer(buffer)
    in_c[0] = b"Z"
    assert ctypes.addressof(in_c) == buffer.address
    with pytest.raises(errors.BufferInUseError):
        buffer.release()
    del in_c
    gc.collect()
    assert buffer[0] == ord("Z")
    assert list(buffer) == list(b"Zbcdabcd")
    assert ord("Z") in buffer
    assert array.array("B", buffer).tolist() == list(b"Zbcdabcd")
    out = io.BytesIO()
    out.write(buffer)
    assert out.getvalue() == b"Zbcdabcd"
    buffer.release()


def test_numpy_looks_into_it() -> None:
    numpy = pytest.importorskip("numpy")
    buffer = Heap().alloc(80)
    numbers = numpy.frombuffer(buffer, dtype="f8")
    numbers[:] = range(10)
    assert struct.unpack_from("d", buffer, 72) == (9.0,)
    address = buffer.address
    del buffer
    gc.collect()
    assert owner(address) == 0
    assert numbers.sum() == 45


def test_items_and_slices_are_those_of_a_memoryview() -> None:
    buffer = Heap().alloc(6)
    buffer[:] = b"abcdef"
    assert (buffer[0], buffer[-1]) == (97, 102)
    part = buffer[1:4]
    assert isinstance(part, memoryview)
    part[0] = ord("X")
    assert bytes(buffer) == b"aXcdef"
    assert bytes(buffer[::2]) == b"ace"
    buffer[-1] = 0
    buffer[::3] = b"12"
    assert bytes(buffer) == b"1Xc2e\0"
    for key in (6, -7):
        with pytest.raises(IndexError):
            buffer[key]
    with pytest.raises(IndexError):
        buffer[6] = 1
    with pytest.raises(ValueError, match=r"."):
        buffer[0] = 256
    with pytest.raises(ValueError, match=r"."):
        buffer[0:2] = b"abc"
    with pytest.raises(TypeError):
        buffer["a"]  # type: ignore[call-overload]
    with pytest.raises(errors.ArgumentTypeError, match="can be set, not deleted"):
        del buffer[0]  # type: ignore[attr-defined]


def test_the_bytes_in_reverse() -> None:
    buffer = Heap().alloc(3)
    buffer[:] = b"abc"
    backwards = reversed(buffer)
    assert next(backwards) == ord("c")
    buffer[0] = ord("X")
    assert list(backwards) == list(reversed(bytearray(b"Xb")))
    assert list(reversed(Heap().alloc(0))) == []
    del backwards
    buffer.release()
    with pytest.raises(errors.StateError, match="has been released"):
        reversed(buffer)


def test_a_name_is_shown_on_one_line_whatever_is_in_it() -> None:
    name = "a\nb\x1b[31m\u2028 \u00e9'"
    one = Heap(name, domain=pyruntime.Domain("x\ny"))
    buffer = one.alloc(10)
    assert (one.name, one.stats().name) == (name, name)
    escaped = r"a\nb\x1b[31m\u2028 é'"
    assert repr(one) == rf"""<heap "{escaped}" of domain 'x\ny', 1 buffer in use>"""
    assert repr(buffer).startswith(f'<buffer of 10 bytes of heap "{escaped}" at ')
    text = report()
    lines = text.split("\n")
    assert lines == text.splitlines()
    assert [line.split("  ")[0] for line in lines if line.startswith("a")] == [escaped]
    assert [line.split()[1] for line in lines if r"x\ny" in line] == [r"x\ny"]
    one.close()
    assert f'\nheap "{escaped}" is closed and has 1 buffer in use' in report()
    with pytest.raises(errors.StateError) as caught:
        one.alloc(1)
    assert f'heap "{escaped}" is closed' in str(caught.value)
    buffer.release()
    assert repr(buffer) == f'<buffer of heap "{escaped}", released>'


def test_it_tells_what_it_is() -> None:
    one = Heap("frames", tag=9)
    buffer = one.alloc(100)
    assert (buffer.tag, buffer.heap, buffer.owner, buffer.released) == (9, one, 0, False)
    assert repr(buffer) == f"<buffer of 100 bytes of heap 'frames' at {buffer.address:#x}>"
    assert repr(one.alloc(1)).startswith("<buffer of 1 byte of heap")
    assert repr(one) == "<heap 'frames' of domain 'main', 1 buffer in use>"
    assert bool(buffer)
    assert not one.alloc(0)
    with pytest.raises(TypeError):
        _ = buffer < buffer  # type: ignore[operator]
    assert buffer == buffer != one.alloc(100)
    assert len({buffer, one}) == 2
    for thing in (buffer, one):
        with pytest.raises(AttributeError):
            thing.new = 1  # type: ignore[union-attr]


# ---- release ---------------------------------------------------------------------------------------------------------


def test_a_released_buffer_refuses_everything() -> None:
    one = Heap("frames")
    buffer = one.alloc(10)
    buffer.release()
    buffer.release()
    assert buffer.released
    assert counts(one) == (1, 0)
    assert repr(buffer) == "<buffer of heap 'frames', released>"
    assert (buffer.heap, buffer.tag, buffer.owner) == (one, 0, 0)
    calls: list[Callable[[], Any]] = [
        lambda: len(buffer),
        lambda: buffer.nbytes,
        lambda: buffer.address,
        lambda: buffer[0],
        lambda: buffer.__setitem__(0, 1),
        lambda: memoryview(buffer),
        lambda: bytes(buffer),
        lambda: buffer.__enter__(),
        lambda: owner(buffer),
    ]
    for call in calls:
        with pytest.raises(errors.StateError, match="of heap 'frames' has been released"):
            call()


def test_it_is_not_released_while_somebody_looks() -> None:
    one = Heap("frames")
    buffer = one.alloc(10)
    first, second = memoryview(buffer), memoryview(buffer)
    with pytest.raises(errors.BufferInUseError, match="2 views of it are open; release them first") as caught:
        buffer.release()
    assert isinstance(caught.value, BufferError)
    first.release()
    with pytest.raises(errors.BufferInUseError, match="1 view of it is open"):
        buffer.release()
    with pytest.raises(errors.BufferInUseError), buffer:
        pass
    second[0] = 1
    second.release()
    buffer.release()
    assert counts(one) == (1, 0)


def test_a_with_block_releases_it() -> None:
    one = Heap()
    with one.alloc(10) as buffer:
        buffer[0] = 1
        assert counts(one) == (1, 1)
    assert buffer.released
    with pytest.raises(ZeroDivisionError), one.alloc(10):
        _ = 1 // 0
    assert counts(one) == (2, 0)


def test_a_view_keeps_the_memory_that_its_buffer_had() -> None:
    one = Heap()
    view = memoryview(one.alloc(100_000))[5:]
    gc.collect()
    assert counts(one) == (1, 1)
    view[:] = b"v" * len(view)
    assert bytes(view) == b"v" * 99_995
    view.release()
    gc.collect()
    assert counts(one) == (1, 0)


# ---- references and cycles -------------------------------------------------------------------------------------------


def test_weak_references() -> None:
    one = Heap()
    buffer = one.alloc(10)
    gone: list[str] = []
    kept: list[weakref.ref[Any]] = [
        weakref.ref(one, lambda _: gone.append("heap")),
        weakref.ref(buffer, lambda _: gone.append("buffer")),
    ]
    assert [reference() for reference in kept] == [one, buffer]
    weakref.finalize(buffer, gone.append, "finalized")
    del one
    gc.collect()
    assert gone == []
    del buffer
    gc.collect()
    assert sorted(gone) == ["buffer", "finalized", "heap"]
    assert kept[0]() is None


class Node:
    """Something to make cycles with."""

    me: Node
    buffer: Buffer
    view: memoryview


@pytest.mark.parametrize("with_view", [False, True])
def test_buffers_in_cycles_go_back(with_view: bool) -> None:
    one = Heap()
    for _ in range(100):
        node = Node()
        node.me = node
        node.buffer = one.alloc(100)
        if with_view:
            node.view = memoryview(node.buffer)
    del node
    gc.collect()
    assert counts(one) == (100, 0)


class Cache(pyruntime.Domain):
    """A domain that holds what is made in it."""

    buffers: list[Buffer]


def test_a_cycle_through_the_domain_itself() -> None:
    domain = Cache("cycle")
    number = domain.interpreter_id
    one = Heap(domain=domain)
    domain.buffers = [one.alloc(10), one.alloc(100_000)]
    gone = weakref.ref(one)
    del domain, one
    gc.collect()
    assert gone() is None
    assert number not in [one.id for one in pyruntime.interpreters()]


def test_a_buffer_keeps_what_it_came_from(capfd: pytest.CaptureFixture[str]) -> None:
    """So that nothing is left of a domain that was only forgotten."""
    buffer = Heap("only", domain=pyruntime.Domain("forgotten")).alloc(100)
    gc.collect()
    assert buffer.heap.domain.name == "forgotten"
    assert owner(buffer) == buffer.owner == buffer.heap.domain.interpreter_id
    del buffer
    gc.collect()
    assert "forgotten" not in [one.name for one in pyruntime.interpreters()]
    assert capfd.readouterr().err == ""


def test_calls_return_references_of_their_own(python: Python) -> None:
    result = python.run("""
        import gc, sys
        import pyruntime
        from pyruntime.heap import Heap
        heap = Heap("mine")
        buffer = heap.alloc(10)
        def refused(call):
            def wrapped():
                try: call()
                except pyruntime.Error: pass
            return wrapped
        def used():
            with Heap() as one, one.alloc(10) as two:
                two[:2] = b"ab"
                memoryview(two)[0]
        calls = [lambda: heap.alloc(5), lambda: heap.alloc(10**6).release(), lambda: heap.stats(), used,
                 lambda: (buffer.heap, buffer.tag, buffer.owner, buffer.released, buffer.address, buffer.nbytes),
                 lambda: (heap.name, heap.domain, heap.tag, heap.type_stable, heap.stable_prefix, heap.closed),
                 lambda: (repr(heap), repr(buffer), len(buffer), buffer[0], buffer[1:]), heap.__enter__,
                 refused(lambda: heap.alloc(-1)), refused(lambda: heap.alloc(1 << 62)), refused(lambda: Heap(tag=99)),
                 pyruntime._core.heap_figures, pyruntime._core.add_heap_types, buffer.__enter__]
        watched = [None, True, False, heap, buffer, heap.domain, Heap, type(buffer), 0]
        for number, call in enumerate(calls):
            for _ in range(10): call()
            gc.collect()
            before = [sys.getrefcount(value) for value in watched] + [sys.getallocatedblocks()]
            for _ in range(1000): call()
            gc.collect()
            after = [sys.getrefcount(value) for value in watched] + [sys.getallocatedblocks()]
            changed = max(abs(new - old) for new, old in zip(after, before))
            assert changed < 300, (number, before, after)
        print(heap.stats().blocks)
    """)
    assert result.out == "1\n"


# ---- closing ---------------------------------------------------------------------------------------------------------


def test_a_closed_heap_gives_nothing_and_takes_everything_back() -> None:
    with Heap("short") as one:
        buffer = one.alloc(100)
        assert not one.closed
    assert one.closed
    one.close()
    with pytest.raises(errors.StateError, match=r"Heap.alloc\(\): heap 'short' is closed; make a new one"):
        one.alloc(1)
    with pytest.raises(errors.StateError, match="heap 'short' is closed"):
        one.__enter__()
    assert repr(one) == "<heap 'short' of domain 'main', closed, 1 buffer in use>"
    buffer[:] = b"x" * 100
    assert [leak.name for leak in leaks()] == ["short"]
    buffer.release()
    assert leaks() == []


def test_heaps_are_not_left_in_the_core() -> None:
    def heaps_of_main() -> int:
        return next(one.heap_count for one in stats() if one.owner == 0)

    gc.collect()
    before = heaps_of_main()
    for number in range(100):
        one = Heap(type_stable=number % 2 == 0)
        one.alloc(10).release()
        if number % 3 == 0:
            one.close()
    del one
    # Each thread forgets ended heaps when it next takes the long way.
    last = Heap()
    last.alloc(10)
    assert heaps_of_main() <= before + 2
    del last


def test_a_domain_that_is_closed_under_its_buffers(capfd: pytest.CaptureFixture[str]) -> None:
    domain = pyruntime.Domain("short")
    one = Heap("long", domain=domain)
    buffer = one.alloc(100)
    number = buffer.owner
    domain.close()
    assert one.closed
    assert "interpreter" in (said := capfd.readouterr().err)
    assert "'short' has ended with 1 block of its heaps in use, 112 bytes, which go back when they are freed" in said
    with pytest.raises(errors.StateError, match="domain 'short' is closed"):
        one.alloc(1)
    buffer[:] = b"y" * 100
    assert owner(buffer) == number
    assert [(leak.name, leak.owner, leak.blocks) for leak in leaks()] == [("long", number, 1)]
    left = stats()[-1]
    assert (left.owner, left.name, left.ended, left.pages, left.page_bytes) == (number, "short", True, 1, 65536)
    assert left.reserved_bytes >= 4 << 20
    assert [heap.name for heap in left.heaps] == ["long"]
    text = report()
    assert re.search(rf"^{number} +short, ended +4\.00 MiB +64\.0 KiB +1 ", text, re.MULTILINE), text
    assert text.endswith("heap 'long' is closed and has 1 buffer in use, 112 B")
    address = buffer.address
    one.close()
    del buffer
    assert leaks() == []
    assert owner(address) is None
    assert not any(one.ended for one in stats())
    assert counts(one) == (1, 0)


def test_what_c_code_leaves_of_an_interpreter_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    lib, ffi = _core.lib, _core.ffi
    domain = pyruntime.Domain("both")
    buffer = Heap("python's", domain=domain, tag=2).alloc(100)
    interp = lib.pyrt_interp_pin(domain.interpreter_id)
    config = ffi.new("pyrt_heap_config *", {"struct_size": ffi.sizeof("pyrt_heap_config"), "tag": 7})
    of_c = lib.pyrt_heap_new(interp, config)
    thread = lib.pyrt_thread_ensure(interp)
    blocks = [lib.pyrt_heap_alloc_slow(thread, of_c, size, False) for size in (100, 100, 90_000)]
    lib.pyrt_thread_release(thread)
    lib.pyrt_interp_unpin(interp)
    assert leaks() == []
    domain.close()
    assert "'both' has ended with 4 blocks of its heaps in use" in capfd.readouterr().err
    of_python, left = leaks()
    assert (of_python.name, of_python.blocks) == ("python's", 1)
    assert isinstance(left, LeftBlocks)
    assert (left.name, left.owner, left.blocks, left.block_bytes) == ("both", buffer.owner, 3, 224 + (128 << 10))
    assert (left.by_size, left.by_tag) == ({112: 2, 0: 1}, {7: 3})
    assert report().endswith(
        f"interpreter {buffer.owner} 'both' has ended, and C code has 3 blocks of it in use, 128 KiB: "
        "2 of 112 B, 1 of > 64 KiB, 3 with tag 7"
    )
    buffer.release()
    lib.pyrt_free(blocks.pop())
    (left,) = leaks()
    assert (left.blocks, left.block_bytes) == (2, 224)
    for block in blocks:
        lib.pyrt_free(block)
    assert leaks() == []
    assert not any(one.ended for one in stats())


@pytest.mark.parametrize("die", [True, False])
def test_memory_stays_flat_when_buffers_outlive_their_domains(
    python: Python, die: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each domain is closed before its buffer dies, on another thread. Where they do not die, that is seen."""
    # A thread may still be ending when it has been joined: the C library would reserve 64 MiB for the malloc of the next.
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    result = python.run(f"""
        import threading
        import pyruntime
        from pyruntime.heap import Heap, leaks

        def kib():
            lines = dict(line.split(":") for line in open("/proc/self/status"))
            return [int(lines[name].split()[0]) for name in ("VmRSS", "VmSize")]

        def outlive():
            with pyruntime.Domain("short") as domain:
                buffer = Heap("long", domain=domain).alloc(300_000, zero=False)
            buffer[:] = bytes(300_000)
            return buffer

        kept = []

        def live(times):
            for _ in range(times):
                kept.append(outlive())
                if {die}:
                    thread = threading.Thread(target=kept.pop(0).release)
                    thread.start()
                    thread.join()

        kept.append(outlive())
        live(50)
        before = kib()
        live(300)
        grown = [now - then for now, then in zip(kib(), before)]
        print(len(leaks()), *grown)
        kept.clear()
        assert leaks() == []
    """)
    count, resident, reserved = map(int, result.out.split())
    if die:
        assert count == 1
        assert resident < 4096, "KiB are resident: 300 buffers have 87 890"
        assert reserved < 100 * 1024, "KiB are reserved: 300 arenas have 1 228 800"
    else:
        assert count == 351
        assert resident > 80_000
        assert reserved > 1_000_000


# ---- other blocks and pauses -----------------------------------------------------------------------------------------


def test_inside_of_blocks() -> None:
    one = Heap("outer")
    with pyruntime.Domain("other") as domain:
        with pyruntime.reading(), pyruntime.attached():
            assert len(one.alloc(10)) == 10
            one.alloc(10).release()
        for block in (domain.reading, domain.attached):
            with (
                block(),
                pytest.raises(errors.StateError, match="inside a block of domain 'other' would end the protection"),
            ):
                one.alloc(10)
        inner = Heap(domain=domain)
        with domain.attached(), domain.reading():
            kept = [inner.alloc(size) for size in SIZES]
            assert owner(kept[3]) == domain.interpreter_id
            del kept
        assert inner.alloc(100).owner == domain.interpreter_id
        with pyruntime.attached(), pytest.raises(errors.StateError, match="or make the heap with domain="):
            inner.alloc(10)
        assert counts(inner) == (len(SIZES) + 1, 0)
    assert counts(one) == (2, 0)
    assert pyruntime.current() is None


@pytest.mark.parametrize("everything", [False, True])
def test_inside_of_the_own_pause(everything: bool) -> None:
    one = Heap()
    kept = one.alloc(10)
    with pyruntime.stop_the_world(timeout=60, everything=everything):
        one.alloc(100_000)
        one.alloc(10).release()
        kept.release()
    assert counts(one) == (3, 0)


def test_others_wait_for_the_end_of_a_pause_and_free_without_waiting() -> None:
    one = Heap()
    kept = one.alloc(10)
    made: list[Buffer] = []
    thread = threading.Thread(target=lambda: made.append(one.alloc(10)))
    with pyruntime.stop_the_world(timeout=60):
        freed = threading.Thread(target=kept.release)
        freed.start()
        freed.join()
        thread.start()
    thread.join()
    assert len(made) == 1
    assert counts(one) == (2, 1)


def test_ctrl_c_ends_the_wait_for_a_pause(python: Python) -> None:
    python.run("""
        import signal, threading
        import pyruntime
        heap = pyruntime.Heap()
        heap.alloc(1)
        is_in, go_out = threading.Event(), threading.Event()
        def body():
            with pyruntime.stop_the_world():
                is_in.set()
                go_out.wait()
        thread = threading.Thread(target=body)
        thread.start()
        is_in.wait()
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        def handler(*args): raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, handler)
        try:
            heap.alloc(1)
        except KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, 0)
            print("interrupted")
        go_out.set()
        thread.join()
        assert (heap.stats().allocated, heap.stats().blocks) == (1, 0)
        heap.alloc(1)
    """)


# ---- several threads -------------------------------------------------------------------------------------------------


def fill(buffer: Buffer, number: int) -> None:
    buffer[:] = bytes([number % 256]) * len(buffer)


def is_whole(buffer: Buffer, number: int) -> bool:
    return bytes(buffer) == bytes([number % 256]) * len(buffer)


def test_a_heap_ends_once_whoever_comes_too_late() -> None:
    """Also where one that finds it closed takes itself for the last one to leave."""
    for turn in range(ROUNDS // 2):
        one = Heap("closing")

        def body(number: int, one: Heap = one, turn: int = turn) -> int:
            made = 0
            for step in range(4):
                if number == 0 and step == turn % 4:
                    one.close()
                with suppress(pyruntime.StateError):
                    buffer = one.alloc(8)
                    fill(buffer, number)
                    made += is_whole(buffer, number)
            return made

        made = sum(at_once(body, 3))
        assert one.closed
        assert counts(one) == (made, 0)


def test_threads_allocate_free_abroad_and_die() -> None:
    """Each thread gives half of what it allocates to the next one, which frees it, or finds it when it is dead."""
    one = Heap("shared")
    boxes: list[list[tuple[Buffer, int]]] = [[] for _ in range(4)]

    def body(number: int) -> int:
        wrong = 0
        for turn in range(ROUNDS):
            buffer = one.alloc((turn * 37 + number) % 3000 + (100_000 if turn % 97 == 0 else 0), zero=turn % 2 == 0)
            fill(buffer, turn)
            if turn % 2 == 0:
                boxes[(number + 1) % 4].append((buffer, turn))
            while len(boxes[number]) > 20:
                theirs, its = boxes[number].pop()
                wrong += not is_whole(theirs, its)
            wrong += not is_whole(buffer, turn)
        return wrong

    assert at_once(body) == [0, 0, 0, 0]
    left = sum(map(len, boxes))
    assert counts(one) == (4 * ROUNDS, left)
    assert all(is_whole(buffer, number) for box in boxes for buffer, number in box)
    one.close()
    assert leaks()[-1].blocks == left
    for box in boxes:
        box.clear()
    assert counts(one) == (4 * ROUNDS, 0)


def test_one_buffer_is_released_once_by_many() -> None:
    one = Heap()
    for _ in range(ROUNDS // 10):
        buffers = [one.alloc(64) for _ in range(20)]

        def body(number: int, buffers: list[Buffer] = buffers) -> None:
            for buffer in buffers:
                buffer.release()

        at_once(body)
        del body
    assert one.stats().blocks == 1 * 0
    assert one.stats().allocated == ROUNDS // 10 * 20


def test_views_and_releases_of_one_buffer_at_once() -> None:
    """Whoever has a view has memory; whoever releases it while there is one is refused."""
    one = Heap()
    for _ in range(ROUNDS // 20):
        buffers = [one.alloc(32) for _ in range(20)]

        def body(number: int, buffers: list[Buffer] = buffers) -> tuple[int, int]:
            looked = released = 0
            for buffer in buffers:
                try:
                    if number % 2 == 0:
                        with memoryview(buffer) as view:
                            view[number] = 1
                            assert not buffer.released
                            looked += view[number]
                    else:
                        buffer.release()
                        released += 1
                except errors.StateError:
                    assert buffer.released
                except errors.BufferInUseError:
                    pass
            return looked, released

        at_once(body)
        del buffers, body
    assert one.stats().blocks == 0


def test_a_heap_is_closed_while_others_allocate() -> None:
    for _ in range(ROUNDS // 20):
        one = Heap()
        made: list[list[Buffer]] = [[] for _ in range(4)]

        def body(number: int, one: Heap = one, made: list[list[Buffer]] = made) -> bool:
            if number == 0:
                made[0].append(one.alloc(16))
                one.close()
                return True
            try:
                for _ in range(200):
                    made[number].append(one.alloc(16))
            except errors.StateError:
                return True
            return one.closed or len(made[number]) == 200

        assert all(at_once(body))
        total = sum(map(len, made))
        assert counts(one) == (total, total)
        del made, body
        assert counts(one) == (total, 0)


def test_heaps_come_and_go_while_others_look() -> None:
    def body(number: int) -> None:
        for turn in range(ROUNDS // 10):
            if number == 0:
                assert stats()[0].owner == "process"
                leaks()
            else:
                with Heap(f"{number}") as one:
                    kept = one.alloc(turn)
                assert one.stats().blocks == 1
                del kept

    at_once(body)
    assert leaks() == []


def test_a_buffer_dies_on_a_thread_that_is_inside_of_something_else() -> None:
    one = Heap()
    with pyruntime.Domain() as domain:
        for block in (pyruntime.attached, pyruntime.reading, domain.attached, domain.reading):
            buffers = [one.alloc(size) for size in SIZES]

            def body(number: int, buffers: list[Buffer] = buffers, block: Callable[[], Any] = block) -> None:
                with block():
                    while buffers:
                        try:
                            buffers.pop()
                        except IndexError:
                            break

            at_once(body, threads=2)
            del body
            assert one.stats().blocks == 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 9), st.one_of(st.integers(0, 300), st.integers(0, 200_000))),
        max_size=60,
    ),
    st.booleans(),
)
def test_against_bytearrays(steps: list[tuple[int, int, int]], type_stable: bool) -> None:
    """Whatever is done, buffers have what bytearrays would have, and the figures are right."""
    one = Heap(type_stable=type_stable)
    ours: dict[int, Buffer] = {}
    model: dict[int, bytearray] = {}
    for kind, slot, size in steps:
        if kind <= 1:
            ours[slot], model[slot] = one.alloc(size), bytearray(size)
        elif slot not in ours:
            continue
        elif kind == 2:
            ours.pop(slot)
            model.pop(slot)
        elif kind == 3:
            ours.pop(slot).release()
            model.pop(slot)
        elif model[slot]:
            place = size % len(model[slot])
            ours[slot][place] = model[slot][place] = size % 256
            ours[slot][place // 2 : place] = model[slot][place // 2 : place] = bytes(place - place // 2)
        for key, value in model.items():
            assert bytes(ours[key]) == value
    figures = one.stats()
    assert figures.blocks == len(ours)
    room = [one.block_size or 2**62 for one in figures.size_classes for _ in range(one.blocks)]
    assert sorted(map(len, ours.values())) == sorted(
        map(min, zip(sorted(map(len, ours.values())), sorted(room), strict=True))
    )
    spans = sorted((buffer.address, buffer.address + len(buffer)) for buffer in ours.values())
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


# ---- no memory -------------------------------------------------------------------------------------------------------


def test_when_the_system_has_no_more(python: Python) -> None:
    """A limit of address space: every allocation that does not fit says so, nothing is lost, and it goes on afterwards."""
    result = python.run("""
        import gc, resource
        import pyruntime
        from pyruntime import OutOfMemoryError
        from pyruntime.heap import Heap
        heap = Heap("small")
        heap.alloc(10)
        heap.alloc(1 << 20)
        heap.stats(), pyruntime.heap.report()   # imports what they need
        reserves = [bytearray(1 << 20) for _ in range(8)]   # for Python itself
        pages = int(open("/proc/self/statm").read().split()[0])
        limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + (64 << 20), limits[1]))
        for size in (3000, 50_000, 1 << 20, 3 << 20):
            kept, error = [], None
            try:
                while len(kept) < (1 << 30) // size:
                    kept.append(heap.alloc(size, zero=False))
            except MemoryError as caught:
                reserves.pop()
                error = str(caught) if isinstance(caught, OutOfMemoryError) else "of Python itself"
            had, blocks = len(kept), heap.stats().blocks
            kept.clear()
            assert error == "of Python itself" or f"no memory for a buffer of {size} bytes in heap 'small'" in error, error
            assert blocks == had > 0, (blocks, had)
            assert heap.stats().blocks == 0
            assert len(heap.alloc(100)) == 100
            print(size, error is not None, heap.stats().refused)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        assert len(heap.alloc(100 << 20)) == 100 << 20
        assert pyruntime.current() is None
    """)
    lines = [line.split() for line in result.out.splitlines()]
    assert [line[1] for line in lines] == ["True"] * 4
    assert int(lines[-1][2]) > 0


def test_every_call_without_memory_of_python(this_python: Python) -> None:
    """Python's own n-th allocation fails, for each n: MemoryError, and no block is lost. What imports is left out: without
    memory a free-threaded 3.13 does not survive that."""
    pytest.importorskip("_testcapi")
    result = this_python.run("""
        import _testcapi
        import pyruntime
        from pyruntime.heap import Heap, owner
        heap = Heap("mine")
        kept = heap.alloc(10)
        def used():
            with heap.alloc(100) as buffer:
                buffer[0:2] = b"ab"
                bytes(buffer)
        def refused(call):
            def wrapped():
                try: call()
                except (RuntimeError, ValueError, BufferError, SystemError): pass
            return wrapped
        calls = [Heap, lambda: Heap("x", tag=3, type_stable=True), lambda: heap.alloc(10), lambda: heap.alloc(1 << 20), used,
                 pyruntime._core.heap_figures, lambda: owner(kept), lambda: repr(heap),
                 lambda: repr(kept), refused(lambda: heap.alloc(-1)), lambda: memoryview(kept)]
        for call in calls: call()
        failed = 0
        for call in calls:
            for n in range(100):
                _testcapi.set_nomemory(n, n + 1)
                try:
                    call()
                except MemoryError:
                    failed += 1
                finally:
                    _testcapi.remove_mem_hooks()
            assert heap.stats().blocks == 1, call
            assert pyruntime.current() is None
        kept.release()
        print(failed)
    """)
    assert int(result.out) > 20


# ---- fork ------------------------------------------------------------------------------------------------------------


def test_the_child_of_a_fork_frees_and_allocates(python: Python) -> None:
    python.run("""
        import gc, os, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        import pyruntime
        from pyruntime.heap import Heap, leaks, owner
        heap, other = Heap("shared"), Heap("closing")
        # Makes the classes that they need: without a GIL a lost thread may have locked Python's types.
        heap.stats(); leaks()
        stop = threading.Event()
        mine = [heap.alloc(size) for size in (10, 1000, 100_000, 3 << 20)]
        theirs = []
        def work():
            kept = []
            while not stop.is_set():
                kept.append(heap.alloc(len(kept) % 500))
                if len(theirs) < 50: theirs.append(heap.alloc(64))
                if len(kept) > 100: kept.clear()
        threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
        for thread in threads: thread.start()
        while len(theirs) < 50: pass
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    assert all(owner(buffer) == 0 for buffer in mine + theirs)
                    before = heap.stats().blocks
                    for buffer in mine: buffer[:] = b"c" * len(buffer)
                    del buffer
                    count = len(mine) + len(theirs)
                    mine.clear(); theirs.clear()
                    assert heap.stats().blocks == before - count
                    kept = [heap.alloc(size) for size in range(3000)]
                    assert all(bytes(buffer) == bytes(len(buffer)) for buffer in kept)
                    heap.close(); other.close()
                    assert [leak.name for leak in leaks()] == ["shared"]
                    with Heap() as again: again.alloc(5)
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitpid(pid, 0)[1] == 0
        stop.set()
        for thread in threads: thread.join()
        mine.clear(); theirs.clear()
        assert heap.stats().blocks == 0
    """)


# ---- exit ------------------------------------------------------------------------------------------------------------

EXITS = {
    "with buffers in a module": "kept = [heap.alloc(size) for size in (10, 70_000, 3 << 20)]; view = memoryview(kept[0])",
    "with a closed heap": "kept = heap.alloc(10); heap.close()",
    "with a buffer in a cycle": "cycle = [heap.alloc(10)]; cycle.append(cycle)",
    "with an exit function that allocates": "kept = heap.alloc(10); import atexit; atexit.register(lambda: heap.alloc(5))",
    "with a buffer in a dict of the interpreter": "sys.kept = heap.alloc(10); sys.heap = heap",
    "with a domain of its own": "kept = Heap(domain=pyruntime.Domain('mine')).alloc(100)",
    "while threads allocate": """
def work():
    kept = []
    while True:
        kept.append(heap.alloc(len(kept) % 1000 + (300_000 if len(kept) == 50 else 0)))
        if len(kept) > 100: kept.clear()
for _ in range(3): threading.Thread(target=work, daemon=True).start()
while heap.stats().allocated < 500: pass
""",
    "while a thread waits for a pause": """
is_in = threading.Event()
def stopper():
    with pyruntime.stop_the_world():
        is_in.set()
        threading.Event().wait()
threading.Thread(target=stopper, daemon=True).start()
is_in.wait()
threading.Thread(target=lambda: heap.alloc(10), daemon=True).start()
""",
}


@pytest.mark.parametrize("how", EXITS)
def test_the_end_of_the_process(python: Python, how: str) -> None:
    prelude = "import sys, threading\nimport pyruntime\nfrom pyruntime.heap import Heap\nheap = Heap('last')\n"
    result = python.run(prelude + EXITS[how] + "\nprint('ends', flush=True)")
    assert result.out == "ends\n"
    assert result.err == ""


# ---- interpreters ----------------------------------------------------------------------------------------------------


@needs_subinterpreters
def test_each_interpreter_has_heaps_of_its_own(python: Python) -> None:
    result = python.run(
        in_interpreters('''
        import pyruntime
        from pyruntime.heap import Heap, leaks, owner, stats
        heap = Heap("of main")
        kept = heap.alloc(10)
        inside = """if True:
            import pyruntime
            from pyruntime.heap import Heap, owner, stats, leaks
            heap = Heap("of sub")
            number = pyruntime.qsbr.default_domain.interpreter_id
            buffer = heap.alloc(1000)
            assert owner(buffer) == buffer.owner == number != 0
            assert {one.name: one.owner for memory in stats() for one in memory.heaps} == {"of main": 0, "of sub": number}
            kept = [heap.alloc(size) for size in (10, 70_000, 3 << 20)]  # in use when it exits
            sub = [heap.alloc(10)]; sub.append(sub)
            with heap: pass
            view = memoryview(kept[1])
            print(number, len(leaks()))
        """
        for turn in range(3):
            interpreter = create("legacy")
            run(interpreter, inside)
            interpreters.destroy(interpreter)
            assert [one.name for one in pyruntime.interpreters()] == ["main"]
            assert [one.name for memory in stats() for one in memory.heaps] == ["of main"]
            assert leaks() == []
        print(heap.stats().blocks, owner(kept))
        ''')
    )
    assert result.out == "1 1\n2 1\n3 1\n1 0\n"
    assert result.err == ""


@needs_subinterpreters
def test_calls_after_the_exit_function_of_an_interpreter(python: Python) -> None:
    result = python.run(
        in_interpreters('''
        import pyruntime
        interpreter = create("legacy")
        run(interpreter, """if True:
            import atexit
            def late():
                try:
                    heap.alloc(10)
                except Exception as error:
                    print(type(error).__name__, error, flush=True)
                kept[0][0] = 1
                kept.clear()
                print(heap, flush=True)
            atexit.register(late)
            from pyruntime.heap import Heap
            heap = Heap("late")
            kept = [heap.alloc(10)]
        """)
        interpreters.destroy(interpreter)
        print([one.name for one in pyruntime.interpreters()])
        ''')
    )
    lines = result.out.splitlines()
    assert lines[-1] == "['main']"
    assert "is closed" in lines[0]
    assert lines[0].startswith("StateError")
    assert lines[1] == "<heap 'late' of domain 'python 1', closed, 0 buffers in use>"
    assert result.err == ""


@needs_subinterpreters
def test_two_interpreters_allocate_in_two_threads(python: Python) -> None:
    result = python.run(
        in_interpreters('''
        import pyruntime
        inside = """if True:
            from pyruntime.heap import Heap
            heap = Heap("busy")
            kept = []
            for turn in range(3000):
                kept.append(heap.alloc(turn % 700))
                if turn % 50 == 0: kept.clear()
            del kept
            assert (heap.stats().allocated, heap.stats().blocks) == (3000, 0)
        """
        made = [create("legacy") for _ in range(2)]
        threads = [threading.Thread(target=run, args=(one, inside)) for one in made]
        errors = []
        threading.excepthook = lambda args: errors.append(args.exc_value)
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        for one in made: interpreters.destroy(one)
        print(errors, [one.name for one in pyruntime.interpreters()])
        ''')
    )
    assert result.out == "[] ['main']\n"
    assert result.err == ""


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_the_figures_of_a_heap() -> None:
    one = Heap("mine", tag=5, type_stable=True, stable_prefix=64)
    kept = [one.alloc(size) for size in (1, 100, 100, 70_000, 3 << 20)]
    one.alloc(2000).release()
    figures = one.stats()
    assert isinstance(figures, HeapStats)
    assert (figures.name, figures.owner, figures.tag, figures.type_stable, figures.stable_prefix) == ("mine", 0, 5, True, 64)
    assert (figures.closed, figures.refused, figures.allocated, figures.blocks) == (False, 0, 6, 5)
    assert figures.size_classes[1:] == (
        SizeClassStats(112, 2, 2, 224),
        SizeClassStats(2048, 1, 0, 0),
        SizeClassStats(0, 2, 2, (128 << 10) + (3 << 20)),
    )
    # A block that a link stands in behind a prefix of 64 bytes has more than that.
    assert (figures.size_classes[0].block_size, figures.size_classes[0].blocks) == (80, 1)
    assert figures.block_bytes == 80 + 224 + (128 << 10) + (3 << 20)
    del kept
    assert one.stats().block_bytes == 0


def test_the_figures_of_interpreters_and_of_the_process() -> None:
    first, second = Heap("first"), Heap("second")
    kept = [first.alloc(3 << 20), second.alloc(1000)]
    with pyruntime.Domain("own") as domain:
        third = Heap("third", domain=domain)
        kept.append(third.alloc(1000))
        found = stats()
        assert all(isinstance(one, MemoryStats) for one in found)
        assert [one.owner for one in found] == ["process", *(one.id for one in pyruntime.interpreters())]
        by_name = {one.name: one for one in found}
        assert {"process", "main", "own"} <= set(by_name)
        assert [one.name for one in by_name["main"].heaps][-2:] == ["first", "second"]
        assert [one.name for one in by_name["own"].heaps] == ["third"]
        assert by_name["main"].huge_bytes >= 3 << 20
        # The thread that allocated was there for the call only; what it left is nobody's until another one takes it.
        assert (by_name["own"].pages, by_name["own"].abandoned_segments) == (1, 1)
        assert by_name["own"].page_bytes == 65536
        assert by_name["own"].reserved_bytes >= 4 << 20
        kept.clear()
    assert "own" not in [one.name for one in stats()]


def test_the_process_has_a_domain_of_its_own() -> None:
    lib, ffi = _core.lib, _core.ffi
    before = stats()[0]
    block = lib.pyrt_malloc(3 << 20)
    try:
        assert owner(int(ffi.cast("uintptr_t", block))) == "process"
        assert stats()[0].huge_bytes - before.huge_bytes == 3 << 20
    finally:
        lib.pyrt_free(block)
    assert stats()[0].huge_bytes == before.huge_bytes


def test_type_stable_memory_waits_for_readers() -> None:
    with pyruntime.Domain("readers") as domain:
        one = Heap(domain=domain, type_stable=True)
        with domain.reading():
            huge = one.alloc(3 << 20)
            address = huge.address
            del huge
            held = next(memory for memory in stats() if memory.name == "readers")
            # A huge block stands in one figure only; a page is in both.
            assert (held.held_bytes, held.huge_bytes) == (3 << 20, 0)
            assert owner(address) == domain.interpreter_id
            small = one.alloc(40_000)
            before = next(memory for memory in stats() if memory.name == "readers")
            del small
            one.close()
            held = next(memory for memory in stats() if memory.name == "readers")
            assert held.pages == before.pages == 1
            assert held.held_bytes == (3 << 20) + held.page_bytes


@pytest.mark.parametrize("worker_ends", [True, False])
def test_type_stable_memory_of_others_goes_back_with_a_barrier(worker_ends: bool) -> None:
    """The threads that died with it, or sleep, need not do anything for it."""
    freed, wake = threading.Event(), threading.Event()

    def work(heap: Heap) -> None:
        kept = [heap.alloc(40_000) for _ in range(200)]
        kept.clear()
        freed.set()
        if not worker_ends:
            wake.wait()

    with pyruntime.Domain("others") as domain:

        def figures() -> tuple[int, int]:
            memory = next(memory for memory in stats() if memory.name == "others")
            return memory.held_bytes, memory.page_bytes

        one = Heap(domain=domain, type_stable=True)
        with domain.reading():
            worker = threading.Thread(target=work, args=(one,))
            worker.start()
            freed.wait()
            if worker_ends:
                worker.join()
            assert figures()[1] >= 200 * 40_000
            one.close()
            assert figures()[0] >= 200 * 40_000
        domain.barrier()
        assert figures() == (0, 0)
        wake.set()
        worker.join()


def test_owner_of_any_address() -> None:
    buffer = Heap().alloc(100)
    other = bytearray(100)
    assert owner(buffer) == owner(buffer.address) == owner(memoryview(buffer)[5:7]) == owner(buffer.address + 50) == 0
    for none in (0, 1, 2**64 - 1, id(buffer), other, b"", memoryview(b"abc")):
        assert owner(none) is None
    for number in (-1, 2**64, 10**30):
        with pytest.raises(errors.ArgumentError, match=r"an address is from 0 to 2\*\*64 - 1"):
            owner(number)
    wrong: list[Any] = [None, "abc", 1.0, True, object()]
    for value in wrong:
        with pytest.raises(errors.ArgumentTypeError, match="takes an address, an int, or a buffer"):
            owner(value)
    with pytest.raises(errors.ArgumentError, match="a buffer in one piece"):
        owner(memoryview(buffer)[::2])
    address = buffer.address
    buffer.release()
    assert owner(address) == 0  # the room is the interpreter's still


def test_the_report_is_a_table() -> None:
    one = Heap("frames", tag=7)
    kept = [one.alloc(1000), one.alloc(100_000)]
    text = report()
    lines = text.splitlines()
    assert lines[0].split()[:2] == ["memory", "of"]
    assert lines[1].split()[0] == "process"
    assert any(line.split()[:2] == ["0", "main"] for line in lines)
    row = next(line.split() for line in lines if line.startswith("frames "))
    assert row == ["frames", "0", "7", "all", "sizes", "2", "129", "KiB", "2", "0"]
    assert any(line.split() == ["1.00", "KiB", "1", "1.00", "KiB", "1"] for line in lines)
    assert any(line.split() == [">", "64", "KiB", "1", "128", "KiB", "1"] for line in lines)
    assert "is closed and has" not in text
    one.close()
    assert report().endswith("heap 'frames' is closed and has 2 buffers in use, 129 KiB")
    kept.pop()
    assert report().endswith("has 1 buffer in use, 1.00 KiB")
    kept.pop()


def test_the_best_of_it_stands_in_the_package() -> None:
    assert (pyruntime.Heap, pyruntime.Buffer, pyruntime.heap) == (Heap, Buffer, heap)


# ---- the sample ------------------------------------------------------------------------------------------------------


def run_sample(this_python: Python, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": this_python.path}
    line = [sys.executable, "-m", "pyruntime", "heap-stats", *arguments]
    return subprocess.run(line, env=environment, cwd=this_python.path, capture_output=True, text=True, timeout=60, **options)


def test_the_sample_prints_one_table_where_there_is_no_terminal(this_python: Python) -> None:
    done = run_sample(this_python, "--seconds", "0.3", "--threads", "2", "--seed", "7", check=True)
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"2 threads for [0-9.]+ s, seed 7; [0-9]+ threads? (has|have) died", lines[0])
    assert "\x1b" not in done.stdout
    assert [line.split()[0] for line in lines if line[:1].isalpha()][1:] == [
        "process",
        "heap",
        "messages",
        "frames",
        "nodes",
    ]
    assert done.stdout.count("memory of") == 1
    assert done.stderr == ""


def test_the_sample_for_programs(this_python: Python) -> None:
    document = json.loads(run_sample(this_python, "--seconds", "0.3", "--json", check=True).stdout)
    assert (document["threads"], document["seed"]) == (4, 1)
    assert document["seconds"] >= 0.3
    process, main = document["memory"]
    assert (process["owner"], main["owner"]) == ("process", 0)
    heaps = {one["name"]: one for one in main["heaps"]}
    assert list(heaps) == ["messages", "frames", "nodes"]
    assert heaps["nodes"]["type_stable"]
    assert all(one["allocated"] >= one["blocks"] >= 0 for heap in heaps.values() for one in heap["size_classes"])
    assert sum(one["allocated"] for one in heaps["messages"]["size_classes"]) > 0


def test_the_choices_of_the_sample_come_from_the_seed() -> None:
    def sizes(seed: int) -> list[int]:
        with _heap_sample.Sample(1, 0) as sample:
            choices = random.Random(seed)
            return [len(sample._allocate(choices)) for _ in range(100)]

    assert sizes(1) == sizes(1) != sizes(2)


def test_the_sample_leaves_nothing() -> None:
    with _heap_sample.Sample(3, 5) as sample:
        while sum(sample.died) < 3:
            pass
        assert {one.name for memory in stats() for one in memory.heaps} >= {"messages", "frames", "nodes"}
    assert [one.closed for one in sample.heaps] == [True] * 3
    assert [one.stats().blocks for one in sample.heaps] == [0, 0, 0]
    assert leaks() == []


def test_the_threads_of_the_sample_begin_when_all_have_been_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would keep whoever starts the others waiting."""
    started: list[str] = []
    start = threading.Thread.start

    def recorded(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", recorded)
    with _heap_sample.Sample(40, 5) as sample:
        while not any(sample.died):
            pass
    assert started[:40] == [f"sample {number}" for number in range(40)]
    assert {name.split()[0] for name in started[40:]} == {"worker"}


class WaitsCounted(threading.Event):
    """How many threads wait for it, or have."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[int] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(threading.get_ident())
        return super().wait(timeout)


def test_the_threads_of_the_sample_see_its_end_for_themselves() -> None:
    now = [0.0]
    sample = _heap_sample.Sample(3, 5, seconds=2.0, clock=lambda: now[0])
    over = sample._stop = WaitsCounted()
    with sample:
        while sum(sample.died) < 3:
            pass
        now[0] = 1.9
        assert (sample.elapsed, len(over.waits)) == (1.9, 0)
        now[0] = 2.0
        while len(over.waits) < 3:
            pass
        # In each place one thread waits, with what it had last; the one that looks after it begins no other.
        died = list(sample.died)
        assert sum(one.stats().blocks for one in sample.heaps) > 0
    assert all(after - before in (0, 1) for before, after in zip(died, sample.died, strict=True))
    assert [one.stats().blocks for one in sample.heaps] == [0, 0, 0]


def test_a_sample_without_time_begins_nothing() -> None:
    with _heap_sample.Sample(2, 5, seconds=0.0, clock=lambda: 7.0) as sample:
        pass
    assert sample.died == [0, 0]


def test_the_sample_counts_in_words() -> None:
    def title(threads: int, died: int) -> str:
        return _heap_sample.Moment(0.5, threads, 7, died, []).as_text().splitlines()[0]

    assert title(1, 1) == "1 thread for 0.5 s, seed 7; 1 thread has died"
    assert title(2, 0) == "2 threads for 0.5 s, seed 7; 0 threads have died"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seconds", "x"], "argument --seconds: 'x' is not a number of seconds"),
        (["--seconds", "-1"], "a number of seconds goes from 0 to 86400, not -1"),
        (["--seconds", "nan"], "a number of seconds goes from 0 to 86400, not nan"),
        (["--threads", "0"], "a number of threads goes from 1 to 256, not 0"),
        (["--threads", "2.5"], "'2.5' is not a number of threads"),
        (["--seed", "-5"], "a seed goes from 0 to 9223372036854775807, not -5"),
        (["more"], "unrecognized arguments: more"),
    ],
)
def test_wrong_samples(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["heap-stats", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_the_sample_is_refreshed_on_a_terminal(this_python: Python) -> None:
    leader, follower = os.openpty()
    environment = {**os.environ, "PYTHONPATH": this_python.path, "TERM": "xterm"}
    line = [sys.executable, "-m", "pyruntime", "heap-stats", "--seconds", "0.6"]
    process = subprocess.Popen(line, env=environment, cwd=this_python.path, stdout=follower, stderr=subprocess.PIPE)
    os.close(follower)
    shown = b""
    with suppress(OSError):  # what a terminal says whose other end is gone
        while piece := os.read(leader, 65536):
            shown += piece
    _, err = process.communicate(timeout=60)
    os.close(leader)
    assert (process.returncode, err) == (0, b"")
    assert shown.count(b"\x1b[H\x1b[J") >= 2
    assert shown.count(b"memory of") >= 2
    last = shown.rsplit(b"\x1b[J", 1)[1].decode()
    assert last.count("memory of") == 1
    assert "nodes" in last


def test_ctrl_c_ends_the_sample(this_python: Python) -> None:
    environment = {**os.environ, "PYTHONPATH": this_python.path, "TERM": "xterm"}
    leader, follower = os.openpty()
    line = [sys.executable, "-m", "pyruntime", "heap-stats", "--seconds", "600"]
    process = subprocess.Popen(line, env=environment, cwd=this_python.path, stdout=follower, stderr=subprocess.PIPE)
    os.close(follower)
    assert os.read(leader, 100)  # it runs
    process.send_signal(signal.SIGINT)
    reader = threading.Thread(target=_read_on, args=(leader,))
    reader.start()
    _, err = process.communicate(timeout=60)
    reader.join()
    os.close(leader)
    assert process.returncode == 130
    assert err == b"interrupted\n"


@pytest.mark.parametrize("option", ["--seed=7", "--json"])
def test_ctrl_c_shows_the_sample_so_far_where_there_is_no_terminal(this_python: Python, option: str) -> None:
    """It comes when the first moment has been seen and the second is waited for; or while threads are being started."""
    program = """
        import signal, sys, threading
        from pyruntime import __main__, _heap_sample
        def strike(*_): signal.raise_signal(signal.SIGINT)
        if sys.argv.pop(1) == "wait":
            _heap_sample.time.sleep = strike
        else:
            start = threading.Thread.start
            threading.Thread.start = lambda thread: strike() if thread.name == "sample 1" else start(thread)
        sys.exit(__main__.main(["heap-stats", "--seconds=600", *sys.argv[1:]]))
    """
    result = this_python.run(program, "wait", option, status=130)
    assert result.err == "interrupted\n"
    if option == "--json":
        assert [one["name"] for one in json.loads(result.out)["memory"][1]["heaps"]] == ["messages", "frames", "nodes"]
    else:
        assert re.match(r"4 threads for [0-9.]+ s, seed 7; [0-9]+ threads? (has|have) died\n", result.out)
        assert result.out.count("memory of") == result.out.count("nodes") == 1
    result = this_python.run(program, "start", option, status=130)
    assert (result.out, result.err) == ("", "interrupted\n")


def _read_on(file: int) -> None:
    with suppress(OSError):
        while os.read(file, 65536):
            pass


def test_a_reader_of_the_sample_that_has_seen_enough(this_python: Python) -> None:
    environment = {**os.environ, "PYTHONPATH": this_python.path}
    line = [sys.executable, "-m", "pyruntime", "heap-stats", "--seconds", "0"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        line, env=environment, cwd=this_python.path, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == b""
