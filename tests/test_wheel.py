"""The wheel, in an environment of its own: extensions are built from it alone, in each way, and meet in one process."""

from __future__ import annotations

import os
import runpy
import zipfile
from pathlib import Path

import names_of_core
import pytest
from c_support import ROOT, command
from conftest import FREE_THREADED, Python
from installed import LRU_VERSIONS, Samples
from test_interpreters import PRELUDE
from test_plain_library import runs

BUILT_FOR_ALL = ("exchange_line", "exchange_cmake", "exchange_pkgconfig")
MEETING = (*BUILT_FOR_ALL, "sample_one", "sample_cxx", "sample_cython", "sample_cffi", "one_vendored", "two_vendored")
ALL = (*MEETING, *LRU_VERSIONS[FREE_THREADED:])  # the first of them switches the GIL on

# All samples have the same functions, but that of a cffi module are elsewhere.
MEET = f"""
import threading
class OfCffi:
    def __init__(self, module):
        self.lib, self.ffi = module.lib, module.ffi
    def runtime_address(self): return int(self.ffi.cast("intptr_t", self.lib.sample_runtime()))
    def drop(self, address): assert self.lib.sample_drop(address) == self.lib.PYRT_OK
    def count(self, address): assert self.lib.sample_count(address) == self.lib.PYRT_OK
    def stands_still(self, address): return self.lib.sample_stands_still(address)
def meeting():
    return [OfCffi(sys.modules[name]) if name == "sample_cffi" else sys.modules[name] for name in {MEETING}]
"""


@pytest.fixture
def installed(samples: Samples) -> Python:
    """The Python of the environment, which finds all samples, and nothing of the source tree."""
    for name in ALL:
        samples.build(name)
    return Python("", samples.python, str(samples.where))


def test_the_wheel_has_what_others_build_with(wheel: Path) -> None:
    assert wheel.stat().st_size < 1 << 20
    assert ("-abi3-" in wheel.name) is not FREE_THREADED
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    csrc = {
        file.relative_to(ROOT).as_posix()
        for where in ("include", "core")
        for file in (ROOT / "csrc" / where).rglob("*.[ch]*")
    }
    assert {f"pyruntime/{name}" for name in csrc} - names == set()
    for name in ("cmake/pyruntimeConfig.cmake", "cmake/pyruntimeConfigVersion.cmake", "lib/pkgconfig/pyruntime.pc"):
        assert f"pyruntime/csrc/{name}" in names
    assert [name for name in names if "/binding/" in name or name.startswith("tests/")] == []


def test_all_that_is_printed_is_in_the_environment(samples: Samples) -> None:
    options = samples.asked("--includes", "--cflags", "--sources", "--libs", "--cmakedir", "--pkgconfigdir")
    paths = [option.removeprefix("-I") for option in options if option.startswith(("-I", "/"))]
    assert len(paths) > 50
    assert [path for path in paths if not path.startswith(str(samples.environment)) or not os.path.exists(path)] == []


def test_an_extension_exports_its_init_function_only(samples: Samples) -> None:
    for name in ("exchange_cmake", "one_vendored", "two_vendored"):
        assert names_of_core.defined(samples.build(name), dynamic=True) == [f"PyInit_{name}"]
    for name in ("exchange_line", "exchange_pkgconfig"):
        assert [one for one in names_of_core.defined(samples.build(name), dynamic=True) if "pyrt" in one] == []


def test_a_program_with_the_core_of_the_wheel(samples: Samples) -> None:
    runs(samples.by_cmake / "program")


NAMES = [*ALL, "pyruntime"]
ORDERS = [NAMES[first:] + NAMES[:first] for first in range(len(NAMES))]


@pytest.mark.parametrize("order", [*ORDERS, NAMES[::-1]], ids=lambda order: "-".join(order[:2]))
def test_any_order_of_import_finds_the_same_runtime(installed: Python, order: list[str]) -> None:
    result = installed.run(f"""
        import sys, {", ".join(order)}
        exec({MEET!r})
        for module in ({", ".join(BUILT_FOR_ALL)}):
            module.again(3)
        assert pyruntime.__file__.startswith({str(Path(installed.executable).parents[1])!r})
        addresses = {{module.runtime_address() for module in meeting()}}
        assert one_vendored.is_shared() and two_vendored.is_shared()
        # Each cache that wants a thread state of this thread makes one in the same runtime.
        before = len(pyruntime.threads())
        for cache in (lru_2_sections.Cache(1), lru_3_qsbr.Cache(1), lru_4_objects.Cache(1)):
            cache.put(1, 1)
            assert cache.get(1) == 1
        print(len(addresses), 0 not in addresses, len(pyruntime.threads()) - before)
        """)
    assert result.out == "1 True 3\n"


