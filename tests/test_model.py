"""The core under the deterministic scheduler: the real sources on a simulated x86 with store buffers (tests/c/model).

Each scenario is run in every order up to a bound of preemptions, and in orders at random. Each order that matters is also
taken away from the core: the scheduler must find the failure, and show it again from its schedule.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("epoch", "state", "reclaim")  # the platform below them is simulated
HANG = 300

# Bounds at which the scenario is complete within a few seconds; where it is not, the number of orders that it stops at.
COMPLETE = [
    *[(name, 2) for name in ("sb", "sb-locked", "sb-membarrier", "mp", "forwarding", "iriw", "plain", "lock", "futex")],
    ("poll-elsewhere", 2),
    ("synchronize", 2),
    ("synchronize-both", 1),
    ("stateless", 1),
    ("borrow", 2),
    ("pause-attach", 2),
    ("pause-safepoint", 2),
    ("pause-all", 2),
    ("pause-gate", 1),
    ("pause-attached", 1),
    ("pause-birth", 1),
]
LONG = ["poll", "safepoint", "retire-both", "orphans", "borrow-two", "barriers", "birth", "pause"]
RUNS = 3000

# What is taken away, and where that must be noticed.
BREAKS = [
    ("attach", "poll"),  # the locked store of attach
    ("attach", "synchronize"),
    ("attach", "pause-attach"),
    ("advance", "poll"),  # the read-modify-write that every scan stands on
    ("advance", "synchronize"),
    ("suspend", "pause-attach"),  # the compare-and-swap against attach
    ("suspend", "borrow"),
    ("membarrier", "synchronize"),  # the other half of detach's light barrier
    ("membarrier", "pause-attach"),
    ("membarrier", "borrow"),
    ("futex", "synchronize"),  # the look at the word before falling asleep
]

# Two threads that write one word and read the other: what may come out. The machine is the one that it says it is.
LITMUS = {
    "sb": {"0", "1", "10", "11"},  # both read the old value: the store buffers show
    "sb-locked": {"1", "10", "11"},
    "sb-membarrier": {"1", "10", "11"},
    "mp": {"0", "1", "11"},  # never the flag without the message, which would be 10
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    target = tmp_path_factory.mktemp("model") / "model"
    sources = [path for floor in FLOORS for path in sorted((ROOT / "csrc/core" / floor).glob("*.c"))]
    sources += sorted((ROOT / "tests/c/model").glob("*.c"))
    command = [compiler, "-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]
    command += ["-Icsrc/include", "-Icsrc", "-Icsrc/core", "-Itests/c/model"]
    command += ['-DPYRT_ATOMIC_HEADER="model_atomic.h"', "-DPYRT_TLS_BLOCK=model_tls"]
    done = subprocess.run([*command, *map(str, sources), "-o", str(target)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return str(target)


def run(model: str, *arguments: object) -> tuple[int, str]:
    done = subprocess.run([model, *map(str, arguments)], capture_output=True, text=True, timeout=HANG)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(("scenario", "bound"), COMPLETE)
def test_every_order_up_to_the_bound_holds(model: str, scenario: str, bound: int) -> None:
    status, output = run(model, scenario, "--bound", bound)
    assert status == 0, output
    assert ", complete," in output


@pytest.mark.parametrize("scenario", LONG)
def test_the_first_orders_hold(model: str, scenario: str) -> None:
    status, output = run(model, scenario, "--bound", 1, "--most", 10000)
    assert status == 0, output


@pytest.mark.parametrize("scenario", [*LONG, "synchronize", "borrow", "stateless", "pause-gate", "pause-birth"])
def test_orders_at_random_hold(model: str, scenario: str) -> None:
    status, output = run(model, scenario, "--seed", 20261122, "--runs", RUNS)
    assert status == 0, output


@pytest.mark.parametrize("scenario", LITMUS)
def test_the_simulated_machine_is_x86(model: str, scenario: str) -> None:
    _, output = run(model, scenario, "--bound", "none")
    outcomes = re.search(r"^outcomes: (.*)$", output, re.MULTILINE)
    assert outcomes is not None, output
    assert set(outcomes[1].split()) == LITMUS[scenario]


@pytest.mark.parametrize(("broken", "scenario"), BREAKS)
def test_a_missing_order_is_found_and_shown_again(model: str, broken: str, scenario: str) -> None:
    status, output = run(model, scenario, "--break", broken, "--bound", 2)
    assert status == 1, f"{scenario} holds without {broken}: {output}"
    schedule = re.search(r"--replay (\S+)", output)
    assert schedule is not None, output
    status, again = run(model, scenario, "--break", broken, "--replay", schedule[1])
    assert status == 1, again
    assert "FAILED" in again
