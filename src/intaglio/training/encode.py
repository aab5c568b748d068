"""Examples as token ids: the prompt as the server renders it for a request, and the answer to be generated.

The prompt is rendered by the same functions as for a request, so training and serving use the same ids.
After a request's ids the model writes its text and `<end_of_turn>`; a raw text ends with the model's end token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intaglio.errors import ChatError, TrainingDataError
from intaglio.text import Tokenizer, Turn, fold_messages, render_chat, render_prompt
from intaglio.training.data import Example


@dataclass(frozen=True, slots=True)
class Tokens:
    """One example as token ids.

    answers   [start, stop) of each run of ids that carries loss: the model has to generate these
    is_chat   False for a raw text, which has no question and answer
    """

    ids: list[int]
    answers: tuple[tuple[int, int], ...]
    is_chat: bool

    @property
    def num_answer(self) -> int:
        return sum(stop - start for start, stop in self.answers)


def encode_example(example: Example, tokenizer: Tokenizer) -> Tokens:
    """The ids of one example. Raises ChatError if the vocabulary has no turn tokens and the example needs them."""
    if example.text is not None:
        ids = render_prompt(example.text, tokenizer, raw=True)
        ids += [] if ids[-1] in tokenizer.stop_ids else [tokenizer.eos_id]
        return Tokens(ids, ((1, len(ids)),), is_chat=False)
    return _encode_chat(fold_messages(example.messages), tokenizer)


def _encode_chat(turns: Sequence[Turn], tokenizer: Tokenizer) -> Tokens:
    end_of_turn = tokenizer.control_id("<end_of_turn>")
    ids: list[int] = []
    answers: list[tuple[int, int]] = []
    for index, turn in enumerate(turns):
        if turn.role == "user":
            continue
        ids = render_chat([_message(earlier) for earlier in turns[:index]], tokenizer)
        start = len(ids)
        assert end_of_turn is not None, "render_chat has refused a vocabulary without turn tokens"
        ids += [*tokenizer.encode(turn.text), end_of_turn]
        answers.append((start, len(ids)))
    return Tokens(ids, tuple(answers), is_chat=True)


def _message(turn: Turn) -> Mapping[str, Any]:
    return {"role": "assistant" if turn.role == "model" else "user", "content": turn.text}


def encode_all(
    examples: Sequence[Example], tokenizer: Tokenizer, path: Path, max_length: int, *, skip_long: bool
) -> list[Tokens]:
    """The ids of all examples of a file.

    max_length  most tokens of one example, prompt and answers together
    skip_long   leave out an example that is longer; else it is an error
    Raises TrainingDataError naming the line, or when nothing is left.
    """
    encoded = list(_encode_each(examples, tokenizer, path, max_length, skip_long))
    if not encoded:
        raise TrainingDataError(f"{path}: every example has more tokens than --max-length {max_length}")
    return encoded


def _encode_each(
    examples: Sequence[Example], tokenizer: Tokenizer, path: Path, max_length: int, skip_long: bool
) -> Iterator[Tokens]:
    for example in examples:
        try:
            tokens = encode_example(example, tokenizer)
        except ChatError as error:
            raise TrainingDataError(f"{path}, line {example.line}: {error}") from error
        if len(tokens.ids) <= max_length:
            yield tokens
        elif not skip_long:
            raise TrainingDataError(
                f"{path}, line {example.line}: {len(tokens.ids)} tokens, more than --max-length {max_length}; "
                "shorten it, raise the bound, or leave such lines out with --skip-long"
            )
