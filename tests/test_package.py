"""The package as it is installed: its names, its compiled part, its stub, its command, and what it says when a part is
missing."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import pydoc
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import stub_of_lib
from conftest import Python

import pyruntime
from pyruntime import __main__ as command
from pyruntime import _core, errors, heap, qsbr, rcu, refcount, state, sync, weakref

PACKAGE = Path(str(pyruntime.__file__)).parent


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [pyruntime, qsbr, state, sync, heap, errors], ids=lambda module: module.__name__)
def test_every_public_name_is_there(module: ModuleType) -> None:
    names = module.__all__
    assert sorted(set(names)) == sorted(names)
    for name in names:
        assert getattr(module, name) is not None
    if module is not pyruntime:
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            _ = module.nothing
    assert set(names) <= set(dir(pyruntime)) or module is not pyruntime


def test_the_names_of_the_package_are_those_of_its_modules() -> None:
    for name in pyruntime.__all__:
        value = getattr(pyruntime, name)
        homes = [module for module in (qsbr, state, sync, heap, errors) if name in module.__all__]
        # heap has a stats() of its own.
        for module in [home for home in homes if (home, name) != (heap, "stats")]:
            assert getattr(module, name) == value
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = pyruntime.nothing


def test_what_people_use_of_the_modules_stands_in_the_package() -> None:
    """All functions, and all types that they take and answer."""
    assert set(qsbr.__all__) <= set(pyruntime.__all__)
    assert set(state.__all__) <= set(pyruntime.__all__)
    assert set(sync.__all__) <= set(pyruntime.__all__)
    assert {"Heap", "Buffer", "heap"} <= set(pyruntime.__all__)  # "stats" and the like are of the module
    words = " ".join(inspect.getdoc(getattr(pyruntime, name)) or "" for name in pyruntime.__all__)
    assert {name for name in errors.__all__ if re.search(rf"\b{name}\b", words)} <= set(pyruntime.__all__)


@pytest.mark.parametrize("module", [pyruntime, qsbr, state, heap], ids=lambda module: module.__name__)
def test_help_shows_what_is_for_users_only(module: ModuleType) -> None:
    text = pydoc.plain(pydoc.render_doc(module))
    for name in module.__all__:
        assert re.search(rf"\b{name}\b", text), name
    assert "__getattr__" not in text
    assert "__dir__" not in text
    assert "_home_of" not in text


def test_the_import_loads_no_more_than_it_needs(this_python: Python) -> None:
    """What takes long is loaded when it is first asked for."""
    result = this_python.run("""
        import sys
        before = set(sys.modules)
        import pyruntime
        print(*sorted(set(sys.modules) - before - {"atexit"}))
        pyruntime.state.threads, pyruntime.errors.Error, pyruntime.TimeoutExpired, pyruntime.threads
    """)
    assert result.out.split() == [
        "_cffi_backend",
        "pyruntime",
        "pyruntime._core",
        "pyruntime._core.lib",
        "pyruntime.qsbr",
    ]


def test_the_version_is_that_of_the_headers() -> None:
    config = Path(pyruntime.get_include(), "pyruntime", "config.h").read_text()
    assert f'#define PYRT_VERSION "{pyruntime.__version__}"' in config
    major, minor = _core.abi_version
    assert f"#define PYRT_ABI_MAJOR {major}\n#define PYRT_ABI_MINOR {minor}\n" in config


def test_the_public_headers_are_there() -> None:
    found = {path.name for path in Path(pyruntime.get_include(), "pyruntime").glob("*.h")}
    assert {"pyruntime.h", "capi.h", "thread.h", "qsbr.h", "retire.h", "stop_the_world.h"} <= found


# ---- the compiled part -----------------------------------------------------------------------------------------------


def test_the_compiled_part_exports_its_init_functions_only() -> None:
    if shutil.which("nm") is None:
        pytest.skip("no nm")
    done = subprocess.run(["nm", "-D", "--defined-only", str(_core.__file__)], capture_output=True, text=True, check=True)
    assert [line.split()[-1] for line in done.stdout.splitlines()] == ["PyInit__core", "PyInit__table"]


def test_the_compiled_part_carries_no_debug_information() -> None:
    if shutil.which("readelf") is None:
        pytest.skip("no readelf")
    done = subprocess.run(["readelf", "-SW", str(_core.__file__)], capture_output=True, text=True, check=True)
    assert ".text" in done.stdout
    assert ".debug_" not in done.stdout


def test_the_compiled_part_is_never_unloaded() -> None:
    if shutil.which("readelf") is None:
        pytest.skip("no readelf")
    done = subprocess.run(["readelf", "-d", str(_core.__file__)], capture_output=True, text=True, check=True)
    assert "NODELETE" in done.stdout


def test_one_file_for_all_versions_with_a_gil() -> None:
    assert str(_core.__file__).endswith(".abi3.so") is _core.uses_limited_api


def test_the_stub_of_lib_is_what_is_there() -> None:
    stub = (PACKAGE / "_core.pyi").read_text()
    body = stub[stub.index("class _Lib:\n") + len("class _Lib:\n") : stub.index("\nlib: _Lib")]
    lines = re.sub(r"\(\n\s+(.*)\n    \)", r"(\1)", body).replace(", /\n", ", /").splitlines()
    assert [line for line in lines if line] == stub_of_lib.lines(), "python tests/stub_of_lib.py prints what it should be"


def _stub_classes() -> dict[str, set[str]]:
    tree = ast.parse((PACKAGE / "_core.pyi").read_text())
    return {
        node.name: {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }


def test_the_stub_has_all_names_of_the_module() -> None:
    tree = ast.parse((PACKAGE / "_core.pyi").read_text())
    names = {node.target.id for node in tree.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    names |= {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    there = {name for name in dir(_core) if not name.startswith("__")}
    assert {name for name in names if name not in ("_Pointer", "_Ffi", "_Lib", "_Lock")} == there


@pytest.mark.parametrize("kind", [_core.Domain, _core.Section])
def test_the_stub_has_all_methods_of_the_types(kind: type) -> None:
    inherited = {"__repr__", "__doc__", "__module__"}
    there = {name for name in vars(kind) if name not in inherited}
    assert _stub_classes()[kind.__name__] == there


def test_ffi_has_what_the_stub_says() -> None:
    for name in _stub_classes()["_Ffi"]:
        assert callable(getattr(_core.ffi, name))


def test_a_second_attach_changes_nothing() -> None:
    domain_type, capsule = _core.Domain, _core._C_API
    assert _core.lib.pyrt_py_attach() == 0
    assert _core.Domain is domain_type
    assert repr(_core._C_API).split(" at ")[0] == repr(capsule).split(" at ")[0] == '<capsule object "pyruntime._C_API"'


def test_importing_again_and_again_leaks_nothing(python: Python) -> None:
    result = python.run("""
        import gc, sys
        def cycle():
            for name in [name for name in sys.modules if name.split(".")[0] == "pyruntime"]:
                del sys.modules[name]
            import pyruntime
            ran = []
            with pyruntime.Domain() as domain, domain.reading(), domain.attached():
                domain.retire(lambda: ran.append(1))
            with pyruntime.reading():
                pass
            pyruntime.retire(lambda: ran.append(1))
            pyruntime.barrier()
            assert ran == [1, 1]
            try:
                pyruntime.retire(None)
            except pyruntime.ArgumentTypeError:
                pass
            return len(pyruntime.interpreters()), len(pyruntime.threads())
        def blocks(cycles):
            for _ in range(cycles):
                counts = cycle()
            gc.collect()
            return sys.getallocatedblocks(), counts
        blocks(20)
        totals = []
        for _ in range(4):
            total, counts = blocks(40)
            totals.append(total)
        # Python's own tables grow now and then; a leak grows in every row of cycles.
        print(min(after - before for before, after in zip(totals, totals[1:])), counts)
    """)
    grown, counts = result.out.split(" ", 1)
    assert counts == "(1, 1)\n"
    assert int(grown) < 40


def test_calls_return_references_of_their_own(python: Python) -> None:
    """The headers of 3.12 take None for immortal; the compiled part that is built with them runs on older Pythons too."""
    result = python.run("""
        import gc, sys
        import pyruntime
        from pyruntime import qsbr
        core = pyruntime._core
        domain = qsbr.default_domain
        domain.barrier()
        def reading():
            with qsbr.reading(): pass
        def close():
            core.Domain().close()
        calls = [reading, close, qsbr.quiescent, domain._stall_report, core.attached_thread, lambda: domain._poll(1),
                 lambda: domain._set_bound(65536, 2**20), lambda: domain.closed, lambda: domain.retire(int),
                 lambda: domain._synchronize(0), lambda: domain._barrier(0)]
        for number, call in enumerate(calls):
            call()
            gc.collect()
            before = [sys.getrefcount(value) for value in (None, True, False)]
            for _ in range(1000):
                call()
            domain._barrier(-1)
            gc.collect()
            after = [sys.getrefcount(value) for value in (None, True, False)]
            print(number, max(abs(new - old) for new, old in zip(after, before)))
    """)
    lines = [line.split() for line in result.out.splitlines()]
    assert len(lines) == 11
    assert [number for number, change in lines if int(change) > 100] == []


# ---- a part is missing -----------------------------------------------------------------------------------------------


def test_without_the_compiled_part_the_mend_is_named(this_python: Python, tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "pyruntime", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    bare = Python(this_python.version, this_python.executable, str(tmp_path))
    # The finder of an editable installation would find the compiled part of the source tree.
    result = bare.run(
        """
        import sys
        sys.meta_path[:] = [one for one in sys.meta_path if "__editable__" not in one.__module__]
        import pyruntime
        """,
        status=1,
    )
    assert "ImportError: pyruntime._core, the compiled part of pyruntime, is missing" in result.err
    assert "python -m pip install -e ." in result.err


def test_without_cffi_the_mend_is_named(this_python: Python) -> None:
    result = this_python.run("import sys; sys.modules['_cffi_backend'] = None; import pyruntime", status=1)
    assert "ImportError: pyruntime needs cffi 2.1.1 or newer" in result.err
    assert "pip install 'cffi>=2.1.1'" in result.err


def test_a_compiled_part_that_does_not_load_is_shown(this_python: Python, tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "pyruntime", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (tmp_path / "pyruntime" / Path(str(_core.__file__)).name).write_bytes(b"no shared object")
    broken = Python(this_python.version, this_python.executable, str(tmp_path))
    result = broken.run("import pyruntime", status=1)
    assert "ImportError: the compiled part of pyruntime does not load" in result.err


def test_an_older_compiled_part_says_so(this_python: Python, tmp_path: Path) -> None:
    """Python modules that ask for more than it has, as after a pull that was not followed by a build."""
    shutil.copytree(PACKAGE, tmp_path / "pyruntime", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "pyruntime" / "qsbr.py").open("a") as file:
        file.write("\nfrom pyruntime._core import NewSection\n")
    pulled = Python(this_python.version, this_python.executable, str(tmp_path))
    result = pulled.run(
        """
        import sys
        sys.meta_path[:] = [one for one in sys.meta_path if "__editable__" not in one.__module__]
        import pyruntime
        """,
        status=1,
    )
    assert "has no 'NewSection': it was built from other sources than these modules" in result.err
    assert "python -m pip install -e ." in result.err
    assert str(tmp_path / "pyruntime" / "_core") in result.err


def test_the_compiled_part_says_what_it_does_not_have() -> None:
    with pytest.raises(ImportError, match=r"no 'heap_of_next_year'.*pip install -e"):
        _ = getattr(_core, "heap_of_next_year")  # noqa: B009  (mypy knows that there is none)
    assert not hasattr(_core, "__wrapped__")


# ---- arguments in messages -------------------------------------------------------------------------------------------

# What takes a number or might be given one, and the error that one far above and one far below 0 gets.
ENDLESS: dict[str, tuple[Callable[[Any], object], type[errors.Error], type[errors.Error]]] = {
    "Heap.alloc": (lambda n: heap.Heap("big").alloc(n), errors.OutOfMemoryError, errors.ArgumentError),
    "tag": (lambda n: heap.Heap(tag=n), errors.ArgumentError, errors.ArgumentError),
    "stable_prefix": (lambda n: heap.Heap(type_stable=True, stable_prefix=n), errors.ArgumentError, errors.ArgumentError),
    "type_stable": (lambda n: heap.Heap(type_stable=n), errors.ArgumentTypeError, errors.ArgumentTypeError),
    "zero": (lambda n: heap.Heap().alloc(1, zero=n), errors.ArgumentTypeError, errors.ArgumentTypeError),
    "domain of a heap": (lambda n: heap.Heap(domain=n), errors.ArgumentTypeError, errors.ArgumentTypeError),
    "owner": (heap.owner, errors.ArgumentError, errors.ArgumentError),
    "retire": (lambda n: qsbr.retire(n), errors.ArgumentTypeError, errors.ArgumentTypeError),
    "nbytes of retire": (lambda n: qsbr.retire(int, nbytes=n), errors.ArgumentError, errors.ArgumentError),
    "items": (lambda n: qsbr.set_bound(items=n, nbytes=1), errors.ArgumentError, errors.ArgumentError),
    "nbytes": (lambda n: qsbr.set_bound(items=1, nbytes=n), errors.ArgumentError, errors.ArgumentError),
    "poll": (qsbr.poll, errors.ArgumentTypeError, errors.ArgumentTypeError),
    "stripes": (sync.StripedLock, errors.ArgumentError, errors.ArgumentError),
    "lock of a condition": (sync.Condition, errors.ArgumentTypeError, errors.ArgumentTypeError),
    "threads": (state.threads, errors.NotFoundError, errors.NotFoundError),
    "domain": (lambda n: state.stop_the_world(domain=n), errors.ArgumentTypeError, errors.ArgumentTypeError),
    "everything": (lambda n: state.stop_the_world(everything=n), errors.ArgumentTypeError, errors.ArgumentTypeError),
    "refcount.stats": (lambda n: refcount.stats(domain=n), errors.ArgumentTypeError, errors.ArgumentTypeError),
    "finalizer": (lambda n: refcount.SharedRef([], n), errors.ArgumentTypeError, errors.ArgumentTypeError),
    "on_owner": (lambda n: refcount.SharedRef([], on_owner=n), errors.ArgumentTypeError, errors.ArgumentTypeError),
    "update": (lambda n: rcu.RCUCell(1).update(n), errors.ArgumentTypeError, errors.ArgumentTypeError),
    "factory": (
        lambda n: weakref.WeakRegistry[int, Any]().get_or_create(1, n),
        errors.ArgumentTypeError,
        errors.ArgumentTypeError,
    ),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_endless_numbers_are_named_by_their_size(what: str) -> None:
    """Of more digits than Python writes, which would raise a ValueError of its own out of the message."""
    call, above, below = ENDLESS[what]
    for number, error, name in [
        (10**5000, above, r"2\*\*16609 or more"),
        (-(10**5000), below, r"-2\*\*16609 or less"),
        (2**128 - 1, above, str(2**128 - 1)),
        (-(2**64), below, str(-(2**64))),
    ]:
        with pytest.raises(error, match=f"(not|of|id) {name}( bytes|, or no longer|$)") as caught:
            call(number)
        assert type(caught.value) is error


@pytest.mark.parametrize("call", [qsbr.synchronize, qsbr.barrier, state.stop_the_world], ids=lambda call: call.__name__)
def test_an_endless_timeout_is_one_and_a_negative_one_is_refused(call: Callable[..., object]) -> None:
    call(timeout=10**5000)
    with pytest.raises(errors.ArgumentError, match=r"not -2\*\*16609 or less$"):
        call(timeout=-(10**5000))


# ---- the command -----------------------------------------------------------------------------------------------------


def run_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert command.main(list(arguments)) == 0
    return capsys.readouterr().out


def test_info_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    with qsbr.Domain(name="mine") as mine, mine.attached():
        out = run_command(capsys, "info")
    words = (
        pyruntime.__version__,
        "CPython",
        "main, made by the runtime",
        "mine, made by Python code",
        "attached",
        "retired",
        "counters are those of this process; a program asks pyruntime.stats() for its own",
    )
    for word in words:
        assert word in out


def test_info_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    with pyruntime.attached():
        document = json.loads(run_command(capsys, "info", "--json"))
    assert document["runtime"]["version"] == pyruntime.__version__
    assert document["interpreters"][0] == {"id": 0, "name": "main", "whence": "the runtime"}
    assert "attached" in {thread["state"] for thread in document["threads"]}
    assert document["stats"].keys() == _core.Domain._default()._stats().keys()


def test_options_of_compilers_are_printed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    include = pyruntime.get_include()
    core = str(Path(include).parent / "core")
    assert run_command(capsys, "--includes") == f"-I{include}\n"
    assert run_command(capsys, "--cflags") == f"-I{include} -pthread\n"
    assert run_command(capsys, "--libs") == "-pthread\n"
    assert run_command(capsys, "--sources").split() == pyruntime.get_sources()
    assert {os.path.commonpath(pyruntime.get_sources())} == {core}
    assert run_command(capsys, "--cmakedir") == f"{pyruntime.get_cmake_dir()}\n"
    assert run_command(capsys, "--pkgconfigdir") == f"{pyruntime.get_pkgconfig_dir()}\n"


def test_options_of_compilers_are_printed_together(capsys: pytest.CaptureFixture[str]) -> None:
    """In the order of a command line, on one line, nothing twice."""
    include = pyruntime.get_include()
    core = str(Path(include).parent / "core")
    assert run_command(capsys, "--libs", "--cflags", "--includes") == f"-I{include} -pthread\n"
    words = run_command(capsys, "--sources", "--cflags", "--libs").split()
    assert words[:5] == ["-std=gnu11", "-fvisibility=hidden", f"-I{include}", f"-I{core}", "-pthread"]
    assert words[5:] == pyruntime.get_sources()
    dirs = [pyruntime.get_cmake_dir(), pyruntime.get_pkgconfig_dir()]
    assert run_command(capsys, "--pkgconfigdir", "--cmakedir").splitlines() == dirs
    for_compiler = run_command(capsys, "--libs", "--includes")
    assert for_compiler == f"-I{pyruntime.get_include()} -pthread\n"
    assert run_command(capsys, "--pkgconfigdir", "--libs", "--cmakedir", "--includes").splitlines(True) == [
        for_compiler,
        *(f"{one}\n" for one in dirs),
    ]
    with pytest.raises(SystemExit):
        command.main(["--cflags", "info"])
    assert capsys.readouterr().err.endswith("error: info goes without --cflags\n")


def test_bench_is_handed_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert "qsbr.quiescent" in run_command(capsys, "bench", "--list")


def test_wrong_command_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("usage: pyruntime")
    assert "Begin with 'python -m pyruntime info'" in said.err
    assert "error: say what to do: info, bench, explain, heap-stats, --version, --includes, --cflags" in said.err
    with pytest.raises(SystemExit) as caught:
        command.main(["nothing"])
    assert caught.value.code == 2
    assert "invalid choice: 'nothing'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        command.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"pyruntime {pyruntime.__version__}\n"


@pytest.mark.parametrize("arguments", [["info"], ["explain"], ["heap-stats", "--seconds", "0"], ["--cflags"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_cannot_be_written_is_one_line(this_python: Python, arguments: list[str], unbuffered: str) -> None:
    environment = {**os.environ, "PYTHONPATH": this_python.path, "PYTHONUNBUFFERED": unbuffered}
    line = [this_python.executable, "-m", "pyruntime", *arguments]
    with open("/dev/full", "w") as full:
        said = subprocess.run(line, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert said.returncode == 1
    assert said.stderr == "pyruntime: error: [Errno 28] No space left on device\n"


def test_the_module_runs(this_python: Python) -> None:
    environment = {**os.environ, "PYTHONPATH": this_python.path}
    line = [sys.executable, "-m", "pyruntime", "--includes"]
    done = subprocess.run(line, env=environment, cwd=this_python.path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("-I")


# ---- the builder -----------------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[1]


@pytest.fixture
def build_ffi(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("cffi", reason="only the builder needs it whole")
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT / "csrc"))
    return importlib.import_module("build_ffi")


def test_everything_that_is_marked_is_declared(build_ffi: ModuleType) -> None:
    declared, _ = build_ffi.declared()
    text = re.sub(r"/\*.*?\*/|^typedef [^;{]*;", "", declared, flags=re.DOTALL | re.MULTILINE)
    functions = set(re.findall(r"\b(pyrt_\w+)\((?!\*)", text))
    assert functions == {name for name in dir(_core.lib) if name.startswith("pyrt_")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/* cdef: begin */\n#if 1\nint a;\n#endif\n/* cdef: end */\n", "2: no preprocessor line"),
        ("/* cdef: begin */\n/* cdef: begin */\n/* cdef: end */\n", "2: /* cdef: begin */ without its partner"),
        ("int a;\n/* cdef: end */\n", "2: /* cdef: end */ without its partner"),
        ("/* cdef: begin */\nint a;\n", "the last region is not ended"),
    ],
)
def test_regions_that_cffi_could_not_take(build_ffi: ModuleType, tmp_path: Path, text: str, message: str) -> None:
    header = tmp_path / "wrong.h"
    header.write_text(text)
    with pytest.raises(build_ffi.HeaderError, match=re.escape(message)):
        build_ffi.regions(header)


def test_regions_are_what_stands_between_the_marks(build_ffi: ModuleType, tmp_path: Path) -> None:
    header = tmp_path / "right.h"
    header.write_text(
        "#if 1\n    /* cdef: begin */\nint a;\n\n/* cdef: end */\nint b;\n/* cdef: begin */\nint c;\n/* cdef: end */\n"
    )
    assert build_ffi.regions(header) == ["int a;\n", "int c;"]


def test_all_paths_of_the_builder_are_relative(build_ffi: ModuleType) -> None:
    """An absolute path would stand in the sdist."""
    for path in build_ffi.sources() + build_ffi.headers():
        assert not os.path.isabs(path)
        assert (ROOT / path).is_file()
