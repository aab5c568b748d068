"""A small vocabulary like Gemma's, and writers for every file format of tokenizers.

The writers follow the descriptions of the formats and share no code with the readers in `intaglio.text`, so a test
that reads what they wrote checks both.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

_CONTROL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<unused0>", "<unused1>")
_TURNS = ("<start_of_turn>", "<end_of_turn>")
_RUNS = (*("\n" * n for n in range(1, 6)), *("\u2581" * n for n in range(2, 6)), "\t\t")
_TAGS = ("<td>", "</td>", "<b>", "</b>")
_CHARS = "\u2581etaoinshrdlucmfwypvbgkjqxzETAOINSHRDLUCMFWYPVBGKJQXZ0123456789.,:;!?'\"()[]{}<>/\\|=+-*_#@$%&~`^é日本"
_FIRST_MERGES = ("us", "er", "user", "mo", "de", "mode", "model")
_CORPUS = """the quick brown fox jumps over the lazy dog while the user asks the model what the weather will be
and the model answers that the rain in the north is over and that there is sun in the south of the country
once upon a time there was a small house in the forest and in the house there lived a family of bears who
wanted to read and to write and to count from one to one hundred before the winter came and covered the land"""


class Pieces(NamedTuple):
    """tokens with a space as ▁, scores (merge order, higher first), types by SentencePiece's numbers."""

    tokens: list[str]
    scores: list[float]
    types: list[int]


def tiny_pieces(vocab_size: int = 512) -> Pieces:
    """A Gemma-like vocabulary of at least 400 tokens, laid out as Gemma's is.

    Control tokens (`<pad> <eos> <bos> <unk>` at 0..3), turn tokens, runs of newlines, spaces and tabs, tags, the 256
    bytes, merged pieces (`user` and `model` among them), single characters; `<unusedN>` for the remaining ids.
    """
    given = [(text, CONTROL) for text in (*_CONTROL, *_TURNS)]
    given += [(text, USER_DEFINED) for text in (*_RUNS, *_TAGS)]
    given += [(f"<0x{value:02X}>", BYTE) for value in range(256)]
    num_merges = vocab_size - len(given) - len(_CHARS)
    if num_merges < len(_FIRST_MERGES):
        raise ValueError(f"a vocabulary of {vocab_size} tokens is too small; 400 will do")
    learnt = [*_learn_merges(num_merges), *_CHARS]
    scores = [0.0] * len(given) + [-float(rank) for rank in range(len(learnt))]
    given += [(text, NORMAL) for text in learnt]
    given += [(f"<unused{n}>", CONTROL) for n in range(2, 2 + vocab_size - len(given))]
    scores += [0.0] * (vocab_size - len(scores))
    types = [UNKNOWN if text == "<unk>" else kind for text, kind in given]
    return Pieces([text for text, _ in given], scores, types)


def _learn_merges(count: int) -> list[str]:
    """Byte pair encoding's training on a few lines: the most frequent neighbours become a piece, again and again."""
    words = [list("\u2581" + word) for word in _CORPUS.split()]
    merged = list(_FIRST_MERGES)
    while len(merged) < count:
        pairs = Counter(pair for word in words for pair in pairwise(word))
        if not pairs:
            break
        (left, right), _ = max(pairs.items(), key=lambda item: (item[1], item[0]))
        words = [_join(word, left, right) for word in words]
        if left + right not in merged:
            merged.append(left + right)
    return merged[:count]


def _join(word: list[str], left: str, right: str) -> list[str]:
    joined: list[str] = []
    for symbol in word:
        if joined and joined[-1] == left and symbol == right:
            joined[-1] += symbol
        else:
            joined.append(symbol)
    return joined


