"""The core builds with one compiler line, without Python, generated files or test code, and brings no names of its own."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from c_support import CORE, CXX, HANG_GUARD, ROOT, compiles, need_compiler, on_all_cores

LINE = ["-std=gnu11", "-O2", "-Icsrc/include", "-Icsrc", "-Icsrc/core", "-pthread"]
SOURCES = sorted(str(file.relative_to(ROOT)) for file in CORE.rglob("*.c"))

PROGRAM = (ROOT / "tests" / "embedding" / "program.c").read_text()

MALLOC_FAMILY = {
    "malloc", "calloc", "realloc", "free", "aligned_alloc", "memalign", "posix_memalign", "valloc", "pvalloc",
    "malloc_usable_size", "reallocarray", "cfree",
}  # fmt: skip


@pytest.fixture(scope="module", params=CXX)
def compiler(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    need_compiler(name)
    return name


@pytest.fixture(scope="module")
def objects(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The object files of the core, each made with exactly the one line."""
    where = tmp_path_factory.mktemp(f"core-{compiler}")

    def make(source: str) -> Path:
        target = where / (source.replace("/", "_") + ".o")
        command = [compiler, *LINE, "-c", source, "-o", str(target)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG_GUARD)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
        assert done.stderr == ""
        return target

    return on_all_cores(make, SOURCES)


def symbols(files: list[Path], *options: str) -> set[str]:
    """Names out of symbol tables."""
    done = subprocess.run(["nm", "-P", *options, *map(str, files)], capture_output=True, text=True, check=True)
    return {line.split()[0] for line in done.stdout.splitlines() if line and not line.endswith(":")}


def test_a_program_runs_with_it(compiler: str, objects: list[Path], tmp_path: Path) -> None:
    command = [compiler, "-std=gnu11", f"-I{ROOT / 'csrc' / 'include'}", "-pthread", *map(str, objects), "-o", "program"]
    done = compiles(command, PROGRAM, "program.c", tmp_path)
    assert done.returncode == 0, done.stderr
    ran = subprocess.run([tmp_path / "program"], capture_output=True, text=True, timeout=HANG_GUARD)
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(r"\d+\.\d+\.\d+ success sum 499500 stats \d+\n", ran.stdout), ran.stdout


def test_its_names_are_its_own(objects: list[Path]) -> None:
    defined = symbols(objects, "--defined-only", "--extern-only")
    assert "pyrt_runtime_init" in defined
    assert {name for name in defined if not name.startswith("pyrt_")} == set()


def test_it_defines_and_uses_no_malloc(objects: list[Path]) -> None:
    defined = symbols(objects, "--defined-only")
    assert defined & MALLOC_FAMILY == set()
    # Its own memory comes from the system, so that it works under a malloc that is built on it.
    undefined = symbols(objects, "--undefined-only")
    assert undefined & MALLOC_FAMILY == set()


def test_it_knows_nothing_of_python(objects: list[Path]) -> None:
    undefined = symbols(objects, "--undefined-only")
    assert undefined
    assert {name for name in undefined if re.match(r"_?Py[A-Z_]", name)} == set()


def test_there_is_no_test_code_among_the_sources() -> None:
    for source in SOURCES:
        text = (ROOT / source).read_text()
        assert "PYRT_TEST" not in text, source
        assert not re.search(r"\bmain\s*\(\s*(void|int)", text), source


def test_all_objects_fit_into_one_folder() -> None:
    names = [Path(source).name for source in SOURCES]
    assert len(set(names)) == len(names)
