"""From tokens to deltas: which tokens' log-probabilities go out with which text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.completion import Completion, CompletionBuilder, TextDelta, TokenLogprob, join_deltas
from intaglio.errors import AdapterUseError, EngineError, IntaglioError
from intaglio.request import FinishReason, PromptLogprobs, TokenLogprobs, TokenOutput
from intaglio.text import IncrementalDetokenizer, Tokenizer, load_tokenizer
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_json


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    write_tokenizer_json(path, tiny_pieces())
    return load_tokenizer(path, cache_dir=None)


def build(
    tokenizer: Tokenizer, ids: list[int], stop: tuple[str, ...] = (), end: FinishReason = FinishReason.LENGTH
) -> list[TextDelta]:
    """The deltas of a completion. The i-th token's log-probability is -i, and it is the only best one."""
    builder = CompletionBuilder(1, IncrementalDetokenizer(tokenizer, stop))
    deltas = []
    for index, token_id in enumerate(ids):
        reason = end if index == len(ids) - 1 else None
        logprobs = TokenLogprobs(-float(index), [(token_id, -float(index))])
        deltas.append(builder.push(TokenOutput("r", token_id, reason, logprobs=logprobs)))
        if deltas[-1].finish_reason is not None:
            break
    return deltas


def test_every_token_is_listed_with_its_text_and_its_best(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the user asks")
    found = join_deltas(build(tokenizer, ids))
    assert "".join(one.text for one in found.logprobs) == found.text == "the user asks"
    assert [one.logprob for one in found.logprobs] == [-float(index) for index in range(len(ids))]
    assert all(one.best == ((one.text, one.raw, one.logprob),) for one in found.logprobs)


def test_parts_of_a_character_are_listed_with_it(tokenizer: Tokenizer) -> None:
    deltas = build(tokenizer, tokenizer.encode("a🙂b"))
    assert [delta.text for delta in deltas] == ["a", "", "", "", "🙂", "b"]
    assert [len(delta.logprobs) for delta in deltas] == [1, 0, 0, 0, 4, 1]
    found = join_deltas(deltas)
    assert b"".join(one.raw for one in found.logprobs) == "a🙂b".encode()
    assert [one.text for one in found.logprobs] == ["a", *"\ufffd" * 4, "b"]


def test_a_stop_token_is_not_listed(tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode("so"), tokenizer.eos_id]
    found = join_deltas(build(tokenizer, ids, end=FinishReason.STOP))
    assert (found.text, found.usage.completion_tokens) == ("so", len(ids))
    assert "".join(one.text for one in found.logprobs) == "so"


def test_a_control_token_in_the_completion_has_its_name_and_no_bytes(tokenizer: Tokenizer) -> None:
    found = join_deltas(build(tokenizer, [*tokenizer.encode("a"), tokenizer.bos_id, *tokenizer.encode("b")]))
    assert [(one.text, one.raw) for one in found.logprobs] == [("a", b"a"), ("<bos>", b""), ("b", b"b")]


def test_what_a_stop_string_holds_back_comes_with_its_logprobs_or_not_at_all(tokenizer: Tokenizer) -> None:
    ids = [token for char in "ab12x12z" for token in tokenizer.encode(char)]
    kept = build(tokenizer, ids, stop=("12y",))
    assert [delta.text for delta in kept] == ["a", "b", "", "", "12x", "", "", "12z"]
    assert [len(delta.logprobs) for delta in kept] == [1, 1, 0, 0, 3, 0, 0, 3]
    cut = join_deltas(build(tokenizer, ids, stop=("12z",)))
    assert (cut.text, cut.finish_reason) == ("ab12x", FinishReason.STOP)
    assert [delta.stop_string for delta in build(tokenizer, ids, stop=("zz", "12z"))[-2:]] == [None, "12z"]
    assert build(tokenizer, ids, stop=("zz",))[-1].stop_string is None
    assert "".join(one.text for one in cut.logprobs) == "ab12x"
    again = join_deltas(build(tokenizer, [token for char in "112z" for token in tokenizer.encode(char)], stop=("12z",)))
    assert again.text == "1", "the first 1 came out when the second one made it certain"
    assert [one.text for one in again.logprobs] == ["1"]
    ended = join_deltas(build(tokenizer, ids[:4], stop=("12y",)))
    assert "".join(one.text for one in ended.logprobs) == ended.text == "ab12"


def test_a_token_that_a_stop_string_cuts_is_listed_whole(tokenizer: Tokenizer) -> None:
    (token,) = tokenizer.encode("model")
    found = join_deltas(build(tokenizer, [token], stop=("del",)))
    assert found.text == "mo"
    assert [one.text for one in found.logprobs] == ["model"]


@given(data=st.data())
def test_the_listed_tokens_are_the_first_ones_and_cover_the_text(tokenizer: Tokenizer, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), min_size=1, max_size=12))
    stop = tuple(data.draw(st.lists(st.sampled_from(["a", "ab", " t", "\ufffd", "x"]), max_size=2)))
    deltas = build(tokenizer, ids, stop)
    found = join_deltas(deltas)
    assert [one.logprob for one in found.logprobs] == [-float(index) for index in range(len(found.logprobs))]
    covered = b"".join(one.raw for one in found.logprobs).decode("utf-8", "replace")
    assert covered.startswith(found.text)
    if found.finish_reason is not FinishReason.STOP:
        assert len(found.logprobs) == len(ids)
    said = 0
    for delta in deltas:  # nothing is listed before the text that it begins
        said += len(delta.text)
        assert not delta.logprobs or said or delta.finish_reason is not None


