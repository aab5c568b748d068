"""Puts the document together: the paths that the application has, each with what is declared for its operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from intaglio.api.aliases import ALIASES
from intaglio.api.inference.schema import RunSchema
from intaglio.api.openapi import account, finetunes, messages, models, openai, responses, run
from intaglio.api.openapi.failures import FAILURE_SCHEMAS
from intaglio.api.openapi.operation import Operation
from intaglio.api.openapi.shapes import ACCOUNT, GATEWAY
from intaglio.version import __version__

_ABOUT = """One Gemma, any number of LoRA adapters, behind the REST API of Cloudflare Workers AI.

- Bodies are read as JSON whatever their content type says. Keys that are not declared are ignored.
- Paths may have a trailing slash. There are no redirects. What answers GET answers HEAD as well.
- Every answer of the API has the envelope `{result, success, errors, messages}`, but for streams, files, successes of
  the OpenAI-compatible routes, and what a Worker's binding asks.
"""
_SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "One of the server's `api_tokens`."},
    "key": {"type": "apiKey", "in": "header", "name": "X-Auth-Key"},
    "service_key": {"type": "apiKey", "in": "header", "name": "X-Auth-User-Service-Key"},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_METHODS_WITHOUT_WORDS = ("head",)  # as GET, without the body


def openapi_document(
    routes: Sequence[BaseRoute], schema: RunSchema, *, model: str, needs_token: bool
) -> dict[str, Any]:
    """The document of an application. FastAPI finds the paths; what it guesses about them is left out.

    model  the one that examples name
    Raises KeyError for a route whose operation is declared nowhere.
    """
    found = _guessed(routes)
    declared = declared_operations(schema, model)
    paths = {
        path: {
            method: declared[guessed["operationId"]].as_json(guessed["operationId"])
            for method, guessed in methods.items()
            if method not in _METHODS_WITHOUT_WORDS
        }
        for path, methods in found["paths"].items()
    }
    paths |= alias_paths(paths)
    any_of_them: list[dict[str, list[str]]] = [{name: []} for name in _SECURITY_SCHEMES]
    return {
        "openapi": found["openapi"],
        "info": {"title": "Intaglio", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "security": any_of_them if needs_token else [{}, *any_of_them],
        "paths": paths,
        "components": {"schemas": _schemas(schema, model), "securitySchemes": _SECURITY_SCHEMES},
    }


def route_paths(routes: Sequence[BaseRoute]) -> list[str]:
    """The paths that the document has, without aliases, sorted."""
    return sorted(_guessed(routes)["paths"])


def _guessed(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """What FastAPI finds out about the routes."""
    return get_openapi(title="Intaglio", version=__version__, routes=list(routes))


def alias_paths(paths: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The paths that are other addresses of these, each with the same operations under names of its own."""
    return {
        alias_path: {method: _at_alias(operation, alias.name, alias_path) for method, operation in operations.items()}
        for alias in ALIASES
        for path, operations in paths.items()
        if (alias_path := alias.documented(path)) is not None
    }


def _at_alias(operation: Mapping[str, Any], name: str, path: str) -> dict[str, Any]:
    """The operation with the parameters that this path has."""
    declared = operation.get("parameters", [])
    # The health is the same below every account, whatever its id looks like.
    account = ACCOUNT if ACCOUNT in declared else {**ACCOUNT, "schema": {"type": "string", "minLength": 1}}
    in_path = [one for one in (account, GATEWAY) if f"{{{one['name']}}}" in path]
    others = [one for one in declared if one != ACCOUNT]
    return {**operation, "operationId": f"{operation['operationId']}_{name}", "parameters": [*in_path, *others]}


def declared_operations(schema: RunSchema, model: str) -> dict[str, Operation]:
    """Every operation by its name."""
    return {
        **run.run_operations(schema, model),
        **openai.openai_operations(model),
        **messages.message_operations(),
        **responses.response_operations(),
        **finetunes.OPERATIONS,
        **models.model_operations(model),
        **account.OPERATIONS,
    }


def _schemas(schema: RunSchema, model: str) -> dict[str, Any]:
    parts = (
        run.run_schemas(schema), openai.openai_schemas(model), messages.message_schemas(model),
        responses.response_schemas(model), finetunes.finetune_schemas(model), models.SCHEMAS, account.SCHEMAS,
        FAILURE_SCHEMAS,
    )  # fmt: skip
    found: dict[str, Any] = {}
    for name, one in (item for part in parts for item in part.items()):
        assert found.setdefault(name, one) == one, f"two shapes are called {name}"
    return found
