"""One table: what each exception of the tree is on the wire. Status, Workers AI code, and how its text begins.

The codes are those of the Workers AI documentation or of answers seen from it; where none is known for a fault, the
code for bad input (5006) is used. A test walks the exception tree and fails if a class is not in the table.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from types import MappingProxyType
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response

from intaglio import errors as tree
from intaglio.api.envelope import failure

logger = logging.getLogger(__name__)

REQUEST_ID_HEADER = "cf-ai-req-id"


@dataclass(frozen=True, slots=True)
class WireError:
    """prefix stands before the exception's text; headers go out with the answer."""

    status: int
    code: int
    prefix: str = "AiError: "
    headers: tuple[tuple[str, str], ...] = field(default=())


_BAD_INPUT = WireError(400, 5006, "AiError: Bad input: Error: ")
_INTERNAL = WireError(500, 3043)
_RETRY_SOON = (("retry-after", "1"),)
_RETRY_AFTER_RESTART = (("retry-after", "2"),)

WIRE_ERRORS = MappingProxyType({
    tree.IntaglioError: _INTERNAL,
    tree.RequestError: _BAD_INPUT,
    tree.BadInputError: _BAD_INPUT,
    tree.ChatError: _BAD_INPUT,
    tree.ContextLengthError: WireError(413, 3010),
    tree.EmptyBodyError: WireError(400, 3003),
    tree.RequestTooLargeError: WireError(413, 3006),
    tree.ModelNotFoundError: WireError(400, 5007),
    tree.ModelWithoutWeightsError: WireError(400, 5007),
    tree.FinetuneNotFoundError: WireError(404, 3037, "AiError: AiError: "),
    tree.FinetuneNotReadyError: WireError(400, 3039),
    tree.FinetuneError: WireError(400, 5006, ""),
    tree.AuthenticationError: WireError(401, 10000, ""),
    tree.RouteError: WireError(404, 7000, ""),
    tree.IdentifierError: WireError(404, 7003, ""),
    tree.MethodNotAllowedError: WireError(405, 7001, ""),
    tree.AdapterError: WireError(400, 5006, "AiError: Bad input: "),
    tree.ModelFormatError: _INTERNAL,
    tree.ModelNotInstalledError: _INTERNAL,
    tree.SettingsError: _INTERNAL,
    tree.NotEnoughMemoryError: _INTERNAL,
    tree.CapacityError: WireError(429, 3040, headers=_RETRY_SOON),
    tree.EngineError: _INTERNAL,
    tree.EngineDeadError: WireError(500, 3043, headers=_RETRY_AFTER_RESTART),
    tree.EngineStepError: _INTERNAL,
})  # fmt: skip


def wire_error(error: tree.IntaglioError) -> WireError:
    """The table's row for the exception, or for its nearest ancestor that has one."""
    return next(WIRE_ERRORS[kind] for kind in type(error).__mro__ if kind in WIRE_ERRORS)


def error_item(error: tree.IntaglioError, request_id: str) -> dict[str, object]:
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
        text = f"{text} ({request_id})"
    return {"code": row.code, "message": row.prefix + text}


def error_answer(request: Request, error: tree.IntaglioError) -> Response:
    """The exception as an HTTP answer. Names the request id if the request had reached the model layer."""
    row = wire_error(error)
    known_id: str | None = getattr(request.state, "request_id", None)
    if row.status >= 500:
        logger.error("%s %s: %s: %s", request.method, request.url.path, type(error).__name__, error)
    headers = dict(row.headers)
    if known_id is not None:
        headers[REQUEST_ID_HEADER] = known_id
    return failure(row.status, [error_item(error, known_id or str(uuid4()))], headers=headers)
