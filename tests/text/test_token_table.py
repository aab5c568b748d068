"""The bytes of every token, in the file for the engine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.request import TokenTable
from intaglio.text import Tokenizer, load_tokenizer, token_table_file
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_json


def read(file: Path) -> TokenTable:
    return msgspec.msgpack.decode(file.read_bytes(), type=TokenTable)


@pytest.fixture(scope="module")
def tables(
    tiny_tokenizer: Tokenizer, gemma3_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Tokenizer, TokenTable]]:
    folder = tmp_path_factory.mktemp("tables")
    both = {"tiny": tiny_tokenizer, "gemma3": gemma3_tokenizer}
    return {name: (tokenizer, read(token_table_file(tokenizer, folder))) for name, tokenizer in both.items()}


TEXTS = st.one_of(
    st.text(max_size=40),
    st.text(alphabet='▁ \n\t{}[]":,<>x0é日🙂', max_size=40),
    st.lists(st.sampled_from(["<bos>", "<0x0A>", "<unused3>", "<end_of_turn>", "▁", " the", "\r\n", '{"a": 1}'])).map(
        "".join
    ),
)


@pytest.mark.parametrize("name", ["tiny", "gemma3"])
@given(text=TEXTS)
def test_the_bytes_of_a_texts_tokens_are_the_texts_bytes(
    tables: dict[str, tuple[Tokenizer, TokenTable]], name: str, text: str
) -> None:
    tokenizer, table = tables[name]
    expected = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").replace("▁", " ")
    ids = tokenizer.encode(text)
    assert b"".join(table.pieces[token_id] for token_id in ids).decode() == expected
    assert not set(ids) & set(table.controls), "plain text never becomes a control token"


@pytest.mark.parametrize("name", ["tiny", "gemma3"])
def test_control_tokens_and_they_alone_have_no_bytes(
    tables: dict[str, tuple[Tokenizer, TokenTable]], name: str
) -> None:
    tokenizer, table = tables[name]
    assert len(table.pieces) == tokenizer.vocab_size
    assert [token_id for token_id, piece in enumerate(table.pieces) if not piece] == table.controls
    assert {tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, *tokenizer.stop_ids} <= set(table.controls)
    assert {bytes([value]) for value in range(256)} <= set(table.pieces), "every byte has a token"


@pytest.fixture
def make(tmp_path: Path) -> Callable[[int], Tokenizer]:
    def build(vocab_size: int) -> Tokenizer:
        write_tokenizer_json(tmp_path / f"{vocab_size}.json", tiny_pieces(vocab_size))
        return load_tokenizer(tmp_path / f"{vocab_size}.json", cache_dir=None)

    return build


def test_each_vocabulary_has_its_own_file_written_once(make: Callable[[int], Tokenizer], tmp_path: Path) -> None:
    first = token_table_file(make(512), tmp_path / "cache")
    written = first.stat()
    assert token_table_file(make(512), tmp_path / "cache") == first
    assert first.stat() == written
    assert token_table_file(make(520), tmp_path / "cache") != first
    assert len(list((tmp_path / "cache").iterdir())) == 2, "nothing else is left behind"


def test_a_folder_that_cannot_be_written_is_logged(
    make: Callable[[int], Tokenizer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    with caplog.at_level(logging.WARNING):
        assert not token_table_file(make(512), tmp_path / "cache").exists()
    assert "no grammar can be enforced" in caplog.text
