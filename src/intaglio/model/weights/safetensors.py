"""Read one safetensors file: its tensors as they are stored, mapped. Nothing is decoded here."""

from __future__ import annotations

from pathlib import Path

from intaglio.errors import ModelFormatError
from intaglio.files.regular_file import open_regular
from intaglio.files.safetensors_header import HeaderReader
from intaglio.model.weights.formats import MAX_DIMENSIONS, TYPE_BY_NAME, RawTensor, stored_bytes
from intaglio.model.weights.mapped_file import errors_prefixed_with, map_open_file

# A large Gemma 3 with its vision part has about 1,300 tensors and 200 KB of header. JSON takes some twenty
# times its size in memory once parsed, so the limit of the format itself (100 MB) would be too generous.
_MAX_HEADER_BYTES = 4 << 20


def read_safetensors(path: Path) -> dict[str, RawTensor]:
    """Check the header of a safetensors file and map its tensors, in the order of the file.

    Raises ModelFormatError naming the file and the tensor.
    """
    with open_regular(path, str(path), ModelFormatError) as file:
        entries = HeaderReader(str(path), ModelFormatError, _MAX_HEADER_BYTES, MAX_DIMENSIONS).read(file)
        data = map_open_file(file)
    with errors_prefixed_with(path):
        for entry in entries.values():
            stored_bytes(entry.name, TYPE_BY_NAME[entry.dtype], entry.shape)  # refuses a tensor without elements
    return {
        entry.name: RawTensor(entry.name, entry.dtype, entry.shape, data[entry.start : entry.stop])
        for entry in entries.values()
    }
