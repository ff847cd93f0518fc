"""The core under a deterministic scheduler: the real sources on a simulated x86 with store buffers (tests/c/model).

Where it can be done in seconds, every schedule of a scenario is run; of the larger ones all without preemptions, and some
at random. Then each thing that keeps an order is taken away from the core: the failure must be found, and its schedule must
show it again.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from c_support import C_TESTS, CORE, HANG_GUARD, INCLUDE, ROOT, Ahead, need_compiler, on_all_cores

MODEL = C_TESTS / "model"
LITMUS = MODEL / "litmus.c"  # a program of its own
FLOORS = ("sync", "epoch", "state", "reclaim")  # the platform below them is simulated
# Blocks, pages, segments and pools, without the heaps above them; objects, without what makes them.
MEMORY = [CORE / "memory" / f"{name}.c" for name in ("address_map", "memory", "page", "part", "pool", "watched_page")]
# Not position-independent: the same addresses in every process, and so the same cells and slots, for the replays.
OBJECT = [CORE / "object" / f"{name}.c" for name in ("death", "merge_queue", "merge_stage", "refcount", "special")]
FLAGS = ["-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-fno-pie", "-no-pie"]
FLAGS += [f"-I{directory}" for directory in (INCLUDE, CORE.parent, CORE, MODEL)]
SEED = 1

# What may come out of small programs on x86, a digit for each load.
OUTCOMES = {
    "sb": {"0", "1", "10", "11"},  # both may miss the other's store: the buffers show
    "sb-locked": {"1", "10", "11"},
    "sb-membarrier": {"1", "10", "11"},
    "mp": {"0", "1", "11"},  # never 10, the flag without the message
    "forwarding": {"1010", "1011", "1110", "1111"},  # 1010: each saw its own store before the other's
    "iriw": {f"{n:b}" for n in range(16)} - {"1010"},  # two readers never see two stores in different orders
    "plain": {"0", "1", "2", "12"},  # never 10 or 11, the flag without the plain store before it
    "lock": {"3"},
    "futex": {"1", "2"},
}

# Every schedule is run.
WHOLE = [
    "poll",
    "poll-elsewhere",
    "synchronize",
    "synchronize-both",
    "safepoint",
    "orphans",
    "stateless",
    "global",
    "borrow",
    "pause-attach",
    "pause-safepoint",
    "pause-all",
    "pause-gate",
    "pause-attached",
    "pause-birth",
    "pause-again",
    "mutex",
    "mutex-try",
    "mutex-reserved",
    "mutex-pause",
    "mutex-pause-reserved",
    "section-cross",
    "section-pause",
    "rwlock",
    "rwlock-word",
    "heap-collect",
    "heap-take-over",
    "heap-heirs",
    "heap-free-take",
    "heap-sweep",
    "heap-sweep-heir",
    "heap-end",
    "heap-goal",
    "heap-goal-again",
    "heap-goal-sweep",
    "object-drop",
    "object-plain",
    "object-mixed",
    "object-below",
    "object-unstable",
    "object-name",
    "object-detached",
    "object-ending",
    "object-outside",
    "object-immortal",
    "object-try",
    "object-slot",
]
# Every one with at most one preemption.
MEDIUM = ["mutex-owned", "mutex-three", "mutex-reserved-two", "mutex-requester", "object-counted"]
# Every schedule would take a minute or hours: every one without a preemption.
LARGE = ["borrow-two", "barriers", "birth", "rwlock-try", "rwlock-readers"]
# That would take too long too: at random only.
LARGER = ["retire-both", "pause", "rwlock-writers"]
RANDOM_RUNS = 5000

# What is taken away, and the scenarios in which that must be noticed.
BREAKS = {
    # the locked instruction of attach
    "attach": [
        "poll",
        "poll-elsewhere",
        "synchronize",
        "safepoint",
        "orphans",
        "global",
        "borrow",
        "pause-attach",
        "pause-gate",
        "heap-goal",
        "heap-goal-again",
        "heap-goal-sweep",
        "object-detached",
    ],
    # the read-modify-write that every scan stands on
    "advance": ["poll", "synchronize", "heap-goal", "heap-goal-again"],
    # the compare-and-swap of pauses and borrowers, against that of attach
    "suspend": ["borrow", "pause-attach", "pause-gate", "pause-birth"],
    # the heavy half of the light barriers of detach, of unlock, and of the readers of a lock
    "membarrier": [
        "synchronize",
        "synchronize-both",
        "borrow",
        "pause-attach",
        "pause-safepoint",
        "pause-gate",
        "mutex",
        "mutex-owned",
        "mutex-three",
        "mutex-pause-reserved",
        "section-cross",
        "rwlock",
        "rwlock-try",
        "rwlock-readers",
    ],
    # the look at the word before falling asleep
    "futex": [
        "synchronize",
        "borrow",
        "pause-attach",
        "pause-safepoint",
        "pause-gate",
        "pause-birth",
        "mutex",
        "rwlock",
        "rwlock-word",
    ],
    # the time for a turn
    "turn": ["pause-again"],
    # the compare-and-swap that locks
    "lock": ["mutex", "mutex-owned", "mutex-three", "mutex-try"],
    # the one that makes use of a reservation, against the requester who takes it
    "claim": ["mutex-pause-reserved"],
    # the waiter's second look at the state
    "look": ["mutex", "mutex-owned", "mutex-three", "mutex-reserved"],
    # the unlocker's look at the cell
    "cell": ["mutex", "mutex-owned", "mutex-pause", "mutex-requester"],
    # that a stopped thread passes on what it was woken for
    "give-back": ["mutex-requester"],
    # the compare-and-swap of a foreign free, and the exchange of who collects
    "free": ["heap-collect", "heap-take-over", "heap-sweep", "heap-end"],
    "collect": ["heap-collect", "heap-take-over", "heap-sweep", "heap-end"],
    # the lock of the pool, and that a page which is empty again waits for the readers of then
    "pool": ["heap-heirs", "heap-sweep-heir"],
    "goal": ["heap-goal-again", "heap-goal-sweep"],
    # that who merges writes the owner's words before the shared one: for what is queued, and for the last local reference
    "merge": ["object-drop", "object-plain", "object-detached", "object-counted", "object-immortal"],
    # the compare-and-swap by which an owner takes its name off, against who queues the object
    "disown": ["object-name"],
    # the look of who has taken a count below 0, and that only threads do so for which the memory stays an object's
    "taken": ["object-mixed"],
    "stable": ["object-unstable"],
    # that an owner's last drop of an open object is one that others see
    "last": ["object-try"],
    # the second look into a slot
    "slot": ["object-slot"],
    # that critical sections are given up
    "sections": ["section-cross", "section-pause"],
}
BROKEN = [(broken, scenario) for broken, scenarios in BREAKS.items() for scenario in scenarios]


def gcc(*arguments: object) -> None:
    need_compiler("gcc")
    command = ["gcc", *FLAGS, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(done.stderr, pytrace=False)


def build(sources: list[Path], *defines: str, where: Path, link: tuple[str, ...] = ()) -> Path:
    def make(source: Path) -> Path:
        target = where / f"{source.parent.name}-{source.stem}.o"
        gcc(*defines, "-c", source, "-o", target)
        return target

    gcc(*on_all_cores(make, sources), *link, "-o", where / "program")
    return where / "program"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sources = [path for floor in FLOORS for path in sorted((CORE / floor).glob("*.c"))]
    sources += MEMORY + OBJECT
    sources += [path for path in sorted(MODEL.glob("*.c")) if path != LITMUS]
    substitutes = ['-DPYRT_ATOMIC_HEADER="model_atomic.h"', "-DPYRT_TLS_BLOCK=model_tls"]
    return build(sources, *substitutes, where=tmp_path_factory.mktemp("model"), link=("-Wl,--wrap=pyrt_mutex_give_back",))


def run(model: Path, *arguments: object) -> tuple[int, str]:
    command = [str(model), *map(str, arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HANG_GUARD)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.returncode, done.stdout


def outcomes_of(output: str) -> set[str]:
    found = re.search(r"^outcomes: (.*)$", output, re.MULTILINE)
    assert found is not None, output
    return set(found[1].split())


# ---- the machine and the search --------------------------------------------------------------------------------------


def test_every_scenario_is_in_one_of_the_lists(model: Path) -> None:
    listed = [line.split()[0] for line in run(model, "--list")[1].splitlines()]
    assert sorted(listed) == sorted([*OUTCOMES, *WHOLE, *MEDIUM, *LARGE, *LARGER, "program-2", "program-3"])


@pytest.mark.parametrize("scenario", OUTCOMES)
def test_the_machine_is_x86(model: Path, scenario: str) -> None:
    for how in (["--bound", "none"], ["--brute"], ["--seed", SEED, "--runs", 2000]):
        status, output = run(model, scenario, *how)
        assert status == 0, output
        assert outcomes_of(output) == OUTCOMES[scenario], how


@pytest.mark.parametrize("bound", ["none", "0", "1", "2"])
def test_the_reduction_loses_no_outcome(model: Path, bound: str) -> None:
    """Programs made up by number: what the search sees is what trying everything sees."""
    for scenario, programs in (("program-2", range(60)), ("program-3", (2, 9, 14, 15, 22, 38))):
        for program in programs:
            what = [scenario, "--program", program, "--bound", bound]
            whole = run(model, *what, "--brute")[1]
            assert outcomes_of(run(model, *what)[1]) == outcomes_of(whole), what


# ---- the core --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ahead(model: Path, request: pytest.FixtureRequest) -> Iterator[Ahead[tuple[int, str]]]:
    def whole(scenario: str, bound: str) -> tuple[int, str]:
        return run(model, scenario, "--bound", bound)

    def at_random(scenario: str) -> tuple[int, str]:
        return run(model, scenario, "--seed", SEED, "--runs", RANDOM_RUNS)

    work: dict[str, Callable[..., tuple[int, str]]] = {
        "test_every_schedule_holds": whole,
        "test_schedules_at_random_hold": at_random,
    }
    made = Ahead(request.session.items, request.module, work)
    yield made
    made.end()


BOUNDS = [(name, "none") for name in WHOLE] + [(name, "1") for name in MEDIUM] + [(name, "0") for name in LARGE]


@pytest.mark.parametrize(("scenario", "bound"), BOUNDS)
def test_every_schedule_holds(
    ahead: Ahead[tuple[int, str]], request: pytest.FixtureRequest, scenario: str, bound: str
) -> None:
    status, output = ahead.of(request.node)
    assert status == 0, output
    assert f", complete, bound {bound}," in output


@pytest.mark.parametrize("scenario", [*WHOLE, *MEDIUM, *LARGE, *LARGER])
def test_schedules_at_random_hold(ahead: Ahead[tuple[int, str]], request: pytest.FixtureRequest, scenario: str) -> None:
    status, output = ahead.of(request.node)
    assert status == 0, output
    assert f"{RANDOM_RUNS} schedules" in output


# ---- the core with something taken away ------------------------------------------------------------------------------


@pytest.mark.parametrize(("broken", "scenario"), BROKEN)
def test_what_is_taken_away_is_missed(model: Path, broken: str, scenario: str) -> None:
    status, output = run(model, scenario, "--break", broken)
    assert status == 1, f"nobody misses it: {output}"
    failure = output.splitlines()[0]
    assert failure.startswith(f"FAILED {scenario}: ")
    schedule = re.search(r"--replay (\S+)$", output, re.MULTILINE)
    assert schedule is not None, output
    status, again = run(model, scenario, "--break", broken, "--replay", schedule[1])
    assert status == 1, again
    assert failure in again.splitlines()


@pytest.mark.parametrize("broken", BREAKS)
def test_a_failure_at_random_comes_again_with_its_seed(model: Path, broken: str) -> None:
    scenario = BREAKS[broken][0]
    status, output = run(model, scenario, "--break", broken, "--seed", SEED, "--runs", 100000)
    assert status == 1, f"nobody misses it: {output}"
    seed = re.search(r"^seed (\d+)$", output, re.MULTILINE)
    assert seed is not None, output
    status, again = run(model, scenario, "--break", broken, "--seed", seed[1], "--runs", 1)
    assert status == 1, again
    assert again.splitlines()[0] == output.splitlines()[0]


# ---- the processor ---------------------------------------------------------------------------------------------------


def test_the_orders_hold_on_this_processor(tmp_path: Path) -> None:
    litmus = build([LITMUS, CORE / "platform" / "futex.c"], where=tmp_path)
    status, output = run(litmus)
    seen = {
        name: (kind, int(runs), int(shown)) for name, kind, runs, shown in (line.split() for line in output.splitlines())
    }
    assert status == 0, output
    for kind, runs, shown in seen.values():
        assert runs > 0
        assert kind == "allowed" or shown == 0, output
    if not all(shown for kind, _, shown in seen.values() if kind == "allowed"):
        pytest.skip("this machine did not run the two threads at the same moment, so it has shown nothing")
