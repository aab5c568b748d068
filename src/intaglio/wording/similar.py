"""Names that resemble one that does not exist, for messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_SIMILAR = 3
_SHOWN_CHARACTERS = 128  # a longer name resembles none, and comparing it takes long


def similar_names(name: str, names: Iterable[str], *, at_most: int = MAX_SIMILAR) -> tuple[str, ...]:
    """The names that most resemble it, best first, `at_most` of them: by their characters, or as a part of one.

    Upper and lower case, `-`, `_` and `.` count as alike.
    """
    if not 0 < len(name) <= _SHOWN_CHARACTERS:
        return ()
    folded = {known: _folded(known) for known in dict.fromkeys(names)}
    asked = _folded(name)
    near = set(difflib.get_close_matches(asked, folded.values(), n=MAX_SIMILAR))
    near |= {one for one in folded.values() if len(asked) > 2 and asked in one}
    found = [known for known, one in folded.items() if one in near]
    found.sort(key=lambda known: -difflib.SequenceMatcher(None, asked, folded[known]).ratio())
    return tuple(found[:at_most])


def misspelt(name: str, names: Iterable[str]) -> str | None:
    """The name that this one is but for a letter or two; None if there is none, or if it is one of them.

    Stricter than `similar_names`: for names that are ignored, or have another meaning, unless they are a mistake.
    """
    known = list(names)
    if name in known or not 0 < len(name) <= _SHOWN_CHARACTERS:
        return None
    folded = {_folded(one): one for one in known}
    near = difflib.get_close_matches(_folded(name), folded, n=1, cutoff=_MISSPELT)
    return folded[near[0]] if near else None


_MISSPELT = 0.8  # one letter of four or two of ten are wrong


def did_you_mean(names: Iterable[str]) -> str:
    """A question for the end of a message; "" without names."""
    listed = " or ".join(names)
    return f"Did you mean {listed}?" if listed else ""


def meant_or(name: str, names: Iterable[str], otherwise: str) -> str:
    """The second half of a sentence about an unknown name: the one that was probably meant, or else other advice."""
    near = similar_names(name, names, at_most=1)
    return f"did you mean {near[0]}?" if near else otherwise


def _folded(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
