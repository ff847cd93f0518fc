"""Which benchmarks there are: their names, what each measures, whom it is compared with, and the goals of the project.

This is the only list. Its order is the order of every table and file that the suite writes.
"""

from __future__ import annotations

import difflib
import enum
import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Implementations. What is not a library is there to compare with: a floor, or what plain Python costs.
OURS = "pyruntime"
ONE_THREAD, TWO_THREADS = "one-thread", "two-threads"
CONTROL_ONE, CONTROL_TWO = "control-one-thread", "control-two-threads"
URCU_QSBR, URCU_MEMB, URCU_DEFER = "liburcu-qsbr", "liburcu-memb", "liburcu-memb-defer"
CK = "ck-epoch"
ATOMIC_ADD, BATCHED_CALL, BATCHED_FREE, IMMEDIATE_FREE = "atomic-add", "batched-call", "batched-free", "immediate-free"
PYTHON_CALL, PYTHON_BLOCK, LOCK, BARE = "python-call", "python-block", "threading.Lock", "bare-python"
NONE_DETACHED = "none-detached"
WEAK_DICTIONARY, BYTEARRAY, LOCKED_COUNT = "WeakValueDictionary", "bytearray", "count-under-a-lock"
ATTRIBUTE, LOCKED_ATTRIBUTE = "attribute", "attribute-under-a-lock"
PLAIN_COUNT, ATOMIC_COUNT, EMBEDDED, SHARED_PTR = "plain-count", "atomic-count", "pyruntime-embedded", "shared_ptr"
PTHREAD_MUTEX, PTHREAD_RWLOCK = "pthread-mutex", "pthread-rwlock"
CK_SPINLOCK, CK_RWLOCK = "ck-spinlock", "ck-rwlock"
OWN_MUTEX, EVENT, CEREGGII, FT_UTILS = "pyruntime-mutex", "threading.Event", "cereggii", "ft-utils"
PRELOADED, MIMALLOC, JEMALLOC, GLIBC = "pyruntime-preloaded", "mimalloc", "jemalloc", "glibc"

# What loops are called that call malloc, whichever the process has been given.
MALLOC = "malloc"


class Kind(enum.Enum):
    """Who runs a benchmark."""

    LOOP = "loop"  # a loop in C, for each implementation
    CORES = "cores"  # one loop in C, with one thread and with two
    SCALING = "scaling"  # the same, and the control beside it in the same rounds
    ALLOCATOR = "allocator"  # a loop in C, for each allocator in a process of its own
    MEAN = "mean"  # nobody: of the benchmarks of allocators in the same run
    CALL = "call"  # a loop in Python
    IMPORT = "import"  # whole processes


class Figure(enum.Enum):
    """What a goal is about."""

    RATIO = "ratio"  # our best time over the best time of a peer
    # The same within each round, the median of them. Of two threads, which a virtual machine moves close to each other and
    # far apart, and of a peer whose best round is now and then far from all others: there the best is luck.
    RATIO_MEDIAN = "ratio_median"
    TIME = "time"  # our best time, in ns
    PEAK_BYTES = "peak_bytes"  # the most that waited in any round
    OVER_BARE = "over_bare"  # our best time less the best time of the peer, in ns, for each of Bench.bare_units
    LEAST_SHARE = "least_share"  # of all operations, at least so many fell to each thread: the median round
    SCALING = "scaling"  # the cores that two threads get out of the code, over those of the control: the median round
    P50 = "p50_ns"  # half of the operations took at most so long: the median round
    TO_FASTER = "to_faster"  # our time over that of the fastest rival, the median of the rounds
    TO_LEANER = "to_leaner"  # our memory at the peak over that of the leanest rival
    # Of a peer that is ours, too, in an extension.
    TIME_OF_PEER = "time_of_peer"  # its best time, in ns
    PEER_OVER_OURS = "peer_over_ours"  # its best time less our own, in ns
    PEER_TO_OURS = "peer_to_ours"  # its best time over our own

    @property
    def is_floor(self) -> bool:
        """Whether it has to reach its limit, and not to stay below it."""
        return self in (Figure.LEAST_SHARE, Figure.SCALING)


@dataclass(frozen=True)
class Goal:
    """A figure that a run is held against. A goal that is missed is shown and changes nothing else."""

    figure: Figure
    limit: float
    peer: str | None = None


