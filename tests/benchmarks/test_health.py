from __future__ import annotations

import pytest
from benchmarks.health import PERIOD_S, measure_responses, summary_ms
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.helpers.live_server import live_server


def app_with_status(status: int) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await PlainTextResponse("", status)(scope, receive, send)

    return app


def test_percentiles_are_over_all_responses_in_milliseconds() -> None:
    figures = summary_ms([wait / 1000 for wait in range(101)])
    assert figures == {"p50_ms": pytest.approx(50), "p99_ms": pytest.approx(99), "max_ms": 100, "samples": 101}


def test_one_request_is_sent_per_period() -> None:
    with live_server(app_with_status(200)) as url:
        assert measure_responses(url, 5 * PERIOD_S)["samples"] == 5


def test_a_status_other_than_200_ends_the_measurement() -> None:
    with live_server(app_with_status(503)) as url, pytest.raises(RuntimeError, match="status 503"):
        measure_responses(url, 1)
