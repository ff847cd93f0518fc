"""The command ``python -m pyruntime bench``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyruntime

from . import allocators, machine, memory_figures, page, peer_build, plot
from .progress import Progress
from .suite import (
    Bench,
    Kind,
    UnknownName,
    select_benches,
    select_peers,
)
from .table import Table, footer, missed_text
from .worker import Order, goals_of

SCHEMA = 2
ENOUGH_CORES = 1.8
MAX_THREADS = 256
SAMPLE_NS = (3e6, 20e6)  # quick and full
WORKER_TIMEOUT = 600  # seconds; a guard against a loop that hangs

_EPILOG = """
Each benchmark runs in several rounds; in a round every implementation runs once, in turn. "best" and "median" are times of
one operation; "ours/it" is our time over that implementation's, of the best rounds, then the median of the ratios within
rounds: below 1 we are faster. With --threads N, N threads run the loop at once; the time is that of one operation in each.
"""


def _threads(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 1,2,4") from None
    if any(not 1 <= count <= MAX_THREADS for count in counts):
        raise argparse.ArgumentTypeError(f"numbers of threads go from 1 to {MAX_THREADS}")
    return list(dict.fromkeys(counts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pyruntime bench",
        description="Measures pyruntime next to the libraries one would otherwise take, on this machine.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="a benchmark, a group such as qsbr, or a glob; default: all"
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: a minute for everything")
    parser.add_argument(
        "--threads", type=_threads, metavar="1,2,4", help="numbers of threads; default: 1, or what a benchmark is about"
    )
    parser.add_argument(
        "--peers",
        nargs="?",
        const="all",
        default="all",
        metavar="LIST",
        help="whom to compare with: names and globs such as 'liburcu*,ck-epoch', or none; default: all that are installed",
    )
    parser.add_argument("--json", metavar="FILE", help="write the results there as well")
    parser.add_argument("--plot", metavar="FILE.svg", help=f"draw the ratios there; needs {plot.INSTALL}")
    parser.add_argument("--page", metavar="FILE.md", help="write a page of tables there, with the command of each")
    parser.add_argument(
        "--from-json", metavar="FILE", help="measure nothing: --plot or --page what an earlier run wrote with --json"
    )
    parser.add_argument("--list", action="store_true", help="say what there is, and measure nothing")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what compilers and failed benchmarks said")
    return parser


def _is_name(text: str) -> bool:
    try:
        return bool(select_benches([text]))
    except UnknownName:
        return False


def _print_list(benches: Sequence[Bench]) -> None:
    width = max(len(bench.name) for bench in benches)
    indent = " " * (width + 2)
    for bench in benches:
        print(f"{bench.name:<{width}}  {bench.measures}")
        if bench.peers:
            print(f"{indent}against {', '.join(bench.peers)}")


def _wanted_impls(bench: Bench, peers: set[str]) -> list[str]:
    needs_all = bench.kind in (Kind.CORES, Kind.SCALING)  # they are no peers, but two halves of a figure
    return [impl for impl in bench.impls if needs_all or impl == bench.ours or impl in peers]


def _build_peers(benches: Sequence[Bench], peers: set[str], directory: Path) -> dict[str, peer_build.Built]:
    """The peers that any of these benchmarks needs, by implementation."""
    needed = {impl for bench in benches for impl in _wanted_impls(bench, peers)}
    result = {}
    for peer in peer_build.PEERS:
        if needed & set(peer.impls):
            result.update(dict.fromkeys(peer.impls, peer_build.build(peer, directory)))
    for package in peer_build.PACKAGES:
        if needed & set(package.impls):
            result.update(dict.fromkeys(package.impls, peer_build.find(package)))
    for allocator in allocators.ALLOCATORS:
        if needed & set(allocator.impls):
            result.update(dict.fromkeys(allocator.impls, allocators.find(allocator)))
    return result


class WorkerFailed(RuntimeError):
    """A benchmark's process gave no answer; the second argument is what it wrote."""


def _environment(libraries: Sequence[str]) -> dict[str, str]:
    environment = dict(os.environ)
    package_parent = str(Path(pyruntime.__file__).resolve().parent.parent)
    python_path = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    environment["PYTHONPATH"] = os.pathsep.join([package_parent, *(os.path.abspath(entry) for entry in python_path)])
    if libraries:
        # Relative, because a list of names for the loader cannot hold a blank: the worker runs in their directory.
        preload = [*(f"./{Path(path).name}" for path in libraries), environment.get("LD_PRELOAD", "")]
        environment["LD_PRELOAD"] = " ".join(filter(None, preload))
    return environment