@dataclass(frozen=True)
class Bench:
    """One benchmark."""

    name: str
    measures: str
    kind: Kind = Kind.LOOP
    peers: tuple[str, ...] = ()
    goals: tuple[Goal, ...] = ()
    with_threads: bool = True  # whether --threads applies
    threads: tuple[int, ...] = (1,)  # how many run it if --threads does not say or apply; the goals are for these numbers
    bare: str | None = None  # the peer that lacks what is measured
    bare_units: int = 1  # and how many of them it lacks
    operations: tuple[int, int] | None = None  # in a sample, quick and full; None: as many as fill the time of a sample
    sample_ns: tuple[float, float] | None = None  # the time of a sample, quick and full; None: that of the run
    rounds: tuple[int, int] = (15, 31)  # quick and full

    @property
    def group(self) -> str:
        return self.name.partition(".")[0]

    @property
    def ours(self) -> str:
        """The implementation that the others are compared with."""
        return TWO_THREADS if self.kind in (Kind.CORES, Kind.SCALING) else OURS

    @property
    def impls(self) -> tuple[str, ...]:
        """All that it may be run with, in the order of the rows."""
        return (self.ours, *self.peers)


# Fixed numbers of operations where the measured time ends with a barrier, so that this wait is spread over as many of them
# in every implementation; call_rcu's helper thread alone pauses for about 10 ms between two batches.
_MANY = (300_000, 1_000_000)

# Fairness shows in a second, not in the milliseconds for which a lock may stay with one thread.
_A_SECOND = (0.1e9, 1e9)


def _contended(name: str, measures: str) -> Bench:
    """A lock that two threads want all the time."""
    goals = (Goal(Figure.RATIO_MEDIAN, 1.0, PTHREAD_MUTEX), Goal(Figure.LEAST_SHARE, 0.4))
    return Bench(name, measures, peers=(PTHREAD_MUTEX,), goals=goals, threads=(2,), sample_ns=_A_SECOND, rounds=(5, 5))


def _in_python(name: str, measures: str, *peers: str) -> Bench:
    """What a Python program does: no slower than any peer."""
    goals = tuple(Goal(Figure.RATIO, 1.0, peer) for peer in peers)
    return Bench(name, measures, kind=Kind.CALL, peers=peers, goals=goals, with_threads=False)


def _call(name: str, measures: str, *peers: str) -> Bench:
    """A way into the package, beside what plain Python costs."""
    return Bench(name, measures, kind=Kind.CALL, peers=peers or (PYTHON_CALL,), with_threads=False)


_ALLOCATORS = (PRELOADED, MIMALLOC, JEMALLOC, GLIBC)
_IN_BATCHES = (200_000, 200_000)  # fixed, so that memory does not depend on how fast the machine is
_LARGE_BATCHES = (200_000, 1_000_000)  # two, and ten: the first one finds the caches full of what others have left there


# Threads that wait for each other get as far as the system lets both run: on a busy machine a turn for each ring of blocks.
_IN_TURNS = (50_000, 50_000)


def _heap(
    name: str,
    measures: str,
    *,
    threads: int = 1,
    with_threads: bool = True,
    is_large: bool = False,
    operations: tuple[int, int] = _IN_BATCHES,
) -> Bench:
    """A use of an allocator; each of them in a process of its own. Memory has a goal where megabytes are in use: a few
    kilobytes more or less are what the process itself had at hand."""
    memory = (Goal(Figure.TO_LEANER, 1.4),) if is_large else ()
    return Bench(
        f"heap.{name}",
        measures,
        kind=Kind.ALLOCATOR,
        peers=_ALLOCATORS,
        goals=(Goal(Figure.TO_FASTER, 1.3), *memory),
        with_threads=with_threads,
        threads=(threads,),
        operations=_LARGE_BATCHES if is_large else operations,
        # A neighbour on the same core takes half of it for seconds at a time: short rounds, so that all see it go.
        rounds=(7, 31 if is_large else 101),
    )


def _batches(order: str, means: str) -> tuple[Bench, ...]:
    return tuple(
        _heap(f"{order}{mixed}_{count}", f"batches of {count} blocks of {sizes}, freed {means}", is_large=count >= 100_000)
        for mixed, sizes in (("", "64 B"), ("_mixed", "16 to 256 B"))
        for count in (10, 1000, 100_000)
    )


