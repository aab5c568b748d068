from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.errors import ModelFormatError
from intaglio.text import Tokenizer, load_tokenizer
from intaglio.text.tokenizer import ControlTokenSplitter
from tests.helpers.tokenizers import (
    CONTROL,
    NORMAL,
    USER_DEFINED,
    Pieces,
    add_gguf_tokenizer,
    gguf_tokenizer_metadata,
    tiny_pieces,
    write_tokenizer_json,
    write_tokenizer_model,
)
from tests.text.reference_tokenizers import PlainBpe, awkward_strings, hugging_face_bpe

NUM_STRINGS = 3200
NUM_QUICK_STRINGS = 1000  # plain BPE takes a millisecond for a string


def assert_same(tokenizer: Tokenizer, judge: PlainBpe, strings: list[str]) -> None:
    wrong = [text for text in strings if tokenizer.encode(text) != judge.encode(text)]
    assert not wrong, f"{len(wrong)} of {len(strings)} differ, first {wrong[0]!r}"


def test_gemma3_ids_equal_plain_bpe_on_thousands_of_strings(gemma3_tokenizer: Tokenizer, gemma3_pieces: Pieces) -> None:
    strings = awkward_strings(NUM_QUICK_STRINGS)
    assert len(set(strings)) == NUM_QUICK_STRINGS
    assert_same(gemma3_tokenizer, PlainBpe(gemma3_pieces), strings)


@pytest.mark.slow
def test_gemma3_ids_equal_the_tokenizers_library_on_thousands_of_strings(
    gemma3_tokenizer: Tokenizer, gemma3_pieces: Pieces
) -> None:
    judge: Any = hugging_face_bpe(gemma3_pieces)
    controls = [t for t, k in zip(gemma3_pieces.tokens, gemma3_pieces.types, strict=True) if k == CONTROL]
    for text in awkward_strings(NUM_STRINGS, seed=11):
        assert gemma3_tokenizer.encode(text, special=True) == judge.encode(text).ids, repr(text)
        if not any(control in text for control in [*controls, "<unk>"]):
            assert gemma3_tokenizer.encode(text) == judge.encode(text).ids, repr(text)


@pytest.mark.slow
def test_gemma3_vocabulary_survives_the_way_through_tokenizer_json(
    gemma3_tokenizer: Tokenizer, gemma3_pieces: Pieces, tmp_path: Path
) -> None:
    write_tokenizer_json(tmp_path / "tokenizer.json", gemma3_pieces)
    other = load_tokenizer(tmp_path, cache_dir=None)
    assert other.vocab_size == gemma3_tokenizer.vocab_size
    for text in awkward_strings(NUM_STRINGS, seed=12):
        assert other.encode(text) == gemma3_tokenizer.encode(text), repr(text)
        assert other.encode(text, special=True) == gemma3_tokenizer.encode(text, special=True), repr(text)


def test_gemma3_known_ids(gemma3_tokenizer: Tokenizer) -> None:
    assert gemma3_tokenizer.vocab_size == 262144
    assert (gemma3_tokenizer.bos_id, gemma3_tokenizer.eos_id, gemma3_tokenizer.pad_id) == (2, 1, 0)
    assert gemma3_tokenizer.stop_ids == {1, 106}
    assert gemma3_tokenizer.encode("user") == [2364]
    assert gemma3_tokenizer.encode("\n" * 31 + "\t\t") == [137, 255969]
    assert gemma3_tokenizer.encode("<start_of_turn>", special=True) == [105]
    assert len(gemma3_tokenizer.encode("<start_of_turn>")) == 7
    assert gemma3_tokenizer.decode([818]) == "The"


def test_default_model_tokenizer_is_ready_at_once_the_second_time(
    gemma3_tokenizer: Tokenizer, gemma3_file: Path, gemma3_cache_dir: Path
) -> None:
    started = time.process_time()  # a busy machine does not count
    second = load_tokenizer(gemma3_file, cache_dir=gemma3_cache_dir)
    took_s = time.process_time() - started
    text = "Hello  there <td><bos>"
    assert second.encode(text, special=True) == gemma3_tokenizer.encode(text, special=True)
    # 0.07 s here; reading the source again takes more than ten times as long.
    assert took_s < 0.3


