"""The locks of pyruntime in the place of threading's: the standard library's own tests of locks run against them, and parts
of it that are built on locks run on them.

Left out is what is private to the classes of threading, or says how their ``repr()`` reads.
"""

from __future__ import annotations

import pytest
from conftest import Python

KINDS = {
    "Mutex": ("LockTests", "locktype", "sync.Mutex", ""),
    "RLock": ("RLockTests", "locktype", "sync.RLock", ""),
    "Event": ("EventTests", "eventtype", "sync.Event", "test_at_fork_reinit"),  # it looks into Event._cond
    "Condition": ("ConditionTests", "condtype", "sync.Condition", "test_acquire"),  # with threading.Lock, which is refused
    "threading.Condition of an RLock": (
        "ConditionTests",
        "condtype",
        "lambda lock=None: threading.Condition(sync.RLock() if lock is None else lock)",
        "",
    ),
    "the write side of an RWLock": (
        "BaseLockTests",
        "locktype",
        "lambda: sync.RWLock().write()",
        "",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_tests_of_threading_pass(python: Python, kind: str) -> None:
    cases, attribute, make, left_out = KINDS[kind]
    python.run(f"""
        import sys, threading, unittest
        try:
            from test import lock_tests
        except ImportError:
            sys.exit(0)  # this Python came without its tests
        from pyruntime import sync
        class Cases(lock_tests.{cases}):
            {attribute} = staticmethod({make})
        left_out = ["test_repr", "test_locked_repr", {left_out!r}]
        suite = unittest.TestSuite()
        for case in unittest.defaultTestLoader.loadTestsFromTestCase(Cases):
            if case.id().rpartition(".")[2] not in left_out:
                suite.addTest(case)
        result = unittest.TextTestRunner().run(suite)
        sys.exit(not (result.wasSuccessful() and result.testsRun > 3))
    """)


PATCHED = """
import threading
from pyruntime import sync
threading.Lock, threading.RLock = sync.Mutex, sync.RLock
threading.Condition, threading.Event = sync.Condition, sync.Event
"""


def test_executors_and_queues_on_our_locks(python: Python) -> None:
    python.run(
        PATCHED
        + """
import concurrent.futures as futures, queue
with futures.ThreadPoolExecutor(4) as pool:
    assert sum(pool.map(lambda n: n * n, range(200))) == sum(n * n for n in range(200))
    many = [pool.submit(pow, 2, n) for n in range(50)]
    done, missing = futures.wait(many, timeout=60)
    assert len(done) == 50 and not missing
    assert sorted(one.result() for one in futures.as_completed(many, timeout=60)) == [2 ** n for n in range(50)]
    held = sync.Event()
    waits = pool.submit(held.wait)
    try:
        waits.result(timeout=0.01)
    except futures.TimeoutError:
        pass
    else:
        raise AssertionError
    held.set()
    assert waits.result(timeout=60) is True

for kind in (queue.Queue, queue.LifoQueue, queue.PriorityQueue):
    line, seen = kind(3), []
    assert isinstance(line.mutex, sync.Mutex) and isinstance(line.not_empty, sync.Condition)
    def take():
        while (one := line.get(timeout=60)) < 1000:
            seen.append(one)
            line.task_done()
        line.task_done()
    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads: thread.start()
    for n in range(300): line.put(n, timeout=60)
    line.join()
    for _ in threads: line.put(1000, timeout=60)
    for thread in threads: thread.join()
    assert sorted(seen) == list(range(300))
    try:
        line.get(timeout=0.01)
    except queue.Empty:
        pass
    else:
        raise AssertionError

barrier, gate, passed = threading.Barrier(3), threading.BoundedSemaphore(2), []
def pass_through():
    for _ in range(20):
        barrier.wait(timeout=60)
        with gate: passed.append(1)
threads = [threading.Thread(target=pass_through) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(passed) == 60
"""
    )


def test_locks_under_asyncio(python: Python) -> None:
    """They block the thread, so they are waited for in threads; a loop and its threads share them."""
    python.run("""
        import asyncio
        from pyruntime import sync
        async def main():
            lock, ready, total = sync.Mutex(), sync.Event(), 0
            def work():
                nonlocal total
                assert ready.wait(timeout=60)
                for _ in range(500):
                    with lock: total += 1
            tasks = [asyncio.create_task(asyncio.to_thread(work)) for _ in range(4)]
            await asyncio.sleep(0)
            with lock: ready.set()
            await asyncio.gather(*tasks)
            assert total == 2000
            async with asyncio.Lock():
                assert await asyncio.to_thread(lock.acquire, timeout=60)
            lock.release()  # on another thread than the one that took it
            lock.acquire()
            try:
                await asyncio.wait_for(asyncio.to_thread(lock.acquire, timeout=0.2), 0.01)
            except asyncio.TimeoutError:
                pass
            else:
                raise AssertionError
            lock.release()
        asyncio.run(main())
    """)


def test_a_logger_and_a_timer_on_our_locks(python: Python) -> None:
    python.run(
        PATCHED
        + """
import io, logging
out = io.StringIO()
logging.basicConfig(stream=out, format="%(message)s")
handler = logging.getLogger().handlers[0]
handler.lock = sync.RLock()
threads = [threading.Thread(target=lambda: [logging.warning("said") for _ in range(50)]) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert out.getvalue().split() == ["said"] * 150
fired = sync.Event()
timer = threading.Timer(0, fired.set)
timer.start()
assert fired.wait(60)
timer.join()
stopped = threading.Timer(1000, fired.clear)
stopped.start()
stopped.cancel()
stopped.join()
assert fired.is_set()
"""
    )
