from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from intaglio.text.control_pieces import ControlPieces

IDS = {"<a>": 1, "<a>b": 2, "[x]": 3, "<<": 4}


def test_longest_piece_wins_and_stretches_are_never_empty() -> None:
    pieces = ControlPieces(IDS)
    assert list(pieces.split("<a>b<a><a")) == [2, 1, "<a"]
    assert list(pieces.split("<<<a>[x")) == [4, 1, "[x"]
    assert list(pieces.split("")) == []


@given(text=st.lists(st.sampled_from([*IDS, "<", "b", "a>", "[", "]", " "])).map("".join))
def test_what_is_cut_apart_puts_together_again(text: str) -> None:
    names = {token_id: name for name, token_id in IDS.items()}
    parts = list(ControlPieces(IDS).split(text))
    assert "".join(names[part] if isinstance(part, int) else part for part in parts) == text
    assert not any(name in part for part in parts if isinstance(part, str) for name in IDS)
    assert "" not in parts
