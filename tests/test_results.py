"""The page of results: it is of the suite as it is now, its commands can be run, and it says which goals were met."""

from __future__ import annotations

import re
import shlex

import pytest
from c_support import ROOT

from pyruntime.bench import cli, page
from pyruntime.bench.suite import SUITE, Bench, Kind, select_benches

TEXT = (ROOT / "docs" / "results.md").read_text()
SECTIONS = dict(re.findall(r"^### (\S+)\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL))


def test_it_has_every_benchmark_and_no_other() -> None:
    assert list(SECTIONS) == [bench.name for bench in SUITE], "python -m pyruntime bench --page docs/results.md"


@pytest.mark.parametrize("bench", SUITE, ids=lambda bench: bench.name)
def test_each_benchmark_has_its_words_its_command_and_its_goals(bench: Bench) -> None:
    section = SECTIONS[bench.name]
    assert section.startswith(f"\n{bench.measures[0].upper()}{bench.measures[1:]}.\n")
    (command,) = re.findall(r"^```sh\n(.*)\n```$", section, re.MULTILINE)
    words = shlex.split(command)
    assert words[:4] == ["python", "-m", "pyruntime", "bench"]
    options = cli._parser().parse_args(words[4:])
    assert bench in select_benches(options.names)
    assert len(select_benches(options.names)) == 1 or bench.kind is Kind.MEAN
    assert options.quick is (f"\n- {page.QUICK_RUN}\n" in TEXT)
    # The implementations in the order of the suite, and a verdict for each goal whose figure could be taken.
    rows = [row.split(" | ") for row in section.splitlines() if row.startswith("| ")]
    assert rows[0][1] == "implementation"
    found = [row[1] for row in rows[1:] if not row[1].startswith("---")]
    assert found[0] == bench.ours
    assert set(found) <= set(bench.impls)
    goals = [goal for goal in bench.goals if goal.peer is None or goal.peer in found]
    assert len(re.findall(r"[<>]= [^;|]* (?:met|MISSED)(?=[; ])", section)) == len(goals) * len(bench.threads)


def test_what_was_missed_stands_at_its_head() -> None:
    met, all_of_them = map(int, re.search(r"^Goals met: (\d+) of (\d+)[;.]", TEXT, re.MULTILINE).groups())  # type: ignore[union-attr]
    verdicts = re.findall(r"[<>]= [^;|]* (met|MISSED)(?=[; ])", TEXT)
    assert (verdicts.count("met"), len(verdicts)) == (met, all_of_them)
    head = TEXT[TEXT.index("Goals met: ") : TEXT.index("\n## ")]
    missed = re.findall(r"^- ([a-z_0-9.]+)[:,]", head, re.MULTILINE)
    assert len(missed) == all_of_them - met
    assert set(missed) <= set(SECTIONS)


def test_it_says_where_and_when_it_was_taken() -> None:
    where = (r"pyruntime \d\S+, CPython \S+ with(out)? the GIL", r".+, \d+ cores, Linux .+")
    for line in (*where, r"of \d{4}-\d\d-\d\d, with a load of .+"):
        assert re.search(rf"^- {line}$", TEXT, re.MULTILINE), line


def test_it_is_found() -> None:
    for name in ("README.md", "CHANGELOG.md"):
        assert "docs/results.md" in (ROOT / name).read_text(), name
