"""Reads JSON bodies of unknown origin: bounded, strict, whatever the content type says."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request

from intaglio.api.http.json_faults import json_fault, repeated_key
from intaglio.errors import BadInputError, EmptyBodyError, RequestTooLargeError
from intaglio.wording import shown

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


async def read_json(request: Request, max_bytes: int) -> Any:
    """The body as JSON. Reads no more than `max_bytes`.

    Strict: NaN and Infinity, invalid UTF-8, lone surrogates, a key twice in one object, trailing text and extreme
    nesting are refused. Raises RequestTooLargeError, EmptyBodyError or BadInputError.
    """
    body = await _read_bytes(request, max_bytes)
    if not body.strip():
        raise EmptyBodyError("the request has no body; a JSON object is needed")
    try:
        return parse_json(body)
    except BadInputError as error:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in _FORMS:  # what curl -d sends; JSON under this name is read all the same
            raise BadInputError(f"{error}; it was sent as {kind}, and a JSON object is needed") from error
        raise


def parse_json(body: bytes | str, name: str = "the body") -> Any:
    """JSON text as Python values. name: of the text, for messages. Raises BadInputError saying what is wrong with it.

    A key that an object has twice is refused: parsers, and what stands between caller and server, differ in which
    of the two values they take.
    """
    try:
        value = msgspec.json.decode(body)
        twice = repeated_key(body)
    except RecursionError as error:
        raise nested_too_deeply() from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadInputError(f"{name} {json_fault(body, error)}") from error
    if twice is not None:
        raise BadInputError(f"{name} has the key {shown(twice)} twice in one object; send it once")
    return value


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
