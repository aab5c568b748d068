"""One table: the HTTP status, Workers AI code and message prefix of each exception.

The codes are those that Workers AI documents or was seen to send; an error whose code is not known has that of bad
input (5006). A test walks the exception tree and fails if a class is not in the table.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Literal
from uuid import uuid4

from msgspec import Meta, Struct
from starlette.requests import HTTPConnection
from starlette.responses import Response

from intaglio import errors as tree
from intaglio.api.http.envelope import JsonResponse, NoItems
from intaglio.version import __version__

logger = logging.getLogger(__name__)

REQUEST_ID_HEADER = "cf-ai-req-id"
VERSION_HEADER = "intaglio-version"
STAND_IN_HEADER = "intaglio-answered-by"  # only where a model stands in for one that has no weights


OpenAIErrorType = Literal["invalid_request_error", "server_error"]
AnthropicErrorType = Annotated[
    str,
    Meta(
        extra_json_schema={
            "enum": [
                "invalid_request_error", "authentication_error", "permission_error", "not_found_error",
                "request_too_large", "rate_limit_error", "api_error",
            ]
        }
    ),
]  # fmt: skip
Code = Annotated[int, Meta(description="What went wrong; the codes of Workers AI where it has one")]


class ErrorItem(Struct, frozen=True):
    """One item of the envelope's `errors`."""

    code: Code
    message: Annotated[str, Meta(min_length=1)]


class Failure(Struct, frozen=True):
    """The envelope of an error."""

    result: Annotated[dict[str, Any], Meta(max_length=0)]
    success: Literal[False]
    errors: Annotated[list[ErrorItem], Meta(min_length=1)]
    messages: NoItems


class OpenAIError(ErrorItem, frozen=True):
    """OpenAI's `error` object."""

    type: OpenAIErrorType


class OpenAIResponseError(OpenAIError, frozen=True):
    """The same in a response that is not a stream; `errors` repeats the envelope's."""

    errors: list[ErrorItem]


class OpenAIFailure(Failure, frozen=True):
    """The envelope of an error, and OpenAI's object beside its keys."""

    error: OpenAIResponseError


class OpenAIErrorEvent(Struct, frozen=True):
    """The event that ends a stream with an error."""

    error: OpenAIError


class AnthropicError(Struct, frozen=True):
    """Anthropic's `error` object."""

    type: AnthropicErrorType
    message: str


class AnthropicErrorEvent(Struct, frozen=True, tag_field="type", tag="error"):
    """The event that ends a stream of Anthropic's form with an error."""

    error: AnthropicError
    request_id: str


class AnthropicFailure(Failure, frozen=True):
    """The envelope of an error, and beside its keys what Anthropic's API sends."""

    type: Literal["error"]
    error: AnthropicError
    request_id: str


class BindingFailure(Struct, frozen=True):
    """The body from which a Worker's `env.AI` makes an Error."""

    internalCode: Code  # noqa: N815 (the binding's spelling)
    message: str
    name: Annotated[str, Meta(extra_json_schema={"const": "InferenceUpstreamError"})]
    description: str


@dataclass(frozen=True, slots=True)
class WireError:
    """prefix stands before the exception's text; headers are sent with the response."""

    status: int
    code: int
    prefix: str = "AiError: "
    headers: tuple[tuple[str, str], ...] = field(default=())


_BAD_INPUT = WireError(400, 5006, "AiError: Bad input: Error: ")
_INTERNAL = WireError(500, 3043)
_RETRY_SOON = (("retry-after", "1"),)
_RETRY_AFTER_RESTART = (("retry-after", "2"),)
_RETRY_LATER = (("retry-after", "60"),)

