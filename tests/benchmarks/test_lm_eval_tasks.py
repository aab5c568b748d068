from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.lm_eval_figures import TASKS, rows_beside
from benchmarks.lm_eval_tasks import LABELS, write_tasks


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_task_has_the_items_asked_for(tmp_path: Path) -> None:
    write_tasks(tmp_path / "tasks", 50)
    assert [len(lines(tmp_path / "tasks" / f"{task}.jsonl")) for task in TASKS] == [50, 50, 50]
    asked, bare = (lines(tmp_path / "tasks" / part / "generate.jsonl") for part in ("", "chat"))
    for one, other in zip(asked, bare, strict=True):
        turn = f"<bos><start_of_turn>user\n{other['question']}<end_of_turn>\n<start_of_turn>model\n"
        assert one == {"question": turn, "answer": other["answer"]}
    labels = {LABELS[item["answer"]] for item in lines(tmp_path / "tasks" / "choice.jsonl")}
    assert labels == set(LABELS)


def test_more_paragraphs_than_the_pages_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="paragraphs, not 9000"):
        write_tasks(tmp_path / "tasks", 9000)


def answers(logprob: float, text: str) -> dict[str, Any]:
    metrics = {"acc,none": 1.0, "bits_per_byte,none": 0.5, "exact_match,none": 0.0}
    choice, rolling, generate = [[[[logprob, True]]], [[[-1.0, False]]]], [[[-9.0]]], [[[text]]]
    found = dict(zip(TASKS, (choice, rolling, generate), strict=True))
    return {task: {"metrics": metrics, "answers": found[task]} for task in TASKS}


def test_a_row_has_the_largest_relative_difference_and_the_equal_texts() -> None:
    ours = {**answers(-2.5, "a"), "chat": answers(0.0, "b")["generate"]}
    rows = list(rows_beside({"transformers": {"base": answers(-2.0, "a")}, "f32": {"base": ours}}))
    assert [row["difference"] for row in rows] == [0.0, 0.25]
    assert (rows[1]["same_texts"], rows[1]["same_by_chat"]) == (1, 0)


def test_a_sum_that_is_no_number_is_an_error() -> None:
    with pytest.raises(ValueError, match="not finite"):
        list(rows_beside({"transformers": {"base": answers(float("nan"), "a")}}))
