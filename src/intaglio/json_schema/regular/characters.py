"""Sets of characters, as sorted tuples of code point ranges (first, last)."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

Characters = tuple[tuple[int, int], ...]

LAST = sys.maxunicode
ALL: Characters = ((0, LAST),)
DIGITS: Characters = ((0x30, 0x39),)
WORD: Characters = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
# ECMA-262: WhiteSpace and LineTerminator.
SPACE: Characters = (
    (0x09, 0x0D), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029), (0x202F, 0x202F),
    (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF),
)  # fmt: skip
LINE_ENDS: Characters = ((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029))


def union(*sets: Iterable[tuple[int, int]]) -> Characters:
    """The characters that are in any of the sets."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(pair for characters in sets for pair in characters):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def complement(characters: Characters) -> Characters:
    """The characters that are not in the set."""
    gaps, begin = [], 0
    for first, last in characters:
        if begin < first:
            gaps.append((begin, first - 1))
        begin = last + 1
    if begin <= LAST:
        gaps.append((begin, LAST))
    return tuple(gaps)


# What a JSON text can have here: control characters need an escape by number, and those are not used. See `grammar.py`.
WRITABLE: Characters = complement(((0, 7), (11, 11), (14, 31), (127, 127)))


def intersection(left: Characters, right: Characters) -> Characters:
    """The characters that are in both sets."""
    return complement(union(complement(left), complement(right)))


def contains(characters: Characters, code: int) -> bool:
    return any(first <= code <= last for first, last in characters)


def ignoring_case(characters: Characters) -> Characters:
    """With the other case of each ASCII letter; of other letters only where the set is small."""
    folded: list[tuple[int, int]] = list(characters)
    for first, last in characters:
        codes = range(first, last + 1) if last - first < 256 else [*range(0x41, 0x5B), *range(0x61, 0x7B)]
        for code in codes:
            if first <= code <= last:
                cases = {chr(code).lower(), chr(code).upper()}
                folded += [(ord(case), ord(case)) for case in cases if len(case) == 1]
    return union(folded)


_LONG_NAMES = {
    "Letter": "L", "Uppercase_Letter": "Lu", "Lowercase_Letter": "Ll", "Number": "N", "Decimal_Number": "Nd",
    "Punctuation": "P", "Symbol": "S", "Separator": "Z", "Space_Separator": "Zs", "Mark": "M", "Control": "Cc",
    "Alphabetic": "L", "digit": "Nd", "punct": "P",
}  # fmt: skip


@lru_cache(maxsize=16)
def general_category(name: str) -> Characters | None:
    """The characters of a Unicode general category (`L`, `Lu`, `Letter`, `gc=L`); None if it is not one."""
    short = name.rpartition("=")[2]
    short = _LONG_NAMES.get(short, short)
    if not (1 <= len(short) <= 2):
        return None
    found: list[tuple[int, int]] = []
    for code in range(LAST + 1):
        if unicodedata.category(chr(code)).startswith(short):
            if found and found[-1][1] == code - 1:
                found[-1] = (found[-1][0], code)
            else:
                found.append((code, code))
    return tuple(found) or None


def written(characters: Characters) -> str:
    """The set as a class of a regular expression, without surrogates, which no text has."""
    if characters == WRITABLE:
        return "(?s:.)"  # the grammar library leaves the others out itself
    parts = []
    for first, last in intersection(characters, complement(((0xD800, 0xDFFF),))):
        if first <= last:
            parts.append(_one(first) if first == last else f"{_one(first)}-{_one(last)}")
    if len(parts) == 1 and "-" not in parts[0].replace("\\-", ""):
        return parts[0]
    return f"[{''.join(parts)}]"


def _one(code: int) -> str:
    character = chr(code)
    if character.isascii() and character.isalnum():
        return character
    if code in (0x20, 0x21, 0x22, 0x23, 0x25, 0x26, 0x27, 0x2C, 0x3A, 0x3B, 0x3C, 0x3D, 0x3E, 0x40, 0x5F, 0x60, 0x7E):
        return character if code not in (0x26, 0x7E, 0x23, 0x20) else f"\\x{{{code:x}}}"
    return f"\\x{{{code:x}}}"
