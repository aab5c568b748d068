"""How the scores of a prompt are written, on a real tokenizer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.api.openai.logprobs import TextOffsets, text_logprobs
from intaglio.api.openai.prompt_scores import Prompt, ScoredPrompt
from intaglio.completion import TokenLogprob
from intaglio.engine.scoring.prompt_scores import PromptScores
from intaglio.ops import LogprobsRow
from intaglio.text import Tokenizer, load_tokenizer
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_json

WORD = TokenLogprob("x", b"x", -0.5, ())


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    write_tokenizer_json(path, tiny_pieces())
    return load_tokenizer(path, cache_dir=None)


def scored(prompt: Prompt, best: list[tuple[int, float]] | None = None) -> ScoredPrompt:
    """Token i has the log-probability -i and rank i."""
    scores = PromptScores(len(prompt.ids) - 1, len(best or []))
    for place in range(1, len(prompt.ids)):
        scores.add(LogprobsRow(-float(place), place, best or []))
    return ScoredPrompt(prompt, scores.packed())


def text_prompt(tokenizer: Tokenizer, text: str) -> Prompt:
    """As a raw prompt becomes tokens."""
    return Prompt(tokenizer.encode(text, special=True, add_bos=True), tokenizer, text, echoed=text)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_each_token_of_an_echoed_text_begins_where_its_offset_says(tokenizer: Tokenizer, text: str) -> None:
    prompt = text_prompt(tokenizer, text)
    found = scored(prompt).echo(TextOffsets())
    assert found.tokens[0] == "<bos>"
    assert found.text_offset[:2] == [0, 0]
    for name, begin in zip(found.tokens[1:], found.text_offset[1:], strict=True):
        assert name.startswith("bytes:") or text[begin:].startswith(name)


def test_control_tokens_that_are_written_in_the_text_have_their_characters(tokenizer: Tokenizer) -> None:
    text = "<bos><start_of_turn>a<end_of_turn>"
    found = scored(text_prompt(tokenizer, text)).echo(TextOffsets())
    assert found.tokens == ["<bos>", "<start_of_turn>", "a", "<end_of_turn>"]
    assert found.text_offset == [0, 5, 20, 21]


def test_control_tokens_of_a_prompt_of_ids_have_no_characters_as_in_its_echo(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("<start_of_turn>a<end_of_turn>b", special=True, add_bos=True)
    found = scored(Prompt(ids, tokenizer, echoed=tokenizer.decode(ids))).echo(TextOffsets())
    assert found.tokens == ["<bos>", "<start_of_turn>", "a", "<end_of_turn>", "b"]
    assert found.text_offset == [0, 0, 0, 1, 1]


def test_the_first_token_has_null_and_the_others_their_own_logprob(tokenizer: Tokenizer) -> None:
    prompt = text_prompt(tokenizer, "ab")
    best = [(tokenizer.encode("c")[0], -0.25)]
    found = scored(Prompt(prompt.ids, tokenizer, "ab", echoed="ab", num_echoed=1), best).echo(TextOffsets())
    assert found.token_logprobs == [None, *(-float(place) for place in range(1, len(prompt.ids)))]
    assert found.top_logprobs[0] is None
    for name, logprob, top in zip(found.tokens[1:], found.token_logprobs[1:], found.top_logprobs[1:], strict=True):
        assert top == {"c": -0.25, name: logprob}


def test_the_completion_goes_on_where_the_echo_ends(tokenizer: Tokenizer) -> None:
    (byte, *_) = tokenizer.encode("€")  # a part of a character: the echo shows U+FFFD
    offsets = TextOffsets()
    ids = [tokenizer.bos_id, byte]
    echo = scored(Prompt(ids, tokenizer, echoed=tokenizer.decode(ids))).echo(offsets)
    joined = echo.joined(text_logprobs([WORD, WORD], offsets))
    assert joined.text_offset == [0, 0, len(tokenizer.decode(ids)), len(tokenizer.decode(ids)) + 1]
    assert joined.token_logprobs == [None, -1.0, -0.5, -0.5]


def test_vllms_form_names_tokens_by_id_with_rank_and_text(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.bos_id, *tokenizer.encode("a"), *tokenizer.encode("b")]
    likely = tokenizer.encode("c")[0]
    best = [(likely, -0.25), (ids[1], -1.0)]
    first, second, third = scored(Prompt(ids, tokenizer, num_by_id=2), best).by_id()
    assert first is None
    assert second is not None
    assert third is not None
    assert [(key, one.logprob, one.rank, one.decoded_token) for key, one in second.items()] == [
        (str(ids[1]), -1.0, 1, "a"),
        (str(likely), -0.25, 1, "c"),
    ]
    assert list(third) == [str(ids[2]), str(likely), str(ids[1])]
    assert (third[str(ids[2])].rank, third[str(ids[1])].rank) == (2, 2)


def test_each_form_has_as_many_alternatives_as_it_asked_for(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.bos_id, *tokenizer.encode("a")]
    best = [(tokenizer.encode(word)[0], -1.0) for word in "cde"]
    both = scored(Prompt(ids, tokenizer, echoed="a", num_echoed=1, num_by_id=3), best)
    (_, echoed), (_, by_id) = both.echo(TextOffsets()).top_logprobs, both.by_id()
    assert echoed is not None
    assert by_id is not None
    assert (list(echoed), len(by_id)) == (["c", "a"], 4)


def test_the_shortest_prompt_has_one_null(tokenizer: Tokenizer) -> None:
    alone = scored(Prompt([tokenizer.bos_id], tokenizer, echoed=""))
    assert alone.by_id() == [None]
    assert alone.echo(TextOffsets()).token_logprobs == [None]
