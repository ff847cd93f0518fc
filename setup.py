"""The parts of the build that pyproject.toml cannot say: the version of config.h, the description without its pictures, the
headers in the wheel, the wheel's tag."""

from __future__ import annotations

import re
import shutil
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
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


class BuildWithHeaders(build_py):
    """Puts the public headers into the package, where pyruntime.get_include() finds them; not in an editable installation,
    where it finds those of the source tree."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "pyruntime/include/pyruntime")
            target.mkdir(parents=True, exist_ok=True)
            for header in sorted(HEADERS.glob("*.h")):
                shutil.copy2(header, target)


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
    cmdclass={"build_py": BuildWithHeaders, "bdist_wheel": TaggedWheel},
)
