"""What a packed file will hold and where. Every size is known before anything is quantized, digests only afterwards.

Digests have a fixed length, so the header can be written first, with zeros in their place, and again at the end.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from intaglio.errors import PackingError
from intaglio.files.safetensors_header import MAX_NAME_CHARS
from intaglio.model.packing.blocks import storage_type
from intaglio.model.packing.sources import source_files
from intaglio.model.quantize import format_of
from intaglio.model.weights import Checkpoint, TensorInfo, part_paths
from intaglio.model.weights.formats import TYPE_BY_NAME, stored_bytes
from intaglio.model.weights.names import EMBEDDING, HEAD
from intaglio.model.weights.packed_model import (
    FILES_PREFIX,
    FORMAT,
    VERSION,
    Description,
    PackedTensor,
    is_packed_model,
)
from intaglio.ops import GROUP, QuantizedFormat

NO_DIGEST = "0" * 64
_ALIGNMENT = 64  # of the data, for readers that map it
_SOURCE_SUFFIXES = (".safetensors", ".gguf", ".json", ".model", ".jinja")
ROUNDING = "search 1"  # raise it when the numbers that `quantize` finds change


@dataclass(frozen=True, slots=True)
class Item:
    """One tensor or embedded file.

    dtype, shape  as in `PackedTensor`
    num_bytes     in the packed file
    source_bytes  that are read for it, by which progress counts
    fmt           of a matrix; None: a norm, or an embedded file
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int
    source_bytes: int
    fmt: QuantizedFormat | None = None


@dataclass(frozen=True, slots=True)
class PackPlan:
    """description: with NO_DIGEST for every digest. files: content of the embedded files by item name."""

    items: list[Item]
    files: Mapping[str, bytes]
    description: Description

    @property
    def key(self) -> str:
        return self.description.key

    def header(self, digests: Mapping[str, str]) -> bytes:
        """The file up to its data; of the same length whatever the digests are."""
        contents = msgspec.structs.replace(
            self.description,
            tensors={
                name: msgspec.structs.replace(tensor, sha256=digests.get(name, NO_DIGEST))
                for name, tensor in self.description.tensors.items()
            },
        )
        metadata = {"format": FORMAT, "version": VERSION, "contents": msgspec.json.encode(contents).decode()}
        header: dict[str, object] = {"__metadata__": metadata}
        offset = 0
        for item in self.items:
            stored_as = "F32" if item.dtype == "F32" else "U8"
            shape = item.shape if stored_as == "F32" else [item.num_bytes]
            header[item.name] = {"dtype": stored_as, "shape": shape, "data_offsets": [offset, offset + item.num_bytes]}
            offset += item.num_bytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % _ALIGNMENT)
        return struct.pack("<Q", len(text)) + text

    @property
    def num_bytes(self) -> int:
        """Of the whole file."""
        return len(self.header({})) + sum(item.num_bytes for item in self.items)


def make_plan(checkpoint: Checkpoint, fmt: QuantizedFormat, calibration: str | None) -> PackPlan:
    """The plan for an open checkpoint, whose tensors fit its config.

    calibration  digest of the calibration text; None without one
    Raises PackingError if a matrix cannot be stored or a file cannot be read.
    """
    files = {f"{FILES_PREFIX}{name}": content for name, content in source_files(checkpoint).items()}
    items = [Item(name, "file", (len(content),), len(content), len(content)) for name, content in files.items()]
    items += [_item(name, checkpoint, fmt) for name in checkpoint.names()]
    description = Description(
        fmt=fmt,
        calibrated=calibration is not None,
        source=checkpoint.source,
        embedding_dtype=checkpoint.embedding_dtype,
        key=_key(checkpoint, fmt, calibration),
        tensors={item.name: PackedTensor(item.dtype, item.shape, NO_DIGEST) for item in items},
    )
    return PackPlan(items, files, description)


def _item(name: str, checkpoint: Checkpoint, fmt: QuantizedFormat) -> Item:
    info, source_bytes = checkpoint.info(name), checkpoint.raw(name).data.nbytes
    assert len(name) <= MAX_NAME_CHARS, "internal names are short"
    if len(info.shape) == 1:
        return Item(name, "F32", info.shape, 4 * info.shape[0], source_bytes)
    if info.shape[1] % GROUP:
        raise PackingError(
            f"{checkpoint.path}: tensor {name!r} has rows of {info.shape[1]} numbers; packed files hold whole groups "
            f"of {GROUP}, as every published Gemma has them (`serve --format {fmt}` takes this one)"
        )
    stored_fmt = _format(name, info, fmt)
    dtype = storage_type(info.dtype, stored_fmt)
    num_bytes = stored_bytes(name, TYPE_BY_NAME[dtype], info.shape)
    return Item(name, dtype, info.shape, num_bytes, source_bytes, stored_fmt)


def _format(name: str, info: TensorInfo, fmt: QuantizedFormat) -> QuantizedFormat:
    found = format_of(info.dtype, fmt, is_table=name in (EMBEDDING, HEAD))
    assert found == "w8" or found == "w5" or found == "w4", "a quantized format gives quantized ones"
    return found


def _key(checkpoint: Checkpoint, fmt: QuantizedFormat, calibration: str | None) -> str:
    """Changes with the source's files (by name, size and time), the format, the rounding and the calibration."""
    path = checkpoint.path
    files = sorted(path.iterdir()) if path.is_dir() else part_paths(path)
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if _counts(file)]
    return hashlib.sha256(repr((VERSION, ROUNDING, fmt, calibration, facts)).encode()).hexdigest()


def _counts(file: Path) -> bool:
    """Whether a file is part of the source: the packed file itself may be written beside it."""
    return file.is_file() and file.suffix in _SOURCE_SUFFIXES and not is_packed_model(file)
