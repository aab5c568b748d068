"""The routes of a Worker's `env.AI` binding: /run, /ai-gateway/run and /ai-api/models/search at the server's root.

The binding differs from the REST routes in four ways. The model is in a header. The body is `{inputs, options}`.
A response is the bare result, and its content type has to be exactly application/json, or the binding gives its caller
the bytes as a stream. An error is `{internalCode, message, name, description}`, which the binding throws as an Error
with the text `<internalCode>: <description>`.

These paths have no account: it is the one in the header `intaglio-account`, else `local`.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any
from uuid import uuid4

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from intaglio.api.binding.forward import ACCOUNT_HEADER, MODELS_PATH, RUN_PATHS
from intaglio.api.http.auth import LOCAL_ACCOUNT, check_account
from intaglio.api.http.envelope import JsonResponse
from intaglio.api.http.json_body import read_json
from intaglio.api.inference.lora_field import lora_fields
from intaglio.api.inference.model_routes import models_page
from intaglio.api.inference.routes import run_response
from intaglio.api.inference.schema import RunSchema, member
from intaglio.api.model_names import check_base
from intaglio.api.state import ServerState
from intaglio.errors import BadInputError
from intaglio.wording import wrong_type

MODEL_HEADER = "cf-consn-model-id"
VERSIONS = ("2", "3")


def binding_routes(state: ServerState, schema: RunSchema) -> APIRouter:
    """The routes of the binding. An AI gateway's name in the options is ignored."""
    router = APIRouter()

    async def run_model(request: Request) -> Response:
        request.state.request_id = str(uuid4())
        _check_form(request.query_params)
        account = _account(request)
        model = named_model(request.headers.get(MODEL_HEADER, ""), state.models)
        request.state.answered_by = state.stand_ins.get(model)
        await check_base(state, account, model)  # an unknown model is refused before its input is checked
        body = _as_rest_body(await read_json(request, state.settings.max_body_bytes), schema)
        return await run_response(state, schema, request, account, model, body, {}, JsonResponse)

    for path, operation in RUN_PATHS.items():
        router.add_api_route(path, run_model, methods=["POST"], operation_id=operation)

    @router.get(MODELS_PATH, operation_id="search_models_for_binding")
    async def search_models(request: Request) -> Response:
        return models_page(state, request.query_params)

    return router


def named_model(header: str, served: Container[str]) -> str:
    """The model of `[prefix:]model`. The prefix, which chooses among Cloudflare's own backends, is ignored.

    A model's id may have a colon itself, so a header that is the id of a served model is used as it is.
    """
    if not header:
        raise BadInputError(f"the header {MODEL_HEADER} is missing: it names the model")
    prefix, _, rest = header.partition(":")
    return rest if rest and header not in served and not prefix.startswith("@") else header


def _account(request: Request) -> str:
    account = request.headers.get(ACCOUNT_HEADER, LOCAL_ACCOUNT)
    check_account(account)
    return account


def _check_form(query: Mapping[str, str]) -> None:
    version = query.get("version", VERSIONS[-1])
    if version not in VERSIONS:
        raise BadInputError(
            f"version is {version[:20]!r}; of the binding's protocol {' and '.join(VERSIONS)} are served"
        )
    if "userInputs" in query:  # the binding then sends the stream itself as the body
        raise BadInputError("a ReadableStream or FormData in the inputs is not supported: text generation needs JSON")


def _as_rest_body(call: object, schema: RunSchema) -> dict[str, Any]:
    """`{inputs, options}` as one body of the REST route.

    `options` may have `lora`, `queueRequest`, `rejectIfBusy` and, from the AI SDK's provider, any setting. A field of
    the inputs has precedence.
    """
    if not isinstance(call, dict):
        raise BadInputError(wrong_type("", call, ["object"]))
    inputs, options = member("", call, "inputs", dict), call.get("options")
    if options is None:
        options = {}
    if not isinstance(options, dict):
        raise BadInputError(wrong_type("options", options, ["object"]))
    if options.get("websocket"):
        raise BadInputError("options.websocket is not supported: set stream in the inputs")
    settings = {name: options[name] for name in schema.settings if name in options and name != "lora"}
    return {**settings, **inputs, "options": _merge_options(options, inputs.get("options"))}


def _merge_options(options: dict[str, Any], inner: object) -> dict[str, Any]:
    """The options beside the inputs and those within, where REST callers write them. Raises BadInputError if the
    adapters differ."""
    if not isinstance(inner, dict):
        return options
    lora_fields(inner, {"lora": options["lora"]} if "lora" in options else {})
    return {**inner, **options}
