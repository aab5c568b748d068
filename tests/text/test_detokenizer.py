from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.errors import BadInputError
from intaglio.text import IncrementalDetokenizer, TextForm, Tokenizer
from tests.helpers.tokenizers import tiny_pieces
from tests.text.reference_tokenizers import awkward_strings

# Bytes one by one, so that invalid UTF-8 is as common as valid; and everything, control tokens included.
BYTE_0 = tiny_pieces().tokens.index("<0x00>")
ANY_IDS = st.lists(st.integers(0, 511) | st.integers(BYTE_0, BYTE_0 + 255), max_size=60)


def stream(tokenizer: Tokenizer, ids: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], str | None]:
    detokenizer = IncrementalDetokenizer(tokenizer, stop)
    pieces = [detokenizer.push(token_id) for token_id in ids]
    return [*pieces, detokenizer.finish()], detokenizer.stopped


def cut_at_first_stop(text: str, stop: tuple[str, ...]) -> tuple[str, str | None]:
    """The specification: the earliest end wins, then the longest."""
    met = [(text.find(s) + len(s), -len(s), s) for s in stop if s in text]
    if not met:
        return text, None
    first = min(met)[2]
    return text.partition(first)[0], first


@given(ids=ANY_IDS)
def test_streamed_text_equals_decode_for_any_ids(tiny_tokenizer: Tokenizer, ids: list[int]) -> None:
    pieces, stopped = stream(tiny_tokenizer, ids)
    assert "".join(pieces) == tiny_tokenizer.decode(ids)
    assert stopped is None


@given(data=st.data())
def test_streamed_text_ends_before_the_first_stop_string(tiny_tokenizer: Tokenizer, data: st.DataObject) -> None:
    letters = st.text(alphabet="ab \n\u00e9", max_size=40)
    ids = data.draw(letters.map(tiny_tokenizer.encode) | ANY_IDS)
    stop = tuple(data.draw(st.lists(st.text(alphabet="ab \n\u00e9\ufffd", min_size=1, max_size=6), max_size=4)))
    pieces, stopped = stream(tiny_tokenizer, ids, stop)
    assert ("".join(pieces), stopped) == cut_at_first_stop(tiny_tokenizer.decode(ids), stop)


@given(ids=ANY_IDS, stop=st.text(alphabet="abuser \n", min_size=1, max_size=6))
def test_no_more_is_held_back_than_could_still_match(tiny_tokenizer: Tokenizer, ids: list[int], stop: str) -> None:
    detokenizer = IncrementalDetokenizer(tiny_tokenizer, [stop])
    plain = IncrementalDetokenizer(tiny_tokenizer)
    given_out = certain = ""
    for token_id in ids:
        given_out += detokenizer.push(token_id)
        certain += plain.push(token_id)
        if detokenizer.stopped is not None:
            return
        held = certain[len(given_out) :]
        assert certain == given_out + held
        assert held == max((stop[:n] for n in range(len(stop)) if certain.endswith(stop[:n])), key=len)


def test_character_cut_into_byte_tokens_comes_out_once_and_whole(tiny_tokenizer: Tokenizer) -> None:
    ids = tiny_tokenizer.encode("\U0001f9ff")
    assert len(ids) == 4
    assert stream(tiny_tokenizer, ids) == (["", "", "", "\U0001f9ff", ""], None)


def test_unfinished_character_at_the_end_is_flushed_as_one_replacement(tiny_tokenizer: Tokenizer) -> None:
    ids = tiny_tokenizer.encode("\U0001f9ff")[:3]
    assert stream(tiny_tokenizer, ids) == (["", "", "", "\ufffd"], None)


def test_stop_string_completed_by_the_flush_is_found(tiny_tokenizer: Tokenizer) -> None:
    ids = [*tiny_tokenizer.encode("a"), BYTE_0 + 0xE3]
    assert stream(tiny_tokenizer, ids, ("a\ufffd",)) == (["", "", ""], "a\ufffd")


