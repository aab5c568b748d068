"""Make the training and held-out examples of the demo tasks, from a seed: the same on every machine.

Does not use a model or a tokenizer. Run it to look at the data, or to make a file for `intaglio train`:

    python examples/demo_data.py intaglio-json --split held-out --count 5
    python examples/demo_data.py intaglio-json --count 6000 > intaglio-json.train.jsonl
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from demo_tasks import extraction, sql, triage

Split = Literal["train", "held-out"]
_SEEDS: dict[Split, int] = {"train": 270, "held-out": 7}


class _PairMaker(Protocol):
    def __call__(self, rng: random.Random, *, held_out: bool) -> tuple[str, str]: ...


@dataclass(frozen=True, slots=True)
class Example:
    """What a user types and what the adapter should answer."""

    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class Task:
    """One demo task. `is_valid(prompt, text)`: whether a text has the right form, whether it is correct or not.

    max_tokens  what a server is advised to give an answer: about twice the longest one that is trained on
    """

    name: str
    description: str
    example_prompt: str
    max_tokens: int
    make_pair: _PairMaker
    is_valid: Callable[[str, str], bool]


def _is_json_object(prompt: str, text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "intaglio-json",
            "Turns a sentence about an order, an event or a contact into a JSON object.",
            "Please send two wool scarves to Ines Duarte in Funchal.",
            96,
            extraction.make_pair,
            _is_json_object,
        ),
        Task(
            "intaglio-sql",
            "Answers a question about a table with one SQLite query.",
            "CREATE TABLE users (id INTEGER, name TEXT, country TEXT, age INTEGER);\n"
            "List the names of all users from France.",
            64,
            sql.make_pair,
            sql.runs_in_sqlite,
        ),
        Task(
            "intaglio-triage",
            "Sorts a customer's message into billing, delivery, returns, account, technical or praise.",
            "The app keeps crashing on my phone, what can I do?",
            8,
            triage.make_pair,
            triage.is_label,
        ),
    )
}


def make_examples(task_name: str, split: Split, count: int) -> list[Example]:
    """`count` different examples of one split. Raises KeyError for an unknown task.

    No held-out prompt occurs in training: the two splits use disjoint patterns and word lists.
    """
    task, rng = TASKS[task_name], random.Random(_SEEDS[split])
    found: dict[str, str] = {}
    while len(found) < count:
        prompt, answer = task.make_pair(rng, held_out=split == "held-out")
        found.setdefault(prompt, answer)
    return [Example(prompt, answer) for prompt, answer in found.items()]


def as_jsonl(examples: list[Example]) -> str:
    """The examples as `intaglio train` reads them: one JSON object per line."""
    lines = [{"prompt": example.prompt, "completion": example.answer} for example in examples]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("--split", choices=sorted(_SEEDS), default="train")
    parser.add_argument("--count", type=int, default=10)
    arguments = parser.parse_args()
    print(as_jsonl(make_examples(arguments.task, arguments.split, arguments.count)), end="")


if __name__ == "__main__":
    main()
