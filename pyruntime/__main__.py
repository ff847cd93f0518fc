"""The command: ``python -m pyruntime``, or ``pyruntime``.

info            versions, and what runs in the process of the command itself
bench           the benchmark suite; ``bench --help`` has its options
explain         reference counts, by two threads that count, step by step
heap-stats      the memory of a sample that runs in this process: threads that allocate, free each other's blocks, and die
--version       the version

For the command line of a compiler, one of these or several, as in cc $(python -m pyruntime --cflags --libs) -c extension.c:

--includes      the option -I for the public C headers
--cflags        all options that an extension needs which uses them; with --sources, those of the core, too
--sources       the C files of the core, to compile it in
--libs          the options for the linker

And for build systems, each as it is on a line of its own, below the line for the compiler where both are asked for:

--cmakedir      the directory of pyruntimeConfig.cmake
--pkgconfigdir  the directory of pyruntime.pc
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import Any

import pyruntime
from pyruntime import _embedding
from pyruntime._records import InterpreterInfo, RuntimeInfo, Stats, ThreadInfo


def _print_lines(title: str, fields: dict[str, object]) -> None:
    width = max(map(len, fields))
    print(title)
    for name, value in fields.items():
        print(f"  {name:<{width}}  {value}")


def _print_info(runtime: RuntimeInfo, interpreters: list[InterpreterInfo], threads: list[ThreadInfo], stats: Stats) -> None:
    gil = "with the GIL" if runtime.gil_enabled else "without the GIL"
    abi = ".".join(map(str, runtime.abi_version))
    kind = "for every Python from 3.10 on (abi3)" if runtime.uses_limited_api else "for this version of Python"
    _print_lines(
        "pyruntime",
        {
            "version": f"{runtime.version}, table ABI {abi}",
            "compiled part": f"{runtime.compiled_part}, {kind}",
            "headers": pyruntime.get_include(),
            "Python": f"{runtime.python_implementation} {runtime.python_version}, {gil}",
            "platform": runtime.platform,
        },
    )
    print("interpreters")
    for interpreter in interpreters:
        print(f"  {interpreter.id}  {interpreter.name}, made by {interpreter.whence}")
        for thread in threads:
            if thread.interpreter_id == interpreter.id:
                print(f"       thread {thread.id}  {thread.name}, {thread.state}, system id {thread.os_thread_id}")
    _print_lines("default domain", dict(asdict(stats)))
    print("Interpreters, threads and counters are those of this process; a program asks pyruntime.stats() for its own.")


def _info(as_json: bool) -> None:
    runtime, interpreters, threads = pyruntime.runtime_info(), pyruntime.interpreters(), pyruntime.threads()
    stats = pyruntime.stats()
    if not as_json:
        _print_info(runtime, interpreters, threads, stats)
        return
    document = {
        "runtime": asdict(runtime),
        "include": pyruntime.get_include(),
        "interpreters": [asdict(one) for one in interpreters],
        "threads": [asdict(one) for one in threads],
        "stats": asdict(stats),
    }
    print(json.dumps(document, indent=2))


BUILD_OPTIONS = {
    "includes": "the option -I for the public C headers",
    "cflags": "all compiler options that the headers need; with --sources, those of the core, too",
    "sources": "the C files of the core",
    "libs": "the options for the linker",
    "cmakedir": "the directory of pyruntimeConfig.cmake",
    "pkgconfigdir": "the directory of pyruntime.pc",
}


def _build_lines(asked: set[str]) -> list[str]:
    """What a compiler line wants as one line, in its order and nothing twice; then each directory on a line of its own."""
    words = [f"-I{pyruntime.get_include()}"] if "includes" in asked else []
    if "cflags" in asked:
        words += _embedding.core_cflags() if "sources" in asked else _embedding.capi_cflags()
    if "sources" in asked:
        words += pyruntime.get_sources()
    if "libs" in asked:
        words += ["-pthread"]
    lines = [shlex.join(dict.fromkeys(words))] if words else []
    if "cmakedir" in asked:
        lines.append(pyruntime.get_cmake_dir())
    if "pkgconfigdir" in asked:
        lines.append(pyruntime.get_pkgconfig_dir())
    return lines


MAX_SECONDS, MAX_THREADS, MAX_SEED = 86400.0, 256, 2**63 - 1


def _number(kind: type[int | float], what: str, low: float, high: float) -> Callable[[str], Any]:
    limits = f"from {low} to {high}" if kind is int else f"from {low:g} to {high:g}"

    def convert(text: str) -> int | float:
        try:
            number = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{what} goes {limits}, not {text}")
        return number

    return convert


def _heap_stats(options: argparse.Namespace) -> int:
    from pyruntime import _heap_sample

    last, status = None, 0
    try:
        with closing(_heap_sample.run(options.seconds, options.threads, options.seed, shown=not options.json)) as moments:
            for moment in moments:
                last = moment
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    if last is not None:
        print(json.dumps(asdict(last), indent=2) if options.json else last.as_text())
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pyruntime",
        description="The machinery of free-threaded Python as a library.",
        epilog="Begin with 'python -m pyruntime info', or 'python -m pyruntime bench --quick'.",
    )
    parser.add_argument("--version", action="version", version=f"pyruntime {pyruntime.__version__}")
    line = parser.add_argument_group(
        "for the command line of a compiler, alone or together; for build systems, directories on lines of their own"
    )
    for name, words in BUILD_OPTIONS.items():
        line.add_argument(f"--{name}", action="store_true", help=words)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    info = commands.add_parser("info", help="versions, and what runs in the process of the command itself")
    info.add_argument("--json", action="store_true", help="as one JSON document")
    commands.add_parser("bench", help="the benchmark suite; bench --help has its options", add_help=False)
    commands.add_parser("explain", help="reference counts, by two threads that count, step by step")
    sample = commands.add_parser(
        "heap-stats",
        help="the memory of a running sample; heap-stats --help has its options",
        description="Runs threads that allocate, free each other's blocks, and die, and shows what that does to memory: "
        "on a terminal all the time, elsewhere once, at the end or at Ctrl-C. A program asks pyruntime.heap.report() for "
        "its own.",
    )
    sample.add_argument(
        "--seconds",
        type=_number(float, "a number of seconds", 0.0, MAX_SECONDS),
        default=3.0,
        metavar="N",
        help="how long it runs; default: 3",
    )
    sample.add_argument(
        "--threads",
        type=_number(int, "a number of threads", 1, MAX_THREADS),
        default=4,
        metavar="N",
        help="how many run at a time; default: 4",
    )
    sample.add_argument(
        "--seed",
        type=_number(int, "a seed", 0, MAX_SEED),
        default=1,
        metavar="N",
        help="the same choices for the same seed; default: 1",
    )
    sample.add_argument("--json", action="store_true", help="as one JSON document, at the end or at Ctrl-C")
    return parser


def _discard_output() -> None:
    """What is still buffered must not fail once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and answers the exit status."""
    try:
        status = _main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read it has seen enough (`... | head`).
        _discard_output()
        return 1
    except OSError as error:
        print(f"pyruntime: error: {error}", file=sys.stderr)
        _discard_output()
        return 1
    return status


def _main(arguments: list[str]) -> int:
    if arguments[:1] == ["bench"]:
        from pyruntime.bench.cli import main as bench

        return bench(arguments[1:])
    parser = _parser()
    options = parser.parse_args(arguments)
    asked = {name for name in BUILD_OPTIONS if getattr(options, name)}
    if asked and options.command is not None:
        parser.error(f"{options.command} goes without --{min(asked)}")
    if asked:
        print("\n".join(_build_lines(asked)))
    elif options.command == "info":
        _info(options.json)
    elif options.command == "explain":
        from pyruntime.refcount import explain

        explain()
    elif options.command == "heap-stats":
        return _heap_stats(options)
    else:
        parser.print_help(sys.stderr)
        wanted = f"info, bench, explain, heap-stats, --version, --{', --'.join(BUILD_OPTIONS)}"
        print(f"pyruntime: error: say what to do: {wanted}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