@pytest.mark.parametrize("lists_stop", [True, False])
def test_a_stop_token_is_listed_where_the_prompt_is_scored_and_has_no_text(
    tokenizer: Tokenizer, lists_stop: bool
) -> None:
    """So the tokens of prompt and completion can be counted through: evaluators cut the list at places from its end."""
    builder = CompletionBuilder(1, IncrementalDetokenizer(tokenizer), lists_stop=lists_stop)
    scores = PromptLogprobs(0, b"", b"", b"", b"")
    first = builder.push(
        TokenOutput("r", tokenizer.encode("a")[0], logprobs=TokenLogprobs(-1.0, []), prompt_logprobs=scores)
    )
    last = builder.push(TokenOutput("r", tokenizer.eos_id, FinishReason.STOP, logprobs=TokenLogprobs(-2.0, [])))
    found = join_deltas([first, last])
    assert (found.text, found.prompt_logprobs) == ("a", scores)
    assert [token.text for token in found.logprobs] == ["a", "<eos>"][: 1 + lists_stop]


def test_without_logprobs_nothing_is_listed(tokenizer: Tokenizer) -> None:
    builder = CompletionBuilder(1, IncrementalDetokenizer(tokenizer))
    delta = builder.push(TokenOutput("r", tokenizer.encode("a")[0], FinishReason.LENGTH))
    assert (delta.text, delta.logprobs) == ("a", ())


def test_an_end_without_a_token_adds_nothing(tokenizer: Tokenizer) -> None:
    """As a completion with a grammar ends, when nothing more may come."""
    builder = CompletionBuilder(1, IncrementalDetokenizer(tokenizer))
    first = builder.push(TokenOutput("r", tokenizer.encode("a")[0], logprobs=TokenLogprobs(-1.0, [])))
    last = builder.push(TokenOutput("r", None, FinishReason.STOP))
    assert join_deltas([first, last]) == Completion(
        "a",
        FinishReason.STOP,
        last.usage,
        (TokenLogprob("a", b"a", -1.0, ()),),  # type: ignore[arg-type]
    )
    assert last.usage is not None
    assert last.usage.completion_tokens == 1


@pytest.mark.parametrize(("refused", "kind"), [(False, EngineError), (True, AdapterUseError)])
def test_engine_failures_and_refused_requests_raise_different_errors(
    tokenizer: Tokenizer, refused: bool, kind: type[IntaglioError]
) -> None:
    output = TokenOutput("1", None, FinishReason.ERROR, error="two adapters take 9 bytes", refused=refused)
    delta = CompletionBuilder(3, IncrementalDetokenizer(tokenizer, ())).push(output)
    assert type(delta.failure) is kind
    with pytest.raises(kind, match="two adapters take 9 bytes"):
        join_deltas([delta])