def _run_worker(order: Order, directory: Path) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pyruntime.bench.worker"],
            input=order.to_json(),
            capture_output=True,
            text=True,
            cwd=directory,
            env=_environment(list(order.libraries.values())),
            timeout=WORKER_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise WorkerFailed(f"no answer within {WORKER_TIMEOUT} s", str(error.stderr or "")) from error
    if done.returncode != 0:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        raise WorkerFailed(f"its process ended with {how}", done.stderr)
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


class _Run:
    """A run of the suite: what was asked for, and what has come of it so far."""

    def __init__(self, options: argparse.Namespace, benches: Sequence[Bench], peers: set[str]) -> None:
        self.options = options
        self.benches = benches
        self.peers = peers
        self.directory = peer_build.writable_directory()
        self.machine = machine.describe()
        self.warnings = machine.warnings(self.machine)
        self.built = _build_peers(benches, peers, self.directory)
        ready = {built.peer.name: built.peer for built in self.built.values() if built.state is peer_build.State.READY}
        self.machine["peers"] = {name: peer_build.version_of(peer) for name, peer in ready.items()}
        self.length = page.QUICK_RUN if options.quick else page.FULL_RUN
        self.results: list[dict[str, Any]] = []
        self.failures: list[str] = []

    def _order(self, bench: Bench, threads: int) -> Order:
        index = 0 if self.options.quick else 1
        impls = [
            impl
            for impl in _wanted_impls(bench, self.peers)
            if impl not in self.built or self.built[impl].state is peer_build.State.READY
        ]
        paths = {impl: self.built[impl].path for impl in impls if impl in self.built and self.built[impl].path}
        return Order(
            bench=bench.name,
            threads=threads,
            impls=tuple(impls),
            rounds=bench.rounds[index],
            sample_ns=(bench.sample_ns or SAMPLE_NS)[index],
            operations=bench.operations[index] if bench.operations else None,
            **{"allocators" if bench.kind is Kind.ALLOCATOR else "libraries": paths},
        )

    def _measure(self, bench: Bench, threads: int, table: Table, progress: Progress) -> None:
        absent = {
            impl: self.built[impl].state.value
            for impl in _wanted_impls(bench, self.peers)
            if impl in self.built and self.built[impl].state is not peer_build.State.READY
        }
        results: list[dict[str, Any]] = []
        try:
            answer = (
                self._mean(bench) if bench.kind is Kind.MEAN else _run_worker(self._order(bench, threads), self.directory)
            )
        except WorkerFailed as error:
            message, output = error.args
            self.failures.append(f"{bench.name}, {threads} threads: {message}")
            absent[bench.ours] = f"failed: {message}"
            if self.options.verbose:
                print(textwrap.indent(output, "    "), file=sys.stderr)
        else:
            results = answer["results"]
            for impl, message in answer["failed"].items():
                absent[impl] = "failed"
                self.failures.append(f"{bench.name}, {impl}: {message}")
        for line in table.rows(bench, threads, results, absent):
            progress.print(line)
        self.results += results
        self._judge(results)

    def _mean(self, bench: Bench) -> dict[str, Any]:
        results = memory_figures.mean_results(bench, self.results)
        for result in results:
            if result["impl"] == bench.ours:
                result["goals"] = goals_of(bench, result)
        return {"results": results, "failed": {}}

    def _judge(self, results: Sequence[Mapping[str, Any]]) -> None:
        for result in results:
            cores = result.get("figures", {}).get("cores")
            if cores is not None and "scaling" not in result["figures"] and cores["median"] < ENOUGH_CORES:
                self.warnings.append(
                    f"two threads got {cores['median']:.2f} cores here, less than {ENOUGH_CORES}: "
                    "figures with more than one thread say more about the machine than about the code"
                )

    def measure_all(self) -> None:
        table = Table(self.benches)
        print("\n".join(table.header()), flush=True)
        runs = [
            (bench, threads)
            for bench in self.benches
            for threads in (self.options.threads if bench.with_threads else None) or bench.threads
        ]
        with contextlib.closing(Progress(len(runs))) as progress:
            for bench, threads in runs:
                progress.begin(bench.name)
                self._measure(bench, threads, table, progress)
                progress.end()

    def print_footer(self) -> None:
        for built in {built.peer.name: built for built in self.built.values()}.values():
            if built.state is not peer_build.State.READY:
                self.warnings.append(f"peer {built.peer.name} {built.state.value}: {built.reason}")
        self.warnings += [f"failed: {failure}" for failure in self.failures]
        print("\n".join(footer(self.machine, self.length, self.warnings)))
        goals = [(result, goal) for result in self.results for goal in result.get("goals", ())]
        if goals:
            missed = [missed_text(result["bench"], goal) for result, goal in goals if not goal["met"]]
            print(f"goals met: {len(goals) - len(missed)} of {len(goals)}")
            if missed:
                print("missed (what pyruntime wants to reach; no error, and a busy machine misses more):")
                print("\n".join(f"  {line}" for line in missed))

    def as_json(self) -> dict[str, Any]:
        absent = {built.peer.name: built for built in self.built.values() if built.state is not peer_build.State.READY}
        return {
            "schema": SCHEMA,
            "machine": self.machine,
            "length": self.length,
            "results": self.results,
            "absent": {name: {"state": built.state.value, "reason": built.reason} for name, built in absent.items()},
            "failures": self.failures,
            "warnings": self.warnings,
        }


