"""SharedRefs when memory is short, and with finalizers that do what they like."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from c_support import need_compiler
from conftest import Python
from crowd import together

import pyruntime
from pyruntime import qsbr
from pyruntime.refcount import SharedRef, settle

# Loaded before everything else: the n-th allocation of one thread fails, of malloc and of the system's.
FAULTS = """
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);

static __thread int left; /* until the one that fails; 0: not armed, or over */

void fault_arm(int n) { left = n; }
int fault_was_hit(void) { int was = left == 0; left = 0; return was; }

static int fails(void)
{
    if (left == 0 || --left != 0) {
        return 0;
    }
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }
void *calloc(size_t n, size_t size) { return fails() ? NULL : __libc_calloc(n, size); }
void *realloc(void *block, size_t size) { return fails() ? NULL : __libc_realloc(block, size); }

void *mmap(void *address, size_t size, int protection, int flags, int file, off_t offset)
{
    return fails() ? MAP_FAILED : (void *)syscall(SYS_mmap, address, size, protection, flags, file, offset);
}
"""


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_compiler("gcc")
    directory = tmp_path_factory.mktemp("faults")
    (directory / "faults.c").write_text(FAULTS)
    command = ["gcc", "-O1", "-shared", "-fPIC", "-ftls-model=initial-exec", "faults.c", "-o", "faults.so"]
    subprocess.run(command, cwd=directory, check=True)
    return directory / "faults.so"


def test_every_failed_allocation(faults: Path, this_python: Python, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each operation does what it is for, or raises a MemoryError and has done nothing. Either way each finalizer runs once,
    and nothing is left of the value."""
    monkeypatch.setenv("LD_PRELOAD", str(faults))
    # Without a GIL Python has an allocator of its own and no other: then only ours fail.
    has_malloc = not sysconfig.get_config_var("Py_GIL_DISABLED")
    if has_malloc:
        monkeypatch.setenv("PYTHONMALLOC", "malloc")
    result = this_python.run(
        """
        import ctypes, os, sys, threading, weakref
        from pyruntime.refcount import SharedRef, settle, stats
        library = ctypes.CDLL(sys.argv[1])
        arm, was_hit = library.fault_arm, library.fault_was_hit
        arm.argtypes, arm.restype = [ctypes.c_int], None
        class Value: pass
        ended = []
        def end(value):
            ended.append(1)
        def make(how):
            return SharedRef(value, end, on_owner=how)
        def clone(how):
            return kept.clone()
        def drop(how):
            dropped.drop()
        def look(how):
            return kept.local, kept.owner, kept.state, repr(kept)
        def idle(how):
            settle()
        operations = [make, clone, drop, look, idle]

        def run(operation, how, n):
            result = error = None
            arm(n)
            try:
                result = operation(how)
            except MemoryError as caught:
                error = caught
            return bool(was_hit()), result, error is not None

        def on_new_thread(operation, how, n):
            # What it has not got yet, it makes in this one call.
            results = []
            def work():
                was_hit(), stats()  # thread-local data of others, for which the C library ends the process without memory
                results.append(run(operation, how, n))
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            while os.path.exists(f"/proc/self/task/{thread.native_id}"):
                os.sched_yield()  # what it has left is seen to a little later
            return results.pop()

        def all_of_them(run):
            global value, kept, dropped
            counts = {}
            for operation in operations:
                for how in (False, True):
                    n, hit = 0, True
                    while hit:
                        n += 1
                        value = Value()
                        gone = weakref.ref(value)
                        ended.clear()
                        kept = SharedRef(value, end, on_owner=how)
                        dropped = kept.clone()
                        hit, made, failed = run(operation, how, n)
                        assert kept.count == 2 + (operation is clone and made is not None) - dropped.dropped, (operation, n)
                        assert ended == []
                        extra = operation is make and made is not None
                        del made
                        kept.drop()
                        dropped.drop()
                        settle()
                        assert len(ended) == 1 + extra, (operation.__name__, n, ended)
                        value = None
                        assert gone() is None, (operation.__name__, n)
                        counts[operation.__name__] = counts.get(operation.__name__, 0) + failed
            return counts

        here, elsewhere = all_of_them(run), all_of_them(on_new_thread)
        if sys.argv[2] == "1":
            assert here["make"] > 3 and here["clone"] > 0, here
        assert elsewhere["make"] > here["make"], (here, elsewhere)
        """,
        str(faults),
        str(int(has_malloc)),
    )
    assert result.err == ""


