"""The table of a CI run says what the JUnit files say, and fails where they do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "suite_table.py"
CASES = """<testsuites><testsuite name="pytest">
<testcase classname="tests.ops.test_cpu" name="a" time="0.5"/>
<testcase classname="tests.ops.test_cpu" name="b" time="1.5"><skipped message="no AMX"/></testcase>
<testcase classname="tests.test_llm" name="c" time="2.0">{}</testcase>
</testsuite></testsuites>"""


def table(*paths: Path) -> tuple[int, list[list[str]]]:
    done = subprocess.run([sys.executable, SCRIPT, *paths], capture_output=True, text=True, check=False)
    return done.returncode, [line.split() for line in done.stdout.splitlines()[1:]]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_line_for_each_suite_of_a_run(tmp_path: Path) -> None:
    code, lines = table(write(tmp_path / "kernels-avx2.xml", CASES.format("")))
    assert code == 0
    assert lines == [
        ["kernels-avx2", "ops", "1", "0", "1", "2.0"],
        ["kernels-avx2", "test_llm", "1", "0", "0", "2.0"],
    ]


def test_a_failure_an_error_and_a_run_without_tests_fail(tmp_path: Path) -> None:
    for index, fault in enumerate(("<failure/>", "<error/>")):
        code, lines = table(write(tmp_path / f"{index}.xml", CASES.format(fault)))
        assert (code, lines[1][2:4]) == (1, ["0", "1"])
    assert table(write(tmp_path / "none.xml", "<testsuites/>"))[0] == 1
