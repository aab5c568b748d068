"""The ways in which a value can satisfy several parts together: in each, one alternative of every choice is taken, and
only basic keywords are left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from intaglio.errors import GrammarError
from intaglio.json_schema.limits import MAX_ALTERNATIVES
from intaglio.json_schema.parts import TYPES, Choice, Expander, Part, types_of


@dataclass(frozen=True, slots=True)
class Way:
    """Parts of basic keywords that a value satisfies together, and the types that they leave it; at least one."""

    parts: tuple[Part, ...]
    types: frozenset[str]


def ways(parts: Sequence[Part], expander: Expander) -> list[Way]:
    """All ways, without repetitions; none if no value satisfies the parts. Raises GrammarError."""
    found: dict[frozenset[tuple[int, bool]], Way] = {}
    waiting = [(_State({}, {}, {}, TYPES), tuple(parts))]
    while waiting:
        before, added = waiting.pop()
        state = before.with_parts(added, expander)
        if state is None:
            continue
        if not state.choices:
            found.setdefault(frozenset(state.basics), Way(tuple(state.basics.values()), state.types))
        else:
            # The shortest choice first: what it decides may leave nothing of the others.
            shortest = min(state.choices, key=lambda name: len(state.choices[name]))
            left = {name: choice for name, choice in state.choices.items() if name != shortest}
            decided = _State(state.basics, state.seen, left, state.types)
            waiting += [(decided, alternative) for alternative in reversed(state.choices[shortest])]
        if len(found) > MAX_ALTERNATIVES or len(waiting) > 20 * MAX_ALTERNATIVES:
            raise _too_many(parts)
    return list(found.values())


_Key = tuple[int, bool]


@dataclass(frozen=True, slots=True)
class _State:
    """Parts that were expanded, and the choices among what they say that are still open. Never changed."""

    basics: dict[_Key, Part]
    seen: dict[_Key, None]
    choices: dict[int, Choice]
    types: frozenset[str]

    def with_parts(self, parts: Sequence[Part], expander: Expander) -> _State | None:
        """None if the parts contradict each other or what was there."""
        basics, seen, choices, types = dict(self.basics), dict(self.seen), dict(self.choices), self.types
        waiting = list(reversed(parts))
        while waiting:
            part = waiting.pop()
            if part.key in seen:
                continue
            seen[part.key] = None
            expansion = expander.expand(part)
            if expansion.impossible or (part.key[0], not part.negated) in seen:
                return None
            if expansion.basic is not None:
                basics[part.key] = expansion.basic
                types &= types_of(expansion.basic.schema, part.place)
                if not types:
                    return None
            waiting.extend(reversed(expansion.parts))
            choices |= {id(choice): choice for choice in expansion.choices}
        return _State(basics, seen, choices, types)


def _too_many(parts: Sequence[Part]) -> GrammarError:
    place = parts[0].place if parts else "#"
    return GrammarError(
        f"the JSON schema cannot be served: alternatives (anyOf and oneOf) multiply to more than {MAX_ALTERNATIVES} at "
        f"{place[:200]}"
    )
