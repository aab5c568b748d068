"""Reads JSON bodies of unknown origin: bounded, strict, whatever the content type says."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request

from intaglio.errors import BadInputError, EmptyBodyError, RequestTooLargeError


async def read_json(request: Request, max_bytes: int) -> Any:
    """The body as JSON. Reads no more than `max_bytes`.

    Strict: NaN and Infinity, invalid UTF-8, lone surrogates, trailing text and extreme nesting are refused. Raises
    RequestTooLargeError, EmptyBodyError or BadInputError.
    """
    body = await _read_bytes(request, max_bytes)
    if not body.strip():
        raise EmptyBodyError("the request has no body; a JSON object is needed")
    return parse_json(body)


def parse_json(body: bytes | str) -> Any:
    """JSON text as Python values. Raises BadInputError saying what is wrong with it."""
    try:
        return msgspec.json.decode(body)
    except RecursionError as error:
        raise nested_too_deeply() from error
    except (msgspec.MsgspecError, ValueError) as error:
        _check_utf8(body)
        raise BadInputError(f"the body is not JSON: {error}") from error


def _check_utf8(body: bytes | str) -> None:
    """Raise BadInputError for bytes that are not UTF-8; the parser's own message differs between its versions."""
    try:
        if isinstance(body, bytes):
            body.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise BadInputError(f"the body is not UTF-8: byte {error.start} is 0x{byte:02x}") from error


async def _read_bytes(request: Request, max_bytes: int) -> bytes:
    check_declared_length(request, max_bytes)
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > max_bytes:
            raise too_large(max_bytes)
        body += chunk
    return bytes(body)


def check_declared_length(request: Request, max_bytes: int) -> None:
    """Raise RequestTooLargeError if the content-length exceeds the limit, before anything is read."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise too_large(max_bytes)


def nested_too_deeply() -> BadInputError:
    return BadInputError("the body is JSON that is nested too deeply")


def too_large(max_bytes: int) -> RequestTooLargeError:
    return RequestTooLargeError(f"the request is larger than the limit of {max_bytes} bytes")