_HEAP: tuple[Bench, ...] = (
    *(_heap(f"pair_{size}", f"malloc and free of {size} B, at once") for size in (16, 64, 512)),
    *_batches("lifo", "the last one first"),
    *_batches("fifo", "in the same order"),
    _heap("churn", "any one of 100 000 blocks of up to 1 KiB is replaced by one of another size", is_large=True),
    _heap(
        "producer_consumer",
        "one thread allocates 16 to 256 B, another frees",
        threads=2,
        with_threads=False,
        operations=_IN_TURNS,
    ),
    _heap(
        "thread_death",
        "threads allocate 4000 blocks of 16 to 256 B and end; their blocks live on and are freed elsewhere",
        with_threads=False,
        is_large=True,
    ),
    Bench(
        "heap.mean",
        "geometric means of those above; of memory, of those that have megabytes in use",
        kind=Kind.MEAN,
        peers=_ALLOCATORS,
        goals=(Goal(Figure.TO_FASTER, 1.0), Goal(Figure.TO_LEANER, 1.15)),
        with_threads=False,
    ),
    Bench(
        "heap.address_owner",
        "whose memory an address is in: any of 4096 addresses in no order, half of them inside blocks of ours",
        goals=(Goal(Figure.TIME, 5.0),),
    ),
)

