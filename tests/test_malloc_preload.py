"""libpyruntime-malloc.so in the place of malloc: real programs run under LD_PRELOAD and write what they write without it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from c_support import HANG_GUARD, ROOT, need_compiler
from conftest import FREE_THREADED

# Makes Python's objects blocks of malloc. A free-threaded one refuses that: its objects have an allocator of their own.
OBJECTS_TOO = "default" if FREE_THREADED else "malloc"

C_NAMES = {
    "malloc", "calloc", "realloc", "reallocarray", "free", "cfree", "aligned_alloc", "memalign", "posix_memalign", "valloc",
    "pvalloc", "malloc_usable_size", "free_sized", "free_aligned_sized", "__libc_malloc", "__libc_calloc", "__libc_realloc",
    "__libc_free", "__libc_memalign", "__libc_valloc", "__libc_pvalloc",
}  # fmt: skip

STANDARD_LIBRARY_TESTS = ["test_dict", "test_heapq", "test_json", "test_queue", "test_bisect", "test_memoryview"]


@pytest.fixture(scope="module")
def library() -> Path:
    need_compiler("gcc")
    done = subprocess.run(["make", "-s", "malloc"], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / "build" / "libpyruntime-malloc.so"


def run(
    command: list[str], library: Path | None = None, stdin: bytes = b"", **variables: str
) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "LC_ALL": "C", **variables}
    environment.pop("LD_PRELOAD", None)
    if library is not None:
        environment["LD_PRELOAD"] = str(library)
    done = subprocess.run(command, input=stdin, capture_output=True, env=environment, timeout=HANG_GUARD)
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
    return done


def check_equal(command: list[str], library: Path, stdin: bytes = b"", **variables: str) -> None:
    """With and without: the same output, and nothing reported."""
    without = run(command, None, stdin, **variables)
    with_it = run(command, library, stdin, **variables)
    assert without.stdout
    assert with_it.stdout == without.stdout
    assert b"pyruntime:" not in with_it.stderr


def compiled(compiler: str, source: str, name: str, where: Path) -> str:
    need_compiler(compiler)
    file = where / name
    file.write_text(source)
    program = file.with_suffix("")
    standard = "-std=gnu++17 -fsized-deallocation" if file.suffix == ".cc" else "-std=gnu11"
    command = [compiler, *standard.split(), "-O1", "-g", "-pthread", "-fno-builtin", str(file), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return str(program)


def is_of_the_family(name: str) -> bool:
    """A C name, or one of the operators new and delete: _Zn, _Zd, each with w, a, l."""
    return name in C_NAMES or re.match(r"_Z(n[wa]m|d[la]Pv)", name) is not None


def test_only_the_family_leaves_the_object(library: Path) -> None:
    done = run(["nm", "-D", "--defined-only", str(library)])
    names = {line.split()[-1] for line in done.stdout.decode().splitlines()}
    assert {name for name in names if not is_of_the_family(name)} == set()
    assert names >= C_NAMES
    assert len(names) == len(C_NAMES) + 8 + 12


def test_it_asks_the_loader_for_no_thread_local_memory(library: Path) -> None:
    """A first use of a thread-local variable that is found by a call would allocate."""
    done = run(["nm", "-D", "--undefined-only", str(library)])
    assert "__tls_get_addr" not in done.stdout.decode()


def test_it_is_there(library: Path) -> None:
    code = "print(open('/proc/self/maps').read())"
    assert str(library).encode() in run([sys.executable, "-c", code], library).stdout


def test_pythons_own_tests(library: Path) -> None:
    """Every object of Python is a block of ours, where that can be had."""
    command = [sys.executable, "-m", "unittest", "-v", *(f"test.{name}" for name in STANDARD_LIBRARY_TESTS)]

    def told(preloaded: Path | None) -> str:
        done = run(command, preloaded, PYTHONMALLOC=OBJECTS_TOO, PYTHONHASHSEED="1")
        text = re.sub(r"Ran (\d+) tests in .*", r"Ran \1 tests", done.stderr.decode())
        return re.sub(r"0x[0-9a-f]+", "0x", text)

    with ThreadPoolExecutor() as pool:
        outputs = list(pool.map(told, (None, library)))
    assert "\nOK" in outputs[0]
    assert outputs[1] == outputs[0]


def test_sort(library: Path) -> None:
    numbers = b"".join(b"%d\n" % (number * 7919 % 1000003) for number in range(300000))
    check_equal(["sort", "--parallel=4", "-S", "1M", "-n"], library, numbers)
    check_equal(["sort", "--parallel=4", "-u"], library, numbers)


SQLITE = """
import sqlite3, threading
def work(number):
    database = sqlite3.connect(":memory:")
    database.execute("create table t (a integer primary key, b text, c blob)")
    rows = ((i, str(i * 7919 % 10007) * (i % 40), bytes(i % 3000)) for i in range(5000))
    database.executemany("insert into t values (?, ?, ?)", rows)
    database.execute("create index i on t (b)")
    database.execute("delete from t where a % 3 = ?", (number % 3,))
    query = "select length(b), count(*), sum(length(c)), max(b) from t group by 1 order by 3 desc, 1"
    results[number] = list(database.execute(query))
