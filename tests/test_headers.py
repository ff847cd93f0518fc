"""The public headers: each compiles alone, as C11 and C++17, in both ways of using it, and shows nothing private."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from c_support import CORE, CXX, INCLUDE, compiles

HEADERS = sorted(file.name for file in (INCLUDE / "pyruntime").glob("*.h"))
COMPILED_IN = [name for name in HEADERS if name not in ("capi.h", "vendored.h")]
# More than the core itself is built with: a header must not spoil the build of who asks for these.
WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Wconversion",
    "-Wsign-conversion",
    "-Wshadow",
    "-Wcast-qual",
    "-Wundef",
    "-Werror",
]
LONGEST_LINE = 131
LANGUAGES = {"c11": "c", "c++17": "cpp"}


def command(compiler: str, language: str, *more: str) -> list[str]:
    """A compiler line with no other include path than that of the public headers."""
    driver = CXX[compiler] if language.startswith("c++") else compiler
    return [driver, f"-std={language}", *WARNINGS, f"-I{INCLUDE}", "-fsyntax-only", *more]


@pytest.fixture(params=CXX)
def compiler(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.mark.parametrize("debug", [(), ("-DPYRT_DEBUG",)], ids=["release", "debug"])
@pytest.mark.parametrize("header", HEADERS)
def test_alone(tmp_path: Path, compiler: str, language: str, header: str, debug: tuple[str, ...]) -> None:
    source = f"#include <pyruntime/{header}>\n#include <pyruntime/{header}>\nint used = (int)sizeof(int);\n"
    done = compiles(command(compiler, language, *debug), source, f"alone.{LANGUAGES[language]}", tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("header", HEADERS)
def test_after_the_table(tmp_path: Path, compiler: str, language: str, header: str) -> None:
    source = f"#include <pyruntime/capi.h>\n#include <pyruntime/{header}>\nint used = (int)sizeof(int);\n"
    done = compiles(command(compiler, language), source, f"table.{LANGUAGES[language]}", tmp_path)
    assert done.returncode == 0, done.stderr


USE = """
#include <pyruntime/{first}>
#include <pyruntime/pyruntime.h>
static void dispose(void *p) {{ (void)p; }}
static void dispose_node(pyrt_retire_node *node) {{ (void)node; }}
static int count(pyrt_thread *thread, pyrt_object **slot, uint32_t id)
{{
    static pyrt_type_spec spec;
    pyrt_type *type = pyrt_type_new(thread->interp, &spec);
    pyrt_object *object = pyrt_incref_as(thread, pyrt_object_new(thread, type));
    pyrt_decref_as(thread, object);
    pyrt_incref_by_id(thread, object, id);
    pyrt_decref_by_id(thread, object, id);
    pyrt_store_ref(slot, pyrt_incref(object));
    pyrt_object *found = pyrt_load_ref(slot);
    pyrt_xdecref(pyrt_compare_exchange_ref(slot, found, NULL) ? pyrt_exchange_ref(slot, found) : found);
    pyrt_decref(object);
    pyrt_merge_refcounts(thread);
    return pyrt_is_immortal(object) || pyrt_is_uniquely_referenced(object) || pyrt_merge_unique_counts(NULL) != 0;
}}
int use(pyrt_retire_node *node);
int use(pyrt_retire_node *node)
{{
    pyrt_status status = pyrt_runtime_init();
    pyrt_thread *thread = pyrt_thread_ensure(pyrt_interp_main());
    pyrt_read_begin(thread);
    pyrt_read_end(thread);
    pyrt_safepoint(thread);
    pyrt_qsbr_quiescent_state(thread);
    pyrt_detach(thread);
    pyrt_attach(pyrt_thread_current() == thread ? thread : pyrt_thread_find(thread->interp));
    pyrt_mutex mutex = PYRT_MUTEX_INIT;
    pyrt_mutex_lock(&mutex);
    pyrt_mutex_unlock(&mutex);
    if (pyrt_mutex_trylock(&mutex) && pyrt_mutex_is_locked(&mutex) && pyrt_parked_near(&mutex) == 0) {{
        status = pyrt_mutex_lock_timed(&mutex, 0, PYRT_LOCK_NO_DETACH);
    }}
    status = pyrt_retire(thread, node, sizeof(*node), dispose);
    pyrt_retire_node(thread, node, sizeof(*node), dispose_node);
    pyrt_object *slot = NULL;
    status = count(thread, &slot, 0) != 0 ? PYRT_EBUSY : status;
    pyrt_thread_release(thread);
    return status == PYRT_OK && pyrt_qsbr_barrier(NULL) == PYRT_OK ? thread->index : -1;
}}
"""


@pytest.mark.parametrize("first", ["capi.h", "thread.h"])
def test_the_same_text_works_both_ways(tmp_path: Path, compiler: str, language: str, first: str) -> None:
    done = compiles(command(compiler, language), USE.format(first=first), f"use.{LANGUAGES[language]}", tmp_path)
    assert done.returncode == 0, done.stderr


def test_through_the_table_nothing_of_the_core_is_linked(tmp_path: Path, compiler: str, language: str) -> None:
    line = command(compiler, language, "-O2", "-shared", "-fPIC", "-Wl,-z,defs", "-o", "use.so")
    line.remove("-fsyntax-only")
    done = compiles(line, USE.format(first="capi.h"), f"use.{LANGUAGES[language]}", tmp_path)
    assert done.returncode == 0, done.stderr
    done = compiles(line, USE.format(first="thread.h"), f"use.{LANGUAGES[language]}", tmp_path)
    assert "undefined reference" in done.stderr or "undefined symbol" in done.stderr


@pytest.mark.parametrize(
    "header", [name for name in COMPILED_IN if name not in ("capi_table.h", "atomic.h", "config.h", "prefix.h")]
)
def test_the_table_wants_to_come_first(tmp_path: Path, compiler: str, header: str) -> None:
    source = f"#include <pyruntime/{header}>\n#include <pyruntime/capi.h>\n"
    done = compiles(command(compiler, "c11"), source, "late.c", tmp_path)
    assert done.returncode != 0
    assert "before any other pyruntime header" in done.stderr


def test_one_header_includes_them_all() -> None:
    text = (INCLUDE / "pyruntime" / "pyruntime.h").read_text()
    included = set(re.findall(r'#include "([^"]+)"', text))
    # Some come with those that need them, and some belong to the other way in.
    with_others = {"config.h", "prefix.h", "qsbr_slot.h"}
    of_the_table = {"capi.h", "capi_table.h", "layout.h", "vendored.h"}
    assert included | with_others | of_the_table | {"pyruntime.h"} == set(HEADERS)


def test_every_header_names_its_licence() -> None:
    for header in HEADERS:
        first = (INCLUDE / "pyruntime" / header).read_text().splitlines()[0]
        assert first == "/* SPDX-License-Identifier: MIT", header


def test_no_line_is_too_long_to_read() -> None:
    """clang-format leaves comments alone."""
    for file in sorted([*(INCLUDE / "pyruntime").glob("*.h"), *CORE.rglob("*.[ch]")]):
        long = [number for number, line in enumerate(file.read_text().splitlines(), start=1) if len(line) > LONGEST_LINE]
        assert long == [], file.name


def test_table_and_names_agree() -> None:
    """Each member of the table has its name in capi.h, and each name a member."""
    table = (INCLUDE / "pyruntime" / "capi_table.h").read_text()
    names = (INCLUDE / "pyruntime" / "capi.h").read_text()
    struct = table.split("typedef struct pyrt_capi {")[1].split("} pyrt_capi;")[0]
    members = re.findall(r"^    \w[\w ]*\**\(\*(\w+)\)\(", struct, re.MULTILINE)
    assert members
    assert re.findall(r"#define pyrt_(\w+) PYRT_CALL\((\w+)\)", names) == [(member, member) for member in members]


def private_fields() -> list[str]:
    """The members of the private thread state, but for the public one in front."""
    text = (CORE / "state" / "thread_impl.h").read_text()
    struct = text.split("typedef struct pyrt_thread_impl {")[1].split("} pyrt_thread_impl;")[0]
    declarations = re.sub(r"/\*.*?\*/", "", struct, flags=re.DOTALL).split(";")
    fields = [re.findall(r"(\w+)(?:\[\w+\])?$", line.strip())[0] for line in declarations if line.strip()]
    assert fields[0] == "base"
    return fields[1:]


@pytest.mark.parametrize("field", private_fields())
def test_no_private_field_shows(tmp_path: Path, compiler: str, field: str) -> None:
    source = "#include <pyruntime/pyruntime.h>\nint size = (int)sizeof(((pyrt_thread *)0)->{});\n"
    done = compiles(command(compiler, "c11"), source.format(field), "private.c", tmp_path)
    assert done.returncode != 0
    assert field in done.stderr
    for public in ("slot", "os_id", "id", "interp", "index", "retire"):
        done = compiles(command(compiler, "c11"), source.format(public), "public.c", tmp_path)
        assert done.returncode == 0, done.stderr


def test_no_public_header_knows_a_private_one() -> None:
    for header in HEADERS:
        text = (INCLUDE / "pyruntime" / header).read_text()
        for included in re.findall(r'#\s*include\s+"([^"]+)"', text):
            assert included in HEADERS, f"{header} includes {included}"
