"""Print the results of test runs, one line for each run and suite, from the JUnit files that pytest wrote.

    suite_table.py RUN.xml ...      a run is named after its file: default.xml, kernels-plain.xml, oracle.xml

A suite is a folder of tests/, or a file directly in it. Exits with 1 if a test failed or a file has no tests.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree


@dataclass
class Tally:
    """The results of one suite in one run. seconds: sum over its tests, in all processes."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0

    def add(self, case: ElementTree.Element) -> None:
        self.seconds += float(case.get("time", 0))
        if case.find("failure") is not None or case.find("error") is not None:
            self.failed += 1
        elif case.find("skipped") is not None:
            self.skipped += 1
        else:
            self.passed += 1


def suite_of(case: ElementTree.Element) -> str:
    """tests.ops.test_cpu -> ops, tests.test_llm -> test_llm"""
    return case.get("classname", "").removeprefix("tests.").split(".")[0]


def read_run(path: Path) -> dict[str, Tally]:
    """The tallies of one run by suite, sorted by name."""
    suites: dict[str, Tally] = defaultdict(Tally)
    for case in ElementTree.parse(path).iter("testcase"):
        suites[suite_of(case)].add(case)
    return dict(sorted(suites.items()))


def main(paths: list[Path]) -> int:
    runs = {path.stem: read_run(path) for path in paths}
    print(f"{'run':<20} {'suite':<18} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}")
    for run, suites in runs.items():
        for suite, tally in suites.items():
            print(f"{run:<20} {suite:<18} {tally.passed:>7} {tally.failed:>7} {tally.skipped:>8} {tally.seconds:>8.1f}")
    return int(any(not suites or any(tally.failed for tally in suites.values()) for suites in runs.values()))


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]]))
