"""The vocabulary inside a Hugging Face `tokenizer.json`: pieces by id, merges by rank, added tokens.

That file is a translation of Gemma's SentencePiece model, and this module translates it back. A merge list can express
more than scores can, so it is translated only if that is exact: every possible split of a piece must be a merge, and
the merges of one piece must be adjacent. Anything else is refused, and the message names it.

Known files differ in which reserved pieces they list as added tokens; one lists four of them. The others are recognised
by their position in the vocabulary and their text.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import msgspec

from intaglio.errors import ModelFormatError
from intaglio.files.lfs_pointer import LFS_ADVICE, is_lfs_pointer
from intaglio.text.vocabulary import SPACE_SYMBOL, PieceType, Vocabulary, build_vocabulary, byte_value

logger = logging.getLogger(__name__)

_WHITESPACE_RUN = re.compile(rf"\n+|\t+|{SPACE_SYMBOL}{{2,}}")
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
    try:
        document = msgspec.json.decode(content)
    except msgspec.DecodeError as err:
        raise ModelFormatError(f"{source}: not JSON ({err})") from err
    model = document.get("model") if isinstance(document, dict) else None
    if not isinstance(model, dict):
        raise ModelFormatError(f"{source}: no object `model`, so this is not a tokenizer.json")
    _check_settings(source, document, model)
    added = _added_tokens(source, document.get("added_tokens"))
    beyond = beyond_embedding({text: token_id for token_id, (text, _) in added.items()}, num_rows, source)
    added = {token_id: token for token_id, token in added.items() if token_id not in beyond}
    pieces = _pieces_by_id(source, model.get("vocab"), added)
    _restore_tab_byte(pieces)
    ranks = _merge_ranks(source, model.get("merges"), {text for text, _ in added.values()})
    types = _piece_types(pieces, added, ranks)
    _check_merges_complete(source, pieces, types, model["merges"])
    scores = [-float(ranks.get(piece, len(ranks))) for piece in pieces]
    return build_vocabulary(source, pieces, scores, types)


def beyond_embedding(added: Mapping[str, int], num_rows: int | None, source: str) -> set[int]:
    """The ids of added tokens for which the embedding has no row, so that no prompt can contain them."""
    beyond = {text: token_id for text, token_id in added.items() if num_rows is not None and token_id >= num_rows}
    if beyond:
        names = ", ".join(f"{text} ({token_id})" for text, token_id in beyond.items())
        logger.info("%s: left out, since the embedding has %d rows: %s", source, num_rows, names)
    return set(beyond.values())


def _check_settings(source: str, document: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    checks = (
        ("model.type", model.get("type"), ("BPE",)),
        ("model.byte_fallback", model.get("byte_fallback"), (True,)),
        ("model.dropout", model.get("dropout"), (None, 0)),
        ("model.ignore_merges", model.get("ignore_merges"), (None, False)),
        ("model.continuing_subword_prefix", model.get("continuing_subword_prefix"), (None, "")),
        ("model.end_of_word_suffix", model.get("end_of_word_suffix"), (None, "")),
        ("normalizer", document.get("normalizer"), (_SPACE_TO_SYMBOL,)),
        ("pre_tokenizer", document.get("pre_tokenizer"), (None, _SPLIT_WITHOUT_EFFECT)),
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


def _merge_ranks(source: str, merges: object, added: Set[str]) -> dict[str, int]:
    """Joined piece -> its order among all joined pieces, 0 first. Merges of one piece must be adjacent.

    Left out are pieces that match as a whole before any merge: added tokens and runs of white space, whose merges stand
    in any order in the files of Gemma 2 and 3.
    """
    if not isinstance(merges, list):
        raise ModelFormatError(f"{source}: model.merges is not a list")
    ranks: dict[str, int] = {}
    last = ""
    for index, merge in enumerate(merges):
        halves = _split_merge(merge)
        if len(halves) != 2:
            raise ModelFormatError(f"{source}: merge {index} is {merge!r}, not a pair of pieces")
        piece = halves[0] + halves[1]
        if piece in added or _WHITESPACE_RUN.fullmatch(piece):
            continue
        if piece != last and piece in ranks:
            raise ModelFormatError(
                f"{source}: merge {index} makes {piece!r}, and so does an earlier merge that is not adjacent; "
                "SentencePiece scores cannot express that"
            )
        ranks.setdefault(piece, len(ranks))
        last = piece
    return ranks


def _split_merge(merge: object) -> list[str]:
    """Older files write a merge as "left right", newer ones as ["left", "right"]. Empty if it is neither."""
    if isinstance(merge, str):
        return merge.split(" ")
    if isinstance(merge, list) and all(isinstance(half, str) for half in merge):
        return merge
    return []


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
        elif token_id < num_reserved or _WHITESPACE_RUN.fullmatch(piece) or _is_unmerged_tag(piece, ranks):
            kind = PieceType.USER_DEFINED
        else:
            kind = PieceType.NORMAL
        types.append(kind)
    return types


def _is_unmerged_tag(piece: str, ranks: Mapping[str, int]) -> bool:
    """Whether a piece looks like a tag and no merge makes it: then it is user-defined and matches as a whole."""
    return piece not in ranks and _BRACKETED.fullmatch(piece) is not None


def _check_merges_complete(source: str, pieces: list[str], types: list[PieceType], merges: list[Any]) -> None:
    """SentencePiece joins any two neighbours whose joint text is a piece, so every such pair must be a merge."""
    normal = {piece for piece, kind in zip(pieces, types, strict=True) if kind == PieceType.NORMAL}
    known = {tuple(_split_merge(merge)) for merge in merges}
    every = set(pieces)
    for left, right in known:
        if left + right not in every:
            raise ModelFormatError(f"{source}: a merge makes {left + right!r}, which is not a piece")
    for piece in normal:
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in normal and right in normal and (left, right) not in known:
                raise ModelFormatError(
                    f"{source}: no merge of {left!r} and {right!r}, though {piece!r} is a piece; "
                    "SentencePiece scores cannot express that"
                )
