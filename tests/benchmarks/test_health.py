from __future__ import annotations

import pytest
from benchmarks.health import PERIOD_S, ask, summary_ms
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.helpers.live_server import live_server


def answering(status: int) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await PlainTextResponse("", status)(scope, receive, send)

    return app


def test_percentiles_are_of_all_answers_in_milliseconds() -> None:
    figures = summary_ms([wait / 1000 for wait in range(101)])
    assert figures == {"p50_ms": pytest.approx(50), "p99_ms": pytest.approx(99), "max_ms": 100, "samples": 101}


def test_one_question_is_asked_per_period() -> None:
    with live_server(answering(200)) as url:
        assert ask(url, 5 * PERIOD_S)["samples"] == 5


def test_an_answer_that_is_not_200_ends_the_measurement() -> None:
    with live_server(answering(503)) as url, pytest.raises(RuntimeError, match="answered 503"):
        ask(url, 1)