@pytest.fixture(params=["json", "json four added", "json text merges", "model", "gguf", "metadata"])
def tiny_by_format(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    pieces = tiny_pieces()
    if request.param == "json":
        write_tokenizer_json(tmp_path / "tokenizer.json", pieces)
    elif request.param == "json four added":
        write_tokenizer_json(tmp_path / "tokenizer.json", pieces, added_ids={0, 1, 2, 3})
    elif request.param == "json text merges":
        write_tokenizer_json(tmp_path / "tokenizer.json", pieces, merges_as_text=True)
    elif request.param == "model":
        write_tokenizer_model(tmp_path / "tokenizer.model", pieces)
    elif request.param == "gguf":
        write_gguf(tmp_path / "tiny.gguf", pieces)
    else:
        (tmp_path / "tiny.gguf").write_bytes(b"never opened")
        return load_tokenizer(
            tmp_path / "tiny.gguf", cache_dir=None, checkpoint_metadata=gguf_tokenizer_metadata(pieces)
        )
    return load_tokenizer(tmp_path, cache_dir=None)


def write_gguf(path: Path, pieces: Pieces) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_context_length(133)
    add_gguf_tokenizer(writer, pieces)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def test_every_file_format_gives_the_same_ids(tiny_by_format: Tokenizer) -> None:
    pieces = tiny_pieces()
    assert tiny_by_format.vocab_size == len(pieces.tokens) == 512
    assert (tiny_by_format.bos_id, tiny_by_format.eos_id, tiny_by_format.pad_id) == (2, 1, 0)
    assert tiny_by_format.stop_ids == {1, pieces.tokens.index("<end_of_turn>")}
    assert_same(tiny_by_format, PlainBpe(pieces), awkward_strings(400))


def test_every_file_format_keeps_control_tokens_out_of_plain_text(tiny_by_format: Tokenizer) -> None:
    pieces = tiny_pieces()
    controls = {i for i, kind in enumerate(pieces.types) if kind not in (NORMAL, USER_DEFINED)} - set(
        range(pieces.tokens.index("<0x00>"), pieces.tokens.index("<0xFF>") + 1)
    )
    text = "".join(pieces.tokens[i] for i in sorted(controls))
    assert not controls & set(tiny_by_format.encode(text))
    assert tiny_by_format.encode(text, special=True) == sorted(controls)


def test_tiny_vocabularies_of_other_sizes_have_the_four_first_pieces_and_the_roles() -> None:
    for size in (400, 512, 777):
        pieces = tiny_pieces(size)
        assert len(pieces.tokens) == len(set(pieces.tokens)) == len(pieces.scores) == len(pieces.types) == size
        assert pieces.tokens[:4] == ["<pad>", "<eos>", "<bos>", "<unk>"]
        assert {"user", "model", "<start_of_turn>", "<end_of_turn>", "\n"} <= set(pieces.tokens)


@given(text=st.text(max_size=80))
def test_decoding_gives_the_text_back(tiny_tokenizer: Tokenizer, text: str) -> None:
    # A literal ▁ is SentencePiece's own sign for a space and cannot be told from one.
    assert tiny_tokenizer.decode(tiny_tokenizer.encode(text)) == text.replace("\u2581", " ")


@given(text=st.text(max_size=40), special=st.booleans())
def test_add_bos_gives_exactly_one_at_the_front(tiny_tokenizer: Tokenizer, text: str, special: bool) -> None:
    ids = tiny_tokenizer.encode(text, special=special, add_bos=True)
    assert ids.count(tiny_tokenizer.bos_id) == 1
    assert ids[0] == tiny_tokenizer.bos_id
    assert ids[1:] == tiny_tokenizer.encode(text, special=special)


def test_add_bos_adds_none_where_the_text_begins_with_it(tiny_tokenizer: Tokenizer) -> None:
    once = tiny_tokenizer.encode("<bos>Hi", special=True, add_bos=True)
    assert once == tiny_tokenizer.encode("<bos>Hi", special=True)
    assert once == [2, *tiny_tokenizer.encode("Hi")]


def test_half_surrogate_pairs_count_as_replacement_characters(tiny_tokenizer: Tokenizer) -> None:
    for text, meant in (
        ("a\ud83db", "a\ufffdb"),
        ("\ude00", "\ufffd"),
        ("x\ud83d", "x\ufffd"),
        ("\ud83d\ude00", "\U0001f600"),
        ("\ud83d\ud83d\ude00\ude00", "\ufffd\U0001f600\ufffd"),
    ):
        assert tiny_tokenizer.encode(text) == tiny_tokenizer.encode(meant), ascii(text)
        assert tiny_tokenizer.encode(text, special=True) == tiny_tokenizer.encode(meant), ascii(text)


def test_control_tokens_and_padding_rows_stand_for_no_text(tiny_tokenizer: Tokenizer) -> None:
    pieces = tiny_pieces()
    for i, (text, kind) in enumerate(zip(pieces.tokens, pieces.types, strict=True)):
        expected = text.replace("\u2581", " ").encode() if kind in (NORMAL, USER_DEFINED) else b""
        if text.startswith("<0x"):
            expected = bytes([int(text[3:5], 16)])
        assert tiny_tokenizer.piece_bytes(i) == expected, text
    assert tiny_tokenizer.piece_bytes(512) == b""
    with pytest.raises(ValueError, match="-1 is negative"):
        tiny_tokenizer.piece_bytes(-1)


def test_end_tokens_of_the_configuration_join_the_stop_set(tmp_path: Path) -> None:
    write_tokenizer_json(tmp_path / "tokenizer.json", tiny_pieces())
    tokenizer = load_tokenizer(tmp_path, cache_dir=None, eos_ids=[1, 50])
    assert tokenizer.stop_ids == {1, 8, 50}
    with pytest.raises(ModelFormatError, match=r"end token 512 .*512 tokens"):
        load_tokenizer(tmp_path, cache_dir=None, eos_ids=[512])


def test_a_folder_is_searched_in_the_documented_order(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", tiny_pieces(400))
    assert load_tokenizer(tmp_path, cache_dir=None).vocab_size == 400
    write_tokenizer_model(tmp_path / "tokenizer.model", tiny_pieces(512))
    assert load_tokenizer(tmp_path, cache_dir=None).vocab_size == 512
    write_tokenizer_json(tmp_path / "tokenizer.json", tiny_pieces(777))
    assert load_tokenizer(tmp_path, cache_dir=None).vocab_size == 777


def test_a_path_without_a_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"nowhere: the tokenizer file does not exist"):
        load_tokenizer(tmp_path / "nowhere", cache_dir=None)
    with pytest.raises(ModelFormatError, match=r"not exactly one \.gguf file \(none\)"):
        load_tokenizer(tmp_path, cache_dir=None)
    (tmp_path / "a.gguf").write_bytes(b"\x00" * 64)
    with pytest.raises(ModelFormatError, match=r"a\.gguf: not a tokenizer file"):
        load_tokenizer(tmp_path, cache_dir=None)
    (tmp_path / "b.gguf").write_bytes(b"\x00" * 64)
    with pytest.raises(ModelFormatError, match=r"\(a\.gguf, b\.gguf\)"):
        load_tokenizer(tmp_path, cache_dir=None)


# -- control tokens written in a text

CONTROL_IDS = {"<a>": 1, "<a>b": 2, "[x]": 3, "<<": 4}


def test_the_longest_control_token_wins_and_plain_parts_are_never_empty() -> None:
    splitter = ControlTokenSplitter(CONTROL_IDS)
    assert list(splitter.split("<a>b<a><a")) == [2, 1, "<a"]
    assert list(splitter.split("<<<a>[x")) == [4, 1, "[x"]
    assert list(splitter.split("")) == []


@given(text=st.lists(st.sampled_from([*CONTROL_IDS, "<", "b", "a>", "[", "]", " "])).map("".join))
def test_the_parts_of_a_split_text_make_the_text_again(text: str) -> None:
    names = {token_id: name for name, token_id in CONTROL_IDS.items()}
    parts = list(ControlTokenSplitter(CONTROL_IDS).split(text))
    assert "".join(names[part] if isinstance(part, int) else part for part in parts) == text
    assert not any(name in part for part in parts if isinstance(part, str) for name in CONTROL_IDS)
    assert "" not in parts