# ---- finalizers ------------------------------------------------------------------------------------------------------


def _exit(other: SharedRef[str]) -> None:
    raise SystemExit(other.value)


def _interrupt(other: SharedRef[str]) -> None:
    raise KeyboardInterrupt(other.value)


def _stop(other: SharedRef[str]) -> None:
    for everything in (False, True):
        with pyruntime.stop_the_world(everything=everything):
            other.clone().drop()
            SharedRef(1, lambda _: None).drop()


def _read(other: SharedRef[str]) -> None:
    with qsbr.reading(), other.clone() as clone:
        assert clone.value == "other"
    qsbr.synchronize()


def _wait_for_threads(other: SharedRef[str]) -> None:
    clones = [other.clone() for _ in range(2)]
    together(2, lambda number: clones[number].drop())
    settle()


def _fork(other: SharedRef[str]) -> None:
    pid = os.fork()
    if pid == 0:
        with other.clone() as clone:
            os._exit(0 if clone.value == "other" else 1)
    assert os.waitpid(pid, 0)[1] == 0


def _make_a_circle(other: SharedRef[str]) -> None:
    circle: list[Any] = []
    circle.append(SharedRef(circle, lambda _: other.clone().drop()))
    del circle
    gc.collect()


LIKES: dict[str, Callable[[SharedRef[str]], object]] = {
    "clones and drops another": lambda other: other.clone().drop(),
    "exits": _exit,
    "interrupts": _interrupt,
    "stops the world": _stop,
    "settles": lambda other: settle(),
    "reads and waits for readers": _read,
    "waits for threads": _wait_for_threads,
    "forks": _fork,
    "makes a circle, and has it collected": _make_a_circle,
}

# Where the last reference goes.
PLACES: dict[str, Callable[[SharedRef[int]], object]] = {
    "here": lambda last: last.drop(),
    "on another thread": lambda last: together(1, lambda _: last.drop()),
    "in a chain": lambda last: SharedRef(0, lambda _: last.drop()).drop(),
}


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("on_owner", [False, True])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("what", LIKES)
def test_a_finalizer_that(what: str, place: str, on_owner: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    caught: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: caught.append(told.exc_type))
    ran: list[int] = []
    other = SharedRef("other")

    def finalize(value: int) -> None:
        ran.append(value)
        LIKES[what](other)

    last = SharedRef(5, finalize, on_owner=on_owner)
    PLACES[place](last)
    settle()
    assert ran == [5]
    assert caught == {"exits": [SystemExit], "interrupts": [KeyboardInterrupt]}.get(what, [])
    assert pyruntime.current() is None
    settle()
    assert (other.count, last.dropped) == (1, True)


# ---- pauses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("everything", [False, True])
def test_counting_goes_on_in_a_pause(everything: bool) -> None:
    """Nobody waits for it: who finds the world stopped counts as one who does not own."""
    ran: list[tuple[int, int]] = []

    def note(value: int) -> None:
        ran.append((value, threading.get_ident()))

    refs = [SharedRef(number, note) for number in range(3)]
    with pyruntime.stop_the_world(everything=everything):
        refs[0].drop()
        here = threading.get_ident()
        assert ran == [(0, here)]
        clones = [ref.clone() for ref in refs[1:]]
        together(2, lambda number: (clones[0], refs[1])[number].drop())
        assert [value for value, _ in ran] == [0, 1]
        with SharedRef(3, note) as made:
            assert made.count == 1
        assert ran[-1] == (3, here)
    refs[2].drop()
    clones[1].drop()
    settle()
    assert ran[-1] == (2, here)
    assert len(ran) == 4
