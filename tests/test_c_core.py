"""The C tests of the core, under both compilers and the sanitizers, and proof that the stress among them can fail."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator

import pytest
from c_support import C_TESTS, CONFIGS, ROOT, Ahead, Config, run

Output = tuple[subprocess.CompletedProcess[str], list[str]]

EXECUTABLES = sorted(file.stem for file in C_TESTS.glob("test_*.c*"))

# What the stress breaks on request, and what it must say then.
SABOTAGE = {
    ("test_stress", "stress", "free-early"): "a node that was disposed of is looked at",
    ("test_stress", "stress", "read-detached"): "a node that was disposed of is looked at",
    ("test_stress", "stress", "wrong-readers"): "a node that was disposed of is looked at",
    ("test_stress", "stress", "lose-one"): "disposed",
    ("test_striped_lock", "stress", "skip-one"): "the accounts hold",
    ("test_heap_stress", "every_block_keeps_its_bytes_and_every_count_is_exact", "forget"): "counts[source] is 1",
    ("test_heap_ended", "threads_free_into_ended_interpreters_while_others_end", "keep"): "true: none_has_left_anything()",
    ("test_heap_released", "threads_come_and_go_while_one_gives_back", "keep"): "stats.page_bytes is",
    ("test_object_stress", "every_object_dies_once_and_is_not_used_after_that", "drop-twice"): "is used and has died",
    ("test_object_stress", "every_object_dies_once_and_is_not_used_after_that", "forget"): "has not died",
    ("test_object_stress", "every_object_dies_once_and_is_not_used_after_that", "plain-load"): "is used and has died",
    ("test_object_stress", "every_object_dies_once_and_is_not_used_after_that", "no-look"): "has handed out a thing",
    ("test_heap_model", "the_allocator_does_what_the_reference_does", "lose"): "is not sound",
    ("test_heap_model", "the_allocator_does_what_the_reference_does", "hand-out-twice"): "has changed",
    ("test_heap_model", "the_allocator_does_what_the_reference_does", "scribble"): "has changed",
    ("test_heap_model", "the_allocator_does_what_the_reference_does", "keep"): "a visit comes by",
    ("test_weakref", "stress", "look-once"): "it gives a stranger",
    ("test_lock_torture", "stress", "forget-to-lock"): "guarded[n].number is",
    ("test_lock_torture", "stress", "forget-to-wake"): "nobody gets on any more",
    ("test_lock_debug", "stripes_are_taken_in_order", "unordered"): "stripes were taken in two orders",
    ("test_section_order", "sections_in_any_order_never_deadlock_and_lose_nothing", "outer"): "objects[i].count is",
}

# The same for the locks: which test of test_sync_stress. A wake-up that is lost is a hang, which the guard ends.
LOCK_SABOTAGE = {
    "write-as-reader": ("rwlock", "a reader sees a pair that is half written"),
    "one-look": ("condition", "the queue is empty"),
    "lose-notification": ("condition", "HANGS: the guard ended condition"),
    "set-early": ("event", "sums[t]"),
    "run-again": ("once", "first.done[i]"),
    "skip-lock": ("recursive_mutex", "nested.count"),
    "no-retry": ("seqlock", "a pair that does not belong together"),
}


def test_there_are_executables() -> None:
    assert "test_stress" in EXECUTABLES
    assert len(EXECUTABLES) > 10


def test_make_check_matrix_runs_all_of_them() -> None:
    """That is what it would do; what comes out is what test_core looks at."""
    command = ["make", "-n", "check-matrix"]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = {line.split()[0] for line in done.stdout.replace(";", "\n").splitlines() if line.strip()}
    assert {f"build/c/{config}/{executable}" for config in CONFIGS for executable in EXECUTABLES} <= told


def run_whole(config: Config, executable: str) -> Output:
    return run(config, executable), run(config, executable, "--list").stdout.split()


@pytest.fixture(scope="module")
def ahead(request: pytest.FixtureRequest) -> Iterator[Ahead[Output]]:
    made = Ahead(request.session.items, request.module, {"test_core": run_whole})
    yield made
    made.end()


@pytest.mark.parametrize("executable", EXECUTABLES)
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_core(ahead: Ahead[Output], request: pytest.FixtureRequest, config: Config, executable: str) -> None:
    done, listed = ahead.of(request.node)
    assert done.returncode == 0, done.stdout
    assert listed
    assert [line for line in done.stdout.splitlines() if line.startswith("ok ")] == [f"ok {name}" for name in listed]


@pytest.mark.parametrize(("executable", "test", "what"), SABOTAGE)
@pytest.mark.parametrize("config", [config for config in CONFIGS if config.sanitizer == "plain"], ids=str)
def test_stress_catches(config: Config, executable: str, test: str, what: str) -> None:
    """With the use of the library broken in one way, the stress fails, and says why."""
    tries = []
    for _ in range(5):
        done = run(config, executable, "--break", what, "--seed", str(random.getrandbits(32)), test)
        tries.append(f"status {done.returncode}: {done.stdout}")
        failed = done.returncode == 1 and f"FAILED {test}" in done.stdout
        if failed and SABOTAGE[executable, test, what] in done.stdout:
            return
    pytest.fail(f"{what} was not caught:\n" + "\n".join(tries))


@pytest.mark.parametrize("what", LOCK_SABOTAGE)
@pytest.mark.parametrize("config", [config for config in CONFIGS if config.sanitizer == "plain"], ids=str)
def test_lock_stress_catches(config: Config, what: str) -> None:
    """With one use of a lock broken, the stress of that lock fails, and says why."""
    name, message = LOCK_SABOTAGE[what]
    tries = []
    for _ in range(5):
        seed = str(random.getrandbits(32))
        done = run(config, "test_sync_stress", "--break", what, "--guard", "5", "--seed", seed, name)
        tries.append(f"status {done.returncode}: {done.stdout}")
        if done.returncode != 0 and message in done.stdout:
            return
    pytest.fail(f"{what} was not caught:\n" + "\n".join(tries))


def test_a_failure_can_be_replayed() -> None:
    """The seed that a failed run prints gives the same choices again."""
    config = CONFIGS[0]
    done = run(config, "test_stress", "--break", "lose-one", "--seed", "7", "stress")
    assert "seed 7\n" in done.stdout
    assert "replay with: --seed 7 --scale 1 stress" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_test"], "there is no test 'no_such_test'"),
        (["--no-such-option"], "unknown option --no-such-option"),
        (["--seed"], "--seed wants a value"),
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], message: str) -> None:
    done = run(CONFIGS[0], "test_status", *arguments)
    assert done.returncode == 2
    assert message in done.stdout
