"""Finite automata of languages: whether a language is empty, and writing it as a regular expression without
intersection and complement. Everything has a bound, because patterns are hostile input."""

from __future__ import annotations

from dataclasses import dataclass

from intaglio.json_schema.regular import characters, languages
from intaglio.json_schema.regular.languages import EMPTY, NONE, Language

MAX_STATES = 400
MAX_WRITTEN = 12_000  # characters of a regular expression
_MAX_RANGES = 20_000  # character ranges that are looked at for one automaton
_MAX_DEPTH = 300  # of a term
_MAX_PARTS = 4_000  # of the terms of all states: what finding the next states costs


class TooLargeError(Exception):
    """An automaton, or what is written for it, exceeds its bound."""


@dataclass(frozen=True, slots=True)
class Automaton:
    """State 0 is the start. `moves[state]` are (characters, next state); states that lead nowhere have none."""

    moves: tuple[tuple[tuple[characters.Characters, int], ...], ...]
    accepting: frozenset[int]


def automaton_of(language: Language) -> Automaton:
    """The minimal automaton. Raises TooLargeError."""
    try:
        return _minimal(*_explored(language))
    except RecursionError:
        raise TooLargeError from None


def is_empty(language: Language) -> bool:
    """Whether no text belongs to the language. Raises TooLargeError."""
    if language.nullable or language.kind in ("set", "repeat") or (language != NONE and is_plain(language)):
        return False  # plain terms are made without empty ones
    return not automaton_of(language).accepting


def written(language: Language) -> str:
    """A regular expression of exactly this language, for a search: it has its anchors. Raises TooLargeError."""
    try:
        plain = language if is_plain(language) else _eliminated(automaton_of(language))
        text = _text_of(languages.restricted(plain, characters.WRITABLE), _Budget())
    except RecursionError:
        raise TooLargeError from None
    return f"^(?:{text})$"


def conjuncts(language: Language) -> tuple[Language, ...]:
    """Languages whose intersection it is."""
    return language.parts if language.kind == "both" else (language,)


def _explored(language: Language) -> tuple[list[list[tuple[characters.Characters, int]]], set[int]]:
    numbers = {language: 0}
    waiting, looked, parts = [language], 0, 0
    moves: list[list[tuple[characters.Characters, int]]] = []
    while len(moves) < len(waiting):
        state = waiting[len(moves)]
        points = sorted({0, *languages.boundaries(state)} - {characters.LAST + 1})
        looked += len(points)
        parts += _weight(state)
        targets: dict[int, list[tuple[int, int]]] = {}
        for first, after in zip(points, [*points[1:], characters.LAST + 1], strict=True):
            target = languages.derivative(state, first)
            if target == NONE:
                continue
            if target not in numbers:
                numbers[target] = len(waiting)
                waiting.append(target)
            targets.setdefault(numbers[target], []).append((first, after - 1))
        if len(waiting) > MAX_STATES or looked > _MAX_RANGES or parts > _MAX_PARTS:
            raise TooLargeError
        moves.append([(characters.union(ranges), number) for number, ranges in targets.items()])
    return moves, {numbers[state] for state in waiting if state.nullable}


def _weight(language: Language) -> int:
    """How many terms are derived for the next states."""
    if language.kind in ("union", "both", "not"):
        return sum(_weight(part) for part in language.parts)
    return 1


def _minimal(moves: list[list[tuple[characters.Characters, int]]], accepting: set[int]) -> Automaton:
    """Drop the states from which no end is reached, and merge those that accept the same texts."""
    live = set(accepting)
    while added := {s for s, out in enumerate(moves) if s not in live and any(to in live for _, to in out)}:
        live |= added
    if 0 not in live:
        return Automaton(((),), frozenset())
    block = {state: int(state in accepting) for state in live}
    while True:
        signatures: dict[object, int] = {}
        refined = {}
        for state in sorted(live):
            out = _merged((symbols, block[to]) for symbols, to in moves[state] if to in live)
            refined[state] = signatures.setdefault((block[state], out), len(signatures))
        if len(signatures) == len(set(block.values())):
            break
        block = refined
    states: dict[int, int] = {}
    for state in sorted(live):
        states.setdefault(refined[state], state)
    order = {number: index for index, number in enumerate(states)}
    return Automaton(
        tuple(
            tuple(_merged((symbols, order[refined[to]]) for symbols, to in moves[state] if to in live))
            for state in states.values()
        ),
        frozenset(order[refined[state]] for state in live if state in accepting),
    )


