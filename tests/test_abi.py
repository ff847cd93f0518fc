"""Compatibility with what was compiled before: the list of what programs rely on, versions, the previous minor version."""

from __future__ import annotations

import tarfile
from pathlib import Path

import abi_listing
import names_of_core
import pytest
import table_words
from c_support import INCLUDE, ROOT, build_library
from installed import Samples, load

import pyruntime

PREVIOUS = sorted((Path(__file__).parent / "embedding" / "previous").glob("headers-*.tar.gz"))


@pytest.fixture(scope="module")
def listing() -> list[str]:
    return abi_listing.listing()


def test_the_list_of_what_programs_rely_on_is_up_to_date(listing: list[str]) -> None:
    kept = abi_listing.LISTING.read_text().splitlines()
    assert abi_listing.change(kept, listing) is None
    assert kept == listing, "python tests/abi_listing.py brings csrc/abi.txt up to date"


def test_the_list_is_of_this_version_and_whole(listing: list[str]) -> None:
    assert listing[0] == "abi {}.{}".format(*pyruntime.runtime_info().abi_version)
    members = [line.split()[2] for line in listing if line.startswith("table ")]
    assert members[:4] == ["abi_major", "abi_minor", "struct_size", "tls_offset"]
    assert list(table_words.members()) == [
        name for name in members[4:] if name not in ("parking_cells", "layout_items", "layout")
    ]
    for line in ("export pyrt_malloc", "struct pyrt_object 32", "field pyrt_object.shared 16", "constant PYRT_ENOMEM 1"):
        assert line in listing
    exported = {line.split()[1] for line in listing if line.startswith("export ")}
    assert {f"pyrt_{name}" for name in table_words.members()} < exported


OLD = ["abi 0.2", "export pyrt_a", "table 0 a", "struct pyrt_s 8"]


@pytest.mark.parametrize(
    ("new", "wrong"),
    [
        (OLD, None),
        (["abi 0.3", *OLD[1:], "export pyrt_b"], None),
        (["abi 1.0", "table 0 a"], None),
        ([*OLD, "export pyrt_b"], "it has grown: raise PYRT_ABI_MINOR in config.h. New: export pyrt_b"),
        (["abi 0.3", *OLD[1:3], "struct pyrt_s 16"], "a break: raise PYRT_ABI_MAJOR in config.h"),
        (["abi 0.3", *OLD[2:]], "Gone or changed: export pyrt_a"),
        (["abi 0.2", "export pyrt_a", "table 8 a", "struct pyrt_s 8"], "Gone or changed: table 0 a"),
    ],
)
def test_a_change_wants_another_version(new: list[str], wrong: str | None) -> None:
    found = abi_listing.change(OLD, new)
    assert found is None if wrong is None else wrong in str(found)


def test_the_shared_library_exports_what_the_public_headers_declare() -> None:
    exported = set(names_of_core.defined(build_library() / "libpyruntime.so", dynamic=True))
    text = "".join(file.read_text() for file in (INCLUDE / "pyruntime").glob("*.h") if file.name != "prefix.h")
    assert {name for name in exported if name not in text} == set()
    assert exported == set(names_of_core.defined(build_library() / "libpyruntime.a"))
    assert exported < set(names_of_core.names())


def test_every_name_of_the_core_gets_the_prefix() -> None:
    kept = (INCLUDE / "pyruntime" / "prefix.h").read_text()
    assert kept == names_of_core.header(), "python tests/names_of_core.py prints what prefix.h has to be"


@pytest.mark.parametrize(("name", "words"), table_words.members().items())
def test_each_member_of_the_table_says_what_it_has_to_do_with_the_gil(name: str, words: str) -> None:
    wanted = table_words.wanted(name, table_words.guarantees())
    assert wanted is not None, f"no guarantee line for pyrt_{name}"
    assert words == wanted


@pytest.mark.parametrize("headers", PREVIOUS, ids=lambda file: file.name)
def test_what_was_compiled_for_an_older_minor_version_works(samples: Samples, headers: Path, tmp_path: Path) -> None:
    with tarfile.open(headers) as archive:
        archive.extractall(tmp_path)
    include = tmp_path / "csrc" / "include"
    config = (include / "pyruntime" / "config.h").read_text()
    major, minor = pyruntime.runtime_info().abi_version
    assert f"#define PYRT_ABI_MAJOR {major}\n" in config
    assert f"#define PYRT_ABI_MINOR {minor}\n" not in config
    name = f"sample_{headers.name.removesuffix('.tar.gz').replace('-', '_').replace('.', '_')}"
    sample = load(samples.sample(tmp_path, name, include=include), name)
    current = samples.load("sample_one")
    assert sample.runtime_address() == current.runtime_address() != 0
    assert sample.inline_paths() == (True,) * 6
    assert sample.counting() == (True,) * 6
    before = sample.disposed()
    for value in range(100):
        sample.replace(value)
    pyruntime.barrier(timeout=60.0)
    assert sample.read() == 99
    assert sample.disposed() - before == 99


def test_the_version_of_the_pkg_config_file_is_that_of_the_headers() -> None:
    text = (ROOT / "csrc" / "lib" / "pkgconfig" / "pyruntime.pc").read_text()
    assert f"\nVersion: {pyruntime.__version__}\n" in text
