"""The questions of intaglio-chat are honest (held-out is held out), its marks right, and its data has all of them."""

from __future__ import annotations

import importlib
import json
import random
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _examples_on_the_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    for name in [
        name for name in sys.modules if name.startswith(("chat_assistant", "distil_chat", "train_adapter", "server"))
    ]:
        del sys.modules[name]


@pytest.fixture
def questions() -> ModuleType:
    return importlib.import_module("chat_assistant.questions")


@pytest.fixture
def marks() -> ModuleType:
    return importlib.import_module("chat_assistant.marks")


@pytest.fixture
def few_shot() -> ModuleType:
    return importlib.import_module("chat_assistant.few_shot")


@pytest.fixture
def distil() -> ModuleType:
    return importlib.import_module("distil_chat")


def shipped_chats() -> list[list[dict[str, str]]]:
    from train_adapter import CHAT_DATA  # type: ignore[import-not-found]

    return [json.loads(line)["messages"] for line in CHAT_DATA.read_text("utf-8").splitlines()]


def test_there_are_200_held_out_questions_of_every_kind_and_no_two_are_alike(questions: ModuleType) -> None:
    held_out = questions.held_out_questions()
    assert len({question.text for question in held_out}) == 200
    assert {question.kind for question in held_out} == set(questions.KINDS)
    assert held_out == questions.held_out_questions()


def test_no_training_question_asks_what_a_held_out_one_asks(questions: ModuleType, few_shot: ModuleType) -> None:
    held_out = questions.held_out_questions()
    trained_on = questions.train_questions()
    assert not {(one.kind, one.topic) for one in held_out} & {(one.kind, one.topic) for one in trained_on}
    shown = {question for kind in questions.KINDS for question, _ in few_shot.examples(kind)}
    assert not {one.text for one in held_out} & ({one.text for one in trained_on} | shown)


def test_the_shipped_data_has_no_held_out_question(questions: ModuleType) -> None:
    asked = {turn["content"] for chat in shipped_chats() for turn in chat if turn["role"] == "user"}
    assert len(asked) > 800
    assert not asked & {question.text for question in questions.held_out_questions()}


def test_every_answer_of_the_shipped_data_to_a_question_of_the_project_has_all_marks(
    questions: ModuleType, marks: ModuleType
) -> None:
    wanted = {question.text: question.wanted for question in questions.train_questions()}
    judged = [
        marks.mark(wanted[asked["content"]], answer["content"], stops=True).all_right
        for chat in shipped_chats()
        for asked, answer in pairwise(chat)
        if asked["role"] == "user" and asked["content"] in wanted
    ]
    assert len(judged) > 800
    assert all(judged)


def test_the_answers_of_the_few_shot_dialogues_have_the_form_of_their_kind(
    questions: ModuleType, few_shot: ModuleType, marks: ModuleType
) -> None:
    for kind in questions.KINDS:
        for question, answer in few_shot.examples(kind):
            if kind == "list":
                assert len(marks.items_of(answer)) >= 2, question
            else:
                assert "\n" not in answer, question
                assert answer[-1] in ".?!", question
            assert marks.says_it_does_not_know(answer) == (kind == "unknown"), question


