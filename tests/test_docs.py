"""The words: every public name has them, says what it raises and where the idea comes from, and its examples run."""

from __future__ import annotations

import doctest
import importlib.metadata
import inspect
import json
import re
import runpy
from pathlib import Path

import pytest

import pyruntime
from pyruntime import errors, heap, qsbr, refcount, state, sync
from pyruntime.bench.suite import SUITE

README = Path(__file__).parents[1] / "README.md"


def _documented() -> dict[str, object]:
    """Everything that has words of its own."""
    found: dict[str, object] = {"pyruntime": pyruntime}
    for name in ("get_cmake_dir", "get_ffi", "get_include", "get_pkgconfig_dir", "get_sources"):
        found[f"pyruntime.{name}"] = getattr(pyruntime, name)
    for module in (qsbr, state, sync, heap, refcount, errors):
        found[module.__name__] = module
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isroutine(value):
                found[f"{module.__name__}.{name}"] = value
    for kind in (
        qsbr.Domain,
        qsbr.Goal,
        heap.Heap,
        heap.Buffer,
        refcount.SharedRef,
        *(getattr(sync, name) for name in sync.__all__),
    ):
        for name, value in inspect.getmembers(kind):
            if not name.startswith("_"):
                found[f"{kind.__module__}.{kind.__name__}.{name}"] = value
    return found


DOCUMENTED = _documented()

# What does something, and is no plain value or exception.
FUNCTIONS = {
    name: value
    for name, value in DOCUMENTED.items()
    if inspect.isroutine(value)
    and name.startswith(("pyruntime.qsbr", "pyruntime.state", "pyruntime.sync", "pyruntime.heap", "pyruntime.refcount"))
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_public_name_has_words(name: str) -> None:
    words = inspect.getdoc(DOCUMENTED[name])
    assert words is not None
    assert words.split("\n")[0].rstrip().endswith((".", "``.", ":"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_has_an_example(name: str) -> None:
    words = inspect.getdoc(FUNCTIONS[name])
    assert words is not None
    assert ">>>" in words or name.endswith(".close")


@pytest.mark.parametrize("name", DOCUMENTED)
def test_examples_run(name: str) -> None:
    words = inspect.getdoc(DOCUMENTED[name])
    assert words is not None
    example = doctest.DocTestParser().get_doctest(words, {}, name, None, None)
    runner = doctest.DocTestRunner()
    runner.run(example)
    assert runner.failures == 0


def test_every_argument_and_result_has_a_type() -> None:
    for name, value in FUNCTIONS.items():
        if inspect.isfunction(inspect.unwrap(value)):
            signature = inspect.signature(value)
            parameters = [one for one in signature.parameters.values() if one.name != "self"]
            assert [one.name for one in parameters if one.annotation is one.empty] == [], name
            assert signature.return_annotation is not inspect.Signature.empty, name


def test_compiled_functions_have_signatures() -> None:
    assert str(inspect.signature(qsbr.retire)) == "(callable, /, nbytes=0)"
    assert str(inspect.signature(qsbr.reading)) == "()"


def test_each_statistic_has_words_and_they_are_those_of_the_core() -> None:
    fields = list(inspect.get_annotations(qsbr.Stats))
    assert fields == list(qsbr.default_domain._stats())
    source = inspect.getsource(qsbr.Stats)
    for field in fields:
        assert re.search(rf'    {field}: int\n    """.+"""\n', source), field


@pytest.mark.parametrize(
    "record", [heap.HeapStats, heap.LeftBlocks, heap.MemoryStats, heap.SizeClassStats, refcount.RefcountStats]
)
def test_each_figure_that_is_not_plain_has_words(record: type) -> None:
    source = inspect.getsource(record)
    plain = {"name", "tag", "type_stable"}
    for field in set(inspect.get_annotations(record)) - plain:
        assert re.search(rf'    {field}: [^\n]+\n    """.+"""\n', source), field
    for name, value in inspect.getmembers(record):
        if isinstance(value, property):
            assert value.__doc__, name


def test_the_examples_of_the_readme_run() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    runner = doctest.DocTestRunner()
    names: dict[str, object] = {}
    for number, block in enumerate(blocks):
        runner.run(doctest.DocTestParser().get_doctest(block, names, f"README {number}", None, None), clear_globs=False)
    assert runner.tries > 0
    assert runner.failures == 0


def test_the_description_of_the_package_is_the_readme_without_its_pictures() -> None:
    pictures = re.findall(r"^!\[[^]]+\]\((.*)\)$", README.read_text(), re.MULTILINE)
    assert pictures
    assert all((README.parent / picture).is_file() for picture in pictures)
    description = importlib.metadata.metadata("pyruntime-ft")["Description"]
    assert description.startswith("# pyruntime\n")
    assert "## Limits" in description
    assert "![" not in description


def test_the_table_of_memory_is_that_of_the_recorded_run() -> None:
    script = runpy.run_path(str(README.parent / "benchmarks" / "memory_table.py"))
    recorded = json.loads((README.parent / "benchmarks" / "heap.json").read_text())
    table = script["table"](recorded["results"])
    assert table.count("\n") > 10
    assert table in README.read_text()


def test_every_figure_of_the_readme_has_its_command_beside_it() -> None:
    section = README.read_text().split("\n## What it costs\n")[1].split("\n### What memory costs\n")[0]
    rows = [row for row in section.splitlines() if row.startswith("| `bench ") or re.match(r"\|  \|.*\d", row)]
    named = [re.match(r"\| `bench ([a-z_.0-9]+)`", row) for row in rows]
    assert len(rows) > 15
    assert named[0] is not None
    # A row without a name of its own goes on with the one above it.
    assert all(name is not None or row.startswith("|  |") for name, row in zip(named, rows, strict=True))
    benches = {bench.name for bench in SUITE}
    assert {name[1] for name in named if name is not None} - benches == set()


def test_the_package_is_called_and_needs_what_it_says() -> None:
    metadata = importlib.metadata.metadata("pyruntime-ft")
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.10"
    needed = importlib.metadata.requires("pyruntime-ft") or []
    assert [one for one in needed if "extra ==" not in one] == ["cffi>=2.1.1"]


def test_the_readme_starts_with_two_commands() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    first, second = blocks[:2]
    for block in (first, second):
        assert block.count("\n") == 1
    assert "bench --quick" in first
    assert "pytest" in second
