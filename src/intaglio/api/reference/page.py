"""The page of an OpenAPI document: operations by tag, then the schemas that they name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from intaglio.api.aliases import ALIASES
from intaglio.api.reference.curl import curl_command
from intaglio.api.reference.fields import FieldRow, details_of, forms_of, kind_of, rows_of, schema_anchor
from intaglio.api.reference.html import code, in_words, prose, table

# What a page may load: its own server's files, no script, no frame.
POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'"
_EVENT_FIELDS = ({"data"}, {"event", "data"})  # of the schema of a stream, which is that of one event
SERVER = "http://localhost:8080"


@dataclass(frozen=True, slots=True)
class Entry:
    """One operation of the document, and the other paths that do the same."""

    path: str
    method: str
    operation: Mapping[str, Any]
    other_paths: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return str(self.operation["operationId"])


def entries_by_tag(document: Mapping[str, Any]) -> dict[str, list[Entry]]:
    """Every operation once: an alias is named where the route stands."""
    found = {
        operation["operationId"]: Entry(path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    aliases: defaultdict[str, list[str]] = defaultdict(list)
    routes: list[Entry] = []
    for entry in found.values():
        route = _route_of(entry, found)
        if route is None:
            routes.append(entry)
        else:
            aliases[route].append(entry.path)
    by_tag: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in routes:
        whole = Entry(entry.path, entry.method, entry.operation, tuple(aliases[entry.name]))
        by_tag[entry.operation["tags"][0]].append(whole)
    return dict(by_tag)


def _route_of(entry: Entry, entries: Mapping[str, Entry]) -> str | None:
    """The name of the operation that an alias's operation stands for; None for a route's own."""
    for alias in ALIASES:
        route = entries.get(entry.name.removesuffix(f"_{alias.name}"))
        if route is not None and alias.documented(route.path) == entry.path:
            return route.name
    return None


def operation_html(document: Mapping[str, Any], entry: Entry, server: str = SERVER) -> str:
    """What is said of an operation below its heading, in one line."""
    operation = entry.operation
    parts = [f'<p class="route"><b>{entry.method.upper()}</b> {code(entry.path)}</p>', prose(operation["description"])]
    if entry.other_paths:
        parts.append(f"<p>The same at {', '.join(map(code, entry.other_paths))}.</p>")
    if operation.get("parameters"):
        rows = [
            [code(one["name"]), one["in"], kind_of(one["schema"]), _parameter_says(one)]
            for one in operation["parameters"]
        ]
        parts += ["<h4>Parameters</h4>", table(("name", "in", "type", ""), rows)]
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        parts += [f"<h4>Body, {code(media_type)}</h4>", _body(content["schema"])]
    parts += ["<h4>Responses</h4>", table(("status", "", "body"), _responses(operation))]
    parts += [f"<pre>{escape(curl_command(document, entry.path, entry.method, operation, server))}</pre>"]
    return f'<div class="operation">{"".join(parts)}</div>'.replace("\n", "&#10;")


def _parameter_says(parameter: Mapping[str, Any]) -> str:
    said = in_words(parameter["description"].rstrip(".")) if "description" in parameter else ""
    return "; ".join(filter(None, ("required" if parameter["required"] else "", said, details_of(parameter["schema"]))))


def _responses(operation: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for status, response in operation["responses"].items():
        bodies = [
            _response_kind(content["schema"]) + ("" if kind == "application/json" else f" ({code(kind)})")
            for kind, content in response.get("content", {}).items()
        ]
        shown = bodies if status.startswith("2") else []  # every error has the form of its group
        rows.append([status, prose(response["description"]), "<br>".join(shown)])
    return rows


def _response_kind(schema: Mapping[str, Any]) -> str:
    """Of an envelope what its `result` is; of a stream what an event is."""
    fields = schema.get("properties", {})
    if "success" in fields:
        return f"{code('result')}: {kind_of(fields['result'])}"
    return f"events: {kind_of(fields['data'])}" if set(schema.get("required", ())) in _EVENT_FIELDS else kind_of(schema)


def _body(schema: Mapping[str, Any]) -> str:
    return schema_html(schema) if "properties" in schema else f"<p>{kind_of(schema)}</p>"


def schema_html(schema: Mapping[str, Any]) -> str:
    """The fields of a schema, one table for each of its forms; in one line."""
    parts = [prose(schema["description"])] if "description" in schema else []
    for title, form in forms_of(schema):
        rows = rows_of(form)
        parts += [f"<h4>{escape(title)}</h4>"] if title else []
        if rows:
            parts.append(table(("field", "type", ""), map(_cells, rows)))
        else:
            parts.append(f"<p>{kind_of(form)}</p>")
    return "".join(parts).replace("\n", "&#10;")


def _cells(row: FieldRow) -> list[str]:
    required = "required" if row.required else ""
    return [code(row.path), row.kind, "; ".join(filter(None, (required, row.says)))]


def reference_page(document: Mapping[str, Any], *, server: str, root: str = "") -> str:
    """The whole page. server: the address in its commands; root: what leads from the page to the server's root."""
    tags = entries_by_tag(document)
    contents = "".join(
        f"<li>{escape(tag)}<ul>"
        + "".join(f'<li><a href="#{one.name}">{escape(one.operation["summary"])}</a></li>' for one in entries)
        + "</ul></li>"
        for tag, entries in tags.items()
    )
    operations = "".join(
        f"<h2>{escape(tag)}</h2>"
        + "".join(
            f'<section class="card" id="{one.name}"><h3>{escape(one.operation["summary"])}</h3>'
            f"{operation_html(document, one, server)}</section>"
            for one in entries
        )
        for tag, entries in tags.items()
    )
    schemas = "".join(
        f'<section class="card" id="{schema_anchor(name)}"><h3>{escape(name)}</h3>{schema_html(schema)}</section>'
        for name, schema in document["components"]["schemas"].items()
    )
    info = document["info"]
    return f"""<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>Intaglio API</title>
  <link rel="icon" href="{root}gem.svg" type="image/svg+xml">
  <link rel="stylesheet" href="{root}style.css">
  <link rel="stylesheet" href="{root}reference.css">
</head>
<body>
  <header>
    <img src="{root}gem.svg" alt="" width="34" height="34">
    <h1>Intaglio API</h1>
    <p>Version {escape(info["version"])}. Every route of this server, from its OpenAPI document.</p>
    <nav aria-label="Pages">
      <a href="{root}./">Playground</a>
      <a href="{root}openapi.json">openapi.json</a>
    </nav>
  </header>
  <div class="reference">
    <nav aria-label="Contents"><ul>{contents}<li><a href="#schemas">Schemas</a></li></ul></nav>
    <main>
      {prose(info["description"])}
      {operations}
      <h2 id="schemas">Schemas</h2>
      {schemas}
    </main>
  </div>
</body>
</html>
"""
