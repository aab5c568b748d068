"""One sentence for each fault of a field: the field, its value, the bound.

    temperature is 9, more than 5
    messages[2].role is "usr"; one of "user", "assistant" is needed; did you mean "user"?
    lora[0].scael is not known; did you mean scale?

A place is the field as a program would write it, `messages[2].role`; "" is the whole body.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from intaglio.wording.similar import meant_or, similar_names

BODY = "the body"
_SHOWN_CHARACTERS = 60  # of a value, a field's name and each of the values that are allowed
_NAME_CHARACTERS = 128  # of a name: longer than any that exists
_LISTED = 20  # of the values that are allowed
_PLAIN = re.compile(r"[^\W\d][\w-]*")
_KINDS = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def place_of(steps: Iterable[str | int]) -> str:
    """The place that these keys and indexes lead to, from the body on."""
    place = ""
    for step in steps:
        place = at(place, step)
    return place


def at(place: str, step: str | int) -> str:
    """The place of a member or an item of what is at `place`."""
    if isinstance(step, int):
        return f"{place}[{step}]"
    if not _PLAIN.fullmatch(step) or len(step) > _SHOWN_CHARACTERS:
        return f"{place or BODY}[{shown(step)}]"
    return f"{place}.{step}" if place else step


def shown(value: object) -> str:
    """A value as JSON, cut at a length at which a sentence can still be read; its whole length is then said."""
    if isinstance(value, str):
        return _cut(json.dumps(value[: _SHOWN_CHARACTERS + 1], ensure_ascii=False), len(value), "characters")
    if isinstance(value, list | tuple):
        return _cut(_json(value[:_SHOWN_CHARACTERS]), len(value), "items")
    if isinstance(value, dict):
        return _cut(_json(dict(list(value.items())[:_SHOWN_CHARACTERS])), len(value), "fields")
    return _cut(_json(value), 0, "")


def shown_name(name: str) -> str:
    """A name as it stands in a sentence that clients know, without quotes; cut as a value is."""
    return name if len(name) <= _NAME_CHARACTERS else f"{name[:_NAME_CHARACTERS]}... ({len(name)} characters)"


def wrong_type(place: str, value: object, kinds: Sequence[str]) -> str:
    """kinds: the JSON types that are allowed."""
    wanted = [_KINDS[kind] for kind in kinds if kind != "null"]
    listed = wanted[0] if len(wanted) == 1 else f"{', '.join(wanted[:-1])} or {wanted[-1]}"
    return f"{place or BODY} is {shown(value)}; {'a JSON object' if not place else listed} is needed"


def missing(place: str, names: Sequence[str], given: Iterable[str] = ()) -> str:
    """names: of the members that what is at `place` lacks. given: those that it has, of which one may be misspelt."""
    given = list(given)
    paths = [at(place, name) for name in names]
    verb = "is" if len(paths) == 1 else "are"
    meant = [(name, wrong) for name in names for wrong in similar_names(name, given, at_most=1)]
    hint = f"; {at(place, meant[0][1])} is not known, did you mean {meant[0][0]}?" if meant else ""
    return f"{' and '.join(paths)} {verb} missing{hint}"


def too_high(place: str, value: object, bound: object) -> str:
    return f"{place or BODY} is {shown(value)}, more than {bound}"


def too_low(place: str, value: object, bound: object) -> str:
    return f"{place or BODY} is {shown(value)}, less than {bound}"


def too_long(place: str, count: int, bound: int, unit: str) -> str:
    """unit: the singular of what is counted: a character, an item, a field."""
    return f"{place or BODY} has {_counted(count, unit)}, more than {bound}"


def too_short(place: str, count: int, bound: int, unit: str) -> str:
    if count == 0:
        return f"{place or BODY} is empty; at least {_counted(bound, unit)} is needed"
    return f"{place or BODY} has {_counted(count, unit)}, less than {bound}"


def not_one_of(place: str, value: object, allowed: Sequence[object]) -> str:
    known = [one for one in allowed if one is not None]
    texts = [one for one in known if isinstance(one, str)]
    near = similar_names(value, texts, at_most=1) if isinstance(value, str) else ()
    hint = f"; did you mean {shown(near[0])}?" if near and len(known) > 1 else ""
    if not known:  # null alone is allowed: the field is there to be refused
        return f"{place or BODY} is {shown(value)}, which is not supported; leave it out"
    listed = ", ".join(shown(one) for one in known[:_LISTED]) + (", ..." if len(known) > _LISTED else "")
    wanted = listed if len(known) == 1 else f"one of {listed}"
    return f"{place or BODY} is {shown(value)}; {wanted} is needed{hint}"


def unknown(place: str, name: str, known: Sequence[str]) -> str:
    """A member that what is at `place` cannot have."""
    listed = f"known: {', '.join(known)}"
    return f"{at(place, name)} is not known; {meant_or(name, known, listed)}"


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}{'' if count == 1 else 's'}"


def _json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # not JSON: of a script, not of a request
        return repr(value)


def _cut(text: str, length: int, unit: str) -> str:
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[:_SHOWN_CHARACTERS]}...{f' ({length} {unit})' if length else ''}"
