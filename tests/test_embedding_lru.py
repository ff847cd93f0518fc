"""The cache of docs/embedding.md in all of its versions: one behaviour, two threads at it, and words that show the code."""

from __future__ import annotations

import functools
import gc
import re
import runpy
import subprocess
import sys
import threading
from array import array
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from conftest import FREE_THREADED
from installed import LRU, LRU_VERSIONS, SUFFIX, Samples

import pyruntime

DOCUMENT = Path(__file__).parents[1] / "docs" / "embedding.md"
# Whose values go when readers have passed, and not with the call that gives them up.
RETIRING = ("lru_3_qsbr", "lru_4_objects")


class Value:
    """Says whose it is, and is counted."""

    alive = 0
    lock = threading.Lock()

    def __init__(self, key: int) -> None:
        self.key = key
        with Value.lock:
            Value.alive += 1

    def __del__(self) -> None:
        with Value.lock:
            Value.alive -= 1


@pytest.fixture(scope="module", params=LRU_VERSIONS)
def lru(request: pytest.FixtureRequest, samples: Samples) -> ModuleType:
    name: str = request.param
    if FREE_THREADED and name == LRU_VERSIONS[0]:
        pytest.skip("it switches the GIL on")
    return samples.load(name)


def settle(lru: ModuleType) -> None:
    """Until what was given up has gone."""
    gc.collect()
    if lru.__name__ in RETIRING:
        pyruntime.barrier(timeout=60.0)
        lru.Cache(1).clear()  # drops what waits for somebody with the GIL
        pyruntime.barrier(timeout=60.0)


def keys(*numbers: int) -> array[int]:
    return array("q", numbers)


def test_it_holds_what_was_put(lru: ModuleType) -> None:
    cache = lru.Cache(3)
    assert (len(cache), cache.get(1), cache.get(1, "none")) == (0, None, "none")
    cache.put(1, "one")
    cache.put(-(2**63), "least")
    cache.put(1, "another")
    assert (len(cache), cache.get(1), cache.get(-(2**63))) == (2, "another", "least")
    assert cache.get_many(keys(1, 5, 1)) == ["another", None, "another"]
    assert cache.touch(keys(1, 5, -(2**63))) == 2
    assert cache.touch(keys()) == 0
    assert cache.stats() == {"size": 2, "hits": 6, "misses": 4, "evictions": 0}
    cache.clear()
    assert (len(cache), cache.get(1)) == (0, None)


def test_what_was_not_used_gives_way(lru: ModuleType) -> None:
    cache = lru.Cache(4)
    for number in range(4):
        cache.put(number, str(number))
    assert cache.get(0) == "0"
    cache.put(4, "4")
    assert [cache.get(number) for number in (1, 0, 2, 3, 4)] == [None, "0", "2", "3", "4"]
    assert (len(cache), cache.stats()["evictions"]) == (4, 1)
    for number in range(100, 200):
        cache.put(number, str(number))
        assert cache.get(number) == str(number)
        assert len(cache) == 4
    assert cache.get_many(keys(*range(100)))[5:] == [None] * 95


def test_values_are_dropped_once(lru: ModuleType) -> None:
    before = Value.alive
    cache = lru.Cache(8)
    for number in range(100):
        cache.put(number % 20, Value(number % 20))
    settle(lru)
    assert Value.alive - before == len(cache) == 8
    kept = cache.get(19)
    cache.clear()
    settle(lru)
    assert (Value.alive - before, kept.key) == (1, 19)
    cache.put(1, kept)
    del cache, kept
    settle(lru)
    assert Value.alive == before


def test_one_cache_takes_all_that_another_has(lru: ModuleType) -> None:
    before = Value.alive
    first, second = lru.Cache(10), lru.Cache(4)
    for number in range(5):
        first.put(number, Value(number))
    second.put(4, Value(4))
    second.absorb(first)
    assert (len(first), len(second)) == (0, 4)
    second.absorb(second)
    assert [value and value.key for value in second.get_many(keys(0, 1, 2, 3, 4))].count(None) == 1
    with pytest.raises(TypeError, match="same type"):
        first.absorb({})
    del first, second
    settle(lru)
    assert Value.alive == before


