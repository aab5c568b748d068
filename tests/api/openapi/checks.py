"""Checks of responses that schemathesis runs beside its own. It loads this file by the name in schemathesis.toml."""

from __future__ import annotations

import math
from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, Response
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import CaseMetadata

MAX_TOKENS = 3  # a real model is not kept busy for minutes
_MODEL_TAGS = {"Run", "Workers binding"}
_RUNS = ("/completions", "/messages", "/responses")
_BEFORE_THE_MODEL = {401, 404, 405}


@schemathesis.hook
def before_call(context: Any, case: Case, kwargs: dict[str, Any]) -> None:
    """Short answers, and no body that wins over what is wrong in the query."""
    query_counts = case.meta is not None and ParameterLocation.QUERY in negated(case.meta)
    for place in _inputs(case.body):
        for name in case.query if query_counts else ():
            place.pop(name, None)
        if _is_much(place.get("max_tokens", 0 if "max_tokens" in case.query else math.inf)):
            place["max_tokens"] = MAX_TOKENS
        if _is_much(place.get("max_completion_tokens")):
            place["max_completion_tokens"] = MAX_TOKENS


@schemathesis.check
def failures_have_a_code_and_a_message(ctx: CheckContext, response: Response, case: Case) -> None:
    """In the form that this path's callers read."""
    if response.status_code < 400 or response.request.method == "HEAD" or response.status_code == 503:
        return
    body = response.json()
    if case.path in ("/run", "/ai-gateway/run"):
        found = [(body["internalCode"], body["description"])]
    else:
        assert (body["success"], body["messages"]) == (False, []), body
        found = [(item["code"], item["message"]) for item in body["errors"]]
    assert found, body
    assert all(isinstance(code, int) and code >= 1000 and text.strip() for code, text in found), body


@schemathesis.check
def who_is_to_come_back_is_told_when(ctx: CheckContext, response: Response, case: Case) -> None:
    if response.status_code == 429:
        assert int(response.headers["retry-after"][0]) >= 1


@schemathesis.check
def answers_of_a_model_have_an_id(ctx: CheckContext, response: Response, case: Case) -> None:
    runs = case.path in ("/run", "/ai-gateway/run") or "/ai/run" in case.path or case.path.endswith(_RUNS)
    if runs and case.method == "POST" and response.status_code not in _BEFORE_THE_MODEL:
        assert response.headers["cf-ai-req-id"][0], response.headers


def negated(meta: CaseMetadata) -> set[ParameterLocation]:
    """Where the case is meant to be wrong."""
    return {place for place, component in meta.components.items() if component.mode.is_negative}


def _inputs(body: Any) -> list[dict[str, Any]]:
    """The places of a body in which a run may say how long its answer may be."""
    if not isinstance(body, dict):
        return []
    inner = [body[name] for name in ("input", "inputs") if name in body]
    batch = body.get("requests")
    found = inner or (batch if isinstance(batch, list) else [body])
    return [place for place in found if isinstance(place, dict)]


def _is_much(value: Any) -> bool:
    return isinstance(value, int | float) and value > MAX_TOKENS