def test_stop_string_across_tokens_and_nothing_after_it(tiny_tokenizer: Tokenizer) -> None:
    ids = tiny_tokenizer.encode("user: the dog\nUser: more and more")
    pieces, stopped = stream(tiny_tokenizer, ids, ("\nUser:", "never"))
    assert "".join(pieces) == "user: the dog"
    assert stopped == "\nUser:"


def test_text_that_only_begins_like_a_stop_string_comes_out(tiny_tokenizer: Tokenizer) -> None:
    ids = tiny_tokenizer.encode("a\nUs")
    pieces, stopped = stream(tiny_tokenizer, ids, ("\nUser:",))
    assert ("".join(pieces), stopped) == ("a\nUs", None)
    assert pieces[-1] == "\nUs"


def test_stop_string_whose_end_comes_first_wins_then_the_longer(tiny_tokenizer: Tokenizer) -> None:
    ids = tiny_tokenizer.encode("xabcd")
    assert stream(tiny_tokenizer, ids, ("abcd", "b"))[1] == "b"
    assert stream(tiny_tokenizer, ids, ("bc", "abc", "c"))[1] == "abc"


def test_stop_string_is_found_after_any_false_start_of_its_own(tiny_tokenizer: Tokenizer) -> None:
    for stop in map("".join, itertools.product("ab", repeat=9)):
        for begun in range(1, 9):
            text = stop[:begun] + stop
            pieces, stopped = stream(tiny_tokenizer, tiny_tokenizer.encode(text + "b"), (stop,))
            assert ("".join(pieces), stopped) == (text.partition(stop)[0], stop)


def test_empty_stop_string_is_refused(tiny_tokenizer: Tokenizer) -> None:
    with pytest.raises(BadInputError, match="stop string 1 is empty"):
        IncrementalDetokenizer(tiny_tokenizer, ["x", ""])


def test_real_vocabulary_streams_every_awkward_string(gemma3_tokenizer: Tokenizer) -> None:
    for text in awkward_strings(800, seed=3):
        ids = gemma3_tokenizer.encode(text)
        assert "".join(stream(gemma3_tokenizer, ids)[0]) == text.replace("\u2581", " ")
        assert "".join(stream(gemma3_tokenizer, ids, ("\x01\x02",))[0]) == text.replace("\u2581", " ")


def test_the_stop_string_is_part_of_the_text_if_that_is_asked_for(tiny_tokenizer: Tokenizer) -> None:
    detokenizer = IncrementalDetokenizer(tiny_tokenizer, ["b a", "zz"], TextForm(includes_stop=True))
    text = "".join(detokenizer.push(token_id) for token_id in tiny_tokenizer.encode("a b a b"))
    assert (text + detokenizer.finish(), detokenizer.stopped) == ("a b a", "b a")


def test_control_tokens_are_named_if_that_is_asked_for(tiny_tokenizer: Tokenizer) -> None:
    ids = [*tiny_tokenizer.encode("a"), 1, *tiny_tokenizer.encode("b")]
    detokenizer = IncrementalDetokenizer(tiny_tokenizer, (), TextForm(names_controls=True))
    text = "".join(detokenizer.push(token_id) for token_id in ids) + detokenizer.finish()
    assert text == tiny_tokenizer.decode_with_names(ids)
    assert tiny_tokenizer.piece_name(1) in text


@given(text=st.text(alphabet="ab ", max_size=20), count=st.integers(0, 8))
def test_no_stop_string_is_looked_for_in_the_first_tokens(tiny_tokenizer: Tokenizer, text: str, count: int) -> None:
    ids = tiny_tokenizer.encode(text)
    detokenizer = IncrementalDetokenizer(tiny_tokenizer, ["ab"], min_tokens=count)
    pieces = [detokenizer.push(token_id) for token_id in ids]
    written = "".join([*pieces, detokenizer.finish()])
    assert written.startswith("".join(pieces[:count]))
    free, rest = tiny_tokenizer.decode(ids[:count]), tiny_tokenizer.decode(ids)
    assert written == free + cut_at_first_stop(rest[len(free) :], ("ab",))[0]