results = {}
threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sorted(results.items()))
"""


def test_sqlite(library: Path) -> None:
    check_equal([sys.executable, "-c", SQLITE], library)
    check_equal([sys.executable, "-c", SQLITE], library, PYTHONMALLOC=OBJECTS_TOO)


FAMILY = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
void __libc_free(void *);

static void show(const char *what, void *block, size_t align)
{
    int error = errno;
    printf("%s: %s, aligned %d, errno %d\n", what, block == NULL ? "NULL" : "a block", (uintptr_t)block % align == 0,
           block == NULL ? error : 0);
    free(block);
    errno = 0;
}

int main(void)
{
    volatile size_t absurd = SIZE_MAX - 5;
    show("malloc(0)", malloc(0), 8);
    show("calloc(0, 5)", calloc(0, 5), 8);
    show("malloc", malloc(absurd), 8);
    show("calloc", calloc(absurd, 2), 8);
    show("reallocarray", reallocarray(NULL, absurd, 2), 8);
    show("aligned_alloc", aligned_alloc(4096, absurd), 8);
    show("memalign(24)", memalign(24, 100), 8);
    show("memalign(0)", memalign(0, 100), 8);
    show("memalign(1 MiB)", memalign(1 << 20, 100), 1 << 20);
    show("memalign", memalign(absurd, 100), 1);
    show("valloc", valloc(10), 4096);
    show("valloc", valloc(absurd), 1);
    void *block = pvalloc(10);
    printf("pvalloc %d\n", malloc_usable_size(block) >= 4096);
    show("pvalloc", block, 4096);
    block = (void *)1;
    printf("posix_memalign %d", posix_memalign(&block, 4, 10));
    printf(" %d", posix_memalign(&block, 0, 10));
    printf(" %d", posix_memalign(&block, 96, 10));
    printf(" %d", posix_memalign(&block, 64, absurd));
    printf(" %d\n", block == (void *)1);
    errno = 77;
    free(NULL);
    free(malloc(100));
    printf("errno %d\n", errno);
    block = strcpy(__libc_malloc(100), "text");
    block = realloc(block, 5000);
    block = __libc_realloc(block, 200000);
    printf("%s\n", (char *)block);
    free(block);
    volatile size_t none = 0;
    printf("realloc(block, 0) %d", realloc(malloc(10), none) == NULL);
    printf(" %d", reallocarray(malloc(10), none, 5) == NULL);
    printf(" %d\n", __libc_realloc(malloc(10), none) == NULL);
    show("realloc(NULL, 0)", realloc(NULL, none), 8);
    __libc_free(malloc(10));
    free(__libc_calloc(3, 10));
    free(__libc_memalign(64, 10));
    return 0;
}
"""


