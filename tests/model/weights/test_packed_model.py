"""Packed files that are not what they say: each is refused by a sentence that names the file and what is wrong."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from intaglio.errors import ModelFormatError
from intaglio.model.loader import read_config
from intaglio.model.packing.pack import pack
from intaglio.model.weights import open_checkpoint
from intaglio.model.weights.packed_model import is_packed_model
from tests.helpers.checkpoints import random_weights, tiny_config, write_hf_folder

Change = Callable[[dict[str, Any], dict[str, Any]], None]
UP = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    config = tiny_config("gemma", hidden_size=64)
    pack(write_hf_folder(tmp_path / "model", config, random_weights(config)), tmp_path / "packed", "w4")
    return tmp_path / "packed"


def changed(packed: Path, change: Change) -> Path:
    """The file with its header, and the description in it, changed."""
    content = packed.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    description = json.loads(header["__metadata__"]["contents"])
    change(header, description)
    if header["__metadata__"]["contents"] is not None:
        header["__metadata__"]["contents"] = json.dumps(description)
    else:
        del header["__metadata__"]["contents"]
    text = json.dumps(header, separators=(",", ":")).encode()
    packed.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    return packed


def with_version(header: dict[str, Any], description: dict[str, Any]) -> None:
    header["__metadata__"]["version"] = "2"


def without_description(header: dict[str, Any], description: dict[str, Any]) -> None:
    header["__metadata__"]["contents"] = None


def with_a_tensor_less(header: dict[str, Any], description: dict[str, Any]) -> None:
    del description["tensors"][UP]


def with_another_type(header: dict[str, Any], description: dict[str, Any]) -> None:
    description["tensors"][UP]["dtype"] = "Q8_0"


def with_an_unknown_type(header: dict[str, Any], description: dict[str, Any]) -> None:
    description["tensors"][UP]["dtype"] = "Q3_X"


def with_an_empty_shape(header: dict[str, Any], description: dict[str, Any]) -> None:
    description["tensors"][UP]["shape"] = [0, 64]


def with_wrong_fields(header: dict[str, Any], description: dict[str, Any]) -> None:
    description["tensors"] = []


def without_a_config(header: dict[str, Any], description: dict[str, Any]) -> None:
    description["tensors"]["files/other"] = description["tensors"].pop("files/config.json")
    header["files/other"] = header.pop("files/config.json")


def with_another_embedding_type(header: dict[str, Any], description: dict[str, Any]) -> None:
    description["embedding_dtype"] = "F8"


def with_a_file_named(name: str) -> Change:
    def change(header: dict[str, Any], description: dict[str, Any]) -> None:
        description["tensors"][name] = description["tensors"].pop("files/config.json")
        header[name] = header.pop("files/config.json")

    return change


@pytest.mark.parametrize(
    "name", ["files/../config.json", "files//root/x", "files/a/b", "files/", "files/..", "/root/x", "config.json"]
)
def test_an_embedded_file_cannot_be_written_outside_its_folder(packed: Path, name: str) -> None:
    with pytest.raises(ModelFormatError, match=f"'{name}' is not the name of an embedded file"):
        open_checkpoint(changed(packed, with_a_file_named(name)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_another_embedding_type, "embedding_dtype is 'F8'"),
        (with_version, r"packed by another version \(file format '2', '1' is read\)"),
        (without_description, "the description of its contents cannot be read"),
        (with_a_tensor_less, f"tensor '{UP}' is not in both the header and the description"),
        (with_another_type, rf"tensor '{UP}', Q8_0 of shape \[160, 64\], needs 10880 bytes; the file has 6400"),
        (with_an_unknown_type, f"tensor '{UP}' has the storage type 'Q3_X'"),
        (with_an_empty_shape, "every dimension must be at least 1"),
        (with_wrong_fields, "the description of its contents cannot be read"),
        (without_a_config, "holds no config.json"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(packed: Path, change: Change, message: str) -> None:
    with pytest.raises(ModelFormatError, match=f"packed.*{message}"):
        open_checkpoint(changed(packed, change))


def test_a_changed_shape_of_the_same_size_is_refused_by_the_config(packed: Path) -> None:
    def turned(header: dict[str, Any], description: dict[str, Any]) -> None:
        description["tensors"][UP]["shape"] = [64, 160]

    with (
        open_checkpoint(changed(packed, turned)) as checkpoint,
        pytest.raises(ModelFormatError, match=r"has the shape \[64, 160\]; the config requires \[160, 64\]"),
    ):
        read_config(checkpoint)


def test_only_the_beginning_of_a_packed_file_is_taken_for_one(packed: Path, tmp_path: Path) -> None:
    assert is_packed_model(packed)
    assert not is_packed_model(tmp_path / "model" / "model.safetensors")
    assert not is_packed_model(tmp_path / "model" / "config.json")
    assert not is_packed_model(tmp_path / "model")
    assert not is_packed_model(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    assert not is_packed_model(tmp_path / "pipe"), "and without waiting for a writer"