def test_a_value_may_come_back_from_its_end(lru: ModuleType) -> None:
    """Code that runs when a value is dropped uses the cache which has dropped it."""
    cache = lru.Cache(1)

    class Chatty:
        def __del__(self) -> None:
            seen.append((cache.get(1), len(cache)))
            cache.put(2, "from the end")

    seen: list[object] = []
    cache.put(1, Chatty())
    cache.put(1, "plain")
    settle(lru)
    assert seen == [("plain", 1)]
    assert cache.get(2) == "from the end"


def test_a_cycle_through_a_cache_is_collected(lru: ModuleType) -> None:
    before = Value.alive
    cache = lru.Cache(2)
    value = Value(1)
    value.cache = cache  # type: ignore[attr-defined]
    cache.put(1, value)
    del cache, value
    settle(lru)
    assert Value.alive == before


@pytest.mark.parametrize("wrong", [0, -1, 2**62])
def test_a_capacity_that_is_none_is_refused(lru: ModuleType, wrong: int) -> None:
    with pytest.raises(ValueError, match="room for one entry"):
        lru.Cache(wrong)


def test_keys_that_are_none_are_refused(lru: ModuleType) -> None:
    cache = lru.Cache(1)
    for wrong in (array("i", [1]), array("d", [1.0]), b"12345678"):
        with pytest.raises(TypeError, match="array"):
            cache.touch(wrong)
        with pytest.raises(TypeError, match="array"):
            cache.get_many(wrong)
    with pytest.raises(TypeError):
        cache.get("one")
    with pytest.raises(OverflowError):
        cache.put(2**63, None)