def test_the_family(library: Path, tmp_path: Path) -> None:
    check_equal([compiled("gcc", FAMILY, "family.c", tmp_path)], library)


# Fails the n-th mapping or purge that the object asks for, or all from there on; says at the end whether there was one.
FAILING_SYSTEM = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static long nth, until, calls;

__attribute__((constructor)) static void read_plan(void)
{
    const char *plan = getenv("FAIL_AT");
    nth = plan == NULL ? 0 : atol(plan + 1);
    until = plan != NULL && *plan == '+' ? 1L << 40 : nth;
}

static int must_fail(void)
{
    long call = __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
    return nth != 0 && call >= nth && call <= until;
}

__attribute__((destructor)) static void say(void)
{
    if (nth != 0 && calls < nth && write(2, "no failure\n", 11) != 11) {
        _exit(9);
    }
}

void *mmap(void *address, size_t bytes, int protection, int flags, int file, off_t offset)
{
    if (must_fail()) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return (void *)syscall(SYS_mmap, address, bytes, protection, flags, file, offset);
}

int madvise(void *address, size_t bytes, int advice)
{
    if (must_fail()) {
        errno = ENOMEM;
        return -1;
    }
    return (int)syscall(SYS_madvise, address, bytes, advice);
}
"""

# Asks for memory of every kind, on two threads; does without what it does not get, and says nothing of it.
MODEST = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCKS = 24 };

static void fail(const char *what)
{
    ssize_t ignored = write(1, what, strlen(what));
    _exit(ignored > 0 ? 3 : 4);
}

static void *work(void *arg)
{
    (void)arg;
    static const size_t sizes[] = {1, 100, 1000, 5000, 70000, 3000000};
    unsigned char *blocks[BLOCKS];
    size_t filled[BLOCKS];
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < BLOCKS; i++) {
            size_t size = sizes[i % 6] + (size_t)i;
            errno = 0;
            blocks[i] = i % 4 == 0   ? malloc(size)
                        : i % 4 == 1 ? calloc(1, size)
                        : i % 4 == 2 ? memalign(256, size)
                                     : realloc(NULL, size);
            if (blocks[i] == NULL && errno != ENOMEM) {
                fail("NULL without ENOMEM\n");
            }
            filled[i] = blocks[i] == NULL ? 0 : size;
            for (size_t k = 0; i % 4 == 1 && k < filled[i]; k += 1 + k / 64) {
                if (blocks[i][k] != 0) {
                    fail("calloc is not zero\n");
                }
            }
            if (blocks[i] != NULL) {
                memset(blocks[i], i, size);
            }
        }
        for (int i = 0; i < BLOCKS; i++) {
            if (i % 5 == round && blocks[i] != NULL) {
                unsigned char *moved = realloc(blocks[i], filled[i] * 3);
                blocks[i] = moved != NULL ? moved : blocks[i];
            }
        }
        for (int i = 0; i < BLOCKS; i++) {
            for (size_t k = 0; k < filled[i]; k += 1 + k / 64) {
                if (blocks[i][k] != (unsigned char)i) {
                    fail("a byte has changed\n");
                }
            }
            free(blocks[i]);
        }
    }
    return NULL;
}

int main(void)
{
    pthread_t thread;
    int started = pthread_create(&thread, NULL, work, NULL) == 0;
    work(NULL);
    if (started) {
        pthread_join(thread, NULL);
    }
    return write(1, "good\n", 5) != 5;
}
"""


