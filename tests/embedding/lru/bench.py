"""What each version of the cache costs: nanoseconds a key, of 1 and of 2 threads. ``python tests/embedding/lru/bench.py``
prints a table; with ``--into docs/embedding.md`` it puts the figures, and where they were taken, into the tutorial as well.

A cache of 1024 entries that holds all of the keys that are asked for. With 2 threads the time is that of both together over
the keys of both: half as much is twice as fast. Best of several rounds, in each of which all versions have their turn.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import re
import subprocess
import sysconfig
import tempfile
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pyruntime
from pyruntime.bench import machine

HERE = Path(__file__).parent
VERSIONS = ["lru_0_single", "lru_1_mutex", "lru_2_sections", "lru_3_qsbr", "lru_4_objects"]
CAPACITY, KEYS, BATCHES, ROUNDS = 1024, 20000, 20, 11


def build_and_load(name: str, where: Path) -> ModuleType:
    target = where / (name + (sysconfig.get_config_var("EXT_SUFFIX") or ".so"))
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    command = [compiler, "-std=gnu11", "-shared", "-fPIC", "-O2", "-fvisibility=hidden", "-pthread"]
    command += [
        f"-I{sysconfig.get_path('include')}",
        f"-I{pyruntime.get_include()}",
        str(HERE / f"{name}.c"),
        "-o",
        str(target),
    ]
    subprocess.run(command, check=True)
    loader = importlib.machinery.ExtensionFileLoader(name, str(target))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def keys_for(seed: int) -> array[int]:
    random = Random(seed)
    return array("q", (random.randrange(CAPACITY) for _ in range(KEYS)))


def one_by_one(cache: Any, keys: array[int]) -> None:
    get, put = cache.get, cache.put
    for n, key in enumerate(keys):
        if n % 10 == 0:
            put(key, key)
        else:
            get(key)


WAYS: dict[str, Callable[[Any, array[int]], object]] = {
    "touch": lambda cache, keys: cache.touch(keys),
    "get_many": lambda cache, keys: cache.get_many(keys),
    "get and put": one_by_one,
}


def ns_a_key(cache: Any, way: Callable[[Any, array[int]], object], threads: int, keys: list[array[int]]) -> float:
    start = threading.Barrier(threads + 1)

    def work(mine: array[int]) -> None:
        start.wait()
        for _ in range(BATCHES):
            way(cache, mine)

    crowd = [threading.Thread(target=work, args=(keys[number],)) for number in range(threads)]
    for thread in crowd:
        thread.start()
    start.wait()
    begun = time.perf_counter_ns()
    for thread in crowd:
        thread.join()
    return (time.perf_counter_ns() - begun) / (threads * KEYS * BATCHES)


def measure() -> dict[tuple[str, str, int], float]:
    best: dict[tuple[str, str, int], float] = {}
    keys = [keys_for(1), keys_for(2)]
    with tempfile.TemporaryDirectory() as where:
        caches = {name: build_and_load(name, Path(where)).Cache(CAPACITY) for name in VERSIONS}
        for cache in caches.values():
            for key in range(CAPACITY):
                cache.put(key, key)
        for _ in range(ROUNDS):
            for way_name, way in WAYS.items():
                for threads in (1, 2):
                    for name, cache in caches.items():
                        found = ns_a_key(cache, way, threads, keys)
                        place = (name, way_name, threads)
                        best[place] = min(found, best.get(place, found))
    return best


def rows(best: dict[tuple[str, str, int], float]) -> dict[str, str]:
    """The line of each version in a table."""
    return {
        name: f"| `{name}` | {' | '.join(f'{best[name, way, threads]:.1f}' for way in WAYS for threads in (1, 2))} |"
        for name in VERSIONS
    }


def table(best: dict[tuple[str, str, int], float]) -> str:
    heads = [f"`{way}`, {threads} thread{'s' * (threads > 1)}" for way in WAYS for threads in (1, 2)]
    return "\n".join([f"| | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}", *rows(best).values()])


def taken_on() -> str:
    """The sentence of where and when."""
    found = machine.describe()
    return (
        f"Taken on {found['date']}: {found['cpu']}, {found['cores']} cores, {found['system']}, {found['implementation']} "
        f"{found['python']} {'with' if found['gil'] else 'without'} the GIL, at a load of {found['load']:.1f} when it began."
    )


def put_into(text: str, best: dict[tuple[str, str, int], float], sentence: str) -> str:
    """The tutorial with these figures in all of its tables."""
    for name, row in rows(best).items():
        text = re.sub(rf"^\| `{name}` \| \d.*$", row, text, flags=re.MULTILINE)
    return re.sub(r"^Taken on .*$", lambda _: sentence, text, flags=re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description="What each version of the cache costs, in ns a key.")
    parser.add_argument("--into", type=Path, metavar="FILE.md", help="put the figures into the tables of this file as well")
    options = parser.parse_args()
    sentence = taken_on()
    best = measure()
    print(f"{sentence}\n\n{table(best)}")
    if options.into is not None:
        options.into.write_text(put_into(options.into.read_text(), best, sentence))


if __name__ == "__main__":
    main()
