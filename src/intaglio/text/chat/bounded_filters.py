"""Filters of jinja2 whose time or memory a template could make grow without bound in one step.

`striptags`, `urlize`, `wordwrap` and `pprint` take the square of the text's length, or more, and no chat template needs
them. `round` raises 10 to its precision, and `sum` adds lists, each to a copy of all before it: they are written anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from jinja2 import Environment, pass_environment
from jinja2.exceptions import SecurityError
from jinja2.filters import do_round, make_attrgetter

LEFT_OUT = frozenset({"pprint", "striptags", "urlize", "wordwrap"})
MAX_PRECISION = 300  # digits; a float has no more


def _round(value: float, precision: int = 0, method: Any = "common") -> float:
    """jinja2's `round` with a bounded precision. Raises SecurityError."""
    if not isinstance(precision, int) or abs(precision) > MAX_PRECISION:
        raise SecurityError(f"it rounds to {precision!r} digits; at most {MAX_PRECISION} are allowed")
    return do_round(value, precision, method)


@pass_environment
def _sum(
    environment: Environment, iterable: Iterable[Any], attribute: str | int | None = None, start: float = 0
) -> float:
    """jinja2's `sum`, of numbers only. Raises SecurityError for others."""
    values: list[float] = [
        start,
        *(iterable if attribute is None else map(make_attrgetter(environment, attribute), iterable)),
    ]
    for value in values:
        if not isinstance(value, int | float):
            raise SecurityError(f"sum adds numbers, not {type(value).__name__}")
    return sum(values)


WRITTEN_ANEW: dict[str, Callable[..., Any]] = {"round": _round, "sum": _sum}
