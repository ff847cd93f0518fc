"""A loop in a process of its own that has been given an allocator: ``python -m pyruntime.bench.own_process``.

The process lives as long as its benchmark, and answers one number of operations after the other; so allocators take turns as
other implementations do, and none runs where another has left its mark. Each allocator has a few of them, which take turns,
too: now and then one is half as slow again as the others for all of its life, while they are as fast as ever in between. Of
its memory it tells by how much the peak stands above where it stood before the first operation: after the loop was set up,
which allocates and frees one block, and after as many threads had run as will run, which needed their stacks.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import machine, measure, native
from .suite import MALLOC, OURS

_WARM_UP = 1000  # operations of the control
_PROCESSES = 3


class ProcessFailed(RuntimeError):
    """It could not run the loop; the message says why."""


@contextlib.contextmanager
def sampler(bench: str, preload: str | None, threads: int) -> Iterator[measure.Sampler]:
    """Starts the processes, and ends them. `preload`: the library that gives them their malloc, "" for the C library's;
    None: our loop runs there, which calls pyrt_malloc."""
    with contextlib.ExitStack() as stack:
        samplers = [stack.enter_context(_one(bench, preload, threads)) for _ in range(_PROCESSES)]
        turns = itertools.cycle(samplers)
        yield lambda operations: next(turns)(operations)


@contextlib.contextmanager
def _one(bench: str, preload: str | None, threads: int) -> Iterator[measure.Sampler]:
    # A list of names for the loader cannot hold a blank: the process runs in the library's directory.
    directory, name = os.path.split(preload or "")
    library = f"./{name}" if directory else name
    preloaded = " ".join(filter(None, [library, os.environ.get("LD_PRELOAD", "")]))
    impl = OURS if preload is None else MALLOC
    with subprocess.Popen(
        [sys.executable, "-m", "pyruntime.bench.own_process", bench, str(threads), impl, *([name] if name else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=directory or None,
        env={**os.environ, "LD_PRELOAD": preloaded},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        to_process, from_process = process.stdin, process.stdout

        def sample(operations: int) -> measure.Sample:
            try:
                print(operations, file=to_process, flush=True)
                line = from_process.readline()
            except BrokenPipeError:
                line = ""
            if not line:
                raise ProcessFailed(f"its process ended with status {process.wait()}")
            answer = json.loads(line)
            if "error" in answer:
                raise ProcessFailed(answer["error"])
            return measure.Sample(answer["ns"], peak_rss_kb=answer["peak_rss_kb"])

        try:
            yield sample
        finally:
            process.kill()


def _check_preloaded(library: str) -> None:
    if library not in Path("/proc/self/maps").read_text():
        raise native.LoopError(f"{library} could not be preloaded")


def _serve(bench: str, threads: int, impl: str, libraries: Sequence[str]) -> None:
    for library in libraries:
        _check_preloaded(library)
    loops = native.compiled_in()
    cpus = machine.cpu_order()
    with loops["control.cores", OURS].sampler(threads, cpus) as control, loops[bench, impl].sampler(threads, cpus) as loop:
        control(_WARM_UP)
        measure.reset_peak_rss()
        before = measure.peak_rss_kb()
        for line in sys.stdin:
            ns = loop(int(line)).ns
            # At least 1: 0 would say that it was not measured here.
            answer = {"ns": ns, "peak_rss_kb": max(1, measure.peak_rss_kb() - before)}
            print(json.dumps(answer), flush=True)


def main(arguments: Sequence[str]) -> None:
    bench, threads, impl, *libraries = arguments
    try:
        _serve(bench, int(threads), impl, libraries)
    except native.LoopError as error:
        print(json.dumps({"error": str(error)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