def run_at_once(*calls: Callable[[], object]) -> None:
    failed: list[BaseException] = []

    def guarded(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


ROUNDS = 1500


def test_two_threads_lose_nothing_and_count_everything(lru: ModuleType) -> None:
    """Each looks up, replaces and evicts; some of it is under way without the GIL all the time."""
    before = Value.alive
    cache = lru.Cache(64)
    asked = [0, 0]

    def work(me: int) -> None:
        mine = keys(*range(128))
        for number in range(ROUNDS):
            key = (number * 7 + me) % 128
            cache.put(key, Value(key))
            found = cache.get(key * 3 % 128)
            assert found is None or found.key == key * 3 % 128
            assert 0 <= cache.touch(mine) <= 128  # no snapshot: what was seen may go while the rest is looked for
            asked[me] += 1 + 128
            if number % 16 == me:
                values = cache.get_many(mine)
                asked[me] += 128
                assert all(value is None or value.key == key for key, value in enumerate(values))

    run_at_once(lambda: work(0), lambda: work(1))
    figures = cache.stats()
    assert figures["hits"] + figures["misses"] == sum(asked)
    assert figures["size"] == len(cache) == 64
    settle(lru)
    assert Value.alive - before == 64
    cache.clear()
    settle(lru)
    assert Value.alive == before


def test_two_caches_absorb_each_other_without_deadlock(lru: ModuleType) -> None:
    before = Value.alive
    first, second = lru.Cache(100), lru.Cache(100)
    for number in range(50):
        first.put(number, Value(number))

    def work(one: object, other: object) -> None:
        for _ in range(ROUNDS // 10):
            one.absorb(other)  # type: ignore[attr-defined]

    run_at_once(
        lambda: work(first, second),
        lambda: work(second, first),
        lambda: [first.touch(keys(*range(50))) for _ in range(ROUNDS // 10)],
    )
    assert len(first) + len(second) == 50
    values = first.get_many(keys(*range(50))) + second.get_many(keys(*range(50)))
    assert sorted(value.key for value in values if value is not None) == list(range(50))
    del values
    first.clear()
    second.clear()
    settle(lru)
    assert Value.alive == before


def test_threads_that_end_leave_nothing(lru: ModuleType) -> None:
    before = Value.alive
    cache = lru.Cache(4)
    for number in range(20):
        run_at_once(functools.partial(lambda key: cache.put(key, Value(key)), number), lambda: cache.touch(keys(1, 2)))
    settle(lru)
    assert Value.alive - before == len(cache) == 4
    cache.clear()
    settle(lru)
    assert Value.alive == before


def test_a_lock_that_is_left_out_is_noticed(samples: Samples, tmp_path: Path) -> None:
    """Else the sums above would prove nothing: two threads without the GIL, on a list that nobody guards."""
    source = (LRU / "lru_1_mutex.c").read_text()
    before, touch, after = re.split(
        r"(?<=^}\n\n)(static size_t\nlru_touch.*?^}\n)", source, maxsplit=1, flags=re.MULTILINE | re.DOTALL
    )
    assert touch.count("pyrt_mutex_lock") == 1
    (tmp_path / "lru_1_mutex.c").write_text(before + re.sub(r" *pyrt_mutex_(un)?lock\(.*\);\n", "", touch) + after)
    changed = str(tmp_path / "lru_1_mutex.c")
    path = samples.compile(tmp_path / f"lru_1_mutex{SUFFIX}", "-std=gnu11", f"-I{LRU}", changed)
    script = f"""
import importlib.machinery, importlib.util, threading
from array import array
loader = importlib.machinery.ExtensionFileLoader("lru_1_mutex", {str(path)!r})
module = importlib.util.module_from_spec(importlib.util.spec_from_loader("lru_1_mutex", loader))
loader.exec_module(module)
cache = module.Cache(64)
for key in range(64):
    cache.put(key, key)
keys = array("q", range(64)) * 2000
def touch():
    for _ in range(50):
        cache.touch(keys)
threads = [threading.Thread(target=touch, daemon=True) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(20.0)
assert not any(thread.is_alive() for thread in threads)
assert cache.stats()["hits"] == 100 * len(keys)
"""
    for _ in range(5):
        if subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60).returncode != 0:
            return
    pytest.fail("nobody has noticed it")


# ---- the words ------------------------------------------------------------------------------------------------------------


def test_the_code_of_the_document_is_that_of_the_files() -> None:
    blocks = re.findall(r"^```c\n/\* (\S+) \*/\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == len(re.findall("^```c$", DOCUMENT.read_text(), re.MULTILINE)) > 8
    for name, code in blocks:
        assert code in (LRU / name).read_text(), f"{name} has no such lines:\n{code}"
    assert {f"{name}.c" for name in LRU_VERSIONS} <= {name for name, _ in blocks}


def test_the_command_writes_the_figures_into_all_tables_of_the_document() -> None:
    bench = runpy.run_path(str(LRU / "bench.py"))
    assert tuple(bench["VERSIONS"]) == LRU_VERSIONS
    places = [(name, way, threads) for name in LRU_VERSIONS for way in bench["WAYS"] for threads in (1, 2)]
    best = {place: 1000.0 + number for number, place in enumerate(places)}
    text = DOCUMENT.read_text()
    written = bench["put_into"](text, best, "Taken on some day.")
    assert "\n\nTaken on some day.\n\n" in written
    rows = re.findall(r"^\| `(lru_\w+)` \|(.*)\|$", text, re.MULTILINE)
    figures = re.findall(r"\b10\d\d\.0\b", written)
    assert len(figures) == 6 * len(rows) > 6 * len(LRU_VERSIONS)
    assert len(set(figures)) == len(places)
    assert bench["table"](best) in written
    # Those of one run: a version has the same figures in each table.
    assert len(set(rows)) == len(LRU_VERSIONS)
