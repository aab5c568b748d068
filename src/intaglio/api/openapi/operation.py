"""One operation of the document: what may be sent, and what comes back with each status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

from intaglio.api.openapi.failures import Failures, failure_responses
from intaglio.errors import IntaglioError

Schema: TypeAlias = Mapping[str, Any]

JSON = "application/json"
EVENTS = "text/event-stream"
_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class DeclaredResponse:
    """The response of one status that is a success.

    content  media type -> schema of the body; empty where there is no body
    headers  name -> what it says; they are always there
    """

    description: str
    content: Mapping[str, Schema] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        response: dict[str, Any] = {"description": self.description}
        if self.headers:
            response["headers"] = {name: text_header(says) for name, says in self.headers.items()}
        if self.content:
            response["content"] = {kind: {"schema": schema} for kind, schema in self.content.items()}
        return response


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    body       media type -> schema; None where no body is read
    responses  status -> response of a success
    errors     what may be raised; their statuses and codes are those of the table in `api/http/errors.py`
    failures   the form of this route's errors
    is_open    no token is needed
    """

    tag: str
    summary: str
    description: str
    responses: Mapping[int, DeclaredResponse]
    parameters: Sequence[Schema] = ()
    body: Mapping[str, Schema] | None = None
    errors: Sequence[type[IntaglioError]] = ()
    failures: Failures = Failures.ENVELOPE
    is_open: bool = False

    def as_json(self, name: str) -> dict[str, Any]:
        """The operation in the document's words. name: its operationId."""
        operation: dict[str, Any] = {
            "tags": [self.tag],
            "summary": self.summary,
            "description": self.description,
            "operationId": name,
        }
        if self.parameters:
            operation["parameters"] = list(self.parameters)
        if self.body is not None:
            content = {kind: {"schema": schema} for kind, schema in self.body.items()}
            operation["requestBody"] = {"required": True, "content": content}
        successes = {str(status): response.as_json() for status, response in self.responses.items()}
        operation["responses"] = successes | failure_responses(self.errors, self.failures)
        if self.is_open:
            operation["security"] = []
        return operation


def text_header(says: str) -> dict[str, Any]:
    return {"description": says, "required": True, "schema": {"type": "string"}}
