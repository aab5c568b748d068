"""A graph written as a schema for the grammar library, with keywords that it takes literally: every type is named, no
node is an intersection, and numbers have a bounded number of digits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from intaglio.errors import GrammarError
from intaglio.json_schema.graph import Graph, Node, Piece
from intaglio.json_schema.limits import not_enforced
from intaglio.json_schema.members import ArrayPiece, ObjectPiece
from intaglio.json_schema.pieces import BooleanPiece, NullPiece, NumberPiece, StringPiece
from intaglio.json_schema.regular import automata
from intaglio.json_schema.regular.automata import TooLargeError
from intaglio.json_schema.regular.languages import Language
from intaglio.json_schema.scalars import exact, number_schemas, string_schema

_MAX_UNIQUE = 120  # orders of values
_MAX_COUNTED = 64  # choices of properties, for minProperties and maxProperties


def written(graph: Graph) -> dict[str, Any]:
    """The schema. Raises GrammarError if no value satisfies it, or if something cannot be written."""
    if not graph.possible[0]:
        raise GrammarError("the JSON schema allows no text: no value satisfies all of it")
    return _Writer(graph).written()


class _Writer:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._uses = [0] * len(graph.nodes)
        self._definitions: dict[str, Any] = {}
        self._waiting: list[int] = []
        self._count_uses()

    def written(self) -> dict[str, Any]:
        root = self._node(0)
        while self._waiting:
            number = self._waiting.pop()
            self._definitions[str(number)] = self._node(number)
        return {**root, "$defs": self._definitions} if self._definitions else root

    def _count_uses(self) -> None:
        self._uses[0] = 2 if any(0 in _children(p) for pieces in self._graph.nodes for p in pieces) else 1
        seen, waiting = {0}, [0]
        while waiting:
            for piece in self._graph.nodes[waiting.pop()]:
                for child in _children(piece):
                    self._uses[child] += 1
                    if child not in seen:
                        seen.add(child)
                        waiting.append(child)

    def _child(self, number: int) -> Any:
        if not self._graph.possible[number]:
            return False
        if self._uses[number] < 2:
            return self._node(number)
        if str(number) not in self._definitions:
            self._definitions[str(number)] = None
            self._waiting.append(number)
        return {"$ref": f"#/$defs/{number}"}

    def _node(self, number: int) -> dict[str, Any]:
        found: list[dict[str, Any]] = []
        for piece in self._graph.nodes[number]:
            found += [schema for schema in self._piece(piece) if schema not in found]
        if not found:
            raise GrammarError("the JSON schema allows no text: a part that it needs has no value")
        return found[0] if len(found) == 1 else {"anyOf": found}

    def _piece(self, piece: Piece) -> Iterator[dict[str, Any]]:
        if isinstance(piece, NullPiece):
            yield {"type": "null"}
        elif isinstance(piece, BooleanPiece):
            yield {"type": "boolean"} if len(piece.values) == 2 else {"enum": sorted(piece.values)}
        elif isinstance(piece, NumberPiece):
            yield from number_schemas(piece)
        elif isinstance(piece, StringPiece):
            yield string_schema(piece)
        elif isinstance(piece, ArrayPiece):
            yield from self._array(piece)
        else:
            yield from self._object(piece)

    # -- arrays

    def _array(self, piece: ArrayPiece[Node]) -> Iterator[dict[str, Any]]:
        possible, high = self._graph.possible, piece.high
        prefix = piece.prefix
        for index, node in enumerate(prefix):
            if not possible[node]:
                prefix, high = prefix[:index], index if high is None else min(high, index)
                break
        if not possible[piece.rest]:
            high = len(prefix) if high is None else min(high, len(prefix))
        if high is not None and piece.low > high:
            return
        if piece.unique is not None and (high is None or high > 1):
            yield from self._unique(piece, prefix, high)
            return
        schema: dict[str, Any] = {"type": "array"}
        if prefix:
            schema["prefixItems"] = [self._child(node) for node in prefix]
        schema["items"] = False if high is not None and high <= len(prefix) else self._child(piece.rest)
        schema |= {"minItems": piece.low} if piece.low else {}
        schema |= {} if high is None else {"maxItems": high}
        yield schema

    def _unique(self, piece: ArrayPiece[Node], prefix: Sequence[int], high: int | None) -> Iterator[dict[str, Any]]:
        """Arrays without repetitions: all orders of the values, if these are few."""
        values = self._values(piece.rest) if not prefix else None
        if values is None:
            raise not_enforced("uniqueItems", piece.unique or "", "its items are not all among a few values of an enum")
        length = len(values) if high is None else min(high, len(values))
        if piece.low > length:
            return
        if math.perm(len(values), length) > _MAX_UNIQUE:
            raise not_enforced(
                "uniqueItems", piece.unique or "",
                f"{length} of {len(values)} values have more than {_MAX_UNIQUE} orders",
            )  # fmt: skip
        for order in itertools.permutations(values, length):
            items = [{"const": value} for value in order]
            least = {"minItems": piece.low} if piece.low else {}
            yield {"type": "array", "prefixItems": items, "items": False, "maxItems": length, **least}

    def _values(self, number: int) -> list[Any] | None:
        """All values of a node, if they are scalars of an enum."""
        found: list[Any] = []
        for piece in self._graph.nodes[number]:
            if isinstance(piece, NullPiece):
                found.append(None)
            elif isinstance(piece, BooleanPiece):
                found += sorted(piece.values)
            elif isinstance(piece, NumberPiece) and piece.values is not None:
                found += [exact(value, piece) for value in piece.values]
            elif isinstance(piece, StringPiece) and piece.literals is not None and not piece.formats:
                found += piece.literals
            else:
                return None
        return [value for index, value in enumerate(found) if not any(_same(value, o) for o in found[:index])]

    # -- objects

    def _object(self, piece: ObjectPiece[Node]) -> Iterator[dict[str, Any]]:
        possible = self._graph.possible
        is_open = possible[piece.other_names] or any(possible[node] for _, node in piece.classes)
        usable = [name for name, node in piece.properties.items() if possible[node]]
        optional = [name for name in usable if name not in piece.required]
        least = max(piece.low - len(piece.required), 0)
        most = None if piece.high is None else piece.high - len(piece.required)
        if most is not None and not is_open and most >= len(optional):
            most = None
        if least == 0 and most is None:
            yield self._object_with(piece, optional, (), 0, None)
        elif is_open:
            yield from self._counted_open(piece, optional, least, most)
        else:
            yield from self._counted(piece, optional, least, most)

    def _counted(
        self, piece: ObjectPiece[Node], optional: Sequence[str], least: int, most: int | None
    ) -> Iterator[dict[str, Any]]:
        """Objects whose names are all listed: at least `least` and at most `most` of the optional ones."""
        if least > len(optional):
            return
        if most is None:
            self._check_count(piece, math.comb(len(optional), least))
            for chosen in itertools.combinations(optional, least):
                yield self._object_with(piece, optional, chosen, 0, None)
            return
        self._check_count(piece, math.comb(len(optional), most) * math.comb(most, min(least, most)))
        for kept in itertools.combinations(optional, most):
            for chosen in itertools.combinations(kept, least):
                yield self._object_with(piece, kept, chosen, 0, None)

    def _counted_open(
        self, piece: ObjectPiece[Node], optional: Sequence[str], least: int, most: int | None
    ) -> Iterator[dict[str, Any]]:
        """Objects with other names too. Each set of listed names is one alternative, because the library counts only
        the others. It does not compare those with each other, so more than one of them cannot be required."""
        if least > 1:
            raise not_enforced("minProperties", piece.place, "more than one property without a listed name is needed")
        if most is None:
            for name in optional:
                yield self._object_with(piece, optional, (name,), 0, None)
            yield self._object_with(piece, (), (), least, None)
            return
        sizes = range(min(most, len(optional)) + 1)
        self._check_count(piece, sum(math.comb(len(optional), size) for size in sizes))
        for size in sizes:
            for chosen in itertools.combinations(optional, size):
                yield self._object_with(piece, chosen, chosen, max(least - size, 0), most - size)

    def _check_count(self, piece: ObjectPiece[Node], count: int) -> None:
        if count > _MAX_COUNTED:
            keyword = "maxProperties" if piece.high is not None else "minProperties"
            reason = f"{count} choices of properties are possible, more than {_MAX_COUNTED}"
            raise not_enforced(keyword, piece.place, reason)

    def _object_with(
        self, piece: ObjectPiece[Node], optional: Sequence[str], chosen: Sequence[str], least: int, most: int | None
    ) -> dict[str, Any]:
        """Objects with the required and the chosen properties, perhaps optional ones, and `least` to `most` others."""
        required = [name for name in piece.properties if name in {*piece.required, *chosen}]
        allowed = {*required, *optional}
        properties = {name: self._child(node) if name in allowed else False for name, node in piece.properties.items()}
        patterns = {_names_text(language, piece): self._child(node) for language, node in piece.classes}
        other = False if most == 0 else self._child(piece.other_names)
        schema: dict[str, Any] = {"type": "object", "properties": properties}
        if patterns:
            schema["patternProperties"] = patterns if most != 0 else dict.fromkeys(patterns, False)
        schema["additionalProperties"] = other
        schema |= {"required": required} if required else {}
        schema |= {"minProperties": len(required) + least} if least else {}
        schema |= {"maxProperties": len(required) + most} if most else {}
        return schema


def _children(piece: Piece) -> list[int]:
    if isinstance(piece, ArrayPiece):
        return [*piece.prefix, piece.rest]
    if isinstance(piece, ObjectPiece):
        return [*piece.properties.values(), *(node for _, node in piece.classes), piece.other_names]
    return []


def _names_text(language: Language, piece: ObjectPiece[Node]) -> str:
    try:
        return automata.written(language)
    except TooLargeError:
        reason = "the names that it means take too large an automaton"
        raise not_enforced("patternProperties", piece.place, reason) from None


def _same(left: Any, right: Any) -> bool:
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)
