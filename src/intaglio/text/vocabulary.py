"""What every tokenizer file contains: pieces, scores, types, and the ids of bos, eos, unk and pad.

Every reader of this package returns it, and `sentencepiece_model.write_model` takes it. This module knows which pieces
are control tokens; it does not know files or the encoding algorithm.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import isfinite

from intaglio.errors import ModelFormatError

logger = logging.getLogger(__name__)

SPACE_SYMBOL = "\u2581"  # SentencePiece writes a space as ▁ inside pieces

_CONTROL_NAMES = frozenset(
    {
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<mask>",
        "<2mass>",
        "[@BOS@]",
        "<start_of_turn>",
        "<end_of_turn>",
        "<turn|>",
    }
)
_UNUSED_NAME = re.compile(r"<unused\d+>")
_BYTE_NAME = re.compile(r"<0x([0-9A-F]{2})>")


class PieceType(IntEnum):
    """The types of SentencePiece's model file; GGUF uses the same numbers."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A checked SentencePiece BPE vocabulary; a token's id is its index.

    pieces   texts, a space written as ▁, unique, none empty
    scores   for NORMAL pieces the merge order: of two possible merges the higher score is done first
    types    one `PieceType` per piece; exactly one UNKNOWN, all 256 BYTE pieces
    pad_id   None where the vocabulary has no padding piece
    """

    pieces: Sequence[str]
    scores: Sequence[float]
    types: Sequence[PieceType]
    bos_id: int
    eos_id: int
    unk_id: int
    pad_id: int | None

    @property
    def control_ids(self) -> dict[str, int]:
        """Text -> id of every piece that plain text is never encoded to."""
        kinds = (PieceType.CONTROL, PieceType.UNKNOWN)
        return {self.pieces[i]: i for i, kind in enumerate(self.types) if kind in kinds}


def build_vocabulary(
    source: str,
    pieces: Sequence[str],
    scores: Sequence[float],
    types: Sequence[PieceType],
    *,
    bos_id: int | None = None,
    eos_id: int | None = None,
    unk_id: int | None = None,
    pad_id: int | None = None,
) -> Vocabulary:
    """Check and complete what was read; ids that are None are looked up by text (`<bos>` and so on).

    Pieces with the name of a control token become CONTROL whatever type the file gives them: Gemma's own
    SentencePiece model types the turn tokens as user-defined, so that any user text could write them.
    `source` names the file in messages. Raises ModelFormatError.
    """
    _check_shape(source, pieces, scores, types)
    roles = {
        name: _role_id(source, pieces, name, given)
        for name, given in (("bos", bos_id), ("eos", eos_id), ("unk", unk_id))
    }
    if pad_id is not None or "<pad>" in pieces:
        pad_id = _role_id(source, pieces, "pad", pad_id)
    final: list[PieceType] = [
        PieceType.CONTROL if is_control_name(piece) or kind == PieceType.UNKNOWN else kind
        for piece, kind in zip(pieces, types, strict=True)
    ]
    final[roles["bos"]] = final[roles["eos"]] = PieceType.CONTROL
    if pad_id is not None:
        final[pad_id] = PieceType.CONTROL
    final[roles["unk"]] = PieceType.UNKNOWN
    _check_bytes(source, pieces, final)
    return Vocabulary(
        pieces=pieces,
        scores=scores,
        types=final,
        bos_id=roles["bos"],
        eos_id=roles["eos"],
        unk_id=roles["unk"],
        pad_id=pad_id,
    )


def beyond_embedding(added: Mapping[str, int], num_rows: int | None, source: str) -> set[int]:
    """The ids of added tokens for which the embedding has no row, so that no prompt can contain them."""
    beyond = {text: token_id for text, token_id in added.items() if num_rows is not None and token_id >= num_rows}
    if beyond:
        names = ", ".join(f"{text} ({token_id})" for text, token_id in beyond.items())
        logger.info("%s: left out, since the embedding has %d rows: %s", source, num_rows, names)
    return set(beyond.values())


def is_control_name(piece: str) -> bool:
    """Whether Gemma uses a piece of this text as a control token, whatever type a file gives it."""
    # The comparison first: few of 260,000 pieces begin so.
    return piece in _CONTROL_NAMES or (piece[:7] == "<unused" and _UNUSED_NAME.fullmatch(piece) is not None)


def byte_value(piece: str) -> int | None:
    """The byte that a piece such as `<0x0A>` stands for, None for any other text."""
    match = _BYTE_NAME.fullmatch(piece) if piece[:3] == "<0x" else None
    return int(match[1], 16) if match else None


def _check_shape(source: str, pieces: Sequence[str], scores: Sequence[float], types: Sequence[PieceType]) -> None:
    if not len(pieces) == len(scores) == len(types):
        raise ModelFormatError(
            f"{source}: {len(pieces)} pieces, {len(scores)} scores and {len(types)} types; there must be "
            "one of each per token"
        )
    if all(map(isfinite, scores)) and all(pieces) and len(set(pieces)) == len(pieces):
        return
    wrong = next((i for i, score in enumerate(scores) if not isfinite(score)), None)
    if wrong is not None:
        raise ModelFormatError(f"{source}: the score of token {wrong} is {scores[wrong]}")
    seen: dict[str, int] = {}
    for token_id, piece in enumerate(pieces):
        if not piece:
            raise ModelFormatError(f"{source}: token {token_id} has no text")
        if seen.setdefault(piece, token_id) != token_id:
            raise ModelFormatError(f"{source}: tokens {seen[piece]} and {token_id} are both {piece!r}")


def _role_id(source: str, pieces: Sequence[str], name: str, given: int | None) -> int:
    if given is None:
        piece = f"<{name}>"
        if piece not in pieces:
            raise ModelFormatError(f"{source}: the vocabulary has no {piece} piece, which every Gemma has")
        return pieces.index(piece)
    if not isinstance(given, int) or not 0 <= given < len(pieces):
        raise ModelFormatError(f"{source}: {name} id {given!r} is outside the vocabulary of {len(pieces)} tokens")
    return given


def _check_bytes(source: str, pieces: Sequence[str], types: Sequence[PieceType]) -> None:
    found = {byte_value(pieces[i]) for i, kind in enumerate(types) if kind == PieceType.BYTE}
    missing = sorted(set(range(256)) - found)
    if missing or None in found:
        names = ", ".join(f"<0x{value:02X}>" for value in missing[:4])
        raise ModelFormatError(f"{source}: {len(missing)} of the 256 byte pieces are missing ({names})")
