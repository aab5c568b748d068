"""Answers to a schema, made by walking at random over the bytes that its grammar allows."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema_rs
import llguidance

from intaglio.grammar import json_schema_grammar, new_matcher
from intaglio.json_schema.pieces import ENFORCED_FORMATS

_VOCABULARY = llguidance.LLTokenizer("byte", slices=[])
_MAX_BYTES = 4_000
_CLOSING = b'"}]'
_BITS = [[[8 * index + bit for bit in range(8) if part >> bit & 1] for part in range(256)] for index in range(32)]


def answers(grammar: str, count: int, seed: int) -> Iterator[str]:
    """Up to `count` texts that the grammar allows, each ended; those that grow too long are left out."""
    matcher = new_matcher(_VOCABULARY, grammar)
    assert not matcher.is_error(), matcher.get_error()
    for number in range(count):
        found = _walk(matcher.deep_copy(), random.Random(f"{seed} {number}"))
        if found is not None:
            yield found


def _walk(matcher: llguidance.LLMatcher, chance: random.Random) -> str | None:
    written = bytearray()
    eagerness = chance.choice((0.1, 0.3, 0.6))  # to end what is open
    while len(written) < _MAX_BYTES:
        mask = matcher.compute_bitmask()
        if matcher.is_error():
            return None  # a limit of the parser: the request ends with an error
        if matcher.is_stopped():
            return written.decode()
        allowed = [byte for index in range(32) if mask[index] for byte in _BITS[index][mask[index]]]
        if matcher.is_accepting() and (not allowed or chance.random() < 0.5):
            return written.decode()
        ends = [byte for byte in allowed if byte in _CLOSING]
        if ends and chance.random() < max(eagerness, len(written) / _MAX_BYTES):
            byte = chance.choice(ends)
        else:
            plain = [byte for byte in allowed if byte < 128]
            byte = chance.choice(plain if plain and chance.random() < 0.9 else allowed)
        assert matcher.consume_token(byte)
        written.append(byte)
    return None


def violations(schema: Mapping[str, Any] | bool, count: int = 8, seed: int = 1) -> tuple[int, list[tuple[str, str]]]:
    """How many answers were made, and those that break the schema, with the reason.

    Formats that are enforced are checked too; the others are taken out of the schema, as annotations. Raises
    GrammarError for a schema that is refused.
    """
    checker = jsonschema_rs.validator_for(without_annotations(schema), validate_formats=True)
    made, bad = 0, []
    for text in answers(json_schema_grammar(schema), count, seed):
        made += 1
        value = json.loads(text)
        error = next(checker.iter_errors(value), None)
        if error is not None:
            bad.append((text, str(error)[:200]))
    return made, bad


def without_annotations(schema: Any) -> Any:
    """The schema without formats that say nothing here."""
    if isinstance(schema, Mapping):
        return {
            name: without_annotations(child)
            for name, child in schema.items()
            if not (name == "format" and isinstance(child, str) and child not in ENFORCED_FORMATS)
        }
    return [without_annotations(child) for child in schema] if isinstance(schema, list) else schema


def allows(grammar: str, text: str) -> bool:
    """Whether the grammar allows exactly this text."""
    matcher = new_matcher(_VOCABULARY, grammar)
    content = list(text.encode())
    return bool(matcher.try_consume_tokens(content) == len(content) and matcher.is_accepting())
