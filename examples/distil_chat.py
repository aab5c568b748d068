"""Make the training data of intaglio-chat: ask the base with few-shot prompts, keep the answers that are right.

    make serve                                            # in another terminal
    python examples/distil_chat.py intaglio-chat.train.jsonl

Each question is asked some times through the asynchronous batch route, with the dialogue of its kind before it
(chat_assistant/few_shot.py): once at temperature 0, then with a temperature. The first answer that gets all marks
(chat_assistant/marks.py) is kept; a question without one is left out, so the adapter does not learn to say what the
base does not know. Chats of some turns are put together from what is kept. Uses only the Workers AI API and the
standard library.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path

from chat_assistant import few_shot
from chat_assistant.marks import mark
from chat_assistant.questions import KINDS, Question, train_questions
from server import Server, add_server_options, server_of

BATCH_ITEMS = 200
POLL_S = 2.0
TRIES = (0.0, 0.5, 0.5, 0.8)  # temperatures
SYSTEM_TEXTS = (
    "You are a helpful assistant.",
    "Answer briefly.",
    "You are a friendly assistant. Answer in short sentences.",
)
_CAPITAL = "What is the capital of "
# Kinds with few questions of their own are written several times, each time with another answer.
REPEATED = {"small talk": 6, "unknown": 2}


def ask_base(server: Server, questions: list[Question], temperature: float, first_seed: int) -> list[str]:
    """What the base answers, through the batch route. Raises RuntimeError if a request failed."""
    answers: list[str] = []
    for start in range(0, len(questions), BATCH_ITEMS):
        requests = [
            {
                "prompt": few_shot.prompt(question.text, question.kind),
                "raw": True,
                "max_tokens": 8 + question.wanted.max_words * 3 // 2,  # the base does not stop by itself
                "temperature": temperature,
                "seed": first_seed + start + number,
            }
            for number, question in enumerate(questions[start : start + BATCH_ITEMS])
        ]
        route = f"{server.run_route}?queueRequest=true"
        result = server.post(route, {"requests": requests})["result"]
        while "responses" not in result:
            time.sleep(POLL_S)
            result = server.post(route, {"request_id": result["request_id"]})["result"]
        for response in result["responses"]:
            if not response["success"]:
                raise RuntimeError(f"a request of the batch failed: {response['errors']}")
            answers.append(few_shot.answer_of(response["result"]["response"]))
        print(f"  temperature {temperature:g}: {len(answers)} of {len(questions)}", file=sys.stderr)
    return answers


def distil(server: Server, questions: list[Question]) -> list[tuple[Question, str]]:
    """Questions with an answer that got all marks. A kind in REPEATED may have a question several times."""
    kept: dict[tuple[str, str], Question] = {}
    open_questions = questions
    for number, temperature in enumerate(TRIES * max(REPEATED.values())):
        wanted_times = [question for question in open_questions if number < len(TRIES) * REPEATED.get(question.kind, 1)]
        if not wanted_times:
            break
        answers = ask_base(server, wanted_times, temperature, 1 + 10_000 * number)
        for question, answer in zip(wanted_times, answers, strict=True):
            if mark(question.wanted, answer, stops=True).all_right:
                kept[question.text, answer] = question
        times: dict[str, int] = {}
        for asked, _ in kept:
            times[asked] = times.get(asked, 0) + 1
        open_questions = [one for one in wanted_times if times.get(one.text, 0) < REPEATED.get(one.kind, 1)]
    return [(question, answer) for (_, answer), question in kept.items()]


def turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def as_chats(pairs: list[tuple[str, str]], rng: random.Random) -> list[list[dict[str, str]]]:
    """Chats of one to three turns, some with a system text; each pair is in one of them."""
    pairs = rng.sample(pairs, len(pairs))
    chats: list[list[dict[str, str]]] = []
    while pairs:
        num_turns = rng.choice((1, 1, 1, 2, 3))
        chosen, pairs = pairs[:num_turns], pairs[num_turns:]
        system = [{"role": "system", "content": rng.choice(SYSTEM_TEXTS)}] if rng.random() < 0.15 else []
        chats.append(system + [turn for pair in chosen for turn in turns(*pair)])
    return chats


def follow_ups(kept: list[tuple[Question, str]], rng: random.Random, count: int) -> list[list[dict[str, str]]]:
    """Chats whose second question is understood from the first: the capital of one country, and of another."""
    capitals = [(question, answer) for question, answer in kept if question.text.startswith(_CAPITAL)]
    chats: list[list[dict[str, str]]] = []
    for _ in range(count if len(capitals) > 1 else 0):
        (first, first_answer), (second, second_answer) = rng.sample(capitals, 2)
        wording = rng.choice(("And of {}?", "And the capital of {}?", "What about {}?"))
        asked = wording.format(second.text.removeprefix(_CAPITAL).rstrip("?"))
        chats.append(turns(first.text, first_answer) + turns(asked, second_answer))
    return chats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    add_server_options(parser)
    parser.add_argument("--count", type=int, help="only so many questions, to try it")
    arguments = parser.parse_args()

    questions = train_questions()[: arguments.count]
    kept = distil(server_of(arguments), questions)
    written = [pair for kind in KINDS for pair in few_shot.examples(kind)]
    pairs = [(question.text, answer) for question, answer in kept] + written
    rng = random.Random(270)
    chats = as_chats(pairs, rng) + follow_ups(kept, rng, len(kept) // 25)
    lines = [json.dumps({"messages": chat}, ensure_ascii=False) for chat in rng.sample(chats, len(chats))]
    arguments.out.write_text("".join(f"{line}\n" for line in lines), "utf-8")

    print("| kind | questions | answers kept |\n|---|---|---|")
    for kind in KINDS:
        asked = sum(question.kind == kind for question in questions)
        print(f"| {kind} | {asked} | {sum(question.kind == kind for question, _ in kept)} |")
    print(f"\n{arguments.out}: {len(lines)} chats of {len(pairs)} answers")


if __name__ == "__main__":
    main()
