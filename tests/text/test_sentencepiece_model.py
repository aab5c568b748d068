from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import sentencepiece

from intaglio.errors import ModelFormatError
from intaglio.text import load_tokenizer
from intaglio.text.sentencepiece_model import read_model, write_model
from tests.helpers.tokenizers import CONTROL, tiny_pieces, write_tokenizer_model
from tests.text.reference_tokenizers import awkward_strings


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.model"
    write_tokenizer_model(path, tiny_pieces())
    return path


def test_reads_every_piece_and_makes_control_tokens_of_what_acts_as_one(model_file: Path) -> None:
    pieces = tiny_pieces()
    found = read_model(model_file.read_bytes(), "m")
    assert list(found.pieces) == pieces.tokens
    assert list(found.scores) == pieces.scores
    assert list(found.types) == pieces.types
    # The file itself lets any text write a turn token; this is why types are corrected.
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
    turn_id = pieces.tokens.index("<start_of_turn>")
    assert pieces.types[turn_id] == CONTROL
    assert theirs.encode("<start_of_turn>") == [turn_id]


def test_written_model_encodes_as_the_original_file_does(model_file: Path) -> None:
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
    ours = load_tokenizer(model_file, cache_dir=None)
    for text in awkward_strings(600, seed=8):
        if ours.encode(text) == ours.encode(text, special=True):
            assert ours.encode(text) == theirs.encode(text), repr(text)


def test_writing_what_was_read_changes_nothing(model_file: Path) -> None:
    once = read_model(model_file.read_bytes(), "m")
    assert read_model(write_model(once), "m") == once


def test_model_with_a_dummy_prefix_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    write_tokenizer_model(path, tiny_pieces(), add_dummy_prefix=True)
    with pytest.raises(ModelFormatError, match=r"tokenizer\.model: add_dummy_prefix is 1"):
        load_tokenizer(tmp_path, cache_dir=None)


def test_unigram_model_is_refused(model_file: Path) -> None:
    data = model_file.read_bytes()
    bpe, fallback = b"\x18\x02\x98\x02\x01", b"\x98\x02\x01"
    assert data.count(bpe) == 1
    with pytest.raises(ModelFormatError, match="model_type is 1"):
        read_model(data.replace(bpe, b"\x18\x01" + fallback), "m")
    with pytest.raises(ModelFormatError, match="byte_fallback is 0"):
        read_model(data.replace(bpe, b"\x18\x02\x98\x02\x00"), "m")


def test_any_damage_is_refused_or_harmless_but_never_another_error(model_file: Path) -> None:
    whole = model_file.read_bytes()
    rng = random.Random(4)
    num_refused = 0
    for _ in range(300):
        data = bytearray(whole[: rng.choice((len(whole), rng.randrange(len(whole))))])
        for _ in range(rng.randrange(3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            read_model(bytes(data), "m")
        except ModelFormatError as err:
            num_refused += 1
            assert str(err).startswith("m: ")
    assert num_refused > 200


def test_tokens_added_beside_an_unchanged_model_are_refused_by_name(model_file: Path) -> None:
    beside = model_file.with_name("added_tokens.json")
    beside.write_text(json.dumps({"<start_of_turn>": 7}))
    assert load_tokenizer(model_file, cache_dir=None).vocab_size == 512
    beside.write_text(json.dumps({"<think>": 512}))
    with pytest.raises(ModelFormatError, match=r"token 512 is '<think>', which tokenizer\.model does not have"):
        load_tokenizer(model_file, cache_dir=None)
    tokenizer = load_tokenizer(model_file, cache_dir=None, num_rows=512)
    assert tokenizer.vocab_size == 512, "the model has no embedding for token 512"
    beside.write_text("[]")
    with pytest.raises(ModelFormatError, match="not an object of token ids"):
        load_tokenizer(model_file, cache_dir=None)
