"""The vocabulary inside a GGUF file: the `tokenizer.ggml.*` keys of its metadata.

Reads only the head of the file, so the first part of a split file is enough. `model/weights` reads the tensors.
Format: ggml-org/ggml, docs/gguf.md.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from intaglio.errors import ModelFormatError
from intaglio.text.vocabulary import SPACE_SYMBOL, PieceType, Vocabulary, beyond_embedding, build_vocabulary

_PREFIX = "tokenizer.ggml."
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_U64 = struct.Struct("<Q")


def read_gguf_metadata(path: Path) -> dict[str, Any]:
    """The `tokenizer.ggml.*` keys of a GGUF file: str, int, float, bool or lists. Raises ModelFormatError."""
    with path.open("rb") as file:
        if path.stat().st_size < 24:
            raise ModelFormatError(f"{path}: {path.stat().st_size} bytes are too few for a GGUF file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _read_keys(data)
            except (ValueError, struct.error) as err:
                raise ModelFormatError(f"{path}: not a readable GGUF file ({err})") from err


def gguf_vocabulary(metadata: Mapping[str, Any], source: str, num_rows: int | None = None) -> Vocabulary:
    """The vocabulary in GGUF metadata, whose lists may be NumPy arrays too. Raises ModelFormatError.

    num_rows  rows of the model's embedding. Added tokens beyond them are left out: Ollama's files list the image token
              of the multimodal Gemma 3. None keeps all.
    """
    kind = metadata.get(f"{_PREFIX}model")
    if kind != "llama":  # llama.cpp's name for SentencePiece BPE
        raise ModelFormatError(f"{source}: {_PREFIX}model is {kind!r}; Gemma 1, 2 and 3 have 'llama'")
    if len(metadata.get(f"{_PREFIX}precompiled_charsmap", ())):
        raise ModelFormatError(f"{source}: {_PREFIX}precompiled_charsmap is set; Gemma's tokenizers have none")
    tokens: Sequence[str] = list(_required_list(metadata, "tokens", source))
    if not all(isinstance(token, str) for token in tokens):
        raise ModelFormatError(f"{source}: {_PREFIX}tokens must be strings only")
    try:
        types = [PieceType(kind) for kind in _required_list(metadata, "token_type", source)]
    except ValueError as err:
        raise ModelFormatError(f"{source}: {_PREFIX}token_type: {err}") from err
    scores = np.asarray(_required_list(metadata, "scores", source))
    if scores.dtype.kind not in "fiu":
        raise ModelFormatError(f"{source}: {_PREFIX}scores must be numbers only")
    if len(tokens) == len(types) == len(scores):
        added = {tokens[i]: i for i, kind in enumerate(types) if kind in (PieceType.CONTROL, PieceType.USER_DEFINED)}
        beyond = beyond_embedding(added, num_rows, source)
        if beyond == set(range(len(tokens) - len(beyond), len(tokens))):
            kept = len(tokens) - len(beyond)
            tokens, types, scores = tokens[:kept], types[:kept], scores[:kept]
    return build_vocabulary(
        source,
        [_with_space_symbol(token, kind) for token, kind in zip(tokens, types, strict=False)],
        scores.tolist(),
        types,
        bos_id=metadata.get(f"{_PREFIX}bos_token_id"),
        eos_id=metadata.get(f"{_PREFIX}eos_token_id"),
        unk_id=metadata.get(f"{_PREFIX}unknown_token_id"),
        pad_id=metadata.get(f"{_PREFIX}padding_token_id"),
    )


def _with_space_symbol(token: str, kind: PieceType) -> str:
    """GGUF stores user-defined pieces with real spaces, but they are matched against text in which spaces are ▁."""
    return token.replace(" ", SPACE_SYMBOL) if kind == PieceType.USER_DEFINED else token


def _required_list(metadata: Mapping[str, Any], name: str, source: str) -> Sequence[Any]:
    values = metadata.get(_PREFIX + name)
    if values is None or isinstance(values, str | bytes) or not hasattr(values, "__len__"):
        raise ModelFormatError(f"{source}: {_PREFIX}{name} is missing or not a list, so the file has no tokenizer")
    return values  # type: ignore[no-any-return]


def _read_keys(data: mmap.mmap) -> dict[str, Any]:
    if data[:4] != b"GGUF":
        raise ValueError(f"it begins with {data[:4]!r}")
    version = int.from_bytes(data[4:8], "little")
    if version not in (2, 3):
        raise ValueError(f"version {version}; 2 and 3 are known")
    (num_keys,) = _U64.unpack_from(data, 16)
    pos = 24
    found: dict[str, Any] = {}
    for _ in range(num_keys):
        (name,), pos = _read_strings(data, pos, 1)
        kind = int.from_bytes(data[pos : pos + 4], "little")
        value, pos = _read_value(data, pos + 4, kind)
        if name.startswith(_PREFIX):
            found[name] = value
    return found


def _read_value(data: mmap.mmap, pos: int, kind: int) -> tuple[Any, int]:
    if kind == _STRING:
        (text,), pos = _read_strings(data, pos, 1)
        return text, pos
    if kind == _ARRAY:
        kind, count = struct.unpack_from("<IQ", data, pos)
        pos += 12
        return _read_strings(data, pos, count) if kind == _STRING else _read_numbers(data, pos, kind, count)
    values, pos = _read_numbers(data, pos, kind, 1)
    return values[0], pos


def _read_numbers(data: mmap.mmap, pos: int, kind: int, count: int) -> tuple[list[Any], int]:
    if kind not in _SCALARS:
        raise ValueError(f"value type {kind} at byte {pos}")
    dtype = np.dtype(_SCALARS[kind])
    end = pos + count * dtype.itemsize
    if end > len(data):
        raise ValueError(f"{count} values at byte {pos} end after the file's {len(data)} bytes")
    return np.frombuffer(data[pos:end], dtype).tolist(), end


def _read_strings(data: mmap.mmap, pos: int, count: int) -> tuple[list[str], int]:
    size_of, total = _U64.unpack_from, len(data)
    strings: list[str] = []
    for _ in range(count):
        start = pos + 8
        pos = start + size_of(data, pos)[0]
        if pos > total:
            raise ValueError(f"a string at byte {start} ends after the file's {total} bytes")
        strings.append(data[start:pos].decode("utf-8"))
    return strings, pos
