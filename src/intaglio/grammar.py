"""Grammars that are enforced on completions: made from JSON schemas, and checked before anything runs.

A grammar is Lark text for llguidance, with JSON schemas in it as `%json {...}`. Grammars are hostile input, so
everything that can make one costly has a bound: bytes, nesting, alternatives, divisors of numbers, and llguidance's own
limits. The engine compiles with the same limits (`engine/grammar.py`) for the model's vocabulary; the check here uses a
vocabulary of the 256 bytes, which is cheap.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import llguidance
from llguidance.gbnf_to_lark import any_to_lark

from intaglio.errors import GrammarError
from intaglio.json_schema import enforceable_schema
from intaglio.json_schema.limits import MAX_DEPTH, depth_error

MAX_SCHEMA_BYTES = 1 << 16
MAX_GRAMMAR_BYTES = 1 << 18  # what a schema becomes may be longer than it
_MAX_DIVISOR = 10_000  # a number divisible by n takes an automaton of n states
# Alternatives that begin alike are parsed in parallel, and each is compared with the others at every token: without a
# bound, 2000 of them in 64 kB delayed a step by two seconds.
_MAX_PAIRS = 20_000  # one list of 141
_MAX_REASON = 300  # characters of llguidance's message
# Without it llguidance chooses the tokens of fixed text itself, instead of the model.
_OPTIONS = '%llguidance {"no_forcing": true}\n'
_CONVERTED = "%llguidance {}"  # how the converter from GBNF begins; `new_matcher` begins with the options
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_DIRECTIVE = re.compile(r"%(json|llguidance|lark|regex)\b")
_EMBEDDED = re.compile(r"%json\s*")
_MESSAGE_DETAILS = re.compile(r"\n +1 \||<state>|<non-verbose/>|\. Enable 'coerce_one_of'")

# One space, or a line break and its indentation: enough for usual layouts, and no model can repeat spaces without end.
_LAYOUT = {"whitespace_pattern": r" |\n {0,8}"}
# Without \u: with it llguidance would take "\u0061" for another property than "a". Texts have the characters instead.
_ESCAPES = {"json_allowed_escapes": 'nrbtf\\"'}


def json_schema_grammar(schema: Mapping[str, Any] | bool) -> str:
    """The grammar of the JSON texts that a schema allows, properties in the schema's order.

    Raises GrammarError for a schema that cannot be enforced, naming the part; no part is ignored. Takes a
    few milliseconds, for a hostile schema up to about a second: call it in a thread.
    """
    if not isinstance(schema, Mapping) and schema is not True:
        raise GrammarError(f"the JSON schema is {schema!r}; an object is needed")
    grammar = f"start: {schema_rule(schema, _LAYOUT)}"
    check_grammar(grammar)
    return grammar


def schema_rule(schema: Mapping[str, Any] | bool, layout: Mapping[str, Any]) -> str:
    """The texts that a schema allows as a rule of a grammar; `layout` are llguidance's options for spaces.

    Raises GrammarError for a schema that cannot be enforced, naming the keyword and its place.
    """
    try:
        given = json.dumps(schema)
    except RecursionError:
        raise depth_error() from None
    except ValueError as error:  # an integer of more digits than Python writes
        raise GrammarError(f"the JSON schema cannot be written as JSON: {error}") from None
    if len(given) > MAX_SCHEMA_BYTES:
        raise GrammarError(f"the grammar or JSON schema has {len(given)} bytes, more than {MAX_SCHEMA_BYTES}")
    return "%json " + json.dumps({**enforceable_schema(json.loads(given)), "x-guidance": {**layout, **_ESCAPES}})


def json_object_grammar() -> str:
    """The grammar of all JSON objects."""
    return json_schema_grammar({"type": "object"})


def as_lark(grammar: str) -> str:
    """A grammar of a caller, in Lark or in GBNF (llama.cpp's), as Lark. Raises GrammarError.

    llguidance's own directives are refused: a schema in a grammar would not be checked as other schemas are.
    """
    size = len(grammar.encode("utf-8", "surrogatepass"))
    if size > MAX_SCHEMA_BYTES:
        raise GrammarError(f"the grammar has {size} bytes, more than {MAX_SCHEMA_BYTES}")
    found = _DIRECTIVE.search(_STRING.sub('""', grammar))
    if found is not None:
        raise GrammarError(f"the grammar has {found[0]}, which is not read here; a JSON schema has a field of its own")
    try:
        lark: str = any_to_lark(grammar)
    except Exception as error:  # the converter raises nothing more special for a rule that is missing or there twice
        raise GrammarError(f"the grammar is neither Lark nor GBNF: {str(error)[:_MAX_REASON]}") from error
    return lark.replace(_CONVERTED, "", 1)


def check_grammar(grammar: str) -> None:
    """Raise GrammarError unless the grammar can be compiled within the limits and allows some text.

    As costly as `json_schema_grammar`, which calls it.
    """
    size = len(grammar.encode("utf-8", "surrogatepass"))
    if size > MAX_GRAMMAR_BYTES:
        raise GrammarError(f"the grammar or JSON schema has {size} bytes, more than {MAX_GRAMMAR_BYTES}")
    for schema in _embedded_schemas(grammar):
        _check_schema(schema)
    matcher = new_matcher(llguidance.LLTokenizer("byte", slices=[]), grammar)
    if matcher.is_error():
        raise GrammarError(f"the grammar or JSON schema cannot be served: {_short_reason(matcher.get_error())}")
    matcher.compute_bitmask()
    if matcher.is_error():
        reason = _short_reason(matcher.get_error())
        raise GrammarError(f"the grammar or JSON schema allows no text: {reason}")


def new_matcher(vocabulary: llguidance.LLTokenizer, grammar: str) -> llguidance.LLMatcher:
    """Compile a grammar for a vocabulary. `is_error` of the matcher says whether that failed."""
    limits = llguidance.LLParserLimits(
        max_items_in_row=4_000,  # about 900 optional properties of one object
        initial_lexer_fuel=500_000,
        step_lexer_fuel=100_000,
        step_max_items=50_000,
        max_lexer_states=20_000,  # of up to 2 kB each
        max_grammar_size=100_000,
        verbose_errors=False,
    )
    return llguidance.LLMatcher(vocabulary, _OPTIONS + grammar, log_level=0, limits=limits)


def _embedded_schemas(grammar: str) -> Iterator[object]:
    decoder = json.JSONDecoder()
    for found in _EMBEDDED.finditer(grammar):
        try:
            yield decoder.raw_decode(grammar, found.end())[0]
        except ValueError:
            continue  # not JSON: llguidance reports it, or it is inside a string
        except RecursionError:
            raise depth_error() from None


def _check_schema(schema: object) -> None:
    """Check the bounds that llguidance does not have."""
    divisors: list[Decimal] = []
    pairs = 0
    for depth, node in _walk_values(schema):
        if depth > MAX_DEPTH:
            raise depth_error()
        if not isinstance(node, dict):
            continue
        pairs += sum(len(listed) ** 2 for name in ("anyOf", "oneOf") if isinstance(listed := node.get(name), list))
        divisor = node.get("multipleOf")
        if isinstance(divisor, int | float) and 0 < divisor < math.inf:
            exact = Decimal(str(divisor)).normalize()
            # One over a power of ten only limits the decimals.
            if exact.as_tuple().digits != (1,) or exact > 1:
                divisors.append(exact)
    if pairs > _MAX_PAIRS:
        raise GrammarError(
            f"the JSON schema has too many alternatives in anyOf and oneOf: their squares add up to {pairs}, more than "
            f"{_MAX_PAIRS}"
        )
    if divisors:
        _check_divisors(divisors)


def _check_divisors(divisors: list[Decimal]) -> None:
    """Bound the least common multiple of the divisors in units of the finest: the largest automaton has that size."""
    finest = min(int(divisor.as_tuple().exponent) for divisor in divisors)
    multiple = 1
    for divisor in divisors:
        scaled = divisor.scaleb(-finest)
        multiple = math.lcm(multiple, int(scaled)) if scaled <= _MAX_DIVISOR else _MAX_DIVISOR + 1
        if multiple > _MAX_DIVISOR:
            raise GrammarError(
                f"multipleOf of the JSON schema ({', '.join(map(str, divisors[:8]))}): their least common multiple is "
                f"more than {_MAX_DIVISOR}"
            )


def _walk_values(schema: object) -> Iterator[tuple[int, object]]:
    """(depth, value) of every value in the schema. Not recursive, because the depth is not bounded yet."""
    waiting: list[tuple[int, object]] = [(1, schema)]
    while waiting:
        depth, node = waiting.pop()
        yield depth, node
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ()
        waiting.extend((depth + 1, child) for child in children if isinstance(child, dict | list | tuple))


def _short_reason(error: str) -> str:
    """llguidance's message without the state of its parser and the lines of the grammar."""
    text = _MESSAGE_DETAILS.split(error, maxsplit=1)[0]
    _, _, after = text.partition("failed to compile JSON schema: ")
    return " ".join((after or text).split())[:_MAX_REASON]
