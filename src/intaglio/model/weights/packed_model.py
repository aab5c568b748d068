"""A file of `intaglio pack`: config, tokenizer and quantized weights in one safetensors file, for any kind of machine.

    the embedded files   U8, named "files/config.json" and so on: the small files of the source
    norms                F32
    matrices             U8 [out, bytes of a row]: blocks of a storage type of `formats` (Q8_0, Q5_1, Q4_1, ...)

`__metadata__` has "format", "version" and "contents", a JSON text: the storage type, shape and SHA-256 of each tensor.
Names are internal names (`names`). The weights are in no kernel's layout: loading rearranges the numbers without
rounding them. Written by `model.packing`. If the source is GGUF, an embedded GGUF file has its metadata alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from intaglio.errors import ModelFormatError
from intaglio.files.json_object import parse_json_object
from intaglio.files.regular_file import open_regular
from intaglio.files.safetensors_header import STORED_DTYPES, HeaderReader
from intaglio.model.weights.checkpoint import Checkpoint, PackedContents, Source
from intaglio.model.weights.formats import MAX_DIMENSIONS, TYPE_BY_NAME, RawTensor, stored_bytes
from intaglio.model.weights.gguf import read_gguf_metadata_bytes
from intaglio.model.weights.mapped_file import errors_prefixed_with, map_open_file

FORMAT = "intaglio-packed"
VERSION = "1"
FILES_PREFIX = "files/"
GGUF_METADATA_FILE = "metadata.gguf"
CONFIG_FILE = "config.json"
PACKED_DTYPES: Mapping[str, np.dtype[Any]] = {**STORED_DTYPES, "U8": np.dtype("u1")}
MAX_HEADER_BYTES = 4 << 20
_MAX_CONFIG_BYTES = 1 << 20


class PackedTensor(msgspec.Struct, frozen=True):
    """One tensor, or an embedded file, whose dtype is "file". sha256: of its bytes in the file, hex."""

    dtype: str
    shape: tuple[int, ...]
    sha256: str


class Description(msgspec.Struct, frozen=True):
    """The JSON text in `__metadata__`.

    fmt, calibrated  how it was packed; calibrated: whether errors were weighted with activations
    source           "gguf" or "safetensors"
    embedding_dtype  storage type of the source's embedding
    key              identifies the source's files and the options; see `packing.plan`
    """

    fmt: str
    calibrated: bool
    source: Source
    embedding_dtype: str
    key: str
    tensors: dict[str, PackedTensor]


def is_packed_model(path: Path) -> bool:
    """Whether a file is one of `intaglio pack`, from its first bytes."""
    try:
        if not path.is_file():  # opening a pipe would wait
            return False
        with path.open("rb") as file:
            start = file.read(8 + 64)
    except OSError:
        return False
    return start[8:].startswith(b'{"__metadata__":{"format":"' + FORMAT.encode() + b'"')


def read_description(path: Path) -> Description:
    """What a packed file says about itself, after checking that its header fits the file. Raises ModelFormatError."""
    return _read(path)[0]


def open_packed_model(path: Path) -> Checkpoint:
    """Check the header and the embedded files, and map the tensors, whose digests are compared when they are used.

    Raises ModelFormatError naming the file and the tensor.
    """
    description, data = _read(path)
    contents = PackedContents(
        description.fmt,
        description.embedding_dtype,
        {name: tensor.sha256 for name, tensor in description.tensors.items()},
        {
            name.removeprefix(FILES_PREFIX): data[name].tobytes()
            for name, tensor in description.tensors.items()
            if tensor.dtype == "file"
        },
    )
    for name in data:
        if name.startswith(FILES_PREFIX):
            contents.check(path, name, data[name])
    tensors = {
        name: RawTensor(name, tensor.dtype, tensor.shape, data[name])
        for name, tensor in description.tensors.items()
        if tensor.dtype != "file"
    }
    return Checkpoint(path, description.source, _raw_config(path, description, contents), tensors, contents)


def _check_file_name(name: str) -> None:
    """The embedded files are written into a folder, so a name must not lead out of it. Raises ModelFormatError."""
    inner = name.removeprefix(FILES_PREFIX)
    if not name.startswith(FILES_PREFIX) or inner in ("", ".", "..") or set(inner) & set("/\\\0"):
        raise ModelFormatError(f"{name!r} is not the name of an embedded file")


def _read(path: Path) -> tuple[Description, dict[str, NDArray[np.uint8]]]:
    with open_regular(path, str(path), ModelFormatError) as file:
        header = HeaderReader(str(path), ModelFormatError, MAX_HEADER_BYTES, MAX_DIMENSIONS, PACKED_DTYPES).read_header(
            file
        )
        data = map_open_file(file)
    with errors_prefixed_with(path):
        version = header.metadata.get("version")
        if version != VERSION:
            raise ModelFormatError(f"packed by another version (file format {version!r}, {VERSION!r} is read)")
        try:
            description = msgspec.json.decode(header.metadata.get("contents", ""), type=Description)
        except msgspec.DecodeError as error:
            raise ModelFormatError(f"the description of its contents cannot be read: {error}") from error
        if description.source == "safetensors" and description.embedding_dtype not in STORED_DTYPES:
            raise ModelFormatError(f"embedding_dtype is {description.embedding_dtype!r}")
        if description.tensors.keys() != header.entries.keys():
            odd = sorted(description.tensors.keys() ^ header.entries.keys())
            raise ModelFormatError(f"tensor {odd[0]!r} is not in both the header and the description of its contents")
        for name, tensor in description.tensors.items():
            if tensor.dtype == "file":
                _check_file_name(name)
            entry = header.entries[name]
            _check_size(name, tensor, entry.stop - entry.start)
    return description, {name: data[entry.start : entry.stop] for name, entry in header.entries.items()}


def _check_size(name: str, tensor: PackedTensor, size: int) -> None:
    if tensor.dtype == "file":
        return
    if tensor.dtype not in TYPE_BY_NAME or len(tensor.shape) > MAX_DIMENSIONS:
        raise ModelFormatError(
            f"tensor {name!r} has the storage type {tensor.dtype!r} and {len(tensor.shape)} dimensions"
        )
    needed = stored_bytes(name, TYPE_BY_NAME[tensor.dtype], tensor.shape)
    if needed != size:
        raise ModelFormatError(
            f"tensor {name!r}, {tensor.dtype} of shape {list(tensor.shape)}, needs {needed} bytes; the file has {size}"
        )


def _raw_config(path: Path, description: Description, contents: PackedContents) -> dict[str, Any]:
    wanted = GGUF_METADATA_FILE if description.source == "gguf" else CONFIG_FILE
    if wanted not in contents.files:
        raise ModelFormatError(f"{path} holds no {wanted}")
    label = f"{path}: {wanted}"
    if description.source == "gguf":
        return read_gguf_metadata_bytes(contents.files[wanted], label)
    content = contents.files[wanted]
    if len(content) > _MAX_CONFIG_BYTES:
        raise ModelFormatError(f"{label} has more than {_MAX_CONFIG_BYTES} bytes")
    return parse_json_object(content, label, ModelFormatError)
