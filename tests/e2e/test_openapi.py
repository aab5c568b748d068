"""Schemathesis against the real server and the real model: every response is as the OpenAPI document declares."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.api.openapi.fuzzing import DRAWN_PHASES, fuzz
from tests.e2e.conftest import MODEL, run_model
from tests.helpers.servers import LiveServer


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_schemathesis_finds_no_fault_in_the_real_server(
    live_server: LiveServer, http: httpx.Client, tmp_path: Path
) -> None:
    created = http.post("/client/v4/accounts/local/ai/finetunes", json={"model": MODEL, "name": "empty"})
    assert created.status_code == 200, created.text
    fuzz(live_server.url, tmp_path, phases=DRAWN_PHASES, max_examples=25, deadline_s=500.0)
    assert http.get("/health").status_code == 200
    assert run_model(http, prompt="The capital of France is", max_tokens=4)["response"]
