"""The demo tasks' data is honest (held-out is held out), repeatable, and right by its own rules."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
TASK_NAMES = ("intaglio-json", "intaglio-sql", "intaglio-triage")


@pytest.fixture
def demo_data(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import demo_data  # type: ignore[import-not-found]

    return sys.modules[demo_data.__name__]


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import evaluate_adapter  # type: ignore[import-not-found]

    return sys.modules[evaluate_adapter.__name__]


@pytest.mark.parametrize("task_name", TASK_NAMES)
def test_no_held_out_prompt_occurs_in_training(demo_data: ModuleType, task_name: str) -> None:
    trained_on = {example.prompt for example in demo_data.make_examples(task_name, "train", 3000)}
    held_out = {example.prompt for example in demo_data.make_examples(task_name, "held-out", 133)}
    assert len(held_out) == 133
    assert not trained_on & held_out


@pytest.mark.parametrize("task_name", TASK_NAMES)
def test_examples_are_the_same_each_time_and_a_shorter_list_is_a_prefix(demo_data: ModuleType, task_name: str) -> None:
    long = demo_data.make_examples(task_name, "held-out", 70)
    assert demo_data.make_examples(task_name, "held-out", 33) == long[:33]


@pytest.mark.parametrize("task_name", TASK_NAMES)
def test_every_wanted_answer_has_the_form_that_the_task_demands(demo_data: ModuleType, task_name: str) -> None:
    task = demo_data.TASKS[task_name]
    for example in demo_data.make_examples(task_name, "held-out", 133):
        assert task.is_valid(example.prompt, example.answer), example


def test_splits_of_the_extraction_task_share_no_entity_and_no_pattern(demo_data: ModuleType) -> None:
    words = demo_data.extraction
    for field in words.Words.__dataclass_fields__:
        assert not set(getattr(words.TRAIN_WORDS, field)) & set(getattr(words.HELD_OUT_WORDS, field)), field
    for kind, patterns in words.HELD_OUT_PATTERNS.items():
        assert not set(patterns) & set(words.TRAIN_PATTERNS[kind])


def test_splits_of_the_sql_task_share_no_table(demo_data: ModuleType) -> None:
    from demo_tasks.sql_tables import read_tables  # type: ignore[import-not-found]

    trained_on = {table.name for table in read_tables(held_out=False)}
    assert not trained_on & {table.name for table in read_tables(held_out=True)}


def test_splits_of_the_triage_task_share_no_message(demo_data: ModuleType) -> None:
    triage = demo_data.triage
    for label in triage.LABELS:
        assert not set(triage.TRAIN_CORES[label]) & set(triage.HELD_OUT_CORES[label])


def test_an_sql_answer_is_invalid_when_it_names_a_column_the_table_lacks(demo_data: ModuleType) -> None:
    prompt = "CREATE TABLE bikes (id INT, price INTEGER);\nHow many bikes are there?"
    assert demo_data.TASKS["intaglio-sql"].is_valid(prompt, "SELECT COUNT(*) FROM bikes;")
    assert not demo_data.TASKS["intaglio-sql"].is_valid(prompt, "SELECT color FROM bikes;")
    assert not demo_data.TASKS["intaglio-sql"].is_valid(prompt, "There are 3 bikes.")


def test_json_answers_are_compared_as_objects_and_field_by_field(evaluate: ModuleType) -> None:
    wanted = json.dumps({"type": "order", "item": "mug", "quantity": 3, "city": None})
    assert evaluate.is_exact(wanted, '{"quantity":3,"item":"mug","type":"order","city":null}')
    assert not evaluate.is_exact(wanted, wanted.replace("3", '"3"'))
    assert not evaluate.is_exact(wanted, "mug")
    assert evaluate.correct_fields(wanted, '{"type": "order", "item": "cup", "quantity": 3}') == 0.5
    assert evaluate.correct_fields(wanted, "[1]") == 0.0
    assert evaluate.is_exact("billing", " billing\n")
    assert not evaluate.is_exact("billing", "billing delivery")
