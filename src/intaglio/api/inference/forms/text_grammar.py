"""The fields of vLLM that give a completion its form: `structured_outputs`, and the `guided_...` ones before it.

JSON becomes the JSON mode of the other fields. A regular expression, a choice of texts and a grammar become a grammar
of llguidance's Lark, which the engine enforces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from intaglio.api.http.json_body import parse_json
from intaglio.api.inference.forms.structured_output import JsonMode, read_json_mode
from intaglio.errors import BadInputError, GrammarError
from intaglio.grammar import as_lark, check_grammar
from intaglio.text.tools import ToolUse

MAX_TEXT_CHOICES = 1_000  # texts of which the completion is one

_KINDS = ("regex", "choice", "grammar")
_FLAG = {"type": ["boolean", "null"]}
_TEXT = {"type": "string", "minLength": 1}
_TEXTS = {"type": "array", "minItems": 1, "maxItems": MAX_TEXT_CHOICES, "items": {"type": "string"}}

# The schemas of the fields that no other form has.
FORM_FIELDS: dict[str, dict[str, Any]] = {
    "structured_outputs": {
        "type": "object",
        "properties": {
            "json": {"type": ["object", "string", "null"]},
            "json_object": _FLAG,
            "regex": {**_TEXT, "type": ["string", "null"]},
            "choice": {**_TEXTS, "type": ["array", "null"]},
            "grammar": {**_TEXT, "type": ["string", "null"]},
            "structural_tag": {"enum": [None]},
            "disable_fallback": _FLAG,
            "disable_any_whitespace": {"enum": [False, None]},
            "disable_additional_properties": {"enum": [False, None]},
            "whitespace_pattern": {"enum": [None]},
        },
        "additionalProperties": False,
    },
    "guided_regex": _TEXT,
    "guided_choice": _TEXTS,
    "guided_grammar": _TEXT,
}


@dataclass(frozen=True, slots=True)
class TextGrammar:
    """The completion is a text of this form.

    kind    regex, choice or grammar
    value   the regular expression, the texts or the grammar, as sent
    field   that asked for it, for messages
    """

    kind: str
    value: Any
    field: str

    def lark(self) -> str:
        """The grammar, checked. Takes a while for a hostile one: call it in a thread. Raises GrammarError."""
        try:
            grammar = _lark(self.kind, self.value)
            check_grammar(grammar)
        except GrammarError as error:
            raise GrammarError(f"{self.field}: {error}") from error
        return grammar


def read_form(
    body: Mapping[str, Any], format_field: str = "response_format"
) -> tuple[JsonMode | None, TextGrammar | None]:
    """The form that a body asks for, as one of the two; at most one field may ask. Raises BadInputError.

    format_field  the name under which the caller sent what stands in `response_format`, for messages
    """
    asked = [*_asked_fields(body), *_asked_outputs(body.get("structured_outputs"))]
    form = body.get("response_format")
    if form is not None and not (isinstance(form, Mapping) and form.get("type") == "text"):
        asked.insert(0, (format_field, "response_format", form))
    if len(asked) > 1:
        raise BadInputError(f"{asked[0][0]} and {asked[1][0]} both give the completion a form; send one of them")
    if not asked:
        return None, None
    field, kind, value = asked[0]
    if kind in _KINDS:
        return None, TextGrammar(kind, value, field)
    if kind == "response_format":
        return read_json_mode(value, field), None
    return _json_mode(field, value), None


def refuse_beside_tools(text_grammar: TextGrammar | None, tools: ToolUse | None) -> None:
    """Raise BadInputError for a completion that should be a text of a grammar and may be a call of a tool."""
    if tools is not None and text_grammar is not None:
        raise BadInputError(
            f"{text_grammar.field} does not go with tools; a JSON schema does, and is for answers without a call"
        )


def _asked_fields(body: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    names = ((f"guided_{kind}", kind) for kind in ("json", *_KINDS))
    return [(name, kind, body[name]) for name, kind in names if body.get(name) is not None]


def _asked_outputs(outputs: Mapping[str, Any] | None) -> list[tuple[str, str, Any]]:
    given = outputs or {}
    asked = [
        (f"structured_outputs.{kind}", kind, given[kind]) for kind in ("json", *_KINDS) if given.get(kind) is not None
    ]
    if given.get("json_object"):
        asked.append(("structured_outputs.json_object", "json", {}))
    return asked


def _json_mode(field: str, schema: Any) -> JsonMode | None:
    if isinstance(schema, str):
        schema = parse_json(schema, field)
    if not isinstance(schema, Mapping):
        raise BadInputError(f"{field} must be a JSON schema, which is an object")
    return JsonMode(schema or None, field)


def _lark(kind: str, value: Any) -> str:
    if kind == "regex":
        return f"start: /{_in_slashes(value)}/"
    return f"start: {_alternatives(value)}" if kind == "choice" else as_lark(value)


def _alternatives(texts: Sequence[str]) -> str:
    return " | ".join(json.dumps(text, ensure_ascii=False) for text in dict.fromkeys(texts))


def _in_slashes(pattern: str) -> str:
    """The pattern for Lark's /.../, without anchors at its ends: the completion is the whole text anyway."""
    body = pattern.removeprefix("^")
    if body.endswith("$") and (len(body) - len(body[:-1].rstrip("\\")) - 1) % 2 == 0:
        body = body[:-1]
    escaped = re.sub(r"\\.|/", lambda found: r"\/" if found[0] == "/" else found[0], body, flags=re.DOTALL)
    return escaped.replace("\n", r"\n").replace("\r", r"\r")
