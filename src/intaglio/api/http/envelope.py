"""The envelope around every native response: result, success, errors, messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.responses import Response


class JsonResponse(Response):
    """A JSON body, encoded by msgspec."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


def success(
    result: Any,
    *,
    headers: Mapping[str, str] | None = None,
    result_info: Mapping[str, int] | None = None,
) -> JsonResponse:
    """200 with `result` in the envelope; lists may say which page they are in result_info."""
    content = {"result": result, "success": True, "errors": [], "messages": []}
    if result_info is not None:
        content["result_info"] = result_info
    return JsonResponse(content, headers=headers)


def failure(
    status: int,
    errors: Sequence[Any],
    *,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> JsonResponse:
    """An error response; each of `errors` has a code and a message. `extra` stands beside the envelope's own keys."""
    content = {"result": {}, "success": False, "errors": list(errors), "messages": [], **(extra or {})}
    return JsonResponse(content, status_code=status, headers=headers)
