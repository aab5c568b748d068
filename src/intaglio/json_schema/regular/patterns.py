"""Regular expressions of JSON schemas (ECMA-262, with `u`) as languages: what a search with them accepts.

Look-aheads are translated exactly. Wherever one stands outside a repetition, the text behind that place must belong to
what follows in the pattern and to the look-ahead's own language, so each part is read together with the language of
all that may follow it. Look-behinds, back-references, word boundaries, and look-aheads inside a repetition are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from intaglio.json_schema.regular import characters, languages
from intaglio.json_schema.regular.characters import Characters
from intaglio.json_schema.regular.languages import ALL, EMPTY, NONE, Language

MAX_PATTERN = 4_096  # characters
_MAX_COUNT = 5_000  # of a repetition
_MAX_UNROLLED = 64  # of a repetition with a look-ahead in it
_MAX_DEPTH = 60  # of groups
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}


class PatternError(Exception):
    """A pattern that is not read here. The message completes: 'the pattern ... '."""


@dataclass(frozen=True, slots=True)
class _Node:
    """A parsed piece of the kind "text" (a language), "sequence", "choice", "repeat", "ahead", "not ahead", "start" or
    "end"."""

    kind: str
    parts: tuple[_Node, ...] = ()
    language: Language = EMPTY
    bounds: tuple[int, int | None] = (1, 1)

    @property
    def asserts(self) -> bool:
        """Whether it looks at what is around it."""
        return self.kind in ("ahead", "not ahead", "start", "end") or any(part.asserts for part in self.parts)

    @property
    def zero_width(self) -> bool:
        if self.kind == "text":
            return self.language == EMPTY
        if self.kind in ("sequence", "choice", "repeat"):
            return all(part.zero_width for part in self.parts)
        return True

    @property
    def starts(self) -> bool:
        return self.kind == "start" or any(part.starts for part in self.parts)


@lru_cache(maxsize=512)
def language_of(pattern: str) -> Language:
    """The texts in which the pattern finds something. Raises PatternError."""
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"has {len(pattern)} characters, more than {MAX_PATTERN}")
    try:
        root = _Parser(pattern).parse()
        if not root.starts:
            return languages.concat(ALL, _followed(root, ALL, at_start=False))
        later = languages.concat(languages.ANY_CHARACTER, ALL, _followed(root, ALL, at_start=False))
        return languages.union((_followed(root, ALL, at_start=True), later))
    except RecursionError:
        raise PatternError("is nested too deeply") from None


def _followed(node: _Node, rest: Language, *, at_start: bool) -> Language:  # noqa: PLR0911
    """The texts that the node accepts with a text of `rest` behind it."""
    if node.kind == "start":
        return rest if at_start else NONE
    if node.kind == "end":
        return languages.both((rest, EMPTY))
    if node.kind == "ahead":
        return languages.both((rest, _followed(node.parts[0], ALL, at_start=at_start)))
    if node.kind == "not ahead":
        return languages.both((rest, languages.negated(_followed(node.parts[0], ALL, at_start=at_start))))
    if not node.asserts:
        return languages.concat(_plain(node), rest)
    if node.kind == "choice":
        return languages.union(_followed(part, rest, at_start=at_start) for part in node.parts)
    if node.kind == "repeat":
        return _repeated(node, rest, at_start=at_start)
    for index in reversed(range(len(node.parts))):
        before = node.parts[:index]
        first = at_start and all(part.zero_width for part in before)
        if at_start and not first and node.parts[index].starts and all(_plain_nullable(part) for part in before):
            raise PatternError("has '^' after something that may be empty")
        rest = _followed(node.parts[index], rest, at_start=first)
    return rest


def _repeated(node: _Node, rest: Language, *, at_start: bool) -> Language:
    low, high = node.bounds
    part = node.parts[0]
    if part.zero_width:
        return rest if low == 0 else _followed(part, rest, at_start=at_start)
    if high is None or high > _MAX_UNROLLED or (part.starts and high > 1):
        raise PatternError("has a look-ahead or an anchor inside a repetition")
    result = rest
    for index in range(high, 0, -1):
        result = _followed(part, result, at_start=at_start and index == 1)
        if index > low:
            result = languages.union((result, rest))
    return result


def _plain_nullable(node: _Node) -> bool:
    return node.zero_width or node.asserts or _plain(node).nullable


def _plain(node: _Node) -> Language:
    if node.kind == "text":
        return node.language
    parts = [_plain(part) for part in node.parts]
    if node.kind == "sequence":
        return languages.concat(*parts)
    return languages.union(parts) if node.kind == "choice" else languages.repeat(parts[0], *node.bounds)


class _Parser:
    """A recursive descent over one pattern."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._depth = 0
        self._ignores_case = False
        self._dot = characters.complement(characters.LINE_ENDS)

    def parse(self) -> _Node:
        if self._take("(?i)"):  # not of ECMA-262, but of the engines that pydantic and others use
            self._ignores_case = True
        if self._take("(?s)"):
            self._dot = characters.ALL
        node = self._choice()
        if self._at < len(self._pattern):
            raise PatternError("has a ')' too many")
        return node

    def _choice(self) -> _Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise PatternError(f"has groups nested more than {_MAX_DEPTH} deep")
        parts = [self._sequence()]
        while self._take("|"):
            parts.append(self._sequence())
        self._depth -= 1
        return parts[0] if len(parts) == 1 else _Node("choice", tuple(parts))

    def _sequence(self) -> _Node:
        parts: list[_Node] = []
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            atom = self._atom()
            parts.append(self._quantified(atom))
        return parts[0] if len(parts) == 1 else _Node("sequence", tuple(parts))

    def _quantified(self, atom: _Node) -> _Node:
        bounds = self._quantifier()
        if bounds is None:
            return atom
        self._take("?")  # lazy: the same texts
        if self._peek() in ("*", "+") or self._quantifier_ahead():
            raise PatternError("has two quantifiers in a row")
        return _Node("repeat", (atom,), bounds=bounds)

    def _quantifier_ahead(self) -> bool:
        before = self._at
        found = self._quantifier() is not None
        self._at = before
        return found

    def _quantifier(self) -> tuple[int, int | None] | None:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(sign):
                return bounds
        if self._peek() != "{":
            return None
        end = self._pattern.find("}", self._at)
        low, comma, high = self._pattern[self._at + 1 : end].partition(",")
        if end < 0 or not (low.isascii() and low.isdigit()) or (high and not (high.isascii() and high.isdigit())):
            return None
        self._at = end + 1
        if max(len(low), len(high)) > 4 or max(int(low), int(high or 0)) > _MAX_COUNT:
            raise PatternError(f"repeats something more than {_MAX_COUNT} times")
        if high and int(high) < int(low):
            raise PatternError(f"has a repetition with bounds out of order, {{{low},{high}}}")
        return int(low), int(high) if high else None if comma else int(low)

    def _atom(self) -> _Node:  # noqa: PLR0911
        sign = self._pattern[self._at]
        self._at += 1
        if sign == "^":
            return _Node("start")
        if sign == "$":
            return _Node("end")
        if sign == ".":
            return self._symbols(self._dot)
        if sign == "[":
            return self._symbols(self._class())
        if sign == "(":
            return self._group()
        if sign == "\\":
            return self._escape()
        if sign in "*+?":
            raise PatternError(f"has a quantifier {sign!r} with nothing before it")
        return self._symbols(_single(ord(sign)))

    def _symbols(self, symbols: Characters) -> _Node:
        if self._ignores_case:
            symbols = characters.ignoring_case(symbols)
        return _Node("text", language=languages.one_of(symbols))

    def _group(self) -> _Node:
        kind = "group"
        if self._take("?"):
            kind = self._group_kind()
        inner = self._choice()
        if not self._take(")"):
            raise PatternError("has a group that does not end")
        return inner if kind == "group" else _Node(kind, (inner,))

    def _group_kind(self) -> str:
        for opening, kind in ((":", "group"), ("=", "ahead"), ("!", "not ahead")):
            if self._take(opening):
                return kind
        if self._take("<=") or self._take("<!"):
            raise PatternError("has a look-behind")
        if self._take("<") or self._take("P<"):
            end = self._pattern.find(">", self._at)
            if end > self._at:
                self._at = end + 1
                return "group"
        raise PatternError(f"has a group of an unknown kind, '(?{self._pattern[self._at : self._at + 2]}'")

    def _escape(self) -> _Node:
        sign = self._peek()
        if sign in ("b", "B"):
            raise PatternError(f"has a word boundary, '\\{sign}'")
        if sign == "A" or sign in ("z", "Z"):
            self._at += 1
            return _Node("start" if sign == "A" else "end")
        if sign == "k" or (sign.isdigit() and sign != "0"):
            raise PatternError(f"has a back-reference, '\\{sign}'")
        return self._symbols(self._escaped())

    def _escaped(self) -> Characters:  # noqa: PLR0911
        """The characters of an escape, in and outside classes. The backslash is read already."""
        sign = self._peek()
        if not sign:
            raise PatternError("ends with a backslash")
        self._at += 1
        named = {"d": characters.DIGITS, "w": characters.WORD, "s": characters.SPACE}.get(sign.lower())
        if named is not None:
            return named if sign.islower() else characters.complement(named)
        if sign in "pP":
            return self._property(sign == "P")
        if sign in "xu":
            return _single(self._hexadecimal(2 if sign == "x" else 4))
        if sign == "c" and self._peek().isascii() and self._peek().isalpha():
            self._at += 1
            return _single(ord(self._pattern[self._at - 1]) % 32)
        if sign == "0":
            return _single(0)
        if sign in _CONTROLS:
            return _single(_CONTROLS[sign])
        if sign.isascii() and sign.isalnum():
            raise PatternError(f"has an unknown escape, '\\{sign}'")
        return _single(ord(sign))

    def _property(self, negated: bool) -> Characters:
        end = self._pattern.find("}", self._at)
        name = self._pattern[self._at + 1 : end] if self._peek() == "{" and end > 0 else self._peek()
        self._at = end + 1 if self._peek() == "{" and end > 0 else self._at + 1
        found = characters.general_category(name)
        if found is None:
            raise PatternError(f"has a Unicode property that is not a general category, '\\p{{{name[:40]}}}'")
        return characters.complement(found) if negated else found

    def _hexadecimal(self, length: int) -> int:
        end = self._pattern.find("}", self._at) if self._peek() == "{" else -1
        digits = self._pattern[self._at + 1 : end] if end > 0 else self._pattern[self._at : self._at + length]
        try:
            code = int(digits, 16)
        except ValueError:
            raise PatternError(f"has an escape without its digits, '\\{'x' if length == 2 else 'u'}'") from None
        self._at = end + 1 if end > 0 else self._at + length
        if 0xD800 <= code < 0xDC00 and self._take("\\u"):
            code = 0x10000 + ((code - 0xD800) << 10) + (self._hexadecimal(4) - 0xDC00)
        if not 0 <= code <= characters.LAST:
            raise PatternError(f"names a character beyond Unicode, {digits!r}")
        return code

    def _class(self) -> Characters:
        negated = self._take("^")
        found: list[Characters] = []
        while not self._take("]"):
            first = self._class_member()
            if self._peek() == "-" and self._pattern[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                last = self._class_member()
                if len(first) != 1 or len(last) != 1 or first[0][0] != first[0][1] or last[0][0] != last[0][1]:
                    found += [first, _single(ord("-")), last]
                    continue
                if last[0][0] < first[0][0]:
                    raise PatternError("has a class with a range out of order")
                first = ((first[0][0], last[0][0]),)
            found.append(first)
        symbols = characters.union(*found)
        if self._ignores_case:
            symbols = characters.ignoring_case(symbols)
        return characters.complement(symbols) if negated else symbols

    def _class_member(self) -> Characters:
        sign = self._peek()
        if not sign:
            raise PatternError("has a class that does not end")
        self._at += 1
        if sign == "[" and self._peek() in (":", "["):
            raise PatternError("has a class inside a class")
        if sign != "\\":
            return _single(ord(sign))
        if self._take("b"):
            return _single(8)
        return self._escaped()

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _take(self, expected: str) -> bool:
        found = self._pattern.startswith(expected, self._at)
        self._at += len(expected) * found
        return found


def _single(code: int) -> Characters:
    return ((code, code),)
