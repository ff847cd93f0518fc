"""The machinery of the benchmark suite: names, rounds, ratios, goals, the report, peers that are missing, and that every
loop runs. Never how fast anything is."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pyruntime import _text
from pyruntime.bench import (
    allocators,
    cli,
    machine,
    measure,
    memory_figures,
    native,
    own_process,
    page,
    peer_build,
    plot,
    progress,
    python_classes,
    suite,
    table,
    worker,
)
from pyruntime.bench.suite import OURS, SUITE, Bench, Figure, Goal, Kind

ROW_KEYS = {"bench", "impl", "threads", "ns_per_op", "rounds", "ratio_to", "peak_rss_kb"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache for all tests, so that peers are compiled once; never the user's."""
    base = tmp_path_factory.getbasetemp() / "bench-cache"
    base.mkdir(exist_ok=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(base))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that measure next to nothing."""
    monkeypatch.setattr(cli, "SAMPLE_NS", (1e3, 1e3))


def rounds_of(*ns: float, operations: int = 10, peak_bytes: int = -1) -> measure.Rounds:
    samples = [measure.Sample(each * operations, peak_bytes) for each in ns]
    return measure.Rounds(operations, samples, peak_rss_kb=7)


def order_of(bench: Bench, *impls: str, threads: int = 1, operations: int | None = 20) -> worker.Order:
    return worker.Order(bench.name, threads, impls, rounds=2, sample_ns=1e3, operations=operations)


# ---- names -----------------------------------------------------------------------------------------------------------


def names(*patterns: str) -> list[str]:
    return [bench.name for bench in suite.select_benches(patterns)]


def test_no_name_is_the_whole_suite() -> None:
    assert names() == [bench.name for bench in SUITE]


def test_a_name_may_be_exact_a_group_or_a_glob() -> None:
    assert names("qsbr.poll") == ["qsbr.poll"]
    assert names("retire") == [bench.name for bench in SUITE if bench.name.startswith("retire.")]
    assert names("qsbr.syn*") == ["qsbr.synchronize", "qsbr.synchronize_reader"]


def test_the_order_is_that_of_the_suite_and_nothing_comes_twice() -> None:
    assert names("retire.dispatch", "qsbr.poll", "qsbr.p*") == ["qsbr.poll", "retire.dispatch"]


@pytest.mark.parametrize("unknown", ["qsbr.quiescnt", "zzz", "qsbr.z*"])
def test_an_unknown_name_is_refused_with_what_is_near(unknown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([unknown]) == 2
    error = capsys.readouterr().err
    assert f"unknown benchmark '{unknown}'" in error
    assert ("did you mean qsbr.quiescent" in error) == (unknown == "qsbr.quiescnt")


def test_peers_are_chosen_by_name_and_glob() -> None:
    assert suite.select_peers("none") == set()
    assert suite.select_peers("liburcu-qsbr, ck-e*") == {"liburcu-qsbr", "ck-epoch"}
    assert suite.select_peers("all") >= {"liburcu-qsbr", "liburcu-memb", "ck-epoch", "batched-free"}
    with pytest.raises(suite.UnknownName, match="unknown peer 'ck-epok'; did you mean ck-epoch"):
        suite.select_peers("ck-epok")


def test_names_in_the_suite_are_unique_and_peers_known() -> None:
    assert len({bench.name for bench in SUITE}) == len(SUITE)
    for bench in SUITE:
        assert len(set(bench.impls)) == len(bench.impls)
        assert all(goal.peer is None or goal.peer in bench.peers for goal in bench.goals)


@pytest.mark.parametrize(
    "arguments", [["--threads", "0"], ["--threads", "1,x"], ["--threads", "9999"], ["--json", "/nowhere/at/all.json"]]
)
def test_a_wrong_command_line_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    assert "error:" in capsys.readouterr().err


def test_list_names_every_benchmark_and_measures_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(cli, "_run_worker")
    assert cli.main(["--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert listed == [bench.name for bench in SUITE]


def test_the_command_is_there() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyruntime", "bench", "--list", "qsbr"], capture_output=True, text=True, check=True
    )
    assert "qsbr.attach_detach" in done.stdout
    assert "retire.dispatch" not in done.stdout


# ---- rounds and ratios -----------------------------------------------------------------------------------------------


def test_ratio_of_the_best_and_median_of_the_pairs() -> None:
    ratio = measure.ratio([10.0, 40.0, 30.0], [20.0, 20.0, 60.0])
    assert ratio == {"best": 0.5, "median": 0.5}
    assert measure.ratio([1.0, 4.0, 9.0], [1.0, 2.0, 3.0]) == {"best": 1.0, "median": 2.0}


def test_ratio_needs_a_partner_for_every_round() -> None:
    with pytest.raises(ValueError, match="argument 2"):
        measure.ratio([1.0, 2.0], [1.0])


def test_spread() -> None:
    assert measure.spread([3.0, 1.0, 8.0, 2.0]) == {"min": 1.0, "median": 2.5, "max": 8.0}


def test_rounds_run_everybody_in_turn_and_change_who_is_first() -> None:
    ran: list[str] = []

    def sampler(name: str) -> measure.Sampler:
        def sample(operations: int) -> measure.Sample:
            ran.append(name)
            return measure.Sample(float(operations))

        return sample

    results = measure.run_rounds({name: sampler(name) for name in "abc"}, {"a": 1, "b": 2, "c": 3}, rounds=4)
    assert "".join(ran) == "abcbcacababc"
    assert all(len(rounds.samples) == 4 for rounds in results.values())
    assert results["b"].ns_per_op == [1.0] * 4


def test_calibration_fills_the_time_of_a_sample() -> None:
    assert measure.calibrate(lambda operations: measure.Sample(5.0 * operations), 1e6) == 200_000
    assert measure.calibrate(lambda operations: measure.Sample(1e9 * operations), 1e6) == 1


def test_calibration_is_not_fooled_by_one_long_wait() -> None:
    calls = 0

    def sample(operations: int) -> measure.Sample:
        nonlocal calls
        calls += 1
        return measure.Sample(1e7 if calls == 2 else 5.0 * operations)

    assert measure.calibrate(sample, 1e6) == 200_000


def test_memory_is_measured_with_what_the_others_left_given_back() -> None:
    steps: list[str] = []

    def sampler(name: str) -> Callable[[int], measure.Sample]:
        def sample(_: int) -> measure.Sample:
            steps.append(name)
            return measure.Sample(1.0)

        return sample

    samplers = {name: sampler(name) for name in "ab"}
    own_process = measure.Rounds(5, [measure.Sample(1.0, peak_rss_kb=kb) for kb in (3, 9, 4)])
    results = {"a": rounds_of(1.0), "b": rounds_of(1.0), "c": own_process}
    measure.measure_memory(samplers, results, lambda: steps.append("give back"))
    assert steps == ["give back", "a", "give back", "b"]
    assert results["a"].peak_rss_kb > 1000
    assert results["c"].peak_rss_kb == 9


def test_peak_rss_is_of_the_time_since_the_reset() -> None:
    block = bytearray(b"x") * (64 << 20)
    with_block = measure.peak_rss_kb()
    del block
    if not measure.reset_peak_rss():
        pytest.skip("this kernel does not reset the peak")
    assert measure.peak_rss_kb() < with_block - (32 << 10)


# ---- results and goals -----------------------------------------------------------------------------------------------

MADE_UP = Bench(
    "made.up",
    "nothing",
    peers=("liburcu-qsbr", "ck-epoch"),
    goals=(
        Goal(Figure.RATIO, 0.5, "liburcu-qsbr"),
        Goal(Figure.RATIO, 0.5, "ck-epoch"),
        Goal(Figure.TIME, 9.0),
        Goal(Figure.PEAK_BYTES, 1000),
    ),
)


def made_up_results() -> list[dict[str, object]]:
    order = order_of(MADE_UP, OURS, "liburcu-qsbr", "ck-epoch")
    done = {OURS: rounds_of(10.0, 12.0, peak_bytes=900), "liburcu-qsbr": rounds_of(20.0, 48.0)}
    return worker.results_of(MADE_UP, order, done)


def test_results_have_the_form_of_the_file() -> None:
    ours, theirs = made_up_results()
    assert set(ours) >= ROW_KEYS
    assert set(theirs) >= ROW_KEYS
    assert ours["ns_per_op"] == {"min": 10.0, "median": 11.0, "max": 12.0}
    assert ours["rounds"] == [10.0, 12.0]
    assert ours["ratio_to"] == {"liburcu-qsbr": {"best": 0.5, "median": 0.375}}
    assert ours["peak_rss_kb"] == 7
    assert theirs["ratio_to"] == {}
    assert json.loads(json.dumps(ours)) == ours


def test_goals_are_held_against_the_best_and_left_out_without_their_peer() -> None:
    ours, theirs = made_up_results()
    goals = ours["goals"]
    assert isinstance(goals, list)
    assert [(goal["figure"], goal["peer"], goal["value"], goal["met"]) for goal in goals] == [
        ("ratio", "liburcu-qsbr", 0.5, True),
        ("time", None, 10.0, False),
        ("peak_bytes", None, 900, True),
    ]
    assert "goals" not in theirs


def test_a_peer_that_is_ours_has_goals_of_its_own() -> None:
    bench = Bench(
        "made.up",
        "nothing",
        peers=(suite.EMBEDDED,),
        goals=(
            Goal(Figure.TIME_OF_PEER, 1.0, suite.EMBEDDED),
            Goal(Figure.PEER_OVER_OURS, 2.0, suite.EMBEDDED),
            Goal(Figure.PEER_TO_OURS, 1.1, suite.EMBEDDED),
        ),
    )
    done = {OURS: rounds_of(4.0, 9.0), suite.EMBEDDED: rounds_of(5.0, 5.0)}
    ours, theirs = worker.results_of(bench, order_of(bench, *done), done)
    assert [(goal["value"], goal["met"]) for goal in ours["goals"]] == [(5.0, False), (1.0, True), (1.25, False)]
    _, line = table.Table([bench]).rows(bench, 1, [ours, theirs], {})
    assert line.endswith("  <= 1.00 ns MISSED; <= +2.00 ns met; it/ours <= 1.10x MISSED")
    assert [table.missed_text("made.up", goal) for goal in ours["goals"] if not goal["met"]] == [
        "made.up, pyruntime-embedded: 5.00 ns, wanted 1.00 ns or less",
        "made.up, pyruntime-embedded over ours: 1.250x, wanted 1.100x or less",
    ]
    (alone,) = worker.results_of(bench, order_of(bench, OURS), {OURS: done[OURS]})
    assert "goals" not in alone


def test_goals_are_for_one_thread() -> None:
    results = worker.results_of(MADE_UP, order_of(MADE_UP, OURS, threads=2), {OURS: rounds_of(1.0)})
    assert "goals" not in results[0]


def test_goals_are_for_the_numbers_of_threads_that_the_benchmark_is_about() -> None:
    bench = Bench("made.up", "nothing", goals=(Goal(Figure.TIME, 9.0),), threads=(1, 2))
    judged = {
        threads: "goals" in worker.results_of(bench, order_of(bench, OURS, threads=threads), {OURS: rounds_of(1.0)})[0]
        for threads in (1, 2, 4)
    }
    assert judged == {1: True, 2: True, 4: False}


def test_single_times_are_reported_and_half_of_them_may_be_the_goal() -> None:
    bench = Bench("made.up", "nothing", goals=(Goal(Figure.P50, 30.0),))
    singles = [measure.SingleTimes(p50=each, p99=2 * each, max=3 * each) for each in (10.0, 20.0, 60.0)]
    done = {OURS: measure.Rounds(1, [measure.Sample(25.0, singles=each) for each in singles])}
    (row,) = worker.results_of(bench, order_of(bench, OURS), done)
    assert row["figures"]["p50_ns"] == {"min": 10.0, "median": 20.0, "max": 60.0}
    assert row["goals"] == [{"figure": "p50_ns", "peer": None, "limit": 30.0, "value": 20.0, "met": True}]
    (line,) = table.Table([bench]).rows(bench, 1, [row], {})
    assert "p50 20.0 ns, p99 40.0 ns, longest 180 ns; p50 <= 30.0 ns met" in line


def test_shares_are_reported_and_have_a_floor() -> None:
    bench = Bench("made.up", "nothing", goals=(Goal(Figure.LEAST_SHARE, 0.4),), threads=(2,))
    shares = [measure.Shares(least, 1 - least) for least in (0.3, 0.45, 0.5)]
    done = {OURS: measure.Rounds(1, [measure.Sample(25.0, shares=each) for each in shares])}
    (row,) = worker.results_of(bench, order_of(bench, OURS, threads=2), done)
    assert row["goals"] == [{"figure": "least_share", "peer": None, "limit": 0.4, "value": 0.45, "met": True}]
    (line,) = table.Table([bench]).rows(bench, 2, [row], {})
    assert "45% to 55% each (30% to 70%); each >= 40% met" in line


def test_scaling_is_held_against_the_control_of_the_same_rounds() -> None:
    goal = Goal(Figure.SCALING, 0.9)
    bench = Bench(
        "made.up",
        "nothing",
        kind=Kind.SCALING,
        peers=(suite.ONE_THREAD, suite.CONTROL_TWO, suite.CONTROL_ONE),
        goals=(goal,),
    )
    times = {suite.TWO_THREADS: 16.0, suite.ONE_THREAD: 10.0, suite.CONTROL_TWO: 5.0, suite.CONTROL_ONE: 4.0}
    done = {impl: rounds_of(ns) for impl, ns in times.items()}
    two, one, *_ = worker.results_of(bench, order_of(bench, *bench.impls), done)
    assert (two["threads"], one["threads"]) == (2, 1)
    assert two["figures"]["cores"]["median"] == 1.25
    assert two["figures"]["scaling"]["median"] == pytest.approx(1.25 / 1.6)
    assert [made["met"] for made in two["goals"]] == [False]
    line, *_ = table.Table([bench]).rows(bench, 1, [two], {})
    assert "1.25 cores, 0.78 of the control's; >= 0.90 MISSED" in line


def test_a_ratio_may_be_held_against_the_median_round() -> None:
    bench = Bench("made.up", "nothing", peers=("ck-epoch",), goals=(Goal(Figure.RATIO_MEDIAN, 1.0, "ck-epoch"),))
    done = {OURS: rounds_of(10.0, 30.0, 40.0), "ck-epoch": rounds_of(20.0, 20.0, 20.0)}
    ours, theirs = worker.results_of(bench, order_of(bench, OURS, "ck-epoch"), done)
    assert [(goal["value"], goal["met"]) for goal in ours["goals"]] == [(1.5, False)]
    _, line = table.Table([bench]).rows(bench, 1, [ours, theirs], {})
    assert "median <= 1.00x MISSED" in line


def test_what_is_over_a_bare_peer_is_divided_among_its_causes() -> None:
    bench = Bench("made.up", "nothing", peers=("bare",), bare="bare", bare_units=10)
    done = {OURS: rounds_of(120.0, 140.0, 130.0), "bare": rounds_of(20.0, 20.0, 30.0)}
    ours, bare = worker.results_of(bench, order_of(bench, OURS, "bare"), done)
    assert ours["figures"]["over_bare"] == {"min": 10.0, "median": 10.0, "max": 12.0, "best": 10.0}
    assert "figures" not in bare


def test_the_control_says_how_many_cores_there_are() -> None:
    control = next(bench for bench in SUITE if bench.kind is Kind.CORES)
    order = order_of(control, suite.TWO_THREADS, suite.ONE_THREAD)
    done = {suite.TWO_THREADS: rounds_of(2.0, 4.0, 2.5), suite.ONE_THREAD: rounds_of(2.0, 2.0, 2.0)}
    two, one = worker.results_of(control, order, done)
    assert (two["threads"], one["threads"]) == (2, 1)
    assert two["figures"] == {"cores": {"min": 1.0, "median": 1.6, "max": 2.0}}


def test_the_import_is_reported_over_the_bare_interpreter() -> None:
    bench = next(bench for bench in SUITE if bench.kind is Kind.IMPORT)
    done = {OURS: rounds_of(22e6, 25e6, operations=1), suite.BARE: rounds_of(20e6, 20e6, operations=1)}
    ours, _ = worker.results_of(bench, order_of(bench, OURS, suite.BARE), done)
    assert ours["figures"]["over_bare"] == {"min": 2e6, "median": 3.5e6, "max": 5e6, "best": 2e6}
    assert ours["goals"][0]["met"]


# ---- the report ------------------------------------------------------------------------------------------------------


def test_numbers_have_three_digits_and_the_unit_that_fits() -> None:
    assert [_text.time_text(ns) for ns in (0.614, 12.34, 345.6, 1234.0, 20.2e6, 3e9, -2.5e6)] == [
        "0.61 ns",
        "12.3 ns",
        "346 ns",
        "1.23 us",
        "20.2 ms",
        "3.00 s",
        "-2.50 ms",
    ]
    assert [_text.bytes_text(count) for count in (0, 100, 69056, 1 << 20)] == ["0 B", "100 B", "67.4 KiB", "1.00 MiB"]


def test_rows_put_ratios_and_goals_where_they_belong_and_name_who_is_missing() -> None:
    layout = table.Table([MADE_UP])
    ours, urcu, ck = layout.rows(MADE_UP, 1, made_up_results(), {"ck-epoch": "missing"})
    assert ours.split() == ["made.up", "1", "pyruntime", "10.0", "ns", "11.0", "ns", *ours.split()[7:]]
    assert "peak 900 B" in ours
    assert "<= 9.00 ns MISSED" in ours
    assert urcu.split() == ["liburcu-qsbr", "20.0", "ns", "34.0", "ns", "0.50x", "0.38x", "<=", "0.50x", "met"]
    assert ck.split() == ["ck-epoch", "missing"]
    assert ours.index("10.0 ns") == urcu.index("20.0 ns")
    heading = layout.header()[0]
    assert heading.index("best") + len("best") == ours.index("10.0 ns") + len("10.0 ns")


def test_a_missed_goal_says_what_was_wanted() -> None:
    ours = made_up_results()[0]
    goals = ours["goals"]
    assert isinstance(goals, list)
    assert [table.missed_text("made.up", goal) for goal in goals if not goal["met"]] == [
        "made.up: 10.0 ns, wanted 9.00 ns or less"
    ]
    ratio = {"figure": "ratio", "peer": "liburcu-qsbr", "limit": 0.25, "value": 0.254, "met": False}
    assert table.missed_text("made.up", ratio) == "made.up, over liburcu-qsbr: 0.254x, wanted 0.250x or less"
    peak = {"figure": "peak_bytes", "peer": None, "limit": 1 << 20, "value": 3 << 20, "met": False}
    assert table.missed_text("made.up", peak) == "made.up, peak: 3.00 MiB, wanted 1.00 MiB or less"
    over = {"figure": "over_bare", "peer": None, "limit": 5.0, "value": 7.25, "met": False}
    assert table.missed_text("made.up", over) == "made.up, over bare: +7.25 ns, wanted +5.00 ns or less"


@pytest.mark.parametrize("name", ["qsbr.quiescent", "qsbr", "qsbr.q*"])
def test_a_benchmark_in_the_place_of_the_file_is_told(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["--json", name]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"--json takes a FILE, and '{name}' is the name of benchmarks: write --json FILE {name}" in said
    assert list(tmp_path.iterdir()) == []


def test_the_machine_is_described() -> None:
    described = machine.describe()
    assert described["cores"] == len(machine.cpu_order())
    assert described["python"] == sys.version.split()[0]
    assert json.loads(json.dumps(described)) == described


def test_a_busy_machine_is_warned_about() -> None:
    assert machine.warnings({"load": 3.0, "cores": 2}) != []
    assert machine.warnings({"load": 0.1, "cores": 2}) == []


# ---- peers -----------------------------------------------------------------------------------------------------------

needs_compiler = pytest.mark.skipif(peer_build.find_compiler() is None, reason="there is no C compiler")

TOY = """
#define _GNU_SOURCE
#include "toy.h"
#include "harness.h"
static void loop(bench_thread *self) { for (uint64_t i = 0; i < self->iterations; i++) { bench_work(); } }
static int refuse(bench_thread *self) { (void)self; return EOVERFLOW; }
static const bench_body good = {.loop = loop, .companion = loop, .companions = 1};
static const bench_body bad = {.enter = refuse, .loop = loop};
static const pyrt_bench_loop loops[] = {
    {.bench = "toy.good", .impl = TOY_NAME, .run = bench_run, .body = &good},
    {.bench = "toy.bad", .impl = TOY_NAME, .run = bench_run, .body = &bad},
};
__attribute__((visibility("default"))) const pyrt_bench_loop *
pyrt_bench_peer(size_t *count) { *count = 2; return loops; }
"""


@pytest.fixture
def toy(tmp_path: Path) -> peer_build.Peer:
    (tmp_path / "toy.h").write_text('#define TOY_NAME "toy"\n')
    (tmp_path / "toy.c").write_text(TOY)
    return peer_build.Peer("toy", ("toy",), str(tmp_path / "toy.c"), "toy.h", "no-such-package", ("-lm",), "nothing")


@needs_compiler
def test_a_peer_is_compiled_once_and_again_when_a_header_changes(toy: peer_build.Peer, tmp_path: Path) -> None:
    first = peer_build.build(toy, tmp_path)
    assert first.state is peer_build.State.READY
    made_at = Path(first.path).stat().st_mtime_ns
    again = peer_build.build(toy, tmp_path)
    assert again == first
    assert Path(again.path).stat().st_mtime_ns == made_at

    (tmp_path / "toy.h").write_text('#define TOY_NAME "another"\n')
    changed = peer_build.build(toy, tmp_path)
    assert changed.state is peer_build.State.READY
    assert changed.path != first.path
    assert list(tmp_path.glob("*.tmp")) == []


@needs_compiler
def test_the_loops_of_a_library_run_and_their_errors_are_told(toy: peer_build.Peer, tmp_path: Path) -> None:
    loops = native.of_library(peer_build.build(toy, tmp_path).path)
    with loops["toy.good", "toy"].sampler(threads=3) as sample:
        assert sample(1000).ns > 0
    with loops["toy.good", "toy"].sampler(threads=2, cpus=machine.cpu_order()) as sample:
        assert sample(1000).ns > 0
    with (
        loops["toy.bad", "toy"].sampler(threads=2) as sample,
        pytest.raises(native.LoopError, match=r"toy\.bad of toy: "),
    ):
        sample(1000)
    with loops["toy.good", "toy"].sampler(threads=0) as sample, pytest.raises(native.LoopError, match="Invalid argument"):
        sample(1000)


def test_a_library_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "broken.so"
    broken.write_text("not a library")
    loops, errors = native.of_libraries({"broken": str(broken)})
    assert loops == {}
    assert "broken.so" in errors["broken"]


@needs_compiler
@pytest.mark.parametrize("peer", [peer for peer in peer_build.PEERS if peer.package], ids=lambda peer: peer.name)
def test_a_peer_without_headers_is_missing(peer: peer_build.Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", f"{shutil.which('cc') or shutil.which('gcc')} -nostdinc")
    monkeypatch.setenv("PKG_CONFIG_LIBDIR", str(tmp_path))
    built = peer_build.build(peer, tmp_path)
    assert built.state is peer_build.State.MISSING
    assert peer.install in built.reason


@pytest.mark.parametrize("package", peer_build.PACKAGES, ids=lambda package: package.name)
def test_smoke_of_the_packages(package: peer_build.Package, tmp_path: Path) -> None:
    built = peer_build.find(package)
    if built.state is peer_build.State.MISSING:
        pytest.skip(built.reason)
    for bench in SUITE:
        for impl in set(bench.peers) & set(package.impls):
            answer = cli._run_worker(order_of(bench, OURS, impl), tmp_path)
            measured = {row["impl"] for row in answer["results"]}
            # Not every release has every class.
            if impl in answer["failed"]:
                assert " has no " in answer["failed"].pop(impl)
                measured.add(impl)
            assert answer["failed"] == {}
            assert measured == {OURS, impl}


def test_a_package_that_is_missing_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tiny: None, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = peer_build.Package("cereggii", ("cereggii",), "no_module_of_that_name")
    monkeypatch.setattr(peer_build, "PACKAGES", (absent,))
    assert cli.main(["lock.event_wait", "--quick"]) == 0
    shown = capsys.readouterr().out
    assert any(line.split()[:2] == ["cereggii", "missing"] for line in shown.splitlines())
    assert "peer cereggii missing: not installed; pip install cereggii" in shown


def test_a_package_that_cannot_be_imported_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cereggii", None)
    made, failed = python_classes.samplers("lock.event_wait", [OURS, "cereggii"])
    assert list(made) == [OURS]
    assert "cereggii" in failed["cereggii"]


def test_a_release_of_a_package_without_the_class_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cereggii", ModuleType("cereggii"))
    for bench, name in (("lock.with_read", "ReadersWriterLock"), ("lock.event_wait", "AtomicEvent")):
        made, failed = python_classes.samplers(bench, [OURS, "cereggii"])
        assert list(made) == [OURS]
        assert failed["cereggii"] == f"the installed cereggii has no {name}"


@pytest.mark.parametrize("peer", peer_build.PEERS, ids=lambda peer: peer.name)
def test_without_its_compiler_a_peer_is_missing(
    peer: peer_build.Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable, language = ("CXX", "C++") if peer.is_cpp else ("CC", "C")
    monkeypatch.setenv(variable, "/no/such/compiler -O2")
    built = peer_build.build(peer, tmp_path)
    assert built.state is peer_build.State.MISSING
    assert f"${variable} names is not there: /no/such/compiler" in built.reason

    monkeypatch.delenv(variable)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert f"no {language} compiler" in peer_build.build(peer, tmp_path).reason


@needs_compiler
def test_a_peer_that_does_not_compile_fails_with_what_the_compiler_said(
    toy: peer_build.Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: None
) -> None:
    Path(toy.source).write_text(TOY + "\n#error no luck today\n")
    built = peer_build.build(toy, tmp_path)
    assert built.state is peer_build.State.FAILED
    assert "no luck today" in built.details
    assert list(tmp_path.glob("*.tmp")) == []

    # In a run it is one row, and the rest goes on.
    failing = peer_build.Peer("ck", ("ck-epoch",), toy.source, toy.header, toy.package, toy.libraries, toy.install)
    monkeypatch.setattr(peer_build, "PEERS", (failing,))
    assert cli.main(["retire.dispatch", "--quick", "--verbose", "--peers", "ck-epoch"]) == 0
    shown = capsys.readouterr()
    assert "no luck today" in shown.err
    assert any(line.split()[:2] == ["ck-epoch", "failed"] for line in shown.out.splitlines())
    assert any(line.split()[1:3] == ["1", "pyruntime"] for line in shown.out.splitlines() if line.strip())


def test_a_cache_that_cannot_be_had_is_replaced_for_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(in_the_way))
    assert peer_build.writable_directory().is_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert peer_build.writable_directory() == tmp_path / "pyruntime" / "bench"


# ---- every benchmark runs --------------------------------------------------------------------------------------------


def built_in(bench: Bench) -> list[str]:
    of_others = {impl for peer in peer_build.PEERS for impl in peer.impls}
    of_others |= {impl for package in peer_build.PACKAGES for impl in package.impls}
    of_others |= {allocator.name for allocator in allocators.ALLOCATORS}
    return [impl for impl in bench.impls if impl not in of_others]


@pytest.mark.parametrize(
    ("bench", "threads"),
    [
        pytest.param(bench, n, id=f"{bench.name}-{n}")
        for bench in SUITE
        if bench.kind is not Kind.MEAN
        for n in ((1, 2) if bench.with_threads and bench.kind is not Kind.ALLOCATOR else bench.threads[:1])
    ],
)
def test_smoke(bench: Bench, threads: int, tmp_path: Path) -> None:
    impls = built_in(bench)
    operations = min(300, bench.operations[0]) if bench.operations else 300
    answer = cli._run_worker(order_of(bench, *impls, threads=threads, operations=operations), tmp_path)
    assert answer["failed"] == {}
    assert [row["impl"] for row in answer["results"]] == impls
    for row in answer["results"]:
        assert set(row) >= ROW_KEYS
        assert row["bench"] == bench.name
        assert len(row["rounds"]) == 2
        assert min(row["rounds"]) > 0
        assert row["peak_rss_kb"] > 0
        assert ("peak_bytes" in row.get("figures", {})) == (bench.name == "retire.pending_peak")


@needs_compiler
@pytest.mark.parametrize("peer", peer_build.PEERS, ids=lambda peer: peer.name)
def test_smoke_of_the_peers(peer: peer_build.Peer) -> None:
    directory = peer_build.writable_directory()
    built = peer_build.build(peer, directory)
    if built.state is peer_build.State.MISSING:
        pytest.skip(built.reason)
    assert built.state is peer_build.State.READY, built.details
    for bench in SUITE:
        for impl in set(bench.peers) & set(peer.impls):
            order = worker.Order(bench.name, 2, (impl,), 1, 1e3, operations=300, libraries={impl: built.path})
            answer = cli._run_worker(order, directory)
            assert answer["failed"] == {}
            assert [row["impl"] for row in answer["results"]] == [impl]


def test_the_suite_and_the_table_of_loops_agree() -> None:
    wanted = {(bench.name, impl) for bench in SUITE if bench.kind is Kind.LOOP for impl in built_in(bench)}
    wanted |= {(bench.name, way) for bench in SUITE if bench.kind is Kind.ALLOCATOR for way in (OURS, suite.MALLOC)}
    halves = {(bench.name, OURS) for bench in SUITE if bench.kind in (Kind.CORES, Kind.SCALING)}
    assert set(native.compiled_in()) == wanted | halves


# ---- allocators ------------------------------------------------------------------------------------------------------


def heap_rows(bench: Bench, **figures: tuple[float, int]) -> list[dict[str, Any]]:
    """Rows as a worker answers them; for each implementation its time and its memory."""
    done = {impl: rounds_of(ns, 2 * ns) for impl, (ns, _) in figures.items()}
    for impl, (_, kb) in figures.items():
        done[impl].peak_rss_kb = kb
    return worker.results_of(bench, order_of(bench, *(impl for impl in bench.impls if impl in figures)), done)


def test_an_allocator_is_held_against_the_faster_and_the_leaner_of_the_others() -> None:
    bench = next(bench for bench in SUITE if bench.name == "heap.churn")
    ours, mimalloc, _, glibc = heap_rows(
        bench, pyruntime=(12.0, 1200), mimalloc=(10.0, 2000), jemalloc=(20.0, 1000), glibc=(5.0, 500)
    )
    assert ours["figures"]["to_faster"] == {"peer": "mimalloc", "ratio": 1.2}
    assert ours["figures"]["to_leaner"] == {"peer": "jemalloc", "ratio": 1.2}
    assert [(goal["figure"], goal["limit"], goal["met"]) for goal in ours["goals"]] == [
        ("to_faster", 1.3, True),
        ("to_leaner", 1.4, True),
    ]
    assert set(mimalloc["figures"]) == {"resident"}
    assert glibc["figures"]["to_faster"]["ratio"] == 0.5
    line, *_ = table.Table([bench]).rows(bench, 1, [ours], {})
    assert "1.17 MiB, 1.20x the faster, mimalloc, 1.20x the leaner, jemalloc; time <= 1.30x met; memory <= 1.40x met" in line


def test_the_faster_of_the_others_is_so_by_the_median_of_the_rounds() -> None:
    """A round in which a neighbour was away for one of them only is no figure."""
    pair = next(bench for bench in SUITE if bench.name == "heap.pair_16")
    done = {
        OURS: rounds_of(10.0, 12.0, 14.0),
        "mimalloc": rounds_of(10.0, 10.0, 10.0),
        "jemalloc": rounds_of(1.0, 24.0, 28.0),
    }
    ours, *_ = worker.results_of(pair, order_of(pair, *done), done)
    assert ours["figures"]["to_faster"] == {"peer": "mimalloc", "ratio": 1.2}


def test_memory_is_compared_where_there_is_some_and_nothing_without_a_rival() -> None:
    small = next(bench for bench in SUITE if bench.name == "heap.pair_16")
    ours, _ = heap_rows(small, pyruntime=(12.0, 1200), jemalloc=(20.0, 1000))
    assert set(ours["figures"]) == {"resident", "to_faster"}
    ours, _ = heap_rows(small, pyruntime=(12.0, 1200), glibc=(20.0, 1000))
    assert set(ours["figures"]) == {"resident"}
    assert "goals" not in ours


def test_the_means_are_geometric_and_of_what_was_measured_everywhere() -> None:
    mean, churn, pair = (
        next(bench for bench in SUITE if bench.name == name) for name in ("heap.mean", "heap.churn", "heap.pair_16")
    )
    rows = heap_rows(churn, pyruntime=(4.0, 4000), mimalloc=(2.0, 1000), glibc=(8.0, 1))
    rows += heap_rows(pair, pyruntime=(1.0, 1), mimalloc=(8.0, 4))
    ours, theirs = memory_figures.mean_results(mean, rows)
    assert (ours["impl"], theirs["impl"]) == (OURS, "mimalloc")
    assert ours["ns_per_op"]["min"] == pytest.approx(2.0)
    assert ours["rounds"] == pytest.approx([2.0, 4.0])
    assert ours["ratio_to"]["mimalloc"]["best"] == pytest.approx(0.5)
    assert ours["figures"]["to_faster"]["ratio"] == pytest.approx(0.5)
    assert ours["figures"]["to_leaner"]["ratio"] == pytest.approx(4.0)
    assert [goal["met"] for goal in worker.goals_of(mean, ours)] == [True, False]
    assert memory_figures.mean_results(mean, [row for row in rows if row["impl"] != OURS]) == []


@pytest.mark.parametrize("allocator", allocators.ALLOCATORS, ids=lambda allocator: allocator.name)
def test_smoke_of_the_allocators(allocator: peer_build.Allocator, tmp_path: Path) -> None:
    built = allocators.find(allocator)
    if built.state is peer_build.State.MISSING:
        pytest.skip(built.reason)
    assert built.state is peer_build.State.READY, built.details
    for name, threads in (("heap.lifo_mixed_1000", 1), ("heap.producer_consumer", 2)):
        order = worker.Order(name, threads, (allocator.name,), 2, 1e3, 300, allocators={allocator.name: built.path})
        answer = cli._run_worker(order, tmp_path)
        assert answer["failed"] == {}
        assert [row["impl"] for row in answer["results"]] == [allocator.name]


def test_an_allocator_that_is_not_there_is_missing_and_one_that_cannot_be_preloaded_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    absent = peer_build.Allocator("no-such", "no_library_of_that_name", "nothing")
    assert allocators.find(absent).reason == "not installed; install nothing"
    order = worker.Order("heap.pair_16", 1, (OURS, "mimalloc"), 1, 1e3, 20, allocators={"mimalloc": "libno-such-malloc.so"})
    answer = cli._run_worker(order, tmp_path)
    assert [row["impl"] for row in answer["results"]] == [OURS]
    assert "libno-such-malloc.so could not be preloaded" in answer["failed"]["mimalloc"]


def test_our_allocator_is_no_part_of_an_installation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pyruntime.__file__", str(tmp_path / "pyruntime" / "__init__.py"))
    built = allocators.find(allocators.ALLOCATORS[0])
    assert built.state is peer_build.State.MISSING
    assert "not in a wheel" in built.reason


def test_a_process_that_dies_says_so() -> None:
    with (
        own_process.sampler("no.such", None, 1) as sample,
        pytest.raises(own_process.ProcessFailed, match="ended with status 1"),
    ):
        sample(1)


# ---- the picture and the bar -----------------------------------------------------------------------------------------


def test_ratios_are_those_of_the_rounds() -> None:
    order = order_of(MADE_UP, OURS, "ck-epoch")
    results = worker.results_of(MADE_UP, order, {OURS: rounds_of(1.0, 2.0, 6.0), "ck-epoch": rounds_of(1.0, 1.0, 2.0)})
    (line,) = plot.ratios(results)
    assert (line.bench, line.peer, line.median) == ("made.up", "ck-epoch", 2.0)
    assert 1.0 < line.low < 2.0 < line.high < 3.0
    assert plot.ratios(results[1:]) == []
    (alone,) = plot.ratios(worker.results_of(MADE_UP, order, {OURS: rounds_of(1.0), "ck-epoch": rounds_of(2.0)}))
    assert (alone.low, alone.median, alone.high) == (0.5, 0.5, 0.5)


def test_the_picture_has_a_row_for_each_figure_and_its_peers_in_it() -> None:
    bench = next(bench for bench in SUITE if bench.name == "heap.pair_16")
    peers = ("pyruntime-preloaded", "mimalloc", "jemalloc")
    done = {impl: rounds_of(number) for number, impl in enumerate((OURS, *peers), start=1)}
    results = []
    for threads in (1, 2):
        order = order_of(bench, *done)
        results += worker.results_of(bench, dataclasses.replace(order, threads=threads), done)
    one, two = plot.rows(results)
    assert (one.title, two.title) == ("heap.pair_16", "heap.pair_16, 2 threads")
    assert one.ours_ns == 1.0
    # Ourselves preloaded are no peer.
    assert [(line.peer, line.median) for line in one.lines] == [("mimalloc", 1 / 3), ("jemalloc", 1 / 4)]
    assert plot.rows([]) == []


def test_a_picture_needs_matplotlib_and_says_so_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delattr(cli, "_run_worker")
    assert cli.main(["qsbr.poll", "--plot", str(tmp_path / "run.svg")]) == 2
    # These tests are in a checkout: what is published may be another version.
    assert "--plot needs matplotlib: pip install -e '.[bench]'" in capsys.readouterr().err
    assert cli.main(["--plot", str(tmp_path / "run.svg"), "--from-json", str(tmp_path / "no.json")]) == 2
    assert f"cannot read {tmp_path / 'no.json'}: No such file or directory" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("allocator", [one for one in allocators.ALLOCATORS if one.library], ids=lambda one: one.name)
def test_an_allocator_is_asked_for_its_version(allocator: peer_build.Allocator) -> None:
    if allocators.find(allocator).state is not peer_build.State.READY:
        pytest.skip("it is not installed")
    assert re.fullmatch(r"\d+\.\d+\.\d+", peer_build.version_of(allocator))
    assert peer_build.version_of(dataclasses.replace(allocator, library="there-is-none")) == "unknown version"


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    file = tmp_path / "run.json"
    bench = next(bench for bench in SUITE if bench.name == "qsbr.quiescent")
    done = {OURS: rounds_of(10.0, 12.0), "liburcu-qsbr": rounds_of(20.0, 20.0)}
    results = worker.results_of(bench, order_of(bench, *done), done)
    run = {"schema": cli.SCHEMA, "machine": {**machine.describe(), "peers": {"liburcu": "0.14.0"}}, "results": results}
    file.write_text(json.dumps({**run, "length": "full run", "warnings": ["the machine was busy"]}))
    return file


def test_a_recorded_run_is_drawn_and_always_the_same(recorded: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pictures = [tmp_path / "one.svg", tmp_path / "two.svg"]
    for picture in pictures:
        assert cli.main(["--from-json", str(recorded), "--plot", str(picture)]) == 0
    text = pictures[0].read_text()
    assert text == pictures[1].read_text()
    assert "qsbr.quiescent" in text
    assert "liburcu-qsbr" in text
    assert "<dc:date>" not in text


def test_a_run_without_a_peer_has_no_picture(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main(["--from-json", str(recorded), "--plot", str(tmp_path / "none.svg"), "lock"]) == 1
    assert "nothing to draw" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read"),
        ("{", "is not JSON"),
        ('{"schema": 99}', "was not written by --json"),
        ("[]", "was not written"),
        (f'{{"schema": {cli.SCHEMA}}}', "was not written by --json of this version: KeyError('results')"),
        (f'{{"schema": {cli.SCHEMA}, "results": [1]}}', "was not written by --json of this version: TypeError"),
    ],
)
def test_a_file_that_is_no_recorded_run_is_refused(
    content: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plot, "check", lambda: None)
    file = tmp_path / "run.json"
    if content is not None:
        file.write_text(content)
    assert cli.main(["--from-json", str(file), "--plot", str(tmp_path / "run.svg"), "--page", str(tmp_path / "run.md")]) == 2
    assert said in capsys.readouterr().err


def test_a_recorded_run_makes_a_page(recorded: Path, tmp_path: Path) -> None:
    file = tmp_path / "results.md"
    assert cli.main(["--from-json", str(recorded), "--page", str(file)]) == 0
    text = file.read_text()
    assert "\n## qsbr\n\n### qsbr.quiescent\n\nA quiescent state with no new goal.\n" in text
    assert "\n```sh\npython -m pyruntime bench qsbr.quiescent\n```\n" in text
    assert "| 1 | pyruntime | 10.0 ns | 11.0 ns |  |  |  |\n|  | liburcu-qsbr | 20.0 ns | 20.0 ns | 0.50x | 0.55x |" in text
    assert "\n- peer liburcu 0.14.0\n- full run\n- warning: the machine was busy\n" in text


def test_a_page_tells_how_many_threads_were_asked_for(tmp_path: Path) -> None:
    bench = next(bench for bench in SUITE if bench.name == "qsbr.quiescent")
    done = {OURS: rounds_of(10.0)}
    results = [
        row
        for threads in (1, 2)
        for row in worker.results_of(bench, dataclasses.replace(order_of(bench, *done), threads=threads), done)
    ]
    text = page.text(results, {**machine.describe(), "peers": {}}, page.FULL_RUN, [])
    assert "python -m pyruntime bench qsbr.quiescent --threads 1,2\n" in text
    assert text.count("| pyruntime |") == 2
    assert text.count("### ") == 1


def test_a_page_has_all_of_the_suite_and_says_which_goals_were_missed() -> None:
    results: list[dict[str, Any]] = []
    for bench in SUITE:
        done = {impl: rounds_of(10.0, 30.0) for impl in bench.impls}
        order = dataclasses.replace(order_of(bench, *done), threads=bench.threads[0])
        made = worker.results_of(bench, order, done)
        results += memory_figures.mean_results(bench, results) if bench.kind is Kind.MEAN else made
    described = {**machine.describe(), "peers": {}}
    text = page.text(results, described, page.QUICK_RUN, [])
    assert re.findall("^### (.*)$", text, re.MULTILINE) == [bench.name for bench in SUITE]
    assert "\npython -m pyruntime bench heap --quick\n```\n" in text  # what heap.mean is the mean of
    assert f"- of {described['date']}, with a load of " in text
    goals = [goal for result in results for goal in result.get("goals", ())]
    met = sum(goal["met"] for goal in goals)
    assert f"\nGoals met: {met} of {len(goals)}; missed:\n\n- " in text
    verdicts = re.findall(r"[<>]= [^;|]* (met|MISSED)(?=[; ])", text)
    assert (verdicts.count("met"), verdicts.count("MISSED")) == (met, len(goals) - met)
    assert "Goals met: 0 of 0.\n" in page.text(results[:1], described, page.FULL_RUN, [])


def test_a_recorded_run_is_only_for_a_picture_or_a_page(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--from-json", str(recorded)]) == 2
    assert "needs --plot FILE.svg or --page FILE.md" in capsys.readouterr().err


def test_without_a_terminal_or_without_tqdm_rows_are_printed_plainly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    for is_terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda is_terminal=is_terminal: is_terminal)
        with contextlib.closing(progress.Progress(1)) as bar:
            bar.begin("a")
            bar.print("the row")
            bar.end()
        shown = capsys.readouterr()
        assert (shown.out, shown.err) == ("the row\n", "")


def test_on_a_terminal_a_bar_names_what_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with contextlib.closing(progress.Progress(2)) as bar:
        bar.begin("qsbr.poll")
        bar.print("the row")
        bar.end()
    shown = capsys.readouterr()
    assert shown.out == "the row\n"
    assert "0/2" in shown.err
    assert "qsbr.poll" in shown.err


# ---- a whole run -----------------------------------------------------------------------------------------------------


@pytest.fixture
def no_peers() -> list[str]:
    return ["--quick", "--peers", "none"]


def test_a_run_prints_a_table_and_writes_a_file(
    no_peers: list[str], tmp_path: Path, tiny: None, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results.json"
    assert cli.main(["control", "qsbr.poll", *no_peers, "--threads", "1,2", "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    written = json.loads(file.read_text())
    assert written["schema"] == cli.SCHEMA
    assert written["machine"]["cores"] >= 1
    assert [(row["bench"], row["impl"], row["threads"]) for row in written["results"]] == [
        ("control.cores", "two-threads", 2),
        ("control.cores", "one-thread", 1),
        ("qsbr.poll", OURS, 1),
        ("qsbr.poll", OURS, 2),
    ]
    assert all(set(row) >= ROW_KEYS for row in written["results"])
    assert [line.split()[0] for line in shown.splitlines() if line.startswith(("control", "qsbr"))] == [
        "control.cores",
        "qsbr.poll",
        "qsbr.poll",
    ]
    assert "quick run" in shown


def test_too_little_of_a_second_core_is_warned_about(
    no_peers: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def two_on_one_core(order: worker.Order, directory: Path) -> dict[str, object]:
        control = next(bench for bench in SUITE if bench.name == order.bench)
        done = {suite.TWO_THREADS: rounds_of(4.0), suite.ONE_THREAD: rounds_of(2.0)}
        return {"results": worker.results_of(control, order, done), "failed": {}}

    monkeypatch.setattr(cli, "_run_worker", two_on_one_core)
    assert cli.main(["control", *no_peers]) == 0
    assert "warning: two threads got 1.00 cores" in capsys.readouterr().out


def test_a_crash_of_one_benchmark_is_a_row_and_a_status(
    no_peers: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = tmp_path / "python"
    fake.write_text(textwrap.dedent("#!/bin/sh\necho the last words >&2\nkill -SEGV $$\n"))
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    assert cli.main(["qsbr.poll", "--verbose", *no_peers]) == 1
    shown = capsys.readouterr()
    assert "failed: its process ended with signal 11" in shown.out
    assert "the last words" in shown.err


def test_a_loop_that_fails_leaves_the_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: None, capsys: pytest.CaptureFixture[str]
) -> None:
    def not_a_library(peer: peer_build.Peer, directory: Path) -> peer_build.Built:
        broken = directory / "broken.so"
        broken.write_text("not a library")
        return peer_build.Built(peer, peer_build.State.READY, path=str(broken))

    monkeypatch.setattr(peer_build, "build", not_a_library)
    assert cli.main(["retire.dispatch", "--quick", "--peers", "ck-epoch"]) == 1
    shown = capsys.readouterr().out
    assert any(line.split()[:2] == ["ck-epoch", "failed"] for line in shown.splitlines())
    assert "failed: retire.dispatch, ck-epoch" in shown


def test_the_regions_for_cffi_hold_plain_declarations() -> None:
    header = (Path(peer_build.__file__).parent / "loops" / "bench_loop.h").read_text()
    regions = [part.partition("/* cdef: end */")[0] for part in header.split("/* cdef: begin */")[1:]]
    assert len(regions) == header.count("/* cdef: end */") > 0
    assert not any(line.lstrip().startswith("#") for region in regions for line in region.splitlines())