SUITE: tuple[Bench, ...] = (
    Bench(
        "control.cores",
        "how much of a second core there is: two threads that share nothing, against one",
        kind=Kind.CORES,
        peers=(ONE_THREAD,),
        with_threads=False,
    ),
    Bench(
        "qsbr.quiescent",
        "a quiescent state with no new goal",
        peers=(URCU_QSBR,),
        goals=(Goal(Figure.RATIO, 1.2, URCU_QSBR),),
    ),
    Bench(
        "qsbr.safepoint",
        "a safepoint at which nothing is asked; the peer's quiescent state",
        peers=(URCU_QSBR,),
        goals=(Goal(Figure.RATIO, 1.2, URCU_QSBR),),
    ),
    Bench(
        "qsbr.attach_detach",
        "becoming a reader and ceasing to be one; online and offline, or the begin and end of a section",
        peers=(URCU_QSBR, URCU_MEMB, CK),
        goals=(Goal(Figure.RATIO, 0.35, URCU_QSBR),),
    ),
    Bench("qsbr.advance", "a new goal; atomic-add is the one full barrier that it needs", peers=(ATOMIC_ADD,)),
    Bench("qsbr.poll", "asking for a goal that has been reached"),
    Bench("qsbr.grace", "a grace period without waiting: advance, pass, and a poll that looks at every reader"),
    Bench(
        "qsbr.synchronize",
        "waiting for a grace period, no other thread attached",
        peers=(URCU_QSBR, URCU_MEMB, CK),
        goals=(Goal(Figure.RATIO, 0.5, URCU_QSBR),),
    ),
    Bench(
        "qsbr.synchronize_reader",
        "the same, with one reader on another core that does nothing but pass",
        peers=(URCU_QSBR, URCU_MEMB, CK),
        goals=(Goal(Figure.RATIO, 0.75, URCU_QSBR),),
        # A virtual machine moves its processors, close to each other and far apart: short rounds, so that all run in each.
        sample_ns=(3e6, 5e6),
        rounds=(31, 101),
    ),
    Bench(
        "retire.dispatch",
        "retiring and disposing of, without an allocator, barrier included; batched-call only writes down and calls later",
        peers=(BATCHED_CALL, URCU_DEFER, CK),
        goals=(Goal(Figure.TIME, 5.0),),
        operations=_MANY,
    ),
    Bench(
        "retire.malloc_free",
        "malloc, retire with free, barrier included; batched-free has as many blocks alive but no reclamation",
        peers=(BATCHED_FREE, IMMEDIATE_FREE, URCU_QSBR, URCU_MEMB, URCU_DEFER, CK),
        goals=(Goal(Figure.RATIO, 0.25, URCU_QSBR), Goal(Figure.RATIO, 1.25, BATCHED_FREE)),
        operations=_MANY,
        rounds=(13, 25),
    ),
    Bench(
        "retire.pending_peak",
        "the most that waits to be freed, one reader on each other core passing every 10 us",
        peers=(URCU_QSBR, URCU_MEMB, CK),
        goals=(Goal(Figure.PEAK_BYTES, 1 << 20),),
        operations=_MANY,
        rounds=(7, 13),
    ),
    Bench(
        "lock.pair",
        "taking and leaving a lock that nobody else wants",
        peers=(PTHREAD_MUTEX, CK_SPINLOCK),
        goals=(Goal(Figure.RATIO, 0.92, PTHREAD_MUTEX),),
    ),
    _contended(
        "lock.contended",
        "two threads that do nothing but take one lock, count and leave it, and how much each of them gets done",
    ),
    _contended("lock.contended_rest", "the same with some 20 ns of other work between"),
    Bench(
        "lock.read",
        "reading under one read-write lock that nobody writes under, and leaving it",
        peers=(PTHREAD_RWLOCK, CK_RWLOCK),
        goals=(Goal(Figure.RATIO, 0.6, PTHREAD_RWLOCK),),
        threads=(1, 2),
    ),
    Bench("lock.write", "writing under a read-write lock that nobody else wants", peers=(PTHREAD_RWLOCK,)),
    Bench(
        "lock.section",
        "the begin and end of a critical section; the lock and unlock of the mutex that it takes",
        peers=(OWN_MUTEX,),
        goals=(Goal(Figure.RATIO, 1.3, OWN_MUTEX),),
    ),
    Bench("lock.section2", "the same for two objects at once; two mutexes", peers=(OWN_MUTEX,)),
    _in_python("lock.with_mutex", "in Python: with mutex: pass, that nobody else wants", LOCK),
    _in_python("lock.with_read", "in Python: with lock.read(): pass, that nobody writes under", CEREGGII, FT_UTILS),
    _in_python("lock.with_write", "in Python: with lock.write(): pass, that nobody else wants", CEREGGII, FT_UTILS),
    _in_python("lock.event_wait", "in Python: event.wait() for what has been set", EVENT, CEREGGII),
    _in_python("lock.event_set", "in Python: event.set() and event.clear(), nobody waiting", EVENT),
    Bench(
        "striped.lock",
        "the lock of one of 1024 keys, of which each thread has its half: how that scales, next to sharing nothing at all",
        kind=Kind.SCALING,
        peers=(ONE_THREAD, CONTROL_TWO, CONTROL_ONE),
        goals=(Goal(Figure.SCALING, 0.9),),
        with_threads=False,
        sample_ns=(3e6, 5e6),
        rounds=(31, 101),
    ),
    *_HEAP,
    Bench(
        "embed.call",
        "a function that does next to nothing; the peer: through the table",
        peers=(EMBEDDED,),
        goals=(Goal(Figure.PEER_OVER_OURS, 2.0, EMBEDDED),),
    ),
    Bench(
        "embed.mutex",
        "a lock and its release, inside of the library; the peer: in an extension",
        peers=(EMBEDDED,),
        goals=(Goal(Figure.PEER_TO_OURS, 1.1, EMBEDDED),),
    ),
    Bench(
        "embed.quiescent",
        "a quiescent state, inside of the library; the peer: in an extension",
        peers=(EMBEDDED,),
        goals=(Goal(Figure.TIME_OF_PEER, 1.0, EMBEDDED),),
    ),
    Bench(
        "refcount.owner",
        "one reference more and one less, by the thread that owns the object",
        peers=(PLAIN_COUNT, ATOMIC_COUNT, EMBEDDED, SHARED_PTR),
        goals=(
            Goal(Figure.TIME, 1.5),
            Goal(Figure.RATIO, 2.5, PLAIN_COUNT),
            Goal(Figure.RATIO, 0.15, ATOMIC_COUNT),
            Goal(Figure.TIME_OF_PEER, 1.5, EMBEDDED),
        ),
    ),
    Bench(
        "refcount.other",
        "the same by another thread, alone",
        peers=(PLAIN_COUNT, ATOMIC_COUNT, EMBEDDED, SHARED_PTR),
        goals=(Goal(Figure.RATIO, 1.1, ATOMIC_COUNT),),
    ),
    Bench(
        "refcount.instances",
        "two threads that make and drop objects of one type, against one thread",
        kind=Kind.SCALING,
        peers=(ONE_THREAD, CONTROL_TWO, CONTROL_ONE),
        goals=(Goal(Figure.RATIO_MEDIAN, 1.1, ONE_THREAD),),
        with_threads=False,
        sample_ns=(3e6, 5e6),
        rounds=(31, 101),
    ),
    Bench(
        "refcount.instances_atomic",
        "the same with blocks of memory and one atomic count",
        kind=Kind.SCALING,
        peers=(ONE_THREAD, CONTROL_TWO, CONTROL_ONE),
        with_threads=False,
        sample_ns=(3e6, 5e6),
        rounds=(31, 101),
    ),
    Bench(
        "refcount.handover",
        "one thread makes objects, another drops them; the peer with the same allocator",
        peers=(SHARED_PTR,),
        goals=(Goal(Figure.RATIO_MEDIAN, 1.0, SHARED_PTR),),
        with_threads=False,
        threads=(2,),
        operations=_IN_TURNS,
        rounds=(31, 101),
    ),
    _in_python(
        "refcount.python", "in Python: ref.clone().drop() by the owner; a class that counts under a lock", LOCKED_COUNT
    ),
    Bench(
        "weakref.owner",
        "a reference from a weak reference, and its drop, by the thread that owns the object",
        peers=(PLAIN_COUNT, ATOMIC_COUNT),
        goals=(Goal(Figure.TIME, 4.0),),
    ),
    Bench(
        "weakref.other",
        "the same by another thread that is attached",
        peers=(PLAIN_COUNT, ATOMIC_COUNT),
        goals=(Goal(Figure.RATIO_MEDIAN, 1.2, ATOMIC_COUNT),),
    ),
    Bench(
        "weakref.two_threads",
        "weak references of two threads to objects of their own, next to sharing nothing at all",
        kind=Kind.SCALING,
        peers=(ONE_THREAD, CONTROL_TWO, CONTROL_ONE),
        goals=(Goal(Figure.SCALING, 0.95),),
        with_threads=False,
        sample_ns=(3e6, 5e6),
        rounds=(31, 101),
    ),
    Bench(
        "rcu.get",
        "in Python: cell.get(); an attribute, which promises less, and one that a lock guards",
        kind=Kind.CALL,
        peers=(ATTRIBUTE, LOCKED_ATTRIBUTE),
        bare=ATTRIBUTE,
        goals=(Goal(Figure.OVER_BARE, 20.0, ATTRIBUTE),),
        with_threads=False,
    ),
    _in_python("weakref.registry", "in Python: registry.get(key) of an object that lives", WEAK_DICTIONARY),
    Bench(
        "stw.stop",
        "the time to stop 8 attached threads that do nothing but pass safepoints",
        goals=(Goal(Figure.P50, 50e3),),
        with_threads=False,
        operations=(50, 200),
        rounds=(9, 15),
    ),
    Bench(
        "stw.detached",
        "the time to stop 1000 detached thread states of another OS thread, and what each of them adds",
        peers=(NONE_DETACHED,),
        bare=NONE_DETACHED,
        bare_units=1000,
        goals=(Goal(Figure.OVER_BARE, 10.0, NONE_DETACHED),),
        with_threads=False,
    ),
    _call("call.heap_alloc", "heap.alloc(64), zeroed, and the end of the buffer", BYTEARRAY),
    _call("call.heap_alloc_64k", "the same of 64 KiB", BYTEARRAY),
    _call("call.cffi0", "from Python into C and back through cffi, no argument; a Python function for comparison"),
    _call("call.cffi1", "the same with one argument"),
    _call("call.cffi2", "the same with two arguments"),
    _call("call.quiescent", "quiescent() inside of an attached() block: a method in C, without cffi"),
    _call("call.poll", "poll(goal) of a goal that has been reached: a method in Python around one in C"),
    _call(
        "call.reading",
        "with reading(): pass; a threading.Lock and a class with __enter__ and __exit__ for comparison",
        LOCK,
        PYTHON_BLOCK,
    ),
    Bench(
        "import.time",
        "python -c 'import pyruntime', the whole process, over python -c pass",
        kind=Kind.IMPORT,
        peers=(BARE,),
        bare=BARE,
        goals=(Goal(Figure.OVER_BARE, 3e6, BARE),),
        with_threads=False,
        operations=(1, 1),
        rounds=(15, 41),
    ),
)