@pytest.mark.parametrize("kind", ["=", "+"])
def test_the_system_may_refuse_at_every_call(kind: str, library: Path, tmp_path: Path) -> None:
    """The n-th call is refused, or (+) all from the n-th on: the program gets NULL and ENOMEM, and nothing is damaged."""
    program = compiled("gcc", MODEST, "modest.c", tmp_path)
    source = tmp_path / "failing.c"
    source.write_text(FAILING_SYSTEM)
    failing = tmp_path / "failing.so"
    build = ["gcc", "-O1", "-shared", "-fPIC", str(source), "-o", str(failing)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for nth in range(1, 1000):
        environment = {**os.environ, "LD_PRELOAD": f"{failing}:{library}", "FAIL_AT": f"{kind}{nth}"}
        ran = subprocess.run([program], capture_output=True, env=environment, timeout=HANG_GUARD)
        assert (ran.returncode, ran.stdout) == (0, b"good\n"), (nth, ran)
        if ran.stderr == b"no failure\n":
            break
        assert ran.stderr == b"", nth
    assert 15 < nth < 999


CPLUSPLUS = r"""
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

// Before main: a static object that allocates.
static std::vector<std::string> early(1000, std::string(100, 'e'));

struct alignas(256) wide { char bytes[512]; };

struct leaves_late {
    std::string text = std::string(1000, 'l');
    // Inside of a thread-exit destructor.
    ~leaves_late() { auto *more = new std::vector<int>(5000, 7); sum += (*more)[4999] + (int)text.size(); delete more; }
    static int sum;
};
int leaves_late::sum;

static bool is_aligned(const void *p, size_t to) { return (uintptr_t)p % to == 0; }

static int handled;
static void handler()
{
    if (++handled == 3) {
        std::set_new_handler(nullptr);
    }
}

int main()
{
    std::map<int, std::unique_ptr<std::string>> map;
    for (int i = 0; i < 20000; i++) {
        map[i * 7919 % 10007] = std::make_unique<std::string>(i % 300, 'x');
    }
    size_t length = 0;
    for (auto &[key, value] : map) {
        length += value->size();
    }
    std::printf("%zu %zu %s\n", map.size(), length, early[999].c_str());

    wide *one = new wide;
    wide *many = new wide[7];
    std::printf("aligned %d %d\n", is_aligned(one, 256), is_aligned(many, 256));
    delete one;
    delete[] many;
    void *raw = ::operator new(1000, std::align_val_t(4096));
    std::printf("aligned %d\n", is_aligned(raw, 4096));
    ::operator delete(raw, 1000, std::align_val_t(4096));
    void *posix = nullptr;
    int failed = posix_memalign(&posix, 64, 100);
    std::printf("posix %d %d %d\n", failed, is_aligned(posix, 64), posix_memalign(&posix, 24, 1));
    free(posix);

    volatile size_t absurd = SIZE_MAX / 2 + 5;
    std::printf("nothrow %d\n", new (std::nothrow) char[absurd] == nullptr);
    std::set_new_handler(handler);
    try {
        ::operator delete(::operator new(absurd));
        std::puts("not thrown");
    }
    catch (const std::bad_alloc &) {
        std::printf("thrown after %d\n", handled);
    }

    for (int round = 0; round < 20; round++) {
        std::vector<std::thread> threads;
        for (int i = 0; i < 4; i++) {
            threads.emplace_back([] {
                static thread_local leaves_late late;
                late.text += 'x';
            });
        }
        for (auto &thread : threads) {
            thread.join();
            leaves_late::sum += 0;
        }
    }
    std::printf("late %d\n", leaves_late::sum > 0);
    return 0;
}
"""


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_cplusplus(compiler: str, library: Path, tmp_path: Path) -> None:
    check_equal([compiled(compiler, CPLUSPLUS, "program.cc", tmp_path)], library)


FORKS = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCKS = 2000, THREADS = 3, FORKS = 12, DEEP = 3 };

static unsigned char *blocks[THREADS][BLOCKS];
static int over;
static pthread_barrier_t filled;

static void *work(void *arg)
{
    unsigned char **mine = arg;
    for (int i = 0; i < BLOCKS; i++) {
        mine[i] = malloc(i % 900 + 1);
        memset(mine[i], i, i % 900 + 1);
    }
    pthread_barrier_wait(&filled);
    for (unsigned n = 0; !__atomic_load_n(&over, __ATOMIC_ACQUIRE); n++) {
        free(realloc(malloc(n % 5000), n % 70000));
    }
    return NULL;
}

