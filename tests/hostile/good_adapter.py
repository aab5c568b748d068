"""The valid adapter that every case spoils, and functions that take its weights file apart and change it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from intaglio.model.config import ModelConfig, config_from_hf
from tests.helpers.adapters import adapter_tensors, peft_config
from tests.helpers.checkpoints import tiny_config

PREFIX = "base_model.model.model.layers"
A = f"{PREFIX}.0.self_attn.q_proj.lora_A.weight"
B = f"{PREFIX}.0.self_attn.q_proj.lora_B.weight"
RANK, ALPHA = 4, 8
DTYPES: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}

Header = dict[str, Any]
Tensors = dict[str, NDArray[Any]]


class Files(NamedTuple):
    """The bytes of adapter_config.json and adapter_model.safetensors."""

    config: bytes
    weights: bytes


def tiny_base() -> ModelConfig:
    """Gemma 1 with three layers, every size different."""
    return config_from_hf(tiny_config("gemma"))


def good_files(base: ModelConfig, seed: int = 0) -> Files:
    """A LoRA of rank 4 on the query and down projections of two of the layers."""
    targets = ["q_proj", "down_proj"]
    tensors = adapter_tensors(base, rank=RANK, targets=targets, layers=[0, 2], seed=seed)
    config = peft_config(r=RANK, lora_alpha=ALPHA, target_modules=targets)
    return Files(json.dumps(config).encode(), save(tensors, {"format": "pt"}))


def join_file(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header, an object or raw bytes. `length` is written as its size, if given."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def split_file(weights: bytes) -> tuple[Header, bytes]:
    """Header and data of a valid file."""
    (length,) = struct.unpack("<Q", weights[:8])
    return json.loads(weights[8 : 8 + length]), weights[8 + length :]


def tensors_of(weights: bytes) -> Tensors:
    """The tensors of a valid file by name; bfloat16 is supported."""
    header, data = split_file(weights)
    header.pop("__metadata__", None)
    tensors: Tensors = {}
    for name, fields in header.items():
        start, stop = fields["data_offsets"]
        tensors[name] = np.frombuffer(data[start:stop], DTYPES[fields["dtype"]]).reshape(fields["shape"])
    return tensors


def with_header(change: Callable[[Header], Any]) -> Callable[[bytes], bytes]:
    """The good file with its header changed in place."""

    def make(weights: bytes) -> bytes:
        header, data = split_file(weights)
        change(header)
        return join_file(header, data)

    return make


def with_entry(name: str = A, **fields: Any) -> Callable[[bytes], bytes]:
    """The good file with fields of one tensor's entry replaced."""
    return with_header(lambda header: header[name].update(fields))


def with_tensors(change: Callable[[Tensors], Any]) -> Callable[[bytes], bytes]:
    """The good file with its tensors changed in place, written as a valid file."""

    def make(weights: bytes) -> bytes:
        tensors = {name: values.copy() for name, values in tensors_of(weights).items()}
        change(tensors)
        return save(tensors, {"format": "pt"})

    return make


def with_extra_tensors(**shapes: tuple[int, ...]) -> Callable[[bytes], bytes]:
    """The good file with additional tensors of ones; in their names `__` stands for a dot."""

    def add(tensors: Tensors) -> None:
        for name, shape in shapes.items():
            tensors[f"base_model.model.{name.replace('__', '.')}"] = np.ones(shape, np.float32)

    return with_tensors(add)


def renamed(old: str, new: str) -> Callable[[bytes], bytes]:
    """The good file with a text in all of its tensor names replaced."""

    def rename(header: Header) -> None:
        for name in list(header):
            header[name.replace(old, new)] = header.pop(name)

    return with_header(rename)
