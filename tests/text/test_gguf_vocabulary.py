from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.errors import ModelFormatError
from intaglio.text.gguf_vocabulary import gguf_vocabulary, read_gguf_metadata
from tests.helpers.tokenizers import add_gguf_tokenizer, gguf_tokenizer_metadata, tiny_pieces


@pytest.fixture
def tiny_gguf(tmp_path: Path) -> Path:
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_float64("some.double", 0.5)
    writer.add_int8("some.byte", -1)
    add_gguf_tokenizer(writer, tiny_pieces(400))
    writer.add_array("tokenizer.ggml.words", ["", "é日"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_reads_what_the_gguf_package_wrote(tiny_gguf: Path) -> None:
    found = read_gguf_metadata(tiny_gguf)
    assert found.pop("tokenizer.ggml.words") == ["", "é日"]
    expected = gguf_tokenizer_metadata(tiny_pieces(400))
    assert found == expected


def test_every_cut_of_the_file_is_refused_by_name(tiny_gguf: Path) -> None:
    whole = tiny_gguf.read_bytes()
    for size in [*range(0, 200), *range(200, len(whole), 331)]:
        tiny_gguf.write_bytes(whole[:size])
        with pytest.raises(ModelFormatError, match=r"tiny\.gguf"):
            read_gguf_metadata(tiny_gguf)


def test_sizes_past_the_file_are_refused_before_memory_is_allocated(tiny_gguf: Path) -> None:
    whole = tiny_gguf.read_bytes()
    for key in (b"tokenizer.ggml.tokens", b"tokenizer.ggml.scores", b"some.numbers"):
        count_at = whole.index(key) + len(key) + 8
        for count in (2**63, 2**64 - 1, 2**40):
            tiny_gguf.write_bytes(whole[:count_at] + count.to_bytes(8, "little") + whole[count_at + 8 :])
            with pytest.raises(ModelFormatError, match=r"ends? after the file|unpack_from"):
                read_gguf_metadata(tiny_gguf)


@pytest.mark.parametrize(
    ("at", "data", "words"),
    [
        (0, b"GGML", "begins with b'GGML'"),
        (4, b"\x01\0\0\0", "version 1"),
    ],
)
def test_other_containers_and_versions_are_refused(tiny_gguf: Path, at: int, data: bytes, words: str) -> None:
    whole = bytearray(tiny_gguf.read_bytes())
    whole[at : at + len(data)] = data
    tiny_gguf.write_bytes(whole)
    with pytest.raises(ModelFormatError, match=words):
        read_gguf_metadata(tiny_gguf)


def test_arrays_are_accepted_as_lists_are() -> None:
    metadata = gguf_tokenizer_metadata(tiny_pieces())
    plain = gguf_vocabulary(metadata, "lists")
    metadata["tokenizer.ggml.scores"] = np.array(metadata["tokenizer.ggml.scores"], np.float32)
    metadata["tokenizer.ggml.token_type"] = np.array(metadata["tokenizer.ggml.token_type"], np.int32)
    assert gguf_vocabulary(metadata, "arrays") == plain
    assert list(plain.pieces) == tiny_pieces().tokens
    assert list(plain.types) == tiny_pieces().types


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model", "gpt2", "tokenizer.ggml.model is 'gpt2'"),
        ("model", None, "tokenizer.ggml.model is None"),
        ("precompiled_charsmap", [1], "precompiled_charsmap is set"),
        ("tokens", None, "tokenizer.ggml.tokens is missing"),
        ("tokens", "text", "tokenizer.ggml.tokens is missing or not a list"),
        ("tokens", [1, 2], "tokens must be strings only"),
        ("scores", [0.0], "512 pieces, 1 scores and 512 types"),
        ("scores", ["a"] * 512, "scores must be numbers only"),
        ("scores", [float("nan")] * 512, "score of token 0 is nan"),
        ("token_type", [9] * 512, "token_type: 9 is not a valid PieceType"),
        ("token_type", [1] * 512, "256 of the 256 byte pieces are missing"),
        ("tokens", ["<pad>"] * 512, "tokens 0 and 1 are both '<pad>'"),
        ("tokens", [""] * 512, "token 0 has no text"),
        ("bos_token_id", 512, "bos id 512 is outside the vocabulary of 512"),
        ("eos_token_id", "<eos>", "eos id '<eos>' is outside"),
        ("padding_token_id", -1, "pad id -1 is outside"),
    ],
)
def test_metadata_of_another_tokenizer_is_refused_by_name(key: str, value: Any, words: str) -> None:
    metadata = {**gguf_tokenizer_metadata(tiny_pieces()), f"tokenizer.ggml.{key}": value}
    metadata = {name: value for name, value in metadata.items() if value is not None}
    with pytest.raises(ModelFormatError, match=f"here: .*{words}"):
        gguf_vocabulary(metadata, "here")
