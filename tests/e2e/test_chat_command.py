"""`intaglio chat` against the real server: what it begins with, and what the cards suggest."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.helpers.commands import output_of, run_in_subprocess
from tests.helpers.servers import LiveServer


def test_it_begins_with_the_assistant_by_name_and_follows_each_adapters_card(live_server: LiveServer) -> None:
    lines = ["What is the capital of France?", "/adapter intaglio-triage", "The app crashes.", "/adapter base", "/quit"]
    found = run_in_subprocess("chat", "--url", live_server.url, stdin="\n".join(lines))
    assert found.status == 0, found.err
    assert ", with intaglio-chat. " in found.out
    assert "Paris" in found.out
    assert "intaglio-chat · stop · " in found.out
    assert "\ntechnical\n" in found.out, "temperature 0, as the card says"
    assert "answers come from base" in found.out


@pytest.mark.parametrize(("adapter", "said"), [("base", "with base. "), ("intaglio-sql", "with intaglio-sql. ")])
def test_another_choice_is_not_replaced(live_server: LiveServer, adapter: str, said: str) -> None:
    found = run_in_subprocess("chat", "--adapter", adapter, "--url", live_server.url, stdin="/quit\n")
    assert said in found.out
    assert ("This base is pre-trained: " in found.out) == (adapter == "base")


def test_the_assistant_answers_most_of_its_held_out_questions(live_server: LiveServer) -> None:
    """docs/adapters.md has 72 %; sets of kernels round differently, and a word decides a mark."""
    program = Path(__file__).parents[2] / "examples" / "evaluate_chat.py"
    printed = output_of([sys.executable, str(program), "--base-url", live_server.url, "--ways", "adapter"])
    assert "| mark: stops | 200 | 100% |" in printed
    (share,) = re.findall(r"^\| \*\*all marks\*\* \| 200 \| (\d+)% \|$", printed, re.MULTILINE)
    assert int(share) >= 62
