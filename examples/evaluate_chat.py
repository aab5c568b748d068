"""Ask a server the 200 held-out questions of intaglio-chat, and print how many answers get all marks.

    make serve                                            # in another terminal
    python examples/evaluate_chat.py
    python examples/evaluate_chat.py --show-errors --ways adapter

Each question is asked in three ways: the base as a chat, the base with five examples before the question (raw, up to
the next "User:"), and the adapter as a chat; all with temperature 0 and in one mix of requests, like real traffic. An
answer gets four marks (chat_assistant/marks.py):

    fact     what it says is right: the name, the sentence, the members of the list; or it says that it does not know
    form     one sentence or paragraph that ends; a question; a list of as many items as wanted
    length   not longer than the question wants
    stops    the answer ended by itself
"""

from __future__ import annotations

import argparse
import functools
import time
from concurrent.futures import ThreadPoolExecutor

from chat_assistant import few_shot
from chat_assistant.marks import Marks, mark
from chat_assistant.questions import HELD_OUT_COUNTS, Question, held_out_questions
from server import Server, add_server_options, server_of

ADAPTER = "intaglio-chat"
MAX_TOKENS = 128
WAYS = {"base": "base", "few-shot": "base with five examples", "adapter": "adapter"}


def ask(server: Server, adapter: str, asked: tuple[str, Question]) -> tuple[str, Marks]:
    """The answer and its marks. Raises RuntimeError with the server's message if it refuses."""
    way, question = asked
    body: dict[str, object] = {"model": server.model, "temperature": 0, "max_tokens": MAX_TOKENS}
    if way == "few-shot":
        body |= {"prompt": few_shot.prompt(question.text), "stop": few_shot.END_OF_ANSWER}
        (choice,) = server.post("ai/v1/completions", body)["choices"]
        answer = choice["text"]
    else:
        body |= {"messages": [{"role": "user", "content": question.text}]} | (
            {"lora": adapter} if way == "adapter" else {}
        )
        (choice,) = server.post("ai/v1/chat/completions", body)["choices"]
        answer = choice["message"]["content"]
    return answer.strip(), mark(question.wanted, answer, stops=choice["finish_reason"] == "stop")


def print_table(ways: list[str], marked: dict[tuple[str, str], list[Marks]]) -> None:
    """A row for each kind of question, then one for each mark: the share of the answers of each way that have it."""
    print(f"| | questions | {' | '.join(WAYS[way] for way in ways)} |\n|---|---|{'---|' * len(ways)}")

    def row(name: str, chosen: list[list[Marks]], read: str = "all_right") -> None:
        shares = [sum(getattr(one, read) for one in marks) / len(marks) for marks in chosen]
        print(f"| {name} | {len(chosen[0])} | {' | '.join(f'{share:.0%}' for share in shares)} |")

    for kind in HELD_OUT_COUNTS:
        row(kind, [marked[way, kind] for way in ways])
    everything = [[one for kind in HELD_OUT_COUNTS for one in marked[way, kind]] for way in ways]
    row("**all marks**", everything)
    for name in ("fact", "form", "length", "stops"):
        row(f"mark: {name}", everything, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_server_options(parser)
    parser.add_argument("--adapter", default=ADAPTER)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--show-errors", action="store_true", help="print the answers that miss a mark")
    arguments = parser.parse_args()

    answer = functools.partial(ask, server_of(arguments), arguments.adapter)
    asked = [(way, question) for question in held_out_questions() for way in arguments.ways]
    started = time.monotonic()
    with ThreadPoolExecutor(arguments.concurrency) as pool:
        answers = list(pool.map(answer, asked))

    marked: dict[tuple[str, str], list[Marks]] = {}
    for (way, question), (text, marks) in zip(asked, answers, strict=True):
        marked.setdefault((way, question.kind), []).append(marks)
        if arguments.show_errors and not marks.all_right:
            print(f"\n{way}, {question.kind}: {question.text}\n  {text!r}\n  {marks}")
    print_table(arguments.ways, marked)
    print(f"\n{len(asked)} requests, {arguments.concurrency} at a time, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
