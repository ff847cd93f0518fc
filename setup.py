"""The parts of the build that pyproject.toml cannot say: the version of config.h, the description without its pictures, what
others build with in the wheel, a compilation on all cores, the wheel's tag."""

from __future__ import annotations

import re
import shutil
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

HEADERS = Path("csrc/include/pyruntime")


def version() -> str:
    """The core's own, so that it stands in one place."""
    match = re.search(r'^#define PYRT_VERSION "(.+)"$', (HEADERS / "config.h").read_text(), re.MULTILINE)
    assert match is not None
    return match[1]


def description() -> str:
    """The README. Its pictures are files of the source tree, which a package index does not have."""
    return re.sub(r"^!\[[^]]*\]\(benchmarks/[^)]*\)\n\n", "", Path("README.md").read_text(), flags=re.MULTILINE)


class BuildForEmbedding(build_py):
    """Puts into the package, as they lie in the source tree, the headers, the sources of the core and the files of build
    systems, where pyruntime.get_include() and the like find them; not in an editable installation, where they find those of
    the source tree."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for name in ("include", "core", "cmake", "lib"):
                shutil.copytree(f"csrc/{name}", Path(self.build_lib, "pyruntime/csrc", name), dirs_exist_ok=True)


class BuildOnAllCores(build_ext):
    """Compiles the sources of the one extension next to one another."""

    def build_extensions(self) -> None:
        compile_some = self.compiler.compile

        def compile_all(sources: list[str], *args: Any, **options: Any) -> list[str]:
            with ThreadPoolExecutor() as pool:
                made = pool.map(lambda source: compile_some([source], *args, **options), sources)
                return [file for files in made for file in files]

        self.compiler.compile = compile_all
        super().build_extensions()


class TaggedWheel(bdist_wheel):
    """One wheel for all versions with a GIL; one for each version without."""

    def finalize_options(self) -> None:
        if not sysconfig.get_config_var("Py_GIL_DISABLED"):
            self.py_limited_api = "cp310"
        super().finalize_options()


setup(
    version=version(),
    long_description=description(),
    long_description_content_type="text/markdown",
    cffi_modules=["csrc/build_ffi.py:ffibuilder"],
    cmdclass={"build_py": BuildForEmbedding, "build_ext": BuildOnAllCores, "bdist_wheel": TaggedWheel},
)