# All whom anything is compared with.
PEERS: tuple[str, ...] = tuple(dict.fromkeys(peer for bench in SUITE for peer in bench.peers))


class UnknownName(ValueError):
    """A name that stands for nothing; the message says what is near."""


def _unknown(what: str, name: str, known: Iterable[str]) -> UnknownName:
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "see --list"
    return UnknownName(f"unknown {what} {name!r}; {hint}")


def select_benches(names: Sequence[str], suite: Sequence[Bench] = SUITE) -> list[Bench]:
    """The benchmarks that exact names, groups and globs stand for, in the order of the suite; all for no name."""
    chosen: set[str] = set()
    for name in names:
        found = {bench.name for bench in suite if bench.group == name or fnmatch.fnmatchcase(bench.name, name)}
        if not found:
            known = [bench.name for bench in suite]
            raise _unknown("benchmark", name, [*known, *dict.fromkeys(bench.group for bench in suite)])
        chosen |= found
    return [bench for bench in suite if not names or bench.name in chosen]


def select_peers(choice: str, known: Sequence[str] = PEERS) -> set[str]:
    """The peers that ``all``, ``none`` or a list of names and globs, separated by commas, stand for."""
    if choice == "all":
        return set(known)
    if choice == "none":
        return set()
    chosen: set[str] = set()
    for name in filter(None, (part.strip() for part in choice.split(","))):
        found = fnmatch.filter(known, name)
        if not found:
            raise _unknown("peer", name, known)
        chosen.update(found)
    return chosen
