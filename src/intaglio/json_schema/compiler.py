"""From a JSON schema as it comes to one that the grammar library enforces exactly.

schema --parts--> what it says --combination--> ways to satisfy it --graph--> nodes --writing--> plain schema
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema_rs

from intaglio.errors import GrammarError
from intaglio.json_schema.exclusion import exclusive
from intaglio.json_schema.graph import Graph
from intaglio.json_schema.limits import Budget, depth_error
from intaglio.json_schema.negation import negation
from intaglio.json_schema.parts import Expander, Part
from intaglio.json_schema.references import References
from intaglio.json_schema.unevaluated import unevaluated
from intaglio.json_schema.writing import written
from intaglio.wording.violations import fault_of


def enforceable_schema(schema: Mapping[str, Any] | bool) -> dict[str, Any]:
    """A schema whose every text the given one allows, in keywords that llguidance enforces literally.

    Where a keyword has no exact form the schema may be narrower, never wider: see docs/structured_output.md. Raises
    GrammarError naming the keyword and its place. Takes milliseconds, for a hostile schema up to about a second.
    """
    document: Mapping[str, Any] = {} if schema is True else schema  # type: ignore[assignment]
    try:
        references = References(document)
        _check_form(document, references.draft)
        return written(Graph(Part(document, "#"), Expander(references, Budget(), negation, exclusive, unevaluated)))
    except RecursionError:
        raise depth_error() from None


_DIALECTS = {
    4: "http://json-schema.org/draft-04/schema#", 6: "http://json-schema.org/draft-06/schema#",
    7: "http://json-schema.org/draft-07/schema#", 2019: "https://json-schema.org/draft/2019-09/schema",
    2020: "https://json-schema.org/draft/2020-12/schema",
}  # fmt: skip


def _check_form(document: Mapping[str, Any], draft: int) -> None:
    """Raise GrammarError for a keyword whose value has not the form that its specification gives it.

    That of the draft, or an older one, since many schemas name none.
    """
    failed: jsonschema_rs.ValidationError | None = None
    for number in dict.fromkeys((draft, 7, 4)):
        try:
            # Never the address that the schema gives: it would be fetched.
            jsonschema_rs.meta.validate({**document, "$schema": _DIALECTS[number]})
        except jsonschema_rs.ValidationError as error:
            failed = failed or error
        else:
            return
    assert failed is not None
    place = "/".join(("#", *map(str, failed.instance_path)))
    raise GrammarError(f"the JSON schema is not valid at {place[:200]}: {fault_of(failed)}") from failed
