"""Where the subschemas of a document are, and what its `$ref`s point to. Nothing outside the document is fetched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from intaglio.errors import GrammarError
from intaglio.json_schema.limits import MAX_DEPTH, depth_error, not_enforced

_ROOT = "http://schema.invalid/root"  # the base of a document without an $id
_OF_SCHEMAS = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
)  # their values are schemas by name
_SCHEMAS = frozenset({
    "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "items", "prefixItems", "additionalItems", "contains",
    "additionalProperties", "propertyNames", "unevaluatedItems", "unevaluatedProperties",
})  # fmt: skip


class References:
    """The subschemas of one document by address.

    is_old  whether keywords beside a `$ref` are ignored, as in drafts up to 7
    draft   the number that `$schema` names: 4, 6, 7, 2019 or 2020
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.draft = _draft_of(document.get("$schema"))
        self.is_old = self.draft < 2019
        self._roots: dict[str, tuple[Mapping[str, Any], str]] = {}
        self._anchors: dict[str, tuple[Mapping[str, Any], str]] = {}
        self._bases: dict[int, str] = {}
        self.dynamic_anchors: list[str] = []
        self.has_recursive_anchor = False
        self._index(document)

    def resolve(self, reference: object, origin: Mapping[str, Any], place: str) -> tuple[Any, str]:
        """The schema that a `$ref` of `origin`, which is at `place`, points to, and its place. Raises GrammarError."""
        if not isinstance(reference, str):
            raise not_enforced("$ref", place, "it is not a string")
        base = self._bases.get(id(origin), _ROOT)
        address, fragment = urldefrag(_joined(base, reference))
        if address not in self._roots:
            raise not_enforced("$ref", place, f"{reference[:200]!r} is outside of the schema, and nothing is fetched")
        root, root_place = self._roots[address]
        if not fragment:
            return root, root_place
        if not fragment.startswith("/"):
            found = self._anchors.get(f"{address}#{fragment}")
            if found is None:
                raise not_enforced("$ref", place, f"{reference[:200]!r} names no anchor of the schema")
            return found
        target: Any = root
        for step in fragment[1:].split("/"):
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(target, Mapping) and name in target:
                target = target[name]
            elif isinstance(target, list) and name.isdecimal() and int(name) < len(target):
                target = target[int(name)]
            else:
                raise not_enforced("$ref", place, f"{reference[:200]!r} points to nothing in the schema")
        if isinstance(target, Mapping) and id(target) not in self._bases:
            self._bases[id(target)] = address  # below a keyword that is not known
        return target, f"{root_place or '#'}{fragment}"

    def holds(self, schema: Mapping[str, Any]) -> bool:
        """Whether this is a subschema of the document, not one that was made for it."""
        return id(schema) in self._bases

    def _index(self, document: Mapping[str, Any]) -> None:
        for node, base, place, is_root in _walk(document, self.is_old):
            self._bases[id(node)] = base
            if is_root:
                self._roots.setdefault(urldefrag(base)[0], (node, place))
            for keyword in ("$anchor", "$dynamicAnchor"):
                if isinstance(anchor := node.get(keyword), str):
                    self._anchors.setdefault(f"{urldefrag(base)[0]}#{anchor}", (node, place))
                    if keyword == "$dynamicAnchor":
                        self.dynamic_anchors.append(anchor)
            self.has_recursive_anchor |= node.get("$recursiveAnchor") is True
            if isinstance(plain := node.get("$id", node.get("id")), str) and plain.startswith("#"):
                self._anchors.setdefault(f"{urldefrag(base)[0]}{plain}", (node, place))


def _walk(document: Mapping[str, Any], is_old: bool) -> Iterator[tuple[Mapping[str, Any], str, str, bool]]:
    """(schema, base, place, whether a new base begins) of every schema. Not recursive: the depth is not bounded yet."""
    waiting: list[tuple[Any, str, str, int, str]] = [(document, _ROOT, "#", 1, "schema")]
    while waiting:
        node, base, place, depth, kind = waiting.pop()
        if depth > MAX_DEPTH:
            raise depth_error()
        if kind == "schema" and isinstance(node, Mapping):
            named = node.get("$id", node.get("id"))
            begins = isinstance(named, str) and not named.startswith("#") and not (is_old and "$ref" in node)
            base = _joined(base, named) if begins else base
            yield node, base, place, begins or depth == 1
        members = node.items() if isinstance(node, Mapping) else enumerate(node)
        for name, child in members:
            if isinstance(child, Mapping | list | tuple):
                waiting.append((child, base, f"{place}/{_escaped(str(name))}", depth + 1, _kind(node, kind, str(name))))


def _kind(node: object, kind: str, name: str) -> str:
    """Whether the member is a "schema", a "collection" of schemas by name, or something "other"."""
    if kind == "schema" and isinstance(node, Mapping):
        return "collection" if name in _OF_SCHEMAS else "schema" if name in _SCHEMAS else "other"
    return "schema" if kind in ("schema", "collection") else "other"


def _joined(base: str, reference: str) -> str:
    if reference.startswith("#"):
        return urldefrag(base)[0] + reference
    try:
        return urljoin(base, reference)
    except ValueError:
        raise GrammarError(f"the JSON schema has {reference[:200]!r} as an address, which is none") from None


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _draft_of(dialect: object) -> int:
    for text, number in (("draft-03", 4), ("draft-04", 4), ("draft-06", 6), ("draft-07", 7), ("2019-09", 2019)):
        if isinstance(dialect, str) and text in dialect:
            return number
    return 2020