WIRE_ERRORS = MappingProxyType({
    tree.IntaglioError: _INTERNAL,
    tree.RequestError: _BAD_INPUT,
    tree.BadInputError: _BAD_INPUT,
    tree.GrammarError: WireError(400, 5025),
    tree.IncompleteJsonError: WireError(403, 5024, "AiError: JSON Model couldn't be met: "),
    tree.ChatError: _BAD_INPUT,
    tree.ContextLengthError: WireError(413, 3010),
    tree.EmptyBodyError: WireError(400, 3003),
    tree.RequestTooLargeError: WireError(413, 3006),
    tree.ModelNotFoundError: WireError(400, 5007),
    tree.ModelWithoutWeightsError: WireError(400, 5007),
    tree.AdapterUseError: _BAD_INPUT,
    tree.FinetuneNotFoundError: WireError(404, 3037, "AiError: AiError: "),
    tree.FinetuneNotReadyError: WireError(400, 3039),
    tree.FinetuneError: WireError(400, 5006, ""),
    tree.BatchNotFoundError: WireError(404, 5006),
    tree.ResponseNotFoundError: WireError(404, 5006),
    tree.AuthenticationError: WireError(401, 10000, ""),
    tree.RouteError: WireError(404, 7000, ""),
    tree.IdentifierError: WireError(404, 7003, ""),
    tree.MethodNotAllowedError: WireError(405, 7001, ""),
    tree.AdapterError: WireError(400, 5006, "AiError: Bad input: "),
    tree.ModelFormatError: _INTERNAL,
    tree.ModelNotInstalledError: _INTERNAL,
    tree.HubError: _INTERNAL,
    tree.HubNotInstalledError: _INTERNAL,
    tree.HubUnreachableError: _INTERNAL,
    tree.DataFolderError: _INTERNAL,
    tree.DatabaseError: WireError(503, 3043, headers=_RETRY_AFTER_RESTART),
    tree.StorageFullError: WireError(507, 3043),
    tree.SettingsError: _INTERNAL,
    tree.NotEnoughMemoryError: _INTERNAL,
    tree.RemoteError: _INTERNAL,
    tree.ServerUnreachableError: _INTERNAL,
    tree.ServerRefusedError: _INTERNAL,
    tree.TrainingError: _INTERNAL,
    tree.TrainingDataError: _INTERNAL,
    tree.TrainingInterruptedError: _INTERNAL,
    tree.EvaluationError: _INTERNAL,
    tree.PackingError: _INTERNAL,
    tree.CapacityError: WireError(429, 3040, headers=_RETRY_SOON),
    tree.BatchQueueFullError: WireError(429, 3040, headers=_RETRY_LATER),
    tree.EngineError: _INTERNAL,
    tree.EngineDeadError: WireError(500, 3043, headers=_RETRY_AFTER_RESTART),
    tree.EngineStepError: _INTERNAL,
})  # fmt: skip


# Anthropic's types of error, by status; it has no other for a fault of the caller, and `api_error` from 500 on.
_ANTHROPIC_TYPES = MappingProxyType({
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
})  # fmt: skip

# Errors for which the service's binding has another code than its REST route.
BINDING_CODES: Mapping[type[tree.IntaglioError], int] = MappingProxyType({tree.ContextLengthError: 5021})
_BINDING_NAME = "InferenceUpstreamError"


def wire_error(error: tree.IntaglioError) -> WireError:
    """The table's row for the exception, or for its nearest ancestor that has one."""
    return wire_row(type(error))


def wire_row(kind: type[tree.IntaglioError]) -> WireError:
    """The table's row for the class, or for its nearest ancestor that has one."""
    return next(WIRE_ERRORS[above] for above in kind.__mro__ if above in WIRE_ERRORS)


def error_item(error: tree.IntaglioError, request_id: str) -> ErrorItem:
    """The exception as one item of the envelope's `errors`."""
    row = wire_error(error)
    text = str(error)
    if isinstance(error, tree.ContextLengthError):  # the service's own sentence: clients look for it
        total = error.prompt_tokens + error.max_tokens
        text = (
            f"The estimated number of input and maximum output tokens ({total}) exceeded this model context window "
            f"limit ({error.window}): {text}"
        )
    elif isinstance(error, tree.FinetuneNotFoundError):
        text = f"{text} ({request_id})"  # the service's own sentence
        if error.similar:
            text = f"{text}. Did you mean {' or '.join(error.similar)}?"
        elif error.is_empty:
            text = f"{text}. The name is empty; name a finetune, or leave 'lora' out for the base model"
    return ErrorItem(row.code, row.prefix + text)


