"""A program built with AddressSanitizer is told of its uses of freed blocks, whether the core was built so or not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from c_support import BUILD, HANG_GUARD, INCLUDE, Config, build, compiles

PROGRAM = """
#include <pyruntime/pyruntime.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    int which = argc > 1 ? atoi(argv[1]) : 0;
    if (pyrt_runtime_init() != PYRT_OK) {
        return 9;
    }
    pyrt_interp *interp = pyrt_interp_main();
    pyrt_heap_config config = {.struct_size = sizeof(config), .type_stable = which == 3};
    pyrt_heap *heap = pyrt_heap_new(interp, &config);
    pyrt_thread *thread = pyrt_thread_ensure(interp);
    char *block = which == 1 ? pyrt_malloc(100) : pyrt_heap_malloc(thread, heap, 100);
    block[99] = 'x';
    if (which != 0) {
        pyrt_free(block);
    }
    putchar(block[which == 3 ? 0 : 99]);
    if (which == 0) {
        pyrt_free(block);
    }
    pyrt_thread_release(thread);
    pyrt_heap_delete(heap);
    return pyrt_runtime_fini() == PYRT_OK ? 0 : 8;
}
"""


@pytest.mark.parametrize("core", ["plain", "address"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_a_use_after_free_is_named(compiler: str, core: str, tmp_path: Path) -> None:
    config = Config(compiler, core)
    build(config)
    objects = sorted(map(str, (BUILD / str(config) / "csrc" / "core").rglob("*.o")))
    flags = ["-std=gnu11", "-g", "-fsanitize=address,undefined", f"-I{INCLUDE}", "-pthread", "-o", "program"]
    done = compiles([compiler, *flags, *objects], PROGRAM, "program.c", tmp_path)
    assert done.returncode == 0, done.stderr

    def run(which: int) -> subprocess.CompletedProcess[str]:
        command = [str(tmp_path / "program"), str(which)]
        return subprocess.run(command, capture_output=True, text=True, timeout=HANG_GUARD)

    good = run(0)
    assert (good.returncode, good.stdout, good.stderr) == (0, "x", "")
    for which in (1, 2):
        bad = run(which)
        assert bad.returncode != 0
        assert "AddressSanitizer: use-after-poison" in bad.stderr
        assert "in main" in bad.stderr
    # Readers may still be looking at the first bytes of a type-stable one.
    stable = run(3)
    assert (stable.returncode, stable.stderr) == (0, "")
