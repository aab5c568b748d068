from __future__ import annotations

import json
import math
from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from intaglio.api.openai.logprobs import TextOffsets, chat_logprobs, text_logprobs
from intaglio.api.openai.responses import LikelyToken
from intaglio.completion import TokenLogprob


def token(raw: bytes, logprob: float = -1.0, best: tuple[tuple[str, bytes, float], ...] = ()) -> TokenLogprob:
    return TokenLogprob(raw.decode("utf-8", "replace"), raw, logprob, best)


EURO = [token(b"\xe2"), token(b"\x82"), token(b"\xac")]  # one character in three tokens


def test_a_part_of_a_character_is_named_by_its_bytes() -> None:
    chat = chat_logprobs([token(b" a"), *EURO]).content
    assert [entry.token for entry in chat] == [" a", "\\xe2", "\\x82", "\\xac"]
    assert bytes(byte for entry in chat for byte in entry.bytes).decode() == " a€"
    text = text_logprobs([token(b" a"), *EURO], TextOffsets())
    assert text.tokens == [" a", "bytes:\\xe2", "bytes:\\x82", "bytes:\\xac"]


def test_offsets_count_whole_characters_and_go_on_from_piece_to_piece() -> None:
    offsets = TextOffsets()
    assert text_logprobs([token("né".encode()), *EURO], offsets).text_offset == [0, 2, 2, 2]
    assert text_logprobs([token(b"!"), token(b"?")], offsets).text_offset == [3, 4]


@given(st.text(max_size=20), st.data())
def test_every_token_begins_where_its_offset_says(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6))), len(raw)]
    pieces = [raw[begin:end] for begin, end in pairwise(cuts)]
    begins = text_logprobs([token(piece) for piece in pieces], TextOffsets()).text_offset
    for piece, cut, begin in zip(pieces, cuts[:-1], begins, strict=True):
        assert begin == len(raw[:cut].decode("utf-8", "ignore"))
        try:
            whole = piece.decode()
        except UnicodeDecodeError:
            continue
        assert text[begin:].startswith(whole)


def test_a_control_token_has_its_name_and_no_bytes() -> None:
    best = (("<end_of_turn>", b"", -0.1), (" a", b" a", -2.0))
    (entry,) = chat_logprobs([token(b" a", -2.0, best)]).content
    assert entry.top_logprobs[0] == LikelyToken("<end_of_turn>", -0.1, [])
    assert text_logprobs([token(b" a", -2.0, best)], TextOffsets()).top_logprobs == [
        {"<end_of_turn>": -0.1, " a": -2.0}
    ]


def test_a_logprob_of_minus_infinity_becomes_a_finite_json_number() -> None:
    never = chat_logprobs([token(b"x", -math.inf)])
    assert json.loads(msgspec.json.encode(never))["content"][0]["logprob"] == -9999.0
