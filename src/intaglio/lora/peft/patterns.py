"""Match the regular expressions of an adapter config without ever taking long.

PEFT matches `target_modules` and the pattern keys with Python's `re`, whose backtracking takes exponential time on
`(a|a)*b` and the like; an uploaded file must not hang the server. So the expression is parsed by Python's own parser,
which fixes its meaning, and run here on sets of positions instead of one position at a time. A set is an integer:
bit i is set when the text before position i has been matched.

    text     m l p          "." from {0} gives {1};  ".*" from {0} gives {0, 1, 2, 3}
    bit     0 1 2 3         the pattern matches when the set it ends with is not empty

Each node costs its steps once per set, however many ways lead to a position; all patterns of an adapter share one
budget of steps. What sets cannot express (back references, atomic groups) is refused by name.

Of the flags only IGNORECASE changes what matches: module paths are ASCII without line breaks, so MULTILINE, DOTALL,
ASCII and UNICODE change nothing, and VERBOSE is the parser's.
"""

from __future__ import annotations

import re
import re._casefix as sre_casefix  # type: ignore[import-not-found]
import re._constants as sre  # type: ignore[import-not-found]
import re._parser as sre_parser  # type: ignore[import-not-found]
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from intaglio.errors import AdapterError

MAX_PATTERN_CHARS = 4096
# Of an adapter's expressions: parsing takes two microseconds a character. 434 paths, for rank and alpha, have 48,000.
MAX_CHARS_TOGETHER = 1 << 16

# A step is the work for a literal, a tenth of a microsecond; other nodes take several. 434 modules (62 layers) with an
# expression per layer, for rank and alpha each, take up to 2,200,000.
MATCH_STEPS = 3_000_000
_NODE_STEPS = 4

# A module's name or path; dots may be escaped, ends may be anchored.
_PLAIN = re.compile(r"\^?(?:[A-Za-z0-9_.\-]|\\[._\-])+\$?")

_CHARACTERS = frozenset([sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN])  # nodes that match one character

_CATEGORIES: dict[Any, Callable[[str], bool]] = {
    sre.CATEGORY_DIGIT: str.isdecimal,
    sre.CATEGORY_NOT_DIGIT: lambda char: not char.isdecimal(),
    sre.CATEGORY_SPACE: str.isspace,
    sre.CATEGORY_NOT_SPACE: lambda char: not char.isspace(),
    sre.CATEGORY_WORD: lambda char: char.isalnum() or char == "_",
    sre.CATEGORY_NOT_WORD: lambda char: not (char.isalnum() or char == "_"),
}


class MatchBudget:
    """The steps that are left for all patterns of one adapter."""

    def __init__(self, steps: int = MATCH_STEPS) -> None:
        self._left = steps

    def spend(self, steps: int) -> None:
        """Raises AdapterError once the budget is used up."""
        self._left -= steps
        if self._left < 0:
            raise AdapterError(
                "adapter_config.json: its regular expressions take too long to match; "
                "name the modules in a list, and patterns by plain module names"
            )


