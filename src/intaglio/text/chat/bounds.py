"""Bounds of what a chat template makes, and the checks of values against them. Each raises jinja2's SecurityError."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sized
from typing import Any

from jinja2.exceptions import SecurityError

MAX_LENGTH = 1 << 24  # characters of a text, or sixteen times the items of a list
MAX_NUMBER_BITS = 4096
MAX_MADE = 1 << 28  # characters and items that all calls and filters of one rendering make together
ITEM = 16  # characters that an item of a list counts as: it takes more memory and time than a character
MAX_FORMAT = 20_000  # characters of a format, each of which may stand for a thousand

_LONG_WIDTH = re.compile(r"\d{5}")  # in a format such as "%99999d"


def check_arguments(formats: Iterable[str], args: Iterable[Any], kwargs: dict[str, Any]) -> None:
    """Refuse numbers, as arguments or in formats, that could ask for a text of that length."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, int) and abs(value) > MAX_LENGTH:
            raise SecurityError(f"it passes {value:.3g} as an argument; at most {MAX_LENGTH} is allowed")
    for text in formats:
        if _LONG_WIDTH.search(text) or len(text) > MAX_FORMAT:
            raise SecurityError(f"its format {text[:40]!r} is too long or has a width of more than four digits")


def check_product(operator: str, left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
        if bits > MAX_NUMBER_BITS:
            raise SecurityError(f"it computes a number of more than {MAX_NUMBER_BITS} bits")
        return
    for one, other in ((left, right), (right, left)):
        if isinstance(one, int) and isinstance(other, Sized) and one * len(other) > MAX_LENGTH:
            raise SecurityError(f"it repeats a text or list to more than {MAX_LENGTH} characters or items")


def check_numbers(*values: Any) -> None:
    for value in values:
        if isinstance(value, int) and value.bit_length() > MAX_NUMBER_BITS:
            raise SecurityError(f"it computes with a number of more than {MAX_NUMBER_BITS} bits")


def check_sizes(values: Iterable[Any]) -> None:
    """Refuse a call that could make the product of its two largest values: `replace`, `join` and the like."""
    sizes = sorted((size_of(value) for value in values), reverse=True)[:2]
    if len(sizes) == 2 and sizes[0] * sizes[1] > MAX_MADE:
        raise SecurityError(f"it passes texts of {sizes[0]} and {sizes[1]} characters to one call")


def size_of(value: Any) -> int:
    """Characters and items, of what is inside too; a number counts as itself. Stops where there are too many."""
    if isinstance(value, int):
        return abs(value)
    total, waiting = 0, [value]
    while waiting and total <= MAX_LENGTH:
        one = waiting.pop()
        if isinstance(one, str | bytes):
            total += len(one)
        elif isinstance(one, dict):
            total += ITEM * len(one)
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple):
            total += ITEM * len(one)
            waiting += one
    return total
