"""The file format of `tokenizer.model`: a protobuf message of pieces and a few settings.

It is written so that the sentencepiece library, which defines Gemma's tokenization, runs every kind of tokenizer file.
It is read here because that library neither exposes the settings nor lets the type of a piece be corrected. Few fields
of the message matter, so a hundred lines replace the protobuf package.
Field numbers: google/sentencepiece, src/sentencepiece_model.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from intaglio.errors import ModelFormatError
from intaglio.files.lfs_pointer import LFS_ADVICE, is_lfs_pointer
from intaglio.text.vocabulary import PieceType, Vocabulary, build_vocabulary

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf wire types

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # fields of ModelProto
_TEXT, _SCORE, _TYPE = 1, 2, 3  # of SentencePiece
_MODEL_TYPE, _BYTE_FALLBACK, _UNK_ID, _BOS_ID, _EOS_ID, _PAD_ID = 3, 35, 40, 41, 42, 43  # of TrainerSpec
_NAME, _CHARSMAP, _DUMMY_PREFIX, _REMOVE_SPACES, _ESCAPE_SPACES = 1, 2, 3, 4, 5  # of NormalizerSpec
_BPE = 2

_FLOAT = struct.Struct("<f")
_SHORT_PIECE = b"%c%%c%c%%c%%b%c%%b%c%%c" % (
    _PIECES << 3 | _BYTES,
    _TEXT << 3 | _BYTES,
    _SCORE << 3 | _FIXED32,
    _TYPE << 3 | _VARINT,
)

_Fields = dict[int, int | bytes]


def write_model(vocabulary: Vocabulary) -> bytes:
    """The vocabulary as a serialized ModelProto: BPE with byte fallback, text unchanged except that a space is ▁."""
    parts = list(map(_encode_piece, vocabulary.pieces, vocabulary.scores, vocabulary.types))
    pad_id = -1 if vocabulary.pad_id is None else vocabulary.pad_id
    trainer = (
        _encode_number(_MODEL_TYPE, _BPE)
        + _encode_number(_BYTE_FALLBACK, 1)
        + _encode_number(_UNK_ID, vocabulary.unk_id)
        + _encode_number(_BOS_ID, vocabulary.bos_id)
        + _encode_number(_EOS_ID, vocabulary.eos_id)
        + _encode_number(_PAD_ID, pad_id)
    )
    normalizer = (
        _encode_field(_NAME, b"identity")
        + _encode_number(_DUMMY_PREFIX, 0)
        + _encode_number(_REMOVE_SPACES, 0)
        + _encode_number(_ESCAPE_SPACES, 1)
    )
    return b"".join([*parts, _encode_field(_TRAINER, trainer), _encode_field(_NORMALIZER, normalizer)])


def read_model(data: bytes, source: str) -> Vocabulary:
    """The vocabulary in the bytes of a `tokenizer.model`. Raises ModelFormatError, naming `source`."""
    if is_lfs_pointer(data):
        raise ModelFormatError(f"{source}: {LFS_ADVICE}")
    pieces: list[str] = []
    scores: list[float] = []
    types: list[PieceType] = []
    trainer: _Fields = {}
    normalizer: _Fields = {}
    try:
        for field, value in _read_fields(data):
            if field == _PIECES:
                text, score, kind = _read_piece(_as_bytes(value))
                pieces.append(text)
                scores.append(score)
                types.append(kind)
            elif field == _TRAINER:
                trainer = dict(_read_fields(_as_bytes(value)))
            elif field == _NORMALIZER:
                normalizer = dict(_read_fields(_as_bytes(value)))
    except (ValueError, struct.error) as err:
        raise ModelFormatError(f"{source}: not a SentencePiece model ({err})") from err
    _check_settings(source, trainer, normalizer)
    return build_vocabulary(source, pieces, scores, types)


def _check_settings(source: str, trainer: _Fields, normalizer: _Fields) -> None:
    """Refuse settings that `write_model` does not write. An absent field has its protobuf default."""
    checks = (
        ("model_type", trainer.get(_MODEL_TYPE, 1), _BPE),
        ("byte_fallback", trainer.get(_BYTE_FALLBACK, 0), 1),
        ("precompiled_charsmap", normalizer.get(_CHARSMAP, b""), b""),
        ("add_dummy_prefix", normalizer.get(_DUMMY_PREFIX, 1), 0),
        ("remove_extra_whitespaces", normalizer.get(_REMOVE_SPACES, 1), 0),
        ("escape_whitespaces", normalizer.get(_ESCAPE_SPACES, 1), 1),
    )
    for name, found, wanted in checks:
        if found != wanted:
            shown = f"{len(found)} bytes" if isinstance(found, bytes) else found
            raise ModelFormatError(f"{source}: {name} is {shown}, but Gemma's tokenizers have {wanted!r}")


def _read_piece(data: bytes) -> tuple[str, float, PieceType]:
    fields = dict(_read_fields(data))
    text = _as_bytes(fields.get(_TEXT, b"")).decode("utf-8")
    (score,) = struct.unpack("<f", _as_bytes(fields.get(_SCORE, b"\0\0\0\0")))
    kind = fields.get(_TYPE, int(PieceType.NORMAL))
    if not isinstance(kind, int):
        raise ValueError(f"the type of piece {text!r} is not a number")
    return text, score, PieceType(kind)


def _as_bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a field is a number where bytes are expected")
    return value


def _read_fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field: int for a varint, raw bytes for the rest. Raises ValueError."""
    pos = 0
    while pos < len(data):
        tag, pos = _read_varint(data, pos)
        wire_type = tag & 7
        if wire_type == _VARINT:
            number, pos = _read_varint(data, pos)
            yield tag >> 3, number
            continue
        if wire_type == _BYTES:
            size, pos = _read_varint(data, pos)
        elif wire_type in (_FIXED32, _FIXED64):
            size = 4 if wire_type == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire_type} at byte {pos}")
        if pos + size > len(data):
            raise ValueError(f"a field of {size} bytes at byte {pos} ends after the file's {len(data)} bytes")
        yield tag >> 3, data[pos : pos + size]
        pos += size


def _read_varint(data: bytes, pos: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if pos >= len(data) or shift > 63:
            raise ValueError(f"a number at byte {pos} does not end")
        byte = data[pos]
        value |= (byte & 0x7F) << shift
        pos += 1
        if byte < 0x80:
            return value, pos
        shift += 7


def _encode_piece(text: str, score: float, kind: int) -> bytes:
    """A piece as a field of the model. It is called for each of 260,000, nearly all of them short."""
    encoded = text.encode("utf-8")
    size = len(encoded)
    if size < 0x80 - 9:  # then both lengths are one byte, and so is the type
        return _SHORT_PIECE % (size + 9, size, encoded, _FLOAT.pack(score), kind)
    head = _encode_field(_TEXT, encoded)
    score_field = bytes([_SCORE << 3 | _FIXED32]) + _FLOAT.pack(score)
    return _encode_field(_PIECES, head + score_field + _encode_number(_TYPE, kind))


def _encode_field(field: int, content: bytes) -> bytes:
    return _encode_varint(field << 3 | _BYTES) + _encode_varint(len(content)) + content


def _encode_number(field: int, value: int) -> bytes:
    return _encode_varint(field << 3 | _VARINT) + _encode_varint(value & (1 << 64) - 1)  # negative: two's complement


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
