"""Training examples from a JSONL file, and which of them are held out. One JSON object per line, in one of three forms.

    {"prompt": "...", "completion": "..."}          one turn; the completion carries the loss
    {"messages": [{"role": ..., "content": ...}]}   a chat; every assistant turn carries the loss
    {"text": "..."}                                 a plain text, for requests with `raw: true`; all of it has loss

Does not know the tokenizer. An error names the file, the line and the fault. An unknown key is an error: an example
with an ignored key would not mean what its author intended.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from intaglio.errors import ChatError, TrainingDataError
from intaglio.text import fold_messages

MAX_LINE_BYTES = 4 << 20  # far more than any context window holds; a file without line ends is refused
MAX_EXAMPLES = 1_000_000

_FORMS = ({"prompt", "completion"}, {"messages"}, {"text"})
_MESSAGE_KEYS = {"role", "content", "name", "tool_calls", "tool_call_id"}  # of the chat form


@dataclass(frozen=True, slots=True)
class Example:
    """One line of the file. Either `text` is set, or `messages`, whose last one is the assistant's.

    line   counted from 1
    """

    line: int
    messages: tuple[Mapping[str, Any], ...] = ()
    text: str | None = None

    @property
    def question(self) -> str:
        """The prompt. Examples with the same prompt must be on the same side of a split."""
        if self.text is not None:
            return self.text
        first_answer = next(i for i, message in enumerate(self.messages) if message["role"] == "assistant")
        return json.dumps([self.messages[i] for i in range(first_answer)], sort_keys=True, ensure_ascii=False)


class ExampleFile(NamedTuple):
    """The examples of a file, in its order.

    sha256   of the bytes that were read, in hex: the file may be a pipe, or may have changed when the training ends
    """

    examples: list[Example]
    sha256: str


def read_examples(path: Path) -> ExampleFile:
    """All examples of a file; empty lines are skipped. Raises TrainingDataError naming the file and the line."""
    examples: list[Example] = []
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if len(line) > MAX_LINE_BYTES:
                    raise TrainingDataError(f"{path}, line {number}: longer than {MAX_LINE_BYTES} bytes")
                digest.update(line)
                if not line.strip():
                    continue
                if len(examples) == MAX_EXAMPLES:
                    raise TrainingDataError(f"{path} holds more than {MAX_EXAMPLES} examples")
                examples.append(_read_line(f"{path}, line {number}", number, line))
    except OSError as error:
        raise TrainingDataError(f"{path} cannot be read: {error.strerror}") from error
    if not examples:
        raise TrainingDataError(f"{path} holds no examples; it needs one JSON object per line")
    return ExampleFile(examples, digest.hexdigest())


def _read_line(where: str, number: int, line: bytes) -> Example:
    try:
        text = line.decode("utf-8-sig")  # some editors write a byte order mark
        value = msgspec.json.decode(text)  # as strict as for a request
    except UnicodeDecodeError as error:
        raise TrainingDataError(f"{where}: not UTF-8 at byte {error.start} of the line ({error.reason})") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise TrainingDataError(f"{where}: not JSON; a line holds one whole object ({error})") from error
    if not isinstance(value, dict):
        raise TrainingDataError(f"{where}: a JSON {type(value).__name__}; an object is needed")
    if value.keys() not in _FORMS:
        raise TrainingDataError(f"{where}: the keys are {_quoted_keys(value)}; {_forms_text()} are needed")
    if "text" in value:
        return Example(number, text=_checked_text(where, value, "text"))
    if "messages" in value:
        return Example(number, messages=_checked_messages(where, value["messages"]))
    question = {"role": "user", "content": _checked_text(where, value, "prompt")}
    return Example(
        number, messages=(question, {"role": "assistant", "content": _checked_text(where, value, "completion")})
    )


def _forms_text() -> str:
    return "prompt and completion, or messages, or text"


def _quoted_keys(keys: Mapping[str, Any]) -> str:
    return ", ".join(repr(key) for key in sorted(keys)) or "none"


def _checked_text(where: str, value: Mapping[str, Any], key: str) -> str:
    text = value[key]
    if not isinstance(text, str):
        raise TrainingDataError(f"{where}: {key} is a JSON {type(text).__name__}; a string is needed")
    if not text.strip():
        raise TrainingDataError(f"{where}: {key} is empty")
    return text


def _checked_messages(where: str, messages: object) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(messages, list):
        raise TrainingDataError(f"{where}: messages is a JSON {type(messages).__name__}; an array is needed")
    for index, message in enumerate(messages):
        unknown = sorted(message.keys() - _MESSAGE_KEYS) if isinstance(message, dict) else []
        if unknown:
            known = ", ".join(sorted(_MESSAGE_KEYS))
            raise TrainingDataError(f"{where}: message {index} has the key {unknown[0]!r}; known are {known}")
    _check_chat(where, messages)
    return tuple(messages)


def _check_chat(where: str, messages: Sequence[Mapping[str, Any]]) -> None:
    try:
        turns = fold_messages(messages)
    except ChatError as error:
        raise TrainingDataError(f"{where}: {error}") from error
    if messages[-1]["role"] != "assistant":
        raise TrainingDataError(f"{where}: the last message is of {messages[-1]['role']!r}; the assistant's is needed")
    if turns[0].role == "model":
        raise TrainingDataError(f"{where}: the first message is the assistant's, so nothing was asked")
    if any(turn.role == "model" and not turn.text for turn in turns):
        raise TrainingDataError(f"{where}: an assistant message is empty")


class Split(NamedTuple):
    """Training and held-out examples, which have no question in common, each in the order of the file."""

    training: list[Example]
    held_out: list[Example]


def split_examples(
    examples: Sequence[Example], fraction: float, seed: int, path: Path, at_most: int | None = None
) -> Split:
    """Hold out about `fraction` of the questions, but at most `at_most`, chosen by `seed`; 0 holds out none.

    Examples with the same question stay together, so that no held-out question was trained on. At least one
    question is held out and at least one trained on. Raises TrainingDataError if there is only one.
    """
    if fraction == 0:
        return Split(list(examples), [])
    questions = sorted({example.question for example in examples})
    if len(questions) < 2:
        raise TrainingDataError(
            f"{path} asks only one question, so none can be held out; give --held-out 0 or --eval-data FILE"
        )
    random.Random(seed).shuffle(questions)
    count = min(len(questions) - 1, max(1, round(fraction * len(questions))))
    held_out = set(questions[: count if at_most is None else min(count, at_most)])
    return Split(
        [example for example in examples if example.question not in held_out],
        [example for example in examples if example.question in held_out],
    )