class ModulePattern:
    """One regular expression over module paths, in Python's syntax.

    setting  the config key that has the expression, for messages

    Raises AdapterError if it is not a regular expression, is too long, or uses a construct that is not supported.
    """

    def __init__(self, pattern: str, setting: str) -> None:
        if len(pattern) > MAX_PATTERN_CHARS:
            raise AdapterError(
                f"adapter_config.json: {setting} has an expression of {len(pattern)} characters; "
                f"the limit is {MAX_PATTERN_CHARS}"
            )
        self._pattern = pattern
        self._setting = setting
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the parser warns of syntax that a later Python may read otherwise
                self._tree = sre_parser.parse(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise AdapterError(
                f"adapter_config.json: {setting} {pattern[:80]!r} is not a regular expression: {error}"
            ) from error
        self._ignores_case = bool(self._tree.state.flags & sre.SRE_FLAG_IGNORECASE)

    def matches_all(self, text: str, budget: MatchBudget) -> bool:
        """Same result as `re.fullmatch`."""
        return bool(self._ends(text, budget) >> len(text))

    def matches_start(self, text: str, budget: MatchBudget) -> bool:
        """Same result as `re.match`."""
        return bool(self._ends(text, budget))

    def _ends(self, text: str, budget: MatchBudget) -> int:
        try:
            return _Matcher(text, budget, self._unsupported, self._ignores_case).sequence(self._tree, 1)
        except RecursionError:
            raise self._unsupported("groups nested this deeply") from None

    def _unsupported(self, construct: str) -> AdapterError:
        return AdapterError(
            f"adapter_config.json: {self._setting} {self._pattern[:80]!r} uses {construct}, which is not supported; "
            "write the expression without, or name the modules in a list"
        )


class PatternKey:
    """A key of rank_pattern or alpha_pattern, matched as PEFT does: `(.*\\.)?(KEY)$` from the start of the path."""

    def __init__(self, key: str, setting: str) -> None:
        expression = rf"(.*\.)?({key})$"
        # Most keys are names, and there may be hundreds: `re` is faster, and without quantifiers it cannot explode.
        self._plain = re.compile(expression) if _PLAIN.fullmatch(key) and len(key) <= MAX_PATTERN_CHARS else None
        self._pattern = None if self._plain else ModulePattern(expression, f"the {setting} key")

    def matches(self, path: str, budget: MatchBudget) -> bool:
        if self._plain is not None:
            budget.spend(_NODE_STEPS)
            return self._plain.match(path) is not None
        assert self._pattern is not None
        return self._pattern.matches_start(path, budget)


class _Matcher:
    """Matches one expression against one text. Each method takes a set of positions and returns the set reached."""

    def __init__(
        self, text: str, budget: MatchBudget, unsupported: Callable[[str], AdapterError], ignores_case: bool
    ) -> None:
        self._text = text
        self._budget = budget
        self._unsupported = unsupported
        self._ignores_case = ignores_case  # of the group that is being matched
        self._occurrences = _occurrences(text)
        # identity of a [class] node, and whether case is ignored -> positions in front of its members
        self._classes: dict[tuple[int, bool], int] = {}

    def sequence(self, nodes: Sequence[tuple[Any, Any]], positions: int) -> int:
        steps = _NODE_STEPS
        for op, argument in nodes:
            if not positions:
                break
            if op is sre.LITERAL:  # most nodes are literals: a fast path
                steps += 1
                positions = (positions & self._literal_positions(argument)) << 1
            else:
                steps += _NODE_STEPS
                positions = self._match_node(op, argument, positions)
        self._budget.spend(steps)
        return positions

    def _match_node(self, op: Any, argument: Any, positions: int) -> int:
        if op in _CHARACTERS:
            return (positions & self._positions_before(op, argument)) << 1
        if op is sre.BRANCH:
            return self._match_branch(argument[1], positions)
        if op is sre.SUBPATTERN:
            return self._match_group(argument, positions)
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):  # greedy or lazy: the same set
            least, most, nodes = argument
            return self._match_repeat(least, most, nodes, positions)
        if op is sre.AT:
            return positions & self._anchor_positions(argument)
        if op in (sre.ASSERT, sre.ASSERT_NOT):
            direction, nodes = argument
            return self._match_lookaround(direction, nodes, positions, wanted=op is sre.ASSERT)
        raise self._unsupported(str(op).lower().replace("_", " "))

    def _match_group(self, argument: tuple[Any, int, int, Any], positions: int) -> int:
        """Match a group, which may turn flags on or off inside: (?i:...), (?-i:...)."""
        _, added, removed, nodes = argument
        outside = self._ignores_case
        flag = sre.SRE_FLAG_IGNORECASE
        self._ignores_case = bool((outside or added & flag) and not removed & flag)
        try:
            return self.sequence(nodes, positions)
        finally:
            self._ignores_case = outside

    def _literal_positions(self, code: int) -> int:
        """The positions in front of a character."""
        if not self._ignores_case:
            return self._occurrences.get(code, 0)
        self._budget.spend(len(self._occurrences))
        return sum(found for other, found in self._occurrences.items() if code in _cases(other))

    def _positions_before(self, op: Any, argument: Any) -> int:
        """The positions in front of a character that the node accepts."""
        if op is sre.LITERAL:
            return self._literal_positions(argument)
        everywhere = (1 << len(self._text)) - 1
        if op is sre.ANY:  # module paths hold no line breaks
            return everywhere
        if op is sre.IN:
            key = (id(argument), self._ignores_case)
            if key not in self._classes:
                self._classes[key] = self._class_positions(argument)
            return self._classes[key]
        return everywhere & ~self._literal_positions(argument)

    def _class_positions(self, items: list[tuple[Any, Any]]) -> int:
        found = 0
        for code, positions in self._occurrences.items():
            self._budget.spend(len(items))
            cases = _cases(code) if self._ignores_case else (code,)
            if _in_class(items, cases):
                found |= positions
        return found

    def _match_branch(self, branches: Sequence[Any], positions: int) -> int:
        self._budget.spend(len(branches))
        reached = 0
        for branch in branches:
            reached |= self.sequence(branch, positions)
        return reached

    def _match_repeat(self, least: int, most: int, nodes: Any, positions: int) -> int:
        for _ in range(least):
            before, positions = positions, self.sequence(nodes, positions)
            if positions == before:  # further repetitions change nothing
                break
        if most is sre.MAXREPEAT and len(nodes) == 1 and nodes[0][0] in _CHARACTERS:
            self._budget.spend(_NODE_STEPS)
            return _reach_over(positions, self._positions_before(*nodes[0]))
        # A position that fewer repetitions reached already leads to no new ones.
        reached = fresh = positions
        turns = least
        while fresh and (most is sre.MAXREPEAT or turns < most):
            fresh = self.sequence(nodes, fresh) & ~reached
            reached |= fresh
            turns += 1
        return reached

    def _match_lookaround(self, direction: int, nodes: Any, positions: int, wanted: bool) -> int:
        """Keep the positions that a lookahead (direction 1) or lookbehind (-1) allows."""
        width = 0 if direction > 0 else nodes.getwidth()[0]  # a lookbehind has a fixed width
        kept = 0
        for index in range(len(self._text) + 1):
            self._budget.spend(1)
            here = 1 << index
            if not positions & here:
                continue
            found = index >= width and bool(self.sequence(nodes, here >> width))
            kept |= here if found == wanted else 0
        return kept

    def _anchor_positions(self, kind: Any) -> int:
        """The positions where an anchor matches."""
        length = len(self._text)
        if kind in (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING):
            return 1
        if kind in (sre.AT_END, sre.AT_END_STRING):
            return 1 << length
        self._budget.spend(2 * length)
        is_word = _CATEGORIES[sre.CATEGORY_WORD]
        words = [False, *(is_word(char) for char in self._text), False]
        boundaries = sum(1 << i for i in range(length + 1) if words[i] != words[i + 1])
        return boundaries if kind is sre.AT_BOUNDARY else ~boundaries


