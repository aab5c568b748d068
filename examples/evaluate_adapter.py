"""Run the held-out examples on a server, with the base and with the adapter, and print a table of scores.

    make serve                                            # in another terminal
    python examples/evaluate_adapter.py                   # the three demo tasks
    python examples/evaluate_adapter.py intaglio-sql --count 200 --show-errors

Uses only the Workers AI API and the standard library's HTTP client, so it can evaluate any server with that API. Runs
`--concurrency` requests at a time, with base and adapters mixed, like real traffic.

    exact    the answer is correct (JSON: equal as parsed objects)
    fields   the fraction of a JSON object's fields that are correct
    valid    the answer has the right form: a JSON object, a query that SQLite accepts, one of the labels
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from demo_data import TASKS, Example, Task, make_examples
from server import Server, add_server_options, server_of


@dataclass(frozen=True, slots=True)
class Question:
    """One request to make: an example, with the adapter's name or None for the base."""

    task: Task
    adapter: str | None
    example: Example


def ask(server: Server, question: Question) -> str:
    """The text of the completion. Raises RuntimeError with the server's message if it refuses."""
    body: dict[str, object] = {
        "messages": [{"role": "user", "content": question.example.prompt}],
        "temperature": 0,
        "max_tokens": 96,
    }
    if question.adapter is not None:
        body["lora"] = question.adapter
    return str(server.post(server.run_route, body)["result"]["response"])


@dataclass(frozen=True, slots=True)
class Score:
    """Fractions of correct answers, correct fields and well-formed answers, from 0 to 1."""

    exact: float
    fields: float | None
    valid: float


def is_exact(wanted: str, got: str) -> bool:
    """Equal as JSON where the wanted answer is an object, else equal as text without outer whitespace."""
    if not wanted.startswith("{"):
        return wanted == got.strip()
    return bool(_object(got) == json.loads(wanted))


def correct_fields(wanted: str, got: str) -> float:
    """The fraction of the wanted object's fields that are correct in `got`; 0 if `got` is not a JSON object."""
    fields: dict[str, object] = json.loads(wanted)
    found = _object(got) or {}
    return sum(name in found and found[name] == value for name, value in fields.items()) / len(fields)


def _object(text: str) -> dict[str, object] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def score(questions: list[Question], answers: list[str]) -> Score:
    pairs = list(zip(questions, answers, strict=True))
    count = len(pairs)
    exact = sum(is_exact(question.example.answer, answer) for question, answer in pairs)
    valid = sum(question.task.is_valid(question.example.prompt, answer.strip()) for question, answer in pairs)
    fields = None
    if questions[0].example.answer.startswith("{"):
        fields = sum(correct_fields(question.example.answer, answer) for question, answer in pairs) / count
    return Score(exact / count, fields, valid / count)


def print_errors(questions: list[Question], answers: list[str]) -> None:
    for question, answer in zip(questions, answers, strict=True):
        if question.adapter is not None and not is_exact(question.example.answer, answer):
            print(f"\nprompt: {question.example.prompt}\nwanted: {question.example.answer}\ngot:    {answer}")


def print_table(rows: list[tuple[str, str, Score]]) -> None:
    print("| adapter | asked of | exact | fields | valid |\n|---|---|---|---|---|")
    for task_name, asked_of, result in rows:
        fields = "-" if result.fields is None else f"{result.fields:.1%}"
        print(f"| `{task_name}` | {asked_of} | {result.exact:.1%} | {fields} | {result.valid:.1%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="task", help=f"default: all of {', '.join(TASKS)}")
    add_server_options(parser)
    parser.add_argument("--count", type=int, default=100, help="held-out examples for each task")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--adapter", help="name of your own adapter to evaluate instead of the task's demo adapter")
    parser.add_argument("--adapter-only", action="store_true", help="do not evaluate the base")
    parser.add_argument("--show-errors", action="store_true")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.tasks if name not in TASKS]:
        parser.error(f"unknown task {unknown[0]!r}; choose from {', '.join(TASKS)}")

    server = server_of(arguments)
    questions = [
        Question(TASKS[name], adapter, example)
        for name in arguments.tasks or TASKS
        for example in make_examples(name, "held-out", arguments.count)
        for adapter in ([] if arguments.adapter_only else [None]) + [arguments.adapter or name]
    ]
    started = time.monotonic()
    with ThreadPoolExecutor(arguments.concurrency) as pool:
        answers = list(pool.map(functools.partial(ask, server), questions))
    seconds = time.monotonic() - started

    groups: dict[tuple[str, str], tuple[list[Question], list[str]]] = {}
    for question, answer in zip(questions, answers, strict=True):
        asked, given = groups.setdefault((question.task.name, question.adapter or "base"), ([], []))
        asked.append(question)
        given.append(answer)
    if arguments.show_errors:
        print_errors(questions, answers)
    print_table([(*group, score(asked, given)) for group, (asked, given) in groups.items()])
    print(f"\n{len(questions)} requests, {arguments.concurrency} at a time, {seconds:.0f} s")


if __name__ == "__main__":
    main()