def test_they_drop_each_others_objects(installed: Python) -> None:
    """Three of them make, and all drop, each on a thread of its own."""
    result = installed.run(f"""
        import sys, {", ".join(ALL)}, pyruntime
        exec({MEET!r})
        makers = ({", ".join(BUILT_FOR_ALL)})
        made = [[maker.make(n) for maker in makers for n in range(20)] for _ in meeting()]
        assert [makers[0].value(address) for address in made[-1]] == 3 * list(range(20))
        def drop(module, addresses):
            for address in addresses:
                module.drop(address)
        threads = [threading.Thread(target=drop, args=pair) for pair in zip(meeting(), made)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        pyruntime.barrier(timeout=60)
        print(*[maker.destroyed() for maker in makers])
        """)
    each = 20 * len(MEETING)
    assert result.out == f"{each} {each} {each}\n"


def test_they_stop_each_others_threads(installed: Python) -> None:
    result = installed.run(f"""
        import array, os, sys, {", ".join(ALL)}, pyruntime
        exec({MEET!r})
        def step():
            before = words[0]
            while words[0] == before:
                os.sched_yield()
        for module in meeting():
            words = array.array("l", [0, 1])
            address, _ = words.buffer_info()
            thread = threading.Thread(target=module.count, args=(address,))
            thread.start()
            for stopper in meeting():
                step()
                assert stopper.stands_still(address)
            step()
            with pyruntime.stop_the_world():
                still = words[0]
                assert {{words[0] for _ in range(1000)}} == {{still}}
            step()
            words[1] = 0
            thread.join()
        for maker in ({", ".join(BUILT_FOR_ALL)}):
            maker.again(100)
        print("ended")
        """)
    assert result.out == "ended\n"


def test_they_load_in_interpreters_with_a_gil_of_their_own(python: Python, samples: Samples) -> None:
    """Built once, and for every version: in the main interpreter, and in two others at the same time."""
    for name in BUILT_FOR_ALL:
        samples.build(name)
    site = samples.site
    paths = [str(site), str(samples.where), *python.path.split(os.pathsep)[1:]]
    from_the_wheel = Python(python.version, python.executable, os.pathsep.join(paths))
    inside = f"""if True:
        import os, sys
        sys.path[:0] = {paths}
        import {", ".join(BUILT_FOR_ALL)}
        import pyruntime
        assert pyruntime.__file__.startswith({str(site)!r})
        for module in ({", ".join(BUILT_FOR_ALL)}):
            address = module.make(7)
            assert module.value(address) == 7
            module.drop(address)
            module.again(10)
        addresses = [module.runtime_address() for module in ({", ".join(BUILT_FOR_ALL)})]
        os.write(1, f"{{len(set(addresses))}} {{addresses[0]}}\\n".encode())  # in one piece, whoever else writes
    """
    kind = "legacy" if python.version in ("3.10", "3.11") else "isolated"
    result = from_the_wheel.run(
        PRELUDE
        + f"""
inside = {inside!r}
exec(inside)
made = [create({kind!r}) for _ in range(2)]
threads = [threading.Thread(target=run, args=(one, inside)) for one in made]
for thread in threads: thread.start()
for thread in threads: thread.join()
for one in made: interpreters.destroy(one)
import pyruntime
pyruntime.barrier(timeout=60)
print(exchange_line.destroyed())
"""
    )
    *lines, destroyed = result.out.splitlines()
    assert len(lines) == 3
    assert len(set(lines)) == 1
    assert lines[0].startswith("1 ")
    assert destroyed == "3"


def test_the_page_of_the_readme(environment: Path, tmp_path: Path) -> None:
    """From pip to a running extension; what the first two lines do is there already."""
    source, lines = runpy.run_path(str(ROOT / "benchmarks" / "first_extension.py"))["page"]()
    (tmp_path / "counter.c").write_text(source)
    create, install, *rest = lines
    assert create == "python3 -m venv venv && . venv/bin/activate"
    assert install == "pip install pyruntime-ft"
    path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    assert command("sh", "-euc", "\n".join(rest), cwd=tmp_path, PATH=path) == "42\n"
