"""The weights file of an adapter: its header checked when it is opened, its values when they are read.

Memory is allocated only after the header was checked against the limits of the server.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from intaglio.errors import AdapterError
from intaglio.files.regular_file import open_regular
from intaglio.files.safetensors_header import STORED_DTYPES, HeaderReader, TensorEntry
from intaglio.lora.formats.mlx import is_transposed
from intaglio.lora.formats.other_kinds import NUM_BYTES, describe

# Two tensors for each of 7 · 62 linear layers need 0.2 MB; some trainers keep their settings in __metadata__.
MAX_HEADER_BYTES = 2 << 20
_MAX_DIMENSIONS = 8

_CHUNK_ELEMENTS = 1 << 20  # converted at a time, to bound the memory beside the result


class TensorFile(Protocol):
    """An open weights file of an adapter, with shapes and values as PEFT has them.

    entries  the tensors by name
    """

    @property
    def entries(self) -> Mapping[str, TensorEntry]: ...

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """One tensor as float32. Raises AdapterError when a value is not finite."""

    def read_rows(self, name: str, first: int, last: int) -> npt.NDArray[np.float32]:
        """Rows first ... last - 1 of a matrix as float32, like `read`."""


class SafetensorsFile:
    """An open file with a checked header.

    entries  the tensors by name, in the order in which they lie in the file. The matrices of MLX are transposed, so
             that shapes and values are those of PEFT

    The constructor raises AdapterError saying what is wrong. Use as a context manager.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._label = path.name
        self._file = open_regular(path, path.name, AdapterError)
        try:
            size = os.fstat(self._file.fileno()).st_size
            if size > max_bytes:
                raise AdapterError(
                    f"{path.name} has {size} bytes; the limit is {max_bytes} (max_adapter_file_bytes). If PEFT "
                    "put tables of the base beside the adapter, save_embedding_layers=False leaves them out"
                )
            self._refuse_other_kinds()
            stored = HeaderReader(path.name, AdapterError, MAX_HEADER_BYTES, _MAX_DIMENSIONS).read(self._file)
            self.entries = {name: _in_order_of_peft(entry) for name, entry in stored.items()}
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> SafetensorsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """One tensor as float32, whatever its stored type. Raises AdapterError when a value is not finite."""
        entry = self.entries[name]
        values = self._values(entry, entry.start, entry.stop)
        if is_transposed(name):
            return np.ascontiguousarray(values.reshape(entry.shape[::-1]).T)
        return values.reshape(entry.shape)

    def read_rows(self, name: str, first: int, last: int) -> npt.NDArray[np.float32]:
        """Rows first ... last - 1 of a matrix as float32, like `read`."""
        entry = self.entries[name]
        row_bytes = entry.shape[1] * STORED_DTYPES[entry.dtype].itemsize
        start = entry.start + first * row_bytes
        return self._values(entry, start, start + (last - first) * row_bytes).reshape(last - first, entry.shape[1])

    def check_values(self, name: str) -> None:
        """Raise AdapterError if a value of the tensor is not finite. Takes a few MB of memory for any tensor."""
        entry = self.entries[name]
        for _ in self._chunks(entry, entry.start, entry.stop):
            pass

    def _refuse_other_kinds(self) -> None:
        kind = describe(self._file.read(NUM_BYTES))
        if kind is not None:
            raise AdapterError(f"{self._label} {kind}")
        self._file.seek(0)

    def _values(self, entry: TensorEntry, start: int, stop: int) -> npt.NDArray[np.float32]:
        values = np.empty((stop - start) // STORED_DTYPES[entry.dtype].itemsize, np.float32)
        filled = 0
        for chunk in self._chunks(entry, start, stop):
            values[filled : filled + chunk.size] = chunk
            filled += chunk.size
        return values

    def _chunks(self, entry: TensorEntry, start: int, stop: int) -> Iterator[npt.NDArray[np.float32]]:
        """The values between two byte offsets of the file."""
        stored = STORED_DTYPES[entry.dtype]
        self._file.seek(start)
        left = stop - start
        while left:
            raw = self._file.read(min(left, _CHUNK_ELEMENTS * stored.itemsize))
            if not raw or len(raw) % stored.itemsize:
                raise AdapterError(f"{self._label}: the file ends inside tensor {entry.name!r}")
            left -= len(raw)
            chunk = _to_float32(np.frombuffer(raw, stored), entry.dtype)
            if not np.isfinite(chunk).all():
                raise AdapterError(
                    f"{self._label}: tensor {entry.name!r} holds values that are NaN or infinite; "
                    "the training diverged or the file is damaged"
                )
            yield chunk


def _in_order_of_peft(entry: TensorEntry) -> TensorEntry:
    return replace(entry, shape=entry.shape[::-1]) if is_transposed(entry.name) else entry


def _to_float32(stored: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.float32]:
    if dtype == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)
