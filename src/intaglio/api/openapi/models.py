"""The operations that list: models, their schemas, tasks and authors."""

from __future__ import annotations

from typing import Any

from intaglio.api.http.envelope import envelope_schema
from intaglio.api.http.wire import component_schemas
from intaglio.api.inference.model_cards import Author, Model, ModelSchemas
from intaglio.api.inference.model_routes import MAX_PER_PAGE
from intaglio.api.openapi.error_groups import EVERYWHERE, IN_AN_ACCOUNT, OF_A_MODEL
from intaglio.api.openapi.failures import Failures
from intaglio.api.openapi.operation import JSON, DeclaredResponse, Operation
from intaglio.api.openapi.shapes import ACCOUNT, QUERY_FLAG, TEXT, listed, parameter, ref
from intaglio.errors import BadInputError

TAG = "Models"

SCHEMAS: dict[str, Any] = component_schemas((Model, ModelSchemas, Author))

_SEARCH = (
    parameter("search", "query", TEXT, "A part of the name or the description."),
    parameter("task", "query", TEXT, "The name of a task."),
    parameter("author", "query", TEXT),
    parameter("source", "query", TEXT, "1 for @cf, 2 for @hf, 3 for this server's own."),
    parameter("hide_experimental", "query", QUERY_FLAG, "Leave out models that are marked as beta."),
    parameter("page", "query", {"type": "integer", "minimum": 1, "maximum": 2**31 - 1, "default": 1}),
    parameter("per_page", "query", {"type": "integer", "minimum": 1, "maximum": MAX_PER_PAGE, "default": 100}),
)
_PAGE = envelope_schema(listed(ref("Model")), is_page=True)
_FOUND = {200: DeclaredResponse("One page; past the end it is empty.", {JSON: _PAGE})}


def model_operations(model: str) -> dict[str, Operation]:
    """model: one for the examples."""
    model_query = parameter("model", "query", {**TEXT, "minLength": 1}, "The model's id.", required=True, example=model)
    return {
        "search_models": Operation(
            TAG, "Search models", "The models of this server, and those that it knows but has no weights for.", _FOUND,
            parameters=(ACCOUNT, *_SEARCH), errors=(*IN_AN_ACCOUNT, BadInputError),
        ),
        "search_models_for_binding": Operation(
            "Workers binding", "Search models from a Worker", "What `env.AI.models()` asks.", _FOUND,
            parameters=_SEARCH, errors=(*EVERYWHERE, BadInputError), failures=Failures.ENVELOPE,
        ),
        "read_model_schemas": Operation(
            TAG, "Schemas of a model", "The JSON schemas of a run's input and output: the very ones that check.",
            {200: DeclaredResponse("The schemas.", {JSON: envelope_schema(ref("ModelSchemas"))})},
            parameters=(ACCOUNT, model_query), errors=(*IN_AN_ACCOUNT, BadInputError, *OF_A_MODEL),
        ),
        "search_tasks": Operation(
            TAG, "List tasks", "There is one: Text Generation.",
            {200: DeclaredResponse("The tasks.", {JSON: envelope_schema(listed(ref("Task")))})},
            parameters=(ACCOUNT,), errors=IN_AN_ACCOUNT,
        ),
        "search_authors": Operation(
            TAG, "List authors", "Those who made the models.",
            {200: DeclaredResponse("The authors.", {JSON: envelope_schema(listed(ref("Author")))})},
            parameters=(ACCOUNT,), errors=IN_AN_ACCOUNT,
        ),
    }  # fmt: skip
