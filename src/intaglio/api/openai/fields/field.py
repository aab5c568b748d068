"""One row of the table of fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from intaglio.wording import shown

_ASKS_FOR_NOTHING: tuple[object, ...] = ("", [])


class Route(StrEnum):
    CHAT = "chat"
    COMPLETIONS = "completions"


class Treatment(StrEnum):
    """What happens to a field: it does what it says, it is accepted and changes no answer, or it is refused."""

    HONOURED = "honoured"
    HARMLESS = "harmless"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a request's body.

    note    honoured: what it does; harmless: why it changes nothing; refused: what to send instead, or why not
    schema  of its value; None for a refused one
    passes  values of a refused field that ask for nothing but what happens anyway, besides null and the empty ones
    """

    name: str
    routes: frozenset[Route]
    treatment: Treatment
    note: str
    schema: Mapping[str, Any] | None = None
    passes: tuple[object, ...] = ()

    def declared(self) -> dict[str, Any]:
        """The schema that describes it to callers: of a refused field the values that pass."""
        if self.schema is None:
            return {"enum": [*_ASKS_FOR_NOTHING, *self.passes], "description": f"refused: {self.note}"}
        return {**self.schema, "description": self.note}

    def refusal(self, value: object) -> str | None:
        """The sentence that refuses this value; None if it passes."""
        if self.treatment is not Treatment.REFUSED or _is_among(value, (*_ASKS_FOR_NOTHING, *self.passes)):
            return None
        return f"{self.name} is not supported: {self.note}. It is {shown(value)}"


def _is_among(value: object, values: tuple[object, ...]) -> bool:
    """By value, but true is not 1."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in values)
