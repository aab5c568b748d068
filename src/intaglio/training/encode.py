"""Examples as token ids: the prompt as the server renders it for a request, and the answer to be generated.

The prompt is rendered by the same functions as for a request, so training and serving use the same ids.
A chat ends with the end of the model's turn, a raw text with the model's end token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from intaglio.errors import ChatError, TrainingDataError
from intaglio.text import ChatFormat, Tokenizer, render_prompt
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


def encode_example(example: Example, tokenizer: Tokenizer, chat: ChatFormat) -> Tokens:
    """The ids of one example. Raises ChatError if the chat format cannot write it."""
    if example.text is not None:
        ids = render_prompt(example.text, tokenizer, raw=True)
        ids += [] if ids[-1] in tokenizer.stop_ids else [tokenizer.eos_id]
        return Tokens(ids, ((1, len(ids)),), is_chat=False)
    return Tokens(*chat.answered(example.messages), is_chat=True)


def encode_all(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    chat: ChatFormat,
    path: Path,
    max_length: int,
    *,
    skip_long: bool,
) -> list[Tokens]:
    """The ids of all examples of a file.

    chat        the chat format of the base
    max_length  most tokens of one example, prompt and answers together
    skip_long   leave out an example that is longer; else it is an error
    Raises TrainingDataError naming the line, or when nothing is left.
    """
    encoded = list(_encode_each(examples, tokenizer, chat, path, max_length, skip_long))
    if not encoded:
        raise TrainingDataError(f"{path}: every example has more tokens than --max-length {max_length}")
    return encoded


def _encode_each(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    chat: ChatFormat,
    path: Path,
    max_length: int,
    skip_long: bool,
) -> Iterator[Tokens]:
    for example in examples:
        try:
            tokens = encode_example(example, tokenizer, chat)
        except ChatError as error:
            raise TrainingDataError(f"{path}, line {example.line}: {error}") from error
        if len(tokens.ids) <= max_length:
            yield tokens
        elif not skip_long:
            raise TrainingDataError(
                f"{path}, line {example.line}: {len(tokens.ids)} tokens, more than --max-length {max_length}; "
                "shorten it, raise the bound, or leave such lines out with --skip-long"
            )
