"""Puts the document together: the paths that the application has, each with what is declared for its operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from intaglio.api.inference.schema import RunSchema
from intaglio.api.openapi import account, finetunes, models, openai, run
from intaglio.api.openapi.failures import FAILURE_SCHEMAS
from intaglio.api.openapi.operation import Operation
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
}
_METHODS_WITHOUT_WORDS = ("head",)  # as GET, without the body


def openapi_document(
    routes: Sequence[BaseRoute], schema: RunSchema, *, model: str, needs_token: bool
) -> dict[str, Any]:
    """The document of an application. FastAPI finds the paths; what it guesses about them is left out.

    model  the one that examples name
    Raises KeyError for a route whose operation is declared nowhere.
    """
    found = get_openapi(title="Intaglio", version=__version__, routes=list(routes))
    declared = declared_operations(schema, model)
    paths = {
        path: {
            method: declared[guessed["operationId"]].as_json(guessed["operationId"])
            for method, guessed in methods.items()
            if method not in _METHODS_WITHOUT_WORDS
        }
        for path, methods in found["paths"].items()
    }
    any_of_them: list[dict[str, list[str]]] = [{name: []} for name in _SECURITY_SCHEMES]
    return {
        "openapi": found["openapi"],
        "info": {"title": "Intaglio", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "security": any_of_them if needs_token else [{}, *any_of_them],
        "paths": paths,
        "components": {"schemas": _schemas(schema, model), "securitySchemes": _SECURITY_SCHEMES},
    }


def declared_operations(schema: RunSchema, model: str) -> dict[str, Operation]:
    """Every operation by its name."""
    return {
        **run.run_operations(schema, model),
        **openai.openai_operations(model),
        **finetunes.OPERATIONS,
        **models.model_operations(model),
        **account.OPERATIONS,
    }


def _schemas(schema: RunSchema, model: str) -> dict[str, Any]:
    return {
        **run.run_schemas(schema),
        **openai.openai_schemas(model),
        **finetunes.finetune_schemas(model),
        **models.SCHEMAS,
        **account.SCHEMAS,
        **FAILURE_SCHEMAS,
    }
