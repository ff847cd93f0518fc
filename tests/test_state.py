"""pyruntime.state and pyruntime.errors: what they tell, and of whom."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import pytest

import pyruntime
from pyruntime import errors, state
from pyruntime._core import ffi, lib


def test_a_thread_is_listed_with_its_names() -> None:
    listed: list[state.ThreadInfo] = []

    def body() -> None:
        with pyruntime.attached():
            mine = pyruntime.current()
            assert mine is not None
            listed.append(mine)
            assert mine in pyruntime.threads()
            assert mine in pyruntime.threads(0)
            assert mine.os_thread_id == threading.get_native_id()

    thread = threading.Thread(target=body, name="Käthe")
    thread.start()
    thread.join()
    (info,) = listed
    assert (info.name, info.interpreter_id, info.state) == ("Käthe", 0, "attached")
    assert info.index >= 0


def test_a_long_name_is_cut() -> None:
    names: list[str] = []

    def body() -> None:
        with pyruntime.attached():
            mine = pyruntime.current()
            assert mine is not None
            names.append(mine.name)

    thread = threading.Thread(target=body, name="ä" * 30)
    thread.start()
    thread.join()
    assert names == ["ä" * 15 + "\N{REPLACEMENT CHARACTER}"]


def test_a_thread_is_detached_outside_of_blocks_and_keeps_its_state() -> None:
    with pyruntime.attached():
        inside = pyruntime.current()
        assert inside is not None
    assert pyruntime.current() is None
    (outside,) = [thread for thread in pyruntime.threads(0) if thread.id == inside.id]
    assert outside.state == "detached"
    with pyruntime.reading():
        again = pyruntime.current()
        assert again is not None
        assert again.id == inside.id


def test_a_thread_that_nobody_named_is_no_reason_to_make_a_dummy() -> None:
    """A thread that C started, or _thread, has no name of Python's."""
    import _thread

    before = len(threading.enumerate())
    done = threading.Event()
    names: list[str] = []

    def body() -> None:
        with pyruntime.attached():
            mine = pyruntime.current()
            assert mine is not None
            names.append(mine.name)
        done.set()

    _thread.start_new_thread(body, ())
    done.wait()
    assert len(names) == 1
    assert len(threading.enumerate()) == before


def test_more_threads_than_fit_at_first() -> None:
    barrier = threading.Barrier(41)

    def body() -> None:
        with pyruntime.attached():
            barrier.wait()
            barrier.wait()

    started = [threading.Thread(target=body) for _ in range(40)]
    for thread in started:
        thread.start()
    barrier.wait()
    found = [thread for thread in pyruntime.threads(0) if thread.state == "attached"]
    barrier.wait()
    for thread in started:
        thread.join()
    assert len(found) == 40
    assert len({thread.index for thread in found}) == 40
    assert [thread.id for thread in found] == sorted(thread.id for thread in found)


def test_more_interpreters_than_fit_at_first() -> None:
    before = len(pyruntime.interpreters())
    domains = [pyruntime.Domain(f"number {i}") for i in range(40)]
    found = pyruntime.interpreters()
    assert len(found) == before + 40
    assert [one.name for one in found[-40:]] == [f"number {i}" for i in range(40)]
    assert {one.whence for one in found[-40:]} == {"Python code"}
    assert (found[0].id, found[0].name, found[0].whence) == (0, "main", "the runtime")
    for domain in domains:
        domain.close()
    assert len(pyruntime.interpreters()) == before


def test_suspended_threads_are_told_apart() -> None:
    started, done = threading.Event(), threading.Event()

    def body() -> None:
        with pyruntime.attached():
            pass
        started.set()
        done.wait()

    thread = threading.Thread(target=body, name="the sleeper")
    thread.start()
    started.wait()
    assert lib.pyrt_stop_the_world(ffi.NULL) == lib.PYRT_OK
    states = {one.state for one in pyruntime.threads(0) if one.name == "the sleeper"}
    lib.pyrt_start_the_world(ffi.NULL)
    done.set()
    thread.join()
    assert states == {"suspended"}


@pytest.mark.parametrize("wrong", [-1, 10**6, 2**63, -(2**70)])
def test_an_interpreter_that_is_not_there(wrong: int) -> None:
    with pytest.raises(errors.NotFoundError, match=r"interpreters\(\) lists them") as caught:
        pyruntime.threads(wrong)
    assert isinstance(caught.value, LookupError)


@pytest.mark.parametrize("wrong", [True, "0", 0.0])
def test_an_interpreter_id_of_a_wrong_type(wrong: Any) -> None:
    with pytest.raises(errors.ArgumentTypeError, match="interpreter_id is an int"):
        pyruntime.threads(wrong)


def test_runtime_info() -> None:
    info = pyruntime.runtime_info()
    assert info.version == pyruntime.__version__
    assert info.python_version == ".".join(map(str, sys.version_info[:3]))
    assert info.python_implementation == "CPython"
    assert len(info.abi_version) == 2
    assert os.path.isfile(info.compiled_part)
    assert isinstance(info, state.RuntimeInfo)
    assert info.gil_enabled is getattr(sys, "_is_gil_enabled", lambda: True)()


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_every_status_has_its_exception() -> None:
    numbers = [getattr(lib, name) for name in dir(lib) if name.startswith("PYRT_E") or name == "PYRT_OK"]
    assert sorted(numbers) == list(range(len(errors.BY_STATUS)))
    raised = errors.BY_STATUS[1:]
    assert len(set(raised)) == len(raised)
    names = {lib.PYRT_ENOMEM: MemoryError, lib.PYRT_EINVAL: ValueError, lib.PYRT_ETIMEDOUT: TimeoutError}
    for status, builtin in names.items():
        assert issubclass(errors.BY_STATUS[status], builtin)


@pytest.mark.parametrize("name", errors.__all__)
def test_every_exception_is_one_that_people_catch(name: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, errors.Error)
    if kind is not errors.Error:
        builtin = [base for base in kind.__bases__ if base is not errors.Error]
        assert len(builtin) == 1
        assert builtin[0].__module__ == "builtins"
    assert str(kind("what was wrong")) == "what was wrong"
