"""The vocabulary inside a Hugging Face `tokenizer.json`: pieces by id, merges by rank, added tokens.

That file is a translation of Gemma's SentencePiece model, and this module translates it back. A merge list can express
more than scores can, so it is translated only if that is exact: every possible split of a piece must be a merge, and
the merges of one piece must be adjacent. Anything else is refused, and the message names it.

Known files differ in which reserved pieces they list as added tokens; one lists four of them. The others are recognised
by their position in the vocabulary and their text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from intaglio.errors import ModelFormatError
from intaglio.files.lfs_pointer import LFS_ADVICE, is_lfs_pointer
from intaglio.text.vocabulary import SPACE_SYMBOL, PieceType, Vocabulary, beyond_embedding, build_vocabulary, byte_value

_WHITESPACE_RUN = re.compile(rf"\n+|\t+|{SPACE_SYMBOL}{{2,}}")
_RUN_CHARS = frozenset(("\n", "\t", SPACE_SYMBOL))
_BRACKETED = re.compile(r"<[^<>]+>|\[[^\[\]]+\]")
_SPACE_TO_SYMBOL = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE_SYMBOL}
# Some files split at spaces after every space has become ▁, which has no effect.
_SPLIT_WITHOUT_EFFECT = {
    "type": "Split",
    "pattern": {"String": " "},
    "behavior": "MergedWithPrevious",
    "invert": False,
}


def read_hf_vocabulary(path: Path, num_rows: int | None = None) -> Vocabulary:
    """The vocabulary of a `tokenizer.json` made from a SentencePiece BPE model. Raises ModelFormatError.

    num_rows  rows of the model's embedding. Added tokens beyond them are left out: Google's text models of Gemma 3 list
              the image token of the multimodal ones. None keeps all.
    """
    source = str(path)
    content = path.read_bytes()
    if is_lfs_pointer(content):
        raise ModelFormatError(f"{source}: {LFS_ADVICE}")
    document, model = _decode(source, content)
    _check_settings(source, document, model)
    added = _added_tokens(source, document.added_tokens)
    beyond = beyond_embedding({text: token_id for token_id, (text, _) in added.items()}, num_rows, source)
    added = {token_id: token for token_id, token in added.items() if token_id not in beyond}
    pieces = _pieces_by_id(source, model.vocab, added)
    _restore_tab_byte(pieces)
    ranks, cuts = _join_merges(source, _read_merges(source, model.merges), {text for text, _ in added.values()})
    types = _piece_types(pieces, added, ranks)
    _check_merges_complete(source, pieces, types, cuts)
    scores = [-float(ranks.get(piece, len(ranks))) for piece in pieces]
    return build_vocabulary(source, pieces, scores, types)


class _Model(msgspec.Struct):
    """The object `model`. Its merges, half a million, are decoded apart and as tuples: lists of lists take a second
    more, and as much again for the garbage collection."""

    type: Any = None
    byte_fallback: Any = None
    dropout: Any = None
    ignore_merges: Any = None
    continuing_subword_prefix: Any = None
    end_of_word_suffix: Any = None
    vocab: Any = None
    merges: msgspec.Raw = msgspec.Raw(b"null")


class _Document(msgspec.Struct):
    model: _Model
    added_tokens: Any = None
    normalizer: Any = None
    pre_tokenizer: Any = None


def _decode(source: str, content: bytes) -> tuple[_Document, _Model]:
    try:
        document = msgspec.json.decode(content, type=_Document)
    except msgspec.ValidationError as err:
        raise ModelFormatError(f"{source}: no object `model`, so this is not a tokenizer.json ({err})") from err
    except msgspec.DecodeError as err:
        raise ModelFormatError(f"{source}: not JSON ({err})") from err
    return document, document.model


def _check_settings(source: str, document: _Document, model: _Model) -> None:
    checks = (
        ("model.type", model.type, ("BPE",)),
        ("model.byte_fallback", model.byte_fallback, (True,)),
        ("model.dropout", model.dropout, (None, 0)),
        ("model.ignore_merges", model.ignore_merges, (None, False)),
        ("model.continuing_subword_prefix", model.continuing_subword_prefix, (None, "")),
        ("model.end_of_word_suffix", model.end_of_word_suffix, (None, "")),
        ("normalizer", document.normalizer, (_SPACE_TO_SYMBOL,)),
        ("pre_tokenizer", document.pre_tokenizer, (None, _SPLIT_WITHOUT_EFFECT)),
    )
    for name, found, allowed in checks:
        if found not in allowed:
            raise ModelFormatError(f"{source}: {name} is {found!r}, but Gemma's tokenizers have {allowed[0]!r}")


def _added_tokens(source: str, entries: object) -> dict[int, tuple[str, bool]]:
    """id -> (text, whether it is special). Refuses tokens that are matched in another way than SentencePiece's."""
    if entries is not None and not isinstance(entries, list):
        raise ModelFormatError(f"{source}: added_tokens is not a list")
    added: dict[int, tuple[str, bool]] = {}
    for entry in entries or []:
        try:
            token_id, text, special = int(entry["id"]), str(entry["content"]), bool(entry["special"])
        except (KeyError, TypeError, ValueError) as err:
            raise ModelFormatError(f"{source}: added token {entry!r} lacks id, content or special") from err
        for flag in ("single_word", "lstrip", "rstrip"):
            if entry.get(flag):
                raise ModelFormatError(
                    f"{source}: added token {token_id}, {text!r}, has {flag}, which is not supported"
                )
        added[token_id] = (text.replace(" ", SPACE_SYMBOL), special)
    return added


