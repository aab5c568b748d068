"""What is wrong with a text that is not JSON, or is JSON that two readers may take for different things.

The parser's own messages name no line and differ between its versions, so the sentences are made here.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from intaglio.wording import shown

_BYTE = re.compile(r" \(byte (\d+)\)$")
_SHOWN_DIGITS = 20
_SHOWN_BYTES = 40
_WORD = re.compile(r"-?\w+")
_NOT_JSON = ("NaN", "Infinity", "-Infinity", "None", "True", "False", "undefined", "nan", "inf", "Inf")
_ADVICE = {"object keys must be strings": "a key needs double quotes", "trailing characters": "text after the end"}


class _RepeatedKeyError(Exception):
    """Two members of one object have the same key."""


def repeated_key(body: bytes | str) -> str | None:
    """The first key that one object of valid JSON has twice; parsers differ in which of the two values they take."""
    try:
        json.loads(body, object_pairs_hook=_check_pairs, parse_int=str)
    except _RepeatedKeyError as error:
        return str(error)
    return None


def json_fault(body: bytes | str, error: Exception) -> str:
    """The second half of a sentence about a text that msgspec refuses with that error: what, and where."""
    data = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as fault:
        return f"is not UTF-8: byte {fault.start} is 0x{data[fault.start]:02x}"
    number = _number_out_of_range(data) if isinstance(error, msgspec.ValidationError) else None
    if number is not None:
        return f"has the number {number}, which is out of range"
    found = _BYTE.search(str(error))
    if found is None:
        return f"is not JSON: {_without_position(data)}"
    start = int(found[1])
    return f"is not JSON: {_described(data, start, str(error)[: found.start()])} at {_line_and_column(data, start)}"


def _check_pairs(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) == len(pairs):
        return
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise _RepeatedKeyError(key)
        seen.add(key)


def _described(data: bytes, start: int, reason: str) -> str:
    reason = reason.removeprefix("JSON is malformed: ")
    if data.startswith(b"\xef\xbb\xbf"):
        return "a byte order mark"
    word = _word_at(data, start)
    if word in _NOT_JSON:
        return f"{word}, which is not a JSON value,"
    if reason != "invalid character":
        return _ADVICE.get(reason, reason)
    character = data[start : start + 4].decode("utf-8", "ignore")[:1]
    if character and character < " ":
        return "a control character, which a string has as an escape such as \\n,"
    return f"unexpected {shown(word or character)}"


def _word_at(data: bytes, start: int) -> str:
    """The letters and digits around that byte, with a minus before them; "" if there are none."""
    begin = min(start, len(data))
    if begin == len(data):  # the parser reads `tru}` to its end
        begin = len(data.rstrip(b" \t\r\n}],"))
    while begin > 0 and data[begin - 1 : begin].isalnum():
        begin -= 1
    if begin > 0 and data[begin - 1 : begin] == b"-":
        begin -= 1
    found = _WORD.match(data[begin : begin + _SHOWN_BYTES].decode("utf-8", "ignore"))
    return found[0] if found else ""


def _without_position(data: bytes) -> str:
    """For the parser's errors that name no byte: a text that ends too early, or half of a surrogate pair."""
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return f"it ends too early, at {_line_and_column(data, len(data))}"
    return "a string has half of a surrogate pair, such as \\ud800 alone"


def _number_out_of_range(data: bytes) -> str | None:
    """The first number that no double holds, or whose digits are too many for an integer."""
    found: list[str] = []

    def read(text: str) -> None:
        if len(text) > 300 and not found:  # of doubles the largest has 309 digits
            found.append(text)

    def read_real(text: str) -> None:
        if not found and float(text) in (float("inf"), float("-inf")):
            found.append(text)

    try:
        json.loads(data, parse_int=read, parse_float=read_real)
    except (ValueError, RecursionError):
        return None
    if not found:
        return None
    return found[0] if len(found[0]) <= _SHOWN_DIGITS else f"{found[0][:_SHOWN_DIGITS]}... ({len(found[0])} digits)"


def _line_and_column(data: bytes, start: int) -> str:
    *lines, last = data[:start].split(b"\n")
    return f"line {len(lines) + 1}, column {len(last.decode('utf-8', 'ignore')) + 1}"
