"""Texts for a tiny model's 256 token ids, for tests of grammars: ASCII characters and pieces of JSON."""

from __future__ import annotations

from pathlib import Path

import msgspec

from intaglio.engine.grammar import GrammarCompiler
from intaglio.request import TokenTable

CONTROLS = (0, 1, 2, 3, 4)  # <pad> <eos> <bos> <unk> <mask>
_LONGER = ('{"', '":', '": ', '", "', '"}', "true", "false", "null", "name", "age", "[]", "{}", ", ", "},", "]}", "12")


def tiny_table(vocab_size: int = 256) -> TokenTable:
    singles = ["\n", *map(chr, range(32, 127))]
    pairs = [first + second for first in "abcdefghij" for second in "aeiou0123"]
    pieces = [b""] * len(CONTROLS) + [text.encode() for text in (*singles, *_LONGER, *pairs)]
    pieces += [f"t{token_id}".encode() for token_id in range(len(pieces), vocab_size)]
    return TokenTable(pieces[:vocab_size], list(CONTROLS))


def write_tiny_table(path: Path, vocab_size: int = 256) -> Path:
    path.write_bytes(msgspec.msgpack.encode(tiny_table(vocab_size)))
    return path


def tiny_grammar_compiler(path: Path, end_ids: tuple[int, ...] = (1,), vocab_size: int = 256) -> GrammarCompiler:
    return GrammarCompiler(write_tiny_table(path, vocab_size), end_ids)


def text_of(tokens: list[int]) -> str:
    """The text of the tokens."""
    pieces = tiny_table().pieces
    return b"".join(pieces[token] for token in tokens).decode()