def _pieces_by_id(source: str, vocab: object, added: Mapping[int, tuple[str, bool]]) -> list[str]:
    if not isinstance(vocab, dict) or not vocab:
        raise ModelFormatError(f"{source}: model.vocab is not an object of pieces")
    by_id: dict[int, str] = {}
    for piece, token_id in vocab.items():
        if by_id.setdefault(token_id, piece) != piece:
            raise ModelFormatError(f"{source}: id {token_id} is both {by_id[token_id]!r} and {piece!r}")
    for token_id, (text, _) in added.items():
        if by_id.setdefault(token_id, text) != text:
            raise ModelFormatError(
                f"{source}: id {token_id} is {by_id[token_id]!r} in model.vocab, {text!r} in added_tokens"
            )
    missing = next((i for i in range(len(by_id)) if i not in by_id), None)
    if missing is not None:
        raise ModelFormatError(f"{source}: {len(by_id)} tokens, but none has id {missing}")
    return [by_id[i] for i in range(len(by_id))]


def _restore_tab_byte(pieces: list[str]) -> None:
    """The translation of Gemma 1 and 2 writes a tab where the original has the byte piece 0x09."""
    if "<0x09>" in pieces or "<0x08>" not in pieces:
        return
    place = pieces.index("<0x08>") + 1
    if place < len(pieces) and pieces[place] == "\t":
        pieces[place] = "<0x09>"


def _read_merges(source: str, written: msgspec.Raw) -> list[tuple[str, str]]:
    """The merges in their order. Newer files write one as ["left", "right"], older ones as "left right"."""
    try:
        return msgspec.json.decode(written, type=list[tuple[str, str]])
    except msgspec.ValidationError:
        merges = msgspec.json.decode(written)
    if not isinstance(merges, list):
        raise ModelFormatError(f"{source}: model.merges is not a list")
    pairs: list[tuple[str, str]] = []
    for index, merge in enumerate(merges):
        halves = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(halves, list) or len(halves) != 2 or not all(isinstance(half, str) for half in halves):
            raise ModelFormatError(f"{source}: merge {index} is {merge!r}, not a pair of pieces")
        pairs.append((halves[0], halves[1]))
    return pairs


class _Joined(NamedTuple):
    """What the merges make.

    ranks  joined piece -> its order among all joined pieces, 0 first
    cuts   joined piece -> the places where merges join it: bit n is set if a left half has n characters
    """

    ranks: dict[str, int]
    cuts: dict[str, int]


def _join_merges(source: str, merges: Iterable[tuple[str, str]], added: Set[str]) -> _Joined:
    """Join the halves of all merges. The merges of one piece must be adjacent.

    The ranks leave out pieces that match as a whole before any merge: added tokens and runs of white space, whose
    merges stand in any order in the files of Gemma 2 and 3.
    """
    ranks: dict[str, int] = {}
    cuts: dict[str, int] = {}
    last = ""
    for index, (left, right) in enumerate(merges):
        piece = left + right
        known = cuts.get(piece, 0)
        cuts[piece] = known | 1 << len(left)
        if piece == last or piece in added or _is_whitespace_run(piece):
            continue
        if known:
            raise ModelFormatError(
                f"{source}: merge {index} makes {piece!r}, and so does an earlier merge that is not adjacent; "
                "SentencePiece scores cannot express that"
            )
        ranks[piece] = len(ranks)
        last = piece
    return _Joined(ranks, cuts)


def _is_whitespace_run(piece: str) -> bool:
    return piece[:1] in _RUN_CHARS and _WHITESPACE_RUN.fullmatch(piece) is not None


def _piece_types(pieces: list[str], added: Mapping[int, tuple[str, bool]], ranks: Mapping[str, int]) -> list[PieceType]:
    is_byte = [byte_value(piece) is not None for piece in pieces]
    # SentencePiece gives the first ids to reserved pieces, the next to bytes, then to learnt pieces.
    num_reserved = is_byte.index(True) if True in is_byte else 0
    types = []
    for token_id, piece in enumerate(pieces):
        if is_byte[token_id]:
            kind = PieceType.BYTE
        elif token_id in added:
            kind = PieceType.CONTROL if added[token_id][1] else PieceType.USER_DEFINED
        elif token_id < num_reserved or _is_whitespace_run(piece) or _is_unmerged_tag(piece, ranks):
            kind = PieceType.USER_DEFINED
        else:
            kind = PieceType.NORMAL
        types.append(kind)
    return types


def _is_unmerged_tag(piece: str, ranks: Mapping[str, int]) -> bool:
    """Whether a piece looks like a tag and no merge makes it: then it is user-defined and matches as a whole."""
    return piece not in ranks and _BRACKETED.fullmatch(piece) is not None


def _check_merges_complete(source: str, pieces: list[str], types: list[PieceType], cuts: Mapping[str, int]) -> None:
    """SentencePiece joins any two neighbours whose joint text is a piece, so every such pair must be a merge."""
    every = set(pieces)
    for joined in cuts:
        if joined not in every:
            raise ModelFormatError(f"{source}: a merge makes {joined!r}, which is not a piece")
    normal = {piece for piece, kind in zip(pieces, types, strict=True) if kind == PieceType.NORMAL}
    for piece in normal:
        known = cuts.get(piece, 0)
        for cut in range(1, len(piece)):
            # The right half first: it is a piece less often than the left half.
            if not known >> cut & 1 and piece[cut:] in normal and piece[:cut] in normal:
                raise ModelFormatError(
                    f"{source}: no merge of {piece[:cut]!r} and {piece[cut:]!r}, though {piece!r} is a piece; "
                    "SentencePiece scores cannot express that"
                )
