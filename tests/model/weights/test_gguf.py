"""The GGUF reader against the `gguf` package, on small files and on the default model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import quants

from intaglio.errors import ModelFormatError
from intaglio.model.config import config_from_gguf
from intaglio.model.weights import StringArray, check_shapes, open_checkpoint
from intaglio.model.weights.gguf import read_gguf
from tests.helpers.checkpoints import FAMILIES, Family, random_weights, tiny_config, write_gguf
from tests.model.weights.gguf_bytes import STRING, gguf_file, key, string, string_array


@pytest.mark.parametrize("family", FAMILIES)
def test_header_and_bytes_are_those_that_the_gguf_package_reads(family: Family, tmp_path: Path) -> None:
    config = tiny_config(family, hidden_size=64)
    path = write_gguf(tmp_path / "tiny.gguf", config, random_weights(config), types="Q5_1")
    ours, expected = read_gguf(path), gguf.GGUFReader(path)
    assert list(ours.tensors) == [tensor.name for tensor in expected.tensors]
    for tensor in expected.tensors:
        raw = ours.tensors[tensor.name]
        assert (raw.dtype, raw.shape) == (tensor.tensor_type.name, tuple(map(int, reversed(tensor.shape))))
        np.testing.assert_array_equal(raw.data, np.ascontiguousarray(tensor.data).view(np.uint8).ravel())
    fields = {name: field for name, field in expected.fields.items() if not name.startswith("GGUF.")}
    assert list(ours.metadata) == list(fields)
    for name, field in fields.items():
        value = ours.metadata[name]
        assert (list(value) if isinstance(value, StringArray) else value) == field.contents(), name


def test_every_value_type_of_metadata_is_read(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "keys.gguf", "gemma")
    for number, add in enumerate(
        ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "uint64", "int64", "float64"), start=3
    ):
        getattr(writer, f"add_{add}")(f"test.{add}", -number if add.startswith(("int", "float")) else number)
    writer.add_bool("test.bool", True)
    writer.add_string("test.string", "▁été\n")
    writer.add_array("test.flags", [True, False, True])
    writer.add_array("test.numbers", [5, 6, 7])
    writer.add_array("test.strings", ["", "▁", "\u0000"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    metadata = read_gguf(tmp_path / "keys.gguf").metadata
    assert {name.removeprefix("test."): value for name, value in metadata.items() if name.startswith("test.")} | {
        "strings": list(metadata["test.strings"])
    } == {
        "uint8": 3,
        "int8": -4,
        "uint16": 5,
        "int16": -6,
        "uint32": 7,
        "int32": -8,
        "float32": -9.0,
        "uint64": 10,
        "int64": -11,
        "float64": -12.0,
        "bool": True,
        "string": "▁été\n",
        "flags": [True, False, True],
        "numbers": [5, 6, 7],
        "strings": ["", "▁", "\u0000"],
    }


def test_strings_outlive_the_file_and_behave_as_a_sequence(tmp_path: Path) -> None:
    (tmp_path / "s.gguf").write_bytes(gguf_file([key("words", 9, string_array(["a", "bc", "▁d"]))]))
    words = read_gguf(tmp_path / "s.gguf").metadata["words"]
    (tmp_path / "s.gguf").unlink()
    assert (len(words), words[-1], words[:2], words.index("bc")) == (3, "▁d", ["a", "bc"], 1)


def test_a_string_that_is_not_utf8_is_refused_when_the_array_is_read(tmp_path: Path) -> None:
    (tmp_path / "s.gguf").write_bytes(gguf_file([key("words", 9, string_array(["a", b"\xff"]))]))
    words = read_gguf(tmp_path / "s.gguf").metadata["words"]
    with pytest.raises(ModelFormatError, match=r"'words': entry 1 is not UTF-8"):
        words[0]


def test_version_2_is_read_like_version_3(tmp_path: Path) -> None:
    (tmp_path / "v2.gguf").write_bytes(gguf_file([key("k", STRING, string("v"))], version=2))
    assert read_gguf(tmp_path / "v2.gguf").metadata == {"k": "v"}


def test_default_model_has_the_expected_tensors_and_types(default_model: Path) -> None:
    with open_checkpoint(default_model) as checkpoint:
        assert checkpoint.source == "gguf"
        assert checkpoint.norm_includes_one
        types = Counter(checkpoint.info(name).dtype for name in checkpoint.names())
        assert types == {"F32": 109, "Q5_0": 81, "Q4_K": 27, "Q8_0": 10, "Q6_K": 9}
        config = config_from_gguf(checkpoint.raw_config, vocab_size=262144)
        check_shapes(checkpoint, config.tensor_shapes())
        tokens = checkpoint.raw_config["tokenizer.ggml.tokens"]
        assert (len(tokens), tokens[105], tokens[106]) == (262144, "<start_of_turn>", "<end_of_turn>")
        assert checkpoint.raw_config["tokenizer.ggml.token_type"][105] == 3


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("model.norm.weight", "F32"),
        ("model.layers.5.self_attn.q_norm.weight", "F32"),
        ("model.layers.0.self_attn.v_proj.weight", "Q8_0"),
        ("model.layers.17.self_attn.q_proj.weight", "Q5_0"),
        ("model.layers.3.self_attn.o_proj.weight", "Q4_K"),
        ("model.layers.2.mlp.down_proj.weight", "Q4_K"),
        ("model.layers.1.mlp.down_proj.weight", "Q6_K"),
    ],
)
def test_default_model_tensors_are_bit_equal_to_ggml(default_model: Path, name: str, dtype: str) -> None:
    with open_checkpoint(default_model) as checkpoint:
        raw, values = checkpoint.raw(name), checkpoint.tensor(name)
    assert raw.dtype == dtype
    rows = raw.data.reshape(int(np.prod(raw.shape[:-1])), -1)
    expected = quants.dequantize(rows, gguf.GGMLQuantizationType[dtype]).reshape(raw.shape)
    np.testing.assert_array_equal(values.view(np.uint32), expected.view(np.uint32))


@pytest.mark.slow  # takes 671 MB
def test_default_embedding_rows_are_bit_equal_to_ggml(default_model: Path) -> None:
    with open_checkpoint(default_model) as checkpoint:
        raw, values = checkpoint.raw("model.embed_tokens.weight"), checkpoint.tensor("model.embed_tokens.weight")
    assert (raw.dtype, raw.shape) == ("Q8_0", (262144, 640))
    rows = raw.data.reshape(262144, -1)
    for token_id in (0, 105, 131071, 131072, 262143):
        expected = quants.dequantize(rows[token_id : token_id + 1], gguf.GGMLQuantizationType.Q8_0)
        np.testing.assert_array_equal(values[token_id], expected[0])


@pytest.mark.slow  # takes 1.1 GB
def test_every_tensor_of_the_default_model_is_decoded(default_model: Path) -> None:
    with open_checkpoint(default_model) as checkpoint:
        tensors = [checkpoint.tensor(name) for name in checkpoint.names()]
    assert sum(values.size for values in tensors) == 268_098_176
    assert all(np.isfinite(values).all() for values in tensors)
