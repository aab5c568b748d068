"""Checks responses against the OpenAPI document: status, content type, headers, and every field of the body.

The document leaves objects open, so that a later version can add a field. Here they are closed: a response field that
is not declared is an error in the document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jsonschema_rs
import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PROXY_PATH = "/ai/run/proxy"  # forwards to another path, so it has no operation
UNDECLARED_STATUSES = {405, 499}  # wrong method, on every path; the client has disconnected


@dataclass(frozen=True, slots=True)
class ReceivedResponse:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Declared:
    """Checks responses against a document. Raises AssertionError naming the operation and the difference."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._schemas = {"components": _closed(document["components"])}
        self._paths = [(_pattern(path), path, operations) for path, operations in document["paths"].items()]
        self._validators = lru_cache(maxsize=None)(self._validator)

    def check(self, method: str, path: str, answer: ReceivedResponse) -> bool:
        """Check a response. Returns whether it belongs to a declared operation."""
        found = next((found for pattern, *found in self._paths if pattern.fullmatch(path)), None)
        method = "get" if method == "HEAD" else method.lower()
        if found is None or method not in found[1] or answer.status in UNDECLARED_STATUSES:
            return False
        template, operations = found
        declared = operations[method]["responses"]
        where = f"{method.upper()} {template} -> {answer.status}"
        assert str(answer.status) in declared, f"{where}: only {sorted(declared)} are declared; {answer.body[:500]!r}"
        self._check_headers(where, declared[str(answer.status)].get("headers", {}), answer)
        self._check_body(where, declared[str(answer.status)].get("content", {}), answer)
        return True

    def _check_headers(self, where: str, declared: Mapping[str, Any], answer: ReceivedResponse) -> None:
        missing = [name for name, header in declared.items() if header["required"] and name not in answer.headers]
        assert missing == [], f"{where}: without the headers {missing}"

    def _check_body(self, where: str, declared: Mapping[str, Any], answer: ReceivedResponse) -> None:
        if not answer.body:
            return
        kind = answer.headers["content-type"].split(";")[0]
        assert kind in declared, f"{where}: {kind} is not among {sorted(declared)}"
        if kind == "application/json":
            self._check_json(where, declared[kind]["schema"], answer.body)
        elif kind == "text/event-stream":
            data = declared[kind]["schema"]["properties"]["data"]
            *ends, content = data.get("anyOf", [data])
            are_named = "event" in declared[kind]["schema"]["properties"]
            for number, text in enumerate(_events(answer.body, are_named=are_named)):
                if text not in [end["const"] for end in ends]:
                    self._check_json(f"{where}, event {number}", content["contentSchema"], text.encode())

    def _check_json(self, where: str, schema: Any, text: bytes) -> None:
        validator = self._validators(msgspec.json.encode(schema))
        faults = [str(error) for error in validator.iter_errors(msgspec.json.decode(text))]
        assert faults == [], f"{where}: {faults[0][:2000]}"

    def _validator(self, schema: bytes) -> jsonschema_rs.Draft202012Validator:
        return jsonschema_rs.Draft202012Validator(_closed(msgspec.json.decode(schema)) | self._schemas)


class DeclaredResponses:
    """Middleware for tests that checks every response against the document before it is sent."""

    def __init__(self, app: ASGIApp, declared: Declared) -> None:
        self._app = app
        self._declared = declared

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].endswith(PROXY_PATH):
            await self._app(scope, receive, send)
            return
        path = scope["path"]  # before anything inside changes it
        start: Message = {}
        body = b""

        async def checked_send(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
            body += message.get("body", b"")
            if message["type"] == "http.response.body" and not message.get("more_body"):
                headers = {name.decode(): value.decode() for name, value in start["headers"]}
                answer = ReceivedResponse(start["status"], headers, body)
                self._declared.check(scope["method"], path.removesuffix("/"), answer)
            await send(message)

        await self._app(scope, receive, checked_send)


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"(\{\w+\})", path)
    kinds = {"{model}": ".*"}
    return re.compile("".join(kinds.get(part, "[^/]+") if part.startswith("{") else re.escape(part) for part in parts))


def _events(body: bytes, *, are_named: bool) -> list[str]:
    """The data of each whole event. are_named: the name of an event is the `type` of its data."""
    *events, rest = body.decode().split("\n\n")
    assert rest == "", f"the stream ends within an event: {rest!r}"
    if are_named:
        named = [event.partition("\n") for event in events]
        assert all(name == f"event: {json.loads(data[6:])['type']}" for name, _, data in named), events
        events = [data for _, _, data in named]
    assert all(event.startswith("data: ") and "\n" not in event for event in events), events
    return [event.removeprefix("data: ") for event in events]


def _closed(schema: Any) -> Any:
    """The schema with additionalProperties false on every object that names its fields, except parts of an allOf."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: value if name in ("allOf", "enum", "const") else _closed(value) for name, value in schema.items()}
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict):
        closed.setdefault("additionalProperties", False)
    return closed
