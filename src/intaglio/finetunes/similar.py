"""Names that resemble one that does not exist, for messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_SIMILAR = 3
_SHOWN_CHARACTERS = 128  # a longer name resembles none, and comparing it takes long


def similar_names(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """The names that most resemble it, best first, at most MAX_SIMILAR: by their characters, or as a part of one.

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
    return tuple(found[:MAX_SIMILAR])


def did_you_mean(names: Iterable[str]) -> str:
    """A question for the end of a message; "" without names."""
    listed = " or ".join(names)
    return f"Did you mean {listed}?" if listed else ""


def _folded(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