def openai_error(error: tree.IntaglioError, request_id: str) -> OpenAIError:
    """The exception as OpenAI's `error` object, from which its SDKs take the message."""
    item = error_item(error, request_id)
    kind: OpenAIErrorType = "server_error" if wire_error(error).status >= 500 else "invalid_request_error"
    return OpenAIError(item.code, item.message, kind)


def anthropic_error_event(error: tree.IntaglioError, request_id: str) -> AnthropicErrorEvent:
    """The exception as the last event of a stream in Anthropic's form."""
    return AnthropicErrorEvent(_anthropic_error(error, request_id), request_id)


def _anthropic_error(error: tree.IntaglioError, request_id: str) -> AnthropicError:
    status = wire_error(error).status
    kind = "api_error" if status >= 500 else _ANTHROPIC_TYPES.get(status, "invalid_request_error")
    return AnthropicError(kind, error_item(error, request_id).message)


def error_response(request: HTTPConnection, error: tree.IntaglioError) -> Response:
    """The exception in the envelope. The headers have the request id if the request has one."""
    _log_server_error(request, error)
    item = error_item(error, _request_id(request) or str(uuid4()))
    return _response(request, error, Failure({}, False, [item], []))


def openai_error_response(request: HTTPConnection, error: tree.IntaglioError) -> Response:
    """The exception for the OpenAI-compatible routes: the envelope, and beside its keys OpenAI's `error`.

    OpenAI's SDKs pass on only that object, and show no message without it. So it repeats the envelope's `errors`.
    """
    _log_server_error(request, error)
    request_id = _request_id(request) or str(uuid4())
    item, found = error_item(error, request_id), openai_error(error, request_id)
    repeated = OpenAIResponseError(found.code, found.message, found.type, [item])
    return _response(request, error, OpenAIFailure({}, False, [item], [], repeated))


def anthropic_error_response(request: HTTPConnection, error: tree.IntaglioError) -> Response:
    """The exception for Anthropic's routes: the envelope, and beside its keys what Anthropic's clients read."""
    _log_server_error(request, error)
    request_id = _request_id(request) or str(uuid4())
    item, found = error_item(error, request_id), _anthropic_error(error, request_id)
    return _response(request, error, AnthropicFailure({}, False, [item], [], "error", found, request_id))


def binding_error_response(request: HTTPConnection, error: tree.IntaglioError) -> Response:
    """The exception for a Worker's `env.AI`, which throws an Error `<internalCode>: <description>`."""
    _log_server_error(request, error)
    item = error_item(error, _request_id(request) or str(uuid4()))
    description = item.message
    for prefix in ("AiError: ", "AiError: ", "Bad input: "):
        description = description.removeprefix(prefix)
    code = BINDING_CODES.get(type(error), item.code)
    return _response(request, error, BindingFailure(code, description, _BINDING_NAME, description))


def _response(request: HTTPConnection, error: tree.IntaglioError, content: Struct) -> Response:
    return JsonResponse(content, wire_error(error).status, headers=_error_headers(request, error))


def _request_id(request: HTTPConnection) -> str | None:
    return getattr(request.state, "request_id", None)


def _error_headers(request: HTTPConnection, error: tree.IntaglioError) -> dict[str, str]:
    headers = dict(wire_error(error).headers)
    if isinstance(error, tree.MethodNotAllowedError):
        headers["allow"] = ", ".join(error.allowed)
    request_id = _request_id(request)
    if request_id is not None:
        headers |= {REQUEST_ID_HEADER: request_id, VERSION_HEADER: __version__}
    answered_by = getattr(request.state, "answered_by", None)
    if answered_by is not None:
        headers[STAND_IN_HEADER] = answered_by
    return headers


def _log_server_error(request: HTTPConnection, error: tree.IntaglioError) -> None:
    if wire_error(error).status >= 500:
        method = request.scope.get("method", "-")
        logger.error("%s %s: %s: %s", method, request.url.path, type(error).__name__, error)