def normal_merges(pieces: Pieces) -> list[tuple[str, str]]:
    """Every way to make a NORMAL piece of two, best score first, then the shorter left half."""
    rank = {
        text: -score
        for text, score, kind in zip(pieces.tokens, pieces.scores, pieces.types, strict=True)
        if kind == NORMAL
    }
    found = [
        (rank[text], cut, text[:cut], text[cut:])
        for text in rank
        for cut in range(1, len(text))
        if text[:cut] in rank and text[cut:] in rank
    ]
    return [(left, right) for _, _, left, right in sorted(found)]


def write_tokenizer_json(
    path: Path, pieces: Pieces, *, added_ids: set[int] | None = None, merges_as_text: bool = False
) -> None:
    """A Hugging Face tokenizer.json. added_ids: which reserved pieces to list as added tokens; None lists all."""
    reserved = [
        i
        for i, kind in enumerate(pieces.types)
        if kind in (UNKNOWN, CONTROL, USER_DEFINED) and (added_ids is None or i in added_ids)
    ]
    merges = normal_merges(pieces)
    document = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": i,
                "content": pieces.tokens[i],
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": pieces.types[i] == USER_DEFINED,
                "special": pieces.types[i] != USER_DEFINED,
            }
            for i in reserved
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {text: i for i, text in enumerate(pieces.tokens)},
            "merges": [f"{left} {right}" if merges_as_text else [left, right] for left, right in merges],
        },
    }
    path.write_text(json.dumps(document), encoding="utf-8")


def write_tokenizer_model(path: Path, pieces: Pieces, *, add_dummy_prefix: bool = False) -> None:
    """A SentencePiece tokenizer.model. As in Google's own file, control tokens other than the first four are
    typed user-defined."""
    out = bytearray()
    for i, (text, score, kind) in enumerate(zip(*pieces, strict=True)):
        written = USER_DEFINED if kind == CONTROL and i > 3 else kind
        body = _protobuf_bytes(1, text.encode()) + b"\x15" + struct.pack("<f", score) + _protobuf_int(3, written)
        out += _protobuf_bytes(1, body)
    ids = b"".join(_protobuf_int(field, token_id) for field, token_id in ((40, 3), (41, 2), (42, 1), (43, 0)))
    out += _protobuf_bytes(2, _protobuf_int(3, 2) + _protobuf_int(35, 1) + ids)
    normalizer = _protobuf_bytes(1, b"identity") + _protobuf_int(3, int(add_dummy_prefix)) + _protobuf_int(4, 0)
    out += _protobuf_bytes(3, normalizer)
    path.write_bytes(bytes(out))


def gguf_tokenizer_metadata(pieces: Pieces) -> dict[str, Any]:
    """The keys that llama.cpp's converter writes: user-defined pieces with real spaces, reserved scores -1000."""
    reserved = (UNKNOWN, CONTROL, USER_DEFINED)
    rows = list(zip(*pieces, strict=True))
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [t.replace("\u2581", " ") if k == USER_DEFINED else t for t, _, k in rows],
        "tokenizer.ggml.scores": [-1000.0 if k in reserved else s for _, s, k in rows],
        "tokenizer.ggml.token_type": [CONTROL if k == UNKNOWN else k for _, _, k in rows],
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
    }


def add_gguf_tokenizer(writer: Any, pieces: Pieces) -> None:
    """Put the tokenizer's keys into a `gguf.GGUFWriter`, through its own methods."""
    metadata = gguf_tokenizer_metadata(pieces)
    writer.add_tokenizer_model(metadata["tokenizer.ggml.model"])
    writer.add_tokenizer_pre(metadata["tokenizer.ggml.pre"])
    writer.add_token_list(metadata["tokenizer.ggml.tokens"])
    writer.add_token_scores(metadata["tokenizer.ggml.scores"])
    writer.add_token_types(metadata["tokenizer.ggml.token_type"])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)


def _protobuf_bytes(field: int, body: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(body)) + body


def _protobuf_int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    head, rest = value & 0x7F, value >> 7
    return bytes([head | 0x80]) + _varint(rest) if rest else bytes([head])
