"""Training uses the same ids as serving for the same messages, and has loss on answers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.errors import TrainingDataError
from intaglio.text import Tokenizer, load_tokenizer, open_chat_format, render_chat, render_prompt
from intaglio.text.chat.gemma_turns import GemmaFormat
from intaglio.text.chat.template_files import TemplateText
from intaglio.training.data import Example
from intaglio.training.encode import encode_all, encode_example
from tests.helpers.chat_templates import CHATML
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_model

PATH = Path("d.jsonl")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    file = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    write_tokenizer_model(file, tiny_pieces())
    return load_tokenizer(file, cache_dir=None)


def chat(*messages: tuple[str, str]) -> Example:
    return Example(1, messages=tuple({"role": role, "content": text} for role, text in messages))


def test_a_prompt_is_rendered_as_by_the_server_and_followed_by_the_answer_and_end_of_turn(
    tokenizer: Tokenizer,
) -> None:
    tokens = encode_example(
        chat(("user", " What is  it?\n"), ("assistant", "rain ")), tokenizer, GemmaFormat(tokenizer)
    )
    prompt = render_prompt(" What is  it?\n", tokenizer, raw=False)
    end_of_turn = tokenizer.control_id("<end_of_turn>")
    assert tokens.ids == [*prompt, *tokenizer.encode("rain"), end_of_turn]
    assert tokens.answers == ((len(prompt), len(tokens.ids)),)
    assert tokens.ids.count(tokenizer.bos_id) == 1
    assert tokens.num_answer == len(tokenizer.encode("rain")) + 1


_TEXTS = st.text(min_size=1, max_size=12).map(str.strip).filter(bool)
_TURNS = st.lists(st.tuples(_TEXTS, _TEXTS), min_size=1, max_size=4)


@given(_TURNS, st.none() | _TEXTS)
def test_the_ids_before_every_answer_are_those_of_the_request_for_it(
    tokenizer: Tokenizer, talk: Sequence[tuple[str, str]], system: str | None
) -> None:
    messages: list[Mapping[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
    requests = []
    for asked, answered in talk:
        messages.append({"role": "user", "content": asked})
        requests.append(render_chat(messages, tokenizer))
        messages.append({"role": "assistant", "content": answered})
    tokens = encode_example(Example(1, messages=tuple(messages)), tokenizer, GemmaFormat(tokenizer))
    assert [tokens.ids[:start] for start, _ in tokens.answers] == requests
    answers = [tokens.ids[start:stop] for start, stop in tokens.answers]
    assert answers == [[*tokenizer.encode(text), tokenizer.control_id("<end_of_turn>")] for _, text in talk]


def test_a_base_with_a_template_of_its_own_is_trained_with_the_prompts_it_is_served_with(tokenizer: Tokenizer) -> None:
    served = open_chat_format(TemplateText(CHATML, "chat_template.jinja"), {}, tokenizer, takes_system=True)
    example = chat(("system", "s"), ("user", " a "), ("assistant", "b "))
    tokens = encode_example(example, tokenizer, served)
    ((start, stop),) = tokens.answers
    assert tokens.ids[:start] == served.render(example.messages[:2])
    assert tokens.ids[start:stop] == [*tokenizer.encode("b "), tokenizer.control_id("<end_of_turn>")]


def test_control_tokens_written_in_an_answer_stay_text(tokenizer: Tokenizer) -> None:
    tokens = encode_example(chat(("user", "a"), ("assistant", "<end_of_turn>b")), tokenizer, GemmaFormat(tokenizer))
    assert tokens.ids.count(tokenizer.control_id("<end_of_turn>") or 0) == 2  # the user's and the closing one


def test_a_raw_text_begins_as_a_raw_request_and_ends_with_the_end_token(tokenizer: Tokenizer) -> None:
    tokens = encode_example(Example(1, text=" once upon"), tokenizer, GemmaFormat(tokenizer))
    assert tokens.ids == [*render_prompt(" once upon", tokenizer, raw=True), tokenizer.eos_id]
    assert tokens.answers == ((1, len(tokens.ids)),)
    assert encode_example(Example(1, text=" once upon<eos>"), tokenizer, GemmaFormat(tokenizer)).ids == tokens.ids


def test_an_example_that_is_too_long_is_refused_by_line_and_bound_or_skipped_if_requested(tokenizer: Tokenizer) -> None:
    short, long = Example(3, text="a"), Example(7, text="b " * 99)
    with pytest.raises(TrainingDataError, match=r"d.jsonl, line 7: \d+ tokens.* --max-length 16"):
        encode_all([short, long], tokenizer, GemmaFormat(tokenizer), PATH, 16, skip_long=False)
    assert len(encode_all([short, long], tokenizer, GemmaFormat(tokenizer), PATH, 16, skip_long=True)) == 1
    with pytest.raises(TrainingDataError, match="every example has more tokens than --max-length 16"):
        encode_all([long], tokenizer, GemmaFormat(tokenizer), PATH, 16, skip_long=True)