def _writable(parser: argparse.ArgumentParser, option: str, file: str | None) -> Path | None:
    """The file that an option names, which can be written to: better known now than when everything is measured."""
    if file is None:
        return None
    if _is_name(file):
        parser.error(
            f"{option} takes a FILE, and {file!r} is the name of benchmarks: "
            f"write {option} FILE {file}, or {option} ./{file} for a file of that name"
        )
    try:
        Path(file).open("a").close()
    except OSError as error:
        parser.error(f"cannot write {file}: {error.strerror}")
    return Path(file)


def _recorded(parser: argparse.ArgumentParser, file: str) -> dict[str, Any]:
    """What an earlier run wrote."""
    try:
        recorded = json.loads(Path(file).read_text())
    except OSError as error:
        parser.error(f"cannot read {file}: {error.strerror}")
    except ValueError as error:
        parser.error(f"{file} is not JSON: {error}")
    if not isinstance(recorded, dict) or recorded.get("schema") != SCHEMA:
        parser.error(f"{file} was not written by --json of this version")
    return recorded


def _show(run: Mapping[str, Any], picture: Path | None, text: Path | None) -> int:
    """The picture and the page of what --json writes, where they are wanted; the status."""
    if text is not None:
        text.write_text(page.text(run["results"], run["machine"], run["length"], run["warnings"]))
    if picture is not None:
        try:
            plot.draw(run["results"], run["machine"], picture)
        except plot.PlotError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. 0; 1 if a benchmark could not be run; 2 for a wrong command line. A missed goal is no error."""
    try:
        return _main(argv)
    except SystemExit as stop:  # argparse ends so, after --help as after an error
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _main(argv: Sequence[str] | None) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        benches = select_benches(options.names)
        peers = select_peers(options.peers)
    except UnknownName as error:
        parser.error(str(error))
    if options.list:
        _print_list(benches)
        return 0
    if options.from_json is not None and options.plot is None and options.page is None:
        parser.error("--from-json measures nothing, it needs --plot FILE.svg or --page FILE.md")
    recorded = None if options.from_json is None else _recorded(parser, options.from_json)
    if options.plot is not None:
        try:
            plot.check()
        except plot.PlotError as error:
            parser.error(str(error))
    json_file = _writable(parser, "--json", options.json)
    picture = _writable(parser, "--plot", options.plot)
    text = _writable(parser, "--page", options.page)
    if recorded is not None:
        names = {bench.name for bench in benches}
        try:
            results = [row for row in recorded["results"] if row["bench"] in names]
            return _show({**recorded, "results": results}, picture, text)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # It is somebody's file, and may lack anything.
            parser.error(f"{options.from_json} was not written by --json of this version: {error!r}")

    run = _Run(options, benches, peers)
    if options.verbose:
        for built in run.built.values():
            if built.details:
                print(f"peer {built.peer.name}:\n{textwrap.indent(built.details, '    ')}", file=sys.stderr)
    run.measure_all()
    run.print_footer()
    document = run.as_json()
    if json_file is not None:
        json_file.write_text(json.dumps(document, indent=1) + "\n")
    return _show(document, picture, text) or (1 if run.failures else 0)
