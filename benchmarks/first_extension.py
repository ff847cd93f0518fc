"""From pip to a running extension, as the README has it: how long that takes, and how large the wheel is.

    pip wheel --no-deps -w dist . && python benchmarks/first_extension.py dist/*.whl

The page is run as it stands, in a directory of its own, with that wheel for the name of the package.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
SECONDS, BYTES = 60.0, 1 << 20


def page() -> tuple[str, list[str]]:
    """What the README tells a newcomer: counter.c, and the lines of the shell."""
    text = README.read_text()
    text = text[text.index("From nothing to a running extension") :]
    (c_language, source), (shell, lines) = re.findall(r"^```(c|sh)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[:2]
    assert (c_language, shell) == ("c", "sh")
    return source, lines.splitlines()


def run(wheel: Path) -> float:
    """The seconds that it takes."""
    source, lines = page()
    with tempfile.TemporaryDirectory() as where:
        (Path(where) / "counter.c").write_text(source)
        script = "\n".join(line.replace("pip install pyruntime-ft", f"pip install '{wheel}'") for line in lines)
        begun = time.monotonic()
        done = subprocess.run(["sh", "-euc", script], cwd=where, capture_output=True, text=True, check=False)
        took = time.monotonic() - begun
    if done.returncode != 0 or not done.stdout.endswith("42\n"):
        raise SystemExit(f"it does not work:\n{done.stdout}{done.stderr}")
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description="From pip to a running extension, as the README has it.")
    parser.add_argument("wheel", type=Path)
    wheel = parser.parse_args().wheel.resolve()
    size = os.path.getsize(wheel)
    print(f"{wheel.name}: {size / 1024:.0f} KiB, wanted less than {BYTES >> 10} KiB: {'met' if size < BYTES else 'MISSED'}")
    took = run(wheel)
    verdict = "met" if took <= SECONDS else "MISSED"
    print(f"from pip install to a running extension: {took:.1f} s, wanted {SECONDS:.0f} s or less: {verdict}")


if __name__ == "__main__":
    main()