def _merged(out: object) -> tuple[tuple[characters.Characters, int], ...]:
    joined: dict[int, characters.Characters] = {}
    for symbols, to in out:  # type: ignore[attr-defined]
        joined[to] = characters.union(joined.get(to, ()), symbols)
    return tuple((symbols, to) for to, symbols in sorted(joined.items()))


def _eliminated(automaton: Automaton) -> Language:
    """The language as a plain term: states are removed one by one, those with the fewest ways first."""
    if not automaton.accepting:
        return NONE
    begin, end = -1, -2
    edges: dict[tuple[int, int], Language] = {(begin, 0): EMPTY}
    for state, out in enumerate(automaton.moves):
        for symbols, to in out:
            edges[state, to] = languages.one_of(symbols)
    edges |= {(state, end): EMPTY for state in automaton.accepting}
    budget = 200_000
    left = set(range(len(automaton.moves)))
    while left:
        ways = {s: [0, 0] for s in left}
        for source, target in edges:
            if source != target:
                for state, side in ((source, 1), (target, 0)):
                    if state in ways:
                        ways[state][side] += 1
        state = min(left, key=lambda s: (ways[s][0] * ways[s][1], s))
        left.remove(state)
        loop = languages.repeat(edges.pop((state, state), NONE), 0, None)
        incoming = [(source, edges.pop((source, to))) for source, to in list(edges) if to == state]
        outgoing = [(to, edges.pop((source, to))) for source, to in list(edges) if source == state]
        for source, before in incoming:
            for to, after in outgoing:
                way = languages.concat(before, loop, after)
                edges[source, to] = languages.union((edges.get((source, to), NONE), way))
                budget -= 1
                if budget < 0:
                    raise TooLargeError
    return edges.get((begin, end), NONE)


def is_plain(language: Language, depth: int = 0) -> bool:
    if depth > _MAX_DEPTH:
        raise TooLargeError
    return language.kind not in ("both", "not") and all(
        is_plain(part, depth + (language.kind != "concat")) for part in language.parts
    )


class _Budget:
    """Counts the characters that are written."""

    def __init__(self) -> None:
        self.left = MAX_WRITTEN

    def spent(self, text: str) -> str:
        self.left -= len(text)
        if self.left < 0:
            raise TooLargeError
        return text


def _text_of(language: Language, budget: _Budget) -> str:
    if language == NONE:
        return "[^\\x{0}-\\x{10ffff}]"
    if language == EMPTY:
        return "(?:)"
    if language.kind == "set":
        return budget.spent(characters.written(language.symbols))
    if language.kind == "concat":
        parts = []
        while language.kind == "concat":
            parts.append(language.parts[0])
            language = language.parts[1]
        return "".join(_grouped(part, budget) for part in [*parts, language])
    if language.kind == "union":
        return budget.spent("|".join(_text_of(part, budget) for part in language.parts))
    low, high = language.bounds
    inner = _text_of(language.parts[0], budget)
    if language.parts[0].kind != "set":
        inner = f"(?:{inner})"
    return budget.spent(inner + _bounds_text(low, high))


def _grouped(part: Language, budget: _Budget) -> str:
    inner = _text_of(part, budget)
    return f"(?:{inner})" if part.kind == "union" else inner


def _bounds_text(low: int, high: int | None) -> str:
    return {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((low, high)) or (
        f"{{{low}}}" if low == high else f"{{{low},{'' if high is None else high}}}"
    )
