"""Bounds on what a schema may become, and the errors that name its parts."""

from __future__ import annotations

from intaglio.errors import GrammarError

MAX_DEPTH = 100  # of objects and arrays in a schema; llguidance reads 127
MAX_NODES = 4_000  # sets of subschemas that one value must satisfy together
MAX_ALTERNATIVES = 256  # of one value, after alternatives within alternatives are multiplied out
MAX_STEPS = 60_000  # subschemas that are looked at, with repetitions

_SHOWN = 200  # characters of a pointer or a value in a message


def not_enforced(keyword: str, place: str, reason: str) -> GrammarError:
    """`keyword` is quoted in the message; `place` is the JSON pointer of the subschema that has it."""
    where = place if len(place) <= _SHOWN else f"{place[:_SHOWN]}..."
    return GrammarError(f'"{keyword}" at {where or "#"} of the JSON schema cannot be enforced: {reason}')


def invalid(keyword: str, place: str, reason: str) -> GrammarError:
    where = place if len(place) <= _SHOWN else f"{place[:_SHOWN]}..."
    return GrammarError(f'"{keyword}" at {where or "#"} of the JSON schema {reason}')


def depth_error() -> GrammarError:
    return GrammarError(f"the JSON schema is nested more than {MAX_DEPTH} deep")


class Budget:
    """Counts the subschemas that are looked at."""

    def __init__(self) -> None:
        self._left = MAX_STEPS

    def step(self, place: str) -> None:
        """Raises GrammarError when too many have been looked at."""
        self._left -= 1
        if self._left < 0:
            raise GrammarError(
                f"the JSON schema cannot be served: its alternatives and references multiply to more than {MAX_STEPS} "
                f"subschemas, the last at {place[:_SHOWN] or '#'}"
            )
