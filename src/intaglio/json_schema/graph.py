"""The values that a schema allows, as a graph: a node for each set of parts that one value must satisfy, made of pieces
for single types, whose items and properties are nodes again. Recursive schemas make circles."""

from __future__ import annotations

from collections.abc import Sequence

from intaglio.errors import GrammarError
from intaglio.json_schema.combination import Way, ways
from intaglio.json_schema.limits import MAX_NODES
from intaglio.json_schema.members import ArrayPiece, ObjectPiece, array_piece, object_piece
from intaglio.json_schema.parts import Expander, Part
from intaglio.json_schema.pieces import (
    BooleanPiece,
    NullPiece,
    NumberPiece,
    StringPiece,
    boolean_piece,
    number_piece,
    string_piece,
)
from intaglio.json_schema.regular import automata, characters, languages
from intaglio.json_schema.regular.automata import TooLargeError

Node = int  # its number
Piece = NullPiece | BooleanPiece | NumberPiece | StringPiece | ArrayPiece[Node] | ObjectPiece[Node]


class Graph:
    """The nodes that can be reached from `root`. Raises GrammarError naming what cannot be enforced."""

    def __init__(self, root: Part, expander: Expander) -> None:
        self.nodes: list[list[Piece]] = []
        self._expander = expander
        self._numbers: dict[frozenset[tuple[int, bool]], int] = {}
        self._waiting: list[tuple[Part, ...]] = []
        self._number((root,))
        while len(self.nodes) < len(self._waiting):
            parts = self._waiting[len(self.nodes)]
            self.nodes.append([piece for way in ways(parts, expander) for piece in self._pieces(way)])
        self.possible = self._possible()

    def _number(self, parts: Sequence[Part]) -> int:
        parts = [part for part in parts if part.schema is not True or part.negated]  # true says nothing
        key = frozenset(part.key for part in parts)
        if key not in self._numbers:
            if len(self._waiting) >= MAX_NODES:
                place = parts[0].place if parts else "#"
                raise GrammarError(
                    f"the JSON schema cannot be served: its parts combine to more than {MAX_NODES} schemas, the last "
                    f"at {place[:200]}"
                )
            self._numbers[key] = len(self._waiting)
            self._waiting.append(tuple({part.key: part for part in parts}.values()))
        return self._numbers[key]

    def _pieces(self, way: Way) -> list[Piece]:
        found: list[Piece | None] = [NullPiece()] if "null" in way.types else []
        if "boolean" in way.types:
            found.append(boolean_piece(way.parts))
        if "integer" in way.types:  # numbers that are not integers cannot be asked for alone
            found.append(number_piece(way.parts, integer="fraction" not in way.types))
        elif "fraction" in way.types:
            piece = number_piece(way.parts, integer=False)
            found.append(piece if piece is not None and piece.values is not None else None)
        if "string" in way.types:
            found.append(string_piece(way.parts))
        if "array" in way.types:
            found.append(self._array(way))
        if "object" in way.types:
            found.append(self._object(way))
        return [piece for piece in found if piece is not None]

    def _array(self, way: Way) -> ArrayPiece[Node] | None:
        piece = array_piece(way.parts)
        if piece is None:
            return None
        prefix = tuple(self._number(parts) for parts in piece.prefix)
        return ArrayPiece(prefix, self._number(piece.rest), piece.low, piece.high, piece.unique, piece.place)

    def _object(self, way: Way) -> ObjectPiece[Node] | None:
        piece = object_piece(way.parts, self._expander)
        if piece is None:
            return None
        properties = {name: self._number(parts) for name, parts in piece.properties.items()}
        classes = tuple((language, self._number(parts)) for language, parts in piece.classes)
        other = self._number(piece.other_names)
        return ObjectPiece(properties, classes, other, piece.required, piece.low, piece.high, piece.place)

    def _possible(self) -> list[bool]:
        """Which nodes some finite value satisfies."""
        possible = [False] * len(self.nodes)
        open_nodes = list(range(len(self.nodes)))
        while True:
            left = [n for n in open_nodes if not any(_is_possible(piece, possible) for piece in self.nodes[n])]
            if len(left) == len(open_nodes):
                return possible
            for number in set(open_nodes) - set(left):
                possible[number] = True
            open_nodes = left


def _is_possible(piece: Piece, possible: Sequence[bool]) -> bool:
    if isinstance(piece, StringPiece):
        return not _is_empty(piece)
    if isinstance(piece, ArrayPiece):
        needed = [*piece.prefix[: piece.low], *([piece.rest] if piece.low > len(piece.prefix) else [])]
        return all(possible[node] for node in needed)
    if isinstance(piece, ObjectPiece):
        if not all(possible[piece.properties[name]] for name in piece.required):
            return False
        if possible[piece.other_names] or any(possible[node] for _, node in piece.classes):
            return True
        return piece.low <= sum(possible[node] for node in piece.properties.values())
    return True


def _is_empty(piece: StringPiece) -> bool:
    if not piece.languages or piece.literals is not None:
        return False
    length = languages.repeat(languages.one_of(characters.WRITABLE), piece.low, piece.high)
    try:
        if len(piece.languages) == 1 and automata.is_plain(piece.languages[0]):
            return False  # but for its length, of which the grammar library will tell
        return automata.is_empty(languages.both((*piece.languages, length)))
    except (TooLargeError, RecursionError):
        return False  # the grammar library will tell