@pytest.mark.parametrize(
    ("wanted", "answer", "missed"),
    [
        ({"any_of": ("Paris",)}, "Paris is the capital of France.", set()),
        ({"any_of": ("Paris",)}, "The capital is paris.", set()),
        ({"any_of": ("Paris",)}, "Comparison.", {"fact"}),
        ({"any_of": ("Paris",)}, "London is the capital of France.", {"fact"}),
        ({"any_of": ("Paris",)}, "I do not know whether it is Paris.", {"fact"}),
        ({"any_of": ("Paris",)}, "Paris", {"form"}),
        ({"any_of": ("Paris",)}, "Paris.\nParis.", {"form"}),
        ({"any_of": ("Paris",), "max_words": 2}, "It is Paris.", {"length"}),
        ({"any_of": ("please",), "all_of": ("salt",)}, "Could you please pass me the salt?", set()),
        ({"any_of": ("please",), "all_of": ("salt",)}, "Could you please pass it?", {"fact"}),
        ({"exact": "Is he here?", "question": True}, "Is he here?", set()),
        ({"exact": "Is he here?", "question": True}, "Is he here.", {"fact", "form"}),
        ({"exact": "I walked home."}, '"i walked home".', set()),
        ({"exact": "I walked home."}, "I walk home.", {"fact"}),
        ({"items": 2, "members": ("cherry", "apple")}, "- Apples\n- Cherries", set()),
        ({"items": 2, "members": ("cherry", "apple")}, "1. apple\n2) cherry.", set()),
        ({"items": 2, "members": ("cherry", "apple")}, "- apple\n- apple", {"form"}),
        ({"items": 2, "members": ("cherry", "apple")}, "- apple", {"form"}),
        ({"items": 2, "members": ("cherry", "apple")}, "- apple\n- stone", {"fact"}),
        ({"items": 2, "members": ("cherry", "apple")}, "apple and cherry.", {"fact", "form"}),
        ({"knows": False}, "I do not know your name.", set()),
        ({"knows": False}, "Your name is Anna.", {"fact"}),
        ({}, "", {"form", "length"}),
    ],
)
def test_an_answer_gets_the_marks_that_it_deserves(
    marks: ModuleType, wanted: dict[str, object], answer: str, missed: set[str]
) -> None:
    found = marks.mark(marks.Wanted(**wanted), answer, stops=True)
    assert {name for name in ("fact", "form", "length", "stops") if not getattr(found, name)} == missed
    assert found.all_right == (not missed)
    assert not marks.mark(marks.Wanted(**wanted), answer, stops=False).all_right


def test_what_the_base_went_on_with_is_no_part_of_its_answer(few_shot: ModuleType) -> None:
    assert few_shot.answer_of(" Paris.\nUser: And of Spain?\nAssistant: Madrid.") == "Paris."
    assert few_shot.prompt("Why?").endswith("\nUser: Why?\nAssistant:")
    with pytest.raises(KeyError):
        few_shot.prompt("Why?", "no such kind")


def test_each_answer_is_in_one_chat_and_a_follow_up_has_the_answer_of_its_own_question(
    distil: ModuleType, questions: ModuleType, marks: ModuleType
) -> None:
    pairs = [(f"question {number}", f"answer {number}") for number in range(50)]
    chats = distil.as_chats(pairs, random.Random(1))
    turns = [(a["content"], b["content"]) for chat in chats for a, b in pairwise(chat)]
    assert sorted(pair for pair in turns if pair in pairs) == sorted(pairs)
    assert {chat[-1]["role"] for chat in chats} == {"assistant"}
    assert max(len(chat) for chat in chats) > 3

    kept = [
        (questions.Question("fact", f"What is the capital of {country}?", marks.Wanted(), country), f"{city}.")
        for country, city in (("Peru", "Lima"), ("Cuba", "Havana"))
    ]
    chats = distil.follow_ups(kept, random.Random(1), 5)
    assert len(chats) == 5
    for chat in chats:
        assert ("Peru" in chat[2]["content"]) == (chat[3]["content"] == "Lima.")


def test_only_right_answers_are_kept_and_a_missed_question_is_asked_again(
    distil: ModuleType, questions: ModuleType, marks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    peru, cuba, nowhere = (
        questions.Question("fact", f"What is the capital of {country}?", marks.Wanted(any_of=(city,)), country)
        for country, city in (("Peru", "Lima"), ("Cuba", "Havana"), ("Nowhere", "Nothing"))
    )
    rounds: list[list[str]] = []

    def answers(_: None, asked: list[object], temperature: float, seed: int) -> list[str]:
        rounds.append([question.topic for question in asked])  # type: ignore[attr-defined]
        return ["Lima is it." if len(rounds) == 1 else "Havana is it." for _ in asked]

    monkeypatch.setattr(distil, "ask_base", answers)
    assert distil.distil(None, [peru, cuba, nowhere]) == [(peru, "Lima is it."), (cuba, "Havana is it.")]
    assert rounds == [["Peru", "Cuba", "Nowhere"], ["Cuba", "Nowhere"], ["Nowhere"], ["Nowhere"]]