@lru_cache(maxsize=16)  # every expression of an adapter is matched against the same path
def _occurrences(text: str) -> Mapping[int, int]:
    """Character code -> the positions in front of it."""
    found: dict[int, int] = {}
    for index, code in enumerate(map(ord, text)):
        found[code] = found.get(code, 0) | 1 << index
    return MappingProxyType(found)


def _reach_over(positions: int, accepted: int) -> int:
    """The positions, and all that are reached from them over accepted characters, however many.

    Adding a position's bit carries through the run of accepted bits it is in: the bits that change are those passed.

        accepted 01110 + position 00010 = 10000, changed 11110
    """
    return positions | (accepted ^ (accepted + (positions & accepted)))


@lru_cache(maxsize=256)
def _cases(code: int) -> frozenset[int]:
    """The characters that Python's `re` takes for this one when it ignores case, itself included."""
    char = chr(code)
    forms = {char, *(form for form in (char.lower(), char.upper()) if len(form) == 1)}
    others = (other for form in forms for other in sre_casefix._EXTRA_CASES.get(ord(form), ()))
    return frozenset([*map(ord, forms), *others])


def _in_class(items: list[tuple[Any, Any]], cases: Iterable[int]) -> bool:
    """Whether a character, given by its cases, belongs to [items]."""
    negated = items[0][0] is sre.NEGATE
    for op, argument in items[negated:]:
        for code in cases:
            if (
                (op is sre.LITERAL and code == argument)
                or (op is sre.RANGE and argument[0] <= code <= argument[1])
                or (op is sre.CATEGORY and _CATEGORIES[argument](chr(code)))
            ):
                return not negated
    return negated
