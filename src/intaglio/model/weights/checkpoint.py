"""An open checkpoint: one interface for all file formats."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import ModelFormatError
from intaglio.model.weights.dequantize import dequantize
from intaglio.model.weights.formats import RawTensor, TensorInfo
from intaglio.model.weights.names import EMBEDDING, HEAD

Source = Literal["gguf", "safetensors"]


@dataclass(frozen=True, slots=True)
class PackedContents:
    """What a packed file has besides tensors.

    fmt              the format that it was packed in
    embedding_dtype  the storage type of the source's embedding
    digests          SHA-256, hex, by internal tensor name
    files            config and tokenizer files by name, as they were beside the source's weights
    """

    fmt: str
    embedding_dtype: str
    digests: Mapping[str, str]
    files: Mapping[str, bytes]

    def check(self, path: Path, name: str, data: NDArray[np.uint8]) -> None:
        """Raise ModelFormatError if the bytes of a tensor are not those that were packed."""
        found = hashlib.sha256(data.data).hexdigest()
        if found != self.digests[name]:
            raise ModelFormatError(
                f"{path}: tensor {name!r} is damaged: its SHA-256 is {found[:12]}..., and {self.digests[name][:12]}... "
                "was packed; copy the file again, or pack it again"
            )


class Checkpoint:
    """Tensors under their Hugging Face names, and the config that came with them. A context manager.

    path               what was opened: a file or a folder
    source             "gguf" or "safetensors"; of a packed file, what it was packed from
    raw_config         config.json as read, or the GGUF metadata (see `gguf.GgufFile.metadata`)
    packed             what a file of `intaglio pack` says about itself; None for any other checkpoint
    norm_includes_one  whether 1 is already added to the weights of every norm, as GGUF converters do.
                       A Gemma norm multiplies by (1 + w): add the 1 if this is False.
    """

    def __init__(
        self,
        path: Path,
        source: Source,
        raw_config: dict[str, Any],
        tensors: Mapping[str, RawTensor],
        packed: PackedContents | None = None,
    ) -> None:
        self.path = path
        self.source: Source = source
        self.raw_config = raw_config
        self.norm_includes_one = source == "gguf"
        self.packed = packed
        self._tensors = dict(tensors)

    @property
    def embedding_dtype(self) -> str:
        """The storage type of the embedding before it was packed, if it was: it rounds the embedding's scale."""
        return self.packed.embedding_dtype if self.packed else self.info(EMBEDDING).dtype

    def names(self) -> list[str]:
        """Every tensor, in the order of the files."""
        return list(self._tensors)

    def info(self, name: str) -> TensorInfo:
        """Shape and storage type. Raises ModelFormatError if there is no such tensor, as `tensor` and `raw` do."""
        raw = self.raw(name)
        return TensorInfo(raw.shape, raw.dtype)

    def tensor(self, name: str) -> NDArray[np.float32]:
        """The values as float32, C-contiguous, [out, in] for a linear weight. A new array on each call.

        Raises ModelFormatError when a value is not finite, and as `checked_raw` does.
        """
        return dequantize(self.checked_raw(name))

    def checked_raw(self, name: str) -> RawTensor:
        """As `raw`, after comparing the bytes with the digest of a packed file. Raises ModelFormatError if damaged."""
        raw = self.raw(name)
        if self.packed is not None:
            self.packed.check(self.path, name, raw.data)
        return raw

    def raw(self, name: str) -> RawTensor:
        """The bytes in the mapped file, without a copy. They stay valid after `close`."""
        try:
            return self._tensors[name]
        except KeyError:
            raise ModelFormatError(f"{self.path} has no tensor {name!r}") from None

    def close(self) -> None:
        """Release the files. Each is unmapped once no RawTensor of it is left."""
        self._tensors.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_shapes(checkpoint: Checkpoint, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Compare a checkpoint with the tensors that its config requires.

    expected  shape by name, from `ModelConfig.tensor_shapes`
    Raises ModelFormatError naming the first tensor that is missing, has another shape, or is not in the config.
    """
    present = set(checkpoint.names())
    for name, shape in expected.items():
        if name not in present:
            raise ModelFormatError(f"{checkpoint.path}: tensor {name!r} is missing; the config requires it")
        found = checkpoint.info(name).shape
        if found != tuple(shape):
            raise ModelFormatError(
                f"{checkpoint.path}: tensor {name!r} has the shape {list(found)}; the config requires {list(shape)}"
            )
    for name in checkpoint.names():
        if name not in expected:
            raise ModelFormatError(f"{checkpoint.path}: tensor {name!r} does not belong to a model of this config")


def without_tied_head(tensors: Mapping[str, RawTensor]) -> dict[str, RawTensor]:
    """Drop `lm_head.weight` when it only repeats the embedding, as some exporters write it."""
    head, embedding = tensors.get(HEAD), tensors.get(EMBEDDING)
    if head is None or embedding is None or not _same_values(head, embedding):
        return dict(tensors)
    return {name: raw for name, raw in tensors.items() if name != HEAD}


def _same_values(one: RawTensor, other: RawTensor) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype == other.dtype and np.array_equal(one.data, other.data):
        return True
    return np.array_equal(dequantize(one), dequantize(other))