/* Frees what threads that are not here have allocated, allocates, and goes one deeper. */
static int child(int depth)
{
    long sum = 0;
    for (int t = 0; t < THREADS; t++) {
        for (int i = depth; i < BLOCKS; i += DEEP) {
            sum += blocks[t][i][i % 900];
            free(blocks[t][i]);
        }
    }
    pthread_t thread;
    static unsigned char *more[BLOCKS];
    over = 1;
    pthread_barrier_init(&filled, NULL, 1);
    pthread_create(&thread, NULL, work, more);
    pthread_join(thread, NULL);
    for (int i = 0; i < BLOCKS; i++) {
        sum += more[i][0];
        free(more[i]);
    }
    int status = 0;
    if (depth + 1 < DEEP) {
        pid_t pid = fork();
        if (pid == 0) {
            _exit(child(depth + 1));
        }
        waitpid(pid, &status, 0);
        sum += WEXITSTATUS(status);
    }
    return (int)(sum % 251);
}

int main(void)
{
    pthread_t threads[THREADS];
    pthread_barrier_init(&filled, NULL, THREADS + 1);
    for (int t = 0; t < THREADS; t++) {
        pthread_create(&threads[t], NULL, work, blocks[t]);
    }
    pthread_barrier_wait(&filled);
    for (int i = 0; i < FORKS; i++) {
        int status = 0;
        pid_t pid = fork();
        if (pid == 0) {
            _exit(child(0));
        }
        waitpid(pid, &status, 0);
        printf("%d %d\n", WIFEXITED(status), WEXITSTATUS(status));
        fflush(stdout);
    }
    __atomic_store_n(&over, 1, __ATOMIC_RELEASE);
    for (int t = 0; t < THREADS; t++) {
        pthread_join(threads[t], NULL);
    }
    return 0;
}
"""


def test_forks(library: Path, tmp_path: Path) -> None:
    """Children of a program whose threads allocate all the time, three generations deep."""
    check_equal([compiled("gcc", FORKS, "forks.c", tmp_path)], library)


MISUSE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *block = malloc(100);
    char *other = malloc(100);
    free(block);
    free(other);
    free(block);
    free(other + 8);
    char *third = malloc(100);
    char *fourth = malloc(100);
    printf("%d %d\n", third != fourth, (unsigned char)third[99] == 0xCD);
    return 0;
}
"""


def test_a_wish_that_is_none_is_told(library: Path) -> None:
    done = run(["/bin/true"], library, PYRUNTIME_HEAP_DEBUG="bogus")
    assert b"PYRUNTIME_HEAP_DEBUG is 'bogus', which is none of check, fill and off" in done.stderr
    for silent in ("", "off", "check", "fill"):
        assert run(["/bin/true"], library, PYRUNTIME_HEAP_DEBUG=silent).stderr == b""


def test_misuse_is_named_on_request(library: Path, tmp_path: Path) -> None:
    program = compiled("gcc", MISUSE, "misuse.c", tmp_path)
    done = run([program], library, PYRUNTIME_HEAP_DEBUG="fill")
    assert done.stdout == b"1 1\n"
    reports = [line for line in done.stderr.decode().splitlines() if line.startswith("pyruntime: pyrt_free: ")]
    assert len(reports) == 2
    assert "is free already" in reports[0]
    assert "8 bytes inside of the block at" in reports[1]


@pytest.mark.parametrize("flags", ["check", "fill"])
def test_programs_do_not_notice_that_they_are_watched(flags: str, library: Path, tmp_path: Path) -> None:
    check_equal([sys.executable, "-c", SQLITE], library, PYTHONMALLOC=OBJECTS_TOO, PYRUNTIME_HEAP_DEBUG=flags)
    check_equal([compiled("g++", CPLUSPLUS, "program.cc", tmp_path)], library, PYRUNTIME_HEAP_DEBUG=flags)
    check_equal([compiled("gcc", FORKS, "forks.c", tmp_path)], library, PYRUNTIME_HEAP_DEBUG=flags)
