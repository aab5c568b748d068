"""The page of the HTTP API: the OpenAPI document of this version, as the server itself shows it at `/docs`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from intaglio.api.app import create_app
from intaglio.api.inference.schema import RunSchema
from intaglio.api.openapi.document import openapi_document
from intaglio.api.reference.fields import schema_anchor
from intaglio.api.reference.page import entries_by_tag, operation_html, schema_html
from intaglio.api.startup import open_stores
from intaglio.api.state import ServerState
from intaglio.settings import DEFAULT_MODEL_ID, Settings


def document_of_this_version() -> dict[str, Any]:
    """The document of a server with the bundled model and no tokens. Loads no model: the routes are enough."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder))
        stores = open_stores(settings, [])
        try:
            app = create_app(ServerState(settings, {}, *stores))
            schema = RunSchema(settings.run_max_tokens)
            return openapi_document(app.routes, schema, model=DEFAULT_MODEL_ID, needs_token=False)
        finally:
            for store in stores:
                store.close()


def api_reference() -> str:
    """The page as Markdown, with the operations as HTML."""
    document = document_of_this_version()
    lines = [
        "# HTTP API: every route and field",
        "",
        "Made from the OpenAPI document of this version, which a server shows at `/docs`,",
        "and has as JSON at `/openapi.json`.",
        "[The HTTP API](http_api.md) says how the routes are meant.",
        "",
    ]
    for tag, entries in entries_by_tag(document).items():
        lines += [f"## {tag}", ""]
        for entry in entries:
            heading = f"### {entry.operation['summary']} {{: #{entry.name} }}"
            lines += [heading, "", operation_html(document, entry), ""]
    lines += ["## Schemas", ""]
    for name, schema in document["components"]["schemas"].items():
        body = f'<div class="operation">{schema_html(schema)}</div>'
        lines += [f"### {name} {{: #{schema_anchor(name)} }}", "", body, ""]
    return "\n".join(lines)
